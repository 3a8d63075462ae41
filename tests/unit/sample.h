/* How much of what is tested many times over is tested: nearly all of the time goes into building kernels for the first
 * time. GEMS_TEST_FULL=1: all of it. */
#ifndef GEMS_TEST_SAMPLE_H
#define GEMS_TEST_SAMPLE_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static inline bool is_full(void)
{
    const char *full = getenv("GEMS_TEST_FULL");
    return full && strcmp(full, "1") == 0;
}

/* The step of a loop of which every n-th round is a sample. */
static inline int one_in(int n)
{
    return is_full() ? 1 : n;
}

#endif
