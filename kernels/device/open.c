/* Opening OpenCL: which device, its two lanes, and when not to touch it any more (fork, exit, a lost device). */
#include "kernels/device/internal.h"
#include "preload/config.h"
#include "preload/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define MAX_PLATFORMS  16
#define MAX_CANDIDATES 64
/* Of vendors' extensions; refused by the others. */
#define DEVICE_WARP_SIZE_NV        0x4003
#define DEVICE_WAVEFRONT_WIDTH_AMD 0x4043
#define EXIT_WAIT_MS               2000 /* how long the end of the process waits for running jobs */

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
    char **environment;   /* the copy of it that drivers saw; may still be read by another thread */
    _Atomic bool fork_noted;
    atomic_int exit_guards;
} device = {.lock = PTHREAD_MUTEX_INITIALIZER};

_Atomic int gems_open_jobs;

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
    for (int ms = 0; ms < EXIT_WAIT_MS && atomic_load(&gems_open_jobs) > 0; ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void gems_open_guard_exit(void)
{
    if (atomic_fetch_add(&device.exit_guards, 1) < 8)
        atexit(at_exit);
}

/* ---- candidates ---- */

typedef struct candidate {
    cl_platform_id platform;
    cl_device_id id;
    cl_device_type type;
    const gems_vendor_data *vendor;
    char *platform_name, *name;
} candidate;

/* A string property of a device or platform; "" on failure. Lives as long as the process. */
static char *device_string(cl_device_id id, cl_device_info what)
{
    char text[512] = "";
    if (CL(clGetDeviceInfo, id, what, sizeof text, text, NULL) != CL_SUCCESS)
        text[0] = 0;
    return strdup(text);
}

static char *platform_string(cl_platform_id id, cl_platform_info what)
{
    char text[512] = "";
    if (CL(clGetPlatformInfo, id, what, sizeof text, text, NULL) != CL_SUCCESS)
        text[0] = 0;
    return strdup(text);
}

static uint64_t device_number(cl_device_id id, cl_device_info what)
{
    uint64_t value = 0; /* cl_uint, cl_bool, size_t, cl_ulong: little-endian, so the low bytes are right */
    return CL(clGetDeviceInfo, id, what, sizeof value, &value, NULL) == CL_SUCCESS ? value : 0;
}

/* GPU before accelerator before CPU. */
static int class_of(cl_device_type type)
{
    return type & CL_DEVICE_TYPE_GPU ? 0 : type & CL_DEVICE_TYPE_ACCELERATOR ? 1 : 2;
}

static unsigned add_devices(cl_platform_id platform, candidate *out, unsigned n, unsigned room)
{
    cl_device_id ids[32];
    cl_uint found = 0;
    unsigned before = n;

    if (CL(clGetDeviceIDs, platform, CL_DEVICE_TYPE_ALL, 32, ids, &found) != CL_SUCCESS)
        return n;
    char *platform_name = platform_string(platform, CL_PLATFORM_NAME);
    char *maker = platform_string(platform, CL_PLATFORM_VENDOR);
    for (cl_uint i = 0; i < found && i < 32 && n < room; i++) {
        if (!device_number(ids[i], CL_DEVICE_AVAILABLE) || !device_number(ids[i], CL_DEVICE_COMPILER_AVAILABLE) ||
            !device_number(ids[i], CL_DEVICE_ENDIAN_LITTLE) || device_number(ids[i], CL_DEVICE_ADDRESS_BITS) != 64)
            continue;
        candidate *c = &out[n];
        *c = (candidate){platform, ids[i], device_number(ids[i], CL_DEVICE_TYPE), NULL, platform_name, NULL};
        c->name = device_string(ids[i], CL_DEVICE_NAME);
        for (const gems_vendor_data *v = gems_vendor_all(); v->name && !c->vendor; v++)
            if (gems_vendor_matches(v, platform_name, maker, c->name))
                c->vendor = v;
        n += c->vendor != NULL;
    }
    if (n == before)
        free(platform_name);
    free(maker);
    return n;
}

/* Also asks drivers that are installed without telling the loader (an .icd file), as NVIDIA's is in many containers. */
static unsigned find_candidates(candidate *out, unsigned room)
{
    const char *forced = gems_config_get()->vendor;
    cl_platform_id ids[MAX_PLATFORMS];
    cl_uint found = 0;
    unsigned n = 0;

    if (CL(clGetPlatformIDs, MAX_PLATFORMS, ids, &found) == CL_SUCCESS)
        for (cl_uint i = 0; i < found && i < MAX_PLATFORMS; i++)
            n = add_devices(ids[i], out, n, room);

    for (const gems_vendor_data *v = gems_vendor_all(); v->name; v++) {
        bool wanted = forced ? strcmp(forced, v->name) == 0 : !getenv("OCL_ICD_VENDORS");
        for (unsigned i = 0; i < n && wanted; i++)
            wanted = out[i].vendor != v;
        for (const char *const *lib = v->libraries; wanted && lib && *lib; lib++) {
            unsigned more = gems_cl_driver_platforms(*lib, ids, MAX_PLATFORMS);
            for (unsigned i = 0; i < more; i++)
                n = add_devices(ids[i], out, n, room);
        }
    }
    return n;
}

static int by_preference(const void *a, const void *b)
{
    const candidate *const *x = a, *const *y = b;
    int kind = class_of((*x)->type) - class_of((*y)->type), order = (*x)->vendor->order - (*y)->vendor->order;
    return kind ? kind : order ? order : *x < *y ? -1 : *x > *y;
}

/* A device that is there to serve small calls only, beside a main one of the same platform. */
static bool only_small(const candidate *c, const candidate *all, unsigned n)
{
    if (!gems_vendor_has_prefix(c->vendor->small_devices, c->name))
        return false;
    for (unsigned i = 0; i < n; i++)
        if (all[i].platform == c->platform && &all[i] != c &&
            gems_vendor_has_prefix(c->vendor->main_devices, all[i].name) &&
            !gems_vendor_has_prefix(c->vendor->small_devices, all[i].name))
            return true;
    return false;
}

static void describe(const candidate *all, unsigned n, char *out, size_t room)
{
    size_t used = 0;
    out[0] = 0;
    for (unsigned i = 0; i < n && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%s: %s", i ? "; " : "", all[i].vendor->name, all[i].name);
}

/* The device to use by GEMS_VENDOR, GEMS_DEVICE, LOCAL_RANK, else the preferred one; NULL with device.text set. */
static const candidate *choose(const candidate *all, unsigned n)
{
    const gems_config *config = gems_config_get();
    const candidate *list[MAX_CANDIDATES];
    unsigned count = 0, same = 0;
    char found[160];

    for (unsigned i = 0; i < n; i++)
        if ((!config->vendor || strcmp(config->vendor, all[i].vendor->name) == 0) && !only_small(&all[i], all, n))
            list[count++] = &all[i];
    if (count == 0) {
        describe(all, n, found, sizeof found);
        if (config->vendor)
            snprintf(device.text, sizeof device.text, "GEMS_VENDOR=%s: no OpenCL device of that vendor (found: %s)",
                     config->vendor, n ? found : "none");
        else
            snprintf(device.text, sizeof device.text, "no OpenCL device");
        return NULL;
    }
    qsort(list, count, sizeof *list, by_preference);

    if (config->device >= 0) { /* counted within the vendor */
        for (unsigned i = 0; i < count; i++)
            if (list[i]->vendor == list[0]->vendor)
                list[same++] = list[i];
        if ((uint64_t)config->device < same)
            return list[config->device];
        gems_complain("GEMS_DEVICE=%lld: %s has %u device%s, counted from 0; using the first",
                      (long long)config->device, list[0]->vendor->name, same, same == 1 ? "" : "s");
        return list[0];
    }
    for (unsigned i = 0; i < count; i++) /* ranks share out devices of one kind */
        if (list[i]->vendor == list[0]->vendor && class_of(list[i]->type) == class_of(list[0]->type))
            list[same++] = list[i];
    const char *rank = getenv("LOCAL_RANK");
    return list[rank && same ? strtoul(rank, NULL, 10) % same : 0];
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

static gems_lane_state *open_lane(const candidate *c, gems_lane index)
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
    info->driver = device_string(c->id, CL_DRIVER_VERSION);
    info->is_cpu = class_of(c->type) == 2;
    info->f64 = extensions && strstr(extensions, "cl_khr_fp64");
    info->f16_arith = extensions && strstr(extensions, "cl_khr_fp16");
    free(extensions);
    info->compute_units = (uint32_t)device_number(c->id, CL_DEVICE_MAX_COMPUTE_UNITS);
    info->max_group = device_number(c->id, CL_DEVICE_MAX_WORK_GROUP_SIZE);
    info->local_bytes = device_number(c->id, CL_DEVICE_LOCAL_MEM_SIZE);
    info->memory_bytes = device_number(c->id, CL_DEVICE_GLOBAL_MEM_SIZE);
    info->subgroup = info->is_cpu ? 1 : (uint32_t)device_number(c->id, DEVICE_WARP_SIZE_NV);
    if (!info->subgroup)
        info->subgroup = (uint32_t)device_number(c->id, DEVICE_WAVEFRONT_WIDTH_AMD);
    if (!info->subgroup)
        info->subgroup = 32;
    if (!info->compute_units)
        info->compute_units = 1;
    if (!info->max_group)
        info->max_group = 1;
    info->prelude = make_prelude(info, c->vendor);

    char *identity = NULL, *version = platform_string(c->platform, CL_PLATFORM_VERSION);
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
    uint64_t svm = gems_cl.clSetKernelArgSVMPointer ? device_number(lane->device, CL_DEVICE_SVM_CAPABILITIES) : 0;

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

static bool wants_unified(const gems_lane_state *lane)
{
    int64_t mode = gems_config_get()->memory;
    return mode == GEMS_MEMORY_UNIFIED || (mode == GEMS_MEMORY_AUTO && lane->vendor->unified);
}

/* Bytes of unused blocks that a lane keeps: unified memory is the host's own, and only scratch comes from there. */
static size_t pool_limit(const gems_device_info *info)
{
    return info->unified ? (size_t)256 << 20 : info->memory_bytes / 8;
}

static bool open_lanes(const candidate *main, const candidate *all, unsigned n)
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
    big->pool_limit = pool_limit(&big->info);
    if (small)
        small->pool_limit = pool_limit(&small->info);
    device.lane[GEMS_LANE_MAIN] = big;
    device.lane[GEMS_LANE_SMALL] = small ? small : big;
    return true;
}

/* ---- environment for the drivers ---- */

extern char **environ;

/* Puts vendors' variables (POCL_DEVICES) in front of the environment in a copy of it, so that threads that are reading
 * the environment meanwhile are not disturbed. Returns the copy, with *lent entries in front, or NULL if there was
 * nothing to add. */
static char **lend_environment(size_t *lent)
{
    const char *forced = gems_config_get()->vendor;
    size_t have = 0, n = 0;
    while (environ && environ[have])
        have++;
    char **copy = calloc(have + 65, sizeof *copy);
    for (const gems_vendor_data *v = gems_vendor_all(); copy && v->name; v++) {
        if (forced && strcmp(forced, v->name) != 0)
            continue;
        for (const char *const *e = v->environment; e && *e && n < 64; e++) {
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(*e, "="), *e);
            if (!getenv(name))
                copy[n++] = (char *)*e;
        }
    }
    if (n == 0) {
        free(copy);
        return NULL;
    }
    if (have)
        memcpy(copy + n, environ, have * sizeof *copy);
    *lent = n;
    return device.environment = copy;
}

/* Takes lent variables back. */
static void return_environment(char **before, char **copy, size_t lent)
{
    if (environ == copy) {
        environ = before;
        return;
    }
    /* Someone has called setenv, which made an array of its own with our entries in it; `before` may be gone. */
    for (size_t i = 0; i < lent; i++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(copy[i], "="), copy[i]);
        const char *value = getenv(name);
        if (value && value == copy[i] + strlen(name) + 1)
            unsetenv(name);
    }
}

