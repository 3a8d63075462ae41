/* Where in a JSON text a value stands: the parser tells what is there, not where, and a message needs the place. */
#ifndef GEMS_LOCATE_H
#define GEMS_LOCATE_H

#include <stddef.h>

/* A step into an object (key) or, if key is NULL, into an array (index). */
typedef struct gems_json_step {
    const char *key;
    size_t index;
} gems_json_step;

typedef struct gems_json_place {
    int line, column; /* from 1 */
} gems_json_place;

/* Place of the value at the end of the path, for an object's member that of its key. `text` must be valid JSON. If the
 * path leads nowhere: the last step that exists. */
gems_json_place gems_json_locate(const char *text, const gems_json_step *path, size_t steps);

/* The elements of an array in turn, without going through the text anew for each. */
typedef struct gems_json_element {
    const char *value;
    gems_json_place place;
} gems_json_element;

/* The first element of the array at the path. */
gems_json_element gems_json_first(const char *text, const gems_json_step *path, size_t steps);
void gems_json_next(gems_json_element *element);

#endif
