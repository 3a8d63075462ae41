/* Opening OpenCL: the device's two lanes, and what it does differently. */
#include "kernels/device/driver.h"
#include "kernels/embedded.h"
#include "preload/base/config.h"
#include "preload/base/hash.h"
#include "preload/base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of vendors' extensions; refused by the others. */
#define DEVICE_COMPUTE_CAPABILITY_MAJOR_NV 0x4000
#define DEVICE_COMPUTE_CAPABILITY_MINOR_NV 0x4001
#define DEVICE_WARP_SIZE_NV                0x4003
#define DEVICE_WAVEFRONT_WIDTH_AMD         0x4043

static char why_not[256]; /* why no device was opened */

/* ---- lanes ---- */

/* Macros are defined if they hold, so that #if and #ifdef both read them. */
static char *make_prelude(const gems_device_info *info, const gems_vendor_data *vendor)
{
    char *text = NULL;
    int n = asprintf(&text,
                     "%s%s%s#define GEMS_SUBGROUP %u\n#define GEMS_PTX %u\n"
                     /* A parameter that is memory (one that no other overlaps, or may), and the variable that points
                      * at its first element. */
                     "#define GEMS_BUFFER(T, x) __global T *restrict x##_buffer, const long x##_at\n"
                     "#define GEMS_SHARED_BUFFER(T, x) __global T *x##_buffer, const long x##_at\n"
                     "#define GEMS_AT(T, x) __global T *x = (__global T *)((__global uchar *)x##_buffer + x##_at)\n"
                     "%s%s%s%s",
                     info->is_cpu ? "#define GEMS_CPU 1\n" : "", info->f64 ? "#define GEMS_HAS_F64 1\n" : "",
                     info->f16_arith ? "#define GEMS_HAS_F16 1\n" : "", info->subgroup, info->ptx,
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
        snprintf(why_not, sizeof why_not, "%s: clCreateContext: %s", c->name, gems_cl_error(error));
        free(map);
        free(lane);
        return NULL;
    }
    map->mask = 63;
    atomic_init(&lane->kernels, map);
    pthread_mutex_init(&lane->build_lock, NULL);
    pthread_mutex_init(&lane->queue_lock, NULL);
    pthread_mutex_init(&lane->stream_lock, NULL);
    pthread_cond_init(&lane->queue_free, NULL);
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
    if (extensions && strstr(extensions, "cl_nv_device_attribute_query"))
        info->ptx = (uint32_t)(10 * gems_choose_number(c->id, DEVICE_COMPUTE_CAPABILITY_MAJOR_NV) +
                               gems_choose_number(c->id, DEVICE_COMPUTE_CAPABILITY_MINOR_NV));
    free(extensions);
    lane->rounding = gems_choose_number(c->id, CL_DEVICE_SINGLE_FP_CONFIG) & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT
                         ? "-cl-fp32-correctly-rounded-divide-sqrt -DGEMS_EXACT_ROOTS"
                         : "";
    info->compute_units = (uint32_t)gems_choose_number(c->id, CL_DEVICE_MAX_COMPUTE_UNITS);
    info->max_group = gems_choose_number(c->id, CL_DEVICE_MAX_WORK_GROUP_SIZE);
    info->local_bytes = gems_choose_number(c->id, CL_DEVICE_LOCAL_MEM_SIZE);
    info->local_static = info->local_bytes;
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
    info->undoes = c->vendor->driver && c->vendor->driver->undoes;
    info->exact_buffers = c->vendor->exact;
    info->bounce_bytes = c->vendor->bounce_bytes;
    info->bounce_piece = c->vendor->bounce_piece;
    info->bounce_from = c->vendor->bounce_from;
    info->prelude = make_prelude(info, c->vendor);

    char *identity = NULL, *version = gems_choose_platform_text(c->platform, CL_PLATFORM_VERSION);
    const gems_embedded_file *builtins = *c->vendor->undeclared ? gems_embedded_find("kernels/builtins.cl") : NULL;
    lane->builtins = builtins ? builtins->text : NULL;
    if (asprintf(&identity, "%s\n%s\n%s\n%s\n%s%llx\n", info->platform, version, info->name, info->driver,
                 c->vendor->undeclared,
                 builtins ? (unsigned long long)gems_hash_long(1, builtins->text, builtins->size) : 0) > 0)
        lane->identity = identity;
    free(version);
    return lane;
}

