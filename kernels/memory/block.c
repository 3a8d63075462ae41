/* Blocks: where they lie, and changes of their place.
 *
 * One reservation of address space holds the host's ranges, then the shadow of each at the same distance, then the
 * descriptors. It is handed out in chunks, one after the other, to runs: neighbouring blocks of one size. A chunk
 * becomes accessible as a whole and is next to the one before, so that home blocks are one mapping in the eyes of the
 * system, which limits their number. Where pages are to be huge and where they are not are different mappings, too. */
#include "kernels/memory/blocks.h"
#include "preload/base/file.h"
#include "preload/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define CHUNK     ((size_t)32 << 20)
#define DESCRIBED ((size_t)64 << 10) /* there are descriptors for blocks of so many bytes in all of the arena */
#define MOST      ((size_t)8 << 40)  /* of address space, for the host's ranges */
#define LEAST     ((size_t)4 << 30)

typedef struct gems_run {
    char *begin;
    size_t stride; /* from a block to the next */
    uint32_t n;
    _Atomic uint32_t carved; /* the first of them are in use */
    gems_block blocks[];
} gems_run;

uintptr_t gems_arena_shift;
static struct {
    char *base;
    _Atomic size_t size;         /* of the host's ranges; 0: nothing is reserved */
    _Atomic(gems_run *) *run_of; /* each chunk's */
    char *descriptors, *descriptors_end;
    size_t used; /* of the chunks, in bytes */
    size_t most;
    long splits_most;
    bool moves;              /* the system can move pages as we want it: Linux 5.7 */
    bool huge;               /* the system has huge pages for whom asks */
    pthread_mutex_t growing; /* guards used and descriptors */
} arena = {.growing = PTHREAD_MUTEX_INITIALIZER};
static atomic_long splits; /* mappings that were made by changes of place and by huge pages, about */

/* ---- the reservation ---- */

static bool move_part(char *from, char *to, size_t bytes)
{
    return mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) != MAP_FAILED;
}

/* The first number in a file of /proc or /sys, or `otherwise`. */
static long number_in(const char *path, long otherwise)
{
    char *text = gems_read_file(path, 4096);
    long number = text ? atol(text) : otherwise;
    free(text);
    return number;
}

static bool system_has_huge_pages(void)
{
    char *text = gems_read_file("/sys/kernel/mm/transparent_hugepage/enabled", 4096);
    bool has = text && !strstr(text, "[never]");
    free(text);
    return has;
}

/* What we reserve counts as used where address space or writable memory is limited. */
static bool is_limited(void)
{
    struct rlimit limit;
    return (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) ||
           (getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) ||
           number_in("/proc/sys/vm/overcommit_memory", 0) == 2;
}

/* The descriptors of a run, and of its chunks, as if blocks had so many bytes. */
static size_t descriptor_bytes(size_t size)
{
    return size / CHUNK * (sizeof(gems_run) + sizeof(gems_run *)) + size / DESCRIBED * sizeof(gems_block);
}

bool gems_blocks_reserve(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    if (is_limited() || pages <= 0 || sysconf(_SC_PAGESIZE) != (long)GEMS_PAGE)
        return false;
    size_t ram = (size_t)pages * GEMS_PAGE, size = (size_t)64 << 30;
    while (size < 8 * ram && size < MOST)
        size *= 2;
    char *base = MAP_FAILED;
    for (; size >= LEAST; size /= 2) {
        base = mmap(NULL, 2 * size + descriptor_bytes(size) + CHUNK, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base != MAP_FAILED)
            break;
    }
    if (base == MAP_FAILED)
        return false;
    base += -(uintptr_t)base % CHUNK;
    char *descriptors = base + 2 * size;
    if (mprotect(descriptors, descriptor_bytes(size), PROT_READ | PROT_WRITE) != 0) {
        munmap(base, 2 * size + descriptor_bytes(size));
        return false;
    }
    /* Where the system gives huge pages to everybody, a small block must not get one. */
    arena.huge = madvise(base, 2 * size, MADV_NOHUGEPAGE) == 0 && system_has_huge_pages();
    arena.moves = move_part(base, base + size, GEMS_PAGE);
    arena.splits_most = number_in("/proc/sys/vm/max_map_count", 65530) / 2;
    arena.base = base;
    gems_arena_shift = size;
    arena.run_of = (void *)descriptors;
    arena.descriptors = descriptors + size / CHUNK * sizeof(gems_run *);
    arena.descriptors_end = descriptors + descriptor_bytes(size);
    /* The host refuses what the machine could never hold, in its own words. */
    arena.most = ram < size / 8 ? ram : size / 8;
    atomic_store_explicit(&arena.size, size, memory_order_release);
    return true;
}

size_t gems_blocks_most(void)
{
    return arena.most;
}

void gems_blocks_lock(bool lock)
{
    if (lock)
        pthread_mutex_lock(&arena.growing);
    else
        pthread_mutex_unlock(&arena.growing);
}

/* ---- runs ---- */

