/* Every GEMS_* variable: one row each in config.c, read once, checked there. */
#ifndef GEMS_CONFIG_H
#define GEMS_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gems_route_mode {
    GEMS_ROUTE_TABLE,
    GEMS_ROUTE_ALL,
    GEMS_ROUTE_OFF
};
enum gems_memory_mode {
    GEMS_MEMORY_AUTO,
    GEMS_MEMORY_STAGED,
    GEMS_MEMORY_UNIFIED
};

typedef struct gems_config {
    bool disable;           /* GEMS_DISABLE */
    bool strict;            /* GEMS_STRICT: abort where the host would serve after a failure of ours */
    bool no_inherit;        /* GEMS_NO_INHERIT */
    bool report;            /* GEMS_REPORT */
    bool log_once;          /* GEMS_LOG_ONCE */
    int64_t route;          /* GEMS_ROUTE: gems_route_mode */
    int64_t fuse;           /* GEMS_FUSE: gems_fuse */
    int64_t resident;       /* GEMS_RESIDENT: off, auto, force */
    int64_t resident_limit; /* GEMS_RESIDENT_LIMIT: MiB, or -1 */
    int64_t memory;         /* GEMS_MEMORY: gems_memory_mode */
    int64_t check;          /* GEMS_CHECK: calls per operator and shape class to compare */
    int64_t fault;          /* GEMS_FAULT: make the n-th OpenCL call fail (0: none); -n: from the n-th on all fail */
    int64_t cache_mb;       /* GEMS_CACHE_MB: bound on the binary cache */
    int64_t device;         /* GEMS_DEVICE: index, or -1 */
    bool save;              /* GEMS_SAVE */
    bool pool;              /* GEMS_POOL */
    int64_t pool_limit;     /* GEMS_POOL_LIMIT: MiB of free blocks that keep their pages, or -1 */
    const char *vendor, *log, *exclude, *only, *tune_json, *cache_dir, *dump, *python; /* NULL if not set */
} gems_config;

/* Reads the environment on first use; the same struct ever after. All defaults if the program is set-uid. What makes
 * no sense is complained about here, once: so first call it when it is known that this process uses the library. */
const gems_config *gems_config_get(void);
/* One flag, read alone and silently: for start-up code that runs in every process under the preload. */
bool gems_config_flag(const char *name);

typedef enum gems_variable_type {
    GEMS_VAR_FLAG,   /* bool: 1/0, yes/no, on/off, true/false */
    GEMS_VAR_INT,    /* int64_t: min to max; the i-th of `words` stands for -1 - i */
    GEMS_VAR_CHOICE, /* int64_t: position in `words` */
    GEMS_VAR_TABLE,  /* const char *: JSON, or the path of a file of it */
    GEMS_VAR_NAME,   /* const char *: letters, digits, '-', '_', '.' */
    GEMS_VAR_LIST,   /* const char *: operator names and patterns, separated by commas; read by kernels/opset.h */
    GEMS_VAR_LOG,    /* const char *: a file to append to; %p in it becomes the process id */
    GEMS_VAR_FOLDER, /* const char *: made if it is not there */
    GEMS_VAR_PATH    /* const char * */
} gems_variable_type;

/* One row of the table of variables: read by the parser, by `gems`, and for the man page and the README. */
typedef struct gems_variable {
    const char *name, *values, *initial, *help; /* initial: as it would be written, "" if unset */
    const char *option;                         /* of `gems run`, without "--"; NULL if there is none */
    gems_variable_type type;
    size_t offset; /* in gems_config */
    const char *words[4];
    int64_t min, max;
} gems_variable;
extern const gems_variable gems_variables[]; /* ends with a NULL name */

/* Sets the field of `variable` in *config from `text`. Text that makes no sense leaves it as it is: false. Strings are
 * not copied. */
bool gems_config_parse(const gems_variable *variable, const char *text, gems_config *config);
/* The variable of that name, or NULL. */
const gems_variable *gems_config_find(const char *name);

#endif
