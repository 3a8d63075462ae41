/* Counters, reasons, the call log and the table at exit. Counting a call takes a few atomic adds; a reason that is new
 * for its operator, a lock. */
#include "preload/engine/report.h"
#include "preload/engine/compare.h"
#include "preload/base/config.h"
#include "preload/base/log.h"
#include "preload/base/text.h"
#include "kernels/device/device.h"
#include "tune/table.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REASONS 6 /* kept per operator; further ones count as "other" */

struct counter {
    atomic_ullong routed, passed, failed, bytes, ns, device_ns;
    struct {
        char *text; /* NULL: free */
        uint64_t count;
    } reason[REASONS];
    uint64_t other;
};

static struct counter *counters;                         /* one per operator */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* reasons */
static __thread const char *last_reason;                 /* static, or in last_text */
static __thread char last_text[160];

/* --- the call's line ---------------------------------------------------------------------------------------------- */

static void put_tensor(gems_text *t, const gems_tensor *x)
{
    gems_text_put(t, " %s[", x->dtype < GEMS_DTYPE_COUNT ? gems_dtypes[x->dtype].name : "other");
    for (int d = 0; d < x->ndim; d++)
        gems_text_put(t, d ? ",%lld" : "%lld", (long long)x->sizes[d]);
    gems_text_put(t, "]");
    if (x->wrapped)
        gems_text_put(t, "w");
    if (x->dtype < GEMS_DTYPE_COUNT && !gems_tensor_is_contiguous(x)) {
        gems_text_put(t, "(");
        for (int d = 0; d < x->ndim; d++)
            gems_text_put(t, d ? ",%lld" : "%lld", (long long)x->strides[d]);
        gems_text_put(t, ")");
    }
}

static void put_value(gems_text *t, const gems_value *v)
{
    switch (v->kind) {
    case GEMS_TENSOR:
        put_tensor(t, v->tensor);
        break;
    case GEMS_TENSORS:
        for (size_t i = 0; i < v->tensors.n; i++)
            put_tensor(t, &v->tensors.v[i]);
        break;
    case GEMS_SCALAR_FLOAT:
        gems_text_put(t, " %g", v->f);
        break;
    case GEMS_SCALAR_INT:
        gems_text_put(t, " %lld", (long long)v->i);
        break;
    case GEMS_SCALAR_BOOL:
        gems_text_put(t, v->i ? " true" : " false");
        break;
    case GEMS_INTS:
        gems_text_put(t, " (");
        for (size_t i = 0; i < v->ints.n; i++)
            gems_text_put(t, i ? ",%lld" : "%lld", (long long)v->ints.v[i]);
        gems_text_put(t, ")");
        break;
    case GEMS_STR:
        gems_text_put(t, " '%.*s'", (int)v->str.n, v->str.s);
        break;
    case GEMS_DTYPE:
        gems_text_put(t, " %s", gems_dtypes[v->dtype].name);
        break;
    default:
        break;
    }
}

static void log_call(const gems_call *call, gems_status status, const char *where)
{
    char line_text[1024];
    gems_text t = gems_text_in(line_text, sizeof line_text);
    gems_text_put(&t, "%s %s", call->op->name, where);
    for (unsigned i = 0; i < call->op->nparams; i++)
        put_value(&t, &call->arg[i]);
    if (status == GEMS_OK) {
        const char *variant = gems_rule_variant(call->rule);
        gems_text_put(&t, " -> routed %s%s%s", call->op->kernel ? call->op->family : "", *variant ? " " : "", variant);
        if (call->why) /* served, but not as the rule says */
            gems_text_put(&t, " (own kernel: %s)", call->why);
        if (call->rule)
            gems_text_put(&t, " by %s", gems_rule_origin(call->rule));
    } else {
        gems_text_put(&t, " -> host: %s", call->why ? call->why : "declined");
    }
    gems_log_call(t.s);
}

/* --- counting ------------------------------------------------------------------------------------------------------
 */

static void count_reason(struct counter *c, const char *why)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < REASONS; i++) {
        if (!c->reason[i].text)
            c->reason[i].text = strdup(why);
        if (c->reason[i].text && strcmp(c->reason[i].text, why) == 0) {
            c->reason[i].count++;
            pthread_mutex_unlock(&lock);
            return;
        }
    }
    c->other++;
    pthread_mutex_unlock(&lock);
}

void gems_report_call(const gems_call *call, gems_status status, const char *where, double seconds)
{
    if (!counters)
        return;
    struct counter *c = &counters[call->op->index];
    if (status == GEMS_OK) {
        atomic_fetch_add_explicit(&c->routed, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&c->bytes, call->bytes, memory_order_relaxed);
        atomic_fetch_add_explicit(&c->ns, (uint64_t)(seconds * 1e9), memory_order_relaxed);
        if (call->device_ns > 0)
            atomic_fetch_add_explicit(&c->device_ns, (uint64_t)call->device_ns, memory_order_relaxed);
        last_reason = NULL;
        if (call->why) { /* why it was not done as the rule says */
            snprintf(last_text, sizeof last_text, "%s", call->why);
            last_reason = last_text;
        }
    } else {
        const char *why = call->why ? call->why : "declined";
        atomic_fetch_add_explicit(&c->passed, 1, memory_order_relaxed);
        if (status == GEMS_FAILED)
            atomic_fetch_add_explicit(&c->failed, 1, memory_order_relaxed);
        snprintf(last_text, sizeof last_text, "%s", why);
        last_reason = last_text;
        if (gems_config_get()->report)
            count_reason(c, why);
    }
    if (gems_log_wants_calls())
        log_call(call, status, where);
}

