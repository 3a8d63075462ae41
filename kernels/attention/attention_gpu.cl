/* Scaled dot product attention for GPUs, and for any device: O = softmax(scale Q K^T + mask) V and the logarithm of each
 * row's sum. A group of ROWS work-items takes as many queries of one head; a work-item keeps its query and its output in
 * registers. Blocks of BK keys and values go through local memory, where all work-items read the same element at a time.
 * Weights are made as in attention_cpu.cl (online softmax).
 *
 * Given: D the dtype, MD that of the mask, HEAD the head size rounded up to a multiple of 4, ROWS, BK. REST: only where the
 * queries, or their head's keys or values, have no parts (parts.cl).
 * Traffic: K and V are read once for every ROWS queries. */
#include "kernels/attention/attention.cl"
#include "kernels/unroll.cl"
#ifdef REST
#include "kernels/attention/parts.cl"
#endif

__kernel __attribute__((reqd_work_group_size(ROWS, 1, 1))) void
attention(ARGS
#ifdef REST
          ,
          GEMS_SHARED_BUFFER(const int, notes)
#endif
)
{
    OPEN;
    __local NUM4 kt[BK][HEAD / 4], vt[BK][HEAD / 4];
    int l = get_local_id(0), h = get_group_id(1), first = get_group_id(0) * ROWS;
    int i = first + l, row = min(i, queries - 1); /* work-items behind the last query repeat it and keep quiet */
    long z = get_group_id(2);
#ifdef REST
    __local int is_wanted;
    if (l == 0)
        is_wanted = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    GEMS_AT(const int, notes);
    const int heads = get_num_groups(1), of_k = BLOCKS(keys), lines = get_num_groups(2) * heads, line = z * heads + h;
    const __global int *notes_k = notes + lines * BLOCKS(queries) + line / share * of_k,
                       *notes_v = notes_k + lines / share * of_k;
    bool without = notes[line * BLOCKS(queries) + first / PART_ROWS] == PARTS_NONE;
    for (int j = l; j < of_k; j += ROWS)
        without = without || notes_k[j] == PARTS_NONE || notes_v[j] == PARTS_NONE;
    if (without)
        is_wanted = 1;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (!is_wanted)
        return;
#endif
    q += z * q0 + h * q1 + row * q2;
    k += z * k0 + h / share * k1;
    v += z * v0 + h / share * v1;
    mask += z * m0 + h * m1 + row * m2;

    NUM4 x[HEAD / 4], o[HEAD / 4];
    UNROLL for (int c = 0; c < HEAD / 4; c++)
    {
        NUM t[4];
        for (int e = 0; e < 4; e++)
            t[e] = 4 * c + e < head ? LOAD(q, (4 * c + e) * q3) : (NUM)0;
        x[c] = vload4(0, t);
        o[c] = 0;
    }
    NUM most = -INFINITY, total = 0;
    int end = causal ? min(keys, first + ROWS) : keys;
    for (int j0 = 0; j0 < end; j0 += BK) {
        for (int e = l; e < BK * HEAD; e += ROWS) {
            int j = e / HEAD, c = e % HEAD;
            bool inside = j0 + j < keys && c < head;
            ((__local NUM *)kt)[e] = inside ? LOAD(k, (j0 + j) * k2 + c * k3) : (NUM)0;
            ((__local NUM *)vt)[e] = inside ? LOAD(v, (j0 + j) * v2 + c * v3) : (NUM)0;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        int seen = min(end - j0, BK);
        NUM s[BK], peak = most;
        UNROLL for (int j = 0; j < BK; j++)
        {
            NUM4 t = 0;
            UNROLL for (int c = 0; c < HEAD / 4; c++) t = fma(x[c], kt[j][c], t);
            NUM score = ((t.x + t.y) + (t.z + t.w)) * scale;
            if (masked && j < seen)
                score += (NUM)GEMS_CAT(load_, MD)(mask, (j0 + j) * m3);
            s[j] = j < seen && !(causal && j0 + j > i) ? score : -INFINITY;
            peak = fmax(peak, s[j]);
        }
        NUM base = peak == -INFINITY ? 0 : peak;
        NUM down = most == -INFINITY ? 0 : exp(most - base);
        total *= down;
        UNROLL for (int c = 0; c < HEAD / 4; c++) o[c] *= down;
        UNROLL for (int j = 0; j < BK; j++)
        {
            NUM p = exp(s[j] - base);
            total += p;
            if (j < seen)
                UNROLL for (int c = 0; c < HEAD / 4; c++) o[c] = fma((NUM4)p, vt[j][c], o[c]);
        }
        most = peak;
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (i >= queries)
        return;
    NUM by = total == 0 ? (NUM)1 : 1 / total;
    out += z * o0 + h * o1 + row * o2;
    UNROLL for (int c = 0; c < HEAD / 4; c++)
    {
        NUM t[4];
        vstore4(o[c] * by, 0, t);
        for (int e = 0; e < 4 && 4 * c + e < head; e++)
            GEMS_CAT(store_, D)(out, (4 * c + e) * o3, t[e]);
    }
    lse[(z * queries + i) * get_num_groups(1) + h] = total == 0 ? 0 : most + log(total);
}
