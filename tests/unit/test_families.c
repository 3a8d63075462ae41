/* Every family of operators without PyTorch: each of its variants, on both lanes, on operands of several dtypes, shapes
 * and layouts, against plain loops (family.h). Each test is run twice: on the memory that the device would use anyway,
 * and with operands and results copied (GEMS_MEMORY=staged).
 *
 * A family is a function here and a line in `families`; a family or a variant that no trial reaches fails. */
#include "tests/unit/family.h"
#include "kernels/blas/blas.h"

#include <criterion/criterion.h>
#include <unistd.h>

static const gems_dtype floating[] = {GEMS_F32, GEMS_F16, GEMS_BF16, GEMS_F64};
enum {
    FLOATING = 4
};

/* ---- pointwise ---- */

/* The value of an element from those of the operands; the sum of its terms' sizes, where that is more. */
typedef double formula(const double *x, double *terms);

static double add(const double *x, double *terms)
{
    *terms = fabs(x[0]) + 2 * fabs(x[1]);
    return x[0] + 2 * x[1];
}
static double multiply(const double *x, double *terms)
{
    (void)terms;
    return x[0] * x[1];
}
static double less(const double *x, double *terms)
{
    (void)terms;
    return x[0] < x[1];
}
static double choose(const double *x, double *terms)
{
    (void)terms;
    return x[0] != 0 ? x[1] : x[2];
}
static double exponential(const double *x, double *terms)
{
    *terms = exp(x[0]) * (1 + fabs(x[0]));
    return exp(x[0]);
}
static double absolute(const double *x, double *terms)
{
    (void)terms;
    return fabs(x[0]);
}
static double itself(const double *x, double *terms)
{
    (void)terms;
    return x[0];
}
static double last(const double *x, double *terms)
{
    (void)terms;
    return x[1];
}
static double clamped(const double *x, double *terms)
{
    (void)terms;
    return x[0] < -1 ? -1 : x[0] > 1.5 ? 1.5 : x[0];
}

/* Runs a call whose arguments are given: the result is of this dtype and shape. */
static void pointwise(trial *t, gems_dtype dtype, shape s, formula *f)
{
    expected *e = expect(t, 0, dtype, s);
    EACH (c, s) {
        double x[4], sum = 0;
        int n = 0;
        for (unsigned i = 0; i < t->nargs; i++)
            if (t->call.arg[i].kind == GEMS_TENSOR && !(t->call.op->form == GEMS_OUT && i + 1 == t->nargs))
                x[n++] = at_broadcast(t->call.arg[i].tensor->host, &s, c);
        *want(e, c) = f(x, &sum);
        *terms(e, c) = sum;
    }
    trial_run(t);
}

static void add_layouts(gems_dtype dtype, layout a, layout b)
{
    trial t;
    trial_begin(&t, "add.Tensor");
    t.quick = dtype != GEMS_F32 || a != b;
    tensor(&t, dtype, a, SHAPE(5, 6, 7));
    tensor(&t, dtype, b, SHAPE(5, 6, 7));
    integer(&t, 2);
    pointwise(&t, dtype, SHAPE(5, 6, 7), add);
}

static void add_forms(void)
{
    static const layout written[] = {DENSE, TRANSPOSED, SLICED, OFFSET};
    for (int i = 0; i < 4; i++) {
        trial t;
        trial_begin(&t, "add_.Tensor");
        tensor(&t, GEMS_F32, written[i], SHAPE(5, 6, 7));
        tensor(&t, GEMS_F32, DENSE, SHAPE(6, 1));
        integer(&t, 2);
        pointwise(&t, GEMS_F32, SHAPE(5, 6, 7), add);
        trial_begin(&t, "add.out");
        tensor(&t, GEMS_F32, EXPANDED, SHAPE(5, 6, 7));
        tensor(&t, GEMS_F32, DENSE, SHAPE(7));
        integer(&t, 2);
        tensor(&t, GEMS_F32, written[i], SHAPE(5, 6, 7));
        pointwise(&t, GEMS_F32, SHAPE(5, 6, 7), add);
    }
}

static void pointwise_dtypes(void)
{
    static const gems_dtype dtypes[] = {GEMS_F32, GEMS_F16, GEMS_BF16, GEMS_F64, GEMS_I32, GEMS_U8, GEMS_I64};
    for (int i = 0; i < 7; i++) {
        trial t;
        trial_begin(&t, "add.Tensor");
        t.parameters = i == 0;
        t.quick = i != 0;
        if (dtypes[i] == GEMS_U8) { /* no result below 0 or above 255 */
            tensor(&t, GEMS_U8, OFFSET, SHAPE(211));
            tensor(&t, GEMS_U8, DENSE, SHAPE(211));
        } else {
            tensor(&t, dtypes[i], OFFSET, SHAPE(211));
            tensor(&t, dtypes[i], DENSE, SHAPE(211));
        }
        integer(&t, 2);
        pointwise(&t, dtypes[i], SHAPE(211), add);
    }
}

