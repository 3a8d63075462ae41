/* Reductions to one value: sum, mean, amax, prod, any, count_nonzero, ... What is special about each stands in its row
 * of shim/ops.json, whose fields kernels/reduce/fields explains; everything else (which dims, keepdim, dtype, out
 * forms) follows from the schema. */
#include "kernels/reduce/reduce.h"

#include <stdio.h>
#include <string.h>

static gems_status plan(gems_call *call)
{
    gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    gems_status status = gems_reduce_dims(call, r);
    if (status == GEMS_OK)
        status = gems_reduce_dtypes(call, r);
    int64_t *bytes = &call->sizes.v[GEMS_SIZE_BYTES];
    if (status == GEMS_OK)
        *bytes = gems_size_plus(*bytes, gems_size_bytes(call->sizes.v[GEMS_SIZE_ROWS], (gems_dtype)r->to));
    return status;
}

/* The dtype whose compute type accumulates. */
static gems_dtype acc_dtype(const gems_op *op, gems_dtype from)
{
    const char *acc = gems_op_attr_or(op, "acc", "same");
    if (strcmp(acc, "i64") == 0 || (strcmp(acc, "wide") == 0 && gems_dtypes[from].category != GEMS_CAT_FLOAT))
        return GEMS_I64;
    if (from == GEMS_F16 || from == GEMS_BF16)
        return GEMS_F32;
    return from == GEMS_BOOL ? GEMS_U8 : from;
}

void gems_reduce_types_of(gems_reduce_types *t, const gems_call *call)
{
    const gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    t->op = call->op;
    t->in = call->arg[0].tensor->dtype;
    t->from = (gems_dtype)r->from;
    t->acc = acc_dtype(call->op, t->from);
    t->out = (gems_dtype)r->to;
}

/* A reduction with its results made. */
typedef struct problem {
    const gems_tensor *input, *output;
    gems_reduce_types types;
    gems_nest kept;
    gems_cut cut;
    int64_t results, total;
} problem;

static const char *lowest[GEMS_DTYPE_COUNT] = {
    [GEMS_F16] = "-INFINITY", [GEMS_BF16] = "-INFINITY", [GEMS_F32] = "-INFINITY", [GEMS_F64] = "-INFINITY",
    [GEMS_I8] = "CHAR_MIN",   [GEMS_U8] = "0",           [GEMS_I16] = "SHRT_MIN",  [GEMS_I32] = "INT_MIN",
    [GEMS_I64] = "LONG_MIN",  [GEMS_BOOL] = "0",
};
static const char *highest[GEMS_DTYPE_COUNT] = {
    [GEMS_F16] = "INFINITY", [GEMS_BF16] = "INFINITY", [GEMS_F32] = "INFINITY", [GEMS_F64] = "INFINITY",
    [GEMS_I8] = "CHAR_MAX",  [GEMS_U8] = "UCHAR_MAX",  [GEMS_I16] = "SHRT_MAX", [GEMS_I32] = "INT_MAX",
    [GEMS_I64] = "LONG_MAX", [GEMS_BOOL] = "1",
};

enum {
    COLUMN,
    RUN,
    ACROSS,
    GROUP
};

void gems_reduce_defines(const gems_reduce_types *t, char *out, size_t n)
{
    bool compensated = gems_op_attr(t->op, "compensated") && gems_dtypes[t->acc].category == GEMS_CAT_FLOAT;
    snprintf(out, n,
             "#define IN %s\n#define C %s\n#define A %s\n#define OUT %s\n#define O %s\n%s"
             "#define LOWEST %s\n#define HIGHEST %s\n#define IDENTITY ((A)(%s))\n#define MAP_(x, zero, one) (%s)\n"
             "#define COMBINE(a, b) (%s)\n#define FINISH_(a, n) (%s)\n",
             gems_dtypes[t->in].name, gems_dtypes[t->from].compute, gems_dtypes[t->acc].compute,
             gems_dtypes[t->out].name, gems_dtypes[t->out].compute, compensated ? "#define COMPENSATED\n" : "",
             lowest[t->acc], highest[t->acc], gems_op_attr_or(t->op, "identity", "0"),
             gems_op_attr_or(t->op, "map", "x"), gems_op_attr_or(t->op, "combine", "a + b"),
             gems_op_attr_or(t->op, "finish", "a"));
}

static void write_defines(const gems_choice *c, char *out, size_t n)
{
    gems_reduce_defines(&((const problem *)c->problem)->types, out, n);
}

static gems_kernel *kernel_for(const gems_choice *c, const char *entry, bool part, size_t group)
{
    const problem *p = c->problem;
    return gems_kernel_for(c,
                           &(gems_kernel_wanted){"kernels/reduce/reduce.cl", entry, gems_reduce_types_number(&p->types),
                                                 group, p->cut.stride == 1, part, write_defines});
}

enum {
    BAND = 256,      /* results that `column` does together, as in reduce.cl */
    TILE = 32,       /* and `across`, as far as a group is that wide */
    CPU_COLUMNS = 16 /* fewer are not worth `column` */
};

