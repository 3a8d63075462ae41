/* Reductions to one value: sum, mean, amax, prod, any, count_nonzero, ... What is special about each stands in its row
 * of shim/ops.json, whose fields kernels/reduce/fields explains; everything else (which dims, keepdim, dtype, out
 * forms) follows from the schema. */
#include "kernels/reduce/reduce.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

static const char *attr(const gems_call *call, const char *key, const char *fallback)
{
    const char *value = gems_op_attr(call->op, key);
    return value ? value : fallback;
}

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
static gems_dtype acc_dtype(const gems_call *call, gems_dtype from)
{
    const char *acc = attr(call, "acc", "same");
    if (strcmp(acc, "i64") == 0 || (strcmp(acc, "wide") == 0 && gems_dtypes[from].category != GEMS_CAT_FLOAT))
        return GEMS_I64;
    if (from == GEMS_F16 || from == GEMS_BF16)
        return GEMS_F32;
    return from == GEMS_BOOL ? GEMS_U8 : from;
}

/* A reduction with its results made. */
typedef struct problem {
    const gems_tensor *input, *output;
    gems_dtype in, from, acc, out;
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

/* Kernels of reduce.cl. */
static const char RUN[] = "run", COLUMN[] = "column", GROUP[] = "group", ACROSS[] = "across", MERGE[] = "merge";

typedef struct text {
    const gems_call *call;
    const problem *p;
    int group;
    bool dense, part;
} text;

static void write_defines(const void *what, char *out, size_t n)
{
    const text *t = what;
    const gems_call *call = t->call;
    const problem *p = t->p;
    bool compensated = gems_op_attr(call->op, "compensated") && gems_dtypes[p->acc].category == GEMS_CAT_FLOAT;
    snprintf(out, n,
             "#define GROUP %d\n#define IN %s\n#define C %s\n#define A %s\n#define OUT %s\n#define O %s\n%s%s%s"
             "#define LOWEST %s\n#define HIGHEST %s\n#define IDENTITY ((A)(%s))\n#define MAP_(x, zero, one) (%s)\n"
             "#define COMBINE(a, b) (%s)\n#define FINISH_(a, n) (%s)\n",
             t->group, gems_dtypes[p->in].name, gems_dtypes[p->from].compute, gems_dtypes[p->acc].compute,
             gems_dtypes[p->out].name, gems_dtypes[p->out].compute, t->part ? "#define PART\n" : "",
             t->dense ? "#define DENSE_ROWS\n" : "", compensated ? "#define COMPENSATED\n" : "", lowest[p->acc],
             highest[p->acc], attr(call, "identity", "0"), attr(call, "map", "x"), attr(call, "combine", "a + b"),
             attr(call, "finish", "a"));
}

static gems_kernel *kernel_for(const gems_call *call, gems_work *work, const problem *p, const char *k, int group)
{
    text t = {call, p, group, p->cut.stride == 1, p->cut.splits > 1 && k != MERGE};
    gems_kernel_id id = {
        "kernels/reduce/reduce.cl",
        k,
        call->op,
        {(uint64_t)(p->in << 16 | p->from << 12 | p->acc << 8 | p->out << 4 | t.dense << 1 | t.part), (uint64_t)group}};
    return gems_kernel_for(work, &id, write_defines, &t);
}

enum {
    BAND = 256,      /* results that `column` does together, as in reduce.cl */
    TILE = 32,       /* and `across`, as far as a group is that wide */
    CPU_COLUMNS = 16 /* fewer are not worth `column` */
};

/* How many neighbouring results lie side by side in the input too; 0 if that is no help. */
static int64_t side_by_side(const problem *p, int64_t least)
{
    int64_t last = p->kept.rank - 1;
    return last < 0 || p->kept.stride[last] != 1 || p->kept.size[last] < least || p->cut.stride == 1
               ? 0
               : p->kept.size[last];
}

/* One pass over the input, and where it was cut one over the parts. `tile`: results that are done together; 0: one. */
static void reduce(const gems_call *call, gems_work *work, const problem *given, const char *k, int64_t tile)
{
    const gems_device_info *device = gems_device_get(work->lane);
    problem p = *given;
    int64_t columns = 0, stride;
    bool cpu = k == RUN || k == COLUMN;
    if (tile)
        gems_nest_split_inner(&p.kept, &columns, &stride);
    int64_t rows = columns ? p.results / columns : p.results, tiles = columns ? (columns + tile - 1) / tile : 1;
    gems_reduce_cut(&p.cut, call, device, rows * tiles);
    int64_t units = rows * tiles * p.cut.splits;
    bool cut = p.cut.splits > 1;
    /* States of at most two numbers each. */
    gems_arg parts = GEMS_SCRATCH(
        cut ? gems_work_scratch(work, (size_t)(p.results * p.cut.splits) * 2 * gems_dtypes[p.acc].size) : 0);
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
    if (cpu) {
        size_t global = (size_t)gems_cpu_items(device, units), local = 1;
        gems_launch(work, kernel_for(call, work, &p, k, 0), 1, &global, &local, args, nargs);
    } else if (tile > 0) {
        size_t group = gems_group(device, 256), local[2] = {(size_t)tile, group / (size_t)tile};
        size_t global[2] = {(size_t)units * local[0], local[1]};
        gems_launch(work, kernel_for(call, work, &p, k, (int)group), 2, global, local, args, nargs);
    } else {
        size_t local = gems_group(device, 256), global = (size_t)units * local;
        gems_launch(work, kernel_for(call, work, &p, k, (int)local), 1, &global, &local, args, nargs);
    }
    if (cut) {
        size_t local = cpu ? 1 : gems_group(device, 32), global = (size_t)p.results * local;
        gems_arg merged[] = {parts, GEMS_OUT_ARG(p.output), GEMS_VALUE(p.results), GEMS_VALUE(p.cut.splits),
                             GEMS_VALUE(p.total)};
        gems_launch(work, kernel_for(call, work, &p, MERGE, (int)local), 1, &global, &local, merged, 5);
    }
}

static void launch_column(gems_call *call, gems_work *work, const void *p)
{
    reduce(call, work, p, COLUMN, BAND);
}
static void launch_run(gems_call *call, gems_work *work, const void *p)
{
    reduce(call, work, p, RUN, 0);
}
static void launch_across(gems_call *call, gems_work *work, const void *p)
{
    reduce(call, work, p, ACROSS, (int64_t)gems_group(gems_device_get(work->lane), TILE));
}
static void launch_group(gems_call *call, gems_work *work, const void *p)
{
    reduce(call, work, p, GROUP, 0);
}

static bool can_column(const gems_call *call, const gems_device_info *device, const void *p)
{
    (void)call;
    (void)device;
    return side_by_side(p, CPU_COLUMNS) > 0;
}
static bool can_across(const gems_call *call, const gems_device_info *device, const void *p)
{
    (void)call;
    (void)device;
    return side_by_side(p, TILE) > 0;
}

#define SPLITS                                                                                                         \
    {                                                                                                                  \
        {                                                                                                              \
            "splits", 1, 4096, 1, 0                                                                                    \
        }                                                                                                              \
    }
static const gems_variant variants[] = {
    {"column", "16 neighbouring results, side by side in the input", .params = SPLITS, .can = can_column,
     .suits = gems_suits_cpu, .launch = launch_column},
    {"run", NULL, .params = SPLITS, .suits = gems_suits_cpu, .launch = launch_run},
    {"across", "32 such results", .params = SPLITS, .can = can_across, .suits = gems_suits_gpu,
     .launch = launch_across},
    {"group", NULL, .params = SPLITS, .suits = gems_suits_gpu, .launch = launch_group},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_tensor *in = call->arg[0].tensor;
    if (!gems_device_get(work->lane)->f64 && (in->dtype == GEMS_F64 || r->from == GEMS_F64))
        return gems_decline(call, "device has no f64");
    problem p = {.input = in,
                 .in = in->dtype,
                 .from = (gems_dtype)r->from,
                 .acc = acc_dtype(call, (gems_dtype)r->from),
                 .out = (gems_dtype)r->to,
                 .total = call->sizes.v[GEMS_SIZE_COLS],
                 .results = call->sizes.v[GEMS_SIZE_ROWS]};
    if (!gems_nest_dims(in, ~r->dims, &p.kept) || !gems_nest_dims(in, r->dims, &p.cut.outer))
        return gems_decline(call, "rank above 8");
    gems_nest_sort(&p.cut.outer);
    gems_nest_split_inner(&p.cut.outer, &p.cut.n, &p.cut.stride);
    p.cut.outer_count = gems_nest_count(&p.cut.outer);
    p.output = gems_reduce_result(call, 0, p.out, r);
    return p.output ? gems_launch_variant(call, work, &p) : GEMS_DECLINED;
}

const gems_family gems_family_reduce = {
    .name = "reduce", .plan = plan, .prepare = prepare, .variants = variants, .small_numel = 65536};
