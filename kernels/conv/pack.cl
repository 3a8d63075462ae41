/* Input and filters in the form in which gemm_wgmma.cl reads them (images.cl): 16-bit elements, of f32 two parts each
 * (parts.cl), whose lines are an image and a filter.
 *
 * Given: D; FILTER_H, FILTER_W; IN_PARTS for f32. */
#include "kernels/conv/conv.cl"
#include "kernels/parts.cl"
#include "kernels/unroll.cl"

#define GROUP 256
#define SIDE 64    /* of a block: so many pixels and channels */

#define INPUT GEMS_BUFFER(const VALUE, x), const conv_shape z
/* The input's copy: `columns` pixels of `pitch` channels in a row, of which the first `shift` are 0, as is whatever the
 * input does not have. */
#define PACKED GEMS_SHARED_BUFFER(ushort, packed), int columns, int shift, int pitch
#define PACKED_ROW ((long)columns *pitch)
#define IMAGE_LINES(images) ((__global int4 *)(packed + 2l * (images) * z.h * PACKED_ROW))

#ifdef IN_PARTS
#define PIECES GEMS_SHARED_BUFFER(uint, pieces)
#define VALUE float
#define ELEMENT(v) parts_of(v)
#else
#define VALUE ushort /* its bits */
#define ELEMENT(v) (v)
#endif

#define OVER_GROUP(combine)                                                                                            \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    for (int n = GROUP / 2; n > 0; n /= 2) {                                                                           \
        if (me < n) {                                                                                                  \
            combine;                                                                                                   \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
    }

#ifdef IN_PARTS
/* The largest of each piece of `piece` elements of an image. Dimension 0: pieces; 2: images. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void largest(INPUT, PACKED, PIECES, int piece, int dense)
{
    GEMS_AT(const VALUE, x);
    GEMS_AT(ushort, packed);
    GEMS_AT(uint, pieces);
    __local uint most[GROUP];
    const int me = get_local_id(0), image = get_group_id(2), from = get_group_id(0) * piece, plane = z.h * z.w,
              end = min(from + piece, z.channels * plane);
    uint found = 0;
    x += image * z.x_n;
    if (dense)
        _Pragma("unroll 8") for (int i = from + me; i < end; i += GROUP) found = max(found, parts_magnitude(x[i]));
    else
        for (int i = from + me; i < end; i += GROUP) {
            const int c = i / plane, row = i % plane / z.w, column = i % z.w;
            found = max(found, parts_magnitude(x[c * z.x_c + row * z.x_h + column * z.x_w]));
        }
    most[me] = found;
    OVER_GROUP(most[me] = max(most[me], most[me + n]))
    if (me > 0)
        return;
    pieces[image * get_num_groups(0) + get_group_id(0)] = most[0];
    if (get_group_id(0) == 0)
        IMAGE_LINES(get_num_groups(2))[image] = (int4)(0);
}

/* An image's largest, of its pieces', for all of a group. */
static inline uint largest_of(const __global uint *pieces, int npieces, __local uint most[32])
{
    const int me = get_local_id(0);
    uint found = 0;
    if (me < 32) {
        for (int i = me; i < npieces; i += 32)
            found = max(found, pieces[i]);
        most[me] = found;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < 32; i++)
        found = max(found, most[i]);
    return found;
}

#define OPEN_IMAGE                                                                                                     \
    GEMS_AT(const VALUE, x);                                                                                           \
    GEMS_AT(ushort, packed);                                                                                           \
    GEMS_AT(uint, pieces);                                                                                             \
    __local uint most[32];                                                                                             \
    __local int small;                                                                                                 \
    const int me = get_local_id(0), image = get_group_id(2);                                                           \
    if (me == 0)                                                                                                       \
        small = 0;                                                                                                     \
    const uint largest = largest_of(pieces + image * npieces, npieces, most);                                          \
    const float scale = parts_scale_of(parts_exponent_of(largest));                                                    \
    int nsmall = 0;                                                                                                    \
    x += image * z.x_n;
