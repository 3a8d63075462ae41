/* embedding, index_select and gather: the source's place along one dimension comes from an index tensor. Indices are
 * checked before the launch. */
#include "kernels/move/move.h"
#include "kernels/work/indices.h"
#include "tune/table.h"

static gems_status plan_index(gems_call *call, const gems_tensor *from, const gems_tensor *index, int outs)
{
    const gems_tensor *out = call->op->form == GEMS_OUT ? call->arg[outs].tensor : NULL;
    if (from->dtype == GEMS_DTYPE_NONE)
        return gems_decline(call, "dtype");
    if (index->dtype != GEMS_I64 && index->dtype != GEMS_I32)
        return gems_decline(call, "index dtype");
    if (from->ndim > GEMS_MOVE_RANK || index->ndim > GEMS_MOVE_RANK)
        return gems_decline(call, "rank");
    if (from->numel == 0 || index->numel == 0)
        return gems_decline(call, "empty");
    if (out && (out->dtype != from->dtype || gems_tensor_overlaps_itself(out) ||
                gems_tensor_overlap(out, from) != GEMS_APART || gems_tensor_overlap(out, index) != GEMS_APART))
        return gems_decline(call, "out of another dtype or overlapping");
    call->dtype = from->dtype;
    return GEMS_OK;
}

static void plan_sizes(gems_call *call, int64_t rows, int64_t cols, const gems_tensor *index)
{
    call->sizes.v[GEMS_SIZE_ROWS] = rows;
    call->sizes.v[GEMS_SIZE_COLS] = cols;
    int64_t numel = call->sizes.v[GEMS_SIZE_NUMEL] = gems_size_times(rows, cols);
    call->sizes.v[GEMS_SIZE_BYTES] = gems_size_plus(gems_size_bytes(gems_size_times(2, numel), call->dtype),
                                                    gems_size_bytes(index->numel, index->dtype));
}

/* Is what is left after one place along `dim` was chosen contiguous? */
static bool slice_is_contiguous(const gems_tensor *t, int dim)
{
    int64_t expected = 1;
    for (int d = t->ndim - 1; d >= 0; d--)
        if (d != dim && t->sizes[d] != 1) {
            if (t->strides[d] != expected)
                return false;
            expected *= t->sizes[d];
        }
    return true;
}

/* Does the host select by memcpy, which keeps the bytes of bools, or element by element? Along dimension 1 it makes
 * self contiguous first, if it is not. */
static bool selects_bytes(const gems_tensor *self, const gems_tensor *out, int dim)
{
    if (self->ndim == 1)
        return true;
    if (dim == 1 && gems_tensor_is_contiguous(out))
        return gems_tensor_is_contiguous(self);
    return slice_is_contiguous(self, dim) && slice_is_contiguous(out, dim);
}

/* ---- embedding(weight, indices, padding_idx, scale_grad_by_freq, sparse) ------------------------------------- */

/* The last three matter to the gradient alone. */
static gems_status plan_embedding(gems_call *call)
{
    const gems_tensor *weight = call->arg[0].tensor, *index = call->arg[1].tensor;
    if (weight->ndim != 2 || index->ndim >= GEMS_MOVE_RANK)
        return gems_decline(call, "rank");
    if (plan_index(call, weight, index, -1) != GEMS_OK)
        return GEMS_DECLINED;
    plan_sizes(call, index->numel, weight->sizes[1], index);
    return GEMS_OK;
}

static gems_status prepare_embedding(gems_call *call, gems_work *work)
{
    const gems_tensor *weight = call->arg[0].tensor, *index = call->arg[1].tensor;
    const gems_status checked = gems_indices_check(call, work->lane, index, (gems_range){.end = weight->sizes[0]});
    if (checked != GEMS_OK)
        return checked;
    const int last = index->ndim;
    int64_t sizes[GEMS_MOVE_RANK];
    for (int d = 0; d < last; d++)
        sizes[d] = index->sizes[d];
    sizes[last] = weight->sizes[1];
    gems_tensor *out = gems_call_result(call, 0, weight->dtype, last + 1, sizes, NULL);
    if (!out)
        return GEMS_DECLINED;
    gems_move move = {.to = out,
                      .from = weight,
                      .index = index,
                      .axis = weight->strides[0],
                      .limit = weight->sizes[0],
                      .each = gems_rule_param(call->rule, "each", 0),
                      .truth = !slice_is_contiguous(weight, 0)};
    for (int d = 0; d < last; d++)
        gems_move_add(&move, sizes[d], out->strides[d], 0, index->strides[d]);
    gems_move_add(&move, sizes[last], out->strides[last], weight->strides[1], 0);
    gems_move_launch(work, &move);
    return GEMS_OK;
}

