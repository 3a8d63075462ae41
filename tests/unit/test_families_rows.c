/* What goes along a dimension: see families.h. */
#include "tests/unit/families.h"

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
    for (int i = 0; i < FLOATING; i++) { /* 16 bytes at a time, along rows and across them */
        reduce(i % 2 ? &amax : &sum, floating[i], EXPANDED, SHAPE(3, 40, 80), 4 >> i % 3, false);
        reduce(i % 2 ? &sum : &mean, floating[i], DENSE, SHAPE(300, 160), 1, false);
        reduce(i % 2 ? &sum : &mean, floating[i], DENSE, SHAPE(6, 1003), i ? 3 : 2, false);
    }
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int i = 0; i < 5; i++)
            reduce(&sum, GEMS_F32, l, SHAPE(4, 9, 40), dims[i], i % 2);
    for (int i = 1; i < FLOATING; i++)
        reduce(i % 2 ? &mean : &amax, floating[i], SLICED, SHAPE(3, 150), 2, i % 2);
    reduce(&sum_i, GEMS_BOOL, DENSE, SHAPE(50, 96), 1, false);
    reduce(&sum_i, GEMS_U8, DENSE, SHAPE(50, 96), 2, false);
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
    t.parameters = l == DENSE;
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
    for (int i = 0; i < FLOATING; i++) /* 16 bytes at a time: more rows than a group has, more of a row than is held */
        softmax(i % 2 ? "_log_softmax" : "_softmax", floating[i], i ? EXPANDED : DENSE,
                SHAPE(i ? 3 : 300, i ? 1000 : 48), 1);
    softmax("_softmax", GEMS_F32, EXPANDED, SHAPE(2, 4096), 1);
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
    t.parameters = l == DENSE;
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
        b = tensor(&t, dtype, count(in) % 8 ? OFFSET : DENSE, in);
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

/* Of samples, channels and `span` elements in each. */
static void group_norm(gems_dtype dtype, gems_dtype affine, layout l, int64_t span, int64_t groups, bool has_bias)
{
    const shape s = SHAPE(3, 12, span), stats = SHAPE(3, groups), channels = SHAPE(12);
    const int64_t each = 12 / groups, n = each * span;
    trial t;
    trial_begin(&t, "native_group_norm");
    t.quick = dtype != GEMS_F32;
    operand *x = tensor(&t, dtype, l, s), *w = tensor(&t, affine, DENSE, channels), *b = NULL;
    if (has_bias)
        b = tensor(&t, affine, OFFSET, channels);
    else
        none(&t);
    integer(&t, 3);
    integer(&t, 12);
    integer(&t, span);
    integer(&t, groups);
    real(&t, 1e-3);
    t.slack = 32;
    expected *e = expect(&t, 0, dtype, s), *mean = expect(&t, 1, affine, stats), *rstd = expect(&t, 2, affine, stats);
    EACH (row, stats) {
        double sum = 0, sizes = 0, squares = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t i = 0; i < n; i++) {
                const int64_t c[DIMS] = {row[0], row[1] * each + i / span, i % span};
                const double v = at(x, c);
                sum += pass ? 0 : v / (double)n;
                sizes += pass ? 0 : fabs(v) / (double)n;
                squares += pass ? (v - sum) * (v - sum) : 0;
            }
        const double r = 1 / sqrt(squares / (double)n + 1e-3);
        *want(mean, row) = sum;
        *terms(mean, row) = sizes;
        *want(rstd, row) = r;
        for (int64_t i = 0; i < n; i++) {
            const int64_t c[DIMS] = {row[0], row[1] * each + i / span, i % span};
            const double scale = at(w, c + 1), shift = b ? at(b, c + 1) : 0, v = at(x, c);
            *want(e, c) = (v - sum) * r * scale + shift;
            *terms(e, c) = (fabs(v) + sizes) * r * fabs(scale) + fabs(shift);
        }
    }
    trial_run(&t);
}

