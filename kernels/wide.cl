/* 16 bytes at a time, and rows that a group of items reads once and passes over several times: what kernels for GPUs
 * are made of that memory alone should slow down. The host has seen to it that rows begin at multiples of 16 bytes
 * (kernels/work/wide.h).
 *
 *   WIDE_OF(D)            elements of dtype D in 16 bytes
 *   wide_get_D(q, x)      the elements of q, a uint4 as it lies in memory, as num_D into x[0], ...
 *   wide_put_D(x)         the uint4 for elements x[0], ..., rounded as store_D does
 *   WIDE_STORE(D, p, x, n)  stores n of them, which fill whole uint4, at p
 *
 * A group has GROUP items, LANES (a power of two) for each row; `lane` is an item's place in its row and `slot` its
 * place in the group. */
#ifndef GEMS_WIDE_CL
#define GEMS_WIDE_CL

#include "kernels/ptx.cl"
#include "kernels/types.cl"
#include "kernels/unroll.cl"

#define WIDE_OF(D) (16 / (int)sizeof(GEMS_CAT(mem_, D)))
#define WIDE_INLINE static inline __attribute__((always_inline))

/* Element by element, by constant indices: arrays that nothing else touches become registers. */
#define WIDE_SPREAD2(x, v) (x)[0] = (v).s0, (x)[1] = (v).s1
#define WIDE_SPREAD4(x, v) WIDE_SPREAD2(x, v), (x)[2] = (v).s2, (x)[3] = (v).s3
#define WIDE_SPREAD8(x, v) WIDE_SPREAD4(x, v), (x)[4] = (v).s4, (x)[5] = (v).s5, (x)[6] = (v).s6, (x)[7] = (v).s7
#define WIDE_SPREAD16(x, v)                                                                                            \
    WIDE_SPREAD8(x, v), (x)[8] = (v).s8, (x)[9] = (v).s9, (x)[10] = (v).sa, (x)[11] = (v).sb, (x)[12] = (v).sc,        \
                        (x)[13] = (v).sd, (x)[14] = (v).se, (x)[15] = (v).sf
#define WIDE_LIST2(x) (x)[0], (x)[1]
#define WIDE_LIST4(x) WIDE_LIST2(x), (x)[2], (x)[3]
#define WIDE_LIST8(x) WIDE_LIST4(x), (x)[4], (x)[5], (x)[6], (x)[7]
#define WIDE_LIST16(x) WIDE_LIST8(x), (x)[8], (x)[9], (x)[10], (x)[11], (x)[12], (x)[13], (x)[14], (x)[15]

#define WIDE_PLAIN(D, T, n)                                                                                            \
    WIDE_INLINE void wide_get_##D(uint4 q, T *x)                                                                       \
    {                                                                                                                  \
        T##n v = as_##T##n(q);                                                                                         \
        WIDE_SPREAD##n(x, v);                                                                                          \
    }                                                                                                                  \
    WIDE_INLINE uint4 wide_put_##D(const T *x)                                                                         \
    {                                                                                                                  \
        T##n v = (T##n)(WIDE_LIST##n(x));                                                                              \
        return as_uint4(v);                                                                                            \
    }
WIDE_PLAIN(f32, float, 4)
WIDE_PLAIN(i8, char, 16)
WIDE_PLAIN(u8, uchar, 16)
WIDE_PLAIN(i16, short, 8)
WIDE_PLAIN(i32, int, 4)
WIDE_PLAIN(i64, long, 2)
#if GEMS_HAS_F64
WIDE_PLAIN(f64, double, 2)
#endif

WIDE_INLINE void wide_get_bool(uint4 q, uchar *x)
{
    uchar16 v = min(as_uchar16(q), (uchar16)1);
    WIDE_SPREAD16(x, v);
}
WIDE_INLINE uint4 wide_put_bool(const uchar *x) { return wide_put_u8(x); }

