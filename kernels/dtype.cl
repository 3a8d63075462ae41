/* For kernels of one dtype D: its types, and what loads and stores it. */
#ifndef GEMS_DTYPE_CL
#define GEMS_DTYPE_CL

#include "kernels/types.cl"

#define MEM GEMS_CAT(mem_, D)
#define NUM GEMS_CAT(num_, D)
#define NUM16 GEMS_CAT(num16_, D)
#define LOAD GEMS_CAT(load_, D)
#define LOAD16 GEMS_CAT(load16_, D)
#define STORE GEMS_CAT(store_, D)
#define STORE16 GEMS_CAT(store16_, D)

#endif
