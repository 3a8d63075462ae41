/* The file is JSON, and every row stands on a line of its own: so that an error can name its line, two people can edit
 * different rows, and a row can be found with grep. */
#include "shim/gen/rows.h"
#include "preload/base/text.h"
#include "shim/gen/mangle.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    const char *path, *line; /* text of the current row */
    unsigned number;
} reader;

__attribute__((format(printf, 3, 4))) static bool complain(const reader *r, size_t column, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "%s:%u:%zu: ", r->path, r->number, column);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap); /* NOLINT: clang 14 does not see va_start */
    va_end(ap);
    fputc('\n', stderr);
    return false;
}

/* ---- columns ---------------------------------------------------------------------------------------------------- */

/* p: at the quote that opens a string. */
static const char *after_string(const char *p)
{
    for (p++; *p && *p != '"'; p++)
        p += *p == '\\' && p[1];
    return p + (*p == '"');
}

/* The quote before a field's key: what is inside other strings, or lists, is no key. */
static const char *find_key(const char *line, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = line, *end; (p = strchr(p, '"')); p = end) {
        end = after_string(p);
        if (end[strspn(end, " ")] == ':' && strncmp(p + 1, key, n) == 0 && p[1 + n] == '"')
            return p;
    }
    return line;
}

static size_t column_of_key(const reader *r, const char *key)
{
    return (size_t)(find_key(r->line, key) - r->line) + 1;
}

/* Column of offset `at` of a field's value, or of the i-th string if it is a list: escapes are longer in the file than
 * in memory. */
static size_t column_in_value(const reader *r, const char *key, size_t i, size_t at)
{
    const char *p = strchr(after_string(find_key(r->line, key)), '"');
    while (p && i--)
        p = strchr(after_string(p), '"');
    if (!p)
        return column_of_key(r, key);
    for (p++; at && *p; at--)
        p += *p == '\\' ? 2 : 1;
    return (size_t)(p - r->line) + 1;
}

/* ---- a row ------------------------------------------------------------------------------------------------------ */

static bool is_true_or_string(json_t *value)
{
    return !value || json_is_true(value) || json_is_string(value);
}

static bool check_common(const reader *r, json_t *row)
{
    static const char *const strings[] = {"schema", "family", "kernel", "parts"}, *const which[] = {"aoti",
                                                                                                    "composite"};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        json_t *value = json_object_get(row, strings[i]);
        if (!value && i < 2)
            return complain(r, 1, "the row has no \"%s\"", strings[i]);
        if (value && !json_is_string(value))
            return complain(r, column_of_key(r, strings[i]), "\"%s\" must be a string", strings[i]);
    }
    for (size_t i = 0; i < sizeof which / sizeof *which; i++)
        if (!is_true_or_string(json_object_get(row, which[i])))
            return complain(r, column_of_key(r, which[i]), "\"%s\" must be true, or names of forms", which[i]);
    if (json_object_get(row, "kernel") && json_object_get(row, "parts"))
        return complain(r, column_of_key(r, "parts"), "\"parts\" of a row that has a kernel");
    json_t *itensors = json_object_get(row, "itensors"), *forms = json_object_get(row, "forms"), *form;
    if (itensors && !json_is_true(itensors))
        return complain(r, column_of_key(r, "itensors"), "\"itensors\" must be true, or left out");
    bool strings_only = !forms || (json_is_array(forms) && json_array_size(forms));
    size_t i;
    json_array_foreach(forms, i, form) strings_only &= json_is_string(form);
    return strings_only || complain(r, column_of_key(r, "forms"), "\"forms\" must be a list of strings");
}

/* An operator of the row: its schema is `text`, which this takes, and stands in the file as the i-th form (or as the
 * schema); derived: it stands there by name alone. */
