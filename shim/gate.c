/* The gate: every thunk's slow half comes here. It lets through only calls that are plain beyond doubt; whatever is
 * exotic (another backend, autograd, tracing, vmap, subclasses, modes) goes to the original as if we were not there. */
#include "shim/decode.h"
#include "kernels/chain/chain.h"
#include "preload/engine/compare.h"
#include "preload/engine/report.h"
#include "preload/engine/route.h"
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread bool inside; /* we are working for a call of this thread: calls that we cause fall through */

_Static_assert((int)GEMS_ENTRY_CALL == GEMS_WHERE_CALL && (int)GEMS_ENTRY_REDISPATCH == GEMS_WHERE_REDISPATCH &&
                   (int)GEMS_ENTRY_AOTI == GEMS_WHERE_AOTI,
               "entries are places");

static void start(void)
{
    const gems_config *config = gems_config_get(); /* before anything is logged */
    if (gems_torch_find())
        gems_torch_calibrate(); /* also if disabled: gems_enable may come */
    if (!gems_torch.ready && !config->disable)
        gems_log("no operator is routed: %s", gems_torch.why ? gems_torch.why : "calibration failed");
    gems_route_start(&gems_pytorch);
}

static bool wants_gradient(const gems_call *call)
{
    bool grad = gems_torch.api.grad_enabled();
    for (unsigned i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        size_t n = v->kind == GEMS_TENSOR ? 1 : v->kind == GEMS_TENSORS ? v->tensors.n : 0;
        for (size_t k = 0; k < n; k++) {
            const void *t = v->kind == GEMS_TENSOR ? v->tensor->host : v->tensors.v[k].host;
            const void *impl = host_impl(t);
            if (grad && gems_torch.api.requires_grad(impl))
                return true;
            void **tangent = gems_torch.api.fw_grad(impl, 0, t);
            if (tangent && *tangent != gems_torch.api.undefined)
                return true;
        }
    }
    return false;
}

/* The same call will come again, below autograd: nothing to note yet. */
static const char autograd_first[] = "autograd first";

/* Where in the host's dispatcher a call meets us. */
enum place {
    BELOW_AUTOGRAD, /* gradients and versions are done with */
    INFERENCE_MODE, /* no gradients; the versions of tensors from outside are still counted */
    ABOVE_AUTOGRAD  /* nothing is done yet */
};

/* Why this call must not be touched, judged from the thread's state; NULL if it may be. Before decoding. */
static const char *foreign(const gems_op *op, enum gems_entry entry, uint64_t ks, enum place *place)
{
    struct torch_keys keys;
    *place = BELOW_AUTOGRAD;
    if (entry == GEMS_ENTRY_REDISPATCH && ks != gems_torch.plain)
        return (ks & ~(gems_torch.autograd | gems_torch.adinplace)) == gems_torch.plain ? autograd_first
                                                                                        : "not a plain call";
    if (entry != GEMS_ENTRY_AOTI) { /* the C shim passes over the dispatcher and its state */
        gems_torch_thread_keys(&keys);
        keys.excluded &= ~gems_torch.names;
        /* Inference mode takes ADInplaceOrView out of what is included; where it is excluded that says nothing. */
        if (keys.included == gems_torch.adinplace && keys.excluded == gems_torch.below.excluded)
            keys.included = gems_torch.below.included;
        if (memcmp(&keys, &gems_torch.below, sizeof keys) != 0) {
            if (entry == GEMS_ENTRY_REDISPATCH)
                return "not a plain thread";
            /* ADInplaceOrView is taken out of the default included keys, autograd is excluded. */
            if (keys.included == gems_torch.adinplace && keys.excluded == gems_torch.autograd)
                *place = INFERENCE_MODE;
            else if (keys.included != 0 || keys.excluded != 0)
                return "not a plain thread";
            else if (op->composite)
                *place = ABOVE_AUTOGRAD;
            else
                return autograd_first;
        }
    }
    /* A redispatch has been shown to profilers by its call. */
    return entry != GEMS_ENTRY_REDISPATCH && gems_torch.api.has_callbacks() ? "a profiler is watching" : NULL;
}

/* --- entering ----------------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void start_frame(struct frame *f)
{
    gems_call *call = &f->call;
    call->host = &gems_pytorch;
    call->why = NULL;
    call->rule = NULL;
    call->chain = NULL;
    call->deferred = false;
    call->bytes = 0;
    call->device_ns = 0;
    call->dtype = GEMS_DTYPE_NONE;
    memset(&call->sizes, -1, sizeof call->sizes);
    memset(call->has_result, 0, sizeof call->has_result);
    memset(f->handle, 0, sizeof f->handle);
    f->ntensors = 0;
    f->heap = NULL;
}

/* The arguments in neutral form, if all are plain. */
static bool take_arguments(struct frame *f, enum place place, void **raw)
{
    gems_call *call = &f->call;
    f->counts_versions = place != BELOW_AUTOGRAD && call->op->form != GEMS_FUNCTIONAL;
    if (!gems_decode(f, raw))
        return false;
    if (place == ABOVE_AUTOGRAD && wants_gradient(call))
        return gems_decline(call, "a gradient is wanted"), false;
    return true;
}

