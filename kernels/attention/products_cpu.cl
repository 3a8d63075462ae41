/* What attention and its gradients have in common on CPUs: products of blocks in local memory, and the exponential. D is
 * the dtype. */
#include "kernels/attention/attention.cl"
#include "kernels/pack.cl"

#define UNROLL _Pragma("unroll")

#ifdef __AVX512F__
#define MR 8
#define NV (sizeof(NUM) > 4 ? 1 : 2)
#else
#define MR (sizeof(NUM) > 4 ? 2 : 4)
#define NV 1
#endif
#define NR (16 * NV)

/* Exponential of x <= 0, or a little more, or NaN. */
#ifdef DOUBLE
static inline double16 exponential(double16 x) { return exp(x); }
#else
/* x = i ln 2 + r, |r| <= ln 2 / 2; the polynomial is the Taylor series of degree 7 (error below 1 ulp there); below -87.3,
 * where the result would be subnormal, it is 0. ln 2 in two parts, the first with few bits (Cody and Waite). */
static inline float16 exponential(float16 x)
{
    float16 i = rint(x * 1.44269504f);
    float16 r = fma(i, (float16)-0.693359375f, x);
    r = fma(i, (float16)2.12194440e-4f, r);
    float16 p = fma((float16)1.98412698e-4f, r, (float16)1.38888889e-3f);
    p = fma(p, r, (float16)8.33333333e-3f);
    p = fma(p, r, (float16)4.16666667e-2f);
    p = fma(p, r, (float16)1.66666667e-1f);
    p = fma(p, r, (float16)0.5f);
    p = fma(p, r, (float16)1.0f);
    p = fma(p, r, (float16)1.0f);
    float16 scale = as_float16((convert_int16(fmax(i, (float16)-126.0f)) + 127) << 23);
    return select(p * scale, (float16)0.0f, x < -87.3f);
}
#endif

/* c = a b, or c += a b: a of `rows` (padded to MR) x depth, b of depth x cols (a multiple of NR). */
static inline void multiply(__local NUM *c, int c_pitch, const __local NUM *a, int a_row, int a_col,
                            const __local NUM *b, int b_pitch, int rows, int cols, int depth, bool add)
{
    for (int j = 0; j < cols; j += NR)
        for (int i = 0; i < rows; i += MR) {
            NUM16 acc[MR][NV];
            UNROLL for (int r = 0; r < MR; r++)
                UNROLL for (int v = 0; v < NV; v++)
                    acc[r][v] = add ? vload16(v, c + (i + r) * c_pitch + j) : (NUM16)0;
            for (int p = 0; p < depth; p++) {
                NUM16 y[NV];
                UNROLL for (int v = 0; v < NV; v++) y[v] = vload16(v, b + p * b_pitch + j);
                UNROLL for (int r = 0; r < MR; r++)
                    UNROLL for (int v = 0; v < NV; v++)
                        acc[r][v] = fma((NUM16)(a[(i + r) * a_row + p * a_col]), y[v], acc[r][v]);
            }
            UNROLL for (int r = 0; r < MR; r++)
                UNROLL for (int v = 0; v < NV; v++) vstore16(acc[r][v], v, c + (i + r) * c_pitch + j);
        }
}
