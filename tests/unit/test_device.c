/* kernels/device on a real OpenCL: jobs, memory, lanes, threads, forks and the end of the process. Each test is its own
 * process. GEMS_VENDOR chooses the implementation to test, as everywhere. */
#include "kernels/device/internal.h"
#include "kernels/memory/memory.h"
#include "tests/unit/device_jobs.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <time.h>

static char *cache;
static struct gems_cl_table real;

static void own_cache(void)
{
    cache = make_folder();
    setenv("GEMS_CACHE_DIR", cache, 0);
    unsetenv("GEMS_SAVE");
}

static void drop_cache(void)
{
    remove_folder(cache);
}

TestSuite(device, .init = own_cache, .fini = drop_cache, .timeout = 120);

static void staged(void)
{
    setenv("GEMS_MEMORY", "staged", 1);
}

static void fill(float *p, int n, float first, float step)
{
    for (int i = 0; i < n; i++)
        p[i] = first + step * (float)i;
}

/* ---- opening ---- */

Test(device, nothing_of_opencl_is_loaded_before_the_device_is_opened)
{
    cr_expect_null(dlopen("libOpenCL.so.1", RTLD_NOLOAD | RTLD_LAZY));
    cr_expect_str_eq(gems_device_get(GEMS_LANE_MAIN)->vendor, "none");
    cr_assert(gems_device_open(), "%s", gems_device_error());
    cr_expect_str_neq(gems_device_get(GEMS_LANE_MAIN)->vendor, "none");
}

Test(device, pocl_serves_two_lanes_from_the_hosts_memory)
{
    cr_assert(gems_device_open(), "%s", gems_device_error());
    const gems_device_info *main = gems_device_get(GEMS_LANE_MAIN), *small = gems_device_get(GEMS_LANE_SMALL);
    if (strcmp(main->vendor, "pocl") != 0)
        cr_skip_test("only of PoCL");
    cr_expect_str_neq(main->name, small->name);
    cr_expect(main->unified && small->unified && main->is_cpu);
    cr_expect_eq(small->compute_units, 1);
}

Test(device, opening_leaves_the_environment_as_it_was)
{
    setenv("SOME_TEST_VARIABLE", "kept", 1);
    unsetenv("POCL_DEVICES");
    cr_assert(gems_device_open(), "%s", gems_device_error());
    cr_expect_null(getenv("POCL_DEVICES"));
    cr_expect_not_null(getenv("PATH"));
    cr_expect_str_eq(getenv("SOME_TEST_VARIABLE"), "kept");
    setenv("SOME_TEST_VARIABLE", "changed", 1);
    cr_expect_str_eq(getenv("SOME_TEST_VARIABLE"), "changed");
}

Test(device, a_vendor_that_is_not_there_is_named_and_nothing_runs)
{
    setenv("GEMS_VENDOR", "nonesuch", 1);
    cr_redirect_stderr();
    gems_call call;
    float x[4] = {1, 2, 3, 4}, out[4] = {0};
    cr_expect_not(gems_device_open());
    cr_expect(strstr(gems_device_error(), "GEMS_VENDOR=nonesuch"));
    cr_expect_eq(run_add(GEMS_LANE_MAIN, &call, x, x, out, 4), GEMS_DECLINED);
    cr_expect(strstr(call.why, "GEMS_VENDOR=nonesuch"), "%s", call.why);
    cr_expect_eq(out[0], 0);
}

Test(device, a_vendor_that_is_not_there_aborts_if_strict, .signal = SIGABRT)
{
    setenv("GEMS_VENDOR", "nonesuch", 1);
    setenv("GEMS_STRICT", "1", 1);
    cr_redirect_stderr();
    gems_device_open();
}

Test(device, a_device_index_out_of_range_is_ignored)
{
    setenv("GEMS_DEVICE", "77", 1);
    cr_redirect_stderr();
    cr_expect(gems_device_open());
}

/* Place of the device in use among those found; 99: none. */
static int device_in_use(void *unused)
{
    const gems_device_seen *seen;
    (void)unused;
    if (gems_device_open())
        for (unsigned i = 0, n = gems_device_list(&seen); i < n; i++)
            if (seen[i].main)
                return (int)i;
    return 99;
}

