/* The evaluator against kernels: every row of the pointwise families, every dtype that it takes, on special and random
 * values, bit for bit. Functions of f64 that the device's library has may be 2 units in the last place apart, and what
 * rows make of them accordingly more. */
#include "tests/unit/family.h"
#include "codegen/evaluate.h"
#include "codegen/host_math.h"
#include "kernels/device/internal.h"
#include "kernels/pointwise/recipe.h"
#include "kernels/pointwise/row.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(evaluate, .timeout = 900);

enum {
    N = 2011 /* elements; the first ones are all pairs of special values */
};

/* ---- values ---- */

static uint64_t random_bits(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 32 | (*seed * 6364136223846793005u + 1442695040888963407u) >> 32 << 32;
}

static const double special[] = {
    0.0,      -0.0,      1,     -1,       0.5,      -0.5,           2,        -2,        3,
    INFINITY, -INFINITY, NAN,   0x1p-149, 0x1p-130, 0x1.fffffep127, -0x1p100, 0x1p-1074, 65504,
    65520,    0x1p-20,   -88.5, 100.25,   0x1p31,   -0x1p63,        1e300,    -127.75,   255.5};
static const int64_t special_int[] = {0,         1,         -1,        2,         -2,   3,   7,   8,     31,
                                      32,        63,        64,        127,       -128, 128, 255, 32767, -32768,
                                      INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, 10,   -10, 100, 5,     6};
enum {
    SPECIALS = sizeof special / sizeof *special
};

/* Element i of the k-th operand. */
static void fill_element(void *at, gems_dtype dtype, unsigned k, int64_t i, uint64_t *seed, bool no_zero)
{
    uint64_t r = random_bits(seed);
    gems_element e = {0};
    size_t which = (size_t)(k == 0 ? i : k == 1 ? i / SPECIALS : i / 3) % SPECIALS;
    if (gems_dtypes[dtype].category != GEMS_CAT_FLOAT) {
        int64_t v = i < SPECIALS * SPECIALS ? special_int[which] : r & 256 ? (int64_t)r : (int64_t)(r >> 32) % 9 - 4;
        v = dtype == GEMS_BOOL ? v & 1 : v;
        int bits = 8 * gems_dtypes[dtype].size;
        if (no_zero && (uint64_t)v << (64 - bits) == 0)
            v = 3;
        e.bits = (uint64_t)v;
    } else if (i < SPECIALS * SPECIALS) {
        double v = special[which];
        float f = (float)v;
        if (dtype == GEMS_F64)
            e.f64 = v;
        else if (dtype == GEMS_F32)
            e.f32 = f;
        else { /* any bits are a value; those of the special ones */
            uint32_t u;
            memcpy(&u, &f, sizeof u);
            _Float16 h = (_Float16)f;
            if (dtype == GEMS_BF16)
                e.bits = u >> 16 | (f != f ? 0x40 : 0);
            else
                memcpy(&e, &h, sizeof h);
        }
    } else if (r & 256) { /* of a common size */
        double v = ldexp((double)(int64_t)(r >> 16), -44) * ((r & 512) ? 1 : 1e-3);
        gems_number_element((gems_number){.category = GEMS_CAT_FLOAT, .f = v}, dtype, &e);
    } else
        e.bits = r;
    memcpy(at, &e, gems_dtypes[dtype].size);
}

static operand *random_operand(gems_dtype dtype, layout l, shape s, unsigned k, bool no_zero)
{
    operand *o = operand_with(dtype, l, s);
    uint64_t seed = 77 + k * 13 + dtype;
    int64_t i = 0;
    EACH (c, s)
        fill_element(place(o, c), dtype, k, i++, &seed, no_zero);
    memcpy(o->before, o->memory, o->bytes);
    return o;
}

/* ---- both sides ---- */

/* What the evaluator is given for a work, with copies of what is written. */
typedef struct side {
    pw_recipe *r;
    gems_loops loops;
    gems_pw_memory memory[GEMS_OPERANDS];
    char *copy[GEMS_OPERANDS], *start[GEMS_OPERANDS]; /* of operands that are written */
    size_t bytes[GEMS_OPERANDS];
} side;

