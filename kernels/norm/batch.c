/* Batch norm with given statistics (inference): an expression of the input and of a number for each channel, which are
 * vectors seen as broadcast to the input; so it is one launch of the pointwise kernels. The saved mean and rstd are
 * empty then. Statistics of the batch itself (training) are the host's. */
#include "kernels/pointwise/recipe.h"
#include "kernels/tensor/layout.h"

#include <stdatomic.h>
#include <string.h>

enum {
    VECTORS = 4
}; /* weight, bias, mean, variance: they follow the input */

/* The row's expression, parsed once a process. NULL only if memory is out: rows were checked when the library was
 * built. */
static const gems_expr *expression(const gems_op *op)
{
    static _Atomic(gems_expr *) parsed;
    gems_expr *e = atomic_load(&parsed), *first = NULL;
    static const char *const names[] = {"input", "weight", "bias", "mean", "variance", "eps"};
    gems_expr_error error;
    if (e)
        return e;
    e = gems_expr_parse(gems_op_attr(op, "expr"), names, sizeof names / sizeof *names, NULL, &error);
    if (e && !atomic_compare_exchange_strong(&parsed, &first, e)) {
        gems_expr_free(e);
        e = first;
    }
    return e;
}

static gems_status plan(gems_call *call)
{
    const gems_value *arg = call->arg, *training = gems_call_arg(call, "training"), *eps = gems_call_arg(call, "eps");
    const gems_tensor *in = arg[0].tensor;
    if (arg[0].kind != GEMS_TENSOR || in->dtype >= GEMS_DTYPE_COUNT ||
        gems_dtypes[in->dtype].category != GEMS_CAT_FLOAT)
        return gems_decline(call, "dtype");
    if (training->kind != GEMS_SCALAR_BOOL || training->i)
        return gems_decline(call, "statistics of the batch");
    if (arg[3].kind != GEMS_TENSOR || arg[4].kind != GEMS_TENSOR || eps->kind != GEMS_SCALAR_FLOAT)
        return gems_decline(call, "no statistics");
    if (in->ndim < 2 || in->ndim > GEMS_DIMS || in->numel == 0)
        return gems_decline(call, "empty, or no channels");
    const gems_dtype dtype = arg[3].tensor->dtype;
    if (dtype != in->dtype && (dtype != GEMS_F32 || gems_dtypes[in->dtype].size != 2))
        return gems_decline(call, "statistics of another dtype than the input");
    for (int i = 1; i <= VECTORS; i++)
        if (arg[i].kind != GEMS_NONE && (arg[i].kind != GEMS_TENSOR || arg[i].tensor->dtype != dtype ||
                                         arg[i].tensor->ndim != 1 || arg[i].tensor->sizes[0] != in->sizes[1]))
            return gems_decline(call, "not a number of one dtype for each channel");
    call->dtype = in->dtype;
    call->sizes.v[GEMS_SIZE_NUMEL] = in->numel;
    call->sizes.v[GEMS_SIZE_BYTES] = gems_size_bytes(gems_size_times(2, in->numel), in->dtype);
    return GEMS_OK;
}

/* The operand that name `i` of the expression stands for. */
static int operand(gems_call *call, gems_work *work, pw_recipe *r, unsigned i, gems_dtype compute, gems_element eps)
{
    const gems_tensor *in = call->arg[0].tensor, *t = call->arg[i].tensor;
    if (i > VECTORS)
        return pw_recipe_value(r, compute, eps);
    if (i == 0)
        return pw_recipe_memory(work, r, in, GEMS_PW_READ);
    int64_t sizes[GEMS_DIMS], strides[GEMS_DIMS] = {0};
    for (int d = 0; d < in->ndim; d++)
        sizes[d] = 1;
    sizes[1] = t->sizes[0], strides[1] = t->strides[0];
    gems_tensor broadcast = *t;
    broadcast.ndim = in->ndim;
    broadcast.sizes = sizes;
    broadcast.strides = strides;
    return pw_recipe_memory(work, r, &broadcast, GEMS_PW_READ);
}

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_tensor *in = call->arg[0].tensor;
    const gems_dtype of_channels = call->arg[3].tensor->dtype;
    const gems_dtype compute = of_channels == in->dtype ? in->dtype : GEMS_F32;
    const gems_expr *e = expression(call->op);
    if (!e)
        return gems_fail(call, "out of memory");
    gems_element eps;
    if (!gems_number_compute(gems_value_number(gems_call_arg(call, "eps")), compute, true, &eps))
        return gems_decline(call, "eps does not fit the dtype");
    gems_shape shape = {in->ndim, in->numel, {0}};
    gems_strides strides;
    memcpy(shape.size, in->sizes, (size_t)in->ndim * sizeof *shape.size);
    gems_format_strides(gems_suggested_format(in), in->ndim, in->sizes, strides);
    static const int64_t none[1] = {0};
    const gems_tensor *out = gems_call_result(call, 0, in->dtype, in->ndim, in->sizes, strides);
    if (!out || !gems_call_result(call, 1, of_channels, 1, none, NULL) ||
        !gems_call_result(call, 2, of_channels, 1, none, NULL))
        return GEMS_DECLINED;
    if (call->op->form == GEMS_OUT)
        for (int i = 0; i <= VECTORS; i++)
            if (gems_tensor_overlaps_itself(out) ||
                (call->arg[i].kind == GEMS_TENSOR && gems_tensor_overlap(out, call->arg[i].tensor) != GEMS_APART))
                return gems_decline(call, "result overlaps itself or an argument");

    pw_recipe *r = pw_recipe_for(work, &shape, call);
    if (!r)
        return GEMS_OK; /* the work knows */
    gems_pw_step *step = &r->spec.step[0];
    r->spec.nsteps = 1;
    step->expr = gems_expr_first(e);
    for (unsigned i = 0; i < gems_expr_fact_count(e); i++) { /* the row asks only which vectors are there */
        const unsigned param = gems_expr_name_param(e, gems_expr_fact_at(e, i)->name);
        step->facts |= (uint32_t)(call->arg[param].kind != GEMS_NONE) << i;
    }
    step->compute = (uint8_t)compute;
    step->nresults = 1;
    step->result[0] = (uint8_t)in->dtype;
    step->store[0] = (uint8_t)pw_recipe_memory(work, r, out, GEMS_PW_WRITE);
    const uint32_t needs = gems_expr_needs(e, step->facts);
    for (unsigned i = 0; i < gems_expr_name_count(e); i++)
        if (needs >> i & 1)
            step->bind[i] = (gems_pw_bind){0, (uint8_t)operand(call, work, r, gems_expr_name_param(e, i), compute, eps),
                                           (uint8_t)compute, 0};
    return pw_recipe_end(call, work, r);
}

const gems_family gems_family_batch_norm = {
    .name = "batch_norm", .plan = plan, .prepare = prepare, .variants = pw_variants, .small_numel = 32768};
