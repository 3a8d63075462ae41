/* Elements along one dimension in order, with their places: sort, topk.
 *
 * The launcher defines IN (dtype), RAW (an unsigned type as wide as an element), K (uint, or ulong for elements of 8
 * bytes), AS_K (floating elements: their bits) and INFINITE (the bits of infinity), or IS_SIGNED where integers are.
 *
 * Elements are compared by keys, unsigned numbers in the order of the elements: NaN after all others, both zeros alike;
 * for a falling order their complements. Of equal keys the lower place comes first, so that the order is the same however
 * the work is cut, and the sort is stable. Values are copied at the end, bit for bit.
 *
 * Rows that are longer than a piece are sorted piece by piece into scratch memory; pieces are then merged, two at a time.
 *
 * group  one work-group for a piece, or for several short rows; a bitonic network in local memory (GPU)
 * run    one work-item for a piece, merging (CPU)
 * merge  one work-item for `each` elements of two sorted pieces that become one
 * place  one work-item for the results in turn: values and places of the first k of each row */
#ifndef IN
#define IN f32
#define RAW uint
#define K uint
#define AS_K as_uint
#define INFINITE 0x7f800000
#endif
#ifndef GROUP
#define GROUP 256
#endif

#define MEM_IN GEMS_CAT(mem_, IN)
#define SIGN ((K)1 << (sizeof(K) * 8 - 1))

static inline K key_of(const __global RAW *p, long i, int descending)
{
    GEMS_CAT(num_, IN) x = GEMS_CAT(load_, IN)((const __global MEM_IN *)p, i);
#ifdef AS_K
    K bits = AS_K(x), size = bits & ~SIGN;
    K key = size > INFINITE ? ~(K)0 : size == 0 ? SIGN : bits & SIGN ? ~bits : bits | SIGN;
#elif defined(IS_SIGNED)
    K key = (K)x ^ SIGN;
#else
    K key = (K)x;
#endif
    return descending ? ~key : key;
}

static inline bool is_before(K a, uint a_place, K b, uint b_place)
{
    return a < b || (a == b && a_place < b_place);
}

/* Merges a to a_end and b to b_end of `from` until `n` elements stand in `to`. */
static inline void merge_some(const __global K *from, const __global uint *from_places, __global K *to,
                              __global uint *to_places, long a, long a_end, long b, long b_end, long n)
{
    for (long i = 0; i < n; i++) {
        bool first = b >= b_end || (a < a_end && is_before(from[a], from_places[a], from[b], from_places[b]));
        long at = first ? a++ : b++;
        to[i] = from[at];
        to_places[i] = from_places[at];
    }
}

#define RESULTS GEMS_BUFFER(RAW, values), GEMS_BUFFER(long, indices)
#define OPEN_RESULTS                                                                                                   \
    GEMS_AT(RAW, values);                                                                                              \
    GEMS_AT(long, indices)
#define PIECES(keys, places) GEMS_BUFFER(K, keys), GEMS_BUFFER(uint, places)
#define OPEN_PIECES(keys, places)                                                                                      \
    GEMS_AT(K, keys);                                                                                                  \
    GEMS_AT(uint, places)
/* The i-th element of the result's row, which is the one at `place` of the input's. */
#define GIVE(row, i, place)                                                                                            \
    do {                                                                                                               \
        long at_ = gems_nest_offset(&to, row) + (i) * to_stride;                                                       \
        values[at_] = in[gems_nest_offset(&kept, row) + (long)(place) * stride];                                       \
        indices[at_] = (place);                                                                                        \
    } while (0)

