/* triu and tril: new, in place and out. The row's field "keep" says which triangle stays. */
#include "kernels/move/move.h"

#include <string.h>

static gems_status plan_tri(gems_call *call)
{
    const gems_tensor *self = call->arg[0].tensor;
    const gems_tensor *out = call->op->form == GEMS_OUT ? call->arg[2].tensor : NULL;
    if (self->dtype == GEMS_DTYPE_NONE)
        return gems_decline(call, "dtype");
    if (self->ndim < 2 || self->ndim > GEMS_MOVE_RANK)
        return gems_decline(call, "rank");
    if (self->numel == 0)
        return gems_decline(call, "empty");
    if (call->arg[1].kind != GEMS_SCALAR_INT)
        return gems_decline(call, "diagonal");
    if (call->op->form == GEMS_INPLACE && gems_tensor_overlaps_itself(self))
        return gems_decline(call, "overlaps itself");
    if (out &&
        (out->dtype != self->dtype || gems_tensor_overlaps_itself(out) || gems_tensor_overlap(out, self) != GEMS_APART))
        return gems_decline(call, "out of another dtype or overlapping");
    if (out && out->ndim > 3 && !gems_tensor_is_contiguous(out))
        return gems_decline(call, "the host walks such batches by one stride, even where they have two");
    const int64_t bytes = gems_size_bytes(self->numel, self->dtype); /* half is read */
    gems_call_rows(call, self->dtype, self->numel, self->sizes[self->ndim - 1], gems_size_plus(bytes, bytes / 2));
    return GEMS_OK;
}

static gems_status prepare_tri(gems_call *call, gems_work *work)
{
    const gems_tensor *self = call->arg[0].tensor;
    const gems_tensor *out = gems_call_result(call, 0, self->dtype, self->ndim, self->sizes, NULL);
    if (!out)
        return GEMS_DECLINED;
    const bool upper = strcmp(gems_op_attr(call->op, "keep"), "upper") == 0;
    gems_tri_launch(work, out, self, call->arg[1].i, upper);
    return GEMS_OK;
}

GEMS_MOVE_FAMILY(tri);
