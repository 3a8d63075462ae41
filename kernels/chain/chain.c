/* Taking calls into groups, and finishing what is wanted. */
#include "kernels/chain/chain.h"
#include "kernels/chain/group.h"
#include "kernels/chain/touch.h"
#include "kernels/host.h"
#include "preload/base/log.h"
#include "preload/base/thread.h"

#include <stdlib.h>
#include <string.h>

/* Below 2 MiB protecting and showing cost more than memory does. */
const gems_parameter gems_chain_parameters[] = {[GEMS_CHAIN_LEAST_KB] = {"least_kb", 64, 1 << 20, 1, 2048},
                                                [GEMS_CHAIN_ROW] = {"row", 1, 64, 1, 16},
                                                [GEMS_CHAIN_STEPS] = {"steps", 1, CHAIN_STEPS, 1, CHAIN_STEPS},
                                                [GEMS_CHAIN_OPERANDS] = {"operands", 1, CHAIN_LEAVES, 1, CHAIN_LEAVES},
                                                [GEMS_CHAIN_SMALL] = {"small", 0, 1 << 30, 1, 1024},
                                                {NULL}};

struct chain_state gems_chains = {.lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
atomic_bool gems_chain_active;

const char *const gems_cause_names[GEMS_CAUSE_COUNT] = {
    [GEMS_CAUSE_OPERATOR] = "operator",  [GEMS_CAUSE_CALL] = "other elements", [GEMS_CAUSE_TOUCH] = "touch",
    [GEMS_CAUSE_SYSTEM] = "system call", [GEMS_CAUSE_LIMIT] = "limit",         [GEMS_CAUSE_MEMORY] = "memory",
    [GEMS_CAUSE_END] = "fork or exit"};

/* ---- finishing ---- */

/* Computes a group, or waits until that is done. Whatever was known of groups and blocks may be different then. */
static void finish(chain_group *g, unsigned n, gems_cause cause)
{
    if (g->running)
        gems_chains_wait();
    else
        gems_chain_flush(g, n, cause);
}

/* The block's memory as the program wants it. With nothing owed elsewhere that reads it, if it is written. */
static void want(gems_block *block, bool write, gems_cause cause)
{
    for (chain_block *b; (b = gems_chain_block_of(block));) {
        unsigned r;
        if (gems_resident_want(b, write, cause))
            continue;
        if (b->writer) {
            int last = gems_chain_group_last(b->writer, b, &r);
            finish(b->writer, (unsigned)last + 1, cause);
        } else if (b->nreaders && (write || block->place == GEMS_PLACE_HIDDEN)) {
            finish(b->reader[0], b->reader[0]->nsteps, cause);
        } else if (block->place == GEMS_PLACE_HIDDEN || (write && block->place == GEMS_PLACE_READ_ONLY)) {
            if (!gems_block_show(block)) {
                gems_complain("the system does not let a tensor be shown");
                abort();
            }
            gems_chain_block_drop(b);
        } else {
            if (write && block->place == GEMS_PLACE_READ_ONLY) /* pinned by somebody who reads */
                (void)gems_block_show(block);
            break;
        }
    }
    if (!gems_chain_block_of(block) && __atomic_load_n(&block->taken, __ATOMIC_ACQUIRE))
        gems_block_show(block); /* a result that was made hidden, and then not deferred */
}

static void finish_all(void)
{
    while (gems_chains.groups)
        finish(gems_chains.groups, gems_chains.groups->nsteps, GEMS_CAUSE_END);
    for (chain_block *b = gems_chains.blocks; b;) {
        if (b->block->place == GEMS_PLACE_HOME && !b->copy && !b->moving) {
            b = b->next;
            continue;
        }
        want(b->block, true, GEMS_CAUSE_END); /* others may come and go meanwhile */
        b = gems_chains.blocks;
    }
}

void gems_chain_settle(const void *p, size_t n, bool write, gems_cause cause)
{
    gems_block *block;
    if (!n || !atomic_load_explicit(&gems_chain_active, memory_order_relaxed) || !(block = gems_arena_find(p)))
        return;
    if (!gems_chain_block_of(block) && __atomic_load_n(&block->place, __ATOMIC_RELAXED) == GEMS_PLACE_HOME)
        return;
    gems_chains_lock();
    want(block, write, cause);
    gems_chains_unlock();
}

bool gems_chain_pin(const void *p, size_t n, bool write)
{
    if (!n || !atomic_load_explicit(&gems_chain_active, memory_order_relaxed))
        return false;
    gems_block *block = gems_arena_find(p);
    if (!block && write && gems_adopt_any(p, n)) {
        gems_chains_lock();
        gems_adopt_release(p, n);
        gems_chains_unlock();
    }
    if (!block || !__atomic_load_n(&block->taken, __ATOMIC_ACQUIRE))
        return false;
    gems_chains_lock();
    want(block, write, GEMS_CAUSE_SYSTEM);
    chain_block *b = gems_chain_block(block);
    if (b)
        b->pins++;
    gems_chains_unlock();
    return b != NULL;
}

void gems_chain_unpin(const void *p, size_t n)
{
    gems_block *block = gems_arena_find(p);
    (void)n;
    gems_chains_lock();
    chain_block *b = block ? gems_chain_block_of(block) : NULL;
    if (b && b->pins) {
        b->pins--;
        gems_chain_block_drop(b);
    }
    gems_chains_unlock();
}

/* In the service thread (touch.h). */
static bool serve(const void *address, bool write)
{
    gems_block *block = gems_arena_find(address);
    if (block && !__atomic_load_n(&block->taken, __ATOMIC_ACQUIRE))
        return false; /* memory that was given back */
    gems_chains_lock();
    if (block)
        want(block, write, GEMS_CAUSE_TOUCH);
    bool served = block ? block->place == GEMS_PLACE_HOME || (!write && block->place == GEMS_PLACE_READ_ONLY)
                        : gems_adopt_touch(address);
    gems_chains_unlock();
    return served;
}

/* ---- giving back ---- */

/* Nobody sees its values any more: what is owed here needs no memory. */
static void forget_results(const chain_block *b)
{
    for (unsigned s = 0; b->writer && s < b->writer->nsteps; s++)
        for (unsigned r = 0; r < b->writer->step[s].pw.nresults; r++)
            if (b->writer->step[s].block[r] == b)
                b->writer->step[s].block[r] = NULL;
}

/* Whether groups need the block that the program has given back (gems_arena_on_give). */
static bool keeps(gems_block *block)
{
    gems_chains_lock();
    chain_block *b = gems_chain_block_of(block);
    bool kept = b != NULL;
    if (b) {
        chain_group *g = b->writer;
        b->given = true;
        gems_chains.kept += block->bytes;
        if (!b->users && !b->moving)
            gems_resident_drop(b);
        if (!gems_chain_block_is_busy(b) && !b->nreaders) {
            forget_results(b);
            b->writer = NULL;
        }
        b->pins = 0; /* a system call on memory that is freed meanwhile is the program's own mistake */
        gems_chain_block_drop(b);
        if (g && !g->running && gems_chain_group_is_dead(g)) /* its inputs are not needed either */
            gems_chain_flush(g, g->nsteps, GEMS_CAUSE_MEMORY);
    }
    gems_chains_unlock();
    return kept;
}

/* ---- taking a call ---- */

static int64_t parameter(const gems_call *call, gems_chain_parameter which)
{
    const gems_parameter *p = &gems_chain_parameters[which];
    return gems_rule_param(call->chain, p->name, p->initial);
}

/* A call as a group sees it. */
typedef struct draft {
    gems_shape shape;         /* without sides of 1 */
    uint64_t kind;            /* of a chain that begins with it */
    unsigned steps, operands; /* of its chain, at most */
    int64_t row, small;
    pw_recipe *recipe;
    gems_block *block[GEMS_OPERANDS]; /* NULL: a number, or memory to copy */
    chain_view view[GEMS_OPERANDS];
    size_t span[GEMS_OPERANDS];  /* bytes */
    uint8_t leaf[GEMS_OPERANDS]; /* that it has become; UINT8_MAX: none yet */
    size_t result_bytes;         /* of the largest one */
} draft;

static bool is_written(const draft *d, unsigned i)
{
    return d->recipe->spec.operand[i].place == GEMS_PW_WRITE || d->recipe->spec.operand[i].place == GEMS_PW_UPDATE;
}

/* False: not all of its memory can be guarded. */
static bool make_draft(draft *d, const gems_call *call, gems_work *work)
{
    pw_recipe *r = pw_recipe_of(work);
    d->kind = gems_chain_kind(call);
    d->steps = (unsigned)parameter(call, GEMS_CHAIN_STEPS);
    d->operands = (unsigned)parameter(call, GEMS_CHAIN_OPERANDS);
    d->row = parameter(call, GEMS_CHAIN_ROW);
    d->small = parameter(call, GEMS_CHAIN_SMALL) << 10;
    d->recipe = r;
    d->shape = (gems_shape){.numel = r->shape.numel};
    d->result_bytes = 0;
    memset(d->leaf, UINT8_MAX, sizeof d->leaf);
    for (int k = 0; k < r->shape.ndim; k++)
        if (r->shape.size[k] != 1)
            d->shape.size[d->shape.ndim++] = r->shape.size[k];
    for (unsigned i = 0; i < r->spec.noperands; i++) {
        const pw_in *in = &pw_recipe_in(r)[i];
        d->block[i] = NULL;
        if (in->operand < 0)
            continue;
        const gems_operand *o = &work->operand[in->operand];
        memset(&d->view[i], 0, sizeof d->view[i]);
        d->view[i].address = o->allocation + o->offset;
        d->view[i].dtype = r->spec.operand[i].dtype;
        for (int k = 0, n = 0; k < r->shape.ndim; k++)
            if (r->shape.size[k] != 1)
                d->view[i].stride[n++] = in->stride[k];
        d->span[i] = o->span;
        d->block[i] = gems_arena_find((const void *)d->view[i].address); /* NOLINT(performance-no-int-to-ptr) */
        if (!d->block[i] && (is_written(d, i) || o->span > CHAIN_COPY))
            return false;
        if (!is_written(d, i))
            continue;
        d->result_bytes = o->span > d->result_bytes ? o->span : d->result_bytes;
        for (unsigned k = 0; k < i; k++)
            if (is_written(d, k) && d->block[k] == d->block[i])
                return false; /* two results in one block */
    }
    return true;
}

/* Whether the call's loops are such that a kernel is quick, if several are needed. */
static bool has_long_rows(const draft *d)
{
    gems_strides strides[GEMS_EXPR_NAMES + GEMS_EXPR_RESULTS];
    gems_loops loops;
    int n = 0;
    for (unsigned i = 0; i < d->recipe->spec.noperands; i++)
        if (pw_recipe_in(d->recipe)[i].operand >= 0)
            memcpy(strides[n++], d->view[i].stride, sizeof *strides);
    gems_collapse(&d->shape, n, (const gems_strides *)strides, &loops);
    return loops.rank == 1 || pw_row_length(&loops) >= d->row;
}

static bool same_shape(const gems_shape *a, const gems_shape *b)
{
    return a->ndim == b->ndim && memcmp(a->size, b->size, (size_t)a->ndim * sizeof *a->size) == 0;
}

/* Whether the step's result is in memory what the next step would be given of it. */
static bool as_stored(const chain_group *g, const chain_block *b)
{
    unsigned r;
    int s = gems_chain_group_last(g, b, &r);
    return s >= 0 && g->step[s].pw.result[r] == b->view.dtype;
}

/* What keeps the call from joining groups, one after the other; those that it must join. */
typedef struct joining {
    chain_group *clash; /* must be computed first, */
    unsigned steps;     /* so many of its steps */
    bool pinned;
    chain_group *group[(GEMS_EXPR_NAMES + GEMS_EXPR_RESULTS) * (1 + CHAIN_READERS)];
    unsigned n;
} joining;

static void join(joining *j, chain_group *g)
{
    for (unsigned i = 0; i < j->n; i++)
        if (j->group[i] == g)
            return;
    j->group[j->n++] = g;
}

static void clash(joining *j, chain_group *g, unsigned steps)
{
    j->clash = g;
    j->steps = steps;
}

static bool reads_otherwise(const chain_group *g, const chain_block *b, const chain_view *view)
{
    for (unsigned i = 0; i < g->nleaves; i++)
        if (g->leaf[i].block == b && memcmp(&g->leaf[i].view, view, sizeof *view) != 0)
            return true;
    return false;
}

static void look_at_operand(joining *j, const draft *d, unsigned i)
{
    chain_block *b = d->block[i] ? gems_chain_block_of(d->block[i]) : NULL;
    bool writes = is_written(d, i);
    if (!b)
        return;
    j->pinned |= b->pins > 0;
    if (b->writer) {
        unsigned r;
        bool same = same_shape(&b->writer->shape, &d->shape) && memcmp(&b->view, &d->view[i], sizeof b->view) == 0;
        if (same && as_stored(b->writer, b))
            join(j, b->writer);
        else
            clash(j, b->writer, (unsigned)gems_chain_group_last(b->writer, b, &r) + 1);
    }
    for (unsigned k = 0; k < b->nreaders && !j->clash; k++) {
        chain_group *g = b->reader[k];
        bool same = same_shape(&g->shape, &d->shape);
        if (writes && (!same || reads_otherwise(g, b, &d->view[i])))
            clash(j, g, g->nsteps);
        else if (same)
            join(j, g);
        else if (!b->writer && b->nreaders == CHAIN_READERS)
            clash(j, g, g->nsteps);
    }
}

/* The group to add the call to, with room for it and nothing in its way; NULL: it cannot be deferred. */
static chain_group *find_group(const draft *d)
{
    unsigned leaves = d->recipe->spec.noperands, steps = d->recipe->spec.nsteps;
    for (;;) {
        joining j = {0};
        for (unsigned i = 0; i < d->recipe->spec.noperands && !j.clash; i++)
            look_at_operand(&j, d, i);
        if (j.pinned)
            return NULL;
        if (j.clash) {
            finish(j.clash, j.steps, GEMS_CAUSE_CALL);
            continue;
        }
        if (!j.n)
            return gems_chain_group_new(&d->shape, d->kind);
        bool running = false;
        unsigned all_leaves = leaves, all_steps = steps, owed = GEMS_EXPR_RESULTS, largest = 0;
        for (unsigned i = 0; i < j.n; i++) {
            running |= j.group[i]->running;
            all_leaves += j.group[i]->nleaves;
            all_steps += j.group[i]->nsteps;
            owed += gems_chain_group_owes(j.group[i]);
            largest = j.group[i]->nsteps > j.group[largest]->nsteps ? i : largest;
        }
        if (running) {
            gems_chains_wait();
            continue;
        }
        if (all_steps > d->steps || all_leaves > d->operands || owed > CHAIN_STORED) {
            finish(j.group[largest], gems_chain_best_cut(j.group[largest]), GEMS_CAUSE_LIMIT);
            continue;
        }
        for (unsigned i = 1; i < j.n; i++)
            gems_chain_group_merge(j.group[0], j.group[i]);
        return j.group[0];
    }
}

/* Guards the operands' memory. False: the system refuses, or memory is out. */
static bool guard(const draft *d, chain_group *g)
{
    for (unsigned i = 0; i < d->recipe->spec.noperands; i++) {
        gems_block *block = d->block[i];
        chain_block *b = block ? gems_chain_block(block) : NULL;
        if (!block)
            continue;
        if (!b)
            return false;
        g->hidden += is_written(d, i) && block->place != GEMS_PLACE_HIDDEN;
        if (is_written(d, i) ? !gems_block_hide(block) : block->place == GEMS_PLACE_HOME && !gems_block_protect(block))
            return false;
    }
    return true;
}

static uint8_t new_leaf(chain_group *g, const draft *d, unsigned i)
{
    chain_block *b = d->block[i] ? gems_chain_block_of(d->block[i]) : NULL;
    const pw_in *in = &pw_recipe_in(d->recipe)[i];
    for (unsigned k = 0; b && k < g->nleaves; k++)
        if (g->leaf[k].block == b && memcmp(&g->leaf[k].view, &d->view[i], sizeof d->view[i]) == 0)
            return (uint8_t)k;
    chain_leaf *l = &g->leaf[g->nleaves];
    *l = (chain_leaf){.block = b, .dtype = d->recipe->spec.operand[i].dtype};
    if (in->operand < 0) {
        l->value = true;
        l->number = in->number;
    } else {
        l->view = d->view[i];
        if (b) {
            gems_chain_block_add_reader(b, g);
        } else {
            l->copy = malloc(d->span[i] + 1);
            if (!l->copy)
                return UINT8_MAX;
            memcpy(l->copy, (const void *)d->view[i].address, d->span[i]); /* NOLINT(performance-no-int-to-ptr) */
        }
    }
    return (uint8_t)g->nleaves++;
}

/* The leaf for an operand; the same memory twice is one. UINT8_MAX: memory is out. */
static uint8_t add_leaf(chain_group *g, draft *d, unsigned i)
{
    if (d->leaf[i] == UINT8_MAX)
        d->leaf[i] = new_leaf(g, d, i);
    return d->leaf[i];
}

/* Where a name's value comes from. False: memory is out. */
static bool bind(chain_group *g, draft *d, unsigned base, gems_pw_bind *to)
{
    if (to->step) {
        to->step = (uint8_t)(to->step + base);
        return true;
    }
    chain_block *b = d->block[to->index] ? gems_chain_block_of(d->block[to->index]) : NULL;
    if (b && b->writer) {
        unsigned r;
        to->step = (uint8_t)(gems_chain_group_last(g, b, &r) + 1);
        to->index = (uint8_t)r;
        return true;
    }
    to->index = add_leaf(g, d, to->index);
    return to->index != UINT8_MAX;
}

static bool add_steps(chain_group *g, draft *d)
{
    const gems_pw_spec *spec = &d->recipe->spec;
    unsigned base = g->nsteps;
    for (unsigned s = 0; s < spec->nsteps; s++) {
        chain_step *step = &g->step[base + s];
        memset(step, 0, sizeof *step);
        step->pw = spec->step[s];
        uint32_t needed = gems_expr_needs(step->pw.expr, step->pw.facts);
        for (unsigned k = 0; k < GEMS_EXPR_NAMES; k++)
            if (!(needed >> k & 1))
                step->pw.bind[k] = (gems_pw_bind){0};
            else if (!bind(g, d, base, &step->pw.bind[k]))
                return false;
    }
    for (unsigned s = 0; s < spec->nsteps; s++) {
        chain_step *step = &g->step[base + s];
        for (unsigned r = 0; r < step->pw.nresults; r++) {
            unsigned o = step->pw.store[r];
            step->pw.store[r] = 0;
            if (o == GEMS_PW_UNSTORED)
                continue;
            chain_block *b = gems_chain_block_of(d->block[o]);
            step->block[r] = b;
            step->view[r] = b->view = d->view[o];
            b->writer = g;
            /* As codegen stores it: not rounded to the operator's own dtype first. */
            if (step->pw.result[r] == step->pw.compute && gems_dtypes[step->pw.compute].size != 2)
                step->pw.result[r] = (uint8_t)d->view[o].dtype;
        }
    }
    g->nsteps += spec->nsteps;
    g->small = d->small;
    g->calls++;
    return true;
}

/* Nothing was added, or not all: blocks that no group needs are as they were. */
static void let_go(const draft *d)
{
    for (unsigned i = 0; i < d->recipe->spec.noperands; i++) {
        chain_block *b = d->block[i] ? gems_chain_block_of(d->block[i]) : NULL;
        if (b)
            gems_chain_block_drop(b);
    }
}

static bool take(draft *d)
{
    chain_group *g = find_group(d);
    bool taken = g && guard(d, g) && add_steps(g, d);
    if (!taken)
        let_go(d);
    if (g && !g->nsteps) {
        gems_chain_group_free(g);
        return false;
    }
    return taken;
}

/* With what only groups keep no more than a tenth (and a little) above the most that the program alone ever had in use.
 * Of two results in a row the first one is about to go, as a rule. */
static void keep_memory_low(const draft *d)
{
    static size_t most; /* with the lock */
    size_t live = gems_arena_live(), own = live - (gems_chains.kept < live ? gems_chains.kept : live);
    most = own > most ? own : most;
    while (gems_chains.kept && gems_chains.groups &&
           gems_arena_live() > most + most / 10 + CHAIN_SLACK + d->result_bytes) {
        size_t before = gems_chains.kept;
        chain_group *g = gems_chains.groups;
        while (g->next)
            g = g->next;
        finish(g, g->nsteps, GEMS_CAUSE_MEMORY);
        if (gems_chains.kept == before)
            break;
    }
}

bool gems_chain_take(const gems_call *call, gems_work *work)
{
    draft d;
    if (work->trouble.kind != GEMS_TROUBLE_NONE || !work->lower || !make_draft(&d, call, work))
        return false;
    gems_chains_lock();
    int mode = gems_chains.mode;
    bool taken = mode == GEMS_FUSE_ALL || (mode == GEMS_FUSE_AUTO && has_long_rows(&d)) ? take(&d) : false;
    if (taken) {
        gems_chains.counts.calls++;
        keep_memory_low(&d);
    }
    gems_chains_unlock();
    return taken;
}

/* ---- which calls ---- */

int64_t gems_chain_least(gems_fuse mode, const gems_table *table)
{
    int64_t kb = gems_chain_parameters[GEMS_CHAIN_LEAST_KB].initial, asked = gems_table_chain_least(table);
    return mode == GEMS_FUSE_OFF ? INT64_MAX : mode == GEMS_FUSE_ALL ? INT64_MIN : (asked < kb ? asked : kb) << 8;
}

static bool is_owed(const gems_tensor *t)
{
    const chain_block *b = gems_chain_block_at(t->address);
    return b && b->writer;
}

/* Whether an argument is owed: the call goes on with a chain. */
static bool goes_on(const gems_call *call)
{
    return atomic_load_explicit(&gems_chain_active, memory_order_relaxed) && gems_chain_any_tensor(call, is_owed);
}

bool gems_chain_wants(const gems_call *call)
{
    int mode = atomic_load_explicit(&gems_chains.mode, memory_order_relaxed);
    if (mode == GEMS_FUSE_OFF || !call->op->kernel->chains || gems_rule_is_host(call->chain) ||
        (call->host->is_watched && call->host->is_watched()))
        return false;
    int64_t numel = call->sizes.v[GEMS_SIZE_NUMEL];
    return mode == GEMS_FUSE_ALL ||
           (gems_size_bytes(numel, call->dtype) >> 10 >= parameter(call, GEMS_CHAIN_LEAST_KB) &&
            (goes_on(call) || gems_chain_pays(gems_chain_kind(call))));
}

/* ---- reductions ---- */

/* Whether the tensor is a result that is owed, and which step of which group it is. */
static chain_group *owed_by(const gems_tensor *t, unsigned *step, unsigned *result)
{
    gems_block *block = gems_arena_find((const void *)t->address); /* NOLINT(performance-no-int-to-ptr) */
    const chain_block *b = block ? gems_chain_block_of(block) : NULL;
    if (!b || !b->writer || t->ndim > GEMS_DIMS)
        return NULL;
    chain_view view;
    gems_shape shape = {.numel = t->numel};
    memset(&view, 0, sizeof view);
    view.address = t->address;
    view.dtype = t->dtype;
    for (int d = 0; d < t->ndim; d++)
        if (t->sizes[d] != 1) {
            view.stride[shape.ndim] = t->strides[d];
            shape.size[shape.ndim++] = t->sizes[d];
        }
    if (!same_shape(&b->writer->shape, &shape) || memcmp(&b->view, &view, sizeof view) != 0)
        return NULL;
    *step = (unsigned)gems_chain_group_last(b->writer, b, result);
    return as_stored(b->writer, b) ? b->writer : NULL;
}

/* What the call reads beside its first argument, and where that lies again: then it is not for us. */
static bool pin_others(const gems_call *call, bool *pinned)
{
    bool apart = true;
    memset(pinned, 0, GEMS_MAX_ARGS * sizeof *pinned);
    for (unsigned i = 1; i < call->op->nparams && apart; i++) {
        const gems_tensor *t = call->arg[i].kind == GEMS_TENSOR ? call->arg[i].tensor : NULL;
        apart = call->arg[i].kind != GEMS_TENSORS && (!t || gems_tensor_overlap(call->arg[0].tensor, t) == GEMS_APART);
        if (t && apart)
            pinned[i] = gems_chain_pin((const void *)t->address, 1, false); /* NOLINT(performance-no-int-to-ptr) */
    }
    return apart;
}

static bool fold(gems_call *call)
{
    bool done = false;
    unsigned step, result;
    gems_chains_lock();
    chain_group *g;
    while ((g = owed_by(call->arg[0].tensor, &step, &result)) && g->running)
        gems_chains_wait();
    if (g && g->folds < CHAIN_FOLDS)
        done = gems_chain_run_fold(g, step + 1, result, call);
    gems_chains_unlock();
    return done;
}

bool gems_chain_fold(gems_call *call)
{
    bool pinned[GEMS_MAX_ARGS];
    unsigned step, result;
    if (!atomic_load_explicit(&gems_chain_active, memory_order_relaxed) || !call->op->kernel->fold ||
        gems_rule_is_host(call->chain) || call->arg[0].kind != GEMS_TENSOR || !gems_device_get(GEMS_LANE_MAIN)->is_cpu)
        return false;
    gems_chains_lock();
    bool owed = owed_by(call->arg[0].tensor, &step, &result) != NULL;
    gems_chains_unlock();
    if (!owed)
        return false;
    const char *why = call->why;
    bool done = pin_others(call, pinned) && fold(call);
    if (!done) { /* who tries in another way has reasons of its own */
        call->host->drop_results(call);
        call->why = why;
    }
    for (unsigned i = 1; i < call->op->nparams; i++)
        if (pinned[i])
            gems_chain_unpin((const void *)call->arg[i].tensor->address, 1); /* NOLINT(performance-no-int-to-ptr) */
    return done;
}

/* ---- start and end ---- */

static struct {
    atomic_bool runs;
    void (*open)(void);
} opening;

static __thread bool opens; /* this thread does: if a driver forks meanwhile, it is not waited for */

static void *open_device(void *unused)
{
    (void)unused;
    opens = true;
    opening.open();
    gems_chains_lock();
    opening.runs = false;
    pthread_cond_broadcast(&gems_chains.done);
    gems_chains_unlock();
    return NULL;
}

bool gems_chain_is_on(void)
{
    return atomic_load_explicit(&gems_chains.mode, memory_order_relaxed) != GEMS_FUSE_OFF || opening.runs;
}

void gems_chain_end(void *unused)
{
    (void)unused;
    gems_chains_lock();
    while (opening.runs)
        gems_chains_wait();
    gems_chains.mode = GEMS_FUSE_OFF;
    gems_resident_end();
    finish_all();
    gems_chains_unlock();
    if (gems_work_stays())
        gems_queue_rest(GEMS_LANE_MAIN);
    gems_chain_build_stop();
}

static void before_fork(void)
{
    gems_chains_lock();
    while (opening.runs && !opens)
        gems_chains_wait();
    finish_all();
    if (gems_work_stays())
        gems_queue_rest(GEMS_LANE_MAIN);
    gems_chain_build_lock(true);
}

static void in_parent(void)
{
    gems_chain_build_lock(false);
    gems_chains_unlock();
}

static void in_child(void)
{
    gems_chain_build_after_fork();
    gems_adopt_after_fork();
    gems_chain_active = false;
    gems_chains.mode = GEMS_FUSE_OFF;
    pthread_mutex_init(&gems_chains.lock, NULL);
    pthread_cond_init(&gems_chains.done, NULL);
}

static bool watched;

static void watch(void)
{
    watched = pthread_atfork(before_fork, in_parent, in_child) == 0;
}

/* Registered so that gems_chain_end is, too (preload/libc.c). */
static void register_end(void)
{
}

static bool watch_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch);
    return watched;
}

