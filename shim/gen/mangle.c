/* Encodes with substitutions: every prefix, template and type that was written once is later named S_, S0_, S1_ ...
 * Input is the plain encoding of each parameter (types.c), which is its own key: two components are the same if their
 * plain encodings are. Only what the table uses is understood: R, K, builtins, N...E, St names, templates, Lm literals.
 */
#include "shim/gen/mangle.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct mangler {
    FILE *out;
    char seen[64][192]; /* plain encodings of the components, in order of appearance */
    unsigned nseen;
} mangler;

static int find(const mangler *m, const char *from, const char *to)
{
    size_t n = (size_t)(to - from);
    for (unsigned i = 0; i < m->nseen; i++)
        if (strlen(m->seen[i]) == n && memcmp(m->seen[i], from, n) == 0)
            return (int)i;
    return -1;
}

static void add(mangler *m, const char *from, const char *to)
{
    size_t n = (size_t)(to - from);
    if (m->nseen == sizeof m->seen / sizeof *m->seen || n >= sizeof *m->seen)
        abort();
    memcpy(m->seen[m->nseen], from, n);
    m->seen[m->nseen++][n] = 0;
}

/* S_ is the first, then S0_, S1_ ... in base 36. */
static void substitute(const mangler *m, int i)
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    fputc('S', m->out);
    if (i > 36)
        fputc(digits[(i - 1) / 36], m->out);
    if (i > 0)
        fputc(digits[(i - 1) % 36], m->out);
    fputc('_', m->out);
}

static const char *end_of_source_name(const char *p)
{
    char *name;
    unsigned long n = strtoul(p, &name, 10);
    return name + n;
}

static const char *end_of_type(const char *p);
static const char *end_of_arguments(const char *p)
{
    p++; /* I */
    while (*p != 'E') {
        if (*p == 'L')
            p = strchr(p, 'E') + 1;
        else
            p = end_of_type(p);
    }
    return p + 1;
}

static const char *end_of_type(const char *p)
{
    while (*p == 'R' || *p == 'K')
        p++;
    if (*p == 'N') {
        for (p++; *p != 'E';)
            p = *p == 'I' ? end_of_arguments(p) : end_of_source_name(p);
        return p + 1;
    }
    if (strncmp(p, "St", 2) == 0) {
        p = end_of_source_name(p + 2);
        return *p == 'I' ? end_of_arguments(p) : p;
    }
    return p + 1;
}

static void emit_type(mangler *m, const char *p);
static void emit_arguments(mangler *m, const char *p)
{
    fputc('I', m->out);
    for (p++; *p != 'E';) {
        const char *end = *p == 'L' ? strchr(p, 'E') + 1 : end_of_type(p);
        if (*p == 'L')
            fwrite(p, 1, (size_t)(end - p), m->out);
        else
            emit_type(m, p);
        p = end;
    }
    fputc('E', m->out);
}

/* Names and template arguments from `from` (the first name) up to `end`; each prefix is a component. The longest one
 * seen before is written as a substitution. `fixed`: length of what cannot be substituted by itself ("St"). */
static void emit_prefixes(mangler *m, const char *from, const char *end, size_t fixed)
{
    const char *done = from + fixed;
    for (const char *p = done; p < end;) {
        p = *p == 'I' ? end_of_arguments(p) : end_of_source_name(p);
        if (find(m, from, p) >= 0)
            done = p;
    }
    if (done > from + fixed)
        substitute(m, find(m, from, done));
    else
        fwrite(from, 1, fixed, m->out);
    while (done < end) {
        const char *next = *done == 'I' ? end_of_arguments(done) : end_of_source_name(done);
        if (*done == 'I')
            emit_arguments(m, done);
        else
            fwrite(done, 1, (size_t)(next - done), m->out);
        done = next;
        add(m, from, done);
    }
}

static void emit_type(mangler *m, const char *p)
{
    const char *end = end_of_type(p);
    if (end == p + 1) { /* a builtin is never substituted */
        fputc(*p, m->out);
        return;
    }
    bool nested = *p == 'N';
    const char *key = nested ? p + 1 : p, *key_end = nested ? end - 1 : end; /* a nested type is its last prefix */
    int i = find(m, key, key_end);
    if (i >= 0) {
        substitute(m, i);
    } else if (*p == 'R' || *p == 'K') {
        fputc(*p, m->out);
        emit_type(m, p + 1);
        add(m, p, end);
    } else if (nested) {
        fputc('N', m->out);
        emit_prefixes(m, key, key_end, 0);
        fputc('E', m->out);
    } else {
        emit_prefixes(m, p, end, 2);
    }
}

char *gems_mangle(const gems_schema *s, const char *function, bool keyset)
{
    char *text, *scope;
    size_t n;
    mangler m = {.out = open_memstream(&text, &n)};
    if (!m.out || asprintf(&scope, "2at4_ops%zu%s", strlen(s->strukt), s->strukt) < 0)
        abort();
    fputs("_ZN", m.out);
    emit_prefixes(&m, scope, scope + strlen(scope), 0);
    fprintf(m.out, "%zu%sE", strlen(function), function);
    if (keyset)
        emit_type(&m, "N3c1014DispatchKeySetE");
    for (unsigned i = 0; i < s->nparams; i++) {
        char plain[128];
        snprintf(plain, sizeof plain, s->params[i].type->mangled, s->params[i].size);
        emit_type(&m, plain);
    }
    if (!keyset && s->nparams == 0)
        fputc('v', m.out);
    fclose(m.out);
    free(scope);
    return text;
}
