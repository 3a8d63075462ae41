/* sort, and topk, which keeps the first k. Equal elements keep their order, falling or rising. But for stable sorts
 * PyTorch promises no order of equal elements, and its own differs from one CPU and device to another. */
#include "kernels/reduce/reduce.h"
#include "kernels/tensor/layout.h"

#include <stdio.h>

typedef struct sorting {
    gems_reduction along;
    int64_t k; /* elements of a result's row */
    bool descending;
} sorting;

static gems_status plan_order(gems_call *call, sorting *s, int64_t n)
{
    const gems_value *k = gems_call_arg(call, "k"), *sorted = gems_call_arg(call, "sorted");
    const gems_value *descending = gems_call_arg(call, k->kind == GEMS_NONE ? "descending" : "largest");
    if (descending->kind != GEMS_SCALAR_BOOL)
        return gems_decline(call, "descending is not a plain bool");
    s->descending = descending->i;
    s->k = n;
    if (gems_op_param(call->op, "k") < 0)
        return GEMS_OK;
    if (k->kind != GEMS_SCALAR_INT || k->i < 1 || k->i > n || call->arg[0].tensor->dtype == GEMS_BOOL)
        return gems_decline(call, "k is out of range, or the host has no such dtype");
    if (sorted->kind != GEMS_SCALAR_BOOL || !sorted->i)
        return gems_decline(call, "in no order");
    s->k = k->i;
    return GEMS_OK;
}

static gems_status plan(gems_call *call)
{
    sorting *s = GEMS_PLAN(sorting, call);
    if (gems_call_arg(call, "dim")->kind != GEMS_SCALAR_INT)
        return gems_decline(call, "dim is not a plain number");
    gems_status status = gems_reduce_dims(call, &s->along);
    if (status != GEMS_OK)
        return status;
    const gems_tensor *in = call->arg[0].tensor;
    const int64_t n = call->sizes.v[GEMS_SIZE_COLS];
    if (in->ndim == 0)
        return gems_decline(call, "no dimension");
    if (n >= INT32_MAX)
        return gems_decline(call, "a row is too long");
    status = plan_order(call, s, n);
    int64_t *bytes = &call->sizes.v[GEMS_SIZE_BYTES];
    if (status == GEMS_OK)
        *bytes = gems_size_plus(*bytes,
                                gems_size_times(call->sizes.v[GEMS_SIZE_ROWS] * s->k, 8 + gems_dtypes[in->dtype].size));
    return status;
}

/* With results made. */
typedef struct problem {
    const gems_tensor *in, *values, *indices;
    gems_nest kept, to;
    int64_t rows, n, stride, to_stride, k;
    int32_t descending;
} problem;

static void write_defines(const gems_choice *c, char *text, size_t n)
{
    static const char *const raw[] = {[1] = "uchar", [2] = "ushort", [4] = "uint", [8] = "ulong"};
    const gems_dtype_info *in = &gems_dtypes[c->call->dtype];
    const bool wide = in->size == 8, is_float = in->category == GEMS_CAT_FLOAT;
    const bool is_signed = in->category == GEMS_CAT_INT && c->call->dtype != GEMS_U8;
    snprintf(text, n, "#define IN %s\n#define RAW %s\n#define K %s\n%s", in->name, raw[in->size],
             wide ? "ulong" : "uint",
             is_float    ? wide ? "#define AS_K as_ulong\n#define INFINITE 0x7ff0000000000000UL\n"
                                : "#define AS_K as_uint\n#define INFINITE 0x7f800000u\n"
             : is_signed ? "#define IS_SIGNED\n"
                         : "");
}

static gems_kernel *kernel_for(const gems_choice *c, const char *entry, bool part, size_t group)
{
    return gems_kernel_for(
        c, &(gems_kernel_wanted){"kernels/sort/sort.cl", entry, c->call->dtype, group, false, part, write_defines});
}

/* Keys and places of all elements, in scratch memory. */
typedef struct pieces {
    int keys, places;
} pieces;

static pieces pieces_new(const gems_choice *c)
{
    const problem *p = c->problem;
    const size_t all = (size_t)(p->rows * p->n), key = gems_dtypes[c->call->dtype].size == 8 ? 8 : 4;
    const int keys = gems_work_scratch(c->work, all * key);
    return (pieces){keys, gems_work_scratch(c->work, all * 4)};
}

/* A launch of `items` work-items, in groups where that is not a CPU. */
static void launch(const gems_choice *c, const char *entry, int64_t items, const gems_arg *args, int nargs)
{
    const size_t local = c->device->is_cpu ? 1 : gems_group(c->device, 256);
    const size_t global = (size_t)gems_ceil_div(items, (int64_t)local) * local;
    gems_launch(c->work, kernel_for(c, entry, false, local), 1, &global, &local, args, nargs);
}

/* Merges pieces of `width`, which lie in `from`, until each row is one. `each`: elements of a work-item. */
static pieces merge(const gems_choice *c, pieces from, pieces to, int64_t width, int64_t each)
{
    const problem *p = c->problem;
    for (; width < p->n; width *= 2) {
        const gems_arg args[] = {GEMS_SCRATCH(from.keys), GEMS_SCRATCH(from.places), GEMS_SCRATCH(to.keys),
                                 GEMS_SCRATCH(to.places), GEMS_VALUE(p->rows),       GEMS_VALUE(p->n),
                                 GEMS_VALUE(width),       GEMS_VALUE(each)};
        launch(c, "merge", p->rows * gems_ceil_div(p->n, each), args, 8);
        const pieces other = from;
        from = to;
        to = other;
    }
    return from;
}

