/* kernels/conv/pack.cl and conv_gpu.cl's REST: what convolutions of f32 on tensor cores (compute capability 9.0) do
 * around them. They run on any device. */
#include "kernels/conv/conv.h"
#include "tests/unit/device_jobs.h"

#include <criterion/criterion.h>
#include <math.h>

TestSuite(conv_pack, .timeout = 300);

enum {
    GROUP = 256,
    SIDE = 64,
    COUNT = 3, /* images */
    NOTES = 4  /* numbers noted of an image, or a filter */
};

/* A convolution of COUNT images, and how its input is packed: see PACKED in pack.cl. */
typedef struct sample {
    int channels, h, w, filter_h, filter_w, outputs;
    bool last; /* channels are neighbours in memory */
    int32_t columns, shift, pitch, piece;
    gems_conv p;
    vector of_x, of_w, of_y;
    float *x, *filters, *y;
    uint16_t *packed, *packed_filters;
    int64_t parts, filter_parts; /* elements */
} sample;

static int64_t at(const sample *s, int n, int c, int row, int column)
{
    const gems_conv_shape *z = &s->p.shape;
    return n * z->x_n + c * z->x_c + row * z->x_h + column * z->x_w;
}

static int32_t *notes(uint16_t *packed, int64_t elements)
{
    return (int32_t *)(void *)(packed + 2 * elements);
}

static float random_number(void)
{
    return (float)rand() / (float)RAND_MAX - 0.5F;
}

static void begin(sample *s, int positions, int deep)
{
    gems_conv_shape *z = &s->p.shape;
    const int64_t plane = (int64_t)s->h * s->w, total = COUNT * s->channels * plane;
    const int64_t of_filter = (int64_t)s->channels * s->filter_h * s->filter_w;
    *z = (gems_conv_shape){.channels = s->channels, .outputs = s->outputs, .h = s->h, .w = s->w};
    z->x_n = s->channels * plane;
    z->x_c = s->last ? 1 : plane, z->x_w = s->last ? s->channels : 1, z->x_h = s->w * z->x_w;
    z->w_o = of_filter, z->w_c = (int64_t)s->filter_h * s->filter_w, z->w_r = s->filter_w, z->w_s = z->w_k = 1;
    z->q = s->w - s->filter_w + 1, z->plane = (s->h - s->filter_h + 1) * z->q, z->pixels = COUNT * z->plane;
    z->depth = (int32_t)of_filter, z->bias = -1;
    z->stride_h = z->stride_w = z->step_h = z->step_w = 1;
    z->y_n = (int64_t)s->outputs * z->plane, z->y_o = z->plane, z->y_at = 1;
    s->parts = (int64_t)COUNT * s->h * s->columns * s->pitch;
    s->filter_parts = (int64_t)s->outputs * positions * deep;
    s->x = malloc((size_t)total * 4);
    s->filters = malloc((size_t)(s->outputs * of_filter) * 4);
    s->y = malloc((size_t)(COUNT * z->y_n) * 4);
    s->packed = malloc((size_t)s->parts * 4 + (size_t)COUNT * NOTES * 4);
    s->packed_filters = malloc((size_t)s->filter_parts * 4 + (size_t)s->outputs * NOTES * 4);
    cr_assert(s->x && s->filters && s->y && s->packed && s->packed_filters);
    for (int64_t i = 0; i < total; i++)
        s->x[i] = random_number();
    for (int64_t i = 0; i < s->outputs * of_filter; i++)
        s->filters[i] = random_number();
    for (int64_t i = 0; i < COUNT * z->y_n; i++)
        s->y[i] = -7;
    memset(s->packed, 0x7f, (size_t)s->parts * 4 + (size_t)COUNT * NOTES * 4);
    s->p.x = vector_of(&s->of_x, s->x, total);
    s->p.w = vector_of(&s->of_w, s->filters, s->outputs * of_filter);
    s->p.y = vector_of(&s->of_y, s->y, COUNT * z->y_n);
    s->p.groups = 1, s->p.p = s->h - s->filter_h + 1;
    s->p.filter_h = s->filter_h, s->p.filter_w = s->filter_w;
}

