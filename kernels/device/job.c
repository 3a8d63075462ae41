/* Jobs: taking a seat, launching, waiting, bringing results back.
 *
 * After a failure the host runs the call again, so a failed job leaves what the host sees as it was: nothing of it may
 * be running any more when it ends, and where results were already written (unified memory), a doubtful wait is asked
 * again before it counts as a failure. */
#include "kernels/device/internal.h"
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOST_AFTER    16    /* failed jobs in a row: the device is given up */
#define SETTLE_MS     10000 /* how long a job with a failed wait may take to reach an end */
#define CPU_MAX_GROUP 64    /* work-items in a group chosen here for a CPU */

static atomic_int failures_in_a_row;
static atomic_int timing = -1; /* -1: as GEMS_REPORT says */

/* ---- seats ---- */

static gems_seat *seat_new(gems_lane_state *lane, unsigned index, cl_int *error)
{
    gems_seat *seat = calloc(1, sizeof *seat);
    *error = CL_OUT_OF_HOST_MEMORY;
    if (!seat)
        return NULL;
    seat->index = index;
    atomic_init(&seat->busy, true);
    seat->queue = CL_NEW(error, clCreateCommandQueue, lane->context, lane->device, 0);
    if (seat->queue)
        return seat;
    free(seat);
    return NULL;
}

static bool try_seat(gems_seat *seat)
{
    return !atomic_load_explicit(&seat->busy, memory_order_relaxed) &&
           !atomic_exchange_explicit(&seat->busy, true, memory_order_acquire);
}

static gems_seat *find_seat(gems_lane_state *lane)
{
    unsigned n = atomic_load_explicit(&lane->nseats, memory_order_acquire);
    for (unsigned i = 0; i < n; i++)
        if (try_seat(lane->seat[i]))
            return lane->seat[i];
    return NULL;
}

/* A free seat, a new one, or, when all are taken, the next one that is given back. */
static gems_seat *take_seat_slowly(gems_lane_state *lane, cl_int *error)
{
    gems_seat *seat;

    pthread_mutex_lock(&lane->seat_lock);
    atomic_fetch_add(&lane->waiting, 1);
    while (!(seat = find_seat(lane))) {
        unsigned n = atomic_load(&lane->nseats);
        if (n < lane->vendor->seats) {
            seat = seat_new(lane, n, error);
            if (seat) {
                lane->seat[n] = seat;
                atomic_store_explicit(&lane->nseats, n + 1, memory_order_release);
            }
            break;
        }
        pthread_cond_wait(&lane->seat_free, &lane->seat_lock);
    }
    atomic_fetch_sub(&lane->waiting, 1);
    pthread_mutex_unlock(&lane->seat_lock);
    return seat;
}

static gems_seat *take_seat(gems_lane_state *lane, cl_int *error)
{
    /* A thread mostly gets the seat it had: its queue and its kernels are warm. */
    static __thread gems_seat *last[GEMS_LANE_COUNT];

    if (last[lane->index] && try_seat(last[lane->index]))
        return last[lane->index];
    gems_seat *seat = take_seat_slowly(lane, error);
    if (seat)
        last[lane->index] = seat;
    return seat;
}

static void give_seat(gems_lane_state *lane, gems_seat *seat)
{
    atomic_store(&seat->busy, false);
    if (atomic_load(&lane->waiting) > 0) {
        pthread_mutex_lock(&lane->seat_lock);
        pthread_cond_signal(&lane->seat_free);
        pthread_mutex_unlock(&lane->seat_lock);
    }
}

/* ---- failures ---- */

static const char *operator_of(const gems_job *job)
{
    return job->call->op && job->call->op->name ? job->call->op->name : "call";
}

gems_status gems_job_fail(gems_job *job, const char *function, const char *what, cl_int error)
{
    if (gems_cl_error_is_memory(error)) /* some drivers allocate at first use */
        gems_memory_trim(job->lane);
    return job->status = gems_fail(job->call, "%s: %s(%s): %s", operator_of(job), function, what, gems_cl_error(error));
}

void gems_job_set_last(gems_job *job, cl_event event)
{
    if (job->last)
        CL_SURE(clReleaseEvent, job->last);
    job->last = event;
}

/* ---- time on the device ---- */

void gems_device_set_timing(bool on)
{
    atomic_store(&timing, on);
}

bool gems_device_timing(void)
{
    int wanted = atomic_load_explicit(&timing, memory_order_relaxed);
    return wanted < 0 ? gems_config_get()->report : wanted;
}

