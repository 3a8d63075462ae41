/* kernels/tensor/collapse.c and nest.c: broadcasting, order and merging of dimensions. */
#include "kernels/tensor/collapse.h"
#include "kernels/tensor/nest.h"

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
    gems_strides t[2] = {{12, 4, 4, 1}, {12, 4, 4, 1}};
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

Test(collapse, in_order_the_last_dimension_stays_the_fastest)
{
    gems_shape s = shape_of(3, SIZES(5, 7, 2));
    gems_strides t[2] = {{1, 10, 5}, {1, 10, 5}};
    gems_loops loops;
    gems_collapse_in_order(&s, 2, (const gems_strides *)t, &loops);
    cr_expect_eq(loops.rank, 2); /* 7 times 2 merge */
    expect(loops.size, 2, SIZES(14, 5));
    expect(loops.stride[0], 2, SIZES(5, 1));
    gems_collapse(&s, 2, (const gems_strides *)t, &loops);
    cr_expect_eq(loops.rank, 1);
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

Test(nest, neighbours_merge_and_the_rest_keeps_its_order)
{
    const int64_t sizes[4] = {2, 3, 4, 5}, strides[4] = {60, 20, 5, 1}, moved[4] = {3, 1, 30, 6};
    gems_tensor t = {.sizes = sizes, .strides = strides, .ndim = 4, .numel = 120, .dtype = GEMS_F32};
    gems_nest nest;
    cr_assert(gems_nest_dims(&t, 15, &nest));
    cr_expect_eq(nest.rank, 1);
    cr_expect_eq(nest.size[0], 120);
    cr_assert(gems_nest_dims(&t, 5, &nest));
    cr_expect_eq(nest.rank, 2);
    expect(nest.size, 2, SIZES(2, 4));
    expect(nest.stride, 2, SIZES(60, 5));
    cr_expect_eq(gems_nest_count(&nest), 8);
    cr_expect_eq(gems_nest_offset(&nest, 5), 60 + 5);
    t.strides = moved;
    cr_assert(gems_nest_dims(&t, 15, &nest));
    cr_expect_eq(nest.rank, 2, "3 and 1, 30 and 6");
    gems_nest_sort(&nest);
    cr_expect_eq(nest.rank, 1);
    int64_t size, stride;
    gems_nest_split_inner(&nest, &size, &stride);
    cr_expect(size == 120 && stride == 1 && nest.rank == 0);
    gems_nest_split_inner(&nest, &size, &stride);
    cr_expect(size == 1 && stride == 1);
}

Test(nest, more_loops_than_it_holds_are_refused)
{
    int64_t sizes[GEMS_NEST_RANK + 1], strides[GEMS_NEST_RANK + 1], step = 1;
    for (int d = GEMS_NEST_RANK; d >= 0; d--, step *= 3)
        sizes[d] = 2, strides[d] = step;
    gems_tensor t = {.sizes = sizes, .strides = strides, .ndim = GEMS_NEST_RANK + 1, .numel = 512, .dtype = GEMS_F32};
    gems_nest nest;
    cr_expect_not(gems_nest_dims(&t, ~(uint64_t)0, &nest));
    cr_expect(gems_nest_dims(&t, ~(uint64_t)1, &nest));
}
