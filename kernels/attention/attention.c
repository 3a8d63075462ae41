/* Scaled dot product attention of the host's CPU backend: output = softmax(scale Q K^T + mask) V, and the logarithm of
 * the sum of exponentials of each row, which the backward pass takes. (Dao et al., FlashAttention, 2022.)
 *
 * query [batch, heads, queries, head], key and value [batch, kv heads, keys, head]; heads is a multiple of kv heads
 * (each serves a group of neighbours). mask: 2 or 4 dimensions, broadcast, added to the scores. is_causal: query i sees
 * keys 0 to i. scale: 1 / sqrt(head) if absent. A row that sees no key gives 0. The output is laid out in memory as the
 * query is; logsumexp is [batch, heads, queries] with heads innermost, f32 (f64 for f64). */
#include "kernels/device/device.h"
#include "kernels/family.h"
#include "kernels/tensor/layout.h"
#include "tune/table.h"

#include <math.h>
#include <string.h>

typedef struct problem {
    const gems_tensor *q, *k, *v, *mask; /* mask may be NULL */
    int64_t mask_stride[4];
    bool causal;
    double scale;
} problem;

/* NULL, or why not. What the host refuses is declined too: it has the words. */
static const char *read_call(const gems_call *call, problem *p)
{
    const gems_value *q = &call->arg[0], *k = &call->arg[1], *v = &call->arg[2];
    if (q->kind != GEMS_TENSOR || k->kind != GEMS_TENSOR || v->kind != GEMS_TENSOR)
        return "operand missing";
    *p = (problem){.q = q->tensor, .k = k->tensor, .v = v->tensor};
    const gems_tensor *x = p->q, *y = p->k, *w = p->v;
    if (x->dtype >= GEMS_DTYPE_COUNT || gems_dtypes[x->dtype].category != GEMS_CAT_FLOAT)
        return "dtype";
    if (y->dtype != x->dtype || w->dtype != x->dtype)
        return "operands of different dtypes";
    if (x->ndim != 4 || y->ndim != 4 || w->ndim != 4)
        return "not 4 dimensions";
    for (int i = 0; i < 4; i++) {
        if (y->sizes[i] != w->sizes[i])
            return "key and value of different shapes";
        if (x->sizes[i] > INT32_MAX - 1024 || y->sizes[i] > INT32_MAX - 1024)
            return "a size above 2^31";
    }
    if (x->numel == 0 || y->numel == 0)
        return "empty";
    if (y->sizes[0] != x->sizes[0] || y->sizes[3] != x->sizes[3] || x->sizes[1] % y->sizes[1] != 0)
        return "shapes do not match";

    /* The host's kernel takes this for granted; its callers see to it. */
    if (x->sizes[3] > 1 && (x->strides[3] != 1 || y->strides[3] != 1 || w->strides[3] != 1))
        return "elements of a head are not neighbours";

    const gems_value *dropout = gems_call_arg(call, "dropout_p"), *causal = gems_call_arg(call, "is_causal"),
                     *scale = gems_call_arg(call, "scale"), *mask = gems_call_arg(call, "attn_mask");
    if (dropout->kind != GEMS_SCALAR_FLOAT || dropout->f != 0)
        return "dropout";
    p->causal = causal->kind == GEMS_SCALAR_BOOL && causal->i;
    p->scale = scale->kind == GEMS_SCALAR_FLOAT ? scale->f : 1 / sqrt((double)x->sizes[3]);
    if (p->scale == 0 || (p->causal && !(p->scale > 0)))
        return "the host scales what is masked, too: NaN"; /* and does not look at a product times 0 */
    if (mask->kind == GEMS_NONE)
        return NULL;
    if (mask->kind != GEMS_TENSOR)
        return "mask";
    const gems_tensor *m = p->mask = mask->tensor;
    bool reduced = gems_dtypes[x->dtype].size == 2;
    if (m->dtype != x->dtype && !(reduced && m->dtype == GEMS_F32))
        return "mask of another dtype";
    if (m->ndim != 2 && m->ndim != 4)
        return "mask not of 2 or 4 dimensions";
    const int64_t want[4] = {x->sizes[0], x->sizes[1], x->sizes[2], y->sizes[2]};
    for (int i = 0; i < m->ndim; i++) {
        int at = 4 - m->ndim + i;
        if (m->sizes[i] != 1 && m->sizes[i] != want[at])
            return "shapes do not match";
        p->mask_stride[at] = m->sizes[i] == 1 ? 0 : m->strides[i];
    }
    return NULL;
}

