/* Promotion: the cases where priorities decide. All pairs are held against torch.result_type in tests/host. */
#include "kernels/tensor/promote.h"

#include <criterion/criterion.h>
#include <string.h>

static gems_tensor operand(gems_dtype dtype, int ndim, bool wrapped)
{
    return (gems_tensor){.dtype = dtype, .ndim = ndim, .wrapped = wrapped, .numel = 1};
}

static gems_dtype common(gems_tensor a, gems_tensor b)
{
    gems_promote p = GEMS_PROMOTE_START;
    gems_promote_tensor(&p, &a, GEMS_F32);
    gems_promote_tensor(&p, &b, GEMS_F32);
    return gems_promote_common(&p);
}

Test(promote, equal_priorities_join)
{
    cr_expect_eq(common(operand(GEMS_F16, 1, false), operand(GEMS_BF16, 1, false)), GEMS_F32);
    cr_expect_eq(common(operand(GEMS_U8, 2, false), operand(GEMS_I8, 1, false)), GEMS_I16);
    cr_expect_eq(common(operand(GEMS_I64, 1, false), operand(GEMS_F16, 1, false)), GEMS_F16);
    cr_expect_eq(common(operand(GEMS_F32, 0, false), operand(GEMS_F64, 0, false)), GEMS_F64);
}

Test(promote, dimensions_outrank_zero_dim_of_the_same_category)
{
    cr_expect_eq(common(operand(GEMS_F16, 1, false), operand(GEMS_F64, 0, false)), GEMS_F16);
    cr_expect_eq(common(operand(GEMS_I8, 1, false), operand(GEMS_I64, 0, false)), GEMS_I8);
    cr_expect_eq(common(operand(GEMS_I8, 1, false), operand(GEMS_F64, 0, false)), GEMS_F64);
    cr_expect_eq(common(operand(GEMS_BOOL, 1, false), operand(GEMS_U8, 0, false)), GEMS_U8);
}

Test(promote, numbers_are_weakest_and_floats_among_them_count_as_the_default)
{
    cr_expect_eq(common(operand(GEMS_I32, 1, false), operand(GEMS_F64, 0, true)), GEMS_F32);
    cr_expect_eq(common(operand(GEMS_BF16, 0, false), operand(GEMS_F64, 0, true)), GEMS_BF16);
    cr_expect_eq(common(operand(GEMS_BOOL, 1, false), operand(GEMS_I64, 0, true)), GEMS_I64);
    gems_promote p = GEMS_PROMOTE_START;
    gems_tensor t = operand(GEMS_U8, 3, false);
    gems_promote_tensor(&p, &t, GEMS_F64);
    gems_promote_number(&p, GEMS_CAT_FLOAT, GEMS_F64);
    cr_expect_eq(gems_promote_common(&p), GEMS_F64);
}

Test(promote, nothing_or_an_unknown_dtype_is_none)
{
    gems_promote p = GEMS_PROMOTE_START;
    cr_expect_eq(gems_promote_common(&p), GEMS_DTYPE_NONE);
    cr_expect_eq(common(operand(GEMS_F32, 1, false), operand(GEMS_DTYPE_NONE, 1, false)), GEMS_DTYPE_NONE);
}

Test(promote, kinds)
{
    gems_promoted r = gems_promote_apply(GEMS_PROMOTE_INT_TO_FLOAT, GEMS_I64, GEMS_F64);
    cr_expect(r.compute == GEMS_F64 && r.result == GEMS_F64 && r.opmath);
    r = gems_promote_apply(GEMS_PROMOTE_INT_TO_FLOAT, GEMS_F16, GEMS_F32);
    cr_expect(r.compute == GEMS_F16 && r.result == GEMS_F16);
    r = gems_promote_apply(GEMS_PROMOTE_ALWAYS_BOOL, GEMS_BF16, GEMS_F32);
    cr_expect(r.compute == GEMS_BF16 && r.result == GEMS_BOOL && !r.opmath);
    r = gems_promote_apply(GEMS_PROMOTE_BOOL_TO_LONG, GEMS_BOOL, GEMS_F32);
    cr_expect(r.compute == GEMS_I64 && r.result == GEMS_I64);
    r = gems_promote_apply(GEMS_PROMOTE_NO_OPMATH, GEMS_F16, GEMS_F32);
    cr_expect(r.result == GEMS_F16 && !r.opmath);
    r = gems_promote_apply(GEMS_PROMOTE_COMPLEX_TO_FLOAT, GEMS_I8, GEMS_F32);
    cr_expect(r.result == GEMS_I8 && r.opmath);
    cr_expect_eq(gems_promotion_find("always_bool", 11), GEMS_PROMOTE_ALWAYS_BOOL);
    cr_expect_eq(gems_promotion_find("always", 6), GEMS_PROMOTE_COUNT);
}

Test(promote, casting_goes_up_only)
{
    cr_expect(gems_promote_can_cast(GEMS_F64, GEMS_F16));
    cr_expect(gems_promote_can_cast(GEMS_BOOL, GEMS_U8));
    cr_expect(gems_promote_can_cast(GEMS_I64, GEMS_I8));
    cr_expect_not(gems_promote_can_cast(GEMS_F16, GEMS_I64));
    cr_expect_not(gems_promote_can_cast(GEMS_U8, GEMS_BOOL));
    cr_expect_not(gems_promote_can_cast(GEMS_DTYPE_NONE, GEMS_F32));
}
