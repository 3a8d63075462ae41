#include "kernels/work/launcher.h"

#include "kernels/embedded.h"
#include "tune/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gems_lane gems_lane_for(const gems_call *call)
{
    const gems_family *family = call->op->kernel;
    bool small =
        call->sizes.v[GEMS_SIZE_NUMEL] < family->small_numel || call->sizes.v[GEMS_SIZE_BYTES] < family->small_bytes;
    if (gems_work_stays()) /* where what stays there is */
        return GEMS_LANE_MAIN;
    return gems_rule_param(call->rule, "lane", small) ? GEMS_LANE_SMALL : GEMS_LANE_MAIN;
}

/* NULL, or why not. */
static const char *refuses(const gems_choice *c)
{
    const gems_variant *v = c->variant;
    if (v->device && !v->device(c->device))
        return "the rule's variant does not run on this device";
    if (v->dtypes && !(v->dtypes >> c->call->dtype & 1))
        return "the rule's variant does not have this dtype";
    return v->can && !v->can(c) ? "the rule's variant does not fit" : NULL;
}

/* The variant that the rule names, or else the first that suits, of those that are not among `failed`. NULL: none. */
static const gems_variant *choose(gems_choice *c, uint32_t failed, const char **why)
{
    const gems_variant *first = c->call->op->kernel->variants, *suits = NULL;
    const char *named = gems_rule_variant(c->call->rule);
    for (const gems_variant *v = first; v->name; v++) {
        bool is_named = strcmp(v->name, named) == 0;
        c->variant = v;
        if ((failed >> (v - first) & 1) ||
            (!is_named && (suits || (v->device && !v->device(c->device)) || (v->suits && !v->suits(c)))))
            continue;
        const char *refused = refuses(c);
        if (is_named && !refused)
            return v;
        if (is_named)
            *why = refused;
        else if (!refused)
            suits = v;
    }
    return suits;
}

gems_status gems_launch_variant(gems_call *call, gems_work *work, const void *problem)
{
    gems_choice c = {call, work, gems_device_get(work->lane), problem, NULL};
    const gems_work_mark before = gems_work_marked(work);
    const char *why = NULL; /* for the log: routed, but not to what the rule names */
    uint32_t failed = 0;
    for (const gems_variant *v; (v = choose(&c, failed, &why));) {
        c.variant = v;
        v->launch(&c);
        if (work->trouble.kind != GEMS_TROUBLE_OTHER) {
            if (!call->why)
                call->why = why;
            return GEMS_OK;
        }
        /* Its kernel is out of use: what needs another one can still be done. */
        failed |= 1u << gems_choice_index(&c);
        if (!choose(&c, failed, &why))
            return GEMS_OK; /* the trouble says why not */
        gems_work_rewind(work, before);
    }
    return gems_decline(call, "no variant fits");
}

bool gems_suits_cpu(const gems_choice *c)
{
    return c->device->is_cpu;
}

bool gems_suits_gpu(const gems_choice *c)
{
    return !c->device->is_cpu;
}

bool gems_device_has_wgmma(const gems_device_info *device)
{
    return device->wgmma;
}

/* Eight times the cores, so that a core that is late does not hold up the rest. */
int64_t gems_cpu_items(const gems_device_info *device, int64_t units)
{
    int64_t most = device->compute_units > 1 ? 8 * (int64_t)device->compute_units : 1;
    return units < most ? units : most;
}

size_t gems_group(const gems_device_info *device, size_t most)
{
    while (most > device->max_group && most > 1)
        most /= 2;
    return most;
}

/* Compared byte by byte: there is no padding. */
typedef struct kernel_id {
    const char *file, *entry;
    const gems_op *op;
    uint64_t types, group;
} kernel_id;

static kernel_id id_of(const gems_op *op, const gems_kernel_wanted *k)
{
    return (kernel_id){k->file, k->entry, op, k->types << 2 | (uint64_t)k->dense << 1 | k->part, k->group};
}

/* An identity and n more bytes; free it. */
static unsigned char *whole_id(const gems_kernel_parts *parts, const void *more, size_t n)
{
    const kernel_id id = id_of(parts->op, &parts->wanted);
    unsigned char *whole = malloc(sizeof id + n);
    if (whole) {
        memcpy(whole, &id, sizeof id);
        if (n)
            memcpy(whole + sizeof id, more, n);
    }
    return whole;
}

gems_kernel *gems_kernel_find_parts(gems_work *work, const gems_kernel_parts *parts, const void *more, size_t n)
{
    unsigned char *id = whole_id(parts, more, n);
    gems_kernel *kernel = id ? gems_work_find(work, id, sizeof(kernel_id) + n) : NULL;
    free(id);
    return kernel;
}

gems_kernel *gems_kernel_build_parts(gems_work *work, const gems_kernel_parts *parts, const char *includes,
                                     const char *before, const void *more, size_t n)
{
    static const char helpers[] =
        "#include \"kernels/types.cl\"\n#include \"kernels/nest.cl\"\n#include \"kernels/rows.cl\"\n";
    const gems_kernel_wanted *k = &parts->wanted;
    const gems_embedded_file *f = gems_embedded_find(k->file);
    unsigned char *id = whole_id(parts, more, n);
    char *source = NULL;
    gems_kernel *kernel = NULL;
    if (f && id &&
        asprintf(&source, "%s#define KERNEL_%s\n#define GROUP %zu\n%s%s%s%s%s", before, k->entry, k->group,
                 k->dense ? "#define DENSE_ROWS\n" : "", k->part ? "#define PART\n" : "", parts->defines, helpers,
                 f->text) >= 0)
        kernel = gems_work_build(work, id, sizeof(kernel_id) + n,
                                 &(gems_kernel_text){parts->op->strukt, includes, source, "-w", k->entry});
    free(id);
    free(source);
    return kernel;
}

static void write_parts(gems_kernel_parts *parts, const gems_choice *c, const gems_kernel_wanted *k)
{
    parts->wanted = *k;
    parts->op = c->call->op;
    *parts->defines = '\0';
    k->defines(c, parts->defines, sizeof parts->defines);
}

gems_kernel *gems_kernel_for(const gems_choice *c, const gems_kernel_wanted *k)
{
    if (c->work->late) {
        gems_kernel_parts *parts = gems_work_reserve(c->work, sizeof *parts);
        if (!parts)
            return NULL;
        write_parts(parts, c, k);
        c->work->wanted = (uint32_t)((unsigned char *)parts - c->work->bytes);
        return (gems_kernel *)(void *)parts;
    }
    const kernel_id id = id_of(c->call->op, k);
    gems_kernel *kernel = gems_work_find(c->work, &id, sizeof id);
    if (kernel || c->work->trouble.kind != GEMS_TROUBLE_NONE)
        return kernel;
    gems_kernel_parts parts;
    write_parts(&parts, c, k);
    return gems_kernel_build_parts(c->work, &parts, NULL, "", NULL, 0);
}
