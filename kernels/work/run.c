/* Running works.
 *
 * On a unified device kernels work on the host's own memory. Elsewhere operands are staged: memory that operands share
 * is one buffer, so that two views of one tensor see each other, and operands are places in it. Results go home when
 * all launches have ended well: those that replace what was read, and those with gaps, only after everything has
 * arrived, for until then the host can still do the call. */
#include "kernels/work/work.h"
#include "kernels/memory/memory.h"
#include "preload/base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOST_AFTER = 16, /* failed works in a row: the device is looked at, and given up if it does nothing any more */
    ALIGNMENT = 64,  /* an operand keeps its address' remainder by this in its buffer, which launchers count on */
    BOUND_ARGS = 64
};

static atomic_int failures_in_a_row;
static atomic_bool timing;
static _Atomic(const gems_work_memory *) memory;
static atomic_int unguarded; /* works that run */

void gems_work_on_memory(const gems_work_memory *m)
{
    atomic_store(&memory, m);
}

bool gems_work_stays(void)
{
    const gems_work_memory *m = atomic_load_explicit(&memory, memory_order_relaxed);
    return m && m->reach;
}

bool gems_work_may_keep(const gems_tensor *tensor)
{
    const gems_work_memory *m = atomic_load_explicit(&memory, memory_order_relaxed);
    return m && m->may_keep && m->may_keep((const void *)tensor->address); /* NOLINT(performance-no-int-to-ptr) */
}

bool gems_work_is_away(const gems_tensor *tensor)
{
    const gems_work_memory *m = atomic_load_explicit(&memory, memory_order_relaxed);
    return m && m->away && m->away((const void *)tensor->address); /* NOLINT(performance-no-int-to-ptr) */
}

bool gems_work_any_unguarded(void)
{
    return atomic_load(&unguarded) > 0;
}

void gems_work_set_timing(bool on)
{
    atomic_store(&timing, on);
}

bool gems_work_timing(void)
{
    return atomic_load_explicit(&timing, memory_order_relaxed);
}

/* Memory that some operands share. */
typedef struct region {
    uintptr_t begin, end; /* begin: the address that the buffer's first byte stands for */
    gems_buffer *buffer;
    bool read;
} region;

typedef struct staged {
    uint32_t region;
    char *bounce; /* where the result arrives before it goes to the host's memory; NULL: it goes there at once */
} staged;

/* A work while it runs. */
typedef struct run {
    gems_work *work;
    gems_queue *queue;
    gems_trouble *trouble; /* the queue's */
    bool stage;
    bool travels;      /* an operand is copied for the run */
    bool stream;       /* on the lane's stream, */
    bool must_wait;    /* until it has ended: the host's memory is read or written meanwhile */
    gems_bound *place; /* of each operand */
    staged *staged;
    region *regions;
    uint32_t nregions;
    gems_buffer *scratch[GEMS_WORK_SCRATCH];
    bool stays[GEMS_WORK_SCRATCH], there[GEMS_WORK_SCRATCH]; /* scratch that outlives the work; from an earlier one */
} run;

static uintptr_t address_of(const gems_operand *o)
{
    return o->allocation + o->offset;
}

/* ---- staging ---- */

static bool is_staged(const gems_work *w)
{
    const gems_device_info *device = gems_device_get(w->lane);
    bool replaces = false; /* what is read, so that a command which fails half-way would leave neither */
    for (uint32_t i = 0; i < w->noperands; i++)
        replaces |= w->operand[i].access == GEMS_READ_WRITE;
    return !device->unified || (replaces && !device->undoes);
}

typedef struct by_address {
    uintptr_t address;
    uint32_t operand;
} by_address;

static int compare(const void *a, const void *b)
{
    uintptr_t x = ((const by_address *)a)->address, y = ((const by_address *)b)->address;
    return (x > y) - (x < y);
}

/* Memory of operands that overlap becomes one region. */
static bool find_regions(run *r)
{
    const gems_work *w = r->work;
    by_address *order = malloc((w->noperands + 1) * sizeof *order);
    if (!order)
        return false;
    for (uint32_t i = 0; i < w->noperands; i++)
        order[i] = (by_address){address_of(&w->operand[i]), i};
    qsort(order, w->noperands, sizeof *order, compare);
    for (uint32_t k = 0; k < w->noperands; k++) {
        if (w->operand[order[k].operand].copy)
            continue;
        const gems_operand *o = &w->operand[order[k].operand];
        uintptr_t begin = order[k].address, end = begin + o->span;
        region *last = r->nregions ? &r->regions[r->nregions - 1] : NULL;
        if (!last || begin >= last->end) {
            last = &r->regions[r->nregions++];
            *last = (region){.begin = begin & ~(uintptr_t)(ALIGNMENT - 1), .end = end};
        }
        last->end = end > last->end ? end : last->end;
        last->read |= (o->access & GEMS_READ) != 0;
        r->staged[order[k].operand].region = r->nregions - 1;
    }
    free(order);
    return true;
}

