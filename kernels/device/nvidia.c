/* NVIDIA: instructions of sm_90a, which its OpenCL compiler refuses; its binaries are PTX text, which its loader
 * compiles for any target that the device has. */
#include "kernels/device/driver.h"
#include "preload/base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPENS  "/*GEMS"
#define CLOSES "GEMS*/"
#define TARGET ".target sm_90"
#define LIMIT  ".minnctapersm 1\n" /* without it registers are not moved between warp groups (setmaxnreg) */

static const char *find(const unsigned char *text, size_t size, const char *what)
{
    return memmem(text, size, what, strlen(what));
}

/* Blanks the marks. */
static void uncomment(char *text, size_t size)
{
    for (int closes = 0; closes < 2; closes++) {
        const char *mark = closes ? CLOSES : OPENS;
        for (char *p = text; (p = memmem(p, size - (size_t)(p - text), mark, strlen(mark)));)
            memset(p, ' ', strlen(mark));
    }
}

/* The text with its marked instructions, for sm_90a; kernels with a fixed group are the only ones on a multiprocessor.
 */
static unsigned char *patch(const gems_lane_state *lane, const unsigned char *binary, size_t *size)
{
    (void)lane;
    const char *target = find(binary, *size, TARGET);
    if (!target || !find(binary, *size, OPENS))
        return NULL;
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    const char *at = (const char *)binary, *end = at + *size, *kernel;
    fwrite(at, 1, (size_t)(target - at) + strlen(TARGET), out);
    fputc('a', out);
    at = target + strlen(TARGET);
    while ((kernel = find((const unsigned char *)at, (size_t)(end - at), ".reqntid")) &&
           (kernel = memchr(kernel, '\n', (size_t)(end - kernel)))) {
        fwrite(at, 1, (size_t)(kernel + 1 - at), out);
        fputs(LIMIT, out);
        at = kernel + 1;
    }
    fwrite(at, 1, (size_t)(end - at), out);
    const bool whole = !ferror(out);
    if (fclose(out) != 0 || !whole) {
        free(text);
        return NULL;
    }
    uncomment(text, length);
    *size = length;
    return (unsigned char *)text;
}

enum {
    N = 64
};

/* In a context of its own: an instruction that the device does not have ends all work of a context. */
typedef struct trial {
    cl_context context;
    cl_command_queue queue;
    gems_program *program;
    cl_kernel kernel;
    cl_mem mem[4]; /* A, B, C, maps */
} trial;

/* The program as it is built for every lane, in that context. */
static bool build(trial *t, const gems_lane_state *lane)
{
    char why[150], *source = gems_source_join("nvidia", "kernels/device/nvidia.cl", "", why, sizeof why);
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};
    gems_lane_state *apart = calloc(1, sizeof *apart); /* stays: its program knows it */
    cl_int error;
    if (source && apart) {
        apart->info = lane->info;
        apart->vendor = lane->vendor;
        apart->identity = lane->identity;
        apart->device = lane->device;
        apart->context = t->context;
        pthread_mutex_init(&apart->build_lock, NULL);
        t->program = gems_program_get(apart, "nvidia", source, "", false, &trouble);
    }
    if (t->program)
        t->kernel = CL_NEW(&error, clCreateKernel, t->program->program, "gems_probe");
    free(source);
    return t->kernel != NULL;
}

/* f16 of a whole number from 0 to 3. */
static uint16_t half_of(int v)
{
    static const uint16_t half[] = {0, 0x3c00, 0x4000, 0x4200};
    return half[v];
}

static bool multiply(trial *t)
{
    uint16_t a[N * N], b[N * N];
    float c[N * N];
    const size_t bytes[4] = {sizeof a, sizeof b, sizeof c, 256}, group = 128;
    const void *from[2] = {a, b};
    cl_int error;
    bool works = true;

    for (int i = 0; i < N * N; i++)
        a[i] = half_of(i * 7 % 11 % 4), b[i] = half_of((i * 5 + i / N) % 13 % 4), c[i] = NAN;
    for (int i = 0; i < 4 && works; i++) {
        t->mem[i] = CL_NEW(&error, clCreateBuffer, t->context, CL_MEM_READ_WRITE, bytes[i], NULL);
        works = t->mem[i] && CL(clSetKernelArg, t->kernel, (cl_uint)i, sizeof t->mem[i], &t->mem[i]) == CL_SUCCESS;
        if (works && i < 2)
            works = CL(clEnqueueWriteBuffer, t->queue, t->mem[i], CL_TRUE, 0, bytes[i], from[i], 0, NULL, NULL) ==
                    CL_SUCCESS;
    }
    works = works &&
            CL(clEnqueueNDRangeKernel, t->queue, t->kernel, 1, NULL, &group, &group, 0, NULL, NULL) == CL_SUCCESS &&
            CL(clEnqueueReadBuffer, t->queue, t->mem[2], CL_TRUE, 0, sizeof c, c, 0, NULL, NULL) == CL_SUCCESS;
    for (int i = 0; i < N * N && works; i++) {
        int sum = 0;
        for (int k = 0; k < N; k++)
            sum += (i / N * N + k) * 7 % 11 % 4 * (((i % N * N + k) * 5 + i % N) % 13 % 4);
        works = c[i] == (float)sum;
    }
    return works;
}

static bool try_wgmma(gems_lane_state *lane)
{
    trial t = {.context = NULL};
    cl_int error;
    t.context = CL_NEW(&error, clCreateContext, NULL, 1, &lane->device, NULL, NULL);
    if (t.context)
        t.queue = CL_NEW(&error, clCreateCommandQueue, t.context, lane->device, 0);
    const bool works = t.queue && build(&t, lane) && multiply(&t);
    for (int i = 0; i < 4; i++)
        if (t.mem[i])
            CL_SURE(clReleaseMemObject, t.mem[i]);
    if (t.kernel)
        CL_SURE(clReleaseKernel, t.kernel);
    if (t.program)
        CL_SURE(clReleaseProgram, t.program->program);
    if (t.queue)
        CL_SURE(clReleaseCommandQueue, t.queue);
    if (t.context)
        CL_SURE(clReleaseContext, t.context);
    if (!works)
        gems_log("%s: kernels for compute capability 9.0 do not work as they should, and are not used",
                 lane->info.name);
    return works;
}

static void opened(gems_lane_state *lane)
{
    lane->info.wgmma = lane->info.ptx == 90 && gems_cache_remember(lane, "has wgmma and the copy engine?", try_wgmma);
    if (lane->info.wgmma)
        lane->info.local_static = 224 << 10; /* of 227 that a group may have */
}

GEMS_DRIVER(nvidia) = {.vendor = "nvidia", .patch = patch, .version = 1, .opened = opened};
