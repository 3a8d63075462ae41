/* gems_describe: what the library knows, as JSON. Read by the `gems` command; nothing here is on a path of calls. */
#include "preload/gems.h"
#include "preload/base/config.h"
#include "preload/engine/allowed.h"
#include "kernels/opset.h"
#include "preload/probe.h"
#include "preload/engine/route.h"
#include "kernels/device/device.h"
#include "kernels/family.h"
#include "shim/thunk.h"
#include "tune/layers.h"

#include <dirent.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- devices ---- */

/* What drivers and users wrote may be no UTF-8: json_string() is NULL then, and the value null. */
static json_t *describe_lane(gems_lane lane)
{
    const gems_device_info *d = gems_device_get(lane);
    return json_pack("{s:o?, s:o?, s:o?, s:o?, s:s, s:b, s:I, s:I}", "vendor", json_string(d->vendor), "platform",
                     json_string(d->platform), "name", json_string(d->name), "driver", json_string(d->driver), "memory",
                     d->unified ? "unified" : "staged", "f64", d->f64, "compute_units", (json_int_t)d->compute_units,
                     "memory_bytes", (json_int_t)d->memory_bytes);
}

static json_t *describe_devices(void)
{
    bool open = gems_device_open();
    json_t *list = json_array();
    const gems_device_seen *seen;
    unsigned n = gems_device_list(&seen);
    for (unsigned i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:o, s:o?, s:o?, s:o?, s:s, s:b, s:b}", "index",
                                              seen[i].index >= 0 ? json_integer(seen[i].index) : json_null(), "vendor",
                                              json_string(seen[i].vendor), "platform", json_string(seen[i].platform),
                                              "name", json_string(seen[i].name), "kind", seen[i].cpu ? "cpu" : "gpu",
                                              "main", seen[i].main, "small", seen[i].small));
    return json_pack("{s:o?, s:o, s:o, s:o}", "error", open ? NULL : json_string(gems_device_error()), "main",
                     open ? describe_lane(GEMS_LANE_MAIN) : json_null(), "small",
                     open ? describe_lane(GEMS_LANE_SMALL) : json_null(), "devices", list);
}

/* ---- operators ---- */

static json_t *describe_rules(const gems_table *table, const gems_op *op)
{
    json_t *list = json_array();
    const gems_rule *const *rules;
    unsigned n = op->kernel ? gems_table_rules(table, op, &rules) : 0;
    for (unsigned i = 0; i < n; i++) {
        char text[400];
        gems_rule_describe(rules[i], text, sizeof text);
        json_array_append_new(list, json_string(text));
    }
    return list;
}

static json_t *describe_parameter(const gems_parameter *p)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:o}", "name", p->name, "low", (json_int_t)p->low, "high",
                     (json_int_t)p->high, "step", (json_int_t)p->step, "initial",
                     p->initial ? json_integer(p->initial) : json_null());
}

/* What a table's rule may name, and a tuner search. */
static json_t *describe_variants(const gems_family *family)
{
    json_t *list = json_array();
    for (const gems_variant *v = family ? family->variants : NULL; v && v->name; v++) {
        json_t *params = json_array(), *dtypes = json_array(); /* no dtypes: all that the operator has */
        for (int d = 0; d < GEMS_DTYPE_COUNT; d++)
            if (v->dtypes >> d & 1)
                json_array_append_new(dtypes, json_string(gems_dtypes[d].name));
        json_array_append_new(params, describe_parameter(&gems_parameter_lane));
        for (int i = 0; i < GEMS_PARAMETERS && v->params[i].name; i++)
            json_array_append_new(params, describe_parameter(&v->params[i]));
        json_array_append_new(list, json_pack("{s:s, s:s?, s:o, s:o}", "name", v->name, "asks", v->asks, "dtypes",
                                              dtypes, "params", params));
    }
    return list;
}

/* What a rule for chains may name. */
static json_t *describe_chain(const gems_family *family)
{
    json_t *list = json_array();
    for (const gems_parameter *p = gems_chain_parameters; family && family->chains && p->name; p++)
        json_array_append_new(list, describe_parameter(p));
    return list;
}

static json_t *describe_operators(void)
{
    const gems_opset *allowed = gems_allowed();
    const gems_device_info *d = gems_device_open() ? gems_device_get(GEMS_LANE_MAIN) : NULL;
    gems_tables *tables = d ? gems_route_tables(d->vendor, d->name) : NULL;
    json_t *root = json_array();
    for (unsigned i = 0; i < gems_op_count; i++) {
        const gems_op *op = &gems_ops[i];
        char dtypes[128];
        gems_probe_dtypes(op, dtypes, sizeof dtypes);
        json_array_append_new(root,
                              json_pack("{s:s, s:s, s:s, s:s, s:s, s:s?, s:s?, s:s, s:b, s:o, s:o, s:o}", "name",
                                        op->name, "operator", op->base, "overload", op->overload, "schema", op->schema,
                                        "family", op->family, "kernel", op->kernel ? op->kernel->name : NULL, "parts",
                                        op->parts, "dtypes", dtypes, "allowed", !allowed || gems_opset_has(allowed, i),
                                        "variants", describe_variants(op->kernel), "chain", describe_chain(op->kernel),
                                        "rules", describe_rules(tables ? gems_tables_top(tables) : NULL, op)));
    }
    gems_tables_free(tables);
    return root;
}

/* ---- cache ---- */

static json_t *describe_cache(void)
{
    const char *dir = gems_cache_dir();
    json_int_t entries = 0, bytes = 0;
    DIR *d = dir ? opendir(dir) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 4, ".bin") != 0 || fstatat(dirfd(d), e->d_name, &st, 0) != 0)
            continue;
        entries++;
        bytes += st.st_size;
    }
    if (d)
        closedir(d);
    return json_pack("{s:o*, s:I, s:I, s:I, s:b}", "folder", dir ? json_string(dir) : json_null(), "entries", entries,
                     "bytes", bytes, "limit_mb", (json_int_t)gems_config_get()->cache_mb, "writable",
                     dir && access(dir, W_OK | X_OK) == 0);
}

/* ---- symbols ---- */

static json_t *describe_symbols(void)
{
    json_t *root = json_object();
    for (unsigned i = 0; i < gems_op_count; i++) {
        json_t *list = json_array();
        for (int entry = 0; entry < GEMS_ENTRY_COUNT; entry++)
            if (gems_symbols[i][entry])
                json_array_append_new(list, json_string(gems_symbols[i][entry]));
        json_object_set_new(root, gems_ops[i].name, list);
    }
    return root;
}

char *gems_describe(const char *what)
{
    static const struct {
        const char *what;
        json_t *(*describe)(void);
    } topics[] = {
        {"operators", describe_operators},
        {"devices", describe_devices},
        {"cache", describe_cache},
        {"symbols", describe_symbols},
    };
    for (size_t i = 0; what && i < sizeof topics / sizeof *topics; i++) {
        if (strcmp(what, topics[i].what) != 0)
            continue;
        json_t *root = topics[i].describe();
        char *text = json_dumps(root, JSON_COMPACT);
        json_decref(root);
        return text;
    }
    return NULL;
}
