/* What the files of PoCL's driver share. */
#ifndef GEMS_POCL_H
#define GEMS_POCL_H

#include "kernels/device/internal.h"

#include <time.h>

/* The process's own folder for PoCL, made at the first call; NULL: there is no place for one. */
const char *gems_pocl_folder(void);
/* Whether kernels can be built in such a place, and loaded from there; else the reason in why[n]. */
bool gems_pocl_folder_serves(const char *folder, char *why, size_t n);
/* Whether PoCL can be let build or load kernels now; else the reason in why[n]. */
bool gems_pocl_may_build(const gems_vendor_data *vendor, char *why, size_t n);

/* Keeps the newest program's files that match the pattern (relative to the folder) in our cache, if one of them is at
 * least as new as `since`; and brings them back. */
bool gems_pocl_keep(const char *key, const char *pattern, const struct timespec *since);
bool gems_pocl_bring(const char *key);

#endif
