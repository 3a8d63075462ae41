#include "kernels/tensor/tensor.h"

bool gems_tensor_is_contiguous(const gems_tensor *t)
{
    if (t->numel == 0)
        return true;
    int64_t expected = 1;
    for (int d = t->ndim - 1; d >= 0; d--) {
        if (t->sizes[d] == 1)
            continue;
        if (t->strides[d] != expected)
            return false;
        expected *= t->sizes[d];
    }
    return true;
}

/* Walks the dimensions from the smallest stride up; each must start where the block of those before it ends. */
bool gems_tensor_is_dense(const gems_tensor *t)
{
    if (t->numel <= 1)
        return true;
    for (int64_t block = 1; block < t->numel;) {
        int next = -1;
        for (int d = 0; d < t->ndim && next < 0; d++)
            if (t->sizes[d] > 1 && t->strides[d] == block)
                next = d;
        if (next < 0)
            return false;
        block *= t->sizes[next];
    }
    return true;
}

int64_t gems_tensor_span(const gems_tensor *t)
{
    if (t->numel == 0)
        return 0;
    int64_t last = 0;
    for (int d = 0; d < t->ndim; d++)
        last += (t->sizes[d] - 1) * t->strides[d];
    return last + 1;
}

/* From the smallest stride up, each dimension must step over all that those before it reach. */
bool gems_tensor_overlaps_itself(const gems_tensor *t)
{
    bool used[64] = {false};
    if (t->numel <= 1)
        return false;
    if (t->ndim > 64)
        return true;
    int64_t reach = 0; /* largest offset so far */
    for (int k = 0; k < t->ndim; k++) {
        int next = -1;
        for (int d = 0; d < t->ndim; d++)
            if (!used[d] && t->sizes[d] > 1 && (next < 0 || t->strides[d] < t->strides[next]))
                next = d;
        if (next < 0)
            break;
        if (t->strides[next] <= reach)
            return true;
        used[next] = true;
        reach += (t->sizes[next] - 1) * t->strides[next];
    }
    return false;
}

gems_overlap gems_tensor_overlap(const gems_tensor *a, const gems_tensor *b)
{
    if (a->numel == 0 || b->numel == 0)
        return GEMS_APART;
    size_t size_a = gems_dtypes[a->dtype].size, size_b = gems_dtypes[b->dtype].size;
    uintptr_t from_a = a->address, from_b = b->address;
    uintptr_t to_a = from_a + (size_t)gems_tensor_span(a) * size_a;
    uintptr_t to_b = from_b + (size_t)gems_tensor_span(b) * size_b;
    if (to_a <= from_b || to_b <= from_a)
        return GEMS_APART;
    if (from_a != from_b || size_a != size_b || a->ndim != b->ndim)
        return GEMS_OVERLAP;
    for (int d = 0; d < a->ndim; d++)
        if (a->sizes[d] != b->sizes[d] || (a->sizes[d] > 1 && a->strides[d] != b->strides[d]))
            return GEMS_OVERLAP;
    return GEMS_IDENTICAL;
}

int gems_wrap_dim(int64_t dim, int ndim)
{
    int n = ndim > 0 ? ndim : 1;
    if (dim < -n || dim >= n)
        return -1;
    return (int)(dim < 0 ? dim + n : dim);
}
