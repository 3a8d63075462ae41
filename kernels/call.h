/* The neutral form of one operator call: what an operator sees instead of the host's objects.
 * Filled by shim/, read by route and by the families under kernels/. Nothing here knows PyTorch or OpenCL.
 *
 * gems_dtype   an element type
 * gems_tensor  a strided view of memory (borrowed: lives as long as the call)
 * gems_value   one argument, in schema order
 * gems_op      what is known of an operator before any call (generated from shim/ops.json)
 * gems_sizes   the named sizes that table rules test
 * gems_call    one call on its way from the host to a kernel, or back to the host
 */
#ifndef GEMS_CALL_H
#define GEMS_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum gems_dtype {
    GEMS_F16,
    GEMS_BF16,
    GEMS_F32,
    GEMS_F64,
    GEMS_I8,
    GEMS_U8,
    GEMS_I16,
    GEMS_I32,
    GEMS_I64,
    GEMS_BOOL,
    GEMS_DTYPE_COUNT,
    GEMS_DTYPE_NONE = GEMS_DTYPE_COUNT /* absent, or one that no kernel handles (complex, float8, ...) */
} gems_dtype;

/* Kinds are ordered as in type promotion: bool < integer < float. */
typedef enum gems_category {
    GEMS_CAT_BOOL,
    GEMS_CAT_INT,
    GEMS_CAT_FLOAT
} gems_category;

typedef struct gems_dtype_info {
    const char *name;    /* "f32", as in tables and logs */
    const char *cl;      /* OpenCL C type of an element in memory ("half" and "ushort" for f16, bf16) */
    const char *compute; /* OpenCL C type used for arithmetic ("float" for f16 and bf16, "uchar" for bool) */
    uint8_t size;        /* bytes */
    uint8_t category;    /* gems_category */
} gems_dtype_info;

extern const gems_dtype_info gems_dtypes[GEMS_DTYPE_COUNT];
/* dtype of that name ("f32"), or GEMS_DTYPE_NONE. */
gems_dtype gems_dtype_find(const char *name);
/* PyTorch's promotion of two dtypes of tensors of equal priority (torch.promote_types). */
gems_dtype gems_promote_types(gems_dtype a, gems_dtype b);

typedef struct gems_tensor {
    void *data;             /* address of the first element (storage offset applied); may be NULL if numel is 0 */
    const int64_t *sizes;   /* ndim of them */
    const int64_t *strides; /* in elements, never negative */
    int64_t numel;
    int32_t ndim;
    gems_dtype dtype; /* GEMS_DTYPE_NONE: decline */
    bool wrapped;     /* a Python number wrapped into a 0-dim tensor: weakest priority in promotion */
    void *host;       /* the host's object: at::Tensor * */
} gems_tensor;

/* True if the elements lie one after another in row-major order (sizes of 1 ignored). */
bool gems_tensor_is_contiguous(const gems_tensor *t);
/* True if the elements fill one block without gaps or overlap, in some order of dimensions. */
bool gems_tensor_is_dense(const gems_tensor *t);
/* Number of elements from the first to the last in memory, both included; 0 if empty. */
int64_t gems_tensor_span(const gems_tensor *t);

typedef enum gems_kind {
    GEMS_NONE, /* an absent optional argument */
    GEMS_TENSOR,
    GEMS_TENSORS,
    GEMS_SCALAR_FLOAT, /* at::Scalar or float */
    GEMS_SCALAR_INT,   /* at::Scalar, int or SymInt */
    GEMS_SCALAR_BOOL,  /* at::Scalar or bool */
    GEMS_INTS,
    GEMS_STR,
    GEMS_DTYPE,
    GEMS_BOOLS,  /* std::array<bool, n> */
    GEMS_MEMFMT, /* i: 0 contiguous, 1 preserve, 2 channels_last, 3 channels_last_3d */
    GEMS_OPAQUE  /* present but not expressible (generator, non-CPU device, symbolic size): decline */
} gems_kind;

