/* The pointwise family: every operator whose row has an expression. plan() works out dtypes, shape and operands from
 * the row; run() makes the results as the host would lay them out, picks the loops, and launches a kernel generated for
 * exactly this kind of call (codegen/pointwise.h).
 *
 * Parameters of table rules: "lane" (0 main, 1 small), "vec" (elements of a vector on a GPU), "run" (least elements of
 * a work-item on a CPU), "group" (work-items of a group on a GPU). */
#include "codegen/pointwise.h"
#include "kernels/device/device.h"
#include "kernels/family.h"
#include "kernels/pointwise/layout.h"
#include "kernels/pointwise/row.h"
#include "tune/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_NUMEL 32768 /* below it, a launch on the threaded device costs more than it brings (PoCL: 70 us) */

/* What a call amounts to. Operands: the results first, then the inputs whose values are needed. */
typedef struct pw_plan {
    const pw_row *row;
    const gems_expr *expr;
    uint32_t facts, needs;
    gems_dtype common, compute;
    bool opmath;
    unsigned nresults;
    gems_dtype result[GEMS_EXPR_RESULTS]; /* as computed; existing results may have others */
    gems_shape shape;
} pw_plan;

/* ---- plan ------------------------------------------------------------------------------------------------------- */

static bool is_number(const gems_value *v)
{
    return v->kind == GEMS_SCALAR_FLOAT || v->kind == GEMS_SCALAR_INT || v->kind == GEMS_SCALAR_BOOL;
}

static double number_of(const gems_value *v)
{
    return v->kind == GEMS_SCALAR_FLOAT ? v->f : (double)v->i;
}

static gems_category number_category(const gems_value *v)
{
    return v->kind == GEMS_SCALAR_FLOAT ? GEMS_CAT_FLOAT : v->kind == GEMS_SCALAR_INT ? GEMS_CAT_INT : GEMS_CAT_BOOL;
}

/* Looks at every argument once: what no kernel takes, dtypes for promotion, the broadcast shape. */
static gems_status look_at_arguments(gems_call *call, pw_plan *p, gems_dtype default_dtype)
{
    const pw_row *row = p->row;
    gems_promote promote = GEMS_PROMOTE_START;
    gems_dtype same = GEMS_DTYPE_NONE;
    for (int i = 0; i < call->op->nparams; i++) {
        const gems_value *v = &call->arg[i];
        uint32_t bit = 1u << i;
        if (v->kind == GEMS_OPAQUE)
            return gems_decline(call, "an argument that no kernel takes");
        if (v->kind == GEMS_TENSOR) {
            const gems_tensor *t = v->tensor;
            if (t->dtype == GEMS_DTYPE_NONE)
                return gems_decline(call, "dtype");
            if (!gems_shape_broadcast(&p->shape, t->ndim, t->sizes))
                return gems_decline(call, "shapes do not broadcast, or more than 16 dimensions");
            if (row->promotes & bit)
                gems_promote_tensor(&promote, t, default_dtype);
            if ((row->masks & bit) && t->dtype != GEMS_BOOL)
                return gems_decline(call, "mask is not bool");
            if ((row->zero_dim & bit) && t->ndim != 0)
                return gems_decline(call, "value has dimensions");
            if (row->same & bit) {
                if (same != GEMS_DTYPE_NONE && same != t->dtype)
                    return gems_decline(call, "dtypes differ");
                same = t->dtype;
            }
        } else if (is_number(v)) {
            if (row->promotes & bit)
                gems_promote_number(&promote, number_category(v), default_dtype);
            if (((row->nonzero & bit) && number_of(v) == 0) || ((row->nonnegative & bit) && !(number_of(v) >= 0)))
                return gems_decline(call, "number out of the operator's domain");
        } else if (v->kind == GEMS_DTYPE && (row->promotes & bit)) {
            p->common = v->dtype;
        }
    }
    if (p->common == GEMS_DTYPE_NONE)
        p->common = gems_promote_common(&promote);
    if (p->common == GEMS_DTYPE_NONE || !(row->dtypes >> p->common & 1))
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
        bool wrapped = v->kind == GEMS_TENSOR && v->tensor->ndim == 0; /* looked at in run() */
        if (integers && (row->divisor >> i & 1) && !wrapped && (!is_number(v) || number_of(v) == 0))
            return gems_decline(call, "integer divisor that may be zero");
        if (call->op->params[i].type == GEMS_T_OPT_BOOL && v->kind == GEMS_SCALAR_BOOL && v->i)
            return gems_decline(call, "pinned memory");
        if (!is_number(v) || call->op->params[i].type == GEMS_T_BOOL || call->op->params[i].type == GEMS_T_OPT_BOOL)
            continue;
        if (integers && (row->exponent >> i & 1) && number_of(v) < 0)
            return gems_decline(call, "negative exponent of an integer");
        if (!(row->promotes >> i & 1) && integers && v->kind == GEMS_SCALAR_FLOAT)
            return gems_decline(call, "fraction among integers");
        if (!(row->promotes >> i & 1) && category != GEMS_CAT_BOOL && v->kind == GEMS_SCALAR_BOOL)
            return gems_decline(call, "bool among numbers");
    }
    return GEMS_OK;
}

