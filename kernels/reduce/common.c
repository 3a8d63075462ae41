#include "kernels/reduce/reduce.h"
#include "tune/table.h"

#include <string.h>

static bool add_dim(gems_reduction *r, int64_t dim, int ndim)
{
    int d = gems_wrap_dim(dim, ndim);
    if (d < 0 || (r->dims >> d & 1))
        return false;
    r->dims |= (uint64_t)1 << d;
    return true;
}

gems_status gems_reduce_dims(gems_call *call, gems_reduction *r)
{
    const gems_tensor *in = call->arg[0].tensor;
    const gems_value *dim = gems_call_arg(call, "dim"), *keepdim = gems_call_arg(call, "keepdim");
    if (call->arg[0].kind != GEMS_TENSOR || in->dtype == GEMS_DTYPE_NONE)
        return gems_decline(call, "dtype has no kernel");
    if (in->numel == 0)
        return gems_decline(call, "empty");
    if (in->ndim > 16)
        return gems_decline(call, "rank above 16");
    r->dims = 0;
    r->keepdim = keepdim->kind == GEMS_SCALAR_BOOL && keepdim->i;
    if (dim->kind == GEMS_SCALAR_INT) {
        if (!add_dim(r, dim->i, in->ndim))
            return gems_decline(call, "dim out of range");
    } else if (dim->kind == GEMS_INTS && dim->ints.n > 0) {
        for (size_t i = 0; i < dim->ints.n; i++)
            if (!add_dim(r, dim->ints.v[i], in->ndim))
                return gems_decline(call, "dim out of range or twice");
    } else if (dim->kind == GEMS_INTS && gems_op_attr(call->op, "no_dims")) {
        return gems_decline(call, "no dim: not a reduction");
    } else if (dim->kind == GEMS_NONE || dim->kind == GEMS_INTS) {
        r->dims = ((uint64_t)1 << in->ndim) - 1;
    } else {
        return gems_decline(call, "dim is not a plain number");
    }

    int64_t cols = 1, inner = INT64_MAX;
    for (int d = 0; d < in->ndim; d++)
        if (r->dims >> d & 1) {
            cols *= in->sizes[d];
            if (in->sizes[d] > 1 && in->strides[d] < inner)
                inner = in->strides[d];
        }
    gems_call_rows(call, in->dtype, in->numel, cols, gems_size_bytes(in->numel, in->dtype));
    call->sizes.v[GEMS_SIZE_INNER] = inner == INT64_MAX ? 1 : inner;
    return GEMS_OK;
}

gems_tensor *gems_reduce_result(gems_call *call, unsigned i, gems_dtype dtype, const gems_reduction *r)
{
    const gems_tensor *in = call->arg[0].tensor;
    int64_t sizes[16];
    int ndim = 0;
    for (int d = 0; d < in->ndim; d++)
        if (!(r->dims >> d & 1))
            sizes[ndim++] = in->sizes[d];
        else if (r->keepdim)
            sizes[ndim++] = 1;
    gems_tensor *out = gems_call_result(call, i, dtype, ndim, sizes, NULL);
    if (out && call->op->form == GEMS_OUT &&
        (!gems_tensor_is_contiguous(out) || gems_tensor_overlap(in, out) != GEMS_APART)) {
        gems_decline(call, "out is not contiguous, or overlaps the input");
        return NULL;
    }
    return out;
}

/* True if every value of `from` converts to `to` as the host's own cast does, without a rounding of its own that the
 * kernel would leave out. */
static bool cast_is_plain(gems_dtype from, gems_dtype to)
{
    const gems_dtype_info *f = &gems_dtypes[from], *t = &gems_dtypes[to];
    if (from == to)
        return true;
    if (to == GEMS_BOOL || (f->category == GEMS_CAT_FLOAT && t->category != GEMS_CAT_FLOAT))
        return false;
    return t->category != GEMS_CAT_FLOAT || to == GEMS_F32 || to == GEMS_F64;
}

gems_status gems_reduce_dtypes(gems_call *call, gems_reduction *r)
{
    gems_dtype in = call->arg[0].tensor->dtype;
    const char *result = gems_op_attr_or(call->op, "result", "same");
    bool sum = strcmp(result, "sum") == 0, is_float = strcmp(result, "float") == 0;
    r->from = r->to = in;
    if (sum || is_float) {
        const gems_value *dtype = gems_call_arg(call, "dtype");
        if (dtype->kind == GEMS_DTYPE)
            r->to = dtype->dtype;
        else if (dtype->kind != GEMS_NONE)
            return gems_decline(call, "dtype has no kernel");
        else if (sum && gems_dtypes[in].category != GEMS_CAT_FLOAT)
            r->to = GEMS_I64;
        if (r->to >= GEMS_DTYPE_NONE || !cast_is_plain(in, r->to))
            return gems_decline(call, "dtype has no kernel");
        if (is_float && gems_dtypes[r->to].category != GEMS_CAT_FLOAT)
            return gems_decline(call, "mean of integers");
        r->from = r->to;
    } else if (strcmp(result, "bool") == 0) {
        r->to = in == GEMS_U8 ? GEMS_U8 : GEMS_BOOL;
    } else if (strcmp(result, "i64") == 0) {
        r->to = GEMS_I64;
    }
    return GEMS_OK;
}

/* Parts worth a work-item of their own have at least `least` terms. Whole visits of the inner loop are dealt out where
 * there are enough of them. */
void gems_reduce_cut(gems_cut *cut, const gems_call *call, const gems_device_info *device, int64_t units)
{
    int64_t terms = cut->outer_count * cut->n, least = device->is_cpu ? 16384 : 2048;
    int64_t wanted = (device->compute_units > 1 ? 4 * (int64_t)device->compute_units : 1) / units;
    if (wanted > terms / least)
        wanted = terms / least;
    gems_reduce_cut_into(cut, gems_rule_param(call->rule, "splits", wanted));
}

void gems_reduce_cut_into(gems_cut *cut, int64_t wanted)
{
    if (wanted < 1)
        wanted = 1;
    if (wanted <= cut->outer_count) {
        cut->chunk_outer = (cut->outer_count + wanted - 1) / wanted;
        cut->inner_splits = 1;
        cut->chunk = cut->n;
    } else {
        int64_t each = (wanted + cut->outer_count - 1) / cut->outer_count;
        cut->chunk_outer = 1;
        cut->chunk = ((cut->n + each - 1) / each + 63) / 64 * 64;
        cut->inner_splits = (cut->n + cut->chunk - 1) / cut->chunk;
    }
    cut->splits = (cut->outer_count + cut->chunk_outer - 1) / cut->chunk_outer * cut->inner_splits;
}
