/* kernels/math.cl compiled for the host, and loops around it. Built once for each kind of processor (Makefile);
 * HOST_MATH names the table. Without the C++ library: templates alone are what C++ is for here. */
#include "codegen/host_math.h"

#include <float.h>
#include <limits.h>
#include <stdint.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

namespace
{

/* ---- OpenCL C ---------------------------------------------------------------------------------------------------- */

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
struct float16 {
    float s[16];
};

template <class To, class From> inline To as(From v)
{
    static_assert(sizeof(To) == sizeof(From), "as_T keeps the bits");
    To to;
    __builtin_memcpy(&to, &v, sizeof to);
    return to;
}
inline float as_float(uint v)
{
    return as<float>(v);
}
inline uint as_uint(float v)
{
    return as<uint>(v);
}
inline double as_double(ulong v)
{
    return as<double>(v);
}
inline ulong as_ulong(double v)
{
    return as<ulong>(v);
}

#define UNARY(name)                                                                                                    \
    inline float name(float x)                                                                                         \
    {                                                                                                                  \
        return __builtin_##name##f(x);                                                                                 \
    }                                                                                                                  \
    inline double name(double x)                                                                                       \
    {                                                                                                                  \
        return __builtin_##name(x);                                                                                    \
    }
#define BINARY(name)                                                                                                   \
    inline float name(float x, float y)                                                                                \
    {                                                                                                                  \
        return __builtin_##name##f(x, y);                                                                              \
    }                                                                                                                  \
    inline double name(double x, double y)                                                                             \
    {                                                                                                                  \
        return __builtin_##name(x, y);                                                                                 \
    }
UNARY(fabs)
UNARY(trunc)
UNARY(floor)
UNARY(rint)
UNARY(sqrt)
BINARY(copysign)
BINARY(fmod)
inline float fma(float x, float y, float z)
{
    return __builtin_fmaf(x, y, z);
}
inline double fma(double x, double y, double z)
{
    return __builtin_fma(x, y, z);
}
/* math.cl has its own of f32. */
#define LIBRARY(name)                                                                                                  \
    inline double name(double x)                                                                                       \
    {                                                                                                                  \
        return __builtin_##name(x);                                                                                    \
    }
GEMS_HOST_LIBRARY(LIBRARY)
inline double pow(double x, double y)
{
    return __builtin_pow(x, y);
}

#define INFINITY         __builtin_inff()
#define NAN              __builtin_nanf("")
#define GEMS_CPU         1
#define GEMS_HAS_F64     1
#define GEMS_EXACT_ROOTS 1
#define __constant       static const
#define overloadable     unused
#undef __F16C__ /* math.cl would use Clang's own functions; see halves() */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wtype-limits"
#include "kernels/math.cl"
#pragma GCC diagnostic pop

/* ---- loops ------------------------------------------------------------------------------------------------------- */

/* Nothing in a loop depends on an earlier element, though `to` may be an argument. */
#define EACH _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)

/* F::of(...) of each element; S: bits of arguments that are one element. */
template <class F, class To, class A> void loop1(void *to, const void *a, const void *, const void *, size_t n)
{
    To *t = static_cast<To *>(to);
    const A *x = static_cast<const A *>(a);
    EACH
        t[i] = static_cast<To>(F::of(x[i]));
}
template <class F, class To, class A, int S> void loop2(void *to, const void *a, const void *b, const void *, size_t n)
{
    To *t = static_cast<To *>(to);
    const A *x = static_cast<const A *>(a), *y = static_cast<const A *>(b);
    const A x0 = x[0], y0 = y[0];
    EACH
        t[i] = static_cast<To>(F::of(S & 1 ? x0 : x[i], S & 2 ? y0 : y[i]));
}
template <class F, class To, class A, int S> void loop3(void *to, const void *a, const void *b, const void *c, size_t n)
{
    To *t = static_cast<To *>(to);
    const A *x = static_cast<const A *>(a), *y = static_cast<const A *>(b), *z = static_cast<const A *>(c);
    const A x0 = x[0], y0 = y[0];
    EACH
        t[i] = static_cast<To>(F::of(S & 1 ? x0 : x[i], S & 2 ? y0 : y[i], z[i]));
}
template <class T, int S> void loop_choose(void *to, const void *a, const void *b, const void *c, size_t n)
{
    T *t = static_cast<T *>(to);
    const uchar *x = static_cast<const uchar *>(a);
    const T *y = static_cast<const T *>(b), *z = static_cast<const T *>(c);
    const T y0 = y[0], z0 = z[0];
    EACH {
        const T yes = S & 1 ? y0 : y[i], no = S & 2 ? z0 : z[i];
        t[i] = x[i] ? yes : no;
    }
}
template <class T> void loop_spread(void *to, const void *a, const void *, const void *, size_t n)
{
    T *t = static_cast<T *>(to);
    const T x = *static_cast<const T *>(a);
    EACH
        t[i] = x;
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

template <class T> struct type_of;
#define TYPE(T, name, arithmetic)                                                                                      \
    template <> struct type_of<T> {                                                                                    \
        static constexpr int index = GEMS_HOST_##name;                                                                 \
        typedef arithmetic wrapping; /* unsigned, at least as wide as int, unless it is floating */                    \
    };
TYPE(char, I8, uint)
TYPE(uchar, U8, uint)
TYPE(short, I16, uint)
TYPE(int, I32, uint)
TYPE(uint, U32, uint)
TYPE(long, I64, ulong)
TYPE(ulong, U64, ulong)
TYPE(float, F32, float)
TYPE(double, F64, double)
static_assert(sizeof(int) == 4 && sizeof(long) == 8 && static_cast<char>(-1) < 0, "types as OpenCL has them");

template <class T> constexpr bool is_floating = false;
template <> constexpr bool is_floating<float> = true;
template <> constexpr bool is_floating<double> = true;

/* ---- C's operators ----------------------------------------------------------------------------------------------- */

template <class To, class From> struct convert_to {
    static To of(From v)
    {
        /* What does not fit is undefined in C, and as on elements here. */
        if constexpr (is_floating<From> && !is_floating<To>)
            return sizeof(To) < 4 || sizeof(To) == sizeof(int) ? static_cast<To>(gems_int_of(v))
                                                               : static_cast<To>(gems_long_of(v));
        else
            return static_cast<To>(v);
    }
};
struct truth {
    template <class T> static uchar of(T v)
    {
        return v != 0;
    }
};
struct negate_op {
    template <class T> static T of(T v)
    {
        if constexpr (is_floating<T>)
            return -v;
        else
            return static_cast<T>(0 - static_cast<typename type_of<T>::wrapping>(v));
    }
};
struct invert_op {
    template <class T> static T of(T v)
    {
        return static_cast<T>(~v);
    }
};

#define OPERATOR(name, op)                                                                                             \
    struct name {                                                                                                      \
        template <class T> static T of(T a, T b)                                                                       \
        {                                                                                                              \
            typedef typename type_of<T>::wrapping U;                                                                   \
            return static_cast<T>(static_cast<U>(a) op static_cast<U>(b));                                             \
        }                                                                                                              \
    };
#define COMPARISON(name, op)                                                                                           \
    struct name {                                                                                                      \
        template <class T> static uchar of(T a, T b)                                                                   \
        {                                                                                                              \
            return a op b;                                                                                             \
        }                                                                                                              \
    };
OPERATOR(add_op, +)
OPERATOR(sub_op, -)
OPERATOR(mul_op, *)
OPERATOR(and_op, &)
OPERATOR(or_op, |)
OPERATOR(xor_op, ^)
COMPARISON(eq_op, ==)
COMPARISON(ne_op, !=)
COMPARISON(lt_op, <)
COMPARISON(le_op, <=)

/* Division by 0 is undefined in C: here it must not end the process. */
struct div_op {
    template <class T> static T of(T a, T b)
    {
        if constexpr (is_floating<T>)
            return a / b;
        else
            return b == 0 ? T(0) : T(-1) < T(0) && b == T(-1) ? negate_op::of(a) : static_cast<T>(a / b);
    }
};
struct mod_op {
    template <class T> static T of(T a, T b)
    {
        return b == 0 || (T(-1) < T(0) && b == T(-1)) ? T(0) : static_cast<T>(a % b);
    }
};
struct shl_op {
    template <class T> static T of(T a, T b)
    {
        typedef typename type_of<T>::wrapping U;
        return static_cast<T>(static_cast<U>(a) << (static_cast<U>(b) & (8 * sizeof(T) - 1)));
    }
};
struct shr_op {
    template <class T> static T of(T a, T b)
    {
        typedef typename type_of<T>::wrapping U;
        return static_cast<T>(a >> (static_cast<U>(b) & (8 * sizeof(T) - 1)));
    }
};

/* ---- functions of math.cl ---------------------------------------------------------------------------------------- */

#define CALL_1(name)                                                                                                   \
    struct call_##name {                                                                                               \
        template <class A> static auto of(A a)                                                                         \
        {                                                                                                              \
            return gems_##name(a);                                                                                     \
        }                                                                                                              \
    };
#define CALL_2(name)                                                                                                   \
    struct call_##name {                                                                                               \
        template <class A> static auto of(A a, A b)                                                                    \
        {                                                                                                              \
            return gems_##name(a, b);                                                                                  \
        }                                                                                                              \
    };
