/* Choosing the loops of a pointwise kernel, finding or building it, and launching it. */
#include "kernels/pointwise/launch.h"
#include "kernels/device/device.h"
#include "tune/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_NUMEL 32768 /* below it, a launch on the threaded device costs more than it brings (PoCL: 70 us) */

/* Merges the loops and chooses the frame. False: too many loops. */
static bool choose_loops(const gems_device_info *device, const gems_rule *rule, pw_launch *l, gems_loops *loops)
{
    gems_pw_spec *s = &l->spec;
    int n = 0, widest = 1;
    bool dense = true;
    gems_strides strides[GEMS_OPERANDS]; /* of tensors, by their position among them */
    for (unsigned i = 0; i < s->noperands; i++)
        if (l->tensor[i]) {
            const gems_tensor *t = l->tensor[i];
            gems_shape_strides(l->shape, t->ndim, t->sizes, t->strides, strides[n++]);
            widest = gems_dtypes[t->dtype].size > widest ? gems_dtypes[t->dtype].size : widest;
        }
    gems_collapse(l->shape, n, (const gems_strides *)strides, loops);
    if (loops->rank > GEMS_RANK)
        return false;
    for (unsigned i = 0, k = 0; i < s->noperands; i++)
        if (l->tensor[i]) {
            int64_t stride = loops->stride[k++][0];
            s->operand[i].stride = stride == 0 ? GEMS_PW_BROADCAST : stride == 1 ? GEMS_PW_UNIT : GEMS_PW_STRIDED;
            dense = dense && stride <= 1 && (stride == 1 || s->operand[i].place == GEMS_PW_READ);
        }
    dense = dense && loops->rank == 1;
    s->frame = dense ? (device->is_cpu ? GEMS_PW_RUN : GEMS_PW_VEC) : (device->is_cpu ? GEMS_PW_ROWS : GEMS_PW_GRID);
    if (s->frame == GEMS_PW_VEC) {
        int64_t vec = gems_rule_param(rule, "vec", widest < 16 ? 16 / widest : 1);
        s->vec = vec == 2 || vec == 4 || vec == 8 || vec == 16 ? (uint8_t)vec : 2;
    }
    if (!dense) {
        s->rank = (uint8_t)loops->rank;
        s->wide = loops->wide;
        if (!device->is_cpu) /* one formula for every stride */
            for (unsigned i = 0; i < s->noperands; i++)
                s->operand[i].stride = 0;
    }
    return true;
}

/* A kernel's sizes: eight int or long, or one. */
typedef union pw_sizes {
    int32_t i[8];
    int64_t l[8];
} pw_sizes;

static gems_arg one_size(bool wide, int64_t v, pw_sizes *to)
{
    if (wide)
        to->l[0] = v;
    else
        to->i[0] = (int32_t)v;
    return GEMS_BYTES(to, wide ? sizeof *to->l : sizeof *to->i);
}

