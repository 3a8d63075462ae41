/* What the launchers of several families share: where a call runs, which variant, how many work-items, how a kernel is
 * found. */
#ifndef GEMS_LAUNCHER_H
#define GEMS_LAUNCHER_H

#include "kernels/family.h"
#include "kernels/work/work.h"

/* The rule's "lane", else by the family's bounds. */
gems_lane gems_lane_for(const gems_call *call);

/* Launches the variant that the rule names, or where that cannot do the call the first that suits. DECLINED if none
 * does. */
gems_status gems_launch_variant(gems_call *call, gems_work *work, const void *problem);

/* For `suits`: a work-item is to do a long run of elements (a CPU), or a work-group shares them (a GPU). */
bool gems_suits_cpu(const gems_call *call, const gems_device_info *device, const void *problem);
bool gems_suits_gpu(const gems_call *call, const gems_device_info *device, const void *problem);
/* How many work-items a CPU device should get for `units` of independent work. */
int64_t gems_cpu_items(const gems_device_info *device, int64_t units);
/* Work-items of a group: `most`, or half of it and so on, which the device takes. */
size_t gems_group(const gems_device_info *device, size_t most);

/* What tells the kernels of embedded files apart: addresses of constants, and what their text is made from. */
typedef struct gems_kernel_id {
    const char *file, *entry;
    const gems_op *op; /* whose row's fields are in the text; NULL: none */
    uint64_t word[3];
} gems_kernel_id;

/* The kernel id->entry of the embedded file id->file, compiled with KERNEL_<entry> defined, the text that `defines`
 * writes from `what` (called only if the kernel is to be built), and kernels/{types,nest,rows}.cl before it. NULL: see
 * the work's trouble. */
gems_kernel *gems_kernel_for(gems_work *work, const gems_kernel_id *id,
                             void (*defines)(const void *what, char *text, size_t n), const void *what);

#endif
