/* Strides of new results. */
#include "kernels/tensor/layout.h"

#include <string.h>

/* Dimensions of a channels-last layout, innermost first. */
static const int last_order[2][5] = {{1, 3, 2, 0}, {1, 4, 3, 2, 0}};

static void strides_in_order(int ndim, const int64_t *sizes, const int *order, int64_t *strides)
{
    int64_t step = 1;
    for (int k = 0; k < ndim; k++) {
        strides[order[k]] = step;
        step *= sizes[order[k]] > 1 ? sizes[order[k]] : 1;
    }
}

void gems_format_strides(gems_format format, int ndim, const int64_t *sizes, int64_t *strides)
{
    int order[GEMS_DIMS];
    for (int k = 0; k < ndim; k++)
        order[k] = format == GEMS_CONTIGUOUS ? ndim - 1 - k : last_order[ndim - 4][k];
    strides_in_order(ndim, sizes, order, strides);
}

/* The host's rule: strides that grow in channels-last order, where the layout is not ambiguous. Gaps are allowed. */
static bool suggests_channels_last(const gems_tensor *t)
{
    const int *order = last_order[t->ndim - 4];
    int64_t least = 0;
    if (t->strides[1] == 0)
        return false;
    for (int k = 0; k < t->ndim; k++) {
        int d = order[k];
        if (t->sizes[d] == 0 || t->strides[d] < least || (d == 0 && least == t->strides[1]))
            return false;
        least = t->strides[d];
        if (t->sizes[d] > 1)
            least *= t->sizes[d];
    }
    return true;
}

gems_format gems_suggested_format(const gems_tensor *t)
{
    if ((t->ndim != 4 && t->ndim != 5) || !suggests_channels_last(t))
        return GEMS_CONTIGUOUS;
    return t->ndim == 4 ? GEMS_CHANNELS_LAST : GEMS_CHANNELS_LAST_3D;
}

void gems_preserved_strides(const gems_tensor *t, int64_t *strides)
{
    if (gems_tensor_is_dense(t)) {
        memcpy(strides, t->strides, (size_t)t->ndim * sizeof *strides);
        return;
    }
    gems_shape shape = {.ndim = t->ndim};
    gems_strides own;
    int order[GEMS_DIMS];
    memcpy(shape.size, t->sizes, (size_t)t->ndim * sizeof *shape.size);
    memcpy(own, t->strides, (size_t)t->ndim * sizeof *own);
    gems_order_dims(&shape, 1, (const gems_strides *)&own, order);
    strides_in_order(t->ndim, t->sizes, order, strides);
}

/* Stricter than gems_suggested_format: no gaps, and 4 dimensions only. The host's iterator asks for its shortcut
 * whether all operands fill one channels-last block; what only suggests the format takes its general way. */
static bool fills_channels_last(const gems_tensor *t)
{
    int64_t expected = 1;
    if (t->ndim != 4)
        return false;
    for (int k = 0; k < 4; k++) {
        int d = last_order[0][k];
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
    gems_strides copied;
    if (input->converted)
        gems_preserved_strides(t, copied);
    gems_shape_strides(shape, t->ndim, t->sizes, input->converted ? copied : t->strides, out);
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
        channels_last = channels_last && fills_channels_last(&seen);
        same_strides = same_strides && gems_tensor_is_dense(&seen) &&
                       memcmp(strides[0], strides[i], (size_t)t->ndim * sizeof *strides[i]) == 0;
    }
    if (same_shape && (contiguous || n == 0))
        gems_format_strides(GEMS_CONTIGUOUS, shape->ndim, shape->size, out);
    else if (same_shape && channels_last)
        gems_format_strides(GEMS_CHANNELS_LAST, shape->ndim, shape->size, out);
    else if (same_shape && same_strides)
        memcpy(out, strides[0], (size_t)shape->ndim * sizeof *out);
    else {
        int perm[GEMS_DIMS];
        gems_order_dims(shape, n, (const gems_strides *)strides, perm);
        strides_in_order(shape->ndim, shape->size, perm, out);
    }
}