static void test_pointwise(void)
{
    trial t;
    for (layout l = DENSE; l < LAYOUTS; l++) {
        add_layouts(GEMS_F32, l, DENSE);
        add_layouts(GEMS_F32, l, l);
    }
    add_layouts(GEMS_F16, SLICED, TRANSPOSED);
    add_layouts(GEMS_I16, TRANSPOSED, EXPANDED);
    pointwise_dtypes();
    add_forms();

    trial_begin(&t, "mul.Tensor"); /* one tensor twice */
    again(&t, tensor(&t, GEMS_F32, SLICED, SHAPE(9, 5)));
    pointwise(&t, GEMS_F32, SHAPE(9, 5), multiply);
    trial_begin(&t, "mul.Tensor"); /* two dtypes */
    tensor(&t, GEMS_I32, DENSE, SHAPE(3, 1, 5));
    tensor(&t, GEMS_F16, TRANSPOSED, SHAPE(4, 5));
    pointwise(&t, GEMS_F16, SHAPE(3, 4, 5), multiply);
    trial_begin(&t, "lt.Tensor");
    tensor(&t, GEMS_I64, DENSE, SHAPE(4, 9));
    tensor(&t, GEMS_I64, EXPANDED, SHAPE(4, 9));
    pointwise(&t, GEMS_BOOL, SHAPE(4, 9), less);
    trial_begin(&t, "where.self");
    tensor(&t, GEMS_BOOL, TRANSPOSED, SHAPE(4, 9));
    tensor(&t, GEMS_BF16, DENSE, SHAPE(4, 9));
    tensor(&t, GEMS_BF16, SLICED, SHAPE(9));
    pointwise(&t, GEMS_BF16, SHAPE(4, 9), choose);
    trial_begin(&t, "exp");
    tensor(&t, GEMS_F32, SLICED, SHAPE(50));
    pointwise(&t, GEMS_F32, SHAPE(50), exponential);
    trial_begin(&t, "abs"); /* no dimension */
    tensor(&t, GEMS_F32, DENSE, (shape){0});
    pointwise(&t, GEMS_F32, (shape){0}, absolute);
    trial_begin(&t, "clamp");
    tensor(&t, GEMS_F32, DENSE, SHAPE(33));
    real(&t, -1);
    real(&t, 1.5);
    pointwise(&t, GEMS_F32, SHAPE(33), clamped);
    trial_begin(&t, "_to_copy");
    tensor(&t, GEMS_I16, TRANSPOSED, SHAPE(6, 11));
    dtype_of(&t, GEMS_F32);
    for (int i = 0; i < 5; i++)
        next_argument(&t, i == 3 ? GEMS_SCALAR_BOOL : GEMS_NONE);
    pointwise(&t, GEMS_F32, SHAPE(6, 11), itself);
    trial_begin(&t, "copy_"); /* a transposed copy into a result with gaps */
    tensor(&t, GEMS_F64, SLICED, SHAPE(6, 11));
    tensor(&t, GEMS_F64, TRANSPOSED, SHAPE(6, 11));
    boolean(&t, false);
    pointwise(&t, GEMS_F64, SHAPE(6, 11), last);
}

static void glu(const char *op, gems_dtype dtype, layout l, shape s, int dim, layout out)
{
    trial t;
    trial_begin(&t, op);
    t.quick = l != DENSE || dtype != GEMS_F32;
    operand *x = tensor(&t, dtype, l, s);
    integer(&t, dim - s.ndim);
    shape half = s;
    half.size[dim] /= 2;
    if (t.call.op->form == GEMS_OUT)
        tensor(&t, dtype, out, half);
    expected *e = expect(&t, 0, dtype, half);
    t.slack = 16;
    EACH (c, half) {
        double first = at(x, c);
        c[dim] += half.size[dim];
        double second = at(x, c);
        c[dim] -= half.size[dim];
        *want(e, c) = first / (1 + exp(-second));
        *terms(e, c) = fabs(*want(e, c)) * (1 + fabs(second));
    }
    trial_run(&t);
}

static void test_glu(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        glu("glu", GEMS_F32, l, SHAPE(3, 4, 10), 2, DENSE);
    for (int i = 0; i < FLOATING; i++)
        glu("glu", floating[i], DENSE, SHAPE(6, 5), 0, DENSE);
    glu("glu.out", GEMS_F32, TRANSPOSED, SHAPE(3, 8, 5), 1, SLICED);
}

static void glu_backward(gems_dtype dtype, layout l, shape s, int dim)
{
    trial t;
    shape half = s;
    half.size[dim] /= 2;
    trial_begin(&t, "glu_backward");
    t.quick = l != DENSE || dtype != GEMS_F32;
    operand *grad = tensor(&t, dtype, l, half), *x = tensor(&t, dtype, l, s);
    integer(&t, dim);
    expected *e = expect(&t, 0, dtype, s);
    /* The gate is rounded to the dtype between the two expressions, as the host's is. */
    t.slack = dtype == GEMS_F16 ? 0x1p14 : dtype == GEMS_BF16 ? 0x1p17 : 16;
    EACH (c, half) {
        double g = at(grad, c), first = at(x, c);
        c[dim] += half.size[dim];
        double second = at(x, c), gate = 1 / (1 + exp(-second));
        *want(e, c) = (1 - gate) * gate * g * first;
        *terms(e, c) = gate * fabs(g * first) * (1 + fabs(second));
        c[dim] -= half.size[dim];
        *want(e, c) = g * gate;
        *terms(e, c) = fabs(g * gate) * (1 + fabs(second));
    }
    trial_run(&t);
}

static void test_glu_backward(void)
{
    for (int i = 0; i < FLOATING; i++)
        glu_backward(floating[i], DENSE, SHAPE(4, 10), 1);
    for (layout l = TRANSPOSED; l < LAYOUTS; l++)
        glu_backward(GEMS_F32, l, SHAPE(3, 6, 4), 1);
}

static void polar(gems_dtype dtype, layout l, shape a, shape b, shape to)
{
    trial t;
    trial_begin(&t, "polar");
    t.quick = l != DENSE || dtype != GEMS_F32;
    operand *abs = tensor(&t, dtype, l, a), *angle = tensor(&t, dtype, l, b);
    shape parts = to;
    parts.size[parts.ndim++] = 2;
    expected *e = expect(&t, 0, dtype, parts);
    e->complex = true;
    t.slack = 8;
    EACH (c, to) {
        double r = at_broadcast(abs, &to, c), phi = at_broadcast(angle, &to, c);
        for (c[to.ndim] = 0; c[to.ndim] < 2; c[to.ndim]++) {
            *want(e, c) = r * (c[to.ndim] ? sin(phi) : cos(phi));
            *terms(e, c) = fabs(*want(e, c));
        }
    }
    trial_run(&t);
}

static void test_polar(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        polar(GEMS_F32, l, SHAPE(4, 6), SHAPE(4, 6), SHAPE(4, 6));
    polar(GEMS_F64, DENSE, SHAPE(4, 6), SHAPE(4, 6), SHAPE(4, 6));
    polar(GEMS_F32, DENSE, SHAPE(3, 1, 5), SHAPE(4, 1), SHAPE(3, 4, 5));
}

/* ---- reduce, arg ---- */

