/* The handler and its service thread. Between them is an array of slots; both sleep on futexes. */
#include "kernels/chain/touch.h"
#include "kernels/chain/chain.h"
#include "kernels/memory/arena.h"
#include "preload/base/thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SLOTS 64                /* threads that wait at once; more wait for one of these */
#define STACK ((size_t)8 << 20) /* LLVM inside PoCL wants some MiB */
#define VAIN  100 /* times in a row that a fault remains though its page is accessible: races are shorter */

typedef enum slot_state {
    FREE,
    FILLING,
    POSTED,
    SERVING,
    SERVED,
    REFUSED
} slot_state;

static struct slot {
    const void *address;
    _Atomic uint32_t state;
    bool write, enough; /* enough: after service the block was where it should be */
} slots[SLOTS];
static _Atomic uint32_t posts;   /* changes with each post */
static _Atomic uint32_t freed;   /* changes when a slot is free while somebody waits for one */
static _Atomic uint32_t waiting; /* threads without a slot */

static gems_touch_serve *serve_page;
/* Alone in a page that is empty in a forked child, however it was forked; and not in one of vfork, which shares it. */
static atomic_bool *alive;
static __thread bool serving;

static void sleep_while(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_one(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- the service thread ---- */

/* Whether the block is where the access can do with it. Its owner may be about to move it: a hint. */
static bool is_enough(const void *address, bool write)
{
    const gems_block *block = gems_arena_find(address);
    gems_place place = block                        ? __atomic_load_n(&block->place, __ATOMIC_RELAXED)
                       : gems_adopt_guards(address) ? GEMS_PLACE_READ_ONLY
                                                    : GEMS_PLACE_HOME;
    return place == GEMS_PLACE_HOME || (place == GEMS_PLACE_READ_ONLY && !write);
}

static bool serve_slot(struct slot *s)
{
    uint32_t posted = POSTED;
    if (!atomic_compare_exchange_strong(&s->state, &posted, SERVING))
        return false;
    bool served = serve_page(s->address, s->write);
    s->enough = is_enough(s->address, s->write);
    atomic_store(&s->state, served ? SERVED : REFUSED);
    wake_one(&s->state);
    return true;
}

static void *serve_slots(void *unused)
{
    (void)unused;
    serving = true;
    prctl(PR_SET_NAME, "gems-touch");
    for (;;) {
        uint32_t seen = posts;
        bool any = false;
        for (unsigned i = 0; i < SLOTS; i++)
            any |= serve_slot(&slots[i]);
        if (!any)
            sleep_while(&posts, seen);
    }
    return NULL;
}

/* ---- the faulting thread ---- */

static struct slot *take_slot(void)
{
    for (;;) {
        uint32_t seen = freed;
        for (unsigned i = 0; i < SLOTS; i++) {
            uint32_t free = FREE;
            if (atomic_compare_exchange_strong(&slots[i].state, &free, FILLING))
                return &slots[i];
        }
        sleep_while(&freed, seen);
    }
}

/* Has the page made accessible. enough: it seems to be. */
static bool ask(const void *address, bool write, bool *enough)
{
    atomic_fetch_add(&waiting, 1);
    struct slot *s = take_slot();
    atomic_fetch_sub(&waiting, 1);
    s->address = address;
    s->write = write;
    atomic_store(&s->state, POSTED);
    atomic_fetch_add(&posts, 1);
    wake_one(&posts);
    uint32_t state;
    while ((state = s->state) == POSTED || state == SERVING)
        sleep_while(&s->state, state);
    *enough = s->enough;
    atomic_store(&s->state, FREE);
    if (waiting) {
        atomic_fetch_add(&freed, 1);
        wake_one(&freed);
    }
    return state == SERVED;
}

/* What an instruction did: false if it was no access to data that a page's protection refused. Where the processor does
 * not tell reads from writes, it is a write if reading was allowed; a hidden block is shown for reading first. */
static bool read_access(const siginfo_t *info, const ucontext_t *context, bool *write, uintptr_t *instruction)
{
    if (info->si_code != SEGV_MAPERR && info->si_code != SEGV_ACCERR)
        return false;
#ifdef __x86_64__
    const greg_t *registers = context->uc_mcontext.gregs;
    *write = registers[REG_ERR] & 2;
    *instruction = (uintptr_t)registers[REG_RIP];
    return registers[REG_TRAPNO] == 14 && !(registers[REG_ERR] & 0x10); /* a page fault; fetching an instruction */
#else
    (void)context;
    *write = is_enough(info->si_addr, false);
    *instruction = 0;
    return true;
#endif
}

/* False: the fault is the program's. */
static bool serve_fault(const siginfo_t *info, const ucontext_t *context)
{
    /* A fault in a page that looks accessible: another thread was faster, or the program has protected it. */
    static __thread struct {
        const void *address;
        uintptr_t instruction;
        unsigned times;
    } vain;
    bool write, after;
    uintptr_t instruction;
    bool adopted = gems_adopt_knows(info->si_addr);
    if (serving || !read_access(info, context, &write, &instruction) || (!adopted && !gems_arena_find(info->si_addr)))
        return false;
    if (!*alive) /* there is no service thread, and nothing but this to be done */
        return adopted && gems_adopt_open(info->si_addr);
    bool before = is_enough(info->si_addr, write);
    if (!ask(info->si_addr, write, &after))
        return false;
    if (!before && after) {
        vain.times = 0;
        return true;
    }
    if (vain.address != info->si_addr || vain.instruction != instruction)
        vain.times = 0;
    vain.address = info->si_addr;
    vain.instruction = instruction;
    return ++vain.times < VAIN;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    int error = errno;
    gems_signal_block_all(); /* the thread must not be cancelled while it has a slot */
    bool served = serve_fault(info, context);
    errno = error;
    if (!served)
        gems_signal_pass_on(sig, info, context);
}

/* ---- start ---- */

static bool started;
static gems_touch_serve *start_with;

static void start(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return;
    serve_page = start_with;
    alive = memory;
    *alive = true;
    if (madvise(memory, page, MADV_WIPEONFORK) != 0 || !gems_thread_start(NULL, STACK, serve_slots, NULL))
        munmap(memory, page);
    else
        started = gems_signal_install(on_fault);
}

bool gems_touch_start(gems_touch_serve *serve)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static _Atomic(gems_touch_serve *) first;
    gems_touch_serve *none = NULL;
    if (atomic_compare_exchange_strong(&first, &none, serve))
        start_with = serve;
    pthread_once(&once, start);
    return started;
}