static void side_begin(side *s, gems_work *work)
{
    pw_recipe *r = pw_recipe_of(work);
    gems_strides strides[GEMS_OPERANDS];
    int n = 0;
    memset(s, 0, sizeof *s);
    s->r = r;
    for (unsigned i = 0; i < r->spec.noperands; i++)
        if (pw_recipe_in(r)[i].operand >= 0)
            memcpy(strides[n++], pw_recipe_in(r)[i].stride, sizeof strides[0]);
    gems_collapse(&r->shape, n, (const gems_strides *)strides, &s->loops);
    n = 0;
    for (unsigned i = 0; i < r->spec.noperands; i++) {
        s->memory[i].number = pw_recipe_in(r)[i].number;
        if (pw_recipe_in(r)[i].operand < 0)
            continue;
        const gems_operand *o = &work->operand[pw_recipe_in(r)[i].operand];
        char *first = (char *)(o->allocation + o->offset);
        s->memory[i].address = first;
        s->memory[i].stride = s->loops.stride[n++];
        if (r->spec.operand[i].place == GEMS_PW_READ)
            continue;
        s->bytes[i] = o->span;
        s->start[i] = malloc(o->span);
        s->copy[i] = malloc(o->span);
        memcpy(s->start[i], first, o->span);
        s->memory[i].address = s->copy[i];
    }
}

static void side_reset(side *s)
{
    for (unsigned i = 0; i < s->r->spec.noperands; i++)
        if (s->copy[i])
            memcpy(s->copy[i], s->start[i], s->bytes[i]);
}

static void side_end(side *s)
{
    for (unsigned i = 0; i < GEMS_OPERANDS; i++) {
        free(s->copy[i]);
        free(s->start[i]);
    }
}

static double value_at(gems_dtype dtype, const char *at)
{
    return gems_number_double(gems_element_number(dtype, at));
}

/* Elements that differ, by more than `ulps` units of f64; both NaN is the same. */
static long differing(side *s, gems_work *work, double ulps, char *example, size_t n)
{
    long wrong = 0;
    for (unsigned i = 0; i < s->r->spec.noperands; i++) {
        if (!s->copy[i])
            continue;
        const gems_operand *o = &work->operand[pw_recipe_in(s->r)[i].operand];
        const char *first = (const char *)(o->allocation + o->offset);
        gems_dtype dtype = s->r->spec.operand[i].dtype;
        unsigned size = gems_dtypes[dtype].size;
        for (int64_t k = 0; k < s->r->shape.numel; k++) {
            int64_t at = 0, left = k;
            for (int d = 0; d < s->loops.rank; d++) {
                at += left % s->loops.size[d] * s->memory[i].stride[d];
                left /= s->loops.size[d];
            }
            const char *have = s->copy[i] + at * size, *want = first + at * size;
            double h = value_at(dtype, have), w = value_at(dtype, want);
            if (memcmp(have, want, size) == 0 || (isnan(h) && isnan(w)))
                continue;
            if (ulps > 0 && fabs(h - w) <= ulps * step_at(GEMS_F64, w))
                continue;
            if (wrong++ == 0)
                snprintf(example, n, "operand %u, element %lld: %.17g, the kernel %.17g", i, (long long)k, h, w);
        }
        char *gaps = malloc(s->bytes[i]); /* what lies between must be as it was */
        memcpy(gaps, s->copy[i], s->bytes[i]);
        for (int64_t k = 0; k < s->r->shape.numel; k++) {
            int64_t at = 0, left = k;
            for (int d = 0; d < s->loops.rank; d++) {
                at += left % s->loops.size[d] * s->memory[i].stride[d];
                left /= s->loops.size[d];
            }
            memcpy(gaps + at * size, s->start[i] + at * size, size);
        }
        if (memcmp(gaps, s->start[i], s->bytes[i]) != 0)
            snprintf(example, n, "operand %u: bytes between its elements have changed (%ld)", i, ++wrong);
        free(gaps);
    }
    return wrong;
}

typedef struct level {
    const char *name;
    const gems_host_math *math;
} level;

static unsigned find_levels(level l[3])
{
    unsigned n = 0;
    l[n++] = (level){"any", &gems_host_math_any};
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        l[n++] = (level){"v3", &gems_host_math_v3};
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        l[n++] = (level){"v4", &gems_host_math_v4};
#endif
    return n;
}

