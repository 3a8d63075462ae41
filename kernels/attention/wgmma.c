/* Attention on the tensor cores of NVIDIA's compute capability 9.0: "wgmma" of bf16 and f16, "split" of f32. */
#include "kernels/attention/attention.h"
#include "kernels/embedded.h"
#include "tune/table.h"

#include <math.h>
#include <stdio.h>

/* For a head of 64, 128, 192, 256 elements: keys of a block, and as many blocks as local memory holds. Of f32, too. */
typedef struct block {
    int bk, stages;
} block;
static const block of_head[4] = {{128, 4}, {128, 3}, {64, 3}, {64, 2}}, of_parts[2] = {{128, 3}, {64, 2}};

/* Tiles of bq queries of one head. */
static double tiles(const gems_attention *p, int bq)
{
    return (double)p->q->sizes[0] * (double)p->q->sizes[1] * (double)gems_ceil_div(p->q->sizes[2], bq);
}

/* Whether the copy engine can step over it: its rows do not lie in each other. */
static bool is_reached(const gems_tensor *x)
{
    bool aligned = x->address % 16 == 0;
    for (int i = 0; i < 3; i++)
        aligned = aligned && (x->sizes[i] == 1 || x->strides[i] % 8 == 0);
    return aligned && (x->sizes[2] == 1 || x->strides[2] >= x->sizes[3]);
}

bool gems_attention_can_wgmma(const gems_choice *c)
{
    const gems_attention *p = c->problem;
    const int64_t head = p->q->sizes[3];
    return head <= 256 && p->scale > 0 && is_reached(p->q) && is_reached(p->k) && is_reached(p->v) &&
           (head == 1 || p->out->strides[3] == 1) && tiles(p, 64) < 0x1p26;
}

/* What is smaller is done before the copy engine is set up. */
bool gems_attention_suits_wgmma(const gems_choice *c)
{
    const gems_attention *p = c->problem;
    return (double)p->q->numel * (double)p->k->sizes[2] >= 0x1p20 && gems_attention_can_wgmma(c);
}

/* Tiles of 64 queries are less work, and less well done, than those of 128: for when the last wave of these would leave
 * multiprocessors idle. */
static int queries_of_tile(const gems_choice *c)
{
    const gems_attention *p = c->problem;
    const double units = c->device->compute_units;
    const bool small = p->q->sizes[2] <= 64 || .7 * ceil(tiles(p, 64) / units) < ceil(tiles(p, 128) / units);
    return (int)gems_rule_param(c->call->rule, "bq", small ? 64 : 128);
}

/* What identifies a kernel. */
typedef struct kernel_id {
    const char *file;
    int64_t dtype, mask, head, bq;
} kernel_id;

static gems_kernel *kernel_for(gems_work *work, const gems_attention *p, const char *file, int bq, const block *b)
{
    const gems_dtype mask = p->mask ? p->mask->dtype : GEMS_DTYPE_COUNT;
    const int head = 64 * (int)gems_ceil_div(p->q->sizes[3], 64);
    const kernel_id id = {file, p->q->dtype, mask, head, bq};
    gems_kernel *kernel = gems_work_find(work, &id, sizeof id);
    const gems_embedded_file *f = gems_embedded_find(file);
    if (kernel || !f)
        return kernel;
    char options[160];
    snprintf(options, sizeof options,
             "-DD=%s -DMD=%s -DHEAD=%d -DBQ=%d -DBK=%d -DHELD=%d -DSCORES=%d -DWORDS=%d -DSTAGES=%d%s",
             gems_dtypes[p->q->dtype].name, gems_dtypes[p->mask ? mask : p->q->dtype].name, head, bq, b->bk, head / 2,
             b->bk / 2, b->bk / 4, b->stages, p->mask ? " -DMASKED" : "");
    return gems_work_build(work, &id, sizeof id, &(gems_kernel_text){file, NULL, f->text, options, "attention"});
}

