/* The layers of tables for one device, later ones asked first:
 *   the vendor's file inside the library     tune/<vendor>.json (rules for one device in it say "device")
 *   what the user tuned                      gems-preload/tune/<vendor>.json in $XDG_CONFIG_HOME or ~/.config
 *   GEMS_TUNE_JSON                           a path, or the JSON itself
 *   the C API                                gems_table_set
 * A layer that is refused is complained about once and left out. */
#ifndef GEMS_LAYERS_H
#define GEMS_LAYERS_H

#include "tune/table.h"

typedef struct gems_tables gems_tables; /* the layers, to be freed together */

/* Builds all layers for a device. While the device is not known (NULL), rules for any device count, and a layer for
 * another vendor is left out without a word: so it can be asked what each vendor's tables would route. `api`: JSON text
 * of the last layer, or NULL; if that is refused: NULL and *error (may be NULL). Otherwise NULL only if memory is out.
 * Rules are looked up in gems_tables_top. */
gems_tables *gems_tables_build(const char *vendor, const char *device, const char *api, gems_table_error *error);
/* The table to ask: never NULL. */
const gems_table *gems_tables_top(const gems_tables *tables);
/* Not while another thread may hold a rule of them. */
void gems_tables_free(gems_tables *tables);

/* The text of a table from a value of GEMS_TUNE_JSON: the value itself, or what is in the file that it names. *name is
 * for messages; free *text. False if it is neither. */
bool gems_table_text(const char *value, const char **name, char **text);

#endif
