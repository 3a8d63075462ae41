/* gems: runs programs under the library, and says what it finds and does. */
#include "preload/cmd/cmd.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int, char **);
    } commands[] = {
        {"run", cmd_run},   {"doctor", cmd_doctor}, {"ops", cmd_ops}, {"cache", cmd_cache},
        {"help", cmd_help}, {"--help", cmd_help},   {"-h", cmd_help},
    };
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        puts("gems " GEMS_VERSION);
        return 0;
    }
    if (argc == 3 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0))
        return cmd_help(0, NULL);
    for (size_t i = 0; argc >= 2 && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
    if (argc >= 2)
        fprintf(stderr, "gems: no command is named %s\n", argv[1]);
    fputs("usage: gems run|doctor|ops|cache|help ...\n", stderr);
    return 2;
}
