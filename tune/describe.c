/* A rule in words, for `gems ops` and the log. */
#include "tune/rule.h"
#include "preload/base/text.h"

static void append_range(gems_text *t, const gems_rule_range *range)
{
    gems_text_put(t, ", %s ", gems_size_names[range->size]);
    if (range->size == GEMS_SIZE_PLACE) {
        gems_text_put(t, "%s", (const char *const[]){"host", "resident", "device"}[range->low]);
        return;
    }
    if (range->low == range->high) {
        gems_text_put(t, "%lld", (long long)range->low);
        return;
    }
    if (range->low > 0)
        gems_text_put(t, "%lld", (long long)range->low);
    gems_text_put(t, "..");
    if (range->high != INT64_MAX)
        gems_text_put(t, "%lld", (long long)range->high);
}

void gems_rule_describe(const gems_rule *rule, char *text, size_t n)
{
    gems_text t = gems_text_in(text, n);
    if (rule->dtypes == UINT16_MAX)
        gems_text_put(&t, "any dtype");
    for (int d = 0, shown = 0; d < GEMS_DTYPE_COUNT && rule->dtypes != UINT16_MAX; d++)
        if (rule->dtypes >> d & 1)
            gems_text_put(&t, shown++ ? " %s" : "%s", gems_dtypes[d].name);
    for (int i = 0; i < rule->nranges; i++)
        append_range(&t, &rule->range[i]);
    const char *route = rule->host ? "host" : *rule->variant ? rule->variant : "device";
    gems_text_put(&t, ": %s", !rule->chain ? route : rule->host ? "in no chain" : "in a chain");
    for (int i = 0; i < rule->nparams; i++)
        gems_text_put(&t, " %s=%lld", rule->param[i].name, (long long)rule->param[i].value);
    gems_text_put(&t, " (%s)", rule->origin);
}
