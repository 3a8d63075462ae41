/* What the files of the matrix products share; no other folder includes this.
 *
 * Every operator of the family becomes one problem, C = alpha A B + beta D, maybe batched: vectors are matrices of one
 * row or column, a transposed operand is one with other strides. blas.c makes the problem, gemm.c runs it, clblast.c
 * gives it to CLBlast. */
#ifndef GEMS_BLAS_H
#define GEMS_BLAS_H

#include "kernels/device/device.h"
#include "tune/table.h"

/* How a tensor is read as a batch of matrices: strides in elements, 0 where it is broadcast. */
typedef struct gems_matrix {
    const gems_tensor *tensor;
    int64_t row, col, batch;
} gems_matrix;

typedef struct gems_product {
    gems_dtype dtype;       /* of A, B, C and D */
    int64_t m, n, k, batch; /* A is m x k, B k x n, C and D m x n */
    gems_matrix a, b, c, d;
    bool add;                    /* D is read: beta is not 0, so that NaN in an ignored D does not spread */
    double alpha, beta;          /* for floating point */
    int64_t int_alpha, int_beta; /* for integers */
} gems_product;

/* Launches the kernels of a product whose matrices all have tensors, and waits. call->rule says which lane, variant and
 * parameters:
 *   lane     0 main, 1 small
 *   variant  "cpu" (blocks in registers; packs), "gpu" (blocks in local memory), "vector" (few rows, or few columns),
 *            "clblast" (f32 and f64 by that library; what it cannot do goes to the others)
 *   tm, tn   "gpu": block of C of a group, 64 or 128;  "cpu": most rows and columns of a work-item
 *   split    "vector": parts of k */
gems_status gems_blas_run(gems_call *call, const gems_product *product);

/* The same numbers with C, A, B turned: C^T = B^T A^T. */
gems_product gems_blas_transposed(const gems_product *product);
/* Launches our kernels for a product. */
void gems_blas_own(gems_job *job, const gems_rule *rule, const gems_product *product);
/* Queues a product for CLBlast; NULL, or why it was not (then nothing is queued). */
const char *gems_blas_clblast(gems_job *job, const gems_rule *rule, const gems_product *product);

#endif
