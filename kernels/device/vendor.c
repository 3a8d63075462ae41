/* Vendors are data: the "vendor", "match" and "device" parts of tune/<vendor>.json, read once from the library itself.
 * (The "rules" of the same files are tune/table.c's.) */
#include "kernels/device/driver.h"
#include "kernels/embedded.h"
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_VENDORS 32

static gems_vendor_data vendors[MAX_VENDORS + 1];
static json_t *files[MAX_VENDORS]; /* kept: the strings above are theirs */
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A string or a list of strings as a list that ends with NULL; NULL if absent. The strings are those of the file. */
static const char **strings(const json_t *value)
{
    size_t n = json_is_array(value) ? json_array_size(value) : json_is_string(value);
    if (n == 0)
        return NULL;
    const char **list = calloc(n + 1, sizeof *list);
    for (size_t i = 0; list && i < n; i++) {
        list[i] = json_string_value(json_is_array(value) ? json_array_get(value, i) : value);
        if (!list[i])
            break;
    }
    return list;
}

static const char *text(const json_t *value)
{
    return json_is_string(value) ? json_string_value(value) : "";
}

static int number(const json_t *value, int fallback)
{
    return json_is_integer(value) ? (int)json_integer_value(value) : fallback;
}

/* {"NAME": [min, max]}; NULL if absent. */
static const gems_limit *limits(json_t *value)
{
    const char *name;
    json_t *range;
    size_t n = 0;
    gems_limit *list = value ? calloc(json_object_size(value) + 1, sizeof *list) : NULL;
    if (list)
        json_object_foreach(value, name, range) list[n++] =
            (gems_limit){name, number(json_array_get(range, 0), INT_MIN), number(json_array_get(range, 1), INT_MAX)};
    return list;
}

/* Where the linker puts what GEMS_DRIVER registers. (Hidden: LLVM's linker would export them.) */
__attribute__((visibility("hidden"))) extern const gems_driver *const __start_gems_drivers[],
    *const __stop_gems_drivers[];

static const gems_driver *find_driver(const char *vendor)
{
    for (const gems_driver *const *d = __start_gems_drivers; d < __stop_gems_drivers; d++)
        if (strcmp((*d)->vendor, vendor) == 0)
            return *d;
    return NULL;
}

bool gems_device_library(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    for (const gems_driver *const *d = __start_gems_drivers; d < __stop_gems_drivers; d++)
        for (const char *const *begin = (*d)->libraries; begin && *begin; begin++)
            if (strncmp(name, *begin, strlen(*begin)) == 0)
                return true;
    return false;
}

static void read_vendor(gems_vendor_data *vendor, const json_t *file, const json_t *device)
{
    const json_t *match = json_object_get(file, "match"), *lanes = json_object_get(device, "lanes");

    vendor->name = json_string_value(json_object_get(file, "vendor"));
    int queues = number(json_object_get(device, "queues"), GEMS_MAX_QUEUES);

    vendor->order = number(json_object_get(device, "order"), 100);
    vendor->queues = queues > 0 && queues < GEMS_MAX_QUEUES ? (unsigned)queues : GEMS_MAX_QUEUES;
    vendor->match_platform = strings(json_object_get(match, "platform"));
    vendor->match_vendor = strings(json_object_get(match, "vendor"));
    vendor->match_device = strings(json_object_get(match, "device"));
    vendor->libraries = strings(json_object_get(device, "libraries"));
    vendor->environment = strings(json_object_get(device, "environment"));
    vendor->small_devices = strings(json_object_get(lanes, "small"));
    vendor->main_devices = strings(json_object_get(lanes, "main"));
    vendor->save_when_idle = strcmp(text(json_object_get(device, "save")), "idle") == 0;
    vendor->own_cache = strings(json_object_get(device, "own_cache"));
    vendor->needs = strings(json_object_get(device, "needs"));
    vendor->limits = limits(json_object_get(device, "limits"));
    vendor->exact = json_is_true(json_object_get(device, "exact"));
    const json_t *bounce = json_object_get(device, "bounce");
    vendor->bounce_bytes = (size_t)number(json_object_get(bounce, "mb"), 0) << 20;
    vendor->bounce_piece = (size_t)number(json_object_get(bounce, "piece_kb"), 4096) << 10;
    vendor->bounce_from = (size_t)number(json_object_get(bounce, "from_kb"), 256) << 10;
    vendor->unified = strcmp(text(json_object_get(device, "memory")), "unified") == 0;
    vendor->options = text(json_object_get(device, "options"));
    vendor->prelude = text(json_object_get(device, "prelude"));
    vendor->undeclared = text(json_object_get(device, "undeclared"));
    vendor->driver = find_driver(vendor->name);
}

static int by_order(const void *a, const void *b)
{
    const gems_vendor_data *x = a, *y = b;
    return x->order != y->order ? (x->order < y->order ? -1 : 1) : strcmp(x->name, y->name);
}

