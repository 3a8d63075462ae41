/* Compiled programs on disk.
 *
 * Folder: GEMS_CACHE_DIR, else gems-preload in $XDG_CACHE_HOME or ~/.cache. One file a program, <hash of the key>.bin:
 * a header, the whole key (so that a collision of hashes is seen), the binary; both have a checksum.
 * The key is everything that the binary depends on: our version, platform, device, driver, options, source.
 * Races: a file is written under a name of its own and renamed; whoever is last wins, with the same content.
 * Trust: it is code that will run. A folder or a file that belongs to another user (but root), or that others may
 * write, is not used. Use: a file's mtime is its last use; when the folder exceeds GEMS_CACHE_MB the oldest go. Nothing
 * here is an error: whatever fails, the program is built from source, as without a cache. */
#include "kernels/device/internal.h"
#include "preload/base/config.h"
#include "preload/base/hash.h"
#include "preload/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC          UINT64_C(0x31304e4942534d47) /* "GMSBIN01" */
#define STALE_SECONDS  3600                         /* a temporary file of this age was left by a process that died */
#define LOOK_EVERY     16                           /* stores, for what other processes add */
#define NOT_LOOKED     (-((off_t)1 << 62))
#define LARGEST_BINARY ((size_t)1 << 30)

struct header {
    uint64_t magic, key_size, binary_size, key_sum, binary_sum;
};

/* ---- folder ---- */

static char folder[3072];
static pthread_once_t folder_once = PTHREAD_ONCE_INIT;

/* Makes the folder and those above it, for the user alone. */
static bool make_folder(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        (void)mkdir(path, 0700); /* the last one tells */
        *slash = '/';
    }
    struct stat st;
    return mkdir(path, 0700) == 0 || (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

/* Nobody else can have put it there, or changed it. */
static bool is_trusted(const struct stat *st)
{
    return (st->st_uid == geteuid() || st->st_uid == 0) && !(st->st_mode & (S_IWGRP | S_IWOTH));
}

static void find_folder(void)
{
    const gems_config *config = gems_config_get();
    const char *base = config->cache_dir, *below = "";

    if (config->cache_mb <= 0)
        return;
    if (!base) {
        below = "/gems-preload";
        base = secure_getenv("XDG_CACHE_HOME");
        if (!base || base[0] != '/') {
            base = secure_getenv("HOME");
            below = "/.cache/gems-preload";
        }
    }
    if (!base || !*base)
        return;
    struct stat st;
    int n = snprintf(folder, sizeof folder, "%s%s", base, below);
    const char *wrong = NULL;
    if (n < 0 || (size_t)n >= sizeof folder || !make_folder(folder) || stat(folder, &st) != 0)
        wrong = config->cache_dir ? "is no folder that can be used" : NULL; /* without a home it is nobody's fault */
    else if (is_trusted(&st))
        return;
    else
        wrong = "can be changed by other users";
    if (wrong)
        gems_complain("%s%.200s %s: kernels are built anew in every process",
                      config->cache_dir ? "GEMS_CACHE_DIR=" : "the cache's folder ",
                      config->cache_dir ? config->cache_dir : folder, wrong);
    folder[0] = 0;
}

const char *gems_cache_dir(void)
{
    pthread_once(&folder_once, find_folder);
    return *folder ? folder : NULL;
}

static bool file_name(const char *key, size_t key_size, char *out, size_t n)
{
    const char *dir = gems_cache_dir();
    int used =
        dir ? snprintf(out, n, "%s/%016llx%016llx.bin", dir, (unsigned long long)gems_hash_long(1, key, key_size),
                       (unsigned long long)gems_hash_long(2, key, key_size))
            : -1;
    return used > 0 && (size_t)used < n;
}

/* ---- files ---- */

static bool read_all(int fd, void *to, size_t n)
{
    for (char *p = to; n > 0;) {
        ssize_t got = read(fd, p, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got;
        n -= (size_t)got;
    }
    return true;
}

static bool write_all(int fd, const void *from, size_t n)
{
    for (const char *p = from; n > 0;) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        p += put;
        n -= (size_t)put;
    }
    return true;
}

/* The binary in an open file if the file is whole and of this key. */
static unsigned char *read_entry(int fd, const char *key, size_t key_size, size_t *size)
{
    struct header header;
    struct stat st;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || !is_trusted(&st))
        return NULL;
    if (!read_all(fd, &header, sizeof header) || header.magic != MAGIC || header.key_size != key_size ||
        header.binary_size == 0 || header.binary_size > LARGEST_BINARY ||
        header.key_sum != gems_hash_long(3, key, key_size) ||
        (uint64_t)st.st_size != sizeof header + key_size + header.binary_size)
        return NULL;
    unsigned char *data = malloc(key_size + header.binary_size);
    if (data && read_all(fd, data, key_size + header.binary_size) && memcmp(data, key, key_size) == 0 &&
        gems_hash_long(4, data + key_size, header.binary_size) == header.binary_sum) {
        memmove(data, data + key_size, header.binary_size);
        *size = header.binary_size;
        return data;
    }
    free(data);
    return NULL;
}

