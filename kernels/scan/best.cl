/* The best element so far along one dimension, and its place: cummax, cummin. Results are contiguous, any input strides.
 *
 * The launcher defines IN (dtype) and BETTER(a, b): b, found later, replaces a.
 *
 * run    one work-item a row, several in turn (CPU), or each its own (GPU: short rows, or rows side by side)
 * group  one work-group a row, GROUP elements at a time (GPU) */
#ifndef IN
#define IN f32
#define BETTER(a, b) ((b >= a) | (b != b))
#endif
#ifndef GROUP
#define GROUP 256
#endif

#define C GEMS_CAT(num_, IN)
#define MEM_IN GEMS_CAT(mem_, IN)
#define LOAD(p, i) GEMS_CAT(load_, IN)(p, i)

#define ARGS                                                                                                           \
    GEMS_BUFFER(const MEM_IN, in), GEMS_BUFFER(MEM_IN, values), GEMS_BUFFER(long, indices), const gems_nest kept,      \
        long rows, long n, long stride, long inner
#define OPEN                                                                                                           \
    GEMS_AT(const MEM_IN, in);                                                                                         \
    GEMS_AT(MEM_IN, values);                                                                                           \
    GEMS_AT(long, indices)
#define ROW_BASE(k)                                                                                                    \
    const __global MEM_IN *p = in + gems_nest_offset(&kept, k);                                                        \
    const long base = (k) / inner * n * inner + (k) % inner;
#define GIVE(i, value, place)                                                                                          \
    do {                                                                                                               \
        GEMS_CAT(store_, IN)(values, base + (i) * inner, value);                                                       \
        indices[base + (i) * inner] = (place);                                                                         \
    } while (0)

#ifdef KERNEL_run
__kernel void run(ARGS)
{
    OPEN;
    ROW_SHARE(k, rows) {
        ROW_BASE(k)
        C best = LOAD(p, 0);
        long place = 0;
        for (long i = 0; i < n; i++) {
            C x = LOAD(p, i * stride);
            if (BETTER((best), (x))) {
                best = x;
                place = i;
            }
            GIVE(i, best, place);
        }
    }
}
#endif

#ifdef KERNEL_group
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void group(ARGS)
{
    OPEN;
    __local C value[2][GROUP];
    __local long place[2][GROUP];
    const int me = get_local_id(0);
    ROW_BASE((long)get_group_id(0))
    C best = LOAD(p, 0);
    long best_place = 0;
    for (long first = 0; first < n; first += GROUP) {
        /* Beyond the row's end stands its last element, where nobody reads what comes of it. */
        const long i = min(first + me, n - 1);
        int from = 0;
        C x = LOAD(p, i * stride);
        bool better = BETTER((best), (x));
        value[0][me] = me > 0 || better ? x : best;
        place[0][me] = me > 0 || better ? i : best_place;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int d = 1; d < GROUP; d *= 2) {
            C v = value[from][me];
            long at = place[from][me];
            if (me >= d && !(BETTER((value[from][me - d]), (v)))) {
                v = value[from][me - d];
                at = place[from][me - d];
            }
            from = 1 - from;
            value[from][me] = v;
            place[from][me] = at;
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        if (first + me < n)
            GIVE(i, value[from][me], place[from][me]);
        best = value[from][GROUP - 1];
        best_place = place[from][GROUP - 1];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
#endif
