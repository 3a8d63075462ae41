/* Reductions to one value: sum, mean, amax, prod, any, count_nonzero, ... What is special about each stands in its row
 * of shim/ops.json, whose fields kernels/reduce/fields explains; everything else (which dims, keepdim, dtype, out
 * forms) follows from the schema. */
#include "kernels/reduce/reduce.h"
#include "kernels/work/wide.h"
#include "tune/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The row's "only": a parameter, and the number that it must be. */
static bool is_other(const gems_call *call)
{
    const char *only = gems_op_attr(call->op, "only");
    for (unsigned i = 0; only && i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        const size_t n = strlen(call->op->params[i].name);
        if (strncmp(call->op->params[i].name, only, n) != 0 || only[n] != ' ')
            continue;
        const int64_t number = strtoll(only + n, NULL, 10);
        return v->kind == GEMS_SCALAR_FLOAT ? v->f != (double)number : v->kind != GEMS_SCALAR_INT || v->i != number;
    }
    return false;
}

static gems_status plan(gems_call *call)
{
    gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    gems_status status = is_other(call) ? gems_decline(call, "a number for which there is no kernel") : GEMS_OK;
    if (status == GEMS_OK)
        status = gems_reduce_dims(call, r);
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
    gems_hold hold; /* of variants that read 16 bytes at a time */
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
    WIDE_ACROSS,
    WIDE,
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
    const problem *p = c->problem;
    gems_reduce_defines(&p->types, out, n);
    if (p->hold.lanes)
        gems_hold_defines(&p->hold, out + strlen(out), n - strlen(out));
}

static gems_kernel *kernel_for(const gems_choice *c, const char *entry, bool part, size_t group)
{
    const problem *p = c->problem;
    return gems_kernel_for(c, &(gems_kernel_wanted){"kernels/reduce/reduce.cl", entry,
                                                    gems_reduce_types_number(&p->types) | gems_hold_types(&p->hold),
                                                    group, p->cut.stride == 1, part, write_defines});
}

enum {
    BAND = 256,       /* results that `column` does together, as in reduce.cl */
    TILE = 32,        /* and `across`, as far as a group is that wide */
    CPU_COLUMNS = 16, /* fewer are not worth `column` */
    LEAST = 2048      /* terms of a part on a GPU */
};

/* Whether so many neighbouring results lie side by side in the input too, where that is of use. */
static bool side_by_side(const problem *p, int64_t least)
{
    int64_t last = p->kept.rank - 1;
    return last >= 0 && p->kept.stride[last] == 1 && p->kept.size[last] >= least && p->cut.stride != 1;
}

/* How a launch is spread: `width` times `deep` work-items in each of `groups`. */
typedef struct spread {
    int64_t columns; /* neighbouring results that are done together; 0: one by one */
    size_t groups, width, deep;
    int dims;
} spread;

/* One pass over the input, and where it was cut one over the parts. */
static void launch_spread(const gems_choice *given, problem *p, const spread *s)
{
    gems_work *work = given->work;
    gems_choice c = *given;
    c.problem = p;
    const bool cut = p->cut.splits > 1, cpu = gems_suits_cpu(given);
    /* States of at most two numbers each. */
    gems_arg parts = GEMS_SCRATCH(
        cut ? gems_work_scratch(work, (size_t)(p->results * p->cut.splits) * 2 * gems_dtypes[p->types.acc].size) : 0);
    gems_arg args[] = {GEMS_IN(p->input),
                       cut ? parts : GEMS_OUT_ARG(p->output),
                       GEMS_VALUE(p->kept),
                       GEMS_VALUE(p->cut.outer),
                       GEMS_VALUE(p->cut.outer_count),
                       GEMS_VALUE(p->cut.n),
                       GEMS_VALUE(p->cut.stride),
                       GEMS_VALUE(p->results),
                       GEMS_VALUE(p->cut.splits),
                       GEMS_VALUE(p->cut.inner_splits),
                       GEMS_VALUE(p->cut.chunk_outer),
                       GEMS_VALUE(p->cut.chunk),
                       GEMS_VALUE(p->total),
                       GEMS_VALUE(s->columns)};
    const size_t global[2] = {s->groups * s->width, s->deep}, local[2] = {s->width, s->deep};
    gems_launch(work, kernel_for(&c, c.variant->name, cut, s->width * s->deep), s->dims, global, local, args,
                s->columns ? 14 : 13);
    if (!cut)
        return;
    /* A group for each result, or for many that have few parts each. */
    const bool few = !cpu && p->cut.splits <= 32 && p->results >= 256;
    const size_t items = cpu ? 1 : gems_group(given->device, few ? 64 : 32);
    const size_t all = few ? ((size_t)p->results + items - 1) / items * items : (size_t)p->results * items;
    gems_arg merged[] = {parts, GEMS_OUT_ARG(p->output), GEMS_VALUE(p->results), GEMS_VALUE(p->cut.splits),
                         GEMS_VALUE(p->total)};
    p->hold = (gems_hold){0};
    gems_launch(work, kernel_for(&c, few ? "merge_few" : "merge", false, items), 1, &all, &items, merged, 5);
}

static void launch(const gems_choice *c)
{
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
    const int64_t units = rows * tiles * p.cut.splits;
    const size_t group = cpu ? 1 : gems_group(c->device, 256), width = tile && !cpu ? (size_t)tile : group;
    const spread s = {columns, (size_t)(cpu ? gems_cpu_items(c->device, units) : units), width, group / width,
                      k == ACROSS ? 2 : 1};
    launch_spread(c, &p, &s);
}

