/* From a spec to loops. Types follow C as the kernel's text would, but an array may be narrower than the int that C
 * makes of its elements: it holds the same values, or, where only low bits are wanted, those. */
#include "codegen/evaluator.h"
#include "preload/base/clocale.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_SLOTS = 65535
};

static const uint8_t sizes[GEMS_HOST_TYPES] = {1, 1, 2, 4, 4, 8, 8, 4, 8};
static const uint8_t compute_types[GEMS_DTYPE_COUNT] = {
    [GEMS_F16] = GEMS_HOST_F32, [GEMS_BF16] = GEMS_HOST_F32, [GEMS_F32] = GEMS_HOST_F32, [GEMS_F64] = GEMS_HOST_F64,
    [GEMS_I8] = GEMS_HOST_I8,   [GEMS_U8] = GEMS_HOST_U8,    [GEMS_I16] = GEMS_HOST_I16, [GEMS_I32] = GEMS_HOST_I32,
    [GEMS_I64] = GEMS_HOST_I64, [GEMS_BOOL] = GEMS_HOST_U8};

static bool is_integer(unsigned type)
{
    return type < GEMS_HOST_F32;
}

static unsigned log_size(unsigned bytes)
{
    return bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3;
}

/* ---- slots and instructions ------------------------------------------------------------------------------------- */

/* Room for one more of n elements. */
static bool grow(evaluator *e, void *array, unsigned n, unsigned *room, size_t bytes)
{
    if (n < *room)
        return true;
    void *old, *larger = NULL;
    memcpy(&old, array, sizeof old);
    unsigned wanted = *room ? 2 * *room : 64;
    if (!e->failed)
        larger = realloc(old, wanted * bytes);
    if (!larger) {
        e->failed = true;
        return false;
    }
    memcpy(array, &larger, sizeof larger);
    *room = wanted;
    return true;
}

static value nothing(evaluator *e)
{
    e->failed = true;
    return (value){.one = true};
}

static uint16_t new_slot(evaluator *e, slot s)
{
    if (e->nslots == MOST_SLOTS || !grow(e, &e->slot, e->nslots, &e->slot_room, sizeof *e->slot)) {
        e->failed = true;
        return 0;
    }
    e->slot[e->nslots] = s;
    return (uint16_t)e->nslots++;
}

static uint16_t new_array(evaluator *e, unsigned bytes)
{
    if (e->widest < bytes)
        e->widest = bytes;
    if (e->nfree)
        return e->free[--e->nfree];
    e->narrays++;
    return new_slot(e, (slot){0, false});
}

static void let_go(evaluator *e, value v)
{
    if (v.owned && grow(e, &e->free, e->nfree, &e->free_room, sizeof *e->free))
        e->free[e->nfree++] = v.slot;
}

static value number(evaluator *e, unsigned type, uint64_t bits)
{
    return (value){new_slot(e, (slot){bits, true}), (uint8_t)type, (uint8_t)type, true, false, false};
}

static value integer(evaluator *e, int v)
{
    return number(e, GEMS_HOST_I32, (uint32_t)v);
}

static void add(evaluator *e, gems_host_loop *loop, unsigned to, unsigned a, unsigned b, unsigned c)
{
    if (!grow(e, &e->code, e->ncode, &e->code_room, sizeof *e->code))
        return;
    e->code[e->ncode++] = (instruction){loop, (uint16_t)to, (uint16_t)a, (uint16_t)b, (uint16_t)c};
}

static void *number_at(evaluator *e, value v)
{
    return &e->slot[v.slot].number;
}

/* A new value of n others. What is known of all is computed at once. */
static value make(evaluator *e, gems_host_loop *loop, unsigned type, unsigned ctype, unsigned n, const value *from)
{
    bool one = true;
    for (unsigned i = 0; i < n; i++)
        one = one && from[i].one;
    if (!loop || e->failed)
        return nothing(e);
    if (one) {
        value v = number(e, type, 0);
        v.ctype = (uint8_t)ctype;
        if (!e->failed)
            loop(number_at(e, v), number_at(e, from[0]), number_at(e, from[n > 1]), number_at(e, from[n > 2 ? 2 : 0]),
                 1);
        return v;
    }
    /* A loop may write over an argument, but only where the elements are of the same size. */
    for (unsigned i = 0; i < n; i++)
        if (sizes[from[i].type] == sizes[type])
            let_go(e, from[i]);
    value v = {new_array(e, sizes[type]), (uint8_t)type, (uint8_t)ctype, false, false, true};
    for (unsigned i = 0; i < n; i++)
        if (sizes[from[i].type] != sizes[type])
            let_go(e, from[i]);
    add(e, loop, v.slot, from[0].slot, from[n > 1].slot, from[n > 2 ? 2 : 0].slot);
    return v;
}

