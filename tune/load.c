/* JSON text to rules. Everything is checked, and the first thing that is not understood refuses the whole text: a rule
 * with a mistyped size would otherwise route the wrong calls without a word. */
#include "tune/rule.h"
#include "tune/locate.h"
#include "kernels/family.h"
#include "preload/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEPTH_MAX = 8
};

typedef struct loader {
    const char *name, *text;
    const char *vendor, *device;
    gems_layer *layer;
    gems_table_error *error;
    gems_json_step path[DEPTH_MAX]; /* to the value being read */
    size_t depth;
    int line; /* of the rule */
} loader;

/* Into the member `key` or, if that is NULL, an array's element; what returns false leaves the path for the message. */
static void enter(loader *l, const char *key, size_t index)
{
    l->path[l->depth++] = (gems_json_step){key, index};
}

static void leave(loader *l)
{
    l->depth--;
}

/* Writes the error at the value being read; false. */
__attribute__((format(printf, 2, 3))) static bool refuse(loader *l, const char *fmt, ...)
{
    gems_json_place at = gems_json_locate(l->text, l->path, l->depth);
    size_t size = sizeof l->error->text;
    int n = snprintf(l->error->text, size, "%.120s:%d:%d: ", l->name, at.line, at.column);
    va_list args;
    va_start(args, fmt);
    vsnprintf(l->error->text + n, size - (size_t)n, fmt, args);
    va_end(args);
    return false;
}

/* ---- pieces of a rule ---- */

/* Calls `each` on a string, or on every string of an array. */
static bool for_strings(loader *l, json_t *value, gems_rule *rule, bool (*each)(loader *, const char *, gems_rule *))
{
    if (json_is_string(value))
        return each(l, json_string_value(value), rule);
    if (json_array_size(value) == 0)
        return refuse(l, "a string or a list of strings is wanted");
    size_t i;
    json_t *item;
    json_array_foreach(value, i, item)
    {
        enter(l, NULL, i);
        if (!json_is_string(item))
            return refuse(l, "a string is wanted");
        if (!each(l, json_string_value(item), rule))
            return false;
        leave(l);
    }
    return true;
}

static bool add_operators(loader *l, const char *pattern, gems_rule *rule)
{
    return gems_opset_add(rule->ops, pattern, strlen(pattern)) > 0 || refuse(l, "no operator is named %.60s", pattern);
}

static bool read_operators(loader *l, json_t *value, gems_rule *rule)
{
    return for_strings(l, value, rule, add_operators);
}

static bool add_dtype(loader *l, const char *name, gems_rule *rule)
{
    gems_dtype dtype = gems_dtype_find(name);
    if (dtype == GEMS_DTYPE_NONE)
        return refuse(l, "unknown dtype %.40s", name);
    rule->dtypes |= (uint16_t)(1u << dtype);
    return true;
}

static bool read_dtypes(loader *l, json_t *value, gems_rule *rule)
{
    return for_strings(l, value, rule, add_dtype);
}

/* A family is the one that the operator's row names, or its kernel. */
static bool in_family(const gems_op *op, const char *family)
{
    return strcmp(op->family, family) == 0 || (op->kernel && strcmp(op->kernel->name, family) == 0);
}

/* Narrows the rule's operators to a family. */
static bool read_family(loader *l, json_t *value, gems_rule *rule)
{
    const char *family = json_string_value(value);
    bool known = false, left = false;
    for (unsigned i = 0; i < gems_op_count; i++) {
        if (in_family(&gems_ops[i], family))
            known = true;
        else
            rule->ops->bits[i / 64] &= ~(UINT64_C(1) << (i % 64));
        left |= gems_opset_has(rule->ops, i);
    }
    if (!known)
        return refuse(l, "unknown family %.60s", family);
    return left || refuse(l, "none of the rule's operators is of the family %.60s", family);
}

/* An end of a range: null is open. */
static bool read_bound(loader *l, json_t *value, int64_t open, int64_t *bound)
{
    *bound = open;
    if (json_is_null(value))
        return true;
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return refuse(l, "a bound is an integer from 0, or null");
    *bound = json_integer_value(value);
    return true;
}

