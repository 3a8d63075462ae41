/* Strides of new results, as the host chooses them. */
#ifndef GEMS_LAYOUT_H
#define GEMS_LAYOUT_H

#include "kernels/tensor/collapse.h"

typedef enum gems_format {
    GEMS_CONTIGUOUS,
    GEMS_CHANNELS_LAST,   /* 4 dimensions */
    GEMS_CHANNELS_LAST_3D /* 5 */
} gems_format;

/* All of these take at most GEMS_DIMS dimensions. */

/* Strides of a new tensor in that format, as PyTorch counts them (a size of 0 counts as 1). */
void gems_format_strides(gems_format format, int ndim, const int64_t *sizes, int64_t *strides);
/* The format that the host would suggest for a tensor of these strides (suggest_memory_format). */
gems_format gems_suggested_format(const gems_tensor *t);
/* Strides of a new tensor that keeps t's order of dimensions (torch.preserve_format): its own if it is dense. */
void gems_preserved_strides(const gems_tensor *t, int64_t *strides);

/* One input as the iterator sees it. `converted`: the host would first make a copy in the common dtype. */
typedef struct gems_layout_input {
    const gems_tensor *tensor;
    bool converted;
} gems_layout_input;
/* The iterator's choice: contiguous if all inputs are, channels_last if all are, the common strides of dense inputs of
 * one shape, else dense in the order of dimensions that the inputs suggest. */
void gems_iterator_strides(const gems_shape *shape, int n, const gems_layout_input *inputs, gems_strides out);

#endif
