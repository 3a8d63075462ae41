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
    cr_assert(gems_chain_start(GEMS_FUSE_ALL, GEMS_STAY_OFF));
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

/* Random calls on random views of few memories. Small sizes: what matters is who meets whom. */
static inline void random_program(unsigned seed, int calls)
{
    enum {
        NODES = 24
    };
    static const gems_dtype dtypes[] = {GEMS_F32, GEMS_F16, GEMS_I32, GEMS_F64};
    node *x[NODES] = {0};
    for (int i = 0; i < calls; i++) {
        unsigned at = (unsigned)rand_r(&seed) % NODES, r = (unsigned)rand_r(&seed);
        node *a = x[(unsigned)rand_r(&seed) % NODES], *b = x[(unsigned)rand_r(&seed) % NODES], *made = NULL;
        bool unlike = !a || !b || a->t.ndim != b->t.ndim || memcmp(a->sizes, b->sizes, sizeof a->sizes) != 0;
        if (!a || r % 16 == 0)
            made = node_new_in(dtypes[r / 16 % 4], r / 64 % 3 ? SHAPE(8, 12) : SHAPE(12, 8), r / 256 % 8 != 0);
        else if (r % 16 == 1 && a->t.numel >= 48)
            made = node_view(a, 0, SHAPE(a->t.numel / 24, 12), r / 16 % 2 ? STRIDES(12, 1) : STRIDES(24, 1));
        else if (r % 16 == 2 && a->store->bytes == 96 * (size_t)gems_dtypes[a->t.dtype].size)
            made = node_view(a, r / 16 % 2 ? 48 : 0, SHAPE(4, 12), NULL);
        else if (r % 16 == 3)
            chain_same(a);
        else if (r % 16 == 4)
            node_fill(a);
        else if (r % 16 == 5)
            gems_chain_settle((void *)a->t.address, 1, r / 16 % 2, GEMS_CAUSE_OPERATOR);
        else if (r % 16 == 6)
            made = CAST(a, dtypes[r / 16 % 4]);
        else if (r % 16 == 7 && !unlike)
            COPY_(a, b);
        else if (r % 16 == 8 && a->t.dtype != GEMS_I32)
            apply("clamp_", T(a), I(-50), I(50));
        else if (r % 16 < 11 && !unlike)
            ADD_(a, b);
        else if (r % 16 < 14 && !unlike)
            made = r / 16 % 2 ? ADD(a, b) : apply("maximum", T(a), T(b));
        else
            made = apply("neg", T(a));
        if (made) {
            if (x[at])
                node_free(x[at]);
            x[at] = made;
        }
    }
    finish_with(x, NODES);
}

/* All deferred since `before`. */
static inline void all_deferred(long apart)
{
    cr_expect_eq(chain_apart, apart, "%ld calls were not deferred", chain_apart - apart);
}

#endif
