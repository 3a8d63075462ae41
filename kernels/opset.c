#include "kernels/opset.h"
#include "preload/base/text.h"

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

/* A pattern's parts before and behind the dot are held against base and overload. */
static unsigned add_pattern(gems_opset *set, char *pattern)
{
    char *dot = strchr(pattern, '.'), *overload = dot ? dot + 1 : NULL;
    if (dot)
        *dot = 0;
    unsigned count = 0;
    for (size_t i = 0, letters = strcspn(pattern, "*?[\\"); i < gems_op_count; i++) {
        const gems_op *op = &gems_ops[i];
        if (strncmp(pattern, op->base, letters) != 0 || fnmatch(pattern + letters, op->base + letters, 0) != 0 ||
            (overload && fnmatch(overload, *op->overload ? op->overload : "default", 0) != 0))
            continue;
        gems_opset_put(set, (unsigned)i, true);
        count++;
    }
    return count;
}

/* Operators are sorted by struct, and those of one base stand between others that begin like it. */
static unsigned add_base(gems_opset *set, const char *base)
{
    unsigned low = 0, count = 0;
    for (unsigned high = gems_op_count; low < high;) {
        unsigned mid = low + (high - low) / 2;
        if (strcmp(gems_ops[mid].strukt, base) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    for (size_t n = strlen(base); low < gems_op_count && strncmp(gems_ops[low].strukt, base, n) == 0; low++)
        if (strcmp(gems_ops[low].base, base) == 0) {
            gems_opset_put(set, low, true);
            count++;
        }
    return count;
}

/* A name is looked up, since tables of thousands of rules are read at start-up. */
static unsigned add_name(gems_opset *set, char *name)
{
    char *dot = strchr(name, '.');
    unsigned count = dot ? 0 : add_base(set, name);
    const gems_op *op = count ? NULL : gems_op_find(name);
    if (!op && dot && strcmp(dot, ".default") == 0) {
        *dot = 0;
        op = gems_op_find(name);
        op = op && !*op->overload ? op : NULL;
    }
    if (op)
        gems_opset_put(set, op->index, true);
    return op ? 1 : count;
}

unsigned gems_opset_add(gems_opset *set, const char *item, size_t n)
{
    if (n > 6 && memcmp(item, "aten::", 6) == 0) {
        item += 6;
        n -= 6;
    }
    char pattern[ITEM_MAX];
    if (n == 0 || n >= sizeof pattern)
        return 0;
    memcpy(pattern, item, n);
    pattern[n] = 0;

    return strpbrk(pattern, "*?[\\") ? add_pattern(set, pattern) : add_name(set, pattern);
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
    const char *item;
    for (size_t len; (len = gems_word(&list, ", \t\n", &item));)
        if (gems_opset_add(set, item, len) == 0)
            note_unknown(item, len, unknown, n);
    return set;
}