static void end(sample *s)
{
    free(s->x);
    free(s->filters);
    free(s->y);
    free(s->packed);
    free(s->packed_filters);
}

static const size_t group[3] = {GROUP, 1, 1};

static gems_kernel *kernel_of(gems_work *work, const sample *s, const char *entry)
{
    const gems_macro macros[GEMS_CONV_MACROS] = {{"IN_PARTS", 1}};
    return gems_conv_kernel(work, &s->p, "kernels/conv/pack.cl", entry, macros);
}

static void write_input(gems_work *work, const sample *s, gems_arg packed, int32_t dense)
{
    const int32_t npieces = (int32_t)gems_ceil_div((int64_t)s->channels * s->h * s->w, s->piece);
    const bool few = s->pitch <= 8;
    const size_t looks[3] = {(size_t)npieces * GROUP, 1, COUNT};
    const size_t global[3] = {(size_t)gems_ceil_div((int64_t)s->h * s->columns, few ? GROUP : SIDE) * GROUP,
                              few ? 1 : (size_t)gems_ceil_div(s->pitch, SIDE), COUNT};
    const int pieces = gems_work_scratch(work, (size_t)COUNT * (size_t)npieces * 4);
    gems_arg arg[9] = {GEMS_IN(s->p.x),        GEMS_VALUE(s->p.shape), packed,
                       GEMS_VALUE(s->columns), GEMS_VALUE(s->shift),   GEMS_VALUE(s->pitch),
                       GEMS_SCRATCH(pieces),   GEMS_VALUE(s->piece),   GEMS_VALUE(dense)};
    gems_launch(work, kernel_of(work, s, "largest"), 3, looks, group, arg, 9);
    arg[7] = GEMS_VALUE(npieces);
    gems_launch(work, kernel_of(work, s, few ? "pack_few" : "pack_images"), 3, global, group, arg, 8);
}

static void write_filters(gems_work *work, const sample *s, gems_arg packed, int32_t positions, int32_t deep,
                          int32_t folded)
{
    const int32_t apart = 1;
    const size_t global[3] = {(size_t)s->outputs * GROUP, 1, 1};
    const gems_arg arg[] = {GEMS_IN(s->p.w),  GEMS_VALUE(s->p.shape), packed,           GEMS_VALUE(positions),
                            GEMS_VALUE(deep), GEMS_VALUE(folded),     GEMS_VALUE(apart)};
    gems_launch(work, kernel_of(work, s, "pack_filters"), 3, global, group, arg, 7);
}

static void run(gems_work *work)
{
    gems_call call = {.op = some_op()};
    cr_assert_eq(run_and_end(work, &call), GEMS_OK, "%s", call.why);
}

static float half_value(uint16_t h)
{
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const float v = exponent ? ldexpf((float)(fraction + 1024), exponent - 25) : ldexpf((float)fraction, -24);
    return exponent == 31 ? NAN : h & 0x8000 ? -v : v;
}

static void check_element(uint16_t high, uint16_t low, float x, int exponent)
{
    const float want = ldexpf(x, 14 - exponent), got = half_value(high) + half_value(low);
    cr_assert_leq(fabsf(got - want), fmaxf(ldexpf(fabsf(want), -23), ldexpf(1, -25)), "%a, not %a", (double)got,
                  (double)want);
}

