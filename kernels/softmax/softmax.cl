/* Softmax along one dimension and its kin, forward and backward. Output is contiguous, any input strides.
 *
 * The launcher defines IN, OUT, T (type computed in), and three expressions:
 *   TERM    forward: e = exp(x - m), m the row's maximum; backward: of g and y. s is its sum over the row.
 *   ROW     t, once a row, of s                       "1 / s", "log(s)"
 *   FINISH  an output element of x, m, e, t; backward: of g, y, t
 * BACKWARD: two inputs, gradient and output, both contiguous. KEEP: FINISH needs only e and t, and OUT holds e exactly,
 * so e is stored by the second pass and not computed again.
 * E_UNUSED: FINISH does without e. FAST_EXP: T is float, forward.
 *
 * Sums run over blocks of 4096 terms (64 in `column`), then over blocks: fixed order. A row of -inf, or with inf or NaN,
 * gives NaN as exp(inf - inf) does. Rows are read three times (twice backward), from cache if they fit.
 *
 * run     one work-item a row, several rows in turn (CPU)
 * column  one work-item for 64 neighbouring rows that lie side by side (CPU)
 * wide    LANES items of a work-group a row, which is read once where it can be held (GPU; rows of whole 16 bytes,
 *         forward)
 * group   one work-group a row (GPU)
 * item    one work-item a row: short rows, or rows side by side (GPU) */
#ifndef IN
#define IN f32
#define OUT f32
#define T float
#define TERM e
#define ROW 1 / s
#define FINISH e * t
#define KEEP
#endif
#ifndef GROUP
#define GROUP 256
#endif

#define T16 GEMS_CAT(T, 16)
#define MEM_IN GEMS_CAT(mem_, IN)
#define MEM_OUT GEMS_CAT(mem_, OUT)
#define LOAD(p, i) ((T)GEMS_CAT(load_, IN)(p, i))
#define PUT1(p, i, v) GEMS_CAT(store_, OUT)(p, i, v)
ROW_GET(IN, get_in, T)
ROW_GET(OUT, get_out, T)
ROW_PUT(OUT, put_out)

#ifdef BACKWARD
#define ARGS                                                                                                           \
    GEMS_BUFFER(const MEM_IN, in), GEMS_BUFFER(const MEM_IN, in2), GEMS_BUFFER(MEM_OUT, out), const gems_nest kept, long rows,     \
        long n, long stride, long inner
#define OPEN                                                                                                           \
    GEMS_AT(const MEM_IN, in);                                                                                         \
    GEMS_AT(const MEM_IN, in2);                                                                                        \
    GEMS_AT(MEM_OUT, out)
#define INPUTS(p2) const __global MEM_IN *p2 = in2 + out_base;
#else
#define ARGS                                                                                                           \
    GEMS_BUFFER(const MEM_IN, in), GEMS_BUFFER(MEM_OUT, out), const gems_nest kept, long rows, long n, long stride, long inner ROW_MORE
#define OPEN                                                                                                           \
    ROW_OPEN                                                                                                           \
    GEMS_AT(const MEM_IN, in);                                                                                         \
    GEMS_AT(MEM_OUT, out)
#define INPUTS(p2)
#endif
#define ROW_BASE(k)                                                                                                    \
    long out_base = inner == 1 ? (k) * n : (k) / inner * n * inner + (k) % inner;                                      \
    ROW_IN(MEM_IN, p, in, kept, k, n)                                                                                  \
    __global MEM_OUT *q = out + out_base;                                                                              \
    INPUTS(p2)

/* exp of x <= 0, or NaN: 2^r e^f with r whole and |f| <= ln2 / 2, where Taylor's polynomial of degree 7 leaves 5e-9. Adding
 * 1.5 * 2^23 rounds to whole numbers and leaves r in the low bits. Below -87 the result, which would soon be
 * subnormal, is 0. Written out because it inlines into 15 vector instructions; the driver's exp takes twice that. */
