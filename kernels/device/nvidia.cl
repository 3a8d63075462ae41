/* Tries what kernels/hopper.cl relies on: C = A B of 64 x 64, A's rows and B's columns beside each other. */
#include "kernels/hopper.cl"

__kernel __attribute__((reqd_work_group_size(128, 1, 1))) void gems_probe(__global ushort *a, __global ushort *b,
                                                                          __global float *c, __global uint *maps)
{
    __local uchar blocks[2 * 8192] __attribute__((aligned(1024)));
    __local ulong bars[1] __attribute__((aligned(16)));
    const uint at = IN_LOCAL(blocks), bar = IN_LOCAL(bars);
    const int me = get_local_id(0), lane = me & 31;
    float sum[32];
    if (me == 0) {
        bar_init(bar, 1);
        bar_init_done();
        map_write(maps, 3, (ulong)a, MAP_F16, (uint4)(64, 64, 1, 1), (ulong3)(128, 0, 0), 64);
        map_write(maps + MAP_WORDS, 3, (ulong)b, MAP_F16, (uint4)(64, 64, 1, 1), (ulong3)(128, 0, 0), 64);
        bar_expect(bar, 2 * 8192);
        map_fetch(at, maps, bar, 0, 0, 0);
        map_fetch(at + 8192, maps + MAP_WORDS, bar, 0, 0, 0);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    bar_wait(bar, 0);
#pragma unroll
    for (int i = 0; i < 32; i++)
        sum[i] = 0;
    const ulong left = OPERAND_AT(at, 0), right = OPERAND_AT(at + 8192, 0);
    WGMMA_BEGIN;
#pragma unroll
    for (int q = 0; q < 4; q++)
        WGMMA(64, 32, "f16", sum, left + 2 * q, 0, right + 2 * q, 0, q);
    WGMMA_COMMIT;
    WGMMA_WAIT(0);
    WGMMA_KEEP(32, sum);
#pragma unroll
    for (int i = 0; i < 32; i++)
        c[((me >> 5) * 16 + (lane >> 2) + (i & 2) * 4) * 64 + (i >> 2) * 8 + (lane & 3) * 2 + (i & 1)] = sum[i];
}
