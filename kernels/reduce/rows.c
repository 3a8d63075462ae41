#include "kernels/reduce/rows.h"

#include "kernels/work/wide.h"

int64_t gems_rows_inner(const gems_tensor *in, int dim)
{
    int64_t inner = 1;
    for (int d = dim + 1; d < in->ndim; d++)
        inner *= in->sizes[d];
    return inner;
}

gems_status gems_rows_prepare(gems_call *call, int dim, gems_dtype out, gems_rows *r)
{
    const gems_tensor *in = call->arg[0].tensor;
    uint64_t bit = (uint64_t)1 << dim;
    gems_nest inside;
    *r = (gems_rows){.in = in,
                     .rows = call->sizes.v[GEMS_SIZE_ROWS],
                     .n = call->sizes.v[GEMS_SIZE_COLS],
                     .stride = in->ndim ? in->strides[dim] : 1,
                     .inner = call->sizes.v[GEMS_SIZE_INNER]};
    if (!gems_nest_dims(in, ~bit, &r->kept) || !gems_nest_dims(in, ~(2 * bit - 1), &inside))
        return gems_decline(call, "rank above 8");
    r->side_by_side = inside.rank == 1 && inside.stride[0] == 1;
    r->out = gems_call_result(call, 0, out, in->ndim, in->sizes, NULL);
    if (!r->out)
        return GEMS_DECLINED;
    const gems_overlap apart = call->op->form == GEMS_INPLACE ? GEMS_IDENTICAL : GEMS_APART;
    if (call->op->form != GEMS_FUNCTIONAL &&
        (!gems_tensor_is_contiguous(r->out) || gems_tensor_overlap(in, r->out) != apart))
        return gems_decline(call, "out is not contiguous, or overlaps the input");
    return GEMS_OK;
}

void gems_rows_items(const gems_choice *c, size_t *global, size_t *local)
{
    const gems_device_info *device = c->device;
    const gems_rows *r = c->problem;
    const int kind = gems_choice_index(c);
    *local = kind == GEMS_ROWS_ITEM || kind == GEMS_ROWS_GROUP ? gems_group(device, 256) : 1;
    if (kind == GEMS_ROWS_COLUMN)
        *global = (size_t)gems_cpu_items(device, r->rows / r->inner * ((r->inner + 15) / 16));
    else if (kind == GEMS_ROWS_RUN)
        *global = (size_t)gems_cpu_items(device, r->rows);
    else if (kind == GEMS_ROWS_ITEM)
        *global = ((size_t)r->rows + *local - 1) / *local * *local;
    else
        *global = (size_t)r->rows * *local;
}

/* `column` walks neighbouring rows, which are dense together. */
bool gems_rows_dense(const gems_choice *c)
{
    const gems_rows *r = c->problem;
    const int kind = gems_choice_index(c);
    return kind == GEMS_ROWS_COLUMN || (kind == GEMS_ROWS_RUN && r->stride == 1 && r->inner == 1);
}

bool gems_rows_can_column(const gems_choice *c)
{
    const gems_rows *r = c->problem;
    return r->side_by_side && r->inner >= 8;
}

bool gems_rows_can_wide(const gems_choice *c)
{
    const gems_rows *r = c->problem;
    const int64_t element = gems_dtypes[r->in->dtype].size, result = gems_dtypes[r->out->dtype].size;
    return r->inner == 1 && r->stride == 1 && r->n * element % GEMS_WIDE == 0 && r->n < INT32_MAX &&
           result >= element && r->out->address % GEMS_WIDE == 0 && gems_wide_rows(r->in, &r->kept);
}
