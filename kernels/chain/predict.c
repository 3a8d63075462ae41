/* Whether to begin a chain: known from what became of those that began in the same way, in bytes, not from times. */
#include "kernels/chain/group.h"
#include "preload/base/hash.h"

/* What a pass costs beside its bytes, as bytes that a processor moves meanwhile: 45 us to be protected, launched and
 * waited for, and 3 for each result to be shown, at 50 GB/s (tensors in its caches); hiding what is in use takes 30. */
#define PASS_BYTES   ((int64_t)2300 << 10)
#define RESULT_BYTES ((int64_t)128 << 10)
#define HIDE_BYTES   ((int64_t)1536 << 10)

enum {
    KNOWN = 4096, /* a power of two */
    SURE = 3,
    RETRY = 64, /* calls left alone until another chain is tried; four times as many after each disappointment */
    LATE = 1024 /* calls until a chain begins anywhere after kernels were built */
};

/* By kind; two that meet share one. Torn reads and lost updates do no harm. */
static struct outlook {
    _Atomic uint64_t awaits; /* a kernel; without it the host is quicker than the evaluator */
    _Atomic uint16_t skipped;
    _Atomic int8_t score; /* how sure that it pays; below 0: it does not */
    _Atomic bool met;     /* one has begun here, and not because the calls before were left alone */
} outlooks[KNOWN];

static struct outlook *find(uint64_t kind)
{
    return &outlooks[kind & (KNOWN - 1)];
}

/* Sizes by powers of two, so that a program whose sizes vary learns. */
uint64_t gems_chain_kind(const gems_call *call)
{
    uint64_t words[GEMS_MAX_ARGS + 1] = {call->op->index};
    unsigned n = 1;
    for (unsigned i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        if (v->kind != GEMS_TENSOR) {
            words[n++] = (uint64_t)v->kind;
            continue;
        }
        unsigned same = i; /* x * x */
        for (unsigned k = 0; k < i && same == i; k++)
            if (call->arg[k].kind == GEMS_TENSOR && call->arg[k].tensor && /* never NULL */
                call->arg[k].tensor->address == v->tensor->address)
                same = k;
        words[n++] = same < i ? 1000u
                              : 100u + (64u - (unsigned)__builtin_clzll((uint64_t)v->tensor->numel | 1)) +
                                    10000u * (unsigned)v->tensor->dtype;
    }
    return gems_hash_long(7, words, n * sizeof *words);
}

/* Chains begin at the same calls whenever a program repeats itself, so that they want the same kernels. So while
 * kernels are built none begins, but those that hang together are taken whole first: the evaluator is slower than the
 * host. And then, for some calls, only where one has begun before: the next call is in the middle of something. */
bool gems_chain_pays(uint64_t kind)
{
    static __thread unsigned late; /* calls since kernels were built, while it resumes */
    static __thread bool resumes, began;
    struct outlook *o = find(kind);
    if (!gems_chains_any()) {
        const uint64_t awaits = o->awaits;
        const bool free = began; /* not in the middle of what was left alone */
        began = false;
        if (gems_chain_builds()) {
            resumes = true;
            late = 0;
            return false;
        }
        if (awaits && gems_chain_lacks(awaits))
            return false;
        o->awaits = 0;
        resumes = resumes && !o->met && ++late < LATE;
        if (resumes)
            return false;
        o->met = o->met || free;
    }
    int score = o->score;
    if (score < 0 && ++o->skipped < RETRY << 2 * (-1 - score))
        return false;
    o->skipped = 0;
    began = true;
    return true;
}

void gems_chain_awaits(const chain_group *g, uint64_t id)
{
    find(g->kind)->awaits = id;
}

void gems_chain_learn(const chain_group *g, int64_t apart, int64_t together, unsigned stored)
{
    struct outlook *o = find(g->kind);
    int8_t score = o->score;
    if (together + PASS_BYTES + stored * RESULT_BYTES + g->hidden * HIDE_BYTES < apart)
        o->score = score < SURE ? (int8_t)(score + 1) : SURE;
    else
        o->score = score > -SURE ? (int8_t)(score - 1) : -SURE;
}
