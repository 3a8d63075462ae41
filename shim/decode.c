/* The host's arguments to neutral form and back; and what else the engine needs of it. */
#include "shim/decode.h"

#include <stdlib.h>
#include <string.h>

enum {
    SCALAR_DOUBLE,
    SCALAR_INT,
    SCALAR_UINT,
    SCALAR_COMPLEX,
    SCALAR_BOOL
}; /* tags of a c10::Scalar */

/* A SymInt below this is a tagged pointer to a symbolic expression. */
#define SYMINT_MIN (-(INT64_C(1) << 62))

/* Our dtype for the host's number of one. */
static gems_dtype dtype_of(int32_t code)
{
    return code >= 0 && code < 64 ? gems_torch.dtype_of[code] : GEMS_DTYPE_NONE;
}

bool gems_decode_tensor(const void *t, bool written, gems_tensor *out)
{
    const struct torch_api *a = &gems_torch.api;
    host_tensor *h = (host_tensor *)t;
    int64_t ndim, *sizes, *strides;
    int32_t code;
    if (host_impl(t) == a->undefined || a->get_dim(h, &ndim) || a->get_sizes(h, &sizes) ||
        a->get_strides(h, &strides) || a->get_dtype(h, &code))
        return false;
    out->host = h;
    out->ndim = (int32_t)ndim;
    out->sizes = sizes;
    out->strides = strides;
    out->numel = gems_numel(t);
    out->dtype = dtype_of(code);
    out->wrapped = ((const uint8_t *)host_impl(t))[gems_torch.wrapped_offset] & gems_torch.wrapped_mask;
    void *data = NULL;
    bool known = (written ? a->get_data_ptr : a->get_const_data_ptr)(h, &data) == 0;
    out->address = (uintptr_t)data;
    return known && (data || !out->numel);
}

/* Looks at the key set before anything else is asked of a tensor: plain, with or without what autograd adds (inference
 * tensors have nothing of it). */
static bool take(struct frame *f, const gems_param *p, const void *t, gems_tensor *out)
{
    uint64_t extra = gems_torch.autograd | gems_torch.adinplace, ks = host_keyset(t);
    if ((ks & ~extra) != (gems_torch.plain_tensor & ~extra) || (ks & extra & ~gems_torch.plain_tensor))
        return gems_decline(&f->call, "not a plain tensor"), false;
    if (f->counts_versions && (ks & gems_torch.adinplace))
        return gems_decline(&f->call, "PyTorch must count the write"), false;
    return gems_decode_tensor(t, p->written, out);
}

/* Room for n tensors beside each other; NULL if there is none. */
static gems_tensor *room_for(struct frame *f, size_t n)
{
    if (f->ntensors + n <= GEMS_MAX_TENSORS) {
        gems_tensor *t = &f->tensors[f->ntensors];
        f->ntensors += (unsigned)n;
        return t;
    }
    if (f->heap)
        return NULL;
    return f->heap = malloc(n * sizeof *f->heap);
}

static bool take_tensor(struct frame *f, const gems_param *p, const void *t, gems_value *v)
{
    v->kind = GEMS_TENSOR;
    v->tensor = room_for(f, 1);
    return v->tensor && take(f, p, t, v->tensor);
}

static bool take_tensors(struct frame *f, const gems_param *p, const void *data, size_t n, bool handles, gems_value *v)
{
    gems_tensor *slot = room_for(f, n);
    if (!slot)
        return false;
    for (size_t i = 0; i < n; i++) {
        /* data: n words, each the word of an at::Tensor; for the C shim: pointers to at::Tensor. */
        const void *t = handles ? ((void *const *)data)[i] : (const char *)data + 8 * i;
        if (!take(f, p, t, &slot[i]))
            return false;
    }
    v->kind = GEMS_TENSORS;
    v->tensors.v = slot;
    v->tensors.n = n;
    return true;
}

static bool take_float(double number, gems_value *v)
{
    v->kind = GEMS_SCALAR_FLOAT;
    v->f = number;
    return true;
}

static bool take_int(int64_t number, gems_value *v)
{
    v->kind = GEMS_SCALAR_INT;
    v->i = number;
    return true;
}

