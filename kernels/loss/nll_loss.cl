/* Negative log likelihood: of each row the input's element that its target names, times minus that class's weight; a
 * row whose target is `ignored` counts for nothing. Targets were checked: they are classes, or ignored.
 *
 * The launcher defines D (dtype), T (type computed in), WEIGHTED where there are weights, MEAN where losses are divided
 * by their sum.
 *
 * each     rows of the result; the total weight is 0
 * run      one work-item a part of the rows: its sums of losses and of weights (CPU)
 * group    one work-group a part: the same (GPU)
 * finish   one work-group: the sums of parts
 * scatter  the gradient where it is not 0: of the input's elements that were taken
 *
 * Sums keep their rounding errors (two-sum), so that a count of rows is exact. The order is fixed. */
#ifndef D
#define D f32
#define T float
#define WEIGHTED
#define MEAN
#endif
#ifndef GROUP
#define GROUP 256
#endif

#define MEM_D GEMS_CAT(mem_, D)
#define GET(p, i) ((T)GEMS_CAT(load_, D)(p, i))
#define PUT GEMS_CAT(store_, D)

#ifdef WEIGHTED
#define WEIGHT_ARG , GEMS_BUFFER(const MEM_D, weight)
#define WEIGHT_AT GEMS_AT(const MEM_D, weight);
#define WEIGHT_OF(t) GET(weight, t)
#else
#define WEIGHT_ARG
#define WEIGHT_AT
#define WEIGHT_OF(t) ((T)1)
#endif
#ifdef MEAN
#define IF_MEAN(...) __VA_ARGS__
#else
#define IF_MEAN(...)
#endif

#define IN_ARGS                                                                                                        \
    GEMS_BUFFER(const MEM_D, in), GEMS_BUFFER(const long, target), const gems_nest in_rows,                            \
        const gems_nest target_rows, long rows, long stride, long ignored
#define IN_AT                                                                                                          \
    GEMS_AT(const MEM_D, in);                                                                                          \
    GEMS_AT(const long, target);                                                                                       \
    WEIGHT_AT

/* A sum, and what rounding took from it. */
typedef struct {
    T high, low;
} total;
static inline total plus(total s, T x)
{
    ROW_ADD(T, s.high, s.low, x);
    return s;
}
static inline T value_of(total s) { return ROW_TOTAL(s.high, s.low); }

/* Row k, as its target t and weight w; then what is done unless it is ignored. */
#define ROW(k, ...)                                                                                                    \
    {                                                                                                                  \
        const long t = target[gems_nest_offset(&target_rows, k)];                                                      \
        if (t != ignored) {                                                                                            \
            const T w = WEIGHT_OF(t);                                                                                  \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define LOSS(k) (-GET(in, gems_nest_offset(&in_rows, k) + t * stride) * w)
#define SUM_ROW(k)                                                                                                     \
    ROW(k, loss = plus(loss, LOSS(k)); weights = plus(weights, w);)

#ifdef KERNEL_each
__kernel void each(IN_ARGS, GEMS_BUFFER(MEM_D, out), GEMS_BUFFER(MEM_D, total_weight) WEIGHT_ARG)
{
    IN_AT
    GEMS_AT(MEM_D, out);
    GEMS_AT(MEM_D, total_weight);
    if (get_global_id(0) == 0)
        PUT(total_weight, 0, 0);
    ROW_SHARE(k, rows) {
        T loss = 0;
        ROW(k, loss = LOSS(k);)
        PUT(out, k, loss);
    }
}
#endif

/* A part is losses and weights, each a sum and its errors. */
#define PUT_PART(k)                                                                                                    \
    parts[4 * (k)] = loss.high;                                                                                        \
    parts[4 * (k) + 1] = loss.low;                                                                                     \
    parts[4 * (k) + 2] = weights.high;                                                                                 \
    parts[4 * (k) + 3] = weights.low;

#ifdef KERNEL_run
__kernel void run(IN_ARGS, GEMS_BUFFER(T, parts) WEIGHT_ARG)
{
    IN_AT
    GEMS_AT(T, parts);
    total loss = {0, 0}, weights = {0, 0};
    ROW_SHARE(k, rows)
        SUM_ROW(k)
    PUT_PART(get_global_id(0))
}
#endif

/* What the items of a group have, added up by a tree: given to the first one. */
#define GROUP_TREE(v)                                                                                                  \
    part[me] = v;                                                                                                      \
    for (int h = GROUP / 2; h > 0; h /= 2) {                                                                           \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        if (me < h) {                                                                                                  \
            total a = part[me], b = part[me + h];                                                                      \
            a = plus(a, b.high);                                                                                       \
            a.low += b.low;                                                                                            \
            part[me] = a;                                                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    v = part[me];                                                                                                      \
    barrier(CLK_LOCAL_MEM_FENCE);

#ifdef KERNEL_group
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void group(IN_ARGS, GEMS_BUFFER(T, parts) WEIGHT_ARG)
{
    IN_AT
    GEMS_AT(T, parts);
    __local total part[GROUP];
    const int me = get_local_id(0);
    total loss = {0, 0}, weights = {0, 0};
    for (long k = get_global_id(0); k < rows; k += get_global_size(0))
        SUM_ROW(k)
    GROUP_TREE(loss)
    GROUP_TREE(weights)
    if (me == 0) {
        PUT_PART(get_group_id(0))
    }
}
#endif

#ifdef KERNEL_finish
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
finish(GEMS_BUFFER(const T, parts), long nparts, GEMS_BUFFER(MEM_D, out), GEMS_BUFFER(MEM_D, total_weight))
{
    GEMS_AT(const T, parts);
    GEMS_AT(MEM_D, out);
    GEMS_AT(MEM_D, total_weight);
    __local total part[GROUP];
    const int me = get_local_id(0);
    total loss = {0, 0}, weights = {0, 0};
    for (long k = me; k < nparts; k += GROUP) {
        loss = plus(loss, parts[4 * k]);
        loss.low += parts[4 * k + 1];
        weights = plus(weights, parts[4 * k + 2]);
        weights.low += parts[4 * k + 3];
    }
    GROUP_TREE(loss)
    GROUP_TREE(weights)
    if (me == 0) {
        T sum = value_of(loss), n = value_of(weights);
        IF_MEAN(sum /= n;)
        PUT(out, 0, sum);
        PUT(total_weight, 0, n);
    }
}
#endif

#ifdef KERNEL_scatter
/* `grad` has an element a row, or one for all; `dx` is contiguous, `in_rows` and `stride` are its. */
__kernel void scatter(GEMS_BUFFER(MEM_D, dx), GEMS_BUFFER(const long, target), GEMS_BUFFER(const MEM_D, grad),
                      const gems_nest in_rows, const gems_nest target_rows, const gems_nest grad_rows, long rows,
                      long stride, long ignored IF_MEAN(, GEMS_BUFFER(const MEM_D, total_weight)) WEIGHT_ARG)
{
    GEMS_AT(MEM_D, dx);
    GEMS_AT(const long, target);
    GEMS_AT(const MEM_D, grad);
    IF_MEAN(GEMS_AT(const MEM_D, total_weight);)
    WEIGHT_AT
    ROW_SHARE(k, rows)
        ROW(k, T g = -GET(grad, gems_nest_offset(&grad_rows, k)); IF_MEAN(g /= GET(total_weight, 0);)
                   PUT(dx, gems_nest_offset(&in_rows, k) + t * stride, w * g);)
}
#endif