#if GEMS_CPU && defined(FAST_EXP)
static inline T16 exp16(T16 x)
{
    const float big = 12582912.0f;
    float16 t = x * 1.44269504f + big, r = t - big;
    float16 f = x - r * 0.693359375f + r * 2.12194440e-4f; /* ln2 in two parts: r times the first is exact */
    float16 y = 1.0f + f * (1.0f + f * (0.5f + f * (1.0f / 6 + f * (1.0f / 24 + f * (1.0f / 120 + f * (1.0f / 720 + f * (1.0f / 5040)))))));
    float16 power = as_float16((as_int16(t) << 23) + 0x3f800000);
    return x < -87.0f ? (float16)(0.0f) : y * power;
}
#else
#define exp16(x) exp(x)
#endif

/* Likewise the logarithm of a row's sum, which is at least 1. */
#if GEMS_CPU && defined(FAST_EXP) && defined(KERNEL_run)
#include "kernels/math.cl"
#define LOG gems_log
#else
#define LOG log
#endif

#define ZERO ((T16)((T)0))
#define LOWEST16 ((T16)((T)-INFINITY))

/* What a step does at elements i to i+15 of a row, or at 16 neighbouring columns of element i. */
#define IN_AT(HOW, i) GEMS_CAT(get_in, HOW)(p, i, n, stride, -INFINITY)
#define G_AT(HOW, i) GEMS_CAT(get_in, HOW)(p, i, n, stride, 0)
#define Y_AT(HOW, i) GEMS_CAT(get_in, HOW)(p2, i, n, inner, 0)
#define PUT_AT(HOW, i, v) GEMS_CAT(put_out, HOW)(q, i, n, inner, v)
#ifdef KEEP
#define KEEP_E(HOW, i) PUT_AT(HOW, i, e);
#define AGAIN(HOW, i) T16 e = GEMS_CAT(get_out, HOW)(q, i, n, inner, 0);
#else
#define KEEP_E(HOW, i)
#define AGAIN(HOW, i)                                                                                                  \
    T16 x = IN_AT(HOW, i), e = ZERO;                                                                                   \
    IF_E(e = exp16(x - m);)
#endif
#ifdef E_UNUSED
#define IF_E(...)
#else
#define IF_E(...) __VA_ARGS__
#endif

#ifdef BACKWARD
#define SUM_STEP(k, HOW, i)                                                                                            \
    {                                                                                                                  \
        T16 g = G_AT(HOW, i), y = Y_AT(HOW, i);                                                                        \
        sum##k += TERM;                                                                                                \
    }
#define OUT_STEP(k, HOW, i)                                                                                            \
    {                                                                                                                  \
        T16 g = G_AT(HOW, i), y = Y_AT(HOW, i);                                                                        \
        PUT_AT(HOW, i, FINISH);                                                                                        \
    }
#else
#define MAX_STEP(k, HOW, i)                                                                                            \
    {                                                                                                                  \
        T16 x = IN_AT(HOW, i);                                                                                         \
        m##k = x > m##k ? x : m##k;                                                                                    \
    }
#define SUM_STEP(k, HOW, i)                                                                                            \
    {                                                                                                                  \
        T16 x = IN_AT(HOW, i), e = exp16(x - m);                                                                       \
        sum##k += TERM;                                                                                                \
        KEEP_E(HOW, i)                                                                                                 \
    }
#define OUT_STEP(k, HOW, i)                                                                                            \
    {                                                                                                                  \
        AGAIN(HOW, i)                                                                                                  \
        PUT_AT(HOW, i, FINISH);                                                                                        \
    }
#endif

#ifdef KERNEL_run
__kernel void run(ARGS)
{
    OPEN;
    ROW_SHARE(k, rows) {
        ROW_BASE(k)
        T s = 0;
#ifndef BACKWARD
        T16 m0 = LOWEST16, m1 = m0, m2 = m0, m3 = m0;
        ROW_WALK(0, n, n, MAX_STEP)
        m0 = m1 > m0 ? m1 : m0;
        m2 = m3 > m2 ? m3 : m2;
        m0 = m2 > m0 ? m2 : m0;
        GEMS_CAT(T, 8) a = m0.lo > m0.hi ? m0.lo : m0.hi;
        GEMS_CAT(T, 4) b4 = a.lo > a.hi ? a.lo : a.hi;
        GEMS_CAT(T, 2) c = b4.lo > b4.hi ? b4.lo : b4.hi;
        T m = c.x > c.y ? c.x : c.y;
#endif
        for (long b = 0; b < n; b += 4096) {
            T16 sum0 = ZERO, sum1 = ZERO, sum2 = ZERO, sum3 = ZERO;
            ROW_WALK(b, b + 4096, n, SUM_STEP)
            sum0 = (sum0 + sum1) + (sum2 + sum3);
            s += ROW_SUM16(sum0);
        }
        T t = ROW;
        ROW_WALK(0, n, n, OUT_STEP)
    }
}
#endif

