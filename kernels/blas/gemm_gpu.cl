/* Matrix product for GPUs, and for any device: C = alpha A B + beta D. A group of GX x GY work-items makes a block of
 * TM x TN of C (block.cl); blocks of TK of A and B go through local memory, and the next ones are fetched from global
 * memory while the present ones are multiplied. C is written in runs.
 *
 * Given: D the dtype, S the type of alpha and beta, FLOAT for floating point, TM, TN, TK, GX, GY: TM a multiple of 4 GY,
 * TN of 4 GX, TM * TK and TN * TK of GX * GY. REST: only the blocks that hold something which is not right by parts.
 * Traffic: A is read n / TN times, B m / TM times. */
#include "kernels/blas/product.cl"

#ifndef TM
#define TM 64
#define TN 64
#define TK 16
#define GX 16
#define GY 16
#endif

#include "kernels/block.cl"
#ifdef REST
#include "kernels/parts.cl"
#endif

#define FA (TM * TK / GROUP) /* elements of A that a work-item fetches */
#define FB (TN * TK / GROUP)

/* Element e of a block of `wide` x TK: its place across (row of A, column of B) and along k. Neighbouring work-items
 * take neighbours in memory, whichever way the matrix lies. */
#define ACROSS(e, wide, k_first) ((k_first) ? (e) / TK : (e) % (wide))
#define ALONG(e, wide, k_first) ((k_first) ? (e) % TK : (e) / (wide))

__kernel __attribute__((reqd_work_group_size(GX, GY, 1))) void
gemm(MATRICES,
#ifdef REST
     GEMS_SHARED_BUFFER(const ushort, rows), GEMS_SHARED_BUFFER(const ushort, columns), int pitch,
#endif
     int m, int n, int k, FACTORS)
{
    OPEN;
    __local NUM at[TK][TM + 4] __attribute__((aligned(16)));
    __local NUM bt[TK][TN + 4] __attribute__((aligned(16)));
    int tx = get_local_id(0), ty = get_local_id(1), l = ty * GX + tx;
    int n0 = get_group_id(0) * TN, m0 = get_group_id(1) * TM;
#ifdef REST
    GEMS_AT(const ushort, rows);
    GEMS_AT(const ushort, columns);
    const long parts = get_num_groups(2) * 2 * (long)pitch; /* of a line of all batches */
    const __global int4 *row_lines = (const __global int4 *)(rows + parts * m) + z * m,
                        *column_lines = (const __global int4 *)(columns + parts * n) + z * n;
    __local int kinds[2];
    if (l < 2)
        kinds[l] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    int row_kinds = 0, column_kinds = 0;
    for (int i = l; i < min(TM, m - m0); i += GROUP)
        row_kinds |= parts_kind(row_lines[m0 + i], k);
    for (int j = l; j < min(TN, n - n0); j += GROUP)
        column_kinds |= parts_kind(column_lines[n0 + j], k);
    if (row_kinds)
        atomic_or(&kinds[0], row_kinds);
    if (column_kinds)
        atomic_or(&kinds[1], column_kinds);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (!parts_refuse(kinds[0], kinds[1]))
        return;
#endif
    bool a_k = a_col == 1, b_k = b_row == 1 && b_col != 1;

    NUM fa[FA], fb[FB];
    BLOCK_SUMS

#define FETCH(k0)                                                                                                      \
    UNROLL for (int f = 0; f < FA; f++)                                                                                \
    {                                                                                                                  \
        int e = f * GROUP + l, i = m0 + ACROSS(e, TM, a_k), p = (k0) + ALONG(e, TM, a_k);                              \
        fa[f] = i < m && p < k ? LOAD(a, i * a_row + p * a_col) : (NUM)0;                                              \
    }                                                                                                                  \
    UNROLL for (int f = 0; f < FB; f++)                                                                                \
    {                                                                                                                  \
        int e = f * GROUP + l, j = n0 + ACROSS(e, TN, b_k), p = (k0) + ALONG(e, TN, b_k);                              \
        fb[f] = j < n && p < k ? LOAD(b, p * b_row + j * b_col) : (NUM)0;                                              \
    }

    FETCH(0)
    for (int k0 = 0; k0 < k; k0 += TK) {
        UNROLL for (int f = 0; f < FA; f++)
        {
            int e = f * GROUP + l;
            at[ALONG(e, TM, a_k)][ACROSS(e, TM, a_k)] = fa[f];
        }
        UNROLL for (int f = 0; f < FB; f++)
        {
            int e = f * GROUP + l;
            bt[ALONG(e, TN, b_k)][ACROSS(e, TN, b_k)] = fb[f];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        FETCH(k0 + TK)
        BLOCK_ADD(at, bt, k0 + TK)
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    UNROLL for (int x = 0; x < PM; x++)
        UNROLL for (int y = 0; y < PN; y++)
        {
            int i = m0 + ROW(x), j = n0 + COL(y);
            if (i >= m || j >= n)
                continue;
            NUM t = BLOCK_SUM(x, y) * (NUM)alpha;
            if (add)
                t = MAD((NUM)beta, LOAD(d, i * d_row + j * d_col), t);
            STORE(c, i * c_row + j * c_col, t);
        }
}
