/* Hashes of 64 bits. For tables in memory and for names of files: nobody who chooses the input is kept out. */
#ifndef GEMS_HASH_H
#define GEMS_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define GEMS_HASH_START UINT64_C(0xcbf29ce484222325)

/* FNV-1a of n bytes, going on from `h`: GEMS_HASH_START, or the hash of what comes before. */
static inline uint64_t gems_hash(uint64_t h, const void *bytes, size_t n)
{
    for (const unsigned char *p = bytes; n; p++, n--)
        h = (h ^ *p) * UINT64_C(0x100000001b3);
    return h;
}

static inline uint64_t gems_hash_text(uint64_t h, const char *text)
{
    return gems_hash(h, text, strlen(text));
}

/* Of long data, eight bytes at a time; `seed` makes different hashes of the same data. */
static inline uint64_t gems_hash_long(uint64_t seed, const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t h = seed ^ (n * UINT64_C(0x9e3779b97f4a7c15));
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    for (; n > 0; n--, p++)
        h = (h ^ *p) * UINT64_C(0x100000001b3);
    h = (h ^ (h >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ (h >> 33);
}

/* A short key of words, fast: products that do not wait for each other. The high bits are the good ones. */
static inline uint64_t gems_hash_words(const uint64_t *words, size_t n)
{
    uint64_t h = 0, odd = UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < n; i++, odd += UINT64_C(0xbf58476d1ce4e5ba))
        h += words[i] * odd;
    return h;
}

#endif
