/* Parser, checker and writer of the expressions of rows. */
#include "codegen/tree.h"
#include "codegen/host_math.h"
#include "preload/base/clocale.h"

#include <ctype.h>
#include <stdarg.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 64

typedef struct parser {
    gems_expr *e;
    const char *at;
    const char *const *names;
    unsigned nnames;
    const char *functions;
    gems_expr_error *error;
    bool failed;
    int depth;
} parser;

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static int fail(parser *p, const char *fmt, ...)
{
    if (!p->failed) {
        p->failed = true;
        p->error->at = (size_t)(p->at - p->e->text);
        va_list args;
        va_start(args, fmt);
        vsnprintf(p->error->text, sizeof p->error->text, fmt, args);
        va_end(args);
    }
    return 0;
}

static void skip_space(parser *p)
{
    while (isspace((unsigned char)*p->at))
        p->at++;
}

static bool accept(parser *p, const char *token)
{
    skip_space(p);
    size_t n = strlen(token);
    if (strncmp(p->at, token, n) != 0)
        return false;
    p->at += n;
    return true;
}

static void expect(parser *p, const char *token)
{
    if (!accept(p, token))
        fail(p, "expected '%s'", token);
}

/* Length of the identifier at this place, or 0. */
static int word_length(const char *s)
{
    int n = 0;
    if (isalpha((unsigned char)*s) || *s == '_')
        while (isalnum((unsigned char)s[n]) || s[n] == '_')
            n++;
    return n;
}

static bool same(const char *s, int n, const char *word)
{
    return (int)strlen(word) == n && memcmp(s, word, (size_t)n) == 0;
}

static int add(parser *p, gems_expr_node n)
{
    if (p->e->nnodes == GEMS_EXPR_NODES)
        return fail(p, "expression too long");
    p->e->nodes[p->e->nnodes] = n;
    return (int)p->e->nnodes++;
}

static int expression(parser *p);

/* Index of a parameter among the names used, which stay in the order of the parameters given; -1 if unknown. */
static int use_name(parser *p, const char *s, int n)
{
    for (unsigned i = 0; i < p->nnames; i++) {
        if (!same(s, n, p->names[i]))
            continue;
        for (unsigned k = 0; k < p->e->nnames; k++)
            if (p->e->param[k] == i)
                return (int)k;
        if (p->e->nnames == GEMS_EXPR_NAMES)
            return fail(p, "more than %d parameters", GEMS_EXPR_NAMES), -1;
        p->e->param[p->e->nnames] = (uint8_t)i;
        return (int)p->e->nnames++;
    }
    return -1;
}

/* has(name), one(name), is(name, "text"), is(name, number) after the opening parenthesis. kind: their first letter. */
static int fact(parser *p, char kind)
{
    skip_space(p);
    int n = word_length(p->at), name = n ? use_name(p, p->at, n) : -1;
    if (name < 0)
        return fail(p, "has(), one() and is() want a parameter's name");
    gems_expr_fact f = {.name = (uint8_t)name, .kind = kind};
    p->at += n;
    if (kind == 'i') {
        expect(p, ",");
        skip_space(p);
        if (*p->at == '"') {
            f.kind = 's';
            f.text = ++p->at;
            f.length = strcspn(f.text, "\"");
            p->at += f.length;
            expect(p, "\"");
        } else {
            char *end;
            f.kind = 'n';
            f.number = gems_c_strtod(p->at, &end);
            if (end == p->at)
                return fail(p, "is() wants a text or a number");
            p->at = end;
        }
    }
    expect(p, ")");
    if (p->e->nfacts == GEMS_EXPR_FACTS)
        return fail(p, "more than %d questions", GEMS_EXPR_FACTS);
    p->e->facts[p->e->nfacts] = f;
    return add(p, (gems_expr_node){GEMS_EXPR_FACT, .a = (int16_t)p->e->nfacts++});
}

/* Is gems_<name>( defined in the device functions? */
static bool is_function(const parser *p, const char *s, int n)
{
    char wanted[80];
    if (!p->functions)
        return true;
    if (n > 60)
        return false;
    snprintf(wanted, sizeof wanted, " gems_%.*s(", n, s);
    return strstr(p->functions, wanted) != NULL;
}

