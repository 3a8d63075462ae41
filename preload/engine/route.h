/* From a neutral call to a decision: switches, scopes, table, family. Called by the shim; knows no PyTorch. */
#ifndef GEMS_ROUTE_H
#define GEMS_ROUTE_H

#include "kernels/host.h"

/* Start-up of our side that needs no device: operator sets, thresholds. Called once, with the host. */
void gems_route_start(const gems_host *host);

/* Whether the calling thread and the process let this operator be routed at all. Cheap; sets *why if not. */
bool gems_route_allowed(const gems_op *op, const char **why);

/* Plans, asks the table, runs. GEMS_OK: the results are made. Otherwise call->why says why the host serves. call->rule
 * may be read until gems_route_done, which must follow in the same thread. */
gems_status gems_route(gems_call *call);
void gems_route_done(void);

/* True if every call is to be noted, routed or not (log, report, check): then the gate lets all calls in. */
bool gems_route_notes_all(void);
/* True if the time of each routed call is wanted (gems_timing_set, or all is noted). */
bool gems_route_takes_time(void);

/* A thread has opened (1) or closed (-1) a GEMS_SCOPE_USE. */
void gems_route_scopes(int change);
/* The tables in force on a device, gems_table_set included. Free them with gems_tables_free. */
struct gems_tables *gems_route_tables(const char *vendor, const char *device);

#endif
