/* A host without PyTorch whose tensors lie in blocks of the arena, and whose calls are deferred. Beside every memory is
 * a twin in plain memory, on which the same calls are computed one by one: at any time both must hold the same bytes.
 *
 *   node *x = node_new(GEMS_F32, SHAPE(8, 9)), *y = apply("add.Tensor", T(x), T(x), I(1));
 *   node *half = node_view(y, 0, SHAPE(4, 9), (int64_t[]){9, 1});
 *   apply("neg_", T(half));
 *   chain_same(y);                                     touches y
 *   node_free(x) ...
 *
 * No test framework in here: a failure is printed and counted in trial_failures. */
#ifndef CHAIN_JOBS_H
#define CHAIN_JOBS_H

#include "codegen/evaluate.h"
#include "kernels/chain/group.h"
#include "tests/unit/family.h"

#include <time.h>
#include <unistd.h>

typedef struct store {
    char *memory, *twin;
    size_t bytes;
    bool ours; /* a block of the arena */
    atomic_int nodes;
} store;

/* A tensor. */
typedef struct node {
    gems_tensor t, twin;
    int64_t sizes[DIMS], strides[DIMS];
    store *store;
} node;

static __thread long chain_deferred, chain_apart; /* calls of this thread */
static atomic_bool chain_quiet;                   /* memory is looked at through gems_chain_settle, not touched */

/* ---- tensors ---- */

static store *store_new(size_t bytes, bool ours, bool hidden)
{
    store *s = calloc(1, sizeof *s);
    s->bytes = bytes;
    s->ours = ours;
    s->memory = ours ? gems_arena_take(bytes, hidden) : aligned_alloc(64, (bytes + 64) & ~(size_t)63);
    s->twin = aligned_alloc(64, (bytes + 64) & ~(size_t)63);
    if (!s->memory || !s->twin)
        abort();
    memset(s->twin, 0, bytes);
    return s;
}

static node *node_on(store *s, int64_t first, gems_dtype dtype, shape sh, const int64_t *strides)
{
    node *x = calloc(1, sizeof *x);
    memcpy(x->sizes, sh.size, sizeof x->sizes);
    dense_strides(sh, 1, x->strides);
    if (strides)
        memcpy(x->strides, strides, (size_t)sh.ndim * sizeof *strides);
    x->store = s;
    s->nodes++;
    x->t = (gems_tensor){.sizes = x->sizes,
                         .strides = x->strides,
                         .numel = count(sh),
                         .ndim = sh.ndim,
                         .dtype = dtype,
                         .host = x,
                         .address = (uintptr_t)s->memory + (size_t)first * gems_dtypes[dtype].size};
    x->twin = x->t;
    x->twin.address = (uintptr_t)s->twin + (size_t)first * gems_dtypes[dtype].size;
    return x;
}

static __thread uint64_t chain_seed = 88172645463325252u;

/* Elements of both, written by the host. */
static void node_fill(node *x)
{
    operand o = {.t = x->twin};
    shape sh = {.ndim = x->t.ndim};
    if (sh.ndim)
        memcpy(sh.size, x->sizes, sizeof sh.size);
    memcpy(o.strides, x->strides, sizeof o.strides);
    EACH (c, sh)
        put(&o, c, any_value(&chain_seed, x->t.dtype));
    size_t span = (size_t)gems_tensor_span(&x->t) * gems_dtypes[x->t.dtype].size;
    if (chain_quiet)
        gems_chain_settle((void *)x->t.address, span, true, GEMS_CAUSE_TOUCH);
    memcpy((void *)x->t.address, (void *)x->twin.address, span);
}

static inline node *node_new_in(gems_dtype dtype, shape sh, bool ours)
{
    store *s = store_new((size_t)count(sh) * gems_dtypes[dtype].size, ours, false);
    node *x = node_on(s, 0, dtype, sh, NULL);
    node_fill(x);
    return x;
}

static inline node *node_new(gems_dtype dtype, shape sh)
{
    return node_new_in(dtype, sh, true);
}

/* Other elements of the same memory; first: of it, in elements. */
static inline node *node_view(node *of, int64_t first, shape sh, const int64_t *strides)
{
    return node_on(of->store, first, of->t.dtype, sh, strides);
}

static void node_free(node *x)
{
    store *s = x->store;
    free(x);
    if (--s->nodes)
        return;
    if (s->ours)
        gems_arena_give(s->memory);
    else
        free(s->memory);
    free(s->twin);
    free(s);
}

