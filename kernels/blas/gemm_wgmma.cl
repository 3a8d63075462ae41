/* Matrix product on the tensor cores of NVIDIA's compute capability 9.0 (kernels/hopper.cl): C = alpha A B + beta D, sums
 * in f32, of bf16 or f16; or of f32 whose elements are two f16 each (parts.cl).
 *
 * A group makes blocks of TM x TN of C, one after another. One warp group of it has the copy engine bring blocks of 64
 * along k of A and B, STAGES ahead; each of the others, TM / 64, multiplies 64 rows. C goes through local memory, so that
 * it is written in rows.
 *
 * Given: D, S, FLOAT as in product.cl; TM, TN, STAGES; HELD: TN / 2; A_ALONG_M: A's neighbours are along m, else along k;
 * B_ALONG_N: B's along n, else along k; those begin at multiples of 16 bytes; c_col is 1. SPLIT: A and B are f32's parts,
 * m (n) rows of the high ones and as many of the low ones below, a_row (b_col) apart; the tensor core's sums are cut off,
 * not rounded, so that after FLUSH blocks they are added to others. Pairs of lines that parts.cl refuses get values that
 * mean nothing: gemm_gpu.cl computes those. FEW: C has few columns, and what counts is that A is read once, by all: k is
 * shared out among get_num_groups(1) groups, `part` blocks each, whose sums go to `parts` for gemv.cl's gemv_sum. IMAGES:
 * A's rows (1), or B's columns (2), are pixels (images.cl), and so C's; the other operand's lie along k. */
#include "kernels/blas/product.cl"
#include "kernels/hopper.cl"
#if IMAGES
#include "kernels/images.cl"
#endif

#ifndef TM
#define TM 128
#define TN 192
#define HELD 96
#define STAGES 4
#define A_ALONG_M 0
#define B_ALONG_N 0
#define IMAGES 0
#endif

#ifdef SPLIT
#include "kernels/parts.cl"
#define TYPE "f16"
#define MAP_TYPE MAP_F16
#define PARTS 2
/* The products of two blocks along k: those with a low part first, while the sums are small and lose little by being cut
 * off, then high by high. Low by low is below the last place. */
#define FLUSH 6
#define STEPS ((blocks_of_k + 1) / 2 * FLUSH)
#define BLOCK(step) ((step) / FLUSH * 2 + ((step) % FLUSH < 4 ? (step) % FLUSH / 2 : (step) % FLUSH - 4))
#define LOW_A(step) ((step) % FLUSH < 4 && (step) % 2 == 1)
#define LOW_B(step) ((step) % FLUSH < 4 && (step) % 2 == 0)
#define PIECE uint
#define ELEMENT(u, e) u[e]
#else
#define TYPE TYPE_OF(D)
#define MAP_TYPE MAP_TYPE_OF(D)
#define PARTS 1
#define STEPS blocks_of_k
#define BLOCK(step) (step)
#define LOW_A(step) 0
#define LOW_B(step) 0
#define PIECE ushort
#define ELEMENT(u, e) (ushort)(u[(e) >> 1] >> ((e)&1) * 16)
#endif

#define UNROLL _Pragma("unroll")
#define WARP_GROUPS (TM / 64)
#define A_BYTES (TM * 128)
#define STAGE_BYTES (A_BYTES + TN * 128)
#define CHUNK_BYTES 8192 /* of C on its way: 64 rows of 128 bytes, two of them for each warp group */
#ifdef FEW
#define OUT_BYTES 0
#define GIVE_REGISTERS
#define TAKE_REGISTERS
#else
#define OUT_BYTES (WARP_GROUPS * 2 * CHUNK_BYTES)
#define GIVE_REGISTERS REGISTERS_DOWN(24)
#define TAKE_REGISTERS REGISTERS_UP(240)
#endif
#define WIDE (128 / (int)sizeof(MEM))
#define DOWN 16 /* blocks of C that share columns of B in the cache: so many rows of blocks, column by column */

