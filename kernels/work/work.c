/* Writing works. */
#include "kernels/work/work.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOOK_BACK = 16 /* operands among which the same memory is looked for; twice is only more to copy */
};

void gems_work_begin(gems_work *w, gems_lane lane)
{
    w->lane = lane;
    w->guarded = false;
    w->trouble.kind = GEMS_TROUBLE_NONE;
    w->trouble.code = 0;
    w->lower = NULL;
    w->late = NULL;
    w->produced = NULL;
    w->recipe = w->noperands = w->nlaunches = w->nargs = w->nbytes = w->nscratch = w->ngaps = 0;
    w->operand_room = GEMS_WORK_OPERANDS;
    w->launch_room = GEMS_WORK_LAUNCHES;
    w->arg_room = GEMS_WORK_ARGS;
    w->byte_room = GEMS_WORK_BYTES;
    w->operand = w->own_operand;
    w->launch = w->own_launch;
    w->arg = w->own_arg;
    w->bytes = w->own_bytes;
    w->moved = 0;
    w->device_ns = 0;
}

void gems_work_end(gems_work *w)
{
    if (w->operand != w->own_operand)
        free(w->operand);
    if (w->launch != w->own_launch)
        free(w->launch);
    if (w->arg != w->own_arg)
        free(w->arg);
    if (w->bytes != w->own_bytes)
        free(w->bytes);
}

/* Room for `more` further elements of `size` bytes in a list that begins in the work itself. The list's new address, or
 * NULL. */
static void *grow(gems_work *w, void *list, const void *own, uint32_t n, uint32_t *room, size_t more, size_t size)
{
    size_t wanted = 2 * (n + more);
    void *larger = wanted < UINT32_MAX ? realloc(list == own ? NULL : list, wanted * size) : NULL;
    if (!larger) {
        gems_trouble_note(&w->trouble, GEMS_TROUBLE_MEMORY, "out of memory");
        return NULL;
    }
    if (list == own)
        memcpy(larger, own, n * size);
    *room = (uint32_t)wanted;
    return larger;
}

#define GROW(w, list, own, n, room, more)                                                                              \
    __extension__({                                                                                                    \
        bool fits_ = __builtin_expect((w)->n + (size_t)(more) <= (w)->room, 1);                                        \
        void *larger_ = fits_ ? NULL : grow(w, (w)->list, (w)->own, (w)->n, &(w)->room, more, sizeof *(w)->list);      \
        if (larger_)                                                                                                   \
            (w)->list = larger_;                                                                                       \
        fits_ || larger_;                                                                                              \
    })

bool gems_work_copy(gems_work *to, const gems_work *from)
{
    gems_work_begin(to, from->lane);
    if (!GROW(to, operand, own_operand, noperands, operand_room, from->noperands) ||
        !GROW(to, launch, own_launch, nlaunches, launch_room, from->nlaunches) ||
        !GROW(to, arg, own_arg, nargs, arg_room, from->nargs) ||
        !GROW(to, bytes, own_bytes, nbytes, byte_room, from->nbytes)) {
        gems_work_end(to);
        return false;
    }
    memcpy(to->operand, from->operand, from->noperands * sizeof *to->operand);
    memcpy(to->launch, from->launch, from->nlaunches * sizeof *to->launch);
    memcpy(to->arg, from->arg, from->nargs * sizeof *to->arg);
    memcpy(to->bytes, from->bytes, from->nbytes);
    memcpy(to->scratch, from->scratch, sizeof to->scratch);
    memcpy(to->kept, from->kept, sizeof to->kept);
    memcpy(to->filled, from->filled, sizeof to->filled);
    memcpy(to->gaps, from->gaps, from->ngaps * sizeof *to->gaps);
    to->trouble = from->trouble;
    to->lower = from->lower;
    to->late = from->late;
    to->recipe = from->recipe;
    to->noperands = from->noperands;
    to->nlaunches = from->nlaunches;
    to->nargs = from->nargs;
    to->nbytes = from->nbytes;
    to->nscratch = from->nscratch;
    to->ngaps = from->ngaps;
    return true;
}

/* ---- operands ---- */

