#include "kernels/pointwise/end.h"
#include "kernels/work/launcher.h"
#include "preload/base/hash.h"

#include <stdlib.h>
#include <string.h>

#define LONGEST_ROW 16384 /* elements: a row of every work-item is to stay in its core's cache */

/* Arguments that point to what stands beside them. */
typedef struct producer {
    gems_arg arg[PW_PRODUCER_ARGS + 1];
    pw_sizes sizes[GEMS_OPERANDS + 1];
    pw_tables tables;
    gems_element number[GEMS_OPERANDS];
} producer;

static const gems_kernel_parts *parts_of(const gems_work *work, const gems_work_launch *l)
{
    return (const gems_kernel_parts *)(const void *)(work->bytes + l->wanted);
}

static gems_kernel *find_late(gems_work *work, const gems_work_launch *l)
{
    const gems_pw_spec *spec = &pw_recipe_of(work)->spec;
    const gems_kernel_parts *parts = parts_of(work, l);
    const size_t more = l->produces ? gems_pw_spec_bytes(spec) : 0;
    gems_kernel *kernel = gems_kernel_find_parts(work, parts, spec, more);
    if (kernel || work->trouble.kind != GEMS_TROUBLE_NONE)
        return kernel;
    char *text = l->produces ? gems_pw_source(spec, "") : strdup("");
    if (text)
        kernel = gems_kernel_build_parts(work, parts, l->produces ? "kernels/math.cl" : NULL, text, spec, more);
    else
        gems_trouble_note(&work->trouble, GEMS_TROUBLE_MEMORY, "out of memory");
    free(text);
    return kernel;
}

/* The same in every process. */
static uint64_t id_of(const gems_work *work)
{
    uint64_t id = work->nlaunches;
    for (uint32_t i = 0; i < work->nlaunches; i++) {
        const gems_kernel_parts *parts = parts_of(work, &work->launch[i]);
        const uint64_t words[] = {parts->op->index, parts->wanted.types, parts->wanted.part};
        id = gems_hash_long(id, words, sizeof words);
        id = gems_hash_long(id, parts->wanted.entry, strlen(parts->wanted.entry));
    }
    return id | 1;
}

gems_status pw_end(gems_call *call, gems_work *work, int64_t room,
                   gems_status (*prepare)(gems_call *call, gems_work *work))
{
    static const int32_t something = 0;
    gems_tensor *in = call->arg[0].tensor, dense = *in;
    int64_t strides[GEMS_DIMS];
    pw_recipe *r = pw_recipe_of(work);
    producer p;
    if (in->ndim > GEMS_DIMS || call->op->form != GEMS_FUNCTIONAL)
        return gems_decline(call, "not a call that can end a chain");
    r->end = true;
    int n = pw_recipe_producer(work, p.arg, p.sizes, p.tables);
    if (n < 0)
        return GEMS_DECLINED;
    for (int i = 0, k = 0; i < n; i++) /* numbers stand in the work, whose bytes may move */
        if (p.arg[i].kind == GEMS_ARG_VALUE && p.arg[i].n <= sizeof *p.number) {
            memcpy(&p.number[k], p.arg[i].p, p.arg[i].n);
            p.arg[i].p = &p.number[k++];
        }
    p.arg[n++] = GEMS_VALUE(something);
    int64_t step = 1;
    for (int d = in->ndim - 1; d >= 0; d--) {
        strides[d] = step;
        step *= in->sizes[d];
    }
    dense.strides = strides;
    const gems_produced produced = {in->address, room, gems_dtypes[in->dtype].size, p.arg, n};
    call->arg[0].tensor = &dense;
    work->lower = NULL;
    work->late = find_late;
    work->produced = &produced;
    gems_status status = prepare(call, work);
    work->produced = NULL;
    call->arg[0].tensor = in;
    if (status == GEMS_OK && work->trouble.kind == GEMS_TROUBLE_NONE)
        pw_recipe_of(work)->end_id = id_of(work);
    return status;
}

gems_status pw_end_rows(gems_call *call, gems_work *work, gems_status (*prepare)(gems_call *call, gems_work *work))
{
    const int64_t n = call->sizes.v[GEMS_SIZE_COLS];
    if (call->sizes.v[GEMS_SIZE_INNER] > 1 || n > LONGEST_ROW)
        return gems_decline(call, "rows that cannot end a chain");
    return pw_end(call, work, (n + 31) & ~INT64_C(15), prepare); /* as ROW_IN counts on */
}