/* Runs a prepared work on both sides. The number of elements compared; failures are noted. */
static int64_t compare(gems_work *work, double ulps, const char *what)
{
    level levels[3];
    unsigned nlevels = find_levels(levels);
    side s;
    gems_call call = {.op = gems_op_find("add.Tensor")};
    side_begin(&s, work);
    if (gems_work_run(work, &call) != GEMS_OK) {
        failed("%s: %s", what, call.why);
        side_end(&s);
        return 0;
    }
    int64_t numel = s.r->shape.numel;
    for (unsigned l = 0; l <= nlevels; l++) { /* the last one is this processor's, in pieces */
        char example[160] = "";
        int64_t cut[4] = {0, numel / 3 + 1, numel / 3 + 2, numel};
        side_reset(&s);
        gems_pw_evaluate_with(l < nlevels ? levels[l].math : NULL);
        bool ok = true;
        for (int p = 0; p < 3; p++)
            if (l == nlevels)
                ok = ok && gems_pw_evaluate(&s.r->spec, s.loops.rank, s.loops.size, s.memory, cut[p],
                                            cut[p + 1] < numel ? cut[p + 1] : numel);
        if (l < nlevels)
            ok = gems_pw_evaluate(&s.r->spec, s.loops.rank, s.loops.size, s.memory, 0, numel);
        long wrong = ok ? differing(&s, work, ulps, example, sizeof example) : -1;
        if (wrong)
            failed("%s, %s: %s: %ld of %lld differ: %s", what, l < nlevels ? levels[l].name : "in pieces", s.r->name,
                   wrong, (long long)numel, example);
    }
    gems_pw_evaluate_with(NULL);
    side_end(&s);
    return numel;
}

/* ---- rows ---- */

static bool is_ours(const gems_op *op)
{
    static const char *const families[] = {"pointwise", "glu", "glu_backward", "polar"};
    for (int i = 0; i < 4; i++)
        if (op->kernel && strcmp(op->kernel->name, families[i]) == 0)
            return true;
    return false;
}

static bool is_pointwise(const gems_op *op)
{
    return strcmp(op->kernel->name, "pointwise") == 0;
}

/* How far a row's f64 may be from the kernel's: 0 if it calls none of the library's functions; more than their 2 where
 * a row multiplies what they give, and where terms cancel. */
static double tolerance(const gems_op *op, gems_dtype dtype)
{
    static const char *const functions[] = {"log(", "log1p(", "log2(", "log10(", "exp(", "exp2(", "expm1(",
                                            "erf(", "erfc(",  "tanh(", "atan(",  "sin(", "cos(",  "pow("};
    const char *expr = gems_op_attr(op, "expr");
    bool cancels = strcmp(op->base, "gelu_backward") == 0 || strncmp(op->base, "logaddexp", 9) == 0;
    for (size_t i = 0; i < sizeof functions / sizeof *functions && dtype == GEMS_F64; i++)
        if (strstr(expr, functions[i]))
            return cancels ? 64 : strchr(expr, ' ') ? 4 : 2; /* 35 and 3 were seen */
    return 0;
}

static double some_number(unsigned v)
{
    static const double numbers[] = {2, 1, 0, 3, 0.5, -0.5, -1, -2, 1.75};
    return numbers[v % 9];
}

