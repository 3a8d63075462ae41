/* The pointwise family: every operator whose row has an expression. plan() works out dtypes, shape and operands from
 * the row (plan.h); run() makes the results as the host would lay them out, binds the operands, and launches a kernel
 * generated for exactly this kind of call (launch.h).
 *
 * Parameters of table rules: "lane" (0 main, 1 small), "vec" (elements of a vector on a GPU), "run" (least elements of
 * a work-item on a CPU), "group" (work-items of a group on a GPU). */
#include "kernels/device/device.h"
#include "kernels/family.h"
#include "kernels/memory/host.h"
#include "kernels/pointwise/launch.h"
#include "kernels/tensor/layout.h"
#include "kernels/pointwise/plan.h"

#include <string.h>

/* From plan() to run(), which follows it in the same thread: larger than what gems_call has room for. */
static __thread pw_plan planned;

static gems_status plan(gems_call *call)
{
    return gems_pw_plan(call, &planned);
}

/* Integer division by zero is an error that the host raises. */
static gems_status check_divisor(gems_call *call, const pw_plan *p)
{
    for (int i = 0; i < call->op->nparams && p->row->divisor >> i; i++)
        if ((p->row->divisor >> i & 1) && gems_dtypes[p->compute].category != GEMS_CAT_FLOAT &&
            call->arg[i].kind == GEMS_TENSOR &&
            gems_has_zero(call->arg[i].tensor, gems_tensor_host(call->arg[i].tensor)))
            return gems_decline(call, "integer divisor with a zero");
    return GEMS_OK;
}

/* The host copies a large matrix that lies transposed as bytes, bools too; every other copy reads them. */
static bool copies_bytes(const gems_call *call, const pw_plan *p, const gems_tensor *to)
{
    const char *expr = gems_op_attr(call->op, "expr");
    unsigned i = gems_expr_name_count(p->expr) == 1 ? gems_expr_name_param(p->expr, 0) : GEMS_MAX_ARGS;
    if (i == GEMS_MAX_ARGS || to->dtype != GEMS_BOOL || to->ndim != 2 || strcmp(expr, call->op->params[i].name) != 0 ||
        call->arg[i].kind != GEMS_TENSOR)
        return false;
    const gems_tensor *from = call->arg[i].tensor;
    return from->dtype == GEMS_BOOL && from->ndim == 2 && from->strides[0] == 1 && from->sizes[0] > 1 &&
           from->strides[1] == from->sizes[0] && to->numel >= 60 * 60 && gems_tensor_is_contiguous(to);
}

static gems_status make_results(gems_call *call, const pw_plan *p, pw_launch *l)
{
    gems_strides strides;
    const int64_t *wanted = NULL;
    const pw_row *row = p->row;
    if (call->op->form == GEMS_FUNCTIONAL) {
        const gems_tensor *like = row->layout == PW_LIKE ? call->arg[row->like].tensor : NULL;
        int format = like ? 1 : 0; /* preserve; contiguous */
        if (row->memory_format >= 0 && call->arg[row->memory_format].kind == GEMS_MEMFMT)
            format = (int)call->arg[row->memory_format].i;
        if (format >= 2 && p->shape.ndim != format + 2)
            return gems_decline(call, "memory format does not fit the shape");
        if (format >= 2)
            gems_format_strides(format == 2 ? GEMS_CHANNELS_LAST : GEMS_CHANNELS_LAST_3D, p->shape.ndim, p->shape.size,
                                strides);
        else if (format == 0 && row->layout != PW_ITERATOR)
            gems_format_strides(GEMS_CONTIGUOUS, p->shape.ndim, p->shape.size, strides);
        else if (like)
            gems_preserved_strides(like, strides);
        else {
            gems_layout_input inputs[GEMS_MAX_ARGS];
            int n = 0;
            for (int k = row->first < 0 ? 0 : -1; k < call->op->nparams && n < GEMS_OPERANDS; k++) {
                int i = k < 0 ? row->first : k;
                const gems_tensor *t = call->arg[i].tensor;
                if (call->arg[i].kind == GEMS_TENSOR && (k < 0 || k != row->first))
                    inputs[n++] = (gems_layout_input){t, !(row->masks >> i & 1) && t->dtype != p->compute};
            }
            gems_iterator_strides(&p->shape, n, inputs, strides);
        }
        if (row->copies) {
            const gems_tensor *self = call->arg[0].tensor;
            if (format == 1)
                return gems_decline(call, "memory format");
            if (self->ndim == p->shape.ndim && self->dtype == p->result[0] &&
                (format == 0 ? gems_tensor_is_contiguous(self) : gems_tensor_is_dense(self)))
                return gems_decline(call, "nothing to copy");
        }
        wanted = strides;
    }
    for (unsigned r = 0; r < p->nresults; r++) {
        gems_dtype dtype = call->op->form == GEMS_FUNCTIONAL ? p->result[r] : GEMS_DTYPE_NONE;
        const gems_tensor *t = gems_call_result(call, r, dtype, p->shape.ndim, p->shape.size, wanted);
        if (!t)
            return GEMS_DECLINED;
        if (copies_bytes(call, p, t))
            return gems_decline(call, "transposed bools, of which the host copies the bytes");
        l->tensor[r] = t;
        l->spec.operand[r] = (gems_pw_operand){.dtype = (uint8_t)t->dtype, .place = GEMS_PW_WRITE};
    }
    l->spec.noperands = (uint8_t)p->nresults;
    return GEMS_OK;
}

