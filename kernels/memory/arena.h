/* The arena: the memory of the host's large tensors, in blocks of ours.
 *
 * shim/alloc.c hands the host's allocator over to it. A block has two address ranges, the host's and a shadow, and its
 * pages are at one of them: at the host's, or hidden. What writes a result before the host may see it writes at the
 * shadow; showing a block moves all of its pages to the host's range in one step, so that no thread ever sees a part.
 *
 *   place      pages at    the host's range
 *   home       the host's  may be read and written
 *   read-only  the host's  may be read; a write faults
 *   hidden     the shadow  faults
 *
 * Blocks have sizes of classes, and free ones wait for the next of their class with the place that they had. */
#ifndef GEMS_ARENA_H
#define GEMS_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum gems_place {
    GEMS_PLACE_HOME,
    GEMS_PLACE_READ_ONLY,
    GEMS_PLACE_HIDDEN
} gems_place;

typedef struct gems_block {
    char *address; /* the host's; of whole pages, of 2 MiB from that size on */
    size_t bytes;  /* of its class: all of them may be used */
    uint8_t place; /* gems_place; changed only by who owns the block: its taker, or `user` once that is set */
    bool taken;
    void *user;    /* of the layer above (deferral), which is asked before the block is free; NULL: nobody's */
} gems_block;

/* Memory of at least n bytes, aligned to 64 bytes or more, in a block that is `hidden` or home; NULL if blocks of that
 * size are not ours, the arena is off (GEMS_POOL=0), or nothing is left: the host's own allocator serves. */
void *gems_arena_take(size_t n, bool hidden);
/* The block that an address lies in, which may be any byte of it; NULL if it is none of ours. Takes no lock. Blocks are
 * never unmapped and their descriptors never move. */
gems_block *gems_arena_find(const void *address);
/* Gives back what gems_arena_take gave. False: it is not ours. */
bool gems_arena_give(void *address);
/* Called by gems_arena_give for a block whose `user` is set: whether the layer above keeps it until it calls
 * gems_arena_recycle. One, set once. */
void gems_arena_on_give(bool (*keeps)(gems_block *block));
void gems_arena_recycle(gems_block *block);

/* Where a block's pages are reached by us, wherever the host sees them; only while the block is hidden. */
static inline char *gems_block_shadow(const gems_block *block)
{
    extern uintptr_t gems_arena_shift; /* from a host's address to its shadow */
    return block->address + gems_arena_shift;
}
/* Changes of place. False: the system refuses (its limit on mappings), and nothing has changed. */
bool gems_block_show(gems_block *block);    /* home, from any place */
bool gems_block_hide(gems_block *block);    /* hidden, from any place; the contents come along */
bool gems_block_protect(gems_block *block); /* read-only, from home */

/* What the report tells. */
typedef struct gems_arena_counts {
    uint64_t taken, reused, fresh;  /* blocks since the start */
    uint64_t live_bytes, free_bytes, peak_bytes;
    uint64_t given_back;            /* bytes of free blocks whose pages went back to the system */
} gems_arena_counts;
void gems_arena_count(gems_arena_counts *counts);
/* Gives the pages of all free blocks back to the system. */
void gems_arena_trim(void);

#endif