/* Argument i of a call, in one of several variants. False: none of that kind can be made. */
static bool fill_argument(trial *t, unsigned i, gems_dtype dtype, unsigned v, layout l, shape s)
{
    const gems_op *op = t->call.op;
    const pw_row *row = is_pointwise(op) ? pw_row_get(op) : NULL;
    gems_value *to = &t->call.arg[i];
    const gems_param *p = &op->params[i];
    bool floating = gems_dtypes[dtype].category == GEMS_CAT_FLOAT;
    bool optional = p->type == GEMS_T_OPT_TENSOR || p->type == GEMS_T_OPT_SCALAR || p->type == GEMS_T_OPT_FLOAT ||
                    p->type == GEMS_T_OPT_STR || p->type == GEMS_T_OPT_DTYPE;
    *to = (gems_value){.kind = GEMS_NONE};
    if (optional && ((v + i) % 3 == 0))
        return true;
    switch (p->type) {
    case GEMS_T_TENSOR:
    case GEMS_T_OPT_TENSOR: {
        gems_dtype own = row && row->masks >> i & 1 ? GEMS_BOOL : dtype;
        if (!row && op->nresults == 1 && strcmp(op->base, "glu_backward") == 0 && i == 0)
            s.size[0] /= 2;
        if (row && row->zero_dim >> i & 1)
            s.ndim = 0;
        to->kind = GEMS_TENSOR;
        to->tensor =
            &hold(t, random_operand(own, p->written ? DENSE : l, s, t->nheld, row && row->divisor >> i & 1))->t;
        return true;
    }
    case GEMS_T_SCALAR:
    case GEMS_T_OPT_SCALAR:
    case GEMS_T_FLOAT:
    case GEMS_T_OPT_FLOAT:
        to->kind = floating ? GEMS_SCALAR_FLOAT : GEMS_SCALAR_INT;
        if (to->kind == GEMS_SCALAR_FLOAT)
            to->f = some_number(v);
        else
            to->i = (int64_t)some_number(v);
        return true;
    case GEMS_T_BOOL:
        to->kind = GEMS_SCALAR_BOOL;
        to->i = v & 1;
        return true;
    case GEMS_T_INT:
        to->kind = GEMS_SCALAR_INT;
        to->i = 0;
        return true;
    case GEMS_T_STR:
    case GEMS_T_OPT_STR: {
        const char *texts = row ? row->texts : "";
        texts += strspn(texts, " ");
        const char *second = strchr(texts, ' ');
        if (v & 1 && second)
            texts = second + 1;
        to->kind = GEMS_STR;
        to->str.s = texts;
        to->str.n = strcspn(texts, " ");
        return true;
    }
    case GEMS_T_OPT_DTYPE:
        to->kind = GEMS_DTYPE;
        to->dtype = (gems_dtype)(v % GEMS_DTYPE_COUNT);
        return true;
    case GEMS_T_MEMFMT:
        to->kind = GEMS_MEMFMT;
        return true;
    default:
        return true;
    }
}

/* Calls it once on both sides; elements compared, 0 if the family declines. */
static int64_t compare_call(const gems_op *op, gems_dtype dtype, unsigned v, layout l, shape s, const char **why)
{
    trial t;
    gems_work work;
    char what[160];
    int64_t compared = 0;
    trial_begin(&t, op->name);
    for (unsigned i = 0; i < op->nparams; i++)
        fill_argument(&t, i, dtype, v, l, s);
    gems_status status = op->kernel->plan(&t.call);
    gems_work_begin(&work, GEMS_LANE_MAIN);
    if (status == GEMS_OK)
        status = op->kernel->prepare(&t.call, &work);
    if (status == GEMS_OK) {
        snprintf(what, sizeof what, "%s %s, variant %u", op->name, gems_dtypes[dtype].name, v);
        compared = compare(&work, tolerance(op, dtype), what);
    } else
        *why = t.call.why;
    gems_work_end(&work);
    for (unsigned i = 0; i < op->nresults && op->form == GEMS_FUNCTIONAL; i++)
        if (t.call.has_result[i])
            family_drop(&t.call.result[i]);
    for (unsigned i = 0; i < t.nheld; i++)
        operand_free(t.held[i]);
    return compared;
}

static unsigned variants_of(const gems_op *op, gems_dtype dtype)
{
    unsigned n = 1;
    bool main_dtype = dtype == GEMS_F32 || dtype == GEMS_F16 || dtype == GEMS_I32;
    if (strcmp(op->name, "_to_copy") == 0)
        return 10;
    if (strcmp(op->name, "pow.Tensor_Scalar") == 0)
        return main_dtype ? 9 : 2;
    for (unsigned i = 0; i < op->nparams; i++)
        switch (op->params[i].type) {
        case GEMS_T_SCALAR:
        case GEMS_T_OPT_SCALAR:
        case GEMS_T_OPT_FLOAT:
        case GEMS_T_OPT_TENSOR:
        case GEMS_T_STR:
        case GEMS_T_OPT_STR:
        case GEMS_T_BOOL:
            n = main_dtype ? 3 : 2;
            break;
        default:
            break;
        }
    return n;
}

