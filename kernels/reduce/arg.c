/* The place of the best element: argmax, argmin, max.dim, min.dim. A row of shim/ops.json gives "better", the condition
 * under which an element b found later replaces a. With two results the first is the value. */
#include "kernels/family.h"
#include "kernels/reduce/reduce.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

static gems_status plan(gems_call *call)
{
    gems_reduction r;
    gems_status status = gems_reduce_dims(call, &r);
    if (status != GEMS_OK)
        return status;
    r.from = r.to = (uint8_t)call->dtype;
    bool values = call->op->nresults == 2;
    if (call->dtype == GEMS_BOOL && !values)
        return gems_decline(call, "argmax of bool is an error on the host");
    int64_t *bytes = &call->sizes.v[GEMS_SIZE_BYTES], one = 8 + values * gems_dtypes[r.to].size;
    *bytes = gems_size_plus(*bytes, gems_size_times(call->sizes.v[GEMS_SIZE_ROWS], one));
    memcpy(call->note, &r, sizeof r);
    return GEMS_OK;
}

static gems_kernel *kernel_for(const gems_call *call, gems_job *job, bool part, bool dense, const char *entry,
                               const char *guard, int group)
{
    uint64_t key = gems_key((uintptr_t)guard, (uint64_t)call->op->index << 32 | (uint32_t)group);
    key = gems_key(key, (uint64_t)call->dtype << 2 | dense << 1 | part);
    gems_kernel *kernel = gems_kernel_find(job, key);
    if (kernel)
        return kernel;
    const char *better = gems_op_attr(call->op, "better");
    char defines[512];
    snprintf(defines, sizeof defines,
             "#define %s\n#define GROUP %d\n#define IN %s\n#define C %s\n%s%s%s#define BETTER(a, b) (%s)\n", guard,
             group, gems_dtypes[call->dtype].name, gems_dtypes[call->dtype].compute, part ? "#define PART\n" : "",
             dense ? "#define DENSE_ROWS\n" : "", call->op->nresults == 2 ? "#define VALUES\n" : "",
             better ? better : "b > a");
    return gems_kernel_build_file(job, key, call->op->strukt, defines, "kernels/reduce/arg.cl", entry);
}

/* The search of one call. */
struct search {
    gems_nest kept, reduced;
    int64_t results, n, splits, chunk, columns;
};

static void launch(const gems_call *call, gems_job *job, const struct search *s, const gems_arg *targets, int ntargets)
{
    const gems_device_info *device = gems_job_device(job);
    size_t group = 256, global, local = 1;
    while (group > device->max_group)
        group /= 2;
    gems_arg args[10] = {GEMS_IN(call->arg[0].tensor)};
    int nargs = 1;
    for (int i = 0; i < ntargets; i++)
        args[nargs++] = targets[i];
    args[nargs++] = GEMS_VALUE(s->kept);
    args[nargs++] = GEMS_VALUE(s->reduced);
    args[nargs++] = GEMS_VALUE(s->results);
    args[nargs++] = GEMS_VALUE(s->n);
    args[nargs++] = GEMS_VALUE(s->splits);
    args[nargs++] = GEMS_VALUE(s->chunk);
    int64_t units = s->results * s->splits;
    gems_kernel *kernel;
    if (s->columns) {
        args[nargs++] = GEMS_VALUE(s->columns);
        global = (size_t)gems_cpu_items(device, s->results / s->columns * ((s->columns + 15) / 16));
        kernel = kernel_for(call, job, false, true, "column", "COLUMN", 0);
    } else if (gems_one_item_runs(call, device)) {
        global = (size_t)gems_cpu_items(device, units);
        kernel =
            kernel_for(call, job, s->splits > 1,
                       s->reduced.rank == 0 || (s->reduced.rank == 1 && s->reduced.stride[0] == 1), "run", "RUN", 0);
    } else if (s->n <= 32 || (s->kept.rank && s->kept.stride[s->kept.rank - 1] == 1 && units >= 4096)) {
        local = group;
        global = ((size_t)units + group - 1) / group * group;
        kernel = kernel_for(call, job, s->splits > 1, false, "item", "ITEM", 0);
    } else {
        local = group;
        global = (size_t)units * group;
        kernel = kernel_for(call, job, s->splits > 1, false, "group", "GROUP_", (int)group);
    }
    gems_launch(job, kernel, 1, &global, &local, args, nargs);
}

