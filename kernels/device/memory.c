/* Memory of a lane: pooled blocks, and the spans of host memory that a job's kernels work on.
 *
 * Unified: a span is the host's own memory, nothing is done. Staged: a span has a block, filled when a kernel is to
 * read it and brought back when the job ends. Memory that stays on the device between jobs will go in between: acquire
 * finds the block that is there already, release leaves it where it is. */
#include "kernels/device/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- blocks ---- */

/* Sizes 256 * 2^k * (4 + j) / 4: at most a quarter is wasted, and neighbouring sizes share blocks. */
static unsigned class_of(size_t bytes, size_t *rounded)
{
    if (bytes <= 256) {
        *rounded = 256;
        return 0;
    }
    unsigned k = 63 - (unsigned)__builtin_clzll(bytes - 1); /* 2^k <= bytes - 1 */
    size_t step = (size_t)1 << (k - 2);
    size_t quarters = (bytes + step - 1) / step; /* 5 to 8 */
    *rounded = quarters * step;
    return (k - 8) * 4 + (unsigned)quarters - 4;
}

static void block_free(gems_block *block)
{
    if (block->mem)
        CL_SURE(clReleaseMemObject, block->mem);
    free(block->host);
    free(block);
}

void gems_memory_trim(gems_lane_state *lane)
{
    pthread_mutex_lock(&lane->pool_lock);
    for (unsigned i = 0; i < GEMS_POOL_CLASSES; i++)
        while (lane->pool[i]) {
            gems_block *block = lane->pool[i];
            lane->pool[i] = block->next;
            block_free(block);
        }
    lane->pool_bytes = 0;
    pthread_mutex_unlock(&lane->pool_lock);
}

static gems_block *block_new(gems_lane_state *lane, unsigned size_class, size_t bytes, cl_int *error)
{
    gems_block *block = calloc(1, sizeof *block);
    *error = CL_OUT_OF_HOST_MEMORY;
    if (!block)
        return NULL;
    block->bytes = bytes;
    block->size_class = size_class;
    if (lane->info.unified)
        block->host = aligned_alloc(64, bytes);
    else
        block->mem = CL_NEW(error, clCreateBuffer, lane->context, CL_MEM_READ_WRITE, bytes, NULL);
    if (block->host || block->mem)
        return block;
    free(block);
    return NULL;
}

gems_block *gems_memory_take(gems_lane_state *lane, size_t bytes, cl_int *error)
{
    size_t rounded;
    unsigned i = class_of(bytes, &rounded);

    if (i >= GEMS_POOL_CLASSES) {
        *error = CL_INVALID_BUFFER_SIZE;
        return NULL;
    }
    if (lane->vendor->exact)
        rounded = bytes ? bytes : 1;
    pthread_mutex_lock(&lane->pool_lock);
    gems_block *block = lane->pool[i];
    if (block) {
        lane->pool[i] = block->next;
        lane->pool_bytes -= block->bytes;
    }
    pthread_mutex_unlock(&lane->pool_lock);
    if (block || (block = block_new(lane, i, rounded, error)))
        return block;

    gems_memory_trim(lane); /* what lies unused may be what is missing */
    return block_new(lane, i, rounded, error);
}

void gems_memory_give(gems_lane_state *lane, gems_block *block)
{
    pthread_mutex_lock(&lane->pool_lock);
    bool keep = lane->pool_bytes + block->bytes <= lane->pool_limit;
    if (keep) {
        block->next = lane->pool[block->size_class];
        lane->pool[block->size_class] = block;
        lane->pool_bytes += block->bytes;
    }
    pthread_mutex_unlock(&lane->pool_lock);
    if (!keep)
        block_free(block);
}

/* ---- spans ---- */

static bool overlap(const gems_span *a, const char *data, size_t bytes)
{
    return a->data < data + bytes && data < a->data + a->bytes;
}

