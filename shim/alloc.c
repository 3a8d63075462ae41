/* The host's allocator of CPU tensors: large ones come from the arena, all others from where they came before.
 *
 * It is called before our start-up and during it, by constructors of libraries that are being loaded, too: while those
 * run the loader's lock is held, and nothing here waits for who may be waiting for that. */
#include "shim/torch.h"
#include "kernels/chain/chain.h"
#include "kernels/memory/arena.h"
#include "preload/base/config.h"
#include "preload/base/log.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *alloc_cpu(size_t n);
typedef void free_cpu(void *memory);

#define ALLOC "_ZN3c109alloc_cpuEm"
#define FREE  "_ZN3c108free_cpuEPv"

#define LARGE ((size_t)64 << 10)
#define SMALL ((size_t)1 << 10)

static struct {
    _Atomic(alloc_cpu *) alloc;
    _Atomic(free_cpu *) free;
    _Atomic(const bool *) flags[3]; /* what the host then does to new memory we do not do */
} original;

static const bool unset;

static int match_library(struct dl_phdr_info *info, size_t size, void *path)
{
    const char *base = info->dlpi_name ? strrchr(info->dlpi_name, '/') : NULL;
    (void)size;
    if (!base || strncmp(base, "/libc10.so", 10) != 0)
        return 0;
    snprintf(path, PATH_MAX, "%s", info->dlpi_name);
    return 1;
}

/* Every thread that comes before this is done does it: they find the same. */
static void find_original(void)
{
    static const char *const flags[] = {"FLAGS_caffe2_cpu_allocator_do_zero_fill",
                                        "FLAGS_caffe2_cpu_allocator_do_junk_fill", "FLAGS_caffe2_cpu_numa_enabled"};
    char path[PATH_MAX];
    void *library = dl_iterate_phdr(match_library, path) ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;
    void *alloc = dlsym(library ? library : RTLD_NEXT, ALLOC), *give = dlsym(library ? library : RTLD_NEXT, FREE);
    if (!alloc || !give) {
        gems_complain("PyTorch's own allocator is not found");
        abort();
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        const bool *flag = dlsym(RTLD_DEFAULT, flags[i]); /* perhaps copied into the program (COPY relocation) */
        if (!flag && library)
            flag = dlsym(library, flags[i]);
        atomic_store_explicit(&original.flags[i], flag ? flag : &unset, memory_order_relaxed);
    }
    atomic_store_explicit(&original.alloc, (alloc_cpu *)alloc, memory_order_relaxed);
    atomic_store_explicit(&original.free, (free_cpu *)give, memory_order_release);
}

static free_cpu *original_free(void)
{
    free_cpu *found = atomic_load_explicit(&original.free, memory_order_acquire);
    if (found)
        return found;
    find_original();
    return original.free;
}

/* Whoever watches the heap shall see its blocks. */
#pragma weak __asan_init
#pragma weak __msan_init
#pragma weak __tsan_init
void __asan_init(void);
void __msan_init(void);
void __tsan_init(void);

static bool is_ours(void)
{
    if (__asan_init || __msan_init || __tsan_init)
        return false;
    for (size_t i = 0; i < sizeof original.flags / sizeof *original.flags; i++)
        if (*atomic_load_explicit(&original.flags[i], memory_order_relaxed))
            return false;
    return true;
}

/* Bytes of the smallest tensor that gets a block. Where memory stays on a device any can be a result, and of others a
 * part of a page is worth one: also before a device is open, if it is sure to be so. */
static size_t least(void)
{
    const gems_config *c = gems_config_get();
    bool stays = c->resident == GEMS_STAY_FORCE || gems_work_stays();
    return c->fuse == GEMS_FUSE_ALL || gems_arena_hides ? 1 : stays ? SMALL : LARGE;
}

__attribute__((visibility("default"))) alloc_cpu gems_alloc_cpu __asm__(ALLOC);
__attribute__((visibility("default"))) free_cpu gems_free_cpu __asm__(FREE);

void *gems_alloc_cpu(size_t n)
{
    (void)original_free();
    if (n >= least() && is_ours()) {
        void *memory = gems_arena_take(n, gems_arena_hides);
        if (memory)
            return memory;
    }
    return atomic_load_explicit(&original.alloc, memory_order_relaxed)(n);
}

void gems_free_cpu(void *memory)
{
    if (!gems_arena_give(memory))
        original_free()(memory);
}
