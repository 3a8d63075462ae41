/* Our own reads and writes of tensors on the host: whoever looks at an element asks here first. */
#ifndef GEMS_MEMORY_HOST_H
#define GEMS_MEMORY_HOST_H

#include "kernels/tensor/tensor.h"

/* The first element, with all bytes from the first to the last element readable (and writable, where the host's own
 * are) until the call ends. NULL only if the tensor is empty. */
static inline void *gems_tensor_host(const gems_tensor *t)
{
    return (void *)t->address; /* NOLINT(performance-no-int-to-ptr): an integer so that nobody else does this */
}

#endif
