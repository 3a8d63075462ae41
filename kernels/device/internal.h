/* What the files of the device layer share; no other folder includes this.
 *
 * lane     a device, its context, its kernels and its seats. Where a vendor has one device, both lanes are the same.
 * seat     a queue with its own copy of every kernel, held by one job at a time: so launching needs no lock (a
 *          cl_kernel's arguments belong to the object, not to the launch), and waiting waits for nobody else.
 * program  one source with one set of options; kernels with several entries share it
 * kernel   an entry of a program, remembered under the caller's key; also the record of what is quarantined
 * block    device memory from the pool of a lane
 * span     a piece of the host's memory as a job sees it
 *
 * Files: cl (OpenCL itself), vendor (tune/<vendor>.json), needs (what must be there to build kernels), choose (which
 * device), open (lanes, fork, exit), source (text of programs), program (build, kernels), cache and save (binaries on
 * disk), memory (blocks and spans), job (seats, launches, waiting), guard (what PoCL must do alone), clblast (that
 * library's products). */
#ifndef GEMS_DEVICE_INTERNAL_H
#define GEMS_DEVICE_INTERNAL_H

#include "kernels/device/cl.h"
#include "kernels/device/device.h"

#include <pthread.h>
#include <stdatomic.h>

#define GEMS_MAX_SEATS   32
#define GEMS_CACHED_ARGS 16 /* arguments of a kernel whose last value is remembered */

/* ---- vendor.c ---- */

/* The "vendor", "match" and "device" parts of one embedded tune/<vendor>.json. Lists end with NULL. */
typedef struct gems_vendor_data {
    const char *name;
    int order;                                   /* among devices of one kind the lowest is preferred */
    const char **match_platform, **match_vendor; /* substrings, case ignored; NULL: not looked at */
    const char **match_device;
    const char **libraries;                     /* drivers to try where the loader knows no such platform */
    const char **environment;                   /* "NAME=value", set while drivers load, unless the user did */
    const char **small_devices, **main_devices; /* prefixes of device names; NULL: one device serves both lanes */
    const char *const *own_cache; /* devices whose driver keeps kernels itself and is not asked for binaries */
    const char **needs;           /* programs that the driver runs: without them it may end the process */
    const char **kernels_in; /* the folder where it builds kernels, as it chooses it itself: VARIABLE[/below] or a path,
                                the first whose variable is not empty */
    char *folder;            /* that one, as it was when the driver was loaded */
    bool save_when_idle;     /* handing out a binary is slow */
    bool loads_alone;        /* guard.c */
    unsigned seats;          /* queues used at once, at most */
    size_t staging_bytes, staging_piece; /* staging.c; 0 bytes: transfers are direct */
    size_t staging_from;                 /* transfers of fewer bytes are direct */
    bool exact;                          /* blocks are no larger than asked for and not kept: for finding overruns */
    bool unified;                        /* kernels may take the host's pointers: tried at start */
    const char *options, *prelude;       /* "" if none */
} gems_vendor_data;

/* All vendors of this library, in order of preference; ends with a NULL name. Parsed once. */
const gems_vendor_data *gems_vendor_all(void);
bool gems_vendor_matches(const gems_vendor_data *vendor, const char *platform, const char *maker, const char *device);
/* Whether this device is one of own_cache. */
bool gems_vendor_has_own_cache(const gems_vendor_data *vendor, const char *device);
bool gems_vendor_has_prefix(const char *const *list, const char *name);

/* Sets the variables that drivers want while they load (POCL_DEVICES), and takes them back. One thread at a time. */
void gems_vendor_lend_environment(void);
void gems_vendor_return_environment(void);

/* ---- needs.c ---- */

/* The folder that such a list names, to free(). NULL: none. */
char *gems_needs_folder(const char *const *list);
/* Whether the driver can be let build or load kernels now; else the reason in why[n]. */
bool gems_needs_met(const gems_vendor_data *vendor, char *why, size_t n);

