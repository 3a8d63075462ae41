/* Queues: taking one, launching, transfers, waiting.
 *
 * A queue that has failed leaves nothing behind: when it is settled nothing of it runs any more. A wait may fail for
 * reasons of its own while the command runs on, so a doubtful one is asked again until the command has an end. */
#include "kernels/device/driver.h"
#include "preload/base/log.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CPU_MAX_GROUP 64                  /* work-items in a group chosen here for a CPU */
#define FLUSH_FROM    ((size_t)256 << 10) /* bytes of a transfer: a flush takes as long as it does */

/* ---- taking ---- */

static gems_queue *queue_new(gems_lane_state *lane, unsigned index, cl_int *error)
{
    gems_queue *queue = calloc(1, sizeof *queue);
    *error = CL_OUT_OF_HOST_MEMORY;
    if (!queue)
        return NULL;
    queue->index = index;
    queue->lane = lane;
    atomic_init(&queue->busy, true);
    queue->plain = CL_NEW(error, clCreateCommandQueue, lane->context, lane->device, 0);
    if (queue->plain)
        return queue;
    free(queue);
    return NULL;
}

static bool try_queue(gems_queue *queue)
{
    return !atomic_load_explicit(&queue->busy, memory_order_relaxed) &&
           !atomic_exchange_explicit(&queue->busy, true, memory_order_acquire);
}

static gems_queue *find_queue(gems_lane_state *lane)
{
    unsigned n = atomic_load_explicit(&lane->nqueues, memory_order_acquire);
    for (unsigned i = 0; i < n; i++)
        if (try_queue(lane->queue[i]))
            return lane->queue[i];
    return NULL;
}

/* A free queue, a new one, or, when all are taken, the next one that is given back. */
static gems_queue *take_slowly(gems_lane_state *lane, cl_int *error)
{
    gems_queue *queue;

    pthread_mutex_lock(&lane->queue_lock);
    atomic_fetch_add(&lane->waiting, 1);
    while (!(queue = find_queue(lane))) {
        unsigned n = atomic_load(&lane->nqueues);
        if (n < lane->vendor->queues) {
            queue = queue_new(lane, n, error);
            if (queue) {
                lane->queue[n] = queue;
                atomic_store_explicit(&lane->nqueues, n + 1, memory_order_release);
            }
            break;
        }
        pthread_cond_wait(&lane->queue_free, &lane->queue_lock);
    }
    atomic_fetch_sub(&lane->waiting, 1);
    pthread_mutex_unlock(&lane->queue_lock);
    return queue;
}

static gems_queue *take(gems_lane_state *lane, cl_int *error)
{
    /* A thread mostly gets the queue it had: that one and its kernels are warm. */
    static __thread gems_queue *last[GEMS_LANE_COUNT];

    if (last[lane->index] && try_queue(last[lane->index]))
        return last[lane->index];
    gems_queue *queue = take_slowly(lane, error);
    if (queue)
        last[lane->index] = queue;
    return queue;
}

static gems_queue *take_stream(gems_lane_state *lane, cl_int *error)
{
    pthread_mutex_lock(&lane->stream_lock);
    if (!lane->stream)
        lane->stream = queue_new(lane, GEMS_MAX_QUEUES, error);
    if (!lane->stream)
        pthread_mutex_unlock(&lane->stream_lock);
    return lane->stream;
}

/* Chooses between the two: the one that measures if that is wanted and can be had. */
static void choose(gems_queue *queue, bool timed)
{
    cl_int error;
    if (timed && !queue->timed)
        queue->timed =
            CL_NEW(&error, clCreateCommandQueue, queue->lane->context, queue->lane->device, CL_QUEUE_PROFILING_ENABLE);
    cl_command_queue chosen = timed && queue->timed ? queue->timed : queue->plain;
    if (queue->left && chosen != queue->queue)
        (void)gems_queue_settle(queue);
    queue->queue = chosen;
}

