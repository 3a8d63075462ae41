/* A call of an operator on a host without PyTorch, run with every variant of its family on both lanes and compared with
 * what a plain loop computed.
 *
 *   trial t;
 *   trial_begin(&t, "add.Tensor");
 *   operand *a = tensor(&t, GEMS_F32, SLICED, SHAPE(3, 4)), *b = ...;    arguments, in the order of the schema
 *   integer(&t, 2);
 *   expected *e = expect(&t, 0, GEMS_F32, SHAPE(3, 4));                   what result 0 is to be
 *   EACH (c, e->shape)
 *       *want(e, c) = at(a, c) + 2 * at(b, c);
 *   trial_run(&t);
 *
 * Values are compared with the step of the result's dtype there, and with `slack` roundings of the sum of |terms| that
 * the value is made of, nothing else; integers, bool and what is only moved exactly. Whatever lies around the elements
 * of a result, and every operand that is only read, must keep its bytes.
 *
 * What is run is a copy of the work, after the call, its arguments and the work itself are gone; and it is run twice.
 *
 * No test framework in here: a failure is printed and counted in trial_failures. */
#ifndef GEMS_TEST_FAMILY_H
#define GEMS_TEST_FAMILY_H

#include "tests/unit/fake_host.h"
#include "tests/unit/sample.h"
#include "kernels/family.h"
#include "kernels/work/launcher.h"
#include "tune/table.h"

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

enum {
    DIMS = FAKE_DIMS,
    MARGIN = 64, /* bytes around a tensor's memory */
    HELD = 128,  /* tensors of a trial */
    FAMILIES = 32,
    VARIANTS = 8
};

typedef struct shape {
    int ndim;
    int64_t size[DIMS];
} shape;
#define SHAPE(...) ((shape){(int)(sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t)), {__VA_ARGS__}})

static inline int64_t count(shape s)
{
    int64_t n = 1;
    for (int d = 0; d < s.ndim; d++)
        n *= s.size[d];
    return n;
}

/* Coordinates one after another, the last dimension fastest. */
static inline void advance(const shape *s, int64_t *c)
{
    for (int d = s->ndim - 1; d >= 0 && ++c[d] == s->size[d]; d--)
        c[d] = 0;
}
#define EACH(c, s) for (int64_t c[DIMS] = {0}, left_##c = count(s); left_##c > 0; left_##c--, advance(&(s), c))

/* ---- tensors ---- */

typedef enum layout {
    DENSE,
    TRANSPOSED, /* the last two dimensions have changed places */
    SLICED,     /* every second element of rows that are longer */
    EXPANDED,   /* the first dimension repeats the same memory */
    OFFSET,     /* dense, three elements into its memory */
    LAYOUTS,
    CHANNELS_LAST /* of images: the second dimension is the fastest */
} layout;

typedef struct operand {
    gems_tensor t;
    shape shape;
    int64_t strides[DIMS];
    gems_dtype part; /* of a complex one */
    size_t bytes;
    unsigned char *memory, *before;
} operand;

/* In elements. */
static inline int64_t offset_of(const operand *o, const int64_t *c)
{
    int64_t at = 0;
    for (int d = 0; d < o->t.ndim; d++)
        at += c[d] * o->strides[d];
    return at;
}

static inline char *place(const operand *o, const int64_t *c)
{
    return (char *)o->t.address + offset_of(o, c) * gems_dtypes[o->t.dtype].size;
}

static inline double at(const operand *o, const int64_t *c)
{
    return gems_number_double(gems_element_number(o->t.dtype, place(o, c)));
}
#define AT(o, ...) at(o, (const int64_t[DIMS]){__VA_ARGS__})

/* The element that broadcasting puts there. */
static inline double at_broadcast(const operand *o, const shape *to, const int64_t *c)
{
    int64_t own[DIMS] = {0};
    for (int d = 0; d < o->t.ndim; d++)
        own[d] = o->shape.size[d] == 1 ? 0 : c[to->ndim - o->t.ndim + d];
    return at(o, own);
}

static inline void put(const operand *o, const int64_t *c, double v)
{
    gems_element e = {0};
    gems_number n = {.category = GEMS_CAT_FLOAT, .f = v};
    if (gems_dtypes[o->t.dtype].category != GEMS_CAT_FLOAT)
        n = (gems_number){.category = GEMS_CAT_INT, .i = (int64_t)v};
    gems_number_element(n, o->t.dtype, &e);
    memcpy(place(o, c), &e, gems_dtypes[o->t.dtype].size);
}