static value spread(evaluator *e, value v)
{
    if (!v.one || e->failed)
        return v;
    value to = v;
    to.slot = new_array(e, sizes[v.type]);
    to.one = false;
    to.owned = true;
    add(e, e->math->spread[log_size(sizes[v.type])], to.slot, v.slot, v.slot, v.slot);
    return to;
}

/* As `make`, for loops[3]: of arrays, first a number, second a number. */
static value make_mixed(evaluator *e, gems_host_loop *const *loops, unsigned type, unsigned ctype, unsigned n,
                        value *from)
{
    bool one = true;
    unsigned variant = 0;
    for (unsigned i = 0; i < n; i++)
        one = one && from[i].one;
    for (unsigned i = 0; i < n && !one; i++)
        if (i < 2 && from[i].one && !variant && loops[1 + i])
            variant = 1 + i;
        else
            from[i] = spread(e, from[i]);
    return make(e, loops[variant], type, ctype, n, from);
}

/* ---- types ------------------------------------------------------------------------------------------------------ */

static unsigned promoted(unsigned type)
{
    return type < GEMS_HOST_I32 ? GEMS_HOST_I32 : type;
}

/* C's common type of two; long holds every uint. */
static unsigned common(unsigned a, unsigned b)
{
    a = promoted(a);
    b = promoted(b);
    return a > b ? a : b;
}

/* The value as an array of this type, converted as C does. */
static value as(evaluator *e, value v, unsigned type)
{
    if (v.type == type || (is_integer(type) && is_integer(v.type) && sizes[type] == sizes[v.type])) {
        v.boolean = v.boolean && v.type == type;
        v.type = v.ctype = (uint8_t)type;
        return v;
    }
    return make(e, e->math->convert[v.type][type], type, type, 1, &v);
}

/* An integer type of that many bytes. */
static unsigned integer_of(unsigned bytes)
{
    return bytes == 1 ? GEMS_HOST_U8 : bytes == 2 ? GEMS_HOST_I16 : bytes == 4 ? GEMS_HOST_I32 : GEMS_HOST_I64;
}

static value truth(evaluator *e, value v)
{
    if (v.boolean)
        return v;
    v = make(e, e->math->truth[v.type], GEMS_HOST_U8, GEMS_HOST_I32, 1, &v);
    v.boolean = true;
    return v;
}

/* Whether the number is the same as this type. */
static bool fits(evaluator *e, value v, unsigned type)
{
    if (!v.one || e->failed || !is_integer(v.type) || !is_integer(type))
        return false;
    uint64_t there = 0, back = 0, mask = sizes[v.type] == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * sizes[v.type]) - 1;
    e->math->convert[v.type][type](&there, number_at(e, v), number_at(e, v), number_at(e, v), 1);
    e->math->convert[type][v.type](&back, &there, &there, &there, 1);
    bool negative = !(v.type == GEMS_HOST_U8 || v.type == GEMS_HOST_U32 || v.type == GEMS_HOST_U64) &&
                    e->slot[v.slot].number >> (8 * sizes[v.type] - 1) & 1;
    bool is_signed = !(type == GEMS_HOST_U8 || type == GEMS_HOST_U32 || type == GEMS_HOST_U64);
    return ((back ^ e->slot[v.slot].number) & mask) == 0 && (is_signed || !negative);
}

/* Brings two values to one type of array without changing them; `type` is their common type in C. Narrow arrays stay
 * narrow where both can be. */
static void bring_together(evaluator *e, unsigned type, value v[2])
{
    bool any = type != GEMS_HOST_U32 && type != GEMS_HOST_U64; /* negative numbers would become others */
    unsigned to = type;
    if (any && v[0].type == v[1].type)
        to = v[0].type;
    else if (any && fits(e, v[0], v[1].type))
        to = v[1].type;
    else if (any && fits(e, v[1], v[0].type))
        to = v[0].type;
    bool boolean = v[0].boolean && v[1].boolean && to == GEMS_HOST_U8;
    for (int i = 0; i < 2; i++) {
        v[i] = as(e, v[i], to);
        v[i].boolean = boolean;
    }
}

