/* Attention of f32 on the tensor cores of NVIDIA's compute capability 9.0: attention_wgmma.cl's steps, of the parts that
 * split.cl makes (parts.cl). Weights are split in registers. A product is three: low by high, high by low, then high by
 * high, since the tensor core's sums are cut off, not rounded, and lose little while they are small; for the same reason
 * each block's weighted values are summed on their own, and then added. Heads with a block that has no parts get values
 * that mean nothing.
 *
 * Given: D, MD; HEAD, the head size rounded up to a multiple of 64; BQ, 64 or 128; BK, also parts.cl's PART_ROWS; HELD,
 * HEAD / 2; SCORES, BK / 2; WORDS, BK / 4; STAGES; MASKED where there is a mask. Scale is positive. */
#include "kernels/attention/attention.cl"

#ifndef HEAD
#define HEAD 128
#define BQ 128
#define BK 64
#define HELD 64
#define SCORES 32
#define WORDS 16
#define STAGES 2
#endif
#define PART_ROWS BK
#include "kernels/attention/parts.cl"
#include "kernels/attention/tiles.cl"

#define LN_2 0.693147181f
#define CHUNKS (HEAD / 64)     /* of 64 columns, one after another in local memory */
#define Q_BYTES (BQ * HEAD * 2) /* of high parts; low ones follow */
#define K_BYTES (BK * HEAD * 2)
#define P_TOP 15 /* weights are split times 2^15 */

INLINE float power(int exponent) { return as_float((uint)(127 + exponent) << 23); }

/* Scores of 64 queries and a block of keys: begun. */
INLINE void begin_scores(float *s, uint q_at, uint k_at)
{
    const ulong q_high = OPERAND_AT(q_at, 0), q_low = OPERAND_AT(q_at + Q_BYTES, 0), k_high = OPERAND_AT(k_at, 0),
                k_low = OPERAND_AT(k_at + K_BYTES, 0);
    WGMMA_KEEP(SCORES, s);
    WGMMA_BEGIN;
    UNROLL for (int i = 0; i < HEAD / 16; i++)
    {
        const int left = i / 4 * (BQ * 8) + i % 4 * 2, right = i / 4 * (BK * 8) + i % 4 * 2;
        WGMMA(BK, SCORES, "f16", s, q_low + left, 0, k_high + right, 0, i > 0);
        WGMMA(BK, SCORES, "f16", s, q_high + left, 0, k_low + right, 0, 1);
    }
    UNROLL for (int i = 0; i < HEAD / 16; i++)
        WGMMA(BK, SCORES, "f16", s, q_high + i / 4 * (BQ * 8) + i % 4 * 2, 0, k_high + i / 4 * (BK * 8) + i % 4 * 2, 0, 1);
    WGMMA_COMMIT;
}

/* Weights times a block of values: begun. */
INLINE void begin_values(float *f, uint *high, uint *low, uint v_at)
{
    const ulong v_high = OPERAND_AT(v_at, BK * 128), v_low = OPERAND_AT(v_at + K_BYTES, BK * 128);
    WGMMA_KEEP_BITS(WORDS, high);
    WGMMA_KEEP_BITS(WORDS, low);
    WGMMA_KEEP(HELD, f);
    WGMMA_BEGIN;
    UNROLL for (int i = 0; i < BK / 16; i++)
    {
        WGMMA_HELD(HEAD, HELD, "f16", f, low[4 * i], low[4 * i + 1], low[4 * i + 2], low[4 * i + 3], v_high + i * 128, 1,
                   i > 0);
        WGMMA_HELD(HEAD, HELD, "f16", f, high[4 * i], high[4 * i + 1], high[4 * i + 2], high[4 * i + 3], v_low + i * 128,
                   1, 1);
    }
    UNROLL for (int i = 0; i < BK / 16; i++)
        WGMMA_HELD(HEAD, HELD, "f16", f, high[4 * i], high[4 * i + 1], high[4 * i + 2], high[4 * i + 3], v_high + i * 128,
                   1, 1);
    WGMMA_COMMIT;
}

/* Masked scores are at their size, and `most` of them; others lack the factor `by` to powers of two, which is their block's,
 * and `most` has it. */
#ifdef MASKED
#define SIZE(s) (s)
#define POWER(s, base) (((s) - (base)) * LOG2_E)
#define IN_NATURAL(most) (most)
#else
#define SIZE(s) ((s)*by)
#define POWER(s, base) fma(s, by, -(base))
#define IN_NATURAL(most) ((most)*LN_2)
#endif

