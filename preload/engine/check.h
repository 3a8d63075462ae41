/* GEMS_CHECK=N: the first N calls of each operator and shape class run on both sides and are compared. */
#ifndef GEMS_CHECK_H
#define GEMS_CHECK_H

#include "kernels/call.h"

/* Once, before all others. */
void gems_check_start(void);
/* Whether this call is to be compared: fewer than N of its operator and class (dtypes, and dimensions rounded to powers
 * of two) have been. */
bool gems_check_wants(const gems_call *call);
/* It will be: counts it. */
void gems_check_count(const gems_call *call);
/* Writes the call in words: the operator with dtypes and shapes of its arguments, at most n bytes. For while the call
 * runs: its arguments do not outlive it. */
void gems_check_describe(const gems_call *call, char *what, size_t n);

/* Compares result i: dtype, sizes, strides, values within the dtype's tolerance (NaN and infinities alike; integers and
 * bools exact). `host` is NULL if the host gave no such result. A difference is logged at once; the largest error of
 * each operator goes into the report. */
void gems_check_compare(const gems_op *op, const char *what, unsigned i, const gems_tensor *ours,
                        const gems_tensor *host);
/* The host raised an error for a call that we had done: a difference. */
void gems_check_refused(const gems_op *op, const char *what);

/* Writes the lines of the report to `line`; nothing was compared: no lines. */
void gems_check_report(void (*line)(const char *text));

#endif
