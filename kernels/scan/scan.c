/* Scans along one dimension: cumsum. A row of shim/ops.json gives "combine" and "identity" (as for reductions),
 * "compensated" where combine is a sum, and "result": "sum" (the dtype argument, else i64 for integers).
 *
 * f32 accumulates in f64, as the host does, or with its rounding errors kept where the device has no f64. */
#include "kernels/reduce/reduce.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

static gems_status plan(gems_call *call)
{
    gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_value *dim = gems_call_arg(call, "dim");
    *r = (gems_reduction){.keepdim = true};
    if (dim->kind != GEMS_SCALAR_INT)
        return gems_decline(call, "dim is not a plain number");
    gems_status status = gems_reduce_dims(call, r);
    if (status == GEMS_OK)
        status = gems_reduce_dtypes(call, r);
    if (status != GEMS_OK)
        return status;
    if (r->to == GEMS_BOOL)
        return gems_decline(call, "a scan into bool is an error on the host");
    const gems_tensor *in = call->arg[0].tensor;
    int64_t inner = 1;
    for (int d = gems_wrap_dim(dim->i, in->ndim) + 1; d < in->ndim; d++)
        inner *= in->sizes[d];
    call->sizes.v[GEMS_SIZE_INNER] = inner;
    int64_t *bytes = &call->sizes.v[GEMS_SIZE_BYTES];
    *bytes = gems_size_plus(*bytes, gems_size_bytes(in->numel, (gems_dtype)r->to));
    return GEMS_OK;
}

/* A scan with its result made. */
typedef struct problem {
    const gems_tensor *in, *out;
    gems_dtype acc;
    bool compensated, side_by_side; /* neighbouring rows lie side by side */
    gems_nest kept;
    int64_t rows, n, stride, inner;
} problem;

static void choose_types(problem *p, const gems_call *call, const gems_device_info *device)
{
    gems_dtype out = p->out->dtype;
    p->acc = out;
    if (gems_dtypes[out].category != GEMS_CAT_FLOAT)
        p->acc = GEMS_I64;
    else if (out == GEMS_F32 && device->f64)
        p->acc = GEMS_F64;
    else if (out != GEMS_F64)
        p->acc = GEMS_F32;
    p->compensated = gems_op_attr(call->op, "compensated") && p->acc == out && p->acc == GEMS_F32;
}

typedef struct text {
    const gems_call *call;
    const problem *p;
    int group;
    bool dense;
} text;

static void write_defines(const void *what, char *out, size_t n)
{
    const text *t = what;
    const problem *p = t->p;
    const char *combine = gems_op_attr(t->call->op, "combine"), *identity = gems_op_attr(t->call->op, "identity");
    snprintf(out, n,
             "#define GROUP %d\n#define IN %s\n#define OUT %s\n#define T %s\n#define A %s\n%s%s"
             "#define COMBINE(a, b) (%s)\n#define IDENTITY ((A)(%s))\n",
             t->group, gems_dtypes[p->in->dtype].name, gems_dtypes[p->out->dtype].name,
             gems_dtypes[p->out->dtype].compute, gems_dtypes[p->acc].compute,
             p->compensated ? "#define COMPENSATED\n" : "", t->dense ? "#define DENSE_ROWS\n" : "",
             combine ? combine : "a + b", identity ? identity : "0");
}

/* A row is cut where there are fewer rows than cores and a part is long enough to be worth reading twice. */
typedef struct cut {
    int64_t splits, chunk;
    int totals; /* scratch */
} cut;

static void launch(const gems_call *call, gems_work *work, const problem *p, const char *entry, size_t global,
                   size_t local, const cut *c)
{
    gems_arg args[10] = {GEMS_IN(p->in),   GEMS_OUT_ARG(p->out),  GEMS_VALUE(p->kept), GEMS_VALUE(p->rows),
                         GEMS_VALUE(p->n), GEMS_VALUE(p->stride), GEMS_VALUE(p->inner)};
    int nargs = 7;
    if (c) {
        args[nargs++] = GEMS_SCRATCH(c->totals);
        args[nargs++] = GEMS_VALUE(c->splits);
        args[nargs++] = GEMS_VALUE(c->chunk);
    }
    /* `column` walks 16 neighbouring rows, which are dense together. */
    bool dense = (p->stride == 1 && p->inner == 1) || strcmp(entry, "column") == 0;
    text t = {call, p, (int)local, dense};
    gems_kernel_id id = {"kernels/scan/scan.cl",
                         entry,
                         call->op,
                         {(uint64_t)(dense << 24 | p->in->dtype << 16 | p->out->dtype << 8 | p->acc), local}};
    gems_launch(work, gems_kernel_for(work, &id, write_defines, &t), 1, &global, &local, args, nargs);
}

