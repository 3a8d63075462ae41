/* kernels/tensor/element.c: numbers and elements, and looking through a tensor. */
#include "kernels/tensor/element.h"

#include <criterion/criterion.h>
#include <math.h>

static gems_number real(double f)
{
    return (gems_number){.category = GEMS_CAT_FLOAT, .f = f};
}
static gems_number whole(int64_t i)
{
    return (gems_number){.category = GEMS_CAT_INT, .i = i};
}

Test(element, numbers_become_elements)
{
    static const struct {
        double value;
        gems_dtype dtype;
        uint64_t bits;
    } cases[] = {{1.0, GEMS_F32, 0x3f800000},     {1.0, GEMS_F16, 0x3c00},        {65504.0, GEMS_F16, 0x7bff},
                 {0x1p-24, GEMS_F16, 1},          {-0.0, GEMS_F16, 0x8000},       {1.00390625, GEMS_BF16, 0x3f80},
                 {1.01171875, GEMS_BF16, 0x3f82}, {-2.7, GEMS_I32, (uint64_t)-2}, {0.5, GEMS_BOOL, 1}};
    gems_element e;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert(gems_number_element(real(cases[i].value), cases[i].dtype, &e));
        cr_expect_eq(e.bits, cases[i].bits, "case %zu: %lx", i, (unsigned long)e.bits);
    }
    cr_expect(gems_number_element(whole(200), GEMS_U8, &e) && e.bits == 200);
    cr_expect(gems_number_element(whole(INT64_MIN), GEMS_I64, &e) && e.bits == (uint64_t)INT64_MIN);
    cr_expect(gems_number_element(real(-INFINITY), GEMS_F16, &e) && e.bits == 0xfc00);
    cr_expect(gems_number_element(real(NAN), GEMS_BF16, &e) && e.bits == 0x7fc0);
    cr_expect(gems_number_element(real(NAN), GEMS_BOOL, &e) && e.bits == 1);
}

/* Each of these is an error in PyTorch 2.11 ("value cannot be converted ... without overflow"), or left to it because a
 * double is too coarse there. */
Test(element, what_overflows_is_refused)
{
    static const struct {
        double value;
        gems_dtype dtype;
    } cases[] = {{1e6, GEMS_F16},    {65520, GEMS_F16},  {3.4e38, GEMS_F16}, {0x1.ffp127, GEMS_BF16}, {1e39, GEMS_F32},
                 {255.5, GEMS_U8},   {-0.5, GEMS_U8},    {256, GEMS_U8},     {128, GEMS_I8},          {-129, GEMS_I8},
                 {0x1p31, GEMS_I32}, {0x1p53, GEMS_I64}, {NAN, GEMS_I32},    {INFINITY, GEMS_I64}};
    gems_element e;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect_not(gems_number_element(real(cases[i].value), cases[i].dtype, &e), "case %zu", i);
    cr_expect_not(gems_number_element(whole(200), GEMS_I8, &e));
    cr_expect_not(gems_number_element(whole(-1), GEMS_U8, &e), "the host wraps it around");
    cr_expect_not(gems_number_element(whole(INT64_C(1) << 40), GEMS_I32, &e));
}

/* Every f16 and bf16 comes back as itself, through both ways. */
Test(element, halves_go_there_and_back)
{
    for (int d = GEMS_F16; d <= GEMS_BF16; d++)
        for (uint32_t u = 0; u < 0x10000; u++) {
            uint16_t bits = (uint16_t)u;
            gems_number n = gems_element_number((gems_dtype)d, &bits);
            gems_element e, f;
            cr_assert(gems_number_element(n, (gems_dtype)d, &e));
            cr_assert(gems_number_compute(n, (gems_dtype)d, false, &f));
            if (isnan(n.f))
                cr_assert(isnan(f.f32) && isnan(gems_element_number((gems_dtype)d, &e.bits).f));
            else
                cr_assert(e.bits == bits && f.f32 == (float)n.f && !signbit(f.f32) == !signbit(n.f), "%x", u);
        }
}

Test(element, what_is_computed_with)
{
    gems_element e;
    cr_expect(gems_number_compute(real(0.1), GEMS_F16, false, &e) && e.f32 == 0x1.998p-4f);
    cr_expect(gems_number_compute(real(0.1), GEMS_F16, true, &e) && e.f32 == 0.1f);
    cr_expect(gems_number_compute(real(0.1), GEMS_BF16, false, &e) && e.f32 == 0x1.9ap-4f);
    cr_expect(gems_number_compute(real(0.1), GEMS_F64, false, &e) && e.f64 == 0.1);
    cr_expect(gems_number_compute(whole(-3), GEMS_I16, false, &e) && (int16_t)e.bits == -3);
    cr_expect_not(gems_number_compute(real(65520), GEMS_F16, true, &e));
}

Test(element, indices_are_checked)
{
    int64_t wide[6] = {0, 5, 2, 3, 4, 1};
    int32_t narrow[4] = {0, 3, -1, 2};
    int64_t sizes[2] = {2, 3}, strides[2] = {3, 1};
    gems_tensor t = {.sizes = sizes, .strides = strides, .ndim = 2, .numel = 6, .dtype = GEMS_I64};
    cr_assert(gems_index_check(&t, wide, (gems_range){0, 6, 0}));
    cr_assert_not(gems_index_check(&t, wide, (gems_range){0, 5, 0}));
    wide[4] = -1;
    cr_assert_not(gems_index_check(&t, wide, (gems_range){0, 6, 0}));
    int64_t n = 2, step = 2;
    gems_tensor u = {.sizes = &n, .strides = &step, .ndim = 1, .numel = 2, .dtype = GEMS_I32};
    cr_assert_not(gems_index_check(&u, narrow, (gems_range){0, 4, 0})); /* 0, -1 */
    cr_assert(gems_index_check(&u, narrow + 1, (gems_range){0, 4, 0})); /* 3, 2 */
    cr_assert(gems_index_check(&u, narrow, (gems_range){0, 4, -1}));
    cr_assert_not(gems_index_check(&u, narrow, (gems_range){0, 4, 1}));
    cr_assert_not(gems_index_check(&u, narrow + 1, (gems_range){0, 3, 2}));
    cr_assert(gems_index_check(&u, narrow + 1, (gems_range){0, 3, 3}));
    cr_assert(gems_index_check(&u, narrow, (gems_range){-1, 1, 0}));
    cr_assert_not(gems_index_check(&u, narrow, (gems_range){-4, 0, -1}));
    cr_assert_not(gems_index_check(&u, narrow, (gems_range){0, 0, 0}));
}

Test(element, zeros_are_found_through_strides)
{
    int16_t memory[24];
    const int64_t sizes[3] = {2, 3, 2}, strides[3] = {12, 0, 2}, expanded[3] = {0, 0, 0};
    gems_tensor t = {.sizes = sizes, .strides = strides, .ndim = 3, .numel = 12, .dtype = GEMS_I16};
    for (int i = 0; i < 24; i++)
        memory[i] = i == 0 || i == 2 || i == 12 || i == 14;
    cr_expect_not(gems_has_zero(&t, memory));
    memory[14] = 0;
    cr_expect(gems_has_zero(&t, memory));
    t.strides = expanded;
    cr_expect_not(gems_has_zero(&t, memory));
    cr_expect(gems_has_zero(&t, memory + 1));
    t.numel = 0;
    cr_expect_not(gems_has_zero(&t, memory + 1));
}
