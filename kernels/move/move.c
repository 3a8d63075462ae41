/* Launcher of move.cl: from tensors to a block of dimensions, a variant of the device code and a launch. */
#include "kernels/move/move.h"
#include "tune/table.h"

#include <stdio.h>
#include <string.h>

enum {
    MOVE,
    FILL,
    TRI
};

/* What makes a program, and identifies it: every byte is set. */
typedef struct variant {
    char family[4]; /* "move": no other family's identity is the same */
    uint8_t kind, word, rank, index, from, to;
    uint8_t each;              /* words of a work-item on a GPU; elements of a vector of a triangle */
    int8_t dst_step, src_step; /* 2: not known to the compiler */
    bool inner_pick, axis_one, wide, upper, in_place, cpu, truth;
} variant;

/* The block as the kernel takes it, with arrays of exactly `rank`: 2 + 4 * rank + 4 numbers. */
typedef struct packed {
    int64_t v[2 + 4 * GEMS_MOVE_RANK + 4];
    int n;
} packed;

void gems_move_add(gems_move *m, int64_t size, int64_t dst, int64_t src, int64_t pick)
{
    if (size != 1)
        m->dim[m->rank++] = (gems_move_dim){size, dst, src, pick};
}

static int64_t magnitude(int64_t v)
{
    return v < 0 ? -v : v;
}

/* Sorts dimensions by destination stride, then by source stride, largest first, and merges those that can be walked as
 * one. Leaves at least one dimension. */
static void simplify(gems_move *m)
{
    for (int i = 1; i < m->rank; i++) {
        gems_move_dim x = m->dim[i];
        int j = i;
        for (; j > 0 && (m->dim[j - 1].dst < x.dst ||
                         (m->dim[j - 1].dst == x.dst && magnitude(m->dim[j - 1].src) < magnitude(x.src)));
             j--)
            m->dim[j] = m->dim[j - 1];
        m->dim[j] = x;
    }
    int n = 0;
    for (int i = 1; i < m->rank; i++) {
        gems_move_dim *a = &m->dim[n], x = m->dim[i];
        if (a->dst == x.dst * x.size && a->src == x.src * x.size && a->pick == x.pick * x.size) {
            x.size *= a->size;
            *a = x;
        } else {
            m->dim[++n] = x;
        }
    }
    if (m->rank == 0) /* one element */
        m->dim[0] = (gems_move_dim){1, 1, 1, 0};
    m->rank = n + 1;
}

static bool is_row(const gems_move *m)
{
    const gems_move_dim *in = &m->dim[m->rank - 1];
    return in->dst == 1 && in->src == 1 && in->pick == 0;
}

/* A CPU walks the innermost dimension in a loop: make it a long one if there is a choice between the last two. */
static void lengthen(gems_move *m)
{
    gems_move_dim *in = &m->dim[m->rank - 1], *out = in - 1;
    if (m->rank > 1 && in->size < 8 && out->size > in->size) {
        gems_move_dim x = *in;
        *in = *out;
        *out = x;
    }
}

/* Makes the elements of dense rows into words of up to `most` bytes, as far as every offset, stride and address allows.
 * Returns the size of a word. */
static int widen(gems_move *m, int size, int most)
{
    gems_move_dim *in = &m->dim[m->rank - 1];
    uint64_t bits = (uint64_t)(in->size | m->dst_at | m->src_at | m->axis) * (unsigned)size;
    for (int d = 0; d < m->rank - 1; d++)
        bits |= (uint64_t)(m->dim[d].dst | m->dim[d].src) * (unsigned)size;
    bits |= m->to->address | (m->from ? m->from->address : 0);
    int by = 1;
    while (by * size < most && bits % (2 * (unsigned)(by * size)) == 0)
        by *= 2;
    m->dst_at /= by;
    m->src_at /= by;
    m->axis /= by;
    for (int d = 0; d < m->rank - 1; d++) {
        m->dim[d].dst /= by;
        m->dim[d].src /= by;
    }
    in->size /= by;
    if (in->size == 1 && m->rank > 1) /* a row is one word */
        m->rank--;
    return by * size;
}

