#include "kernels/scatter/sort.h"

#include <stdio.h>
#include <string.h>

enum {
    BITS = 4,
    DIGITS = 1 << BITS,
    EACH = 8
};

typedef enum pass {
    COUNT,
    BEGIN,
    ORDER,
    ORDER_FIRST
} pass;

static gems_kernel *kernel_for(gems_work *work, pass which, size_t group)
{
    static const char *const entries[] = {"count", "begin", "order", "order"};
    struct {
        char name[4]; /* no other kernel's identity is the same */
        int32_t pass;
        uint64_t group;
    } id = {"sort", (int32_t)which, group};
    char options[96];
    gems_kernel *kernel = gems_work_find(work, &id, sizeof id);
    if (kernel || work->trouble.kind != GEMS_TROUBLE_NONE)
        return kernel;
    snprintf(options, sizeof options, "-DKERNEL_%s -DGROUP=%zu -DEACH=%d%s", entries[which], group, EACH,
             which == ORDER_FIRST ? " -DFIRST" : "");
    return gems_work_build(work, &id, sizeof id,
                           &(gems_kernel_text){"sort", "kernels/scatter/sort.cl", "", options, entries[which]});
}

/* What the passes share. */
typedef struct sort {
    gems_work *work;
    int64_t n, tiles;
    size_t group;
    int counts, totals;
} sort;

static void launch_pass(const sort *s, gems_sorted from, gems_sorted to, int32_t shift)
{
    const size_t all = (size_t)s->tiles * s->group, digits = DIGITS * s->group;
    const gems_arg count[] = {GEMS_SCRATCH(from.keys), GEMS_SCRATCH(s->counts), GEMS_VALUE(s->n), GEMS_VALUE(shift)};
    const gems_arg begin[] = {GEMS_SCRATCH(s->counts), GEMS_SCRATCH(s->totals), GEMS_VALUE(s->tiles)};
    const gems_arg order[] = {GEMS_SCRATCH(from.keys), GEMS_SCRATCH(from.numbers), GEMS_SCRATCH(s->counts),
                              GEMS_SCRATCH(s->totals), GEMS_SCRATCH(to.keys),      GEMS_SCRATCH(to.numbers),
                              GEMS_VALUE(s->n),        GEMS_VALUE(shift)};
    gems_launch(s->work, kernel_for(s->work, COUNT, s->group), 1, &all, &s->group, count, 4);
    gems_launch(s->work, kernel_for(s->work, BEGIN, s->group), 1, &digits, &s->group, begin, 3);
    if (shift == 0) {
        const gems_arg first[] = {order[0], order[2], order[3], order[4], order[5], order[6], order[7]};
        gems_launch(s->work, kernel_for(s->work, ORDER_FIRST, s->group), 1, &all, &s->group, first, 7);
    } else {
        gems_launch(s->work, kernel_for(s->work, ORDER, s->group), 1, &all, &s->group, order, 8);
    }
}

gems_sorted gems_sort_launch(gems_work *work, int keys, int64_t n, int64_t end)
{
    sort s = {.work = work, .n = n, .group = gems_group(gems_device_get(work->lane), 256)};
    s.tiles = gems_ceil_div(n, (int64_t)s.group * EACH);
    const size_t bytes = (size_t)n * sizeof(uint32_t);
    s.counts = gems_work_scratch(work, (size_t)s.tiles * DIGITS * sizeof(uint32_t));
    s.totals = gems_work_scratch(work, DIGITS * sizeof(uint32_t));
    gems_sorted from = {keys, gems_work_scratch(work, bytes)};
    gems_sorted to = {gems_work_scratch(work, bytes), gems_work_scratch(work, bytes)};
    int32_t shift = 0;
    do {
        launch_pass(&s, from, to, shift);
        const gems_sorted sorted = to;
        to = from;
        from = sorted;
        shift += BITS;
    } while ((end - 1) >> shift);
    return from;
}
