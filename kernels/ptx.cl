/* NVIDIA's instructions that OpenCL C has no function for. GEMS_PTX: the compute capability, ten times; 0 elsewhere. */
#ifndef GEMS_PTX_CL
#define GEMS_PTX_CL

#if GEMS_PTX
/* x of the work-item of the same warp whose number differs by the bits of `across`. */
static inline __attribute__((always_inline)) uint from_lane(uint x, int across)
{
    uint y;
    __asm__ volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(y) : "r"(x), "r"(across));
    return y;
}
#endif
#if GEMS_PTX >= 80
static inline __attribute__((always_inline)) uint two_bf16(float low, float high)
{
    uint both;
    __asm__("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
#endif

#endif
