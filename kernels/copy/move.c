/* Launcher of move.cl, and the layout rules that the families of kernels/copy and kernels/index share. */
#include "kernels/copy/move.h"
#include "tune/table.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- layout -------------------------------------------------------------------------------------------------- */

void gems_move_strides(int ndim, const int64_t *sizes, int64_t *strides)
{
    int64_t step = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        strides[d] = step;
        step *= sizes[d] > 1 ? sizes[d] : 1;
    }
}

/* Orders dimensions by stride; they do not overlap if each stride steps over everything that the smaller ones reach. */
bool gems_move_overlaps_itself(const gems_tensor *t)
{
    int64_t reach = 0, done = -1;
    for (int n = 0; n < t->ndim; n++) {
        int64_t next = INT64_MAX;
        for (int d = 0; d < t->ndim; d++)
            if (t->sizes[d] > 1 && t->strides[d] > done && t->strides[d] < next)
                next = t->strides[d];
        if (next == INT64_MAX)
            break;
        int same = 0;
        int64_t size = 1;
        for (int d = 0; d < t->ndim; d++)
            if (t->sizes[d] > 1 && t->strides[d] == next) {
                same++;
                size = t->sizes[d];
            }
        if (same > 1 || next <= reach)
            return true;
        reach += (size - 1) * next;
        done = next;
    }
    return false;
}

bool gems_move_overlap(const gems_tensor *a, const gems_tensor *b)
{
    const char *a0 = a->data, *b0 = b->data;
    const char *a1 = a0 + gems_tensor_span(a) * gems_dtypes[a->dtype].size;
    const char *b1 = b0 + gems_tensor_span(b) * gems_dtypes[b->dtype].size;
    return a0 < b1 && b0 < a1;
}

int gems_move_wrap(int64_t dim, int ndim)
{
    int n = ndim > 0 ? ndim : 1;
    if (dim < -n || dim >= n)
        return -1;
    return (int)(dim < 0 ? dim + n : dim);
}

/* Dimensions of a channels-last layout, innermost first. */
static const int last_order[2][5] = {{1, 3, 2, 0}, {1, 4, 3, 2, 0}};

/* Follows the host's rule: strides that grow in channels-last order, where the layout is not ambiguous. */
static bool is_channels_last(const gems_tensor *t)
{
    const int *order = last_order[t->ndim - 4];
    int64_t least = 0;
    if (t->strides[1] == 0)
        return false;
    for (int k = 0; k < t->ndim; k++) {
        int d = order[k];
        if (t->sizes[d] == 0 || t->strides[d] < least || (d == 0 && least == t->strides[1]))
            return false;
        least = t->strides[d];
        if (t->sizes[d] > 1)
            least *= t->sizes[d];
    }
    return true;
}

gems_format gems_move_format(const gems_tensor *t)
{
    if ((t->ndim != 4 && t->ndim != 5) || !is_channels_last(t))
        return GEMS_CONTIGUOUS;
    return t->ndim == 4 ? GEMS_CHANNELS_LAST : GEMS_CHANNELS_LAST_3D;
}

void gems_format_strides(gems_format format, int ndim, const int64_t *sizes, int64_t *strides)
{
    if (format == GEMS_CONTIGUOUS) {
        gems_move_strides(ndim, sizes, strides);
        return;
    }
    const int *order = last_order[ndim - 4];
    int64_t step = 1;
    for (int k = 0; k < ndim; k++) {
        strides[order[k]] = step;
        step *= sizes[order[k]] > 1 ? sizes[order[k]] : 1;
    }
}

/* Neighbours along the innermost dimension of the index, one pass each; the sign bit of a - b or of a tells. */
#define CHECK_RUN(T)                                                                                                   \
    do {                                                                                                               \
        const T *p = (const T *)t->data + base;                                                                        \
        T lowest = 0, highest = 0;                                                                                     \
        for (int64_t j = 0; j < n; j++) {                                                                              \
            T v = p[j * step];                                                                                         \
            lowest = v < lowest ? v : lowest;                                                                          \
            highest = v > highest ? v : highest;                                                                       \
        }                                                                                                              \
        if (lowest < 0 || highest >= limit)                                                                            \
            return false;                                                                                              \
    } while (0)