/* Weights from scores. */
INLINE void weigh(float *s, rows *r, float by)
{
    UNROLL for (int e = 0; e < 2; e++)
    {
        float most = -INFINITY, sum = 0;
        UNROLL for (int i = 2 * e; i < SCORES; i += 4)
            most = fmax(most, fmax(s[i], s[i + 1]));
        most = fmax(r->most[e], SIZE(most));
        most = fmax(most, from_lane_f(most, 1));
        most = fmax(most, from_lane_f(most, 2));
        const float base = most == -INFINITY ? 0 : most; /* no key seen yet */
#ifdef MASKED
        r->down[e] = exp2_fast(POWER(r->most[e], base));
#else
        r->down[e] = exp2_fast(r->most[e] - base);
#endif
        r->most[e] = most;
        UNROLL for (int i = 2 * e; i < SCORES; i += 4)
        {
            s[i] = exp2_fast(POWER(s[i], base));
            s[i + 1] = exp2_fast(POWER(s[i + 1], base));
            sum += s[i] + s[i + 1];
        }
        r->total[e] = fma(r->total[e], r->down[e], sum);
    }
}

INLINE void split_weights(const float *s, uint *high, uint *low)
{
    UNROLL for (int i = 0; i < WORDS; i++)
    {
        const float x = s[2 * i] * (1 << P_TOP), y = s[2 * i + 1] * (1 << P_TOP);
        high[i] = two_f16(x, y);
        low[i] = two_f16(x - low_f16(high[i]), y - high_f16(high[i]));
    }
}

/* What TILE takes, made anew for each tile rather than held in registers during the one before. */
#define TILE_AGAIN                                                                                                     \
    const int lines = batches * again(heads), blocks = (again(queries) + BQ - 1) / BQ, all_steps = BLOCKS(again(keys));

