/* The variants of a product: parameters, arguments, launch. */
#include "kernels/blas/blas.h"
#include "kernels/embedded.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

enum {
    SKINNY = 8
}; /* rows that gemv.cl can hold */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
gems_product gems_blas_transposed(const gems_product *p)
{
    gems_product t = *p;
    t.m = p->n, t.n = p->m;
    t.a = (gems_matrix){p->b.tensor, p->b.col, p->b.row, p->b.batch};
    t.b = (gems_matrix){p->a.tensor, p->a.col, p->a.row, p->a.batch};
    t.c = (gems_matrix){p->c.tensor, p->c.col, p->c.row, p->c.batch};
    t.d = (gems_matrix){p->d.tensor, p->d.col, p->d.row, p->d.batch};
    return t;
}

/* What identifies a kernel: file and entry, dtype, and the numbers in its options. */
typedef struct kernel_id {
    const char *file, *entry;
    int64_t dtype, number[GEMS_BLAS_NUMBERS];
} kernel_id;

gems_kernel *gems_blas_kernel(gems_work *work, const gems_product *p, const char *file, const char *entry,
                              const char *options, const int number[GEMS_BLAS_NUMBERS])
{
    kernel_id id = {.file = file, .entry = entry, .dtype = p->dtype};
    for (int i = 0; i < GEMS_BLAS_NUMBERS; i++)
        id.number[i] = number[i];
    gems_kernel *kernel = gems_work_find(work, &id, sizeof id);
    const gems_embedded_file *f = gems_embedded_find(file);
    if (kernel || !f)
        return kernel;
    const gems_dtype_info *info = &gems_dtypes[p->dtype];
    bool real = info->category == GEMS_CAT_FLOAT;
    const char *factor = !real ? "long" : p->dtype == GEMS_F64 ? "double" : "float";
    char more[128], all[192];
    snprintf(more, sizeof more, options, number[0], number[1], number[2], number[3], number[4], number[5],
             number[6]); /* NOLINT: constants of this file */
    snprintf(all, sizeof all, "-DD=%s -DS=%s %s %s", info->name, factor, real ? "-DFLOAT" : "", more);
    return gems_work_build(work, &id, sizeof id, &(gems_kernel_text){file, NULL, f->text, all, entry});
}

int gems_blas_matrices(const gems_product *p, gems_arg *arg)
{
    const bool same = p->add && p->d.tensor->address == p->c.tensor->address;
    const gems_arg c = same ? GEMS_INOUT(p->c.tensor) : GEMS_OUT_ARG(p->c.tensor);
    arg[0] = GEMS_IN(p->a.tensor), arg[1] = GEMS_IN(p->b.tensor), arg[2] = c;
    arg[3] = same ? c : GEMS_IN(p->add ? p->d.tensor : p->a.tensor);
    return 4;
}

void gems_blas_enqueue(gems_work *work, gems_kernel *kernel, const gems_product *p, gems_arg *arg, int n,
                       const int32_t *size, int nsizes, const size_t global[3], const size_t local[3])
{
    for (int i = 0; i < nsizes; i++)
        arg[n++] = GEMS_VALUE(size[i]);
    const int64_t stride[] = {p->a.row, p->a.col, p->b.row,   p->b.col,   p->c.row,   p->c.col,
                              p->d.row, p->d.col, p->a.batch, p->b.batch, p->c.batch, p->d.batch};
    for (int i = 0; i < 12; i++)
        arg[n++] = GEMS_VALUE(stride[i]);
    const float alpha = (float)p->alpha, beta = (float)p->beta;
    if (gems_dtypes[p->dtype].category != GEMS_CAT_FLOAT) {
        arg[n++] = GEMS_VALUE(p->int_alpha);
        arg[n++] = GEMS_VALUE(p->int_beta);
    } else if (p->dtype == GEMS_F64) {
        arg[n++] = GEMS_VALUE(p->alpha);
        arg[n++] = GEMS_VALUE(p->beta);
    } else {
        arg[n++] = GEMS_VALUE(alpha);
        arg[n++] = GEMS_VALUE(beta);
    }
    const int32_t add = p->add;
    arg[n++] = GEMS_VALUE(add);
    gems_launch(work, kernel, 3, global, local, arg, n);
}

