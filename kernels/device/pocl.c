/* PoCL: what it loads, it loads alone; and where it builds.
 *
 * PoCL loads a kernel anew for every work-group size, for every grid wider than all before, and for the binary that it
 * hands out, and counts the users of each such variant. What a finished launch gives back, however, is a use of the
 * kernel's newest variant and not of the one it took (3.1 to 5.0: pocl_release_dlhandle_cache compares fewer fields
 * than the lookup). Where a variant is added while another one of the same kernel runs, a count falls below zero, and
 * an assertion ends the process.
 *
 * So launches that may load something, and requests for binaries, run alone: nothing else of ours runs meanwhile. All
 * others share. That is one lock for the process, because PoCL's list is one; it holds nobody up who would not wait in
 * PoCL, whose own lock is held for as long as it compiles. A job holds its share until its commands have ended, and
 * waits for nothing but those while it does.
 *
 * Of many variants PoCL drops the ones unused for longest and loads them again when they are launched. Launches of one
 * kernel then go one by one. */
#include "kernels/device/driver.h"
#include "kernels/device/pocl.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

/* PoCL keeps 128 variants, then drops unused ones of devices that count right (on its threaded one a launch counts
 * twice and is given back once). A program has up to five kernels, all of which are loaded when its binary is asked
 * for. */
#define LOADED_MOST 96
#define PER_BINARY  5

/* No pthread_rwlock_t: the share of a stream is given back by whichever thread waits for it. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned shares, waiting; /* waiting: to be alone; they come first */
    bool alone;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void share(void)
{
    pthread_mutex_lock(&gate.lock);
    while (gate.alone || gate.waiting)
        pthread_cond_wait(&gate.changed, &gate.lock);
    gate.shares++;
    pthread_mutex_unlock(&gate.lock);
}

static void shut_out(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.waiting++;
    while (gate.alone || gate.shares)
        pthread_cond_wait(&gate.changed, &gate.lock);
    gate.waiting--;
    gate.alone = true;
    pthread_mutex_unlock(&gate.lock);
}

static void let_go(void)
{
    pthread_mutex_lock(&gate.lock);
    if (gate.alone)
        gate.alone = false;
    else
        gate.shares--;
    if (!gate.shares)
        pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

/* Changed by those who are alone. */
static unsigned loaded; /* variants so far */
static struct {         /* before the launch that is under way */
    long linked;
    struct timespec time;
} before;

/* The largest grids that the kernel was launched with in work-groups of this size: from there down all is loaded. */
static gems_loaded *loaded_of(gems_kernel *kernel, const size_t local[3])
{
    for (unsigned i = 0; i < GEMS_LOADED; i++) {
        gems_loaded *v = &kernel->loaded[i];
        if (!v->local[0] || (v->local[0] == local[0] && v->local[1] == local[1] && v->local[2] == local[2]))
            return v;
    }
    return NULL;
}

static bool is_loaded(gems_kernel *kernel, const size_t local[3], const size_t global[3])
{
    const gems_loaded *v = loaded_of(kernel, local);
    return v && v->local[0] && (global[0] > global[1] ? global[0] : global[1]) <= v->width && global[2] <= v->depth;
}

/* Whether PoCL may have dropped the kernel meanwhile. */
static bool may_be_dropped(const gems_lane_state *lane)
{
    return loaded > LOADED_MOST && gems_vendor_has_prefix(lane->vendor->small_devices, lane->info.name);
}

static void settled(gems_queue *queue)
{
    if (queue->only)
        pthread_mutex_unlock(&queue->only->one_by_one);
    queue->only = NULL;
    if (queue->hold != GEMS_HOLD_NONE)
        let_go();
    if (queue->hold == GEMS_HOLD_ALONE)
        atomic_fetch_sub(&gems_state_building, 1);
    queue->hold = GEMS_HOLD_NONE;
}

/* Waits until nothing else of ours runs. A stream keeps its share while its commands run, and perhaps nobody ever waits
 * for those: here they are waited for. `queue` is the caller's, or NULL. */
static void lock_alone(const gems_queue *queue)
{
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};
    gems_lane_state *rested[GEMS_LANE_COUNT] = {NULL};
    unsigned n = 0;
    for (gems_lane l = 0; l < GEMS_LANE_COUNT; l++) {
        gems_lane_state *lane = gems_state_lane(l, &trouble);
        if (!lane || (queue && queue->index == GEMS_MAX_QUEUES && queue->lane == lane) || rested[0] == lane)
            continue;
        pthread_mutex_lock(&lane->stream_lock);
        if (lane->stream)
            (void)gems_queue_settle(lane->stream);
        rested[n++] = lane;
    }
    shut_out();
    while (n > 0)
        pthread_mutex_unlock(&rested[--n]->stream_lock);
}

static bool be_alone(gems_queue *queue, gems_trouble *trouble)
{
    char why[150];
    if (!gems_pocl_may_build(queue->lane->vendor, why, sizeof why)) {
        gems_trouble_note(trouble, GEMS_TROUBLE_MEMORY, "%s", why);
        return false;
    }
    (void)gems_queue_wait(queue); /* a failure is the queue's */
    settled(queue);
    atomic_fetch_add(&gems_state_building, 1);
    lock_alone(queue);
    queue->hold = GEMS_HOLD_ALONE;
    return queue->trouble.kind == GEMS_TROUBLE_NONE;
}

/* ---- what PoCL compiles is kept ---- */

/* Pages that processes which have ended touched: more when PoCL's linker has run. */
static long linked(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_CHILDREN, &usage) == 0 ? usage.ru_minflt : 0;
}

static char *key_of_variant(const gems_kernel *kernel, const size_t local[3])
{
    char *key = NULL;
    return asprintf(&key, "%s\n%s for groups of %zu %zu %zu", kernel->program->key, kernel->entry, local[0], local[1],
                    local[2]) < 0
               ? NULL
               : key;
}

