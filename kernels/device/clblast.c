/* CLBlast on a job's queue: loading it, lending it tensors as buffers, its errors as ours.
 *
 * The library is looked for when a table's rule first asks for it. A routine that fails is not asked again (quarantine,
 * as for kernels; a shortage of memory counts only when it repeats), and gems_clblast_refuses says so. Its calls count
 * for fault injection as one OpenCL call each. It builds its own kernels at the first call of a routine and a dtype,
 * which takes seconds, keeps them in globals and frees these at exit. */
#include "kernels/device/internal.h"
#include "preload/base/log.h"

#include <clblast_c.h>
#include <dlfcn.h>
#include <stdio.h>

#define MEMORY_FAILURES 3   /* in a row, before a routine that "runs out of memory" is given up */
#define ALIGNMENT       128 /* bytes; its kernels load vectors of up to 16 doubles, and take care of offsets themselves */

#define FUNCTIONS(X)                                                                                                   \
    X(CLBlastSgemm)                                                                                                    \
    X(CLBlastDgemm)                                                                                                    \
    X(CLBlastSgemmStridedBatched)                                                                                      \
    X(CLBlastDgemmStridedBatched)                                                                                      \
    X(CLBlastSgemv)                                                                                                    \
    X(CLBlastDgemv)                                                                                                    \
    X(CLBlastSdot)                                                                                                     \
    X(CLBlastDdot)

static struct {
#define X(function) __typeof__(&function) function;
    FUNCTIONS(X)
#undef X
} blast;

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
#define X(function) {#function, offsetof(__typeof__(blast), function)},
    FUNCTIONS(X)
#undef X
};

/* ---- loading ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char missing[160]; /* "" once loaded */

static void load(void)
{
    void *lib = dlopen("libclblast.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        const char *why = dlerror();
        snprintf(missing, sizeof missing, "CLBlast cannot be loaded: %s", why ? why : "libclblast.so.1");
    }
    for (size_t i = 0; lib && i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(lib, functions[i].name);
        if (!address) {
            snprintf(missing, sizeof missing, "libclblast.so.1 lacks %s", functions[i].name);
            break;
        }
        *(void **)((char *)&blast + functions[i].offset) = address;
    }
    if (*missing)
        gems_log("%s; own kernels serve", missing);
    else
        gems_open_guard_exit(); /* ours must run before its destructors */
}

/* ---- state of a routine ---- */

/* One for each routine, f32 and f64. CLBlast is entered by one thread at a time: of several that need a routine first,
 * each would build it. */
