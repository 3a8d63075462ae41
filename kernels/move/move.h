/* Moving elements: what cat, flip, repeat, index_select, embedding, triu and their kind have in common. Each element of
 * a block of dimensions goes from a place in one tensor to a place in another, as bits of its size, so that one piece
 * of device code (move.cl) serves every dtype, stride and rank. Used by the families in kernels/move and kernels/move.
 *
 * gems_move   one block: which element goes where
 * gems_fill   one block that gets the same element everywhere
 * gems_tri    a matrix or a batch of them, of which one triangle is kept */
#ifndef GEMS_COPY_MOVE_H
#define GEMS_COPY_MOVE_H

#include "kernels/call.h"
#include "kernels/device/device.h"

#define GEMS_MOVE_RANK 16 /* dimensions before neighbours are merged */

typedef struct gems_move_dim {
    int64_t size;
    int64_t dst, src; /* strides in elements; src may be negative (flip) or 0 (repeat) */
    int64_t pick;     /* stride in the index tensor */
} gems_move_dim;

/* dst[dst_at + sum(c * dst)] = src[src_at + sum(c * src) + axis * index[sum(c * pick)]] for all coordinates c.
 * The offsets are relative to the tensors' first elements. Without an index its term is absent. If the dtypes differ,
 * values are converted as the host does: the destination's must be what both promote to. */
typedef struct gems_move {
    const gems_tensor *to, *from;
    const gems_tensor *index; /* i32 or i64, every element in [0, limit): gems_index_check; NULL: none */
    int64_t axis, limit;      /* source stride and size of the dimension that the index selects from */
    int64_t dst_at, src_at;
    int rank;
    gems_move_dim dim[GEMS_MOVE_RANK];
} gems_move;

/* Adds a dimension. Order does not matter for the result. At most GEMS_MOVE_RANK of them. */
void gems_move_add(gems_move *move, int64_t size, int64_t dst, int64_t src, int64_t pick);
/* Queues it. Launches of one job run in order. */
void gems_move_launch(gems_job *job, const gems_move *move);

/* Every element of `to` becomes the one whose bits are in `bits` (low bytes first). `to` may have gaps, not overlaps.
 */
void gems_fill_launch(gems_job *job, const gems_tensor *to, uint64_t bits);

/* to[b, r, c] = from[b, r, c] where c - r >= diagonal (upper) or <= diagonal (lower), zero elsewhere. Shapes are equal,
 * at least 2 dimensions. `to` may be `from`: then only the zeros are written. */
void gems_tri_launch(gems_job *job, const gems_tensor *to, const gems_tensor *from, int64_t diagonal, bool upper);

/* Reads the index on the host: true if all elements are in [0, limit). The index must be i32 or i64. */
bool gems_index_check(const gems_tensor *index, int64_t limit);

/* Row strides of a new contiguous tensor of these sizes, as PyTorch counts them (a size of 0 counts as 1). */
void gems_move_strides(int ndim, const int64_t *sizes, int64_t *strides);
/* True if two elements share memory or may do so (strides that interleave are not looked at closely). */
bool gems_move_overlaps_itself(const gems_tensor *t);
/* True if the memory between first and last element of both intersects. */
bool gems_move_overlap(const gems_tensor *a, const gems_tensor *b);
/* Dimension in [0, ndim) for a possibly negative one, or -1 if out of range. ndim 0 counts as 1. */
int gems_move_wrap(int64_t dim, int ndim);

/* The memory format that the host would suggest for a tensor of these strides. */
typedef enum gems_format {
    GEMS_CONTIGUOUS,
    GEMS_CHANNELS_LAST,
    GEMS_CHANNELS_LAST_3D
} gems_format;
gems_format gems_move_format(const gems_tensor *t);
void gems_format_strides(gems_format format, int ndim, const int64_t *sizes, int64_t *strides);

/* Strides of a new tensor that keeps `t`'s order of dimensions (torch.preserve_format): t's own if it is dense. */
void gems_preserved_strides(const gems_tensor *t, int64_t *strides);

/* Bits of a scalar argument as an element of `dtype`. False if it is no scalar, or would overflow: the host's error. */
bool gems_fill_bits(const gems_value *value, gems_dtype dtype, uint64_t *bits);

/* The lane that the rule asks for; without a rule, the small one for so little work that starting the whole device
 * would take longer. Starts the job. */
gems_job *gems_move_begin(gems_call *call);

#endif
