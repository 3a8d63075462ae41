#include "preload/engine/allowed.h"
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <pthread.h>
#include <stdlib.h>

static const gems_opset *allowed;

static gems_opset *compile_variable(const char *name, const char *list, bool only)
{
    char unknown[256];
    gems_opset *set = gems_opset_compile(list, unknown, sizeof unknown);
    bool any = false;
    for (unsigned i = 0; set && i < gems_op_count; i++)
        any |= gems_opset_has(set, i);
    if (set && !any)
        gems_complain("%s=%.200s names no operator of ours (gems ops lists them): %s", name, list,
                      only ? "nothing is routed" : "nothing is excluded");
    else if (set && *unknown)
        gems_complain("%s names what is no operator of ours: %s (gems ops lists them)", name, unknown);
    return set;
}

static void compile_allowed(void)
{
    const gems_config *config = gems_config_get();
    if (!config->only && !config->exclude)
        return;
    gems_opset *set =
        config->only ? compile_variable("GEMS_ONLY", config->only, true) : gems_opset_compile(NULL, NULL, 0);
    gems_opset *exclude = config->exclude ? compile_variable("GEMS_EXCLUDE", config->exclude, false) : gems_opset_new();
    unsigned both = 0;
    const char *example = "";
    for (unsigned i = 0; set && exclude && i < gems_op_count; i++) {
        if (!gems_opset_has(exclude, i) || !gems_opset_has(set, i))
            continue;
        gems_opset_put(set, i, false);
        if (both++ == 0)
            example = gems_ops[i].name;
    }
    if (config->only && both)
        gems_complain("GEMS_ONLY and GEMS_EXCLUDE both name %s%s: excluded", example, both > 1 ? " and others" : "");
    free(exclude);
    /* Out of memory: what the user asked to keep away is unknown, so nothing is routed. */
    static const gems_opset none[64];
    allowed = set && exclude ? set : none;
    if (allowed != set)
        free(set);
}

const gems_opset *gems_allowed(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, compile_allowed);
    return allowed;
}
