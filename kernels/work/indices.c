#include "kernels/work/indices.h"
#include "kernels/memory/host.h"
#include "kernels/work/launcher.h"

#include <stdio.h>
#include <string.h>

enum {
    DIMS = 16,
    GROUPS = 1024, /* of the kernel, at most: each answers by a word */
    FEW = 32 << 10 /* indices that the host has looked at by the time that a kernel has answered */
};

static bool asks_device(const gems_tensor *index)
{
    return gems_work_is_away(index) || (gems_work_stays() && index->numel > FEW);
}

static gems_kernel *kernel_for(gems_work *work, gems_dtype dtype)
{
    struct {
        char name[7]; /* no other kernel's identity is the same */
        uint8_t dtype;
    } id = {"indices", (uint8_t)dtype};
    char options[32];
    gems_kernel *kernel = gems_work_find(work, &id, sizeof id);
    if (kernel || work->trouble.kind != GEMS_TROUBLE_NONE)
        return kernel;
    snprintf(options, sizeof options, "-DINDEX=%s", gems_dtypes[dtype].cl);
    return gems_work_build(
        work, &id, sizeof id,
        &(gems_kernel_text){"indices", "kernels/nest.cl kernels/indices.cl", "", options, "indices"});
}

static gems_status ask_device(gems_call *call, gems_lane lane, const gems_tensor *index, gems_range range)
{
    int32_t wrong[GROUPS] = {0};
    const size_t local = gems_group(gems_device_get(lane), 256);
    const int64_t all = gems_ceil_div(index->numel, (int64_t)local);
    int64_t groups = all < GROUPS ? all : GROUPS;
    const int64_t one = 1, low = range.low, size = range.end - range.low, ignored = range.ignored - range.low;
    const gems_tensor answer = {
        .address = (uintptr_t)wrong, .sizes = &groups, .strides = &one, .numel = groups, .ndim = 1, .dtype = GEMS_I32};
    gems_nest nest;
    if (!gems_nest_dims(index, ~(uint64_t)0, &nest))
        return gems_decline(call, "rank above 8");
    gems_work work;
    gems_work_begin(&work, lane);
    const size_t global = (size_t)groups * local;
    const gems_arg args[] = {GEMS_IN(index),  GEMS_OUT_ARG(&answer), GEMS_VALUE(nest),   GEMS_VALUE(index->numel),
                             GEMS_VALUE(low), GEMS_VALUE(size),      GEMS_VALUE(ignored)};
    gems_launch(&work, kernel_for(&work, index->dtype), 1, &global, &local, args, 7);
    gems_status status = gems_work_run(&work, call);
    gems_work_end(&work);
    int32_t any = 0;
    for (int64_t i = 0; i < groups; i++)
        any |= wrong[i];
    return status == GEMS_OK && any ? gems_decline(call, "index out of range") : status;
}

/* The same indices, each once where dimensions repeat them (a column expanded to the rows that it leads to). */
static gems_tensor without_repeats(const gems_tensor *index, int64_t sizes[DIMS])
{
    gems_tensor once = *index;
    if (index->ndim > DIMS || index->numel == 0)
        return once;
    for (int d = 0; d < index->ndim; d++) {
        sizes[d] = index->strides[d] ? index->sizes[d] : 1;
        once.numel /= index->sizes[d] / sizes[d];
    }
    once.sizes = sizes;
    return once;
}

gems_status gems_indices_check(gems_call *call, gems_lane lane, const gems_tensor *index, gems_range range)
{
    int64_t sizes[DIMS];
    const gems_tensor once = without_repeats(index, sizes);
    if (once.numel > 0 && range.end > range.low && asks_device(&once))
        return ask_device(call, lane, &once, range);
    if (!gems_index_check(&once, gems_tensor_host(&once), range))
        return gems_decline(call, "index out of range");
    return GEMS_OK;
}
