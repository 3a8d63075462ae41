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
