/* Works: the record of what one call wants done on the device.
 *
 * A family's prepare() fills one; kernels/work/run.c submits it, waits and brings the results home. A work owns all
 * that it needs: sizes and values by copy, operands as places in memory. Nothing in it points into a stack or a call,
 * so it can be kept, copied and run later. Until it is run the call can still be declined with nothing changed.
 *
 *   operand  memory that launches read or write: an allocation, a byte in it, a span
 *   launch   a kernel with its sizes and arguments, or a call of another library
 *   recipe   what a family writes launches from at the last moment ("lower"), such as expressions that may be merged
 *            with those of other works before a kernel is made of them */
#ifndef GEMS_WORK_H
#define GEMS_WORK_H

#include "kernels/call.h"
#include "kernels/device/device.h"
#include "kernels/tensor/nest.h"

typedef enum gems_access {
    GEMS_READ = 1,
    GEMS_WRITE = 2,
    GEMS_READ_WRITE = 3
} gems_access;

typedef struct gems_operand {
    uintptr_t allocation; /* address at which its memory begins */
    size_t offset, span;  /* bytes: from there to the first element; from it to the last, both included */
    uint8_t access;       /* of all launches together; READ only if one reads it before another has written all of it */
    uint8_t element;      /* bytes of an element */
    bool held;            /* its memory, for the run (gems_work_on_memory) */
    bool written;         /* a launch that writes it was queued */
    gems_buffer *copy;    /* where it stays on the device, during a run, */
    size_t copy_at;       /* and at which byte; NULL: nowhere */
    int8_t gaps;          /* a result that does not fill its span: its loops, in gems_work.gaps; -1: it does */
} gems_operand;

typedef enum gems_arg_kind {
    GEMS_ARG_TENSOR,
    GEMS_ARG_OPERAND,
    GEMS_ARG_SCRATCH,
    GEMS_ARG_VALUE,
    GEMS_ARG_LOCAL
} gems_arg_kind;

/* An argument as a launcher gives it, in the order of the kernel's parameters. Memory is two parameters there:
 * GEMS_BUFFER(T, x), of which GEMS_AT(T, x) makes the pointer x to the first element. */
typedef struct gems_arg {
    gems_arg_kind kind;
    gems_access access;
    const void *p; /* gems_tensor *, or bytes */
    size_t n;      /* operand, scratch; bytes of a value or of local memory */
} gems_arg;

#define GEMS_IN(tensor)        ((gems_arg){GEMS_ARG_TENSOR, GEMS_READ, (tensor), 0})
#define GEMS_OUT_ARG(tensor)   ((gems_arg){GEMS_ARG_TENSOR, GEMS_WRITE, (tensor), 0})
#define GEMS_INOUT(tensor)     ((gems_arg){GEMS_ARG_TENSOR, GEMS_READ_WRITE, (tensor), 0})
#define GEMS_OPERAND(index)    ((gems_arg){GEMS_ARG_OPERAND, 0, NULL, (size_t)(index)})
#define GEMS_SCRATCH(id)       ((gems_arg){GEMS_ARG_SCRATCH, 0, NULL, (size_t)(id)})
#define GEMS_VALUE(lvalue)     ((gems_arg){GEMS_ARG_VALUE, 0, &(lvalue), sizeof(lvalue)})
#define GEMS_BYTES(ptr, bytes) ((gems_arg){GEMS_ARG_VALUE, 0, (ptr), (bytes)})
#define GEMS_LOCAL(bytes)      ((gems_arg){GEMS_ARG_LOCAL, 0, NULL, (bytes)})

/* An argument as the record keeps it. */
typedef struct gems_kept_arg {
    uint8_t kind;   /* gems_arg_kind, never TENSOR */
    uint32_t n, at; /* bytes, of an operand gems_access; operand, scratch, or where in gems_work.bytes */
} gems_kept_arg;

/* Another library's work: `run` gets the places of the launch's arguments (operands first) and its payload. */
typedef void gems_library(gems_queue *queue, gems_lane lane, const gems_bound *places, const void *payload);

/* A tensor that a launch computes for itself, a piece at a time (kernels/pointwise/end.h): where it is an argument the
 * launch gets memory of `room` elements for each work-item in its place, and these arguments after its own. */
typedef struct gems_produced {
    uintptr_t address;
    int64_t room;
    size_t element; /* bytes */
    const gems_arg *args;
    int nargs;
} gems_produced;

