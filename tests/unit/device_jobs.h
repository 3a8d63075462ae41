/* Small works on a real device, for the tests of kernels/device, kernels/memory and kernels/work. */
#ifndef GEMS_TEST_DEVICE_JOBS_H
#define GEMS_TEST_DEVICE_JOBS_H

#include "kernels/work/work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ADD_KEY 1001

static const char add_source[] =
    "kernel void add(GEMS_SHARED_BUFFER(const float, a), GEMS_SHARED_BUFFER(const float, b),\n"
    "                GEMS_SHARED_BUFFER(float, out), int n)\n"
    "{\n    GEMS_AT(const float, a);\n    GEMS_AT(const float, b);\n    GEMS_AT(float, out);\n"
    "    int i = get_global_id(0);\n    if (i < n)\n        out[i] = a[i] + b[i];\n}\n";

/* A one-dimensional f32 tensor over memory of the caller. */
typedef struct vector {
    gems_tensor t;
    int64_t n, stride;
} vector;

static inline gems_tensor *vector_of(vector *v, float *data, int64_t n)
{
    v->n = n;
    v->stride = 1;
    v->t = (gems_tensor){
        .address = (uintptr_t)data, .sizes = &v->n, .strides = &v->stride, .numel = n, .ndim = 1, .dtype = GEMS_F32};
    return &v->t;
}

static inline gems_op *some_op(void)
{
    static gems_op op = {.name = "add.Tensor", .base = "add", .overload = "Tensor", .strukt = "add_Tensor"};
    return &op;
}

static inline gems_kernel *find_kernel(gems_work *work, uint64_t id)
{
    return gems_work_find(work, &id, sizeof id);
}

static inline gems_kernel *build_kernel(gems_work *work, uint64_t id, const char *name, const char *includes,
                                        const char *source, const char *entry)
{
    return gems_work_build(work, &id, sizeof id, &(gems_kernel_text){name, includes, source, "", entry});
}

static inline void begin_work(gems_work *work, gems_lane lane)
{
    gems_device_open();
    gems_work_begin(work, lane);
}

static inline gems_status run_and_end(gems_work *work, gems_call *call)
{
    gems_status status = gems_work_run(work, call);
    gems_work_end(work);
    return status;
}

/* Writes out = a + b, all of n floats; `out` may be `a` or `b`. */
static inline void write_add(gems_work *work, float *a, float *b, float *out, int n)
{
    vector va, vb, vout;
    size_t local = 16, global = ((size_t)n + local - 1) / local * local;
    gems_kernel *kernel = find_kernel(work, ADD_KEY);
    if (!kernel)
        kernel = build_kernel(work, ADD_KEY, "test/add", NULL, add_source, "add");
    gems_arg args[] = {GEMS_IN(vector_of(&va, a, n)), GEMS_IN(vector_of(&vb, b, n)),
                       GEMS_OUT_ARG(vector_of(&vout, out, n)), GEMS_VALUE(n)};
    gems_launch(work, kernel, 1, &global, &local, args, 4);
}

/* The same, run. The reason of a failure is in call->why. */
static inline gems_status run_add(gems_lane lane, gems_call *call, float *a, float *b, float *out, int n)
{
    gems_work work;
    memset(call, 0, sizeof *call);
    call->op = some_op();
    if (!gems_device_open())
        return gems_decline(call, gems_device_error());
    gems_work_begin(&work, lane);
    write_add(&work, a, b, out, n);
    return run_and_end(&work, call);
}

/* Runs `body` in a child of its own, with nothing of OpenCL open yet; its exit status, or -signal. */
static inline int in_child(int (*body)(void *), void *arg)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        exit(body(arg));
    while (waitpid(pid, &status, 0) != pid)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* A fresh folder under $TMPDIR; removed by remove_folder. */
static inline char *make_folder(void)
{
    const char *base = getenv("TMPDIR");
    char *path = malloc(512);
    snprintf(path, 512, "%s/gems-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(path))
        abort();
    return path;
}

static inline void remove_folder(char *path)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0)
        perror(command);
    free(path);
}

/* For a suite whose processes must not find kernels of others: .init, .fini. */
static char *fresh_cache_folder;
static inline void fresh_cache(void)
{
    fresh_cache_folder = make_folder();
    setenv("GEMS_CACHE_DIR", fresh_cache_folder, 1);
}
static inline void drop_fresh_cache(void)
{
    remove_folder(fresh_cache_folder);
}

#endif