static void answer_facts(const gems_call *call, pw_plan *p)
{
    for (unsigned i = 0; i < gems_expr_fact_count(p->expr); i++) {
        const gems_expr_fact *f = gems_expr_fact_at(p->expr, i);
        const gems_value *v = &call->arg[gems_expr_name_param(p->expr, f->name)];
        bool yes = f->kind == 'h' ? v->kind != GEMS_NONE
                   : f->kind == 's'
                       ? v->kind == GEMS_STR && v->str.n == f->length && !memcmp(v->str.s, f->text, f->length)
                       : is_number(v) && number_of(v) == f->number;
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
        if (t->ndim != p->shape.ndim || memcmp(t->sizes, p->shape.size, (size_t)t->ndim * sizeof *t->sizes) != 0)
            return gems_decline(call, "result of another shape");
        if (!gems_promote_can_cast(p->result[r++], t->dtype))
            return gems_decline(call, "result dtype cannot be cast");
        if (gems_overlaps_itself(t))
            return gems_decline(call, "result overlaps itself");
        for (int k = 0; k < call->op->nparams; k++) {
            const gems_value *w = &call->arg[k];
            if (k == i || w->kind != GEMS_TENSOR)
                continue;
            gems_overlap o = gems_overlap_of(t, w->tensor);
            if (o == GEMS_OVERLAP || (o == GEMS_IDENTICAL && t->dtype != w->tensor->dtype) ||
                (o != GEMS_APART && (p->row->results >> k & 1)))
                return gems_decline(call, "result overlaps an argument");
        }
    }
    return GEMS_OK;
}

static gems_status make_plan(gems_call *call, pw_plan *p)
{
    memset(p, 0, sizeof *p);
    p->row = pw_row_get(call->op);
    if (!p->row)
        return gems_decline(call, "row is wrong");
    p->common = GEMS_DTYPE_NONE;
    p->shape.numel = 1;
    gems_dtype default_dtype = gems_host_default_dtype();
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
    return call->op->form == GEMS_FUNCTIONAL ? GEMS_OK : check_written(call, p);
}

static gems_status plan(gems_call *call)
{
    pw_plan p;
    gems_status status = make_plan(call, &p);
    if (status != GEMS_OK)
        return status;
    int64_t bytes = 0;
    for (unsigned r = 0; r < p.nresults; r++)
        bytes += p.shape.numel * gems_dtypes[p.result[r]].size;
    for (unsigned i = 0; i < gems_expr_name_count(p.expr); i++) {
        const gems_value *v = &call->arg[gems_expr_name_param(p.expr, i)];
        if ((p.needs >> i & 1) && v->kind == GEMS_TENSOR)
            bytes += v->tensor->numel * gems_dtypes[v->tensor->dtype].size;
    }
    call->dtype = p.compute;
    call->sizes.v[GEMS_SIZE_NUMEL] = p.shape.numel;
    call->sizes.v[GEMS_SIZE_BYTES] = bytes;
    return GEMS_OK;
}

/* ---- numbers passed by value ------------------------------------------------------------------------------------ */

typedef union pw_number {
    float f32;
    double f64;
    int8_t i8;
    uint8_t u8;
    int16_t i16;
    int32_t i32;
    int64_t i64;
} pw_number;

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

