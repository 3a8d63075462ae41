/* Pointwise operators whose operands are not their arguments but views of them: the halves of a tensor (glu), the real
 * and imaginary parts of a complex one (polar). Each is one launch of its row's expression, of which the names are
 * those given here; parameters of table rules are those of the pointwise family. */
#include "kernels/pointwise/recipe.h"
#include "kernels/tensor/layout.h"

#include <stdatomic.h>
#include <string.h>

/* The expressions of a row, parsed once a process: "expr", and "then" where it is computed from what a tensor of the
 * operator's dtype would hold of the result of "expr", which is the name after those of the operands. */
typedef struct formula {
    const char *names[5];
    unsigned noperands;
    _Atomic(gems_expr *) expr[2];
} formula;

/* NULL only if memory is out: rows were checked when the library was built. */
static const gems_expr *expression(const gems_op *op, formula *f, unsigned i)
{
    gems_expr *e = atomic_load(&f->expr[i]), *first = NULL;
    gems_expr_error error;
    if (e)
        return e;
    e = gems_expr_parse(gems_op_attr(op, i ? "then" : "expr"), f->names, f->noperands + i, NULL, &error);
    if (e && !atomic_compare_exchange_strong(&f->expr[i], &first, e)) {
        gems_expr_free(e);
        e = first;
    }
    return e;
}

/* One kernel: results[i] is the i-th result of the last expression over the operands, all of dtype `dtype`. */
static gems_status compute(gems_call *call, gems_work *work, formula *f, gems_dtype dtype, const gems_shape *shape,
                           unsigned nresults, const gems_tensor *results, const gems_tensor *operands)
{
    pw_recipe *r = pw_recipe_for(work, shape, call);
    if (!r)
        return GEMS_OK; /* the work knows */
    for (unsigned i = 0; i < nresults; i++)
        pw_recipe_memory(work, r, &results[i], GEMS_PW_WRITE);
    for (unsigned i = 0; i < f->noperands; i++)
        pw_recipe_memory(work, r, &operands[i], GEMS_PW_READ);
    r->spec.nsteps = gems_op_attr(call->op, "then") ? 2 : 1;
    for (unsigned s = 0; s < r->spec.nsteps; s++) {
        const gems_expr *e = expression(call->op, f, s);
        gems_pw_step *step = &r->spec.step[s];
        bool last = s + 1 == r->spec.nsteps;
        if (!e)
            return gems_fail(call, "out of memory");
        step->expr = gems_expr_first(e);
        step->compute = (uint8_t)dtype;
        step->nresults = (uint8_t)gems_expr_result_count(e);
        for (unsigned k = 0; k < step->nresults; k++) {
            step->result[k] = (uint8_t)dtype;
            step->store[k] = last ? (uint8_t)k : GEMS_PW_UNSTORED;
        }
        for (unsigned i = 0; i < gems_expr_name_count(e); i++) {
            unsigned name = gems_expr_name_param(e, i);
            step->bind[i] = name < f->noperands ? (gems_pw_bind){0, (uint8_t)(nresults + name), (uint8_t)dtype, 0}
                                                : (gems_pw_bind){1, 0, (uint8_t)dtype, 0};
        }
    }
    return pw_recipe_end(call, work, r);
}

static void name_sizes(gems_call *call, gems_dtype dtype, int64_t numel, int64_t moved)
{
    call->dtype = dtype;
    call->sizes.v[GEMS_SIZE_NUMEL] = numel;
    call->sizes.v[GEMS_SIZE_BYTES] = gems_size_bytes(moved, dtype);
}

/* ---- glu(self, dim), glu_backward(grad_output, self, dim) -------------------------------------------------------- */

