/* A loop nest over dimensions, as launchers pass it by value (kernels/tensor/nest.h has the same struct). */
#ifndef GEMS_NEST_CL
#define GEMS_NEST_CL

typedef struct {
    long size[8];
    long stride[8];
    long rank;
} gems_nest;

/* Offset in elements of the i-th visit. Written without a variable index: Mesa's llvmpipe cannot index arguments. */
#define GEMS_NEST_STEP(d)                                                                                              \
    if (nest->rank > d) {                                                                                              \
        q = i / nest->size[d];                                                                                         \
        offset += (i - q * nest->size[d]) * nest->stride[d];                                                           \
        i = q;                                                                                                         \
    }
static long gems_nest_walk(const gems_nest *nest, long i)
{
    long offset = 0, q;
    GEMS_NEST_STEP(7)
    GEMS_NEST_STEP(6)
    GEMS_NEST_STEP(5)
    GEMS_NEST_STEP(4)
    GEMS_NEST_STEP(3)
    GEMS_NEST_STEP(2)
    GEMS_NEST_STEP(1)
    return offset + i * nest->stride[0];
}
/* Most calls have one loop or none (whose stride is 0). */
static inline __attribute__((always_inline)) long gems_nest_offset(const gems_nest *nest, long i)
{
    return nest->rank <= 1 ? i * nest->stride[0] : gems_nest_walk(nest, i);
}

#endif
