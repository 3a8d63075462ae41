/* Whichever OpenCL call fails, results that were owed are right: what the device does not compute, or may have computed
 * before it failed, the evaluator does. As tests/unit/test_fault.c: a process for each call that fails. */
#include "kernels/device/cl.h"
#include "tests/unit/chain_jobs.h"
#include "tests/unit/device_jobs.h"

#include <criterion/criterion.h>

TestSuite(chain_fault, .init = fresh_cache, .fini = drop_fresh_cache, .timeout = 300);

enum outcome {
    NOT_REACHED,
    SURVIVED,
    WRONG_RESULT,
    NEVER_ON_THE_DEVICE
};

/* In place, cut in two, with a temporary, on both lanes. */
static void program(int rows)
{
    node *x = node_new(GEMS_F32, SHAPE(rows, 64)), *y = node_new(GEMS_F32, SHAPE(64));
    node *a = apply("mul.Tensor", T(x), T(y)), *b = apply("add.Tensor", T(a), T(x), I(2)), *c = apply("neg", T(a));
    apply("add_.Tensor", T(x), T(b), I(1));
    node_free(a);
    chain_same(b);
    apply("mul_.Tensor", T(x), T(x));
    node *part = node_view(x, 64, SHAPE(1, 64), NULL);
    apply("neg_", T(part));
    chain_same(c);
    chain_same(x);
    node_free(part);
    node_free(x);
    node_free(y);
    node_free(b);
    node_free(c);
}

static int run_programs(void *fault)
{
    char text[32];
    int64_t n = *(int64_t *)fault, most = n < 0 ? -n : n;
    snprintf(text, sizeof text, "%lld", (long long)n);
    setenv("GEMS_FAULT", text, 1);
    if (!freopen("/dev/null", "w", stderr)) /* what is said of the failures */
        return WRONG_RESULT;
    if (!gems_device_open() || !gems_chain_start(GEMS_FUSE_ALL, GEMS_STAY_OFF))
        return gems_cl_fault_calls() < most ? WRONG_RESULT : SURVIVED;
    uint64_t by_device = 0;
    for (int round = 0; round < 12 && by_device < 20; round++) {
        program(round % 4 == 3 ? 3000 : 20);
        by_device = chain_counts().passes - chain_counts().evaluated;
        gems_chain_build_rest();
    }
    gems_chain_end(NULL);
    if (trial_failures || !chain_is_empty())
        return WRONG_RESULT;
    return n == 1000000 && by_device < 20 ? NEVER_ON_THE_DEVICE : gems_cl_fault_calls() < most ? NOT_REACHED : SURVIVED;
}

static void for_every_call(int sign, int step)
{
    int64_t none = 1000000, n = 1;
    int result = in_child(run_programs, &none); /* also fills the cache */
    cr_assert_eq(result, NOT_REACHED, "without any fault: %d", result);
    for (result = SURVIVED; result != NOT_REACHED; n += step) {
        int64_t fault = sign * n;
        result = in_child(run_programs, &fault);
        cr_assert(result == SURVIVED || result == NOT_REACHED, "GEMS_FAULT=%lld: %s (%d)", (long long)fault,
                  result == WRONG_RESULT ? "a result is wrong" : "the process died", result);
    }
    printf("%lld calls\n", (long long)n);
    cr_expect_gt(n, 100, "only %lld calls were seen", (long long)n);
}

Test(chain_fault, one_call_fails)
{
    for_every_call(1, 5);
}

Test(chain_fault, all_calls_fail_from_the_nth_on)
{
    for_every_call(-1, 15);
}
