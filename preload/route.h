/* From a neutral call to a decision: switches, scopes, table, family. Called by the shim; knows no PyTorch. */
#ifndef GEMS_ROUTE_H
#define GEMS_ROUTE_H

#include "kernels/call.h"

/* Start-up of our side that needs no device: configuration, operator sets, thresholds. Called once by the shim. */
void gems_route_start(void);

/* Whether the calling thread and the process let this operator be routed at all. Cheap; sets *why if not. */
bool gems_route_allowed(const gems_op *op, const char **why);

/* Plans, asks the table, runs. GEMS_OK: the results are made. Otherwise call->why says why the host serves. */
gems_status gems_route(gems_call *call);

/* Whether this call (just planned) is one of the first GEMS_CHECK of its operator and shape class. */
bool gems_route_wants_check(const gems_call *call);

/* Notes the outcome: counters, the call's line in the log. `where`: "call", "redispatch" or "aoti". */
void gems_route_note(gems_call *call, gems_status status, const char *where, double seconds);
/* The same for a call that was not even decoded. */
void gems_route_note_passed(const gems_op *op, const char *why, const char *where);
/* True if every call is to be noted, routed or not (log, report). */
bool gems_route_notes_all(void);

/* Result of a comparison of GEMS_CHECK: largest absolute and relative difference, and whether it is within tolerance. */
void gems_route_note_check(const gems_call *call, bool same, double abs_error, double rel_error, const char *what);

/* Sets min_work of an operator's slot: provided by the shim, which owns the slots. */
void gems_shim_set_min_work(unsigned op, int64_t min_work);

#endif
