#include "preload/probe.h"
#include "kernels/family.h"
#include "kernels/host.h"

#include <stdio.h>
#include <string.h>

enum {
    SIDE = 4,
    MAX_DIMS = 4
};

/* One made-up call: ranks of the first tensor and of the others; all sides are 4, so that most things fit. */
typedef struct shape {
    int first, others;
} shape;

static const shape shapes[] = {{2, 2}, {2, 1}, {4, 4}, {3, 3}, {1, 1}, {1, 2}};

/* Each tensor has its own memory: a result that overlaps an argument is another matter. */
static double memory[GEMS_MAX_ARGS][SIDE * SIDE * SIDE * SIDE];
static const int64_t sizes[MAX_DIMS] = {SIDE, SIDE, SIDE, SIDE};
static const int64_t strides[MAX_DIMS][MAX_DIMS] = {
    {1}, {SIDE, 1}, {SIDE * SIDE, SIDE, 1}, {SIDE * SIDE * SIDE, SIDE *SIDE, SIDE, 1}};

static gems_tensor make_tensor(double *data, int ndim, gems_dtype dtype)
{
    gems_tensor t = {
        .address = (uintptr_t)data, .sizes = sizes, .strides = strides[ndim - 1], .ndim = ndim, .dtype = dtype};
    t.numel = 1;
    for (int d = 0; d < ndim; d++)
        t.numel *= SIDE;
    return t;
}

/* One for each row of the other tensors, f32 at least. */
static bool is_of_rows(const gems_param *param)
{
    return strcmp(param->name, "logsumexp") == 0;
}

/* Masks are bool and indices i64 whatever the call computes with. */
static gems_dtype dtype_of(const gems_param *param, gems_dtype dtype)
{
    if (is_of_rows(param) && gems_dtypes[dtype].size == 2)
        return GEMS_F32;
    if (strstr(param->name, "mask") || strcmp(param->name, "condition") == 0)
        return GEMS_BOOL;
    return strstr(param->name, "ind") == param->name ? GEMS_I64 : dtype;
}

typedef struct probe {
    gems_call call;
    gems_tensor tensor[GEMS_MAX_ARGS][2];
    unsigned tensors; /* used so far */
} probe;

static gems_value make_argument(probe *p, const gems_param *param, const shape *s, gems_dtype dtype)
{
    static const int64_t last_dim[] = {-1}, side[] = {SIDE}, ones[] = {1, 1};
    gems_tensor *t = p->tensor[p->tensors];
    switch ((gems_type)param->type) {
    case GEMS_T_TENSOR:
    case GEMS_T_TENSORS:
    case GEMS_T_ITENSORS:
        t[0] = t[1] =
            make_tensor(memory[p->tensors], p->tensors ? s->others - (is_of_rows(param) && s->others > 1) : s->first,
                        dtype_of(param, dtype));
        p->tensors++;
        if (param->type == GEMS_T_TENSOR)
            return (gems_value){.kind = GEMS_TENSOR, .tensor = t};
        return (gems_value){.kind = GEMS_TENSORS, .tensors = {t, 2}};
    case GEMS_T_SCALAR:
    case GEMS_T_INT:
    case GEMS_T_SYMINT:
        return (gems_value){.kind = GEMS_SCALAR_INT,
                            .i = param->type == GEMS_T_SCALAR || strstr(param->name, "repeats")};
    case GEMS_T_FLOAT:
        return (gems_value){.kind = GEMS_SCALAR_FLOAT, .f = 0};
    case GEMS_T_BOOL:
        return (gems_value){.kind = GEMS_SCALAR_BOOL, .i = 0};
    case GEMS_T_INTS:
    case GEMS_T_SYMINTS:
        if (strstr(param->name, "shape"))
            return (gems_value){.kind = GEMS_INTS, .ints = {side, 1}};
        if (strstr(param->name, "pad") || strstr(param->name, "repeats"))
            return (gems_value){.kind = GEMS_INTS, .ints = {ones, 2}};
        return (gems_value){.kind = GEMS_INTS, .ints = {last_dim, 1}};
    case GEMS_T_STR:
        return (gems_value){.kind = GEMS_STR, .str = {"none", 4}};
    case GEMS_T_DTYPE:
        return (gems_value){.kind = GEMS_DTYPE, .dtype = dtype};
    case GEMS_T_MEMFMT:
        return (gems_value){.kind = GEMS_MEMFMT, .i = 0};
    default:
        return (gems_value){.kind = GEMS_NONE};
    }
}

static gems_dtype default_dtype(void)
{
    return GEMS_F32;
}

static const gems_host probing = {.default_dtype = default_dtype}; /* plan() makes nothing */

static bool takes(const gems_op *op, const shape *s, gems_dtype dtype)
{
    probe p = {.call = {.op = op, .host = &probing}};
    memset(&p.call.sizes, -1, sizeof p.call.sizes);
    for (int i = 0; i < op->nparams; i++)
        p.call.arg[i] = make_argument(&p, &op->params[i], s, dtype);
    return op->kernel->plan(&p.call) == GEMS_OK;
}

void gems_probe_dtypes(const gems_op *op, char *text, size_t n)
{
    size_t used = 0;
    if (n)
        *text = 0;
    for (int d = 0; op->kernel && d < GEMS_DTYPE_COUNT; d++) {
        bool any = false;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes && !any; i++)
            any = takes(op, &shapes[i], (gems_dtype)d);
        if (any && used < n)
            used += (size_t)snprintf(text + used, n - used, used ? " %s" : "%s", gems_dtypes[d].name);
    }
}
