/* Layer norm and RMS norm over the trailing dimensions, group norm over groups of channels. A row of shim/ops.json may
 * say "center": subtract the mean (layer norm, group norm). Results after the first are the saved mean and rstd, or
 * rstd alone where there are two. */
#include "kernels/norm/norm.h"
#include "kernels/pointwise/end.h"
#include "kernels/work/wide.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

const char *gems_norm_split(const gems_value *input, const gems_value *shape, uint8_t *outer_dims, int64_t *n)
{
    const gems_tensor *in = input->tensor;
    if (input->kind != GEMS_TENSOR || in->dtype == GEMS_DTYPE_NONE || gems_dtypes[in->dtype].category != GEMS_CAT_FLOAT)
        return "dtype has no kernel";
    if (shape->kind != GEMS_INTS || shape->ints.n == 0 || (int64_t)shape->ints.n > in->ndim || in->numel == 0)
        return "empty, or no normalized shape";
    *outer_dims = (uint8_t)(in->ndim - (int)shape->ints.n);
    if (in->ndim > 32 || memcmp(shape->ints.v, in->sizes + *outer_dims, shape->ints.n * sizeof(int64_t)) != 0)
        return "normalized shape is not the input's";
    *n = 1;
    for (size_t i = 0; i < shape->ints.n; i++)
        *n *= shape->ints.v[i];
    return NULL;
}

const char *gems_norm_affine(const gems_value *v, const gems_value *shape, uint8_t *dtype)
{
    if (v->kind != GEMS_TENSOR || v->tensor->ndim != (int)shape->ints.n || !gems_tensor_is_contiguous(v->tensor) ||
        memcmp(v->tensor->sizes, shape->ints.v, shape->ints.n * sizeof(int64_t)) != 0)
        return "weight or bias is not contiguous with the normalized shape";
    if (*dtype != GEMS_DTYPE_NONE && *dtype != v->tensor->dtype)
        return "weight and bias differ in dtype";
    *dtype = (uint8_t)v->tensor->dtype;
    return NULL;
}

bool gems_norm_rows(const gems_tensor *t, int outer_dims, gems_nest *rows, int64_t *stride)
{
    const uint64_t outer = ((uint64_t)1 << outer_dims) - 1, all = ((uint64_t)1 << t->ndim) - 1;
    gems_nest row;
    int64_t n;
    if (!gems_nest_dims(t, outer, rows) || !gems_nest_dims(t, all & ~outer, &row) || row.rank > 1)
        return false;
    gems_nest_split_inner(&row, &n, stride);
    return true;
}

size_t gems_norm_group(const gems_device_info *device, int64_t n)
{
    size_t local = 32;
    while (local < 256 && (int64_t)local * 4 < n)
        local *= 2;
    return gems_group(device, local);
}

enum {
    LEAST_SPAN = 16 /* elements of a channel */
};

/* What plan() found. */
typedef struct found {
    double eps;
    uint8_t outer_dims; /* leading dimensions: one row each */
    uint8_t weight_dtype, stats_dtype;
    bool weight, bias;
    int64_t samples, groups, span; /* of group norm; groups: 0 in the others */
} found;

/* A group norm's numbers, which the host has checked where they come from group_norm, and what it does with dtypes. */
static const char *split_groups(const gems_call *call, found *f, int64_t *n)
{
    const gems_tensor *in = call->arg[0].tensor;
    const gems_value *group = gems_call_arg(call, "group"),
                     *affine[2] = {gems_call_arg(call, "weight"), gems_call_arg(call, "bias")};
    const gems_value *sizes[3] = {gems_call_arg(call, "N"), gems_call_arg(call, "C"), gems_call_arg(call, "HxW")};
    if (call->arg[0].kind != GEMS_TENSOR || in->dtype == GEMS_DTYPE_NONE ||
        gems_dtypes[in->dtype].category != GEMS_CAT_FLOAT || in->numel == 0)
        return "dtype has no kernel, or empty";
    for (int i = 0; i < 3; i++)
        if (sizes[i]->kind != GEMS_SCALAR_INT || sizes[i]->i <= 0 || sizes[i]->i > in->numel)
            return "no plain sizes";
    if (group->kind != GEMS_SCALAR_INT || group->i <= 0 || sizes[1]->i % group->i != 0 ||
        gems_size_times(gems_size_times(sizes[0]->i, sizes[1]->i), sizes[2]->i) != in->numel)
        return "sizes are not the input's";
    if (!gems_tensor_is_contiguous(in) || in->ndim < 2 || in->sizes[0] != sizes[0]->i || in->sizes[1] != sizes[1]->i)
        return "input is not contiguous";
    if (sizes[2]->i < LEAST_SPAN)
        return "channels are too short for vectors";
    for (int i = 0; i < 2; i++) {
        const gems_tensor *t = affine[i]->tensor;
        if (affine[i]->kind == GEMS_NONE)
            continue;
        if (affine[i]->kind != GEMS_TENSOR || t->ndim != 1 || t->numel != sizes[1]->i || !gems_tensor_is_contiguous(t))
            return "weight or bias is not one number for each channel";
        if (f->weight_dtype != GEMS_DTYPE_NONE && f->weight_dtype != t->dtype)
            return "weight and bias differ in dtype";
        f->weight_dtype = (uint8_t)t->dtype;
    }
    f->samples = sizes[0]->i;
    f->groups = group->i;
    f->span = sizes[2]->i;
    *n = sizes[1]->i / group->i * sizes[2]->i;
    return NULL;
}