static gems_arg eight_sizes(bool wide, int rank, const int64_t *v, pw_sizes *to)
{
    for (int d = 0; d < rank; d++)
        if (wide)
            to->l[d] = v[d];
        else
            to->i[d] = (int32_t)v[d];
    return GEMS_BYTES(to, wide ? sizeof to->l : sizeof to->i);
}

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b; /* NOLINT(clang-analyzer-core.DivideZero): no caller has 0 */
}

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* Arguments in the order that codegen/pointwise.h gives, and how many work-items share the work. */
static void launch(gems_job *job, gems_kernel *kernel, const gems_call *call, const pw_launch *l,
                   const gems_loops *loops)
{
    const gems_device_info *device = gems_job_device(job);
    const gems_pw_spec *s = &l->spec;
    gems_arg args[3 * GEMS_OPERANDS + 8];
    pw_sizes sizes[GEMS_OPERANDS + 6] = {{{0}}};
    int64_t begin[GEMS_OPERANDS];
    int n = 0, used = 0, ntensors = 0;
    for (unsigned i = 0; i < s->noperands; i++)
        if (l->tensor[i]) {
            const gems_tensor *memory = s->operand[i].inside ? l->whole[i] : l->tensor[i];
            bool gaps = s->operand[i].place == GEMS_PW_WRITE && !gems_tensor_is_dense(memory);
            gems_access access = s->operand[i].place == GEMS_PW_READ             ? GEMS_READ
                                 : s->operand[i].place == GEMS_PW_UPDATE || gaps ? GEMS_READ_WRITE
                                                                                 : GEMS_WRITE;
            args[n++] = (gems_arg){GEMS_ARG_TENSOR, access, memory, 0};
            ntensors++;
        }
    for (unsigned i = 0; i < s->noperands; i++)
        if (!l->tensor[i])
            args[n++] = GEMS_BYTES(&l->number[i], strcmp(gems_dtypes[s->operand[i].dtype].compute, "float") == 0
                                                      ? sizeof(float)
                                                      : gems_dtypes[s->operand[i].dtype].size);
    for (unsigned i = 0; i < s->noperands; i++)
        if (s->operand[i].inside) {
            begin[i] = (int64_t)(l->tensor[i]->address - l->whole[i]->address) / gems_dtypes[s->operand[i].dtype].size;
            args[n++] = GEMS_VALUE(begin[i]);
        }
    int64_t numel = l->shape->numel, units = device->compute_units;
    int64_t least = gems_rule_param(call->rule, "run", 8192);
    size_t local = 1, global;
    if (s->rank) {
        args[n++] = eight_sizes(s->wide, s->rank, loops->size, &sizes[used++]);
        for (int k = 0; k < ntensors; k++)
            args[n++] = eight_sizes(s->wide, s->rank, loops->stride[k], &sizes[used++]);
    }
    if (s->frame == GEMS_PW_RUN) {
        int64_t items = units > 1 ? clamp(numel / least, 1, 4 * units) : 1;
        int64_t run = (divide_up(numel, items) + 63) & ~INT64_C(63);
        args[n++] = one_size(true, numel, &sizes[used++]);
        args[n++] = one_size(true, run, &sizes[used++]);
        global = (size_t)divide_up(numel, run);
    } else if (s->frame == GEMS_PW_ROWS) {
        int64_t inner = loops->size[0], rows = numel / inner, most = units > 1 ? 4 * units : 1;
        int64_t run = divide_up(inner, clamp(inner / least, 1, divide_up(most, rows)));
        int64_t deep = clamp(divide_up(rows, most), 1, rows);
        deep = deep * run < least ? clamp(divide_up(least, run), 1, rows) : deep;
        int64_t chunks = divide_up(inner, run);
        args[n++] = one_size(s->wide, rows, &sizes[used++]);
        args[n++] = one_size(s->wide, run, &sizes[used++]);
        args[n++] = one_size(s->wide, chunks, &sizes[used++]);
        args[n++] = one_size(s->wide, deep, &sizes[used++]);
        global = (size_t)(divide_up(rows, deep) * chunks);
    } else {
        int64_t work = s->frame == GEMS_PW_VEC ? divide_up(numel, s->vec) : numel;
        args[n++] = one_size(s->frame == GEMS_PW_VEC || s->wide, numel, &sizes[used++]);
        local = (size_t)clamp(gems_rule_param(call->rule, "group", 256), 1, (int64_t)device->max_group);
        global = (size_t)clamp(divide_up(work, (int64_t)local), 1, 64 * units) * local;
    }
    gems_launch(job, kernel, 1, &global, &local, args, n);
}

static gems_kernel *find_kernel(gems_job *job, const gems_call *call, const pw_launch *l)
{
    uint64_t key = gems_pw_key(&l->spec);
    gems_kernel *kernel = gems_kernel_find(job, key);
    if (kernel)
        return kernel;
    char entry[80]; /* not the bare name: "abs" is taken */
    snprintf(entry, sizeof entry, "pw_%s", call->op->strukt);
    char *source = gems_pw_source(&l->spec, l->expr, entry);
    if (!source)
        return NULL;
    kernel = gems_kernel_build(job, key, call->op->name, "kernels/math.cl", source, "", entry);
    free(source);
    return kernel;
}

static bool uses_f64(const gems_pw_spec *s)
{
    bool uses = false;
    for (unsigned i = 0; i < s->noperands; i++)
        uses |= s->operand[i].dtype == GEMS_F64;
    for (unsigned i = 0; i < s->nsteps; i++)
        uses |= s->step[i].compute == GEMS_F64;
    return uses;
}

gems_status gems_pw_launch(gems_call *call, pw_launch *l)
{
    gems_loops loops;
    int64_t small = l->shape->numel < SMALL_NUMEL ? GEMS_LANE_SMALL : GEMS_LANE_MAIN;
    gems_lane lane = gems_rule_param(call->rule, "lane", small) == GEMS_LANE_SMALL ? GEMS_LANE_SMALL : GEMS_LANE_MAIN;
    const gems_device_info *device = gems_device_get(lane);
    if (!device->f64 && uses_f64(&l->spec))
        return gems_decline(call, "device has no f64");
    if (!choose_loops(device, call->rule, l, &loops))
        return gems_decline(call, "more than 8 loops");
    gems_job *job = gems_job_begin(call, lane);
    gems_kernel *kernel = find_kernel(job, call, l);
    if (kernel)
        launch(job, kernel, call, l, &loops);
    gems_status status = gems_job_end(job);
    return kernel || status != GEMS_OK ? status : gems_fail(call, "no kernel source");
}
