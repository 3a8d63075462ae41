/* Convolution, a work-item an element of the output: for groups of few channels, whose products would be too thin for
 * tiles. See conv.cl. Neighbouring items make neighbouring elements. Given: MANY where their number needs 64 bits. */
#include "kernels/conv/conv.cl"

#ifndef FILTER_H
#define FILTER_H 3
#define FILTER_W 3
#endif
#ifdef MANY
#define WHOLE long
#else
#define WHOLE int
#endif

__kernel void conv(OPERANDS, WHOLE count, int total)
{
    OPEN;
    const WHOLE i = get_global_id(0);
    if (i >= count)
        return;
#ifdef CHANNELS_LAST
    const int channel = i % total, pixel = i / total, image = pixel / z.plane, at = pixel % z.plane;
#else
    const WHOLE plane = i / z.plane;
    const int at = i % z.plane, channel = plane % total, image = plane / total;
#endif
    const int g = channel / z.outputs, o = channel % z.outputs;
    const int top = at / z.q * z.stride_h - z.pad_h, left = at % z.q * z.stride_w - z.pad_w;
    OPEN_GROUP(g);
    x += image * z.x_n;
    w += o * z.w_o;
    NUM sum = 0;
    for (int r = 0; r < FILTER_H; r++)
        for (int s = 0; s < FILTER_W; s++) {
            const int down = top + r * z.step_h, right = left + s * z.step_w;
            const bool inside = (uint)down < (uint)z.h && (uint)right < (uint)z.w;
            const __global MEM *in = x + down * z.x_h + right * z.x_w, *filter = w + r * z.w_r + s * z.w_s;
            NUM part = 0;
            for (int c = 0; c < z.channels; c++)
                part = fma(inside ? LOAD(in, c * z.x_c) : (NUM)0, LOAD(filter, c * z.w_c), part);
            sum += part;
        }
    STORE(y, image * z.y_n + at * z.y_at + o * z.y_o, sum + BIAS(o));
}
