/* Matrix products: mm, bmm, addmm, addmv, mv, dot, vdot, addr, linear and their in-place and out forms.
 *
 * What a row of shim/ops.json says stands in kernels/blas/fields.
 *
 * Formula: result = beta * add + alpha * left @ right, summed in f32 for f16, bf16 and f32, in f64 for f64, modulo
 * 2^bits for integers, rounded once. All operands have one dtype; bool is the host's. */
#include "kernels/blas/blas.h"

#include <math.h>
#include <string.h>

/* The tensor given for the parameter that a field of the row names. */
static const gems_tensor *tensor_of(const gems_call *call, const char *field)
{
    const char *name = gems_op_attr(call->op, field);
    if (!name)
        return NULL;
    const gems_value *v = gems_call_arg(call, name);
    return v->kind == GEMS_TENSOR ? v->tensor : NULL;
}

/* A tensor read as matrices: which of its dimensions is the row, the column, the batch; -1 for none. */
static gems_matrix matrix(const gems_tensor *t, int row, int col, int batch)
{
    return (gems_matrix){t, row < 0 ? 0 : t->strides[row], col < 0 ? 0 : t->strides[col],
                         batch < 0 ? 0 : t->strides[batch]};
}

/* All dimensions of `t` but the last as one: its stride, or -1 if there is none. */
static int64_t leading_stride(const gems_tensor *t)
{
    int64_t stride = -1, span = 0;
    for (int i = t->ndim - 2; i >= 0; i--) {
        if (t->sizes[i] == 1)
            continue;
        if (stride < 0)
            stride = t->strides[i];
        else if (t->strides[i] != span)
            return -1;
        span = t->strides[i] * t->sizes[i];
    }
    return stride < 0 ? 0 : stride;
}

/* Reads left and right as matrices. NULL, or why not. Wrong shapes are declined: the host has the words for them. */
static const char *read_operands(gems_product *p, const char *shape, const gems_tensor *l, const gems_tensor *r)
{
    p->batch = 1;
    if (strcmp(shape, "mm") == 0 && l->ndim == 2 && r->ndim == 2) {
        p->m = l->sizes[0], p->k = l->sizes[1], p->n = r->sizes[1];
        p->a = matrix(l, 0, 1, -1), p->b = matrix(r, 0, 1, -1);
        return r->sizes[0] == p->k ? NULL : "shapes do not match";
    }
    if (strcmp(shape, "bmm") == 0 && l->ndim == 3 && r->ndim == 3) {
        p->batch = l->sizes[0], p->m = l->sizes[1], p->k = l->sizes[2], p->n = r->sizes[2];
        p->a = matrix(l, 1, 2, 0), p->b = matrix(r, 1, 2, 0);
        return r->sizes[0] == p->batch && r->sizes[1] == p->k ? NULL : "shapes do not match";
    }
    if (strcmp(shape, "mv") == 0 && l->ndim == 2 && r->ndim == 1) {
        p->m = l->sizes[0], p->k = l->sizes[1], p->n = 1;
        p->a = matrix(l, 0, 1, -1), p->b = matrix(r, 0, -1, -1);
        return r->sizes[0] == p->k ? NULL : "shapes do not match";
    }
    if (strcmp(shape, "dot") == 0 && l->ndim == 1 && r->ndim == 1) {
        p->m = p->n = 1, p->k = l->sizes[0];
        p->a = matrix(l, -1, 0, -1), p->b = matrix(r, 0, -1, -1);
        return r->sizes[0] == p->k ? NULL : "shapes do not match";
    }
    if (strcmp(shape, "outer") == 0 && l->ndim == 1 && r->ndim == 1) {
        p->m = l->sizes[0], p->k = 1, p->n = r->sizes[0];
        p->a = matrix(l, 0, -1, -1), p->b = matrix(r, -1, 0, -1);
        return NULL;
    }
    if (strcmp(shape, "linear") == 0 && l->ndim >= 1 && r->ndim == 2 && r->numel > 0) {
        p->n = r->sizes[0], p->k = r->sizes[1], p->m = l->numel / p->k;
        p->a = matrix(l, -1, l->ndim - 1, -1), p->b = matrix(r, 1, 0, -1);
        p->a.row = leading_stride(l);
        if (l->sizes[l->ndim - 1] != p->k)
            return "shapes do not match";
        return p->a.row >= 0 ? NULL : "rows without a common stride";
    }
    return "ranks do not match";
}

