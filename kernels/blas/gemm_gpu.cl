/* Matrix product for GPUs, and for any device: C = alpha A B + beta D. A group of GX x GY work-items makes a block of
 * TM x TN of C, each of them TM / GY x TN / GX elements in registers; blocks of TK of A and B go through local memory,
 * and the next ones are fetched from global memory while the present ones are multiplied.
 *
 * A work-item's rows are four neighbours, then four neighbours 4 GY further on, and so on; columns alike: local memory is
 * read in vectors of four without bank conflicts, C is written in runs. With FLUSH the sums go to a second set every
 * FLUSH elements of k, so that the rounding error of long sums grows as in a blocked BLAS.
 *
 * Given: D the dtype, S the type of alpha and beta, FLOAT for floating point, TM, TN, TK, GX, GY: TM a multiple of 4 GY,
 * TN of 4 GX, TM * TK and TN * TK of GX * GY. Traffic: A is read n / TN times, B m / TM times. */
#include "kernels/blas/product.cl"

#ifndef TM
#define TM 64
#define TN 64
#define TK 16
#define GX 16
#define GY 16
#endif

/* Arrays belong in registers; where a CPU runs this the compiler may take its time elsewhere. */
#ifdef GEMS_CPU
#define UNROLL
#else
#define UNROLL _Pragma("unroll")
#endif

#define GROUP (GX * GY)
#define PM (TM / GY)        /* rows of a work-item */
#define PN (TN / GX)        /* columns */
#define FA (TM * TK / GROUP) /* elements of A that a work-item fetches */
#define FB (TN * TK / GROUP)
#define ROW(x) ((x) / 4 * 4 * GY + 4 * ty + (x) % 4)
#define COL(y) ((y) / 4 * 4 * GX + 4 * tx + (y) % 4)

/* Element e of a block of `wide` x TK: its place across (row of A, column of B) and along k. Neighbouring work-items
 * take neighbours in memory, whichever way the matrix lies. */
#define ACROSS(e, wide, k_first) ((k_first) ? (e) / TK : (e) % (wide))
#define ALONG(e, wide, k_first) ((k_first) ? (e) % TK : (e) / (wide))

__kernel __attribute__((reqd_work_group_size(GX, GY, 1))) void
gemm(MATRICES, int m, int n, int k, FACTORS)
{
    OPEN;
    __local NUM at[TK][TM + 4] __attribute__((aligned(16)));
    __local NUM bt[TK][TN + 4] __attribute__((aligned(16)));
    int tx = get_local_id(0), ty = get_local_id(1), l = ty * GX + tx;
    int n0 = get_group_id(0) * TN, m0 = get_group_id(1) * TM;
    bool a_k = a_col == 1, b_k = b_row == 1 && b_col != 1;

    NUM acc[PM][PN], fa[FA], fb[FB];
#ifdef FLUSH
    NUM sum[PM][PN];
#endif
    UNROLL for (int x = 0; x < PM; x++)
        UNROLL for (int y = 0; y < PN; y++)
        {
            acc[x][y] = 0;
#ifdef FLUSH
            sum[x][y] = 0;
#endif
        }

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
        UNROLL for (int p = 0; p < TK; p++)
        {
            NUM x[PM], y[PN];
            UNROLL for (int i = 0; i < PM; i += 4) vstore4(vload4(0, &at[p][ROW(i)]), 0, x + i);
            UNROLL for (int j = 0; j < PN; j += 4) vstore4(vload4(0, &bt[p][COL(j)]), 0, y + j);
            UNROLL for (int i = 0; i < PM; i++)
                UNROLL for (int j = 0; j < PN; j++) acc[i][j] = MAD(x[i], y[j], acc[i][j]);
        }
#ifdef FLUSH
        if ((k0 + TK) % FLUSH == 0)
            UNROLL for (int i = 0; i < PM; i++)
                UNROLL for (int j = 0; j < PN; j++) sum[i][j] += acc[i][j], acc[i][j] = 0;
#endif
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    UNROLL for (int x = 0; x < PM; x++)
        UNROLL for (int y = 0; y < PN; y++)
        {
            int i = m0 + ROW(x), j = n0 + COL(y);
            if (i >= m || j >= n)
                continue;
            NUM t = acc[x][y];
#ifdef FLUSH
            t += sum[x][y];
#endif
            t *= (NUM)alpha;
            if (add)
                t = MAD((NUM)beta, LOAD(d, i * d_row + j * d_col), t);
            STORE(c, i * c_row + j * c_col, t);
        }
}
