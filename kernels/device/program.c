/* Programs and kernels: building, the map of what is built in this process, quarantine. */
#include "kernels/device/internal.h"
#include "kernels/embedded.h"
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MEMORY_FAILURES 3 /* in a row, before a kernel that "runs out of resources" is given up */

/* ---- map ---- */

/* Readers take no lock: a slot is filled once and never changes, and an old map stays when a larger one replaces it. */
static gems_kernel *map_find(const gems_kernel_map *map, uint64_t key)
{
    for (size_t i = key & map->mask;; i = (i + 1) & map->mask) {
        gems_kernel *kernel = atomic_load_explicit(&map->slot[i], memory_order_acquire);
        if (!kernel || kernel->key == key)
            return kernel;
    }
}

static void map_put(gems_kernel_map *map, gems_kernel *kernel)
{
    size_t i = kernel->key & map->mask;
    while (atomic_load_explicit(&map->slot[i], memory_order_relaxed))
        i = (i + 1) & map->mask;
    atomic_store_explicit(&map->slot[i], kernel, memory_order_release);
}

/* With build_lock held. False if memory is out. */
static bool map_add(gems_lane_state *lane, gems_kernel *kernel)
{
    gems_kernel_map *map = atomic_load(&lane->kernels);
    if (2 * (lane->nkernels + 1) > map->mask) {
        gems_kernel_map *larger = calloc(1, sizeof *larger + 4 * (map->mask + 1) * sizeof larger->slot[0]);
        if (!larger)
            return false;
        larger->mask = 4 * (map->mask + 1) - 1;
        for (size_t i = 0; i <= map->mask; i++)
            if (atomic_load(&map->slot[i]))
                map_put(larger, atomic_load(&map->slot[i]));
        atomic_store(&lane->kernels, larger); /* the old one may be in use by a reader: kept */
        map = larger;
    }
    map_put(map, kernel);
    lane->nkernels++;
    return true;
}

/* ---- building ---- */

/* GEMS_DUMP: the source as compiled, its options in a comment in front. */
static void dump(const gems_program *program, const gems_lane_state *lane, const char *text, const char *options)
{
    const char *dir = gems_config_get()->dump;
    char path[4096], name[128];
    size_t n = 0;

    if (!dir)
        return;
    for (const char *p = program->name; *p && n < sizeof name - 1; p++)
        name[n++] = isalnum((unsigned char)*p) || strchr("._-", *p) ? *p : '-';
    name[n] = 0;
    snprintf(path, sizeof path, "%s/%s-%08x-%s.cl", dir, name, (unsigned)program->hash[0],
             lane->index == GEMS_LANE_SMALL ? "small" : "main");
    (void)mkdir(dir, 0777); /* fopen tells if that did not help */
    FILE *f = fopen(path, "we");
    if (!f) {
        gems_log("GEMS_DUMP: cannot write to %s", dir);
        return;
    }
    fprintf(f, "/* %s on %s (%s)\n * options: %s */\n%s", program->name, lane->info.name, lane->info.vendor, options,
            text);
    fclose(f);
}

static void build_log(gems_lane_state *lane, cl_program program, const char *name)
{
    size_t n = 0;
    if (CL_SURE(clGetProgramBuildInfo, program, lane->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &n) != CL_SUCCESS ||
        n < 2 || n > 1 << 20)
        return;
    char *text = calloc(1, n + 1), *rest = NULL;
    if (text &&
        CL_SURE(clGetProgramBuildInfo, program, lane->device, CL_PROGRAM_BUILD_LOG, n, text, NULL) == CL_SUCCESS)
        for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
            gems_log("%s: %s", name, line);
    free(text);
}

static cl_program from_binary(gems_lane_state *lane, const unsigned char *binary, size_t size, const char *options)
{
    cl_int error, status = CL_SUCCESS;
    cl_program program =
        CL_NEW(&error, clCreateProgramWithBinary, lane->context, 1, &lane->device, &size, &binary, &status);
    if (!program)
        return NULL;
    if (status == CL_SUCCESS && CL(clBuildProgram, program, 1, &lane->device, options, NULL, NULL) == CL_SUCCESS)
        return program;
    CL_SURE(clReleaseProgram, program);
    return NULL;
}