Test(device, ranks_share_out_the_devices_and_an_index_wins)
{
    const gems_device_seen *seen;
    if (getenv("GEMS_VENDOR"))
        cr_skip_test("only of PoCL, which can show several devices");
    setenv("GEMS_VENDOR", "PoCL", 1); /* case does not matter */
    setenv("POCL_DEVICES", "basic pthread pthread", 1);
    static const struct {
        const char *rank;
        int device;
    } cases[] = {{"0", 0}, {"1", 1}, {"2", 0}, {"5", 1}, {"many", 0}, {"", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setenv("LOCAL_RANK", cases[i].rank, 1);
        cr_expect_eq(in_child(device_in_use, NULL), cases[i].device, "LOCAL_RANK=%s", cases[i].rank);
    }
    setenv("GEMS_DEVICE", "1", 1);
    setenv("LOCAL_RANK", "0", 1);
    cr_assert_eq(device_in_use(NULL), 1);
    cr_assert_eq(gems_device_list(&seen), 3);
    cr_expect(seen[2].small, "the one for small calls is no choice and comes last");
}

Test(device, a_driver_without_the_linker_that_it_runs_is_not_used)
{
    cr_redirect_stderr();
    setenv("PATH", "/nonexistent", 1);
    const char *vendor = getenv("GEMS_VENDOR");
    if (vendor && strcmp(vendor, "pocl") != 0)
        cr_skip_test("only of PoCL");
    setenv("GEMS_VENDOR", "pocl", 1);
    cr_expect_not(gems_device_open());
    cr_expect(strstr(gems_device_error(), "ld, which is not on the PATH"), "%s", gems_device_error());
}

Test(device, a_driver_that_the_loader_does_not_know_is_found)
{
    if (getenv("GEMS_VENDOR"))
        cr_skip_test("only of PoCL");
    setenv("OCL_ICD_VENDORS", "/nonexistent", 1);
    setenv("GEMS_VENDOR", "pocl", 1);
    cr_assert(gems_device_open(), "%s", gems_device_error());
    gems_call call;
    float x[4] = {1, 2, 3, 4}, out[4];
    cr_expect_eq(run_add(GEMS_LANE_MAIN, &call, x, x, out, 4), GEMS_OK);
    cr_expect_eq(out[3], 8);
}

Test(device, vendors_are_recognised_by_their_strings)
{
    const gems_vendor_data *first = gems_vendor_all(), *last = first, *found = NULL;
    for (const gems_vendor_data *v = first; v->name; v++) {
        last = v;
        if (!found && gems_vendor_matches(v, "NVIDIA CUDA", "NVIDIA Corporation", "NVIDIA H200"))
            found = v;
    }
    cr_assert_not_null(found);
    cr_expect_str_eq(found->name, "nvidia");
    cr_expect_str_eq(last->name, "generic", "the vendor that takes anything is asked last");
    cr_expect(gems_vendor_matches(last, "Whatever", "", "Thing"));
}

/* ---- jobs ---- */

static void check_add(gems_lane lane)
{
    enum {
        N = 1000,
        GUARD = 7
    };
    float *block = malloc((3 * N + 4 * GUARD) * sizeof *block), *a = block + GUARD, *b = a + N + GUARD,
          *out = b + N + GUARD;
    gems_call call;
    fill(block, 3 * N + 4 * GUARD, -1, 0);
    fill(a, N, 0.5f, 1);
    fill(b, N, 3, -2);
    cr_assert_eq(run_add(lane, &call, a, b, out, N), GEMS_OK, "%s", call.why);
    for (int i = 0; i < N; i++)
        cr_assert_eq(out[i], a[i] + b[i], "element %d", i);
    for (int i = 0; i < GUARD; i++)
        cr_assert(out[-1 - i] == -1 && out[N + i] == -1, "memory around the result was written");
    free(block);
}

Test(device, add_on_both_lanes)
{
    check_add(GEMS_LANE_MAIN);
    check_add(GEMS_LANE_SMALL);
}

Test(device, add_on_both_lanes_staged, .init = staged)
{
    own_cache();
    check_add(GEMS_LANE_MAIN);
    check_add(GEMS_LANE_SMALL);
    cr_expect_not(gems_device_get(GEMS_LANE_MAIN)->unified);
}

static void check_in_place(void)
{
    float a[100], b[100];
    gems_call call;
    fill(a, 100, 0, 1);
    fill(b, 100, 1000, 1);
    cr_assert_eq(run_add(GEMS_LANE_MAIN, &call, a, b, a, 100), GEMS_OK, "%s", call.why);
    cr_assert_eq(run_add(GEMS_LANE_SMALL, &call, b, a, a, 100), GEMS_OK, "%s", call.why);
    cr_assert_eq(run_add(GEMS_LANE_SMALL, &call, a, a, a, 100), GEMS_OK, "%s", call.why);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(a[i], 2 * (2000 + 3 * i), "element %d", i);
}

Test(device, in_place)
{
    check_in_place();
}

Test(device, in_place_staged, .init = staged)
{
    own_cache();
    check_in_place();
}

/* Two views of one memory see each other: y[i] = x[i] + 1 where the elements of x and y take turns. */
Test(device, staged_operands_that_overlap_share_their_memory, .init = staged)
{
    own_cache();
    static const char source[] = "kernel void next(GEMS_SHARED_BUFFER(const float, x), GEMS_SHARED_BUFFER(float, y))\n"
                                 "{\n    GEMS_AT(const float, x);\n    GEMS_AT(float, y);\n"
                                 "    int i = 2 * get_global_id(0);\n    y[i] = x[i] + 1;\n}\n";
    float x[101], before[101];
    int64_t n = 50, stride = 2;
    gems_call call = {.op = some_op()};
    fill(x, 101, 0, 1);
    memcpy(before, x, sizeof x);
    gems_tensor in = {
        .address = (uintptr_t)x, .sizes = &n, .strides = &stride, .numel = n, .ndim = 1, .dtype = GEMS_F32};
    gems_tensor out = in;
    out.address += sizeof *x;
    cr_assert(gems_device_open());
    gems_work work;
    begin_work(&work, GEMS_LANE_MAIN);
    gems_kernel *kernel = build_kernel(&work, 6, "test/next", NULL, source, "next");
    gems_launch(&work, kernel, 1, &(size_t){50}, NULL, (gems_arg[]){GEMS_IN(&in), GEMS_OUT_ARG(&out)}, 2);
    cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
    for (int i = 0; i < 101; i++)
        cr_expect_eq(x[i], i % 2 ? before[i - 1] + 1 : before[i], "element %d", i);
    float sum[100]; /* two inputs may overlap as they like */
    cr_expect_eq(run_add(GEMS_LANE_MAIN, &call, before, before + 1, sum, 100), GEMS_OK);
    cr_expect_eq(sum[99], 99 + 100);
}

Test(device, staged_results_with_gaps_keep_what_lies_between, .init = staged)
{
    own_cache();
    static const char source[] =
        "kernel void twos(GEMS_BUFFER(float, x))\n{\n    GEMS_AT(float, x);\n    x[3 * get_global_id(0)] = 2;\n}\n";
    float x[28];
    int64_t n = 10, stride = 3;
    gems_tensor t = {
        .address = (uintptr_t)x, .sizes = &n, .strides = &stride, .numel = 10, .ndim = 1, .dtype = GEMS_F32};
    gems_call call = {.op = some_op()};
    fill(x, 28, 7, 0);
    gems_work work;
    begin_work(&work, GEMS_LANE_MAIN);
    gems_kernel *kernel = build_kernel(&work, 5, "test/twos", NULL, source, "twos");
    gems_launch(&work, kernel, 1, &(size_t){10}, NULL, &GEMS_OUT_ARG(&t), 1);
    cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
    for (int i = 0; i < 28; i++)
        cr_expect_eq(x[i], i % 3 ? 7 : 2, "element %d", i);
    cr_expect_eq(call.bytes, sizeof x, "nothing is read, and all comes back");
}

/* Two launches with partial sums in scratch memory between them, local memory, and a struct as a value. */
static void check_scratch(gems_lane lane)
{
    static const char source[] =
        "typedef struct { int n; int pad[4]; float scale; } params;\n"
        "kernel void part(GEMS_BUFFER(const float, x), GEMS_BUFFER(float, partial), local float *t, params p)\n"
        "{\n"
        "    GEMS_AT(const float, x);\n"
        "    GEMS_AT(float, partial);\n"
        "    int l = get_local_id(0), i = get_global_id(0);\n"
        "    t[l] = i < p.n ? p.scale * x[i] : 0;\n"
        "    barrier(CLK_LOCAL_MEM_FENCE);\n"
        "    for (int s = get_local_size(0) / 2; s > 0; s >>= 1) {\n"
        "        if (l < s)\n"
        "            t[l] += t[l + s];\n"
        "        barrier(CLK_LOCAL_MEM_FENCE);\n"
        "    }\n"
        "    if (l == 0)\n"
        "        partial[get_group_id(0)] = t[0];\n"
        "}\n"
        "kernel void whole(GEMS_BUFFER(const float, partial), GEMS_BUFFER(float, out), int n)\n"
        "{\n"
        "    GEMS_AT(const float, partial);\n"
        "    GEMS_AT(float, out);\n"
        "    float sum = 0;\n"
        "    for (int i = 0; i < n; i++)\n"
        "        sum += partial[i];\n"
        "    out[0] = sum;\n"
        "}\n";
    enum {
        N = 1000,
        LOCAL = 32,
        GROUPS = (N + LOCAL - 1) / LOCAL
    };
    struct {
        int n, pad[4];
        float scale;
    } params = {.n = N, .scale = 2};
    static float x[N];
    float sum = -1;
    int groups = GROUPS;
    vector vx, vsum;
    size_t global = (size_t)GROUPS * LOCAL, local = LOCAL, one = 1;
    gems_call call = {.op = some_op()};

    fill(x, N, 1, 1);
    gems_work work;
    begin_work(&work, lane);
    gems_kernel *part = build_kernel(&work, 11, "test/sum", NULL, source, "part"),
                *whole = build_kernel(&work, 12, "test/sum", NULL, source, "whole");
    int scratch = gems_work_scratch(&work, GROUPS * sizeof(float));
    gems_launch(&work, part, 1, &global, &local,
                (gems_arg[]){GEMS_IN(vector_of(&vx, x, N)), GEMS_SCRATCH(scratch), GEMS_LOCAL(LOCAL * sizeof(float)),
                             GEMS_BYTES(&params, sizeof params)},
                4);
    gems_launch(&work, whole, 1, &one, &one,
                (gems_arg[]){GEMS_SCRATCH(scratch), GEMS_OUT_ARG(vector_of(&vsum, &sum, 1)), GEMS_VALUE(groups)}, 3);
    cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
    cr_expect_eq(sum, (float)N * (N + 1));
}

Test(device, scratch_local_memory_and_structs)
{
    for (int i = 0; i < 3; i++) {
        check_scratch(GEMS_LANE_MAIN);
        check_scratch(GEMS_LANE_SMALL);
    }
}

Test(device, scratch_local_memory_and_structs_staged, .init = staged)
{
    own_cache();
    for (int i = 0; i < 3; i++)
        check_scratch(GEMS_LANE_MAIN);
}

Test(device, values_change_between_launches)
{
    static const char source[] =
        "kernel void put(GEMS_BUFFER(float, x), int at, float v)\n{\n    GEMS_AT(float, x);\n    x[at] = v;\n}\n";
    float x[8] = {0}, v[] = {3, 3, 4, 3};
    int at[] = {1, 2, 2, 5};
    vector vx;
    gems_call call = {.op = some_op()};
    gems_work work;
    begin_work(&work, GEMS_LANE_SMALL);
    gems_kernel *kernel = build_kernel(&work, 21, "test/put", NULL, source, "put");
    for (int i = 0; i < 4; i++)
        gems_launch(&work, kernel, 1, &(size_t){1}, NULL,
                    (gems_arg[]){GEMS_INOUT(vector_of(&vx, x, 8)), GEMS_VALUE(at[i]), GEMS_VALUE(v[i])}, 3);
    gems_launch(&work, kernel, 1, &(size_t){0}, NULL, NULL, 0); /* of no work-items: does nothing */
    cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
    cr_expect(x[1] == 3 && x[2] == 4 && x[5] == 3 && x[0] == 0);
}

Test(device, a_kernel_that_uses_another_builtin_is_built_with_the_drivers_declarations)
{
    static const char source[] = "kernel void bits(GEMS_BUFFER(uint, x))\n{\n    GEMS_AT(uint, x);\n"
                                 "    x[0] = popcount(x[0]);\n}\n";
    uint32_t x = 0xf0f0;
    vector vx;
    gems_call call = {.op = some_op()};
    gems_work work;
    begin_work(&work, GEMS_LANE_MAIN);
    gems_kernel *kernel = build_kernel(&work, 41, "test/bits", NULL, source, "bits");
    gems_launch(&work, kernel, 1, &(size_t){1}, NULL, (gems_arg[]){GEMS_INOUT(vector_of(&vx, (float *)&x, 1))}, 1);
    cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
    cr_expect_eq(x, 8);
    cr_expect_eq(gems_program_undeclared, 1);
    check_add(GEMS_LANE_MAIN);
    cr_expect_eq(gems_program_undeclared, 1);
}

Test(device, a_kernel_that_does_not_build_is_quarantined_and_the_rest_goes_on)
{
    cr_redirect_stderr();
    for (int i = 0; i < 2; i++) {
        gems_call call = {.op = some_op()};
        gems_work work;
        begin_work(&work, GEMS_LANE_MAIN);
        cr_expect_null(find_kernel(&work, 31));
        cr_expect_null(build_kernel(&work, 31, "test/broken", NULL, "kernel void broken( {", "broken"));
        cr_expect_eq(run_and_end(&work, &call), GEMS_FAILED);
        cr_expect(strstr(call.why, i ? "failed before" : "clBuildProgram(test/broken): CL_BUILD_PROGRAM_FAILURE (-11)"),
                  "%s", call.why);
    }
    check_add(GEMS_LANE_MAIN);
}

/* ---- shortages that pass ---- */

static int builds_failing;

static cl_int build_short_of_memory(cl_program program, cl_uint n, const cl_device_id *devices, const char *options,
                                    void(CL_CALLBACK *notify)(cl_program, void *), void *data)
{
    if (builds_failing-- > 0)
        return CL_OUT_OF_HOST_MEMORY;
    return real.clBuildProgram(program, n, devices, options, notify, data);
}

/* A new process's kernel rests after a shortage, is not asked for meanwhile, and is built when that is over. */
static void check_rests(void (*over)(void))
{
    float x[3] = {1, 2, 3};
    gems_call call;
    cr_expect_eq(run_add(GEMS_LANE_MAIN, &call, x, x, x, 3), GEMS_FAILED);
    if (over)
        over();
    cr_expect_eq(run_add(GEMS_LANE_MAIN, &call, x, x, x, 3), GEMS_FAILED);
    cr_expect(strstr(call.why, "for some seconds"), "%s", call.why);
    cr_expect_eq(x[0], 1);
    nanosleep(&(struct timespec){.tv_sec = 6}, NULL);
    cr_expect_eq(run_add(GEMS_LANE_MAIN, &call, x, x, x, 3), GEMS_OK, "%s", call.why);
    cr_expect_eq(x[0], 2);
}

Test(device, a_build_that_lacks_memory_is_tried_again_some_seconds_later)
{
    cr_redirect_stderr();
    cr_assert(gems_device_open(), "%s", gems_device_error());
    real = gems_cl;
    builds_failing = 1;
    gems_cl.clBuildProgram = build_short_of_memory;
    check_rests(NULL);
    cr_expect_eq(builds_failing, -1, "one more build");
    gems_cl = real;
}

static struct rlimit size_of_files;

static void lift_limit(void)
{
    setrlimit(RLIMIT_FSIZE, &size_of_files);
}

static void only_of_pocl(void)
{
    const char *vendor = getenv("GEMS_VENDOR");
    if (vendor && strcmp(vendor, "pocl") != 0)
        cr_skip_test("only of PoCL");
}

Test(device, a_build_under_a_limit_is_tried_again_when_that_is_lifted)
{
    only_of_pocl();
    cr_redirect_stderr();
    cr_assert(gems_device_open(), "%s", gems_device_error());
    getrlimit(RLIMIT_FSIZE, &size_of_files);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){1000, size_of_files.rlim_max});
    check_rests(lift_limit);
}

