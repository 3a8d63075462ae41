/* The expressions of rows: a small language over an operator's parameters, checked once and written out as OpenCL C as
 * often as needed.
 *
 *   program    statement; statement; ...      every statement without a name is a result, in order
 *   statement  [name =] expression            the name may be used further on
 *   expression as in C: ?: || && | ^ & == != < <= > >= << >> + - * / % unary - ! ~, casts (int) (long) (float) (T) (D),
 *              calls of functions of kernels/math.cl ("erf" calls gems_erf), and
 *   has(name)          whether an optional parameter is given         } known before code is
 *   one(name)          whether it is a number or a tensor of one      } written: the branch of
 *   is(name, "text")   whether a string parameter is that text        } ?: that is not taken
 *   is(name, number)   whether a number or bool has that value        } does not appear
 *   inf nan            of the type computed with
 *   dtype_max dtype_lowest   largest and smallest finite value of the common dtype
 *   half               1 if the common dtype is f16, else 0
 *
 * T is the type computed with; a literal such as 0.5 has it too. (D) rounds to the common dtype, which is a change
 * where that is f16 or bf16. */
#ifndef GEMS_EXPR_H
#define GEMS_EXPR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GEMS_EXPR_NAMES   12 /* parameters that one expression uses */
#define GEMS_EXPR_FACTS   16
#define GEMS_EXPR_RESULTS 4

typedef struct gems_expr gems_expr; /* immutable once parsed */

typedef struct gems_expr_error {
    size_t at; /* offset into the text */
    char text[120];
} gems_expr_error;

/* names: the parameters that may be used. functions: OpenCL C text in which each function called must be defined (NULL:
 * any name may be called). NULL and *error filled if the text is wrong. */
gems_expr *gems_expr_parse(const char *text, const char *const *names, unsigned n, const char *functions,
                           gems_expr_error *error);
void gems_expr_free(gems_expr *expr);

unsigned gems_expr_result_count(const gems_expr *expr);
/* The same for all expressions of one text, which are written alike. */
const gems_expr *gems_expr_first(const gems_expr *expr);

/* The parameters used, in the order of `names` given to gems_expr_parse; their index there. */
unsigned gems_expr_name_count(const gems_expr *expr);
unsigned gems_expr_name_param(const gems_expr *expr, unsigned i);

/* A question has(), one() or is() that the caller answers for each call: bit i of `facts`. */
typedef struct gems_expr_fact {
    uint8_t name;     /* index among the expression's names */
    char kind;        /* 'h' has, 'o' one, 's' is a text, 'n' is a number */
    const char *text; /* for 's': not NUL-terminated */
    size_t length;
    double number;
} gems_expr_fact;
unsigned gems_expr_fact_count(const gems_expr *expr);
const gems_expr_fact *gems_expr_fact_at(const gems_expr *expr, unsigned i);
/* Whether the code calls a function of which kernels/math.cl has a quick one, given the facts and T: gems_quick_sin(x,
 * &odd) is gems_sin(x) wherever that is usual, and sets odd elsewhere. */
bool gems_expr_has_quick(const gems_expr *expr, uint32_t facts, const char *type);
/* Whether result r is always one of the `names` (bit i: name i) or its negative, or what every floating dtype holds:
 * such as abs, maximum, and ?: between them. */
bool gems_expr_only_picks(const gems_expr *expr, uint32_t facts, unsigned r, uint32_t names);
/* Names whose values appear in the code, given the facts: bit i for name i. */
uint32_t gems_expr_needs(const gems_expr *expr, uint32_t facts);

/* Growing text; `failed` if memory ran out. Free s. */
typedef struct gems_code {
    char *s;
    size_t n, capacity;
    bool failed;
} gems_code;
void gems_code_add(gems_code *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Writes one line a statement. variables[i]: what stands for name i. prefix: put before the names of statements;
 * results are named <prefix>r0, <prefix>r1, ... float_suffix: "f" where T is float. dtype: for dtype_max ("f16"). */
typedef struct gems_expr_style {
    const char *const *variables;
    const char *prefix, *type, *float_suffix, *dtype, *indent;
    uint32_t facts;
    const char
        *quotient; /* what divides, of two operands, if not quite exactly; NULL: the operator, as where steps follow */
    const char *odd; /* call the quick function where there is one, with this address; NULL: the function itself */
} gems_expr_style;
void gems_expr_write(const gems_expr *expr, const gems_expr_style *style, gems_code *out);

#endif
