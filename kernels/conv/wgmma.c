/* Convolutions on the tensor cores of NVIDIA's compute capability 9.0: a product (kernels/blas/gemm_wgmma.cl) one of
 * whose operands is brought from the images themselves (kernels/images.cl). */
#include "kernels/conv/conv.h"
#include "kernels/embedded.h"
#include "tune/table.h"

#include <stdio.h>

/* As in images.cl. */
typedef struct images {
    int64_t apart_w, apart_h, apart_n;
    int32_t w, h, channels, images;
    int32_t out_w, out_h;
    int32_t box_w, box_h, box_n, boxes;
    int32_t stride_w, stride_h, step_w, step_h, pad_w, pad_h;
    int32_t filter_w, blocks_of_c;
    int32_t place_n, place;
} images;
_Static_assert(offsetof(images, place) + sizeof(int32_t) == sizeof(images), "bytes at the end that are no member");

enum {
    GROUP = 256, /* as in pack.cl */
    SIDE = 64,
    FEW = 8,      /* channels, of which a work-item packs all */
    LOOKS = 1024, /* groups that look for the largest elements, or fewer where images are small */
    PIECE = 8192,
    DEEP = 64,     /* channels of a block along k */
    MOST_STEP = 8, /* between pixels, of the copy engine */
    WIDTHS = 8,    /* of boxes that are tried */
    SHORT_RUN = 16 /* pixels that are written in the time that a run of them takes more */
};

/* Blocks of the product as in kernels/blas/wgmma.c, and lower and narrower ones for few filters. */
typedef struct block {
    int tm, tn, stages;
    double rate;
} block;
static const block blocks[] = {{128, 256, 4, 1},  {128, 192, 4, .97}, {128, 128, 6, .88}, {64, 256, 5, .8},
                               {64, 192, 6, .75}, {64, 128, 8, .7},   {128, 64, 8, .65},  {64, 64, 8, .5}};

enum {
    LOCAL_BYTES = 226 << 10 /* of 227 that a group may have: the compiler takes one */
};

/* What the product's columns or rows are brought from: images (images.cl), or planes of them as they are. */
typedef enum source {
    OF_PLANES,
    OF_ROWS, /* pixels are rows: the numbers are images.cl's */
    OF_COLUMNS
} source;

/* As many stages as fit beside C's chunks, what is noted of pixels, and barriers (gemm_wgmma.cl). */
static int stages_of(const block *b, source from, bool split)
{
    const int groups = b->tm / 64,
              pixels = from == OF_ROWS      ? 64
                       : from == OF_COLUMNS ? b->tn
                                            : 0,
              notes = groups * pixels * (split ? 8 : 4);
    int n = b->stages;
    while (n > 2 && n * ((b->tm + b->tn) * 128 + 16) + groups * 16384 + notes > LOCAL_BYTES)
        n--;
    return n;
}

/* How the input is brought. */
typedef struct packing {
    bool as_it_is;  /* not packed: the copy engine reads the tensor itself */
    int32_t folded; /* so many elements to a pixel, and along k all of a row that a filter's row reads; 0: not */
    int32_t columns, shift, pitch;
} packing;

static bool is_split(const gems_conv *p)
{
    return p->x->dtype == GEMS_F32;
}

/* With few channels most of a block along k would be empty: unless those of neighbouring pixels are taken together. */
static packing packing_of(const gems_conv *p)
{
    const gems_conv_shape *z = &p->shape;
    packing a = {.columns = z->w, .pitch = (int32_t)gems_ceil_div(z->channels, 8) * 8};
    int32_t each = 1;
    while (each < z->channels || each * z->stride_w % 8 != 0)
        each *= 2;
    if (((p->filter_w - 1) * z->step_w + 1) * each <= DEEP && p->filter_w > 1) {
        a.folded = a.pitch = each;
        a.shift = z->pad_w;
        /* a whole block from the last pixel of the output on, in rows at multiples of 16 bytes */
        a.columns = (int32_t)gems_ceil_div((z->q - 1) * z->stride_w + DEEP / each, 8) * 8;
        return a;
    }
    const int64_t odd = z->x_w | z->x_h | z->x_n;
    a.as_it_is = !is_split(p) && z->x_c == 1 && odd % 8 == 0 && p->x->address % 16 == 0 && z->x_w >= z->channels &&
                 z->x_h > 0 && z->x_n > 0;
    return a;
}

