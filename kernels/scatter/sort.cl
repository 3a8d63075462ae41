/* Device code of kernels/scatter/sort.h: one pass of a stable sort by a digit of the keys.
 *
 *   count   how many keys of each tile have each digit: counts[digit][tile]
 *   begin   one group a digit: the counts of the tiles before each, and their sum over all tiles
 *   order   each key and its number to their places. FIRST: keys are numbered as they lie
 *
 * A tile is EACH keys of each of GROUP work-items, neighbours one item's. Items are more than digits. */
#define DIGITS 16
#define TILE (GROUP * EACH)
#define DIGIT(key) ((key) >> shift & (DIGITS - 1))

/* All items' `v`, one after another, added up: what stands before and with each. */
static uint total_with(uint v, __local uint *part)
{
    const int me = get_local_id(0);
    part[me] = v;
    for (int w = 1; w < GROUP; w *= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        const uint before = me >= w ? part[me - w] : 0;
        barrier(CLK_LOCAL_MEM_FENCE);
        part[me] += before;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return part[me];
}

#ifdef KERNEL_count
__kernel void count(GEMS_BUFFER(const uint, keys), GEMS_BUFFER(uint, counts), long n, int shift)
{
    GEMS_AT(const uint, keys);
    GEMS_AT(uint, counts);
    __local uint found[DIGITS];
    const int me = get_local_id(0);
    const long tile = get_group_id(0);
    if (me < DIGITS)
        found[me] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = 0; e < EACH; e++) {
        const long i = tile * TILE + e * GROUP + me;
        if (i < n)
            atomic_inc(&found[DIGIT(keys[i])]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (me < DIGITS)
        counts[me * get_num_groups(0) + tile] = found[me];
}
#endif

#ifdef KERNEL_begin
__kernel void begin(GEMS_BUFFER(uint, counts), GEMS_BUFFER(uint, totals), long tiles)
{
    GEMS_AT(uint, counts);
    GEMS_AT(uint, totals);
    __local uint part[GROUP];
    const int me = get_local_id(0), digit = get_group_id(0);
    const long run = (tiles + GROUP - 1) / GROUP, first = min(me * run, tiles), last = min(first + run, tiles);
    __global uint *own = counts + digit * tiles;
    uint sum = 0;
    for (long i = first; i < last; i++)
        sum += own[i];
    const uint with = total_with(sum, part);
    uint before = with - sum;
    for (long i = first; i < last; i++) {
        const uint x = own[i];
        own[i] = before;
        before += x;
    }
    if (me == GROUP - 1)
        totals[digit] = with;
}
#endif

#ifdef KERNEL_order
__kernel void order(GEMS_BUFFER(const uint, keys),
#ifndef FIRST
                    GEMS_BUFFER(const uint, numbers),
#endif
                    GEMS_BUFFER(const uint, counts), GEMS_BUFFER(const uint, totals), GEMS_BUFFER(uint, keys_to),
                    GEMS_BUFFER(uint, numbers_to), long n, int shift)
{
    GEMS_AT(const uint, keys);
#ifndef FIRST
    GEMS_AT(const uint, numbers);
#define NUMBER(i) numbers[i]
#else
#define NUMBER(i) (uint)(i)
#endif
    GEMS_AT(const uint, counts);
    GEMS_AT(const uint, totals);
    GEMS_AT(uint, keys_to);
    GEMS_AT(uint, numbers_to);
    __local uint at[DIGITS * GROUP]; /* of each digit, and in it of each item: its keys, then those before them */
    __local uint part[GROUP], begin[DIGITS];
    const int me = get_local_id(0);
    const long tile = get_group_id(0), first = tile * TILE + (long)me * EACH;
    const int mine = (int)clamp(n - first, 0L, (long)EACH);
    for (int d = 0; d < DIGITS; d++)
        at[d * GROUP + me] = 0;
    for (int e = 0; e < mine; e++)
        at[DIGIT(keys[first + e]) * GROUP + me]++;
    barrier(CLK_LOCAL_MEM_FENCE);

    uint sum = 0;
    for (int d = 0; d < DIGITS; d++)
        sum += at[me * DIGITS + d];
    uint before = total_with(sum, part) - sum;
    for (int d = 0; d < DIGITS; d++) {
        const uint x = at[me * DIGITS + d];
        at[me * DIGITS + d] = before;
        before += x;
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    /* Where the tile's keys of a digit begin, less those before them in the tile. */
    if (me < DIGITS) {
        uint to = counts[me * get_num_groups(0) + tile] - at[me * GROUP];
        for (int d = 0; d < me; d++)
            to += totals[d];
        begin[me] = to;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = 0; e < mine; e++) {
        const uint key = keys[first + e], digit = DIGIT(key), to = begin[digit] + at[digit * GROUP + me]++;
        keys_to[to] = key;
        numbers_to[to] = NUMBER(first + e);
    }
}
#endif
