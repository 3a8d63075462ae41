/* kernels/chain: whatever is owed, cut, merged or freed, memory holds what the same calls give one by one, bit for bit.
 */
#include "tests/unit/chain_suite.h"

/* ---- values ---- */

static void chains_of_every_dtype(void)
{
    long apart = chain_apart;
    for (int d = 0; d < GEMS_DTYPE_COUNT; d++) {
        node *x = node_new(d, SHAPE(9, 70)), *y = node_new(d, SHAPE(70));
        node *a = MUL(x, y), *b = ADD(a, x), *c = MUL(b, a), *e = apply("eq.Tensor", T(c), T(x));
        cr_assert(is_owed(a) && is_owed(b) && is_owed(c) && is_owed(e));
        node_free(b);
        FINISH(x, y, a, c, e);
    }
    all_deferred(apart);
}
BOTH(chains_of_every_dtype)

static void casts_between_all_dtypes(void)
{
    for (int from = 0; from < GEMS_DTYPE_COUNT; from++)
        for (int to = 0; to < GEMS_DTYPE_COUNT; to++) {
            if (from == to)
                continue;
            node *x = node_new(from, SHAPE(300)), *y = node_new(to, SHAPE(300));
            if (to == GEMS_U8 && x->t.dtype != GEMS_BOOL) { /* a negative float as u8 is anything in C */
                node *z = apply("mul.Tensor", T(x), T(x));
                node_free(x);
                x = z;
            }
            node *a = CAST(x, to), *b = ADD(a, y), *c = CAST(b, GEMS_F32);
            node_free(a);
            FINISH(x, y, b, c);
        }
}
Test(chain_alone, casts_between_all_dtypes)
{
    casts_between_all_dtypes();
}

/* As an element of the dtype holds it. */
static double rounded(gems_dtype dtype, double v)
{
    gems_element e = {0};
    gems_number_element((gems_number){.category = GEMS_CAT_FLOAT, .f = v}, dtype, &e);
    return gems_number_double(gems_element_number(dtype, &e));
}

static double value_of(const node *x, int64_t i)
{
    return gems_number_double(gems_element_number(x->t.dtype, (char *)x->t.address + i * gems_dtypes[x->t.dtype].size));
}

/* By plain C: each step's result is rounded, stored or not. */
static void every_step_rounds(void)
{
    static const gems_dtype dtypes[] = {GEMS_F16, GEMS_BF16, GEMS_F32};
    enum {
        N = 1000
    };
    for (int k = 0; k < 3; k++) {
        gems_dtype d = dtypes[k];
        node *x = node_new(d, SHAPE(N)), *y = node_new(d, SHAPE(N));
        node *a = MUL(x, y), *b = ADD(a, x), *c = MUL(b, b), *w = CAST(c, GEMS_F64);
        node_free(a);
        node_free(b);
        node_free(c);
        for (int64_t i = 0; i < N; i++) {
            double p = rounded(d, (float)(value_of(x, i) * value_of(y, i)));
            double s = rounded(d, (float)(p + value_of(x, i)));
            cr_assert_eq(value_of(w, i), rounded(d, (float)(s * s)), "%s, element %d", gems_dtypes[d].name, (int)i);
        }
        FINISH(x, y, w);
    }
}
BOTH(every_step_rounds)

static void in_place(void)
{
    long apart = chain_apart;
    node *x = node_new(GEMS_F32, SHAPE(20, 30)), *y = node_new(GEMS_F32, SHAPE(20, 30));
    node *before = ADD(x, y); /* of what x was */
    ADD_(x, y);
    ADD_(x, x);
    apply("mul_.Tensor", T(y), T(x));
    node *after = MUL(x, before);
    COPY_(before, y);
    apply("neg_", T(before));
    all_deferred(apart);
    FINISH(x, y, before, after);
}
BOTH(in_place)

static void views(void)
{
    node *x = node_new(GEMS_F32, SHAPE(12, 16)), *small = node_new(GEMS_F32, SHAPE(16));
    node *y = ADD(x, small);
    node *rows = node_view(y, 32, SHAPE(4, 16), NULL);             /* some rows, */
    node *columns = node_view(y, 1, SHAPE(12, 8), STRIDES(16, 2)); /* columns, */
    node *turned = node_view(y, 0, SHAPE(16, 12), STRIDES(1, 16));
    node *one_row = node_view(y, 16, SHAPE(1, 16), NULL);
    node *a = TIMES(rows, 3), *b = TIMES(columns, 5), *c = ADD(turned, turned), *d = ADD(x, one_row);
    ADD_(rows, a);
    apply("neg_", T(columns));
    apply("mul_.Scalar", T(turned), I(3));
    COPY_(one_row, small);
    node *e = ADD(y, x);
    FINISH(x, small, y, rows, columns, turned, one_row, a, b, c, d, e);
}
BOTH(views)

