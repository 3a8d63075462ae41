/* Counters, reasons, the call log and the table at exit. Counting a call takes a few atomic adds; a reason that is new
 * for its operator, a lock. */
#include "preload/engine/report.h"
#include "preload/engine/compare.h"
#include "preload/base/config.h"
#include "preload/base/hash.h"
#include "preload/base/log.h"
#include "preload/base/text.h"
#include "kernels/device/device.h"
#include "kernels/chain/chain.h"
#include "kernels/memory/arena.h"
#include "tune/table.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REASONS = 6,       /* kept per operator; further ones count as "other" */
    REASON_TEXTS = 512 /* kept per process, a power of two */
};

struct counter {
    atomic_ullong routed, passed, failed, bytes, ns, device_ns;
    struct {
        const char *text; /* interned; NULL: free. The last place: all others */
        uint64_t count;
    } reason[REASONS + 1];
};

static struct counter *counters;                         /* one per operator */
static atomic_uint resets;                               /* of the counters */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* reasons and their texts */
static __thread char last_reason[160];                   /* "": the last call was routed */

/* Calls that were left to the host above autograd, and may come again below it: the latest of a few operators, by
 * index. They are one call, with the outcome that it has in the end. */
typedef struct left {
    uint16_t op; /* its index, from 1 */
    bool failed;
    int8_t reason; /* its place in the counter, or -1 */
    unsigned resets;
} left;
enum {
    LEFT = 8 /* few: thread-local memory of preloaded libraries is scarce */
};
static __thread left left_above[LEFT];
static __thread unsigned newest_left;

/* The operator's, or NULL. */
static left *find_left(const gems_op *op)
{
    for (unsigned i = 0; i < LEFT; i++)
        if (left_above[i].op == op->index + 1)
            return &left_above[i];
    return NULL;
}

static const char *const where_names[] = {"call", "redispatch", "aoti"};

/* The one copy of a text that lives as long as the process. Under the lock. */
static const char *intern(const char *text)
{
    static const char *texts[REASON_TEXTS];
    static unsigned used;
    for (uint64_t i = gems_hash_text(GEMS_HASH_START, text);; i++) {
        const char **slot = &texts[i % REASON_TEXTS];
        if (*slot && strcmp(*slot, text) == 0)
            return *slot;
        if (*slot)
            continue;
        char *copy = used < REASON_TEXTS / 4 * 3 ? strdup(text) : NULL;
        if (!copy)
            return "one of very many reasons";
        used++;
        return *slot = copy;
    }
}

/* --- the call's line ---------------------------------------------------------------------------------------------- */

