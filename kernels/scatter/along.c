/* scatter and index_add: along one dimension the index says where. The argument `reduce` says what becomes of elements
 * that meet. */
#include "kernels/move/move.h"
#include "kernels/scatter/scatter.h"
#include "kernels/work/indices.h"

#include <string.h>

enum {
    DIMS = GEMS_MOVE_RANK
};

/* What plan() found: the call in the form of scatter's. */
typedef struct found {
    gems_scatter_how how;
    int dim;
    const gems_tensor *index, *from, *out;    /* out: NULL if it is not given */
    int64_t sizes[DIMS], index_strides[DIMS]; /* of the sources: those that the index has there */
    bool scaled;
    gems_element alpha;
} found;

static const gems_tensor *given_out(const gems_call *call)
{
    return call->op->form == GEMS_OUT ? call->arg[call->op->nparams - 1].tensor : NULL;
}

/* What all of them ask for; `f` has index, source, sizes and dimension. */
static gems_status plan_found(gems_call *call, found *f)
{
    const gems_tensor *self = call->arg[0].tensor;
    int64_t numel = 1;
    f->out = given_out(call);
    if (self->dtype == GEMS_DTYPE_NONE || f->from->dtype != self->dtype || (f->out && f->out->dtype != self->dtype))
        return gems_decline(call, "dtypes");
    if (f->index->dtype != GEMS_I64 && f->index->dtype != GEMS_I32)
        return gems_decline(call, "index dtype");
    for (int d = 0; d < self->ndim; d++) {
        numel = gems_size_times(numel, f->sizes[d]);
        if (f->sizes[d] > f->from->sizes[d] || (d != f->dim && f->sizes[d] > self->sizes[d]))
            return gems_decline(call, "sizes");
    }
    if (numel == 0 || self->numel == 0)
        return gems_decline(call, "empty");
    const gems_tensor *to = f->out ? f->out : call->op->form == GEMS_INPLACE ? self : NULL;
    if (to && (gems_tensor_overlaps_itself(to) || gems_tensor_overlap(to, f->from) != GEMS_APART ||
               gems_tensor_overlap(to, f->index) != GEMS_APART))
        return gems_decline(call, "overlaps");
    if (f->out && gems_tensor_overlap(f->out, self) != GEMS_APART)
        return gems_decline(call, "overlaps");
    *GEMS_PLAN(found, call) = *f;
    const int64_t moved = gems_size_plus(gems_size_times(2, numel), to == self ? 0 : gems_size_times(2, self->numel));
    gems_call_rows(
        call, self->dtype, numel, self->sizes[self->ndim - 1],
        gems_size_plus(gems_size_bytes(moved, self->dtype), gems_size_bytes(f->index->numel, f->index->dtype)));
    return GEMS_OK;
}

/* Rows are the dimensions that the index varies along, columns the others. */
static bool describe(const found *f, const gems_tensor *to, gems_scatter *s)
{
    const int ndim = to->ndim;
    const uint64_t dim = (uint64_t)1 << f->dim;
    uint64_t rows = dim;
    int64_t base[DIMS] = {0};
    s->sources = s->destinations = s->cols = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        if (d == f->dim || f->index_strides[d] != 0) {
            rows |= (uint64_t)1 << d;
            base[d] = s->destinations;
            s->destinations = gems_size_times(s->destinations, to->sizes[d]);
            s->sources = gems_size_times(s->sources, f->sizes[d]);
        } else
            s->cols = gems_size_times(s->cols, f->sizes[d]);
    }
    s->index = f->index, s->size = to->sizes[f->dim], s->scale = base[f->dim];
    base[f->dim] = 0;
    const gems_tensor at_index = {.sizes = f->sizes, .strides = f->index_strides, .ndim = ndim},
                      at_base = {.sizes = f->sizes, .strides = base, .ndim = ndim},
                      at_from = {.sizes = f->sizes, .strides = f->from->strides, .ndim = ndim},
                      at_to = {.sizes = f->sizes, .strides = to->strides, .ndim = ndim};
    return gems_nest_dims(&at_index, rows, &s->at_index) && gems_nest_dims(&at_base, rows, &s->base) &&
           gems_nest_dims(to, rows, &s->to_rows) && gems_nest_dims(&at_to, ~rows, &s->to_cols) &&
           gems_nest_dims(&at_from, rows, &s->from_rows) && gems_nest_dims(&at_from, ~rows, &s->from_cols);
}

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_tensor *self = call->arg[0].tensor;
    const found f = *GEMS_PLAN(found, call);
    if (f.how != GEMS_SCATTER_PUT && self->dtype == GEMS_F64 && !gems_device_get(work->lane)->f64)
        return gems_decline(call, "the device has no f64");
    gems_scatter s = {.how = f.how, .from = f.from, .scaled = f.scaled, .alpha = f.alpha};
    if (!describe(&f, self, &s))
        return gems_decline(call, "rank above 8");
    if (s.sources >= GEMS_SCATTER_MOST || s.destinations >= GEMS_SCATTER_MOST)
        return gems_decline(call, "more than an int counts");
    const gems_status checked = gems_indices_check(call, work->lane, f.index, (gems_range){.end = self->sizes[f.dim]});
    if (checked != GEMS_OK)
        return checked;
    s.to = gems_call_result(call, 0, self->dtype, self->ndim, self->sizes, NULL);
    if (!s.to)
        return GEMS_DECLINED;
    if (!describe(&f, s.to, &s))
        return gems_decline(call, "rank above 8");
    s.copied = call->op->form != GEMS_INPLACE;
    if (s.copied)
        gems_move_copy(work, s.to, self);
    gems_scatter_launch(work, &s);
    return GEMS_OK;
}

