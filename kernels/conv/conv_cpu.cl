/* Convolution as a product, for CPUs: see conv.cl; blocks as in kernels/blas/gemm_cpu.cl. One work-item makes a block of
 * mc x nc of the output: rows of pixels and columns of channels with CHANNELS_LAST, else rows of channels and columns of
 * pixels, so that vectors are what lies side by side in the output. It walks the positions of the filter KC at a time and
 * copies its rows, and 16 * NV columns at a time, into local memory in the order in which they are used. The innermost
 * loop holds MR x NV vectors of sums in registers.
 *
 * Given: MC, NC, KC the largest block. Dimension 0: blocks of pixels, 1: of channels, 2: groups of channels. */
#include "kernels/conv/conv.cl"

#ifndef MC
#define MC 96
#define NC 256
#define KC 256
#define FILTER_H 3
#define FILTER_W 3
#endif

#define MAD(x, y, z) fma(x, y, z)
#include "kernels/block_cpu.cl"

/* n elements from x[first] on, `step` apart, as they are or, those before `from` and from `to` on, as 0; `apart` apart. */
static inline void copy_run(__local NUM *out, int apart, const __global MEM *x, long first, long step, int from, int to, int n)
{
    int i = 0;
    from = clamp(from, 0, n), to = clamp(to, from, n);
    for (; i < from; i++)
        out[i * apart] = 0;
    if (step == 1 && apart == 1)
        for (; i + 16 <= to; i += 16)
            vstore16(LOAD16(x, first + i), 0, out + i);
    for (; i < to; i++)
        out[i * apart] = LOAD(x, first + i * step);
    for (; i < n; i++)
        out[i * apart] = 0;
}

#ifdef CHANNELS_LAST
/* Rows of pixels, a run of channels after the other. */
static void pack_pixels(__local NUM *rows, const __global MEM *x, const conv_shape *shape, int pixel, int n, int to_n,
                        int k0, int depth)
{
    const conv_shape z = *shape;
    for (int i = 0; i < to_n; i++, pixel++) {
        const int image = pixel / z.plane, place = pixel % z.plane;
        const int top = place / z.q * z.stride_h - z.pad_h, left = place % z.q * z.stride_w - z.pad_w;
        for (int k = 0; k < depth;) {
            SPLIT(k0 + k, c, r, s);
            const int run = min(depth - k, z.channels - c), down = top + r * z.step_h, right = left + s * z.step_w;
            const bool inside = i < n && (uint)down < (uint)z.h && (uint)right < (uint)z.w;
            copy_run(rows + i * KPAD + k, 1, x, image * z.x_n + c * z.x_c + down * z.x_h + right * z.x_w, z.x_c, 0,
                     inside ? run : 0, run);
            k += run;
        }
    }
}
#else
/* Columns of pixels: of each position, what the pixels of a row of the output have in common at once. */
static void pack_pixels(__local NUM *cols, const __global MEM *x, const conv_shape *shape, int pixel, int n, int k0, int depth)
{
    const conv_shape z = *shape;
    for (int j = 0; j < NR;) {
        const int image = pixel / z.plane, place = pixel % z.plane, q = place % z.q;
        const int top = place / z.q * z.stride_h - z.pad_h, left = q * z.stride_w - z.pad_w;
        const int run = j < n ? min(n - j, z.q - q) : NR - j;
        for (int k = 0; k < depth; k++) {
            SPLIT(k0 + k, c, r, s);
            const int down = top + r * z.step_h, right = left + s * z.step_w;
            /* i from which `right + i * stride_w` is not below 0, and from which it is not below w */
            const int from = right < 0 ? (z.stride_w - 1 - right) / z.stride_w : 0;
            const int to = right < z.w ? (z.w - 1 - right) / z.stride_w + 1 : 0;
            const bool inside = j < n && (uint)down < (uint)z.h;
            copy_run(cols + k * NR + j, 1, x, image * z.x_n + c * z.x_c + down * z.x_h + right * z.x_w,
                     z.stride_w * z.x_w, inside ? from : 0, inside ? to : 0, run);
        }
        j += run, pixel += run;
    }
}
#endif

