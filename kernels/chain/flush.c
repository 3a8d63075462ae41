/* Computing a group, or its first steps: what must be stored, as one kernel or, where there is none, by the evaluator.
 */
#include "codegen/evaluate.h"
#include "kernels/chain/group.h"
#include "preload/base/thread.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* In steps times elements: less is done by the calling thread, for waking others takes as long. */
#define SHARED_WORK ((int64_t)1 << 17) /* that a further thread of the evaluator is started for */

enum {
    THREADS = 16
};

/* What is computed: a kernel's spec and its operands. */
typedef struct chain_pass {
    const gems_shape *shape;
    gems_pw_memory memory[GEMS_OPERANDS]; /* with strides in `stride` */
    gems_strides stride[GEMS_OPERANDS];
    gems_loops loops;  /* of the evaluator */
    gems_pw_spec spec; /* with room for CHAIN_STEPS */
} chain_pass;

struct chain_pass *gems_chain_pass_new(void)
{
    return malloc(sizeof(chain_pass) + CHAIN_STEPS * sizeof(gems_pw_step));
}

void gems_chain_pass_free(struct chain_pass *pass)
{
    free(pass);
}

/* ---- what must be stored ---- */

/* Of each result of each step: the last step that reads it, and the next one that writes the same memory. */
typedef struct uses {
    uint8_t last[CHAIN_STEPS][GEMS_EXPR_RESULTS]; /* 0: none; else the step's number from 1 */
    uint8_t over[CHAIN_STEPS][GEMS_EXPR_RESULTS]; /* 255: none */
} uses;

static void find_uses(const chain_group *g, uses *u)
{
    memset(u->last, 0, sizeof u->last);
    memset(u->over, 255, sizeof u->over);
    for (unsigned s = 0; s < g->nsteps; s++) {
        const gems_pw_step *p = &g->step[s].pw;
        uint32_t needed = gems_expr_needs(p->expr, p->facts);
        for (unsigned k = 0; k < GEMS_EXPR_NAMES; k++)
            if ((needed >> k & 1) && p->bind[k].step)
                u->last[p->bind[k].step - 1][p->bind[k].index] = (uint8_t)(s + 1);
        for (unsigned r = 0; r < p->nresults; r++)
            for (unsigned t = s; g->step[s].block[r] && t-- > 0;)
                for (unsigned q = 0; q < g->step[t].pw.nresults; q++)
                    if (g->step[t].block[q] == g->step[s].block[r] && u->over[t][q] == 255)
                        u->over[t][q] = (uint8_t)s;
    }
}

/* Whether the result must be stored if the first n steps are computed: the program may still see it, or a later step
 * reads it. */
static bool must_store(const chain_group *g, const uses *u, unsigned n, unsigned s, unsigned r)
{
    const chain_block *b = g->step[s].block[r];
    return u->last[s][r] > n || (b && !b->given && u->over[s][r] == 255);
}

unsigned gems_chain_best_cut(const chain_group *g)
{
    unsigned best = g->nsteps, least = UINT32_MAX;
    uses u;
    find_uses(g, &u);
    for (unsigned n = g->nsteps; n > g->nsteps / 2; n--) {
        unsigned stored = 0;
        for (unsigned s = 0; s < n; s++)
            for (unsigned r = 0; r < g->step[s].pw.nresults; r++)
                stored += must_store(g, &u, n, s, r);
        if (stored < least) {
            least = stored;
            best = n;
        }
    }
    return best;
}

/* Memory for a result that has none any more but is read by a later step. */
static bool take_temporary(chain_group *g, chain_step *s, unsigned r)
{
    chain_view *v = &s->view[r];
    int64_t step = 1;
    memset(v, 0, sizeof *v);
    v->dtype = s->pw.result[r];
    for (int d = g->shape.ndim - 1; d >= 0; d--) {
        v->stride[d] = step;
        step *= g->shape.size[d];
    }
    size_t bytes = (size_t)gems_size_bytes(step, (gems_dtype)v->dtype);
    void *memory = gems_arena_take(bytes, true);
    gems_block *block = memory ? gems_arena_find(memory) : NULL;
    chain_block *b = block ? gems_chain_block(block) : NULL;
    if (!b) {
        if (memory)
            gems_arena_give(memory);
        return false;
    }
    __atomic_store_n(&block->taken, false, __ATOMIC_RELEASE);
    b->given = true;
    gems_chains.kept += block->bytes;
    b->writer = g;
    v->address = (uintptr_t)memory;
    b->view = *v;
    s->block[r] = b;
    return true;
}