unsigned char *gems_cache_load(const char *key, size_t key_size, size_t *size)
{
    char path[4096];
    if (!file_name(key, key_size, path, sizeof path))
        return NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* something else may lie there, a pipe even */
    if (fd < 0)
        return NULL;
    unsigned char *binary = read_entry(fd, key, key_size, size);
    if (binary)
        (void)futimens(fd, NULL); /* used now; not ours or read-only: then its age does not change */
    close(fd);
    return binary;
}

/* ---- bound ---- */

static _Atomic off_t known = NOT_LOOKED; /* bytes that were there at the last look, and what was added since */
static _Atomic unsigned unlooked;        /* stores */

typedef struct entry {
    char name[64];
    struct timespec used;
    off_t size;
} entry;

static int older_first(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    return x->used.tv_nsec < y->used.tv_nsec ? -1 : x->used.tv_nsec > y->used.tv_nsec;
}

/* Ours are <32 hexadecimal digits>.bin and the temporary files that become them; nothing else is ever removed. */
static bool is_ours(const char *name)
{
    size_t hex = strspn(name, "0123456789abcdef");
    return hex == 32 && strncmp(name + hex, ".bin", 4) == 0 && strlen(name) < sizeof(((entry *)0)->name);
}

/* Reading a folder of thousands of files takes milliseconds: only if with `added` bytes more the bound may be exceeded,
 * by what is known of the folder, or others have had time to add theirs. */
static bool is_look_due(off_t bound, off_t added)
{
    off_t before = atomic_fetch_add(&known, added);
    return before < 0 || before + added > bound || atomic_fetch_add(&unlooked, 1) % LOOK_EVERY == LOOK_EVERY - 1;
}

static void trim(const char *dir, off_t added)
{
    off_t bound = (off_t)gems_config_get()->cache_mb << 20, total = 0;
    entry *list = NULL;
    size_t n = 0, room = 0;
    DIR *d = is_look_due(bound, added) ? opendir(dir) : NULL;
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (!is_ours(e->d_name) || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (strlen(e->d_name) > 36) {
            if (st.st_mtim.tv_sec + STALE_SECONDS < time(NULL))
                unlinkat(dirfd(d), e->d_name, 0);
            continue;
        }
        if (n == room) {
            entry *more = realloc(list, (room = room ? 2 * room : 64) * sizeof *more);
            if (!more)
                break;
            list = more;
        }
        memcpy(list[n].name, e->d_name, strlen(e->d_name) + 1); /* is_ours: it fits */
        list[n].used = st.st_mtim;
        list[n++].size = st.st_size;
        total += st.st_size;
    }
    if (list && total > bound) {
        qsort(list, n, sizeof *list, older_first);
        for (size_t i = 0; i < n && total > bound - bound / 8; i++) /* some room, so that the next one fits */
            if (unlinkat(dirfd(d), list[i].name, 0) == 0)
                total -= list[i].size;
    }
    atomic_store(&known, total);
    free(list);
    closedir(d);
}

void gems_cache_store(const char *key, size_t key_size, const unsigned char *bytes, size_t size)
{
    static _Atomic unsigned serial;
    char path[4096], temporary[4096 + 64];

    if (!file_name(key, key_size, path, sizeof path) || size == 0 || size > LARGEST_BINARY ||
        (uint64_t)size > (uint64_t)gems_config_get()->cache_mb << 20)
        return;
    snprintf(temporary, sizeof temporary, "%s.%ld-%u", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    struct header header = {MAGIC, key_size, size, gems_hash_long(3, key, key_size), gems_hash_long(4, bytes, size)};
    bool whole = write_all(fd, &header, sizeof header) && write_all(fd, key, key_size) && write_all(fd, bytes, size);
    if (close(fd) != 0 || !whole || rename(temporary, path) != 0) {
        unlink(temporary);
        return;
    }
    trim(gems_cache_dir(), (off_t)(sizeof header + key_size + size));
}

bool gems_cache_remember(gems_lane_state *lane, const char *question, bool (*try)(gems_lane_state *))
{
    static const unsigned char yes[] = "yes";
    char *key = NULL;
    size_t size = 0;
    int n = lane->identity ? asprintf(&key, "gems-preload %s\n%s%s\n", GEMS_VERSION, lane->identity, question) : -1;
    if (n < 0)
        return try(lane);
    unsigned char *answer = gems_cache_load(key, (size_t)n, &size);
    bool works = answer && size == sizeof yes && memcmp(answer, yes, size) == 0;
    if (!works && (works = try(lane)))
        gems_cache_store(key, (size_t)n, yes, sizeof yes);
    free(answer);
    free(key);
    return works;
}