/* Elements must be aligned on the device, also where the program's are not. False: operands of one region that are off
 * by different numbers of bytes. */
static bool align_regions(run *r)
{
    const gems_work *w = r->work;
    for (uint32_t i = 0; i < w->noperands; i++) {
        const gems_operand *o = &w->operand[i];
        region *g = &r->regions[r->staged[i].region];
        if (!o->copy && address_of(o) % o->element && (address_of(o) - g->begin) % o->element)
            g->begin -= ALIGNMENT - (address_of(o) - g->begin) % ALIGNMENT;
    }
    for (uint32_t i = 0; i < w->noperands; i++)
        if (!w->operand[i].copy &&
            (address_of(&w->operand[i]) - r->regions[r->staged[i].region].begin) % w->operand[i].element)
            return false;
    return true;
}

/* Copies what launches read. */
static void stage_in(run *r)
{
    gems_work *w = r->work;
    for (uint32_t i = 0; i < w->noperands; i++)
        if (w->operand[i].copy)
            r->place[i] = (gems_bound){GEMS_BOUND_PLACE, w->operand[i].copy_at, NULL, w->operand[i].copy};
        else
            r->travels = true;
    if (!r->travels)
        return;
    if (!find_regions(r)) {
        gems_trouble_note(r->trouble, GEMS_TROUBLE_MEMORY, "out of memory");
        return;
    }
    if (!align_regions(r)) {
        gems_trouble_note(r->trouble, GEMS_TROUBLE_NO_DEVICE, "elements are not aligned");
        return;
    }
    for (uint32_t k = 0; k < r->nregions; k++) {
        region *g = &r->regions[k];
        g->buffer = gems_memory_take(w->lane, g->end - g->begin, r->trouble);
        if (!g->buffer)
            return;
        uintptr_t first = UINTPTR_MAX, last = 0;
        for (uint32_t i = 0; i < w->noperands; i++) {
            const gems_operand *o = &w->operand[i];
            if (o->copy || r->staged[i].region != k)
                continue;
            r->place[i] = (gems_bound){GEMS_BOUND_PLACE, address_of(o) - g->begin, NULL, g->buffer};
            if (!(o->access & GEMS_READ))
                continue;
            first = address_of(o) < first ? address_of(o) : first;
            last = address_of(o) + o->span > last ? address_of(o) + o->span : last;
        }
        if (first < last) {
            gems_transfer t = {g->buffer, first - g->begin, (void *)first, last - first}; /* NOLINT */
            r->must_wait |= !gems_memory_upload(r->queue, w->lane, &t, r->stream);
            w->moved += last - first;
        }
    }
}

/* Brings results to the host's memory, or where they wait for the others. */
static void stage_out(run *r)
{
    gems_work *w = r->work;
    uint32_t replacing = 0;
    for (uint32_t i = 0; i < w->noperands; i++)
        replacing += !w->operand[i].copy && (w->operand[i].access & GEMS_WRITE) && r->regions[r->staged[i].region].read;
    for (int last = 0; last < 2; last++) /* what goes home at once goes last */
        for (uint32_t i = 0; i < w->noperands; i++) {
            const gems_operand *o = &w->operand[i];
            if (o->copy)
                continue;
            bool read = r->regions[r->staged[i].region].read, waits = o->gaps >= 0 || read;
            if (!(o->access & GEMS_WRITE) || o->span == 0 || waits != (last == 0))
                continue;
            r->must_wait = true;
            gems_transfer t = {r->regions[r->staged[i].region].buffer, r->place[i].n,
                               (void *)address_of(o), /* NOLINT */
                               o->span};
            w->moved += o->span;
            if (read && o->gaps < 0 && replacing == 1 && gems_memory_download(r->queue, w->lane, &t, true))
                continue;
            if (waits && !(t.host = r->staged[i].bounce = malloc(o->span))) {
                gems_trouble_note(r->trouble, GEMS_TROUBLE_MEMORY, "out of memory");
                return;
            }
            gems_memory_download(r->queue, w->lane, &t, false);
        }
}

