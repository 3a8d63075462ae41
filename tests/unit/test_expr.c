/* The expression language: what it reads, what it refuses and where, what it writes; and kernels generated from it. */
#include "codegen/expr.h"
#include "codegen/pointwise.h"
#include "kernels/pointwise/row.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"self", "other", "min", "max", "approximate"};
static const char functions[] = "float gems_erf(float x);\nfloat gems_trunc(float x);\nfloat gems_floor(float "
                                "x);\nfloat gems_maximum(float a, float b);\n";

static gems_expr *parse(const char *text)
{
    gems_expr_error error;
    gems_expr *e = gems_expr_parse(text, names, 5, functions, &error);
    cr_assert(e, "%s: %s", text, error.text);
    return e;
}

/* What the expression writes with its names standing for themselves; freed by the caller. */
static char *written_with(const char *text, uint32_t facts, const char *quotient)
{
    gems_expr *e = parse(text);
    const char *variables[GEMS_EXPR_NAMES];
    for (unsigned i = 0; i < gems_expr_name_count(e); i++)
        variables[i] = names[gems_expr_name_param(e, i)];
    gems_expr_style style = {variables, "s_", "float", "f", "f16", "", facts, quotient};
    gems_code out = {NULL, 0, 0, false};
    gems_expr_write(e, &style, &out);
    gems_expr_free(e);
    cr_assert_not(out.failed);
    return out.s;
}

static char *written(const char *text, uint32_t facts)
{
    return written_with(text, facts, NULL);
}

static void writes(const char *text, uint32_t facts, const char *want)
{
    char *have = written(text, facts);
    cr_expect_str_eq(have, want);
    free(have);
}

static void refuses(const char *text, size_t at, const char *why)
{
    gems_expr_error error;
    gems_expr *e = gems_expr_parse(text, names, 5, functions, &error);
    cr_assert_null(e, "%s should be refused", text);
    cr_expect(error.at == at && strcmp(error.text, why) == 0, "%s: %zu: %s", text, error.at, error.text);
}

