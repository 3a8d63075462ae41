/* Softmax along one dimension and its kin, forward and backward. Output is contiguous, any input strides.
 *
 * The launcher defines IN, OUT, T (type computed in), and three expressions:
 *   TERM    forward: e = exp(x - m), m the row's maximum; backward: of g and y. s is its sum over the row.
 *   ROW     t, once a row, of s                       "1 / s", "log(s)"
 *   FINISH  an output element of x, m, e, t; backward: of g, y, t
 * BACKWARD: two inputs, gradient and output, both contiguous. KEEP: FINISH needs only e and t, and OUT holds e exactly,
 * so e is stored by the second pass and not computed again.
 *
 * Sums run over blocks of 1024 terms, 16 lanes each, then over blocks: fixed order. A row of -inf, or with inf or NaN,
 * gives NaN as exp(inf - inf) does. Rows are read three times (twice backward), from cache if they fit.
 *
 * run     one work-item a row, several rows in turn (CPU)
 * column  one work-item for 16 neighbouring rows that lie side by side (CPU)
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
    const __global MEM_IN *in, const __global MEM_IN *in2, __global MEM_OUT *out, const gems_fold kept, long rows,     \
        long n, long stride, long inner
#define INPUTS(p2) const __global MEM_IN *p2 = in2 + out_base;
#else
#define ARGS                                                                                                           \
    const __global MEM_IN *in, __global MEM_OUT *out, const gems_fold kept, long rows, long n, long stride, long inner
#define INPUTS(p2)
#endif
#define ROW_BASE(k)                                                                                                    \
    long out_base = (k) / inner * n * inner + (k) % inner;                                                             \
    const __global MEM_IN *p = in + gems_fold_offset(&kept, k);                                                        \
    __global MEM_OUT *q = out + out_base;                                                                              \
    INPUTS(p2)

#ifdef RUN
__kernel void run(ARGS)
{
    long per = (rows + get_global_size(0) - 1) / get_global_size(0);
    long k_end = min(((long)get_global_id(0) + 1) * per, rows);
    for (long k = get_global_id(0) * per; k < k_end; k++) {
        ROW_BASE(k)
        T s = 0;
#ifdef BACKWARD
        for (long b = 0; b < n; b += 1024) {
            T16 sum = (T16)((T)0);
            for (long i = b; i < min(b + 1024, n); i += 16) {
                T16 g = get_in(p, i, n, stride, 0), y = get_in(p2, i, n, inner, 0);
                sum += TERM;
            }
            s += ROW_SUM16(sum);
        }
        T t = ROW;
        for (long i = 0; i < n; i += 16) {
            T16 g = get_in(p, i, n, stride, 0), y = get_in(p2, i, n, inner, 0);
            put_out(q, i, n, inner, FINISH);
        }
#else
        T16 m16 = (T16)((T)-INFINITY);
        for (long i = 0; i < n; i += 16) {
            T16 x = get_in(p, i, n, stride, -INFINITY);
            m16 = x > m16 ? x : m16;
        }
        T lane[16];
        vstore16(m16, 0, lane);
        T m = lane[0];
        for (int l = 1; l < 16; l++)
            m = lane[l] > m ? lane[l] : m;
        for (long b = 0; b < n; b += 1024) {
            T16 sum = (T16)((T)0);
            for (long i = b; i < min(b + 1024, n); i += 16) {
                T16 x = get_in(p, i, n, stride, -INFINITY), e = exp(x - m);
                sum += TERM;
#ifdef KEEP
                put_out(q, i, n, inner, e);
#endif
            }
            s += ROW_SUM16(sum);
        }
        T t = ROW;
        for (long i = 0; i < n; i += 16) {
#ifdef KEEP
            T16 e = get_out(q, i, n, inner, 0);
#else
            T16 x = get_in(p, i, n, stride, 0), e = exp(x - m);
#endif
            put_out(q, i, n, inner, FINISH);
        }
#endif
    }
}
#endif

/* Rows k to k+15 of one outer index: their elements are neighbours in input and output. */
#ifdef COLUMN
__kernel void column(ARGS)
{
    long tiles = (inner + 15) / 16, units = rows / inner * tiles;
    long per = (units + get_global_size(0) - 1) / get_global_size(0);
    long u_end = min(((long)get_global_id(0) + 1) * per, units);
    for (long u = get_global_id(0) * per; u < u_end; u++) {
        long c = u % tiles * 16, left = inner - c, k = u / tiles * inner + c;
        ROW_BASE(k)
        T16 s = (T16)((T)0);
#ifdef BACKWARD
        for (long b = 0; b < n; b += 64) {
            T16 sum = (T16)((T)0);
            for (long i = b; i < min(b + 64, n); i++) {
                T16 g = get_in(p + i * stride, 0, left, 1, 0), y = get_in(p2 + i * inner, 0, left, 1, 0);
                sum += TERM;
            }
            s += sum;
        }
        T16 t = ROW;
        for (long i = 0; i < n; i++) {
            T16 g = get_in(p + i * stride, 0, left, 1, 0), y = get_in(p2 + i * inner, 0, left, 1, 0);
            put_out(q + i * inner, 0, left, 1, FINISH);
        }
#else
        T16 m = (T16)((T)-INFINITY);
        for (long i = 0; i < n; i++) {
            T16 x = get_in(p + i * stride, 0, left, 1, 0);
            m = x > m ? x : m;
        }
        for (long b = 0; b < n; b += 64) {
            T16 sum = (T16)((T)0);
            for (long i = b; i < min(b + 64, n); i++) {
                T16 x = get_in(p + i * stride, 0, left, 1, 0), e = exp(x - m);
                sum += TERM;
#ifdef KEEP
                put_out(q + i * inner, 0, left, 1, e);
#endif
            }
            s += sum;
        }
        T16 t = ROW;
        for (long i = 0; i < n; i++) {
#ifdef KEEP
            T16 e = get_out(q + i * inner, 0, left, 1, 0);
#else
            T16 x = get_in(p + i * stride, 0, left, 1, 0), e = exp(x - m);
#endif
            put_out(q + i * inner, 0, left, 1, FINISH);
        }
#endif
    }
}
#endif

