#include "kernels/work/launcher.h"

#include "kernels/embedded.h"
#include "tune/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        "#include \"kernels/types.cl\"\n#include \"kernels/nest.cl\"\n#include \"kernels/rows.cl\"\n";
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
