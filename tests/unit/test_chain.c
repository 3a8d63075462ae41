/* kernels/chain: whatever is owed, cut, merged, freed, touched or pinned, memory holds what the same calls give one by
 * one, bit for bit. Each test is a process; most run twice: with the device (where a kernel is not built yet, the
 * evaluator) and with a device of which every call fails. */
#include "tests/unit/chain_jobs.h"
#include "kernels/device/cl.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/wait.h>

static void start(void)
{
    cr_assert(gems_device_open(), "%s", gems_device_error());
    cr_assert(gems_chain_start(GEMS_FUSE_ALL));
}

static void start_alone(void)
{
    start();
    if (!freopen("/dev/null", "w", stderr)) /* what is said of the failures */
        abort();
    gems_cl_fault_set(-1);
}

static void all_right(void)
{
    cr_expect_eq(chain_wrong, 0, "%ld values are wrong", chain_wrong);
}

TestSuite(chain, .init = start, .fini = all_right, .timeout = 300);
TestSuite(chain_alone, .init = start_alone, .fini = all_right, .timeout = 120);

/* The device's pass is what is compared: again until all its kernels are built. */
static void on_device(void (*program)(void))
{
    for (int i = 0; i < 4000; i++) {
        gems_chain_counts before = chain_counts();
        program();
        gems_chain_counts after = chain_counts();
        if (after.passes > before.passes && after.evaluated == before.evaluated)
            return;
        usleep(50000);
    }
    cr_assert_fail("the kernels are never built");
}

#define BOTH(program)                                                                                                  \
    Test(chain, program)                                                                                               \
    {                                                                                                                  \
        on_device(program);                                                                                            \
    }                                                                                                                  \
    Test(chain_alone, program)                                                                                         \
    {                                                                                                                  \
        program();                                                                                                     \
        program();                                                                                                     \
    }

#define STRIDES(...) ((const int64_t[]){__VA_ARGS__})
#define ADD(a, b)    apply("add.Tensor", T(a), T(b), I(1))
#define MUL(a, b)    apply("mul.Tensor", T(a), T(b))
#define TIMES(a, v)  apply("mul.Scalar", T(a), I(v))
#define ADD_(a, b)   apply("add_.Tensor", T(a), T(b), I(1))
#define COPY_(a, b)  apply("copy_", T(a), T(b), (gems_value){.kind = GEMS_SCALAR_BOOL})
#define CAST(a, to)  apply("_to_copy", T(a), D(to), NONE, NONE, NONE, (gems_value){.kind = GEMS_SCALAR_BOOL}, NONE)

static shape scalar(void)
{
    return (shape){0};
}

/* Compares and frees. */
static void finish_with(node *const *x, int n)
{
    for (int i = 0; i < n; i++)
        if (x[i])
            chain_same(x[i]);
    for (int i = 0; i < n; i++)
        if (x[i])
            node_free(x[i]);
    cr_expect(chain_is_empty(), "something is left");
}
#define FINISH(...)                                                                                                    \
    finish_with((node *const[]){__VA_ARGS__}, (int)(sizeof((node *const[]){__VA_ARGS__}) / sizeof(node *)))

/* All deferred since `before`. */
static void all_deferred(long apart)
{
    cr_expect_eq(chain_apart, apart, "%ld calls were not deferred", chain_apart - apart);
}

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

/* ---- who wants values ---- */

static void *touch_all(void *arg)
{
    node *const *x = arg;
    for (int i = 0; x[i]; i++)
        chain_same(x[i]);
    return NULL;
}

static void touched_by_threads(void)
{
    enum {
        MANY = 8
    };
    for (int round = 0; round < 10; round++) {
        node *x = node_new(GEMS_F32, SHAPE(100, 40)), *y[MANY + 1] = {0};
        pthread_t thread[MANY];
        for (int i = 0; i < MANY; i++)
            y[i] = i ? ADD(y[i - 1], x) : TIMES(x, 2);
        for (int i = 0; i < MANY; i++)
            pthread_create(&thread[i], NULL, touch_all, y + (i + round) % MANY);
        for (int i = 0; i < MANY; i++)
            pthread_join(thread[i], NULL);
        chain_same(x);
        node_free(x);
        finish_with(y, MANY);
    }
}
BOTH(touched_by_threads)

