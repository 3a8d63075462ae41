/* Keeping a driver's list of loaded kernels consistent ("loads": "alone").
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
#include "kernels/device/internal.h"

/* PoCL keeps 128 variants, then drops unused ones of devices that count right (on its threaded one a launch counts
 * twice and is given back once). A program has up to five kernels, all of which are loaded when its binary is asked
 * for. */
#define LOADED_MOST 96
#define PER_BINARY  5

static pthread_rwlock_t guard = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static unsigned loaded; /* variants so far; changed by those who are alone */

static bool wanted(const gems_lane_state *lane)
{
    return lane->vendor->loads_alone;
}

/* The largest grids that the kernel was launched with in work-groups of this size: from there down all is loaded. */
static gems_variant *variant_of(gems_kernel *kernel, const size_t local[3])
{
    for (unsigned i = 0; i < GEMS_VARIANTS; i++) {
        gems_variant *v = &kernel->variant[i];
        if (!v->local[0] || (v->local[0] == local[0] && v->local[1] == local[1] && v->local[2] == local[2]))
            return v;
    }
    return NULL;
}

static bool is_loaded(gems_kernel *kernel, const size_t local[3], const size_t global[3])
{
    const gems_variant *v = variant_of(kernel, local);
    return v && v->local[0] && (global[0] > global[1] ? global[0] : global[1]) <= v->width && global[2] <= v->depth;
}

/* Whether the driver may have dropped the kernel meanwhile. */
static bool may_be_dropped(const gems_lane_state *lane)
{
    return loaded > LOADED_MOST && gems_vendor_has_prefix(lane->vendor->small_devices, lane->info.name);
}

static void be_alone(gems_job *job)
{
    gems_job_wait(job); /* a failure is the job's */
    gems_guard_end(job);
    atomic_fetch_add(&gems_open_building, 1);
    pthread_rwlock_wrlock(&guard);
    job->guard = GEMS_GUARD_ALONE;
}

void gems_guard_begin(gems_job *job, gems_kernel *kernel, const size_t local[3], const size_t global[3])
{
    if (!wanted(job->lane))
        return;
    if (job->guard == GEMS_GUARD_ALONE)
        return;
    if (job->guard == GEMS_GUARD_NONE)
        pthread_rwlock_rdlock(&guard);
    job->guard = GEMS_GUARD_SHARED;
    if (is_loaded(kernel, local, global)) {
        if (may_be_dropped(job->lane)) {
            gems_job_wait(job); /* nobody waits with a launch under way */
            pthread_mutex_lock(&kernel->one_by_one);
            job->only = kernel;
        }
        return;
    }
    char why[200];
    if (!gems_needs_met(job->lane->vendor, why, sizeof why)) {
        job->status = gems_fail(job->call, "%s", why);
        gems_program_quarantine(kernel, why); /* asking again for every call would cost more than the call */
        return;
    }
    be_alone(job);
    loaded++;
}

void gems_guard_alone(gems_job *job)
{
    char why[200];
    if (!wanted(job->lane))
        return;
    if (!gems_needs_met(job->lane->vendor, why, sizeof why)) {
        job->status = gems_fail(job->call, "%s", why);
        return;
    }
    be_alone(job);
    loaded = LOADED_MOST + 1; /* nobody knows what will be loaded */
}

void gems_guard_launched(gems_job *job, gems_kernel *kernel, const size_t local[3], const size_t global[3])
{
    if (job->guard != GEMS_GUARD_ALONE && !job->only)
        return;
    bool done = gems_job_wait(job) == GEMS_OK;
    gems_variant *v = done && job->guard == GEMS_GUARD_ALONE ? variant_of(kernel, local) : NULL;
    if (v) {
        size_t width = global[0] > global[1] ? global[0] : global[1];
        for (int d = 0; d < 3; d++)
            v->local[d] = local[d];
        v->width = width > v->width ? width : v->width;
        v->depth = global[2] > v->depth ? global[2] : v->depth;
    }
    gems_guard_end(job);
}

void gems_guard_end(gems_job *job)
{
    if (job->only)
        pthread_mutex_unlock(&job->only->one_by_one);
    job->only = NULL;
    if (job->guard != GEMS_GUARD_NONE)
        pthread_rwlock_unlock(&guard);
    if (job->guard == GEMS_GUARD_ALONE)
        atomic_fetch_sub(&gems_open_building, 1);
    job->guard = GEMS_GUARD_NONE;
}

void gems_guard_lock(const gems_lane_state *lane)
{
    if (wanted(lane)) {
        atomic_fetch_add(&gems_open_building, 1);
        pthread_rwlock_wrlock(&guard);
        loaded += PER_BINARY;
    }
}

void gems_guard_unlock(const gems_lane_state *lane)
{
    if (wanted(lane)) {
        pthread_rwlock_unlock(&guard);
        atomic_fetch_sub(&gems_open_building, 1);
    }
}