static char filler[600];

static void make_room(void)
{
    unlink(filler);
}

Test(device, a_build_on_a_full_disk_is_tried_again_when_there_is_room)
{
    char *disk = make_folder();
    only_of_pocl();
    if (mount("none", disk, "tmpfs", 0, "size=64m,mode=0700") != 0)
        cr_skip_test("needs to mount a small disk");
    setenv("GEMS_CACHE_DIR", disk, 1);
    cr_redirect_stderr();
    if (gems_device_open()) {
        snprintf(filler, sizeof filler, "%s/filler", disk);
        int fd = open(filler, O_WRONLY | O_CREAT, 0600);
        while (posix_fallocate(fd, lseek(fd, 0, SEEK_END), 1 << 16) == 0)
            ;
        close(fd);
        check_rests(make_room);
    } else
        cr_expect(false, "%s", gems_device_error());
    umount2(disk, MNT_DETACH);
    rmdir(disk);
}

Test(device, an_entry_that_is_not_there_is_a_failure_with_its_name)
{
    cr_redirect_stderr();
    gems_call call = {.op = some_op()};
    gems_work work;
    begin_work(&work, GEMS_LANE_MAIN);
    cr_expect_null(build_kernel(&work, 32, "test/add", NULL, add_source, "sub"));
    cr_expect_eq(run_and_end(&work, &call), GEMS_FAILED);
    cr_expect(strstr(call.why, "clCreateKernel(sub)"), "%s", call.why);
}

