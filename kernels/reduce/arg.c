/* The place of the best element: argmax, argmin, max.dim, min.dim. A row of shim/ops.json gives "better", the condition
 * under which an element b found later replaces a. With two results the first is the value. */
#include "kernels/reduce/reduce.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

static gems_status plan(gems_call *call)
{
    gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    gems_status status = gems_reduce_dims(call, r);
    if (status != GEMS_OK)
        return status;
    r->from = r->to = (uint8_t)call->dtype;
    bool values = call->op->nresults == 2;
    if (call->dtype == GEMS_BOOL && !values)
        return gems_decline(call, "argmax of bool is an error on the host");
    int64_t *bytes = &call->sizes.v[GEMS_SIZE_BYTES], one = 8 + values * gems_dtypes[r->to].size;
    *bytes = gems_size_plus(*bytes, gems_size_times(call->sizes.v[GEMS_SIZE_ROWS], one));
    return GEMS_OK;
}

/* A search with its results made. */
typedef struct problem {
    const gems_tensor *input;
    const gems_tensor *target[2]; /* the best, if it is wanted, and its place */
    int ntargets;
    gems_nest kept, reduced;
    int64_t results, n;
    bool side_by_side; /* neighbouring results lie side by side in the input, too */
} problem;

enum {
    COLUMN,
    RUN,
    ITEM,
    GROUP
};

static void write_defines(const gems_choice *c, char *out, size_t n)
{
    const gems_op *op = c->call->op;
    const gems_dtype_info *in = &gems_dtypes[c->call->dtype];
    snprintf(out, n, "#define IN %s\n#define C %s\n%s#define BETTER(a, b) (%s)\n", in->name, in->compute,
             op->nresults == 2 ? "#define VALUES\n" : "", gems_op_attr_or(op, "better", "b > a"));
}

static gems_kernel *kernel_for(const gems_choice *c, const char *entry, bool part, bool dense, size_t group)
{
    return gems_kernel_for(
        c, &(gems_kernel_wanted){"kernels/reduce/arg.cl", entry, c->call->dtype, group, dense, part, write_defines});
}

static void launch(const gems_choice *c)
{
    const problem *p = c->problem;
    gems_work *work = c->work;
    const gems_device_info *device = c->device;
    const int k = gems_choice_index(c);
    gems_cut cut = {.outer_count = 1, .n = p->n, .splits = 1, .chunk = p->n};
    gems_nest kept = p->kept;
    int64_t columns = 0, stride;
    if (k == COLUMN)
        gems_nest_split_inner(&kept, &columns, &stride);
    else
        gems_reduce_cut(&cut, c->call, device, p->results);
    bool part = cut.splits > 1, dense = k == COLUMN;
    gems_arg target[2];
    int ntargets = part ? 2 : p->ntargets;
    const size_t parts = (size_t)(p->results * cut.splits), element = gems_dtypes[p->input->dtype].size;
    const size_t bytes[2] = {parts * (element < 4 ? 4 : element), parts * 8};
    for (int i = 0; i < ntargets; i++)
        target[i] = part ? GEMS_SCRATCH(gems_work_scratch(work, bytes[i])) : GEMS_OUT_ARG(p->target[i]);
    gems_arg args[10] = {GEMS_IN(p->input)};
    int nargs = 1;
    for (int i = 0; i < ntargets; i++)
        args[nargs++] = target[i];
    args[nargs++] = GEMS_VALUE(kept);
    args[nargs++] = GEMS_VALUE(p->reduced);
    args[nargs++] = GEMS_VALUE(p->results);
    args[nargs++] = GEMS_VALUE(p->n);
    args[nargs++] = GEMS_VALUE(cut.splits);
    args[nargs++] = GEMS_VALUE(cut.chunk);
    size_t units = parts, global, local = 1;
    if (k == COLUMN) {
        args[nargs++] = GEMS_VALUE(columns);
        global = (size_t)gems_cpu_items(device, p->results / columns * ((columns + 15) / 16));
    } else if (k == RUN) {
        global = (size_t)gems_cpu_items(device, (int64_t)units);
        dense = p->reduced.rank == 0 || (p->reduced.rank == 1 && p->reduced.stride[0] == 1);
    } else {
        local = gems_group(device, 256);
        global = k == GROUP ? units * local : (units + local - 1) / local * local;
    }
    gems_launch(work, kernel_for(c, c->variant->name, part, dense, local), 1, &global, &local, args, nargs);
    if (!part)
        return;
    nargs = 2;
    args[0] = target[0];
    args[1] = target[1];
    for (int i = 0; i < p->ntargets; i++)
        args[nargs++] = GEMS_OUT_ARG(p->target[i]);
    args[nargs++] = GEMS_VALUE(p->results);
    args[nargs++] = GEMS_VALUE(cut.splits);
    local = k == RUN ? 1 : gems_group(device, 64);
    global = ((size_t)p->results + local - 1) / local * local;
    gems_launch(work, kernel_for(c, "merge", false, false, local), 1, &global, &local, args, nargs);
}

static bool can_column(const gems_choice *c)
{
    const problem *p = c->problem;
    return p->side_by_side && p->kept.size[p->kept.rank - 1] >= 8 && p->reduced.rank <= 1 && p->n <= INT32_MAX;
}
static bool suits_item(const gems_choice *c)
{
    const problem *p = c->problem;
    return !c->device->is_cpu && (p->n <= 32 || (p->side_by_side && p->results >= 4096));
}

static const gems_variant variants[] = {
    [COLUMN] = {"column", "8 neighbouring results, side by side in the input", .can = can_column,
                .suits = gems_suits_cpu, .launch = launch},
    [RUN] = {"run", NULL, .params = {GEMS_SPLITS}, .suits = gems_suits_cpu, .launch = launch},
    [ITEM] = {"item", NULL, .params = {GEMS_SPLITS}, .suits = suits_item, .launch = launch},
    [GROUP] = {"group", NULL, .params = {GEMS_SPLITS}, .suits = gems_suits_gpu, .launch = launch},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_tensor *in = call->arg[0].tensor;
    if (!gems_device_get(work->lane)->f64 && in->dtype == GEMS_F64)
        return gems_decline(call, "the device has no f64");
    problem p = {.input = in, .results = call->sizes.v[GEMS_SIZE_ROWS], .n = call->sizes.v[GEMS_SIZE_COLS]};
    if (!gems_nest_dims(in, ~r->dims, &p.kept) || !gems_nest_dims(in, r->dims, &p.reduced))
        return gems_decline(call, "rank above 8");
    p.side_by_side = p.kept.rank > 0 && p.kept.stride[p.kept.rank - 1] == 1;
    p.ntargets = call->op->nresults;
    for (int i = 0; i < p.ntargets; i++) {
        p.target[i] = gems_reduce_result(call, (unsigned)i, i + 1 < p.ntargets ? in->dtype : GEMS_I64, r);
        if (!p.target[i])
            return GEMS_DECLINED;
    }
    if (p.ntargets == 2 && gems_tensor_overlap(p.target[0], p.target[1]) != GEMS_APART)
        return gems_decline(call, "the results share memory");
    return gems_launch_variant(call, work, &p);
}

const gems_family gems_family_arg = {
    .name = "arg", .plan = plan, .prepare = prepare, .variants = variants, .small_numel = 65536};
