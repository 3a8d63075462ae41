/* Softmax and log_softmax along one dimension, forward and backward. A row of shim/ops.json gives the expressions of
 * softmax.cl: "row", "finish", for backward also "term"; and "keep" where the first exponentials can be kept. */
#include "kernels/tensor/nest.h"
#include "kernels/work/launcher.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

/* What plan() found. */
typedef struct found {
    uint8_t dim, out, backward;
} found;

static gems_status plan(gems_call *call)
{
    const gems_value *dim = gems_call_arg(call, "dim"), *dtype = gems_call_arg(call, "dtype");
    const gems_value *half_to_float = gems_call_arg(call, "half_to_float"), *second = &call->arg[1];
    const gems_tensor *in = call->arg[0].tensor;
    if (call->arg[0].kind != GEMS_TENSOR || dim->kind != GEMS_SCALAR_INT || in->dtype == GEMS_DTYPE_NONE)
        return gems_decline(call, "dtype has no kernel");
    int d = gems_wrap_dim(dim->i, in->ndim);
    if (in->numel == 0 || d < 0 || in->ndim > 32)
        return gems_decline(call, "empty, or dim out of range");
    if (half_to_float->kind == GEMS_SCALAR_BOOL && half_to_float->i)
        return gems_decline(call, "half_to_float is an error on the host");
    found f = {.dim = (uint8_t)d, .out = (uint8_t)in->dtype, .backward = second->kind == GEMS_TENSOR};
    if (dtype->kind == GEMS_DTYPE)
        f.out = (uint8_t)dtype->dtype;
    else if (dtype->kind != GEMS_NONE)
        return gems_decline(call, "dtype has no kernel");
    if (f.out >= GEMS_DTYPE_NONE || gems_dtypes[f.out].category != GEMS_CAT_FLOAT ||
        (f.out != in->dtype && f.out != GEMS_F32 && f.out != GEMS_F64))
        return gems_decline(call, "dtype has no kernel");
    if (f.backward) {
        const gems_value *input_dtype = gems_call_arg(call, "input_dtype");
        if (input_dtype->kind != GEMS_DTYPE || input_dtype->dtype != in->dtype || second->tensor->dtype != in->dtype ||
            second->tensor->ndim != in->ndim || second->tensor->numel != in->numel ||
            memcmp(second->tensor->sizes, in->sizes, (size_t)in->ndim * sizeof *in->sizes) != 0)
            return gems_decline(call, "gradient and output differ in dtype or shape");
        if (!gems_tensor_is_contiguous(second->tensor))
            return gems_decline(call, "output is not contiguous");
    }
    call->dtype = in->dtype;
    call->sizes.v[GEMS_SIZE_NUMEL] = in->numel;
    call->sizes.v[GEMS_SIZE_COLS] = in->ndim ? in->sizes[d] : 1;
    call->sizes.v[GEMS_SIZE_ROWS] = in->numel / call->sizes.v[GEMS_SIZE_COLS];
    int64_t inner = 1;
    for (int i = d + 1; i < in->ndim; i++)
        inner *= in->sizes[i];
    call->sizes.v[GEMS_SIZE_INNER] = inner;
    call->sizes.v[GEMS_SIZE_BYTES] =
        gems_size_times(in->numel, gems_dtypes[in->dtype].size * (f.backward ? 2 : 1) + gems_dtypes[f.out].size);
    *GEMS_PLAN(found, call) = f;
    return GEMS_OK;
}

/* A softmax with its result made. */
typedef struct problem {
    found f;
    const gems_tensor *in, *second, *out; /* second: the output, backward; else NULL */
    gems_nest kept;
    int64_t rows, n, stride, inner;
    bool side_by_side; /* neighbouring rows lie side by side */
} problem;

typedef struct text {
    const gems_call *call;
    const found *f;
    int group;
    bool dense;
} text;

static void write_defines(const void *what, char *out, size_t n)
{
    const text *t = what;
    const gems_op *op = t->call->op;
    const found *f = t->f;
    const char *term = gems_op_attr(op, "term"), *row = gems_op_attr(op, "row"), *finish = gems_op_attr(op, "finish");
    bool keep = gems_op_attr(op, "keep") && (f->out == GEMS_F32 || f->out == GEMS_F64);
    snprintf(out, n,
             "#define GROUP %d\n#define IN %s\n#define OUT %s\n#define T %s\n%s%s%s%s%s"
             "#define TERM (%s)\n#define ROW (%s)\n#define FINISH (%s)\n",
             t->group, gems_dtypes[t->call->dtype].name, gems_dtypes[f->out].name, gems_dtypes[f->out].compute,
             f->backward ? "#define BACKWARD\n" : "", keep ? "#define KEEP\n" : "",
             t->dense ? "#define DENSE_ROWS\n" : "", gems_op_attr(op, "keep") ? "" : "#define E_UNUSED\n",
             !f->backward && f->out != GEMS_F64 ? "#define FAST_EXP\n" : "", term ? term : "e", row ? row : "s",
             finish ? finish : "e");
}

