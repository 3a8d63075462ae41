#include "kernels/work/launcher.h"

#include "kernels/embedded.h"
#include "tune/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gems_lane gems_lane_for(const gems_call *call)
{
    const gems_family *family = call->op->kernel;
    bool small =
        call->sizes.v[GEMS_SIZE_NUMEL] < family->small_numel || call->sizes.v[GEMS_SIZE_BYTES] < family->small_bytes;
    return gems_rule_param(call->rule, "lane", small) ? GEMS_LANE_SMALL : GEMS_LANE_MAIN;
}

/* NULL, or why not. */
static const char *refuses(const gems_variant *v, const gems_call *call, const gems_device_info *device,
                           const void *problem)
{
    if (v->dtypes && !(v->dtypes >> call->dtype & 1))
        return "the rule's variant does not have this dtype";
    return v->can && !v->can(call, device, problem) ? "the rule's variant does not fit" : NULL;
}

gems_status gems_launch_variant(gems_call *call, gems_work *work, const void *problem)
{
    const gems_device_info *device = gems_device_get(work->lane);
    const char *named = gems_rule_variant(call->rule);
    const gems_variant *chosen = NULL, *suits = NULL;
    const char *why = NULL; /* for the log: routed, but not to what the rule names */
    for (const gems_variant *v = call->op->kernel->variants; v->name && !chosen; v++) {
        bool is_named = strcmp(v->name, named) == 0;
        if (!is_named && (suits || (v->suits && !v->suits(call, device, problem))))
            continue;
        const char *refused = refuses(v, call, device, problem);
        if (!refused)
            *(is_named ? &chosen : &suits) = v;
        else if (is_named)
            why = refused;
    }
    if (!chosen && !suits)
        return gems_decline(call, "no variant fits");
    (chosen ? chosen : suits)->launch(call, work, problem);
    if (!call->why)
        call->why = why;
    return GEMS_OK;
}

bool gems_suits_cpu(const gems_call *call, const gems_device_info *device, const void *problem)
{
    (void)call;
    (void)problem;
    return device->is_cpu;
}

bool gems_suits_gpu(const gems_call *call, const gems_device_info *device, const void *problem)
{
    (void)call;
    (void)problem;
    return !device->is_cpu;
}

/* Eight times the cores, so that a core that is late does not hold up the rest. */
int64_t gems_cpu_items(const gems_device_info *device, int64_t units)
{
    int64_t most = device->compute_units > 1 ? 8 * (int64_t)device->compute_units : 1;
    return units < most ? units : most;
}

size_t gems_group(const gems_device_info *device, size_t most)
{
    while (most > device->max_group && most > 1)
        most /= 2;
    return most;
}

gems_kernel *gems_kernel_for(gems_work *work, const gems_kernel_id *id, void (*defines)(const void *, char *, size_t),
                             const void *what)
{
    static const char helpers[] =
        "#include \"kernels/types.cl\"\n#include \"kernels/nest.cl\"\n#include \"kernels/rows.cl\"\n";
    gems_kernel *kernel = gems_work_find(work, id, sizeof *id);
    if (kernel || work->trouble.kind != GEMS_TROUBLE_NONE)
        return kernel;
    const gems_embedded_file *f = gems_embedded_find(id->file);
    char text[1024] = "", *source = NULL;
    defines(what, text, sizeof text);
    if (f && asprintf(&source, "#define KERNEL_%s\n%s%s%s", id->entry, text, helpers, f->text) >= 0)
        kernel =
            gems_work_build(work, id, sizeof *id,
                            &(gems_kernel_text){id->op ? id->op->strukt : id->file, NULL, source, "-w", id->entry});
    free(source);
    return kernel;
}
