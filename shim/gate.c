/* The gate: every thunk's slow half comes here. It lets through only calls that are plain beyond doubt; whatever is
 * exotic (another backend, autograd, tracing, vmap, subclasses, modes) goes to the original as if we were not there. */
#include "shim/decode.h"
#include "preload/check.h"
#include "preload/report.h"
#include "preload/route.h"
#include "preload/config.h"
#include "preload/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread bool inside; /* we are working for a call of this thread: calls that we cause fall through */

static const char *const entry_names[GEMS_ENTRY_COUNT] = {"call", "redispatch", "aoti"};

void gems_shim_set_min_work(unsigned op, int64_t min_work)
{
    __atomic_store_n(&gems_slots[op].min_work, gems_host.ready ? min_work : INT64_MAX, __ATOMIC_RELAXED);
}

static void start(void)
{
    bool found = gems_host_find();
    if (found && !gems_config_get()->disable)
        gems_host_calibrate();
    if (!gems_host.ready && !gems_config_get()->disable)
        gems_log("no operator is routed: %s", gems_host.why ? gems_host.why : "calibration failed");
    gems_route_start();
}

static bool wants_gradient(const gems_call *call)
{
    bool grad = gems_host.api.grad_enabled();
    for (unsigned i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        size_t n = v->kind == GEMS_TENSOR ? 1 : v->kind == GEMS_TENSORS ? v->tensors.n : 0;
        for (size_t k = 0; k < n; k++) {
            const void *t = v->kind == GEMS_TENSOR ? v->tensor->host : v->tensors.v[k].host;
            const void *impl = host_impl(t);
            if (grad && gems_host.api.requires_grad(impl))
                return true;
            void **tangent = gems_host.api.fw_grad(impl, 0, t);
            if (tangent && *tangent != gems_host.api.undefined)
                return true;
        }
    }
    return false;
}

/* A tensor's own keys: plain, with or without what autograd adds (inference tensors have nothing of it). */
static bool plain_tensors(const gems_call *call, bool allow_adinplace)
{
    uint64_t extra = gems_host.autograd | gems_host.adinplace, base = gems_host.plain_tensor & ~extra;
    for (unsigned i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        size_t n = v->kind == GEMS_TENSOR ? 1 : v->kind == GEMS_TENSORS ? v->tensors.n : 0;
        for (size_t k = 0; k < n; k++) {
            uint64_t ks = host_keyset(v->kind == GEMS_TENSOR ? v->tensor->host : v->tensors.v[k].host);
            if ((ks & ~extra) != base || (ks & extra & ~gems_host.plain_tensor) ||
                (!allow_adinplace && (ks & gems_host.adinplace)))
                return false;
        }
    }
    return true;
}

/* The same call will come again, below autograd: nothing to note yet. */
static const char autograd_first[] = "autograd first";

/* Why this call must not be touched, judged from the thread's state; NULL if it may be. Before decoding. */
static const char *foreign(const gems_op *op, enum gems_entry entry, uint64_t ks, bool *above_autograd)
{
    struct host_keys keys;
    *above_autograd = false;
    if (entry == GEMS_ENTRY_AOTI)
        return gems_host.call_ready ? NULL : "tensors cannot be judged";
    if (entry == GEMS_ENTRY_REDISPATCH && ks != gems_host.plain)
        return (ks & ~(gems_host.autograd | gems_host.adinplace)) == gems_host.plain ? autograd_first
                                                                                     : "not a plain call";
    if (!gems_host_thread_keys(&keys))
        return entry == GEMS_ENTRY_REDISPATCH ? NULL : "the thread's state cannot be judged";
    keys.excluded &= ~gems_host.names;
    bool below = memcmp(&keys, &gems_host.below, sizeof keys) == 0;
    if (entry == GEMS_ENTRY_REDISPATCH)
        return below ? NULL : "not a plain thread";
    if (!gems_host.call_ready)
        return "tensors cannot be judged";
    if (below)
        return NULL;
    /* Inference mode: ADInplaceOrView is taken out of the default included keys, autograd is excluded. */
    if (keys.included == gems_host.adinplace && keys.excluded == gems_host.autograd)
        return NULL;
    if (keys.included == 0 && keys.excluded == 0) {
        if (!op->composite)
            return autograd_first;
        *above_autograd = true;
        return NULL;
    }
    return "not a plain thread";
}

/* --- GEMS_CHECK: ours first, then the host's, then a comparison -------------------------------------------------- */

struct check {
    char what[120]; /* the call, in words: its arguments are gone when the host's result is there */
    unsigned nresults;
    gems_tensor result[GEMS_MAX_RESULTS];
    host_tensor *handle[GEMS_MAX_RESULTS]; /* functional: our result */
    void *saved[GEMS_MAX_RESULTS];         /* in-place and out: what we computed, as bytes of the span */
};
static __thread struct check *pending;

static size_t span_bytes(const gems_tensor *t)
{
    return (size_t)gems_tensor_span(t) * gems_dtypes[t->dtype].size;
}

static void check_free(struct check *k)
{
    for (unsigned i = 0; k && i < k->nresults; i++) {
        if (k->handle[i])
            gems_host.api.delete_tensor(k->handle[i]);
        free(k->saved[i]);
    }
    free(k);
}

