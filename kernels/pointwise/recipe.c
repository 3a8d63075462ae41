/* Recipes, and what becomes of them: loops, a kernel, a launch. */
#include "kernels/pointwise/recipe.h"
#include "kernels/work/launcher.h"
#include "tune/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void lower(gems_work *work);

pw_recipe *pw_recipe_new(gems_work *work, const gems_shape *shape, const char *name, const gems_rule *rule,
                         unsigned operands, unsigned steps)
{
    pw_recipe *r = gems_work_reserve(work, sizeof *r + steps * sizeof *r->spec.step + operands * sizeof(pw_in));
    if (!r)
        return NULL;
    memset(&r->spec, 0, sizeof r->spec + steps * sizeof *r->spec.step);
    r->shape = *shape;
    r->name = name;
    r->operands = operands;
    r->steps = steps;
    r->nothing = r->tables = false;
    r->end = false;
    r->end_id = 0;
    r->vec = gems_rule_param(rule, "vec", 0);
    r->run = gems_rule_param(rule, "run", 0);
    r->group = gems_rule_param(rule, "group", 0);
    r->tile = gems_rule_param(rule, "tile", 0);
    const char *variant = gems_rule_variant(rule);
    r->cpu = *variant ? strcmp(variant, "cpu") == 0 : gems_device_get(work->lane)->is_cpu;
    work->recipe = (uint32_t)((unsigned char *)r - work->bytes);
    work->lower = lower;
    return r;
}

static int add(pw_recipe *r, gems_dtype dtype, gems_pw_place place)
{
    if (r->spec.noperands == r->operands)
        return -1;
    r->spec.operand[r->spec.noperands] = (gems_pw_operand){.dtype = (uint8_t)dtype, .place = (uint8_t)place};
    return r->spec.noperands++;
}

int pw_recipe_memory(gems_work *work, pw_recipe *r, const gems_tensor *t, gems_pw_place place)
{
    int i = add(r, t->dtype, place);
    if (i < 0)
        return -1;
    pw_recipe_in(r)[i].operand = gems_work_operand(work, t, place == GEMS_PW_READ ? GEMS_READ : GEMS_WRITE);
    gems_shape_strides(&r->shape, t->ndim, t->sizes, t->strides, pw_recipe_in(r)[i].stride);
    return i;
}

int pw_recipe_value(pw_recipe *r, gems_dtype dtype, gems_element number)
{
    int i = add(r, dtype, GEMS_PW_VALUE);
    if (i < 0)
        return -1;
    pw_recipe_in(r)[i].operand = -1;
    pw_recipe_in(r)[i].number = number;
    return i;
}

int pw_recipe_produced(pw_recipe *r, gems_dtype dtype)
{
    pw_recipe_in(r)[r->spec.noperands].operand = -1;
    return add(r, dtype, GEMS_PW_WRITE);
}

void pw_recipe_update(gems_work *work, pw_recipe *r, int i)
{
    r->spec.operand[i].place = GEMS_PW_UPDATE;
    work->operand[pw_recipe_in(r)[i].operand].access = GEMS_READ_WRITE;
}

static bool uses_f64(const gems_pw_spec *s)
{
    bool uses = false;
    for (unsigned i = 0; i < s->noperands; i++)
        uses |= s->operand[i].dtype == GEMS_F64;
    for (unsigned i = 0; i < s->nsteps; i++)
        uses |= s->step[i].compute == GEMS_F64;
    return uses;
}

gems_status pw_recipe_end(gems_call *call, gems_work *work, pw_recipe *r)
{
    if (!gems_device_get(work->lane)->f64 && uses_f64(&r->spec))
        return gems_decline(call, "the device has no f64");
    return GEMS_OK;
}

/* ---- loops ---- */

#define SHORT_ROW 32

/* How many of the inner loops are walked as one. */
static int loops_in_row(const gems_loops *loops, int64_t *length)
{
    int n = 1;
    *length = loops->size[0];
    for (; *length < SHORT_ROW && n < loops->rank && *length * loops->size[n] <= GEMS_PW_ROW; n++)
        *length *= loops->size[n];
    return n;
}