static void put_tensor(gems_text *t, const gems_tensor *x)
{
    gems_text_put(t, " %s", x->dtype < GEMS_DTYPE_COUNT ? gems_dtypes[x->dtype].name : "other");
    gems_text_put_numbers(t, "[]", x->sizes, (size_t)x->ndim);
    if (x->wrapped)
        gems_text_put(t, "w");
    if (x->dtype < GEMS_DTYPE_COUNT && !gems_tensor_is_contiguous(x))
        gems_text_put_numbers(t, "()", x->strides, (size_t)x->ndim);
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
        gems_text_put(t, " ");
        gems_text_put_numbers(t, "()", v->ints.v, v->ints.n);
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

/* `decoded`: its arguments are there. */
static void log_call(const gems_call *call, gems_status status, enum gems_where where, bool decoded)
{
    char line_text[1024];
    gems_text t = gems_text_in(line_text, sizeof line_text);
    gems_text_put(&t, "%s %s", call->op->name, where_names[where]);
    for (unsigned i = 0; decoded && i < call->op->nparams; i++)
        put_value(&t, &call->arg[i]);
    if (status == GEMS_OK) {
        const char *variant = gems_rule_variant(call->rule);
        gems_text_put(&t, " -> routed %s%s%s", call->op->kernel ? call->op->family : "", *variant ? " " : "", variant);
        if (call->why) /* served, but not as the rule says */
            gems_text_put(&t, " (own kernel: %s)", call->why);
        if (call->rule)
            gems_text_put(&t, " by %s", gems_rule_origin(call->rule));
        if (call->deferred)
            gems_text_put(&t, ", deferred");
    } else {
        gems_text_put(&t, " -> host: %s", call->why ? call->why : "declined");
    }
    gems_log_call(t.s);
}

/* --- counting ------------------------------------------------------------------------------------------------------
 */

/* Adds to a reason of an operator; its place. */
static int count_reason(struct counter *c, const char *why)
{
    int i = 0;
    pthread_mutex_lock(&lock);
    why = intern(why);
    while (i < REASONS && c->reason[i].text && c->reason[i].text != why)
        i++;
    c->reason[i].text = i < REASONS ? why : "other";
    c->reason[i].count++;
    pthread_mutex_unlock(&lock);
    return i;
}

static void count_left(const gems_call *call, gems_status status, const char *why, enum gems_where where)
{
    struct counter *c = &counters[call->op->index];
    atomic_fetch_add_explicit(&c->passed, 1, memory_order_relaxed);
    if (status == GEMS_FAILED)
        atomic_fetch_add_explicit(&c->failed, 1, memory_order_relaxed);
    int reason = gems_config_get()->report ? count_reason(c, why) : -1;
    if (where != GEMS_WHERE_AOTI)
        left_above[++newest_left % LEFT] =
            (left){(uint16_t)(call->op->index + 1), status == GEMS_FAILED, (int8_t)reason, resets};
}

/* The call has come again: what was counted of it is taken back. */
static void take_back(const gems_op *op)
{
    left *l = find_left(op);
    if (!l || l->resets != resets)
        return;
    struct counter *c = &counters[op->index];
    atomic_fetch_sub_explicit(&c->passed, 1, memory_order_relaxed);
    if (l->failed)
        atomic_fetch_sub_explicit(&c->failed, 1, memory_order_relaxed);
    if (l->reason >= 0) {
        pthread_mutex_lock(&lock);
        c->reason[l->reason].count--;
        pthread_mutex_unlock(&lock);
    }
    l->op = 0;
}

void gems_report_new_call(const gems_op *op)
{
    left *l = find_left(op);
    if (l)
        l->op = 0;
}

static void count_routed(const gems_call *call, double seconds)
{
    struct counter *c = &counters[call->op->index];
    atomic_fetch_add_explicit(&c->routed, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->bytes, call->bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->ns, (uint64_t)(seconds * 1e9), memory_order_relaxed);
    if (call->device_ns > 0)
        atomic_fetch_add_explicit(&c->device_ns, (uint64_t)call->device_ns, memory_order_relaxed);
}

void gems_report_call(const gems_call *call, gems_status status, enum gems_where where, bool decoded, double seconds)
{
    if (!counters)
        return;
    const char *why = call->why ? call->why : status == GEMS_OK ? "" : "declined";
    size_t n = strnlen(why, sizeof last_reason - 1);
    memcpy(last_reason, why, n); /* a routed call has one if it was not done as the rule says */
    last_reason[n] = 0;
    if (where == GEMS_WHERE_REDISPATCH)
        take_back(call->op);
    else
        gems_report_new_call(call->op);
    if (status == GEMS_OK)
        count_routed(call, seconds);
    else
        count_left(call, status, why, where);
    if (gems_log_wants_calls())
        log_call(call, status, where, decoded);
}

/* Of one operator, or of all (NULL). */
static void add_up(const gems_op *op, struct gems_counters *out)
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

int gems_counters(const char *name, struct gems_counters *out)
{
    const gems_op *op = name ? gems_op_find(name) : NULL;
    if (!out || (name && !op))
        return -1;
    add_up(op, out);
    return 0;
}

void gems_report_moved(const gems_op *op, uint64_t bytes)
{
    counters[op->index].bytes += bytes;
}

void gems_counters_reset(void)
{
    pthread_mutex_lock(&lock);
    resets++; /* calls on their way take nothing back any more */
    for (unsigned i = 0; counters && i < gems_op_count; i++) {
        struct counter *c = &counters[i];
        c->routed = c->passed = c->failed = c->bytes = c->ns = c->device_ns = 0;
        memset(c->reason, 0, sizeof c->reason);
    }
    pthread_mutex_unlock(&lock);
}

const char *gems_last_reason(void)
{
    pthread_mutex_lock(&lock);
    const char *text = intern(last_reason);
    pthread_mutex_unlock(&lock);
    return text;
}

/* --- the table at exit ---------------------------------------------------------------------------------------------
 */

static int more_calls(const void *a, const void *b)
{
    const struct counter *x = &counters[*(const unsigned *)a], *y = &counters[*(const unsigned *)b];
    uint64_t nx = x->routed * 1000000 + x->passed, ny = y->routed * 1000000 + y->passed;
    return nx < ny ? 1 : nx > ny ? -1 : 0;
}

static void put_reasons(gems_text *t, const struct counter *c)
{
    const char *comma = "";
    for (int i = 0; i <= REASONS; i++)
        if (c->reason[i].count) {
            gems_text_put(t, "%s%s (%llu)", comma, c->reason[i].text, (unsigned long long)c->reason[i].count);
            comma = ", ";
        }
}

/* What the pool of tensors' memory did, if it was used. */
static void write_memory(void (*line)(const char *text))
{
    gems_arena_counts c;
    char s[256];
    gems_arena_count(&c);
    if (c.taken == 0)
        return;
    snprintf(s, sizeof s,
             "memory pool: %llu blocks taken, %llu of them anew; MB in use %.1f, free %.1f; at most in use %.1f, with "
             "pages %.1f; given back %.1f",
             (unsigned long long)c.taken, (unsigned long long)c.fresh, 1e-6 * (double)c.live_bytes,
             1e-6 * (double)c.free_bytes, 1e-6 * (double)c.peak_bytes, 1e-6 * (double)c.peak_resident_bytes,
             1e-6 * (double)c.given_back);
    line(s);
}

static void write_resident(const gems_chain_counts *c, void (*line)(const char *text))
{
    char s[256];
    gems_text t = gems_text_in(s, sizeof s);
    uint64_t home = 0;
    for (int i = 0; i < GEMS_CAUSE_COUNT; i++)
        home += c->home[i];
    if (!c->up && !home)
        return;
    gems_text_put(&t, "resident: %.1f MB copied to the device to stay, %.1f MB brought home", 1e-6 * (double)c->up,
                  1e-6 * (double)home);
    for (int i = 0, n = 0; i < GEMS_CAUSE_COUNT; i++)
        if (c->home[i])
            gems_text_put(&t, "%s %s (%.1f)", n++ ? "," : ", for:", gems_cause_names[i], 1e-6 * (double)c->home[i]);
    line(s);
}

static void write_chains(void (*line)(const char *text))
{
    gems_chain_counts c;
    char s[512];
    gems_chain_count(&c);
    write_resident(&c, line);
    if (c.calls == 0)
        return;
    gems_text t = gems_text_in(s, sizeof s);
    gems_text_put(&t,
                  "chains: %llu calls in %llu passes of %llu steps, %llu of them for a reduction, softmax or norm; "
                  "%llu results never stored, %.1f MB not moved; %llu "
                  "kernels built, %llu passes evaluated; computed for:",
                  (unsigned long long)c.calls, (unsigned long long)c.passes, (unsigned long long)c.steps,
                  (unsigned long long)c.folds, (unsigned long long)c.unstored, 1e-6 * (double)c.bytes_saved,
                  (unsigned long long)c.kernels, (unsigned long long)c.evaluated);
    for (int i = 0; i < GEMS_CAUSE_COUNT; i++)
        if (c.causes[i])
            gems_text_put(&t, " %s (%llu)", gems_cause_names[i], (unsigned long long)c.causes[i]);
    line(s);
}

void gems_report_write(void (*line)(const char *text))
{
    unsigned *order = malloc(gems_op_count * sizeof *order), n = 0;
    if (!order)
        return;
    for (unsigned i = 0; i < gems_op_count; i++)
        if (counters[i].routed || counters[i].passed)
            order[n++] = i;
    qsort(order, n, sizeof *order, more_calls);
    char s[2048];
    snprintf(s, sizeof s, "%-44s %9s %9s %10s %10s %10s  %s", "operator", "routed", "host", "time ms", "device ms",
             "moved MB", "why host");
    line(s);
    for (unsigned k = 0; k <= n; k++) { /* the last one: all of them */
        const gems_op *op = k < n ? &gems_ops[order[k]] : NULL;
        struct gems_counters c;
        add_up(op, &c);
        gems_text t = gems_text_in(s, sizeof s);
        gems_text_put(&t, "%-44s %9llu %9llu %10.2f %10.2f %10.2f", op ? op->name : "total",
                      (unsigned long long)c.routed, (unsigned long long)c.passed, 1e3 * c.seconds,
                      1e3 * c.device_seconds, 1e-6 * (double)c.bytes_moved);
        if (n == 0)
            line("no operator was called");
        if (op) {
            gems_text_put(&t, "  ");
            put_reasons(&t, &counters[op->index]);
        }
        line(s);
    }
    free(order);
    write_memory(line);
    write_chains(line);
}

static void line(const char *text)
{
    fprintf(stderr, "gems: %s\n", text);
}

static void at_exit(void)
{
    if (gems_config_get()->report)
        gems_report_write(line);
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
