/* f32 queries, keys and values as two f16 each (kernels/parts.cl), for attention_split.cl. PART_ROWS rows of a head are one
 * block, times one power of two, so that its largest element lies in [2^14, 2^15): high and low part cover an element to
 * 2^-22 of it, or to 2^-40 of the block's largest.
 *
 * In `parts` stand those of the queries of all heads, of keys and of values: of each head its high parts, rows of `pitch`
 * elements, a multiple of 8, and then the low ones. In `notes`, in the same order, stands of each block its exponent, or
 * PARTS_NONE where parts will not do: heads that have such a block are left to attention_gpu.cl. */
#include "kernels/parts.cl"

#define PARTS_NONE 0x7fffffff
/* Exponents of blocks: what they scale scores and values by is then a normal number. */
#define PARTS_LOWEST -30
#define PARTS_HIGHEST 60

#define BLOCKS(rows) (((rows) + PART_ROWS - 1) / PART_ROWS)
