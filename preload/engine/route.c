/* The decision: switches and scopes, the device, the family's plan, the table, the family's work. */
#include "preload/engine/route.h"
#include "preload/base/config.h"
#include "preload/base/log.h"
#include "preload/engine/allowed.h"
#include "kernels/opset.h"
#include "preload/engine/report.h"
#include "preload/engine/scope.h"
#include "preload/engine/tables.h"
#include "kernels/chain/chain.h"
#include "kernels/device/device.h"
#include "kernels/embedded.h"
#include "kernels/family.h"
#include "kernels/memory/arena.h"
#include "kernels/work/launcher.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>

#define CANDIDATES 16
/* Elements of an operand that may be on the device: also a few of a large tensor, which would all be fetched for them.
 */
#define PLACE_LEAST 1
/* Calls that might be deferred before a device is opened for that: a script of a few would be over before it pays. */
#define OPENS_AFTER 16

/* The process's side of routing. It changes under the lock alone; what calls read without it is atomic. */
static struct {
    pthread_mutex_t lock; /* for changes: table, enabled, mode */
    const gems_host *host;
    const gems_opset *allowed;           /* what GEMS_ONLY and GEMS_EXCLUDE leave; NULL: all */
    gems_tables *candidates[CANDIDATES]; /* until the device is open: the tables of all vendors */
    char *user_json;                     /* gems_table_set */
    atomic_bool enabled, opened, no_device;
    atomic_bool opening; /* in the background */
    atomic_int seen;     /* calls that might be deferred, until then */
    bool started, cannot_fuse;
    atomic_int mode;
    bool enabled_given, mode_given; /* by the C API, perhaps before the start: they stand */
    int scopes;                     /* threads' open GEMS_SCOPE_USE */
} route = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool gems_route_notes_all(void)
{
    const gems_config *c = gems_config_get();
    return c->report || c->check > 0 || gems_log_wants_calls();
}

bool gems_route_takes_time(void)
{
    return gems_work_timing() || gems_route_notes_all();
}

static bool excluded(const gems_op *op)
{
    return route.allowed && !gems_opset_has(route.allowed, op->index);
}

static bool asked_for_device(void)
{
    const gems_config *c = gems_config_get();
    return c->vendor || c->device >= 0;
}

static gems_fuse fuse_mode(void)
{
    const gems_config *c = gems_config_get();
    return c->check > 0 || !c->pool ? GEMS_FUSE_OFF : (gems_fuse)c->fuse;
}

static gems_stay resident_mode(void)
{
    const gems_config *c = gems_config_get();
    return c->check > 0 || !c->pool ? GEMS_STAY_OFF : (gems_stay)c->resident;
}

/* The least work at which the table may send a call of this operator to the device; INT64_MAX if it never does. */
static int64_t table_threshold(const gems_op *op)
{
    if (gems_route_notes_all())
        return INT64_MIN;
    if (!op->kernel || excluded(op) || route.mode == GEMS_ROUTE_OFF || route.no_device ||
        (!route.enabled && !route.scopes))
        return INT64_MAX;
    if (route.mode == GEMS_ROUTE_ALL)
        return INT64_MIN;
    const gems_table *table = gems_tables_current();
    if (table)
        return gems_table_min_numel(table, op);
    if (asked_for_device())
        return INT64_MIN; /* who asked for a device is to hear early if there is none: the first call opens it */
    /* Which vendor it will be is not known before OpenCL is opened, and that is only done for a call that may be worth
     * it to one of them. */
    int64_t least = INT64_MAX;
    for (int i = 0; i < CANDIDATES && route.candidates[i]; i++) {
        int64_t work = gems_table_min_numel(gems_tables_top(route.candidates[i]), op);
        least = work < least ? work : least;
    }
    return least;
}

/* The least elements of a call that chains may take, by any vendor's table until the device is known. */
static int64_t chain_threshold(void)
{
    gems_fuse fuse = route.cannot_fuse ? GEMS_FUSE_OFF : fuse_mode();
    const gems_table *table = gems_tables_current();
    int64_t least = gems_chain_least(fuse, table);
    if (gems_work_stays()) /* what the host runs may read what is away */
        return PLACE_LEAST;
    for (int i = 0; !table && i < CANDIDATES && route.candidates[i]; i++) {
        int64_t work = gems_chain_least(fuse, gems_tables_top(route.candidates[i]));
        least = work < least ? work : least;
    }
    return least;
}

/* The least work at which a call of this operator may be worth a look; INT64_MAX if none is. One that is not routed may
 * read what is owed. */
static int64_t threshold(const gems_op *op)
{
    int64_t by_table = table_threshold(op), by_chain = chain_threshold();
    bool off = route.mode == GEMS_ROUTE_OFF || route.no_device || (!route.enabled && !route.scopes);
    return off || by_table < by_chain ? by_table : by_chain;
}

