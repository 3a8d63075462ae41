/* Copies of blocks on a device with memory of its own.
 *
 * What a kernel reads is copied there once and stays; what it writes is there alone ("away") until the host wants it.
 *
 *   copy  away  place      the values are
 *   no    no    any        the host's
 *   yes   no    read-only  at both; the first write by the host drops the copy
 *   yes   no    hidden     at both, the host's in the shadow
 *   yes   yes   hidden     on the device alone; brought home when the host wants them
 *
 * A copy that works are being launched on is not dropped and not brought home; whoever wants that waits until they are.
 * Works and transfers are on one stream: whatever was launched has ended when a transfer begins, and a copy that is
 * given back may be the next one's at once. */
#include "kernels/chain/group.h"
#include "kernels/memory/memory.h"
#include "preload/base/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    TRIES = 3,               /* to bring home what is nowhere else */
    FOREIGN_MOST = 256 << 10 /* bytes of an operand that is copied for each call */
};

static struct {
    size_t limit, used; /* bytes of copies; limit SIZE_MAX: not set */
    size_t made;        /* bytes of what was made of them, among those */
    uint64_t clock;
    bool ended;
} resident = {.limit = SIZE_MAX};
__thread uint64_t gems_resident_moved;

void gems_resident_end(void)
{
    resident.ended = true;
}

void gems_resident_limit(size_t bytes)
{
    resident.limit = bytes;
}

/* Some drivers find room for a buffer only when it is used, too late to make some. The rest is for what travels. */
static size_t limit(void)
{
    return resident.limit < SIZE_MAX ? resident.limit : gems_device_get(GEMS_LANE_MAIN)->memory_bytes / 4 * 3;
}

static void end_move(chain_block *b)
{
    b->moving = false;
    pthread_cond_broadcast(&gems_chains.done);
}

void gems_resident_give(gems_buffer *copy)
{
    resident.used -= gems_buffer_bytes(copy);
    gems_memory_give(GEMS_LANE_MAIN, copy);
}

uint64_t gems_resident_tick(void)
{
    return ++resident.clock;
}

void gems_resident_drop_made(chain_derived **list)
{
    for (chain_derived *m = *list, *next; m; m = next) {
        next = m->next;
        resident.made -= gems_buffer_bytes(m->buffer);
        gems_resident_give(m->buffer);
        free(m);
    }
    *list = NULL;
}

void gems_resident_drop(chain_block *b)
{
    if (!b->copy)
        return;
    gems_resident_drop_made(&b->made);
    gems_resident_give(b->copy);
    b->copy = NULL;
    b->away = b->empty = b->spoilt = false;
}

/* Where the host's pages of the block are. */
static char *pages_of(const gems_block *block)
{
    return block->place == GEMS_PLACE_HIDDEN ? gems_block_shadow(block) : block->address;
}

/* Copies bytes between the host and the device, after the works that were launched before. Without the lock. */
static bool transfer(void *host, size_t bytes, gems_buffer *copy, bool up, gems_trouble *trouble)
{
    gems_transfer t = {copy, 0, host, bytes};
    gems_queue *queue = gems_queue_take_stream(GEMS_LANE_MAIN, false, trouble);
    if (!queue)
        return false;
    if (up && gems_memory_upload(queue, GEMS_LANE_MAIN, &t, true) && gems_queue_may_be_left(queue)) {
        gems_queue_leave(queue);
        return true;
    }
    if (!up)
        (void)gems_memory_download(queue, GEMS_LANE_MAIN, &t, false);
    bool done = gems_queue_settle(queue);
    if (!done)
        *trouble = *gems_queue_trouble(queue);
    gems_queue_give(queue);
    return done;
}

/* With the lock, which is given up meanwhile. */
static void bring_home(chain_block *b, gems_cause cause)
{
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};
    bool done = false;
    b->moving = true;
    gems_chains_unlock();
    for (int i = 0; i < TRIES && !done; i++) {
        trouble.kind = GEMS_TROUBLE_NONE;
        done = transfer(pages_of(b->block), b->block->asked, b->copy, false, &trouble);
    }
    if (!done) {
        gems_complain("a tensor's values are on the device alone, which does not give them back: %s", trouble.text);
        abort();
    }
    gems_chains_lock();
    gems_chains.counts.home[cause] += b->block->asked;
    gems_resident_moved += b->block->asked;
    b->away = false;
    end_move(b);
}

/* The program may have given the block back while it moved. The descriptor may be gone afterwards. */
static void drop_given(chain_block *b)
{
    if (!b->given || b->users || b->moving)
        return;
    gems_resident_drop(b);
    gems_chain_block_drop(b);
}