__kernel __attribute__((reqd_work_group_size(128 * (WARP_GROUPS + 1), 1, 1))) void
attention(ARGS, GEMS_SHARED_BUFFER(ushort, parts), GEMS_SHARED_BUFFER(const int, notes), int pitch,
          GEMS_SHARED_BUFFER(uint, maps), int batches, int heads)
{
    OPEN;
    GEMS_AT(ushort, parts);
    GEMS_AT(const int, notes);
    GEMS_AT(uint, maps);
    __local uchar room[2 * Q_BYTES + 4 * STAGES * K_BYTES] __attribute__((aligned(1024)));
    __local ulong bars[2 + 4 * STAGES] __attribute__((aligned(16)));
    /* What scores and values of a block are to be multiplied by. Kept for twice the stages: a warp may be late to read it,
     * but not by as much. */
    __local float by_scores[2 * STAGES][WARP_GROUPS], by_values[2 * STAGES];
    const uint room_q = IN_LOCAL(room), room_k = room_q + 2 * Q_BYTES, room_v = room_k + 2 * STAGES * K_BYTES;
    const uint q_full = IN_LOCAL(bars), q_empty = q_full + 8, k_full = q_full + 16, k_empty = k_full + 8 * STAGES,
               v_full = k_empty + 8 * STAGES, v_empty = v_full + 8 * STAGES;
    const int me = get_local_id(0), role = me >> 7;
    const int key_heads = heads / share, lines = batches * heads, key_lines = batches * key_heads;
    const int blocks = (queries + BQ - 1) / BQ, all_steps = BLOCKS(keys), tiles = blocks * lines;
    INIT_BARS

    uint s_at = 0, phase = 0, q_phase = 0;
    if (role == 0) {
#if WARP_GROUPS > 1
        REGISTERS_DOWN(40);
#endif
        if (me == 0) {
            __global uint *map_q = maps + get_group_id(0) * 3 * MAP_WORDS, *map_k = map_q + MAP_WORDS,
                          *map_v = map_k + MAP_WORDS;
            const __global int *all_notes_k = notes + lines * BLOCKS(queries), *all_notes_v = all_notes_k + key_lines * all_steps;
            const ulong row = pitch * 2, of_q = row * queries, of_k = row * keys; /* bytes */
            const ulong at_k = (ulong)parts + 2 * of_q * lines, at_v = at_k + 2 * of_k * key_lines;
            map_write(map_q, 4, (ulong)parts, MAP_F16, (uint4)(pitch, queries, 2, lines), (ulong3)(row, of_q, 2 * of_q), BQ);
            map_write(map_k, 4, at_k, MAP_F16, (uint4)(pitch, keys, 2, key_lines), (ulong3)(row, of_k, 2 * of_k), BK);
            map_write(map_v, 4, at_v, MAP_F16, (uint4)(pitch, keys, 2, key_lines), (ulong3)(row, of_k, 2 * of_k), BK);
            for (int tile = get_group_id(0); tile < tiles; tile += get_num_groups(0)) {
                TILE
                const int key_line = z * key_heads + h / share;
                const __global int *notes_k = all_notes_k + key_line * all_steps, *notes_v = all_notes_v + key_line * all_steps;
                int note_k = notes_k[steps - 1], note_v = notes_v[steps - 1], note_q[WARP_GROUPS];
                UNROLL for (int i = 0; i < WARP_GROUPS; i++)
                    note_q[i] = notes[line * BLOCKS(queries) + min(first + i * 64, queries - 1) / PART_ROWS];
                bar_wait(q_empty, q_phase ^ 1);
                q_phase ^= 1;
                bar_expect(q_full, 2 * Q_BYTES);
                UNROLL for (int c = 0; c < 2 * CHUNKS; c++)
                    map_fetch4(room_q + c * BQ * 128, map_q, q_full, c % CHUNKS * 64, first, c / CHUNKS, line);
                for (int j = steps - 1; j >= 0; j--) {
                    const uint k_to = room_k + s_at * 2 * K_BYTES, v_to = room_v + s_at * 2 * K_BYTES;
                    const int next_k = notes_k[max(j - 1, 0)], next_v = notes_v[max(j - 1, 0)]; /* one ahead */
                    bar_wait(k_empty + 8 * s_at, phase ^ 1);
                    UNROLL for (int i = 0; i < WARP_GROUPS; i++)
                        by_scores[s_at + STAGES * phase][i] = power(parts_exponent(note_q[i], note_k));
                    bar_expect(k_full + 8 * s_at, 2 * K_BYTES);
                    UNROLL for (int c = 0; c < 2 * CHUNKS; c++)
                        map_fetch4(k_to + c * BK * 128, map_k, k_full + 8 * s_at, c % CHUNKS * 64, j * BK, c / CHUNKS,
                                   key_line);
                    bar_wait(v_empty + 8 * s_at, phase ^ 1);
                    by_values[s_at + STAGES * phase] = power(note_v - PARTS_TOP - P_TOP);
                    bar_expect(v_full + 8 * s_at, 2 * K_BYTES);
                    UNROLL for (int c = 0; c < 2 * CHUNKS; c++)
                        map_fetch4(v_to + c * BK * 128, map_v, v_full + 8 * s_at, c % CHUNKS * 64, j * BK, c / CHUNKS,
                                   key_line);
                    note_k = next_k, note_v = next_v;
                    NEXT_STAGE
                }
            }
        }
        return;
    }

#if WARP_GROUPS > 1
    REGISTERS_UP(232);
#endif
    const int t = me & 127;
    for (int tile = get_group_id(0); tile < tiles; tile += get_num_groups(0)) {
        TILE_AGAIN
        TILE
        const int lane = me & 31, row = first + (me >> 5) * 16 - 64 + (lane >> 2), column = (lane & 3) * 2;
        float s[SCORES], o[HELD], f[HELD];
        uint high[WORDS], low[WORDS];
        rows r = {{-INFINITY, -INFINITY}, {0, 0}, {1, 1}};
        UNROLL for (int i = 0; i < HELD; i++)
            o[i] = f[i] = 0;
        UNROLL for (int i = 0; i < SCORES; i++)
            s[i] = 0;
#ifdef MASKED
        const float factor = scale;
        const __global MASK *mask0 = mask + z * m0 + h * m1 + min(row, queries - 1) * m2,
                            *mask1 = mask + z * m0 + h * m1 + min(row + 8, queries - 1) * m2;
#define ADD_MASK(j)                                                                                                    \
    UNROLL for (int i = 0; i < SCORES; i += 4) UNROLL for (int e = 0; e < 2; e++)                                      \
    {                                                                                                                  \
        const int at = min((j)*BK + column + 2 * i + e, keys - 1);                                                     \
        s[i + e] = fma(s[i + e], by, (float)GEMS_CAT(load_, MD)(mask0, at * m3));                                      \
        s[i + 2 + e] = fma(s[i + 2 + e], by, (float)GEMS_CAT(load_, MD)(mask1, at * m3));                              \
    }
#else
        const float factor = scale * LOG2_E;
#define ADD_MASK(j)
#endif
#define ADD_VALUES                                                                                                     \
    WGMMA_WAIT(0);                                                                                                     \
    WGMMA_KEEP(HELD, f);                                                                                               \
    WGMMA_KEEP_BITS(WORDS, high);                                                                                      \
    WGMMA_KEEP_BITS(WORDS, low);                                                                                       \
    const float by_v = by_values[before + STAGES * phase_before];                                                                              \
    if (t == 0)                                                                                                        \
        bar_arrive(v_empty + 8 * before);                                                                              \
    UNROLL for (int i = 0; i < HELD; i++) o[i] = fma(f[i], by_v, o[i]);
        bar_wait(q_full, q_phase);
        q_phase ^= 1;
        bar_wait(k_full + 8 * s_at, phase);
        begin_scores(s, room_q + (again(me) / 128 - 1) * 8192, room_k + s_at * 2 * K_BYTES);
        WGMMA_WAIT(0);
        WGMMA_KEEP(SCORES, s);
        float by = factor * by_scores[s_at + STAGES * phase][again(me) / 128 - 1];
        if (t == 0) {
            bar_arrive(k_empty + 8 * s_at);
            if (steps == 1)
                bar_arrive(q_empty);
        }
        ADD_MASK(steps - 1)
        HIDE(steps - 1)
        weigh(s, &r, by);
        AWAIT_KEYS(steps - 2)
        split_weights(s, high, low);
        for (int j = steps - 2; j >= 0; j--) {
            const uint before = s_at, phase_before = phase;
            NEXT_STAGE
            begin_scores(s, room_q + (again(me) / 128 - 1) * 8192, room_k + s_at * 2 * K_BYTES);
            bar_wait(v_full + 8 * before, phase_before);
            begin_values(f, high, low, room_v + before * 2 * K_BYTES);
            WGMMA_WAIT(1);
            WGMMA_KEEP(SCORES, s);
            by = factor * by_scores[s_at + STAGES * phase][again(me) / 128 - 1];
            if (t == 0) {
                bar_arrive(k_empty + 8 * s_at);
                if (j == 0)
                    bar_arrive(q_empty);
            }
#ifdef MASKED /* there are no registers for masks beside the products */
            ADD_VALUES
            AWAIT_KEYS(j - 1)
#endif
            ADD_MASK(j)
#if BK < BQ /* a tile's last keys are in two blocks */
            if (j == steps - 2)
                HIDE(j)
#endif
            weigh(s, &r, by);
#ifndef MASKED
            AWAIT_KEYS(j - 1)
            WGMMA_KEEP(SCORES, s);
            ADD_VALUES
#endif
            UNROLL for (int i = 0; i < HELD; i++)
                o[i] *= r.down[(i & 2) >> 1];
            split_weights(s, high, low);
        }
        bar_wait(v_full + 8 * s_at, phase);
        begin_values(f, high, low, room_v + s_at * 2 * K_BYTES);
        WGMMA_WAIT(0);
        WGMMA_KEEP(HELD, f);
        const float by_v = by_values[s_at + STAGES * phase];
        if (t == 0)
            bar_arrive(v_empty + 8 * s_at);
        NEXT_STAGE
        const int tile_again = again(tile), me_again = again(me);
        {
            const int tile = tile_again, lane = me_again & 31, column = (lane & 3) * 2;
            TILE_AGAIN
            TILE
            const int row = first + (me_again >> 5) * 16 - 64 + (lane >> 2);
            UNROLL for (int e = 0; e < 2; e++)
            {
                r.total[e] += from_lane_f(r.total[e], 1);
                r.total[e] += from_lane_f(r.total[e], 2);
            }
            UNROLL for (int e = 0; e < 2; e++)
            {
                const float total = r.total[e], up = total == 0 ? 1 : 1 / total;
                if (row + 8 * e >= queries)
                    continue;
                __global float *to = out + z * o0 + h * o1 + (row + 8 * e) * o2 + column;
                const bool is_aligned = ((ulong)to & 7) == 0;
                UNROLL for (int i = 0; i < HEAD / 8; i++)
                {
                    const float x = fma(f[4 * i + 2 * e], by_v, o[4 * i + 2 * e]) * up,
                                y = fma(f[4 * i + 2 * e + 1], by_v, o[4 * i + 2 * e + 1]) * up;
                    if (8 * i + column + 1 < head && is_aligned)
                        *(__global float2 *)(to + 8 * i) = (float2)(x, y);
                    else {
                        if (8 * i + column < head)
                            to[8 * i] = x;
                        if (8 * i + column + 1 < head)
                            to[8 * i + 1] = y;
                    }
                }
                if ((lane & 3) == 0)
                    lse[((long)z * queries + row + 8 * e) * heads + h] =
                        total == 0 ? 0 : IN_NATURAL(r.most[e]) + log(total);
            }
        }
    }
}