/* The dimension that is halved, or -1 with a reason. */
static int halved_dim(gems_call *call, const gems_tensor *self, const gems_value *dim)
{
    if (self->dtype >= GEMS_DTYPE_COUNT || gems_dtypes[self->dtype].category != GEMS_CAT_FLOAT)
        gems_decline(call, "dtype");
    else if (self->ndim == 0 || self->ndim > GEMS_DIMS || self->numel == 0)
        gems_decline(call, "empty, or too many or no dimensions");
    else if (dim->kind != GEMS_SCALAR_INT || gems_wrap_dim(dim->i, self->ndim) < 0)
        gems_decline(call, "dimension out of range");
    else {
        int d = gems_wrap_dim(dim->i, self->ndim);
        if (self->sizes[d] % 2 == 0)
            return d;
        gems_decline(call, "dimension of odd size");
    }
    return -1;
}

/* Views of both halves of t, of the shape `half`. */
static void halves(const gems_tensor *t, int dim, const gems_shape *half, gems_tensor out[2])
{
    for (int k = 0; k < 2; k++) {
        out[k] = *t;
        out[k].sizes = half->size;
        out[k].numel = half->numel;
    }
    out[1].address += (uintptr_t)(half->size[dim] * t->strides[dim] * gems_dtypes[t->dtype].size);
}

static gems_shape half_shape(const gems_tensor *t, int dim)
{
    gems_shape s = {t->ndim, t->numel / 2, {0}};
    memcpy(s.size, t->sizes, (size_t)t->ndim * sizeof *s.size);
    s.size[dim] /= 2;
    return s;
}

static gems_status plan_glu(gems_call *call)
{
    const gems_tensor *self = call->arg[0].tensor;
    if (halved_dim(call, self, &call->arg[1]) < 0)
        return GEMS_DECLINED;
    name_sizes(call, self->dtype, self->numel / 2, gems_size_times(self->numel / 2, 3));
    return GEMS_OK;
}

static gems_status prepare_glu(gems_call *call, gems_work *work)
{
    static formula f = {.names = {"first", "second"}, .noperands = 2};
    const gems_tensor *self = call->arg[0].tensor;
    int dim = halved_dim(call, self, &call->arg[1]);
    gems_shape half = half_shape(self, dim);
    gems_tensor in[2];
    gems_strides strides;
    halves(self, dim, &half, in);
    if (call->op->form == GEMS_OUT) {
        const gems_tensor *out = call->arg[2].tensor;
        if (out->dtype != self->dtype || gems_tensor_overlaps_itself(out) ||
            gems_tensor_overlap(out, self) != GEMS_APART)
            return gems_decline(call, "result of another dtype or overlapping");
    }
    gems_layout_input inputs[2] = {{&in[0], false}, {&in[1], false}};
    gems_iterator_strides(&half, 2, inputs, strides);
    const gems_tensor *out = gems_call_result(call, 0, self->dtype, half.ndim, half.size, strides);
    return out ? compute(call, work, &f, self->dtype, &half, 1, out, in) : GEMS_DECLINED;
}

const gems_family gems_family_glu = {.name = "glu",
                                     .chains = true,
                                     .plan = plan_glu,
                                     .prepare = prepare_glu,
                                     .variants = pw_variants,
                                     .small_numel = 32768};

static gems_status plan_glu_backward(gems_call *call)
{
    const gems_tensor *grad = call->arg[0].tensor, *self = call->arg[1].tensor;
    int dim = halved_dim(call, self, &call->arg[2]);
    if (dim < 0)
        return GEMS_DECLINED;
    gems_shape half = half_shape(self, dim);
    if (grad->dtype != self->dtype || grad->ndim != half.ndim ||
        memcmp(grad->sizes, half.size, (size_t)half.ndim * sizeof *half.size) != 0)
        return gems_decline(call, "gradient of another shape or dtype");
    name_sizes(call, self->dtype, self->numel / 2, gems_size_times(self->numel / 2, 5));
    return GEMS_OK;
}

