/* Negative log likelihood, and its gradient. Targets are checked before a launch. Rows are whatever has a target. */
#include "kernels/move/move.h"
#include "kernels/tensor/nest.h"
#include "kernels/work/indices.h"

#include <stdio.h>
#include <string.h>

enum { /* as the host counts reductions */
    NONE,
    MEAN,
    SUM
};

/* What plan() found. */
typedef struct found {
    int64_t ignored;
    uint8_t reduction; /* a single row's loss is its sum */
    uint8_t classes;   /* the dimension of classes */
    bool weighted;
} found;

/* Arguments from `at` on: self, target, weight, reduction, ignore_index. */
static gems_status plan_rows(gems_call *call, int at)
{
    const gems_value *arg = &call->arg[at];
    const gems_tensor *in = arg[0].tensor, *target = arg[1].tensor;
    const bool planes = gems_op_attr(call->op, "planes");
    if (arg[0].kind != GEMS_TENSOR || in->dtype == GEMS_DTYPE_NONE || gems_dtypes[in->dtype].category != GEMS_CAT_FLOAT)
        return gems_decline(call, "dtype has no kernel");
    if (planes ? in->ndim != 4 : in->ndim != 1 && in->ndim != 2)
        return gems_decline(call, "rank");
    if (arg[1].kind != GEMS_TENSOR || target->dtype != GEMS_I64 || target->ndim != in->ndim - 1 || in->numel == 0)
        return gems_decline(call, "empty, or targets of another dtype or rank");
    found f = {.classes = in->ndim > 1, .weighted = arg[2].kind == GEMS_TENSOR};
    for (int d = 0; d < target->ndim; d++)
        if (target->sizes[d] != in->sizes[d + (d >= f.classes)])
            return gems_decline(call, "targets of another shape");
    const int64_t n = in->sizes[f.classes];
    const gems_tensor *weight = arg[2].tensor;
    if (arg[2].kind != GEMS_NONE && (!f.weighted || weight->dtype != in->dtype || weight->ndim != 1 ||
                                     weight->numel != n || !gems_tensor_is_contiguous(weight)))
        return gems_decline(call, "weight is not contiguous with an element for each class");
    if (arg[3].kind != GEMS_SCALAR_INT || arg[3].i < NONE || arg[3].i > SUM || arg[4].kind != GEMS_SCALAR_INT)
        return gems_decline(call, "reduction or ignore_index is none");
    f.reduction = (uint8_t)(arg[3].i == NONE && in->ndim == 1 ? SUM : arg[3].i);
    f.ignored = arg[4].i;
    gems_call_rows(call, in->dtype, in->numel, n,
                   gems_size_plus(gems_size_bytes(in->numel, in->dtype), gems_size_bytes(target->numel, GEMS_I64)));
    *GEMS_PLAN(found, call) = f;
    return GEMS_OK;
}

/* With its results made. */
typedef struct problem {
    const found *f;
    const gems_tensor *in, *target, *weight; /* weight: NULL if there is none */
    const gems_tensor *out, *total_weight;   /* backward: the gradient's result, and an argument */
    const gems_tensor *grad;
    gems_nest in_rows, target_rows, grad_rows;
    int64_t rows, stride;
} problem;

/* What plan_rows() saw, with targets looked at. */
static gems_status open_rows(gems_call *call, const gems_work *work, int at, problem *p)
{
    const found *f = GEMS_PLAN(found, call);
    *p = (problem){.f = f,
                   .in = call->arg[at].tensor,
                   .target = call->arg[at + 1].tensor,
                   .weight = f->weighted ? call->arg[at + 2].tensor : NULL,
                   .rows = call->arg[at + 1].tensor->numel};
    if (call->dtype == GEMS_F64 && !gems_device_get(work->lane)->f64)
        return gems_decline(call, "the device has no f64");
    return gems_indices_check(call, work->lane, p->target, (gems_range){0, p->in->sizes[f->classes], f->ignored});
}

