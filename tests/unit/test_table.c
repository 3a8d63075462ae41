/* tune/: what a table accepts, where it says an error is, and which rule it finds. */
#include "preload/base/text.h"
#include "tune/layers.h"
#include "tune/locate.h"
#include "tune/table.h"
#include "kernels/family.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static gems_table *compile(const char *json, const gems_table *below)
{
    gems_table_error error;
    gems_table *table = gems_table_compile("test", json, below, &error);
    cr_assert_not_null(table, "%s", error.text);
    return table;
}

static const gems_op *op(const char *name)
{
    const gems_op *found = gems_op_find(name);
    cr_assert_not_null(found, "%s", name);
    return found;
}

static gems_sizes numel(int64_t n)
{
    gems_sizes sizes;
    memset(&sizes, -1, sizeof sizes);
    sizes.v[GEMS_SIZE_NUMEL] = n;
    return sizes;
}

/* The variant for a call of `name` with n elements; "host", or "none". */
static const char *chosen(const gems_table *table, const char *name, gems_dtype dtype, int64_t n)
{
    gems_sizes sizes = numel(n);
    const gems_rule *rule = gems_table_lookup(table, op(name), dtype, &sizes);
    return !rule ? "none" : gems_rule_is_host(rule) ? "host" : gems_rule_variant(rule);
}

/* ---- lookup ---- */

Test(table, no_rule_means_none)
{
    gems_table *table = compile("{}", NULL);
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_F32, 100), "none");
    cr_expect_eq(gems_table_min_numel(table, op("add.Tensor")), INT64_MAX);
    cr_expect_null(gems_table_lookup(NULL, op("add.Tensor"), GEMS_F32, &(gems_sizes){{0}}));
    cr_expect_eq(gems_table_min_numel(NULL, op("add.Tensor")), INT64_MAX);
    gems_table_free(table);
}

Test(table, first_match_wins_and_ranges_include_their_ends)
{
    gems_table *table = compile("{\"rules\": ["
                                "{\"op\": \"add.Tensor\", \"where\": {\"numel\": [10, 20]}, \"host\": true},"
                                "{\"op\": \"add\", \"dtype\": \"f32\", \"where\": {\"numel\": [5, null]}},"
                                "{\"op\": \"add.*\", \"dtype\": [\"i32\", \"bool\"], \"where\": {\"numel\": 7}}]}",
                                NULL);
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_F32, 4), "none");
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_F32, 5), "");
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_F32, 9), "");
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_F32, 10), "host");
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_F64, 20), "host");
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_F32, 21), "");
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_F64, 21), "none");
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_BOOL, 7), "");
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_I32, 8), "none");
    cr_expect_str_eq(chosen(table, "add_.Tensor", GEMS_F32, 100), "none");
    cr_expect_str_eq(chosen(table, "mul.Tensor", GEMS_F32, 100), "none");
    gems_table_free(table);
}

Test(table, a_size_that_is_not_filled_never_matches)
{
    gems_table *table = compile("{\"rules\": [{\"op\": \"add\", \"where\": {\"rows\": [null, 8]}}]}", NULL);
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_F32, 4), "none");
    gems_table_free(table);
}

Test(table, a_dtype_that_no_kernel_handles_matches_nothing)
{
    gems_table *table = compile("{\"rules\": [{\"op\": \"add\"}]}", NULL);
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_DTYPE_NONE, 4), "none");
    gems_table_free(table);
}

Test(table, the_upper_layer_is_asked_first)
{
    gems_table *low = compile("{\"rules\": [{\"op\": \"*\", \"host\": true}]}", NULL);
    gems_table *high = compile("{\"rules\": [{\"op\": \"add\", \"where\": {\"numel\": [100, null]}}]}", low);
    cr_expect_str_eq(chosen(high, "add.Tensor", GEMS_F32, 100), "");
    cr_expect_str_eq(chosen(high, "add.Tensor", GEMS_F32, 99), "host");
    cr_expect_str_eq(chosen(low, "add.Tensor", GEMS_F32, 100), "host");
    gems_table_free(high);
    gems_table_free(low);
}