/* Whether the first n steps can be computed apart from the others; temporaries are taken. */
static bool can_cut(chain_group *g, const uses *u, unsigned n)
{
    unsigned leaves = 0;
    for (unsigned s = 0; s < n; s++)
        for (unsigned r = 0; r < g->step[s].pw.nresults; r++)
            leaves += u->last[s][r] > n;
    if (leaves + g->nleaves > CHAIN_LEAVES)
        return false;
    for (unsigned s = 0; s < n; s++)
        for (unsigned r = 0; r < g->step[s].pw.nresults; r++)
            if (u->last[s][r] > n && !g->step[s].block[r] && !take_temporary(g, &g->step[s], r))
                return false;
    return true;
}

/* ---- the pass ---- */

static void *place_of(const chain_block *b, const chain_view *v)
{
    uintptr_t shift = b && b->block->place == GEMS_PLACE_HIDDEN ? gems_arena_shift : 0;
    return (void *)(v->address + shift); /* NOLINT(performance-no-int-to-ptr) */
}

static unsigned add_operand(chain_pass *p, unsigned dtype, gems_pw_place place, const chain_view *v, void *address)
{
    unsigned i = p->spec.noperands++;
    p->spec.operand[i] = (gems_pw_operand){.dtype = (uint8_t)dtype, .place = (uint8_t)place};
    if (v)
        memcpy(p->stride[i], v->stride, sizeof p->stride[i]);
    p->memory[i] = (gems_pw_memory){.address = address, .stride = p->stride[i]};
    return i;
}

/* The steps among the first n that are needed, and their operands; u is NULL: for the last one's result r alone, which
 * is not stored. How many results are stored. */
static unsigned write_pass(chain_group *g, const uses *u, unsigned n, unsigned only)
{
    chain_pass *p = g->pass;
    bool needed[CHAIN_STEPS] = {false};
    uint8_t store[CHAIN_STEPS][GEMS_EXPR_RESULTS], number[CHAIN_STEPS];
    int operand[CHAIN_LEAVES];
    memset(&p->spec, 0, sizeof p->spec);
    p->shape = &g->shape;
    for (unsigned s = 0; s < n; s++)
        for (unsigned r = 0; r < g->step[s].pw.nresults; r++) {
            store[s][r] = GEMS_PW_UNSTORED;
            if (u ? !must_store(g, u, n, s, r) : s + 1 != n || r != only)
                continue;
            const chain_view *v = &g->step[s].view[r];
            needed[s] = true;
            store[s][r] = (uint8_t)add_operand(p, (unsigned)v->dtype, GEMS_PW_WRITE, v,
                                               u ? place_of(g->step[s].block[r], v) : NULL);
        }
    unsigned stored = p->spec.noperands;
    for (unsigned i = 0; i < g->nleaves; i++)
        operand[i] = -1;
    for (unsigned s = n; s-- > 0;) {
        const gems_pw_step *step = &g->step[s].pw;
        uint32_t names = needed[s] ? gems_expr_needs(step->expr, step->facts) : 0;
        for (unsigned k = 0; k < GEMS_EXPR_NAMES; k++)
            if ((names >> k & 1) && step->bind[k].step)
                needed[step->bind[k].step - 1] = true;
            else if (names >> k & 1)
                operand[step->bind[k].index] = 0;
    }
    for (unsigned i = 0; i < g->nleaves; i++) {
        const chain_leaf *l = &g->leaf[i];
        if (operand[i] < 0)
            continue;
        operand[i] = -1;
        for (unsigned k = 0; l->block && k < stored; k++) /* in place */
            if (p->memory[k].address == place_of(l->block, &l->view)) {
                p->spec.operand[k].place = GEMS_PW_UPDATE;
                operand[i] = (int)k;
            }
        if (operand[i] >= 0)
            continue;
        operand[i] = (int)add_operand(p, l->dtype, l->value ? GEMS_PW_VALUE : GEMS_PW_READ, l->value ? NULL : &l->view,
                                      l->value  ? NULL
                                      : l->copy ? l->copy
                                                : place_of(l->block, &l->view));
        p->memory[operand[i]].number = l->number;
    }
    for (unsigned s = 0; s < n; s++) {
        if (!needed[s])
            continue;
        gems_pw_step *to = &p->spec.step[p->spec.nsteps++];
        number[s] = p->spec.nsteps;
        *to = g->step[s].pw;
        uint32_t names = gems_expr_needs(to->expr, to->facts);
        for (unsigned k = 0; k < GEMS_EXPR_NAMES; k++)
            if (!(names >> k & 1))
                to->bind[k] = (gems_pw_bind){0};
            else if (to->bind[k].step)
                to->bind[k].step = number[to->bind[k].step - 1];
            else
                to->bind[k].index = (uint8_t)operand[to->bind[k].index];
        for (unsigned r = 0; r < GEMS_EXPR_RESULTS; r++)
            to->store[r] = r < to->nresults ? store[s][r] : 0;
    }
    return stored;
}