/* Chooses the job's queue: the one that measures if that is wanted and can be had. */
static void choose_queue(gems_job *job)
{
    gems_seat *seat = job->seat;
    cl_int error;

    job->timed = gems_device_timing();
    if (job->timed && !seat->timed_queue)
        seat->timed_queue =
            CL_NEW(&error, clCreateCommandQueue, job->lane->context, job->lane->device, CL_QUEUE_PROFILING_ENABLE);
    job->timed = job->timed && seat->timed_queue;
    job->queue = job->timed ? seat->timed_queue : seat->queue;
}

void gems_job_time(gems_job *job, cl_event event)
{
    if (!job->timed)
        return;
    if (job->nkernels == job->kernel_room) {
        unsigned room = job->kernel_room ? 2 * job->kernel_room : 8;
        cl_event *more = realloc(job->kernels, room * sizeof *more);
        if (!more)
            return;
        job->kernels = more;
        job->kernel_room = room;
    }
    if (CL(clRetainEvent, event) == CL_SUCCESS)
        job->kernels[job->nkernels++] = event;
}

/* Adds up what the kernels took. They have run. */
static void note_time(gems_job *job)
{
    for (unsigned i = 0; i < job->nkernels; i++) {
        cl_ulong start = 0, end = 0;
        if (CL(clGetEventProfilingInfo, job->kernels[i], CL_PROFILING_COMMAND_START, sizeof start, &start, NULL) ==
                CL_SUCCESS &&
            CL(clGetEventProfilingInfo, job->kernels[i], CL_PROFILING_COMMAND_END, sizeof end, &end, NULL) ==
                CL_SUCCESS &&
            end > start)
            job->call->device_ns += (double)(end - start);
        CL_SURE(clReleaseEvent, job->kernels[i]);
    }
    job->nkernels = 0;
}

/* ---- begin ---- */

/* Where loops end early (gems_device_info.short_loops): whether no work-item can have long ones, by the named sizes of
 * the call. Kernels for CPUs do up to all of a small call in one work-item. */
static bool loops_are_short(const gems_call *call)
{
    for (int i = 0; i < GEMS_SIZE_COUNT; i++) {
        int64_t most = i == GEMS_SIZE_NUMEL ? 8192 : i == GEMS_SIZE_BYTES ? INT64_MAX : 1024;
        if (call->sizes.v[i] > most)
            return false;
    }
    return true;
}

gems_job *gems_job_begin(gems_call *call, gems_lane lane_name)
{
    /* Stand for every job that could not begin; never written, since all functions leave a failed job alone. */
    static gems_job no_device = {.status = GEMS_DECLINED}, no_queue = {.status = GEMS_FAILED};
    gems_lane_state *lane = gems_open_lane(lane_name);
    cl_int error = CL_SUCCESS;

    if (!lane) {
        gems_decline(call, gems_device_error());
        return &no_device;
    }
    if (lane->info.short_loops && !loops_are_short(call)) {
        gems_decline(call, "the device ends long loops early");
        return &no_device;
    }
    /* A thread that is cancelled must not take a seat, a lock of the driver's or the guard with it. */
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    atomic_fetch_add(&gems_open_jobs, 1);
    gems_seat *seat = NULL;
    if (gems_device_open()) /* asked again, now that the end of the process would wait for this job */
        seat = take_seat(lane, &error);
    if (!seat) {
        atomic_fetch_sub(&gems_open_jobs, 1);
        pthread_setcancelstate(cancel_state, NULL);
        if (error == CL_SUCCESS) {
            gems_decline(call, gems_device_error());
            return &no_device;
        }
        gems_fail(call, "clCreateCommandQueue: %s", gems_cl_error(error));
        return &no_queue;
    }
    gems_job *job = &seat->job;
    job->call = call;
    job->lane = lane;
    job->seat = seat;
    job->cancel_state = cancel_state;
    job->status = GEMS_OK;
    choose_queue(job);
    return job;
}

const gems_device_info *gems_job_device(const gems_job *job)
{
    return job->lane ? &job->lane->info : gems_device_get(GEMS_LANE_MAIN);
}

int gems_job_scratch(gems_job *job, size_t bytes)
{
    cl_int error = CL_SUCCESS;

    if (job->status != GEMS_OK)
        return -1;
    if (job->nscratch == job->scratch_room) {
        unsigned room = job->scratch_room ? 2 * job->scratch_room : 4;
        gems_block **more = realloc(job->scratch, room * sizeof *more);
        if (!more) {
            job->status = gems_fail(job->call, "out of memory");
            return -1;
        }
        job->scratch = more;
        job->scratch_room = room;
    }
    gems_block *block = gems_memory_take(job->lane, bytes, &error);
    if (!block) {
        gems_job_fail(job, "clCreateBuffer", "scratch", error);
        return -1;
    }
    job->scratch[job->nscratch] = block;
    return (int)job->nscratch++;
}

