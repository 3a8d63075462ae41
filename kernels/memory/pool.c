/* Buffers that are kept for the next one of their size, and transfers. */
#include "kernels/memory/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CLASSES 160 /* four sizes for each power of two from 256 bytes on */

typedef struct unused {
    gems_buffer **buffer;
    unsigned n, room;
} unused;

static struct pool {
    pthread_mutex_t lock;
    unused unused[CLASSES];
    size_t bytes; /* of all that are unused */
} pools[GEMS_LANE_COUNT] = {{.lock = PTHREAD_MUTEX_INITIALIZER}, {.lock = PTHREAD_MUTEX_INITIALIZER}};

/* Sizes 256 * 2^k * (4 + j) / 4: at most a quarter is wasted, and neighbouring sizes share buffers. */
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

/* Bytes of unused buffers that a lane keeps: on a unified device they are the host's own, and only scratch comes from
 * there. */
static size_t limit(const gems_device_info *device)
{
    return device->exact_buffers ? 0 : device->unified ? (size_t)256 << 20 : device->memory_bytes / 8;
}

void gems_memory_trim(gems_lane lane)
{
    struct pool *p = &pools[lane];
    pthread_mutex_lock(&p->lock);
    for (unused *u = p->unused; u < p->unused + CLASSES; u++)
        while (u->n)
            gems_buffer_free(u->buffer[--u->n]);
    p->bytes = 0;
    pthread_mutex_unlock(&p->lock);
}

gems_buffer *gems_memory_take(gems_lane lane, size_t bytes, gems_trouble *trouble)
{
    struct pool *p = &pools[lane];
    size_t rounded;
    unsigned i = class_of(bytes, &rounded);
    gems_buffer *buffer = NULL;

    if (i >= CLASSES) {
        gems_trouble_note(trouble, GEMS_TROUBLE_OTHER, "%zu bytes are more than any device has", bytes);
        return NULL;
    }
    if (gems_device_get(lane)->exact_buffers)
        rounded = bytes ? bytes : 1;
    pthread_mutex_lock(&p->lock);
    if (p->unused[i].n) {
        buffer = p->unused[i].buffer[--p->unused[i].n];
        p->bytes -= gems_buffer_bytes(buffer);
    }
    pthread_mutex_unlock(&p->lock);
    gems_trouble first = {.kind = GEMS_TROUBLE_NONE};
    if (buffer || (buffer = gems_buffer_new(lane, rounded, &first)))
        return buffer;

    gems_memory_trim(lane); /* what lies unused may be what is missing */
    return gems_buffer_new(lane, rounded, trouble);
}

static bool push(unused *u, gems_buffer *buffer)
{
    if (u->n == u->room) {
        unsigned room = u->room ? 2 * u->room : 16;
        gems_buffer **more = realloc(u->buffer, room * sizeof *more);
        if (!more)
            return false;
        u->buffer = more;
        u->room = room;
    }
    u->buffer[u->n++] = buffer;
    return true;
}

void gems_memory_give(gems_lane lane, gems_buffer *buffer)
{
    struct pool *p = &pools[lane];
    size_t rounded, bytes = gems_buffer_bytes(buffer);
    unsigned i = class_of(bytes, &rounded);
    pthread_mutex_lock(&p->lock);
    bool keep = p->bytes + bytes <= limit(gems_device_get(lane)) && push(&p->unused[i], buffer);
    if (keep)
        p->bytes += bytes;
    pthread_mutex_unlock(&p->lock);
    if (!keep)
        gems_buffer_free(buffer);
}

/* ---- transfers ---- */

bool gems_memory_upload(gems_queue *queue, gems_lane lane, const gems_transfer *t, bool at_once)
{
    char *memory = gems_buffer_host(t->buffer);
    if (memory)
        memcpy(memory + t->offset, t->host, t->bytes);
    else if (!gems_bounce_up(queue, lane, t, at_once)) {
        gems_queue_write(queue, t->buffer, t->offset, t->host, t->bytes, NULL);
        return false;
    }
    return true;
}

bool gems_memory_download(gems_queue *queue, gems_lane lane, const gems_transfer *t, bool whole)
{
    const char *memory = gems_buffer_host(t->buffer);
    if (memory) {
        if (gems_queue_settle(queue))
            memcpy(t->host, memory + t->offset, t->bytes);
        return true;
    }
    if (gems_bounce_down(queue, lane, t, whole))
        return true;
    if (!whole)
        gems_queue_read(queue, t->buffer, t->offset, t->host, t->bytes, NULL);
    return !whole;
}