static cl_program from_source(gems_lane_state *lane, const char *name, const char *text, const char *options, char *why,
                              size_t n)
{
    const char *function = "clCreateProgramWithSource";
    cl_int error;

    cl_program program = CL_NEW(&error, clCreateProgramWithSource, lane->context, 1, &text, NULL);
    if (program) {
        /* Without warnings: PoCL's compiler counts them on the program's stderr. */
        char *quiet = NULL;
        function = "clBuildProgram";
        error = asprintf(&quiet, "%s%s-w", options, *options ? " " : "") < 0
                    ? CL_OUT_OF_HOST_MEMORY
                    : CL(clBuildProgram, program, 1, &lane->device, quiet, NULL, NULL);
        free(quiet);
        if (error == CL_SUCCESS)
            return program;
        build_log(lane, program, name);
        CL_SURE(clReleaseProgram, program);
    }
    snprintf(why, n, "%s(%s): %s", function, name, gems_cl_error(error));
    return NULL;
}

static gems_program *program_new(gems_lane_state *lane, const char *name, const char *text, const char *options)
{
    gems_program *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    int size = asprintf(&p->key, "gems-preload %s\n%s%s\n%s", GEMS_VERSION, lane->identity ? lane->identity : "",
                        options, text);
    if (size < 0) {
        free(p);
        return NULL;
    }
    p->key_size = (size_t)size;
    p->hash[0] = gems_hash(5, p->key, p->key_size);
    p->hash[1] = gems_hash(6, p->key, p->key_size);
    p->name = strdup(name);
    p->lane = lane;
    return p;
}

static void program_free(gems_program *p)
{
    free(p->name);
    free(p->key);
    free(p);
}

gems_program *gems_program_get(gems_lane_state *lane, const char *name, const char *text, const char *options,
                               char *why, size_t n)
{
    char *full = NULL;
    gems_program *p = NULL, *built;
    size_t size = 0;

    if (asprintf(&full, "%s%s", lane->info.prelude ? lane->info.prelude : "", text) < 0 ||
        !(p = program_new(lane, name, full, options)) || !p->name) {
        snprintf(why, n, "out of memory");
        goto fail;
    }
    for (built = lane->programs; built; built = built->next)
        if (built->hash[0] == p->hash[0] && built->hash[1] == p->hash[1]) {
            program_free(p);
            free(full);
            return built;
        }
    dump(p, lane, full, options);
    if (!gems_needs_met(lane->vendor, why, n))
        goto fail;

    atomic_fetch_add(&gems_open_building, 1);
    unsigned char *binary = gems_cache_load(p->key, p->key_size, &size);
    if (binary)
        p->program = from_binary(lane, binary, size, options);
    free(binary);
    if (p->program) {
        free(p->key);
        p->key = NULL;
    } else {
        p->program = from_source(lane, name, full, options, why, n);
        p->unsaved = p->program && gems_cache_dir() && !gems_vendor_has_own_cache(lane->vendor, lane->info.name);
        gems_save_note_build();
        gems_open_guard_exit(); /* the compiler has just registered what it does at exit */
    }
    atomic_fetch_sub(&gems_open_building, 1);
    if (!p->program)
        goto fail;
    free(full);
    p->next = lane->programs;
    lane->programs = p;
    return p;
fail:
    if (p)
        program_free(p);
    free(full);
    return NULL;
}

void gems_program_save(gems_program *program)
{
    if (!atomic_exchange(&program->unsaved, false))
        return;
    if (program->lane->vendor->save_when_idle)
        gems_save_later(program);
    else
        gems_program_store(program);
}

/* The program's binary, to free(); NULL if the driver does not give it. */
static unsigned char *binary_of(cl_program program, size_t *size)
{
    unsigned char *binary = NULL;
    *size = 0;
    if (CL(clGetProgramInfo, program, CL_PROGRAM_BINARY_SIZES, sizeof *size, size, NULL) != CL_SUCCESS || !*size ||
        !(binary = malloc(*size)))
        return NULL;
    if (CL(clGetProgramInfo, program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS)
        return binary;
    free(binary);
    return NULL;
}

void gems_program_store(gems_program *program)
{
    char why[200];
    size_t size;
    if (!gems_needs_met(program->lane->vendor, why, sizeof why))
        return;
    gems_guard_lock(program->lane);
    unsigned char *binary = binary_of(program->program, &size);
    gems_guard_unlock(program->lane);
    if (binary)
        gems_cache_store(program->key, program->key_size, binary, size);
    free(binary);
}

/* ---- kernels ---- */

/* Name and entry as people know them, for messages. */
static gems_kernel *kernel_new(gems_lane_state *lane, uint64_t key, const char *name, const char *entry)
{
    gems_kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel)
        return NULL;
    kernel->key = key;
    kernel->lane = lane;
    pthread_mutex_init(&kernel->one_by_one, NULL);
    kernel->name = strdup(name);
    kernel->entry = strdup(entry);
    if (kernel->name && kernel->entry)
        return kernel;
    free(kernel->name);
    free(kernel->entry);
    free(kernel);
    return NULL;
}

