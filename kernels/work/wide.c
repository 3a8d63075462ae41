#include "kernels/work/wide.h"

#include "tune/table.h"

#include <stdio.h>

bool gems_wide_rows(const gems_tensor *t, const gems_nest *rows)
{
    const uint64_t element = gems_dtypes[t->dtype].size;
    uint64_t bits = t->address;
    for (int64_t d = 0; d < rows->rank; d++)
        bits |= (uint64_t)rows->stride[d] * element;
    return bits % GEMS_WIDE == 0;
}

static int64_t power_below(int64_t v)
{
    int64_t p = 1;
    while (2 * p <= v)
        p *= 2;
    return p;
}

static int64_t at_most(int64_t v, int64_t most)
{
    return v < most ? v : most;
}

/* What a row costs beside its bytes, barriers and sums of all its items, weighs less the more vectors an item has: 4,
 * as long as 32 items and more share the row. With 1024 items on a multiprocessor, all that fit where each takes up to
 * 64 registers, that is 64 KiB on their way: twice what hides the memory's latency. Beyond 256 items rows get no more
 * groups of their own but longer items: 512 with up to 8 vectors in registers, the rest in local memory; only what does
 * not fit there twice gets 1024. Short rows share a group of 256. */
gems_hold gems_hold_for(const gems_choice *c, int64_t vectors)
{
    const gems_rule *rule = c->call->rule;
    const int64_t most = (int64_t)c->device->max_group;
    int64_t lanes = vectors <= 2 ? 1 : power_below(at_most((vectors + 1) / 2, 32));
    while (4 * lanes < vectors && lanes < 256)
        lanes *= 2;
    if (vectors > 1024)
        lanes = vectors > 512 * 16 ? 1024 : 512;
    lanes = power_below(at_most(gems_rule_param(rule, "lanes", lanes), most));
    const int64_t each = (vectors + lanes - 1) / lanes;
    gems_hold h = {.lanes = lanes, .rows = lanes < 256 ? power_below(at_most(256, most)) / lanes : 1};
    h.held = at_most(gems_rule_param(rule, "held", lanes > 256 ? 8 : 4), each);
    /* Beside it stands what the row's items exchange: at most 24 bytes each, and as much for 32 of them. */
    const int64_t group = lanes * h.rows, room = ((int64_t)c->device->local_static - 1024) / group - 24;
    h.spare = room < GEMS_WIDE ? 0 : at_most(at_most(each - h.held, 12), room / GEMS_WIDE);
    h.spare = at_most(gems_rule_param(rule, "spare", h.spare), h.spare);
    h.rest = h.held + h.spare < each;
    return h;
}

uint64_t gems_hold_types(const gems_hold *h)
{
    return (uint64_t)(h->lanes << 9 | h->held << 5 | h->spare << 1 | h->rest) << 36;
}

void gems_hold_defines(const gems_hold *h, char *text, size_t n)
{
    snprintf(text, n, "#define LANES %d\n#define HELD %d\n#define SPARE %d\n#define REST %d\n", (int)h->lanes,
             (int)h->held, (int)h->spare, h->rest);
}

void gems_hold_items(const gems_hold *h, int64_t rows, size_t global[2], size_t local[2])
{
    local[0] = (size_t)h->lanes;
    local[1] = (size_t)h->rows;
    global[0] = (size_t)((rows + h->rows - 1) / h->rows * h->lanes);
    global[1] = local[1];
}
