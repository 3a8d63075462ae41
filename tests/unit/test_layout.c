/* kernels/tensor/layout.c: strides of new results. */
#include "kernels/tensor/layout.h"

#include <criterion/criterion.h>

#define SIZES(...)                                                                                                     \
    (const int64_t[])                                                                                                  \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

static gems_shape shape_of(int ndim, const int64_t *sizes)
{
    gems_shape s = GEMS_SHAPE_START;
    cr_assert(gems_shape_broadcast(&s, ndim, sizes));
    return s;
}

static void expect(const int64_t *have, int n, const int64_t *want)
{
    for (int i = 0; i < n; i++)
        cr_expect_eq(have[i], want[i], "place %d: %ld, not %ld", i, (long)have[i], (long)want[i]);
}

static gems_tensor view(int ndim, const int64_t *sizes, const int64_t *strides)
{
    gems_tensor t = {.sizes = sizes, .strides = strides, .ndim = ndim, .numel = 1, .dtype = GEMS_F32};
    for (int d = 0; d < ndim; d++)
        t.numel *= sizes[d];
    return t;
}

Test(layout, channels_last_inputs_give_channels_last)
{
    gems_shape s = shape_of(4, SIZES(2, 3, 4, 5));
    gems_tensor t = view(4, SIZES(2, 3, 4, 5), SIZES(60, 1, 15, 3));
    gems_strides out;
    gems_iterator_strides(&s, 1, &(gems_layout_input){&t, false}, out);
    expect(out, 4, SIZES(60, 1, 15, 3));
}

Test(layout, a_contiguous_and_a_transposed_input_follow_the_first)
{
    gems_shape s = shape_of(2, SIZES(3, 4));
    gems_tensor a = view(2, SIZES(3, 4), SIZES(1, 3)), b = view(2, SIZES(3, 4), SIZES(4, 1));
    gems_layout_input ab[2] = {{&a, false}, {&b, false}}, ba[2] = {{&b, false}, {&a, false}};
    gems_strides out;
    gems_iterator_strides(&s, 2, ab, out);
    expect(out, 2, SIZES(1, 3));
    gems_iterator_strides(&s, 2, ba, out);
    expect(out, 2, SIZES(4, 1));
}

Test(layout, gaps_are_closed_in_order)
{
    gems_shape s = shape_of(2, SIZES(3, 4));
    gems_tensor t = view(2, SIZES(3, 4), SIZES(2, 100));
    gems_strides out;
    gems_iterator_strides(&s, 1, &(gems_layout_input){&t, false}, out);
    expect(out, 2, SIZES(1, 3));
}

Test(layout, formats)
{
    int64_t out[5];
    gems_format_strides(GEMS_CONTIGUOUS, 3, SIZES(2, 0, 4), out);
    expect(out, 3, SIZES(4, 4, 1));
    gems_format_strides(GEMS_CHANNELS_LAST, 4, SIZES(2, 3, 4, 5), out);
    expect(out, 4, SIZES(60, 1, 15, 3));
    gems_format_strides(GEMS_CHANNELS_LAST_3D, 5, SIZES(2, 3, 4, 5, 6), out);
    expect(out, 5, SIZES(360, 1, 90, 18, 3));
}

