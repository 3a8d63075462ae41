#include "preload/base/clocale.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

/* glibc's "C" locale is static: nothing is allocated, and nothing needs to be freed. */
static locale_t c_locale(void)
{
    return newlocale(LC_ALL_MASK, "C", NULL);
}

double gems_c_strtod(const char *s, char **end)
{
    return strtod_l(s, end, c_locale());
}

float gems_c_strtof(const char *s, char **end)
{
    return strtof_l(s, end, c_locale());
}

int gems_c_vsnprintf(char *s, size_t n, const char *fmt, va_list args)
{
    locale_t before = uselocale(c_locale()); /* of this thread alone */
    int written = vsnprintf(s, n, fmt, args);
    uselocale(before);
    return written;
}
