/* Text: building it in a bounded buffer, taking lists of words apart. */
#ifndef GEMS_TEXT_H
#define GEMS_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Text being built in a buffer of the caller. What does not fit is cut; it always ends with a NUL. */
typedef struct gems_text {
    char *s;
    size_t n, size; /* n: bytes so far, below size */
} gems_text;

/* Empty text in a buffer of `size` bytes, at least one. */
gems_text gems_text_in(char *buffer, size_t size);
void gems_text_put(gems_text *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void gems_text_put_list(gems_text *text, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
/* Appends "(1,2,3)", between the two brackets given. */
void gems_text_put_numbers(gems_text *text, const char *brackets, const int64_t *numbers, size_t n);
/* Appends a string with its control characters made visible (\n, \t, \x1b), so that it stays one line. */
void gems_text_put_shown(gems_text *text, const char *s);

/* Takes the next word off a list in which any of `separators` stand between words: its length (0: no more) and *word.
 * The list goes on behind it. */
size_t gems_word(const char **list, const char *separators, const char **word);
/* The same with a copy of the word, cut to size - 1 bytes; the list may be NULL. False: no more. */
bool gems_word_copy(const char **list, const char *separators, char *word, size_t size);

#endif
