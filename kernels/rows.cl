/* Rows of a tensor, 16 elements at a time, for kernels that pass over a row more than once (softmax, norms, scans).
 *
 *   ROW_GET(D, name, T)   makes name_part(p, i, n, s, fill): elements i to i+15 of a row of n elements of dtype D with
 *                         stride s, converted to T16; `fill` past the row's end; and name_full for those inside
 *   ROW_PUT(D, name)      makes name_part(p, i, n, s, v): stores those of the num16_D v that exist; and name_full
 *   ROW_WALK(from, to, n, STEP)   STEP(k, HOW, i) for i from `from` to `to` (a multiple of 64, or n), where k is 0 to 3
 *                         (four chains, so that a step need not wait for the one before) and HOW is _full or _part
 *
 * DENSE_ROWS: all strides are 1; without it, any stride. */
#ifndef GEMS_ROWS_CL
#define GEMS_ROWS_CL

#define ROW_GET(D, name, T)                                                                                            \
    static inline GEMS_CAT(T, 16) GEMS_CAT(name, _part)(const __global GEMS_CAT(mem_, D) * p, long i, long n, long s,  \
                                                        T fill)                                                        \
    {                                                                                                                  \
        T lane[16];                                                                                                    \
        ROW_ONE_BY_ONE                                                                                                 \
        for (int l = 0; l < 16; l++)                                                                                   \
            lane[l] = i + l < n ? (T)GEMS_CAT(load_, D)(p, (i + l) * s) : fill;                                        \
        return vload16(0, lane);                                                                                       \
    }                                                                                                                  \
    static inline GEMS_CAT(T, 16) GEMS_CAT(name, _full)(const __global GEMS_CAT(mem_, D) * p, long i, long n, long s,  \
                                                        T fill)                                                        \
    {                                                                                                                  \
        return ROW_DENSE(s) ? GEMS_CAT(GEMS_CAT(convert_, T), 16)(GEMS_CAT(load16_, D)(p, i))                          \
                            : GEMS_CAT(name, _part)(p, i, i + 16, s, fill);                                            \
    }

#define ROW_PUT(D, name)                                                                                               \
    static inline void GEMS_CAT(name, _part)(__global GEMS_CAT(mem_, D) * p, long i, long n, long s,                   \
                                             GEMS_CAT(num16_, D) v)                                                    \
    {                                                                                                                  \
        GEMS_CAT(num_, D) lane[16];                                                                                    \
        vstore16(v, 0, lane);                                                                                          \
        ROW_ONE_BY_ONE                                                                                                 \
        for (int l = 0; l < 16 && i + l < n; l++)                                                                      \
            GEMS_CAT(store_, D)(p, (i + l) * s, lane[l]);                                                              \
    }                                                                                                                  \
    static inline void GEMS_CAT(name, _full)(__global GEMS_CAT(mem_, D) * p, long i, long n, long s,                   \
                                             GEMS_CAT(num16_, D) v)                                                    \
    {                                                                                                                  \
        if (ROW_DENSE(s))                                                                                              \
            GEMS_CAT(store16_, D)(p, i, v);                                                                            \
        else                                                                                                           \
            GEMS_CAT(name, _part)(p, i, i + 16, s, v);                                                                 \
    }

/* Unrolled, these loops would only cost time to compile. */
#define ROW_ONE_BY_ONE _Pragma("unroll 1")

#ifdef DENSE_ROWS
#define ROW_DENSE(s) true
#else
#define ROW_DENSE(s) ((s) == 1)
#endif

/* Rows with gaps take one chain: they wait for memory, not for the step before. */
#ifdef DENSE_ROWS
#define ROW_FOUR(end, STEP)                                                                                            \
    for (; i + 64 <= end; i += 64) {                                                                                   \
        STEP(0, _full, i)                                                                                              \
        STEP(1, _full, (i + 16))                                                                                       \
        STEP(2, _full, (i + 32))                                                                                       \
        STEP(3, _full, (i + 48))                                                                                       \
    }
#else
#define ROW_FOUR(end, STEP)
#endif

#define ROW_WALK(from, to, n, STEP)                                                                                    \
    {                                                                                                                  \
        long i = (from), end_ = min((long)(to), (long)(n));                                                            \
        ROW_FOUR(end_, STEP)                                                                                           \
        ROW_ONE_BY_ONE                                                                                                 \
        for (; i + 16 <= end_; i += 16)                                                                                \
            STEP(0, _full, i)                                                                                          \
        if (i < end_)                                                                                                  \
            STEP(1, _part, i)                                                                                          \
    }

/* Where row k begins, in a kernel of a row a work-item. At the end of a chain it is computed first, into the item's own
 * memory (kernels/pointwise/end.h): then `in` is that, and the kernel has the parameters ROW_MORE. */
#ifdef PRODUCER_PARAMETERS
#define ROW_MORE , PRODUCER_PARAMETERS
#define ROW_OPEN PRODUCER_OPEN;
#define ROW_IN(T, p, in, kept, k, n)                                                                                   \
    const __global T *p = in + get_global_id(0) * (((n) + 31) & ~15L);                                                 \
    PRODUCE((k) * (n), n, p);
#else
#define ROW_MORE
#define ROW_OPEN
#define ROW_IN(T, p, in, kept, k, n) const __global T *p = in + gems_nest_offset(&kept, k);
#endif

/* A loop over the units of which this work-item has its share: all have equal runs of neighbours. */
#define ROW_SHARE(u, units)                                                                                            \
    const long share_ = ((units) + get_global_size(0) - 1) / get_global_size(0);                                       \
    const long share_end_ = min(((long)get_global_id(0) + 1) * share_, (long)(units));                                 \
    for (long u = get_global_id(0) * share_; u < share_end_; u++)

/* Of the group's values `v`, one of type T an item, by `op` of a and b: given to all of it. `part` has room for GROUP. */
#define ROW_TREE(v, op)                                                                                                \
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

/* Adds x, of type V, to `sum`; `low` collects what rounding takes from it. An infinite sum has a NaN for `low`. */
#define ROW_ADD(V, sum, low, x)                                                                                        \
    do {                                                                                                               \
        V x_ = (x), t_ = (sum) + x_, y_ = t_ - (sum);                                                                  \
        (low) += ((sum) - (t_ - y_)) + (x_ - y_);                                                                      \
        (sum) = t_;                                                                                                    \
    } while (0)
#define ROW_TOTAL(sum, low) (isnan((sum) + (low)) ? (sum) : (sum) + (low))

#define ROW_SUM16(v)                                                                                                   \
    (((((v).s0 + (v).s8) + ((v).s4 + (v).sc)) + (((v).s2 + (v).sa) + ((v).s6 + (v).se))) +                             \
     ((((v).s1 + (v).s9) + ((v).s5 + (v).sd)) + (((v).s3 + (v).sb) + ((v).s7 + (v).sf))))

#endif