/* Arguments after the first by the names that reductions have. `dims`: a bit for each. */
static void reduction_arguments(trial *t, unsigned dims, bool keepdim)
{
    for (unsigned i = 1; i < t->call.op->nparams; i++) {
        const gems_param *p = &t->call.op->params[i];
        int64_t list_of[DIMS];
        int n = 0;
        for (int d = 0; d < DIMS; d++)
            if (dims >> d & 1)
                list_of[n++] = d;
        if (p->written)
            break;
        if (strcmp(p->name, "keepdim") == 0)
            boolean(t, keepdim);
        else if (strcmp(p->name, "dim") != 0)
            none(t);
        else if (p->type == GEMS_T_INT || p->type == GEMS_T_OPT_INT)
            integer(t, list_of[0]);
        else
            integers(t, n, list_of);
    }
}

static shape reduced(shape s, unsigned dims, bool keepdim)
{
    shape r = {0};
    for (int d = 0; d < s.ndim; d++)
        if (!(dims >> d & 1) || keepdim)
            r.size[r.ndim++] = dims >> d & 1 ? 1 : s.size[d];
    return r;
}

static void reduced_to(const int64_t *c, int ndim, unsigned dims, bool keepdim, int64_t *to)
{
    for (int d = 0; d < ndim; d++)
        if (!(dims >> d & 1) || keepdim)
            *to++ = dims >> d & 1 ? 0 : c[d];
}

typedef struct reduction {
    const char *op;
    double identity;
    enum {
        SUM,
        PRODUCT,
        LARGEST,
        SMALLEST,
        ANY,
        ALL,
        NONZERO
    } kind;
    bool mean;
    gems_dtype result; /* GEMS_DTYPE_NONE: as the input */
} reduction;

static double combine(int kind, double a, double x)
{
    switch (kind) {
    case SUM:
        return a + x;
    case PRODUCT:
        return a * x;
    case LARGEST:
        return isnan(a) || a > x ? a : x;
    case SMALLEST:
        return isnan(a) || a < x ? a : x;
    case ANY:
        return a != 0 || x != 0;
    case ALL:
        return a != 0 && x != 0;
    default:
        return a + (x != 0);
    }
}

static void reduce(const reduction *r, gems_dtype dtype, layout l, shape s, unsigned dims, bool keepdim)
{
    trial t;
    trial_begin(&t, r->op);
    t.parameters = dtype == GEMS_F32 && r->kind == SUM;
    t.quick = !t.parameters;
    operand *x = tensor(&t, dtype, l, s);
    reduction_arguments(&t, dims, keepdim);
    shape to = reduced(s, dims, keepdim);
    gems_dtype result = r->result != GEMS_DTYPE_NONE ? r->result : dtype;
    if (t.call.op->form == GEMS_OUT)
        tensor(&t, result, DENSE, to);
    if (dtype == GEMS_BOOL) { /* whatever is not 0 is true */
        memset((void *)place(x, (int64_t[DIMS]){0}), 0xfe, 1);
        memset((void *)place(x, (int64_t[DIMS]){[0] = s.size[0] - 1, [1] = 1}), 2, 1);
    }
    expected *e = expect(&t, 0, result, to);
    int64_t n = count(s) / count(to);
    t.slack = r->kind == PRODUCT ? (double)n : 8;
    EACH (c, to)
        *want(e, c) = r->identity;
    EACH (c, s) {
        int64_t k[DIMS] = {0};
        double v = at(x, c);
        reduced_to(c, s.ndim, dims, keepdim, k);
        *want(e, k) = combine(r->kind, *want(e, k), v);
        if (r->kind == SUM)
            *terms(e, k) += fabs(v) / (r->mean ? (double)n : 1);
    }
    EACH (c, to)
        *want(e, c) /= r->mean ? (double)n : 1;
    trial_run(&t);
}

static void test_reduce(void)
{
    static const reduction sum = {"sum.dim_IntList", 0, SUM, false, GEMS_DTYPE_NONE},
                           sum_i = {"sum.dim_IntList", 0, SUM, false, GEMS_I64},
                           sum_all = {"sum", 0, SUM, false, GEMS_DTYPE_NONE},
                           mean = {"mean.dim", 0, SUM, true, GEMS_DTYPE_NONE},
                           sum_out = {"sum.IntList_out", 0, SUM, false, GEMS_DTYPE_NONE},
                           amax = {"amax", -INFINITY, LARGEST, false, GEMS_DTYPE_NONE},
                           amin = {"amin", INFINITY, SMALLEST, false, GEMS_DTYPE_NONE},
                           prod = {"prod.dim_int", 1, PRODUCT, false, GEMS_DTYPE_NONE},
                           any = {"any.dims", 0, ANY, false, GEMS_BOOL}, all = {"all.dims", 1, ALL, false, GEMS_BOOL},
                           nonzero = {"count_nonzero", 0, NONZERO, false, GEMS_I64};
    /* Rows, columns, the outermost, both ends, everything. */
    static const unsigned dims[] = {4, 2, 1, 5, 7};
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int i = 0; i < 5; i++)
            reduce(&sum, GEMS_F32, l, SHAPE(4, 9, 40), dims[i], i % 2);
    for (int i = 1; i < FLOATING; i++)
        reduce(i % 2 ? &mean : &amax, floating[i], SLICED, SHAPE(3, 150), 2, i % 2);
    reduce(&sum_all, GEMS_F32, TRANSPOSED, SHAPE(3, 30), 3, false);
    reduce(&sum_i, GEMS_I32, TRANSPOSED, SHAPE(3, 70), 2, false);
    reduce(&sum_i, GEMS_BOOL, DENSE, SHAPE(20, 40), 1, false);
    reduce(&sum_out, GEMS_F32, SLICED, SHAPE(3, 70), 2, false);
    reduce(&amin, GEMS_I64, SLICED, SHAPE(5, 33), 2, false);
    reduce(&prod, GEMS_F32, DENSE, SHAPE(20, 33), 1, false);
    reduce(&any, GEMS_BOOL, DENSE, SHAPE(20, 33), 2, false);
    reduce(&all, GEMS_F16, TRANSPOSED, SHAPE(4, 3), 1, false);
    if (!is_simulated()) /* Oclgrind 21.10 makes 255 of the trues of a vector that is widened */
        reduce(&nonzero, GEMS_I16, DENSE, SHAPE(70, 3), 1, false);
}

