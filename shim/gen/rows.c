/* The file is JSON, and every row stands on a line of its own: so that an error can name its line, two people can edit
 * different rows, and a row can be found with grep. */
#include "shim/gen/rows.h"
#include "shim/gen/mangle.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const struct known {
    const char *key;
    json_type type;
    bool inherited; /* by "as" */
} known[] = {
    {"schema", JSON_STRING, false}, {"family", JSON_STRING, true}, {"kernel", JSON_STRING, true},
    {"aoti", JSON_STRING, false},   {"as", JSON_STRING, false},    {"composite", JSON_TRUE, false},
    {"itensors", JSON_TRUE, false},
};

static const struct known *find_known(const char *key)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].key, key) == 0)
            return &known[i];
    return NULL;
}

bool gems_rows_is_known(const char *key)
{
    return find_known(key) != NULL;
}

typedef struct reader {
    const char *path, *line; /* text of the current row */
    unsigned number;
} reader;

static bool complain(const reader *r, size_t column, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool complain(const reader *r, size_t column, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "%s:%u:%zu: ", r->path, r->number, column);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap); /* NOLINT: clang 14 does not see va_start */
    va_end(ap);
    fputc('\n', stderr);
    return false;
}

/* Column of a field's key in the line, from 1. */
static size_t column_of_key(const reader *r, const char *key)
{
    char quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *at = strstr(r->line, quoted);
    return at ? (size_t)(at - r->line) + 1 : 1;
}

/* Column of offset `at` of the schema's text: escapes are longer in the file than in memory. */
static size_t column_in_schema(const reader *r, size_t at)
{
    const char *p = strchr(r->line + column_of_key(r, "schema") + strlen("schema"), ':');
    p = p ? strchr(p, '"') : NULL;
    if (!p)
        return 1;
    for (p++; at && *p; at--)
        p += *p == '\\' ? 2 : 1;
    return (size_t)(p - r->line) + 1;
}

static bool check_fields(const reader *r, json_t *fields)
{
    const char *key;
    json_t *value;
    json_object_foreach(fields, key, value)
    {
        const struct known *k = find_known(key);
        if (k && json_typeof(value) != k->type)
            return complain(r, column_of_key(r, key), "\"%s\" must be %s", key,
                            k->type == JSON_TRUE ? "true, or left out" : "a string");
    }
    if (!json_object_get(fields, "schema"))
        return complain(r, 1, "the row has no \"schema\"");
    return true;
}

static bool is_c_name(const char *s)
{
    if (!isalpha((unsigned char)*s) && *s != '_')
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && *s != '_')
            return false;
    return true;
}

static bool read_row(const reader *r, gems_row *row)
{
    json_error_t error;
    size_t n = strlen(r->line);
    while (n && (r->line[n - 1] == ',' || isspace((unsigned char)r->line[n - 1])))
        n--;
    row->fields = json_loadb(r->line, n, JSON_REJECT_DUPLICATES, &error);
    if (!row->fields)
        return complain(r, (size_t)error.column, "%s", error.text);
    if (!check_fields(r, row->fields))
        return false;
    row->line = r->number;
    row->text = json_string_value(json_object_get(row->fields, "schema"));
    row->aoti = json_string_value(json_object_get(row->fields, "aoti"));
    row->composite = json_is_true(json_object_get(row->fields, "composite"));

    gems_schema_error wrong = {0};
    if (!gems_schema_parse(row->text, &row->schema, &wrong))
        return complain(r, column_in_schema(r, wrong.at), "%s", wrong.text);
    bool itensors = json_is_true(json_object_get(row->fields, "itensors")), found = false;
    for (unsigned i = 0; itensors && i < row->schema.nparams; i++)
        if (row->schema.params[i].type->type == GEMS_T_TENSORS) {
            row->schema.params[i].type = gems_types_itensors();
            found = true;
        }
    if (itensors && !found)
        return complain(r, column_of_key(r, "itensors"), "\"itensors\" needs a parameter of type Tensor[]");
    row->call = gems_mangle(&row->schema, "call", false);
    row->redispatch = gems_mangle(&row->schema, "redispatch", true);
    return true;
}