static unsigned ctype_of(evaluator *e, int i);

static unsigned find_ctype(evaluator *e, const gems_expr_node *n, int i)
{
    static const uint8_t casts[] = {[GEMS_EXPR_TO_INT] = GEMS_HOST_I32,   [GEMS_EXPR_TO_UINT] = GEMS_HOST_U32,
                                    [GEMS_EXPR_TO_LONG] = GEMS_HOST_I64,  [GEMS_EXPR_TO_ULONG] = GEMS_HOST_U64,
                                    [GEMS_EXPR_TO_FLOAT] = GEMS_HOST_F32, [GEMS_EXPR_TO_DOUBLE] = GEMS_HOST_F64,
                                    [GEMS_EXPR_TO_BOOL] = GEMS_HOST_I32};
    if (gems_expr_known(e->expr, e->step->facts, i) >= 0)
        return GEMS_HOST_I32;
    switch (n->kind) {
    case GEMS_EXPR_INT:
        return strtoull(n->text, NULL, 0) > INT32_MAX ? GEMS_HOST_I64 : GEMS_HOST_I32;
    case GEMS_EXPR_FLOAT:
        return e->type == GEMS_HOST_F64 ? GEMS_HOST_F64 : GEMS_HOST_F32;
    case GEMS_EXPR_NAME:
        return e->name[n->a].ctype;
    case GEMS_EXPR_LOCAL:
        return e->type;
    case GEMS_EXPR_WORD:
        return n->a <= GEMS_EXPR_NAN          ? e->type
               : n->a == GEMS_EXPR_HALF       ? GEMS_HOST_I32
               : e->step->compute == GEMS_F64 ? GEMS_HOST_F64
                                              : GEMS_HOST_F32;
    case GEMS_EXPR_CALL: {
        if (n->a == GEMS_HOST_CALL_isnan || n->a == GEMS_HOST_CALL_isinf || n->a == GEMS_HOST_CALL_isfinite)
            return GEMS_HOST_I32;
        unsigned type = ctype_of(e, e->expr->nodes[n->b].a);
        bool same = true;
        for (int arg = n->b; arg >= 0; arg = e->expr->nodes[arg].b)
            same = same && ctype_of(e, e->expr->nodes[arg].a) == type;
        return same ? type : promoted(type);
    }
    case GEMS_EXPR_UNARY:
        return n->text[0] == '!' ? GEMS_HOST_I32 : promoted(ctype_of(e, n->a));
    case GEMS_EXPR_CAST:
        return n->b == GEMS_EXPR_T ? e->type : n->b == GEMS_EXPR_D ? compute_types[e->step->compute] : casts[n->b];
    case GEMS_EXPR_BINARY:
        if (strchr("=!", n->text[0]) || (strchr("<>", n->text[0]) && n->text[1] != n->text[0]) ||
            (n->length == 2 && strchr("&|", n->text[0])))
            return GEMS_HOST_I32;
        return n->length == 2 ? promoted(ctype_of(e, n->a)) : common(ctype_of(e, n->a), ctype_of(e, n->b));
    case GEMS_EXPR_COND: {
        int known = gems_expr_known(e->expr, e->step->facts, n->a);
        if (known >= 0)
            return ctype_of(e, known ? n->b : n->c);
        return common(ctype_of(e, n->b), ctype_of(e, n->c));
    }
    default:
        return GEMS_HOST_I32;
    }
}

static unsigned ctype_of(evaluator *e, int i)
{
    if (!e->ctype[i])
        e->ctype[i] = (uint8_t)(1 + find_ctype(e, &e->expr->nodes[i], i));
    return e->ctype[i] - 1u;
}

/* ---- expressions ------------------------------------------------------------------------------------------------- */

static value node(evaluator *e, int i, unsigned low);

/* Exactly that node's value, as this type. */
static value node_as(evaluator *e, int i, unsigned type)
{
    unsigned from = ctype_of(e, i);
    unsigned low = is_integer(type) && is_integer(from) && sizes[type] < sizes[from] ? sizes[type] : 0;
    return as(e, node(e, i, low), type);
}

