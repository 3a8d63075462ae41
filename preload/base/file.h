/* Files: reading them whole, and whether they can be written. */
#ifndef GEMS_FILE_H
#define GEMS_FILE_H

#include "preload/base/text.h"

#include <stdbool.h>

/* All that can be read from a descriptor; NULL if that fails or is more than `max` bytes. Free it. */
char *gems_read(int fd, size_t max);
/* Whole contents of a regular file; NULL if that cannot be had. Free it. */
char *gems_read_file(const char *path, size_t max);

/* Whether a file could be appended to (`path` may hold %p), or a folder be used and, if need be, made. Nothing is left
 * behind. If not, why is appended to `error`. */
bool gems_file_check_log(const char *path, gems_text *error);
bool gems_file_check_folder(const char *path, gems_text *error);

#endif
