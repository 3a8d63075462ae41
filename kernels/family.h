/* A family: operators that share a launcher. One const struct per family, listed nowhere: the row of an operator in
 * shim/ops.json names its kernel with "kernel": "<stem>" and the generated table refers to gems_family_<stem>.
 *
 * The order of a call: plan (does it apply? named sizes) -> the table chooses -> prepare (results, variant, launches
 * written into a work) -> kernels/work runs it. Families never see the host's or OpenCL's headers. */
#ifndef GEMS_FAMILY_H
#define GEMS_FAMILY_H

#include "kernels/call.h"

struct gems_work;
struct gems_device_info;
struct gems_variant;

/* A number that a table's rule may give a variant: `low`, and every `step` from there up to `high`. */
typedef struct gems_parameter {
    const char *name;
    int64_t low, high, step;
    int64_t initial; /* without a rule; 0: found from sizes and device */
} gems_parameter;

enum {
    GEMS_PARAMETERS = 4
};

/* Parameter of every variant: 0 the main lane, 1 the small one. */
extern const gems_parameter gems_parameter_lane;

/* What a rule may say of chains (kernels/chain), in the order of gems_chain_parameter; ends with a NULL name. */
extern const gems_parameter gems_chain_parameters[];
typedef enum gems_chain_parameter {
    GEMS_CHAIN_LEAST_KB, /* of a result, in KiB: below that a call is not deferred */
    GEMS_CHAIN_ROW,      /* elements that operands of several loops have beside each other, at least */
    GEMS_CHAIN_STEPS,    /* of a chain, at most; what is more is another */
    GEMS_CHAIN_OPERANDS, /* that a chain reads, at most */
    GEMS_CHAIN_SMALL     /* thousands of elements times steps: passes of less use the small lane */
} gems_chain_parameter;

/* A call on its way to a variant. */
typedef struct gems_choice {
    gems_call *call;
    struct gems_work *work;
    const struct gems_device_info *device; /* of the work's lane */
    const void *problem;                   /* the family's own */
    const struct gems_variant *variant;
} gems_choice;

/* A kernel of a family, and how it is launched. The first that suits a call is used; one that a rule names is used
 * wherever it can be. */
typedef struct gems_variant {
    const char *name;
    const char *asks; /* what `can` asks of device and call, in words; NULL: nothing */
    uint16_t dtypes;  /* a bit for each gems_dtype that it computes with; 0: all of the family's */
    gems_parameter params[GEMS_PARAMETERS];                /* beside the lane; ends with a NULL name, or is full */
    bool (*device)(const struct gems_device_info *device); /* whether it can run there; NULL: on any */
    /* Whether it computes this call, and whether it is the one to use if none is named. NULL: always. */
    bool (*can)(const gems_choice *choice);
    bool (*suits)(const gems_choice *choice);
    void (*launch)(const gems_choice *choice);
} gems_variant;

typedef struct gems_family {
    const char *name;
    /* Decides from the arguments alone whether a kernel can do exactly this call (else GEMS_DECLINED with a reason),
     * and fills call->dtype, call->sizes and GEMS_PLAN. No allocation, no device call: it is on the path of calls that
     * the table gives back to the host. */
    gems_status (*plan)(gems_call *call);
    /* Makes the results and writes the launches into the work, which is begun on the call's lane. Anything but GEMS_OK:
     * nothing that the caller can see has changed. If a result may alias an argument, only the last launch may write
     * it. */
    gems_status (*prepare)(gems_call *call, struct gems_work *work);
    /* For a call whose first argument is what the recipe in the work comes to (kernels/pointwise/recipe.h), and need
     * not be in memory: as prepare(). NULL: the argument must be stored first. */
    gems_status (*fold)(gems_call *call, struct gems_work *work);
    const gems_variant *variants; /* ends with a NULL name */
    /* Without a rule the small lane is used below so many elements, or bytes; 0: never. */
    int64_t small_numel, small_bytes;
    /* Its calls may be part of a chain: a rule may say how. */
    bool chains;
    /* True if a named size may exceed the number of elements of the largest operand (repeat, pad, embedding): then the
     * gate must look at small calls too. */
    bool grows;
} gems_family;

/* Which of the family's variants it is. */
static inline int gems_choice_index(const gems_choice *choice)
{
    return (int)(choice->variant - choice->call->op->kernel->variants);
}

#endif