static struct {
    _Atomic bool quarantined;
    _Atomic int memory_failures; /* in a row */
} state[GEMS_CLBLAST_ROUTINES][2];
static const char *const routine_names[GEMS_CLBLAST_ROUTINES][2] = {
    {"CLBlastSgemm", "CLBlastDgemm"},
    {"CLBlastSgemmStridedBatched", "CLBlastDgemmStridedBatched"},
    {"CLBlastSgemv", "CLBlastDgemv"},
    {"CLBlastSdot", "CLBlastDdot"},
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

const char *gems_clblast_refuses(gems_clblast_routine routine, gems_dtype dtype)
{
    if (dtype != GEMS_F32 && dtype != GEMS_F64)
        return "CLBlast has no sums in f32 for this dtype";
    pthread_once(&once, load);
    if (*missing)
        return missing;
    return atomic_load_explicit(&state[routine][dtype == GEMS_F64].quarantined, memory_order_relaxed)
               ? "this routine of CLBlast failed before"
               : NULL;
}

/* CLBlast's codes are OpenCL's where both have one; its own are above -3000 and below -1000. */
static const char *status_name(int status)
{
    static __thread char text[48];
    static const struct {
        int code;
        const char *name;
    } own[] = {
        {CLBlastInvalidMatrixA, "invalid matrix A"},
        {CLBlastInvalidMatrixB, "invalid matrix B"},
        {CLBlastInvalidMatrixC, "invalid matrix C"},
        {CLBlastInvalidDimension, "invalid dimension"},
        {CLBlastInvalidLeadDimA, "leading dimension of A"},
        {CLBlastInvalidLeadDimB, "leading dimension of B"},
        {CLBlastInvalidLeadDimC, "leading dimension of C"},
        {CLBlastInsufficientMemoryA, "buffer of A too small"},
        {CLBlastInsufficientMemoryB, "buffer of B too small"},
        {CLBlastInsufficientMemoryC, "buffer of C too small"},
        {CLBlastInvalidLocalMemUsage, "not enough local memory"},
        {CLBlastNoDoublePrecision, "no double precision"},
        {CLBlastDatabaseError, "device not in its database"},
        {CLBlastUnexpectedError, "unexpected error"},
    };
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (own[i].code == status) {
            snprintf(text, sizeof text, "%s (%d)", own[i].name, status);
            return text;
        }
    return gems_cl_error(status);
}

static void failed(gems_job *job, gems_clblast_routine routine, bool wide, int status)
{
    const char *name = routine_names[routine][wide];
    job->status = gems_fail(job->call, "%s: %s", name, status_name(status));
    bool memory = gems_cl_error_is_memory(status) || status == CLBlastTempBufferAllocFailure;
    if ((!memory || atomic_fetch_add(&state[routine][wide].memory_failures, 1) + 1 >= MEMORY_FAILURES) &&
        !atomic_exchange(&state[routine][wide].quarantined, true))
        gems_log("%s is not used any more: %s; own kernels serve", name, status_name(status));
}

/* ---- memory ---- */

typedef struct lent {
    cl_mem mem;
    size_t offset; /* of the tensor's first element, in elements */
} lent;

/* The tensor as a buffer. Unified: one that stands for the host's own memory, released when the job ends. */
static lent lend(gems_job *job, const gems_tensor *tensor, gems_access access)
{
    lent out = {0};
    if (job->status != GEMS_OK)
        return out;
    if (!job->lane->info.unified) {
        gems_span *span;
        if (gems_memory_acquire(job, tensor, access, &span) == GEMS_OK)
            out.mem = span->block->mem;
        return out;
    }
    size_t element = gems_dtypes[tensor->dtype].size, before = tensor->address % ALIGNMENT;
    if (before % element) {
        job->status = gems_decline(job->call, "elements are not aligned");
        return out;
    }
    cl_int error = CL_SUCCESS;
    cl_mem_flags flags = CL_MEM_USE_HOST_PTR | (access & GEMS_WRITE ? CL_MEM_READ_WRITE : CL_MEM_READ_ONLY);
    out.mem = CL_NEW(&error, clCreateBuffer, job->lane->context, flags,
                     (size_t)gems_tensor_span(tensor) * element + before, (char *)tensor->address - before);
    out.offset = before / element;
    if (out.mem)
        job->lent[job->nlent++] = out.mem;
    else
        gems_job_fail(job, "clCreateBuffer", "of the host's memory", error);
    return out;
}

/* Unified: makes what was written to `mem` visible to the host. Once the result may have been written there is no way
 * back to the host's own call, so a failure is asked again. */
static void bring_back(gems_job *job, cl_mem mem, const gems_tensor *tensor, size_t offset)
{
    size_t element = gems_dtypes[tensor->dtype].size, bytes = (size_t)gems_tensor_span(tensor) * element;
    cl_event event = NULL;
    cl_int error = CL_SUCCESS;
    void *mapped = CL_NEW(&error, clEnqueueMapBuffer, job->queue, mem, CL_FALSE, CL_MAP_READ, offset * element, bytes,
                          0, NULL, &event);
    if (!mapped)
        mapped = gems_cl.clEnqueueMapBuffer(job->queue, mem, CL_FALSE, CL_MAP_READ, offset * element, bytes, 0, NULL,
                                            &event, &error);
    if (!mapped) {
        gems_job_fail(job, "clEnqueueMapBuffer", "", error);
        return;
    }
    job->mapped = mapped;
    job->mapped_mem = mem;
    gems_job_set_last(job, event);
}

void gems_clblast_release(gems_job *job)
{
    if (job->mapped)
        CL_SURE(clEnqueueUnmapMemObject, job->queue, job->mapped_mem, job->mapped, 0, NULL, NULL);
    for (unsigned i = 0; i < job->nlent; i++)
        CL_SURE(clReleaseMemObject, job->lent[i]);
    job->mapped = NULL;
    job->nlent = 0;
}

/* ---- the calls ---- */

#define TURN(matrix) ((matrix).turned ? CLBlastTransposeYes : CLBlastTransposeNo)
/* S or D of a routine; `factor` converts alpha and beta. */
#define GEMM(function, factor)                                                                                         \
    blast.function(CLBlastLayoutRowMajor, TURN(p->a), TURN(p->b), p->m, p->n, p->k, (factor)p->alpha, a.mem, a.offset, \
                   p->a.step, b.mem, b.offset, p->b.step, (factor)p->beta, c.mem, c.offset, p->c.step, queue, event)
#define BATCHED(function, factor)                                                                                      \
    blast.function(CLBlastLayoutRowMajor, TURN(p->a), TURN(p->b), p->m, p->n, p->k, (factor)p->alpha, a.mem, a.offset, \
                   p->a.step, p->a.batch, b.mem, b.offset, p->b.step, p->b.batch, (factor)p->beta, c.mem, c.offset,    \
                   p->c.step, p->c.batch, p->batch, queue, event)
/* A matrix that lies turned is, for CLBlast, a row-major one of k x m to be turned. */
#define GEMV(function, factor)                                                                                         \
    blast.function(CLBlastLayoutRowMajor, TURN(p->a), p->a.turned ? p->k : p->m, p->a.turned ? p->m : p->k,            \
                   (factor)p->alpha, a.mem, a.offset, p->a.step, b.mem, b.offset, p->b.step, (factor)p->beta, c.mem,   \
                   c.offset, p->c.step, queue, event)
#define DOT(function)                                                                                                  \
    blast.function(p->k, c.mem, c.offset, a.mem, a.offset, p->a.step, b.mem, b.offset, p->b.step, queue, event)

static int enter(const gems_clblast_product *p, lent a, lent b, lent c, cl_command_queue *queue, cl_event *event)
{
    bool wide = p->dtype == GEMS_F64;
    switch (p->routine) {
    case GEMS_CLBLAST_GEMM:
        return wide ? GEMM(CLBlastDgemm, double) : GEMM(CLBlastSgemm, float);
    case GEMS_CLBLAST_BATCHED:
        return wide ? BATCHED(CLBlastDgemmStridedBatched, double) : BATCHED(CLBlastSgemmStridedBatched, float);
    case GEMS_CLBLAST_GEMV:
        return wide ? GEMV(CLBlastDgemv, double) : GEMV(CLBlastSgemv, float);
    case GEMS_CLBLAST_DOT:
        return wide ? DOT(CLBlastDdot) : DOT(CLBlastSdot);
    }
    return CLBlastNotImplemented;
}

void gems_clblast_run(gems_job *job, const gems_clblast_product *p)
{
    if (job->status != GEMS_OK)
        return;
    bool wide = p->dtype == GEMS_F64;
    /* What an earlier launch of the job wrote to the host's memory is there before a buffer stands for it. */
    if (job->lane->info.unified && job->last) {
        cl_int error = CL(clFinish, job->queue);
        if (error != CL_SUCCESS) {
            gems_job_fail(job, "clFinish", "", error);
            return;
        }
    }
    lent a = lend(job, p->a.tensor, GEMS_READ), b = lend(job, p->b.tensor, GEMS_READ);
    bool keep = p->beta != 0 || !gems_tensor_is_dense(p->c.tensor);
    lent c = lend(job, p->c.tensor, keep ? GEMS_READ_WRITE : GEMS_WRITE);
    if (job->status != GEMS_OK)
        return;

    cl_event event = NULL;
    int status = CLBlastOpenCLOutOfResources;
    gems_guard_alone(job); /* nobody knows what it launches */
    if (job->status != GEMS_OK)
        return;
    atomic_fetch_add(&gems_open_building, 1);
    pthread_mutex_lock(&lock);
    if (!gems_cl_fault())
        status = enter(p, a, b, c, &job->queue, &event);
    pthread_mutex_unlock(&lock);
    atomic_fetch_sub(&gems_open_building, 1);
    if (status != CLBlastSuccess || !event) {
        (void)CL_SURE(clFinish, job->queue); /* kernels of a part of the work may be on their way */
        if (status != CLBlastSuccess) {
            failed(job, p->routine, wide, status);
            return;
        }
    }
    atomic_store_explicit(&state[p->routine][wide].memory_failures, 0, memory_order_relaxed);
    if (event) {
        gems_job_time(job, event); /* of its last kernel: that of the product itself, where nothing was repacked */
        gems_job_set_last(job, event);
    }
    if (job->lane->info.unified)
        bring_back(job, c.mem, p->c.tensor, c.offset);
}
