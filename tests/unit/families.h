/* Every family of operators without PyTorch: each of its variants, on both lanes, on operands of several dtypes, shapes
 * and layouts, against plain loops (family.h). Each test is run twice: on the memory that the device would use anyway,
 * and with operands and results copied (GEMS_MEMORY=staged).
 *
 * A family is a function test_<family> in one of the files test_families_*.c and its name in that file's list below; a
 * family or a variant that no trial reaches fails. */
#ifndef GEMS_TEST_FAMILIES_H
#define GEMS_TEST_FAMILIES_H

#include "tests/unit/family.h"
#include "kernels/blas/blas.h"
#include "kernels/device/internal.h"

#include <criterion/criterion.h>
#include <unistd.h>

#define POINTWISE(X) X(pointwise) X(glu) X(glu_backward) X(polar)
#define ROWS(X)                                                                                                        \
    X(reduce)                                                                                                          \
    X(arg)                                                                                                             \
    X(softmax) X(norm) X(norm_backward) X(batch_norm) X(scan) X(scan_best) X(sort) X(nll_loss) X(nll_loss_backward)
#define PRODUCTS(X) X(blas) X(attention) X(attention_backward) X(conv)
#define MOVES(X)                                                                                                       \
    X(cat)                                                                                                             \
    X(stack)                                                                                                           \
    X(flip)                                                                                                            \
    X(repeat)                                                                                                          \
    X(pad) X(tri) X(embedding) X(index_select) X(gather) X(embedding_dense_backward) X(scatter) X(index_add) X(pool)

static const gems_dtype floating[] = {GEMS_F32, GEMS_F16, GEMS_BF16, GEMS_F64};
enum {
    FLOATING = 4
};

static inline const gems_family *family_of(const char *name)
{
    for (unsigned i = 0; i < gems_op_count; i++)
        if (gems_ops[i].kernel && strcmp(gems_ops[i].kernel->name, name) == 0)
            return gems_ops[i].kernel;
    return NULL;
}

/* A variant that no trial reached has no test, or fits nothing any more. */
static inline void check_family(const char *name, void (*test)(void))
{
    const gems_family *family = family_of(name);
    cr_assert(gems_device_open(), "%s", gems_device_error());
    cr_assert_not_null(family);
    test();
    for (const gems_variant *v = family->variants; v->name && (is_full() || !is_staged()); v++) {
        if (strcmp(v->name, "clblast") == 0 && (is_simulated() || gems_clblast_refuses(GEMS_CLBLAST_GEMM, GEMS_F32)))
            continue;
        if (v->device && !v->device(gems_device_get(GEMS_LANE_MAIN)))
            continue; /* in the language of NVIDIA alone: tests/host, there */
        for (int lane = 0; lane < (is_simulated() ? 1 : GEMS_LANE_COUNT); lane++)
            cr_expect(has_run(family, lane, v), "no trial of %s ran variant %s on lane %d", name, v->name, lane);
    }
    cr_expect_eq(trial_failures, 0);
    cr_expect_eq(gems_program_undeclared, 0, "kernels/builtins.cl lacks something");
}

/* Each test is a process of its own; errors that Oclgrind finds go to a file for each. */
static inline void set_up(void)
{
    const char *log = getenv("OCLGRIND_LOG");
    char own[4096];
    snprintf(own, sizeof own, "%s.%d", log ? log : "", (int)getpid());
    if (log)
        setenv("OCLGRIND_LOG", own, 1);
}

static inline void set_up_staged(void)
{
    set_up();
    setenv("GEMS_MEMORY", "staged", 1);
}

/* Once in each file. */
#define SUITES                                                                                                         \
    TestSuite(families, .init = set_up, .timeout = 600);                                                               \
    TestSuite(families_staged, .init = set_up_staged, .timeout = 600);
#define TESTS(name)                                                                                                    \
    Test(families, name)                                                                                               \
    {                                                                                                                  \
        check_family(#name, test_##name);                                                                              \
    }                                                                                                                  \
    Test(families_staged, name)                                                                                        \
    {                                                                                                                  \
        check_family(#name, test_##name);                                                                              \
    }

#endif
