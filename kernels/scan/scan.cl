/* Running combination along one dimension: out[i] = COMBINE of in[0..i]. Output is contiguous, any input strides.
 *
 * The launcher defines IN, OUT (dtypes), T (OUT's compute type: elements are converted to it first), A (type
 * accumulated in), COMBINE(a, b), IDENTITY. COMPENSATED: A is no wider than OUT and COMBINE is a floating sum, so the
 * running sum keeps its rounding error in a second number.
 *
 * A row of n elements may be cut into `splits` parts of `chunk`: `part` totals each of them, and the scan of a part
 * starts from the totals before it, combined in order. Every element is read once (twice if cut) and written once.
 *
 * part    one work-item totals one part of a row
 * run     one work-item a part of a row, several in turn (CPU)
 * column  one work-item for 64 neighbouring rows that lie side by side (CPU)
 * wide    LANES items of a work-group a row, HELD times 16 bytes each at a time (GPU; rows of whole 16 bytes)
 * group   one work-group a row (GPU)
 * item    one work-item a row: short rows, or rows side by side (GPU) */
#ifndef IN
#define IN f32
#define OUT f32
#define T float
#define A double
#define COMBINE(a, b) a + b
#define IDENTITY ((A)0)
#endif
#ifndef GROUP
#define GROUP 256
#endif

#define A16 GEMS_CAT(A, 16)
#define MEM_IN GEMS_CAT(mem_, IN)
#define MEM_OUT GEMS_CAT(mem_, OUT)
#define LOAD(p, i) ((A)(T)GEMS_CAT(load_, IN)(p, i))
#define STORE(p, i, v) GEMS_CAT(store_, OUT)(p, i, (GEMS_CAT(num_, OUT))(v))
#define TO_A16 GEMS_CAT(GEMS_CAT(convert_, A), 16)
#define TO_OUT16 GEMS_CAT(GEMS_CAT(convert_, T), 16)
ROW_GET(IN, get_in, T)
ROW_PUT(OUT, put_out)
static inline A combine(A a, A b) { return COMBINE((a), (b)); }
static inline A16 combine16(A16 a, A16 b) { return COMBINE((a), (b)); }

#define ARGS                                                                                                           \
    GEMS_BUFFER(const MEM_IN, in), GEMS_BUFFER(MEM_OUT, out), const gems_nest kept, long rows, long n, long stride, long inner
#define OPEN                                                                                                           \
    GEMS_AT(const MEM_IN, in);                                                                                         \
    GEMS_AT(MEM_OUT, out)
#define ROW_BASE(k)                                                                                                    \
    const __global MEM_IN *p = in + gems_nest_offset(&kept, k);                                                        \
    __global MEM_OUT *q = out + (inner == 1 ? (k) * n : (k) / inner * n * inner + (k) % inner);

/* The running value. */
#ifdef COMPENSATED
typedef struct { A high, low; } state;
typedef struct { A16 high, low; } state16;
#define START(s) ((s).high = IDENTITY, (s).low = IDENTITY)
#define NEXT(s, V, x) ROW_ADD(V, (s).high, (s).low, x)
#define VALUE(s) ROW_TOTAL((s).high, (s).low)
#else
typedef struct { A high; } state;
typedef struct { A16 high; } state16;
#define START(s) ((s).high = IDENTITY)
#define NEXT(s, V, x) (s).high = COMBINE(((s).high), (x))
#define VALUE(s) ((s).high)
#endif

