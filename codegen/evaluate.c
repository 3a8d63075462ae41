/* Runs the loops that a spec has become (compile.c). */
#include "codegen/evaluator.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_BYTES = 4096, /* of an array of the widest type: a few arrays fit a processor's first cache */
    CHUNK_LEAST = 256,
    CHUNK_MOST = 1024,
    ALIGNMENT = 64
};

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Where the loops stand. */
typedef struct place {
    int64_t at[GEMS_DIMS];
} place;

#define COPY(T)                                                                                                        \
    static void copy_##T(T *to, int64_t to_stride, const T *from, int64_t from_stride, int64_t n)                      \
    {                                                                                                                  \
        for (int64_t i = 0; i < n; i++)                                                                                \
            to[i * to_stride] = from[i * from_stride];                                                                 \
    }
COPY(uint8_t)
COPY(uint16_t)
COPY(uint32_t)
COPY(uint64_t)

static void copy(unsigned bytes, char *to, int64_t to_stride, const char *from, int64_t from_stride, int64_t n)
{
    if (to_stride == 1 && from_stride == 1)
        memcpy(to, from, (size_t)n * bytes);
    else if (bytes == 1)
        copy_uint8_t((uint8_t *)to, to_stride, (const uint8_t *)from, from_stride, n);
    else if (bytes == 2)
        copy_uint16_t((uint16_t *)(void *)to, to_stride, (const uint16_t *)(const void *)from, from_stride, n);
    else if (bytes == 4)
        copy_uint32_t((uint32_t *)(void *)to, to_stride, (const uint32_t *)(const void *)from, from_stride, n);
    else
        copy_uint64_t((uint64_t *)(void *)to, to_stride, (const uint64_t *)(const void *)from, from_stride, n);
}

/* The element of an operand at that place. */
static char *element(const evaluator *e, unsigned i, const place *p)
{
    int64_t offset = 0;
    for (int d = 0; d < e->rank; d++)
        offset += p->at[d] * e->memory[i].stride[d];
    return (char *)e->memory[i].address + offset * gems_dtypes[e->spec->operand[i].dtype].size;
}

/* n elements further, no more than the row has if n is larger than what is left of it. */
static void advance(const evaluator *e, place *p, int64_t n)
{
    p->at[0] += n;
    for (int d = 0; d + 1 < e->rank && p->at[d] == e->size[d]; d++) {
        p->at[d] = 0;
        p->at[d + 1]++;
    }
}

/* n elements of an operand from or to an array, row after row. */
static void move(const evaluator *e, unsigned i, place p, char *array, int64_t n, bool out)
{
    unsigned bytes = gems_dtypes[e->spec->operand[i].dtype].size;
    int64_t stride = e->memory[i].stride[0];
    while (n > 0) {
        int64_t left = e->size[0] - p.at[0], some = left < n ? left : n;
        char *memory = element(e, i, &p);
        if (out)
            copy(bytes, memory, stride, array, 1, some);
        else
            copy(bytes, array, 1, memory, stride, some);
        array += some * bytes;
        n -= some;
        advance(e, &p, some);
    }
}

