/* Scans along one dimension: cumsum. A row of shim/ops.json gives "combine" and "identity" (as for reductions),
 * "compensated" where combine is a sum, and "result": "sum" (the dtype argument, else i64 for integers).
 *
 * f32 accumulates in f64, as the host does, or with its rounding errors kept where the device has no f64. */
#include "kernels/reduce/reduce.h"
#include "kernels/reduce/rows.h"
#include "kernels/work/wide.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

static gems_status plan(gems_call *call)
{
    gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_value *dim = gems_call_arg(call, "dim");
    *r = (gems_reduction){.keepdim = true};
    if (dim->kind != GEMS_SCALAR_INT)
        return gems_decline(call, "dim is not a plain number");
    gems_status status = gems_reduce_dims(call, r);
    if (status == GEMS_OK)
        status = gems_reduce_dtypes(call, r);
    if (status != GEMS_OK)
        return status;
    if (r->to == GEMS_BOOL)
        return gems_decline(call, "a scan into bool is an error on the host");
    const gems_tensor *in = call->arg[0].tensor;
    call->sizes.v[GEMS_SIZE_INNER] = gems_rows_inner(in, gems_wrap_dim(dim->i, in->ndim));
    int64_t *bytes = &call->sizes.v[GEMS_SIZE_BYTES];
    *bytes = gems_size_plus(*bytes, gems_size_bytes(in->numel, (gems_dtype)r->to));
    return GEMS_OK;
}

/* A scan with its result made. */
typedef struct problem {
    gems_rows rows;
    gems_dtype acc;
    bool compensated;
} problem;

static void choose_types(problem *p, const gems_call *call, const gems_device_info *device)
{
    gems_dtype out = p->rows.out->dtype;
    p->acc = out;
    if (gems_dtypes[out].category != GEMS_CAT_FLOAT)
        p->acc = GEMS_I64;
    else if (out == GEMS_F32 && device->f64)
        p->acc = GEMS_F64;
    else if (out != GEMS_F64)
        p->acc = GEMS_F32;
    p->compensated = gems_op_attr(call->op, "compensated") && p->acc == out && p->acc == GEMS_F32;
}

/* A tile of a row, of which the totals stand in local memory, twice. */
static gems_hold hold_of(const gems_choice *c)
{
    const problem *p = c->problem;
    const int64_t vectors = p->rows.n * gems_dtypes[p->rows.in->dtype].size / GEMS_WIDE;
    gems_hold h = gems_hold_for(c, vectors < 512 * 4 ? vectors : 512 * 4);
    const size_t totals = (size_t)(2 * h.lanes * h.rows) * gems_dtypes[p->acc].size;
    while (h.held > 1 && (size_t)h.held * totals > c->device->local_bytes)
        h.held--;
    h.spare = 0;
    return h;
}

static void write_defines(const gems_choice *c, char *out, size_t n)
{
    const problem *p = c->problem;
    const gems_op *op = c->call->op;
    const gems_dtype_info *to = &gems_dtypes[p->rows.out->dtype];
    const int used = snprintf(out, n,
                              "#define IN %s\n#define OUT %s\n#define T %s\n#define A %s\n%s"
                              "#define COMBINE(a, b) (%s)\n#define IDENTITY ((A)(%s))\n",
                              gems_dtypes[c->call->dtype].name, to->name, to->compute, gems_dtypes[p->acc].compute,
                              p->compensated ? "#define COMPENSATED\n" : "", gems_op_attr_or(op, "combine", "a + b"),
                              gems_op_attr_or(op, "identity", "0"));
    if (gems_choice_index(c) == GEMS_ROWS_WIDE) {
        const gems_hold hold = hold_of(c);
        gems_hold_defines(&hold, out + used, n - (size_t)used);
    }
}

/* A row is cut where there are fewer rows than cores and a part is long enough to be worth reading twice. */
typedef struct parts {
    int64_t splits, chunk;
    int totals; /* scratch */
} parts;