static void arg(const char *op, gems_dtype dtype, layout l, shape s, int dim, bool nan)
{
    trial t;
    trial_begin(&t, op);
    t.parameters = dtype == GEMS_F32;
    t.quick = dtype != GEMS_F32;
    operand *x = tensor(&t, dtype, l, s);
    reduction_arguments(&t, 1u << dim, false);
    if (nan)
        for (int64_t i = s.size[dim] / 2; i < s.size[dim]; i += 5) {
            int64_t c[DIMS] = {0};
            c[dim] = i;
            put(x, c, NAN);
        }
    bool smallest = strstr(op, "min") != NULL;
    shape to = reduced(s, 1u << dim, false);
    expected *value = t.call.op->nresults == 2 ? expect(&t, 0, dtype, to) : NULL;
    expected *where = expect(&t, value ? 1 : 0, GEMS_I64, to);
    t.exact = true;
    EACH (c, s) { /* along the dimension in order: the first of equals */
        int64_t k[DIMS] = {0}, best[DIMS];
        double v = at(x, c);
        reduced_to(c, s.ndim, 1u << dim, false, k);
        memcpy(best, c, sizeof best);
        best[dim] = (int64_t)*want(where, k);
        double b = at(x, best);
        if (c[dim] == 0 || (!isnan(b) && (isnan(v) || (smallest ? v < b : v > b))))
            *want(where, k) = (double)c[dim];
        best[dim] = (int64_t)*want(where, k);
        if (value)
            *want(value, k) = at(x, best);
    }
    trial_run(&t);
}

static void test_arg(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++) {
            arg("argmax", GEMS_F32, l, SHAPE(6, 9, 40), dim, dim == 2);
            arg("min.dim", GEMS_I32, l, SHAPE(6, 9, 40), dim, false);
        }
    for (int i = 1; i < FLOATING; i++)
        arg("max.dim", floating[i], DENSE, SHAPE(3, 150), 1, i % 2);
    arg("argmin", GEMS_U8, SLICED, SHAPE(30, 20), 0, false);
    arg("max.dim", GEMS_BOOL, DENSE, SHAPE(30, 20), 0, false);
}

/* ---- softmax, norm, scan ---- */

/* The arguments of a row: its largest value and the sum of exponentials from there. */
static void row_sums(const operand *x, const int64_t *c, int dim, double *largest, double *sum)
{
    int64_t k[DIMS];
    memcpy(k, c, sizeof k);
    *largest = -INFINITY, *sum = 0;
    for (k[dim] = 0; k[dim] < x->shape.size[dim]; k[dim]++)
        *largest = fmax(*largest, at(x, k));
    for (k[dim] = 0; k[dim] < x->shape.size[dim]; k[dim]++)
        *sum += exp(at(x, k) - *largest);
}

static void softmax(const char *op, gems_dtype dtype, layout l, shape s, int dim)
{
    trial t;
    bool logarithm = strstr(op, "log") != NULL;
    trial_begin(&t, op);
    t.quick = logarithm || dtype != GEMS_F32;
    operand *x = tensor(&t, dtype, l, s);
    integer(&t, dim - s.ndim);
    boolean(&t, false);
    if (t.call.op->form == GEMS_OUT)
        tensor(&t, dtype, DENSE, s);
    expected *e = expect(&t, 0, dtype, s);
    t.slack = 16;
    EACH (c, s) {
        double largest, sum, v = at(x, c);
        row_sums(x, c, dim, &largest, &sum);
        double far = fabs(v) + fabs(largest);
        *want(e, c) = logarithm ? v - largest - log(sum) : exp(v - largest) / sum;
        *terms(e, c) = logarithm ? far + log(sum) : *want(e, c) * (1 + far);
    }
    trial_run(&t);
}

static void softmax_backward(const char *op, gems_dtype dtype, layout l, shape s, int dim)
{
    trial t;
    bool logarithm = strstr(op, "log") != NULL;
    trial_begin(&t, op);
    t.quick = true;
    operand *g = tensor(&t, dtype, l, s), *y = tensor(&t, dtype, DENSE, s);
    integer(&t, dim);
    dtype_of(&t, dtype);
    expected *e = expect(&t, 0, dtype, s);
    t.slack = 32;
    EACH (c, s) {
        double sum = 0, sizes = 0;
        int64_t k[DIMS];
        memcpy(k, c, sizeof k);
        for (k[dim] = 0; k[dim] < s.size[dim]; k[dim]++) {
            double term = at(g, k) * (logarithm ? 1 : at(y, k));
            sum += term;
            sizes += fabs(term);
        }
        double v = at(g, c), w = at(y, c);
        *want(e, c) = logarithm ? v - exp(w) * sum : (v - sum) * w;
        *terms(e, c) = logarithm ? fabs(v) + exp(w) * sizes * (1 + fabs(w)) : (fabs(v) + sizes) * fabs(w);
    }
    trial_run(&t);
}

static void test_softmax(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++)
            softmax("_softmax", GEMS_F32, l, SHAPE(5, 6, 40), dim);
    for (int i = 0; i < FLOATING; i++)
        if (i % 2)
            softmax(i == 1 ? "_log_softmax" : "_softmax", floating[i], DENSE, SHAPE(3, 100), 1);
        else
            softmax_backward("_softmax_backward_data", floating[i], TRANSPOSED, SHAPE(4, 50), 1);
    softmax("_log_softmax.out", GEMS_F32, SLICED, SHAPE(30, 20), 0);
    for (int dim = 0; dim < 2; dim++)
        softmax_backward("_log_softmax_backward_data", GEMS_F32, DENSE, SHAPE(30, 20), dim);
}

