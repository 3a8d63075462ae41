/* Transfers through pinned memory, for devices with memory of their own.
 *
 * A driver copies pageable memory to a small buffer of its own and from there to the device, one after the other. Here
 * a region that is registered with the driver once is used as a ring of pieces: while the device fetches one piece, the
 * next is filled. Registering the host's tensors instead would cost more than it saves: they come and go.
 *
 * One operand at a time holds the ring; what it left in flight is waited for piece by piece by whoever comes next. A
 * ring that cannot be had, or whose transfers cannot be trusted any more, is not used: transfers are direct then. */
#include "kernels/memory/memory.h"
#include "preload/base/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    SHARERS = 16, /* transfers that share a piece, at least */
    ALIGNMENT = 64
};

typedef struct ring {
    char *region;
    gems_buffer *registered; /* never used itself: it keeps the region pinned */
    size_t piece;            /* bytes */
    unsigned n, next;        /* pieces, at least 2; the one whose turn it is, modulo n */
    /* A piece that small transfers of one queue share, while it is the newest. */
    const gems_queue *sharers;
    unsigned shared;   /* its turn */
    size_t filled;     /* bytes of it */
    gems_mark *mark[]; /* the last transfer of each piece; NULL: none */
} ring;

static struct {
    pthread_mutex_t lock; /* guards the two below and the ring itself */
    ring *ring;           /* NULL: none, or not used any more */
    bool tried;
} rings[GEMS_LANE_COUNT] = {{.lock = PTHREAD_MUTEX_INITIALIZER}, {.lock = PTHREAD_MUTEX_INITIALIZER}};

/* With the lock held. */
static ring *ring_new(gems_lane lane, const gems_device_info *device)
{
    size_t piece = device->bounce_piece, n = piece ? device->bounce_bytes / piece : 0;
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};

    if (n < 2)
        return NULL;
    ring *r = calloc(1, sizeof *r + n * sizeof r->mark[0]);
    if (!r)
        return NULL;
    *r = (ring){.piece = piece, .n = (unsigned)n};
    r->region = mmap(NULL, piece * n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (r->region != MAP_FAILED) {
        /* After a fork the first write of parent or child gets a new page, and the device would go on with the old. */
        (void)madvise(r->region, piece * n, MADV_DONTFORK);
        (void)madvise(r->region, piece * n, MADV_HUGEPAGE);
        memset(r->region, 0, piece * n); /* pages are there before they are pinned */
        r->registered = gems_buffer_over(lane, r->region, piece * n, &trouble);
        if (r->registered)
            return r;
        munmap(r->region, piece * n);
    }
    free(r);
    gems_log("no pinned memory of %zu MiB: %s; transfers are direct", piece * n >> 20, trouble.text);
    return NULL;
}

/* The lane's ring, locked, if it is to serve a transfer of that size. */
static ring *take_ring(gems_lane lane, size_t bytes, bool any)
{
    const gems_device_info *device = gems_device_get(lane);
    if (device->bounce_bytes == 0 || (!any && bytes < device->bounce_from))
        return NULL;
    pthread_mutex_lock(&rings[lane].lock);
    if (!rings[lane].tried) {
        rings[lane].tried = true;
        rings[lane].ring = ring_new(lane, device);
    }
    if (!rings[lane].ring)
        pthread_mutex_unlock(&rings[lane].lock);
    return rings[lane].ring;
}

/* Gives the ring back. After a doubtful transfer it is left alone for good: the device may still be writing there. */
static void give_ring(gems_lane lane, const gems_trouble *trouble)
{
    if (trouble->kind != GEMS_TROUBLE_NONE) {
        gems_log("%s: a transfer through pinned memory failed: %s; transfers are direct from now on",
                 gems_device_get(lane)->name, trouble->text);
        rings[lane].ring = NULL;
    }
    pthread_mutex_unlock(&rings[lane].lock);
}

static unsigned index_of(const ring *r, unsigned turn)
{
    return r->n ? turn % r->n : 0;
}

static char *piece_at(const ring *r, unsigned turn)
{
    return r->region + (size_t)index_of(r, turn) * r->piece;
}

static size_t piece_bytes(const ring *r, size_t k, size_t bytes)
{
    return bytes - k * r->piece < r->piece ? bytes - k * r->piece : r->piece;
}

