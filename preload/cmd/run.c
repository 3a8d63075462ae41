/* gems run: checks the options against the table of variables, puts them into the environment, and becomes the program.
 */
#include "preload/cmd/cmd.h"
#include "preload/base/config.h"
#include "preload/base/text.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
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

/* One line on stderr; false. */
__attribute__((format(printf, 1, 2))) static bool refuse(const char *fmt, ...)
{
    char raw[1024], line[2048];
    gems_text said = gems_text_in(raw, sizeof raw), shown = gems_text_in(line, sizeof line);
    va_list args;
    va_start(args, fmt);
    gems_text_put_list(&said, fmt, args);
    va_end(args);
    gems_text_put_shown(&shown, raw);
    fprintf(stderr, "gems run: %s\n", line);
    return false;
}

/* Checks one value and sets the variable. False: said on stderr. */
static bool set_variable(const gems_variable *v, const char *value)
{
    void *function = cmd_library_function("gems_variable_check");
    int (*check)(const char *, const char *, char *, size_t) =
        (int (*)(const char *, const char *, char *, size_t))function;
    char why[400];
    if (!check)
        return false;
    if (check(v->name, value, why, sizeof why) != 0)
        return refuse("--%s: %.300s: %s", v->option, value, why);
    bool is_path = v->type == GEMS_VAR_LOG || v->type == GEMS_VAR_FOLDER || v->type == GEMS_VAR_PATH ||
                   (v->type == GEMS_VAR_TABLE && value[strspn(value, " \t\r\n")] != '{');
    return setenv(v->name, is_path ? absolute(value) : value, 1) == 0;
}

/* Takes the option at argv[*i] with its value. False: said on stderr. */
static bool take_option(int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2;
    size_t n = strcspn(name, "=");
    const gems_variable *v = find_option(name, n);
    if (!v)
        return refuse("no option is named --%.*s (gems help lists them)", (int)n, name);
    if (name[n] == '=')
        return set_variable(v, name + n + 1);
    if (v->type == GEMS_VAR_FLAG)
        return set_variable(v, "1");
    if (*i + 1 >= argc)
        return refuse("--%s wants a value: %s", v->option, v->values);
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
