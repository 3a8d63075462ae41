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

/* Kernels of arg.cl. */
static const char RUN[] = "run", COLUMN[] = "column", GROUP[] = "group", ITEM[] = "item", MERGE[] = "merge";

typedef struct text {
    const gems_call *call;
    int group;
    bool dense, part;
} text;

static void write_defines(const void *what, char *out, size_t n)
{
    const text *t = what;
    const gems_call *call = t->call;
    const char *better = gems_op_attr(call->op, "better");
    snprintf(out, n, "#define GROUP %d\n#define IN %s\n#define C %s\n%s%s%s#define BETTER(a, b) (%s)\n", t->group,
             gems_dtypes[call->dtype].name, gems_dtypes[call->dtype].compute, t->part ? "#define PART\n" : "",
             t->dense ? "#define DENSE_ROWS\n" : "", call->op->nresults == 2 ? "#define VALUES\n" : "",
             better ? better : "b > a");
}

static gems_kernel *kernel_for(const gems_call *call, gems_work *work, const char *k, bool part, bool dense, int group)
{
    text t = {call, group, dense, part};
    gems_kernel_id id = {
        "kernels/reduce/arg.cl", k, call->op, {(uint64_t)call->dtype << 2 | dense << 1 | part, (uint64_t)group}};
    return gems_kernel_for(work, &id, write_defines, &t);
}

static void search(const gems_call *call, gems_work *work, const problem *p, const char *k)
{
    const gems_device_info *device = gems_device_get(work->lane);
    gems_cut cut = {.outer_count = 1, .n = p->n, .splits = 1, .chunk = p->n};
    gems_nest kept = p->kept;
    int64_t columns = 0, stride;
    if (k == COLUMN)
        gems_nest_split_inner(&kept, &columns, &stride);
    else
        gems_reduce_cut(&cut, call, device, p->results);
    bool part = cut.splits > 1, dense = k == COLUMN;
    gems_arg target[2];
    int ntargets = part ? 2 : p->ntargets;
    size_t parts = (size_t)(p->results * cut.splits), size = gems_dtypes[p->input->dtype].size;
    for (int i = 0; i < ntargets; i++)
        target[i] = part ? GEMS_SCRATCH(gems_work_scratch(work, parts * (i          ? 8
                                                                         : size < 4 ? 4
                                                                                    : size)))
                         : GEMS_OUT_ARG(p->target[i]);
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
    int group = 0;
    if (k == COLUMN) {
        args[nargs++] = GEMS_VALUE(columns);
        global = (size_t)gems_cpu_items(device, p->results / columns * ((columns + 15) / 16));
    } else if (k == RUN) {
        global = (size_t)gems_cpu_items(device, (int64_t)units);
        dense = p->reduced.rank == 0 || (p->reduced.rank == 1 && p->reduced.stride[0] == 1);
    } else {
        local = gems_group(device, 256);
        group = k == GROUP ? (int)local : 0;
        global = k == GROUP ? units * local : (units + local - 1) / local * local;
    }
    gems_launch(work, kernel_for(call, work, k, part, dense, group), 1, &global, &local, args, nargs);
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
    gems_launch(work, kernel_for(call, work, MERGE, false, false, 0), 1, &global, &local, args, nargs);
}

static void launch_column(gems_call *call, gems_work *work, const void *p)
{
    search(call, work, p, COLUMN);
}
static void launch_run(gems_call *call, gems_work *work, const void *p)
{
    search(call, work, p, RUN);
}
static void launch_item(gems_call *call, gems_work *work, const void *p)
{
    search(call, work, p, ITEM);
}
static void launch_group(gems_call *call, gems_work *work, const void *p)
{
    search(call, work, p, GROUP);
}

static bool can_column(const gems_call *call, const gems_device_info *device, const void *problem_)
{
    const problem *p = problem_;
    (void)call;
    (void)device;
    return p->side_by_side && p->kept.size[p->kept.rank - 1] >= 8 && p->reduced.rank <= 1 && p->n <= INT32_MAX;
}
static bool suits_item(const gems_call *call, const gems_device_info *device, const void *problem_)
{
    const problem *p = problem_;
    (void)call;
    return !device->is_cpu && (p->n <= 32 || (p->side_by_side && p->results >= 4096));
}

#define SPLITS                                                                                                         \
    {                                                                                                                  \
        {                                                                                                              \
            "splits", 1, 4096, 1, 0                                                                                    \
        }                                                                                                              \
    }
static const gems_variant variants[] = {
    {"column", "8 neighbouring results, side by side in the input", .can = can_column, .suits = gems_suits_cpu,
     .launch = launch_column},
    {"run", NULL, .params = SPLITS, .suits = gems_suits_cpu, .launch = launch_run},
    {"item", NULL, .params = SPLITS, .suits = suits_item, .launch = launch_item},
    {"group", NULL, .params = SPLITS, .suits = gems_suits_gpu, .launch = launch_group},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_tensor *in = call->arg[0].tensor;
    if (!gems_device_get(work->lane)->f64 && in->dtype == GEMS_F64)
        return gems_decline(call, "device has no f64");
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