int64_t pw_row_length(const gems_loops *loops)
{
    int64_t length;
    (void)loops_in_row(loops, &length);
    return length;
}

/* Where an operand's elements are in the first n loops, one after the other; how it is to be walked. */
static gems_pw_stride walk_row(const gems_loops *loops, int n, int64_t length, const int64_t *stride, int32_t *at)
{
    int64_t dense = 1;
    bool unit = true, broadcast = true;
    for (int k = 0; k < n; k++) {
        unit = unit && stride[k] == dense;
        broadcast = broadcast && stride[k] == 0;
        dense *= loops->size[k];
    }
    for (int64_t i = 0; i < length; i++) {
        int64_t left = i, offset = 0;
        for (int k = 0; k < n; k++) {
            offset += left % loops->size[k] * stride[k];
            left /= loops->size[k];
        }
        at[i] = (int32_t)offset;
    }
    return broadcast ? GEMS_PW_BROADCAST : unit ? GEMS_PW_UNIT : GEMS_PW_TABLE;
}

/* Makes the short inner loops one, of operands whose walk is told by `strides` and, where that is a table, by `at`. */
static void join_short_loops(gems_loops *loops, int noperands, uint8_t *strides, int32_t (*at)[GEMS_PW_ROW])
{
    int64_t length;
    const int n = loops_in_row(loops, &length);
    if (n == 1 || loops->wide)
        return;
    for (int i = 0; i < noperands; i++) {
        int64_t *s = loops->stride[i];
        strides[i] = (uint8_t)walk_row(loops, n, length, s, at[i]);
        memmove(s + 1, s + n, (size_t)(loops->rank - n) * sizeof *s);
        s[0] = strides[i] == GEMS_PW_UNIT;
    }
    memmove(loops->size + 1, loops->size + n, (size_t)(loops->rank - n) * sizeof *loops->size);
    loops->size[0] = length;
    loops->rank -= n - 1;
}

#define TILE_LEAST 8 /* elements along either loop that are worth a tile */

static void swap_loops(gems_loops *loops, int n, int a, int b)
{
    int64_t size = loops->size[a];
    loops->size[a] = loops->size[b];
    loops->size[b] = size;
    for (int i = 0; i < n; i++) {
        int64_t stride = loops->stride[i][a];
        loops->stride[i][a] = loops->stride[i][b];
        loops->stride[i][b] = stride;
    }
}

/* On a GPU, operands that are dense along another loop than the results go through tiles of local memory: that loop
 * becomes the second. Returns an edge of the tiles; 0: there is no such operand. */
static uint8_t turn_operands(const gems_work *work, pw_recipe *r, gems_loops *loops, int n)
{
    gems_pw_spec *s = &r->spec;
    const gems_device_info *device = gems_device_get(work->lane);
    const size_t room = device->local_bytes / 2;
    int turned = 0;
    size_t bytes = 0;
    for (unsigned i = 0, k = 0; i < s->noperands; i++) {
        if (pw_recipe_in(r)[i].operand < 0)
            continue;
        const int64_t *stride = loops->stride[k++];
        if (s->operand[i].place != GEMS_PW_READ && stride[0] != 1)
            return 0;
        for (int d = 1; d < loops->rank && !turned && s->operand[i].place == GEMS_PW_READ; d++)
            if (stride[d] == 1 && stride[0] > 1 && loops->size[d] >= TILE_LEAST && loops->size[0] >= TILE_LEAST)
                turned = d;
    }
    if (!turned || device->max_group < 256)
        return 0;
    swap_loops(loops, n, 1, turned);
    for (unsigned i = 0, k = 0; i < s->noperands; i++)
        if (pw_recipe_in(r)[i].operand >= 0) {
            const int64_t *stride = loops->stride[k++];
            const size_t more = (size_t)gems_dtypes[s->operand[i].dtype].size * 32 * 36;
            if (s->operand[i].place == GEMS_PW_READ && stride[1] == 1 && stride[0] > 1 && bytes + more <= room) {
                s->operand[i].stride = GEMS_PW_TURNED;
                bytes += more;
            }
        }
    return bytes == 0 ? 0 : r->tile != 32 && 4 * bytes <= room ? 64 : 32;
}