/* Rows k to k+63 of one outer index: their elements are neighbours in input and output. */
#ifdef KERNEL_column
#define WIDTH 64
#undef IN_AT
#undef G_AT
#undef Y_AT
#undef PUT_AT
#undef AGAIN
#define IN_AT(HOW, c) GEMS_CAT(get_in, HOW)(p + i * stride, c, left, 1, -INFINITY)
#define G_AT(HOW, c) GEMS_CAT(get_in, HOW)(p + i * stride, c, left, 1, 0)
#define Y_AT(HOW, c) GEMS_CAT(get_in, HOW)(p2 + i * inner, c, left, 1, 0)
#define PUT_AT(HOW, c, v) GEMS_CAT(put_out, HOW)(q + i * inner, c, left, 1, v)
#ifdef KEEP
#define AGAIN(HOW, c) T16 e = GEMS_CAT(get_out, HOW)(q + i * inner, c, left, 1, 0);
#else
#define AGAIN(HOW, c)                                                                                                  \
    T16 x = IN_AT(HOW, c), e = ZERO;                                                                                   \
    IF_E(e = exp16(x - m);)
#endif
/* STEP for each 16 of the columns, with that part of the column's state as `m`, `sum0`, `t`. */
#define COLUMNS(PASS)                                                                                                  \
    if (left == WIDTH) {                                                                                               \
        for (int v = 0; v < WIDTH / 16; v++)                                                                           \
            PASS(_full, v)                                                                                             \
    } else {                                                                                                           \
        for (int v = 0; v < left / 16; v++)                                                                            \
            PASS(_full, v)                                                                                             \
        if (left % 16)                                                                                                 \
            PASS(_part, (int)(left / 16))                                                                              \
    }
#define MAX_PASS(HOW, v)                                                                                               \
    {                                                                                                                  \
        T16 m0 = ms[v];                                                                                                \
        MAX_STEP(0, HOW, (v) * 16)                                                                                     \
        ms[v] = m0;                                                                                                    \
    }
#define SUM_PASS(HOW, v)                                                                                               \
    {                                                                                                                  \
        T16 m = ms[v], sum0 = sums[v];                                                                                 \
        (void)m;                                                                                                       \
        SUM_STEP(0, HOW, (v) * 16)                                                                                     \
        sums[v] = sum0;                                                                                                \
    }
#define OUT_PASS(HOW, v)                                                                                               \
    {                                                                                                                  \
        T16 m = ms[v], t = ts[v];                                                                                      \
        (void)m;                                                                                                       \
        OUT_STEP(0, HOW, (v) * 16)                                                                                     \
    }
__kernel void column(ARGS)
{
    OPEN;
    long tiles = (inner + WIDTH - 1) / WIDTH, units = rows / inner * tiles;
    ROW_SHARE(u, units) {
        long c = u % tiles * WIDTH, left = min(inner - c, (long)WIDTH), k = u / tiles * inner + c;
        ROW_BASE(k)
        T16 ms[WIDTH / 16], sums[WIDTH / 16], ts[WIDTH / 16];
        for (int v = 0; v < WIDTH / 16; v++) {
            ms[v] = LOWEST16;
            ts[v] = ZERO;
        }
#ifndef BACKWARD
        for (long i = 0; i < n; i++) {
            COLUMNS(MAX_PASS)
        }
#endif
        for (long b = 0; b < n; b += 64) {
            for (int v = 0; v < WIDTH / 16; v++)
                sums[v] = ZERO;
            for (long i = b; i < min(b + 64, n); i++) {
                COLUMNS(SUM_PASS)
            }
            for (int v = 0; v < WIDTH / 16; v++)
                ts[v] += sums[v];
        }
        for (int v = 0; v < WIDTH / 16; v++) {
            T16 s = ts[v];
            ts[v] = ROW;
        }
        for (long i = 0; i < n; i++) {
            COLUMNS(OUT_PASS)
        }
    }
}
#endif

