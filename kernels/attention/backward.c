/* Gradients of attention: of query, key and value, from the gradient of the output, the output and the logsumexp that
 * attention.c gives. backward.cl says how. The results have the memory order [batch, length, heads, head], whatever the
 * arguments have, as the host's. */
#include "kernels/attention/attention.h"
#include "kernels/embedded.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

enum {
    GRAD,
    QUERY,
    KEY,
    VALUE,
    OUT,
    LSE
};

typedef struct problem {
    gems_attention in;
    const gems_tensor *grad;
    const gems_tensor *result[3]; /* of query, key, value; made by prepare */
} problem;

static bool is_like(const gems_value *v, const gems_tensor *t)
{
    return v->kind == GEMS_TENSOR && v->tensor->dtype == t->dtype && v->tensor->ndim == 4 &&
           memcmp(v->tensor->sizes, t->sizes, 4 * sizeof *t->sizes) == 0;
}

static gems_dtype sums_of(const problem *p)
{
    return p->in.q->dtype == GEMS_F64 ? GEMS_F64 : GEMS_F32;
}

static gems_status plan(gems_call *call)
{
    problem *p = GEMS_PLAN(problem, call);
    const char *why = gems_attention_read(call, QUERY, &p->in);
    if (why)
        return gems_decline(call, why);
    const gems_tensor *q = p->in.q, *lse = p->in.lse = call->arg[LSE].tensor;
    if (!is_like(&call->arg[GRAD], q) || !is_like(&call->arg[OUT], q))
        return gems_decline(call, "output or its gradient is not like the query");
    p->grad = call->arg[GRAD].tensor;
    p->in.out = call->arg[OUT].tensor;
    if (q->sizes[3] > 1 && p->in.out->strides[3] != 1)
        return gems_decline(call, "elements of a head are not neighbours");
    if (call->arg[LSE].kind != GEMS_TENSOR || lse->dtype != sums_of(p) || lse->ndim != 3 ||
        memcmp(lse->sizes, q->sizes, 3 * sizeof *q->sizes) != 0)
        return gems_decline(call, "logsumexp is not as the forward pass made it");
    gems_attention_sizes(call, &p->in);
    call->sizes.v[GEMS_SIZE_BYTES] *= 2;
    return GEMS_OK;
}

/* The padded size of a head, rows that a group keeps, rows of a block that it walks over; backward_gpu.cl: group, pm;
 * backward_cpu.cl: all. */
typedef struct blocks {
    int64_t head, kept, walked, group, pm, all;
} blocks;

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static size_t element_bytes(const problem *p)
{
    return gems_dtypes[sums_of(p)].size;
}

/* Of local memory that backward_cpu.cl takes. */
static size_t local_bytes(const blocks *b, size_t element)
{
    return element * (size_t)(2 * b->head * b->kept + 2 * (b->head + 16) * (b->walked + b->kept) +
                              2 * b->walked * (b->kept + 16) + 2 * b->kept +
                              (b->all ? (b->head + 16) * (b->walked + b->kept) : 0));
}

static blocks cpu_blocks(const gems_choice *c)
{
    const problem *p = c->problem;
    /* A head is one work-item's where that leaves work for all of the device. */
    const int64_t passes = p->in.k->sizes[0] * p->in.k->sizes[1] < 2 * (int64_t)c->device->compute_units ? 2 : 1;
    blocks b = {round_up(p->in.q->sizes[3], 32),
                gems_rule_param(c->call->rule, "kept", 64),
                gems_rule_param(c->call->rule, "walked", 64),
                0,
                0,
                gems_rule_param(c->call->rule, "passes", passes) == 1};
    while (local_bytes(&b, element_bytes(p)) > c->device->local_bytes && (b.kept > 32 || b.walked > 8)) {
        b.kept = b.kept > 32 ? round_up(b.kept / 2, 32) : 32;
        b.walked = b.walked > 8 ? round_up(b.walked / 2, 8) : 8;
    }
    return b;
}

static bool can_cpu(const gems_choice *c)
{
    const blocks b = cpu_blocks(c);
    return local_bytes(&b, element_bytes(c->problem)) <= c->device->local_bytes;
}

