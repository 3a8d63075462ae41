/* What both kernels of attention have in common: types and arguments. D is the dtype, MD that of the mask. Strides of q,
 * k, v, mask and out: batch, head, row, column. */
#include "kernels/dtype.cl"

#define MASK GEMS_CAT(mem_, MD)
#ifdef DOUBLE
#define NUM2 double2
#define NUM4 double4
#define NUM8 double8
#else
#define NUM2 float2
#define NUM4 float4
#define NUM8 float8
#endif

#define ARGS                                                                                                           \
    GEMS_BUFFER(const MEM, q), GEMS_BUFFER(const MEM, k), GEMS_BUFFER(const MEM, v), GEMS_BUFFER(const MASK, mask),    \
        GEMS_BUFFER(MEM, out), GEMS_BUFFER(NUM, lse), int queries, int keys, int head, int share, int bq, int causal,  \
        int masked, NUM scale, long q0, long q1, long q2, long q3, long k0, long k1, long k2, long k3, long v0,        \
        long v1, long v2, long v3, long m0, long m1, long m2, long m3, long o0, long o1, long o2, long o3
#define OPEN                                                                                                           \
    GEMS_AT(const MEM, q);                                                                                             \
    GEMS_AT(const MEM, k);                                                                                             \
    GEMS_AT(const MEM, v);                                                                                             \
    GEMS_AT(const MASK, mask);                                                                                         \
    GEMS_AT(MEM, out);                                                                                                 \
    GEMS_AT(NUM, lse)
