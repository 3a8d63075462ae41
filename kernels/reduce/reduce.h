/* What the launchers of reductions share: which dimensions are reduced, and where results go. */
#ifndef GEMS_REDUCE_H
#define GEMS_REDUCE_H

#include "kernels/tensor/nest.h"
#include "kernels/work/launcher.h"

/* What plan() found, for prepare(): GEMS_PLAN. */
typedef struct gems_reduction {
    uint64_t dims; /* bit d: dimension d is reduced */
    uint8_t from;  /* gems_dtype that an element is converted to when read */
    uint8_t to;    /* gems_dtype of the result */
    bool keepdim;
} gems_reduction;

/* Reads `dim` and `keepdim` and fills call->sizes. Without `dim`, or with none given, all are reduced.
 * Declines what has no elements and what the host would refuse. */
gems_status gems_reduce_dims(gems_call *call, gems_reduction *r);
/* Fills r->from and r->to as the row's "result" and the call's dtype argument say ("result": see reduce.c). */
gems_status gems_reduce_dtypes(gems_call *call, gems_reduction *r);
/* Makes or takes result i, contiguous and apart from the input; NULL: declined. */
gems_tensor *gems_reduce_result(gems_call *call, unsigned i, gems_dtype dtype, const gems_reduction *r);

/* What a reduction's kernel is made of. */
typedef struct gems_reduce_types {
    const gems_op *op;
    gems_dtype in, from, acc, out; /* read, worked in, accumulated in, written */
} gems_reduce_types;

/* Of a call after plan(). */
void gems_reduce_types_of(gems_reduce_types *types, const gems_call *call);
/* The dtypes as one number. */
static inline uint64_t gems_reduce_types_number(const gems_reduce_types *t)
{
    return (uint64_t)(t->in << 12 | t->from << 8 | t->acc << 4 | t->out);
}
/* The definitions that reduce.cl begins with. */
void gems_reduce_defines(const gems_reduce_types *types, char *text, size_t n);
/* gems_family.fold */
gems_status gems_reduce_fold(gems_call *call, gems_work *work);

/* The reduced loops of a tensor, cut into `splits` parts of chunk_outer visits and chunk terms. */
typedef struct gems_cut {
    gems_nest outer;
    int64_t outer_count, n, stride;
    int64_t splits, inner_splits, chunk_outer, chunk;
} gems_cut;

/* As few parts as give `device` enough to do with `units` results each; the rule's "splits" overrides. */
void gems_reduce_cut(gems_cut *cut, const gems_call *call, const gems_device_info *device, int64_t units);
/* About so many parts. */
void gems_reduce_cut_into(gems_cut *cut, int64_t wanted);

/* The parameter of variants that cut. */
#define GEMS_SPLITS ((gems_parameter){"splits", 1, 4096, 1, 0})

#endif