bool gems_index_check(const gems_tensor *t, int64_t limit)
{
    bool flat = gems_tensor_is_contiguous(t) || t->ndim == 0;
    int64_t n = flat ? t->numel : t->sizes[t->ndim - 1];
    int64_t step = flat ? 1 : t->strides[t->ndim - 1];
    for (int64_t row = 0; row * n < t->numel; row++) {
        int64_t base = 0, rest = row;
        for (int d = t->ndim - 2; !flat && d >= 0; d--) {
            base += rest % t->sizes[d] * t->strides[d];
            rest /= t->sizes[d];
        }
        if (t->dtype == GEMS_I64)
            CHECK_RUN(int64_t);
        else
            CHECK_RUN(int32_t);
    }
    return true;
}

/* -1: a before b (smaller stride), 1: b before a, 0: undecided. A stride of 0 says nothing. */
static int stride_order(const gems_tensor *t, int a, int b)
{
    int64_t x = t->strides[a], y = t->strides[b];
    if (x == 0 || y == 0)
        return 0;
    if (x != y)
        return x < y ? -1 : 1;
    return t->sizes[a] > t->sizes[b] ? 1 : 0;
}

void gems_preserved_strides(const gems_tensor *t, int64_t *strides)
{
    if (gems_tensor_is_dense(t)) {
        memcpy(strides, t->strides, (size_t)t->ndim * sizeof *strides);
        return;
    }
    int order[64]; /* innermost first; a stable sort that skips undecided neighbours */
    for (int i = 0; i < t->ndim; i++) {
        order[i] = t->ndim - 1 - i;
        for (int j = i - 1, k = i; j >= 0; j--) {
            int c = stride_order(t, order[j], order[k]);
            if (c < 0)
                break;
            if (c > 0) {
                int x = order[j];
                order[j] = order[k];
                order[k] = x;
                k = j;
            }
        }
    }
    int64_t step = 1;
    for (int i = 0; i < t->ndim; i++) {
        strides[order[i]] = step;
        step *= t->sizes[order[i]] > 1 ? t->sizes[order[i]] : 1;
    }
}

/* Half-precision bits of a float, rounded to nearest even; overflow gives infinity. */
static uint16_t f16_bits(float f)
{
    uint32_t u, sign;
    memcpy(&u, &f, sizeof u);
    sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (u >= 0x47800000)
        return (uint16_t)(sign | 0x7c00);
    if (u < 0x38800000) { /* subnormal: adding 0.5 rounds at its last place */
        float a;
        memcpy(&a, &u, sizeof a);
        a += 0.5f;
        memcpy(&u, &a, sizeof u);
        return (uint16_t)(sign | (u - 0x3f000000));
    }
    return (uint16_t)(sign | ((u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13));
}

static uint16_t bf16_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffff) > 0x7f800000)
        return 0x7fc0;
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static bool float_bits(double v, gems_dtype dtype, uint64_t *bits)
{
    static const double most[] = {[GEMS_F16] = 65504.0, [GEMS_BF16] = 0x1.fep127, [GEMS_F32] = FLT_MAX};
    if (dtype != GEMS_F64 && isfinite(v) && fabs(v) > most[dtype])
        return false;
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    switch (dtype) {
    case GEMS_F16:
        *bits = f16_bits(f);
        break;
    case GEMS_BF16:
        *bits = bf16_bits(f);
        break;
    case GEMS_F32:
        *bits = u;
        break;
    default:
        memcpy(bits, &v, sizeof v);
    }
    return true;
}

bool gems_fill_bits(const gems_value *value, gems_dtype dtype, uint64_t *bits)
{
    const bool real = value->kind == GEMS_SCALAR_FLOAT;
    if (!real && value->kind != GEMS_SCALAR_INT && value->kind != GEMS_SCALAR_BOOL)
        return false;
    if (gems_dtypes[dtype].category == GEMS_CAT_FLOAT)
        return float_bits(real ? value->f : (double)value->i, dtype, bits);
    if (dtype == GEMS_BOOL) {
        *bits = real ? value->f != 0 : value->i != 0;
        return true;
    }
    if (real && !(value->f > -0x1p53 && value->f < 0x1p53)) /* NaN, or not exact: the host decides */
        return false;
    const int64_t v = real ? (int64_t)value->f : value->i;
    const int width = 8 * gems_dtypes[dtype].size;
    const int64_t top = dtype == GEMS_U8 ? 255 : width < 64 ? ((int64_t)1 << (width - 1)) - 1 : INT64_MAX;
    if (v > top || (dtype == GEMS_U8 ? v < 0 : v < -top - 1))
        return false;
    *bits = (uint64_t)v;
    return true;
}

/* ---- from tensors to a launch -------------------------------------------------------------------------------- */

enum {
    MOVE,
    FILL,
    TRI
};

