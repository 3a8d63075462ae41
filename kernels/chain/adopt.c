/* Weights in file mappings (safetensors, torch.load(mmap=True)): copied to the device once, and read there.
 *
 * What kernels read of a mapping becomes a piece with a copy, until the program unmaps, moves, protects or empties a
 * part of the mapping (preload/libc.c) or writes there: a mapping that may be written is read-only meanwhile, and the
 * first write takes all of its pieces back for good. Writes to the file by others are not seen. Pieces go first when
 * room is short: the host has their values.
 *
 * The list of mappings is read without the lock, by handlers of signals too; all else is done with the chains' lock. */
#include "kernels/chain/group.h"
#include "kernels/memory/memory.h"
#include "preload/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    MAPPINGS = 256,
    REFUSALS = 256, /* addresses that were looked up in vain; they are not looked up again soon */
    AGAIN = 1000    /* calls later they are */
};
#define ALIGNMENT ((uintptr_t)64)    /* as kernels/work/run.c keeps it */
#define LEAST     ((size_t)64 << 10) /* bytes of a first operand of a mapping */

typedef struct mapping {
    _Atomic uintptr_t begin, end; /* end 0: free */
    atomic_bool guarded;          /* read-only for us: the program may write */
    atomic_bool written;          /* it did: nothing of it is copied any more */
} mapping;

typedef struct piece {
    uintptr_t begin;
    size_t bytes;
    mapping *of;
    gems_buffer *copy; /* of the bytes from begin - lead(begin) on: of the same page */
    unsigned users;
    bool filling;
    uint64_t used;
    chain_derived *made;
} piece;

static struct {
    mapping mapping[MAPPINGS];
    _Atomic unsigned nmappings; /* from the start, free ones among them */
    piece *piece;               /* by address; they do not overlap */
    size_t n, room;
    struct {
        uintptr_t address;
        unsigned calls;
    } refused[REFUSALS];
} adopted;

/* Not by our own wrapper. */
static bool protect(const mapping *m, int how)
{
    return syscall(SYS_mprotect, m->begin, m->end - m->begin, how) == 0;
}

static mapping *mapping_at(uintptr_t from, uintptr_t to)
{
    unsigned n = atomic_load_explicit(&adopted.nmappings, memory_order_acquire);
    for (mapping *m = adopted.mapping; m < adopted.mapping + n; m++)
        if (from < atomic_load_explicit(&m->end, memory_order_relaxed) &&
            atomic_load_explicit(&m->begin, memory_order_relaxed) < to)
            return m;
    return NULL;
}

bool gems_adopt_knows(const void *address)
{
    const mapping *m = mapping_at((uintptr_t)address, (uintptr_t)address + 1);
    return m && (m->guarded || m->written);
}

bool gems_adopt_guards(const void *address)
{
    const mapping *m = mapping_at((uintptr_t)address, (uintptr_t)address + 1);
    return m && m->guarded;
}

bool gems_adopt_open(const void *address)
{
    mapping *m = mapping_at((uintptr_t)address, (uintptr_t)address + 1);
    return m && m->guarded && protect(m, PROT_READ | PROT_WRITE);
}

/* ---- finding ---- */

/* Whether a line of /proc/self/maps is one of file contents that only this process changes, if anybody. Libraries come
 * and go unseen. */
static bool is_weights(const char *line, mapping *m, bool *writable)
{
    unsigned long begin, end, inode;
    char flags[8], path[4096] = "";
    if (sscanf(line, "%lx-%lx %7s %*s %*s %lu %4095[^\n]", &begin, &end, flags, &inode, path) < 5)
        return false;
    m->begin = begin;
    m->end = end;
    *writable = flags[1] == 'w';
    return inode != 0 && flags[0] == 'r' && flags[2] == '-' && !(flags[3] == 's' && *writable) &&
           strncmp(path, "/dev/", 5) != 0 && strncmp(path, "/memfd:", 7) != 0 && !strstr(path, ".so");
}

