/* Gradients of layer norm: of the input, and of weight and bias, as far as output_mask asks for them. */
#include "kernels/norm/norm.h"
#include "kernels/work/wide.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

enum {
    GRAD,
    INPUT,
    SHAPE,
    MEAN,
    RSTD,
    WEIGHT,
    BIAS,
    MASK
};

enum {
    RUN /* the variant for CPUs */
};

/* What plan() found. */
typedef struct found {
    uint8_t outer_dims; /* leading dimensions: one row each */
    uint8_t affine;     /* dtype of weight, bias, mean and rstd: the input's or f32 */
    bool wanted[3];
} found;

static gems_status plan(gems_call *call)
{
    const gems_tensor *in = call->arg[INPUT].tensor, *grad = call->arg[GRAD].tensor;
    const gems_value *shape = &call->arg[SHAPE], *mask = &call->arg[MASK];
    found f = {.affine = GEMS_DTYPE_NONE};
    int64_t n;
    const char *why = gems_norm_split(&call->arg[INPUT], shape, &f.outer_dims, &n);
    if (why)
        return gems_decline(call, why);
    if (call->arg[GRAD].kind != GEMS_TENSOR || grad->dtype != in->dtype || grad->ndim != in->ndim ||
        memcmp(grad->sizes, in->sizes, (size_t)in->ndim * sizeof *in->sizes) != 0)
        return gems_decline(call, "gradient is not of the input's dtype and shape");
    if (mask->kind != GEMS_BOOLS || mask->bools.n != 3)
        return gems_decline(call, "no output_mask");
    memcpy(f.wanted, mask->bools.v, sizeof f.wanted);
    if (!f.wanted[0] && !f.wanted[1] && !f.wanted[2])
        return gems_decline(call, "no gradient is asked for");
    for (int i = 1; i < 3 && !why; i++) {
        const gems_value *v = &call->arg[i == 1 ? WEIGHT : BIAS];
        why = v->kind != GEMS_NONE || f.wanted[i] ? gems_norm_affine(v, shape, &f.affine) : NULL;
    }
    if (why)
        return gems_decline(call, why);
    if (f.affine == GEMS_DTYPE_NONE)
        f.affine = (uint8_t)in->dtype;
    if (f.affine != in->dtype && (gems_dtypes[in->dtype].size != 2 || f.affine != GEMS_F32 ||
                                  call->arg[WEIGHT].kind != GEMS_TENSOR)) /* without one the host refuses it */
        return gems_decline(call, "weight has another dtype than the input");

    for (int i = MEAN; i <= RSTD; i++) {
        const gems_tensor *t = call->arg[i].tensor;
        if (call->arg[i].kind != GEMS_TENSOR || t->dtype != f.affine || t->numel != in->numel / n ||
            !gems_tensor_is_contiguous(t))
            return gems_decline(call, "mean or rstd is not as the forward pass made it");
    }
    gems_call_rows(call, in->dtype, in->numel, n, gems_size_bytes(gems_size_times(3, in->numel), in->dtype));
    call->sizes.v[GEMS_SIZE_INNER] = 1;
    *GEMS_PLAN(found, call) = f;
    return GEMS_OK;
}

/* With its results made. */
typedef struct problem {
    const found *f;
    const gems_tensor *in, *grad, *mean, *rstd, *weight; /* weight: NULL if there is none */
    const gems_tensor *result[3];                        /* NULL: not asked for */
    gems_nest in_rows, grad_rows;
    int64_t rows, n, in_stride, grad_stride;
    int64_t parts, part_rows; /* how sums over rows are cut */
    gems_hold hold;           /* of `wide` */
} problem;

static void write_defines(const gems_choice *c, char *out, size_t n)
{
    const problem *p = c->problem;
    const found *f = p->f;
    const gems_dtype_info *in = &gems_dtypes[c->call->dtype];
    snprintf(out, n,
             "#define IN %s\n#define T %s\n#define P %s\n#define W %s\n#define S %s\n#define IF_WEIGHT(...) %s\n"
             "#define IF_DX(...) %s\n#define IF_DW(...) %s\n#define IF_DB(...) %s\n%s",
             in->name, in->compute, in->size == 8 ? "f64" : "f32", gems_dtypes[f->affine].name,
             gems_dtypes[f->affine].name, gems_norm_if(p->weight), gems_norm_if(f->wanted[0]),
             gems_norm_if(f->wanted[1]), gems_norm_if(f->wanted[2]),
             f->wanted[1] || f->wanted[2] ? "#define SUMS\n" : "");
    if (p->hold.lanes)
        gems_hold_defines(&p->hold, out + strlen(out), n - strlen(out));
}