static void check_input(const sample *s)
{
    for (int n = 0; n < COUNT; n++) {
        const int32_t *note = notes(s->packed, s->parts) + (ptrdiff_t)n * NOTES;
        float largest = 0;
        int small = 0;
        bool finite = true;
        for (int64_t i = n * s->p.shape.x_n; i < (n + 1) * s->p.shape.x_n; i++)
            finite &= isfinite(s->x[i]) != 0, largest = fmaxf(largest, fabsf(s->x[i]));
        cr_assert_eq(note[3], !finite, "image %d", n);
        if (!finite)
            continue;
        cr_assert_eq(note[0], ilogbf(largest), "image %d", n);
        for (int64_t i = n * s->p.shape.x_n; i < (n + 1) * s->p.shape.x_n; i++) {
            const float scaled = ldexpf(s->x[i], 14 - note[0]);
            small += scaled != 0 && fabsf(scaled) < 0.125F;
        }
        cr_assert_eq(note[1], small, "image %d: %d small, not %d", n, note[1], small);
        for (int64_t i = 0; i < (int64_t)s->h * s->columns * s->pitch; i++) {
            const int c = (int)(i % s->pitch), column = (int)(i / s->pitch % s->columns) - s->shift,
                      row = (int)(i / s->pitch / s->columns);
            const int64_t place = n * ((int64_t)s->h * s->columns * s->pitch) + i;
            const bool is_there = c < s->channels && column >= 0 && column < s->w;
            check_element(s->packed[place], s->packed[s->parts + place], is_there ? s->x[at(s, n, c, row, column)] : 0,
                          note[0]);
        }
    }
}

static void try_input(sample s, int32_t dense)
{
    begin(&s, s.filter_h * s.filter_w, SIDE);
    s.x[s.p.shape.x_n + 5] = INFINITY;
    for (int64_t i = 2 * s.p.shape.x_n; i < 3 * s.p.shape.x_n; i += 3)
        s.x[i] = i % 2 ? 0 : s.x[i] * 1e-7F;
    gems_work work;
    vector v;
    const gems_tensor *packed = vector_of(&v, (float *)(void *)s.packed, s.parts + (int64_t)COUNT * NOTES);
    begin_work(&work, GEMS_LANE_MAIN);
    write_input(&work, &s, GEMS_INOUT(packed), dense);
    run(&work);
    check_input(&s);
    end(&s);
}

Test(conv_pack, images)
{
    const sample s = {.channels = 70,
                      .h = 9,
                      .w = 13,
                      .filter_h = 3,
                      .filter_w = 3,
                      .outputs = 4,
                      .columns = 13,
                      .pitch = 72,
                      .piece = 1000};
    sample last = s;
    last.last = true;
    try_input(s, 1);
    try_input(s, 0);
    try_input(last, 0);
}

Test(conv_pack, few_channels)
{
    const sample s = {.channels = 3,
                      .h = 10,
                      .w = 21,
                      .filter_h = 3,
                      .filter_w = 3,
                      .outputs = 4,
                      .columns = 40,
                      .shift = 2,
                      .pitch = 4,
                      .piece = 100};
    try_input(s, 1);
}

Test(conv_pack, filters)
{
    const sample plain = {.channels = 70,
                          .h = 9,
                          .w = 13,
                          .filter_h = 3,
                          .filter_w = 2,
                          .outputs = 5,
                          .columns = 13,
                          .pitch = 72,
                          .piece = 1000},
                 few = {.channels = 3,
                        .h = 9,
                        .w = 13,
                        .filter_h = 3,
                        .filter_w = 5,
                        .outputs = 5,
                        .columns = 24,
                        .pitch = 4,
                        .piece = 1000};
    for (int folded = 0; folded < 2; folded++) {
        sample s = folded ? few : plain;
        const int positions = folded ? s.filter_h : s.filter_h * s.filter_w, deep = folded ? 64 : 128;
        begin(&s, positions, deep);
        s.filters[s.p.shape.w_o + 1] = NAN;
        gems_work work;
        vector v;
        const gems_tensor *packed =
            vector_of(&v, (float *)(void *)s.packed_filters, s.filter_parts + (int64_t)s.outputs * NOTES);
        begin_work(&work, GEMS_LANE_MAIN);
        write_filters(&work, &s, GEMS_INOUT(packed), positions, deep, folded ? s.pitch : 0);
        run(&work);
        for (int o = 0; o < s.outputs; o++) {
            const int32_t *note = notes(s.packed_filters, s.filter_parts) + (ptrdiff_t)o * NOTES;
            cr_assert_eq(note[3], o == 1, "filter %d", o);
            for (int i = 0; i < positions * deep && o != 1; i++) {
                const int position = i / deep, rest = i % deep, c = folded ? rest % s.pitch : rest,
                          column = folded ? rest / s.pitch : position % s.filter_w,
                          row = folded ? position : position / s.filter_w;
                const bool is_there = c < s.channels && column < s.filter_w;
                const int64_t place = (int64_t)o * positions * deep + i;
                check_element(s.packed_filters[place], s.packed_filters[s.filter_parts + place],
                              is_there ? s.filters[((o * s.channels + c) * s.filter_h + row) * s.filter_w + column] : 0,
                              note[0]);
            }
        }
        end(&s);
    }
}

