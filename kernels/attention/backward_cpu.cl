/* Gradients of attention for CPUs (backward.cl says which). One work-item keeps up to BK rows of one head and walks in
 * blocks of BW rows; all of that is in the arithmetic type and in local memory, the products are those of products_cpu.cl.
 * With ALL (and KEYS) a work-item takes all blocks of keys of a head in turn and makes dQ as well: P and dS are computed
 * once. `sums` [batch, head, query, HEAD] is dQ so far.
 *
 * Given: HEAD and BK, multiples of 16 NV, BW, of 8. */
#include "kernels/attention/backward.cl"
#include "kernels/attention/products_cpu.cl"

#define YP (HEAD + 16) /* pitches: not a power of two */
#define SP (BK + 16)
#ifdef ALL
#define IF_ALL(...) __VA_ARGS__
#else
#define IF_ALL(...)
#endif

static inline NUM16 weight(NUM16 x)
{
#ifndef DOUBLE
    x = select(x, (float16)89.0f, x > 89.0f); /* infinite; a logsumexp that is not the forward's */
#endif
    return exponential(x);
}

/* A sum, scaled, of the rows that are there. */
static inline void put(__global MEM *to, long step, const __local NUM *from, NUM scale, int rows, int head)
{
    for (int i = 0; i < rows; i++) {
        int c = 0;
        for (; c + 16 <= head; c += 16)
            GEMS_CAT(store16_, D)(to, i * step + c, vload16(0, from + i * YP + c) * scale);
        for (; c < head; c++)
            GEMS_CAT(store_, D)(to, i * step + c, from[i * YP + c] * scale);
    }
}

#ifdef DOUBLE
#define STORE_SUM store16_f64
#else
#define STORE_SUM store16_f32
#endif
/* 16 columns at a time, to and from dQ so far. */
#define EACH_16(rows)                                                                                                  \
    for (int i = 0; i < (rows); i++)                                                                                   \
        for (int c = 0; c < HEAD; c += 16)

/* Dimension 0: blocks of BK rows, one for ALL; 1: heads; 2: batches. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
gradient(GRADIENT_ARGS IF_ALL(, GEMS_BUFFER(NUM, sums), GEMS_BUFFER(MEM, third)))
{
    GRADIENT_OPEN
    __local NUM x1t[HEAD * BK] __attribute__((aligned(64))), x2t[HEAD * BK] __attribute__((aligned(64)));
    __local NUM y1b[BW * YP] __attribute__((aligned(64))), y2b[BW * YP] __attribute__((aligned(64)));
    __local NUM s[BW * SP] __attribute__((aligned(64))), t[BW * SP] __attribute__((aligned(64)));
    __local NUM sum1[BK * YP] __attribute__((aligned(64)));
    IF_KEYS(__local NUM sum2[BK * YP] __attribute__((aligned(64)));)
    IF_ALL(__local NUM x1b[BK * YP] __attribute__((aligned(64))), sum3[BW * YP] __attribute__((aligned(64)));)
    __local NUM lses[BK], deltas[BK]; /* of queries that are kept */

    int h = get_group_id(1);
    long z = get_group_id(2);
    x1 += z * at.x1[0] + h * at.x1[1];
    x2 += z * at.x2[0] + h * at.x2[1];
    first += z * at.first[0] + h * at.first[1];
    y1 += z * at.y1[0];
    y2 += z * at.y2[0];
    lse += z * at.lse[0];
    mask += z * at.mask[0];
#ifdef KEYS
    second += z * at.second[0] + h * at.second[1];
    int heads = get_num_groups(1) * share, queries = walked;
#else
    int heads = get_num_groups(1), queries = kept;
#endif
    delta += z * heads * queries;
