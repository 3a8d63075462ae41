/* For bench/functions.py, through ctypes: an operator's pointwise kernel, alone or with cheap steps before and behind
 * it, run without PyTorch. All tensors are dense, of one dimension. */
#include "kernels/family.h"
#include "kernels/host.h"
#include "kernels/pointwise/recipe.h"
#include "tune/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

/* An argument as Python gives it. */
typedef struct chain_arg {
    int kind;  /* gems_kind: none, a tensor, a number, a text, a dtype */
    int dtype; /* gems_dtype, of a tensor */
    const void *address;
    double f;
    int64_t i;
} chain_arg;

typedef struct chain {
    gems_work work;
    gems_call call;
    gems_tensor tensor[GEMS_MAX_ARGS];
    int64_t size, stride;
    void *memory[GEMS_MAX_RESULTS]; /* of results */
} chain;

EXPORTED chain *chain_new(const char *op, const chain_arg *args, int n, int64_t numel, int cheap, int with, char *why,
                          size_t room);
EXPORTED void *chain_result(chain *c);
EXPORTED int chain_result_dtype(chain *c);
EXPORTED double chain_run(chain *c, int times);
EXPORTED void chain_free(chain *c);
EXPORTED int chain_count(void);
EXPORTED int64_t chain_instructions(void);

/* ---- a host of which every result has room for any dtype ---- */

static bool make(gems_call *call, unsigned i, gems_dtype dtype, bool complex, int ndim, const int64_t *sizes,
                 const int64_t *strides)
{
    chain *c = (chain *)((char *)call - offsetof(chain, call));
    (void)sizes, (void)strides;
    if (complex || !(c->memory[i] = aligned_alloc(64, ((size_t)c->size * 8 + 63) & ~(size_t)63)))
        return false;
    memset(c->memory[i], 0, (size_t)c->size * 8);
    call->result[i] = (gems_tensor){.sizes = &c->size,
                                    .strides = &c->stride,
                                    .numel = c->size,
                                    .ndim = ndim,
                                    .dtype = dtype,
                                    .address = (uintptr_t)c->memory[i],
                                    .host = c->memory[i]};
    return true;
}

static bool is_complex(const gems_tensor *t, gems_dtype part)
{
    (void)t, (void)part;
    return false;
}

static void drop(gems_tensor *t)
{
    (void)t;
}

static gems_dtype default_dtype(void)
{
    return GEMS_F32;
}

static void set_min_numel(unsigned op, int64_t min_numel)
{
    (void)op, (void)min_numel;
}

static const gems_host host = {make, is_complex, drop, default_dtype, set_min_numel};

/* ---- cheap steps ---- */

/* "x * y" or "x + y" of what a step or an operand gives (x) and an operand (y). */
static void cheap_step(gems_pw_spec *s, const gems_expr *expr, gems_dtype dtype, gems_pw_bind x, unsigned y)
{
    gems_pw_step *step = &s->step[s->nsteps++];
    memset(step, 0, sizeof *step);
    step->expr = expr;
    step->compute = step->result[0] = (uint8_t)dtype;
    step->nresults = 1;
    step->store[0] = GEMS_PW_UNSTORED;
    step->bind[0] = x;
    step->bind[0].dtype = (uint8_t)dtype;
    step->bind[1] = (gems_pw_bind){0, (uint8_t)y, (uint8_t)dtype, 0};
}

/* x * 1 * 1 before and y * a + b behind, where a and b are the operator's further tensors, so that they are read
 * whether or not the operator itself is there. */
static pw_recipe *with_room(gems_work *work)
{
    uint32_t at = work->recipe;
    gems_shape shape = pw_recipe_of(work)->shape;
    pw_recipe *r = pw_recipe_new(work, &shape, "chain", NULL, GEMS_OPERANDS, GEMS_PW_STEPS);
    pw_recipe *old = (pw_recipe *)(void *)(work->bytes + at);
    if (r) {
        memcpy(&r->spec, &old->spec, gems_pw_spec_bytes(&old->spec));
        memcpy(pw_recipe_in(r), pw_recipe_in(old), old->spec.noperands * sizeof(pw_in));
    }
    return r;
}

