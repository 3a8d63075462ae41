/* Numbers: arguments that are passed to a kernel by value, and questions about elements that the host answers. */
#ifndef GEMS_POINTWISE_NUMBER_H
#define GEMS_POINTWISE_NUMBER_H

#include "kernels/call.h"

static inline bool gems_is_number(const gems_value *v)
{
    return v->kind == GEMS_SCALAR_FLOAT || v->kind == GEMS_SCALAR_INT || v->kind == GEMS_SCALAR_BOOL;
}

static inline double gems_number_of(const gems_value *v)
{
    return v->kind == GEMS_SCALAR_FLOAT ? v->f : (double)v->i;
}

static inline gems_category gems_number_category(const gems_value *v)
{
    return v->kind == GEMS_SCALAR_FLOAT ? GEMS_CAT_FLOAT : v->kind == GEMS_SCALAR_INT ? GEMS_CAT_INT : GEMS_CAT_BOOL;
}

/* A value of the type that arithmetic of some dtype uses (gems_dtypes[].compute). */
typedef union pw_number {
    float f32;
    double f64;
    int8_t i8;
    uint8_t u8;
    int16_t i16;
    int32_t i32;
    int64_t i64;
} pw_number;

/* v as a value of the dtype computed with, as the host's Scalar::to does it (a fraction is cut off), but unrounded if
 * `opmath`. False: it overflows, or is too close to that to tell; the host raises an error or wraps. */
bool gems_number_convert(const gems_value *v, gems_dtype to, bool opmath, pw_number *out);

/* Has a tensor of integers or bool an element that is 0? Reads each once. */
bool gems_has_zero(const gems_tensor *t);

#endif
