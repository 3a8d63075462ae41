/* A rule in words, for `gems ops` and the log. */
#include "tune/rule.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct line {
    char *text;
    size_t used, size;
} line;

__attribute__((format(printf, 2, 3))) static void append(line *l, const char *fmt, ...)
{
    if (l->used >= l->size)
        return;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(l->text + l->used, l->size - l->used, fmt, args);
    va_end(args);
    l->used += n > 0 ? (size_t)n : 0;
}

static void append_range(line *l, const gems_rule_range *range)
{
    append(l, ", %s ", gems_size_names[range->size]);
    if (range->low == range->high) {
        append(l, "%lld", (long long)range->low);
        return;
    }
    if (range->low > 0)
        append(l, "%lld", (long long)range->low);
    append(l, "..");
    if (range->high != INT64_MAX)
        append(l, "%lld", (long long)range->high);
}

void gems_rule_describe(const gems_rule *rule, char *text, size_t n)
{
    line l = {text, 0, n};
    if (n)
        *text = 0;
    if (rule->dtypes == UINT16_MAX)
        append(&l, "any dtype");
    for (int d = 0, shown = 0; d < GEMS_DTYPE_COUNT && rule->dtypes != UINT16_MAX; d++)
        if (rule->dtypes >> d & 1)
            append(&l, shown++ ? " %s" : "%s", gems_dtypes[d].name);
    for (int i = 0; i < rule->nranges; i++)
        append_range(&l, &rule->range[i]);
    append(&l, ": %s", rule->host ? "host" : *rule->variant ? rule->variant : "device");
    for (int i = 0; i < rule->nparams; i++)
        append(&l, " %s=%lld", rule->param[i].name, (long long)rule->param[i].value);
    append(&l, " (%s)", rule->origin);
}
