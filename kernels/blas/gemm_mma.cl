/* Matrix product of bf16 or f16 on NVIDIA's tensor cores from compute capability 8.0 on: C = alpha A B + beta D, sums in
 * f32. The instructions are PTX (its manual: mma.m16n8k16, ldmatrix, cp.async).
 *
 * A group of 128 work-items, four warps, makes a block of TM x TN of C; a warp a quarter of it. Blocks of TK of A and B
 * come by cp.async, STAGES - 1 ahead, in chunks of 16 bytes, of which those outside the matrices are zeros. In local
 * memory the chunks of a row are permuted by the row's number, so that ldmatrix finds the eight it reads in eight banks.
 *
 * Given: D, S, FLOAT as in product.cl; TM, TN, TK, STAGES; A_ALONG_M: A's neighbours are along m, else along k;
 * B_ALONG_K: B's along k, else along n. Those rows or columns begin at multiples of 16 bytes. */
#include "kernels/blas/product.cl"

#ifndef TM
#define TM 128
#define TN 128
#define TK 32
#define STAGES 3
#define A_ALONG_M 0
#define B_ALONG_K 0
#endif

#define GROUP 128
#define WM (TM / 2) /* of a warp */
#define WN (TN / 2)
#define MI (WM / 16)
#define NI (WN / 8)
#define TILES_DOWN 16 /* blocks of C that share columns of B in the cache: so many rows of blocks, column by column */
#define UNROLL _Pragma("unroll")

/* A block in local memory: rows of WIDE elements, or ACROSS rows of TK. */
#define A_WIDE (A_ALONG_M ? TM : TK)
#define A_ROWS (A_ALONG_M ? TK : TM)
#define B_WIDE (B_ALONG_K ? TK : TN)
#define B_ROWS (B_ALONG_K ? TN : TK)
#define A_BYTES (A_WIDE * A_ROWS * 2)
#define STAGE_BYTES (A_BYTES + B_WIDE * B_ROWS * 2)
/* Where chunk c of row r is, in bytes. Rows of four chunks: two of them fill all banks. */
#define PLACE(r, c, wide) ((r) * (wide) * 2 + (((wide) >= 64 ? (c) ^ ((r) & 7) : (c) ^ ((r) >> 1 & 3)) << 4))

#define PTX_bf16 "bf16"
#define PTX_f16 "f16"
#define MMA(c, a, b0, b1)                                                                                              \
    __asm__ volatile("mma.sync.aligned.m16n8k16.row.col.f32." GEMS_CAT(PTX_, D) "." GEMS_CAT(PTX_, D)                  \
                     ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                      \
                     : "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3])                                          \
                     : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"(b0), "r"(b1))
#define LOAD_MATRICES(to, how, from)                                                                                   \
    __asm__ volatile("ldmatrix.sync.aligned.m8n8.x4" how ".shared.b16 {%0,%1,%2,%3}, [%4];"                            \
                     : "=r"((to)[0]), "=r"((to)[1]), "=r"((to)[2]), "=r"((to)[3])                                      \
                     : "r"(from)                                                                                       \
                     : "memory")

/* 16 bytes, of which the first `n` are copied. */
static inline void fetch(uint to, const __global ushort *from, int n)
{
    __asm__ volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"((ulong)from), "r"(n) : "memory");
}

/* Rows of a block: of `wide` elements from column `column` on, of a matrix of rows x columns with a row pitch. */
static inline void fetch_block(uint to, const __global ushort *from, long pitch, int row, int column, int rows, int columns,
                               int high, int wide, int me)
{
    UNROLL for (int i = 0; i < high * wide / 8 / GROUP; i++)
    {
        int e = i * GROUP + me, r = e / (wide / 8), c = e % (wide / 8), left = columns - (column + c * 8);
        int n = row + r < rows && left > 0 ? min(left, 8) * 2 : 0;
        fetch(to + PLACE(r, c, wide), n ? from + (row + r) * pitch + column + c * 8 : from, n);
    }
}

#define FETCH(slot, k0)                                                                                                \
    {                                                                                                                  \
        uint to = base + (slot)*STAGE_BYTES;                                                                           \
        if (A_ALONG_M)                                                                                                 \
            fetch_block(to, pa, a_col, k0, m0, k, m, TK, TM, me);                                                      \
        else                                                                                                           \
            fetch_block(to, pa, a_row, m0, k0, m, k, TM, TK, me);                                                      \
        if (B_ALONG_K)                                                                                                 \
            fetch_block(to + A_BYTES, pb, b_col, n0, k0, n, k, TN, TK, me);                                            \
        else                                                                                                           \
            fetch_block(to + A_BYTES, pb, b_row, k0, n0, k, n, TK, TN, me);                                            \
    }

