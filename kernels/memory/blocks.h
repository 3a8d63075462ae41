/* What the files of the arena share: blocks in runs (block.c), free lists (arena.c), giving back (purge.c). Private to
 * kernels/memory.
 *
 * Locks, in this order: the purge's, a class's, that of growing. None is held when the layer above is called. */
#ifndef GEMS_BLOCKS_H
#define GEMS_BLOCKS_H

#include "kernels/memory/arena.h"

#include <pthread.h>
#include <stdatomic.h>

#define GEMS_PAGE              ((size_t)4096)
#define GEMS_HUGE_PAGE         ((size_t)2 << 20)
#define GEMS_ROUND_UP(n, unit) (((n) + (unit)-1) / (unit) * (unit))

/* ---- block.c ---- */

/* Reserves the address ranges. False: there is no room, or a limit forbids it. Once. */
bool gems_blocks_reserve(void);
/* The largest block that may be asked for, in bytes. */
size_t gems_blocks_most(void);

/* Neighbouring blocks of one class, which have the addresses of whole chunks. */
struct gems_run;
/* The next block of a run that was not in use yet, home and without pages; *run is that of the class, NULL at first,
 * and becomes a new one when it is used up. NULL: no address space is left, or the system refuses. With the class's
 * lock. */
gems_block *gems_blocks_carve(struct gems_run **run, uint8_t pages_class, size_t bytes);
/* Locks growing, or unlocks it: for a fork. */
void gems_blocks_lock(bool lock);

/* Bytes that have pages if the first n of the block are in use. */
size_t gems_block_pages_of(const gems_block *block, size_t n);
/* Chooses huge or small pages for a block that has none and of which n bytes will be in use. */
void gems_block_advise(gems_block *block, size_t n);
/* Gives the pages from `from` on back to the system: only `from` bytes are resident then. */
void gems_block_drop(gems_block *block, size_t from);

/* ---- arena.c ---- */

enum {
    GEMS_ARENA_CLASSES = 8 * 32 + 1 /* eight sizes for each power of two */
};

/* Free blocks, the one freed last at the newest end. */
typedef struct gems_blocks {
    gems_block *newest, *oldest;
    _Atomic uint64_t since; /* when the oldest was freed, in ms; UINT64_MAX: there is none. Read without the lock */
} gems_blocks;

typedef struct gems_size_class {
    pthread_mutex_t lock;
    gems_blocks waiting[2], empty[2]; /* with pages, without; [hidden] */
    struct gems_run *run;
    _Atomic uint64_t taken, reused; /* written with the lock */
} gems_size_class;
extern gems_size_class gems_size_classes[GEMS_ARENA_CLASSES];

void gems_blocks_push(gems_blocks *list, gems_block *block);
void gems_blocks_pull(gems_blocks *list, gems_block *block); /* out of it */

/* Sums over all blocks, in bytes. */
extern struct gems_sums {
    _Atomic size_t live, peak;     /* asked for */
    _Atomic size_t resident, most; /* with pages: taken and waiting; the most that it was */
    _Atomic size_t waiting;        /* with pages, in free blocks */
    _Atomic uint64_t given_back;
} gems_sums;

/* ---- purge.c ---- */

/* Gives back the pages of the blocks that have been free for longest, until `bytes` are. */
void gems_purge(size_t bytes);
/* A block has been freed: sees to it that its pages go back some time, and at once what is more than GEMS_POOL_LIMIT.
 */
void gems_purge_later(void);
/* Locks purging before a fork; unlocks it in the parent, and in the child, where nobody purges by now. */
void gems_purge_before_fork(void);
void gems_purge_after_fork(bool child);
/* Milliseconds of a clock that only goes on. */
uint64_t gems_purge_now(void);
/* Whether this machine or its control group is nearly out of memory. root: "" or, for tests, a folder that has the
 * files of /proc and /sys that this is read from. */
bool gems_memory_is_short(const char *root);

#endif
