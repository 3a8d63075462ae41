/* Convolution of images and of signals (one row high), forward and not transposed: see conv.cl for the formula.
 *
 * input [images, groups channels, h, w], weight [groups outputs, channels, r, s], bias [groups outputs] or none; with
 * three dimensions h and r are left out. The result is laid out as the host does it: channels last if input or weight
 * suggest that, else contiguous. Sums in f32 for f16, bf16 and f32, in f64 for f64, rounded once. */
#include "kernels/conv/conv.h"
#include "kernels/embedded.h"
#include "kernels/tensor/layout.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

enum {
    MOST = 1 << 30, /* of sizes, so that sums of a few of them are no overflow */
    FLUSHED = 8192  /* longer sums are made in parts, by GPUs: a second set of sums halves the groups that fit one */
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
/* The numbers for height and width that a list gives, `fixed` for a height that is not there. False: not so many, or
 * one outside `low` to MOST. */
static bool read_pair(const gems_value *v, int dims, int64_t low, int32_t fixed, int32_t *height, int32_t *width)
{
    if (v->kind != GEMS_INTS || (v->ints.n != 1 && v->ints.n != (size_t)dims))
        return false;
    const int64_t first = v->ints.v[0], last = v->ints.v[v->ints.n - 1];
    if (first < low || last < low || first > MOST || last > MOST)
        return false;
    *height = dims == 1 ? fixed : (int32_t)first;
    *width = (int32_t)last;
    return true;
}

/* Input or weight with four dimensions: a height of 1 is put in where it has three. */
static gems_tensor with_height(const gems_tensor *t, int64_t sizes[4], int64_t strides[4])
{
    gems_tensor four = *t;
    for (int d = 0; d < 4; d++) {
        const int from = d < 2 || t->ndim == 4 ? d : d - 1;
        const bool put_in = d == 2 && t->ndim == 3;
        sizes[d] = put_in ? 1 : t->sizes[from];
        strides[d] = put_in ? t->sizes[2] * t->strides[2] : t->strides[from];
    }
    four.ndim = 4;
    four.sizes = sizes;
    four.strides = strides;
    return four;
}

/* Rows or columns of the output, or 0. */
static int64_t extent(int64_t in, int32_t filter, int32_t stride, int32_t pad, int32_t step)
{
    const int64_t left = in + 2 * (int64_t)pad - (int64_t)step * (filter - 1) - 1;
    return left < 0 ? 0 : left / stride + 1;
}

/* The stride of k as it counts in kernels, or -1. */
static int64_t stride_of_k(const gems_conv_shape *z, int32_t filter_h, int32_t filter_w, bool channels_last)
{
    const int64_t of[3] = {z->w_s, z->w_r, z->w_c}, n[3] = {filter_w, filter_h, z->channels};
    int64_t stride = -1, next = 0;
    for (int i = 0; i < 3; i++) {
        const int d = channels_last ? (i + 2) % 3 : i; /* from the fastest on */
        if (n[d] == 1)
            continue;
        if (stride < 0)
            stride = of[d];
        else if (of[d] != next)
            return -1;
        next = of[d] * n[d];
    }
    return stride < 0 ? 1 : stride;
}

/* NULL, or why not. What the host refuses is declined too: it has the words. */
static const char *read_call(const gems_call *call, gems_conv *p)
{
    const gems_value *arg = call->arg;
    const gems_tensor *x = arg[0].tensor, *w = arg[1].tensor;
    if (arg[0].kind != GEMS_TENSOR || arg[1].kind != GEMS_TENSOR)
        return "operand missing";
    if (x->dtype >= GEMS_DTYPE_COUNT || gems_dtypes[x->dtype].category != GEMS_CAT_FLOAT)
        return "dtype";
    if (w->dtype != x->dtype || (arg[2].kind == GEMS_TENSOR && arg[2].tensor->dtype != x->dtype))
        return "operands of different dtypes";
    if (arg[6].kind != GEMS_SCALAR_BOOL || arg[6].i)
        return "transposed";
    if ((x->ndim != 3 && x->ndim != 4) || w->ndim != x->ndim)
        return "not 3 or 4 dimensions";
    if (x->numel == 0 || w->numel == 0)
        return "empty";
    const int dims = x->ndim - 2;
    gems_conv_shape *z = &p->shape;
    int32_t ignored[2];
    if (!read_pair(&arg[3], dims, 1, 1, &z->stride_h, &z->stride_w) ||
        !read_pair(&arg[4], dims, 0, 0, &z->pad_h, &z->pad_w) ||
        !read_pair(&arg[5], dims, 1, 1, &z->step_h, &z->step_w) ||
        !read_pair(&arg[7], dims, 0, 0, &ignored[0], &ignored[1]) || arg[8].kind != GEMS_SCALAR_INT)
        return "stride, padding, dilation or groups";

    int64_t xs[4], xt[4], ws[4], wt[4];
    const gems_tensor x4 = with_height(x, xs, xt), w4 = with_height(w, ws, wt);
    const int64_t groups = arg[8].i;
    if (groups < 1 || ws[0] % groups != 0 || xs[1] % groups != 0 || xs[1] / groups != ws[1])
        return "shapes do not match";
    for (int d = 0; d < 4; d++)
        if (xs[d] > MOST || ws[d] > MOST)
            return "a size above 2^30";
    const int64_t ph = extent(xs[2], (int32_t)ws[2], z->stride_h, z->pad_h, z->step_h),
                  qw = extent(xs[3], (int32_t)ws[3], z->stride_w, z->pad_w, z->step_w);
    if (ph == 0 || qw == 0)
        return "the filter is larger than the input";
    const int64_t depth = gems_size_times(gems_size_times(ws[1], ws[2]), ws[3]),
                  pixels = gems_size_times(gems_size_times(xs[0], ph), qw);
    if (depth > MOST || pixels > MOST || xs[2] + 2 * (int64_t)z->pad_h > MOST || xs[3] + 2 * (int64_t)z->pad_w > MOST ||
        groups > 65535)
        return "a size above 2^30";

    p->x = x, p->w = w, p->bias = NULL;
    z->bias = -1;
    if (arg[2].kind == GEMS_TENSOR) {
        p->bias = arg[2].tensor;
        if (p->bias->ndim != 1 || p->bias->sizes[0] != ws[0])
            return "shapes do not match";
        z->bias = p->bias->strides[0];
    } else if (arg[2].kind != GEMS_NONE)
        return "bias";
    p->groups = groups;
    p->p = (int32_t)ph, z->q = (int32_t)qw;
    p->filter_h = (int32_t)ws[2], p->filter_w = (int32_t)ws[3];
    /* The host makes signals contiguous first, if they are not. */
    p->channels_last =
        ((dims == 2 || gems_tensor_is_contiguous(x)) && gems_suggested_format(&x4) == GEMS_CHANNELS_LAST) ||
        gems_suggested_format(&w4) == GEMS_CHANNELS_LAST;
    z->channels = (int32_t)ws[1], z->outputs = (int32_t)(ws[0] / groups);
    z->h = (int32_t)xs[2], z->w = (int32_t)xs[3];
    z->plane = (int32_t)(ph * qw), z->pixels = (int32_t)pixels, z->depth = (int32_t)depth;
    z->x_n = xt[0], z->x_c = xt[1], z->x_h = xt[2], z->x_w = xt[3];
    z->w_o = wt[0], z->w_c = wt[1], z->w_r = wt[2], z->w_s = wt[3];
    z->w_k = stride_of_k(z, p->filter_h, p->filter_w, p->channels_last);
    const int64_t around = gems_size_plus(gems_size_times(z->pad_h, z->x_h), gems_size_times(z->pad_w, z->x_w));
    p->wide = gems_size_plus(gems_tensor_span(x), gems_size_times(2, around)) > MOST || gems_tensor_span(w) > MOST;
    return NULL;
}

static gems_status plan(gems_call *call)
{
    gems_conv *p = GEMS_PLAN(gems_conv, call);
    const char *why = read_call(call, p);
    if (why)
        return gems_decline(call, why);
    const int64_t out = gems_size_times(p->shape.pixels, p->groups * p->shape.outputs);
    call->dtype = p->x->dtype;
    call->sizes.v[GEMS_SIZE_M] = p->shape.outputs;
    call->sizes.v[GEMS_SIZE_N] = p->shape.pixels;
    call->sizes.v[GEMS_SIZE_K] = p->shape.depth;
    call->sizes.v[GEMS_SIZE_BATCH] = p->groups;
    call->sizes.v[GEMS_SIZE_NUMEL] = p->x->numel > p->w->numel ? p->x->numel : p->w->numel;
    call->sizes.v[GEMS_SIZE_BYTES] =
        gems_size_bytes(gems_size_plus(gems_size_plus(p->x->numel, p->w->numel), out), p->x->dtype);
    return GEMS_OK;
}

/* What identifies a kernel of the family. */
typedef struct kernel_id {
    const char *file, *entry;
    int64_t dtype, filter_h, filter_w, form, value[GEMS_CONV_MACROS];
} kernel_id;

gems_kernel *gems_conv_kernel(gems_work *work, const gems_conv *p, const char *file, const char *entry,
                              const gems_macro macros[GEMS_CONV_MACROS])
{
    const bool linear = p->shape.w_k >= 0;
    kernel_id id = {file, entry, p->x->dtype, p->filter_h, p->filter_w, p->channels_last | p->wide << 1 | linear << 2,
                    {0}};
    for (int i = 0; i < GEMS_CONV_MACROS; i++)
        id.value[i] = macros[i].value;
    gems_kernel *kernel = gems_work_find(work, &id, sizeof id);
    const gems_embedded_file *f = gems_embedded_find(file);
    if (kernel || !f)
        return kernel;
    char options[256];
    int n = snprintf(options, sizeof options, "-DD=%s -DFILTER_H=%d -DFILTER_W=%d%s%s%s", gems_dtypes[p->x->dtype].name,
                     p->filter_h, p->filter_w, p->channels_last ? " -DCHANNELS_LAST" : "", p->wide ? " -DWIDE" : "",
                     linear ? " -DLINEAR" : "");
    for (int i = 0; i < GEMS_CONV_MACROS; i++)
        if (macros[i].value)
            n += snprintf(options + n, sizeof options - (size_t)n, " -D%s=%d", macros[i].name, macros[i].value);
    return gems_work_build(work, &id, sizeof id, &(gems_kernel_text){file, NULL, f->text, options, entry});
}

enum {
    OWN = 4
};
/* With up to OWN more values of the variant's own. */
static void launch(gems_work *work, gems_kernel *kernel, const gems_conv *p, const size_t global[3],
                   const size_t local[3], const gems_arg *own, int nown)
{
    gems_arg args[5 + OWN] = {GEMS_IN(p->x), GEMS_IN(p->w), GEMS_IN(p->bias ? p->bias : p->w), GEMS_OUT_ARG(p->y),
                              GEMS_VALUE(p->shape)};
    for (int i = 0; i < nown; i++)
        args[5 + i] = own[i];
    gems_launch(work, kernel, 3, global, local, args, 5 + nown);
}

static bool is_double(const gems_conv *p)
{
    return p->x->dtype == GEMS_F64;
}

/* Blocks of at most 96 x 256: even ones, and smaller ones until each core has a few. */
static void launch_cpu(const gems_choice *c)
{
    const gems_conv *p = c->problem;
    const gems_conv_shape *z = &p->shape;
    const size_t element = is_double(p) ? 8 : 4;
    int64_t mc = gems_rule_param(c->call->rule, "tm", 96), nc = gems_rule_param(c->call->rule, "tn", 256), kc = 256;
    while (((mc + 16) * (kc + 16 + nc) + kc * 32) * (int64_t)element > (int64_t)c->device->local_bytes && kc > 32)
        kc /= 2, nc = nc > 32 ? nc / 2 : nc, mc = mc > 16 ? mc / 2 / 16 * 16 : mc;
    const gems_macro macros[GEMS_CONV_MACROS] = {{"MC", (int)mc}, {"NC", (int)nc}, {"KC", (int)kc}};
    gems_kernel *kernel = gems_conv_kernel(c->work, p, "kernels/conv/conv_cpu.cl", "conv", macros);

    const int64_t m = p->channels_last ? z->pixels : z->outputs, n = p->channels_last ? z->outputs : z->pixels;
    while (p->groups * gems_ceil_div(m, mc) * gems_ceil_div(n, nc) < 4 * (int64_t)c->device->compute_units &&
           (nc > 64 || mc > 48))
        *(nc > 64 ? &nc : &mc) /= 2;
    mc = least(mc, gems_ceil_div(gems_ceil_div(m, gems_ceil_div(m, mc)), 8) * 8);
    nc = least(nc, gems_ceil_div(gems_ceil_div(n, gems_ceil_div(n, nc)), 32) * 32);
    const int32_t rows = (int32_t)mc, cols = (int32_t)nc;
    const gems_arg own[2] = {GEMS_VALUE(rows), GEMS_VALUE(cols)};
    const size_t local[3] = {1, 1, 1}, across = (size_t)gems_ceil_div(m, mc), along = (size_t)gems_ceil_div(n, nc);
    const size_t global[3] = {p->channels_last ? across : along, p->channels_last ? along : across, (size_t)p->groups};
    launch(c->work, kernel, p, global, local, own, 2);
}

void gems_conv_gpu(const gems_choice *c, const gems_conv_parts *parts)
{
    const gems_conv *p = c->problem;
    const gems_conv_shape *z = &p->shape;
    const gems_device_info *device = c->device;
    /* Large blocks where they still fill the device. */
    const int64_t m = p->channels_last ? z->pixels : z->outputs, n = p->channels_last ? z->outputs : z->pixels;
    const int64_t blocks = p->groups * gems_ceil_div(m, 128) * gems_ceil_div(n, 128);
    const bool large = !is_double(p) && blocks >= device->compute_units;
    int tm = (int)gems_rule_param(c->call->rule, "tm", large && m > 64 ? 128 : 64);
    int tn = (int)gems_rule_param(c->call->rule, "tn", large && n > 64 ? 128 : 64);
    int tk = 16, gx = 16, gy = 16;
    while ((size_t)gx * (size_t)gy > device->max_group && (gx > 4 || gy > 4))
        *(gy > 4 ? &gy : &gx) /= 2;
    if (tm != 128 || gy < 16) /* fewer work-items have no registers for a large block */
        tm = 64;
    if (tn != 128 || gy < 16)
        tn = 64;
    while ((size_t)tk * (size_t)(tm + tn + 8) * (is_double(p) ? 8 : 4) > device->local_bytes && tk > 4)
        tk /= 2;
    const gems_macro macros[GEMS_CONV_MACROS] = {{"TM", tm},
                                                 {"TN", tn},
                                                 {"TK", tk},
                                                 {"GX", gx},
                                                 {"GY", gy},
                                                 {"FLUSH", z->depth > FLUSHED ? 512 : 0},
                                                 {"REST", parts != NULL}};
    gems_kernel *kernel = gems_conv_kernel(c->work, p, "kernels/conv/conv_gpu.cl", "conv", macros);
    const int64_t of_pixels = p->channels_last ? tm : tn, of_outputs = p->channels_last ? tn : tm;
    const size_t local[3] = {(size_t)gx, (size_t)gy, 1};
    const size_t global[3] = {(size_t)(gx * gems_ceil_div(z->pixels, of_pixels)),
                              (size_t)(gy * gems_ceil_div(z->outputs, of_outputs)), (size_t)p->groups};
    gems_arg own[OWN];
    int nown = 0;
    if (parts) {
        own[nown++] = GEMS_SCRATCH(parts->input);
        own[nown++] = GEMS_SCRATCH(parts->filters);
        own[nown++] = GEMS_VALUE(parts->input_elements);
        own[nown++] = GEMS_VALUE(parts->filter_elements);
    }
    launch(c->work, kernel, p, global, local, own, nown);
}

static void launch_gpu(const gems_choice *c)
{
    gems_conv_gpu(c, NULL);
}

static void launch_direct(const gems_choice *c)
{
    const gems_conv *p = c->problem;
    const int32_t total = (int32_t)(p->groups * p->shape.outputs);
    const int64_t count = p->y->numel;
    const bool many = count > MOST;
    const int32_t few = (int32_t)count;
    const gems_macro macros[GEMS_CONV_MACROS] = {{"MANY", many}};
    gems_kernel *kernel = gems_conv_kernel(c->work, p, "kernels/conv/conv_direct.cl", "conv", macros);
    const size_t local[3] = {gems_group(c->device, c->device->is_cpu ? 64 : 256), 1, 1};
    const size_t global[3] = {(size_t)gems_ceil_div(count, (int64_t)local[0]) * local[0], 1, 1};
    const gems_arg own[2] = {many ? GEMS_VALUE(count) : GEMS_VALUE(few), GEMS_VALUE(total)};
    launch(c->work, kernel, p, global, local, own, 2);
}

/* So few channels in a group that most of a block would be empty. */
static bool suits_direct(const gems_choice *c)
{
    const gems_conv *p = c->problem;
    return p->shape.outputs <= 8 && p->shape.depth <= 1024;
}

static bool suits_cpu(const gems_choice *c)
{
    return c->device->is_cpu && c->device->local_bytes >= 128 << 10;
}

static const gems_variant variants[] = {
    {"direct", .suits = suits_direct, .launch = launch_direct},
    {"cpu", .params = {{"tm", 16, 256, 16, 96}, {"tn", 32, 1024, 32, 256}}, .suits = suits_cpu, .launch = launch_cpu},
    {"wgmma", "PTX of compute capability 9.0, one group of channels",
     .dtypes = 1 << GEMS_F16 | 1 << GEMS_BF16 | 1 << GEMS_F32,
     .params = {{"tm", 64, 128, 64, 0}, {"tn", 64, 256, 64, 0}}, .device = gems_device_has_wgmma,
     .can = gems_conv_can_wgmma, .suits = gems_conv_suits_wgmma, .launch = gems_conv_wgmma},
    {"gpu", NULL, .params = {{"tm", 64, 128, 64, 0}, {"tn", 64, 128, 64, 0}}, .launch = launch_gpu},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    gems_conv p = *GEMS_PLAN(gems_conv, call);
    if (is_double(&p) && !gems_device_get(work->lane)->f64)
        return gems_decline(call, "the device has no f64");
    const int64_t outputs = p.groups * p.shape.outputs, images = p.x->sizes[0];
    const int64_t sizes[4] = {images, outputs, p.p, p.shape.q}, signal[3] = {images, outputs, p.shape.q};
    int64_t strides[4];
    gems_format_strides(p.channels_last ? GEMS_CHANNELS_LAST : GEMS_CONTIGUOUS, 4, sizes, strides);
    const int64_t signal_strides[3] = {strides[0], strides[1], strides[3]};
    if (p.x->ndim == 4)
        p.y = gems_call_result(call, 0, p.x->dtype, 4, sizes, strides);
    else
        p.y = gems_call_result(call, 0, p.x->dtype, 3, signal, signal_strides);
    if (!p.y)
        return GEMS_DECLINED;
    p.shape.y_n = outputs * p.shape.plane;
    p.shape.y_o = p.channels_last ? 1 : p.shape.plane;
    p.shape.y_at = p.channels_last ? outputs : 1;
    return gems_launch_variant(call, work, &p);
}

const gems_family gems_family_conv = {.name = "conv", .plan = plan, .prepare = prepare, .variants = variants};