static gems_kernel *kernel_for(const gems_choice *c, const char *entry, size_t group, bool dense)
{
    const problem *p = c->problem;
    const found *f = p->f;
    const unsigned what = (p->weight != NULL) | f->wanted[0] << 1 | f->wanted[1] << 2 | f->wanted[2] << 3;
    return gems_kernel_for(
        c, &(gems_kernel_wanted){"kernels/norm/backward.cl", entry,
                                 (uint64_t)c->call->dtype << 16 | f->affine << 8 | what | gems_hold_types(&p->hold),
                                 group, dense, false, write_defines});
}

enum {
    ROWS_ARGS = 12
};

/* What all kernels that see rows take first. */
static void rows_args(const problem *p, gems_arg args[ROWS_ARGS])
{
    const gems_arg first[ROWS_ARGS] = {
        GEMS_IN(p->in),           GEMS_IN(p->grad),           GEMS_IN(p->mean),     GEMS_IN(p->rstd),
        GEMS_VALUE(p->in_rows),   GEMS_VALUE(p->grad_rows),   GEMS_VALUE(p->rows),  GEMS_VALUE(p->n),
        GEMS_VALUE(p->in_stride), GEMS_VALUE(p->grad_stride), GEMS_VALUE(p->parts), GEMS_VALUE(p->part_rows)};
    memcpy(args, first, sizeof first);
}

/* Parts of so many rows, each of which has a row for each gradient that is a sum of rows. */
static gems_arg cut(gems_work *work, problem *p, int64_t part_rows)
{
    const int sums = p->f->wanted[1] + p->f->wanted[2];
    p->part_rows = part_rows;
    p->parts = (p->rows + part_rows - 1) / part_rows;
    size_t element = p->in->dtype == GEMS_F64 ? 8 : 4;
    return GEMS_SCRATCH(sums ? gems_work_scratch(work, (size_t)(p->parts * p->n * sums) * element) : 0);
}

static void finish(const gems_choice *c, const problem *p, gems_arg parts)
{
    gems_arg args[5] = {parts, GEMS_VALUE(p->n), GEMS_VALUE(p->parts)};
    const bool run = gems_choice_index(c) == RUN;
    const int64_t local = run ? 1 : (int64_t)gems_group(c->device, 1024), across = local < 32 ? local : 32;
    const size_t group = (size_t)local, bands = (size_t)((p->n + across - 1) / across);
    const size_t global = run ? (size_t)gems_cpu_items(c->device, (p->n + 15) / 16) : bands * group;
    int nargs = 3;
    for (int i = 1; i < 3; i++)
        if (p->result[i])
            args[nargs++] = GEMS_OUT_ARG(p->result[i]);
    if (nargs > 3)
        gems_launch(c->work, kernel_for(c, run ? "finish" : "finish_group", group, false), 1, &global, &group, args,
                    nargs);
}

/* The kernel that does everything but the sums of parts. */
static void launch_parts(const gems_choice *c, const problem *p, gems_arg parts, const char *entry, bool dense,
                         const size_t *global, const size_t *local)
{
    gems_arg args[ROWS_ARGS + 3];
    int nargs = ROWS_ARGS;
    rows_args(p, args);
    if (p->weight)
        args[nargs++] = GEMS_IN(p->weight);
    if (p->result[0])
        args[nargs++] = GEMS_OUT_ARG(p->result[0]);
    if (p->result[1] || p->result[2])
        args[nargs++] = parts;
    const int dims = gems_choice_index(c) == RUN ? 1 : 2;
    gems_launch(c->work, kernel_for(c, entry, dims == 1 ? 1 : local[0] * local[1], dense), dims, global, local, args,
                nargs);
}

/* A part is at most so long that the rounding errors of a plain sum do not matter. */
static void launch_run(const gems_choice *c)
{
    problem p = *(const problem *)c->problem;
    const int64_t share = (p.rows + gems_cpu_items(c->device, p.rows) - 1) / gems_cpu_items(c->device, p.rows);
    const gems_arg parts = cut(c->work, &p, share < 128 ? share : 128);
    const bool dense = p.in_stride == 1 && p.grad_stride == 1;
    const size_t global[2] = {(size_t)gems_cpu_items(c->device, p.parts), 1}, local[2] = {1, 1};
    launch_parts(c, &p, parts, "run", dense, global, local);
    finish(c, &p, parts);
}

/* As many items a group as there may be, which share several parts out, and a group for every multiprocessor. Some
 * items have nothing to do where a row is no power of two long. */
