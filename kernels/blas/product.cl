/* What kernels of matrix products have in common: C = alpha A B + beta D over batches, dimension 2 of the grid. Strides
 * are in elements. D is the dtype, S the type of alpha and beta; FLOAT: they are floating point. */
#include "kernels/dtype.cl"

#ifdef FLOAT
#define MAD(x, y, z) fma(x, y, z)
#else
#define MAD(x, y, z) ((x) * (y) + (z))
#endif

#define MATRICES                                                                                                       \
    GEMS_SHARED_BUFFER(const MEM, a), GEMS_SHARED_BUFFER(const MEM, b), GEMS_SHARED_BUFFER(MEM, c),                    \
        GEMS_SHARED_BUFFER(const MEM, d)
#define FACTORS                                                                                                        \
    long a_row, long a_col, long b_row, long b_col, long c_row, long c_col, long d_row, long d_col, long a_batch,      \
        long b_batch, long c_batch, long d_batch, S alpha, S beta, int add
#define OPEN                                                                                                           \
    GEMS_AT(const MEM, a);                                                                                             \
    GEMS_AT(const MEM, b);                                                                                             \
    GEMS_AT(MEM, c);                                                                                                   \
    GEMS_AT(const MEM, d);                                                                                             \
    const long z = get_group_id(2);                                                                                    \
    a += z * a_batch, b += z * b_batch, c += z * c_batch, d += z * d_batch
