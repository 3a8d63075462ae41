/* From the arguments of a pointwise call to its plan. */
#include "kernels/pointwise/plan.h"
#include "kernels/host.h"
#include "kernels/tensor/layout.h"

#include <string.h>

static double number_of(const gems_value *v)
{
    return gems_number_double(gems_value_number(v));
}

static gems_status look_at_arguments(gems_call *call, pw_plan *p, gems_dtype default_dtype)
{
    const pw_row *row = p->row;
    gems_promote promote = GEMS_PROMOTE_START;
    gems_dtype same = GEMS_DTYPE_NONE;
    bool floating = row->floating == 0;
    for (int i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        uint32_t bit = 1u << i;
        if (v->kind == GEMS_OPAQUE)
            return gems_decline(call, "an argument that no kernel takes");
        if ((row->no_bool & bit) &&
            (v->kind == GEMS_SCALAR_BOOL || (v->kind == GEMS_TENSOR && v->tensor->dtype == GEMS_BOOL)))
            return gems_decline(call, "bool where the operator has none");
        if (v->kind == GEMS_TENSOR) {
            const gems_tensor *t = v->tensor;
            if (t->dtype == GEMS_DTYPE_NONE)
                return gems_decline(call, "dtype");
            bool given = call->op->form == GEMS_OUT && (row->results & bit); /* has no say in the shape */
            if (!given && !gems_shape_broadcast(&p->shape, t->ndim, t->sizes))
                return gems_decline(call, "shapes do not broadcast, or more than 16 dimensions");
            if (row->promotes & bit)
                gems_promote_tensor(&promote, t, default_dtype);
            if ((row->masks & bit) && t->dtype != GEMS_BOOL)
                return gems_decline(call, "mask is not bool");
            if ((row->zero_dim & bit) && t->ndim != 0)
                return gems_decline(call, "value has dimensions");
            if (row->floating & bit)
                floating |= gems_dtypes[t->dtype].category == GEMS_CAT_FLOAT;
            if (row->same & bit) {
                if (same != GEMS_DTYPE_NONE && same != t->dtype)
                    return gems_decline(call, "dtypes differ");
                same = t->dtype;
            }
        } else if (gems_value_is_number(v)) {
            if (row->promotes & bit)
                gems_promote_number(&promote, gems_value_number(v).category, default_dtype);
            if (((row->nonzero & bit) && number_of(v) == 0) || ((row->nonnegative & bit) && !(number_of(v) >= 0)))
                return gems_decline(call, "number out of the operator's domain");
        } else if (v->kind == GEMS_DTYPE && (row->promotes & bit)) {
            p->common = v->dtype;
        }
    }
    if (p->common == GEMS_DTYPE_NONE)
        p->common = gems_promote_common(&promote);
    if (p->common == GEMS_DTYPE_NONE || !(row->dtypes >> p->common & 1) || !floating)
        return gems_decline(call, "dtype");
    if (p->shape.numel == 0)
        return gems_decline(call, "empty");
    return GEMS_OK;
}

/* The texts of "one_of", numbers that integers or bool cannot be computed with. */
static gems_status check_options(gems_call *call, const pw_plan *p)
{
    const pw_row *row = p->row;
    if (row->one_of >= 0 && call->arg[row->one_of].kind == GEMS_STR) {
        const gems_value *v = &call->arg[row->one_of];
        const char *at = row->texts;
        size_t n = 0;
        for (; *at; at += n) {
            at += strspn(at, " ");
            n = strcspn(at, " ");
            if (n == v->str.n && memcmp(at, v->str.s, n) == 0)
                break;
        }
        if (!*at)
            return gems_decline(call, "unknown mode");
    }
    for (int i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        uint8_t category = gems_dtypes[p->compute].category;
        bool integers = category != GEMS_CAT_FLOAT;
        if (integers && (row->divisor >> i & 1) && gems_value_is_number(v) && number_of(v) == 0)
            return gems_decline(call, "integer divisor is zero");
        if (call->op->params[i].type == GEMS_T_OPT_BOOL && v->kind == GEMS_SCALAR_BOOL && v->i)
            return gems_decline(call, "pinned memory");
        if (!gems_value_is_number(v) || call->op->params[i].type == GEMS_T_BOOL ||
            call->op->params[i].type == GEMS_T_OPT_BOOL)
            continue;
        if (integers && (row->exponent >> i & 1) && number_of(v) < 0)
            return gems_decline(call, "negative exponent of an integer");
        if (integers && (row->negated >> i & 1) && v->kind == GEMS_SCALAR_INT && gems_dtypes[p->compute].size < 8 &&
            v->i == -(INT64_C(1) << (8 * gems_dtypes[p->compute].size - 1)))
            return gems_decline(call, "a number whose negative does not fit the dtype");
        if ((row->strict >> i & 1) &&
            (v->kind == GEMS_SCALAR_FLOAT ? integers : v->kind == GEMS_SCALAR_BOOL && category != GEMS_CAT_BOOL))
            return gems_decline(call, "a number of another kind");
    }
    return GEMS_OK;
}

static void answer_facts(const gems_call *call, pw_plan *p)
{
    for (unsigned i = 0; i < gems_expr_fact_count(p->expr); i++) {
        const gems_expr_fact *f = gems_expr_fact_at(p->expr, i);
        const gems_value *v = &call->arg[gems_expr_name_param(p->expr, f->name)];
        bool yes = f->kind == 'h'   ? v->kind != GEMS_NONE
                   : f->kind == 'o' ? v->kind != GEMS_TENSOR || v->tensor->numel == 1
                   : f->kind == 's'
                       ? v->kind == GEMS_STR && v->str.n == f->length && !memcmp(v->str.s, f->text, f->length)
                       : gems_value_is_number(v) && number_of(v) == f->number;
        p->facts |= (uint32_t)yes << i;
    }
    p->needs = gems_expr_needs(p->expr, p->facts);
}

