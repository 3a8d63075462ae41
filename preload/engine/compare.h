/* GEMS_CHECK=N: the first N calls of each operator and shape class are done by us and then by the host, and what the
 * two made is compared: dtype, sizes, strides, and values within the dtype's tolerance (NaN and infinities alike;
 * integers and bools exact). The program gets the host's results. A difference is logged at once; the largest error of
 * each operator goes into the report. */
#ifndef GEMS_COMPARE_H
#define GEMS_COMPARE_H

#include "kernels/host.h"

typedef struct gems_comparison gems_comparison;

/* Once, before all others. */
void gems_compare_start(void);

/* Before our turn: saves the elements that an in-place or out operator will overwrite. NULL if the call is not to be
 * compared (N of its operator and class have been; a class is dtypes, and dimensions rounded to powers of two) or
 * cannot be (out of memory, a list of results). */
gems_comparison *gems_compare_begin(const gems_call *call);
/* After it. `done`: takes over our results, puts back what was overwritten and gives the calling thread's next turn to
 * the host, until gems_compare_end; else our turn had no effect. Takes the comparison, which may be NULL: true if the
 * host's turn has come. */
bool gems_compare_keep(gems_comparison *comparison, const gems_call *call, bool done);

/* Our result i of the call that the host is at in this thread; NULL if it is at none, where everything in the thread is
 * the host's, or if there is no such result. */
const gems_tensor *gems_compare_ours(unsigned i);
/* The operator of that call, NULL if there is none. */
const gems_op *gems_compare_pending(void);
/* Compares result i with what the host made of it (NULL: nothing). */
void gems_compare_result(unsigned i, const gems_tensor *host);
/* The host's turn is over. `refused`: it raised an error, which is a difference. */
void gems_compare_end(bool refused);

/* Writes the lines of the report to `line`; nothing was compared: no lines. */
void gems_compare_report(void (*line)(const char *text));

#endif