typedef struct gems_work_launch {
    gems_kernel *kernel; /* NULL: found by gems_work.late when the work runs */
    uint32_t wanted;     /* for that: where in gems_work.bytes stands which one */
    uint8_t makes;       /* not needed where this scratch (counted from 1) stayed from an earlier work */
    bool produces;
    gems_library *library; /* NULL: the kernel */
    uint8_t dims;
    bool any_group; /* the size of a group is the device room's choice */
    size_t global[3], local[3];
    uint32_t arg, nargs;
} gems_work_launch;

enum {
    GEMS_WORK_OPERANDS = 16, /* without the heap; more are taken from there */
    GEMS_WORK_LAUNCHES = 4,
    GEMS_WORK_ARGS = 96,
    GEMS_WORK_BYTES = 6144,
    GEMS_WORK_SCRATCH = 8,
    GEMS_WORK_KEY = 6, /* numbers that tell what was made of a memory from what else was */
    GEMS_WORK_GAPS = 4
};
#define GEMS_WORK_UNFILLED UINT32_MAX

typedef struct gems_work {
    gems_lane lane;
    bool guarded;                          /* who made it sees to it that kernels may use its memory */
    gems_trouble trouble;                  /* the first thing that went wrong while it was written */
    void (*lower)(struct gems_work *work); /* writes launches from the recipe; NULL: they stand */
    uint32_t recipe;                       /* where in bytes it begins */
    /* Set while launches are written of which kernels are to be found later, and for which something is produced. */
    gems_kernel *(*late)(struct gems_work *work, const gems_work_launch *launch);
    const gems_produced *produced;
    uint32_t wanted; /* of the next launch */
    uint32_t noperands, nlaunches, nargs, nbytes, nscratch, ngaps;
    uint32_t operand_room, launch_room, arg_room, byte_room;
    gems_operand *operand;
    gems_work_launch *launch;
    gems_kept_arg *arg;
    unsigned char *bytes;
    size_t scratch[GEMS_WORK_SCRATCH];  /* bytes */
    uint32_t filled[GEMS_WORK_SCRATCH]; /* where in bytes stands what it begins with; GEMS_WORK_UNFILLED: nowhere */
    struct {
        uintptr_t of; /* an address in the memory that it is made of; 0: it is this work's alone */
        int64_t key[GEMS_WORK_KEY];
    } kept[GEMS_WORK_SCRATCH];
    gems_nest gaps[GEMS_WORK_GAPS];
    /* What the run found, for the report. */
    uint64_t moved;   /* bytes copied to and from the device */
    double device_ns; /* in kernels, if that is measured (gems_work_set_timing) */

    gems_operand own_operand[GEMS_WORK_OPERANDS];
    gems_work_launch own_launch[GEMS_WORK_LAUNCHES];
    gems_kept_arg own_arg[GEMS_WORK_ARGS];
    _Alignas(16) unsigned char own_bytes[GEMS_WORK_BYTES];
} gems_work;

/* An empty work for a lane. It must not be moved; gems_work_copy makes another. */
void gems_work_begin(gems_work *work, gems_lane lane);
/* Frees what it took from the heap. */
void gems_work_end(gems_work *work);
/* A copy of a work that has not been run. False if memory is out; then there is nothing to end. */
bool gems_work_copy(gems_work *to, const gems_work *from);

/* How far a work is written, and back to there, without the trouble since. */
typedef struct gems_work_mark {
    uint32_t noperands, nlaunches, nargs, nbytes, nscratch, ngaps;
} gems_work_mark;
gems_work_mark gems_work_marked(const gems_work *work);
void gems_work_rewind(gems_work *work, gems_work_mark mark);

/* The operand for a tensor's memory; the same memory twice is one operand. -1: see trouble. */
int gems_work_operand(gems_work *work, const gems_tensor *tensor, gems_access access);
/* Memory for this work alone (partial sums), for GEMS_SCRATCH. */
int gems_work_scratch(gems_work *work, size_t bytes);
/* The same, for what the host found out and kernels read: it begins with the bytes returned, to be written before
 * anything else is asked of the work. NULL: see trouble. */
void *gems_work_scratch_filled(gems_work *work, size_t bytes, int *scratch);
/* The same, for what is made of a tensor's memory alone and may stay until that changes, told apart by its address and
 * a key. Only launches that gems_work_makes() names write it; they are left out where it is there. */
