/* Comparing our results with the host's. */
#include "preload/check.h"
#include "preload/config.h"
#include "preload/log.h"

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

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
    return h * 0xff51afd7ed558ccdu;
}

static uint64_t shape_class(const gems_call *call)
{
    uint64_t h = mix(call->op->index + 1u, call->dtype);
    for (unsigned i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        h = mix(h, v->kind);
        if (v->kind != GEMS_TENSOR)
            continue;
        h = mix(h, (uint64_t)v->tensor->ndim * 16 + v->tensor->dtype);
        for (int d = 0; d < v->tensor->ndim; d++)
            h = mix(h, v->tensor->sizes[d] ? (uint64_t)(64 - __builtin_clzll((uint64_t)v->tensor->sizes[d])) : 0);
    }
    return h ? h : 1;
}

bool gems_check_wants(const gems_call *call)
{
    uint64_t h = shape_class(call);
    bool wants = false;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < CLASSES; i++) {
        unsigned slot = (unsigned)((h + i) % CLASSES);
        if (classes[slot].hash == 0)
            classes[slot].hash = h;
        if (classes[slot].hash == h) {
            wants = classes[slot].count++ < gems_config_get()->check;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return wants;
}

static double half_value(uint16_t bits)
{
    int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    double v = exponent == 31 ? (fraction ? NAN : INFINITY)
                              : (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
    return bits & 0x8000 ? -v : v;
}

static double element(const gems_tensor *t, int64_t offset)
{
    const char *p = (const char *)t->data + offset * gems_dtypes[t->dtype].size;
    switch (t->dtype) {
    case GEMS_F16:
        return half_value(*(const uint16_t *)p);
    case GEMS_BF16: {
        uint32_t u = (uint32_t) * (const uint16_t *)p << 16;
        float f;
        memcpy(&f, &u, sizeof f);
        return (double)f;
    }
    case GEMS_F32:
        return (double)*(const float *)p;
    case GEMS_F64:
        return *(const double *)p;
    case GEMS_I8:
        return *(const int8_t *)p;
    case GEMS_I16:
        return *(const int16_t *)p;
    case GEMS_I32:
        return *(const int32_t *)p;
    case GEMS_I64:
        return (double)*(const int64_t *)p;
    default:
        return *(const uint8_t *)p;
    }
}

void gems_check_describe(const gems_call *call, char *s, size_t n)
{
    size_t used = (size_t)snprintf(s, n, "%s", call->op->name);
    for (unsigned i = 0; i < call->op->nparams && used < n; i++) {
        const gems_value *v = &call->arg[i];
        if (v->kind != GEMS_TENSOR || v->tensor->dtype == GEMS_DTYPE_NONE)
            continue;
        used += (size_t)snprintf(s + used, n - used, " %s[", gems_dtypes[v->tensor->dtype].name);
        for (int d = 0; d < v->tensor->ndim && used < n; d++)
            used += (size_t)snprintf(s + used, n - used, d ? ",%lld" : "%lld", (long long)v->tensor->sizes[d]);
        if (used < n)
            used += (size_t)snprintf(s + used, n - used, "]");
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

void gems_check_compare(const gems_op *op, const char *what, unsigned i, const gems_tensor *ours,
                        const gems_tensor *host)
{
    const char *form = form_difference(ours, host);
    double absolute = 0, relative = 0;
    int64_t bad = 0, index[64] = {0}, at = 0;
    for (int64_t k = 0; !form && ours->dtype != GEMS_DTYPE_NONE && k < host->numel; k++) {
        double x = element(ours, at), y = element(host, at);
        if (x != y && !(isnan(x) && isnan(y))) {
            double d = fabs(x - y), r = y != 0 ? d / fabs(y) : INFINITY;
            bool close = d <= tolerance[host->dtype].absolute + tolerance[host->dtype].relative * fabs(y);
            bad += !close;
            absolute = d > absolute || isnan(d) ? d : absolute;
            if (d > tolerance[host->dtype].absolute || !close)
                relative = r > relative ? r : relative;
        }
        for (int d = host->ndim - 1; d >= 0; d--) { /* next element, row-major */
            at += host->strides[d];
            if (++index[d] < host->sizes[d])
                break;
            at -= host->sizes[d] * host->strides[d];
            index[d] = 0;
        }
    }
    pthread_mutex_lock(&lock);
    if (!worst)
        worst = calloc(gems_op_count, sizeof *worst);
    if (worst) {
        struct worst *w = &worst[op->index];
        w->compared++;
        w->differing += form || bad;
        if (absolute >= w->absolute)
            snprintf(w->where, sizeof w->where, "%s", what);
        w->absolute = absolute > w->absolute ? absolute : w->absolute;
        w->relative = relative > w->relative ? relative : w->relative;
    }
    pthread_mutex_unlock(&lock);
    if (form)
        gems_complain("GEMS_CHECK: %s: result %u differs in %s", what, i, form);
    else if (bad)
        gems_complain("GEMS_CHECK: %s: result %u: %lld of %lld values differ, by up to %g", what, i, (long long)bad,
                      (long long)host->numel, absolute);
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
        snprintf(s, sizeof s, "%-36s %6llu compared %6llu differ  largest error %.3g (relative %.3g) at %s",
                 gems_ops[i].name, (unsigned long long)w->compared, (unsigned long long)w->differing, w->absolute,
                 w->relative, w->where);
        line(s);
    }
}
