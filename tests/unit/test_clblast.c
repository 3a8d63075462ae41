/* kernels/device/clblast.c on the real library: a product is done or has not happened, whichever OpenCL call fails; a
 * routine that goes on failing is given up; wrong arguments are an error with a name. In place, so that work done twice
 * would be seen. */
#include "kernels/device/internal.h"
#include "tests/unit/device_jobs.h"

#include <criterion/criterion.h>
#include <math.h>

TestSuite(clblast, .timeout = 300);

enum {
    N = 24
};

/* C = A B + C of N x N matrices. */
typedef struct problem {
    float a[N * N], b[N * N], c[N * N], expected[N * N];
    gems_call call;
} problem;

static gems_tensor *square(gems_tensor *t, float *data)
{
    static const int64_t sizes[] = {N, N}, strides[] = {N, 1};
    *t = (gems_tensor){
        .address = (uintptr_t)data, .sizes = sizes, .strides = strides, .numel = N * N, .ndim = 2, .dtype = GEMS_F32};
    return t;
}

static gems_status multiply(problem *p, size_t step)
{
    gems_tensor a, b, c;
    memset(&p->call, 0, sizeof p->call);
    p->call.op = some_op();
    gems_job *job = gems_job_begin(&p->call, GEMS_LANE_MAIN);
    gems_clblast_run(job, &(gems_clblast_product){.routine = GEMS_CLBLAST_GEMM,
                                                  .dtype = GEMS_F32,
                                                  .m = N,
                                                  .n = N,
                                                  .k = N,
                                                  .batch = 1,
                                                  .a = {.tensor = square(&a, p->a), .step = step},
                                                  .b = {.tensor = square(&b, p->b), .step = N},
                                                  .c = {.tensor = square(&c, p->c), .step = N},
                                                  .alpha = 1,
                                                  .beta = 1});
    return gems_job_end(job);
}

static void fill(problem *p)
{
    for (int i = 0; i < N * N; i++)
        p->a[i] = (float)(i % 7) - 3, p->b[i] = (float)(i % 5) - 2, p->c[i] = p->expected[i] = (float)(i % 11);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            for (int k = 0; k < N; k++)
                p->expected[i * N + j] += p->a[i * N + k] * p->b[k * N + j];
}

static bool unchanged(const problem *p)
{
    for (int i = 0; i < N * N; i++)
        if (p->c[i] != (float)(i % 11))
            return false;
    return true;
}

static void open_or_skip(void)
{
    cr_assert(gems_device_open(), "%s", gems_device_error());
    if (gems_clblast_refuses(GEMS_CLBLAST_GEMM, GEMS_F32))
        cr_skip_test("CLBlast is not installed");
}

static void every_fault(void)
{
    static problem p;
    open_or_skip();
    fill(&p);
    cr_assert_eq(multiply(&p, N), GEMS_OK, "%s", p.call.why);
    int failures = 0;
    for (int n = 1; n < 100; n++) {
        fill(&p);
        gems_cl_fault_set(n);
        gems_status status = multiply(&p, N);
        bool hit = gems_cl_fault_calls() >= n;
        gems_cl_fault_set(0);
        if (status == GEMS_OK)
            cr_assert_arr_eq(p.c, p.expected, sizeof p.c, "wrong after fault %d", n);
        else
            cr_assert(unchanged(&p) && p.call.why && *p.call.why, "fault %d: half done, or without a reason", n);
        failures += status != GEMS_OK;
        if (!hit)
            break;
        cr_assert_lt(n, 99);
    }
    cr_expect_geq(failures, 2, "buffers and the routine itself can fail");
}

Test(clblast, whichever_call_fails_the_product_is_done_or_has_not_happened)
{
    every_fault();
}

Test(clblast, the_same_with_copies)
{
    setenv("GEMS_MEMORY", "staged", 1);
    every_fault();
}

Test(clblast, a_routine_that_goes_on_failing_is_given_up)
{
    static problem p;
    open_or_skip();
    fill(&p);
    cr_assert_eq(multiply(&p, N), GEMS_OK, "%s", p.call.why);
    for (int i = 0; i < 4 && !gems_clblast_refuses(GEMS_CLBLAST_GEMM, GEMS_F32); i++) {
        fill(&p);
        gems_cl_fault_set(-(gems_device_get(GEMS_LANE_MAIN)->unified ? 4 : 5)); /* from the routine itself on */
        cr_expect_neq(multiply(&p, N), GEMS_OK);
        gems_cl_fault_set(0);
        cr_expect(strstr(p.call.why, "CLBlastSgemm"), "%s", p.call.why);
    }
    cr_expect_str_eq(gems_clblast_refuses(GEMS_CLBLAST_GEMM, GEMS_F32), "this routine of CLBlast failed before");
    cr_expect_null(gems_clblast_refuses(GEMS_CLBLAST_GEMV, GEMS_F32));
}

Test(clblast, an_error_of_its_own_has_a_name_and_is_final)
{
    static problem p;
    open_or_skip();
    fill(&p);
    cr_expect_eq(multiply(&p, N - 1), GEMS_FAILED);
    cr_expect(strstr(p.call.why, "CLBlastSgemm: leading dimension of A"), "%s", p.call.why);
    cr_expect(unchanged(&p));
    cr_expect_not_null(gems_clblast_refuses(GEMS_CLBLAST_GEMM, GEMS_F32));
}

Test(clblast, other_dtypes_are_refused)
{
    cr_expect_not_null(gems_clblast_refuses(GEMS_CLBLAST_GEMM, GEMS_BF16));
    cr_expect_not_null(gems_clblast_refuses(GEMS_CLBLAST_GEMM, GEMS_F16));
}