static gems_operand *find_operand(gems_work *w, uintptr_t address, size_t span, uint8_t element)
{
    uint32_t first = w->noperands > LOOK_BACK ? w->noperands - LOOK_BACK : 0;
    for (uint32_t i = 0; i < w->noperands; i = i == 0 && first > 1 ? first : i + 1) { /* the first is a result */
        gems_operand *o = &w->operand[i];
        if (o->allocation + o->offset == address && o->span == span && o->element == element)
            return o;
    }
    return NULL;
}

/* Notes the loops of a result that does not fill its span, where results are brought home. */
static void note_gaps(gems_work *w, gems_operand *o, const gems_tensor *t)
{
    const gems_device_info *device = gems_device_get(w->lane);
    if (o->gaps >= 0 || (device->unified && device->undoes) || gems_tensor_is_dense(t))
        return;
    gems_nest *nest = &w->gaps[w->ngaps];
    if (w->ngaps == GEMS_WORK_GAPS || !gems_nest_dims(t, ~(uint64_t)0, nest)) {
        gems_trouble_note(&w->trouble, GEMS_TROUBLE_NO_DEVICE, "a result with more gaps than can be brought home");
        return;
    }
    gems_nest_sort(nest);
    o->gaps = (int8_t)w->ngaps++;
}

int gems_work_operand(gems_work *w, const gems_tensor *t, gems_access access)
{
    uint8_t element = gems_dtypes[t->dtype].size;
    size_t span = (size_t)gems_tensor_span(t) * element;
    gems_operand *o = find_operand(w, t->address, span, element);
    if (!o) {
        if (!GROW(w, operand, own_operand, noperands, operand_room, 1))
            return -1;
        o = &w->operand[w->noperands++];
        *o = (gems_operand){.allocation = t->address, .span = span, .element = element, .gaps = -1};
    }
    if ((access & GEMS_READ) && o->access != GEMS_WRITE)
        o->access |= GEMS_READ;
    if (access & GEMS_WRITE) {
        o->access |= GEMS_WRITE;
        note_gaps(w, o, t);
    }
    return (int)(o - w->operand);
}

gems_work_mark gems_work_marked(const gems_work *w)
{
    return (gems_work_mark){w->noperands, w->nlaunches, w->nargs, w->nbytes, w->nscratch, w->ngaps};
}

void gems_work_rewind(gems_work *w, gems_work_mark mark)
{
    w->noperands = mark.noperands;
    w->nlaunches = mark.nlaunches;
    w->nargs = mark.nargs;
    w->nbytes = mark.nbytes;
    w->nscratch = mark.nscratch;
    w->ngaps = mark.ngaps;
    w->trouble = (gems_trouble){.kind = GEMS_TROUBLE_NONE};
}

int gems_work_scratch(gems_work *w, size_t bytes)
{
    if (w->nscratch == GEMS_WORK_SCRATCH) {
        gems_trouble_note(&w->trouble, GEMS_TROUBLE_OTHER, "more than %d pieces of scratch memory", GEMS_WORK_SCRATCH);
        return -1;
    }
    w->scratch[w->nscratch] = bytes;
    w->filled[w->nscratch] = GEMS_WORK_UNFILLED;
    w->kept[w->nscratch].of = 0;
    return (int)w->nscratch++;
}

int gems_work_scratch_of(gems_work *w, const gems_tensor *tensor, size_t bytes, const int64_t key[GEMS_WORK_KEY])
{
    int scratch = gems_work_scratch(w, bytes);
    if (scratch >= 0) {
        w->kept[scratch].of = tensor->address;
        memcpy(w->kept[scratch].key, key, sizeof w->kept[scratch].key);
    }
    return scratch;
}

void gems_work_makes(gems_work *w, int scratch)
{
    if (w->nlaunches && w->trouble.kind == GEMS_TROUBLE_NONE)
        w->launch[w->nlaunches - 1].makes = (uint8_t)(scratch + 1);
}

void *gems_work_scratch_filled(gems_work *w, size_t bytes, int *scratch)
{
    unsigned char *p = gems_work_reserve(w, bytes);
    *scratch = p ? gems_work_scratch(w, bytes) : -1;
    if (*scratch < 0)
        return NULL;
    w->filled[*scratch] = (uint32_t)(p - w->bytes);
    return p;
}

bool gems_work_room(gems_work *w, size_t n)
{
    return GROW(w, bytes, own_bytes, nbytes, byte_room, n);
}

