/* Products on the tensor cores of NVIDIA's compute capability 9.0: "wgmma" and "few" (rows, or columns) of bf16 and
 * f16, "split" of f32. */
#include "kernels/blas/wgmma.h"
#include "tune/table.h"

#include <stddef.h>

_Static_assert(offsetof(gems_wgmma_images, place) + sizeof(int32_t) == sizeof(gems_wgmma_images),
               "bytes at the end that are no member");

const gems_wgmma_block gems_wgmma_blocks[GEMS_WGMMA_BLOCKS] = {
    {128, 256, 4, 1, false}, {128, 192, 4, .97, false}, {128, 128, 6, .88, false}, {64, 256, 5, .8, true},
    {64, 192, 6, .75, true}, {64, 128, 8, .7, false},   {128, 64, 8, .65, true},   {64, 64, 8, .5, false}};

bool gems_wgmma_is_allowed(const gems_choice *c, const gems_wgmma_block *b, int most_tn)
{
    const int64_t tm = gems_rule_param(c->call->rule, "tm", 0), tn = gems_rule_param(c->call->rule, "tn", 0);
    return b->tn <= most_tn && (!tm || b->tm == tm) && (!tn || b->tn == tn);
}

double gems_wgmma_time(const gems_choice *c, const gems_wgmma_block *b, int64_t tiles)
{
    return (double)(gems_ceil_div(tiles, c->device->compute_units) * b->tm * b->tn) / b->rate;
}

static int64_t tiles_of(const gems_product *p, const gems_wgmma_block *b)
{
    return p->batch * gems_ceil_div(p->m, b->tm) * gems_ceil_div(p->n, b->tn);
}

gems_wgmma_block gems_wgmma_block_for(const gems_choice *c, const gems_product *p, int most_tn, bool narrow)
{
    const gems_wgmma_block *best = NULL;
    double least = 0;
    for (const gems_wgmma_block *b = gems_wgmma_blocks; b < gems_wgmma_blocks + GEMS_WGMMA_BLOCKS; b++) {
        const double time = gems_wgmma_time(c, b, tiles_of(p, b));
        if ((narrow || !b->narrow) && gems_wgmma_is_allowed(c, b, most_tn) && (!best || time < least))
            best = b, least = time;
    }
    return best ? *best : gems_wgmma_blocks[GEMS_WGMMA_OTHERWISE];
}

/* Whether the copy engine can bring it, row by row: they do not lie in each other. */
static bool comes_in_rows(const gems_matrix *x, int64_t one, int64_t other, int64_t length, int64_t rows)
{
    return gems_blas_is_aligned(x, one, other) && (rows == 1 || other >= length);
}
static bool a_along_k(const gems_product *p)
{
    return comes_in_rows(&p->a, p->a.col, p->a.row, p->k, p->m);
}
static bool a_along_m(const gems_product *p)
{
    return comes_in_rows(&p->a, p->a.row, p->a.col, p->m, p->k);
}
static bool b_along_k(const gems_product *p)
{
    return comes_in_rows(&p->b, p->b.row, p->b.col, p->k, p->n);
}
static bool b_along_n(const gems_product *p)
{
    return comes_in_rows(&p->b, p->b.col, p->b.row, p->n, p->k);
}
static bool engine_reaches(const gems_product *p)
{
    return (a_along_k(p) || a_along_m(p)) && (b_along_k(p) || b_along_n(p));
}

static gems_wgmma_how as_it_is(const gems_product *p)
{
    return (gems_wgmma_how){.a = -1,
                            .b = -1,
                            .parts = -1,
                            .along_m = !a_along_k(p),
                            .along_n = !b_along_k(p),
                            .nparts = 1,
                            .part = INT32_MAX};
}

enum {
    LOCAL_BYTES = 226 << 10 /* of 227 that a group may have: the compiler takes one */
};

/* As many as fit beside C's chunks, what is noted of pixels, and barriers. */
static int stages_of(const gems_wgmma_block *b, const gems_wgmma_how *e)
{
    const int groups = b->tm / 64, pixels[] = {0, 64, b->tn}, notes = groups * pixels[e->pixels] * (e->split ? 8 : 4);
    int n = b->stages;
    while (n > 2 && n * ((b->tm + b->tn) * 128 + 16) + groups * 16384 + notes > LOCAL_BYTES)
        n--;
    return n;
}

