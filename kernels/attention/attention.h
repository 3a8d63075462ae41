/* What attention and its gradients read of their calls. */
#ifndef GEMS_ATTENTION_H
#define GEMS_ATTENTION_H

#include "kernels/work/launcher.h"

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

/* Launches a kernel of the forward pass over attention.cl's arguments and `nmore` after them. bq: queries of a group.
 */
void gems_attention_launch(gems_work *work, gems_kernel *kernel, const gems_attention *p, int bq,
                           const size_t global[3], const size_t local[3], const gems_arg *more, int nmore);

/* "gpu" where queries, keys or values have no parts (parts.cl): of what is noted of their blocks of `rows` in a
 * scratch. */
void gems_attention_rest(const gems_choice *choice, int notes, int rows);

/* wgmma.c: the forward pass on tensor cores of compute capability 9.0; "split": of f32. */
bool gems_attention_can_wgmma(const gems_choice *choice);
bool gems_attention_suits_wgmma(const gems_choice *choice);
void gems_attention_wgmma(const gems_choice *choice);
bool gems_attention_can_split(const gems_choice *choice);
bool gems_attention_suits_split(const gems_choice *choice);
void gems_attention_split(const gems_choice *choice);

#endif
