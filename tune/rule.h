/* What the loader (load.c) hands to the table (table.c). Private to tune/. */
#ifndef GEMS_RULE_H
#define GEMS_RULE_H

#include "tune/table.h"
#include "kernels/opset.h"

#include <jansson.h>

enum {
    GEMS_RULE_PARAMS = 16
};

typedef struct gems_rule_range {
    uint8_t size; /* gems_size */
    int64_t low, high;
} gems_rule_range;

typedef struct gems_rule_param_value {
    const char *name;
    int64_t value;
} gems_rule_param_value;

/* Strings belong to the JSON tree of the layer (gems_layer.root) or are literals. */
struct gems_rule {
    bool host;
    bool chain; /* of chains, not of routes; host: not deferred */
    uint8_t nranges, nparams;
    uint16_t dtypes; /* a bit a gems_dtype; all bits: any */
    const char *variant;
    gems_rule_range range[GEMS_SIZE_COUNT];
    gems_rule_param_value param[GEMS_RULE_PARAMS];
    gems_opset *ops;
    char origin[96];
};

/* One file's rules in order; those for another device are left out. */
typedef struct gems_layer {
    json_t *root;
    gems_rule *rules;
    size_t count;
} gems_layer;

/* Reads JSON text. `vendor`, `device`: what this process uses, or NULL while not known. False
 * and *error if anything in it is not understood. */
bool gems_layer_load(gems_layer *layer, const char *name, const char *json, const char *vendor, const char *device,
                     gems_table_error *error);
void gems_layer_free(gems_layer *layer);

#endif
