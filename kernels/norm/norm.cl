/* Layer norm and RMS norm over dense or strided rows: out = (x - mean) * rstd * weight + bias, with
 * rstd = 1 / sqrt(mean((x - mean)^2) + eps); RMS norm leaves mean out. Output is contiguous.
 *
 * The launcher defines IN (dtype of input and output), T (type computed in), W (dtype of weight and bias), S (dtype of
 * the saved mean and rstd), CENTER where the mean is subtracted, and IF_WEIGHT, IF_BIAS, IF_MEAN, IF_RSTD, which keep
 * what stands in them where there is such an argument. GROUPS: a row is one of `groups` groups of channels, each of which
 * has `span` neighbouring elements and one element of weight and bias. Mean first, then the squares of the differences, so nothing
 * cancels. Sums run over blocks (64 terms a lane, or an item), then over blocks: fixed order.
 *
 * run     one work-item a row, several rows in turn (CPU)
 * wide    LANES items of a work-group a row, which is read once where it can be held (GPU; rows of whole 16 bytes)
 * group   one work-group a row (GPU) */
#ifndef IN
#define IN f32
#define T float
#define W f32
#define S f32
#define CENTER
#define IF_WEIGHT(...)
#define IF_BIAS(...)
#define IF_MEAN(...)
#define IF_RSTD(...)
#endif
#ifndef GROUP
#define GROUP 256
#endif

#define T16 GEMS_CAT(T, 16)
#define MEM_IN GEMS_CAT(mem_, IN)
#define MEM_W GEMS_CAT(mem_, W)
#define MEM_S GEMS_CAT(mem_, S)
ROW_GET(IN, get_in, T)
ROW_PUT(IN, put_out)

ROW_GET(W, get_w, T)

/* What is left of the mean after its subtraction is its rounding error: it belongs to the mean, not to the squares.
 * Without this a row of equal elements is not 0. Less than the differences' own rounding says nothing. */
#ifdef CENTER
#define IF_CENTER(...) __VA_ARGS__
#define CORRECT(left)                                                                                                  \
    left /= n;                                                                                                         \
    if (left * left * n > squares * (T)(sizeof(T) > 4 ? 0x1p-106f : 0x1p-48f)) {                                       \
        mean += left;                                                                                                  \
        squares -= left * left * n;                                                                                    \
        squares = squares < 0 ? 0 : squares;                                                                           \
    }
#else
#define IF_CENTER(...)
#define CORRECT(left)
#endif

#ifdef GROUPS
#define IF_GROUPS(...) __VA_ARGS__
/* Of element i of row k. */
#define CHANNEL(i)                                                                                                     \
    const long channel = k % groups * (n / span) + (i) / span;                                                         \
    IF_WEIGHT(const T w_ = GEMS_CAT(load_, W)(weight, channel);)                                                       \
    IF_BIAS(const T b_ = GEMS_CAT(load_, W)(bias, channel);)
#else
#define IF_GROUPS(...)
#endif

#define ARGS                                                                                                           \
    GEMS_BUFFER(const MEM_IN, in), GEMS_BUFFER(MEM_IN, out), const gems_nest kept, long rows, long n, long stride,     \
        T eps IF_WEIGHT(, GEMS_BUFFER(const MEM_W, weight)) IF_BIAS(, GEMS_BUFFER(const MEM_W, bias))                  \
            IF_MEAN(, GEMS_BUFFER(MEM_S, means)) IF_RSTD(, GEMS_BUFFER(MEM_S, rstds))                                  \
                IF_GROUPS(, long groups, long span) ROW_MORE
#define OPEN                                                                                                           \
    ROW_OPEN                                                                                                           \
    GEMS_AT(const MEM_IN, in);                                                                                         \
    GEMS_AT(MEM_IN, out);                                                                                              \
    IF_WEIGHT(GEMS_AT(const MEM_W, weight);)                                                                           \
    IF_BIAS(GEMS_AT(const MEM_W, bias);)                                                                               \
    IF_MEAN(GEMS_AT(MEM_S, means);)                                                                                    \
    IF_RSTD(GEMS_AT(MEM_S, rstds);)
#define SAVE(k)                                                                                                        \
    IF_MEAN(GEMS_CAT(store_, S)(means, k, mean);)                                                                      \
    IF_RSTD(GEMS_CAT(store_, S)(rstds, k, rstd);)

