/* Gradients of layer norm over dense or strided rows. With y = (x - mean) * rstd, g the gradient of the result, and
 * sums over a row's n elements:
 *
 *   grad_input  = rstd * (g * weight - sum(g * weight) / n - y * sum(g * weight * y) / n)
 *   grad_weight = sum over rows of g * y,    grad_bias = sum over rows of g
 *
 * The launcher defines IN (dtype of input and gradient), T (type computed in), P (its dtype), W (dtype of weight, bias
 * and their gradients), S (dtype of mean and rstd), and IF_WEIGHT, IF_DX, IF_DW, IF_DB, which keep what stands in them
 * where there is a weight, or that gradient is asked for.
 *
 * Sums over rows are made in parts of `part_rows` rows, which `parts` holds (of all parts grad_weight's, then
 * grad_bias's), then of the parts. Whose part a row is depends on sizes and device alone: the order is fixed.
 *
 * run      one work-item a part, several parts in turn: everything but the sums of parts (CPU)
 * wide     LANES items of a work-group a part, a row of it after another, 16 bytes at a time: everything but the sums
 *          of parts (GPU; rows of whole 16 bytes, at most HELD of them an item)
 * group    one work-group a row: grad_input (GPU)
 * columns  one work-group a part of up to 32 neighbouring columns: their parts of the sums (GPU)
 * finish   the sums of parts: 16 columns a work-item
 * finish_group  the same, 32 columns a group, among whose items the parts are dealt out (GPU) */
#ifndef IN
#define IN f32
#define T float
#define P f32
#define W f32
#define S f32
#define IF_WEIGHT(...) __VA_ARGS__
#define IF_DX(...) __VA_ARGS__
#define IF_DW(...) __VA_ARGS__
#define IF_DB(...) __VA_ARGS__
#define SUMS
#endif
#ifndef GROUP
#define GROUP 256
#endif

#define T16 GEMS_CAT(T, 16)
#define MEM_IN GEMS_CAT(mem_, IN)
#define MEM_W GEMS_CAT(mem_, W)
#define MEM_S GEMS_CAT(mem_, S)
#ifdef SUMS
#define IF_SUMS(...) __VA_ARGS__
#else
#define IF_SUMS(...)
#endif

#define ROWS_ARGS                                                                                                      \
    GEMS_BUFFER(const MEM_IN, in), GEMS_BUFFER(const MEM_IN, grad), GEMS_BUFFER(const MEM_S, means),                   \
        GEMS_BUFFER(const MEM_S, rstds), const gems_nest in_rows, const gems_nest grad_rows, long rows, long n,        \
        long in_stride, long grad_stride, long nparts, long part_rows
#define ROWS_AT                                                                                                        \
    GEMS_AT(const MEM_IN, in);                                                                                         \
    GEMS_AT(const MEM_IN, grad);                                                                                       \
    GEMS_AT(const MEM_S, means);                                                                                       \
    GEMS_AT(const MEM_S, rstds);
/* Row k. */
#define ROW_AT(k)                                                                                                      \
    const __global MEM_IN *p = in + gems_nest_offset(&in_rows, k);                                                     \
    const __global MEM_IN *g = grad + gems_nest_offset(&grad_rows, k);                                                 \
    const T mean = GEMS_CAT(load_, S)(means, k), rstd = GEMS_CAT(load_, S)(rstds, k);

#ifdef KERNEL_run
ROW_GET(IN, get_in, T)
ROW_GET(W, get_w, T)
ROW_GET(P, get_sum, T)
ROW_PUT(IN, put_dx)
ROW_PUT(P, put_sum)
#define ZERO ((T16)((T)0))
#define LOAD_STEP(HOW, i)                                                                                              \
    T16 y = (GEMS_CAT(get_in, HOW)(p, i, n, in_stride, mean) - mean) * rstd;                                           \
    T16 d = GEMS_CAT(get_in, HOW)(g, i, n, grad_stride, 0);