static const char PROBE[] = "kernel void gems_probe(global const int *in, global int *out, int n)\n"
                            "{\n    for (int i = 0; i < n; i++)\n        out[i] = 3 * in[i] + 1;\n}\n";

/* A kernel of our own, and a queue to try it on. */
typedef struct probe {
    gems_program *program;
    cl_kernel kernel;
    cl_command_queue queue; /* NULL: it cannot be tried */
} probe;

static probe probe_open(gems_lane_state *lane, const char *name, const char *source)
{
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};
    cl_int error;
    probe p = {.program = gems_program_get(lane, name, source, lane->vendor->options, false, &trouble)};
    if (p.program)
        p.kernel = CL_NEW(&error, clCreateKernel, p.program->program, "gems_probe");
    if (p.kernel)
        p.queue = CL_NEW(&error, clCreateCommandQueue, lane->context, lane->device, 0);
    return p;
}

static bool probe_launch(const probe *p)
{
    const size_t one = 1;
    return CL(clEnqueueNDRangeKernel, p->queue, p->kernel, 1, NULL, &one, &one, 0, NULL, NULL) == CL_SUCCESS;
}

static void probe_close(const probe *p)
{
    if (p->queue)
        CL_SURE(clReleaseCommandQueue, p->queue);
    if (p->kernel)
        CL_SURE(clReleaseKernel, p->kernel);
}

/* Whether kernels of this lane may be given plain addresses of the host's memory. OpenCL promises it only for system
 * SVM; a CPU driver within the process can do it all the same, and this asks for no copy and no call per tensor. */
static bool try_host_pointers(gems_lane_state *lane)
{
    enum {
        N = 64,
        FIRST = 5
    }; /* not at the start of a block or page */
    const probe p = probe_open(lane, "probe", PROBE);
    bool works = false;
    int *block = malloc(2 * (N + FIRST) * sizeof *block), n = N;
    if (p.queue && block) {
        int *in = block + FIRST, *result = in + N;
        for (int i = 0; i < N; i++)
            in[i] = i, result[i] = -1;
        works = CL(clSetKernelArgSVMPointer, p.kernel, 0, in) == CL_SUCCESS &&
                CL(clSetKernelArgSVMPointer, p.kernel, 1, result) == CL_SUCCESS &&
                CL(clSetKernelArg, p.kernel, 2, sizeof n, &n) == CL_SUCCESS && probe_launch(&p);
        works = CL_SURE(clFinish, p.queue) == CL_SUCCESS && works;
        for (int i = 0; i < N && works; i++)
            works = in[i] == i && result[i] == 3 * i + 1;
    }
    probe_close(&p);
    free(block);
    return works;
}

static bool takes_host_pointers(gems_lane_state *lane)
{
    uint64_t svm = gems_cl.clSetKernelArgSVMPointer ? gems_choose_number(lane->device, CL_DEVICE_SVM_CAPABILITIES) : 0;
    return svm && (lane->info.is_cpu || (svm & CL_DEVICE_SVM_FINE_GRAIN_SYSTEM)) &&
           gems_cache_remember(lane, "takes host pointers?", try_host_pointers);
}

