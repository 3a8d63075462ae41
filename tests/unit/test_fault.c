/* Whichever OpenCL call fails, a work is either done or has not happened, and says which.
 *
 * For every n the same work runs in a process of its own in which the n-th OpenCL call fails (or all from the n-th on),
 * opening and building included. The work is in place, so that one that reports a failure although its kernel ran, or
 * runs, would be seen: the host would add twice. */
#include "kernels/device/internal.h"
#include "tests/unit/device_jobs.h"
#include "tests/unit/sample.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>

TestSuite(fault, .init = fresh_cache, .fini = drop_fresh_cache, .timeout = 300);

enum {
    N = 40000 /* in staged memory two pieces of the ring */
};
enum outcome {
    NOT_REACHED,
    SURVIVED,
    WRONG_RESULT,
    NO_REASON
};

/* x += y on the device or, if that fails, as the host would. False if the result is wrong. */
static enum outcome add_to(gems_lane lane, float *x, float *y)
{
    float expected[N];
    gems_call call;
    for (int i = 0; i < N; i++)
        expected[i] = x[i] + y[i];
    gems_status status = run_add(lane, &call, x, y, x, N);
    if (status != GEMS_OK)
        for (int i = 0; i < N; i++)
            x[i] += y[i];
    for (int i = 0; i < N; i++)
        if (x[i] != expected[i])
            return WRONG_RESULT;
    return status == GEMS_OK || (call.why && *call.why) ? SURVIVED : NO_REASON;
}

/* A sum over two launches with scratch memory between them; the result is a new one. */
static enum outcome two_launches(gems_lane lane, const float *x)
{
    static const char source[] = "kernel void twice(GEMS_BUFFER(const float, x), GEMS_BUFFER(float, t))\n"
                                 "{\n    GEMS_AT(const float, x);\n    GEMS_AT(float, t);\n    int i = "
                                 "get_global_id(0);\n    t[i] = 2 * x[i];\n}\n";
    float out[N];
    vector vx, vout;
    size_t global = N;
    gems_call call = {.op = some_op()};
    gems_work work;
    begin_work(&work, lane);
    gems_kernel *kernel = find_kernel(&work, 51);
    if (!kernel)
        kernel = build_kernel(&work, 51, "test/twice", NULL, source, "twice");
    int scratch = gems_work_scratch(&work, sizeof out);
    gems_launch(&work, kernel, 1, &global, NULL,
                (gems_arg[]){GEMS_IN(vector_of(&vx, (float *)x, N)), GEMS_SCRATCH(scratch)}, 2);
    gems_launch(&work, kernel, 1, &global, NULL,
                (gems_arg[]){GEMS_SCRATCH(scratch), GEMS_OUT_ARG(vector_of(&vout, out, N))}, 2);
    gems_status status = run_and_end(&work, &call);
    if (status != GEMS_OK)
        return call.why && *call.why ? SURVIVED : NO_REASON;
    for (int i = 0; i < N; i++)
        if (out[i] != 4 * x[i])
            return WRONG_RESULT;
    return SURVIVED;
}

static int works(void *fault)
{
    char text[32];
    float x[N], y[N];
    int64_t n = *(int64_t *)fault;

    snprintf(text, sizeof text, "%lld", (long long)n);
    setenv("GEMS_FAULT", text, 1);
    if (!freopen("/dev/null", "w", stderr)) /* what is said of the failures */
        return NO_REASON;
    for (int i = 0; i < N; i++) {
        x[i] = (float)i;
        y[i] = 1000;
    }
    for (int round = 0; round < 3; round++)
        for (int lane = 0; lane < GEMS_LANE_COUNT; lane++) {
            enum outcome outcome = add_to((gems_lane)lane, x, y);
            if (outcome == SURVIVED)
                outcome = two_launches((gems_lane)lane, x);
            if (outcome != SURVIVED)
                return outcome;
        }
    return gems_cl_fault_calls() < (n < 0 ? -n : n) ? NOT_REACHED : SURVIVED;
}

/* The number of calls that opening makes. */
static int opening(void *unused)
{
    (void)unused;
    setenv("GEMS_FAULT", "1000000000", 1);
    return gems_device_open() ? (int)gems_cl_fault_calls() : 0;
}

/* Runs the work for n = start, start + step, ..., or a sample of them, until nothing fails any more. */
static void for_every_call(int sign, int64_t start, int step)
{
    int64_t none = 0, n = start;
    int first = in_child(works, &none);
    cr_assert_eq(first, SURVIVED, "without any fault: %d", first); /* also fills the cache */
    for (int result = SURVIVED; result != NOT_REACHED; n += step * one_in(3)) {
        int64_t fault = sign * n;
        result = in_child(works, &fault);
        cr_assert(result == SURVIVED || result == NOT_REACHED, "GEMS_FAULT=%lld: %s (%d)", (long long)fault,
                  result == WRONG_RESULT ? "the result is wrong"
                  : result == NO_REASON  ? "no reason was given"
                                         : "the process died",
                  result);
    }
    cr_expect_gt(n, start + 50, "only %lld calls were seen", (long long)n);
}

Test(fault, one_call_fails_in_unified_memory)
{
    for_every_call(1, 1, 1);
}

Test(fault, all_calls_fail_from_the_nth_on_in_unified_memory)
{
    for_every_call(-1, 1, 5);
}

Test(fault, one_call_fails_in_staged_memory)
{
    setenv("GEMS_MEMORY", "staged", 1);
    for_every_call(1, 1 + in_child(opening, NULL), 1);
}

Test(fault, all_calls_fail_from_the_nth_on_in_staged_memory)
{
    setenv("GEMS_MEMORY", "staged", 1);
    for_every_call(-1, 1 + in_child(opening, NULL), 3); /* up to there as above */
}

Test(fault, one_call_fails_while_programs_are_built)
{
    setenv("GEMS_CACHE_MB", "0", 1);
    for_every_call(1, 1 + in_child(opening, NULL), 3);
}

Test(fault, a_device_that_always_fails_is_given_up)
{
    float x[N] = {0}, y[N] = {0};
    gems_call call;
    cr_assert_eq(run_add(GEMS_LANE_MAIN, &call, x, y, x, N), GEMS_OK);
    if (!freopen("/dev/null", "w", stderr))
        cr_skip_test("no /dev/null");
    gems_cl_fault_set(-1);
    for (int i = 0; i < 100; i++)
        cr_assert_neq(run_add(GEMS_LANE_MAIN, &call, x, y, x, N), GEMS_OK);
    cr_expect_not(gems_device_open());
    cr_expect_str_eq(gems_device_error(), "the device failed too often");
    cr_expect_lt(gems_cl_fault_calls(), 100, "it is not asked for ever");
}
