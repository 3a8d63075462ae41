/* shim/ops.json, read: one row an operator, in the order of their structs. */
#ifndef GEMS_GEN_ROWS_H
#define GEMS_GEN_ROWS_H

#include "shim/gen/schema.h"

#include <jansson.h>
#include <stdio.h>

typedef struct gems_row {
    const char *text; /* the schema as written */
    gems_schema schema;
    const char *family;
    const char *kernel;      /* stem, or NULL */
    char *call, *redispatch; /* mangled symbols */
    const char *aoti;        /* symbol of the C shim, or NULL */
    bool composite;
    json_t *fields; /* the row's own fields, and those inherited by "as" */
    char *source;   /* the line, and its number */
    unsigned line;
} gems_row;

typedef struct gems_rows {
    gems_row *v;
    unsigned n;
} gems_rows;

/* Reads the file. Anything wrong is printed to stderr as "path:line:column: reason", and the answer is false. */
bool gems_rows_read(const char *path, gems_rows *rows);
/* Also after a failure. */
void gems_rows_free(gems_rows *rows);

/* What is written out of the rows. */
void gems_emit_thunks(FILE *out, const gems_rows *rows);
void gems_emit_ops(FILE *out, const gems_rows *rows);
/* Version script: the interposed symbols, and the functions that `header` declares with GEMS_API. */
bool gems_emit_exports(FILE *out, const gems_rows *rows, const char *header);

/* Fields that the generator itself understands; every other one becomes a gems_attr. */
bool gems_rows_is_known(const char *key);

#endif
