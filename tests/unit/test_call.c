/* kernels/call.c: looking up operators, parameters and arguments, reasons, results. */
#include "tests/unit/fake_host.h"

#include <criterion/criterion.h>
#include <string.h>

Test(call, every_operator_is_found_by_name_and_by_struct)
{
    cr_assert_gt(gems_op_count, 200);
    for (unsigned i = 0; i < gems_op_count; i++) {
        cr_expect_eq(gems_ops[i].index, i);
        cr_expect_eq(gems_op_find(gems_ops[i].name), &gems_ops[i], "%s", gems_ops[i].name);
        cr_expect_eq(gems_op_find(gems_ops[i].strukt), &gems_ops[i], "%s", gems_ops[i].strukt);
    }
}

Test(call, what_is_no_operator_is_not_found)
{
    static const char *const names[] = {"",        "add",           "add.", "add.Tensr",
                                        ".Tensor", "add_.Tensor.x", "zzz",  "ADD.Tensor"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_expect_null(gems_op_find(names[i]), "%s", names[i]);
    char long_name[4096];
    memset(long_name, 'a', sizeof long_name);
    long_name[sizeof long_name - 1] = 0;
    cr_expect_null(gems_op_find(long_name));
}

Test(call, parameters_and_arguments_by_name)
{
    const gems_op *add = gems_op_find("add.Tensor");
    cr_assert_not_null(add);
    cr_expect_eq(gems_op_param(add, "self"), 0);
    cr_expect_eq(gems_op_param(add, "alpha"), 2);
    cr_expect_eq(gems_op_param(add, "beta"), -1);
    cr_expect_null(gems_op_attr(add, "no such field"));

    gems_call call = {.op = add};
    call.arg[2] = (gems_value){.kind = GEMS_SCALAR_INT, .i = 3};
    cr_expect_eq(gems_call_arg(&call, "alpha")->i, 3);
    cr_expect_eq(gems_call_arg(&call, "beta")->kind, GEMS_NONE);
}

Test(call, the_first_reason_stays)
{
    gems_call call = {.op = NULL};
    cr_expect_eq(gems_fail(&call, "code %d", -5), GEMS_FAILED);
    cr_expect_eq(gems_decline(&call, "later"), GEMS_DECLINED);
    cr_expect_str_eq(call.why, "code -5");

    gems_call other = {.op = NULL};
    cr_expect_eq(gems_decline(&other, "100 % static"), GEMS_DECLINED);
    cr_expect_eq(gems_fail(&other, "%s", "later"), GEMS_FAILED);
    cr_expect_str_eq(other.why, "100 % static");
}

Test(call, a_new_result_is_the_hosts)
{
    gems_call call = {.op = gems_op_find("add.Tensor"), .host = &fake_host};
    int64_t sizes[] = {2, 3}, strides[] = {1, 2};
    gems_tensor *t = gems_call_result(&call, 0, GEMS_F32, 2, sizes, NULL);
    cr_assert(t == &call.result[0] && call.has_result[0]);
    cr_expect(t->dtype == GEMS_F32 && t->numel == 6 && gems_tensor_is_contiguous(t));
    fake_drop(t);
    t = gems_call_result_complex(&call, 0, GEMS_F64, 2, sizes, strides);
    cr_assert(t && t->strides[1] == 2 && fake_is_complex(t, GEMS_F64));
    fake_drop(t);
}

Test(call, a_given_result_must_fit)
{
    const gems_op *op = gems_op_find("add_.Tensor");
    gems_call call = {.op = op, .host = &fake_host};
    int64_t sizes[] = {2, 3}, other[] = {3, 2};
    gems_tensor given;
    cr_assert(fake_tensor_make(&given, GEMS_F16, false, 2, sizes, NULL));
    call.arg[0] = (gems_value){.kind = GEMS_TENSOR, .tensor = &given};
    cr_expect(gems_call_result(&call, 0, GEMS_F16, 2, sizes, NULL)->address == given.address);
    cr_expect_not_null(gems_call_result(&call, 0, GEMS_DTYPE_NONE, 2, sizes, NULL));
    cr_expect(!gems_call_result(&call, 0, GEMS_F16, 2, other, NULL) && !call.has_result[0]);
    cr_expect_str_eq(call.why, "the given result has another shape");
    call.why = NULL;
    cr_expect_null(gems_call_result(&call, 0, GEMS_F32, 2, sizes, NULL));
    cr_expect_str_eq(call.why, "the given result has another dtype");
    call.why = NULL;
    cr_expect_null(gems_call_result_complex(&call, 0, GEMS_F32, 2, sizes, NULL), "not complex");
    cr_expect_str_eq(call.why, "the given result has another dtype");
    fake_drop(&given);
}
