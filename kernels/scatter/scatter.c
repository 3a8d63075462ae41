#include "kernels/scatter/scatter.h"
#include "kernels/scatter/sort.h"

#include <stdio.h>
#include <string.h>

enum {
    CHUNK = 256, /* sources that one work-item adds up */
    WORD = 16    /* bytes, at most, that one copies */
};

typedef enum step {
    KEYS,
    RESET,
    PUT,
    PART,
    SUM
} step;

/* What makes a program, and identifies it: every byte is set. */
typedef struct program {
    char name[7]; /* "scatter": no other kernel's identity is the same */
    uint8_t step, dtype, word, how;
    bool claims, one, wide, scaled;
} program;

static program program_of(step s)
{
    return (program){.name = "scatter", .step = (uint8_t)s, .dtype = GEMS_DTYPE_NONE};
}

static const char *word_name(int bytes)
{
    static const char *const names[] = {"uchar", "ushort", "uint", "ulong", "ulong2"};
    return names[__builtin_ctz((unsigned)bytes)];
}

static const char *operator_of(const program *p)
{
    const bool adds = p->how == GEMS_SCATTER_ADD;
    if (p->dtype == GEMS_BOOL)
        return adds ? "|" : "&";
    return adds ? "+" : "*";
}

static gems_kernel *kernel_for(gems_work *work, const program *p)
{
    static const char *const entries[] = {"keys", "reset", "put", "part", "sum"};
    gems_kernel *kernel = gems_work_find(work, p, sizeof *p);
    if (kernel || work->trouble.kind != GEMS_TROUBLE_NONE)
        return kernel;
    char options[300];
    int n = snprintf(options, sizeof options, "-DKERNEL_%s%s%s -DWIDE=%s", entries[p->step],
                     p->claims ? " -DCLAIM" : "", p->one ? " -DONE" : "", p->wide ? "long" : "int");
    if (p->step == KEYS)
        snprintf(options + n, sizeof options - (size_t)n, " -DINDEX=%s", gems_dtypes[p->dtype].cl);
    else if (p->step == PUT)
        snprintf(options + n, sizeof options - (size_t)n, " -DW=%s", word_name(p->word));
    else if (p->step != RESET)
        snprintf(options + n, sizeof options - (size_t)n, " -DD=%s -DT=%s -DCHUNK=%d -DOPERATOR=%s%s",
                 gems_dtypes[p->dtype].name, gems_dtypes[p->dtype].compute, CHUNK, operator_of(p),
                 p->scaled ? " -DSCALED" : "");
    return gems_work_build(work, p, sizeof *p,
                           &(gems_kernel_text){"scatter", "kernels/types.cl kernels/nest.cl kernels/scatter/scatter.cl",
                                               "", options, entries[p->step]});
}

static void launch(gems_work *work, const program *p, int64_t items, const gems_arg *args, int nargs)
{
    const size_t local = gems_group(gems_device_get(work->lane), 256);
    const size_t global = ((size_t)items + local - 1) / local * local;
    gems_launch(work, kernel_for(work, p), 1, &global, &local, args, nargs);
}

/* Whether a count of items, or where the last group ends, does not fit an int. */
static bool is_wide(int64_t items)
{
    return items > INT32_MAX - 4096;
}

/* Sources' destinations; with `last` (not -1) each destination's last source, too. */
static int launch_keys(gems_work *work, const gems_scatter *s, int last)
{
    const int keys = gems_work_scratch(work, (size_t)s->sources * sizeof(uint32_t));
    program p = program_of(KEYS);
    p.dtype = (uint8_t)s->index->dtype;
    p.claims = last >= 0;
    gems_arg args[8] = {GEMS_IN(s->index), GEMS_SCRATCH(keys)};
    int n = 2;
    if (p.claims)
        args[n++] = GEMS_SCRATCH(last);
    args[n++] = GEMS_VALUE(s->at_index);
    args[n++] = GEMS_VALUE(s->base);
    args[n++] = GEMS_VALUE(s->sources);
    args[n++] = GEMS_VALUE(s->size);
    args[n++] = GEMS_VALUE(s->scale);
    launch(work, &p, s->sources, args, n);
    return keys;
}

static bool is_row(const gems_nest *nest)
{
    return nest->rank == 0 || (nest->rank == 1 && nest->stride[0] == 1);
}

