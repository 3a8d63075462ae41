#include "preload/cmd/cmd.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME "libgems_preload.so"

const char *cmd_library_path(void)
{
    static char path[PATH_MAX];
    if (*path)
        return path;
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = 0;
        *strrchr(self, '/') = 0;
        static const char *const places[] = {"", "/../lib", "/../lib/gems-preload"};
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            char candidate[PATH_MAX + 64];
            snprintf(candidate, sizeof candidate, "%s%s/" NAME, self, places[i]);
            if (access(candidate, R_OK) == 0 && realpath(candidate, path))
                return path;
        }
        fprintf(stderr, "gems: " NAME " is neither in %s nor in %s/../lib or ../lib/gems-preload\n", self, self);
    }
    *path = 0;
    return NULL;
}

void *cmd_library_function(const char *name)
{
    const char *path = cmd_library_path();
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    void *function = library ? dlsym(library, name) : NULL;
    if (path && !function)
        fprintf(stderr, "gems: %s\n", dlerror());
    return function;
}

json_t *cmd_library_describe(const char *what)
{
    void *function = cmd_library_function("gems_describe");
    if (!function)
        return NULL;
    unsetenv("GEMS_STRICT"); /* what fails is to be shown here, not to end us */
    char *(*describe)(const char *) = (char *(*)(const char *))function;
    char *text = describe(what);
    json_t *root = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    return root;
}

const char *cmd_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

long long cmd_number(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

void cmd_print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2));
    putchar('\n');
}

/* The same library twice in the list would be harmless, but is ugly in a child's child. */
static bool is_listed(const char *list, const char *entry)
{
    size_t n = strlen(entry);
    for (const char *p = list; (p = strstr(p, entry)); p += n)
        if ((p == list || strchr(" :", p[-1])) && (!p[n] || strchr(" :", p[n])))
            return true;
    return false;
}

/* Sets variable to a:b, or to the one of them that is not empty. */
static bool set_joined(const char *variable, const char *a, const char *b)
{
    char *list = NULL;
    if (asprintf(&list, "%s%s%s", a, *a && *b ? ":" : "", b) < 0)
        return false;
    bool ok = setenv(variable, list, 1) == 0;
    free(list);
    return ok;
}

bool cmd_set_preload(const char *library)
{
    const char *before = getenv("LD_PRELOAD"), *path = getenv("LD_LIBRARY_PATH"), *name = library;
    if (strpbrk(library, " :")) { /* LD_PRELOAD splits there, the search path does so at colons alone */
        if (strpbrk(library, ":;$")) {
            fprintf(stderr, "gems: %s: LD_PRELOAD cannot name such a path\n", library);
            return false;
        }
        char folder[PATH_MAX];
        snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(library, '/') - library), library);
        path = path ? path : "";
        if (!strstr(path, folder) && !set_joined("LD_LIBRARY_PATH", path, folder))
            return false;
        name = NAME;
    }
    before = before ? before : "";
    return is_listed(before, name) || set_joined("LD_PRELOAD", name, before);
}
