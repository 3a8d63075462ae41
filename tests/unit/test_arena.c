/* kernels/memory/{arena,block,purge}.c: blocks, their places, what they keep and what they give back. Each test is a
 * process, and has an arena of its own. */
#include "kernels/memory/blocks.h"
#include "preload/base/config.h"
#include "tests/unit/arena_jobs.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define SYS_MSEAL 462

#define KIB       ((size_t)1 << 10)
#define MIB       ((size_t)1 << 20)

TestSuite(arena, .timeout = 120);

static gems_arena_counts count(void)
{
    gems_arena_counts counts;
    gems_arena_count(&counts);
    return counts;
}

static char *take(size_t n)
{
    char *memory = gems_arena_take(n, false);
    cr_assert_not_null(memory, "%zu bytes", n);
    return memory;
}

/* Bytes of a range that have pages. */
static size_t resident(const char *from, size_t n)
{
    static unsigned char in_core[MIB];
    size_t pages = 0;
    cr_assert_eq(mincore((void *)from, n, in_core), 0);
    for (size_t i = 0; i < (n + 4095) / 4096; i++)
        pages += in_core[i] & 1;
    return pages * 4096;
}

/* Whether another thread could read the byte now. */
static bool readable(const char *address)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)address, 1};
    return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 1;
}

static bool writable(char *address)
{
    char byte = 7;
    struct iovec here = {&byte, 1}, there = {address, 1};
    return process_vm_writev(getpid(), &here, 1, &there, 1, 0) == 1;
}

Test(arena, sizes_and_alignment)
{
    cr_expect_null(gems_arena_take(0, false));
    cr_expect_null(gems_arena_take(SIZE_MAX, false));
    cr_expect_null(gems_arena_take((size_t)PTRDIFF_MAX, false));
    for (size_t n = 20; n <= 100 * MIB; n += n / 13) {
        char *memory = take(n);
        gems_block *block = gems_arena_find(memory);
        cr_assert(block && block->address == memory && block->taken && block->place == GEMS_PLACE_HOME);
        cr_expect_eq((uintptr_t)memory % (n >= 2 * MIB ? 2 * MIB : 4096), 0, "%zu bytes at %p", n, (void *)memory);
        cr_expect_geq(block->bytes, n);
        cr_expect_leq(block->bytes, n + n / 8 + 4096, "%zu bytes for %zu", block->bytes, n);
        memory[0] = memory[n - 1] = memory[block->bytes - 1] = 1;
        cr_expect(gems_arena_give(memory));
        cr_expect(!block->taken);
    }
}

Test(arena, neighbours_do_not_overlap)
{
    enum {
        N = 600 /* more than one run of these */
    };
    char *memory[N];
    for (int i = 0; i < N; i++) {
        memory[i] = take(((size_t)64 << 10) + (size_t)(i % 3) * 7000);
        memset(memory[i], i, gems_arena_find(memory[i])->bytes);
    }
    for (int i = 0; i < N; i++)
        for (size_t k = 0; k < gems_arena_find(memory[i])->bytes; k += 1000)
            cr_assert_eq(memory[i][k], (char)i);
}

Test(arena, interior_addresses_are_found_and_others_are_not)
{
    cr_expect_null(gems_arena_find(NULL));
    char *memory = take(3 * MIB - 100000), on_the_stack;
    gems_block *block = gems_arena_find(memory);
    for (size_t k = 0; k < block->bytes; k += 4097)
        cr_assert_eq(gems_arena_find(memory + k), block);
    cr_expect_eq(gems_arena_find(memory + block->bytes - 1), block);
    cr_expect_null(gems_arena_find(memory + block->bytes), "the gap up to 4 MiB");
    cr_expect_null(gems_arena_find(memory - 1));
    cr_expect_null(gems_arena_find(memory + 4 * MIB), "a block that was never taken");
    cr_expect_null(gems_arena_find(memory + gems_arena_shift), "a shadow");
    cr_expect_null(gems_arena_find(&on_the_stack));
    cr_expect_null(gems_arena_find((void *)UINTPTR_MAX));
    void *foreign = malloc(MIB);
    cr_expect(!gems_arena_give(foreign) && !gems_arena_give(NULL) && !gems_arena_give(&on_the_stack));
    free(foreign);
}

