/* Works as things: kept, copied, run later and again, in another order, merged; and what of a result's memory is
 * written. (That a work owns all that it needs is tested with every family: family.h.) */
#include "tests/unit/family.h"
#include "kernels/pointwise/recipe.h"
#include "kernels/work/launcher.h"

#include <criterion/criterion.h>
#include <pthread.h>

enum {
    ROWS = 7,
    COLS = 300
};

static void staged(void)
{
    setenv("GEMS_MEMORY", "staged", 1);
}

TestSuite(work, .timeout = 120);
TestSuite(work_staged, .init = staged, .timeout = 120);

/* A binary operator's work, in `work`; its result. */
static operand *prepare_binary(gems_work *work, const char *op, operand *a, operand *b)
{
    gems_call call = {.op = gems_op_find(op), .host = &family_host};
    cr_assert(gems_device_open(), "%s", gems_device_error());
    memset(&call.sizes, -1, sizeof call.sizes);
    call.arg[0] = (gems_value){.kind = GEMS_TENSOR, .tensor = &a->t};
    call.arg[1] = (gems_value){.kind = GEMS_TENSOR, .tensor = &b->t};
    call.arg[2] = (gems_value){.kind = GEMS_SCALAR_INT, .i = 1};
    cr_assert_eq(call.op->kernel->plan(&call), GEMS_OK, "%s", call.why);
    gems_work_begin(work, GEMS_LANE_MAIN);
    cr_assert_eq(call.op->kernel->prepare(&call, work), GEMS_OK, "%s", call.why);
    return call.result[0].host;
}

static void run(gems_work *work)
{
    gems_call call = {.op = gems_op_find("add.Tensor")};
    cr_assert_eq(gems_work_run(work, &call), GEMS_OK, "%s", call.why);
}

/* d = a * b and e = d + c, both prepared and neither run. */
typedef struct chain {
    operand *a, *b, *c, *d, *e;
    gems_work product, sum;
} chain;

static chain *prepare_chain(gems_dtype dtype)
{
    static const layout layouts[] = {DENSE, TRANSPOSED, SLICED};
    chain *p = malloc(sizeof *p);
    operand **o[] = {&p->a, &p->b, &p->c};
    for (int i = 0; i < 3; i++)
        *o[i] = operand_with(dtype, layouts[i], SHAPE(ROWS, COLS));
    p->d = prepare_binary(&p->product, "mul.Tensor", p->a, p->b);
    p->e = prepare_binary(&p->sum, "add.Tensor", p->d, p->c);
    return p;
}

static void end_chain(chain *p)
{
    operand *o[] = {p->a, p->b, p->c, p->d, p->e};
    gems_work_end(&p->product);
    gems_work_end(&p->sum);
    for (int i = 0; i < 5; i++)
        operand_free(o[i]);
    free(p);
}

/* A product and a sum are each rounded once: only one value is right. */
static void check_sum(const chain *p)
{
    EACH (c, p->e->shape) {
        double product = (float)(at(p->a, c) * at(p->b, c));
        cr_assert_eq(at(p->e, c), (float)(product + at(p->c, c)), "row %d, column %d", (int)c[0], (int)c[1]);
    }
}

static bool is_untouched(const operand *o)
{
    return memcmp(o->memory, o->before, o->bytes) == 0;
}

/* The copies outlive the works that they were made of. */
static void run_copies_later(void)
{
    chain *p = prepare_chain(GEMS_F32);
    gems_work kept[2];
    cr_assert(gems_work_copy(&kept[0], &p->product) && gems_work_copy(&kept[1], &p->sum));
    gems_work_end(&p->product);
    gems_work_end(&p->sum);
    gems_work_begin(&p->product, GEMS_LANE_MAIN);
    gems_work_begin(&p->sum, GEMS_LANE_MAIN);
    cr_expect(is_untouched(p->d) && is_untouched(p->e), "nothing has run yet");
    run(&kept[0]);
    run(&kept[1]);
    check_sum(p);
    put(p->a, (int64_t[DIMS]){1, 2}, 77); /* and again, on what the operands hold then */
    run(&kept[0]);
    run(&kept[1]);
    check_sum(p);
    gems_work_end(&kept[0]);
    gems_work_end(&kept[1]);
    end_chain(p);
}

Test(work, copies_run_later_in_order)
{
    run_copies_later();
}
Test(work_staged, copies_run_later_in_order)
{
    run_copies_later();
}

