/* What pocl.c and pocl_needs.c share. */
#ifndef GEMS_POCL_H
#define GEMS_POCL_H

#include "kernels/device/internal.h"

/* The folder that such a list names, to free(). NULL: none. */
char *gems_pocl_folder(const char *const *list);
/* Whether PoCL can be let build or load kernels now; else the reason in why[n]. */
bool gems_pocl_may_build(const gems_vendor_data *vendor, char *why, size_t n);

#endif
