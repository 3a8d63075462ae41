/* Where data is: device memory that is kept for the next one, and transfers between it and the host's memory.
 *
 * Files: pool (buffers), bounce (transfers through pinned memory), host.h (reading elements ourselves). */
#ifndef GEMS_MEMORY_H
#define GEMS_MEMORY_H

#include "kernels/device/device.h"

/* A buffer of at least so many bytes from the lane's pool, and back. NULL: see trouble. */
gems_buffer *gems_memory_take(gems_lane lane, size_t bytes, gems_trouble *trouble);
void gems_memory_give(gems_lane lane, gems_buffer *buffer);
/* Frees what lies unused. */
void gems_memory_trim(gems_lane lane);

/* A place in a buffer and the host's memory that it stands for. */
typedef struct gems_transfer {
    gems_buffer *buffer;
    size_t offset; /* bytes */
    void *host;
    size_t bytes;
} gems_transfer;

/* Queues a transfer to the device. True: the host's memory may change at once, else when the queue is settled.
 * at_once: that is wanted, also where it is no quicker. */
bool gems_memory_upload(gems_queue *queue, gems_lane lane, const gems_transfer *t, bool at_once);
/* Brings a result to the host: done when the queue is settled. `whole`: nothing of it is written unless all of it has
 * arrived; false if that cannot be had (then nothing was done). Failures are the queue's trouble. */
bool gems_memory_download(gems_queue *queue, gems_lane lane, const gems_transfer *t, bool whole);

/* ---- bounce.c ---- */

/* Transfers through the lane's pinned memory, if there is one and it is worth it, or any is wanted: else false. Up is
 * queued; down is done on return. */
bool gems_bounce_up(gems_queue *queue, gems_lane lane, const gems_transfer *t, bool any);
bool gems_bounce_down(gems_queue *queue, gems_lane lane, const gems_transfer *t, bool whole);
/* Whether there is such memory, and it is trusted. */
bool gems_bounce_in_use(gems_lane lane);

#endif