/* A unit is that of LANES items, of which there are up to 512. Few results are cut into as many units as
 * multiprocessors hold at a time: more would only begin later, and leave more parts. */
static void launch_wide(const gems_choice *c)
{
    problem p = *(const problem *)c->problem;
    const int64_t most = p.cut.outer_count * p.cut.n / LEAST,
                  wanted = 2 * (int64_t)c->device->compute_units / p.results;
    gems_reduce_cut_into(&p.cut, gems_rule_param(c->call->rule, "splits", wanted < most ? wanted : most));
    const int64_t vectors = (p.cut.chunk * gems_dtypes[p.input->dtype].size + GEMS_WIDE - 1) / GEMS_WIDE;
    p.hold = gems_hold_for(c, vectors < 512 * 4 ? vectors : 512 * 4);
    p.hold.spare = 0;
    const int64_t units = p.results * p.cut.splits;
    const spread s = {0, (size_t)((units + p.hold.rows - 1) / p.hold.rows), (size_t)p.hold.lanes, (size_t)p.hold.rows,
                      2};
    launch_spread(c, &p, &s);
}

/* A group's items have so many results each that their states fill 32 KiB of local memory, or what there is. Tiles are
 * as wide as leaves every multiprocessor two groups of 1024 items, at least 64 bytes; then the terms are cut. */
static void launch_wide_across(const gems_choice *c)
{
    problem p = *(const problem *)c->problem;
    const int64_t each = GEMS_WIDE / gems_dtypes[p.input->dtype].size, units = c->device->compute_units;
    const size_t state = 2 * gems_dtypes[p.types.acc].size;
    int64_t group = 4096 / each < 1024 ? 4096 / each : 1024, columns, stride;
    group = (int64_t)gems_group(c->device, (size_t)group);
    while ((size_t)(group * each) * state > c->device->local_bytes && group > each)
        group /= 2;
    gems_nest_split_inner(&p.kept, &columns, &stride);
    const int64_t rows = p.results / columns, vectors = columns / each, wanted = 2 * units * 1024 / group;
    int64_t lanes = 32;
    while (lanes > 4 && (lanes > vectors || rows * ((vectors + lanes - 1) / lanes) < wanted))
        lanes /= 2;
    lanes = gems_rule_param(c->call->rule, "lanes", lanes);
    /* Each of the results of a tile needs an item to store it. */
    p.hold = (gems_hold){.lanes = 1, .rows = group, .held = gems_rule_param(c->call->rule, "held", each > 8 ? 2 : 4)};
    for (; 2 * p.hold.lanes <= lanes && 2 * p.hold.lanes * each <= group; p.hold.rows /= 2)
        p.hold.lanes *= 2;
    const int64_t tiles = rows * ((vectors + p.hold.lanes - 1) / p.hold.lanes), each_time = p.hold.rows * p.hold.held;
    const int64_t parts = each_time > 0 ? p.cut.outer_count * p.cut.n / each_time : 1;
    gems_reduce_cut_into(&p.cut,
                         gems_rule_param(c->call->rule, "splits", wanted / tiles < parts ? wanted / tiles : parts));
    const spread s = {columns, (size_t)(tiles * p.cut.splits), (size_t)p.hold.lanes, (size_t)p.hold.rows, 2};
    launch_spread(c, &p, &s);
}

static bool can_column(const gems_choice *c)
{
    return side_by_side(c->problem, CPU_COLUMNS);
}
static bool can_across(const gems_choice *c)
{
    return side_by_side(c->problem, TILE);
}

static bool can_wide(const gems_choice *c)
{
    const problem *p = c->problem;
    return p->cut.stride == 1 && p->cut.n * gems_dtypes[p->input->dtype].size >= GEMS_WIDE &&
           gems_wide_rows(p->input, &p->kept) && gems_wide_rows(p->input, &p->cut.outer);
}
/* Terms are apart by whole vectors, too. */
static bool can_wide_across(const gems_choice *c)
{
    const problem *p = c->problem;
    const int64_t element = gems_dtypes[p->input->dtype].size;
    gems_nest outside = p->kept;
    int64_t columns, stride;
    if (!side_by_side(p, 4 * GEMS_WIDE / element))
        return false;
    gems_nest_split_inner(&outside, &columns, &stride);
    return columns * element % GEMS_WIDE == 0 && p->cut.stride * element % GEMS_WIDE == 0 &&
           gems_wide_rows(p->input, &outside) && gems_wide_rows(p->input, &p->cut.outer);
}

static const gems_variant variants[] = {
    [COLUMN] = {"column", "16 neighbouring results, side by side in the input", .params = {GEMS_SPLITS},
                .can = can_column, .suits = gems_suits_cpu, .launch = launch},
    [RUN] = {"run", NULL, .params = {GEMS_SPLITS}, .suits = gems_suits_cpu, .launch = launch},
    [WIDE_ACROSS] = {"wide_across", "16 such results, all of whole 16 bytes",
                     .params = {{"lanes", 1, 32, 1, 0}, {"held", 1, 8, 1, 0}, GEMS_SPLITS}, .can = can_wide_across,
                     .suits = gems_suits_gpu, .launch = launch_wide_across},
    [WIDE] = {"wide", "dense terms, rows that begin at 16 bytes",
              .params = {{"lanes", 1, 1024, 1, 0}, {"held", 1, 8, 1, 0}, GEMS_SPLITS}, .can = can_wide,
              .suits = gems_suits_gpu, .launch = launch_wide},
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
