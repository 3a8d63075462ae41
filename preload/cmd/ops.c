/* gems ops: the operators, whether they have a kernel, and where they are routed on this machine. */
#include "preload/cmd/cmd.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

static bool is_wanted(const json_t *op, const char *pattern)
{
    return !pattern || fnmatch(pattern, cmd_text(op, "name"), 0) == 0 ||
           fnmatch(pattern, cmd_text(op, "operator"), 0) == 0;
}

static void print_op(const json_t *op)
{
    json_t *rules = json_object_get(op, "rules"), *rule;
    const char *parts = cmd_text(op, "parts");
    const char *where = *parts                                          ? "host (in parts: "
                        : !*cmd_text(op, "kernel")                      ? "host (no kernel)"
                        : !json_is_true(json_object_get(op, "allowed")) ? "host (excluded)"
                        : json_array_size(rules) == 0                   ? "host (no rule)"
                                                                        : "";
    const char *dtypes = cmd_text(op, "dtypes");
    bool all = strcmp(dtypes, "f16 bf16 f32 f64 i8 u8 i16 i32 i64 bool") == 0;
    printf("%-36s %-16s %-36s %s%s%s\n", cmd_text(op, "name"), cmd_text(op, "kernel"), all ? "all" : dtypes, where,
           parts, *parts ? ")" : "");
    size_t i;
    if (!*where)
        json_array_foreach(rules, i, rule) printf("    %s\n", json_string_value(rule));
}

/* "run 64..1073741824 (8192)" of each parameter. */
static void print_parameters(const json_t *params)
{
    size_t i;
    json_t *param;
    json_array_foreach(params, i, param)
    {
        printf(" %s %lld..%lld", cmd_text(param, "name"), cmd_number(param, "low"), cmd_number(param, "high"));
        if (cmd_number(param, "step") > 1)
            printf(":%lld", cmd_number(param, "step"));
        if (json_is_integer(json_object_get(param, "initial")))
            printf(" (%lld)", cmd_number(param, "initial"));
    }
}

static void print_variants(const json_t *op)
{
    size_t i, k;
    json_t *variant, *param;
    json_array_foreach(json_object_get(op, "variants"), i, variant)
    {
        printf("    %-12s", cmd_text(variant, "name"));
        print_parameters(json_object_get(variant, "params"));
        json_array_foreach(json_object_get(variant, "dtypes"), k, param)
            printf("%s%s", k ? " " : "  dtypes ", json_string_value(param));
        printf("%s%s\n", *cmd_text(variant, "asks") ? "  asks for " : "", cmd_text(variant, "asks"));
    }
    if (json_array_size(json_object_get(op, "chain"))) {
        printf("    %-12s", "in chains");
        print_parameters(json_object_get(op, "chain"));
        printf("\n");
    }
}

int cmd_ops(int argc, char **argv)
{
    bool as_json = false, variants = false;
    const char *pattern = NULL;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            as_json = true;
        else if (strcmp(argv[i], "--variants") == 0)
            variants = true;
        else if (argv[i][0] != '-' && !pattern)
            pattern = strncmp(argv[i], "aten::", 6) == 0 ? argv[i] + 6 : argv[i];
        else
            return fputs("usage: gems ops [--json] [--variants] [pattern]\n", stderr), 2;
    }
    json_t *all = cmd_library_describe("operators"), *wanted = json_array(), *op;
    if (!all)
        return 1;
    size_t i, kernels = 0, made = 0;
    json_array_foreach(all, i, op) if (is_wanted(op, pattern))
    {
        json_array_append(wanted, op);
        kernels += *cmd_text(op, "kernel") != 0;
        made += *cmd_text(op, "parts") != 0;
    }
    if (as_json) {
        cmd_print_json(wanted);
    } else {
        printf("%-36s %-16s %-36s %s\n", "operator", "kernel", "dtypes", "routed");
        json_array_foreach(wanted, i, op)
        {
            print_op(op);
            if (variants)
                print_variants(op);
        }
        printf("%zu operators, %zu with a kernel, %zu made of those by the host\n", json_array_size(wanted), kernels,
               made);
    }
    int status = json_array_size(wanted) ? 0 : 1;
    if (status)
        fprintf(stderr, "gems ops: no operator of ours is named %s\n", pattern);
    json_decref(wanted);
    json_decref(all);
    return status;
}