static value word(evaluator *e, const gems_expr_node *n)
{
    static const double most[GEMS_DTYPE_COUNT] = {[GEMS_F16] = 65504.0,
                                                  [GEMS_BF16] = 0x1.fep127,
                                                  [GEMS_F32] = 0x1.fffffep127,
                                                  [GEMS_F64] = 0x1.fffffffffffffp1023};
    unsigned dtype = e->step->compute;
    gems_element x = {0};
    if (n->a == GEMS_EXPR_HALF)
        return integer(e, dtype == GEMS_F16);
    if (n->a >= GEMS_EXPR_MOST && gems_dtypes[dtype].category != GEMS_CAT_FLOAT)
        return nothing(e);
    x.f64 = n->a == GEMS_EXPR_INF   ? (double)INFINITY
            : n->a == GEMS_EXPR_NAN ? (double)NAN
                                    : (n->a == GEMS_EXPR_MOST ? 1 : -1) * most[dtype];
    return as(e, number(e, GEMS_HOST_F64, x.bits), n->a <= GEMS_EXPR_NAN ? e->type : compute_types[dtype]);
}

static value call(evaluator *e, const gems_expr_node *n)
{
    int arg = n->b;
    unsigned count = 0;
    value from[3];
    if (n->a < 0)
        return nothing(e);
    /* The function for the arguments' type, else for what C promotes them to. */
    unsigned type = ctype_of(e, e->expr->nodes[arg].a), wide = promoted(type);
    bool same = true;
    for (; arg >= 0; arg = e->expr->nodes[arg].b, count++) {
        unsigned own = ctype_of(e, e->expr->nodes[arg].a);
        same = same && own == type;
        if (promoted(own) != wide)
            return nothing(e);
    }
    type = same ? type : wide;
    if (count != gems_host_call_arguments(n->a))
        return nothing(e);
    arg = n->b;
    for (unsigned i = 0; i < count; i++, arg = e->expr->nodes[arg].b)
        from[i] = node_as(e, e->expr->nodes[arg].a, type);
    bool asks = n->a == GEMS_HOST_CALL_isnan || n->a == GEMS_HOST_CALL_isinf || n->a == GEMS_HOST_CALL_isfinite;
    value v =
        make_mixed(e, e->math->call[n->a][type], asks ? GEMS_HOST_U8 : type, asks ? GEMS_HOST_I32 : type, count, from);
    v.boolean = asks;
    return v;
}

/* gems_get_D(gems_put_D(v)): as a tensor of that dtype would hold it. */
static value rounded(evaluator *e, value v, unsigned dtype)
{
    unsigned type = compute_types[dtype];
    if (dtype == GEMS_BOOL)
        v = truth(e, v);
    else if (v.boolean) /* 0 and 1 are the same in every dtype */
        (void)v;
    else if (e->math->round[dtype] && v.type == GEMS_HOST_F32)
        v = make(e, e->math->round[dtype], GEMS_HOST_F32, type, 1, &v);
    else if (e->math->get[dtype]) {
        v = make(e, e->math->put[dtype][v.type], GEMS_HOST_I16, type, 1, &v); /* its bits */
        v = make(e, e->math->get[dtype], type, type, 1, &v);
    } else if (v.type != type)
        v = make(e, e->math->put[dtype][v.type], type, type, 1, &v);
    v.ctype = (uint8_t)type;
    return v;
}

static value unary(evaluator *e, const gems_expr_node *n, unsigned low)
{
    unsigned type = promoted(ctype_of(e, n->a));
    if (n->text[0] == '!') {
        value v[2] = {node(e, n->a, 0)};
        v[1] = number(e, v[0].type, 0); /* 0 of every type */
        value r = make_mixed(e, e->math->binary[GEMS_HOST_EQ][v[0].type], GEMS_HOST_U8, GEMS_HOST_I32, 2, v);
        r.boolean = true;
        return r;
    }
    unsigned work = low && is_integer(type) && low < sizes[type] ? integer_of(low) : type;
    value v = node_as(e, n->a, work);
    return make(e, (n->text[0] == '-' ? e->math->negate : e->math->invert)[work], work, type, 1, &v);
}

static value logical(evaluator *e, const gems_expr_node *n)
{
    value v[2] = {truth(e, node(e, n->a, 0)), truth(e, node(e, n->b, 0))};
    value r = make_mixed(e, e->math->binary[n->text[0] == '&' ? GEMS_HOST_AND : GEMS_HOST_OR][GEMS_HOST_U8],
                         GEMS_HOST_U8, GEMS_HOST_I32, 2, v);
    r.boolean = true;
    return r;
}