/* One work of both recipes, with the second one's names of the first one's result bound to the first step instead of to
 * memory. What the first work wrote is written by nobody: the second one's result takes its place as operand 0. */
static void merge(gems_work *to, const gems_work *first, gems_work *second)
{
    cr_assert(gems_work_copy(to, first));
    pw_recipe *r = pw_recipe_of(to), *s = pw_recipe_of(second);
    uintptr_t dropped = to->operand[pw_recipe_in(r)[0].operand].allocation;
    uint8_t place[GEMS_OPERANDS] = {0}; /* of an operand of the second recipe in the merged one */
    for (unsigned i = 0; i < s->spec.noperands; i++) {
        const gems_operand *o = pw_recipe_in(s)[i].operand < 0 ? NULL : &second->operand[pw_recipe_in(s)[i].operand];
        if (i > 0 && o && o->allocation == dropped)
            continue;
        place[i] = i ? r->spec.noperands++ : 0;
        r->spec.operand[place[i]] = s->spec.operand[i];
        pw_recipe_in(r)[place[i]] = pw_recipe_in(s)[i];
        if (i == 0)
            pw_recipe_in(r)[0].operand = 0;
        else if (o)
            pw_recipe_in(r)[place[i]].operand = (int32_t)to->noperands++;
        if (o)
            to->operand[pw_recipe_in(r)[place[i]].operand] = *o;
    }
    gems_pw_step *step = &r->spec.step[r->spec.nsteps++];
    *step = s->spec.step[0];
    step->store[0] = 0;
    r->spec.step[0].store[0] = GEMS_PW_UNSTORED;
    for (unsigned i = 0; i < GEMS_EXPR_NAMES; i++) {
        const int32_t from = pw_recipe_in(s)[step->bind[i].index].operand;
        bool replaced = from >= 0 && second->operand[from].allocation == dropped;
        step->bind[i].step = replaced;
        step->bind[i].index = replaced ? 0 : place[step->bind[i].index];
    }
}

static void run_merged(gems_dtype dtype)
{
    chain *p = prepare_chain(dtype);
    gems_work both;
    run(&p->product);
    run(&p->sum);
    unsigned char *apart = malloc(p->e->bytes);
    memcpy(apart, p->e->memory, p->e->bytes);
    memcpy(p->d->memory, p->d->before, p->d->bytes);
    memcpy(p->e->memory, p->e->before, p->e->bytes);

    merge(&both, &p->product, &p->sum);
    run(&both);
    cr_expect_eq(both.nlaunches, 1);
    cr_expect(is_untouched(p->d), "what lies between is not stored");
    cr_expect_arr_eq(p->e->memory, apart, p->e->bytes, "%s: other bits than apart", gems_dtypes[dtype].name);
    free(apart);
    gems_work_end(&both);
    end_chain(p);
}

Test(work, two_merged_into_one_launch)
{
    run_merged(GEMS_F32);
    run_merged(GEMS_F16); /* what lies between is rounded as if it were stored */
    run_merged(GEMS_BF16);
    run_merged(GEMS_I32);
}
Test(work_staged, two_merged_into_one_launch)
{
    run_merged(GEMS_F32);
    run_merged(GEMS_F16);
}

/* ---- more than a work has room for in itself ---- */

static void copy_grown(void)
{
    enum {
        MANY = 100
    };
    gems_tensor list[MANY];
    operand *o[MANY];
    gems_call call = {.op = gems_op_find("cat"), .host = &family_host};
    gems_work work, copy;
    cr_assert(gems_device_open(), "%s", gems_device_error());
    memset(&call.sizes, -1, sizeof call.sizes);
    for (int i = 0; i < MANY; i++) {
        o[i] = operand_with(GEMS_F32, (layout)(i % LAYOUTS), SHAPE(2, 1 + i % 3));
        list[i] = o[i]->t;
    }
    call.arg[0] = (gems_value){.kind = GEMS_TENSORS, .tensors = {list, MANY}};
    call.arg[1] = (gems_value){.kind = GEMS_SCALAR_INT, .i = 1};
    cr_assert_eq(call.op->kernel->plan(&call), GEMS_OK, "%s", call.why);
    gems_work_begin(&work, GEMS_LANE_SMALL);
    cr_assert_eq(call.op->kernel->prepare(&call, &work), GEMS_OK, "%s", call.why);
    cr_assert(work.operand != work.own_operand && work.launch != work.own_launch && work.arg != work.own_arg &&
                  work.bytes != work.own_bytes,
              "every list of it has grown");
    cr_assert(gems_work_copy(&copy, &work));
    gems_work_end(&work);
    run(&copy);
    gems_work_end(&copy);
    operand *out = call.result[0].host;
    int64_t first = 0;
    for (int i = 0; i < MANY; i++) {
        EACH (c, o[i]->shape)
            cr_assert_eq(AT(out, c[0], first + c[1]), at(o[i], c), "tensor %d", i);
        first += o[i]->shape.size[1];
        operand_free(o[i]);
    }
    operand_free(out);
}

