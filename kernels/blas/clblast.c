/* Products by CLBlast, for rules with "variant": "clblast": which routine serves, and whether the strides suit it. */
#include "kernels/blas/blas.h"

static size_t span_of(const gems_tensor *t)
{
    return (size_t)gems_tensor_span(t) * gems_dtypes[t->dtype].size;
}

/* Reads a rows x cols matrix for CLBlast: neighbours along a row, or along a column. False if it has neither, or
 * overlaps itself. */
static bool suits(gems_clblast_matrix *out, const gems_matrix *x, int64_t rows, int64_t cols)
{
    *out = (gems_clblast_matrix){.batch = (size_t)x->batch, .span = span_of(x->tensor)};
    if ((cols == 1 || x->col == 1) && (rows == 1 || x->row >= cols)) {
        out->lead = (size_t)(rows == 1 ? cols : x->row);
        return true;
    }
    out->transposed = true;
    out->lead = (size_t)(cols == 1 ? rows : x->col);
    return (rows == 1 || x->row == 1) && (cols == 1 || x->col >= rows);
}

static bool vector(gems_clblast_matrix *out, const gems_matrix *x, int64_t n, int64_t step)
{
    *out = (gems_clblast_matrix){.span = span_of(x->tensor), .lead = (size_t)(n == 1 ? 1 : step)};
    return out->lead > 0;
}

/* As CLBlast's operands; p->c.col is 1, or p->n. Chooses the narrowest routine. */
static const char *translate(const gems_product *p, gems_clblast_product *out)
{
    *out = (gems_clblast_product){.wide = p->dtype == GEMS_F64,
                                  .m = (size_t)p->m,
                                  .n = (size_t)p->n,
                                  .k = (size_t)p->k,
                                  .batch = (size_t)p->batch,
                                  .alpha = p->alpha};
    bool ok;
    if (p->batch == 1 && p->m == 1 && p->n == 1 && p->alpha == 1 && !p->add) {
        out->routine = GEMS_CLBLAST_DOT;
        ok = vector(&out->a, &p->a, p->k, p->a.col) && vector(&out->b, &p->b, p->k, p->b.row) &&
             vector(&out->c, &p->c, 1, 1);
    } else if (p->batch == 1 && p->n == 1) {
        out->routine = GEMS_CLBLAST_GEMV;
        ok = suits(&out->a, &p->a, p->m, p->k) && vector(&out->b, &p->b, p->k, p->b.row) &&
             vector(&out->c, &p->c, p->m, p->c.row);
    } else {
        out->routine = p->batch == 1 ? GEMS_CLBLAST_GEMM : GEMS_CLBLAST_BATCHED;
        ok = suits(&out->a, &p->a, p->m, p->k) && suits(&out->b, &p->b, p->k, p->n) &&
             suits(&out->c, &p->c, p->m, p->n) && !out->c.transposed;
    }
    return ok ? NULL : "strides that CLBlast does not take";
}

const char *gems_blas_clblast(const gems_choice *choice)
{
    gems_clblast_product out;
    gems_product p = *(const gems_product *)choice->problem;
    if (p.k == 0)
        return "nothing to sum";
    if (gems_dtypes[p.dtype].category != GEMS_CAT_FLOAT)
        return "CLBlast has no integers";
    /* C's rows must be rows; a vector is a column. */
    if (p.n == 1 ? false : p.m == 1 ? p.batch == 1 : p.c.col != 1)
        p = gems_blas_transposed(&p);
    const char *why = translate(&p, &out);
    if (!why)
        why = gems_clblast_refuses(out.routine, p.dtype);
    if (why)
        return why;

    bool same = p.add && p.d.tensor->address == p.c.tensor->address;
    if (same)
        out.beta = p.beta;
    else if (p.add || out.routine == GEMS_CLBLAST_GEMV) {
        /* C = beta D, or 0, by our kernel for a sum of nothing. */
        gems_product addend = p;
        addend.k = 0;
        gems_blas_own(choice, &addend);
        out.beta = 1;
    }
    gems_arg args[] = {GEMS_IN(p.a.tensor), GEMS_IN(p.b.tensor),
                       out.beta != 0 ? GEMS_INOUT(p.c.tensor) : GEMS_OUT_ARG(p.c.tensor)};
    gems_launch_library(choice->work, gems_clblast_run, &out, sizeof out, args, 3);
    return NULL;
}