#define CALL_3(name)                                                                                                   \
    struct call_##name {                                                                                               \
        template <class A> static auto of(A a, A b, A c)                                                               \
        {                                                                                                              \
            return gems_##name(a, b, c);                                                                               \
        }                                                                                                              \
    };
GEMS_HOST_CALLS_1(CALL_1)
GEMS_HOST_CALLS_2(CALL_2)
GEMS_HOST_CALLS_3(CALL_3)

#define ELEMENT(D)                                                                                                     \
    struct get_##D {                                                                                                   \
        template <class A> static auto of(A v)                                                                         \
        {                                                                                                              \
            return gems_get_##D(v);                                                                                    \
        }                                                                                                              \
    };                                                                                                                 \
    struct put_##D {                                                                                                   \
        template <class A> static auto of(A v)                                                                         \
        {                                                                                                              \
            return gems_put_##D(v);                                                                                    \
        }                                                                                                              \
    };                                                                                                                 \
    struct round_##D {                                                                                                 \
        template <class A> static auto of(A v)                                                                         \
        {                                                                                                              \
            return gems_get_##D(gems_put_##D(v));                                                                      \
        }                                                                                                              \
    };
ELEMENT(f16)
ELEMENT(bf16)
ELEMENT(f32)
ELEMENT(f64)
ELEMENT(i8)
ELEMENT(u8)
ELEMENT(i16)
ELEMENT(i32)
ELEMENT(i64)
ELEMENT(bool)