/* The sums of a head are held in registers. */
static bool can_gpu(const gems_choice *c)
{
    return ((const problem *)c->problem)->in.q->sizes[3] <= 256;
}

/* What identifies a kernel of the family. */
typedef struct kernel_id {
    const char *file;
    int64_t dtype, mask, keys;
    blocks b;
} kernel_id;

static gems_kernel *kernel_for(gems_work *work, const problem *p, const char *file, bool keys, blocks b)
{
    const gems_dtype dtype = p->in.q->dtype, mask = p->in.mask ? p->in.mask->dtype : dtype;
    const kernel_id id = {file, dtype, mask, keys, b};
    gems_kernel *kernel = gems_work_find(work, &id, sizeof id);
    const gems_embedded_file *f = gems_embedded_find(file);
    if (kernel || !f)
        return kernel;
    const bool delta = b.head == 0;
    char options[160];
    snprintf(options, sizeof options, "-DD=%s -DMD=%s -DHEAD=%d -DBK=%d -DBW=%d -DG=%d -DPM=%d%s%s%s%s",
             gems_dtypes[dtype].name, gems_dtypes[mask].name, (int)b.head, (int)b.kept, (int)b.walked, (int)b.group,
             (int)b.pm, dtype == GEMS_F64 ? " -DDOUBLE" : "", keys ? " -DKEYS" : "", delta ? " -DDELTA" : "",
             b.all ? " -DALL" : "");
    return gems_work_build(work, &id, sizeof id,
                           &(gems_kernel_text){file, NULL, f->text, options, delta ? "delta_rows" : "gradient"});
}

/* The same struct in backward.cl. */
typedef struct strides {
    int64_t x1[4], x2[4], y1[4], y2[4], mask[4], first[4], second[4], third[4], lse[3];
} strides;

/* dK and dV, or dQ; all three. */
static void launch_side(const gems_choice *c, const char *file, bool keys, blocks b, int delta, size_t group)
{
    const problem *p = c->problem;
    const gems_tensor *of_keys[4] = {p->in.k, p->in.v, p->in.q, p->grad};
    const gems_tensor *of_queries[4] = {p->in.q, p->grad, p->in.k, p->in.v};
    const gems_tensor **x = keys ? of_keys : of_queries, *first = p->result[keys];
    strides at;
    int64_t *to[4] = {at.x1, at.x2, at.y1, at.y2};
    for (int i = 0; i < 4; i++)
        memcpy(to[i], x[i]->strides, sizeof at.x1);
    memcpy(at.mask, p->in.mask_stride, sizeof at.mask);
    memcpy(at.first, first->strides, sizeof at.first);
    memcpy(at.second, p->result[2]->strides, sizeof at.second);
    memcpy(at.third, p->result[0]->strides, sizeof at.third);
    memcpy(at.lse, p->in.lse->strides, sizeof at.lse);

    const int32_t size[] = {(int32_t)x[0]->sizes[2],
                            (int32_t)x[2]->sizes[2],
                            (int32_t)x[0]->sizes[3],
                            (int32_t)(p->in.q->sizes[1] / p->in.k->sizes[1]),
                            p->in.causal,
                            p->in.mask != NULL};
    const float scale = (float)p->in.scale;
    gems_arg arg[24];
    int n = 0;
    for (int i = 0; i < 4; i++)
        arg[n++] = GEMS_IN(x[i]);
    arg[n++] = GEMS_IN(p->in.mask ? p->in.mask : p->in.q);
    arg[n++] = GEMS_IN(p->in.lse);
    arg[n++] = GEMS_SCRATCH(delta);
    arg[n++] = GEMS_OUT_ARG(first);
    if (keys)
        arg[n++] = GEMS_OUT_ARG(p->result[2]);
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        arg[n++] = GEMS_VALUE(size[i]);
    arg[n++] = p->in.q->dtype == GEMS_F64 ? GEMS_VALUE(p->in.scale) : GEMS_VALUE(scale);
    arg[n++] = GEMS_VALUE(at);
    const int64_t nblocks = b.all ? 1 : (x[0]->sizes[2] + b.kept - 1) / b.kept;
    if (b.all) {
        const int64_t *q = p->in.q->sizes;
        arg[n++] = GEMS_SCRATCH(gems_work_scratch(c->work, (size_t)(q[0] * q[1] * q[2] * b.head) * element_bytes(p)));
        arg[n++] = GEMS_OUT_ARG(p->result[0]);
    }
    const size_t local[3] = {group, 1, 1};
    const size_t global[3] = {(size_t)nblocks * group, (size_t)x[0]->sizes[1], (size_t)x[0]->sizes[0]};
    gems_launch(c->work, kernel_for(c->work, p, file, keys, b), 3, global, local, arg, n);
}