/* ---- choose.c ---- */

#define GEMS_MAX_CANDIDATES 64

typedef struct gems_candidate {
    cl_platform_id platform;
    cl_device_id id;
    cl_device_type type;
    const gems_vendor_data *vendor;
    char *platform_name, *name;
    unsigned found;  /* its place in the drivers' own order */
    bool only_small; /* there to serve small calls beside a main one of the same platform */
} gems_candidate;

/* The devices that could be used, in order of preference; their number. Also asks drivers that are installed without
 * telling the loader (an .icd file), as NVIDIA's is in many containers. */
unsigned gems_choose_find(gems_candidate *out, unsigned room);
/* The device to use by GEMS_VENDOR, GEMS_DEVICE, LOCAL_RANK, else the preferred one; NULL with the reason in why. */
const gems_candidate *gems_choose(const gems_candidate *all, unsigned n, char *why, size_t room);
/* Preferred kinds first: 0 GPU, 1 accelerator, 2 CPU. */
int gems_choose_class(cl_device_type type);
/* Whether GEMS_DEVICE counts it: of the vendor wanted, and not there for another's small calls only. */
bool gems_choose_counts(const gems_candidate *candidate);
/* Properties; "" or 0 on failure. Strings live as long as the process. */
char *gems_choose_text(cl_device_id id, cl_device_info what);
char *gems_choose_platform_text(cl_platform_id id, cl_platform_info what);
uint64_t gems_choose_number(cl_device_id id, cl_device_info what);

/* ---- open.c ---- */

typedef struct gems_seat gems_seat;
typedef struct gems_program gems_program;
typedef struct gems_block gems_block;
typedef struct gems_staging gems_staging;

typedef struct gems_kernel_map {
    size_t mask; /* slots - 1 */
    _Atomic(gems_kernel *) slot[];
} gems_kernel_map;

#define GEMS_POOL_CLASSES 160 /* four sizes for each power of two from 256 bytes on */

typedef struct gems_lane_state {
    gems_device_info info;
    gems_lane index; /* the lane that it was opened as */
    const gems_vendor_data *vendor;
    const char *identity; /* platform, device and driver with their versions: part of the key of a binary */
    const char *rounding; /* options of every program: division and roots as exact as the device has them */
    cl_device_id device;
    cl_context context;

    _Atomic(gems_kernel_map *) kernels;
    gems_program *programs; /* list */
    size_t nkernels;
    pthread_mutex_t build_lock; /* guards the three above while they change */

    gems_seat *seat[GEMS_MAX_SEATS];
    _Atomic unsigned nseats;
    _Atomic int waiting; /* threads that wait for a seat */
    pthread_mutex_t seat_lock;
    pthread_cond_t seat_free;

    gems_block *pool[GEMS_POOL_CLASSES];
    size_t pool_bytes, pool_limit;
    pthread_mutex_t pool_lock;

    gems_staging *staging; /* NULL: none, or not used any more */
    bool staging_tried;
    pthread_mutex_t staging_lock; /* guards the two above and the ring itself */
} gems_lane_state;

/* The lane, or NULL if the device is not open or must not be used any more. */
gems_lane_state *gems_open_lane(gems_lane lane);
/* Stops all use of OpenCL for good: `reason` must be a string constant. Later calls run on the host. */
void gems_open_stop(const char *reason);
/* A registered exit handler runs before those registered earlier, and drivers register theirs when first used. */
void gems_open_guard_exit(void);
/* Jobs between begin and end; threads in, or waiting for, the driver's compiler, which may take its time. */
extern _Atomic int gems_open_jobs, gems_open_building;

/* ---- program.c ---- */

struct gems_program {
    gems_program *next;
    gems_lane_state *lane;
    uint64_t hash[2];
    cl_program program;
    char *name;
    char *key; /* what the cache identifies it by; NULL if it came from there */
    size_t key_size;
    _Atomic bool unsaved;       /* to be put into the cache after a first successful run */
    gems_program *next_unsaved; /* save.c */
};

