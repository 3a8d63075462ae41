/* Pooling of images: max_pool2d with the places of what was found, avg_pool2d, adaptive_avg_pool2d. Input
 * [images, channels, h, w] or [channels, h, w]; results are laid out as the host suggests for the input. Among equals
 * the first is found, and of several NaN the last, as in the host's loop. Averages are summed in f32 (f64 for f64). */
#include "kernels/tensor/layout.h"
#include "kernels/work/launcher.h"

#include <stdio.h>
#include <string.h>

/* As in pool.cl. */
typedef struct pool_shape {
    int64_t x_n, x_c, x_h, x_w, divisor;
    int32_t channels, h, w, p, q;
    int32_t window_h, window_w, stride_h, stride_w, pad_h, pad_w, step_h, step_w;
    int32_t count_outside;
} pool_shape;
_Static_assert(offsetof(pool_shape, count_outside) + sizeof(int32_t) == sizeof(pool_shape),
               "bytes at the end that are no member");

typedef enum pool_kind {
    MAX,
    AVERAGE,
    ADAPTIVE
} pool_kind;

/* What plan() found; its results by prepare(). */
typedef struct problem {
    const gems_tensor *x, *y, *where; /* where: of the largest; else NULL */
    pool_shape shape;
    uint8_t kind; /* pool_kind */
    bool channels_last;
} problem;

enum {
    MOST = 1 << 29 /* of sizes, so that sums of a few of them are no overflow */
};

/* The numbers for height and width that a list of one or two gives; none: `absent`. False: one outside `low` to MOST.
 */
static bool read_pair(const gems_value *v, int64_t low, const int32_t absent[2], int32_t *height, int32_t *width)
{
    if (v->kind != GEMS_INTS || v->ints.n > 2 || (v->ints.n == 0 && !absent))
        return false;
    const int64_t first = v->ints.n ? v->ints.v[0] : absent[0], last = v->ints.n ? v->ints.v[v->ints.n - 1] : absent[1];
    *height = (int32_t)first;
    *width = (int32_t)last;
    return first >= low && last >= low && first <= MOST && last <= MOST;
}

/* Rows or columns of the output. */
static int64_t extent(int64_t in, int32_t window, int32_t stride, int32_t pad, int32_t step, bool ceil)
{
    const int64_t left = in + 2 * (int64_t)pad - (int64_t)step * (window - 1) - 1 + (ceil ? stride - 1 : 0);
    const int64_t n = left < 0 || stride < 1 ? 0 : left / stride + 1;
    return ceil && (n - 1) * stride >= in + pad ? n - 1 : n;
}

/* Windows and the output's size. NULL, or why not. What the host refuses is declined too: it has the words. */
static const char *read_windows(const gems_call *call, problem *p)
{
    const gems_value *ceil = gems_call_arg(call, "ceil_mode"), *step = gems_call_arg(call, "dilation"),
                     *divisor = gems_call_arg(call, "divisor_override");
    pool_shape *z = &p->shape;
    if (p->kind == ADAPTIVE)
        return read_pair(&call->arg[1], 1, NULL, &z->p, &z->q) ? NULL : "size of the output";
    z->step_h = z->step_w = 1;
    if (!read_pair(&call->arg[1], 1, NULL, &z->window_h, &z->window_w) ||
        !read_pair(&call->arg[2], 1, (const int32_t[2]){z->window_h, z->window_w}, &z->stride_h, &z->stride_w) ||
        !read_pair(&call->arg[3], 0, NULL, &z->pad_h, &z->pad_w) ||
        (step->kind != GEMS_NONE && !read_pair(step, 1, NULL, &z->step_h, &z->step_w)) ||
        ceil->kind != GEMS_SCALAR_BOOL || (int64_t)z->step_h * z->window_h > MOST ||
        (int64_t)z->step_w * z->window_w > MOST)
        return "window, stride, padding or dilation";
    if (z->pad_h > z->window_h / 2 || z->pad_w > z->window_w / 2)
        return "padding above half of a window";
    z->count_outside = gems_call_arg(call, "count_include_pad")->i != 0;
    if (divisor->kind == GEMS_SCALAR_INT) {
        if (divisor->i == 0)
            return "divisor";
        z->divisor = divisor->i;
    } else if (divisor->kind != GEMS_NONE)
        return "divisor";
    z->p = (int32_t)extent(z->h, z->window_h, z->stride_h, z->pad_h, z->step_h, ceil->i);
    z->q = (int32_t)extent(z->w, z->window_w, z->stride_w, z->pad_w, z->step_w, ceil->i);
    return z->p < 1 || z->q < 1 ? "the window is larger than the input" : NULL;
}

