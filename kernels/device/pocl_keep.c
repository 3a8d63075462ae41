/* Keeping what PoCL compiles where a program's binary does not hold it: the code for work-groups of a size that was
 * first launched later, and everything of devices that are not asked for binaries. Called by pocl.c.
 *
 * The files of PoCL's folder are packed into an entry of our cache, where they have a checksum, and unpacked before
 * PoCL looks for them. Their names hold PoCL's own hash of the program; we do not know it, but they are the newest. */
#include "kernels/device/pocl.h"

#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_BYTES ((off_t)64 << 20) /* of one file */

/* Before each file. */
struct file_header {
    uint32_t path, bytes; /* bytes of the path, which is relative to the folder; of the content */
};

static bool newer(const struct stat *a, const struct timespec *b)
{
    return a->st_mtim.tv_sec != b->tv_sec ? a->st_mtim.tv_sec > b->tv_sec : a->st_mtim.tv_nsec >= b->tv_nsec;
}

/* Bytes of the path up to the end of its folder for one program, XX/<hash>/. */
static size_t program_part(const char *path, size_t folder)
{
    const char *p = path + folder;
    for (int i = 0; i < 2; i++)
        p += strcspn(p, "/") + 1;
    return (size_t)(p - path);
}

static bool pack(FILE *out, const char *path, size_t folder)
{
    struct stat st;
    bool whole = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *bytes = NULL;
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size < MOST_BYTES &&
        (bytes = malloc((size_t)st.st_size)) && read(fd, bytes, (size_t)st.st_size) == st.st_size) {
        struct file_header h = {(uint32_t)strlen(path + folder), (uint32_t)st.st_size};
        fwrite(&h, sizeof h, 1, out);
        fwrite(path + folder, h.path, 1, out);
        whole = fwrite(bytes, h.bytes, 1, out) == 1;
    }
    free(bytes);
    if (fd >= 0)
        close(fd);
    return whole;
}

bool gems_pocl_keep(const char *key, const char *pattern, const struct timespec *since)
{
    const char *folder = gems_pocl_folder();
    size_t length = folder ? strlen(folder) + 1 : 0, size = 0;
    char *full = NULL, *packed = NULL;
    const char *newest = NULL;
    struct timespec when = *since;
    struct stat st;
    glob_t found;
    bool whole = false;

    if (!folder || asprintf(&full, "%s/%s", folder, pattern) < 0)
        return false;
    if (glob(full, GLOB_NOSORT, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++)
            if (stat(found.gl_pathv[i], &st) == 0 && newer(&st, &when)) {
                newest = found.gl_pathv[i];
                when = st.st_mtim;
            }
        FILE *out = newest ? open_memstream(&packed, &size) : NULL;
        whole = out != NULL;
        for (size_t i = 0; i < found.gl_pathc && whole; i++)
            if (strncmp(found.gl_pathv[i], newest, program_part(newest, length)) == 0)
                whole = pack(out, found.gl_pathv[i], length);
        whole = out && fclose(out) == 0 && whole;
        if (whole)
            gems_cache_store(key, strlen(key), (unsigned char *)packed, size);
        free(packed);
        globfree(&found);
    }
    free(full);
    return whole;
}

/* Makes the file unless it is there: whole, or not at all. */
static bool unpack(const char *folder, const char *name, size_t length, const unsigned char *bytes, size_t n)
{
    char path[4096], made[4096 + 8];
    if ((size_t)snprintf(path, sizeof path, "%s/%.*s", folder, (int)length, name) >= sizeof path)
        return false;
    if (access(path, F_OK) == 0)
        return true;
    for (char *slash = strchr(path + strlen(folder) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    snprintf(made, sizeof made, "%s.made", path);
    int fd = open(made, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    bool whole = fd >= 0 && write(fd, bytes, n) == (ssize_t)n;
    if (fd >= 0 && close(fd) != 0)
        whole = false;
    if (whole && rename(made, path) == 0)
        return true;
    unlink(made);
    return false;
}

bool gems_pocl_bring(const char *key)
{
    const char *folder = gems_pocl_folder();
    size_t size = 0;
    unsigned char *packed = folder ? gems_cache_load(key, strlen(key), &size) : NULL, *p = packed;
    bool whole = packed != NULL;
    while (whole && size > 0) {
        struct file_header h;
        if (size < sizeof h)
            break;
        memcpy(&h, p, sizeof h);
        p += sizeof h;
        size -= sizeof h;
        whole = h.path <= size && h.bytes <= size - h.path && unpack(folder, (char *)p, h.path, p + h.path, h.bytes);
        if (whole) {
            p += h.path + h.bytes;
            size -= h.path + h.bytes;
        }
    }
    free(packed);
    return whole;
}
