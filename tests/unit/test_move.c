/* kernels/move/move.h against plain loops: random blocks, strides, offsets and element sizes on both lanes. Gaps
 * between the destination's elements must keep their bytes. Also the layout rules that need no device. */
#include <criterion/criterion.h>

#include "kernels/move/move.h"
#include "tests/unit/sample.h"

#include <stdlib.h>
#include <string.h>

enum {
    BUFFER = 1 << 16
};
#define ROUNDS (80 / one_in(4))

static const gems_op op = {
    .name = "test", .base = "test", .overload = "", .strukt = "test", .schema = "", .family = ""};
static unsigned seed = 7;

static int64_t any(int64_t low, int64_t high)
{
    seed = seed * 1664525u + 1013904223u;
    return low + (int64_t)(seed >> 8) % (high - low + 1);
}

static void fill_any(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)any(0, 255);
}

/* A tensor over `memory` with its dimensions in random order and sometimes gaps. */
static gems_tensor tensor_of(void *memory, int ndim, const int64_t *sizes, int64_t *strides, gems_dtype dtype)
{
    int order[8];
    for (int d = 0; d < ndim; d++)
        order[d] = d;
    for (int d = ndim - 1; d > 0 && any(0, 1); d--) {
        int k = (int)any(0, d), x = order[d];
        order[d] = order[k];
        order[k] = x;
    }
    int64_t step = any(0, 3) == 0 ? 2 : 1;
    gems_tensor t = {
        .address = (uintptr_t)memory, .sizes = sizes, .strides = strides, .ndim = ndim, .numel = 1, .dtype = dtype};
    for (int k = ndim - 1; k >= 0; k--) {
        int d = order[k];
        strides[d] = step;
        step = step * sizes[d] + (any(0, 3) == 0 ? any(0, 4) : 0);
        t.numel *= sizes[d];
    }
    return t;
}

static const gems_dtype dtypes[] = {GEMS_U8, GEMS_F16, GEMS_F32, GEMS_I64};

static gems_lane any_lane(void)
{
    return any(0, 1) ? GEMS_LANE_MAIN : GEMS_LANE_SMALL;
}

static gems_status run_and_end(gems_work *work, gems_call *call)
{
    gems_status status = gems_work_run(work, call);
    gems_work_end(work);
    return status;
}

static uint8_t *source, *wanted, *got;

static void setup(void)
{
    source = aligned_alloc(64, BUFFER);
    wanted = aligned_alloc(64, BUFFER);
    got = aligned_alloc(64, BUFFER);
    fill_any(source, BUFFER);
}

static void start_round(void)
{
    fill_any(wanted, BUFFER);
    memcpy(got, wanted, BUFFER);
}

TestSuite(move, .init = setup);

/* One block; `pick_dim` is the dimension that an index selects along, or -1. */
static void round_of_move(int pick_dim, bool full_index)
{
    gems_call call = {.op = &op};
    int64_t sizes[8], from_sizes[8], to_strides[8], from_strides[8], index_strides[8];
    const int ndim = (int)any(pick_dim < 0 ? 1 : pick_dim + 1, 5);
    for (int d = 0; d < ndim; d++)
        from_sizes[d] = sizes[d] = any(1, any(0, 4) == 0 ? 40 : 6) % (ndim > 3 ? 7 : 41) + (ndim > 3);
    for (int d = 0; d < ndim; d++)
        from_sizes[d] = sizes[d] = sizes[d] ? sizes[d] : 1;
    if (pick_dim >= 0)
        from_sizes[pick_dim] = any(1, 9);
    const gems_dtype dtype = dtypes[any(0, 3)];
    const int size = gems_dtypes[dtype].size;
    start_round();
    gems_tensor to = tensor_of(got + size * any(0, 3), ndim, sizes, to_strides, dtype);
    gems_tensor from = tensor_of(source + size * any(0, 3), ndim, from_sizes, from_strides, dtype);
    if (gems_tensor_span(&to) * size > BUFFER - 64 || gems_tensor_span(&from) * size > BUFFER - 64)
        return;

    gems_move move = {.to = &to, .from = &from};
    int64_t *index_memory = NULL;
    int64_t index_sizes[8];
    gems_tensor index;
    if (pick_dim >= 0) {
        index_memory = malloc(BUFFER * sizeof *index_memory);
        for (int i = 0; i < BUFFER; i++)
            index_memory[i] = any(0, from_sizes[pick_dim] - 1);
        for (int d = 0; d < ndim; d++)
            index_sizes[d] = full_index || d == pick_dim ? sizes[d] : 1;
        index = tensor_of(index_memory, ndim, index_sizes, index_strides, GEMS_I64);
        cr_assert(gems_index_check(&index, (void *)index.address, (gems_range){.end = from_sizes[pick_dim]}));
        move.index = &index;
        move.axis = from_strides[pick_dim];
        move.limit = from_sizes[pick_dim];
    }
    bool flip[8];
    for (int d = 0; d < ndim; d++) {
        flip[d] = d != pick_dim && any(0, 4) == 0;
        move.src_at += flip[d] ? (sizes[d] - 1) * from_strides[d] : 0;
        int64_t src = flip[d] ? -from_strides[d] : from_strides[d];
        int64_t pick = pick_dim >= 0 && index_sizes[d] > 1 ? index_strides[d] : 0;
        gems_move_add(&move, sizes[d], to_strides[d], d == pick_dim ? 0 : src, pick);
    }

    uint8_t *base = wanted + ((uint8_t *)to.address - got);
    for (int64_t i = 0; i < to.numel; i++) {
        int64_t rest = i, a = 0, b = 0, p = 0;
        for (int d = ndim - 1; d >= 0; d--) {
            int64_t c = rest % sizes[d];
            rest /= sizes[d];
            a += c * to_strides[d];
            if (pick_dim >= 0 && index_sizes[d] > 1)
                p += c * index_strides[d];
            if (d != pick_dim)
                b += (flip[d] ? sizes[d] - 1 - c : c) * from_strides[d];
        }
        if (pick_dim >= 0)
            b += index_memory[p] * from_strides[pick_dim];
        memcpy(base + a * size, (uint8_t *)from.address + b * size, (size_t)size);
    }
    gems_work work;
    gems_device_open();
    gems_work_begin(&work, any_lane());
    gems_move_launch(&work, &move);
    cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
    cr_assert_arr_eq(got, wanted, BUFFER);
    free(index_memory);
}

