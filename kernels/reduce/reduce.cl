/* Reductions of a strided tensor to a contiguous result: out[k] = FINISH(COMBINE over r of MAP(in[k, r])).
 *
 * The launcher defines: IN (dtype read), C (type that MAP works in), A (type accumulated in), OUT and O (dtype
 * written and its compute type), MAP_(x, zero, one), COMBINE(a, b), IDENTITY (of type A), FINISH_(a, n), and
 * COMPENSATED where COMBINE is a floating sum. PART: what is written are states, for `merge`.
 *
 * Accuracy: blocks of 16 terms a lane are added plainly, and blocks to each other with their rounding errors kept
 * (two-sum) until the result is stored, so the error does not grow with the number of terms, of items or of parts. The
 * order is fixed: same bits on each call. Every input is read once. A `unit` is one result, or one of `splits` parts of
 * it.
 *
 * run     one work-item walks the terms of a unit and does several units (CPU; any strides)
 * column  one work-item walks neighbouring results together (CPU; results dense in the input)
 * group   one work-group a unit, neighbouring items take neighbouring terms (GPU)
 * across  neighbouring items take neighbouring results (GPU; results dense in the input)
 * wide    LANES items of a work-group a unit, 16 bytes at a time (GPU; terms dense, rows at multiples of 16 bytes)
 * wide_across  the same, of neighbouring results: a group is LANES times 16 bytes wide (GPU; results dense in the
 *         input)
 * merge   one work-group (of one item on a CPU) puts the parts of a result together
 * fold    one work-item computes the terms itself, a piece at a time (PRODUCE of codegen/pointwise.h), and does several
 *         units (CPU; `inner` neighbouring results whose terms are `inner` apart, or 1) */
#ifndef IN
#define IN f32
#define C float
#define A float
#define OUT f32
#define O float
#define MAP_(x, zero, one) x
#define COMBINE(a, b) a + b
#define IDENTITY 0
#define FINISH_(a, n) a
#define COMPENSATED
#endif
#ifndef GROUP
#define GROUP 256
#endif
#ifndef BAND
#define BAND 16 /* vectors of 16 columns that a work-item of `column` holds */
#endif

#define C16 GEMS_CAT(C, 16)
#define A16 GEMS_CAT(A, 16)
#define TO_C GEMS_CAT(convert_, C)
#define TO_A GEMS_CAT(convert_, A)
#define TO_C16 GEMS_CAT(convert_, C16)
#define TO_A16 GEMS_CAT(convert_, A16)
#define MEM_IN GEMS_CAT(mem_, IN)

static inline C map(C x) { return MAP_((x), ((C)0), ((C)1)); }
static inline C16 map16(C16 x) { return MAP_((x), ((C16)((C)0)), ((C16)((C)1))); }
static inline A combine(A a, A b) { return COMBINE((a), (b)); }
static inline A16 combine16(A16 a, A16 b) { return COMBINE((a), (b)); }
#define TERM(p, i) TO_A(map(TO_C(GEMS_CAT(load_, IN)(p, i))))
#define TERM16(p, i) TO_A16(map16(TO_C16(GEMS_CAT(load16_, IN)(p, i))))
#define G(k) GEMS_CAT(load_, IN)(p, i + k * s)
static inline A16 gather16(const __global MEM_IN *p, long i, long s)
{
    return TO_A16(map16(TO_C16((GEMS_CAT(num16_, IN))(G(0), G(1), G(2), G(3), G(4), G(5), G(6), G(7), G(8), G(9),
                                                    G(10), G(11), G(12), G(13), G(14), G(15)))));
}

/* What blocks are added into. For a sum, `low` collects what rounding took from `high`. */
#ifdef COMPENSATED
typedef struct { A high, low; } state;
typedef struct { A16 high, low; } state16;
#define START(s) ((s).high = IDENTITY, (s).low = IDENTITY)
#define JOIN(T, s, b) ROW_ADD(T, (s).high, (s).low, b)
#define MEET(s, other)                                                                                                 \
    do {                                                                                                               \
        JOIN(A, s, (other).high);                                                                                      \
        (s).low += (other).low;                                                                                        \
    } while (0)
