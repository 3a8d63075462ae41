/* Scans along one dimension: cumsum. A row of shim/ops.json gives "combine" and "identity" (as for reductions),
 * "compensated" where combine is a sum, and "result": "sum" (the dtype argument, else i64 for integers).
 *
 * f32 accumulates in f64, as the host does, or with its rounding errors kept where the device has no f64. */
#include "kernels/family.h"
#include "kernels/reduce/reduce.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

static gems_status plan(gems_call *call)
{
    gems_reduction r = {.keepdim = true};
    const gems_value *dim = gems_call_arg(call, "dim");
    if (dim->kind != GEMS_SCALAR_INT)
        return gems_decline(call, "dim is not a plain number");
    gems_status status = gems_reduce_dims(call, &r);
    if (status == GEMS_OK)
        status = gems_reduce_dtypes(call, &r);
    if (status != GEMS_OK)
        return status;
    if (r.to == GEMS_BOOL)
        return gems_decline(call, "a scan into bool is an error on the host");
    const gems_tensor *in = call->arg[0].tensor;
    int64_t inner = 1;
    for (int d = gems_wrap_dim(dim->i, in->ndim) + 1; d < in->ndim; d++)
        inner *= in->sizes[d];
    call->sizes.v[GEMS_SIZE_INNER] = inner;
    int64_t *bytes = &call->sizes.v[GEMS_SIZE_BYTES];
    *bytes = gems_size_plus(*bytes, gems_size_bytes(in->numel, (gems_dtype)r.to));
    memcpy(call->note, &r, sizeof r);
    return GEMS_OK;
}

struct types {
    gems_dtype in, out, acc;
    bool compensated;
};

static struct types types_for(const gems_call *call, const gems_reduction *r, const gems_device_info *device)
{
    struct types t = {.in = call->dtype, .out = (gems_dtype)r->to, .acc = (gems_dtype)r->to};
    if (gems_dtypes[t.out].category != GEMS_CAT_FLOAT)
        t.acc = GEMS_I64;
    else if (t.out == GEMS_F32 && device->f64)
        t.acc = GEMS_F64;
    else if (t.out != GEMS_F64)
        t.acc = GEMS_F32;
    t.compensated = gems_op_attr(call->op, "compensated") && t.acc == t.out && t.acc == GEMS_F32;
    return t;
}

static gems_kernel *kernel_for(const gems_call *call, gems_job *job, const struct types *t, bool dense,
                               const char *entry, const char *guard, int group)
{
    uint64_t key = gems_key((uintptr_t)guard, (uint64_t)call->op->index << 32 | (uint32_t)group);
    key = gems_key(key, (uint64_t)(dense << 24 | t->in << 16 | t->out << 8 | t->acc));
    gems_kernel *kernel = gems_kernel_find(job, key);
    if (kernel)
        return kernel;
    const char *combine = gems_op_attr(call->op, "combine"), *identity = gems_op_attr(call->op, "identity");
    char defines[512];
    snprintf(defines, sizeof defines,
             "#define %s\n#define GROUP %d\n#define IN %s\n#define OUT %s\n#define T %s\n#define A %s\n%s%s"
             "#define COMBINE(a, b) (%s)\n#define IDENTITY ((A)(%s))\n",
             guard, group, gems_dtypes[t->in].name, gems_dtypes[t->out].name, gems_dtypes[t->out].compute,
             gems_dtypes[t->acc].compute, t->compensated ? "#define COMPENSATED\n" : "",
             dense ? "#define DENSE_ROWS\n" : "", combine ? combine : "a + b", identity ? identity : "0");
    return gems_kernel_build_file(job, key, call->op->strukt, defines, "kernels/scan/scan.cl", entry);
}

/* The scan of one call: the arguments that all kernels take, in their order, and then those of a cut row. */
struct scan {
    const gems_tensor *in;
    gems_tensor *out;
    gems_nest kept;
    int64_t rows, n, stride, inner;
    int64_t splits, chunk;
    int totals; /* scratch */
};

enum {
    COMMON_ARGS = 7,
    CUT_ARGS = 10
};

