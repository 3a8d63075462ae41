/* thunks.c: for each row a thunk at the place of `call`, of `redispatch` and, where the row names it, of the C shim's
 * function. The contract is in shim/thunk.h, the types are in shim/abi.h. Locals end in '_': no parameter does. */
#include "shim/gen/rows.h"

#include <stdlib.h>
#include <string.h>

/* One function to write: how C sees it. */
typedef struct thunk {
    const gems_row *row;
    unsigned index;
    const char *suffix, *entry; /* of the C name; gems_entry */
    const char *symbol;
    /* What follows from these (sign). */
    bool aoti, keyset;
    bool hidden, number, nothing; /* results: behind a hidden address, a bool or int, none */
    const char *returns;
    char *params, *args; /* "void *ret_, const void *self", "ret_, self" */
} thunk;

/* The C shim's forms of an argument; %1$s: its name, %2$s: its type. `local`: in the slow half, for what is spread over
 * two parameters. */
static const struct {
    const char *param, *arg, *local, *raw;
} aoti_forms[] = {
    [GEMS_AOTI_VALUE] = {", %2$s%1$s", ", %1$s", "", "&%1$s"},
    [GEMS_AOTI_OPT] = {", %2$s*%1$s", ", %1$s", "", "(void *)%1$s"},
    [GEMS_AOTI_LIST] = {", const void *%1$s, int64_t %1$s_len_", ", %1$s, %1$s_len_",
                        "    struct gems_aoti_list %1$s_list_ = {%1$s, %1$s_len_};\n", "&%1$s_list_"},
    [GEMS_AOTI_OPT_LIST] = {", const void *const *%1$s, int64_t %1$s_len_", ", %1$s, %1$s_len_",
                            "    struct gems_aoti_list %1$s_list_ = {%1$s ? *%1$s : NULL, %1$s_len_};\n",
                            "%1$s ? &%1$s_list_ : NULL"},
    [GEMS_AOTI_DEVICE] = {", int32_t *%1$s, int32_t %1$s_index_", ", %1$s, %1$s_index_",
                          "    struct gems_aoti_device %1$s_device_ = {%1$s ? *%1$s : 0, %1$s_index_};\n",
                          "%1$s ? &%1$s_device_ : NULL"},
};

static void emit_parameter(FILE *params, FILE *args, const thunk *t, const gems_schema_item *p)
{
    char type[64];
    snprintf(type, sizeof type - 1, t->aoti ? p->type->aoti_c : p->type->c, p->size);
    if (type[strlen(type) - 1] != '*')
        strcat(type, " ");
    fprintf(params, aoti_forms[t->aoti ? p->type->aoti : GEMS_AOTI_VALUE].param, p->name, type);
    fprintf(args, aoti_forms[t->aoti ? p->type->aoti : GEMS_AOTI_VALUE].arg, p->name);
}

/* Without the leading comma. */
static char *finish_list(FILE *f, char **text)
{
    fclose(f);
    char *list = strdup(strlen(*text) > 2 ? *text + 2 : "");
    free(*text);
    return list;
}

static void sign(thunk *t)
{
    const gems_schema *s = &t->row->schema;
    const gems_type result = s->nresults == 1 ? s->results[0].type->type : GEMS_T_VOID;
    char *params, *args;
    size_t n, m;
    FILE *fp = open_memstream(&params, &n), *fa = open_memstream(&args, &m);
    if (!fp || !fa)
        abort();
    t->aoti = strcmp(t->suffix, "aoti") == 0;
    t->keyset = strcmp(t->suffix, "redispatch") == 0;
    t->number = !t->aoti && (result == GEMS_T_BOOL || result == GEMS_T_INT);
    t->nothing = !t->aoti && s->nresults == 0;
    t->hidden = !t->aoti && !t->nothing && !t->number && gems_schema_returned(s) < 0;
    t->returns = t->aoti      ? "int32_t "
                 : t->nothing ? "void "
                 : !t->number ? "void *"
                              : (result == GEMS_T_BOOL ? "bool " : "int64_t ");
    if (t->hidden) {
        fputs(", void *ret_", fp);
        fputs(", ret_", fa);
    }
    if (t->keyset) {
        fputs(", uint64_t ks_", fp);
        fputs(", ks_", fa);
    }
    /* The C shim has `out` first. */
    bool out_first = t->aoti && s->form == GEMS_OUT;
    for (unsigned i = 0; out_first && i < s->nparams; i++)
        if (s->params[i].written)
            emit_parameter(fp, fa, t, &s->params[i]);
    for (unsigned i = 0; i < s->nparams; i++)
        if (!out_first || !s->params[i].written)
            emit_parameter(fp, fa, t, &s->params[i]);
    for (unsigned i = 0; t->aoti && s->form == GEMS_FUNCTIONAL && i < s->nresults; i++) {
        fprintf(fp, ", void **ret%u_", i);
        fprintf(fa, ", ret%u_", i);
    }
    t->params = finish_list(fp, &params);
    t->args = finish_list(fa, &args);
}