Test(device, a_launch_with_a_group_that_does_not_fit_fails_without_a_trace)
{
    cr_redirect_stderr();
    float x[4] = {1, 2, 3, 4};
    vector v;
    int n = 4;
    gems_call call = {.op = some_op()};
    gems_work work;
    begin_work(&work, GEMS_LANE_MAIN);
    gems_kernel *kernel = build_kernel(&work, 33, "test/add", NULL, add_source, "add");
    gems_arg args[] = {GEMS_IN(vector_of(&v, x, 4)), GEMS_IN(&v.t), GEMS_OUT_ARG(&v.t), GEMS_VALUE(n)};
    gems_launch(&work, kernel, 1, &(size_t){1 << 20}, &(size_t){1 << 20}, args, 4);
    cr_expect_eq(run_and_end(&work, &call), GEMS_FAILED);
    cr_expect(strstr(call.why, "clEnqueueNDRangeKernel(add): "), "%s", call.why);
    cr_expect_eq(x[3], 4);
}

Test(device, sources_include_embedded_files_once)
{
    static const char source[] =
        "#include \"kernels/types.cl\"\nkernel void f(GEMS_BUFFER(float, x)) { GEMS_AT(float, x); x[0] = __LINE__; }\n";
    float x[1] = {0};
    vector v;
    gems_call call = {.op = some_op()};
    gems_work work;
    begin_work(&work, GEMS_LANE_MAIN);
    gems_kernel *kernel = build_kernel(&work, 41, "test/include", "kernels/types.cl", source, "f");
    gems_launch(&work, kernel, 1, &(size_t){1}, NULL, &GEMS_INOUT(vector_of(&v, x, 1)), 1);
    cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
    cr_expect_eq(x[0], 2, "lines are counted as in the source");

    cr_redirect_stderr();
    memset(&call, 0, sizeof call);
    begin_work(&work, GEMS_LANE_MAIN);
    cr_expect_null(build_kernel(&work, 42, "test/include", "kernels/nonesuch.cl", source, "f"));
    cr_expect_eq(run_and_end(&work, &call), GEMS_FAILED);
    cr_expect(strstr(call.why, "kernels/nonesuch.cl"), "%s", call.why);
}

