/* Products with few rows: C = alpha A B + beta D for at most ROWS rows of A, which is bound by reading B once.
 *
 * Four kernels, for any device. All take the same arguments and split k in get_num_groups(1) parts of `part`:
 *   gemv_cols  B's columns are neighbours in memory: a work-item sums COLS columns down k
 *   gemv_rows  any B, best where k runs along memory: a group of `lanes` work-items shares a column of B
 *   gemv_lines the same of f32 whose columns begin at multiples of 16 bytes: work-items read 16 bytes at a time
 *   gemv_sum   adds the parts, in order, and finishes. If there is one part the first two finish themselves.
 * Sums of parts lie in `parts`, [part][batch][row][column], in the arithmetic type.
 *
 * Given: D the dtype, S the type of alpha and beta, ROWS, COLS a multiple of 16, FLOAT for floating point, GROUP the
 * work-items of a group of gemv_rows. Batches are dimension 2. */
#include "kernels/blas/product.cl"

#ifndef ROWS
#define ROWS 1
#endif
#ifndef COLS
#define COLS 64
#endif
#ifndef GROUP
#define GROUP 1
#endif
#define NV (COLS / 16)
#define BLOCK 64                 /* elements of k that gemv_cols sums before it adds them to the rest: less rounding */
#define WIDE (ROWS > 2 ? 2 : 4) /* columns that one group of gemv_rows does at a time */

#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("nounroll")

#define PROBLEM MATRICES, GEMS_SHARED_BUFFER(NUM, parts), int m, int n, int k, int part, int nparts, FACTORS
#define BATCHED                                                                                                        \
    OPEN;                                                                                                              \
    GEMS_AT(NUM, parts)

#define FINISH(i, j, t)                                                                                                \
    do {                                                                                                               \
        NUM u_ = (NUM)alpha * (t);                                                                                     \
        if (add)                                                                                                       \
            u_ = MAD((NUM)beta, LOAD(d, (i) * d_row + (j) * d_col), u_);                                               \
        STORE(c, (i) * c_row + (j) * c_col, u_);                                                                       \
    } while (0)
#define PART(i, j, t) parts[(((long)get_group_id(1) * get_num_groups(2) + z) * m + (i)) * n + (j)] = (t)
#define RESULT(i, j, t)                                                                                                \
    do {                                                                                                               \
        if (nparts == 1)                                                                                               \
            FINISH(i, j, t);                                                                                           \
        else                                                                                                           \
            PART(i, j, t);                                                                                             \
    } while (0)

/* Dimension 0: work-items of COLS columns each (b_col is 1). */
__kernel void gemv_cols(PROBLEM)
{
    BATCHED;
    int j0 = (int)get_global_id(0) * COLS;
    int k0 = (int)get_group_id(1) * part, k1 = min(k, k0 + part);
    if (j0 >= n)
        return;
    if (j0 + COLS <= n) {
        NUM16 sum[ROWS][NV];
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int v = 0; v < NV; v++) sum[r][v] = 0;
        for (int q = k0; q < k1; q += BLOCK) {
            NUM16 acc[ROWS][NV];
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int v = 0; v < NV; v++) acc[r][v] = 0;
            for (int p = q; p < min(k1, q + BLOCK); p++) {
                NUM16 y[NV];
                UNROLL for (int v = 0; v < NV; v++) y[v] = LOAD16(b, p * b_row + j0 + 16 * v);
                UNROLL for (int r = 0; r < ROWS; r++)
                {
                    NUM16 x = LOAD(a, min(r, m - 1) * a_row + p * a_col);
                    UNROLL for (int v = 0; v < NV; v++) acc[r][v] = MAD(x, y[v], acc[r][v]);
                }
            }
            UNROLL for (int r = 0; r < ROWS; r++)
                UNROLL for (int v = 0; v < NV; v++) sum[r][v] += acc[r][v];
        }
        NUM t[ROWS * COLS];
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int v = 0; v < NV; v++) vstore16(sum[r][v], r * NV + v, t);
        NO_UNROLL for (int x = 0; x < m * COLS; x++)
            RESULT(x / COLS, j0 + x % COLS, t[x]);
    } else
        for (int r = 0; r < m; r++)
            for (int j = j0; j < n; j++) {
                NUM t = 0;
                for (int q = k0; q < k1; q += BLOCK) {
                    NUM u = 0;
                    for (int p = q; p < min(k1, q + BLOCK); p++)
                        u = MAD(LOAD(a, r * a_row + p * a_col), LOAD(b, p * b_row + j), u);
                    t += u;
                }
                RESULT(r, j, t);
            }
}