static value comparison(evaluator *e, const gems_expr_node *n)
{
    bool swap = n->text[0] == '>';
    unsigned op = n->text[0] == '='   ? GEMS_HOST_EQ
                  : n->text[0] == '!' ? GEMS_HOST_NE
                  : n->length == 2    ? GEMS_HOST_LE
                                      : GEMS_HOST_LT;
    value v[2] = {node(e, n->a, 0), node(e, n->b, 0)};
    bring_together(e, common(ctype_of(e, n->a), ctype_of(e, n->b)), v);
    value w[2] = {v[swap], v[!swap]};
    value r = make_mixed(e, e->math->binary[op][w[0].type], GEMS_HOST_U8, GEMS_HOST_I32, 2, w);
    r.boolean = true;
    return r;
}

static value binary(evaluator *e, const gems_expr_node *n, unsigned low)
{
    static const char operators[] = {
        [GEMS_HOST_ADD] = '+', [GEMS_HOST_SUB] = '-', [GEMS_HOST_MUL] = '*', [GEMS_HOST_DIV] = '/',
        [GEMS_HOST_MOD] = '%', [GEMS_HOST_AND] = '&', [GEMS_HOST_OR] = '|',  [GEMS_HOST_XOR] = '^',
        [GEMS_HOST_SHL] = '<', [GEMS_HOST_SHR] = '>'};
    const char *text = n->text;
    bool shift = n->length == 2 && (text[0] == '<' || text[0] == '>') && text[1] == text[0];
    if (n->length == 2 && (text[0] == '&' || text[0] == '|'))
        return logical(e, n);
    if (!shift && strchr("=!<>", text[0]))
        return comparison(e, n);
    unsigned op = 0, type = shift ? promoted(ctype_of(e, n->a)) : common(ctype_of(e, n->a), ctype_of(e, n->b));
    while (operators[op] != text[0])
        op++;
    /* The low bits of these depend on the low bits of what they are given, alone. */
    bool keeps = !shift && op != GEMS_HOST_DIV && op != GEMS_HOST_MOD;
    unsigned work = keeps && low && is_integer(type) && low < sizes[type] ? integer_of(low) : type;
    value v[2] = {node_as(e, n->a, work), node_as(e, n->b, work)};
    return make_mixed(e, e->math->binary[op][work], work, type, 2, v);
}

static value conditional(evaluator *e, const gems_expr_node *n, unsigned low)
{
    int known = gems_expr_known(e->expr, e->step->facts, n->a);
    if (known >= 0)
        return node(e, known ? n->b : n->c, low);
    unsigned type = common(ctype_of(e, n->b), ctype_of(e, n->c));
    value c = truth(e, node(e, n->a, 0)), v[2];
    if (low && is_integer(type) && low < sizes[type]) {
        v[0] = node_as(e, n->b, integer_of(low));
        v[1] = node_as(e, n->c, integer_of(low));
    } else {
        v[0] = node(e, n->b, 0);
        v[1] = node(e, n->c, 0);
        bring_together(e, type, v);
    }
    if (c.one && !e->failed) {
        bool yes = *(const uint8_t *)number_at(e, c) != 0;
        let_go(e, v[yes]);
        v[!yes].ctype = (uint8_t)type;
        return v[!yes];
    }
    unsigned variant = (unsigned)v[0].one + 2u * v[1].one;
    value r =
        make(e, e->math->choose[log_size(sizes[v[0].type])][variant], v[0].type, type, 3, (value[3]){c, v[0], v[1]});
    r.boolean = v[0].boolean;
    return r;
}

/* The value of a node. low: if not 0, only so many bytes of the integer are wanted, and may be all that is right. */
static value node(evaluator *e, int i, unsigned low)
{
    const gems_expr_node *n = &e->expr->nodes[i];
    int known = gems_expr_known(e->expr, e->step->facts, i);
    gems_element x = {0};
    if (e->failed)
        return nothing(e);
    if (known >= 0)
        return integer(e, known);
    switch (n->kind) {
    case GEMS_EXPR_INT:
        return number(e, ctype_of(e, i), strtoull(n->text, NULL, 0));
    case GEMS_EXPR_FLOAT:
        if (e->type == GEMS_HOST_F64)
            x.f64 = gems_c_strtod(n->text, NULL);
        else
            x.f32 = gems_c_strtof(n->text, NULL);
        return number(e, ctype_of(e, i), x.bits);
    case GEMS_EXPR_NAME:
        return e->name[n->a];
    case GEMS_EXPR_LOCAL:
        return e->local[n->a];
    case GEMS_EXPR_WORD:
        return word(e, n);
    case GEMS_EXPR_CALL:
        return call(e, n);
    case GEMS_EXPR_UNARY:
        return unary(e, n, low);
    case GEMS_EXPR_CAST:
        if (n->b == GEMS_EXPR_D)
            return rounded(e, node(e, n->a, 0), e->step->compute);
        if (n->b == GEMS_EXPR_TO_BOOL)
            return truth(e, node(e, n->a, 0));
        return node_as(e, n->a, ctype_of(e, i));
    case GEMS_EXPR_BINARY:
        return binary(e, n, low);
    case GEMS_EXPR_COND:
        return conditional(e, n, low);
    default:
        return nothing(e);
    }
}

