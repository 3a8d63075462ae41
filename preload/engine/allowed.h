/* GEMS_ONLY and GEMS_EXCLUDE. */
#ifndef GEMS_ALLOWED_H
#define GEMS_ALLOWED_H

#include "kernels/opset.h"

/* The operators that GEMS_ONLY and GEMS_EXCLUDE leave. Compiled on first use; unknown names and operators named by
 * both are complained about once. NULL if neither is set: all. */
const gems_opset *gems_allowed(void);

#endif