/* Keeps what we computed and puts the written arguments back as they were. */
static struct check *check_keep(struct frame *f, void *const *backup)
{
    struct check *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    gems_check_describe(&f->call, k->what, sizeof k->what);
    k->nresults = f->call.op->nresults;
    for (unsigned i = 0; i < k->nresults; i++) {
        k->result[i] = f->call.result[i];
        k->handle[i] = f->handle[i];
        f->handle[i] = NULL;
        if (!backup[i])
            continue;
        size_t n = span_bytes(&k->result[i]);
        k->saved[i] = malloc(n ? n : 1);
        if (k->saved[i])
            memcpy(k->saved[i], k->result[i].data, n);
        memcpy(k->result[i].data, backup[i], n);
    }
    return k;
}

static bool check_backup(struct frame *f, void **backup)
{
    const gems_op *op = f->call.op;
    memset(backup, 0, GEMS_MAX_RESULTS * sizeof *backup);
    if (op->form == GEMS_FUNCTIONAL)
        return true;
    for (unsigned i = 0; i < op->nresults; i++) {
        const gems_value *v = &f->call.arg[op->form == GEMS_INPLACE ? i : op->nparams - op->nresults + i];
        if (v->kind != GEMS_TENSOR || v->tensor->dtype == GEMS_DTYPE_NONE)
            return false;
        size_t n = span_bytes(v->tensor);
        backup[i] = malloc(n ? n : 1);
        if (!backup[i])
            return false;
        memcpy(backup[i], v->tensor->data, n);
    }
    return true;
}

void gems_leave(unsigned op, enum gems_entry entry, void *ret, void **raw)
{
    (void)raw;
    struct check *k = pending;
    pending = NULL;
    if (!k)
        return;
    const gems_op *o = &gems_ops[op];
    for (unsigned i = 0; i < k->nresults; i++) {
        gems_tensor host;
        const void *t = o->form != GEMS_FUNCTIONAL ? k->result[i].host
                        : entry == GEMS_ENTRY_AOTI ? *((void ***)ret)[i]
                                                   : (void *)((void **)ret + (k->nresults - 1 - i));
        gems_tensor ours = k->result[i];
        if (k->saved[i])
            ours.data = k->saved[i];
        if (t && gems_decode_tensor(t, &host))
            gems_check_compare(o, k->what, i, &ours, &host);
    }
    check_free(k);
}

/* --- entering ----------------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static enum gems_entered work(struct frame *f, uint64_t ks, void *ret, void **raw)
{
    gems_call *call = &f->call;
    const gems_op *op = call->op;
    const char *why = NULL;
    bool above_autograd = false;
    if (!gems_host.ready)
        why = "PyTorch not understood";
    else if ((why = foreign(op, f->entry, ks, &above_autograd)))
        ;
    else if (!op->kernel)
        why = "no kernel";
    else
        gems_route_allowed(op, &why);
    if (why) {
        if (why != autograd_first)
            gems_report_passed(op, why, entry_names[f->entry]);
        return GEMS_ENTERED_HOST;
    }

    call->why = NULL;
    call->rule = NULL;
    call->bytes = 0;
    call->device_ns = 0;
    call->dtype = GEMS_DTYPE_NONE;
    memset(&call->sizes, -1, sizeof call->sizes);
    memset(call->has_result, 0, sizeof call->has_result);
    memset(f->handle, 0, sizeof f->handle);
    f->ntensors = 0;
    f->heap = NULL;

    gems_status status = GEMS_DECLINED;
    double start_time = gems_route_takes_time() ? now() : 0;
    void *backup[GEMS_MAX_RESULTS] = {NULL};
    enum gems_entered entered = GEMS_ENTERED_HOST;
    if (!gems_decode(f, raw))
        gems_decline(call, "an argument that cannot be expressed");
    /* Also below autograd: keys that fall through for this operator (named tensors) are not in the call's own set. */
    else if (!plain_tensors(call, f->entry != GEMS_ENTRY_CALL || op->form == GEMS_FUNCTIONAL))
        gems_decline(call, "not a plain tensor");
    else if (above_autograd && op->form != GEMS_FUNCTIONAL)
        gems_decline(call, "in-place above autograd");
    else if (above_autograd && wants_gradient(call))
        gems_decline(call, "a gradient is wanted");
    else {
        bool check = gems_config_get()->check > 0 && check_backup(f, backup);
        status = gems_route(call);
        if (status == GEMS_OK && check && gems_check_wants(call)) {
            check_free(pending); /* left behind by an exception of the host */
            pending = check_keep(f, backup);
            entered = pending ? GEMS_ENTERED_BOTH : GEMS_ENTERED_HOST;
        } else if (status == GEMS_OK) {
            gems_give_results(f, ret, raw);
            entered = GEMS_ENTERED_DONE;
        }
    }
    if (status != GEMS_OK)
        gems_drop_results(f);
    gems_report_call(call, status, entry_names[f->entry], start_time != 0 ? now() - start_time : 0);
    for (unsigned i = 0; i < GEMS_MAX_RESULTS; i++)
        free(backup[i]);
    free(f->heap);
    return entered;
}

enum gems_entered gems_enter(unsigned op, enum gems_entry entry, uint64_t ks, void *ret, void **raw)
{
    if (gems_host_calibrating()) {
        gems_host_observe(op, entry, ks, raw);
        return GEMS_ENTERED_HOST;
    }
    if (inside)
        return GEMS_ENTERED_HOST;
    inside = true; /* start-up makes calls, too */
    pthread_once(&once, start);
    enum gems_entered entered = GEMS_ENTERED_HOST;
    if (gems_host.ready || gems_route_notes_all()) {
        struct frame f;
        f.call.op = &gems_ops[op];
        f.entry = entry;
        entered = work(&f, ks, ret, raw);
    }
    inside = false;
    return entered;
}