/* Loops that are too short to be vectors are walked by tables: read and written, dense, broadcast and across. */
static void short_rows(void)
{
    node *x = node_new(GEMS_F32, SHAPE(70, 1, 4)), *y = node_new(GEMS_F32, SHAPE(9, 4)),
         *z = node_new(GEMS_BF16, SHAPE(9, 1));
    node *a = apply("sub.Tensor", T(x), T(y), I(1)), *b = MUL(a, a), *c = ADD(b, z);
    node *p = node_new(GEMS_I32, SHAPE(3, 5, 2, 80)),
         *q = node_view(p, 0, SHAPE(80, 3, 2, 5), STRIDES(1, 800, 80, 160));
    node *d = ADD(q, q), *out = node_new(GEMS_I32, SHAPE(80, 5, 3, 2));
    node *turned = node_view(out, 0, SHAPE(80, 3, 2, 5), STRIDES(30, 2, 1, 6));
    COPY_(turned, d);
    apply("neg_", T(turned));
    FINISH(x, y, z, a, b, c, p, q, d, out, turned);
}
BOTH(short_rows)

/* Whatever is read of memory that is owed elsewhere, and written of memory that is still to be read. */
static void other_elements(void)
{
    node *x = node_new(GEMS_I32, SHAPE(64));
    node *low = node_view(x, 0, SHAPE(32), NULL), *high = node_view(x, 32, SHAPE(32), NULL);
    node *even = node_view(x, 0, SHAPE(32), STRIDES(2)), *odd = node_view(x, 1, SHAPE(32), STRIDES(2));
    node *bits = node_on(x->store, 0, GEMS_F32, SHAPE(64), NULL);
    node *shifted = node_view(x, 1, SHAPE(32), NULL), *first = node_view(x, 0, SHAPE(1), NULL);
    for (int round = 0; round < 2; round++) {
        ADD_(low, high);
        node *a = ADD(high, even);
        ADD_(odd, even);
        ADD_(high, low);
        node *b = MUL(low, odd);
        ADD_(even, odd);
        node *c = CAST(low, GEMS_F32); /* read as it is, then as other bits */
        node *d = apply("eq.Tensor", T(bits), T(bits));
        ADD_(low, first);
        ADD_(low, shifted); /* they overlap: the operator declines */
        COPY_(odd, low);
        chain_same(a);
        node_free(a);
        chain_same(b);
        node_free(b);
        chain_same(c);
        node_free(c);
        chain_same(d);
        node_free(d);
    }
    FINISH(x, low, high, even, odd, bits, shifted, first);
}
BOTH(other_elements)

static void results_of_other_dtypes(void)
{
    static const gems_dtype outs[] = {GEMS_F64, GEMS_F32, GEMS_F16, GEMS_BF16};
    static const gems_dtype ins[] = {GEMS_F32, GEMS_F16, GEMS_BF16, GEMS_I32};
    for (int i = 0; i < 4; i++)
        for (int k = gems_cl_faulty ? 0 : i % 2; k < 4; k += gems_cl_faulty ? 1 : 2) {
            node *x = node_new(ins[i], SHAPE(500)), *y = node_new(ins[i], SHAPE(500));
            node *out = node_new(outs[k], SHAPE(500)), *late = node_new(outs[k], SHAPE(500));
            apply("mul.out", T(x), T(y), T(out));
            node *a = ADD(out, x), *b = CAST(out, GEMS_F32);
            apply("add.out", T(a), T(out), I(1), T(late));
            node *c = MUL(late, out);
            node_free(a);
            FINISH(x, y, out, late, b, c);
        }
}
BOTH(results_of_other_dtypes)

static void several_results(void)
{
    node *x = node_new(GEMS_F32, SHAPE(33, 3));
    node *a = apply("log_sigmoid_forward", T(x)), *z = chain_made[1];
    node *b = MUL(a, z), *c = ADD(z, x);
    ADD_(z, c);
    node_free(a);
    node *d = apply("log_sigmoid_forward", T(b)), *unused = chain_made[1];
    node_free(unused);
    FINISH(x, z, b, c, d);
}
BOTH(several_results)

