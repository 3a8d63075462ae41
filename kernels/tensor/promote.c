/* Type promotion of the host's pointwise operators. */
#include "kernels/tensor/promote.h"

#include <string.h>

static const char *const names[GEMS_PROMOTE_COUNT] = {
    [GEMS_PROMOTE_DEFAULT] = "default",
    [GEMS_PROMOTE_NO_OPMATH] = "no_opmath",
    [GEMS_PROMOTE_INT_TO_FLOAT] = "int_to_float",
    [GEMS_PROMOTE_ALWAYS_BOOL] = "always_bool",
    [GEMS_PROMOTE_COMPLEX_TO_FLOAT] = "complex_to_float",
    [GEMS_PROMOTE_BOOL_TO_LONG] = "bool_to_long",
};

gems_promotion gems_promotion_find(const char *name, size_t n)
{
    int k = 0;
    while (k < GEMS_PROMOTE_COUNT && !(strlen(names[k]) == n && memcmp(names[k], name, n) == 0))
        k++;
    return (gems_promotion)k;
}

static gems_dtype join(gems_dtype a, gems_dtype b)
{
    if (a == GEMS_DTYPE_NONE)
        return b;
    return b == GEMS_DTYPE_NONE ? a : gems_promote_types(a, b);
}

static int category(gems_dtype d)
{
    return gems_dtypes[d].category;
}

void gems_promote_tensor(gems_promote *p, const gems_tensor *t, gems_dtype default_dtype)
{
    if (t->dtype == GEMS_DTYPE_NONE)
        p->bad = true;
    else if (t->ndim > 0)
        p->dimmed = join(p->dimmed, t->dtype);
    else if (t->wrapped)
        gems_promote_number(p, (gems_category)category(t->dtype), default_dtype);
    else
        p->zero_dim = join(p->zero_dim, t->dtype);
}

void gems_promote_number(gems_promote *p, gems_category c, gems_dtype default_dtype)
{
    p->number = join(p->number, c == GEMS_CAT_FLOAT ? default_dtype : c == GEMS_CAT_INT ? GEMS_I64 : GEMS_BOOL);
}

/* `low` only matters if it is of a higher category than `high`. */
static gems_dtype outrank(gems_dtype high, gems_dtype low)
{
    if (high == GEMS_DTYPE_NONE)
        return low;
    if (low == GEMS_DTYPE_NONE || category(low) <= category(high))
        return high;
    return gems_promote_types(high, low);
}

gems_dtype gems_promote_common(const gems_promote *p)
{
    return p->bad ? GEMS_DTYPE_NONE : outrank(p->dimmed, outrank(p->zero_dim, p->number));
}

gems_promoted gems_promote_apply(gems_promotion kind, gems_dtype common, gems_dtype default_dtype)
{
    gems_promoted r = {common, common, true};
    switch (kind) {
    case GEMS_PROMOTE_INT_TO_FLOAT:
        if (category(common) != GEMS_CAT_FLOAT)
            r.compute = r.result = default_dtype;
        break;
    case GEMS_PROMOTE_BOOL_TO_LONG:
        if (category(common) == GEMS_CAT_BOOL)
            r.compute = r.result = GEMS_I64;
        break;
    case GEMS_PROMOTE_ALWAYS_BOOL:
        r.result = GEMS_BOOL;
        r.opmath = false;
        break;
    case GEMS_PROMOTE_NO_OPMATH:
        r.opmath = false;
        break;
    default:
        break;
    }
    return r;
}

bool gems_promote_can_cast(gems_dtype from, gems_dtype to)
{
    return from < GEMS_DTYPE_COUNT && to < GEMS_DTYPE_COUNT && category(from) <= category(to);
}
