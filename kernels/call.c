/* The parts of call.h that need no device: looking up operators, giving reasons, the results of a call. */
#include "kernels/family.h"
#include "kernels/host.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const gems_parameter gems_parameter_lane = {"lane", 0, 1, 1, 0};

const char *const gems_size_names[GEMS_SIZE_COUNT] = {
    [GEMS_SIZE_NUMEL] = "numel", [GEMS_SIZE_ROWS] = "rows",   [GEMS_SIZE_COLS] = "cols",   [GEMS_SIZE_M] = "m",
    [GEMS_SIZE_N] = "n",         [GEMS_SIZE_K] = "k",         [GEMS_SIZE_BATCH] = "batch", [GEMS_SIZE_INNER] = "inner",
    [GEMS_SIZE_BYTES] = "bytes", [GEMS_SIZE_PLACE] = "place",
};

const char *gems_op_attr(const gems_op *op, const char *key)
{
    for (const gems_attr *a = op->attrs; a && a->key; a++)
        if (strcmp(a->key, key) == 0)
            return a->value;
    return NULL;
}

int gems_op_param(const gems_op *op, const char *name)
{
    for (int i = 0; i < op->nparams; i++)
        if (strcmp(op->params[i].name, name) == 0)
            return i;
    return -1;
}

static const gems_op *find_struct(const char *strukt)
{
    for (unsigned low = 0, high = gems_op_count; low < high;) {
        unsigned mid = low + (high - low) / 2;
        int order = strcmp(strukt, gems_ops[mid].strukt);
        if (order == 0)
            return &gems_ops[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

/* A struct is named after its operator, with '_' for the '.' before the overload: so one search serves both. */
const gems_op *gems_op_find(const char *name)
{
    char strukt[128];
    size_t n = strlen(name);
    if (n >= sizeof strukt)
        return NULL;
    memcpy(strukt, name, n + 1);
    char *dot = strchr(strukt, '.');
    if (dot)
        *dot = '_';
    const gems_op *op = find_struct(strukt);
    return op && dot && strcmp(op->name, name) != 0 ? NULL : op;
}

gems_status gems_decline(gems_call *call, const char *why)
{
    if (!call->why)
        call->why = why;
    return GEMS_DECLINED;
}

gems_status gems_fail(gems_call *call, const char *fmt, ...)
{
    if (!call->why) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(call->whybuf, sizeof call->whybuf, fmt, args);
        va_end(args);
        call->why = call->whybuf;
    }
    return GEMS_FAILED;
}

/* The tensor that an in-place or out operator was given for its i-th result, if it has this shape and is of this dtype
 * (GEMS_DTYPE_NONE: of any). */
static bool take_given(gems_call *call, unsigned i, gems_dtype dtype, bool complex, int ndim, const int64_t *sizes)
{
    const gems_value *v = &call->arg[gems_op_written(call->op, i)];
    const gems_tensor *t = v->kind == GEMS_TENSOR ? v->tensor : NULL;
    if (!t || t->ndim != ndim || (ndim && memcmp(t->sizes, sizes, (size_t)ndim * sizeof *sizes) != 0))
        return gems_decline(call, "the given result has another shape"), false;
    if (complex ? !call->host->is_complex(t, dtype) : dtype != GEMS_DTYPE_NONE && t->dtype != dtype)
        return gems_decline(call, "the given result has another dtype"), false;
    call->result[i] = *t;
    return true;
}

static gems_tensor *result(gems_call *call, unsigned i, gems_dtype dtype, bool complex, int ndim, const int64_t *sizes,
                           const int64_t *strides)
{
    call->has_result[i] = call->op->form == GEMS_FUNCTIONAL
                              ? call->host->make(call, i, dtype, complex, ndim, sizes, strides)
                              : take_given(call, i, dtype, complex, ndim, sizes);
    return call->has_result[i] ? &call->result[i] : NULL;
}

gems_tensor *gems_call_result(gems_call *call, unsigned i, gems_dtype dtype, int ndim, const int64_t *sizes,
                              const int64_t *strides)
{
    return result(call, i, dtype, false, ndim, sizes, strides);
}

gems_tensor *gems_call_result_complex(gems_call *call, unsigned i, gems_dtype part, int ndim, const int64_t *sizes,
                                      const int64_t *strides)
{
    return result(call, i, part, true, ndim, sizes, strides);
}

const gems_value *gems_call_arg(const gems_call *call, const char *name)
{
    static const gems_value absent = {.kind = GEMS_NONE};
    int i = gems_op_param(call->op, name);
    return i < 0 ? &absent : &call->arg[i];
}