/* Every row in this dtype; in a sample every SAMPLEth, others for each dtype. */
static void compare_rows(gems_dtype dtype, unsigned least)
{
    enum {
        SAMPLE = 8
    };
    unsigned seen = 0, rows = 0, calls = 0;
    int64_t elements = 0;
    cr_assert(gems_device_open(), "%s", gems_device_error());
    for (unsigned i = 0; i < gems_op_count; i++) {
        const gems_op *op = &gems_ops[i];
        bool only_in_place = strcmp(op->name, "copy_") == 0 || strcmp(op->name, "mul_.Scalar") == 0;
        if (!is_ours(op) || (op->form != GEMS_FUNCTIONAL && !only_in_place))
            continue;
        if (!is_full() && (seen++ + dtype) % SAMPLE != 0)
            continue;
        unsigned of_row = 0;
        const char *why = "nothing";
        for (unsigned v = 0; v < variants_of(op, dtype); v++) {
            bool copies = is_pointwise(op) && pw_row_get(op)->copies; /* nothing, if it is contiguous already */
            int64_t n = compare_call(op, dtype, v, copies ? TRANSPOSED : DENSE,
                                     copies             ? SHAPE(2, N / 2)
                                     : is_pointwise(op) ? SHAPE(N)
                                                        : SHAPE(2 * N),
                                     &why);
            elements += n;
            of_row += n > 0;
        }
        calls += of_row;
        rows += of_row > 0;
        bool takes = is_pointwise(op) && pw_row_get(op)->dtypes >> dtype & 1;
        cr_expect(of_row > 0 || !takes || dtype != GEMS_F32, "%s: nothing compared: %s", op->name, why);
    }
    cr_expect_geq(rows, is_full() ? least : least / (SAMPLE + 1), "%u rows, %u calls", rows, calls);
    cr_expect_geq(elements, (int64_t)calls * (N - 1));
    cr_expect_eq(trial_failures, 0);
    cr_expect_eq(gems_program_undeclared, 0, "kernels/builtins.cl lacks something");
}

#define ROWS_OF(name, dtype, least)                                                                                    \
    Test(evaluate, rows_of_##name)                                                                                     \
    {                                                                                                                  \
        compare_rows(dtype, least);                                                                                    \
    }
ROWS_OF(f16, GEMS_F16, 160)
ROWS_OF(bf16, GEMS_BF16, 160)
ROWS_OF(f32, GEMS_F32, 165)
ROWS_OF(f64, GEMS_F64, 165)
ROWS_OF(i8, GEMS_I8, 130)
ROWS_OF(u8, GEMS_U8, 130)
ROWS_OF(i16, GEMS_I16, 130)
ROWS_OF(i32, GEMS_I32, 130)
ROWS_OF(i64, GEMS_I64, 130)
ROWS_OF(bool, GEMS_BOOL, 109)

/* ---- layouts ---- */

/* A binary operator on operands of that layout; `inner`: the second one is broadcast along the last dimension. */
static int64_t compare_layout(const char *name, gems_dtype dtype, layout l, shape s, bool inner)
{
    trial t;
    gems_work work;
    char what[160];
    trial_begin(&t, name);
    shape second = s;
    if (inner)
        second.size[s.ndim - 1] = 1;
    bool in_place = t.call.op->form == GEMS_INPLACE;
    for (unsigned k = 0; k < 2; k++) {
        layout own = k == 0 && in_place && l == EXPANDED ? DENSE : l;
        hold(&t, random_operand(dtype, own, k ? second : s, k, false));
        again(&t, t.held[k]);
    }
    integer(&t, 1);
    cr_assert_eq(t.call.op->kernel->plan(&t.call), GEMS_OK, "%s", t.call.why);
    gems_work_begin(&work, GEMS_LANE_MAIN);
    cr_assert_eq(t.call.op->kernel->prepare(&t.call, &work), GEMS_OK, "%s", t.call.why);
    snprintf(what, sizeof what, "%s %s, layout %d, rows of %d, inner %d", name, gems_dtypes[dtype].name, l,
             (int)s.size[s.ndim - 1], inner);
    int64_t n = compare(&work, 0, what);
    gems_work_end(&work);
    if (!in_place)
        family_drop(&t.call.result[0]);
    for (unsigned i = 0; i < t.nheld; i++)
        operand_free(t.held[i]);
    return n;
}

Test(evaluate, strides_broadcasts_and_pieces_of_rows)
{
    static const gems_dtype dtypes[] = {GEMS_F32, GEMS_BF16, GEMS_F64, GEMS_U8};
    unsigned compared = 0;
    cr_assert(gems_device_open(), "%s", gems_device_error());
    const shape shapes[] = {SHAPE(5, 6, 7), SHAPE(3, 4, 700), SHAPE(2, 2500), SHAPE(900, 3), SHAPE(2, 3, 2, 3, 2, 90)};
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int i = 0; i < 5; i++)
            for (int d = 0; d < 4; d++)
                for (int inner = 0; inner < 2; inner++) {
                    compared += compare_layout("mul.Tensor", dtypes[d], l, shapes[i], inner) > 0;
                    compared += compare_layout("add_.Tensor", dtypes[d], l, shapes[i], inner) > 0;
                }
    cr_expect_eq(compared, LAYOUTS * 5 * 4 * 2 * 2);
    cr_expect_eq(trial_failures, 0);
}

