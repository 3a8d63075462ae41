/* Which driver has the devices: remembered, so that the next process loads no other. Called by open.c.
 *
 * The loader loads every driver that is installed, and those without a device take as long as the one in use. Where all
 * devices that were found are of one driver, the path of its library is kept in the cache, under everything that the
 * answer may depend on: the loader's list, installed libraries, device files and what we may do with them, variables.
 * In doubt, and where a tool stands between us and the driver, the loader is asked. */
#include "kernels/device/internal.h"
#include "preload/base/text.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

/* Beginnings of variables: of a tool or another list of drivers, with which nothing is remembered; and what drivers
 * look at. */
static const char in_between[] = "OCL_ICD_ OPENCL_LAYERS CLTRACER CLI_";
static const char of_drivers[] =
    "AMD_ CL_ CUDA_ DRI_ GALLIUM_ GEMS_VENDOR= GPU_ HIP_ HSA_ INTEL LD_LIBRARY_PATH= LIBGL_ LP_ MESA_ NEO NVIDIA_ OCL_ "
    "OPENCL_ POCL_DEVICES= ROC RUSTICL_ SYCL_ ZE_";

static bool begins_with_one_of(const char *entry, const char *list)
{
    const char *word;
    for (size_t n; (n = gems_word(&list, " ", &word));)
        if (strncmp(entry, word, n) == 0)
            return true;
    return false;
}

static void put_file(FILE *key, const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0)
        fprintf(key, "%s %lld %lld.%09ld %llx %d\n", path, (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                st.st_mtim.tv_nsec, (unsigned long long)st.st_rdev, access(path, R_OK | W_OK));
}

static void put_files(FILE *key, const char *pattern)
{
    glob_t found;
    if (glob(pattern, 0, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct stat st;
        if (strncmp(found.gl_pathv[i], "/dev/", 5) != 0)
            put_file(key, found.gl_pathv[i]);
        else if (stat(found.gl_pathv[i], &st) == 0) /* the times of device files change with use */
            fprintf(key, "%s %llx %d\n", found.gl_pathv[i], (unsigned long long)st.st_rdev,
                    access(found.gl_pathv[i], R_OK | W_OK));
    }
    globfree(&found);
}

char *gems_remember_key(void)
{
    static const char *const files[] = {"/etc/OpenCL/vendors",
                                        "/etc/OpenCL/vendors/*",
                                        "/etc/ld.so.cache",
                                        "/dev/nvidia*",
                                        "/dev/dri/*",
                                        "/dev/kfd",
                                        "/dev/dxg",
                                        "/dev/mali*",
                                        "/dev/accel/*"};
    char *text = NULL, boot[64] = "";
    size_t size;
    if (!gems_cache_dir() || dlsym(RTLD_DEFAULT, "clGetPlatformIDs"))
        return NULL;
    for (char **e = environ; e && *e; e++)
        if (begins_with_one_of(*e, in_between))
            return NULL;
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f && !fgets(boot, sizeof boot, f))
        boot[0] = 0;
    if (f)
        fclose(f);
    FILE *key = open_memstream(&text, &size);
    if (!key)
        return NULL;
    fprintf(key, "gems-preload %s\nwhich driver has the devices?\n%d %s\n", GEMS_VERSION, (int)geteuid(), boot);
    for (char **e = environ; e && *e; e++)
        if (begins_with_one_of(*e, of_drivers))
            fprintf(key, "%s\n", *e);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        put_files(key, files[i]);
    bool whole = !ferror(key);
    if (fclose(key) == 0 && whole)
        return text;
    free(text);
    return NULL;
}

/* The library's path, and what tells it from an older or newer one. */
static char *describe(const char *library, size_t *size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    if (!out)
        return NULL;
    fprintf(out, "%s%c", library, 0);
    put_file(out, library);
    return fclose(out) == 0 ? text : NULL;
}

char *gems_remember_library(const char *key)
{
    size_t size = 0, now = 0;
    char *kept = key ? (char *)gems_cache_load(key, strlen(key), &size) : NULL;
    char *found = kept && memchr(kept, 0, size) ? describe(kept, &now) : NULL;
    bool same = found && size == now && memcmp(kept, found, size) == 0;
    free(found);
    if (same)
        return kept;
    free(kept);
    return NULL;
}

void gems_remember(const char *key, const gems_candidate *all, unsigned n)
{
    char extensions[2048] = "", *text;
    Dl_info info;
    size_t size;
    for (unsigned i = 1; i < n; i++)
        if (all[i].platform != all[0].platform)
            return;
    /* Only then does the platform begin with its driver's table. */
    if (!key || n == 0 ||
        CL(clGetPlatformInfo, all[0].platform, CL_PLATFORM_EXTENSIONS, sizeof extensions, extensions, NULL) !=
            CL_SUCCESS ||
        !strstr(extensions, "cl_khr_icd"))
        return;
    void *function = gems_cl_driver_function(all[0].platform);
    if (!function || dladdr(function, &info) == 0 || !info.dli_fname || info.dli_fname[0] != '/' ||
        !(text = describe(info.dli_fname, &size)))
        return;
    gems_cache_store(key, strlen(key), (unsigned char *)text, size);
    free(text);
}