static bool take_bool(bool is_true, gems_value *v)
{
    v->kind = GEMS_SCALAR_BOOL;
    v->i = is_true;
    return true;
}

static bool take_scalar(const struct gems_abi_scalar *s, gems_value *v)
{
    return s->tag == SCALAR_DOUBLE ? take_float(s->f, v)
           : s->tag == SCALAR_INT  ? take_int(s->i, v)
                                   : s->tag == SCALAR_BOOL && take_bool(s->i, v);
}

static bool take_ints(const int64_t *data, size_t n, bool symbolic, gems_value *v)
{
    for (size_t i = 0; symbolic && i < n; i++)
        if (data[i] < SYMINT_MIN)
            return false;
    v->kind = GEMS_INTS;
    v->ints.v = data;
    v->ints.n = n;
    return true;
}

static bool take_str(const char *s, size_t n, gems_value *v)
{
    v->kind = GEMS_STR;
    v->str.s = s;
    v->str.n = n;
    return true;
}

static bool take_dtype(int code, gems_value *v)
{
    v->kind = GEMS_DTYPE;
    v->dtype = dtype_of(code);
    return v->dtype != GEMS_DTYPE_NONE;
}

/* Whether an optional of C++, which is its value and then a flag, has none: the argument is absent. */
#define IS_ABSENT(optional) (!((const struct gems_abi_##optional *)raw)->has)
#define FALLTHROUGH         __attribute__((fallthrough))

/* Arguments of at::_ops: objects in the layout of C++. False: not expressible, the host serves. */
static bool decode_cpp(struct frame *f, const gems_param *p, void *raw, gems_value *v)
{
    const struct gems_abi_list *list = raw;
    v->kind = GEMS_NONE;
    switch ((gems_type)p->type) {
    case GEMS_T_OPT_TENSOR:
        if (IS_ABSENT(opt_tensor) || host_impl(raw) == gems_torch.api.undefined)
            return true;
        FALLTHROUGH;
    case GEMS_T_TENSOR:
        return take_tensor(f, p, raw, v);
    case GEMS_T_ITENSORS:
        if (((const struct gems_abi_ilist *)raw)->tag != 0)
            return false;
        FALLTHROUGH;
    case GEMS_T_TENSORS:
        return take_tensors(f, p, list->data, list->n, false, v);
    case GEMS_T_OPT_SCALAR:
        if (IS_ABSENT(opt_scalar))
            return true;
        FALLTHROUGH;
    case GEMS_T_SCALAR:
        return take_scalar(raw, v);
    case GEMS_T_INT:
        return take_int(*(const int64_t *)raw, v);
    case GEMS_T_OPT_INT:
    case GEMS_T_OPT_SYMINT:
        if (IS_ABSENT(opt_int))
            return true;
        FALLTHROUGH;
    case GEMS_T_SYMINT:
        return take_int(*(const int64_t *)raw, v) && v->i >= SYMINT_MIN;
    case GEMS_T_OPT_INTS:
    case GEMS_T_OPT_SYMINTS:
        if (IS_ABSENT(opt_list))
            return true;
        FALLTHROUGH;
    case GEMS_T_INTS:
    case GEMS_T_SYMINTS:
        return take_ints(list->data, list->n, p->type == GEMS_T_SYMINTS || p->type == GEMS_T_OPT_SYMINTS, v);
    case GEMS_T_OPT_FLOAT:
        if (IS_ABSENT(opt_float))
            return true;
        FALLTHROUGH;
    case GEMS_T_FLOAT:
        return take_float(*(const double *)raw, v);
    case GEMS_T_OPT_BOOL:
        if (IS_ABSENT(opt_bool))
            return true;
        FALLTHROUGH;
    case GEMS_T_BOOL:
        return take_bool(*(const uint8_t *)raw, v);
    case GEMS_T_BOOLS:
        v->kind = GEMS_BOOLS;
        v->bools.v = raw;
        v->bools.n = p->count;
        return true;
    case GEMS_T_OPT_STR:
        if (IS_ABSENT(opt_str))
            return true;
        FALLTHROUGH;
    case GEMS_T_STR:
        return take_str(((const struct gems_abi_str *)raw)->s, ((const struct gems_abi_str *)raw)->n, v);
    case GEMS_T_OPT_DTYPE:
        if (IS_ABSENT(opt_i8))
            return true;
        FALLTHROUGH;
    case GEMS_T_DTYPE:
        return take_dtype(*(const int8_t *)raw, v);
    case GEMS_T_OPT_LAYOUT:
        return IS_ABSENT(opt_i8) || *(const int8_t *)raw == 0; /* strided */
    case GEMS_T_OPT_DEVICE:                                    /* the CPU, named: as good as absent */
        return IS_ABSENT(opt_device) || *(const int8_t *)raw == gems_torch.cpu;
    case GEMS_T_OPT_MEMFMT:
        if (IS_ABSENT(opt_i8))
            return true;
        FALLTHROUGH;
    case GEMS_T_MEMFMT:
        v->kind = GEMS_MEMFMT;
        v->i = *(const int8_t *)raw;
        return true;
    case GEMS_T_GENERATOR:
    case GEMS_T_OPT_FLOATS:
    case GEMS_T_OPT_TENSORS:
    case GEMS_T_VOID:
        return false;
    }
    return false;
}