/* An infinite sum has a NaN for `low`. */
#define RESULT(s) ROW_TOTAL((s).high, (s).low)
#else
typedef struct { A high; } state;
typedef struct { A16 high; } state16;
#define START(s) ((s).high = IDENTITY)
#define JOIN(T, s, b)                                                                                                  \
    do {                                                                                                               \
        T x_ = (b);                                                                                                    \
        (s).high = COMBINE(((s).high), x_);                                                                            \
    } while (0)
#define MEET(s, other) JOIN(A, s, (other).high)
#define RESULT(s) ((s).high)
#endif

#ifdef PART
typedef state out_t;
#define STORE(p, i, s) (p)[i] = (s)
static inline void store_states(__global state *p, const state16 *s)
{
    A lane[16];
    vstore16(s->high, 0, lane);
    for (int l = 0; l < 16; l++)
        p[l].high = lane[l];
#ifdef COMPENSATED
    vstore16(s->low, 0, lane);
    for (int l = 0; l < 16; l++)
        p[l].low = lane[l];
#endif
}
#define STORE16(p, i, s) store_states((p) + (i), &(s))
#else
typedef GEMS_CAT(mem_, OUT) out_t;
#define FINISH(a) FINISH_((a), (TO_A(total)))
#define STORE(p, i, s)                                                                                                 \
    do {                                                                                                               \
        A a_ = RESULT(s);                                                                                              \
        GEMS_CAT(store_, OUT)(p, i, (GEMS_CAT(num_, OUT))FINISH(a_));                                                  \
    } while (0)
#define STORE16(p, i, s)                                                                                               \
    do {                                                                                                               \
        A16 a_ = RESULT(s);                                                                                            \
        GEMS_CAT(store16_, OUT)(p, i, GEMS_CAT(GEMS_CAT(convert_, O), 16)(FINISH(a_)));                                \
    } while (0)
#endif

/* The states of `count` items, a power of 2, met by the first of them: its state in `mine`. Items are `step` apart. */
#define TREE(mine, part, me, step, count)                                                                              \
    (part)[me] = (mine);                                                                                               \
    for (int w = (count) / 2; w > 0; w /= 2) {                                                                         \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        if ((me) < w * (step)) {                                                                                       \
            MEET(mine, (part)[(me) + w * (step)]);                                                                     \
            (part)[me] = (mine);                                                                                       \
        }                                                                                                              \
    }

static inline A across16(A16 v)
{
    GEMS_CAT(A, 8) a = COMBINE(v.lo, v.hi);
    GEMS_CAT(A, 4) b = COMBINE(a.lo, a.hi);
    GEMS_CAT(A, 2) c = COMBINE(b.lo, b.hi);
    return combine(c.x, c.y);
}

/* ---- CPU: run */

#define WALK(LOAD)                                                                                                     \
    for (; i + 1024 <= n; i += 1024) {                                                                                 \
        A16 a0 = IDENTITY, a1 = IDENTITY, a2 = IDENTITY, a3 = IDENTITY;                                                \
        _Pragma("unroll 1") for (int k = 0; k < 1024; k += 64) {                                                       \
            a0 = combine16(a0, LOAD(i + k));                                                                           \
            a1 = combine16(a1, LOAD(i + k + 16));                                                                      \
            a2 = combine16(a2, LOAD(i + k + 32));                                                                      \
            a3 = combine16(a3, LOAD(i + k + 48));                                                                      \
        }                                                                                                              \
        JOIN(A, *s, across16(combine16(combine16(a0, a1), combine16(a2, a3))));                                        \
    }                                                                                                                  \
    if (i + 16 <= n) {                                                                                                 \
        A16 a0 = LOAD(i), a1 = IDENTITY;                                                                               \
        i += 16;                                                                                                       \
        _Pragma("unroll 1") for (; i + 32 <= n; i += 32) {                                                             \
            a0 = combine16(a0, LOAD(i));                                                                               \
            a1 = combine16(a1, LOAD(i + 16));                                                                          \
        }                                                                                                              \
        if (i + 16 <= n) {                                                                                             \
            a1 = combine16(a1, LOAD(i));                                                                               \
            i += 16;                                                                                                   \
        }                                                                                                              \
        JOIN(A, *s, across16(combine16(a0, a1)));                                                                      \
    }
/* The rest of a column is walked too, so there a stride is not known. */
#define DENSE(i) TERM16(p, i)
#define STRIDED(i) gather16(p, (i) * stride, stride)

