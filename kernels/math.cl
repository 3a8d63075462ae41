/* Device functions that generated kernels and hand-written ones call: element access and conversions, and the functions
 * of rows' expressions ("erf" in shim/ops.json calls gems_erf). Needs GEMS_HAS_F64, GEMS_CPU from the device's prelude.
 *
 * Everything works on one element and has no branches that a vectoriser could not turn into selects: on CPU devices the
 * loop around it becomes vector code (own versions stand where the builtin of PoCL 3.1 is a scalar call: 0.2 to 1.2 GB/s
 * against 5 to 15). Polynomials are Chebyshev fits made for this file with mpmath; their errors are noted beside them. */
#ifndef GEMS_MATH_CL
#define GEMS_MATH_CL

#pragma OPENCL FP_CONTRACT OFF
#ifdef GEMS_HAS_F64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#define GEMS_FN static inline __attribute__((overloadable))

/* ---- elements: gems_get_D(memory) to what arithmetic uses, gems_put_D(value) back ------------------------------- */

#define GEMS_MAX_f16     65504.0f
#define GEMS_MAX_bf16    0x1.fep127f
#define GEMS_MAX_f32     FLT_MAX
#define GEMS_MAX_f64     DBL_MAX
#define GEMS_LOWEST_f16  (-GEMS_MAX_f16)
#define GEMS_LOWEST_bf16 (-GEMS_MAX_bf16)
#define GEMS_LOWEST_f32  (-GEMS_MAX_f32)
#define GEMS_LOWEST_f64  (-GEMS_MAX_f64)

#define GEMS_GET_SAME(D, T) GEMS_FN T gems_get_##D(T x) { return x; }
GEMS_GET_SAME(f32, float)
GEMS_GET_SAME(i8, char)
GEMS_GET_SAME(u8, uchar)
GEMS_GET_SAME(i16, short)
GEMS_GET_SAME(i32, int)
GEMS_GET_SAME(i64, long)
#ifdef GEMS_HAS_F64
GEMS_GET_SAME(f64, double)
#endif
GEMS_FN uchar gems_get_bool(uchar x) { return x != 0; }
GEMS_FN float gems_get_bf16(ushort x) { return as_float((uint)x << 16); }

#ifdef GEMS_CPU
/* Bit code: PoCL's vload_half and vstore_half_rte take 2.5 times as long. Subnormals come out of a multiplication by
 * 2^112, and go through an addition that places their bits. */
GEMS_FN float gems_get_f16(ushort h)
{
    const uint m = (uint)(h & 0x7fffu) << 13;
    const float f = (h & 0x7c00u) == 0x7c00u ? as_float(m | 0x7f800000u) : as_float(m) * as_float(0x77800000u);
    return as_float(as_uint(f) | (uint)(h & 0x8000u) << 16);
}
GEMS_FN ushort gems_half_of(float v)
{
    const uint u = as_uint(v), a = u & 0x7fffffffu;
    const uint normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
    const uint subnormal = as_uint(as_float(a) + 0.5f) - 0x3f000000u;
    uint r = a < 0x38800000u ? subnormal : normal;
    r = a >= 0x477ff000u ? 0x7c00u : r;
    r = a > 0x7f800000u ? 0x7e00u : r;
    return (ushort)(r | ((u >> 16) & 0x8000u));
}
#else
GEMS_FN float gems_get_f16(ushort h) { return vload_half(0, (const half *)&h); }
GEMS_FN ushort gems_half_of(float v)
{
    ushort h;
    vstore_half_rte(v, 0, (half *)&h);
    return h;
}
#endif

