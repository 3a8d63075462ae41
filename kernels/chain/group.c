/* What groups are made of, and which blocks they are tied to. */
#include "kernels/chain/group.h"

#include <stdlib.h>
#include <string.h>

/* ---- blocks ---- */

chain_block *gems_chain_block(gems_block *block)
{
    chain_block *b = gems_chain_block_of(block);
    if (b || !(b = calloc(1, sizeof *b)))
        return b;
    b->block = block;
    b->next = gems_chains.blocks;
    b->link = &gems_chains.blocks;
    if (b->next)
        b->next->link = &b->next;
    gems_chains.blocks = b;
    __atomic_store_n(&block->user, b, __ATOMIC_RELEASE);
    return b;
}

static void forget(chain_block *b)
{
    gems_block *block = b->block;
    bool given = b->given;
    *b->link = b->next;
    if (b->next)
        b->next->link = b->link;
    __atomic_store_n(&block->user, NULL, __ATOMIC_RELEASE);
    free(b);
    if (!given)
        return;
    gems_chains.kept -= block->bytes;
    gems_arena_recycle(block);
}

void gems_chain_block_drop(chain_block *b)
{
    if (b->writer || b->nreaders || b->pins || b->users || b->moving || (b->copy && !b->given))
        return;
    if (b->given || b->block->place == GEMS_PLACE_HOME)
        forget(b);
}

bool gems_chain_any_tensor(const gems_call *call, bool (*is)(const gems_tensor *t))
{
    bool any = false;
    gems_chains_lock();
    for (unsigned i = 0; i < call->op->nparams && !any; i++) {
        const gems_value *v = &call->arg[i];
        const gems_tensor *t = v->kind == GEMS_TENSOR ? v->tensor : v->kind == GEMS_TENSORS ? v->tensors.v : NULL;
        size_t n = v->kind == GEMS_TENSOR ? 1 : v->kind == GEMS_TENSORS ? v->tensors.n : 0;
        for (; n > 0 && !any; n--, t++)
            any = is(t);
    }
    gems_chains_unlock();
    return any;
}

bool gems_chain_block_reads(const chain_block *b, const chain_group *g)
{
    for (unsigned i = 0; i < b->nreaders; i++)
        if (b->reader[i] == g)
            return true;
    return false;
}

bool gems_chain_block_add_reader(chain_block *b, chain_group *g)
{
    if (gems_chain_block_reads(b, g))
        return true;
    if (b->nreaders == CHAIN_READERS)
        return false;
    b->reader[b->nreaders++] = g;
    return true;
}

static void remove_reader(chain_block *b, const chain_group *g)
{
    for (unsigned i = 0; i < b->nreaders; i++)
        if (b->reader[i] == g) {
            b->reader[i] = b->reader[--b->nreaders];
            return;
        }
}

bool gems_chain_block_is_busy(const chain_block *b)
{
    bool busy = b->writer && b->writer->running;
    for (unsigned i = 0; i < b->nreaders; i++)
        busy |= b->reader[i]->running;
    return busy;
}

/* ---- groups ---- */

static bool reads(const chain_group *g, const chain_block *b)
{
    for (unsigned i = 0; i < g->nleaves; i++)
        if (g->leaf[i].block == b)
            return true;
    return false;
}

int gems_chain_group_last(const chain_group *g, const chain_block *b, unsigned *result)
{
    *result = 0;
    for (int s = (int)g->nsteps - 1; s >= 0; s--)
        for (unsigned r = 0; r < g->step[s].pw.nresults; r++)
            if (g->step[s].block[r] == b) {
                *result = r;
                return s;
            }
    return -1;
}

/* The block's ties to the group, as they are now. */
static void tie_anew(chain_group *g, chain_block *b)
{
    unsigned r;
    if (!reads(g, b))
        remove_reader(b, g);
    if (b->writer == g && gems_chain_group_last(g, b, &r) < 0)
        b->writer = NULL;
    gems_chain_block_drop(b);
}

chain_group *gems_chain_group_new(const gems_shape *shape, uint64_t kind)
{
    chain_group *g = malloc(sizeof *g);
    struct chain_pass *pass = gems_chain_pass_new();
    if (!g || !pass) {
        free(g);
        gems_chain_pass_free(pass);
        return NULL;
    }
    g->shape = *shape;
    g->running = g->unready = false;
    g->nsteps = g->nleaves = 0;
    g->kind = kind;
    g->hidden = g->calls = g->folds = 0;
    g->pass = pass;
    g->next = gems_chains.groups;
    g->link = &gems_chains.groups;
    if (g->next)
        g->next->link = &g->next;
    gems_chains.groups = g;
    return g;
}

static void unlink_group(chain_group *g)
{
    *g->link = g->next;
    if (g->next)
        g->next->link = g->link;
    gems_chain_pass_free(g->pass);
    free(g);
}

/* Blocks that a group is tied to, each once. */
typedef struct block_set {
    unsigned n;
    chain_block *block[CHAIN_LEAVES + CHAIN_STEPS * GEMS_EXPR_RESULTS];
} block_set;

static void collect_one(block_set *set, chain_block *b)
{
    for (unsigned i = 0; i < set->n; i++)
        if (set->block[i] == b)
            return;
    if (b)
        set->block[set->n++] = b;
}

