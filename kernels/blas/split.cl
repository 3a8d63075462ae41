/* Makes f32 matrices into f16 parts (parts.cl): lines of `pitch` f16, those from k on zeros; the high parts of all lines,
 * then the low ones. Lines are `across` elements apart, their elements `along`. Dimension 2 of the grid: batches. */
#include "kernels/blas/parts.cl"

#define GROUP 256
#define SLAB 64 /* lines of split_across's blocks */
#define PIECE 512 /* elements of a line that a group of `largest` looks at */
#define ARGUMENTS                                                                                                      \
    GEMS_SHARED_BUFFER(const float, x), GEMS_SHARED_BUFFER(ushort, y), GEMS_SHARED_BUFFER(int4, lines), int count, int k, \
        int pitch, long across, long along, long batch, long first_line, long lines_batch
#define BEGIN                                                                                                          \
    GEMS_AT(const float, x);                                                                                           \
    GEMS_AT(ushort, y);                                                                                                \
    GEMS_AT(int4, lines);                                                                                              \
    const long z = get_group_id(2);                                                                                    \
    const int me = get_local_id(0);                                                                                    \
    x += z * batch, y += z * 2 * count * pitch, lines += first_line + z * lines_batch

static inline ushort to_half(float v)
{
    ushort h;
    vstore_half_rte(v, 0, (half *)&h);
    return h;
}
static inline float of_half(ushort h) { return vload_half(0, (const half *)&h); }

static inline uint magnitude(float v) { return as_uint(v) & 0x7fffffffu; }
static inline int exponent_of(uint largest) { return max((int)(largest >> 23) - 127, -100); }
static inline float scale_of(int exponent) { return as_float((uint)(127 + PARTS_TOP - exponent) << 23); }
/* High part below, low part above. */
static inline uint parts_of(float v)
{
    const ushort high = to_half(v);
    return high | (uint)to_half(v - of_half(high)) << 16;
}
static inline int is_small(float scaled) { return scaled != 0 && fabs(scaled) < PARTS_LEAST; }

/* Where a line's elements are neighbours (or no line has neighbours): a group a line. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void split_along(ARGUMENTS)
{
    BEGIN;
    __local uint most[GROUP];
    __local int small[GROUP], some[GROUP];
    const long line = get_group_id(0);
    x += line * across;
    uint largest = 0;
    for (int i = me; i < k; i += GROUP)
        largest = max(largest, magnitude(x[i * along]));
    most[me] = largest;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int n = GROUP / 2; n; n /= 2) {
        if (me < n)
            most[me] = max(most[me], most[me + n]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    const int exponent = exponent_of(most[0]), infinite = most[0] >= 0x7f800000u;
    const float scale = scale_of(min(exponent, 127));
    __global ushort *high = y + line * pitch, *low = high + (long)count * pitch;
    int nsmall = 0, nsome = 0;
    for (int i = me * 2; i < pitch; i += GROUP * 2) { /* the pitch is even: two at once */
        const float v0 = i < k ? x[i * along] * scale : 0, v1 = i + 1 < k ? x[(i + 1) * along] * scale : 0;
        const uint p0 = parts_of(v0), p1 = parts_of(v1);
        *(__global uint *)(high + i) = (p0 & 0xffffu) | p1 << 16;
        *(__global uint *)(low + i) = p0 >> 16 | (p1 & 0xffff0000u);
        nsmall += is_small(v0) + is_small(v1);
        nsome += (v0 != 0) + (v1 != 0);
    }
    small[me] = nsmall, some[me] = nsome;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int n = GROUP / 2; n; n /= 2) {
        if (me < n)
            small[me] += small[me + n], some[me] += some[me + n];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (me == 0)
        lines[line] = (int4)(exponent, small[0], some[0], infinite);
}

/* Where neighbours belong to different lines: first the largest of each PIECE of SLAB lines. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void largest(ARGUMENTS, GEMS_SHARED_BUFFER(uint, pieces))
{
    BEGIN;
    GEMS_AT(uint, pieces);
    __local uint most[GROUP];
    const int line = get_group_id(0) * SLAB + me % SLAB, i0 = get_group_id(1) * PIECE, end = min(i0 + PIECE, k);
    uint found = 0;
    if (line < count)
        for (int i = i0 + me / SLAB; i < end; i += GROUP / SLAB)
            found = max(found, magnitude(x[line * across + i * along]));
    most[me] = found;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (me >= SLAB || line >= count)
        return;
    for (int q = 1; q < GROUP / SLAB; q++)
        found = max(found, most[me + q * SLAB]);
    pieces[(z * get_num_groups(1) + get_group_id(1)) * count + line] = found;
    if (get_group_id(1) == 0)
        lines[line] = (int4)(0);
}

/* ... then blocks of SLAB lines by 64, turned in local memory. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void split_across(ARGUMENTS, GEMS_SHARED_BUFFER(const uint, pieces))
{
    BEGIN;
    GEMS_AT(const uint, pieces);
    __local uint block[SLAB][65];
    __local int small[GROUP], some[GROUP];
    const int lane = me % SLAB, line = get_group_id(0) * SLAB + lane, i0 = get_group_id(1) * 64,
              npieces = (k + PIECE - 1) / PIECE;
    uint found = 0;
    if (line < count)
        for (int q = 0; q < npieces; q++)
            found = max(found, pieces[(z * npieces + q) * count + line]);
    const int exponent = exponent_of(found);
    const float scale = scale_of(min(exponent, 127));
    int nsmall = 0, nsome = 0;
    for (int q = me / SLAB; q < 64; q += GROUP / SLAB) {
        const float v = line < count && i0 + q < k ? x[line * across + (i0 + q) * along] * scale : 0;
        block[lane][q] = parts_of(v);
        nsmall += is_small(v);
        nsome += v != 0;
    }
    small[me] = nsmall, some[me] = nsome;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (me < SLAB && line < count) { /* whole numbers: their sum does not depend on the order */
        for (int q = 1; q < GROUP / SLAB; q++)
            nsmall += small[me + q * SLAB], nsome += some[me + q * SLAB];
        if (get_group_id(1) == 0) {
            ((__global int *)&lines[line])[0] = exponent;
            ((__global int *)&lines[line])[3] = found >= 0x7f800000u;
        }
        if (nsmall)
            atomic_add((__global int *)&lines[line] + 1, nsmall);
        if (nsome)
            atomic_add((__global int *)&lines[line] + 2, nsome);
    }
    /* 16 elements of a line each: 32 bytes high, 32 low. */
    const int row = me / 4, from = me % 4 * 16, to = get_group_id(0) * SLAB + row;
    if (to >= count)
        return;
    __global uint *high = (__global uint *)(y + (long)to * pitch + i0 + from), *low = high + (long)count * pitch / 2;
    for (int q = 0; q < 8; q++) {
        const uint p0 = block[row][from + 2 * q], p1 = block[row][from + 2 * q + 1];
        high[q] = (p0 & 0xffffu) | p1 << 16;
        low[q] = p0 >> 16 | (p1 & 0xffff0000u);
    }
}