/* Makes the elements of rows into words, as far as every stride and address allows. Returns the bytes of a word. */
static int widen(gems_scatter *s)
{
    const unsigned size = gems_dtypes[s->to->dtype].size;
    gems_nest *const rows[] = {&s->to_rows, &s->from_rows}, *const cols[] = {&s->to_cols, &s->from_cols};
    if (s->cols == 1 || !is_row(cols[0]) || !is_row(cols[1]))
        return (int)size;
    uint64_t bits = (uint64_t)s->cols * size | s->to->address | s->from->address;
    for (int i = 0; i < 2; i++)
        for (int d = 0; d < rows[i]->rank; d++)
            bits |= (uint64_t)rows[i]->stride[d] * size;
    unsigned by = 1;
    while (by * size < WORD && bits % (2 * (uint64_t)by * size) == 0)
        by *= 2;
    s->cols /= by;
    for (int i = 0; i < 2; i++) {
        cols[i]->size[0] /= by;
        for (int d = 0; d < rows[i]->rank; d++)
            rows[i]->stride[d] /= by;
    }
    return (int)(by * size);
}

static gems_arg written(const gems_scatter *s)
{
    return s->copied ? GEMS_OUT_ARG(s->to) : GEMS_INOUT(s->to);
}

static void launch_put(gems_work *work, gems_scatter *s)
{
    const int last = gems_work_scratch(work, (size_t)s->destinations * sizeof(int32_t));
    const gems_arg reset[] = {GEMS_SCRATCH(last), GEMS_VALUE(s->destinations)};
    program p = program_of(RESET);
    launch(work, &p, s->destinations, reset, 2);
    const int keys = launch_keys(work, s, last);
    p = program_of(PUT);
    p.word = (uint8_t)widen(s);
    p.one = s->cols == 1;
    p.wide = is_wide(gems_size_times(s->sources, s->cols));
    const gems_arg put[] = {
        GEMS_SCRATCH(keys),     GEMS_SCRATCH(last),     GEMS_IN(s->from),         written(s),
        GEMS_VALUE(s->to_rows), GEMS_VALUE(s->to_cols), GEMS_VALUE(s->from_rows), GEMS_VALUE(s->from_cols),
        GEMS_VALUE(s->sources), GEMS_VALUE(s->cols)};
    launch(work, &p, s->sources * s->cols, put, 10);
}

static void launch_sum(gems_work *work, const gems_scatter *s)
{
    const int64_t chunks = gems_ceil_div(s->sources, CHUNK);
    const gems_sorted sorted = gems_sort_launch(work, launch_keys(work, s, -1), s->sources, s->destinations);
    const int parts = gems_work_scratch(work, (size_t)(chunks * s->cols) * sizeof(double)); /* of any type */
    program p = program_of(PART);
    p.dtype = (uint8_t)s->to->dtype;
    p.how = (uint8_t)s->how;
    p.one = s->cols == 1;
    p.wide = is_wide(gems_size_times(s->sources, s->cols));
    p.scaled = s->scaled;
    const gems_dtype_info *dtype = &gems_dtypes[s->to->dtype];
    const size_t alpha = dtype->category == GEMS_CAT_FLOAT && dtype->size < sizeof(float) ? sizeof(float) : dtype->size;
    const gems_arg part[] = {GEMS_SCRATCH(sorted.keys), GEMS_SCRATCH(sorted.numbers), GEMS_IN(s->from),
                             GEMS_SCRATCH(parts),       GEMS_VALUE(s->from_rows),     GEMS_VALUE(s->from_cols),
                             GEMS_VALUE(s->sources),    GEMS_VALUE(s->cols),          GEMS_BYTES(&s->alpha, alpha)};
    if (chunks > 1)
        launch(work, &p, chunks * s->cols, part, 9);
    p.step = SUM;
    const gems_arg sum[] = {GEMS_SCRATCH(sorted.keys),
                            GEMS_SCRATCH(sorted.numbers),
                            GEMS_IN(s->from),
                            GEMS_SCRATCH(parts),
                            written(s),
                            GEMS_VALUE(s->to_rows),
                            GEMS_VALUE(s->to_cols),
                            GEMS_VALUE(s->from_rows),
                            GEMS_VALUE(s->from_cols),
                            GEMS_VALUE(s->sources),
                            GEMS_VALUE(s->cols),
                            GEMS_BYTES(&s->alpha, alpha)};
    launch(work, &p, s->sources * s->cols, sum, 12);
}

void gems_scatter_launch(gems_work *work, const gems_scatter *scatter)
{
    gems_scatter s = *scatter;
    if (s.how == GEMS_SCATTER_PUT)
        launch_put(work, &s);
    else
        launch_sum(work, &s);
}

const gems_variant gems_scatter_variants[] = {{"scatter"}, {NULL}};
