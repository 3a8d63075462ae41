/* Groups of deferred calls, and the blocks that they read and write. Private to kernels/chain; everything here is
 * called with the lock of chain.c. */
#ifndef GEMS_GROUP_H
#define GEMS_GROUP_H

#include "kernels/chain/chain.h"
#include "kernels/memory/arena.h"
#include "kernels/pointwise/recipe.h"

#include <pthread.h>

enum {
    CHAIN_STEPS = GEMS_PW_STEPS,
    CHAIN_LEAVES = 24, /* operands that are read, numbers included */
    CHAIN_STORED = 16, /* results that may have to be stored */
    CHAIN_READERS = 4, /* groups that read one block */
    CHAIN_FOLDS = 3,   /* reductions that compute a group's steps for themselves; then they are stored */
    CHAIN_COPY = 16384 /* bytes of memory that is not ours: an operand that is read is copied */
};
#define CHAIN_SLACK ((size_t)4 << 20) /* bytes that groups may keep in any case */
_Static_assert((int)CHAIN_LEAVES + (int)CHAIN_STORED <= GEMS_OPERANDS, "a group fits a kernel");

struct chain_group;

/* Elements in memory, as a group's shape walks over them. Compared as a whole: unused strides are 0. */
typedef struct chain_view {
    uintptr_t address;
    gems_strides stride; /* in elements */
    uint64_t dtype;
} chain_view;

/* What was made on the device of a copy's values, and stays with it. */
typedef struct chain_derived {
    struct chain_derived *next;
    gems_buffer *buffer;
    uintptr_t of; /* the address of what it was made of, in the block */
    int64_t key[GEMS_WORK_KEY];
    bool there; /* the works that make it were launched */
} chain_derived;

/* A block that groups read or write, or that is not home yet though nothing is owed (gems_block.user). */
typedef struct chain_block {
    gems_block *block;
    struct chain_group *writer;                /* that owes values here, all in one view */
    chain_view view;                           /* of what is owed */
    struct chain_group *reader[CHAIN_READERS]; /* that read it, before `writer` writes */
    unsigned nreaders, pins;
    bool given; /* back, by the program: only groups need it */
    /* On a device with memory of its own (resident.c). */
    gems_buffer *copy; /* of all its bytes; NULL: none */
    unsigned users;    /* works that use the copy now */
    bool away;         /* the copy's values are the only ones */
    bool moving;       /* the copy is being made or brought home */
    bool empty;        /* nothing was written to the copy yet: all of it is about to be */
    bool spoilt;       /* the copy is not to be used any more */
    uint64_t used;     /* when, counted in works */
    chain_derived *made;
    struct chain_block *next, **link;
} chain_block;

/* What a step may read. */
typedef struct chain_leaf {
    chain_block *block; /* NULL: a number, or a copy */
    void *copy;         /* of memory that is not ours; the group's */
    chain_view view;
    gems_element number;
    bool value;
    uint8_t dtype;
} chain_leaf;

typedef struct chain_step {
    gems_pw_step pw;                       /* `bind`: a leaf, or an earlier step of the group; `store` is not used */
    chain_block *block[GEMS_EXPR_RESULTS]; /* NULL: nobody can see the result any more */
    chain_view view[GEMS_EXPR_RESULTS];
} chain_step;

typedef struct chain_group {
    gems_shape shape; /* without sides of 1 */
    bool running;     /* being computed: nothing of it changes */
    unsigned nsteps, nleaves;
    uint64_t kind;   /* of the call that began it (predict.c) */
    unsigned hidden; /* blocks that were in use, for it */
    int64_t small;   /* elements times steps: passes of less use the small lane */
    unsigned calls, folds;
    bool unready; /* what would have read it has no kernel yet: what becomes of it now says nothing */
    struct chain_group *next, **link;
    /* Of the pass that is being computed: room that must not fail then. */
    struct chain_pass *pass;
    chain_leaf leaf[CHAIN_LEAVES];
    chain_step step[CHAIN_STEPS];
} chain_group;

/* All groups and blocks; the newest first. */
extern struct chain_state {
    pthread_mutex_t lock;
    pthread_cond_t done; /* a pass has ended */
    chain_group *groups;
    chain_block *blocks;
    size_t kept; /* bytes in blocks that were given back */
    gems_chain_counts counts;
    _Atomic int mode; /* gems_fuse; OFF until the start, after a fork and at the exit */
} gems_chains;

static inline void gems_chains_lock(void)
{
    pthread_mutex_lock(&gems_chains.lock);
}
static inline void gems_chains_unlock(void)
{
    pthread_mutex_unlock(&gems_chains.lock);
}
/* Whether there is any group. Without the lock: it may be different now. */
static inline bool gems_chains_any(void)
{
    return __atomic_load_n(&gems_chains.groups, __ATOMIC_RELAXED) != NULL;
}
/* Until a pass or a transfer has ended; what was known of groups and blocks may be different then. */
static inline void gems_chains_wait(void)
{
    pthread_cond_wait(&gems_chains.done, &gems_chains.lock);
}

/* ---- group.c ---- */

/* The descriptor of a block; a new one if it has none. NULL: memory is out. */
chain_block *gems_chain_block(gems_block *block);
static inline chain_block *gems_chain_block_of(const gems_block *block)
{
    return __atomic_load_n(&block->user, __ATOMIC_ACQUIRE);
}
/* Forgets a block that no group needs if it is home; gives it back if it was given. One that is read-only or hidden
 * stays so until the host wants it: the next group may have it as it is. */