/* Whether both memories hold the same. */
static inline bool chain_same(const node *x)
{
    const store *s = x->store;
    if (chain_quiet)
        gems_chain_settle(s->memory, s->bytes, false, GEMS_CAUSE_TOUCH);
    if (memcmp(s->memory, s->twin, s->bytes) == 0)
        return true;
    size_t i = 0;
    while (s->memory[i] == s->twin[i])
        i++;
    failed("byte %zu of %zu is other than computed apart (%s)", i, s->bytes, gems_dtypes[x->t.dtype].name);
    return false;
}

/* ---- the host ---- */

static __thread node *chain_made[GEMS_MAX_RESULTS]; /* results of the call, made for the first of its two runs */
static __thread bool chain_twin_runs;
/* For who replaces malloc: while a call is taken, the n-th allocation fails, and all if n is negative. */
static __thread long chain_fail_at, chain_memory_fails;

static bool chain_make(gems_call *call, unsigned i, gems_dtype dtype, bool complex, int ndim, const int64_t *sizes,
                       const int64_t *strides)
{
    shape sh = {.ndim = ndim};
    if (ndim)
        memcpy(sh.size, sizes, (size_t)ndim * sizeof *sizes);
    if (complex)
        return gems_decline(call, "complex"), false;
    if (!chain_twin_runs) {
        gems_tensor t = {.numel = count(sh), .ndim = ndim, .dtype = dtype, .sizes = sh.size};
        int64_t dense[DIMS] = {0};
        dense_strides(sh, 1, dense);
        t.strides = strides ? strides : dense;
        store *s = store_new((size_t)gems_tensor_span(&t) * gems_dtypes[dtype].size, true, gems_arena_hides);
        chain_made[i] = node_on(s, 0, dtype, sh, strides);
    }
    call->result[i] = chain_twin_runs ? chain_made[i]->twin : chain_made[i]->t;
    return true;
}

static bool chain_is_complex(const gems_tensor *t, gems_dtype part)
{
    (void)t, (void)part;
    return false;
}

static void chain_drop_results(gems_call *call)
{
    for (unsigned i = 0; i < call->op->nresults; i++)
        if (call->has_result[i] && call->op->form == GEMS_FUNCTIONAL) {
            node_free(chain_made[i]);
            chain_made[i] = NULL;
            call->has_result[i] = false;
        }
}

static const gems_host chain_host = {.make = chain_make,
                                     .is_complex = chain_is_complex,
                                     .default_dtype = fake_default_dtype,
                                     .drop_results = chain_drop_results};

/* ---- calls ---- */

#define T(x) ((gems_value){.kind = GEMS_TENSOR, .tensor = &(x)->t})
#define I(v) ((gems_value){.kind = GEMS_SCALAR_INT, .i = (v)})
#define F(v) ((gems_value){.kind = GEMS_SCALAR_FLOAT, .f = (v)})
#define D(v) ((gems_value){.kind = GEMS_DTYPE, .dtype = (v)})
#define NONE ((gems_value){.kind = GEMS_NONE})

/* What a work computes, on the host, apart from all others. */
static bool evaluate_alone(gems_work *work)
{
    const pw_recipe *r = pw_recipe_of(work);
    gems_strides strides[GEMS_OPERANDS];
    gems_pw_memory memory[GEMS_OPERANDS];
    gems_loops loops;
    int n = 0;
    for (unsigned i = 0; i < r->spec.noperands; i++)
        if (pw_recipe_in((pw_recipe *)r)[i].operand >= 0)
            memcpy(strides[n++], pw_recipe_in((pw_recipe *)r)[i].stride, sizeof *strides);
    gems_collapse(&r->shape, n, (const gems_strides *)strides, &loops);
    n = 0;
    for (unsigned i = 0; i < r->spec.noperands; i++) {
        const pw_in *in = &pw_recipe_in((pw_recipe *)r)[i];
        const gems_operand *o = in->operand < 0 ? NULL : &work->operand[in->operand];
        memory[i] = (gems_pw_memory){.address = o ? (void *)(o->allocation + o->offset) : NULL,
                                     .number = in->number,
                                     .stride = o ? loops.stride[n++] : NULL};
    }
    return gems_pw_evaluate(&r->spec, loops.rank, loops.size, memory, 0, r->shape.numel);
}