/* group 0: any size. */
static void launch(const gems_call *call, gems_work *work, const problem *p, const char *entry, bool dense, int group,
                   size_t global, size_t local)
{
    text t = {call, &p->f, group, dense};
    gems_kernel_id id = {"kernels/softmax/softmax.cl",
                         entry,
                         call->op,
                         {(uint64_t)call->dtype << 9 | dense << 8 | p->f.out, (uint64_t)group}};
    gems_arg args[8] = {GEMS_IN(p->in)};
    int nargs = 1;
    if (p->second)
        args[nargs++] = GEMS_IN(p->second);
    args[nargs++] = GEMS_OUT_ARG(p->out);
    args[nargs++] = GEMS_VALUE(p->kept);
    args[nargs++] = GEMS_VALUE(p->rows);
    args[nargs++] = GEMS_VALUE(p->n);
    args[nargs++] = GEMS_VALUE(p->stride);
    args[nargs++] = GEMS_VALUE(p->inner);
    gems_launch(work, gems_kernel_for(work, &id, write_defines, &t), 1, &global, &local, args, nargs);
}

static void launch_column(gems_call *call, gems_work *work, const void *problem_)
{
    const problem *p = problem_;
    int64_t units = p->rows / p->inner * ((p->inner + 15) / 16);
    launch(call, work, p, "column", true, 0, (size_t)gems_cpu_items(gems_device_get(work->lane), units), 1);
}

static void launch_run(gems_call *call, gems_work *work, const void *problem_)
{
    const problem *p = problem_;
    launch(call, work, p, "run", p->stride == 1 && p->inner == 1, 0,
           (size_t)gems_cpu_items(gems_device_get(work->lane), p->rows), 1);
}

static void launch_item(gems_call *call, gems_work *work, const void *problem_)
{
    const problem *p = problem_;
    size_t group = gems_group(gems_device_get(work->lane), 256);
    launch(call, work, p, "item", false, 0, ((size_t)p->rows + group - 1) / group * group, group);
}

static void launch_group(gems_call *call, gems_work *work, const void *problem_)
{
    const problem *p = problem_;
    size_t group = gems_group(gems_device_get(work->lane), 256);
    launch(call, work, p, "group", false, (int)group, (size_t)p->rows * group, group);
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
    return !device->is_cpu && ((p->inner >= 32 && p->side_by_side) || p->n <= 32);
}

static const gems_variant variants[] = {
    {"column", "8 neighbouring rows, side by side in the input", .can = can_column, .suits = gems_suits_cpu,
     .launch = launch_column},
    {"run", .suits = gems_suits_cpu, .launch = launch_run},
    {"item", .suits = suits_item, .launch = launch_item},
    {"group", .suits = gems_suits_gpu, .launch = launch_group},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    problem p = {.f = *GEMS_PLAN(found, call),
                 .in = call->arg[0].tensor,
                 .rows = call->sizes.v[GEMS_SIZE_ROWS],
                 .n = call->sizes.v[GEMS_SIZE_COLS],
                 .inner = call->sizes.v[GEMS_SIZE_INNER]};
    const gems_tensor *in = p.in;
    if (!gems_device_get(work->lane)->f64 && (p.f.out == GEMS_F64 || in->dtype == GEMS_F64))
        return gems_decline(call, "device has no f64");
    p.second = p.f.backward ? call->arg[1].tensor : NULL;
    p.stride = in->ndim ? in->strides[p.f.dim] : 1;
    gems_nest inside;
    uint64_t all = ((uint64_t)1 << in->ndim) - 1, dim = (uint64_t)1 << p.f.dim;
    if (!gems_nest_dims(in, all & ~dim, &p.kept) || !gems_nest_dims(in, all & ~(2 * dim - 1), &inside))
        return gems_decline(call, "rank above 8");
    p.side_by_side = inside.rank == 1 && inside.stride[0] == 1;
    p.out = gems_call_result(call, 0, (gems_dtype)p.f.out, in->ndim, in->sizes, NULL);
    if (!p.out)
        return GEMS_DECLINED;
    if (call->op->form == GEMS_OUT &&
        (!gems_tensor_is_contiguous(p.out) || gems_tensor_overlap(in, p.out) != GEMS_APART))
        return gems_decline(call, "out is not contiguous, or overlaps the input");
    return gems_launch_variant(call, work, &p);
}

const gems_family gems_family_softmax = {
    .name = "softmax", .plan = plan, .prepare = prepare, .variants = variants, .small_numel = 65536};
