/* Files as C strings, for kernels/embedded.h: embed OUT FILE...
 * A source line a line, so that what travels in the library can be read there. */
#include <stdio.h>

/* '?' is escaped too: two of them could begin a trigraph. */
static void write_text(FILE *f, FILE *in)
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

static int fail(const char *path)
{
    perror(path);
    return 1;
}

int main(int argc, char **argv)
{
    FILE *f = argc > 1 ? fopen(argv[1], "w") : NULL;
    if (!f)
        return fail(argc > 1 ? argv[1] : "usage: embed OUT FILE...");
    fputs("/* Written by scripts/embed.c: do not edit. */\n#include \"kernels/embedded.h\"\n\n#include <string.h>\n\n",
          f);
    for (int i = 2; i < argc; i++) {
        FILE *in = fopen(argv[i], "r");
        if (!in)
            return fail(argv[i]);
        fprintf(f, "/* %s */\nstatic const char text%d[] =", argv[i], i);
        write_text(f, in);
        fclose(in);
    }
    fputs("\nconst gems_embedded_file gems_embedded[] = {\n", f);
    for (int i = 2; i < argc; i++)
        fprintf(f, "    {\"%s\", text%d, sizeof text%d - 1},\n", argv[i], i, i);
    fputs("    {NULL, NULL, 0},\n};\n\n"
          "const gems_embedded_file *gems_embedded_find(const char *name)\n{\n"
          "    for (const gems_embedded_file *f = gems_embedded; f->name; f++)\n"
          "        if (strcmp(f->name, name) == 0)\n            return f;\n    return NULL;\n}\n",
          f);
    return ferror(f) | fclose(f) ? fail(argv[1]) : 0;
}
