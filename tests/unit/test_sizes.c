/* Named sizes of expanded operands, which cost no memory: whatever a family multiplies, the result stays in range. */
#include "kernels/family.h"
#include "tests/unit/fake_host.h"

#include <criterion/criterion.h>

static double memory[4];
static const int64_t none[4] = {0};

static gems_tensor expanded(int ndim, const int64_t *sizes, gems_dtype dtype)
{
    gems_tensor t = {.address = (uintptr_t)memory, .sizes = sizes, .strides = none, .ndim = ndim, .numel = 1};
    t.dtype = dtype;
    for (int d = 0; d < ndim; d++)
        t.numel *= sizes[d];
    return t;
}

static void plan(gems_call *call, const char *name)
{
    call->host = &fake_host;
    call->op = gems_op_find(name);
    cr_assert_not_null(call->op);
    for (int s = 0; s < GEMS_SIZE_COUNT; s++)
        call->sizes.v[s] = -1;
    cr_assert_eq(call->op->kernel->plan(call), GEMS_OK, "%s: %s", name, call->why);
}

#define TENSOR(t) ((gems_value){.kind = GEMS_TENSOR, .tensor = &(t)})

Test(sizes, pointwise)
{
    const int64_t sizes[2] = {INT64_C(1) << 31, INT64_C(1) << 31}, row[2] = {1, INT64_C(1) << 62},
                  column[2] = {INT64_C(1) << 62, 1};
    gems_tensor t = expanded(2, sizes, GEMS_F64), r = expanded(2, row, GEMS_F32), c = expanded(2, column, GEMS_F32);
    gems_call call = {.arg = {TENSOR(t), TENSOR(t)}}, outer = {.arg = {TENSOR(r), TENSOR(c)}};
    plan(&call, "mul.Tensor");
    cr_expect_eq(call.sizes.v[GEMS_SIZE_NUMEL], INT64_C(1) << 62);
    cr_expect_eq(call.sizes.v[GEMS_SIZE_BYTES], INT64_MAX);
    plan(&outer, "mul.Tensor");
    cr_expect_eq(outer.sizes.v[GEMS_SIZE_NUMEL], INT64_MAX);
    cr_expect_eq(outer.sizes.v[GEMS_SIZE_BYTES], INT64_MAX);
}

Test(sizes, products)
{
    const int64_t side = INT32_MAX - 1024, sizes[3] = {4, side, side}, *matrix = sizes + 1;
    gems_tensor a = expanded(2, matrix, GEMS_F32);
    gems_call call = {.arg = {TENSOR(a), TENSOR(a)}};
    plan(&call, "mm");
    cr_expect_eq(call.sizes.v[GEMS_SIZE_NUMEL], side * side);
    cr_expect_eq(call.sizes.v[GEMS_SIZE_BYTES], INT64_MAX);
    const int64_t thin[3] = {INT32_MAX, side, 1}, flat[3] = {INT32_MAX, 1, side};
    gems_tensor l = expanded(3, thin, GEMS_F32), r = expanded(3, flat, GEMS_F32);
    gems_call batch = {.arg = {TENSOR(l), TENSOR(r)}};
    plan(&batch, "bmm");
    cr_expect_eq(batch.sizes.v[GEMS_SIZE_NUMEL], INT32_MAX * side);
    cr_expect_eq(batch.sizes.v[GEMS_SIZE_BYTES], INT64_MAX);
}

Test(sizes, the_other_families)
{
    const int64_t sizes[2] = {INT64_C(1) << 31, INT64_C(1) << 31};
    const gems_value absent = {.kind = GEMS_NONE}, dim = {.kind = GEMS_SCALAR_INT, .i = 0},
                     no = {.kind = GEMS_SCALAR_BOOL, .i = 0};
    gems_tensor t = expanded(2, sizes, GEMS_F64), i = expanded(2, sizes, GEMS_I64), both[2] = {t, t};
    const gems_value x = TENSOR(t), index = TENSOR(i), list = {.kind = GEMS_TENSORS, .tensors = {both, 2}};
    const struct {
        const char *name;
        gems_value arg[5];
    } cases[] = {
        {"sum", {x, absent}},
        {"argmax", {x, absent, no}},
        {"cumsum", {x, dim, absent}},
        {"_softmax", {x, dim, no}},
        {"triu", {x, dim}},
        {"cat", {list, dim}},
        {"gather", {x, dim, index, no}},
        {"glu", {x, dim}},
        {"stack", {list, dim}},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        gems_call call = {.op = NULL};
        for (int a = 0; a < 5; a++)
            call.arg[a] = cases[k].arg[a];
        plan(&call, cases[k].name);
        cr_expect_eq(call.sizes.v[GEMS_SIZE_BYTES], INT64_MAX, "%s: %ld bytes", cases[k].name,
                     (long)call.sizes.v[GEMS_SIZE_BYTES]);
        cr_expect(call.sizes.v[GEMS_SIZE_NUMEL] > 0, "%s", cases[k].name);
    }
}