Test(table, families)
{
    char json[200];
    const char *family = op("mul.Tensor")->kernel->name;
    snprintf(json, sizeof json, "{\"rules\": [{\"family\": \"%s\", \"dtype\": \"f32\"}]}", family);
    gems_table *table = compile(json, NULL);
    for (unsigned i = 0; i < gems_op_count; i++) {
        bool in = gems_ops[i].kernel && strcmp(gems_ops[i].kernel->name, family) == 0;
        gems_sizes sizes = numel(1);
        cr_expect_eq(gems_table_lookup(table, &gems_ops[i], GEMS_F32, &sizes) != NULL,
                     in || strcmp(gems_ops[i].family, family) == 0, "%s", gems_ops[i].name);
    }
    gems_table_free(table);
}

Test(table, variants_parameters_defaults_and_origin)
{
    gems_table *table = compile("{\"defaults\": {\"lane\": 1, \"splits\": 2, \"vec\": 4},\n\"rules\": [\n"
                                "{\"op\": \"cumsum\", \"variant\": \"run\", \"params\": {\"splits\": 7}, \"note\": "
                                "\"n\", \"gain\": 1.5}]}",
                                NULL);
    gems_sizes sizes = numel(1);
    const gems_rule *rule = gems_table_lookup(table, op("cumsum"), GEMS_F32, &sizes);
    cr_assert_not_null(rule);
    cr_expect_str_eq(gems_rule_variant(rule), "run");
    cr_expect_eq(gems_rule_param(rule, "splits", -5), 7);
    cr_expect_eq(gems_rule_param(rule, "lane", -5), 1);
    cr_expect_eq(gems_rule_param(rule, "vec", -5), -5, "a default that this kernel does not have");
    cr_expect_eq(gems_rule_param(NULL, "lane", -5), -5);
    cr_expect_str_eq(gems_rule_origin(rule), "test:3");
    cr_expect_str_eq(gems_rule_variant(NULL), "");
    cr_expect(!gems_rule_is_host(NULL));
    char text[200];
    gems_rule_describe(rule, text, sizeof text);
    cr_expect_str_eq(text, "any dtype: run splits=7 lane=1 (test:3)");
    gems_table_free(table);
}

Test(table, rules_in_words)
{
    gems_table *table = compile("{\"rules\": [{\"op\": \"add\", \"dtype\": [\"f64\", \"f32\"], \"host\": true,"
                                "\"where\": {\"numel\": [64, null], \"rows\": [0, 8], \"cols\": 3}}]}",
                                NULL);
    const gems_rule *const *rules;
    cr_assert_eq(gems_table_rules(table, op("add.Tensor"), &rules), 1);
    char text[200];
    gems_rule_describe(rules[0], text, sizeof text);
    cr_expect_str_eq(text, "f32 f64, numel 64.., rows ..8, cols 3: host (test:1)");
    gems_rule_describe(rules[0], text, 8);
    cr_expect_str_eq(text, "f32 f64");
    gems_table_free(table);
}

Test(table, a_rule_for_a_device_applies_to_that_device_alone)
{
    const char *json = "{\"vendor\": \"v\", \"rules\": [{\"op\": \"add\", \"device\": \"H200\"}]}";
    gems_table_error error;
    gems_table *yes = gems_table_compile_for("t", json, "v", "NVIDIA H200 NVL", NULL, &error);
    gems_table *no = gems_table_compile_for("t", json, "v", "NVIDIA H100", NULL, &error);
    gems_table *unknown = gems_table_compile_for("t", json, NULL, NULL, NULL, &error);
    cr_expect_str_eq(chosen(yes, "add.Tensor", GEMS_F32, 1), "");
    cr_expect_str_eq(chosen(no, "add.Tensor", GEMS_F32, 1), "none");
    cr_expect_str_eq(chosen(unknown, "add.Tensor", GEMS_F32, 1), "");
    cr_expect_null(gems_table_compile_for("t", json, "w", "NVIDIA H200", NULL, &error));
    cr_expect_str_eq(error.text, "t:1:2: this table is for v, the vendor in use is w");
    gems_table_free(yes);
    gems_table_free(no);
    gems_table_free(unknown);
}

/* ---- what is remembered: a table with enough rules that decisions are, against the walk over the same rules ---- */

enum {
    MANY = 40
};

static gems_table *many_rules(void)
{
    static char json[MANY * 100];
    size_t n = (size_t)sprintf(json, "{\"rules\": [");
    for (int i = 0; i < MANY; i++)
        n += (size_t)sprintf(json + n,
                             "%s{\"op\": [\"add\", \"mul\"], \"dtype\": \"%s\", \"where\": {\"numel\": [%d, %d]}}",
                             i ? ", \n" : "", i % 3 ? "f32" : "i32", i * 10, i * 10 + 14);
    strcpy(json + n, "]}");
    return compile(json, NULL);
}

