/* The fields of a pointwise operator's row in shim/ops.json, parsed once. Lists are names of parameters separated by
 * spaces.
 *
 *   "expr"        codegen/expr.h; "expr_int", "expr_bool": in its place where the common dtype is an integer, bool
 *   "promote"     kind (kernels/tensor/promote.h), then the parameters that take part; none named: all tensors but
 * masks "promote_without"  "rounding_mode int_to_float": another kind where that optional parameter is absent "dtypes"
 * common dtypes the host has: names or "float", "int", "bool" (default: all); for others it raises "out"         dtype
 * of the results: a dtype's name, or parameters of which the first that is given decides "exact"       given results
 * must have that dtype (else any that it may be cast to) "layout"      strides of a new result: "iterator" (default),
 * "contiguous", or "like x": those of x where it is dense "mask"        tensors that must be bool and are not converted
 *   "same"        tensors that must have one dtype
 *   "zero_dim"    tensors that must have no dimensions
 *   "divisor"     a parameter that must have no zero where integers are computed (the host raises for it)
 *   "floating"    tensors of which one at least must be floating
 *   "exponent"    a parameter that must not be a negative number where integers are computed
 *   "no_bool"     tensors and numbers that must not be bool
 *   "strict"      numbers that are taken in the common dtype: not of a higher category, nor bool unless that is
 *   "nonzero", "nonnegative"   numbers of which the host refuses others
 *   "one_of"      "approximate none tanh": texts that a string parameter may have
 *   "copies"      the call returns its argument itself where nothing is to be copied: then it is the host's
 *   "domain"      for tests: where inputs are taken from ("shift")
 *
 * Parameters that are tensors but take no part are converted to the dtype computed with, as are numbers. */
#ifndef GEMS_POINTWISE_ROW_H
#define GEMS_POINTWISE_ROW_H

#include "codegen/expr.h"
#include "kernels/tensor/promote.h"
#include "kernels/call.h"

typedef enum pw_layout {
    PW_ITERATOR,
    PW_CONTIGUOUS,
    PW_LIKE
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
    bool copies, exact;
    uint16_t dtypes; /* bit d: common dtype d is allowed */
    gems_dtype out_dtype;
    uint32_t out_params;
    uint32_t tensors, results; /* parameters: all tensors but those only written; those written */
    uint32_t promotes, masks, same, zero_dim, divisor, floating, exponent, nonzero, nonnegative, no_bool, strict,
        unrounded;
    const char *texts; /* after the parameter's name in "one_of" */
} pw_row;

/* The parsed row of an operator; NULL if it is wrong (said once in the log). Thread-safe; remembered. */
const pw_row *pw_row_get(const gems_op *op);

#endif
