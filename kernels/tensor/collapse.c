/* Broadcasting, ordering and merging of dimensions. */
#include "kernels/tensor/collapse.h"

#include <string.h>

bool gems_shape_broadcast(gems_shape *shape, int ndim, const int64_t *sizes)
{
    if (ndim > GEMS_DIMS)
        return false;
    if (ndim > shape->ndim) { /* make room in front */
        int grow = ndim - shape->ndim;
        memmove(shape->size + grow, shape->size, (size_t)shape->ndim * sizeof *shape->size);
        for (int d = 0; d < grow; d++)
            shape->size[d] = 1;
        shape->ndim = ndim;
    }
    shape->numel = 1;
    int64_t *size = shape->size + (shape->ndim - ndim);
    for (int d = 0; d < ndim; d++) {
        if (size[d] == 1)
            size[d] = sizes[d];
        else if (sizes[d] != 1 && sizes[d] != size[d])
            return false;
    }
    for (int d = 0; d < shape->ndim; d++)
        shape->numel = gems_size_times(shape->numel, shape->size[d]);
    return true;
}

void gems_shape_strides(const gems_shape *shape, int ndim, const int64_t *sizes, const int64_t *strides,
                        gems_strides out)
{
    int lead = shape->ndim - ndim;
    for (int d = 0; d < lead; d++)
        out[d] = 0;
    for (int d = 0; d < ndim; d++)
        out[lead + d] = sizes[d] == 1 && shape->size[lead + d] != 1 ? 0 : strides[d];
}

/* Does dimension a vary more slowly than b? 1 yes, -1 no, 0 no operand can tell. */
static int slower(const gems_shape *shape, int n, const gems_strides *strides, int a, int b)
{
    for (int i = 0; i < n; i++) {
        int64_t x = strides[i][a], y = strides[i][b];
        if (x == 0 || y == 0)
            continue;
        if (x != y)
            return x > y ? 1 : -1;
        if (shape->size[a] > shape->size[b]) /* equal strides: one of the two must be short */
            return 1;
    }
    return 0;
}

/* Insertion sort: "cannot tell" leaves a pair as it stands and looks further, so the order is not a total one and the
 * way of sorting is part of the result. */
void gems_order_dims(const gems_shape *shape, int n, const gems_strides *strides, int perm[GEMS_DIMS])
{
    for (int d = 0; d < shape->ndim; d++)
        perm[d] = shape->ndim - 1 - d;
    for (int d = 1; d < shape->ndim; d++) {
        int at = d;
        for (int below = d - 1; below >= 0; below--) {
            int order = slower(shape, n, strides, perm[below], perm[at]);
            if (order < 0)
                break;
            if (order > 0) {
                int t = perm[below];
                perm[below] = perm[at];
                perm[at] = t;
                at = below;
            }
        }
    }
}

/* Does loop `in`, run to its end, arrive for every operand where the next step of dimension d starts? */
static bool merges(const gems_loops *loops, int n, const gems_strides *strides, int in, int d)
{
    for (int i = 0; i < n; i++)
        if (loops->size[in] * loops->stride[i][in] != strides[i][d])
            return false;
    return true;
}

static void merge(const gems_shape *shape, int n, const gems_strides *strides, const int *perm, gems_loops *loops)
{
    int rank = 0;
    for (int k = 0; k < shape->ndim; k++) {
        int d = perm[k];
        if (shape->size[d] == 1)
            continue;
        if (rank > 0 && merges(loops, n, strides, rank - 1, d)) {
            loops->size[rank - 1] *= shape->size[d];
            continue;
        }
        loops->size[rank] = shape->size[d];
        for (int i = 0; i < n; i++)
            loops->stride[i][rank] = strides[i][d];
        rank++;
    }
    if (rank == 0) { /* one element: any stride will do, 1 is the one that dense kernels know */
        loops->size[0] = 1;
        for (int i = 0; i < n; i++)
            loops->stride[i][0] = 1;
        rank = 1;
    }
    loops->rank = rank;
    loops->wide = shape->numel > INT32_MAX;
    for (int i = 0; i < n; i++) {
        int64_t last = 0;
        for (int k = 0; k < rank; k++)
            last += (loops->size[k] - 1) * loops->stride[i][k];
        loops->wide |= last > INT32_MAX;
    }
}

void gems_collapse(const gems_shape *shape, int n, const gems_strides *strides, gems_loops *loops)
{
    int perm[GEMS_DIMS];
    gems_order_dims(shape, n, strides, perm);
    merge(shape, n, strides, perm, loops);
}

void gems_collapse_in_order(const gems_shape *shape, int n, const gems_strides *strides, gems_loops *loops)
{
    int perm[GEMS_DIMS];
    for (int d = 0; d < shape->ndim; d++)
        perm[d] = shape->ndim - 1 - d;
    merge(shape, n, strides, perm, loops);
}