/* The operand of one needed name: a number, an element of a result (in-place), or memory. */
static gems_status bind_operand(gems_call *call, const pw_plan *p, unsigned param, pw_launch *l, gems_pw_bind *bind)
{
    const gems_value *v = &call->arg[param];
    bool mask = p->row->masks >> param & 1;
    gems_dtype to = mask ? GEMS_BOOL : p->compute;
    unsigned n = l->spec.noperands;
    *bind = (gems_pw_bind){0, (uint8_t)n, (uint8_t)to, 0};
    if (v->kind == GEMS_TENSOR && v->tensor->ndim > 0) {
        for (unsigned r = 0; r < p->nresults; r++)
            if (call->op->form != GEMS_FUNCTIONAL && (v->tensor->host == l->tensor[r]->host ||
                                                      gems_tensor_overlap(l->tensor[r], v->tensor) == GEMS_IDENTICAL)) {
                l->spec.operand[r].place = GEMS_PW_UPDATE;
                bind->index = (uint8_t)r;
                return GEMS_OK;
            }
        for (unsigned k = p->nresults; k < n; k++)
            if (l->tensor[k] && l->tensor[k]->host == v->tensor->host) {
                bind->index = (uint8_t)k; /* x * x */
                return GEMS_OK;
            }
        l->tensor[n] = v->tensor;
        l->spec.operand[n] = (gems_pw_operand){.dtype = (uint8_t)v->tensor->dtype, .place = GEMS_PW_READ};
    } else {
        if (v->kind != GEMS_TENSOR && !gems_value_is_number(v))
            return gems_decline(call, "an argument that no kernel takes");
        gems_number number = v->kind == GEMS_TENSOR ? gems_element_number(v->tensor->dtype, gems_tensor_host(v->tensor))
                                                    : gems_value_number(v);
        /* What takes part in promotion is converted like a tensor, other numbers are taken as they are. */
        uint32_t whole = p->row->promotes >> param & 1 ? p->row->unrounded : p->opmath ? ~p->row->strict : 0;
        if (!gems_number_compute(number, to, whole >> param & 1, &l->number[n]))
            return gems_decline(call, "number does not fit the dtype");
        l->spec.operand[n] = (gems_pw_operand){.dtype = (uint8_t)to, .place = GEMS_PW_VALUE};
    }
    if (n + 1 == GEMS_OPERANDS)
        return gems_decline(call, "too many operands");
    l->spec.noperands++;
    return GEMS_OK;
}

static gems_status bind_operands(gems_call *call, const pw_plan *p, pw_launch *l)
{
    gems_pw_step *step = &l->spec.step[0];
    l->spec.nsteps = 1;
    step->expr_hash = gems_expr_hash(p->expr);
    step->facts = p->facts;
    step->compute = (uint8_t)p->compute;
    step->nresults = (uint8_t)p->nresults;
    for (unsigned r = 0; r < p->nresults; r++) {
        step->result[r] = (uint8_t)p->result[r];
        step->store[r] = (uint8_t)r;
    }
    for (unsigned i = 0; i < gems_expr_name_count(p->expr); i++) {
        if (!(p->needs >> i & 1))
            continue;
        gems_status status = bind_operand(call, p, gems_expr_name_param(p->expr, i), l, &step->bind[i]);
        if (status != GEMS_OK)
            return status;
    }
    return GEMS_OK;
}

static gems_status run(gems_call *call)
{
    const pw_plan *p = &planned;
    pw_launch l;
    memset(&l.spec, 0, sizeof l.spec);
    memset(l.tensor, 0, sizeof l.tensor);
    l.shape = &p->shape;
    l.expr[0] = p->expr;
    gems_status status = check_divisor(call, p);
    if (status != GEMS_OK || (status = make_results(call, p, &l)) != GEMS_OK ||
        (status = bind_operands(call, p, &l)) != GEMS_OK)
        return status;
    return gems_pw_launch(call, &l);
}

const gems_family gems_family_pointwise = {.name = "pointwise",
                                           .plan = plan,
                                           .run = run,
                                           .variants = "",
                                           .params = "lane[0..1] vec[2..16:2] run[64..1073741824] group[1..1024]"};
