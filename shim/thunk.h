/* The contract between generated thunks (build/gen/thunks.c) and the shim. Every interposed symbol is a thunk:
 *
 *   void *at_ops_add_Tensor_call(void *ret, const void *self, const void *other, const void *alpha)
 *   {
 *       struct gems_slot *s = &gems_slots[N];
 *       if (unlikely(gems_work2(self, other) >= s->min_work) && slow(...)) return ret;
 *       return ((fn)s->original[GEMS_ENTRY_CALL])(ret, self, other, alpha);
 *   }
 *
 * The slow half puts the address of each argument (of the object itself for what is passed by reference) into an array
 * in schema order and calls gems_enter. */
#ifndef GEMS_THUNK_H
#define GEMS_THUNK_H

#include <stdbool.h>
#include <stdint.h>

enum gems_entry { GEMS_ENTRY_CALL, GEMS_ENTRY_REDISPATCH, GEMS_ENTRY_AOTI, GEMS_ENTRY_COUNT };

struct gems_slot {
    int64_t min_work; /* gate: INT64_MAX never enters, INT64_MIN always does (start-up, logging, checking) */
    void *original[GEMS_ENTRY_COUNT]; /* the host's own functions */
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

/* Tries to run the call on the device. raw[i]: address of the i-th argument in the host's layout (for AOTI: in the C
 * shim's). ret: the hidden result address, or NULL where the function returns a reference, bool or nothing; for AOTI
 * the address of the first AtenTensorHandle result pointer array. ks: dispatch key set (redispatch only).
 * True: done, the results are in place. False: call the original, which is resolved by now. */
bool gems_enter(unsigned op, enum gems_entry entry, uint64_t ks, void *ret, void **raw);

#endif