typedef struct gems_value {
    gems_kind kind;
    union {
        gems_tensor *tensor;
        struct {
            gems_tensor *v; /* n of them, one after another */
            size_t n;
        } tensors;
        double f;
        int64_t i; /* also bool (0 or 1) and memory format */
        struct {
            const int64_t *v;
            size_t n;
        } ints;
        struct {
            const char *s; /* not NUL-terminated */
            size_t n;
        } str;
        struct {
            const bool *v;
            size_t n;
        } bools;
        gems_dtype dtype;
    };
} gems_value;

/* The element at an offset (in elements from `data`) as a number: GEMS_SCALAR_FLOAT, _INT or _BOOL. */
gems_value gems_tensor_element(const gems_tensor *t, int64_t offset);

/* How a parameter is declared in the schema. Passing conventions of each live in shim/ alone. */
typedef enum gems_type {
    GEMS_T_TENSOR,
    GEMS_T_OPT_TENSOR,
    GEMS_T_TENSORS,
    GEMS_T_ITENSORS,    /* c10::IListRef<at::Tensor> (cat) */
    GEMS_T_OPT_TENSORS, /* Tensor?[] */
    GEMS_T_SCALAR,
    GEMS_T_OPT_SCALAR,
    GEMS_T_INT,
    GEMS_T_OPT_INT,
    GEMS_T_SYMINT,
    GEMS_T_OPT_SYMINT,
    GEMS_T_INTS,
    GEMS_T_OPT_INTS,
    GEMS_T_SYMINTS,
    GEMS_T_OPT_SYMINTS,
    GEMS_T_FLOAT,
    GEMS_T_OPT_FLOAT,
    GEMS_T_OPT_FLOATS,
    GEMS_T_BOOL,
    GEMS_T_OPT_BOOL,
    GEMS_T_BOOLS, /* bool[2], bool[3], bool[4]: count in gems_param.count */
    GEMS_T_STR,
    GEMS_T_OPT_STR,
    GEMS_T_DTYPE,
    GEMS_T_OPT_DTYPE,
    GEMS_T_OPT_LAYOUT,
    GEMS_T_OPT_DEVICE,
    GEMS_T_MEMFMT,
    GEMS_T_OPT_MEMFMT,
    GEMS_T_GENERATOR, /* Generator? */
    GEMS_T_VOID       /* as a result only */
} gems_type;

typedef struct gems_param {
    const char *name;
    uint8_t type;  /* gems_type */
    bool written;  /* Tensor(a!): in-place self or out argument */
    uint8_t count; /* bool[n] */
} gems_param;

/* Functional: results are new. In-place: result 0 is parameter 0. Out: the last nresults parameters are the results. */
typedef enum gems_form {
    GEMS_FUNCTIONAL,
    GEMS_INPLACE,
    GEMS_OUT
} gems_form;

typedef struct gems_attr {
    const char *key, *value; /* any further field of the row, e.g. {"expr", "x + y"} */
} gems_attr;

struct gems_family;

typedef struct gems_op {
    const char *name;     /* "add.Tensor": PyTorch's operator name with overload, without "aten::" */
    const char *base;     /* "add" */
    const char *overload; /* "Tensor", or "" */
    const char *strukt;   /* "add_Tensor": the at::_ops struct */
    const char *schema;
    const char *family;               /* name of the family, for the log and tables; the kernel may not exist yet */
    const struct gems_family *kernel; /* NULL: no kernel, the host always runs it */
    const gems_param *params;
    const gems_attr *attrs; /* ends with a NULL key */
    uint16_t index;         /* position in gems_ops */
    uint8_t nparams, nresults;
    uint8_t form;      /* gems_form */
    uint8_t result[8]; /* gems_type of each result */
    bool composite;    /* no autograd formula and no kernel of its own in the host: only `call` is seen */
} gems_op;

extern const gems_op gems_ops[]; /* generated; sorted by struct */
extern const unsigned gems_op_count;

/* Value of a field of the operator's row, or NULL. */
const char *gems_op_attr(const gems_op *op, const char *key);
/* Index of the parameter of that name, or -1. */
int gems_op_param(const gems_op *op, const char *name);
/* Operator by name ("add.Tensor"), by struct ("add_Tensor"); NULL if unknown. */
const gems_op *gems_op_find(const char *name);

