/* The table of variables and its one reader. To add a variable: a field in gems_config, a row here. */
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

extern char **environ;

#define FIELD(f) offsetof(gems_config, f)
#define FLAG     "0 or 1"
#define LIST     "operators separated by commas"
#define WORDS(...)                                                                                                     \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

const gems_variable gems_variables[] = {
    {"GEMS_EXCLUDE", LIST, "",
     "Operators that are never routed, e.g. add.Tensor,mul*,softmax. A name without overload means all overloads.",
     "exclude", GEMS_VAR_LIST, FIELD(exclude)},
    {"GEMS_ONLY", LIST, "", "Only these operators are routed. GEMS_EXCLUDE wins where both name an operator.", "only",
     GEMS_VAR_LIST, FIELD(only)},
    {"GEMS_VENDOR", "a name, as gems doctor lists them", "",
     "Use this vendor's OpenCL. If there is none the host runs everything.", "vendor", GEMS_VAR_NAME, FIELD(vendor)},
    {"GEMS_DEVICE", "an index from 0, as gems doctor lists them, or auto", "auto",
     "Use this device. auto: a GPU before a CPU; under torchrun each rank takes its own.", "device", GEMS_VAR_INT,
     FIELD(device), WORDS("auto"), 0, 1023},
    {"GEMS_ROUTE", "table, all or off", "table",
     "table: route what the table says. all: route whatever a kernel can do (for tests). off: route nothing.", "route",
     GEMS_VAR_CHOICE, FIELD(route), WORDS("table", "all", "off")},
    {"GEMS_LOG", "a file", "",
     "Append a line a call: operator, dtypes, shapes, and where it went or why not. %p becomes the process id.", "log",
     GEMS_VAR_LOG, FIELD(log)},
    {"GEMS_LOG_ONCE", FLAG, "0", "Write each distinct line of GEMS_LOG once.", "log-once", GEMS_VAR_FLAG,
     FIELD(log_once)},
    {"GEMS_REPORT", FLAG, "0",
     "At exit write a table to stderr: per operator calls routed and not, reasons, time, bytes moved.", "report",
     GEMS_VAR_FLAG, FIELD(report)},
    {"GEMS_CHECK", "a number from 0 to 1000000000", "0",
     "Run the first N calls of each operator and shape class on both sides, compare, and report the largest errors.",
     "check", GEMS_VAR_INT, FIELD(check), WORDS(NULL), 0, 1000000000},
    {"GEMS_TUNE_JSON", "a path, or the JSON itself", "", "A table put above the vendor's and the user's own.", "table",
     GEMS_VAR_TABLE, FIELD(tune_json)},
    {"GEMS_CACHE_DIR", "a folder", "",
     "Where compiled kernels are kept; otherwise gems-preload in $XDG_CACHE_HOME or ~/.cache.", "cache-dir",
     GEMS_VAR_FOLDER, FIELD(cache_dir)},
    {"GEMS_CACHE_MB", "a number from 0 to 1000000", "256", "Bound on that folder, in MiB. 0: keep nothing.", "cache-mb",
     GEMS_VAR_INT, FIELD(cache_mb), WORDS(NULL), 0, 1000000},
    {"GEMS_DISABLE", FLAG, "0", "Leave every call to the host.", NULL, GEMS_VAR_FLAG, FIELD(disable)},
    {"GEMS_STRICT", FLAG, "0", "Abort where the host would otherwise serve after a failure of ours.", "strict",
     GEMS_VAR_FLAG, FIELD(strict)},
    {"GEMS_NO_INHERIT", FLAG, "0", "Child processes start without the library; other LD_PRELOAD entries are kept.",
     "no-inherit", GEMS_VAR_FLAG, FIELD(no_inherit)},
    {"GEMS_DUMP", "a folder", "", "Write the source of generated kernels there.", "dump", GEMS_VAR_FOLDER, FIELD(dump)},
    {"GEMS_MEMORY", "auto, staged or unified", "auto",
     "How kernels reach tensors: staged copies them, unified reads the host's memory. auto asks the device.", "memory",
     GEMS_VAR_CHOICE, FIELD(memory), WORDS("auto", "staged", "unified")},
    {"GEMS_POOL", FLAG, "1", "Memory of CPU tensors from 64 KiB on comes from a pool. 0: from PyTorch's own allocator.",
     "pool", GEMS_VAR_FLAG, FIELD(pool)},
    {"GEMS_POOL_LIMIT", "a number from 0 to 100000000, or auto", "auto",
     "MiB that the pool keeps for the next tensors. auto: with those in use no more than were ever in use at once.",
     "pool-limit", GEMS_VAR_INT, FIELD(pool_limit), WORDS("auto"), 0, 100000000},
    {"GEMS_FUSE", "off, auto or all", "auto",
     "Defer results of pointwise operators and compute chains of them in one pass. auto: where it pays. all: whatever "
     "can be (for tests).",
     "fuse", GEMS_VAR_CHOICE, FIELD(fuse), WORDS("off", "auto", "all")},
    {"GEMS_RESIDENT", "off, auto or force", "off",
     "auto: what kernels read and write stays on a GPU with memory of its own until the program wants it. force: also "
     "on other devices where GEMS_MEMORY is staged. In trial.",
     "resident", GEMS_VAR_CHOICE, FIELD(resident), WORDS("off", "auto", "force")},
    {"GEMS_RESIDENT_LIMIT", "a number from 1 to 100000000, or auto", "auto",
     "MiB that may stay there. auto: three quarters of the device's memory.", "resident-limit", GEMS_VAR_INT,
     FIELD(resident_limit), WORDS("auto"), 1, 100000000},
    {"GEMS_FAULT", "a number", "0", "For tests: make the n-th OpenCL call fail (-n: from the n-th on all). 0: none.",
     "fault", GEMS_VAR_INT, FIELD(fault), WORDS(NULL), -1000000000, 1000000000},
    {"GEMS_SAVE", FLAG, "1", "For tests: 0: no binary of a kernel is made while the program is idle.", "save",
     GEMS_VAR_FLAG, FIELD(save)},
    {"GEMS_PYTHON", "path of a Python that has PyTorch", "",
     "For gems doctor, instead of the first python3 on PATH, and for make, instead of an environment of its own.", NULL,
     GEMS_VAR_PATH, FIELD(python)},
    {NULL},
};
#define VARIABLES (sizeof gems_variables / sizeof *gems_variables)

