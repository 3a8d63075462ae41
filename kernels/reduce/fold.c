/* Reductions at the end of a chain (CPUs): their terms are computed on the way, see kernels/pointwise/end.h. */
#include "kernels/pointwise/end.h"
#include "kernels/reduce/reduce.h"

#include <stdio.h>
#include <string.h>

enum {
    PIECE = 1024,      /* terms that are in memory at a time: a block of a sum (reduce.cl) */
    SLACK = 16,        /* a vector may be read across the end of a piece */
    LEAST = 16 * 1024, /* terms worth a work-item of their own */
    STATE = 16         /* bytes of what is known of a part of a result, at most */
};

/* `results` results of n terms each, which are `inner` apart; each in `splits` parts of `chunk` terms. */
typedef struct problem {
    gems_reduce_types types;
    int64_t n, inner, results, splits, chunk, items;
} problem;

/* False: the reduced dimensions are not beside each other. */
static bool find_loops(const gems_tensor *in, uint64_t dims, problem *p)
{
    bool found = false;
    p->n = p->inner = p->results = 1;
    for (int d = 0; d < in->ndim; d++) {
        if (in->sizes[d] == 1)
            continue;
        if (!(dims >> d & 1)) {
            p->results *= in->sizes[d];
            p->inner *= found ? in->sizes[d] : 1;
            continue;
        }
        if (p->inner > 1)
            return false;
        found = true;
        p->n *= in->sizes[d];
    }
    return true;
}

/* Units of work as the kernel has them are cut so that all cores have some. */
static void share(problem *p, const gems_device_info *device)
{
    const bool columns = p->inner > 1;
    const int64_t width = p->inner < PIECE / 2 ? p->inner : PIECE / 2, together = p->n <= PIECE / 2 ? PIECE / p->n : 1;
    int64_t units =
        columns ? p->results / p->inner * gems_ceil_div(p->inner, width) : gems_ceil_div(p->results, together);
    int64_t wanted = device->compute_units > 1 ? 4 * (int64_t)device->compute_units / units : 1;
    if (wanted > p->n * width / LEAST)
        wanted = p->n * width / LEAST;
    if (wanted < 1 || (!columns && together > 1))
        wanted = 1;
    p->chunk = gems_ceil_div(p->n, wanted);
    if (!columns)
        p->chunk = gems_ceil_div(p->chunk, PIECE) * PIECE;
    p->splits = gems_ceil_div(p->n, p->chunk);
    p->items = gems_cpu_items(device, units * p->splits);
}

static void write_defines(const gems_choice *c, char *text, size_t n)
{
    const problem *p = c->problem;
    int used = snprintf(text, n, "#define PIECE %d\n#define ROOM %d\n%s", PIECE, PIECE + SLACK,
                        p->inner > 1 ? "#define FOLD_COLUMNS\n" : "");
    gems_reduce_defines(&p->types, text + used, n - (size_t)used);
}

static gems_kernel *kernel_for(const gems_choice *c, const char *entry, bool part)
{
    const problem *p = c->problem;
    const gems_kernel_wanted wanted = {"kernels/reduce/reduce.cl",
                                       entry,
                                       gems_reduce_types_number(&p->types) << 1 | (p->inner > 1),
                                       1,
                                       true,
                                       part,
                                       write_defines};
    return gems_kernel_for(c, &wanted);
}

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_tensor *in = call->arg[0].tensor;
    const gems_device_info *device = gems_device_get(work->lane);
    problem p;
    if (!find_loops(in, r->dims, &p))
        return gems_decline(call, "no reduction that can end a chain");
    gems_reduce_types_of(&p.types, call);
    share(&p, device);
    const gems_tensor *result = gems_reduce_result(call, 0, p.types.out, r);
    if (!result)
        return GEMS_DECLINED;
    const gems_choice c = {call, work, device, &p, NULL};
    const int64_t total = call->sizes.v[GEMS_SIZE_COLS];
    const bool cut = p.splits > 1;
    const gems_arg out =
        cut ? GEMS_SCRATCH(gems_work_scratch(work, (size_t)(p.splits * p.results) * STATE)) : GEMS_OUT_ARG(result);
    const gems_arg args[] = {GEMS_IN(in),           out,
                             GEMS_VALUE(p.n),       GEMS_VALUE(p.inner),
                             GEMS_VALUE(p.results), GEMS_VALUE(p.splits),
                             GEMS_VALUE(p.chunk),   GEMS_VALUE(total)};
    size_t global = (size_t)p.items, local = 1;
    gems_launch(work, kernel_for(&c, "fold", cut), 1, &global, &local, args, 8);
    if (!cut)
        return GEMS_OK;
    const gems_arg merged[] = {out, GEMS_OUT_ARG(result), GEMS_VALUE(p.results), GEMS_VALUE(p.splits),
                               GEMS_VALUE(total)};
    global = (size_t)p.results;
    gems_launch(work, kernel_for(&c, "merge", false), 1, &global, &local, merged, 5);
    return GEMS_OK;
}

gems_status gems_reduce_fold(gems_call *call, gems_work *work)
{
    return pw_end(call, work, PIECE + SLACK, prepare);
}
