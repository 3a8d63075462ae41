/* The host's C++ argument types as C sees them (Linux x86-64, libstdc++): what is passed by value, and what stands
 * behind an address. Used by the generated thunks, to receive arguments, and by shim/, to read them through `raw`.
 *
 * How each is passed was checked by calling stand-ins with the exact mangled names from C. A C struct of the same size
 * and alignment travels as the trivially copyable C++ type does. Nothing here may be used outside shim/. */
#ifndef GEMS_ABI_H
#define GEMS_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* By value. */
struct gems_abi_list { /* c10::ArrayRef<T>; a c10::SymInt in it is the integer itself if it is >= -2^62 */
    const void *data;
    size_t n;
};
struct gems_abi_opt_list { /* c10::OptionalArrayRef<T>, std::optional<c10::ArrayRef<T>> */
    const void *data;
    size_t n;
    bool has;
};
struct gems_abi_str { /* std::string_view: length first, not NUL-terminated */
    size_t n;
    const char *s;
};
struct gems_abi_opt_str { /* std::optional<std::string_view> */
    size_t n;
    const char *s;
    bool has;
};
struct gems_abi_opt_int { /* std::optional<int64_t>; behind an address also std::optional<c10::SymInt> */
    int64_t v;
    bool has;
};
struct gems_abi_opt_float { /* std::optional<double> */
    double v;
    bool has;
};
struct gems_abi_opt_i8 { /* std::optional<c10::ScalarType>, <c10::Layout>, <c10::MemoryFormat> */
    int8_t v;
    bool has;
};
struct gems_abi_opt_bool { /* std::optional<bool> */
    bool v, has;
};
struct gems_abi_opt_device { /* std::optional<c10::Device>; index -1: the current one */
    int8_t type, index;
    bool has;
};
struct gems_abi_bools2 { /* std::array<bool, 2> */
    bool v[2];
};
struct gems_abi_bools3 { /* std::array<bool, 3> */
    bool v[3];
};
struct gems_abi_bools4 { /* std::array<bool, 4> */
    bool v[4];
};

/* Behind an address. */
struct gems_abi_opt_tensor { /* std::optional<at::Tensor>; `impl` is an at::Tensor if `has` */
    void *impl;
    bool has;
};
struct gems_abi_scalar { /* c10::Scalar; the numbers of the tags are calibrated */
    int32_t tag;
    _Alignas(16) union {
        double f;
        int64_t i; /* also bool */
        void *p;
    };
};
struct gems_abi_opt_scalar { /* std::optional<c10::Scalar> */
    struct gems_abi_scalar v;
    bool has;
};
struct gems_abi_ilist { /* c10::IListRef<at::Tensor>: tag 0 is a gems_abi_list of tensors, others are boxed */
    struct gems_abi_list list;
    int32_t tag;
};

/* The C shim (aoti_torch_cpu_*): what a thunk builds from several C arguments that stand for one of the schema. */
struct gems_aoti_list { /* pointer and length */
    const void *data;
    int64_t n;
};
struct gems_aoti_device { /* type and index */
    int32_t type, index;
};

_Static_assert(sizeof(struct gems_abi_opt_list) == 24 && sizeof(struct gems_abi_opt_str) == 24, "layout");
_Static_assert(sizeof(struct gems_abi_opt_device) == 3 && sizeof(struct gems_abi_opt_i8) == 2, "layout");
_Static_assert(sizeof(struct gems_abi_scalar) == 32 && sizeof(struct gems_abi_opt_scalar) == 48, "layout");
_Static_assert(sizeof(struct gems_abi_ilist) == 24 && sizeof(struct gems_abi_opt_tensor) == 16, "layout");

#endif
