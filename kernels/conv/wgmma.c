/* Convolutions on the tensor cores of NVIDIA's compute capability 9.0: a product (kernels/blas/gemm_wgmma.cl) one of
 * whose operands is brought from the images themselves (kernels/images.cl). */
#include "kernels/blas/wgmma.h"
#include "kernels/conv/conv.h"

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
static void choose_box(gems_wgmma_images *g, int pixels)
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

static gems_wgmma_images images_of(const gems_conv *p, const packing *a)
{
    const gems_conv_shape *z = &p->shape;
    gems_wgmma_images g = {.w = z->w,
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
static gems_wgmma_block block_for(const gems_choice *c, gems_wgmma_images *g)
{
    const gems_conv *p = c->problem;
    const gems_wgmma_block *best = NULL;
    gems_wgmma_images boxes[2] = {*g, *g}; /* of as many pixels as the block before had, and of the best */
    int pixels = 0;
    double least = 0;
    for (int i = 0; i < GEMS_WGMMA_BLOCKS; i++) {
        const gems_wgmma_block *b = &gems_wgmma_blocks[i];
        const int of_pixels = p->channels_last ? b->tm : b->tn, of_outputs = p->channels_last ? b->tn : b->tm;
        if (!gems_wgmma_is_allowed(c, b, is_split(p) ? 192 : 256))
            continue;
        if (of_pixels != pixels)
            choose_box(&boxes[0], pixels = of_pixels);
        const double time = gems_wgmma_time(c, b, boxes[0].boxes * gems_ceil_div(p->shape.outputs, of_outputs));
        if (!best || time < least)
            best = b, least = time, boxes[1] = boxes[0];
    }
    if (!best) {
        best = &gems_wgmma_blocks[GEMS_WGMMA_OTHERWISE];
        choose_box(&boxes[1], p->channels_last ? best->tm : best->tn);
    }
    *g = boxes[1];
    return *best;
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

/* Filters of one pixel read planes as they are: a product for each image. */
static bool reads_planes(const gems_conv *p)
{
    const gems_conv_shape *z = &p->shape;
    return !is_split(p) && !p->channels_last && p->filter_h == 1 && p->filter_w == 1 && z->stride_h == 1 &&
           z->stride_w == 1 && z->pad_h == 0 && z->pad_w == 0 && (z->x_w == 1 || z->w == 1) &&
           (z->x_h == z->w || z->h == 1) && z->x_c >= z->plane && (z->x_c | z->x_n) % 8 == 0 &&
           p->x->address % 16 == 0 && z->plane >= 64 && (double)p->x->sizes[0] * (double)z->plane < 0x1p30;
}

/* What both forms have: filters are packed along k, `deep` at each position; bias is one line, or one column. */
static gems_product product_of(const gems_conv *p, bool rows)
{
    const gems_conv_shape *z = &p->shape;
    const int64_t bias = p->bias ? z->bias : 0;
    gems_product q = {.dtype = p->x->dtype, .batch = 1, .add = p->bias != NULL, .alpha = 1, .beta = 1};
    q.a.tensor = rows ? p->x : p->w, q.b.tensor = rows ? p->w : p->x;
    q.c = (gems_matrix){p->y, z->y_o, 1, 0};
    q.d = (gems_matrix){p->bias, rows ? 0 : bias, rows ? bias : 0, 0};
    return q;
}

static void launch_planes(const gems_choice *c)
{
    const gems_conv *p = c->problem;
    const gems_conv_shape *z = &p->shape;
    const packing a = {.columns = z->w, .pitch = z->channels};
    const int32_t deep = (int32_t)gems_ceil_div(z->channels, DEEP) * DEEP;
    gems_product q = product_of(p, false);
    q.m = z->outputs, q.n = z->plane, q.k = z->channels, q.batch = p->x->sizes[0];
    q.a.row = deep, q.a.col = 1;
    q.b.row = z->x_c, q.b.col = 1, q.b.batch = z->x_n;
    q.c.batch = z->y_n;
    const gems_wgmma_block b = gems_wgmma_block_for(c, &q, 256, true);
    gems_wgmma_launch(
        c, &q, &b,
        &(gems_wgmma_how){
            .a = pack_filters(c, &a, deep), .b = -1, .parts = -1, .along_n = true, .nparts = 1, .part = INT32_MAX});
}

static void launch_images(const gems_choice *c)
{
    const gems_conv *p = c->problem;
    const gems_conv_shape *z = &p->shape;
    const packing a = packing_of(p);
    gems_wgmma_images g = images_of(p, &a);
    const gems_wgmma_block b = block_for(c, &g);
    const int32_t deep = g.blocks_of_c * DEEP;
    const int filters = pack_filters(c, &a, deep);
    const int input = a.as_it_is ? -1 : pack_images(c, &a);
    const bool rows = p->channels_last;
    const int64_t of_pixels = (int64_t)g.boxes * (rows ? b.tm : b.tn), k = positions(p, &a) * deep;
    gems_product q = product_of(p, rows);
    q.m = rows ? of_pixels : z->outputs, q.n = rows ? z->outputs : of_pixels, q.k = k;
    q.a.row = q.b.col = k, q.a.col = q.b.row = 1;
    q.a.batch = q.b.batch = z->outputs * k; /* of f32: where what is noted of filters stands */
    gems_wgmma_launch(c, &q, &b,
                      &(gems_wgmma_how){.a = rows ? input : filters,
                                        .b = rows ? filters : input,
                                        .parts = -1,
                                        .split = is_split(p),
                                        .nparts = 1,
                                        .part = INT32_MAX,
                                        .pixels = rows ? GEMS_WGMMA_ROWS : GEMS_WGMMA_COLUMNS,
                                        .images = &g});
    if (is_split(p))
        gems_conv_gpu(c, &(gems_conv_parts){input, filters, g.images * g.apart_n, z->outputs * k});
}

void gems_conv_wgmma(const gems_choice *c)
{
    (reads_planes(c->problem) ? launch_planes : launch_images)(c);
}