static void test_norm(void)
{
    for (int i = 0; i < FLOATING; i++)
        group_norm(floating[i], floating[i], DENSE, 40, 4, i != 1);
    group_norm(GEMS_BF16, GEMS_F32, DENSE, 24, 12, true);
    group_norm(GEMS_F32, GEMS_F32, OFFSET, 35, 1, true); /* channels of no whole vectors */
    for (int i = 0; i < FLOATING; i++)                   /* 16 bytes at a time */
        norm(i % 2 ? "_fused_rms_norm" : "native_layer_norm", floating[i], i ? EXPANDED : DENSE, SHAPE(3, 5, 200), 1,
             i != 1);
    for (layout l = DENSE; l < LAYOUTS; l++)
        norm("native_layer_norm", GEMS_F32, l, SHAPE(3, 5, 33), 1, true);
    for (int i = 1; i < FLOATING; i++)
        norm(i % 2 ? "native_layer_norm" : "_fused_rms_norm", floating[i], DENSE, SHAPE(3, 5, 30), 2, true);
    norm("_fused_rms_norm", GEMS_F32, SLICED, SHAPE(4, 300), 1, false);
    norm("native_layer_norm", GEMS_F32, DENSE, SHAPE(4, 300), 1, false);
}

/* Gradients of layer norm, of which `mask` says which are wanted. mean and rstd are any. */
static void norm_backward(gems_dtype dtype, gems_dtype affine, layout l, shape s, int inner, const bool *mask)
{
    trial t;
    trial_begin(&t, "native_layer_norm_backward");
    t.quick = dtype != GEMS_F32 || l != DENSE;
    t.parameters = inner == 2;
    shape in = {inner, {0}}, stats = s;
    memcpy(in.size, s.size + s.ndim - inner, (size_t)inner * sizeof(int64_t));
    for (int d = s.ndim - inner; d < s.ndim; d++)
        stats.size[d] = 1;
    operand *g = tensor(&t, dtype, l, s), *x = tensor(&t, dtype, l == DENSE && inner == 1 ? SLICED : l, s), *w = NULL;
    integers(&t, inner, in.size);
    operand *mean = tensor(&t, affine, DENSE, stats), *rstd = tensor(&t, affine, OFFSET, stats);
    if (mask[1])
        w = tensor(&t, affine, DENSE, in);
    else
        none(&t);
    if (mask[2])
        tensor(&t, affine, OFFSET, in);
    else
        none(&t);
    booleans(&t, 3, mask);
    shape shapes[] = {s, in, in};
    expected *e[3] = {NULL};
    for (unsigned i = 0; i < 3; i++)
        if (mask[i])
            e[i] = expect(&t, i, i ? affine : dtype, shapes[i]);
        else
            absent(&t, i);
    t.slack = 32;
    double n = (double)count(in);
    EACH (row, stats) {
        double m = at(mean, row), r = at(rstd, row), sum = 0, sums = 0, dot = 0, dots = 0;
        for (int pass = 0; pass < 2; pass++)
            EACH (i, in) {
                int64_t c[DIMS];
                memcpy(c, row, sizeof c);
                memcpy(c + s.ndim - inner, i, (size_t)inner * sizeof *c);
                double y = (at(x, c) - m) * r, d = at(g, c), dw = d * (w ? at(w, i) : 1);
                sum += pass ? 0 : dw / n;
                sums += pass ? 0 : fabs(dw) / n;
                dot += pass ? 0 : dw * y / n;
                dots += pass ? 0 : fabs(dw * y) / n;
                if (pass && e[0]) {
                    *want(e[0], c) = (dw - sum - y * dot) * r;
                    *terms(e[0], c) = (fabs(dw) + sums + fabs(y) * dots) * fabs(r);
                }
                if (pass && e[1]) {
                    *want(e[1], i) += d * y;
                    *terms(e[1], i) += fabs(d * y);
                }
                if (pass && e[2]) {
                    *want(e[2], i) += d;
                    *terms(e[2], i) += fabs(d);
                }
            }
    }
    trial_run(&t);
}

static void test_norm_backward(void)
{
    static const bool all[] = {true, true, true}, input[] = {true, false, false}, weight[] = {false, true, false},
                      both[] = {false, true, true}, bias[] = {true, false, true};
    for (int i = 0; i < FLOATING; i++) { /* 16 bytes at a time */
        norm_backward(floating[i], floating[i], DENSE, SHAPE(300, 6, 8), 2, i == 1 ? bias : i == 2 ? weight : all);
        norm_backward(floating[i], i == 2 ? GEMS_F32 : floating[i], EXPANDED, SHAPE(5, 2048), 1, i == 1 ? input : all);
    }
    for (layout l = DENSE; l < LAYOUTS; l++)
        norm_backward(GEMS_F32, GEMS_F32, l, SHAPE(3, 5, 33), 1, all);
    for (int i = 1; i < FLOATING; i++) {
        norm_backward(floating[i], floating[i], DENSE, SHAPE(3, 5, 30), 2, i % 2 ? all : bias);
        if (floating[i] != GEMS_F64)
            norm_backward(floating[i], GEMS_F32, SLICED, SHAPE(5, 70), 1, all);
    }
    norm_backward(GEMS_F32, GEMS_F32, DENSE, SHAPE(4, 300), 1, input);
    norm_backward(GEMS_F32, GEMS_F32, TRANSPOSED, SHAPE(700, 50), 1, both);
    norm_backward(GEMS_F32, GEMS_F32, DENSE, SHAPE(300, 40), 1, weight);
    norm_backward(GEMS_F32, GEMS_F32, DENSE, SHAPE(200, 9), 1, bias);
}

