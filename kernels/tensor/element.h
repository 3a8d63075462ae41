/* Numbers and elements: a number is of a category alone, an element is the same in some dtype's bits. Functions that
 * look at a tensor's elements take the place of the first one beside the tensor: whoever asks has made it readable. */
#ifndef GEMS_ELEMENT_H
#define GEMS_ELEMENT_H

#include "kernels/tensor/tensor.h"

typedef struct gems_number {
    gems_category category;
    union {
        double f;
        int64_t i; /* also bool: 0 or 1 */
    };
} gems_number;

static inline double gems_number_double(gems_number n)
{
    return n.category == GEMS_CAT_FLOAT ? n.f : (double)n.i;
}

/* One element: its bits are the low bytes. */
typedef union gems_element {
    uint64_t bits;
    float f32;
    double f64;
} gems_element;

/* The element at an address. */
gems_number gems_element_number(gems_dtype dtype, const void *at);

/* The number as an element of `to`, as the host's Scalar::to makes it: a fraction is cut off, f16 and bf16 are rounded
 * from f32 to even, anything but 0 is true. False: it overflows, or is too close to that to tell; then the host raises
 * an error or wraps around. */
bool gems_number_element(gems_number n, gems_dtype to, gems_element *out);
/* The same as a value of the type that kernels compute with in that dtype (gems_dtype_info.compute): f16 and bf16 are
 * f32, rounded to the dtype first unless `unrounded`. */
bool gems_number_compute(gems_number n, gems_dtype to, bool unrounded, gems_element *out);

/* Has a tensor of integers or bool an element that is 0? Reads each once. True also where it cannot tell: elements that
 * are more than GEMS_NEST_RANK loops. */
bool gems_has_zero(const gems_tensor *t, const void *data);
/* What an index may be: in [low, end), or the ignored one (0, which is in range as a rule, where none is). */
typedef struct gems_range {
    int64_t low, end, ignored;
} gems_range;
/* True if all elements of an i32 or i64 tensor are in the range. False also where it cannot tell. */
bool gems_index_check(const gems_tensor *t, const void *data, gems_range range);

#endif
