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
bool gems_suits_cpu(const gems_choice *choice);
bool gems_suits_gpu(const gems_choice *choice);
/* For `device`: one with kernels/hopper.cl's instructions. */
bool gems_device_has_wgmma(const gems_device_info *device);
/* How many work-items a CPU device should get for `units` of independent work. */
int64_t gems_cpu_items(const gems_device_info *device, int64_t units);
/* Work-items of a group: `most`, or half of it and so on, which the device takes. */
size_t gems_group(const gems_device_info *device, size_t most);

/* A kernel of an embedded file, for a choice: compiled with KERNEL_<entry>, GROUP, where asked for DENSE_ROWS and PART,
 * and the text that `defines` writes (called only if the kernel is to be built); kernels/{types,nest,rows}.cl stand
 * before the file. Kernels are told apart by the members before `defines` and the choice's operator, so `file` and
 * `entry` must be constants, and `types` must hold whatever else the text is made from. */
typedef struct gems_kernel_wanted {
    const char *file, *entry;
    uint64_t types;
    size_t group;
    bool dense, part;
    void (*defines)(const gems_choice *choice, char *text, size_t n);
} gems_kernel_wanted;

/* NULL: see the work's trouble. Where kernels are found later (gems_work.late) a placeholder for gems_launch. */
gems_kernel *gems_kernel_for(const gems_choice *choice, const gems_kernel_wanted *wanted);

/* What gems_work_launch.wanted names. */
typedef struct gems_kernel_parts {
    gems_kernel_wanted wanted; /* `defines` is not used */
    const gems_op *op;
    char defines[1024];
} gems_kernel_parts;
/* The kernel of these parts for a work; NULL: it is to be built (or see trouble). `more` bytes tell it apart, too. */
gems_kernel *gems_kernel_find_parts(gems_work *work, const gems_kernel_parts *parts, const void *more, size_t n);
/* Builds it, with `before` standing before its own text, and the included files before that. */
gems_kernel *gems_kernel_build_parts(gems_work *work, const gems_kernel_parts *parts, const char *includes,
                                     const char *before, const void *more, size_t n);

#endif
