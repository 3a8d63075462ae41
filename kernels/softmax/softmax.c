/* Softmax and log_softmax along one dimension, forward and backward. A row of shim/ops.json gives the expressions of
 * softmax.cl: "row", "finish", for backward also "term"; and "keep" where the first exponentials can be kept. */
#include "kernels/family.h"
#include "kernels/tensor/nest.h"
#include "kernels/work/launcher.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

/* What plan() found. */
struct found {
    uint8_t dim, out, backward;
};

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
    struct found f = {.dim = (uint8_t)d, .out = (uint8_t)in->dtype, .backward = second->kind == GEMS_TENSOR};
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
    memcpy(call->note, &f, sizeof f);
    return GEMS_OK;
}

static gems_kernel *kernel_for(const gems_call *call, gems_job *job, const struct found *f, bool dense,
                               const char *entry, const char *guard, int group)
{
    uint64_t key = gems_key((uintptr_t)guard, (uint64_t)call->op->index << 32 | (uint32_t)group);
    key = gems_key(key, (uint64_t)call->dtype << 9 | dense << 8 | f->out);
    gems_kernel *kernel = gems_kernel_find(job, key);
    if (kernel)
        return kernel;
    const char *term = gems_op_attr(call->op, "term"), *row = gems_op_attr(call->op, "row");
    const char *finish = gems_op_attr(call->op, "finish");
    bool keep = gems_op_attr(call->op, "keep") && (f->out == GEMS_F32 || f->out == GEMS_F64);
    char defines[512];
    snprintf(defines, sizeof defines,
             "#define %s\n#define GROUP %d\n#define IN %s\n#define OUT %s\n#define T %s\n%s%s%s%s%s"
             "#define TERM (%s)\n#define ROW (%s)\n#define FINISH (%s)\n",
             guard, group, gems_dtypes[call->dtype].name, gems_dtypes[f->out].name, gems_dtypes[f->out].compute,
             f->backward ? "#define BACKWARD\n" : "", keep ? "#define KEEP\n" : "", dense ? "#define DENSE_ROWS\n" : "",
             gems_op_attr(call->op, "keep") ? "" : "#define E_UNUSED\n",
             !f->backward && f->out != GEMS_F64 ? "#define FAST_EXP\n" : "", term ? term : "e", row ? row : "s",
             finish ? finish : "e");
    return gems_kernel_build_file(job, key, call->op->strukt, defines, "kernels/softmax/softmax.cl", entry);
}

/* The variants of softmax.cl, and when each is the default. */
enum variant {
    RUN,
    COLUMN,
    GROUP,
    ITEM
};

static enum variant choose(const gems_call *call, const gems_device_info *device, bool side_by_side)
{
    int64_t n = call->sizes.v[GEMS_SIZE_COLS], inner = call->sizes.v[GEMS_SIZE_INNER];
    if (gems_one_item_runs(call, device))
        return inner >= 8 && side_by_side ? COLUMN : RUN;
    return (inner >= 32 && side_by_side) || n <= 32 ? ITEM : GROUP;
}

static gems_status run(gems_call *call)
{
    struct found f;
    memcpy(&f, call->note, sizeof f);
    const gems_tensor *in = call->arg[0].tensor;
    gems_lane lane = gems_lane_for(call);
    const gems_device_info *device = gems_device_get(lane);
    if (!device->f64 && (f.out == GEMS_F64 || in->dtype == GEMS_F64))
        return gems_decline(call, "device has no f64");
    int64_t rows = call->sizes.v[GEMS_SIZE_ROWS], n = call->sizes.v[GEMS_SIZE_COLS];
    int64_t inner = call->sizes.v[GEMS_SIZE_INNER], stride = in->ndim ? in->strides[f.dim] : 1;
    gems_nest kept, inside;
    uint64_t all = ((uint64_t)1 << in->ndim) - 1, dim = (uint64_t)1 << f.dim;
    if (!gems_nest_dims(in, all & ~dim, &kept) || !gems_nest_dims(in, all & ~(2 * dim - 1), &inside))
        return gems_decline(call, "rank above 8");
    gems_tensor *out = gems_call_result(call, 0, (gems_dtype)f.out, in->ndim, in->sizes, NULL);
    if (!out)
        return GEMS_DECLINED;
    if (call->op->form == GEMS_OUT && (!gems_tensor_is_contiguous(out) || gems_tensor_overlap(in, out) != GEMS_APART))
        return gems_decline(call, "out is not contiguous, or overlaps the input");

    gems_job *job = gems_job_begin(call, lane);
    gems_arg args[8];
    int nargs = 0;
    args[nargs++] = GEMS_IN(in);
    if (f.backward)
        args[nargs++] = GEMS_IN(call->arg[1].tensor);
    args[nargs++] = GEMS_OUT_ARG(out);
    args[nargs++] = GEMS_VALUE(kept);
    args[nargs++] = GEMS_VALUE(rows);
    args[nargs++] = GEMS_VALUE(n);
    args[nargs++] = GEMS_VALUE(stride);
    args[nargs++] = GEMS_VALUE(inner);
    bool side_by_side = inside.rank == 1 && inside.stride[0] == 1;
    size_t group = 256, global, local = 1;
    while (group > device->max_group)
        group /= 2;
    switch (choose(call, device, side_by_side)) {
    case RUN:
        global = (size_t)gems_cpu_items(device, rows);
        gems_launch(job, kernel_for(call, job, &f, stride == 1 && inner == 1, "run", "RUN", 0), 1, &global, &local,
                    args, nargs);
        break;
    case COLUMN:
        global = (size_t)gems_cpu_items(device, rows / inner * ((inner + 15) / 16));
        gems_launch(job, kernel_for(call, job, &f, true, "column", "COLUMN", 0), 1, &global, &local, args, nargs);
        break;
    case GROUP:
        local = group;
        global = (size_t)rows * group;
        gems_launch(job, kernel_for(call, job, &f, false, "group", "GROUP_", (int)group), 1, &global, &local, args,
                    nargs);
        break;
    case ITEM:
        local = group;
        global = ((size_t)rows + group - 1) / group * group;
        gems_launch(job, kernel_for(call, job, &f, false, "item", "ITEM", 0), 1, &global, &local, args, nargs);
        break;
    }
    return gems_job_end(job);
}

const gems_family gems_family_softmax = {
    .name = "softmax", .plan = plan, .run = run, .variants = "run group item", .params = "lane[0..1]"};
