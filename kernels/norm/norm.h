/* What norms over trailing dimensions and their gradients share. */
#ifndef GEMS_NORM_H
#define GEMS_NORM_H

#include "kernels/tensor/nest.h"
#include "kernels/work/launcher.h"

/* The input's leading dimensions, each place in which is a row, and the elements of a row. NULL, or why there is no
 * kernel for an input and a normalized shape like these. */
const char *gems_norm_split(const gems_value *input, const gems_value *shape, uint8_t *outer_dims, int64_t *n);
/* A weight or bias: contiguous with the normalized shape, and of *dtype, which the first one sets (GEMS_DTYPE_NONE
 * before). NULL, or why not. */
const char *gems_norm_affine(const gems_value *v, const gems_value *shape, uint8_t *dtype);
/* Where rows begin in a tensor, and the stride in one. False: a row is not one walk through memory. */
bool gems_norm_rows(const gems_tensor *t, int outer_dims, gems_nest *rows, int64_t *stride);
/* Work-items for a row where it is a group's: at least a quarter of its elements, from 32 to 256. */
size_t gems_norm_group(const gems_device_info *device, int64_t n);
/* For a device file's IF_...(...): what stands in it is kept if `there`. */
static inline const char *gems_norm_if(bool there)
{
    return there ? "__VA_ARGS__" : "";
}

#endif