/* Waits for the piece's last transfer. */
static bool await_piece(ring *r, unsigned turn, gems_trouble *trouble)
{
    gems_mark *mark = r->mark[index_of(r, turn)];
    r->mark[index_of(r, turn)] = NULL;
    return gems_mark_await(mark, trouble);
}

static bool is_fine(gems_queue *queue)
{
    return gems_queue_trouble(queue)->kind == GEMS_TROUBLE_NONE;
}

/* A small transfer up, in a piece with others of its queue: what is queued last there has ended last. */
static void share_piece(ring *r, gems_queue *queue, const gems_transfer *t, gems_trouble *wait)
{
    if (r->sharers != queue || r->shared + 1 != r->next || r->filled + t->bytes > r->piece) {
        if (!await_piece(r, r->next, wait)) {
            *gems_queue_trouble(queue) = *wait;
            return;
        }
        r->sharers = queue;
        r->shared = r->next++;
        r->filled = 0;
    }
    char *at = piece_at(r, r->shared) + r->filled;
    memcpy(at, t->host, t->bytes);
    r->filled += (t->bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    gems_queue_write(queue, t->buffer, t->offset, at, t->bytes, &r->mark[index_of(r, r->shared)]);
}

bool gems_bounce_up(gems_queue *queue, gems_lane lane, const gems_transfer *t, bool any)
{
    gems_trouble wait = {.kind = GEMS_TROUBLE_NONE};
    ring *r = take_ring(lane, t->bytes, any);
    if (!r)
        return false;
    if (t->bytes <= r->piece / SHARERS) {
        share_piece(r, queue, t, &wait);
        give_ring(lane, &wait);
        return true;
    }
    for (size_t k = 0; k * r->piece < t->bytes && is_fine(queue); k++) {
        unsigned turn = r->next++;
        size_t n = piece_bytes(r, k, t->bytes);
        if (!await_piece(r, turn, &wait)) {
            *gems_queue_trouble(queue) = wait;
            break;
        }
        memcpy(piece_at(r, turn), (const char *)t->host + k * r->piece, n);
        gems_queue_write(queue, t->buffer, t->offset + k * r->piece, piece_at(r, turn), n, &r->mark[index_of(r, turn)]);
    }
    give_ring(lane, &wait);
    return true;
}

/* Queues reads as far ahead as the ring is long, and takes each piece out when it has arrived: to `host`, or with
 * `whole` only counted until all are there. */
bool gems_bounce_down(gems_queue *queue, gems_lane lane, const gems_transfer *t, bool whole)
{
    gems_trouble wait = {.kind = GEMS_TROUBLE_NONE};
    /* The ring is for transfers: nobody holds it while kernels run. */
    const gems_device_info *device = gems_device_get(lane);
    if (device->bounce_bytes && t->bytes >= device->bounce_from && !gems_queue_settle(queue))
        return true;
    ring *r = take_ring(lane, t->bytes, false);
    if (!r)
        return false;
    size_t total = (t->bytes + r->piece - 1) / r->piece, queued = 0;
    unsigned first = r->next;
    bool fits = !whole || total <= r->n;
    char *host = t->host;

    for (size_t k = 0; fits && k < total && is_fine(queue); k++) {
        for (; queued < total && queued < k + r->n && is_fine(queue); queued++) {
            unsigned turn = r->next;
            if (!await_piece(r, turn, &wait))
                break;
            gems_queue_read(queue, t->buffer, t->offset + queued * r->piece, piece_at(r, turn),
                            piece_bytes(r, queued, t->bytes), &r->mark[index_of(r, turn)]);
            r->next += is_fine(queue);
        }
        unsigned turn = first + (unsigned)k;
        if (wait.kind == GEMS_TROUBLE_NONE && is_fine(queue) && await_piece(r, turn, &wait) && !whole)
            memcpy(host + k * r->piece, piece_at(r, turn), piece_bytes(r, k, t->bytes));
        if (wait.kind != GEMS_TROUBLE_NONE)
            *gems_queue_trouble(queue) = wait;
    }
    for (size_t k = 0; fits && whole && k < total && is_fine(queue); k++)
        memcpy(host + k * r->piece, piece_at(r, first + (unsigned)k), piece_bytes(r, k, t->bytes));
    give_ring(lane, &wait);
    return fits;
}

bool gems_bounce_in_use(gems_lane lane)
{
    pthread_mutex_lock(&rings[lane].lock);
    bool in_use = rings[lane].ring != NULL;
    pthread_mutex_unlock(&rings[lane].lock);
    return in_use;
}
