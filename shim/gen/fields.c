/* Reading of the families' declarations, and the checks of rows against them. */
#include "shim/gen/fields.h"
#include "codegen/expr.h"
#include "kernels/tensor/promote.h"
#include "preload/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD 64

static bool next_word(const char **text, char word[WORD])
{
    return gems_word_copy(text, " \t\n", word, WORD);
}

/* ---- declarations ---------------------------------------------------------------------------------------------- */

static bool is_kind(const char *word)
{
    static const char *const kinds[] = {"<param>",     "<params>", "<tensor>", "<tensors>", "<dtype>",     "<dtypes>",
                                        "<promotion>", "<word>",   "<words>",  "<text>",    "<expression>"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i], word) == 0)
            return true;
    return *word != '<';
}

static void add(gems_fields *f, const char *kernel, const char *key, const char *takes, bool needed)
{
    f->v = realloc(f->v, (f->n + 1) * sizeof *f->v);
    if (!f->v)
        abort();
    f->v[f->n++] = (gems_field){strdup(kernel), key ? strdup(key) : NULL, takes ? strdup(takes) : NULL, needed};
}

/* One line, its remark cut off. kernels: the words after the last "kernel". */
static const char *declare(gems_fields *f, const char *line, char *kernels, size_t room)
{
    char word[WORD], kernel[WORD];
    if (!next_word(&line, word))
        return NULL;
    if (strcmp(word, "kernel") == 0) {
        snprintf(kernels, room, "%s", line);
        for (const char *k = kernels; next_word(&k, kernel);)
            add(f, kernel, NULL, NULL, false);
        return NULL;
    }
    bool needed = word[strlen(word) - 1] == '!';
    word[strlen(word) - needed] = 0;
    line += strspn(line, " ");
    char *takes = strndup(line, strcspn(line, "\n"));
    for (size_t n = strlen(takes); n && takes[n - 1] == ' ';)
        takes[--n] = 0;
    const char *wrong = !*kernels ? "a field before any kernel" : !*takes ? "a field that takes nothing" : NULL;
    for (const char *t = takes; !wrong && next_word(&t, kernel);)
        if (!is_kind(kernel))
            wrong = "an unknown <kind> of value";
    for (const char *k = kernels; !wrong && next_word(&k, kernel);)
        add(f, kernel, word, takes, needed);
    free(takes);
    return wrong;
}

bool gems_fields_read(const char *path, gems_fields *fields)
{
    FILE *file = fopen(path, "r");
    char *line = NULL, kernels[400] = "";
    size_t room = 0;
    const char *wrong = NULL;
    if (!file) {
        perror(path);
        return false;
    }
    for (unsigned number = 1; !wrong && getline(&line, &room, file) > 0; number++) {
        line[strcspn(line, "#")] = 0;
        if ((wrong = declare(fields, line, kernels, sizeof kernels)))
            fprintf(stderr, "%s:%u:1: %s\n", path, number, wrong);
    }
    free(line);
    fclose(file);
    return !wrong;
}

void gems_fields_free(gems_fields *fields)
{
    for (unsigned i = 0; i < fields->n; i++) {
        free(fields->v[i].kernel);
        free(fields->v[i].key);
        free(fields->v[i].takes);
    }
    free(fields->v);
    fields->v = NULL;
    fields->n = 0;
}

/* ---- values ----------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 4, 5))) static bool fail(gems_field_error *e, const char *key, int at, const char *fmt,
                                                       ...)
{
    va_list args;
    e->key = key;
    e->at = at;
    va_start(args, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, args); /* NOLINT: clang 14 does not see va_start */
    va_end(args);
    return false;
}

static bool is_dtype(const char *word)
{
    return gems_dtype_find(word) != GEMS_DTYPE_NONE || strcmp(word, "int") == 0 || strcmp(word, "float") == 0;
}

static bool is_param(const gems_schema *s, const char *word, bool tensor)
{
    for (unsigned i = 0; i < s->nparams; i++)
        if (strcmp(s->params[i].name, word) == 0)
            return !tensor || s->params[i].type->type == GEMS_T_TENSOR || s->params[i].type->type == GEMS_T_OPT_TENSOR;
    return false;
}

/* kind: a word of a declaration. */
static bool fits(const char *kind, const char *word, const gems_schema *s)
{
    if (strncmp(kind, "<param", 6) == 0 || strncmp(kind, "<tensor", 7) == 0)
        return is_param(s, word, kind[1] == 't');
    if (strncmp(kind, "<dtype", 6) == 0)
        return is_dtype(word);
    if (strcmp(kind, "<promotion>") == 0)
        return gems_promotion_find(word, strlen(word)) != GEMS_PROMOTE_COUNT;
    return strncmp(kind, "<word", 5) == 0 || strcmp(kind, word) == 0;
}