/* `of`: the dtype of what channels have. */
static void batch_norm(const char *op, gems_dtype dtype, gems_dtype of, layout l, shape s, bool weight, bool bias)
{
    trial t;
    trial_begin(&t, op);
    t.parameters = dtype == GEMS_F32 && l == DENSE;
    t.quick = !t.parameters;
    operand *x = tensor(&t, dtype, l, s), *w = NULL, *b = NULL;
    const shape channels = SHAPE(s.size[1]), none_saved = {1, {0}};
    if (weight)
        w = tensor(&t, of, SLICED, channels);
    else
        none(&t);
    if (bias)
        b = tensor(&t, of, OFFSET, channels);
    else
        none(&t);
    operand *mean = tensor(&t, of, DENSE, channels), *variance = tensor(&t, of, DENSE, channels);
    EACH (c, channels)
        put(variance, c, fabs(at(variance, c)));
    boolean(&t, false);
    real(&t, 0.1);
    real(&t, 1e-3);
    if (t.call.op->form == GEMS_OUT) {
        tensor(&t, dtype, DENSE, s);
        tensor(&t, of, DENSE, none_saved);
        tensor(&t, of, DENSE, none_saved);
    }
    expected *e = expect(&t, 0, dtype, s);
    expect(&t, 1, of, none_saved);
    expect(&t, 2, of, none_saved);
    t.slack = 8;
    EACH (c, s) {
        double scale = (w ? AT(w, c[1]) : 1) / sqrt(AT(variance, c[1]) + 1e-3), shift = b ? AT(b, c[1]) : 0;
        *want(e, c) = (at(x, c) - AT(mean, c[1])) * scale + shift;
        *terms(e, c) = (fabs(at(x, c)) + fabs(AT(mean, c[1]))) * fabs(scale) + fabs(shift);
    }
    trial_run(&t);
}

static void test_batch_norm(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        batch_norm("native_batch_norm", GEMS_F32, GEMS_F32, l, SHAPE(3, 6, 5, 7), true, true);
    batch_norm("native_batch_norm", GEMS_F32, GEMS_F32, CHANNELS_LAST, SHAPE(3, 6, 5, 7), true, false);
    batch_norm("native_batch_norm.out", GEMS_F32, GEMS_F32, DENSE, SHAPE(30, 20), false, true);
    for (int i = 1; i < FLOATING; i++)
        batch_norm("native_batch_norm", floating[i], floating[i] == GEMS_BF16 ? GEMS_F32 : floating[i], DENSE,
                   SHAPE(4, 5, 9), i % 2, true);
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
    for (int i = 0; i < FLOATING; i++) /* 16 bytes at a time */
        scan("cumsum", floating[i], i ? EXPANDED : DENSE, SHAPE(i ? 3 : 300, i ? 1000 : 48), 1, floating[i]);
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++)
            scan("cumsum", GEMS_F32, l, SHAPE(5, 6, 40), dim, GEMS_F32);
    for (int i = 1; i < FLOATING; i++)
        scan("cumsum", floating[i], SLICED, SHAPE(3, 70), 1, floating[i]);
    scan("cumsum", GEMS_I32, TRANSPOSED, SHAPE(30, 20), 0, GEMS_I64);
    scan("cumsum", GEMS_BOOL, DENSE, SHAPE(3, 90), 1, GEMS_I64);
    scan("cumsum.out", GEMS_F32, SLICED, SHAPE(300), 0, GEMS_F32);
    scan("cumsum", GEMS_BOOL, DENSE, SHAPE(3, 96), 1, GEMS_I64);
}

