/* The host: where PyTorch's library is, its functions that we use, and what start-up learnt of its objects.
 * Private to shim/. */
#ifndef GEMS_TORCH_H
#define GEMS_TORCH_H

#include "kernels/call.h"
#include "shim/thunk.h"

typedef struct host_tensor host_tensor; /* at::Tensor, as the C shim's AtenTensorHandle points to it */

/* PyTorch's own C shim (torch/csrc/inductor/aoti_torch/c/shim.h) and a few exported C++ functions. */
struct torch_api {
    int32_t (*get_sizes)(host_tensor *, int64_t **);
    int32_t (*get_strides)(host_tensor *, int64_t **);
    int32_t (*get_dim)(host_tensor *, int64_t *);
    int32_t (*get_dtype)(host_tensor *, int32_t *);
    int32_t (*get_data_ptr)(host_tensor *, void **);
    int32_t (*get_const_data_ptr)(host_tensor *, void **); /* where there is none: get_data_ptr */
    int32_t (*get_device_type)(host_tensor *, int32_t *);
    int32_t (*empty_strided)(int64_t, const int64_t *, const int64_t *, int32_t, int32_t, int32_t, host_tensor **);
    int32_t (*delete_tensor)(host_tensor *);
    int32_t (*new_handle)(host_tensor *, host_tensor **);
    bool (*grad_enabled)(void);
    int32_t (*device_cpu)(void);
    int32_t (*device_meta)(void);
    bool (*requires_grad)(const void *impl);                           /* c10::TensorImpl::requires_grad() const */
    void **(*fw_grad)(const void *impl, uint64_t level, const void *); /* c10::TensorImpl::_fw_grad */
    int8_t (*default_dtype)(void);                                     /* c10::get_default_dtype_as_scalartype() */
    int (*num_threads)(void);                                          /* at::get_num_threads(); NULL: there is none */
    bool (*has_callbacks)(void);                                       /* at::hasCallbacks(): a profiler is on */
    void *undefined;                                                   /* c10::UndefinedTensorImpl::_singleton */
};

/* Raw (relative to the default) included and excluded dispatch keys of a thread. */
struct torch_keys {
    uint64_t included, excluded;
};

struct torch {
    struct torch_api api;
    void *handle;                         /* libtorch_cpu.so */
    const char *path;                     /* its path */
    uintptr_t begin, end;                 /* where it lies in memory */
    int32_t dtype_code[GEMS_DTYPE_COUNT]; /* c10::ScalarType of each of our dtypes */
    gems_dtype dtype_of[64];              /* and back */
    int32_t complex64, complex128;        /* -1: this host does not tell */
    int32_t cpu;

    /* Calibrated. */
    bool ready;              /* calls can be judged */
    uint64_t plain;          /* key set of a redispatch to the dense CPU kernel after autograd */
    uint64_t plain_tensor;   /* key set of a plain tensor */
    uint64_t autograd;       /* bits that autograd adds: excluded below it */
    uint64_t adinplace;      /* the ADInplaceOrView bit */
    uint64_t names;          /* the bit excluded where names are ignored, or 0 */
    struct torch_keys below; /* thread state below autograd and ADInplaceOrView */
    int keyset_offset;       /* of key_set_ in TensorImpl */
    int sizes_offset;        /* of up to five sizes in TensorImpl, after their number; 0: not found */
    int wrapped_offset;      /* byte holding is_wrapped_number_ */
    uint8_t wrapped_mask;    /* its bit; 0: not found */
    const char *why;         /* if not ready: the reason, in words */
    unsigned missing;        /* interposed operators that this PyTorch does not export */
    char missing_names[160];
};

extern struct torch gems_torch;

/* Finds libtorch_cpu in the process: path, place, handle. False if it is not there. Once; also while it is being
 * loaded. */
bool gems_torch_open(void);
/* gems_torch_open, then resolves all originals. False if it is not there or lacks the C shim. */
bool gems_torch_find(void);
/* Learns key sets, offsets and flags by real calls in a fresh thread. */
void gems_torch_calibrate(void);
/* True in the thread that calibrates: its thunk calls are shown to gems_torch_observe and always fall through. */
bool gems_torch_calibrating(void);
void gems_torch_observe(unsigned op, enum gems_entry entry, uint64_t ks, void **raw);
/* Whether the program has registered a kernel of its own for an operator (torch.library, TORCH_LIBRARY_IMPL) which the
 * host would run for plain CPU tensors; for a composite: for any operator, since its parts are not known here. */
bool gems_torch_replaced(const gems_op *op);
/* The calling thread's keys. False if the host does not tell; it does if it is `ready`. */
bool gems_torch_thread_keys(struct torch_keys *out);

static inline void *host_impl(const void *tensor)
{
    return *(void *const *)tensor;
}
static inline uint64_t host_keyset(const void *tensor)
{
    return *(const uint64_t *)((const char *)host_impl(tensor) + gems_torch.keyset_offset);
}

#endif
