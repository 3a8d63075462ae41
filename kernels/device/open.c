/* Opening OpenCL: the device's two lanes, and when not to touch it any more (fork, exit, a lost device). */
#include "kernels/device/internal.h"
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Of vendors' extensions; refused by the others. */
#define DEVICE_WARP_SIZE_NV        0x4003
#define DEVICE_WAVEFRONT_WIDTH_AMD 0x4043
#define EXIT_WAIT_MS               2000  /* how long the end of the process waits for running jobs */
#define BUILD_WAIT_MS              60000 /* while one builds kernels, which must not lose its compiler's data */

enum state {
    CLOSED,
    OPENING,
    OPEN,
    STOPPED
};

static struct {
    _Atomic int state;
    _Atomic(const char *) why; /* why it is stopped */
    char text[256];            /* room for *why */
    gems_lane_state *lane[GEMS_LANE_COUNT];
    pthread_mutex_t lock; /* while opening */
    _Atomic bool fork_noted;
    atomic_int exit_guards;
} device = {.lock = PTHREAD_MUTEX_INITIALIZER};

_Atomic int gems_open_jobs, gems_open_building;

/* ---- fork and exit ---- */

static const char FORKED[] = "the process was forked after OpenCL was opened, and OpenCL does not survive that";
static const char EXITING[] = "the process is ending";

void gems_open_stop(const char *reason)
{
    const char *none = NULL;
    atomic_compare_exchange_strong(&device.why, &none, reason);
    atomic_store(&device.state, STOPPED);
}

/* The child has none of the driver's threads, and its locks may be held by threads that do not exist. */
static void after_fork_in_child(void)
{
    int state = atomic_load(&device.state);
    pthread_mutex_init(&device.lock, NULL);
    if (state != OPEN && state != OPENING)
        return;
    atomic_store(&device.why, FORKED);
    atomic_store(&device.state, STOPPED);
    atomic_store(&gems_open_jobs, 0);
}

