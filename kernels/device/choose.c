/* Which devices there are, and which of them is used: by GEMS_VENDOR, GEMS_DEVICE, LOCAL_RANK, and preference. */
#include "kernels/device/internal.h"
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_PLATFORMS 16

/* A vendor whose devices were left out since something that it needs is missing, and what; NULL: none. */
static const gems_vendor_data *left_out;
static char missing[200];

char *gems_choose_text(cl_device_id id, cl_device_info what)
{
    char text[512] = "";
    if (CL(clGetDeviceInfo, id, what, sizeof text, text, NULL) != CL_SUCCESS)
        text[0] = 0;
    return strdup(text);
}

char *gems_choose_platform_text(cl_platform_id id, cl_platform_info what)
{
    char text[512] = "";
    if (CL(clGetPlatformInfo, id, what, sizeof text, text, NULL) != CL_SUCCESS)
        text[0] = 0;
    return strdup(text);
}

uint64_t gems_choose_number(cl_device_id id, cl_device_info what)
{
    uint64_t value = 0; /* cl_uint, cl_bool, size_t, cl_ulong: little-endian, so the low bytes are right */
    return CL(clGetDeviceInfo, id, what, sizeof value, &value, NULL) == CL_SUCCESS ? value : 0;
}

int gems_choose_class(cl_device_type type)
{
    return type & CL_DEVICE_TYPE_GPU ? 0 : type & CL_DEVICE_TYPE_ACCELERATOR ? 1 : 2;
}

static unsigned add_devices(cl_platform_id platform, gems_candidate *out, unsigned n, unsigned room)
{
    cl_device_id ids[32];
    cl_uint found = 0;
    unsigned before = n;

    if (CL(clGetDeviceIDs, platform, CL_DEVICE_TYPE_ALL, 32, ids, &found) != CL_SUCCESS)
        return n;
    char *platform_name = gems_choose_platform_text(platform, CL_PLATFORM_NAME);
    char *maker = gems_choose_platform_text(platform, CL_PLATFORM_VENDOR);
    for (cl_uint i = 0; i < found && i < 32 && n < room; i++) {
        if (!gems_choose_number(ids[i], CL_DEVICE_AVAILABLE) ||
            !gems_choose_number(ids[i], CL_DEVICE_COMPILER_AVAILABLE) ||
            !gems_choose_number(ids[i], CL_DEVICE_ENDIAN_LITTLE) ||
            gems_choose_number(ids[i], CL_DEVICE_ADDRESS_BITS) != 64)
            continue;
        gems_candidate *c = &out[n];
        *c = (gems_candidate){platform, ids[i], gems_choose_number(ids[i], CL_DEVICE_TYPE), NULL, platform_name, NULL,
                              0,        false};
        c->name = gems_choose_text(ids[i], CL_DEVICE_NAME);
        for (const gems_vendor_data *v = gems_vendor_all(); v->name && !c->vendor; v++)
            if (gems_vendor_matches(v, platform_name, maker, c->name))
                c->vendor = v;
        if (c->vendor && !gems_vendor_may_build(c->vendor, missing, sizeof missing))
            left_out = c->vendor;
        else
            n += c->vendor != NULL;
    }
    if (n == before)
        free(platform_name);
    free(maker);
    return n;
}

/* A device that is there to serve small calls only, beside a main one of the same platform. */
static bool only_small(const gems_candidate *c, const gems_candidate *all, unsigned n)
{
    if (!gems_vendor_has_prefix(c->vendor->small_devices, c->name))
        return false;
    for (unsigned i = 0; i < n; i++)
        if (all[i].platform == c->platform && &all[i] != c &&
            gems_vendor_has_prefix(c->vendor->main_devices, all[i].name) &&
            !gems_vendor_has_prefix(c->vendor->small_devices, all[i].name))
            return true;
    return false;
}

static int by_preference(const void *a, const void *b)
{
    const gems_candidate *x = a, *y = b;
    int kind = gems_choose_class(x->type) - gems_choose_class(y->type);
    if (x->only_small != y->only_small)
        return x->only_small - y->only_small;
    if (kind)
        return kind;
    return x->vendor->order != y->vendor->order ? x->vendor->order - y->vendor->order : (int)x->found - (int)y->found;
}