static void numbers(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *zero_dims = node_new(GEMS_F32, scalar());
    node *a = apply("add.Scalar", T(x), F(0.1), I(3)), *b = MUL(a, zero_dims), *c = apply("neg", T(zero_dims));
    node *d = ADD(b, c); /* c is owed, and wanted as a number */
    node *e = apply("clamp", T(d), NONE, F(1.5));
    apply("mul_.Scalar", T(zero_dims), I(3)); /* what was read stays read */
    node *f = MUL(e, zero_dims);
    FINISH(x, zero_dims, a, b, c, d, e, f);
}
BOTH(numbers)

/* ---- memory that is not of the arena ---- */

static void foreign_operands(void)
{
    node *x = node_new(GEMS_F32, SHAPE(50, 40)), *few = node_new_in(GEMS_F32, SHAPE(40), false);
    node *many = node_new_in(GEMS_F32, SHAPE(50, 400), false);
    node *columns = node_view(many, 3, SHAPE(50, 40), STRIDES(400, 10));
    long apart = chain_apart;
    node *a = ADD(x, few), *b = MUL(a, few);
    all_deferred(apart);
    node_fill(few); /* what was read is kept */
    node *c = ADD(b, few);
    all_deferred(apart);
    node *d = ADD(c, columns); /* too much to copy */
    cr_expect_eq(chain_apart, ++apart);
    ADD_(few, few);
    cr_expect_eq(chain_apart, ++apart, "what is not ours cannot be hidden");
    ADD_(columns, d);
    cr_expect_eq(chain_apart, ++apart);
    FINISH(x, few, many, columns, a, b, c, d);
}
BOTH(foreign_operands)

/* One tensor that stands for three names is three copies, or one. */
static void many_foreign_operands(void)
{
    enum {
        MANY = 30
    };
    node *x[MANY], *y = node_new(GEMS_F32, SHAPE(64));
    for (int i = 0; i < MANY; i++) {
        x[i] = node_new_in(GEMS_F32, SHAPE(64), false);
        node *next = i % 2 ? apply("addcmul", T(x[i]), T(x[i]), T(x[i]), I(2)) : MUL(y, x[i]);
        node *sum = ADD(next, y);
        node_free(next);
        node_free(y);
        y = sum;
        cr_assert_leq(gems_chains.groups->nleaves, CHAIN_LEAVES);
    }
    chain_same(y);
    node_free(y);
    finish_with(x, MANY);
}
BOTH(many_foreign_operands)

static void one_foreign_operand_under_many_names(void)
{
    enum {
        MANY = 12
    };
    node *x[MANY], *a = node_new(GEMS_F32, SHAPE(64)), *y = apply("neg", T(a));
    for (int i = 0; i < MANY; i++) {
        x[i] = node_new_in(GEMS_F32, SHAPE(64), false);
        apply("addcmul.out", T(x[i]), T(x[i]), T(x[i]), I(2), T(y));
        cr_assert_leq(gems_chains.groups->nleaves, CHAIN_LEAVES);
    }
    for (int i = 0; i < MANY; i++)
        node_free(x[i]);
    FINISH(a, y);
}
BOTH(one_foreign_operand_under_many_names)

/* ---- lives ---- */

static void a_freed_result_is_not_stored(void)
{
    uint64_t unstored = chain_counts().unstored;
    node *x = node_new(GEMS_F32, SHAPE(300, 100)), *y = ADD(x, x);
    const gems_block *block = block_of(y);
    cr_assert_eq(block->place, GEMS_PLACE_HIDDEN);
    char *hidden = gems_block_shadow(block);
    memset(hidden, 0x5a, y->store->bytes);
    node *z = MUL(y, x);
    size_t bytes = y->store->bytes;
    node_free(y);
    cr_expect_eq(gems_chains.kept, 0, "it is free at once");
    chain_same(z);
    cr_expect_eq(chain_counts().unstored, unstored + 1);
    for (size_t i = 0; i < bytes && block->place == GEMS_PLACE_HIDDEN && !block->taken; i++)
        cr_assert_eq(hidden[i], 0x5a, "byte %zu was written", i);
    FINISH(x, z);
}
BOTH(a_freed_result_is_not_stored)

