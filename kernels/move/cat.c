/* cat and stack: one move per input, into its place in the result. */
#include "kernels/move/move.h"

#include <string.h>

/* What plan() finds for prepare(). */
typedef struct cat_plan {
    int dim;   /* of the result */
    int first; /* the input that gives the shape */
    gems_dtype dtype;
    gems_format format;
} cat_plan;

/* The host skips what used to be the only empty tensor: one dimension of no elements. */
static bool is_skipped(const gems_tensor *t)
{
    return t->ndim == 1 && t->sizes[0] == 0;
}

/* The result is laid out as channels-last only if every input is, by the same rule. */
static gems_format common_format(const gems_tensor *v, size_t n)
{
    gems_format format = gems_suggested_format(&v[0]);
    for (size_t i = 1; i < n && format != GEMS_CONTIGUOUS; i++)
        if (gems_suggested_format(&v[i]) != format)
            format = GEMS_CONTIGUOUS;
    return format;
}

/* Strides of stack's result. The host concatenates along that dimension and splits it; only along a new last dimension
 * it concatenates inputs that got one more dimension of size 1. `sizes` are the result's. */
static void stacked_strides(const gems_tensor *v, size_t n, int dim, const int64_t *sizes, int64_t *strides)
{
    const int ndim = v[0].ndim;
    int64_t joined[GEMS_MOVE_RANK];
    memcpy(joined, v[0].sizes, (size_t)ndim * sizeof *joined);
    if (dim < ndim) {
        joined[dim] *= (int64_t)n;
        gems_format_strides(common_format(v, n), ndim, joined, strides);
        memmove(strides + dim + 1, strides + dim, (size_t)(ndim - dim) * sizeof *strides);
        strides[dim] = strides[dim + 1] * v[0].sizes[dim];
        return;
    }
    gems_format format = GEMS_CONTIGUOUS;
    joined[ndim] = 1;
    for (size_t i = 0; i < n; i++) {
        memcpy(strides, v[i].strides, (size_t)ndim * sizeof *strides);
        strides[ndim] = 1;
        const gems_tensor longer = {.sizes = joined, .strides = strides, .ndim = ndim + 1};
        gems_format its = gems_suggested_format(&longer);
        format = i == 0 || its == format ? its : GEMS_CONTIGUOUS;
        if (format == GEMS_CONTIGUOUS)
            break;
    }
    gems_format_strides(format, ndim + 1, sizes, strides);
}

static bool same_but(const gems_tensor *a, const gems_tensor *b, int dim)
{
    for (int d = 0; d < a->ndim; d++)
        if (d != dim && a->sizes[d] != b->sizes[d])
            return false;
    return a->ndim == b->ndim;
}

/* Common end of both plans: dtypes, overlap with an `out`, sizes for the table. */
static gems_status plan_inputs(gems_call *call, cat_plan *plan, const gems_tensor *v, size_t n, int64_t numel)
{
    const gems_tensor *out = call->op->form == GEMS_OUT ? call->arg[2].tensor : NULL;
    gems_dtype dtype = v[0].dtype;
    for (size_t i = 0; i < n; i++) {
        if (v[i].dtype == GEMS_DTYPE_NONE || v[i].wrapped)
            return gems_decline(call, "dtype");
        dtype = gems_promote_types(dtype, v[i].dtype);
        if (out && gems_tensor_overlap(out, &v[i]) != GEMS_APART)
            return gems_decline(call, "out overlaps an input");
    }
    if (out && (out->dtype != dtype || gems_tensor_overlaps_itself(out)))
        return gems_decline(call, "out of another dtype or overlapping itself");
    if (numel == 0)
        return gems_decline(call, "empty");
    plan->dtype = dtype;
    int64_t bytes = gems_size_bytes(numel, dtype), rows = 1;
    for (size_t i = 0; i < n; i++)
        bytes = gems_size_plus(bytes, gems_size_bytes(v[i].numel, v[i].dtype));
    for (int d = 0; d < plan->dim; d++)
        rows *= v[plan->first].sizes[d];
    gems_call_rows(call, dtype, numel, numel / rows, bytes);
    *GEMS_PLAN(cat_plan, call) = *plan;
    return GEMS_OK;
}

