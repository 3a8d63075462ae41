/* Strides of new results; overlap of memory. */
#include "kernels/tensor/layout.h"

#include <string.h>

static void strides_in_order(const gems_shape *shape, const int *perm, gems_strides out)
{
    int64_t step = 1;
    for (int k = 0; k < shape->ndim; k++) {
        out[perm[k]] = step;
        step *= shape->size[perm[k]];
    }
}

void gems_dense_strides(const gems_shape *shape, const gems_strides from, gems_strides out)
{
    int perm[GEMS_DIMS];
    gems_strides copy;
    memcpy(copy, from, (size_t)shape->ndim * sizeof *copy);
    gems_order_dims(shape, 1, (const gems_strides *)&copy, perm);
    strides_in_order(shape, perm, out);
}

void gems_channels_last_strides(const gems_shape *shape, gems_strides out)
{
    int64_t step = shape->size[1];
    out[1] = 1;
    for (int d = shape->ndim - 1; d >= 2; d--) {
        out[d] = step;
        step *= shape->size[d];
    }
    out[0] = step;
}

static bool is_channels_last(const gems_tensor *t)
{
    static const int order[4] = {1, 3, 2, 0};
    int64_t expected = 1;
    if (t->ndim != 4)
        return false;
    for (int k = 0; k < 4; k++) {
        int d = order[k];
        if (t->sizes[d] == 1)
            continue;
        if (t->strides[d] != expected)
            return false;
        expected *= t->sizes[d];
    }
    return true;
}

/* The inputs' strides as the iterator has them: of the copy, where it makes one. */
static void seen_strides(const gems_shape *shape, const gems_layout_input *input, gems_strides out)
{
    const gems_tensor *t = input->tensor;
    if (!input->converted || gems_tensor_is_dense(t)) {
        gems_shape_strides(shape, t->ndim, t->sizes, t->strides, out);
        return;
    }
    gems_shape own = GEMS_SHAPE_START;
    gems_strides copied;
    gems_shape_broadcast(&own, t->ndim, t->sizes);
    gems_dense_strides(&own, t->strides, copied);
    gems_shape_strides(shape, t->ndim, t->sizes, copied, out);
}

void gems_iterator_strides(const gems_shape *shape, int n, const gems_layout_input *inputs, gems_strides out)
{
    gems_strides strides[GEMS_OPERANDS];
    bool same_shape = true, contiguous = true, channels_last = true, same_strides = true;
    for (int i = 0; i < n; i++) {
        const gems_tensor *t = inputs[i].tensor;
        seen_strides(shape, &inputs[i], strides[i]);
        same_shape = same_shape && t->ndim == shape->ndim &&
                     memcmp(t->sizes, shape->size, (size_t)t->ndim * sizeof *shape->size) == 0;
        if (!same_shape)
            continue;
        gems_tensor seen = *t;
        seen.strides = strides[i];
        contiguous = contiguous && gems_tensor_is_contiguous(&seen);
        channels_last = channels_last && is_channels_last(&seen);
        same_strides = same_strides && gems_tensor_is_dense(&seen) &&
                       memcmp(strides[0], strides[i], (size_t)t->ndim * sizeof *strides[i]) == 0;
    }
    if (same_shape && (contiguous || n == 0))
        gems_shape_contiguous(shape, out);
    else if (same_shape && channels_last)
        gems_channels_last_strides(shape, out);
    else if (same_shape && same_strides)
        memcpy(out, strides[0], (size_t)shape->ndim * sizeof *out);
    else {
        int perm[GEMS_DIMS];
        gems_order_dims(shape, n, (const gems_strides *)strides, perm);
        strides_in_order(shape, perm, out);
    }
}

/* From the smallest stride up, each dimension must step over all that those before it reach. */
bool gems_overlaps_itself(const gems_tensor *t)
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

gems_overlap gems_overlap_of(const gems_tensor *a, const gems_tensor *b)
{
    size_t size_a = gems_dtypes[a->dtype].size, size_b = gems_dtypes[b->dtype].size;
    const char *from_a = a->data, *from_b = b->data;
    const char *to_a = from_a + (size_t)gems_tensor_span(a) * size_a;
    const char *to_b = from_b + (size_t)gems_tensor_span(b) * size_b;
    if (to_a <= from_b || to_b <= from_a)
        return GEMS_APART;
    if (from_a != from_b || size_a != size_b || a->ndim != b->ndim)
        return GEMS_OVERLAP;
    for (int d = 0; d < a->ndim; d++)
        if (a->sizes[d] != b->sizes[d] || (a->sizes[d] > 1 && a->strides[d] != b->strides[d]))
            return GEMS_OVERLAP;
    return GEMS_IDENTICAL;
}
