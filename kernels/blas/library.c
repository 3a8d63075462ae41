/* CLBlast on a work's queue: loading it, lending it memory as buffers, its errors as ours.
 *
 * The library is looked for when a table's rule first asks for it. A routine that fails is not asked again (quarantine,
 * as for kernels; a shortage of memory counts only when it repeats), and gems_clblast_refuses says so. Its calls count
 * for fault injection as one OpenCL call each. It builds its own kernels at the first call of a routine and a dtype,
 * which takes seconds, keeps them in globals and frees these at exit. */
#include "kernels/blas/blas.h"
#include "preload/base/log.h"

#include <clblast_c.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
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
}

/* ---- state of a routine ---- */

/* One for each routine, f32 and f64. */
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

/* Memory may be there again the next time. */
static bool is_memory(int status)
{
    return status == CLBlastTempBufferAllocFailure || status == CLBlastOpenCLOutOfResources ||
           status == CLBlastOpenCLOutOfHostMemory;
}

static void failed(gems_queue *queue, const gems_clblast_product *p, int status)
{
    const char *name = routine_names[p->routine][p->wide];
    gems_trouble_note(gems_queue_trouble(queue), is_memory(status) ? GEMS_TROUBLE_MEMORY : GEMS_TROUBLE_OTHER, "%s: %s",
                      name, status_name(status));
    if ((!is_memory(status) ||
         atomic_fetch_add(&state[p->routine][p->wide].memory_failures, 1) + 1 >= MEMORY_FAILURES) &&
        !atomic_exchange(&state[p->routine][p->wide].quarantined, true))
        gems_log("%s is not used any more: %s; own kernels serve", name, status_name(status));
}

/* ---- memory ---- */

/* A matrix as CLBlast takes it. */
typedef struct lent {
    cl_mem mem;
    size_t offset;       /* of the first element, in elements */
    gems_buffer *buffer; /* unified: stands for the host's own memory, and is ours to free */
} lent;

static lent lend(gems_queue *queue, gems_lane lane, const gems_bound *place, const gems_clblast_matrix *matrix,
                 size_t element)
{
    lent out = {.mem = NULL};
    if (place->buffer && gems_buffer_handle(place->buffer)) {
        out.mem = gems_buffer_handle(place->buffer);
        out.offset = place->n / element;
        return out;
    }
    const char *first = (place->buffer ? (const char *)gems_buffer_host(place->buffer) : place->p) + place->n;
    size_t before = (uintptr_t)first % ALIGNMENT;
    if (before % element) {
        gems_trouble_note(gems_queue_trouble(queue), GEMS_TROUBLE_NO_DEVICE, "elements are not aligned");
        return out;
    }
    out.buffer = gems_buffer_over(lane, (char *)first - before, matrix->span + before, gems_queue_trouble(queue));
    out.mem = out.buffer ? gems_buffer_handle(out.buffer) : NULL;
    out.offset = before / element;
    return out;
}

/* ---- the calls ---- */

#define TRANSPOSE(matrix) ((matrix).transposed ? CLBlastTransposeYes : CLBlastTransposeNo)
/* S or D of a routine; `factor` converts alpha and beta. */
#define GEMM(function, factor)                                                                                         \
    blast.function(CLBlastLayoutRowMajor, TRANSPOSE(p->a), TRANSPOSE(p->b), p->m, p->n, p->k, (factor)p->alpha, a.mem, \
                   a.offset, p->a.lead, b.mem, b.offset, p->b.lead, (factor)p->beta, c.mem, c.offset, p->c.lead,       \
                   queue, event)
#define BATCHED(function, factor)                                                                                      \
    blast.function(CLBlastLayoutRowMajor, TRANSPOSE(p->a), TRANSPOSE(p->b), p->m, p->n, p->k, (factor)p->alpha, a.mem, \
                   a.offset, p->a.lead, p->a.batch, b.mem, b.offset, p->b.lead, p->b.batch, (factor)p->beta, c.mem,    \
                   c.offset, p->c.lead, p->c.batch, p->batch, queue, event)
/* A matrix that lies transposed is, for CLBlast, a row-major one of k x m to be transposed. */
#define GEMV(function, factor)                                                                                         \
    blast.function(CLBlastLayoutRowMajor, TRANSPOSE(p->a), p->a.transposed ? p->k : p->m,                              \
                   p->a.transposed ? p->m : p->k, (factor)p->alpha, a.mem, a.offset, p->a.lead, b.mem, b.offset,       \
                   p->b.lead, (factor)p->beta, c.mem, c.offset, p->c.lead, queue, event)
#define DOT(function)                                                                                                  \
    blast.function(p->k, c.mem, c.offset, a.mem, a.offset, p->a.lead, b.mem, b.offset, p->b.lead, queue, event)

typedef struct request {
    const gems_clblast_product *p;
    lent a, b, c;
} request;

/* With the cl_command_queue and the address of a cl_event: for gems_queue_use. */
static int enter(void *arg, void *cl_queue, void *cl_event_)
{
    const request *r = arg;
    const gems_clblast_product *p = r->p;
    const lent a = r->a, b = r->b, c = r->c;
    cl_command_queue handle = cl_queue, *queue = &handle;
    cl_event *event = cl_event_;
    switch (p->routine) {
    case GEMS_CLBLAST_GEMM:
        return p->wide ? GEMM(CLBlastDgemm, double) : GEMM(CLBlastSgemm, float);
    case GEMS_CLBLAST_BATCHED:
        return p->wide ? BATCHED(CLBlastDgemmStridedBatched, double) : BATCHED(CLBlastSgemmStridedBatched, float);
    case GEMS_CLBLAST_GEMV:
        return p->wide ? GEMV(CLBlastDgemv, double) : GEMV(CLBlastSgemv, float);
    case GEMS_CLBLAST_DOT:
        return p->wide ? DOT(CLBlastDdot) : DOT(CLBlastSdot);
    }
    return CLBlastNotImplemented;
}

void gems_clblast_run(gems_queue *queue, gems_lane lane, const gems_bound *places, const void *payload)
{
    const gems_clblast_product *p = payload;
    const gems_trouble *trouble = gems_queue_trouble(queue);
    size_t element = p->wide ? 8 : 4;
    request r = {.p = p};
    if (trouble->kind == GEMS_TROUBLE_NONE)
        r.a = lend(queue, lane, &places[0], &p->a, element);
    if (trouble->kind == GEMS_TROUBLE_NONE)
        r.b = lend(queue, lane, &places[1], &p->b, element);
    if (trouble->kind == GEMS_TROUBLE_NONE)
        r.c = lend(queue, lane, &places[2], &p->c, element);
    int status = trouble->kind == GEMS_TROUBLE_NONE ? gems_queue_use(queue, enter, &r) : GEMS_QUEUE_UNUSED;
    if (status == CLBlastSuccess)
        atomic_store_explicit(&state[p->routine][p->wide].memory_failures, 0, memory_order_relaxed);
    else if (status != GEMS_QUEUE_UNUSED)
        failed(queue, p, status);
    if (r.c.buffer)
        gems_queue_show(queue, r.c.buffer, r.c.offset * element, p->c.span);
    if (r.a.buffer || r.b.buffer || r.c.buffer) { /* they are given back only when nothing uses them any more */
        (void)gems_queue_settle(queue);
        gems_buffer_free(r.a.buffer);
        gems_buffer_free(r.b.buffer);
        gems_buffer_free(r.c.buffer);
    }
}