static bool add_operator(const reader *r, gems_rows *rows, json_t *fields, char *text, const char *key, size_t i,
                         bool derived)
{
    rows->v = realloc(rows->v, (rows->n + 1) * sizeof *rows->v);
    if (!rows->v)
        abort();
    gems_row *row = &rows->v[rows->n++];
    *row = (gems_row){.text = text, .fields = json_incref(fields), .line = r->number};
    row->family = json_string_value(json_object_get(fields, "family"));
    row->kernel = json_string_value(json_object_get(fields, "kernel"));
    row->parts = json_string_value(json_object_get(fields, "parts"));
    gems_schema_error wrong = {0};
    if (!gems_schema_parse(text, &row->schema, &wrong))
        return complain(r, column_in_value(r, key, i, derived ? 0 : wrong.at), "%s%s%s", wrong.text,
                        derived ? " in " : "", derived ? text : "");
    bool itensors = json_object_get(fields, "itensors") != NULL, found = false;
    for (unsigned k = 0; itensors && k < row->schema.nparams; k++)
        if (row->schema.params[k].type->type == GEMS_T_TENSORS) {
            row->schema.params[k].type = gems_types_itensors();
            found = true;
        }
    if (itensors && !found)
        return complain(r, column_of_key(r, "itensors"), "\"itensors\" needs a parameter of type Tensor[]");
    row->call = gems_mangle(&row->schema, "call", false);
    row->redispatch = gems_mangle(&row->schema, "redispatch", true);
    return true;
}

static bool add_operators(const reader *r, gems_rows *rows, json_t *fields)
{
    json_t *forms = json_object_get(fields, "forms"), *form;
    size_t n = 1 + json_array_size(forms), i;
    char *schemas[n];
    schemas[0] = strdup(json_string_value(json_object_get(fields, "schema")));
    if (!add_operator(r, rows, fields, schemas[0], "schema", 0, false))
        return false;
    json_array_foreach(forms, i, form)
    {
        const char *text = json_string_value(form);
        bool whole = strchr(text, '(') != NULL;
        schemas[i + 1] = whole ? strdup(text) : gems_form_derive(text, schemas, (unsigned)i + 1);
        if (!schemas[i + 1])
            return complain(r, column_in_value(r, "forms", i, 0),
                            "no schema follows from the name '%s': write the schema", text);
        if (!add_operator(r, rows, fields, schemas[i + 1], "forms", i, !whole))
            return false;
    }
    return true;
}

/* "aoti", "composite": marks the row's operators (from `first` on) that the field means. */
static bool mark(const reader *r, const gems_rows *rows, unsigned first, const char *key,
                 bool (*set)(const reader *r, gems_row *row))
{
    json_t *value = json_object_get(rows->v[first].fields, key);
    const char *text = json_is_string(value) ? json_string_value(value) : value ? "*" : "";
    for (const char *p = text + strspn(text, " "); *p; p += strspn(p, " ")) {
        char pattern[80];
        bool found = false;
        size_t n = strcspn(p, " ");
        snprintf(pattern, sizeof pattern, "%.*s", (int)n, p);
        for (unsigned i = first; i < rows->n; i++)
            if (fnmatch(pattern, rows->v[i].schema.name, 0) == 0) {
                found = true;
                if (!set(r, &rows->v[i]))
                    return false;
            }
        if (!found)
            return complain(r, column_in_value(r, key, 0, (size_t)(p - text)), "the row has no form '%s'", pattern);
        p += n;
    }
    return true;
}

static bool set_aoti(const reader *r, gems_row *row)
{
    if (!row->aoti && asprintf(&row->aoti, "aoti_torch_cpu_%s", row->schema.strukt) < 0)
        abort();
    for (unsigned i = 0; i < row->schema.nparams; i++)
        if (!row->schema.params[i].type->aoti_c)
            return complain(r, column_of_key(r, "aoti"), "the C shim has no %s", row->schema.params[i].type->spelling);
    return true;
}

static bool set_composite(const reader *r, gems_row *row)
{
    (void)r;
    return row->composite = true;
}

static bool check_fields(const reader *r, const gems_fields *declared, const gems_rows *rows, unsigned first)
{
    gems_field_error e;
    for (unsigned i = first; i < rows->n; i++)
        if (!gems_fields_check(declared, &rows->v[i].schema, rows->v[i].fields, &e))
            return complain(r, e.at < 0 ? column_of_key(r, e.key) : column_in_value(r, e.key, 0, (size_t)e.at), "%s",
                            e.text);
    return true;
}

