/* The suites of chains' tests: each test is a process; most run twice: with the device (where a kernel is not built
 * yet, the evaluator) and with a device of which every call fails. */
#ifndef GEMS_TEST_CHAIN_SUITE_H
#define GEMS_TEST_CHAIN_SUITE_H

#include "tests/unit/chain_jobs.h"
#include "kernels/device/cl.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/wait.h>

static inline void start(void)
{
    cr_assert(gems_device_open(), "%s", gems_device_error());
    cr_assert(gems_chain_start(GEMS_FUSE_ALL));
}

static inline void start_alone(void)
{
    start();
    if (!freopen("/dev/null", "w", stderr)) /* what is said of the failures */
        abort();
    gems_cl_fault_set(-1);
}

static inline void all_right(void)
{
    cr_expect_eq(trial_failures, 0, "%ld values are wrong", trial_failures);
}

TestSuite(chain, .init = start, .fini = all_right, .timeout = 300);
TestSuite(chain_alone, .init = start_alone, .fini = all_right, .timeout = 120);

/* The device's pass is what is compared: again until all its kernels are built. */
static inline void on_device(void (*program)(void))
{
    for (int i = 0; i < 4000; i++) {
        gems_chain_counts before = chain_counts();
        program();
        gems_chain_counts after = chain_counts();
        if (after.passes > before.passes && after.evaluated == before.evaluated)
            return;
        usleep(50000);
    }
    cr_assert_fail("the kernels are never built");
}

#define BOTH(program)                                                                                                  \
    Test(chain, program)                                                                                               \
    {                                                                                                                  \
        on_device(program);                                                                                            \
    }                                                                                                                  \
    Test(chain_alone, program)                                                                                         \
    {                                                                                                                  \
        program();                                                                                                     \
        program();                                                                                                     \
    }

#define STRIDES(...) ((const int64_t[]){__VA_ARGS__})
#define ADD(a, b)    apply("add.Tensor", T(a), T(b), I(1))
#define MUL(a, b)    apply("mul.Tensor", T(a), T(b))
#define TIMES(a, v)  apply("mul.Scalar", T(a), I(v))
#define ADD_(a, b)   apply("add_.Tensor", T(a), T(b), I(1))
#define COPY_(a, b)  apply("copy_", T(a), T(b), (gems_value){.kind = GEMS_SCALAR_BOOL})
#define CAST(a, to)  apply("_to_copy", T(a), D(to), NONE, NONE, NONE, (gems_value){.kind = GEMS_SCALAR_BOOL}, NONE)

static inline shape scalar(void)
{
    return (shape){0};
}

/* Compares and frees. */
static inline void finish_with(node *const *x, int n)
{
    for (int i = 0; i < n; i++)
        if (x[i])
            chain_same(x[i]);
    for (int i = 0; i < n; i++)
        if (x[i])
            node_free(x[i]);
    cr_expect(chain_is_empty(), "something is left");
}
#define FINISH(...)                                                                                                    \
    finish_with((node *const[]){__VA_ARGS__}, (int)(sizeof((node *const[]){__VA_ARGS__}) / sizeof(node *)))

/* All deferred since `before`. */
static inline void all_deferred(long apart)
{
    cr_expect_eq(chain_apart, apart, "%ld calls were not deferred", chain_apart - apart);
}

#endif
