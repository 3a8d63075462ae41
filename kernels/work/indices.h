/* Index tensors: whether all of their numbers are in range, before anything is launched that follows them, so that a
 * wrong one raises the host's own error. */
#ifndef GEMS_INDICES_H
#define GEMS_INDICES_H

#include "kernels/work/work.h"

/* Indices (i32 or i64) that are all in the range: GEMS_OK. Declined: one is not. They are looked at by the host, unless
 * they are on the device alone, or many of them there: then by a kernel, of which a few words come home. */
gems_status gems_indices_check(gems_call *call, gems_lane lane, const gems_tensor *index, gems_range range);

#endif