/* For pointwise operators of two tensors, which are broadcast to each other: elements of the result. NULL: others. */
static char *spread_of(const thunk *t)
{
    const gems_schema *s = &t->row->schema;
    const char *tensor[2];
    unsigned n = 0;
    char *text;
    if (!t->row->kernel || strcmp(t->row->kernel, "pointwise") != 0)
        return NULL;
    for (unsigned i = 0; i < s->nparams; i++) {
        const gems_schema_item *p = &s->params[i];
        if (p->type->work == GEMS_WORK_NONE || (p->written && s->form == GEMS_OUT))
            continue;
        if (p->type->work != GEMS_WORK_TENSOR || n == 2)
            return NULL;
        tensor[n++] = p->name;
    }
    if (n < 2)
        return NULL;
    if (asprintf(&text, "gems_spread(%s, %s, gems_min_numel(%u))", tensor[0], tensor[1], t->index) < 0)
        abort();
    return text;
}

/* What the gate compares, as an expression: the elements of the largest operand. */
static char *size_of(const thunk *t)
{
    const gems_schema *s = &t->row->schema;
    char *text = spread_of(t);
    if (text)
        return text;
    text = strdup("");
    for (unsigned i = 0; i < s->nparams; i++) {
        const gems_schema_item *p = &s->params[i];
        if (p->type->work == GEMS_WORK_ANY) {
            *text = 0;
            break;
        }
        if (p->type->work == GEMS_WORK_NONE || (p->written && s->form == GEMS_OUT))
            continue;
        /* An AtenTensorHandle is an at::Tensor *. */
        const char *count = p->type->work == GEMS_WORK_TENSOR ? "gems_numel"
                            : t->aoti                         ? "gems_numel_handle"
                                                              : "gems_numel_opt";
        char *larger;
        if (asprintf(&larger, *text ? "gems_larger(%s, %s(%s))" : "%s%s(%s)", text, count, p->name) < 0)
            abort();
        free(text);
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
    for (unsigned i = 0; i < s->nparams; i++)
        fprintf(f, aoti_forms[s->params[i].type->aoti].local, s->params[i].name);
    if (s->form != GEMS_FUNCTIONAL || s->nresults == 0)
        return;
    fputs("    void **ret_[] = {", f);
    for (unsigned i = 0; i < s->nresults; i++)
        fprintf(f, "%sret%u_", i ? ", " : "", i);
    fputs("};\n", f);
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
    return t->hidden ? "ret_" : t->number ? "&ret_" : "NULL";
}

static void emit_slow(FILE *f, const thunk *t)
{
    const gems_schema *s = &t->row->schema;
    fprintf(f, "static GEMS_SLOW %sat_ops_%s_%s_slow(%s)\n{\n", t->returns, s->strukt, t->suffix, t->params);
    if (t->aoti)
        aoti_locals(f, s);
    if (t->number)
        fprintf(f, "    %sret_ = 0;\n", t->returns);
    fprintf(f, "    void *raw_[%u] = {", s->nparams ? s->nparams : 1);
    for (unsigned i = 0; i < s->nparams; i++) {
        fputs(i ? ", " : "", f);
        const gems_cxx_type *type = s->params[i].type;
        gems_aoti_form form = t->aoti ? type->aoti : type->by_address ? GEMS_AOTI_OPT : GEMS_AOTI_VALUE;
        fprintf(f, aoti_forms[form].raw, s->params[i].name);
    }
    fprintf(f, "};\n    GEMS_UNWINDS enum gems_entered entered_ = gems_enter(%u, %s, %s, %s, raw_);\n", t->index,
            t->entry, t->keyset ? "ks_" : "0", ret_of(t));
    fputs("    if (entered_ == GEMS_ENTERED_DONE)\n        return", f);
    if (t->aoti)
        fputs(" 0", f);
    else if (t->hidden || t->number)
        fputs(" ret_", f);
    else if (!t->nothing)
        fprintf(f, " %s", s->params[gems_schema_returned(s)].name);
    fputs(";\n    ", f);
    if (!t->nothing && !t->number)
        fprintf(f, "%s", t->returns);
    if (!t->nothing)
        fputs(t->number ? "ret_ = " : "host_ = ", f);
    emit_original(f, t);
    fprintf(f, "    if (entered_ == GEMS_ENTERED_COMPARE%s)\n        entered_ = gems_leave(%s, %s);\n",
            t->aoti ? " && host_ == 0" : "", t->entry, ret_of(t));
    fputs(t->nothing ? "}\n" : t->number ? "    return ret_;\n}\n" : "    return host_;\n}\n", f);
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
    const char *keyword = t.nothing ? "" : "return ";
    fprintf(f, "    if (__builtin_expect(%s >= gems_min_numel(%u), 0))%s\n        %sat_ops_%s_%s_slow(%s);\n", work,
            t.index, t.nothing ? " {" : "", keyword, strukt, t.suffix, t.args);
    if (t.nothing)
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
        emit_thunk(f, (thunk){row, i, "call", "GEMS_ENTRY_CALL", row->call});
        emit_thunk(f, (thunk){row, i, "redispatch", "GEMS_ENTRY_REDISPATCH", row->redispatch});
        if (row->aoti)
            emit_thunk(f, (thunk){row, i, "aoti", "GEMS_ENTRY_AOTI", row->aoti});
    }
}