void gems_program_quarantine(gems_kernel *kernel, const char *why)
{
    if (!atomic_exchange(&kernel->quarantined, true))
        gems_log("kernel %s (%s) is not used any more: %s", kernel->entry, kernel->name, why);
}

void gems_program_failed(gems_kernel *kernel, cl_int error, const char *why)
{
    if (error == CL_MEM_OBJECT_ALLOCATION_FAILURE) /* the operands are too large, now: no fault of the kernel */
        return;
    if (!gems_cl_error_is_memory(error) || atomic_fetch_add(&kernel->memory_failures, 1) + 1 >= MEMORY_FAILURES)
        gems_program_quarantine(kernel, why);
}

/* The copy of the kernel that belongs to a seat. */
gems_clone *gems_program_clone(gems_kernel *kernel, unsigned seat, cl_int *error)
{
    gems_clone *clone = kernel->clone[seat];
    if (clone)
        return clone;
    *error = CL_OUT_OF_HOST_MEMORY;
    if (!(clone = calloc(1, sizeof *clone)))
        return NULL;
    clone->kernel = CL_NEW(error, clCreateKernel, kernel->program->program, kernel->entry);
    if (!clone->kernel) {
        free(clone);
        return NULL;
    }
    kernel->clone[seat] = clone;
    return clone;
}

static gems_kernel *usable(gems_job *job, gems_kernel *kernel)
{
    if (kernel && atomic_load_explicit(&kernel->quarantined, memory_order_relaxed)) {
        job->status =
            gems_fail(job->call, "kernel %s (%s) failed before and is not used any more", kernel->entry, kernel->name);
        return NULL;
    }
    return kernel;
}

gems_kernel *gems_kernel_find(gems_job *job, uint64_t key)
{
    if (job->status != GEMS_OK)
        return NULL;
    return usable(job, map_find(atomic_load_explicit(&job->lane->kernels, memory_order_acquire), key));
}

gems_kernel *gems_kernel_build(gems_job *job, uint64_t key, const char *name, const char *includes, const char *source,
                               const char *options, const char *entry)
{
    if (job->status != GEMS_OK)
        return NULL;
    gems_lane_state *lane = job->lane;
    char why[200] = "out of memory", *text = NULL, *all_options = NULL;
    cl_int error = CL_SUCCESS;

    pthread_mutex_lock(&lane->build_lock);
    gems_kernel *kernel = map_find(atomic_load(&lane->kernels), key); /* another thread was here first */
    if (kernel)
        goto out;
    kernel = kernel_new(lane, key, name, entry);
    if (!kernel) {
        job->status = gems_fail(job->call, "%s", why);
        goto out;
    }
    text = gems_source_join(name, includes, source, why, sizeof why);
    if (text && asprintf(&all_options, "%s%s%s %s", lane->vendor->options, *lane->vendor->options ? " " : "",
                         lane->rounding, options ? options : "") >= 0)
        kernel->program = gems_program_get(lane, name, text, all_options, why, sizeof why);
    if (kernel->program && !gems_program_clone(kernel, job->seat->index, &error))
        snprintf(why, sizeof why, "clCreateKernel(%s): %s", entry, gems_cl_error(error));
    if (!kernel->program || !kernel->clone[job->seat->index]) {
        job->status = gems_fail(job->call, "%s", why);
        gems_program_quarantine(kernel, why);
    }
    if (!map_add(lane, kernel)) /* only now may others see it; without a place it is built again next time */
        gems_log("out of memory: kernel %s is not remembered", entry);
out:
    pthread_mutex_unlock(&lane->build_lock);
    free(text);
    free(all_options);
    return job->status == GEMS_OK ? usable(job, kernel) : NULL;
}

gems_kernel *gems_kernel_get(gems_job *job, const char *file, const char *entry, const char *options, ...)
{
    char text[1024] = "";
    va_list args;
    int n = 0;

    if (job->status != GEMS_OK)
        return NULL;
    va_start(args, options);
    if (options)
        n = vsnprintf(text, sizeof text, options, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof text) {
        job->status = gems_fail(job->call, "options of kernel %s are too long", entry);
        return NULL;
    }
    uint64_t key = gems_hash(gems_hash(gems_hash(7, file, strlen(file)), entry, strlen(entry)), text, (size_t)n);
    gems_kernel *kernel = gems_kernel_find(job, key);
    if (kernel || job->status != GEMS_OK)
        return kernel;
    const gems_embedded_file *embedded = gems_embedded_find(file);
    if (!embedded) {
        job->status = gems_fail(job->call, "no embedded file %s", file);
        return NULL;
    }
    return gems_kernel_build(job, key, file, NULL, embedded->text, text, entry);
}