/* The same over the matrices and partial sums (`scratch`; -1: none). */
static void enqueue(gems_work *work, gems_kernel *kernel, const gems_product *p, int scratch, const int32_t *size,
                    int nsizes, const size_t global[3], const size_t local[3])
{
    gems_arg arg[GEMS_BLAS_ARGS];
    int n = gems_blas_matrices(p, arg);
    if (scratch >= 0)
        arg[n++] = GEMS_SCRATCH(scratch);
    gems_blas_enqueue(work, kernel, p, arg, n, size, nsizes, global, local);
}

gems_product gems_blas_row_major(const gems_product *p)
{
    return p->c.col != 1 && p->c.row == 1 ? gems_blas_transposed(p) : *p;
}

/* Blocks of at most mc x nc on at most `workers`: smaller and even ones, down to 16 x 32, until each has a few. */
static void balance(const gems_product *p, int64_t workers, int64_t *mc, int64_t *nc)
{
    int64_t wanted = workers * 4;
    while (p->batch * gems_ceil_div(p->m, *mc) * gems_ceil_div(p->n, *nc) < wanted) {
        if (*nc > 64)
            *nc /= 2;
        else if (*mc > 48)
            *mc /= 2;
        else
            break;
    }
    *mc = least(*mc, gems_ceil_div(gems_ceil_div(p->m, gems_ceil_div(p->m, *mc)), 8) * 8);
    *nc = least(*nc, gems_ceil_div(gems_ceil_div(p->n, gems_ceil_div(p->n, *nc)), 32) * 32);
}

static void launch_cpu(const gems_choice *c)
{
    gems_product product = gems_blas_row_major(c->problem);
    const gems_product *p = &product;
    const gems_rule *rule = c->call->rule;
    const gems_device_info *device = c->device;
    size_t element = p->dtype == GEMS_F64 || p->dtype == GEMS_I64 ? 8 : 4;
    int64_t mc = gems_rule_param(rule, "tm", 96), nc = gems_rule_param(rule, "tn", 256), kc = 256;
    while (((mc + 16) * (kc + 16 + nc) + kc * 32) * element > device->local_bytes && kc > 32)
        kc /= 2, nc = nc > 32 ? nc / 2 : nc, mc = mc > 16 ? mc / 2 / 16 * 16 : mc;
    const int number[GEMS_BLAS_NUMBERS] = {(int)mc, (int)nc, (int)kc};
    gems_kernel *kernel =
        gems_blas_kernel(c->work, p, "kernels/blas/gemm_cpu.cl", "gemm", "-DMC=%d -DNC=%d -DKC=%d", number);

    balance(p, device->compute_units, &mc, &nc);
    int32_t size[5] = {(int32_t)p->m, (int32_t)p->n, (int32_t)p->k, (int32_t)mc, (int32_t)nc};
    const size_t global[3] = {(size_t)gems_ceil_div(p->m, mc), (size_t)gems_ceil_div(p->n, nc), (size_t)p->batch};
    const size_t local[3] = {1, 1, 1};
    enqueue(c->work, kernel, p, -1, size, 5, global, local);
}