void gems_wgmma_launch(const gems_choice *c, const gems_product *p, const gems_wgmma_block *b, const gems_wgmma_how *e)
{
#define OPTIONS "-DTM=%d -DTN=%d -DHELD=%d -DSTAGES=%d -DA_ALONG_M=%d -DB_ALONG_N=%d -DIMAGES=%d"
    const bool is_few = e->parts >= 0;
    const char *options = e->split ? OPTIONS " -DSPLIT" : is_few ? OPTIONS " -DFEW" : OPTIONS;
    const int number[GEMS_BLAS_NUMBERS] = {b->tm,      b->tn,      b->tn / 2,      stages_of(b, e),
                                           e->along_m, e->along_n, (int)e->pixels, is_few};
    gems_kernel *kernel = gems_blas_kernel(c->work, p, "kernels/blas/gemm_wgmma.cl", "gemm", options, number);
    const int64_t tiles = tiles_of(p, b), units = c->device->compute_units;
    const size_t groups = (size_t)(tiles < units || is_few ? tiles : units); /* each makes one tile after another */
    const size_t local[3] = {(size_t)(128 * (b->tm / 64 + 1)), 1, 1};
    const size_t global[3] = {groups * local[0], (size_t)e->nparts, 1};
    gems_arg arg[GEMS_BLAS_ARGS];
    int n = gems_blas_matrices(p, arg);
    if (e->a >= 0)
        arg[0] = GEMS_SCRATCH(e->a);
    if (e->b >= 0)
        arg[1] = GEMS_SCRATCH(e->b);
    arg[n++] = GEMS_SCRATCH(gems_work_scratch(c->work, groups * (size_t)e->nparts * 256)); /* two maps each */
    if (is_few)
        arg[n++] = GEMS_SCRATCH(e->parts);
    if (e->pixels)
        arg[n++] = GEMS_VALUE(*e->images);
    const int32_t size[5] = {(int32_t)p->m, (int32_t)p->n, (int32_t)p->k, (int32_t)p->batch, (int32_t)e->part};
    gems_blas_enqueue(c->work, kernel, p, arg, n, size, 5, global, local);
}

/* Their number is an int, of the smallest. */
static bool tiles_are_few(const gems_product *p)
{
    return (double)p->batch * (double)gems_ceil_div(p->m, 64) * (double)gems_ceil_div(p->n, 64) < 0x1p30;
}

bool gems_blas_can_wgmma(const gems_choice *c)
{
    const gems_product p = gems_blas_row_major(c->problem);
    return tiles_are_few(&p) && (p.c.col == 1 || p.n == 1) && p.k > 0;
}

/* What is smaller is made sooner without the work of setting all this up. */
static bool is_large(const gems_product *p, double least)
{
    return p->m >= 64 && p->n >= 64 && p->k >= 64 &&
           (double)p->batch * (double)p->m * (double)p->n * (double)p->k >= least;
}

bool gems_blas_suits_wgmma(const gems_choice *c)
{
    const gems_product p = gems_blas_row_major(c->problem);
    return is_large(&p, engine_reaches(&p) ? 0x1p24 : 0x1p27) && gems_blas_can_wgmma(c);
}

/* A copy of A, or B, that the engine reaches, and how it lies. */
static int pad(const gems_choice *c, const gems_product *p, gems_matrix *x, int64_t rows, int64_t columns)
{
    const bool turned = x->col != 1 && x->row == 1; /* its columns are what is copied row by row */
    const int32_t high = (int32_t)(turned ? columns : rows), wide = (int32_t)(turned ? rows : columns);
    const int32_t pitch = (int32_t)gems_ceil_div(wide, 8) * 8;
    const int64_t row = turned ? x->col : x->row, column = turned ? x->row : x->col;
    const int copy = gems_work_scratch(c->work, (size_t)(p->batch * high) * (size_t)pitch * 2);
    const gems_arg arg[] = {GEMS_IN(x->tensor), GEMS_SCRATCH(copy), GEMS_VALUE(high),   GEMS_VALUE(wide),
                            GEMS_VALUE(pitch),  GEMS_VALUE(row),    GEMS_VALUE(column), GEMS_VALUE(x->batch)};
    static const int none[GEMS_BLAS_NUMBERS];
    const size_t local[3] = {128, 1, 1};
    const size_t global[3] = {(size_t)gems_ceil_div(pitch, 256) * 128, (size_t)high, (size_t)p->batch};
    gems_launch(c->work, gems_blas_kernel(c->work, p, "kernels/blas/pad.cl", "pad", "", none), 3, global, local, arg,
                8);
    x->row = turned ? 1 : pitch, x->col = turned ? pitch : 1, x->batch = (int64_t)high * pitch;
    return copy;
}