/* Reads the addend, broadcast to the shape of the result (`ndim` dimensions). */
static const char *read_addend(gems_product *p, const gems_tensor *t, int ndim, const int64_t *sizes)
{
    if (t->ndim > ndim)
        return "addend has more dimensions than the result";
    int64_t stride[3] = {0};
    for (int i = 0; i < t->ndim; i++) {
        int at = ndim - t->ndim + i;
        if (t->sizes[i] != 1 && t->sizes[i] != sizes[at])
            return "shapes do not match";
        stride[at] = t->sizes[i] == 1 ? 0 : t->strides[i];
    }
    /* One dimension is a column for mv: its n is 1. */
    p->d = ndim == 3   ? (gems_matrix){t, stride[1], stride[2], stride[0]}
           : ndim == 2 ? (gems_matrix){t, stride[0], stride[1], 0}
                       : (gems_matrix){t, stride[0], 0, 0};
    return NULL;
}

/* A factor; absent means 1. The host converts it to the dtype that it computes with, `as`, and complains of what that
 * does not hold; for integer products it truncates fractions: all that is left to it. */
static const char *read_factor(const gems_call *call, const char *name, gems_dtype dtype, gems_dtype as, double *f,
                               int64_t *i)
{
    const gems_value *v = gems_call_arg(call, name);
    bool integer = gems_dtypes[dtype].category == GEMS_CAT_INT;
    int64_t most = dtype == GEMS_U8 ? 255 : INT64_MAX >> (64 - 8 * gems_dtypes[dtype].size);
    *f = 1, *i = 1;
    switch (v->kind) {
    case GEMS_NONE:
        return NULL;
    case GEMS_SCALAR_INT:
    case GEMS_SCALAR_BOOL:
        *i = v->i, *f = (double)v->i;
        if (integer && (*i > most || *i < (dtype == GEMS_U8 ? -most : -most - 1)))
            return "factor outside the dtype";
        break;
    case GEMS_SCALAR_FLOAT:
        *f = v->f;
        break;
    default:
        return "factor is not a number";
    }
    if (integer)
        return v->kind == GEMS_SCALAR_FLOAT ? "floating-point factor of an integer product" : NULL;
    gems_element e;
    if (!gems_number_element((gems_number){.category = GEMS_CAT_FLOAT, .f = *f}, as, &e))
        return "factor outside the dtype";
    *f = gems_element_number(as, &e.bits).f;
    return NULL;
}

/* Both factors. Vectors are multiplied with factors of the operands' own dtype, matrices of 16 bits with f32. Where
 * there is nothing to sum, the host does not look at alpha and multiplies as it does elements. */
static const char *read_factors(const gems_call *call, const char *shape, gems_product *p)
{
    const bool vector = strcmp(shape, "mv") == 0 || strcmp(shape, "outer") == 0;
    const bool narrow = gems_dtypes[p->dtype].size == 2 && gems_dtypes[p->dtype].category == GEMS_CAT_FLOAT;
    const gems_dtype as = narrow && !vector ? GEMS_F32 : p->dtype;
    const bool empty = p->k == 0 && gems_dtypes[p->dtype].category == GEMS_CAT_FLOAT;
    const char *why = read_factor(call, "beta", p->dtype, empty ? p->dtype : as, &p->beta, &p->int_beta);
    p->alpha = 1, p->int_alpha = 1;
    if (!why && !empty)
        why = read_factor(call, "alpha", p->dtype, as, &p->alpha, &p->int_alpha);
    if (!why && narrow && strcmp(shape, "outer") == 0 &&
        (fabs(p->alpha) > 1 || fabs(p->beta) > 1 || fmod(p->alpha, 1) != 0 || fmod(p->beta, 1) != 0))
        return "the host rounds to 16 bits after each factor";
    if (!why && isfinite(p->alpha) && fabs(p->alpha) > (p->dtype == GEMS_F64 ? 0x1p512 : 0x1p64))
        return "alpha is so large that what overflows depends on the layout there";
    return why;
}

