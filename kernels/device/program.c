/* Programs and kernels: building, the map of what is built in this process, quarantine. */
#include "kernels/device/driver.h"
#include "preload/base/config.h"
#include "preload/base/hash.h"
#include "preload/base/log.h"
#include "preload/base/thread.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMORY_FAILURES 3 /* in a row, before a kernel that "runs out of resources" rests */
#define REST_SECONDS    5

/* ---- map ---- */

/* Readers take no lock: a slot is filled once and never changes, and an old map stays when a larger one replaces it. */
static gems_kernel *map_find(const gems_kernel_map *map, uint64_t hash, const void *id, size_t n)
{
    for (size_t i = hash & map->mask;; i = (i + 1) & map->mask) {
        gems_kernel *kernel = atomic_load_explicit(&map->slot[i], memory_order_acquire);
        if (!kernel || (kernel->hash == hash && kernel->id_size == n && memcmp(kernel->id, id, n) == 0))
            return kernel;
    }
}

static void map_put(gems_kernel_map *map, gems_kernel *kernel)
{
    size_t i = kernel->hash & map->mask;
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
    (void)mkdir(dir, 0777); /* open tells if that did not help */
    (void)unlink(path);     /* of an earlier process; a link, too: what it leads to is not ours */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f) {
        if (fd >= 0)
            close(fd);
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

/* Out of memory, or out of disk: the same may work later. */
static gems_trouble_kind kind_of(const gems_lane_state *lane, cl_int error)
{
    char why[200];
    bool passing = gems_cl_error_is_memory(error) || !gems_vendor_may_build(lane->vendor, why, sizeof why);
    return passing ? GEMS_TROUBLE_MEMORY : GEMS_TROUBLE_OTHER;
}

_Atomic unsigned gems_program_undeclared;

static cl_program from_source(gems_lane_state *lane, const char *name, const char *text, const char *options,
                              gems_trouble *trouble)
{
    const char *function = "clCreateProgramWithSource";
    cl_int error;

    /* With our own declarations of builtins; if they do not suffice, with the compiler's. */
    for (const char *builtins = lane->builtins;; builtins = NULL) {
        const char *const texts[] = {builtins, text};
        cl_program program = CL_NEW(&error, clCreateProgramWithSource, lane->context, builtins ? 2 : 1,
                                    (const char **)texts + !builtins, NULL);
        if (!program)
            break;
        /* Without warnings: PoCL's compiler counts them on the program's stderr. */
        char *all = NULL;
        function = "clBuildProgram";
        error = asprintf(&all, "%s %s -w", options, builtins ? lane->vendor->undeclared : "") < 0
                    ? CL_OUT_OF_HOST_MEMORY
                    : CL(clBuildProgram, program, 1, &lane->device, all, NULL, NULL);
        free(all);
        if (error == CL_SUCCESS) {
            if (lane->builtins && !builtins)
                atomic_fetch_add(&gems_program_undeclared, 1);
            return program;
        }
        bool again = builtins && error == CL_BUILD_PROGRAM_FAILURE;
        if (!again)
            build_log(lane, program, name);
        CL_SURE(clReleaseProgram, program);
        if (!again)
            break;
    }
    gems_trouble_note(trouble, kind_of(lane, error), "%s(%s): %s", function, name, gems_cl_error(error));
    return NULL;
}

static gems_program *program_new(gems_lane_state *lane, const char *name, const char *text, const char *options)
{
    gems_program *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    const gems_driver *driver = lane->vendor->driver;
    int size = asprintf(&p->key, "gems-preload %s\n%s%u\n%s\n%s", GEMS_VERSION, lane->identity ? lane->identity : "",
                        driver ? driver->version : 0, options, text);
    if (size < 0) {
        free(p);
        return NULL;
    }
    p->key_size = (size_t)size;
    p->hash[0] = gems_hash_long(5, p->key, p->key_size);
    p->hash[1] = gems_hash_long(6, p->key, p->key_size);
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

/* A program that the driver wants changed: built from its source, given out as a binary, patched, loaded again. */
static cl_program patched(gems_lane_state *lane, cl_program program, const char *name, const char *options,
                          gems_trouble *trouble)
{
    const gems_driver *driver = lane->vendor->driver;
    size_t size = 0;
    if (!program || !driver || !driver->patch)
        return program;
    unsigned char *binary = binary_of(program, &size), *changed = binary ? driver->patch(lane, binary, &size) : NULL;
    free(binary);
    if (!changed)
        return program;
    CL_SURE(clReleaseProgram, program);
    program = from_binary(lane, changed, size, options);
    free(changed);
    if (!program)
        gems_trouble_note(trouble, GEMS_TROUBLE_OTHER, "%s: the patched binary does not load", name);
    return program;
}

static __thread bool in_background;

void gems_build_in_background(void)
{
    in_background = true;
}

/* What a thread with a deep stack does. */
typedef struct build {
    gems_lane_state *lane;
    gems_program *program;
    const char *text, *options;
    gems_trouble *trouble;
    bool in_background;
} build;

static void compile(void *arg)
{
    build *b = arg;
    gems_program *p = b->program;
    const gems_driver *driver = b->lane->vendor->driver;
    if (driver && driver->before_build)
        driver->before_build(p);
    p->program = from_source(b->lane, p->name, b->text, b->options, b->trouble);
    if (driver && driver->after_build)
        driver->after_build(p, p->program != NULL);
    p->program = patched(b->lane, p->program, p->name, b->options, b->trouble);
    p->unsaved = p->program && gems_cache_dir() && !gems_vendor_has_own_cache(b->lane->vendor, b->lane->info.name);
    gems_save_note_build();
}

/* In a thread of its own: what gave way once cannot take it back. */
static void compile_in_background(void *arg)
{
    gems_thread_give_way();
    compile(arg);
}

static void build_program(void *arg)
{
    build *b = arg;
    gems_program *p = b->program;
    size_t size = 0;

    atomic_fetch_add(&gems_state_building, 1);
    unsigned char *binary = gems_cache_load(p->key, p->key_size, &size);
    if (binary)
        p->program = from_binary(b->lane, binary, size, b->options);
    free(binary);
    p->cached = p->program != NULL;
    if (!p->cached && !(b->in_background && gems_thread_apart(compile_in_background, b, GEMS_STACK_COMPILE)))
        compile(b);
    atomic_fetch_sub(&gems_state_building, 1);
}

/* With the build lock held. */
static gems_program *get(gems_lane_state *lane, const char *name, const char *text, const char *options,
                         gems_trouble *trouble)
{
    char *full = NULL, why[150];
    gems_program *p = NULL, *built;

    if (asprintf(&full, "%s%s", lane->info.prelude ? lane->info.prelude : "", text) < 0 ||
        !(p = program_new(lane, name, full, options)) || !p->name) {
        gems_trouble_note(trouble, GEMS_TROUBLE_MEMORY, "out of memory");
        goto fail;
    }
    for (built = lane->programs; built; built = built->next)
        if (built->hash[0] == p->hash[0] && built->hash[1] == p->hash[1]) {
            program_free(p);
            free(full);
            return built;
        }
    dump(p, lane, full, options);
    if (!gems_vendor_may_build(lane->vendor, why, sizeof why)) {
        gems_trouble_note(trouble, GEMS_TROUBLE_MEMORY, "%s", why);
        goto fail;
    }
    gems_thread_deep(build_program, &(build){lane, p, full, options, trouble, in_background}, GEMS_STACK_COMPILE);
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

gems_program *gems_program_get(gems_lane_state *lane, const char *name, const char *text, const char *options,
                               bool locked, gems_trouble *trouble)
{
    if (!locked)
        pthread_mutex_lock(&lane->build_lock);
    gems_program *program = get(lane, name, text, options, trouble);
    if (!locked)
        pthread_mutex_unlock(&lane->build_lock);
    return program;
}

static void store_now(void *arg)
{
    gems_program *program = arg;
    const gems_driver *driver = program->lane->vendor->driver;
    char why[200];
    size_t size;
    if (!gems_vendor_may_build(program->lane->vendor, why, sizeof why))
        return;
    if (driver && driver->begin_binary)
        driver->begin_binary();
    unsigned char *binary = binary_of(program->program, &size);
    if (driver && driver->end_binary)
        driver->end_binary();
    if (binary)
        gems_cache_store(program->key, program->key_size, binary, size);
    free(binary);
}

/* Asks for the binary and writes it. May take as long as the build. */
static void store(gems_program *program)
{
    gems_thread_deep(store_now, program, GEMS_STACK_COMPILE);
}

void gems_program_save(gems_program *program)
{
    if (!atomic_exchange(&program->unsaved, false))
        return;
    if (program->lane->vendor->save_when_idle)
        gems_save_later(program, store);
    else
        store(program);
}

/* ---- kernels ---- */

/* Name and entry as people know them, for messages. */
static gems_kernel *kernel_new(gems_lane_state *lane, uint64_t hash, const void *id, size_t n,
                               const gems_kernel_text *text)
{
    gems_kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel)
        return NULL;
    kernel->hash = hash;
    kernel->lane = lane;
    pthread_mutex_init(&kernel->one_by_one, NULL);
    kernel->id = malloc(n ? n : 1);
    kernel->id_size = n;
    kernel->name = strdup(text->name);
    kernel->entry = strdup(text->entry);
    if (kernel->id && kernel->name && kernel->entry) {
        memcpy(kernel->id, id, n);
        return kernel;
    }
    free(kernel->id);
    free(kernel->name);
    free(kernel->entry);
    free(kernel);
    return NULL;
}

/* Out of use: for good, or for REST_SECONDS where something was short that may be there again. */
static void put_out_of_use(gems_kernel *kernel, const gems_trouble *trouble)
{
    if (trouble->kind == GEMS_TROUBLE_MEMORY || trouble->kind == GEMS_TROUBLE_NO_DEVICE)
        atomic_store(&kernel->rests_until, gems_seconds() + REST_SECONDS);
    else if (!atomic_exchange(&kernel->quarantined, true))
        gems_log("kernel %s (%s) is not used any more: %s", kernel->entry, kernel->name, trouble->text);
}

void gems_kernel_failed(gems_kernel *kernel, const gems_trouble *trouble)
{
    if (trouble->code == CL_MEM_OBJECT_ALLOCATION_FAILURE) /* the operands are too large, now: no fault of the kernel */
        return;
    if (trouble->kind == GEMS_TROUBLE_MEMORY) {
        if (atomic_fetch_add(&kernel->short_of_memory, 1) + 1 >= MEMORY_FAILURES)
            put_out_of_use(kernel, trouble);
    } else
        put_out_of_use(kernel, trouble);
}

/* The copy of the kernel that belongs to a queue. */
gems_clone *gems_program_clone(gems_kernel *kernel, unsigned queue, cl_int *error)
{
    gems_clone *clone = kernel->clone[queue];
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
    kernel->clone[queue] = clone;
    return clone;
}

/* NULL if it is out of use; *again: it may be tried again now. */
static gems_kernel *usable(gems_kernel *kernel, bool *again, gems_trouble *trouble)
{
    *again = false;
    if (!kernel)
        return NULL;
    int64_t rests = atomic_load_explicit(&kernel->rests_until, memory_order_relaxed);
    bool quarantined = atomic_load_explicit(&kernel->quarantined, memory_order_relaxed);
    if (__builtin_expect(!quarantined && !rests, 1))
        return kernel;
    if (!quarantined && gems_seconds() >= rests) {
        *again = true;
        return kernel;
    }
    gems_trouble_note(trouble, quarantined ? GEMS_TROUBLE_OTHER : GEMS_TROUBLE_MEMORY,
                      "kernel %s (%s) failed before and is not used %s", kernel->entry, kernel->name,
                      quarantined ? "any more" : "for some seconds");
    return NULL;
}

gems_kernel *gems_kernel_find(gems_lane lane_name, const void *id, size_t n, gems_trouble *trouble)
{
    bool again;
    gems_lane_state *lane = trouble->kind == GEMS_TROUBLE_NONE ? gems_state_lane(lane_name, trouble) : NULL;
    if (!lane)
        return NULL;
    gems_kernel *kernel =
        map_find(atomic_load_explicit(&lane->kernels, memory_order_acquire), gems_hash_long(7, id, n), id, n);
    kernel = usable(kernel, &again, trouble);
    if (again && !kernel->program) /* its build failed: the caller builds it once more */
        return NULL;
    if (again)
        atomic_store(&kernel->rests_until, 0);
    return kernel;
}

/* With the build lock held. Fills kernel->program, or notes trouble. */
static void build_kernel(gems_kernel *kernel, const gems_kernel_text *text, gems_trouble *trouble)
{
    gems_lane_state *lane = kernel->lane;
    char why[150] = "out of memory", *options = NULL;
    char *source = gems_source_join(text->name, text->includes, text->source, why, sizeof why);

    if (!source || asprintf(&options, "%s%s%s %s", lane->vendor->options, *lane->vendor->options ? " " : "",
                            lane->rounding, text->options ? text->options : "") < 0)
        gems_trouble_note(trouble, source ? GEMS_TROUBLE_MEMORY : GEMS_TROUBLE_OTHER, "%s", why);
    else
        kernel->program = gems_program_get(lane, text->name, source, options, true, trouble);
    free(source);
    free(options);
    cl_int error = CL_SUCCESS;
    cl_kernel probe = kernel->program ? CL_NEW(&error, clCreateKernel, kernel->program->program, kernel->entry) : NULL;
    if (probe)
        CL_SURE(clReleaseKernel, probe);
    else
        gems_trouble_note(trouble, kind_of(lane, error), "clCreateKernel(%s): %s", kernel->entry, gems_cl_error(error));
    if (trouble->kind != GEMS_TROUBLE_NONE) {
        kernel->program = NULL;
        put_out_of_use(kernel, trouble);
    }
}

gems_kernel *gems_kernel_build(gems_lane lane_name, const void *id, size_t n, const gems_kernel_text *text,
                               gems_trouble *trouble)
{
    bool again = false;
    gems_lane_state *lane = trouble->kind == GEMS_TROUBLE_NONE ? gems_state_lane(lane_name, trouble) : NULL;
    if (!lane)
        return NULL;
    uint64_t hash = gems_hash_long(7, id, n);

    pthread_mutex_lock(&lane->build_lock);
    gems_kernel *kernel = map_find(atomic_load(&lane->kernels), hash, id, n); /* another thread may have been here */
    if (kernel) {
        if (usable(kernel, &again, trouble) && again) {
            build_kernel(kernel, text, trouble);
            if (trouble->kind == GEMS_TROUBLE_NONE)
                atomic_store(&kernel->rests_until, 0);
        }
    } else if (!(kernel = kernel_new(lane, hash, id, n, text))) {
        gems_trouble_note(trouble, GEMS_TROUBLE_MEMORY, "out of memory");
    } else {
        build_kernel(kernel, text, trouble);
        if (!map_add(lane, kernel)) /* only now may others see it; without a place it is built again next time */
            gems_log("out of memory: kernel %s is not remembered", text->entry);
    }
    pthread_mutex_unlock(&lane->build_lock);
    return trouble->kind == GEMS_TROUBLE_NONE ? kernel : NULL;
}