void gems_chain_block_drop(chain_block *b);
/* The descriptor of the block that an address lies in, or NULL. */
static inline chain_block *gems_chain_block_at(uintptr_t address)
{
    const gems_block *block = gems_arena_find((const void *)address); /* NOLINT(performance-no-int-to-ptr) */
    return block ? gems_chain_block_of(block) : NULL;
}
/* Whether `is` holds for any tensor among the call's arguments. Takes the lock. */
bool gems_chain_any_tensor(const gems_call *call, bool (*is)(const gems_tensor *t));
bool gems_chain_block_reads(const chain_block *b, const chain_group *g);
bool gems_chain_block_add_reader(chain_block *b, chain_group *g);
/* Whether a group that is being computed uses it. */
bool gems_chain_block_is_busy(const chain_block *b);

chain_group *gems_chain_group_new(const gems_shape *shape, uint64_t kind);
/* Frees it and its ties. */
void gems_chain_group_free(chain_group *g);
/* Makes all of `from` a part of `to`. There is room. */
void gems_chain_group_merge(chain_group *to, chain_group *from);
/* The last step that writes the block, and which result of it; -1: none. */
int gems_chain_group_last(const chain_group *g, const chain_block *b, unsigned *result);
/* Results that would have to be stored if all were computed now. */
unsigned gems_chain_group_owes(const chain_group *g);
/* Whether nobody can see any of its results any more. */
bool gems_chain_group_is_dead(const chain_group *g);
/* Removes the first n steps, whose results are stored where the others need them; what nobody needs is dropped. */
void gems_chain_group_cut(chain_group *g, unsigned n);

/* ---- flush.c ---- */

/* Computes the first n steps, without the lock. The group may be gone afterwards. It is not running. */
void gems_chain_flush(chain_group *g, unsigned n, gems_cause cause);
/* Computes a call that reads a result of step n - 1, and on the way that result, which stays owed; without the lock.
 * The group is not running. False: it was not computed. */
bool gems_chain_run_fold(chain_group *g, unsigned n, unsigned result, gems_call *call);
/* How many steps to compute so that there is room again: where the least must be stored. */
unsigned gems_chain_best_cut(const chain_group *g);
/* Memory for passes. */
struct chain_pass *gems_chain_pass_new(void);
void gems_chain_pass_free(struct chain_pass *pass);

/* ---- resident.c ---- */

/* For who wants the block at home: waits, brings it home or drops its copy, and is true if anything was done: then look
 * again. The lock is given up meanwhile. */
bool gems_resident_want(chain_block *b, bool write, gems_cause cause);
/* Nothing more is to stay there, with the lock: what is to be done at the exit is done at home. */
void gems_resident_end(void);
/* Gives the copy back, whatever is in it. */
void gems_resident_drop(chain_block *b);

/* Room for a copy, by what was not used for longest if need be (the lock is given up then), and back. NULL: there is
 * none. */
gems_buffer *gems_resident_take(size_t bytes);
void gems_resident_give(gems_buffer *copy);
/* Fills a copy with the host's bytes; the lock is given up meanwhile. */
bool gems_resident_fill(gems_buffer *copy, const void *host, size_t bytes);
uint64_t gems_resident_tick(void);
/* Gives back what was made of a copy. */
void gems_resident_drop_made(chain_derived **list);

/* ---- adopt.c ---- */

/* For operands that are in no block. As gems_resident_reach and _leave, with the lock, which may be given up. */
gems_reached gems_adopt_reach(const void *p, size_t n, gems_access access, gems_buffer **buffer, size_t *offset);
void gems_adopt_leave(const void *p);
/* Whether n bytes there could be copied to stay; whether some there are. */
bool gems_adopt_can(const void *p, size_t n);
bool gems_adopt_holds(const void *p);
/* What was made of the copy that a work reads there; NULL: there is none. */
chain_derived **gems_adopt_made(const void *p);
/* Drops the copy not used for longest, if that was earlier. */
bool gems_adopt_evict(uint64_t before);
/* The host writes there: no copy of that mapping stays. With the lock, which may be given up. False: nothing there is
 * ours. */
bool gems_adopt_touch(const void *address);
void gems_adopt_release(const void *p, size_t n);
void gems_adopt_after_fork(void);

/* ---- build.c ---- */

/* Whether the kernel of the recipe's spec is built, for its work's lane. If not it will be, in the background. id: of
 * the kernel, or 0 if there can be none. */
bool gems_chain_built(gems_work *work, uint64_t *id);
/* Whether it cannot be built. */
bool gems_chain_lacks(uint64_t id);
/* Whether any kernel is being built. */
bool gems_chain_builds(void);
/* Waits until nothing is being built. For tests. */
void gems_chain_build_rest(void);
/* Ends the thread that builds, or waits until it has. */
void gems_chain_build_stop(void);
void gems_chain_build_lock(bool lock); /* for a fork */
void gems_chain_build_after_fork(void);

/* ---- predict.c ---- */

/* A number for calls that chains may begin with: the same operator on operands that are alike. */
uint64_t gems_chain_kind(const gems_call *call);
/* Whether the call may begin a chain, or, where others are owed, one that may be joined with them: such chains paid
 * until now, their kernels can be built, and it is not in the middle of what is one chain as a rule. */
bool gems_chain_pays(uint64_t kind);
/* A pass of the chain has no kernel yet. */
void gems_chain_awaits(const chain_group *g, uint64_t id);
/* A chain, or a part of one, is computed: what its calls would have moved one by one, what it moves. */
void gems_chain_learn(const chain_group *g, int64_t apart, int64_t together, unsigned stored);

#endif
