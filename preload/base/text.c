#include "preload/base/text.h"
#include "preload/base/clocale.h"

#include <stdio.h>
#include <string.h>

gems_text gems_text_in(char *buffer, size_t size)
{
    *buffer = 0;
    return (gems_text){.s = buffer, .size = size};
}

void gems_text_put_list(gems_text *t, const char *fmt, va_list args)
{
    int n = gems_c_vsnprintf(t->s + t->n, t->size - t->n, fmt, args);
    size_t room = t->size - t->n - 1;
    if (n > 0)
        t->n += (size_t)n < room ? (size_t)n : room;
}

void gems_text_put(gems_text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    gems_text_put_list(t, fmt, args);
    va_end(args);
}

void gems_text_put_numbers(gems_text *t, const char *brackets, const int64_t *numbers, size_t n)
{
    gems_text_put(t, "%c", brackets[0]);
    for (size_t i = 0; i < n; i++)
        gems_text_put(t, i ? ",%lld" : "%lld", (long long)numbers[i]);
    gems_text_put(t, "%c", brackets[1]);
}

void gems_text_put_shown(gems_text *t, const char *s)
{
    static const char named[] = "\n\t\r", letters[] = "ntr";
    for (; *s && t->n + 1 < t->size; s++) {
        unsigned char c = (unsigned char)*s;
        if (c >= ' ' && c != 0x7f) {
            t->s[t->n++] = *s;
            t->s[t->n] = 0;
            continue;
        }
        const char *name = strchr(named, *s);
        if (t->size - t->n <= 4) /* half an escape would say something else */
            break;
        gems_text_put(t, name ? "\\%c" : "\\x%02x", name ? letters[name - named] : c);
    }
}

size_t gems_word(const char **list, const char *separators, const char **word)
{
    *word = *list + strspn(*list, separators);
    size_t n = strcspn(*word, separators);
    *list = *word + n;
    return n;
}

bool gems_word_copy(const char **list, const char *separators, char *word, size_t size)
{
    const char *w = "";
    size_t n = *list ? gems_word(list, separators, &w) : 0;
    snprintf(word, size, "%.*s", (int)n, w);
    return n > 0;
}
