#include "shim/both.h"
#include "kernels/memory/host.h"
#include "preload/engine/check.h"
#include "preload/base/config.h"

#include <stdlib.h>
#include <string.h>

/* One call between our turn and the end of the host's. */
struct both {
    const gems_op *op;
    char what[120]; /* the call, in words: its arguments may be gone when the host has run */
    gems_tensor result[GEMS_MAX_RESULTS];
    host_tensor *handle[GEMS_MAX_RESULTS]; /* functional: our result */
    void *bytes[GEMS_MAX_RESULTS];         /* in-place and out: what we computed, from the first element to the last */
};
static __thread struct both *pending;

bool gems_both_hosts_turn(void)
{
    return pending != NULL;
}

static void *copy_bytes(const gems_tensor *t)
{
    size_t n = (size_t)gems_tensor_span(t) * gems_dtypes[t->dtype].size;
    void *copy = malloc(n ? n : 1);
    if (copy && n)
        memcpy(copy, gems_tensor_host(t), n);
    return copy;
}

static void free_all(void **bytes)
{
    for (unsigned i = 0; i < GEMS_MAX_RESULTS; i++) {
        free(bytes[i]);
        bytes[i] = NULL;
    }
}

bool gems_both_begin(const gems_call *call, struct both_backup *backup)
{
    const gems_op *op = call->op;
    if (gems_config_get()->check == 0 || !gems_check_wants(call))
        return false;
    memset(backup, 0, sizeof *backup);
    for (unsigned i = 0; op->form != GEMS_FUNCTIONAL && i < op->nresults; i++) {
        const gems_value *v = &call->arg[gems_op_written(op, i)];
        if (v->kind != GEMS_TENSOR || v->tensor->dtype == GEMS_DTYPE_NONE ||
            !(backup->bytes[i] = copy_bytes(v->tensor))) {
            free_all(backup->bytes);
            return false;
        }
    }
    return true;
}

bool gems_both_keep(struct frame *f, struct both_backup *backup, bool done)
{
    struct both *b = done ? calloc(1, sizeof *b) : NULL;
    for (unsigned i = 0; b && i < f->call.op->nresults; i++) {
        if (!backup->bytes[i])
            continue;
        if (!(b->bytes[i] = copy_bytes(&f->call.result[i]))) {
            free_all(b->bytes);
            free(b);
            b = NULL;
        }
    }
    if (b) {
        b->op = f->call.op;
        gems_check_describe(&f->call, b->what, sizeof b->what);
        gems_check_count(&f->call);
        memcpy(b->result, f->call.result, sizeof b->result);
        memcpy(b->handle, f->handle, sizeof b->handle);
        memset(f->handle, 0, sizeof f->handle);
        for (unsigned i = 0; i < b->op->nresults; i++) {
            const gems_tensor *t = &b->result[i];
            if (backup->bytes[i] && t->numel > 0)
                memcpy(gems_tensor_host(t), backup->bytes[i], (size_t)gems_tensor_span(t) * gems_dtypes[t->dtype].size);
        }
        pending = b;
    }
    free_all(backup->bytes);
    return b != NULL;
}

static void end(struct both *b)
{
    for (unsigned i = 0; i < b->op->nresults; i++)
        if (b->handle[i])
            gems_host.api.delete_tensor(b->handle[i]);
    free_all(b->bytes);
    free(b);
    pending = NULL;
}

enum gems_entered gems_leave(enum gems_entry entry, void *ret)
{
    struct both *b = pending;
    for (unsigned i = 0; i < b->op->nresults; i++) {
        gems_tensor host, ours = b->result[i];
        const void *t = b->op->form != GEMS_FUNCTIONAL ? ours.host
                        : entry == GEMS_ENTRY_AOTI     ? *((void ***)ret)[i]
                                                       : (void *)((void **)ret + (b->op->nresults - 1 - i));
        if (b->bytes[i])
            ours.address = (uintptr_t)b->bytes[i];
        gems_check_compare(b->op, b->what, i, &ours, gems_decode_tensor(t, false, &host) ? &host : NULL);
    }
    end(b);
    return GEMS_ENTERED_HOST;
}

void gems_thrown(void)
{
    gems_check_refused(pending->op, pending->what);
    end(pending);
}