#ifdef GROUP_
#define TREE(v, op)                                                                                                    \
    part[me] = v;                                                                                                      \
    for (int w = GROUP / 2; w > 0; w /= 2) {                                                                           \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        if (me < w) {                                                                                                  \
            T a = part[me], b = part[me + w];                                                                          \
            part[me] = op;                                                                                             \
        }                                                                                                              \
    }                                                                                                                  \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    v = part[0];                                                                                                       \
    barrier(CLK_LOCAL_MEM_FENCE);
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void group(ARGS)
{
    __local T part[GROUP];
    int me = get_local_id(0);
    ROW_BASE(get_group_id(0))
    T s = 0;
#ifdef BACKWARD
    for (long i = me; i < n; i += GROUP) {
        T g = LOAD(p, i * stride), y = LOAD(p2, i * inner);
        s += TERM;
    }
    TREE(s, a + b)
    T t = ROW;
    for (long i = me; i < n; i += GROUP) {
        T g = LOAD(p, i * stride), y = LOAD(p2, i * inner);
        PUT1(q, i * inner, FINISH);
    }
#else
    T m = -INFINITY;
    for (long i = me; i < n; i += GROUP) {
        T x = LOAD(p, i * stride);
        m = x > m ? x : m;
    }
    TREE(m, b > a ? b : a)
    for (long i = me; i < n; i += GROUP) {
        T x = LOAD(p, i * stride), e = exp(x - m);
        s += TERM;
    }
    TREE(s, a + b)
    T t = ROW;
    for (long i = me; i < n; i += GROUP) {
        T x = LOAD(p, i * stride), e = exp(x - m);
        PUT1(q, i * inner, FINISH);
    }
#endif
}
#endif

#ifdef ITEM
__kernel void item(ARGS)
{
    long k = get_global_id(0);
    if (k >= rows)
        return;
    ROW_BASE(k)
    T s = 0;
#ifdef BACKWARD
    for (long b = 0; b < n; b += 64) {
        T sum = 0;
        for (long i = b; i < min(b + 64, n); i++) {
            T g = LOAD(p, i * stride), y = LOAD(p2, i * inner);
            sum += TERM;
        }
        s += sum;
    }
    T t = ROW;
    for (long i = 0; i < n; i++) {
        T g = LOAD(p, i * stride), y = LOAD(p2, i * inner);
        PUT1(q, i * inner, FINISH);
    }
#else
    T m = -INFINITY;
    for (long i = 0; i < n; i++) {
        T x = LOAD(p, i * stride);
        m = x > m ? x : m;
    }
    for (long b = 0; b < n; b += 64) {
        T sum = 0;
        for (long i = b; i < min(b + 64, n); i++) {
            T x = LOAD(p, i * stride), e = exp(x - m);
            sum += TERM;
        }
        s += sum;
    }
    T t = ROW;
    for (long i = 0; i < n; i++) {
        T x = LOAD(p, i * stride), e = exp(x - m);
        PUT1(q, i * inner, FINISH);
    }
#endif
}
#endif
