/* Reductions to one value: sum, mean, amax, prod, any, count_nonzero, ... A row of shim/ops.json says what is special:
 *
 *   combine    two partial results a, b into one                            "a + b"
 *   identity   what combine leaves as it is: 0, 1, LOWEST, HIGHEST           "0"
 *   map        of an element x before combining (zero, one: of x's type)    "x", or "x != zero ? one : zero"
 *   finish     of the accumulated a over n elements                         "a", or "a / n"
 *   acc        type accumulated in: "same" as computed with, "wide" (integers in i64), "i64"
 *   result     "same", "sum" (the dtype argument, else i64 for integers), "float" (the dtype argument, else a floating
 *              dtype of the input; integers are the host's error), "bool" (u8 stays u8), "i64"
 *   compensated  combine is a sum: keep rounding errors
 *   no_dims    an empty list of dims reduces nothing (the host runs it)
 *
 * Everything else (which dims, keepdim, dtype, out forms) follows from the schema. */
#include "kernels/family.h"
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
    gems_reduction r;
    gems_status status = gems_reduce_dims(call, &r);
    if (status == GEMS_OK)
        status = gems_reduce_dtypes(call, &r);
    if (status != GEMS_OK)
        return status;
    int64_t *bytes = &call->sizes.v[GEMS_SIZE_BYTES];
    *bytes = gems_size_plus(*bytes, gems_size_bytes(call->sizes.v[GEMS_SIZE_ROWS], (gems_dtype)r.to));
    memcpy(call->note, &r, sizeof r);
    return GEMS_OK;
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

/* The pass over the input: what it reads and writes. */
struct pass {
    gems_dtype in, from, acc, out;
    gems_arg source, target;
    gems_nest kept;
    gems_cut cut;
    int64_t results, total;
};

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

static gems_kernel *kernel_for(const gems_call *call, gems_job *job, const struct pass *p, const char *entry,
                               const char *guard, int group)
{
    bool dense = p->cut.stride == 1, part = p->cut.splits > 1 && strcmp(entry, "merge") != 0;
    uint64_t key = gems_key(gems_key(0, (uintptr_t)guard), (uint64_t)call->op->index << 32 | (uint32_t)group);
    key = gems_key(key, (uint64_t)(p->in << 16 | p->from << 12 | p->acc << 8 | p->out << 4 | dense << 1 | part));
    gems_kernel *kernel = gems_kernel_find(job, key);
    if (kernel)
        return kernel;
    bool compensated = gems_op_attr(call->op, "compensated") && gems_dtypes[p->acc].category == GEMS_CAT_FLOAT;
    const char *acc = gems_dtypes[p->acc].compute;
    char defines[1024];
    snprintf(
        defines, sizeof defines,
        "#define %s\n#define GROUP %d\n#define IN %s\n#define C %s\n#define A %s\n#define OUT %s\n#define O %s\n%s%s%s"
        "#define LOWEST %s\n#define HIGHEST %s\n#define IDENTITY ((A)(%s))\n#define MAP_(x, zero, one) (%s)\n"
        "#define COMBINE(a, b) (%s)\n#define FINISH_(a, n) (%s)\n",
        guard, group, gems_dtypes[p->in].name, gems_dtypes[p->from].compute, acc, gems_dtypes[p->out].name,
        gems_dtypes[p->out].compute, part ? "#define PART\n" : "", dense ? "#define DENSE_ROWS\n" : "",
        compensated ? "#define COMPENSATED\n" : "", lowest[p->acc], highest[p->acc], attr(call, "identity", "0"),
        attr(call, "map", "x"), attr(call, "combine", "a + b"), attr(call, "finish", "a"));
    return gems_kernel_build_file(job, key, call->op->strukt, defines, "kernels/reduce/reduce.cl", entry);
}

enum {
    BAND = 256,
    TILE = 32
}; /* results together: `column`, `across` (as far as a group is that wide); as in reduce.cl */

/* Takes the dense results off the kept loops if a column kernel fits. */
static int64_t take_columns(struct pass *p, int64_t least)
{
    int64_t last = p->kept.rank - 1;
    if (last < 0 || p->kept.stride[last] != 1 || p->kept.size[last] < least || p->cut.stride == 1)
        return 0;
    int64_t columns, stride;
    gems_nest_split_inner(&p->kept, &columns, &stride);
    return columns;
}

