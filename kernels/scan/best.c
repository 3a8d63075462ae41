/* The best element so far along one dimension, and its place: cummax, cummin. A row of shim/ops.json gives "better",
 * the condition under which an element b found later replaces a. */
#include "kernels/reduce/reduce.h"
#include "kernels/reduce/rows.h"

#include <stdio.h>

static gems_status plan(gems_call *call)
{
    gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_value *dim = gems_call_arg(call, "dim");
    if (dim->kind != GEMS_SCALAR_INT)
        return gems_decline(call, "dim is not a plain number");
    gems_status status = gems_reduce_dims(call, r);
    if (status != GEMS_OK)
        return status;
    const gems_tensor *in = call->arg[0].tensor;
    if (in->ndim == 0)
        return gems_decline(call, "no dimension");
    call->sizes.v[GEMS_SIZE_INNER] = gems_rows_inner(in, gems_wrap_dim(dim->i, in->ndim));
    int64_t *bytes = &call->sizes.v[GEMS_SIZE_BYTES];
    *bytes = gems_size_plus(*bytes, gems_size_times(in->numel, 8 + gems_dtypes[in->dtype].size));
    return GEMS_OK;
}

typedef struct problem {
    gems_rows rows; /* its `out`: values */
    const gems_tensor *indices;
} problem;

static void write_defines(const gems_choice *c, char *text, size_t n)
{
    snprintf(text, n, "#define IN %s\n#define BETTER(a, b) (%s)\n", gems_dtypes[c->call->dtype].name,
             gems_op_attr_or(c->call->op, "better", "b >= a"));
}

enum {
    RUN,
    ITEM,
    GROUP
};

static void launch(const gems_choice *c)
{
    const problem *p = c->problem;
    const gems_rows *r = &p->rows;
    const int kind = gems_choice_index(c);
    const size_t local = kind == RUN ? 1 : gems_group(c->device, 256);
    const size_t global = kind == RUN    ? (size_t)gems_cpu_items(c->device, r->rows)
                          : kind == ITEM ? (size_t)gems_ceil_div(r->rows, (int64_t)local) * local
                                         : (size_t)r->rows * local;
    const gems_kernel_wanted wanted = {
        "kernels/scan/best.cl", kind == GROUP ? "group" : "run", c->call->dtype, local, false, false, write_defines};
    const gems_arg args[] = {GEMS_IN(r->in),      GEMS_OUT_ARG(r->out), GEMS_OUT_ARG(p->indices), GEMS_VALUE(r->kept),
                             GEMS_VALUE(r->rows), GEMS_VALUE(r->n),     GEMS_VALUE(r->stride),    GEMS_VALUE(r->inner)};
    gems_launch(c->work, gems_kernel_for(c, &wanted), 1, &global, &local, args, 8);
}

static bool suits_item(const gems_choice *c)
{
    const gems_rows *r = c->problem;
    return !c->device->is_cpu && ((r->side_by_side && r->inner >= 32) || r->n <= 16);
}

static const gems_variant variants[] = {
    [RUN] = {"run", .suits = gems_suits_cpu, .launch = launch},
    [ITEM] = {"item", .suits = suits_item, .launch = launch},
    [GROUP] = {"group", .suits = gems_suits_gpu, .launch = launch},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_tensor *in = call->arg[0].tensor;
    problem p;
    if (!gems_device_get(work->lane)->f64 && in->dtype == GEMS_F64)
        return gems_decline(call, "the device has no f64");
    gems_status status = gems_rows_prepare(call, __builtin_ctzll(r->dims), in->dtype, &p.rows);
    if (status != GEMS_OK)
        return status;
    p.indices = gems_call_result(call, 1, GEMS_I64, in->ndim, in->sizes, NULL);
    return p.indices ? gems_launch_variant(call, work, &p) : GEMS_DECLINED;
}

const gems_family gems_family_scan_best = {
    .name = "scan_best", .plan = plan, .prepare = prepare, .variants = variants, .small_numel = 16384};