static bool read_row(const reader *r, const gems_fields *declared, gems_rows *rows)
{
    json_error_t error;
    size_t n = strlen(r->line);
    while (n && (r->line[n - 1] == ',' || isspace((unsigned char)r->line[n - 1])))
        n--;
    json_t *fields = json_loadb(r->line, n, JSON_REJECT_DUPLICATES, &error);
    if (!fields)
        return complain(r, (size_t)error.column, "%s", error.text);
    unsigned first = rows->n;
    bool ok = check_common(r, fields) && add_operators(r, rows, fields) && mark(r, rows, first, "aoti", set_aoti) &&
              mark(r, rows, first, "composite", set_composite) && check_fields(r, declared, rows, first);
    json_decref(fields);
    return ok;
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

static unsigned read_lines(reader *r, FILE *file, const gems_fields *declared, gems_rows *rows, bool *ok)
{
    char *line = NULL, *before = strdup("");
    size_t room = 0;
    unsigned n = 0;
    while (*ok && getline(&line, &room, file) > 0) {
        r->number++;
        if (line[strspn(line, " \t")] != '{')
            continue;
        n++;
        r->line = line;
        unsigned first = rows->n;
        *ok = read_row(r, declared, rows);
        if (*ok && strcmp(before, rows->v[first].schema.strukt) > 0)
            *ok =
                complain(r, 1, "rows are sorted by struct: %s belongs before %s", rows->v[first].schema.strukt, before);
        free(before);
        before = strdup(*ok ? rows->v[first].schema.strukt : "");
    }
    free(before);
    free(line);
    return n;
}

static int by_struct(const void *a, const void *b)
{
    const gems_row *x = a, *y = b;
    int order = strcmp(x->schema.strukt, y->schema.strukt);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static bool sort(reader *r, gems_rows *rows)
{
    qsort(rows->v, rows->n, sizeof *rows->v, by_struct);
    for (unsigned i = 1; i < rows->n; i++)
        if (strcmp(rows->v[i - 1].schema.strukt, rows->v[i].schema.strukt) == 0) {
            r->number = rows->v[i].line;
            return complain(r, 1, "%s for a second time, the first is on line %u", rows->v[i].schema.name,
                            rows->v[i - 1].line);
        }
    return true;
}

static bool has_kernel(const gems_rows *rows, const char *name)
{
    for (unsigned i = 0; i < rows->n; i++)
        if (strcmp(rows->v[i].schema.name, name) == 0)
            return rows->v[i].kernel != NULL;
    return false;
}

/* "parts": each has a kernel. Known only when all rows are. */
static bool check_parts(reader *r, const gems_rows *rows)
{
    char name[100];
    for (unsigned i = 0; i < rows->n; i++) {
        const char *parts = rows->v[i].parts;
        if (!parts || strcmp(parts, "none") == 0)
            continue;
        r->number = rows->v[i].line;
        if (!parts[strspn(parts, " ")])
            return complain(r, 1, "\"parts\" of %s is empty", rows->v[i].schema.name);
        while (gems_word_copy(&parts, " ", name, sizeof name))
            if (!has_kernel(rows, name))
                return complain(r, 1, "'%s' in \"parts\" of %s has no kernel", name, rows->v[i].schema.name);
    }
    return true;
}

bool gems_rows_read(const char *path, const gems_fields *declared, gems_rows *rows)
{
    reader r = {.path = path};
    json_error_t error;
    memset(rows, 0, sizeof *rows);
    json_t *whole = json_load_file(path, 0, &error);
    if (!whole) {
        r.number = error.line > 0 ? (unsigned)error.line : 1;
        return complain(&r, error.column > 0 ? (size_t)error.column : 1, "%s", error.text);
    }
    FILE *file = fopen(path, "r");
    bool ok = file != NULL;
    unsigned n = ok ? read_lines(&r, file, declared, rows, &ok) : 0;
    if (file)
        fclose(file);
    if (ok && json_array_size(whole) != n) {
        r.number = 1;
        ok = complain(&r, 1, "one row a line: found %u lines that begin with '{' for %zu rows", n,
                      json_array_size(whole));
    }
    json_decref(whole);
    return ok && sort(&r, rows) && check_parts(&r, rows);
}

void gems_rows_free(gems_rows *rows)
{
    for (unsigned i = 0; i < rows->n; i++) {
        gems_row *row = &rows->v[i];
        gems_schema_free(&row->schema);
        json_decref(row->fields);
        free(row->text);
        free(row->aoti);
        free(row->call);
        free(row->redispatch);
    }
    free(rows->v);
    memset(rows, 0, sizeof *rows);
}