void gems_blas_gpu(const gems_choice *c, const gems_blas_parts *parts)
{
    gems_product product = gems_blas_row_major(c->problem);
    const gems_product *p = &product;
    const gems_rule *rule = c->call->rule;
    const gems_device_info *device = c->device;
    bool wide = p->dtype == GEMS_F64 || p->dtype == GEMS_I64;
    /* Large blocks where they still fill the device. */
    int64_t blocks = p->batch * gems_ceil_div(p->m, 128) * gems_ceil_div(p->n, 128);
    int64_t fallback = !wide && blocks >= device->compute_units ? 128 : 64;
    int tm = (int)gems_rule_param(rule, "tm", fallback), tn = (int)gems_rule_param(rule, "tn", fallback), tk = 16;
    int gx = 16, gy = 16;
    while ((size_t)gx * (size_t)gy > device->max_group)
        *(gy > 4 ? &gy : &gx) /= 2;
    if (tm != 128 || gy < 16) /* fewer work-items have no registers for a large block */
        tm = 64;
    if (tn != 128 || gy < 16)
        tn = 64;
    while ((size_t)tk * (size_t)(tm + tn + 8) * (wide ? 8 : 4) > device->local_bytes && tk > 4)
        tk /= 2;
    const int number[GEMS_BLAS_NUMBERS] = {tm, tn, tk, gx, gy, p->k > 1024 ? 512 : 0, parts != NULL};
    char options[96];
    snprintf(options, sizeof options, "-DTM=%%d -DTN=%%d -DTK=%%d -DGX=%%d -DGY=%%d%s%s",
             number[5] ? " -DFLUSH=%d" : "", parts ? " -DREST" : "");
    gems_kernel *kernel = gems_blas_kernel(c->work, p, "kernels/blas/gemm_gpu.cl", "gemm", options, number);

    int32_t size[3] = {(int32_t)p->m, (int32_t)p->n, (int32_t)p->k};
    size_t global[3] = {(size_t)(gx * gems_ceil_div(p->n, tn)), (size_t)(gy * gems_ceil_div(p->m, tm)),
                        (size_t)p->batch};
    const size_t local[3] = {(size_t)gx, (size_t)gy, 1};
    gems_arg arg[GEMS_BLAS_ARGS];
    int n = gems_blas_matrices(p, arg);
    if (parts) {
        arg[n++] = GEMS_SCRATCH(parts->a);
        arg[n++] = GEMS_SCRATCH(parts->b);
        arg[n++] = GEMS_VALUE(parts->pitch);
    }
    gems_blas_enqueue(c->work, kernel, p, arg, n, size, 3, global, local);
}

static void launch_gpu(const gems_choice *c)
{
    gems_blas_gpu(c, NULL);
}

bool gems_blas_is_aligned(const gems_matrix *x, int64_t one, int64_t other)
{
    return one == 1 && other % 8 == 0 && x->batch % 8 == 0 && x->tensor->address % 16 == 0;
}

bool gems_blas_are_aligned(const gems_product *p)
{
    return (gems_blas_is_aligned(&p->a, p->a.col, p->a.row) || gems_blas_is_aligned(&p->a, p->a.row, p->a.col)) &&
           (gems_blas_is_aligned(&p->b, p->b.col, p->b.row) || gems_blas_is_aligned(&p->b, p->b.row, p->b.col));
}

static bool has_mma(const gems_device_info *device)
{
    return device->ptx >= 80;
}

static bool can_mma(const gems_choice *c)
{
    const gems_product p = gems_blas_row_major(c->problem);
    return gems_blas_are_aligned(&p);
}

/* Tensor cores. Large blocks where they still fill the device. */
static void launch_mma(const gems_choice *c)
{
    gems_product product = gems_blas_row_major(c->problem);
    const gems_product *p = &product;
    const gems_rule *rule = c->call->rule;
    int64_t blocks = p->batch * gems_ceil_div(p->m, 128) * gems_ceil_div(p->n, 128);
    int64_t fallback = blocks >= c->device->compute_units / 2 ? 128 : 64;
    int tm = (int)gems_rule_param(rule, "tm", fallback), tn = (int)gems_rule_param(rule, "tn", fallback);
    bool along_m = !gems_blas_is_aligned(&p->a, p->a.col, p->a.row),
         along_k = !gems_blas_is_aligned(&p->b, p->b.col, p->b.row);
    const int number[GEMS_BLAS_NUMBERS] = {tm, tn, 64, 3, along_m, along_k};
    gems_kernel *kernel = gems_blas_kernel(c->work, p, "kernels/blas/gemm_mma.cl", "gemm",
                                           "-DTM=%d -DTN=%d -DTK=%d -DSTAGES=%d -DA_ALONG_M=%d -DB_ALONG_K=%d", number);
    int32_t size[3] = {(int32_t)p->m, (int32_t)p->n, (int32_t)p->k};
    const size_t local[3] = {128, 1, 1};
    const size_t global[3] = {(size_t)(128 * gems_ceil_div(p->n, tn) * gems_ceil_div(p->m, tm)), 1, (size_t)p->batch};
    enqueue(c->work, kernel, p, -1, size, 3, global, local);
}