static void norm(const char *op, gems_dtype dtype, layout l, shape s, int inner, bool affine)
{
    trial t;
    trial_begin(&t, op);
    const gems_op *o = t.call.op;
    t.quick = dtype != GEMS_F32 || l != DENSE;
    bool center = strstr(op, "layer") != NULL;
    operand *x = tensor(&t, dtype, l, s), *w = NULL, *b = NULL;
    shape in = {inner, {0}}, stats = s;
    memcpy(in.size, s.size + s.ndim - inner, (size_t)inner * sizeof(int64_t));
    for (int d = s.ndim - inner; d < s.ndim; d++)
        stats.size[d] = 1;
    integers(&t, inner, in.size);
    if (affine)
        w = tensor(&t, dtype, DENSE, in);
    else
        none(&t);
    if (center && affine)
        b = tensor(&t, dtype, OFFSET, in);
    else if (center)
        none(&t);
    real(&t, 1e-3);
    t.slack = 32;
    gems_dtype statistics = dtype == GEMS_F64 ? GEMS_F64 : center ? dtype : GEMS_F32;
    expected *e = expect(&t, 0, dtype, s), *mean = NULL, *rstd = NULL;
    if (o->nresults == 3)
        mean = expect(&t, 1, statistics, stats);
    if (o->nresults >= 2)
        rstd = expect(&t, o->nresults - 1u, statistics, stats);
    int64_t n = count(in);
    EACH (row, stats) {
        double sum = 0, sizes = 0, squares = 0;
        for (int pass = 0; pass < 2; pass++)
            EACH (i, in) {
                int64_t c[DIMS];
                memcpy(c, row, sizeof c);
                memcpy(c + s.ndim - inner, i, (size_t)inner * sizeof *c);
                double v = at(x, c);
                sum += pass ? 0 : v / (double)n;
                sizes += pass ? 0 : fabs(v) / (double)n;
                squares += pass ? (v - center * sum) * (v - center * sum) : 0;
            }
        double r = 1 / sqrt(squares / (double)n + 1e-3), m = center ? sum : 0;
        if (mean) {
            *want(mean, row) = m;
            *terms(mean, row) = sizes;
        }
        if (rstd)
            *want(rstd, row) = r;
        EACH (i, in) {
            int64_t c[DIMS];
            memcpy(c, row, sizeof c);
            memcpy(c + s.ndim - inner, i, (size_t)inner * sizeof *c);
            double scale = w ? at(w, i) : 1, shift = b ? at(b, i) : 0, v = at(x, c);
            *want(e, c) = (v - m) * r * scale + shift;
            *terms(e, c) = (fabs(v) + sizes) * r * fabs(scale) + fabs(shift);
        }
    }
    trial_run(&t);
}

static void test_norm(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        norm("native_layer_norm", GEMS_F32, l, SHAPE(3, 5, 33), 1, true);
    for (int i = 1; i < FLOATING; i++)
        norm(i % 2 ? "native_layer_norm" : "_fused_rms_norm", floating[i], DENSE, SHAPE(3, 5, 30), 2, true);
    norm("_fused_rms_norm", GEMS_F32, SLICED, SHAPE(4, 300), 1, false);
    norm("native_layer_norm", GEMS_F32, DENSE, SHAPE(4, 300), 1, false);
}

static void scan(const char *op, gems_dtype dtype, layout l, shape s, int dim, gems_dtype to)
{
    trial t;
    trial_begin(&t, op);
    t.parameters = dtype == GEMS_F32;
    t.quick = dtype != GEMS_F32;
    operand *x = tensor(&t, dtype, l, s);
    integer(&t, dim - s.ndim);
    none(&t);
    if (t.call.op->form == GEMS_OUT)
        tensor(&t, to, DENSE, s);
    expected *e = expect(&t, 0, to, s);
    t.slack = (double)s.size[dim];
    EACH (c, s) {
        int64_t before[DIMS];
        memcpy(before, c, sizeof before);
        before[dim]--;
        double v = at(x, c);
        *want(e, c) = v + (c[dim] ? *want(e, before) : 0);
        *terms(e, c) = fabs(v) + (c[dim] ? *terms(e, before) : 0);
    }
    trial_run(&t);
}

static void test_scan(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++)
            scan("cumsum", GEMS_F32, l, SHAPE(5, 6, 40), dim, GEMS_F32);
    for (int i = 1; i < FLOATING; i++)
        scan("cumsum", floating[i], SLICED, SHAPE(3, 70), 1, floating[i]);
    scan("cumsum", GEMS_I32, TRANSPOSED, SHAPE(30, 20), 0, GEMS_I64);
    scan("cumsum", GEMS_BOOL, DENSE, SHAPE(3, 90), 1, GEMS_I64);
    scan("cumsum.out", GEMS_F32, SLICED, SHAPE(300), 0, GEMS_F32);
}

/* ---- blas ---- */

typedef struct sizes {
    int64_t batch, m, n, k;
} sizes;

/* result = beta * add + alpha * left @ right; what is absent in the schema is absent here. */
static void blas(const char *op, gems_dtype dtype, layout l, sizes z, double beta, double alpha)
{
    trial t;
    trial_begin(&t, op);
    const gems_op *o = t.call.op;
    bool three = strstr(op, "bmm"), vector = strstr(op, "mv"), outer = strstr(op, "addr"), dot = strstr(op, "dot");
    bool linear = strcmp(op, "linear") == 0, adds = strncmp(op, "add", 3) == 0 || strncmp(op, "badd", 4) == 0;
    t.parameters = strcmp(op, "mm") == 0 && dtype == GEMS_F32;
    t.quick = !t.parameters || l != DENSE;
    shape left = three   ? SHAPE(z.batch, z.m, z.k)
                 : outer ? SHAPE(z.m)
                 : dot   ? SHAPE(z.k)
                         : /* a matrix */ SHAPE(z.m, z.k);
    shape right = three           ? SHAPE(z.batch, z.k, z.n)
                  : outer         ? SHAPE(z.n)
                  : vector || dot ? SHAPE(z.k)
                  : linear        ? SHAPE(z.n, z.k)
                                  : SHAPE(z.k, z.n);
    shape to = three ? SHAPE(z.batch, z.m, z.n) : vector ? SHAPE(z.m) : dot ? (shape){0} : SHAPE(z.m, z.n);
    shape d = linear || (o->form != GEMS_INPLACE && to.ndim > 1) ? SHAPE(z.n) : to;
    operand *add_to = adds ? tensor(&t, dtype, l == EXPANDED ? DENSE : l, d) : NULL;
    operand *a = tensor(&t, dtype, l, left), *b = tensor(&t, dtype, l, right);
    if (linear)
        add_to = tensor(&t, dtype, DENSE, d);
    for (int i = 0; i < 2 && adds; i++)
        if (gems_dtypes[dtype].category == GEMS_CAT_FLOAT)
            real(&t, i ? alpha : beta);
        else
            integer(&t, (int64_t)(i ? alpha : beta));
    if (o->form == GEMS_OUT)
        tensor(&t, dtype, l == EXPANDED ? DENSE : l, to);
    expected *e = expect(&t, 0, dtype, to);
    t.slack = 4 + 2 * sqrt((double)z.k);
    EACH (c, to) {
        double sum = 0, sizes_ = 0;
        const int64_t *rc = c + (to.ndim == 3), batch = three ? c[0] : 0;
        int64_t row = to.ndim ? rc[0] : 0, col = to.ndim > 1 ? rc[1] : 0;
        for (int64_t k = 0; k < (outer ? 1 : z.k); k++) {
            double x = three ? AT(a, batch, row, k) : outer ? AT(a, row) : dot ? AT(a, k) : AT(a, row, k);
            double y = three           ? AT(b, batch, k, col)
                       : outer         ? AT(b, col)
                       : vector || dot ? AT(b, k)
                       : linear        ? AT(b, col, k)
                                       : AT(b, k, col);
            sum += x * y;
            sizes_ += fabs(x * y);
        }
        double plus = add_to ? beta * at_broadcast(add_to, &to, c) : 0;
        *want(e, c) = alpha * sum + plus;
        *terms(e, c) = fabs(alpha) * sizes_ + fabs(plus);
    }
    trial_run(&t);
}

