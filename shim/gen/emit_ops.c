/* ops.c: the operators as data (kernels/call.h), their symbols and their gates (shim/thunk.h); and exports.map. */
#include "shim/gen/rows.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static void emit_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            fprintf(f, "\\%c", *s);
        else if ((unsigned char)*s < ' ')
            fprintf(f, "\\%03o", (unsigned char)*s);
        else
            fputc(*s, f);
    }
    fputc('"', f);
}

static void emit_params(FILE *f, const gems_schema *s)
{
    fprintf(f, "static const gems_param %s_params[] = {", s->strukt);
    for (unsigned i = 0; i < s->nparams; i++) {
        const gems_schema_item *p = &s->params[i];
        fprintf(f, "%s{\"%s\", %s, %d, %u}", i ? ", " : "", p->name, p->type->name, p->written,
                p->type->type == GEMS_T_BOOLS ? p->size : 0);
    }
    fputs(s->nparams ? "};\n" : "{NULL, GEMS_T_VOID, 0, 0}};\n", f);
}

/* The fields of the row's kernel. */
static void emit_attrs(FILE *f, const gems_row *row)
{
    const char *key;
    json_t *value;
    fprintf(f, "static const gems_attr %s_attrs[] = {", row->schema.strukt);
    json_object_foreach(row->fields, key, value)
    {
        if (gems_fields_common(key))
            continue;
        fprintf(f, "{\"%s\", ", key);
        emit_string(f, json_string_value(value));
        fputs("}, ", f);
    }
    fputs("{NULL, NULL}};\n", f);
}

static void emit_op(FILE *f, const gems_row *row, unsigned index)
{
    static const char *const forms[] = {"GEMS_FUNCTIONAL", "GEMS_INPLACE", "GEMS_OUT"};
    const gems_schema *s = &row->schema;
    fprintf(f, "    {.name = \"%s\", .base = \"%s\", .overload = \"%s\", .strukt = \"%s\",\n     .schema = ", s->name,
            s->base, s->overload, s->strukt);
    emit_string(f, row->text);
    fputs(",\n     .family = ", f);
    emit_string(f, row->family);
    if (row->kernel)
        fprintf(f, ", .kernel = &gems_family_%s", row->kernel);
    if (row->parts) {
        fputs(", .parts = ", f);
        emit_string(f, row->parts);
    }
    fprintf(f, ", .params = %s_params, .attrs = %s_attrs,\n     .index = %u, .nparams = %u, .nresults = %u, .form = %s",
            s->strukt, s->strukt, index, s->nparams, s->nresults, forms[s->form]);
    if (s->nresults) {
        fputs(", .result = {", f);
        for (unsigned i = 0; i < s->nresults; i++)
            fprintf(f, "%s%s", i ? ", " : "", s->results[i].type->name);
        fputs("}", f);
    }
    fprintf(f, ", .composite = %d},\n", row->composite);
}

/* Each family that some row names, declared once. */
static void emit_families(FILE *f, const gems_rows *rows)
{
    for (unsigned i = 0; i < rows->n; i++) {
        const char *kernel = rows->v[i].kernel;
        unsigned j = 0;
        while (kernel && j < i && !(rows->v[j].kernel && strcmp(rows->v[j].kernel, kernel) == 0))
            j++;
        if (kernel && j == i)
            fprintf(f, "extern const struct gems_family gems_family_%s;\n", kernel);
    }
}

void gems_emit_ops(FILE *f, const gems_rows *rows)
{
    fputs("/* Written by codegen from shim/ops.json: do not edit. */\n"
          "#include \"kernels/call.h\"\n#include \"shim/thunk.h\"\n\n",
          f);
    emit_families(f, rows);
    for (unsigned i = 0; i < rows->n; i++) {
        emit_params(f, &rows->v[i].schema);
        emit_attrs(f, &rows->v[i]);
    }
    fputs("\nconst gems_op gems_ops[] = {\n", f);
    for (unsigned i = 0; i < rows->n; i++)
        emit_op(f, &rows->v[i], i);
    fprintf(f, "};\nconst unsigned gems_op_count = %u;\n\n", rows->n);

    fputs("const char *const gems_symbols[][GEMS_ENTRY_COUNT] = {\n", f);
    for (unsigned i = 0; i < rows->n; i++) {
        const char *aoti = rows->v[i].aoti, *quote = aoti ? "\"" : "";
        fprintf(f, "    {\"%s\",\n     \"%s\",\n     %s%s%s},\n", rows->v[i].call, rows->v[i].redispatch, quote,
                aoti ? aoti : "NULL", quote);
    }
    fprintf(f,
            "};\n\n/* Open: the first call of any operator starts us up. */\n"
            "struct gems_slot gems_slots[] = {[0 ... %u] = {.min_numel = INT64_MIN}};\n",
            rows->n - 1);
}

/* The name of each function whose declaration begins with GEMS_API. */
static void emit_api(FILE *f, const char *header)
{
    for (const char *line = header; (line = strstr(line, "\nGEMS_API ")); line++) {
        const char *end = line + strcspn(line, "("), *from = end;
        while (isalnum((unsigned char)from[-1]) || from[-1] == '_')
            from--;
        fprintf(f, "    %.*s;\n", (int)(end - from), from);
    }
}

/* The name in each line EXPORT(type, name, ...). */
static void emit_libc(FILE *f, const char *source)
{
    for (const char *line = source; (line = strstr(line, "\nEXPORT(")); line++) {
        const char *from = line + strcspn(line, ",");
        from += strspn(from, ", ");
        fprintf(f, "    %.*s;\n", (int)strcspn(from, ","), from);
    }
}

void gems_emit_exports(FILE *f, const gems_rows *rows, const char *header, const char *libc)
{
    fputs("# Written by codegen: the functions of gems.h, and the interposed symbols.\n{\n  global:\n", f);
    emit_api(f, header);
    emit_libc(f, libc);
    for (unsigned i = 0; i < rows->n; i++) {
        fprintf(f, "    %s;\n    %s;\n", rows->v[i].call, rows->v[i].redispatch);
        if (rows->v[i].aoti)
            fprintf(f, "    %s;\n", rows->v[i].aoti);
    }
    fputs("    _ZNR5torch7Library5_impl*; /* shim/library.c */\n"
          "    _ZN3c109alloc_cpuEm; _ZN3c108free_cpuEPv; /* shim/alloc.c */\n  local: *;\n};\n",
          f);
}
