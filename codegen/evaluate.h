#ifndef GEMS_EVALUATE_H
#define GEMS_EVALUATE_H
#include "codegen/pointwise.h"
#include "kernels/tensor/element.h"
typedef struct gems_pw_memory {
    void *address;
    gems_element number;
    const int64_t *stride;
} gems_pw_memory;
bool gems_pw_evaluate(const gems_pw_spec *spec, int rank, const int64_t *size, const gems_pw_memory *memory,
                      int64_t first, int64_t last);
#endif