typedef struct result_shape {
    int ndim;
    int64_t sizes[8], strides[2];
    bool strided; /* strides are given: not contiguous */
} result_shape;

/* The whole call as a product and its result's shape. NULL, or why not. */
static const char *read_call(const gems_call *call, gems_product *p, result_shape *out)
{
    const gems_tensor *l = tensor_of(call, "left"), *r = tensor_of(call, "right"), *add = tensor_of(call, "add");
    const char *shape = gems_op_attr(call->op, "shape");
    if (!l || !r || !shape)
        return "operand missing";
    const gems_dtype_info *info = l->dtype < GEMS_DTYPE_COUNT ? &gems_dtypes[l->dtype] : NULL;
    if (!info || info->category == GEMS_CAT_BOOL)
        return "dtype";
    if (r->dtype != l->dtype || (add && add->dtype != l->dtype))
        return "operands of different dtypes";
    bool integer = info->category == GEMS_CAT_INT;
    p->dtype = l->dtype;

    const char *why = read_operands(p, shape, l, r);
    if (!why)
        why = read_factors(call, shape, p);
    if (why)
        return why;
    if (p->m > INT32_MAX - 1024 || p->n > INT32_MAX - 1024 || p->k > INT32_MAX - 1024 || p->batch > INT32_MAX)
        return "a size above 2^31";

    /* What the result looks like, and the matrix view of it that the addend is broadcast to. */
    bool linear = strcmp(shape, "linear") == 0, outer = strcmp(shape, "outer") == 0;
    const int64_t all[3] = {p->batch, p->m, p->n};
    int rank = linear || outer ? 2 : l->ndim == 3 ? 3 : l->ndim + r->ndim - 2;
    const int64_t *view = rank == 3 ? all : all + 1;
    out->strided = false;
    out->ndim = linear ? l->ndim : rank;
    if (out->ndim > 8)
        return "rank above 8";
    memcpy(out->sizes, linear ? l->sizes : view, sizeof(int64_t) * (size_t)out->ndim);
    if (linear)
        out->sizes[l->ndim - 1] = p->n;
    p->add = add && (integer ? p->int_beta != 0 : p->beta != 0);
    if (add && linear && (add->ndim != 1 || add->sizes[0] != p->n))
        return "bias is not a vector";
    if (add && (why = read_addend(p, add, rank, view)))
        return why;
    if (add && rank == 1 && p->m * p->k == 0 && (add->ndim == 0 || add->sizes[0] != p->m))
        return "the host does not broadcast here";

    /* As the host: a product times 0 is not looked at, so that its NaN does not spread; for f16 and bf16 that depends
     * on the size there. The outer product is an elementwise formula: it spreads, and its result is laid out as the
     * addend. */
    if (outer) {
        if (gems_call_arg(call, "alpha")->kind == GEMS_SCALAR_BOOL ||
            gems_call_arg(call, "beta")->kind == GEMS_SCALAR_BOOL)
            return "boolean factor: an error on the host";
        int64_t s0 = add ? p->d.row : 0, s1 = add ? p->d.col : 0;
        if (add && add->ndim == 2 && add->sizes[0] == p->m && add->sizes[1] == p->n)
            s0 = add->strides[0], s1 = add->strides[1];
        out->strided = s0 > 0 && s1 > 0 && (s0 < s1 || (s0 == s1 && p->n > p->m)) && p->m > 0 && p->n > 0;
        out->strides[0] = 1, out->strides[1] = p->m;
    } else if (!integer && !isfinite(p->alpha)) {
        return "alpha is not finite"; /* where it is applied, and so what is NaN, depends on the layout there */
    } else if (!integer && p->alpha == 0) {
        if (info->size == 2)
            return "f16 or bf16 times 0";
        p->k = 0;
    }
    return NULL;
}