/* Line of the rule for n elements: rule i stands on line i + 1. 0: none. */
static int expected_line(gems_dtype dtype, int64_t n)
{
    for (int i = 0; i < MANY; i++)
        if ((i % 3 ? GEMS_F32 : GEMS_I32) == dtype && n >= i * 10 && n <= i * 10 + 14)
            return i + 1;
    return 0;
}

static int found_line(const gems_table *table, const char *name, gems_dtype dtype, int64_t n)
{
    gems_sizes sizes = numel(n);
    const gems_rule *rule = gems_table_lookup(table, op(name), dtype, &sizes);
    return rule ? atoi(strrchr(gems_rule_origin(rule), ':') + 1) : 0;
}

static void *look_up_all(void *table)
{
    intptr_t wrong = 0;
    for (int pass = 0; pass < 5; pass++)
        for (int64_t n = 0; n < 3000; n++) {
            int64_t size = n % 450;
            wrong += found_line(table, "add.Tensor", GEMS_F32, size) != expected_line(GEMS_F32, size);
            wrong += found_line(table, "mul.Tensor", GEMS_I32, size) != expected_line(GEMS_I32, size);
            wrong += found_line(table, "add.Tensor", GEMS_F64, size) != 0;
        }
    return (void *)wrong;
}

Test(table, remembered_decisions_are_the_walks_from_four_threads)
{
    gems_table *table = many_rules();
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, look_up_all, table);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(thread[i], &wrong);
        cr_expect_eq((intptr_t)wrong, 0);
    }
    gems_table_free(table);
}

/* ---- the gate's bound ---- */

static int64_t min_numel(const char *name, const char *rules)
{
    char json[600];
    snprintf(json, sizeof json, "{\"rules\": [%s]}", rules);
    gems_table *table = compile(json, NULL);
    int64_t work = gems_table_min_numel(table, op(name));
    gems_table_free(table);
    return work;
}

Test(table, the_gate_lets_nothing_pass_that_a_rule_would_route)
{
    cr_expect_eq(min_numel("add.Tensor", "{\"op\": \"add\", \"where\": {\"numel\": [100, null]}}"), 100);
    cr_expect_eq(min_numel("add.Tensor", "{\"op\": \"add\"}"), 0);
    cr_expect_eq(min_numel("add.Tensor", "{\"op\": \"add\", \"where\": {\"numel\": [null, 100]}}"), 0);
    cr_expect_eq(min_numel("add.Tensor", "{\"op\": \"add\", \"host\": true}"), INT64_MAX);
    cr_expect_eq(min_numel("mul.Tensor", "{\"op\": \"add\"}"), INT64_MAX);
    cr_expect_eq(
        min_numel("sum.dim_IntList", "{\"op\": \"sum\", \"where\": {\"rows\": [8, null], \"cols\": [32, null]}}"), 256);
    cr_expect_eq(min_numel("mm", "{\"op\": \"mm\", \"where\": {\"m\": [4, 8], \"n\": [5, 9], \"k\": [6, 99]}}"), 30);
    cr_expect_eq(min_numel("mm", "{\"op\": \"mm\", \"where\": {\"m\": [9000000000, null], \"n\": [9000000000, null]}}"),
                 9000000000);
    int64_t bytes = min_numel("add.Tensor", "{\"op\": \"add\", \"where\": {\"bytes\": [4096, null]}}");
    cr_expect(bytes > 0 && bytes <= 4096 / (3 * 8), "two operands and a result of f64 have 4096 bytes at 170 elements");
}

Test(table, the_gate_takes_the_smallest_bound_that_can_be_reached)
{
    cr_expect_eq(min_numel("add.Tensor", "{\"op\": \"add\", \"where\": {\"numel\": [100, null]}},"
                                         "{\"op\": \"add\", \"dtype\": \"f64\", \"where\": {\"numel\": [50, null]}}"),
                 50);
    cr_expect_eq(min_numel("add.Tensor", "{\"op\": \"add\", \"where\": {\"numel\": [100, null]}},"
                                         "{\"op\": \"add\", \"host\": true},"
                                         "{\"op\": \"add\", \"where\": {\"numel\": [50, null]}}"),
                 100);
}

