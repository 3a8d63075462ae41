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
    const Elf64_Shdr *sections;
    size_t count;
    const Elf64_Shdr *symbols, *strings; /* the dynamic ones */
} image;

typedef struct wanted {
    const char *name;
    bool exported, reached;
} wanted;

/* Bytes of the file, or NULL if they are not all inside. */
static const void *at(const image *file, uint64_t offset, uint64_t size)
{
    return offset > file->size || size > file->size - offset ? NULL : file->bytes + offset;
}

/* The items of a section and their number, 0 if it is not all inside the file. */
static const void *items(const image *file, const Elf64_Shdr *section, size_t size, uint64_t *n)
{
    const void *bytes = at(file, section->sh_offset, section->sh_size);
    *n = bytes ? section->sh_size / size : 0;
    return bytes;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const wanted *)a)->name, ((const wanted *)b)->name);
}

/* The wanted symbol of this name, or NULL. */
static wanted *find(const image *file, uint32_t name, wanted *list, size_t n)
{
    uint64_t room;
    const char *names = items(file, file->strings, 1, &room);
    if (name >= room || !memchr(names + name, 0, room - name))
        return NULL;
    return bsearch(&(wanted){.name = names + name}, list, n, sizeof *list, by_name);
}

static void mark_exported(const image *file, wanted *list, size_t n)
{
    uint64_t count;
    const Elf64_Sym *symbols = items(file, file->symbols, sizeof *symbols, &count);
    for (uint64_t i = 0; i < count; i++) {
        wanted *w = symbols[i].st_shndx != SHN_UNDEF ? find(file, symbols[i].st_name, list, n) : NULL;
        if (w)
            w->exported = true;
    }
}

static void mark_reached(const image *file, wanted *list, size_t n)
{
    uint64_t nsymbols, count;
    const Elf64_Sym *symbols = items(file, file->symbols, sizeof *symbols, &nsymbols);
    for (size_t s = 0; s < file->count; s++) {
        if (file->sections[s].sh_type != SHT_RELA)
            continue;
        const Elf64_Rela *rela = items(file, &file->sections[s], sizeof *rela, &count);
        for (uint64_t i = 0; i < count; i++) {
            uint64_t symbol = ELF64_R_SYM(rela[i].r_info);
            wanted *w = symbol && symbol < nsymbols ? find(file, symbols[symbol].st_name, list, n) : NULL;
            if (w)
                w->reached = true;
        }
    }
}

static bool is_symbolic(const image *file)
{
    uint64_t count;
    for (size_t s = 0; s < file->count; s++) {
        if (file->sections[s].sh_type != SHT_DYNAMIC)
            continue;
        const Elf64_Dyn *dyn = items(file, &file->sections[s], sizeof *dyn, &count);
        for (uint64_t i = 0; i < count; i++)
            if (dyn[i].d_tag == DT_SYMBOLIC || (dyn[i].d_tag == DT_FLAGS && dyn[i].d_un.d_val & DF_SYMBOLIC))
                return true;
    }
    return false;
}

/* False if it is no 64-bit ELF shared library with a symbol table. */
static bool find_sections(image *file)
{
    const Elf64_Ehdr *head = at(file, 0, sizeof *head);
    if (!head || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 || head->e_ident[EI_CLASS] != ELFCLASS64 ||
        head->e_type != ET_DYN || head->e_shentsize != sizeof(Elf64_Shdr))
        return false;
    file->sections = at(file, head->e_shoff, head->e_shnum * sizeof(Elf64_Shdr));
    file->count = file->sections ? head->e_shnum : 0;
    for (size_t s = 0; s < file->count; s++)
        if (file->sections[s].sh_type == SHT_DYNSYM && file->sections[s].sh_link < file->count) {
            file->symbols = &file->sections[s];
            file->strings = &file->sections[file->sections[s].sh_link];
        }
    return file->symbols != NULL;
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
    *file = (image){.bytes = bytes, .size = (size_t)st.st_size};
    return true;
}

const char *cmd_elf_read(const char *path, const char *const *symbols, size_t n, cmd_elf *out)
{
    image file;
    *out = (cmd_elf){0};
    if (!map_file(path, &file))
        return "it cannot be read";
    wanted *list = calloc(n + 1, sizeof *list);
    bool ok = list && find_sections(&file);
    if (ok) {
        for (size_t i = 0; i < n; i++)
            list[i].name = symbols[i];
        qsort(list, n, sizeof *list, by_name);
        mark_exported(&file, list, n);
        mark_reached(&file, list, n);
        out->symbolic = is_symbolic(&file);
        for (size_t i = 0; i < n; i++) {
            out->exported += list[i].exported;
            out->reached += list[i].exported && list[i].reached;
        }
    }
    free(list);
    munmap((void *)file.bytes, file.size);
    return ok ? NULL : "it is no 64-bit ELF shared library with a symbol table";
}