static void give_twice(void)
{
    char *memory = take(MIB);
    gems_arena_give(memory);
    gems_arena_give(memory);
}
Test(arena, a_second_free_ends_the_process, .signal = SIGABRT)
{
    give_twice();
}
Test(arena, a_free_inside_a_block_ends_the_process, .signal = SIGABRT)
{
    gems_arena_give(take(MIB) + 64);
}

Test(arena, freed_blocks_are_used_again)
{
    char *memory = take(5 * MIB);
    memset(memory, 1, 5 * MIB);
    for (size_t n = 5 * MIB; n > 5 * MIB - 300 * KIB; n -= 50 * KIB) {
        gems_arena_give(memory);
        cr_assert_eq(take(n), memory, "%zu bytes are of the same class", n);
    }
    gems_arena_counts c = count();
    cr_expect_eq(c.fresh, 1);
    cr_expect_eq(c.reused, c.taken - 1);
    cr_expect(c.given_back == 0 && c.free_bytes == 0);
    gems_arena_give(memory);
    cr_expect_eq(count().free_bytes, 5 * MIB);
    cr_expect_eq(count().live_bytes, 0);
    cr_expect_eq(resident(memory, 5 * MIB), 5 * MIB, "it keeps its pages");
    gems_arena_trim();
    cr_expect_eq(resident(memory, 5 * MIB), 0);
    cr_expect_eq(count().given_back, 5 * MIB);
    cr_expect_eq(count().free_bytes, 0);
    cr_expect_eq(take(5 * MIB), memory, "address space is used again, too");
    cr_expect_eq(count().reused, c.reused, "without pages it counts as fresh");
}

/* ---- places ---- */

Test(arena, contents_move_with_the_pages)
{
    for (size_t n = 64 * KIB; n <= 9 * MIB; n += n / 3) { /* small pages, huge ones, both */
        char *memory = take(n);
        gems_block *block = gems_arena_find(memory);
        for (size_t k = 0; k < n; k++)
            memory[k] = (char)(k * 7 + k / 4096);
        cr_assert(gems_block_hide(block));
        cr_assert_eq(block->place, GEMS_PLACE_HIDDEN);
        cr_assert(gems_block_hide(block), "it is already");
        for (size_t k = 0; k < n; k += 1021)
            cr_assert(!readable(memory + k));
        char *shadow = gems_block_shadow(block);
        for (size_t k = 0; k < n; k++)
            cr_assert_eq(shadow[k], (char)(k * 7 + k / 4096));
        memset(shadow, 5, n);
        cr_assert(gems_block_show(block));
        cr_assert_eq(block->place, GEMS_PLACE_HOME);
        for (size_t k = 0; k < n; k++)
            cr_assert_eq(memory[k], 5);
        memory[n - 1] = 6;
        cr_assert(gems_block_protect(block));
        cr_assert_eq(block->place, GEMS_PLACE_READ_ONLY);
        cr_expect(readable(memory) && readable(memory + n - 1) && !writable(memory) && !writable(memory + n - 1));
        cr_assert(gems_block_hide(block), "from read-only");
        cr_assert_eq(gems_block_shadow(block)[n - 1], 6);
        gems_block_shadow(block)[0] = 8;
        cr_assert(!gems_block_protect(block), "what is hidden cannot be read");
        cr_assert(gems_block_show(block) && memory[0] == 8 && writable(memory));
        gems_arena_give(memory);
    }
}

