/* The device room: the only code that calls OpenCL. Those above see devices, kernels, buffers and queues.
 *
 * Nothing here knows operators or tensors: kernels/work turns what a family wrote down into launches on a queue, and
 * kernels/memory decides where data is. Errors are values: a function that can fail takes a gems_trouble, which keeps
 * the first one; after that every further call with it does nothing.
 *
 * A lane is one way to run: GEMS_LANE_SMALL starts in well under a microsecond but uses little of the device (PoCL's
 * `basic` device); GEMS_LANE_MAIN is the whole device. Where a vendor has only one, both are the same. */
#ifndef GEMS_DEVICE_H
#define GEMS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum gems_lane {
    GEMS_LANE_MAIN,
    GEMS_LANE_SMALL,
    GEMS_LANE_COUNT
} gems_lane;

/* What families and the code generator may ask about a device. */
typedef struct gems_device_info {
    const char *vendor;     /* as in tune/<vendor>.json: "pocl", "nvidia", ..., "generic" */
    const char *platform;   /* CL_PLATFORM_NAME */
    const char *name;       /* CL_DEVICE_NAME */
    const char *driver;     /* CL_DRIVER_VERSION */
    const char *prelude;    /* OpenCL C text put before every program: GEMS_CPU, GEMS_HAS_F64, ... are 1 or undefined */
    bool is_cpu;            /* one work-item should do a long run of neighbouring elements */
    bool unified;           /* kernels read the host's memory: no transfer */
    bool undoes;            /* a command that failed has written nothing */
    bool f64;               /* cl_khr_fp64 */
    bool f16_arith;         /* cl_khr_fp16; else half is only loaded and stored */
    bool short_loops;       /* a work-item's loops end early, tried at start: large calls are left to the host */
    uint32_t compute_units; /* of that lane */
    uint32_t subgroup;      /* preferred work-group multiple */
    uint32_t ptx;           /* NVIDIA's compute capability, ten times: kernels may be written in its PTX; 0: no */
    bool wgmma;             /* with products by warp groups and copies by an engine (kernels/hopper.cl), as tried */
    size_t max_group;       /* work-items in a group */
    size_t local_bytes;     /* local memory that may be used */
    size_t local_static;    /* the same of arrays that kernels declare: some devices give them more */
    size_t memory_bytes;    /* global memory */
    bool exact_buffers;     /* buffers are no larger than asked for, and not kept: for finding overruns */
    size_t bounce_bytes, bounce_piece, bounce_from; /* transfers through pinned memory (kernels/memory/bounce.c) */
} gems_device_info;

/* Opens OpenCL on first use (once, thread-safe). False: no device (reason in gems_device_error(), already logged). */
bool gems_device_open(void);
/* `threads` is asked, when the device is opened, how many threads a CPU's driver is to use; 0: as many as it likes.
 * Before that, once. */
void gems_device_ask_threads(int (*threads)(void));
bool gems_device_is_open(void);
/* For the exit, before a library that the driver needs is taken down: nothing begins any more, and what runs, or is
 * compiled, gets time to finish. */
void gems_device_end(void *unused);
const char *gems_device_error(void); /* "" if nothing is wrong */
/* Never NULL: while no device is open, one called "none". */
const gems_device_info *gems_device_get(gems_lane lane);
/* Stops all use of the device for good: `reason` must be a string constant. Later calls run on the host. */
void gems_device_stop(const char *reason);

/* One OpenCL device that was found, also if it is not the one in use; for people (`gems doctor`). */
typedef struct gems_device_seen {
    const char *vendor, *platform, *name;
    int index;             /* for GEMS_DEVICE; -1 if it cannot be chosen */
    bool cpu, main, small; /* main, small: it serves that lane */
} gems_device_seen;
/* What gems_device_open found, in order of preference (GEMS_DEVICE counts in this order, within GEMS_VENDOR); their
 * number, 0 before. Those that only serve the small lane of another come last and are not counted. */