static const char gemv_options[] = "-DROWS=%d -DCOLS=%d -DGROUP=%d";

void gems_blas_sum(const gems_choice *c, const gems_product *p, gems_arg *arg, int n, int64_t parts)
{
    const int number[GEMS_BLAS_NUMBERS] = {1, 64, 1};
    gems_kernel *sum = gems_blas_kernel(c->work, p, "kernels/blas/gemv.cl", "gemv_sum", gemv_options, number);
    const int32_t size[5] = {(int32_t)p->m, (int32_t)p->n, (int32_t)p->k, 0, (int32_t)parts};
    const size_t group = gems_group(c->device, c->device->is_cpu ? 16 : 128);
    const size_t global[3] = {(size_t)gems_ceil_div(p->m * p->n, (int64_t)group) * group, 1, (size_t)p->batch};
    const size_t local[3] = {group, 1, 1};
    gems_blas_enqueue(c->work, sum, p, arg, n, size, 5, global, local);
}

/* Whether rows of A and columns of B are float4. */
static bool in_lines(const gems_product *p)
{
    return p->dtype == GEMS_F32 && p->k % 4 == 0 && p->a.col == 1 && (p->m == 1 || p->a.row % 4 == 0) &&
           p->a.batch % 4 == 0 && p->b.row == 1 && (p->n == 1 || p->b.col % 4 == 0) && p->b.batch % 4 == 0 &&
           p->a.tensor->address % 16 == 0 && p->b.tensor->address % 16 == 0;
}

/* Few rows. Work-items that read B down its columns where those are neighbours, along k elsewhere; k in parts where the
 * columns alone do not fill the device. The number of parts depends on shape and device alone: same call, same bits. */
static void launch_vector(const gems_choice *c)
{
    const gems_product *given = c->problem;
    gems_product product = given->n < given->m ? gems_blas_transposed(given) : *given;
    const gems_product *p = &product;
    const gems_rule *rule = c->call->rule;
    const gems_device_info *device = c->device;
    bool cpu = device->is_cpu, by_columns = p->b.col == 1 && p->b.row != 1 && p->n >= 16;
    int rows = p->m > 4 ? 8 : p->m > 2 ? 4 : (int)p->m;
    int cols = !cpu ? 16 : rows == 1 ? 128 : rows == 8 ? 32 : 64;
    int wide = rows > 2 ? 2 : 4, group = cpu ? 1 : (int)gems_group(device, 64);
    int64_t strips = gems_ceil_div(p->n, by_columns ? cols : wide);
    int64_t wanted = (int64_t)device->compute_units * (cpu ? 4 : by_columns ? 256 : 16);
    int64_t least_part = cpu ? 4096 : by_columns ? 64 : 4096;
    int64_t parts = least(gems_ceil_div(wanted, strips * p->batch), gems_ceil_div(p->k, least_part));
    parts = gems_rule_param(rule, "split", parts < 1 ? 1 : parts);
    int64_t part = gems_ceil_div(gems_ceil_div(p->k, parts), 16) * 16;
    if (part < 16)
        part = 16;
    parts = p->k > part ? gems_ceil_div(p->k, part) : 1;

    const int number[GEMS_BLAS_NUMBERS] = {rows, cols, group};
    const char *entry = by_columns ? "gemv_cols" : !cpu && in_lines(p) && part % 4 == 0 ? "gemv_lines" : "gemv_rows";
    gems_kernel *kernel = gems_blas_kernel(c->work, p, "kernels/blas/gemv.cl", entry, gemv_options, number);

    size_t element = p->dtype == GEMS_F64 || p->dtype == GEMS_I64 ? 8 : 4;
    size_t partial = parts > 1 ? (size_t)(parts * p->batch * p->m * p->n) * element : 64;
    int32_t size[5] = {(int32_t)p->m, (int32_t)p->n, (int32_t)p->k, (int32_t)part, (int32_t)parts};
    int scratch = gems_work_scratch(c->work, partial);
    size_t lanes = by_columns && group > 32 ? 32 : (size_t)group;
    size_t groups = by_columns ? (size_t)gems_ceil_div(strips, (int64_t)lanes) : (size_t)strips;
    const size_t global[3] = {groups * lanes, (size_t)parts, (size_t)p->batch}, local[3] = {lanes, 1, 1};
    enqueue(c->work, kernel, p, scratch, size, 5, global, local);
    if (parts > 1) {
        gems_arg arg[GEMS_BLAS_ARGS];
        int n = gems_blas_matrices(p, arg);
        arg[n++] = GEMS_SCRATCH(scratch);
        gems_blas_sum(c, p, arg, n, parts);
    }
}