Test(device, dump_writes_every_source)
{
    char *dir = make_folder(), text[4096] = "", path[800];
    setenv("GEMS_DUMP", dir, 1);
    check_add(GEMS_LANE_MAIN);
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        if (strncmp(e->d_name, "test-add-", 9) == 0) {
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            FILE *f = fopen(path, "r");
            text[fread(text, 1, sizeof text - 1, f)] = 0;
            fclose(f);
        }
    closedir(d);
    cr_expect(strncmp(text, "/* test/add on ", 15) == 0 && strstr(text, "* options:") && strstr(text, "GEMS_CPU") &&
                  strstr(text, "out[i] = a[i] + b[i]"),
              "%s", text);
    remove_folder(dir);
}

static char *only_entry(const char *dir, const char *prefix)
{
    char *path = NULL;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 && asprintf(&path, "%s/%s", dir, e->d_name) < 0)
            path = NULL;
    closedir(d);
    return path;
}

static int dumps(void *unused)
{
    (void)unused;
    check_add(GEMS_LANE_MAIN);
    return 0;
}

Test(device, dump_follows_no_link)
{
    char *dir = make_folder(), victim[600], text[8] = "";
    setenv("GEMS_DUMP", dir, 1);
    cr_assert_eq(in_child(dumps, NULL), 0);
    char *path = only_entry(dir, "test-add-");
    cr_assert_not_null(path);
    snprintf(victim, sizeof victim, "%s/victim", dir);
    FILE *f = fopen(victim, "w");
    fputs("safe", f);
    fclose(f);
    unlink(path);
    cr_assert_eq(symlink(victim, path), 0);
    cr_expect_eq(in_child(dumps, NULL), 0);
    f = fopen(victim, "r");
    cr_expect(f && fgets(text, sizeof text, f) && strcmp(text, "safe") == 0, "%s", text);
    if (f)
        fclose(f);
    free(path);
    remove_folder(dir);
}