/* gems_host_call of that name, or -1: only kernels can call it. */
static int16_t host_call(const char *s, int n)
{
#define NAME(name) #name,
    static const char *const names[] = {GEMS_HOST_CALLS_1(NAME) GEMS_HOST_CALLS_2(NAME) GEMS_HOST_CALLS_3(NAME)};
#undef NAME
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (same(s, n, names[i]))
            return (int16_t)i;
    return -1;
}

static int call(parser *p, const char *s, int n)
{
    if (!is_function(p, s, n)) {
        p->at = s;
        return fail(p, "no function '%.*s' in kernels/math.cl", n, s);
    }
    int head = add(p, (gems_expr_node){GEMS_EXPR_CALL, (uint8_t)n, host_call(s, n), -1, -1, s}), last = head;
    do {
        int arg = add(p, (gems_expr_node){GEMS_EXPR_ARG, 0, (int16_t)expression(p), -1, -1, NULL});
        p->e->nodes[last].b = (int16_t)arg;
        last = arg;
    } while (!p->failed && accept(p, ","));
    expect(p, ")");
    return head;
}

static int number(parser *p)
{
    char *end;
    gems_c_strtod(p->at, &end);
    int n = (int)(end - p->at);
    bool whole = true;
    for (int i = 0; i < n; i++)
        whole &= isdigit((unsigned char)p->at[i]) != 0;
    int r = add(p, (gems_expr_node){whole ? GEMS_EXPR_INT : GEMS_EXPR_FLOAT, (uint8_t)n, -1, -1, -1, p->at});
    p->at = end;
    return r;
}

/* As in gems_expr_word, gems_expr_type. */
static const char *const words[] = {"inf", "nan", "dtype_max", "dtype_lowest", "half"};
static const char *const types[] = {"T", "D", "int", "uint", "long", "ulong", "float", "double", "bool"};

static int word(parser *p)
{
    const char *s = p->at;
    int n = word_length(s);
    p->at += n;
    if (accept(p, "("))
        return same(s, n, "has") || same(s, n, "one") || same(s, n, "is") ? fact(p, s[0]) : call(p, s, n);
    for (unsigned i = 0; i < p->e->nstatements; i++)
        if (p->e->statements[i].name && p->e->statements[i].length == n &&
            memcmp(p->e->statements[i].name, s, (size_t)n) == 0)
            return add(p, (gems_expr_node){GEMS_EXPR_LOCAL, (uint8_t)n, (int16_t)i, -1, -1, s});
    int name = use_name(p, s, n);
    if (name >= 0)
        return add(p, (gems_expr_node){GEMS_EXPR_NAME, 0, (int16_t)name, -1, -1, NULL});
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (same(s, n, words[i]))
            return add(p, (gems_expr_node){GEMS_EXPR_WORD, 0, (int16_t)i, -1, -1, words[i]});
    p->at = s;
    return fail(p, "unknown name '%.*s'", n, s);
}

/* gems_expr_type, or -1. */
static int cast_type(parser *p)
{
    const char *start = p->at;
    if (accept(p, "(")) {
        skip_space(p);
        int n = word_length(p->at);
        for (size_t i = 0; n && i < sizeof types / sizeof *types; i++)
            if (same(p->at, n, types[i])) {
                p->at += n;
                if (accept(p, ")"))
                    return (int)i;
            }
    }
    p->at = start;
    return -1;
}

static int unary(parser *p)
{
    skip_space(p);
    const char *s = p->at;
    if (++p->depth > MAX_DEPTH)
        return fail(p, "too deeply nested");
    int r;
    int type = cast_type(p);
    if (type >= 0)
        r = add(p, (gems_expr_node){GEMS_EXPR_CAST, 0, (int16_t)unary(p), (int16_t)type, -1, types[type]});
    else if (*s == '-' || *s == '~' || (*s == '!' && s[1] != '=')) {
        p->at++;
        r = add(p, (gems_expr_node){GEMS_EXPR_UNARY, 1, (int16_t)unary(p), -1, -1, s});
    } else if (accept(p, "(")) {
        r = expression(p);
        expect(p, ")");
    } else if (isdigit((unsigned char)*s) || *s == '.')
        r = number(p);
    else if (word_length(s))
        r = word(p);
    else
        r = fail(p, "expected an operand");
    p->depth--;
    return r;
}