/* Values whose sizes differ by up to 2^8, of both signs, few enough to meet twice; small integers. */
static inline double any_value(uint64_t *seed, gems_dtype dtype)
{
    uint64_t r = *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    r >>= 33;
    if (dtype == GEMS_BOOL)
        return r & 1;
    if (gems_dtypes[dtype].category == GEMS_CAT_INT)
        return (double)(r % 10) * (r >> 8 & 1 && dtype != GEMS_U8 ? -1 : 1);
    return ldexp((r >> 20 & 1 ? -1 : 1) * (1 + (double)(r % 128) / 128), (int)(r >> 8 & 7) - 5);
}

/* With every byte of its memory written, also those that are no elements. */
static inline operand *operand_new(gems_dtype dtype, bool complex, shape s, const int64_t *strides, int64_t first)
{
    operand *o = calloc(1, sizeof *o);
    size_t size = gems_dtypes[dtype].size * (complex + 1u);
    o->shape = s;
    o->part = dtype;
    memcpy(o->strides, strides, sizeof o->strides);
    o->t = (gems_tensor){.sizes = o->shape.size,
                         .strides = o->strides,
                         .numel = count(s),
                         .ndim = s.ndim,
                         .dtype = complex ? GEMS_DTYPE_NONE : dtype,
                         .host = o};
    o->bytes = ((size_t)(first + gems_tensor_span(&o->t)) * size + 2 * MARGIN + 63) & ~(size_t)63;
    o->memory = aligned_alloc(64, o->bytes);
    o->before = malloc(o->bytes);
    memset(o->memory, 0x5a, o->bytes);
    memcpy(o->before, o->memory, o->bytes);
    o->t.address = (uintptr_t)o->memory + MARGIN + (size_t)first * size;
    return o;
}

static inline void operand_free(operand *o)
{
    free(o->memory);
    free(o->before);
    free(o);
}

static inline void dense_strides(shape s, int64_t step, int64_t *strides)
{
    for (int d = s.ndim - 1; d >= 0; d--) {
        strides[d] = step;
        step *= s.size[d];
    }
}

static inline operand *operand_with(gems_dtype dtype, layout l, shape s)
{
    int64_t strides[DIMS] = {0};
    shape around = s;
    int last = s.ndim - 1;
    if (l == TRANSPOSED && last > 0) {
        around.size[last] = s.size[last - 1];
        around.size[last - 1] = s.size[last];
    } else if (l == SLICED && last >= 0) {
        around.size[last] += 3;
    } else if (l == EXPANDED && last >= 0) {
        around.size[0] = 1;
    }
    dense_strides(around, l == SLICED ? 2 : 1, strides);
    if (l == TRANSPOSED && last > 0) {
        int64_t x = strides[last];
        strides[last] = strides[last - 1];
        strides[last - 1] = x;
    } else if (l == EXPANDED && last >= 0) {
        strides[0] = 0;
    } else if (l == CHANNELS_LAST) {
        strides[1] = 1;
        strides[3] = s.size[1];
        strides[2] = s.size[3] * strides[3];
        strides[0] = s.size[2] * strides[2];
    }
    operand *o = operand_new(dtype, false, s, strides, l == OFFSET ? 3 : 0);
    uint64_t seed = (uint64_t)(l * 31 + dtype * 7 + s.ndim + 1);
    EACH (c, s)
        put(o, c, any_value(&seed, dtype));
    return o;
}

/* ---- the host ---- */

static inline bool family_make(gems_call *call, unsigned i, gems_dtype dtype, bool complex, int ndim,
                               const int64_t *sizes, const int64_t *strides)
{
    int64_t dense[DIMS] = {0};
    shape s = {.ndim = ndim};
    if (ndim)
        memcpy(s.size, sizes, (size_t)ndim * sizeof *sizes);
    dense_strides(s, 1, dense);
    if (strides && ndim)
        memcpy(dense, strides, (size_t)ndim * sizeof *strides);
    call->result[i] = operand_new(dtype, complex, s, dense, 0)->t;
    return true;
}

static inline bool family_is_complex(const gems_tensor *t, gems_dtype part)
{
    return t->dtype == GEMS_DTYPE_NONE && ((operand *)t->host)->part == part;
}