/* Which parameter the i-th result is, of an in-place or out operator. */
static inline unsigned gems_op_written(const gems_op *op, unsigned i)
{
    return op->form == GEMS_INPLACE ? i : op->nparams - op->nresults + i;
}

/* Sizes that rules test. A family fills those that mean something for it; the rest stay -1. */
typedef enum gems_size {
    GEMS_SIZE_NUMEL, /* elements of the largest operand or result */
    GEMS_SIZE_ROWS,  /* independent rows of a reduction, softmax, norm, gather */
    GEMS_SIZE_COLS,  /* elements of one row */
    GEMS_SIZE_M,
    GEMS_SIZE_N,
    GEMS_SIZE_K,
    GEMS_SIZE_BATCH,
    GEMS_SIZE_INNER, /* elements between two neighbours of a reduced dimension; 1: the row is dense */
    GEMS_SIZE_BYTES, /* bytes read and written, each operand once */
    GEMS_SIZE_COUNT
} gems_size;
extern const char *const gems_size_names[GEMS_SIZE_COUNT];

typedef struct gems_sizes {
    int64_t v[GEMS_SIZE_COUNT];
} gems_sizes;

#define GEMS_MAX_ARGS    24
#define GEMS_MAX_RESULTS 8
#define GEMS_MAX_TENSORS 16 /* more (long lists) are taken from the heap */

struct gems_rule;
struct gems_host;

typedef struct gems_call {
    const gems_op *op;
    const struct gems_host *host;         /* kernels/host.h */
    gems_value arg[GEMS_MAX_ARGS];        /* op->nparams of them */
    gems_tensor result[GEMS_MAX_RESULTS]; /* made by gems_call_result */
    bool has_result[GEMS_MAX_RESULTS];

    /* Set by the family in plan(). */
    gems_dtype dtype; /* the dtype that rules name: the one computed with */
    gems_sizes sizes;
    uint8_t note[64]; /* free for the family to pass what it found from plan() to run() */

    const struct gems_rule *rule; /* the table's choice; NULL: none matched (GEMS_ROUTE=all): defaults */
    const char *why;              /* first reason for declining or failing, static or in whybuf */
    char whybuf[160];
    uint64_t bytes;   /* moved to and from the device (staged memory), for the report */
    double device_ns; /* in kernels, if that is measured (gems_device_set_timing) */
} gems_call;

/* OK: done. DECLINED: an ordinary result, the host runs the call. FAILED: the device or driver let us down; the host
 * runs the call and the failure is logged. */
typedef enum gems_status {
    GEMS_OK,
    GEMS_DECLINED,
    GEMS_FAILED
} gems_status;

/* Notes a reason (first one wins) and returns GEMS_DECLINED / GEMS_FAILED. printf-like; cheap if there is no `%`. */
gems_status gems_decline(gems_call *call, const char *why);
gems_status gems_fail(gems_call *call, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The i-th result: for a functional operator a new tensor of this dtype and shape made by the host (strides NULL:
 * contiguous); for an in-place or out operator the tensor given by the caller, if its shape is exactly this one and its
 * dtype is `dtype` (GEMS_DTYPE_NONE accepts any dtype: read it from the result). Otherwise NULL, with call->why set:
 * return GEMS_DECLINED then, the host will raise its own error, resize or cast. Call only in run(), before any launch.
 */
gems_tensor *gems_call_result(gems_call *call, unsigned i, gems_dtype dtype, int ndim, const int64_t *sizes,
                              const int64_t *strides);

/* The same for a complex result of which the parts are f32 or f64: its dtype is GEMS_DTYPE_NONE, strides count complex
 * elements, which are pairs of parts, the real one first. */
gems_tensor *gems_call_result_complex(gems_call *call, unsigned i, gems_dtype part, int ndim, const int64_t *sizes,
                                      const int64_t *strides);

/* Argument by name; a value of kind GEMS_NONE if the operator has no such parameter. For plan(): remember indices, not
 * names, on hot paths. */
const gems_value *gems_call_arg(const gems_call *call, const char *name);

#endif