unsigned gems_choose_find(gems_candidate *out, unsigned room)
{
    const char *forced = gems_config_get()->vendor;
    cl_platform_id ids[MAX_PLATFORMS];
    cl_uint found = 0;
    unsigned n = 0;

    if (CL(clGetPlatformIDs, MAX_PLATFORMS, ids, &found) == CL_SUCCESS)
        for (cl_uint i = 0; i < found && i < MAX_PLATFORMS; i++)
            n = add_devices(ids[i], out, n, room);

    for (const gems_vendor_data *v = gems_vendor_all(); v->name && !gems_cl_is_one_driver(); v++) {
        bool wanted = forced ? strcasecmp(forced, v->name) == 0 : !getenv("OCL_ICD_VENDORS");
        for (unsigned i = 0; i < n && wanted; i++)
            wanted = out[i].vendor != v;
        for (const char *const *lib = v->libraries; wanted && lib && *lib; lib++) {
            unsigned more = gems_cl_driver_platforms(*lib, ids, MAX_PLATFORMS);
            for (unsigned i = 0; i < more; i++)
                n = add_devices(ids[i], out, n, room);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        out[i].found = i;
        out[i].only_small = only_small(&out[i], out, n);
    }
    qsort(out, n, sizeof *out, by_preference);
    return n;
}

/* Whether GEMS_VENDOR lets this vendor's devices be used. */
static bool is_allowed(const gems_vendor_data *vendor)
{
    const char *forced = gems_config_get()->vendor;
    return !forced || strcasecmp(forced, vendor->name) == 0;
}

bool gems_choose_counts(const gems_candidate *candidate)
{
    return is_allowed(candidate->vendor) && !candidate->only_small;
}

static void describe(const gems_candidate *all, unsigned n, char *out, size_t room)
{
    size_t used = 0;
    out[0] = 0;
    for (unsigned i = 0; i < n && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%s: %s", i ? "; " : "", all[i].vendor->name, all[i].name);
}

/* What a driver lacks may be why its devices are not there: PoCL without a folder to build in has none. */
static void none_found(const gems_candidate *all, unsigned n, char *why, size_t room)
{
    const char *forced = gems_config_get()->vendor;
    char found[160], lacks[200];
    int used;

    describe(all, n, found, sizeof found);
    if (forced)
        used = snprintf(why, room, "GEMS_VENDOR=%s: no OpenCL device of that vendor (found: %s)", forced,
                        n ? found : "none");
    else
        used = snprintf(why, room, "no OpenCL device");
    for (const gems_vendor_data *v = gems_vendor_all(); v->name && used > 0 && (size_t)used < room; v++)
        if (is_allowed(v) && !gems_vendor_may_build(v, lacks, sizeof lacks)) {
            snprintf(why + used, room - (size_t)used, "; %s", lacks);
            return;
        }
}

const gems_candidate *gems_choose(const gems_candidate *all, unsigned n, char *why, size_t room)
{
    const gems_config *config = gems_config_get();
    const gems_candidate *list[GEMS_MAX_CANDIDATES];
    unsigned count = 0, same = 0;

    for (unsigned i = 0; i < n; i++)
        if (gems_choose_counts(&all[i]))
            list[count++] = &all[i];
    if (count == 0) {
        if (left_out && is_allowed(left_out)) {
            snprintf(why, room, "%s", missing);
            return NULL;
        }
        none_found(all, n, why, room);
        return NULL;
    }
    if (config->device >= 0) {
        if ((uint64_t)config->device < count)
            return list[config->device];
        gems_complain("GEMS_DEVICE=%lld: there %s %u device%s%s%s, counted from 0; using the first",
                      (long long)config->device, count == 1 ? "is" : "are", count, count == 1 ? "" : "s",
                      config->vendor ? " of " : "", config->vendor ? config->vendor : "");
        return list[0];
    }
    for (unsigned i = 0; i < count; i++) /* ranks share out devices of one kind */
        if (list[i]->vendor == list[0]->vendor && gems_choose_class(list[i]->type) == gems_choose_class(list[0]->type))
            list[same++] = list[i];
    const char *rank = getenv("LOCAL_RANK");
    return list[rank && same ? strtoul(rank, NULL, 10) % same : 0];
}
