/* What the kernels of attention for warp groups (kernels/hopper.cl) have in common. A group takes one tile, BQ queries of one
 * head, after another: heads that share the cache one by one, and of causal ones the tiles with most keys first. Each warp
 * group takes 64 of the queries and goes over the keys they see in blocks of BK, the last block first.
 *
 * Given: BQ, BK; SCORES, BK / 2; STAGES. */
#include "kernels/hopper.cl"
#include "kernels/unroll.cl"

#define LOG2_E 1.44269504f
#define WARP_GROUPS (BQ / 64)
#define TOGETHER 32 /* heads whose keys and values should stay in the cache */

#define TILE                                                                                                           \
    const int section = tile / (blocks * TOGETHER), rest = tile - section * blocks * TOGETHER,                         \
              near = min(TOGETHER, lines - section * TOGETHER), block = causal ? blocks - 1 - rest / near : rest % blocks, \
              line = section * TOGETHER + (causal ? rest % near : rest / blocks), z = line / heads, h = line - z * heads, \
              first = block * BQ, steps = causal ? min((first + BQ - 1) / BK + 1, all_steps) : all_steps;

/* Blocks of keys and values are in local memory in turn: at s_at, filled and emptied for the time that `phase` tells. */
#define NEXT_STAGE                                                                                                     \
    if (++s_at == STAGES)                                                                                              \
        s_at = 0, phase ^= 1;
/* Of the next block, before the weighted values of the block before are waited for: since this ends a sequence of
 * instructions, the weights are made before that wait. The compiler would else put them, of which nothing depends on it,
 * behind it, where they do not overlap with the products. */
#define AWAIT_KEYS(j)                                                                                                  \
    if ((j) >= 0) {                                                                                                    \
        const bool wraps = s_at + 1 == STAGES;                                                                         \
        bar_wait(k_full + 8 * (wraps ? 0 : s_at + 1), phase ^ (uint)wraps);                                            \
    }

/* Of two rows: those of a work-item. */
typedef struct rows {
    float most[2], total[2], down[2]; /* largest score; sum of weights (a part of it); what earlier weights shrink by */
} rows;

/* Keys behind the last one that a row sees: `last` for each of the two, counted from the work-item's first. */
INLINE void hide(float *s, int last0, int last1)
{
    UNROLL for (int i = 0; i < SCORES; i += 4)
        UNROLL for (int e = 0; e < 2; e++)
        {
            s[i + e] = 2 * i + e > last0 ? -INFINITY : s[i + e];
            s[i + 2 + e] = 2 * i + e > last1 ? -INFINITY : s[i + 2 + e];
        }
}
#define HIDE(j)                                                                                                        \
    if (causal || ((j) + 1) * BK > keys) {                                                                             \
        const int begin = (j)*BK + column, last0 = causal ? min(row, keys - 1) : keys - 1,                             \
                  last1 = causal ? min(row + 8, keys - 1) : keys - 1;                                                  \
        hide(s, last0 - begin, last1 - begin);                                                                         \
    }

/* Filled by the copy engine, emptied by the warp groups. */
#define INIT_BARS                                                                                                      \
    if (me == 0) {                                                                                                     \
        bar_init(q_full, 1);                                                                                           \
        bar_init(q_empty, WARP_GROUPS);                                                                                \
        for (int i = 0; i < 8 * STAGES; i += 8) {                                                                      \
            bar_init(k_full + i, 1);                                                                                   \
            bar_init(k_empty + i, WARP_GROUPS);                                                                        \
            bar_init(v_full + i, 1);                                                                                   \
            bar_init(v_empty + i, WARP_GROUPS);                                                                        \
        }                                                                                                              \
        bar_init_done();                                                                                               \
    }                                                                                                                  \
    barrier(CLK_LOCAL_MEM_FENCE);