bool gems_resident_want(chain_block *b, bool write, gems_cause cause)
{
    bool drop = b->copy && (write || b->away || b->block->place == GEMS_PLACE_HIDDEN);
    if (b->moving || (drop && b->users)) {
        gems_chains_wait();
        return true;
    }
    if (!drop)
        return false;
    if (b->away) {
        bring_home(b, cause);
        drop_given(b);
    } else if (write || b->empty || !gems_block_show_read_only(b->block))
        gems_resident_drop(b);
    return true;
}

/* Makes room by what has not been used for longest. With the lock, which is given up meanwhile. False: nothing can go.
 */
static bool evict(void)
{
    chain_block *oldest = NULL;
    for (chain_block *b = gems_chains.blocks; b; b = b->next) {
        if (b->made && !b->users) { /* it can be made again */
            gems_resident_drop_made(&b->made);
            return true;
        }
        if (b->copy && !b->users && !b->moving && (!oldest || b->used < oldest->used))
            oldest = b;
    }
    if (gems_adopt_evict(oldest ? oldest->used : UINT64_MAX))
        return true;
    if (!oldest)
        return false;
    if (oldest->away)
        bring_home(oldest, GEMS_CAUSE_LIMIT); /* and it stays hidden: its values are the host's, too, from now on */
    else
        gems_resident_drop(oldest);
    drop_given(oldest);
    return true;
}

gems_buffer *gems_resident_take(size_t bytes)
{
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};
    gems_buffer *buffer = NULL;
    for (;;) {
        if (bytes <= limit() && resident.used <= limit() - bytes &&
            (buffer = gems_memory_take(GEMS_LANE_MAIN, bytes, &trouble))) {
            resident.used += gems_buffer_bytes(buffer);
            return buffer;
        }
        if (bytes > limit() || (trouble.kind != GEMS_TROUBLE_NONE && trouble.kind != GEMS_TROUBLE_MEMORY) || !evict())
            return NULL;
        trouble.kind = GEMS_TROUBLE_NONE;
    }
}

/* Gives the block an empty copy. False: there is no room. */
static bool make_copy(chain_block *b)
{
    b->moving = true; /* the lock may be given up: the descriptor stays */
    b->copy = gems_resident_take(b->block->asked);
    b->empty = b->copy != NULL;
    end_move(b);
    return b->empty;
}

bool gems_resident_fill(gems_buffer *copy, const void *host, size_t bytes)
{
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};
    gems_chains_unlock();
    bool filled = transfer((void *)host, bytes, copy, true, &trouble);
    gems_chains_lock();
    gems_chains.counts.up += bytes;
    gems_resident_moved += bytes;
    return filled;
}

/* Puts the host's values into an empty copy, without the lock; from then on a write by the host is noticed. */
static bool fill_copy(chain_block *b)
{
    b->moving = true;
    bool filled = (b->block->place != GEMS_PLACE_HOME || gems_block_protect(b->block)) &&
                  gems_resident_fill(b->copy, pages_of(b->block), b->block->asked);
    b->empty = !filled;
    if (!filled && !b->users)
        gems_resident_drop(b);
    end_move(b);
    return filled;
}

/* whole: all of the block is to be written, and nothing of it read. */
static gems_reached reach(gems_block *block, bool write, bool whole, gems_buffer **buffer)
{
    chain_block *b;
    while ((b = gems_chain_block_of(block)) && b->moving)
        gems_chains_wait();
    bool fresh = whole || (!b && block->place == GEMS_PLACE_HIDDEN);
    if (!b && !(b = gems_chain_block(block)))
        return GEMS_UNREACHABLE;
    bool can = !resident.ended && !b->writer && !b->nreaders && !b->pins && !b->spoilt && (b->copy || make_copy(b)) &&
               (!b->empty || fresh || fill_copy(b));
    /* Before the kernel runs: afterwards nobody may see the old values, and it could fail. */
    can = can && (!write || gems_block_hide(block));
    if (!can) {
        gems_chain_block_drop(b);
        return GEMS_UNREACHABLE;
    }
    if (write)
        gems_resident_drop_made(&b->made);
    b->users++;
    b->used = gems_resident_tick();
    *buffer = b->copy;
    return GEMS_REACHED;
}

gems_reached gems_resident_reach(const void *p, size_t n, gems_access access, gems_buffer **buffer, size_t *offset)
{
    gems_block *block = gems_arena_find(p);
    gems_reached reached;
    gems_chains_lock();
    if (!block || !__atomic_load_n(&block->taken, __ATOMIC_ACQUIRE)) {
        reached = resident.ended ? GEMS_FOREIGN : gems_adopt_reach(p, n, access, buffer, offset);
    } else {
        *offset = (size_t)((const char *)p - block->address);
        bool whole = access == GEMS_WRITE && *offset == 0 && n >= block->asked;
        reached = reach(block, (access & GEMS_WRITE) != 0, whole, buffer);
    }
    gems_chains_unlock();
    return reached;
}

