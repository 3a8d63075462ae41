/* Device memory; on a unified device the host's. */
#include "kernels/device/internal.h"

#include <stdlib.h>

struct gems_buffer {
    cl_mem mem; /* NULL on a unified device, but for one that is registered */
    void *host;
    size_t bytes;
    bool owned; /* the host's memory is ours */
};

static gems_buffer *new_buffer(gems_lane_state *lane, cl_mem_flags flags, void *host, size_t bytes,
                               gems_trouble *trouble)
{
    cl_int error = CL_OUT_OF_HOST_MEMORY;
    gems_buffer *buffer = calloc(1, sizeof *buffer);
    if (buffer) {
        *buffer = (gems_buffer){.host = host, .bytes = bytes};
        buffer->mem = CL_NEW(&error, clCreateBuffer, lane->context, flags, bytes, host);
        if (buffer->mem)
            return buffer;
    }
    free(buffer);
    gems_trouble_note(trouble, gems_cl_error_is_memory(error) ? GEMS_TROUBLE_MEMORY : GEMS_TROUBLE_OTHER,
                      "clCreateBuffer: %s", gems_cl_error(error));
    return NULL;
}

gems_buffer *gems_buffer_new(gems_lane lane_name, size_t bytes, gems_trouble *trouble)
{
    gems_lane_state *lane = gems_state_lane(lane_name, trouble);
    if (!lane)
        return NULL;
    if (!lane->info.unified)
        return new_buffer(lane, CL_MEM_READ_WRITE, NULL, bytes, trouble);
    gems_buffer *buffer = calloc(1, sizeof *buffer);
    if (buffer)
        *buffer = (gems_buffer){.host = aligned_alloc(64, (bytes + 63) & ~(size_t)63), .bytes = bytes, .owned = true};
    if (buffer && buffer->host)
        return buffer;
    free(buffer);
    gems_trouble_note(trouble, GEMS_TROUBLE_MEMORY, "out of memory");
    return NULL;
}

gems_buffer *gems_buffer_over(gems_lane lane_name, void *host, size_t bytes, gems_trouble *trouble)
{
    gems_lane_state *lane = gems_state_lane(lane_name, trouble);
    return lane ? new_buffer(lane, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, host, bytes, trouble) : NULL;
}

void gems_buffer_free(gems_buffer *buffer)
{
    if (!buffer)
        return;
    if (buffer->mem)
        CL_SURE(clReleaseMemObject, buffer->mem);
    if (buffer->owned)
        free(buffer->host);
    free(buffer);
}

size_t gems_buffer_bytes(const gems_buffer *buffer)
{
    return buffer->bytes;
}

void *gems_buffer_handle(const gems_buffer *buffer)
{
    return buffer->mem;
}

void *gems_buffer_host(const gems_buffer *buffer)
{
    return buffer->host;
}
