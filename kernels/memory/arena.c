/* Size classes and their free blocks. In a steady state a block is taken and given back without a system call, under
 * the lock of its class.
 *
 * The bound on memory: pages are there for at most a sixteenth and 4 MiB more than were ever asked for at the same
 * time. Where a block would need new pages beyond that, one of a somewhat larger class is used that has some, or others
 * that are free lose theirs. */
#include "kernels/memory/blocks.h"
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <stdlib.h>

#define SLACK ((size_t)4 << 20)

gems_size_class gems_size_classes[GEMS_ARENA_CLASSES];
struct gems_sums gems_sums;
__thread bool gems_arena_hides;
static bool on;
static _Atomic(bool (*)(gems_block *)) keeps_block;

/* Sizes 2^k * (8 + j) / 8, those of whole pages: at most a ninth of a block is left over, or less than a page. */
static unsigned class_of(size_t n)
{
    unsigned k = 63 - (unsigned)__builtin_clzll(n - 1), least = (unsigned)__builtin_ctzll(GEMS_ARENA_LEAST);
    size_t eighths = ((n - 1) >> (k - 3)) + 1; /* 9 to 16 */
    return (k - least) * 8 + (unsigned)eighths - 8;
}

static size_t bytes_of(unsigned i)
{
    return (GEMS_ARENA_LEAST >> 3) * (8 + i % 8) << i / 8;
}

/* ---- lists ---- */

void gems_blocks_push(gems_blocks *list, gems_block *block)
{
    block->newer = NULL;
    block->older = list->newest;
    if (list->newest)
        list->newest->newer = block;
    else
        list->oldest = block;
    list->newest = block;
    atomic_store_explicit(&list->since, list->oldest->freed, memory_order_relaxed);
}

void gems_blocks_pull(gems_blocks *list, gems_block *block)
{
    *(block->newer ? &block->newer->older : &list->newest) = block->older;
    *(block->older ? &block->older->newer : &list->oldest) = block->newer;
    atomic_store_explicit(&list->since, list->oldest ? list->oldest->freed : UINT64_MAX, memory_order_relaxed);
}

static void put_back(gems_block *block)
{
    gems_size_class *c = &gems_size_classes[block->pages_class];
    bool hidden = block->place == GEMS_PLACE_HIDDEN;
    pthread_mutex_lock(&c->lock);
    gems_blocks_push(block->resident ? &c->waiting[hidden] : &c->empty[hidden], block);
    pthread_mutex_unlock(&c->lock);
}

/* ---- start and fork ---- */

static void lock_all(bool lock)
{
    for (unsigned i = 0; i < GEMS_ARENA_CLASSES; i++)
        if (lock)
            pthread_mutex_lock(&gems_size_classes[i].lock);
        else
            pthread_mutex_unlock(&gems_size_classes[i].lock);
    gems_blocks_lock(lock);
}

/* A free block's pages would be copied by whoever writes first, for nothing. */
static void before_fork(void)
{
    gems_arena_trim();
    gems_purge_before_fork();
    lock_all(true);
}

static void after_fork(bool child)
{
    lock_all(false);
    gems_purge_after_fork(child);
}

static void in_parent(void)
{
    after_fork(false);
}

static void in_child(void)
{
    after_fork(true);
    gems_arena_trim(); /* what other threads freed in between */
}

static void start(void)
{
    const gems_config *config = gems_config_get();
    if (!config->pool || config->disable || !gems_blocks_reserve())
        return;
    for (unsigned i = 0; i < GEMS_ARENA_CLASSES; i++) {
        gems_size_class *c = &gems_size_classes[i];
        pthread_mutex_init(&c->lock, NULL);
        c->waiting[0].since = c->waiting[1].since = c->empty[0].since = c->empty[1].since = UINT64_MAX;
    }
    on = pthread_atfork(before_fork, in_parent, in_child) == 0;
}

static bool is_on(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start);
    return on;
}

/* ---- taking ---- */

/* The most bytes that may have pages. */
static size_t bound(void)
{
    size_t peak = gems_sums.peak;
    return peak + peak / 16 + SLACK;
}

static void raise_to(_Atomic size_t *most, size_t now)
{
    size_t before = *most;
    while (before < now && !atomic_compare_exchange_weak(most, &before, now))
        ;
}

/* A free block with pages, or one without; in the place that is wanted, if there is one. */
static gems_block *pick(unsigned i, bool hidden, bool with_pages)
{
    gems_size_class *c = &gems_size_classes[i];
    gems_blocks *lists = with_pages ? c->waiting : c->empty;
    pthread_mutex_lock(&c->lock);
    gems_blocks *list = lists[hidden].newest ? &lists[hidden] : &lists[!hidden];
    gems_block *block = list->newest;
    if (block)
        gems_blocks_pull(list, block);
    pthread_mutex_unlock(&c->lock);
    if (block)
        atomic_fetch_sub_explicit(&gems_sums.waiting, block->resident, memory_order_relaxed);
    return block;
}

static gems_block *carve(unsigned i)
{
    gems_size_class *c = &gems_size_classes[i];
    pthread_mutex_lock(&c->lock);
    gems_block *block = gems_blocks_carve(&c->run, (uint8_t)i, bytes_of(i));
    pthread_mutex_unlock(&c->lock);
    return block;
}