#ifdef KERNEL_group
#define TILE 2048
/* A row, or a piece of it, takes `padded` places, a power of two; what is not there comes last. With PART pieces go to
 * scratch memory, else whole rows to the results. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
group(GEMS_BUFFER(const RAW, in),
#ifdef PART
     PIECES(keys, places),
#else
     RESULTS, const gems_nest to, long to_stride, long k,
#endif
     const gems_nest kept, long rows, long n, long stride, long pieces, int padded, int descending)
{
    GEMS_AT(const RAW, in);
#ifdef PART
    OPEN_PIECES(keys, places);
    const long k = n;
#else
    OPEN_RESULTS;
#endif
    __local K key[TILE];
    __local uint place[TILE];
    const int me = get_local_id(0);
    const long first = (long)get_group_id(0) * (TILE / padded);
    for (int s = me; s < TILE; s += GROUP) {
        long unit = first + s / padded, row = unit / pieces, i = unit % pieces * padded + s % padded;
        bool there = row < rows && i < n;
        key[s] = there ? key_of(in, gems_nest_offset(&kept, row) + i * stride, descending) : ~(K)0;
        place[s] = i;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int size = 2; size <= padded; size *= 2)
        for (int step = size / 2; step > 0; step /= 2) {
            for (int t = me; t < TILE / 2; t += GROUP) {
                int a = 2 * t - (t & (step - 1)), b = a + step;
                bool rising = size == padded || (a & size) == 0;
                if (is_before(key[b], place[b], key[a], place[a]) == rising) {
                    K other = key[a];
                    uint other_place = place[a];
                    key[a] = key[b];
                    place[a] = place[b];
                    key[b] = other;
                    place[b] = other_place;
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
    for (int s = me; s < TILE; s += GROUP) {
        long unit = first + s / padded, row = unit / pieces, i = unit % pieces * padded + s % padded;
        if (row < rows && i < k) {
#ifdef PART
            keys[row * n + i] = key[s];
            places[row * n + i] = place[s];
#else
            GIVE(row, i, place[s]);
#endif
        }
    }
}
#endif

#ifdef KERNEL_run
#define SHORT 16
/* Runs of SHORT by insertion, then merged to and fro so that the last pass ends in keys and places. */
__kernel void run(GEMS_BUFFER(const RAW, in), PIECES(keys, places), PIECES(spare, spare_places), const gems_nest kept,
                  long rows, long n, long stride, long pieces, long piece, int descending)
{
    GEMS_AT(const RAW, in);
    OPEN_PIECES(keys, places);
    OPEN_PIECES(spare, spare_places);
    ROW_SHARE(u, rows * pieces) {
        long row = u / pieces, start = u % pieces * piece, length = min(piece, n - start), at = row * n + start;
        const __global RAW *p = in + gems_nest_offset(&kept, row);
        bool swapped = false;
        for (long width = SHORT; width < length; width *= 2)
            swapped = !swapped;
        __global K *from = (swapped ? spare : keys) + at, *to = (swapped ? keys : spare) + at;
        __global uint *from_places = (swapped ? spare_places : places) + at;
        __global uint *to_places = (swapped ? places : spare_places) + at;
        for (long i = 0; i < length; i++) {
            K key = key_of(p, (start + i) * stride, descending);
            long j = i;
            for (; j % SHORT != 0 && from[j - 1] > key; j--) {
                from[j] = from[j - 1];
                from_places[j] = from_places[j - 1];
            }
            from[j] = key;
            from_places[j] = start + i;
        }
        for (long width = SHORT; width < length; width *= 2) {
            for (long a = 0; a < length; a += 2 * width) {
                long b = min(a + width, length), end = min(b + width, length);
                merge_some(from, from_places, to + a, to_places + a, a, b, b, end, end - a);
            }
            __global K *other = from;
            __global uint *other_places = from_places;
            from = to;
            from_places = to_places;
            to = other;
            to_places = other_places;
        }
    }
}
#endif

#ifdef KERNEL_merge
/* `width` elements of a piece, of which `each` is a divisor. */
__kernel void merge(PIECES(from, from_places), PIECES(to, to_places), long rows, long n, long width, long each)
{
    OPEN_PIECES(from, from_places);
    OPEN_PIECES(to, to_places);
    const long shares = (n + each - 1) / each, row = get_global_id(0) / shares;
    if (row >= rows)
        return;
    const long first = get_global_id(0) % shares * each, start = first / (2 * width) * (2 * width), at = row * n;
    const long a = at + start, b = at + min(start + width, n), end = at + min(start + 2 * width, n);
    /* How many of the first piece are among the elements before `first`. */
    const long before = first - start;
    long low = max(0L, before - (end - b)), high = min(before, b - a);
    while (low < high) {
        long middle = (low + high) / 2, other = b + before - 1 - middle;
        if (is_before(from[a + middle], from_places[a + middle], from[other], from_places[other]))
            low = middle + 1;
        else
            high = middle;
    }
    merge_some(from, from_places, to + at + first, to_places + at + first, a + low, b, b + before - low, end,
               min(each, n - first));
}
#endif

#ifdef KERNEL_place
__kernel void place(GEMS_BUFFER(const RAW, in), GEMS_BUFFER(const uint, places), RESULTS, const gems_nest to,
                    long to_stride, long k, const gems_nest kept, long rows, long n, long stride)
{
    GEMS_AT(const RAW, in);
    GEMS_AT(const uint, places);
    OPEN_RESULTS;
    ROW_SHARE(u, rows * k)
        GIVE(u / k, u % k, places[u / k * n + u % k]);
}
#endif
