/* Whether to begin a chain: known from what became of those that began with the same operator on about as many
 * elements, in bytes, not from times. */
#include "kernels/chain/group.h"

/* What a pass costs beside its bytes, as bytes that a processor moves meanwhile: 45 us to be protected, launched and
 * waited for, and 3 for each result to be shown, at 50 GB/s (tensors in its caches). */
#define PASS_BYTES   ((int64_t)2300 << 10)
#define RESULT_BYTES ((int64_t)128 << 10)

enum {
    KNOWN = 4096, /* a power of two */
    SURE = 3,
    RETRY =
        64 /* calls that are left alone until another chain is tried; four times as many after each disappointment */
};

/* By operator and size; two that meet share one. Torn reads and lost updates do no harm. */
static struct outlook {
    _Atomic int8_t score; /* how sure that it pays; below 0: it does not */
    _Atomic uint16_t skipped;
} outlooks[KNOWN];

static struct outlook *find(const gems_op *op, int64_t numel)
{
    unsigned size = 63 - (unsigned)__builtin_clzll((uint64_t)numel | 1);
    return &outlooks[(op->index * 64u + size) * 2654435761u >> 20 & (KNOWN - 1)];
}

bool gems_chain_pays(const gems_op *op, int64_t numel)
{
    struct outlook *o = find(op, numel);
    int score = o->score;
    if (score >= 0)
        return true;
    if (++o->skipped < RETRY << 2 * (-1 - score))
        return false;
    o->skipped = 0;
    return true;
}

void gems_chain_learn(const gems_op *first, int64_t numel, int64_t apart, int64_t together, unsigned stored)
{
    struct outlook *o = find(first, numel);
    int8_t score = o->score;
    if (together + PASS_BYTES + stored * RESULT_BYTES < apart)
        o->score = score < SURE ? (int8_t)(score + 1) : SURE;
    else
        o->score = score > -SURE ? (int8_t)(score - 1) : -SURE;
}