/* Runs before the driver's own exit handlers: no job may start any more, and those running get time to finish. */
static void at_exit(void)
{
    int state = OPEN;
    if (!atomic_compare_exchange_strong(&device.state, &state, STOPPED))
        return;
    atomic_store(&device.why, EXITING);
    gems_save_end();
    for (int ms = 0;
         ms < (atomic_load(&gems_open_building) > 0 ? BUILD_WAIT_MS : EXIT_WAIT_MS) && atomic_load(&gems_open_jobs) > 0;
         ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void gems_open_guard_exit(void)
{
    if (atomic_fetch_add(&device.exit_guards, 1) < 8)
        atexit(at_exit);
}

/* ---- lanes ---- */

/* Macros are defined if they hold, so that #if and #ifdef both read them. */
static char *make_prelude(const gems_device_info *info, const gems_vendor_data *vendor)
{
    char *text = NULL;
    int n = asprintf(&text,
                     "%s%s%s#define GEMS_SUBGROUP %u\n"
                     "%s%s%s%s",
                     info->is_cpu ? "#define GEMS_CPU 1\n" : "", info->f64 ? "#define GEMS_HAS_F64 1\n" : "",
                     info->f16_arith ? "#define GEMS_HAS_F16 1\n" : "", info->subgroup,
                     info->f64 ? "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n" : "",
                     info->f16_arith ? "#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n" : "", vendor->prelude,
                     *vendor->prelude ? "\n" : "");
    return n < 0 ? NULL : text;
}

static gems_lane_state *open_lane(const gems_candidate *c, gems_lane index)
{
    gems_lane_state *lane = calloc(1, sizeof *lane);
    gems_kernel_map *map = calloc(1, sizeof *map + 64 * sizeof map->slot[0]);
    cl_int error = CL_OUT_OF_HOST_MEMORY;

    if (lane && map)
        lane->context = CL_NEW(&error, clCreateContext, NULL, 1, &c->id, NULL, NULL);
    if (!lane || !map || !lane->context) {
        snprintf(device.text, sizeof device.text, "%s: clCreateContext: %s", c->name, gems_cl_error(error));
        free(map);
        free(lane);
        return NULL;
    }
    map->mask = 63;
    atomic_init(&lane->kernels, map);
    pthread_mutex_init(&lane->build_lock, NULL);
    pthread_mutex_init(&lane->seat_lock, NULL);
    pthread_mutex_init(&lane->pool_lock, NULL);
    pthread_mutex_init(&lane->staging_lock, NULL);
    pthread_cond_init(&lane->seat_free, NULL);
    lane->index = index;
    lane->vendor = c->vendor;
    lane->device = c->id;

    gems_device_info *info = &lane->info;
    char *extensions = NULL;
    size_t n = 0;
    if (CL(clGetDeviceInfo, c->id, CL_DEVICE_EXTENSIONS, 0, NULL, &n) == CL_SUCCESS && (extensions = calloc(1, n + 1)))
        (void)CL(clGetDeviceInfo, c->id, CL_DEVICE_EXTENSIONS, n, extensions, NULL);
    info->vendor = c->vendor->name;
    info->platform = c->platform_name;
    info->name = c->name;
    info->driver = gems_choose_text(c->id, CL_DRIVER_VERSION);
    info->is_cpu = gems_choose_class(c->type) == 2;
    info->f64 = extensions && strstr(extensions, "cl_khr_fp64");
    info->f16_arith = extensions && strstr(extensions, "cl_khr_fp16");
    free(extensions);
    lane->rounding = gems_choose_number(c->id, CL_DEVICE_SINGLE_FP_CONFIG) & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT
                         ? "-cl-fp32-correctly-rounded-divide-sqrt -DGEMS_EXACT_ROOTS"
                         : "";
    info->compute_units = (uint32_t)gems_choose_number(c->id, CL_DEVICE_MAX_COMPUTE_UNITS);
    info->max_group = gems_choose_number(c->id, CL_DEVICE_MAX_WORK_GROUP_SIZE);
    info->local_bytes = gems_choose_number(c->id, CL_DEVICE_LOCAL_MEM_SIZE);
    info->memory_bytes = gems_choose_number(c->id, CL_DEVICE_GLOBAL_MEM_SIZE);
    info->subgroup = info->is_cpu ? 1 : (uint32_t)gems_choose_number(c->id, DEVICE_WARP_SIZE_NV);
    if (!info->subgroup)
        info->subgroup = (uint32_t)gems_choose_number(c->id, DEVICE_WAVEFRONT_WIDTH_AMD);
    if (!info->subgroup)
        info->subgroup = 32;
    if (!info->compute_units)
        info->compute_units = 1;
    if (!info->max_group)
        info->max_group = 1;
    info->prelude = make_prelude(info, c->vendor);

    char *identity = NULL, *version = gems_choose_platform_text(c->platform, CL_PLATFORM_VERSION);
    if (asprintf(&identity, "%s\n%s\n%s\n%s\n", info->platform, version, info->name, info->driver) > 0)
        lane->identity = identity;
    free(version);
    return lane;
}

static const char PROBE[] = "kernel void gems_probe(global const int *in, global int *out, int n)\n"
                            "{\n    for (int i = 0; i < n; i++)\n        out[i] = 3 * in[i] + 1;\n}\n";

/* Whether kernels of this lane may be given plain addresses of the host's memory. OpenCL promises it only for system
 * SVM; a CPU driver within the process can do it all the same, and this asks for no copy and no call per tensor. */
static bool takes_host_pointers(gems_lane_state *lane)
{
    enum {
        N = 64,
        FIRST = 5
    }; /* not at the start of a block or page */
    char why[128];
    bool works = false;
    cl_int error;
    uint64_t svm = gems_cl.clSetKernelArgSVMPointer ? gems_choose_number(lane->device, CL_DEVICE_SVM_CAPABILITIES) : 0;

    if (!svm || (!lane->info.is_cpu && !(svm & CL_DEVICE_SVM_FINE_GRAIN_SYSTEM)))
        return false;
    pthread_mutex_lock(&lane->build_lock);
    gems_program *program = gems_program_get(lane, "probe", PROBE, lane->vendor->options, why, sizeof why);
    pthread_mutex_unlock(&lane->build_lock);
    int *block = malloc(2 * (N + FIRST) * sizeof *block), n = N;
    cl_kernel kernel = program && block ? CL_NEW(&error, clCreateKernel, program->program, "gems_probe") : NULL;
    cl_command_queue queue = kernel ? CL_NEW(&error, clCreateCommandQueue, lane->context, lane->device, 0) : NULL;
    if (!queue)
        goto out;

    int *in = block + FIRST, *result = in + N;
    for (int i = 0; i < N; i++)
        in[i] = i, result[i] = -1;
    works = CL(clSetKernelArgSVMPointer, kernel, 0, in) == CL_SUCCESS &&
            CL(clSetKernelArgSVMPointer, kernel, 1, result) == CL_SUCCESS &&
            CL(clSetKernelArg, kernel, 2, sizeof n, &n) == CL_SUCCESS &&
            CL(clEnqueueNDRangeKernel, queue, kernel, 1, NULL, &(size_t){1}, &(size_t){1}, 0, NULL, NULL) == CL_SUCCESS;
    works = CL_SURE(clFinish, queue) == CL_SUCCESS && works;
    for (int i = 0; i < N && works; i++)
        works = in[i] == i && result[i] == 3 * i + 1;
    if (works)
        gems_program_save(program);
out:
    if (queue)
        CL_SURE(clReleaseCommandQueue, queue);
    if (kernel)
        CL_SURE(clReleaseKernel, kernel);
    free(block);
    return works;
}

static const char LOOPS[] = "kernel void gems_loops(global uint *x, int n)\n"
                            "{\n    uint u = x[0];\n    for (int i = 0; i < n; i++)\n"
                            "        for (int j = 0; j < 4; j++)\n            u = u * 1664525u + x[j];\n"
                            "    x[0] = u;\n}\n";

/* Whether a work-item that loops for long gets to the end. Mesa's llvmpipe leaves every loop after 65535 iterations,
 * all loops of the work-item taken together, without an error. */
static bool loops_end_early(gems_lane_state *lane)
{
    enum {
        N = 1 << 17
    }; /* the inner loop may be unrolled */
    char why[128];
    cl_int error;
    uint32_t x[4] = {1, 2, 3, 4}, u = x[0];
    bool early = false;

    pthread_mutex_lock(&lane->build_lock);
    gems_program *program = gems_program_get(lane, "loops", LOOPS, lane->vendor->options, why, sizeof why);
    pthread_mutex_unlock(&lane->build_lock);
    cl_kernel kernel = program ? CL_NEW(&error, clCreateKernel, program->program, "gems_loops") : NULL;
    cl_command_queue queue = kernel ? CL_NEW(&error, clCreateCommandQueue, lane->context, lane->device, 0) : NULL;
    cl_mem mem = queue ? CL_NEW(&error, clCreateBuffer, lane->context, CL_MEM_READ_WRITE, sizeof x, NULL) : NULL;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < 4; j++)
            u = u * 1664525u + x[j];
    if (mem && CL(clEnqueueWriteBuffer, queue, mem, CL_TRUE, 0, sizeof x, x, 0, NULL, NULL) == CL_SUCCESS &&
        CL(clSetKernelArg, kernel, 0, sizeof mem, &mem) == CL_SUCCESS &&
        CL(clSetKernelArg, kernel, 1, sizeof(int), &(int){N}) == CL_SUCCESS &&
        CL(clEnqueueNDRangeKernel, queue, kernel, 1, NULL, &(size_t){1}, &(size_t){1}, 0, NULL, NULL) == CL_SUCCESS &&
        CL(clEnqueueReadBuffer, queue, mem, CL_TRUE, 0, sizeof x, x, 0, NULL, NULL) == CL_SUCCESS) {
        early = x[0] != u;
        gems_program_save(program);
    }
    if (mem)
        CL_SURE(clReleaseMemObject, mem);
    if (queue)
        CL_SURE(clReleaseCommandQueue, queue);
    if (kernel)
        CL_SURE(clReleaseKernel, kernel);
    return early;
}

static bool wants_unified(const gems_lane_state *lane)
{
    int64_t mode = gems_config_get()->memory;
    return mode == GEMS_MEMORY_UNIFIED || (mode == GEMS_MEMORY_AUTO && lane->vendor->unified);
}

/* Bytes of unused blocks that a lane keeps: unified memory is the host's own, and only scratch comes from there. */
static size_t pool_limit(const gems_lane_state *lane)
{
    return lane->vendor->exact ? 0 : lane->info.unified ? (size_t)256 << 20 : lane->info.memory_bytes / 8;
}

static bool open_lanes(const gems_candidate *main, const gems_candidate *all, unsigned n)
{
    gems_lane_state *big = open_lane(main, GEMS_LANE_MAIN), *small = NULL;
    if (!big)
        return false;
    if (!gems_vendor_has_prefix(main->vendor->small_devices, main->name) &&
        gems_vendor_has_prefix(main->vendor->main_devices, main->name))
        for (unsigned i = 0; i < n && !small; i++)
            if (all[i].platform == main->platform && gems_vendor_has_prefix(main->vendor->small_devices, all[i].name))
                small = open_lane(&all[i], GEMS_LANE_SMALL);

    /* One probe for both: they are one driver in one address space, and building a program may take half a second. */
    big->info.unified = wants_unified(big) && takes_host_pointers(big);
    if (small)
        small->info.unified = big->info.unified;
    /* A driver that takes plain pointers of the process runs plain code; GPUs do not stand for software. */
    big->info.short_loops = big->info.is_cpu && !big->info.unified && loops_end_early(big);
    if (big->info.short_loops)
        gems_log("%s ends the loops of a work-item early, without an error: large calls stay on the host",
                 big->info.name);
    if (small)
        small->info.short_loops = big->info.short_loops;
    big->pool_limit = pool_limit(big);
    if (small)
        small->pool_limit = pool_limit(small);
    device.lane[GEMS_LANE_MAIN] = big;
    device.lane[GEMS_LANE_SMALL] = small ? small : big;
    return true;
}

/* ---- opening ---- */

static gems_device_seen seen[GEMS_MAX_CANDIDATES];
static unsigned nseen;

static void keep_list(const gems_candidate *all, unsigned n)
{
    const gems_lane_state *main = device.lane[GEMS_LANE_MAIN], *small = device.lane[GEMS_LANE_SMALL];
    int index = 0;
    for (unsigned i = 0; i < n; i++)
        seen[i] = (gems_device_seen){.vendor = all[i].vendor->name,
                                     .index = gems_choose_counts(&all[i]) ? index++ : -1,
                                     .platform = all[i].platform_name,
                                     .name = all[i].name,
                                     .cpu = gems_choose_class(all[i].type) == 2,
                                     .main = main && main->device == all[i].id,
                                     .small = small && small->device == all[i].id};
    nseen = n;
}

unsigned gems_device_list(const gems_device_seen **list)
{
    *list = seen;
    return nseen;
}

static bool open_device(void)
{
    gems_candidate all[GEMS_MAX_CANDIDATES];
    const char *why = NULL;

    gems_cl_fault_set(gems_config_get()->fault);
    gems_vendor_lend_environment();
    unsigned n = gems_cl_load(&why) ? gems_choose_find(all, GEMS_MAX_CANDIDATES) : 0;
    gems_vendor_return_environment();
    if (why) {
        snprintf(device.text, sizeof device.text, "%s", why);
        return false;
    }
    const gems_candidate *main = gems_choose(all, n, device.text, sizeof device.text);
    bool ok = main && open_lanes(main, all, n);
    keep_list(all, n);
    return ok;
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

static bool open_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, watch_forks); /* before the lock is taken: a child of a fork must not find it held */
    pthread_mutex_lock(&device.lock);
    if (atomic_load(&device.state) == CLOSED) {
        atomic_store(&device.state, OPENING);
        if (open_device()) {
            gems_open_guard_exit();
            int opening = OPENING;
            atomic_compare_exchange_strong(&device.state, &opening, OPEN);
        } else {
            gems_open_stop(device.text);
            if (gems_config_get()->vendor)
                gems_complain("%s; the host runs everything", device.text);
            else
                gems_log("%s; the host runs everything", device.text);
            if (gems_config_get()->strict) {
                gems_complain("GEMS_STRICT=1: aborting: %s", device.text);
                abort();
            }
        }
    }
    pthread_mutex_unlock(&device.lock);
    return atomic_load(&device.state) == OPEN;
}

bool gems_device_open(void)
{
    int state = atomic_load_explicit(&device.state, memory_order_acquire);
    if (state == OPEN)
        return true;
    if (state != STOPPED)
        return open_once();
    if (atomic_load(&device.why) == FORKED && !atomic_exchange(&device.fork_noted, true))
        gems_log("process %d: %s; the host runs everything here", (int)getpid(), FORKED);
    return false;
}

const char *gems_device_error(void)
{
    const char *why = atomic_load(&device.why);
    return why ? why : "";
}

gems_lane_state *gems_open_lane(gems_lane lane)
{
    return gems_device_open() ? device.lane[lane == GEMS_LANE_SMALL ? GEMS_LANE_SMALL : GEMS_LANE_MAIN] : NULL;
}

const gems_device_info *gems_device_get(gems_lane lane)
{
    static const gems_device_info none = {.vendor = "none",
                                          .platform = "",
                                          .name = "",
                                          .driver = "",
                                          .prelude = "",
                                          .compute_units = 1,
                                          .subgroup = 1,
                                          .max_group = 1};
    const gems_lane_state *state = device.lane[lane == GEMS_LANE_SMALL ? GEMS_LANE_SMALL : GEMS_LANE_MAIN];
    return state ? &state->info : &none;
}