#define SCALED(v) ((v)*scale)
#define NOTE(v) nsmall += parts_is_small(v)
#define MORE_ARGUMENTS , PIECES, int npieces
/* What is noted of an image: its first group does most of it. Whole numbers' sum does not depend on the order. */
#define CLOSE_IMAGE                                                                                                    \
    if (nsmall > 0)                                                                                                    \
        atomic_add(&small, nsmall);                                                                                    \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                                      \
    __global int *noted = (__global int *)&IMAGE_LINES(get_num_groups(2))[image];                                      \
    if (me == 0 && small > 0)                                                                                          \
        atomic_add(noted + 1, small);                                                                                  \
    if (me == 0 && get_group_id(0) + get_group_id(1) == 0) {                                                           \
        const int4 line = parts_line_of(largest, 0, 0);                                                                \
        noted[0] = line.x, noted[3] = line.w;                                                                          \
    }
#else
#define OPEN_IMAGE                                                                                                     \
    GEMS_AT(const VALUE, x);                                                                                           \
    GEMS_AT(ushort, packed);                                                                                           \
    const int me = get_local_id(0), image = get_group_id(2);                                                           \
    x += image * z.x_n;
#define SCALED(v) (v)
#define NOTE(v)
#define MORE_ARGUMENTS
#define CLOSE_IMAGE
#endif

/* Two neighbouring elements to their place. */
static inline void put(__global ushort *to, long low, uint first, uint second)
{
    *(__global uint *)to = (first & 0xffffu) | second << 16;
#ifdef IN_PARTS
    *(__global uint *)(to + low) = first >> 16 | (second & 0xffff0000u);
#endif
}

#define EACH (SIDE * SIDE / GROUP) /* elements of a block to a work-item */