/* ---- what was found, for people ---- */

static struct {
    gems_device_seen list[MAX_CANDIDATES];
    unsigned n;
} seen;

static void keep_list(const candidate *all, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const gems_lane_state *main = device.lane[GEMS_LANE_MAIN], *small = device.lane[GEMS_LANE_SMALL];
        seen.list[i] = (gems_device_seen){.vendor = all[i].vendor->name,
                                          .platform = all[i].platform_name,
                                          .name = all[i].name,
                                          .cpu = class_of(all[i].type) == 2,
                                          .main = main && main->device == all[i].id,
                                          .small = small && small->device == all[i].id};
    }
    seen.n = n;
}

unsigned gems_device_list(const gems_device_seen **list)
{
    *list = seen.list;
    return seen.n;
}

/* ---- opening ---- */

static bool open_device(void)
{
    candidate all[MAX_CANDIDATES];
    const char *why = NULL;

    gems_cl_fault_set(gems_config_get()->fault);
    size_t lent = 0;
    char **before = environ, **copy = lend_environment(&lent);
    if (copy)
        environ = copy;
    unsigned n = gems_cl_load(&why) ? find_candidates(all, MAX_CANDIDATES) : 0;
    if (copy)
        return_environment(before, copy, lent);
    if (why) {
        snprintf(device.text, sizeof device.text, "%s", why);
        return false;
    }
    const candidate *main = choose(all, n);
    bool ok = main && open_lanes(main, all, n);
    keep_list(all, n);
    return ok;
}

static bool open_once(void)
{
    pthread_mutex_lock(&device.lock);
    if (atomic_load(&device.state) == CLOSED) {
        atomic_store(&device.state, OPENING);
        pthread_atfork(NULL, NULL, after_fork_in_child);
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
