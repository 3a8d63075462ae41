/* Small jobs on the real device layer, for the tests of kernels/device. */
#ifndef GEMS_TEST_DEVICE_JOBS_H
#define GEMS_TEST_DEVICE_JOBS_H

#include "kernels/device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ADD_KEY 1001

static const char add_source[] =
    "kernel void add(global const float *a, global const float *b, global float *out, int n)\n"
    "{\n    int i = get_global_id(0);\n    if (i < n)\n        out[i] = a[i] + b[i];\n}\n";

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

/* out = a + b, all of n floats; `out` may be `a` or `b`. The reason of a failure is in call->why. */
static inline gems_status run_add(gems_lane lane, gems_call *call, float *a, float *b, float *out, int n)
{
    vector va, vb, vout;
    size_t local = 16, global = ((size_t)n + local - 1) / local * local;

    memset(call, 0, sizeof *call);
    call->op = some_op();
    gems_job *job = gems_job_begin(call, lane);
    gems_kernel *kernel = gems_kernel_find(job, ADD_KEY);
    if (!kernel)
        kernel = gems_kernel_build(job, ADD_KEY, "test/add", NULL, add_source, "", "add");
    gems_arg args[] = {GEMS_IN(vector_of(&va, a, n)), GEMS_IN(vector_of(&vb, b, n)),
                       GEMS_OUT_ARG(vector_of(&vout, out, n)), GEMS_VALUE(n)};
    gems_launch(job, kernel, 1, &global, &local, args, 4);
    return gems_job_end(job);
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

#endif
