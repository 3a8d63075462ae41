/* gems cache: the folder of compiled kernels, and emptying it. */
#include "preload/cmd/cmd.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Removes what the library wrote, and nothing else: 32 hexadecimal digits, ".bin", and the temporary files of that. */
static int clear(const char *folder)
{
    DIR *d = opendir(folder);
    int removed = 0;
    if (!d)
        return perror(folder), 1;
    for (struct dirent *e; (e = readdir(d));)
        if (strspn(e->d_name, "0123456789abcdef") == 32 && strncmp(e->d_name + 32, ".bin", 4) == 0)
            removed += unlinkat(dirfd(d), e->d_name, 0) == 0;
    closedir(d);
    printf("%d files removed from %s\n", removed, folder);
    return 0;
}

int cmd_cache(int argc, char **argv)
{
    bool as_json = argc == 1 && strcmp(argv[0], "--json") == 0;
    bool clearing = argc == 1 && strcmp(argv[0], "clear") == 0;
    if (argc > 1 || (argc == 1 && !as_json && !clearing))
        return fputs("usage: gems cache [--json | clear]\n", stderr), 2;
    json_t *cache = cmd_library_describe("cache");
    if (!cache)
        return 1;
    int status = 0;
    const char *folder = json_string_value(json_object_get(cache, "folder"));
    if (as_json) {
        cmd_print_json(cache);
    } else if (!folder) {
        puts("none: kernels are built anew in every process");
    } else if (clearing) {
        status = clear(folder);
    } else {
        printf("%s: %lld kernels, %lld bytes, at most %lld MiB%s\n", folder, cmd_number(cache, "entries"),
               cmd_number(cache, "bytes"), cmd_number(cache, "limit_mb"),
               json_is_true(json_object_get(cache, "writable")) ? "" : ", read-only");
    }
    json_decref(cache);
    return status;
}