static bool read_range(loader *l, const char *name, json_t *value, gems_rule *rule)
{
    gems_rule_range *range = &rule->range[rule->nranges];
    range->size = GEMS_SIZE_COUNT;
    for (int s = 0; s < GEMS_SIZE_PLACE; s++)
        if (strcmp(gems_size_names[s], name) == 0)
            range->size = (uint8_t)s;
    if (range->size == GEMS_SIZE_COUNT)
        return refuse(l, "unknown size %.40s", name);
    rule->nranges++;
    if (json_is_integer(value)) {
        bool ok = read_bound(l, value, 0, &range->low);
        range->high = range->low;
        return ok;
    }
    if (!json_is_array(value) || json_array_size(value) != 2)
        return refuse(l, "a range is [low, high] or one integer");
    if (!read_bound(l, json_array_get(value, 0), 0, &range->low) ||
        !read_bound(l, json_array_get(value, 1), INT64_MAX, &range->high))
        return false;
    return range->low <= range->high || refuse(l, "the range is empty: its low end is above its high end");
}

static bool read_where(loader *l, json_t *value, gems_rule *rule)
{
    const char *name;
    json_t *range;
    json_object_foreach(value, name, range)
    {
        enter(l, name, 0);
        if (!read_range(l, name, range, rule))
            return false;
        leave(l);
    }
    return true;
}

