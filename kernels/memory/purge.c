/* Giving pages of free blocks back to the system: those that have been free for longest, when there would be too many;
 * all of them when the program is idle or memory is short. A thread sees to the latter. It begins when a block is freed
 * and ends when no free block has pages, so that no process lives longer for it. */
#include "kernels/memory/blocks.h"
#include "preload/base/config.h"
#include "preload/base/file.h"
#include "preload/base/text.h"
#include "preload/base/thread.h"

#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* In milliseconds. */
#define TICK      250
#define IDLE      1000  /* without a block taken: the program does something else */
#define UNUSED    10000 /* a block that waits for so long in a busy program is not needed in its loop */
#define TRY_AGAIN 10000 /* after the thread could not be started */

static pthread_mutex_t purging = PTHREAD_MUTEX_INITIALIZER; /* held while a block is in no list */
static atomic_bool running;                                 /* the thread */
static _Atomic uint64_t start_from;                         /* not before that time: it failed */

uint64_t gems_purge_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The list whose oldest block was freed first, and before `until`; NULL: none. */
static gems_blocks *find_oldest(uint64_t until, gems_size_class **of)
{
    gems_blocks *oldest = NULL;
    for (unsigned i = 0; i < GEMS_ARENA_CLASSES; i++)
        for (int hidden = 0; hidden < 2; hidden++) {
            gems_blocks *list = &gems_size_classes[i].waiting[hidden];
            uint64_t since = atomic_load_explicit(&list->since, memory_order_relaxed);
            if (since >= until)
                continue;
            until = since;
            oldest = list;
            *of = &gems_size_classes[i];
        }
    return oldest;
}

/* Drops the pages of the list's oldest block; how many bytes. */
static size_t drop_oldest(gems_size_class *c, gems_blocks *list)
{
    pthread_mutex_lock(&c->lock);
    gems_block *block = list->oldest;
    if (block)
        gems_blocks_pull(list, block);
    pthread_mutex_unlock(&c->lock);
    if (!block)
        return 0;
    size_t before = block->resident;
    gems_block_drop(block, 0);
    size_t bytes = before - block->resident;
    block->resident = 0;
    atomic_fetch_sub(&gems_sums.waiting, before);
    atomic_fetch_sub(&gems_sums.resident, before);
    atomic_fetch_add(&gems_sums.given_back, bytes);
    pthread_mutex_lock(&c->lock);
    gems_blocks_push(&c->empty[block->place == GEMS_PLACE_HIDDEN], block);
    pthread_mutex_unlock(&c->lock);
    return before;
}

/* Drops pages of blocks that were freed before `until`, the oldest first, until `bytes` are gone. */
static void drop(size_t bytes, uint64_t until)
{
    gems_size_class *c = NULL;
    gems_blocks *list;
    pthread_mutex_lock(&purging);
    for (size_t gone = 0; gone < bytes && (list = find_oldest(until, &c));)
        gone += drop_oldest(c, list);
    pthread_mutex_unlock(&purging);
}

void gems_purge(size_t bytes)
{
    drop(bytes, UINT64_MAX);
}

void gems_arena_trim(void)
{
    drop(SIZE_MAX, UINT64_MAX);
}

/* ---- is memory short? ---- */

/* The number after `key` in the file; UINT64_MAX if there is none. An empty key: the file is one number. */
static uint64_t read_number(const char *root, const char *folder, const char *file, const char *key)
{
    char path[1024];
    snprintf(path, sizeof path, "%s%s%s", root, folder, file);
    char *text = gems_read_file(path, 1 << 16), *at = text;
    if (text && *key) {
        char line[64];
        snprintf(line, sizeof line, "\n%s", key);
        at = strncmp(text, key, strlen(key)) == 0 ? text + strlen(key) : strstr(text, line);
        at += at && at != text + strlen(key) ? strlen(line) : 0;
    }
    uint64_t number = UINT64_MAX;
    if (at && sscanf(at, "%lu", &number) != 1)
        number = UINT64_MAX;
    free(text);
    return number;
}

static bool nearly_full(uint64_t used, uint64_t all)
{
    return used < UINT64_MAX && all < UINT64_MAX && used >= all - all / 16;
}