static gems_status plan(gems_call *call)
{
    const gems_tensor *x = call->arg[0].tensor;
    const char *kind = gems_op_attr_or(call->op, "kind", "max"), *why;
    problem *p = GEMS_PLAN(problem, call);
    if (call->arg[0].kind != GEMS_TENSOR || x->dtype >= GEMS_DTYPE_COUNT ||
        gems_dtypes[x->dtype].category != GEMS_CAT_FLOAT)
        return gems_decline(call, "dtype");
    if ((x->ndim != 3 && x->ndim != 4) || x->numel == 0)
        return gems_decline(call, "empty, or not 3 or 4 dimensions");
    const int images = x->ndim - 3; /* where the channels are */
    const int64_t *size = x->sizes + images, *stride = x->strides + images;
    if (size[0] > MOST || size[1] > MOST || size[2] > MOST)
        return gems_decline(call, "a size above 2^29");
    *p = (problem){.x = x, .kind = *kind == 'm' ? MAX : kind[1] == 'v' ? AVERAGE : ADAPTIVE};
    p->shape = (pool_shape){.x_n = images ? x->strides[0] : 0,
                            .x_c = stride[0],
                            .x_h = stride[1],
                            .x_w = stride[2],
                            .channels = (int32_t)size[0],
                            .h = (int32_t)size[1],
                            .w = (int32_t)size[2]};
    p->channels_last = gems_suggested_format(x) == GEMS_CHANNELS_LAST;
    if ((why = read_windows(call, p)))
        return gems_decline(call, why);
    const int64_t out = gems_size_times(x->numel / (size[1] * size[2]), (int64_t)p->shape.p * p->shape.q);
    call->dtype = x->dtype;
    call->sizes.v[GEMS_SIZE_NUMEL] = x->numel;
    call->sizes.v[GEMS_SIZE_BYTES] =
        gems_size_plus(gems_size_bytes(gems_size_plus(x->numel, out), x->dtype), p->kind == MAX ? 8 * out : 0);
    return GEMS_OK;
}

enum {
    RUN,
    ITEM
};

static bool is_many(const problem *p)
{
    return p->y->numel > INT32_MAX / 2;
}

static void write_defines(const gems_choice *c, char *out, size_t n)
{
    static const char *const kinds[] = {"MAX", "AVERAGE", "ADAPTIVE"};
    const problem *p = c->problem;
    snprintf(out, n, "#define D %s\n#define WHOLE %s\n#define %s\n%s", gems_dtypes[c->call->dtype].name,
             is_many(p) ? "long" : "int", kinds[p->kind], p->channels_last ? "#define CHANNELS_LAST\n" : "");
}

static void launch(const gems_choice *c)
{
    const problem *p = c->problem;
    const bool run = gems_choice_index(c) == RUN;
    const int64_t count = p->y->numel;
    const int32_t few = (int32_t)count;
    const size_t local = run ? 1 : gems_group(c->device, 256);
    const size_t global = run ? (size_t)gems_cpu_items(c->device, count) : ((size_t)count + local - 1) / local * local;
    const gems_kernel_wanted kernel = {"kernels/pool/pool.cl",
                                       "pool",
                                       (uint64_t)c->call->dtype << 2 | (uint64_t)is_many(p) << 1 | p->channels_last,
                                       local,
                                       false,
                                       false,
                                       write_defines};
    gems_arg args[5] = {GEMS_IN(p->x), GEMS_OUT_ARG(p->y)};
    int n = 2;
    if (p->where)
        args[n++] = GEMS_OUT_ARG(p->where);
    args[n++] = GEMS_VALUE(p->shape);
    args[n++] = is_many(p) ? GEMS_VALUE(count) : GEMS_VALUE(few);
    gems_launch(c->work, gems_kernel_for(c, &kernel), 1, &global, &local, args, n);
}

static const gems_variant variants[] = {
    [RUN] = {"run", .suits = gems_suits_cpu, .launch = launch},
    [ITEM] = {"item", .suits = gems_suits_gpu, .launch = launch},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    problem p = *GEMS_PLAN(problem, call);
    if (p.x->dtype == GEMS_F64 && !gems_device_get(work->lane)->f64)
        return gems_decline(call, "the device has no f64");
    const int ndim = p.x->ndim;
    int64_t sizes[4], strides[4];
    memcpy(sizes, p.x->sizes, (size_t)ndim * sizeof *sizes);
    sizes[ndim - 2] = p.shape.p, sizes[ndim - 1] = p.shape.q;
    gems_format_strides(p.channels_last ? GEMS_CHANNELS_LAST : GEMS_CONTIGUOUS, ndim, sizes, strides);
    if (!(p.y = gems_call_result(call, 0, p.x->dtype, ndim, sizes, strides)) ||
        (p.kind == MAX && !(p.where = gems_call_result(call, 1, GEMS_I64, ndim, sizes, strides))))
        return GEMS_DECLINED;
    return gems_launch_variant(call, work, &p);
}

const gems_family gems_family_pool = {
    .name = "pool", .plan = plan, .prepare = prepare, .variants = variants, .small_numel = 16384};