/* ---- operands and steps ------------------------------------------------------------------------------------------ */

static bool is_read(const gems_pw_operand *o)
{
    return o->place == GEMS_PW_READ || o->place == GEMS_PW_UPDATE;
}

static bool is_written(const gems_pw_operand *o)
{
    return o->place == GEMS_PW_WRITE || o->place == GEMS_PW_UPDATE;
}

/* A value that stays until the end of the step, or longer. */
static value keep(evaluator *e, value v)
{
    if (v.owned)
        e->kept[e->nkept++] = v;
    v.owned = false;
    return v;
}

static bool is_constant(const evaluator *e, unsigned i)
{
    for (int d = 0; d < e->rank; d++)
        if (e->memory[i].stride[d] != 0 && e->size[d] > 1)
            return false;
    return true;
}

static value load(evaluator *e, unsigned i)
{
    const gems_pw_operand *o = &e->spec->operand[i];
    operand *own = &e->operand[i];
    unsigned type = compute_types[o->dtype], bytes = gems_dtypes[o->dtype].size;
    if (own->is_loaded)
        return own->loaded;
    value v = {(uint16_t)i, (uint8_t)type, (uint8_t)type, false, false, false};
    if (o->place == GEMS_PW_VALUE)
        v = number(e, type, e->memory[i].number.bits);
    else if (!is_read(o))
        return nothing(e);
    else {
        gems_host_loop *get = e->math->get[o->dtype];
        if (is_constant(e, i) && !own->early) {
            v = number(e, get && bytes == 2 ? GEMS_HOST_I16 : type, 0);
            if (!e->failed)
                memcpy(number_at(e, v), e->memory[i].address, bytes);
        } else {
            own->read = true;
            e->widest = e->widest < bytes ? bytes : e->widest;
        }
        v.type = get && bytes == 2 ? GEMS_HOST_I16 : (uint8_t)type;
        if (get || own->early)
            v = make(e, get ? get : e->math->convert[type][type], type, type, 1, &v);
        v.boolean = o->dtype == GEMS_BOOL;
    }
    own->loaded = v;
    own->loaded.owned = false;
    own->is_loaded = true;
    return own->loaded;
}

/* Frees an array that held an operand or a result. */
static void forget(evaluator *e, value v)
{
    if (!v.one && v.slot >= SLOTS) {
        v.owned = true;
        let_go(e, v);
    }
}

/* A value of dtype `from` as one of dtype `to`. */
static value bound(evaluator *e, value v, unsigned from, unsigned to)
{
    if (from == to)
        return v;
    return gems_pw_holds(to, from) ? as(e, v, compute_types[to]) : rounded(e, v, to);
}

/* Finds what the step's names stand for. */
static void bind_names(evaluator *e, uint32_t needed)
{
    for (unsigned k = 0; k < gems_expr_name_count(e->expr) && !e->failed; k++) {
        const gems_pw_bind *b = &e->step->bind[k];
        if (!(needed >> k & 1))
            continue;
        if (b->step) {
            const gems_pw_step *from = &e->spec->step[b->step - 1];
            value v = e->result[(b->step - 1u) * GEMS_EXPR_RESULTS + b->index].value;
            e->name[k] = keep(e, bound(e, v, from->result[b->index], b->dtype));
        } else {
            const gems_pw_operand *o = &e->spec->operand[b->index];
            value v = load(e, b->index);
            e->name[k] = o->place == GEMS_PW_VALUE ? v : keep(e, bound(e, v, o->dtype, b->dtype));
        }
    }
}

