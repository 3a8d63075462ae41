/* The place of the best element along one dimension (argmax, max.dim), with its value where asked.
 *
 * The launcher defines IN (dtype read), C (its compute type), BETTER(a, b): b, found later, replaces a; and VALUES where
 * the value is a result too. Of two equally good elements the one with the lower index wins, whatever the order of
 * the search; so the answer does not depend on how the work is cut. Every input is read once.
 *
 * A unit is one result, or one of `splits` parts of it, whose winners (value, index) `merge` then compares.
 *
 * run     one work-item walks a unit, several units in turn (CPU; any strides)
 * column  one work-item walks 16 neighbouring results together (CPU; results dense in the input)
 * group   one work-group a unit (GPU)
 * item    one work-item a unit (GPU; many results side by side)
 * merge   one work-item compares the parts of one result */
#ifndef IN
#define IN f32
#define C float
#define BETTER(a, b) ((b > a) | ((b != b) & (a == a)))
#define VALUES
#endif
#ifndef GROUP
#define GROUP 256
#endif

#define C16 GEMS_CAT(C, 16)
#define MEM_IN GEMS_CAT(mem_, IN)
#define LOAD(p, i) GEMS_CAT(load_, IN)(p, i)
ROW_GET(IN, get_in, C)

typedef struct {
    C value;
    long index;
} winner;

static inline winner best(winner a, winner b)
{
    bool take = BETTER((a.value), (b.value)) || (!BETTER((b.value), (a.value)) && b.index < a.index);
    return take ? b : a;
}

#ifdef PART
#define RESULTS GEMS_BUFFER(C, values), GEMS_BUFFER(long, indices)
#define OPEN_RESULTS                                                                                                   \
    GEMS_AT(C, values);                                                                                                \
    GEMS_AT(long, indices)
#define GIVE(u, w)                                                                                                     \
    do {                                                                                                               \
        values[u] = (w).value;                                                                                         \
        indices[u] = (w).index;                                                                                        \
    } while (0)
#elif defined(VALUES)
#define RESULTS GEMS_BUFFER(MEM_IN, values), GEMS_BUFFER(long, indices)
#define OPEN_RESULTS                                                                                                   \
    GEMS_AT(MEM_IN, values);                                                                                           \
    GEMS_AT(long, indices)
#define GIVE(u, w)                                                                                                     \
    do {                                                                                                               \
        GEMS_CAT(store_, IN)(values, u, (w).value);                                                                    \
        indices[u] = (w).index;                                                                                        \
    } while (0)
#else
#define RESULTS GEMS_BUFFER(long, indices)
#define OPEN_RESULTS GEMS_AT(long, indices)
#define GIVE(u, w) indices[u] = (w).index
#endif

#define ARGS                                                                                                           \
    GEMS_BUFFER(const MEM_IN, in), RESULTS, const gems_nest kept, const gems_nest reduced, long results, long n,       \
        long splits, long chunk
/* reduced.rank <= 1: a plain stride */
#define STRIDE (reduced.rank ? reduced.stride[0] : 1)
#define UNIT(u)                                                                                                        \
    long split = (u) / results, k = (u) - split * results, first = split * chunk, last = min(first + chunk, n);        \
    const __global MEM_IN *p = in + gems_nest_offset(&kept, k);

#ifdef KERNEL_run
static winner walk(const __global MEM_IN *p, const gems_nest *reduced, long first, long last)
{
    winner w;
    long i = first;
    if (reduced->rank > 1) {
        w.value = LOAD(p, gems_nest_offset(reduced, i));
        w.index = i;
        for (i++; i < last; i++) {
            C x = LOAD(p, gems_nest_offset(reduced, i));
            if (BETTER((w.value), (x))) {
                w.value = x;
                w.index = i;
            }
        }
        return w;
    }
    long stride = reduced->rank ? reduced->stride[0] : 1;
    w.value = LOAD(p, i * stride);
    w.index = i;
    /* Each lane keeps its first best, and in which round of 16 it was; rounds are counted in 32 bits. */
    while (i + 16 <= last) {
        long base = i;
        int rounds = (int)min((last - i) / 16, (long)1 << 24);
        C16 v = get_in_full(p, i, last, stride, 0);
        int16 at = 0;
        for (int r = 1; r < rounds; r++) {
            C16 x = get_in_full(p, base + r * 16, last, stride, 0);
            int16 take = convert_int16(BETTER((v), (x)));
            at = take ? (int16)(r) : at;
            v = BETTER((v), (x)) ? x : v;
        }
        i += (long)rounds * 16;
        C value[16];
        int round[16];
        vstore16(v, 0, value);
        vstore16(at, 0, round);
        for (int l = 0; l < 16; l++) {
            winner lane = {value[l], base + round[l] * 16L + l};
            w = best(w, lane);
        }
    }
    for (; i < last; i++) {
        winner x = {LOAD(p, i * stride), i};
        w = best(w, x);
    }
    return w;
}