static void written_by_the_program(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100, 40)), *y = TIMES(x, 2), *z = ADD(y, x);
    ((float *)y->t.address)[77] = ((float *)y->store->twin)[77] = 5; /* after z has been computed, or not */
    ((float *)x->t.address)[3] = ((float *)x->store->twin)[3] = 6;
    node *w = ADD(y, x);
    FINISH(x, y, z, w);
}
BOTH(written_by_the_program)

static void settled_for_reading(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x);
    cr_expect_eq(block_of(x)->place, GEMS_PLACE_READ_ONLY);
    gems_chain_settle(x->store->memory, 8, false, GEMS_CAUSE_OPERATOR);
    cr_expect(is_owed(y));
    cr_expect_eq(block_of(x)->place, GEMS_PLACE_READ_ONLY);
    gems_chain_settle(x->store->memory + 80, 0, true, GEMS_CAUSE_OPERATOR);
    cr_expect(is_owed(y), "no bytes are wanted");
    gems_chain_settle(x->store->memory + 80, 8, true, GEMS_CAUSE_OPERATOR);
    cr_expect_not(is_owed(y));
    cr_expect_eq(block_of(x)->place, GEMS_PLACE_HOME);
    cr_expect_neq(block_of(y)->place, GEMS_PLACE_HOME, "y is shown when it is wanted");
    gems_chain_settle((char *)&x, 8, true, GEMS_CAUSE_OPERATOR);
    FINISH(x, y);
}
BOTH(settled_for_reading)

static void pinned(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x);
    char *at = y->store->memory;
    cr_assert(gems_chain_pin(at + 8, 8, false));
    cr_expect_eq(block_of(y)->place, GEMS_PLACE_HOME);
    cr_assert(gems_chain_pin(at, 400, true));
    long apart = chain_apart;
    node *z = ADD(y, x);
    ADD_(y, x);
    cr_expect_eq(chain_apart, apart + 2, "nothing is deferred on it");
    gems_chain_unpin(at, 400);
    node *v = ADD(y, x);
    cr_expect_eq(chain_apart, apart + 3, "it is still pinned");
    gems_chain_unpin(at + 8, 8);
    node *w = ADD(y, x);
    cr_expect(is_owed(w));
    cr_expect_not(gems_chain_pin((char *)&x, 8, false));
    FINISH(x, y, z, v, w);
}
BOTH(pinned)

/* Somebody reads all of x (a system call, a kernel); somebody else may write what he does not read. */
static void written_while_pinned_for_reading(void)
{
    for (int how = 0; how < 3; how++) {
        node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x);
        char *at = x->store->memory;
        cr_assert(gems_chain_pin(at, 200, false));
        cr_expect(is_owed(y), "x may be read as it is");
        if (how == 0)
            gems_chain_settle(at, 400, true, GEMS_CAUSE_OPERATOR);
        else if (how == 1)
            cr_assert(gems_chain_pin(at + 200, 200, true));
        if (how < 2)
            cr_assert_eq(block_of(x)->place, GEMS_PLACE_HOME);
        ((float *)at)[77] = ((float *)x->store->twin)[77] = 5;
        if (how == 1)
            gems_chain_unpin(at + 200, 200);
        gems_chain_unpin(at, 200);
        FINISH(x, y);
    }
}
BOTH(written_while_pinned_for_reading)

static void given_while_pinned(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x);
    char *at = x->store->memory;
    cr_assert(gems_chain_pin(at, 200, false));
    node_free(x);
    chain_same(y);
    gems_chain_unpin(at, 200);
    FINISH(y);
}
BOTH(given_while_pinned)

/* A kernel that is no part of a chain runs on one half of x, begun when nothing was owed; the other half is written by
 * a chain, which hides all of x. */
static void *run_kernel(void *half)
{
    gems_call call;
    gems_work *work = malloc(sizeof *work);
    chain_call_begin(&call, gems_op_find("cos_"), (const gems_value[]){T((node *)half)}, NULL);
    gems_work_begin(work, GEMS_LANE_MAIN);
    if (call.op->kernel->plan(&call) != GEMS_OK || call.op->kernel->prepare(&call, work) != GEMS_OK ||
        !gems_work_execute(work))
        chain_failed("the kernel does not run");
    gems_work_end(work);
    free(work);
    return NULL;
}

