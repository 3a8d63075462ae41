/* Symbol names of the host's operator functions (Itanium C++ ABI). */
#ifndef GEMS_GEN_MANGLE_H
#define GEMS_GEN_MANGLE_H

#include "shim/gen/schema.h"

/* at::_ops::<struct>::<function> with the schema's parameters; `keyset`: a c10::DispatchKeySet comes first, as
 * `redispatch` has it. The caller frees the result. */
char *gems_mangle(const gems_schema *s, const char *function, bool keyset);

#endif