/* dtype of new results, from the row's "out" or from promotion. */
static gems_dtype declared_dtype(const gems_call *call, const pw_row *row, gems_dtype promoted)
{
    if (row->out_dtype != GEMS_DTYPE_NONE)
        return row->out_dtype;
    for (int pass = 0; pass < 2; pass++) /* a dtype given outranks a tensor's */
        for (int i = 0; i < call->op->nparams; i++) {
            const gems_value *v = &call->arg[i];
            if (!(row->out_params >> i & 1))
                continue;
            if (pass == 0 && v->kind == GEMS_DTYPE)
                return v->dtype;
            if (pass == 1 && v->kind == GEMS_TENSOR)
                return v->tensor->dtype;
        }
    return promoted;
}

bool gems_pw_has_shape(const pw_plan *p, const gems_tensor *t)
{
    return t->ndim == p->shape.ndim && memcmp(t->sizes, p->shape.size, (size_t)t->ndim * sizeof *t->sizes) == 0;
}

/* In-place and out forms: is the given tensor one that the result may simply be written to? */
static gems_status check_written(gems_call *call, const pw_plan *p)
{
    for (int i = 0, r = 0; i < call->op->nparams; i++) {
        if (!(p->row->results >> i & 1))
            continue;
        const gems_value *v = &call->arg[i];
        if (v->kind != GEMS_TENSOR)
            return gems_decline(call, "no result tensor");
        const gems_tensor *t = v->tensor;
        if (!gems_pw_has_shape(p, t))
            return gems_decline(call, "result of another shape");
        gems_dtype computed = p->result[r++];
        if (p->row->exact ? computed != t->dtype : !gems_promote_can_cast(computed, t->dtype))
            return gems_decline(call, "result dtype cannot be cast");
        if (gems_tensor_overlaps_itself(t))
            return gems_decline(call, "result overlaps itself");
        if (p->row->layout == PW_CONTIGUOUS && call->op->form == GEMS_OUT && !gems_tensor_is_contiguous(t))
            return gems_decline(call, "result has other strides");
        for (int d = 0; p->row->same_strides && d < t->ndim; d++)
            if (t->sizes[d] > 1 &&
                (call->arg[0].tensor->ndim != t->ndim || t->strides[d] != call->arg[0].tensor->strides[d]))
                return gems_decline(call, "result has other strides");
        for (int k = 0; k < call->op->nparams; k++) {
            const gems_value *w = &call->arg[k];
            if (k == i || w->kind != GEMS_TENSOR)
                continue;
            gems_overlap o = gems_tensor_overlap(t, w->tensor);
            if (o == GEMS_OVERLAP || (o == GEMS_IDENTICAL && t->dtype != w->tensor->dtype) ||
                (o != GEMS_APART && (p->row->results >> k & 1)))
                return gems_decline(call, "result overlaps an argument");
        }
    }
    return GEMS_OK;
}

static void name_sizes(gems_call *call, const pw_plan *p)
{
    int64_t bytes = 0;
    for (unsigned r = 0; r < p->nresults; r++)
        bytes = gems_size_plus(bytes, gems_size_bytes(p->shape.numel, p->result[r]));
    for (unsigned i = 0; i < gems_expr_name_count(p->expr); i++) {
        const gems_value *v = &call->arg[gems_expr_name_param(p->expr, i)];
        if ((p->needs >> i & 1) && v->kind == GEMS_TENSOR)
            bytes = gems_size_plus(bytes, gems_size_bytes(v->tensor->numel, v->tensor->dtype));
    }
    call->dtype = p->compute;
    call->sizes.v[GEMS_SIZE_NUMEL] = p->shape.numel;
    call->sizes.v[GEMS_SIZE_BYTES] = bytes;
}

gems_status gems_pw_plan(gems_call *call, pw_plan *p)
{
    memset(p, 0, sizeof *p);
    p->row = pw_row_get(call->op);
    if (!p->row)
        return gems_fail(call, "out of memory");
    p->common = GEMS_DTYPE_NONE;
    p->shape.numel = 1;
    gems_dtype default_dtype = call->host->default_dtype();
    gems_status status = look_at_arguments(call, p, default_dtype);
    if (status != GEMS_OK)
        return status;
    const pw_row *row = p->row;
    bool without = row->without >= 0 && call->arg[row->without].kind == GEMS_NONE;
    gems_promoted promoted =
        gems_promote_apply((gems_promotion)(without ? row->kind_without : row->kind), p->common, default_dtype);
    p->compute = promoted.compute;
    p->opmath = promoted.opmath;
    p->nresults = call->op->nresults ? call->op->nresults : 1;
    for (unsigned r = 0; r < p->nresults; r++)
        p->result[r] = declared_dtype(call, row, promoted.result);
    if ((status = check_options(call, p)) != GEMS_OK)
        return status;
    p->expr = row->expr[gems_dtypes[p->compute].category];
    answer_facts(call, p);
    if (call->op->form != GEMS_FUNCTIONAL && (status = check_written(call, p)) != GEMS_OK)
        return status;
    name_sizes(call, p);
    return GEMS_OK;
}
