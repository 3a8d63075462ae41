/* What only moves elements: see families.h. */
#include "tests/unit/families.h"

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
            const shape s = SHAPE(3, 6, l == DENSE ? 48 : 7); /* rows of whole 16 bytes */
            trial t;
            trial_begin(&t, ops[i]);
            if (t.call.op->form == GEMS_INPLACE && l == EXPANDED)
                continue;
            operand *x = tensor(&t, moved[i], l, s);
            integer(&t, (int64_t)l - 2);
            if (t.call.op->form == GEMS_OUT)
                tensor(&t, moved[i], l == EXPANDED ? DENSE : l, s);
            move(&t, x, moved[i], s, kept, 0);
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

/* Sums of the gradient's rows that have the same index. `padding` is one of them that counts for nothing. */
static void embedding_backward(gems_dtype dtype, gems_dtype index_dtype, layout l, shape at_indices, int64_t cols,
                               int64_t rows, int64_t padding)
{
    trial t;
    trial_begin(&t, "embedding_dense_backward");
    t.quick = dtype != GEMS_F32;
    shape s = at_indices;
    s.size[s.ndim++] = cols;
    operand *g = tensor(&t, dtype, l, s), *index = indices(&t, index_dtype, l, at_indices, rows);
    integer(&t, rows);
    integer(&t, padding);
    boolean(&t, false);
    expected *e = expect(&t, 0, dtype, SHAPE(rows, cols));
    EACH (c, s) {
        int64_t k[DIMS] = {(int64_t)at(index, c), c[s.ndim - 1]};
        if (k[0] == padding)
            continue;
        *want(e, k) += at(g, c);
        *terms(e, k) += fabs(at(g, c));
    }
    trial_run(&t);
}

static void test_embedding_dense_backward(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        embedding_backward(GEMS_F32, l % 2 ? GEMS_I32 : GEMS_I64, l, SHAPE(6, 5), 37, 9, (int64_t)l - 1);
    static const gems_dtype others[] = {GEMS_F16, GEMS_BF16, GEMS_F64};
    for (int i = 0; i < 3; i++)
        embedding_backward(others[i], GEMS_I64, DENSE, SHAPE(30), 16, 40, -1);
}

static double met(const char *how, double old, double new)
{
    return strcmp(how, "add") == 0 ? old + new : strcmp(how, "multiply") == 0 ? old *new : new;
}

/* The last source in the order of coordinates stays, or all are summed up or multiplied. `how`: "" or `reduce`. */
static void scatter(const char *op, const char *how, gems_dtype dtype, layout l, int dim, int64_t along)
{
    trial t;
    trial_begin(&t, op);
    t.exact = !how[0];
    t.quick = dtype != GEMS_F32;
    const shape to = SHAPE(4, 5, 6);
    shape from = SHAPE(3, 4, 5);
    from.size[dim] = along;
    operand *self = tensor(&t, dtype, l, to);
    integer(&t, dim);
    operand *index = indices(&t, l % 2 ? GEMS_I32 : GEMS_I64, l, from, 3), *source = tensor(&t, dtype, l, from);
    if (how[0]) {
        gems_value *reduce = next_argument(&t, GEMS_STR);
        reduce->str.s = how;
        reduce->str.n = strlen(how);
    }
    if (t.call.op->form == GEMS_OUT)
        tensor(&t, dtype, SLICED, to);
    expected *e = expect(&t, 0, dtype, to);
    EACH (c, to)
        *terms(e, c) = fabs(*want(e, c) = at(self, c));
    EACH (c, from) {
        int64_t k[DIMS];
        memcpy(k, c, sizeof k);
        k[dim] = (int64_t)at(index, c);
        *want(e, k) = met(how, *want(e, k), at(source, c));
        *terms(e, k) = how[0] ? fabs(met(how, *terms(e, k), fabs(at(source, c)))) : 0;
    }
    trial_run(&t);
}

static void test_scatter(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++)
            scatter(l == SLICED   ? "scatter.src_out"
                    : l == OFFSET ? "scatter_.src"
                                  : "scatter.src",
                    "", moved[(l + dim) % MOVED], l, dim, 9);
    for (int dim = 0; dim < 3; dim++) {
        scatter("scatter.reduce", "add", GEMS_F32, (layout)dim, dim, 700);
        scatter("scatter_.reduce", "multiply", GEMS_I64, DENSE, dim, 4);
        scatter("scatter.reduce_out", "add", GEMS_I64, DENSE, dim, 5000);
    }
}

