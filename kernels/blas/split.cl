/* Makes f32 matrices into f16 parts (parts.cl): lines of `pitch` f16, a multiple of WIDE, those from k on zeros; the high
 * parts of all lines, then the low ones. Lines are `across` elements apart, their elements `along`; what is noted of them
 * begins at `first` of `all_lines`. Dimension 2 of the grid: batches. */
#include "kernels/blas/parts.cl"

#define GROUP 256
#define PIECE 512 /* elements of a line that a group of `largest` looks at */
#define WIDE 64   /* elements of a line in a block */
#define OPERAND(name)                                                                                                  \
    GEMS_SHARED_BUFFER(const float, name##x), GEMS_SHARED_BUFFER(ushort, name##y), int name##count, int name##first,   \
        long name##across, long name##along, long name##batch
#define SIZES GEMS_SHARED_BUFFER(int4, lines), int k, int pitch, long all_lines

static inline ushort to_half(float v)
{
    ushort h;
    vstore_half_rte(v, 0, (half *)&h);
    return h;
}
static inline float of_half(ushort h) { return vload_half(0, (const half *)&h); }

static inline uint magnitude(float v) { return as_uint(v) & 0x7fffffffu; }
static inline int exponent_of(uint largest) { return max((int)(largest >> 23) - 127, -100); }
static inline float scale_of(int exponent) { return as_float((uint)(127 + PARTS_TOP - min(exponent, 127)) << 23); }
/* High part below, low part above. */
static inline uint parts_of(float v)
{
    const ushort high = to_half(v);
    return high | (uint)to_half(v - of_half(high)) << 16;
}
/* What is counted of a line: small elements below, others that are not 0 above; k is less than 2^31. */
static inline long counted(float scaled) { return scaled == 0 ? 0 : fabs(scaled) < PARTS_LEAST ? 1 + (1l << 32) : 1l << 32; }
static inline int4 line_of(uint largest, long count)
{
    return (int4)(exponent_of(largest), (int)count, (int)(count >> 32), largest >= 0x7f800000u);
}

/* The line whose elements a group shares. */
static inline void split_line(const __global float *x, __global ushort *y, __global int4 *lines, int line, int count, int k,
                              int pitch, long across, long along, __local long *shared)
{
    const int me = get_local_id(0);
    __local uint *most = (__local uint *)shared;
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
    largest = most[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    const float scale = scale_of(exponent_of(largest));
    __global ushort *high = y + (long)line * pitch, *low = high + (long)count * pitch;
    long found = 0;
    for (int i = me * 2; i < pitch; i += GROUP * 2) { /* the pitch is even: two at once */
        const float v0 = i < k ? x[i * along] * scale : 0, v1 = i + 1 < k ? x[(i + 1) * along] * scale : 0;
        const uint p0 = parts_of(v0), p1 = parts_of(v1);
        *(__global uint *)(high + i) = (p0 & 0xffffu) | p1 << 16;
        *(__global uint *)(low + i) = p0 >> 16 | (p1 & 0xffff0000u);
        found += counted(v0) + counted(v1);
    }
    shared[me] = found;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int n = GROUP / 2; n; n /= 2) {
        if (me < n)
            shared[me] += shared[me + n];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (me == 0)
        lines[line] = line_of(largest, shared[0]);
}

/* A block of SLAB lines (beside each other in memory) by WIDE elements, turned in local memory; returns what this item
 * counted of line `me` % SLAB. */
#define SPLIT_BLOCK(SLAB)                                                                                              \
    static inline long split_block_##SLAB(const __global float *x, __global ushort *y, int line0, int i0, int count,   \
                                          int k, int pitch, long along, float scale, __local uint *block)              \
    {                                                                                                                  \
        const int me = get_local_id(0), lane = me % SLAB, line = line0 + lane;                                         \
        long found = 0;                                                                                                \
        for (int q = me / SLAB; q < WIDE; q += GROUP / SLAB) {                                                         \
            const float v = line < count && i0 + q < k ? x[line + (i0 + q) * along] * scale : 0;                       \
            block[lane * (WIDE + 1) + q] = parts_of(v);                                                                \
            found += counted(v);                                                                                       \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        const int row = me / (GROUP / SLAB), n = WIDE * SLAB / GROUP, from = me % (GROUP / SLAB) * n;                  \
        if (line0 + row < count) {                                                                                     \
            __global uint *high = (__global uint *)(y + (long)(line0 + row) * pitch + i0 + from),                      \
                          *low = high + (long)count * pitch / 2;                                                       \
            for (int q = 0; q < n / 2; q++) {                                                                          \
                const uint p0 = block[row * (WIDE + 1) + from + 2 * q],                                                \
                           p1 = block[row * (WIDE + 1) + from + 2 * q + 1];                                            \
                high[q] = (p0 & 0xffffu) | p1 << 16;                                                                   \
                low[q] = p0 >> 16 | (p1 & 0xffff0000u);                                                                \
            }                                                                                                          \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        return found;                                                                                                  \
    }
SPLIT_BLOCK(64)
SPLIT_BLOCK(16)

/* 16 lines that lie beside each other, read twice by one group. */
static inline void split_slab(const __global float *x, __global ushort *y, __global int4 *lines, int line0, int count, int k,
                              int pitch, long along, __local long *shared, __local uint *block)
{
    const int me = get_local_id(0), lane = me % 16, line = line0 + lane;
    __local uint *most = (__local uint *)shared;
    uint largest = 0;
    if (line < count)
        for (int i = me / 16; i < k; i += GROUP / 16)
            largest = max(largest, magnitude(x[line + i * along]));
    most[me] = largest;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int q = 0; q < GROUP / 16; q++)
        largest = max(largest, most[lane + q * 16]);
    barrier(CLK_LOCAL_MEM_FENCE);
    const float scale = scale_of(exponent_of(largest));
    long found = 0;
    for (int i0 = 0; i0 < pitch; i0 += WIDE)
        found += split_block_16(x, y, line0, i0, count, k, pitch, along, scale, block);
    shared[me] = found;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (me >= 16 || line >= count)
        return;
    for (int q = 1; q < GROUP / 16; q++)
        found += shared[me + q * 16];
    lines[line] = line_of(largest, found);
}

/* Both operands: of each the lines one by one or, where neighbours in memory belong to different lines (across is 1 and
 * along is not), 16 at once. Dimension 0: groups of A, then of B. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void split(OPERAND(a_), OPERAND(b_), SIZES, int a_groups)
{
    __local long shared[GROUP];
    __local uint block[16 * (WIDE + 1)];
    const long z = get_group_id(2);
    int group = get_group_id(0);
    const bool is_a = group < a_groups;
    GEMS_AT(int4, lines);
    GEMS_AT(const float, a_x);
    GEMS_AT(const float, b_x);
    GEMS_AT(ushort, a_y);
    GEMS_AT(ushort, b_y);
    group -= is_a ? 0 : a_groups;
    const __global float *x = is_a ? a_x + z * a_batch : b_x + z * b_batch;
    __global ushort *y = (is_a ? a_y : b_y) + z * 2 * pitch * (is_a ? a_count : b_count);
    const int count = is_a ? a_count : b_count;
    const long across = is_a ? a_across : b_across, along = is_a ? a_along : b_along;
    lines += z * all_lines + (is_a ? a_first : b_first);
    if (across == 1 && along != 1)
        split_slab(x, y, lines, group * 16, count, k, pitch, along, shared, block);
    else
        split_line(x, y, lines, group, count, k, pitch, across, along, shared);
}

/* The same for many lines that lie beside each other: first the largest of each PIECE of 64 lines, */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void largest(OPERAND(), SIZES, GEMS_SHARED_BUFFER(uint, pieces))
{
    __local uint most[GROUP];
    GEMS_AT(const float, x);
    GEMS_AT(int4, lines);
    GEMS_AT(uint, pieces);
    const long z = get_group_id(2);
    const int me = get_local_id(0), line = get_group_id(0) * 64 + me % 64, i0 = get_group_id(1) * PIECE,
              end = min(i0 + PIECE, k);
    uint found = 0;
    x += z * batch;
    if (line < count)
        for (int i = i0 + me / 64; i < end; i += GROUP / 64)
            found = max(found, magnitude(x[line + i * along]));
    most[me] = found;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (me >= 64 || line >= count)
        return;
    for (int q = 1; q < GROUP / 64; q++)
        found = max(found, most[me + q * 64]);
    pieces[(z * get_num_groups(1) + get_group_id(1)) * count + line] = found;
    if (get_group_id(1) == 0)
        lines[z * all_lines + first + line] = (int4)(0);
}

/* ... then blocks of 64 by WIDE. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void split_blocks(OPERAND(), SIZES,
                                                                             GEMS_SHARED_BUFFER(const uint, pieces))
{
    __local long shared[GROUP];
    __local uint block[64 * (WIDE + 1)];
    GEMS_AT(const float, x);
    GEMS_AT(ushort, y);
    GEMS_AT(int4, lines);
    GEMS_AT(const uint, pieces);
    const long z = get_group_id(2);
    const int me = get_local_id(0), line0 = get_group_id(0) * 64, line = line0 + me % 64, npieces = (k + PIECE - 1) / PIECE;
    uint largest = 0;
    if (line < count)
        for (int q = 0; q < npieces; q++)
            largest = max(largest, pieces[(z * npieces + q) * count + line]);
    long found = split_block_64(x + z * batch, y + z * 2 * count * pitch, line0, get_group_id(1) * WIDE, count, k, pitch, along,
                                scale_of(exponent_of(largest)), block);
    shared[me] = found;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (me >= 64 || line >= count)
        return;
    for (int q = 1; q < GROUP / 64; q++)
        found += shared[me + q * 64];
    const int4 l = line_of(largest, found);
    __global int *to = (__global int *)&lines[z * all_lines + first + line];
    if (get_group_id(1) == 0)
        to[0] = l.x, to[3] = l.w;
    if (l.y) /* whole numbers: their sum does not depend on the order */
        atomic_add(to + 1, l.y);
    if (l.z)
        atomic_add(to + 2, l.z);
}
