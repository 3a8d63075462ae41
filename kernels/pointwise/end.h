/* Chains that end in a call of another family, which reads their value and nothing else of them: its kernel computes
 * what it reads, a piece at a time, in memory that stays in a processor's cache (GEMS_PW_PRODUCE of
 * codegen/pointwise.h). */
#ifndef GEMS_POINTWISE_END_H
#define GEMS_POINTWISE_END_H

#include "kernels/pointwise/recipe.h"

/* For gems_family.fold: writes the call's launches by `prepare`, with its first argument dense. A kernel that has it as
 * an argument gets memory of `room` elements for each work-item in its place, and PRODUCER_PARAMETERS after its own. */
gems_status pw_end(gems_call *call, gems_work *work, int64_t room,
                   gems_status (*prepare)(gems_call *call, gems_work *work));
/* The same for kernels of rows along the last dimension, a row a work-item (kernels/rows.cl). */
gems_status pw_end_rows(gems_call *call, gems_work *work, gems_status (*prepare)(gems_call *call, gems_work *work));

#endif
