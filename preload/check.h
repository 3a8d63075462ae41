/* GEMS_CHECK=N: the first N calls of each operator and shape class run on both sides and are compared. */
#ifndef GEMS_CHECK_H
#define GEMS_CHECK_H

#include "kernels/call.h"

/* Whether this call (planned) is one of the first N of its operator, dtype and shape class (dimensions rounded to
 * powers of two). Counts it. */
bool gems_check_wants(const gems_call *call);

/* Compares result i: dtype, sizes, strides, values within the dtype's tolerance (NaN and infinities alike; integers and
 * bools exact). A difference beyond it is logged at once; the largest of each operator goes into the report. */
void gems_check_compare(const gems_op *op, const char *what, unsigned i, const gems_tensor *ours,
                        const gems_tensor *host);
/* Writes `what` for the above: the operator with dtypes and shapes of its arguments, at most n bytes. For while the
 * call runs: its arguments do not outlive it. */
void gems_check_describe(const gems_call *call, char *what, size_t n);

/* Writes the lines of the report to `line`; nothing was compared: no lines. */
void gems_check_report(void (*line)(const char *text));

#endif
