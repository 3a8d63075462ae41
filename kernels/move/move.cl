/* Device code of kernels/move/move.h. Given to the program:
 *   W        word type that is copied: 1 to 16 bytes, the widest that addresses, strides and sizes allow
 *   RANK     dimensions, the last one innermost; sizes and strides are in words
 *   DST_STEP, SRC_STEP   innermost strides, where they are 1, 0 or -1: the compiler can then use vectors
 *   INDEX    type of the index tensor, if there is one; INNER_PICK: it varies along the innermost dimension;
 *            AXIS: the source's stride along the dimension that it selects from, if that is 1
 *   FROM, TO dtypes, if they differ (kernels/types.cl): W is then not used
 *   TRUTH    elements are bools, and bytes that are neither 0 nor 1 become 1; without it they are copied
 *   KEEP_UPPER, KEEP_LOWER, IN_PLACE   for tri
 *   EACH     on a GPU: words that a work-item copies, a group's size apart; of tri the elements of dtype D (any of
 *            their size) in 16 bytes, which are then its unit in sizes and strides
 * On a CPU a work-item takes a long run of neighbouring elements and hands the innermost loop to the vectoriser; on a GPU
 * neighbouring work-items take neighbouring words. Bytes moved: each source and destination word once (tri reads only
 * what it keeps). */

#if GEMS_CPU
typedef long at; /* offsets and counts */
#else
typedef WIDE at; /* int where all offsets fit */
#endif

/* What is stored for a word of the source. TRUTH: in each byte the highest bit is set if any was, and becomes the lowest. */
#ifdef TRUTH
static inline W word(W x)
{
    const W low = (W)0x7f7f7f7f7f7f7f7fUL, one = (W)0x0101010101010101UL;
    return (W)((((x & low) + low) | x) >> 7) & one;
}
#else
#define word(x) (x)
#endif

struct block {
    long total, run; /* elements; elements per work-item (CPU) */
    long size[RANK], dst[RANK], src[RANK], pick[RANK];
    long dst_at, src_at, axis, limit;
};

#ifdef FILL_KERNEL
#define MOVE_NAME     fill
#define SOURCE        const W value,
#define OPEN_SOURCE
#define VALUE(s)      value
#else
#define MOVE_NAME     move
#define SOURCE        GEMS_BUFFER(const SRC_T, src),
#define OPEN_SOURCE   GEMS_AT(const SRC_T, src);
#ifdef TO
#define VALUE(s)      ((GEMS_CAT(num_, TO))GEMS_CAT(load_, FROM)(src, (s)))
#else
#define VALUE(s)      word(src[s])
#endif
#endif

#ifdef TO
#define DST_T         GEMS_CAT(mem_, TO)
#define SRC_T         GEMS_CAT(mem_, FROM)
#define VALUE_T       GEMS_CAT(num_, TO)
#define PUT(d, v)     GEMS_CAT(store_, TO)(dst, (d), (v))
#else
#define DST_T         W
#define SRC_T         W
#define VALUE_T       W
#define PUT(d, v)     dst[d] = (v)
#endif
#define MOVE(d, s)    PUT(d, VALUE(s))
#ifndef EACH
#define EACH          1
#endif

#ifndef DST_STEP
#define DST_STEP      b.dst[RANK - 1]
#endif
#ifndef SRC_STEP
#define SRC_STEP      b.src[RANK - 1]
#endif
#ifndef AXIS
#define AXIS          b.axis
#endif

/* Where the index leads in the source. The host has checked it; the bound holds even if another thread changes it
 * meanwhile. */
#ifdef INDEX
#define INDICES       GEMS_BUFFER(const INDEX, index),
#define OPEN_INDICES  GEMS_AT(const INDEX, index);
#define PICK(o)       (AXIS * (long)min((ulong)index[o], (ulong)b.limit - 1))
#else
#define INDICES
#define OPEN_INDICES
#define PICK(o)       0
#endif

