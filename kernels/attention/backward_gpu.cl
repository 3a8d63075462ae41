/* Gradients of attention for GPUs, and for any device (backward.cl says which). A group of G x G work-items keeps BLOCK =
 * G PM rows of one head and walks in blocks of as many. Of a block of S a work-item makes PM x PM elements, of the sums
 * PM x PM of every BLOCK columns of the head; they stay in registers. S and G V^T are made together, from panels of DEPTH
 * columns; then P or dS goes through local memory, beside BLOCK columns of y2 or y1 in the place of the panels.
 *
 * Given: HEAD a multiple of BLOCK, G, PM: 2 or 4. */
#include "kernels/attention/backward.cl"
#include "kernels/unroll.cl"

#define BLOCK (G * PM)
#define DEPTH (BLOCK / 4)
#define PITCH (BLOCK + PM)
#define CHUNKS (HEAD / BLOCK)
#define GROUP (G * G)
#define VEC GEMS_CAT(VEC, PM)
#define VEC2 NUM2
#define VEC4 NUM4
#define SPLIT GEMS_CAT(vstore, PM)
#define VECTOR(p) (*(__local VEC *)(p))
#ifdef GEMS_CPU
#define UNROLL_SOME
#else
#define UNROLL_SOME _Pragma("unroll 8")
#endif

/* DEPTH columns from d0 on, as rows of a panel; neighbouring work-items take neighbours in memory. */
#define PANEL(n, from, stride, rows)                                                                                   \
    UNROLL for (int f = 0; f < PM * PM / 4; f++)                                                                       \
    {                                                                                                                  \
        int e = f * GROUP + l, r = e / DEPTH, d = e % DEPTH;                                                           \
        bool inside = r < (rows) && d0 + d < head;                                                                     \
        tile[(n * DEPTH + d) * PITCH + r] = inside ? LOAD(from, r * stride[2] + (d0 + d) * stride[3]) : (NUM)0;        \
    }

