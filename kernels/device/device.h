/* The device layer: the only code that calls OpenCL. Families see devices, kernels, jobs.
 *
 * A job is one operator's work: begin, launch one or more kernels, end. Errors are sticky: after the first one every
 * further call on the job is a no-op and gems_job_end returns it. Memory of a tensor argument is made ready when it is
 * first named in a launch (unified: the host's own memory; staged: a buffer, copied in if it is read), and results are
 * back in host memory when gems_job_end returns GEMS_OK. Between naming a launch and running it the device layer is
 * free to wait (fusion comes later): do not assume that a launch has run before gems_job_end.
 *
 * A lane is one way to run: GEMS_LANE_SMALL starts in well under a microsecond but uses little of the device (PoCL's
 * `basic` device); GEMS_LANE_MAIN is the whole device. Where a vendor has only one, both are the same queue. */
#ifndef GEMS_DEVICE_H
#define GEMS_DEVICE_H

#include "kernels/call.h"

typedef enum gems_lane {
    GEMS_LANE_MAIN,
    GEMS_LANE_SMALL,
    GEMS_LANE_COUNT
} gems_lane;

typedef enum gems_access {
    GEMS_READ = 1,
    GEMS_WRITE = 2,
    GEMS_READ_WRITE = 3
} gems_access;

/* What families and the code generator may ask about a device. */
typedef struct gems_device_info {
    const char *vendor;     /* as in tune/<vendor>.json: "pocl", "nvidia", ..., "generic" */
    const char *platform;   /* CL_PLATFORM_NAME */
    const char *name;       /* CL_DEVICE_NAME */
    const char *driver;     /* CL_DRIVER_VERSION */
    const char *prelude;    /* OpenCL C text put before every program: GEMS_CPU, GEMS_HAS_F64, ... are 1 or undefined */
    bool is_cpu;            /* one work-item should do a long run of neighbouring elements */
    bool unified;           /* kernels read the host's memory: no transfer */
    bool f64;               /* cl_khr_fp64 */
    bool f16_arith;         /* cl_khr_fp16; else half is only loaded and stored */
    bool short_loops;       /* a work-item's loops end early, tried at start: jobs of large calls are declined */
    uint32_t compute_units; /* of that lane */
    uint32_t subgroup;      /* preferred work-group multiple */
    size_t max_group;       /* work-items in a group */
    size_t local_bytes;     /* local memory that may be used */
    size_t memory_bytes;    /* global memory */
} gems_device_info;

/* Opens OpenCL on first use (once, thread-safe). False: no device (reason in gems_device_error(), already logged). */
bool gems_device_open(void);
const char *gems_device_error(void); /* "" if nothing is wrong */
/* Never NULL: while no device is open, one called "none". */
const gems_device_info *gems_device_get(gems_lane lane);

/* One OpenCL device that was found, also if it is not the one in use; for people (`gems doctor`). */
typedef struct gems_device_seen {
    const char *vendor, *platform, *name;
    int index;             /* for GEMS_DEVICE; -1 if it cannot be chosen */
    bool cpu, main, small; /* main, small: it serves that lane */
} gems_device_seen;
/* What gems_device_open found, in order of preference (GEMS_DEVICE counts in this order, within GEMS_VENDOR); their
 * number, 0 before. Those that only serve the small lane of another come last and are not counted. */
unsigned gems_device_list(const gems_device_seen **list);
/* Whether the time that the device spends in a call's kernels is noted in call->device_ns. On from the start if
 * GEMS_REPORT=1, else off: queues that measure may be slower. For jobs that begin from now on. */
void gems_device_set_timing(bool on);
bool gems_device_timing(void);
/* Folder of compiled kernels, or NULL if nothing is kept. */
const char *gems_cache_dir(void);

typedef struct gems_kernel gems_kernel;
typedef struct gems_job gems_job;

/* Starts the work of one call on a lane. Never NULL: errors are reported by gems_job_end (GEMS_DECLINED if there is
 * no device, or none any more). A thread holds one job of a lane at a time: the queues are finite, and a thread that
 * has none waits for those of others. */
gems_job *gems_job_begin(gems_call *call, gems_lane lane);
const gems_device_info *gems_job_device(const gems_job *job);

/* A kernel that was built under this key before, or NULL. `key` identifies source, options and entry. */
gems_kernel *gems_kernel_find(gems_job *job, uint64_t key);
/* Builds (or takes from the binary cache on disk) the program `source` with build `options`, takes its kernel `entry`,
 * and remembers it under `key`. NULL on failure: the job has failed, the key is quarantined (an immediate failure next
 * time), the compiler's log is in the log. The source is compiled after the device's prelude and, if `includes` is not
 * NULL, the embedded device files named there, separated by spaces ("kernels/math.cl"). `name` is for humans.
 * A line `#include "kernels/math.cl"` in a source stands for that embedded file; each file is taken once. */