static void launch_wide(const gems_choice *c)
{
    problem p = *(const problem *)c->problem;
    gems_choice mine = *c;
    mine.problem = &p;
    const int64_t vectors = p.n * gems_dtypes[p.in->dtype].size / GEMS_WIDE;
    const int64_t most = (int64_t)gems_group(c->device, 1024);
    const int64_t held = gems_rule_param(c->call->rule, "held", 1);
    int64_t lanes = most < 32 ? most : 32;
    while (held * lanes < vectors && 2 * lanes <= most)
        lanes *= 2;
    const int64_t slots = most / lanes, units = slots * (int64_t)c->device->compute_units;
    const int64_t share = (p.rows + units - 1) / units;
    const gems_arg parts = cut(c->work, &p, gems_rule_param(c->call->rule, "rows", share < 128 ? share : 128));
    p.hold = (gems_hold){.lanes = lanes, .rows = slots, .held = (vectors + lanes - 1) / lanes};
    size_t global[2], local[2];
    gems_hold_items(&p.hold, p.parts, global, local);
    launch_parts(&mine, &p, parts, "wide", false, global, local);
    p.hold = (gems_hold){0};
    finish(&mine, &p, parts);
}

/* A row is a group's; 32 columns of a part are one's of 256. */
static void launch_group(const gems_choice *c)
{
    problem p = *(const problem *)c->problem;
    const size_t most = gems_group(c->device, 256);
    const int64_t share = (p.rows + 511) / 512; /* few enough parts for `finish` */
    const gems_arg parts = cut(c->work, &p, share > 64 ? share : 64);
    gems_arg args[ROWS_ARGS + 2];
    rows_args(&p, args);
    if (p.result[0]) {
        const size_t local = gems_norm_group(c->device, p.n);
        int nargs = ROWS_ARGS;
        const size_t global = (size_t)p.rows * local;
        if (p.weight)
            args[nargs++] = GEMS_IN(p.weight);
        args[nargs++] = GEMS_OUT_ARG(p.result[0]);
        gems_launch(c->work, kernel_for(c, "group", local, false), 1, &global, &local, args, nargs);
    }
    if (p.result[1] || p.result[2]) {
        const int64_t across = most < 32 ? (int64_t)most : 32, bands = (p.n + across - 1) / across;
        const size_t global = (size_t)(bands * p.parts) * most;
        args[ROWS_ARGS] = parts;
        gems_launch(c->work, kernel_for(c, "columns", most, false), 1, &global, &most, args, ROWS_ARGS + 1);
        finish(c, &p, parts);
    }
}

static bool can_wide(const gems_choice *c)
{
    const problem *p = c->problem;
    const int64_t bytes = p->n * gems_dtypes[p->in->dtype].size;
    const uintptr_t at = (p->weight ? p->weight->address : 0) | (p->result[0] ? p->result[0]->address : 0);
    return p->in_stride == 1 && p->grad_stride == 1 && p->in_rows.rank <= 1 && p->grad_rows.rank <= 1 &&
           bytes % GEMS_WIDE == 0 && bytes / GEMS_WIDE <= 2 * (int64_t)c->device->max_group && at % GEMS_WIDE == 0 &&
           gems_wide_rows(p->in, &p->in_rows) && gems_wide_rows(p->grad, &p->grad_rows);
}

static const gems_variant variants[] = {
    [RUN] = {"run", .suits = gems_suits_cpu, .launch = launch_run},
    {"wide", "rows of whole 16 bytes, at most 2 for each work-item of a group",
     .params = {{"held", 1, 2, 1, 0}, {"rows", 1, 128, 1, 0}}, .can = can_wide, .suits = gems_suits_gpu,
     .launch = launch_wide},
    {"group", .suits = gems_suits_gpu, .launch = launch_group},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    const found *f = GEMS_PLAN(found, call);
    problem p = {.f = f,
                 .in = call->arg[INPUT].tensor,
                 .grad = call->arg[GRAD].tensor,
                 .mean = call->arg[MEAN].tensor,
                 .rstd = call->arg[RSTD].tensor,
                 .weight = call->arg[WEIGHT].kind == GEMS_TENSOR ? call->arg[WEIGHT].tensor : NULL,
                 .rows = call->sizes.v[GEMS_SIZE_ROWS],
                 .n = call->sizes.v[GEMS_SIZE_COLS]};
    if (p.in->dtype == GEMS_F64 && !gems_device_get(work->lane)->f64)
        return gems_decline(call, "the device has no f64");
    if (!gems_norm_rows(p.in, f->outer_dims, &p.in_rows, &p.in_stride) ||
        !gems_norm_rows(p.grad, f->outer_dims, &p.grad_rows, &p.grad_stride))
        return gems_decline(call, "normalized dimensions are not one walk through memory");
    const int inner = p.in->ndim - f->outer_dims;
    for (unsigned i = 0; i < 3; i++)
        if (f->wanted[i] &&
            !(p.result[i] = gems_call_result(call, i, i ? (gems_dtype)f->affine : p.in->dtype, i ? inner : p.in->ndim,
                                             i ? p.in->sizes + f->outer_dims : p.in->sizes, NULL)))
            return GEMS_DECLINED;
    return gems_launch_variant(call, work, &p);
}

const gems_family gems_family_norm_backward = {
    .name = "norm_backward", .plan = plan, .prepare = prepare, .variants = variants, .small_numel = 65536};
