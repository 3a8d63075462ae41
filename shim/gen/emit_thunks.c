/* thunks.c: for each row a thunk at the place of `call`, of `redispatch` and, where the row names it, of the C shim's
 * function. The contract is in shim/thunk.h, the types are in shim/abi.h. Locals end in '_': no parameter does. */
#include "shim/gen/rows.h"

#include <stdlib.h>
#include <string.h>

/* One function to write: how C sees it. */
typedef struct thunk {
    const gems_row *row;
    unsigned index;
    const char *suffix; /* of the C name */
    const char *entry;
    const char *symbol;
    const char *returns;
    bool hidden, keyset, aoti;
    char *params, *args; /* "void *ret_, const void *self", "ret_, self" */
} thunk;

static void emit_type_of(FILE *f, const gems_schema_item *p)
{
    fprintf(f, p->type->c, p->size);
    if (!strchr(p->type->c, '*'))
        fputc(' ', f);
}

/* The C shim spreads some arguments over two. */
static void aoti_parameter(FILE *params, FILE *args, const gems_schema_item *p)
{
    const char *t = p->type->aoti_c, *gap = t[strlen(t) - 1] == '*' ? "" : " ", *n = p->name;
    switch (p->type->aoti) {
    case GEMS_AOTI_VALUE:
        fprintf(params, ", %s%s%s", t, gap, n);
        fprintf(args, ", %s", n);
        break;
    case GEMS_AOTI_OPT:
        fprintf(params, ", %s%s*%s", t, gap, n);
        fprintf(args, ", %s", n);
        break;
    case GEMS_AOTI_LIST:
        fprintf(params, ", const void *%s, int64_t %s_len_", n, n);
        fprintf(args, ", %s, %s_len_", n, n);
        break;
    case GEMS_AOTI_OPT_LIST:
        fprintf(params, ", const void *const *%s, int64_t %s_len_", n, n);
        fprintf(args, ", %s, %s_len_", n, n);
        break;
    case GEMS_AOTI_DEVICE:
        fprintf(params, ", int32_t *%s, int32_t %s_index_", n, n);
        fprintf(args, ", %s, %s_index_", n, n);
        break;
    }
}

/* Without the leading comma. */
static char *finish_list(FILE *f, char **text)
{
    fclose(f);
    char *list = strdup(strlen(*text) > 2 ? *text + 2 : "");
    free(*text);
    return list;
}

static bool returns_reference(const gems_schema *s)
{
    return gems_schema_returned(s) >= 0;
}

static bool returns_number(const gems_schema *s)
{
    return s->nresults == 1 && (s->results[0].type->type == GEMS_T_BOOL || s->results[0].type->type == GEMS_T_INT);
}

static void sign(thunk *t)
{
    const gems_schema *s = &t->row->schema;
    char *params, *args;
    size_t n, m;
    FILE *fp = open_memstream(&params, &n), *fa = open_memstream(&args, &m);
    if (!fp || !fa)
        abort();
    t->hidden = !t->aoti && s->nresults > 0 && !returns_reference(s) && !returns_number(s);
    if (t->aoti)
        t->returns = "int32_t ";
    else if (returns_number(s))
        t->returns = s->results[0].type->type == GEMS_T_BOOL ? "bool " : "int64_t ";
    else
        t->returns = s->nresults ? "void *" : "void ";

    if (t->hidden) {
        fputs(", void *ret_", fp);
        fputs(", ret_", fa);
    }
    if (t->keyset) {
        fputs(", uint64_t ks_", fp);
        fputs(", ks_", fa);
    }
    /* The C shim has `out` first. */
    for (unsigned i = 0; t->aoti && s->form == GEMS_OUT && i < s->nparams; i++)
        if (s->params[i].written)
            aoti_parameter(fp, fa, &s->params[i]);
    for (unsigned i = 0; i < s->nparams; i++) {
        const gems_schema_item *p = &s->params[i];
        if (t->aoti) {
            if (s->form != GEMS_OUT || !p->written)
                aoti_parameter(fp, fa, p);
        } else {
            fputs(", ", fp);
            emit_type_of(fp, p);
            fprintf(fp, "%s", p->name);
            fprintf(fa, ", %s", p->name);
        }
    }
    for (unsigned i = 0; t->aoti && s->form == GEMS_FUNCTIONAL && i < s->nresults; i++) {
        fprintf(fp, ", void **ret%u_", i);
        fprintf(fa, ", ret%u_", i);
    }
    t->params = finish_list(fp, &params);
    t->args = finish_list(fa, &args);
}