/* The host is about to run the call: what it reads must not be owed. */
static void settle_arguments(const gems_call *call)
{
    for (unsigned i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        const gems_tensor *t = v->kind == GEMS_TENSOR ? v->tensor : v->kind == GEMS_TENSORS ? v->tensors.v : NULL;
        size_t n = v->kind == GEMS_TENSOR ? 1 : v->kind == GEMS_TENSORS ? v->tensors.n : 0;
        for (; n > 0; n--, t++)
            if (t->numel)
                gems_chain_settle((const void *)t->address, 1, call->op->params[i].written, /* NOLINT */
                                  GEMS_CAUSE_OPERATOR);
    }
}

/* Whether the host, now that it is to run a call, may read what is owed or away. What is made of other operators leaves
 * that to them, which come here, too. */
static bool host_reads(const gems_op *op)
{
    return !op->composite && atomic_load_explicit(&gems_chain_active, memory_order_relaxed);
}

/* Notes a call that is not for us; for the log its arguments are looked at all the same, if they may be. */
static void pass_noted(struct frame *f, const char *why, bool look, void **raw)
{
    bool shown = look && gems_log_wants_calls();
    start_frame(f);
    f->counts_versions = false;
    bool owed = look && host_reads(f->call.op);
    if (shown || owed)
        (void)gems_decode(f, raw); /* as far as they are plain */
    if (owed)
        settle_arguments(&f->call);
    f->call.why = why;
    gems_report_call(&f->call, GEMS_DECLINED, (enum gems_where)f->entry, shown, 0);
    free(f->heap);
}

static enum gems_entered work(struct frame *f, uint64_t ks, void *ret, void **raw)
{
    gems_call *call = &f->call;
    const gems_op *op = call->op;
    enum place place;
    const char *why = gems_torch.ready ? foreign(op, f->entry, ks, &place) : "PyTorch not understood";
    if (why == autograd_first) {
        if (f->entry == GEMS_ENTRY_CALL)
            gems_report_new_call(op);
        return GEMS_ENTERED_HOST;
    }
    bool ours = !why; /* of the kind that we may look at */
    if (ours && !op->kernel)
        why = "no kernel";
    if (!why && gems_torch_replaced(op))
        why = "the program has a kernel of its own";
    if (why || !gems_route_allowed(op, &why)) {
        pass_noted(f, why, ours, raw);
        return GEMS_ENTERED_HOST;
    }

    double start_time = gems_route_takes_time() ? now() : 0;
    gems_status status = GEMS_DECLINED;
    bool compared = false;
    start_frame(f);
    if (take_arguments(f, place, raw)) {
        gems_comparison *comparison = gems_compare_begin(call);
        status = gems_route(call);
        compared = gems_compare_keep(comparison, call, status == GEMS_OK);
    }
    if (status != GEMS_OK) {
        gems_drop_results(f);
        if (host_reads(op))
            settle_arguments(call);
    } else if (!compared)
        gems_give_results(f, ret, raw);
    gems_report_call(call, status, (enum gems_where)f->entry, true, start_time != 0 ? now() - start_time : 0);
    gems_route_done();
    free(f->heap);
    return compared ? GEMS_ENTERED_COMPARE : status == GEMS_OK ? GEMS_ENTERED_DONE : GEMS_ENTERED_HOST;
}

enum gems_entered gems_enter(unsigned op, enum gems_entry entry, uint64_t ks, void *ret, void **raw)
{
    if (gems_torch_calibrating()) {
        gems_torch_observe(op, entry, ks, raw);
        return GEMS_ENTERED_HOST;
    }
    if (inside || gems_compare_pending())
        return GEMS_ENTERED_HOST;
    inside = true; /* start-up makes calls, too */
    pthread_once(&once, start);
    enum gems_entered entered = GEMS_ENTERED_HOST;
    if (gems_torch.ready || gems_route_notes_all()) {
        struct frame f;
        f.call.op = &gems_ops[op];
        f.entry = entry;
        uint64_t moved = gems_resident_moved;
        entered = work(&f, ks, ret, raw);
        if (gems_resident_moved != moved)
            gems_report_moved(f.call.op, gems_resident_moved - moved);
    }
    inside = false;
    return entered;
}

/* After the host's turn of a call that is compared. */
enum gems_entered gems_leave(enum gems_entry entry, void *ret)
{
    const gems_op *op = gems_compare_pending();
    for (unsigned i = 0; i < op->nresults; i++) {
        gems_tensor host;
        const void *t = op->form != GEMS_FUNCTIONAL ? gems_compare_ours(i)->host
                        : entry == GEMS_ENTRY_AOTI  ? *((void ***)ret)[i]
                                                    : (void *)((void **)ret + (op->nresults - 1 - i));
        gems_compare_result(i, gems_decode_tensor(t, false, &host) ? &host : NULL);
    }
    gems_compare_end(false);
    return GEMS_ENTERED_HOST;
}

void gems_thrown(void)
{
    gems_compare_end(true);
}