/* A quotient that is not quite exact is good enough for what is rounded in the end, not for what takes steps. */
Test(expr, quotients_are_exact_before_steps)
{
    const struct {
        const char *text, *want;
    } cases[] = {
        {"1 / (1 + self)", "const float s_r0 = ABOUT(1, (1 + self));\n"},
        {"trunc(self / other)", "const float s_r0 = gems_trunc((self / other));\n"},
        {"q = self / other; floor(q)", "const float s_q = (self / other);\nconst float s_r0 = gems_floor(s_q);\n"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *have = written_with(cases[i].text, 0, "ABOUT");
        cr_expect_str_eq(have, cases[i].want, "%s", have);
        free(have);
    }
}

Test(expr, operators_bind_as_in_c)
{
    writes("self + other * 2", 0, "const float s_r0 = (self + (other * 2));\n");
    writes("-self * other == 0.5 && self < other || 1", 0,
           "const float s_r0 = (((((-self) * other) == 0.5f) && (self < other)) || 1);\n");
    writes("self & other << 2 | 1 ^ 3", 0, "const float s_r0 = ((self & (other << 2)) | (1 ^ 3));\n");
    writes("self - other - 1", 0, "const float s_r0 = ((self - other) - 1);\n");
    writes("self ? other : self ? 1 : 2", 0, "const float s_r0 = (self ? other : (self ? 1 : 2));\n");
    writes("!self != ~other", 0, "const float s_r0 = ((!self) != (~other));\n");
}

Test(expr, literals_casts_words_and_calls)
{
    writes("(T)1.5e3 + (int)self", 0, "const float s_r0 = (((float)1.5e3f) + ((int)self));\n");
    writes("self == -inf ? dtype_max : dtype_lowest", 0,
           "const float s_r0 = ((self == (-((float)INFINITY))) ? GEMS_MAX_f16 : GEMS_LOWEST_f16);\n");
    writes("maximum(erf(self), (other))", 0, "const float s_r0 = gems_maximum(gems_erf(self), other);\n");
    writes("half", 0, "const float s_r0 = 1;\n");
    writes("(D)self", 0, "const float s_r0 = gems_get_f16(gems_put_f16(self));\n");
}

Test(expr, statements_name_what_later_ones_use)
{
    writes("t = self * self; t + 1; t - 1", 0,
           "const float s_t = (self * self);\nconst float s_r0 = (s_t + 1);\nconst float s_r1 = (s_t - 1);\n");
    gems_expr *e = parse("t = self; t; t == 1");
    cr_expect_eq(gems_expr_result_count(e), 2);
    gems_expr_free(e);
}

Test(expr, facts_take_branches_away)
{
    const char *text = "has(min) ? maximum(self, min) : is(approximate, \"tanh\") ? other : self";
    gems_expr *e = parse(text);
    cr_assert_eq(gems_expr_fact_count(e), 2);
    const gems_expr_fact *f = gems_expr_fact_at(e, 1);
    cr_expect(f->kind == 's' && f->length == 4 && memcmp(f->text, "tanh", 4) == 0);
    uint32_t needs = gems_expr_needs(e, 0);
    for (unsigned i = 0; i < gems_expr_name_count(e); i++)
        cr_expect_eq((needs >> i) & 1, strcmp(names[gems_expr_name_param(e, i)], "self") == 0);
    gems_expr_free(e);
    writes(text, 1, "const float s_r0 = gems_maximum(self, min);\n");
    writes(text, 2, "const float s_r0 = other;\n");
    writes(text, 0, "const float s_r0 = self;\n");
    writes("!has(min) && self ? 1 : 2", 0, "const float s_r0 = ((1 && self) ? 1 : 2);\n");
    writes("one(other) ? self : 2", 1, "const float s_r0 = self;\n");
    writes("is(other, -0.5) || has(min) ? 1 : 2", 2, "const float s_r0 = 1;\n");
}

Test(expr, refusals_name_the_place)
{
    refuses("self + nobody", 7, "unknown name 'nobody'");
    refuses("gamma(self)", 0, "no function 'gamma' in kernels/math.cl");
    refuses("self +", 6, "expected an operand");
    refuses("(self", 5, "expected ')'");
    refuses("self ? 1", 8, "expected ':'");
    refuses("self other", 5, "unexpected 'o'");
    refuses("t = self", 8, "no result");
    refuses("", 0, "expected an operand");
    refuses("self = 1; self", 6, "'self' is a parameter");
    refuses("has(1)", 4, "has(), one() and is() want a parameter's name");
    refuses("is(self, other)", 9, "is() wants a text or a number");
}

Test(expr, nesting_and_length_are_bounded)
{
    char deep[400], *wide = malloc(4000);
    memset(deep, '(', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    gems_expr_error error;
    cr_expect_null(gems_expr_parse(deep, names, 5, functions, &error));
    strcpy(wide, "self");
    for (int i = 0; i < 400; i++)
        strcat(wide, "+self");
    cr_expect_null(gems_expr_parse(wide, names, 5, functions, &error));
    free(wide);
}

Test(rows, every_row_of_the_family_can_be_read)
{
    extern const struct gems_family gems_family_pointwise;
    int n = 0;
    for (unsigned i = 0; i < gems_op_count; i++)
        if (gems_ops[i].kernel == &gems_family_pointwise) {
            n++;
            cr_expect(pw_row_get(&gems_ops[i]), "%s", gems_ops[i].name);
        }
    cr_expect_gt(n, 200);
}

static bool only_picks(const char *text, uint32_t facts, unsigned r, uint32_t allowed)
{
    gems_expr *e = parse(text);
    bool picks = gems_expr_only_picks(e, facts, r, allowed);
    gems_expr_free(e);
    return picks;
}

Test(expr, what_is_picked_needs_no_rounding)
{
    cr_expect(only_picks("self < 0 ? (T)0 : -self", 0, 0, 1));
    cr_expect(only_picks("t = maximum(self, other); erf(t) < 1 ? t : inf", 0, 0, 3));
    cr_expect(only_picks("erf(self); self", 0, 1, 1));
    cr_expect(only_picks("(D)(self + other)", 0, 0, 3));
    cr_expect(only_picks("has(self) ? other : self + other", 1, 0, 2));
    cr_expect_not(only_picks("has(self) ? other : self + other", 0, 0, 3));
    cr_expect_not(only_picks("maximum(self, other)", 0, 0, 1), "the other one may need rounding");
    cr_expect_not(only_picks("self < 0 ? 0.1 : self", 0, 0, 1));
    cr_expect_not(only_picks("self < 0 ? 1000 : self", 0, 0, 1));
    cr_expect_not(only_picks("erf(self); self", 0, 0, 1));
    cr_expect_not(only_picks("half", 0, 0, 1));
}

static bool has_quick(const char *text, uint32_t facts, const char *type)
{
    gems_expr_error error;
    gems_expr *e = gems_expr_parse(text, names, 5, NULL, &error);
    bool has = gems_expr_has_quick(e, facts, type);
    gems_expr_free(e);
    return has;
}

Test(expr, quick_functions)
{
    cr_expect(has_quick("1 + sin(self) * 2", 0, "float"));
    cr_expect_not(has_quick("1 + sin(self) * 2", 0, "double"));
    cr_expect(has_quick("t = remainder(self, other); -(float)t", 0, "double"));
    cr_expect_not(has_quick("remainder(self, other)", 0, "int"));
    cr_expect(has_quick("has(min) ? erf(div_floor(self, 2)) : self", 1, "float"));
    cr_expect_not(has_quick("has(min) ? div_floor(self, 2) : self", 0, "float"));
    cr_expect_not(has_quick("sinh(self)", 0, "float"));
}

/* self (f16) + other (f32), all dense, on a CPU; then erf of what an f16 tensor would hold of it, and only that stored.
 */
Test(source, a_chain_is_one_kernel_that_rounds_as_two_would)
{
    gems_expr *sum = parse("self + other"), *erf = parse("erf(self)");
    gems_pw_spec *spec = calloc(1, sizeof *spec + 2 * sizeof *spec->step);
    cr_assert(spec);
    spec->loop = GEMS_PW_RUN;
    spec->noperands = 3;
    spec->operand[0] = (gems_pw_operand){.dtype = GEMS_F16, .place = GEMS_PW_WRITE, .stride = GEMS_PW_UNIT};
    spec->operand[1] = (gems_pw_operand){.dtype = GEMS_F16, .place = GEMS_PW_READ, .stride = GEMS_PW_UNIT};
    spec->operand[2] = (gems_pw_operand){.dtype = GEMS_F16, .place = GEMS_PW_VALUE};
    spec->nsteps = 2;
    spec->step[0] = (gems_pw_step){.expr = sum,
                                   .compute = GEMS_F16,
                                   .nresults = 1,
                                   .result = {GEMS_F16},
                                   .store = {GEMS_PW_UNSTORED},
                                   .bind = {{0, 1, GEMS_F16, 0}, {0, 2, GEMS_F16, 0}}};
    spec->step[1] = (gems_pw_step){.expr = erf,
                                   .compute = GEMS_F16,
                                   .nresults = 1,
                                   .result = {GEMS_F16},
                                   .store = {0},
                                   .bind = {{1, 0, GEMS_F16, 0}}};
    char *source = gems_pw_source(spec, "pw_test");
    cr_assert(source);
    cr_expect(strstr(source, "const float x1 = gems_get_f16(p1[i]);"), "%s", source);
    cr_expect(strstr(source, "const float s0_r0 = (x1 + c2);"), "%s", source);
    cr_expect(strstr(source, "const float y0_0 = gems_get_f16(gems_put_f16(s0_r0));"), "%s", source);
    cr_expect(strstr(source, "const float s1_r0 = gems_erf(y0_0);"), "%s", source);
    cr_expect(strstr(source, "p0[i] = gems_put_f16(s1_r0);"), "%s", source);
    cr_expect_eq(gems_pw_spec_bytes(spec), offsetof(gems_pw_spec, step[2]), "two steps identify it");
    gems_expr *same = parse("self + other");
    cr_expect(gems_expr_first(same) == gems_expr_first(sum) && gems_expr_first(same) != gems_expr_first(erf));
    gems_expr_free(same);
    free(source);
    free(spec);
    gems_expr_free(sum);
    gems_expr_free(erf);
}
