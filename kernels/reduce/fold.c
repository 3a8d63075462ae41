/* Reductions whose terms are computed on the way, from a chain of pointwise operators (CPUs). */
#include "kernels/embedded.h"
#include "kernels/pointwise/recipe.h"
#include "kernels/reduce/reduce.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECE = 1024,      /* terms that are in memory at a time; one work-item's block of a sum (reduce.cl) */
    LEAST = 16 * 1024, /* terms worth a work-item of their own */
    SLACK = 16         /* a vector may be read across the end of a piece */
};

/* Stands in the work, for when it is lowered. */
typedef struct fold {
    gems_reduce_types types;
    int64_t n, inner, results, total; /* results of n terms each, which are `inner` apart */
    int64_t splits, chunk, items;     /* parts of a result, of `chunk` terms; work-items */
    int32_t output;                   /* operand */
} fold;

static fold *fold_of(gems_work *work)
{
    return (fold *)(void *)(work->bytes + pw_recipe_of(work)->end);
}

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static gems_kernel *kernel_for(gems_work *work, const char *entry, bool part)
{
    static const char helpers[] =
        "#include \"kernels/types.cl\"\n#include \"kernels/nest.cl\"\n#include \"kernels/rows.cl\"\n";
    const gems_pw_spec *spec = &pw_recipe_of(work)->spec;
    const fold *f = fold_of(work);
    struct {
        const char *entry;
        const gems_op *op;
        uint64_t types;
    } id = {entry, f->types.op, gems_reduce_types_number(&f->types) << 2 | (uint64_t)(f->inner > 1) << 1 | part};
    const size_t bytes = gems_pw_spec_bytes(spec);
    unsigned char *whole = malloc(sizeof id + bytes);
    const gems_embedded_file *file = gems_embedded_find("kernels/reduce/reduce.cl");
    char defines[1024], *producer = NULL, *source = NULL;
    gems_kernel *kernel = NULL;
    if (whole) {
        memcpy(whole, &id, sizeof id);
        memcpy(whole + sizeof id, spec, bytes);
        kernel = gems_work_find(work, whole, sizeof id + bytes);
    }
    if (whole && !kernel && work->trouble.kind == GEMS_TROUBLE_NONE) {
        gems_reduce_defines(&f->types, defines, sizeof defines);
        producer = gems_pw_source(spec, "");
        if (producer &&
            asprintf(&source, "%s#define KERNEL_%s\n#define GROUP 1\n#define DENSE_ROWS\n#define PIECE %d\n%s%s%s%s%s",
                     producer, entry, PIECE, f->inner > 1 ? "#define FOLD_COLUMNS\n" : "", part ? "#define PART\n" : "",
                     defines, helpers, file->text) >= 0)
            kernel = gems_work_build(work, whole, sizeof id + bytes,
                                     &(gems_kernel_text){f->types.op->strukt, "kernels/math.cl", source, "-w", entry});
    }
    free(whole);
    free(producer);
    free(source);
    return kernel;
}