static void read_all(void)
{
    size_t n = 0;

    for (const gems_embedded_file *f = gems_embedded; f->name && n < MAX_VENDORS; f++) {
        if (strncmp(f->name, "tune/", 5) != 0)
            continue;
        json_error_t error;
        json_t *file = json_loadb(f->text, f->size, 0, &error);
        if (!file) {
            gems_log("%s:%d:%d: %s", f->name, error.line, error.column, error.text);
            continue;
        }
        const json_t *device = json_object_get(file, "device");
        if (json_is_object(device) && json_is_string(json_object_get(file, "vendor"))) {
            files[n] = file;
            read_vendor(&vendors[n++], file, device);
        } else {
            json_decref(file); /* rules for one device of a vendor */
        }
    }
    qsort(vendors, n, sizeof *vendors, by_order);
}

const gems_vendor_data *gems_vendor_all(void)
{
    pthread_once(&once, read_all);
    return vendors;
}

static bool contains_any(const char *const *list, const char *string)
{
    for (; *list; list++)
        if (strcasestr(string, *list))
            return true;
    return false;
}

bool gems_vendor_matches(const gems_vendor_data *vendor, const char *platform, const char *maker, const char *device)
{
    return (!vendor->match_platform || contains_any(vendor->match_platform, platform)) &&
           (!vendor->match_vendor || contains_any(vendor->match_vendor, maker)) &&
           (!vendor->match_device || contains_any(vendor->match_device, device));
}

bool gems_vendor_has_prefix(const char *const *list, const char *name)
{
    for (; list && *list; list++)
        if (strncasecmp(name, *list, strlen(*list)) == 0)
            return true;
    return false;
}

bool gems_vendor_has_own_cache(const gems_vendor_data *vendor, const char *device)
{
    return vendor->own_cache && contains_any(vendor->own_cache, device);
}

bool gems_vendor_may_build(const gems_vendor_data *vendor, char *why, size_t n)
{
    const gems_driver *driver = vendor->driver;
    return !driver || !driver->may_build || driver->may_build(vendor, why, n);
}

/* ---- environment for the drivers ---- */

extern char **environ;

/* The environment as it was, and the copy of it that drivers see, with `lent` entries in front. The copy is kept:
 * another thread may be reading it. */
static struct {
    char **before, **copy;
    size_t lent;
} environment;

/* Whether a driver is to see this entry, NAME=value: some end the process over a number that makes no sense. */
static bool makes_sense(const char *entry)
{
    size_t name = strcspn(entry, "=");
    for (const gems_vendor_data *v = vendors; v->name; v++)
        for (const gems_limit *l = v->limits; l && l->name; l++) {
            if (strlen(l->name) != name || strncmp(entry, l->name, name) != 0)
                continue;
            const char *value = entry + name + (entry[name] == '=');
            char *end;
            if (!*value)
                return false; /* as if it were not set */
            errno = 0;
            long n = strtol(value, &end, 10);
            if (errno == 0 && end != value && !*end && n >= l->min && n <= l->max)
                return true;
            gems_complain("%.200s: not a whole number from %d to %d; %s's OpenCL is opened without it", entry, l->min,
                          l->max, v->name);
            return false;
        }
    return true;
}

/* In a copy, so that threads that are reading the environment meanwhile are not disturbed. */
void gems_vendor_lend_environment(void)
{
    const char *forced = gems_config_get()->vendor;
    size_t have = 0, n = 0, kept;

    environment.copy = NULL;
    while (environ && environ[have])
        have++;
    char **copy = calloc(have + 65 + MAX_VENDORS, sizeof *copy);
    if (!copy)
        return;
    (void)gems_vendor_all();
    for (const gems_vendor_data *v = vendors; v->name; v++) {
        char *chosen = NULL;
        for (unsigned i = 0; v->driver && v->driver->environment && n < 64 && (chosen = v->driver->environment(i)); i++)
            copy[n++] = chosen;
        if (forced && strcasecmp(forced, v->name) != 0)
            continue;
        for (const char **e = v->environment; e && *e && n < 64; e++) {
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(*e, "="), *e);
            if (!getenv(name))
                copy[n++] = (char *)*e;
        }
    }
    environment.lent = kept = n;
    for (size_t i = 0; i < have; i++)
        if (makes_sense(environ[i]))
            copy[kept++] = environ[i];
    if (n == 0 && kept == have) {
        free(copy);
        return;
    }
    environment.before = environ;
    environ = environment.copy = copy;
}

void gems_vendor_return_environment(void)
{
    char **copy = environment.copy;

    if (!copy)
        return;
    if (environ == copy) {
        environ = environment.before;
        return;
    }
    /* Someone has called setenv, which made an array of its own with our entries in it; `before` may be gone. */
    for (size_t i = 0; i < environment.lent; i++) {
        char name[64];
        int length = snprintf(name, sizeof name, "%.*s", (int)strcspn(copy[i], "="), copy[i]);
        const char *value = getenv(name);
        if (!value || value != copy[i] + length + 1)
            continue;
        unsetenv(name);
        for (char **e = copy + environment.lent; *e; e++) /* the user's own */
            if (strncmp(*e, name, (size_t)length) == 0 && (*e)[length] == '=')
                setenv(name, *e + length + 1, 1);
    }
}
