/* What kernels of convolutions have in common. A convolution is a product: for each group of channels
 *
 *     y[o, pixel] = bias[o] + sum over k of w[o, k] x[k, pixel]
 *
 * where a pixel is one of all images' outputs (image, row p, column q), and k one of the filter's positions (channel c,
 * row r, column s). x[k, pixel] is never stored: it is the input at row p stride - padding + r dilation, column alike,
 * or 0 outside.
 *
 * Given: D the dtype, FILTER_H and FILTER_W, CHANNELS_LAST where pixels of the output are channels_total apart and their
 * channels are neighbours; else channels are planes of pixels. k counts as memory of the input does: channels fastest
 * there, else columns. WIDE: offsets need 64 bits. */
#include "kernels/dtype.cl"

#ifdef WIDE
typedef long offset;
#else
typedef int offset;
#endif

/* The same struct in conv.c, of a size that is a multiple of 8: rusticl does not count what would fill it up. Strides are
 * in elements. */
typedef struct {
    long x_n, x_c, x_h, x_w;
    long w_o, w_c, w_r, w_s;
    long w_k; /* of k as it counts here; -1: there is no such stride */
    long y_n, y_o, y_at; /* image, channel, pixel of a plane */
    long bias; /* -1: there is none */
    int channels, outputs; /* of a group */
    int h, w, q; /* input; columns of the output */
    int plane, pixels; /* of the output: in an image, in all */
    int depth; /* positions of a filter, all channels of a group */
    int stride_h, stride_w, pad_h, pad_w, step_h, step_w;
} conv_shape;

#define OPERANDS                                                                                                       \
    GEMS_BUFFER(const MEM, x), GEMS_BUFFER(const MEM, w), GEMS_BUFFER(const MEM, bias), GEMS_BUFFER(MEM, y),           \
        const conv_shape z
#define OPEN                                                                                                           \
    GEMS_AT(const MEM, x);                                                                                             \
    GEMS_AT(const MEM, w);                                                                                             \
    GEMS_AT(const MEM, bias);                                                                                          \
    GEMS_AT(MEM, y)
/* From here on only this group's channels. */
#define OPEN_GROUP(g)                                                                                                  \
    x += (g) * z.channels * z.x_c, w += (g) * z.outputs * z.w_o, y += (g) * z.outputs * z.y_o;                         \
    bias += z.bias < 0 ? 0 : (g) * z.outputs * z.bias
#define BIAS(o) (z.bias < 0 ? (NUM)0 : LOAD(bias, (o) * z.bias))

/* Position k of a filter: channel c, row r, column s. */
#ifdef CHANNELS_LAST
#define SPLIT(k, c, r, s)                                                                                              \
    const int rs_##c = (k) / z.channels, c = (k) - rs_##c * z.channels, r = rs_##c / FILTER_W, s = rs_##c % FILTER_W
#else
#define SPLIT(k, c, r, s)                                                                                              \
    const int c = (k) / (FILTER_H * FILTER_W), rs_##c = (k) % (FILTER_H * FILTER_W), r = rs_##c / FILTER_W,            \
              s = rs_##c % FILTER_W
#endif
/* Declares `at`, where position k of a filter lies. */
#ifdef LINEAR /* z.w_k is a stride */
#define W_PLACE(at, k) const offset at = (k) * (offset)z.w_k;
#else
#define W_PLACE(at, k)                                                                                                 \
    SPLIT(k, c_##at, r_##at, s_##at);                                                                                  \
    const offset at = c_##at * (offset)z.w_c + r_##at * (offset)z.w_r + s_##at * (offset)z.w_s;
#endif