/* The span of exactly this memory, or a new one. NULL if the job has failed or must be declined. */
static gems_span *find_span(gems_job *job, const char *data, size_t bytes, bool written)
{
    for (unsigned i = 0; i < job->nspans; i++) {
        gems_span *s = &job->spans[i];
        if (s->data == data && s->bytes == bytes) {
            for (unsigned j = 0; written && !s->written && j < job->nspans; j++)
                if (j != i && overlap(&job->spans[j], data, bytes))
                    goto partly;
            return s;
        }
    }
    for (unsigned i = 0; i < job->nspans; i++)
        if ((written || job->spans[i].written) && overlap(&job->spans[i], data, bytes))
            goto partly;
    if (job->nspans == job->span_room) {
        unsigned room = job->span_room ? 2 * job->span_room : 8;
        gems_span *more = realloc(job->spans, room * sizeof *more);
        if (!more) {
            job->status = gems_fail(job->call, "out of memory");
            return NULL;
        }
        job->spans = more;
        job->span_room = room;
    }
    job->spans[job->nspans] = (gems_span){.data = data, .bytes = bytes};
    return &job->spans[job->nspans++];
partly:
    /* Two copies of the same bytes cannot stand for one memory. */
    job->status = gems_decline(job->call, "operands overlap in part");
    return NULL;
}

static gems_status copy_in(gems_job *job, gems_span *s)
{
    cl_int error;

    if (!gems_staging_up(job, s->block->mem, s->data, s->bytes, &error)) {
        cl_event event = NULL;
        error = CL(clEnqueueWriteBuffer, job->queue, s->block->mem, CL_FALSE, 0, s->bytes, s->data, 0, NULL, &event);
        if (error == CL_SUCCESS)
            gems_job_set_last(job, event);
    }
    if (error != CL_SUCCESS)
        return gems_job_fail(job, "clEnqueueWriteBuffer", "", error);
    job->call->bytes += s->bytes;
    return GEMS_OK;
}

gems_status gems_memory_acquire(gems_job *job, const gems_tensor *tensor, gems_access access, gems_span **span)
{
    *span = NULL;
    if (job->lane->info.unified)
        return GEMS_OK;

    size_t bytes = (size_t)gems_tensor_span(tensor) * gems_dtypes[tensor->dtype].size;
    gems_span *s = find_span(job, (const char *)tensor->address, bytes, access & GEMS_WRITE);
    if (!s)
        return job->status;
    if (!s->block) {
        cl_int error = CL_SUCCESS;
        s->block = gems_memory_take(job->lane, bytes, &error);
        if (!s->block)
            return gems_job_fail(job, "clCreateBuffer", "", error);
    }
    if ((access & GEMS_READ) && !s->read && !s->written && bytes && copy_in(job, s) != GEMS_OK)
        return job->status;
    s->read |= (access & GEMS_READ) != 0;
    s->written |= (access & GEMS_WRITE) != 0;
    *span = s;
    return GEMS_OK;
}

/* A result that replaces its input arrives as a whole before it does so: until then the host can redo the call.
 * `alone`: no other result of the job does. */
static gems_status bring_back(gems_job *job, gems_span *s, bool alone)
{
    cl_int error;

    job->call->bytes += s->bytes;
    if ((s->read && !alone) || !gems_staging_down(job, s->block->mem, (char *)s->data, s->bytes, s->read, &error)) {
        char *to = (char *)s->data;
        if (s->read && !(to = s->landing = malloc(s->bytes)))
            return job->status = gems_fail(job->call, "out of memory");
        if (!gems_staging_down(job, s->block->mem, to, s->bytes, false, &error)) {
            cl_event event = NULL;
            error = CL(clEnqueueReadBuffer, job->queue, s->block->mem, CL_FALSE, 0, s->bytes, to, 0, NULL, &event);
            if (error == CL_SUCCESS)
                gems_job_set_last(job, event);
        }
    }
    return error == CL_SUCCESS ? GEMS_OK : gems_job_fail(job, "clEnqueueReadBuffer", "", error);
}

gems_status gems_memory_release(gems_job *job)
{
    unsigned ring = 0, in_place = 0;

    for (unsigned i = 0; i < job->nspans; i++) {
        gems_span *s = &job->spans[i];
        ring += s->written && gems_staging_serves(job->lane, s->bytes);
        in_place += s->written && s->read;
    }
    /* The ring is for transfers: nobody holds it while kernels run. */
    if (ring && gems_job_wait(job) != GEMS_OK)
        return job->status;
    for (int also_read = 0; also_read < 2; also_read++)
        for (unsigned i = 0; i < job->nspans; i++) {
            gems_span *s = &job->spans[i];
            if (s->written && s->read == also_read && s->bytes && bring_back(job, s, in_place == 1) != GEMS_OK)
                return job->status;
        }
    return GEMS_OK;
}

void gems_memory_land(gems_job *job)
{
    for (unsigned i = 0; i < job->nspans; i++)
        if (job->spans[i].landing)
            memcpy((char *)job->spans[i].data, job->spans[i].landing, job->spans[i].bytes);
}
