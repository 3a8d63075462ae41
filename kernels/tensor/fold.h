/* Sets of dimensions as nested loops, for families that split a tensor's dimensions into kept and reduced ones
 * (reductions, softmax, norms, scans), and what their launchers share. The device side is fold.cl. */
#ifndef GEMS_FOLD_H
#define GEMS_FOLD_H

#include "kernels/call.h"
#include "kernels/device/device.h"

#define GEMS_FOLD_RANK 8

/* Loops, outermost first; sizes above 1, no two neighbours that could be one loop. Rank 0: a single element. The same
 * struct in device code (fold.cl). */
typedef struct gems_fold {
    int64_t size[GEMS_FOLD_RANK];
    int64_t stride[GEMS_FOLD_RANK]; /* elements */
    int64_t rank;
} gems_fold;

/* The dimensions of `t` whose bit in `dims` is set, in their order. False: more than GEMS_FOLD_RANK loops remain. */
bool gems_fold_dims(const gems_tensor *t, uint64_t dims, gems_fold *fold);
/* One loop. */
gems_fold gems_fold_one(int64_t size, int64_t stride);
/* Orders the loops by falling stride, and collapses again: for uses where the order of visits is free. */
void gems_fold_sort(gems_fold *fold);
/* Takes the innermost loop off: its size and stride, or 1 and 1 if there is none. */
void gems_fold_split_inner(gems_fold *fold, int64_t *size, int64_t *stride);
/* Product of the sizes. */
int64_t gems_fold_count(const gems_fold *fold);

/* `dim` of a tensor with ndim dimensions, negative ones counted from the end; -1 if out of range. A 0-dim tensor takes
 * -1 and 0, both giving 0. */
int gems_wrap_dim(int64_t dim, int ndim);
/* True if the memory of two tensors may overlap. */
bool gems_tensors_overlap(const gems_tensor *a, const gems_tensor *b);

/* The rule's "lane" (0 main, 1 small), else the small one below 64 Ki elements. */
gems_lane gems_lane_for(const gems_call *call);
/* True if a work-item is to do a long run of elements (a CPU), false if a work-group shares them (a GPU, or the rule's
 * variant is "group"). */
bool gems_one_item_runs(const gems_call *call, const gems_device_info *device);
/* How many work-items a CPU device should get for `units` of independent work. */
int64_t gems_cpu_items(const gems_device_info *device, int64_t units);

/* Mixes a number into a kernel key; begin with 0. */
uint64_t gems_key(uint64_t key, uint64_t value);
/* As gems_kernel_build for the embedded `file`, with the text `defines` (which rows.cl reads, too) and then
 * kernels/{types,fold,rows}.cl before it. */
gems_kernel *gems_kernel_build_file(gems_job *job, uint64_t key, const char *name, const char *defines,
                                    const char *file, const char *entry);

#endif