void gems_report_passed(const gems_call *call, const char *why, const char *where, bool decoded)
{
    if (!counters)
        return;
    struct counter *c = &counters[call->op->index];
    atomic_fetch_add_explicit(&c->passed, 1, memory_order_relaxed);
    last_reason = why;
    if (gems_config_get()->report)
        count_reason(c, why);
    if (decoded) {
        log_call(call, GEMS_DECLINED, where);
    } else if (gems_log_wants_calls()) {
        char line_text[400];
        gems_text t = gems_text_in(line_text, sizeof line_text);
        gems_text_put(&t, "%s %s -> host: %s", call->op->name, where, why);
        gems_log_call(t.s);
    }
}

void gems_report_counters(const gems_op *op, struct gems_counters *out)
{
    *out = (struct gems_counters){0};
    for (unsigned i = op ? op->index : 0; counters && i < (op ? op->index + 1u : gems_op_count); i++) {
        out->routed += counters[i].routed;
        out->passed += counters[i].passed;
        out->failed += counters[i].failed;
        out->bytes_moved += counters[i].bytes;
        out->seconds += 1e-9 * (double)counters[i].ns;
        out->device_seconds += 1e-9 * (double)counters[i].device_ns;
    }
}

void gems_report_reset(void)
{
    for (unsigned i = 0; counters && i < gems_op_count; i++) {
        struct counter *c = &counters[i];
        c->routed = c->passed = c->failed = c->bytes = c->ns = c->device_ns = 0;
    }
}

const char *gems_report_last_reason(void)
{
    return last_reason ? last_reason : "";
}

/* --- the table at exit ---------------------------------------------------------------------------------------------
 */

static void line(const char *text)
{
    fprintf(stderr, "gems: %s\n", text);
}

static int more_calls(const void *a, const void *b)
{
    const struct counter *x = &counters[*(const unsigned *)a], *y = &counters[*(const unsigned *)b];
    uint64_t nx = x->routed * 1000000 + x->passed, ny = y->routed * 1000000 + y->passed;
    return nx < ny ? 1 : nx > ny ? -1 : 0;
}

static void print_report(void)
{
    unsigned *order = malloc(gems_op_count * sizeof *order), n = 0;
    if (!order)
        return;
    for (unsigned i = 0; i < gems_op_count; i++)
        if (counters[i].routed || counters[i].passed)
            order[n++] = i;
    qsort(order, n, sizeof *order, more_calls);
    char s[512];
    snprintf(s, sizeof s, "%-44s %9s %9s %10s %10s %10s  %s", "operator", "routed", "host", "time ms", "device ms",
             "moved MB", "why host");
    line(s);
    for (unsigned k = 0; k < n; k++) {
        struct counter *c = &counters[order[k]];
        size_t used =
            (size_t)gems_c_snprintf(s, sizeof s, "%-44s %9llu %9llu %10.2f %10.2f %10.2f  ", gems_ops[order[k]].name,
                                    (unsigned long long)c->routed, (unsigned long long)c->passed, 1e-6 * (double)c->ns,
                                    1e-6 * (double)c->device_ns, 1e-6 * (double)c->bytes);
        for (int i = 0; i < REASONS && c->reason[i].text && used < sizeof s; i++)
            used += (size_t)snprintf(s + used, sizeof s - used, "%s%s (%llu)", i ? ", " : "", c->reason[i].text,
                                     (unsigned long long)c->reason[i].count);
        line(s);
    }
    if (n == 0)
        line("no operator was called");
    struct gems_counters all;
    gems_report_counters(NULL, &all);
    gems_c_snprintf(s, sizeof s, "%-44s %9llu %9llu %10.2f %10.2f %10.2f", "total", (unsigned long long)all.routed,
                    (unsigned long long)all.passed, 1e3 * all.seconds, 1e3 * all.device_seconds,
                    1e-6 * (double)all.bytes_moved);
    line(s);
    free(order);
}

static void at_exit(void)
{
    if (gems_config_get()->report)
        print_report();
    gems_compare_report(line);
}

static void fork_prepare(void)
{
    pthread_mutex_lock(&lock);
}
static void fork_done(void)
{
    pthread_mutex_unlock(&lock);
}

void gems_report_start(void)
{
    counters = calloc(gems_op_count, sizeof *counters);
    pthread_atfork(fork_prepare, fork_done, fork_done);
    if (gems_config_get()->check > 0)
        gems_compare_start();
    if (counters && (gems_config_get()->report || gems_config_get()->check > 0))
        atexit(at_exit);
}
