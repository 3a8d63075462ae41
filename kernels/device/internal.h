/* What the files of the device room share; no other folder includes this.
 *
 * lane     a device, its context, its kernels and its queues. Where a vendor has one device, both lanes are the same.
 * queue    with its own copy of every kernel, held by one thread at a time: so launching needs no lock (a cl_kernel's
 *          arguments belong to the object, not to the launch), and waiting waits for nobody else.
 * program  one source with one set of options; kernels with several entries share it
 * kernel   an entry of a program, remembered under the caller's identity; also the record of what is out of use
 * driver   what a vendor needs beyond data (driver.h)
 *
 * Files, each using only those before it: cl (OpenCL itself), vendor (tune/<vendor>.json), state (open or not; fork,
 * exit), thread (deep stacks), cache (binaries on disk), source (text of programs), save (work for idle moments),
 * program (build, kernels), buffer, queue (launches, transfers, waiting), then pocl and nvidia (drivers), choose (which
 * device), remember (which driver) and open (lanes). */
#ifndef GEMS_DEVICE_INTERNAL_H
#define GEMS_DEVICE_INTERNAL_H

#include "kernels/device/cl.h"
#include "kernels/device/device.h"

#include <pthread.h>
#include <stdatomic.h>

#define GEMS_MAX_QUEUES  32
#define GEMS_CACHED_ARGS 24 /* arguments of a kernel whose last value is remembered */

typedef struct gems_driver gems_driver;
typedef struct gems_lane_state gems_lane_state;

/* ---- vendor.c ---- */

/* A variable that is not handed on to the driver unless it holds a whole number from min to max. */
typedef struct gems_limit {
    const char *name;
    int min, max;
} gems_limit;

/* The "vendor", "match" and "device" parts of one embedded tune/<vendor>.json. Lists end with NULL. */
typedef struct gems_vendor_data {
    const char *name;
    int order;                                   /* among devices of one kind the lowest is preferred */
    const char **match_platform, **match_vendor; /* substrings, case ignored; NULL: not looked at */
    const char **match_device;
    const char **libraries;                     /* drivers to try where the loader knows no such platform */
    const char **environment;                   /* "NAME=value", set while drivers load, unless the user did */
    const char **small_devices, **main_devices; /* prefixes of device names; NULL: one device serves both lanes */
    const char *const *own_cache;      /* devices whose driver keeps kernels itself and is not asked for binaries */
    const char **needs;                /* programs that the driver runs: without them it may end the process */
    const struct gems_limit *limits;   /* numbers in variables that the driver does not check; ends with a NULL name */
    const gems_driver *driver;         /* NULL: none */
    bool save_when_idle;               /* handing out a binary is slow */
    unsigned queues;                   /* queues used at once, at most */
    size_t bounce_bytes, bounce_piece; /* kernels/memory/bounce.c; 0 bytes: transfers are direct */
    size_t bounce_from;                /* transfers of fewer bytes are direct */
    bool exact;                        /* blocks are no larger than asked for and not kept: for finding overruns */
    bool unified;                      /* kernels may take the host's pointers: tried at start */
    const char *options, *prelude;     /* "" if none */
    const char *undeclared;            /* an option with which the compiler declares no builtins, or "" */
} gems_vendor_data;

/* All vendors of this library, in order of preference; ends with a NULL name. Parsed once. */
const gems_vendor_data *gems_vendor_all(void);
bool gems_vendor_matches(const gems_vendor_data *vendor, const char *platform, const char *maker, const char *device);
/* Whether this device is one of own_cache. */
bool gems_vendor_has_own_cache(const gems_vendor_data *vendor, const char *device);
bool gems_vendor_has_prefix(const char *const *list, const char *name);
/* Whether its driver can be let build or load kernels now; else the reason in why[n]. */
bool gems_vendor_may_build(const gems_vendor_data *vendor, char *why, size_t n);

/* Sets the variables that drivers want while they load (POCL_DEVICES), and takes them back. One thread at a time. */
void gems_vendor_lend_environment(void);
void gems_vendor_return_environment(void);

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