/* Widest word worth having: vector registers are filled by the CPU's compiler itself, if rows are longer than a word.
 */
static int word_most(const gems_move *m, int size, bool cpu)
{
    return cpu && m->dim[m->rank - 1].size * size != 16 ? 8 : 16;
}

static packed pack(const gems_move *m, int64_t total, int64_t run)
{
    const int rank = m->rank;
    packed p = {.v = {total, run}, .n = 2 + 4 * rank};
    for (int d = 0; d < rank; d++) {
        p.v[2 + d] = m->dim[d].size;
        p.v[2 + rank + d] = m->dim[d].dst;
        p.v[2 + 2 * rank + d] = m->dim[d].src;
        p.v[2 + 3 * rank + d] = m->dim[d].pick;
    }
    p.v[p.n++] = m->dst_at;
    p.v[p.n++] = m->src_at;
    p.v[p.n++] = m->axis;
    p.v[p.n++] = m->limit;
    return p;
}

/* True if an offset or a count may not fit 32 bits. */
static bool is_wide(const gems_move *m, int64_t total)
{
    int64_t dst = m->dst_at, src = magnitude(m->src_at) + magnitude(m->axis) * m->limit, pick = 0;
    for (int d = 0; d < m->rank; d++) {
        dst += m->dim[d].size * m->dim[d].dst;
        src += m->dim[d].size * magnitude(m->dim[d].src);
        pick += m->dim[d].size * m->dim[d].pick;
    }
    const int64_t most = INT32_MAX - 4096; /* the last work-group may pass the end */
    return total > most || dst > most || src > most || pick > most;
}

/* Steps of the innermost loop that are worth a program of their own. */
static int8_t known_step(int64_t stride)
{
    return (int8_t)(stride >= -1 && stride <= 1 ? stride : 2);
}

static void set_steps(variant *v, const gems_move *m)
{
    const gems_move_dim *in = &m->dim[m->rank - 1];
    v->dst_step = known_step(in->dst);
    v->src_step = known_step(in->src);
}

static const char *word_name(int bytes)
{
    static const char *const names[] = {"uchar", "ushort", "uint", "ulong", "ulong2"};
    return names[__builtin_ctz((unsigned)bytes)];
}

static gems_kernel *kernel_of(gems_work *work, const variant *v)
{
    static const char *const kinds[] = {"MOVE", "FILL", "TRI"}, *const entries[] = {"move", "fill", "tri"};
    gems_kernel *kernel = gems_work_find(work, v, sizeof *v);
    if (kernel || work->trouble.kind != GEMS_TROUBLE_NONE)
        return kernel;
    char options[256];
    int n = snprintf(options, sizeof options, "-D%s_KERNEL -DW=%s -DRANK=%d -DWIDE=%s", kinds[v->kind],
                     word_name(v->word), v->rank, v->wide ? "long" : "int");
    if (v->index != GEMS_DTYPE_NONE)
        n += snprintf(options + n, sizeof options - (size_t)n, " -DINDEX=%s", gems_dtypes[v->index].cl);
    if (v->from != v->to)
        n += snprintf(options + n, sizeof options - (size_t)n, " -DFROM=%s -DTO=%s", gems_dtypes[v->from].name,
                      gems_dtypes[v->to].name);
    if (v->dst_step < 2)
        n += snprintf(options + n, sizeof options - (size_t)n, " -DDST_STEP=%d", v->dst_step);
    if (v->src_step < 2)
        n += snprintf(options + n, sizeof options - (size_t)n, " -DSRC_STEP=(%d)", v->src_step);
    const bool vectors = v->kind == TRI && v->each > 1;
    if (v->each > 1)
        n += snprintf(options + n, sizeof options - (size_t)n, " -DEACH=%d", v->each);
    if (vectors) /* bits of that size; but bools are read as such */
        n += snprintf(options + n, sizeof options - (size_t)n, " -DD=%s",
                      v->truth       ? "bool"
                      : v->word == 1 ? "u8"
                      : v->word == 2 ? "i16"
                      : v->word == 4 ? "i32"
                                     : "i64");
    snprintf(options + n, sizeof options - (size_t)n, "%s%s%s%s%s", v->axis_one ? " -DAXIS=1" : "",
             v->inner_pick ? " -DINNER_PICK" : "", v->truth ? " -DTRUTH" : "",
             v->kind != TRI ? ""
             : v->upper     ? " -DKEEP_UPPER"
                            : " -DKEEP_LOWER",
             v->in_place ? " -DIN_PLACE" : "");
    const char *includes = vectors            ? "kernels/wide.cl kernels/move/move.cl"
                           : v->from != v->to ? "kernels/types.cl kernels/move/move.cl"
                                              : "kernels/move/move.cl";
    gems_kernel_text text = {entries[v->kind], includes, "", options, entries[v->kind]};
    return gems_work_build(work, v, sizeof *v, &text);
}