/* `in`: the tensor that has classes. */
static gems_status find_rows(gems_call *call, problem *p, const gems_tensor *in)
{
    p->stride = in->strides[p->f->classes];
    if (!gems_nest_dims(in, ~((uint64_t)1 << p->f->classes), &p->in_rows) ||
        !gems_nest_dims(p->target, ~(uint64_t)0, &p->target_rows))
        return gems_decline(call, "rank above 8");
    return GEMS_OK;
}

static void write_defines(const gems_choice *c, char *out, size_t n)
{
    const found *f = ((const problem *)c->problem)->f;
    snprintf(out, n, "#define D %s\n#define T %s\n%s%s", gems_dtypes[c->call->dtype].name,
             gems_dtypes[c->call->dtype].compute, f->weighted ? "#define WEIGHTED\n" : "",
             f->reduction == MEAN ? "#define MEAN\n" : "");
}

static gems_kernel *kernel_for(const gems_choice *c, const char *entry, size_t group)
{
    const found *f = ((const problem *)c->problem)->f;
    return gems_kernel_for(
        c, &(gems_kernel_wanted){"kernels/loss/nll_loss.cl", entry,
                                 (uint64_t)c->call->dtype << 2 | f->weighted << 1 | (f->reduction == MEAN), group,
                                 false, false, write_defines});
}

/* ---- forward -------------------------------------------------------------------------------------------------- */

static gems_status plan(gems_call *call)
{
    return plan_rows(call, 0);
}

enum {
    RUN,
    GROUP
};

/* Losses of their own, or the sums of parts, then of those. */
static void launch(const gems_choice *c)
{
    const problem *p = c->problem;
    const found *f = p->f;
    const bool run = gems_choice_index(c) == RUN, each = f->reduction == NONE;
    const size_t local = run ? 1 : gems_group(c->device, 256);
    const int64_t units = (p->rows + 255) / 256, few = 4 * (int64_t)c->device->compute_units;
    const int64_t parts = run ? gems_cpu_items(c->device, units) : each || units < few ? units : few;
    const size_t global = (size_t)parts * local;
    gems_arg args[10] = {GEMS_IN(p->in),      GEMS_IN(p->target),    GEMS_VALUE(p->in_rows), GEMS_VALUE(p->target_rows),
                         GEMS_VALUE(p->rows), GEMS_VALUE(p->stride), GEMS_VALUE(f->ignored)};
    int nargs = 7;
    const gems_arg sums =
        GEMS_SCRATCH(each ? 0 : gems_work_scratch(c->work, (size_t)parts * 4 * (c->call->dtype == GEMS_F64 ? 8 : 4)));
    if (each) {
        args[nargs++] = GEMS_OUT_ARG(p->out);
        args[nargs++] = GEMS_OUT_ARG(p->total_weight);
    } else {
        args[nargs++] = sums;
    }
    if (p->weight)
        args[nargs++] = GEMS_IN(p->weight);
    gems_launch(c->work, kernel_for(c, each ? "each" : c->variant->name, local), 1, &global, &local, args, nargs);
    if (!each) {
        gems_arg finish[] = {sums, GEMS_VALUE(parts), GEMS_OUT_ARG(p->out), GEMS_OUT_ARG(p->total_weight)};
        gems_launch(c->work, kernel_for(c, "finish", local), 1, &local, &local, finish, 4);
    }
}

static const gems_variant variants[] = {
    [RUN] = {"run", .suits = gems_suits_cpu, .launch = launch},
    [GROUP] = {"group", .suits = gems_suits_gpu, .launch = launch},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    problem p;
    if (open_rows(call, work, 0, &p) != GEMS_OK || find_rows(call, &p, p.in) != GEMS_OK)
        return GEMS_DECLINED;
    const int ndim = p.f->reduction == NONE ? p.target->ndim : 0;
    p.out = gems_call_result(call, 0, call->dtype, ndim, p.target->sizes, NULL);
    p.total_weight = gems_call_result(call, 1, call->dtype, 0, p.target->sizes, NULL);
    return p.out && p.total_weight ? gems_launch_variant(call, work, &p) : GEMS_DECLINED;
}

