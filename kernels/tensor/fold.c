#include "kernels/tensor/fold.h"

#include "kernels/embedded.h"
#include "tune/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Appends a loop inside the others, or widens the innermost one if both together are one walk through memory. */
static bool push(gems_fold *fold, int64_t size, int64_t stride)
{
    if (size == 1)
        return true;
    int64_t last = fold->rank - 1;
    if (last >= 0 && fold->stride[last] == stride * size) {
        fold->size[last] *= size;
        fold->stride[last] = stride;
        return true;
    }
    if (fold->rank == GEMS_FOLD_RANK)
        return false;
    fold->size[fold->rank] = size;
    fold->stride[fold->rank++] = stride;
    return true;
}

bool gems_fold_dims(const gems_tensor *t, uint64_t dims, gems_fold *fold)
{
    memset(fold, 0, sizeof *fold);
    for (int d = 0; d < t->ndim; d++)
        if ((dims >> d & 1) && !push(fold, t->sizes[d], t->strides[d]))
            return false;
    return true;
}

gems_fold gems_fold_one(int64_t size, int64_t stride)
{
    gems_fold fold = {.rank = 0};
    push(&fold, size, stride);
    return fold;
}

void gems_fold_sort(gems_fold *fold)
{
    gems_fold in = *fold;
    for (int64_t i = 1; i < in.rank; i++)
        for (int64_t j = i; j > 0 && in.stride[j - 1] < in.stride[j]; j--) {
            int64_t size = in.size[j], stride = in.stride[j];
            in.size[j] = in.size[j - 1], in.stride[j] = in.stride[j - 1];
            in.size[j - 1] = size, in.stride[j - 1] = stride;
        }
    memset(fold, 0, sizeof *fold);
    for (int64_t i = 0; i < in.rank; i++)
        push(fold, in.size[i], in.stride[i]);
}

void gems_fold_split_inner(gems_fold *fold, int64_t *size, int64_t *stride)
{
    *size = *stride = 1;
    if (fold->rank == 0)
        return;
    fold->rank--;
    *size = fold->size[fold->rank];
    *stride = fold->stride[fold->rank];
}

int64_t gems_fold_count(const gems_fold *fold)
{
    int64_t n = 1;
    for (int64_t i = 0; i < fold->rank; i++)
        n *= fold->size[i];
    return n;
}

int gems_wrap_dim(int64_t dim, int ndim)
{
    int64_t n = ndim ? ndim : 1;
    if (dim < -n || dim >= n)
        return -1;
    return (int)(dim < 0 ? dim + n : dim);
}

bool gems_tensors_overlap(const gems_tensor *a, const gems_tensor *b)
{
    if (a->numel == 0 || b->numel == 0)
        return false;
    const char *pa = a->data, *pb = b->data;
    return pa < pb + gems_tensor_span(b) * gems_dtypes[b->dtype].size &&
           pb < pa + gems_tensor_span(a) * gems_dtypes[a->dtype].size;
}

gems_lane gems_lane_for(const gems_call *call)
{
    bool small = call->sizes.v[GEMS_SIZE_NUMEL] < 65536;
    return gems_rule_param(call->rule, "lane", small) ? GEMS_LANE_SMALL : GEMS_LANE_MAIN;
}

bool gems_one_item_runs(const gems_call *call, const gems_device_info *device)
{
    return device->is_cpu && strcmp(gems_rule_variant(call->rule), "group") != 0;
}

/* Eight times the cores, so that a core that is late does not hold up the rest. */
int64_t gems_cpu_items(const gems_device_info *device, int64_t units)
{
    int64_t most = device->compute_units > 1 ? 8 * (int64_t)device->compute_units : 1;
    return units < most ? units : most;
}

/* FNV-1a's step, on 64 bits at a time, then a spread of the high bits. */
uint64_t gems_key(uint64_t key, uint64_t value)
{
    key = (key ^ value ^ 0xcbf29ce484222325u) * 0x100000001b3u;
    return key ^ key >> 29;
}

gems_kernel *gems_kernel_build_file(gems_job *job, uint64_t key, const char *name, const char *defines,
                                    const char *file, const char *entry)
{
    static const char helpers[] =
        "#include \"kernels/types.cl\"\n#include \"kernels/fold.cl\"\n#include \"kernels/rows.cl\"\n";
    const gems_embedded_file *f = gems_embedded_find(file);
    size_t size = strlen(defines) + sizeof helpers + (f ? f->size : 0) + 1;
    char *source = malloc(size);
    gems_kernel *kernel = NULL;
    if (f && source) {
        snprintf(source, size, "%s%s%s", defines, helpers, f->text);
        kernel = gems_kernel_build(job, key, name, NULL, source, "-w", entry);
    }
    free(source);
    return kernel;
}
