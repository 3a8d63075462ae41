/* Transfers through pinned memory, for devices with memory of their own.
 *
 * A driver copies pageable memory to a small buffer of its own and from there to the device, one after the other. Here
 * a region that is registered with the driver once is used as a ring of pieces: while the device fetches one piece, the
 * next is filled. Registering the host's tensors instead would cost more than it saves: they come and go.
 *
 * One operand at a time holds the ring; what it left in flight is waited for piece by piece by whoever comes next. A
 * region that cannot be had, or whose transfers cannot be trusted any more, is not used: transfers are direct then. */
#include "kernels/device/internal.h"
#include "preload/base/log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct gems_staging {
    char *region;
    cl_mem registered; /* never used itself: it keeps the region pinned */
    size_t piece;      /* bytes */
    unsigned n, next;  /* pieces, at least 2; the one whose turn it is, modulo n */
    cl_event event[];  /* the last transfer of each piece; NULL: none */
};

/* With the lock held. */
static gems_staging *staging_new(gems_lane_state *lane)
{
    const gems_vendor_data *vendor = lane->vendor;
    size_t piece = vendor->staging_piece, n = piece ? vendor->staging_bytes / piece : 0;
    cl_int error = CL_OUT_OF_HOST_MEMORY;

    if (n < 2)
        return NULL;
    gems_staging *s = calloc(1, sizeof *s + n * sizeof s->event[0]);
    if (!s)
        return NULL;
    *s = (gems_staging){.piece = piece, .n = (unsigned)n};
    s->region = mmap(NULL, piece * n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->region != MAP_FAILED) {
        /* After a fork the first write of parent or child gets a new page, and the device would go on with the old. */
        (void)madvise(s->region, piece * n, MADV_DONTFORK);
        (void)madvise(s->region, piece * n, MADV_HUGEPAGE);
        memset(s->region, 0, piece * n); /* pages are there before they are pinned */
        s->registered = CL_NEW(&error, clCreateBuffer, lane->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR,
                               piece * n, s->region);
        if (s->registered)
            return s;
        munmap(s->region, piece * n);
    }
    free(s);
    gems_log("no staging region of %zu MiB: %s; transfers are direct", piece * n >> 20, gems_cl_error(error));
    return NULL;
}

bool gems_staging_serves(const gems_lane_state *lane, size_t bytes)
{
    return lane->vendor->staging_bytes > 0 && bytes >= lane->vendor->staging_from;
}

/* The lane's ring, locked, if it is to serve a transfer of that size. */
static gems_staging *take_ring(gems_lane_state *lane, size_t bytes)
{
    if (!gems_staging_serves(lane, bytes))
        return NULL;
    pthread_mutex_lock(&lane->staging_lock);
    if (!lane->staging_tried) {
        lane->staging_tried = true;
        lane->staging = staging_new(lane);
    }
    if (!lane->staging)
        pthread_mutex_unlock(&lane->staging_lock);
    return lane->staging;
}

/* Gives the ring back. After a doubtful transfer it is left alone for good: the device may still be writing there. */
static void give_ring(gems_lane_state *lane, cl_int error)
{
    if (error != CL_SUCCESS) {
        gems_log("%s: a staged transfer failed: %s; transfers are direct from now on", lane->info.name,
                 gems_cl_error(error));
        lane->staging = NULL;
    }
    pthread_mutex_unlock(&lane->staging_lock);
}

static unsigned index_of(const gems_staging *s, unsigned turn)
{
    return s->n ? turn % s->n : 0;
}

static char *piece_at(const gems_staging *s, unsigned turn)
{
    return s->region + (size_t)index_of(s, turn) * s->piece;
}

static size_t piece_bytes(const gems_staging *s, size_t k, size_t bytes)
{
    return bytes - k * s->piece < s->piece ? bytes - k * s->piece : s->piece;
}

/* Waits for the piece's last transfer. */
static cl_int await_piece(gems_staging *s, unsigned turn)
{
    cl_event *event = &s->event[index_of(s, turn)];
    if (!*event)
        return CL_SUCCESS;
    cl_int error = gems_job_await(*event, NULL);
    if (error == CL_SUCCESS) {
        CL_SURE(clReleaseEvent, *event);
        *event = NULL;
    }
    return error;
}

/* Notes the transfer that was just queued for a piece. */
static void note_transfer(gems_job *job, gems_staging *s, unsigned turn, cl_event event)
{
    s->event[index_of(s, turn)] = event;
    CL_SURE(clRetainEvent, event);
    gems_job_set_last(job, event);
    CL_SURE(clFlush, job->queue); /* so that it begins now, while the next piece is filled */
}

bool gems_staging_up(gems_job *job, cl_mem mem, const char *data, size_t bytes, cl_int *error)
{
    gems_staging *s = take_ring(job->lane, bytes);
    if (!s)
        return false;
    cl_int wait = CL_SUCCESS;
    *error = CL_SUCCESS;
    for (size_t k = 0; k * s->piece < bytes && *error == CL_SUCCESS; k++) {
        unsigned turn = s->next++;
        size_t n = piece_bytes(s, k, bytes);
        cl_event event = NULL;
        if ((*error = wait = await_piece(s, turn)) != CL_SUCCESS)
            break;
        memcpy(piece_at(s, turn), data + k * s->piece, n);
        *error =
            CL(clEnqueueWriteBuffer, job->queue, mem, CL_FALSE, k * s->piece, n, piece_at(s, turn), 0, NULL, &event);
        if (*error == CL_SUCCESS)
            note_transfer(job, s, turn, event);
    }
    give_ring(job->lane, wait);
    return true;
}

bool gems_staging_down(gems_job *job, cl_mem mem, char *data, size_t bytes, bool whole, cl_int *error)
{
    gems_staging *s = take_ring(job->lane, bytes);
    if (!s)
        return false;
    size_t total = (bytes + s->piece - 1) / s->piece, queued = 0;
    unsigned first = s->next;
    cl_int wait = CL_SUCCESS;
    bool fits = !whole || total <= s->n;

    *error = CL_SUCCESS;
    for (size_t k = 0; fits && k < total && *error == CL_SUCCESS; k++) {
        for (; queued < total && queued < k + s->n && *error == CL_SUCCESS; queued++) {
            unsigned turn = s->next;
            cl_event event = NULL;
            if ((*error = wait = await_piece(s, turn)) != CL_SUCCESS)
                break;
            *error = CL(clEnqueueReadBuffer, job->queue, mem, CL_FALSE, queued * s->piece,
                        piece_bytes(s, queued, bytes), piece_at(s, turn), 0, NULL, &event);
            if (*error != CL_SUCCESS)
                break;
            s->next++;
            note_transfer(job, s, turn, event);
        }
        if (*error == CL_SUCCESS && (*error = wait = await_piece(s, first + (unsigned)k)) == CL_SUCCESS && !whole)
            memcpy(data + k * s->piece, piece_at(s, first + (unsigned)k), piece_bytes(s, k, bytes));
    }
    for (size_t k = 0; fits && whole && k < total && *error == CL_SUCCESS; k++)
        memcpy(data + k * s->piece, piece_at(s, first + (unsigned)k), piece_bytes(s, k, bytes));
    give_ring(job->lane, wait);
    return fits;
}