void gems_blas_wgmma(const gems_choice *c)
{
    gems_product p = gems_blas_row_major(c->problem);
    const gems_wgmma_block b = gems_wgmma_block_for(c, &p, 256, false);
    gems_wgmma_how e = as_it_is(&p);
    const gems_product given = p;
    if (!a_along_k(&given) && !a_along_m(&given)) {
        e.a = pad(c, &given, &p.a, p.m, p.k);
        e.along_m = p.a.col != 1;
    }
    if (!b_along_k(&given) && !b_along_n(&given)) {
        e.b = pad(c, &given, &p.b, p.k, p.n);
        e.along_n = p.b.col == 1;
    }
    gems_wgmma_launch(c, &p, &b, &e);
}

/* ---- few rows, or few columns ---- */

enum {
    FEW = 64,        /* at most */
    LEAST_BLOCKS = 4 /* of 64 along k, of a part */
};

/* With the few as columns. */
static gems_product few_columns(const gems_product *p)
{
    return p->m < p->n ? gems_blas_transposed(p) : *p;
}

bool gems_blas_can_few(const gems_choice *c)
{
    const gems_product p = few_columns(c->problem);
    return p.n <= FEW && engine_reaches(&p) && tiles_are_few(&p) && p.k > 0;
}

bool gems_blas_suits_few(const gems_choice *c)
{
    const gems_product p = few_columns(c->problem);
    return p.m >= 256 && p.k >= 512 && (double)p.m * (double)p.k >= 0x1p20 && gems_blas_can_few(c);
}

void gems_blas_few(const gems_choice *c)
{
    const gems_product p = few_columns(c->problem);
    gems_wgmma_how e = as_it_is(&p);
    const gems_wgmma_block b = {64, e.along_n || p.n > 32 ? 64 : p.n > 16 ? 32 : p.n > 8 ? 16 : 8, 8, 1};
    const int64_t blocks_of_k = gems_ceil_div(p.k, 64), tiles = p.batch * gems_ceil_div(p.m, 64);
    int64_t wanted = gems_ceil_div(2 * (int64_t)c->device->compute_units, tiles),
            most = gems_ceil_div(blocks_of_k, LEAST_BLOCKS);
    wanted = gems_rule_param(c->call->rule, "split", wanted < most ? wanted : most);
    e.part = gems_ceil_div(blocks_of_k, wanted < 1 ? 1 : wanted);
    e.nparts = gems_ceil_div(blocks_of_k, e.part);
    e.parts = gems_work_scratch(c->work, (size_t)(e.nparts * p.batch * p.m * p.n) * 4);
    gems_wgmma_launch(c, &p, &b, &e);
    gems_arg arg[GEMS_BLAS_ARGS];
    int n = gems_blas_matrices(&p, arg);
    arg[n++] = GEMS_SCRATCH(e.parts);
    gems_blas_sum(c, &p, arg, n, e.nparts);
}

/* ---- f32 ---- */

enum { /* see split.cl */
    GROUP = 256,
    WIDE = 64,
    PIECE = 512,
    SLAB = 16,
    MANY = 1 << 21 /* elements of an operand whose lines are not read by one group each */
};

/* What is left over is computed again from D: it must still be there. */
bool gems_blas_can_split(const gems_choice *c)
{
    const gems_product p = gems_blas_row_major(c->problem);
    return tiles_are_few(&p) && (p.c.col == 1 || p.n == 1) && p.k > 0 &&
           !(p.add && p.d.tensor->address == p.c.tensor->address);
}

bool gems_blas_suits_split(const gems_choice *c)
{
    return is_large(c->problem, 0x1p27) && gems_blas_can_split(c);
}

/* An operand to be split: A's rows, or B's columns. */
typedef struct source {
    const gems_tensor *tensor;
    int32_t count;
    int64_t across, along, batch;
    int parts;    /* the scratch that they go to */
    bool stays;   /* they may be there from an earlier product */
    bool is_many; /* lines beside each other, too many to be read by one group each */
} source;

static source source_of(const gems_choice *c, const gems_product *p, bool of_a, int64_t pitch)
{
    const gems_matrix *m = of_a ? &p->a : &p->b;
    source x = {
        m->tensor, (int32_t)(of_a ? p->m : p->n), of_a ? m->row : m->col, of_a ? m->col : m->row, m->batch, -1, false,
        false};
    const size_t bytes = (size_t)(p->batch * x.count) * ((size_t)pitch * 4 + 16);
    const int64_t key[GEMS_WORK_KEY] = {x.count, p->k, x.across, x.along, x.batch, p->batch};
    x.stays = gems_work_may_keep(m->tensor);
    x.parts = x.stays ? gems_work_scratch_of(c->work, m->tensor, bytes, key) : gems_work_scratch(c->work, bytes);
    x.is_many = x.across == 1 && x.along != 1 && x.count * p->k > MANY;
    return x;
}