/* On a GPU, elements of a vector where rows are whole ones that all operands have side by side, or one element for all
 * of them: as many as fill 16 bytes of the widest operand, or a half or quarter of that. 0: no vectors. */
static uint8_t vector_in_rows(pw_recipe *r, const gems_loops *loops, int64_t most)
{
    const gems_pw_spec *s = &r->spec;
    for (int64_t vec = most; vec >= 2; vec /= 2) {
        bool fits = loops->size[0] % vec == 0;
        for (unsigned i = 0, k = 0; i < s->noperands && fits; i++) {
            if (pw_recipe_in(r)[i].operand < 0)
                continue;
            const int64_t *stride = loops->stride[k++];
            fits = stride[0] == 1 || (stride[0] == 0 && s->operand[i].place == GEMS_PW_READ);
            for (int d = 1; d < loops->rank && fits && stride[0]; d++)
                fits = stride[d] % vec == 0;
        }
        if (fits)
            return (uint8_t)vec;
    }
    return 0;
}

/* Merges the loops and chooses how they are walked. False: too many of them. */
static bool choose_loops(gems_work *work, gems_loops *loops, pw_tables tables)
{
    pw_recipe *r = pw_recipe_of(work);
    gems_pw_spec *s = &r->spec;
    int n = 0, widest = 1;
    bool dense = true;
    gems_strides strides[GEMS_OPERANDS]; /* of operands in memory, by their position among them */
    for (unsigned i = 0; i < s->noperands; i++)
        if (pw_recipe_in(r)[i].operand >= 0) {
            memcpy(strides[n++], pw_recipe_in(r)[i].stride, (size_t)r->shape.ndim * sizeof(int64_t));
            int size = gems_dtypes[s->operand[i].dtype].size;
            widest = size > widest ? size : widest;
        }
    if (r->end)
        gems_collapse_in_order(&r->shape, n, (const gems_strides *)strides, loops);
    else
        gems_collapse(&r->shape, n, (const gems_strides *)strides, loops);
    uint8_t rows[GEMS_OPERANDS];
    memset(rows, GEMS_PW_STRIDED, sizeof rows);
    if (r->tables && r->cpu)
        join_short_loops(loops, n, rows, tables);
    if (loops->rank > GEMS_RANK) {
        gems_trouble_note(&work->trouble, GEMS_TROUBLE_NO_DEVICE, "more than %d loops", GEMS_RANK);
        return false;
    }
    for (unsigned i = 0, k = 0; i < s->noperands; i++)
        if (pw_recipe_in(r)[i].operand >= 0) {
            int64_t stride = loops->stride[k][0];
            bool table = rows[k++] == GEMS_PW_TABLE;
            s->operand[i].stride = table         ? GEMS_PW_TABLE
                                   : stride == 0 ? GEMS_PW_BROADCAST
                                   : stride == 1 ? GEMS_PW_UNIT
                                                 : GEMS_PW_STRIDED;
            dense = dense && !table;
            dense = dense && stride <= 1 && (stride == 1 || s->operand[i].place == GEMS_PW_READ);
        } else if (s->operand[i].place == GEMS_PW_WRITE) {
            s->operand[i].stride = GEMS_PW_UNIT;
        }
    dense = dense && loops->rank == 1 && !r->end;
    s->loop = r->end  ? GEMS_PW_PRODUCE
              : dense ? (r->cpu ? GEMS_PW_RUN : GEMS_PW_VEC)
                      : (r->cpu ? GEMS_PW_ROWS : GEMS_PW_GRID);
    s->vec = s->rank = s->wide = 0;
    int64_t vec = r->vec ? r->vec : widest < 16 ? 16 / widest : 1;
    vec = vec == 2 || vec == 4 || vec == 8 || vec == 16 ? vec : 2;
    if (s->loop == GEMS_PW_VEC)
        s->vec = (uint8_t)vec;
    if (!dense) {
        s->rank = (uint8_t)loops->rank;
        s->wide = loops->wide;
        if (s->loop == GEMS_PW_GRID && (s->vec = vector_in_rows(r, loops, vec)))
            return true;
        if (!r->cpu) /* one formula for every stride */
            for (unsigned i = 0; i < s->noperands; i++)
                s->operand[i].stride = 0;
        if (s->loop == GEMS_PW_GRID && (s->vec = turn_operands(work, r, loops, n)))
            s->loop = GEMS_PW_TILE;
    }
    return true;
}

