/* NVIDIA's compute capability 9.0: barriers in local memory, blocks that a copy engine brings (TMA), products by a warp
 * group (wgmma). The instructions are PTX; its manual describes them.
 *
 * NVIDIA's OpenCL compiler takes those of sm_90a for errors. They stand in comments (SM90A), whose operands are filled
 * in all the same, and kernels/device/nvidia.c takes the comment marks off the compiled text. A kernel that gives up
 * registers needs a reqd_work_group_size.
 *
 * Addresses in local memory are 32-bit numbers (IN_LOCAL). A block in local memory has rows of 128 bytes whose 16-byte
 * chunks are permuted by the row's number (chunk c of row r is at c ^ r % 8) and begins at a multiple of 1024. */
#ifndef GEMS_HOPPER_CL
#define GEMS_HOPPER_CL

#include "kernels/ptx.cl"
#include "kernels/types.cl"

#define INLINE static inline __attribute__((always_inline))
#define SM90A(text) "/*GEMS " text " GEMS*/"
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define IN_LOCAL(p) ((uint)(ulong)(p))

/* ---- barriers: `bar` is the address of a ulong in local memory; their phase turns when all have arrived ---- */

INLINE void bar_init(uint bar, uint arrivals)
{
    __asm__ volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}
/* Before others, and the copy engine, see what was initialised. */
INLINE void bar_init_done(void)
{
    __asm__ volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
}
INLINE void bar_arrive(uint bar)
{
    __asm__ volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* Arrives, and awaits so many bytes from the copy engine, too. */
INLINE void bar_expect(uint bar, uint bytes)
{
    __asm__ volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
INLINE void bar_wait(uint bar, uint phase)
{
    __asm__ volatile("{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                     "@done bra DONE;\nbra AGAIN;\nDONE:\n}" ::"r"(bar), "r"(phase) : "memory");
}
/* Of `items` work-items, whole warps. Number 0 is barrier()'s. */
INLINE void group_bar(int number, int items)
{
    __asm__ volatile("bar.sync %0, %1;" ::"r"(number), "r"(items) : "memory");
}

/* ---- the copy engine ---- */

enum {
    MAP_WORDS = 32,
    MAP_F16 = 6,
    MAP_BF16 = 10
};

/* Before the copy engine reads it. */
INLINE void map_written(__global uint *w)
{
    __asm__ volatile("fence.proxy.tensormap::generic.release.gpu; fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(
                         (ulong)w)
                     : "memory");
}
/* Writes the description of 16-bit elements for the copy engine. Of `rank` dimensions, 3 or 4, the first is along rows:
 * matrices of size.y rows of size.x, size.z of them, in each of size.w; what lies beside each other is apart.x, .y and .z
 * bytes apart, multiples of 16 as the address is (0: there is only one). What is brought are blocks of box_rows x 64
 * elements, zeros where a matrix ends. `w`: at a multiple of 64 bytes. Undocumented: found by experiment, and tried before
 * it is used (kernels/device/nvidia.c). */
INLINE void map_write(__global uint *w, const int rank, ulong address, uint type, uint4 size, ulong3 apart, uint box_rows)
{
    /* What there is one of has a step, too: it is looked at. */
    const ulong step1 = apart.x ? apart.x : 16, step2 = apart.y ? apart.y : 16, step3 = apart.z ? apart.z : 16;
    for (int i = 0; i < MAP_WORDS; i++)
        w[i] = 0;
    w[0] = (uint)address, w[1] = (uint)(address >> 32);
    w[2] = (uint)(rank - 1) << 4 | type << 7 | 3u << 13 | 3u << 17; /* rows of 128 bytes permuted, 256 bytes at once */
    w[3] = (uint)(step1 >> 4), w[4] = (uint)(step2 >> 4), w[5] = rank > 3 ? (uint)(step3 >> 4) : 0;
    w[7] = (uint)(step1 >> 36) | (uint)(step2 >> 36) << 4 | (rank > 3 ? (uint)(step3 >> 36) << 8 : 0);
    w[8] = size.x - 1, w[9] = size.y - 1, w[10] = size.z - 1, w[11] = rank > 3 ? size.w - 1 : 0;
    w[13] = 63u << 24, w[14] = box_rows - 1;
    w[16] = box_rows * 128, w[18] = 1024;
    map_written(w);
}
/* After map_write with four dimensions, box_rows 0: blocks of box.x x box.y x box.z rows, of which those beside each other
 * are apart.x rows of the matrix (up to 8) apart, and so on. */
INLINE void map_box(__global uint *w, uint3 box, uint2 apart)
{
    w[13] = 63u << 24 | (apart.x - 1) << 3 | (apart.y - 1) << 6;
    w[14] = ((box.x - 1) * apart.x) | ((box.y - 1) * apart.y) << 8 | (box.z - 1) << 16;
    w[16] = box.x * box.y * box.z * 128;
    map_written(w);
}
/* Brings the block whose first element is (row, column) of a matrix to local memory; the barrier is told of its bytes. */
INLINE void map_fetch(uint to, const __global uint *map, uint bar, int column, int row, int batch)
{
    __asm__ volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
                     "[%1, {%3, %4, %5}], [%2];" ::"r"(to),
                     "l"((ulong)map), "r"(bar), "r"(column), "r"(row), "r"(batch)
                     : "memory");
}