static gems_status plan(gems_call *call)
{
    const gems_tensor *in = call->arg[0].tensor;
    const gems_value *shape = &call->arg[1], *eps = gems_call_arg(call, "eps");
    const gems_value *weight = gems_call_arg(call, "weight"), *bias = gems_call_arg(call, "bias");
    found f = {.weight_dtype = GEMS_DTYPE_NONE, .weight = weight->kind != GEMS_NONE, .bias = bias->kind != GEMS_NONE};
    int64_t n;
    const bool groups = gems_op_attr(call->op, "groups");
    const char *why = groups ? split_groups(call, &f, &n) : gems_norm_split(&call->arg[0], shape, &f.outer_dims, &n);
    if (!why && f.weight && !groups)
        why = gems_norm_affine(weight, shape, &f.weight_dtype);
    if (!why && f.bias && !groups)
        why = gems_norm_affine(bias, shape, &f.weight_dtype);
    if (why)
        return gems_decline(call, why);
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

    gems_call_rows(call, in->dtype, in->numel, n, gems_size_bytes(gems_size_times(2, in->numel), in->dtype));
    call->sizes.v[GEMS_SIZE_INNER] = 1;
    *GEMS_PLAN(found, call) = f;
    return GEMS_OK;
}

enum {
    RUN,
    WIDE,
    GROUP
};

/* A norm with its results made. */
typedef struct problem {
    const found *f;
    const gems_tensor *in, *weight, *bias, *out, *mean, *rstd; /* all but in and out may be NULL */
    gems_nest kept;
    int64_t rows, n, stride;
} problem;

static gems_hold hold_of(const gems_choice *c)
{
    const problem *p = c->problem;
    return gems_hold_for(c, p->n * gems_dtypes[p->in->dtype].size / GEMS_WIDE);
}

static void write_defines(const gems_choice *c, char *out, size_t n)
{
    const problem *p = c->problem;
    const found *f = p->f;
    const gems_dtype_info *in = &gems_dtypes[c->call->dtype];
    const int used =
        snprintf(out, n,
                 "#define IN %s\n#define T %s\n#define W %s\n#define S %s\n%s#define IF_WEIGHT(...) %s\n"
                 "#define IF_BIAS(...) %s\n#define IF_MEAN(...) %s\n#define IF_RSTD(...) %s\n%s",
                 in->name, in->compute, f->weight_dtype < GEMS_DTYPE_NONE ? gems_dtypes[f->weight_dtype].name : "f32",
                 gems_dtypes[f->stats_dtype].name, gems_op_attr(c->call->op, "center") ? "#define CENTER\n" : "",
                 gems_norm_if(p->weight), gems_norm_if(p->bias), gems_norm_if(p->mean), gems_norm_if(p->rstd),
                 f->groups ? "#define GROUPS\n" : "");
    if (gems_choice_index(c) == WIDE) {
        const gems_hold hold = hold_of(c);
        gems_hold_defines(&hold, out + used, n - (size_t)used);
    }
}

