/* Matrix product for CPUs: C = alpha A B + beta D, one work-item a block of C, groups of one work-item.
 *
 * A work-item walks k in blocks of KC. For each it copies its rows of A and, 16 * NV columns at a time, its part of B
 * into local memory, in the arithmetic type and in the order in which they are used; so every stride and dtype costs
 * the same but for the copy. The innermost loop holds MR x NV vectors of sums in registers. Sums of one block of k are
 * added to those of the blocks before it: two levels, so that the rounding error grows as in a blocked BLAS.
 *
 * Given: D the dtype, S the type of alpha and beta, MC, NC, KC the largest block (multiples of 16), FLOAT for floating
 * point. Assumes groups of one work-item. Traffic: A is read N / nc times, B M / mc times. */
#include "kernels/blas/product.cl"

#ifndef MC
#define MC 96
#define NC 256
#define KC 256
#endif

#include "kernels/block_cpu.cl"

/* Dimension 0: blocks of rows, 1: of columns. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
gemm(MATRICES, int m, int n, int k, int mc, int nc, FACTORS)
{
    OPEN;
    __local NUM at[MPAD * KPAD] __attribute__((aligned(64)));
    __local NUM bt[KC * NR] __attribute__((aligned(64)));
    __local NUM sum[MPAD * NC] __attribute__((aligned(64)));

    int m0 = get_group_id(0) * mc, n0 = get_group_id(1) * nc;
    int rows = min(mc, m - m0), cols = min(nc, n - n0);
    int padded = (rows + MR - 1) / MR * MR;
    a += m0 * a_row;
    b += n0 * b_col;
    c += m0 * c_row + n0 * c_col;
    d += m0 * d_row + n0 * d_col;
    bool vectors = c_col == 1 && (!add || d_col == 1);

    /* k == 0 makes one empty round, which stores beta D. */
    for (int k0 = 0; k0 == 0 || k0 < k; k0 += KC) {
        int depth = min(KC, k - k0);
        bool last = k0 + KC >= k;
        gems_pack(at, KPAD, padded, depth, a + k0 * a_col, a_row, a_col, rows, depth);
        for (int j = 0; j < cols; j += NR) {
            int width = min((int)NR, cols - j);
            gems_pack(bt, NR, depth, NR, b + k0 * b_row + j * b_col, b_row, b_col, depth, width);
            for (int i = 0; i < rows; i += MR) {
                BLOCK_SUMS(at + i * KPAD, KPAD, bt, depth)
                _Pragma("unroll") for (int r = 0; r < MR; r++)
                    _Pragma("unroll") for (int v = 0; v < NV; v++)
                {
                    int left = width - 16 * v;
                    if (i + r >= rows || left <= 0)
                        continue;
                    NUM16 t = acc[r][v];
                    __local NUM *s = sum + (i + r) * NC + j + 16 * v;
                    if (k0)
                        t += vload16(0, s);
                    if (!last) {
                        vstore16(t, 0, s);
                        continue;
                    }
                    long co = (i + r) * c_row + (j + 16 * v) * c_col, dof = (i + r) * d_row + (j + 16 * v) * d_col;
                    if (vectors && left >= 16) {
                        t = (NUM16)((NUM)alpha) * t;
                        if (add)
                            t = MAD((NUM16)((NUM)beta), LOAD16(d, dof), t);
                        STORE16(c, co, t);
                        continue;
                    }
                    vstore16(t, 0, s);
                    for (int x = 0; x < min(left, 16); x++) {
                        NUM u = (NUM)alpha * s[x];
                        if (add)
                            u = MAD((NUM)beta, LOAD(d, dof + x * d_col), u);
                        STORE(c, co + x * c_col, u);
                    }
                }
            }
        }
    }
}