Test(arena, a_block_of_many_mappings_moves)
{
    size_t n = 11 * MIB;
    char *memory = take(n);
    gems_block *block = gems_arena_find(memory);
    for (size_t k = 0; k < n; k += 4096)
        memory[k] = (char)(k / 4096 * 3);
    cr_assert_eq(madvise(memory + 2 * MIB, 2 * MIB, MADV_DONTDUMP), 0); /* as a program may do */
    cr_assert_eq(madvise(memory + 8 * MIB, 2 * MIB, MADV_DONTDUMP), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert(gems_block_hide(block));
        cr_assert(!readable(memory) && !readable(memory + 3 * MIB) && !readable(memory + n - 1));
        cr_assert(gems_block_show(block));
        for (size_t k = 0; k < n; k += 4096)
            cr_assert_eq(memory[k], (char)(k / 4096 * 3));
    }
}

Test(arena, what_cannot_move_stays_as_it_is)
{
    size_t n = 11 * MIB;
    char *memory = take(n);
    gems_block *block = gems_arena_find(memory);
    for (size_t k = 0; k < n; k += 4096)
        memory[k] = (char)(k / 4096 * 3);
    if (syscall(SYS_MSEAL, memory + 5 * MIB, 4096, 0) != 0)
        cr_skip_test("mseal: Linux 6.10");
    cr_expect(!gems_block_hide(block)); /* closed before it is moved */
    cr_expect_eq(block->place, GEMS_PLACE_HOME);
    cr_expect(writable(memory + 4095) && writable(memory + 3 * MIB + 1) && writable(memory + n - 1));
    for (size_t k = 0; k < n; k += 4096)
        cr_assert_eq(memory[k], (char)(k / 4096 * 3));
    gems_arena_give(memory);
    cr_expect_null(gems_arena_take(n, true)); /* moved before it is closed */
    cr_assert_eq(take(n), memory);
    cr_expect_eq(block->place, GEMS_PLACE_HOME);
    for (size_t k = 0; k < n; k += 4096)
        cr_assert_eq(memory[k], (char)(k / 4096 * 3));
    cr_expect(writable(memory + 4095) && writable(memory + 3 * MIB + 1) && writable(memory + n - 1));
}

Test(arena, what_cannot_be_shown_stays_hidden)
{
    size_t n = 11 * MIB;
    char *memory = gems_arena_take(n, true), *shadow;
    cr_assert_not_null(memory);
    gems_block *block = gems_arena_find(memory);
    memset(shadow = gems_block_shadow(block), 5, n);
    if (syscall(SYS_MSEAL, shadow + 9 * MIB, 4096, 0) != 0)
        cr_skip_test("mseal: Linux 6.10");
    cr_expect(!gems_block_show(block));
    cr_expect_eq(block->place, GEMS_PLACE_HIDDEN);
    for (size_t k = 0; k < n; k += 4096) {
        cr_assert(!readable(memory + k));
        cr_assert_eq(shadow[k], 5);
    }
    memset(shadow, 6, n);
}

Test(arena, huge_and_small_pages_change_between_uses)
{
    static const size_t sizes[] = {8 * MIB, 15 * MIB / 2 + 1, 31 * MIB / 4, 8 * MIB};
    for (unsigned i = 0; i < 16; i++) {
        size_t n = sizes[i * 7 % 4];
        bool hidden = i % 3 == 0;
        char *memory = gems_arena_take(n, hidden);
        cr_assert_not_null(memory, "%u", i);
        gems_block *block = gems_arena_find(memory);
        memset(hidden ? gems_block_shadow(block) : memory, (int)i + 1, n);
        cr_assert(hidden ? gems_block_show(block) : gems_block_hide(block) && gems_block_show(block), "%u", i);
        for (size_t k = 0; k < n; k += 4096)
            cr_assert_eq(memory[k], (char)(i + 1));
        gems_arena_give(memory);
        if (i % 2)
            gems_arena_trim();
    }
}