static void chain_call_begin(gems_call *call, const gems_op *op, const gems_value *arg, gems_tensor *twins)
{
    memset(call, 0, sizeof *call);
    call->op = op;
    call->host = &chain_host;
    memset(&call->sizes, -1, sizeof call->sizes);
    memcpy(call->arg, arg, op->nparams * sizeof *arg);
    for (unsigned i = 0; twins && i < op->nparams; i++)
        if (arg[i].kind == GEMS_TENSOR) {
            twins[i] = ((node *)arg[i].tensor->host)->twin;
            call->arg[i].tensor = &twins[i];
        }
}

static gems_table *chain_table; /* whose rules for chains hold; NULL: none */

/* As preload/engine/route.c. */
static bool chain_defer(gems_call *call)
{
    gems_work *work = malloc(sizeof *work);
    gems_work_begin(work, GEMS_LANE_MAIN);
    gems_arena_hides = true;
    gems_status status = call->op->kernel->prepare(call, work);
    gems_arena_hides = false;
    chain_memory_fails = chain_fail_at;
    bool taken = status == GEMS_OK && gems_chain_take(call, work);
    chain_memory_fails = 0;
    gems_work_end(work);
    free(work);
    if (!taken)
        chain_drop_results(call);
    return taken;
}

/* Not deferred: on the device, or as the host would. twin: plain memory, on the host. */
static bool chain_run(gems_call *call, bool twin)
{
    gems_work *work = malloc(sizeof *work);
    gems_work_begin(work, gems_work_stays() ? GEMS_LANE_MAIN : GEMS_LANE_SMALL);
    gems_arena_hides = gems_work_stays() && !twin;
    bool done = call->op->kernel->prepare(call, work) == GEMS_OK && work->trouble.kind == GEMS_TROUBLE_NONE;
    gems_arena_hides = false;
    bool by_device = done && !twin && (!chain_quiet || gems_work_stays()) && gems_work_execute(work);
    for (unsigned i = 0; done && !twin && !by_device && i < work->noperands; i++)
        gems_chain_settle((void *)(work->operand[i].allocation + work->operand[i].offset), 1,
                          work->operand[i].access & GEMS_WRITE, GEMS_CAUSE_OPERATOR);
    done = done && (by_device || evaluate_alone(work));
    gems_work_end(work);
    free(work);
    return done;
}

/* Runs a call on both memories. The first result, all are in chain_made; of an in-place or out operator it is what was
 * given. NULL: the operator declines, and nothing has changed. */
static node *chain_apply(const char *name, const gems_value *arg, unsigned n)
{
    const gems_op *op = gems_op_find(name);
    gems_call call;
    gems_tensor twins[GEMS_MAX_ARGS];
    if (!op || !op->kernel || n != op->nparams) {
        fprintf(stderr, "%s: no such operator, or not of %u arguments\n", name, n);
        abort();
    }
    memset(chain_made, 0, sizeof chain_made);
    chain_call_begin(&call, op, arg, NULL);
    if (op->kernel->plan(&call) != GEMS_OK)
        return NULL;
    call.chain = gems_table_chain(chain_table, op, call.dtype, &call.sizes);
    bool deferred = gems_chain_wants(&call) && chain_defer(&call);
    bool done = deferred || chain_run(&call, false);
    *(deferred ? &chain_deferred : &chain_apart) += 1;
    node *first = done ? (op->form == GEMS_FUNCTIONAL ? chain_made[0] : call.result[0].host) : NULL;
    if (!done)
        return NULL;
    chain_twin_runs = true;
    chain_call_begin(&call, op, arg, twins);
    done = op->kernel->plan(&call) == GEMS_OK && chain_run(&call, true);
    chain_twin_runs = false;
    if (!done)
        failed("%s: not possible on plain memory: %s", name, call.why ? call.why : "no reason");
    return first;
}
#define apply(name, ...)                                                                                               \
    chain_apply(name, (const gems_value[]){__VA_ARGS__}, sizeof((const gems_value[]){__VA_ARGS__}) / sizeof(gems_value))

/* ---- what is known of a block ---- */

static inline const gems_block *block_of(const node *x)
{
    return gems_arena_find(x->store->memory);
}
static inline bool is_owed(const node *x)
{
    const chain_block *b = gems_chain_block_of(block_of(x));
    return b && b->writer;
}
static inline gems_chain_counts chain_counts(void)
{
    gems_chain_counts c;
    gems_chain_count(&c);
    return c;
}

/* Nothing may be left when nobody holds a tensor. */
static inline bool chain_is_empty(void)
{
    return !gems_chains.groups && !gems_chains.blocks && !gems_chains.kept;
}

#endif
