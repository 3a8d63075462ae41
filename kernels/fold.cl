/* Nested loops over dimensions, as the launchers pass them by value (kernels/tensor/fold.h has the same struct). */
#ifndef GEMS_FOLD_CL
#define GEMS_FOLD_CL

typedef struct {
    long size[8];
    long stride[8];
    long rank;
} gems_fold;

/* Offset in elements of the i-th visit. Written without a variable index: Mesa's llvmpipe cannot index arguments. */
#define GEMS_FOLD_STEP(d)                                                                                              \
    if (f->rank > d) {                                                                                                 \
        q = i / f->size[d];                                                                                            \
        offset += (i - q * f->size[d]) * f->stride[d];                                                                 \
        i = q;                                                                                                         \
    }
static long gems_fold_nested(const gems_fold *f, long i)
{
    long offset = 0, q;
    GEMS_FOLD_STEP(7)
    GEMS_FOLD_STEP(6)
    GEMS_FOLD_STEP(5)
    GEMS_FOLD_STEP(4)
    GEMS_FOLD_STEP(3)
    GEMS_FOLD_STEP(2)
    GEMS_FOLD_STEP(1)
    return offset + i * f->stride[0];
}
/* Most calls have one loop or none (whose stride is 0). */
static inline __attribute__((always_inline)) long gems_fold_offset(const gems_fold *f, long i)
{
    return f->rank <= 1 ? i * f->stride[0] : gems_fold_nested(f, i);
}

#endif