static void merge(const gems_call *call, gems_job *job, const struct search *s, int values, int indices,
                  const gems_arg *targets, int ntargets)
{
    gems_arg args[6] = {GEMS_SCRATCH(values), GEMS_SCRATCH(indices)};
    int nargs = 2;
    for (int i = 0; i < ntargets; i++)
        args[nargs++] = targets[i];
    args[nargs++] = GEMS_VALUE(s->results);
    args[nargs++] = GEMS_VALUE(s->splits);
    const gems_device_info *device = gems_job_device(job);
    size_t local = gems_one_item_runs(call, device) ? 1 : 64, global;
    while (local > device->max_group)
        local /= 2;
    global = ((size_t)s->results + local - 1) / local * local;
    gems_launch(job, kernel_for(call, job, false, false, "merge", "MERGE", 0), 1, &global, &local, args, nargs);
}

static gems_status run(gems_call *call)
{
    gems_reduction r;
    memcpy(&r, call->note, sizeof r);
    const gems_tensor *in = call->arg[0].tensor;
    gems_lane lane = gems_lane_for(call);
    const gems_device_info *device = gems_device_get(lane);
    if (!device->f64 && in->dtype == GEMS_F64)
        return gems_decline(call, "device has no f64");
    struct search s = {.results = call->sizes.v[GEMS_SIZE_ROWS], .n = call->sizes.v[GEMS_SIZE_COLS], .splits = 1};
    if (!gems_nest_dims(in, ~r.dims, &s.kept) || !gems_nest_dims(in, r.dims, &s.reduced))
        return gems_decline(call, "rank above 8");
    gems_arg targets[2];
    int ntargets = 0;
    const gems_tensor *best = NULL;
    if (call->op->nresults == 2) {
        best = gems_reduce_result(call, 0, in->dtype, &r);
        if (!best)
            return GEMS_DECLINED;
        targets[ntargets++] = GEMS_OUT_ARG(best);
    }
    gems_tensor *indices = gems_reduce_result(call, (unsigned)ntargets, GEMS_I64, &r);
    if (!indices)
        return GEMS_DECLINED;
    if (best && gems_tensor_overlap(best, indices) != GEMS_APART)
        return gems_decline(call, "the results share memory");
    targets[ntargets++] = GEMS_OUT_ARG(indices);

    s.chunk = s.n;
    int64_t last = s.kept.rank - 1;
    if (gems_one_item_runs(call, device) && last >= 0 && s.kept.stride[last] == 1 && s.kept.size[last] >= 8 &&
        s.reduced.rank <= 1 && s.n <= INT32_MAX) {
        int64_t stride;
        gems_nest_split_inner(&s.kept, &s.columns, &stride);
    } else {
        gems_cut cut = {.outer_count = 1, .n = s.n};
        gems_reduce_cut(&cut, call, device, s.results);
        s.splits = cut.splits;
        s.chunk = cut.chunk;
    }
    gems_job *job = gems_job_begin(call, lane);
    if (s.splits == 1) {
        launch(call, job, &s, targets, ntargets);
        return gems_job_end(job);
    }
    size_t parts = (size_t)(s.results * s.splits), size = gems_dtypes[in->dtype].size;
    int values = gems_job_scratch(job, parts * (size < 4 ? 4 : size)), places = gems_job_scratch(job, parts * 8);
    launch(call, job, &s, (gems_arg[]){GEMS_SCRATCH(values), GEMS_SCRATCH(places)}, 2);
    merge(call, job, &s, values, places, targets, ntargets);
    return gems_job_end(job);
}

const gems_family gems_family_arg = {
    .name = "arg", .plan = plan, .run = run, .variants = "", .params = "lane[0..1] splits[1..4096]"};