Test(arena, each_place_has_its_free_blocks)
{
    char *home = take(MIB), *hidden = gems_arena_take(MIB, true);
    cr_assert_not_null(hidden);
    cr_assert(!readable(hidden));
    memset(gems_block_shadow(gems_arena_find(hidden)), 3, MIB);
    memset(home, 4, MIB);
    for (int i = 0; i < 3; i++) { /* in either order, each gets its own */
        gems_arena_give(i % 2 ? home : hidden);
        gems_arena_give(i % 2 ? hidden : home);
        cr_expect_eq(gems_arena_take(MIB, true), hidden);
        cr_expect_eq(take(MIB), home);
    }
    gems_arena_give(hidden);
    cr_expect_eq(resident(hidden + gems_arena_shift, MIB), MIB);
    gems_arena_trim();
    cr_expect_eq(resident(hidden + gems_arena_shift, MIB), 0, "pages of hidden blocks are at their shadows");

    cr_assert_eq(gems_arena_take(MIB, true), hidden);
    gems_arena_give(hidden);
    cr_assert_eq(take(MIB), hidden, "changed in place");
    hidden[MIB - 1] = 1;
    cr_assert(gems_block_protect(gems_arena_find(hidden)));
    gems_arena_give(hidden);
    cr_assert_eq(take(MIB), hidden);
    hidden[0] = 1; /* not read-only any more */
}

/* Another thread never sees a word that is not finished: neither what is written meanwhile nor an empty page. */
static char *shown;
static size_t shown_bytes;
static _Atomic uint64_t finished;
static atomic_bool done;

static void *watch_words(void *unused)
{
    uint64_t seen = 0, reads = 0, word;
    unsigned state = 1;
    (void)unused;
    while (!done || reads == 0) {
        char *at = shown + (size_t)rand_r(&state) % (shown_bytes / 8) * 8;
        struct iovec here = {&word, 8}, there = {at, 8};
        if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) != 8)
            continue; /* hidden */
        /* Finished before the block was shown, and never older than what was seen before. */
        if (word < seen || word > finished)
            return (void *)at;
        seen = word;
        reads++;
    }
    return NULL;
}

Test(arena, no_thread_sees_a_block_that_is_not_finished)
{
    for (size_t n = 128 * KIB; n <= 8 * MIB; n *= 4) {
        pthread_t thread;
        uint64_t *words = (uint64_t *)(shown = take(n)), generation = finished;
        gems_block *block = gems_arena_find(words);
        shown_bytes = n;
        done = false;
        for (size_t k = 0; k < n / 8; k++)
            words[k] = generation;
        cr_assert_eq(pthread_create(&thread, NULL, watch_words, NULL), 0);
        for (int i = 0; i < 200; i++) {
            cr_assert(gems_block_hide(block));
            uint64_t *shadow = (uint64_t *)gems_block_shadow(block);
            memset(shadow, 0xff, n); /* garbage */
            if (i % 2)
                madvise(shadow, n, MADV_DONTNEED); /* or no page at all */
            generation++;
            for (size_t k = 0; k < n / 8; k++)
                shadow[k] = generation;
            finished = generation;
            cr_assert(gems_block_show(block));
        }
        void *wrong;
        done = true;
        pthread_join(thread, &wrong);
        cr_assert_null(wrong, "%zu bytes", n);
        gems_arena_give(words);
    }
}

/* ---- the layer above ---- */

static gems_block *kept;
static bool keeps_it;

static bool keeps(gems_block *block)
{
    kept = block;
    return keeps_it;
}

Test(arena, whom_a_block_belongs_to_is_asked)
{
    gems_arena_on_give(keeps);
    char *memory = take(MIB);
    gems_arena_give(memory);
    cr_expect_null(kept, "it was nobody's");
    cr_assert_eq(take(MIB), memory);
    gems_block *block = gems_arena_find(memory);
    block->user = &block;
    keeps_it = true;
    cr_assert(gems_arena_give(memory));
    cr_expect_eq(kept, block);
    cr_expect(!block->taken);
    cr_expect_neq(take(MIB), memory, "it is not free yet");
    block->user = NULL;
    gems_arena_recycle(block);
    cr_expect_eq(take(MIB), memory);
    block->user = &block;
    keeps_it = false;
    gems_arena_give(memory);
    cr_expect_eq(take(MIB), memory);
}

/* ---- how much memory ---- */

static size_t peak_rss(void)
{
    char line[256];
    size_t kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %zu", &kib) == 1)
            break;
    fclose(f);
    return kib * KIB;
}

