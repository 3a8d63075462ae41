/* The contract between generated thunks (build/gen/thunks.c) and the shim. Every interposed symbol is a thunk:
 *
 *   void *at_ops_add_Tensor_call(void *ret_, const void *self, const void *other, const void *alpha)
 *   {
 *       if (gems_larger(gems_numel(self), gems_numel(other)) >= gems_min_numel(N))
 *           return at_ops_add_Tensor_call_slow(ret_, self, other, alpha);
 *       return ((fn)gems_original(N, GEMS_ENTRY_CALL))(ret_, self, other, alpha);
 *   }
 *
 * The slow half puts the address of each argument into an array in schema order and calls gems_enter; if that declines,
 * it too calls the original. What the gate compares is the number of elements of the largest tensor that is read (`out`
 * does not count), of two of a pointwise operator that of the result if that may be enough (gems_spread); with a list
 * of tensors, or none, INT64_MAX - 1. */
#ifndef GEMS_THUNK_H
#define GEMS_THUNK_H

#include "shim/abi.h"

#pragma GCC visibility push(hidden) /* reached without the GOT */

enum gems_entry {
    GEMS_ENTRY_CALL,
    GEMS_ENTRY_REDISPATCH,
    GEMS_ENTRY_AOTI,
    GEMS_ENTRY_COUNT
};

struct gems_slot {
    int64_t min_numel; /* gate: INT64_MAX never enters, INT64_MIN always does (start-up, logging, checking) */
    void *original[GEMS_ENTRY_COUNT]; /* the host's own functions */
    bool replaced;                    /* the program has registered a kernel of its own (shim/library.c) */
};
extern struct gems_slot gems_slots[];
/* Mangled names to interpose, per operator and entry; NULL where there is none. */
extern const char *const gems_symbols[][GEMS_ENTRY_COUNT];

/* Offset of numel in the host's TensorImpl, calibrated at start-up. */
extern int64_t gems_numel_offset;
/* Number of elements of an at::Tensor. */
static inline int64_t gems_numel(const void *tensor)
{
    return *(const int64_t *)(*(const char *const *)tensor + gems_numel_offset);
}

static inline int64_t gems_larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}
/* Elements of the two tensors broadcast to each other, at most five dimensions; 0 if that is not known. */
int64_t gems_broadcast(const void *a, const void *b);
/* The same where it may reach `least` though neither tensor does, else those of the larger one. */
static inline int64_t gems_spread(const void *a, const void *b, int64_t least)
{
    int64_t na = gems_numel(a), nb = gems_numel(b), most, n = gems_larger(na, nb);
    if (__builtin_expect(n >= least || (!__builtin_mul_overflow(na, nb, &most) && most < least), 1))
        return n;
    return gems_broadcast(a, b);
}
/* An optional tensor that is absent has no elements. */
static inline int64_t gems_numel_opt(const void *opt)
{
    return ((const struct gems_abi_opt_tensor *)opt)->has ? gems_numel(opt) : 0;
}
/* The C shim's optional tensor: NULL, or the address of a handle. */
static inline int64_t gems_numel_handle(void *const *handle)
{
    return handle && *handle ? gems_numel(*handle) : 0;
}

/* Start-up stores the originals first, then min_numel with release. */
static inline int64_t gems_min_numel(unsigned op)
{
    return __atomic_load_n(&gems_slots[op].min_numel, __ATOMIC_ACQUIRE);
}
static inline void *gems_original(unsigned op, enum gems_entry entry)
{
    return __atomic_load_n(&gems_slots[op].original[entry], __ATOMIC_RELAXED);
}

enum gems_entered {
    GEMS_ENTERED_HOST,   /* call the original, which is resolved by now */
    GEMS_ENTERED_DONE,   /* the results are in place */
    GEMS_ENTERED_COMPARE /* GEMS_CHECK: call the original, then gems_leave, which compares its results with ours */
};

/* Tries to run the call on the device.
 *
 * raw[i] of CALL and REDISPATCH: address of the i-th argument in the host's layout (shim/abi.h): of the object itself
 * for what is passed by reference or by invisible reference, of the thunk's own copy for what is passed by value.
 *
 * raw[i] of AOTI, also in schema order (`out` is last, though the C function has it first):
 *   Tensor             AtenTensorHandle *
 *   int, SymInt        int64_t *
 *   float, Scalar      double *
 *   bool, ScalarType, Layout, MemoryFormat   int32_t *
 *   str                const char ** (NUL-terminated)
 *   any of these with ?   the same, or NULL if absent (for Tensor? also a pointer to a NULL handle is possible)
 *   T[]                struct gems_aoti_list *, elements as above (Tensor: handles; bool: int32_t); with ?: or NULL
 *   Tensor?[]          struct gems_aoti_list *, elements are `const AtenTensorHandle *`, NULL if absent
 *   Device?            struct gems_aoti_device *, or NULL
 *
 * ret: the hidden result address; for a function that returns bool or int the address of a local of that type (bool,
 * int64_t); NULL where it returns a reference or nothing. For AOTI: the address of an array of `AtenTensorHandle *`,
 * one a result, or NULL for in-place and out operators.
 *
 * ks: dispatch key set (redispatch only, else 0). */
enum gems_entered gems_enter(unsigned op, enum gems_entry entry, uint64_t ks, void *ret, void **raw);
/* After GEMS_ENTERED_COMPARE. The original has returned without an error and left its results at `ret`: compares them.
 * Always GEMS_ENTERED_HOST, for nothing is left to do. */
enum gems_entered gems_leave(enum gems_entry entry, void *ret);
/* The original has raised an error. */
void gems_thrown(void);

/* A local that holds what gems_enter said: an exception of the original may pass by. */
#define GEMS_UNWINDS __attribute__((cleanup(gems_unwind)))
static inline void gems_unwind(const enum gems_entered *entered)
{
    if (*entered == GEMS_ENTERED_COMPARE)
        gems_thrown();
}

#pragma GCC visibility pop

#endif
