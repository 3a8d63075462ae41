#include "tune/locate.h"

#include <string.h>

static const char *skip_space(const char *p)
{
    return p + strspn(p, " \t\r\n");
}

/* p is at the opening quote; the result is behind the closing one. */
static const char *skip_string(const char *p)
{
    for (p++; *p && *p != '"'; p++)
        if (*p == '\\' && p[1])
            p++;
    return *p ? p + 1 : p;
}

static const char *skip_value(const char *p)
{
    if (*p == '"')
        return skip_string(p);
    if (*p != '{' && *p != '[')
        return p + strcspn(p, ",]} \t\r\n");
    int depth = 0;
    do {
        if (*p == '"') {
            p = skip_string(p);
            continue;
        }
        depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
        p++;
    } while (*p && depth);
    return p;
}

/* Member `key` of the object at p: *name at its key, the result at its value. NULL if there is none. */
static const char *find_member(const char *p, const char *key, const char **name)
{
    size_t n = strlen(key);
    for (p = skip_space(p + 1); *p == '"';) {
        const char *start = p;
        p = skip_space(skip_string(p));
        const char *value = skip_space(p + 1); /* behind the colon */
        if (strncmp(start + 1, key, n) == 0 && start[n + 1] == '"') {
            *name = start;
            return value;
        }
        p = skip_space(skip_value(value));
        if (*p == ',')
            p = skip_space(p + 1);
    }
    return NULL;
}

static const char *find_element(const char *p, size_t index)
{
    for (p = skip_space(p + 1); *p && *p != ']'; index--) {
        if (index == 0)
            return p;
        p = skip_space(skip_value(p));
        if (*p == ',')
            p = skip_space(p + 1);
    }
    return NULL;
}

/* Moves a place from one point of the text to a later one. */
static void advance(gems_json_place *place, const char *from, const char *to)
{
    for (; from < to; from++) {
        place->column++;
        if (*from == '\n') {
            place->line++;
            place->column = 1;
        }
    }
}

/* Where the path leads, and the value there. */
static gems_json_element locate(const char *text, const gems_json_step *path, size_t steps)
{
    gems_json_element e = {skip_space(text), {1, 1}};
    const char *shown = e.value;
    for (size_t i = 0; i < steps; i++) {
        const char *name = NULL, *next = NULL;
        if (path[i].key && *e.value == '{')
            next = find_member(e.value, path[i].key, &name);
        else if (!path[i].key && *e.value == '[')
            next = find_element(e.value, path[i].index);
        if (!next)
            break;
        e.value = next;
        shown = name ? name : next;
    }
    advance(&e.place, text, shown);
    return e;
}

gems_json_place gems_json_locate(const char *text, const gems_json_step *path, size_t steps)
{
    return locate(text, path, steps).place;
}

gems_json_element gems_json_first(const char *text, const gems_json_step *path, size_t steps)
{
    const char *array = locate(text, path, steps).value;
    gems_json_element e = {skip_space(array + (*array == '[')), {1, 1}};
    advance(&e.place, text, e.value);
    return e;
}

void gems_json_next(gems_json_element *e)
{
    const char *before = e->value;
    e->value = skip_space(skip_value(before));
    e->value = skip_space(e->value + (*e->value == ','));
    advance(&e->place, before, e->value);
}