/* Binary operators from weakest to strongest; longer spellings before their beginnings. */
static const char *const levels[][5] = {
    {"||"},       {"&&"},     {"|"},          {"^"}, {"&"}, {"==", "!="}, {"<=", ">=", "<", ">"},
    {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"}};
#define LEVELS ((int)(sizeof levels / sizeof *levels))

static const char *operator_at(parser *p, int level)
{
    skip_space(p);
    for (int i = 0; i < 5 && levels[level][i]; i++) {
        const char *op = levels[level][i];
        size_t n = strlen(op);
        if (strncmp(p->at, op, n) != 0)
            continue;
        char next = p->at[n];
        if (n == 1 && (next == op[0] || (next == '=' && strchr("<>", op[0]))) && strchr("|&<>", op[0]))
            continue; /* the beginning of a longer one */
        p->at += n;
        return op;
    }
    return NULL;
}

static int binary(parser *p, int level)
{
    if (level == LEVELS)
        return unary(p);
    int left = binary(p, level + 1);
    for (const char *op; !p->failed && (op = operator_at(p, level));) {
        int right = binary(p, level + 1);
        left = add(p, (gems_expr_node){GEMS_EXPR_BINARY, (uint8_t)strlen(op), (int16_t)left, (int16_t)right, -1, op});
    }
    return left;
}

static int expression(parser *p)
{
    if (++p->depth > MAX_DEPTH)
        return fail(p, "too deeply nested");
    int r = binary(p, 0);
    if (!p->failed && accept(p, "?")) {
        int yes = expression(p);
        expect(p, ":");
        int no = expression(p);
        r = add(p, (gems_expr_node){GEMS_EXPR_COND, 0, (int16_t)r, (int16_t)yes, (int16_t)no, NULL});
    }
    p->depth--;
    return r;
}

static void program(parser *p)
{
    gems_expr *e = p->e;
    do {
        if (e->nstatements == GEMS_EXPR_STATEMENTS) {
            fail(p, "more than %d statements", GEMS_EXPR_STATEMENTS);
            return;
        }
        skip_space(p);
        gems_expr_statement s = {NULL, 0, 0};
        const char *start = p->at;
        int n = word_length(start);
        p->at += n;
        if (n && accept(p, "=") && *p->at != '=') {
            s.name = start;
            s.length = n;
            for (unsigned i = 0; i < p->nnames; i++)
                if (same(start, n, p->names[i]))
                    fail(p, "'%.*s' is a parameter", n, start);
        } else {
            p->at = start;
            if (++e->nresults > GEMS_EXPR_RESULTS)
                fail(p, "more than %d results", GEMS_EXPR_RESULTS);
        }
        s.root = (int16_t)expression(p);
        e->statements[e->nstatements++] = s;
    } while (!p->failed && accept(p, ";"));
    skip_space(p);
    if (*p->at)
        fail(p, "unexpected '%c'", *p->at);
    if (e->nresults == 0)
        fail(p, "no result");
}

/* The first expression of each text. They stay: kernels are told apart by them. */
static struct {
    pthread_mutex_t lock;
    gems_expr *list;
} firsts = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void find_first(gems_expr *e)
{
    pthread_mutex_lock(&firsts.lock);
    const gems_expr *f = firsts.list;
    while (f && strcmp(f->text, e->text) != 0)
        f = f->next;
    if (!f) {
        e->next = firsts.list;
        f = firsts.list = e;
    }
    e->first = f;
    pthread_mutex_unlock(&firsts.lock);
}

const gems_expr *gems_expr_first(const gems_expr *expr)
{
    return expr->first;
}

gems_expr *gems_expr_parse(const char *text, const char *const *names, unsigned n, const char *functions,
                           gems_expr_error *error)
{
    gems_expr *e = calloc(1, sizeof *e);
    if (!e || !(e->text = strdup(text))) {
        snprintf(error->text, sizeof error->text, "out of memory");
        free(e);
        return NULL;
    }
    parser p = {.e = e, .at = e->text, .names = names, .nnames = n, .functions = functions, .error = error};
    program(&p);
    if (p.failed) {
        gems_expr_free(e);
        return NULL;
    }
    find_first(e);
    return e;
}

void gems_expr_free(gems_expr *expr)
{
    if (!expr || expr->first == expr)
        return;
    free(expr->text);
    free(expr);
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

unsigned gems_expr_result_count(const gems_expr *expr)
{
    return expr->nresults;
}

unsigned gems_expr_name_count(const gems_expr *expr)
{
    return expr->nnames;
}

unsigned gems_expr_name_param(const gems_expr *expr, unsigned i)
{
    return expr->param[i];
}

unsigned gems_expr_fact_count(const gems_expr *expr)
{
    return expr->nfacts;
}

const gems_expr_fact *gems_expr_fact_at(const gems_expr *expr, unsigned i)
{
    return &expr->facts[i];
}

int gems_expr_known(const gems_expr *e, uint32_t facts, int i)
{
    const gems_expr_node *n = &e->nodes[i];
    if (n->kind == GEMS_EXPR_FACT)
        return (facts >> n->a) & 1;
    if (n->kind == GEMS_EXPR_UNARY && n->text[0] == '!') {
        int v = gems_expr_known(e, facts, n->a);
        return v < 0 ? v : !v;
    }
    if (n->kind == GEMS_EXPR_BINARY && (n->text[0] == '&' || n->text[0] == '|') && n->length == 2) {
        int v = gems_expr_known(e, facts, n->a), w = gems_expr_known(e, facts, n->b), decides = n->text[0] == '|';
        if (v == decides || w == decides)
            return decides;
        return v < 0 || w < 0 ? -1 : !decides;
    }
    return -1;
}

static uint32_t needs(const gems_expr *e, uint32_t facts, int i)
{
    if (i < 0)
        return 0;
    const gems_expr_node *n = &e->nodes[i];
    if (gems_expr_known(e, facts, i) >= 0)
        return 0;
    switch (n->kind) {
    case GEMS_EXPR_NAME:
        return 1u << n->a;
    case GEMS_EXPR_COND: {
        int v = gems_expr_known(e, facts, n->a);
        if (v >= 0)
            return needs(e, facts, v ? n->b : n->c);
        return needs(e, facts, n->a) | needs(e, facts, n->b) | needs(e, facts, n->c);
    }
    case GEMS_EXPR_CALL: /* b: the list of arguments */
        return needs(e, facts, n->b);
    case GEMS_EXPR_ARG:
    case GEMS_EXPR_BINARY:
        return needs(e, facts, n->a) | needs(e, facts, n->b);
    case GEMS_EXPR_UNARY:
    case GEMS_EXPR_CAST:
        return needs(e, facts, n->a);
    default:
        return 0;
    }
}

uint32_t gems_expr_needs(const gems_expr *expr, uint32_t facts)
{
    uint32_t r = 0;
    for (unsigned i = 0; i < expr->nstatements; i++)
        r |= needs(expr, facts, expr->statements[i].root);
    return r;
}

/* Those of kernels/math.cl; `both`: for double, too. */
static const struct {
    const char *name;
    bool both;
} quick[] = {{"sin", false}, {"cos", false}, {"fmod", true}, {"remainder", true}, {"div_floor", true}};

static bool is_quick(const gems_expr_node *call, const char *type)
{
    for (size_t i = 0; i < sizeof quick / sizeof *quick; i++)
        if (same(call->text, call->length, quick[i].name))
            return strcmp(type, "float") == 0 || (quick[i].both && strcmp(type, "double") == 0);
    return false;
}

static bool has_quick(const gems_expr *e, uint32_t facts, const char *type, int i)
{
    if (i < 0)
        return false;
    const gems_expr_node *n = &e->nodes[i];
    int v = n->kind == GEMS_EXPR_COND ? gems_expr_known(e, facts, n->a) : -1;
    switch (n->kind) {
    case GEMS_EXPR_CALL:
        return is_quick(n, type) || has_quick(e, facts, type, n->b);
    case GEMS_EXPR_COND:
        if (v >= 0)
            return has_quick(e, facts, type, v ? n->b : n->c);
        return has_quick(e, facts, type, n->a) || has_quick(e, facts, type, n->b) || has_quick(e, facts, type, n->c);
    case GEMS_EXPR_ARG:
    case GEMS_EXPR_BINARY:
        return has_quick(e, facts, type, n->a) || has_quick(e, facts, type, n->b);
    case GEMS_EXPR_UNARY:
    case GEMS_EXPR_CAST:
        return has_quick(e, facts, type, n->a);
    default:
        return false;
    }
}

bool gems_expr_has_quick(const gems_expr *expr, uint32_t facts, const char *type)
{
    bool has = false;
    for (unsigned i = 0; i < expr->nstatements; i++)
        has |= has_quick(expr, facts, type, expr->statements[i].root);
    return has;
}

static bool picks(const gems_expr *e, uint32_t facts, uint32_t names, int i)
{
    const gems_expr_node *n = &e->nodes[i];
    int v = n->kind == GEMS_EXPR_COND ? gems_expr_known(e, facts, n->a) : gems_expr_known(e, facts, i);
    switch (n->kind) {
    case GEMS_EXPR_NAME:
        return names >> n->a & 1;
    case GEMS_EXPR_INT: /* 8 bits */
        return n->length < 3;
    case GEMS_EXPR_WORD: /* all but `half` are values of the dtype */
        return n->a != GEMS_EXPR_HALF;
    case GEMS_EXPR_LOCAL:
        return picks(e, facts, names, e->statements[n->a].root);
    case GEMS_EXPR_COND:
        if (v >= 0)
            return picks(e, facts, names, v ? n->b : n->c);
        return picks(e, facts, names, n->b) && picks(e, facts, names, n->c);
    case GEMS_EXPR_UNARY:
        return n->text[0] == '-' && picks(e, facts, names, n->a);
    case GEMS_EXPR_CAST:
        return n->b == GEMS_EXPR_D || (n->b == GEMS_EXPR_T && picks(e, facts, names, n->a));
    case GEMS_EXPR_CALL:
        if (!same(n->text, n->length, "abs") && !same(n->text, n->length, "maximum") &&
            !same(n->text, n->length, "minimum"))
            return false;
        for (int arg = n->b; arg >= 0; arg = e->nodes[arg].b)
            if (!picks(e, facts, names, e->nodes[arg].a))
                return false;
        return true;
    default:
        return v >= 0;
    }
}

bool gems_expr_only_picks(const gems_expr *expr, uint32_t facts, unsigned r, uint32_t names)
{
    for (unsigned i = 0; i < expr->nstatements; i++)
        if (!expr->statements[i].name && r-- == 0)
            return picks(expr, facts, names, expr->statements[i].root);
    return false;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

void gems_code_add(gems_code *text, const char *fmt, ...)
{
    for (int round = 0; round < 2 && !text->failed; round++) {
        va_list args;
        va_start(args, fmt);
        size_t room = text->capacity - text->n;
        int n = vsnprintf(room ? text->s + text->n : NULL, room, fmt, args);
        va_end(args);
        if (n >= 0 && (size_t)n < room) {
            text->n += (size_t)n;
            return;
        }
        size_t capacity = (text->capacity + (size_t)(n > 0 ? n : 0) + 64) * 2;
        char *s = n < 0 ? NULL : realloc(text->s, capacity);
        if (!s)
            text->failed = true;
        else {
            text->s = s;
            text->capacity = capacity;
        }
    }
}

static void write_node(const gems_expr *e, const gems_expr_style *style, int i, gems_code *out)
{
    const gems_expr_node *n = &e->nodes[i];
    int value = gems_expr_known(e, style->facts, i);
    if (value >= 0) {
        gems_code_add(out, "%d", value);
        return;
    }
    switch (n->kind) {
    case GEMS_EXPR_INT:
        gems_code_add(out, "%.*s", n->length, n->text);
        break;
    case GEMS_EXPR_FLOAT:
        gems_code_add(out, "%.*s%s", n->length, n->text, style->float_suffix);
        break;
    case GEMS_EXPR_NAME:
        gems_code_add(out, "%s", style->variables[n->a]);
        break;
    case GEMS_EXPR_LOCAL:
        gems_code_add(out, "%s%.*s", style->prefix, n->length, n->text);
        break;
    case GEMS_EXPR_WORD:
        if (n->a <= GEMS_EXPR_NAN)
            gems_code_add(out, "((%s)%s)", style->type, n->a == GEMS_EXPR_NAN ? "NAN" : "INFINITY");
        else if (n->a == GEMS_EXPR_HALF)
            gems_code_add(out, "%d", strcmp(style->dtype, "f16") == 0);
        else
            gems_code_add(out, "GEMS_%s_%s", n->a == GEMS_EXPR_MOST ? "MAX" : "LOWEST", style->dtype);
        break;
    case GEMS_EXPR_CALL: {
        bool odd = style->odd && is_quick(n, style->type);
        gems_code_add(out, "gems_%s%.*s(", odd ? "quick_" : "", n->length, n->text);
        for (int arg = n->b; arg >= 0; arg = e->nodes[arg].b) {
            write_node(e, style, e->nodes[arg].a, out);
            if (e->nodes[arg].b >= 0)
                gems_code_add(out, ", ");
        }
        gems_code_add(out, odd ? ", %s)" : ")", style->odd);
        break;
    }
    case GEMS_EXPR_UNARY:
        gems_code_add(out, "(%c", n->text[0]);
        write_node(e, style, n->a, out);
        gems_code_add(out, ")");
        break;
    case GEMS_EXPR_CAST:
        if (n->b == GEMS_EXPR_D)
            gems_code_add(out, "gems_get_%s(gems_put_%s(", style->dtype, style->dtype);
        else
            gems_code_add(out, "((%s)", n->b == GEMS_EXPR_T ? style->type : n->text);
        write_node(e, style, n->a, out);
        gems_code_add(out, n->b == GEMS_EXPR_D ? "))" : ")");
        break;
    case GEMS_EXPR_BINARY: {
        const bool divides = style->quotient && strcmp(n->text, "/") == 0;
        gems_code_add(out, "%s(", divides ? style->quotient : "");
        write_node(e, style, n->a, out);
        gems_code_add(out, divides ? ", " : " %s ", n->text);
        write_node(e, style, n->b, out);
        gems_code_add(out, ")");
        break;
    }
    case GEMS_EXPR_COND: {
        int v = gems_expr_known(e, style->facts, n->a);
        if (v >= 0) {
            write_node(e, style, v ? n->b : n->c, out);
            break;
        }
        gems_code_add(out, "(");
        write_node(e, style, n->a, out);
        gems_code_add(out, " ? ");
        write_node(e, style, n->b, out);
        gems_code_add(out, " : ");
        write_node(e, style, n->c, out);
        gems_code_add(out, ")");
        break;
    }
    default:
        break;
    }
}

/* Whether it takes steps: a number that is a little too small is then one that is 1 too small. */
static bool has_steps(const gems_expr *e)
{
    static const char *const steps[] = {"trunc", "floor", "ceil", "round", "frac", "div_floor", "remainder", "fmod"};
    for (unsigned i = 0; i < e->nnodes; i++)
        for (unsigned k = 0; e->nodes[i].kind == GEMS_EXPR_CALL && k < sizeof steps / sizeof *steps; k++)
            if (same(e->nodes[i].text, e->nodes[i].length, steps[k]))
                return true;
    return false;
}

void gems_expr_write(const gems_expr *expr, const gems_expr_style *given, gems_code *out)
{
    gems_expr_style own = *given, *style = &own;
    int result = 0;
    if (has_steps(expr))
        own.quotient = NULL;
    for (unsigned i = 0; i < expr->nstatements; i++) {
        const gems_expr_statement *s = &expr->statements[i];
        gems_code_add(out, "%sconst %s %s", style->indent, style->type, style->prefix);
        if (s->name)
            gems_code_add(out, "%.*s = ", s->length, s->name);
        else
            gems_code_add(out, "r%d = ", result++);
        write_node(expr, style, s->root, out);
        gems_code_add(out, ";\n");
    }
}