typedef struct gems_clone {
    cl_kernel kernel;
    struct {
        uint8_t size; /* 0: nothing remembered */
        uint64_t value[2];
    } arg[GEMS_CACHED_ARGS];
} gems_clone;

/* What a driver has loaded of a kernel for work-groups of one size (guard.c). */
typedef struct gems_variant {
    size_t local[3];     /* 0: free */
    size_t width, depth; /* work-items: of the first two dimensions the larger, the third */
} gems_variant;
#define GEMS_VARIANTS 8

struct gems_kernel {
    uint64_t key;
    gems_lane_state *lane;
    gems_program *program;
    char *name, *entry;
    _Atomic bool quarantined;
    _Atomic int memory_failures;       /* in a row */
    gems_clone *clone[GEMS_MAX_SEATS]; /* each used by the holder of that seat only */
    gems_variant variant[GEMS_VARIANTS];
    pthread_mutex_t one_by_one; /* held by a job that is its `only` user (guard.c) */
};

/* The program of `text` with `options`: built before, in the cache on disk, or built now. `text` is complete but for
 * the lane's prelude. Call with the lane's build_lock held. NULL on failure, with the reason in why[n]. */
gems_program *gems_program_get(gems_lane_state *lane, const char *name, const char *text, const char *options,
                               char *why, size_t n);
gems_clone *gems_program_clone(gems_kernel *kernel, unsigned seat, cl_int *error);
void gems_program_quarantine(gems_kernel *kernel, const char *why);
/* A kernel could not be launched: quarantined, unless memory may have been short for a moment. */
void gems_program_failed(gems_kernel *kernel, cl_int error, const char *why);
/* Sees to it that the program's binary gets into the cache. Called after a first successful run: PoCL's binary then
 * holds the code for the work-group size in use, too. */
void gems_program_save(gems_program *program);
/* Asks for the binary and writes it. May take as long as the build. */
void gems_program_store(gems_program *program);

/* ---- source.c ---- */

/* The embedded files named in `includes` (separated by spaces, or NULL) and then the source, as one text to free();
 * NULL with the reason in why[n]. */
char *gems_source_join(const char *name, const char *includes, const char *source, char *why, size_t n);

/* ---- save.c ---- */

void gems_save_later(gems_program *program);
void gems_save_note_build(void);
/* The process is ending: starts no more, waits for the one at work. */
void gems_save_end(void);

/* ---- cache.c ---- */

/* Binary stored under this key, or NULL; *size is its size. free() it. */
unsigned char *gems_cache_load(const char *key, size_t key_size, size_t *size);
void gems_cache_store(const char *key, size_t key_size, const unsigned char *binary, size_t size);
uint64_t gems_hash(uint64_t seed, const void *data, size_t n);

/* ---- memory.c ---- */

struct gems_block {
    gems_block *next;
    cl_mem mem; /* staged */
    void *host; /* unified */
    size_t bytes;
    unsigned size_class;
};

typedef struct gems_span {
    const char *data;
    size_t bytes;
    gems_block *block; /* staged */
    char *landing;     /* results that replace their inputs arrive here first */
    bool read, written;
} gems_span;

gems_block *gems_memory_take(gems_lane_state *lane, size_t bytes, cl_int *error);
void gems_memory_give(gems_lane_state *lane, gems_block *block);
/* Frees what lies unused. */
void gems_memory_trim(gems_lane_state *lane);

/* ---- staging.c ---- */

/* Whether a transfer of that size goes through the ring, unless it cannot be had. */
bool gems_staging_serves(const gems_lane_state *lane, size_t bytes);
/* Transfers between the host's memory and a buffer through the lane's pinned region, if there is one and it is worth
 * it: else false. *error: how it went. Up is queued; down is done on return, and with `whole` nothing is written to
 * `data` before everything has arrived (false if that does not fit). */
