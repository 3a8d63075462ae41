#include "kernels/tensor/nest.h"

#include <string.h>

/* Appends a loop inside the others, or widens the innermost one if both together are one walk through memory. */
static bool push(gems_nest *nest, int64_t size, int64_t stride)
{
    if (size == 1)
        return true;
    int64_t last = nest->rank - 1;
    if (last >= 0 && nest->stride[last] == stride * size) {
        nest->size[last] *= size;
        nest->stride[last] = stride;
        return true;
    }
    if (nest->rank == GEMS_NEST_RANK)
        return false;
    nest->size[nest->rank] = size;
    nest->stride[nest->rank++] = stride;
    return true;
}

bool gems_nest_dims(const gems_tensor *t, uint64_t dims, gems_nest *nest)
{
    memset(nest, 0, sizeof *nest);
    for (int d = 0; d < t->ndim; d++)
        if ((dims >> d & 1) && !push(nest, t->sizes[d], t->strides[d]))
            return false;
    return true;
}

void gems_nest_sort(gems_nest *nest)
{
    gems_nest in = *nest;
    for (int64_t i = 1; i < in.rank; i++)
        for (int64_t j = i; j > 0 && in.stride[j - 1] < in.stride[j]; j--) {
            int64_t size = in.size[j], stride = in.stride[j];
            in.size[j] = in.size[j - 1], in.stride[j] = in.stride[j - 1];
            in.size[j - 1] = size, in.stride[j - 1] = stride;
        }
    memset(nest, 0, sizeof *nest);
    for (int64_t i = 0; i < in.rank; i++)
        push(nest, in.size[i], in.stride[i]);
}

void gems_nest_split_inner(gems_nest *nest, int64_t *size, int64_t *stride)
{
    *size = *stride = 1;
    if (nest->rank == 0)
        return;
    nest->rank--;
    *size = nest->size[nest->rank];
    *stride = nest->stride[nest->rank];
}

int64_t gems_nest_count(const gems_nest *nest)
{
    int64_t n = 1;
    for (int64_t i = 0; i < nest->rank; i++)
        n *= nest->size[i];
    return n;
}

int64_t gems_nest_offset(const gems_nest *nest, int64_t i)
{
    int64_t offset = 0;
    for (int64_t k = nest->rank - 1; k >= 0; k--) {
        offset += i % nest->size[k] * nest->stride[k];
        i /= nest->size[k];
    }
    return offset;
}