/* What the gate compares, as an expression: the elements of the largest operand. */
static char *size_of(const thunk *t)
{
    const gems_schema *s = &t->row->schema;
    char *text = strdup("");
    for (unsigned i = 0; i < s->nparams; i++) {
        const gems_schema_item *p = &s->params[i];
        char *term, *larger;
        if (p->type->work == GEMS_WORK_ANY) {
            free(text);
            return strdup("INT64_MAX - 1");
        }
        if (p->type->work == GEMS_WORK_NONE || (p->written && s->form == GEMS_OUT))
            continue;
        const char *count = p->type->work == GEMS_WORK_TENSOR ? "gems_numel"
                            : t->aoti                         ? "gems_numel_handle"
                                                              : "gems_numel_opt";
        bool handle = t->aoti && p->type->work == GEMS_WORK_TENSOR; /* an AtenTensorHandle is an at::Tensor * */
        if (asprintf(&term, "%s(%s)", handle ? "gems_numel" : count, p->name) < 0 ||
            asprintf(&larger, *text ? "gems_larger(%s, %s)" : "%s%s", text, term) < 0)
            abort();
        free(text);
        free(term);
        text = larger;
    }
    if (*text)
        return text;
    free(text);
    return strdup("INT64_MAX - 1");
}

/* Locals of the slow half for what the C shim spreads. */
static void aoti_locals(FILE *f, const gems_schema *s)
{
    for (unsigned i = 0; i < s->nparams; i++) {
        const char *n = s->params[i].name;
        if (s->params[i].type->aoti == GEMS_AOTI_LIST)
            fprintf(f, "    struct gems_aoti_list %s_list_ = {%s, %s_len_};\n", n, n, n);
        else if (s->params[i].type->aoti == GEMS_AOTI_OPT_LIST)
            fprintf(f, "    struct gems_aoti_list %s_list_ = {%s ? *%s : NULL, %s_len_};\n", n, n, n, n);
        else if (s->params[i].type->aoti == GEMS_AOTI_DEVICE)
            fprintf(f, "    struct gems_aoti_device %s_device_ = {%s ? *%s : 0, %s_index_};\n", n, n, n, n);
    }
    if (s->form != GEMS_FUNCTIONAL || s->nresults == 0)
        return;
    fputs("    void **ret_[] = {", f);
    for (unsigned i = 0; i < s->nresults; i++)
        fprintf(f, "%sret%u_", i ? ", " : "", i);
    fputs("};\n", f);
}

static void raw_of(FILE *f, const thunk *t, const gems_schema_item *p)
{
    const char *n = p->name;
    if (!t->aoti) {
        fprintf(f, p->type->by_address ? "(void *)%s" : "&%s", n);
        return;
    }
    switch (p->type->aoti) {
    case GEMS_AOTI_VALUE:
        fprintf(f, "&%s", n);
        break;
    case GEMS_AOTI_OPT:
        fprintf(f, "(void *)%s", n);
        break;
    case GEMS_AOTI_LIST:
        fprintf(f, "&%s_list_", n);
        break;
    case GEMS_AOTI_OPT_LIST:
        fprintf(f, "%s ? &%s_list_ : NULL", n, n);
        break;
    case GEMS_AOTI_DEVICE:
        fprintf(f, "%s ? &%s_device_ : NULL", n, n);
        break;
    }
}

static void emit_original(FILE *f, const thunk *t)
{
    fprintf(f, "((%s_%s_fn *)gems_original(%u, %s))(%s);\n", t->row->schema.strukt, t->suffix, t->index, t->entry,
            t->args);
}

/* What gems_enter and gems_leave get as `ret`. */
static const char *ret_of(const thunk *t)
{
    const gems_schema *s = &t->row->schema;
    if (t->aoti)
        return s->form == GEMS_FUNCTIONAL && s->nresults ? "ret_" : "NULL";
    return t->hidden ? "ret_" : returns_number(s) ? "&ret_" : "NULL";
}