/* Of C's pixels a warp group keeps where they are and the exponents of their images. */
#define IMAGE_LINES ((const __global int4 *)((IMAGES == 1 ? a : b) + g.images * g.apart_n)) /* behind the parts */
#define PIXELS (IMAGES == 1 ? 64 : TN)
#if IMAGES
#define PIXELS_BYTES (WARP_GROUPS * PIXELS * PARTS * 4)
#else
#define PIXELS_BYTES 0
#endif
#define BOX(m0, n0) images_box(&g, (IMAGES == 1 ? (m0) / TM : (n0) / TN))
#define TILE                                                                                                           \
    const int batch = tile / tiles, here = tile - batch * tiles, band = here / (DOWN * across),                        \
              rest = here - band * DOWN * across, high = min(DOWN, down - band * DOWN),                                \
              m0 = (band * DOWN + rest % high) * TM, n0 = rest / high * TN;

__kernel __attribute__((reqd_work_group_size(128 * (WARP_GROUPS + 1), 1, 1))) void
gemm(MATRICES, GEMS_SHARED_BUFFER(uint, maps),
#ifdef FEW
     GEMS_SHARED_BUFFER(float, parts),
#endif
#if IMAGES
     const images g,
#endif
     int m, int n, int k, int batches, int part, FACTORS)
{
    OPEN;
    GEMS_AT(uint, maps);
    /* One array: what lies before an aligned one would take as much more. */
    __local uchar blocks[STAGES * STAGE_BYTES + OUT_BYTES + PIXELS_BYTES + STAGES * 16] __attribute__((aligned(1024)));
    const uint base = IN_LOCAL(blocks), full = base + STAGES * STAGE_BYTES + OUT_BYTES + PIXELS_BYTES,
               empty = full + STAGES * 8;
    const int me = get_local_id(0), role = me >> 7;
#if IMAGES
    const int down = IMAGES == 1 ? g.boxes : (m + TM - 1) / TM, across = IMAGES == 2 ? g.boxes : (n + TN - 1) / TN;
    const uint bytes = (IMAGES == 1 ? TN * 128 : A_BYTES) + images_lines(&g) * 128;
#else
    const int down = (m + TM - 1) / TM, across = (n + TN - 1) / TN;
    const uint bytes = STAGE_BYTES;
#endif
    const int tiles = down * across;
    const int blocks_of_k = (k + 63) / 64, steps = STEPS, from = get_group_id(1) * part,
              end = min(from + part, steps);
    if (me == 0) {
        for (int i = 0; i < STAGES; i++) {
            bar_init(full + 8 * i, 1);
            bar_init(empty + 8 * i, WARP_GROUPS);
        }
        bar_init_done();
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    uint s = 0, phase = 0;
    if (role == 0) {
        GIVE_REGISTERS;
        if (me == 0) {
            __global uint *map_a = maps + (get_group_id(1) * get_num_groups(0) + get_group_id(0)) * 2 * MAP_WORDS, *map_b = map_a + MAP_WORDS;
            const uint many_a = a_batch ? batches : 1, many_b = b_batch ? batches : 1; /* 0: one for all */
            const ulong apart_a = a_batch * sizeof(MEM), apart_b = b_batch * sizeof(MEM);
#if IMAGES == 1
            images_map(map_a, &g, (ulong)a, MAP_TYPE, PARTS);
#else
            if (A_ALONG_M)
                map_write(map_a, 3, (ulong)a, MAP_TYPE, (uint4)(m, k, many_a, 1), (ulong3)(a_col * 2, apart_a, 0), 64);
            else
                map_write(map_a, 3, (ulong)a, MAP_TYPE, (uint4)(k, m * PARTS, many_a, 1), (ulong3)(a_row * 2, apart_a, 0), TM);
#endif
#if IMAGES == 2
            images_map(map_b, &g, (ulong)b, MAP_TYPE, PARTS);
#else
            if (B_ALONG_N)
                map_write(map_b, 3, (ulong)b, MAP_TYPE, (uint4)(n, k, many_b, 1), (ulong3)(b_row * 2, apart_b, 0), 64);
            else
                map_write(map_b, 3, (ulong)b, MAP_TYPE, (uint4)(k, n * PARTS, many_b, 1), (ulong3)(b_col * 2, apart_b, 0), TN);
#endif
            for (int tile = get_group_id(0); tile < tiles * batches; tile += get_num_groups(0)) {
                TILE
                const int batch_a = a_batch ? batch : 0, batch_b = b_batch ? batch : 0;
#if IMAGES
                const int3 box = BOX(m0, n0);
#endif
                for (int step = from; step < end; step++) {
                    const int k0 = BLOCK(step) * 64;
                    const uint to = base + s * STAGE_BYTES, bar = full + 8 * s;
                    bar_wait(empty + 8 * s, phase ^ 1);
                    bar_expect(bar, bytes);
#if IMAGES == 1
                    images_fetch(to, map_a, bar, &g, box, BLOCK(step), LOW_A(step));
#else
                    if (A_ALONG_M) {
                        UNROLL for (int i = 0; i < WARP_GROUPS; i++)
                            map_fetch(to + CHUNK_BYTES * i, map_a, bar, m0 + 64 * i, k0, batch_a);
                    } else
                        map_fetch(to, map_a, bar, k0, m0 + (LOW_A(step) ? m : 0), batch_a);
#endif
#if IMAGES == 2
                    images_fetch(to + A_BYTES, map_b, bar, &g, box, BLOCK(step), LOW_B(step));
#else
                    if (B_ALONG_N) {
                        UNROLL for (int i = 0; i < TN / 64; i++)
                            map_fetch(to + A_BYTES + CHUNK_BYTES * i, map_b, bar, n0 + 64 * i, k0, batch_b);
                    } else
                        map_fetch(to + A_BYTES, map_b, bar, k0, n0 + (LOW_B(step) ? n : 0), batch_b);
#endif
                    if (++s == STAGES)
                        s = 0, phase ^= 1;
                }
            }
        }
        return;
    }

    TAKE_REGISTERS;
    const int wg = role - 1, t = me & 127, lane = t & 31, first = (t >> 5) * 16 + (lane >> 2), column = (lane & 3) * 2;
    const uint out = base + STAGES * STAGE_BYTES + wg * 2 * CHUNK_BYTES;
#if IMAGES
    __local int *places = (__local int *)(blocks + STAGES * STAGE_BYTES + OUT_BYTES) + wg * PIXELS * PARTS,
                *exponents = places + PIXELS;
#endif
    for (int tile = get_group_id(0); tile < tiles * batches; tile += get_num_groups(0)) {
        TILE
#if IMAGES
        group_bar(1 + wg, 128); /* nobody needs the last block's any more */
        const int3 box = BOX(m0, n0);
        for (int i = t; i < PIXELS; i += 128) {
            const int2 place = images_place(&g, box, IMAGES == 1 ? wg * 64 + i : i);
            places[i] = place.x;
#ifdef SPLIT
            exponents[i] = IMAGE_LINES[place.y].x;
#endif
        }
        group_bar(1 + wg, 128);
#endif
        float sum[HELD];
        UNROLL for (int i = 0; i < HELD; i++)
            sum[i] = 0;
#ifdef SPLIT
        float total[HELD];
        UNROLL for (int i = 0; i < HELD; i++)
            total[i] = 0;
        int since = 0; /* the last flush */
#define KEEP(q) (since | (q))
#else
#define KEEP(q) ((step - from) | (q))
#endif
        for (int step = from; step < end; step++) {
            bar_wait(full + 8 * s, phase);
            const uint at = base + s * STAGE_BYTES;
            const ulong left = OPERAND_AT(at + wg * 8192, 0), right = OPERAND_AT(at + A_BYTES, B_ALONG_N ? 8192 : 0);
            WGMMA_BEGIN;
            UNROLL for (int q = 0; q < 4; q++)
                WGMMA(TN, HELD, TYPE, sum, left + (A_ALONG_M ? 128 : 2) * q, A_ALONG_M, right + (B_ALONG_N ? 128 : 2) * q,
                      B_ALONG_N, KEEP(q));
            WGMMA_COMMIT;
            WGMMA_WAIT(1); /* the step before this one has been read */
            if (step > from && t == 0)
                bar_arrive(empty + 8 * (s ? s - 1 : STAGES - 1));
            if (++s == STAGES)
                s = 0, phase ^= 1;
#ifdef SPLIT
            if (++since == FLUSH) {
                since = 0;
                WGMMA_WAIT(0);
                WGMMA_KEEP(HELD, sum);
                UNROLL for (int i = 0; i < HELD; i++)
                    total[i] += sum[i];
                WGMMA_KEEP(HELD, sum);
            }
#endif
        }
#if !defined SPLIT && !defined FEW
        const bool one_line = add && d_row == 0;
        __local float *line_of_d = (__local float *)(blocks + (out - base) + CHUNK_BYTES); /* the second chunk's place */
        if (one_line) { /* while the last products are made */
            group_bar(1 + wg, 128);
            for (int i = t; i < TN; i += 128)
                line_of_d[i] = n0 + i < n ? LOAD(d, batch * d_batch + (n0 + i) * d_col) : 0;
        }
#endif
        WGMMA_WAIT(0);
        WGMMA_KEEP(HELD, sum);
        if (from < end && t == 0)
            bar_arrive(empty + 8 * (s ? s - 1 : STAGES - 1));

        const int row = m0 + wg * 64 + first;
#ifdef SPLIT
        const __global int4 *rows = (const __global int4 *)(a + batches * a_batch) + (long)batch * m, /* behind the parts */
                            *columns = (const __global int4 *)(b + batches * b_batch) + (long)batch * n;
#if IMAGES == 1
#define EXPONENT_A(more) exponents[first + (more)]
#else
#define EXPONENT_A(more) rows[min(row + (more), m - 1)].x
#endif
#if IMAGES == 2
#define EXPONENT_B(c0) exponents[c0]
#else
#define EXPONENT_B(c0) columns[min(n0 + (c0), n - 1)].x
#endif
        const int x0 = EXPONENT_A(0), x1 = EXPONENT_A(8);
        UNROLL for (int i = 0; i < HELD; i += 4)
            UNROLL for (int e = 0; e < 2; e++)
            {
                const int y = EXPONENT_B(i * 2 + column + e);
                sum[i + e] = parts_scaled(total[i + e], parts_exponent(x0, y));
                sum[i + e + 2] = parts_scaled(total[i + e + 2], parts_exponent(x1, y));
            }
#endif
#ifdef FEW
        GEMS_AT(float, parts);
        __global float *to_parts = parts + ((long)get_group_id(1) * batches + batch) * m * n;
        UNROLL for (int i = 0; i < HELD; i++)
        {
            const int r = row + (i & 2) * 4, c0 = n0 + (i >> 2) * 8 + column + (i & 1);
            if (r < m && c0 < n)
                to_parts[(long)r * n + c0] = sum[i];
        }
#else
        UNROLL for (int i = 0; i < HELD; i++)
            sum[i] *= alpha;
#ifndef SPLIT
        if (one_line) {
            group_bar(1 + wg, 128);
            UNROLL for (int i = 0; i < HELD; i++)
                sum[i] = fma(beta, line_of_d[(i >> 2) * 8 + column + (i & 1)], sum[i]);
        } else if (add && d_col == 0) {
            const float d0 = row < m ? LOAD(d, batch * d_batch + row * d_row) : 0,
                        d1 = row + 8 < m ? LOAD(d, batch * d_batch + (row + 8) * d_row) : 0;
            UNROLL for (int i = 0; i < HELD; i++)
                sum[i] = fma(beta, i & 2 ? d1 : d0, sum[i]);
        } else if (add)
            UNROLL for (int i = 0; i < HELD; i++)
            {
                const int r = row + (i & 2) * 4, c0 = n0 + (i >> 2) * 8 + column + (i & 1);
                if (r < m && c0 < n)
                    sum[i] = fma(beta, LOAD(d, batch * d_batch + r * d_row + c0 * d_col), sum[i]);
            }
#endif
        /* Chunks of C: each work-item's elements to local memory, then rows of 128 bytes from there. */
        UNROLL for (int chunk = 0; chunk < TN / WIDE; chunk++)
        {
            const uint to = out + (chunk & 1) * CHUNK_BYTES;
#ifdef SPLIT
            UNROLL for (int j = 0; j < 4; j++)
            {
                const int q = chunk * 16 + j * 4;
                const uint place = to + first * 128 + (((2 * j + ((lane & 3) >> 1)) ^ (first & 7)) << 4) + (lane & 1) * 8;
                __asm__ volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(place), "f"(sum[q]), "f"(sum[q + 1]) : "memory");
                __asm__ volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(place + 1024), "f"(sum[q + 2]), "f"(sum[q + 3])
                                 : "memory");
            }
#else
            UNROLL for (int j = 0; j < 8; j++)
            {
                const int q = chunk * 32 + j * 4;
                const uint place = to + first * 128 + ((j ^ (first & 7)) << 4) + (lane & 3) * 4;
                const uint upper = TWO_OF(D)(sum[q], sum[q + 1]), lower = TWO_OF(D)(sum[q + 2], sum[q + 3]);
                __asm__ volatile("st.shared.b32 [%0], %1;" ::"r"(place), "r"(upper) : "memory");
                __asm__ volatile("st.shared.b32 [%0], %1;" ::"r"(place + 1024), "r"(lower) : "memory");
            }
#endif
            group_bar(1 + wg, 128);
            _Pragma("unroll 1") for (int i = 0; i < 4; i++) /* or the chunks' loads would all be held in registers */
            {
                const int r0 = i * 16 + (t >> 3), piece = t & 7, r = m0 + wg * 64 + r0,
                          c0 = n0 + chunk * WIDE + piece * (WIDE / 8);
                uint4 v;
                __asm__ volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                                 : "r"(to + r0 * 128 + ((piece ^ (r0 & 7)) << 4))
                                 : "memory");
#if IMAGES == 1
                const int place = places[r0];
                if (place < 0 || c0 >= n)
                    continue;
#elif IMAGES == 2
                const __local int *place = places + (c0 - n0);
                if (r >= m)
                    continue;
#else
                if (r >= m || c0 >= n)
                    continue;
#endif
#ifdef SPLIT
                if (add) {
                    const long at_d = batch * d_batch + r * d_row + c0 * d_col;
                    v.x = as_uint(fma(beta, LOAD(d, at_d), as_float(v.x)));
                    if (c0 + 1 < n)
                        v.y = as_uint(fma(beta, LOAD(d, at_d + d_col), as_float(v.y)));
                    if (c0 + 2 < n)
                        v.z = as_uint(fma(beta, LOAD(d, at_d + 2 * d_col), as_float(v.z)));
                    if (c0 + 3 < n)
                        v.w = as_uint(fma(beta, LOAD(d, at_d + 3 * d_col), as_float(v.w)));
                }
#endif
#if IMAGES == 1
#define TO_C(e) (place + c0 + (e))
#define IS_THERE(e) (c0 + (e) < n)
#define IN_A_ROW (c0 + WIDE / 8 <= n)
#elif IMAGES == 2
#define TO_C(e) (r * c_row + place[e])
#define IS_THERE(e) (place[e] >= 0)
#define IN_A_ROW (place[0] >= 0 && place[WIDE / 8 - 1] - place[0] == WIDE / 8 - 1) /* they ascend */
#else
#define TO_C(e) (batch * c_batch + r * c_row + c0 + (e))
#define IS_THERE(e) (c0 + (e) < n)
#define IN_A_ROW (c0 + WIDE / 8 <= n)
#endif
                __global PIECE *to_c = (__global PIECE *)c;
                const uint odd = (ulong)(to_c + TO_C(0)) & 15;
                if (IN_A_ROW && odd == 0)
                    *(__global uint4 *)(to_c + TO_C(0)) = v;
                else if (IN_A_ROW && odd == 8) {
                    *(__global uint2 *)(to_c + TO_C(0)) = v.xy;
                    *(__global uint2 *)(to_c + TO_C(WIDE / 16)) = v.zw;
                } else {
                    const uint u[4] = {v.x, v.y, v.z, v.w};
                    UNROLL for (int e = 0; e < WIDE / 8; e++)
                        if (IS_THERE(e))
                            to_c[TO_C(e)] = ELEMENT(u, e);
                }
            }
        }
#endif
    }
}