static void walk(state *s, const __global MEM_IN *p, long n, long stride)
{
    long i = 0;
#ifdef DENSE_ROWS
    WALK(DENSE)
#else
    WALK(STRIDED)
#endif
    if (i < n) {
        A rest = TERM(p, i * stride);
        for (i++; i < n; i++)
            rest = combine(rest, TERM(p, i * stride));
        JOIN(A, *s, rest);
    }
}

/* Part `split` of the reduced loops: `outer` visits of an inner loop of n terms, cut into pieces of chunk_outer visits
 * and chunk terms. Divisions cost as much as a short row, so an uncut result does without. */
#ifdef PART
#define SPLIT_OF(u, per) ((u) / (per))
#define PART_OF(split)                                                                                                 \
    long o = (split) / inner_splits * chunk_outer, o_end = min(o + chunk_outer, outer_count);                          \
    long first = (split) % inner_splits * chunk, last = min(first + chunk, n);
#else
#define SPLIT_OF(u, per) 0
#define PART_OF(split) long o = 0, o_end = outer_count, first = 0, last = n;
#endif

#define ARGS                                                                                                           \
    GEMS_BUFFER(const MEM_IN, in), GEMS_BUFFER(out_t, out), const gems_nest kept, const gems_nest outer, long outer_count,     \
        long n, long stride, long results, long splits, long inner_splits, long chunk_outer, long chunk, long total
#define OPEN                                                                                                           \
    GEMS_AT(const MEM_IN, in);                                                                                         \
    GEMS_AT(out_t, out)

#ifdef KERNEL_run
__kernel void run(ARGS)
{
    OPEN;
    ROW_SHARE(u, results * splits) {
        long split = SPLIT_OF(u, results), k = u - split * results;
        const __global MEM_IN *p = in + gems_nest_offset(&kept, k);
        state s;
        START(s);
        PART_OF(split)
        for (; o < o_end; o++)
            walk(&s, p + gems_nest_offset(&outer, o) + first * stride, last - first, stride);
        STORE(out, u, s);
    }
}
#endif

/* ---- CPU: column. kept: the loops outside the `columns` dense results. */
#ifdef KERNEL_column
__kernel void column(ARGS, long columns)
{
    OPEN;
    long bands = (columns + BAND * 16 - 1) / (BAND * 16), rows = results / columns;
    ROW_SHARE(u, rows * bands * splits) {
        long row = u / bands % rows, c0 = u % bands * BAND * 16, split = u / bands / rows;
        const __global MEM_IN *p = in + gems_nest_offset(&kept, row) + c0;
        __global out_t *q = out + split * results + row * columns + c0;
        int width = (int)min(columns - c0, (long)BAND * 16), vectors = width / 16, v = 0;
        A16 a[BAND];
        state16 s[BAND];
        for (v = 0; v < BAND; v++) {
            START(s[v]);
            a[v] = IDENTITY;
        }
        int block = 0;
        PART_OF(split)
        for (; o < o_end; o++) {
            const __global MEM_IN *r = p + gems_nest_offset(&outer, o) + first * stride;
            for (long i = first; i < last; i++, r += stride) {
                for (v = 0; v < vectors; v++)
                    a[v] = combine16(a[v], TERM16(r, v * 16));
                if (++block == 16) {
                    for (v = 0; v < vectors; v++) {
                        JOIN(A16, s[v], a[v]);
                        a[v] = IDENTITY;
                    }
                    block = 0;
                }
            }
        }
        for (v = 0; v < vectors; v++) {
            JOIN(A16, s[v], a[v]);
            STORE16(q, v * 16, s[v]);
        }
        for (int c = vectors * 16; c < width; c++) {
            state one;
            START(one);
            PART_OF(split)
            for (; o < o_end; o++)
                walk(&one, p + c + gems_nest_offset(&outer, o) + first * stride, last - first, stride);
            STORE(q, c, one);
        }
    }
}
#endif

/* ---- CPU: fold. Terms come in the input's order, a piece of up to PIECE of them at a time into the item's own memory.
 *
 * A piece is a part of a row, several rows, or with inner > 1 several steps of up to PIECE / 2 neighbouring results. */
#ifdef KERNEL_fold
#define FOLD_ARGS                                                                                                      \
    GEMS_BUFFER(const MEM_IN, pieces), GEMS_BUFFER(out_t, out), long n, long inner, long results, long splits, long chunk,    \
        long total, PRODUCER_PARAMETERS