/* What torch.empty_like(x) says of as_strided views, preserve_format: PyTorch 2.11. */
Test(layout, preserved_strides_are_pytorchs)
{
    static const struct {
        int ndim;
        int64_t sizes[4], strides[4], preserved[4];
    } cases[] = {
        {4, {2, 3, 4, 5}, {60, 1, 15, 3}, {60, 1, 15, 3}},
        {4, {3, 4, 4, 2}, {2, 0, 12, 1}, {2, 6, 24, 1}},
        {4, {1, 4, 8, 16}, {1, 16, 128, 1}, {1, 16, 64, 1}},
        {4, {2, 1, 3, 4}, {100, 4, 4, 1}, {12, 4, 4, 1}},
        {2, {3, 4}, {2, 100}, {1, 3}},
        {4, {2, 4, 1, 8}, {64, 8, 8, 1}, {32, 8, 8, 1}},
        {4, {3, 1, 4, 2}, {0, 1, 1, 4}, {8, 1, 1, 4}},
        {4, {2, 4, 1, 2}, {0, 2, 6, 3}, {8, 1, 8, 4}},
        {3, {4, 2, 1}, {1, 24, 24}, {1, 4, 4}},
        {4, {2, 2, 1, 1}, {2, 2, 1, 1}, {2, 1, 1, 1}},
        {4, {3, 2, 2, 2}, {2, 6, 3, 0}, {2, 12, 6, 1}},
        {4, {4, 2, 2, 3}, {1, 4, 3, 24}, {1, 8, 4, 16}},
        {2, {3, 1}, {3, 4}, {1, 3}},
        {4, {4, 3, 2, 4}, {8, 1, 0, 3}, {24, 1, 3, 6}},
        {2, {3, 4}, {0, 12}, {4, 1}},
        {4, {3, 4, 1, 4}, {0, 1, 24, 2}, {16, 1, 16, 4}},
        {2, {2, 4}, {4, 12}, {1, 2}},
        {4, {3, 4, 1, 3}, {3, 0, 6, 1}, {3, 9, 36, 1}},
        {3, {3, 3, 2}, {4, 3, 12}, {3, 1, 9}},
        {2, {3, 3}, {3, 1}, {3, 1}},
        {2, {2, 3}, {8, 1}, {3, 1}},
        {2, {1, 4}, {0, 2}, {4, 1}},
        {4, {3, 4, 4, 2}, {0, 0, 8, 4}, {32, 8, 2, 1}},
        {3, {2, 2, 4}, {1, 1, 6}, {2, 1, 4}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t out[4];
        gems_tensor t = view(cases[i].ndim, cases[i].sizes, cases[i].strides);
        gems_preserved_strides(&t, out);
        expect(out, cases[i].ndim, cases[i].preserved);
    }
}

/* The format that torch.cat gives one input of these strides. */
Test(layout, a_format_is_suggested_by_strides_that_grow)
{
    gems_tensor last = view(4, SIZES(2, 3, 4, 5), SIZES(60, 1, 15, 3)),
                gaps = view(4, SIZES(2, 3, 4, 5), SIZES(240, 2, 60, 6)),
                plain = view(4, SIZES(2, 3, 4, 5), SIZES(60, 20, 5, 1)),
                both = view(4, SIZES(2, 1, 4, 1), SIZES(4, 1, 1, 1)),
                solid = view(5, SIZES(2, 3, 4, 5, 6), SIZES(360, 1, 90, 18, 3)),
                expanded = view(4, SIZES(2, 3, 4, 5), SIZES(20, 0, 5, 1)), flat = view(2, SIZES(3, 4), SIZES(1, 3));
    cr_expect_eq(gems_suggested_format(&last), GEMS_CHANNELS_LAST);
    cr_expect_eq(gems_suggested_format(&gaps), GEMS_CHANNELS_LAST);
    cr_expect_eq(gems_suggested_format(&plain), GEMS_CONTIGUOUS);
    cr_expect_eq(gems_suggested_format(&both), GEMS_CHANNELS_LAST);
    cr_expect_eq(gems_suggested_format(&solid), GEMS_CHANNELS_LAST_3D);
    cr_expect_eq(gems_suggested_format(&expanded), GEMS_CONTIGUOUS);
    cr_expect_eq(gems_suggested_format(&flat), GEMS_CONTIGUOUS);
    /* The iterator wants a block without gaps: these are put in order of their strides, which is the same here. */
    gems_shape s = shape_of(4, SIZES(2, 3, 4, 5));
    gems_strides out;
    gems_iterator_strides(&s, 1, &(gems_layout_input){&gaps, false}, out);
    expect(out, 4, SIZES(60, 1, 15, 3));
}
