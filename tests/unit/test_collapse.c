/* Broadcasting, order and merging of dimensions. */
#include "kernels/tensor/collapse.h"
#include "kernels/tensor/layout.h"

#include <criterion/criterion.h>
#include <string.h>

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

Test(collapse, shapes_broadcast_from_the_right)
{
    gems_shape s = GEMS_SHAPE_START;
    cr_assert(gems_shape_broadcast(&s, 2, SIZES(3, 1)));
    cr_assert(gems_shape_broadcast(&s, 3, SIZES(2, 1, 5)));
    cr_assert(gems_shape_broadcast(&s, 0, NULL));
    cr_expect_eq(s.ndim, 3);
    cr_expect_eq(s.numel, 30);
    expect(s.size, 3, SIZES(2, 3, 5));
    cr_expect_not(gems_shape_broadcast(&s, 1, SIZES(4)));
    int64_t many[GEMS_DIMS + 1];
    for (int i = 0; i <= GEMS_DIMS; i++)
        many[i] = 1;
    cr_expect_not(gems_shape_broadcast(&s, GEMS_DIMS + 1, many));
}

Test(collapse, a_size_of_zero_wins_over_one_alone)
{
    gems_shape s = GEMS_SHAPE_START;
    cr_assert(gems_shape_broadcast(&s, 1, SIZES(1)));
    cr_assert(gems_shape_broadcast(&s, 1, SIZES(0)));
    cr_expect_eq(s.numel, 0);
    cr_expect_not(gems_shape_broadcast(&s, 1, SIZES(3)));
}

Test(collapse, broadcast_dimensions_have_stride_zero)
{
    gems_shape s = shape_of(3, SIZES(2, 3, 4));
    gems_strides t;
    gems_shape_strides(&s, 2, SIZES(3, 1), SIZES(7, 9), t);
    expect(t, 3, SIZES(0, 7, 0));
}

Test(collapse, contiguous_operands_become_one_loop)
{
    gems_shape s = shape_of(4, SIZES(2, 3, 1, 4));
    gems_strides t[2];
    gems_shape_contiguous(&s, t[0]);
    gems_shape_contiguous(&s, t[1]);
    gems_loops loops;
    gems_collapse(&s, 2, (const gems_strides *)t, &loops);
    cr_expect_eq(loops.rank, 1);
    cr_expect_eq(loops.size[0], 24);
    cr_expect_eq(loops.stride[0][0], 1);
    cr_expect_not(loops.wide);
}

Test(collapse, the_same_permutation_everywhere_is_one_loop)
{
    gems_shape s = shape_of(3, SIZES(2, 3, 4));
    gems_strides t[2] = {{1, 8, 2}, {1, 8, 2}};
    gems_loops loops;
    gems_collapse(&s, 2, (const gems_strides *)t, &loops);
    cr_expect_eq(loops.rank, 1);
    cr_expect_eq(loops.size[0], 24);
}

Test(collapse, a_transposed_input_needs_two_loops_ordered_by_the_output)
{
    gems_shape s = shape_of(2, SIZES(5, 7));
    gems_strides t[2] = {{7, 1}, {1, 5}};
    gems_loops loops;
    gems_collapse(&s, 2, (const gems_strides *)t, &loops);
    cr_expect_eq(loops.rank, 2);
    expect(loops.size, 2, SIZES(7, 5));
    expect(loops.stride[0], 2, SIZES(1, 7));
    expect(loops.stride[1], 2, SIZES(5, 1));
}

Test(collapse, a_broadcast_row_keeps_its_loop)
{
    gems_shape s = shape_of(3, SIZES(2, 3, 4));
    gems_strides t[2] = {{12, 4, 1}, {0, 0, 1}};
    gems_loops loops;
    gems_collapse(&s, 2, (const gems_strides *)t, &loops);
    cr_expect_eq(loops.rank, 2);
    expect(loops.size, 2, SIZES(4, 6));
    expect(loops.stride[1], 2, SIZES(1, 0));
}

Test(collapse, one_element_is_dense)
{
    gems_shape s = shape_of(2, SIZES(1, 1));
    gems_strides t[1] = {{5, 9}};
    gems_loops loops;
    gems_collapse(&s, 1, (const gems_strides *)t, &loops);
    cr_expect_eq(loops.rank, 1);
    cr_expect_eq(loops.size[0], 1);
    cr_expect_eq(loops.stride[0][0], 1);
}

Test(collapse, far_offsets_want_64_bits)
{
    gems_shape s = shape_of(2, SIZES(3, 4));
    gems_strides t[1] = {{INT64_C(1) << 31, 1}};
    gems_loops loops;
    gems_collapse(&s, 1, (const gems_strides *)t, &loops);
    cr_expect(loops.wide);
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

Test(layout, overlap)
{
    float memory[64];
    gems_tensor expanded = view(2, SIZES(3, 4), SIZES(0, 1)), dense = view(2, SIZES(3, 4), SIZES(4, 1)),
                windows = view(2, SIZES(3, 4), SIZES(1, 1));
    cr_expect(gems_overlaps_itself(&expanded));
    cr_expect(gems_overlaps_itself(&windows));
    cr_expect_not(gems_overlaps_itself(&dense));
    gems_tensor same = dense, moved = dense, apart = dense;
    same.data = dense.data = memory;
    moved.data = memory + 4;
    apart.data = memory + 12;
    cr_expect_eq(gems_overlap_of(&dense, &same), GEMS_IDENTICAL);
    cr_expect_eq(gems_overlap_of(&dense, &moved), GEMS_OVERLAP);
    cr_expect_eq(gems_overlap_of(&dense, &apart), GEMS_APART);
}
