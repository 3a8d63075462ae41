/* A set of operators, compiled from a list such as "add.Tensor, mul*, softmax": GEMS_EXCLUDE, GEMS_ONLY, the scopes of
 * gems.h, the rules of a table.
 *
 * An item is a name or a shell pattern (*, ?, [abc]), with or without "aten::" in front:
 *   add          every overload of add (add.Tensor, add.out, ...); the in-place add_ is a name of its own
 *   add.Tensor   that overload; an operator without overload is also called <name>.default, as in torch.ops
 *   mul*         every overload of every operator whose name begins with mul, so also mul_
 *   *.out        every operator with the overload out
 *   add_Tensor   the at::_ops struct */
#ifndef GEMS_OPSET_H
#define GEMS_OPSET_H

#include "kernels/call.h"

typedef struct gems_opset {
    uint64_t bits[1]; /* one bit an operator, by gems_op.index; as many words as gems_op_count needs */
} gems_opset;

/* Compiles a list; NULL stands for every operator. Items that name no operator are left out and written to `unknown`
 * (at most n bytes, separated by ", "; "" if there are none). NULL only if memory is out. Free with free(). */
gems_opset *gems_opset_compile(const char *list, char *unknown, size_t n);
/* Adds the operators that one item names (not NUL-terminated, no spaces around it). Their number. */
unsigned gems_opset_add(gems_opset *set, const char *item, size_t n);
gems_opset *gems_opset_new(void); /* empty */
void gems_opset_put(gems_opset *set, unsigned op, bool value);

static inline bool gems_opset_has(const gems_opset *set, unsigned op)
{
    return set->bits[op / 64] >> (op % 64) & 1;
}

#endif
