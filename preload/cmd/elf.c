/* Reading a shared library without loading it: which of our symbols it exports, and whether its own calls to them go
 * through the dynamic linker. If they do not (-Bsymbolic), a preloaded library sees only the calls of others. */
#include "preload/cmd/cmd.h"

#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct image {
    const unsigned char *bytes;
    size_t size;
} image;

typedef struct wanted {
    const char *name;
    size_t index;
    bool exported, reached;
} wanted;

/* n items of the given size at an offset of the file, or NULL if they are not all inside. */
static const void *at(const image *file, uint64_t offset, uint64_t n, size_t size)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(n, (uint64_t)size, &bytes) || offset > file->size || bytes > file->size - offset)
        return NULL;
    return file->bytes + offset;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const wanted *)a)->name, ((const wanted *)b)->name);
}

/* Name of a symbol, or NULL if it leads out of the file. */
static const char *symbol_name(const image *file, const Elf64_Shdr *strings, uint32_t offset)
{
    const char *table = at(file, strings->sh_offset, strings->sh_size, 1);
    if (!table || offset >= strings->sh_size || !memchr(table + offset, 0, strings->sh_size - offset))
        return NULL;
    return table + offset;
}

typedef struct tables {
    const Elf64_Shdr *sections;
    size_t count;
    const Elf64_Shdr *symbols, *strings;
} tables;

/* The wanted symbol that dynamic symbol i is, or NULL. */
static wanted *find(const image *file, const tables *t, uint64_t i, wanted *list, size_t n)
{
    const Elf64_Sym *symbols = at(file, t->symbols->sh_offset, t->symbols->sh_size, 1);
    if (!symbols || i >= t->symbols->sh_size / sizeof *symbols)
        return NULL;
    wanted key = {.name = symbol_name(file, t->strings, symbols[i].st_name)};
    return key.name ? bsearch(&key, list, n, sizeof *list, by_name) : NULL;
}

static void mark_exported(const image *file, const tables *t, wanted *list, size_t n)
{
    const Elf64_Sym *symbols = at(file, t->symbols->sh_offset, t->symbols->sh_size, 1);
    for (uint64_t i = 0; symbols && i < t->symbols->sh_size / sizeof *symbols; i++) {
        if (symbols[i].st_shndx == SHN_UNDEF)
            continue;
        wanted *w = find(file, t, i, list, n);
        if (w)
            w->exported = true;
    }
}

static void mark_reached(const image *file, const tables *t, wanted *list, size_t n)
{
    for (size_t s = 0; s < t->count; s++) {
        if (t->sections[s].sh_type != SHT_RELA)
            continue;
        const Elf64_Rela *rela = at(file, t->sections[s].sh_offset, t->sections[s].sh_size, 1);
        for (uint64_t i = 0; rela && i < t->sections[s].sh_size / sizeof *rela; i++) {
            uint64_t symbol = ELF64_R_SYM(rela[i].r_info);
            wanted *w = symbol ? find(file, t, symbol, list, n) : NULL;
            if (w)
                w->reached = true;
        }
    }
}

static bool is_symbolic(const image *file, const tables *t)
{
    for (size_t s = 0; s < t->count; s++) {
        if (t->sections[s].sh_type != SHT_DYNAMIC)
            continue;
        const Elf64_Dyn *dyn = at(file, t->sections[s].sh_offset, t->sections[s].sh_size, 1);
        for (uint64_t i = 0; dyn && i < t->sections[s].sh_size / sizeof *dyn; i++)
            if (dyn[i].d_tag == DT_SYMBOLIC || (dyn[i].d_tag == DT_FLAGS && dyn[i].d_un.d_val & DF_SYMBOLIC))
                return true;
    }
    return false;
}

static bool find_tables(const image *file, tables *t)
{
    const Elf64_Ehdr *head = at(file, 0, 1, sizeof *head);
    if (!head || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 || head->e_ident[EI_CLASS] != ELFCLASS64 ||
        head->e_type != ET_DYN || head->e_shentsize != sizeof(Elf64_Shdr))
        return false;
    t->sections = at(file, head->e_shoff, head->e_shnum, sizeof(Elf64_Shdr));
    t->count = head->e_shnum;
    for (size_t s = 0; t->sections && s < t->count; s++)
        if (t->sections[s].sh_type == SHT_DYNSYM && t->sections[s].sh_link < t->count) {
            t->symbols = &t->sections[s];
            t->strings = &t->sections[t->sections[s].sh_link];
        }
    return t->symbols != NULL;
}

static bool map_file(const char *path, image *file)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *bytes = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
        bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd >= 0)
        close(fd);
    if (bytes == MAP_FAILED)
        return false;
    *file = (image){bytes, (size_t)st.st_size};
    return true;
}

bool cmd_elf_read(const char *path, const char *const *symbols, size_t n, bool *found, cmd_elf *out, const char **why)
{
    image file;
    tables t = {0};
    *out = (cmd_elf){0};
    if (!map_file(path, &file)) {
        *why = "it cannot be read";
        return false;
    }
    wanted *list = calloc(n + 1, sizeof *list);
    bool ok = list && find_tables(&file, &t);
    *why = ok ? NULL : "it is no 64-bit ELF shared library with a symbol table";
    if (ok) {
        for (size_t i = 0; i < n; i++)
            list[i] = (wanted){.name = symbols[i], .index = i};
        qsort(list, n, sizeof *list, by_name);
        mark_exported(&file, &t, list, n);
        mark_reached(&file, &t, list, n);
        out->symbolic = is_symbolic(&file, &t);
        for (size_t i = 0; i < n; i++) {
            out->exported += list[i].exported;
            out->reached += list[i].exported && list[i].reached;
            if (found)
                found[list[i].index] = list[i].exported;
        }
    }
    free(list);
    munmap((void *)file.bytes, file.size);
    return ok;
}