/* What makes a program: hashed as a whole, so every byte is set. */
typedef struct variant {
    uint8_t kind, word, rank, index, from, to;
    bool row, inner_pick, wide, upper, in_place, cpu;
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
    bits |= (uintptr_t)m->to->data | (m->from ? (uintptr_t)m->from->data : 0);
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
    packed p = {.n = 0};
    p.v[p.n++] = total;
    p.v[p.n++] = run;
    for (int d = 0; d < m->rank; d++)
        p.v[p.n++] = m->dim[d].size;
    for (int d = 0; d < m->rank; d++)
        p.v[p.n++] = m->dim[d].dst;
    for (int d = 0; d < m->rank; d++)
        p.v[p.n++] = m->dim[d].src;
    for (int d = 0; d < m->rank; d++)
        p.v[p.n++] = m->dim[d].pick;
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

static const char *word_name(int bytes)
{
    static const char *const names[] = {"uchar", "ushort", "uint", "ulong", "ulong2"};
    return names[__builtin_ctz((unsigned)bytes)];
}

/* FNV-1a of the variant, kept apart from other files' keys by its start. */
static uint64_t variant_key(const variant *v)
{
    uint64_t h = 0x6d6f766500000000u ^ 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof *v; i++)
        h = (h ^ ((const uint8_t *)v)[i]) * 0x100000001b3u;
    return h;
}

static gems_kernel *kernel_of(gems_job *job, const variant *v)
{
    static const char *const kinds[] = {"MOVE", "FILL", "TRI"}, *const entries[] = {"move", "fill", "tri"};
    uint64_t key = variant_key(v);
    gems_kernel *kernel = gems_kernel_find(job, key);
    if (kernel)
        return kernel;
    char options[256];
    int n = snprintf(options, sizeof options, "-D%s_KERNEL -DW=%s -DRANK=%d -DWIDE=%s", kinds[v->kind],
                     word_name(v->word), v->rank, v->wide ? "long" : "int");
    if (v->index != GEMS_DTYPE_NONE)
        n += snprintf(options + n, sizeof options - (size_t)n, " -DINDEX=%s", gems_dtypes[v->index].cl);
    if (v->from != v->to)
        n += snprintf(options + n, sizeof options - (size_t)n, " -DFROM=%s -DTO=%s", gems_dtypes[v->from].name,
                      gems_dtypes[v->to].name);
    snprintf(options + n, sizeof options - (size_t)n, "%s%s%s%s", v->row ? " -DROW" : "",
             v->inner_pick ? " -DINNER_PICK" : "",
             v->kind != TRI ? ""
             : v->upper     ? " -DKEEP_UPPER"
                            : " -DKEEP_LOWER",
             v->in_place ? " -DIN_PLACE" : "");
    return gems_kernel_build(job, key, entries[v->kind],
                             v->from != v->to ? "kernels/types.cl kernels/copy/move.cl" : "kernels/copy/move.cl", "",
                             options, entries[v->kind]);
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
        items = total;
    int64_t run = (total + items - 1) / items;
    return (spread){(size_t)((total + run - 1) / run), run};
}

static void enqueue(gems_job *job, gems_kernel *kernel, spread s, const gems_arg *args, int nargs)
{
    const size_t group = gems_job_device(job)->is_cpu ? 1 : 256;
    const size_t global = (s.items + group - 1) / group * group;
    gems_launch(job, kernel, 1, &global, &group, args, nargs);
}

static gems_arg output(const gems_tensor *t)
{
    return gems_tensor_is_dense(t) ? GEMS_OUT_ARG(t) : GEMS_INOUT(t);
}

void gems_move_launch(gems_job *job, const gems_move *given)
{
    gems_move m = *given;
    const gems_device_info *device = gems_job_device(job);
    const int size = gems_dtypes[m.to->dtype].size;
    simplify(&m);

    variant v = {.kind = MOVE,
                 .word = (uint8_t)size,
                 .from = m.from->dtype,
                 .to = m.to->dtype,
                 .index = m.index ? m.index->dtype : GEMS_DTYPE_NONE,
                 .cpu = device->is_cpu};
    if (v.from == v.to) { /* only the size of an element matters: fewer programs */
        v.from = v.to = GEMS_DTYPE_NONE;
        if (is_row(&m))
            v.word = (uint8_t)widen(&m, size, word_most(&m, size, device->is_cpu));
    }
    if (device->is_cpu)
        lengthen(&m);
    v.row = is_row(&m);
    v.inner_pick = m.index && m.dim[m.rank - 1].pick != 0;
    v.rank = (uint8_t)m.rank;

    int64_t total = 1;
    for (int d = 0; d < m.rank; d++)
        total *= m.dim[d].size;
    v.wide = !device->is_cpu && is_wide(&m, total);
    spread s = spread_of(device, total, total * v.word);
    packed p = pack(&m, total, s.run);
    gems_arg args[4] = {output(m.to), GEMS_IN(m.from)};
    int n = 2;
    if (m.index)
        args[n++] = GEMS_IN(m.index);
    args[n++] = GEMS_BYTES(p.v, (size_t)p.n * sizeof p.v[0]);
    enqueue(job, kernel_of(job, &v), s, args, n);
}