/* The same of four dimensions. */
INLINE void map_fetch4(uint to, const __global uint *map, uint bar, int column, int row, int matrix, int batch)
{
    __asm__ volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
                     "[%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
                     "l"((ulong)map), "r"(bar), "r"(column), "r"(row), "r"(matrix), "r"(batch)
                     : "memory");
}

/* ---- products by the four warps of a warp group: C of 64 x N, in registers, += A of 64 x 16 times B of 16 x N ----
 *
 * Work-item t of the 128 holds C's rows 16 (t / 32) + t % 32 / 4 (+ 8 in the elements 2 and 3 of each four) and columns
 * 8 i + 2 (t % 4) (+ 1) in its elements 4 i to 4 i + 3. */

#define WGMMA_BEGIN __asm__ volatile(SM90A("wgmma.fence.sync.aligned;") ::: "memory")
#define WGMMA_COMMIT __asm__ volatile(SM90A("wgmma.commit_group.sync.aligned;") ::: "memory")
/* Until at most `n` committed ones are under way. */
#define WGMMA_WAIT(n) __asm__ volatile(SM90A("wgmma.wait_group.sync.aligned %0;") ::"n"(n) : "memory")
/* Registers that a warp group gives back, or takes. */
#define REGISTERS_DOWN(n) __asm__ volatile(SM90A("setmaxnreg.dec.sync.aligned.u32 %0;") ::"n"(n))
#define REGISTERS_UP(n) __asm__ volatile(SM90A("setmaxnreg.inc.sync.aligned.u32 %0;") ::"n"(n))

/* Where an operand lies: its address, and `apart` bytes between blocks of 64 across (where those are its rows). */
#define OPERAND_AT(address, apart) (1ul << 62 | 64ul << 32 | (ulong)((apart) ? (apart) >> 4 : 1) << 16 | ((address) & 0x3ffff) >> 4)

#define WORDS_4 "%0,%1,%2,%3"
#define WORDS_8 WORDS_4 ",%4,%5,%6,%7"
#define WORDS_16 WORDS_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define WORDS_32                                                                                                       \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"   \
    "%30,%31"
#define WORDS_64                                                                                                       \
    WORDS_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,"   \
             "%57,%58,%59,%60,%61,%62,%63"
#define WORDS_96                                                                                                       \
    WORDS_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,"   \
             "%89,%90,%91,%92,%93,%94,%95"