/* Blocks of pixels of the copy (dimension 0) and of channels (1) of an image (2). */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void pack_images(INPUT, PACKED MORE_ARGUMENTS)
{
    OPEN_IMAGE
    __local uint block[SIDE * (SIDE + 1)];
    const int p0 = get_group_id(0) * SIDE, c0 = get_group_id(1) * SIDE, pixels = min(SIDE, z.h * columns - p0),
              wide = min(SIDE, pitch - c0);
    /* Neighbours in memory are read by neighbours. */
    const bool by_channels = z.x_c == 1 && wide == SIDE;
    VALUE v[EACH];
    if (by_channels)
        UNROLL for (int q = 0; q < EACH; q++)
        {
            const int pixel = me / SIDE + q * (GROUP / SIDE), c = me % SIDE, row = (p0 + pixel) / columns,
                      column = p0 + pixel - row * columns - shift;
            const bool is_there = c0 + c < z.channels && pixel < pixels && (uint)column < (uint)z.w;
            v[q] = is_there ? x[c0 + c + row * z.x_h + column * z.x_w] : (VALUE)0;
        }
    else {
        const int pixel = me % SIDE, row = (p0 + pixel) / columns, column = p0 + pixel - row * columns - shift;
        const bool is_there = pixel < pixels && (uint)column < (uint)z.w;
        const __global VALUE *from = x + row * z.x_h + column * z.x_w;
        UNROLL for (int q = 0; q < EACH; q++)
        {
            const int c = me / SIDE + q * (GROUP / SIDE);
            v[q] = is_there && c < wide && c0 + c < z.channels ? from[(c0 + c) * z.x_c] : (VALUE)0;
        }
    }
    UNROLL for (int q = 0; q < EACH; q++)
    {
        const int across = me % SIDE, along = me / SIDE + q * (GROUP / SIDE);
        const VALUE scaled = SCALED(v[q]);
        NOTE(scaled);
        block[by_channels ? along * (SIDE + 1) + across : across * (SIDE + 1) + along] = ELEMENT(scaled);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL for (int q = 0; q < EACH / 2; q++)
    {
        const int pixel = me / (SIDE / 2) + q * (GROUP / (SIDE / 2)), c = me % (SIDE / 2) * 2;
        if (pixel < pixels && c < wide)
            put(packed + image * z.h * PACKED_ROW + (long)(p0 + pixel) * pitch + c0 + c, get_num_groups(2) * z.h * PACKED_ROW,
                block[pixel * (SIDE + 1) + c], block[pixel * (SIDE + 1) + c + 1]);
    }
    CLOSE_IMAGE
}

/* The same for few channels: a work-item takes all of a pixel. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void pack_few(INPUT, PACKED MORE_ARGUMENTS)
{
    OPEN_IMAGE
    const int pixel = get_global_id(0), row = pixel / columns, column = pixel - row * columns - shift;
    if (pixel < z.h * columns) {
        const bool is_there = (uint)column < (uint)z.w;
        const __global VALUE *from = x + row * z.x_h + column * z.x_w;
        for (int c = 0; c < pitch; c += 2) {
            const VALUE first = SCALED(is_there && c < z.channels ? from[c * z.x_c] : (VALUE)0),
                        second = SCALED(is_there && c + 1 < z.channels ? from[(c + 1) * z.x_c] : (VALUE)0);
            NOTE(first);
            NOTE(second);
            put(packed + image * z.h * PACKED_ROW + (long)pixel * pitch + c, get_num_groups(2) * z.h * PACKED_ROW,
                ELEMENT(first), ELEMENT(second));
        }
    }
    CLOSE_IMAGE
}

/* Filters, a group each: at each of `positions` positions `deep` elements, of which the first are channels, or with
 * `folded` channels those of a row's columns, so many for each. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void pack_filters(GEMS_BUFFER(const VALUE, w), const conv_shape z, GEMS_SHARED_BUFFER(ushort, packed), int positions,
                                                                             int deep, int folded, int apart)
{
    GEMS_AT(const VALUE, w);
    GEMS_AT(ushort, packed);
    const int me = get_local_id(0), o = get_group_id(0), total = positions * deep;
    w += o * z.w_o;
    __global ushort *high = packed + (long)o * total;
    /* Element i of the copy: whether it is one of the filter, and where that is. */
#define FILTER_ELEMENT(i)                                                                                              \
    const int position = (i) / deep, rest = (i)-position * deep, column = folded ? rest / folded : 0,                  \
              c = folded ? rest % folded : rest, r = folded ? position : position / FILTER_W,                          \
              s = folded ? column / apart : position % FILTER_W;                                                       \
    const bool is_there = c < z.channels && (!folded || (column % apart == 0 && s < FILTER_W));                        \
    const long at = c * z.w_c + r * z.w_r + s * z.w_s;
#ifdef IN_PARTS
    __local uint most[GROUP];
    __local int small[GROUP], some[GROUP];
    uint found = 0;
    for (int i = me; i < z.channels * (FILTER_H * FILTER_W); i += GROUP) {
        const int c = i / (FILTER_H * FILTER_W), r = i / FILTER_W % FILTER_H, s = i % FILTER_W;
        found = max(found, parts_magnitude(w[c * z.w_c + r * z.w_r + s * z.w_s]));
    }
    most[me] = found;
    OVER_GROUP(most[me] = max(most[me], most[me + n]))
    const float scale = parts_scale_of(parts_exponent_of(most[0]));
    int nsmall = 0, nsome = 0;
    __global ushort *low = high + (long)get_num_groups(0) * total;
    for (int i = me; i < total; i += GROUP) {
        FILTER_ELEMENT(i)
        const float v = is_there ? w[at] * scale : 0;
        const uint parts = parts_of(v);
        nsmall += parts_is_small(v), nsome += v != 0;
        high[i] = (ushort)parts, low[i] = (ushort)(parts >> 16);
    }
    small[me] = nsmall, some[me] = nsome;
    OVER_GROUP(small[me] += small[me + n]; some[me] += some[me + n])
    if (me == 0)
        ((__global int4 *)(packed + 2l * get_num_groups(0) * total))[o] = parts_line_of(most[0], small[0], some[0]);
#else
    for (int i = me; i < total; i += GROUP) {
        FILTER_ELEMENT(i)
        high[i] = is_there ? w[at] : (ushort)0;
    }
#endif
}
