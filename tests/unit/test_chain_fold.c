/* Reductions that compute what they read (gems_chain_fold): beside plain loops over what the chain's calls give one by
 * one. What was read stays owed. */
#include "tests/unit/chain_suite.h"

#include <math.h>

typedef struct reduction {
    const char *op;
    double identity;
    enum {
        SUM,
        MEAN,
        LARGEST,
        ANY
    } kind;
    bool one_dim;
} reduction;

/* ---- reductions ---- */

static const reduction sum = {"sum.dim_IntList", 0, SUM, false}, mean = {"mean.dim", 0, MEAN, false},
                       amax = {"amax", -INFINITY, LARGEST, false}, any = {"any.dim", 0, ANY, true};

/* Arguments of a reduction of x; list: room for its dimensions. */
static void write_call(gems_call *call, const reduction *r, node *x, unsigned dims, int64_t *list)
{
    gems_value arg[GEMS_MAX_ARGS] = {T(x)};
    const gems_op *op = gems_op_find(r->op);
    size_t n = 0;
    for (int d = 0; d < x->t.ndim; d++)
        if (dims >> d & 1)
            list[n++] = d;
    for (unsigned i = 1; i < op->nparams; i++)
        if (strcmp(op->params[i].name, "keepdim") == 0)
            arg[i] = (gems_value){.kind = GEMS_SCALAR_BOOL, .i = 0};
        else if (strcmp(op->params[i].name, "dim") == 0)
            arg[i] = r->one_dim ? I(list[0]) : (gems_value){.kind = GEMS_INTS, .ints = {list, n}};
    chain_call_begin(call, op, arg, NULL);
}

static void compare(const reduction *r, const node *x, unsigned dims, const node *result)
{
    shape all = {.ndim = x->t.ndim}, to = {0};
    memcpy(all.size, x->sizes, sizeof all.size);
    for (int d = 0; d < all.ndim; d++)
        if (!(dims >> d & 1))
            to.size[to.ndim++] = all.size[d];
    const int64_t results = count(to), n = count(all) / results;
    double *value = calloc((size_t)results, sizeof *value), *terms = calloc((size_t)results, sizeof *terms);
    operand twin = {.t = x->twin};
    memcpy(twin.strides, x->strides, sizeof twin.strides);
    for (int64_t i = 0; i < results; i++)
        value[i] = r->identity;
    EACH (c, all) {
        int64_t k = 0;
        for (int d = 0; d < all.ndim; d++)
            if (!(dims >> d & 1))
                k = k * all.size[d] + c[d];
        double v = at(&twin, c);
        terms[k] += fabs(v);
        value[k] = r->kind == LARGEST ? fmax(value[k], v) : r->kind == ANY ? value[k] != 0 || v != 0 : value[k] + v;
    }
    const gems_dtype dtype = result->t.dtype;
    int64_t wrong = 0;
    for (int64_t i = 0; i < results; i++) {
        double wanted = r->kind == MEAN ? value[i] / (double)n : value[i];
        double slack = r->kind == SUM ? terms[i] : r->kind == MEAN ? terms[i] / (double)n : 0;
        gems_element e;
        memcpy(&e, (char *)result->t.address + i * gems_dtypes[dtype].size, gems_dtypes[dtype].size);
        double got = gems_number_double(gems_element_number(dtype, &e));
        slack = gems_dtypes[dtype].category == GEMS_CAT_FLOAT
                    ? step_at(dtype, wanted) + 8 * slack * (dtype == GEMS_F64 ? 0x1p-53 : 0x1p-24)
                    : 0;
        if (!(fabs(got - wanted) <= slack) && wrong++ == 0)
            failed("%s of %s, dims %x, last size %lld: result %lld of %lld is %.17g, not %.17g", r->op,
                   gems_dtypes[x->t.dtype].name, dims, (long long)x->sizes[x->t.ndim - 1], (long long)i,
                   (long long)results, got, wanted);
    }
    free(value);
    free(terms);
}