#define WORDS_128                                                                                                      \
    WORDS_96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,"  \
             "%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define SUMS_4_(d, i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define SUMS_8_(d, i) SUMS_4_(d, i), SUMS_4_(d, (i) + 4)
#define SUMS_16_(d, i) SUMS_8_(d, i), SUMS_8_(d, (i) + 8)
#define SUMS_4(d) SUMS_4_(d, 0)
#define SUMS_8(d) SUMS_8_(d, 0)
#define SUMS_16(d) SUMS_16_(d, 0)
#define SUMS_32(d) SUMS_16(d), SUMS_16_(d, 16)
#define SUMS_64(d) SUMS_32(d), SUMS_16_(d, 32), SUMS_16_(d, 48)
#define SUMS_96(d) SUMS_64(d), SUMS_16_(d, 64), SUMS_16_(d, 80)
#define SUMS_128(d) SUMS_96(d), SUMS_16_(d, 96), SUMS_16_(d, 112)
/* N columns, in `held` = N / 2 registers d; elements of `type` ("f16", "bf16"); a, b: OPERAND_AT; along: 1 where what lies
 * beside each other in A is its column, in B its row; keep: 0 to begin with zeros. */
#define WGMMA(n, held, type, d, a, a_along, b, b_along, keep)                                                          \
    __asm__ volatile(SM90A("{.reg .pred keep; setp.ne.b32 keep, %[more], 0; wgmma.mma_async.sync.aligned.m64n" TEXT(n) \
                           "k16.f32." type "." type " {" GEMS_CAT(WORDS_, held) "}, %[left], %[right], keep, 1, 1, " TEXT(a_along) \
                           ", " TEXT(b_along) ";}")                                                                    \
                     : GEMS_CAT(SUMS_, held)(d)                                                                                  \
                     : [left] "l"(a), [right] "l"(b), [more] "r"(keep)                                                 \
                     : "memory")
/* The same with A in registers, two elements in each: of the row of C's elements 0, 1 and of the other one, a0 and a1 at
 * the columns that those have in C, a2 and a3 8 further on: C's own elements, by twos, can be the next product's A. */
#define WGMMA_HELD(n, held, type, d, a0, a1, a2, a3, b, b_along, keep)                                                 \
    __asm__ volatile(SM90A("{.reg .pred keep; setp.ne.b32 keep, %[more], 0; wgmma.mma_async.sync.aligned.m64n" TEXT(n) \
                           "k16.f32." type "." type " {" GEMS_CAT(WORDS_, held) "}, {%[l0], %[l1], %[l2], %[l3]}, "     \
                           "%[right], keep, 1, 1, " TEXT(b_along) ";}")                                                \
                     : GEMS_CAT(SUMS_, held)(d)                                                                        \
                     : [l0] "r"(a0), [l1] "r"(a1), [l2] "r"(a2), [l3] "r"(a3), [right] "l"(b), [more] "r"(keep)        \
                     : "memory")
/* Uses of the registers that come after it stay after it. */
#define WGMMA_KEEP(held, d) __asm__ volatile("" : GEMS_CAT(SUMS_, held)(d)::"memory")

/* For a product's A: `words` registers. */
#define BITS_4(d, i) "+r"(d[i]), "+r"(d[(i) + 1]), "+r"(d[(i) + 2]), "+r"(d[(i) + 3])
#define BITS_16(d) BITS_4(d, 0), BITS_4(d, 4), BITS_4(d, 8), BITS_4(d, 12)
#define BITS_32(d) BITS_16(d), BITS_4(d, 16), BITS_4(d, 20), BITS_4(d, 24), BITS_4(d, 28)
#define WGMMA_KEEP_BITS(words, d) __asm__ volatile("" : GEMS_CAT(BITS_, words)(d)::"memory")

/* ---- between the work-items of a warp (kernels/ptx.cl) ---- */

INLINE float from_lane_f(float x, int across)
{
    float y;
    __asm__ volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=f"(y) : "f"(x), "r"(across));
    return y;
}

/* x, of which the compiler does not know that: what is made from it is made anew, not held in registers till then. */
INLINE int again(int x)
{
    __asm__ volatile("" : "+r"(x));
    return x;
}

/* ---- numbers ---- */

/* 2^x to 2 units in the last place; what would be denormal is 0. */
INLINE float exp2_fast(float x)
{
    float y;
    __asm__("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
INLINE uint two_f16(float low, float high)
{
    uint both;
    __asm__("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
/* Those two. */
INLINE float low_f16(uint both)
{
    float x;
    __asm__("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}" : "=f"(x) : "r"(both));
    return x;
}
INLINE float high_f16(uint both)
{
    float x;
    __asm__("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high;}" : "=f"(x) : "r"(both));
    return x;
}

/* Of a dtype D: its name in instructions, its number in maps, two of it from f32. */
#define PTX_bf16 "bf16"
#define PTX_f16 "f16"
#define MAP_bf16 MAP_BF16
#define MAP_f16 MAP_F16
#define TYPE_OF(D) GEMS_CAT(PTX_, D)
#define MAP_TYPE_OF(D) GEMS_CAT(MAP_, D)
#define TWO_OF(D) GEMS_CAT(two_, D)

#endif
