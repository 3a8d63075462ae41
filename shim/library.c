/* Programs can give PyTorch kernels of their own (torch.library in Python, TORCH_LIBRARY_IMPL in C++). All of them come
 * through torch::Library::_impl, which is interposed here to learn which operators are not the host's any more. */
#include "shim/torch.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>

/* std::optional<c10::DispatchKey>, at the start of a torch::CppFunction and inside a torch::Library. */
struct opt_key {
    uint16_t key;
    bool has;
};

/* std::optional<std::string> */
struct opt_string {
    const char *s;
    size_t n;
    char small[16];
    bool has;
};

struct library { /* the start of a torch::Library */
    uint32_t kind;
    struct opt_string ns;
    struct opt_key key;
};

static atomic_bool any; /* of those that composites of ours may be made of: they have kernels, too */

bool gems_torch_replaced(const gems_op *op)
{
    return op->composite ? atomic_load_explicit(&any, memory_order_relaxed)
                         : __atomic_load_n(&gems_slots[op->index].replaced, __ATOMIC_RELAXED);
}

/* Whether a kernel under this key takes the place of one that runs for plain CPU tensors. */
static bool serves_plain_tensors(struct opt_key key)
{
    static const char *const names[] = {"Undefined",
                                        "CPU",
                                        "Autograd",
                                        "AutogradCPU",
                                        "CompositeImplicitAutograd",
                                        "CompositeExplicitAutograd",
                                        "CompositeExplicitAutogradNonFunctional"};
    const char *(*name_of)(uint16_t);
    *(void **)&name_of = dlsym(gems_torch.handle, "_ZN3c108toStringENS_11DispatchKeyE");
    if (!key.has || !name_of)
        return true;
    const char *name = name_of(key.key);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static void note(const struct library *l, const char *name, const struct opt_key *key)
{
    if (!serves_plain_tensors(key->has ? *key : l->key))
        return;
    if (strncmp(name, "aten::", 6) == 0)
        name += 6;
    else if (strstr(name, "::") || !l->ns.has || l->ns.n != 4 || memcmp(l->ns.s, "aten", 4) != 0)
        return;
    const gems_op *op = gems_op_find(name);
    if (!op)
        return;
    __atomic_store_n(&gems_slots[op->index].replaced, true, __ATOMIC_RELAXED);
    if (op->kernel)
        atomic_store(&any, true);
}

typedef void *library_impl(void *library, const char *name, void *function, int mode);

__attribute__((visibility("default")))
library_impl gems_library_impl __asm__("_ZNR5torch7Library5_implEPKcONS_11CppFunctionENS_17_RegisterOrVerifyE");

void *gems_library_impl(void *library, const char *name, void *function, int mode)
{
    uintptr_t caller = (uintptr_t)__builtin_return_address(0);
    static _Atomic(library_impl *) original;
    library_impl *next = atomic_load_explicit(&original, memory_order_relaxed);
    if (!next) {
        static const char symbol[] = "_ZNR5torch7Library5_implEPKcONS_11CppFunctionENS_17_RegisterOrVerifyE";
        *(void **)&next = dlsym(gems_torch_open() ? gems_torch.handle : RTLD_NEXT, symbol);
        atomic_store_explicit(&original, next, memory_order_relaxed);
    }
    /* The host's own come while it is loaded, from inside it. */
    if (gems_torch.handle && (caller < gems_torch.begin || caller >= gems_torch.end))
        note(library, name, function);
    return next(library, name, function, mode);
}
