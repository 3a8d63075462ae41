/* What happened: counters per operator (read by gems_counters), a line a call in the log, a table at exit
 * (GEMS_REPORT). */
#ifndef GEMS_REPORT_H
#define GEMS_REPORT_H

#include "kernels/call.h"
#include "preload/gems.h"

/* Registers the table at exit if it is wanted, and takes care of fork. */
void gems_report_start(void);

/* Where in the host a call has met us. */
enum gems_where {
    GEMS_WHERE_CALL,
    GEMS_WHERE_REDISPATCH, /* perhaps again: it is one call, and the last outcome counts */
    GEMS_WHERE_AOTI
};

/* Notes the outcome of a call: counters, reason (call->why), line in the log. `decoded`: its arguments are there. */
void gems_report_call(const gems_call *call, gems_status status, enum gems_where where, bool decoded, double seconds);
/* Bytes that were moved for an operator beside its own call's. */
void gems_report_moved(const gems_op *op, uint64_t bytes);
/* A call of this operator begins, of which nothing is to be noted yet. */
void gems_report_new_call(const gems_op *op);

/* The table of GEMS_REPORT, line by line. */
void gems_report_write(void (*line)(const char *text));

#endif