bool pw_recipe_choose(gems_work *work)
{
    gems_loops loops;
    pw_tables tables;
    return choose_loops(work, &loops, tables);
}

/* ---- launch ---- */

static gems_arg one_size(bool wide, int64_t v, pw_sizes *to)
{
    if (wide)
        to->l[0] = v;
    else
        to->i[0] = (int32_t)v;
    return GEMS_BYTES(to, wide ? sizeof *to->l : sizeof *to->i);
}

static gems_arg eight_sizes(bool wide, int rank, const int64_t *v, pw_sizes *to)
{
    memset(to, 0, sizeof *to);
    for (int d = 0; d < rank; d++)
        if (wide)
            to->l[d] = v[d];
        else
            to->i[d] = (int32_t)v[d];
    return GEMS_BYTES(to, wide ? sizeof to->l : sizeof to->i);
}

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* The first arguments: memory, values, and where loops are nested sizes and strides, of which `used` says how many. */
static int operand_args(pw_recipe *r, const gems_loops *loops, pw_tables tables, gems_arg *args, pw_sizes *sizes,
                        int *used)
{
    const gems_pw_spec *s = &r->spec;
    const pw_in *in = pw_recipe_in(r);
    int n = 0, nmemory = 0;
    for (unsigned i = 0; i < s->noperands; i++)
        if (in[i].operand >= 0) {
            args[n++] = GEMS_OPERAND(in[i].operand);
            nmemory++;
        }
    for (unsigned i = 0; i < s->noperands; i++)
        if (s->operand[i].place == GEMS_PW_VALUE)
            args[n++] = GEMS_BYTES(&in[i].number, strcmp(gems_dtypes[s->operand[i].dtype].compute, "float") == 0
                                                      ? sizeof(float)
                                                      : gems_dtypes[s->operand[i].dtype].size);
    if (s->rank) {
        args[n++] = eight_sizes(s->wide, s->rank, loops->size, &sizes[(*used)++]);
        for (int k = 0; k < nmemory; k++)
            args[n++] = eight_sizes(s->wide, s->rank, loops->stride[k], &sizes[(*used)++]);
        for (unsigned i = 0, k = 0; i < s->noperands; i++)
            if (in[i].operand >= 0) {
                if (s->operand[i].stride == GEMS_PW_TABLE)
                    args[n++] = GEMS_BYTES(tables[k], sizeof *tables);
                k++;
            }
    }
    return n;
}

int pw_recipe_producer(gems_work *work, gems_arg *args, pw_sizes *sizes, pw_tables tables)
{
    gems_loops loops;
    int used = 0;
    return choose_loops(work, &loops, tables) ? operand_args(pw_recipe_of(work), &loops, tables, args, sizes, &used)
                                              : -1;
}