__kernel void run(ARGS)
{
    GEMS_AT(const MEM_IN, in);
    OPEN_RESULTS;
    ROW_SHARE(u, results * splits) {
        UNIT(u)
        winner w = walk(p, &reduced, first, last);
        GIVE(u, w);
    }
}
#endif

#ifdef KERNEL_column
#define GET(p) (left >= 16 ? get_in_full(p, 0, left, 1, 0) : get_in_part(p, 0, left, 1, 0))
__kernel void column(ARGS, long columns)
{
    GEMS_AT(const MEM_IN, in);
    OPEN_RESULTS;
    long tiles = (columns + 15) / 16, rows = results / columns, units = rows * tiles;
    const long stride = STRIDE;
    ROW_SHARE(u, units) {
        long row = u / tiles, c = u % tiles * 16, left = columns - c;
        const __global MEM_IN *p = in + gems_nest_offset(&kept, row) + c;
        C16 v = GET(p);
        int16 at = 0;
        for (long i = 1; i < n; i++) {
            C16 x = GET(p + i * stride);
            int16 take = convert_int16(BETTER((v), (x)));
            at = take ? (int16)((int)i) : at;
            v = BETTER((v), (x)) ? x : v;
        }
        C value[16];
        int index[16];
        vstore16(v, 0, value);
        vstore16(at, 0, index);
        for (int l = 0; l < 16 && l < left; l++) {
            winner w = {value[l], index[l]};
            GIVE(row * columns + c + l, w);
        }
    }
}
#endif

#if defined(KERNEL_group) || defined(KERNEL_item)
#define AT(i) LOAD(p, reduced.rank > 1 ? gems_nest_offset(&reduced, i) : (i)*STRIDE)
#endif

#ifdef KERNEL_group
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void group(ARGS)
{
    GEMS_AT(const MEM_IN, in);
    OPEN_RESULTS;
    __local C value[GROUP];
    __local long index[GROUP];
    int me = get_local_id(0);
    long u = get_group_id(0);
    UNIT(u)
    /* Items beyond a short part repeat its first element, which never beats itself. */
    long i = first + me < last ? first + me : first;
    winner w = {AT(i), i};
    for (i += GROUP; i < last; i += GROUP) {
        winner x = {AT(i), i};
        w = best(w, x);
    }
    value[me] = w.value;
    index[me] = w.index;
    for (int half_ = GROUP / 2; half_ > 0; half_ /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (me < half_) {
            winner x = {value[me + half_], index[me + half_]};
            w = best(w, x);
            value[me] = w.value;
            index[me] = w.index;
        }
    }
    if (me == 0)
        GIVE(u, w);
}
#endif

#ifdef KERNEL_item
__kernel void item(ARGS)
{
    GEMS_AT(const MEM_IN, in);
    OPEN_RESULTS;
    long u = get_global_id(0);
    if (u >= results * splits)
        return;
    UNIT(u)
    winner w = {AT(first), first};
    for (long i = first + 1; i < last; i++) {
        winner x = {AT(i), i};
        w = best(w, x);
    }
    GIVE(u, w);
}
#endif

#ifdef KERNEL_merge
__kernel void merge(GEMS_BUFFER(const C, part_values), GEMS_BUFFER(const long, part_indices), RESULTS, long results,
                    long splits)
{
    GEMS_AT(const C, part_values);
    GEMS_AT(const long, part_indices);
    OPEN_RESULTS;
    long k = get_global_id(0);
    if (k >= results)
        return;
    winner w = {part_values[k], part_indices[k]};
    for (long s = 1; s < splits; s++) {
        winner x = {part_values[s * results + k], part_indices[s * results + k]};
        w = best(w, x);
    }
    GIVE(k, w);
}
#endif