static void find_candidates(void)
{
    int n = 0;
    for (int i = 0; i < CANDIDATES; i++) {
        gems_tables_free(route.candidates[i]);
        route.candidates[i] = NULL;
    }
    for (const gems_embedded_file *f = gems_embedded; f->name && n < CANDIDATES; f++) {
        char vendor[64];
        if (sscanf(f->name, "tune/%63[^.].json", vendor) != 1)
            continue;
        gems_tables *t = gems_tables_build(vendor, NULL, route.user_json, NULL);
        if (t)
            route.candidates[n++] = t;
    }
}

/* Under the lock, after every change. */
static void set_thresholds(void)
{
    if (!route.started)
        return;
    if (route.mode == GEMS_ROUTE_TABLE && (route.enabled || route.scopes) && !gems_tables_current() &&
        !route.candidates[0])
        find_candidates();
    for (unsigned i = 0; i < gems_op_count; i++)
        route.host->set_min_numel(i, threshold(&gems_ops[i]));
}

/* The lock may be held by a thread of the parent's that is opening the device; it does not go on in the child. */
static void after_fork_in_child(void)
{
    pthread_mutex_init(&route.lock, NULL);
    gems_tables_after_fork_in_child();
}

void gems_route_start(const gems_host *host)
{
    pthread_atfork(NULL, NULL, after_fork_in_child);
    const gems_config *c = gems_config_get();
    if (c->report)
        gems_work_set_timing(true);
    gems_report_start();
    pthread_mutex_lock(&route.lock);
    route.host = host;
    if (resident_mode() != GEMS_STAY_OFF)
        gems_table_set_place(PLACE_LEAST);
    gems_device_ask_threads(host->threads); /* a program that limits its threads limits those of its CPU device */
    route.allowed = gems_allowed();
    if (!route.enabled_given)
        route.enabled = !c->disable;
    if (!route.mode_given)
        route.mode = (int)c->route;
    route.started = true;
    set_thresholds();
    pthread_mutex_unlock(&route.lock);
}

/* Opens the device and puts its tables in force. */
static void open_device(void)
{
    pthread_mutex_lock(&route.lock);
    if (!route.opened) {
        if (gems_device_open()) {
            const gems_device_info *d = gems_device_get(GEMS_LANE_MAIN);
            gems_tables *tables = gems_tables_build(d->vendor, d->name, route.user_json, NULL);
            if (tables && !gems_tables_replace(tables))
                gems_tables_free(tables);
            if (gems_config_get()->resident_limit > 0)
                gems_resident_limit((size_t)gems_config_get()->resident_limit << 20);
            route.cannot_fuse = !gems_chain_start(fuse_mode(), resident_mode());
        } else {
            route.no_device = true;
        }
        route.opened = true;
        set_thresholds();
    }
    pthread_mutex_unlock(&route.lock);
}

/* Whether the device is open, which the first call that may be worth it sees to: in the background if all that it is
 * worth is to be deferred. */
static bool device_ready(void)
{
    if (route.opened)
        return gems_device_open(); /* false after fork */
    if (fuse_mode() == GEMS_FUSE_AUTO && route.mode == GEMS_ROUTE_TABLE && !asked_for_device() &&
        !gems_route_takes_time()) {
        if (atomic_fetch_add(&route.seen, 1) < OPENS_AFTER || atomic_exchange(&route.opening, true) ||
            gems_chain_open(open_device))
            return false;
    }
    open_device();
    return !route.no_device;
}

bool gems_route_allowed(const gems_op *op, const char **why)
{
    const gems_scope *scope = gems_scope_current();
    if (scope && scope->kind == GEMS_SCOPE_OFF)
        *why = "off for this thread";
    else if (scope && scope->kind == GEMS_SCOPE_ONLY && !gems_opset_has(scope->only, op->index))
        *why = "not among this thread's operators";
    else if (!route.enabled && !(scope && scope->kind == GEMS_SCOPE_USE))
        *why = "disabled";
    else if (excluded(op))
        *why = "excluded (GEMS_EXCLUDE, GEMS_ONLY)";
    else if (route.mode == GEMS_ROUTE_OFF)
        *why = "GEMS_ROUTE=off";
    else if (route.no_device)
        *why = gems_device_error();
    else
        return true;
    return false;
}

/* Where loops end early (gems_device_info.short_loops): whether no work-item can have long ones, by the named sizes of
 * the call. Kernels for CPUs do up to all of a small call in one work-item. */
static bool loops_are_short(const gems_call *call)
{
    for (int i = 0; i < GEMS_SIZE_COUNT; i++) {
        int64_t most = i == GEMS_SIZE_NUMEL ? 8192 : i == GEMS_SIZE_BYTES ? INT64_MAX : 1024;
        if (call->sizes.v[i] > most)
            return false;
    }
    return true;
}

static gems_status serve(gems_call *call)
{
    gems_work work;
    gems_lane lane = gems_lane_for(call);
    if (gems_device_get(lane)->short_loops && !loops_are_short(call))
        return gems_decline(call, "the device ends long loops early");
    gems_work_begin(&work, lane);
    gems_arena_hides = gems_work_stays();
    gems_status status = call->op->kernel->prepare(call, &work);
    gems_arena_hides = false;
    if (status == GEMS_OK)
        status = gems_work_run(&work, call);
    gems_work_end(&work);
    return status;
}

