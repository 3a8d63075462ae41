/* The chain: results that are computed when somebody wants them. */
#ifndef GEMS_CHAIN_H
#define GEMS_CHAIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Whether any block may not be home. */
extern atomic_bool gems_chain_active;
/* Finishes and shows what lies there, readable or writable, and keeps it so. True: something of ours lies there: unpin
 * it. Any address and any n; errno may change. */
bool gems_chain_pin(const void *p, size_t n, bool write);
void gems_chain_unpin(const void *p, size_t n);

#endif