/* Fills `all` bytes with blocks of n bytes and frees them. */
static void fill(size_t n, size_t all)
{
    static char *blocks[4096];
    size_t count_of = all / n;
    for (size_t i = 0; i < count_of; i++)
        memset(blocks[i] = take(n), 1, n);
    for (size_t i = 0; i < count_of; i++)
        gems_arena_give(blocks[i]);
}

Test(arena, pages_are_bounded_by_what_was_in_use_at_once)
{
    static const size_t sizes[] = {70 * KIB,    100 * KIB,       256 * KIB,      1000 * KIB, 3 * MIB - 9,
                                   4 * MIB + 1, 2100 * KIB + 77, 8 * MIB + 4096, 16 * MIB,   5 * MIB + 1 * KIB};
    size_t before = peak_rss(), all = 128 * MIB;
    for (unsigned i = 0; i < 3 * sizeof sizes / sizeof *sizes; i++)
        fill(sizes[i * 7 % (sizeof sizes / sizeof *sizes)], all);
    gems_arena_counts c = count();
    cr_expect_leq(c.peak_bytes, all + all / 16, "whole pages");
    cr_expect_leq(c.peak_resident_bytes, c.peak_bytes + c.peak_bytes / 8 + 4 * MIB);
#ifndef GEMS_SANITIZED
    cr_expect_leq(peak_rss() - before, c.peak_bytes + c.peak_bytes / 8 + 8 * MIB, "%zu KiB",
                  (peak_rss() - before) / KIB);
#else
    (void)before;
#endif
}

Test(arena, a_larger_block_serves_where_new_pages_would_be_too_many)
{
    char *large = take(120 * MIB / 8);
    memset(large, 1, 120 * MIB / 8);
    gems_arena_give(large);
    char *memory = take(10 * MIB);
    cr_expect_eq(memory, large);
    cr_expect_eq(resident(large, 15 * MIB), 10 * MIB, "and gives back what it does not need");
    memset(memory, 2, 10 * MIB);
    gems_arena_give(memory);
    cr_expect_eq(take(15 * MIB), large);
}

Test(arena, huge_pages_only_where_a_block_fills_them)
{
    char *memory = take(2 * MIB + 100 * KIB);
    memset(memory, 1, 2 * MIB + 100 * KIB);
    cr_expect_eq(resident(memory, 4 * MIB), 2 * MIB + 100 * KIB);
    gems_arena_give(memory);
    gems_arena_trim();
    char *larger = take(2 * MIB + 200 * KIB); /* of the same class */
    cr_expect_eq(larger, memory);
    larger[0] = larger[2 * MIB] = 1;
    cr_expect_leq(resident(memory, 4 * MIB), 2 * MIB + 4 * KIB);
}

static void limit_of_4_mib(void)
{
    setenv("GEMS_POOL_LIMIT", "4", 1);
}
Test(arena, free_bytes_have_a_limit, .init = limit_of_4_mib)
{
    for (int i = 0; i < 20; i++) {
        fill(MIB, 16 * MIB);
        cr_expect_leq(count().free_bytes, 4 * MIB);
    }
    fill(10 * MIB, 10 * MIB);
    cr_expect_leq(count().free_bytes, 4 * MIB);
}

static void switched_off(void)
{
    setenv("GEMS_POOL", "0", 1);
}
Test(arena, can_be_switched_off, .init = switched_off)
{
    cr_expect_null(gems_arena_take(MIB, false));
    cr_expect_null(gems_arena_take(MIB, true));
    cr_expect_null(gems_arena_find(&switched_off));
}

static void limit_address_space(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = (rlim_t)1 << 46; /* large enough for sanitizers */
    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
}
Test(arena, is_off_where_address_space_is_limited, .init = limit_address_space)
{
    cr_expect_null(gems_arena_take(MIB, false));
}