int gems_work_scratch_of(gems_work *work, const gems_tensor *tensor, size_t bytes, const int64_t key[GEMS_WORK_KEY]);
/* The launch written last writes nothing but this scratch. */
void gems_work_makes(gems_work *work, int scratch);
/* Whether the tensor's memory is such that what is made of it may stay: it is not written again and again. */
bool gems_work_may_keep(const gems_tensor *tensor);
/* n bytes of its own, aligned to 16, until the next one is asked for. NULL: see trouble. */
void *gems_work_reserve(gems_work *work, size_t n);
/* Sees to it that n more bytes fit without moving those before them. */
bool gems_work_room(gems_work *work, size_t n);

/* As gems_kernel_find and gems_kernel_build, for the work's lane, with its trouble. */
gems_kernel *gems_work_find(gems_work *work, const void *id, size_t n);
gems_kernel *gems_work_build(gems_work *work, const void *id, size_t n, const gems_kernel_text *text);

/* Writes down a launch; global, local: see gems_queue_launch. All that a kernel touches of a tensor lies between its
 * first and its last element; of a result that has gaps only its elements come home. A NULL kernel is trouble that was
 * noted before. */
void gems_launch(gems_work *work, gems_kernel *kernel, int dims, const size_t *global, const size_t *local,
                 const gems_arg *args, int nargs);
/* The same for another library's work: all arguments are memory. */
void gems_launch_library(gems_work *work, gems_library *library, const void *payload, size_t bytes,
                         const gems_arg *args, int nargs);

/* Runs it: takes a queue, brings the operands where kernels reach them, launches, waits, brings the results home. OK:
 * they are there. DECLINED or FAILED, with the reason in call->why: nothing that the host sees has changed. May be
 * called again. */
gems_status gems_work_run(gems_work *work, gems_call *call);
/* The same without a call. False: see the work's trouble. */
bool gems_work_execute(gems_work *work);
typedef enum gems_reached {
    GEMS_FOREIGN,     /* not memory of blocks: it is copied for the run */
    GEMS_REACHED,     /* its place on the device is known */
    GEMS_UNREACHABLE, /* to be copied for the run, from where the host sees it */
} gems_reached;
typedef enum gems_outcome {
    GEMS_OUTCOME_DONE,
    GEMS_OUTCOME_UNTOUCHED, /* nothing of it was written */
    GEMS_OUTCOME_UNKNOWN
} gems_outcome;
/* Called for each operand before a run, and when it has ended if that was true: `begin` makes its memory one that
 * kernels may read, or write, meanwhile. On a device with memory of its own `reach` is asked first, if there is one:
 * where the operand is, or will be, on the device, to stay (access: GEMS_WRITE if all of its n bytes are written and
 * none is read); `leave` ends that. If an operand is unreachable, all others are left, untouched, and begun instead.
 * One, set once; NULL: all memory always is. */
typedef struct gems_work_memory {
    bool (*begin)(const void *p, size_t n, bool write);
    void (*end)(const void *p, size_t n);
    gems_reached (*reach)(const void *p, size_t n, gems_access access, gems_buffer **buffer, size_t *offset);
    void (*leave)(const void *p, bool write, gems_outcome outcome);
    /* May be NULL. Whether what is made of the memory at p may stay; for memory that was reached, the buffer in which
     * it does (*there: it was made before), NULL: not this; and that it is there now. */
    bool (*may_keep)(const void *p);
    gems_buffer *(*kept)(const void *p, const int64_t key[GEMS_WORK_KEY], size_t bytes, bool *there);
    void (*made)(const void *p, const int64_t key[GEMS_WORK_KEY]);
    bool (*away)(const void *p); /* may be NULL: never. The values at p are on the device alone */
} gems_work_memory;
void gems_work_on_memory(const gems_work_memory *memory);
/* Whether results stay on the device. */
bool gems_work_stays(void);
/* Whether the tensor's values are on the device alone: for the host to look at them brings them home. */
bool gems_work_is_away(const gems_tensor *tensor);
/* Whether a work runs whose memory is not `guarded`: its kernels may touch what somebody else has hidden since. */
bool gems_work_any_unguarded(void);

/* Whether the time that the device spends in kernels is noted. Off at first: queues that measure may be slower. */
void gems_work_set_timing(bool on);
bool gems_work_timing(void);

#endif
