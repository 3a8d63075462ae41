/* Numbers passed by value: from the host's scalars and 0-dim tensors to the type that a kernel computes with. */
#include "kernels/pointwise/number.h"

#include <math.h>

/* Rounds to a float with `bits` of significand (the hidden one counted) and exponents from `least` up: to even. */
static double round_to(double v, int bits, int least)
{
    int e;
    if (v == 0 || !isfinite(v))
        return v;
    frexp(v, &e);
    int drop = (e - bits < least ? least : e - bits);
    return ldexp(nearbyint(ldexp(v, -drop)), drop);
}

/* Largest finite value, bits of the significand, exponent of the smallest subnormal; by dtype. */
static const struct {
    double max;
    int bits, least;
} floats[] = {
    [GEMS_F16] = {65504.0, 11, -24}, [GEMS_BF16] = {0x1.fep127, 8, -133}, [GEMS_F32] = {0x1.fffffep127, 24, -149}};

bool gems_number_convert(const gems_value *v, gems_dtype to, bool opmath, pw_number *out)
{
    const gems_dtype_info *info = &gems_dtypes[to];
    if (info->category == GEMS_CAT_FLOAT) {
        double x = gems_number_of(v);
        if (to == GEMS_F64) {
            out->f64 = x;
            return true;
        }
        if (isfinite(x) && fabs(x) > floats[to].max)
            return false;
        if (!opmath && info->size == 2)
            x = round_to((double)(float)x, floats[to].bits, floats[to].least);
        out->f32 = (float)x;
        return true;
    }
    if (to == GEMS_BOOL) {
        out->u8 = gems_number_of(v) != 0;
        return true;
    }
    bool is_signed = to != GEMS_U8;
    int bits = 8 * info->size - (is_signed ? 1 : 0);
    double top = ldexp(1.0, bits < 53 ? bits : 53);
    if (v->kind == GEMS_SCALAR_FLOAT && !(v->f >= (is_signed ? -top : 0) && v->f <= top - 1)) /* NaN, too */
        return false;
    int64_t i = v->kind == GEMS_SCALAR_FLOAT ? (int64_t)v->f : v->i;
    if (bits < 63 && (i >= INT64_C(1) << bits || i < (is_signed ? -(INT64_C(1) << bits) : 0)))
        return false;
    out->i64 = i; /* little-endian: the low bytes are the narrower values */
    return true;
}

#define COUNT_ZEROS(T)                                                                                                 \
    for (int64_t j = 0; j < n; j++)                                                                                    \
        zeros += ((const T *)t->data)[at + j * step] == 0;

/* Row by row of the dimension with the smallest stride; what is broadcast is read once. */
bool gems_has_zero(const gems_tensor *t)
{
    int64_t index[64] = {0}, at = 0, n = 1, step = 1, zeros = 0;
    int inner = -1;
    if (t->ndim > 64)
        return true;
    for (int d = 0; d < t->ndim; d++) {
        if (t->sizes[d] == 0)
            return false;
        if (t->sizes[d] > 1 && t->strides[d] > 0 && (inner < 0 || t->strides[d] < t->strides[inner]))
            inner = d;
    }
    if (inner >= 0) {
        n = t->sizes[inner];
        step = t->strides[inner];
    }
    for (bool more = true; more && zeros == 0;) {
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
        more = false;
        for (int d = t->ndim - 1; d >= 0 && !more; d--) {
            if (d == inner || t->strides[d] == 0)
                continue;
            at += t->strides[d];
            more = ++index[d] < t->sizes[d];
            if (!more) {
                at -= t->sizes[d] * t->strides[d];
                index[d] = 0;
            }
        }
    }
    return zeros != 0;
}