/* Writes a value to its operand; if that is the value itself, it is then found there. */
static value store(evaluator *e, value v, unsigned o)
{
    unsigned dtype = e->spec->operand[o].dtype, to = TARGETS + o, bytes = gems_dtypes[dtype].size;
    bool same = e->math->get[dtype] ? dtype == GEMS_BOOL && v.boolean : v.type == compute_types[dtype];
    e->operand[o].written = true;
    e->widest = e->widest < bytes ? bytes : e->widest;
    if (e->failed)
        return v;
    if (v.one) {
        value memory = v;
        if (!same)
            memory = make(e, e->math->put[dtype][v.type], bytes == 2 ? GEMS_HOST_I16 : v.type, v.ctype, 1, &v);
        add(e, e->math->spread[log_size(bytes)], to, memory.slot, memory.slot, memory.slot);
    } else if (!same) {
        gems_host_loop *put = e->math->put[dtype][v.type];
        if (!put)
            return nothing(e);
        add(e, put, to, v.slot, v.slot, v.slot);
    } else if (v.owned && e->ncode && e->code[e->ncode - 1].to == v.slot) {
        e->code[e->ncode - 1].to = (uint16_t)to;
        let_go(e, v);
        v.slot = (uint16_t)to;
        v.owned = false;
    } else
        add(e, e->math->convert[v.type][v.type], to, v.slot, v.slot, v.slot);
    return v;
}

static void finish_result(evaluator *e, unsigned s, unsigned r, value v)
{
    const gems_pw_step *step = e->step;
    unsigned dtype = step->result[r], o = step->store[r];
    result *to = &e->result[s * GEMS_EXPR_RESULTS + r];
    bool is_stored = o != GEMS_PW_UNSTORED, is_used = to->last_step > (int)s;
    /* As in the kernel: a given result of another dtype holds what one of the operator's own would have held. */
    bool whole = is_stored && (dtype == e->spec->operand[o].dtype ||
                               (dtype == step->compute && gems_dtypes[step->compute].size != 2));
    if (whole)
        v = store(e, v, o);
    if (is_used || (is_stored && !whole)) {
        v = rounded(e, v, dtype);
        if (is_stored && !whole)
            v = store(e, v, o);
    }
    if (!is_used) {
        let_go(e, v);
        return;
    }
    if (!v.owned && !v.one && v.slot >= SLOTS) /* an operand's or a name's, which may end before the result does */
        v = make(e, e->math->convert[v.type][v.type], v.type, v.ctype, 1, &v);
    to->value = v;
    to->value.owned = false;
}

static void compile_step(evaluator *e, unsigned s, uint32_t needed)
{
    e->step = &e->spec->step[s];
    e->expr = e->step->expr;
    e->type = compute_types[e->step->compute];
    e->nkept = 0;
    memset(e->ctype, 0, sizeof e->ctype);
    bind_names(e, needed);
    for (unsigned i = 0, r = 0; i < e->expr->nstatements && !e->failed; i++) {
        const gems_expr_statement *t = &e->expr->statements[i];
        unsigned from = ctype_of(e, t->root);
        unsigned low = is_integer(e->type) && is_integer(from) && sizes[e->type] < sizes[from] ? sizes[e->type] : 0;
        value v = node(e, t->root, low);
        if (!v.boolean)
            v = as(e, v, e->type);
        v.ctype = e->type;
        if (t->name)
            e->local[i] = keep(e, v);
        else if (r < e->step->nresults)
            finish_result(e, s, r++, v);
        else
            let_go(e, v);
    }
    for (unsigned i = 0; i < e->nkept; i++)
        let_go(e, e->kept[i]);
    for (unsigned i = 0; i < e->spec->noperands; i++)
        if (e->operand[i].is_loaded && e->operand[i].last_step == (int)s)
            forget(e, e->operand[i].loaded);
    for (unsigned i = 0; i < s * GEMS_EXPR_RESULTS; i++)
        if (e->result[i].last_step == (int)s)
            forget(e, e->result[i].value);
}

/* ---- the spec ---------------------------------------------------------------------------------------------------- */