Test(arena, address_space_ends)
{
    enum {
        N = 100000
    };
    static char *blocks[N];
    size_t n = gems_arena_take(MIB, false) ? gems_blocks_most() : 0;
    int taken = 0;
    while (taken < N && (blocks[taken] = gems_arena_take(n, false)))
        taken++;
    cr_assert(taken > 0 && taken < N, "%d of %zu bytes", taken, n);
    for (n = 32 * MIB; taken < N && (blocks[taken] = gems_arena_take(n, false));)
        taken++;
    cr_assert(taken < N);
    cr_expect_null(gems_arena_take(n, true));
    gems_arena_give(blocks[taken - 1]);
    cr_expect_eq(take(n), blocks[taken - 1], "what was given back serves");
}

/* ---- the thread that gives back ---- */

static int threads(void)
{
    int n = 0;
    DIR *folder = opendir("/proc/self/task");
    for (struct dirent *e; (e = readdir(folder));)
        n += e->d_name[0] != '.';
    closedir(folder);
    return n;
}

/* Waits, for a minute at most. */
static void await(bool (*comes)(void))
{
    for (int i = 0; i < 6000 && !comes(); i++)
        usleep(10000);
}

static bool nothing_is_free(void)
{
    return count().free_bytes == 0;
}
static int threads_before;
static bool thread_is_gone(void)
{
    return threads() == threads_before;
}

Test(arena, an_idle_program_gets_its_memory_back)
{
    threads_before = threads();
    char *memory = take(4 * MIB);
    cr_expect(thread_is_gone(), "none before anything is free");
    for (int i = 0; i < 2; i++) {
        memset(memory, 1, 4 * MIB);
        gems_arena_give(memory);
        await(nothing_is_free);
        cr_assert(nothing_is_free());
        cr_expect_eq(resident(memory, 4 * MIB), 0);
        await(thread_is_gone);
        cr_assert(thread_is_gone());
        cr_assert_eq(take(4 * MIB), memory);
    }
}

/* Threads that block signals which a program may want. */
static int deaf_threads(void)
{
    DIR *folder = opendir("/proc/self/task");
    int n = 0;
    for (struct dirent *e; (e = readdir(folder));) {
        char path[300], line[256];
        unsigned long long blocked = 0;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
        while (f && fgets(line, sizeof line, f))
            if (sscanf(line, "SigBlk: %llx", &blocked) == 1)
                break;
        if (f)
            fclose(f);
        n += (blocked >> (SIGTERM - 1) & 1) && (blocked >> (SIGUSR1 - 1) & 1);
    }
    closedir(folder);
    return n;
}

Test(arena, its_thread_takes_no_signal_and_no_descriptor)
{
    int lowest = dup(0), deaf = deaf_threads();
    close(lowest);
    threads_before = threads();
    gems_arena_give(take(4 * MIB));
    cr_assert_eq(threads(), threads_before + 1);
    cr_expect_eq(deaf_threads(), deaf + 1);
    while (!nothing_is_free()) {
        int fd = dup(0);
        cr_assert_eq(fd, lowest);
        close(fd);
    }
}

/* ---- shortage ---- */

static char root[] = "/tmp/arena-XXXXXX";

static void put_file(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f, "%s", path);
    fputs(text, f);
    fclose(f);
}

