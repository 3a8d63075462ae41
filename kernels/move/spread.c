/* flip, repeat and constant_pad_nd: the result's places are the source's in another order, several times, or with a
 * margin of one value. */
#include "kernels/move/move.h"

#include <string.h>

/* Rules see the result: `cols` elements lie together. */
static void plan_sizes(gems_call *call, gems_dtype dtype, int64_t numel, int64_t read, int64_t cols)
{
    gems_call_rows(call, dtype, numel, cols, gems_size_bytes(gems_size_plus(numel, read), dtype));
}

static bool is_plain(gems_call *call, const gems_tensor *self)
{
    if (self->dtype == GEMS_DTYPE_NONE)
        gems_decline(call, "dtype");
    else if (self->ndim > GEMS_MOVE_RANK / 2)
        gems_decline(call, "rank");
    else if (self->numel == 0)
        gems_decline(call, "empty");
    else
        return true;
    return false;
}

/* ---- flip(self, dims) ---------------------------------------------------------------------------------------- */

static gems_status plan_flip(gems_call *call)
{
    const gems_tensor *self = call->arg[0].tensor;
    uint64_t flipped = 0;
    if (!is_plain(call, self))
        return GEMS_DECLINED;
    for (size_t i = 0; i < call->arg[1].ints.n; i++) {
        int dim = gems_wrap_dim(call->arg[1].ints.v[i], self->ndim);
        if (dim < 0 || flipped >> dim & 1)
            return gems_decline(call, "dimensions out of range or repeated");
        flipped |= (uint64_t)1 << dim;
    }
    if (self->ndim == 0)
        flipped = 0;
    *GEMS_PLAN(uint64_t, call) = flipped;
    plan_sizes(call, self->dtype, self->numel, self->numel, self->ndim ? self->sizes[self->ndim - 1] : 1);
    return GEMS_OK;
}

/* The host reverses whole rows by memcpy: bools keep their bytes there. Everywhere else, and where there is nothing to
 * reverse, it reads them. */
static bool flips_rows(const gems_tensor *self, const gems_tensor *out, uint64_t flipped)
{
    bool rows = false, reverses = false;
    for (int d = 0; d < self->ndim; d++)
        if (self->sizes[d] > 1) {
            reverses |= (flipped >> d & 1) && self->strides[d] != 0;
            rows |= out->strides[d] == 1 && self->strides[d] == 1 && !(flipped >> d & 1);
        }
    return rows && reverses;
}

static gems_status prepare_flip(gems_call *call, gems_work *work)
{
    const gems_tensor *self = call->arg[0].tensor;
    uint64_t flipped = *GEMS_PLAN(uint64_t, call);
    int64_t strides[GEMS_MOVE_RANK];
    gems_preserved_strides(self, strides);
    gems_tensor *out = gems_call_result(call, 0, self->dtype, self->ndim, self->sizes, strides);
    if (!out)
        return GEMS_DECLINED;
    gems_move move = {.to = out, .from = self, .truth = !flips_rows(self, out, flipped)};
    for (int d = 0; d < self->ndim; d++) {
        bool reversed = flipped >> d & 1;
        move.src_at += reversed ? (self->sizes[d] - 1) * self->strides[d] : 0;
        gems_move_add(&move, self->sizes[d], out->strides[d], reversed ? -self->strides[d] : self->strides[d], 0);
    }
    gems_move_launch(work, &move);
    return GEMS_OK;
}

GEMS_MOVE_FAMILY(flip);

/* ---- repeat(self, repeats) ----------------------------------------------------------------------------------- */

static gems_status plan_repeat(gems_call *call)
{
    const gems_tensor *self = call->arg[0].tensor;
    const int64_t *repeats = call->arg[1].ints.v;
    const int n = (int)call->arg[1].ints.n;
    if (!is_plain(call, self))
        return GEMS_DECLINED;
    if (n < self->ndim || n > GEMS_MOVE_RANK / 2)
        return gems_decline(call, "rank");
    int64_t numel = self->numel;
    for (int d = 0; d < n; d++) {
        if (repeats[d] <= 0)
            return gems_decline(call, "empty");
        if (__builtin_mul_overflow(numel, repeats[d], &numel))
            return gems_decline(call, "too large");
    }
    plan_sizes(call, self->dtype, numel, self->numel, self->ndim ? self->sizes[self->ndim - 1] : 1);
    return GEMS_OK;
}