#ifndef TRI_KERNEL
__kernel void MOVE_NAME(GEMS_BUFFER(DST_T, dst), SOURCE INDICES const struct block b)
{
    GEMS_AT(DST_T, dst);
    OPEN_SOURCE
    OPEN_INDICES
#if GEMS_CPU
    long i = get_global_id(0) * b.run;
    long end = min(i + b.run, b.total);
    long c[RANK];
    long rest = i;
    for (int d = RANK - 1; d >= 0; d--) {
        c[d] = rest % b.size[d];
        rest /= b.size[d];
    }
    while (i < end) {
        long n = min(b.size[RANK - 1] - c[RANK - 1], end - i);
        long d0 = b.dst_at, s0 = b.src_at, p0 = 0;
        for (int d = 0; d < RANK; d++) {
            d0 += c[d] * b.dst[d];
            s0 += c[d] * b.src[d];
            p0 += c[d] * b.pick[d];
        }
#ifdef INNER_PICK
        for (long j = 0; j < n; j++)
            MOVE(d0 + j * DST_STEP, s0 + j * SRC_STEP + PICK(p0 + j * b.pick[RANK - 1]));
#else
        s0 += PICK(p0);
        for (long j = 0; j < n; j++)
            MOVE(d0 + j * DST_STEP, s0 + j * SRC_STEP);
#endif
        i += n;
        c[RANK - 1] = 0;
        for (int d = RANK - 2; d >= 0; d--) {
            if (++c[d] < b.size[d])
                break;
            c[d] = 0;
        }
    }
#else
    at first = (at)get_group_id(0) * (at)get_local_size(0) * EACH + (at)get_local_id(0), d0[EACH], s0[EACH];
    VALUE_T v[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        at i = first + e * (at)get_local_size(0), p0 = 0;
        const bool there = i < (at)b.total;
        i = there ? i : (at)b.total - 1;
        d0[e] = there ? b.dst_at : -1;
        s0[e] = b.src_at;
#pragma unroll
        for (int d = RANK - 1; d >= 0; d--) {
            at n = (at)b.size[d];
            at c = d > 0 ? i % n : i;
            i /= n;
            d0[e] += there ? c * (at)b.dst[d] : 0;
            s0[e] += c * (at)b.src[d];
            p0 += c * (at)b.pick[d];
        }
        s0[e] += (at)PICK(p0);
    }
#pragma unroll
    for (int e = 0; e < EACH; e++)
        v[e] = VALUE(s0[e]);
#pragma unroll
    for (int e = 0; e < EACH; e++)
        if (d0[e] >= 0)
            PUT(d0[e], v[e]);
#endif
}
#endif

#ifdef TRI_KERNEL
/* The last two dimensions are row and column; `limit` is the diagonal, within [-rows, columns]. `src` is absent in place. */
__kernel void tri(GEMS_SHARED_BUFFER(W, dst),
#ifndef IN_PLACE
                  GEMS_SHARED_BUFFER(const W, src),
#endif
                  const struct block b)
{
    GEMS_AT(W, dst);
#ifndef IN_PLACE
    GEMS_AT(const W, src);
#endif
    const long cols = b.size[RANK - 1], rows = b.size[RANK - 2];
#if GEMS_CPU
    long line = get_global_id(0) * b.run;
    long end = min(line + b.run, b.total / cols);
    for (; line < end; line++) {
        long d0 = b.dst_at, s0 = b.src_at, rest = line;
        for (int d = RANK - 2; d >= 0; d--) {
            long c = rest % b.size[d];
            rest /= b.size[d];
            d0 += c * b.dst[d];
            s0 += c * b.src[d];
        }
        long r = line % rows;
#ifdef KEEP_UPPER
        long cut = clamp(r + b.limit, 0L, cols), keep0 = cut, keep1 = cols, zero0 = 0, zero1 = cut;
#else
        long cut = clamp(r + b.limit + 1, 0L, cols), keep0 = 0, keep1 = cut, zero0 = cut, zero1 = cols;
#endif
        for (long j = zero0; j < zero1; j++)
            dst[d0 + j * DST_STEP] = (W)0;
#ifndef IN_PLACE
        for (long j = keep0; j < keep1; j++)
            dst[d0 + j * DST_STEP] = word(src[s0 + j * SRC_STEP]);
#endif
    }
#else
    at i = get_global_id(0);
    if (i >= (at)b.total)
        return;
#if EACH > 1
#define UNIT uint4
#else
#define UNIT W
#endif
    __global UNIT *to = (__global UNIT *)dst;
    at c = i % (at)cols * EACH, r = i / (at)cols % (at)rows;
    at d0 = b.dst_at, s0 = b.src_at;
#pragma unroll
    for (int d = RANK - 1; d >= 0; d--) {
        at n = (at)b.size[d];
        at k = d > 0 ? i % n : i;
        i /= n;
        d0 += k * (at)b.dst[d];
        s0 += k * (at)b.src[d];
    }
#ifdef KEEP_UPPER
#define KEEPS(j) (c + (j) - r >= (at)b.limit)
#else
#define KEEPS(j) (c + (j) - r <= (at)b.limit)
#endif
#if defined(IN_PLACE)
    if (!KEEPS(0))
        to[d0] = (W)0;
#elif EACH > 1
    uint4 v = (uint4)(0);
    if (KEEPS(0) || KEEPS(EACH - 1)) {
        GEMS_CAT(num_, D) x[EACH];
        GEMS_CAT(wide_get_, D)(((const __global uint4 *)src)[s0], x);
        UNROLL for (int j = 0; j < EACH; j++) x[j] = KEEPS(j) ? x[j] : 0;
        v = GEMS_CAT(wide_put_, D)(x);
    }
    to[d0] = v;
#else
    to[d0] = KEEPS(0) ? word(src[s0]) : (W)0;
#endif
#endif
}
#endif
