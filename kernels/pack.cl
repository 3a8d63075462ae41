/* Copies a strided matrix of dtype D into local memory, in the arithmetic type and in rows of a given pitch: what
 * kernels do first that read a block many times on a CPU. D is the dtype. */
#ifndef GEMS_PACK_CL
#define GEMS_PACK_CL

#include "kernels/types.cl"

/* Turns 16 rows of 16 into 16 columns: four rounds of interleaving row i with row i + 8. */
#define GEMS_SHUFFLE(to, from)                                                                                         \
    _Pragma("unroll") for (int i = 0; i < 8; i++)                                                                      \
    {                                                                                                                  \
        to[2 * i].even = from[i].lo, to[2 * i].odd = from[i + 8].lo;                                                   \
        to[2 * i + 1].even = from[i].hi, to[2 * i + 1].odd = from[i + 8].hi;                                           \
    }

/* to[r * pitch + c] = from[r * row + c * col] for r < rows, c < cols; zero for the rest up to to_rows, to_cols. */
static inline void gems_pack(__local GEMS_CAT(num_, D) *to, int pitch, int to_rows, int to_cols, const __global GEMS_CAT(mem_, D) *from, long row,
                        long col, int rows, int cols)
{
    int done_r = 0, done_c = 0; /* the corner that vectors have copied */
    if (col == 1) {
        done_c = cols & ~15;
        done_r = done_c ? rows : 0;
        for (int r = 0; r < done_r; r++)
            for (int c = 0; c < done_c; c += 16)
                vstore16(GEMS_CAT(load16_, D)(from, r * row + c), 0, to + r * pitch + c);
    } else if (row == 1) {
        done_r = rows & ~15;
        done_c = done_r ? cols & ~15 : 0;
        for (int c = 0; c < done_c; c += 16)
            for (int r = 0; r < done_r; r += 16) {
                GEMS_CAT(num16_, D) x[16], y[16];
                _Pragma("unroll") for (int i = 0; i < 16; i++) x[i] = GEMS_CAT(load16_, D)(from, r + (c + i) * col);
                GEMS_SHUFFLE(y, x) GEMS_SHUFFLE(x, y) GEMS_SHUFFLE(y, x) GEMS_SHUFFLE(x, y)
                _Pragma("unroll") for (int i = 0; i < 16; i++) vstore16(x[i], 0, to + (r + i) * pitch + c);
            }
    }
    for (int r = 0; r < to_rows; r++)
        for (int c = r < done_r ? done_c : 0; c < to_cols; c++)
            to[r * pitch + c] = r < rows && c < cols ? GEMS_CAT(load_, D)(from, r * row + c * col) : (GEMS_CAT(num_, D))0;
}

#endif