/* Arguments of the C shim (shim/thunk.h says what raw holds): what may be absent is NULL then. */
static bool decode_aoti(struct frame *f, const gems_param *p, void *raw, gems_value *v)
{
    const struct gems_aoti_list *list = raw;
    v->kind = GEMS_NONE;
    if (!raw)
        return true;
    switch ((gems_type)p->type) {
    case GEMS_T_OPT_TENSOR: /* also the address of a handle that is NULL */
        if (!*(void **)raw)
            return true;
        FALLTHROUGH;
    case GEMS_T_TENSOR:
        return take_tensor(f, p, *(void **)raw, v);
    case GEMS_T_TENSORS:
    case GEMS_T_ITENSORS:
        return take_tensors(f, p, list->data, (size_t)list->n, true, v);
    case GEMS_T_SCALAR:
    case GEMS_T_FLOAT:
    case GEMS_T_OPT_SCALAR:
    case GEMS_T_OPT_FLOAT:
        return take_float(*(const double *)raw, v);
    case GEMS_T_INT:
    case GEMS_T_SYMINT:
    case GEMS_T_OPT_INT:
    case GEMS_T_OPT_SYMINT:
        return take_int(*(const int64_t *)raw, v);
    case GEMS_T_INTS:
    case GEMS_T_SYMINTS:
    case GEMS_T_OPT_INTS:
    case GEMS_T_OPT_SYMINTS:
        return take_ints(list->data, (size_t)list->n, false, v);
    case GEMS_T_BOOL:
    case GEMS_T_OPT_BOOL:
        return take_bool(*(const int32_t *)raw, v);
    case GEMS_T_STR:
    case GEMS_T_OPT_STR: {
        const char *s = *(const char *const *)raw;
        return !s || take_str(s, strlen(s), v);
    }
    case GEMS_T_DTYPE:
    case GEMS_T_OPT_DTYPE:
        return take_dtype(*(const int32_t *)raw, v);
    case GEMS_T_OPT_DEVICE:
        return ((const struct gems_aoti_device *)raw)->type == gems_torch.cpu;
    case GEMS_T_OPT_LAYOUT:
        return *(const int32_t *)raw == 0;
    default:
        return false;
    }
}

bool gems_decode(struct frame *f, void **raw)
{
    const gems_op *op = f->call.op;
    for (unsigned i = 0; i < op->nparams; i++) {
        bool ok = f->entry == GEMS_ENTRY_AOTI ? decode_aoti(f, &op->params[i], raw[i], &f->call.arg[i])
                                              : decode_cpp(f, &op->params[i], raw[i], &f->call.arg[i]);
        if (!ok) {
            gems_decline(&f->call, "an argument that cannot be expressed"); /* unless there is a better reason */
            for (; i < op->nparams; i++)
                f->call.arg[i].kind = GEMS_NONE;
            return false;
        }
    }
    return true;
}

