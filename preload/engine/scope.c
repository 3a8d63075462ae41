#include "preload/engine/scope.h"
#include "preload/engine/route.h"

#include <stdlib.h>

enum {
    SCOPES = 16
};

static __thread struct {
    gems_scope stack[SCOPES];
    int depth;
} scopes;

const gems_scope *gems_scope_current(void)
{
    return scopes.depth ? &scopes.stack[scopes.depth - 1] : NULL;
}

int gems_scope_push(int kind, const char *ops)
{
    if (scopes.depth == SCOPES || kind < GEMS_SCOPE_USE || kind > GEMS_SCOPE_ONLY ||
        (kind == GEMS_SCOPE_ONLY) != (ops != NULL))
        return -1;
    gems_scope *s = &scopes.stack[scopes.depth];
    *s = (gems_scope){.kind = kind};
    if (ops) {
        char unknown[200];
        s->only = gems_opset_compile(ops, unknown, sizeof unknown);
        if (!s->only || unknown[0]) {
            free(s->only);
            return -1;
        }
    }
    scopes.depth++;
    if (kind == GEMS_SCOPE_USE)
        gems_route_scopes(1);
    return 0;
}

int gems_scope_pop(void)
{
    if (scopes.depth == 0)
        return -1;
    gems_scope *s = &scopes.stack[--scopes.depth];
    free(s->only);
    if (s->kind == GEMS_SCOPE_USE)
        gems_route_scopes(-1);
    return 0;
}