/* Rows of n terms, all in memory. */
static void rows_in_memory(__global out_t *out, const __global MEM_IN *x, long rows, long n, long total)
{
    long r = 0;
    if (n <= 32) /* too short for vectors along them */
        for (; r + 16 <= rows; r += 16) {
            A16 a = gather16(x, r * n, n);
            _Pragma("unroll 1") for (long i = 1; i < n; i++) a = combine16(a, gather16(x, r * n + i, n));
            state16 s;
            START(s);
            JOIN(A16, s, a);
            STORE16(out, r, s);
        }
    for (; r < rows; r++) {
        state s;
        START(s);
        walk(&s, x + r * n, n, 1);
        STORE(out, r, s);
    }
}

__kernel void fold(FOLD_ARGS)
{
    PRODUCER_OPEN;
    GEMS_AT(const MEM_IN, pieces);
    GEMS_AT(out_t, out);
    const __global MEM_IN *x = pieces + get_global_id(0) * ROOM;
#ifdef FOLD_COLUMNS
    const long width = min(inner, (long)PIECE / 2), bands = (inner + width - 1) / width, steps = PIECE / width;
    A16 a[PIECE / 32];
    state16 s[PIECE / 32];
    ROW_SHARE(u, results / inner * bands * splits) {
        const long split = SPLIT_OF(u, results / inner * bands), unit = u - split * (results / inner * bands);
        const long block = unit / bands, c0 = unit % bands * width;
        const long mine = min(width, inner - c0), first = split * chunk, last = min(first + chunk, n);
        const int vectors = (int)((mine + 15) / 16);
        for (int v = 0; v < vectors; v++) {
            START(s[v]);
            a[v] = IDENTITY;
        }
        int added = 0;
        for (long i = first, count; i < last; i += count) {
            count = bands == 1 ? min(steps, last - i) : 1;
            PRODUCE((block * n + i) * inner + c0, count * mine, x);
            for (long k = 0; k < count; k++) {
                for (int v = 0; v < vectors; v++) /* the last one's rest is of no meaning */
                    a[v] = combine16(a[v], TERM16(x + k * mine, v * 16));
                if (++added == 16) {
                    for (int v = 0; v < vectors; v++) {
                        JOIN(A16, s[v], a[v]);
                        a[v] = IDENTITY;
                    }
                    added = 0;
                }
            }
        }
        __global out_t *q = out + split * results + block * inner + c0;
        for (int v = 0; v < vectors; v++) {
            JOIN(A16, s[v], a[v]);
            if (v * 16 + 16 <= mine) {
                STORE16(q, v * 16, s[v]);
                continue;
            }
            A high[16];
            vstore16(s[v].high, 0, high);
#ifdef COMPENSATED
            A low[16];
            vstore16(s[v].low, 0, low);
#endif
            for (int l = 0; v * 16 + l < mine; l++) {
                state one;
                one.high = high[l];
#ifdef COMPENSATED
                one.low = low[l];
#endif
                STORE(q, v * 16 + l, one);
            }
        }
    }
#else
    const long together = n <= PIECE / 2 ? PIECE / n : 1, units = (results + together - 1) / together;
    ROW_SHARE(u, units * splits) {
        const long split = SPLIT_OF(u, units), k = (u - split * units) * together;
        if (together > 1) {
            const long rows = min(together, results - k);
            PRODUCE(k * n, rows * n, x);
            rows_in_memory(out + k, x, rows, n, total);
            continue;
        }
        const long first = split * chunk, last = min(first + chunk, n);
        state s;
        START(s);
        for (long i = first; i < last; i += PIECE) {
            const long count = min((long)PIECE, last - i);
            PRODUCE(k * n + i, count, x);
            walk(&s, x, count, 1);
        }
        STORE(out, u, s);
    }
#endif
}
#endif

/* ---- GPU */
#if defined(KERNEL_group) || defined(KERNEL_across)
#define STEP(s, x)                                                                                                     \
    do {                                                                                                               \
        block = combine(block, (x));                                                                                   \
        if (++terms == 16) {                                                                                           \
            JOIN(A, s, block);                                                                                         \
            block = IDENTITY;                                                                                          \
            terms = 0;                                                                                                 \
        }                                                                                                              \
    } while (0)
#endif

