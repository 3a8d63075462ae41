/* The types a schema may name, one row each: how the neutral form calls them, their C++ name, and how C receives them.
 */
#ifndef GEMS_GEN_TYPES_H
#define GEMS_GEN_TYPES_H

#include "kernels/call.h"

#include <stdbool.h>
#include <stddef.h>

/* What the gate counts. */
typedef enum gems_work_kind {
    GEMS_WORK_NONE,
    GEMS_WORK_TENSOR,
    GEMS_WORK_OPT_TENSOR,
    GEMS_WORK_ANY
} gems_work_kind;

/* The C shim's form of an argument. */
typedef enum gems_aoti_form {
    GEMS_AOTI_VALUE,    /* T x */
    GEMS_AOTI_OPT,      /* T *x */
    GEMS_AOTI_LIST,     /* const T *x, int64_t x_len_ */
    GEMS_AOTI_OPT_LIST, /* const T **x, int64_t x_len_ */
    GEMS_AOTI_DEVICE    /* int32_t *x, int32_t x_index_ */
} gems_aoti_form;

typedef struct gems_cxx_type {
    const char *spelling; /* as in a schema, sizes left out: "int[]?" */
    const char *name;     /* of the gems_type, "GEMS_T_OPT_INTS" */
    gems_type type;
    const char *mangled; /* of the C++ parameter, without substitutions; %u stands for the size of a bool[n] */
    const char *c;       /* C type of the parameter; %u as above */
    bool by_address;     /* the parameter is the address of the object */
    gems_work_kind work;
    gems_aoti_form aoti;
    const char *aoti_c; /* T above; NULL: the C shim has no such argument */
} gems_cxx_type;

/* Row of that spelling, or NULL. */
const gems_cxx_type *gems_types_find(const char *spelling);
/* Rows that no spelling leads to: Tensor(a!), and Tensor[] where the row of the operator says "itensors". */
const gems_cxx_type *gems_types_written_tensor(void);
const gems_cxx_type *gems_types_itensors(void);

#endif