/* Reduces what is owed at x. False: it was not computed on the way. */
static bool fold(const reduction *r, node *x, unsigned dims)
{
    gems_call call;
    int64_t list[DIMS];
    memset(chain_made, 0, sizeof chain_made);
    write_call(&call, r, x, dims, list);
    cr_assert_eq(call.op->kernel->plan(&call), GEMS_OK);
    bool done = gems_chain_fold(&call);
    if (done) {
        cr_expect(is_owed(x), "what was read stays owed");
        compare(r, x, dims, chain_made[0]);
        node_free(chain_made[0]);
    } else {
        chain_drop_results(&call);
    }
    return done;
}

/* Once its kernel is built. */
static void fold_surely(const reduction *r, node *x, unsigned dims)
{
    for (int i = 0; i < 3; i++) {
        if (fold(r, x, dims))
            return;
        gems_chain_build_rest();
    }
    failed("%s of %s, dims %x: not computed on the way", r->op, gems_dtypes[x->t.dtype].name, dims);
}

static bool side_by_side(unsigned dims)
{
    return dims != 5;
}

/* x * y + x, where y is broadcast in one way or another. */
static node *expression(node *x, node *y, node *rest[1])
{
    node *a = MUL(x, y), *b = ADD(a, x);
    rest[0] = a;
    return b;
}