/* ---- memory ---- */

Test(device, blocks_are_reused_and_bounded)
{
    cr_assert(gems_device_open(), "%s", gems_device_error());
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};
    gems_memory_trim(GEMS_LANE_MAIN);
    for (size_t bytes = 1; bytes < (size_t)1 << 24; bytes = bytes * 5 / 4 + 1) {
        gems_buffer *buffer = gems_memory_take(GEMS_LANE_MAIN, bytes, &trouble), *again;
        cr_assert_not_null(buffer);
        size_t has = gems_buffer_bytes(buffer);
        cr_assert(has >= bytes && (bytes <= 256 || has <= bytes + bytes / 4), "%zu for %zu", has, bytes);
        gems_memory_give(GEMS_LANE_MAIN, buffer);
        again = gems_memory_take(GEMS_LANE_MAIN, bytes, &trouble);
        cr_assert_eq(again, buffer);
        gems_memory_give(GEMS_LANE_MAIN, again);
    }
    gems_buffer *taken[40];
    for (int i = 0; i < 40; i++)
        cr_assert_not_null(taken[i] = gems_memory_take(GEMS_LANE_MAIN, 1000, &trouble));
    for (int i = 0; i < 40; i++)
        gems_memory_give(GEMS_LANE_MAIN, taken[i]); /* only some are kept: the others are freed, as ASan would tell */
    gems_memory_trim(GEMS_LANE_MAIN);
}