/* Two elements of two bytes in a word. */
#define WIDE_HALVES(D)                                                                                                 \
    WIDE_INLINE void wide_get_##D(uint4 q, float *x)                                                                   \
    {                                                                                                                  \
        wide_two_of_##D(q.x, x), wide_two_of_##D(q.y, x + 2);                                                          \
        wide_two_of_##D(q.z, x + 4), wide_two_of_##D(q.w, x + 6);                                                      \
    }                                                                                                                  \
    WIDE_INLINE uint4 wide_put_##D(const float *x)                                                                     \
    {                                                                                                                  \
        return (uint4)(wide_##D##_of(x[0], x[1]), wide_##D##_of(x[2], x[3]), wide_##D##_of(x[4], x[5]),                \
                       wide_##D##_of(x[6], x[7]));                                                                     \
    }

WIDE_INLINE void wide_two_of_bf16(uint u, float *x)
{
    x[0] = as_float(u << 16), x[1] = as_float(u & 0xffff0000u);
}
/* One instruction does what takes a dozen without it: half of the time of a short kernel. */
#if GEMS_PTX >= 80
#define wide_bf16_of(low, high) two_bf16(low, high)
#else
WIDE_INLINE uint wide_bf16_of(float low, float high)
{
    return gems_bf16_of(low) | (uint)gems_bf16_of(high) << 16;
}
#endif
WIDE_HALVES(bf16)

#if GEMS_PTX
WIDE_INLINE void wide_two_of_f16(uint u, float *x)
{
    __asm__("cvt.f32.f16 %0, %1;" : "=f"(x[0]) : "h"((ushort)u));
    __asm__("cvt.f32.f16 %0, %1;" : "=f"(x[1]) : "h"((ushort)(u >> 16)));
}
WIDE_INLINE uint wide_f16_of(float low, float high)
{
    ushort a, b;
    __asm__("cvt.rn.f16.f32 %0, %1;" : "=h"(a) : "f"(low));
    __asm__("cvt.rn.f16.f32 %0, %1;" : "=h"(b) : "f"(high));
    return a | (uint)b << 16;
}
#else
WIDE_INLINE void wide_two_of_f16(uint u, float *x)
{
    ushort2 both = as_ushort2(u);
    float2 v = vload_half2(0, (const half *)&both);
    x[0] = v.x, x[1] = v.y;
}
WIDE_INLINE uint wide_f16_of(float low, float high)
{
    ushort2 both;
    vstore_half2_rte((float2)(low, high), 0, (half *)&both);
    return as_uint(both);
}
#endif
WIDE_HALVES(f16)

#define WIDE_STORE(D, p, x, n)                                                                                         \
    UNROLL for (int at_ = 0; at_ < (n); at_ += WIDE_OF(D))                                                             \
        ((__global uint4 *)(p))[at_ / WIDE_OF(D)] = GEMS_CAT(wide_put_, D)((x) + at_);

/* ---- rows of LANES items */

#ifdef LANES
#define WIDE_ATTR __attribute__((reqd_work_group_size(LANES, GROUP / LANES, 1)))
#define WIDE_SOME (LANES < 32 ? LANES : 32)

/* Whose row this is: `k`, of `rows`. Items beyond the last row do it again and keep what they find: `mine` is false. */
#define WIDE_ROW(k, rows)                                                                                              \
    const int lane = get_local_id(0), slot = get_local_id(1) * LANES + lane;                                           \
    const long k##_ = get_group_id(0) * (long)(GROUP / LANES) + get_local_id(1);                                       \
    const bool mine = k##_ < (rows);                                                                                   \
    const long k = mine ? k##_ : (rows) - 1;

/* Of the values v of a row's items, each of type V, by OP(a, b): given to all of them. `name`: of its local memory, which
 * may serve again. */
#if GEMS_PTX && GROUP % 32 == 0
/* Within 32 items by exchange of registers, then among the results of every 32. One barrier, as two places take turns; of
 * two rows in a group each has its own, so that they do not wait for each other. */
#define WIDE_MEET                                                                                                      \
    if (GROUP != 2 * LANES)                                                                                            \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
    else if (slot < LANES)                                                                                             \
        __asm__ volatile("bar.sync 0, %0;" ::"n"(LANES) : "memory");                                                   \
    else                                                                                                               \
        __asm__ volatile("bar.sync 1, %0;" ::"n"(LANES) : "memory");
#define WIDE_EXCHANGE(V, v, OP, count)                                                                                 \
    UNROLL for (int apart = (count) / 2; apart > 0; apart /= 2)                                                        \
    {                                                                                                                  \
        union {                                                                                                        \
            V value;                                                                                                   \
            uint word[(sizeof(V) + 3) / 4];                                                                            \
        } one_;                                                                                                        \
        one_.value = v;                                                                                                \
        UNROLL for (int w = 0; w < (int)(sizeof(V) + 3) / 4; w++) one_.word[w] = from_lane(one_.word[w], apart);       \
        v = OP(v, one_.value);                                                                                         \
    }
#define WIDE_TREE_MEMORY(V, name)                                                                                      \
    __local V name##_some[2 * (GROUP / 32)];                                                                           \
    int name##_turn = 0;
#define WIDE_TREE(V, v, OP, name)                                                                                      \
    {                                                                                                                  \
        WIDE_EXCHANGE(V, v, OP, WIDE_SOME)                                                                             \
        if (LANES > 32) {                                                                                              \
            __local V *const some = name##_some + name##_turn * (GROUP / 32) + slot / LANES * (LANES / 32);            \
            name##_turn ^= 1;                                                                                          \
            if (lane % 32 == 0)                                                                                        \
                some[lane / 32] = v;                                                                                   \
            WIDE_MEET                                                                                                  \
            v = some[lane % (LANES / 32)];                                                                             \
            WIDE_EXCHANGE(V, v, OP, LANES / 32)                                                                        \
        }                                                                                                              \
    }
#else
/* First 32 items take their share of all, then each item all of theirs: two barriers. */
#define WIDE_TREE_MEMORY(V, name)                                                                                      \
    __local V name##_all[GROUP];                                                                                       \
    __local V name##_some[GROUP / LANES * WIDE_SOME] __attribute__((aligned(16)));
#define WIDE_TREE(V, v, OP, name)                                                                                      \
    {                                                                                                                  \
        __local V *const some = name##_some + (slot / LANES) * WIDE_SOME;                                              \
        if (LANES > 32) {                                                                                              \
            name##_all[slot] = v;                                                                                      \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
            if (lane < 32) {                                                                                           \
                V a = v;                                                                                               \
                _Pragma("unroll 4") for (int i = 32; i < LANES; i += 32) a = OP(a, name##_all[slot + i]);              \
                some[lane] = a;                                                                                        \
            }                                                                                                          \
        } else {                                                                                                       \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
            some[lane] = v;                                                                                            \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        v = some[0];                                                                                                   \
        _Pragma("unroll 4") for (int i = 1; i < WIDE_SOME; i++) v = OP(v, some[i]);                                    \
    }
#endif
#endif

/* What lies there will be read soon. */
#if GEMS_PTX
#define WIDE_AHEAD(p) __asm__ volatile("prefetch.global.L2 [%0];" ::"l"(p))
#else
#define WIDE_AHEAD(p)
#endif

/* Compilers would rather keep what they unpacked for the next pass, in twice the registers. */
#if GEMS_PTX
#define HOLD_AS_IT_IS(q) __asm__ volatile("" : "+r"((q).x), "+r"((q).y), "+r"((q).z), "+r"((q).w))
#else
#define HOLD_AS_IT_IS(q)
#endif

/* ---- rows that are held
 *
 * An item keeps HELD uint4 of its row in registers as they came, SPARE more in local memory; what is left of a longer
 * row (REST) is read again by each pass. `vectors`: uint4 of the row.
 *
 *   HOLD_MEMORY           at the kernel's begin, where SPARE > 0
 *   HOLD(from, vectors)   reads
 *   HOLD_WALK(from, vectors, STEP)   STEP(q, i) for each of the item's uint4 q, the i-th of the row */
#ifdef HELD
#if SPARE
#define HOLD_MEMORY __local uint4 spare_[SPARE * GROUP];
#define HOLD_SPARE(...) __VA_ARGS__
#else
#define HOLD_MEMORY
#define HOLD_SPARE(...)
#endif

#if REST
#define HOLD_REST(...) __VA_ARGS__
#else
#define HOLD_REST(...)
#endif

#define HOLD(from, vectors)                                                                                            \
    uint4 held_[HELD];                                                                                                 \
    HOLD_SPARE(_Pragma("unroll 4") for (int u = 0; u < SPARE; u++) {                                                   \
        const int i = lane + (HELD + u) * LANES;                                                                       \
        if (i < (vectors))                                                                                             \
            spare_[u * GROUP + slot] = (from)[i];                                                                      \
    })                                                                                                                 \
    UNROLL for (int u = 0; u < HELD; u++)                                                                              \
        held_[u] = lane + u * LANES < (vectors) ? (from)[lane + u * LANES] : (uint4)(0);

#define HOLD_WALK(from, vectors, STEP)                                                                                 \
    {                                                                                                                  \
        UNROLL for (int u = 0; u < HELD; u++)                                                                          \
        {                                                                                                              \
            HOLD_AS_IT_IS(held_[u]);                                                                                   \
            if (lane + u * LANES < (vectors))                                                                          \
                STEP(held_[u], (lane + u * LANES))                                                                     \
        }                                                                                                              \
        HOLD_SPARE(_Pragma("unroll 2") for (int u = 0; u < SPARE; u++) {                                               \
            const int i = lane + (HELD + u) * LANES;                                                                   \
            if (i < (vectors)) {                                                                                       \
                const uint4 one_ = spare_[u * GROUP + slot];                                                           \
                STEP(one_, i)                                                                                          \
            }                                                                                                          \
        })                                                                                                             \
        HOLD_REST(for (int i = lane + (HELD + SPARE) * LANES; i < (vectors); i += LANES) {                             \
            const uint4 one_ = (from)[i];                                                                              \
            STEP(one_, i)                                                                                              \
        })                                                                                                             \
    }
#endif

#endif