static gems_status plan(gems_call *call)
{
    problem p;
    const char *why = read_call(call, &p);
    if (why)
        return gems_decline(call, why);
    call->dtype = p.q->dtype;
    const int64_t *q = p.q->sizes, keys = p.k->sizes[2];
    call->sizes.v[GEMS_SIZE_BATCH] = q[0] * q[1];
    call->sizes.v[GEMS_SIZE_M] = q[2];
    call->sizes.v[GEMS_SIZE_N] = keys;
    call->sizes.v[GEMS_SIZE_K] = q[3];
    call->sizes.v[GEMS_SIZE_ROWS] = q[0] * q[1] * q[2];
    call->sizes.v[GEMS_SIZE_COLS] = keys;
    call->sizes.v[GEMS_SIZE_NUMEL] = p.q->numel > p.k->numel ? p.q->numel : p.k->numel;
    call->sizes.v[GEMS_SIZE_BYTES] =
        gems_size_bytes(gems_size_times(2, gems_size_plus(p.q->numel, p.k->numel)), p.q->dtype);
    return GEMS_OK;
}

static int round_up(int64_t n, int to)
{
    return (int)((n + to - 1) / to) * to;
}

/* Bytes of local memory that attention_cpu.cl takes. */
static size_t local_bytes(int head, int bq, int bk, size_t element)
{
    return element * (size_t)(2 * bq * (head + 16) + 2 * head * bk + bq * (bk + 16) + 2 * bq);
}

