/* Threads that take blocks of many sizes and leave them to each other, for the tests and for ThreadSanitizer. */
#ifndef ARENA_JOBS_H
#define ARENA_JOBS_H

#include "kernels/memory/arena.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

enum {
    ARENA_THREADS = 6,
    ARENA_SHELF = 24
};
static _Atomic(uint64_t *) arena_shelf[ARENA_SHELF]; /* blocks that whoever comes may take and give back */
static _Atomic long arena_wrong;

/* The first words and the last of a block say how long it is, and whose it is. */
static void mark_block(uint64_t *words, size_t n, uint64_t mark)
{
    words[0] = n;
    words[1] = words[n / 2] = words[n - 1] = mark;
}

static long bad_block(const uint64_t *words)
{
    uint64_t n = words[0];
    return n < GEMS_ARENA_LEAST / 8 || words[1] != words[n / 2] || words[1] != words[n - 1];
}

static void give_marked(uint64_t *words)
{
    if (words)
        arena_wrong += bad_block(words) || !gems_arena_give(words);
}

/* Moves a block there and back, with a word written while it is hidden. */
static void hide_and_show(uint64_t *words)
{
    gems_block *block = gems_arena_find((char *)words + words[0]);
    if (!block || !gems_block_hide(block))
        return;
    uint64_t *hidden = (uint64_t *)gems_block_shadow(block);
    arena_wrong += bad_block(hidden);
    mark_block(hidden, hidden[0], hidden[1] + 1);
    arena_wrong += !gems_block_show(block) || !gems_block_protect(block) || bad_block(words) || !gems_block_show(block);
}

static void *use_arena(void *arg)
{
    unsigned state = (unsigned)(uintptr_t)arg;
    for (unsigned round = 0; round < 3000; round++) {
        size_t n = GEMS_ARENA_LEAST + (size_t)rand_r(&state) % ((size_t)(round % 50 == 0 ? 6 << 20 : 300 << 10));
        bool hidden = rand_r(&state) % 4 == 0;
        uint64_t *words = gems_arena_take(n, hidden);
        if (!words) /* no more mappings, which is no error */
            continue;
        if (hidden) {
            gems_block *block = gems_arena_find(words);
            mark_block((uint64_t *)gems_block_shadow(block), n / 8, round);
            if (round % 3 == 0) { /* it dies hidden */
                arena_wrong += !gems_arena_give(words);
                continue;
            }
            arena_wrong += !gems_block_show(block) || bad_block(words);
        }
        mark_block(words, n / 8, round);
        if (round % 7 == 0)
            hide_and_show(words);
        give_marked(atomic_exchange(&arena_shelf[(unsigned)rand_r(&state) % ARENA_SHELF], words));
        if (round % 500 == 499)
            gems_arena_trim();
    }
    return NULL;
}

/* How many things went wrong. */
static long use_arena_in_threads(void)
{
    pthread_t thread[ARENA_THREADS];
    for (uintptr_t i = 0; i < ARENA_THREADS; i++)
        pthread_create(&thread[i], NULL, use_arena, (void *)(i + 1));
    for (int i = 0; i < ARENA_THREADS; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < ARENA_SHELF; i++)
        give_marked(atomic_exchange(&arena_shelf[i], NULL));
    gems_arena_counts counts;
    gems_arena_count(&counts);
    return arena_wrong + (counts.live_bytes != 0) + (counts.taken < 1000);
}

#endif
