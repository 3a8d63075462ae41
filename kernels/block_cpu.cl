/* A block of a product in registers, for CPUs: MR rows of NV vectors of 16 sums, from rows and columns that are packed in
 * local memory in the order in which they are used. NV vectors of columns and one of rows must fit the registers beside
 * them: 32 of 16 floats, or 16 of 8.
 *
 * Given: D the dtype, MC, KC the most rows and terms of what is packed; MAD(x, y, z). */
#ifndef GEMS_BLOCK_CPU_CL
#define GEMS_BLOCK_CPU_CL

#include "kernels/dtype.cl"
#include "kernels/pack.cl"

#ifndef MR
#ifdef __AVX512F__
#define MR 8
#define NV (sizeof(NUM) > 4 ? 1 : 2)
#else
#define MR (sizeof(NUM) > 4 ? 3 : 6)
#define NV 1
#endif
#endif
#define NR (16 * NV)
#define MPAD (MC + 16) /* room to round the rows up to MR */
#define KPAD (KC + 16) /* rows must not all fall into the same cache sets */

/* The sums of `depth` terms: rows[MR][pitch], cols[depth][NR]. */
#define BLOCK_SUMS(rows, pitch, cols, depth)                                                                           \
    NUM16 acc[MR][NV];                                                                                                 \
    _Pragma("unroll") for (int r = 0; r < MR; r++)                                                                     \
        _Pragma("unroll") for (int v = 0; v < NV; v++) acc[r][v] = 0;                                                  \
    for (int p = 0; p < (depth); p++) {                                                                                \
        NUM16 y_[NV];                                                                                                  \
        _Pragma("unroll") for (int v = 0; v < NV; v++) y_[v] = vload16(v, (cols) + p * NR);                            \
        _Pragma("unroll") for (int r = 0; r < MR; r++)                                                                 \
            _Pragma("unroll") for (int v = 0; v < NV; v++)                                                             \
                acc[r][v] = MAD((NUM16)((rows)[r * (pitch) + p]), y_[v], acc[r][v]);                                   \
    }

#endif
