/* kernels/memory/bounce.c and kernels/work/run.c: transfers through the ring of a device that has memory of its own,
 * here PoCL told to behave like one. Its ring is small, so that these operands go round it several times. */
#include "kernels/device/internal.h"
#include "kernels/memory/memory.h"
#include "tests/unit/device_jobs.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>

static char *cache;

static void staged(void)
{
    cache = make_folder();
    setenv("GEMS_CACHE_DIR", cache, 0);
    setenv("GEMS_MEMORY", "staged", 1);
}

static void drop_cache(void)
{
    remove_folder(cache);
}

TestSuite(bounce, .init = staged, .fini = drop_cache, .timeout = 120);

/* The device, which this test may change. */
static gems_device_info *device_with_ring(void)
{
    cr_assert(gems_device_open(), "%s", gems_device_error());
    gems_device_info *device = (gems_device_info *)gems_device_get(GEMS_LANE_MAIN);
    if (device->bounce_bytes == 0)
        cr_skip_test("this vendor has no ring");
    return device;
}

static float *numbers(int n, float first, float step)
{
    float *p = malloc((size_t)n * sizeof *p);
    for (int i = 0; i < n; i++)
        p[i] = first + step * (float)(i % 100003);
    return p;
}

/* out = a + b and a += b with n elements, and nothing beyond them. */
static void check_size(int n)
{
    float *a = numbers(n + 1, 1, 1), *b = numbers(n + 1, 5, 2), *out = numbers(n + 1, -1, 0);
    gems_call call;
    cr_assert_eq(run_add(GEMS_LANE_MAIN, &call, a, b, out, n), GEMS_OK, "%s", call.why);
    cr_assert_eq(call.bytes, 3 * (size_t)n * sizeof *a);
    for (int i = 0; i < n; i++)
        cr_assert_eq(out[i], a[i] + b[i], "element %d of %d", i, n);
    cr_assert_eq(out[n], -1);
    float last = a[n];
    cr_assert_eq(run_add(GEMS_LANE_MAIN, &call, a, b, a, n), GEMS_OK, "%s", call.why);
    cr_assert(memcmp(a, out, (size_t)n * sizeof *a) == 0 && a[n] == last, "in place, %d elements", n);
    free(a);
    free(b);
    free(out);
}

Test(bounce, every_size_of_a_transfer)
{
    const gems_device_info *d = device_with_ring();
    int from = (int)(d->bounce_from / 4), piece = (int)(d->bounce_piece / 4), ring = (int)(d->bounce_bytes / 4);
    int sizes[] = {from - 1,     from,     piece - 1, piece,    piece + 1,    2 * piece,
                   ring - piece, ring - 1, ring,      ring + 1, ring + piece, 3 * ring + 17};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check_size(sizes[i]);
    cr_expect(gems_bounce_in_use(GEMS_LANE_MAIN), "the ring is still in use");
}

static void *many(void *arg)
{
    for (int i = 0; i < 8; i++)
        check_size(20000 + 40000 * i + (int)(intptr_t)arg);
    return NULL;
}

Test(bounce, threads_share_the_ring)
{
    pthread_t thread[6];
    device_with_ring();
    for (int i = 0; i < 6; i++)
        pthread_create(&thread[i], NULL, many, (void *)(intptr_t)i);
    for (int i = 0; i < 6; i++)
        pthread_join(thread[i], NULL);
}

Test(bounce, without_a_ring_transfers_are_direct)
{
    device_with_ring()->bounce_bytes = 0;
    check_size(300001);
    cr_expect_not(gems_bounce_in_use(GEMS_LANE_MAIN));
}

/* ---- a device that breaks while results come back ---- */

static struct gems_cl_table real;
static bool broken;
static int reads_before; /* that work */

/* Half of a transfer arrives; from then on no wait ends well. */
static cl_int torn_read(cl_command_queue queue, cl_mem mem, cl_bool blocking, size_t offset, size_t size, void *to,
                        cl_uint n, const cl_event *list, cl_event *event)
{
    bool tear = reads_before-- == 0;
    cl_int error = real.clEnqueueReadBuffer(queue, mem, blocking, offset, tear ? size / 2 : size, to, n, list, event);
    real.clFinish(queue);
    broken |= tear;
    return error;
}

