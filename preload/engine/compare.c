/* Comparing our results with the host's. Errors are relative: to the host's value or, where an element is made of a row
 * of others (sums, whose terms may cancel), to the largest value around it as well. */
#include "preload/engine/compare.h"
#include "kernels/memory/host.h"
#include "preload/base/config.h"
#include "preload/base/hash.h"
#include "preload/base/log.h"
#include "preload/base/text.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Relative tolerances as PyTorch's own test-suite has them, tenfold for f32 and f64, where long sums differ in order;
 * and the least step, below which values are not told apart. */
static const struct {
    double relative, step;
} tolerance[GEMS_DTYPE_COUNT] = {[GEMS_F16] = {2e-3, 0x1p-24},
                                 [GEMS_BF16] = {1.6e-2, 0x1p-133},
                                 [GEMS_F32] = {1.3e-5, 0x1p-149},
                                 [GEMS_F64] = {1e-6, 0x1p-1074}};
/* Of the largest value in a result of sums: errors are measured against no less than this. */
#define SUM_SCALE (1.0 / 16)

/* One call between our turn and the end of the host's. */
struct gems_comparison {
    const gems_op *op;
    const gems_host *host;
    bool sums;      /* an element is made of several others */
    char what[120]; /* the call, in words: its arguments may be gone when the host has run */
    gems_tensor result[GEMS_MAX_RESULTS];
    /* In-place and out: the elements, row-major: first what was overwritten, then our results. */
    void *saved[GEMS_MAX_RESULTS];
};
static __thread gems_comparison *pending;

struct worst { /* per operator */
    uint64_t compared, differing;
    double absolute, relative;
    char where[120]; /* shapes of the largest relative error */
};
static struct worst *worst;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define CLASSES 4096
static struct {
    uint64_t hash;
    int64_t count;
} classes[CLASSES];

static void after_fork_in_child(void)
{
    pthread_mutex_init(&lock, NULL);
}