/* The elements of a result with gaps, from its bounce buffer to the host's memory. */
static void scatter(const gems_nest *nest, size_t element, char *to, const char *from)
{
    gems_nest outer = *nest;
    int64_t n, step;
    gems_nest_split_inner(&outer, &n, &step);
    int64_t rows = gems_nest_count(&outer);
    for (int64_t row = 0; row < rows; row++) {
        size_t at = (size_t)gems_nest_offset(&outer, row) * element;
        if (step == 1)
            memcpy(to + at, from + at, (size_t)n * element);
        else
            for (int64_t i = 0; i < n; i++, at += (size_t)step * element)
                memcpy(to + at, from + at, element);
    }
}

/* Everything has ended well and arrived. */
static void land(run *r)
{
    const gems_work *w = r->work;
    for (uint32_t i = 0; i < w->noperands; i++) {
        const gems_operand *o = &w->operand[i];
        char *home = (char *)address_of(o); /* NOLINT: an address */
        if (!r->staged[i].bounce)
            continue;
        if (o->gaps < 0)
            memcpy(home, r->staged[i].bounce, o->span);
        else
            scatter(&w->gaps[o->gaps], o->element, home, r->staged[i].bounce);
    }
}

/* ---- launching ---- */

static gems_bound bind(const run *r, const gems_kept_arg *a)
{
    switch ((gems_arg_kind)a->kind) {
    case GEMS_ARG_SCRATCH:
        return (gems_bound){GEMS_BOUND_PLACE, 0, NULL, r->scratch[a->at]};
    case GEMS_ARG_VALUE:
        return (gems_bound){GEMS_BOUND_VALUE, a->n, r->work->bytes + a->at, NULL};
    case GEMS_ARG_LOCAL:
        return (gems_bound){GEMS_BOUND_LOCAL, a->n, NULL, NULL};
    default:
        return r->place[a->at];
    }
}

static void launch(run *r, const gems_work_launch *l)
{
    gems_bound own[BOUND_ARGS], *bound = l->nargs <= BOUND_ARGS ? own : malloc(l->nargs * sizeof *bound);
    if (!bound) {
        gems_trouble_note(r->trouble, GEMS_TROUBLE_MEMORY, "out of memory");
        return;
    }
    for (uint32_t i = 0; i < l->nargs; i++)
        bound[i] = bind(r, &r->work->arg[l->arg + i]);
    bool may_write = l->library != NULL; /* if it fails a part of it may run */
    if (l->library)
        l->library(r->queue, r->work->lane, bound, r->work->bytes + r->work->arg[l->arg + l->nargs].at);
    else
        gems_queue_launch(r->queue, l->kernel, l->dims, l->global, l->any_group ? NULL : l->local, bound,
                          (int)l->nargs);
    may_write |= r->trouble->kind == GEMS_TROUBLE_NONE;
    for (uint32_t i = l->arg; i < l->arg + l->nargs; i++)
        if (may_write && r->work->arg[i].kind == GEMS_ARG_OPERAND && (r->work->arg[i].n & GEMS_WRITE))
            r->work->operand[r->work->arg[i].at].written = true;
    if (bound != own)
        free(bound);
}

/* Memory for what may be there from an earlier work, and may stay for later ones. */
static bool take_kept(run *r, uint32_t i)
{
    gems_work *w = r->work;
    const gems_work_memory *m = atomic_load(&memory);
    const void *of = (const void *)w->kept[i].of; /* NOLINT(performance-no-int-to-ptr) */
    r->stays[i] =
        r->stream && of && m && m->kept && (r->scratch[i] = m->kept(of, w->kept[i].key, w->scratch[i], &r->there[i]));
    return r->stays[i];
}

/* What was made is there for later works, which run after this one. */
static void note_made(run *r)
{
    const gems_work *w = r->work;
    const gems_work_memory *m = atomic_load(&memory);
    for (uint32_t i = 0; i < w->nscratch; i++)
        if (r->stays[i] && !r->there[i])
            m->made((const void *)w->kept[i].of, w->kept[i].key); /* NOLINT(performance-no-int-to-ptr) */
}