const gems_family gems_family_nll_loss = {
    .name = "nll_loss", .plan = plan, .prepare = prepare, .variants = variants, .small_numel = 65536};

/* ---- backward(grad_output, ..., total_weight) ------------------------------------------------------------------ */

static gems_status plan_backward(gems_call *call)
{
    const gems_tensor *grad = call->arg[0].tensor, *in = call->arg[1].tensor, *target = call->arg[2].tensor;
    const gems_tensor *total = call->arg[6].tensor;
    if (plan_rows(call, 1) != GEMS_OK)
        return GEMS_DECLINED;
    if (gems_op_attr(call->op, "planes") && !gems_tensor_is_contiguous(in))
        return gems_decline(call, "the host refuses it, or not");
    bool fits = call->arg[0].kind == GEMS_TENSOR && grad->dtype == in->dtype;
    if (fits && GEMS_PLAN(found, call)->reduction == NONE)
        fits = grad->ndim == target->ndim &&
               memcmp(grad->sizes, target->sizes, (size_t)grad->ndim * sizeof *grad->sizes) == 0;
    else
        fits = fits && grad->numel == 1 && grad->ndim <= 1;
    if (!fits || call->arg[6].kind != GEMS_TENSOR || total->dtype != in->dtype || total->numel != 1)
        return gems_decline(call, "gradient or total weight is not of the loss's dtype and shape");
    return GEMS_OK;
}

/* Zeros, then what is not. */
static void launch_scatter(const gems_choice *c)
{
    const problem *p = c->problem;
    const found *f = p->f;
    const bool cpu = c->device->is_cpu;
    const size_t local = cpu ? 1 : gems_group(c->device, 64);
    const size_t global =
        cpu ? (size_t)gems_cpu_items(c->device, (p->rows + 255) / 256) : ((size_t)p->rows + local - 1) / local * local;
    gems_arg args[11] = {GEMS_OUT_ARG(p->out),   GEMS_IN(p->target),         GEMS_IN(p->grad),
                         GEMS_VALUE(p->in_rows), GEMS_VALUE(p->target_rows), GEMS_VALUE(p->grad_rows),
                         GEMS_VALUE(p->rows),    GEMS_VALUE(p->stride),      GEMS_VALUE(f->ignored)};
    int nargs = 9;
    if (f->reduction == MEAN)
        args[nargs++] = GEMS_IN(p->total_weight);
    if (p->weight)
        args[nargs++] = GEMS_IN(p->weight);
    gems_fill_launch(c->work, p->out, 0);
    gems_launch(c->work, kernel_for(c, "scatter", local), 1, &global, &local, args, nargs);
}

static const gems_variant backward_variants[] = {{"scatter", .launch = launch_scatter}, {NULL}};

static gems_status prepare_backward(gems_call *call, gems_work *work)
{
    problem p;
    if (open_rows(call, work, 1, &p) != GEMS_OK)
        return GEMS_DECLINED;
    p.grad = call->arg[0].tensor;
    p.total_weight = call->arg[6].tensor;
    p.out = gems_call_result(call, 0, call->dtype, p.in->ndim, p.in->sizes, NULL);
    if (!p.out || find_rows(call, &p, p.out) != GEMS_OK)
        return GEMS_DECLINED;
    if (!gems_nest_dims(p.grad, ~(uint64_t)0, &p.grad_rows))
        return gems_decline(call, "rank above 8");
    return gems_launch_variant(call, work, &p);
}

const gems_family gems_family_nll_loss_backward = {.name = "nll_loss_backward",
                                                   .plan = plan_backward,
                                                   .prepare = prepare_backward,
                                                   .variants = backward_variants,
                                                   .small_numel = 65536};
