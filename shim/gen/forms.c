/* PyTorch's conventions for the names and schemas of an operator's forms. tests/host/test_rows.py proves each against
 * PyTorch's own words. */
#include "shim/gen/rows.h"

#include <stdlib.h>
#include <string.h>

static const char last_part[] = "_out";

/* The schema of base.overload if the row has it, else the row's own. */
static const char *source(char *const *schemas, unsigned n, const char *base, int nbase, const char *overload,
                          int noverload)
{
    char *wanted;
    if (asprintf(&wanted, "%.*s%s%.*s(", nbase, base, noverload ? "." : "", noverload, overload) < 0)
        abort();
    unsigned i = 0;
    while (i < n && strncmp(schemas[i], wanted, strlen(wanted)) != 0)
        i++;
    free(wanted);
    return schemas[i < n ? i : 0];
}

static bool has_out(const char *overload)
{
    const char *out = strstr(overload, last_part + 1);
    return out && (out == overload || out[-1] == '_') && (!out[3] || out[3] == '_');
}

char *gems_form_derive(const char *name, char *const *schemas, unsigned n)
{
    const char *dot = strchr(name, '.'), *overload = dot ? dot + 1 : "", *from = schemas[0];
    int nbase = (int)(dot ? (size_t)(dot - name) : strlen(name)), noverload = (int)strlen(overload), written = -1;
    bool in_place = nbase > 1 && name[nbase - 1] == '_', out = has_out(overload);
    if (in_place)
        from = source(schemas, n, name, nbase - 1, overload, noverload);
    else if (out && noverload > 4 && strcmp(overload + noverload - 4, last_part) == 0)
        from = source(schemas, n, name, nbase, overload, noverload - 4);

    const char *params = strchr(from, '(') + 1, *end = strstr(params, ") -> "), *second = strstr(params, ", ");
    bool one_tensor = strcmp(end, ") -> Tensor") == 0, tensor = strncmp(params, "Tensor ", 7) == 0;
    char *schema = NULL;
    if (in_place) {
        if (one_tensor && tensor)
            written = asprintf(&schema, "%s(Tensor(a!)%.*s) -> Tensor(a!)", name, (int)(end - params - 6), params + 6);
    } else if (out) {
        const char *keywords = strstr(params, "*, ");
        if (one_tensor)
            written = asprintf(&schema, "%s(%.*s, %sTensor(a!) out) -> Tensor(a!)", name, (int)(end - params), params,
                               keywords && keywords < end ? "" : "*, ");
    } else if (strncmp(overload, "Scalar", 6) == 0) {
        const char *at = strncmp(overload, "Scalar_Tensor", 13) == 0 ? params : second ? second + 2 : "";
        if (strncmp(at, "Tensor ", 7) == 0)
            written = asprintf(&schema, "%s(%.*sScalar%s", name, (int)(at - params), params, at + 6);
    } else if (strncmp(from, name, (size_t)nbase) != 0 || !strchr(".(", from[nbase])) {
        written = asprintf(&schema, "%s(%s", name, params);
    }
    return written < 0 ? NULL : schema;
}
