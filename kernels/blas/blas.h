/* What the files of the matrix products share; of other folders only kernels/conv includes this.
 *
 * Every operator of the family becomes one problem, C = alpha A B + beta D, maybe batched: vectors are matrices of one
 * row or column, a transposed operand is one with other strides. blas.c makes the problem, gemm.c runs it, clblast.c
 * gives it to CLBlast. */
#ifndef GEMS_BLAS_H
#define GEMS_BLAS_H

#include "kernels/work/launcher.h"

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

/* The same numbers with C, A, B transposed: C^T = B^T A^T. */
gems_product gems_blas_transposed(const gems_product *product);

/* gemm.c: "vector" (few rows, or few columns), "cpu" (blocks in registers; packs), "few", "wgmma", "split" and "mma"
 * (NVIDIA's tensor cores), "gpu" (blocks in local memory), and "clblast" (that library's, f32 and f64; what it cannot
 * do is left to the others). Their problem is a gems_product whose matrices all have tensors. */
extern const gems_variant gems_blas_variants[];
/* Writes the launch of the variant that suits this product, CLBlast aside. */
void gems_blas_own(const gems_choice *choice, const gems_product *product);

enum {
    GEMS_BLAS_NUMBERS = 8,
    GEMS_BLAS_ARGS = 40
};
/* Kernel `entry` of an embedded file for a product's dtype; `options`, with up to so many numbers, goes on those of
 * all. */
gems_kernel *gems_blas_kernel(gems_work *work, const gems_product *p, const char *file, const char *entry,
                              const char *options, const int number[GEMS_BLAS_NUMBERS]);
/* The arguments with which every kernel begins, A, B, C, D; their number. C is read too if it is D. */
int gems_blas_matrices(const gems_product *p, gems_arg *arg);
/* Launches it over n arguments of GEMS_BLAS_ARGS, sizes, and what every kernel here ends with: strides, alpha and beta
 * in the kernel's type, and whether D is read. */
void gems_blas_enqueue(gems_work *work, gems_kernel *kernel, const gems_product *p, gems_arg *arg, int n,
                       const int32_t *size, int nsizes, const size_t global[3], const size_t local[3]);
/* The product with rows of C whose elements are neighbours, where it has them. */
gems_product gems_blas_row_major(const gems_product *p);
/* Whether its elements are neighbours along `one`, and the others begin at multiples of 16 bytes (8 of 16 bits each).
 */
bool gems_blas_is_aligned(const gems_matrix *x, int64_t one, int64_t other);
/* Whether A and B are, in one way or the other. */
bool gems_blas_are_aligned(const gems_product *p);
/* f32's parts (parts.cl): scratches, and elements of a line there. */
typedef struct gems_blas_parts {
    int a, b;
    int32_t pitch;
} gems_blas_parts;
/* Blocks in local memory, on any device; with parts: only what they are refused for. */
void gems_blas_gpu(const gems_choice *choice, const gems_blas_parts *parts);

/* C from sums of parts of k, over n arguments of which the last are those sums (gemv.cl). */
void gems_blas_sum(const gems_choice *choice, const gems_product *p, gems_arg *arg, int n, int64_t parts);

/* wgmma.c: tensor cores of compute capability 9.0; of f32 by three products of f16. */
bool gems_blas_can_wgmma(const gems_choice *choice);
bool gems_blas_suits_wgmma(const gems_choice *choice);
void gems_blas_wgmma(const gems_choice *choice);
bool gems_blas_can_few(const gems_choice *choice);
bool gems_blas_suits_few(const gems_choice *choice);
void gems_blas_few(const gems_choice *choice);
bool gems_blas_can_split(const gems_choice *choice);
bool gems_blas_suits_split(const gems_choice *choice);
void gems_blas_split(const gems_choice *choice);

/* clblast.c: writes the launch of a product by CLBlast; NULL, or why it cannot (then nothing is written). */
const char *gems_blas_clblast(const gems_choice *choice);

/* library.c: CLBlast itself. */

typedef enum gems_clblast_routine {
    GEMS_CLBLAST_GEMM,    /* C = alpha A B + beta C */
    GEMS_CLBLAST_BATCHED, /* the same for p->batch matrices */
    GEMS_CLBLAST_GEMV,    /* B and C are vectors (n is 1). beta 0: C must hold no NaN, which would spread */
    GEMS_CLBLAST_DOT      /* A, B vectors of k elements, C one element; no alpha and beta */
} gems_clblast_routine;
#define GEMS_CLBLAST_ROUTINES 4

/* A row-major matrix with a leading dimension, or, `transposed`, its transpose; a vector with elements `lead` apart.
 * Matrices of a batch are `batch` elements apart. */
typedef struct gems_clblast_matrix {
    size_t lead, batch;
    size_t span; /* bytes from its first element to its last */
    bool transposed;
} gems_clblast_matrix;

typedef struct gems_clblast_product {
    gems_clblast_routine routine;
    bool wide;                /* f64, not f32 */
    size_t m, n, k, batch;    /* A is m x k, B k x n, C m x n; none 0 */
    gems_clblast_matrix a, b; /* read */
    gems_clblast_matrix c;    /* written, and read if beta is not 0; never transposed */
    double alpha, beta;
} gems_clblast_product;

/* Why CLBlast cannot be asked for this (not installed, failed before, ...), or NULL. Loads it at the first call. */
const char *gems_clblast_refuses(gems_clblast_routine routine, gems_dtype dtype);
/* Runs a product, places are A, B and C: for gems_launch_library. Results are as exact as a sum in the dtype is. The
 * first call of a routine takes seconds. */
gems_library gems_clblast_run;

#endif