GEMS_MOVE_FAMILY(embedding, .grows = true);

/* ---- index_select(self, dim, index), and out ----------------------------------------------------------------- */

static gems_status plan_index_select(gems_call *call)
{
    const gems_tensor *self = call->arg[0].tensor, *index = call->arg[2].tensor;
    if (self->ndim == 0 || index->ndim > 1)
        return gems_decline(call, "rank");
    const int dim = gems_wrap_dim(call->arg[1].i, self->ndim);
    if (dim < 0)
        return gems_decline(call, "dimension out of range");
    if (self->dtype == GEMS_BOOL && self->ndim == 2 && dim == 1 && self->strides[0] == 1)
        return gems_decline(call, "transposed bools, of which the host may copy the bytes");
    if (plan_index(call, self, index, 3) != GEMS_OK)
        return GEMS_DECLINED;
    int64_t cols = 1;
    for (int d = dim + 1; d < self->ndim; d++)
        cols *= self->sizes[d];
    plan_sizes(call, gems_size_times(self->numel / self->sizes[dim] / cols, index->numel), cols, index);
    return GEMS_OK;
}

/* index_select and gather: along one dimension the index says where. `gathers`: it has the result's shape. */
static gems_status prepare_along(gems_call *call, gems_work *work, bool gathers)
{
    const gems_tensor *self = call->arg[0].tensor, *index = call->arg[2].tensor;
    const int dim = gems_wrap_dim(call->arg[1].i, self->ndim);
    const gems_status checked = gems_indices_check(call, work->lane, index, (gems_range){.end = self->sizes[dim]});
    if (checked != GEMS_OK)
        return checked;
    int64_t sizes[GEMS_MOVE_RANK] = {0};
    for (int d = 0; d < self->ndim; d++)
        sizes[d] = gathers ? index->sizes[d] : d == dim ? index->numel : self->sizes[d];
    gems_tensor *out = gems_call_result(call, 0, self->dtype, self->ndim, sizes, NULL);
    if (!out)
        return GEMS_DECLINED;
    gems_move move = {.to = out,
                      .from = self,
                      .index = index,
                      .axis = self->strides[dim],
                      .limit = self->sizes[dim],
                      .each = gems_rule_param(call->rule, "each", 0),
                      .truth = gathers || !selects_bytes(self, out, dim)};
    for (int d = 0; d < self->ndim; d++) {
        int64_t pick = gathers ? index->strides[d] : d == dim && index->ndim ? index->strides[0] : 0;
        gems_move_add(&move, sizes[d], out->strides[d], d == dim ? 0 : self->strides[d], pick);
    }
    gems_move_launch(work, &move);
    return GEMS_OK;
}

static gems_status prepare_index_select(gems_call *call, gems_work *work)
{
    return prepare_along(call, work, false);
}

GEMS_MOVE_FAMILY(index_select, .grows = true);

/* ---- gather(self, dim, index, sparse_grad), and out ---------------------------------------------------------- */

static gems_status plan_gather(gems_call *call)
{
    const gems_tensor *self = call->arg[0].tensor, *index = call->arg[2].tensor;
    if (self->ndim == 0 || index->ndim != self->ndim)
        return gems_decline(call, "rank");
    const int dim = gems_wrap_dim(call->arg[1].i, self->ndim);
    if (dim < 0)
        return gems_decline(call, "dimension out of range");
    for (int d = 0; d < self->ndim; d++)
        if (d != dim && index->sizes[d] > self->sizes[d])
            return gems_decline(call, "index larger than self");
    if (plan_index(call, self, index, 4) != GEMS_OK)
        return GEMS_DECLINED;
    int64_t cols = 1;
    for (int d = dim + 1; d < self->ndim; d++)
        cols *= index->sizes[d];
    plan_sizes(call, index->numel / cols, cols, index);
    return GEMS_OK;
}

static gems_status prepare_gather(gems_call *call, gems_work *work)
{
    return prepare_along(call, work, true);
}

GEMS_MOVE_FAMILY(gather);
