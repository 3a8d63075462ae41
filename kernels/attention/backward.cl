/* Gradients of attention. With S = scale Q K^T + mask, P = exp(S - logsumexp) (0 where a causal query does not see the
 * key), G the gradient of the output O, and delta = the sum over a row of G O:
 *
 *   dV = P^T G,    dS = P (G V^T - delta),    dQ = scale dS K,    dK = scale dS^T Q
 *
 * One kernel text for both sides: with KEYS a group keeps a block of keys and walks over the queries, of all heads that
 * the keys serve, and makes dK and dV; otherwise it keeps queries, walks over keys and makes dQ. Every sum is one group's,
 * in a fixed order. What is kept is x1 (K or Q) and x2 (V or G), what is walked over y1 (Q or K) and y2 (G or V):
 *
 *   S = y1 x1^T, G V^T (or its transpose) = y2 x2^T;    first += dS^T y1,    second += P^T y2 (KEYS alone)
 *
 * P and dS are computed twice, once for each side, so that no sum is shared between groups. Given: D the dtype, MD that of the mask, HEAD the head
 * size rounded up, and what backward_cpu.cl and backward_gpu.cl say. DELTA: the kernel that makes delta. */
#include "kernels/attention/attention.cl"

/* batch, head, row, column */
typedef struct strides {
    long x1[4], x2[4], y1[4], y2[4], mask[4], first[4], second[4], third[4], lse[3];
} strides;

#ifdef KEYS
#define IF_KEYS(...) __VA_ARGS__
#else
#define IF_KEYS(...)
#endif

/* kept, walked: rows; share: heads that a head of keys serves. */
#define GRADIENT_ARGS                                                                                                  \
    GEMS_BUFFER(const MEM, x1), GEMS_BUFFER(const MEM, x2), GEMS_BUFFER(const MEM, y1), GEMS_BUFFER(const MEM, y2),    \
        GEMS_BUFFER(const MASK, mask), GEMS_BUFFER(const NUM, lse), GEMS_BUFFER(const NUM, delta),                     \
        GEMS_BUFFER(MEM, first) IF_KEYS(, GEMS_BUFFER(MEM, second)), int kept, int walked, int head, int share,        \
        int causal, int masked, NUM scale, const strides at
#define GRADIENT_OPEN                                                                                                  \
    GEMS_AT(const MEM, x1);                                                                                            \
    GEMS_AT(const MEM, x2);                                                                                            \
    GEMS_AT(const MEM, y1);                                                                                            \
    GEMS_AT(const MEM, y2);                                                                                            \
    GEMS_AT(const MASK, mask);                                                                                         \
    GEMS_AT(const NUM, lse);                                                                                           \
    GEMS_AT(const NUM, delta);                                                                                         \
    GEMS_AT(MEM, first);                                                                                               \
    IF_KEYS(GEMS_AT(MEM, second);)

#ifdef DELTA
/* delta[batch, head, query]; a work-item takes rows of the first dimension, which are `per` each. */
__kernel void delta_rows(GEMS_BUFFER(const MEM, grad), GEMS_BUFFER(const MEM, out), GEMS_BUFFER(NUM, delta), int queries,
                         int head, int per, long g0, long g1, long g2, long g3, long o0, long o1, long o2)
{
    GEMS_AT(const MEM, grad);
    GEMS_AT(const MEM, out);
    GEMS_AT(NUM, delta);
    int h = get_global_id(1), heads = get_global_size(1), begin = get_global_id(0) * per, end = min(begin + per, queries);
    long z = get_global_id(2);
    delta += (z * heads + h) * queries;
    for (int i = begin; i < end; i++) {
        const __global MEM *g = grad + z * g0 + h * g1 + i * g2, *o = out + z * o0 + h * o1 + i * o2;
        NUM16 sums = 0;
        NUM sum = 0;
        int c = 0;
        if (g3 == 1)
            for (; c + 16 <= head; c += 16)
                sums = fma(GEMS_CAT(load16_, D)(g, c), GEMS_CAT(load16_, D)(o, c), sums);
        for (; c < head; c++)
            sum = fma(GEMS_CAT(load_, D)(g, c * g3), GEMS_CAT(load_, D)(o, c), sum);
        NUM8 s8 = sums.lo + sums.hi;
        NUM4 s4 = s8.lo + s8.hi;
        delta[i] = sum + ((s4.x + s4.y) + (s4.z + s4.w));
    }
}
#endif
