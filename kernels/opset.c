#include "kernels/opset.h"

#include <ctype.h>
#include <fnmatch.h>
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

void gems_opset_put(gems_opset *set, unsigned op, bool value)
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
            gems_opset_put(set, i, true);
            count++;
        }
    }
    const gems_op *op = count ? NULL : gems_op_find(pattern);
    if (op) {
        gems_opset_put(set, op->index, true);
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