static gems_queue *begin(gems_lane lane_name, gems_queue *(*take_one)(gems_lane_state *, cl_int *), bool timed,
                         gems_trouble *trouble)
{
    cl_int error = CL_SUCCESS;
    int cancel_state;
    gems_lane_state *lane = gems_state_lane(lane_name, trouble);

    if (!lane)
        return NULL;
    /* A thread that is cancelled must not take a queue, a lock of the driver's or the driver's with it. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    atomic_fetch_add(&gems_state_queues, 1);
    gems_queue *queue = NULL;
    if (gems_state_now() == GEMS_STATE_OPEN) /* asked again, now that the end of the process would wait for us */
        queue = take_one(lane, &error);
    if (!queue) {
        atomic_fetch_sub(&gems_state_queues, 1);
        pthread_setcancelstate(cancel_state, NULL);
        if (error == CL_SUCCESS)
            gems_trouble_note(trouble, GEMS_TROUBLE_NO_DEVICE, "%s", gems_device_error());
        else
            gems_trouble_note(trouble, GEMS_TROUBLE_OTHER, "clCreateCommandQueue: %s", gems_cl_error(error));
        return NULL;
    }
    queue->cancel_state = cancel_state;
    queue->trouble = (gems_trouble){.kind = GEMS_TROUBLE_NONE};
    queue->kernel = NULL;
    queue->unsaved = NULL;
    queue->device_ns = 0;
    choose(queue, timed);
    return queue;
}

gems_queue *gems_queue_take(gems_lane lane, bool timed, gems_trouble *trouble)
{
    return begin(lane, take, timed, trouble);
}

gems_queue *gems_queue_take_stream(gems_lane lane, bool timed, gems_trouble *trouble)
{
    return begin(lane, take_stream, timed, trouble);
}

/* The next one may have it. `unsaved` is saved then, or NULL. */
static void end(gems_queue *queue, gems_program *unsaved)
{
    gems_lane_state *lane = queue->lane;
    int cancel_state = queue->cancel_state;

    if (queue == lane->stream)
        pthread_mutex_unlock(&lane->stream_lock);
    else
        atomic_store(&queue->busy, false);
    if (atomic_load(&lane->waiting) > 0) {
        pthread_mutex_lock(&lane->queue_lock);
        pthread_cond_signal(&lane->queue_free);
        pthread_mutex_unlock(&lane->queue_lock);
    }
    if (unsaved)
        gems_program_save(unsaved);
    atomic_fetch_sub(&gems_state_queues, 1);
    pthread_setcancelstate(cancel_state, NULL);
}

void gems_queue_give(gems_queue *queue)
{
    bool ran = gems_queue_settle(queue) && queue->kernel;
    if (ran && atomic_load_explicit(&queue->kernel->short_of_memory, memory_order_relaxed))
        atomic_store(&queue->kernel->short_of_memory, 0);
    end(queue, ran ? queue->unsaved : NULL);
}

bool gems_queue_may_be_left(const gems_queue *queue)
{
    return queue->trouble.kind == GEMS_TROUBLE_NONE && queue->queue != queue->timed && !queue->unsaved &&
           queue->hold != GEMS_HOLD_ALONE;
}

void gems_queue_leave(gems_queue *queue)
{
    queue->left = true;
    end(queue, NULL);
}

void gems_queue_rest(gems_lane lane)
{
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};
    gems_queue *queue = gems_queue_take_stream(lane, false, &trouble);
    if (queue)
        gems_queue_give(queue);
}

gems_trouble *gems_queue_trouble(gems_queue *queue)
{
    return &queue->trouble;
}

static bool fail(gems_queue *queue, const char *function, const char *what, cl_int error)
{
    gems_trouble_note(&queue->trouble, gems_cl_error_is_memory(error) ? GEMS_TROUBLE_MEMORY : GEMS_TROUBLE_OTHER,
                      "%s(%s): %s", function, what, gems_cl_error(error));
    queue->trouble.code = queue->trouble.code ? queue->trouble.code : error;
    return false;
}

/* Remembers the last command queued. Takes the event over. */
static void set_last(gems_queue *queue, cl_event event)
{
    if (queue->last)
        CL_SURE(clReleaseEvent, queue->last);
    queue->last = event;
}

/* ---- time on the device ---- */