/* In 32 bits: this is asked a thousand times a call. */
static int ceil_of(int a, int b)
{
    return (a + b - 1) / b;
}

/* The box of at most `pixels` pixels with which all is made soonest: with the fewest boxes, or where pixels are
 * neighbours in the output with a few more whose pixels lie in longer runs. */
static void choose_box(images *g, int pixels)
{
    double least = 0;
    for (int n = 1; n <= g->images && n <= pixels; n *= 2) {
        const int room = pixels / n, reach = 255 / g->stride_w + 1;
        const int fewest = ceil_of(g->out_w, room < reach ? room : reach);
        for (int i = 0; i < WIDTHS && fewest + i <= g->out_w; i++) {
            const int w = ceil_of(g->out_w, fewest + i), across = ceil_of(g->out_w, w);
            int h = room / w < g->out_h ? room / w : g->out_h;
            while ((h - 1) * g->stride_h >= 256)
                h--;
            const int down = ceil_of(g->out_h, h);
            h = ceil_of(g->out_h, down);
            const int boxes = across * down * ceil_of(g->images, n);
            const int run = w == g->out_w ? w * h : w;
            const double time = g->place == 1 ? boxes * (1 + (double)SHORT_RUN / run) : boxes;
            if (least > 0 && time >= least)
                continue;
            least = time;
            g->box_w = w, g->box_h = h, g->box_n = n, g->boxes = boxes;
        }
    }
}

static images images_of(const gems_conv *p, const packing *a)
{
    const gems_conv_shape *z = &p->shape;
    images g = {.w = z->w,
                .h = z->h,
                .channels = z->channels,
                .images = (int32_t)p->x->sizes[0],
                .out_w = z->q,
                .out_h = p->p,
                .stride_w = z->stride_w,
                .stride_h = z->stride_h,
                .step_w = z->step_w,
                .step_h = z->step_h,
                .pad_w = z->pad_w,
                .pad_h = z->pad_h,
                .filter_w = p->filter_w,
                .blocks_of_c = (int32_t)gems_ceil_div(z->channels, DEEP),
                .place_n = (int32_t)z->y_n,
                .place = (int32_t)z->y_at};
    g.apart_w = a->as_it_is ? z->x_w : a->pitch;
    g.apart_h = a->as_it_is ? z->x_h : (int64_t)a->columns * a->pitch;
    g.apart_n = a->as_it_is ? z->x_n : z->h * g.apart_h;
    if (a->folded) { /* what a filter's row reads is a pixel's channels */
        g.w = z->q, g.channels = DEEP;
        g.apart_w = (int64_t)z->stride_w * a->pitch;
        g.stride_w = g.filter_w = g.blocks_of_c = 1;
        g.pad_w = 0;
    }
    return g;
}

static int64_t positions(const gems_conv *p, const packing *a)
{
    return a->folded ? p->filter_h : (int64_t)p->filter_h * p->filter_w;
}

bool gems_conv_can_wgmma(const gems_choice *c)
{
    const gems_conv *p = c->problem;
    const gems_conv_shape *z = &p->shape;
    return p->groups == 1 && !p->wide && z->stride_h <= MOST_STEP && z->stride_w <= MOST_STEP &&
           (double)p->filter_h * p->filter_w * (z->channels + DEEP) < 0x1p30 &&
           (double)p->x->sizes[0] * (double)z->y_n < 0x1p30 && (double)p->x->numel < 0x1p30;
}

/* What is smaller is done before all this is set up. */
bool gems_conv_suits_wgmma(const gems_choice *c)
{
    const gems_conv *p = c->problem;
    const gems_conv_shape *z = &p->shape;
    return gems_conv_can_wgmma(c) && (double)z->pixels * (double)z->outputs * (double)z->depth >= 0x1p24 &&
           z->outputs >= 16 && (packing_of(p).folded || z->channels >= 16);
}

