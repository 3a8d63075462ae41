/* What happened: counters per operator, a line a call in the log, a table at exit (GEMS_REPORT). */
#ifndef GEMS_REPORT_H
#define GEMS_REPORT_H

#include "kernels/call.h"
#include "preload/gems.h"

/* Registers the table at exit if it is wanted, and takes care of fork. */
void gems_report_start(void);

/* Notes the outcome of a decoded call: counters, reason, line in the log. `where`: "call", "redispatch" or "aoti". */
void gems_report_call(const gems_call *call, gems_status status, const char *where, double seconds);
/* The same for a call that is not for us. `why` is static; `decoded`: its arguments are there, for the log. */
void gems_report_passed(const gems_call *call, const char *why, const char *where, bool decoded);

/* Of one operator, or of all (NULL). */
void gems_report_counters(const gems_op *op, struct gems_counters *out);
void gems_report_reset(void);
const char *gems_report_last_reason(void);

#endif
