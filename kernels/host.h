/* What the engine and the families need of the host, as functions: shim/ fills one struct with PyTorch's, a test one of
 * its own. The engine gets it at its start, every call carries it (gems_call.host). */
#ifndef GEMS_HOST_H
#define GEMS_HOST_H

#include "kernels/call.h"

typedef struct gems_host {
    /* Makes result i of a functional operator in call->result[i], contiguous where `strides` is NULL. `complex`: its
     * parts are of `dtype`. False with call->why set if it cannot be made. What is made is dropped with the call,
     * unless that ends well. */
    bool (*make)(gems_call *call, unsigned i, gems_dtype dtype, bool complex, int ndim, const int64_t *sizes,
                 const int64_t *strides);
    /* Whether a tensor whose dtype is none of ours is complex with parts of this dtype. */
    bool (*is_complex)(const gems_tensor *tensor, gems_dtype part);
    void (*drop)(gems_tensor *result); /* one that was made, and kept beyond its call */
    gems_dtype (*default_dtype)(void); /* the floating one: torch.get_default_dtype */
    /* Calls of an operator come to us from this much work on; INT64_MAX: none. Other threads see it after all that was
     * done before. */
    void (*set_min_numel)(unsigned op, int64_t min_numel);
    /* Drops results that were made for a call which is to be tried in another way. */
    void (*drop_results)(gems_call *call);
    int (*threads)(void);     /* that the host computes with; 0: not known. NULL: never known */
    bool (*is_watched)(void); /* a profiler wants to see what each call costs; NULL: never */
} gems_host;

#endif