/* If the queue measures, remembers a kernel's event. */
static void time_kernel(gems_queue *queue, cl_event event)
{
    if (queue->queue != queue->timed)
        return;
    if (queue->nkernels == queue->kernel_room) {
        unsigned room = queue->kernel_room ? 2 * queue->kernel_room : 8;
        cl_event *more = realloc(queue->kernels, room * sizeof *more);
        if (!more)
            return;
        queue->kernels = more;
        queue->kernel_room = room;
    }
    if (CL(clRetainEvent, event) == CL_SUCCESS)
        queue->kernels[queue->nkernels++] = event;
}

/* Adds up what the kernels took. They have run. */
static void note_time(gems_queue *queue)
{
    for (unsigned i = 0; i < queue->nkernels; i++) {
        cl_ulong start = 0, end = 0;
        if (CL(clGetEventProfilingInfo, queue->kernels[i], CL_PROFILING_COMMAND_START, sizeof start, &start, NULL) ==
                CL_SUCCESS &&
            CL(clGetEventProfilingInfo, queue->kernels[i], CL_PROFILING_COMMAND_END, sizeof end, &end, NULL) ==
                CL_SUCCESS &&
            end > start)
            queue->device_ns += (double)(end - start);
        CL_SURE(clReleaseEvent, queue->kernels[i]);
    }
    queue->nkernels = 0;
}

