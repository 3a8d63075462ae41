/* Nested loops over dimensions, as the launchers pass them by value (kernels/fold.h has the same struct). */
#ifndef GEMS_FOLD_CL
#define GEMS_FOLD_CL

typedef struct {
    long size[8];
    long stride[8];
    long rank;
} gems_fold;

/* Offset in elements of the i-th visit. */
static inline long gems_fold_offset(const gems_fold *f, long i)
{
    long offset = 0;
    for (long d = f->rank - 1; d > 0; d--) {
        long q = i / f->size[d];
        offset += (i - q * f->size[d]) * f->stride[d];
        i = q;
    }
    return f->rank > 0 ? offset + i * f->stride[0] : 0;
}

#endif