static void scan_best(gems_dtype dtype, layout l, shape s, int dim)
{
    trial t;
    trial_begin(&t, "cummax");
    t.quick = dtype != GEMS_F32;
    operand *x = tensor(&t, dtype, l, s);
    integer(&t, dim - s.ndim);
    expected *values = expect(&t, 0, dtype, s), *places = expect(&t, 1, GEMS_I64, s);
    EACH (c, s) {
        int64_t before[DIMS];
        memcpy(before, c, sizeof before);
        before[dim]--;
        const double v = at(x, c);
        bool better = c[dim] == 0 || v >= *want(values, before);
        *want(values, c) = better ? v : *want(values, before);
        *want(places, c) = better ? (double)c[dim] : *want(places, before);
    }
    trial_run(&t);
}

static void test_scan_best(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++)
            scan_best(GEMS_F32, l, SHAPE(5, 6, 40), dim);
    scan_best(GEMS_F32, SLICED, SHAPE(3, 700), 1);
    scan_best(GEMS_BF16, DENSE, SHAPE(70, 30), 0);
    scan_best(GEMS_I64, TRANSPOSED, SHAPE(30, 20), 1);
}

/* ---- sort ---- */

/* How many elements of its row come before the one at c. */
static int64_t rank_of(const operand *x, shape s, const int64_t *c, int dim, bool descending)
{
    int64_t o[DIMS], rank = 0;
    memcpy(o, c, sizeof o);
    const double v = at(x, c);
    for (o[dim] = 0; o[dim] < s.size[dim]; o[dim]++) {
        const double other = at(x, o);
        rank += (descending ? other > v : other < v) || (other == v && o[dim] < c[dim]);
    }
    return rank;
}

/* k: 0 for sort. */
static void sort(gems_dtype dtype, layout l, shape s, int dim, bool descending, int64_t k)
{
    trial t;
    trial_begin(&t, k ? "topk" : "sort");
    t.parameters = dtype == GEMS_F32;
    t.quick = dtype != GEMS_F32;
    operand *x = tensor(&t, dtype, l, s);
    shape kept = s;
    if (k) {
        integer(&t, k);
        kept.size[dim] = k;
    }
    integer(&t, dim - s.ndim);
    boolean(&t, descending);
    if (k)
        boolean(&t, true);
    expected *values = expect(&t, 0, dtype, kept), *places = expect(&t, 1, GEMS_I64, kept);
    EACH (c, s) {
        int64_t to[DIMS];
        memcpy(to, c, sizeof to);
        to[dim] = rank_of(x, s, c, dim, descending);
        if (to[dim] < kept.size[dim]) {
            *want(values, to) = at(x, c);
            *want(places, to) = (double)c[dim];
        }
    }
    trial_run(&t);
}

static void test_sort(void)
{
    static const gems_dtype others[] = {GEMS_F64, GEMS_BF16, GEMS_U8, GEMS_I16, GEMS_I64};
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++)
            sort(GEMS_F32, l, SHAPE(5, 6, 40), dim, dim == 1, dim == 2 ? 7 : 0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        sort(others[i], TRANSPOSED, SHAPE(30, 20), (int)i % 2, i % 2, i == 1 ? 5 : 0);
    for (int i = 0; i < 2; i++) /* several pieces, which are merged */
        sort(GEMS_F32, DENSE, SHAPE(4500), 0, i, i ? 100 : 0);
}

/* ---- nll_loss ---- */

enum {
    CLASSES = 7,
    IGNORED = -100
};

/* Targets of the shape of `s` without its classes, the weights, reduction and ignore_index. */
static void nll_arguments(trial *t, gems_dtype dtype, layout l, shape s, bool weighted, int how, operand **target,
                          operand **weight)
{
    shape rows = {s.ndim - 1, {0}};
    for (int d = 0; d < rows.ndim; d++)
        rows.size[d] = s.size[d + (d >= (s.ndim > 1))];
    *target = tensor(t, GEMS_I64, l == EXPANDED ? DENSE : l, rows);
    *weight = NULL;
    int64_t i = 0;
    EACH (c, rows)
        put(*target, c, i++ % 5 == 3 ? IGNORED : (double)((i * i) % CLASSES));
    if (weighted)
        *weight = tensor(t, dtype, OFFSET, SHAPE(CLASSES));
    else
        none(t);
    integer(t, how);
    integer(t, IGNORED);
}