static gems_status prepare_glu_backward(gems_call *call, gems_work *work)
{
    static formula f = {.names = {"grad", "first", "second", "s"}, .noperands = 3};
    const gems_tensor *grad = call->arg[0].tensor, *self = call->arg[1].tensor;
    int dim = halved_dim(call, self, &call->arg[2]);
    gems_shape half = half_shape(self, dim);
    gems_tensor in[3] = {*grad}, out[2];
    halves(self, dim, &half, in + 1);
    const gems_tensor *whole = gems_call_result(call, 0, self->dtype, self->ndim, self->sizes, NULL);
    if (!whole)
        return GEMS_DECLINED;
    halves(whole, dim, &half, out);
    return compute(call, work, &f, self->dtype, &half, 2, out, in);
}

const gems_family gems_family_glu_backward = {.name = "glu_backward",
                                              .plan = plan_glu_backward,
                                              .prepare = prepare_glu_backward,
                                              .variants = pw_variants,
                                              .chains = true,
                                              .small_numel = 32768};

/* ---- polar(abs, angle): a complex tensor of both ----------------------------------------------------------------- */

static bool polar_shape(gems_call *call, gems_shape *shape)
{
    const gems_tensor *abs = call->arg[0].tensor, *angle = call->arg[1].tensor;
    *shape = GEMS_SHAPE_START;
    if ((abs->dtype != GEMS_F32 && abs->dtype != GEMS_F64) || angle->dtype != abs->dtype)
        gems_decline(call, "dtype");
    else if (!gems_shape_broadcast(shape, abs->ndim, abs->sizes) ||
             !gems_shape_broadcast(shape, angle->ndim, angle->sizes))
        gems_decline(call, "shapes do not broadcast, or more than 16 dimensions");
    else if (shape->numel == 0)
        gems_decline(call, "empty");
    else
        return true;
    return false;
}

static gems_status plan_polar(gems_call *call)
{
    gems_shape shape;
    if (!polar_shape(call, &shape))
        return GEMS_DECLINED;
    name_sizes(call, call->arg[0].tensor->dtype, shape.numel,
               gems_size_plus(gems_size_times(2, shape.numel),
                              gems_size_plus(call->arg[0].tensor->numel, call->arg[1].tensor->numel)));
    return GEMS_OK;
}

static gems_status prepare_polar(gems_call *call, gems_work *work)
{
    static formula f = {.names = {"abs", "angle"}, .noperands = 2};
    const gems_tensor in[2] = {*call->arg[0].tensor, *call->arg[1].tensor};
    gems_dtype part = in[0].dtype;
    gems_shape shape;
    gems_strides strides, doubled;
    if (!polar_shape(call, &shape))
        return GEMS_DECLINED;
    gems_layout_input inputs[2] = {{&in[0], false}, {&in[1], false}};
    gems_iterator_strides(&shape, 2, inputs, strides);
    const gems_tensor *whole = gems_call_result_complex(call, 0, part, shape.ndim, shape.size, strides);
    if (!whole)
        return GEMS_DECLINED;
    gems_tensor planes[2]; /* of real numbers */
    for (int d = 0; d < shape.ndim; d++)
        doubled[d] = 2 * whole->strides[d];
    for (int k = 0; k < 2; k++) {
        planes[k] = *whole;
        planes[k].dtype = part;
        planes[k].strides = doubled;
        planes[k].address = whole->address + (uintptr_t)k * gems_dtypes[part].size;
    }
    for (int k = 0; k < 4; k++)
        if (gems_tensor_overlaps_itself(&planes[k / 2]) ||
            gems_tensor_overlap(&planes[k / 2], &in[k % 2]) != GEMS_APART)
            return gems_decline(call, "result overlaps itself or an argument");
    return compute(call, work, &f, part, &shape, 2, planes, in);
}

const gems_family gems_family_polar = {.name = "polar",
                                       .chains = true,
                                       .plan = plan_polar,
                                       .prepare = prepare_polar,
                                       .variants = pw_variants,
                                       .small_numel = 32768};