static void nothing_is_computed_for_nobody(void)
{
    gems_chain_counts before = chain_counts();
    node *x = node_new(GEMS_F32, SHAPE(300)), *y = ADD(x, x), *z = MUL(y, y);
    node_free(y);
    node_free(z);
    chain_same(x);
    node_fill(x);
    cr_expect_eq(chain_counts().passes, before.passes);
    node *later = TIMES(x, 3);
    FINISH(x, later);
}
Test(chain, nothing_is_computed_for_nobody)
{
    nothing_is_computed_for_nobody();
}

static void an_input_freed_while_it_is_needed(void)
{
    node *x = node_new(GEMS_F32, SHAPE(300, 100)), *y = node_new(GEMS_F32, SHAPE(300, 100));
    const gems_block *block = block_of(x);
    node *a = ADD(x, y);
    node *turned = node_view(x, 0, SHAPE(100, 300), STRIDES(1, 100)), *b = TIMES(turned, 2);
    ADD_(x, a); /* b is computed first */
    node *c = MUL(x, a);
    node_free(x);
    node_free(turned);
    cr_expect_eq(block->taken, false);
    node *fresh = node_new(GEMS_F32, SHAPE(300, 100)); /* not of that memory */
    cr_expect_neq(block_of(fresh), block);
    chain_same(c);
    cr_expect_eq(gems_chains.kept, 0);
    FINISH(y, a, b, c, fresh);
}
BOTH(an_input_freed_while_it_is_needed)

static void blocks_are_reused(void)
{
    node *x = node_new(GEMS_F32, SHAPE(64, 256)), *w = node_new(GEMS_F32, SHAPE(256));
    for (int i = 0; i < 300; i++) {
        node *a = ADD(x, w), *b = i % 3 ? MUL(a, w) : apply("neg", T(a));
        node *half = node_view(b, 0, SHAPE(32, 256), NULL);
        if (i % 7 == 0)
            apply("neg_", T(half));
        node_free(x);
        node_free(a);
        node_free(half);
        x = apply("clamp", T(b), I(-100), I(100));
        node_free(b);
        if (i % 11 == 0)
            chain_same(x);
    }
    gems_arena_counts counts;
    gems_arena_count(&counts);
    cr_expect_lt(counts.peak_bytes, 60 * x->store->bytes);
    FINISH(x, w);
}
BOTH(blocks_are_reused)

static void kept_inputs_are_few(void)
{
    enum {
        MANY = 60
    };
    node *y[MANY];
    static size_t peak; /* of earlier runs, too */
    size_t bytes = 256 * 1024, most = 0;
    for (int i = 0; i < MANY; i++) {
        shape s = SHAPE(64, 1024 - i % 2); /* groups of two shapes */
        node *x = node_new(GEMS_F32, s), *a = ADD(x, x);
        node_free(x);
        y[i] = MUL(a, a);
        node_free(a);
        size_t kept = gems_chains.kept;
        size_t own = gems_arena_live() - kept;
        peak = own > peak ? own : peak;
        cr_expect_leq(own + kept, peak + peak / 10 + CHAIN_SLACK + 4 * bytes, "after %d", i);
        most = kept > most ? kept : most;
    }
    cr_expect_gt(most, CHAIN_SLACK / 2, "the bound was not come near to");
    finish_with(y, MANY);
}
BOTH(kept_inputs_are_few)

/* ---- limits and cuts ---- */

static void more_steps_than_a_group_has(void)
{
    long apart = chain_apart;
    node *x = node_new(GEMS_F16, SHAPE(50, 20)), *y = TIMES(x, 1), *kept[4] = {0};
    for (int i = 0; i < 150; i++) {
        node *next = i % 2 ? ADD(y, x) : apply("clamp", T(y), I(-9), I(9));
        if (i % 40 == 13)
            kept[i / 40] = y;
        else
            node_free(y);
        y = next;
    }
    all_deferred(apart);
    FINISH(x, y, kept[0], kept[1], kept[2], kept[3]);
}
BOTH(more_steps_than_a_group_has)

/* Rules of the table: how long chains are, what they read, what is never in one. */
static long passes_of(const char *rule)
{
    gems_table_error error;
    char text[160];
    snprintf(text, sizeof text, "{\"rules\": [%s]}", rule);
    chain_table = gems_table_compile("t", text, NULL, &error);
    cr_assert(chain_table, "%s", error.text);
    long passes = (long)chain_counts().passes, apart = chain_apart;
    node *x = node_new(GEMS_F32, SHAPE(300)), *w = node_new(GEMS_F32, SHAPE(300)), *y = TIMES(x, 1);
    for (int i = 0; i < 12; i++) {
        node *next = i % 2 ? MUL(y, w) : ADD(y, x);
        node_free(y);
        y = next;
    }
    FINISH(x, w, y);
    passes = (long)chain_counts().passes - passes;
    gems_table_free(chain_table);
    chain_table = NULL;
    return passes + 100 * (chain_apart - apart);
}

