/* Softmax and log_softmax along one dimension, forward and backward. A row of shim/ops.json gives the expressions of
 * softmax.cl: "row", "finish", for backward also "term"; and "keep" where the first exponentials can be kept. */
#include "kernels/pointwise/end.h"
#include "kernels/reduce/rows.h"
#include "kernels/work/wide.h"

#include <stdio.h>
#include <string.h>

/* What plan() found. */
typedef struct found {
    uint8_t dim, out, backward;
} found;

static gems_status plan(gems_call *call)
{
    const gems_value *dim = gems_call_arg(call, "dim"), *dtype = gems_call_arg(call, "dtype");
    const gems_value *half_to_float = gems_call_arg(call, "half_to_float"), *second = &call->arg[1];
    const gems_tensor *in = call->arg[0].tensor;
    if (call->arg[0].kind != GEMS_TENSOR || dim->kind != GEMS_SCALAR_INT || in->dtype == GEMS_DTYPE_NONE)
        return gems_decline(call, "dtype has no kernel");
    int d = gems_wrap_dim(dim->i, in->ndim);
    if (in->numel == 0 || d < 0 || in->ndim > 32)
        return gems_decline(call, "empty, or dim out of range");
    if (half_to_float->kind == GEMS_SCALAR_BOOL && half_to_float->i)
        return gems_decline(call, "half_to_float is an error on the host");
    found f = {.dim = (uint8_t)d, .out = (uint8_t)in->dtype, .backward = second->kind == GEMS_TENSOR};
    if (dtype->kind == GEMS_DTYPE)
        f.out = (uint8_t)dtype->dtype;
    else if (dtype->kind != GEMS_NONE)
        return gems_decline(call, "dtype has no kernel");
    if (f.out >= GEMS_DTYPE_NONE || gems_dtypes[f.out].category != GEMS_CAT_FLOAT ||
        (f.out != in->dtype && f.out != GEMS_F32 && f.out != GEMS_F64))
        return gems_decline(call, "dtype has no kernel");
    if (f.backward) {
        const gems_value *input_dtype = gems_call_arg(call, "input_dtype");
        if (input_dtype->kind != GEMS_DTYPE || input_dtype->dtype != in->dtype || second->tensor->dtype != in->dtype ||
            second->tensor->ndim != in->ndim || second->tensor->numel != in->numel ||
            memcmp(second->tensor->sizes, in->sizes, (size_t)in->ndim * sizeof *in->sizes) != 0)
            return gems_decline(call, "gradient and output differ in dtype or shape");
        if (!gems_tensor_is_contiguous(second->tensor))
            return gems_decline(call, "output is not contiguous");
    }
    const int64_t element = gems_dtypes[in->dtype].size * (f.backward ? 2 : 1) + gems_dtypes[f.out].size;
    gems_call_rows(call, in->dtype, in->numel, in->ndim ? in->sizes[d] : 1, gems_size_times(in->numel, element));
    call->sizes.v[GEMS_SIZE_INNER] = gems_rows_inner(in, d);
    *GEMS_PLAN(found, call) = f;
    return GEMS_OK;
}

/* A softmax with its result made. */
typedef struct problem {
    gems_rows rows;
    found f;
} problem;

static gems_hold hold_of(const gems_choice *c)
{
    const gems_rows *r = c->problem;
    return gems_hold_for(c, r->n * gems_dtypes[r->in->dtype].size / GEMS_WIDE);
}

static void write_defines(const gems_choice *c, char *out, size_t n)
{
    const gems_op *op = c->call->op;
    const found *f = &((const problem *)c->problem)->f;
    bool keep = gems_op_attr(op, "keep") && (f->out == GEMS_F32 || f->out == GEMS_F64);
    const int used =
        snprintf(out, n,
                 "#define IN %s\n#define OUT %s\n#define T %s\n%s%s%s%s"
                 "#define TERM (%s)\n#define ROW (%s)\n#define FINISH (%s)\n",
                 gems_dtypes[c->call->dtype].name, gems_dtypes[f->out].name, gems_dtypes[f->out].compute,
                 f->backward ? "#define BACKWARD\n" : "", keep ? "#define KEEP\n" : "",
                 gems_op_attr(op, "keep") ? "" : "#define E_UNUSED\n",
                 !f->backward && f->out != GEMS_F64 ? "#define FAST_EXP\n" : "", gems_op_attr_or(op, "term", "e"),
                 gems_op_attr_or(op, "row", "s"), gems_op_attr_or(op, "finish", "e"));
    if (gems_choice_index(c) == GEMS_ROWS_WIDE) {
        const gems_hold hold = hold_of(c);
        gems_hold_defines(&hold, out + used, n - (size_t)used);
    }
}

