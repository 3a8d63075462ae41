/* Attention of bf16 and f16 on the tensor cores of NVIDIA's compute capability 9.0 (kernels/hopper.cl). After
 * FlashAttention-3 (Shah et al., 2024): one warp group of a group has the copy engine bring queries, keys and values;
 * each of the others takes 64 queries and goes over the keys they see in blocks of BK, the last block first, as only that
 * one is cut off. While it makes weights from the scores of a block, the product of the weights and values before runs.
 *
 * Groups take one tile (BQ queries of one head) after another: heads that share the cache one by one, and of causal ones
 * the tiles with most keys first.
 *
 * Given: D, MD; HEAD, the head size rounded up to a multiple of 64 (what lies beyond it is brought as zeros); BQ, 64 or
 * 128; BK; HELD, HEAD / 2; SCORES, BK / 2; WORDS, BK / 4; STAGES; MASKED where there is a mask. Scale is positive. */
#include "kernels/attention/attention.cl"

#ifndef HEAD
#define HEAD 128
#define BQ 128
#define BK 128
#define HELD 64
#define SCORES 64
#define WORDS 32
#define STAGES 3
#endif
#include "kernels/attention/tiles.cl"

#define TYPE TYPE_OF(D)
#define MAP_TYPE MAP_TYPE_OF(D)
#define TWO TWO_OF(D)

#define CHUNKS (HEAD / 64) /* of 64 columns, one after another in local memory */
#define Q_BYTES (BQ * HEAD * 2)
#define K_BYTES (BK * HEAD * 2)

/* Scores of 64 queries and a block of keys: begun. */
INLINE void begin_scores(float *s, uint q_at, uint k_at)
{
    const ulong left = OPERAND_AT(q_at, 0), right = OPERAND_AT(k_at, 0);
    WGMMA_KEEP(SCORES, s);
    WGMMA_BEGIN;
    UNROLL for (int i = 0; i < HEAD / 16; i++)
        WGMMA(BK, SCORES, TYPE, s, left + i / 4 * (BQ * 8) + i % 4 * 2, 0, right + i / 4 * (BK * 8) + i % 4 * 2, 0, i > 0);
    WGMMA_COMMIT;
}

/* Adds weights times a block of values: begun. */
INLINE void begin_values(float *o, uint *p, uint v_at)
{
    const ulong right = OPERAND_AT(v_at, BK * 128);
    WGMMA_KEEP_BITS(WORDS, p);
    WGMMA_KEEP(HELD, o);
    WGMMA_BEGIN;
    UNROLL for (int i = 0; i < BK / 16; i++)
        WGMMA_HELD(HEAD, HELD, TYPE, o, p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3], right + i * 128, 1, 1);
    WGMMA_COMMIT;
}

/* Weights from scores, by 2^((score - largest) by). */
INLINE void weigh(float *s, rows *r, float by)
{
    UNROLL for (int e = 0; e < 2; e++)
    {
        float most = r->most[e], sum = 0;
        UNROLL for (int i = 2 * e; i < SCORES; i += 4)
            most = fmax(most, fmax(s[i], s[i + 1]));
        most = fmax(most, from_lane_f(most, 1));
        most = fmax(most, from_lane_f(most, 2));
        const float base = most == -INFINITY ? 0 : most; /* no key seen yet */
        r->down[e] = exp2_fast((r->most[e] - base) * by);
        r->most[e] = most;
        UNROLL for (int i = 2 * e; i < SCORES; i += 4)
        {
            s[i] = exp2_fast((s[i] - base) * by);
            s[i + 1] = exp2_fast((s[i + 1] - base) * by);
            sum += s[i] + s[i + 1];
        }
        r->total[e] = fma(r->total[e], r->down[e], sum);
    }
}

/* Of four neighbours: word i of work-item j becomes word j of work-item i. */
INLINE uint4 turn(uint4 w, int lane)
{
    const bool odd = lane & 1, upper = lane & 2;
    const uint x = from_lane(odd ? w.x : w.y, 1), y = from_lane(odd ? w.z : w.w, 1);
    const uint4 v = odd ? (uint4)(x, w.y, y, w.w) : (uint4)(w.x, x, w.z, y);
    const uint2 other = (uint2)(from_lane(upper ? v.x : v.z, 2), from_lane(upper ? v.y : v.w, 2));
    return upper ? (uint4)(other, v.zw) : (uint4)(v.xy, other);
}

/* Eight elements of a row from `column` on. */
INLINE void store_eight(__global ushort *row, int column, int head, uint4 w)
{
    __global ushort *to = row + column;
    if (column + 8 <= head && ((ulong)to & 15) == 0)
        *(__global uint4 *)to = w;
    else {
        const ushort8 x = as_ushort8(w);
        const ushort one[8] = {x.s0, x.s1, x.s2, x.s3, x.s4, x.s5, x.s6, x.s7};
        UNROLL for (int e = 0; e < 8; e++)
            if (column + e < head)
                to[e] = one[e];
    }
}