Test(arena, shortage_of_the_machine_and_of_groups)
{
    cr_assert_not_null(mkdtemp(root));
    cr_expect(!gems_memory_is_short(root), "nothing is known");
    put_file("proc/meminfo", "MemTotal:       1000000 kB\nMemFree: 5 kB\nMemAvailable:    500000 kB\n");
    cr_expect(!gems_memory_is_short(root));
    put_file("proc/meminfo", "MemTotal:       1000000 kB\nMemFree: 5 kB\nMemAvailable:    20000 kB\n");
    cr_expect(gems_memory_is_short(root));
    put_file("proc/meminfo", "MemTotal:       1000000 kB\nMemFree: 5 kB\nMemAvailable:    500000 kB\n");

    put_file("proc/self/cgroup", "0::/a/b\n");
    put_file("sys/fs/cgroup/a/b/memory.max", "max\n");
    put_file("sys/fs/cgroup/a/b/memory.current", "990\n");
    cr_expect(!gems_memory_is_short(root));
    put_file("sys/fs/cgroup/a/b/memory.max", "1000\n");
    cr_expect(gems_memory_is_short(root));
    put_file("sys/fs/cgroup/a/b/memory.stat", "anon 600\ninactive_file 300\nactive_file 90\n");
    cr_expect(!gems_memory_is_short(root), "files in the cache can go");
    put_file("sys/fs/cgroup/a/memory.max", "2000\n");
    put_file("sys/fs/cgroup/a/memory.current", "1950\n");
    cr_expect(gems_memory_is_short(root), "a group above");
    put_file("sys/fs/cgroup/a/memory.max", "4000\n");
    cr_expect(!gems_memory_is_short(root));
    put_file("sys/fs/cgroup/memory.max", "100\n");
    put_file("sys/fs/cgroup/memory.current", "100\n");
    cr_expect(gems_memory_is_short(root), "that of a container");
    put_file("sys/fs/cgroup/memory.max", "max\n");

    put_file("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/m\n0::/\n");
    put_file("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "1000\n");
    put_file("sys/fs/cgroup/memory/m/memory.usage_in_bytes", "900\n");
    cr_expect(!gems_memory_is_short(root));
    put_file("sys/fs/cgroup/memory/m/memory.usage_in_bytes", "999\n");
    cr_expect(gems_memory_is_short(root));
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", root);
    cr_expect_eq(system(command), 0);
}

/* ---- fork, threads ---- */

Test(arena, parent_and_child_go_their_own_ways)
{
    char *memory = take(5 * MIB), *hidden = gems_arena_take(MIB, true), *unused = take(8 * MIB);
    memset(memory, 1, 5 * MIB);
    memset(gems_block_shadow(gems_arena_find(hidden)), 2, MIB);
    memset(unused, 3, 8 * MIB);
    gems_arena_give(unused);
    pid_t child = fork();
    if (child == 0) {
        int wrong = memory[0] != 1 || memory[5 * MIB - 1] != 1 || resident(unused, 8 * MIB) != 0;
        memset(memory, 9, 5 * MIB);
        wrong += !gems_block_show(gems_arena_find(hidden)) || hidden[MIB - 1] != 2;
        gems_arena_give(memory);
        wrong += take(5 * MIB) != memory || take(8 * MIB) != unused;
#ifndef GEMS_SANITIZED /* AddressSanitizer's allocator may have been locked by another thread: the child's would wait  \
                          for ever */
        threads_before = threads();
        gems_arena_give(memory); /* a thread of its own gives it back */
        await(nothing_is_free);
        wrong += !nothing_is_free();
#endif
        _exit(wrong);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
    cr_expect_eq(resident(unused, 8 * MIB), 0, "there was nothing to be copied");
    for (size_t k = 0; k < 5 * MIB; k += 4096)
        cr_assert_eq(memory[k], 1);
    cr_expect(!readable(hidden));
    cr_expect_eq(gems_block_shadow(gems_arena_find(hidden))[5], 2);
}

Test(arena, threads_free_what_others_took)
{
    cr_expect_eq(use_arena_in_threads(), 0);
}

/* Children that are made while other threads take and give can do so, too. */
static void *use_arena_on(void *stop)
{
    while (!*(atomic_bool *)stop) {
        char *memory = take(200 * KIB);
        memory[0] = 1;
        gems_arena_give(memory);
    }
    return NULL;
}

Test(arena, forks_amid_other_threads)
{
    pthread_t thread[3];
    atomic_bool stop = false;
    for (int i = 0; i < 3; i++)
        pthread_create(&thread[i], NULL, use_arena_on, &stop);
    for (int i = 0; i < 100; i++) {
        pid_t child = fork();
        if (child == 0) {
            for (int k = 0; k < 20; k++)
                gems_arena_give(take(200 * KIB));
            gems_arena_trim();
            _exit(0);
        }
        int status;
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert_eq(status, 0);
    }
    stop = true;
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
}
