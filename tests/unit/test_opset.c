/* kernels/opset.c: lists of operator names and patterns, and what GEMS_ONLY and GEMS_EXCLUDE leave. */
#include "kernels/opset.h"
#include "preload/engine/allowed.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdlib.h>
#include <string.h>

static char unknown[256];

static gems_opset *compile(const char *list)
{
    gems_opset *set = gems_opset_compile(list, unknown, sizeof unknown);
    cr_assert_not_null(set);
    return set;
}

static bool has(const gems_opset *set, const char *name)
{
    const gems_op *op = gems_op_find(name);
    cr_assert_not_null(op, "%s", name);
    return gems_opset_has(set, op->index);
}

static unsigned count(const gems_opset *set)
{
    unsigned n = 0;
    for (unsigned i = 0; i < gems_op_count; i++)
        n += gems_opset_has(set, i);
    return n;
}

Test(opset, a_full_name_is_one_operator)
{
    gems_opset *set = compile("add.Tensor");
    cr_expect_eq(count(set), 1);
    cr_expect(has(set, "add.Tensor"));
    cr_expect_str_eq(unknown, "");
    free(set);
}

Test(opset, a_name_means_all_overloads_but_not_the_in_place_form)
{
    gems_opset *set = compile("add");
    for (unsigned i = 0; i < gems_op_count; i++)
        cr_expect_eq(gems_opset_has(set, i), strcmp(gems_ops[i].base, "add") == 0, "%s", gems_ops[i].name);
    cr_expect(!has(set, "add_.Tensor"));
    free(set);
}

Test(opset, patterns)
{
    gems_opset *set = compile("mul*");
    cr_expect(has(set, "mul.Tensor"));
    cr_expect(has(set, "mul_.Tensor"));
    cr_expect(!has(set, "add.Tensor"));
    free(set);
    set = compile("*.Tensor");
    cr_expect(has(set, "add.Tensor") && has(set, "mul.Tensor") && !has(set, "relu"));
    free(set);
    set = compile("*");
    cr_expect_eq(count(set), gems_op_count);
    free(set);
}

Test(opset, other_ways_to_write_a_name)
{
    static const char *const lists[] = {"relu", "aten::relu", "relu.default", " relu , ", ",,relu\n", "rel[u]"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        gems_opset *set = compile(lists[i]);
        cr_expect_eq(count(set), 1, "%s", lists[i]);
        cr_expect(has(set, "relu"), "%s", lists[i]);
        free(set);
    }
    gems_opset *set = compile("add_Tensor");
    cr_expect(has(set, "add.Tensor") && count(set) == 1);
    free(set);
}

Test(opset, null_is_all_and_nothing_is_nothing)
{
    gems_opset *set = compile(NULL);
    cr_expect_eq(count(set), gems_op_count);
    free(set);
    set = compile(" , ");
    cr_expect_eq(count(set), 0);
    cr_expect_str_eq(unknown, "");
    free(set);
}

Test(opset, unknown_names_are_told)
{
    gems_opset *set = compile("ad.Tensor,relu,zzz*,mul.tensor");
    cr_expect_str_eq(unknown, "ad.Tensor, zzz*, mul.tensor");
    cr_expect_eq(count(set), 1);
    free(set);
    char small[8];
    free(gems_opset_compile("nonsense.one,nonsense.two", small, sizeof small));
    cr_expect_str_eq(small, "nonsens");
}

/* ---- the environment: each test is its own process ---- */

Test(opset, nothing_set_allows_all)
{
    cr_expect_null(gems_allowed());
}

Test(opset, exclude, .init = cr_redirect_stderr)
{
    setenv("GEMS_EXCLUDE", "add*,mm,nonsense", 1);
    const gems_opset *set = gems_allowed();
    cr_assert_not_null(set);
    cr_expect(!has(set, "add.Tensor") && !has(set, "add_.Tensor") && !has(set, "mm") && has(set, "mul.Tensor"));
    cr_expect_stderr_eq_str(
        "gems-preload: GEMS_EXCLUDE names what is no operator of ours: nonsense (gems ops lists them)\n");
}

Test(opset, a_conflict_is_told_and_exclude_wins, .init = cr_redirect_stderr)
{
    setenv("GEMS_ONLY", "add.Tensor,mul.Tensor", 1);
    setenv("GEMS_EXCLUDE", "add.Tensor", 1);
    const gems_opset *set = gems_allowed();
    cr_assert_not_null(set);
    cr_expect(has(set, "mul.Tensor") && !has(set, "add.Tensor") && count(set) == 1);
    cr_expect_stderr_eq_str("gems-preload: GEMS_ONLY and GEMS_EXCLUDE both name add.Tensor: excluded\n");
}