/* By the processor's instructions, eight at a time. */
#ifdef __AVX2__
void get_halves(void *to, const void *a, const void *b, const void *c, size_t n)
{
    float *t = static_cast<float *>(to);
    const ushort *x = static_cast<const ushort *>(a);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(t + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(x + i))));
    loop1<get_f16, float, ushort>(t + i, x + i, b, c, n - i);
}
void put_halves(void *to, const void *a, const void *b, const void *c, size_t n)
{
    ushort *t = static_cast<ushort *>(to);
    const float *x = static_cast<const float *>(a);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i *>(t + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0));
    loop1<put_f16, ushort, float>(t + i, x + i, b, c, n - i);
}
void round_halves(void *to, const void *a, const void *b, const void *c, size_t n)
{
    float *t = static_cast<float *>(to);
    const float *x = static_cast<const float *>(a);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(t + i, _mm256_cvtph_ps(_mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0)));
    loop1<round_f16, float, float>(t + i, x + i, b, c, n - i);
}
#else
constexpr gems_host_loop *get_halves = &loop1<get_f16, float, ushort>, *put_halves = &loop1<put_f16, ushort, float>,
                         *round_halves = &loop1<round_f16, float, float>;
#endif

/* ---- the table --------------------------------------------------------------------------------------------------- */