void gems_fill_launch(gems_job *job, const gems_tensor *to, uint64_t bits)
{
    gems_move m = {.to = to};
    const gems_device_info *device = gems_job_device(job);
    int size = gems_dtypes[to->dtype].size;
    for (int d = 0; d < to->ndim; d++)
        gems_move_add(&m, to->sizes[d], to->strides[d], to->strides[d], 0);
    simplify(&m);

    variant v = {.kind = FILL,
                 .word = (uint8_t)size,
                 .from = GEMS_DTYPE_NONE,
                 .to = GEMS_DTYPE_NONE,
                 .index = GEMS_DTYPE_NONE,
                 .cpu = device->is_cpu};
    if (is_row(&m))
        v.word = (uint8_t)widen(&m, size, 8);
    if (device->is_cpu)
        lengthen(&m);
    v.row = is_row(&m);
    v.rank = (uint8_t)m.rank;
    if (size < 8)
        bits &= ((uint64_t)1 << (8 * size)) - 1;
    for (int have = size; have < v.word; have *= 2)
        bits |= bits << (8 * have);

    int64_t total = 1;
    for (int d = 0; d < m.rank; d++)
        total *= m.dim[d].size;
    v.wide = !device->is_cpu && is_wide(&m, total);
    spread s = spread_of(device, total, total * v.word);
    packed p = pack(&m, total, s.run);
    gems_arg args[] = {output(to), GEMS_BYTES(&bits, v.word), GEMS_BYTES(p.v, (size_t)p.n * sizeof p.v[0])};
    enqueue(job, kernel_of(job, &v), s, args, 3);
}

void gems_tri_launch(gems_job *job, const gems_tensor *to, const gems_tensor *from, int64_t diagonal, bool upper)
{
    gems_move m = {.to = to, .from = from};
    const gems_device_info *device = gems_job_device(job);
    const int size = gems_dtypes[to->dtype].size, last = to->ndim - 1;
    const int64_t rows = to->sizes[last - 1], cols = to->sizes[last];
    m.limit = diagonal < -rows ? -rows : diagonal > cols ? cols : diagonal;
    for (int d = 0; d <= last; d++) /* all of them: the kernel needs row and column apart */
        m.dim[m.rank++] = (gems_move_dim){to->sizes[d], to->strides[d], from->strides[d], 0};

    variant v = {.kind = TRI,
                 .from = GEMS_DTYPE_NONE,
                 .to = GEMS_DTYPE_NONE,
                 .index = GEMS_DTYPE_NONE,
                 .word = (uint8_t)size,
                 .cpu = device->is_cpu,
                 .rank = (uint8_t)m.rank,
                 .upper = upper,
                 .in_place = to->data == from->data};
    v.row = m.dim[last].dst == 1 && m.dim[last].src == 1;
    v.wide = !device->is_cpu && is_wide(&m, to->numel);
    spread s = spread_of(device, device->is_cpu ? to->numel / cols : to->numel, to->numel * size);
    packed p = pack(&m, to->numel, s.run);
    gems_arg args[3] = {v.in_place ? GEMS_INOUT(to) : output(to), GEMS_IN(from)};
    args[v.in_place ? 1 : 2] = GEMS_BYTES(p.v, (size_t)p.n * sizeof p.v[0]);
    enqueue(job, kernel_of(job, &v), s, args, v.in_place ? 2 : 3);
}

gems_job *gems_move_begin(gems_call *call)
{
    const int64_t little = 256 << 10; /* bytes that one core moves in the time it takes to wake the others */
    int64_t lane = call->sizes.v[GEMS_SIZE_BYTES] < little ? GEMS_LANE_SMALL : GEMS_LANE_MAIN;
    return gems_job_begin(call, (gems_lane)gems_rule_param(call->rule, "lane", lane));
}