/* Can the loops use the operand's memory itself? across: chunks go on from row to row. */
static bool is_direct(const evaluator *e, unsigned i, bool across)
{
    int64_t dense = 1;
    for (int d = 0; d < (across ? e->rank : 1); d++) {
        if (e->size[d] > 1 && e->memory[i].stride[d] != dense)
            return false;
        dense *= e->size[d];
    }
    return (uintptr_t)e->memory[i].address % gems_dtypes[e->spec->operand[i].dtype].size == 0;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Elements of a chunk: rows are cut into equal pieces; short ones are put together. */
static int64_t choose_chunk(const evaluator *e, bool *across)
{
    int64_t chunk = CHUNK_BYTES / (e->widest ? e->widest : 1);
    chunk = chunk > CHUNK_MOST ? CHUNK_MOST : most(chunk, CHUNK_LEAST);
    *across = e->rank > 1 && e->size[0] < chunk / 2;
    if (*across || e->size[0] <= 0)
        return chunk;
    int64_t pieces = (e->size[0] + chunk - 1) / chunk, piece = (e->size[0] + pieces - 1) / pieces;
    return e->rank == 1 ? chunk : most((piece + 15) & ~INT64_C(15), 16);
}

static void run_chunk(evaluator *e, void **pointer, char *const *staged, const place *p, int64_t n)
{
    unsigned noperands = e->spec->noperands;
    for (unsigned i = 0; i < noperands; i++) {
        const operand *o = &e->operand[i];
        char *memory = o->read || o->written ? element(e, i, p) : NULL;
        if (o->read && !o->direct)
            move(e, i, *p, staged[i], n, false);
        pointer[i] = o->direct ? memory : staged[i];
        pointer[TARGETS + i] = o->direct ? memory : staged[noperands + i];
    }
    for (unsigned k = 0; k < e->ncode; k++) {
        const instruction *c = &e->code[k];
        c->loop(pointer[c->to], pointer[c->a], pointer[c->b], pointer[c->c], (size_t)n);
    }
    for (unsigned i = 0; i < noperands; i++)
        if (e->operand[i].written && !e->operand[i].direct)
            move(e, i, *p, staged[noperands + i], n, true);
}

static bool run(evaluator *e, int64_t first, int64_t last)
{
    unsigned noperands = e->spec->noperands, nstaged = 0;
    bool across;
    int64_t chunk = choose_chunk(e, &across);
    for (unsigned i = 0; i < noperands; i++) {
        operand *o = &e->operand[i];
        o->direct = (o->read || o->written) && is_direct(e, i, across);
        nstaged += o->direct ? 0 : (unsigned)o->read + o->written;
    }
    size_t array = ((size_t)chunk * e->widest + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    size_t pointers = (e->nslots + 2 * noperands) * sizeof(void *);
    char *block = malloc(pointers + (e->narrays + nstaged) * array + ALIGNMENT);
    if (!block)
        return false;
    void **pointer = (void **)(void *)block;
    char **staged = (char **)(void *)(pointer + e->nslots);
    char *next = block + pointers;
    next += (uintptr_t)(-(intptr_t)next) & (ALIGNMENT - 1);
    for (unsigned i = SLOTS; i < e->nslots; i++) {
        pointer[i] = e->slot[i].one ? (void *)&e->slot[i].number : next;
        next += e->slot[i].one ? 0 : array;
    }
    for (unsigned i = 0; i < 2 * noperands; i++) {
        const operand *o = &e->operand[i % noperands];
        staged[i] = next;
        next += !o->direct && (i < noperands ? o->read : o->written) ? array : 0;
    }
    place p = {{0}};
    int64_t left = first;
    for (int d = 0; d < e->rank; d++) {
        p.at[d] = d + 1 < e->rank ? left % e->size[d] : left;
        left /= e->size[d];
    }
    while (first < last) {
        int64_t n = last - first < chunk ? last - first : chunk, row = e->size[0] - p.at[0];
        if (!across && e->rank > 1 && n > row)
            n = row;
        run_chunk(e, pointer, staged, &p, n);
        first += n;
        for (int64_t some; n > 0; n -= some) {
            row = e->size[0] - p.at[0];
            some = n < row ? n : row;
            advance(e, &p, some);
        }
    }
    free(block);
    return true;
}

/* ---- the processor's loops --------------------------------------------------------------------------------------- */

static _Atomic(const gems_host_math *) math_wanted;

void gems_pw_evaluate_with(const struct gems_host_math *math)
{
    atomic_store_explicit(&math_wanted, math, memory_order_relaxed);
}

static const gems_host_math *choose_math(void)
{
    const gems_host_math *math = atomic_load_explicit(&math_wanted, memory_order_relaxed);
    if (math)
        return math;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &gems_host_math_v4;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        return &gems_host_math_v3;
#endif
    return &gems_host_math_any;
}

bool gems_pw_evaluate(const gems_pw_spec *spec, int rank, const int64_t *size, const gems_pw_memory *memory,
                      int64_t first, int64_t last)
{
    bool ok = false;
    if (rank < 1 || rank > GEMS_DIMS)
        return false;
    evaluator *e = calloc(1, sizeof *e + spec->noperands * sizeof *e->operand +
                                 (size_t)spec->nsteps * GEMS_EXPR_RESULTS * sizeof *e->result);
    if (!e)
        return false;
    e->spec = spec;
    e->math = choose_math();
    e->memory = memory;
    e->rank = rank;
    e->size = size;
    e->operand = (operand *)(void *)(e + 1);
    e->result = (result *)(void *)(e->operand + spec->noperands);
    if (first < last)
        ok = gems_evaluator_compile(e) && run(e, first, last);
    free(e->code);
    free(e->slot);
    free(e->free);
    free(e);
    return ok || first >= last;
}
