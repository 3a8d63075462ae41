/* embedded.c: files as C strings, a source line a line, so that what travels in the library can be read there. */
#include "shim/gen/rows.h"

#include <stdlib.h>

/* '?' is escaped too: two of them could begin a trigraph. */
static void emit_text(FILE *f, FILE *in)
{
    int c, last = '\n';
    while ((c = fgetc(in)) != EOF) {
        if (last == '\n')
            fputs("\n    \"", f);
        if (c == '\n')
            fputs("\\n\"", f);
        else if (c == '"' || c == '\\' || c == '?')
            fprintf(f, "\\%c", c);
        else if (c == '\t')
            fputs("\\t", f);
        else if (c < ' ' || c > '~')
            fprintf(f, "\\%03o", (unsigned)c);
        else
            fputc(c, f);
        last = c;
    }
    fputs(last == '\n' ? "\n    \"\";\n" : "\";\n", f);
}

bool gems_emit_embedded(FILE *f, char **paths, int n)
{
    fputs("/* Written by codegen: do not edit. */\n#include \"kernels/embedded.h\"\n\n#include <string.h>\n\n", f);
    for (int i = 0; i < n; i++) {
        FILE *in = fopen(paths[i], "r");
        if (!in) {
            perror(paths[i]);
            return false;
        }
        fprintf(f, "/* %s */\nstatic const char text%d[] =", paths[i], i);
        emit_text(f, in);
        fclose(in);
    }
    fputs("\nconst gems_embedded_file gems_embedded[] = {\n", f);
    for (int i = 0; i < n; i++)
        fprintf(f, "    {\"%s\", text%d, sizeof text%d - 1},\n", paths[i], i, i);
    fputs("    {NULL, NULL, 0},\n};\n\n"
          "const gems_embedded_file *gems_embedded_find(const char *name)\n{\n"
          "    for (const gems_embedded_file *f = gems_embedded; f->name; f++)\n"
          "        if (strcmp(f->name, name) == 0)\n            return f;\n    return NULL;\n}\n",
          f);
    return true;
}
