/* A stable sort of numbered keys, on the device: by four bits at a time, from the lowest on. Each pass reads keys and
 * numbers, twice the keys, and writes both. */
#ifndef GEMS_SORT_H
#define GEMS_SORT_H

#include "kernels/work/launcher.h"

/* Scratch of n uint each. */
typedef struct gems_sorted {
    int keys, numbers;
} gems_sorted;

/* Keys, n of them in scratch `keys` and all below `end`, in order, each with its number from 0 on; keys that are equal
 * in the order of their numbers. `keys` itself may be overwritten. */
gems_sorted gems_sort_launch(gems_work *work, int keys, int64_t n, int64_t end);

#endif