unsigned gems_device_list(const gems_device_seen **list);
/* Whether a shared library is a part of a driver that we know, such as its compiler. */
bool gems_device_library(const char *path);
/* Folder of compiled kernels, or NULL if nothing is kept. */
const char *gems_cache_dir(void);
/* What is stored there under this key, or NULL; *size is its size in bytes. free() it. */
unsigned char *gems_cache_load(const char *key, size_t key_size, size_t *size);
void gems_cache_store(const char *key, size_t key_size, const unsigned char *bytes, size_t size);

/* ---- trouble ---- */

typedef enum gems_trouble_kind {
    GEMS_TROUBLE_NONE,
    GEMS_TROUBLE_NO_DEVICE, /* none, or none any more: an ordinary reason to leave the call to the host */
    GEMS_TROUBLE_MEMORY,    /* memory ran out: the same may work later */
    GEMS_TROUBLE_OTHER
} gems_trouble_kind;

/* The first thing that went wrong. Starts zeroed. */
typedef struct gems_trouble {
    gems_trouble_kind kind;
    int code; /* OpenCL's, or 0 */
    char text[160];
} gems_trouble;

/* Name and number of one of OpenCL's codes: "CL_OUT_OF_RESOURCES (-5)"; valid until the thread's next call. */
const char *gems_cl_error(int code);
/* Notes trouble unless there is some already. */
void gems_trouble_note(gems_trouble *trouble, gems_trouble_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- kernels ---- */

typedef struct gems_kernel gems_kernel;

/* A kernel that was built under this identity before, or NULL. `id`: n bytes that tell it from every other, such as
 * a struct (its padding cleared) of what its source is made from; they are compared, so two identities never meet. A
 * kernel that is out of use is trouble. */
gems_kernel *gems_kernel_find(gems_lane lane, const void *id, size_t n, gems_trouble *trouble);
/* Builds (or takes from the cache on disk) the program `source` with build `options`, takes its kernel `entry`, and
 * remembers it under `id`. NULL on failure, with the compiler's log in the log: the kernel is out of use then, for good
 * or, where memory or disk were short, for some seconds. The source is compiled after the device's prelude and, if
 * `includes` is not NULL, the embedded device files named there, separated by spaces ("kernels/math.cl"). A line
 * `#include "kernels/math.cl"` in a source stands for that embedded file; each file is taken once. `name` is for
 * humans. */
typedef struct gems_kernel_text {
    const char *name, *includes, *source, *options, *entry;
} gems_kernel_text;
gems_kernel *gems_kernel_build(gems_lane lane, const void *id, size_t n, const gems_kernel_text *text,
                               gems_trouble *trouble);
/* Nobody waits for what the calling thread has built: compilers give way to the program's threads. (A loop that is
 * shared out evenly takes as long as the thread whose core a compiler is on.) */
void gems_build_in_background(void);
/* It could not be launched, or its launch failed: out of use for good, unless memory may have been short. */
void gems_kernel_failed(gems_kernel *kernel, const gems_trouble *trouble);

/* ---- buffers ---- */

/* Device memory, or on a unified device memory of the host's that kernels reach by its address. */
typedef struct gems_buffer gems_buffer;

gems_buffer *gems_buffer_new(gems_lane lane, size_t bytes, gems_trouble *trouble);
/* Memory of the host's, registered with the driver. */
gems_buffer *gems_buffer_over(gems_lane lane, void *host, size_t bytes, gems_trouble *trouble);
void gems_buffer_free(gems_buffer *buffer);
size_t gems_buffer_bytes(const gems_buffer *buffer);
/* The cl_mem, for a library that takes one; NULL on a unified device. */
void *gems_buffer_handle(const gems_buffer *buffer);
/* Where the host reaches it, or NULL. */
void *gems_buffer_host(const gems_buffer *buffer);

/* ---- queues ---- */

/* An in-order queue, held by one thread at a time. After a failure it does nothing more until it is given back. */
typedef struct gems_queue gems_queue;

typedef enum gems_bound_kind {
    GEMS_BOUND_PLACE, /* two parameters, GEMS_BUFFER(T, x) in device code: a buffer, and a byte in it */
    GEMS_BOUND_VALUE,
    GEMS_BOUND_LOCAL
} gems_bound_kind;

typedef struct gems_bound {
    gems_bound_kind kind;
    size_t n;                  /* bytes of a value or of local memory; of a place: the offset */
    const void *p;             /* bytes of a value; a place without buffer: the host's address (unified devices) */
    const gems_buffer *buffer; /* NULL: p */
} gems_bound;

/* A free queue of the lane, a new one, or, when all are taken, the next one that is given back. A thread holds at most
 * one of a lane. timed: the time that kernels take is measured, where the driver can. NULL: see trouble. */
gems_queue *gems_queue_take(gems_lane lane, bool timed, gems_trouble *trouble);
/* The lane's stream, when its turn comes: the one queue whose commands may still run when the next thread has it. */
gems_queue *gems_queue_take_stream(gems_lane lane, bool timed, gems_trouble *trouble);
/* All that was queued has ended. */
void gems_queue_give(gems_queue *queue);
/* Whether it can be given back while its commands run: nothing failed, is timed, runs alone or is to be kept of a first
 * launch. */
bool gems_queue_may_be_left(const gems_queue *queue);
/* Gives it back so. The results are nowhere else: if a command fails later the process ends. */
void gems_queue_leave(gems_queue *queue);
/* Waits until nothing of the lane's stream runs. */
void gems_queue_rest(gems_lane lane);
/* Where its failures are noted: begins empty when the queue is taken. */
gems_trouble *gems_queue_trouble(gems_queue *queue);

/* global and local: `dims` (1 to 3) sizes in work-items; local NULL leaves the choice to the device room or the driver
 * (CPU drivers compile a kernel once for each local size: use few, whatever the size of the operands). global must be a
 * multiple of local. Values are copied before this returns. A launch of zero work-items does nothing. */
void gems_queue_launch(gems_queue *queue, gems_kernel *kernel, int dims, const size_t *global, const size_t *local,
                       const gems_bound *args, int nargs);

/* A transfer that can be waited for by itself. */
typedef struct gems_mark gems_mark;
/* Queue a transfer of n bytes; the host's memory must stay until it has ended. mark may be NULL; one of an earlier
 * transfer of this queue is replaced. */
void gems_queue_write(gems_queue *queue, gems_buffer *buffer, size_t offset, const void *from, size_t n,
                      gems_mark **mark);
void gems_queue_read(gems_queue *queue, gems_buffer *buffer, size_t offset, void *to, size_t n, gems_mark **mark);
/* Waits for it and forgets it. False: it did not end well. */
bool gems_mark_await(gems_mark *mark, gems_trouble *trouble);

/* Another library's work on the queue: calls `use` with the cl_command_queue and the address of a cl_event to be
 * filled; nothing else of ours runs or builds meanwhile. Its answer, or GEMS_QUEUE_UNUSED if it was not called. Counts
 * as one OpenCL call for fault injection. */
#define GEMS_QUEUE_UNUSED INT32_MIN
int gems_queue_use(gems_queue *queue, int (*use)(void *arg, void *cl_queue, void *cl_event), void *arg);
/* Makes what was written to a registered buffer visible at the host's address. */
void gems_queue_show(gems_queue *queue, gems_buffer *buffer, size_t offset, size_t n);

/* Waits until nothing of the queue runs any more, whatever happened. True: all of it ended well. */
bool gems_queue_settle(gems_queue *queue);
/* Nanoseconds that kernels took since the queue was taken; 0 if it is not timed. After gems_queue_settle. */
double gems_queue_device_ns(gems_queue *queue);
/* Runs fn(arg), and waits for it: in a thread of our own where the calling one's stack is too small for launches, which
 * on the small lane run in the calling thread. */
void gems_device_deep(void (*fn)(void *), void *arg);
/* Whether the device still does anything at all: after a fault in a kernel some drivers refuse all further work. */
bool gems_queue_alive(gems_queue *queue);

#endif