#ifdef ALL
    GEMS_AT(NUM, sums);
    GEMS_AT(MEM, third);
    sums += z * heads * queries * HEAD;
    for (int begin = 0; begin < kept; begin += BK) {
#else
    {
        int begin = get_group_id(0) * BK;
#endif
        int rows = min(BK, kept - begin), wide = (rows + NR - 1) / NR * NR, across = (rows + MR - 1) / MR * MR;
        gems_pack(x1t, BK, head, wide, x1 + begin * at.x1[2], at.x1[3], at.x1[2], head, rows);
        gems_pack(x2t, BK, head, wide, x2 + begin * at.x2[2], at.x2[3], at.x2[2], head, rows);
        IF_ALL(gems_pack(x1b, YP, rows, HEAD, x1 + begin * at.x1[2], at.x1[2], at.x1[3], rows, head);)
        for (int i = 0; i < BK * YP; i += 16) {
            vstore16((NUM16)0, 0, sum1 + i);
            IF_KEYS(vstore16((NUM16)0, 0, sum2 + i);)
        }
#ifdef KEYS
        int start = causal ? begin : 0, end = walked;
        for (int hq = h * share; hq < (h + 1) * share; hq++) {
            int hy = hq;
#else
        int start = 0, end = causal ? min(walked, begin + rows) : walked, hq = h, hy = h / share;
        for (int i = 0; i < BK; i++) {
            lses[i] = i < rows ? lse[h * at.lse[1] + (begin + i) * at.lse[2]] : (NUM)0;
            deltas[i] = i < rows ? delta[(long)h * queries + begin + i] : (NUM)0;
        }
        {
#endif
            for (int w0 = start; w0 < end; w0 += BW) {
                int high = min(BW, end - w0), padded = (high + MR - 1) / MR * MR;
                const __global MEM *from1 = y1 + hy * at.y1[1] + w0 * at.y1[2];
                const __global MEM *from2 = y2 + hy * at.y2[1] + w0 * at.y2[2];
                gems_pack(y1b, YP, padded, HEAD, from1, at.y1[2], at.y1[3], high, head);
                gems_pack(y2b, YP, padded, HEAD, from2, at.y2[2], at.y2[3], high, head);
                multiply(s, SP, y1b, YP, 1, x1t, BK, padded, wide, head, false);
                multiply(t, SP, y2b, YP, 1, x2t, BK, padded, wide, head, false);
                for (int i = 0; i < high; i++) {
                    __local NUM *p = s + i * SP, *d = t + i * SP;
                    const __global MASK *m = mask + hq * at.mask[1];
                    /* Of the row those columns from `low` up to `top` are there, and seen if it is causal. */
                    int low = 0, top = rows;
#ifdef KEYS
                    long q = w0 + i, mask_step = at.mask[3];
                    NUM16 row_lse = lse[hq * at.lse[1] + q * at.lse[2]], row_delta = delta[(long)hq * queries + q];
                    m += q * at.mask[2] + begin * at.mask[3];
                    if (causal)
                        top = clamp(w0 + i - begin + 1, 0, rows);
#else
                    long mask_step = at.mask[2];
                    m += begin * at.mask[2] + (w0 + i) * at.mask[3];
                    if (causal)
                        low = clamp(w0 + i - begin, 0, rows);
#endif
                    for (int c = 0; masked && c < rows; c++)
                        p[c] = fma(p[c], scale, (NUM)GEMS_CAT(load_, MD)(m, c * mask_step));
                    for (int c = 0; c < wide; c += 16) {
#ifndef KEYS
                        NUM16 row_lse = vload16(0, lses + c), row_delta = vload16(0, deltas + c);
#endif
                        NUM16 x = vload16(0, p + c);
                        x = weight((masked ? x : x * scale) - row_lse);
                        vstore16(x, 0, p + c);
                        vstore16(x * (vload16(0, d + c) - row_delta), 0, d + c);
                    }
                    for (int c = 0; c < low; c++)
                        p[c] = 0, d[c] = 0;
                    for (int c = top; c < wide; c++)
                        p[c] = 0, d[c] = 0;
                }
                IF_KEYS(multiply(sum2, YP, s, 1, SP, y2b, YP, across, HEAD, high, true);)
                multiply(sum1, YP, t, 1, SP, y1b, YP, across, HEAD, high, true);
#ifdef ALL
                __global NUM *so_far = sums + ((long)hq * queries + w0) * HEAD;
                if (begin > 0) /* the first block of keys is seen by all queries */
                    EACH_16(high)
                        vstore16(vload16(0, so_far + i * HEAD + c), 0, sum3 + i * YP + c);
                multiply(sum3, YP, t, SP, 1, x1b, YP, padded, HEAD, rows, begin > 0);
                EACH_16(high)
                    STORE_SUM(so_far, i * HEAD + c, vload16(0, sum3 + i * YP + c));
#endif
            }
        }
        put(first + begin * at.first[2], at.first[2], sum1, scale, rows, head);
        IF_KEYS(put(second + begin * at.second[2], at.second[2], sum2, 1, rows, head);)
    }
#ifdef ALL
    for (int hq = h * share; hq < (h + 1) * share; hq++)
        for (int w0 = 0; w0 < walked; w0 += BW) {
            int high = min(BW, walked - w0);
            const __global NUM *from = sums + ((long)hq * queries + w0) * HEAD;
            EACH_16(high)
                vstore16(vload16(0, from + i * HEAD + c), 0, sum3 + i * YP + c);
            put(third + z * at.third[0] + hq * at.third[1] + w0 * at.third[2], at.third[2], sum3, scale, high, head);
        }
#endif
}
