/* What indices send to places, where several may go to the same one: index_add, scatter and their kind. A
 * source is a row of elements that go to one destination; destinations are counted from 0.
 *
 * put            the last source that goes to a place is stored: of those each destination's largest number is found by
 *                atomic maxima, which are the same in any order
 * add, multiply  sources are sorted by destination, those of one stay in their order (sort.h), and one work-item an
 *                element goes through them, so that bits depend on nothing else */
#ifndef GEMS_SCATTER_H
#define GEMS_SCATTER_H

#include "kernels/call.h"
#include "kernels/tensor/nest.h"
#include "kernels/work/launcher.h"

typedef enum gems_scatter_how {
    GEMS_SCATTER_PUT,
    GEMS_SCATTER_ADD,
    GEMS_SCATTER_MULTIPLY
} gems_scatter_how;

/* to[destination of source j][c] (=, +=, *=) from[j][c], for all sources j in order and columns c. */
typedef struct gems_scatter {
    gems_scatter_how how;
    const gems_tensor *to, *from;
    bool copied;              /* all of `to` was written by a launch of this work before */
    const gems_tensor *index; /* i32 or i64, all in [0, size) (gems_indices_check) */
    gems_nest at_index;       /* of sources */
    int64_t size, scale;      /* of the dimension that it selects from; destinations that a step there skips */
    gems_nest base;           /* of sources: what is added to the destination that the index leads to */
    int64_t sources, destinations, cols;
    gems_nest to_rows, to_cols, from_rows, from_cols; /* of destinations, columns, sources, columns */
    bool scaled;                                      /* what is added is multiplied by: */
    gems_element alpha;                               /* in the type computed in */
} gems_scatter;

/* Sources and destinations must be less than this. */
#define GEMS_SCATTER_MOST INT32_MAX

void gems_scatter_launch(gems_work *work, const gems_scatter *scatter);

extern const gems_variant gems_scatter_variants[];

#endif
