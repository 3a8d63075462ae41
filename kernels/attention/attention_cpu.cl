/* Scaled dot product attention for CPUs: O = softmax(scale Q K^T + mask) V and the logarithm of each row's sum. One
 * work-item does up to BQ queries of one head, groups of one work-item.
 *
 * Keys come in blocks of BK. Of each block the work-item makes the scores S of its queries, their weights P against the
 * largest score so far, and adds P V to the output, which is scaled down whenever a larger score appears (the online
 * softmax of Milakov and Gimelshein, 2018). All of that is in the arithmetic type and in local memory; the products are
 * those of gemm_cpu.cl, MR x 16 NV sums in registers.
 *
 * Given: D the dtype, MD that of the mask, HEAD the head size rounded up to a multiple of 16 NV, BQ, BK multiples of 16.
 * Traffic: K and V are read once for every BQ queries. */
#include "kernels/attention/products_cpu.cl"

#define QP (HEAD + 16) /* pitches: not a power of two */
#define SP (BK + 16)

/* lse: batch, row, head are row-major. Dimension 0: blocks of bq queries, 1: heads, 2: batches. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
attention(ARGS)
{
    OPEN;
    __local NUM qt[BQ * QP] __attribute__((aligned(64)));
    __local NUM kt[HEAD * BK] __attribute__((aligned(64)));
    __local NUM vt[BK * HEAD] __attribute__((aligned(64)));
    __local NUM s[BQ * SP] __attribute__((aligned(64)));
    __local NUM o[BQ * QP] __attribute__((aligned(64)));
    __local NUM most[BQ], total[BQ];

    int first = get_group_id(0) * bq, h = get_group_id(1);
    long z = get_group_id(2);
    int rows = min(bq, queries - first), padded = (rows + MR - 1) / MR * MR;
    q += z * q0 + h * q1 + first * q2;
    k += z * k0 + h / share * k1;
    v += z * v0 + h / share * v1;
    mask += z * m0 + h * m1 + first * m2;
    out += z * o0 + h * o1 + first * o2;

    gems_pack(qt, QP, padded, head, q, q2, q3, rows, head);
    for (int i = 0; i < padded; i++) {
        most[i] = -INFINITY, total[i] = 0;
        for (int c = 0; c < HEAD; c += 16)
            vstore16((NUM16)0, 0, o + i * QP + c);
    }
    int end = causal ? min(keys, first + rows) : keys;
    for (int j0 = 0; j0 < end; j0 += BK) {
        int width = min(BK, end - j0), wide = (width + NR - 1) / NR * NR;
        gems_pack(kt, BK, head, wide, k + j0 * k2, k3, k2, head, width);
        gems_pack(vt, HEAD, width, HEAD, v + j0 * v2, v2, v3, width, head);
        multiply(s, SP, qt, QP, 1, kt, BK, padded, wide, head, false);

        for (int i = 0; i < rows; i++) {
            __local NUM *row = s + i * SP;
            /* Keys behind the end, and those that a causal query must not see, weigh nothing. */
            int seen = causal ? min(width, first + i + 1 - j0) : width;
            if (masked) {
                const __global MASK *m = mask + i * m2 + j0 * m3;
                int c = 0;
                if (m3 == 1)
                    for (; c + 16 <= seen; c += 16)
                        vstore16(vload16(0, row + c) * scale + GEMS_CAT(load16_, MD)(m, c), 0, row + c);
                for (; c < seen; c++)
                    row[c] = row[c] * scale + (NUM)GEMS_CAT(load_, MD)(m, c * m3);
            } else
                for (int c = 0; c < wide; c += 16)
                    vstore16(vload16(0, row + c) * scale, 0, row + c);
            for (int c = max(seen, 0); c < wide; c++)
                row[c] = -INFINITY;

            NUM16 top = (NUM16)most[i];
            for (int c = 0; c < wide; c += 16)
                top = fmax(top, vload16(0, row + c));
            NUM8 t8 = fmax(top.lo, top.hi);
            NUM4 t4 = fmax(t8.lo, t8.hi);
            NUM peak = fmax(fmax(t4.x, t4.y), fmax(t4.z, t4.w));
            /* Where no key counts yet all weights are exp(-inf) = 0, and NaN stays NaN. */
            NUM base = peak == -INFINITY ? 0 : peak;
            NUM16 sum = 0;
            for (int c = 0; c < wide; c += 16) {
                NUM16 p = exponential(vload16(0, row + c) - base);
                sum += p;
                vstore16(p, 0, row + c);
            }
            NUM8 s8 = sum.lo + sum.hi;
            NUM4 s4 = s8.lo + s8.hi;
            NUM down = most[i] == -INFINITY ? 0 : exp(most[i] - base);
            total[i] = total[i] * down + ((s4.x + s4.y) + (s4.z + s4.w));
            if (peak != most[i])
                for (int c = 0; c < HEAD; c += 16)
                    vstore16(vload16(0, o + i * QP + c) * down, 0, o + i * QP + c);
            most[i] = peak;
        }
        multiply(o, QP, s, SP, 1, vt, HEAD, padded, HEAD, width, true);
    }

    for (int i = 0; i < rows; i++) {
        NUM by = total[i] == 0 ? (NUM)1 : 1 / total[i];
        int c = 0;
        if (o3 == 1)
            for (; c + 16 <= head; c += 16)
                GEMS_CAT(store16_, D)(out, i * o2 + c, vload16(0, o + i * QP + c) * by);
        for (; c < head; c++)
            GEMS_CAT(store_, D)(out, i * o2 + c * o3, o[i * QP + c] * by);
        lse[(z * queries + first + i) * get_num_groups(1) + h] = total[i] == 0 ? 0 : most[i] + log(total[i]);
    }
}
