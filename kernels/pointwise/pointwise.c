/* The pointwise family: every operator whose row has an expression. plan() works out dtypes, shape and operands from
 * the row (plan.h); prepare() makes the results as the host would lay them out, and writes the recipe of a kernel for
 * exactly this kind of call (recipe.h).
 *
 * Parameters: "vec" (elements of a vector on a GPU), "run" (least elements of a work-item on a CPU), "group"
 * (work-items of a group on a GPU). */
#include "kernels/device/device.h"
#include "kernels/family.h"
#include "kernels/memory/host.h"
#include "kernels/pointwise/recipe.h"
#include "kernels/tensor/layout.h"
#include "kernels/pointwise/plan.h"

#include <string.h>

static gems_status plan(gems_call *call)
{
    return gems_pw_plan(call, GEMS_PLAN(pw_plan, call));
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

/* Whether the host makes a tensor of a number, which then has a say in how its iterator lays the result out. */
static bool is_tensor_there(const gems_call *call, int i)
{
    const char *name = call->op->params[i].name;
    return gems_value_is_number(&call->arg[i]) && (strcmp(name, "self") == 0 || strcmp(name, "other") == 0);
}

static gems_status make_results(gems_call *call, const pw_plan *p, gems_tensor **results)
{
    static const int64_t none[1];
    static const gems_tensor number = {.sizes = none, .strides = none, .numel = 1};
    gems_strides strides;
    const int64_t *wanted = NULL;
    const pw_row *row = p->row;
    if (call->op->form == GEMS_FUNCTIONAL) {
        unsigned layout = row->layout;
        if (layout == PW_INTEGERS_LIKE || layout == PW_TWICE)
            layout = gems_dtypes[p->compute].category == GEMS_CAT_FLOAT ? PW_ITERATOR : PW_LIKE;
        const gems_tensor *like = layout == PW_LIKE ? call->arg[row->like].tensor : NULL;
        if (like && !gems_pw_has_shape(p, like))
            return gems_decline(call, "shapes that the host makes no such result of");
        int format = like ? 1 : 0; /* preserve; contiguous */
        if (row->memory_format >= 0 && call->arg[row->memory_format].kind == GEMS_MEMFMT)
            format = (int)call->arg[row->memory_format].i;
        if (format >= 2 && p->shape.ndim != format + 2)
            return gems_decline(call, "memory format does not fit the shape");
        if (format >= 2)
            gems_format_strides(format == 2 ? GEMS_CHANNELS_LAST : GEMS_CHANNELS_LAST_3D, p->shape.ndim, p->shape.size,
                                strides);
        else if (format == 0 && layout != PW_ITERATOR)
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
                else if (is_tensor_there(call, i))
                    inputs[n++] = (gems_layout_input){&number, false};
            }
            gems_iterator_strides(&p->shape, n, inputs, strides);
            if (row->layout == PW_TWICE) {
                gems_strides once;
                memcpy(once, strides, sizeof once);
                const gems_tensor first = {
                    .sizes = p->shape.size, .strides = once, .numel = p->shape.numel, .ndim = p->shape.ndim};
                gems_iterator_strides(&p->shape, 1, &(gems_layout_input){&first, false}, strides);
            }
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
        gems_tensor *t = gems_call_result(call, r, dtype, p->shape.ndim, p->shape.size, wanted);
        if (!t)
            return GEMS_DECLINED;
        if (copies_bytes(call, p, t))
            return gems_decline(call, "transposed bools, of which the host copies the bytes");
        results[r] = t;
    }
    return GEMS_OK;
}

/* A call on its way into a recipe. */
typedef struct binding {
    gems_call *call;
    gems_work *work;
    const pw_plan *plan;
    pw_recipe *recipe;
    gems_tensor *result[GEMS_EXPR_RESULTS];
    const gems_tensor *memory[GEMS_OPERANDS]; /* of operands that are only read */
} binding;

