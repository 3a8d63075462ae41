/* Device functions that generated kernels and hand-written ones call: element access and conversions, and the functions
 * of rows' expressions ("erf" in shim/ops.json calls gems_erf). Needs GEMS_HAS_F64, GEMS_CPU from the device's prelude.
 *
 * Everything works on one element and has no branches that a vectoriser could not turn into selects: on CPU devices the
 * loop around it becomes vector code (own versions stand where the builtin of PoCL 3.1 is a scalar call: 0.2 to 1.2 GB/s
 * against 5 to 15). Where unusual arguments need more than that, gems_quick_f does without them: see codegen/pointwise.c,
 * which has a list of those. Polynomials are Chebyshev fits made for this file with mpmath; their errors are noted beside them. */
#ifndef GEMS_MATH_CL
#define GEMS_MATH_CL

#pragma OPENCL FP_CONTRACT OFF
#ifdef GEMS_HAS_F64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#pragma clang diagnostic ignored "-Wpass-failed"
#pragma clang diagnostic ignored "-Wconstant-logical-operand"
#define GEMS_FN static inline __attribute__((overloadable))

/* LLVM keeps to half of AVX-512's registers in a function that handles no vector as long as they are. */
GEMS_FN float16 gems_long_vector(float16 v) { return v; }
#define GEMS_ALL_REGISTERS (void)gems_long_vector((float16)(0.0f));

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

#if defined(GEMS_CPU) && defined(__F16C__)
/* The processor's instructions. That the low bits are 0, and that what lies above 65536 becomes inf, is no news to
 * them, but keeps LLVM from negating and comparing 16-bit floats, which it does one by one. */