static bool parse_flag(const char *text, bool *value)
{
    static const char *const words[][2] = {{"0", "1"}, {"no", "yes"}, {"off", "on"}, {"false", "true"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int v = 0; v < 2; v++)
            if (strcasecmp(text, words[i][v]) == 0) {
                *value = v;
                return true;
            }
    return false;
}

static int find_word(const gems_variable *variable, const char *text)
{
    for (size_t i = 0; i < sizeof variable->words / sizeof *variable->words && variable->words[i]; i++)
        if (strcmp(text, variable->words[i]) == 0)
            return (int)i;
    return -1;
}

static bool parse_int(const gems_variable *variable, const char *text, int64_t *value)
{
    int word = find_word(variable, text);
    if (word >= 0) {
        *value = -1 - word;
        return true;
    }
    if (!isdigit((unsigned char)*text) && *text != '-')
        return false;
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || end == text || *end || number < variable->min || number > variable->max)
        return false;
    *value = number;
    return true;
}

bool gems_config_parse(const gems_variable *variable, const char *text, gems_config *config)
{
    void *field = (char *)config + variable->offset;
    int word;
    switch (variable->type) {
    case GEMS_VAR_FLAG:
        return parse_flag(text, field);
    case GEMS_VAR_INT:
        return parse_int(variable, text, field);
    case GEMS_VAR_CHOICE:
        word = find_word(variable, text);
        if (word >= 0)
            *(int64_t *)field = word;
        return word >= 0;
    case GEMS_VAR_NAME:
        for (const char *c = text; *c; c++)
            if (!isalnum((unsigned char)*c) && !strchr("-_.", *c))
                return false;
        break;
    case GEMS_VAR_LIST:
    case GEMS_VAR_TABLE:
    case GEMS_VAR_LOG:
    case GEMS_VAR_FOLDER:
    case GEMS_VAR_PATH:
        break;
    }
    *(const char **)field = text;
    return true;
}