static bool add_cheap(gems_work *work, gems_dtype dtype, bool with)
{
    static const char *const names[] = {"x", "y"};
    gems_expr_error error;
    const gems_expr *product = gems_expr_parse("x * y", names, 2, NULL, &error);
    const gems_expr *sum = gems_expr_parse("x + y", names, 2, NULL, &error);
    pw_recipe *r = with_room(work);
    if (!r)
        return false;
    gems_pw_spec *s = &r->spec;
    const gems_pw_step step = s->step[0];
    unsigned first = GEMS_OPERANDS, more[2], nmore = 0;
    for (unsigned i = 0; i < s->noperands; i++)
        if (s->operand[i].place == GEMS_PW_READ && s->operand[i].dtype == dtype) {
            if (first == GEMS_OPERANDS)
                first = i;
            else if (nmore < 2)
                more[nmore++] = i;
        }
    gems_element one = {0};
    gems_number_element((gems_number){.category = GEMS_CAT_FLOAT, .f = 1}, GEMS_F32, &one);
    const int number = pw_recipe_value(r, GEMS_F32, one);
    if (!product || !sum || s->nsteps != 1 || first == GEMS_OPERANDS || number < 0)
        return false;
    while (nmore < 2)
        more[nmore++] = (unsigned)number;
    s->nsteps = 0;
    cheap_step(s, gems_expr_first(product), dtype, (gems_pw_bind){0, (uint8_t)first, 0, 0}, (unsigned)number);
    cheap_step(s, gems_expr_first(product), dtype, (gems_pw_bind){1, 0, 0, 0}, (unsigned)number);
    if (with) {
        gems_pw_step *own = &s->step[s->nsteps++];
        *own = step;
        for (unsigned i = 0; i < GEMS_EXPR_RESULTS; i++)
            own->store[i] = GEMS_PW_UNSTORED;
        for (unsigned i = 0; i < gems_expr_name_count(own->expr); i++)
            if (own->bind[i].step == 0 && own->bind[i].index == first) {
                own->bind[i].step = 2;
                own->bind[i].index = 0;
            }
    }
    cheap_step(s, gems_expr_first(product), dtype, (gems_pw_bind){s->nsteps, 0, 0, 0}, more[0]);
    cheap_step(s, gems_expr_first(sum), dtype, (gems_pw_bind){s->nsteps, 0, 0, 0}, more[1]);
    s->step[s->nsteps - 1].store[0] = 0;
    s->operand[0].dtype = (uint8_t)dtype;
    gems_operand *out = &work->operand[pw_recipe_in(r)[0].operand];
    out->element = gems_dtypes[dtype].size;
    out->span = (size_t)r->shape.numel * out->element;
    r->name = with ? "with" : "without";
    return true;
}

/* ---- what Python calls ---- */

static bool prepare(chain *c, const chain_arg *args, int n, int cheap, int with)
{
    gems_dtype dtype = GEMS_F32;
    memset(&c->call.sizes, -1, sizeof c->call.sizes);
    for (int i = n - 1; i >= 0; i--) {
        gems_value *v = &c->call.arg[i];
        v->kind = (gems_kind)args[i].kind;
        if (v->kind == GEMS_TENSOR) {
            c->tensor[i] = (gems_tensor){.sizes = &c->size,
                                         .strides = &c->stride,
                                         .numel = c->size,
                                         .ndim = 1,
                                         .dtype = (gems_dtype)args[i].dtype,
                                         .address = (uintptr_t)args[i].address,
                                         .host = &c->tensor[i]};
            v->tensor = &c->tensor[i];
            dtype = args[i].dtype == GEMS_BOOL ? dtype : (gems_dtype)args[i].dtype;
        } else if (v->kind == GEMS_SCALAR_FLOAT)
            v->f = args[i].f;
        else if (v->kind == GEMS_STR) {
            v->str.s = args[i].address;
            v->str.n = strlen(args[i].address);
        } else if (v->kind == GEMS_DTYPE)
            v->dtype = (gems_dtype)args[i].dtype;
        else
            v->i = args[i].i;
    }
    return c->call.op && c->call.op->kernel && c->call.op->nparams == n && gems_device_open() &&
           c->call.op->kernel->plan(&c->call) == GEMS_OK &&
           c->call.op->kernel->prepare(&c->call, &c->work) == GEMS_OK && (!cheap || add_cheap(&c->work, dtype, with)) &&
           gems_work_run(&c->work, &c->call) == GEMS_OK;
}

/* NULL: `why` tells. */
chain *chain_new(const char *op, const chain_arg *args, int n, int64_t numel, int cheap, int with, char *why,
                 size_t room)
{
    chain *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->size = numel;
    c->stride = 1;
    c->call.op = gems_op_find(op);
    c->call.host = &host;
    gems_work_begin(&c->work, GEMS_LANE_MAIN);
    if (prepare(c, args, n, cheap, with))
        return c;
    snprintf(why, room, "%s", c->call.why ? c->call.why : "not a pointwise operator, or other parameters");
    chain_free(c);
    return NULL;
}

void *chain_result(chain *c)
{
    return c->memory[0];
}

int chain_result_dtype(chain *c)
{
    return (int)c->call.result[0].dtype;
}

/* Seconds of the quickest of so many runs; negative: one has failed. */
double chain_run(chain *c, int times)
{
    double best = 1e9;
    for (int i = 0; i < times; i++) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        if (gems_work_run(&c->work, &c->call) != GEMS_OK)
            return -1;
        clock_gettime(CLOCK_MONOTONIC, &to);
        const double t = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
        best = t < best ? t : best;
    }
    return best;
}

void chain_free(chain *c)
{
    gems_work_end(&c->work);
    for (unsigned i = 0; i < GEMS_MAX_RESULTS; i++)
        free(c->memory[i]);
    free(c);
}

/* ---- instructions, of this thread and all that it starts from now on: PoCL's among them ---- */

static int counter = -1;

/* 0, or -1 where they cannot be counted. */
int chain_count(void)
{
    struct perf_event_attr attr = {.type = PERF_TYPE_HARDWARE,
                                   .size = sizeof attr,
                                   .config = PERF_COUNT_HW_INSTRUCTIONS,
                                   .inherit = 1,
                                   .exclude_kernel = 1,
                                   .exclude_hv = 1};
    counter = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
    return counter < 0 || chain_instructions() < 0 ? -1 : 0;
}

int64_t chain_instructions(void)
{
    int64_t n = -1;
    return read(counter, &n, sizeof n) == sizeof n ? n : -1;
}
