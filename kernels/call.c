/* The parts of call.h that need neither the host nor a device: dtypes and their promotion, questions about tensors,
 * looking up operators, giving reasons, the results of a call. */
#include "kernels/host.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const gems_dtype_info gems_dtypes[GEMS_DTYPE_COUNT] = {
    [GEMS_F16] = {"f16", "half", "float", 2, GEMS_CAT_FLOAT},
    [GEMS_BF16] = {"bf16", "ushort", "float", 2, GEMS_CAT_FLOAT},
    [GEMS_F32] = {"f32", "float", "float", 4, GEMS_CAT_FLOAT},
    [GEMS_F64] = {"f64", "double", "double", 8, GEMS_CAT_FLOAT},
    [GEMS_I8] = {"i8", "char", "char", 1, GEMS_CAT_INT},
    [GEMS_U8] = {"u8", "uchar", "uchar", 1, GEMS_CAT_INT},
    [GEMS_I16] = {"i16", "short", "short", 2, GEMS_CAT_INT},
    [GEMS_I32] = {"i32", "int", "int", 4, GEMS_CAT_INT},
    [GEMS_I64] = {"i64", "long", "long", 8, GEMS_CAT_INT},
    [GEMS_BOOL] = {"bool", "uchar", "uchar", 1, GEMS_CAT_BOOL},
};

const char *const gems_size_names[GEMS_SIZE_COUNT] = {
    [GEMS_SIZE_NUMEL] = "numel", [GEMS_SIZE_ROWS] = "rows",   [GEMS_SIZE_COLS] = "cols",
    [GEMS_SIZE_M] = "m",         [GEMS_SIZE_N] = "n",         [GEMS_SIZE_K] = "k",
    [GEMS_SIZE_BATCH] = "batch", [GEMS_SIZE_INNER] = "inner", [GEMS_SIZE_BYTES] = "bytes",
};

gems_dtype gems_dtype_find(const char *name)
{
    for (int d = 0; d < GEMS_DTYPE_COUNT; d++)
        if (strcmp(gems_dtypes[d].name, name) == 0)
            return (gems_dtype)d;
    return GEMS_DTYPE_NONE;
}

/* The higher category wins; within one, the wider type. The two exceptions are pairs of equal width where neither holds
 * the other's values: both give the next wider type. */
gems_dtype gems_promote_types(gems_dtype a, gems_dtype b)
{
    if (a >= GEMS_DTYPE_COUNT || b >= GEMS_DTYPE_COUNT)
        return GEMS_DTYPE_NONE;
    if (a == b)
        return a;
    const gems_dtype_info *x = &gems_dtypes[a], *y = &gems_dtypes[b];
    if (x->category != y->category)
        return x->category > y->category ? a : b;
    if (x->size != y->size)
        return x->size > y->size ? a : b;
    return x->category == GEMS_CAT_FLOAT ? GEMS_F32 : GEMS_I16; /* f16 with bf16, i8 with u8 */
}

static double float_of_half(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

static float float_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

gems_value gems_tensor_element(const gems_tensor *t, int64_t offset)
{
    const void *at = (const char *)t->data + offset * gems_dtypes[t->dtype].size;
    gems_value v = {.kind = GEMS_SCALAR_INT};
    switch (t->dtype) {
    case GEMS_F16:
        v.f = float_of_half(*(const uint16_t *)at);
        break;
    case GEMS_BF16:
        v.f = float_of_bits((uint32_t) * (const uint16_t *)at << 16);
        break;
    case GEMS_F32:
        v.f = *(const float *)at;
        break;
    case GEMS_F64:
        v.f = *(const double *)at;
        break;
    case GEMS_I8:
        v.i = *(const int8_t *)at;
        break;
    case GEMS_I16:
        v.i = *(const int16_t *)at;
        break;
    case GEMS_I32:
        v.i = *(const int32_t *)at;
        break;
    case GEMS_I64:
        v.i = *(const int64_t *)at;
        break;
    case GEMS_BOOL:
        v.i = *(const uint8_t *)at != 0;
        v.kind = GEMS_SCALAR_BOOL;
        break;
    default:
        v.i = *(const uint8_t *)at;
        break;
    }
    if (gems_dtypes[t->dtype].category == GEMS_CAT_FLOAT)
        v.kind = GEMS_SCALAR_FLOAT;
    return v;
}

bool gems_tensor_is_contiguous(const gems_tensor *t)
{
    if (t->numel == 0)
        return true;
    int64_t expected = 1;
    for (int d = t->ndim - 1; d >= 0; d--) {
        if (t->sizes[d] == 1)
            continue;
        if (t->strides[d] != expected)
            return false;
        expected *= t->sizes[d];
    }
    return true;
}

/* Walks the dimensions from the smallest stride up; each must start where the block of those before it ends. */
bool gems_tensor_is_dense(const gems_tensor *t)
{
    if (t->numel <= 1)
        return true;
    for (int64_t block = 1; block < t->numel;) {
        int next = -1;
        for (int d = 0; d < t->ndim && next < 0; d++)
            if (t->sizes[d] > 1 && t->strides[d] == block)
                next = d;
        if (next < 0)
            return false;
        block *= t->sizes[next];
    }
    return true;
}

int64_t gems_tensor_span(const gems_tensor *t)
{
    if (t->numel == 0)
        return 0;
    int64_t last = 0;
    for (int d = 0; d < t->ndim; d++)
        last += (t->sizes[d] - 1) * t->strides[d];
    return last + 1;
}

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