Test(table, operators_whose_sizes_the_gate_cannot_see_are_always_looked_at)
{
    cr_assert_not_null(op("cat")->kernel);
    cr_expect_eq(min_numel("cat", "{\"op\": \"cat\", \"where\": {\"numel\": [100, null]}}"), INT64_MIN + 1);
}

Test(table, an_operator_without_kernel_is_never_looked_at)
{
    for (unsigned i = 0; i < gems_op_count; i++)
        if (!gems_ops[i].kernel) {
            cr_expect_eq(min_numel(gems_ops[i].name, "{\"op\": \"*\"}"), INT64_MAX, "%s", gems_ops[i].name);
            return;
        }
}

/* ---- where operands are ---- */

Test(table, rules_name_the_place_of_operands)
{
    static const char json[] = "{\"rules\": [{\"op\": \"add.Tensor\", \"place\": \"device\", \"variant\": \"gpu\"},"
                               "{\"op\": \"sub.Tensor\", \"place\": \"resident\", \"where\": {\"numel\": [20, null]}},"
                               "{\"op\": \"mul.Tensor\", \"place\": \"host\", \"host\": true},"
                               "{\"op\": [\"add.Tensor\", \"mul.Tensor\"], \"where\": {\"numel\": [500, null]}}]}";
    gems_table_error error;
    gems_table *table = gems_table_compile("t", json, NULL, &error);
    cr_assert(table, "%s", error.text);
    gems_sizes few = numel(7), many = numel(700);
    cr_expect_null(gems_table_lookup(table, op("add.Tensor"), GEMS_F32, &few));
    few.v[GEMS_SIZE_PLACE] = many.v[GEMS_SIZE_PLACE] = GEMS_OPERANDS_TRAVEL;
    cr_expect_null(gems_table_lookup(table, op("add.Tensor"), GEMS_F32, &few));
    cr_expect_str_eq(gems_rule_variant(gems_table_lookup(table, op("add.Tensor"), GEMS_F32, &many)), "");
    cr_expect(gems_rule_is_host(gems_table_lookup(table, op("mul.Tensor"), GEMS_F32, &many)));
    cr_expect_null(gems_table_lookup(table, op("sub.Tensor"), GEMS_F32, &many));
    cr_expect_eq(gems_table_min_numel(table, op("sub.Tensor")), INT64_MAX);
    few.v[GEMS_SIZE_PLACE] = many.v[GEMS_SIZE_PLACE] = GEMS_OPERANDS_TO_STAY;
    cr_expect_null(gems_table_lookup(table, op("sub.Tensor"), GEMS_F32, &few));
    cr_expect_not_null(gems_table_lookup(table, op("sub.Tensor"), GEMS_F32, &many));
    cr_expect(gems_rule_is_host(gems_table_lookup(table, op("mul.Tensor"), GEMS_F32, &many)));
    few.v[GEMS_SIZE_PLACE] = many.v[GEMS_SIZE_PLACE] = GEMS_OPERANDS_ON_DEVICE;
    cr_expect_not_null(gems_table_lookup(table, op("sub.Tensor"), GEMS_F32, &many));
    const gems_rule *rule = gems_table_lookup(table, op("add.Tensor"), GEMS_F32, &few);
    cr_expect_str_eq(gems_rule_variant(rule), "gpu");
    cr_expect_not(gems_rule_is_host(gems_table_lookup(table, op("mul.Tensor"), GEMS_F32, &many)));
    char text[100];
    gems_rule_describe(rule, text, sizeof text);
    cr_expect_str_eq(text, "any dtype, place device: gpu (t:1)");
    cr_expect_eq(gems_table_min_numel(table, op("add.Tensor")), 500);
    gems_table_free(table);
    gems_table_set_place(64);
    table = gems_table_compile("t", json, NULL, &error);
    cr_expect_eq(gems_table_min_numel(table, op("add.Tensor")), 64);
    cr_expect_eq(gems_table_min_numel(table, op("sub.Tensor")), 20);
    cr_expect_eq(gems_table_min_numel(table, op("mul.Tensor")), 500);
    gems_table_free(table);
}

/* ---- rules for chains ---- */

