/* shim/ops.json, read. A row is what is computed, with every operator of the host that computes it:
 *
 *   "schema"     the operator, as PyTorch prints it
 *   "forms"      further ones: names whose schema follows from the row's by PyTorch's conventions (gems_form_derive),
 *                or schemas
 *   "family"     for the log and for tables
 *   "kernel"     stem of the gems_family that serves it; left out: always the host's
 *   "parts"      without a kernel: the rows that the host makes it of; "none": it computes nothing
 *   "aoti"       which of them the C shim has: true (all), or names and shell patterns
 *   "composite"  which of them the host differentiates through their parts: the same
 *   "itensors"   true: PyTorch passes the row's Tensor[] as an IListRef
 *
 * and the fields that the kernel's family declares (fields.h). */
#ifndef GEMS_GEN_ROWS_H
#define GEMS_GEN_ROWS_H

#include "shim/gen/fields.h"

#include <stdio.h>

typedef struct gems_row {
    char *text; /* the schema */
    gems_schema schema;
    const char *family;
    const char *kernel;      /* stem, or NULL */
    const char *parts;       /* or NULL */
    char *call, *redispatch; /* mangled symbols */
    char *aoti;              /* symbol of the C shim, or NULL */
    bool composite;
    json_t *fields; /* of the whole row */
    unsigned line;
} gems_row;

/* One entry an operator, sorted by struct. */
typedef struct gems_rows {
    gems_row *v;
    unsigned n;
} gems_rows;

/* Reads the file. Anything wrong is printed to stderr as "path:line:column: reason", and the answer is false. */
bool gems_rows_read(const char *path, const gems_fields *declared, gems_rows *rows);
/* Also after a failure. */
void gems_rows_free(gems_rows *rows);

/* Schema of the form called `name`. schemas: of the forms before it, the row's own first. NULL: the conventions do not
 * give it.
 *
 *   add_.Tensor     from add.Tensor if the row has it, else the row's own: the first tensor is written and returned
 *   eq.Scalar_out   from eq.Scalar if the row has it, else the row's own: a last argument `out`, by keyword
 *   eq.Scalar       from the row's own: the second argument is a Scalar; Scalar_Tensor: the first is
 *   divide.Tensor   the row's own: another operator with the same arguments */
char *gems_form_derive(const char *name, char *const *schemas, unsigned n);

/* What is written out of the rows. */
void gems_emit_thunks(FILE *out, const gems_rows *rows);
void gems_emit_ops(FILE *out, const gems_rows *rows);
/* Version script: the interposed symbols, the functions that a header's text declares with GEMS_API, and those that the
 * text of preload/libc.c defines with EXPORT. */
void gems_emit_exports(FILE *out, const gems_rows *rows, const char *header, const char *libc);

#endif