void *gems_work_reserve(gems_work *w, size_t n)
{
    size_t padded = (n + 15) & ~(size_t)15;
    if (!GROW(w, bytes, own_bytes, nbytes, byte_room, padded))
        return NULL;
    void *p = w->bytes + w->nbytes;
    w->nbytes += (uint32_t)padded;
    return p;
}

/* ---- kernels ---- */

gems_kernel *gems_work_find(gems_work *w, const void *id, size_t n)
{
    return gems_kernel_find(w->lane, id, n, &w->trouble);
}

gems_kernel *gems_work_build(gems_work *w, const void *id, size_t n, const gems_kernel_text *text)
{
    return gems_kernel_build(w->lane, id, n, text, &w->trouble);
}

/* ---- launches ---- */

static void keep_arg(gems_work *w, const gems_arg *arg)
{
    gems_kept_arg *kept = &w->arg[w->nargs++];
    *kept = (gems_kept_arg){.kind = (uint8_t)arg->kind, .n = (uint32_t)arg->n, .at = (uint32_t)arg->n};
    if (arg->kind == GEMS_ARG_OPERAND)
        kept->n = w->operand[arg->n].access;
    if (arg->kind == GEMS_ARG_TENSOR && w->produced && ((const gems_tensor *)arg->p)->address == w->produced->address) {
        kept->kind = GEMS_ARG_SCRATCH;
        kept->at = (uint32_t)gems_work_scratch(w, 0); /* its size is that of the launch */
        w->launch[w->nlaunches - 1].produces = true;
    } else if (arg->kind == GEMS_ARG_TENSOR) {
        kept->kind = GEMS_ARG_OPERAND;
        kept->n = arg->access;
        kept->at = (uint32_t)gems_work_operand(w, arg->p, arg->access);
    } else if (arg->kind == GEMS_ARG_VALUE) {
        void *bytes = gems_work_reserve(w, arg->n);
        if (bytes)
            memcpy(bytes, arg->p, arg->n);
        kept->at = bytes ? (uint32_t)((unsigned char *)bytes - w->bytes) : 0;
    }
}

static gems_work_launch *new_launch(gems_work *w, const gems_arg *args, int nargs)
{
    if (w->trouble.kind != GEMS_TROUBLE_NONE || !GROW(w, launch, own_launch, nlaunches, launch_room, 1) ||
        !GROW(w, arg, own_arg, nargs, arg_room, (size_t)nargs))
        return NULL;
    gems_work_launch *l = &w->launch[w->nlaunches++];
    *l = (gems_work_launch){.arg = w->nargs, .nargs = (uint32_t)nargs};
    for (int i = 0; i < nargs; i++)
        keep_arg(w, &args[i]);
    return l;
}

/* What the launch needs to compute one of its arguments. */
static void add_produced(gems_work *w, gems_work_launch *l, size_t items)
{
    const gems_produced *p = w->produced;
    if (w->trouble.kind != GEMS_TROUBLE_NONE || !GROW(w, arg, own_arg, nargs, arg_room, (size_t)p->nargs))
        return;
    w->scratch[w->nscratch - 1] = items * (size_t)p->room * p->element; /* taken with the launch's own arguments */
    for (int i = 0; i < p->nargs; i++)
        keep_arg(w, &p->args[i]);
    l->nargs += (uint32_t)p->nargs;
}

void gems_launch(gems_work *w, gems_kernel *kernel, int dims, const size_t *global, const size_t *local,
                 const gems_arg *args, int nargs)
{
    gems_work_launch *l = kernel ? new_launch(w, args, nargs) : NULL;
    if (!kernel)
        gems_trouble_note(&w->trouble, GEMS_TROUBLE_OTHER, "no kernel to launch");
    if (!l)
        return;
    if (w->late)
        l->wanted = w->wanted;
    else
        l->kernel = kernel;
    if (l->produces)
        add_produced(w, l, global[0]);
    l->dims = (uint8_t)dims;
    l->any_group = !local;
    for (int i = 0; i < dims; i++) {
        l->global[i] = global[i];
        l->local[i] = local ? local[i] : 1;
    }
}

void gems_launch_library(gems_work *w, gems_library *library, const void *payload, size_t bytes, const gems_arg *args,
                         int nargs)
{
    gems_work_launch *l = new_launch(w, args, nargs);
    if (!l || !GROW(w, arg, own_arg, nargs, arg_room, 1))
        return;
    keep_arg(w, &GEMS_BYTES(payload, bytes));
    l->library = library;
}