static void take_memory(run *r)
{
    gems_work *w = r->work;
    for (uint32_t i = 0; i < w->nscratch && r->trouble->kind == GEMS_TROUBLE_NONE; i++) {
        if (take_kept(r, i))
            continue;
        r->scratch[i] = gems_memory_take(w->lane, w->scratch[i], r->trouble);
        if (!r->scratch[i] || w->filled[i] == GEMS_WORK_UNFILLED)
            continue;
        const gems_transfer t = {r->scratch[i], 0, w->bytes + w->filled[i], w->scratch[i]};
        r->must_wait |= !gems_memory_upload(r->queue, w->lane, &t, r->stream);
    }
    if (r->stage) {
        stage_in(r);
        return;
    }
    for (uint32_t i = 0; i < w->noperands; i++)
        r->place[i] = (gems_bound){GEMS_BOUND_PLACE, 0, (const void *)address_of(&w->operand[i]), NULL}; /* NOLINT */
}

static void give_memory(run *r)
{
    gems_lane lane = r->work->lane;
    for (uint32_t i = 0; i < r->work->nscratch; i++)
        if (r->scratch[i] && !r->stays[i])
            gems_memory_give(lane, r->scratch[i]);
    for (uint32_t k = 0; k < r->nregions; k++)
        if (r->regions[k].buffer)
            gems_memory_give(lane, r->regions[k].buffer);
    for (uint32_t i = 0; r->stage && i < r->work->noperands; i++)
        free(r->staged[i].bounce);
}

static bool device_works(gems_lane lane)
{
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};
    gems_queue *queue = gems_queue_take(lane, false, &trouble);
    bool works = queue && gems_queue_alive(queue);
    if (queue)
        gems_queue_give(queue);
    return works;
}

static void note_outcome(const gems_work *w)
{
    if (w->trouble.kind == GEMS_TROUBLE_NONE) {
        if (atomic_load_explicit(&failures_in_a_row, memory_order_relaxed))
            atomic_store(&failures_in_a_row, 0);
        return;
    }
    if (w->trouble.kind == GEMS_TROUBLE_MEMORY) /* some drivers allocate at first use */
        gems_memory_trim(w->lane);
    if (w->trouble.kind != GEMS_TROUBLE_NO_DEVICE && (atomic_fetch_add(&failures_in_a_row, 1) + 1) % LOST_AFTER == 0 &&
        !device_works(w->lane)) {
        gems_log("%d calls in a row failed on %s, the last one: %s; the host runs everything from now on", LOST_AFTER,
                 gems_device_get(w->lane)->name, w->trouble.text);
        gems_device_stop("the device failed too often");
    }
}

/* With a queue in hand. */
static void execute(run *r)
{
    gems_work *w = r->work;
    take_memory(r);
    for (uint32_t i = 0; i < w->nlaunches && r->trouble->kind == GEMS_TROUBLE_NONE; i++)
        if (!w->launch[i].makes || !r->there[w->launch[i].makes - 1])
            launch(r, &w->launch[i]);
    if (r->trouble->kind == GEMS_TROUBLE_NONE)
        note_made(r);
    if (r->travels && r->trouble->kind == GEMS_TROUBLE_NONE)
        stage_out(r);
    bool leaves = r->stream && !r->must_wait && gems_queue_may_be_left(r->queue);
    if (!leaves && gems_queue_settle(r->queue) && r->travels)
        land(r);
    w->device_ns += gems_queue_device_ns(r->queue);
    w->trouble = *r->trouble;
    give_memory(r); /* on the stream what comes next may have it at once */
    (leaves ? gems_queue_leave : gems_queue_give)(r->queue);
}

static void run_work(void *arg)
{
    gems_work *w = arg;
    struct {
        gems_bound place[GEMS_WORK_OPERANDS];
        region regions[GEMS_WORK_OPERANDS];
        staged staged[GEMS_WORK_OPERANDS];
    } own;
    if (w->lower) {
        w->nlaunches = w->nargs = 0; /* of an earlier run */
        w->lower(w);
    }
    for (uint32_t i = 0; i < w->nlaunches && w->trouble.kind == GEMS_TROUBLE_NONE; i++)
        if (!w->launch[i].kernel && !w->launch[i].library)
            w->launch[i].kernel = w->late(w, &w->launch[i]);
    if (w->trouble.kind != GEMS_TROUBLE_NONE || !w->nlaunches)
        return;
    run r = {.work = w, .stage = is_staged(w), .place = own.place, .regions = own.regions, .staged = own.staged};
    size_t n = w->noperands;
    void *heap = NULL;

    if (n <= GEMS_WORK_OPERANDS) {
        memset(own.staged, 0, n * sizeof *own.staged);
    } else {
        heap = calloc(n + 1, sizeof *r.place + sizeof *r.regions + sizeof *r.staged);
        if (!heap) {
            gems_trouble_note(&w->trouble, GEMS_TROUBLE_MEMORY, "out of memory");
            return;
        }
        r.place = heap;
        r.regions = (region *)(r.place + n + 1);
        r.staged = (staged *)(r.regions + n + 1);
    }
    r.stream = r.stage && gems_work_stays();
    r.queue = (r.stream ? gems_queue_take_stream : gems_queue_take)(w->lane, gems_work_timing(), &w->trouble);
    if (r.queue) {
        r.trouble = gems_queue_trouble(r.queue);
        execute(&r);
    }
    free(heap);
}