static void hidden_under_a_kernel(void)
{
    enum {
        N = 4 << 20
    };
    node *x = node_new(GEMS_F32, SHAPE(2, 1));
    node_free(x);
    x = node_on(store_new((size_t)8 * N, true, false), 0, GEMS_F32, SHAPE(2 * N), NULL);
    memset(x->store->memory, 0, (size_t)8 * N);
    node *low = node_view(x, 0, SHAPE(N), NULL), *high = node_view(x, N, SHAPE(N), NULL);
    for (int round = 0; round < 12; round++) {
        pthread_t thread;
        cr_assert(chain_is_empty());
        pthread_create(&thread, NULL, run_kernel, low);
        usleep((useconds_t)(500 * round));
        gems_call call;
        chain_call_begin(&call, gems_op_find("add_.Scalar"), (const gems_value[]){T(high), I(1), I(1)}, NULL);
        cr_assert_eq(call.op->kernel->plan(&call), GEMS_OK);
        if (!chain_defer(&call))
            chain_run(&call, false);
        gems_chain_settle((void *)high->t.address, 4, false, GEMS_CAUSE_OPERATOR);
        pthread_join(thread, NULL);
        cr_assert_float_eq(((float *)high->t.address)[N - 1], round + 1, 0);
        gems_chain_settle(x->store->memory, 4, true, GEMS_CAUSE_OPERATOR);
    }
    node_free(low);
    node_free(high);
    node_free(x);
}
Test(chain, hidden_under_a_kernel)
{
    on_device(hidden_under_a_kernel);
    hidden_under_a_kernel();
}

/* A system call writes to one half of x, begun when nothing was owed. */
static int pipe_ends[2];

static void *read_from_pipe(void *half)
{
    node *x = half;
    ssize_t n = read(pipe_ends[0], (void *)x->t.address, 40);
    return (void *)(n == 40 ? 0L : n < 0 ? (long)errno : -1L);
}

static void hidden_under_a_system_call(void)
{
    node *x = node_new(GEMS_F32, SHAPE(20)), *low = node_view(x, 0, SHAPE(10), NULL);
    node *high = node_view(x, 10, SHAPE(10), NULL);
    pthread_t thread;
    void *error;
    cr_assert_eq(pipe(pipe_ends), 0);
    cr_assert(chain_is_empty());
    pthread_create(&thread, NULL, read_from_pipe, low);
    usleep(50000);
    ADD_(high, high);
    memset(x->store->twin, 0x40, 40);
    cr_assert_eq(write(pipe_ends[1], x->store->twin, 40), 40);
    pthread_join(thread, &error);
    cr_expect_null(error, "error %ld", (long)error);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    FINISH(x, low, high);
}
Test(chain, hidden_under_a_system_call)
{
    hidden_under_a_system_call();
}

/* ---- processes ---- */

static int status_of_child(node *const *x, int n)
{
    pid_t pid = fork();
    if (pid == 0) {
        long apart = chain_apart, failures = chain_wrong;
        for (int i = 0; i < n; i++)
            chain_same(x[i]);
        node *y = ADD(x[0], x[0]);
        int status = chain_wrong != failures ? 1 : chain_apart == apart ? 2 : gems_chain_is_on() ? 3 : 0;
        chain_same(y);
        for (int i = 0; i < n; i++) {
            node_fill(x[i]);
            node_free(x[i]);
        }
        _exit(chain_wrong != failures ? 4 : status);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void forked(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x), *z = MUL(y, x), *gone = MUL(z, z), *w = ADD(gone, x);
    node_free(gone);
    node *all[] = {x, y, z, w};
    cr_expect_eq(status_of_child(all, 4), 0);
    ADD_(x, y);
    cr_expect(is_owed(x), "the parent goes on");
    cr_expect_eq(status_of_child(all, 4), 0);
    FINISH(x, y, z, w);
}
BOTH(forked)

static void forked_while_pinned(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x);
    char *at = x->store->memory;
    cr_assert(gems_chain_pin(at, 400, false));
    node *all[] = {x, y};
    cr_expect_eq(status_of_child(all, 2), 0, "x may be written in the child");
    gems_chain_unpin(at, 400);
    FINISH(x, y);
}
BOTH(forked_while_pinned)

static void ended(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x), *z = MUL(y, x);
    gems_chain_end(NULL);
    cr_expect_not(is_owed(y) || is_owed(z));
    cr_expect_eq(block_of(z)->place, GEMS_PLACE_HOME);
    cr_expect_not(gems_chain_is_on());
    long apart = chain_apart;
    node *w = ADD(x, y);
    cr_expect_eq(chain_apart, apart + 1);
    FINISH(x, y, z, w);
}
Test(chain, ended)
{
    ended();
}
Test(chain_alone, ended)
{
    ended();
}