/* ---- scatter(self, dim, index, src), and with `reduce` -------------------------------------------------------- */

static gems_status plan_scatter(gems_call *call)
{
    const gems_tensor *self = call->arg[0].tensor, *index = call->arg[2].tensor, *from = call->arg[3].tensor;
    const gems_value *reduce = gems_call_arg(call, "reduce");
    found f = {.index = index, .from = from, .dim = gems_wrap_dim(call->arg[1].i, self->ndim)};
    if (reduce->kind == GEMS_STR)
        f.how = reduce->str.n == 3 && memcmp(reduce->str.s, "add", 3) == 0        ? GEMS_SCATTER_ADD
                : reduce->str.n == 8 && memcmp(reduce->str.s, "multiply", 8) == 0 ? GEMS_SCATTER_MULTIPLY
                                                                                  : GEMS_SCATTER_PUT;
    if (reduce->kind == GEMS_STR && f.how == GEMS_SCATTER_PUT)
        return gems_decline(call, "reduction");
    if (self->ndim == 0 || self->ndim > DIMS || index->ndim != self->ndim || from->ndim != self->ndim || f.dim < 0)
        return gems_decline(call, "rank, or dimension out of range");
    memcpy(f.sizes, index->sizes, (size_t)index->ndim * sizeof *index->sizes);
    memcpy(f.index_strides, index->strides, (size_t)index->ndim * sizeof *index->strides);
    return plan_found(call, &f);
}

const gems_family gems_family_scatter = {.name = "scatter",
                                         .plan = plan_scatter,
                                         .prepare = prepare,
                                         .variants = gems_scatter_variants,
                                         .small_bytes = GEMS_MOVE_SMALL};

/* ---- index_add(self, dim, index, source, alpha) --------------------------------------------------------------- */

static bool same_but(const gems_tensor *a, const gems_tensor *b, int dim)
{
    for (int d = 0; d < a->ndim; d++)
        if (d != dim && a->sizes[d] != b->sizes[d])
            return false;
    return a->ndim == b->ndim;
}

static gems_status plan_index_add(gems_call *call)
{
    const gems_tensor *self = call->arg[0].tensor, *index = call->arg[2].tensor, *from = call->arg[3].tensor;
    const gems_value *alpha = &call->arg[4];
    found f = {.how = GEMS_SCATTER_ADD, .index = index, .from = from, .dim = gems_wrap_dim(call->arg[1].i, self->ndim)};
    if (self->ndim == 0 || self->ndim > DIMS || index->ndim > 1 || f.dim < 0)
        return gems_decline(call, "rank, or dimension out of range");
    if (!same_but(self, from, f.dim) || from->sizes[f.dim] != index->numel)
        return gems_decline(call, "sizes");
    if (self->dtype == GEMS_DTYPE_NONE || self->dtype == GEMS_BOOL)
        return gems_decline(call, "dtype");
    const gems_category category = (gems_category)gems_dtypes[self->dtype].category;
    if (!gems_value_is_number(alpha) || alpha->kind == GEMS_SCALAR_BOOL ||
        (alpha->kind == GEMS_SCALAR_FLOAT && category != GEMS_CAT_FLOAT) ||
        !gems_number_compute(gems_value_number(alpha), self->dtype, true, &f.alpha))
        return gems_decline(call, "alpha");
    f.scaled = gems_number_double(gems_value_number(alpha)) != 1;
    memcpy(f.sizes, from->sizes, (size_t)from->ndim * sizeof *from->sizes);
    f.index_strides[f.dim] = index->ndim ? index->strides[0] : 0;
    return plan_found(call, &f);
}

const gems_family gems_family_index_add = {.name = "index_add",
                                           .plan = plan_index_add,
                                           .prepare = prepare,
                                           .variants = gems_scatter_variants,
                                           .small_bytes = GEMS_MOVE_SMALL};
