/* The table: which calls go to the device, and with which variant and parameters. Layers of JSON rules; first match
 * wins within a layer, later layers are asked before earlier ones; no match means host.
 *
 * JSON: {"vendor": "pocl", "match": {...}, "defaults": {...}, "rules": [
 *   {"op": "add*" | ["add.Tensor", "mul.*"], "family": "pointwise", "dtype": ["f32"],
 *    "where": {"numel": [65536, null], "cols": [1, 1024]}, "variant": "dense", "params": {"vec": 4}},
 *   {"op": "mm", "host": true}], "origin": {...}}
 * "op": names and patterns as in kernels/opset.h; "family": that of the operator's row, or its kernel's. One of the
 * two. "dtype": one or several, any if left out. "where": [low, high], both included, null is open; or one integer. A
 * size that the operator's family does not fill never matches. See gems_size_names. "variant", "params": what the
 * family knows (family.h), parameters are integers; or "host": true. "place": "device" (an
 * operand is there already: GEMS_RESIDENT), "resident" (what is copied there stays) or "host" (no operand is there);
 * any if left out. "chain": false (never deferred) or the parameters of gems_chain_parameters (family.h) instead: a
 * rule for chains, which says nothing of routes, as those say nothing of chains. "device": part of the device's name,
 * for a rule that holds for such devices alone. "note", "gain": for people. "defaults": parameters of every rule of the
 * text that does not give its own (where the kernel has them). A file that does not parse or names something unknown is
 * refused whole, with file, line and reason. */
#ifndef GEMS_TABLE_H
#define GEMS_TABLE_H

#include "kernels/call.h"

typedef struct gems_table gems_table; /* compiled, immutable */
typedef struct gems_rule gems_rule;

typedef struct gems_table_error {
    char text[256];    /* file:line:column: reason */
    bool other_vendor; /* all that is wrong is that it is for another vendor */
} gems_table_error;

/* Compiles JSON text (`name` is for messages and for the log: a path, or "GEMS_TUNE_JSON"). `below` is the layer asked
 * when no rule of this one matches (may be NULL); it must outlive the result. NULL and *error filled on failure. */
gems_table *gems_table_compile(const char *name, const char *json, const gems_table *below, gems_table_error *error);
/* The same for a given vendor and device: a text that names another "vendor" is refused, a rule that names a "device"
 * (part of its name) applies to such a device only. NULL: not known yet; then a rule for any device may apply. */
gems_table *gems_table_compile_for(const char *name, const char *json, const char *vendor, const char *device,
                                   const gems_table *below, gems_table_error *error);
/* Frees this layer alone. Rules that were looked up are gone with it. */
void gems_table_free(gems_table *table);

/* The rule for a call whose plan() is done, or NULL if none matches. Remembers decisions by operator, dtype and sizes.
 * Thread-safe. Cost: tens of nanoseconds. */
const gems_rule *gems_table_lookup(const gems_table *table, const gems_op *op, gems_dtype dtype,
                                   const gems_sizes *sizes);

/* The same of the rules for chains; NULL: as if one without parameters matched. */
const gems_rule *gems_table_chain(const gems_table *table, const gems_op *op, gems_dtype dtype,
                                  const gems_sizes *sizes);
/* The fewest KiB of a result that any rule for chains asks for; INT64_MAX: none asks. */
int64_t gems_table_chain_least(const gems_table *table);

/* Least number of elements of a call's largest operand at which any rule might send `op` to the device;
 * INT64_MAX if none ever does. The gate lets smaller calls pass without a look. */
int64_t gems_table_min_numel(const gems_table *table, const gems_op *op);

/* The least elements of an operand that may be on the device already; INT64_MAX, as at first: none ever is. For the
 * tables that are compiled from then on. */
void gems_table_set_place(int64_t least);

/* All rules for an operator in the order in which they are asked; their number. */
unsigned gems_table_rules(const gems_table *table, const gems_op *op, const gems_rule *const **rules);

bool gems_rule_is_host(const gems_rule *rule);
const char *gems_rule_variant(const gems_rule *rule); /* "" if the rule (or NULL) names none */
/* Parameter of the rule, or `fallback` (also for a NULL rule). */
int64_t gems_rule_param(const gems_rule *rule, const char *name, int64_t fallback);
const char *gems_rule_origin(const gems_rule *rule); /* "tune/pocl.json:12", for the log */
/* The rule in words, "f32 f64, numel 65536.., rows ..1024: dense vec=4 (tune/pocl.json:12)", cut to n bytes. */
void gems_rule_describe(const gems_rule *rule, char *text, size_t n);

#endif
