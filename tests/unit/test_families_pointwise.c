/* What computes each element by itself: see families.h. */
#include "tests/unit/families.h"

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

/* More than a tile of local memory either way. */
static void pointwise_turned(void)
{
    static const gems_dtype dtypes[] = {GEMS_F32, GEMS_BF16, GEMS_U8, GEMS_F64};
    trial t;
    trial_begin(&t, "add.Tensor");
    t.parameters = true;
    tensor(&t, GEMS_F32, TRANSPOSED, SHAPE(2, 70, 40));
    tensor(&t, GEMS_F32, DENSE, SHAPE(2, 70, 40));
    integer(&t, 2);
    pointwise(&t, GEMS_F32, SHAPE(2, 70, 40), add);
    for (int i = 0; i < 4; i++) {
        trial_begin(&t, "copy_");
        t.quick = i > 0;
        tensor(&t, dtypes[i], i == 3 ? OFFSET : DENSE, SHAPE(2, 40, 70));
        tensor(&t, dtypes[i], TRANSPOSED, SHAPE(2, 40, 70));
        boolean(&t, false);
        pointwise(&t, dtypes[i], SHAPE(2, 40, 70), last);
    }
}

/* Rows of whole vectors: one row for all, one number for each, all of several rows; rows that begin anywhere. */
static void pointwise_rows(void)
{
    static const gems_dtype dtypes[] = {GEMS_BF16, GEMS_F32, GEMS_U8};
    for (int i = 0; i < 3; i++) {
        const int64_t n = i == 2 ? 48 : 24;
        trial t;
        trial_begin(&t, "add.Tensor");
        t.quick = i > 0;
        tensor(&t, dtypes[i], DENSE, SHAPE(5, 3, n));
        tensor(&t, dtypes[i], i == 1 ? OFFSET : DENSE, SHAPE(n));
        integer(&t, 2);
        pointwise(&t, dtypes[i], SHAPE(5, 3, n), add);
        trial_begin(&t, "add_.Tensor");
        t.quick = i > 0;
        tensor(&t, dtypes[i], DENSE, SHAPE(5, 3, n));
        tensor(&t, dtypes[i], DENSE, SHAPE(5, 1, n));
        integer(&t, 2);
        pointwise(&t, dtypes[i], SHAPE(5, 3, n), add);
        trial_begin(&t, "mul.Tensor");
        t.quick = i > 0;
        tensor(&t, dtypes[i], DENSE, SHAPE(5, 3, 1));
        tensor(&t, dtypes[i], DENSE, SHAPE(5, 3, n));
        pointwise(&t, dtypes[i], SHAPE(5, 3, n), multiply);
    }
}

static void test_pointwise(void)
{
    trial t;
    pointwise_turned();
    pointwise_rows();
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

SUITES
POINTWISE(TESTS)

Test(families, none_is_left_out)
{
#define NAME(name) #name,
    static const char *const tested[] = {POINTWISE(NAME) ROWS(NAME) PRODUCTS(NAME) MOVES(NAME) NULL};
    for (unsigned i = 0; i < gems_op_count; i++) {
        const gems_family *family = gems_ops[i].kernel;
        int k = 0;
        while (family && tested[k] && strcmp(tested[k], family->name) != 0)
            k++;
        cr_expect(!family || tested[k], "%s of %s", family->name, gems_ops[i].name);
    }
}
