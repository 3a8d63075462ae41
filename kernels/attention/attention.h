/* What attention and its gradients read of their calls. */
#ifndef GEMS_ATTENTION_H
#define GEMS_ATTENTION_H

#include "kernels/call.h"

typedef struct gems_attention {
    const gems_tensor *q, *k, *v, *mask; /* mask may be NULL */
    int64_t mask_stride[4];
    bool causal;
    double scale;
    const gems_tensor *out, *lse; /* not read here */
} gems_attention;

/* Query, key and value are the arguments from `first` on; the others have their names. NULL, or why not. What the host
 * refuses is declined too: it has the words. */
const char *gems_attention_read(const gems_call *call, unsigned first, gems_attention *p);
/* What rules see. */
void gems_attention_sizes(gems_call *call, const gems_attention *p);

#endif
