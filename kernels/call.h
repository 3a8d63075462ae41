/* The neutral form of one operator call: what an operator sees instead of the host's objects.
 * Filled by shim/, read by route and by the families under kernels/. Nothing here knows PyTorch or OpenCL.
 *
 * gems_dtype, gems_tensor: kernels/tensor
 *
 * gems_value   one argument, in schema order
 * gems_op      what is known of an operator before any call (generated from shim/ops.json)
 * gems_sizes   the named sizes that table rules test
 * gems_call    one call on its way from the host to a kernel, or back to the host
 */
#ifndef GEMS_CALL_H
#define GEMS_CALL_H

#include "kernels/tensor/element.h"
#include "kernels/tensor/tensor.h"

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

static inline bool gems_value_is_number(const gems_value *v)
{
    return v->kind == GEMS_SCALAR_FLOAT || v->kind == GEMS_SCALAR_INT || v->kind == GEMS_SCALAR_BOOL;
}
/* Of a value that is one. */
static inline gems_number gems_value_number(const gems_value *v)
{
    if (v->kind == GEMS_SCALAR_FLOAT)
        return (gems_number){.category = GEMS_CAT_FLOAT, .f = v->f};
    return (gems_number){.category = v->kind == GEMS_SCALAR_INT ? GEMS_CAT_INT : GEMS_CAT_BOOL, .i = v->i};
}

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
    const char *parts;                /* names of the operators with a kernel that the host makes it of; "none"; NULL */
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
static inline const char *gems_op_attr_or(const gems_op *op, const char *key, const char *fallback)
{
    const char *value = gems_op_attr(op, key);
    return value ? value : fallback;
}
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
    GEMS_SIZE_NUMEL, /* elements: of a pointwise result, of what is moved, else of the largest operand */
    GEMS_SIZE_ROWS,  /* independent rows of a reduction, softmax, norm, gather */
    GEMS_SIZE_COLS,  /* elements of one row */
    GEMS_SIZE_M,
    GEMS_SIZE_N,
    GEMS_SIZE_K,
    GEMS_SIZE_BATCH,
    GEMS_SIZE_INNER, /* elements between two neighbours of a reduced dimension; 1: the row is dense */
    GEMS_SIZE_BYTES, /* bytes read and written, each operand once */
    GEMS_SIZE_PLACE, /* gems_operand_place; not filled by families */
    GEMS_SIZE_COUNT
} gems_size;
extern const char *const gems_size_names[GEMS_SIZE_COUNT];

typedef enum gems_operand_place {
    GEMS_OPERANDS_TRAVEL,   /* they are copied for the call, if kernels do not read them where they are */
    GEMS_OPERANDS_TO_STAY,  /* none is on the device, but what is copied there stays */
    GEMS_OPERANDS_ON_DEVICE /* one is there already */
} gems_operand_place;

typedef struct gems_sizes {
    int64_t v[GEMS_SIZE_COUNT];
} gems_sizes;

#define GEMS_MAX_ARGS    24
#define GEMS_MAX_RESULTS 8
#define GEMS_MAX_TENSORS 16 /* more (long lists) are taken from the heap */

struct gems_rule;
struct gems_host;

/* What a family's plan() found, as the family's own type. */
#define GEMS_PLAN_BYTES 512
#define GEMS_PLAN(type, call)                                                                                          \
    __extension__({                                                                                                    \
        _Static_assert(sizeof(type) <= GEMS_PLAN_BYTES, "a plan is larger than its place in gems_call");               \
        (type *)(void *)(call)->plan;                                                                                  \
    })

typedef struct gems_call {
    const gems_op *op;
    const struct gems_host *host;         /* kernels/host.h */
    gems_value arg[GEMS_MAX_ARGS];        /* op->nparams of them */
    gems_tensor result[GEMS_MAX_RESULTS]; /* made by gems_call_result */
    bool has_result[GEMS_MAX_RESULTS];

    /* Set by the family in plan(). */
    gems_dtype dtype; /* the dtype that rules name: the one computed with */
    gems_sizes sizes;
    _Alignas(16) unsigned char plan[GEMS_PLAN_BYTES]; /* what plan() found, for prepare(): GEMS_PLAN */

    const struct gems_rule *rule;  /* the table's choice; NULL: none matched (GEMS_ROUTE=all): defaults */
    const struct gems_rule *chain; /* the table's rule for chains, or NULL */
    bool deferred;                 /* the results are owed (kernels/chain) */
    const char *why;               /* first reason for declining or failing, static or in whybuf */
    char whybuf[160];
    uint64_t bytes;   /* moved to and from the device (staged memory), for the report */
    double device_ns; /* in kernels, if that is measured (gems_work_set_timing) */
} gems_call;

/* What rules see of a call that is rows of `cols` elements. */
static inline void gems_call_rows(gems_call *call, gems_dtype dtype, int64_t numel, int64_t cols, int64_t bytes)
{
    call->dtype = dtype;
    call->sizes.v[GEMS_SIZE_NUMEL] = numel;
    call->sizes.v[GEMS_SIZE_COLS] = cols;
    call->sizes.v[GEMS_SIZE_ROWS] = cols > 0 ? numel / cols : 0;
    call->sizes.v[GEMS_SIZE_BYTES] = bytes;
}

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
 * return GEMS_DECLINED then, the host will raise its own error, resize or cast. A result that is never made is an
 * undefined tensor: a gradient that output_mask does not ask for. Call only in prepare(), before any launch. */
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