#ifdef KERNEL_group
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void group(ARGS)
{
    OPEN;
    __local state part[GROUP];
    int me = get_local_id(0), terms = 0;
    long u = get_group_id(0), split = SPLIT_OF(u, results), k = u - split * results;
    const __global MEM_IN *p = in + gems_nest_offset(&kept, k);
    A block = IDENTITY;
    state s;
    START(s);
    PART_OF(split)
    for (; o < o_end; o++) {
        const __global MEM_IN *r = p + gems_nest_offset(&outer, o);
        for (long i = first + me; i < last; i += GROUP)
            STEP(s, TERM(r, i * stride));
    }
    JOIN(A, s, block);
    TREE(s, part, me, 1, GROUP)
    if (me == 0)
        STORE(out, u, s);
}
#endif

/* A group is TILE neighbouring results wide. */
#ifdef KERNEL_across
#define TILE (GROUP < 32 ? GROUP : 32)
#define ROWS (GROUP / TILE)
__kernel __attribute__((reqd_work_group_size(TILE, ROWS, 1))) void across(ARGS, long columns)
{
    OPEN;
    __local state part[GROUP];
    int x = get_local_id(0), y = get_local_id(1), terms = 0;
    long tiles = (columns + TILE - 1) / TILE, rows = results / columns;
    long u = get_group_id(0), row = u / tiles % rows, c = u % tiles * TILE + x, split = u / tiles / rows;
    const __global MEM_IN *p = in + gems_nest_offset(&kept, row) + c;
    A block = IDENTITY;
    state s;
    START(s);
    PART_OF(split)
    if (c < columns)
        for (; o < o_end; o++) {
            const __global MEM_IN *r = p + gems_nest_offset(&outer, o);
            for (long i = first + y; i < last; i += ROWS)
                STEP(s, TERM(r, i * stride));
        }
    JOIN(A, s, block);
    TREE(s, part, y * TILE + x, TILE, ROWS)
    if (y == 0 && c < columns)
        STORE(out, split * results + row * columns + c, s);
}
#endif

#if defined(KERNEL_wide) || defined(KERNEL_wide_across)
#include "kernels/wide.cl"
#define E WIDE_OF(IN)
static inline state meet(state a, state b)
{
    MEET(a, b);
    return a;
}
/* The j-th element of a vector, after `GEMS_CAT(wide_get_, IN)(q, got)`. */
#define TERM_OF(j) TO_A(map(TO_C(got[j])))
#endif

/* HELD vectors on their way at a time; their terms are added in four chains. */
#ifdef KERNEL_wide
#define BLOCK_OF(q)                                                                                                    \
    {                                                                                                                  \
        GEMS_CAT(num_, IN) got[E];                                                                                     \
        GEMS_CAT(wide_get_, IN)(q, got);                                                                               \
        UNROLL for (int j = 0; j < E; j++) block[j & 3] = combine(block[j & 3], TERM_OF(j));                           \
    }
#define BLOCK_START UNROLL for (int j = 0; j < 4; j++) block[j] = IDENTITY;
#define BLOCK_JOIN  JOIN(A, s, combine(combine(block[0], block[1]), combine(block[2], block[3])));
__kernel WIDE_ATTR void wide(ARGS)
{
    OPEN;
    WIDE_TREE_MEMORY(state, tree)
    WIDE_ROW(u, results * splits)
    const long split = SPLIT_OF(u, results), k = u - split * results;
    const __global MEM_IN *p = in + gems_nest_offset(&kept, k);
    A block[4];
    state s;
    START(s);
    PART_OF(split)
    for (; o < o_end; o++) {
        const __global MEM_IN *r = p + gems_nest_offset(&outer, o);
        const __global uint4 *from = (const __global uint4 *)(r + first);
        const long vectors = (last - first) / E;
        long i = lane;
        for (; i + (HELD - 1) * LANES < vectors; i += HELD * LANES) {
            uint4 held[HELD];
            UNROLL for (int h = 0; h < HELD; h++) held[h] = from[i + h * LANES];
            BLOCK_START
            UNROLL for (int h = 0; h < HELD; h++) BLOCK_OF(held[h])
            BLOCK_JOIN
        }
        for (; i < vectors; i += LANES) {
            BLOCK_START
            BLOCK_OF(from[i])
            BLOCK_JOIN
        }
        for (i = first + vectors * E + lane; i < last; i += LANES)
            JOIN(A, s, TERM(r, i));
    }
    WIDE_TREE(state, s, meet, tree)
    if (mine && lane == 0)
        STORE(out, u, s);
}
#endif