const gems_variable *gems_config_find(const char *name)
{
    const gems_variable *v = gems_variables;
    while (v->name && strcmp(v->name, name) != 0)
        v++;
    return v->name ? v : NULL;
}

/* Edits (insert, delete, replace, each 1) between two names; names longer than the row count as unlike. */
static size_t distance(const char *a, const char *b)
{
    size_t row[64], n = strlen(b);
    if (n >= 64)
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; *a; i++, a++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t replace = diagonal + (*a != b[j - 1]);
            diagonal = row[j];
            size_t other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = replace < other ? replace : other;
        }
    }
    return row[n];
}

/* The variable whose name is most like `name`, or NULL if none is near. */
static const gems_variable *find_nearest(const char *name)
{
    const gems_variable *best = NULL;
    /* Half of what follows GEMS_, at most 3: further away it would be a guess. */
    size_t len = strlen(name), least = len < 7 ? 2 : len < 11 ? (len - 5) / 2 + 1 : 4;
    for (const gems_variable *v = gems_variables; v->name; v++) {
        size_t d = distance(v->name, name);
        if (d < least) {
            least = d;
            best = v;
        }
    }
    return best;
}

/* ---- reading ---- */

static struct {
    pthread_once_t once;
    gems_config config;
    char *texts[VARIABLES]; /* copies: the program may change its environment */
} process = {.once = PTHREAD_ONCE_INIT};

static bool is_set_uid(void)
{
    return getauxval(AT_SECURE) != 0;
}

/* The variable's value, or NULL; an empty one counts as not set. */
static const char *get(const char *name)
{
    const char *text = getenv(name);
    return text && *text ? text : NULL;
}

static void complain_unknown(void)
{
    for (char **entry = environ; entry && *entry; entry++) {
        if (strncmp(*entry, "GEMS_", 5) != 0)
            continue;
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*entry, "="), *entry);
        if (gems_config_find(name))
            continue;
        const gems_variable *near = find_nearest(name);
        if (near)
            gems_complain("%s is not a variable of ours and is ignored; did you mean %s?", name, near->name);
        else
            gems_complain("%s is not a variable of ours and is ignored (gems help lists them)", name);
    }
}

static void read_environment(void)
{
    gems_config *config = &process.config;
    for (const gems_variable *v = gems_variables; v->name; v++)
        if (*v->initial)
            gems_config_parse(v, v->initial, config);
    if (is_set_uid())
        return;
    /* All values before any complaint, so that complaints already go where GEMS_LOG says. */
    const gems_variable *bad[VARIABLES];
    size_t nbad = 0;
    for (const gems_variable *v = gems_variables; v->name; v++) {
        const char *text = get(v->name);
        if (!text)
            continue;
        char **copy = &process.texts[v - gems_variables];
        *copy = strdup(text);
        if (!*copy || !gems_config_parse(v, *copy, config))
            bad[nbad++] = v;
    }
    gems_log_to(config->log, config->log_once);
    for (size_t i = 0; i < nbad; i++)
        gems_complain("%s=%.100s makes no sense and is ignored; accepted: %s", bad[i]->name, get(bad[i]->name),
                      bad[i]->values);
    complain_unknown();
}

const gems_config *gems_config_get(void)
{
    pthread_once(&process.once, read_environment);
    return &process.config;
}

bool gems_config_flag(const char *name)
{
    const char *text = is_set_uid() ? NULL : get(name);
    bool value = false;
    return text && parse_flag(text, &value) && value;
}