Test(table, rules_for_chains_and_for_routes_do_not_see_each_other)
{
    gems_table_error error;
    gems_table *below = gems_table_compile(
        "b",
        "{\"defaults\": {\"vec\": 4}, \"rules\": [{\"op\": \"add*\", \"chain\": {\"least_kb\": 512, \"small\": 7}}]}",
        NULL, &error);
    cr_assert(below, "%s", error.text);
    gems_table *table = gems_table_compile(
        "t",
        "{\"rules\": [{\"op\": \"add.Tensor\", \"where\": {\"numel\": [9, null]}, \"chain\": false},"
        "{\"op\": [\"add.Tensor\", \"mul.Tensor\"], \"where\": {\"numel\": [5, null]}, \"variant\": \"gpu\"}]}",
        below, &error);
    cr_assert(table, "%s", error.text);
    gems_sizes few = numel(7), many = numel(9);
    const gems_rule *rule = gems_table_chain(table, op("add.Tensor"), GEMS_F32, &many);
    cr_expect(rule && gems_rule_is_host(rule));
    rule = gems_table_chain(table, op("add.Tensor"), GEMS_F32, &few);
    cr_expect_eq(gems_rule_param(rule, "least_kb", 0), 512);
    cr_expect_eq(gems_rule_param(rule, "small", 0), 7);
    cr_expect_eq(gems_rule_param(rule, "vec", 0), 0);
    cr_expect_null(gems_table_chain(table, op("mul.Tensor"), GEMS_F32, &many));
    cr_expect_null(gems_table_chain(NULL, op("mul.Tensor"), GEMS_F32, &many));
    cr_expect_str_eq(chosen(table, "add.Tensor", GEMS_F32, 9), "gpu");
    cr_expect_str_eq(chosen(table, "add.Scalar", GEMS_F32, 9), "none");
    cr_expect_eq(gems_table_min_numel(table, op("add.Tensor")), 5);
    cr_expect_eq(gems_table_min_numel(table, op("add.Scalar")), INT64_MAX);
    cr_expect_eq(gems_table_chain_least(table), 512);
    cr_expect_eq(gems_table_chain_least(NULL), INT64_MAX);
    gems_table_free(table);
    gems_table_free(below);
}

/* ---- errors: what is wrong, and where ---- */