static void lower(gems_work *work)
{
    enum {
        OWN = 8 /* arguments before the producer's */
    };
    gems_arg args[OWN + PW_PRODUCER_ARGS];
    pw_sizes sizes[GEMS_OPERANDS + 1];
    pw_tables tables;
    if (!gems_work_room(work, pw_recipe_room(work) + 16 * 32))
        return;
    const fold *f = fold_of(work); /* which stays put now */
    const bool nothing = pw_recipe_of(work)->nothing, cut = f->splits > 1;
    int nproducer = pw_recipe_producer(work, args + OWN, sizes, tables);
    if (nproducer < 0)
        return;
    const int64_t results = nothing ? 0 : f->results, items = nothing ? 1 : f->items;
    const size_t state = 2 * sizeof(int64_t);
    const gems_arg parts = GEMS_SCRATCH(cut ? gems_work_scratch(work, (size_t)(f->splits * f->results) * state) : 0);
    args[0] = GEMS_SCRATCH(gems_work_scratch(work, (size_t)items * (PIECE + SLACK) * gems_dtypes[f->types.in].size));
    args[1] = cut ? parts : GEMS_OPERAND(f->output);
    args[2] = GEMS_VALUE(f->n);
    args[3] = GEMS_VALUE(f->inner);
    args[4] = GEMS_VALUE(results);
    args[5] = GEMS_VALUE(f->splits);
    args[6] = GEMS_VALUE(f->chunk);
    args[7] = GEMS_VALUE(f->total);
    size_t global = (size_t)items, local = 1;
    gems_launch(work, kernel_for(work, "fold", cut), 1, &global, &local, args, OWN + nproducer);
    if (!cut)
        return;
    const gems_arg merged[] = {parts, GEMS_OPERAND(f->output), GEMS_VALUE(results), GEMS_VALUE(f->splits),
                               GEMS_VALUE(f->total)};
    global = nothing ? 1 : (size_t)f->results;
    gems_launch(work, kernel_for(work, "merge", false), 1, &global, &local, merged, 5);
}

/* Units of work as the kernel has them, and how many parts each is cut into so that all cores have some. */
static void share(fold *f, const gems_device_info *device)
{
    const bool columns = f->inner > 1;
    const int64_t width = f->inner < PIECE / 2 ? f->inner : PIECE / 2, together = f->n <= PIECE / 2 ? PIECE / f->n : 1;
    int64_t units = columns ? f->results / f->inner * divide_up(f->inner, width) : divide_up(f->results, together);
    int64_t wanted = device->compute_units > 1 ? 4 * (int64_t)device->compute_units / units : 1;
    if (wanted > f->n * width / LEAST)
        wanted = f->n * width / LEAST;
    if (wanted < 1 || (!columns && together > 1))
        wanted = 1;
    f->chunk = divide_up(f->n, wanted);
    if (!columns)
        f->chunk = divide_up(f->chunk, PIECE) * PIECE;
    f->splits = divide_up(f->n, f->chunk);
    f->items = gems_cpu_items(device, units * f->splits);
}

/* `n` terms a result, and how many neighbouring results lie between two of them. False: the reduced dimensions are not
 * beside each other. */
static bool find_loops(const gems_tensor *in, uint64_t dims, fold *f)
{
    bool found = false;
    f->n = f->inner = f->results = 1;
    for (int d = 0; d < in->ndim; d++) {
        if (in->sizes[d] == 1)
            continue;
        if (!(dims >> d & 1)) {
            f->results *= in->sizes[d];
            f->inner *= found ? in->sizes[d] : 1;
            continue;
        }
        if (f->inner > 1)
            return false;
        found = true;
        f->n *= in->sizes[d];
    }
    return true;
}

gems_status gems_reduce_fold(gems_call *call, gems_work *work)
{
    const gems_reduction *r = GEMS_PLAN(gems_reduction, call);
    const gems_tensor *in = call->arg[0].tensor;
    fold f = {.total = call->sizes.v[GEMS_SIZE_COLS]};
    if (call->op->form == GEMS_OUT || !find_loops(in, r->dims, &f))
        return gems_decline(call, "no reduction that can end a chain");
    gems_reduce_types_of(&f.types, call);
    const gems_tensor *out = gems_reduce_result(call, 0, f.types.out, r);
    fold *kept = out ? gems_work_reserve(work, sizeof f) : NULL;
    if (!kept)
        return GEMS_DECLINED;
    f.output = gems_work_operand(work, out, GEMS_WRITE);
    share(&f, gems_device_get(work->lane));
    *kept = f;
    pw_recipe *recipe = pw_recipe_of(work);
    recipe->end = (uint32_t)((unsigned char *)kept - work->bytes);
    recipe->end_id = (uint64_t)call->op->index << 24 | gems_reduce_types_number(&f.types) << 8 |
                     (uint64_t)(f.splits > 1) << 1 | (f.inner > 1);
    work->lower = lower;
    return GEMS_OK;
}
