#include "preload/opset.h"
#include "preload/config.h"
#include "preload/log.h"

#include <ctype.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ITEM_MAX = 128
};

gems_opset *gems_opset_new(void)
{
    return calloc(gems_op_count / 64 + 1, sizeof(gems_opset));
}

static void set_bit(gems_opset *set, unsigned op, bool value)
{
    uint64_t bit = UINT64_C(1) << (op % 64);
    set->bits[op / 64] = value ? set->bits[op / 64] | bit : set->bits[op / 64] & ~bit;
}

unsigned gems_opset_add(gems_opset *set, const char *item, size_t n)
{
    if (n > 6 && memcmp(item, "aten::", 6) == 0) {
        item += 6;
        n -= 6;
    }
    char pattern[ITEM_MAX], full[2 * ITEM_MAX];
    if (n == 0 || n >= sizeof pattern)
        return 0;
    memcpy(pattern, item, n);
    pattern[n] = 0;

    bool with_overload = strchr(pattern, '.') != NULL;
    unsigned count = 0;
    for (unsigned i = 0; i < gems_op_count; i++) {
        const gems_op *op = &gems_ops[i];
        snprintf(full, sizeof full, "%s.%s", op->base, *op->overload ? op->overload : "default");
        if (fnmatch(pattern, with_overload ? full : op->base, 0) == 0) {
            set_bit(set, i, true);
            count++;
        }
    }
    const gems_op *op = count ? NULL : gems_op_find(pattern);
    if (op) {
        set_bit(set, op->index, true);
        count = 1;
    }
    return count;
}

static void note_unknown(const char *item, size_t len, char *unknown, size_t n)
{
    size_t used = unknown && n ? strlen(unknown) : 0;
    if (n > used)
        snprintf(unknown + used, n - used, "%s%.*s", used ? ", " : "", (int)len, item);
}

gems_opset *gems_opset_compile(const char *list, char *unknown, size_t n)
{
    gems_opset *set = gems_opset_new();
    if (!set)
        return NULL;
    if (unknown && n)
        *unknown = 0;
    if (!list)
        return gems_opset_add(set, "*", 1), set;
    while (*list) {
        list += strspn(list, ", \t\n");
        size_t len = strcspn(list, ", \t\n");
        if (len && gems_opset_add(set, list, len) == 0)
            note_unknown(list, len, unknown, n);
        list += len;
    }
    return set;
}

/* ---- the environment ---- */

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
        set_bit(set, i, false);
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

const gems_opset *gems_opset_allowed(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, compile_allowed);
    return allowed;
}
