/* Products, attention and convolution: see families.h. */
#include "tests/unit/families.h"

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
    blas("mm", GEMS_F32, DENSE, (sizes){1, 33, 3, 70}, 0, 1); /* few columns */
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

/* ---- gradients of attention ---- */

/* Of the output of `row` by what is in the tensors: its sum of exponentials goes into lse, the output into out. */
static void attend(const operand *q, const operand *k, const operand *v, const operand *mask, const operand *out,
                   const operand *lse, const int64_t *row, int64_t seen)
{
    const int64_t group = q->shape.size[1] / k->shape.size[1];
    double s[160], largest = -INFINITY, sum = 0, sizes_;
    for (int64_t i = 0; i < seen; i++) {
        s[i] = score(q, k, row, i, group, &sizes_) + (mask ? AT(mask, row[2], i) : 0);
        largest = fmax(largest, s[i]);
    }
    for (int64_t i = 0; i < seen; i++)
        sum += s[i] = exp(s[i] - largest);
    put(lse, row, largest + log(sum));
    for (int64_t d = 0; d < q->shape.size[3]; d++) {
        int64_t c[DIMS] = {row[0], row[1], row[2], d};
        double o = 0;
        for (int64_t i = 0; i < seen; i++)
            o += s[i] / sum * AT(v, row[0], row[1] / group, i, d);
        put(out, c, o);
    }
}

static void add(expected *e, const int64_t *row, int64_t d, double x, double size)
{
    int64_t c[DIMS] = {row[0], row[1], row[2], d};
    *want(e, c) += x;
    *terms(e, c) += size;
}

static void attention_backward(gems_dtype dtype, layout l, shape q_shape, int64_t keys, int64_t groups, bool causal,
                               bool masked)
{
    trial t;
    trial_begin(&t, "_scaled_dot_product_flash_attention_for_cpu_backward");
    t.parameters = l == DENSE && dtype == GEMS_F32 && q_shape.size[3] < 32;
    t.quick = !t.parameters;
    const int64_t *n = q_shape.size, head = n[3];
    shape kv = SHAPE(n[0], n[1] / groups, keys, head), rows = SHAPE(n[0], n[1], n[2]);
    operand *g = tensor(&t, dtype, l == DENSE ? TRANSPOSED : l, q_shape);
    operand *q = tensor(&t, dtype, l, q_shape), *k = tensor(&t, dtype, l, kv), *v = tensor(&t, dtype, OFFSET, kv);
    operand *out = tensor(&t, dtype, DENSE, q_shape);
    operand *lse = tensor(&t, dtype == GEMS_F64 ? GEMS_F64 : GEMS_F32, TRANSPOSED, rows);
    real(&t, 0);
    boolean(&t, causal);
    operand *mask = masked ? tensor(&t, dtype, DENSE, SHAPE(n[2], keys)) : NULL;
    if (!masked)
        none(&t);
    none(&t);
    expected *dq = expect(&t, 0, dtype, q_shape), *dk = expect(&t, 1, dtype, kv), *dv = expect(&t, 2, dtype, kv);
    t.slack = 16;
    const double scale = 1 / sqrt((double)head);
    EACH (row, rows) {
        const int64_t seen = causal && row[2] + 1 < keys ? row[2] + 1 : keys;
        attend(q, k, v, mask, out, lse, row, seen);
        double delta = 0, deltas = 0;
        for (int64_t d = 0; d < head; d++) {
            double x = AT(g, row[0], row[1], row[2], d) * AT(out, row[0], row[1], row[2], d);
            delta += x;
            deltas += fabs(x);
        }
        for (int64_t i = 0; i < seen; i++) {
            const int64_t of_key[3] = {row[0], row[1] / groups, i};
            double size, slope = 0, slopes = 0;
            double x = score(q, k, row, i, groups, &size) + (masked ? AT(mask, row[2], i) : 0) - at(lse, row);
            double p = exp(x), error = 1 + 2 * (size + fabs(at(lse, row)) + (masked ? fabs(AT(mask, row[2], i)) : 0));
            for (int64_t d = 0; d < head; d++) {
                double y = AT(g, row[0], row[1], row[2], d) * AT(v, row[0], of_key[1], i, d);
                slope += y;
                slopes += fabs(y);
            }
            slope = p * (slope - delta) * scale;
            slopes = p * (slopes + deltas) * scale * error;
            for (int64_t d = 0; d < head; d++) {
                double gd = AT(g, row[0], row[1], row[2], d), kd = AT(k, row[0], of_key[1], i, d);
                double qd = AT(q, row[0], row[1], row[2], d);
                add(dq, row, d, slope * kd, slopes * fabs(kd));
                add(dk, of_key, d, slope * qd, slopes * fabs(qd));
                add(dv, of_key, d, p * gd, p * fabs(gd) * error);
            }
        }
    }
    trial_run(&t);
}

