/* The build-time generator: codegen OPS.json HEADER LIBC.c OUTDIR FUNCTIONS.cl FIELDS...
 * writes OUTDIR/thunks.c, OUTDIR/ops.c and OUTDIR/exports.map. */
#include "shim/gen/rows.h"
#include "preload/base/file.h"

#include <limits.h>
#include <stdlib.h>

/* A file's text, or NULL and a line on stderr. */
static char *read_text(const char *path)
{
    char *text = gems_read_file(path, SIZE_MAX - 1);
    if (!text)
        perror(path);
    return text;
}

static FILE *create(const char *folder, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (!f)
        perror(path);
    return f;
}

static bool finish(FILE *f, const char *name)
{
    if (!f)
        return false;
    bool bad = ferror(f) != 0;
    if (fclose(f) == 0 && !bad)
        return true;
    perror(name);
    return false;
}

static bool write_all(const gems_rows *rows, const char *header, const char *libc, const char *folder)
{
    FILE *thunks = create(folder, "thunks.c"), *ops = create(folder, "ops.c"), *map = create(folder, "exports.map");
    if (thunks && ops && map) {
        gems_emit_thunks(thunks, rows);
        gems_emit_ops(ops, rows);
        gems_emit_exports(map, rows, header, libc);
    }
    return finish(thunks, "thunks.c") & finish(ops, "ops.c") & finish(map, "exports.map");
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fputs("usage: codegen OPS.json HEADER LIBC.c OUTDIR FUNCTIONS.cl FIELDS...\n", stderr);
        return 2;
    }
    char *header = read_text(argv[2]), *libc = read_text(argv[3]), *functions = read_text(argv[5]);
    gems_fields declared = {.functions = functions};
    gems_rows rows = {0};
    bool ok = header && libc && functions;
    for (int i = 6; ok && i < argc; i++)
        ok = gems_fields_read(argv[i], &declared);
    ok = ok && gems_rows_read(argv[1], &declared, &rows) && write_all(&rows, header, libc, argv[4]);
    gems_rows_free(&rows);
    gems_fields_free(&declared);
    free(functions);
    free(libc);
    free(header);
    return ok ? 0 : 1;
}