#define SUM_STEP(k, HOW, i)                                                                                            \
    {                                                                                                                  \
        LOAD_STEP(HOW, i)                                                                                              \
        IF_WEIGHT(d *= GEMS_CAT(get_w, HOW)(weight, i, n, 1, 0);)                                                      \
        sum##k += d;                                                                                                   \
        dot##k += d * y;                                                                                               \
    }
#define KEEP_STEP(HOW, to, i, x)                                                                                       \
    GEMS_CAT(put_sum, HOW)(to, i, n, 1, is_first ? (x) : GEMS_CAT(get_sum, HOW)(to, i, n, 1, 0) + (x));
#define OUT_STEP(k, HOW, i)                                                                                            \
    {                                                                                                                  \
        LOAD_STEP(HOW, i)                                                                                              \
        IF_DW(KEEP_STEP(HOW, dw, i, d * y))                                                                            \
        IF_DB(KEEP_STEP(HOW, db, i, d))                                                                                \
        IF_DX(IF_WEIGHT(d *= GEMS_CAT(get_w, HOW)(weight, i, n, 1, 0);)                                                \
              GEMS_CAT(put_dx, HOW)(q, i, n, 1, (d - sum - y * dot) * rstd);)                                          \
    }
#ifdef DENSE_ROWS
#define BLOCK 4096
#else
#define BLOCK 1024 /* one chain, not four */
#endif

__kernel void run(ROWS_ARGS IF_WEIGHT(, GEMS_BUFFER(const MEM_W, weight)) IF_DX(, GEMS_BUFFER(MEM_IN, dx))
                      IF_SUMS(, GEMS_BUFFER(T, parts)))
{
    ROWS_AT
    IF_WEIGHT(GEMS_AT(const MEM_W, weight);)
    IF_DX(GEMS_AT(MEM_IN, dx);)
    IF_SUMS(GEMS_AT(T, parts);)
    ROW_SHARE(part, nparts) {
        IF_DW(__global T *dw = parts + part * n;)
        IF_DB(__global T *db = parts + (IF_DW(nparts +) part) * n;)
        const long first = part * part_rows, end = min(first + part_rows, rows);
        for (long row = first; row < end; row++) {
            const bool is_first = row == first;
            ROW_AT(row)
#if IF_DX(1) + 0
            __global MEM_IN *q = dx + row * n;
            T sum = 0, dot = 0, sum_low = 0, dot_low = 0;
            for (long b = 0; b < n; b += BLOCK) {
                T16 sum0 = ZERO, sum1 = ZERO, sum2 = ZERO, sum3 = ZERO;
                T16 dot0 = ZERO, dot1 = ZERO, dot2 = ZERO, dot3 = ZERO;
                ROW_WALK(b, b + BLOCK, n, SUM_STEP)
                sum0 = (sum0 + sum1) + (sum2 + sum3);
                dot0 = (dot0 + dot1) + (dot2 + dot3);
                ROW_ADD(T, sum, sum_low, ROW_SUM16(sum0));
                ROW_ADD(T, dot, dot_low, ROW_SUM16(dot0));
            }
            sum = ROW_TOTAL(sum, sum_low) / n;
            dot = ROW_TOTAL(dot, dot_low) / n;
#endif
            ROW_WALK(0, n, n, OUT_STEP)
        }
    }
}
#endif

#ifdef KERNEL_wide
#include "kernels/wide.cl"
#define E WIDE_OF(IN)
#define T2 GEMS_CAT(T, 2)
#define PLUS(a, b) ((a) + (b))
#define W_VECTORS (E / WIDE_OF(W)) /* of the weight for one of the input */
/* An item's vectors of a row, as y and d: twice from what was read, since numbers kept from one pass for the next would
 * take more registers than a group of 1024 items may have. */
