/* A family: operators that share a launcher. One const struct per family, listed nowhere: the row of an operator in
 * shim/ops.json names its kernel with "kernel": "<stem>" and the generated table refers to gems_family_<stem>.
 *
 * The order of a call: plan (does it apply? named sizes) -> the table chooses -> run (results, memory, launch).
 * Families may use call.h, device/device.h, tune/table.h and codegen/, never the host's or OpenCL's headers. */
#ifndef GEMS_FAMILY_H
#define GEMS_FAMILY_H

#include "kernels/call.h"

typedef struct gems_family {
    const char *name;
    /* Decides from the arguments alone whether a kernel can do exactly this call (else GEMS_DECLINED with a reason),
     * and fills call->dtype and call->sizes. No allocation, no device call: it is on the path of calls that the table
     * gives back to the host. */
    gems_status (*plan)(gems_call *call);
    /* Makes the results, launches, waits. Anything but GEMS_OK: nothing that the caller can see has changed. If a
     * result may alias an argument, only the last launch may write it. */
    gems_status (*run)(gems_call *call);
    /* What a table's rule may name for this family, separated by spaces: variants "row col split"; parameters with the
     * values that make sense, and a step if not all between do, "lane[0..1] tile[16..256:16]". NULL: not checked. */
    const char *variants, *params;
    /* True if a result or named size may exceed the product of the element counts of the tensor arguments (repeat,
     * pad): then the gate must look at small calls too. */
    bool grows;
} gems_family;

#endif
