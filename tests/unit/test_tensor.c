/* kernels/tensor/dtype.c and tensor.c: dtypes and their promotion, questions about where elements lie. */
#include "kernels/tensor/tensor.h"

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

Test(dtype, promotion_is_pytorchs)
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

Test(dtype, dtypes_are_found_by_name)
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

Test(tensor, layouts)
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

Test(tensor, overlap_with_itself)
{
    static const struct {
        const char *what;
        int ndim;
        int64_t sizes[3], strides[3];
        bool overlaps;
    } cases[] = {
        {"row-major", 2, {3, 4}, {4, 1}, false},
        {"transposed", 2, {3, 4}, {1, 3}, false},
        {"with gaps", 2, {3, 4}, {8, 2}, false},
        {"expanded in front", 2, {3, 4}, {0, 1}, true},
        {"expanded behind", 2, {3, 4}, {4, 0}, true},
        {"windows", 2, {3, 4}, {1, 1}, true},
        {"strided windows", 2, {3, 4}, {2, 1}, true},
        {"one element, expanded", 2, {1, 1}, {0, 0}, false},
        {"size 1, expanded", 2, {1, 4}, {0, 1}, false},
        {"empty, expanded", 2, {3, 0}, {0, 1}, false},
        {"0-dim", 0, {0}, {0}, false},
        {"interleaved: not excluded", 2, {2, 2}, {3, 2}, false},
        {"interleaved rows", 2, {3, 3}, {3, 2}, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gems_tensor t = tensor(cases[i].ndim, cases[i].sizes, cases[i].strides);
        cr_expect_eq(gems_tensor_overlaps_itself(&t), cases[i].overlaps, "%s", cases[i].what);
    }
}

Test(tensor, overlap_of_two)
{
    float memory[64];
    const int64_t sizes[2] = {3, 4}, none[2] = {0, 4}, rows[2] = {4, 1}, columns[2] = {1, 3};
    const int64_t long_row[2] = {1, 12}, odd[2] = {99, 1};
    gems_tensor a = tensor(2, sizes, rows), same = a, moved = a, apart = a, turned = tensor(2, sizes, columns);
    gems_tensor flat = tensor(2, long_row, odd), flat2 = tensor(2, long_row, rows), empty = tensor(2, none, rows);
    same.address = a.address = turned.address = flat.address = flat2.address = (uintptr_t)memory;
    moved.address = empty.address = (uintptr_t)(memory + 4);
    apart.address = (uintptr_t)(memory + 12);
    cr_expect_eq(gems_tensor_overlap(&a, &same), GEMS_IDENTICAL);
    cr_expect_eq(gems_tensor_overlap(&a, &moved), GEMS_OVERLAP);
    cr_expect_eq(gems_tensor_overlap(&moved, &a), GEMS_OVERLAP);
    cr_expect_eq(gems_tensor_overlap(&a, &apart), GEMS_APART);
    cr_expect_eq(gems_tensor_overlap(&apart, &a), GEMS_APART);
    cr_expect_eq(gems_tensor_overlap(&a, &turned), GEMS_OVERLAP);
    cr_expect_eq(gems_tensor_overlap(&a, &flat), GEMS_OVERLAP, "another shape");
    cr_expect_eq(gems_tensor_overlap(&flat, &flat2), GEMS_IDENTICAL, "the stride of a size of 1 says nothing");
    cr_expect_eq(gems_tensor_overlap(&a, &empty), GEMS_APART, "an empty one inside");
    same.dtype = GEMS_I32;
    cr_expect_eq(gems_tensor_overlap(&a, &same), GEMS_IDENTICAL, "the size of an element counts, not its dtype");
    same.dtype = GEMS_F16;
    cr_expect_eq(gems_tensor_overlap(&a, &same), GEMS_OVERLAP);
}

Test(tensor, dimensions_from_the_end)
{
    cr_expect_eq(gems_wrap_dim(2, 3), 2);
    cr_expect_eq(gems_wrap_dim(-1, 3), 2);
    cr_expect_eq(gems_wrap_dim(-3, 3), 0);
    cr_expect_eq(gems_wrap_dim(3, 3), -1);
    cr_expect_eq(gems_wrap_dim(-4, 3), -1);
    cr_expect_eq(gems_wrap_dim(INT64_MIN, 3), -1);
    cr_expect_eq(gems_wrap_dim(0, 0), 0);
    cr_expect_eq(gems_wrap_dim(-1, 0), 0);
    cr_expect_eq(gems_wrap_dim(1, 0), -1);
}
