/* Chains: the values of pointwise results are owed, and computed together when somebody wants them.
 *
 * A call whose result is deferred leaves its expression in a group: calls of one shape that are connected by what they
 * read and write. Their operands stay as they are: what is only read is read-only, what will be written is hidden
 * (kernels/memory/arena.h). A group, or the part of it that is wanted, becomes one kernel. A result that nobody can
 * see any more by then is not stored.
 *
 *   who wants a value              how we hear of it
 *   a routed kernel, an operator   settled by the calling thread before it runs (gems_chain_settle)
 *   a reduction, softmax, a norm   computes it on the way; it stays owed (gems_chain_fold)
 *   a touch of the memory          touch.c: the page faults
 *   the kernel (read, write, ...)  preload/libc.c: pinned for the length of the call
 *   a limit, a fork, the exit      settled here
 *
 * Computing cannot fail: what the device does not compute, codegen/evaluate.c does.
 *
 * All functions may be called from any thread. One lock guards groups and blocks; it is not held while a group is
 * computed. The order of locks: chains, then the arena's; the builder's and the predictor's are taken alone or last. */
#ifndef GEMS_CHAIN_H
#define GEMS_CHAIN_H

#include "kernels/work/work.h"
#include "tune/table.h"

#include <stdatomic.h>

typedef enum gems_fuse {
    GEMS_FUSE_OFF,
    GEMS_FUSE_AUTO, /* where it pays */
    GEMS_FUSE_ALL   /* whatever can be, at any size: for tests */
} gems_fuse;

/* Whether what kernels read and write stays on the device. */
typedef enum gems_stay {
    GEMS_STAY_OFF,
    GEMS_STAY_AUTO, /* on a GPU with memory of its own */
    GEMS_STAY_FORCE /* wherever memory is staged */
} gems_stay;

/* Why values are computed. */
typedef enum gems_cause {
    GEMS_CAUSE_OPERATOR, /* one that the host runs, or a kernel that is no part of a chain, reads them */
    GEMS_CAUSE_CALL,     /* a call that would join the group cannot: other elements of the same memory */
    GEMS_CAUSE_TOUCH,    /* the program's code reads or writes the memory */
    GEMS_CAUSE_SYSTEM,   /* a system call does */
    GEMS_CAUSE_LIMIT,    /* steps, operands */
    GEMS_CAUSE_MEMORY,   /* memory that only the group still needs */
    GEMS_CAUSE_END,      /* a fork, the exit */
    GEMS_CAUSE_COUNT
} gems_cause;
extern const char *const gems_cause_names[GEMS_CAUSE_COUNT];

/* Runs open(), which opens a device and calls gems_chain_start, in the background: programs do not wait for that. A
 * fork and the exit do. Once; false: it could not be begun. */
bool gems_chain_open(void (*open)(void));
/* Begins, once a device is open. Where memory stays on it nothing is deferred. False: neither. Once. */
bool gems_chain_start(gems_fuse mode, gems_stay stay);
/* Whether gems_chain_end has something to do. */
bool gems_chain_is_on(void);
/* Computes all that is owed; nothing is deferred, and no kernel built, any more. For the exit. */
void gems_chain_end(void *unused);
/* The least elements of a call that may be deferred by the table's rules, or read what is owed; INT64_MAX: none. */
int64_t gems_chain_least(gems_fuse mode, const gems_table *table);
/* Whether a call, after plan() and with call->chain set, is to be deferred. Then its results may be made hidden
 * (gems_arena_hides). */
bool gems_chain_wants(const gems_call *call);
/* After prepare(): true if the results are owed now. False: it must be run. */
bool gems_chain_take(const gems_call *call, gems_work *work);

/* A call, after plan(), that reduces what is owed: computes it and, on the way, what it reads, which stays owed: as a
 * rule nobody wants it any more. False: nothing has changed. */
bool gems_chain_fold(gems_call *call);

/* Whether anything may be owed or hidden. */
extern atomic_bool gems_chain_active;
/* Computes what is owed at n bytes, and lets the host read them, or `write`. */
void gems_chain_settle(const void *p, size_t n, bool write, gems_cause cause);
/* The same, and it stays so until gems_chain_unpin with the same arguments. False: nothing there is ours. */
bool gems_chain_pin(const void *p, size_t n, bool write);
void gems_chain_unpin(const void *p, size_t n);

/* ---- on a device with memory of its own (resident.c) ---- */

/* For gems_work_memory. */
gems_reached gems_resident_reach(const void *p, size_t n, gems_access access, gems_buffer **buffer, size_t *offset);
void gems_resident_leave(const void *p, bool write, gems_outcome outcome);
bool gems_resident_may_keep(const void *p);
gems_buffer *gems_resident_kept(const void *p, const int64_t key[GEMS_WORK_KEY], size_t bytes, bool *there);
void gems_resident_made(const void *p, const int64_t key[GEMS_WORK_KEY]);
bool gems_resident_is_away(const void *p);
/* Where the call's arguments are. */
gems_operand_place gems_resident_place(const gems_call *call);
/* Of file mappings that kernels read (adopt.c). Whether n bytes there are of one: without a lock. The program is about
 * to unmap, move, protect or empty them. */
bool gems_adopt_any(const void *p, size_t n);
void gems_adopt_forget(const void *p, size_t n);
/* For handlers of signals. Whether a write may fault there because of us; now; in a forked child: that is ended. */
bool gems_adopt_knows(const void *address);
bool gems_adopt_guards(const void *address);
bool gems_adopt_open(const void *address);
/* Bytes that were copied for the calling thread, either way. */
extern __thread uint64_t gems_resident_moved;
/* The bytes that copies may take; SIZE_MAX, as at first: three quarters of the device's memory. */
void gems_resident_limit(size_t bytes);

/* What the report tells. */
typedef struct gems_chain_counts {
    uint64_t calls, passes, steps;   /* deferred; kernels run for them; expressions computed in those */
    uint64_t folds;                  /* reductions that were computed with what they read */
    uint64_t unstored;               /* results that were never stored */
    uint64_t bytes_saved;            /* of reads and writes that the calls one by one would have made */
    uint64_t evaluated;              /* passes that the device did not compute */
    uint64_t kernels;                /* built */
    uint64_t up;                     /* bytes that were copied to a device to stay, */
    uint64_t home[GEMS_CAUSE_COUNT]; /* and brought home */
    uint64_t causes[GEMS_CAUSE_COUNT];
} gems_chain_counts;
void gems_chain_count(gems_chain_counts *counts);

#endif
