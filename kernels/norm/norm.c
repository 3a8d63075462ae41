/* Layer norm and RMS norm over the trailing dimensions. A row of shim/ops.json may say "center": subtract the mean
 * (layer norm). Results after the first are the saved mean and rstd, or rstd alone where there are two. */
#include "kernels/family.h"
#include "kernels/tensor/nest.h"
#include "kernels/work/launcher.h"
#include "tune/table.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

/* What plan() found. */
struct found {
    double eps;
    uint8_t outer_dims; /* leading dimensions: one row each */
    uint8_t weight_dtype, stats_dtype;
    bool weight, bias;
};

/* A weight or bias: absent, or contiguous with the normalized shape. All of one dtype, the input's or f32. */
static gems_status check_affine(gems_call *call, const gems_value *v, const gems_tensor *in, struct found *f, bool *has)
{
    *has = v->kind == GEMS_TENSOR;
    if (v->kind == GEMS_NONE)
        return GEMS_OK;
    int inner = in->ndim - f->outer_dims;
    if (!*has || v->tensor->ndim != inner || !gems_tensor_is_contiguous(v->tensor) ||
        memcmp(v->tensor->sizes, in->sizes + f->outer_dims, (size_t)inner * sizeof *in->sizes) != 0)
        return gems_decline(call, "weight or bias is not contiguous with the normalized shape");
    if (f->weight_dtype != GEMS_DTYPE_NONE && f->weight_dtype != v->tensor->dtype)
        return gems_decline(call, "weight and bias differ in dtype");
    f->weight_dtype = (uint8_t)v->tensor->dtype;
    return GEMS_OK;
}

static gems_status plan(gems_call *call)
{
    const gems_tensor *in = call->arg[0].tensor;
    const gems_value *shape = &call->arg[1], *eps = gems_call_arg(call, "eps");
    if (call->arg[0].kind != GEMS_TENSOR || in->dtype == GEMS_DTYPE_NONE ||
        gems_dtypes[in->dtype].category != GEMS_CAT_FLOAT)
        return gems_decline(call, "dtype has no kernel");
    if (shape->kind != GEMS_INTS || shape->ints.n == 0 || (int64_t)shape->ints.n > in->ndim || in->numel == 0)
        return gems_decline(call, "empty, or no normalized shape");
    struct found f = {.outer_dims = (uint8_t)(in->ndim - (int)shape->ints.n), .weight_dtype = GEMS_DTYPE_NONE};
    if (in->ndim > 32 || memcmp(shape->ints.v, in->sizes + f.outer_dims, shape->ints.n * sizeof(int64_t)) != 0)
        return gems_decline(call, "normalized shape is not the input's");
    gems_status status = check_affine(call, gems_call_arg(call, "weight"), in, &f, &f.weight);
    if (status == GEMS_OK)
        status = check_affine(call, gems_call_arg(call, "bias"), in, &f, &f.bias);
    if (status != GEMS_OK)
        return status;
    bool center = gems_op_attr(call->op, "center"), half = in->dtype == GEMS_F16 || in->dtype == GEMS_BF16;
    f.stats_dtype = (uint8_t)in->dtype;
    if (f.weight_dtype != GEMS_DTYPE_NONE && f.weight_dtype != in->dtype) {
        if (!center || !half || f.weight_dtype != GEMS_F32)
            return gems_decline(call, "weight has another dtype than the input");
        f.stats_dtype = GEMS_F32;
    }
    if (!center) {
        f.stats_dtype = half ? GEMS_F32 : (uint8_t)in->dtype;
        if (in->ndim >= 4 && !gems_tensor_is_contiguous(in))
            return gems_decline(call, "the host may keep channels last");
    }
    if (eps->kind == GEMS_SCALAR_FLOAT)
        f.eps = eps->f;
    else if (eps->kind == GEMS_NONE)
        f.eps = in->dtype == GEMS_F64 ? DBL_EPSILON : FLT_EPSILON;
    else
        return gems_decline(call, "eps is not a number");

    int64_t n = 1;
    for (size_t i = 0; i < shape->ints.n; i++)
        n *= shape->ints.v[i];
    call->dtype = in->dtype;
    call->sizes.v[GEMS_SIZE_NUMEL] = in->numel;
    call->sizes.v[GEMS_SIZE_COLS] = n;
    call->sizes.v[GEMS_SIZE_ROWS] = in->numel / n;
    call->sizes.v[GEMS_SIZE_INNER] = 1;
    call->sizes.v[GEMS_SIZE_BYTES] = gems_size_bytes(gems_size_times(2, in->numel), in->dtype);
    memcpy(call->note, &f, sizeof f);
    return GEMS_OK;
}