static void test_blas(void)
{
    static const sizes small = {1, 19, 37, 23}, tiny = {3, 9, 17, 12};
    for (layout l = DENSE; l < LAYOUTS; l++) {
        blas("mm", GEMS_F32, l, small, 0, 1);
        blas("baddbmm", GEMS_F32, l, tiny, 0.5, 2);
        blas("addmv", GEMS_F32, l, (sizes){1, 33, 1, 50}, 0.5, -2);
        blas("mv", GEMS_F32, l, (sizes){1, 33, 1, 50}, 0, 1);
        if (l != EXPANDED) {
            blas("addmm_", GEMS_F32, l, small, 0.5, 2);
            blas("addmm.out", GEMS_F32, l, small, -1, 1);
        }
    }
    for (int i = 1; i < FLOATING; i++)
        blas("addmm", floating[i], DENSE, small, 0.5, 2);
    blas("mm", GEMS_I32, TRANSPOSED, small, 0, 1);
    blas("addmm", GEMS_I64, DENSE, small, 3, 2);
    blas("bmm", GEMS_F64, TRANSPOSED, tiny, 0, 1);
    blas("linear", GEMS_F32, DENSE, (sizes){1, 3, 40, 300}, 1, 1);
    blas("dot", GEMS_F32, SLICED, (sizes){1, 1, 1, 500}, 0, 1);
    blas("addr", GEMS_F32, DENSE, (sizes){1, 7, 13, 1}, 2, 3);
    blas("mm", GEMS_F32, DENSE, (sizes){1, 70, 130, 65}, 0, 1);
    blas("mm", GEMS_F32, DENSE, (sizes){1, 33, 3, 70}, 0, 1); /* few columns */
}

/* ---- attention ---- */

static double score(const operand *q, const operand *k, const int64_t *row, int64_t key, int64_t group, double *sizes_)
{
    double sum = 0, scale = 1 / sqrt((double)q->shape.size[3]);
    *sizes_ = 0;
    for (int64_t d = 0; d < q->shape.size[3]; d++) {
        double x = AT(q, row[0], row[1], row[2], d) * AT(k, row[0], row[1] / group, key, d) * scale;
        sum += x;
        *sizes_ += fabs(x);
    }
    return sum;
}

/* `turned`: [batch, length, heads, head] in memory. `groups`: heads to a key head. */
static void attention(gems_dtype dtype, layout l, shape q_shape, int64_t keys, int64_t groups, bool causal, bool masked)
{
    trial t;
    trial_begin(&t, "_scaled_dot_product_flash_attention_for_cpu");
    t.parameters = l == DENSE && dtype == GEMS_F32;
    t.quick = !t.parameters;
    const int64_t *n = q_shape.size;
    shape kv = SHAPE(n[0], n[1] / groups, keys, n[3]), rows = SHAPE(n[0], n[1], n[2]);
    operand *q = tensor(&t, dtype, l, q_shape), *k = tensor(&t, dtype, l, kv), *v = tensor(&t, dtype, OFFSET, kv);
    real(&t, 0);
    boolean(&t, causal);
    operand *mask = masked ? tensor(&t, dtype, DENSE, SHAPE(n[2], keys)) : NULL;
    if (!masked)
        none(&t);
    none(&t);
    expected *out = expect(&t, 0, dtype, q_shape);
    expected *lse = expect(&t, 1, dtype == GEMS_F64 ? GEMS_F64 : GEMS_F32, rows);
    t.slack = 16;
    EACH (row, rows) {
        double s[64], largest = -INFINITY, sum = 0, rounding = 1, sizes_;
        int64_t seen = causal && row[2] + 1 < keys ? row[2] + 1 : keys;
        for (int64_t i = 0; i < seen; i++) {
            s[i] = score(q, k, row, i, groups, &sizes_) + (masked ? AT(mask, row[2], i) : 0);
            largest = fmax(largest, s[i]);
            rounding = fmax(rounding, sizes_ + (masked ? fabs(AT(mask, row[2], i)) : 0));
        }
        for (int64_t i = 0; i < seen; i++)
            sum += s[i] = exp(s[i] - largest);
        *want(lse, row) = largest + log(sum);
        *terms(lse, row) = rounding + log(sum);
        for (int64_t d = 0; d < n[3]; d++) {
            int64_t c[DIMS] = {row[0], row[1], row[2], d};
            for (int64_t i = 0; i < seen; i++) {
                double x = s[i] / sum * AT(v, row[0], row[1] / groups, i, d);
                *want(out, c) += x;
                *terms(out, c) += fabs(x) * (1 + 2 * rounding);
            }
        }
    }
    trial_run(&t);
}

static void test_attention(void)
{
    attention(GEMS_F32, DENSE, SHAPE(2, 2, 37, 16), 41, 1, false, false);
    attention(GEMS_F32, OFFSET, SHAPE(1, 4, 20, 9), 33, 2, true, false);
    attention(GEMS_F32, EXPANDED, SHAPE(2, 1, 5, 8), 7, 1, false, true);
    for (int i = 1; i < FLOATING; i++)
        attention(floating[i], DENSE, SHAPE(1, 2, 18, 12), 20, 1, i == 1, i == 2);
}

