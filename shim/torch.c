/* Finding the host's library and its functions. In Python libtorch is opened RTLD_LOCAL, so RTLD_NEXT does not see it:
 * look for the loaded object by name. */
#include "shim/torch.h"
#include "preload/base/log.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct torch gems_torch;
int64_t gems_numel_offset;

static int match_library(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    const char *base = info->dlpi_name ? strrchr(info->dlpi_name, '/') : NULL;
    base = base ? base + 1 : info->dlpi_name;
    /* Debian's soname has a version suffix: a prefix is enough. */
    if (!base || strncmp(base, "libtorch_cpu.so", 15) != 0)
        return 0;
    gems_torch.path = strdup(info->dlpi_name);
    gems_torch.begin = UINTPTR_MAX;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, end = begin + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type != PT_LOAD)
            continue;
        gems_torch.begin = begin < gems_torch.begin ? begin : gems_torch.begin;
        gems_torch.end = end > gems_torch.end ? end : gems_torch.end;
    }
    return 1;
}

/* The host's number of a dtype, which a function of that name tells; -1 if there is none. */
static int32_t dtype_code(const char *function)
{
    int32_t (*code)(void);
    *(void **)&code = dlsym(gems_torch.handle, function);
    return code ? code() : -1;
}

static bool resolve_api(void)
{
    static const char undefined_tensor[] = "_ZN3c1019UndefinedTensorImpl10_singletonE";
    struct torch_api *a = &gems_torch.api;
    const struct {
        const char *name;
        void *slot;
    } wanted[] = {
        {"aoti_torch_get_sizes", &a->get_sizes},
        {"aoti_torch_get_strides", &a->get_strides},
        {"aoti_torch_get_dim", &a->get_dim},
        {"aoti_torch_get_dtype", &a->get_dtype},
        {"aoti_torch_get_data_ptr", &a->get_data_ptr},
        {"aoti_torch_get_device_type", &a->get_device_type},
        {"aoti_torch_empty_strided", &a->empty_strided},
        {"aoti_torch_delete_tensor_object", &a->delete_tensor},
        {"aoti_torch_new_tensor_handle", &a->new_handle},
        {"aoti_torch_grad_mode_is_enabled", &a->grad_enabled},
        {"aoti_torch_device_type_cpu", &a->device_cpu},
        {"aoti_torch_device_type_meta", &a->device_meta},
        {"_ZNK3c1010TensorImpl13requires_gradEv", &a->requires_grad},
        {"_ZNK3c1010TensorImpl8_fw_gradEmRKN2at10TensorBaseE", &a->fw_grad},
        {"_ZN3c1031get_default_dtype_as_scalartypeEv", &a->default_dtype},
        {"_ZN2at12hasCallbacksEv", &a->has_callbacks},
        {undefined_tensor, &a->undefined},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        /* An object may have been copied into the program itself (COPY relocation), which is then the one in use. */
        void *p = wanted[i].name == undefined_tensor ? dlsym(RTLD_DEFAULT, undefined_tensor) : NULL;
        if (!p)
            p = dlsym(gems_torch.handle, wanted[i].name);
        if (!p) {
            static char why[160];
            snprintf(why, sizeof why, "this PyTorch has no %s", wanted[i].name);
            gems_torch.why = why;
            return false;
        }
        *(void **)wanted[i].slot = p;
    }
    *(void **)&a->get_const_data_ptr = dlsym(gems_torch.handle, "torch_get_const_data_ptr");
    if (!a->get_const_data_ptr) /* before 2.10 */
        a->get_const_data_ptr = a->get_data_ptr;
    *(void **)&a->num_threads = dlsym(gems_torch.handle, "_ZN2at15get_num_threadsEv");
    static const char *const dtype_functions[GEMS_DTYPE_COUNT] = {
        [GEMS_F16] = "aoti_torch_dtype_float16", [GEMS_BF16] = "aoti_torch_dtype_bfloat16",
        [GEMS_F32] = "aoti_torch_dtype_float32", [GEMS_F64] = "aoti_torch_dtype_float64",
        [GEMS_I8] = "aoti_torch_dtype_int8",     [GEMS_U8] = "aoti_torch_dtype_uint8",
        [GEMS_I16] = "aoti_torch_dtype_int16",   [GEMS_I32] = "aoti_torch_dtype_int32",
        [GEMS_I64] = "aoti_torch_dtype_int64",   [GEMS_BOOL] = "aoti_torch_dtype_bool",
    };
    for (int i = 0; i < 64; i++)
        gems_torch.dtype_of[i] = GEMS_DTYPE_NONE;
    for (int i = 0; i < GEMS_DTYPE_COUNT; i++) {
        gems_torch.dtype_code[i] = dtype_code(dtype_functions[i]);
        if (gems_torch.dtype_code[i] >= 0 && gems_torch.dtype_code[i] < 64)
            gems_torch.dtype_of[gems_torch.dtype_code[i]] = (gems_dtype)i;
    }
    gems_torch.complex64 = dtype_code("aoti_torch_dtype_complex64");
    gems_torch.complex128 = dtype_code("aoti_torch_dtype_complex128");
    gems_torch.cpu = a->device_cpu();
    return true;
}

static void resolve_originals(void)
{
    size_t used = 0;
    for (unsigned op = 0; op < gems_op_count; op++) {
        for (int e = 0; e < GEMS_ENTRY_COUNT; e++) {
            if (!gems_symbols[op][e])
                continue;
            gems_slots[op].original[e] = dlsym(gems_torch.handle, gems_symbols[op][e]);
            if (gems_slots[op].original[e] || e != GEMS_ENTRY_CALL)
                continue;
            gems_torch.missing++;
            if (used + strlen(gems_ops[op].name) + 3 < sizeof gems_torch.missing_names)
                used += (size_t)snprintf(gems_torch.missing_names + used, sizeof gems_torch.missing_names - used,
                                         "%s%s", used ? ", " : "", gems_ops[op].name);
        }
    }
    if (gems_torch.missing)
        gems_log("%u of %u operators are not in this PyTorch and stay off: %s%s", gems_torch.missing, gems_op_count,
                 gems_torch.missing_names, gems_torch.missing > 4 ? ", ..." : "");
}

static void open_host(void)
{
    dl_iterate_phdr(match_library, NULL);
    if (!gems_torch.path) {
        gems_torch.why = "libtorch_cpu.so is not loaded in this process";
        return;
    }
    gems_torch.handle = dlopen(gems_torch.path, RTLD_NOW | RTLD_NOLOAD);
    if (!gems_torch.handle)
        gems_torch.why = "the loaded libtorch_cpu.so cannot be opened";
}

bool gems_torch_open(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_host);
    return gems_torch.handle != NULL;
}

bool gems_torch_find(void)
{
    if (!gems_torch_open())
        return false;
    resolve_originals();
    return resolve_api();
}

bool gems_torch_thread_keys(struct torch_keys *out)
{
    /* A thread-local of libc10: its address is this thread's own, asked for once a thread. */
    static __thread const struct torch_keys *mine;
    if (!mine) {
        mine = dlsym(gems_torch.handle, "_ZN3c104impl26raw_local_dispatch_key_setE");
        if (!mine)
            return false;
    }
    *out = *mine;
    return true;
}
