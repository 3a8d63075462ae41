/* Computes on the host what the kernel of a spec computes, bit for bit as PoCL's CPU kernel does, without OpenCL. What
 * differs: the bits of NaN, and functions of f64 that OpenCL's library has (exp, log, pow, sin, ...), which here are
 * libm's, each within 2 units in the last place of PoCL's. */
#ifndef GEMS_EVALUATE_H
#define GEMS_EVALUATE_H

#include "codegen/pointwise.h"
#include "kernels/tensor/element.h"

/* Where an operand of a spec is: memory and its strides, or a number. */
typedef struct gems_pw_memory {
    void *address;         /* of the first element; NULL: by value */
    gems_element number;   /* by value: of the compute type of the operand's dtype */
    const int64_t *stride; /* `rank` of them, in elements, dimension 0 is the innermost */
} gems_pw_memory;

/* rank is at least 1. Computes elements `first` to `last` - 1 (dimension 0 fastest) of loops of these sizes, in order;
 * `memory` is as spec->operand. Each element's loads come before its stores: what is written may be what is read if the
 * view is the same. `loop`, `vec`, `rank`, `wide` of the spec and `stride` of its operands are not looked at.
 * Thread-safe; takes little stack. False: memory ran out or the spec names what is not there; then nothing was written.
 */
bool gems_pw_evaluate(const gems_pw_spec *spec, int rank, const int64_t *size, const gems_pw_memory *memory,
                      int64_t first, int64_t last);

struct gems_host_math;
/* For tests: the loops to be used (codegen/host_math.h) in place of those for this processor; NULL: those again. */
void gems_pw_evaluate_with(const struct gems_host_math *math);

#endif
