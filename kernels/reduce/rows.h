/* Rows along one dimension, for kernels of which the result has the shape of the input: softmax and scans. Their device
 * code has one entry for each of the variants here (rows.cl). */
#ifndef GEMS_ROWS_H
#define GEMS_ROWS_H

#include "kernels/tensor/nest.h"
#include "kernels/work/launcher.h"

enum {
    GEMS_ROWS_COLUMN, /* a work-item for neighbouring rows that lie side by side (CPU) */
    GEMS_ROWS_RUN,    /* for several rows in turn (CPU) */
    GEMS_ROWS_WIDE,   /* a few of a work-group for a row, 16 bytes at a time (GPU) */
    GEMS_ROWS_ITEM,   /* a work-item for one row (GPU) */
    GEMS_ROWS_GROUP   /* a work-group for one row (GPU) */
};

typedef struct gems_rows {
    const gems_tensor *in, *out; /* out: contiguous */
    gems_nest kept;
    int64_t rows, n, stride, inner;
    bool side_by_side; /* neighbouring rows lie side by side in the input */
} gems_rows;

/* Elements between two neighbours of a dimension where a tensor is contiguous: for GEMS_SIZE_INNER. */
int64_t gems_rows_inner(const gems_tensor *in, int dim);
/* Makes the result, of dtype `out`, and fills *rows from the call's first argument and its sizes. */
gems_status gems_rows_prepare(gems_call *call, int dim, gems_dtype out, gems_rows *rows);
/* Of choices whose problem begins with gems_rows, and whose variants stand in the order above. */

/* Work-items in all and in a group. */
void gems_rows_items(const gems_choice *choice, size_t *global, size_t *local);
/* Whether the kernel may read and write with stride 1 alone. */
bool gems_rows_dense(const gems_choice *choice);
bool gems_rows_can_column(const gems_choice *choice);
bool gems_rows_can_wide(const gems_choice *choice);

#endif