/* What TERM and FINISH are made of, of one element. */
#ifdef BACKWARD
#define ELEMENT(i) T g = LOAD(p, i * stride), y = LOAD(p2, i * inner);
#else
#define ELEMENT(i) T x = LOAD(p, i * stride), e = exp(x - m);
#endif

#ifdef KERNEL_wide
#include "kernels/wide.cl"
#define E WIDE_OF(IN)
#define VALUES(q)                                                                                                      \
    GEMS_CAT(num_, IN) got[E];                                                                                         \
    GEMS_CAT(wide_get_, IN)(q, got);
#define LARGER(a, b) ((b) > (a) ? (b) : (a))
#define PLUS(a, b) ((a) + (b))
#define MAX_OF(q, i)                                                                                                   \
    {                                                                                                                  \
        VALUES(q)                                                                                                      \
        UNROLL for (int j = 0; j < E; j++) m = LARGER(m, (T)got[j]);                                                   \
    }
#define SUM_OF(q, i)                                                                                                   \
    {                                                                                                                  \
        VALUES(q)                                                                                                      \
        UNROLL for (int j = 0; j < E; j++)                                                                             \
        {                                                                                                              \
            const T x = got[j], e = exp(x - m);                                                                        \
            (void)x;                                                                                                   \
            s += TERM;                                                                                                 \
        }                                                                                                              \
    }
#define OUT_OF(q_, i)                                                                                                  \
    {                                                                                                                  \
        GEMS_CAT(num_, OUT) y_[E];                                                                                     \
        VALUES(q_)                                                                                                     \
        UNROLL for (int j = 0; j < E; j++)                                                                             \
        {                                                                                                              \
            const T x = got[j], e = exp(x - m);                                                                        \
            (void)x, (void)e;                                                                                          \
            y_[j] = FINISH;                                                                                            \
        }                                                                                                              \
        WIDE_STORE(OUT, q + (long)(i) * E, y_, E)                                                                      \
    }
__kernel WIDE_ATTR void wide(ARGS)
{
    OPEN;
    HOLD_MEMORY
    WIDE_TREE_MEMORY(T, tree)
    WIDE_ROW(k, rows)
    ROW_BASE(k)
    const __global uint4 *from = (const __global uint4 *)p;
    const int vectors = (int)(n / E);
    HOLD(from, vectors)
    T m = -INFINITY, s = 0;
    HOLD_WALK(from, vectors, MAX_OF)
    WIDE_TREE(T, m, LARGER, tree)
    HOLD_WALK(from, vectors, SUM_OF)
    WIDE_TREE(T, s, PLUS, tree)
    const T t = ROW;
    if (mine)
        HOLD_WALK(from, vectors, OUT_OF)
}
#endif

#ifdef KERNEL_group
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void group(ARGS)
{
    OPEN;
    __local T part[GROUP];
    int me = get_local_id(0);
    ROW_BASE(get_group_id(0))
    T s = 0;
#ifndef BACKWARD
    T m = -INFINITY;
    for (long i = me; i < n; i += GROUP) {
        T x = LOAD(p, i * stride);
        m = x > m ? x : m;
    }
    ROW_TREE(m, b > a ? b : a)
#endif
    for (long i = me; i < n; i += GROUP) {
        ELEMENT(i)
        s += TERM;
    }
    ROW_TREE(s, a + b)
    T t = ROW;
    for (long i = me; i < n; i += GROUP) {
        ELEMENT(i)
        PUT1(q, i * inner, FINISH);
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
    T s = 0;
#ifndef BACKWARD
    T m = -INFINITY;
    for (long i = 0; i < n; i++) {
        T x = LOAD(p, i * stride);
        m = x > m ? x : m;
    }
#endif
    for (long b = 0; b < n; b += 64) {
        T sum = 0;
        for (long i = b; i < min(b + 64, n); i++) {
            ELEMENT(i)
            sum += TERM;
        }
        s += sum;
    }
    T t = ROW;
    for (long i = 0; i < n; i++) {
        ELEMENT(i)
        PUT1(q, i * inner, FINISH);
    }
}
#endif