Test(chain_alone, rules_of_the_table)
{
    cr_expect_eq(passes_of(""), 1);
    cr_expect_eq(passes_of("{\"op\": \"add*\", \"chain\": {\"steps\": 24}}"), 1);
    cr_expect_geq(passes_of("{\"op\": \"*\", \"chain\": {\"steps\": 4}}"), 3);
    cr_expect_eq(passes_of("{\"op\": \"*\", \"chain\": {\"steps\": 1}}"), 13);
    cr_expect_eq(passes_of("{\"op\": \"*\", \"dtype\": \"f16\", \"chain\": {\"steps\": 1}}"), 1);
    cr_expect_gt(passes_of("{\"op\": \"*\", \"chain\": {\"operands\": 2}}"), 1);
    cr_expect_eq(passes_of("{\"op\": \"*\", \"chain\": false}"), 1300);
    cr_expect_eq(passes_of("{\"op\": \"mul.Scalar\", \"chain\": false}") / 100, 1);
}

static void more_operands_than_a_group_has(void)
{
    enum {
        MANY = 60
    };
    long apart = chain_apart;
    node *x[MANY], *sum = NULL;
    for (int i = 0; i < MANY; i++) {
        x[i] = node_new(GEMS_F32, SHAPE(40));
        node *next = sum ? ADD(sum, x[i]) : TIMES(x[i], 1);
        if (sum)
            node_free(sum);
        sum = next;
    }
    all_deferred(apart);
    chain_same(sum);
    node_free(sum);
    finish_with(x, MANY);
}
BOTH(more_operands_than_a_group_has)

static void more_results_than_a_group_has(void)
{
    enum {
        MANY = 40
    };
    node *x = node_new(GEMS_F32, SHAPE(40)), *y[MANY];
    for (int i = 0; i < MANY; i++)
        y[i] = i ? ADD(y[i - 1], x) : TIMES(x, 3);
    chain_same(x);
    node_free(x);
    finish_with(y, MANY);
}
BOTH(more_results_than_a_group_has)

/* Many groups that a call joins at once. */
static void groups_are_merged(void)
{
    enum {
        MANY = 12
    };
    node *x[MANY], *y[MANY];
    for (int i = 0; i < MANY; i++) {
        x[i] = node_new(GEMS_F32, SHAPE(40));
        y[i] = apply("addcmul", T(x[i]), T(x[i]), T(x[i]), I(i));
        ADD_(x[i], y[i]);
    }
    for (int step = 1; step < MANY; step *= 2)
        for (int i = 0; i + step < MANY; i += 2 * step)
            ADD_(y[i], y[i + step]);
    chain_same(y[0]);
    for (int i = 0; i < MANY; i++)
        node_free(x[i]);
    finish_with(y, MANY);
}
BOTH(groups_are_merged)

static void a_part_is_computed(void)
{
    node *x = node_new(GEMS_F32, SHAPE(30, 30)), *y = node_new(GEMS_F32, SHAPE(30, 30));
    node *a = ADD(x, y), *b = TIMES(a, 2), *c = TIMES(a, 3), *d = MUL(c, y);
    node_free(a); /* it has no memory any more, */
    node_free(c);
    chain_same(b);
    cr_expect(is_owed(d), "only what is wanted");
    cr_expect_neq(gems_chains.kept, 0, "but a temporary one until d is computed");
    ADD_(x, x);
    chain_same(d);
    cr_expect_eq(gems_chains.kept, 0);
    FINISH(x, y, b, d);
}
BOTH(a_part_is_computed)

static void parts_with_results_written_twice(void)
{
    node *x = node_new(GEMS_BF16, SHAPE(333)), *y = TIMES(x, 2);
    node *a = ADD(y, x), *b = TIMES(y, 3);
    ADD_(y, a); /* y is written again */
    node *c = MUL(y, x);
    ADD_(y, y);
    node_free(a);
    chain_same(b);
    node *d = MUL(y, c);
    chain_same(c);
    ADD_(y, d);
    FINISH(x, y, b, c, d);
}
BOTH(parts_with_results_written_twice)