static void every_shape_and_dims(void)
{
    static const shape shapes[] = {{3, {5, 7, 300}}, {3, {3, 2100, 3}}, {3, {40, 4, 17}}, {3, {2, 3, 5000}},
                                   {3, {700, 3, 1}}, {3, {1, 9000, 2}}, {3, {9, 1, 33}},  {3, {2, 17, 640}}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (unsigned dims = 1; dims < 8; dims++)
            for (int way = 0; way < 4; way++) {
                if (!side_by_side(dims) || (way && (i + dims) % 2))
                    continue;
                const int64_t *s = shapes[i].size;
                node *x = node_new(GEMS_F32, way == 3 ? SHAPE(s[0], s[2], s[1]) : shapes[i]), *t = x, *rest;
                if (way == 3) /* rows lie across */
                    t = node_view(x, 0, shapes[i], STRIDES(s[1] * s[2], 1, s[1]));
                node *y = node_new(GEMS_F32, way == 0 ? shapes[i] : way == 1 ? SHAPE(s[2]) : SHAPE(s[1], 1));
                node *b = expression(t, y, &rest);
                fold_surely(&sum, b, dims);
                node_free(rest);
                if (t != x)
                    node_free(t);
                FINISH(x, y, b);
            }
}
Test(chain, folds_of_every_shape_and_dims)
{
    every_shape_and_dims();
}

Test(chain, folds_of_every_dtype)
{
    static const reduction *const all[] = {&sum, &mean, &amax, &any};
    for (int d = 0; d < GEMS_DTYPE_COUNT; d++)
        for (int k = 0; k < 4; k++)
            for (unsigned dims = 1; dims < 3; dims++) {
                if (all[k] == &mean && gems_dtypes[d].category != GEMS_CAT_FLOAT)
                    continue;
                node *x = node_new(d, SHAPE(37, 90)), *y = node_new(d, SHAPE(90)), *rest;
                node *b = expression(x, y, &rest);
                fold_surely(all[k], b, dims);
                FINISH(x, y, rest, b);
            }
}

/* ---- softmax, norms ---- */

/* Runs the call, whose first argument is x, at the end of x's chain; results in chain_made. */
static void end_surely(const char *op, const gems_value *arg, node *x)
{
    for (int i = 0; i < 3; i++) {
        gems_call call;
        memset(chain_made, 0, sizeof chain_made);
        chain_call_begin(&call, gems_op_find(op), arg, NULL);
        cr_assert_eq(call.op->kernel->plan(&call), GEMS_OK);
        if (gems_chain_fold(&call)) {
            cr_expect(is_owed(x), "what was read stays owed");
            return;
        }
        chain_drop_results(&call);
        gems_chain_build_rest();
    }
    cr_assert_fail("%s: not computed on the way", op);
}

static double twin_at(const node *x, int64_t i)
{
    return gems_number_double(
        gems_element_number(x->t.dtype, (char *)x->twin.address + i * gems_dtypes[x->t.dtype].size));
}

/* Element i of result k beside what it is to be, of values of about `size`. */
static void near(const char *op, unsigned k, int64_t i, double wanted, double size)
{
    const node *y = chain_made[k];
    double got =
        gems_number_double(gems_element_number(y->t.dtype, (char *)y->t.address + i * gems_dtypes[y->t.dtype].size));
    double slack = step_at(y->t.dtype, wanted) + 32 * size * (y->t.dtype == GEMS_F64 ? 0x1p-53 : 0x1p-24);
    if (!(fabs(got - wanted) <= slack))
        failed("%s of %s: element %lld of result %u is %.17g, not %.17g", op, gems_dtypes[y->t.dtype].name,
               (long long)i, k, got, wanted);
}

enum {
    ROWS = 21
};

static void softmax_of(node *x, int64_t n, bool logarithm)
{
    const char *op = logarithm ? "_log_softmax" : "_softmax";
    end_surely(op, (gems_value[]){T(x), I(-1), {.kind = GEMS_SCALAR_BOOL}}, x);
    for (int64_t r = 0; r < ROWS; r++) {
        double most = -INFINITY, total = 0;
        for (int64_t i = r * n; i < (r + 1) * n; i++)
            most = fmax(most, twin_at(x, i));
        for (int64_t i = r * n; i < (r + 1) * n; i++)
            total += exp(twin_at(x, i) - most);
        for (int64_t i = r * n; i < (r + 1) * n; i++) {
            double v = twin_at(x, i) - most;
            near(op, 0, i, logarithm ? v - log(total) : exp(v) / total, logarithm ? fabs(v) + fabs(most) + 1 : 1);
        }
    }
    node_free(chain_made[0]);
}

static void norm_of(node *x, int64_t n, node *weight, node *bias)
{
    const gems_value dims = {.kind = GEMS_INTS, .ints = {(const int64_t[]){n}, 1}};
    const char *op = bias ? "native_layer_norm" : "rms_norm";
    const gems_value layer[] = {T(x), dims, T(weight), bias ? T(bias) : NONE, F(1e-3)};
    const gems_value rms[] = {T(x), dims, T(weight), F(1e-3)};
    end_surely(op, bias ? layer : rms, x);
    for (int64_t r = 0; r < ROWS; r++) {
        double center = 0, squares = 0, most = 0;
        for (int64_t i = r * n; i < (r + 1) * n; i++)
            center += bias ? twin_at(x, i) / (double)n : 0;
        for (int64_t i = r * n; i < (r + 1) * n; i++) {
            double v = twin_at(x, i) - center;
            squares += v * v / (double)n;
            most = fmax(most, fabs(v));
        }
        double rstd = 1 / sqrt(squares + 1e-3);
        for (int64_t i = 0; i < n; i++)
            near(op, 0, r * n + i,
                 (twin_at(x, r * n + i) - center) * rstd * twin_at(weight, i) + (bias ? twin_at(bias, i) : 0),
                 most * rstd * fabs(twin_at(weight, i)) + 40);
        if (bias) {
            near(op, 1, r, center, most + fabs(center));
            near(op, 2, r, rstd, rstd);
        }
    }
    for (unsigned k = 0; k < (bias ? 3 : 1); k++)
        node_free(chain_made[k]);
}

Test(chain, softmax_and_norms_end_chains)
{
    static const gems_dtype dtypes[] = {GEMS_F32, GEMS_BF16, GEMS_F64};
    static const int64_t lengths[] = {1, 7, 300, 5000};
    for (int k = 0; k < 3; k++)
        for (int l = 0; l < 4; l++) {
            const int64_t n = lengths[l];
            node *x = node_new(dtypes[k], SHAPE(3, ROWS / 3, n)), *y = node_new(dtypes[k], SHAPE(ROWS / 3, 1)), *rest;
            node *weight = node_new(dtypes[k], SHAPE(n)), *bias = node_new(dtypes[k], SHAPE(n));
            node *b = expression(x, y, &rest);
            softmax_of(b, n, l % 2);
            norm_of(b, n, weight, bias);
            norm_of(b, n, weight, NULL);
            FINISH(x, y, weight, bias, rest, b);
        }
}

/* A weight that is owed itself, by the same group or another one, is computed first; one that is the same memory. */
Test(chain, norms_whose_weights_are_owed)
{
    node *x = node_new(GEMS_F32, SHAPE(ROWS, 300)), *y = node_new(GEMS_F32, SHAPE(300)), *rest;
    for (int i = 0; i < 2; i++) {
        node *b = expression(x, y, &rest), *weight = MUL(y, y), *bias = ADD(y, y);
        norm_of(b, 300, weight, bias);
        cr_expect_not(is_owed(weight) || is_owed(bias));
        node_free(rest);
        node_free(weight);
        node_free(bias);
        chain_same(b);
        node_free(b);
    }
    node *b = expression(x, y, &rest), *row = node_view(b, 0, SHAPE(300), NULL);
    gems_call call;
    chain_call_begin(&call, gems_op_find("rms_norm"),
                     (gems_value[]){T(b), {.kind = GEMS_INTS, .ints = {(const int64_t[]){300}, 1}}, T(row), F(1e-3)},
                     NULL);
    cr_assert_eq(call.op->kernel->plan(&call), GEMS_OK);
    cr_expect_not(gems_chain_fold(&call));
    node_free(row);
    FINISH(x, y, rest, b);
}

/* ---- when not ---- */

/* Several results, casts, in place: what the reduction reads is an earlier step, or one that replaced what it read. */
Test(chain, folds_of_any_step)
{
    node *x = node_new(GEMS_F32, SHAPE(20, 600)), *y = node_new(GEMS_F32, SHAPE(20, 600));
    node *a = MUL(x, y), *b = CAST(a, GEMS_BF16), *c = ADD(b, b);
    fold_surely(&sum, a, 2);
    fold_surely(&sum, c, 2);
    ADD_(x, c);
    fold_surely(&amax, x, 3);
    cr_expect(is_owed(a) && is_owed(b) && is_owed(c) && is_owed(x));
    FINISH(x, y, a, b, c);
}

/* Reductions that compute the same again and again end that: then it is stored. */
Test(chain, folds_are_bounded)
{
    node *x = node_new(GEMS_F32, SHAPE(20, 600)), *a = MUL(x, x);
    int n = 0;
    fold_surely(&sum, a, 2);
    for (n = 1; fold(&sum, a, 2); n++)
        ;
    cr_expect_eq(n, CHAIN_FOLDS);
    FINISH(x, a);
}

/* Other elements than those that are owed; elements that are not owed. */
Test(chain, no_folds_of_others)
{
    node *x = node_new(GEMS_F32, SHAPE(20, 600)), *a = MUL(x, x),
         *half = node_view(a, 0, SHAPE(20, 300), STRIDES(600, 1));
    for (int i = 0; i < 3; i++) {
        cr_expect_not(fold(&sum, half, 2) || fold(&sum, x, 2));
        gems_chain_build_rest();
    }
    cr_expect(is_owed(a));
    node_free(half);
    FINISH(x, a);
}

/* With a device that fails nothing is computed, and nothing lost. */
Test(chain_alone, folds_that_fail)
{
    node *x = node_new(GEMS_F32, SHAPE(20, 600)), *a = MUL(x, x);
    for (int i = 0; i < 3; i++) {
        cr_expect_not(fold(&sum, a, 2));
        gems_chain_build_rest();
    }
    cr_expect(is_owed(a));
    FINISH(x, a);
}