/* 16 elements along k. */
static inline NUM16 gather(const __global MEM *p, long at, long step)
{
    if (step == 1)
        return LOAD16(p, at);
    NUM t[16];
    for (int x = 0; x < 16; x++)
        t[x] = LOAD(p, at + x * step);
    return vload16(0, t);
}
/* Their sum, by halves. */
static inline NUM total(NUM16 v)
{
    NUM t[16];
    vstore16(v, 0, t);
    UNROLL for (int w = 8; w; w /= 2)
        UNROLL for (int x = 0; x < w; x++) t[x] += t[x + w];
    return t[0];
}

/* Dimension 0: groups of GROUP work-items, WIDE columns each. Work-item l takes 16 elements of k of every 16 GROUP. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void gemv_rows(PROBLEM)
{
    BATCHED;
    __local NUM sums[GROUP];
    int l = get_local_id(0), j0 = (int)get_group_id(0) * WIDE;
    int k0 = (int)get_group_id(1) * part, k1 = min(k, k0 + part);
    NUM16 acc[ROWS][WIDE];
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int w = 0; w < WIDE; w++) acc[r][w] = 0;
    int p = k0 + 16 * l;
    for (; p + 16 <= k1; p += 16 * GROUP) {
        NUM16 y[WIDE];
        UNROLL for (int w = 0; w < WIDE; w++) y[w] = gather(b, p * b_row + min(j0 + w, n - 1) * b_col, b_row);
        UNROLL for (int r = 0; r < ROWS; r++)
        {
            NUM16 x = gather(a, min(r, m - 1) * a_row + p * a_col, a_col);
            UNROLL for (int w = 0; w < WIDE; w++) acc[r][w] = MAD(x, y[w], acc[r][w]);
        }
    }
    NUM t[ROWS * WIDE];
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int w = 0; w < WIDE; w++) t[r * WIDE + w] = total(acc[r][w]);
    NO_UNROLL for (int x = 0; x < m * WIDE; x++)
    {
        int r = x / WIDE, j = j0 + x % WIDE;
        if (j >= n)
            continue;
        NUM u = t[x];
        for (int q = p; q < k1 && q < p + 16; q++) /* the last, short piece is one work-item's */
            u = MAD(LOAD(a, r * a_row + q * a_col), LOAD(b, q * b_row + j * b_col), u);
#if GROUP > 1
        sums[l] = u;
        for (int half_ = GROUP / 2; half_; half_ /= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (l < half_)
                sums[l] += sums[l + half_];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        u = sums[0];
        barrier(CLK_LOCAL_MEM_FENCE);
#endif
        if (l == 0)
            RESULT(r, j, u);
    }
}

/* As gemv_rows, where B's columns and A's rows are float4. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void gemv_lines(PROBLEM)
{
    BATCHED;
    __local NUM sums[ROWS * WIDE][GROUP];
    const int l = get_local_id(0), j0 = (int)get_group_id(0) * WIDE;
    const int k0 = (int)get_group_id(1) * part, k1 = min(k, k0 + part);
    float acc[ROWS][WIDE];
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int w = 0; w < WIDE; w++) acc[r][w] = 0;
    for (int p = k0 + 4 * l; p < k1; p += 4 * GROUP) {
        float4 y[WIDE];
        UNROLL for (int w = 0; w < WIDE; w++)
            y[w] = *(const __global float4 *)(b + p + min(j0 + w, n - 1) * b_col);
        UNROLL for (int r = 0; r < ROWS; r++)
        {
            const float4 x = *(const __global float4 *)(a + p + min(r, m - 1) * a_row);
            UNROLL for (int w = 0; w < WIDE; w++)
                acc[r][w] += fma(x.x, y[w].x, x.y * y[w].y) + fma(x.z, y[w].z, x.w * y[w].w);
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int w = 0; w < WIDE; w++) sums[r * WIDE + w][l] = acc[r][w];
    for (int n_ = GROUP / 2; n_; n_ /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int e = l; e < n_ * ROWS * WIDE; e += GROUP)
            sums[e / n_][e % n_] += sums[e / n_][e % n_ + n_];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = l; e < m * WIDE; e += GROUP)
        if (j0 + e % WIDE < n)
            RESULT(e / WIDE, j0 + e % WIDE, sums[e][0]);
}

/* Dimension 0: m * n results; dimension 1 has one group. */
__kernel void gemv_sum(PROBLEM)
{
    BATCHED;
    long e = get_global_id(0), i = e / n, j = e % n, apart = (long)get_num_groups(2) * m * n;
    if (e >= (long)m * n)
        return;
    NUM t = 0;
    for (int s = 0; s < nparts; s++)
        t += parts[s * apart + (z * m + i) * n + j];
    FINISH(i, j, t);
}