/* ---- what only moves ---- */

/* A result whose element at c is that of `from` at k, which `source` fills in; false: it is `other`. */
typedef bool source_of(const trial *t, const int64_t *c, int64_t *k);

static void move(trial *t, operand *from, gems_dtype dtype, shape to, source_of *source, double other)
{
    expected *e = expect(t, 0, dtype, to);
    t->exact = true;
    EACH (c, to) {
        int64_t k[DIMS];
        memcpy(k, c, sizeof k);
        *want(e, c) = source(t, c, k) ? at(from, k) : other;
    }
    trial_run(t);
}

static void cat(const char *op, gems_dtype dtype, layout l, int dim, int n, layout out)
{
    trial t;
    bool stacks = strcmp(op, "stack") == 0;
    trial_begin(&t, op);
    shape to = SHAPE(3, 4, 6);
    int64_t along = 0;
    for (int i = 0; i < n; i++) {
        shape s = to;
        s.size[dim] = stacks ? s.size[dim] : 1 + i % 3;
        along += s.size[dim];
        /* One of another dtype, to which all are promoted. */
        hold(&t, operand_with(i == 1 && dtype == GEMS_I16 ? GEMS_F32 : dtype, (layout)((l + i % 2) % LAYOUTS), s));
    }
    gems_dtype result = dtype == GEMS_I16 && n > 1 ? GEMS_F32 : dtype;
    list(&t);
    integer(&t, dim);
    if (stacks) {
        memmove(to.size + dim + 1, to.size + dim, (size_t)(to.ndim - dim) * sizeof *to.size);
        to.ndim++;
    }
    to.size[dim] = stacks ? n : along;
    if (t.call.op->form == GEMS_OUT)
        tensor(&t, result, out, to);
    expected *e = expect(&t, 0, result, to);
    t.exact = true;
    EACH (c, to) {
        int64_t k[DIMS];
        int i = 0;
        memcpy(k, c, sizeof k);
        if (stacks) {
            i = (int)c[dim];
            memmove(k + dim, k + dim + 1, (size_t)(to.ndim - 1 - dim) * sizeof *k);
        } else
            while (k[dim] >= t.held[i]->shape.size[dim])
                k[dim] -= t.held[i++]->shape.size[dim];
        *want(e, c) = at(t.held[i], k);
    }
    trial_run(&t);
}

static const gems_dtype moved[] = {GEMS_F32, GEMS_BF16, GEMS_F64, GEMS_U8, GEMS_I16, GEMS_BOOL};
enum {
    MOVED = 6
};

static void test_cat(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++)
            cat("cat", GEMS_F32, l, dim, 3, DENSE);
    for (int i = 0; i < MOVED; i++)
        cat("cat", moved[i], DENSE, 1, 2, DENSE);
    cat("cat", GEMS_F32, DENSE, 0, 100, DENSE);
    cat("cat.out", GEMS_F32, TRANSPOSED, 2, 3, SLICED);
}

static void test_stack(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++)
            cat("stack", GEMS_F32, l, dim, 3, DENSE);
    for (int i = 0; i < MOVED; i++)
        cat("stack", moved[i], DENSE, 1, 2, DENSE);
}

static bool flipped(const trial *t, const int64_t *c, int64_t *k)
{
    const gems_value *dims = &t->call.arg[1];
    for (size_t i = 0; i < dims->ints.n; i++)
        k[dims->ints.v[i]] = t->held[0]->shape.size[dims->ints.v[i]] - 1 - c[dims->ints.v[i]];
    return true;
}

static void test_flip(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int i = 0; i < MOVED; i++) {
            trial t;
            trial_begin(&t, "flip");
            operand *x = tensor(&t, moved[i], l, SHAPE(3, 5, 7));
            if (i % 2)
                INTS(&t, 0, 2);
            else
                INTS(&t, 1);
            move(&t, x, moved[i], SHAPE(3, 5, 7), flipped, 0);
        }
}

static bool repeated(const trial *t, const int64_t *c, int64_t *k)
{
    const shape *s = &t->held[0]->shape;
    int missing = (int)t->call.arg[1].ints.n - s->ndim;
    for (int d = 0; d < s->ndim; d++)
        k[d] = c[d + missing] % s->size[d];
    return true;
}

static void test_repeat(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int i = 0; i < MOVED; i += 2) {
            trial t;
            trial_begin(&t, "repeat");
            operand *x = tensor(&t, moved[i], l, SHAPE(4, 6));
            INTS(&t, 2, 3, 2);
            move(&t, x, moved[i], SHAPE(2, 12, 12), repeated, 0);
        }
}

static bool padded(const trial *t, const int64_t *c, int64_t *k)
{
    const shape *s = &t->held[0]->shape;
    const int64_t *pad = t->call.arg[1].ints.v;
    bool inside = true;
    for (int d = 1; d < s->ndim; d++) {
        k[d] = c[d] - pad[2 * (s->ndim - 1 - d)];
        inside &= k[d] >= 0 && k[d] < s->size[d];
    }
    return inside;
}

static void test_pad(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int i = 0; i < MOVED - 1; i++) {
            trial t;
            trial_begin(&t, "constant_pad_nd");
            operand *x = tensor(&t, moved[i], l, SHAPE(3, 5, 7));
            INTS(&t, 2, -1, i % 2, 3);
            integer(&t, 5);
            move(&t, x, moved[i], SHAPE(3, 5 + i % 2 + 3, 8), padded, 5);
        }
}

static bool kept(const trial *t, const int64_t *c, int64_t *k)
{
    int64_t diagonal = t->call.arg[1].i;
    (void)k;
    return strncmp(t->call.op->name, "triu", 4) == 0 ? c[2] - c[1] >= diagonal : c[2] - c[1] <= diagonal;
}

static void test_tri(void)
{
    static const char *const ops[] = {"triu", "tril", "triu_", "tril_", "triu.out", "tril.out"};
    for (int i = 0; i < 6; i++)
        for (layout l = DENSE; l < LAYOUTS; l++) {
            trial t;
            trial_begin(&t, ops[i]);
            if (t.call.op->form == GEMS_INPLACE && l == EXPANDED)
                continue;
            operand *x = tensor(&t, moved[i], l, SHAPE(3, 6, 7));
            integer(&t, (int64_t)l - 2);
            if (t.call.op->form == GEMS_OUT)
                tensor(&t, moved[i], l == EXPANDED ? DENSE : l, SHAPE(3, 6, 7));
            move(&t, x, moved[i], SHAPE(3, 6, 7), kept, 0);
        }
}

