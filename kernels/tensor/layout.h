/* Strides of a pointwise operator's new result, as the host's iterator would choose them, and whether memory overlaps.
 */
#ifndef GEMS_POINTWISE_LAYOUT_H
#define GEMS_POINTWISE_LAYOUT_H

#include "kernels/tensor/collapse.h"

/* Strides of a dense tensor in the order of memory of one that has these sizes and strides (and maybe gaps). */
void gems_dense_strides(const gems_shape *shape, const gems_strides from, gems_strides out);
/* Strides of channels_last (ndim 4) or channels_last_3d (5). */
void gems_channels_last_strides(const gems_shape *shape, gems_strides out);

/* One input as the iterator sees it. `converted`: the host would first make a copy in the common dtype. */
typedef struct gems_layout_input {
    const gems_tensor *tensor;
    bool converted;
} gems_layout_input;
/* The iterator's choice: contiguous if all inputs are, channels_last if all are, the common strides of dense inputs of
 * one shape, else dense in the order of dimensions that the inputs suggest. */
void gems_iterator_strides(const gems_shape *shape, int n, const gems_layout_input *inputs, gems_strides out);

/* Can two index tuples mean the same element? True also where it is not easily excluded. */
bool gems_overlaps_itself(const gems_tensor *t);
typedef enum gems_overlap {
    GEMS_APART,
    GEMS_IDENTICAL,
    GEMS_OVERLAP
} gems_overlap;
/* IDENTICAL: same address, shape, strides and element size. APART: memory ranges do not touch. */
gems_overlap gems_overlap_of(const gems_tensor *a, const gems_tensor *b);

#endif
