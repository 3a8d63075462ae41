/* The build-time generator:
 *   codegen ops OPS.json HEADER OUTDIR   writes OUTDIR/thunks.c, OUTDIR/ops.c and OUTDIR/exports.map
 *   codegen embed OUT FILE...            writes the files as C */
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

static bool ops(const char *path, const char *header, const char *folder)
{
    gems_rows rows;
    bool ok = gems_rows_read(path, &rows) && write_ops(&rows, header, folder);
    gems_rows_free(&rows);
    return ok;
}

static bool embed(const char *out, char **paths, int n)
{
    FILE *f = fopen(out, "w");
    if (!f) {
        perror(out);
        return false;
    }
    bool ok = gems_emit_embedded(f, paths, n);
    return close_written(f, out) && ok;
}

int main(int argc, char **argv)
{
    bool ok;
    if (argc == 5 && strcmp(argv[1], "ops") == 0) {
        ok = ops(argv[2], argv[3], argv[4]);
    } else if (argc >= 3 && strcmp(argv[1], "embed") == 0) {
        ok = embed(argv[2], argv + 3, argc - 3);
    } else {
        fputs("usage: codegen ops OPS.json HEADER OUTDIR\n       codegen embed OUT FILE...\n", stderr);
        return 2;
    }
    return ok ? 0 : 1;
}