static void launch(const gems_call *call, gems_job *job, const struct types *t, const struct scan *s, const char *entry,
                   const char *guard, size_t global, size_t local, int nargs)
{
    gems_arg args[CUT_ARGS] = {GEMS_IN(s->in),       GEMS_OUT_ARG(s->out),    GEMS_VALUE(s->kept),
                               GEMS_VALUE(s->rows),  GEMS_VALUE(s->n),        GEMS_VALUE(s->stride),
                               GEMS_VALUE(s->inner), GEMS_SCRATCH(s->totals), GEMS_VALUE(s->splits),
                               GEMS_VALUE(s->chunk)};
    bool dense = s->stride == 1 && s->inner == 1;
    if (strcmp(entry, "column") == 0)
        dense = true; /* 16 neighbouring rows are */
    gems_launch(job, kernel_for(call, job, t, dense, entry, guard, (int)local), 1, &global, &local, args, nargs);
}

static void launch_cpu(const gems_call *call, gems_job *job, const struct types *t, struct scan *s, bool side_by_side)
{
    const gems_device_info *device = gems_job_device(job);
    if (side_by_side && s->inner >= 8) {
        int64_t units = s->rows / s->inner * ((s->inner + 15) / 16);
        launch(call, job, t, s, "column", "COLUMN", (size_t)gems_cpu_items(device, units), 1, COMMON_ARGS);
        return;
    }
    /* A row is cut where there are fewer rows than cores and a part is long enough to be worth reading twice. */
    int64_t wanted = device->compute_units > 1 ? 2 * (int64_t)device->compute_units / s->rows : 1;
    if (wanted > s->n / 65536)
        wanted = s->n / 65536;
    wanted = gems_rule_param(call->rule, "splits", wanted);
    s->chunk = wanted > 1 ? (s->n + wanted - 1) / wanted : s->n;
    s->splits = (s->n + s->chunk - 1) / s->chunk;
    s->totals = gems_job_scratch(job, (size_t)(s->rows * s->splits) * gems_dtypes[t->acc].size);
    if (s->splits > 1)
        launch(call, job, t, s, "part", "PART", (size_t)(s->rows * s->splits), 1, CUT_ARGS);
    launch(call, job, t, s, "run", "RUN", (size_t)gems_cpu_items(device, s->rows * s->splits), 1, CUT_ARGS);
}

static void launch_gpu(const gems_call *call, gems_job *job, const struct types *t, struct scan *s, bool side_by_side)
{
    size_t group = 256;
    while (group > gems_job_device(job)->max_group)
        group /= 2;
    if ((side_by_side && s->inner >= 32) || s->n <= 16)
        launch(call, job, t, s, "item", "ITEM", ((size_t)s->rows + group - 1) / group * group, group, COMMON_ARGS);
    else
        launch(call, job, t, s, "group", "GROUP_", (size_t)s->rows * group, group, COMMON_ARGS);
}

static gems_status run(gems_call *call)
{
    gems_reduction r;
    memcpy(&r, call->note, sizeof r);
    const gems_tensor *in = call->arg[0].tensor;
    gems_lane lane = gems_lane_for(call);
    const gems_device_info *device = gems_device_get(lane);
    if (!device->f64 && (in->dtype == GEMS_F64 || r.to == GEMS_F64))
        return gems_decline(call, "device has no f64");
    struct scan s = {.in = in,
                     .rows = call->sizes.v[GEMS_SIZE_ROWS],
                     .n = call->sizes.v[GEMS_SIZE_COLS],
                     .inner = call->sizes.v[GEMS_SIZE_INNER],
                     .stride = 1};
    int dim = gems_wrap_dim(gems_call_arg(call, "dim")->i, in->ndim);
    if (in->ndim)
        s.stride = in->strides[dim];
    gems_nest inside;
    uint64_t after = ~(((uint64_t)2 << dim) - 1);
    if (!gems_nest_dims(in, ~r.dims, &s.kept) || !gems_nest_dims(in, after, &inside))
        return gems_decline(call, "rank above 8");
    s.out = gems_call_result(call, 0, (gems_dtype)r.to, in->ndim, in->sizes, NULL);
    if (!s.out)
        return GEMS_DECLINED;
    if (call->op->form == GEMS_OUT &&
        (!gems_tensor_is_contiguous(s.out) || gems_tensor_overlap(in, s.out) != GEMS_APART))
        return gems_decline(call, "out is not contiguous, or overlaps the input");

    struct types t = types_for(call, &r, device);
    gems_job *job = gems_job_begin(call, lane);
    bool side_by_side = inside.rank == 1 && inside.stride[0] == 1;
    if (gems_one_item_runs(call, device))
        launch_cpu(call, job, &t, &s, side_by_side);
    else
        launch_gpu(call, job, &t, &s, side_by_side);
    return gems_job_end(job);
}

const gems_family gems_family_scan = {
    .name = "scan", .plan = plan, .run = run, .variants = "group", .params = "lane[0..1] splits[1..4096]"};
