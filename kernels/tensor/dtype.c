#include "kernels/tensor/dtype.h"

#include <string.h>

const gems_dtype_info gems_dtypes[GEMS_DTYPE_COUNT] = {
    [GEMS_F16] = {"f16", "half", "float", 2, GEMS_CAT_FLOAT},
    [GEMS_BF16] = {"bf16", "ushort", "float", 2, GEMS_CAT_FLOAT},
    [GEMS_F32] = {"f32", "float", "float", 4, GEMS_CAT_FLOAT},
    [GEMS_F64] = {"f64", "double", "double", 8, GEMS_CAT_FLOAT},
    [GEMS_I8] = {"i8", "char", "char", 1, GEMS_CAT_INT},
    [GEMS_U8] = {"u8", "uchar", "uchar", 1, GEMS_CAT_INT},
    [GEMS_I16] = {"i16", "short", "short", 2, GEMS_CAT_INT},
    [GEMS_I32] = {"i32", "int", "int", 4, GEMS_CAT_INT},
    [GEMS_I64] = {"i64", "long", "long", 8, GEMS_CAT_INT},
    [GEMS_BOOL] = {"bool", "uchar", "uchar", 1, GEMS_CAT_BOOL},
};

gems_dtype gems_dtype_find(const char *name)
{
    for (int d = 0; d < GEMS_DTYPE_COUNT; d++)
        if (strcmp(gems_dtypes[d].name, name) == 0)
            return (gems_dtype)d;
    return GEMS_DTYPE_NONE;
}

/* The higher category wins; within one, the wider type. The two exceptions are pairs of equal width where neither holds
 * the other's values: both give the next wider type. */
gems_dtype gems_promote_types(gems_dtype a, gems_dtype b)
{
    if (a >= GEMS_DTYPE_COUNT || b >= GEMS_DTYPE_COUNT)
        return GEMS_DTYPE_NONE;
    if (a == b)
        return a;
    const gems_dtype_info *x = &gems_dtypes[a], *y = &gems_dtypes[b];
    if (x->category != y->category)
        return x->category > y->category ? a : b;
    if (x->size != y->size)
        return x->size > y->size ? a : b;
    return x->category == GEMS_CAT_FLOAT ? GEMS_F32 : GEMS_I16; /* f16 with bf16, i8 with u8 */
}