static const char LOOPS[] = "kernel void gems_probe(global uint *x, int n)\n"
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
    cl_int error;
    uint32_t x[4] = {1, 2, 3, 4}, u = x[0];
    bool early = false;

    const probe p = probe_open(lane, "loops", LOOPS);
    cl_mem mem = p.queue ? CL_NEW(&error, clCreateBuffer, lane->context, CL_MEM_READ_WRITE, sizeof x, NULL) : NULL;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < 4; j++)
            u = u * 1664525u + x[j];
    if (mem && CL(clEnqueueWriteBuffer, p.queue, mem, CL_TRUE, 0, sizeof x, x, 0, NULL, NULL) == CL_SUCCESS &&
        CL(clSetKernelArg, p.kernel, 0, sizeof mem, &mem) == CL_SUCCESS &&
        CL(clSetKernelArg, p.kernel, 1, sizeof(int), &(int){N}) == CL_SUCCESS && probe_launch(&p) &&
        CL(clEnqueueReadBuffer, p.queue, mem, CL_TRUE, 0, sizeof x, x, 0, NULL, NULL) == CL_SUCCESS) {
        early = x[0] != u;
        gems_program_save(p.program);
    }
    if (mem)
        CL_SURE(clReleaseMemObject, mem);
    probe_close(&p);
    return early;
}

static bool wants_unified(const gems_lane_state *lane)
{
    int64_t mode = gems_config_get()->memory;
    return mode == GEMS_MEMORY_UNIFIED || (mode == GEMS_MEMORY_AUTO && lane->vendor->unified);
}

static const gems_lane_state *lanes[GEMS_LANE_COUNT];

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

    if (big->vendor->driver && big->vendor->driver->opened)
        big->vendor->driver->opened(big);
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
    gems_state_set_lane(GEMS_LANE_MAIN, big);
    gems_state_set_lane(GEMS_LANE_SMALL, small ? small : big);
    lanes[GEMS_LANE_MAIN] = big;
    lanes[GEMS_LANE_SMALL] = small ? small : big;
    return true;
}

/* ---- opening ---- */

static gems_device_seen seen[GEMS_MAX_CANDIDATES];
static unsigned nseen;

static void keep_list(const gems_candidate *all, unsigned n)
{
    const gems_lane_state *main = lanes[GEMS_LANE_MAIN], *small = lanes[GEMS_LANE_SMALL];
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

static int (*_Atomic ask_threads)(void);

void gems_device_ask_threads(int (*threads)(void))
{
    atomic_store(&ask_threads, threads);
}

int gems_open_threads(void)
{
    int (*ask)(void) = atomic_load(&ask_threads);
    return ask ? ask() : 0;
}

static void open_device(void *ok)
{
    gems_candidate all[GEMS_MAX_CANDIDATES];
    const char *why = NULL;
    unsigned n = 0;

    gems_cl_fault_set(gems_config_get()->fault);
    char *key = gems_remember_key(), *library = gems_remember_library(key);
    gems_vendor_lend_environment();
    if (library && gems_cl_load_driver(library))
        n = gems_choose_find(all, GEMS_MAX_CANDIDATES);
    if (n == 0 && gems_cl_load(&why) && (n = gems_choose_find(all, GEMS_MAX_CANDIDATES)) > 0)
        gems_remember(key, all, n);
    gems_vendor_return_environment();
    free(library);
    free(key);
    if (why) {
        snprintf(why_not, sizeof why_not, "%s", why);
        return;
    }
    const gems_candidate *main = gems_choose(all, n, why_not, sizeof why_not);
    *(bool *)ok = main && open_lanes(main, all, n);
    keep_list(all, n);
}

static bool open_once(void)
{
    bool ok = false;

    gems_state_lock();
    if (gems_state_advance(GEMS_STATE_OPENING)) {
        gems_thread_deep(open_device, &ok, GEMS_STACK_COMPILE);
        if (ok) {
            gems_state_advance(GEMS_STATE_OPEN);
        } else {
            gems_device_stop(why_not);
            if (gems_config_get()->vendor)
                gems_complain("%s; the host runs everything", why_not);
            else
                gems_log("%s; the host runs everything", why_not);
            if (gems_config_get()->strict) {
                gems_complain("GEMS_STRICT=1: aborting: %s", why_not);
                abort();
            }
        }
    }
    gems_state_unlock();
    return gems_state_now() == GEMS_STATE_OPEN;
}

bool gems_device_open(void)
{
    enum gems_state now = gems_state_now();
    return now == GEMS_STATE_OPEN || (now != GEMS_STATE_STOPPED && open_once());
}
