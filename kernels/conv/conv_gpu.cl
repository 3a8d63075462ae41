/* Convolution as a product, for GPUs and for any device: see conv.cl. A group of GX x GY work-items makes a block of
 * TM x TN of the output (block.cl). Columns are what lies side by side in the output: pixels, or with CHANNELS_LAST
 * channels. Blocks of TK positions of input and filters go through local memory, and the next ones are fetched while the
 * present ones are multiplied.
 *
 * Given: TM a multiple of 4 GY, TN of 4 GX, TM * TK and TN * TK of GX * GY, which is a multiple of TK, and which TP
 * divides or is a multiple of. REST: only blocks with something that is not right by parts (pack.cl). Dimension 0: blocks of pixels, 1: of channels, 2: groups of channels. */
#include "kernels/conv/conv.cl"

#ifndef TM
#define TM 64
#define TN 64
#define TK 16
#define GX 16
#define GY 16
#define FILTER_H 3
#define FILTER_W 3
#define D f32
#endif

#define MAD(x, y, z) fma(x, y, z)
#include "kernels/block.cl"
#ifdef REST
#include "kernels/parts.cl"
#define REST_ARGUMENTS                                                                                                 \
    , GEMS_SHARED_BUFFER(const float, input), GEMS_SHARED_BUFFER(const float, filters), long input_elements,           \
        long filter_elements
#else
#define REST_ARGUMENTS
#endif

#ifdef CHANNELS_LAST
#define TP TM /* pixels of a block */
#define TO TN /* channels */
#define OF_PIXELS rows
#define OF_OUTPUTS cols
#else
#define TP TN
#define TO TM
#define OF_PIXELS cols
#define OF_OUTPUTS rows
#endif

/* What a work-item fetches: neighbouring items take neighbours in memory. Of the input, element f of FP is at pixel
 * P_ACROSS and position P_ALONG of the block, and at the P_SLOT-th of the PIXELS whose places the item keeps. */
#define FP (TP * TK / GROUP)
#define FO (TO * TK / GROUP)
#ifdef CHANNELS_LAST
#define PIXELS FP
#define P_SLOT(f) (f)
#define P_ACROSS(f) ((f) * (GROUP / TK) + l / TK)
#define P_ALONG(f) (l % TK)
#else
#define PIXELS (TP > GROUP ? TP / GROUP : 1)
#define P_SLOT(f) ((f) % PIXELS)
#define P_ACROSS(f) (((f) * GROUP + l) % TP)
#define P_ALONG(f) (((f) * GROUP + l) / TP)
#endif
#define O_ACROSS(f) ((f) * (GROUP / TK) + l / TK)
#define O_ALONG (l % TK)

__kernel __attribute__((reqd_work_group_size(GX, GY, 1))) void conv(OPERANDS REST_ARGUMENTS)
{
    OPEN;
    OPEN_GROUP(get_group_id(2));
    __local NUM rows[TK][TM + 4] __attribute__((aligned(16)));
    __local NUM cols[TK][TN + 4] __attribute__((aligned(16)));
    const int tx = get_local_id(0), ty = get_local_id(1), l = ty * GX + tx;
    const int p0 = get_group_id(0) * TP, o0 = get_group_id(1) * TO;

#ifdef REST
    GEMS_AT(const float, input);
    GEMS_AT(const float, filters);
    const __global int4 *of_images = (const __global int4 *)(input + input_elements),
                        *of_filters = (const __global int4 *)(filters + filter_elements);
    __local int refused;
    if (l == 0)
        refused = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    const int last_pixel = min(p0 + TP, z.pixels) - 1;
    for (int i = p0 / z.plane + l; i <= last_pixel / z.plane; i += GROUP)
        if (parts_refuse_image(of_images[i], z.channels * z.h * z.w))
            refused = 1;
    for (int o = o0 + l; o < min(o0 + TO, z.outputs); o += GROUP)
        if (parts_refuse_filter(of_filters[o]))
            refused = 1;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (!refused)
        return;
#endif
    /* Where a pixel's filter begins; a pixel that does not exist has it outside. */
    offset base[PIXELS];
    int top[PIXELS], left[PIXELS];
    UNROLL for (int i = 0; i < PIXELS; i++)
    {
        const int pixel = min(p0 + P_ACROSS(i), z.pixels - 1), image = pixel / z.plane, at = pixel % z.plane;
        top[i] = at / z.q * z.stride_h - z.pad_h;
        left[i] = at % z.q * z.stride_w - z.pad_w;
        base[i] = image * (offset)z.x_n + top[i] * (offset)z.x_h + left[i] * (offset)z.x_w;
        if (p0 + P_ACROSS(i) >= z.pixels)
            top[i] = INT_MIN / 2;
    }

    NUM fp[FP], fo[FO];
    BLOCK_SUMS

#define FETCH(k0)                                                                                                      \
    UNROLL for (int f = 0; f < FP; f++)                                                                                \
    {                                                                                                                  \
        const int k = (k0) + P_ALONG(f);                                                                               \
        SPLIT(k, c, r, s);                                                                                             \
        const int down = r * z.step_h, right = s * z.step_w, i = P_SLOT(f);                                            \
        const bool inside = k < z.depth && (uint)(top[i] + down) < (uint)z.h && (uint)(left[i] + right) < (uint)z.w;   \
        const offset at = c * (offset)z.x_c + down * (offset)z.x_h + right * (offset)z.x_w;                            \
        fp[f] = inside ? LOAD(x, base[i] + at) : (NUM)0;                                                               \
    }                                                                                                                  \
    {                                                                                                                  \
        const int k = (k0) + O_ALONG;                                                                                  \
        W_PLACE(at, k)                                                                                                 \
        UNROLL for (int f = 0; f < FO; f++)                                                                            \
        {                                                                                                              \
            const int o = o0 + O_ACROSS(f);                                                                            \
            fo[f] = k < z.depth && o < z.outputs ? LOAD(w, o * (offset)z.w_o + at) : (NUM)0;                           \
        }                                                                                                              \
    }

    FETCH(0)
    for (int k0 = 0; k0 < z.depth; k0 += TK) {
        UNROLL for (int f = 0; f < FP; f++) OF_PIXELS[P_ALONG(f)][P_ACROSS(f)] = fp[f];
        UNROLL for (int f = 0; f < FO; f++) OF_OUTPUTS[O_ALONG][O_ACROSS(f)] = fo[f];
        barrier(CLK_LOCAL_MEM_FENCE);
        FETCH(k0 + TK)
        BLOCK_ADD(rows, cols, k0 + TK)
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    UNROLL for (int i = 0; i < PM; i++)
        UNROLL for (int j = 0; j < PN; j++)
        {
#ifdef CHANNELS_LAST
            const int pixel = p0 + ROW(i), o = o0 + COL(j);
#else
            const int pixel = p0 + COL(j), o = o0 + ROW(i);
#endif
            if (pixel >= z.pixels || o >= z.outputs)
                continue;
            STORE(y, pixel / z.plane * z.y_n + pixel % z.plane * z.y_at + o * z.y_o, BLOCK_SUM(i, j) + BIAS(o));
        }
}
