/* Between the host's arguments and gems_call. Private to shim/. */
#ifndef GEMS_DECODE_H
#define GEMS_DECODE_H

#include "kernels/host.h"
#include "shim/torch.h"

/* PyTorch as the engine sees it. Its calls are those of frames. */
extern const gems_host gems_pytorch;

/* A call on its way through the shim. `call` comes first: gems_pytorch finds the frame from it. */
struct frame {
    gems_call call;
    enum gems_entry entry;
    bool counts_versions; /* the host would note that a tensor is written: only it can */
    unsigned ntensors;
    gems_tensor tensors[GEMS_MAX_TENSORS];
    gems_tensor *heap;                     /* a list too long for `tensors` */
    host_tensor *handle[GEMS_MAX_RESULTS]; /* results made by us, owned until they are given */
};

/* Fills *out from a plain at::Tensor. False if it is undefined or its memory cannot be had. `written`: it will be
 * written (a lazy copy of another tensor becomes a real one). */
bool gems_decode_tensor(const void *tensor, bool written, gems_tensor *out);
/* Fills f->call.arg from the thunk's raw arguments. False, with call->why set, if one is no plain tensor or cannot be
 * expressed: what follows it is absent then. */
bool gems_decode(struct frame *f, void **raw);
/* Moves the results to where the host's caller expects them / deletes them. */
void gems_give_results(struct frame *f, void *ret, void **raw);
void gems_drop_results(struct frame *f);

#endif