__kernel __attribute__((reqd_work_group_size(128 * (WARP_GROUPS + 1), 1, 1))) void
attention(ARGS, GEMS_SHARED_BUFFER(uint, maps), int batches, int heads)
{
    OPEN;
    GEMS_AT(uint, maps);
    __local uchar room[Q_BYTES + 2 * STAGES * K_BYTES] __attribute__((aligned(1024)));
    __local ulong bars[2 + 4 * STAGES] __attribute__((aligned(16)));
    const uint room_q = IN_LOCAL(room), room_k = room_q + Q_BYTES, room_v = room_k + STAGES * K_BYTES;
    const uint q_full = IN_LOCAL(bars), q_empty = q_full + 8, k_full = q_full + 16, k_empty = k_full + 8 * STAGES,
               v_full = k_empty + 8 * STAGES, v_empty = v_full + 8 * STAGES;
    const int me = get_local_id(0), role = me >> 7;
    const int lines = batches * heads, blocks = (queries + BQ - 1) / BQ, all_steps = (keys + BK - 1) / BK,
              tiles = blocks * lines;
    INIT_BARS

    uint s_at = 0, phase = 0, q_phase = 0;
    if (role == 0) {
#if WARP_GROUPS > 1
        REGISTERS_DOWN(24);
#endif
        if (me == 0) {
            __global uint *map_q = maps + get_group_id(0) * 3 * MAP_WORDS, *map_k = map_q + MAP_WORDS,
                          *map_v = map_k + MAP_WORDS;
            const uint key_heads = heads / share;
            map_write(map_q, 4, (ulong)q, MAP_TYPE, (uint4)(head, queries, q1 ? heads : 1, q0 ? batches : 1),
                       (ulong3)(q2 * 2, q1 * 2, q0 * 2), BQ);
            map_write(map_k, 4, (ulong)k, MAP_TYPE, (uint4)(head, keys, k1 ? key_heads : 1, k0 ? batches : 1),
                       (ulong3)(k2 * 2, k1 * 2, k0 * 2), BK);
            map_write(map_v, 4, (ulong)v, MAP_TYPE, (uint4)(head, keys, v1 ? key_heads : 1, v0 ? batches : 1),
                       (ulong3)(v2 * 2, v1 * 2, v0 * 2), BK);
            for (int tile = get_group_id(0); tile < tiles; tile += get_num_groups(0)) {
                TILE
                const int kh = k1 ? h / share : 0, kz = k0 ? z : 0, vh = v1 ? h / share : 0, vz = v0 ? z : 0;
                bar_wait(q_empty, q_phase ^ 1);
                q_phase ^= 1;
                bar_expect(q_full, Q_BYTES);
                UNROLL for (int c = 0; c < CHUNKS; c++)
                    map_fetch4(room_q + c * BQ * 128, map_q, q_full, c * 64, first, q1 ? h : 0, q0 ? z : 0);
                for (int j = steps - 1; j >= 0; j--) {
                    const uint k_to = room_k + s_at * K_BYTES, v_to = room_v + s_at * K_BYTES;
                    bar_wait(k_empty + 8 * s_at, phase ^ 1);
                    bar_expect(k_full + 8 * s_at, K_BYTES);
                    UNROLL for (int c = 0; c < CHUNKS; c++)
                        map_fetch4(k_to + c * BK * 128, map_k, k_full + 8 * s_at, c * 64, j * BK, kh, kz);
                    bar_wait(v_empty + 8 * s_at, phase ^ 1);
                    bar_expect(v_full + 8 * s_at, K_BYTES);
                    UNROLL for (int c = 0; c < CHUNKS; c++)
                        map_fetch4(v_to + c * BK * 128, map_v, v_full + 8 * s_at, c * 64, j * BK, vh, vz);
                    NEXT_STAGE
                }
            }
        }
        return;
    }

#if WARP_GROUPS > 1
    REGISTERS_UP(240);
#endif
    const int wg = role - 1, t = me & 127, lane = t & 31, own = wg * 64 + (t >> 5) * 16 + (lane >> 2),
              column = (lane & 3) * 2;
    const uint own_q = room_q + wg * 8192;
#ifdef MASKED
    const float by = LOG2_E;
#else
    const float by = scale * LOG2_E;
#endif
    for (int tile = get_group_id(0); tile < tiles; tile += get_num_groups(0)) {
        TILE
        const int row = first + own;
        float s[SCORES], o[HELD];
        uint p[WORDS];
        rows r = {{-INFINITY, -INFINITY}, {0, 0}, {1, 1}};
        UNROLL for (int i = 0; i < HELD; i++)
            o[i] = 0;
        UNROLL for (int i = 0; i < SCORES; i++)
            s[i] = 0;
#ifdef MASKED
        const __global MASK *mask0 = mask + z * m0 + h * m1 + min(row, queries - 1) * m2,
                            *mask1 = mask + z * m0 + h * m1 + min(row + 8, queries - 1) * m2;
#define ADD_MASK(j)                                                                                                    \
    UNROLL for (int i = 0; i < SCORES; i += 4) UNROLL for (int e = 0; e < 2; e++)                                      \
    {                                                                                                                  \
        const int at = min((j)*BK + column + 2 * i + e, keys - 1);                                                     \
        s[i + e] = fma(s[i + e], scale, (float)GEMS_CAT(load_, MD)(mask0, at * m3));                                   \
        s[i + 2 + e] = fma(s[i + 2 + e], scale, (float)GEMS_CAT(load_, MD)(mask1, at * m3));                           \
    }
#else
#define ADD_MASK(j)
#endif
#define PACK                                                                                                           \
    UNROLL for (int i = 0; i < WORDS; i++) p[i] = TWO(s[2 * i], s[2 * i + 1]);
        bar_wait(q_full, q_phase);
        q_phase ^= 1;
        bar_wait(k_full + 8 * s_at, phase);
        begin_scores(s, own_q, room_k + s_at * K_BYTES);
        WGMMA_WAIT(0);
        WGMMA_KEEP(SCORES, s);
        if (t == 0)
            bar_arrive(k_empty + 8 * s_at);
        ADD_MASK(steps - 1)
        HIDE(steps - 1)
        weigh(s, &r, by);
        AWAIT_KEYS(steps - 2)
        PACK
        for (int j = steps - 2; j >= 0; j--) {
            const uint before = s_at, phase_before = phase;
            NEXT_STAGE
            begin_scores(s, own_q, room_k + s_at * K_BYTES);
            bar_wait(v_full + 8 * before, phase_before);
            begin_values(o, p, room_v + before * K_BYTES);
            WGMMA_WAIT(1);
            WGMMA_KEEP(SCORES, s);
            if (t == 0)
                bar_arrive(k_empty + 8 * s_at);
            ADD_MASK(j)
#if BK < BQ /* a tile's last keys are in two blocks */
            if (j == steps - 2)
                HIDE(j)
#endif
            weigh(s, &r, by);
            AWAIT_KEYS(j - 1)
            WGMMA_KEEP(SCORES, s);
            WGMMA_WAIT(0);
            WGMMA_KEEP(HELD, o);
            WGMMA_KEEP_BITS(WORDS, p);
            if (t == 0)
                bar_arrive(v_empty + 8 * before);
            PACK
            UNROLL for (int i = 0; i < HELD; i++)
                o[i] *= r.down[(i & 2) >> 1];
        }
        if (t == 0)
            bar_arrive(q_empty);
        bar_wait(v_full + 8 * s_at, phase);
        begin_values(o, p, room_v + s_at * K_BYTES);
        float up[2];
        UNROLL for (int e = 0; e < 2; e++)
        {
            float total = r.total[e];
            total += from_lane_f(total, 1);
            total += from_lane_f(total, 2);
            up[e] = total == 0 ? 1 : 1 / total;
            const int i = row + 8 * e;
            if ((lane & 3) == 0 && i < queries) {
#ifdef MASKED
                const float most = r.most[e];
#else
                const float most = r.most[e] * scale;
#endif
                lse[((long)z * queries + i) * heads + h] = total == 0 ? 0 : most + log(total);
            }
        }
        WGMMA_WAIT(0);
        WGMMA_KEEP(HELD, o);
        if (t == 0)
            bar_arrive(v_empty + 8 * s_at);
        NEXT_STAGE
        __global ushort *to = (__global ushort *)out + z * o0 + h * o1;
        UNROLL for (int e = 0; e < 2; e++)
            UNROLL for (int c = 0; c < HEAD / 32; c++)
            {
                const float *x = o + 16 * c + 2 * e, by_e = up[e];
                const uint4 w = turn((uint4)(TWO(x[0] * by_e, x[1] * by_e), TWO(x[4] * by_e, x[5] * by_e),
                                             TWO(x[8] * by_e, x[9] * by_e), TWO(x[12] * by_e, x[13] * by_e)), lane);
                if (row + 8 * e < queries)
                    store_eight(to + (row + 8 * e) * o2, 32 * c + 8 * (lane & 3), head, w);
            }
    }
}
