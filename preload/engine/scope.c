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

bool gems_scope_open(int kind, const char *ops)
{
    if (scopes.depth == SCOPES || kind < GEMS_SCOPE_USE || kind > GEMS_SCOPE_ONLY ||
        (kind == GEMS_SCOPE_ONLY) != (ops != NULL))
        return false;
    gems_scope *s = &scopes.stack[scopes.depth];
    *s = (gems_scope){.kind = kind};
    if (ops) {
        char unknown[200];
        s->only = gems_opset_compile(ops, unknown, sizeof unknown);
        if (!s->only || unknown[0]) {
            free(s->only);
            return false;
        }
    }
    scopes.depth++;
    if (kind == GEMS_SCOPE_USE)
        gems_route_scopes(1);
    return true;
}

bool gems_scope_close(void)
{
    if (scopes.depth == 0)
        return false;
    gems_scope *s = &scopes.stack[--scopes.depth];
    free(s->only);
    if (s->kind == GEMS_SCOPE_USE)
        gems_route_scopes(-1);
    return true;
}