/* Makes the chunks of a new run accessible. With the lock. */
static gems_run *make_run(size_t stride)
{
    size_t n = stride < CHUNK ? CHUNK / stride : 1, bytes = GEMS_ROUND_UP(n * stride, CHUNK);
    gems_run *run = (void *)arena.descriptors;
    if (bytes > arena.size - arena.used ||
        arena.descriptors + sizeof *run + n * sizeof run->blocks[0] > arena.descriptors_end)
        return NULL;
    char *begin = arena.base + arena.used;
    if (mprotect(begin, bytes, PROT_READ | PROT_WRITE) != 0)
        return NULL;
    run->begin = begin;
    run->stride = stride;
    run->n = (uint32_t)n;
    for (size_t i = 0; i < bytes / CHUNK; i++)
        atomic_store_explicit(&arena.run_of[arena.used / CHUNK + i], run, memory_order_release);
    arena.used += bytes;
    arena.descriptors += sizeof *run + n * sizeof run->blocks[0];
    return run;
}

gems_block *gems_blocks_carve(struct gems_run **current, uint8_t pages_class, size_t bytes)
{
    gems_run *run = *current;
    if (!run || run->carved == run->n) {
        pthread_mutex_lock(&arena.growing);
        run = make_run(bytes < GEMS_HUGE_PAGE ? bytes : GEMS_ROUND_UP(bytes, GEMS_HUGE_PAGE));
        pthread_mutex_unlock(&arena.growing);
        if (!run)
            return NULL;
        *current = run;
    }
    uint32_t i = run->carved;
    gems_block *block = &run->blocks[i];
    block->address = run->begin + i * run->stride;
    block->bytes = bytes;
    block->pages_class = pages_class;
    atomic_store_explicit(&run->carved, i + 1, memory_order_release);
    return block;
}

gems_block *gems_arena_find(const void *address)
{
    size_t size = atomic_load_explicit(&arena.size, memory_order_acquire);
    uintptr_t offset = (uintptr_t)address - (uintptr_t)arena.base;
    if (offset >= size)
        return NULL;
    gems_run *run = atomic_load_explicit(&arena.run_of[offset / CHUNK], memory_order_acquire);
    if (!run)
        return NULL;
    size_t i = (size_t)((const char *)address - run->begin) / run->stride;
    if (i >= atomic_load_explicit(&run->carved, memory_order_acquire))
        return NULL;
    gems_block *block = &run->blocks[i];
    return (size_t)((const char *)address - block->address) < block->bytes ? block : NULL;
}

/* ---- pages ---- */

/* Where the block's pages are. */
static char *pages_at(const gems_block *block)
{
    return block->place == GEMS_PLACE_HIDDEN ? gems_block_shadow(block) : block->address;
}

/* Counts mappings to come; false if they would be too many. The system's limit is for the whole process. */
static bool may_split(long more)
{
    if (atomic_fetch_add(&splits, more) + more <= arena.splits_most)
        return true;
    atomic_fetch_sub(&splits, more);
    return false;
}

size_t gems_block_pages_of(const gems_block *block, size_t n)
{
    return GEMS_ROUND_UP(n, n <= block->huge ? GEMS_HUGE_PAGE : GEMS_PAGE);
}

void gems_block_advise(gems_block *block, size_t n)
{
    size_t huge = arena.huge ? n / GEMS_HUGE_PAGE * GEMS_HUGE_PAGE : 0;
    char *at = pages_at(block);
    bool was_split = block->huge && block->huge < block->bytes, is_split = huge && huge < block->bytes;
    if (huge == block->huge || (is_split && !was_split && !may_split(2)))
        return;
    int failed = huge > block->huge ? madvise(at + block->huge, huge - block->huge, MADV_HUGEPAGE)
                                    : madvise(at + huge, block->huge - huge, MADV_NOHUGEPAGE);
    if (was_split && !is_split)
        atomic_fetch_sub(&splits, 2);
    if (!failed)
        block->huge = huge;
}

void gems_block_drop(gems_block *block, size_t from)
{
    /* It cannot fail for pages that are ours alone; locked ones (mlockall) stay. */
    if (block->resident > from && madvise(pages_at(block) + from, block->resident - from, MADV_DONTNEED) == 0)
        block->resident = from;
}

/* ---- places ---- */

static void lost(void)
{
    gems_complain("the pages of a tensor cannot be moved back: %s", strerror(errno));
    abort();
}

/* Moves pages back that have been moved. Meanwhile nobody may find an empty page of the host's range; the shadow is
 * open again in the end. */
static void move_back(char *from, char *to, size_t bytes)
{
    (void)mprotect(to, bytes, PROT_NONE);
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done < GEMS_HUGE_PAGE ? bytes - done : GEMS_HUGE_PAGE;
        if (!move_part(to + done, from + done, n))
            lost();
    }
    if (from >= arena.base + arena.size)
        (void)mprotect(from, bytes, PROT_READ | PROT_WRITE);
}

/* The same after a call that failed. Linux 6.17 and later may have moved some of several mappings by then: each page
 * that is there is moved back. */