static void test_attention_backward(void)
{
    attention_backward(GEMS_F32, DENSE, SHAPE(2, 2, 37, 16), 41, 1, false, false);
    attention_backward(GEMS_F32, OFFSET, SHAPE(1, 4, 20, 9), 33, 2, true, false);
    attention_backward(GEMS_F32, EXPANDED, SHAPE(2, 1, 5, 8), 7, 1, false, true);
    attention_backward(GEMS_F32, OFFSET, SHAPE(1, 1, 70, 70), 140, 1, false, false); /* several blocks of all */
    attention_backward(GEMS_F32, OFFSET, SHAPE(1, 2, 131, 20), 67, 2, true, false);
    for (int i = 1; i < FLOATING; i++)
        attention_backward(floating[i], DENSE, SHAPE(1, 2, 18, 12), 20, 1, i == 1, i == 2);
    attention_backward(GEMS_F64, OFFSET, SHAPE(1, 1, 40, 70), 50, 1, true, false);
}

/* ---- conv ---- */

/* Rows and columns: stride, padding, dilation. */
typedef struct window {
    int64_t stride[2], pad[2], step[2];
} window;

static void conv(gems_dtype dtype, layout lx, layout lw, shape xs, shape ws, window at_, int64_t groups, bool biased)
{
    trial t;
    trial_begin(&t, "convolution");
    t.parameters = dtype == GEMS_F32 && lx == DENSE && lw == DENSE;
    t.quick = !t.parameters;
    const int dims = xs.ndim - 2;
    const int64_t *stride = at_.stride + 2 - dims, *pad = at_.pad + 2 - dims, *step = at_.step + 2 - dims;
    operand *x = tensor(&t, dtype, lx, xs), *w = tensor(&t, dtype, lw, ws), *b = NULL;
    if (biased)
        b = tensor(&t, dtype, SLICED, SHAPE(ws.size[0]));
    else
        none(&t);
    integers(&t, dims, stride);
    integers(&t, dims, pad);
    integers(&t, dims, step);
    boolean(&t, false);
    integers(&t, dims, (const int64_t[2]){0, 0});
    integer(&t, groups);
    shape to = {xs.ndim, {xs.size[0], ws.size[0]}}, filter = ws;
    for (int d = 0; d < dims; d++)
        to.size[2 + d] = (xs.size[2 + d] + 2 * pad[d] - step[d] * (ws.size[2 + d] - 1) - 1) / stride[d] + 1;
    filter.size[0] = 1;
    expected *e = expect(&t, 0, dtype, to);
    t.slack = 4 + 2 * sqrt((double)count(filter));
    EACH (c, to) {
        EACH (k, filter) {
            int64_t from[DIMS] = {c[0], c[1] / (ws.size[0] / groups) * ws.size[1] + k[1]}, with[DIMS];
            bool inside = true;
            memcpy(with, k, sizeof with);
            with[0] = c[1];
            for (int d = 0; d < dims; d++) {
                from[2 + d] = c[2 + d] * stride[d] - pad[d] + k[2 + d] * step[d];
                inside = inside && from[2 + d] >= 0 && from[2 + d] < xs.size[2 + d];
            }
            double term = inside ? at(x, from) * at(w, with) : 0;
            *want(e, c) += term;
            *terms(e, c) += fabs(term);
        }
        double plus = b ? AT(b, c[1]) : 0;
        *want(e, c) += plus;
        *terms(e, c) += fabs(plus);
    }
    trial_run(&t);
}

static void test_conv(void)
{
    static const window plain = {{1, 1}, {0, 0}, {1, 1}}, same = {{1, 1}, {1, 1}, {1, 1}},
                        uneven = {{2, 1}, {0, 3}, {1, 2}};
    const shape image = SHAPE(2, 5, 7, 19), filters = SHAPE(9, 5, 3, 2);
    for (layout l = DENSE; l < LAYOUTS; l++)
        conv(GEMS_F32, l, l == EXPANDED ? DENSE : l, image, filters, same, 1, l % 2);
    for (int last = 1; last < 4; last++) {
        layout lx = last & 1 ? CHANNELS_LAST : DENSE, lw = last & 2 ? CHANNELS_LAST : DENSE;
        conv(GEMS_F32, lx, lw, image, filters, uneven, 1, last % 2);
    }
    conv(GEMS_F32, CHANNELS_LAST, DENSE, SHAPE(2, 36, 9, 9), SHAPE(40, 36, 1, 1), plain, 1, true);
    conv(GEMS_F32, DENSE, DENSE, image, filters, uneven, 1, true);
    conv(GEMS_F32, DENSE, DENSE, SHAPE(1, 36, 5, 15), SHAPE(66, 36, 3, 2), same, 1, false); /* several blocks */
    conv(GEMS_F32, DENSE, DENSE, SHAPE(2, 6, 9, 17), SHAPE(12, 2, 3, 2), same, 3, true);
    conv(GEMS_F32, CHANNELS_LAST, DENSE, SHAPE(2, 6, 9, 7), SHAPE(6, 1, 3, 2), same, 6, true);
    conv(GEMS_F32, CHANNELS_LAST, DENSE, SHAPE(1, 1400, 3, 3), SHAPE(3, 1400, 3, 2), plain, 1, false); /* long sums */
    conv(GEMS_F32, TRANSPOSED, DENSE, SHAPE(2, 6, 30), SHAPE(4, 3, 5), uneven, 2, true);               /* a signal */
    for (int i = 1; i < FLOATING; i++) {
        conv(floating[i], DENSE, DENSE, image, filters, same, 1, true);
        conv(floating[i], CHANNELS_LAST, CHANNELS_LAST, SHAPE(1, 34, 7, 6), SHAPE(33, 34, 3, 2), uneven, 1, true);
    }
}

SUITES
PRODUCTS(TESTS)