static mapping *find_mapping(uintptr_t from, uintptr_t to)
{
    mapping *m = mapping_at(from, to), found = {0};
    bool writable = false, is = false;
    if (m)
        return m->begin <= from && to <= m->end ? m : NULL;
    char *text = gems_read_file("/proc/self/maps", (size_t)64 << 20);
    for (char *line = text, *next; line && *line && !is; line = next) {
        if ((next = strchr(line, '\n')))
            *next++ = '\0';
        is = is_weights(line, &found, &writable) && found.begin <= from && to <= found.end;
    }
    free(text);
    for (m = adopted.mapping; is && m < adopted.mapping + MAPPINGS && m->end; m++)
        ;
    if (!is || m == adopted.mapping + MAPPINGS)
        return NULL;
    m->begin = found.begin;
    m->written = false;
    m->guarded = writable;
    m->end = found.end;
    if ((size_t)(m - adopted.mapping) >= adopted.nmappings)
        adopted.nmappings = (unsigned)(m - adopted.mapping) + 1;
    if (!writable || protect(m, PROT_READ))
        return m;
    m->end = 0;
    return NULL;
}

/* Looked up in vain not long ago. */
static bool is_refused(uintptr_t address, bool refuse)
{
    unsigned i = (unsigned)(address >> 6 ^ address >> 14) % REFUSALS;
    if (refuse) {
        adopted.refused[i].address = address;
        adopted.refused[i].calls = 0;
    }
    return adopted.refused[i].address == address && adopted.refused[i].calls++ < AGAIN;
}

/* ---- pieces ---- */