/* An index tensor of values below `limit`. */
static operand *indices(trial *t, gems_dtype dtype, layout l, shape s, int64_t limit)
{
    operand *o = tensor(t, dtype, l, s);
    uint64_t seed = 3;
    EACH (c, s)
        put(o, c, (double)((int64_t)fabs(any_value(&seed, GEMS_I64)) % limit));
    return o;
}

static bool embedded(const trial *t, const int64_t *c, int64_t *k)
{
    k[0] = (int64_t)at(t->held[1], c);
    k[1] = c[2];
    return true;
}

static void test_embedding(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int i = 0; i < MOVED; i += 2) {
            trial t;
            trial_begin(&t, "embedding");
            operand *weight = tensor(&t, moved[i], l, SHAPE(9, 12));
            indices(&t, i ? GEMS_I32 : GEMS_I64, l, SHAPE(4, 5), 9);
            integer(&t, -1);
            boolean(&t, false);
            boolean(&t, false);
            move(&t, weight, moved[i], SHAPE(4, 5, 12), embedded, 0);
        }
}

static bool selected(const trial *t, const int64_t *c, int64_t *k)
{
    int64_t dim = t->call.arg[1].i;
    k[dim] = (int64_t)at(t->held[1], &c[dim]);
    return true;
}

static void test_index_select(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++) {
            trial t;
            gems_dtype dtype = moved[(l + dim) % MOVED];
            trial_begin(&t, l == SLICED ? "index_select.out" : "index_select");
            operand *x = tensor(&t, dtype, l, SHAPE(4, 5, 6));
            shape to = SHAPE(4, 5, 6);
            to.size[dim] = 11;
            integer(&t, dim);
            indices(&t, GEMS_I64, l == EXPANDED ? DENSE : l, SHAPE(11), 4);
            if (t.call.op->form == GEMS_OUT)
                tensor(&t, dtype, SLICED, to);
            move(&t, x, dtype, to, selected, 0);
        }
}

static bool gathered(const trial *t, const int64_t *c, int64_t *k)
{
    k[t->call.arg[1].i] = (int64_t)at(t->held[1], c);
    return true;
}

static void test_gather(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++) {
            trial t;
            gems_dtype dtype = moved[(l + dim) % MOVED];
            trial_begin(&t, l == TRANSPOSED ? "gather.out" : "gather");
            operand *x = tensor(&t, dtype, l, SHAPE(4, 5, 6));
            shape to = SHAPE(3, 4, 5);
            to.size[dim] = 9;
            integer(&t, dim);
            indices(&t, GEMS_I64, l, to, 4);
            boolean(&t, false);
            if (t.call.op->form == GEMS_OUT)
                tensor(&t, dtype, SLICED, to);
            move(&t, x, dtype, to, gathered, 0);
        }
}

/* ---- all of them ---- */

#define EVERY_FAMILY(X)                                                                                                \
    X(pointwise)                                                                                                       \
    X(glu)                                                                                                             \
    X(glu_backward)                                                                                                    \
    X(polar)                                                                                                           \
    X(reduce)                                                                                                          \
    X(arg)                                                                                                             \
    X(softmax)                                                                                                         \
    X(norm)                                                                                                            \
    X(scan) X(blas) X(attention) X(cat) X(stack) X(flip) X(repeat) X(pad) X(tri) X(embedding) X(index_select) X(gather)

static const gems_family *family_of(const char *name)
{
    for (unsigned i = 0; i < gems_op_count; i++)
        if (gems_ops[i].kernel && strcmp(gems_ops[i].kernel->name, name) == 0)
            return gems_ops[i].kernel;
    return NULL;
}

/* A variant that no trial reached has no test, or fits nothing any more. */
static void check_family(const char *name, void (*test)(void))
{
    const gems_family *family = family_of(name);
    cr_assert(gems_device_open(), "%s", gems_device_error());
    cr_assert_not_null(family);
    test();
    for (const gems_variant *v = family->variants; v->name; v++) {
        if (strcmp(v->name, "clblast") == 0 && (is_simulated() || gems_clblast_refuses(GEMS_CLBLAST_GEMM, GEMS_F32)))
            continue;
        for (int lane = 0; lane < (is_simulated() ? 1 : GEMS_LANE_COUNT); lane++)
            cr_expect(has_run(family, lane, v), "no trial of %s ran variant %s on lane %d", name, v->name, lane);
    }
    cr_expect_eq(trial_failures, 0);
}

/* Each test is a process of its own; errors that Oclgrind finds go to a file for each. */
static void set_up(void)
{
    const char *log = getenv("OCLGRIND_LOG");
    char own[4096];
    snprintf(own, sizeof own, "%s.%d", log ? log : "", (int)getpid());
    if (log)
        setenv("OCLGRIND_LOG", own, 1);
}

static void set_up_staged(void)
{
    set_up();
    setenv("GEMS_MEMORY", "staged", 1);
}

TestSuite(families, .init = set_up, .timeout = 600);
TestSuite(families_staged, .init = set_up_staged, .timeout = 600);

#define TESTS(name)                                                                                                    \
    Test(families, name)                                                                                               \
    {                                                                                                                  \
        check_family(#name, test_##name);                                                                              \
    }                                                                                                                  \
    Test(families_staged, name)                                                                                        \
    {                                                                                                                  \
        check_family(#name, test_##name);                                                                              \
    }
EVERY_FAMILY(TESTS)

Test(families, none_is_left_out)
{
#define NAME(name) #name,
    static const char *const tested[] = {EVERY_FAMILY(NAME) NULL};
    for (unsigned i = 0; i < gems_op_count; i++) {
        const gems_family *family = gems_ops[i].kernel;
        int k = 0;
        while (family && tested[k] && strcmp(tested[k], family->name) != 0)
            k++;
        cr_expect(!family || tested[k], "%s of %s", family->name, gems_ops[i].name);
    }
}