/* A group's items take E results each of LANES neighbouring vectors, and every DEEP-th term of them; then the group puts
 * the DEEP states of each result together, sixteen by sixteen. */
#ifdef KERNEL_wide_across
#define DEEP  (GROUP / LANES)
#define WIDTH (LANES * E)
__kernel WIDE_ATTR void wide_across(ARGS, long columns)
{
    OPEN;
    __local state part[GROUP * E];
    const int lane = get_local_id(0), y = get_local_id(1), slot = y * LANES + lane;
    /* No more groups than an int counts. */
    const uint tiles = (uint)((columns / E + LANES - 1) / LANES), rows = (uint)(results / columns);
    const uint u = get_group_id(0), unit = u / tiles, split = unit / rows, row = unit - split * rows;
    const long c0 = (long)(u - unit * tiles) * WIDTH; /* the first of the tile's results in its row */
    const __global MEM_IN *p = in + gems_nest_offset(&kept, row);
    state s[E];
    UNROLL for (int j = 0; j < E; j++) START(s[j]);
    PART_OF(split)
    if (c0 + lane * E < columns)
        for (; o < o_end; o++) {
            const __global uint4 *from =
                (const __global uint4 *)(p + gems_nest_offset(&outer, o) + (first + y) * stride + c0) + lane;
            const long step = DEEP * stride / E;
            int i = y, terms = (int)(last - first);
            _Pragma("unroll 1") for (; i + (HELD - 1) * DEEP < terms; i += HELD * DEEP, from += HELD * step) {
                uint4 held[HELD];
                A block[E];
                UNROLL for (int j = 0; j < E; j++) block[j] = IDENTITY;
                UNROLL for (int h = 0; h < HELD; h++) held[h] = from[h * step];
                UNROLL for (int h = 0; h < HELD; h++)
                {
                    GEMS_CAT(num_, IN) got[E];
                    GEMS_CAT(wide_get_, IN)(held[h], got);
                    UNROLL for (int j = 0; j < E; j++) block[j] = combine(block[j], TERM_OF(j));
                }
                UNROLL for (int j = 0; j < E; j++) JOIN(A, s[j], block[j]);
            }
            _Pragma("unroll 1") for (; i < terms; i += DEEP, from += step) {
                GEMS_CAT(num_, IN) got[E];
                GEMS_CAT(wide_get_, IN)(*from, got);
                UNROLL for (int j = 0; j < E; j++) JOIN(A, s[j], TERM_OF(j));
            }
        }
    UNROLL for (int j = 0; j < E; j++) part[y * WIDTH + lane * E + j] = s[j];
    for (int count = DEEP, next; count > 1; count = next) {
        next = count > 16 ? count / 16 : 1;
        state a;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (slot < next * WIDTH) {
            a = part[slot];
            _Pragma("unroll 1") for (int j = 1; j < count / next; j++)
                MEET(a, part[slot + j * next * WIDTH]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (slot < next * WIDTH)
            part[slot] = a;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int c = slot; c < WIDTH; c += GROUP)
        if (c0 + c < columns)
            STORE(out, split * results + row * columns + c0 + c, part[c]);
}
#endif

/* Part i of result k is parts[i * results + k]. */
#ifdef KERNEL_merge_few /* one work-item a result */
__kernel void merge_few(GEMS_BUFFER(const state, parts), GEMS_BUFFER(out_t, out), long results, long splits, long total)
{
    GEMS_AT(const state, parts);
    GEMS_AT(out_t, out);
    const long k = get_global_id(0);
    state s;
    START(s);
    if (k >= results)
        return;
    for (long i = 0; i < splits; i++)
        MEET(s, parts[i * results + k]);
    STORE(out, k, s);
}
#endif

#ifdef KERNEL_merge
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void merge(GEMS_BUFFER(const state, parts), GEMS_BUFFER(out_t, out),
                                                                       long results, long splits, long total)
{
    GEMS_AT(const state, parts);
    GEMS_AT(out_t, out);
    __local state part[GROUP];
    int me = get_local_id(0);
    long k = get_group_id(0);
    state s;
    START(s);
    for (long i = me; i < splits; i += GROUP)
        MEET(s, parts[i * results + k]);
    TREE(s, part, me, 1, GROUP)
    if (me == 0)
        STORE(out, k, s);
}
#endif