/* The maps and the numbers of heads come last, after `more`. */
static void launch(const gems_choice *c, const char *file, const block *of_size, const gems_arg *before, int n)
{
    const gems_attention *p = c->problem;
    const int bq = queries_of_tile(c);
    const double all = tiles(p, bq), units = c->device->compute_units;
    const size_t groups = (size_t)(all < units ? all : units); /* each makes one tile after another */
    const size_t local[3] = {(size_t)(128 * (bq / 64 + 1)), 1, 1}, global[3] = {groups * local[0], 1, 1};
    const int32_t batches = (int32_t)p->q->sizes[0], heads = (int32_t)p->q->sizes[1];
    gems_arg more[8];
    for (int i = 0; i < n; i++)
        more[i] = before[i];
    more[n++] = GEMS_SCRATCH(gems_work_scratch(c->work, groups * 3 * 128)); /* three maps each */
    more[n++] = GEMS_VALUE(batches);
    more[n++] = GEMS_VALUE(heads);
    const block *b = of_size + gems_ceil_div(p->q->sizes[3], 64) - 1;
    gems_attention_launch(c->work, kernel_for(c->work, p, file, bq, b), p, bq, global, local, more, n);
}

void gems_attention_wgmma(const gems_choice *c)
{
    launch(c, "kernels/attention/attention_wgmma.cl", of_head, NULL, 0);
}

/* ---- f32 ---- */

static int64_t lines(const gems_tensor *x)
{
    return x->sizes[0] * x->sizes[1];
}

/* The scale is one by which sums stay normal numbers (parts.cl). */
bool gems_attention_can_split(const gems_choice *c)
{
    const gems_attention *p = c->problem;
    const int64_t head = p->q->sizes[3];
    return head <= 128 && p->scale >= 0x1p-20 && p->scale <= 0x1p20 && (head == 1 || p->out->strides[3] == 1) &&
           tiles(p, 64) < 0x1p26 && (double)lines(p->k) * (double)gems_ceil_div(p->k->sizes[2], 64) < 0x1p26;
}

bool gems_attention_suits_split(const gems_choice *c)
{
    const gems_attention *p = c->problem;
    return (double)p->q->numel * (double)p->k->sizes[2] >= 0x1p20 && gems_attention_can_split(c);
}

static gems_kernel *split_kernel(gems_work *work, int head, int rows)
{
    static const char file[] = "kernels/attention/split.cl";
    const kernel_id id = {file, GEMS_F32, GEMS_F32, head, rows};
    gems_kernel *kernel = gems_work_find(work, &id, sizeof id);
    const gems_embedded_file *f = gems_embedded_find(file);
    if (kernel || !f)
        return kernel;
    char options[64];
    snprintf(options, sizeof options, "-DHEAD=%d -DPART_ROWS=%d", head, rows);
    return gems_work_build(work, &id, sizeof id, &(gems_kernel_text){file, NULL, f->text, options, "split"});
}

/* Parts of queries, keys and values, attention of those, and what has no parts. */
void gems_attention_split(const gems_choice *c)
{
    const gems_attention *p = c->problem;
    const int64_t *q = p->q->sizes, *k = p->k->sizes, high = gems_ceil_div(q[3], 64),
                  pitch64 = gems_ceil_div(q[3], 8) * 8;
    const int rows = of_parts[high - 1].bk;
    const int64_t groups = lines(p->q) * gems_ceil_div(q[2], rows) + 2 * lines(p->k) * gems_ceil_div(k[2], rows);
    const int64_t elements = (lines(p->q) * q[2] + 2 * lines(p->k) * k[2]) * pitch64;
    const int32_t pitch = (int32_t)pitch64;
    const int parts = gems_work_scratch(c->work, (size_t)elements * 4),
              notes = gems_work_scratch(c->work, (size_t)groups * 4);
    const int32_t size[] = {(int32_t)q[0], (int32_t)q[1], (int32_t)(q[1] / k[1]), (int32_t)q[2], (int32_t)k[2],
                            (int32_t)q[3], pitch};
    gems_arg arg[24];
    int n = 0;
    const gems_tensor *x[3] = {p->q, p->k, p->v};
    for (int i = 0; i < 3; i++)
        arg[n++] = GEMS_IN(x[i]);
    arg[n++] = GEMS_SCRATCH(parts);
    arg[n++] = GEMS_SCRATCH(notes);
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        arg[n++] = GEMS_VALUE(size[i]);
    for (int i = 0; i < 3; i++)
        for (int d = 0; d < 3; d++)
            arg[n++] = GEMS_VALUE(x[i]->strides[d]);
    const size_t local[3] = {256, 1, 1}, global[3] = {(size_t)groups * 256, 1, 1};
    gems_launch(c->work, split_kernel(c->work, 64 * (int)high, rows), 3, global, local, arg, n);

    const gems_arg more[] = {GEMS_SCRATCH(parts), GEMS_SCRATCH(notes), GEMS_VALUE(pitch)};
    launch(c, "kernels/attention/attention_split.cl", of_parts, more, 3);
    gems_attention_rest(c, notes, rows);
}
