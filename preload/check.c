/* gems_variable_check: whether a value of a variable makes sense, before a program is started with it. */
#include "preload/gems.h"
#include "preload/base/config.h"
#include "preload/base/file.h"
#include "preload/base/text.h"
#include "kernels/opset.h"
#include "tune/layers.h"

#include <stdlib.h>
#include <string.h>

static void check_operators(const char *list, gems_text *error)
{
    char unknown[200];
    gems_opset *set = gems_opset_compile(list, unknown, sizeof unknown);
    if (!set)
        gems_text_put(error, "out of memory");
    else if (*unknown)
        gems_text_put(error, "names what is no operator of ours: %s (gems ops lists them)", unknown);
    else if (list[strspn(list, ", \t\n")] == 0)
        gems_text_put(error, "names no operator (gems ops lists them)");
    free(set);
}

static void check_table(const char *value, gems_text *error)
{
    gems_table_error e = {""};
    char *text;
    const char *name;
    if (!gems_table_text(value, &name, &text)) {
        gems_text_put(error, "is no file that can be read, nor JSON");
        return;
    }
    gems_table *table = gems_table_compile(name, text, NULL, &e);
    if (!table)
        gems_text_put(error, "%s", e.text);
    gems_table_free(table);
    free(text);
}

int gems_variable_check(const char *name, const char *value, char *buffer, size_t n)
{
    char scrap[1];
    gems_text error = n ? gems_text_in(buffer, n) : gems_text_in(scrap, sizeof scrap);
    gems_config config;
    const gems_variable *v = gems_config_find(name);
    if (!v)
        gems_text_put(&error, "there is no such variable");
    else if (!*value || !gems_config_parse(v, value, &config))
        gems_text_put(&error, "makes no sense; accepted: %s", v->values);
    else if (v->type == GEMS_VAR_LIST)
        check_operators(value, &error);
    else if (v->type == GEMS_VAR_TABLE)
        check_table(value, &error);
    else if (v->type == GEMS_VAR_LOG)
        gems_file_check_log(value, &error);
    else if (v->type == GEMS_VAR_FOLDER)
        gems_file_check_folder(value, &error);
    return error.n ? -1 : 0;
}