static gems_status plan_cat(gems_call *call)
{
    const gems_tensor *v = call->arg[0].tensors.v;
    const size_t n = call->arg[0].tensors.n;
    cat_plan plan = {.first = -1};
    if (call->arg[0].kind != GEMS_TENSORS || n == 0)
        return gems_decline(call, "no tensors");
    for (size_t i = 0; i < n && plan.first < 0; i++)
        if (!is_skipped(&v[i]))
            plan.first = (int)i;
    if (plan.first < 0)
        return gems_decline(call, "empty");
    const gems_tensor *first = &v[plan.first];
    if (first->ndim == 0 || first->ndim > GEMS_MOVE_RANK)
        return gems_decline(call, "rank");
    plan.dim = gems_wrap_dim(call->arg[1].i, first->ndim);
    if (plan.dim < 0)
        return gems_decline(call, "dimension out of range");
    int64_t numel = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_skipped(&v[i]) && !same_but(first, &v[i], plan.dim))
            return gems_decline(call, "shapes differ");
        numel = gems_size_plus(numel, v[i].numel);
    }
    plan.format = common_format(v, n);
    return plan_inputs(call, &plan, v, n, numel);
}

static gems_status plan_stack(gems_call *call)
{
    const gems_tensor *v = call->arg[0].tensors.v;
    const size_t n = call->arg[0].tensors.n;
    cat_plan plan = {.first = 0};
    if (call->arg[0].kind != GEMS_TENSORS || n == 0)
        return gems_decline(call, "no tensors");
    if (v[0].ndim >= GEMS_MOVE_RANK)
        return gems_decline(call, "rank");
    plan.dim = gems_wrap_dim(call->arg[1].i, v[0].ndim + 1);
    if (plan.dim < 0)
        return gems_decline(call, "dimension out of range");
    for (size_t i = 0; i < n; i++)
        if (!same_but(&v[0], &v[i], -1))
            return gems_decline(call, "shapes differ");
    return plan_inputs(call, &plan, v, n, gems_size_times(v[0].numel, (int64_t)n));
}

/* Conversions compute; what only moves is bits. */
static bool needs_f64(const cat_plan *plan, const gems_tensor *v, size_t n)
{
    bool converts = false;
    for (size_t i = 0; i < n; i++)
        converts |= v[i].dtype != plan->dtype;
    return converts && plan->dtype == GEMS_F64;
}

/* The host joins dense tensors along the first dimension by memcpy: bools keep their bytes. Otherwise it reads them. */
static bool joins_bytes(const gems_tensor *v, size_t n, int dim)
{
    for (size_t i = 0; i < n; i++)
        if (dim > 0 || v[i].dtype != v[0].dtype || !gems_tensor_is_contiguous(&v[i]))
            return false;
    return true;
}

/* `stacked`: each input is one slice of a dimension that it does not have itself. */
static gems_status prepare_inputs(gems_call *call, gems_work *work, bool stacked)
{
    const cat_plan plan = *GEMS_PLAN(cat_plan, call);
    const gems_tensor *v = call->arg[0].tensors.v, *first = &v[plan.first];
    const size_t n = call->arg[0].tensors.n;
    const int ndim = first->ndim + stacked;
    int64_t sizes[GEMS_MOVE_RANK], strides[GEMS_MOVE_RANK];
    if (needs_f64(&plan, v, n) && !gems_device_get(GEMS_LANE_MAIN)->f64)
        return gems_decline(call, "the device has no f64");
    for (int d = 0, k = 0; d < ndim; d++)
        sizes[d] = stacked && d == plan.dim ? (int64_t)n : first->sizes[k++];
    if (!stacked) {
        sizes[plan.dim] = 0;
        for (size_t i = 0; i < n; i++)
            sizes[plan.dim] += is_skipped(&v[i]) ? 0 : v[i].sizes[plan.dim];
    }
    if (stacked)
        stacked_strides(v, n, plan.dim, sizes, strides);
    else
        gems_format_strides(plan.format, ndim, sizes, strides);
    gems_tensor *out = gems_call_result(call, 0, plan.dtype, ndim, sizes, strides);
    if (!out)
        return GEMS_DECLINED;

    const bool truth = !joins_bytes(v, n, plan.dim);
    int64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (v[i].numel == 0)
            continue;
        gems_move move = {.to = out, .from = &v[i], .dst_at = at * out->strides[plan.dim], .truth = truth};
        for (int d = 0, k = 0; d < ndim; d++) {
            if (stacked && d == plan.dim)
                continue;
            gems_move_add(&move, v[i].sizes[k], out->strides[d], v[i].strides[k], 0);
            k++;
        }
        gems_move_launch(work, &move);
        at += stacked ? 1 : v[i].sizes[plan.dim];
    }
    return GEMS_OK;
}

static gems_status prepare_cat(gems_call *call, gems_work *work)
{
    return prepare_inputs(call, work, false);
}

static gems_status prepare_stack(gems_call *call, gems_work *work)
{
    return prepare_inputs(call, work, true);
}

GEMS_MOVE_FAMILY(cat);
GEMS_MOVE_FAMILY(stack);