/* The block with which all is made soonest, and the box of its pixels. */
static block block_for(const gems_choice *c, images *g)
{
    const gems_conv *p = c->problem;
    const block *best = NULL;
    images boxes[2] = {*g, *g}; /* of as many pixels as the block before had, and of the best */
    int pixels = 0;
    double least = 0;
    const int64_t tm = gems_rule_param(c->call->rule, "tm", 0), tn = gems_rule_param(c->call->rule, "tn", 0);
    for (const block *b = blocks; b < blocks + sizeof blocks / sizeof *blocks; b++) {
        const int of_pixels = p->channels_last ? b->tm : b->tn, of_outputs = p->channels_last ? b->tn : b->tm;
        if ((is_split(p) && b->tn > 192) || (tm && b->tm != tm) || (tn && b->tn != tn))
            continue;
        if (of_pixels != pixels)
            choose_box(&boxes[0], pixels = of_pixels);
        const int64_t tiles = boxes[0].boxes * gems_ceil_div(p->shape.outputs, of_outputs);
        const double time = (double)(gems_ceil_div(tiles, c->device->compute_units) * b->tm * b->tn) / b->rate;
        if (!best || time < least)
            best = b, least = time, boxes[1] = boxes[0];
    }
    if (!best)
        choose_box(&boxes[1], p->channels_last ? blocks[2].tm : blocks[2].tn);
    *g = boxes[1];
    return best ? *best : blocks[2];
}

static gems_kernel *pack_kernel(const gems_choice *c, const char *entry)
{
    const gems_conv *p = c->problem;
    const gems_macro macros[GEMS_CONV_MACROS] = {{"IN_PARTS", is_split(p)}};
    return gems_conv_kernel(c->work, p, "kernels/conv/pack.cl", entry, macros);
}

static const size_t group[3] = {GROUP, 1, 1};

/* The input's scratch. */
static int pack_images(const gems_choice *c, const packing *a)
{
    const gems_conv *p = c->problem;
    const gems_conv_shape *z = &p->shape;
    const size_t count = (size_t)p->x->sizes[0],
                 elements = count * (size_t)z->h * (size_t)a->columns * (size_t)a->pitch;
    const int64_t of_image = (int64_t)z->channels * z->h * z->w;
    const int64_t wanted = gems_ceil_div(LOOKS, (int64_t)count), most = gems_ceil_div(of_image, PIECE);
    const int32_t piece = (int32_t)gems_ceil_div(of_image, wanted < most ? wanted : most),
                  npieces = (int32_t)gems_ceil_div(of_image, piece);
    const int packed = gems_work_scratch(c->work, is_split(p) ? elements * 4 + count * 16 : elements * 2);
    gems_arg arg[9] = {GEMS_IN(p->x),          GEMS_VALUE(p->shape), GEMS_SCRATCH(packed),
                       GEMS_VALUE(a->columns), GEMS_VALUE(a->shift), GEMS_VALUE(a->pitch)};
    int n = 6;
    if (is_split(p)) {
        const int32_t dense = gems_tensor_is_dense(p->x) && z->x_n == of_image; /* its order does not matter */
        const size_t looks[3] = {(size_t)npieces * GROUP, 1, count};
        arg[n++] = GEMS_SCRATCH(gems_work_scratch(c->work, count * (size_t)npieces * 4));
        arg[n] = GEMS_VALUE(piece), arg[n + 1] = GEMS_VALUE(dense);
        gems_launch(c->work, pack_kernel(c, "largest"), 3, looks, group, arg, n + 2);
        arg[n++] = GEMS_VALUE(npieces);
    }
    const bool few = a->pitch <= FEW;
    const size_t global[3] = {(size_t)gems_ceil_div((int64_t)z->h * a->columns, few ? GROUP : SIDE) * GROUP,
                              few ? 1 : (size_t)gems_ceil_div(a->pitch, SIDE), count};
    gems_launch(c->work, pack_kernel(c, few ? "pack_few" : "pack_images"), 3, global, group, arg, n);
    return packed;
}