/* NaN, which is not equal to itself, for an infinity times 0 and the like. */
static double convolved(const sample *s, int n, int o, int row, int column)
{
    double sum = 0;
    for (int c = 0; c < s->channels; c++)
        for (int i = 0; i < s->filter_h * s->filter_w; i++)
            sum += (double)s->x[at(s, n, c, row + i / s->filter_w, column + i % s->filter_w)] *
                   (double)s->filters[(o * s->channels + c) * s->filter_h * s->filter_w + i];
    return sum;
}

/* Only what has no parts is computed: blocks with pixels of an image that is refused, or with such a filter. */
static void try_rest(bool by_filter)
{
    sample s = {.channels = 20,
                .h = 18,
                .w = 18,
                .filter_h = 3,
                .filter_w = 3,
                .outputs = 70,
                .columns = 18,
                .pitch = 24,
                .piece = 1000};
    const int deep = SIDE, positions = 9;
    begin(&s, positions, deep);
    if (by_filter)
        s.filters[3 * s.p.shape.w_o + 7] = INFINITY;
    else
        for (int64_t i = 0; i < s.p.shape.x_n; i++)
            s.x[s.p.shape.x_n + i] *= i % 20 ? 1e-7F : 1; /* too many small ones */
    gems_work work;
    gems_call call = {.op = some_op()};
    begin_work(&work, GEMS_LANE_MAIN);
    const int input = gems_work_scratch(&work, (size_t)s.parts * 4 + (size_t)COUNT * NOTES * 4),
              filters = gems_work_scratch(&work, (size_t)s.filter_parts * 4 + (size_t)s.outputs * NOTES * 4);
    write_input(&work, &s, GEMS_SCRATCH(input), 1);
    write_filters(&work, &s, GEMS_SCRATCH(filters), positions, deep, 0);
    const gems_choice choice = {&call, &work, gems_device_get(work.lane), &s.p, NULL};
    gems_conv_gpu(&choice, &(gems_conv_parts){input, filters, s.parts, s.filter_parts});
    run(&work);
    for (int n = 0; n < COUNT; n++)
        for (int o = 0; o < s.outputs; o += 3)
            for (int i = 0; i < s.p.shape.plane; i += 5) {
                const double got = (double)s.y[n * s.p.shape.y_n + o * s.p.shape.plane + i],
                             want = convolved(&s, n, o, i / s.p.shape.q, i % s.p.shape.q);
                const bool must = by_filter ? o == 3 : n == 1;
                if (got == -7 && !must)
                    continue;
                cr_assert(by_filter || must, "image %d was computed", n);
                cr_assert(isnan(want)   ? isnan(got)
                          : isinf(want) ? got == want
                                        : fabs(got - want) < 1e-5,
                          "image %d, output %d, pixel %d: %g, not %g", n, o, i, got, want);
            }
    end(&s);
}

Test(conv_pack, rest_of_images)
{
    try_rest(false);
}
Test(conv_pack, rest_of_filters)
{
    try_rest(true);
}
