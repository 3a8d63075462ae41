/* kernels/call.c: dtypes and promotion, questions about tensors, looking up operators. */
#include "tests/unit/fake_host.h"

#include <criterion/criterion.h>
#include <string.h>

/* torch.promote_types of PyTorch 2.11, row by column, in the order of gems_dtype. */
static const char *const promoted[GEMS_DTYPE_COUNT] = {
    [GEMS_F16] = "f16 f32 f32 f64 f16 f16 f16 f16 f16 f16",
    [GEMS_BF16] = "f32 bf16 f32 f64 bf16 bf16 bf16 bf16 bf16 bf16",
    [GEMS_F32] = "f32 f32 f32 f64 f32 f32 f32 f32 f32 f32",
    [GEMS_F64] = "f64 f64 f64 f64 f64 f64 f64 f64 f64 f64",
    [GEMS_I8] = "f16 bf16 f32 f64 i8 i16 i16 i32 i64 i8",
    [GEMS_U8] = "f16 bf16 f32 f64 i16 u8 i16 i32 i64 u8",
    [GEMS_I16] = "f16 bf16 f32 f64 i16 i16 i16 i32 i64 i16",
    [GEMS_I32] = "f16 bf16 f32 f64 i32 i32 i32 i32 i64 i32",
    [GEMS_I64] = "f16 bf16 f32 f64 i64 i64 i64 i64 i64 i64",
    [GEMS_BOOL] = "f16 bf16 f32 f64 i8 u8 i16 i32 i64 bool",
};

Test(call, promotion_is_pytorchs)
{
    for (int a = 0; a < GEMS_DTYPE_COUNT; a++) {
        char row[80] = "";
        for (int b = 0; b < GEMS_DTYPE_COUNT; b++) {
            strcat(row, b ? " " : "");
            strcat(row, gems_dtypes[gems_promote_types((gems_dtype)a, (gems_dtype)b)].name);
        }
        cr_expect_str_eq(row, promoted[a], "%s", gems_dtypes[a].name);
    }
    cr_expect_eq(gems_promote_types(GEMS_DTYPE_NONE, GEMS_F32), GEMS_DTYPE_NONE);
    cr_expect_eq(gems_promote_types(GEMS_F32, GEMS_DTYPE_NONE), GEMS_DTYPE_NONE);
}

Test(call, dtypes_are_found_by_name)
{
    for (int d = 0; d < GEMS_DTYPE_COUNT; d++)
        cr_expect_eq((int)gems_dtype_find(gems_dtypes[d].name), d);
    cr_expect_eq(gems_dtype_find("float32"), GEMS_DTYPE_NONE);
    cr_expect_eq(gems_dtype_find(""), GEMS_DTYPE_NONE);
}

static gems_tensor tensor(int ndim, const int64_t *sizes, const int64_t *strides)
{
    gems_tensor t = {.sizes = sizes, .strides = strides, .ndim = ndim, .numel = 1, .dtype = GEMS_F32};
    for (int d = 0; d < ndim; d++)
        t.numel *= sizes[d];
    return t;
}

Test(call, layouts)
{
    static const struct {
        const char *what;
        int ndim;
        int64_t sizes[4], strides[4];
        bool contiguous, dense;
        int64_t span;
    } cases[] = {
        {"0-dim", 0, {0}, {0}, true, true, 1},
        {"row-major", 2, {2, 3}, {3, 1}, true, true, 6},
        {"transposed", 2, {3, 2}, {1, 3}, false, true, 6},
        {"size 1, odd stride", 3, {2, 1, 3}, {3, 77, 1}, true, true, 6},
        {"every second", 1, {4}, {2}, false, false, 7},
        {"expanded", 2, {4, 3}, {0, 1}, false, false, 3},
        {"overlapping window", 2, {3, 3}, {1, 1}, false, false, 5},
        {"rows with gaps", 2, {2, 3}, {8, 1}, false, false, 11},
        {"channels last", 4, {2, 3, 4, 5}, {60, 1, 15, 3}, false, true, 120},
        {"empty", 2, {0, 3}, {3, 1}, true, true, 0},
        {"empty, odd strides", 2, {3, 0}, {9, 5}, true, true, 0},
        {"one element, odd strides", 2, {1, 1}, {9, 5}, true, true, 1},
        {"equal strides, one of them size 2", 2, {2, 2}, {1, 1}, false, false, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gems_tensor t = tensor(cases[i].ndim, cases[i].sizes, cases[i].strides);
        cr_expect_eq(gems_tensor_is_contiguous(&t), cases[i].contiguous, "%s: contiguous", cases[i].what);
        cr_expect_eq(gems_tensor_is_dense(&t), cases[i].dense, "%s: dense", cases[i].what);
        cr_expect_eq(gems_tensor_span(&t), cases[i].span, "%s: span", cases[i].what);
    }
}

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
    cr_expect(gems_call_result(&call, 0, GEMS_F16, 2, sizes, NULL)->data == given.data);
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