static bool read_place(loader *l, json_t *value, gems_rule *rule)
{
    static const struct {
        const char *name;
        gems_rule_range range;
    } places[] = {{"host", {GEMS_SIZE_PLACE, GEMS_OPERANDS_TRAVEL, GEMS_OPERANDS_TO_STAY}},
                  {"resident", {GEMS_SIZE_PLACE, GEMS_OPERANDS_TO_STAY, GEMS_OPERANDS_ON_DEVICE}},
                  {"device", {GEMS_SIZE_PLACE, GEMS_OPERANDS_ON_DEVICE, GEMS_OPERANDS_ON_DEVICE}}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (strcmp(json_string_value(value), places[i].name) == 0) {
            rule->range[rule->nranges++] = places[i].range;
            return true;
        }
    return refuse(l, "a place is device, resident or host");
}

/* The variants of the rule's operators, those of the name it gives or all, one after the other: begin with *op 0 and
 * *variant NULL. Operators without a kernel have none. */
static const gems_variant *next_variant(const gems_rule *rule, unsigned *op, const gems_variant *variant)
{
    const char *name = *rule->variant ? rule->variant : NULL;
    for (; *op < gems_op_count; ++*op, variant = NULL) {
        const gems_family *family = gems_opset_has(rule->ops, *op) ? gems_ops[*op].kernel : NULL;
        if (!family)
            continue;
        for (variant = variant ? variant + 1 : family->variants; variant->name; variant++)
            if (!name || strcmp(variant->name, name) == 0)
                return variant;
    }
    return NULL;
}

/* Whether a list of words, with blanks or commas between them, has this one. */
static bool has_word(const char *list, const char *word)
{
    const char *w;
    for (size_t n = strlen(word), length; (length = gems_word(&list, ", ", &w));)
        if (length == n && memcmp(w, word, n) == 0)
            return true;
    return false;
}

/* Appends a name to a list, once. */
static void list_name(gems_text *list, const char *name)
{
    if (!has_word(list->s, name))
        gems_text_put(list, "%s%s", list->n ? ", " : "", name);
}

static bool has_kernel(const gems_rule *rule)
{
    for (unsigned i = 0; i < gems_op_count; i++)
        if (gems_ops[i].kernel && gems_opset_has(rule->ops, i))
            return true;
    return false;
}

/* A kernel of the rule's operators must have the variant, if there is any kernel. */
static bool read_variant(loader *l, json_t *value, gems_rule *rule)
{
    unsigned op = 0;
    rule->variant = json_string_value(value);
    if (!has_kernel(rule) || next_variant(rule, &op, NULL))
        return true;
    char names[160];
    gems_text list = gems_text_in(names, sizeof names);
    gems_rule any = {.ops = rule->ops, .variant = ""};
    op = 0;
    for (const gems_variant *v = next_variant(&any, &op, NULL); v; v = next_variant(&any, &op, v))
        list_name(&list, v->name);
    return refuse(l, "no kernel of these operators has a variant %.40s; there is %s", rule->variant, names);
}

/* Checks a parameter against every variant of the rule that has it. *known: whether there is one; without any kernel it
 * is. */
static bool check_param(loader *l, const gems_rule *rule, const char *name, long long value, bool defaults, bool *known)
{
    char names[160];
    gems_text list = gems_text_in(names, sizeof names);
    unsigned op = 0;
    *known = !has_kernel(rule);
    for (const gems_variant *v = next_variant(rule, &op, NULL); v; v = next_variant(rule, &op, v))
        for (int i = -1; i < GEMS_PARAMETERS && (i < 0 || v->params[i].name); i++) {
            const gems_parameter *p = i < 0 ? &gems_parameter_lane : &v->params[i];
            list_name(&list, p->name);
            if (strcmp(p->name, name) != 0)
                continue;
            *known = true;
            char steps[40] = "";
            if (p->step > 1)
                snprintf(steps, sizeof steps, " in steps of %lld", (long long)p->step);
            if (value < p->low || value > p->high || (value - p->low) % p->step != 0)
                return refuse(l, "%.40s is %lld; %s takes %lld to %lld%s", name, value, v->name, (long long)p->low,
                              (long long)p->high, steps);
        }
    return *known || defaults ||
           refuse(l, "no kernel of these operators has a parameter %.40s; there is %s", name, names);
}

/* `defaults`: those of the table, of which a rule takes what its kernels have and it does not give itself. */
static bool read_parameters(loader *l, json_t *value, gems_rule *rule, bool defaults)
{
    if (!json_is_object(value))
        return refuse(l, "parameters are an object of integers");
    const char *name;
    json_t *number;
    json_object_foreach(value, name, number)
    {
        enter(l, name, 0);
        if (!json_is_integer(number))
            return refuse(l, "the parameter %.40s is not an integer", name);
        bool known, given = false;
        if (!check_param(l, rule, name, json_integer_value(number), defaults, &known))
            return false;
        for (int i = 0; i < rule->nparams; i++)
            given |= strcmp(rule->param[i].name, name) == 0;
        if (known && !given) {
            if (rule->nparams == GEMS_RULE_PARAMS)
                return refuse(l, "more than %d parameters", GEMS_RULE_PARAMS);
            rule->param[rule->nparams++] = (gems_rule_param_value){name, json_integer_value(number)};
        }
        leave(l);
    }
    return true;
}

static bool read_params(loader *l, json_t *value, gems_rule *rule)
{
    return read_parameters(l, value, rule, false);
}

/* What chains do with these operators: parameters, or false for nothing. */
static bool read_chain(loader *l, json_t *value, gems_rule *rule)
{
    bool chains = false;
    for (unsigned i = 0; i < gems_op_count; i++)
        if (gems_opset_has(rule->ops, i) && gems_ops[i].kernel)
            chains |= gems_ops[i].kernel->chains || gems_ops[i].kernel->fold;
    if (!chains)
        return refuse(l, "none of these operators can be part of a chain");
    if (json_is_true(value))
        return refuse(l, "\"chain\" is false or an object of integers");
    rule->chain = true;
    rule->host = json_is_false(value);
    const char *name;
    json_t *number;
    json_object_foreach(value, name, number)
    {
        char names[160];
        gems_text list = gems_text_in(names, sizeof names);
        const gems_parameter *p = gems_chain_parameters;
        enter(l, name, 0);
        for (; p->name && strcmp(p->name, name) != 0; p++)
            list_name(&list, p->name);
        if (!p->name)
            return refuse(l, "chains have no parameter %.40s; there is %s", name, names);
        if (!json_is_integer(number))
            return refuse(l, "the parameter %.40s is not an integer", name);
        if (json_integer_value(number) < p->low || json_integer_value(number) > p->high)
            return refuse(l, "%s is %lld; chains take %lld to %lld", name, (long long)json_integer_value(number),
                          (long long)p->low, (long long)p->high);
        rule->param[rule->nparams++] = (gems_rule_param_value){name, json_integer_value(number)};
        leave(l);
    }
    return true;
}

/* ---- a rule ---- */

/* Members of a rule, in the order in which they are read; those without a reader are only checked for their type. */
#define IS(type) (1u << JSON_##type)
static const struct {
    const char *key;
    unsigned types;
    const char *wanted;
    bool (*read)(loader *l, json_t *value, gems_rule *rule);
} rule_members[] = {
    {"op", IS(STRING) | IS(ARRAY), "a string or a list of strings is wanted", read_operators},
    {"family", IS(STRING), "a string is wanted", read_family},
    {"dtype", IS(STRING) | IS(ARRAY), "a string or a list of strings is wanted", read_dtypes},
    {"where", IS(OBJECT), "\"where\" is an object of ranges", read_where},
    {"place", IS(STRING), "a string is wanted", read_place},
    {"host", IS(TRUE) | IS(FALSE), "\"host\" is true or false", NULL},
    {"variant", IS(STRING), "a string is wanted", read_variant},
    {"params", IS(OBJECT), "parameters are an object of integers", read_params},
    {"chain", IS(FALSE) | IS(TRUE) | IS(OBJECT), "\"chain\" is false or an object of integers", read_chain},
    {"device", IS(STRING), "a string is wanted", NULL},
    {"note", IS(STRING), "a string is wanted", NULL},
    {"gain", IS(INTEGER) | IS(REAL), "\"gain\" is a number", NULL},
};
#define RULE_MEMBERS (sizeof rule_members / sizeof *rule_members)

static bool check_members(loader *l, json_t *rule)
{
    const char *key;
    json_t *member;
    if (!json_is_object(rule))
        return refuse(l, "a rule is an object");
    json_object_foreach(rule, key, member)
    {
        size_t i = 0;
        while (i < RULE_MEMBERS && strcmp(rule_members[i].key, key) != 0)
            i++;
        enter(l, key, 0);
        if (i == RULE_MEMBERS)
            return refuse(l, "unknown key \"%.40s\" in a rule", key);
        if (!(rule_members[i].types & 1u << json_typeof(member)))
            return refuse(l, "%s", rule_members[i].wanted);
        leave(l);
    }
    if (!json_object_get(rule, "op") && !json_object_get(rule, "family"))
        return refuse(l, "a rule needs \"op\" or \"family\"");
    if (json_is_true(json_object_get(rule, "host")) &&
        (json_object_get(rule, "variant") || json_object_get(rule, "params")))
        return refuse(l, "a rule for the host takes no variant and no parameters");
    if (json_object_get(rule, "chain") &&
        (json_object_get(rule, "host") || json_object_get(rule, "variant") || json_object_get(rule, "params")))
        return refuse(l, "a rule for chains takes no variant, no parameters and no host");
    return true;
}

/* *applies: false if the rule is for another device. */
static bool read_rule(loader *l, json_t *value, json_t *defaults, gems_rule *rule, bool *applies)
{
    if (!check_members(l, value))
        return false;
    snprintf(rule->origin, sizeof rule->origin, "%.80s:%d", l->name, l->line);
    rule->host = json_is_true(json_object_get(value, "host"));
    rule->variant = "";
    rule->dtypes = json_object_get(value, "dtype") ? 0 : UINT16_MAX;
    if (!json_object_get(value, "op"))
        gems_opset_add(rule->ops, "*", 1);
    for (size_t i = 0; i < RULE_MEMBERS; i++) {
        json_t *member = json_object_get(value, rule_members[i].key);
        enter(l, rule_members[i].key, 0);
        if (member && rule_members[i].read && !rule_members[i].read(l, member, rule))
            return false;
        leave(l);
    }
    const char *device = json_string_value(json_object_get(value, "device"));
    *applies = !device || !l->device || strstr(l->device, device);
    loader top = *l;
    top.depth = 0;
    enter(&top, "defaults", 0);
    return !defaults || rule->host || rule->chain || read_parameters(&top, defaults, rule, true);
}

/* ---- the file ---- */

/* Members of a table. Those with a list are objects whose members are all named there. "match" and "device" are the
 * device layer's, which reads them in the library's own files; in another table they have no effect. */
static const struct key {
    const char *parent, *key, *members;
} file_keys[] = {
    {"a table", "vendor"},
    {"a table", "match", "platform vendor device"},
    {"a table", "device",
     "order memory bounce queues save needs limits own_cache environment lanes libraries exact options prelude "
     "undeclared"},
    {"\"device\"", "bounce", "mb piece_kb from_kb"},
    {"\"device\"", "lanes", "small main"},
    {"a table", "defaults"},
    {"a table", "rules"},
    {"a table", "origin"},
    {"a table", "note"},
};

/* The key's row, or NULL. */
static const struct key *find_key(const char *parent, const char *key)
{
    for (size_t i = 0; i < sizeof file_keys / sizeof *file_keys; i++)
        if (strcmp(file_keys[i].key, key) == 0 && strcmp(file_keys[i].parent, parent) == 0)
            return &file_keys[i];
    return NULL;
}

/* `members`: those of an object inside the table; NULL: the table itself. */
static bool check_keys(loader *l, json_t *object, const char *parent, const char *members)
{
    const char *key;
    json_t *member;
    json_object_foreach(object, key, member)
    {
        const struct key *row = find_key(parent, key);
        enter(l, key, 0);
        if (members ? !has_word(members, key) : !row)
            return refuse(l, "unknown key \"%.40s\" in %s", key, parent);
        if (row && row->members) {
            char name[40];
            snprintf(name, sizeof name, "\"%s\"", key);
            if (!json_is_object(member))
                return refuse(l, "%s of a table is an object%s", name,
                              members ? "" : " (a rule takes a device's name)");
            if (!check_keys(l, member, name, row->members))
                return false;
        }
        leave(l);
    }
    return true;
}

static bool check_vendor(loader *l, json_t *value)
{
    const char *vendor = json_string_value(value);
    if (!vendor)
        return refuse(l, "a string is wanted");
    l->error->other_vendor = l->vendor && strcmp(l->vendor, vendor) != 0;
    return !l->error->other_vendor ||
           refuse(l, "this table is for %.40s, the vendor in use is %.40s", vendor, l->vendor);
}

/* Defaults must make sense for some kernel; which ones a rule takes is decided rule by rule. */
static bool check_defaults(loader *l, json_t *defaults)
{
    gems_rule any = {.ops = gems_opset_new(), .variant = ""};
    if (!any.ops)
        return refuse(l, "out of memory");
    gems_opset_add(any.ops, "*", 1);
    bool ok = read_parameters(l, defaults, &any, false);
    free(any.ops);
    return ok;
}

static bool read_rules(loader *l, json_t *rules, json_t *defaults)
{
    if (!json_is_array(rules))
        return refuse(l, "\"rules\" is a list");
    l->layer->rules = calloc(json_array_size(rules) + 1, sizeof(gems_rule));
    if (!l->layer->rules)
        return refuse(l, "out of memory");
    size_t i;
    json_t *value;
    gems_json_element at = gems_json_first(l->text, l->path, l->depth);
    json_array_foreach(rules, i, value)
    {
        l->line = at.place.line;
        gems_json_next(&at);
        enter(l, NULL, i);
        gems_rule *rule = &l->layer->rules[l->layer->count++];
        rule->ops = gems_opset_new();
        bool applies;
        if (!rule->ops)
            return refuse(l, "out of memory");
        if (!read_rule(l, value, defaults, rule, &applies))
            return false;
        if (!applies) {
            free(rule->ops);
            memset(rule, 0, sizeof *rule);
            l->layer->count--;
        }
        leave(l);
    }
    return true;
}

static bool read_file(loader *l)
{
    json_error_t error;
    l->layer->root = json_loads(l->text, JSON_REJECT_DUPLICATES, &error);
    if (!l->layer->root) {
        snprintf(l->error->text, sizeof l->error->text, "%.120s:%d:%d: %.120s", l->name, error.line, error.column,
                 error.text);
        return false;
    }
    json_t *root = l->layer->root, *vendor = json_object_get(root, "vendor"),
           *defaults = json_object_get(root, "defaults"), *rules = json_object_get(root, "rules");
    if (!json_is_object(root))
        return refuse(l, "a table is an object");
    if (!check_keys(l, root, "a table", NULL))
        return false;
    enter(l, "vendor", 0);
    if (vendor && !check_vendor(l, vendor))
        return false;
    l->path[0].key = "defaults";
    if (defaults && !check_defaults(l, defaults))
        return false;
    l->path[0].key = "rules";
    return !rules || read_rules(l, rules, defaults);
}

bool gems_layer_load(gems_layer *layer, const char *name, const char *json, const char *vendor, const char *device,
                     gems_table_error *error)
{
    *layer = (gems_layer){0};
    error->other_vendor = false;
    loader l = {.name = name, .text = json, .vendor = vendor, .device = device, .layer = layer, .error = error};
    if (read_file(&l))
        return true;
    gems_layer_free(layer);
    return false;
}

void gems_layer_free(gems_layer *layer)
{
    for (size_t i = 0; i < layer->count; i++)
        free(layer->rules[i].ops);
    free(layer->rules);
    json_decref(layer->root);
    *layer = (gems_layer){0};
}