/* What plan() found. */
typedef struct found {
    gems_product product;
    result_shape out;
} found;

static gems_status plan(gems_call *call)
{
    gems_product p;
    found *f = GEMS_PLAN(found, call);
    const char *why = read_call(call, &p, &f->out);
    if (why)
        return gems_decline(call, why);
    f->product = p;
    call->dtype = p.dtype;
    call->sizes.v[GEMS_SIZE_M] = p.m;
    call->sizes.v[GEMS_SIZE_N] = p.n;
    call->sizes.v[GEMS_SIZE_K] = p.k;
    call->sizes.v[GEMS_SIZE_BATCH] = p.batch;
    int64_t a = p.m * p.k, b = p.k * p.n, c = p.m * p.n;
    call->sizes.v[GEMS_SIZE_NUMEL] = gems_size_times(p.batch, a > b ? a : b);
    call->sizes.v[GEMS_SIZE_BYTES] = gems_size_bytes(gems_size_times(p.batch, gems_size_plus(a + b, c)), p.dtype);
    return GEMS_OK;
}

/* Whether C and D, which share memory, are the same elements in the same places. As matrices, which is why this is not
 * gems_tensor_overlap: a vector that is broadcast to the rows of a matrix of one row is the same, too. */
static bool same_places(const gems_product *p)
{
    return p->c.tensor->address == p->d.tensor->address && (p->m == 1 || p->c.row == p->d.row) &&
           (p->n == 1 || p->c.col == p->d.col) && (p->batch == 1 || p->c.batch == p->d.batch);
}

static gems_status prepare(gems_call *call, gems_work *work)
{
    gems_product p = GEMS_PLAN(found, call)->product;
    const result_shape out = GEMS_PLAN(found, call)->out;
    if (p.dtype == GEMS_F64 && !gems_device_get(work->lane)->f64)
        return gems_decline(call, "the device has no f64");

    gems_tensor *c = gems_call_result(call, 0, p.dtype, out.ndim, out.sizes, out.strided ? out.strides : NULL);
    if (!c)
        return GEMS_DECLINED;
    if (c->numel == 0)
        return GEMS_OK;
    if (out.ndim == 3)
        p.c = matrix(c, 1, 2, 0);
    else if (strcmp(gems_op_attr(call->op, "shape"), "linear") == 0)
        p.c = (gems_matrix){c, p.n, 1, 0};
    else
        p.c = matrix(c, out.ndim > 0 ? 0 : -1, out.ndim > 1 ? 1 : -1, -1);

    /* A block of C is written while others still read A, B and D; an element of D that is the same element of C is
     * safe. */
    if (gems_tensor_overlaps_itself(c))
        return gems_decline(call, "result overlaps itself");
    if (gems_tensor_overlap(c, p.a.tensor) != GEMS_APART || gems_tensor_overlap(c, p.b.tensor) != GEMS_APART)
        return gems_decline(call, "result shares memory with an operand");
    if (p.add && gems_tensor_overlap(c, p.d.tensor) != GEMS_APART && !same_places(&p))
        return gems_decline(call, "result shares memory with an operand");
    return gems_launch_variant(call, work, &p);
}

const gems_family gems_family_blas = {.name = "blas", .plan = plan, .prepare = prepare, .variants = gems_blas_variants};
