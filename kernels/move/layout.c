/* The layout rules of kernels/move/move.h: strides of results, overlaps, memory formats, indices and scalars. No
 * device. */
#include "kernels/move/move.h"

#include <float.h>
#include <math.h>
#include <string.h>

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

/* Goes through `n` indices of type T; the sign bit of v or of the largest one allowed less v tells of a wrong one. */
#define CHECK_RUN(T)                                                                                                   \
    for (int64_t j = 0; j < n; j++) {                                                                                  \
        uint64_t v = (uint64_t)(int64_t)((const T *)t->data)[base + j * step];                                         \
        wrong |= v | (most - v);                                                                                       \
    }

bool gems_index_check(const gems_tensor *t, int64_t limit)
{
    int64_t sizes[GEMS_MOVE_RANK], strides[GEMS_MOVE_RANK], n = 1, step = 1, rows = 1;
    const uint64_t most = (uint64_t)limit - 1;
    uint64_t wrong = 0;
    int rank = 0;
    for (int d = 0; d < t->ndim; d++) {
        if (t->sizes[d] == 1 || t->strides[d] == 0) /* what is expanded need not be read again */
            continue;
        if (rank > 0 && strides[rank - 1] == t->sizes[d] * t->strides[d]) {
            sizes[rank - 1] *= t->sizes[d];
            strides[rank - 1] = t->strides[d];
            continue;
        }
        sizes[rank] = t->sizes[d];
        strides[rank++] = t->strides[d];
    }
    if (rank > 0) {
        n = sizes[--rank];
        step = strides[rank];
    }
    for (int d = 0; d < rank; d++)
        rows *= sizes[d];
    for (int64_t row = 0; row < rows; row++) {
        int64_t base = 0, rest = row;
        for (int d = rank - 1; d >= 0; d--) {
            base += rest % sizes[d] * strides[d];
            rest /= sizes[d];
        }
        if (t->dtype == GEMS_I64)
            CHECK_RUN(int64_t)
        else
            CHECK_RUN(int32_t)
    }
    return wrong >> 63 == 0;
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