/* How `total` units of work (`bytes` in all) are spread: on a CPU over a few long runs, on a GPU one each. */
typedef struct spread {
    size_t items;
    int64_t run;
} spread;

static spread spread_of(const gems_device_info *device, int64_t total, int64_t bytes)
{
    if (!device->is_cpu)
        return (spread){(size_t)total, 1};
    const int64_t least = 32 << 10; /* bytes worth handing to another thread */
    int64_t items = (int64_t)device->compute_units * 4;
    if (items > bytes / least)
        items = bytes / least;
    if (items < 1 || device->compute_units == 1)
        items = 1;
    if (items > total)
        items = total > 1 ? total : 1;
    int64_t run = (total + items - 1) / items;
    return (spread){(size_t)((total + run - 1) / run), run};
}

/* `args`: the memory, with room for one more. */
static void enqueue(gems_work *work, variant *v, const gems_move *m, gems_arg *args, int nargs)
{
    const gems_device_info *device = gems_device_get(work->lane);
    int64_t total = 1;
    for (int d = 0; d < m->rank; d++)
        total *= m->dim[d].size;
    v->rank = (uint8_t)m->rank;
    v->wide = !device->is_cpu && is_wide(m, total);
    /* A CPU takes whole rows of a triangle. */
    const int64_t last = m->dim[m->rank - 1].size;
    const int64_t units = v->kind == TRI && device->is_cpu && last > 0 ? total / last : total;
    spread s = spread_of(device, units, total * v->word);
    if (v->kind != TRI && v->each > 1)
        s.items = (size_t)((total + v->each - 1) / v->each);
    const packed p = pack(m, total, s.run);
    args[nargs++] = GEMS_BYTES(p.v, (size_t)p.n * sizeof p.v[0]);
    const size_t group = device->is_cpu ? 1 : gems_group(device, 256);
    const size_t global = (s.items + group - 1) / group * group;
    gems_launch(work, kernel_of(work, v), 1, &global, &group, args, nargs);
}

/* A kernel that copies bits. */
static variant variant_of(uint8_t kind, const gems_tensor *to, const gems_device_info *device)
{
    return (variant){.family = "move",
                     .kind = kind,
                     .word = gems_dtypes[to->dtype].size,
                     .from = GEMS_DTYPE_NONE,
                     .to = GEMS_DTYPE_NONE,
                     .index = GEMS_DTYPE_NONE,
                     .cpu = device->is_cpu};
}