/* ---- memory runs out ---- */

#ifndef GEMS_SANITIZED
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
static __thread long failures;

static bool fails(void)
{
    if (!chain_memory_fails || (chain_memory_fails > 0 && --chain_memory_fails > 0))
        return false;
    failures++;
    return true;
}

void *malloc(size_t n)
{
    return fails() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}

/* A call is either owed with all that it needs, or as if nothing had been tried. (The evaluator waits for memory, so it
 * must not be all that fails in a call that computes others.) */
static void without_memory(void)
{
    for (chain_fail_at = 1; chain_fail_at < 10; chain_fail_at++) {
        node *x = node_new(GEMS_F32, SHAPE(60, 4)), *few = node_new_in(GEMS_F32, SHAPE(4), false);
        node *a = ADD(x, few), *b = apply("addcmul", T(a), T(few), T(x), I(2)), *turned;
        ADD_(x, b);
        node_free(a);
        turned = node_view(b, 0, SHAPE(4, 60), STRIDES(1, 4));
        node *c = TIMES(turned, 3);
        apply("neg_", T(turned));
        COPY_(x, few);
        FINISH(x, few, b, turned, c);
    }
    chain_fail_at = -1;
    node *x = node_new(GEMS_F32, SHAPE(60, 4)), *few = node_new_in(GEMS_F32, SHAPE(4), false), *a = ADD(x, few);
    ADD_(x, a);
    COPY_(x, few);
    FINISH(x, few, a);
    chain_fail_at = 0;
    cr_expect_gt(failures, 20);
}
Test(chain_alone, without_memory)
{
    without_memory();
}
#endif

/* ---- any program ---- */

/* Random calls on random views of few memories. Small sizes: what matters is who meets whom. */
static void random_program(unsigned seed, int calls)
{
    enum {
        NODES = 24
    };
    static const gems_dtype dtypes[] = {GEMS_F32, GEMS_F16, GEMS_I32, GEMS_F64};
    node *x[NODES] = {0};
    for (int i = 0; i < calls; i++) {
        unsigned at = (unsigned)rand_r(&seed) % NODES, r = (unsigned)rand_r(&seed);
        node *a = x[(unsigned)rand_r(&seed) % NODES], *b = x[(unsigned)rand_r(&seed) % NODES], *made = NULL;
        bool unlike = !a || !b || a->t.ndim != b->t.ndim || memcmp(a->sizes, b->sizes, sizeof a->sizes) != 0;
        if (!a || r % 16 == 0)
            made = node_new_in(dtypes[r / 16 % 4], r / 64 % 3 ? SHAPE(8, 12) : SHAPE(12, 8), r / 256 % 8 != 0);
        else if (r % 16 == 1 && a->t.numel >= 48)
            made = node_view(a, 0, SHAPE(a->t.numel / 24, 12), r / 16 % 2 ? STRIDES(12, 1) : STRIDES(24, 1));
        else if (r % 16 == 2 && a->store->bytes == 96 * (size_t)gems_dtypes[a->t.dtype].size)
            made = node_view(a, r / 16 % 2 ? 48 : 0, SHAPE(4, 12), NULL);
        else if (r % 16 == 3)
            chain_same(a);
        else if (r % 16 == 4)
            node_fill(a);
        else if (r % 16 == 5)
            gems_chain_settle((void *)a->t.address, 1, r / 16 % 2, GEMS_CAUSE_OPERATOR);
        else if (r % 16 == 6)
            made = CAST(a, dtypes[r / 16 % 4]);
        else if (r % 16 == 7 && !unlike)
            COPY_(a, b);
        else if (r % 16 == 8 && a->t.dtype != GEMS_I32)
            apply("clamp_", T(a), I(-50), I(50));
        else if (r % 16 < 11 && !unlike)
            ADD_(a, b);
        else if (r % 16 < 14 && !unlike)
            made = r / 16 % 2 ? ADD(a, b) : apply("maximum", T(a), T(b));
        else
            made = apply("neg", T(a));
        if (made) {
            if (x[at])
                node_free(x[at]);
            x[at] = made;
        }
    }
    finish_with(x, NODES);
}

Test(chain_alone, random_programs)
{
    for (unsigned seed = 1; seed <= 40; seed++)
        random_program(seed, 600);
    cr_expect_gt(chain_deferred, 5000);
}
Test(chain, random_programs)
{
    for (unsigned seed = 1; seed <= 4; seed++)
        random_program(seed, 400);
}
