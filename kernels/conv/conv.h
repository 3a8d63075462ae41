/* What the files of convolutions share; no other folder includes this. */
#ifndef GEMS_CONV_H
#define GEMS_CONV_H

#include "kernels/work/launcher.h"

#include <stddef.h>

/* The same struct in conv.cl. */
typedef struct gems_conv_shape {
    int64_t x_n, x_c, x_h, x_w;
    int64_t w_o, w_c, w_r, w_s, w_k;
    int64_t y_n, y_o, y_at;
    int64_t bias;
    int32_t channels, outputs;
    int32_t h, w, q;
    int32_t plane, pixels;
    int32_t depth;
    int32_t stride_h, stride_w, pad_h, pad_w, step_h, step_w;
} gems_conv_shape;
_Static_assert(offsetof(gems_conv_shape, step_w) + sizeof(int32_t) == sizeof(gems_conv_shape),
               "bytes at the end that are no member");

/* What plan() found; its tensors by prepare(). */
typedef struct gems_conv {
    const gems_tensor *x, *w, *bias, *y; /* bias may be NULL */
    gems_conv_shape shape;
    int64_t groups;
    int32_t p, filter_h, filter_w;
    bool channels_last, wide; /* wide: offsets in input or weight need 64 bits */
} gems_conv;

/* A macro that a kernel is built with. */
typedef struct gems_macro {
    const char *name;
    int value;
} gems_macro;

enum {
    GEMS_CONV_MACROS = 7
};

/* Kernel `entry` of an embedded file, for these operands and with these macros; those that are 0 are left out. */
gems_kernel *gems_conv_kernel(gems_work *work, const gems_conv *p, const char *file, const char *entry,
                              const gems_macro macros[GEMS_CONV_MACROS]);

/* f32's parts (kernels/parts.cl): scratches, and how many elements of the input and of the filters they hold. */
typedef struct gems_conv_parts {
    int input, filters;
    int64_t input_elements, filter_elements;
} gems_conv_parts;
/* Blocks in local memory, on any device; with parts: only what they are refused for. */
void gems_conv_gpu(const gems_choice *choice, const gems_conv_parts *parts);

/* wgmma.c: tensor cores of compute capability 9.0; of f32 by three products of f16. */
bool gems_conv_can_wgmma(const gems_choice *choice);
bool gems_conv_suits_wgmma(const gems_choice *choice);
void gems_conv_wgmma(const gems_choice *choice);

#endif
