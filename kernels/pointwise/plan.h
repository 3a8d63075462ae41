/* What a pointwise call amounts to, worked out from its arguments and its operator's row alone. */
#ifndef GEMS_POINTWISE_PLAN_H
#define GEMS_POINTWISE_PLAN_H

#include "kernels/tensor/collapse.h"
#include "kernels/pointwise/row.h"

typedef struct pw_plan {
    const pw_row *row;
    const gems_expr *expr; /* of the category computed with */
    uint32_t facts, needs; /* codegen/expr.h */
    gems_dtype common, compute;
    bool opmath;
    unsigned nresults;
    gems_dtype result[GEMS_EXPR_RESULTS]; /* as computed; existing results may have others */
    gems_shape shape;
} pw_plan;

/* Fills *plan, call->dtype and call->sizes; GEMS_DECLINED with a reason if no kernel can do exactly this call. Reads no
 * element of a tensor. */
gems_status gems_pw_plan(gems_call *call, pw_plan *plan);
/* Is the tensor of the results' shape? */
bool gems_pw_has_shape(const pw_plan *plan, const gems_tensor *t);

#endif
