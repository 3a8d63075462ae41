/* Recursive descent over one schema. The first error wins; its place is an offset, which the caller turns into line and
 * column of the file. */
#include "shim/gen/schema.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct cursor {
    const char *start, *p;
    gems_schema_error *error;
} cursor;

__attribute__((format(printf, 3, 4))) static bool fail_at(cursor *c, const char *where, const char *fmt, ...)
{
    va_list ap;
    c->error->at = (size_t)(where - c->start);
    va_start(ap, fmt);
    vsnprintf(c->error->text, sizeof c->error->text, fmt, ap); /* NOLINT: clang 14 does not see va_start */
    va_end(ap);
    return false;
}

static void skip_space(cursor *c)
{
    while (*c->p == ' ')
        c->p++;
}

static bool accept(cursor *c, const char *token)
{
    skip_space(c);
    size_t n = strlen(token);
    if (strncmp(c->p, token, n) != 0)
        return false;
    c->p += n;
    return true;
}

static bool expect(cursor *c, const char *token)
{
    if (accept(c, token))
        return true;
    if (!*c->p)
        return fail_at(c, c->p, "expected '%s', found the end", token);
    return fail_at(c, c->p, "expected '%s', found '%c'", token, *c->p);
}

static bool identifier(cursor *c, const char *what, char **out)
{
    skip_space(c);
    const char *from = c->p;
    while (isalnum((unsigned char)*c->p) || *c->p == '_')
        c->p++;
    if (c->p == from || isdigit((unsigned char)*from)) {
        c->p = from;
        return fail_at(c, from, "expected %s", what);
    }
    *out = strndup(from, (size_t)(c->p - from));
    return true;
}

/* (a), (a!), (a -> *): only the letter and whether it is written matter. */
static bool alias(cursor *c, gems_schema_item *item)
{
    if (!islower((unsigned char)*c->p))
        return fail_at(c, c->p, "expected the letter of an alias set");
    item->alias = *c->p++;
    item->written = *c->p == '!';
    if (item->written)
        c->p++;
    (void)(accept(c, "->") && accept(c, "*"));
    return expect(c, ")");
}

/* A type with its suffixes, as one row of the table: the spelling is gathered without sizes and alias sets. */
static bool type(cursor *c, gems_schema_item *item)
{
    skip_space(c);
    const char *from = c->p;
    char *base = NULL, spelling[64];
    if (!identifier(c, "a type", &base))
        return false;
    snprintf(spelling, sizeof spelling - 8, "%s", base);
    free(base);
    for (;;) {
        if (*c->p == '(' && item->alias == 0) {
            c->p++;
            if (!alias(c, item))
                return false;
        } else if (*c->p == '[') {
            c->p++;
            if (isdigit((unsigned char)*c->p))
                item->size = (unsigned)strtoul(c->p, (char **)&c->p, 10);
            if (!expect(c, "]"))
                return false;
            strcat(spelling, "[]");
        } else if (*c->p == '?') {
            c->p++;
            strcat(spelling, "?");
        } else {
            break;
        }
        if (strlen(spelling) > sizeof spelling - 8)
            return fail_at(c, from, "too many suffixes");
    }
    item->type = gems_types_find(spelling);
    if (!item->type)
        return fail_at(c, from, "unknown type '%s'", spelling);
    if (item->written) {
        if (item->type->type != GEMS_T_TENSOR)
            return fail_at(c, from, "'%s' cannot be written", spelling);
        item->type = gems_types_written_tensor();
    }
    if (item->type->type == GEMS_T_BOOLS && (item->size < 2 || item->size > 4))
        return fail_at(c, from, "bool[n] needs n from 2 to 4");
    return true;
}

/* A default value is skipped: the host fills defaults in before it calls. Brackets and quotes may hide commas. */
static bool skip_default(cursor *c)
{
    const char *from = c->p;
    int depth = 0;
    for (; *c->p; c->p++) {
        if (*c->p == '"' || *c->p == '\'') {
            const char *end = strchr(c->p + 1, *c->p);
            if (!end)
                return fail_at(c, c->p, "unterminated string");
            c->p = end;
        } else if (*c->p == '[') {
            depth++;
        } else if (*c->p == ']') {
            depth--;
        } else if (depth == 0 && (*c->p == ',' || *c->p == ')')) {
            break;
        }
    }
    if (c->p == from)
        return fail_at(c, from, "expected a default value");
    return true;
}