/* ---- computing it ---- */

typedef struct part {
    chain_pass *pass;
    int64_t first, last;
    bool done;
} part;

static void *evaluate_part(void *arg)
{
    part *a = arg;
    const gems_loops *loops = &a->pass->loops;
    a->done = gems_pw_evaluate(&a->pass->spec, loops->rank, loops->size, a->pass->memory, a->first, a->last);
    return NULL;
}

/* Nothing else may fail then: so it waits for memory. */
static void evaluate_surely(part *a)
{
    for (evaluate_part(a); !a->done; evaluate_part(a))
        usleep(1000);
}

static void evaluate(chain_pass *p)
{
    gems_strides *strides = p->stride;
    unsigned n = 0, index[GEMS_OPERANDS];
    for (unsigned i = 0; i < p->spec.noperands; i++) /* of those in memory, beside each other */
        if (p->spec.operand[i].place != GEMS_PW_VALUE) {
            index[n] = i;
            if (n != i)
                memcpy(strides[n], strides[i], sizeof *strides);
            n++;
        }
    gems_collapse(p->shape, (int)n, (const gems_strides *)strides, &p->loops);
    for (unsigned k = 0; k < n; k++)
        p->memory[index[k]].stride = p->loops.stride[k];

    int64_t numel = p->shape->numel, threads = numel * p->spec.nsteps / SHARED_WORK;
    if (threads > 1) {
        cpu_set_t mine;
        int64_t most = sched_getaffinity(0, sizeof mine, &mine) == 0 ? CPU_COUNT(&mine) : 1,
                device = gems_device_get(GEMS_LANE_MAIN)->compute_units;
        most = device < most ? device : most; /* as many as the host was to use */
        threads = threads > most ? most : threads;
    }
    threads = threads < 1 ? 1 : threads > THREADS ? THREADS : threads;
    pthread_t thread[THREADS];
    part parts[THREADS];
    bool started[THREADS];
    for (int64_t i = 0; i < threads; i++) {
        parts[i] = (part){p, numel * i / threads, numel * (i + 1) / threads, false};
        started[i] = i > 0 && gems_thread_start(&thread[i], 0, evaluate_part, &parts[i]);
    }
    for (int64_t i = 0; i < threads; i++)
        if (!started[i])
            evaluate_surely(&parts[i]);
    for (int64_t i = 0; i < threads; i++)
        if (started[i]) {
            pthread_join(thread[i], NULL);
            if (!parts[i].done)
                evaluate_surely(&parts[i]);
        }
}

/* The pass as a work of the lane. NULL: see its trouble. */
static void write_work(gems_work *work, const chain_pass *p)
{
    pw_recipe *r = pw_recipe_new(work, p->shape, "chain", NULL, p->spec.noperands, p->spec.nsteps);
    if (!r)
        return;
    r->tables = true;
    for (unsigned i = 0; i < p->spec.noperands; i++) {
        const gems_pw_operand *o = &p->spec.operand[i];
        gems_tensor t = {.address = (uintptr_t)p->memory[i].address,
                         .sizes = p->shape->size,
                         .strides = p->stride[i],
                         .numel = p->shape->numel,
                         .ndim = p->shape->ndim,
                         .dtype = (gems_dtype)o->dtype};
        if (o->place == GEMS_PW_WRITE && !t.address)
            pw_recipe_produced(r, t.dtype);
        else if (o->place == GEMS_PW_VALUE)
            pw_recipe_value(r, (gems_dtype)o->dtype, p->memory[i].number);
        else
            pw_recipe_memory(work, r, &t, o->place == GEMS_PW_READ ? GEMS_PW_READ : GEMS_PW_WRITE);
        if (o->place == GEMS_PW_UPDATE)
            pw_recipe_update(work, r, (int)i);
    }
    memcpy(r->spec.step, p->spec.step, p->spec.nsteps * sizeof *p->spec.step);
    r->spec.nsteps = p->spec.nsteps;
}

