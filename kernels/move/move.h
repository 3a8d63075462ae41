/* Moving elements: what cat, flip, repeat, index_select, embedding, triu and their kind have in common. Each element of
 * a block of dimensions goes from a place in one tensor to a place in another, as bits of its size, so that one piece
 * of device code (move.cl) serves every dtype, stride and rank. Used by the families in kernels/move.
 *
 * gems_move   one block: which element goes where
 * gems_fill   one block that gets the same element everywhere
 * gems_tri    a matrix or a batch of them, of which one triangle is kept */
#ifndef GEMS_MOVE_H
#define GEMS_MOVE_H

#include "kernels/call.h"
#include "kernels/work/launcher.h"
#include "kernels/tensor/layout.h"

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
    const gems_tensor *index; /* i32 or i64, every element in [0, limit): gems_indices_check; NULL: none */
    int64_t axis, limit;      /* source stride and size of the dimension that the index selects from */
    int64_t dst_at, src_at;
    bool truth;   /* bools are read, so that any byte but 0 becomes 1; without it bytes are copied */
    int64_t each; /* words that a work-item of a GPU copies; 0: four where an index leads to them, else one */
    int rank;
    gems_move_dim dim[GEMS_MOVE_RANK];
} gems_move;

/* Adds a dimension. Order does not matter for the result. At most GEMS_MOVE_RANK of them. */
void gems_move_add(gems_move *move, int64_t size, int64_t dst, int64_t src, int64_t pick);
/* Queues it. Launches of one work run in order. */
void gems_move_launch(gems_work *work, const gems_move *move);

/* Copies a tensor into another one of its sizes and dtype. */
void gems_move_copy(gems_work *work, const gems_tensor *to, const gems_tensor *from);

/* Every element of `to` becomes the one whose bits are in `bits` (low bytes first). `to` may have gaps, not overlaps.
 */
void gems_fill_launch(gems_work *work, const gems_tensor *to, uint64_t bits);

/* to[b, r, c] = from[b, r, c] where c - r >= diagonal (upper) or <= diagonal (lower), zero elsewhere. Shapes are equal,
 * at least 2 dimensions. `to` may be `from`: then only the zeros are written. */
void gems_tri_launch(gems_work *work, const gems_tensor *to, const gems_tensor *from, int64_t diagonal, bool upper);

/* One kernel with a text for each device and layout. The small lane serves so few bytes that one core moves them in the
 * time it takes to wake the others. */
extern const gems_variant gems_move_variants[];
#define GEMS_MOVE_SMALL (1 << 20)

/* gems_family_<stem>, of plan_<stem> and prepare_<stem>. */
#define GEMS_MOVE_FAMILY(stem, ...)                                                                                    \
    const gems_family gems_family_##stem = {.name = #stem,                                                             \
                                            .plan = plan_##stem,                                                       \
                                            .prepare = prepare_##stem,                                                 \
                                            .variants = gems_move_variants,                                            \
                                            .small_bytes = GEMS_MOVE_SMALL,                                            \
                                            __VA_ARGS__}

#endif