/* The result that the tensor is (in-place), or an operand that it is already (x * x); -1: none. */
static int known_operand(const binding *b, const gems_tensor *t)
{
    for (unsigned r = 0; r < b->plan->nresults && b->call->op->form != GEMS_FUNCTIONAL; r++)
        if (b->result[r] && (t->host == b->result[r]->host || gems_tensor_overlap(b->result[r], t) == GEMS_IDENTICAL)) {
            pw_recipe_update(b->work, b->recipe, (int)r);
            return (int)r;
        }
    for (unsigned k = b->plan->nresults; k < b->recipe->spec.noperands; k++)
        if (b->memory[k] && b->memory[k]->host == t->host)
            return (int)k;
    return -1;
}

/* The operand of one needed name: a number, a result, or other memory. */
static gems_status bind_operand(binding *b, unsigned param, gems_pw_bind *bind)
{
    const pw_plan *p = b->plan;
    const gems_value *v = &b->call->arg[param];
    gems_dtype to = p->row->masks >> param & 1 ? GEMS_BOOL : p->compute;
    int operand = -1;
    bool held = false;
    if (v->kind == GEMS_TENSOR && v->tensor->ndim > 0) {
        operand = known_operand(b, v->tensor);
        if (operand < 0 && (operand = pw_recipe_memory(b->work, b->recipe, v->tensor, GEMS_PW_READ)) >= 0)
            b->memory[operand] = v->tensor;
    } else {
        if (v->kind != GEMS_TENSOR && !gems_value_is_number(v))
            return gems_decline(b->call, "an argument that no kernel takes");
        gems_number number = v->kind == GEMS_TENSOR ? gems_element_number(v->tensor->dtype, gems_tensor_host(v->tensor))
                                                    : gems_value_number(v);
        gems_element element;
        /* What takes part in promotion is converted like a tensor, other numbers are taken as they are. */
        uint32_t whole = p->row->promotes >> param & 1 ? p->row->unrounded : p->opmath ? ~p->row->strict : 0;
        if (!gems_number_compute(number, to, whole >> param & 1, &element))
            return gems_decline(b->call, "number does not fit the dtype");
        operand = pw_recipe_value(b->recipe, to, element);
        held = !(whole >> param & 1);
    }
    *bind = (gems_pw_bind){0, (uint8_t)operand, (uint8_t)to, held};
    return operand < 0 ? gems_decline(b->call, "too many operands") : GEMS_OK;
}

static gems_status bind_operands(binding *b)
{
    const pw_plan *p = b->plan;
    gems_pw_step *step = &b->recipe->spec.step[0];
    b->recipe->spec.nsteps = 1;
    step->expr = gems_expr_first(p->expr);
    step->facts = p->facts;
    step->compute = (uint8_t)p->compute;
    step->nresults = (uint8_t)p->nresults;
    for (unsigned r = 0; r < p->nresults; r++) {
        step->result[r] = (uint8_t)p->result[r];
        step->store[r] = (uint8_t)pw_recipe_memory(b->work, b->recipe, b->result[r], GEMS_PW_WRITE);
    }
    memset(b->memory, 0, sizeof b->memory);
    for (unsigned i = 0; i < gems_expr_name_count(p->expr); i++) {
        if (!(p->needs >> i & 1))
            continue;
        gems_status status = bind_operand(b, gems_expr_name_param(p->expr, i), &step->bind[i]);
        if (status != GEMS_OK)
            return status;
    }
    return GEMS_OK;
}

static gems_status prepare(gems_call *call, gems_work *work)
{
    const pw_plan *p = GEMS_PLAN(pw_plan, call);
    binding b = {.call = call, .work = work, .plan = p};
    gems_status status = check_divisor(call, p);
    if (status != GEMS_OK || (status = make_results(call, p, b.result)) != GEMS_OK)
        return status;
    b.recipe = pw_recipe_for(work, &p->shape, call);
    if (b.recipe && (status = bind_operands(&b)) == GEMS_OK)
        status = pw_recipe_end(call, work, b.recipe);
    return status;
}

const gems_family gems_family_pointwise = {.name = "pointwise",
                                           .plan = plan,
                                           .prepare = prepare,
                                           .variants = pw_variants,
                                           .chains = true,
                                           .small_numel = 32768};
