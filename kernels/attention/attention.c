/* Scaled dot product attention of the host's CPU backend: output = softmax(scale Q K^T + mask) V, and the logarithm of
 * the sum of exponentials of each row, which the backward pass takes. (Dao et al., FlashAttention, 2022.)
 *
 * query [batch, heads, queries, head], key and value [batch, kv heads, keys, head]; heads is a multiple of kv heads
 * (each serves a group of neighbours). mask: 2 or 4 dimensions, broadcast, added to the scores. is_causal: query i sees
 * keys 0 to i. scale: 1 / sqrt(head) if absent. A row that sees no key gives 0. The output is laid out in memory as the
 * query is; logsumexp is [batch, heads, queries] with heads innermost, f32 (f64 for f64). */
#include "kernels/attention/attention.h"
#include "kernels/embedded.h"
#include "kernels/tensor/layout.h"
#include "tune/table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef gems_attention problem; /* `out` and `lse` made by prepare */

const char *gems_attention_read(const gems_call *call, unsigned first, gems_attention *p)
{
    const gems_value *q = &call->arg[first], *k = q + 1, *v = q + 2;
    if (q->kind != GEMS_TENSOR || k->kind != GEMS_TENSOR || v->kind != GEMS_TENSOR)
        return "operand missing";
    *p = (gems_attention){.q = q->tensor, .k = k->tensor, .v = v->tensor};
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

void gems_attention_sizes(gems_call *call, const gems_attention *p)
{
    call->dtype = p->q->dtype;
    const int64_t *q = p->q->sizes, keys = p->k->sizes[2];
    call->sizes.v[GEMS_SIZE_BATCH] = q[0] * q[1];
    call->sizes.v[GEMS_SIZE_M] = q[2];
    call->sizes.v[GEMS_SIZE_N] = keys;
    call->sizes.v[GEMS_SIZE_K] = q[3];
    call->sizes.v[GEMS_SIZE_ROWS] = q[0] * q[1] * q[2];
    call->sizes.v[GEMS_SIZE_COLS] = keys;
    call->sizes.v[GEMS_SIZE_NUMEL] = p->q->numel > p->k->numel ? p->q->numel : p->k->numel;
    call->sizes.v[GEMS_SIZE_BYTES] =
        gems_size_bytes(gems_size_times(2, gems_size_plus(p->q->numel, p->k->numel)), p->q->dtype);
}

static gems_status plan(gems_call *call)
{
    problem *p = GEMS_PLAN(problem, call);
    const char *why = gems_attention_read(call, 0, p);
    if (why)
        return gems_decline(call, why);
    gems_attention_sizes(call, p);
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

/* The padded size of a head, queries of a group, keys of a block. */
typedef struct blocks {
    int head, bq, bk;
} blocks;

static size_t element_bytes(const problem *p)
{
    return p->q->dtype == GEMS_F64 ? 8 : 4;
}

static blocks cpu_blocks(const gems_choice *c)
{
    const problem *p = c->problem;
    size_t element = element_bytes(p);
    blocks b = {round_up(p->q->sizes[3], 32), (int)gems_rule_param(c->call->rule, "bq", 64),
                (int)gems_rule_param(c->call->rule, "bk", 64)};
    while (local_bytes(b.head, b.bq, b.bk, element) > c->device->local_bytes && (b.bq > 16 || b.bk > 32)) {
        b.bq = b.bq > 16 ? round_up(b.bq / 2, 16) : b.bq;
        b.bk = b.bk > 32 ? round_up(b.bk / 2, 32) : b.bk;
    }
    return b;
}

static bool can_cpu(const gems_choice *c)
{
    blocks b = cpu_blocks(c);
    return local_bytes(b.head, b.bq, b.bk, element_bytes(c->problem)) <= c->device->local_bytes;
}

/* A head is held in registers. */
static bool can_gpu(const gems_choice *c)
{
    return round_up(((const problem *)c->problem)->q->sizes[3], 4) <= 256;
}

/* What identifies a kernel of the family. */
typedef struct kernel_id {
    const char *file;
    int64_t dtype, mask, head, bq, bk, rest;
} kernel_id;

/* rest: 0, or parts.cl's PART_ROWS. */
static gems_kernel *kernel_for(gems_work *work, const problem *p, const char *file, const char *queries, blocks b,
                               int rest)
{
    gems_dtype mask = p->mask ? p->mask->dtype : p->q->dtype;
    kernel_id id = {file, p->q->dtype, mask, b.head, b.bq, b.bk, rest};
    gems_kernel *kernel = gems_work_find(work, &id, sizeof id);
    const gems_embedded_file *f = gems_embedded_find(file);
    if (kernel || !f)
        return kernel;
    char options[160];
    int n =
        snprintf(options, sizeof options, "-DD=%s -DMD=%s -DHEAD=%d -D%s=%d -DBK=%d%s", gems_dtypes[p->q->dtype].name,
                 gems_dtypes[mask].name, b.head, queries, b.bq, b.bk, p->q->dtype == GEMS_F64 ? " -DDOUBLE" : "");
    if (rest)
        snprintf(options + n, sizeof options - (size_t)n, " -DREST -DPART_ROWS=%d", rest);
    return gems_work_build(work, &id, sizeof id, &(gems_kernel_text){file, NULL, f->text, options, "attention"});
}

void gems_attention_launch(gems_work *work, gems_kernel *kernel, const gems_attention *p, int bq,
                           const size_t global[3], const size_t local[3], const gems_arg *more, int nmore)
{
    int32_t size[] = {(int32_t)p->q->sizes[2],
                      (int32_t)p->k->sizes[2],
                      (int32_t)p->q->sizes[3],
                      (int32_t)(p->q->sizes[1] / p->k->sizes[1]),
                      bq,
                      p->causal,
                      p->mask != NULL};
    float scale = (float)p->scale;
    gems_arg arg[48];
    int n = 0;
    arg[n++] = GEMS_IN(p->q);
    arg[n++] = GEMS_IN(p->k);
    arg[n++] = GEMS_IN(p->v);
    arg[n++] = GEMS_IN(p->mask ? p->mask : p->q);
    arg[n++] = GEMS_OUT_ARG(p->out);
    arg[n++] = GEMS_OUT_ARG(p->lse);
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        arg[n++] = GEMS_VALUE(size[i]);
    arg[n++] = p->q->dtype == GEMS_F64 ? GEMS_VALUE(p->scale) : GEMS_VALUE(scale);
    const int64_t *strides[] = {p->q->strides, p->k->strides, p->v->strides, p->mask_stride, p->out->strides};
    for (int t = 0; t < 5; t++)
        for (int i = 0; i < 4; i++)
            arg[n++] = GEMS_VALUE(strides[t][i]);
    for (int i = 0; i < nmore; i++)
        arg[n++] = more[i];
    gems_launch(work, kernel, 3, global, local, arg, n);
}

/* bq: queries of a group; group: its work-items. */
static void launch(gems_work *work, gems_kernel *kernel, const problem *p, int bq, size_t group, const gems_arg *more,
                   int nmore)
{
    const int64_t *q = p->q->sizes;
    const size_t local[3] = {group, 1, 1};
    const size_t global[3] = {(size_t)((q[2] + bq - 1) / bq) * group, (size_t)q[1], (size_t)q[0]};
    gems_attention_launch(work, kernel, p, bq, global, local, more, nmore);
}

static void launch_cpu(const gems_choice *c)
{
    const problem *p = c->problem;
    const int64_t *q = p->q->sizes;
    blocks b = cpu_blocks(c);
    gems_kernel *kernel = kernel_for(c->work, p, "kernels/attention/attention_cpu.cl", "BQ", b, 0);
    /* Even shares, small enough that all of the device has work. */
    while (b.bq > 16 && q[0] * q[1] * ((q[2] + b.bq - 1) / b.bq) < 2 * (int64_t)c->device->compute_units)
        b.bq /= 2;
    launch(c->work, kernel, p, b.bq, 1, NULL, 0);
}

static void launch_gpu_of(const gems_choice *c, int rest, const gems_arg *more, int nmore)
{
    const problem *p = c->problem;
    blocks b = {round_up(p->q->sizes[3], 4), (int)gems_group(c->device, 64), 16};
    while (2 * element_bytes(p) * (size_t)(b.head * b.bk) > c->device->local_bytes && b.bk > 4)
        b.bk /= 2;
    launch(c->work, kernel_for(c->work, p, "kernels/attention/attention_gpu.cl", "ROWS", b, rest), p, b.bq,
           (size_t)b.bq, more, nmore);
}

static void launch_gpu(const gems_choice *c)
{
    launch_gpu_of(c, 0, NULL, 0);
}

void gems_attention_rest(const gems_choice *c, int notes, int rows)
{
    const gems_arg more[] = {GEMS_SCRATCH(notes)};
    launch_gpu_of(c, rows, more, 1);
}

static const gems_variant variants[] = {
    {"cpu", "local memory for a block of keys", .params = {{"bq", 16, 256, 16, 64}, {"bk", 32, 256, 32, 64}},
     .can = can_cpu, .suits = gems_suits_cpu, .launch = launch_cpu},
    {"wgmma", "PTX of compute capability 9.0, heads of at most 256 elements, rows at multiples of 16 bytes",
     .dtypes = 1 << GEMS_F16 | 1 << GEMS_BF16, .params = {{"bq", 64, 128, 64, 0}}, .device = gems_device_has_wgmma,
     .can = gems_attention_can_wgmma, .suits = gems_attention_suits_wgmma, .launch = gems_attention_wgmma},
    {"split",
     "PTX of compute capability 9.0, heads of at most 128 elements; f32 as two f16, what those do not cover by "
     "\"gpu\"",
     .dtypes = 1 << GEMS_F32, .params = {{"bq", 64, 128, 64, 0}}, .device = gems_device_has_wgmma,
     .can = gems_attention_can_split, .suits = gems_attention_suits_split, .launch = gems_attention_split},
    {"gpu", "heads of at most 256 elements", .can = can_gpu, .launch = launch_gpu},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    problem *p = GEMS_PLAN(problem, call);
    if (p->q->dtype == GEMS_F64 && !gems_device_get(work->lane)->f64)
        return gems_decline(call, "the device has no f64");
    int64_t strides[4];
    gems_preserved_strides(p->q, strides);
    const int64_t batch = p->q->sizes[0], heads = p->q->sizes[1], queries = p->q->sizes[2];
    const int64_t lse_sizes[3] = {batch, heads, queries}, lse_strides[3] = {heads * queries, 1, heads};
    gems_dtype sums = p->q->dtype == GEMS_F64 ? GEMS_F64 : GEMS_F32;
    if (!(p->out = gems_call_result(call, 0, p->q->dtype, 4, p->q->sizes, strides)) ||
        !(p->lse = gems_call_result(call, 1, sums, 3, lse_sizes, lse_strides)))
        return GEMS_DECLINED;
    return gems_launch_variant(call, work, p);
}

const gems_family gems_family_attention = {.name = "attention", .plan = plan, .prepare = prepare, .variants = variants};
