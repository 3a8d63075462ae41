/* Makes f32 matrices into f16 parts (parts.cl): lines of `pitch` f16, a multiple of WIDE, those from k on zeros; the high
 * parts of all lines, then the low ones; behind all batches what is noted of lines. Lines are `across` elements apart,
 * their elements `along`. Dimension 2 of the grid: batches. */
#include "kernels/parts.cl"

#define GROUP 256
#define PIECE 512 /* elements of a line that a group of `largest` looks at */
#define WIDE 64   /* elements of a line in a block */
#define OPERAND(name)                                                                                                  \
    GEMS_SHARED_BUFFER(const float, name##x), GEMS_SHARED_BUFFER(ushort, name##y), int name##count, long name##across, \
        long name##along, long name##batch
#define SIZES int k, int pitch
/* The parts of a batch, and what is noted of its lines. */
#define PARTS_AT(y, z, count) ((y) + (z) * 2 * pitch * (count))
#define LINES_AT(y, z, count) ((__global int4 *)PARTS_AT(y, (long)get_num_groups(2), count) + (z) * (count))

/* One value for each of `lanes` lines, of those that the items of a line have; lanes is a power of two. */
#define OVER_LINES(combine)                                                                                            \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    for (int n = GROUP / 2; n >= lanes; n /= 2) {                                                                      \
        if (me < n) {                                                                                                  \
            combine;                                                                                                   \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
    }

/* Both operands: of each a group takes one line or, where neighbours in memory belong to different lines (across is 1
 * and along is not), 16 of them. Dimension 0: groups of A, then of B. Lines are read twice. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void split(OPERAND(a_), OPERAND(b_), SIZES, int a_groups)
{
    __local int small[GROUP], some[GROUP];
    __local uint most[GROUP], block[16 * (WIDE + 1)]; /* 16 lines of WIDE, or one of 16 WIDE */
    const long z = get_group_id(2);
    const int me = get_local_id(0);
    const bool is_a = get_group_id(0) < a_groups;
    GEMS_AT(const float, a_x);
    GEMS_AT(const float, b_x);
    GEMS_AT(ushort, a_y);
    GEMS_AT(ushort, b_y);
    const __global float *x = is_a ? a_x + z * a_batch : b_x + z * b_batch;
    __global ushort *all = is_a ? a_y : b_y;
    const int count = is_a ? a_count : b_count;
    const long across = is_a ? a_across : b_across, along = is_a ? a_along : b_along;
    __global ushort *y = PARTS_AT(all, z, count);
    const int lanes = across == 1 && along != 1 ? 16 : 1, wide = 16 * WIDE / lanes, each = GROUP / lanes;
    const int line0 = (get_group_id(0) - (is_a ? 0 : a_groups)) * lanes, lane = me % lanes, line = line0 + lane;
    const int row = line0 + me / each, from = me % each * 4; /* that this item stores */
    uint largest = 0;
    if (line < count)
        for (int i = me / lanes; i < k; i += each)
            largest = max(largest, parts_magnitude(x[line * across + i * along]));
    most[me] = largest;
    OVER_LINES(most[me] = max(most[me], most[me + n]))
    const float scale = parts_scale_of(parts_exponent_of(most[lane]));
    small[me] = some[me] = 0;
    for (int i0 = 0; i0 < pitch; i0 += wide) {
        int nsmall = 0, nsome = 0;
        for (int q = me / lanes; q < wide; q += each) {
            const float v = line < count && i0 + q < k ? x[line * across + (i0 + q) * along] * scale : 0;
            block[lane * (wide + 1) + q] = parts_of(v);
            nsmall += parts_is_small(v), nsome += (v != 0);
        }
        small[me] += nsmall, some[me] += nsome;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (row < count && i0 + from < pitch)
            parts_put(y + (long)row * pitch + i0 + from, (long)count * pitch, block + me / each * (wide + 1) + from, 4);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    OVER_LINES(small[me] += small[me + n]; some[me] += some[me + n])
    if (me < lanes && line < count)
        LINES_AT(all, z, count)[line] = parts_line_of(most[me], small[me], some[me]);
}

/* The same for many lines that lie beside each other: first the largest of each PIECE of 64 lines, */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void largest(OPERAND(), SIZES, GEMS_SHARED_BUFFER(uint, pieces))
{
    __local uint most[GROUP];
    GEMS_AT(const float, x);
    GEMS_AT(ushort, y);
    GEMS_AT(uint, pieces);
    const long z = get_group_id(2);
    const int me = get_local_id(0), lanes = 64, line = get_group_id(0) * lanes + me % lanes, i0 = get_group_id(1) * PIECE,
              end = min(i0 + PIECE, k);
    uint found = 0;
    x += z * batch;
    if (line < count)
        for (int i = i0 + me / lanes; i < end; i += GROUP / lanes)
            found = max(found, parts_magnitude(x[line + i * along]));
    most[me] = found;
    OVER_LINES(most[me] = max(most[me], most[me + n]))
    if (me < lanes && line < count) {
        pieces[(z * get_num_groups(1) + get_group_id(1)) * count + line] = most[me];
        if (get_group_id(1) == 0)
            LINES_AT(y, z, count)[line] = (int4)(0);
    }
}

/* ... then blocks of 64 by WIDE, turned in local memory. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void split_blocks(OPERAND(), SIZES,
                                                                             GEMS_SHARED_BUFFER(const uint, pieces))
{
    __local int small[GROUP], some[GROUP];
    __local uint block[64 * (WIDE + 1)];
    GEMS_AT(const float, x);
    GEMS_AT(ushort, y);
    GEMS_AT(const uint, pieces);
    const long z = get_group_id(2);
    const int me = get_local_id(0), lanes = 64, each = GROUP / lanes, line0 = get_group_id(0) * lanes, lane = me % lanes,
              line = line0 + lane, i0 = get_group_id(1) * WIDE, npieces = (k + PIECE - 1) / PIECE;
    uint largest = 0;
    x += z * batch;
    if (line < count)
        for (int q = 0; q < npieces; q++)
            largest = max(largest, pieces[(z * npieces + q) * count + line]);
    const float scale = parts_scale_of(parts_exponent_of(largest));
    int nsmall = 0, nsome = 0;
    for (int q = me / lanes; q < WIDE; q += each) {
        const float v = line < count && i0 + q < k ? x[line + (i0 + q) * along] * scale : 0;
        block[lane * (WIDE + 1) + q] = parts_of(v);
        nsmall += parts_is_small(v), nsome += (v != 0);
    }
    small[me] = nsmall, some[me] = nsome;
    OVER_LINES(small[me] += small[me + n]; some[me] += some[me + n])
    if (me < lanes && line < count) {
        const int4 l = parts_line_of(largest, small[me], some[me]);
        __global int *to = (__global int *)&LINES_AT(y, z, count)[line];
        if (get_group_id(1) == 0)
            to[0] = l.x, to[3] = l.w;
        if (l.y) /* whole numbers: their sum does not depend on the order */
            atomic_add(to + 1, l.y);
        if (l.z)
            atomic_add(to + 2, l.z);
    }
    const int row = me / each, n = WIDE / each, from = me % each * n;
    if (line0 + row < count)
        parts_put(PARTS_AT(y, z, count) + (long)(line0 + row) * pitch + i0 + from, (long)count * pitch,
                  block + row * (WIDE + 1) + from, n);
}