typedef gems_host_math table;

template <class From, class To> constexpr void fill_convert(table &m)
{
    m.convert[type_of<From>::index][type_of<To>::index] = &loop1<convert_to<To, From>, To, From>;
}
template <class F, class T, class To> constexpr void fill_binary(table &m, int op)
{
    gems_host_loop **at = m.binary[op][type_of<T>::index];
    at[0] = &loop2<F, To, T, 0>;
    at[1] = &loop2<F, To, T, 1>;
    at[2] = &loop2<F, To, T, 2>;
}
template <class F, class To, class A> constexpr void fill_call1(table &m, int call)
{
    m.call[call][type_of<A>::index][0] = &loop1<F, To, A>;
}
template <class F, class To, class A> constexpr void fill_call2(table &m, int call)
{
    m.call[call][type_of<A>::index][0] = &loop2<F, To, A, 0>;
}
template <class F, class To, class A> constexpr void fill_call2_scalar(table &m, int call)
{
    fill_call2<F, To, A>(m, call);
    m.call[call][type_of<A>::index][1] = &loop2<F, To, A, 1>;
    m.call[call][type_of<A>::index][2] = &loop2<F, To, A, 2>;
}
template <class F, class To, class A> constexpr void fill_call3_scalar(table &m, int call)
{
    m.call[call][type_of<A>::index][0] = &loop3<F, To, A, 0>;
    m.call[call][type_of<A>::index][1] = &loop3<F, To, A, 1>;
    m.call[call][type_of<A>::index][2] = &loop3<F, To, A, 2>;
}
#define ASK(name)   fill_call1<call_##name, uchar, T>(m, GEMS_HOST_CALL_##name);
#define CALL1(name) fill_call1<call_##name, T, T>(m, GEMS_HOST_CALL_##name);
#define CALL2(name) fill_call2<call_##name, T, T>(m, GEMS_HOST_CALL_##name);