/* Launches on a job. Parameters of the rule: bq (queries of a group), bk (keys of a block). */
static gems_status launch(gems_call *call, gems_job *job, const problem *p, gems_tensor *out, gems_tensor *lse)
{
    const gems_device_info *device = gems_job_device(job);
    const char *variant = gems_rule_variant(call->rule);
    const gems_dtype_info *info = &gems_dtypes[p->q->dtype];
    bool wide = p->q->dtype == GEMS_F64, cpu = *variant ? strcmp(variant, "cpu") == 0 : device->is_cpu;
    if (wide && !device->f64)
        return gems_decline(call, "the device has no f64");
    size_t element = wide ? 8 : 4;
    int64_t batch = p->q->sizes[0], heads = p->q->sizes[1], queries = p->q->sizes[2], head = p->q->sizes[3];
    int bq, bk, padded;
    if (cpu) {
        padded = round_up(head, 32);
        bq = (int)gems_rule_param(call->rule, "bq", 64), bk = (int)gems_rule_param(call->rule, "bk", 64);
        bq = round_up(bq < 16 ? 16 : bq, 16), bk = round_up(bk < 32 ? 32 : bk, 32);
        while (local_bytes(padded, bq, bk, element) > device->local_bytes && (bq > 16 || bk > 32))
            bq = bq > 16 ? round_up(bq / 2, 16) : bq, bk = bk > 32 ? round_up(bk / 2, 32) : bk;
        if (local_bytes(padded, bq, bk, element) > device->local_bytes)
            return gems_decline(call, "head too large for local memory");
    } else {
        padded = round_up(head, 4);
        bq = 64, bk = 16;
        while ((size_t)bq > device->max_group)
            bq /= 2;
        while (2 * element * (size_t)(padded * bk) > device->local_bytes && bk > 4)
            bk /= 2;
        if (padded > 256)
            return gems_decline(call, "head too large for registers");
    }
    gems_kernel *kernel =
        gems_kernel_get(job, cpu ? "kernels/attention/attention_cpu.cl" : "kernels/attention/attention_gpu.cl",
                        "attention", "-DD=%s -DMD=%s -DHEAD=%d -D%s=%d -DBK=%d%s", info->name,
                        gems_dtypes[p->mask ? p->mask->dtype : p->q->dtype].name, padded, cpu ? "BQ" : "ROWS", bq, bk,
                        wide ? " -DDOUBLE" : "");

    /* Even shares, small enough that all of the device has work. */
    if (cpu)
        while (bq > 16 && batch * heads * ((queries + bq - 1) / bq) < 2 * (int64_t)device->compute_units)
            bq /= 2;
    int32_t size[] = {(int32_t)queries, (int32_t)p->k->sizes[2], (int32_t)head, (int32_t)(heads / p->k->sizes[1]), bq,
                      p->causal,        p->mask != NULL};
    float scale = (float)p->scale;
    gems_arg arg[48];
    int n = 0;
    arg[n++] = GEMS_IN(p->q);
    arg[n++] = GEMS_IN(p->k);
    arg[n++] = GEMS_IN(p->v);
    arg[n++] = GEMS_IN(p->mask ? p->mask : p->q);
    arg[n++] = GEMS_OUT_ARG(out);
    arg[n++] = GEMS_OUT_ARG(lse);
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        arg[n++] = GEMS_VALUE(size[i]);
    arg[n++] = wide ? GEMS_VALUE(p->scale) : GEMS_VALUE(scale);
    const int64_t *strides[] = {p->q->strides, p->k->strides, p->v->strides, p->mask_stride, out->strides};
    for (int t = 0; t < 5; t++)
        for (int i = 0; i < 4; i++)
            arg[n++] = GEMS_VALUE(strides[t][i]);
    size_t group = cpu ? 1 : (size_t)bq;
    const size_t local[3] = {group, 1, 1};
    const size_t global[3] = {(size_t)((queries + bq - 1) / bq) * group, (size_t)heads, (size_t)batch};
    gems_launch(job, kernel, 3, global, local, arg, n);
    return GEMS_OK;
}

static gems_status run(gems_call *call)
{
    problem p;
    const char *why = read_call(call, &p);
    if (why)
        return gems_decline(call, why);
    int64_t strides[4];
    gems_preserved_strides(p.q, strides);
    const int64_t batch = p.q->sizes[0], heads = p.q->sizes[1], queries = p.q->sizes[2];
    const int64_t lse_sizes[3] = {batch, heads, queries}, lse_strides[3] = {heads * queries, 1, heads};
    gems_tensor *out = gems_call_result(call, 0, p.q->dtype, 4, p.q->sizes, strides);
    gems_tensor *lse =
        out ? gems_call_result(call, 1, p.q->dtype == GEMS_F64 ? GEMS_F64 : GEMS_F32, 3, lse_sizes, lse_strides) : NULL;
    if (!lse)
        return GEMS_DECLINED;

    gems_lane lane =
        gems_rule_param(call->rule, "lane", GEMS_LANE_MAIN) == GEMS_LANE_SMALL ? GEMS_LANE_SMALL : GEMS_LANE_MAIN;
    gems_job *job = gems_job_begin(call, lane);
    gems_status chosen = launch(call, job, &p, out, lse);
    gems_status done = gems_job_end(job);
    return chosen != GEMS_OK ? chosen : done;
}

const gems_family gems_family_attention = {.name = "attention",
                                           .plan = plan,
                                           .run = run,
                                           .variants = "cpu gpu",
                                           .params = "lane[0..1] bq[16..256:16] bk[32..256:32]"};
