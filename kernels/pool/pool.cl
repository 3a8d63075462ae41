/* Pooling of images: an element of the output is the largest of a window of the input, and where it was found, or its
 * average. Elements of the output are counted as they lie in memory; a work-item makes a run of neighbours, or one.
 *
 * Given: D the dtype, WHOLE the type that counts elements, MAX or AVERAGE or ADAPTIVE, CHANNELS_LAST where the output's
 * channels are neighbours. */
#ifndef D
#define D f32
#define WHOLE long
#define MAX
#endif

#include "kernels/dtype.cl"

/* The same struct in pool.c, of a size that is a multiple of 8: rusticl does not count what would fill it up. Strides are
 * in elements. */
typedef struct {
    long x_n, x_c, x_h, x_w;
    long divisor; /* 0: the number of elements, */
    int channels, h, w, p, q; /* of the input; rows and columns of the output */
    int window_h, window_w, stride_h, stride_w, pad_h, pad_w, step_h, step_w;
    int count_outside; /* with those of the padding, too */
} pool_shape;

__kernel void pool(GEMS_BUFFER(const MEM, x), GEMS_BUFFER(MEM, y)
#ifdef MAX
                   , GEMS_BUFFER(long, where)
#endif
                   , const pool_shape z, WHOLE count)
{
    GEMS_AT(const MEM, x);
    GEMS_AT(MEM, y);
#ifdef MAX
    GEMS_AT(long, where);
#endif
    ROW_SHARE(i, count) {
        WHOLE rest = i;
#ifdef CHANNELS_LAST
        const int c = rest % z.channels;
        rest /= z.channels;
#endif
        const int q = rest % z.q;
        rest /= z.q;
        const int p = rest % z.p;
        rest /= z.p;
#ifndef CHANNELS_LAST
        const int c = rest % z.channels;
        rest /= z.channels;
#endif
        const __global MEM *in = x + rest * z.x_n + c * z.x_c;
#ifdef ADAPTIVE
        const int top = (long)p * z.h / z.p, left = (long)q * z.w / z.q;
        const int bottom = ((long)(p + 1) * z.h - 1) / z.p + 1, right = ((long)(q + 1) * z.w - 1) / z.q + 1;
#else
        int top = p * z.stride_h - z.pad_h, left = q * z.stride_w - z.pad_w;
        int bottom = top + (z.window_h - 1) * z.step_h + 1, right = left + (z.window_w - 1) * z.step_w + 1;
#endif
#ifdef MAX
        top += top < 0 ? (z.step_h - 1 - top) / z.step_h * z.step_h : 0;
        left += left < 0 ? (z.step_w - 1 - left) / z.step_w * z.step_w : 0;
        bottom = min(bottom, z.h), right = min(right, z.w);
        NUM best = -INFINITY;
        long at = (long)top * z.w + left;
        for (int r = top; r < bottom; r += z.step_h)
            for (int s = left; s < right; s += z.step_w) {
                const NUM v = LOAD(in, r * z.x_h + s * z.x_w);
                if (v > best || isnan(v)) {
                    best = v;
                    at = (long)r * z.w + s;
                }
            }
        STORE(y, i, best);
        where[i] = at;
#else
#ifdef ADAPTIVE
        const NUM down = bottom - top, across = right - left;
#else
        const int whole = (min(bottom, z.h + z.pad_h) - top) * (min(right, z.w + z.pad_w) - left);
        top = max(top, 0), left = max(left, 0), bottom = min(bottom, z.h), right = min(right, z.w);
        const NUM down = z.divisor         ? z.divisor
                         : z.count_outside ? whole
                                           : (bottom - top) * (right - left);
        const NUM across = 1;
#endif
        NUM sum = 0;
        for (int r = top; r < bottom; r++)
            for (int s = left; s < right; s++)
                sum += LOAD(in, r * z.x_h + s * z.x_w);
        STORE(y, i, top < bottom && left < right ? sum / down / across : (NUM)0);
#endif
    }
}
