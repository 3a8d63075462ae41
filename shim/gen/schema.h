/* Parser for PyTorch's schema syntax: "add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor". */
#ifndef GEMS_GEN_SCHEMA_H
#define GEMS_GEN_SCHEMA_H

#include "shim/gen/types.h"

typedef struct gems_schema_item { /* a parameter or a result */
    char *name;                   /* "" for a result without one */
    const gems_cxx_type *type;
    char alias;    /* the letter of Tensor(a) and Tensor(a!), or 0 */
    bool written;  /* Tensor(a!) */
    unsigned size; /* of bool[3], int[2]; 0 if not said */
} gems_schema_item;

typedef struct gems_schema {
    char *name;     /* "add_.Tensor" */
    char *base;     /* "add_" */
    char *overload; /* "Tensor", or "" */
    char *strukt;   /* "add__Tensor": base, and overload after a '_' if there is one */
    gems_schema_item *params, *results;
    unsigned nparams, nresults;
    gems_form form;
} gems_schema;

typedef struct gems_schema_error {
    size_t at;      /* offset into the text */
    char text[120]; /* what is wrong there */
} gems_schema_error;

/* Parses `text`. On failure: false, `error` is filled and `out` needs no free. */
bool gems_schema_parse(const char *text, gems_schema *out, gems_schema_error *error);
void gems_schema_free(gems_schema *s);

/* The parameter that the C++ function returns a reference to (a single result that is a written parameter), or -1. */
int gems_schema_returned(const gems_schema *s);

#endif