void gems_move_launch(gems_work *work, const gems_move *given)
{
    gems_move m = *given;
    const gems_device_info *device = gems_device_get(work->lane);
    simplify(&m);

    variant v = variant_of(MOVE, m.to, device);
    if (m.from->dtype != m.to->dtype) {
        v.from = m.from->dtype;
        v.to = m.to->dtype;
    } else { /* only the size of an element matters: fewer programs */
        v.truth = m.truth && m.to->dtype == GEMS_BOOL;
        if (is_row(&m))
            v.word = (uint8_t)widen(&m, v.word, word_most(&m, v.word, device->is_cpu));
    }
    if (device->is_cpu)
        lengthen(&m);
    set_steps(&v, &m);
    if (m.index)
        v.index = m.index->dtype;
    v.axis_one = m.index && m.axis == 1;
    v.inner_pick = m.index && m.dim[m.rank - 1].pick != 0;
    /* Loads that wait for an index: several on their way at a time. */
    if (!device->is_cpu)
        v.each = (uint8_t)(m.each ? m.each : m.index ? 4 : 1);
    gems_arg args[4] = {GEMS_OUT_ARG(m.to), GEMS_IN(m.from)};
    int n = 2;
    if (m.index)
        args[n++] = GEMS_IN(m.index);
    enqueue(work, &v, &m, args, n);
}

void gems_move_copy(gems_work *work, const gems_tensor *to, const gems_tensor *from)
{
    gems_move move = {.to = to, .from = from};
    for (int d = 0; d < to->ndim; d++)
        gems_move_add(&move, to->sizes[d], to->strides[d], from->strides[d], 0);
    gems_move_launch(work, &move);
}

void gems_fill_launch(gems_work *work, const gems_tensor *to, uint64_t bits)
{
    gems_move m = {.to = to};
    const gems_device_info *device = gems_device_get(work->lane);
    int size = gems_dtypes[to->dtype].size;
    for (int d = 0; d < to->ndim; d++)
        gems_move_add(&m, to->sizes[d], to->strides[d], to->strides[d], 0);
    simplify(&m);

    variant v = variant_of(FILL, to, device);
    if (is_row(&m))
        v.word = (uint8_t)widen(&m, size, 8);
    if (device->is_cpu)
        lengthen(&m);
    set_steps(&v, &m);
    if (size < 8)
        bits &= ((uint64_t)1 << (8 * size)) - 1;
    for (int have = size; have < v.word; have *= 2)
        bits |= bits << (8 * have);
    gems_arg args[3] = {GEMS_OUT_ARG(to), GEMS_BYTES(&bits, v.word)};
    enqueue(work, &v, &m, args, 2);
}

void gems_tri_launch(gems_work *work, const gems_tensor *to, const gems_tensor *from, int64_t diagonal, bool upper)
{
    gems_move m = {.to = to, .from = from};
    const int last = to->ndim - 1;
    const int64_t rows = to->sizes[last - 1], cols = to->sizes[last];
    m.limit = diagonal < -rows ? -rows : diagonal > cols ? cols : diagonal;
    for (int d = 0; d <= last; d++) /* all of them: the kernel needs row and column apart */
        m.dim[m.rank++] = (gems_move_dim){to->sizes[d], to->strides[d], from->strides[d], 0};

    const gems_device_info *device = gems_device_get(work->lane);
    variant v = variant_of(TRI, to, device);
    v.upper = upper;
    v.in_place = to->address == from->address;
    if (!device->is_cpu && !v.in_place && is_row(&m)) {
        gems_move wide = m;
        if (widen(&wide, v.word, 16) == 16 && wide.rank == m.rank) { /* in vectors, as far as that is all */
            v.each = (uint8_t)(16 / v.word);
            m = wide;
        }
    }
    set_steps(&v, &m);
    v.truth = to->dtype == GEMS_BOOL && !v.in_place;
    gems_arg args[3] = {v.in_place ? GEMS_INOUT(to) : GEMS_OUT_ARG(to), GEMS_IN(from)};
    enqueue(work, &v, &m, args, v.in_place ? 1 : 2);
}

const gems_variant gems_move_variants[] = {{"move", .params = {{"each", 1, 8, 1, 0}}}, {NULL}};
