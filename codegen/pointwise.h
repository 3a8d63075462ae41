/* Writes the OpenCL C of one pointwise kernel: one or several expressions over operands of given dtypes, visited in
 * given loops. Called by the pointwise family; nothing here knows the host or OpenCL's API.
 *
 * The kernel's parameters, in order:
 *   the memory of every operand that has some (GEMS_BUFFER), then the value of every operand by value, of the type that
 *   arithmetic uses (gems_dtypes[].compute of its dtype), both in the order of the operands; then by loop nest:
 *
 *     RUN   long n, long run                           work-item i does elements i * run to min(n, (i + 1) * run)
 *     VEC   long n                                     grid-stride over vectors; the rest one by one
 *     ROWS  size8 sizes, size8 strides of each operand in memory, size rows, size run, size chunks, size deep
 *                                                      work-item i: chunk i % chunks, of `run` elements of dimension 0,
 *                                                      of rows (i / chunks) * deep and the `deep` - 1 after it
 *     GRID  size8 sizes, size8 strides of each operand in memory, size n      grid-stride over elements, or vectors
 *     TILE  as GRID, with size tiles instead of n      work-group i of 256: tile i of the first two loops, `vec` by
 * `vec` elements, and one place in the others where size is int, or long if `wide`; after the strides stands an
 * int[GEMS_PW_ROW] for each operand with a table. RUN and ROWS want work-groups of one item. In a TILE operands that
 * are TURNED go through local memory: they are dense along dimension 1.
 *
 * PRODUCE is no kernel but a part of one, which does something else with the values (a reduction): operand 0 alone is
 * written, and is no parameter. The text defines
 *   PRODUCER_PARAMETERS         of the kernel, as for ROWS without the last four, and int nothing: not 0 if it only is
 *                               to be built
 *   PRODUCER_OPEN               to stand at the kernel's begin
 *   PRODUCE(start, count, to)   elements `start` to start + count - 1, dimension 0 fastest, to to[0], to[1], ... */
#ifndef GEMS_POINTWISE_H
#define GEMS_POINTWISE_H

#include "kernels/tensor/collapse.h"
#include "codegen/expr.h"
#include "kernels/call.h"

#define GEMS_PW_STEPS 48
#define GEMS_PW_ROW   64 /* elements of a table */

typedef enum gems_pw_loop {
    GEMS_PW_RUN,
    GEMS_PW_VEC,
    GEMS_PW_ROWS,
    GEMS_PW_GRID,
    GEMS_PW_TILE,
    GEMS_PW_PRODUCE
} gems_pw_loop;

typedef enum gems_pw_place {
    GEMS_PW_VALUE,  /* passed by value, already in its dtype's compute type */
    GEMS_PW_READ,   /* memory */
    GEMS_PW_WRITE,  /* memory */
    GEMS_PW_UPDATE, /* memory, read and written element by element: in-place */
} gems_pw_place;

typedef enum gems_pw_stride {
    GEMS_PW_BROADCAST,
    GEMS_PW_UNIT,
    GEMS_PW_STRIDED,
    GEMS_PW_TABLE, /* ROWS, PRODUCE: where element i of dimension 0 is stands in a table */
    GEMS_PW_TURNED /* TILE */
} gems_pw_stride;

typedef struct gems_pw_operand {
    uint8_t dtype;  /* gems_dtype; of a value: the dtype whose compute type it has */
    uint8_t place;  /* gems_pw_place */
    uint8_t stride; /* gems_pw_stride, of dimension 0 */
    uint8_t pad;
} gems_pw_operand;

/* What a name of an expression stands for. */
typedef struct gems_pw_bind {
    uint8_t step;  /* 0: an operand; k: a result of step k - 1 */
    uint8_t index; /* operand, or which result of that step */
    /* Converted to this dtype before use, rounded if it cannot hold the value; what is passed by value is taken as it
     * is.
     */
    uint8_t dtype;
    uint8_t held; /* what is passed by value is a value of that dtype */
} gems_pw_bind;

#define GEMS_PW_UNSTORED 255

/* One expression. */
typedef struct gems_pw_step {
    const gems_expr *expr; /* gems_expr_first */
    uint32_t facts;
    uint8_t compute; /* gems_dtype */
    uint8_t nresults;
    uint8_t result[GEMS_EXPR_RESULTS]; /* gems_dtype of each result */
    uint8_t store[GEMS_EXPR_RESULTS];  /* operand that takes it, or GEMS_PW_UNSTORED */
    uint8_t pad[6];
    gems_pw_bind bind[GEMS_EXPR_NAMES]; /* by the expression's names */
} gems_pw_step;

/* All that a kernel's text is made of. Start from zero bytes: those in use identify the kernel. */
typedef struct gems_pw_spec {
    uint8_t loop; /* gems_pw_loop */
    uint8_t vec;  /* elements of a vector (VEC; GRID, 0: no vectors), along an edge (TILE) */
    uint8_t wide;
    uint8_t rank;
    uint8_t noperands, nsteps;
    uint8_t pad[2];
    gems_pw_operand operand[GEMS_OPERANDS];
    gems_pw_step step[]; /* at most GEMS_PW_STEPS */
} gems_pw_spec;

/* Bytes of a spec that are in use, from its start. */
static inline size_t gems_pw_spec_bytes(const gems_pw_spec *spec)
{
    return offsetof(gems_pw_spec, step) + spec->nsteps * sizeof *spec->step;
}
/* Can every value of dtype `from` be held by `to` without rounding, as far as converting the compute types shows it? */
bool gems_pw_holds(unsigned to, unsigned from);
/* The source, to be compiled after kernels/math.cl; entry: `name`. NULL if memory ran out, or a step names what is not
 * there. Free it. */
char *gems_pw_source(const gems_pw_spec *spec, const char *name);

#endif