/* --- results ------------------------------------------------------------------------------------------------------ */

static int32_t code_of(gems_dtype dtype, bool complex)
{
    if (complex)
        return dtype == GEMS_F32 ? gems_torch.complex64 : dtype == GEMS_F64 ? gems_torch.complex128 : -1;
    return dtype < GEMS_DTYPE_COUNT ? gems_torch.dtype_code[dtype] : -1;
}

static bool make(gems_call *call, unsigned i, gems_dtype dtype, bool complex, int ndim, const int64_t *sizes,
                 const int64_t *strides)
{
    struct frame *f = (struct frame *)call;
    int64_t dense[64];
    int32_t code = code_of(dtype, complex);
    if (ndim > 64 || code < 0)
        return gems_decline(call, "no such result"), false;
    int64_t step = 1;
    for (int d = ndim - 1; !strides && d >= 0; d--) {
        dense[d] = step;
        step *= sizes[d] > 1 ? sizes[d] : 1;
    }
    host_tensor *h = NULL;
    if (gems_torch.api.empty_strided(ndim, sizes, strides ? strides : dense, code, gems_torch.cpu, -1, &h) != 0)
        return gems_fail(call, "the host could not make the result"), false;
    f->handle[i] = h;
    return gems_decode_tensor(h, true, &call->result[i]) ||
           (gems_fail(call, "the host's new tensor cannot be read"), false);
}

static bool is_complex(const gems_tensor *tensor, gems_dtype part)
{
    int32_t code;
    return gems_torch.api.get_dtype(tensor->host, &code) == 0 && code >= 0 && code == code_of(part, true);
}

static void drop(gems_tensor *result)
{
    gems_torch.api.delete_tensor(result->host);
}

static gems_dtype default_dtype(void)
{
    return dtype_of(gems_torch.api.default_dtype());
}

/* Released: who sees it also sees the originals. */
static void set_min_numel(unsigned op, int64_t min_numel)
{
    __atomic_store_n(&gems_slots[op].min_numel, gems_torch.ready ? min_numel : INT64_MAX, __ATOMIC_RELEASE);
}

static void drop_results(gems_call *call)
{
    gems_drop_results((struct frame *)call);
    memset(call->has_result, 0, sizeof call->has_result);
    call->why = NULL;
}

static int threads(void)
{
    return gems_torch.api.num_threads ? gems_torch.api.num_threads() : 0;
}

static bool is_watched(void)
{
    return gems_torch.api.has_callbacks();
}

const gems_host gems_pytorch = {make,          is_complex,   drop,    default_dtype,
                                set_min_numel, drop_results, threads, is_watched};

void gems_drop_results(struct frame *f)
{
    for (unsigned i = 0; i < f->call.op->nresults; i++)
        if (f->handle[i]) {
            gems_torch.api.delete_tensor(f->handle[i]);
            f->handle[i] = NULL;
        }
}

void gems_give_results(struct frame *f, void *ret, void **raw)
{
    const gems_op *op = f->call.op;
    unsigned n = op->nresults;
    if (op->form != GEMS_FUNCTIONAL) {
        /* One reference comes back in a register, which the thunk does. A tuple of references is a tuple of addresses,
         * in reversed order as all tuples. */
        if (f->entry != GEMS_ENTRY_AOTI && n > 1 && ret)
            for (unsigned i = 0; i < n; i++)
                ((void **)ret)[n - 1 - i] = raw[gems_op_written(op, i)];
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        host_tensor *h = f->handle[i];
        f->handle[i] = NULL;
        if (!h) { /* a gradient that was not asked for */
            ((void **)ret)[n - 1 - i] = gems_torch.api.undefined;
            continue;
        }
        if (f->entry == GEMS_ENTRY_AOTI) {
            *((void ***)ret)[i] = h;
            continue;
        }
        /* Move: take the pointer out of the handle, leave an undefined tensor in it, delete the handle. */
        ((void **)ret)[n - 1 - i] = *(void **)h;
        *(void **)h = gems_torch.api.undefined;
        gems_torch.api.delete_tensor(h);
    }
}