static void index_add(const char *op, gems_dtype dtype, layout l, int dim, int64_t along, int64_t alpha)
{
    trial t;
    trial_begin(&t, op);
    t.quick = dtype != GEMS_F32;
    t.slack = 8;
    const shape to = SHAPE(4, 5, 6);
    shape from = to;
    from.size[dim] = along;
    operand *self = tensor(&t, dtype, l, to);
    integer(&t, dim);
    operand *index = indices(&t, GEMS_I64, l == EXPANDED ? DENSE : l, SHAPE(along), 4);
    operand *source = tensor(&t, dtype, l, from);
    integer(&t, alpha);
    if (t.call.op->form == GEMS_OUT)
        tensor(&t, dtype, SLICED, to);
    expected *e = expect(&t, 0, dtype, to);
    EACH (c, to)
        *terms(e, c) = fabs(*want(e, c) = at(self, c));
    EACH (c, from) {
        int64_t k[DIMS];
        memcpy(k, c, sizeof k);
        k[dim] = (int64_t)at(index, &c[dim]);
        *want(e, k) += (double)alpha * at(source, c);
        *terms(e, k) += fabs((double)alpha * at(source, c));
    }
    trial_run(&t);
}

static void test_index_add(void)
{
    for (layout l = DENSE; l < LAYOUTS; l++)
        for (int dim = 0; dim < 3; dim++)
            index_add(l == SLICED   ? "index_add.out"
                      : l == OFFSET ? "index_add_"
                                    : "index_add",
                      GEMS_F32, l, dim, dim == 1 ? 1500 : 11, dim + 1);
    index_add("index_add_", GEMS_BF16, DENSE, 0, 11, 1);
    index_add("index_add", GEMS_I64, DENSE, 2, 3000, -2);
}

/* ---- pool ---- */

/* Windows of 3 x 2, two rows and one column apart, a row of padding; adaptive: what comes to as many. */
static void pool(const char *op, gems_dtype dtype, layout l, shape s)
{
    trial t;
    trial_begin(&t, op);
    const bool largest = strstr(op, "max"), adaptive = strstr(op, "adaptive");
    t.exact = largest;
    t.quick = dtype != GEMS_F32 || l != DENSE;
    operand *x = tensor(&t, dtype, l, s);
    const int row = s.ndim - 2, col = s.ndim - 1;
    const int64_t h = s.size[row], w = s.size[col], step = largest ? 2 : 1; /* dilation of the rows */
    shape to = s;
    to.size[row] = (h + 2 - 2 * step - 1) / 2 + 1;
    to.size[col] = w - 1;
    if (adaptive) {
        INTS(&t, to.size[row], to.size[col]);
    } else {
        INTS(&t, 3, 2);
        INTS(&t, 2, 1);
        INTS(&t, 1, 0);
        if (largest)
            INTS(&t, 2, 1);
        boolean(&t, false);
        if (!largest) {
            boolean(&t, false); /* padding does not count */
            none(&t);
        }
    }
    if (largest) {
        int64_t first[DIMS] = {0};
        first[row] = 1;
        put(x, first, NAN);
    }
    expected *e = expect(&t, 0, dtype, to), *where = largest ? expect(&t, 1, GEMS_I64, to) : NULL;
    EACH (c, to) {
        int64_t begin[2] = {2 * c[row] - 1, c[col]}, end[2] = {begin[0] + 2 * step + 1, c[col] + 2}, k[DIMS];
        for (int d = 0; d < 2 && adaptive; d++) {
            const int64_t n = s.size[row + d], m = to.size[row + d];
            begin[d] = c[row + d] * n / m;
            end[d] = ((c[row + d] + 1) * n + m - 1) / m;
        }
        double best = -INFINITY, sum = 0, sizes = 0, found = 0, n = 0;
        memcpy(k, c, sizeof k);
        for (k[row] = begin[0]; k[row] < end[0]; k[row] += adaptive ? 1 : step)
            for (k[col] = begin[1]; k[col] < end[1]; k[col]++) {
                if (k[row] < 0 || k[row] >= h)
                    continue;
                const double v = at(x, k);
                if (v > best || isnan(v)) {
                    best = v;
                    found = (double)(k[row] * w + k[col]);
                }
                sum += v, sizes += fabs(v), n++;
            }
        *want(e, c) = largest ? best : sum / n;
        *terms(e, c) = sizes / n;
        if (where)
            *want(where, c) = found;
    }
    trial_run(&t);
}

static void test_pool(void)
{
    static const char *const ops[] = {"max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d"};
    for (int i = 0; i < 3; i++) {
        for (layout l = DENSE; l < LAYOUTS; l++)
            pool(ops[i], GEMS_F32, l, SHAPE(2, 3, 9, 11));
        pool(ops[i], GEMS_F32, CHANNELS_LAST, SHAPE(2, 3, 9, 11));
        for (int k = 1; k < FLOATING; k++)
            pool(ops[i], floating[k], k % 2 ? DENSE : SLICED, SHAPE(5, 8, 7));
    }
}

SUITES
MOVES(TESTS)
