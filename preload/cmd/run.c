/* gems run: checks the options against the table of variables, puts them into the environment, and becomes the program.
 */
#include "preload/cmd/cmd.h"
#include "preload/base/config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const gems_variable *find_option(const char *name, size_t n)
{
    for (const gems_variable *v = gems_variables; v->name; v++)
        if (v->option && strlen(v->option) == n && memcmp(v->option, name, n) == 0)
            return v;
    return NULL;
}

/* A path from the folder we are in: the program may go elsewhere, and so may its children. */
static const char *absolute(const char *path)
{
    char folder[PATH_MAX], *full = NULL;
    if (*path == '/' || !getcwd(folder, sizeof folder) || asprintf(&full, "%s/%s", folder, path) < 0)
        return path;
    return full; /* kept: exec follows */
}

/* Checks one value and sets the variable. False: said on stderr. */
static bool set_variable(const gems_variable *v, const char *value)
{
    gems_config scrap;
    if (!*value || !gems_config_parse(v, value, &scrap)) {
        fprintf(stderr, "gems run: --%s: \"%s\" makes no sense; accepted: %s\n", v->option, value, v->values);
        return false;
    }
    bool is_table = v->type == GEMS_VAR_TEXT && value[strspn(value, " \t\r\n")] != '{';
    bool is_path = v->type == GEMS_VAR_PATH || is_table;
    if (is_table && access(value, R_OK) != 0) {
        fprintf(stderr, "gems run: --%s: %s: %s\n", v->option, value, strerror(errno));
        return false;
    }
    return setenv(v->name, is_path ? absolute(value) : value, 1) == 0;
}

/* Takes the option at argv[*i] with its value. False: said on stderr. */
static bool take_option(int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2;
    size_t n = strcspn(name, "=");
    const gems_variable *v = find_option(name, n);
    if (!v) {
        fprintf(stderr, "gems run: no option is named --%.*s (gems help lists them)\n", (int)n, name);
        return false;
    }
    if (name[n] == '=')
        return set_variable(v, name + n + 1);
    if (v->type == GEMS_VAR_FLAG)
        return set_variable(v, "1");
    if (*i + 1 >= argc) {
        fprintf(stderr, "gems run: --%s wants a value: %s\n", v->option, v->values);
        return false;
    }
    return set_variable(v, argv[++*i]);
}

int cmd_run(int argc, char **argv)
{
    int i = 0;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (argv[i][2] == 0) {
            i++;
            break;
        }
        if (!take_option(argc, argv, &i))
            return 2;
    }
    if (i >= argc) {
        fputs("usage: gems run [options] [--] program [arguments]\n", stderr);
        return 2;
    }
    const char *library = cmd_library_path();
    if (!library || !cmd_set_preload(library))
        return 125;
    execvp(argv[i], argv + i);
    int error = errno;
    fprintf(stderr, "gems run: %s: %s\n", argv[i], strerror(error));
    return error == ENOENT ? 127 : 126;
}
