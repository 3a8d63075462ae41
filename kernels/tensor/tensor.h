/* A tensor as kernels see it, and questions about where its elements lie. Nothing here looks at an element. */
#ifndef GEMS_TENSOR_H
#define GEMS_TENSOR_H

#include "kernels/tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>

/* A strided view of memory. Borrowed: it lives as long as the call. */
typedef struct gems_tensor {
    uintptr_t address;      /* of the first element, as the host knows it; to read there: kernels/memory/host.h */
    const int64_t *sizes;   /* ndim of them */
    const int64_t *strides; /* in elements, never negative */
    int64_t numel;
    int32_t ndim;
    gems_dtype dtype; /* GEMS_DTYPE_NONE: decline */
    bool wrapped;     /* a Python number wrapped into a 0-dim tensor: weakest priority in promotion */
    void *host;       /* the host's object: at::Tensor * */
} gems_tensor;

/* Expanded tensors cost no memory, so that counts of elements and bytes may pass INT64_MAX: these stop there. Of
 * numbers that are not negative. */
static inline int64_t gems_size_times(int64_t a, int64_t b)
{
    int64_t c;
    return __builtin_mul_overflow(a, b, &c) ? INT64_MAX : c;
}
static inline int64_t gems_size_plus(int64_t a, int64_t b)
{
    int64_t c;
    return __builtin_add_overflow(a, b, &c) ? INT64_MAX : c;
}
/* Pieces of b > 0 elements that hold a. */
static inline int64_t gems_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b; /* NOLINT(clang-analyzer-core.DivideZero): no caller has 0 */
}
/* Bytes of n elements. */
static inline int64_t gems_size_bytes(int64_t n, gems_dtype dtype)
{
    return gems_size_times(n, gems_dtypes[dtype].size);
}

/* True if the elements lie one after another in row-major order (sizes of 1 ignored). */
bool gems_tensor_is_contiguous(const gems_tensor *t);
/* True if the elements fill one block without gaps or overlap, in some order of dimensions. */
bool gems_tensor_is_dense(const gems_tensor *t);
/* Number of elements from the first to the last in memory, both included; 0 if empty. */
int64_t gems_tensor_span(const gems_tensor *t);
/* Can two index tuples mean the same element? True also where it is not easily excluded (strides that interleave). */
bool gems_tensor_overlaps_itself(const gems_tensor *t);

typedef enum gems_overlap {
    GEMS_APART,
    GEMS_IDENTICAL,
    GEMS_OVERLAP
} gems_overlap;
/* APART: memory ranges do not touch, or one tensor is empty. IDENTICAL: same address, shape, strides and element size.
 */
gems_overlap gems_tensor_overlap(const gems_tensor *a, const gems_tensor *b);

/* `dim` of a tensor with ndim dimensions, negative ones counted from the end; -1 if out of range. A 0-dim tensor takes
 * -1 and 0, both giving 0. */
int gems_wrap_dim(int64_t dim, int ndim);

#endif
