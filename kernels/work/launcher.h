/* What the launchers of several families share: where a call runs, how many work-items, and how a kernel is found. */
#ifndef GEMS_LAUNCHER_H
#define GEMS_LAUNCHER_H

#include "kernels/device/device.h"

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
 * kernels/{types,nest,rows}.cl before it. */
gems_kernel *gems_kernel_build_file(gems_job *job, uint64_t key, const char *name, const char *defines,
                                    const char *file, const char *entry);

#endif