/* A row is one work-item's, one of several; or a group's, or a part's of it. */
static void launch(const gems_choice *c)
{
    const problem *p = c->problem;
    const bool run = gems_choice_index(c) == RUN, wide = gems_choice_index(c) == WIDE;
    const unsigned what = (p->weight != NULL) | (p->bias != NULL) << 1 | (p->mean != NULL) << 2 |
                          (p->rstd != NULL) << 3 | (p->f->groups != 0) << 4;
    uint64_t types = (uint64_t)c->call->dtype << 24 | p->f->weight_dtype << 16 | p->f->stats_dtype << 8 | what;
    size_t local[2] = {run ? 1 : gems_norm_group(c->device, p->n), 1};
    size_t global[2] = {run ? (size_t)gems_cpu_items(c->device, p->rows) : (size_t)p->rows * local[0]};
    if (wide) {
        const gems_hold hold = hold_of(c);
        gems_hold_items(&hold, p->rows, global, local);
        types |= gems_hold_types(&hold);
    }
    const gems_kernel_wanted kernel = {"kernels/norm/norm.cl", c->variant->name,      types,
                                       local[0] * local[1],    run && p->stride == 1, false,
                                       write_defines};
    float eps = (float)p->f->eps;
    gems_arg args[14] = {GEMS_IN(p->in),
                         GEMS_OUT_ARG(p->out),
                         GEMS_VALUE(p->kept),
                         GEMS_VALUE(p->rows),
                         GEMS_VALUE(p->n),
                         GEMS_VALUE(p->stride),
                         p->in->dtype == GEMS_F64 ? GEMS_VALUE(p->f->eps) : GEMS_VALUE(eps)};
    int nargs = 7;
    if (p->weight)
        args[nargs++] = GEMS_IN(p->weight);
    if (p->bias)
        args[nargs++] = GEMS_IN(p->bias);
    if (p->mean)
        args[nargs++] = GEMS_OUT_ARG(p->mean);
    if (p->rstd)
        args[nargs++] = GEMS_OUT_ARG(p->rstd);
    if (p->f->groups) {
        args[nargs++] = GEMS_VALUE(p->f->groups);
        args[nargs++] = GEMS_VALUE(p->f->span);
    }
    gems_launch(c->work, gems_kernel_for(c, &kernel), wide ? 2 : 1, global, local, args, nargs);
}

/* Weight and bias may be of wider elements. */
static bool can_wide(const gems_choice *c)
{
    const problem *p = c->problem;
    const uintptr_t affine = (p->weight ? p->weight->address : 0) | (p->bias ? p->bias->address : 0);
    if (p->f->groups && p->f->span * gems_dtypes[p->in->dtype].size % GEMS_WIDE != 0)
        return false;
    return p->stride == 1 && p->n * gems_dtypes[p->in->dtype].size % GEMS_WIDE == 0 && p->n < INT32_MAX &&
           (p->out->address | affine) % GEMS_WIDE == 0 && gems_wide_rows(p->in, &p->kept);
}

static const gems_variant variants[] = {
    [RUN] = {"run", .suits = gems_suits_cpu, .launch = launch},
    [WIDE] = {"wide", "rows of whole 16 bytes", .params = {GEMS_HOLD_PARAMETERS}, .can = can_wide,
              .suits = gems_suits_gpu, .launch = launch},
    [GROUP] = {"group", .suits = gems_suits_gpu, .launch = launch},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    const found *f = GEMS_PLAN(found, call);
    const gems_tensor *in = call->arg[0].tensor;
    problem p = {.f = f,
                 .in = in,
                 .weight = f->weight ? gems_call_arg(call, "weight")->tensor : NULL,
                 .bias = f->bias ? gems_call_arg(call, "bias")->tensor : NULL,
                 .rows = call->sizes.v[GEMS_SIZE_ROWS],
                 .n = call->sizes.v[GEMS_SIZE_COLS]};
    if (in->dtype == GEMS_F64 && !gems_device_get(work->lane)->f64)
        return gems_decline(call, "the device has no f64");
    if (f->groups) {
        p.kept = (gems_nest){.rank = 1, .size = {p.rows}, .stride = {p.n}};
        p.stride = 1;
    } else if (!gems_norm_rows(in, f->outer_dims, &p.kept, &p.stride)) {
        return gems_decline(call, "normalized dimensions are not one walk through memory");
    }

    int64_t stats[32];
    int stats_dims = in->ndim;
    for (int d = 0; d < in->ndim; d++)
        stats[d] = d < f->outer_dims ? in->sizes[d] : 1;
    if (f->groups) {
        stats_dims = 2;
        stats[0] = f->samples, stats[1] = f->groups;
    }
    gems_dtype s = (gems_dtype)f->stats_dtype;
    unsigned results = call->op->nresults;
    if (!(p.out = gems_call_result(call, 0, in->dtype, in->ndim, in->sizes, NULL)) ||
        (results == 3 && !(p.mean = gems_call_result(call, 1, s, stats_dims, stats, NULL))) ||
        (results >= 2 && !(p.rstd = gems_call_result(call, results - 1, s, stats_dims, stats, NULL))))
        return GEMS_DECLINED;
    return gems_launch_variant(call, work, &p);
}

static gems_status fold(gems_call *call, gems_work *work)
{
    if (GEMS_PLAN(found, call)->groups)
        return gems_decline(call, "rows of groups do not end a chain");
    return pw_end_rows(call, work, prepare);
}

const gems_family gems_family_norm = {
    .name = "norm", .plan = plan, .prepare = prepare, .fold = fold, .variants = variants, .small_numel = 65536};