/* Where the value departs from what one alternative takes; -1: nowhere. Goes on to the next alternative. */
static int departs(const char **takes, const char *value, const gems_schema *s)
{
    char kind[WORD], word[WORD];
    const char *v = value;
    int at = -1;
    while (next_word(takes, kind) && strcmp(kind, "|") != 0) {
        bool many = *kind == '<' && strstr(kind, "s>");
        do {
            const char *here = v + strspn(v, " ");
            bool there = next_word(&v, word);
            if (many && !there)
                break;
            if (at < 0 && !(there && fits(kind, word, s)))
                at = (int)(here - value);
        } while (many);
    }
    v += strspn(v, " ");
    return at < 0 && *v ? (int)(v - value) : at;
}

static bool check_words(const gems_field *f, const char *value, const gems_schema *s, gems_field_error *e)
{
    int furthest = 0;
    for (const char *takes = f->takes; *takes;) {
        int at = departs(&takes, value, s);
        if (at < 0)
            return true;
        furthest = at > furthest ? at : furthest;
    }
    char word[WORD];
    const char *rest = value + furthest;
    bool there = next_word(&rest, word);
    return fail(e, f->key, furthest, "%s%s%s in \"%s\" of %s, which takes %s", there ? "'" : "nothing",
                there ? word : "", there ? "'" : " more", f->key, s->name, f->takes);
}

static bool check_expression(const gems_fields *declared, const gems_field *f, const char *value, const gems_schema *s,
                             gems_field_error *e)
{
    const char *names[GEMS_MAX_ARGS], *takes = f->takes;
    char words[GEMS_MAX_ARGS][WORD];
    unsigned n = 0, wanted = s->nresults ? s->nresults : 1;
    next_word(&takes, words[0]);
    for (; n < GEMS_MAX_ARGS && next_word(&takes, words[n]); n++)
        names[n] = words[n];
    bool own = n == 0;
    for (; own && n < s->nparams; n++)
        names[n] = s->params[n].name;
    gems_expr_error error;
    gems_expr *expr = gems_expr_parse(value, names, n, declared->functions, &error);
    if (!expr)
        return fail(e, f->key, (int)error.at, "%s", error.text);
    unsigned results = gems_expr_result_count(expr);
    gems_expr_free(expr);
    if (own && results != wanted)
        return fail(e, f->key, 0, "\"%s\" has %u results, %s has %u", f->key, results, s->name, wanted);
    return true;
}

bool gems_fields_common(const char *key)
{
    static const char *const common[] = {"schema", "forms", "family",    "kernel",
                                         "parts",  "aoti",  "composite", "itensors"};
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        if (strcmp(common[i], key) == 0)
            return true;
    return false;
}

static const gems_field *find(const gems_fields *declared, const char *kernel, const char *key)
{
    for (unsigned i = 0; kernel && i < declared->n; i++) {
        const gems_field *f = &declared->v[i];
        if (strcmp(f->kernel, kernel) == 0 && (key ? f->key && strcmp(f->key, key) == 0 : !f->key))
            return f;
    }
    return NULL;
}

static bool unknown(const gems_fields *declared, const char *kernel, const char *key, gems_field_error *e)
{
    char keys[300];
    gems_text list = gems_text_in(keys, sizeof keys);
    for (unsigned i = 0; kernel && i < declared->n; i++)
        if (declared->v[i].key && strcmp(declared->v[i].kernel, kernel) == 0)
            gems_text_put(&list, " %s", declared->v[i].key);
    return fail(e, key, -1, "unknown field \"%s\"; kernel %s takes%s", key, kernel ? kernel : "(none)",
                list.n ? keys : " none");
}

bool gems_fields_check(const gems_fields *declared, const gems_schema *s, json_t *row, gems_field_error *error)
{
    const char *kernel = json_string_value(json_object_get(row, "kernel")), *key;
    json_t *value;
    if (kernel && !find(declared, kernel, NULL))
        return fail(error, "kernel", 0, "no kernels/*/fields declares the kernel '%s'", kernel);
    json_object_foreach(row, key, value)
    {
        if (gems_fields_common(key))
            continue;
        const gems_field *f = find(declared, kernel, key);
        const char *text = json_string_value(value);
        if (!f)
            return unknown(declared, kernel, key, error);
        if (!text)
            return fail(error, key, -1, "\"%s\" must be a string", key);
        if (strncmp(f->takes, "<expression>", 12) == 0 ? !check_expression(declared, f, text, s, error)
            : strcmp(f->takes, "<text>") == 0          ? !*text && !fail(error, key, 0, "\"%s\" is empty", key)
                                                       : !check_words(f, text, s, error))
            return false;
    }
    for (unsigned i = 0; kernel && i < declared->n; i++) {
        const gems_field *f = &declared->v[i];
        if (f->needed && strcmp(f->kernel, kernel) == 0 && !json_object_get(row, f->key))
            return fail(error, "kernel", -1, "a row of kernel %s needs the field \"%s\"", kernel, f->key);
    }
    return true;
}