/* ---- remember.c ---- */

/* What the choice of driver depends on, to free(); NULL: nothing is to be remembered here. */
char *gems_remember_key(void);
/* The library of the only driver that had devices, to free(); NULL: not known. */
char *gems_remember_library(const char *key);
/* Notes for the next process whose devices these are, if it is one driver's. */
void gems_remember(const char *key, const gems_candidate *all, unsigned n);

/* ---- state.c ---- */

typedef struct gems_program gems_program;

typedef struct gems_kernel_map {
    size_t mask; /* slots - 1 */
    _Atomic(gems_kernel *) slot[];
} gems_kernel_map;

struct gems_lane_state {
    gems_device_info info;
    gems_lane index; /* the lane that it was opened as */
    const gems_vendor_data *vendor;
    const char *identity; /* platform, device and driver with their versions: part of the key of a binary */
    const char *builtins; /* declarations of the builtins that we use, or NULL: the compiler's own serve */
    const char *rounding; /* options of every program: division and roots as exact as the device has them */
    cl_device_id device;
    cl_context context;

    _Atomic(gems_kernel_map *) kernels;
    gems_program *programs; /* list */
    size_t nkernels;
    pthread_mutex_t build_lock; /* guards the three above while they change */

    gems_queue *queue[GEMS_MAX_QUEUES];
    _Atomic unsigned nqueues;
    _Atomic int waiting; /* threads that wait for a queue */
    pthread_mutex_t queue_lock;
    pthread_cond_t queue_free;

    gems_queue *stream; /* made when first wanted */
    pthread_mutex_t stream_lock;
};

enum gems_state {
    GEMS_STATE_CLOSED,
    GEMS_STATE_OPENING,
    GEMS_STATE_OPEN,
    GEMS_STATE_STOPPED
};
enum gems_state gems_state_now(void);
/* Held while the device is opened; a forked child finds it free. */
void gems_state_lock(void);
void gems_state_unlock(void);
/* To OPEN from OPENING, and to OPENING from CLOSED; false if it has become something else. */
bool gems_state_advance(enum gems_state to);
void gems_state_set_lane(gems_lane lane, gems_lane_state *state);
/* The lane, or NULL with the reason in trouble if the device is not open or must not be used any more. */
gems_lane_state *gems_state_lane(gems_lane lane, gems_trouble *trouble);
/* How long the end of the process waits for a compiler that is at work, which must not lose its data. */
#define GEMS_COMPILER_SECONDS 600
/* Work that the end of the process waits for: queues held; threads in, or waiting for, the driver's compiler, which may
 * take its time. */
extern _Atomic int gems_state_queues, gems_state_building;

/* ---- thread.c ---- */

/* Runs fn(arg), and waits for it: here if the thread's stack is deep enough for drivers and compilers, else in a thread
 * of our own, which takes no signals. */
void gems_thread_deep(void (*fn)(void *), void *arg, size_t bytes);
/* The same, always in a thread of our own. False: the system refuses, and nothing is done. */
bool gems_thread_apart(void (*fn)(void *), void *arg, size_t bytes);
#define GEMS_STACK_COMPILE ((size_t)2 << 20)   /* LLVM's passes */
#define GEMS_STACK_LAUNCH  ((size_t)160 << 10) /* kernels of the small lane run in the calling thread */

/* Of a clock that only goes forward. */
int64_t gems_seconds(void);

/* ---- cache.c ---- */

/* gems_cache_dir, gems_cache_load, gems_cache_store: see device.h. */
/* What `try` answers; a yes is kept, by everything that tells this device and driver from others. */
bool gems_cache_remember(gems_lane_state *lane, const char *question, bool (*try)(gems_lane_state *));

/* ---- source.c ---- */

/* The embedded files named in `includes` (separated by spaces, or NULL) and then the source, as one text to free();
 * NULL with the reason in why[n]. */
char *gems_source_join(const char *name, const char *includes, const char *source, char *why, size_t n);

/* ---- save.c ---- */

