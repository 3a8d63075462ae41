/* The gate lets a call pass unseen if its largest operand has fewer elements than gems_table_min_numel says. This
 * holds the bound against what the kernels themselves say: random calls go through plan(), and for each that is taken,
 * rules that just match it by one or two of its named sizes must not have a bound above that. */
#include "tests/unit/fake_host.h"
#include "kernels/family.h"
#include "tune/table.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRIES = 400,
    DIMS = 4
};

typedef struct made {
    gems_call call;
    gems_tensor tensor[GEMS_MAX_ARGS];
    int64_t sizes[GEMS_MAX_ARGS][DIMS], strides[GEMS_MAX_ARGS][DIMS], ints[GEMS_MAX_ARGS][DIMS];
    unsigned tensors;
} made;

static unsigned seed;

static int pick(int low, int high)
{
    return low + rand_r(&seed) % (high - low + 1);
}

/* Random rank and sides, or those of the first tensor, which is what most operators want of the others. */
static gems_tensor *make_tensor(made *m, gems_dtype dtype)
{
    static int64_t memory[GEMS_MAX_ARGS][4 * 4 * 4 * 4];
    unsigned i = m->tensors++;
    gems_tensor *t = &m->tensor[i];
    *t = (gems_tensor){
        .address = (uintptr_t)memory[i], .sizes = m->sizes[i], .strides = m->strides[i], .dtype = dtype, .numel = 1};
    t->ndim = i && pick(0, 1) ? m->tensor[0].ndim : pick(0, DIMS);
    bool same = i && t->ndim == m->tensor[0].ndim && pick(0, 3);
    for (int d = t->ndim - 1; d >= 0; d--) {
        m->sizes[i][d] = same ? m->sizes[0][d] : pick(1, 4);
        m->strides[i][d] = t->numel;
        t->numel *= m->sizes[i][d];
    }
    return t;
}

static gems_value make_argument(made *m, const gems_op *op, int i, gems_dtype dtype)
{
    static const gems_dtype others[] = {GEMS_I64, GEMS_BOOL};
    const gems_param *p = &op->params[i];
    switch ((gems_type)p->type) {
    case GEMS_T_OPT_TENSOR:
        if (pick(0, 1))
            return (gems_value){.kind = GEMS_NONE};
        __attribute__((fallthrough));
    case GEMS_T_TENSOR:
        return (gems_value){.kind = GEMS_TENSOR, .tensor = make_tensor(m, pick(0, 2) ? dtype : others[pick(0, 1)])};
    case GEMS_T_SCALAR:
    case GEMS_T_INT:
    case GEMS_T_SYMINT:
        return (gems_value){.kind = GEMS_SCALAR_INT, .i = pick(-1, 2)};
    case GEMS_T_FLOAT:
        return (gems_value){.kind = GEMS_SCALAR_FLOAT, .f = pick(0, 1)};
    case GEMS_T_BOOL:
        return (gems_value){.kind = GEMS_SCALAR_BOOL, .i = pick(0, 1)};
    case GEMS_T_INTS:
    case GEMS_T_SYMINTS:
        for (int d = 0; d < DIMS; d++)
            m->ints[i][d] = pick(-1, 4);
        return (gems_value){.kind = GEMS_INTS, .ints = {m->ints[i], (size_t)pick(1, 2)}};
    case GEMS_T_STR:
        return (gems_value){.kind = GEMS_STR, .str = {"none", 4}};
    case GEMS_T_DTYPE:
        return (gems_value){.kind = GEMS_DTYPE, .dtype = dtype};
    case GEMS_T_MEMFMT:
        return (gems_value){.kind = GEMS_MEMFMT};
    default:
        return (gems_value){.kind = GEMS_NONE};
    }
}

/* A table whose one rule needs at least these two sizes of the call (the same twice: one). */
static int64_t bound_of(const gems_op *op, const gems_sizes *sizes, int a, int b)
{
    char json[300], second[64] = "";
    if (a != b)
        snprintf(second, sizeof second, ", \"%s\": [%lld, null]", gems_size_names[b], (long long)sizes->v[b]);
    snprintf(json, sizeof json, "{\"rules\": [{\"op\": \"%s\", \"where\": {\"%s\": [%lld, null]%s}}]}", op->name,
             gems_size_names[a], (long long)sizes->v[a], second);
    gems_table_error error;
    gems_table *table = gems_table_compile("t", json, NULL, &error);
    cr_assert_not_null(table, "%s", error.text);
    int64_t bound = gems_table_min_numel(table, op);
    gems_table_free(table);
    return bound;
}

static void check_call(const made *m)
{
    const gems_op *op = m->call.op;
    const gems_sizes *sizes = &m->call.sizes;
    int64_t largest = 0;
    for (unsigned i = 0; i < m->tensors; i++)
        largest = m->tensor[i].numel > largest ? m->tensor[i].numel : largest;
    if (op->kernel->variants == gems_op_find("add.Tensor")->kernel->variants && sizes->v[GEMS_SIZE_NUMEL] > largest)
        return; /* a result that grows by broadcasting */
    for (int a = 0; a < GEMS_SIZE_COUNT; a++)
        for (int b = a; b < GEMS_SIZE_COUNT; b++)
            if (sizes->v[a] > 1 && sizes->v[b] > 1)
                cr_expect_leq(bound_of(op, sizes, a, b), largest, "%s: largest operand %lld, %s %lld, %s %lld",
                              op->name, (long long)largest, gems_size_names[a], (long long)sizes->v[a],
                              gems_size_names[b], (long long)sizes->v[b]);
}

Test(gate, the_bound_of_a_rule_is_never_above_the_largest_operand_of_a_call_that_it_matches, .timeout = 300)
{
    static const gems_dtype dtypes[] = {GEMS_F32, GEMS_F32, GEMS_I32, GEMS_I64, GEMS_BOOL};
    unsigned taken = 0, kernels = 0;
    for (unsigned i = 0; i < gems_op_count; i++) {
        const gems_op *op = &gems_ops[i];
        bool any = false;
        for (int t = 0; op->kernel && t < TRIES; t++) {
            static made m;
            memset(&m, 0, sizeof m);
            memset(&m.call.sizes, -1, sizeof m.call.sizes);
            m.call.op = op;
            m.call.host = &fake_host;
            gems_dtype dtype = dtypes[pick(0, 4)];
            for (int k = 0; k < op->nparams; k++)
                m.call.arg[k] = make_argument(&m, op, k, dtype);
            if (op->kernel->plan(&m.call) != GEMS_OK)
                continue;
            if (!any || pick(0, 20) == 0)
                check_call(&m);
            any = true;
        }
        kernels += op->kernel != NULL;
        taken += any;
    }
    cr_expect_gt(taken, kernels * 3 / 4, "only %u of %u kernels took a call", taken, kernels);
}