/* The one element of a 0-dim tensor as a number. */
static gems_value read_element(const gems_tensor *t)
{
    const void *at = t->data;
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

/* Rounds to a float with `bits` of significand (the hidden one counted) and exponents from `least` up: to even. */
static double round_to(double v, int bits, int least)
{
    int e;
    if (v == 0 || !isfinite(v))
        return v;
    frexp(v, &e);
    int drop = (e - bits < least ? least : e - bits);
    return ldexp(nearbyint(ldexp(v, -drop)), drop);
}

/* Largest finite value, bits of the significand, exponent of the smallest subnormal; by dtype. */
static const struct {
    double max;
    int bits, least;
} floats[] = {
    [GEMS_F16] = {65504.0, 11, -24}, [GEMS_BF16] = {0x1.fep127, 8, -133}, [GEMS_F32] = {0x1.fffffep127, 24, -149}};

/* v as a value of the dtype computed with, unrounded if `opmath`. False: the host has its own view of such a number
 * (it overflows, or a fraction would become an integer). */
static bool convert_number(const gems_value *v, gems_dtype to, bool opmath, pw_number *out)
{
    const gems_dtype_info *info = &gems_dtypes[to];
    if (info->category == GEMS_CAT_FLOAT) {
        double x = number_of(v);
        if (to == GEMS_F64) {
            out->f64 = x;
            return true;
        }
        if (isfinite(x) && fabs(x) > floats[to].max)
            return false;
        if (!opmath && info->size == 2)
            x = round_to((double)(float)x, floats[to].bits, floats[to].least);
        out->f32 = (float)x;
        return true;
    }
    if (v->kind == GEMS_SCALAR_FLOAT)
        return false;
    if (to == GEMS_BOOL) {
        out->u8 = v->i != 0;
        return true;
    }
    bool is_signed = to != GEMS_U8;
    int bits = 8 * info->size - (is_signed ? 1 : 0);
    if (bits < 63 && (v->i >= INT64_C(1) << bits || v->i < (is_signed ? -(INT64_C(1) << bits) : 0)))
        return false;
    out->i64 = v->i; /* little-endian: the low bytes are the narrower values */
    return true;
}

/* ---- run -------------------------------------------------------------------------------------------------------- */

/* The operands of a launch and what becomes of them. */
typedef struct pw_launch {
    gems_pw_spec spec;
    const gems_tensor *tensor[GEMS_OPERANDS]; /* NULL: by value */
    pw_number number[GEMS_OPERANDS];
    gems_strides strides[GEMS_OPERANDS]; /* of tensors, by their position among them */
    gems_loops loops;
} pw_launch;

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
            gems_channels_last_strides(&p->shape, strides);
        else if (format == 0 && row->layout != PW_ITERATOR)
            gems_shape_contiguous(&p->shape, strides);
        else if (like && gems_tensor_is_dense(like))
            memcpy(strides, like->strides, (size_t)like->ndim * sizeof *strides);
        else if (like)
            gems_dense_strides(&p->shape, like->strides, strides);
        else {
            gems_layout_input inputs[GEMS_MAX_ARGS];
            int n = 0;
            for (int i = 0; i < call->op->nparams && n < GEMS_OPERANDS; i++)
                if (call->arg[i].kind == GEMS_TENSOR)
                    inputs[n++] = (gems_layout_input){
                        call->arg[i].tensor, !(row->masks >> i & 1) && call->arg[i].tensor->dtype != p->compute};
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
        l->tensor[r] = t;
        l->spec.operand[r] = (gems_pw_operand){(uint8_t)t->dtype, GEMS_PW_WRITE, 0};
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
            if (call->op->form != GEMS_FUNCTIONAL &&
                (v->tensor->host == l->tensor[r]->host || gems_overlap_of(l->tensor[r], v->tensor) == GEMS_IDENTICAL)) {
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
        l->spec.operand[n] = (gems_pw_operand){(uint8_t)v->tensor->dtype, GEMS_PW_READ, 0};
    } else {
        gems_value element;
        if (v->kind == GEMS_TENSOR) {
            element = read_element(v->tensor);
            v = &element;
            if ((p->row->divisor >> param & 1) && gems_dtypes[to].category != GEMS_CAT_FLOAT && element.i == 0)
                return gems_decline(call, "integer divisor is zero");
        }
        if (!is_number(v))
            return gems_decline(call, "an argument that no kernel takes");
        if (!convert_number(v, to, p->opmath, &l->number[n]))
            return gems_decline(call, "number does not fit the dtype");
        l->spec.operand[n] = (gems_pw_operand){(uint8_t)to, GEMS_PW_VALUE, 0};
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

/* Merges the loops and chooses the frame. False: too many loops. */
static bool choose_loops(const pw_plan *p, const gems_device_info *device, const gems_rule *rule, pw_launch *l)
{
    gems_pw_spec *s = &l->spec;
    int n = 0, widest = 1;
    bool dense = true;
    for (unsigned i = 0; i < s->noperands; i++)
        if (l->tensor[i]) {
            const gems_tensor *t = l->tensor[i];
            gems_shape_strides(&p->shape, t->ndim, t->sizes, t->strides, l->strides[n++]);
            widest = gems_dtypes[t->dtype].size > widest ? gems_dtypes[t->dtype].size : widest;
        }
    gems_collapse(&p->shape, n, (const gems_strides *)l->strides, &l->loops);
    if (l->loops.rank > GEMS_RANK)
        return false;
    for (unsigned i = 0, k = 0; i < s->noperands; i++)
        if (l->tensor[i]) {
            int64_t stride = l->loops.stride[k++][0];
            s->operand[i].stride = stride == 0 ? GEMS_PW_BROADCAST : stride == 1 ? GEMS_PW_UNIT : GEMS_PW_STRIDED;
            dense = dense && stride <= 1 && (stride == 1 || s->operand[i].place == GEMS_PW_READ);
        }
    dense = dense && l->loops.rank == 1;
    s->frame = dense ? (device->is_cpu ? GEMS_PW_RUN : GEMS_PW_VEC) : (device->is_cpu ? GEMS_PW_ROWS : GEMS_PW_GRID);
    if (s->frame == GEMS_PW_VEC) {
        int64_t vec = gems_rule_param(rule, "vec", widest < 16 ? 16 / widest : 1);
        s->vec = vec == 2 || vec == 4 || vec == 8 || vec == 16 ? (uint8_t)vec : 2;
    }
    if (!dense) {
        s->rank = (uint8_t)l->loops.rank;
        s->wide = l->loops.wide;
        if (!device->is_cpu) /* one formula for every stride */
            for (unsigned i = 0; i < s->noperands; i++)
                s->operand[i].stride = 0;
    }
    return true;
}

/* A kernel's sizes: eight int or long, or one. */
typedef union pw_sizes {
    int32_t i[8];
    int64_t l[8];
} pw_sizes;

static gems_arg one_size(bool wide, int64_t v, pw_sizes *to)
{
    if (wide)
        to->l[0] = v;
    else
        to->i[0] = (int32_t)v;
    return GEMS_BYTES(to, wide ? sizeof *to->l : sizeof *to->i);
}

static gems_arg eight_sizes(bool wide, int rank, const int64_t *v, pw_sizes *to)
{
    for (int d = 0; d < rank; d++)
        if (wide)
            to->l[d] = v[d];
        else
            to->i[d] = (int32_t)v[d];
    return GEMS_BYTES(to, wide ? sizeof to->l : sizeof to->i);
}

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b; /* NOLINT(clang-analyzer-core.DivideZero): no caller has 0 */
}

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* Arguments in the order that codegen/pointwise.h gives, and how many work-items share the work. */
static void launch(gems_job *job, gems_kernel *kernel, const gems_call *call, const pw_plan *p, pw_launch *l)
{
    const gems_device_info *device = gems_job_device(job);
    const gems_pw_spec *s = &l->spec;
    const gems_loops *loops = &l->loops;
    gems_arg args[2 * GEMS_OPERANDS + 8];
    pw_sizes sizes[GEMS_OPERANDS + 6] = {{{0}}};
    int n = 0, used = 0, ntensors = 0;
    for (unsigned i = 0; i < s->noperands; i++)
        if (l->tensor[i]) {
            bool gaps = s->operand[i].place == GEMS_PW_WRITE && !gems_tensor_is_dense(l->tensor[i]);
            gems_access access = s->operand[i].place == GEMS_PW_READ             ? GEMS_READ
                                 : s->operand[i].place == GEMS_PW_UPDATE || gaps ? GEMS_READ_WRITE
                                                                                 : GEMS_WRITE;
            args[n++] = (gems_arg){GEMS_ARG_TENSOR, access, l->tensor[i], 0};
            ntensors++;
        }
    for (unsigned i = 0; i < s->noperands; i++)
        if (!l->tensor[i])
            args[n++] = GEMS_BYTES(&l->number[i], strcmp(gems_dtypes[s->operand[i].dtype].compute, "float") == 0
                                                      ? sizeof(float)
                                                      : gems_dtypes[s->operand[i].dtype].size);
    int64_t numel = p->shape.numel, units = device->compute_units;
    int64_t least = gems_rule_param(call->rule, "run", 8192);
    size_t local = 1, global;
    if (s->rank) {
        args[n++] = eight_sizes(s->wide, s->rank, loops->size, &sizes[used++]);
        for (int k = 0; k < ntensors; k++)
            args[n++] = eight_sizes(s->wide, s->rank, loops->stride[k], &sizes[used++]);
    }
    if (s->frame == GEMS_PW_RUN) {
        int64_t items = units > 1 ? clamp(numel / least, 1, 4 * units) : 1;
        int64_t run = (divide_up(numel, items) + 63) & ~INT64_C(63);
        args[n++] = one_size(true, numel, &sizes[used++]);
        args[n++] = one_size(true, run, &sizes[used++]);
        global = (size_t)divide_up(numel, run);
    } else if (s->frame == GEMS_PW_ROWS) {
        int64_t inner = loops->size[0], rows = numel / inner, most = units > 1 ? 4 * units : 1;
        int64_t run = divide_up(inner, clamp(inner / least, 1, divide_up(most, rows)));
        int64_t deep = clamp(divide_up(rows, most), 1, rows);
        deep = deep * run < least ? clamp(divide_up(least, run), 1, rows) : deep;
        int64_t chunks = divide_up(inner, run);
        args[n++] = one_size(s->wide, rows, &sizes[used++]);
        args[n++] = one_size(s->wide, run, &sizes[used++]);
        args[n++] = one_size(s->wide, chunks, &sizes[used++]);
        args[n++] = one_size(s->wide, deep, &sizes[used++]);
        global = (size_t)(divide_up(rows, deep) * chunks);
    } else {
        int64_t work = s->frame == GEMS_PW_VEC ? divide_up(numel, s->vec) : numel;
        args[n++] = one_size(s->frame == GEMS_PW_VEC || s->wide, numel, &sizes[used++]);
        local = (size_t)clamp(gems_rule_param(call->rule, "group", 256), 1, (int64_t)device->max_group);
        global = (size_t)clamp(divide_up(work, (int64_t)local), 1, 64 * units) * local;
    }
    gems_launch(job, kernel, 1, &global, &local, args, n);
}

static gems_kernel *find_kernel(gems_job *job, const gems_call *call, const pw_plan *p, const pw_launch *l)
{
    uint64_t key = gems_pw_key(&l->spec);
    gems_kernel *kernel = gems_kernel_find(job, key);
    if (kernel)
        return kernel;
    char entry[80]; /* not the bare name: "abs" is taken */
    snprintf(entry, sizeof entry, "pw_%s", call->op->strukt);
    char *source = gems_pw_source(&l->spec, &p->expr, entry);
    if (!source)
        return NULL;
    kernel = gems_kernel_build(job, key, call->op->name, "kernels/math.cl", source, "", entry);
    free(source);
    return kernel;
}

static bool uses_f64(const pw_plan *p, const pw_launch *l)
{
    bool uses = p->compute == GEMS_F64;
    for (unsigned i = 0; i < l->spec.noperands; i++)
        uses |= l->spec.operand[i].dtype == GEMS_F64;
    return uses;
}

static gems_status run(gems_call *call)
{
    pw_plan p;
    pw_launch l;
    memset(&l.spec, 0, sizeof l.spec);
    memset(l.tensor, 0, sizeof l.tensor);
    gems_status status = make_plan(call, &p);
    if (status != GEMS_OK)
        return status;
    int64_t small = p.shape.numel < SMALL_NUMEL ? GEMS_LANE_SMALL : GEMS_LANE_MAIN;
    gems_lane lane = gems_rule_param(call->rule, "lane", small) == GEMS_LANE_SMALL ? GEMS_LANE_SMALL : GEMS_LANE_MAIN;
    const gems_device_info *device = gems_device_get(lane);
    if (!device)
        return gems_decline(call, "no device");
    if ((status = make_results(call, &p, &l)) != GEMS_OK || (status = bind_operands(call, &p, &l)) != GEMS_OK)
        return status;
    if (!device->f64 && uses_f64(&p, &l))
        return gems_decline(call, "device has no f64");
    if (!choose_loops(&p, device, call->rule, &l))
        return gems_decline(call, "more than 8 loops");
    gems_job *job = gems_job_begin(call, lane);
    gems_kernel *kernel = find_kernel(job, call, &p, &l);
    if (kernel)
        launch(job, kernel, call, &p, &l);
    status = gems_job_end(job);
    return kernel || status != GEMS_OK ? status : gems_fail(call, "no kernel source");
}

const gems_family gems_family_pointwise = {.name = "pointwise",
                                           .plan = plan,
                                           .run = run,
                                           .variants = "",
                                           .params = "lane[0..1] vec[2..16:2] run[64..1073741824] group[1..1024]"};
