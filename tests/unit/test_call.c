/* kernels/call.c: looking up operators, parameters and arguments, reasons. */
#include "kernels/call.h"

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