/* ---- several steps ---- */

static gems_expr *parse(const char *text)
{
    static const char *const names[] = {"a", "b", "c"};
    gems_expr_error error;
    gems_expr *e = gems_expr_parse(text, names, 3, NULL, &error);
    cr_assert(e, "%s: %s", text, error.text);
    return e;
}

static void set_step(gems_pw_step *step, const char *text, gems_dtype compute, gems_dtype result)
{
    gems_expr *e = parse(text);
    memset(step, 0, sizeof *step);
    step->expr = gems_expr_first(e);
    step->compute = (uint8_t)compute;
    step->nresults = (uint8_t)gems_expr_result_count(e);
    for (unsigned r = 0; r < step->nresults; r++) {
        step->result[r] = (uint8_t)result;
        step->store[r] = GEMS_PW_UNSTORED;
    }
    if (gems_expr_first(e) != e)
        gems_expr_free(e);
}

#define FROM(step, index, dtype) ((gems_pw_bind){step, index, dtype, 0})

/* Three steps of this dtype: the first result is rounded to it, not stored, and used twice; the second is stored in f32
 * and used; the third gives two results. The first operand is written in place before it is read last. */
static int64_t compare_chain(gems_dtype dtype, gems_dtype other)
{
    const shape s = SHAPE(7, 300);
    const int64_t n = 7 * 300;
    operand *o[] = {random_operand(dtype, DENSE, s, 0, false), random_operand(GEMS_F32, SLICED, s, 1, false),
                    random_operand(GEMS_BOOL, DENSE, s, 2, false), random_operand(other, TRANSPOSED, s, 1, false)};
    gems_work work;
    gems_shape sizes = {.ndim = 2, .numel = n, .size = {7, 300}};
    gems_work_begin(&work, GEMS_LANE_MAIN);
    pw_recipe *r = pw_recipe_new(&work, &sizes, "chain", NULL, 8, 3);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pw_recipe_memory(&work, r, &o[i]->t, GEMS_PW_WRITE), i);
    pw_recipe_update(&work, r, 0);
    cr_assert_eq(pw_recipe_memory(&work, r, &o[3]->t, GEMS_PW_READ), 3);
    gems_element e = {0};
    gems_number_compute((gems_number){.category = GEMS_CAT_INT, .i = 3}, dtype, false, &e);
    cr_assert_eq(pw_recipe_value(r, dtype, e), 4);
    r->spec.nsteps = 3;
    gems_pw_step *step = r->spec.step;
    set_step(&step[0], "multiply_add(a, b, c)", dtype, dtype);
    step[0].bind[0] = FROM(0, 0, dtype);
    step[0].bind[1] = FROM(0, 3, dtype);
    step[0].bind[2] = FROM(0, 4, dtype);
    set_step(&step[1], "t = a + b; a > c ? t : -t", dtype, dtype);
    step[1].bind[0] = FROM(1, 0, dtype);
    step[1].bind[1] = FROM(1, 0, dtype);
    step[1].bind[2] = FROM(0, 0, dtype);
    step[1].store[0] = 1;
    set_step(&step[2], "maximum(a, b) * c; a < c && b != 0", dtype, dtype);
    step[2].result[1] = GEMS_BOOL;
    step[2].store[0] = 0;
    step[2].store[1] = 2;
    step[2].bind[0] = FROM(2, 0, dtype);
    step[2].bind[1] = FROM(1, 0, dtype);
    step[2].bind[2] = FROM(0, 0, dtype);
    char what[80];
    snprintf(what, sizeof what, "a chain of %s and %s", gems_dtypes[dtype].name, gems_dtypes[other].name);
    int64_t compared = compare(&work, 0, what);
    gems_work_end(&work);
    for (int i = 0; i < 4; i++)
        operand_free(o[i]);
    return compared;
}

Test(evaluate, steps_round_between_them)
{
    unsigned compared = 0;
    cr_assert(gems_device_open(), "%s", gems_device_error());
    for (gems_dtype d = 0; d < GEMS_DTYPE_COUNT; d++)
        if (d != GEMS_BOOL)
            for (int k = 0; k < 2; k++)
                compared += compare_chain(d, k ? GEMS_F16 : GEMS_I16) > 0;
    cr_expect_eq(compared, 18);
    cr_expect_eq(trial_failures, 0);
}

