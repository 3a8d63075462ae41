/* The arena: the memory of the host's large tensors, in blocks of ours.
 *
 * shim/alloc.c hands the host's allocator over to it. A block has two address ranges, the host's and a shadow, and its
 * pages are at one of them: at the host's, or hidden. What writes a result before the host may see it writes at the
 * shadow; showing a block moves its pages to the host's range, so that no thread ever sees one that is not finished.
 *
 *   place      pages at    the host's range
 *   home       the host's  may be read and written
 *   read-only  the host's  may be read; a write faults
 *   hidden     the shadow  faults
 *
 * Blocks have sizes of classes, and free ones wait for the next of their class with the place that they had. Pages are
 * there for no more bytes than were ever in use at the same time, and a little. Free ones go back to the system when
 * that would be passed, when nobody wants them for a while (purge.c), and before a fork.
 *
 * All functions may be called from any thread. */
#ifndef GEMS_ARENA_H
#define GEMS_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the smallest block: a page. */
#define GEMS_ARENA_LEAST ((size_t)4096)

typedef enum gems_place {
    GEMS_PLACE_HOME,
    GEMS_PLACE_READ_ONLY,
    GEMS_PLACE_HIDDEN
} gems_place;

typedef struct gems_block {
    char *address; /* the host's; of whole pages, of 2 MiB from that size on */
    size_t bytes;  /* of its class: all of them may be used */
    void *user;    /* of the layer above (deferral), which is asked before the block is free; NULL: nobody's */
    uint8_t place; /* gems_place; changed only by who owns the block: its taker, or `user` once that is set */
    bool taken;    /* from gems_arena_take to gems_arena_give; atomic */
    size_t asked;  /* bytes from its start that are in use, at the taker's word */

    /* Private to kernels/memory. */
    bool moved; /* has been hidden: its mappings are counted */
    uint8_t pages_class;
    size_t resident, huge; /* bytes from its start: with pages, at most; to be of huge pages */
    uint64_t freed;        /* when, in ms */
    struct gems_block *newer, *older;
} gems_block;

/* Memory of at least n bytes in a block that is hidden or home, as asked; its contents are anything. NULL if n is 0 or
 * more than the machine could hold, the arena is off (GEMS_POOL=0, limits on address space), or nothing is left; if
 * `hidden`, also if the system refuses. Then the host's own allocator serves. */
void *gems_arena_take(size_t n, bool hidden);
/* The block that an address of the host's ranges lies in, which may be any byte of it; NULL if it is none of ours.
 * Takes no lock: signal handlers may ask. Blocks are never unmapped and their descriptors never move. */
gems_block *gems_arena_find(const void *address);
/* Gives back what gems_arena_take gave, in any place. False: it is not ours. An address inside a block, or of one that
 * has been given back, ends the process, as glibc does it. */
bool gems_arena_give(void *address);
/* Called by gems_arena_give for a block whose `user` is set: whether the layer above keeps it until it calls
 * gems_arena_recycle, with `user` NULL by then. One, set once. */
void gems_arena_on_give(bool (*keeps)(gems_block *block));
void gems_arena_recycle(gems_block *block);

/* Whether the thread's new tensors are to be hidden: it is about to make results that are to be owed. */
extern __thread bool gems_arena_hides;

extern uintptr_t gems_arena_shift; /* from an address of the host to its shadow */
/* Where a block's pages are reached by us, wherever the host sees them; only while the block is hidden. */
static inline char *gems_block_shadow(const gems_block *block)
{
    return block->address + gems_arena_shift;
}

/* Changes of place, by who owns the block. False: the system refuses (its limit on mappings, Linux before 5.7), and
 * nothing has changed. */
bool gems_block_show(gems_block *block);           /* home, from any place */
bool gems_block_hide(gems_block *block);           /* hidden, from any place; the contents come along */
bool gems_block_protect(gems_block *block);        /* read-only, from home */
bool gems_block_show_read_only(gems_block *block); /* read-only, from hidden or home */

/* What the report tells. */
typedef struct gems_arena_counts {
    uint64_t taken, reused, fresh;            /* blocks since the start; fresh: none whose pages are there */
    uint64_t live_bytes, free_bytes;          /* asked for; with pages in blocks that wait */
    uint64_t peak_bytes, peak_resident_bytes; /* asked for; with pages */
    uint64_t given_back;                      /* bytes of free blocks whose pages went back to the system */
} gems_arena_counts;
void gems_arena_count(gems_arena_counts *counts);
/* Bytes in use: only the first of the counts, and quick. */
size_t gems_arena_live(void);
/* Gives the pages of all free blocks back to the system. */
void gems_arena_trim(void);

#endif