static void place(const gems_choice *c, pieces sorted)
{
    const problem *p = c->problem;
    const gems_arg args[] = {GEMS_IN(p->in),           GEMS_SCRATCH(sorted.places), GEMS_OUT_ARG(p->values),
                             GEMS_OUT_ARG(p->indices), GEMS_VALUE(p->to),           GEMS_VALUE(p->to_stride),
                             GEMS_VALUE(p->k),         GEMS_VALUE(p->kept),         GEMS_VALUE(p->rows),
                             GEMS_VALUE(p->n),         GEMS_VALUE(p->stride)};
    const int64_t all = p->rows * p->k;
    launch(c, "place", c->device->is_cpu ? gems_cpu_items(c->device, all) : all, args, 11);
}

static void launch_run(const gems_choice *c)
{
    const problem *p = c->problem;
    const int64_t each = 4096, items = gems_cpu_items(c->device, INT32_MAX);
    int64_t piece = each;
    while (piece < p->n && piece * items < p->rows * p->n)
        piece *= 2;
    const int64_t count = gems_ceil_div(p->n, piece);
    const pieces first = pieces_new(c), second = pieces_new(c);
    const gems_arg args[] = {GEMS_IN(p->in),
                             GEMS_SCRATCH(first.keys),
                             GEMS_SCRATCH(first.places),
                             GEMS_SCRATCH(second.keys),
                             GEMS_SCRATCH(second.places),
                             GEMS_VALUE(p->kept),
                             GEMS_VALUE(p->rows),
                             GEMS_VALUE(p->n),
                             GEMS_VALUE(p->stride),
                             GEMS_VALUE(count),
                             GEMS_VALUE(piece),
                             GEMS_VALUE(p->descending)};
    launch(c, "run", gems_cpu_items(c->device, p->rows * count), args, 12);
    place(c, merge(c, first, second, piece, each));
}

enum {
    TILE = 2048 /* as in sort.cl */
};

static void launch_group(const gems_choice *c)
{
    const problem *p = c->problem;
    const bool part = p->n > TILE;
    const int64_t count = gems_ceil_div(p->n, TILE);
    int32_t padded = 1;
    while (padded < TILE && padded < p->n)
        padded *= 2;
    gems_arg args[13] = {GEMS_IN(p->in)};
    int nargs = 1;
    pieces first = {0, 0};
    if (part) {
        first = pieces_new(c);
        args[nargs++] = GEMS_SCRATCH(first.keys);
        args[nargs++] = GEMS_SCRATCH(first.places);
    } else {
        args[nargs++] = GEMS_OUT_ARG(p->values);
        args[nargs++] = GEMS_OUT_ARG(p->indices);
        args[nargs++] = GEMS_VALUE(p->to);
        args[nargs++] = GEMS_VALUE(p->to_stride);
        args[nargs++] = GEMS_VALUE(p->k);
    }
    args[nargs++] = GEMS_VALUE(p->kept);
    args[nargs++] = GEMS_VALUE(p->rows);
    args[nargs++] = GEMS_VALUE(p->n);
    args[nargs++] = GEMS_VALUE(p->stride);
    args[nargs++] = GEMS_VALUE(count);
    args[nargs++] = GEMS_VALUE(padded);
    args[nargs++] = GEMS_VALUE(p->descending);
    const size_t local = gems_group(c->device, 256);
    const size_t global = (size_t)gems_ceil_div(p->rows * count, TILE / padded) * local;
    gems_launch(c->work, kernel_for(c, "group", part, local), 1, &global, &local, args, nargs);
    if (part)
        place(c, merge(c, first, pieces_new(c), TILE, 16));
}

static const gems_variant variants[] = {
    {"run", .suits = gems_suits_cpu, .launch = launch_run},
    {"group", .suits = gems_suits_gpu, .launch = launch_group},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    const sorting *s = GEMS_PLAN(sorting, call);
    const gems_tensor *in = call->arg[0].tensor;
    const int dim = __builtin_ctzll(s->along.dims);
    int64_t sizes[16], strides[16];
    if (!gems_device_get(work->lane)->f64 && in->dtype == GEMS_F64)
        return gems_decline(call, "the device has no f64");
    if (in->ndim > GEMS_DIMS)
        return gems_decline(call, "rank above 8");
    for (int d = 0; d < in->ndim; d++)
        sizes[d] = d == dim ? s->k : in->sizes[d];
    gems_preserved_strides(in, strides);
    const bool whole = gems_op_param(call->op, "k") < 0;
    const gems_tensor *values = gems_call_result(call, 0, in->dtype, in->ndim, sizes, whole ? strides : NULL);
    const gems_tensor *indices = gems_call_result(call, 1, GEMS_I64, in->ndim, sizes, whole ? strides : NULL);
    if (!values || !indices)
        return GEMS_DECLINED;
    problem p = {.in = in,
                 .values = values,
                 .indices = indices,
                 .rows = call->sizes.v[GEMS_SIZE_ROWS],
                 .n = call->sizes.v[GEMS_SIZE_COLS],
                 .stride = in->strides[dim],
                 .to_stride = values->strides[dim],
                 .k = s->k,
                 .descending = s->descending};
    if (!gems_nest_dims(in, ~s->along.dims, &p.kept) || !gems_nest_dims(values, ~s->along.dims, &p.to))
        return gems_decline(call, "rank above 8");
    return gems_launch_variant(call, work, &p);
}

const gems_family gems_family_sort = {
    .name = "sort", .plan = plan, .prepare = prepare, .variants = variants, .small_numel = 8192};
