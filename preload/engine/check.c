/* Comparing our results with the host's. */
#include "preload/engine/check.h"
#include "preload/base/clocale.h"
#include "kernels/memory/host.h"
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tolerances as PyTorch's own test-suite has them, relaxed tenfold for f32 and f64 where long sums differ in order. */
static const struct {
    double relative, absolute;
} tolerance[GEMS_DTYPE_COUNT] = {
    [GEMS_F16] = {2e-3, 1e-4}, [GEMS_BF16] = {1.6e-2, 1e-4}, [GEMS_F32] = {1.3e-5, 1e-4}, [GEMS_F64] = {1e-6, 1e-6}};

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

void gems_check_start(void)
{
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
    return h * 0xff51afd7ed558ccdu;
}

static uint64_t mix_tensor(uint64_t h, const gems_tensor *t)
{
    h = mix(h, (uint64_t)t->ndim * 16 + t->dtype);
    for (int d = 0; d < t->ndim; d++)
        h = mix(h, t->sizes[d] ? (uint64_t)(64 - __builtin_clzll((uint64_t)t->sizes[d])) : 0);
    return h;
}

static uint64_t shape_class(const gems_call *call)
{
    uint64_t h = mix(1, call->op->index);
    for (unsigned i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        h = mix(h, v->kind);
        if (v->kind == GEMS_TENSOR)
            h = mix_tensor(h, v->tensor);
        for (size_t k = 0; v->kind == GEMS_TENSORS && k < v->tensors.n; k++)
            h = mix_tensor(h, &v->tensors.v[k]);
        if (v->kind == GEMS_DTYPE)
            h = mix(h, v->dtype);
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

bool gems_check_wants(const gems_call *call)
{
    return count(call, 0) < gems_config_get()->check;
}

void gems_check_count(const gems_call *call)
{
    count(call, 1);
}

static size_t describe_tensor(const gems_tensor *t, char *s, size_t n)
{
    if (t->dtype == GEMS_DTYPE_NONE || n == 0)
        return 0;
    size_t used = (size_t)snprintf(s, n, " %s[", gems_dtypes[t->dtype].name);
    for (int d = 0; d < t->ndim && used < n; d++)
        used += (size_t)snprintf(s + used, n - used, d ? ",%lld" : "%lld", (long long)t->sizes[d]);
    return used < n ? used + (size_t)snprintf(s + used, n - used, "]") : used;
}

void gems_check_describe(const gems_call *call, char *s, size_t n)
{
    size_t used = (size_t)snprintf(s, n, "%s", call->op->name);
    for (unsigned i = 0; i < call->op->nparams && used < n; i++) {
        const gems_value *v = &call->arg[i];
        if (v->kind == GEMS_TENSOR)
            used += describe_tensor(v->tensor, s + used, n - used);
        for (size_t k = 0; v->kind == GEMS_TENSORS && k < v->tensors.n && used < n; k++)
            used += describe_tensor(&v->tensors.v[k], s + used, n - used);
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

static void compare_element(gems_dtype dtype, const char *ours, const char *host, struct difference *diff)
{
    if (memcmp(ours, host, gems_dtypes[dtype].size) == 0)
        return;
    double x = gems_number_double(gems_element_number(dtype, ours));
    double y = gems_number_double(gems_element_number(dtype, host)), error = fabs(x - y);
    if ((isnan(x) && isnan(y)) || (x == y && gems_dtypes[dtype].category == GEMS_CAT_FLOAT)) /* 0 and -0 */
        return;
    if (!isfinite(x) || !isfinite(y))
        error = INFINITY;
    if (error == 0) /* integers that a double does not tell apart */
        error = 1;
    bool close = isfinite(error) && error <= tolerance[dtype].absolute + tolerance[dtype].relative * fabs(y);
    diff->bad += !close;
    diff->absolute = fmax(diff->absolute, error);
    if (error > tolerance[dtype].absolute || !close)
        diff->relative = fmax(diff->relative, y != 0 && isfinite(error) ? error / fabs(y) : INFINITY);
}

static void compare_values(const gems_tensor *ours, const gems_tensor *host, struct difference *diff)
{
    const char *x = gems_tensor_host(ours), *y = gems_tensor_host(host);
    int64_t index[64] = {0}, at = 0, size = gems_dtypes[host->dtype].size;
    for (int64_t k = 0; k < host->numel; k++) {
        compare_element(host->dtype, x + at * size, y + at * size, diff);
        for (int d = host->ndim - 1; d >= 0; d--) { /* next element, row-major */
            at += host->strides[d];
            if (++index[d] < host->sizes[d])
                break;
            at -= host->sizes[d] * host->strides[d];
            index[d] = 0;
        }
    }
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
        if (diff->absolute >= w->absolute)
            snprintf(w->where, sizeof w->where, "%s", what);
        w->absolute = fmax(w->absolute, diff->absolute);
        w->relative = fmax(w->relative, diff->relative);
    }
    pthread_mutex_unlock(&lock);
}

void gems_check_compare(const gems_op *op, const char *what, unsigned i, const gems_tensor *ours,
                        const gems_tensor *host)
{
    struct difference diff = {.form = host ? form_difference(ours, host) : "being there"};
    if (!diff.form && host->dtype != GEMS_DTYPE_NONE)
        compare_values(ours, host, &diff);
    note(op, what, &diff);
    if (diff.form)
        gems_complain("GEMS_CHECK: %s: result %u differs in %s", what, i, diff.form);
    else if (diff.bad)
        gems_complain("GEMS_CHECK: %s: result %u: %lld of %lld values differ, by up to %g", what, i,
                      (long long)diff.bad, (long long)host->numel, diff.absolute);
}

void gems_check_refused(const gems_op *op, const char *what)
{
    note(op, what, &(struct difference){.form = "error"});
    gems_complain("GEMS_CHECK: %s: the host raised an error", what);
}

void gems_check_report(void (*line)(const char *text))
{
    char s[400];
    bool any = false;
    for (unsigned i = 0; worst && i < gems_op_count; i++) {
        const struct worst *w = &worst[i];
        if (!w->compared)
            continue;
        if (!any)
            line("GEMS_CHECK: results compared with the host's");
        any = true;
        gems_c_snprintf(s, sizeof s, "%-36s %6llu compared %6llu differ  largest error %.3g (relative %.3g) at %s",
                        gems_ops[i].name, (unsigned long long)w->compared, (unsigned long long)w->differing,
                        w->absolute, w->relative, w->where);
        line(s);
    }
}
