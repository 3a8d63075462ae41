/* Attention on the tensor cores of NVIDIA's compute capability 9.0, of bf16 and f16. */
#include "kernels/attention/attention.h"
#include "kernels/embedded.h"
#include "tune/table.h"

#include <math.h>
#include <stdio.h>

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* For a head of 64, 128, 192, 256 elements: keys of a block, and as many blocks as local memory holds. */
static const struct {
    int bk, stages;
} of_head[4] = {{128, 4}, {128, 3}, {64, 3}, {64, 2}};

/* Tiles of bq queries of one head. */
static double tiles(const gems_attention *p, int bq)
{
    return (double)p->q->sizes[0] * (double)p->q->sizes[1] * (double)ceil_div(p->q->sizes[2], bq);
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
    return c->device->wgmma && head <= 256 && p->scale > 0 && is_reached(p->q) && is_reached(p->k) &&
           is_reached(p->v) && (head == 1 || p->out->strides[3] == 1) && tiles(p, 64) < 0x1p26;
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

static gems_kernel *kernel_for(gems_work *work, const gems_attention *p, int bq)
{
    static const char file[] = "kernels/attention/attention_wgmma.cl";
    const gems_dtype mask = p->mask ? p->mask->dtype : GEMS_DTYPE_COUNT;
    const int which = (int)ceil_div(p->q->sizes[3], 64) - 1, head = 64 * (which + 1), bk = of_head[which].bk;
    const kernel_id id = {file, p->q->dtype, mask, head, bq};
    gems_kernel *kernel = gems_work_find(work, &id, sizeof id);
    const gems_embedded_file *f = gems_embedded_find(file);
    if (kernel || !f)
        return kernel;
    char options[160];
    snprintf(options, sizeof options,
             "-DD=%s -DMD=%s -DHEAD=%d -DBQ=%d -DBK=%d -DHELD=%d -DSCORES=%d -DWORDS=%d -DSTAGES=%d%s",
             gems_dtypes[p->q->dtype].name, gems_dtypes[p->mask ? mask : p->q->dtype].name, head, bq, bk, head / 2,
             bk / 2, bk / 4, of_head[which].stages, p->mask ? " -DMASKED" : "");
    return gems_work_build(work, &id, sizeof id, &(gems_kernel_text){file, NULL, f->text, options, "attention"});
}

void gems_attention_wgmma(const gems_choice *c)
{
    const gems_attention *p = c->problem;
    const int bq = queries_of_tile(c);
    const double all = tiles(p, bq), units = c->device->compute_units;
    const size_t groups = (size_t)(all < units ? all : units); /* each makes one tile after another */
    const size_t local[3] = {(size_t)(128 * (bq / 64 + 1)), 1, 1}, global[3] = {groups * local[0], 1, 1};
    const int32_t batches = (int32_t)p->q->sizes[0], heads = (int32_t)p->q->sizes[1];
    const gems_arg more[] = {GEMS_SCRATCH(gems_work_scratch(c->work, groups * 3 * 128)), /* three maps each */
                             GEMS_VALUE(batches), GEMS_VALUE(heads)};
    gems_attention_launch(c->work, kernel_for(c->work, p, bq), p, bq, global, local, more, 3);
}
