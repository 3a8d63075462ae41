/* The build-time generator: codegen OPS.json HEADER OUTDIR FUNCTIONS.cl FIELDS...
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

/* The functions that expressions may call; NULL if the file cannot be read. */
static char *read_text(const char *path)
{
    char *text = NULL;
    size_t room = 0;
    FILE *f = fopen(path, "r");
    if (!f || getdelim(&text, &room, 0, f) < 0)
        perror(path);
    if (f)
        fclose(f);
    return text;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fputs("usage: codegen OPS.json HEADER OUTDIR FUNCTIONS.cl FIELDS...\n", stderr);
        return 2;
    }
    char *functions = read_text(argv[4]);
    gems_fields declared = {.functions = functions};
    gems_rows rows = {0};
    bool ok = functions != NULL;
    for (int i = 5; ok && i < argc; i++)
        ok = gems_fields_read(argv[i], &declared);
    ok = ok && gems_rows_read(argv[1], &declared, &rows) && write_ops(&rows, argv[2], argv[3]);
    gems_rows_free(&rows);
    gems_fields_free(&declared);
    free(functions);
    return ok ? 0 : 1;
}