/* Arguments in the order that codegen/pointwise.h gives, and how many work-items share the work. */
static void launch(gems_work *work, gems_kernel *kernel, pw_recipe *r, const gems_loops *loops, pw_tables tables)
{
    const gems_device_info *device = gems_device_get(work->lane);
    const gems_pw_spec *s = &r->spec;
    gems_arg args[PW_PRODUCER_ARGS + 8];
    pw_sizes sizes[GEMS_OPERANDS + 6];
    int used = 0, n = operand_args(r, loops, tables, args, sizes, &used);
    int64_t numel = r->nothing ? 0 : r->shape.numel, units = device->compute_units;
    int64_t least = r->run ? r->run : 8192;
    size_t local = 1, global;
    if (s->loop == GEMS_PW_RUN) {
        int64_t items = units > 1 ? clamp(numel / least, 1, 4 * units) : 1;
        int64_t run = numel ? (gems_ceil_div(numel, items) + 63) & ~INT64_C(63) : 64;
        args[n++] = one_size(true, numel, &sizes[used++]);
        args[n++] = one_size(true, run, &sizes[used++]);
        global = (size_t)clamp(gems_ceil_div(numel, run), 1, INT64_MAX);
    } else if (s->loop == GEMS_PW_ROWS) {
        int64_t inner = loops->size[0], rows = r->shape.numel / inner, most = units > 1 ? 4 * units : 1;
        int64_t run = gems_ceil_div(inner, clamp(inner / least, 1, gems_ceil_div(most, rows)));
        int64_t deep = clamp(gems_ceil_div(rows, most), 1, rows);
        deep = deep * run < least ? clamp(gems_ceil_div(least, run), 1, rows) : deep;
        rows = r->nothing ? 0 : rows;
        int64_t chunks = gems_ceil_div(inner, run);
        args[n++] = one_size(s->wide, rows, &sizes[used++]);
        args[n++] = one_size(s->wide, run, &sizes[used++]);
        args[n++] = one_size(s->wide, chunks, &sizes[used++]);
        args[n++] = one_size(s->wide, deep, &sizes[used++]);
        global = (size_t)(clamp(gems_ceil_div(rows, deep), 1, rows + 1) * chunks);
    } else if (s->loop == GEMS_PW_TILE) {
        const int64_t edge = s->vec, tiles = gems_ceil_div(loops->size[0], edge) * gems_ceil_div(loops->size[1], edge) *
                                             (r->shape.numel / (loops->size[0] * loops->size[1]));
        args[n++] = one_size(s->wide, r->nothing ? 0 : tiles, &sizes[used++]);
        local = 256;
        global = (size_t)(tiles ? tiles : 1) * local;
    } else {
        const bool vec = s->loop == GEMS_PW_VEC;
        int64_t items = s->vec ? gems_ceil_div(numel, s->vec) : numel;
        args[n++] = one_size(vec || s->wide, vec ? numel : items, &sizes[used++]);
        local = (size_t)clamp(r->group ? r->group : 256, 1, (int64_t)device->max_group);
        global = (size_t)clamp(gems_ceil_div(items, (int64_t)local), 1, 64 * units) * local;
    }
    gems_launch(work, kernel, 1, &global, &local, args, n);
}

void pw_recipe_nothing(gems_work *work)
{
    const int32_t nothing = 1;
    pw_recipe_of(work)->nothing = true;
    for (uint32_t i = 0; i < work->nlaunches; i++) {
        gems_work_launch *l = &work->launch[i];
        if (l->produces)
            memcpy(work->bytes + work->arg[l->arg + l->nargs - 1].at, &nothing, sizeof nothing);
        else /* one group, whose result is of no meaning */
            memcpy(l->global, l->local, sizeof l->global);
    }
}

static void lower(gems_work *work)
{
    pw_recipe *r = pw_recipe_of(work);
    size_t ntables = r->tables ? r->spec.noperands : 0;
    if (!gems_work_room(work, (sizeof(pw_sizes) + 16) * (r->spec.noperands + 6u) + ntables * sizeof(pw_tables[0])))
        return;
    r = pw_recipe_of(work); /* which stays put now */
    gems_loops loops;
    pw_tables tables;
    if (!choose_loops(work, &loops, tables))
        return;
    gems_kernel *kernel = gems_work_find(work, &r->spec, gems_pw_spec_bytes(&r->spec));
    if (!kernel && work->trouble.kind == GEMS_TROUBLE_NONE) {
        char entry[80]; /* not the bare name: "abs" is taken */
        snprintf(entry, sizeof entry, "pw_%s", r->name);
        char *source = gems_pw_source(&r->spec, entry);
        if (source)
            kernel = gems_work_build(work, &r->spec, gems_pw_spec_bytes(&r->spec),
                                     &(gems_kernel_text){r->name, "kernels/math.cl", source, "", entry});
        free(source);
    }
    launch(work, kernel, r, &loops, tables);
}

const gems_variant pw_variants[] = {
    {.name = "cpu", .params = {{"run", 64, 1073741824, 1, 8192}}, .suits = gems_suits_cpu},
    {.name = "gpu",
     .params = {{"vec", 2, 16, 2, 0}, {"group", 1, 1024, 1, 256}, {"tile", 32, 64, 32, 0}},
     .suits = gems_suits_gpu},
    {NULL},
};