/* The filters' scratch. */
static int pack_filters(const gems_choice *c, const packing *a, int32_t deep)
{
    const gems_conv *p = c->problem;
    const gems_conv_shape *z = &p->shape;
    const int32_t npositions = (int32_t)positions(p, a);
    const size_t outputs = (size_t)z->outputs, elements = outputs * (size_t)npositions * (size_t)deep,
                 bytes = is_split(p) ? elements * 4 + outputs * 16 : elements * 2;
    const int64_t key[GEMS_WORK_KEY] = {z->w_o, z->w_c, z->w_r, z->w_s, npositions, a->folded << 16 | deep};
    const bool stays = gems_work_may_keep(p->w);
    const int packed = stays ? gems_work_scratch_of(c->work, p->w, bytes, key) : gems_work_scratch(c->work, bytes);
    const gems_arg arg[] = {GEMS_IN(p->w),    GEMS_VALUE(p->shape),  GEMS_SCRATCH(packed), GEMS_VALUE(npositions),
                            GEMS_VALUE(deep), GEMS_VALUE(a->folded), GEMS_VALUE(z->step_w)};
    const size_t global[3] = {outputs * GROUP, 1, 1};
    gems_launch(c->work, pack_kernel(c, "pack_filters"), 3, global, group, arg, 7);
    if (stays)
        gems_work_makes(c->work, packed);
    return packed;
}

/* What identifies a kernel of gemm_wgmma.cl. */
typedef struct kernel_id {
    const char *file;
    int64_t dtype, tm, tn, from;
} kernel_id;

static gems_kernel *product_kernel(const gems_choice *c, const block *b, source from)
{
    static const char file[] = "kernels/blas/gemm_wgmma.cl";
    const gems_conv *p = c->problem;
    const kernel_id id = {file, p->x->dtype, b->tm, b->tn, from};
    gems_kernel *kernel = gems_work_find(c->work, &id, sizeof id);
    const gems_embedded_file *f = gems_embedded_find(file);
    if (kernel || !f)
        return kernel;
    char options[192];
    snprintf(options, sizeof options,
             "-DD=%s -DS=float -DFLOAT -DTM=%d -DTN=%d -DHELD=%d -DSTAGES=%d -DA_ALONG_M=0 -DB_ALONG_N=%d%s%s",
             gems_dtypes[p->x->dtype].name, b->tm, b->tn, b->tn / 2, stages_of(b, from, is_split(p)), from == OF_PLANES,
             from == OF_ROWS      ? " -DIMAGES=1"
             : from == OF_COLUMNS ? " -DIMAGES=2"
                                  : "",
             is_split(p) ? " -DSPLIT" : "");
    return gems_work_build(c->work, &id, sizeof id, &(gems_kernel_text){file, NULL, f->text, options, "gemm"});
}

/* The product's sizes and where its operands lie; strides in elements. */
typedef struct product {
    gems_arg a, b;
    int32_t m, n, k, batches;
    int64_t a_row, b_row, b_col, c_row, d_row, d_col, a_batch, b_batch, c_batch;
} product;

static void launch(const gems_choice *c, const block *b, source from, const product *q, int64_t tiles, const images *g)
{
    const gems_conv *p = c->problem;
    const int64_t units = c->device->compute_units;
    const size_t groups = (size_t)(tiles < units ? tiles : units);
    const size_t local[3] = {(size_t)(128 * (b->tm / 64 + 1)), 1, 1}, global[3] = {groups * local[0], 1, 1};
    const int32_t part = INT32_MAX, add = p->bias != NULL;
    const int64_t none = 0, next = 1;
    const float factor = 1;
    const gems_arg arg[] = {q->a,
                            q->b,
                            GEMS_OUT_ARG(p->y),
                            GEMS_IN(add ? p->bias : p->w),
                            GEMS_SCRATCH(gems_work_scratch(c->work, groups * 256)),
                            GEMS_VALUE(q->m),
                            GEMS_VALUE(q->n),
                            GEMS_VALUE(q->k),
                            GEMS_VALUE(q->batches),
                            GEMS_VALUE(part),
                            GEMS_VALUE(q->a_row),
                            GEMS_VALUE(next),
                            GEMS_VALUE(q->b_row),
                            GEMS_VALUE(q->b_col),
                            GEMS_VALUE(q->c_row),
                            GEMS_VALUE(next),
                            GEMS_VALUE(q->d_row),
                            GEMS_VALUE(q->d_col),
                            GEMS_VALUE(q->a_batch),
                            GEMS_VALUE(q->b_batch),
                            GEMS_VALUE(q->c_batch),
                            GEMS_VALUE(none),
                            GEMS_VALUE(factor),
                            GEMS_VALUE(factor),
                            GEMS_VALUE(add),
                            GEMS_VALUE(*g)};
    const int n = (int)(sizeof arg / sizeof *arg) - (from == OF_PLANES);
    gems_launch(c->work, product_kernel(c, b, from), 3, global, local, arg, n);
}

