/* Every GEMS_* variable: one row each in config.c, read once, checked there. */
#ifndef GEMS_CONFIG_H
#define GEMS_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum gems_route_mode { GEMS_ROUTE_TABLE, GEMS_ROUTE_ALL, GEMS_ROUTE_OFF };

typedef struct gems_config {
    bool disable;     /* GEMS_DISABLE */
    bool strict;      /* GEMS_STRICT: abort where the host would serve after a failure of ours */
    bool no_inherit;  /* GEMS_NO_INHERIT */
    bool report;      /* GEMS_REPORT */
    bool log_once;    /* GEMS_LOG_ONCE */
    int route;        /* GEMS_ROUTE: table, all, off */
    int64_t check;    /* GEMS_CHECK: calls per operator and shape class to compare */
    int64_t fault;    /* GEMS_FAULT: make the n-th OpenCL call fail (0: none); -n: from the n-th on all fail */
    int64_t cache_mb; /* GEMS_CACHE_MB: bound on the binary cache */
    int64_t device;   /* GEMS_DEVICE: index, or -1 */
    const char *vendor, *log, *exclude, *only, *tune_json, *cache_dir, *dump; /* NULL if not set */
} gems_config;

/* Reads the environment on first use; the same struct ever after. All defaults if the program is set-uid. */
const gems_config *gems_config_get(void);

/* One row of the table of variables, for `gems`, the man page and the README. */
typedef struct gems_variable {
    const char *name, *values, *initial, *help;
} gems_variable;
extern const gems_variable gems_variables[]; /* ends with a NULL name */

#endif