#ifdef KERNEL_part
__kernel void part(ARGS, GEMS_BUFFER(A, totals), long splits, long chunk)
{
    OPEN;
    GEMS_AT(A, totals);
    long u = get_global_id(0), k = u / splits, first = u % splits * chunk, last = min(first + chunk, n);
    ROW_BASE(k)
    state s;
    START(s);
    long i = first;
#ifndef COMPENSATED
    A16 a0 = (A16)(IDENTITY), a1 = a0;
    for (; i + 32 <= last; i += 32) {
        a0 = combine16(a0, TO_A16(get_in_full(p, i, n, stride, 0)));
        a1 = combine16(a1, TO_A16(get_in_full(p, i + 16, n, stride, 0)));
    }
    a0 = combine16(a0, a1);
    GEMS_CAT(A, 8) a8 = COMBINE((a0.lo), (a0.hi));
    GEMS_CAT(A, 4) a4 = COMBINE((a8.lo), (a8.hi));
    GEMS_CAT(A, 2) a2 = COMBINE((a4.lo), (a4.hi));
    s.high = combine(a2.x, a2.y);
#endif
    for (; i < last; i++)
        NEXT(s, A, LOAD(p, i * stride));
    totals[u] = VALUE(s);
    (void)q;
}
#endif

#ifdef KERNEL_run
__kernel void run(ARGS, GEMS_BUFFER(const A, totals), long splits, long chunk)
{
    OPEN;
    GEMS_AT(const A, totals);
    ROW_SHARE(u, rows * splits) {
        long k = u / splits, split = u % splits, i = split * chunk, last = min(i + chunk, n);
        ROW_BASE(k)
        state s;
        START(s);
        for (long b = 0; b < split; b++)
            NEXT(s, A, totals[k * splits + b]);
#ifndef COMPENSATED
        /* Sixteen at once: each step combines with what lies 1, 2, 4, 8 places before. */
        const A16 none = (A16)(IDENTITY);
        for (; i + 16 <= last; i += 16) {
            A16 v = TO_A16(get_in_full(p, i, n, stride, 0));
            v = combine16((A16)(none.s0, v.s01234567, v.s89ab, v.scd, v.se), v);
            v = combine16((A16)(none.s01, v.s01234567, v.s89ab, v.scd), v);
            v = combine16((A16)(none.s0123, v.s01234567, v.s89ab), v);
            v = combine16((A16)(none.s01234567, v.s01234567), v);
            v = combine16((A16)(s.high), v);
            s.high = v.sf;
            put_out_full(q, i, n, inner, TO_OUT16(v));
        }
#endif
        for (; i < last; i++) {
            NEXT(s, A, LOAD(p, i * stride));
            STORE(q, i * inner, VALUE(s));
        }
    }
}
#endif

#ifdef KERNEL_column
#define WIDTH 64
#define COLUMN_STEP(HOW, v)                                                                                            \
    {                                                                                                                  \
        A16 x = TO_A16(GEMS_CAT(get_in, HOW)(r, (v) * 16, left, 1, 0));                                                \
        NEXT(s[v], A16, x);                                                                                            \
        GEMS_CAT(put_out, HOW)(w, (v) * 16, left, 1, TO_OUT16(VALUE(s[v])));                                           \
    }
__kernel void column(ARGS)
{
    OPEN;
    long tiles = (inner + WIDTH - 1) / WIDTH, units = rows / inner * tiles;
    ROW_SHARE(u, units) {
        long c = u % tiles * WIDTH, left = min(inner - c, (long)WIDTH), k = u / tiles * inner + c;
        ROW_BASE(k)
        state16 s[WIDTH / 16];
        for (int v = 0; v < WIDTH / 16; v++)
            START(s[v]);
        for (long i = 0; i < n; i++) {
            const __global MEM_IN *r = p + i * stride;
            __global MEM_OUT *w = q + i * inner;
            if (left == WIDTH) {
                for (int v = 0; v < WIDTH / 16; v++)
                    COLUMN_STEP(_full, v)
            } else {
                for (int v = 0; v < left / 16; v++)
                    COLUMN_STEP(_full, v)
                if (left % 16)
                    COLUMN_STEP(_part, left / 16)
            }
        }
    }
}
#endif

/* A tile of a row at a time: each item adds up its vectors, the totals of all are scanned in local memory, and each item
 * scans its vectors from the total before them. */