/* The first piece that ends after the address. */
static size_t first_after(uintptr_t address)
{
    size_t low = 0, high = adopted.n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (adopted.piece[middle].begin + adopted.piece[middle].bytes > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void drop(size_t i)
{
    gems_resident_drop_made(&adopted.piece[i].made);
    gems_resident_give(adopted.piece[i].copy);
    memmove(&adopted.piece[i], &adopted.piece[i + 1], (--adopted.n - i) * sizeof *adopted.piece);
}

/* All pieces of the mapping, when no works are being launched on them; others may come and go meanwhile. */
static void drop_all(const mapping *m)
{
    for (size_t i = 0; i < adopted.n;)
        if (adopted.piece[i].of != m) {
            i++;
        } else if (adopted.piece[i].users) {
            gems_chains_wait();
            i = 0;
        } else {
            drop(i);
        }
}

/* A copy keeps its address' remainder. */
static size_t lead(uintptr_t begin)
{
    return begin % ALIGNMENT;
}

static bool make_room(void)
{
    if (adopted.n == adopted.room) {
        size_t room = adopted.room ? 2 * adopted.room : 64;
        piece *more = realloc(adopted.piece, room * sizeof *more);
        if (!more)
            return false;
        adopted.piece = more;
        adopted.room = room;
    }
    return true;
}

/* A piece with a filled copy, for its first user. The lock is given up meanwhile. NULL: there is no room, or the memory
 * is not what it was. */
static piece *make_piece(uintptr_t begin, size_t bytes, mapping *m)
{
    gems_buffer *copy = gems_resident_take(lead(begin) + bytes);
    size_t i = first_after(begin);
    bool taken = i < adopted.n && adopted.piece[i].begin < begin + bytes;
    if (copy && (taken || !make_room() || m->end < begin + bytes || m->begin > begin || m->written)) {
        gems_resident_give(copy);
        copy = NULL;
    }
    if (!copy)
        return NULL;
    memmove(&adopted.piece[i + 1], &adopted.piece[i], (adopted.n++ - i) * sizeof *adopted.piece);
    adopted.piece[i] = (piece){.begin = begin, .bytes = bytes, .of = m, .copy = copy, .users = 1, .filling = true};
    const void *from = (const void *)(begin - lead(begin)); /* NOLINT(performance-no-int-to-ptr) */
    bool filled = gems_resident_fill(copy, from, lead(begin) + bytes);
    i = first_after(begin);
    adopted.piece[i].filling = false;
    pthread_cond_broadcast(&gems_chains.done);
    if (filled)
        return &adopted.piece[i];
    drop(i);
    return NULL;
}

/* The piece that holds n bytes from there on, used once more. NULL: there is none, and none can be made now. */
static piece *use_piece(uintptr_t begin, size_t n)
{
    size_t i;
    while ((i = first_after(begin)) < adopted.n && adopted.piece[i].begin < begin + n) {
        piece *p = &adopted.piece[i];
        if (p->begin <= begin && begin + n <= p->begin + p->bytes && !p->filling) {
            p->users++;
            return p;
        }
        if (p->users)
            gems_chains_wait();
        else
            drop(i); /* another view of the same memory reaches further */
    }
    mapping *m = find_mapping(begin, begin + n);
    return m && !m->written ? make_piece(begin, n, m) : NULL;
}

gems_reached gems_adopt_reach(const void *p, size_t n, gems_access access, gems_buffer **buffer, size_t *offset)
{
    uintptr_t at = (uintptr_t)p;
    if (access & GEMS_WRITE) {
        gems_adopt_release(p, n);
        return GEMS_FOREIGN;
    }
    if (n < LEAST && !mapping_at(at, at + n))
        return GEMS_FOREIGN;
    if (is_refused(at, false))
        return GEMS_FOREIGN;
    piece *found = use_piece(at, n);
    if (!found) {
        (void)is_refused(at, true);
        return GEMS_FOREIGN;
    }
    found->used = gems_resident_tick();
    *buffer = found->copy;
    *offset = lead(found->begin) + (at - found->begin);
    return GEMS_REACHED;
}

void gems_adopt_leave(const void *p)
{
    size_t i = first_after((uintptr_t)p);
    adopted.piece[i].users--;
    pthread_cond_broadcast(&gems_chains.done);
}

bool gems_adopt_can(const void *p, size_t n)
{
    uintptr_t at = (uintptr_t)p;
    if (is_refused(at, false))
        return false;
    const mapping *m = find_mapping(at, at + n);
    if (!m || m->written)
        (void)is_refused(at, true);
    return m && !m->written;
}

bool gems_adopt_holds(const void *p)
{
    size_t i = first_after((uintptr_t)p);
    return i < adopted.n && adopted.piece[i].begin <= (uintptr_t)p;
}

chain_derived **gems_adopt_made(const void *p)
{
    size_t i = first_after((uintptr_t)p);
    bool is_read = i < adopted.n && adopted.piece[i].begin <= (uintptr_t)p && adopted.piece[i].users;
    return is_read ? &adopted.piece[i].made : NULL;
}

bool gems_adopt_evict(uint64_t before)
{
    size_t oldest = adopted.n;
    for (size_t i = 0; i < adopted.n; i++)
        if (!adopted.piece[i].users && (oldest == adopted.n || adopted.piece[i].used < adopted.piece[oldest].used))
            oldest = i;
    if (oldest == adopted.n || adopted.piece[oldest].used > before)
        return false;
    drop(oldest);
    return true;
}

/* ---- ending ---- */

bool gems_adopt_touch(const void *address)
{
    mapping *m = mapping_at((uintptr_t)address, (uintptr_t)address + 1);
    if (!m || !m->guarded)
        return m != NULL;
    m->written = true;
    drop_all(m);
    m->guarded = !protect(m, PROT_READ | PROT_WRITE);
    return !m->guarded;
}

void gems_adopt_release(const void *p, size_t n)
{
    for (mapping *m; (m = mapping_at((uintptr_t)p, (uintptr_t)p + n)) && m->guarded;)
        if (!gems_adopt_touch((const void *)(m->begin > (uintptr_t)p ? m->begin : (uintptr_t)p))) /* NOLINT */
            return;
}

bool gems_adopt_any(const void *p, size_t n)
{
    return n && mapping_at((uintptr_t)p, (uintptr_t)p + n);
}

void gems_adopt_forget(const void *p, size_t n)
{
    gems_chains_lock();
    for (mapping *m; (m = mapping_at((uintptr_t)p, (uintptr_t)p + n));) {
        drop_all(m);
        if (m->guarded)
            (void)protect(m, PROT_READ | PROT_WRITE);
        m->guarded = false;
        m->end = 0;
    }
    memset(adopted.refused, 0, sizeof adopted.refused);
    gems_chains_unlock();
}

void gems_adopt_after_fork(void)
{
    adopted.n = 0;
}