static void move_rest_back(char *from, char *to, size_t bytes)
{
    uint64_t pages[512];
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    for (size_t k = 0; pagemap >= 0 && k < bytes; k += 512 * GEMS_PAGE) {
        ssize_t n = pread(pagemap, pages, sizeof pages, (off_t)((uintptr_t)(to + k) / GEMS_PAGE * sizeof *pages));
        for (size_t i = 0; i < 512 && (ssize_t)(i * sizeof *pages) < n && k + i * GEMS_PAGE < bytes; i++)
            if (pages[i] >> 62) /* there, or swapped out */
                move_back(from + k + i * GEMS_PAGE, to + k + i * GEMS_PAGE, GEMS_PAGE);
    }
    if (pagemap >= 0)
        close(pagemap);
}

/* Moves a part of a block or nothing of it. Before Linux 6.17 a call moves no more than one mapping: within the part a
 * huge page may be one of its own, if its neighbours have another history. */
static bool move(char *from, char *to, size_t bytes)
{
    if (bytes == 0 || move_part(from, to, bytes))
        return true;
    move_rest_back(from, to, bytes);
    if (bytes <= GEMS_HUGE_PAGE)
        return false;
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done < GEMS_HUGE_PAGE ? bytes - done : GEMS_HUGE_PAGE;
        if (!move_part(from + done, to + done, n)) {
            move_rest_back(from + done, to + done, n);
            move_back(from, to, done);
            return false;
        }
    }
    return true;
}

/* Moves all of a block's pages, or none. Huge and small ones are different mappings. */
static bool move_pages(const gems_block *block, char *from, char *to)
{
    size_t huge = block->huge < block->bytes ? block->huge : block->bytes;
    if (!move(from, to, huge))
        return false;
    if (move(from + huge, to + huge, block->bytes - huge))
        return true;
    move_back(from, to, huge);
    return false;
}

/* Where pages may be read and written they still may be when they have moved. So if nobody looks, only the empty range
 * is closed: that costs less. */
static bool hide_unused(const gems_block *block, char *shadow)
{
    if (!move_pages(block, block->address, shadow))
        return false;
    bool hidden = mprotect(block->address, block->bytes, PROT_NONE) == 0;
    if (!hidden && !move_pages(block, shadow, block->address))
        lost();
    return hidden;
}

static bool hide_used(const gems_block *block, char *shadow)
{
    /* First, for nobody may get an empty page where the others were. */
    if (mprotect(block->address, block->bytes, PROT_NONE) != 0 || !move_pages(block, block->address, shadow))
        return false;
    bool hidden = mprotect(shadow, block->bytes, PROT_READ | PROT_WRITE) == 0;
    if (!hidden && !move_pages(block, shadow, block->address))
        lost();
    return hidden;
}

bool gems_block_hide(gems_block *block)
{
    char *shadow = gems_block_shadow(block);
    int before = block->place == GEMS_PLACE_READ_ONLY ? PROT_READ : PROT_READ | PROT_WRITE;
    if (block->place == GEMS_PLACE_HIDDEN)
        return true;
    if (!arena.moves || (!block->moved && !may_split(4)))
        return false;
    block->moved = true;
    bool unused = !__atomic_load_n(&block->taken, __ATOMIC_RELAXED) && block->place == GEMS_PLACE_HOME;
    bool hidden = unused ? hide_unused(block, shadow) : hide_used(block, shadow);
    if (hidden)
        block->place = GEMS_PLACE_HIDDEN;
    else
        (void)mprotect(block->address, block->bytes, before);
    return hidden;
}

bool gems_block_show(gems_block *block)
{
    bool done =
        block->place == GEMS_PLACE_HOME ||
        (block->place == GEMS_PLACE_HIDDEN ? move_pages(block, gems_block_shadow(block), block->address)
                                           : mprotect(block->address, block->bytes, PROT_READ | PROT_WRITE) == 0);
    if (done)
        block->place = GEMS_PLACE_HOME;
    return done;
}

bool gems_block_show_read_only(gems_block *block)
{
    char *shadow = gems_block_shadow(block);
    if (block->place != GEMS_PLACE_HIDDEN)
        return gems_block_protect(block);
    /* Before they move, for then nobody may write them unseen. */
    if (mprotect(shadow, block->bytes, PROT_READ) != 0)
        return false;
    if (!move_pages(block, shadow, block->address)) {
        if (mprotect(shadow, block->bytes, PROT_READ | PROT_WRITE) != 0)
            lost();
        return false;
    }
    block->place = GEMS_PLACE_READ_ONLY;
    return true;
}

bool gems_block_protect(gems_block *block)
{
    if (block->place != GEMS_PLACE_HOME)
        return block->place == GEMS_PLACE_READ_ONLY;
    if (!block->moved && !may_split(4))
        return false;
    block->moved = true;
    if (mprotect(block->address, block->bytes, PROT_READ) != 0)
        return false;
    block->place = GEMS_PLACE_READ_ONLY;
    return true;
}