#ifdef KERNEL_wide
#include "kernels/wide.cl"
#define E WIDE_OF(IN)
#define TILE (HELD * LANES)
#define VALUES(q)                                                                                                      \
    GEMS_CAT(num_, IN) got[E];                                                                                         \
    GEMS_CAT(wide_get_, IN)(q, got);
__kernel WIDE_ATTR void wide(ARGS)
{
    OPEN;
    __local A totals[2][HELD * GROUP];
    WIDE_ROW(k, rows)
    ROW_BASE(k)
    const __global uint4 *from = (const __global uint4 *)p;
    const int vectors = (int)(n / E), base = slot / LANES * TILE;
    state s;
    START(s);
    for (int b = 0; b < vectors; b += TILE) {
        uint4 held[HELD];
        UNROLL for (int u = 0; u < HELD; u++)
            held[u] = b + u * LANES + lane < vectors ? from[b + u * LANES + lane] : (uint4)(0);
        UNROLL for (int u = 0; u < HELD; u++)
        {
            VALUES(held[u])
            A v = (A)(T)got[0];
            UNROLL for (int j = 1; j < E; j++) v = combine(v, (A)(T)got[j]);
            totals[0][base + u * LANES + lane] = b + u * LANES + lane < vectors ? v : IDENTITY;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        int now = 0;
        for (int d = 1; d < TILE; d *= 2) {
            UNROLL for (int u = 0; u < HELD; u++)
            {
                const int i = u * LANES + lane;
                const A v = totals[now][base + i];
                totals[1 - now][base + i] = i >= d ? combine(totals[now][base + i - d], v) : v;
            }
            now = 1 - now;
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        UNROLL for (int u = 0; u < HELD; u++)
        {
            const int i = u * LANES + lane;
            GEMS_CAT(num_, OUT) y_[E];
            VALUES(held[u])
            A v = i ? totals[now][base + i - 1] : IDENTITY;
            UNROLL for (int j = 0; j < E; j++)
            {
                v = combine(v, (A)(T)got[j]);
#ifdef COMPENSATED
                y_[j] = (GEMS_CAT(num_, OUT))(isfinite(s.high) ? s.high + (s.low + v) : s.high + v);
#else
                y_[j] = (GEMS_CAT(num_, OUT))combine(s.high, v);
#endif
            }
            if (mine && b + i < vectors)
                WIDE_STORE(OUT, q + (long)(b + i) * E, y_, E)
        }
        NEXT(s, A, totals[now][base + TILE - 1]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
#endif

/* A tile of GROUP elements at a time; `carry` is the value before the tile. */
#ifdef KERNEL_group
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void group(ARGS)
{
    OPEN;
    __local A tile[2][GROUP];
    int me = get_local_id(0);
    ROW_BASE(get_group_id(0))
    state s;
    START(s);
    for (long b = 0; b < n; b += GROUP) {
        long i = b + me;
        int from = 0;
        tile[0][me] = i < n ? LOAD(p, i * stride) : IDENTITY;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int d = 1; d < GROUP; d *= 2) {
            A v = tile[from][me];
            tile[1 - from][me] = me >= d ? combine(tile[from][me - d], v) : v;
            from = 1 - from;
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        if (i < n) {
#ifdef COMPENSATED
            STORE(q, i * inner, isfinite(s.high) ? s.high + (s.low + tile[from][me]) : s.high + tile[from][me]);
#else
            STORE(q, i * inner, combine(s.high, tile[from][me]));
#endif
        }
        NEXT(s, A, tile[from][GROUP - 1]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
#endif

#ifdef KERNEL_item
__kernel void item(ARGS)
{
    OPEN;
    long k = get_global_id(0);
    if (k >= rows)
        return;
    ROW_BASE(k)
    state s;
    START(s);
    for (long i = 0; i < n; i++) {
        NEXT(s, A, LOAD(p, i * stride));
        STORE(q, i * inner, VALUE(s));
    }
}
#endif