bool gems_chain_open(void (*open)(void))
{
    if (!watch_forks())
        return false;
    opening.open = open;
    opening.runs = true;
    (void)atexit(register_end);
    if (!gems_thread_start(NULL, (size_t)8 << 20, open_device, NULL))
        opening.runs = false;
    return opening.runs;
}

bool gems_chain_start(gems_fuse mode, gems_stay stay)
{
    static const gems_work_memory at_home = {.begin = gems_chain_pin, .end = gems_chain_unpin},
                                  there = {gems_chain_pin,      gems_chain_unpin,       gems_resident_reach,
                                           gems_resident_leave, gems_resident_may_keep, gems_resident_kept,
                                           gems_resident_made,  gems_resident_is_away};
    const gems_device_info *device = gems_device_get(GEMS_LANE_MAIN);
    bool resident = !device->unified && (stay == GEMS_STAY_FORCE || (stay == GEMS_STAY_AUTO && !device->is_cpu));
    mode = resident ? GEMS_FUSE_OFF : mode;
    bool defers = mode != GEMS_FUSE_OFF && !device->short_loops && (device->unified || mode == GEMS_FUSE_ALL);
    if (!(defers || resident) || !watch_forks() || !gems_touch_start(serve))
        return false;
    gems_arena_on_give(keeps);
    gems_work_on_memory(resident ? &there : &at_home);

    /* From now on: what is in use by a system call or a kernel is pinned also while nothing is hidden. If a call that
     * comes later hid it, the system would refuse (EFAULT), and the device's threads would stop where a pass that has
     * to show it waits for them. */
    gems_chain_active = true;
    gems_chains.mode = mode;
    (void)atexit(register_end);
    return true;
}

void gems_chain_count(gems_chain_counts *counts)
{
    gems_chains_lock();
    *counts = gems_chains.counts;
    gems_chains_unlock();
}
