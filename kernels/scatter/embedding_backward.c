/* The gradient of an embedding's weight. Indices are read on the host, which checks them, and there sorted: a kernel
 * then finds what belongs to a row of the result, and nothing is added to the same place by two. */
#include "kernels/memory/host.h"
#include "kernels/tensor/nest.h"
#include "kernels/work/launcher.h"

#include <stdio.h>
#include <string.h>

static gems_status plan(gems_call *call)
{
    const gems_tensor *grad = call->arg[0].tensor, *index = call->arg[1].tensor;
    const gems_value *rows = &call->arg[2], *padding = &call->arg[3], *by_frequency = &call->arg[4];
    if (grad->dtype == GEMS_DTYPE_NONE || gems_dtypes[grad->dtype].category != GEMS_CAT_FLOAT)
        return gems_decline(call, "dtype has no kernel");
    if (index->dtype != GEMS_I64 && index->dtype != GEMS_I32)
        return gems_decline(call, "index dtype");
    if (rows->kind != GEMS_SCALAR_INT || padding->kind != GEMS_SCALAR_INT || by_frequency->kind != GEMS_SCALAR_BOOL ||
        by_frequency->i)
        return gems_decline(call, "scaled by frequency, or a size that is not a number");
    if (grad->ndim != index->ndim + 1 || grad->ndim > 32 ||
        memcmp(grad->sizes, index->sizes, (size_t)index->ndim * sizeof *index->sizes) != 0)
        return gems_decline(call, "gradient has not the indices' shape");
    if (grad->numel == 0 || rows->i <= 0 || rows->i >= INT32_MAX || index->numel >= INT32_MAX)
        return gems_decline(call, "empty, or more rows than an int counts");
    const int64_t n = grad->sizes[grad->ndim - 1];
    call->dtype = grad->dtype;
    call->sizes.v[GEMS_SIZE_ROWS] = rows->i;
    call->sizes.v[GEMS_SIZE_COLS] = n;
    const int64_t numel = call->sizes.v[GEMS_SIZE_NUMEL] = gems_size_times(rows->i, n);
    call->sizes.v[GEMS_SIZE_BYTES] = gems_size_plus(gems_size_bytes(gems_size_plus(numel, grad->numel), grad->dtype),
                                                    gems_size_bytes(index->numel, index->dtype));
    return GEMS_OK;
}

/* A gradient with its result made. */
typedef struct problem {
    const gems_tensor *grad, *out;
    gems_nest grad_rows;
    int64_t rows, n, stride;
    int places; /* scratch */
} problem;

static void write_defines(const gems_choice *c, char *out, size_t n)
{
    snprintf(out, n, "#define D %s\n#define T %s\n", gems_dtypes[c->call->dtype].name,
             gems_dtypes[c->call->dtype].compute);
}

static void launch(const gems_choice *c)
{
    const problem *p = c->problem;
    const bool run = strcmp(c->variant->name, "run") == 0;
    const size_t local = run ? 1 : gems_group(c->device, 256);
    const size_t global =
        run ? (size_t)gems_cpu_items(c->device, p->rows) : ((size_t)(p->rows * p->n) + local - 1) / local * local;
    const gems_kernel_wanted kernel = {"kernels/scatter/embedding_backward.cl",
                                       c->variant->name,
                                       c->call->dtype,
                                       local,
                                       run && p->stride == 1,
                                       false,
                                       write_defines};
    const gems_arg args[] = {GEMS_IN(p->grad),         GEMS_SCRATCH(p->places), GEMS_OUT_ARG(p->out),
                             GEMS_VALUE(p->grad_rows), GEMS_VALUE(p->rows),     GEMS_VALUE(p->n),
                             GEMS_VALUE(p->stride)};
    gems_launch(c->work, gems_kernel_for(c, &kernel), 1, &global, &local, args, 7);
}

static const gems_variant variants[] = {
    {"run", .suits = gems_suits_cpu, .launch = launch},
    {"item", .suits = gems_suits_gpu, .launch = launch},
    {NULL},
};

static int64_t index_at(const gems_tensor *t, const gems_nest *nest, int64_t i)
{
    const void *data = gems_tensor_host(t);
    const int64_t at = gems_nest_offset(nest, i);
    return t->dtype == GEMS_I64 ? ((const int64_t *)data)[at] : ((const int32_t *)data)[at];
}

/* Where the places of each of `rows` rows begin, and at the end the last ones end; then the places, in order. Padding
 * is left out. False: an index out of range. `places` has room for rows + 1 numbers and those. */
static bool sort_places(const gems_tensor *index, const gems_nest *nest, int64_t rows, int64_t padding, int32_t *places)
{
    int32_t *begin = places + 1, *list = places + rows + 1;
    memset(places, 0, (size_t)(rows + 1) * sizeof *places);
    for (int64_t i = 0; i < index->numel; i++) {
        const int64_t row = index_at(index, nest, i);
        if (row == padding)
            continue;
        if (row < 0 || row >= rows)
            return false;
        begin[row]++;
    }
    int32_t before = 0; /* each row's begin, one place further: filling in the list moves it to its end */
    for (int64_t row = 0; row < rows; row++) {
        const int32_t count = begin[row];
        begin[row] = before;
        before += count;
    }
    for (int64_t i = 0; i < index->numel; i++) {
        const int64_t row = index_at(index, nest, i);
        if (row != padding)
            list[begin[row]++] = (int32_t)i;
    }
    return true;
}

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_tensor *grad = call->arg[0].tensor, *index = call->arg[1].tensor;
    const int last = index->ndim;
    problem p = {.grad = grad,
                 .rows = call->sizes.v[GEMS_SIZE_ROWS],
                 .n = call->sizes.v[GEMS_SIZE_COLS],
                 .stride = grad->strides[last]};
    gems_nest nest;
    if (call->dtype == GEMS_F64 && !gems_device_get(work->lane)->f64)
        return gems_decline(call, "the device has no f64");
    if (!gems_nest_dims(grad, ((uint64_t)1 << last) - 1, &p.grad_rows) || !gems_nest_dims(index, ~(uint64_t)0, &nest))
        return gems_decline(call, "rank above 8");
    int32_t *places = gems_work_scratch_filled(work, (size_t)(p.rows + 1 + index->numel) * sizeof *places, &p.places);
    if (!places)
        return gems_fail(call, "%s", work->trouble.text);
    if (!sort_places(index, &nest, p.rows, call->arg[3].i, places))
        return gems_decline(call, "index out of range");
    const int64_t sizes[2] = {p.rows, p.n};
    p.out = gems_call_result(call, 0, call->dtype, 2, sizes, NULL);
    return p.out ? gems_launch_variant(call, work, &p) : GEMS_DECLINED;
}

const gems_family gems_family_embedding_dense_backward = {.name = "embedding_dense_backward",
                                                          .plan = plan,
                                                          .prepare = prepare,
                                                          .variants = variants,
                                                          .small_numel = 65536,
                                                          .grows = true};