/* ---- launch ---- */

/* Sets an argument of up to 16 bytes unless the kernel has that very value already. Only for values and plain
 * addresses: the handle of a buffer can return with another meaning. */
static cl_int set_cached(gems_clone *clone, cl_uint i, const void *value, size_t n, bool address)
{
    uint64_t v[2] = {0, 0};
    bool cached = i < GEMS_CACHED_ARGS && n <= sizeof v;

    if (cached) {
        memcpy(v, value, n);
        if (clone->arg[i].size == n && clone->arg[i].value[0] == v[0] && clone->arg[i].value[1] == v[1])
            return CL_SUCCESS;
        clone->arg[i].size = 0;
    }
    cl_int error = address ? CL(clSetKernelArgSVMPointer, clone->kernel, i, *(void *const *)value)
                           : CL(clSetKernelArg, clone->kernel, i, n, value);
    if (cached && error == CL_SUCCESS) {
        clone->arg[i].size = (uint8_t)n;
        clone->arg[i].value[0] = v[0];
        clone->arg[i].value[1] = v[1];
    }
    return error;
}

static cl_int set_block(gems_clone *clone, cl_uint i, const gems_block *block)
{
    if (block->host)
        return set_cached(clone, i, &block->host, sizeof block->host, true);
    return CL(clSetKernelArg, clone->kernel, i, sizeof block->mem, &block->mem);
}

static cl_int set_tensor(gems_job *job, gems_clone *clone, cl_uint i, const gems_arg *arg)
{
    const gems_tensor *tensor = arg->p;
    gems_span *span;

    if (gems_memory_acquire(job, tensor, arg->access, &span) != GEMS_OK)
        return CL_SUCCESS; /* the job says why */
    void *address = (void *)tensor->address;
    return span ? set_block(clone, i, span->block) : set_cached(clone, i, &address, sizeof address, true);
}

static cl_int set_argument(gems_job *job, gems_clone *clone, cl_uint i, const gems_arg *arg)
{
    switch (arg->kind) {
    case GEMS_ARG_TENSOR:
        return set_tensor(job, clone, i, arg);
    case GEMS_ARG_SCRATCH:
        return arg->n < job->nscratch ? set_block(clone, i, job->scratch[arg->n]) : CL_INVALID_ARG_VALUE;
    case GEMS_ARG_VALUE:
        return set_cached(clone, i, arg->p, arg->n, false);
    case GEMS_ARG_LOCAL:
        return CL(clSetKernelArg, clone->kernel, i, arg->n, NULL);
    }
    return CL_INVALID_ARG_VALUE;
}

/* CPU drivers compile a kernel anew for every work-group size, so the choice must not depend on the size of the launch
 * in too many ways: the largest power of two that divides it. */
static size_t cpu_group(const gems_lane_state *lane, size_t global)
{
    size_t n = global & -global;
    while (n > CPU_MAX_GROUP || n > lane->info.max_group)
        n >>= 1;
    return n;
}

void gems_launch(gems_job *job, gems_kernel *kernel, int dims, const size_t *global, const size_t *local,
                 const gems_arg *args, int nargs)
{
    cl_int error = CL_SUCCESS;
    size_t whole[3] = {1, 1, 1}, group[3] = {1, 1, 1};

    if (job->status != GEMS_OK)
        return;
    if (!kernel || kernel->lane != job->lane) {
        job->status = gems_fail(job->call, kernel ? "a kernel of the other lane was launched" : "no kernel to launch");
        return;
    }
    for (int i = 0; i < dims; i++) {
        whole[i] = global[i];
        group[i] = local ? local[i] : 1;
        if (global[i] == 0)
            return;
    }
    gems_clone *clone = gems_program_clone(kernel, job->seat->index, &error);
    if (!clone) {
        gems_job_fail(job, "clCreateKernel", kernel->entry, error);
        return;
    }
    for (int i = 0; i < nargs; i++) {
        error = set_argument(job, clone, (cl_uint)i, &args[i]);
        if (error != CL_SUCCESS) {
            gems_job_fail(job, "clSetKernelArg", kernel->entry, error);
            gems_program_failed(kernel, error, job->call->why);
        }
        if (job->status != GEMS_OK)
            return;
    }
    if (!local && job->lane->info.is_cpu) {
        group[0] = cpu_group(job->lane, global[0]);
        local = group;
    }
    gems_guard_begin(job, kernel, group, whole);
    if (job->status != GEMS_OK)
        return;
    cl_event event = NULL;
    error = CL(clEnqueueNDRangeKernel, job->queue, clone->kernel, (cl_uint)dims, NULL, global, local, 0, NULL, &event);
    if (error != CL_SUCCESS) {
        gems_job_fail(job, "clEnqueueNDRangeKernel", kernel->entry, error);
        gems_program_failed(kernel, error, job->call->why);
        return;
    }
    gems_job_time(job, event);
    gems_job_set_last(job, event);
    job->running = kernel;
    if (kernel->program->unsaved)
        job->unsaved = kernel->program;
    gems_guard_launched(job, kernel, group, whole);
}

