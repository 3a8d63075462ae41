/* A host without PyTorch: tensors are blocks of malloc, thresholds an array. */
#ifndef GEMS_TEST_FAKE_HOST_H
#define GEMS_TEST_FAKE_HOST_H

#include "kernels/host.h"

#include <stdlib.h>
#include <string.h>

enum {
    FAKE_DIMS = 8
};

/* A tensor with its memory; gems_tensor.host points to it. */
typedef struct fake_tensor {
    int64_t sizes[FAKE_DIMS], strides[FAKE_DIMS];
    gems_dtype part; /* of a complex one */
    max_align_t data[];
} fake_tensor;

static int64_t fake_min_numel[4096];

static inline bool fake_tensor_make(gems_tensor *t, gems_dtype dtype, bool complex, int ndim, const int64_t *sizes,
                                    const int64_t *strides)
{
    *t = (gems_tensor){.ndim = ndim, .dtype = complex ? GEMS_DTYPE_NONE : dtype, .numel = 1};
    int64_t dense[FAKE_DIMS];
    for (int d = ndim - 1; d >= 0; d--) {
        dense[d] = t->numel;
        t->numel *= sizes[d];
    }
    t->sizes = sizes;
    t->strides = strides ? strides : dense;
    fake_tensor *made = calloc(1, sizeof *made + (size_t)gems_tensor_span(t) * gems_dtypes[dtype].size * (complex + 1));
    if (!made)
        return false;
    memcpy(made->sizes, sizes, (size_t)ndim * sizeof *sizes);
    memcpy(made->strides, t->strides, (size_t)ndim * sizeof *sizes);
    made->part = dtype;
    t->sizes = made->sizes;
    t->strides = made->strides;
    t->address = (uintptr_t)made->data;
    t->host = made;
    return true;
}

static inline bool fake_make(gems_call *call, unsigned i, gems_dtype dtype, bool complex, int ndim,
                             const int64_t *sizes, const int64_t *strides)
{
    return fake_tensor_make(&call->result[i], dtype, complex, ndim, sizes, strides);
}

static inline bool fake_is_complex(const gems_tensor *t, gems_dtype part)
{
    return t->dtype == GEMS_DTYPE_NONE && ((fake_tensor *)t->host)->part == part;
}

static inline void fake_drop(gems_tensor *t)
{
    free(t->host);
}

static inline gems_dtype fake_default_dtype(void)
{
    return GEMS_F32;
}

static inline void fake_set_min_numel(unsigned op, int64_t min_numel)
{
    __atomic_store_n(&fake_min_numel[op], min_numel, __ATOMIC_RELEASE);
}

static const gems_host fake_host = {fake_make, fake_is_complex, fake_drop, fake_default_dtype, fake_set_min_numel};

#endif
