#include "tune/layers.h"
#include "kernels/embedded.h"
#include "preload/base/config.h"
#include "preload/base/log.h"
#include "preload/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

enum {
    LAYERS = 5,
    FILE_MAX_BYTES = 64 << 20
};

struct gems_tables {
    gems_table *layer[LAYERS];
    unsigned count;
    const char *vendor, *device;
};

/* Adds a layer on top. False if the text is refused. */
static bool add_layer(gems_tables *tables, const char *name, const char *json, gems_table_error *error)
{
    const gems_table *below = tables->count ? tables->layer[tables->count - 1] : NULL;
    gems_table *table = gems_table_compile_for(name, json, tables->vendor, tables->device, below, error);
    if (table)
        tables->layer[tables->count++] = table;
    return table != NULL;
}

static void add_or_complain(gems_tables *tables, const char *name, const char *json)
{
    gems_table_error error;
    if (!add_layer(tables, name, json, &error) && !(error.other_vendor && !tables->device))
        gems_complain("table refused, the ones below it serve: %s", error.text);
}

static void add_embedded(gems_tables *tables)
{
    char name[128];
    snprintf(name, sizeof name, "tune/%s.json", tables->vendor ? tables->vendor : "generic");
    const gems_embedded_file *file = gems_embedded_find(name);
    if (file)
        add_or_complain(tables, name, file->text);
}

static void add_user_file(gems_tables *tables)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char path[4096];
    int n;
    if (config && *config == '/')
        n = snprintf(path, sizeof path, "%s/gems-preload/tune/%s.json", config, tables->vendor);
    else
        n = snprintf(path, sizeof path, "%s/.config/gems-preload/tune/%s.json", home ? home : "", tables->vendor);
    if (!tables->vendor || (!home && !config) || n >= (int)sizeof path || getauxval(AT_SECURE))
        return;
    char *text = gems_read_file(path, FILE_MAX_BYTES);
    if (text)
        add_or_complain(tables, path, text);
    else if (access(path, F_OK) == 0)
        gems_complain("%s cannot be read and is left out", path);
    free(text);
}

bool gems_table_text(const char *value, const char **name, char **text)
{
    bool json = value[strspn(value, " \t\r\n")] == '{';
    *name = json ? "GEMS_TUNE_JSON" : value;
    *text = json ? strdup(value) : gems_read_file(value, FILE_MAX_BYTES);
    return *text != NULL;
}

static void add_environment(gems_tables *tables)
{
    const char *value = gems_config_get()->tune_json, *name;
    char *text;
    if (value && !gems_table_text(value, &name, &text)) {
        gems_complain("GEMS_TUNE_JSON=%.200s is no file that can be read, nor JSON; ignored", value);
    } else if (value) {
        add_or_complain(tables, name, text);
        free(text);
    }
}

gems_tables *gems_tables_build(const char *vendor, const char *device, const char *api, gems_table_error *error)
{
    gems_table_error scrap = {""};
    error = error ? error : &scrap;
    gems_tables *tables = calloc(1, sizeof *tables);
    if (!tables) {
        snprintf(error->text, sizeof error->text, "out of memory");
        return NULL;
    }
    tables->vendor = vendor;
    tables->device = device;
    bool ok = add_layer(tables, "no rules", "{}", error); /* so that there is always a table */
    if (ok) {
        add_embedded(tables);
        add_user_file(tables);
        add_environment(tables);
        ok = !api || add_layer(tables, "gems_table_set", api, error) || (error->other_vendor && !device);
    }
    if (ok)
        return tables;
    gems_tables_free(tables);
    return NULL;
}

const gems_table *gems_tables_top(const gems_tables *tables)
{
    return tables->layer[tables->count - 1];
}

void gems_tables_free(gems_tables *tables)
{
    while (tables && tables->count)
        gems_table_free(tables->layer[--tables->count]);
    free(tables);
}