/* Each dimension becomes two: which copy, and where in it. */
static gems_status prepare_repeat(gems_call *call, gems_work *work)
{
    const gems_tensor *self = call->arg[0].tensor;
    const int64_t *repeats = call->arg[1].ints.v;
    const int n = (int)call->arg[1].ints.n, missing = n - self->ndim;
    int64_t sizes[GEMS_MOVE_RANK] = {0};
    for (int d = 0; d < n; d++)
        sizes[d] = repeats[d] * (d < missing ? 1 : self->sizes[d - missing]);
    gems_tensor *out = gems_call_result(call, 0, self->dtype, n, sizes, NULL);
    if (!out)
        return GEMS_DECLINED;
    gems_move move = {.to = out, .from = self, .truth = true};
    for (int d = 0; d < n; d++) {
        int64_t size = d < missing ? 1 : self->sizes[d - missing];
        gems_move_add(&move, repeats[d], out->strides[d] * size, 0, 0);
        gems_move_add(&move, size, out->strides[d], d < missing ? 0 : self->strides[d - missing], 0);
    }
    gems_move_launch(work, &move);
    return GEMS_OK;
}

GEMS_MOVE_FAMILY(repeat, .grows = true);

/* Bits of a scalar argument as an element of `dtype`. False if it is no scalar, or would overflow: the host's error. */
static bool bits_of(const gems_value *value, gems_dtype dtype, uint64_t *bits)
{
    gems_element e;
    if (!gems_value_is_number(value) || !gems_number_element(gems_value_number(value), dtype, &e))
        return false;
    *bits = e.bits;
    return true;
}

/* ---- constant_pad_nd(self, pad, value) ----------------------------------------------------------------------- */

typedef struct pad_plan {
    int64_t numel, read;
    uint64_t bits;
} pad_plan;

/* Pads come in pairs from the last dimension on; a negative one cuts. */
static void pads_of(const gems_call *call, int ndim, int d, int64_t *before, int64_t *after)
{
    const int64_t *pad = call->arg[1].ints.v;
    const int pair = ndim - 1 - d;
    const bool given = 2 * pair < (int)call->arg[1].ints.n;
    *before = given ? pad[2 * pair] : 0;
    *after = given ? pad[2 * pair + 1] : 0;
}

static gems_status plan_pad(gems_call *call)
{
    const gems_tensor *self = call->arg[0].tensor;
    pad_plan plan = {.numel = 1, .read = 1};
    bool grows = false;
    if (!is_plain(call, self))
        return GEMS_DECLINED;
    if (call->arg[1].ints.n % 2 || call->arg[1].ints.n > 2 * (size_t)self->ndim)
        return gems_decline(call, "pads");
    if (!bits_of(&call->arg[2], self->dtype, &plan.bits))
        return gems_decline(call, "value does not fit the dtype");
    for (int d = 0; d < self->ndim; d++) {
        int64_t before, after;
        pads_of(call, self->ndim, d, &before, &after);
        grows |= before > 0 || after > 0;
        int64_t kept = self->sizes[d] + (before < 0 ? before : 0) + (after < 0 ? after : 0);
        int64_t size = self->sizes[d] + before + after;
        if (kept <= 0 || size <= 0)
            return gems_decline(call, "nothing left");
        plan.read *= kept;
        if (__builtin_mul_overflow(plan.numel, size, &plan.numel))
            return gems_decline(call, "too large");
    }
    if (!grows)
        return gems_decline(call, "a view's copy");
    if (self->dtype == GEMS_BOOL && self->ndim == 2 && self->strides[0] == 1)
        return gems_decline(call, "transposed bools, of which the host may copy the bytes");
    *GEMS_PLAN(pad_plan, call) = plan;
    plan_sizes(call, self->dtype, plan.numel, plan.read, self->sizes[self->ndim - 1]);
    return GEMS_OK;
}

static gems_status prepare_pad(gems_call *call, gems_work *work)
{
    const gems_tensor *self = call->arg[0].tensor;
    const int ndim = self->ndim;
    const pad_plan plan = *GEMS_PLAN(pad_plan, call);
    int64_t sizes[GEMS_MOVE_RANK], strides[GEMS_MOVE_RANK], before, after;
    for (int d = 0; d < ndim; d++) {
        pads_of(call, ndim, d, &before, &after);
        sizes[d] = self->sizes[d] + before + after;
    }
    gems_format_strides(gems_suggested_format(self), ndim, sizes, strides);
    gems_tensor *out = gems_call_result(call, 0, self->dtype, ndim, sizes, strides);
    if (!out)
        return GEMS_DECLINED;
    gems_move move = {.to = out, .from = self, .truth = true};
    for (int d = 0; d < ndim; d++) {
        pads_of(call, ndim, d, &before, &after);
        int64_t cut0 = before < 0 ? -before : 0, cut1 = after < 0 ? -after : 0;
        move.src_at += cut0 * self->strides[d];
        move.dst_at += (before > 0 ? before : 0) * out->strides[d];
        gems_move_add(&move, self->sizes[d] - cut0 - cut1, out->strides[d], self->strides[d], 0);
    }
    gems_fill_launch(work, out, plan.bits);
    gems_move_launch(work, &move);
    return GEMS_OK;
}

GEMS_MOVE_FAMILY(pad, .grows = true);