static void launch(const gems_choice *c)
{
    const problem *p = c->problem;
    const gems_rows *r = &p->rows;
    size_t global[2], local[2] = {1, 1};
    uint64_t types = (uint64_t)c->call->dtype << 8 | p->f.out;
    const bool wide = gems_choice_index(c) == GEMS_ROWS_WIDE;
    if (wide) {
        const gems_hold hold = hold_of(c);
        gems_hold_items(&hold, r->rows, global, local);
        types |= gems_hold_types(&hold);
    } else {
        gems_rows_items(c, global, local);
    }
    const gems_kernel_wanted kernel = {"kernels/softmax/softmax.cl",
                                       c->variant->name,
                                       types,
                                       local[0] * local[1],
                                       gems_rows_dense(c),
                                       false,
                                       write_defines};
    gems_arg args[8] = {GEMS_IN(r->in)};
    int nargs = 1;
    if (p->f.backward)
        args[nargs++] = GEMS_IN(c->call->arg[1].tensor);
    args[nargs++] = GEMS_OUT_ARG(r->out);
    args[nargs++] = GEMS_VALUE(r->kept);
    args[nargs++] = GEMS_VALUE(r->rows);
    args[nargs++] = GEMS_VALUE(r->n);
    args[nargs++] = GEMS_VALUE(r->stride);
    args[nargs++] = GEMS_VALUE(r->inner);
    gems_launch(c->work, gems_kernel_for(c, &kernel), wide ? 2 : 1, global, local, args, nargs);
}

static bool suits_item(const gems_choice *c)
{
    const gems_rows *r = c->problem;
    return !c->device->is_cpu && ((r->inner >= 32 && r->side_by_side) || r->n <= 32);
}

static bool can_wide(const gems_choice *c)
{
    return !((const problem *)c->problem)->f.backward && gems_rows_can_wide(c);
}

static const gems_variant variants[] = {
    [GEMS_ROWS_COLUMN] = {"column", "8 neighbouring rows, side by side in the input", .can = gems_rows_can_column,
                          .suits = gems_suits_cpu, .launch = launch},
    [GEMS_ROWS_RUN] = {"run", .suits = gems_suits_cpu, .launch = launch},
    [GEMS_ROWS_WIDE] = {"wide", "rows of whole 16 bytes", .params = {GEMS_HOLD_PARAMETERS}, .can = can_wide,
                        .suits = gems_suits_gpu, .launch = launch},
    [GEMS_ROWS_ITEM] = {"item", .suits = suits_item, .launch = launch},
    [GEMS_ROWS_GROUP] = {"group", .suits = gems_suits_gpu, .launch = launch},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    problem p = {.f = *GEMS_PLAN(found, call)};
    if (!gems_device_get(work->lane)->f64 && (p.f.out == GEMS_F64 || call->dtype == GEMS_F64))
        return gems_decline(call, "the device has no f64");
    gems_status status = gems_rows_prepare(call, p.f.dim, (gems_dtype)p.f.out, &p.rows);
    return status == GEMS_OK ? gems_launch_variant(call, work, &p) : status;
}

static gems_status fold(gems_call *call, gems_work *work)
{
    if (GEMS_PLAN(found, call)->backward)
        return gems_decline(call, "reads a second tensor");
    return pw_end_rows(call, work, prepare);
}

const gems_family gems_family_softmax = {
    .name = "softmax", .plan = plan, .prepare = prepare, .fold = fold, .variants = variants, .small_numel = 65536};