/* What a warp multiplies next: 16 along k from 16 q on. */
#define TAKE(fa, fb, q)                                                                                                \
    {                                                                                                                  \
        UNROLL for (int i = 0; i < MI; i++)                                                                            \
        {                                                                                                              \
            if (A_ALONG_M)                                                                                             \
                LOAD_MATRICES(fa[i], ".trans",                                                                         \
                              at + PLACE((q)*16 + (lane & 7) + (lane >> 4 << 3),                                       \
                                         (wm * WM + 16 * i) / 8 + (lane >> 3 & 1), TM));                               \
            else                                                                                                       \
                LOAD_MATRICES(fa[i], "", at + PLACE(wm * WM + 16 * i + (lane & 15), (q)*2 + (lane >> 4), TK));         \
        }                                                                                                              \
        UNROLL for (int j = 0; j < NI / 2; j++)                                                                        \
        {                                                                                                              \
            if (B_ALONG_K)                                                                                             \
                LOAD_MATRICES((fb + 4 * j), "",                                                                        \
                              bt + PLACE(wn * WN + 16 * j + (lane & 7) + (lane >> 4 << 3), (q)*2 + (lane >> 3 & 1), TK)); \
            else                                                                                                       \
                LOAD_MATRICES((fb + 4 * j), ".trans",                                                                  \
                              bt + PLACE((q)*16 + (lane & 15), (wn * WN + 16 * j) / 8 + (lane >> 4), TN));             \
        }                                                                                                              \
    }

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void gemm(MATRICES, int m, int n, int k, FACTORS)
{
    OPEN;
    __local uchar blocks[STAGES * STAGE_BYTES] __attribute__((aligned(128)));
    const uint base = (uint)(ulong)blocks;
    const __global ushort *pa = (const __global ushort *)a, *pb = (const __global ushort *)b;
    const int me = get_local_id(0), lane = me & 31, wm = me >> 5 & 1, wn = me >> 6;
    const int down = (m + TM - 1) / TM, across = (n + TN - 1) / TN, steps = (k + TK - 1) / TK;
    const int tile = get_group_id(0), band = tile / (TILES_DOWN * across), rest = tile - band * TILES_DOWN * across;
    const int high = min(TILES_DOWN, down - band * TILES_DOWN);
    const int m0 = (band * TILES_DOWN + rest % high) * TM, n0 = rest / high * TN;

    float acc[MI][NI][4];
    UNROLL for (int i = 0; i < MI; i++)
        UNROLL for (int j = 0; j < NI; j++)
            UNROLL for (int e = 0; e < 4; e++) acc[i][j][e] = 0;

    UNROLL for (int s = 0; s < STAGES - 1; s++)
    {
        if (s < steps)
            FETCH(s, s * TK)
        __asm__ volatile("cp.async.commit_group;" ::: "memory");
    }
    int slot = 0, next = STAGES - 1;
    for (int s = 0; s < steps; s++) {
        __asm__ volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        barrier(CLK_LOCAL_MEM_FENCE);
        if (s + STAGES - 1 < steps)
            FETCH(next, (s + STAGES - 1) * TK)
        __asm__ volatile("cp.async.commit_group;" ::: "memory");
        const uint at = base + slot * STAGE_BYTES, bt = at + A_BYTES;
        uint fa[2][MI][4], fb[2][2 * NI];
        TAKE(fa[0], fb[0], 0)
        UNROLL for (int q = 0; q < TK / 16; q++)
        {
            if (q + 1 < TK / 16)
                TAKE(fa[(q + 1) & 1], fb[(q + 1) & 1], q + 1)
            UNROLL for (int i = 0; i < MI; i++)
                UNROLL for (int j = 0; j < NI; j++) MMA(acc[i][j], fa[q & 1][i], fb[q & 1][2 * j], fb[q & 1][2 * j + 1]);
        }
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
    }

    UNROLL for (int i = 0; i < MI; i++)
        UNROLL for (int j = 0; j < NI; j++)
            UNROLL for (int e = 0; e < 4; e++)
            {
                int row = m0 + wm * WM + 16 * i + (lane >> 2) + (e >> 1) * 8, col = n0 + wn * WN + 8 * j + (lane & 3) * 2 + (e & 1);
                if (row >= m || col >= n)
                    continue;
                float t = acc[i][j][e] * alpha;
                if (add)
                    t = fma(beta, LOAD(d, row * d_row + col * d_col), t);
                STORE(c, row * c_row + col * c_col, t);
            }
}