gems_kernel *gems_kernel_build(gems_job *job, uint64_t key, const char *name, const char *includes, const char *source,
                               const char *options, const char *entry);
/* The usual case: entry `entry` of the embedded file `file` ("kernels/reduce/reduce.cl") with `options`
 * ("-DT=float -DROWS=4"); found by a hash of the three. `options` may be printf-like. */
gems_kernel *gems_kernel_get(gems_job *job, const char *file, const char *entry, const char *options, ...)
    __attribute__((format(printf, 4, 5)));

typedef enum gems_arg_kind {
    GEMS_ARG_TENSOR,
    GEMS_ARG_SCRATCH,
    GEMS_ARG_VALUE,
    GEMS_ARG_LOCAL
} gems_arg_kind;
typedef struct gems_arg {
    gems_arg_kind kind;
    gems_access access;
    const void *p; /* gems_tensor *, scratch id, or bytes */
    size_t n;      /* bytes of a value or of local memory */
} gems_arg;

/* Arguments in the order of the kernel's parameters. A tensor's pointer parameter points at its first element
 * (gems_tensor.address); the whole span may be touched as `access` says. A result with gaps between its elements (not
 * dense) must be GEMS_READ_WRITE. */
#define GEMS_IN(tensor)        ((gems_arg){GEMS_ARG_TENSOR, GEMS_READ, (tensor), 0})
#define GEMS_OUT_ARG(tensor)   ((gems_arg){GEMS_ARG_TENSOR, GEMS_WRITE, (tensor), 0})
#define GEMS_INOUT(tensor)     ((gems_arg){GEMS_ARG_TENSOR, GEMS_READ_WRITE, (tensor), 0})
#define GEMS_VALUE(lvalue)     ((gems_arg){GEMS_ARG_VALUE, 0, &(lvalue), sizeof(lvalue)})
#define GEMS_BYTES(ptr, bytes) ((gems_arg){GEMS_ARG_VALUE, 0, (ptr), (bytes)})
#define GEMS_LOCAL(bytes)      ((gems_arg){GEMS_ARG_LOCAL, 0, NULL, (bytes)})
#define GEMS_SCRATCH(id)       ((gems_arg){GEMS_ARG_SCRATCH, GEMS_READ_WRITE, NULL, (size_t)(id)})

/* Device memory for the job alone (partial sums); id for GEMS_SCRATCH. Freed by gems_job_end. */
int gems_job_scratch(gems_job *job, size_t bytes);

/* global and local: `dims` (1 to 3) sizes in work-items; local NULL leaves the choice to the device layer or the driver
 * (CPU drivers compile a kernel once for each local size: use few, whatever the size of the operands). global must be a
 * multiple of local. Values are copied before this returns. A launch of zero work-items does nothing. */
void gems_launch(gems_job *job, gems_kernel *kernel, int dims, const size_t *global, const size_t *local,
                 const gems_arg *args, int nargs);

/* ---- CLBlast: another library's products on the job's queue ---- */

typedef enum gems_clblast_routine {
    GEMS_CLBLAST_GEMM,    /* C = alpha A B + beta C */
    GEMS_CLBLAST_BATCHED, /* the same for p->batch matrices */
    GEMS_CLBLAST_GEMV,    /* B and C are vectors (n is 1). beta 0: C must hold no NaN, which would spread */
    GEMS_CLBLAST_DOT      /* A, B vectors of k elements, C one element; no alpha and beta */
} gems_clblast_routine;
#define GEMS_CLBLAST_ROUTINES 4

/* A row-major matrix whose rows are `step` elements apart, or, `turned`, its transpose; a vector with elements `step`
 * apart. Matrices of a batch are `batch` elements apart. */
typedef struct gems_clblast_matrix {
    const gems_tensor *tensor;
    size_t step, batch;
    bool turned;
} gems_clblast_matrix;

typedef struct gems_clblast_product {
    gems_clblast_routine routine;
    gems_dtype dtype;         /* f32 or f64, of all three */
    size_t m, n, k, batch;    /* A is m x k, B k x n, C m x n; none 0 */
    gems_clblast_matrix a, b; /* read */
    gems_clblast_matrix c;    /* written, and read if beta is not 0; never turned */
    double alpha, beta;
} gems_clblast_product;

/* Why CLBlast cannot be asked for this (not installed, failed before, ...), or NULL. Loads it at the first call. */
const char *gems_clblast_refuses(gems_clblast_routine routine, gems_dtype dtype);
/* Queues the product. Results are as exact as a sum in the dtype is. The first call of a routine takes seconds. */
void gems_clblast_run(gems_job *job, const gems_clblast_product *product);

/* Waits, brings results back, frees the job. GEMS_OK only if everything worked. */
gems_status gems_job_end(gems_job *job);

#endif