/* What a kernel has written is likely to be written again: of weights the host has the values, too. */
bool gems_resident_may_keep(const void *p)
{
    const gems_block *block = gems_arena_find(p);
    gems_chains_lock();
    const chain_block *b = block ? gems_chain_block_of(block) : NULL;
    bool may = block ? !b || !b->away : gems_adopt_holds(p);
    gems_chains_unlock();
    return may;
}

/* What was made of the memory at p, which a work uses. NULL: nothing may be. */
static chain_derived **made_of(const void *p)
{
    const gems_block *block = gems_arena_find(p);
    chain_block *b = block ? gems_chain_block_of(block) : NULL;
    if (!block)
        return gems_adopt_made(p);
    return b && b->users && b->copy && !b->away ? &b->made : NULL;
}

static chain_derived *find_made(chain_derived **list, const void *p, const int64_t key[GEMS_WORK_KEY])
{
    chain_derived *m = list ? *list : NULL;
    while (m && (m->of != (uintptr_t)p || memcmp(m->key, key, sizeof m->key) != 0))
        m = m->next;
    return m;
}

gems_buffer *gems_resident_kept(const void *p, const int64_t key[GEMS_WORK_KEY], size_t bytes, bool *there)
{
    gems_buffer *buffer = NULL;
    gems_chains_lock();
    chain_derived **list = made_of(p), *m = find_made(list, p, key);
    if (!m && list && resident.made + bytes <= limit() / 4 && (buffer = gems_resident_take(bytes))) {
        list = made_of(p); /* the lock may have been given up */
        m = find_made(list, p, key);
        if (!m && list && (m = calloc(1, sizeof *m))) {
            *m = (chain_derived){.next = *list, .buffer = buffer, .of = (uintptr_t)p};
            memcpy(m->key, key, sizeof m->key);
            *list = m;
            resident.made += gems_buffer_bytes(buffer);
        } else
            gems_resident_give(buffer);
    }
    *there = m && m->there;
    buffer = m ? m->buffer : NULL;
    gems_chains_unlock();
    return buffer;
}

void gems_resident_made(const void *p, const int64_t key[GEMS_WORK_KEY])
{
    gems_chains_lock();
    chain_derived *m = find_made(made_of(p), p, key);
    if (m)
        m->there = true;
    gems_chains_unlock();
}

bool gems_resident_is_away(const void *p)
{
    gems_chains_lock();
    const chain_block *b = gems_chain_block_at((uintptr_t)p);
    const bool away = b && b->away;
    gems_chains_unlock();
    return away;
}

static bool is_there(const gems_tensor *t)
{
    const chain_block *b = gems_chain_block_at(t->address);
    const void *p = (const void *)t->address; /* NOLINT(performance-no-int-to-ptr) */
    return b ? b->copy != NULL : gems_adopt_holds(p);
}

/* What is large and would be copied for each call is worse off there. */
static bool travels(const gems_tensor *t)
{
    const void *p = (const void *)t->address; /* NOLINT(performance-no-int-to-ptr) */
    size_t bytes = t->dtype == GEMS_DTYPE_NONE ? 0 : (size_t)gems_size_bytes(t->numel, t->dtype);
    return bytes > FOREIGN_MOST && !gems_arena_find(p) && !gems_adopt_can(p, bytes);
}

gems_operand_place gems_resident_place(const gems_call *call)
{
    return !gems_work_stays()                      ? GEMS_OPERANDS_TRAVEL
           : gems_chain_any_tensor(call, is_there) ? GEMS_OPERANDS_ON_DEVICE
           : gems_chain_any_tensor(call, travels)  ? GEMS_OPERANDS_TRAVEL
                                                   : GEMS_OPERANDS_TO_STAY;
}

void gems_resident_leave(const void *p, bool write, gems_outcome outcome)
{
    gems_block *block = gems_arena_find(p);
    gems_chains_lock();
    chain_block *b = block ? gems_chain_block_of(block) : NULL;
    if (!b) {
        gems_adopt_leave(p);
        gems_chains_unlock();
        return;
    }
    b->users--;
    if (write && outcome == GEMS_OUTCOME_DONE) {
        b->away = true;
        b->empty = false;
    }
    if (write && outcome == GEMS_OUTCOME_UNKNOWN) {
        if (b->away) {
            gems_complain("the device failed while it changed a tensor whose values it alone has");
            abort();
        }
        b->spoilt = true; /* the host's values are right */
    }
    if (!b->users && (b->spoilt || b->empty))
        gems_resident_drop(b);
    if (b->given)
        drop_given(b);
    else
        gems_chain_block_drop(b);
    pthread_cond_broadcast(&gems_chains.done);
    gems_chains_unlock();
}