double gems_queue_device_ns(gems_queue *queue)
{
    return queue->device_ns;
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

/* A buffer and a byte in it. What the host can address is given as the address of that byte. */
static cl_int set_place(gems_clone *clone, cl_uint i, const gems_bound *arg)
{
    void *handle = arg->buffer ? gems_buffer_handle(arg->buffer) : NULL;
    int64_t at = handle ? (int64_t)arg->n : 0;
    const char *address = arg->buffer ? gems_buffer_host(arg->buffer) : arg->p;
    address += handle ? 0 : arg->n;
    cl_int error = handle ? CL(clSetKernelArg, clone->kernel, i, sizeof(cl_mem), &handle)
                          : set_cached(clone, i, &address, sizeof address, true);
    return error == CL_SUCCESS ? set_cached(clone, i + 1, &at, sizeof at, false) : error;
}

static cl_int set_arguments(gems_clone *clone, const gems_bound *args, int nargs)
{
    cl_int error = CL_SUCCESS;
    cl_uint i = 0;
    for (int k = 0; k < nargs && error == CL_SUCCESS; k++, i++)
        switch (args[k].kind) {
        case GEMS_BOUND_PLACE:
            error = set_place(clone, i++, &args[k]);
            break;
        case GEMS_BOUND_VALUE:
            error = set_cached(clone, i, args[k].p, args[k].n, false);
            break;
        case GEMS_BOUND_LOCAL:
            error = CL(clSetKernelArg, clone->kernel, i, args[k].n, NULL);
            break;
        }
    return error;
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

void gems_queue_launch(gems_queue *queue, gems_kernel *kernel, int dims, const size_t *global, const size_t *local,
                       const gems_bound *args, int nargs)
{
    cl_int error = CL_SUCCESS;
    size_t whole[3] = {1, 1, 1}, group[3] = {1, 1, 1};
    const gems_driver *driver = queue->lane->vendor->driver;

    if (queue->trouble.kind != GEMS_TROUBLE_NONE)
        return;
    if (kernel->lane != queue->lane) {
        gems_trouble_note(&queue->trouble, GEMS_TROUBLE_OTHER, "a kernel of the other lane was launched");
        return;
    }
    for (int i = 0; i < dims; i++) {
        whole[i] = global[i];
        group[i] = local ? local[i] : 1;
        if (global[i] == 0)
            return;
    }
    gems_clone *clone = gems_program_clone(kernel, queue->index, &error);
    if (!clone) {
        fail(queue, "clCreateKernel", kernel->entry, error);
        return;
    }
    if ((error = set_arguments(clone, args, nargs)) != CL_SUCCESS) {
        fail(queue, "clSetKernelArg", kernel->entry, error);
        gems_kernel_failed(kernel, &queue->trouble);
        return;
    }
    if (!local && queue->lane->info.is_cpu) {
        group[0] = cpu_group(queue->lane, global[0]);
        local = group;
    }
    if (driver && driver->before_launch && !driver->before_launch(queue, kernel, group, whole))
        return;
    /* Nobody waits for one launch of a stream: that there is no event for it saves some of the driver's time. */
    const bool silent = queue == queue->lane->stream && queue->queue == queue->plain;
    cl_event event = NULL;
    error = CL(clEnqueueNDRangeKernel, queue->queue, clone->kernel, (cl_uint)dims, NULL, global, local, 0, NULL,
               silent ? NULL : &event);
    if (error != CL_SUCCESS) {
        fail(queue, "clEnqueueNDRangeKernel", kernel->entry, error);
        gems_kernel_failed(kernel, &queue->trouble);
        return;
    }
    queue->silent |= silent;
    if (!silent) {
        time_kernel(queue, event);
        set_last(queue, event);
    }
    queue->kernel = kernel;
    if (kernel->program->unsaved)
        queue->unsaved = kernel->program;
    if (driver && driver->after_launch)
        driver->after_launch(queue, kernel, group, whole);
}

/* ---- transfers ---- */

/* gems_mark is a cl_event with a reference of its own. */
static void transferred(gems_queue *queue, const char *function, cl_int error, cl_event event, size_t n,
                        gems_mark **mark)
{
    if (error != CL_SUCCESS) {
        fail(queue, function, "", error);
        return;
    }
    set_last(queue, event);
    if (mark) {
        CL_SURE(clRetainEvent, event);
        if (*mark)
            CL_SURE(clReleaseEvent, (cl_event)*mark);
        *mark = (gems_mark *)event;
        if (n >= FLUSH_FROM) /* so that it begins now, while the host goes on */
            CL_SURE(clFlush, queue->queue);
    }
}

void gems_queue_write(gems_queue *queue, gems_buffer *buffer, size_t offset, const void *from, size_t n,
                      gems_mark **mark)
{
    cl_event event = NULL;
    if (queue->trouble.kind != GEMS_TROUBLE_NONE || n == 0)
        return;
    cl_int error =
        CL(clEnqueueWriteBuffer, queue->queue, gems_buffer_handle(buffer), CL_FALSE, offset, n, from, 0, NULL, &event);
    transferred(queue, "clEnqueueWriteBuffer", error, event, n, mark);
}

void gems_queue_read(gems_queue *queue, gems_buffer *buffer, size_t offset, void *to, size_t n, gems_mark **mark)
{
    cl_event event = NULL;
    if (queue->trouble.kind != GEMS_TROUBLE_NONE || n == 0)
        return;
    cl_int error =
        CL(clEnqueueReadBuffer, queue->queue, gems_buffer_handle(buffer), CL_FALSE, offset, n, to, 0, NULL, &event);
    transferred(queue, "clEnqueueReadBuffer", error, event, n, mark);
}

/* ---- another library's work ---- */

int gems_queue_use(gems_queue *queue, int (*use)(void *, void *, void *), void *arg)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    const gems_driver *driver = queue->lane->vendor->driver;
    cl_event event = NULL;

    if (queue->trouble.kind != GEMS_TROUBLE_NONE)
        return GEMS_QUEUE_UNUSED;
    /* What an earlier launch wrote to the host's memory is there before a buffer stands for it. */
    if (queue->lane->info.unified && !gems_queue_wait(queue))
        return GEMS_QUEUE_UNUSED;
    if (driver && driver->alone && !driver->alone(queue)) /* nobody knows what it launches */
        return GEMS_QUEUE_UNUSED;
    atomic_fetch_add(&gems_state_building, 1);
    pthread_mutex_lock(&one_at_a_time);
    int answer = gems_cl_fault() ? CL_OUT_OF_RESOURCES : use(arg, queue->queue, &event);
    pthread_mutex_unlock(&one_at_a_time);
    atomic_fetch_sub(&gems_state_building, 1);
    if (!event)
        (void)CL_SURE(clFinish, queue->queue); /* kernels of a part of the work may be on their way */
    else {
        time_kernel(queue, event); /* of its last kernel */
        set_last(queue, event);
    }
    return answer;
}

/* Once a result may have been written there is no way back to the host's own call, so a failure is asked again. */
void gems_queue_show(gems_queue *queue, gems_buffer *buffer, size_t offset, size_t n)
{
    cl_event event = NULL;
    cl_int error = CL_SUCCESS;
    cl_mem mem = gems_buffer_handle(buffer);
    if (queue->trouble.kind != GEMS_TROUBLE_NONE)
        return;
    void *mapped =
        CL_NEW(&error, clEnqueueMapBuffer, queue->queue, mem, CL_FALSE, CL_MAP_READ, offset, n, 0, NULL, &event);
    if (!mapped)
        mapped =
            gems_cl.clEnqueueMapBuffer(queue->queue, mem, CL_FALSE, CL_MAP_READ, offset, n, 0, NULL, &event, &error);
    if (!mapped) {
        fail(queue, "clEnqueueMapBuffer", "", error);
        return;
    }
    queue->mapped = mapped;
    queue->mapped_mem = mem;
    set_last(queue, event);
}

/* ---- waiting ---- */

/* Waits for a command, until it has ended, well or not. */
static cl_int await(cl_event event, cl_command_queue queue)
{
    cl_int error = CL(clWaitForEvents, 1, &event), status = CL_QUEUED;

    if (__builtin_expect(error == CL_SUCCESS, 1))
        return CL_SUCCESS;
    if (queue)
        (void)CL_SURE(clFinish, queue);
    while (CL_SURE(clGetEventInfo, event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL) ==
               CL_SUCCESS &&
           status > CL_COMPLETE)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return status == CL_COMPLETE ? CL_SUCCESS : error;
}

bool gems_mark_await(gems_mark *mark, gems_trouble *trouble)
{
    cl_event event = (cl_event)mark;
    if (!event)
        return true;
    cl_int error = await(event, NULL);
    CL_SURE(clReleaseEvent, event);
    if (error != CL_SUCCESS)
        gems_trouble_note(trouble, GEMS_TROUBLE_OTHER, "clWaitForEvents(transfer): %s", gems_cl_error(error));
    return error == CL_SUCCESS;
}

/* Waits until nothing of the queue runs. The first error. */
static cl_int await_all(gems_queue *queue)
{
    cl_int error = CL_SUCCESS;
    if (queue->silent) {
        error = CL(clFinish, queue->queue);
        if (error != CL_SUCCESS) /* the wait may have failed alone: what has ended badly says so again */
            error = CL_SURE(clFinish, queue->queue);
        queue->silent = false;
    }
    if (!queue->last)
        return error;
    cl_int last = await(queue->last, queue->queue);
    return error != CL_SUCCESS ? error : last;
}

bool gems_queue_wait(gems_queue *queue)
{
    cl_int error = await_all(queue);
    if (error != CL_SUCCESS) {
        fail(queue, "clWaitForEvents", queue->kernel ? queue->kernel->entry : "transfer", error);
        if (queue->kernel)
            gems_kernel_failed(queue->kernel, &queue->trouble);
    }
    return error == CL_SUCCESS;
}

bool gems_queue_settle(gems_queue *queue)
{
    const gems_driver *driver = queue->lane->vendor->driver;
    if (queue->last || queue->silent) {
        bool done = queue->trouble.kind == GEMS_TROUBLE_NONE ? gems_queue_wait(queue) : await_all(queue) == CL_SUCCESS;
        if (queue->left && !done) {
            gems_complain("%s failed, and with it tensors whose values were there alone: %s", queue->lane->info.name,
                          queue->trouble.text);
            abort();
        }
        set_last(queue, NULL);
    }
    queue->left = false;
    if (driver && driver->settled)
        driver->settled(queue);
    if (queue->mapped)
        CL_SURE(clEnqueueUnmapMemObject, queue->queue, queue->mapped_mem, queue->mapped, 0, NULL, NULL);
    queue->mapped = NULL;
    if (queue->nkernels)
        note_time(queue);
    return queue->trouble.kind == GEMS_TROUBLE_NONE;
}

bool gems_queue_alive(gems_queue *queue)
{
    int word = 0;
    cl_int error;
    cl_mem mem = CL_NEW(&error, clCreateBuffer, queue->lane->context, CL_MEM_READ_WRITE, sizeof word, NULL);
    if (!mem)
        return false;
    error = CL(clEnqueueWriteBuffer, queue->queue, mem, CL_TRUE, 0, sizeof word, &word, 0, NULL, NULL);
    CL_SURE(clReleaseMemObject, mem);
    return error == CL_SUCCESS;
}