static void emit_slow(FILE *f, const thunk *t)
{
    const gems_schema *s = &t->row->schema;
    bool number = !t->aoti && returns_number(s), nothing = strcmp(t->returns, "void ") == 0;
    fprintf(f, "static GEMS_SLOW %sat_ops_%s_%s_slow(%s)\n{\n", t->returns, s->strukt, t->suffix, t->params);
    if (t->aoti)
        aoti_locals(f, s);
    if (number)
        fprintf(f, "    %sret_ = 0;\n", t->returns);
    fprintf(f, "    void *raw_[%u] = {", s->nparams ? s->nparams : 1);
    for (unsigned i = 0; i < s->nparams; i++) {
        fputs(i ? ", " : "", f);
        raw_of(f, t, &s->params[i]);
    }
    fprintf(f, "};\n    GEMS_UNWINDS enum gems_entered entered_ = gems_enter(%u, %s, %s, %s, raw_);\n", t->index,
            t->entry, t->keyset ? "ks_" : "0", ret_of(t));
    fputs("    if (entered_ == GEMS_ENTERED_DONE)\n        return", f);
    if (t->aoti)
        fputs(" 0", f);
    else if (t->hidden || number)
        fputs(" ret_", f);
    else if (!nothing)
        fprintf(f, " %s", s->params[gems_schema_returned(s)].name);
    fputs(";\n    ", f);
    if (!nothing && !number)
        fprintf(f, "%s", t->returns);
    if (!nothing)
        fputs(number ? "ret_ = " : "host_ = ", f);
    emit_original(f, t);
    fprintf(f, "    if (entered_ == GEMS_ENTERED_COMPARE%s)\n        entered_ = gems_leave(%s, %s);\n",
            t->aoti ? " && host_ == 0" : "", t->entry, ret_of(t));
    fputs(nothing ? "}\n" : number ? "    return ret_;\n}\n" : "    return host_;\n}\n", f);
}

static void emit_thunk(FILE *f, thunk t)
{
    const char *strukt = t.row->schema.strukt;
    sign(&t);
    char *work = size_of(&t);
    fprintf(f, "typedef %s%s_%s_fn(%s);\n", t.returns, strukt, t.suffix, t.params);
    emit_slow(f, &t);
    fprintf(f, "GEMS_EXPORT %s_%s_fn at_ops_%s_%s __asm__(\"%s\");\n", strukt, t.suffix, strukt, t.suffix, t.symbol);
    fprintf(f, "%sat_ops_%s_%s(%s)\n{\n", t.returns, strukt, t.suffix, t.params);
    bool nothing = strcmp(t.returns, "void ") == 0;
    const char *keyword = nothing ? "" : "return ";
    fprintf(f, "    if (__builtin_expect(%s >= gems_min_numel(%u), 0))%s\n        %sat_ops_%s_%s_slow(%s);\n", work,
            t.index, nothing ? " {" : "", keyword, strukt, t.suffix, t.args);
    if (nothing)
        fputs("        return;\n    }\n", f);
    fprintf(f, "    %s", keyword);
    emit_original(f, &t);
    fputs("}\n\n", f);
    free(work);
    free(t.params);
    free(t.args);
}

void gems_emit_thunks(FILE *f, const gems_rows *rows)
{
    fputs("/* Written by codegen from shim/ops.json: do not edit. Each operator's row stands above its thunks; what "
          "they\n"
          " * promise is in shim/thunk.h. */\n"
          "#include \"shim/thunk.h\"\n\n"
          "#define GEMS_EXPORT __attribute__((visibility(\"default\")))\n"
          "#define GEMS_SLOW __attribute__((noinline, cold))\n\n",
          f);
    for (unsigned i = 0; i < rows->n; i++) {
        const gems_row *row = &rows->v[i];
        fprintf(f, "/* line %u: %s */\n", row->line, row->text);
        emit_thunk(f,
                   (thunk){.row = row, .index = i, .suffix = "call", .entry = "GEMS_ENTRY_CALL", .symbol = row->call});
        emit_thunk(f, (thunk){.row = row,
                              .index = i,
                              .suffix = "redispatch",
                              .entry = "GEMS_ENTRY_REDISPATCH",
                              .symbol = row->redispatch,
                              .keyset = true});
        if (row->aoti)
            emit_thunk(f, (thunk){.row = row,
                                  .index = i,
                                  .suffix = "aoti",
                                  .entry = "GEMS_ENTRY_AOTI",
                                  .symbol = row->aoti,
                                  .aoti = true});
    }
}
