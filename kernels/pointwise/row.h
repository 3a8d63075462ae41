/* The fields of a pointwise operator's row in shim/ops.json, made ready once; kernels/pointwise/fields says what they
 * mean. */
#ifndef GEMS_POINTWISE_ROW_H
#define GEMS_POINTWISE_ROW_H

#include "codegen/expr.h"
#include "kernels/tensor/promote.h"
#include "kernels/call.h"

typedef enum pw_layout {
    PW_ITERATOR,
    PW_CONTIGUOUS,
    PW_LIKE,
    PW_INTEGERS_LIKE,
    PW_TWICE
} pw_layout;

typedef struct pw_row {
    gems_expr *expr[3];         /* by gems_category of the common dtype */
    uint8_t kind, kind_without; /* gems_promotion */
    int8_t without;             /* parameter whose absence makes it kind_without, or -1 */
    uint8_t layout;             /* pw_layout */
    int8_t first;               /* parameter of "order", or -1 */
    int8_t like;                /* parameter, for PW_LIKE */
    int8_t memory_format;       /* parameter of that type, or -1 */
    int8_t one_of;              /* string parameter, or -1 */
    bool copies, exact, same_strides;
    uint16_t dtypes; /* bit d: common dtype d is allowed */
    gems_dtype out_dtype;
    uint32_t out_params;
    uint32_t tensors, results; /* parameters: all tensors but those only written; those written */
    uint32_t promotes, masks, same, zero_dim, divisor, floating, exponent, nonzero, nonnegative, no_bool, strict,
        unrounded, negated;
    const char *texts; /* after the parameter's name in "one_of" */
} pw_row;

/* The row of an operator; NULL if memory ran out. Thread-safe; remembered. */
const pw_row *pw_row_get(const gems_op *op);

#endif