static void launch_column(gems_call *call, gems_work *work, const void *problem_)
{
    const problem *p = problem_;
    int64_t units = p->rows / p->inner * ((p->inner + 15) / 16);
    launch(call, work, p, "column", (size_t)gems_cpu_items(gems_device_get(work->lane), units), 1, NULL);
}

static void launch_run(gems_call *call, gems_work *work, const void *problem_)
{
    const problem *p = problem_;
    const gems_device_info *device = gems_device_get(work->lane);
    int64_t wanted = device->compute_units > 1 ? 2 * (int64_t)device->compute_units / p->rows : 1;
    if (wanted > p->n / 65536)
        wanted = p->n / 65536;
    wanted = gems_rule_param(call->rule, "splits", wanted);
    cut c = {.chunk = wanted > 1 ? (p->n + wanted - 1) / wanted : p->n};
    c.splits = (p->n + c.chunk - 1) / c.chunk;
    c.totals = gems_work_scratch(work, (size_t)(p->rows * c.splits) * gems_dtypes[p->acc].size);
    if (c.splits > 1)
        launch(call, work, p, "part", (size_t)(p->rows * c.splits), 1, &c);
    launch(call, work, p, "run", (size_t)gems_cpu_items(device, p->rows * c.splits), 1, &c);
}

static void launch_item(gems_call *call, gems_work *work, const void *problem_)
{
    const problem *p = problem_;
    size_t group = gems_group(gems_device_get(work->lane), 256);
    launch(call, work, p, "item", ((size_t)p->rows + group - 1) / group * group, group, NULL);
}

static void launch_group(gems_call *call, gems_work *work, const void *problem_)
{
    const problem *p = problem_;
    size_t group = gems_group(gems_device_get(work->lane), 256);
    launch(call, work, p, "group", (size_t)p->rows * group, group, NULL);
}

static bool can_column(const gems_call *call, const gems_device_info *device, const void *problem_)
{
    const problem *p = problem_;
    (void)call;
    (void)device;
    return p->side_by_side && p->inner >= 8;
}
static bool suits_item(const gems_call *call, const gems_device_info *device, const void *problem_)
{
    const problem *p = problem_;
    (void)call;
    return !device->is_cpu && ((p->side_by_side && p->inner >= 32) || p->n <= 16);
}

static const gems_variant variants[] = {
    {"column", "8 neighbouring rows, side by side in the input", .can = can_column, .suits = gems_suits_cpu,
     .launch = launch_column},
    {"run", NULL, .params = {{"splits", 1, 4096, 1, 0}}, .suits = gems_suits_cpu, .launch = launch_run},
    {"item", .suits = suits_item, .launch = launch_item},
    {"group", .suits = gems_suits_gpu, .launch = launch_group},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_tensor *in = call->arg[0].tensor;
    const gems_device_info *device = gems_device_get(work->lane);
    if (!device->f64 && (in->dtype == GEMS_F64 || r->to == GEMS_F64))
        return gems_decline(call, "device has no f64");
    problem p = {.in = in,
                 .rows = call->sizes.v[GEMS_SIZE_ROWS],
                 .n = call->sizes.v[GEMS_SIZE_COLS],
                 .inner = call->sizes.v[GEMS_SIZE_INNER],
                 .stride = 1};
    int dim = gems_wrap_dim(gems_call_arg(call, "dim")->i, in->ndim);
    if (in->ndim)
        p.stride = in->strides[dim];
    gems_nest inside;
    uint64_t after = ~(((uint64_t)2 << dim) - 1);
    if (!gems_nest_dims(in, ~r->dims, &p.kept) || !gems_nest_dims(in, after, &inside))
        return gems_decline(call, "rank above 8");
    p.side_by_side = inside.rank == 1 && inside.stride[0] == 1;
    p.out = gems_call_result(call, 0, (gems_dtype)r->to, in->ndim, in->sizes, NULL);
    if (!p.out)
        return GEMS_DECLINED;
    if (call->op->form == GEMS_OUT &&
        (!gems_tensor_is_contiguous(p.out) || gems_tensor_overlap(in, p.out) != GEMS_APART))
        return gems_decline(call, "out is not contiguous, or overlaps the input");
    choose_types(&p, call, device);
    return gems_launch_variant(call, work, &p);
}

const gems_family gems_family_scan = {
    .name = "scan", .plan = plan, .prepare = prepare, .variants = variants, .small_numel = 65536};