#ifdef KERNEL_run
#define GET(HOW, i, fill) GEMS_CAT(get_in, HOW)(p, i, n, stride, fill)
#define SUM_STEP(k, HOW, i) sum##k += GET(HOW, i, 0);
#define SQUARES_STEP(k, HOW, i)                                                                                        \
    {                                                                                                                  \
        T16 d = GET(HOW, i, mean) - mean;                                                                              \
        sum##k += d * d;                                                                                               \
        IF_CENTER(rest##k += d;)                                                                                     \
    }
#ifdef GROUPS
#define OUT_STEP(k, HOW, i)                                                                                            \
    {                                                                                                                  \
        T16 y = (GET(HOW, i, 0) - mean) * rstd;                                                                        \
        IF_WEIGHT(y *= w_;)                                                                                            \
        IF_BIAS(y += b_;)                                                                                              \
        GEMS_CAT(put_out, HOW)(q, i, n, 1, y);                                                                         \
    }
#else
#define OUT_STEP(k, HOW, i)                                                                                            \
    {                                                                                                                  \
        T16 y = (GET(HOW, i, 0) - mean) * rstd;                                                                        \
        IF_WEIGHT(y *= GEMS_CAT(get_w, HOW)(weight, i, n, 1, 0);)                                                      \
        IF_BIAS(y += GEMS_CAT(get_w, HOW)(bias, i, n, 1, 0);)                                                          \
        GEMS_CAT(put_out, HOW)(q, i, n, 1, y);                                                                         \
    }
#endif
#define ZERO ((T16)((T)0))
#ifdef DENSE_ROWS
#define BLOCK 4096
#else
#define BLOCK 1024 /* one chain, not four */
#endif

__kernel void run(ARGS)
{
    OPEN
    ROW_SHARE(k, rows) {
        ROW_IN(MEM_IN, p, in, kept, k, n)
        __global MEM_IN *q = out + k * n;
        T mean = 0, squares = 0, left = 0, low = 0;
#ifdef CENTER
        for (long b = 0; b < n; b += BLOCK) {
            T16 sum0 = ZERO, sum1 = ZERO, sum2 = ZERO, sum3 = ZERO;
            ROW_WALK(b, b + BLOCK, n, SUM_STEP)
            sum0 = (sum0 + sum1) + (sum2 + sum3);
            ROW_ADD(T, mean, low, ROW_SUM16(sum0));
        }
        mean = ROW_TOTAL(mean, low) / n;
        low = 0;
#endif
        for (long b = 0; b < n; b += BLOCK) {
            T16 sum0 = ZERO, sum1 = ZERO, sum2 = ZERO, sum3 = ZERO;
            IF_CENTER(T16 rest0 = ZERO; T16 rest1 = ZERO; T16 rest2 = ZERO; T16 rest3 = ZERO;)
            ROW_WALK(b, b + BLOCK, n, SQUARES_STEP)
            sum0 = (sum0 + sum1) + (sum2 + sum3);
            ROW_ADD(T, squares, low, ROW_SUM16(sum0));
            IF_CENTER(rest0 = (rest0 + rest1) + (rest2 + rest3); left += ROW_SUM16(rest0);)
        }
        squares = ROW_TOTAL(squares, low);
        CORRECT(left)
        T rstd = 1 / sqrt(squares / n + eps);
        SAVE(k)
#ifdef GROUPS
        /* A channel's last vector may reach into the next one, which then writes its own. */
        for (long first = 0; first < n; first += span) {
            CHANNEL(first)
            ROW_WALK(first, first + span, n, OUT_STEP)
        }
#else
        ROW_WALK(0, n, n, OUT_STEP)
#endif
    }
}
#endif

#ifdef KERNEL_wide
#include "kernels/wide.cl"
#define E WIDE_OF(IN)
#define VALUES(q)                                                                                                      \
    GEMS_CAT(num_, IN) got[E];                                                                                         \
    GEMS_CAT(wide_get_, IN)(q, got);
#define PLUS(a, b) ((a) + (b))
#define T2 GEMS_CAT(T, 2)
#define SUM_OF(q, i)                                                                                                   \
    {                                                                                                                  \
        VALUES(q)                                                                                                      \
        T sum = 0;                                                                                                     \
        UNROLL for (int j = 0; j < E; j++) sum += got[j];                                                              \
        mean += sum;                                                                                                   \
    }
#define SQUARES_OF(q, i)                                                                                               \
    {                                                                                                                  \
        VALUES(q)                                                                                                      \
        T sum = 0, rest = 0;                                                                                           \
        UNROLL for (int j = 0; j < E; j++)                                                                             \
        {                                                                                                              \
            const T d = got[j] - mean;                                                                                 \
            sum += d * d;                                                                                              \
            rest += d;                                                                                                 \
        }                                                                                                              \
        squares += sum;                                                                                                \
        left += rest;                                                                                                  \
    }
/* Elements i * E to i * E + E - 1 of weight or bias. */
#define AFFINE(name, p, i)                                                                                             \
    GEMS_CAT(num_, W) name[E];                                                                                         \
    UNROLL for (int at = 0; at < E; at += WIDE_OF(W))                                                                  \
        GEMS_CAT(wide_get_, W)(((const __global uint4 *)(p + (long)(i) * E))[at / WIDE_OF(W)], name + at);
#ifdef GROUPS
#define AFFINES(i) CHANNEL((i) * E)
#define AT_J
#else
#define AFFINES(i)                                                                                                     \
    IF_WEIGHT(AFFINE(w_, weight, i))                                                                                   \
    IF_BIAS(AFFINE(b_, bias, i))
#define AT_J [j]
#endif
#define OUT_OF(q_, i)                                                                                                  \
    {                                                                                                                  \
        GEMS_CAT(num_, IN) y_[E];                                                                                      \
        VALUES(q_)                                                                                                     \
        AFFINES(i)                                                                                                     \
        UNROLL for (int j = 0; j < E; j++)                                                                             \
        {                                                                                                              \
            T y = (got[j] - mean) * rstd;                                                                              \
            IF_WEIGHT(y *= (T)w_ AT_J;)                                                                                \
            IF_BIAS(y += (T)b_ AT_J;)                                                                                  \
            y_[j] = y;                                                                                                 \
        }                                                                                                              \
        WIDE_STORE(IN, q + (long)(i) * E, y_, E)                                                                       \
    }
__kernel WIDE_ATTR void wide(ARGS)
{
    OPEN
    HOLD_MEMORY
    WIDE_TREE_MEMORY(T, tree)
    IF_CENTER(WIDE_TREE_MEMORY(T2, pairs))
    WIDE_ROW(k, rows)
    const __global uint4 *from = (const __global uint4 *)(in + gems_nest_offset(&kept, k));
    __global MEM_IN *q = out + k * n;
    const int vectors = (int)(n / E);
    HOLD(from, vectors)
    T mean = 0, squares = 0, left = 0;
#ifdef CENTER
    HOLD_WALK(from, vectors, SUM_OF)
    WIDE_TREE(T, mean, PLUS, tree)
    mean /= n;
#endif
    HOLD_WALK(from, vectors, SQUARES_OF)
#ifdef CENTER
    T2 both = (T2)(squares, left);
    WIDE_TREE(T2, both, PLUS, pairs)
    squares = both.x, left = both.y;
    CORRECT(left)
#else
    WIDE_TREE(T, squares, PLUS, tree)
#endif
    const T rstd = 1 / sqrt(squares / n + eps);
    if (mine && lane == 0) {
        SAVE(k)
    }
    if (mine)
        HOLD_WALK(from, vectors, OUT_OF)
}
#endif

#ifdef KERNEL_group
#define BLOCK (64 * GROUP)

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void group(ARGS)
{
    OPEN
    __local T part[GROUP];
    int me = get_local_id(0);
    long k = get_group_id(0);
    const __global MEM_IN *p = in + gems_nest_offset(&kept, k);
    __global MEM_IN *q = out + k * n;
    T mean = 0, squares = 0;
#ifdef CENTER
    for (long b = me; b < n; b += BLOCK) {
        T sum = 0;
        for (long i = b; i < min(b + BLOCK, n); i += GROUP)
            sum += GEMS_CAT(load_, IN)(p, i * stride);
        mean += sum;
    }
    ROW_TREE(mean, a + b)
    mean /= n;
#endif
    T left = 0;
    for (long b = me; b < n; b += BLOCK) {
        T sum = 0, rest = 0;
        for (long i = b; i < min(b + BLOCK, n); i += GROUP) {
            T d = GEMS_CAT(load_, IN)(p, i * stride) - mean;
            sum += d * d;
            rest += d;
        }
        squares += sum;
        left += rest;
    }
    ROW_TREE(squares, a + b)
#ifdef CENTER
    ROW_TREE(left, a + b)
    CORRECT(left)
#endif
    T rstd = 1 / sqrt(squares / n + eps);
    if (me == 0) {
        SAVE(k)
    }
    for (long i = me; i < n; i += GROUP) {
        T y = (GEMS_CAT(load_, IN)(p, i * stride) - mean) * rstd;
#ifdef GROUPS
        CHANNEL(i)
        IF_WEIGHT(y *= w_;)
        IF_BIAS(y += b_;)
#else
        IF_WEIGHT(y *= (T)GEMS_CAT(load_, W)(weight, i);)
        IF_BIAS(y += (T)GEMS_CAT(load_, W)(bias, i);)
#endif
        GEMS_CAT(store_, IN)(q, i, y);
    }
}
#endif