static void collect(block_set *set, const chain_group *g)
{
    set->n = 0;
    for (unsigned i = 0; i < g->nleaves; i++)
        collect_one(set, g->leaf[i].block);
    for (unsigned s = 0; s < g->nsteps; s++)
        for (unsigned r = 0; r < g->step[s].pw.nresults; r++)
            collect_one(set, g->step[s].block[r]);
}

void gems_chain_group_free(chain_group *g)
{
    block_set set;
    collect(&set, g);
    for (unsigned i = 0; i < g->nleaves; i++)
        free(g->leaf[i].copy);
    g->nsteps = g->nleaves = 0;
    for (unsigned i = 0; i < set.n; i++)
        tie_anew(g, set.block[i]);
    unlink_group(g);
}

unsigned gems_chain_group_owes(const chain_group *g)
{
    unsigned n = 0, r;
    for (unsigned s = 0; s < g->nsteps; s++)
        for (unsigned k = 0; k < g->step[s].pw.nresults; k++) {
            const chain_block *b = g->step[s].block[k];
            n += b && gems_chain_group_last(g, b, &r) == (int)s && r == k;
        }
    return n;
}

bool gems_chain_group_is_dead(const chain_group *g)
{
    for (unsigned s = 0; s < g->nsteps; s++)
        for (unsigned r = 0; r < g->step[s].pw.nresults; r++)
            if (g->step[s].block[r] && !g->step[s].block[r]->given)
                return false;
    return true;
}

/* ---- merging and cutting ---- */

static int find_leaf(const chain_group *g, const chain_block *b, const chain_view *view)
{
    for (unsigned i = 0; b && i < g->nleaves; i++)
        if (g->leaf[i].block == b && memcmp(&g->leaf[i].view, view, sizeof *view) == 0)
            return (int)i;
    return -1;
}

void gems_chain_group_merge(chain_group *to, chain_group *from)
{
    uint8_t place[CHAIN_LEAVES];
    block_set set;
    collect(&set, from);
    for (unsigned i = 0; i < from->nleaves; i++) {
        int known = find_leaf(to, from->leaf[i].block, &from->leaf[i].view);
        place[i] = (uint8_t)(known >= 0 ? (unsigned)known : to->nleaves);
        if (known < 0)
            to->leaf[to->nleaves++] = from->leaf[i];
    }
    unsigned base = to->nsteps;
    for (unsigned s = 0; s < from->nsteps; s++) {
        chain_step *step = &to->step[to->nsteps++];
        *step = from->step[s];
        for (unsigned k = 0; k < GEMS_EXPR_NAMES; k++) {
            gems_pw_bind *bind = &step->pw.bind[k];
            if (bind->step)
                bind->step = (uint8_t)(bind->step + base);
            else if (bind->index < from->nleaves)
                bind->index = place[bind->index];
        }
    }
    to->hidden += from->hidden;
    to->calls += from->calls;
    to->folds += from->folds;
    to->unready |= from->unready;
    from->nsteps = from->nleaves = 0;
    for (unsigned i = 0; i < set.n; i++) {
        chain_block *b = set.block[i];
        bool was_reader = gems_chain_block_reads(b, from);
        remove_reader(b, from);
        if (was_reader)
            gems_chain_block_add_reader(b, to); /* there is room: one has just gone */
        if (b->writer == from)
            b->writer = to;
    }
    unlink_group(from);
}

/* Names that the step's expression reads. */
static uint32_t needs(const chain_step *s)
{
    return gems_expr_needs(s->pw.expr, s->pw.facts);
}

void gems_chain_group_cut(chain_group *g, unsigned n)
{
    block_set set;
    if (n == g->nsteps) {
        gems_chain_group_free(g);
        return;
    }
    collect(&set, g);
    chain_leaf old[CHAIN_LEAVES];
    unsigned nold = g->nleaves;
    int place[CHAIN_LEAVES];
    memcpy(old, g->leaf, nold * sizeof *old);
    for (unsigned i = 0; i < nold; i++)
        place[i] = -1;
    g->nleaves = 0;
    for (unsigned s = n; s < g->nsteps; s++) {
        uint32_t needed = needs(&g->step[s]);
        for (unsigned k = 0; k < GEMS_EXPR_NAMES; k++) {
            gems_pw_bind *bind = &g->step[s].pw.bind[k];
            if (!(needed >> k & 1))
                *bind = (gems_pw_bind){0};
            else if (bind->step > n)
                bind->step = (uint8_t)(bind->step - n);
            else if (bind->step) { /* has been stored */
                const chain_step *by = &g->step[bind->step - 1];
                chain_block *b = by->block[bind->index];
                int known = find_leaf(g, b, &by->view[bind->index]);
                if (known < 0) {
                    known = (int)g->nleaves++;
                    g->leaf[known] =
                        (chain_leaf){.block = b, .view = by->view[bind->index], .dtype = by->pw.result[bind->index]};
                    gems_chain_block_add_reader(b, g);
                }
                bind->step = 0;
                bind->index = (uint8_t)known;
            } else {
                int *to = &place[bind->index];
                if (*to < 0) {
                    *to = (int)g->nleaves++;
                    g->leaf[*to] = old[bind->index];
                }
                bind->index = (uint8_t)*to;
            }
        }
    }
    for (unsigned i = 0; i < nold; i++)
        if (place[i] < 0)
            free(old[i].copy);
    g->nsteps -= n;
    memmove(g->step, g->step + n, g->nsteps * sizeof *g->step);
    for (unsigned i = 0; i < set.n; i++)
        tie_anew(g, set.block[i]);
}