template <class T> constexpr void fill_any(table &m)
{
    constexpr int t = type_of<T>::index;
    fill_convert<T, char>(m);
    fill_convert<T, uchar>(m);
    fill_convert<T, short>(m);
    fill_convert<T, int>(m);
    fill_convert<T, uint>(m);
    fill_convert<T, long>(m);
    fill_convert<T, ulong>(m);
    fill_convert<T, float>(m);
    fill_convert<T, double>(m);
    m.truth[t] = &loop1<truth, uchar, T>;
    m.negate[t] = &loop1<negate_op, T, T>;
    fill_binary<add_op, T, T>(m, GEMS_HOST_ADD);
    fill_binary<sub_op, T, T>(m, GEMS_HOST_SUB);
    fill_binary<mul_op, T, T>(m, GEMS_HOST_MUL);
    fill_binary<eq_op, T, uchar>(m, GEMS_HOST_EQ);
    fill_binary<ne_op, T, uchar>(m, GEMS_HOST_NE);
    fill_binary<lt_op, T, uchar>(m, GEMS_HOST_LT);
    fill_binary<le_op, T, uchar>(m, GEMS_HOST_LE);
}
/* Arithmetic is never done in narrower types, but for its low bits. */
template <class T> constexpr void fill_promoted(table &m)
{
    fill_binary<div_op, T, T>(m, GEMS_HOST_DIV);
    if constexpr (!is_floating<T>) {
        fill_binary<mod_op, T, T>(m, GEMS_HOST_MOD);
        fill_binary<shl_op, T, T>(m, GEMS_HOST_SHL);
        fill_binary<shr_op, T, T>(m, GEMS_HOST_SHR);
    }
}
template <class T> constexpr void fill_integer(table &m)
{
    m.invert[type_of<T>::index] = &loop1<invert_op, T, T>;
    fill_binary<and_op, T, T>(m, GEMS_HOST_AND);
    fill_binary<or_op, T, T>(m, GEMS_HOST_OR);
    fill_binary<xor_op, T, T>(m, GEMS_HOST_XOR);
}
/* Types that arithmetic uses, as gems_dtype_info.compute: what math.cl has functions and gems_put_D of. */
template <class T> constexpr void fill_compute(table &m)
{
    constexpr int t = type_of<T>::index;
    m.put[GEMS_F16][t] = &loop1<put_f16, ushort, T>;
    m.put[GEMS_BF16][t] = &loop1<put_bf16, ushort, T>;
    m.put[GEMS_F32][t] = &loop1<put_f32, float, T>;
    m.put[GEMS_F64][t] = &loop1<put_f64, double, T>;
    m.put[GEMS_I8][t] = &loop1<put_i8, char, T>;
    m.put[GEMS_U8][t] = &loop1<put_u8, uchar, T>;
    m.put[GEMS_I16][t] = &loop1<put_i16, short, T>;
    m.put[GEMS_I32][t] = &loop1<put_i32, int, T>;
    m.put[GEMS_I64][t] = &loop1<put_i64, long, T>;
    m.put[GEMS_BOOL][t] = &loop1<put_bool, uchar, T>;
    fill_call2_scalar<call_maximum, T, T>(m, GEMS_HOST_CALL_maximum);
    fill_call2_scalar<call_minimum, T, T>(m, GEMS_HOST_CALL_minimum);
    fill_call3_scalar<call_multiply_add, T, T>(m, GEMS_HOST_CALL_multiply_add);
    GEMS_HOST_QUESTIONS(ASK)
    CALL1(abs)
    CALL2(div_trunc)
    CALL2(div_floor)
    CALL2(remainder)
    CALL2(pow)
    if constexpr (!is_floating<T>) {
        CALL2(shift_left)
        CALL2(shift_right)
    } else {
        fill_call3_scalar<call_fma, T, T>(m, GEMS_HOST_CALL_fma);
        CALL2(copysign)
        CALL2(fmod)
        GEMS_HOST_EXACT(CALL1)
        GEMS_HOST_LIBRARY(CALL1)
    }
}
template <class T, int K> constexpr void fill_size(table &m)
{
    m.choose[K][0] = &loop_choose<T, 0>;
    m.choose[K][1] = &loop_choose<T, 1>;
    m.choose[K][2] = &loop_choose<T, 2>;
    m.choose[K][3] = &loop_choose<T, 3>;
    m.spread[K] = &loop_spread<T>;
}

constexpr table make()
{
    table m = {};
    fill_any<char>(m), fill_any<uchar>(m), fill_any<short>(m), fill_any<int>(m), fill_any<uint>(m);
    fill_any<long>(m), fill_any<ulong>(m), fill_any<float>(m), fill_any<double>(m);
    fill_promoted<int>(m), fill_promoted<uint>(m), fill_promoted<long>(m), fill_promoted<ulong>(m);
    fill_promoted<float>(m), fill_promoted<double>(m);
    fill_integer<char>(m), fill_integer<uchar>(m), fill_integer<short>(m), fill_integer<int>(m);
    fill_integer<uint>(m), fill_integer<long>(m), fill_integer<ulong>(m);
    fill_compute<char>(m), fill_compute<uchar>(m), fill_compute<short>(m), fill_compute<int>(m);
    fill_compute<long>(m), fill_compute<float>(m), fill_compute<double>(m);
    fill_size<uint8_t, 0>(m), fill_size<uint16_t, 1>(m), fill_size<uint32_t, 2>(m), fill_size<uint64_t, 3>(m);
    m.get[GEMS_F16] = get_halves;
    m.put[GEMS_F16][GEMS_HOST_F32] = put_halves;
    m.round[GEMS_F16] = round_halves;
    m.get[GEMS_BF16] = &loop1<get_bf16, float, ushort>;
    m.round[GEMS_BF16] = &loop1<round_bf16, float, float>;
    m.get[GEMS_BOOL] = &loop1<get_bool, uchar, uchar>;
    return m;
}

} // namespace

const gems_host_math HOST_MATH = make();
