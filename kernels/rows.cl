/* Rows of a tensor, 16 elements at a time, for kernels that pass over a row more than once (softmax, norms, scans).
 *
 *   ROW_GET(D, name, T)   makes name(p, i, n, s, fill): elements i to i+15 of a row of n elements of dtype D with
 *                         stride s, converted to T16; `fill` past the row's end
 *   ROW_PUT(D, name)      makes name(p, i, n, s, v): stores those of the num16_D v that exist */
#ifndef GEMS_ROWS_CL
#define GEMS_ROWS_CL

#define ROW_GET(D, name, T)                                                                                            \
    static inline GEMS_CAT(T, 16) name(const __global GEMS_CAT(mem_, D) * p, long i, long n, long s, T fill)           \
    {                                                                                                                  \
        if (s == 1 && i + 16 <= n)                                                                                     \
            return GEMS_CAT(GEMS_CAT(convert_, T), 16)(GEMS_CAT(load16_, D)(p, i));                                    \
        T lane[16];                                                                                                    \
        for (int l = 0; l < 16; l++)                                                                                   \
            lane[l] = i + l < n ? (T)GEMS_CAT(load_, D)(p, (i + l) * s) : fill;                                        \
        return vload16(0, lane);                                                                                       \
    }

#define ROW_PUT(D, name)                                                                                               \
    static inline void name(__global GEMS_CAT(mem_, D) * p, long i, long n, long s, GEMS_CAT(num16_, D) v)             \
    {                                                                                                                  \
        if (s == 1 && i + 16 <= n) {                                                                                   \
            GEMS_CAT(store16_, D)(p, i, v);                                                                            \
            return;                                                                                                    \
        }                                                                                                              \
        GEMS_CAT(num_, D) lane[16];                                                                                    \
        vstore16(v, 0, lane);                                                                                          \
        for (int l = 0; l < 16 && i + l < n; l++)                                                                      \
            GEMS_CAT(store_, D)(p, (i + l) * s, lane[l]);                                                              \
    }

#define ROW_SUM16(v)                                                                                                   \
    (((((v).s0 + (v).s8) + ((v).s4 + (v).sc)) + (((v).s2 + (v).sa) + ((v).s6 + (v).se))) +                             \
     ((((v).s1 + (v).s9) + ((v).s5 + (v).sd)) + (((v).s3 + (v).sb) + ((v).s7 + (v).sf))))

#endif