/* In a group of version 2, what counts against memory.max includes files in the cache, which can go. */
static bool group_is_full(const char *root, const char *folder)
{
    uint64_t most = read_number(root, folder, "/memory.max", "");
    if (most == UINT64_MAX) /* "max", or no such file */
        return false;
    uint64_t used = read_number(root, folder, "/memory.current", "");
    uint64_t idle = read_number(root, folder, "/memory.stat", "inactive_file ");
    uint64_t busy = read_number(root, folder, "/memory.stat", "active_file ");
    uint64_t files = (idle < UINT64_MAX ? idle : 0) + (busy < UINT64_MAX ? busy : 0);
    return nearly_full(used - (used > files ? files : 0), most);
}

/* The process's group in /proc/self/cgroup and those above it. */
static bool some_group_is_full(const char *root)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    char *text = gems_read_file(path, 1 << 16);
    bool full = false;
    const char *lines = text, *line;
    for (size_t n; text && !full && (n = gems_word(&lines, "\n", &line));) {
        const char *controllers = memchr(line, ':', n), *group = NULL;
        if (controllers)
            group = memchr(controllers + 1, ':', n - (size_t)(controllers + 1 - line));
        if (!group)
            continue;
        bool first = group - controllers - 1 == 6 && strncmp(controllers + 1, "memory", 6) == 0;
        if (!first && group != controllers + 1)
            continue;
        char folder[512];
        int length = snprintf(folder, sizeof folder, "/sys/fs/cgroup%s%.*s", first ? "/memory" : "",
                              (int)(line + n - group - 1), group + 1);
        if (length >= (int)sizeof folder)
            continue;
        if (first) {
            full = nearly_full(read_number(root, folder, "/memory.usage_in_bytes", ""),
                               read_number(root, folder, "/memory.limit_in_bytes", ""));
            continue;
        }
        for (char *slash; !full && strlen(folder) >= strlen("/sys/fs/cgroup"); *slash = 0) {
            full = group_is_full(root, folder);
            slash = strrchr(folder, '/');
        }
    }
    free(text);
    return full;
}

bool gems_memory_is_short(const char *root)
{
    uint64_t all = read_number(root, "/proc/meminfo", "", "MemTotal:");
    uint64_t left = read_number(root, "/proc/meminfo", "", "MemAvailable:");
    return (all < UINT64_MAX && left < all / 32) || some_group_is_full(root);
}

/* ---- the thread ---- */

static uint64_t count_taken(void)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < GEMS_ARENA_CLASSES; i++)
        n += atomic_load_explicit(&gems_size_classes[i].taken, memory_order_relaxed);
    return n;
}

static void *watch(void *unused)
{
    uint64_t taken = count_taken(), busy = gems_purge_now();
    /* With a table of files of its own, an empty one: the program's next file must get the number that it would. (glibc
     * has close_range since 2.34.) */
    bool may_open = syscall(SYS_close_range, 0U, ~0U, CLOSE_RANGE_UNSHARE) == 0;
    (void)unused;
    do {
        while (gems_sums.waiting > 0) {
            nanosleep(&(struct timespec){.tv_nsec = TICK * 1000000L}, NULL);
            uint64_t now = gems_purge_now(), before = taken;
            taken = count_taken();
            if (taken != before)
                busy = now;
            if (now - busy >= IDLE || (may_open && gems_memory_is_short("")))
                gems_arena_trim();
            else if (now > UNUSED)
                drop(SIZE_MAX, now - UNUSED);
        }
        running = false;
    } while (gems_sums.waiting > 0 && !atomic_exchange(&running, true));
    return NULL;
}

/* On a small stack, or where thread-local memory of many libraries leaves nothing of that, on one of the usual size. */
static bool start_thread(void)
{
    return gems_thread_start(NULL, (size_t)256 << 10, watch, NULL) ||
           gems_thread_start(NULL, (size_t)8 << 20, watch, NULL);
}

void gems_purge_later(void)
{
    int64_t limit = gems_config_get()->pool_limit;
    size_t waiting = gems_sums.waiting;
    if (limit >= 0 && waiting > (size_t)limit << 20)
        gems_purge(waiting - ((size_t)limit << 20));
    if (running || gems_sums.waiting == 0 || gems_purge_now() < start_from || atomic_exchange(&running, true))
        return;
    if (!start_thread()) {
        start_from = gems_purge_now() + TRY_AGAIN;
        running = false;
    }
}

void gems_purge_before_fork(void)
{
    pthread_mutex_lock(&purging);
}

void gems_purge_after_fork(bool child)
{
    if (child)
        running = false;
    pthread_mutex_unlock(&purging);
}