/* ---- end ---- */

cl_int gems_job_await(cl_event event, cl_command_queue queue)
{
    cl_int error = CL(clWaitForEvents, 1, &event), status = CL_QUEUED;

    if (__builtin_expect(error == CL_SUCCESS, 1))
        return CL_SUCCESS;
    /* A wait may fail for reasons of its own while the command runs on. */
    if (queue)
        (void)CL_SURE(clFinish, queue);
    for (int ms = 0; ms < SETTLE_MS; ms++) {
        if (CL_SURE(clGetEventInfo, event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL) !=
                CL_SUCCESS ||
            status <= CL_COMPLETE)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return status == CL_COMPLETE ? CL_SUCCESS : error;
}

gems_status gems_job_wait(gems_job *job)
{
    cl_int error = job->last ? gems_job_await(job->last, job->queue) : CL_SUCCESS;

    if (error != CL_SUCCESS) {
        gems_job_fail(job, "clWaitForEvents", job->running ? job->running->entry : "transfer", error);
        if (job->running)
            gems_program_failed(job->running, error, job->call->why);
    }
    return job->status;
}

static void free_memory(gems_job *job)
{
    for (unsigned i = 0; i < job->nscratch; i++)
        gems_memory_give(job->lane, job->scratch[i]);
    for (unsigned i = 0; i < job->nspans; i++) {
        free(job->spans[i].landing);
        if (job->spans[i].block)
            gems_memory_give(job->lane, job->spans[i].block);
    }
    job->nscratch = job->nspans = 0;
}

/* Whether the device still does anything at all: after a fault in a kernel some drivers refuse all further work. */
static bool device_works(gems_job *job)
{
    int word = 0;
    cl_int error;
    cl_mem mem = CL_NEW(&error, clCreateBuffer, job->lane->context, CL_MEM_READ_WRITE, sizeof word, NULL);
    if (!mem)
        return false;
    error = CL(clEnqueueWriteBuffer, job->queue, mem, CL_TRUE, 0, sizeof word, &word, 0, NULL, NULL);
    CL_SURE(clReleaseMemObject, mem);
    return error == CL_SUCCESS;
}

static void note_outcome(gems_job *job)
{
    if (job->status == GEMS_OK) {
        if (atomic_load_explicit(&failures_in_a_row, memory_order_relaxed))
            atomic_store(&failures_in_a_row, 0);
    } else if (job->status == GEMS_FAILED && (atomic_fetch_add(&failures_in_a_row, 1) + 1) % LOST_AFTER == 0 &&
               !device_works(job)) {
        gems_log("%d calls in a row failed on %s, the last one: %s; the host runs everything from now on", LOST_AFTER,
                 job->lane->info.name, job->call->why);
        gems_open_stop("the device failed too often");
    }
}

gems_status gems_job_end(gems_job *job)
{
    gems_lane_state *lane = job->lane;
    if (!lane)
        return job->status;

    if (job->status == GEMS_OK && job->nspans)
        gems_memory_release(job);
    if (job->last) {
        if (job->status == GEMS_OK)
            gems_job_wait(job);
        else
            (void)gems_job_await(job->last, job->queue); /* nothing may touch the host's memory after this returns */
        CL_SURE(clReleaseEvent, job->last);
        job->last = NULL;
    }
    gems_guard_end(job);
    if (job->nkernels)
        note_time(job);
    if (job->nspans && job->status == GEMS_OK)
        gems_memory_land(job);
    if (job->nspans || job->nscratch)
        free_memory(job);
    if (job->nlent)
        gems_clblast_release(job);
    if (job->running && job->status == GEMS_OK) {
        if (atomic_load_explicit(&job->running->memory_failures, memory_order_relaxed))
            atomic_store(&job->running->memory_failures, 0);
        if (job->unsaved)
            gems_program_save(job->unsaved);
    }
    job->running = NULL;
    job->unsaved = NULL;
    note_outcome(job);
    gems_status status = job->status;
    int cancel_state = job->cancel_state;
    give_seat(lane, job->seat);
    atomic_fetch_sub(&gems_open_jobs, 1);
    pthread_setcancelstate(cancel_state, NULL);
    return status;
}