static const void *memory_of(const gems_operand *o)
{
    return (const void *)address_of(o); /* NOLINT(performance-no-int-to-ptr) */
}

/* The operands that are reached are so no more. */
static void leave(gems_work *w, const gems_work_memory *m, bool done)
{
    for (uint32_t i = 0; i < w->noperands; i++) {
        gems_operand *o = &w->operand[i];
        if (o->copy)
            m->leave(memory_of(o), (o->access & GEMS_WRITE) != 0,
                     done         ? GEMS_OUTCOME_DONE
                     : o->written ? GEMS_OUTCOME_UNKNOWN
                                  : GEMS_OUTCOME_UNTOUCHED);
        o->copy = NULL;
        o->written = false;
    }
}

/* What reaching a work's operands does: it replaces values that stay on the device, or brings them home, which may fail
 * after that. Not both. */
typedef struct {
    bool replaces, brings;
} effects;

/* The operands that are written, or those that are only read. False if one of them cannot be reached. */
static bool reach_some(gems_work *w, const gems_work_memory *m, bool written, effects *e)
{
    for (uint32_t i = 0; i < w->noperands; i++) {
        gems_operand *o = &w->operand[i];
        if (((o->access & GEMS_WRITE) != 0) != written)
            continue;
        gems_access access = o->access == GEMS_WRITE && o->gaps >= 0 ? GEMS_READ_WRITE : (gems_access)o->access;
        gems_reached reached = address_of(o) % o->element
                                   ? GEMS_UNREACHABLE
                                   : m->reach(memory_of(o), o->span, access, &o->copy, &o->copy_at);
        if (reached == GEMS_FOREIGN)
            e->brings |= written;
        else
            e->replaces |= o->access == GEMS_READ_WRITE;
        if (reached == GEMS_UNREACHABLE || (e->replaces && e->brings))
            return false;
    }
    return true;
}

/* All operands in blocks where they stay on the device, or none. What is written first: to reach it may have to wait
 * until nothing reads copies of what lies beside it. */
static void reach(gems_work *w, const gems_work_memory *m)
{
    effects e = {0};
    if (!reach_some(w, m, true, &e) || !reach_some(w, m, false, &e))
        leave(w, m, false);
}

bool gems_work_execute(gems_work *w)
{
    uint32_t nbytes = w->nbytes;
    w->moved = 0;
    w->device_ns = 0;
    const gems_work_memory *m = w->guarded ? NULL : atomic_load(&memory);
    if (m && m->reach && is_staged(w))
        reach(w, m);
    for (uint32_t i = 0; m && i < w->noperands; i++) {
        gems_operand *o = &w->operand[i];
        o->held = !o->copy && m->begin(memory_of(o), o->span, (o->access & GEMS_WRITE) != 0);
    }
    atomic_fetch_add(&unguarded, m != NULL);
    if (w->trouble.kind == GEMS_TROUBLE_NONE && (w->lower || w->nlaunches))
        gems_device_deep(run_work, w);
    atomic_fetch_sub(&unguarded, m != NULL);
    for (uint32_t i = 0; m && i < w->noperands; i++)
        if (w->operand[i].held)
            m->end(memory_of(&w->operand[i]), w->operand[i].span);
    if (m)
        leave(w, m, w->trouble.kind == GEMS_TROUBLE_NONE);
    if (w->lower) /* its launches are written anew by the next run */
        w->nbytes = nbytes;
    note_outcome(w);
    return w->trouble.kind == GEMS_TROUBLE_NONE;
}

gems_status gems_work_run(gems_work *w, gems_call *call)
{
    (void)gems_work_execute(w);
    call->bytes += w->moved;
    call->device_ns += w->device_ns;
    switch (w->trouble.kind) {
    case GEMS_TROUBLE_NONE:
        return GEMS_OK;
    case GEMS_TROUBLE_NO_DEVICE:
        snprintf(call->whybuf, sizeof call->whybuf, "%s", w->trouble.text);
        return gems_decline(call, call->whybuf);
    default:
        return gems_fail(call, "%s", w->trouble.text);
    }
}
