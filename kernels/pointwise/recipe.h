/* What a pointwise work is made of: expressions over operands, whatever operators they stand for. It stands in the work
 * (gems_work.recipe) and becomes a kernel only when the work is run, so that until then works can be merged. The
 * pointwise family fills it from a row; families with views of their own (views.c) fill it themselves. */
#ifndef GEMS_POINTWISE_RECIPE_H
#define GEMS_POINTWISE_RECIPE_H

#include "codegen/pointwise.h"
#include "kernels/family.h"
#include "kernels/tensor/collapse.h"
#include "kernels/tensor/element.h"
#include "kernels/work/work.h"

typedef struct pw_in {
    int32_t operand; /* of the work; -1: by value */
    gems_strides stride;
    gems_element number;
} pw_in;

typedef struct pw_recipe {
    gems_shape shape;              /* of at least one element; operands are broadcast to it */
    const char *name;              /* of the kernel, for people: a constant */
    bool cpu;                      /* variant */
    bool tables;                   /* short loops may be walked as one, by tables */
    bool nothing;                  /* its kernel is only to be built: it is launched, and touches no element */
    bool end;                      /* another family's call ends it (end.h) */
    uint64_t end_id;               /* tells their kernels apart */
    int64_t vec, run, group, tile; /* parameters; 0: found from sizes and device */
    uint32_t operands, steps;      /* as many as there is room for */
    gems_pw_spec spec;             /* loop, vec, wide, rank and the operands' strides are chosen when it is run */
} pw_recipe;

/* An empty recipe in the work, for these sizes and at most so many operands and steps, which is run as the rule says
 * (NULL: as suits the device). NULL: see the work's trouble. */
pw_recipe *pw_recipe_new(gems_work *work, const gems_shape *shape, const char *name, const struct gems_rule *rule,
                         unsigned operands, unsigned steps);
/* The same for what one call needs. */
static inline pw_recipe *pw_recipe_for(gems_work *work, const gems_shape *of, const gems_call *call)
{
    return pw_recipe_new(work, of, call->op->strukt, call->rule, GEMS_EXPR_RESULTS + GEMS_EXPR_NAMES, 2);
}
/* Where the operands are, as spec.operand. */
static inline pw_in *pw_recipe_in(pw_recipe *r)
{
    return (pw_in *)(void *)&r->spec.step[r->steps];
}
/* Adds the operand that only the family at the chain's end sees (GEMS_PW_PRODUCE); the first one. */
int pw_recipe_produced(pw_recipe *r, gems_dtype dtype);
/* Adds an operand in memory, or by value; its index, or -1 if there are too many. Operands that are written come first.
 */
int pw_recipe_memory(gems_work *work, pw_recipe *r, const gems_tensor *tensor, gems_pw_place place);
int pw_recipe_value(pw_recipe *r, gems_dtype dtype, gems_element number);
/* The operand, which was added to be written, is read as well. */
void pw_recipe_update(gems_work *work, pw_recipe *r, int operand);
/* The recipe is whole: whether the device can run it. */
gems_status pw_recipe_end(gems_call *call, gems_work *work, pw_recipe *r);
/* Chooses the loops, so that the spec is that of the kernel. False: see the work's trouble. */
bool pw_recipe_choose(gems_work *work);
/* Elements that a kernel of a CPU visits in one loop, of loops that are walked with tables. */
int64_t pw_row_length(const gems_loops *loops);

/* A kernel's sizes: eight int or long, or one. */
typedef union pw_sizes {
    int32_t i[8];
    int64_t l[8];
} pw_sizes;

typedef int32_t pw_tables[GEMS_OPERANDS][GEMS_PW_ROW]; /* of operands in memory, by their position among them */

/* Chooses the loops, and writes the arguments that PRODUCER_PARAMETERS wants, but for the last one; their number, or
 * -1: see the work's trouble. They point to what is given. */
enum {
    PW_PRODUCER_ARGS = 3 * GEMS_OPERANDS + 1
};
int pw_recipe_producer(gems_work *work, gems_arg *args, pw_sizes *sizes, pw_tables tables);
/* Makes it a work that does nothing but have its kernels built. */
void pw_recipe_nothing(gems_work *work);
/* The recipe of a pointwise work. */
static inline pw_recipe *pw_recipe_of(gems_work *work)
{
    return (pw_recipe *)(void *)(work->bytes + work->recipe);
}

extern const gems_variant pw_variants[];

#endif