/* Leaves the call's results owed, if they can be. */
static bool defer(gems_call *call)
{
    gems_work work;
    gems_work_begin(&work, GEMS_LANE_MAIN);
    gems_arena_hides = true;
    gems_status status = call->op->kernel->prepare(call, &work);
    gems_arena_hides = false;
    bool taken = status == GEMS_OK && gems_chain_take(call, &work);
    gems_work_end(&work);
    return taken;
}

/* What the table says of the call; NULL: the host is to run it, and call->why says why. */
static const char *refusal(const gems_call *call)
{
    if (route.mode == GEMS_ROUTE_ALL)
        return NULL;
    return !call->rule ? "no rule of the table" : gems_rule_is_host(call->rule) ? "the table says host" : NULL;
}

gems_status gems_route(gems_call *call)
{
    const gems_op *op = call->op;
    if (!device_ready())
        return gems_decline(call, route.opened ? gems_device_error() : "the device is being opened");
    gems_status status = op->kernel->plan(call);
    if (status != GEMS_OK)
        return status;
    const gems_table *table = gems_tables_hold();
    call->sizes.v[GEMS_SIZE_PLACE] = gems_resident_place(call);
    call->chain = table ? gems_table_chain(table, op, call->dtype, &call->sizes) : NULL;
    if (gems_chain_wants(call)) {
        if ((call->deferred = defer(call)))
            return GEMS_OK;
        call->host->drop_results(call);
    } else if (gems_chain_fold(call)) {
        return GEMS_OK;
    }
    call->rule = table ? gems_table_lookup(table, op, call->dtype, &call->sizes) : NULL;
    const char *refused = refusal(call);
    if (refused)
        return gems_decline(call, refused);
    if (call->rule && gems_rule_is_host(call->rule))
        call->rule = NULL;
    status = serve(call);
    if (status == GEMS_FAILED) {
        gems_log("%s: %s; the host runs it", op->name, call->why ? call->why : "failed");
        if (gems_config_get()->strict) {
            gems_complain("%s: %s (GEMS_STRICT)", op->name, call->why ? call->why : "failed");
            abort();
        }
    }
    return status;
}

void gems_route_done(void)
{
    gems_tables_release();
}

/* --- changes at run time (gems.h) ----------------------------------------------------------------------------------
 */

static int enable(bool enabled)
{
    pthread_mutex_lock(&route.lock);
    route.enabled = enabled;
    route.enabled_given = true;
    set_thresholds();
    pthread_mutex_unlock(&route.lock);
    return 0;
}

int gems_enable(void)
{
    return enable(true);
}

int gems_disable(void)
{
    return enable(false);
}

void gems_route_scopes(int change)
{
    pthread_mutex_lock(&route.lock);
    bool first_or_last = route.scopes == 0 || route.scopes + change == 0;
    route.scopes += change;
    if (!route.enabled && first_or_last)
        set_thresholds();
    pthread_mutex_unlock(&route.lock);
}

int gems_route_set(const char *mode)
{
    static const char *const names[] = {
        [GEMS_ROUTE_TABLE] = "table", [GEMS_ROUTE_ALL] = "all", [GEMS_ROUTE_OFF] = "off"};
    int m = 0;
    while (mode && m < 3 && strcmp(mode, names[m]) != 0)
        m++;
    if (!mode || m == 3)
        return -1;
    pthread_mutex_lock(&route.lock);
    route.mode = m;
    route.mode_given = true;
    set_thresholds();
    pthread_mutex_unlock(&route.lock);
    return 0;
}

gems_tables *gems_route_tables(const char *vendor, const char *device)
{
    pthread_mutex_lock(&route.lock);
    gems_tables *tables = gems_tables_build(vendor, device, route.user_json, NULL);
    pthread_mutex_unlock(&route.lock);
    return tables;
}

int gems_table_set(const char *json, char *error, size_t n)
{
    char *copy = json ? strdup(json) : NULL;
    gems_table_error e = {"out of memory"};
    pthread_mutex_lock(&route.lock);
    const gems_device_info *d = route.opened && !route.no_device ? gems_device_get(GEMS_LANE_MAIN) : NULL;
    gems_tables *tables =
        json && !copy ? NULL : gems_tables_build(d ? d->vendor : "generic", d ? d->name : NULL, copy, &e);
    bool ok = tables && (!d || gems_tables_replace(tables));
    if (ok) {
        free(route.user_json);
        route.user_json = copy;
        if (!d)
            find_candidates();
        set_thresholds();
    } else {
        free(copy);
    }
    if (!ok || !d)
        gems_tables_free(tables);
    pthread_mutex_unlock(&route.lock);
    if (!ok && error && n)
        snprintf(error, n, "%s", e.text);
    return ok ? 0 : -1;
}