static cl_mem no_memory(cl_context context, cl_mem_flags flags, size_t size, void *host, cl_int *error)
{
    if (size <= 4096)
        return real.clCreateBuffer(context, flags, size, host, error);
    *error = CL_MEM_OBJECT_ALLOCATION_FAILURE;
    return NULL;
}

static cl_int no_memory_at_launch(cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset,
                                  const size_t *global, const size_t *local, cl_uint n, const cl_event *list,
                                  cl_event *event)
{
    (void)queue, (void)kernel, (void)dims, (void)offset, (void)global, (void)local, (void)n, (void)list, (void)event;
    return CL_MEM_OBJECT_ALLOCATION_FAILURE;
}

Test(device, out_of_device_memory_is_for_that_call_alone, .init = staged)
{
    own_cache();
    cr_redirect_stderr();
    check_add(GEMS_LANE_MAIN);
    real = gems_cl;
    float x[2000] = {1};
    gems_call call;
    for (int i = 0; i < 40; i++) { /* at allocation, or later, as drivers do that allocate at first use */
        gems_memory_trim(GEMS_LANE_MAIN);
        gems_cl.clCreateBuffer = i % 2 ? no_memory : real.clCreateBuffer;
        gems_cl.clEnqueueNDRangeKernel = i % 2 ? real.clEnqueueNDRangeKernel : no_memory_at_launch;
        cr_expect_eq(run_add(GEMS_LANE_MAIN, &call, x, x, x, 2000), GEMS_FAILED);
        cr_expect(strstr(call.why, "CL_MEM_OBJECT_ALLOCATION_FAILURE"), "%s", call.why);
        cr_expect_eq(x[0], 1);
    }
    gems_cl = real;
    cr_expect_eq(run_add(GEMS_LANE_MAIN, &call, x, x, x, 2000), GEMS_OK, "%s", call.why);
    cr_expect_eq(x[0], 2);
}

/* ---- threads, forks, exit ---- */

static _Atomic int wrong;
static int rounds = 300;

static void *hammer(void *arg)
{
    enum {
        N = 64
    };
    float a[N], b[N], out[N];
    int me = (int)(intptr_t)arg;
    gems_call call;
    for (int round = 0; round < rounds; round++) {
        fill(a, N, (float)me, 1);
        fill(b, N, (float)round, 2);
        fill(out, N, -1, 0);
        if (run_add((gems_lane)(round & 1), &call, a, b, out, N) != GEMS_OK)
            atomic_fetch_add(&wrong, 1);
        for (int i = 0; i < N; i++)
            if (out[i] != (float)(me + round + 3 * i))
                atomic_fetch_add(&wrong, 1);
    }
    return NULL;
}

static void run_threads(int n)
{
    pthread_t thread[64];
    for (int i = 0; i < n; i++)
        pthread_create(&thread[i], NULL, hammer, (void *)(intptr_t)i);
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    cr_expect_eq(atomic_load(&wrong), 0);
}

Test(device, eight_threads_on_both_lanes)
{
    run_threads(8);
}

Test(device, eight_threads_on_both_lanes_staged, .init = staged)
{
    own_cache();
    run_threads(8);
}

/* ---- small stacks ---- */

static void *use_the_device(void *unused)
{
    (void)unused;
    check_add(GEMS_LANE_MAIN);
    check_add(GEMS_LANE_SMALL);
    check_scratch(GEMS_LANE_MAIN);
    check_scratch(GEMS_LANE_SMALL);
    return NULL;
}

