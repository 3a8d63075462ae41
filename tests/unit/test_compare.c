/* preload/engine/compare.c without PyTorch: what GEMS_CHECK takes for a difference, and what it leaves alone. Each test
 * is its own process. */
#include "tests/unit/fake_host.h"
#include "preload/base/config.h"
#include "preload/engine/compare.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <math.h>

static void set_up(void)
{
    setenv("GEMS_CHECK", "100", 1);
    cr_redirect_stderr();
    gems_config_get();
}

TestSuite(compare, .init = set_up);

static char report[4096];

static void add_line(const char *text)
{
    strcat(strcat(report, text), "\n");
}

static gems_tensor vector(float *data, const int64_t *size, const int64_t *stride)
{
    return (gems_tensor){.data = data, .sizes = size, .strides = stride, .numel = *size, .ndim = 1, .dtype = GEMS_F32};
}

/* One call of a unary operator with the results given: ours, then the host's. `cols`: of the named sizes. */
static void compare(const char *name, int64_t n, float *ours, float *host, int64_t cols)
{
    static const int64_t one = 1;
    gems_tensor x = vector(ours, &n, &one), y = vector(host, &n, &one);
    gems_call call = {.op = gems_op_find(name), .host = &fake_host};
    memset(&call.sizes, -1, sizeof call.sizes);
    call.sizes.v[GEMS_SIZE_COLS] = cols;
    for (int i = 0; i < call.op->nparams; i++)
        call.arg[i] = (gems_value){.kind = i ? GEMS_NONE : GEMS_TENSOR, .tensor = i ? NULL : &x};
    gems_comparison *c = gems_compare_begin(&call);
    cr_assert_not_null(c);
    cr_assert_not_null(gems_call_result(&call, 0, GEMS_F32, 1, &n, NULL));
    memcpy(call.result[0].data, ours, (size_t)n * sizeof *ours);
    cr_assert(gems_compare_keep(c, &call, true));
    cr_assert_eq(gems_compare_pending(), call.op);
    gems_compare_result(0, &y);
    gems_compare_end(false);
    cr_assert_null(gems_compare_pending());
}

Test(compare, errors_of_small_values_are_not_hidden)
{
    compare("neg", 2, (float[]){1, 0x1.1p-20f}, (float[]){1, 0x1p-20f}, -1);
    cr_expect_stderr_eq_str(
        "gems-preload: GEMS_CHECK: neg f32[2]: result 0: 1 of 2 values differ, by up to 5.96046e-08\n");
}

Test(compare, values_within_the_tolerance_do_not_differ)
{
    compare("neg", 5, (float[]){1.00001f, 1e-42f, 0.f, NAN, INFINITY}, (float[]){1, 1.0014e-42f, -0.f, NAN, INFINITY},
            -1);
    cr_expect_stderr_eq_str("");
}

Test(compare, terms_of_a_sum_may_cancel)
{
    compare("sum", 2, (float[]){1e3f, 1e-5f}, (float[]){1e3f, 3e-5f}, 1000);
    compare("sum", 2, (float[]){1e3f, 1e-2f}, (float[]){1e3f, 3e-2f}, 1000);
    cr_expect_stderr_eq_str("gems-preload: GEMS_CHECK: sum f32[2]: result 0: 1 of 2 values differ, by up to 0.02\n");
}

Test(compare, the_report_names_the_call_with_the_largest_relative_error)
{
    compare("neg", 1, (float[]){1e-3f}, (float[]){2e-3f}, -1);
    compare("neg", 3, (float[]){1e6f, 1, 1}, (float[]){1.1e6f, 1, 1}, -1);
    gems_compare_report(add_line);
    cr_expect_not_null(strstr(report, "2 compared      2 differ  largest error 1e+05 (relative 0.5) at neg f32[1]\n"),
                       "%s", report);
}

/* What another thread writes between the elements, meanwhile, stays: x[:, 0] is ours, x[:, 1] is not. */
Test(compare, only_the_elements_of_a_strided_result_are_put_back)
{
    float x[8] = {1, -1, 2, -2, 3, -3, 4, -4};
    int64_t size = 4, stride = 2;
    gems_tensor column = vector(x, &size, &stride);
    gems_call call = {.op = gems_op_find("neg_"), .host = &fake_host};
    call.arg[0] = (gems_value){.kind = GEMS_TENSOR, .tensor = &column};
    gems_comparison *c = gems_compare_begin(&call);
    cr_assert_not_null(c);
    cr_assert_not_null(gems_call_result(&call, 0, GEMS_F32, 1, &size, NULL));
    for (int i = 0; i < 8; i += 2)
        x[i] = -x[i]; /* our turn */
    for (int i = 1; i < 8; i += 2)
        x[i] = 7; /* the other thread */
    cr_assert(gems_compare_keep(c, &call, true));
    for (int i = 0; i < 4; i++)
        cr_expect(x[2 * i] == i + 1 && x[2 * i + 1] == 7, "row %d: %g %g", i, x[2 * i], x[2 * i + 1]);
    for (int i = 0; i < 8; i += 2)
        x[i] = i == 4 ? 5 : -x[i]; /* the host's turn */
    gems_compare_result(0, &column);
    gems_compare_end(false);
    cr_expect_stderr_eq_str("gems-preload: GEMS_CHECK: neg_ f32[4]: result 0: 1 of 4 values differ, by up to 8\n");
}

Test(compare, a_turn_of_ours_without_effect_is_not_compared)
{
    int64_t n = 1;
    float x = 1;
    gems_tensor t = vector(&x, &n, &n);
    gems_call call = {.op = gems_op_find("neg_"), .host = &fake_host};
    call.arg[0] = (gems_value){.kind = GEMS_TENSOR, .tensor = &t};
    cr_expect(!gems_compare_keep(gems_compare_begin(&call), &call, false) && !gems_compare_pending());
    cr_expect(!gems_compare_keep(NULL, &call, true));
    gems_compare_report(add_line);
    cr_expect_str_eq(report, "");
}
