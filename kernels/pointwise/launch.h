/* One launch of a generated pointwise kernel: expressions over operands, whatever operator they stand for. The
 * pointwise family fills it from a row; families with views of their own (views.c) and chains of several expressions
 * fill it themselves. */
#ifndef GEMS_POINTWISE_LAUNCH_H
#define GEMS_POINTWISE_LAUNCH_H

#include "codegen/pointwise.h"
#include "kernels/call.h"

/* Begin with `memset(&l.spec, 0, sizeof l.spec)` and set noperands, nsteps, and of each operand dtype and place; of
 * each step everything. frame, vec, wide, rank and the operands' strides are chosen by gems_pw_launch. Operands that
 * are written come first. */
typedef struct pw_launch {
    gems_pw_spec spec;
    const gems_shape *shape;                  /* of at least one element; operands are broadcast to it */
    const gems_tensor *tensor[GEMS_OPERANDS]; /* NULL: by value */
    const gems_tensor
        *whole[GEMS_OPERANDS]; /* of operands marked `inside`: the memory that they are in, of their dtype */
    gems_element number[GEMS_OPERANDS];
    const gems_expr *expr[GEMS_PW_STEPS];
} pw_launch;

/* Runs it as the work of `call` (its rule's parameters lane, vec, run, group) and waits. GEMS_DECLINED: nothing was
 * written; the device cannot do it or more than GEMS_RANK loops are left after merging. */
gems_status gems_pw_launch(gems_call *call, pw_launch *launch);

#endif
