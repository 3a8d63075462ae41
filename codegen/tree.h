/* Expressions as they are parsed. Private to codegen. */
#ifndef GEMS_TREE_H
#define GEMS_TREE_H

#include "codegen/expr.h"

#define GEMS_EXPR_NODES      320
#define GEMS_EXPR_STATEMENTS 24

typedef enum gems_expr_kind {
    GEMS_EXPR_INT,
    GEMS_EXPR_FLOAT,
    GEMS_EXPR_NAME,   /* a: the name */
    GEMS_EXPR_LOCAL,  /* a: the statement */
    GEMS_EXPR_WORD,   /* a: gems_expr_word */
    GEMS_EXPR_CALL,   /* a: gems_host_call, or -1 if it is none; b: the first argument */
    GEMS_EXPR_ARG,    /* a: its value; b: the next one, or -1 */
    GEMS_EXPR_UNARY,  /* a */
    GEMS_EXPR_BINARY, /* a, b */
    GEMS_EXPR_COND,   /* a ? b : c */
    GEMS_EXPR_CAST,   /* a; b: gems_expr_type */
    GEMS_EXPR_FACT    /* a: the question */
} gems_expr_kind;

typedef enum gems_expr_word {
    GEMS_EXPR_INF,
    GEMS_EXPR_NAN,
    GEMS_EXPR_MOST,
    GEMS_EXPR_LEAST,
    GEMS_EXPR_HALF
} gems_expr_word;

typedef enum gems_expr_type {
    GEMS_EXPR_T,
    GEMS_EXPR_D,
    GEMS_EXPR_TO_INT,
    GEMS_EXPR_TO_UINT,
    GEMS_EXPR_TO_LONG,
    GEMS_EXPR_TO_ULONG,
    GEMS_EXPR_TO_FLOAT,
    GEMS_EXPR_TO_DOUBLE,
    GEMS_EXPR_TO_BOOL
} gems_expr_type;

/* a, b, c: indices of child nodes, or of what the node names. text: the operator, number or word. */
typedef struct gems_expr_node {
    uint8_t kind;
    uint8_t length;
    int16_t a, b, c;
    const char *text;
} gems_expr_node;

typedef struct gems_expr_statement {
    const char *name; /* NULL: a result */
    int length;
    int16_t root;
} gems_expr_statement;

struct gems_expr {
    char *text;
    const gems_expr *first; /* of all with this text */
    gems_expr *next;        /* if it is the first: the first of another text */
    unsigned nnodes, nstatements, nnames, nfacts, nresults;
    gems_expr_node nodes[GEMS_EXPR_NODES];
    gems_expr_statement statements[GEMS_EXPR_STATEMENTS];
    uint8_t param[GEMS_EXPR_NAMES];
    gems_expr_fact facts[GEMS_EXPR_FACTS];
};

/* What a condition made of facts alone comes to: 0, 1, or -1 if it depends on values. */
int gems_expr_known(const gems_expr *e, uint32_t facts, int i);

#endif