static int put_source(gems_arg *arg, int n, const source *x)
{
    arg[n++] = GEMS_IN(x->tensor);
    arg[n++] = GEMS_SCRATCH(x->parts);
    arg[n++] = GEMS_VALUE(x->count);
    arg[n++] = GEMS_VALUE(x->across);
    arg[n++] = GEMS_VALUE(x->along);
    arg[n++] = GEMS_VALUE(x->batch);
    return n;
}

static gems_kernel *split_kernel(const gems_choice *c, const gems_product *p, const char *entry)
{
    static const int none[GEMS_BLAS_NUMBERS];
    return gems_blas_kernel(c->work, p, "kernels/blas/split.cl", entry, "", none);
}

static const size_t group[3] = {GROUP, 1, 1};

static void split_many(const gems_choice *c, const gems_product *p, const source *x, int32_t pitch)
{
    const int32_t k = (int32_t)p->k;
    const int64_t pieces = gems_ceil_div(p->k, PIECE);
    gems_arg arg[GEMS_BLAS_ARGS];
    int n = put_source(arg, 0, x);
    arg[n++] = GEMS_VALUE(k);
    arg[n++] = GEMS_VALUE(pitch);
    arg[n++] = GEMS_SCRATCH(gems_work_scratch(c->work, (size_t)(p->batch * pieces * x->count) * 4));
    const size_t slabs = (size_t)gems_ceil_div(x->count, 64) * GROUP, batch = (size_t)p->batch;
    const size_t looks[3] = {slabs, (size_t)pieces, batch}, turns[3] = {slabs, (size_t)(pitch / WIDE), batch};
    gems_launch(c->work, split_kernel(c, p, "largest"), 3, looks, group, arg, n);
    gems_work_makes(c->work, x->parts);
    gems_launch(c->work, split_kernel(c, p, "split_blocks"), 3, turns, group, arg, n);
    gems_work_makes(c->work, x->parts);
}

/* One of them, or both (b not NULL) by one launch. */
static void split_few(const gems_choice *c, const gems_product *p, const source *a, const source *b, int32_t pitch)
{
    int32_t groups[2] = {0}, k = (int32_t)p->k;
    for (int i = 0; i < 2; i++) {
        const source *x = i ? b : a;
        groups[i] = !x ? 0 : x->across == 1 && x->along != 1 ? (int32_t)gems_ceil_div(x->count, SLAB) : x->count;
    }
    gems_arg arg[GEMS_BLAS_ARGS];
    int n = put_source(arg, put_source(arg, 0, a), b ? b : a);
    arg[n++] = GEMS_VALUE(k);
    arg[n++] = GEMS_VALUE(pitch);
    arg[n++] = GEMS_VALUE(groups[0]);
    const size_t global[3] = {(size_t)(groups[0] + groups[1]) * GROUP, 1, (size_t)p->batch};
    gems_launch(c->work, split_kernel(c, p, "split"), 3, global, group, arg, n);
    if (!b)
        gems_work_makes(c->work, a->parts);
}

static void split_one(const gems_choice *c, const gems_product *p, const source *x, int32_t pitch)
{
    if (x->is_many)
        split_many(c, p, x, pitch);
    else
        split_few(c, p, x, NULL, pitch);
}

/* A and B in parts, their product, and what is not right by parts. */
void gems_blas_split(const gems_choice *c)
{
    gems_product p = gems_blas_row_major(c->problem);
    const gems_product whole = p;
    const int32_t pitch = (int32_t)gems_ceil_div(p.k, WIDE) * WIDE;
    const source a = source_of(c, &p, true, pitch), b = source_of(c, &p, false, pitch);
    if (a.is_many || b.is_many || a.stays || b.stays) {
        split_one(c, &p, &a, pitch);
        split_one(c, &p, &b, pitch);
    } else
        split_few(c, &p, &a, &b, pitch);
    const gems_wgmma_how e = {.a = a.parts, .b = b.parts, .parts = -1, .split = true, .nparts = 1, .part = INT32_MAX};
    p.a.row = p.b.col = pitch, p.a.col = p.b.row = 1;
    p.a.batch = p.m * pitch, p.b.batch = p.n * pitch; /* of f32: two f16 */
    const gems_wgmma_block chosen = gems_wgmma_block_for(c, &p, 192, false);
    gems_wgmma_launch(c, &p, &chosen, &e);
    gems_choice rest = *c;
    rest.problem = &whole;
    gems_blas_gpu(&rest, &(gems_blas_parts){a.parts, b.parts, pitch});
}