/* fold: a call whose first argument is what the pass comes to; NULL: none. */
static bool run_on_device(const chain_group *g, gems_call *fold)
{
    const chain_pass *p = g->pass;
    uint64_t kernel;
    gems_work *work = malloc(sizeof *work);
    if (!work)
        return false;
    gems_work_begin(work, p->shape->numel * p->spec.nsteps < g->small ? GEMS_LANE_SMALL : GEMS_LANE_MAIN);
    work->guarded = true;
    write_work(work, p);
    bool done = work->trouble.kind == GEMS_TROUBLE_NONE && (!fold || fold->op->kernel->fold(fold, work) == GEMS_OK) &&
                work->trouble.kind == GEMS_TROUBLE_NONE;
    if (done && !gems_chain_built(work, &kernel)) {
        gems_chain_awaits(g, kernel);
        done = false;
    }
    done = done && gems_work_execute(work);
    gems_work_end(work);
    free(work);
    return done;
}

/* ---- flushing ---- */

static int64_t bytes_of(const chain_group *g, const chain_view *v)
{
    gems_tensor t = {.sizes = g->shape.size, .strides = v->stride, .numel = g->shape.numel, .ndim = g->shape.ndim};
    return gems_size_bytes(gems_tensor_span(&t), (gems_dtype)v->dtype);
}

/* What the first n calls would have moved one by one, and what the pass moves. */
static void count_bytes(const chain_group *g, unsigned n, int64_t *apart, int64_t *together)
{
    const chain_pass *p = g->pass;
    *apart = *together = 0;
    for (unsigned s = 0; s < n; s++) {
        const gems_pw_step *step = &g->step[s].pw;
        uint32_t names = gems_expr_needs(step->expr, step->facts);
        for (unsigned r = 0; r < step->nresults; r++)
            *apart += gems_size_bytes(g->shape.numel, (gems_dtype)step->result[r]);
        for (unsigned k = 0; k < GEMS_EXPR_NAMES; k++)
            if ((names >> k & 1) && step->bind[k].step)
                *apart += gems_size_bytes(g->shape.numel,
                                          (gems_dtype)g->step[step->bind[k].step - 1].pw.result[step->bind[k].index]);
            else if ((names >> k & 1) && !g->leaf[step->bind[k].index].value)
                *apart += bytes_of(g, &g->leaf[step->bind[k].index].view);
    }
    for (unsigned i = 0; i < p->spec.noperands; i++)
        if (p->spec.operand[i].place != GEMS_PW_VALUE) {
            chain_view v = {.dtype = p->spec.operand[i].dtype};
            memcpy(v.stride, p->stride[i], sizeof v.stride);
            *together += bytes_of(g, &v) * (p->spec.operand[i].place == GEMS_PW_UPDATE ? 2 : 1);
        }
}

void gems_chain_flush(chain_group *g, unsigned n, gems_cause cause)
{
    uses u;
    find_uses(g, &u);
    if (n < g->nsteps && !can_cut(g, &u, n))
        n = g->nsteps;
    unsigned stored = write_pass(g, &u, n, 0);
    gems_chain_counts *c = &gems_chains.counts;
    int64_t apart, together;
    count_bytes(g, n, &apart, &together);
    for (unsigned s = 0; s < n; s++)
        c->unstored += g->step[s].pw.nresults;
    c->unstored -= stored;
    c->causes[cause]++;
    c->bytes_saved += (uint64_t)(apart > together ? apart - together : 0);
    if (!g->unready)
        gems_chain_learn(g, apart, together, stored);
    if (stored) {
        c->passes++;
        c->steps += g->pass->spec.nsteps;
        g->running = true;
        gems_chains_unlock();
        /* The threads of the device may be waiting for this very pass. */
        bool blocked = cause == GEMS_CAUSE_TOUCH && gems_work_any_unguarded();
        bool done = !blocked && run_on_device(g, NULL);
        if (!done)
            evaluate(g->pass);
        gems_chains_lock();
        g->running = false;
        c->evaluated += !done;
    }
    bool rests = n < g->nsteps;
    gems_chain_group_cut(g, n);
    if (rests && gems_chain_group_is_dead(g)) /* whoever held the rest's results has given them back meanwhile */
        gems_chain_group_free(g);
    pthread_cond_broadcast(&gems_chains.done);
}

bool gems_chain_run_fold(chain_group *g, unsigned n, unsigned result, gems_call *call)
{
    write_pass(g, NULL, n, result);
    g->running = true;
    gems_chains_unlock();
    bool done = run_on_device(g, call);
    gems_chains_lock();
    g->running = false;
    g->unready |= !done;
    if (done) {
        g->folds++;
        gems_chains.counts.folds++;
        gems_chains.counts.passes++;
        gems_chains.counts.steps += g->pass->spec.nsteps;
    }
    pthread_cond_broadcast(&gems_chains.done);
    return done;
}
