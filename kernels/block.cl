/* A block of a product in registers, for GPUs: a group of GX x GY work-items makes TM x TN sums, each of them TM / GY x
 * TN / GX: four neighbours, then four neighbours 4 GY (4 GX) further on, and so on, so that local memory is read in vectors
 * of four without bank conflicts. With FLUSH the sums go to a second set every FLUSH terms, so that the rounding error of
 * long sums grows as in a blocked BLAS. tx, ty: the work-item's place.
 *
 * Given: D the dtype, TM a multiple of 4 GY, TN of 4 GX, TK; MAD(x, y, z). */
#ifndef GEMS_BLOCK_CL
#define GEMS_BLOCK_CL

#include "kernels/dtype.cl"
#include "kernels/unroll.cl"

#define GROUP (GX * GY)
#define PM (TM / GY) /* rows of a work-item */
#define PN (TN / GX) /* columns */
#define ROW(x) ((x) / 4 * 4 * GY + 4 * ty + (x) % 4)
#define COL(y) ((y) / 4 * 4 * GX + 4 * tx + (y) % 4)

#define BLOCK_ZERO(sums)                                                                                               \
    NUM sums[PM][PN];                                                                                                  \
    UNROLL for (int x = 0; x < PM; x++)                                                                                \
        UNROLL for (int y = 0; y < PN; y++) sums[x][y] = 0;

/* The sums, 0 at first; in the end sum x, y is BLOCK_SUM. */
#ifdef FLUSH
#define BLOCK_SUMS                                                                                                     \
    BLOCK_ZERO(acc)                                                                                                    \
    BLOCK_ZERO(flushed)
#define BLOCK_SUM(x, y) (acc[x][y] + flushed[x][y])
#define BLOCK_FLUSH(terms)                                                                                             \
    if ((terms) % FLUSH == 0)                                                                                          \
        UNROLL for (int i = 0; i < PM; i++)                                                                            \
            UNROLL for (int j = 0; j < PN; j++) flushed[i][j] += acc[i][j], acc[i][j] = 0;
#else
#define BLOCK_SUMS      BLOCK_ZERO(acc)
#define BLOCK_SUM(x, y) acc[x][y]
#define BLOCK_FLUSH(terms)
#endif

/* Adds TK terms from local memory: rows[TK][at least TM], cols[TK][at least TN]. `terms`: how many there are then. */
#define BLOCK_ADD(rows, cols, terms)                                                                                   \
    UNROLL for (int p = 0; p < TK; p++)                                                                                \
    {                                                                                                                  \
        NUM x_[PM], y_[PN];                                                                                            \
        UNROLL for (int i = 0; i < PM; i += 4) vstore4(vload4(0, &rows[p][ROW(i)]), 0, x_ + i);                        \
        UNROLL for (int j = 0; j < PN; j += 4) vstore4(vload4(0, &cols[p][COL(j)]), 0, y_ + j);                        \
        UNROLL for (int i = 0; i < PM; i++)                                                                            \
            UNROLL for (int j = 0; j < PN; j++) acc[i][j] = MAD(x_[i], y_[j], acc[i][j]);                              \
    }                                                                                                                  \
    BLOCK_FLUSH(terms)

#endif
