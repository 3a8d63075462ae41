/* Scopes of the calling thread: what the program asked for around its calls (gems_scope_push). */
#ifndef GEMS_SCOPE_H
#define GEMS_SCOPE_H

#include "preload/gems.h"
#include "kernels/opset.h"

typedef struct gems_scope {
    int kind; /* enum gems_scope_kind */
    gems_opset *only;
} gems_scope;

/* The innermost scope of this thread, or NULL. */
const gems_scope *gems_scope_current(void);

#endif