/* A larger block that has pages; those that n bytes do not need go back. One whose huge page would have to be torn for
 * that, or that would keep much of it, is left. */
static gems_block *pick_larger(unsigned i, size_t n, bool hidden)
{
    unsigned end = i + 9 < GEMS_ARENA_CLASSES ? i + 9 : GEMS_ARENA_CLASSES;
    for (unsigned larger = i + 1; larger < end; larger++) {
        gems_blocks *lists = gems_size_classes[larger].waiting;
        if (lists[0].since == UINT64_MAX && lists[1].since == UINT64_MAX)
            continue;
        gems_block *block = pick(larger, hidden, true);
        if (!block)
            continue;
        size_t kept = gems_block_pages_of(block, n), before = block->resident;
        if (kept - n > n / 8) {
            atomic_fetch_add(&gems_sums.waiting, block->resident);
            put_back(block);
            continue;
        }
        gems_block_drop(block, kept);
        atomic_fetch_sub(&gems_sums.resident, before - block->resident);
        return block;
    }
    return NULL;
}

static gems_block *find_block(unsigned i, size_t n, bool hidden)
{
    gems_block *block = pick(i, hidden, true);
    if (!block && gems_sums.resident + n > bound())
        block = pick_larger(i, n, hidden);
    if (!block)
        block = pick(i, hidden, false);
    if (!block)
        block = carve(i);
    if (!block) { /* perhaps memory is what is missing */
        gems_arena_trim();
        block = carve(i);
    }
    return block;
}

/* Accounts for the pages that n bytes of the block will have. */
static void add_pages(gems_block *block, size_t n)
{
    if (block->resident == 0)
        gems_block_advise(block, n);
    size_t pages = gems_block_pages_of(block, n);
    if (pages <= block->resident)
        return;
    size_t more = pages - block->resident, all = atomic_fetch_add(&gems_sums.resident, more) + more, most = bound();
    block->resident = pages;
    if (all > most)
        gems_purge(all - most);
    raise_to(&gems_sums.most, gems_sums.resident);
}

void *gems_arena_take(size_t n, bool hidden)
{
    if (n == 0 || !is_on() || n > gems_blocks_most())
        return NULL;
    unsigned i = class_of(GEMS_ROUND_UP(n, GEMS_PAGE));
    gems_block *block = find_block(i, n, hidden);
    if (!block)
        return NULL;
    bool had_pages = block->resident > 0;
    if (hidden ? !gems_block_hide(block) : !gems_block_show(block)) {
        atomic_fetch_add(&gems_sums.waiting, block->resident);
        put_back(block);
        return NULL;
    }
    block->asked = n;
    size_t live = atomic_fetch_add_explicit(&gems_sums.live, block->asked, memory_order_relaxed) + block->asked;
    raise_to(&gems_sums.peak, live);
    add_pages(block, n);
    gems_size_class *c = &gems_size_classes[i];
    atomic_fetch_add_explicit(&c->taken, 1, memory_order_relaxed);
    if (had_pages)
        atomic_fetch_add_explicit(&c->reused, 1, memory_order_relaxed);
    __atomic_store_n(&block->taken, true, __ATOMIC_RELEASE);
    return block->address;
}

/* ---- giving back ---- */

bool gems_arena_give(void *address)
{
    gems_block *block = gems_arena_find(address);
    if (!block)
        return false;
    if (address != block->address || !__atomic_exchange_n(&block->taken, false, __ATOMIC_ACQ_REL)) {
        gems_complain("free of %p, which is no tensor's memory (any more)", address);
        abort();
    }
    bool (*keeps)(gems_block *) = atomic_load_explicit(&keeps_block, memory_order_acquire);
    if (!keeps || !__atomic_load_n(&block->user, __ATOMIC_ACQUIRE) || !keeps(block))
        gems_arena_recycle(block);
    return true;
}

void gems_arena_on_give(bool (*keeps)(gems_block *block))
{
    atomic_store_explicit(&keeps_block, keeps, memory_order_release);
}

void gems_arena_recycle(gems_block *block)
{
    atomic_fetch_sub_explicit(&gems_sums.live, block->asked, memory_order_relaxed);
    atomic_fetch_add_explicit(&gems_sums.waiting, block->resident, memory_order_relaxed);
    block->freed = gems_purge_now();
    put_back(block);
    gems_purge_later();
}

size_t gems_arena_live(void)
{
    return atomic_load_explicit(&gems_sums.live, memory_order_relaxed);
}

void gems_arena_count(gems_arena_counts *counts)
{
    *counts = (gems_arena_counts){.live_bytes = gems_sums.live,
                                  .free_bytes = gems_sums.waiting,
                                  .peak_bytes = gems_sums.peak,
                                  .peak_resident_bytes = gems_sums.most,
                                  .given_back = gems_sums.given_back};
    for (unsigned i = 0; i < GEMS_ARENA_CLASSES; i++) {
        counts->taken += gems_size_classes[i].taken;
        counts->reused += gems_size_classes[i].reused;
    }
    counts->fresh = counts->taken - counts->reused;
}
