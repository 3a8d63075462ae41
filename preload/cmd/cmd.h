/* The `gems` command: what its files share. It knows the library as any other program does, through gems.h. */
#ifndef GEMS_CMD_H
#define GEMS_CMD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Subcommands: arguments after the subcommand's own name; the result is the exit status (2: bad usage). */
int cmd_run(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_ops(int argc, char **argv);
int cmd_cache(int argc, char **argv);
int cmd_help(int argc, char **argv);

/* ---- library.c ---- */

/* Path of libgems_preload.so: beside the command (a build folder), in ../lib (make install, the wheel) or in
 * ../lib/gems-preload (Debian's package). NULL with a message on stderr if it is not there. */
const char *cmd_library_path(void);
/* A function of gems.h by name; NULL if the library cannot be loaded (said on stderr). */
void *cmd_library_function(const char *name);
/* gems_describe(what), parsed; NULL if the library cannot be loaded. Free with json_decref. */
json_t *cmd_library_describe(const char *what);
/* A member of an object: "" or 0 if it has none of that kind. */
const char *cmd_text(const json_t *object, const char *key);
long long cmd_number(const json_t *object, const char *key);
/* Prints JSON for --json. */
void cmd_print_json(const json_t *value);
/* Puts the library first into LD_PRELOAD; other entries stay, in their order. False: said on stderr. */
bool cmd_set_preload(const char *library);

/* ---- elf.c ---- */

typedef struct cmd_elf {
    size_t exported; /* of the symbols asked for: defined in the dynamic symbol table */
    size_t reached;  /* of them: also called by the file itself through a relocation, so that a preload catches it */
    bool symbolic;   /* linked with -Bsymbolic */
} cmd_elf;

/* Looks for `symbols` (n of them) in a shared library. NULL, or why it cannot be read. */
const char *cmd_elf_read(const char *path, const char *const *symbols, size_t n, cmd_elf *out);

/* ---- python.c ---- */

/* Runs a program with a script as `-c` and up to one argument; LD_PRELOAD is `preload` (NULL: left out). Its standard
 * output, to be freed; NULL if it could not be run. *status: as from waitpid. Its stderr is dropped. */
char *cmd_python(const char *python, const char *script, const char *argument, const char *preload, int *status);

#endif
