/* The text of a program: the caller's source and the embedded files that it includes. */
#include "kernels/device/internal.h"
#include "kernels/embedded.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INCLUDES 32

/* The text of a program while it is put together. */
typedef struct assembly {
    FILE *out;
    const gems_embedded_file *seen[MAX_INCLUDES]; /* each file is taken once */
    unsigned nseen;
    char *why; /* room for n bytes: what is missing */
    size_t n;
} assembly;

static bool write_file(assembly *a, const char *file);

/* Writes `text`, with each line `#include "file"` replaced by that embedded file. Line numbers stay those of the files.
 */
static bool write_text(assembly *a, const char *name, const char *text)
{
    static const char INCLUDE[] = "#include \"";
    unsigned line = 1;

    fprintf(a->out, "#line 1 \"%s\"\n", name);
    for (const char *p = text; *p; line++) {
        size_t length = strcspn(p, "\n");
        if (strncmp(p, INCLUDE, strlen(INCLUDE)) == 0) {
            const char *start = p + strlen(INCLUDE);
            char file[256];
            snprintf(file, sizeof file, "%.*s", (int)strcspn(start, "\"\n"), start);
            if (!write_file(a, file))
                return false;
            fprintf(a->out, "#line %u \"%s\"\n", line + 1, name);
        } else {
            fwrite(p, 1, length, a->out);
            fputc('\n', a->out);
        }
        p += length + (p[length] == '\n');
    }
    return true;
}

static bool write_file(assembly *a, const char *file)
{
    const gems_embedded_file *embedded = gems_embedded_find(file);

    for (unsigned i = 0; embedded && i < a->nseen; i++)
        if (a->seen[i] == embedded)
            return true;
    if (!embedded || a->nseen == MAX_INCLUDES) {
        snprintf(a->why, a->n, embedded ? "too many includes, at %s" : "no embedded file %s", file);
        return false;
    }
    a->seen[a->nseen++] = embedded;
    return write_text(a, file, embedded->text);
}

char *gems_source_join(const char *name, const char *includes, const char *source, char *why, size_t n)
{
    char *text = NULL;
    size_t size = 0;
    assembly a = {.out = open_memstream(&text, &size), .why = why, .n = n};
    bool whole = a.out != NULL;

    for (const char *p = includes ? includes : ""; whole && *(p += strspn(p, " "));) {
        char file[256];
        size_t length = strcspn(p, " ");
        snprintf(file, sizeof file, "%.*s", (int)length, p);
        whole = write_file(&a, file);
        p += length;
    }
    whole = whole && write_text(&a, name, source) && !ferror(a.out);
    if (a.out && fclose(a.out) == 0 && whole)
        return text;
    free(text);
    return NULL;
}