static gems_schema_item *append(gems_schema_item **items, unsigned *n)
{
    *items = realloc(*items, (*n + 1) * sizeof **items);
    if (!*items)
        abort();
    gems_schema_item *item = &(*items)[(*n)++];
    memset(item, 0, sizeof *item);
    return item;
}

static bool parameters(cursor *c, gems_schema *s)
{
    if (!expect(c, "("))
        return false;
    if (accept(c, ")"))
        return true;
    do {
        if (accept(c, "*"))
            continue; /* what follows is by keyword: C++ does not care */
        gems_schema_item *item = append(&s->params, &s->nparams);
        if (!type(c, item) || !identifier(c, "a parameter name", &item->name))
            return false;
        if (s->nparams > GEMS_MAX_ARGS)
            return fail_at(c, c->p, "more than %d parameters", GEMS_MAX_ARGS);
        if (accept(c, "=") && !skip_default(c))
            return false;
    } while (accept(c, ","));
    return expect(c, ")");
}

static bool result(cursor *c, gems_schema *s)
{
    gems_schema_item *item = append(&s->results, &s->nresults);
    if (s->nresults > GEMS_MAX_RESULTS)
        return fail_at(c, c->p, "more than %d results", GEMS_MAX_RESULTS);
    if (!type(c, item))
        return false;
    skip_space(c);
    if (isalpha((unsigned char)*c->p))
        return identifier(c, "a result name", &item->name);
    item->name = strdup("");
    return true;
}

static bool results(cursor *c, gems_schema *s)
{
    if (!expect(c, "->"))
        return false;
    if (!accept(c, "("))
        return result(c, s);
    if (accept(c, ")"))
        return true;
    do {
        if (!result(c, s))
            return false;
    } while (accept(c, ","));
    return expect(c, ")");
}

static bool name(cursor *c, gems_schema *s)
{
    if (!identifier(c, "an operator name", &s->base))
        return false;
    if (*c->p == '.') {
        c->p++;
        if (!identifier(c, "an overload name", &s->overload))
            return false;
    } else {
        s->overload = strdup("");
    }
    const char *o = s->overload;
    if (asprintf(&s->name, "%s%s%s", s->base, *o ? "." : "", o) < 0 ||
        asprintf(&s->strukt, "%s%s%s", s->base, *o ? "_" : "", o) < 0)
        abort();
    return true;
}

/* In-place: the first parameter is written, and no other. Out: the last ones are, one for each result. */
static gems_form form_of(const gems_schema *s)
{
    unsigned written = 0;
    for (unsigned i = 0; i < s->nparams; i++)
        written += s->params[i].written;
    if (written == 1 && s->params[0].written)
        return GEMS_INPLACE;
    if (written == 0 || written != s->nresults)
        return GEMS_FUNCTIONAL;
    for (unsigned i = s->nparams - written; i < s->nparams; i++)
        if (!s->params[i].written)
            return GEMS_FUNCTIONAL;
    return GEMS_OUT;
}

bool gems_schema_parse(const char *text, gems_schema *out, gems_schema_error *error)
{
    cursor c = {text, text, error};
    memset(out, 0, sizeof *out);
    if (!name(&c, out) || !parameters(&c, out) || !results(&c, out))
        goto bad;
    skip_space(&c);
    if (*c.p) {
        fail_at(&c, c.p, "unexpected '%c' after the results", *c.p);
        goto bad;
    }
    out->form = form_of(out);
    return true;
bad:
    gems_schema_free(out);
    return false;
}

void gems_schema_free(gems_schema *s)
{
    for (unsigned i = 0; i < s->nparams; i++)
        free(s->params[i].name);
    for (unsigned i = 0; i < s->nresults; i++)
        free(s->results[i].name);
    free(s->params);
    free(s->results);
    free(s->name);
    free(s->base);
    free(s->overload);
    free(s->strukt);
    memset(s, 0, sizeof *s);
}

int gems_schema_returned(const gems_schema *s)
{
    if (s->nresults != 1 || !s->results[0].written)
        return -1;
    for (unsigned i = 0; i < s->nparams; i++)
        if (s->params[i].written && s->params[i].alias == s->results[0].alias)
            return (int)i;
    return -1;
}