static void launch(const gems_call *call, gems_job *job, struct pass *p, int64_t columns)
{
    const gems_device_info *device = gems_job_device(job);
    int64_t rows = columns ? p->results / columns : p->results;
    int64_t units = p->results * p->cut.splits, group = 256;
    while (group > (int64_t)device->max_group)
        group /= 2;
    gems_arg args[] = {p->source,
                       p->target,
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
                       GEMS_VALUE(columns)};
    if (gems_one_item_runs(call, device)) {
        if (columns)
            units = rows * ((columns + BAND - 1) / BAND) * p->cut.splits;
        size_t global = (size_t)gems_cpu_items(device, units), local = 1;
        gems_kernel *k =
            columns ? kernel_for(call, job, p, "column", "COLUMN", 0) : kernel_for(call, job, p, "run", "RUN", 0);
        gems_launch(job, k, 1, &global, &local, args, columns ? 14 : 13);
    } else if (columns) {
        int64_t tile = group < TILE ? group : TILE;
        size_t local[2] = {(size_t)tile, (size_t)(group / tile)};
        size_t global[2] = {(size_t)(rows * ((columns + tile - 1) / tile) * p->cut.splits * tile), local[1]};
        gems_launch(job, kernel_for(call, job, p, "across", "ACROSS", (int)group), 2, global, local, args, 14);
    } else {
        size_t local = (size_t)group, global = (size_t)(units * group);
        gems_launch(job, kernel_for(call, job, p, "group", "GROUP_", (int)group), 1, &global, &local, args, 13);
    }
}

/* Puts the parts of each result together. */
static void merge(const gems_call *call, gems_job *job, struct pass *p)
{
    const gems_device_info *device = gems_job_device(job);
    size_t local = gems_one_item_runs(call, device) ? 1 : 32, global;
    while (local > device->max_group)
        local /= 2;
    global = (size_t)p->results * local;
    gems_arg args[] = {p->source, p->target, GEMS_VALUE(p->results), GEMS_VALUE(p->cut.splits), GEMS_VALUE(p->total)};
    gems_launch(job, kernel_for(call, job, p, "merge", "MERGE", (int)local), 1, &global, &local, args, 5);
}

static gems_status run(gems_call *call)
{
    gems_reduction r;
    memcpy(&r, call->note, sizeof r);
    const gems_tensor *in = call->arg[0].tensor;
    gems_lane lane = gems_lane_for(call);
    const gems_device_info *device = gems_device_get(lane);
    if (!device->f64 && (in->dtype == GEMS_F64 || r.from == GEMS_F64))
        return gems_decline(call, "device has no f64");
    struct pass p = {.in = in->dtype,
                     .from = (gems_dtype)r.from,
                     .acc = acc_dtype(call, (gems_dtype)r.from),
                     .out = (gems_dtype)r.to};
    p.total = call->sizes.v[GEMS_SIZE_COLS];
    p.results = call->sizes.v[GEMS_SIZE_ROWS];
    if (!gems_nest_dims(in, ~r.dims, &p.kept) || !gems_nest_dims(in, r.dims, &p.cut.outer))
        return gems_decline(call, "rank above 8");
    gems_nest_sort(&p.cut.outer);
    gems_nest_split_inner(&p.cut.outer, &p.cut.n, &p.cut.stride);
    p.cut.outer_count = gems_nest_count(&p.cut.outer);
    int64_t columns = take_columns(&p, gems_one_item_runs(call, device) ? 16 : TILE);
    int64_t tile = gems_one_item_runs(call, device) ? BAND : TILE;
    gems_reduce_cut(&p.cut, call, device, columns ? p.results / columns * ((columns + tile - 1) / tile) : p.results);
    gems_tensor *out = gems_reduce_result(call, 0, p.out, &r);
    if (!out)
        return GEMS_DECLINED;

    gems_job *job = gems_job_begin(call, lane);
    p.source = GEMS_IN(in);
    p.target = GEMS_OUT_ARG(out);
    if (p.cut.splits > 1) {
        /* States of at most two numbers each. */
        int parts = gems_job_scratch(job, (size_t)(p.results * p.cut.splits) * 2 * gems_dtypes[p.acc].size);
        p.target = GEMS_SCRATCH(parts);
        launch(call, job, &p, columns);
        p.source = GEMS_SCRATCH(parts);
        p.target = GEMS_OUT_ARG(out);
        merge(call, job, &p);
    } else {
        launch(call, job, &p, columns);
    }
    return gems_job_end(job);
}

const gems_family gems_family_reduce = {
    .name = "reduce", .plan = plan, .run = run, .variants = "", .params = "lane[0..1] splits[1..4096]"};
