/* The functions of gems.h about library and device. Switches, scopes, tables and counters have theirs in engine/. */
#include "preload/gems.h"
#include "kernels/device/device.h"
#include "kernels/work/work.h"

const char *gems_version(void)
{
    return GEMS_VERSION;
}

const char *gems_vendor(void)
{
    return gems_device_open() ? gems_device_get(GEMS_LANE_MAIN)->vendor : NULL;
}

const char *gems_device_name(void)
{
    return gems_device_open() ? gems_device_get(GEMS_LANE_MAIN)->name : NULL;
}

const char *gems_operator(size_t i)
{
    return i < gems_op_count ? gems_ops[i].name : NULL;
}

int gems_operator_has_kernel(const char *name)
{
    const gems_op *op = name ? gems_op_find(name) : NULL;
    return op ? op->kernel != NULL : -1;
}

void gems_timing_set(int on)
{
    gems_work_set_timing(on != 0);
}