/* Code for work-groups of that size, unless it was kept in the program's binary. */
static void bring_variant(gems_kernel *kernel, const size_t local[3])
{
    const gems_loaded *v = loaded_of(kernel, local);
    if (!gems_cache_dir() || (v && v->local[0]))
        return;
    char *key = key_of_variant(kernel, local);
    if (key)
        (void)gems_pocl_bring(key);
    free(key);
}

/* After a launch that loaded something: if that was compiled. */
static void keep_variant(gems_kernel *kernel, const size_t local[3])
{
    char *key, *pattern = NULL;
    if (!gems_cache_dir() || linked() == before.linked)
        return;
    if (asprintf(&pattern, "*/*/%s/%zu-%zu-%zu*/*.so", kernel->entry, local[0], local[1], local[2]) < 0)
        return;
    if ((key = key_of_variant(kernel, local)))
        (void)gems_pocl_keep(key, pattern, &before.time);
    free(key);
    free(pattern);
}

/* The compiled source is kept, too: a binary takes as long again and may never be asked for (save.c), and starting from
 * the compiled source takes tens of milliseconds where a build takes hundreds. One program at a time, as PoCL compiles.
 */
static pthread_mutex_t one_build = PTHREAD_MUTEX_INITIALIZER;
static struct timespec build_began;

static char *key_of_program(const gems_program *program)
{
    char *key = NULL;
    return asprintf(&key, "%s\nas compiled", program->key) < 0 ? NULL : key;
}

static void before_build(gems_program *program)
{
    char *key;
    pthread_mutex_lock(&one_build);
    if (gems_cache_dir() && (key = key_of_program(program))) {
        program->cached = gems_pocl_bring(key);
        free(key);
    }
    clock_gettime(CLOCK_REALTIME_COARSE, &build_began); /* the clock of files */
}

static void after_build(gems_program *program, bool built)
{
    char *key;
    program->kept = program->cached;
    if (built && gems_cache_dir() && !program->cached && (key = key_of_program(program))) {
        program->kept = gems_pocl_keep(key, "*/*/program.bc", &build_began);
        free(key);
    }
    pthread_mutex_unlock(&one_build);
}

/* ---- launches ---- */

static bool before_launch(gems_queue *queue, gems_kernel *kernel, const size_t local[3], const size_t global[3])
{
    if (queue->hold == GEMS_HOLD_ALONE)
        return true;
    if (queue->hold == GEMS_HOLD_NONE)
        share();
    queue->hold = GEMS_HOLD_SHARED;
    if (is_loaded(kernel, local, global)) {
        if (may_be_dropped(queue->lane)) {
            (void)gems_queue_wait(queue); /* nobody waits with a launch under way */
            pthread_mutex_lock(&kernel->one_by_one);
            queue->only = kernel;
        }
        return queue->trouble.kind == GEMS_TROUBLE_NONE;
    }
    if (!be_alone(queue, &queue->trouble)) {
        gems_kernel_failed(kernel, &queue->trouble); /* asking again for every call would cost more than the call */
        return false;
    }
    loaded++;
    bring_variant(kernel, local);
    before.linked = linked();
    clock_gettime(CLOCK_REALTIME_COARSE, &before.time);
    return true;
}

static void after_launch(gems_queue *queue, gems_kernel *kernel, const size_t local[3], const size_t global[3])
{
    if (queue->hold != GEMS_HOLD_ALONE && !queue->only)
        return;
    bool done = gems_queue_wait(queue);
    gems_loaded *v = done && queue->hold == GEMS_HOLD_ALONE ? loaded_of(kernel, local) : NULL;
    if (v) {
        size_t width = global[0] > global[1] ? global[0] : global[1];
        for (int d = 0; d < 3; d++)
            v->local[d] = local[d];
        v->width = width > v->width ? width : v->width;
        v->depth = global[2] > v->depth ? global[2] : v->depth;
        keep_variant(kernel, local);
    }
    settled(queue);
}

static bool alone(gems_queue *queue)
{
    if (!be_alone(queue, &queue->trouble))
        return false;
    loaded = LOADED_MOST + 1; /* nobody knows what will be loaded */
    return true;
}

static void begin_binary(void)
{
    atomic_fetch_add(&gems_state_building, 1);
    lock_alone(NULL);
    loaded += PER_BINARY;
}

static void end_binary(void)
{
    let_go();
    atomic_fetch_sub(&gems_state_building, 1);
}

static char *environment(unsigned i)
{
    const char *folder = gems_pocl_folder(); /* whatever the user's variable says: its content is not ours to trust */
    const int threads = gems_open_threads();
    char *entry = NULL;
    i += !folder;
    if (i == 0)
        return asprintf(&entry, "POCL_CACHE_DIR=%s", folder) >= 0 ? entry : NULL;
    if (i == 1 && threads > 0 && !getenv("POCL_MAX_PTHREAD_COUNT"))
        return asprintf(&entry, "POCL_MAX_PTHREAD_COUNT=%d", threads) >= 0 ? entry : NULL;
    return NULL;
}

static const char *const libraries[] = {"libpocl", "libLLVM", "libclang", NULL};

GEMS_DRIVER(pocl) = {.vendor = "pocl",
                     .libraries = libraries,
                     .may_build = gems_pocl_may_build,
                     .environment = environment,
                     .before_build = before_build,
                     .after_build = after_build,
                     .before_launch = before_launch,
                     .after_launch = after_launch,
                     .alone = alone,
                     .settled = settled,
                     .begin_binary = begin_binary,
                     .end_binary = end_binary,
                     /* It marks a command as failed only where it could not be started. */
                     .undoes = true};
