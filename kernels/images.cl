/* For gemm_wgmma.cl, where a matrix is the input of a convolution: its lines are pixels of the output, and along k come
 * the positions of the filter, row by row, at each blocks_of_c blocks of 64 channels. The copy engine brings what one
 * position reads of a box of box_w x box_h x box_n pixels; what is outside of the input is 0. */
#ifndef GEMS_IMAGES_CL
#define GEMS_IMAGES_CL

#include "kernels/hopper.cl"

/* The same struct in kernels/blas/wgmma.h, of a size that is a multiple of 8. */
typedef struct {
    long apart_w, apart_h, apart_n; /* elements of the input from column to column, row to row, image to image */
    int w, h, channels, images;     /* of the input */
    int out_w, out_h;
    int box_w, box_h, box_n, boxes; /* pixels of a box; boxes in all */
    int stride_w, stride_h, step_w, step_h, pad_w, pad_h;
    int filter_w, blocks_of_c;
    int place_n, place; /* elements of the output from image to image and from pixel to pixel */
} images;

/* First column, row and image of a box. */
INLINE int3 images_box(const images *z, int number)
{
    const int across = (z->out_w + z->box_w - 1) / z->box_w, down = (z->out_h + z->box_h - 1) / z->box_h,
              rest = number / across;
    return (int3)(number % across * z->box_w, rest % down * z->box_h, rest / down * z->box_n);
}
/* Rows of 128 bytes in a box. */
INLINE int images_lines(const images *z) { return z->box_w * z->box_h * z->box_n; }

/* parts: 2 if as many images of low parts follow. */
INLINE void images_map(__global uint *map, const images *z, ulong address, uint type, int parts)
{
    map_write(map, 4, address, type, (uint4)(z->channels, z->w, z->h, z->images * parts),
              (ulong3)(z->apart_w * 2, z->apart_h * 2, z->apart_n * 2), 0);
    map_box(map, (uint3)(z->box_w, z->box_h, z->box_n), (uint2)(z->stride_w, z->stride_h));
}
/* Brings what block `block` along k reads for a box. */
INLINE void images_fetch(uint to, const __global uint *map, uint bar, const images *z, int3 box, int block, bool low)
{
    const int position = block / z->blocks_of_c, r = position / z->filter_w, s = position - r * z->filter_w;
    map_fetch4(to, map, bar, (block - position * z->blocks_of_c) * 64, box.x * z->stride_w - z->pad_w + s * z->step_w,
               box.y * z->stride_h - z->pad_h + r * z->step_h, box.z + (low ? z->images : 0));
}

/* Of a box's line: where the output's pixel is, from that of its first channel; -1: there is none. Its image. */
INLINE int2 images_place(const images *z, int3 box, int line)
{
    const int rest = line / z->box_w, n = rest / z->box_h, x = box.x + line - rest * z->box_w,
              y = box.y + rest - n * z->box_h, image = box.z + n;
    const bool is_there = n < z->box_n && x < z->out_w && y < z->out_h && image < z->images;
    return (int2)(is_there ? image * z->place_n + (y * z->out_w + x) * z->place : -1, min(image, z->images - 1));
}

#endif