static inline void family_drop(gems_tensor *t)
{
    operand_free(t->host);
}

static const gems_host family_host = {family_make, family_is_complex, family_drop, fake_default_dtype,
                                      fake_set_min_numel};

/* ---- a trial ---- */

typedef struct expected {
    gems_dtype dtype; /* of a complex one: its parts', which are a last dimension of 2 */
    bool complex;
    shape shape;
    double *value, *terms;
} expected;

typedef struct trial {
    gems_call call;
    unsigned nargs, nheld, ints_used;
    operand *held[HELD];
    gems_tensor list[HELD];
    int64_t ints[16];
    expected result[3];
    unsigned nexpected;
    double slack;    /* roundings of the sum of |terms|, in what the kernel computes with */
    bool exact;      /* what is only moved */
    bool parameters; /* run with every parameter of a variant set by the rule, too */
    bool quick;      /* on the main lane only, and without CLBlast, which takes seconds to build a kernel */
} trial;

static _Atomic long trial_failures;

/* What has run in this thread. */
static _Thread_local struct {
    const gems_family *family;
    unsigned runs[GEMS_LANE_COUNT][VARIANTS];
} covered[FAMILIES];

static inline void failed(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline void failed(const char *fmt, ...)
{
    if (atomic_fetch_add(&trial_failures, 1) >= 20)
        return;
    va_list args;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

static inline void trial_begin(trial *t, const char *op)
{
    memset(t, 0, sizeof *t);
    t->slack = 4;
    t->call.op = gems_op_find(op);
    t->call.host = &family_host;
    memset(&t->call.sizes, -1, sizeof t->call.sizes);
    if (!t->call.op || !t->call.op->kernel) {
        fprintf(stderr, "no kernel for %s\n", op);
        abort();
    }
}

static inline operand *hold(trial *t, operand *o)
{
    t->held[t->nheld++] = o;
    return o;
}

static inline gems_value *next_argument(trial *t, gems_kind kind)
{
    gems_value *v = &t->call.arg[t->nargs++];
    v->kind = kind;
    return v;
}

/* The same tensor as another argument. */
static inline void again(trial *t, operand *o)
{
    next_argument(t, GEMS_TENSOR)->tensor = &o->t;
}
static inline operand *tensor(trial *t, gems_dtype dtype, layout l, shape s)
{
    operand *o = hold(t, operand_with(dtype, l, s));
    again(t, o);
    return o;
}
static inline void none(trial *t)
{
    next_argument(t, GEMS_NONE);
}
static inline void integer(trial *t, int64_t i)
{
    next_argument(t, GEMS_SCALAR_INT)->i = i;
}
static inline void real(trial *t, double f)
{
    next_argument(t, GEMS_SCALAR_FLOAT)->f = f;
}
static inline void boolean(trial *t, bool b)
{
    next_argument(t, GEMS_SCALAR_BOOL)->i = b;
}
/* They must outlive the trial. */
static inline void booleans(trial *t, size_t n, const bool *v)
{
    gems_value *to = next_argument(t, GEMS_BOOLS);
    to->bools.v = v;
    to->bools.n = n;
}
static inline void dtype_of(trial *t, gems_dtype dtype)
{
    next_argument(t, GEMS_DTYPE)->dtype = dtype;
}
static inline void integers(trial *t, int n, const int64_t *v)
{
    gems_value *to = next_argument(t, GEMS_INTS);
    to->ints.v = memcpy(t->ints + t->ints_used, v, (size_t)n * sizeof *v);
    to->ints.n = (size_t)n;
    t->ints_used += (unsigned)n;
}
#define INTS(t, ...) integers(t, (int)(sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
/* All tensors held so far, as one list. */
static inline void list(trial *t)
{
    for (unsigned i = 0; i < t->nheld; i++)
        t->list[i] = t->held[i]->t;
    gems_value *to = next_argument(t, GEMS_TENSORS);
    to->tensors.v = t->list;
    to->tensors.n = t->nheld;
}

static inline expected *expect(trial *t, unsigned i, gems_dtype dtype, shape s)
{
    expected *e = &t->result[i];
    *e = (expected){.dtype = dtype, .shape = s};
    e->value = calloc((size_t)count(s), sizeof(double));
    e->terms = calloc((size_t)count(s), sizeof(double));
    t->nexpected = t->nexpected > i + 1 ? t->nexpected : i + 1;
    return e;
}

/* Result i is not to be made. */
static inline void absent(trial *t, unsigned i)
{
    t->nexpected = t->nexpected > i + 1 ? t->nexpected : i + 1;
}

static inline int64_t position(const shape *s, const int64_t *c)
{
    int64_t at = 0;
    for (int d = 0; d < s->ndim; d++)
        at = at * s->size[d] + c[d];
    return at;
}
static inline double *want(expected *e, const int64_t *c)
{
    return &e->value[position(&e->shape, c)];
}
/* The sum of |terms|, where that is more than the value. */
static inline double *terms(expected *e, const int64_t *c)
{
    return &e->terms[position(&e->shape, c)];
}

/* ---- running ---- */

/* A simulator takes its time: there every fifth trial of an operator is run, once and on one lane. A sample elsewhere
 * is every fourth; where memory is staged, which is the same kernels, every twelfth. */
static inline bool is_simulated(void)
{
    return strcmp(gems_device_get(GEMS_LANE_MAIN)->vendor, "oclgrind") == 0;
}
static inline bool is_staged(void)
{
    const char *memory = getenv("GEMS_MEMORY");
    return memory && strcmp(memory, "staged") == 0;
}
static inline bool is_left_out(const gems_op *op)
{
    static _Thread_local unsigned trials[sizeof fake_min_numel / sizeof *fake_min_numel];
    return trials[op->index]++ % (unsigned)(is_simulated() ? 5 : one_in(is_staged() ? 12 : 4)) != 0;
}
static inline int lanes_of(const trial *t)
{
    return t->quick || is_simulated() ? 1 : GEMS_LANE_COUNT;
}

/* Between two neighbouring values of the dtype, there. */
static inline double step_at(gems_dtype dtype, double x)
{
    static const struct {
        int digits, lowest;
    } of[GEMS_DTYPE_COUNT] = {
        [GEMS_F16] = {11, -24}, [GEMS_BF16] = {8, -133}, [GEMS_F32] = {24, -149}, [GEMS_F64] = {53, -1074}};
    int exponent;
    if (gems_dtypes[dtype].category != GEMS_CAT_FLOAT || !isfinite(x))
        return 0;
    frexp(x, &exponent);
    exponent -= of[dtype].digits;
    return ldexp(1, exponent < of[dtype].lowest ? of[dtype].lowest : exponent);
}

static inline bool is_close(const trial *t, const expected *e, int64_t i, double got)
{
    double wanted = e->value[i], sum = fmax(fabs(wanted), e->terms[i]);
    if (isnan(wanted) || isinf(wanted))
        return isnan(wanted) ? isnan(got) : got == wanted;
    if (t->exact || gems_dtypes[e->dtype].category != GEMS_CAT_FLOAT)
        return got == wanted;
    return fabs(got - wanted) <=
           step_at(e->dtype, wanted) + t->slack * sum * (e->dtype == GEMS_F64 ? 0x1p-53 : 0x1p-24);
}

/* How a trial was run, for messages. */
typedef struct run_way {
    char text[200];
} run_way;

/* Compares a result, and undoes its elements so that what lies around them can be compared. */
static inline void check_result(const trial *t, const expected *e, const gems_tensor *result, const run_way *way)
{
    operand *o = result->host;
    if (!o || !e->value) {
        if (o || e->value)
            failed("%s: %s", way->text, o ? "a result that is not asked for" : "no result");
        return;
    }
    operand parts = *o; /* a complex one as its parts */
    if (e->complex) {
        for (int d = 0; d < o->t.ndim; d++)
            parts.strides[d] = 2 * o->strides[d];
        parts.shape.size[o->t.ndim] = 2;
        parts.strides[o->t.ndim] = 1;
        parts.t.ndim = parts.shape.ndim = o->t.ndim + 1;
        parts.t.dtype = o->part;
    }
    if (parts.t.dtype != e->dtype || parts.t.ndim != e->shape.ndim ||
        memcmp(parts.shape.size, e->shape.size, (size_t)e->shape.ndim * sizeof(int64_t)) != 0) {
        failed("%s: a result of another dtype or shape", way->text);
        return;
    }
    int wrong = 0;
    EACH (c, e->shape) {
        int64_t i = position(&e->shape, c);
        double got = at(&parts, c);
        if (!is_close(t, e, i, got) && wrong++ == 0)
            failed("%s: element %lld of %lld is %.17g, not %.17g", way->text, (long long)i, (long long)count(e->shape),
                   got, e->value[i]);
    }
    EACH (c, e->shape) {
        char *p = place(&parts, c);
        memcpy(p, o->before + (p - (char *)o->memory), gems_dtypes[e->dtype].size);
    }
    if (memcmp(o->memory, o->before, o->bytes) != 0)
        failed("%s: bytes around a result have changed", way->text);
}

/* A call whose arguments are copies, to be taken away before its work runs. */
typedef struct lent {
    gems_call call;
    void *block[4 * HELD];
    unsigned n;
} lent;

static inline void *lend(lent *l, const void *p, size_t n)
{
    void *copy = malloc(n + 1);
    if (n)
        memcpy(copy, p, n);
    return l->block[l->n++] = copy;
}

static inline gems_tensor *lend_tensors(lent *l, const gems_tensor *v, size_t n)
{
    gems_tensor *copy = lend(l, v, n * sizeof *v);
    for (size_t i = 0; i < n; i++) {
        copy[i].sizes = lend(l, v[i].sizes, (size_t)v[i].ndim * sizeof *v[i].sizes);
        copy[i].strides = lend(l, v[i].strides, (size_t)v[i].ndim * sizeof *v[i].strides);
    }
    return copy;
}

static inline void lend_call(lent *l, const gems_call *call)
{
    l->call = *call;
    l->n = 0;
    for (unsigned i = 0; i < call->op->nparams; i++) {
        gems_value *v = &l->call.arg[i];
        if (v->kind == GEMS_TENSOR)
            v->tensor = lend_tensors(l, v->tensor, 1);
        else if (v->kind == GEMS_TENSORS)
            v->tensors.v = lend_tensors(l, v->tensors.v, v->tensors.n);
        else if (v->kind == GEMS_INTS)
            v->ints.v = lend(l, v->ints.v, v->ints.n * sizeof *v->ints.v);
    }
}

static inline void take_back(lent *l)
{
    for (unsigned i = 0; i < l->n; i++)
        free(l->block[i]);
    memset(l, 0xee, sizeof *l);
}

/* Plans and prepares the call by a rule, and copies its work. What results there are is in *results, also if it is
 * declined; *left: the rule's variant does not do it, another one does. */
static inline gems_status prepare_copy(const trial *t, const char *rule, gems_lane lane, const run_way *way,
                                       gems_work *copy, gems_tensor *results, bool *left)
{
    gems_table_error error;
    gems_table *table = gems_table_compile("test", rule, NULL, &error);
    lent *l = malloc(sizeof *l);
    gems_work *work = malloc(sizeof *work);
    gems_call *call = &l->call;
    lend_call(l, &t->call);
    gems_status status = table ? call->op->kernel->plan(call) : gems_decline(call, error.text);
    if (status == GEMS_OK && !(call->rule = gems_table_lookup(table, call->op, call->dtype, &call->sizes)))
        status = gems_decline(call, "no rule");
    if (status == GEMS_OK && gems_lane_for(call) != lane)
        status = gems_decline(call, "not the rule's lane");
    gems_work_begin(work, lane);
    if (status == GEMS_OK)
        status = call->op->kernel->prepare(call, work);
    if (status == GEMS_OK && !gems_work_copy(copy, work))
        status = gems_decline(call, "no copy");
    for (unsigned i = 0; i < call->op->nresults; i++)
        results[i] = call->has_result[i] ? call->result[i] : (gems_tensor){0};
    if (status != GEMS_OK)
        failed("%s: %s", way->text, call->why ? call->why : "no reason");
    *left = call->why != NULL;
    gems_work_end(work);
    memset(work, 0xee, sizeof *work);
    free(work);
    take_back(l);
    free(l);
    gems_table_free(table);
    return status;
}

/* Runs it by this rule, as a copy of a work of which nothing else is left. True if the rule's variant did it. */
static inline bool run_by_rule(const trial *t, const char *rule, gems_lane lane, const run_way *way)
{
    const gems_op *op = t->call.op;
    gems_tensor results[GEMS_MAX_RESULTS];
    gems_work work;
    gems_call later = {.op = op};
    bool left;
    for (unsigned i = 0; i < t->nheld; i++)
        memcpy(t->held[i]->memory, t->held[i]->before, t->held[i]->bytes);
    gems_status status = prepare_copy(t, rule, lane, way, &work, results, &left);
    if (status == GEMS_OK) {
        status = gems_work_run(&work, &later);
        if (status == GEMS_OK && op->form != GEMS_INPLACE && !is_simulated()) /* once more is the same */
            status = gems_work_run(&work, &later);
        gems_work_end(&work);
        if (status != GEMS_OK)
            failed("%s: %s", way->text, later.why ? later.why : "no reason");
    }
    for (unsigned i = 0; status == GEMS_OK && i < op->nresults; i++)
        check_result(t, &t->result[i], &results[i], way);
    for (unsigned i = 0; status == GEMS_OK && i < t->nheld; i++)
        if (memcmp(t->held[i]->memory, t->held[i]->before, t->held[i]->bytes) != 0)
            failed("%s: operand %u has changed", way->text, i);
    for (unsigned i = 0; i < op->nresults; i++)
        if (results[i].host && op->form == GEMS_FUNCTIONAL)
            family_drop(&results[i]);
    return status == GEMS_OK && !left;
}

static inline void count_run(const gems_family *family, gems_lane lane, const gems_variant *variant)
{
    int i = 0;
    while (covered[i].family && covered[i].family != family)
        i++;
    covered[i].family = family;
    covered[i].runs[lane][variant - family->variants]++;
}

/* The next value after a parameter's lowest, which is where a row is cut in two, a group has more than one member. */
static inline void write_parameters(const gems_variant *v, char *text, size_t n)
{
    for (int i = 0; i < GEMS_PARAMETERS && v->params[i].name; i++) {
        const gems_parameter *p = &v->params[i];
        size_t used = strlen(text);
        snprintf(text + used, n - used, ", \"%s\": %lld", p->name, (long long)(p->low + p->step));
    }
}

/* CLBlast takes seconds to build a kernel, and more on a simulator, whose heap it sometimes spoils at exit. */
static inline bool is_slow(const trial *t, const gems_variant *v)
{
    return (t->quick || is_simulated() || (is_staged() && !is_full())) && strcmp(v->name, "clblast") == 0;
}

/* Runs it every way, and forgets it. */
static inline void trial_run(trial *t)
{
    const gems_family *family = t->call.op->kernel;
    const bool left_out = is_left_out(t->call.op);
    if (t->nexpected != t->call.op->nresults)
        failed("%s: %u results expected of %u", t->call.op->name, t->nexpected, t->call.op->nresults);
    for (unsigned i = 0; i < t->nheld; i++)
        memcpy(t->held[i]->before, t->held[i]->memory, t->held[i]->bytes);
    for (const gems_variant *v = family->variants; v->name && !left_out; v++)
        for (int lane = is_slow(t, v); lane < lanes_of(t); lane++)
            for (int set = 0; set <= (t->parameters && v->params[0].name); set++) {
                char parameters[120] = "", rule[400];
                run_way way;
                if (set)
                    write_parameters(v, parameters, sizeof parameters);
                snprintf(rule, sizeof rule,
                         "{\"rules\": [{\"op\": \"%s\", \"variant\": \"%s\", \"params\": {\"lane\": %d%s}}]}",
                         t->call.op->name, v->name, lane, parameters);
                snprintf(way.text, sizeof way.text, "%s, first operand %s stride %lld: %s, lane %d%s", t->call.op->name,
                         gems_dtypes[t->held[0]->t.dtype].name,
                         (long long)(t->held[0]->t.ndim ? t->held[0]->strides[t->held[0]->t.ndim - 1] : 0), v->name,
                         lane, parameters);
                if (run_by_rule(t, rule, (gems_lane)lane, &way))
                    count_run(family, (gems_lane)lane, v);
            }
    for (unsigned i = 0; i < t->nheld; i++)
        operand_free(t->held[i]);
    for (unsigned i = 0; i < t->nexpected; i++) {
        free(t->result[i].value);
        free(t->result[i].terms);
    }
}

/* Whether a variant of the family has run on a lane in this thread. */
static inline bool has_run(const gems_family *family, int lane, const gems_variant *variant)
{
    for (int i = 0; i < FAMILIES && covered[i].family; i++)
        if (covered[i].family == family)
            return covered[i].runs[lane][variant - family->variants] > 0;
    return false;
}

#endif
