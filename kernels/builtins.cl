/* The builtin functions that our kernels use, put before every program for drivers whose compiler otherwise reads the
 * declarations of all there are ("undeclared" in tune/<vendor>.json): those are 18,000 lines, which take Clang longer than
 * the rest of a small kernel. They are declared as there (Clang's opencl-c.h), and all scalar overloads of a function or
 * none: with some of them a call could mean another one than with all. A program for which they do not suffice is built
 * with the driver's own, which takes longer: the tests of families and of the evaluator fail then. */
#define GEMS_OF    __attribute__((overloadable, const))
#define GEMS_READS __attribute__((overloadable, pure))
#define GEMS_DOES  __attribute__((overloadable))

size_t GEMS_OF get_global_id(uint);
size_t GEMS_OF get_global_size(uint);
size_t GEMS_OF get_group_id(uint);
size_t GEMS_OF get_local_id(uint);
size_t GEMS_OF get_local_size(uint);
size_t GEMS_OF get_num_groups(uint);
void __attribute__((overloadable, convergent)) barrier(cl_mem_fence_flags);

#define GEMS_FUNCTIONS(T, I, U)                                                                                        \
    T GEMS_OF acos(T);                                                                                                 \
    T GEMS_OF acosh(T);                                                                                                \
    T GEMS_OF asin(T);                                                                                                 \
    T GEMS_OF asinh(T);                                                                                                \
    T GEMS_OF atan(T);                                                                                                 \
    T GEMS_OF atan2(T, T);                                                                                             \
    T GEMS_OF atanh(T);                                                                                                \
    T GEMS_OF ceil(T);                                                                                                 \
    T GEMS_OF copysign(T, T);                                                                                          \
    T GEMS_OF cos(T);                                                                                                  \
    T GEMS_OF cosh(T);                                                                                                 \
    T GEMS_OF erf(T);                                                                                                  \
    T GEMS_OF erfc(T);                                                                                                 \
    T GEMS_OF exp(T);                                                                                                  \
    T GEMS_OF exp2(T);                                                                                                 \
    T GEMS_OF expm1(T);                                                                                                \
    T GEMS_OF fabs(T);                                                                                                 \
    T GEMS_OF floor(T);                                                                                                \
    T GEMS_OF fma(T, T, T);                                                                                            \
    T GEMS_OF fmax(T, T);                                                                                              \
    T GEMS_OF fmin(T, T);                                                                                              \
    T GEMS_OF fmod(T, T);                                                                                              \
    T GEMS_OF hypot(T, T);                                                                                             \
    T GEMS_OF log(T);                                                                                                  \
    T GEMS_OF log10(T);                                                                                                \
    T GEMS_OF log1p(T);                                                                                                \
    T GEMS_OF log2(T);                                                                                                 \
    T GEMS_OF max(T, T);                                                                                               \
    T GEMS_OF min(T, T);                                                                                               \
    T GEMS_OF clamp(T, T, T);                                                                                          \
    T GEMS_OF pow(T, T);                                                                                               \
    T GEMS_OF remainder(T, T);                                                                                         \
    T GEMS_OF rint(T);                                                                                                 \
    T GEMS_OF round(T);                                                                                                \
    T GEMS_OF rsqrt(T);                                                                                                \
    T GEMS_OF sin(T);                                                                                                  \
    T GEMS_OF sinh(T);                                                                                                 \
    T GEMS_OF sqrt(T);                                                                                                 \
    T GEMS_OF tan(T);                                                                                                  \
    T GEMS_OF tanh(T);                                                                                                 \
    T GEMS_OF trunc(T);                                                                                                \
    T GEMS_OF select(T, T, I);                                                                                         \
    T GEMS_OF select(T, T, U);                                                                                         \
    int GEMS_OF isfinite(T);                                                                                           \
    int GEMS_OF isinf(T);                                                                                              \
    int GEMS_OF isnan(T);                                                                                              \
    int GEMS_OF signbit(T);
#define GEMS_VECTOR_FUNCTIONS(T, I, U)                                                                                 \
    T GEMS_OF exp(T);                                                                                                  \
    T GEMS_OF fabs(T);                                                                                                 \
    T GEMS_OF fma(T, T, T);                                                                                            \
    T GEMS_OF fmax(T, T);                                                                                              \
    T GEMS_OF fmin(T, T);                                                                                              \
    T GEMS_OF floor(T);                                                                                                \
    T GEMS_OF log(T);                                                                                                  \
    T GEMS_OF sqrt(T);                                                                                                 \
    T GEMS_OF max(T, T);                                                                                               \
    T GEMS_OF min(T, T);                                                                                               \
    T GEMS_OF rint(T);                                                                                                 \
    T GEMS_OF select(T, T, I);                                                                                         \
    T GEMS_OF select(T, T, U);                                                                                         \
    I GEMS_OF isnan(T);