Test(work, whose_lists_have_grown_is_copied)
{
    copy_grown();
}
Test(work_staged, whose_lists_have_grown_is_copied)
{
    copy_grown();
}

/* ---- again ---- */

static void run_again(void)
{
    operand *x = operand_with(GEMS_F32, SLICED, SHAPE(ROWS, COLS)), *y = operand_with(GEMS_F32, DENSE, SHAPE(COLS));
    operand *start = operand_with(GEMS_F32, SLICED, SHAPE(ROWS, COLS));
    gems_work work;
    enum {
        RUNS = 12
    };
    uint64_t bytes[RUNS];
    prepare_binary(&work, "add_.Tensor", x, y);
    for (int i = 0; i < RUNS; i++) {
        gems_call call = {.op = gems_op_find("add_.Tensor")};
        cr_assert_eq(gems_work_run(&work, &call), GEMS_OK, "%s", call.why);
        bytes[i] = call.bytes;
    }
    EACH (c, x->shape) {
        float v = (float)at(start, c);
        for (int i = 0; i < RUNS; i++)
            v += (float)at(y, c + 1);
        cr_assert_eq(at(x, c), v);
    }
    for (int i = 1; i < RUNS; i++)
        cr_expect_eq(bytes[i], bytes[0], "run %d moved %d bytes, the first one %d", i, (int)bytes[i], (int)bytes[0]);
    cr_expect_eq(work.bytes, work.own_bytes, "running it again takes no more room");
    gems_work_end(&work);
    operand_free(x);
    operand_free(y);
    operand_free(start);
}

Test(work, runs_again_on_what_the_operands_hold_then)
{
    run_again();
}
Test(work_staged, runs_again_on_what_the_operands_hold_then)
{
    run_again();
}

/* ---- gaps ---- */

/* Two threads that write the two columns of one matrix, each alone with its own: in place, and as `out`. */
typedef struct column {
    operand *matrix;
    int64_t which, sizes[1], strides[1];
    gems_tensor t;
    const char *op;
} column;

enum {
    LENGTH = 1000,
    ROUNDS = 200
};

static void *write_column(void *arg)
{
    column *c = arg;
    operand *one = operand_with(GEMS_F32, EXPANDED, SHAPE(LENGTH));
    put(one, (int64_t[DIMS]){0}, 1);
    gems_call call = {.op = gems_op_find(c->op), .host = &family_host};
    bool out = call.op->form == GEMS_OUT;
    memset(&call.sizes, -1, sizeof call.sizes);
    call.arg[0] = (gems_value){.kind = GEMS_TENSOR, .tensor = out ? &one->t : &c->t};
    call.arg[1] = (gems_value){.kind = GEMS_TENSOR, .tensor = &one->t};
    call.arg[2] = (gems_value){.kind = GEMS_SCALAR_INT, .i = 1};
    call.arg[3] = (gems_value){.kind = GEMS_TENSOR, .tensor = &c->t};
    long wrong = 0;
    for (int i = 1; i <= ROUNDS; i++) {
        gems_work work;
        if (out) /* another value every round */
            call.arg[2].i = i;
        wrong += call.op->kernel->plan(&call) != GEMS_OK;
        gems_work_begin(&work, i % 2 ? GEMS_LANE_MAIN : GEMS_LANE_SMALL);
        wrong += call.op->kernel->prepare(&call, &work) != GEMS_OK || gems_work_run(&work, &call) != GEMS_OK;
        gems_work_end(&work);
        for (int64_t row = 0; row < LENGTH; row++)
            wrong += AT(c->matrix, row, c->which) != i + out;
    }
    operand_free(one);
    return (void *)wrong;
}