#define EACH_OF_ROW(...)                                                                                               \
    UNROLL for (int u = 0; u < HELD; u++) if (lane + u * LANES < vectors)                                              \
    {                                                                                                                  \
        GEMS_CAT(num_, IN) x[E], g[E], q[E];                                                                           \
        HOLD_AS_IT_IS(xs[u]);                                                                                          \
        HOLD_AS_IT_IS(gs[u]);                                                                                          \
        GEMS_CAT(wide_get_, IN)(xs[u], x);                                                                             \
        GEMS_CAT(wide_get_, IN)(gs[u], g);                                                                             \
        IF_WEIGHT(GEMS_CAT(num_, W) w[E]; UNROLL for (int v = 0; v < W_VECTORS; v++) {                                 \
            HOLD_AS_IT_IS(ws[u][v]);                                                                                   \
            GEMS_CAT(wide_get_, W)(ws[u][v], w + v * WIDE_OF(W));                                                      \
        })                                                                                                             \
        UNROLL for (int j = 0; j < E; j++)                                                                             \
        {                                                                                                              \
            T y = (x[j] - mean) * rstd, d = g[j];                                                                      \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
__kernel WIDE_ATTR void wide(ROWS_ARGS IF_WEIGHT(, GEMS_BUFFER(const MEM_W, weight)) IF_DX(, GEMS_BUFFER(MEM_IN, dx))
                                 IF_SUMS(, GEMS_BUFFER(T, parts)))
{
    ROWS_AT
    IF_WEIGHT(GEMS_AT(const MEM_W, weight);)
    IF_DX(GEMS_AT(MEM_IN, dx);)
    IF_SUMS(GEMS_AT(T, parts);)
    IF_DX(WIDE_TREE_MEMORY(T2, pairs))
    const int lane = get_local_id(0), slot = get_local_id(1) * LANES + lane, vectors = (int)(n / E);
    /* All items of a group meet, whether or not their part has rows, or is one. */
    const long part = get_group_id(0) * (long)(GROUP / LANES) + get_local_id(1), first = part * part_rows;
    uint4 xs[HELD], gs[HELD];
    IF_WEIGHT(uint4 ws[HELD][W_VECTORS];)
    IF_DW(T dw[HELD][E];)
    IF_DB(T db[HELD][E];)
    UNROLL for (int u = 0; u < HELD; u++)
    {
        xs[u] = gs[u] = (uint4)(0);
        IF_WEIGHT(UNROLL for (int v = 0; v < W_VECTORS; v++) ws[u][v] =
                      lane + u * LANES < vectors
                          ? ((const __global uint4 *)weight)[(lane + u * LANES) * W_VECTORS + v]
                          : (uint4)(0);)
        UNROLL for (int j = 0; j < E; j++)
        {
            IF_DW(dw[u][j] = 0;)
            IF_DB(db[u][j] = 0;)
        }
    }
    IF_DX(const T share = 1 / (T)n;)
    const int here = (int)part_rows, left = (int)min(part_rows, rows - first);
    const long x_step = in_rows.stride[0], g_step = grad_rows.stride[0];
    const __global MEM_IN *x_at = in + first * x_step + lane * E, *g_at = grad + first * g_step + lane * E;
    const __global MEM_S *mean_at = means + first, *rstd_at = rstds + first;
    IF_DX(__global MEM_IN *q_at = dx + first * n + lane * E;)
    for (int k = 0; k < here; k++) {
        T mean = 0, rstd = 0;
        T2 both = (T2)((T)0);
        if (k < left) {
            mean = GEMS_CAT(load_, S)(mean_at, k), rstd = GEMS_CAT(load_, S)(rstd_at, k);
            UNROLL for (int u = 0; u < HELD; u++) if (lane + u * LANES < vectors)
            {
                xs[u] = ((const __global uint4 *)x_at)[u * LANES];
                gs[u] = ((const __global uint4 *)g_at)[u * LANES];
            }
            x_at += x_step, g_at += g_step;
            if (k + 1 < left)
                UNROLL for (int u = 0; u < HELD; u++) if (lane + u * LANES < vectors)
                {
                    WIDE_AHEAD(x_at + u * LANES * E);
                    WIDE_AHEAD(g_at + u * LANES * E);
                }
            EACH_OF_ROW(IF_DW(dw[u][j] += d * y;) IF_DB(db[u][j] += d;) IF_WEIGHT(d *= (T)w[j];) both.x += d;
                        both.y += d * y;)
        }
#if IF_DX(1) + 0
        WIDE_TREE(T2, both, PLUS, pairs)
        both *= share;
        if (k < left)
            EACH_OF_ROW(IF_WEIGHT(d *= (T)w[j];) q[j] = (d - both.x - y * both.y) * rstd;
                        if (j == E - 1) WIDE_STORE(IN, q_at + u * LANES * E, q, E))
        q_at += n;
#endif
    }
    UNROLL for (int u = 0; u < HELD; u++) if (lane + u * LANES < vectors && part < nparts)
    {
        IF_DW(WIDE_STORE(P, parts + part * n + (long)(lane + u * LANES) * E, dw[u], E))
        IF_DB(WIDE_STORE(P, parts + (IF_DW(nparts +) part) * n + (long)(lane + u * LANES) * E, db[u], E))
    }
}
#endif

#ifdef KERNEL_group
#define BLOCK (64 * GROUP)

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
group(ROWS_ARGS IF_WEIGHT(, GEMS_BUFFER(const MEM_W, weight)), GEMS_BUFFER(MEM_IN, dx))
{
    ROWS_AT
    IF_WEIGHT(GEMS_AT(const MEM_W, weight);)
    GEMS_AT(MEM_IN, dx);
    __local T part[GROUP];
    int me = get_local_id(0);
    long row = get_group_id(0);
    ROW_AT(row)
    __global MEM_IN *q = dx + row * n;
    T sum = 0, dot = 0;
    for (long b = me; b < n; b += BLOCK) {
        T block_sum = 0, block_dot = 0;
        for (long i = b; i < min(b + BLOCK, n); i += GROUP) {
            T y = ((T)GEMS_CAT(load_, IN)(p, i * in_stride) - mean) * rstd, d = GEMS_CAT(load_, IN)(g, i * grad_stride);
            IF_WEIGHT(d *= (T)GEMS_CAT(load_, W)(weight, i);)
            block_sum += d;
            block_dot += d * y;
        }
        sum += block_sum;
        dot += block_dot;
    }
    ROW_TREE(sum, a + b)
    ROW_TREE(dot, a + b)
    sum /= n;
    dot /= n;
    for (long i = me; i < n; i += GROUP) {
        T y = ((T)GEMS_CAT(load_, IN)(p, i * in_stride) - mean) * rstd, d = GEMS_CAT(load_, IN)(g, i * grad_stride);
        IF_WEIGHT(d *= (T)GEMS_CAT(load_, W)(weight, i);)
        GEMS_CAT(store_, IN)(q, i, (d - sum - y * dot) * rstd);
    }
}
#endif

#if defined(KERNEL_columns) || defined(KERNEL_finish_group)
#define ACROSS (GROUP < 32 ? GROUP : 32)
#define DOWN (GROUP / ACROSS)
/* Of the items above each other in a group, to the topmost. */
#define DOWN_TREE(v)                                                                                                   \
    part[me] = v;                                                                                                      \
    for (int w = DOWN / 2; w > 0; w /= 2) {                                                                            \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        if (down < w)                                                                                                  \
            part[me] += part[me + w * ACROSS];                                                                         \
    }                                                                                                                  \
    v = part[me];                                                                                                      \
    barrier(CLK_LOCAL_MEM_FENCE);
#endif

#ifdef KERNEL_columns
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void columns(ROWS_ARGS, GEMS_BUFFER(T, parts))
{
    ROWS_AT
    GEMS_AT(T, parts);
    __local T part[GROUP];
    const int me = get_local_id(0), down = me / ACROSS;
    const long bands = (n + ACROSS - 1) / ACROSS, k = get_group_id(0) / bands;
    const long i = (get_group_id(0) - k * bands) * ACROSS + (me - down * ACROSS);
    IF_DW(T dw = 0;)
    IF_DB(T db = 0;)
    if (i < n)
        for (long row = k * part_rows + down; row < min((k + 1) * part_rows, rows); row += DOWN) {
            ROW_AT(row)
            T d = GEMS_CAT(load_, IN)(g, i * grad_stride);
            IF_DW(dw += d * (((T)GEMS_CAT(load_, IN)(p, i * in_stride) - mean) * rstd);)
            IF_DB(db += d;)
        }
    IF_DW(DOWN_TREE(dw))
    IF_DB(DOWN_TREE(db))
    if (i < n && down == 0) {
        IF_DW(parts[k * n + i] = dw;)
        IF_DB(parts[(IF_DW(nparts +) k) * n + i] = db;)
    }
}
#endif

#ifdef KERNEL_finish
#define WIDTH 16
ROW_GET(P, get_sum, T)
ROW_PUT(W, put_sum)
#define GET(p) (i + 16 <= n ? get_sum_full(p, i, n, 1, 0) : get_sum_part(p, i, n, 1, 0))
#define PUT(p, v)                                                                                                      \
    if (i + 16 <= n)                                                                                                   \
        put_sum_full(p, i, n, 1, v);                                                                                   \
    else                                                                                                               \
        put_sum_part(p, i, n, 1, v);

/* `from` holds the parts of one sum. */
static void sum_up(const __global T *from, __global MEM_W *to, long i, long n, long nparts)
{
    T16 sum = (T16)((T)0), low = (T16)((T)0);
    for (long k = 0; k < nparts; k++)
        ROW_ADD(T16, sum, low, GET(from + k * n));
    const T16 both = ROW_TOTAL(sum, low);
    PUT(to, both)
}

__kernel void finish(GEMS_BUFFER(const T, parts), long n,
                     long nparts IF_DW(, GEMS_BUFFER(MEM_W, dw)) IF_DB(, GEMS_BUFFER(MEM_W, db)))
{
    GEMS_AT(const T, parts);
    IF_DW(GEMS_AT(MEM_W, dw);)
    IF_DB(GEMS_AT(MEM_W, db);)
    ROW_SHARE(u, (n + WIDTH - 1) / WIDTH) {
        IF_DW(sum_up(parts, dw, u * WIDTH, n, nparts);)
        IF_DB(sum_up(parts IF_DW(+ nparts * n), db, u * WIDTH, n, nparts);)
    }
}
#endif

#ifdef KERNEL_finish_group
#define SUM_UP(from, to)                                                                                               \
    {                                                                                                                  \
        T sum = 0, low = 0;                                                                                            \
        if (i < n)                                                                                                     \
            for (long k = down; k < nparts; k += DOWN)                                                                 \
                ROW_ADD(T, sum, low, (from)[k * n + i]);                                                               \
        T both = ROW_TOTAL(sum, low);                                                                                  \
        DOWN_TREE(both)                                                                                                \
        if (i < n && down == 0)                                                                                        \
            GEMS_CAT(store_, W)(to, i, both);                                                                          \
    }
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
finish_group(GEMS_BUFFER(const T, parts), long n, long nparts IF_DW(, GEMS_BUFFER(MEM_W, dw))
                                                      IF_DB(, GEMS_BUFFER(MEM_W, db)))
{
    GEMS_AT(const T, parts);
    IF_DW(GEMS_AT(MEM_W, dw);)
    IF_DB(GEMS_AT(MEM_W, db);)
    __local T part[GROUP];
    const int me = get_local_id(0), down = me / ACROSS;
    const long i = get_group_id(0) * (long)ACROSS + (me - down * ACROSS);
    IF_DW(SUM_UP(parts, dw))
    IF_DB(SUM_UP(parts IF_DW(+nparts * n), db))
}
#endif