/* Does `store(program)`: a process's first ones at once, the others when nothing has been built for a while. */
void gems_save_later(gems_program *program, void (*store)(gems_program *));
void gems_save_note_build(void);
/* The process is ending: starts no more, waits for the one at work. */
void gems_save_end(void);

/* ---- program.c ---- */

struct gems_program {
    gems_program *next;
    gems_lane_state *lane;
    uint64_t hash[2];
    cl_program program;
    char *name;
    char *key; /* what the cache identifies it by */
    size_t key_size;
    bool cached;                /* it came from there */
    bool kept;                  /* by the driver, in its own way: its binary is not urgent */
    _Atomic bool unsaved;       /* to be put into the cache after a first successful run */
    gems_program *next_unsaved; /* save.c */
    void (*store)(gems_program *);
};

typedef struct gems_clone {
    cl_kernel kernel;
    struct {
        uint8_t size; /* 0: nothing remembered */
        uint64_t value[2];
    } arg[GEMS_CACHED_ARGS];
} gems_clone;

/* What a driver has loaded of a kernel for work-groups of one size (pocl.c). */
typedef struct gems_loaded {
    size_t local[3];     /* 0: free */
    size_t width, depth; /* work-items: of the first two dimensions the larger, the third */
} gems_loaded;
#define GEMS_LOADED 8

struct gems_kernel {
    uint64_t hash; /* of its identity */
    void *id;
    size_t id_size;
    gems_lane_state *lane;
    gems_program *program;
    char *name, *entry;
    _Atomic bool quarantined;               /* for good */
    _Atomic int64_t rests_until;            /* seconds; it failed, but may work later. 0: it works */
    _Atomic int short_of_memory;            /* failures of that kind in a row */
    gems_clone *clone[GEMS_MAX_QUEUES + 1]; /* each used by the holder of that queue only; the last is the stream's */
    gems_loaded loaded[GEMS_LOADED];
    pthread_mutex_t one_by_one; /* held by a queue that is its `only` user (pocl.c) */
};

/* The program of `text` with `options`: built before, in the cache on disk, or built now. `text` is complete but for
 * the lane's prelude. Takes the lane's build lock unless `locked`. NULL on failure, with the reason in trouble. */
gems_program *gems_program_get(gems_lane_state *lane, const char *name, const char *text, const char *options,
                               bool locked, gems_trouble *trouble);
/* Programs for which our own declarations of builtins did not suffice. For tests. */
extern _Atomic unsigned gems_program_undeclared;
gems_clone *gems_program_clone(gems_kernel *kernel, unsigned queue, cl_int *error);
/* Sees to it that the program's binary gets into the cache. Called after a first successful run: PoCL's binary then
 * holds the code for the work-group size in use, too. */
void gems_program_save(gems_program *program);

/* ---- queue.c ---- */

typedef enum gems_hold {
    GEMS_HOLD_NONE,
    GEMS_HOLD_SHARED,
    GEMS_HOLD_ALONE
} gems_hold;

struct gems_queue {
    _Atomic bool busy;
    unsigned index;
    gems_lane_state *lane;
    cl_command_queue plain, timed; /* timed: made when first wanted */
    cl_command_queue queue;        /* the one of the two in use */
    gems_trouble trouble;
    cl_event last;         /* of the last command that was queued, of those that have one */
    bool silent;           /* some have none since the last wait */
    bool left;             /* of the stream: what was queued before it was taken may still run */
    gems_kernel *kernel;   /* the last one launched */
    gems_program *unsaved; /* one that ran and is not in the cache yet */
    int cancel_state;      /* of the thread, before */
    gems_hold hold;        /* pocl.c */
    gems_kernel *only;     /* a kernel that nobody else launches now */
    cl_event *kernels;     /* of the kernels launched, if they are timed */
    unsigned nkernels, kernel_room;
    double device_ns;
    void *mapped; /* of a registered buffer, for the host to read */
    cl_mem mapped_mem;
};

/* Waits for what was launched. False if that failed: noted in the trouble. */
bool gems_queue_wait(gems_queue *queue);

/* How many threads a CPU's driver is to use; 0: as many as it likes (open.c). */
int gems_open_threads(void);

#endif