bool gems_staging_up(gems_job *job, cl_mem mem, const char *data, size_t bytes, cl_int *error);
bool gems_staging_down(gems_job *job, cl_mem mem, char *data, size_t bytes, bool whole, cl_int *error);

/* ---- guard.c ---- */

typedef enum gems_guard {
    GEMS_GUARD_NONE,
    GEMS_GUARD_SHARED,
    GEMS_GUARD_ALONE
} gems_guard;

/* Around a launch of `kernel`; it runs alone if the driver may load something for it. A job that has failed after
 * begin must not launch. */
void gems_guard_begin(gems_job *job, gems_kernel *kernel, const size_t local[3], const size_t global[3]);
/* After it. If others are kept away, from all or from the kernel: waits for what was launched, and lets them. */
void gems_guard_launched(gems_job *job, gems_kernel *kernel, const size_t local[3], const size_t global[3]);
/* From here to gems_guard_end or gems_guard_launched no other job launches anything. */
void gems_guard_alone(gems_job *job);
/* Nothing of the job runs any more. */
void gems_guard_end(gems_job *job);
/* The same without a job, around a request for a binary. The thread must hold no job. */
void gems_guard_lock(const gems_lane_state *lane);
void gems_guard_unlock(const gems_lane_state *lane);

/* ---- job.c ---- */

struct gems_job {
    gems_call *call;
    gems_lane_state *lane;
    gems_seat *seat;
    gems_status status;
    gems_guard guard;
    gems_kernel *only; /* a kernel that nobody else launches now */
    int cancel_state;  /* of the thread, before */
    cl_command_queue queue;
    cl_event last;         /* of the last command that was queued */
    gems_kernel *running;  /* the last one launched */
    gems_program *unsaved; /* one that ran and is not in the cache yet */
    gems_span *spans;
    unsigned nspans, span_room;
    gems_block **scratch;
    unsigned nscratch, scratch_room;
    bool timed;
    cl_event *kernels; /* of the kernels launched, if they are timed */
    unsigned nkernels, kernel_room;
    cl_mem lent[4]; /* buffers that stand for the host's memory (clblast.c) */
    unsigned nlent;
    void *mapped; /* one of them, mapped for the host to read */
    cl_mem mapped_mem;
};

struct gems_seat {
    _Atomic bool busy;
    unsigned index;
    cl_command_queue queue, timed_queue; /* timed_queue: made when first wanted */
    gems_job job;
};

/* Makes a tensor's memory ready for a kernel: GEMS_OK, and its span in *span (staged) or NULL (unified: take the
 * host's pointer). What was written is brought back by gems_memory_release. */
gems_status gems_memory_acquire(gems_job *job, const gems_tensor *tensor, gems_access access, gems_span **span);
/* Brings results to the host, or queues that. */
gems_status gems_memory_release(gems_job *job);
/* All transfers have ended well: results that replace their inputs do so now. */
void gems_memory_land(gems_job *job);
/* Waits for all that is queued; the job has failed if that fails. */
gems_status gems_job_wait(gems_job *job);
/* Waits for a command, again if the wait fails; its queue may be given for that. CL_SUCCESS if it ended well. */
cl_int gems_job_await(cl_event event, cl_command_queue queue);
/* Remembers the last command queued, which the end of the job waits for. Takes the event over. */
void gems_job_set_last(gems_job *job, cl_event event);
/* If the job is timed, remembers a kernel's event, whose duration is added to the call's. */
void gems_job_time(gems_job *job, cl_event event);
/* Fails the job: "<operator>: <function>(<what>): <error>". */
gems_status gems_job_fail(gems_job *job, const char *function, const char *what, cl_int error);

/* ---- clblast.c ---- */

/* Gives back the buffers that the job lent to CLBlast. Call when nothing of the job runs any more. */
void gems_clblast_release(gems_job *job);

#endif
