#include "kernels/tensor/element.h"

#include "kernels/tensor/nest.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- bits of f16 and bf16 ---- */

static double float_of_half(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

static float float_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
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
        float a = float_of_bits(u) + 0.5f;
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

/* ---- numbers and elements ---- */

gems_number gems_element_number(gems_dtype dtype, const void *at)
{
    gems_number n = {.category = (gems_category)gems_dtypes[dtype].category};
    switch (dtype) {
    case GEMS_F16:
        n.f = float_of_half(*(const uint16_t *)at);
        break;
    case GEMS_BF16:
        n.f = float_of_bits((uint32_t) * (const uint16_t *)at << 16);
        break;
    case GEMS_F32:
        n.f = *(const float *)at;
        break;
    case GEMS_F64:
        n.f = *(const double *)at;
        break;
    case GEMS_I8:
        n.i = *(const int8_t *)at;
        break;
    case GEMS_I16:
        n.i = *(const int16_t *)at;
        break;
    case GEMS_I32:
        n.i = *(const int32_t *)at;
        break;
    case GEMS_I64:
        n.i = *(const int64_t *)at;
        break;
    case GEMS_BOOL:
        n.i = *(const uint8_t *)at != 0;
        break;
    default:
        n.i = *(const uint8_t *)at;
        break;
    }
    return n;
}

static bool float_element(double v, gems_dtype to, gems_element *out)
{
    static const double most[] = {[GEMS_F16] = 65504.0, [GEMS_BF16] = 0x1.fep127, [GEMS_F32] = FLT_MAX};
    if (to == GEMS_F64) {
        out->f64 = v;
        return true;
    }
    if (isfinite(v) && fabs(v) > most[to])
        return false;
    out->bits = 0;
    if (to == GEMS_F32)
        out->f32 = (float)v;
    else
        out->bits = to == GEMS_F16 ? f16_bits((float)v) : bf16_bits((float)v);
    return true;
}

bool gems_number_element(gems_number n, gems_dtype to, gems_element *out)
{
    if (gems_dtypes[to].category == GEMS_CAT_FLOAT)
        return float_element(gems_number_double(n), to, out);
    if (to == GEMS_BOOL) {
        out->bits = gems_number_double(n) != 0;
        return true;
    }
    bool is_signed = to != GEMS_U8;
    int bits = 8 * gems_dtypes[to].size - (is_signed ? 1 : 0);
    double top = ldexp(1.0, bits < 53 ? bits : 53); /* above 2^53 a double does not tell neighbours apart */
    if (n.category == GEMS_CAT_FLOAT && !(n.f >= (is_signed ? -top : 0) && n.f <= top - 1)) /* NaN, too */
        return false;
    int64_t i = n.category == GEMS_CAT_FLOAT ? (int64_t)n.f : n.i;
    if (bits < 63 && (i >= INT64_C(1) << bits || i < (is_signed ? -(INT64_C(1) << bits) : 0)))
        return false;
    out->bits = (uint64_t)i;
    return true;
}

bool gems_number_compute(gems_number n, gems_dtype to, bool unrounded, gems_element *out)
{
    if (!gems_number_element(n, to, out))
        return false;
    if (to == GEMS_F16 || to == GEMS_BF16)
        out->f32 = (float)(unrounded ? gems_number_double(n) : gems_element_number(to, &out->bits).f);
    return true;
}

/* ---- looking through a tensor ---- */

/* The loops over its elements, longest stride first; what is expanded need not be read again. */
static bool loops_of(const gems_tensor *t, gems_nest *nest, int64_t *n, int64_t *step, int64_t *rows)
{
    uint64_t dims = 0;
    for (int d = 0; d < t->ndim && d < 64; d++)
        dims |= (uint64_t)(t->strides[d] != 0) << d;
    if (t->ndim > 64 || !gems_nest_dims(t, dims, nest))
        return false;
    gems_nest_sort(nest);
    gems_nest_split_inner(nest, n, step);
    *rows = gems_nest_count(nest);
    return true;
}

#define COUNT_ZEROS(T)                                                                                                 \
    for (int64_t j = 0; j < n; j++)                                                                                    \
        zeros += ((const T *)data)[at + j * step] == 0;

bool gems_has_zero(const gems_tensor *t, const void *data)
{
    gems_nest nest;
    int64_t n, step, rows, zeros = 0;
    if (t->numel == 0)
        return false;
    if (!loops_of(t, &nest, &n, &step, &rows))
        return true;
    for (int64_t row = 0; row < rows && zeros == 0; row++) {
        int64_t at = gems_nest_offset(&nest, row);
        switch (gems_dtypes[t->dtype].size) {
        case 1:
            COUNT_ZEROS(int8_t)
            break;
        case 2:
            COUNT_ZEROS(int16_t)
            break;
        case 4:
            COUNT_ZEROS(int32_t)
            break;
        default:
            COUNT_ZEROS(int64_t)
            break;
        }
    }
    return zeros != 0;
}

/* Counted from the lowest one allowed: the sign bit of v, or of the largest one less v, tells of a wrong one. */
#define CHECK_RUN(T)                                                                                                   \
    for (int64_t j = 0; j < n; j++) {                                                                                  \
        uint64_t v = (uint64_t)(int64_t)((const T *)data)[at + j * step] - low;                                        \
        wrong |= v == but ? 0 : v | (most - v);                                                                        \
    }

bool gems_index_check(const gems_tensor *t, const void *data, gems_range range)
{
    const uint64_t low = (uint64_t)range.low, most = (uint64_t)range.end - low - 1, but = (uint64_t)range.ignored - low;
    gems_nest nest;
    int64_t n, step, rows;
    uint64_t wrong = 0;
    if (t->numel == 0)
        return true;
    if (range.end <= range.low || !loops_of(t, &nest, &n, &step, &rows))
        return false;
    for (int64_t row = 0; row < rows; row++) {
        int64_t at = gems_nest_offset(&nest, row);
        if (t->dtype == GEMS_I64)
            CHECK_RUN(int64_t)
        else
            CHECK_RUN(int32_t)
    }
    return wrong >> 63 == 0;
}
