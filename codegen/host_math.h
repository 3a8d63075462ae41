/* What kernels/math.cl and C's operators do, as loops over arrays on the host: one table for each kind of processor,
 * all with the same results. Read by C and by C++. */
#ifndef GEMS_HOST_MATH_H
#define GEMS_HOST_MATH_H

#include "kernels/tensor/dtype.h"

#include <stddef.h>

/* Types of arrays. 0 or 1 are U8 wherever C has an int. */
typedef enum gems_host_type {
    GEMS_HOST_I8,
    GEMS_HOST_U8,
    GEMS_HOST_I16,
    GEMS_HOST_I32,
    GEMS_HOST_U32,
    GEMS_HOST_I64,
    GEMS_HOST_U64,
    GEMS_HOST_F32,
    GEMS_HOST_F64,
    GEMS_HOST_TYPES
} gems_host_type;

/* Functions of math.cl that expressions may call, by the number of arguments and what they are of: X(name). */
#define GEMS_HOST_QUESTIONS(X) X(isnan) X(isinf) X(isfinite)
#define GEMS_HOST_EXACT(X)     X(trunc) X(floor) X(round) X(sqrt)
#define GEMS_HOST_LIBRARY(X)                                                                                           \
    X(log)                                                                                                             \
    X(log1p) X(log2) X(log10) X(exp) X(exp2) X(expm1) X(erf) X(erfc) X(tanh) X(atan) X(sin) X(cos)
#define GEMS_HOST_CALLS_1(X) GEMS_HOST_QUESTIONS(X) X(abs) GEMS_HOST_EXACT(X) GEMS_HOST_LIBRARY(X)
#define GEMS_HOST_CALLS_2(X)                                                                                           \
    X(maximum)                                                                                                         \
    X(minimum) X(div_trunc) X(div_floor) X(remainder) X(shift_left) X(shift_right) X(pow) X(copysign) X(fmod)
#define GEMS_HOST_CALLS_3(X) X(multiply_add) X(fma)

#define GEMS_HOST_CALL(name) GEMS_HOST_CALL_##name,
typedef enum gems_host_call {
    GEMS_HOST_CALLS_1(GEMS_HOST_CALL)
    GEMS_HOST_CALLS_2(GEMS_HOST_CALL) GEMS_HOST_CALLS_3(GEMS_HOST_CALL) GEMS_HOST_CALL_COUNT
} gems_host_call;
#undef GEMS_HOST_CALL

static inline unsigned gems_host_call_arguments(int call)
{
    return call < GEMS_HOST_CALL_maximum ? 1 : call < GEMS_HOST_CALL_multiply_add ? 2 : 3;
}

/* `a > b` is `b < a`. Integers wrap around; shifts are by the low bits of b. Comparisons give U8. */
typedef enum gems_host_operator {
    GEMS_HOST_ADD,
    GEMS_HOST_SUB,
    GEMS_HOST_MUL,
    GEMS_HOST_DIV,
    GEMS_HOST_MOD,
    GEMS_HOST_AND,
    GEMS_HOST_OR,
    GEMS_HOST_XOR,
    GEMS_HOST_SHL,
    GEMS_HOST_SHR,
    GEMS_HOST_EQ,
    GEMS_HOST_NE,
    GEMS_HOST_LT,
    GEMS_HOST_LE,
    GEMS_HOST_OPERATORS
} gems_host_operator;

/* Does n elements. `to` may be one of the others. Arguments of which there is but one element are chosen by bits of an
 * index: 1 for the first, 2 for the second. */
typedef void gems_host_loop(void *to, const void *a, const void *b, const void *c, size_t n);

/* NULL: there is no such thing. */
typedef struct gems_host_math {
    gems_host_loop *convert[GEMS_HOST_TYPES][GEMS_HOST_TYPES]; /* [from][to], as C does it */
    gems_host_loop *truth[GEMS_HOST_TYPES];                    /* != 0, as U8 */
    gems_host_loop *get[GEMS_DTYPE_COUNT];                     /* gems_get_D; NULL: nothing to do */
    gems_host_loop *put[GEMS_DTYPE_COUNT][GEMS_HOST_TYPES];    /* gems_put_D */
    gems_host_loop *round[GEMS_DTYPE_COUNT];                   /* get(put(v)) of f16, bf16 */
    gems_host_loop *negate[GEMS_HOST_TYPES], *invert[GEMS_HOST_TYPES];
    gems_host_loop *binary[GEMS_HOST_OPERATORS][GEMS_HOST_TYPES][3];
    gems_host_loop *call[GEMS_HOST_CALL_COUNT][GEMS_HOST_TYPES][3]; /* some have no [1], [2] */
    gems_host_loop *choose[4][4]; /* [log2 of size]: a ? b : c; bits of the second index: b, c */
    gems_host_loop *spread[4];    /* one element many times */
} gems_host_math;

extern const gems_host_math gems_host_math_any;
#ifdef __x86_64__
extern const gems_host_math gems_host_math_v3, gems_host_math_v4;
#endif

#endif