static bool can_vector(const gems_choice *c)
{
    const gems_product *p = c->problem;
    return least(p->m, p->n) <= SKINNY;
}

/* The CPU kernel lives on large blocks in local memory; without them the many work-items of the other do better. */
static bool suits_cpu(const gems_choice *c)
{
    return c->device->is_cpu && c->device->local_bytes >= 128 << 10;
}

static bool never(const gems_choice *c)
{
    (void)c;
    return false;
}

static void launch_clblast(const gems_choice *c)
{
    const char *why = gems_blas_clblast(c);
    if (!why)
        return;
    gems_blas_own(c, c->problem);
    c->call->why = why; /* for the log: the call was routed, but not to what the rule names */
}

const gems_variant gems_blas_variants[] = {
    {"few", "PTX of compute capability 9.0, rows at multiples of 16 bytes, at most 64 of them, or columns",
     .dtypes = 1 << GEMS_F16 | 1 << GEMS_BF16, .params = {{"split", 1, 4096, 1, 0}}, .device = gems_device_has_wgmma,
     .can = gems_blas_can_few, .suits = gems_blas_suits_few, .launch = gems_blas_few},
    {"vector", "at most 8 rows, or 8 columns", .params = {{"split", 1, 4096, 1, 0}}, .can = can_vector,
     .launch = launch_vector},
    {"cpu", .params = {{"tm", 16, 256, 16, 96}, {"tn", 32, 1024, 32, 256}}, .suits = suits_cpu, .launch = launch_cpu},
    {"wgmma", "PTX of compute capability 9.0", .dtypes = 1 << GEMS_F16 | 1 << GEMS_BF16,
     .params = {{"tm", 64, 128, 64, 0}, {"tn", 64, 256, 64, 0}}, .device = gems_device_has_wgmma,
     .can = gems_blas_can_wgmma, .suits = gems_blas_suits_wgmma, .launch = gems_blas_wgmma},
    {"split", "PTX of compute capability 9.0", .dtypes = 1 << GEMS_F32,
     .params = {{"tm", 64, 128, 64, 0}, {"tn", 64, 192, 64, 0}}, .device = gems_device_has_wgmma,
     .can = gems_blas_can_split, .suits = gems_blas_suits_split, .launch = gems_blas_split},
    {"mma", "PTX of compute capability 8.0, rows at multiples of 16 bytes", .dtypes = 1 << GEMS_F16 | 1 << GEMS_BF16,
     .params = {{"tm", 64, 128, 64, 0}, {"tn", 64, 128, 64, 0}}, .device = has_mma, .can = can_mma, .suits = can_mma,
     .launch = launch_mma},
    {"gpu", NULL, .params = {{"tm", 64, 128, 64, 0}, {"tn", 64, 128, 64, 0}}, .launch = launch_gpu},
    {"clblast", "an installed CLBlast", .dtypes = 1 << GEMS_F32 | 1 << GEMS_F64, .suits = never,
     .launch = launch_clblast},
    {NULL},
};

void gems_blas_own(const gems_choice *c, const gems_product *p)
{
    gems_choice own = *c;
    own.problem = p;
    (can_vector(&own) ? launch_vector : suits_cpu(&own) ? launch_cpu : launch_gpu)(&own);
}
