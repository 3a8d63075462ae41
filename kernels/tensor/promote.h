/* Which dtype a pointwise call computes with and which it returns: the host's type promotion, of which the families and
 * the code generator ask. Tensors with dimensions outrank 0-dim tensors, which outrank numbers; a lower rank only
 * counts if it has a higher category (bool < integer < float). */
#ifndef GEMS_PROMOTE_H
#define GEMS_PROMOTE_H

#include "kernels/tensor/tensor.h"

/* What an operator does with the common dtype of its operands. "opmath": f16 and bf16 are computed in f32, and numbers
 * that take no part in promotion (alpha, value, ...) are not rounded to the common dtype first. */
typedef enum gems_promotion {
    GEMS_PROMOTE_DEFAULT,          /* result: common; opmath */
    GEMS_PROMOTE_NO_OPMATH,        /* result: common; exact in the common dtype */
    GEMS_PROMOTE_INT_TO_FLOAT,     /* integers and bool become the default dtype; opmath */
    GEMS_PROMOTE_ALWAYS_BOOL,      /* result: bool; exact in the common dtype */
    GEMS_PROMOTE_COMPLEX_TO_FLOAT, /* default, but complex gives its real type (complex itself is the host's) */
    GEMS_PROMOTE_BOOL_TO_LONG,     /* bool becomes i64; opmath */
    GEMS_PROMOTE_COUNT
} gems_promotion;

/* Names as in rows: "default", "no_opmath", ... (n characters of `name`); GEMS_PROMOTE_COUNT if there is none. */
gems_promotion gems_promotion_find(const char *name, size_t n);

/* The highest dtype seen of each priority; GEMS_DTYPE_NONE: none yet. Begin with GEMS_PROMOTE_START. */
typedef struct gems_promote {
    gems_dtype dimmed, zero_dim, number;
    bool bad; /* an operand of a dtype that no kernel handles */
} gems_promote;
#define GEMS_PROMOTE_START ((gems_promote){GEMS_DTYPE_NONE, GEMS_DTYPE_NONE, GEMS_DTYPE_NONE, false})

void gems_promote_tensor(gems_promote *p, const gems_tensor *t, gems_dtype default_dtype);
/* A number: a float counts as the default dtype, an integer as i64. */
void gems_promote_number(gems_promote *p, gems_category category, gems_dtype default_dtype);
/* The common dtype (torch.result_type); GEMS_DTYPE_NONE if there was no operand or a bad one. */
gems_dtype gems_promote_common(const gems_promote *p);

typedef struct gems_promoted {
    gems_dtype compute; /* operands are converted to it */
    gems_dtype result;
    bool opmath;
} gems_promoted;
gems_promoted gems_promote_apply(gems_promotion kind, gems_dtype common, gems_dtype default_dtype);

/* May a result of dtype `from` be stored in an existing tensor of dtype `to`? (torch.can_cast) */
bool gems_promote_can_cast(gems_dtype from, gems_dtype to);

#endif