GEMS_FN float gems_get_f16(ushort h) { return as_float(as_uint(__builtin_load_halff((const half *)&h)) & 0xffffe000u); }
GEMS_FN ushort gems_half_of(float v)
{
    ushort h;
    __builtin_store_halff(v > 65536.0f ? 65536.0f : v, (half *)&h);
    return h;
}
#elif defined(GEMS_CPU)
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
#elif GEMS_PTX
GEMS_FN float gems_get_f16(ushort h)
{
    float v;
    __asm__("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(h));
    return v;
}
GEMS_FN ushort gems_half_of(float v)
{
    ushort h;
    __asm__("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
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

/* To nearest, ties to even; NaN stays NaN: its exponent's last bit sets the bit that makes it quiet. (With a constant for
 * that, LLVM makes a masked load of it; where no NaN is, nothing else ever touches the constant's page, which then is
 * never mapped, and finding out that nothing is to be loaded from it takes a processor 250 cycles.) */
#if GEMS_PTX >= 80
GEMS_FN ushort gems_brain_of(float v)
{
    ushort h;
    __asm__("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
#else
GEMS_FN ushort gems_brain_of(float v)
{
    const uint u = as_uint(v);
    return (ushort)((v != v ? u | u >> 1 : u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
#endif

/* What vectors of 8 and 16 bytes are loaded and stored as. Compilers for PTX that see what becomes of them take those of
 * short elements apart, into vectors of four. */
#if GEMS_PTX
GEMS_FN uint2 gems_words(uint2 v)
{
    __asm__ volatile("" : "+r"(v.x), "+r"(v.y));
    return v;
}
GEMS_FN uint4 gems_words(uint4 v)
{
    __asm__ volatile("" : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w));
    return v;
}
#else
#define gems_words(v) (v)
#endif

/* Quotients that are rounded to f16 or bf16 in the end. Where the exact ones take a dozen instructions, those that are
 * 2 units of f32 off do: of two numbers of bf16 no quotient is so close to where its rounding changes. */
#if GEMS_PTX
GEMS_FN float gems_half_quotient(float a, float b)
{
    float q;
    __asm__("div.full.f32 %0, %1, %2;" : "=f"(q) : "f"(a), "f"(b));
    return q;
}
#define GEMS_HALF_QUOTIENT(a, b) gems_half_quotient((float)(a), (float)(b))
#else
#define GEMS_HALF_QUOTIENT(a, b) ((a) / (b))
#endif

/* Of a value that is one of bf16's. */
GEMS_FN ushort gems_exact_bf16(float v) { return (ushort)(as_uint(v) >> 16); }

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
    GEMS_FN int gems_isnan(T a) { return 0; }                                                                          \
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

/* ---- the device's own functions --------------------------------------------------------------------------------- */

/* On CPUs the compiler's own where it is Clang: PoCL's are calls until after loops have been vectorised. */
#define GEMS_PLAIN(T, B, S)                                                                                            \
    GEMS_FN T gems_fma(T a, T b, T c) { return B##fma##S(a, b, c); }                                                   \
    GEMS_FN T gems_abs(T x) { return B##fabs##S(x); }                                                                  \
    GEMS_FN T gems_copysign(T x, T y) { return B##copysign##S(x, y); }                                                 \
    GEMS_FN T gems_trunc(T x) { return B##trunc##S(x); }                                                               \
    GEMS_FN T gems_floor(T x) { return B##floor##S(x); }                                                               \
    GEMS_FN T gems_round(T x) { return B##rint##S(x); }                                                                \
    GEMS_FN T gems_multiply_add(T a, T b, T c) { return gems_fma(a, b, c); }                                           \
    GEMS_FN int gems_isnan(T x) { return x != x; }                                                                     \
    GEMS_FN int gems_isinf(T x) { return gems_abs(x) == INFINITY; }                                                    \
    GEMS_FN int gems_isfinite(T x) { return gems_abs(x) < INFINITY; }                                                  \
    GEMS_FN T gems_fmod_any(T a, T b) { return fmod(a, b); }
/* PoCL's log1p makes 0 of the smallest doubles. */
#define GEMS_LIBRARY(T)                                                                                                \
    GEMS_FN T gems_log(T x) { return log(x); }                                                                         \
    GEMS_FN T gems_log1p(T x) { return gems_abs(x) < (T)0x1p-60f ? x : log1p(x); }                               \
    GEMS_FN T gems_log2(T x) { return log2(x); }                                                                       \
    GEMS_FN T gems_log10(T x) { return log10(x); }                                                                     \
    GEMS_FN T gems_exp(T x) { return exp(x); }                                                                         \
    GEMS_FN T gems_exp2(T x) { return exp2(x); }                                                                       \
    GEMS_FN T gems_expm1(T x) { return expm1(x); }                                                                     \
    GEMS_FN T gems_erf(T x) { return erf(x); }                                                                         \
    GEMS_FN T gems_erfc(T x) { return erfc(x); }                                                                       \
    GEMS_FN T gems_tanh(T x) { return tanh(x); }                                                                       \
    GEMS_FN T gems_atan(T x) { return atan(x); }                                                                       \
    GEMS_FN T gems_sin(T x) { return sin(x); }                                                                         \
    GEMS_FN T gems_cos(T x) { return cos(x); }                                                                         \
    GEMS_FN T gems_pow(T x, T y) { return pow(x, y); }
#if defined(GEMS_CPU) && defined(__clang__)
#define GEMS_PLAIN_FLOAT  GEMS_PLAIN(float, __builtin_, f)
#define GEMS_PLAIN_DOUBLE GEMS_PLAIN(double, __builtin_, )
#else
#define GEMS_PLAIN_FLOAT  GEMS_PLAIN(float, , )
#define GEMS_PLAIN_DOUBLE GEMS_PLAIN(double, , )
#endif
GEMS_PLAIN_FLOAT

/* OpenCL lets sqrt of f32 be 3 units off, unless the device was asked for the exact one. Else one of Newton's steps, then
 * of the result and its neighbours the one that is nearest: the root lies below the middle of y and the one before it if
 * x is no more than their product, of which fma gives the sign exactly, where no last place is subnormal. */
#if defined(GEMS_CPU) && defined(__clang__)
GEMS_FN float gems_sqrt(float x) { return __builtin_sqrtf(x); }
#elif defined(GEMS_EXACT_ROOTS)
GEMS_FN float gems_sqrt(float x) { return sqrt(x); }
#else
GEMS_FN float gems_sqrt(float x)
{
    const bool tiny = x < 0x1p-80f;
    const float v = tiny ? x * 0x1p48f : x;
    float y = sqrt(v);
    if (v > 0.0f && v < INFINITY) {
        y = fma(fma(-y, y, v), 0.5f / y, y);
        const float below = as_float(as_uint(y) - 1u), above = as_float(as_uint(y) + 1u);
        y = fma(-y, below, v) <= 0.0f ? below : fma(-y, above, v) > 0.0f ? above : y;
    }
    return tiny ? y * 0x1p-24f : y;
}
#endif
#ifdef GEMS_HAS_F64
#if defined(GEMS_CPU) && defined(__clang__)
GEMS_FN double gems_sqrt(double x) { return __builtin_sqrt(x); }
#else
GEMS_FN double gems_sqrt(double x) { return sqrt(x); }
#endif
GEMS_ORDER(double)
GEMS_PLAIN_DOUBLE
GEMS_LIBRARY(double)
#endif

#ifndef GEMS_CPU
GEMS_LIBRARY(float)
GEMS_FN float gems_quick_sin(float x, int *odd) { return gems_sin(x); } /* where a CPU's loop runs on another device */
GEMS_FN float gems_quick_cos(float x, int *odd) { return gems_cos(x); }
#else

/* ---- f32 on CPUs ------------------------------------------------------------------------------------------------ */

/* Added to a float below 2^22, this rounds it to an integer n (rint is a slow call in PoCL), and the sum shifted left by
 * 23 has the bits of 2^n: 1.5 * 2^23 ends in zeros, 127 is the bias of exponents. */
#define GEMS_EXPONENT 12583039.0f

/* A polynomial by Horner's rule, the coefficient of the highest power first. */
#define GEMS_POLY2(x, a, b)      gems_fma(a, x, b)
#define GEMS_POLY3(x, a, b, ...) GEMS_POLY2(x, gems_fma(a, x, b), __VA_ARGS__)
#define GEMS_POLY4(x, a, b, ...) GEMS_POLY3(x, gems_fma(a, x, b), __VA_ARGS__)
#define GEMS_POLY5(x, a, b, ...) GEMS_POLY4(x, gems_fma(a, x, b), __VA_ARGS__)
#define GEMS_POLY6(x, a, b, ...) GEMS_POLY5(x, gems_fma(a, x, b), __VA_ARGS__)
#define GEMS_POLY7(x, a, b, ...) GEMS_POLY6(x, gems_fma(a, x, b), __VA_ARGS__)
#define GEMS_POLY8(x, a, b, ...) GEMS_POLY7(x, gems_fma(a, x, b), __VA_ARGS__)
#define GEMS_POLY9(x, a, b, ...) GEMS_POLY8(x, gems_fma(a, x, b), __VA_ARGS__)
#define GEMS_POLY10(x, a, b, ...) GEMS_POLY9(x, gems_fma(a, x, b), __VA_ARGS__)
#define GEMS_POLY11(x, a, b, ...) GEMS_POLY10(x, gems_fma(a, x, b), __VA_ARGS__)

/* NaN stays. */
GEMS_FN float gems_limit(float x, float low, float high)
{
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* e^x = 2^n 2^n e^r: n the nearest integer to x / (2 ln 2), r = x - 2 n ln 2 in two steps, e^r = 1 + r + r^2 P(r) where
 * |r| <= ln 2 (1.4e-8). Overflow, underflow and subnormal results come from the last multiplication. */
GEMS_FN float gems_exp(float x)
{
    const float c = gems_limit(x, -104.0f, 89.0f);
    const float t = gems_fma(c, 0.721347520f, GEMS_EXPONENT), n = t - GEMS_EXPONENT;
    const float r = gems_fma(n, 3.809308e-9f, gems_fma(n, -1.386294365f, c));
    float p = GEMS_POLY6(r, 0.00019611475381f, 0.001410466764f, 0.0083361076927f, 0.041661258845f, 0.16666614015f,
                         0.50000034724f);
    p = gems_fma(p * r, r, r) + 1.0f;
    const float power = as_float(as_uint(t) << 23);
    return p * power * power;
}

/* The same with x = 2 n + f, 2^f = 1 + f P(f) where |f| <= 1 (1.2e-8). */
GEMS_FN float gems_exp2(float x)
{
    const float c = gems_limit(x, -160.0f, 140.0f);
    const float t = gems_fma(c, 0.5f, GEMS_EXPONENT), n = t - GEMS_EXPONENT, f = gems_fma(n, -2.0f, c);
    const float p = GEMS_POLY8(f, 1.5030585502e-5f, 0.00015653709353f, 0.0013339492088f, 0.0096167195037f,
                               0.05550379492f, 0.24022672896f, 0.69314721661f, 1.0f);
    const float power = as_float(as_uint(t) << 23);
    return p * power * power;
}

/* e^r - 1 = r + r^2 P(r) where |r| <= ln 2 / 2 (1.3e-8). */
GEMS_FN float gems_expm1_near(float r)
{
    const float p = GEMS_POLY5(r, 0.0013882496239f, 0.0083666467824f, 0.041667203937f, 0.16666542685f,
                               0.49999998133f);
    return gems_fma(r * r, p, r);
}

/* -26 ln 2 < x <= 128 ln 2; with q = e^r - 1 of the rest r: 2^n q + (2^n - 1), at half the size since 2^128 is too large. */
GEMS_FN float gems_expm1_of(float x)
{
    const float t = gems_fma(x, 1.44269504f, GEMS_EXPONENT - 1.0f), n = t - (GEMS_EXPONENT - 1.0f);
    const float q = gems_expm1_near(gems_fma(n, 1.904654e-9f, gems_fma(n, -0.693147182f, x)));
    const float half_power = as_float(as_uint(t) << 23);
    return 2.0f * gems_fma(half_power, q, half_power - 0.5f);
}
GEMS_FN float gems_expm1(float x) { return gems_copysign(gems_expm1_of(gems_limit(x, -18.0f, 89.0f)), x); }

/* m / (m + 2), m = e^(2 |x|) - 1 as in expm1. */
GEMS_FN float gems_tanh(float x)
{
    const float a = gems_limit(gems_abs(x), 0.0f, 10.0f);
    const float t = gems_fma(a, 2.88539008f, GEMS_EXPONENT), n = t - GEMS_EXPONENT;
    const float q = gems_expm1_near(gems_fma(n, -0.693147182f, a + a));
    const float power = as_float(as_uint(t) << 23), m = gems_fma(power, q, power - 1.0f);
    return gems_copysign(m / (m + 2.0f), x);
}

/* 1 - e^(-a P(a)), P a fit of -log(erfc a) / a (4e-9 of erf) up to a = |x| = 3.95, where erf is 1. */
GEMS_FN float gems_erf(float x)
{
    const float a = gems_limit(gems_abs(x), 0.0f, 3.95f);
    const float p = GEMS_POLY9(a, -9.2562420826e-6f, 0.00011764107806f, -0.00063283622259f, 0.0016670264328f,
                               -0.00016039519512f, -0.019153064268f, 0.10277783057f, 0.63661938196f, 1.1283791716f);
    return gems_copysign(gems_expm1_of(-a * p), x);
}

/* e^(-a^2) P(q) / (1 + 2 a), q = (a - 3) / (a + 3), a = |x|, P a fit of e^(a^2) erfc(a) (1 + 2 a) (2.9e-9) up to where it
 * is 0. The power's root is not subnormal where the result is; what rounding has taken from a^2 counts, too. */
GEMS_FN float gems_erfc(float x)
{
    const float a = gems_limit(gems_abs(x), 0.0f, 10.2f), s = a * a;
    const float p = GEMS_POLY11((a - 3.0f) / (a + 3.0f), -0.00027639026f, -0.00079574923f, 0.0019963757f,
                                0.0025788454f, -0.023791348f, 0.068293367f, -0.11927247f, 0.12964661f, -0.047562289f,
                                -0.13562114f, 1.2530081f);
    const float w = p / gems_fma(2.0f, a, 1.0f), root = gems_exp(-0.5f * s);
    const float r = gems_fma(-gems_fma(a, a, -s), w, w) * root * root;
    return x < 0.0f ? 2.0f - r : r;
}

/* log(1 + f) - f + f^2 / 2 = f^3 P(f) (5.8e-9) where sqrt(1/2) <= 1 + f < sqrt(2). */
GEMS_FN float gems_log_rest(float f)
{
    const float p = GEMS_POLY8(f, -0.076323427193f, 0.12760892708f, -0.13160625907f, 0.14201878003f, -0.16623327824f,
                               0.20001220858f, -0.2500082165f, 0.33333331784f);
    return f * f * f * p;
}

/* log(1 + f) + n ln 2. */
GEMS_FN float gems_log_near(float f, float n)
{
    const float z = f * f;
    return gems_fma(n, 0.693147182f, f + gems_fma(-0.5f, z, gems_fma(n, -1.904654e-9f, gems_log_rest(f))));
}

/* Taken from the bits of v > 0, this leaves the exponent of the power of 2 that v is divided by above: sqrt(1/2)'s. */
#define GEMS_ROOT_HALF 0x3f3504f3u

/* x > 0 as 2^n (1 + f). */
GEMS_FN float gems_fraction_of(float x, float *n)
{
    const bool tiny = x < 0x1p-126f;
    const uint u = as_uint(tiny ? x * 0x1p23f : x) - GEMS_ROOT_HALF;
    *n = (float)((int)u >> 23) - (tiny ? 23.0f : 0.0f);
    return as_float((u & 0x7fffffu) + GEMS_ROOT_HALF) - 1.0f;
}

/* A logarithm: r where x is positive and finite. */
GEMS_FN float gems_log_ends(float x, float r)
{
    r = x < INFINITY ? r : x;
    return x > 0.0f || x != x ? r : x < 0.0f ? NAN : -INFINITY;
}

GEMS_FN float gems_log(float x)
{
    float n;
    const float f = gems_fraction_of(x, &n);
    return gems_log_ends(x, gems_log_near(f, n));
}

/* n is exact: so are powers of 2. */
GEMS_FN float gems_log2(float x)
{
    float n;
    const float f = gems_fraction_of(x, &n), l = f + gems_fma(-0.5f, f * f, gems_log_rest(f));
    return gems_log_ends(x, gems_fma(l, 1.44269504f, n));
}

/* log10(2) in two parts, the first of 12 bits: its product with n is exact. The sum of the others is exact enough for
 * powers of 10. */
GEMS_FN float gems_log10(float x)
{
    float n;
    const float f = gems_fraction_of(x, &n), l = f + gems_fma(-0.5f, f * f, gems_log_rest(f));
    return gems_log_ends(x, gems_fma(n, 0x1.344p-2f, gems_fma(l, 0.434294482f, n * 4.60503898e-06f)));
}

/* n from 1 + x as rounded; f = (1 + x) / 2^n - 1 from x itself. */
GEMS_FN float gems_log1p(float x)
{
    const int n = (int)(as_uint(1.0f + x) - GEMS_ROOT_HALF) >> 23;
    const float four = as_float(0x40800000u - ((uint)n << 23)); /* 2^(2 - n): 2^-n may be too small */
    float r = gems_log_near(gems_fma(0.25f * x, four, gems_fma(0.25f, four, -1.0f)), (float)n);
    r = gems_abs(x) > 0x1p-60f && x < INFINITY ? r : x;
    return x > -1.0f || x != x ? r : x < -1.0f ? NAN : -INFINITY;
}

/* |x| > 1 by atan(x) = pi/2 - atan(1/x); then x + x^3 P(x^2). */
GEMS_FN float gems_atan(float x)
{
    const float a = gems_abs(x), t = a > 1.0f ? 1.0f / a : a, z = t * t;
    const float p = GEMS_POLY9(z, -0.002386997317f, 0.01350777143f, -0.03587153898f, 0.06250169445f, -0.0865688043f,
                               0.1103376412f, -0.1427856875f, 0.1999973933f, -0.3333333173f); /* 1.6e-8 */
    const float r = gems_fma(t * z, p, t);
    return gems_copysign(a > 1.0f ? (1.57079637f - (r + 4.37113883e-8f)) : r, x);
}

/* 2/pi in binary, with 32 zero bits in front. */
__constant uint gems_two_over_pi[8] = {0u,          0xa2f9836eu, 0x4e441529u, 0xfc2757d1u,
                                       0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu};

/* x >= 0 is quadrant * pi/2 + r, |r| <= pi/4. It is an integer m of 24 bits times 2^e, so of the product of m and 2/pi
 * only the 64 bits below the weight 4 count: any finite x is reduced with one multiplication, exact to 2^-38 quadrants. */
GEMS_FN float gems_reduce(float x, uint *quadrant)
{
    const uint u = as_uint(x), m = (u & 0x7fffffu) | 0x800000u;
    int e = (int)(u >> 23) - 150; /* x = m * 2^e */
    e = e < -30 ? -30 : e;
    const uint at = (uint)(e + 30);                     /* first bit wanted, counted in the table: weight 2^1 */
    const uint i = at >> 5, shift = at & 31u;
    const ulong high = (ulong)gems_two_over_pi[i] << 32 | gems_two_over_pi[i + 1];
    const ulong window = high << shift | (ulong)gems_two_over_pi[i + 2] >> (32u - shift);
    const ulong product = window * (ulong)m;
    const ulong q = (product + (1ul << 61)) >> 62;
    const float r = (float)(long)(product - (q << 62)) * 0x1.921fb6p-62f;
    const bool small = x < 0.78539816f;
    *quadrant = small ? 0u : (uint)q & 3u;
    return small ? x : r;
}

/* sin r = r + r^3 S(r^2) (2.8e-11), cos r = 1 - r^2/2 + r^4 C(r^2) (2e-9). */
GEMS_FN float gems_sine_of(float r)
{
    const float z = r * r;
    const float p = GEMS_POLY4(z, 2.72499258e-6f, -0.0001984008674f, 0.008333331875f, -0.1666666666f);
    return gems_copysign(gems_fma(r * z, p, r), r); /* -0 */
}
GEMS_FN float gems_cosine_of(float r)
{
    const float z = r * r;
    const float p = GEMS_POLY3(z, 2.454794209e-5f, -0.001388830304f, 0.04166666466f);
    return gems_fma(z * z, p, gems_fma(-0.5f, z, 1.0f));
}
/* |x| < 2^15, without a table: x = n pi/2 + r, n the nearest integer, also the low bits of `turns`. pi/2 is taken in three
 * parts of 23, 21 and 24 bits (their sum is 2^-73 off), by fma: the first difference is exact, since it is a multiple of
 * 2^-24 and below 1. All parts are positive, so that -0 stays -0. 1.57 units at most for sin and cos (dense samples). */
#define GEMS_USUAL_ANGLE 32768.0f
GEMS_FN float gems_reduce_usual(float x, uint *turns)
{
    const float t = gems_fma(x, 0.636619772f, 12582912.0f), n = t - 12582912.0f; /* 1.5 * 2^23 */
    *turns = as_uint(t);
    return gems_fma(n, -0x1.84698ap-48f, gems_fma(n, -0x1.4442d0p-24f, gems_fma(n, -0x1.921fb4p0f, x)));
}
/* What sine and cosine make of r: `turns` quarters of a turn further. */
GEMS_FN float gems_turned(float r, uint turns)
{
    const float v = (turns & 1u) ? gems_cosine_of(r) : gems_sine_of(r);
    return as_float(as_uint(v) ^ (turns & 2u) << 30);
}
GEMS_FN float gems_sin_usual(float x)
{
    uint q;
    const float r = gems_reduce_usual(x, &q);
    return gems_turned(r, q);
}
GEMS_FN float gems_cos_usual(float x)
{
    uint q;
    const float r = gems_reduce_usual(x, &q);
    return gems_turned(r, q + 1u);
}
GEMS_FN float gems_sin(float x)
{
    uint q;
    const float a = gems_abs(x), r = gems_reduce(a, &q);
    const float far = as_float(as_uint(gems_turned(r, q)) ^ (as_uint(x) & 0x80000000u));
    return a < GEMS_USUAL_ANGLE ? gems_sin_usual(x) : a < INFINITY ? far : NAN;
}
GEMS_FN float gems_cos(float x)
{
    uint q;
    const float a = gems_abs(x), r = gems_reduce(a, &q);
    return a < GEMS_USUAL_ANGLE ? gems_cos_usual(x) : a < INFINITY ? gems_turned(r, q + 1u) : NAN;
}
/* The quick ones, see codegen/pointwise.c: *odd becomes other than 0 where the value is none, and the function itself
 * has to be called. */
GEMS_FN float gems_quick_sin(float x, int *odd)
{
    *odd |= !(gems_abs(x) < GEMS_USUAL_ANGLE);
    return gems_sin_usual(x);
}
GEMS_FN float gems_quick_cos(float x, int *odd)
{
    *odd |= !(gems_abs(x) < GEMS_USUAL_ANGLE);
    return gems_cos_usual(x);
}

#ifdef GEMS_HAS_F64
/* In double: |x|^y = 2^(y log2 |x|), then what the standard says of signs, zeros and infinities. */
GEMS_FN float gems_pow(float x, float y)
{
    const double a = gems_abs((double)x);
    const ulong u = as_ulong(a);
    const long e = (long)(u - 0x3fe6a09e667f3bcdul) >> 52;
    const double m = as_double(u - ((ulong)e << 52));
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = 0.148130619216140323; /* log((1 + s) / (1 - s)) = s P(s^2), 2.4e-18 */
    p = gems_fma(p, z, 0.153122073243891875);
    p = gems_fma(p, z, 0.181836436726483162);
    p = gems_fma(p, z, 0.222221968360073188);
    p = gems_fma(p, z, 0.285714287627094671);
    p = gems_fma(p, z, 0.399999999992932074);
    p = gems_fma(p, z, 0.666666666666676606);
    p = gems_fma(p, z, 2.0);
    double l = gems_fma(s * p, 1.4426950408889634, (double)(int)e);
    l = x == 0.0f ? -INFINITY : l;
    l = a == INFINITY ? INFINITY : x != x ? NAN : l;
    const double t = (double)y * l;
    const double c = t < -1000.0 ? -1000.0 : t > 1000.0 ? 1000.0 : t != t ? 0.0 : t;
    const double whole_c = c + 0x1.8p52, n = whole_c - 0x1.8p52, f = c - n;
    double r = 1.02059054137655958e-7; /* 2^f, 1.4e-14 */
    r = gems_fma(r, f, 1.32596452448871102e-6);
    r = gems_fma(r, f, 0.0000152526729248507364);
    r = gems_fma(r, f, 0.000154034337512510089);
    r = gems_fma(r, f, 0.00133355582007945926);
    r = gems_fma(r, f, 0.00961812919393431336);
    r = gems_fma(r, f, 0.055504108664651672);
    r = gems_fma(r, f, 0.240226506956403397);
    r = gems_fma(r, f, 0.693147180559946159);
    r = gems_fma(r, f, 1.0);
    float v = (float)(r * as_double((as_ulong(whole_c) + 1023u) << 52));
    const bool whole = gems_trunc(y) == y, odd = whole && gems_trunc(0.5f * y) != 0.5f * y;
    v = t != t ? NAN : v;
    v = a == 1.0 && gems_abs(y) == INFINITY ? 1.0f : v;
    v = as_uint(x) >> 31 && odd ? -v : v;
    v = x < 0.0f && !whole && a != INFINITY ? NAN : v;
    return y == 0.0f || x == 1.0f ? 1.0f : v;
}
#else
GEMS_FN float gems_pow(float x, float y) { return pow(x, y); }
#endif

#endif

/* ---- floating division ------------------------------------------------------------------------------------------ */

/* fmod: the sign of the dividend, exact. remainder: the sign of the divisor. div_floor: from that remainder, so that a == div_floor(a, b) * b + remainder(a, b)
 * as well as rounding allows; the quotient is a whole number but for rounding, which the step by 1/2 repairs.
 *
 * Usual quotients are below a quarter of the last whole number: n, from the rounded a / b, is the right one or one too
 * high (fmod's: too far from 0), and a - n b has no more bits than b, so that fma gives it exactly, and the same as the
 * long way. Where n is one too high that has the wrong sign. gems_quick_...: as those of sin. */
#define GEMS_FLOATING_DIVISION(T, MOST)                                                                                \
    GEMS_FN T gems_div_trunc(T a, T b) { return gems_trunc(a / b); }                                                   \
    GEMS_FN int gems_usual_quotient(T b, T q) { return (gems_abs(q) < (T)MOST) & (gems_abs(b) < (T)INFINITY); }        \
    GEMS_FN T gems_fmod_usual(T a, T b, T q)                                                                           \
    {                                                                                                                  \
        const T r = gems_fma(-gems_trunc(q), b, a);                                                                    \
        const T v = (r < 0) != (a < 0) ? r + gems_copysign(b, a) : r;                                                  \
        return r == 0 ? gems_copysign(r, a) : v;                                                                       \
    }                                                                                                                  \
    GEMS_FN T gems_remainder_usual(T a, T b, T q)                                                                      \
    {                                                                                                                  \
        const T r = gems_fma(-gems_floor(q), b, a);                                                                    \
        const T v = (r < 0) != (b < 0) ? r + b : r;                                                                    \
        return r == 0 ? gems_copysign(r, a) : v;                                                                       \
    }                                                                                                                  \
    GEMS_FN T gems_div_floor_usual(T a, T b, T q)                                                                      \
    {                                                                                                                  \
        const T n = gems_floor(q), r = gems_fma(-n, b, a);                                                             \
        const T v = (r != 0) & ((r < 0) != (b < 0)) ? n - 1 : n;                                                       \
        return v == 0 ? gems_copysign(v, q) : v;                                                                       \
    }                                                                                                                  \
    GEMS_FN T gems_fmod(T a, T b)                                                                                      \
    {                                                                                                                  \
        const T usual = a / b;                                                                                         \
        return gems_usual_quotient(b, usual) ? gems_fmod_usual(a, b, usual) : gems_fmod_any(a, b);                     \
    }                                                                                                                  \
    GEMS_FN T gems_remainder(T a, T b)                                                                                 \
    {                                                                                                                  \
        const T usual = a / b;                                                                                         \
        if (gems_usual_quotient(b, usual))                                                                             \
            return gems_remainder_usual(a, b, usual);                                                                  \
        const T r = gems_fmod_any(a, b);                                                                               \
        return r != 0 && (r < 0) != (b < 0) ? r + b : r;                                                               \
    }                                                                                                                  \
    GEMS_FN T gems_div_floor(T a, T b)                                                                                 \
    {                                                                                                                  \
        const T usual = a / b;                                                                                         \
        if (gems_usual_quotient(b, usual))                                                                             \
            return gems_div_floor_usual(a, b, usual);                                                                  \
        const T r = gems_fmod_any(a, b);                                                                               \
        T q = (a - r) / b;                                                                                             \
        q = r != 0 && (r < 0) != (b < 0) ? q - 1 : q;                                                                  \
        const T whole = gems_floor(q);                                                                                 \
        const T v = q - whole > (T)0.5 ? whole + 1 : whole;                                                            \
        return b == 0 ? a / b : q == 0 ? gems_copysign((T)0, a / b) : v;                                               \
    }                                                                                                                  \
    GEMS_FN T gems_quick_fmod(T a, T b, int *odd)                                                                      \
    {                                                                                                                  \
        const T q = a / b;                                                                                             \
        *odd |= !gems_usual_quotient(b, q);                                                                            \
        return gems_fmod_usual(a, b, q);                                                                               \
    }                                                                                                                  \
    GEMS_FN T gems_quick_remainder(T a, T b, int *odd)                                                                 \
    {                                                                                                                  \
        const T q = a / b;                                                                                             \
        *odd |= !gems_usual_quotient(b, q);                                                                            \
        return gems_remainder_usual(a, b, q);                                                                          \
    }                                                                                                                  \
    GEMS_FN T gems_quick_div_floor(T a, T b, int *odd)                                                                 \
    {                                                                                                                  \
        const T q = a / b;                                                                                             \
        *odd |= !gems_usual_quotient(b, q);                                                                            \
        return gems_div_floor_usual(a, b, q);                                                                          \
    }
GEMS_FLOATING_DIVISION(float, 2097152.0f)
#ifdef GEMS_HAS_F64
GEMS_FLOATING_DIVISION(double, 1125899906842624.0)
#endif

#endif