Test(table, a_table_with_anything_not_understood_is_refused_whole)
{
    static const struct {
        const char *json, *error;
    } cases[] = {
        {"", "t:1:0: '[' or '{' expected near end of file"},
        {"[]", "t:1:1: a table is an object"},
        {"{\n  \"rulez\": []}", "t:2:3: unknown key \"rulez\" in a table"},
        {"{\"rules\": {}}", "t:1:2: \"rules\" is a list"},
        {"{\"rules\": [3]}", "t:1:12: a rule is an object"},
        {"{\"rules\": [{}]}", "t:1:12: a rule needs \"op\" or \"family\""},
        {"{\"rules\": [\n {\"op\": \"add\"},\n {\"op\": [\"add\",\n  \"ad\"]}]}", "t:4:3: no operator is named ad"},
        {"{\"rules\": [{\"op\": 3}]}", "t:1:13: a string or a list of strings is wanted"},
        {"{\"rules\": [{\"op\": []}]}", "t:1:13: a string or a list of strings is wanted"},
        {"{\"rules\": [{\"op\": [3]}]}", "t:1:20: a string is wanted"},
        {"{\"rules\": [{\"family\": \"pointwize\"}]}", "t:1:13: unknown family pointwize"},
        {"{\"rules\": [{\"op\": \"add\", \"dtype\": \"f31\"}]}", "t:1:26: unknown dtype f31"},
        {"{\"rules\": [{\"op\": \"add\", \"dtypes\": \"f32\"}]}", "t:1:26: unknown key \"dtypes\" in a rule"},
        {"{\"rules\": [{\"op\": \"add\", \"where\": []}]}", "t:1:26: \"where\" is an object of ranges"},
        {"{\"rules\": [{\"op\": \"add\", \"where\": {\"numle\": [1, 2]}}]}", "t:1:36: unknown size numle"},
        {"{\"rules\": [{\"op\": \"add\", \"where\": {\"numel\": [1]}}]}",
         "t:1:36: a range is [low, high] or one integer"},
        {"{\"rules\": [{\"op\": \"add\", \"where\": {\"numel\": [2, 1]}}]}",
         "t:1:36: the range is empty: its low end is above its high end"},
        {"{\"rules\": [{\"op\": \"add\", \"where\": {\"numel\": [-1, 1]}}]}",
         "t:1:36: a bound is an integer from 0, or null"},
        {"{\"rules\": [{\"op\": \"add\", \"where\": {\"numel\": [1.5, 2]}}]}",
         "t:1:36: a bound is an integer from 0, or null"},
        {"{\"rules\": [{\"op\": \"add\", \"where\": {\"numel\": 1, \"numel\": 2}}]}",
         "t:1:54: duplicate object key near '\"numel\"'"},
        {"{\"rules\": [{\"op\": \"add\", \"params\": {\"vec\": \"x\"}}]}",
         "t:1:37: the parameter vec is not an integer"},
        {"{\"rules\": [{\"op\": \"add\", \"host\": 1}]}", "t:1:26: \"host\" is true or false"},
        {"{\"rules\": [{\"op\": \"add\", \"host\": true, \"variant\": \"x\"}]}",
         "t:1:12: a rule for the host takes no variant and no parameters"},
        {"{\"rules\": [{\"op\": \"add\", \"note\": 1}]}", "t:1:26: a string is wanted"},
        {"{\"rules\": [{\"op\": \"add\", \"gain\": \"1\"}]}", "t:1:26: \"gain\" is a number"},
        {"{\"rules\": [{\"op\": \"cumsum\", \"params\": {\"splits\": 0}}]}",
         "t:1:40: splits is 0; run takes 1 to 4096"},
        {"{\"rules\": [{\"op\": \"add\", \"params\": {\"vec\": 3}}]}",
         "t:1:37: vec is 3; gpu takes 2 to 16 in steps of 2"},
        {"{\"rules\": [{\"op\": \"add\", \"place\": \"gpu\"}]}", "t:1:26: a place is device, resident or host"},
        {"{\"rules\": [{\"op\": \"add\", \"where\": {\"place\": 1}}]}", "t:1:36: unknown size place"},
        {"{\"rules\": [{\"op\": \"add\", \"chain\": true}]}", "t:1:26: \"chain\" is false or an object of integers"},
        {"{\"rules\": [{\"op\": \"add\", \"chain\": {}, \"host\": true}]}",
         "t:1:12: a rule for chains takes no variant, no parameters and no host"},
        {"{\"rules\": [{\"op\": \"mm\", \"chain\": false}]}", "t:1:25: none of these operators can be part of a chain"},
        {"{\"rules\": [{\"op\": \"add\", \"chain\": {\"step\": 3}}]}",
         "t:1:36: chains have no parameter step; there is least_kb, row, steps, operands, small"},
        {"{\"rules\": [{\"op\": \"add\", \"chain\": {\"steps\": 0}}]}", "t:1:36: steps is 0; chains take 1 to 48"},
        {"{\"rules\": [{\"op\": \"add\", \"chain\": {\"row\": 1.5}}]}", "t:1:36: the parameter row is not an integer"},
        {"{\"rules\": [], \"device\": \"H200\"}",
         "t:1:15: \"device\" of a table is an object (a rule takes a device's name)"},
        {"{\"devices\": {}}", "t:1:2: unknown key \"devices\" in a table"},
        {"{\"device\": {\"order\": 1,\n \"memroy\": 1}}", "t:2:2: unknown key \"memroy\" in \"device\""},
        {"{\"device\": {\"bounce\": {\"kb\": 1}}}", "t:1:24: unknown key \"kb\" in \"bounce\""},
        {"{\"device\": {\"lanes\": 1}}", "t:1:13: \"lanes\" of a table is an object"},
        {"{\"match\": {\"platfrom\": \"x\"}}", "t:1:12: unknown key \"platfrom\" in \"match\""},
        {"{\"rules\": [{\"op\": \"cumsum\", \"params\": {\"split\": 1}}]}",
         "t:1:40: no kernel of these operators has a parameter split; there is lane, splits, lanes, held, spare"},
        {"{\"rules\": [{\"op\": \"cumsum\", \"variant\": \"grou\"}]}",
         "t:1:29: no kernel of these operators has a variant grou; there is column, run, wide, item, group"},
        {"{\"vendor\": 3}", "t:1:2: a string is wanted"},
        {"{\"defaults\": []}", "t:1:2: parameters are an object of integers"},
        {"{\"defaults\": {\"x\": null}}", "t:1:15: the parameter x is not an integer"},
        {"{\"rules\": []} x", "t:1:15: end of file expected near 'x'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gems_table_error error = {""};
        cr_expect_null(gems_table_compile("t", cases[i].json, NULL, &error), "%s", cases[i].json);
        cr_expect_str_eq(error.text, cases[i].error, "%s\n  gives %s", cases[i].json, error.text);
    }
    gems_table_error error = {""};
    const char *start = "t:1:15: no kernel of these operators has a parameter nonsense; there is lane, ";
    cr_expect_null(gems_table_compile("t", "{\"defaults\": {\"nonsense\": 1}}", NULL, &error));
    cr_expect_eq(strncmp(error.text, start, strlen(start)), 0, "%s", error.text);
}

Test(table, every_family_says_what_a_rule_may_name)
{
    for (unsigned i = 0; i < gems_op_count; i++) {
        const gems_family *kernel = gems_ops[i].kernel;
        char json[300];
        gems_table_error error;
        if (!kernel)
            continue;
        cr_expect(kernel->variants, "%s", kernel->name);
        snprintf(json, sizeof json, "{\"rules\": [{\"op\": \"%s\", \"variant\": \"no-such\"}]}", gems_ops[i].name);
        cr_expect_null(gems_table_compile("t", json, NULL, &error), "%s", json);
        snprintf(json, sizeof json, "{\"rules\": [{\"op\": \"%s\", \"params\": {\"no-such\": 1}}]}", gems_ops[i].name);
        cr_expect_null(gems_table_compile("t", json, NULL, &error), "%s", json);
    }
}

Test(table, places_in_json)
{
    const char *json = "{ \"a\" : [1, {\"b\\\"\": \"]}\", \"c\":\n  [true , \"x,y\", {}]}], \"d\":2}";
    static const struct {
        gems_json_step path[4];
        size_t steps;
        int line, column;
    } cases[] = {
        {{{0}}, 0, 1, 1},
        {{{"a"}}, 1, 1, 3},
        {{{"a"}, {NULL, 1}}, 2, 1, 13},
        {{{"a"}, {NULL, 1}, {"c"}}, 3, 1, 27},
        {{{"a"}, {NULL, 1}, {"c"}, {NULL, 2}}, 4, 2, 18},
        {{{"d"}}, 1, 2, 25},
        {{{"a"}, {NULL, 9}}, 2, 1, 3},
        {{{"nowhere"}, {NULL, 9}}, 2, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gems_json_place at = gems_json_locate(json, cases[i].path, cases[i].steps);
        cr_expect(at.line == cases[i].line && at.column == cases[i].column, "case %zu: %d:%d", i, at.line, at.column);
    }
}

/* A table of n rules as a tuner writes them: every rule with operator, dtype, range and parameter on a line of its own.
 */
static char *long_table(int n)
{
    static const char *const ops[] = {"add.Tensor", "mul", "softmax.int", "sum.*", "cumsum"};
    size_t size = (size_t)n * 160 + 100;
    char *json = malloc(size);
    cr_assert_not_null(json);
    gems_text t = gems_text_in(json, size);
    gems_text_put(&t, "{\"rules\": [");
    for (int i = 0; i < n; i++)
        gems_text_put(&t, "%s\n {\"op\": \"%s\", \"dtype\": [\"f32\", \"f16\"], \"where\": {\"numel\": [%d, %d]}}",
                      i ? "," : "", ops[i % 5], i, i + 100);
    gems_text_put(&t, "]}");
    return json;
}

static double load_seconds(int rules)
{
    char *json = long_table(rules);
    double best = INFINITY;
    for (int i = 0; i < 5; i++) {
        struct timespec start, end;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
        gems_table *table = gems_table_compile("long", json, NULL, NULL);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
        cr_assert_not_null(table);
        gems_table_free(table);
        best = fmin(best, (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec));
    }
    free(json);
    return best;
}

Test(table, reading_takes_time_in_proportion_to_the_rules)
{
    double some = load_seconds(1000), many = load_seconds(8000);
    cr_log_info("1000 rules: %g s, 8000 rules: %g s", some, many);
    cr_expect(many < 24 * some, "1000 rules: %g s, 8000 rules: %g s", some, many); /* quadratic: 64 times */
}

Test(table, every_rule_of_a_long_table_knows_its_line)
{
    char *json = long_table(500), want[40];
    gems_table *table = gems_table_compile("long", json, NULL, NULL);
    cr_assert_not_null(table);
    const gems_rule *const *rules;
    unsigned n = gems_table_rules(table, op("add.Tensor"), &rules);
    cr_expect_eq(n, 100);
    for (unsigned i = 0; i < n; i++) {
        snprintf(want, sizeof want, "long:%u", 2 + 5 * i);
        cr_expect_str_eq(gems_rule_origin(rules[i]), want);
    }
    gems_table_free(table);
    free(json);
}

/* ---- layers: each test is its own process ---- */

static char folder[64];

static void write_file(const char *name, const char *text)
{
    char path[200], command[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(command, sizeof command, "mkdir -p $(dirname %s)", path);
    cr_assert_eq(system(command), 0);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

static void set_up(void)
{
    strcpy(folder, "/tmp/gems-test-table-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    setenv("XDG_CONFIG_HOME", folder, 1);
    unsetenv("GEMS_TUNE_JSON");
    cr_redirect_stderr();
}

static void tear_down(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_expect_eq(system(command), 0);
}

TestSuite(layers, .init = set_up, .fini = tear_down);

#define RULE(cond, what) "{\"rules\": [{\"op\": \"add\", \"where\": {\"numel\": " cond "}" what "}]}"

Test(layers, user_environment_and_api_in_this_order)
{
    write_file("gems-preload/tune/test-vendor.json", RULE("[100, null]", ", \"host\": true"));
    setenv("GEMS_TUNE_JSON", RULE("[200, null]", ""), 1);
    gems_tables *tables = gems_tables_build("test-vendor", "d", RULE("[300, null]", ", \"host\": true"), NULL);
    cr_assert_not_null(tables);
    const gems_table *top = gems_tables_top(tables);
    cr_expect_str_eq(chosen(top, "add.Tensor", GEMS_F32, 99), "none");
    cr_expect_str_eq(chosen(top, "add.Tensor", GEMS_F32, 100), "host");
    cr_expect_str_eq(chosen(top, "add.Tensor", GEMS_F32, 200), "");
    cr_expect_str_eq(chosen(top, "add.Tensor", GEMS_F32, 300), "host");
    cr_expect_stderr_eq_str("");
    gems_tables_free(tables);
}

Test(layers, the_environment_may_name_a_file)
{
    char path[128];
    write_file("mine.json", RULE("[5, null]", ""));
    snprintf(path, sizeof path, "%s/mine.json", folder);
    setenv("GEMS_TUNE_JSON", path, 1);
    gems_tables *tables = gems_tables_build("test-vendor", "d", NULL, NULL);
    cr_assert_not_null(tables);
    gems_sizes sizes = numel(5);
    char origin[200];
    snprintf(origin, sizeof origin, "%s:1", path);
    cr_expect_str_eq(gems_rule_origin(gems_table_lookup(gems_tables_top(tables), op("add.Tensor"), GEMS_F32, &sizes)),
                     origin);
    gems_tables_free(tables);
}

Test(layers, a_broken_layer_is_told_and_the_one_below_serves)
{
    write_file("gems-preload/tune/test-vendor.json", RULE("[100, null]", ""));
    setenv("GEMS_TUNE_JSON", "{\"rules\": [{\"op\": \"add\", \"host\": true}, {\"op\": \"nonsense\"}]}", 1);
    gems_tables *tables = gems_tables_build("test-vendor", "d", NULL, NULL);
    cr_assert_not_null(tables);
    cr_expect_str_eq(chosen(gems_tables_top(tables), "add.Tensor", GEMS_F32, 100), "");
    cr_expect_stderr_eq_str("gems-preload: table refused, the ones below it serve: GEMS_TUNE_JSON:1:42: "
                            "no operator is named nonsense\n");
    gems_tables_free(tables);
}

Test(layers, a_file_that_is_not_there_is_told)
{
    setenv("GEMS_TUNE_JSON", "/no/such/file.json", 1);
    gems_tables *tables = gems_tables_build("test-vendor", "d", NULL, NULL);
    cr_assert_not_null(tables);
    cr_expect_stderr_eq_str(
        "gems-preload: GEMS_TUNE_JSON=/no/such/file.json is no file that can be read, nor JSON; ignored\n");
    gems_tables_free(tables);
}

Test(layers, a_bad_text_of_the_api_gives_its_error_and_no_tables)
{
    gems_table_error error;
    cr_expect_null(gems_tables_build("test-vendor", "d", "{", &error));
    cr_expect_eq(strncmp(error.text, "gems_table_set:1:1: ", 20), 0, "%s", error.text);
    cr_expect_stderr_eq_str("");
}
