/* For kernels whose arrays belong in registers. Where a CPU runs them the compiler may take its time elsewhere. */
#ifndef GEMS_UNROLL_CL
#define GEMS_UNROLL_CL

#ifdef GEMS_CPU
#define UNROLL
#else
#define UNROLL _Pragma("unroll")
#endif

#endif