void gems_compare_start(void)
{
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

static uint64_t hash_word(uint64_t h, uint64_t word)
{
    return gems_hash(h, &word, sizeof word);
}

static uint64_t hash_tensor(uint64_t h, const gems_tensor *t)
{
    h = hash_word(h, (uint64_t)t->ndim * 16 + t->dtype);
    for (int d = 0; d < t->ndim; d++)
        h = hash_word(h, t->sizes[d] ? (uint64_t)(64 - __builtin_clzll((uint64_t)t->sizes[d])) : 0);
    return h;
}

/* Operator, dtypes and rounded shapes of the arguments. */
static uint64_t shape_class(const gems_call *call)
{
    uint64_t h = hash_word(GEMS_HASH_START, call->op->index);
    for (unsigned i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        h = hash_word(h, v->kind);
        if (v->kind == GEMS_TENSOR)
            h = hash_tensor(h, v->tensor);
        for (size_t k = 0; v->kind == GEMS_TENSORS && k < v->tensors.n; k++)
            h = hash_tensor(h, &v->tensors.v[k]);
        if (v->kind == GEMS_DTYPE)
            h = hash_word(h, v->dtype);
    }
    return h ? h : 1;
}

/* The class's number of calls compared so far, with `more` added; INT64_MAX if there is no room for the class. */
static int64_t count(const gems_call *call, int more)
{
    uint64_t h = shape_class(call);
    int64_t n = INT64_MAX;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < CLASSES; i++) {
        unsigned slot = (unsigned)((h + i) % CLASSES);
        if (classes[slot].hash == 0)
            classes[slot].hash = h;
        if (classes[slot].hash == h) {
            n = classes[slot].count += more;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return n;
}

static double element(const gems_tensor *t, int64_t offset)
{
    return gems_number_double(
        gems_element_number(t->dtype, (const char *)gems_tensor_host(t) + offset * gems_dtypes[t->dtype].size));
}

static void put_tensor(gems_text *text, const gems_tensor *t)
{
    if (t->dtype == GEMS_DTYPE_NONE)
        return;
    gems_text_put(text, " %s", gems_dtypes[t->dtype].name);
    gems_text_put_numbers(text, "[]", t->sizes, (size_t)t->ndim);
}

static void describe(const gems_call *call, char *s, size_t n)
{
    gems_text text = gems_text_in(s, n);
    gems_text_put(&text, "%s", call->op->name);
    for (unsigned i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        if (v->kind == GEMS_TENSOR)
            put_tensor(&text, v->tensor);
        for (size_t k = 0; v->kind == GEMS_TENSORS && k < v->tensors.n; k++)
            put_tensor(&text, &v->tensors.v[k]);
    }
}

/* The first difference in form, or NULL. */
static const char *form_difference(const gems_tensor *a, const gems_tensor *b)
{
    if (a->dtype != b->dtype)
        return "dtype";
    if (a->ndim != b->ndim)
        return "rank";
    for (int d = 0; d < a->ndim; d++) {
        if (a->sizes[d] != b->sizes[d])
            return "shape";
        if (a->strides[d] != b->strides[d] && a->sizes[d] > 1 && a->numel > 0)
            return "strides";
    }
    return NULL;
}

/* What a comparison found. */
struct difference {
    const char *form;          /* in what the two differ beside values, or NULL */
    int64_t bad;               /* values beyond the tolerance */
    double absolute, relative; /* largest error; infinite where only one of the two is finite, or a number at all */
};

/* Runs over the elements of a tensor in row-major order: the offset of the next one. */
static int64_t next_element(const gems_tensor *t, int64_t *index, int64_t at)
{
    for (int d = t->ndim - 1; d >= 0; d--) {
        at += t->strides[d];
        if (++index[d] < t->sizes[d])
            break;
        at -= t->sizes[d] * t->strides[d];
        index[d] = 0;
    }
    return at;
}

static void compare_element(const gems_tensor *ours, int64_t ours_at, const gems_tensor *host, int64_t host_at,
                            double least_scale, struct difference *diff)
{
    size_t size = gems_dtypes[host->dtype].size;
    if (memcmp((char *)gems_tensor_host(ours) + ours_at * (int64_t)size,
               (char *)gems_tensor_host(host) + host_at * (int64_t)size, size) == 0)
        return;
    double x = element(ours, ours_at), y = element(host, host_at), error = fabs(x - y), relative;
    bool integral = gems_dtypes[host->dtype].category != GEMS_CAT_FLOAT;
    if ((isnan(x) && isnan(y)) || (x == y && !integral)) /* 0 and -0 */
        return;
    if (!isfinite(x) || !isfinite(y))
        error = INFINITY;
    if (error == 0) /* integers that a double does not tell apart */
        error = 1;
    double scale = fmax(fabs(y), least_scale);
    relative = error <= tolerance[host->dtype].step ? 0 : isfinite(error) && scale > 0 ? error / scale : INFINITY;
    diff->bad += integral || !(relative <= tolerance[host->dtype].relative);
    diff->absolute = fmax(diff->absolute, error);
    diff->relative = fmax(diff->relative, relative);
}

static double largest(const gems_tensor *t)
{
    int64_t index[64] = {0}, at = 0;
    double most = 0;
    for (int64_t k = 0; k < t->numel; k++, at = next_element(t, index, at)) {
        double value = fabs(element(t, at));
        most = isfinite(value) && value > most ? value : most;
    }
    return most;
}

/* `dense`: ours lie one after another, whatever its strides say. */
static void compare_values(const gems_tensor *ours, bool dense, const gems_tensor *host, bool sums,
                           struct difference *diff)
{
    int64_t index[64] = {0}, at = 0;
    double least_scale = sums ? largest(host) * SUM_SCALE : 0;
    for (int64_t k = 0; k < host->numel; k++, at = next_element(host, index, at))
        compare_element(ours, dense ? k : at, host, at, least_scale, diff);
}

static void note(const gems_op *op, const char *what, const struct difference *diff)
{
    pthread_mutex_lock(&lock);
    if (!worst)
        worst = calloc(gems_op_count, sizeof *worst);
    if (worst) {
        struct worst *w = &worst[op->index];
        w->compared++;
        w->differing += diff->form || diff->bad;
        if (diff->relative >= w->relative)
            snprintf(w->where, sizeof w->where, "%s", what);
        w->absolute = fmax(w->absolute, diff->absolute);
        w->relative = fmax(w->relative, diff->relative);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- one call ---- */

/* The elements of a tensor and of a row-major copy change places: no byte between them is touched. */
static void exchange(const gems_tensor *t, char *copy)
{
    int64_t index[64] = {0}, at = 0;
    size_t size = gems_dtypes[t->dtype].size;
    for (int64_t k = 0; k < t->numel; k++, at = next_element(t, index, at)) {
        char *here = (char *)gems_tensor_host(t) + at * (int64_t)size, there[8];
        memcpy(there, here, size);
        memcpy(here, copy, size);
        memcpy(copy, there, size);
        copy += size;
    }
}

static bool save(const gems_tensor *t, void **saved)
{
    int64_t index[64] = {0}, at = 0;
    size_t size = t->dtype < GEMS_DTYPE_COUNT ? gems_dtypes[t->dtype].size : 0;
    char *copy = size && t->ndim <= 64 ? malloc((size_t)t->numel * size + 1) : NULL;
    for (int64_t k = 0; copy && k < t->numel; k++, at = next_element(t, index, at))
        memcpy(copy + (size_t)k * size, (char *)gems_tensor_host(t) + at * (int64_t)size, size);
    *saved = copy;
    return copy != NULL;
}

static void comparison_free(gems_comparison *c)
{
    for (unsigned i = 0; i < GEMS_MAX_RESULTS; i++)
        free(c->saved[i]);
    free(c);
}

gems_comparison *gems_compare_begin(const gems_call *call)
{
    const gems_op *op = call->op;
    if (gems_config_get()->check == 0 || count(call, 0) >= gems_config_get()->check)
        return NULL;
    gems_comparison *c = calloc(1, sizeof *c);
    bool ok = c != NULL;
    for (unsigned i = 0; ok && op->form != GEMS_FUNCTIONAL && i < op->nresults; i++) {
        const gems_value *v = &call->arg[gems_op_written(op, i)];
        ok = v->kind == GEMS_TENSOR && save(v->tensor, &c->saved[i]);
    }
    if (!ok && c)
        comparison_free(c);
    return ok ? c : NULL;
}

bool gems_compare_keep(gems_comparison *c, const gems_call *call, bool done)
{
    if (c && !done)
        comparison_free(c);
    if (!c || !done)
        return false;
    c->op = call->op;
    c->host = call->host;
    c->sums = call->sizes.v[GEMS_SIZE_COLS] > 1 || call->sizes.v[GEMS_SIZE_K] > 1;
    describe(call, c->what, sizeof c->what);
    count(call, 1);
    memcpy(c->result, call->result, sizeof c->result);
    for (unsigned i = call->op->nresults; i-- > 0;)
        if (c->saved[i])
            exchange(&c->result[i], c->saved[i]);
    pending = c;
    return true;
}

const gems_op *gems_compare_pending(void)
{
    return pending ? pending->op : NULL;
}

const gems_tensor *gems_compare_ours(unsigned i)
{
    return pending && i < pending->op->nresults ? &pending->result[i] : NULL;
}

void gems_compare_result(unsigned i, const gems_tensor *host)
{
    const gems_comparison *c = pending;
    gems_tensor ours = c->result[i];
    if (c->saved[i])
        ours.address = (uintptr_t)c->saved[i];
    struct difference diff = {.form = host ? form_difference(&ours, host) : "being there"};
    if (!diff.form && host->dtype != GEMS_DTYPE_NONE)
        compare_values(&ours, c->saved[i] != NULL, host, c->sums, &diff);
    note(c->op, c->what, &diff);
    if (diff.form)
        gems_complain("GEMS_CHECK: %s: result %u differs in %s", c->what, i, diff.form);
    else if (diff.bad)
        gems_complain("GEMS_CHECK: %s: result %u: %lld of %lld values differ, by up to %g", c->what, i,
                      (long long)diff.bad, (long long)host->numel, diff.absolute);
}

void gems_compare_end(bool refused)
{
    gems_comparison *c = pending;
    if (refused) {
        note(c->op, c->what, &(struct difference){.form = "error"});
        gems_complain("GEMS_CHECK: %s: the host raised an error", c->what);
    }
    for (unsigned i = 0; c->op->form == GEMS_FUNCTIONAL && i < c->op->nresults; i++)
        c->host->drop(&c->result[i]);
    comparison_free(c);
    pending = NULL;
}

void gems_compare_report(void (*line)(const char *text))
{
    bool any = false;
    for (unsigned i = 0; worst && i < gems_op_count; i++) {
        const struct worst *w = &worst[i];
        char s[400];
        if (!w->compared)
            continue;
        if (!any)
            line("GEMS_CHECK: results compared with the host's");
        any = true;
        gems_text t = gems_text_in(s, sizeof s);
        gems_text_put(&t, "%-36s %6llu compared %6llu differ  largest error %.3g (relative %.3g) at %s",
                      gems_ops[i].name, (unsigned long long)w->compared, (unsigned long long)w->differing, w->absolute,
                      w->relative, w->where);
        line(s);
    }
}