/* sum += the transpose of `what` (PM rows of a work-item) times a block of walked rows. */
#define ADD_PRODUCT(sum, what, from, stride)                                                                           \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    UNROLL for (int i = 0; i < PM; i++) VECTOR(weights + (PM * ty + i) * PITCH + PM * tx) = what[i];                   \
    UNROLL for (int chunk = 0; chunk < CHUNKS; chunk++)                                                                \
    {                                                                                                                  \
        if (chunk > 0)                                                                                                 \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
        UNROLL for (int f = 0; f < PM * PM; f++)                                                                       \
        {                                                                                                              \
            int e = f * GROUP + l, r = e / BLOCK, c = e % BLOCK;                                                       \
            bool inside = r < high && chunk * BLOCK + c < head;                                                        \
            tile[r * PITCH + c] = inside ? LOAD(from, r * stride[2] + (chunk * BLOCK + c) * stride[3]) : (NUM)0;       \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        UNROLL_SOME for (int w = 0; w < BLOCK; w++)                                                                    \
        {                                                                                                              \
            NUM a[PM];                                                                                                 \
            VEC b = VECTOR(tile + w * PITCH + PM * tx);                                                                \
            SPLIT(VECTOR(weights + w * PITCH + PM * ty), 0, a);                                                        \
            UNROLL for (int i = 0; i < PM; i++) sum[chunk][i] = fma((VEC)(a[i]), b, sum[chunk][i]);                    \
        }                                                                                                              \
    }

#define PUT(to, stride, sum, by)                                                                                       \
    UNROLL for (int chunk = 0; chunk < CHUNKS; chunk++)                                                                \
    {                                                                                                                  \
        UNROLL for (int i = 0; i < PM; i++)                                                                            \
        {                                                                                                              \
            NUM x[PM];                                                                                                 \
            SPLIT(sum[chunk][i] * (by), 0, x);                                                                         \
            UNROLL for (int j = 0; j < PM; j++)                                                                        \
            {                                                                                                          \
                int r = PM * ty + i, c = chunk * BLOCK + PM * tx + j;                                                  \
                if (r < rows && c < head)                                                                              \
                    GEMS_CAT(store_, D)(to, r * stride[2] + c, x[j]);                                                  \
            }                                                                                                          \
        }                                                                                                              \
    }

/* Dimension 0: blocks of rows, 1: heads, 2: batches. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
gradient(GRADIENT_ARGS)
{
    GRADIENT_OPEN
    __local NUM tile[BLOCK * PITCH] __attribute__((aligned(32))), weights[BLOCK * PITCH] __attribute__((aligned(32)));
    int l = get_local_id(0), tx = l % G, ty = l / G, h = get_group_id(1), block = get_group_id(0);
    long z = get_group_id(2);
#ifndef KEYS
    block = get_num_groups(0) - 1 - block; /* causal: the longest walks first */
#endif
    int begin = block * BLOCK, rows = min(BLOCK, kept - begin);
    x1 += z * at.x1[0] + h * at.x1[1] + begin * at.x1[2];
    x2 += z * at.x2[0] + h * at.x2[1] + begin * at.x2[2];

    VEC sum1[CHUNKS][PM] IF_KEYS(, sum2[CHUNKS][PM]);
    UNROLL for (int c = 0; c < CHUNKS; c++)
        UNROLL for (int i = 0; i < PM; i++)
        {
            sum1[c][i] = 0;
            IF_KEYS(sum2[c][i] = 0;)
        }
#ifdef KEYS
    int heads = get_num_groups(1) * share, queries = walked, start = causal ? begin : 0, end = walked;
    for (int hq = h * share; hq < (h + 1) * share; hq++) {
        int hy = hq;
#else
    int heads = get_num_groups(1), queries = kept, hq = h, hy = h / share;
    int start = 0, end = causal ? min(walked, begin + rows) : walked;
    {
#endif
        const __global NUM *lses = lse + z * at.lse[0] + hq * at.lse[1];
        const __global NUM *deltas = delta + (z * heads + hq) * queries;
        const __global MASK *m = mask + z * at.mask[0] + hq * at.mask[1];
        for (int w0 = start; w0 < end; w0 += BLOCK) {
            int high = min(BLOCK, end - w0);
            const __global MEM *from1 = y1 + z * at.y1[0] + hy * at.y1[1] + w0 * at.y1[2];
            const __global MEM *from2 = y2 + z * at.y2[0] + hy * at.y2[1] + w0 * at.y2[2];
            VEC s[PM], t[PM];
            UNROLL for (int i = 0; i < PM; i++) s[i] = 0, t[i] = 0;
            for (int d0 = 0; d0 < head; d0 += DEPTH) {
                barrier(CLK_LOCAL_MEM_FENCE);
                PANEL(0, x1, at.x1, rows)
                PANEL(1, x2, at.x2, rows)
                PANEL(2, from1, at.y1, high)
                PANEL(3, from2, at.y2, high)
                barrier(CLK_LOCAL_MEM_FENCE);
                UNROLL for (int d = 0; d < DEPTH; d++)
                {
                    VEC a1 = VECTOR(tile + d * PITCH + PM * tx), a2 = VECTOR(tile + (DEPTH + d) * PITCH + PM * tx);
                    NUM b1[PM], b2[PM];
                    SPLIT(VECTOR(tile + (2 * DEPTH + d) * PITCH + PM * ty), 0, b1);
                    SPLIT(VECTOR(tile + (3 * DEPTH + d) * PITCH + PM * ty), 0, b2);
                    UNROLL for (int i = 0; i < PM; i++)
                    {
                        s[i] = fma((VEC)(b1[i]), a1, s[i]);
                        t[i] = fma((VEC)(b2[i]), a2, t[i]);
                    }
                }
            }
            UNROLL for (int i = 0; i < PM; i++)
            {
                NUM p[PM], d[PM];
                SPLIT(s[i], 0, p);
                SPLIT(t[i], 0, d);
                UNROLL for (int j = 0; j < PM; j++)
                {
                    int w = PM * ty + i, c = PM * tx + j;
#ifdef KEYS
                    int q = w0 + w, k = begin + c;
#else
                    int q = begin + c, k = w0 + w;
#endif
                    NUM weight = 0, slope = 0;
                    if (w < high && c < rows && !(causal && k > q)) {
                        NUM x = p[j] * scale;
                        if (masked)
                            x += (NUM)GEMS_CAT(load_, MD)(m, q * at.mask[2] + k * at.mask[3]);
                        weight = exp(x - lses[q * at.lse[2]]);
                        slope = weight * (d[j] - deltas[q]);
                    }
                    p[j] = weight, d[j] = slope;
                }
                s[i] = GEMS_CAT(vload, PM)(0, p);
                t[i] = GEMS_CAT(vload, PM)(0, d);
            }
            IF_KEYS(ADD_PRODUCT(sum2, s, from2, at.y2))
            ADD_PRODUCT(sum1, t, from1, at.y1)
        }
    }
    first += z * at.first[0] + h * at.first[1] + begin * at.first[2];
    PUT(first, at.first, sum1, scale)
#ifdef KEYS
    second += z * at.second[0] + h * at.second[1] + begin * at.second[2];
    PUT(second, at.second, sum2, 1)
#endif
}
