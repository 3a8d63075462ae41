/* Element types: one row each, and PyTorch's promotion of two of them. */
#ifndef GEMS_DTYPE_H
#define GEMS_DTYPE_H

#include <stdint.h>

typedef enum gems_dtype {
    GEMS_F16,
    GEMS_BF16,
    GEMS_F32,
    GEMS_F64,
    GEMS_I8,
    GEMS_U8,
    GEMS_I16,
    GEMS_I32,
    GEMS_I64,
    GEMS_BOOL,
    GEMS_DTYPE_COUNT,
    GEMS_DTYPE_NONE = GEMS_DTYPE_COUNT /* absent, or one that no kernel handles (complex, float8, ...) */
} gems_dtype;

/* Kinds are ordered as in type promotion: bool < integer < float. */
typedef enum gems_category {
    GEMS_CAT_BOOL,
    GEMS_CAT_INT,
    GEMS_CAT_FLOAT
} gems_category;

typedef struct gems_dtype_info {
    const char *name;    /* "f32", as in tables and logs */
    const char *cl;      /* OpenCL C type of an element in memory ("half" and "ushort" for f16, bf16) */
    const char *compute; /* OpenCL C type used for arithmetic ("float" for f16 and bf16, "uchar" for bool) */
    uint8_t size;        /* bytes */
    uint8_t category;    /* gems_category */
} gems_dtype_info;

extern const gems_dtype_info gems_dtypes[GEMS_DTYPE_COUNT];
/* dtype of that name ("f32"), or GEMS_DTYPE_NONE. */
gems_dtype gems_dtype_find(const char *name);
/* PyTorch's promotion of two dtypes of tensors of equal priority (torch.promote_types). */
gems_dtype gems_promote_types(gems_dtype a, gems_dtype b);

#endif
