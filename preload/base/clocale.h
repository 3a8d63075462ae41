/* Numbers with a decimal point, whatever locale the program has set. */
#ifndef GEMS_CLOCALE_H
#define GEMS_CLOCALE_H

#include <stdarg.h>
#include <stddef.h>

double gems_c_strtod(const char *s, char **end);
float gems_c_strtof(const char *s, char **end);
int gems_c_vsnprintf(char *s, size_t n, const char *fmt, va_list args) __attribute__((format(printf, 3, 0)));

#endif