/* `cut`: of kernels that take parts of rows; `hold`: of those that hold rows. */
static void launch(const gems_choice *c, const char *entry, const size_t *global, const size_t *local, const parts *cut,
                   const gems_hold *hold)
{
    const problem *p = c->problem;
    const gems_rows *r = &p->rows;
    gems_arg args[10] = {GEMS_IN(r->in),   GEMS_OUT_ARG(r->out),  GEMS_VALUE(r->kept), GEMS_VALUE(r->rows),
                         GEMS_VALUE(r->n), GEMS_VALUE(r->stride), GEMS_VALUE(r->inner)};
    int nargs = 7;
    if (cut) {
        args[nargs++] = GEMS_SCRATCH(cut->totals);
        args[nargs++] = GEMS_VALUE(cut->splits);
        args[nargs++] = GEMS_VALUE(cut->chunk);
    }
    const gems_kernel_wanted kernel = {"kernels/scan/scan.cl",
                                       entry,
                                       (uint64_t)(c->call->dtype << 16 | r->out->dtype << 8 | p->acc) |
                                           (hold ? gems_hold_types(hold) : 0),
                                       hold ? local[0] * local[1] : local[0],
                                       gems_rows_dense(c),
                                       false,
                                       write_defines};
    gems_launch(c->work, gems_kernel_for(c, &kernel), hold ? 2 : 1, global, local, args, nargs);
}

static void launch_whole(const gems_choice *c)
{
    size_t global, local;
    gems_rows_items(c, &global, &local);
    launch(c, c->variant->name, &global, &local, NULL, NULL);
}

static void launch_wide(const gems_choice *c)
{
    const gems_hold hold = hold_of(c);
    size_t global[2], local[2];
    gems_hold_items(&hold, ((const problem *)c->problem)->rows.rows, global, local);
    launch(c, c->variant->name, global, local, NULL, &hold);
}

static void launch_run(const gems_choice *c)
{
    const problem *p = c->problem;
    const gems_rows *r = &p->rows;
    int64_t wanted = c->device->compute_units > 1 ? 2 * (int64_t)c->device->compute_units / r->rows : 1;
    if (wanted > r->n / 65536)
        wanted = r->n / 65536;
    wanted = gems_rule_param(c->call->rule, "splits", wanted);
    parts cut = {.chunk = wanted > 1 ? (r->n + wanted - 1) / wanted : r->n};
    cut.splits = (r->n + cut.chunk - 1) / cut.chunk;
    cut.totals = gems_work_scratch(c->work, (size_t)(r->rows * cut.splits) * gems_dtypes[p->acc].size);
    const size_t one = 1, all = (size_t)(r->rows * cut.splits);
    const size_t items = (size_t)gems_cpu_items(c->device, r->rows * cut.splits);
    if (cut.splits > 1)
        launch(c, "part", &all, &one, &cut, NULL);
    launch(c, "run", &items, &one, &cut, NULL);
}

static bool suits_item(const gems_choice *c)
{
    const gems_rows *r = c->problem;
    return !c->device->is_cpu && ((r->side_by_side && r->inner >= 32) || r->n <= 16);
}

static const gems_variant variants[] = {
    [GEMS_ROWS_COLUMN] = {"column", "8 neighbouring rows, side by side in the input", .can = gems_rows_can_column,
                          .suits = gems_suits_cpu, .launch = launch_whole},
    [GEMS_ROWS_RUN] = {"run", NULL, .params = {GEMS_SPLITS}, .suits = gems_suits_cpu, .launch = launch_run},
    [GEMS_ROWS_WIDE] = {"wide", "rows of whole 16 bytes", .params = {GEMS_HOLD_PARAMETERS}, .can = gems_rows_can_wide,
                        .suits = gems_suits_gpu, .launch = launch_wide},
    [GEMS_ROWS_ITEM] = {"item", .suits = suits_item, .launch = launch_whole},
    [GEMS_ROWS_GROUP] = {"group", .suits = gems_suits_gpu, .launch = launch_whole},
    {NULL},
};

static gems_status prepare(gems_call *call, gems_work *work)
{
    const gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_device_info *device = gems_device_get(work->lane);
    problem p;
    if (!device->f64 && (call->dtype == GEMS_F64 || r->to == GEMS_F64))
        return gems_decline(call, "the device has no f64");
    gems_status status = gems_rows_prepare(call, __builtin_ctzll(r->dims), (gems_dtype)r->to, &p.rows);
    if (status != GEMS_OK)
        return status;
    choose_types(&p, call, device);
    return gems_launch_variant(call, work, &p);
}

const gems_family gems_family_scan = {
    .name = "scan", .plan = plan, .prepare = prepare, .variants = variants, .small_numel = 65536};
