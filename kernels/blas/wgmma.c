/* Products on the tensor cores of NVIDIA's compute capability 9.0: "wgmma" of bf16 and f16, "split" of f32. */
#include "kernels/blas/blas.h"
#include "tune/table.h"

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Blocks of C: as many stages as local memory holds beside C's chunks; arithmetic in them, measured on an H200 and
 * relative to the largest. */
typedef struct block {
    int tm, tn, stages;
    double rate;
} block;
static const block blocks[] = {{128, 256, 4, 1}, {128, 192, 4, .97}, {128, 128, 6, .88}, {64, 128, 8, .7}, {64, 64, 8, .5}};
enum {
    BLOCKS = sizeof blocks / sizeof *blocks
};

/* The block with which all are made soonest, where the last wave may leave multiprocessors idle; or what the rule says. */
static block block_for(const gems_choice *c, const gems_product *p, int most_tn)
{
    const block *best = NULL;
    double least = 0;
    int64_t tm = gems_rule_param(c->call->rule, "tm", 0), tn = gems_rule_param(c->call->rule, "tn", 0);
    for (const block *b = blocks; b < blocks + BLOCKS; b++) {
        if (b->tn > most_tn || (tm && b->tm != tm) || (tn && b->tn != tn))
            continue;
        int64_t tiles = p->batch * ceil_div(p->m, b->tm) * ceil_div(p->n, b->tn);
        double time = (double)(ceil_div(tiles, c->device->compute_units) * b->tm * b->tn) / b->rate;
        if (!best || time < least)
            best = b, least = time;
    }
    return best ? *best : blocks[2];
}

/* A group for each block, or where there are many of them one for each multiprocessor. */
static size_t groups_for(const gems_choice *c, const gems_product *p, const block *b)
{
    int64_t tiles = ceil_div(p->m, b->tm) * ceil_div(p->n, b->tn), units = c->device->compute_units;
    int64_t most = ceil_div(units, p->batch);
    return (size_t)(tiles < most || tiles * p->batch <= 2 * units ? tiles : most);
}

/* C = A B over `arg`: n arguments; lines: of parts (a scratch), or -1. */
static void launch(const gems_choice *c, const gems_product *p, const block *b, gems_arg *arg, int n, int lines)
{
    const bool along_m = !gems_blas_is_aligned(&p->a, p->a.col, p->a.row),
               along_n = !gems_blas_is_aligned(&p->b, p->b.row, p->b.col);
    const int number[GEMS_BLAS_NUMBERS] = {b->tm, b->tn, b->tn / 2, b->stages, lines < 0 && along_m, lines < 0 && along_n};
    static const char options[] = "-DTM=%d -DTN=%d -DHELD=%d -DSTAGES=%d -DA_ALONG_M=%d -DB_ALONG_N=%d",
                      split[] = "-DTM=%d -DTN=%d -DHELD=%d -DSTAGES=%d -DA_ALONG_M=%d -DB_ALONG_N=%d -DSPLIT";
    gems_kernel *kernel =
        gems_blas_kernel(c->work, p, "kernels/blas/gemm_wgmma.cl", "gemm", lines < 0 ? options : split, number);
    const size_t groups = groups_for(c, p, b), local[3] = {(size_t)(128 * (b->tm / 64 + 1)), 1, 1};
    const size_t global[3] = {groups * local[0], 1, (size_t)p->batch};
    arg[n++] = GEMS_SCRATCH(gems_work_scratch(c->work, groups * (size_t)p->batch * 256)); /* two maps each */
    if (lines >= 0)
        arg[n++] = GEMS_SCRATCH(lines);
    const int32_t size[3] = {(int32_t)p->m, (int32_t)p->n, (int32_t)p->k};
    gems_blas_enqueue(c->work, kernel, p, arg, n, size, 3, global, local);
}

/* Whether the copy engine can step over its rows: they do not lie in each other. */
static bool has_rows(int64_t along_row, int64_t across, int64_t rows)
{
    return rows == 1 || across >= along_row;
}

static bool engine_reaches(const gems_product *p)
{
    const bool along_m = !gems_blas_is_aligned(&p->a, p->a.col, p->a.row),
               along_n = !gems_blas_is_aligned(&p->b, p->b.row, p->b.col);
    return (along_m ? has_rows(p->m, p->a.col, p->k) : has_rows(p->k, p->a.row, p->m)) &&
           (along_n ? has_rows(p->n, p->b.row, p->k) : has_rows(p->k, p->b.col, p->n));
}

bool gems_blas_can_wgmma(const gems_choice *c)
{
    const gems_product p = gems_blas_row_major(c->problem);
    return c->device->wgmma && gems_blas_are_aligned(&p) && engine_reaches(&p) && (p.c.col == 1 || p.n == 1) && p.k > 0;
}