/* To nearest, ties to even; NaN stays NaN. */
GEMS_FN ushort gems_brain_of(float v)
{
    const uint u = as_uint(v);
    return (u & 0x7fffffffu) > 0x7f800000u ? (ushort)0x7fc0 : (ushort)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* Floating to integer as the host's processor does it: towards zero; what does not fit (and NaN) is the lowest value of
 * the 32 or 64-bit type, of which narrower ones keep the low bits (u8 goes through 64 bits). */
#define GEMS_TRUNCATE(F, LEAST)                                                                                        \
    GEMS_FN int gems_int_of(F v)                                                                                       \
    {                                                                                                                  \
        const bool fits = v > LEAST && v < (F)2147483648.0f;                                                           \
        return fits ? (int)(fits ? v : (F)0) : INT_MIN;                                                                \
    }                                                                                                                  \
    GEMS_FN long gems_long_of(F v)                                                                                     \
    {                                                                                                                  \
        const bool fits = v >= (F)-9223372036854775808.0f && v < (F)9223372036854775808.0f;                            \
        return fits ? (long)(fits ? v : (F)0) : LONG_MIN;                                                              \
    }
GEMS_TRUNCATE(float, -2147483904.0f) /* the greatest float that does not fit */
#ifdef GEMS_HAS_F64
GEMS_TRUNCATE(double, -2147483649.0)
#endif

#define GEMS_PUT_FLOATING(F)                                                                                           \
    GEMS_FN float gems_put_f32(F v) { return (float)v; }                                                               \
    GEMS_FN ushort gems_put_f16(F v) { return gems_half_of((float)v); }                                                \
    GEMS_FN ushort gems_put_bf16(F v) { return gems_brain_of((float)v); }                                              \
    GEMS_FN char gems_put_i8(F v) { return (char)gems_int_of(v); }                                                     \
    GEMS_FN uchar gems_put_u8(F v) { return (uchar)gems_long_of(v); }                                                  \
    GEMS_FN short gems_put_i16(F v) { return (short)gems_int_of(v); }                                                  \
    GEMS_FN int gems_put_i32(F v) { return gems_int_of(v); }                                                           \
    GEMS_FN long gems_put_i64(F v) { return gems_long_of(v); }                                                         \
    GEMS_FN uchar gems_put_bool(F v) { return v != 0; }
#define GEMS_PUT_INTEGER(I)                                                                                            \
    GEMS_FN float gems_put_f32(I v) { return (float)v; }                                                               \
    GEMS_FN ushort gems_put_f16(I v) { return gems_half_of((float)v); }                                                \
    GEMS_FN ushort gems_put_bf16(I v) { return gems_brain_of((float)v); }                                              \
    GEMS_FN char gems_put_i8(I v) { return (char)v; }                                                                  \
    GEMS_FN uchar gems_put_u8(I v) { return (uchar)v; }                                                                \
    GEMS_FN short gems_put_i16(I v) { return (short)v; }                                                               \
    GEMS_FN int gems_put_i32(I v) { return (int)v; }                                                                   \
    GEMS_FN long gems_put_i64(I v) { return (long)v; }                                                                 \
    GEMS_FN uchar gems_put_bool(I v) { return v != 0; }
GEMS_PUT_FLOATING(float)
GEMS_PUT_INTEGER(int)
GEMS_PUT_INTEGER(long)
#ifdef GEMS_HAS_F64
GEMS_PUT_FLOATING(double)
GEMS_FN double gems_put_f64(float v) { return v; }
GEMS_FN double gems_put_f64(double v) { return v; }
GEMS_FN double gems_put_f64(int v) { return v; }
GEMS_FN double gems_put_f64(long v) { return (double)v; }
#endif

/* ---- for every type --------------------------------------------------------------------------------------------- */

/* NaN wins. */
#define GEMS_ORDER(T)                                                                                                  \
    GEMS_FN T gems_maximum(T a, T b) { return a != a || a > b ? a : b; }                                               \
    GEMS_FN T gems_minimum(T a, T b) { return a != a || a < b ? a : b; }
GEMS_ORDER(char)
GEMS_ORDER(uchar)
GEMS_ORDER(short)
GEMS_ORDER(int)
GEMS_ORDER(long)
GEMS_ORDER(float)

#define GEMS_INTEGER(T, U)                                                                                             \
    GEMS_FN T gems_multiply_add(T a, T b, T c) { return (T)((U)a * (U)b + (U)c); }                                     \
    GEMS_FN int gems_isnan(T a) { return 0; }                                                                                             \
    GEMS_FN T gems_abs(T a) { return a < 0 ? (T)(0 - (U)a) : a; }                                                      \
    GEMS_FN int gems_isinf(T a) { return 0; }                                                                          \
    GEMS_FN int gems_isfinite(T a) { return 1; }                                                                       \
    GEMS_FN T gems_div_trunc(T a, T b)                                                                                 \
    {                                                                                                                  \
        const bool safe = b != 0 && b != (T)-1;                                                                        \
        return safe ? (T)(a / (safe ? b : (T)1)) : (T)-1 < 0 ? (T)(0 - (U)a) : b == 0 ? (T)0 : (T)(a / b);             \
    }                                                                                                                  \
    GEMS_FN T gems_div_floor(T a, T b)                                                                                 \
    {                                                                                                                  \
        const T q = gems_div_trunc(a, b), r = (T)(a - (T)(q * b));                                                     \
        return r != 0 && (r < 0) != (b < 0) ? (T)(q - 1) : q;                                                          \
    }                                                                                                                  \
    GEMS_FN T gems_remainder(T a, T b)                                                                                 \
    {                                                                                                                  \
        const T q = gems_div_trunc(a, b), r = (T)(a - (T)(q * b));                                                     \
        return r != 0 && (r < 0) != (b < 0) ? (T)(r + b) : r;                                                          \
    }                                                                                                                  \
    GEMS_FN T gems_shift_left(T a, T b)                                                                                \
    {                                                                                                                  \
        return b < 0 || b >= (T)(8 * sizeof(T)) ? (T)0 : (T)((U)a << (U)b);                                            \
    }                                                                                                                  \
    GEMS_FN T gems_shift_right(T a, T b)                                                                               \
    {                                                                                                                  \
        const T most = (T)(8 * sizeof(T) - 1);                                                                         \
        return b >= 0 && b <= most ? (T)(a >> b) : a < 0 ? (T)-1 : (T)0;                                               \
    }                                                                                                                  \
    /* Modulo 2^n; 1/a^-b truncated for a negative exponent. */                                                        \
    GEMS_FN T gems_pow(T a, T b)                                                                                       \
    {                                                                                                                  \
        if (b < 0)                                                                                                     \
            return a == 1 ? (T)1 : a == (T)-1 ? ((b & 1) ? (T)-1 : (T)1) : (T)0;                                       \
        U r = 1, s = (U)a;                                                                                             \
        for (U e = (U)b; e != 0; e >>= 1) {                                                                            \
            if (e & 1)                                                                                                 \
                r = (U)(r * s);                                                                                        \
            s = (U)(s * s);                                                                                            \
        }                                                                                                              \
        return (T)r;                                                                                                   \
    }
GEMS_INTEGER(char, uchar)
GEMS_INTEGER(uchar, uchar)
GEMS_INTEGER(short, ushort)
GEMS_INTEGER(int, uint)
GEMS_INTEGER(long, ulong)

/* ---- f32 -------------------------------------------------------------------------------------------------------- */

/* 2^n * v for -300 < n < 300, also where the result is subnormal. */
/* Added to a float below 2^22, this rounds it to an integer and leaves that in the low bits: rint is a slow call in PoCL. */
#define GEMS_TO_INT 12582912.0f

GEMS_FN float gems_scale(float v, int n)
{
    const int half_n = n >> 1;
    return v * as_float((uint)(half_n + 127) << 23) * as_float((uint)(n - half_n + 127) << 23);
}

/* v = m * 2^result with m in [sqrt(1/2), sqrt(2)); v > 0 and finite. */
GEMS_FN int gems_split(float v, float *m)
{
    const bool tiny = v < 0x1p-126f;
    const uint u = as_uint(tiny ? v * 0x1p24f : v);
    const int e = (int)(u - 0x3f3504f3u) >> 23;
    *m = as_float(u - ((uint)e << 23));
    return tiny ? e - 24 : e;
}

/* log(m) + n ln 2, with m = 1 + f near 1: s = f / (2 + f), log m = 2 s + s^3 P(s^2) (P: 1.2e-9), and 2 s = f - s f. */
GEMS_FN float gems_log_of(float f, int n, float correction)
{
    const float s = f / (2.0f + f), z = s * s;
    float p = 0.233329128f;
    p = fma(p, z, 0.2855073084f);
    p = fma(p, z, 0.4000012263f);
    p = fma(p, z, 0.6666666655f);
    const float half_square = 0.5f * f * f;
    const float r = s * (half_square + z * p);
    return (float)n * 0x1.62e3p-1f - ((half_square - (r + ((float)n * 0x1.2fefa2p-17f + correction))) - f);
}

GEMS_FN float gems_log(float x)
{
    float m;
    const int n = gems_split(x, &m);
    float r = gems_log_of(m - 1.0f, n, 0.0f);
    r = x == INFINITY ? x : r;
    r = x == 0.0f ? -INFINITY : r;
    return x < 0.0f || x != x ? NAN : r;
}

/* log of u = 1 + x as rounded, and what the rounding lost: (x - (u - 1)) / u. */
GEMS_FN float gems_log1p(float x)
{
    const float u = 1.0f + x;
    float m;
    const int n = gems_split(u, &m);
    const float lost = (u - x > 0.5f && u < 0x1p30f ? 1.0f - (u - x) : 0.0f) / u;
    float r = gems_log_of(m - 1.0f, n, u > 2.0f ? (x - (u - 1.0f)) / u : lost);
    r = fabs(x) < 0x1p-13f ? x - 0.5f * x * x : r;
    r = x == INFINITY ? x : r;
    r = x == -1.0f ? -INFINITY : r;
    return x < -1.0f || x != x ? NAN : r;
}

/* 2^n e^r, n the nearest integer to x / ln 2, r = x - n ln 2 in two steps; e^r = 1 + r + r^2 P(r) (1.1e-8). Overflow and
 * underflow come from the scaling. The builtin is a scalar call in PoCL without SLEEF. */
GEMS_FN float gems_exp(float x)
{
    const float c = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x;
    const float t = c * 1.44269504f + GEMS_TO_INT, n = t - GEMS_TO_INT;
    const float r = fma(n, 1.904654e-9f, fma(n, -0.693147182f, c));
    float p = 0.001392692661f;
    p = fma(p, r, 0.008363773874f);
    p = fma(p, r, 0.04166655011f);
    p = fma(p, r, 0.1666657338f);
    p = fma(p, r, 0.5f);
    p = fma(p * r, r, r) + 1.0f;
    return x != x ? x : gems_scale(p, as_int(t) - as_int(GEMS_TO_INT));
}

/* 2^(x - n) by a polynomial (error 1.9e-9), n the nearest integer. */
GEMS_FN float gems_exp2(float x)
{
    const float c = x < -160.0f ? -160.0f : x > 140.0f ? 140.0f : x;
    const float t = c + GEMS_TO_INT, n = t - GEMS_TO_INT, f = c - n;
    float p = 0.000154614447f;
    p = fma(p, f, 0.001340042818f);
    p = fma(p, f, 0.009618056679f);
    p = fma(p, f, 0.05550327227f);
    p = fma(p, f, 0.2402265092f);
    p = fma(p, f, 0.6931472067f);
    p = fma(p, f, 1.0f);
    return x != x ? x : gems_scale(p, as_int(t) - as_int(GEMS_TO_INT));
}

/* Near 0: x + x^2 P(x) (P: 1.3e-8). */
GEMS_FN float gems_expm1(float x)
{
    float p = 0.0001994487444f;
    p = fma(p, x, 0.001398218605f);
    p = fma(p, x, 0.008333236134f);
    p = fma(p, x, 0.04166579123f);
    p = fma(p, x, 0.166666668f);
    p = fma(p, x, 0.5000000122f);
    return fabs(x) < 0.5f ? fma(x * x, p, x) : gems_exp(x) - 1.0f;
}

/* |x| <= 1: x P(x^2) (1.2e-9). Above: 1 - exp(-Q(|x|)), Q a fit of -log(erfc) up to 4 (1.7e-8), where erf is 1. */
GEMS_FN float gems_erf(float x)
{
    const float a = fmin(fabs(x), 4.0f), z = x * x;
    float p = 7.875875063e-5f;
    p = fma(p, z, -0.0008016864287f);
    p = fma(p, z, 0.005189087423f);
    p = fma(p, z, -0.02685421201f);
    p = fma(p, z, 0.1128359472f);
    p = fma(p, z, -0.3761262667f);
    p = fma(p, z, 1.128379166f);
    float q = -1.637151415e-6f;
    q = fma(q, a, 4.605804269e-5f);
    q = fma(q, a, -0.0005968056257f);
    q = fma(q, a, 0.004759596293f);
    q = fma(q, a, -0.02642113601f);
    q = fma(q, a, 0.1100800829f);
    q = fma(q, a, 0.6318260516f);
    q = fma(q, a, 1.130233435f);
    q = fma(q, a, -0.0003201380497f);
    const float large = copysign(1.0f - gems_exp(-q), x);
    return x != x ? x : fabs(x) <= 1.0f ? x * p : large;
}

/* |x| < 0.63: x + x^3 P(x^2) (6.2e-9). Above: 1 - 2 / (e^(2|x|) + 1). */
GEMS_FN float gems_tanh(float x)
{
    const float a = fabs(x), z = x * x;
    float p = 0.002269501682f;
    p = fma(p, z, -0.008323187055f);
    p = fma(p, z, 0.02176250291f);
    p = fma(p, z, -0.05395846163f);
    p = fma(p, z, 0.1333330015f);
    p = fma(p, z, -0.3333333315f);
    const float large = copysign(1.0f - 2.0f / (gems_exp(2.0f * fmin(a, 10.0f)) + 1.0f), x);
    return x != x ? x : a < 0.63f ? fma(x * z, p, x) : large;
}

/* |x| > 1 by atan(x) = pi/2 - atan(1/x); then x + x^3 P(x^2). */
GEMS_FN float gems_atan(float x)
{
    const float a = fabs(x), t = a > 1.0f ? 1.0f / a : a, z = t * t;
    float p = -0.002386997317f; /* 1.6e-8 */
    p = fma(p, z, 0.01350777143f);
    p = fma(p, z, -0.03587153898f);
    p = fma(p, z, 0.06250169445f);
    p = fma(p, z, -0.0865688043f);
    p = fma(p, z, 0.1103376412f);
    p = fma(p, z, -0.1427856875f);
    p = fma(p, z, 0.1999973933f);
    p = fma(p, z, -0.3333333173f);
    const float r = fma(t * z, p, t);
    return copysign(a > 1.0f ? (1.57079637f - (r + 4.37113883e-8f)) : r, x);
}

/* 2/pi in binary, with 32 zero bits in front. */
__constant uint gems_two_over_pi[8] = {0u,          0xa2f9836eu, 0x4e441529u, 0xfc2757d1u,
                                       0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu};

/* x = quadrant * pi/2 + r, |r| <= pi/4. x is an integer m of 24 bits times 2^e, so of the product of m and 2/pi only the
 * 64 bits below the weight 4 count: any finite x is reduced with one multiplication, exact to 2^-38 quadrants. */
GEMS_FN float gems_reduce(float x, uint *quadrant)
{
    const uint u = as_uint(x), m = (u & 0x7fffffu) | 0x800000u;
    int e = (int)((u >> 23) & 0xffu) - 150; /* x = m * 2^e */
    e = e < -30 ? -30 : e;
    const uint at = (uint)(e + 30);                     /* first bit wanted, counted in the table: weight 2^1 */
    const uint i = at >> 5, shift = at & 31u;
    const ulong high = (ulong)gems_two_over_pi[i] << 32 | gems_two_over_pi[i + 1];
    const ulong window = high << shift | (ulong)gems_two_over_pi[i + 2] >> (32u - shift);
    const ulong product = window * (ulong)m;
    const ulong q = (product + (1ul << 61)) >> 62;
    const float r = (float)(long)(product - (q << 62)) * 0x1.921fb6p-62f;
    const bool small = fabs(x) < 0.78539816f;
    *quadrant = small ? 0u : (uint)q & 3u;
    return small ? x : as_float(as_uint(r) ^ (u & 0x80000000u));
}

/* sin r = r + r^3 S(r^2) (2.8e-11), cos r = 1 - r^2/2 + r^4 C(r^2) (2e-9). */
GEMS_FN float gems_sine_of(float r)
{
    const float z = r * r;
    float p = 2.72499258e-6f;
    p = fma(p, z, -0.0001984008674f);
    p = fma(p, z, 0.008333331875f);
    p = fma(p, z, -0.1666666666f);
    return fma(r * z, p, r);
}
GEMS_FN float gems_cosine_of(float r)
{
    const float z = r * r;
    float p = 2.454794209e-5f;
    p = fma(p, z, -0.001388830304f);
    p = fma(p, z, 0.04166666466f);
    return fma(z * z, p, fma(-0.5f, z, 1.0f));
}
GEMS_FN float gems_sin(float x)
{
    uint q;
    const float r = gems_reduce(x, &q);
    q = x < 0.0f ? (4u - q) & 3u : q;
    const float v = (q & 1u) ? gems_cosine_of(r) : gems_sine_of(r);
    return fabs(x) < INFINITY ? ((q & 2u) ? -v : v) : NAN;
}
GEMS_FN float gems_cos(float x)
{
    uint q;
    const float r = gems_reduce(x, &q);
    const float v = (q & 1u) ? gems_sine_of(fabs(x) == x ? r : -r) : gems_cosine_of(r);
    return fabs(x) < INFINITY ? (q == 1u || q == 2u ? -v : v) : NAN;
}

GEMS_FN float gems_sqrt(float x) { return sqrt(x); }
GEMS_FN float gems_abs(float x) { return fabs(x); }
GEMS_FN float gems_trunc(float x) { return trunc(x); }
GEMS_FN float gems_floor(float x) { return floor(x); }
GEMS_FN float gems_multiply_add(float a, float b, float c) { return fma(a, b, c); }
GEMS_FN int gems_isnan(float x) { return x != x; }
GEMS_FN int gems_isinf(float x) { return fabs(x) == INFINITY; }
GEMS_FN int gems_isfinite(float x) { return fabs(x) < INFINITY; }
GEMS_FN float gems_fmod(float a, float b) { return fmod(a, b); }

#ifdef GEMS_HAS_F64
/* In double: |x|^y = 2^(y log2 |x|), then what the standard says of signs, zeros and infinities. */
GEMS_FN float gems_pow(float x, float y)
{
    const double a = fabs((double)x);
    const ulong u = as_ulong(a);
    const long e = (long)(u - 0x3fe6a09e667f3bcdul) >> 52;
    const double m = as_double(u - ((ulong)e << 52));
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = 0.148130619216140323; /* log((1 + s) / (1 - s)) = s P(s^2), 2.4e-18 */
    p = fma(p, z, 0.153122073243891875);
    p = fma(p, z, 0.181836436726483162);
    p = fma(p, z, 0.222221968360073188);
    p = fma(p, z, 0.285714287627094671);
    p = fma(p, z, 0.399999999992932074);
    p = fma(p, z, 0.666666666666676606);
    p = fma(p, z, 2.0);
    double l = fma(s * p, 1.4426950408889634, (double)(int)e);
    l = x == 0.0f ? -INFINITY : l;
    l = a == INFINITY ? INFINITY : x != x ? NAN : l;
    const double t = (double)y * l;
    const double c = t < -1000.0 ? -1000.0 : t > 1000.0 ? 1000.0 : t != t ? 0.0 : t;
    const double n = rint(c), f = c - n;
    double r = 1.02059054137655958e-7; /* 2^f, 1.4e-14 */
    r = fma(r, f, 1.32596452448871102e-6);
    r = fma(r, f, 0.0000152526729248507364);
    r = fma(r, f, 0.000154034337512510089);
    r = fma(r, f, 0.00133355582007945926);
    r = fma(r, f, 0.00961812919393431336);
    r = fma(r, f, 0.055504108664651672);
    r = fma(r, f, 0.240226506956403397);
    r = fma(r, f, 0.693147180559946159);
    r = fma(r, f, 1.0);
    float v = (float)(r * as_double((ulong)((long)(int)n + 1023) << 52));
    const bool whole = trunc(y) == y, odd = whole && trunc(0.5f * y) != 0.5f * y;
    v = t != t ? NAN : v;
    v = a == 1.0 && fabs(y) == INFINITY ? 1.0f : v;
    v = as_uint(x) >> 31 && odd ? -v : v;
    v = x < 0.0f && !whole && a != INFINITY ? NAN : v;
    return y == 0.0f || x == 1.0f ? 1.0f : v;
}
#else
GEMS_FN float gems_pow(float x, float y) { return pow(x, y); }
#endif

/* ---- f64: the builtins ------------------------------------------------------------------------------------------ */

#ifdef GEMS_HAS_F64
GEMS_ORDER(double)
GEMS_FN double gems_log(double x) { return log(x); }
GEMS_FN double gems_log1p(double x) { return log1p(x); }
GEMS_FN double gems_exp(double x) { return exp(x); }
GEMS_FN double gems_exp2(double x) { return exp2(x); }
GEMS_FN double gems_expm1(double x) { return expm1(x); }
GEMS_FN double gems_erf(double x) { return erf(x); }
GEMS_FN double gems_tanh(double x) { return tanh(x); }
GEMS_FN double gems_atan(double x) { return atan(x); }
GEMS_FN double gems_sin(double x) { return sin(x); }
GEMS_FN double gems_cos(double x) { return cos(x); }
GEMS_FN double gems_pow(double x, double y) { return pow(x, y); }
GEMS_FN double gems_sqrt(double x) { return sqrt(x); }
GEMS_FN double gems_abs(double x) { return fabs(x); }
GEMS_FN double gems_trunc(double x) { return trunc(x); }
GEMS_FN double gems_floor(double x) { return floor(x); }
GEMS_FN double gems_multiply_add(double a, double b, double c) { return fma(a, b, c); }
GEMS_FN int gems_isnan(double x) { return x != x; }
GEMS_FN int gems_isinf(double x) { return fabs(x) == INFINITY; }
GEMS_FN int gems_isfinite(double x) { return fabs(x) < INFINITY; }
GEMS_FN double gems_fmod(double a, double b) { return fmod(a, b); }
#endif

/* ---- floating division ------------------------------------------------------------------------------------------ */

/* remainder: the sign of the divisor. div_floor: from that remainder, so that a == div_floor(a, b) * b + remainder(a, b)
 * as well as rounding allows; the quotient is a whole number but for rounding, which the step by 1/2 repairs. */
#define GEMS_FLOATING_DIVISION(T)                                                                                      \
    GEMS_FN T gems_div_trunc(T a, T b) { return trunc(a / b); }                                                        \
    GEMS_FN T gems_remainder(T a, T b)                                                                                 \
    {                                                                                                                  \
        const T r = gems_fmod(a, b);                                                                                   \
        return r != 0 && (r < 0) != (b < 0) ? r + b : r;                                                               \
    }                                                                                                                  \
    GEMS_FN T gems_div_floor(T a, T b)                                                                                 \
    {                                                                                                                  \
        const T r = gems_fmod(a, b);                                                                                   \
        T q = (a - r) / b;                                                                                             \
        q = r != 0 && (r < 0) != (b < 0) ? q - 1 : q;                                                                  \
        const T whole = floor(q);                                                                                      \
        const T v = q - whole > (T)0.5 ? whole + 1 : whole;                                                            \
        return b == 0 ? a / b : q == 0 ? copysign((T)0, a / b) : v;                                                    \
    }
GEMS_FLOATING_DIVISION(float)
#ifdef GEMS_HAS_F64
GEMS_FLOATING_DIVISION(double)
#endif

#endif
