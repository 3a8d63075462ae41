/* Files that travel inside the library (device sources, tables): build/gen/embedded.c, written by codegen. */
#ifndef GEMS_EMBEDDED_H
#define GEMS_EMBEDDED_H

#include <stddef.h>

typedef struct gems_embedded_file {
    const char *name; /* path in the repository: "kernels/math.cl", "tune/pocl.json" */
    const char *text; /* NUL-terminated */
    size_t size;      /* without the NUL */
} gems_embedded_file;

extern const gems_embedded_file gems_embedded[]; /* ends with a NULL name */
/* NULL if there is none of that name. */
const gems_embedded_file *gems_embedded_find(const char *name);

#endif