/* Whether so many neighbouring results lie side by side in the input too, where that is of use. */
static bool side_by_side(const problem *p, int64_t least)
{
    int64_t last = p->kept.rank - 1;
    return last >= 0 && p->kept.stride[last] == 1 && p->kept.size[last] >= least && p->cut.stride != 1;
}

/* One pass over the input, and where it was cut one over the parts. */
static void launch(const gems_choice *c)
{
    gems_work *work = c->work;
    problem p = *(const problem *)c->problem;
    const int k = gems_choice_index(c);
    const bool cpu = k == RUN || k == COLUMN;
    /* Results that are done together; 0: one. */
    const int64_t tile = k == COLUMN ? BAND : k == ACROSS ? (int64_t)gems_group(c->device, TILE) : 0;
    int64_t columns = 0, stride;
    if (tile)
        gems_nest_split_inner(&p.kept, &columns, &stride);
    int64_t rows = columns ? p.results / columns : p.results, tiles = columns ? (columns + tile - 1) / tile : 1;
    gems_reduce_cut(&p.cut, c->call, c->device, rows * tiles);
    int64_t units = rows * tiles * p.cut.splits;
    bool cut = p.cut.splits > 1;
    /* States of at most two numbers each. */
    gems_arg parts = GEMS_SCRATCH(
        cut ? gems_work_scratch(work, (size_t)(p.results * p.cut.splits) * 2 * gems_dtypes[p.types.acc].size) : 0);
    gems_arg args[] = {GEMS_IN(p.input),
                       cut ? parts : GEMS_OUT_ARG(p.output),
                       GEMS_VALUE(p.kept),
                       GEMS_VALUE(p.cut.outer),
                       GEMS_VALUE(p.cut.outer_count),
                       GEMS_VALUE(p.cut.n),
                       GEMS_VALUE(p.cut.stride),
                       GEMS_VALUE(p.results),
                       GEMS_VALUE(p.cut.splits),
                       GEMS_VALUE(p.cut.inner_splits),
                       GEMS_VALUE(p.cut.chunk_outer),
                       GEMS_VALUE(p.cut.chunk),
                       GEMS_VALUE(p.total),
                       GEMS_VALUE(columns)};
    int nargs = columns ? 14 : 13;
    const size_t group = cpu ? 1 : gems_group(c->device, 256), width = tile && !cpu ? (size_t)tile : group;
    const size_t global[2] = {cpu ? (size_t)gems_cpu_items(c->device, units) : (size_t)units * width, group / width};
    const size_t local[2] = {width, group / width};
    gems_launch(work, kernel_for(c, c->variant->name, cut, group), k == ACROSS ? 2 : 1, global, local, args, nargs);
    if (cut) {
        const size_t items = cpu ? 1 : gems_group(c->device, 32), all = (size_t)p.results * items;
        gems_arg merged[] = {parts, GEMS_OUT_ARG(p.output), GEMS_VALUE(p.results), GEMS_VALUE(p.cut.splits),
                             GEMS_VALUE(p.total)};
        gems_launch(work, kernel_for(c, "merge", false, items), 1, &all, &items, merged, 5);
    }
}

static bool can_column(const gems_choice *c)
{
    return side_by_side(c->problem, CPU_COLUMNS);
}
static bool can_across(const gems_choice *c)
{
    return side_by_side(c->problem, TILE);
}

static const gems_variant variants[] = {
    [COLUMN] = {"column", "16 neighbouring results, side by side in the input", .params = {GEMS_SPLITS},
                .can = can_column, .suits = gems_suits_cpu, .launch = launch},
    [RUN] = {"run", NULL, .params = {GEMS_SPLITS}, .suits = gems_suits_cpu, .launch = launch},
    [ACROSS] = {"across", "32 such results", .params = {GEMS_SPLITS}, .can = can_across, .suits = gems_suits_gpu,
                .launch = launch},
    [GROUP] = {"group", NULL, .params = {GEMS_SPLITS}, .suits = gems_suits_gpu, .launch = launch},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_tensor *in = call->arg[0].tensor;
    if (!gems_device_get(work->lane)->f64 && (in->dtype == GEMS_F64 || r->from == GEMS_F64))
        return gems_decline(call, "the device has no f64");
    problem p = {.input = in, .total = call->sizes.v[GEMS_SIZE_COLS], .results = call->sizes.v[GEMS_SIZE_ROWS]};
    gems_reduce_types_of(&p.types, call);
    if (!gems_nest_dims(in, ~r->dims, &p.kept) || !gems_nest_dims(in, r->dims, &p.cut.outer))
        return gems_decline(call, "rank above 8");
    gems_nest_sort(&p.cut.outer);
    gems_nest_split_inner(&p.cut.outer, &p.cut.n, &p.cut.stride);
    p.cut.outer_count = gems_nest_count(&p.cut.outer);
    p.output = gems_reduce_result(call, 0, p.types.out, r);
    return p.output ? gems_launch_variant(call, work, &p) : GEMS_DECLINED;
}

const gems_family gems_family_reduce = {.name = "reduce",
                                        .plan = plan,
                                        .prepare = prepare,
                                        .fold = gems_reduce_fold,
                                        .variants = variants,
                                        .small_numel = 65536};