Test(move, strided)
{
    for (int i = 0; i < ROUNDS; i++)
        round_of_move(-1, false);
}

Test(move, by_index)
{
    for (int i = 0; i < ROUNDS; i++)
        round_of_move((int)any(0, 3), any(0, 1));
}

Test(move, fill)
{
    for (int i = 0; i < ROUNDS; i++) {
        gems_call call = {.op = &op};
        int64_t sizes[8], strides[8];
        const int ndim = (int)any(0, 4);
        for (int d = 0; d < ndim; d++)
            sizes[d] = any(1, 9);
        const gems_dtype dtype = dtypes[any(0, 3)];
        const size_t size = gems_dtypes[dtype].size;
        const uint64_t bits = 0x0123456789abcdefu;
        start_round();
        gems_tensor to = tensor_of(got + size * (size_t)any(0, 3), ndim, sizes, strides, dtype);
        uint8_t *base = wanted + ((uint8_t *)to.address - got);
        for (int64_t k = 0; k < to.numel; k++) {
            int64_t rest = k, a = 0;
            for (int d = ndim - 1; d >= 0; d--) {
                a += rest % sizes[d] * strides[d];
                rest /= sizes[d];
            }
            memcpy(base + a * (int64_t)size, &bits, size);
        }
        gems_work work;
        gems_device_open();
        gems_work_begin(&work, any_lane());
        gems_fill_launch(&work, &to, bits);
        cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
        cr_assert_arr_eq(got, wanted, BUFFER);
    }
}

Test(move, triangle)
{
    for (int i = 0; i < ROUNDS; i++) {
        gems_call call = {.op = &op};
        int64_t sizes[8], to_strides[8], from_strides[8];
        const int ndim = (int)any(2, 4);
        for (int d = 0; d < ndim; d++)
            sizes[d] = any(1, 12);
        const gems_dtype dtype = dtypes[any(0, 3)];
        const size_t size = gems_dtypes[dtype].size;
        const int64_t diagonal = any(-14, 14);
        const bool upper = any(0, 1), in_place = any(0, 2) == 0;
        start_round();
        gems_tensor to = tensor_of(got + size * (size_t)any(0, 3), ndim, sizes, to_strides, dtype);
        gems_tensor from = tensor_of(source + size * (size_t)any(0, 3), ndim, sizes, from_strides, dtype);
        if (in_place)
            from = to;
        if (gems_tensor_span(&to) * (int64_t)size > BUFFER - 64 ||
            gems_tensor_span(&from) * (int64_t)size > BUFFER - 64)
            continue;
        uint8_t *base = wanted + ((uint8_t *)to.address - got);
        for (int64_t k = 0; k < to.numel; k++) {
            int64_t rest = k, a = 0, b = 0;
            for (int d = ndim - 1; d >= 0; d--) {
                a += rest % sizes[d] * to.strides[d];
                b += rest % sizes[d] * from.strides[d];
                rest /= sizes[d];
            }
            int64_t c = k % sizes[ndim - 1], r = k / sizes[ndim - 1] % sizes[ndim - 2];
            bool keep = upper ? c - r >= diagonal : c - r <= diagonal;
            if (!keep)
                memset(base + a * (int64_t)size, 0, size);
            else if (!in_place)
                memcpy(base + a * (int64_t)size, (uint8_t *)from.address + b * (int64_t)size, size);
        }
        gems_work work;
        gems_device_open();
        gems_work_begin(&work, any_lane());
        gems_tri_launch(&work, &to, &from, diagonal, upper);
        cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
        cr_assert_arr_eq(got, wanted, BUFFER);
    }
}