/* What is smaller is made sooner without the work of setting all this up. */
static bool is_large(const gems_product *p, double least)
{
    return p->m >= 64 && p->n >= 64 && p->k >= 256 && (double)p->batch * (double)p->m * (double)p->n * (double)p->k >= least;
}

bool gems_blas_suits_wgmma(const gems_choice *c)
{
    return is_large(c->problem, 0x1p24) && gems_blas_can_wgmma(c);
}

void gems_blas_wgmma(const gems_choice *c)
{
    const gems_product p = gems_blas_row_major(c->problem);
    const block b = block_for(c, &p, 256);
    gems_arg arg[GEMS_BLAS_ARGS];
    launch(c, &p, &b, arg, gems_blas_matrices(&p, arg), -1);
}

/* ---- f32 ---- */

enum {
    PITCH = 64, /* of a line of parts, a multiple of this */
    GROUP = 256,
    SLAB = 64, /* see split.cl */
    PIECE = 512
};

/* What is left over is computed again from D: it must still be there. */
bool gems_blas_can_split(const gems_choice *c)
{
    const gems_product p = gems_blas_row_major(c->problem);
    return c->device->wgmma && (p.c.col == 1 || p.n == 1) && p.k > 0 &&
           !(p.add && p.d.tensor->address == p.c.tensor->address);
}

bool gems_blas_suits_split(const gems_choice *c)
{
    return is_large(c->problem, 0x1p27) && gems_blas_can_split(c);
}

/* Makes A's rows, or B's columns, into parts; the scratch with them. */
static int split(const gems_choice *c, const gems_product *p, bool of_a, int64_t pitch, int lines)
{
    const gems_matrix *x = of_a ? &p->a : &p->b;
    const int64_t count = of_a ? p->m : p->n, across = of_a ? x->row : x->col, along = of_a ? x->col : x->row;
    const int64_t first = of_a ? 0 : p->m, apart = p->m + p->n;
    const int32_t n = (int32_t)count, k = (int32_t)p->k, wide = (int32_t)pitch;
    const int parts = gems_work_scratch(c->work, (size_t)(p->batch * count * pitch) * 4);
    const bool turn = along != 1 && across == 1;
    const int64_t pieces = ceil_div(p->k, PIECE);
    gems_arg arg[16] = {GEMS_IN(x->tensor), GEMS_SCRATCH(parts), GEMS_SCRATCH(lines), GEMS_VALUE(n), GEMS_VALUE(k),
                        GEMS_VALUE(wide), GEMS_VALUE(across), GEMS_VALUE(along), GEMS_VALUE(x->batch),
                        GEMS_VALUE(first), GEMS_VALUE(apart)};
    const size_t local[3] = {GROUP, 1, 1}, batch = (size_t)p->batch;
    static const int none[GEMS_BLAS_NUMBERS];
    static const char file[] = "kernels/blas/split.cl";
    if (!turn) {
        const size_t global[3] = {(size_t)count * GROUP, 1, batch};
        gems_launch(c->work, gems_blas_kernel(c->work, p, file, "split_along", "", none), 3, global, local, arg, 11);
        return parts;
    }
    arg[11] = GEMS_SCRATCH(gems_work_scratch(c->work, (size_t)(p->batch * pieces * count) * 4));
    const size_t slabs = (size_t)ceil_div(count, SLAB) * GROUP;
    const size_t looks[3] = {slabs, (size_t)pieces, batch}, turns[3] = {slabs, (size_t)(pitch / 64), batch};
    gems_launch(c->work, gems_blas_kernel(c->work, p, file, "largest", "", none), 3, looks, local, arg, 12);
    gems_launch(c->work, gems_blas_kernel(c->work, p, file, "split_across", "", none), 3, turns, local, arg, 12);
    return parts;
}

/* A and B in parts, their product, and what is not right by parts. */
void gems_blas_split(const gems_choice *c)
{
    gems_product p = gems_blas_row_major(c->problem);
    const gems_product whole = p;
    const int64_t pitch = ceil_div(p.k, PITCH) * PITCH;
    const int lines = gems_work_scratch(c->work, (size_t)(p.batch * (p.m + p.n)) * 16);
    const int a = split(c, &p, true, pitch, lines), b = split(c, &p, false, pitch, lines);
    gems_arg arg[GEMS_BLAS_ARGS];
    const int n = gems_blas_matrices(&p, arg);
    arg[0] = GEMS_SCRATCH(a), arg[1] = GEMS_SCRATCH(b);
    p.a.row = p.b.col = pitch, p.a.col = p.b.row = 1;
    p.a.batch = p.m * pitch, p.b.batch = p.n * pitch; /* of f32: two f16 */
    const block chosen = block_for(c, &p, 192);
    launch(c, &p, &chosen, arg, n, lines);
    gems_choice rest = *c;
    rest.problem = &whole;
    gems_blas_gpu(&rest, lines);
}
