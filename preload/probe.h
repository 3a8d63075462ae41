/* What dtypes a kernel takes, found by asking it: plan() decides from the arguments alone, so it can be shown small
 * made-up calls. For `gems ops`; nothing depends on it. */
#ifndef GEMS_PROBE_H
#define GEMS_PROBE_H

#include "kernels/call.h"

/* Names of the dtypes for which the operator's kernel takes at least one of the made-up calls, "f32 f64 i32"; "" if it
 * has no kernel. The device must be open. */
void gems_probe_dtypes(const gems_op *op, char *text, size_t n);

#endif
