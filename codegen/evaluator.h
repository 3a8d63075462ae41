/* A spec as loops over arrays of a chunk of elements: compile.c writes them, evaluate.c runs them chunk after chunk.
 * Private to the two. */
#ifndef GEMS_EVALUATOR_H
#define GEMS_EVALUATOR_H

#include "codegen/evaluate.h"
#include "codegen/host_math.h"
#include "codegen/tree.h"

enum {
    TARGETS = 64, /* slots: operands as they are read, as they are written, then arrays and numbers */
    SLOTS = 128
};

typedef struct instruction {
    gems_host_loop *loop;
    uint16_t to, a, b, c; /* slots */
} instruction;

/* What a node or a name has become. */
typedef struct value {
    uint16_t slot;
    uint8_t type;  /* gems_host_type of the array */
    uint8_t ctype; /* gems_host_type in C */
    bool one;      /* one element, already known */
    bool boolean;  /* 0 or 1, as U8 */
    bool owned;    /* an array that is free again after the next use */
} value;

/* An array or a number. */
typedef struct slot {
    uint64_t number;
    bool one;
} slot;

typedef struct operand {
    value loaded;
    bool is_loaded;
    bool early;    /* loaded before anything is written: it is written, too */
    bool read;     /* by the loops, in each chunk */
    bool written;  /* by the loops */
    bool direct;   /* the loops use its memory itself */
    int last_step; /* that uses it; -1: none */
} operand;

typedef struct result {
    value value;
    int last_step;
} result;

typedef struct evaluator {
    const gems_pw_spec *spec;
    const gems_host_math *math;
    const gems_pw_memory *memory;
    const int64_t *size;
    int rank;
    bool failed;
    unsigned widest; /* bytes of an element */

    unsigned ncode, code_room, nslots, slot_room, nfree, free_room, narrays;
    instruction *code;
    slot *slot;
    uint16_t *free; /* arrays that are not in use */
    operand *operand;
    result *result; /* GEMS_EXPR_RESULTS of each step */

    /* Of the step that is being compiled. */
    const gems_pw_step *step;
    const gems_expr *expr;
    uint8_t type;                                       /* T */
    value name[GEMS_EXPR_NAMES];                        /* never owned */
    value kept[GEMS_EXPR_NAMES + GEMS_EXPR_STATEMENTS]; /* arrays to be freed after the step */
    unsigned nkept;
    value local[GEMS_EXPR_STATEMENTS]; /* never owned */
    uint8_t ctype[GEMS_EXPR_NODES];    /* 1 + gems_host_type, once known */
} evaluator;

/* Writes the loops for e->spec, once all that is given is set. False: memory ran out, or the spec names what is not
 * there. */
bool gems_evaluator_compile(evaluator *e);

#endif