#define GEMS_VECTORS_FUNCTIONS(T, I, U)                                                                                \
    GEMS_VECTOR_FUNCTIONS(T##2, I##2, U##2)                                                                            \
    GEMS_VECTOR_FUNCTIONS(T##4, I##4, U##4)                                                                            \
    GEMS_VECTOR_FUNCTIONS(T##8, I##8, U##8)                                                                            \
    GEMS_VECTOR_FUNCTIONS(T##16, I##16, U##16)
/* I and U: the signed and the unsigned type as wide as T. */
#define GEMS_INTEGERS(T, I, U)                                                                                         \
    U GEMS_OF abs(T);                                                                                                  \
    T GEMS_OF max(T, T);                                                                                               \
    T GEMS_OF min(T, T);                                                                                               \
    T GEMS_OF clamp(T, T, T);                                                                                          \
    T GEMS_OF select(T, T, I);                                                                                         \
    T GEMS_OF select(T, T, U);
#define GEMS_INTEGERS16(T, I, U)                                                                                       \
    T GEMS_OF max(T, T);                                                                                               \
    T GEMS_OF min(T, T);                                                                                               \
    T GEMS_OF select(T, T, I);                                                                                         \
    T GEMS_OF select(T, T, U);

#define GEMS_VECTOR(T, N, S)                                                                                           \
    T##N GEMS_READS vload##N(size_t, const S T *);                                                                     \
    void GEMS_DOES vstore##N(T##N, size_t, S T *);
#define GEMS_SPACE(T, S)                                                                                               \
    GEMS_VECTOR(T, 2, S)                                                                                               \
    GEMS_VECTOR(T, 4, S)                                                                                               \
    GEMS_VECTOR(T, 8, S)                                                                                               \
    GEMS_VECTOR(T, 16, S)
#define GEMS_HALF(S)                                                                                                   \
    float GEMS_READS vload_half(size_t, const S half *);                                                               \
    float2 GEMS_READS vload_half2(size_t, const S half *);                                                             \
    float16 GEMS_READS vload_half16(size_t, const S half *);                                                           \
    void GEMS_DOES vstore_half_rte(float, size_t, S half *);                                                           \
    void GEMS_DOES vstore_half2_rte(float2, size_t, S half *);                                                         \
    void GEMS_DOES vstore_half16_rte(float16, size_t, S half *);
#ifdef __opencl_c_generic_address_space
#define GEMS_SPACES(T) GEMS_SPACE(T, )
GEMS_HALF()
#else
#define GEMS_SPACES(T) GEMS_SPACE(T, __global) GEMS_SPACE(T, __local) GEMS_SPACE(T, __private)
GEMS_HALF(__global)
GEMS_HALF(__local)
GEMS_HALF(__private)
#endif

#define GEMS_ATOMIC(T, S)                                                                                              \
    T GEMS_DOES atomic_add(volatile S T *, T);                                                                         \
    T GEMS_DOES atomic_inc(volatile S T *);                                                                            \
    T GEMS_DOES atomic_max(volatile S T *, T);                                                                         \
    T GEMS_DOES atomic_or(volatile S T *, T);
GEMS_ATOMIC(int, __global)
GEMS_ATOMIC(int, __local)
GEMS_ATOMIC(uint, __global)
GEMS_ATOMIC(uint, __local)

#define GEMS_INTEGER_TYPE(T)                                                                                           \
    GEMS_INTEGERS(T, T, u##T)                                                                                          \
    GEMS_INTEGERS(u##T, T, u##T)                                                                                       \
    GEMS_INTEGERS16(T##16, T##16, u##T##16)                                                                            \
    GEMS_INTEGERS16(u##T##16, T##16, u##T##16)                                                                         \
    GEMS_SPACES(T)                                                                                                     \
    GEMS_SPACES(u##T)
GEMS_INTEGER_TYPE(char)
GEMS_INTEGER_TYPE(short)
GEMS_INTEGER_TYPE(int)
GEMS_INTEGER_TYPE(long)
GEMS_FUNCTIONS(float, int, uint)
GEMS_VECTORS_FUNCTIONS(float, int, uint)
GEMS_SPACES(float)
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
GEMS_FUNCTIONS(double, long, ulong)
GEMS_VECTORS_FUNCTIONS(double, long, ulong)
GEMS_SPACES(double)
#endif

#define GEMS_CONVERT(F, T)                                                                                             \
    T GEMS_OF convert_##T(F);                                                                                          \
    T##2 GEMS_OF convert_##T##2(F##2);                                                                                 \
    T##4 GEMS_OF convert_##T##4(F##4);                                                                                 \
    T##8 GEMS_OF convert_##T##8(F##8);                                                                                 \
    T##16 GEMS_OF convert_##T##16(F##16);
#define GEMS_CONVERTED(F)                                                                                              \
    GEMS_CONVERT(F, char)                                                                                              \
    GEMS_CONVERT(F, uchar)                                                                                             \
    GEMS_CONVERT(F, short)                                                                                             \
    GEMS_CONVERT(F, ushort)                                                                                            \
    GEMS_CONVERT(F, int)                                                                                               \
    GEMS_CONVERT(F, uint)                                                                                              \
    GEMS_CONVERT(F, long)                                                                                              \
    GEMS_CONVERT(F, ulong)                                                                                             \
    GEMS_CONVERT(F, float)
GEMS_CONVERTED(char)
GEMS_CONVERTED(uchar)
GEMS_CONVERTED(short)
GEMS_CONVERTED(ushort)
GEMS_CONVERTED(int)
GEMS_CONVERTED(uint)
GEMS_CONVERTED(long)
GEMS_CONVERTED(ulong)
GEMS_CONVERTED(float)
#ifdef cl_khr_fp64
GEMS_CONVERTED(double)
GEMS_CONVERT(char, double)
GEMS_CONVERT(uchar, double)
GEMS_CONVERT(short, double)
GEMS_CONVERT(ushort, double)
GEMS_CONVERT(int, double)
GEMS_CONVERT(uint, double)
GEMS_CONVERT(long, double)
GEMS_CONVERT(ulong, double)
GEMS_CONVERT(float, double)
GEMS_CONVERT(double, double)
#endif
