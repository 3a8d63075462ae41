/* The fields that families' rows have. A family declares them in kernels/<family>/fields, which is read when ops.json
 * is:
 *
 *   kernel reduce scan        # for rows of these kernels
 *   combine!  <text>          # the field, ! if every row must have it; what its value may be; what it says
 *   acc       same | wide     # one of several
 *
 * A value is made of words: itself, or one of
 *   <param> <tensor>          a parameter of the operator; one that is a tensor
 *   <dtype> <promotion>       as in kernels/tensor/: f32, int, float; default, no_opmath
 *   <word>                    any
 *   <params> <tensors> ...    as many of those as there are
 * or is as a whole
 *   <text>                    anything
 *   <expression>              codegen/expr.h, over the operator's parameters; names after it stand in their place */
#ifndef GEMS_GEN_FIELDS_H
#define GEMS_GEN_FIELDS_H

#include "shim/gen/schema.h"

#include <jansson.h>

typedef struct gems_field {
    char *kernel;
    char *key, *takes; /* NULL: says only that there is such a kernel */
    bool needed;
} gems_field;

typedef struct gems_fields {
    gems_field *v;
    unsigned n;
    const char *functions; /* text of kernels/math.cl, for expressions; NULL: any function may be called */
} gems_fields;

/* Adds what a file declares; false, and a line on stderr, if it cannot be understood. */
bool gems_fields_read(const char *path, gems_fields *fields);
void gems_fields_free(gems_fields *fields);

typedef struct gems_field_error {
    const char *key; /* the field, and the offset in its value; -1: the key itself */
    int at;
    char text[400];
} gems_field_error;

/* Fields that every row may have. */
bool gems_fields_common(const char *key);
/* Are the row's other fields those of its kernel, with values that make sense for this operator? */
bool gems_fields_check(const gems_fields *declared, const gems_schema *s, json_t *row, gems_field_error *error);

#endif