/* Filters of one pixel read planes as they are: a product for each image. */
static bool reads_planes(const gems_conv *p)
{
    const gems_conv_shape *z = &p->shape;
    return !is_split(p) && !p->channels_last && p->filter_h == 1 && p->filter_w == 1 && z->stride_h == 1 &&
           z->stride_w == 1 && z->pad_h == 0 && z->pad_w == 0 && (z->x_w == 1 || z->w == 1) &&
           (z->x_h == z->w || z->h == 1) && z->x_c >= z->plane && (z->x_c | z->x_n) % 8 == 0 &&
           p->x->address % 16 == 0 && z->plane >= 64 && (double)p->x->sizes[0] * (double)z->plane < 0x1p30;
}

static void launch_planes(const gems_choice *c)
{
    const gems_conv *p = c->problem;
    const gems_conv_shape *z = &p->shape;
    const packing a = {.columns = z->w, .pitch = z->channels};
    const int32_t deep = (int32_t)gems_ceil_div(z->channels, DEEP) * DEEP, count = (int32_t)p->x->sizes[0];
    const block *best = &blocks[2];
    double least = 0;
    int64_t tiles = 0;
    for (const block *b = blocks; b < blocks + sizeof blocks / sizeof *blocks; b++) {
        const int64_t n = count * gems_ceil_div(z->outputs, b->tm) * gems_ceil_div(z->plane, b->tn);
        const double time = (double)(gems_ceil_div(n, c->device->compute_units) * b->tm * b->tn) / b->rate;
        if (tiles == 0 || time < least)
            best = b, least = time, tiles = n;
    }
    const product q = {.a = GEMS_SCRATCH(pack_filters(c, &a, deep)),
                       .b = GEMS_IN(p->x),
                       .m = z->outputs,
                       .n = z->plane,
                       .k = z->channels,
                       .batches = count,
                       .a_row = deep,
                       .b_row = z->x_c,
                       .b_col = 1,
                       .c_row = z->y_o,
                       .d_row = p->bias ? z->bias : 0,
                       .b_batch = z->x_n,
                       .c_batch = z->y_n};
    launch(c, best, OF_PLANES, &q, tiles, &(images){0});
}

static void launch_images(const gems_choice *c)
{
    const gems_conv *p = c->problem;
    const gems_conv_shape *z = &p->shape;
    const packing a = packing_of(p);
    images g = images_of(p, &a);
    const block b = block_for(c, &g);
    const int32_t deep = g.blocks_of_c * DEEP, k = (int32_t)positions(p, &a) * deep;
    const int filters = pack_filters(c, &a, deep);
    const int input = a.as_it_is ? -1 : pack_images(c, &a);
    const gems_arg of_input = a.as_it_is ? GEMS_IN(p->x) : GEMS_SCRATCH(input), of_filters = GEMS_SCRATCH(filters);
    const bool rows = p->channels_last; /* pixels are, of the product; else columns */
    const int32_t of_pixels = g.boxes * (rows ? b.tm : b.tn);
    const int64_t of_all = (int64_t)z->outputs * k, bias = p->bias ? z->bias : 0;
    /* Filters lie along k, in f32 high parts before low ones; bias is one line, or one column. */
    const product q = {.a = rows ? of_input : of_filters,
                       .b = rows ? of_filters : of_input,
                       .m = rows ? of_pixels : z->outputs,
                       .n = rows ? z->outputs : of_pixels,
                       .k = k,
                       .batches = 1,
                       .a_row = k,
                       .b_row = 1,
                       .b_col = k,
                       .c_row = z->y_o,
                       .d_row = rows ? 0 : bias,
                       .d_col = rows ? bias : 0,
                       .a_batch = of_all,
                       .b_batch = of_all};
    const int64_t tiles = g.boxes * gems_ceil_div(z->outputs, rows ? b.tn : b.tm);
    launch(c, &b, rows ? OF_ROWS : OF_COLUMNS, &q, tiles, &g);
    if (is_split(p))
        gems_conv_gpu(c, &(gems_conv_parts){input, filters, g.images * g.apart_n, of_all});
}

void gems_conv_wgmma(const gems_choice *c)
{
    (reads_planes(c->problem) ? launch_planes : launch_images)(c);
}
