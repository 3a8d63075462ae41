/* From operands of any shape and strides to the fewest loops that visit all their elements: broadcasting, the order of
 * dimensions that the host's iterator would take, and merging. Nothing here allocates. */
#ifndef GEMS_COLLAPSE_H
#define GEMS_COLLAPSE_H

#include "kernels/tensor/tensor.h"

#define GEMS_DIMS     16 /* dimensions before merging */
#define GEMS_RANK     8  /* loops after it */
#define GEMS_OPERANDS 40 /* of one kernel */

/* Strides are in elements; 0 where an operand is broadcast. */
typedef int64_t gems_strides[GEMS_DIMS];

typedef struct gems_shape {
    int ndim;
    int64_t numel;
    int64_t size[GEMS_DIMS];
} gems_shape;

/* Starts as a shape of no dimensions; each tensor's shape is broadcast into it. False: the shapes do not fit, or there
 * are more than GEMS_DIMS dimensions. */
#define GEMS_SHAPE_START ((gems_shape){.numel = 1})
bool gems_shape_broadcast(gems_shape *shape, int ndim, const int64_t *sizes);

/* Strides of a tensor seen with the larger shape; 0 along dimensions of size 1 that the shape makes longer. */
void gems_shape_strides(const gems_shape *shape, int ndim, const int64_t *sizes, const int64_t *strides,
                        gems_strides out);

/* perm[0] is the dimension that varies fastest in memory, as the host's iterator orders them: by the strides of the
 * first operand that tells two dimensions apart; zero strides tell nothing; else the later dimension is the faster. */
void gems_order_dims(const gems_shape *shape, int n, const gems_strides *strides, int perm[GEMS_DIMS]);

/* The loops: size[0] is the innermost. Dimensions of size 1 are gone; rank is at least 1. */
typedef struct gems_loops {
    int rank;
    int64_t size[GEMS_DIMS];
    gems_strides stride[GEMS_OPERANDS];
    bool wide; /* some offset or the number of elements does not fit in 31 bits */
} gems_loops;

/* Orders and merges. n: operands, strides[i] as gems_shape_strides gives them; outputs should come first. */
void gems_collapse(const gems_shape *shape, int n, const gems_strides *strides, gems_loops *loops);
/* Only merges: the loops visit the elements in the shape's own order, the last dimension fastest. */
void gems_collapse_in_order(const gems_shape *shape, int n, const gems_strides *strides, gems_loops *loops);

#endif
