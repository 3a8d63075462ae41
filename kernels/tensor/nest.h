/* Sets of dimensions as a loop nest, for families that split a tensor's dimensions into kept and reduced ones
 * (reductions, softmax, norms, scans). The device side is nest.cl. */
#ifndef GEMS_NEST_H
#define GEMS_NEST_H

#include "kernels/tensor/tensor.h"

#define GEMS_NEST_RANK 8

/* Loops, outermost first; sizes above 1, no two neighbours that could be one loop. Rank 0: a single element. The same
 * struct in device code (nest.cl). */
typedef struct gems_nest {
    int64_t size[GEMS_NEST_RANK];
    int64_t stride[GEMS_NEST_RANK]; /* elements */
    int64_t rank;
} gems_nest;

/* The dimensions of `t` whose bit in `dims` is set, in their order. False: more than GEMS_NEST_RANK loops remain. */
bool gems_nest_dims(const gems_tensor *t, uint64_t dims, gems_nest *nest);
/* Orders the loops by falling stride, and merges again: for uses where the order of visits is free. */
void gems_nest_sort(gems_nest *nest);
/* Takes the innermost loop off: its size and stride, or 1 and 1 if there is none. */
void gems_nest_split_inner(gems_nest *nest, int64_t *size, int64_t *stride);
/* Product of the sizes. */
int64_t gems_nest_count(const gems_nest *nest);
/* Offset in elements of the i-th visit. */
int64_t gems_nest_offset(const gems_nest *nest, int64_t i);

#endif