/* Filters as rows[o][k], or as cols[k][o]: `apart_o`, `apart_k` there. */
static void pack_filters(__local NUM *out, int apart_o, int apart_k, int to_o, const __global MEM *w, const conv_shape *shape, int n,
                         int k0, int depth)
{
    const conv_shape z = *shape;
#ifdef LINEAR
    if (apart_k == 1)
        gems_pack(out, apart_o, to_o, depth, w + k0 * z.w_k, z.w_o, z.w_k, n, depth);
    else
        gems_pack(out, apart_k, depth, to_o, w + k0 * z.w_k, z.w_k, z.w_o, depth, n);
#else
    for (int k = 0; k < depth; k++) {
        W_PLACE(at, k0 + k)
        copy_run(out + k * apart_k, apart_o, w, at, z.w_o, 0, n, to_o);
    }
#endif
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void conv(OPERANDS, int mc, int nc)
{
    OPEN;
    OPEN_GROUP(get_group_id(2));
    __local NUM rows[MPAD * KPAD] __attribute__((aligned(64)));
    __local NUM cols[KC * NR] __attribute__((aligned(64)));
    __local NUM sum[MPAD * NC] __attribute__((aligned(64)));
#ifdef CHANNELS_LAST
    const int m = z.pixels, n = z.outputs, m0 = get_group_id(0) * mc, n0 = get_group_id(1) * nc;
#else
    const int m = z.outputs, n = z.pixels, m0 = get_group_id(1) * mc, n0 = get_group_id(0) * nc;
#endif
    const int nrows = min(mc, m - m0), ncols = min(nc, n - n0), padded = (nrows + MR - 1) / MR * MR;

    for (int k0 = 0; k0 < z.depth; k0 += KC) {
        const int depth = min(KC, z.depth - k0);
        const bool last = k0 + KC >= z.depth;
#ifdef CHANNELS_LAST
        pack_pixels(rows, x, &z, m0, nrows, padded, k0, depth);
#else
        pack_filters(rows, KPAD, 1, padded, w + m0 * z.w_o, &z, nrows, k0, depth);
#endif
        for (int j = 0; j < ncols; j += NR) {
            const int width = min((int)NR, ncols - j);
#ifdef CHANNELS_LAST
            pack_filters(cols, 1, NR, NR, w + (n0 + j) * z.w_o, &z, width, k0, depth);
#else
            pack_pixels(cols, x, &z, n0 + j, width, k0, depth);
#endif
            for (int i = 0; i < nrows; i += MR) {
                BLOCK_SUMS(rows + i * KPAD, KPAD, cols, depth)
                _Pragma("unroll") for (int r = 0; r < MR; r++)
                    _Pragma("unroll") for (int v = 0; v < NV; v++)
                {
                    __local NUM *t = sum + (i + r) * NC + j + 16 * v;
                    vstore16(k0 ? acc[r][v] + vload16(0, t) : acc[r][v], 0, t);
                }
            }
        }
        if (!last)
            continue;
        for (int i = 0; i < nrows; i++)
            for (int j = 0; j < ncols;) {
                /* Elements that lie side by side. */
#ifdef CHANNELS_LAST
                const int o = n0 + j, pixel = m0 + i, run = ncols;
#else
                const int o = m0 + i, pixel = n0 + j, run = min(ncols - j, z.plane - pixel % z.plane);
#endif
                __global MEM *to = y + pixel / z.plane * z.y_n + pixel % z.plane * z.y_at + o * z.y_o;
                __local NUM *t = sum + i * NC + j;
                int e = 0;
#ifndef CHANNELS_LAST
                const NUM b = BIAS(o);
                for (; e + 16 <= run; e += 16)
                    STORE16(to, e, vload16(0, t + e) + b);
                for (; e < run; e++)
                    STORE(to, e, t[e] + b);
#else
                if (z.bias < 0)
                    for (; e + 16 <= run; e += 16)
                        STORE16(to, e, vload16(0, t + e));
                else if (z.bias == 1)
                    for (; e + 16 <= run; e += 16)
                        STORE16(to, e, vload16(0, t + e) + LOAD16(bias, o + e));
                for (; e < run; e++)
                    STORE(to, e, t[e] + BIAS(o + e));
#endif
                j += run;
            }
    }
}