/* ---- without a device ---- */

/* Sanitizers check the bounds of a spec's array, and their frames are larger. */
enum {
#ifdef GEMS_SANITIZED
    MANY = GEMS_PW_STEPS,
    LITTLE = 1 << 20
#else
    MANY = 48,
    LITTLE = 64 << 10
#endif
};

/* x + 1 as often as there are steps, in a thread of little stack. */
static void *run_many(void *arg)
{
    static float x[3000], y[3000];
    int64_t size = 3000, stride = 1;
    gems_pw_spec *spec = calloc(1, sizeof(gems_pw_spec) + MANY * sizeof(gems_pw_step));
    gems_pw_memory memory[2] = {{.address = y, .stride = &stride}, {.address = x, .stride = &stride}};
    spec->noperands = 2;
    spec->nsteps = MANY;
    spec->operand[0] = (gems_pw_operand){.dtype = GEMS_F32, .place = GEMS_PW_WRITE};
    spec->operand[1] = (gems_pw_operand){.dtype = GEMS_F32, .place = GEMS_PW_READ};
    gems_pw_step *step = spec->step;
    for (unsigned i = 0; i < MANY; i++) {
        set_step(&step[i], "a + 1", GEMS_F32, GEMS_F32);
        step[i].bind[0] = i ? FROM(i, 0, GEMS_F32) : FROM(0, 1, GEMS_F32);
    }
    step[MANY - 1].store[0] = 0;
    for (int i = 0; i < 3000; i++)
        x[i] = (float)i;
    *(bool *)arg = gems_pw_evaluate(spec, 1, &size, memory, 0, size);
    for (int i = 0; i < 3000; i++)
        *(bool *)arg = *(bool *)arg && y[i] == x[i] + MANY;
    free(spec);
    return NULL;
}

Test(evaluate, many_steps_need_little_stack)
{
    bool ok = false;
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    cr_assert_eq(pthread_attr_setstacksize(&attributes, LITTLE), 0);
    cr_assert_eq(pthread_create(&thread, &attributes, run_many, &ok), 0);
    pthread_join(thread, NULL);
    cr_expect(ok);
}

/* A spec of one step that is right; then what is wrong with it in one place each. */
Test(evaluate, what_is_not_there_is_refused_and_nothing_written)
{
    float x[20], y[20];
    int64_t size = 20, stride = 1;
    for (int i = 0; i < 20; i++) {
        x[i] = (float)i;
        y[i] = -1;
    }
    for (int wrong = 0; wrong < 8; wrong++) {
        gems_pw_memory memory[2] = {{.address = y, .stride = &stride}, {.address = x, .stride = &stride}};
        gems_pw_spec *spec = calloc(1, sizeof(gems_pw_spec) + 2 * sizeof(gems_pw_step));
        gems_pw_step *step = spec->step;
        spec->noperands = 2;
        spec->nsteps = 2;
        spec->operand[0] = (gems_pw_operand){.dtype = GEMS_F32, .place = GEMS_PW_WRITE};
        spec->operand[1] = (gems_pw_operand){.dtype = GEMS_F32, .place = GEMS_PW_READ};
        set_step(&step[0], wrong == 1 ? "gamma(a)" : wrong == 2 ? "erf(1)" : "a * 2", GEMS_F32, GEMS_F32);
        step[0].bind[0] = FROM(0, wrong == 3 ? 2 : wrong == 4 ? 0 : 1, GEMS_F32);
        step[0].store[0] = wrong == 5 ? 1 : 0;
        set_step(&step[1], "a * 2", GEMS_F32, GEMS_F32);
        step[1].bind[0] = FROM(wrong == 6 ? 2 : 1, wrong == 7 ? 1 : 0, GEMS_F32);
        bool ok = gems_pw_evaluate(spec, 1, &size, memory, 3, 17);
        cr_expect_eq(ok, wrong == 0, "case %d", wrong);
        for (int i = 0; i < 20; i++)
            cr_expect_eq(y[i], wrong == 0 && i >= 3 && i < 17 ? 2 * x[i] : -1, "case %d, element %d", wrong, i);
        for (int i = 0; i < 20; i++)
            y[i] = -1;
        free(spec);
    }
}
