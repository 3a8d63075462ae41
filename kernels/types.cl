/* Element types as device code sees them. For a dtype D of kernels/call.h (f16 bf16 f32 f64 i8 u8 i16 i32 i64 bool):
 *
 *   mem_D              an element in memory
 *   num_D, num16_D     what arithmetic uses: float for f16 and bf16, uchar for bool; and a vector of 16 of them
 *   load_D(p, i)       element i of p as num_D              load16_D(p, i)      elements i to i+15
 *   store_D(p, i, v)   rounds to nearest even, once         store16_D(p, i, v)
 *
 * Put together with GEMS_CAT(load_, D), where D is a macro given to the program. Vectors need no alignment beyond the
 * element's. f64 exists where GEMS_HAS_F64 is 1. */
#ifndef GEMS_TYPES_CL
#define GEMS_TYPES_CL

#define GEMS_CAT_(a, b) a##b
#define GEMS_CAT(a, b) GEMS_CAT_(a, b)

#if GEMS_HAS_F64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif

/* vstore16 by its meaning. On CPUs a plain store, since PoCL's vstore16 takes a vector apart. */
#if GEMS_CPU
#define GEMS_LOOSE(T) typedef T##16 gems_loose_##T __attribute__((aligned(sizeof(T))));
GEMS_LOOSE(char)
GEMS_LOOSE(uchar)
GEMS_LOOSE(short)
GEMS_LOOSE(ushort)
GEMS_LOOSE(int)
GEMS_LOOSE(long)
GEMS_LOOSE(float)
#if GEMS_HAS_F64
GEMS_LOOSE(double)
#endif
#define GEMS_STORE16(T, v, p) (*(__global gems_loose_##T *)(p) = (v))
#else
#define GEMS_STORE16(T, v, p) vstore16(v, 0, p)
#endif

/* Types that are the same in memory and in arithmetic. */
#define GEMS_PLAIN_TYPE(D, T)                                                                                          \
    typedef T mem_##D;                                                                                                 \
    typedef T num_##D;                                                                                                 \
    typedef T##16 num16_##D;                                                                                           \
    static inline T load_##D(const __global T *p, long i) { return p[i]; }                                             \
    static inline T##16 load16_##D(const __global T *p, long i) { return vload16(0, p + i); }                          \
    static inline void store_##D(__global T *p, long i, T v) { p[i] = v; }                                             \
    static inline void store16_##D(__global T *p, long i, T##16 v) { GEMS_STORE16(T, v, p + i); }

GEMS_PLAIN_TYPE(f32, float)
GEMS_PLAIN_TYPE(i8, char)
GEMS_PLAIN_TYPE(u8, uchar)
GEMS_PLAIN_TYPE(i16, short)
GEMS_PLAIN_TYPE(i32, int)
GEMS_PLAIN_TYPE(i64, long)
#if GEMS_HAS_F64
GEMS_PLAIN_TYPE(f64, double)
#endif

/* Memory that others wrote may hold bools of any value: what is not 0 is true. */
typedef uchar mem_bool;
typedef uchar num_bool;
typedef uchar16 num16_bool;
static inline uchar load_bool(const __global uchar *p, long i) { return p[i] != 0; }
static inline uchar16 load16_bool(const __global uchar *p, long i) { return min(vload16(0, p + i), (uchar16)1); }
static inline void store_bool(__global uchar *p, long i, uchar v) { p[i] = v; }
static inline void store16_bool(__global uchar *p, long i, uchar16 v) { GEMS_STORE16(uchar, v, p + i); }

typedef ushort mem_bf16;
typedef float num_bf16;
typedef float16 num16_bf16;

/* Adds half of the last kept place, less one if that place is even: ties go to even. NaN keeps its top bits. */
#if GEMS_PTX >= 80
static inline ushort gems_bf16_of(float v)
{
    ushort h;
    __asm__("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
#else
static inline ushort gems_bf16_of(float v)
{
    uint u = as_uint(v);
    uint r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (ushort)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : r);
}
#endif
static inline ushort16 gems_bf16_of16(float16 v)
{
    uint16 u = as_uint16(v);
    uint16 r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return convert_ushort16((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : r);
}
static inline float load_bf16(const __global ushort *p, long i) { return as_float((uint)p[i] << 16); }
static inline float16 load16_bf16(const __global ushort *p, long i)
{
    return as_float16(convert_uint16(vload16(0, p + i)) << 16);
}
static inline void store_bf16(__global ushort *p, long i, float v) { p[i] = gems_bf16_of(v); }
static inline void store16_bf16(__global ushort *p, long i, float16 v) { GEMS_STORE16(ushort, gems_bf16_of16(v), p + i); }

typedef half mem_f16;
typedef float num_f16;
typedef float16 num16_f16;

static inline float load_f16(const __global half *p, long i) { return vload_half(i, p); }
static inline void store_f16(__global half *p, long i, float v) { vstore_half_rte(v, i, p); }
static inline float16 load16_f16(const __global half *p, long i) { return vload_half16(0, p + i); }
/* PoCL 3.1 takes it that a vector of halves is aligned as a whole: a store of constants then faults. */
#if GEMS_CPU
static inline void store16_f16(__global half *p, long i, float16 v)
{
    ushort16 bits;
    vstore_half16_rte(v, 0, (half *)&bits);
    GEMS_STORE16(ushort, bits, (__global ushort *)p + i);
}
#else
static inline void store16_f16(__global half *p, long i, float16 v) { vstore_half16_rte(v, 0, p + i); }
#endif

#endif