static void write_columns(const char *op)
{
    operand *matrix = operand_new(GEMS_F32, false, SHAPE(LENGTH, 2), (int64_t[DIMS]){2, 1}, 0);
    column columns[2];
    pthread_t thread[2];
    cr_assert(gems_device_open(), "%s", gems_device_error());
    EACH (c, matrix->shape)
        put(matrix, c, 0);
    for (int i = 0; i < 2; i++) {
        columns[i] = (column){matrix, i, {LENGTH}, {2}, {0}, op};
        columns[i].t = (gems_tensor){.address = matrix->t.address + (uintptr_t)i * sizeof(float),
                                     .sizes = columns[i].sizes,
                                     .strides = columns[i].strides,
                                     .numel = LENGTH,
                                     .ndim = 1,
                                     .dtype = GEMS_F32,
                                     .host = &columns[i]};
        pthread_create(&thread[i], NULL, write_column, &columns[i]);
    }
    for (int i = 0; i < 2; i++) {
        void *wrong;
        pthread_join(thread[i], &wrong);
        cr_expect_eq((long)wrong, 0, "%s: column %d lost %ld values", op, i, (long)wrong);
    }
    operand_free(matrix);
}

Test(work, columns_of_one_matrix_in_two_threads)
{
    write_columns("add_.Tensor");
    write_columns("add.out");
}
Test(work_staged, columns_of_one_matrix_in_two_threads)
{
    write_columns("add_.Tensor");
    write_columns("add.out");
}

/* ---- variants ---- */

/* One whose kernel does not build, and one that adds; both suit. */
static int launched[2];
static void launch_broken(const gems_choice *c)
{
    const size_t one = 1;
    launched[0]++;
    (void)gems_work_scratch(c->work, 64);
    gems_kernel *kernel =
        gems_work_build(c->work, "broken", 7, &(gems_kernel_text){"broken", NULL, "this is no kernel", "", "broken"});
    gems_launch(c->work, kernel, 1, &one, &one, NULL, 0);
}
static void launch_whole(const gems_choice *c)
{
    launched[1]++;
    cr_expect_eq(c->work->nscratch, 0, "nothing of the other one is left");
    gems_kernel *kernel = gems_work_find(c->work, "whole", 6);
    const operand *const *o = c->problem;
    const int n = (int)o[0]->t.numel;
    const size_t items = (size_t)n;
    if (!kernel)
        kernel = gems_work_build(
            c->work, "whole", 6,
            &(gems_kernel_text){
                "whole", NULL,
                "kernel void whole(GEMS_SHARED_BUFFER(const float, x), GEMS_SHARED_BUFFER(float, y), int n)\n"
                "{ GEMS_AT(const float, x); GEMS_AT(float, y); int i = get_global_id(0); if (i < n) y[i] = x[i] + 1; "
                "}\n",
                "", "whole"});
    gems_launch(c->work, kernel, 1, &items, NULL,
                (gems_arg[]){GEMS_IN(&o[0]->t), GEMS_OUT_ARG(&o[1]->t), GEMS_VALUE(n)}, 3);
}
static const gems_variant two_variants[] = {
    {"broken", .launch = launch_broken}, {"whole", .launch = launch_whole}, {NULL}};
static const gems_family two = {.name = "two", .variants = two_variants};

Test(work, where_a_variants_kernel_is_out_of_use_the_next_one_serves)
{
    const gems_op op = {.name = "two", .kernel = &two};
    operand *x = operand_with(GEMS_F32, DENSE, SHAPE(ROWS, COLS)),
            *y = operand_with(GEMS_F32, DENSE, SHAPE(ROWS, COLS));
    const operand *const both[2] = {x, y};
    cr_assert(gems_device_open(), "%s", gems_device_error());
    for (int i = 0; i < 2; i++) { /* the second time it is out of use from the start */
        gems_work work;
        gems_call call = {.op = &op};
        gems_work_begin(&work, GEMS_LANE_MAIN);
        cr_assert_eq(gems_launch_variant(&call, &work, both), GEMS_OK);
        cr_assert_eq(gems_work_run(&work, &call), GEMS_OK, "%s", call.why);
        gems_work_end(&work);
        cr_expect(launched[0] == i + 1 && launched[1] == i + 1);
        EACH (c, x->shape)
            cr_assert_eq(at(y, c), (float)(at(x, c) + 1));
    }
    operand_free(x);
    operand_free(y);
}
