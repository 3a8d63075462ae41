/* Makes the parts of queries, keys and values (parts.cl). A group makes those of one block, which it holds in registers: it
 * is read once.
 *
 * Given: HEAD, the head size rounded up to a multiple of 64; PART_ROWS, with PART_ROWS * HEAD a multiple of 1024. */
#ifndef HEAD
#define HEAD 128
#define PART_ROWS 64
#endif

#include "kernels/attention/parts.cl"
#include "kernels/hopper.cl"
#include "kernels/unroll.cl"

#define GROUP 256
#define QUADS (PART_ROWS * HEAD / 4 / GROUP) /* of a work-item: 4 elements beside each other */

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
split(GEMS_BUFFER(const float, q), GEMS_BUFFER(const float, k), GEMS_BUFFER(const float, v),
      GEMS_SHARED_BUFFER(ushort, parts), GEMS_SHARED_BUFFER(int, notes), int batches, int heads, int share, int queries,
      int keys, int head, int pitch, long q0, long q1, long q2, long k0, long k1, long k2, long v0, long v1, long v2)
{
    GEMS_AT(const float, q);
    GEMS_AT(const float, k);
    GEMS_AT(const float, v);
    GEMS_AT(ushort, parts);
    GEMS_AT(int, notes);
    __local uint most[GROUP / 32];
    __local int small[GROUP / 32];
    const int me = get_local_id(0), key_heads = heads / share;
    const int of_q = batches * heads * BLOCKS(queries), of_k = batches * key_heads * BLOCKS(keys);
    int at = get_group_id(0);
    notes += at;
    const bool is_q = at < of_q, is_k = !is_q && at < of_q + of_k;
    at -= is_q ? 0 : is_k ? of_q : of_q + of_k;
    const int rows = is_q ? queries : keys, count = is_q ? heads : key_heads, line = at / BLOCKS(rows),
              first = (at - line * BLOCKS(rows)) * PART_ROWS, z = line / count, h = line - z * count;
    const long size_q = 2l * batches * heads * queries * pitch, size_k = 2l * batches * key_heads * keys * pitch,
               step = is_q ? q2 : is_k ? k2 : v2;
    const __global float *x = is_q ? q + z * q0 + h * q1 : is_k ? k + z * k0 + h * k1 : v + z * v0 + h * v1;
    parts += (is_q ? 0 : is_k ? size_q : size_q + size_k) + 2l * line * rows * pitch;

    float4 value[QUADS];
    uint largest = 0;
    UNROLL for (int i = 0; i < QUADS; i++)
    {
        const int e = me + i * GROUP, row = first + e / (HEAD / 4), column = e % (HEAD / 4) * 4;
        value[i] = 0;
        if (row < rows && column < head) {
            const __global float *p = x + row * step + column;
            if (column + 4 <= head && ((ulong)p & 15) == 0)
                value[i] = *(const __global float4 *)p;
            else {
                value[i].x = p[0];
                value[i].y = column + 1 < head ? p[1] : 0;
                value[i].z = column + 2 < head ? p[2] : 0;
                value[i].w = column + 3 < head ? p[3] : 0;
            }
        }
        largest = max(largest, max(max(parts_magnitude(value[i].x), parts_magnitude(value[i].y)),
                                   max(parts_magnitude(value[i].z), parts_magnitude(value[i].w))));
    }
    UNROLL for (int n = 16; n; n /= 2)
        largest = max(largest, from_lane(largest, n));
    if (me % 32 == 0)
        most[me / 32] = largest;
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL for (int i = 0; i < GROUP / 32; i++)
        largest = max(largest, most[i]);

    const int exponent = largest ? (int)(largest >> 23) - 127 : 0, used = clamp(exponent, PARTS_LOWEST, PARTS_HIGHEST);
    const float scale = as_float((uint)(127 + PARTS_TOP - used) << 23);
    int found = 0;
    UNROLL for (int i = 0; i < QUADS; i++)
    {
        const int e = me + i * GROUP, row = first + e / (HEAD / 4), column = e % (HEAD / 4) * 4;
        const float4 y = value[i] * scale;
        found += parts_is_small(y.x) + parts_is_small(y.y) + parts_is_small(y.z) + parts_is_small(y.w);
        if (row < rows && column < pitch) {
            const uint2 high = (uint2)(two_f16(y.x, y.y), two_f16(y.z, y.w));
            const uint2 low = (uint2)(two_f16(y.x - low_f16(high.x), y.y - high_f16(high.x)),
                                      two_f16(y.z - low_f16(high.y), y.w - high_f16(high.y)));
            *(__global uint2 *)(parts + (long)row * pitch + column) = high;
            *(__global uint2 *)(parts + ((long)rows + row) * pitch + column) = low;
        }
    }
    UNROLL for (int n = 16; n; n /= 2)
        found += (int)from_lane((uint)found, n);
    if (me % 32 == 0)
        small[me / 32] = found;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (me == 0) {
        for (int i = 1; i < GROUP / 32; i++)
            found += small[i];
        /* Many small ones: others' sizes would hide them. */
        *notes = used != exponent || found * 64 > min(PART_ROWS, rows - first) * head ? PARTS_NONE : exponent;
    }
}