/* Opening, building and launching from a thread of so many bytes, of which the caller has used some already. */
static int from_small_stack(void *bytes)
{
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    if (pthread_attr_setstacksize(&attr, *(size_t *)bytes) != 0 ||
        pthread_create(&thread, &attr, use_the_device, NULL) != 0)
        return 7;
    pthread_join(thread, NULL);
    return gems_device_open() ? 0 : 8;
}

Test(device, everything_runs_from_threads_with_small_stacks)
{
#ifdef GEMS_SANITIZED
    cr_skip_test("a sanitizer's own frames do not fit");
#endif
    size_t bytes[] = {(size_t)PTHREAD_STACK_MIN + (16 << 10), 64 << 10, 80 << 10, 128 << 10, 200 << 10};
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        cr_expect_eq(in_child(from_small_stack, &bytes[i]), 0, "first process, %zu bytes", bytes[i]);
        cr_expect_eq(in_child(from_small_stack, &bytes[i]), 0, "with kernels kept, %zu bytes", bytes[i]);
        cr_expect_eq(in_child(from_small_stack, &bytes[i]), 0);
        remove_folder(cache);
        cache = make_folder();
        setenv("GEMS_CACHE_DIR", cache, 1);
    }
}

Test(device, more_threads_than_queues)
{
    run_threads(GEMS_MAX_QUEUES + 8);
}

static int child_runs_on_the_host(void *unused)
{
    float x[4] = {1, 2, 3, 4};
    gems_call call;
    (void)unused;
    if (gems_device_open() || !strstr(gems_device_error(), "forked"))
        return 1;
    return run_add(GEMS_LANE_MAIN, &call, x, x, x, 4) == GEMS_DECLINED && x[0] == 1 ? 0 : 2;
}

Test(device, a_forked_child_runs_on_the_host_and_the_parent_goes_on)
{
    cr_redirect_stderr();
    check_add(GEMS_LANE_MAIN);
    check_add(GEMS_LANE_SMALL);
    cr_expect_eq(in_child(child_runs_on_the_host, NULL), 0);
    check_add(GEMS_LANE_MAIN);
}

static int child_opens_its_own(void *unused)
{
    (void)unused;
    check_add(GEMS_LANE_MAIN);
    return gems_device_open() ? 0 : 1;
}

Test(device, a_child_forked_before_the_device_is_open_has_its_own)
{
    cr_expect_eq(in_child(child_opens_its_own, NULL), 0);
    check_add(GEMS_LANE_MAIN);
}

/* Ends the process in some way while six threads are calling. */
static int ends(void *how)
{
    pthread_t thread;
    rounds = 1 << 30;
    for (int i = 0; i < 6; i++)
        pthread_create(&thread, NULL, hammer, (void *)(intptr_t)i);
    nanosleep(&(struct timespec){.tv_sec = 0, .tv_nsec = 300000000}, NULL);
    switch ((intptr_t)how) {
    case 0:
        return 3; /* exit */
    case 1:
        _exit(4);
    case 2:
        abort();
    default:
        raise(SIGTERM);
        return 9;
    }
}

Test(device, exit_while_threads_call)
{
    cr_expect_eq(in_child(ends, (void *)0), 3);
    cr_expect_eq(in_child(ends, (void *)1), 4);
    cr_expect_eq(in_child(ends, (void *)2), -SIGABRT);
    cr_expect_eq(in_child(ends, (void *)3), -SIGTERM);
}

static int jobs_after_exit_began;
static void try_late(void)
{
    float x[4] = {1, 2, 3, 4};
    gems_call call;
    jobs_after_exit_began = run_add(GEMS_LANE_MAIN, &call, x, x, x, 4) == GEMS_DECLINED && x[0] == 1;
    _exit(jobs_after_exit_began ? 0 : 1);
}

static int registers_early(void *unused)
{
    (void)unused;
    atexit(try_late); /* registered first, so it runs last */
    check_add(GEMS_LANE_SMALL);
    return 2;
}

/* As a compiler may whenever it first does something: what it takes down must not be in use. */
static int registers_late(void *unused)
{
    (void)unused;
    check_add(GEMS_LANE_SMALL);
    atexit(try_late);
    return 2;
}

Test(device, no_job_starts_once_the_process_is_ending)
{
    cr_expect_eq(in_child(registers_early, NULL), 0);
    cr_expect_eq(in_child(registers_late, NULL), 0);
}