static cl_int failing_wait(cl_uint n, const cl_event *list)
{
    return broken ? CL_OUT_OF_RESOURCES : real.clWaitForEvents(n, list);
}

static cl_int failed_event(cl_event event, cl_event_info what, size_t size, void *value, size_t *needed)
{
    if (!broken)
        return real.clGetEventInfo(event, what, size, value, needed);
    *(cl_int *)value = CL_OUT_OF_RESOURCES;
    return CL_SUCCESS;
}

/* An addition in place whose result comes back in half: the operand must be what it was. */
static void check_nothing_is_lost(int n, int reads)
{
    reads_before = reads;
    float *a = numbers(n, 1, 1), *b = numbers(n, 5, 2), *before = numbers(n, 1, 1);
    gems_call call;
    cr_assert_eq(run_add(GEMS_LANE_MAIN, &call, before, b, before, n), GEMS_OK); /* the kernel is built */
    memcpy(before, a, (size_t)n * sizeof *a);
    real = gems_cl;
    gems_cl.clEnqueueReadBuffer = torn_read;
    gems_cl.clWaitForEvents = failing_wait;
    gems_cl.clGetEventInfo = failed_event;
    cr_expect_eq(run_add(GEMS_LANE_MAIN, &call, a, b, a, n), GEMS_FAILED);
    cr_expect(call.why && strstr(call.why, "CL_OUT_OF_RESOURCES"));
    cr_expect_eq(memcmp(a, before, (size_t)n * sizeof *a), 0, "%d elements", n);
    gems_cl = real;
    broken = false;
    free(a);
    free(b);
    free(before);
}

Test(bounce, an_operand_outlives_a_result_that_does_not_arrive)
{
    cr_redirect_stderr();
    int ring = (int)(device_with_ring()->bounce_bytes / 4);
    check_nothing_is_lost(1000, 0);
    check_nothing_is_lost(ring, 3); /* through the ring, which is given up */
    cr_expect_not(gems_bounce_in_use(GEMS_LANE_MAIN));
    check_nothing_is_lost(ring, 0);
    check_size(ring + 1); /* and the device goes on, if it can */
}

Test(bounce, an_operand_larger_than_the_ring_outlives_it_too)
{
    cr_redirect_stderr();
    const gems_device_info *d = device_with_ring();
    check_nothing_is_lost(2 * (int)(d->bounce_bytes / 4), (int)(d->bounce_bytes / d->bounce_piece) + 3);
}

/* ---- the same where kernels write to the host's own memory ---- */

static void unified(void)
{
    cache = make_folder();
    setenv("GEMS_CACHE_DIR", cache, 0);
    setenv("GEMS_MEMORY", "unified", 1);
}

/* The kernel has run, and the driver calls it a failure: the host will do the addition, on what was there before. */
Test(bounce, an_operand_outlives_a_kernel_that_fails_after_it_has_written, .init = unified)
{
    enum {
        N = 1000
    };
    cr_redirect_stderr();
    cr_assert(gems_device_open(), "%s", gems_device_error());
    gems_device_info *device = (gems_device_info *)gems_device_get(GEMS_LANE_MAIN);
    if (!device->unified)
        cr_skip_test("this device has memory of its own");
    device->undoes = false;
    float *a = numbers(N, 1, 1), *b = numbers(N, 5, 2), *before = numbers(N, 1, 1);
    gems_call call;
    cr_assert_eq(run_add(GEMS_LANE_MAIN, &call, a, b, a, N), GEMS_OK, "%s", call.why);
    for (int i = 0; i < N; i++)
        cr_assert_eq(a[i], before[i] + b[i]);
    memcpy(a, before, N * sizeof *a);
    real = gems_cl;
    broken = true;
    gems_cl.clWaitForEvents = failing_wait;
    gems_cl.clGetEventInfo = failed_event;
    cr_expect_eq(run_add(GEMS_LANE_MAIN, &call, a, b, a, N), GEMS_FAILED);
    gems_cl = real;
    cr_expect_eq(memcmp(a, before, N * sizeof *a), 0);
    free(a);
    free(b);
    free(before);
}