/* The weight of row c, and where its element is; 0 if it counts for nothing. */
static double nll_row(const operand *target, const operand *weight, int ndim, const int64_t *c, int64_t *at_class)
{
    int64_t label = (int64_t)at(target, c);
    const int classes = ndim > 1;
    for (int d = 0; d < ndim; d++)
        at_class[d] = d == classes ? label : c[d - (d > classes)];
    if (label == IGNORED)
        return 0;
    return weight ? AT(weight, label) : 1;
}

static void nll_loss(gems_dtype dtype, layout l, shape s, bool weighted, int how)
{
    trial t;
    operand *target, *weight;
    trial_begin(&t, s.ndim == 4 ? "nll_loss2d_forward" : "nll_loss_forward");
    t.quick = dtype != GEMS_F32;
    operand *x = tensor(&t, dtype, l, s);
    nll_arguments(&t, dtype, l, s, weighted, how, &target, &weight);
    const bool each = how == 0 && s.ndim > 1;
    expected *e = expect(&t, 0, dtype, each ? target->shape : (shape){0}), *all = expect(&t, 1, dtype, (shape){0});
    const int64_t none_of[DIMS] = {0};
    t.slack = 8;
    EACH (c, target->shape) {
        int64_t k[DIMS] = {0};
        double w = nll_row(target, weight, s.ndim, c, k), loss = w ? -w * at(x, k) : 0;
        *want(e, each ? c : none_of) += loss;
        *terms(e, each ? c : none_of) += fabs(loss);
        *want(all, none_of) += each ? 0 : w;
        *terms(all, none_of) += each ? 0 : fabs(w);
    }
    if (how == 1) {
        /* What rounding makes of the divisor, beside that of the sum. */
        double n = *want(all, none_of);
        *terms(e, none_of) = *terms(e, none_of) / fabs(n) * (1 + *terms(all, none_of) / fabs(n));
        *want(e, none_of) /= n;
    }
    trial_run(&t);
}

static void test_nll_loss(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int how = 0; how < 3; how++)
            nll_loss(GEMS_F32, l, l % 2 ? SHAPE(3, CLASSES, 4, 5) : SHAPE(70, CLASSES), how != 1, how);
    for (int i = 1; i < FLOATING; i++)
        nll_loss(floating[i], SLICED, SHAPE(20, CLASSES), true, i - 1);
    nll_loss(GEMS_F32, DENSE, SHAPE(3000, CLASSES), false, 2);
    nll_loss(GEMS_F32, SLICED, SHAPE(CLASSES), true, 0);
    nll_loss(GEMS_F32, DENSE, SHAPE(CLASSES), true, 1);
}

static void nll_loss_backward(gems_dtype dtype, layout l, shape s, bool weighted, int how)
{
    trial t;
    operand *target, *weight;
    trial_begin(&t, s.ndim == 4 ? "nll_loss2d_backward" : "nll_loss_backward");
    t.quick = dtype != GEMS_F32;
    const bool each = how == 0 && s.ndim > 1;
    shape rows = {s.ndim - 1, {0}};
    for (int d = 0; d < rows.ndim; d++)
        rows.size[d] = s.size[d + (d >= (s.ndim > 1))];
    operand *g = tensor(&t, dtype, l, each ? rows : (shape){0});
    tensor(&t, dtype, s.ndim == 4 ? DENSE : l, s);
    nll_arguments(&t, dtype, l, s, weighted, how, &target, &weight);
    operand *all = tensor(&t, dtype, DENSE, (shape){0});
    expected *e = expect(&t, 0, dtype, s);
    const int64_t none_of[DIMS] = {0};
    t.slack = 4;
    EACH (c, target->shape) {
        int64_t k[DIMS] = {0};
        double w = nll_row(target, weight, s.ndim, c, k);
        if (w)
            *want(e, k) = -w * at(g, each ? c : none_of) / (how == 1 ? at(all, none_of) : 1);
    }
    trial_run(&t);
}

static void test_nll_loss_backward(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int how = 0; how < 3; how++)
            nll_loss_backward(GEMS_F32, l, l % 2 ? SHAPE(3, CLASSES, 4, 5) : SHAPE(70, CLASSES), how != 1, how);
    for (int i = 1; i < FLOATING; i++)
        nll_loss_backward(floating[i], SLICED, SHAPE(20, CLASSES), true, i - 1);
    nll_loss_backward(GEMS_F32, SLICED, SHAPE(CLASSES), true, 0);
    nll_loss_backward(GEMS_F32, DENSE, SHAPE(CLASSES), true, 1);
}

SUITES
ROWS(TESTS)