/* Notes what each step uses. False: it is not there. */
static bool check(evaluator *e, uint32_t *needed)
{
    const gems_pw_spec *spec = e->spec;
    if (spec->noperands > GEMS_OPERANDS || spec->noperands > TARGETS)
        return false;
    for (unsigned i = 0; i < spec->noperands; i++) {
        const gems_pw_operand *o = &spec->operand[i];
        e->operand[i].last_step = -1;
        if (o->dtype >= GEMS_DTYPE_COUNT || o->place > GEMS_PW_UPDATE ||
            (o->place != GEMS_PW_VALUE && (!e->memory[i].address || !e->memory[i].stride)))
            return false;
    }
    for (unsigned s = 0; s < spec->nsteps; s++) {
        const gems_pw_step *step = &spec->step[s];
        if (!step->expr || step->compute >= GEMS_DTYPE_COUNT || step->nresults > GEMS_EXPR_RESULTS ||
            step->nresults > gems_expr_result_count(step->expr))
            return false;
        needed[s] = gems_expr_needs(step->expr, step->facts);
        for (unsigned k = 0; k < gems_expr_name_count(step->expr); k++) {
            const gems_pw_bind *b = &step->bind[k];
            if (!(needed[s] >> k & 1))
                continue;
            if (b->dtype >= GEMS_DTYPE_COUNT || b->step > s ||
                b->index >= (b->step ? spec->step[b->step - 1].nresults : spec->noperands))
                return false;
            if (b->step)
                e->result[(b->step - 1u) * GEMS_EXPR_RESULTS + b->index].last_step = (int)s;
            else
                e->operand[b->index].last_step = (int)s;
        }
        for (unsigned r = 0; r < step->nresults; r++)
            if (step->result[r] >= GEMS_DTYPE_COUNT ||
                (step->store[r] != GEMS_PW_UNSTORED &&
                 (step->store[r] >= spec->noperands || !is_written(&spec->operand[step->store[r]]))))
                return false;
    }
    return true;
}

/* The bytes that an operand's elements lie in. */
static void extent(const evaluator *e, unsigned i, uintptr_t *from, uintptr_t *to)
{
    int64_t low = 0, high = 0, bytes = gems_dtypes[e->spec->operand[i].dtype].size;
    for (int d = 0; d < e->rank; d++) {
        int64_t far = e->memory[i].stride[d] * (e->size[d] - 1);
        *(far < 0 ? &low : &high) += far;
    }
    *from = (uintptr_t)e->memory[i].address + (uintptr_t)(low * bytes);
    *to = (uintptr_t)e->memory[i].address + (uintptr_t)((high + 1) * bytes);
}

static bool is_same_view(const evaluator *e, unsigned i, unsigned k)
{
    if (e->memory[i].address != e->memory[k].address ||
        gems_dtypes[e->spec->operand[i].dtype].size != gems_dtypes[e->spec->operand[k].dtype].size)
        return false;
    for (int d = 0; d < e->rank; d++)
        if (e->size[d] > 1 && e->memory[i].stride[d] != e->memory[k].stride[d])
            return false;
    return true;
}

/* Finds operands that must be loaded before the first result is stored: those that are written, too. Where the only
 * store is what the chunk ends with, the loads are before it anyway. */
static void find_early(evaluator *e)
{
    const gems_pw_spec *spec = e->spec;
    unsigned stores = 0, at_end = 0;
    for (unsigned s = 0; s < spec->nsteps; s++)
        for (unsigned r = 0; r < spec->step[s].nresults; r++)
            if (spec->step[s].store[r] != GEMS_PW_UNSTORED) {
                stores++;
                at_end += s + 1u == spec->nsteps;
            }
    bool single = stores == 1 && at_end == 1;
    for (unsigned i = 0; i < spec->noperands; i++) {
        if (!is_read(&spec->operand[i]) || e->operand[i].last_step < 0)
            continue;
        uintptr_t from, to;
        extent(e, i, &from, &to);
        for (unsigned k = 0; k < spec->noperands; k++) {
            uintptr_t first, end;
            if (!is_written(&spec->operand[k]))
                continue;
            extent(e, k, &first, &end);
            if (from < end && first < to && !(single && is_same_view(e, i, k)))
                e->operand[i].early = true;
        }
    }
}

bool gems_evaluator_compile(evaluator *e)
{
    const gems_pw_spec *spec = e->spec;
    uint32_t needed[UINT8_MAX];
    if (!check(e, needed))
        return false;
    find_early(e);
    for (unsigned i = 0; i < SLOTS; i++)
        new_slot(e, (slot){0, false});
    for (unsigned i = 0; i < spec->noperands; i++)
        if (e->operand[i].early)
            load(e, i);
    for (unsigned s = 0; s < spec->nsteps && !e->failed; s++)
        compile_step(e, s, needed[s]);
    return !e->failed;
}
