/* Reads the tables named as arguments, as the library will; `make` runs it on its own tables, so that one with anything
 * in it that nobody knows fails the build with line and column. */
#include "preload/base/file.h"
#include "tune/table.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int wrong = 0;
    for (int i = 1; i < argc; i++) {
        gems_table_error error = {"cannot be read"};
        char *text = gems_read_file(argv[i], 64 << 20);
        gems_table *table = text ? gems_table_compile(argv[i], text, NULL, &error) : NULL;
        if (!table) {
            fprintf(stderr, "%s\n", error.text);
            wrong = 1;
        }
        gems_table_free(table);
        free(text);
    }
    return wrong;
}