static gems_kernel *kernel_for(const gems_call *call, gems_job *job, const struct found *f, bool mean, bool rstd,
                               bool dense, const char *entry, const char *guard, int group)
{
    unsigned what = f->weight | f->bias << 1 | mean << 2 | rstd << 3 | dense << 4;
    uint64_t key = gems_key((uintptr_t)guard, (uint64_t)call->op->index << 32 | (uint32_t)group);
    key = gems_key(key, (uint64_t)call->dtype << 24 | f->weight_dtype << 16 | f->stats_dtype << 8 | what);
    gems_kernel *kernel = gems_kernel_find(job, key);
    if (kernel)
        return kernel;
    char defines[512];
    snprintf(defines, sizeof defines,
             "#define %s\n#define GROUP %d\n#define IN %s\n#define T %s\n#define W %s\n#define S %s\n%s%s%s%s%s%s",
             guard, group, gems_dtypes[call->dtype].name, gems_dtypes[call->dtype].compute,
             f->weight_dtype < GEMS_DTYPE_NONE ? gems_dtypes[f->weight_dtype].name : "f32",
             gems_dtypes[f->stats_dtype].name, gems_op_attr(call->op, "center") ? "#define CENTER\n" : "",
             f->weight ? "#define WEIGHT\n" : "", f->bias ? "#define BIAS\n" : "", mean ? "#define MEAN\n" : "",
             rstd ? "#define RSTD\n" : "", dense ? "#define DENSE_ROWS\n" : "");
    return gems_kernel_build_file(job, key, call->op->strukt, defines, "kernels/norm/norm.cl", entry);
}

/* Smallest group of at least a quarter of the row, from 32 to 256. */
static size_t group_for(const gems_device_info *device, int64_t n)
{
    size_t group = 32;
    while (group < 256 && (int64_t)group * 4 < n && group * 2 <= device->max_group)
        group *= 2;
    while (group > device->max_group)
        group /= 2;
    return group;
}

static gems_status run(gems_call *call)
{
    struct found f;
    memcpy(&f, call->note, sizeof f);
    const gems_tensor *in = call->arg[0].tensor;
    gems_lane lane = gems_lane_for(call);
    const gems_device_info *device = gems_device_get(lane);
    if (in->dtype == GEMS_F64 && !device->f64)
        return gems_decline(call, "device has no f64");
    int64_t rows = call->sizes.v[GEMS_SIZE_ROWS], n = call->sizes.v[GEMS_SIZE_COLS], one, stride;
    uint64_t outer = ((uint64_t)1 << f.outer_dims) - 1, all = ((uint64_t)1 << in->ndim) - 1;
    gems_nest kept, row;
    if (!gems_nest_dims(in, outer, &kept) || !gems_nest_dims(in, all & ~outer, &row) || row.rank > 1)
        return gems_decline(call, "normalized dimensions are not one walk through memory");
    gems_nest_split_inner(&row, &one, &stride);

    int64_t stats[32];
    for (int d = 0; d < in->ndim; d++)
        stats[d] = d < f.outer_dims ? in->sizes[d] : 1;
    gems_dtype s = (gems_dtype)f.stats_dtype;
    unsigned results = call->op->nresults;
    gems_tensor *out = gems_call_result(call, 0, in->dtype, in->ndim, in->sizes, NULL), *mean = NULL, *rstd = NULL;
    if (!out || (results == 3 && !(mean = gems_call_result(call, 1, s, in->ndim, stats, NULL))) ||
        (results >= 2 && !(rstd = gems_call_result(call, results - 1, s, in->ndim, stats, NULL))))
        return GEMS_DECLINED;

    gems_job *job = gems_job_begin(call, lane);
    float eps = (float)f.eps;
    gems_arg args[12] = {GEMS_IN(in),
                         GEMS_OUT_ARG(out),
                         GEMS_VALUE(kept),
                         GEMS_VALUE(rows),
                         GEMS_VALUE(n),
                         GEMS_VALUE(stride),
                         in->dtype == GEMS_F64 ? GEMS_VALUE(f.eps) : GEMS_VALUE(eps)};
    int nargs = 7;
    if (f.weight)
        args[nargs++] = GEMS_IN(gems_call_arg(call, "weight")->tensor);
    if (f.bias)
        args[nargs++] = GEMS_IN(gems_call_arg(call, "bias")->tensor);
    if (mean)
        args[nargs++] = GEMS_OUT_ARG(mean);
    if (rstd)
        args[nargs++] = GEMS_OUT_ARG(rstd);
    if (gems_one_item_runs(call, device)) {
        size_t global = (size_t)gems_cpu_items(device, rows), local = 1;
        gems_launch(job, kernel_for(call, job, &f, mean, rstd, stride == 1, "run", "RUN", 0), 1, &global, &local, args,
                    nargs);
    } else {
        size_t local = group_for(device, n), global = (size_t)rows * local;
        gems_kernel *kernel = kernel_for(call, job, &f, mean, rstd, false, "group", "GROUP_", (int)local);
        gems_launch(job, kernel, 1, &global, &local, args, nargs);
    }
    return gems_job_end(job);
}

const gems_family gems_family_norm = {
    .name = "norm", .plan = plan, .run = run, .variants = "group", .params = "lane[0..1]"};
