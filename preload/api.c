/* The public functions of gems.h. */
#include "preload/gems.h"
#include "preload/base/config.h"
#include "preload/engine/report.h"
#include "preload/engine/route.h"
#include "preload/engine/scope.h"
#include "kernels/device/device.h"
#include "kernels/work/work.h"

#include <string.h>

const char *gems_version(void)
{
    return GEMS_VERSION;
}

int gems_enable(void)
{
    gems_route_enable(true);
    return 0;
}

int gems_disable(void)
{
    gems_route_enable(false);
    return 0;
}

int gems_scope_push(int kind, const char *ops)
{
    return gems_scope_open(kind, ops) ? 0 : -1;
}

int gems_scope_pop(void)
{
    return gems_scope_close() ? 0 : -1;
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

int gems_counters(const char *name, struct gems_counters *out)
{
    const gems_op *op = name ? gems_op_find(name) : NULL;
    if (!out || (name && !op))
        return -1;
    gems_report_counters(op, out);
    return 0;
}

void gems_counters_reset(void)
{
    gems_report_reset();
}

const char *gems_last_reason(void)
{
    return gems_report_last_reason();
}

void gems_timing_set(int on)
{
    gems_work_set_timing(on != 0);
}

int gems_table_set(const char *json, char *error, size_t n)
{
    return gems_route_set_table(json, error, n) ? 0 : -1;
}

int gems_route_set(const char *mode)
{
    static const char *const names[] = {
        [GEMS_ROUTE_TABLE] = "table", [GEMS_ROUTE_ALL] = "all", [GEMS_ROUTE_OFF] = "off"};
    for (int i = 0; mode && i < 3; i++)
        if (strcmp(mode, names[i]) == 0) {
            gems_route_set_mode(i);
            return 0;
        }
    return -1;
}
