/* How gemm_wgmma.cl is launched: for products, and for convolutions, which are products of images (kernels/conv). */
#ifndef GEMS_WGMMA_H
#define GEMS_WGMMA_H

#include "kernels/blas/blas.h"

/* A block of C: as many stages as local memory holds beside C's chunks; arithmetic in it, measured on an H200 and
 * relative to the largest. */
typedef struct gems_wgmma_block {
    int tm, tn, stages;
    double rate;
    bool narrow; /* for convolutions alone: few filters; its rate is a guess */
} gems_wgmma_block;

enum {
    GEMS_WGMMA_BLOCKS = 8,
    GEMS_WGMMA_OTHERWISE = 2 /* where a rule asks for one that is not there */
};
extern const gems_wgmma_block gems_wgmma_blocks[GEMS_WGMMA_BLOCKS];

/* Whether the rule allows it; with what it makes so many tiles, in units that compare. */
bool gems_wgmma_is_allowed(const gems_choice *choice, const gems_wgmma_block *block, int most_tn);
double gems_wgmma_time(const gems_choice *choice, const gems_wgmma_block *block, int64_t tiles);
/* The block with which a product is made soonest, where the last wave may leave multiprocessors idle; or what the rule
 * says. */
gems_wgmma_block gems_wgmma_block_for(const gems_choice *choice, const gems_product *p, int most_tn, bool narrow);

/* Images of which the pixels are lines of an operand: the struct of images.cl, which describes it. */
typedef struct gems_wgmma_images {
    int64_t apart_w, apart_h, apart_n;
    int32_t w, h, channels, images;
    int32_t out_w, out_h;
    int32_t box_w, box_h, box_n, boxes;
    int32_t stride_w, stride_h, step_w, step_h, pad_w, pad_h;
    int32_t filter_w, blocks_of_c;
    int32_t place_n, place;
} gems_wgmma_images;

typedef enum gems_wgmma_pixels {
    GEMS_WGMMA_MATRICES,
    GEMS_WGMMA_ROWS, /* pixels are A's rows; m is as many blocks as there are boxes */
    GEMS_WGMMA_COLUMNS
} gems_wgmma_pixels;

/* Scratches, or -1, how A and B lie, in how many parts of `part` blocks k is shared out. */
typedef struct gems_wgmma_how {
    int a, b, parts; /* A and B in another form; sums of parts of k */
    bool split, along_m, along_n;
    int64_t nparts, part;
    gems_wgmma_pixels pixels;
    const gems_wgmma_images *images;
} gems_wgmma_how;

void gems_wgmma_launch(const gems_choice *choice, const gems_product *p, const gems_wgmma_block *block,
                       const gems_wgmma_how *how);

#endif