/* `per` rows of delta for each work-item. */
static void launch_all(const gems_choice *c, const char *file, blocks b, int32_t per, size_t group)
{
    const problem *p = c->problem;
    const int64_t *q = p->in.q->sizes, *g = p->grad->strides, *o = p->in.out->strides;
    const int32_t queries = (int32_t)q[2], head = (int32_t)q[3];
    const int delta = gems_work_scratch(c->work, (size_t)(q[0] * q[1] * q[2]) * element_bytes(p));
    const gems_arg arg[] = {GEMS_IN(p->grad), GEMS_IN(p->in.out), GEMS_SCRATCH(delta), GEMS_VALUE(queries),
                            GEMS_VALUE(head), GEMS_VALUE(per),    GEMS_VALUE(g[0]),    GEMS_VALUE(g[1]),
                            GEMS_VALUE(g[2]), GEMS_VALUE(g[3]),   GEMS_VALUE(o[0]),    GEMS_VALUE(o[1]),
                            GEMS_VALUE(o[2])};
    const size_t rows = gems_group(c->device, per > 1 ? 1 : 64), local[3] = {rows, 1, 1};
    const size_t global[3] = {((size_t)((queries + per - 1) / per) + rows - 1) / rows * rows, (size_t)q[1],
                              (size_t)q[0]};
    gems_launch(c->work, kernel_for(c->work, p, "kernels/attention/backward.cl", false, (blocks){0}), 3, global, local,
                arg, sizeof arg / sizeof *arg);
    launch_side(c, file, true, b, delta, group);
    if (!b.all)
        launch_side(c, file, false, b, delta, group);
}

static void launch_cpu(const gems_choice *c)
{
    launch_all(c, "kernels/attention/backward_cpu.cl", cpu_blocks(c), 128, 1);
}

static void launch_gpu(const gems_choice *c)
{
    const problem *p = c->problem;
    const int64_t pm = element_bytes(p) > 4 ? 2 : 4;
    int64_t g = 16;
    while (g > 1 && ((size_t)(g * g) > c->device->max_group ||
                     2 * element_bytes(p) * (size_t)(g * pm * (g + 1) * pm) > c->device->local_bytes))
        g /= 2;
    const blocks b = {round_up(p->in.q->sizes[3], g * pm), g * pm, g * pm, g, pm, 0};
    launch_all(c, "kernels/attention/backward_gpu.cl", b, 1, (size_t)(g * g));
}

static const gems_variant variants[] = {
    {"cpu", "local memory for a block of rows",
     .params = {{"kept", 32, 256, 32, 64}, {"walked", 8, 256, 8, 64}, {"passes", 1, 2, 1, 0}}, .can = can_cpu,
     .suits = gems_suits_cpu, .launch = launch_cpu},
    {"gpu", "heads of at most 256 elements", .can = can_gpu, .launch = launch_gpu},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    problem *p = GEMS_PLAN(problem, call);
    if (p->in.q->dtype == GEMS_F64 && !gems_device_get(work->lane)->f64)
        return gems_decline(call, "the device has no f64");
    const gems_tensor *like[3] = {p->in.q, p->in.k, p->in.v};
    for (unsigned i = 0; i < 3; i++) {
        const int64_t *n = like[i]->sizes, steps[4] = {n[1] * n[2] * n[3], n[3], n[1] * n[3], 1};
        if (!(p->result[i] = gems_call_result(call, i, p->in.q->dtype, 4, n, steps)))
            return GEMS_DECLINED;
    }
    return gems_launch_variant(call, work, p);
}

const gems_family gems_family_attention_backward = {
    .name = "attention_backward", .plan = plan, .prepare = prepare, .variants = variants};
