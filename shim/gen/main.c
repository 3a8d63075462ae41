/* The build-time generator: codegen OPS.json HEADER OUTDIR
 * writes OUTDIR/thunks.c, OUTDIR/ops.c and OUTDIR/exports.map. */
#include "shim/gen/rows.h"

#include <stdlib.h>
#include <string.h>

static FILE *create(const char *folder, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        abort();
    FILE *f = fopen(path, "w");
    if (!f)
        perror(path);
    free(path);
    return f;
}

static bool close_written(FILE *f, const char *name)
{
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad) {
        perror(name);
        return false;
    }
    return true;
}

static bool write_ops(const gems_rows *rows, const char *header, const char *folder)
{
    FILE *f = create(folder, "thunks.c");
    if (!f)
        return false;
    gems_emit_thunks(f, rows);
    if (!close_written(f, "thunks.c") || !(f = create(folder, "ops.c")))
        return false;
    gems_emit_ops(f, rows);
    if (!close_written(f, "ops.c") || !(f = create(folder, "exports.map")))
        return false;
    bool ok = gems_emit_exports(f, rows, header);
    return close_written(f, "exports.map") && ok;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: codegen OPS.json HEADER OUTDIR\n", stderr);
        return 2;
    }
    gems_rows rows;
    bool ok = gems_rows_read(argv[1], &rows) && write_ops(&rows, argv[2], argv[3]);
    gems_rows_free(&rows);
    return ok ? 0 : 1;
}