static const gems_row *find_row(const gems_rows *rows, const char *name)
{
    for (unsigned i = 0; i < rows->n; i++)
        if (strcmp(rows->v[i].schema.name, name) == 0)
            return &rows->v[i];
    return NULL;
}

/* "as": every field that the row does not have itself comes from the named row. */
static bool inherit(const reader *r, const gems_rows *rows, gems_row *row)
{
    const char *as = json_string_value(json_object_get(row->fields, "as"));
    if (!as)
        return true;
    size_t column = column_of_key(r, "as");
    const gems_row *from = find_row(rows, as);
    if (!from)
        return complain(r, column, "\"as\" names '%s', which no row has", as);
    if (json_object_get(from->fields, "as"))
        return complain(r, column, "\"as\" names '%s', which inherits itself: name the row it inherits from", as);
    const char *key;
    json_t *value;
    json_object_foreach(from->fields, key, value)
    {
        const struct known *k = find_known(key);
        if ((!k || k->inherited) && !json_object_get(row->fields, key))
            json_object_set(row->fields, key, value);
    }
    return true;
}

static bool finish(const reader *r, const gems_rows *rows, gems_row *row)
{
    if (!inherit(r, rows, row))
        return false;
    row->family = json_string_value(json_object_get(row->fields, "family"));
    row->kernel = json_string_value(json_object_get(row->fields, "kernel"));
    if (!row->family)
        return complain(r, 1, "the row has no \"family\"");
    if (row->kernel && !is_c_name(row->kernel))
        return complain(r, column_of_key(r, "kernel"), "\"kernel\" must be the stem of a C name");
    if (row->aoti && !is_c_name(row->aoti))
        return complain(r, column_of_key(r, "aoti"), "\"aoti\" must be a C name");
    for (unsigned i = 0; row->aoti && i < row->schema.nparams; i++)
        if (!row->schema.params[i].type->aoti_c)
            return complain(r, column_of_key(r, "aoti"), "the C shim has no %s", row->schema.params[i].type->spelling);
    return true;
}

/* The row of one line, at the end of `rows`. */
static bool append_line(reader *r, const char *line, gems_rows *rows)
{
    rows->v = realloc(rows->v, (rows->n + 1) * sizeof *rows->v);
    if (!rows->v)
        abort();
    gems_row *row = &rows->v[rows->n++];
    memset(row, 0, sizeof *row);
    r->line = row->source = strdup(line);
    if (!read_row(r, row))
        return false;
    if (rows->n == 1)
        return true;
    const gems_row *before = row - 1;
    int order = strcmp(before->schema.strukt, row->schema.strukt);
    if (order == 0)
        return complain(r, 1, "a second row for %s, the first is on line %u", row->schema.strukt, before->line);
    if (order > 0)
        return complain(r, 1, "rows are sorted by struct: %s belongs before %s", row->schema.strukt,
                        before->schema.strukt);
    return true;
}

static bool read_lines(reader *r, FILE *file, gems_rows *rows)
{
    char *line = NULL;
    size_t room = 0;
    bool ok = true;
    while (ok && getline(&line, &room, file) > 0) {
        r->number++;
        char *p = line + strspn(line, " \t");
        if (*p == '{')
            ok = append_line(r, line, rows);
    }
    free(line);
    return ok;
}

bool gems_rows_read(const char *path, gems_rows *rows)
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
    bool ok = file && read_lines(&r, file, rows);
    if (file)
        fclose(file);
    if (ok && json_array_size(whole) != rows->n) {
        r.number = 1;
        ok = complain(&r, 1, "one row a line: found %u lines that begin with '{' for %zu rows", rows->n,
                      json_array_size(whole));
    }
    for (unsigned i = 0; ok && i < rows->n; i++) {
        r.line = rows->v[i].source;
        r.number = rows->v[i].line;
        ok = finish(&r, rows, &rows->v[i]);
    }
    json_decref(whole);
    return ok;
}

void gems_rows_free(gems_rows *rows)
{
    for (unsigned i = 0; i < rows->n; i++) {
        gems_row *row = &rows->v[i];
        gems_schema_free(&row->schema);
        json_decref(row->fields);
        free(row->call);
        free(row->redispatch);
        free(row->source);
    }
    free(rows->v);
    memset(rows, 0, sizeof *rows);
}
