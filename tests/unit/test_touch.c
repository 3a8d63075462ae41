/* kernels/chain/{touch,signals}.c: who touches a block that is not home goes on when it is; every other fault is the
 * program's, as without us. Each test is a process. */
#include "kernels/chain/touch.h"
#include "kernels/memory/arena.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* sigset */

/* Sanitizers have a handler of their own. */
static void as_at_start(void)
{
    signal(SIGSEGV, SIG_DFL);
}

TestSuite(touch, .init = as_at_start, .timeout = 120);

/* ---- a layer that defers: what a hidden block is to hold follows from its address ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint served;
static useconds_t delay;
static bool lies; /* says that it has shown a block */

static uint64_t word_of(const gems_block *block, size_t i)
{
    return ((uintptr_t)block->address >> 12) * 1000003 + i;
}

static bool serve(const void *address, bool write)
{
    gems_block *block = gems_arena_find(address);
    served++;
    if (delay)
        usleep(delay);
    if (!block || !block->user)
        return false;
    if (lies)
        return true;
    pthread_mutex_lock(&lock);
    bool ok = true;
    if (block->place == GEMS_PLACE_HIDDEN) {
        uint64_t *words = (uint64_t *)gems_block_shadow(block);
        for (size_t i = 0; i < block->bytes / 8; i++)
            words[i] = word_of(block, i);
        ok = gems_block_show(block) && (write || gems_block_protect(block));
    } else if (write) {
        ok = gems_block_show(block);
    }
    pthread_mutex_unlock(&lock);
    return ok;
}

static bool hide(gems_block *block)
{
    pthread_mutex_lock(&lock);
    bool hidden = gems_block_hide(block);
    pthread_mutex_unlock(&lock);
    return hidden;
}

static uint64_t *take_hidden(size_t n)
{
    uint64_t *words = gems_arena_take(n, true);
    gems_block *block = gems_arena_find(words);
    cr_assert_not_null(block);
    block->user = block;
    return words;
}

static void start(void)
{
    cr_assert(gems_touch_start(serve));
}

static int wrong_words(const uint64_t *words, size_t n)
{
    const gems_block *block = gems_arena_find(words);
    int wrong = 0;
    for (size_t i = 0; i < n / 8; i++)
        wrong += words[i] != word_of(block, i);
    return wrong;
}

/* The status of a child process. */
#define IN_CHILD(status, ...)                                                                                          \
    do {                                                                                                               \
        pid_t child = fork();                                                                                          \
        cr_assert_geq(child, 0);                                                                                       \
        if (child == 0) {                                                                                              \
            __VA_ARGS__;                                                                                               \
            _exit(0);                                                                                                  \
        }                                                                                                              \
        cr_assert_eq(waitpid(child, &(status), 0), child);                                                             \
    } while (0)

/* ---- served ---- */

Test(touch, a_read_finds_the_result)
{
    start();
    for (size_t n = 64 * KIB; n <= 8 * MIB; n *= 2) {
        uint64_t *words = take_hidden(n);
        errno = 77;
        cr_assert_eq(words[n / 16], word_of(gems_arena_find(words), n / 16));
        cr_assert_eq(errno, 77);
        cr_assert_eq(wrong_words(words, n), 0);
        cr_assert_eq(gems_arena_find(words)->place, GEMS_PLACE_READ_ONLY);
        words[3] = 7;
        cr_assert_eq(words[3], 7);
        cr_assert_eq(gems_arena_find(words)->place, GEMS_PLACE_HOME);
        cr_assert_eq(words[4], word_of(gems_arena_find(words), 4));
    }
    cr_expect_eq(served, 16, "two faults a block, not %u", served);
}

Test(touch, a_write_comes_after_the_result)
{
    start();
    uint64_t *words = take_hidden(MIB);
    words[5] = 7;
    cr_expect_eq(gems_arena_find(words)->place, GEMS_PLACE_HOME);
    cr_expect_eq(served, 1);
    cr_expect_eq(words[5], 7);
    words[5] = word_of(gems_arena_find(words), 5);
    cr_expect_eq(wrong_words(words, MIB), 0);
}

Test(touch, copies_and_atomics)
{
    start();
    uint64_t *from = take_hidden(MIB), *to = take_hidden(MIB), *sum = take_hidden(MIB);
    memmove(to, from, MIB);
    cr_expect_eq(memcmp(to, from, MIB), 0);
    uint64_t before = word_of(gems_arena_find(sum), 9);
    cr_expect_eq(__atomic_fetch_add(&sum[9], 5, __ATOMIC_SEQ_CST), before);
    cr_expect_eq(sum[9], before + 5);
}

Test(touch, starts_once)
{
    start();
    start();
    cr_expect_eq(wrong_words(take_hidden(MIB), MIB), 0);
}

enum {
    THREADS = 100 /* more than there are slots */
};
static uint64_t *shared[8];
static pthread_barrier_t together;
static atomic_int wrong;

static void *read_shared(void *arg)
{
    size_t i = (size_t)(uintptr_t)arg;
    pthread_barrier_wait(&together);
    for (size_t k = 0; k < 8; k++)
        wrong += wrong_words(shared[(i + k) % 8], 256 * KIB);
    return NULL;
}

static void in_threads(int n, void *(*fn)(void *))
{
    pthread_t thread[THREADS];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * KIB);
    pthread_barrier_init(&together, NULL, (unsigned)n);
    for (int i = 0; i < n; i++)
        cr_assert_eq(pthread_create(&thread[i], &small, fn, (void *)(uintptr_t)i), 0);
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
}

Test(touch, many_threads_touch_the_same_and_different_blocks)
{
    start();
    for (int round = 0; round < 20; round++) {
        delay = round % 4 == 0 ? 2000 : 0; /* so that they pile up */
        for (int k = 0; k < 8; k++)
            shared[k] = take_hidden(256 * KIB);
        in_threads(THREADS, read_shared);
        for (int k = 0; k < 8; k++) {
            gems_arena_find(shared[k])->user = NULL;
            gems_arena_give(shared[k]);
        }
    }
    cr_expect_eq(wrong, 0);
}

static atomic_bool done;

static void *hide_again(void *unused)
{
    (void)unused;
    while (!done)
        for (int k = 0; k < 8; k++)
            hide(gems_arena_find(shared[k]));
    return NULL;
}

Test(touch, blocks_are_hidden_again_meanwhile)
{
    pthread_t thread;
    start();
    for (int k = 0; k < 8; k++)
        shared[k] = take_hidden(256 * KIB);
    cr_assert_eq(pthread_create(&thread, NULL, hide_again, NULL), 0);
    for (int i = 0; i < 20; i++) {
        in_threads(8, read_shared);
        /* One instruction at one address. */
        for (int k = 0; k < 1000; k++)
            wrong += *(volatile uint64_t *)&shared[k % 8][7] != word_of(gems_arena_find(shared[k % 8]), 7);
    }
    done = true;
    pthread_join(thread, NULL);
    cr_expect_eq(wrong, 0);
}

Test(touch, the_same_instruction_faults_again_and_again)
{
    start();
    volatile uint64_t *words = take_hidden(64 * KIB);
    for (int i = 0; i < 3000; i++) {
        cr_assert_eq(words[1], word_of(gems_arena_find((void *)words), 1));
        cr_assert(hide(gems_arena_find((void *)words)));
    }
}

/* ---- in handlers, with masks ---- */

static _Atomic(uint64_t *) touched; /* handlers read it */
static atomic_int handled;
static char stack[128 << 10];

static void touch_in_handler(int sig)
{
    (void)sig;
    wrong += wrong_words(touched, 64 * KIB);
    handled++;
}

static void use_stack(void)
{
    stack_t s = {.ss_sp = stack, .ss_size = sizeof stack};
    cr_assert_eq(sigaltstack(&s, NULL), 0);
}

static void handle(int sig, void (*handler)(int), int flags, bool all)
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = flags};
    if (all)
        sigfillset(&act.sa_mask);
    cr_assert_eq(sigaction(sig, &act, NULL), 0);
}

static bool mask_has(int sig, const sigset_t *set)
{
    return sigismember(set, sig) == 1;
}

Test(touch, in_a_handler_on_another_stack_that_blocks_everything)
{
    struct sigaction act;
    handle(SIGUSR2, touch_in_handler, 0, true);
    start();
    use_stack();
    handle(SIGUSR1, touch_in_handler, SA_ONSTACK, true);
    for (int i = 0; i < 4; i++) {
        touched = take_hidden(64 * KIB);
        raise(i % 2 ? SIGUSR1 : SIGUSR2); /* set after the start, and before it */
    }
    cr_expect_eq(handled, 4);
    cr_expect_eq(wrong, 0);
    for (int i = 0; i < 2; i++) { /* as set, but for the part that is ours */
        cr_assert_eq(sigaction(i ? SIGUSR1 : SIGUSR2, NULL, &act), 0);
        cr_expect(mask_has(SIGSEGV, &act.sa_mask) && mask_has(SIGHUP, &act.sa_mask));
        cr_expect_eq(act.sa_handler, touch_in_handler);
    }
    handle(SIGUSR1, touch_in_handler, 0, false);
    sigaction(SIGUSR1, NULL, &act);
    cr_expect(!mask_has(SIGSEGV, &act.sa_mask));
}

static sigset_t only(int sig)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    return set;
}

Test(touch, with_the_signal_blocked)
{
    sigset_t segv = only(SIGSEGV), all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &segv, NULL); /* before the start */
    start();
    cr_expect_eq(wrong_words(take_hidden(64 * KIB), 64 * KIB), 0);
    pthread_sigmask(SIG_BLOCK, NULL, &old);
    cr_expect(mask_has(SIGSEGV, &old));
    pthread_sigmask(SIG_UNBLOCK, &segv, &old);
    cr_expect(mask_has(SIGSEGV, &old));
    sigprocmask(SIG_SETMASK, &all, &old);
    cr_expect(!mask_has(SIGSEGV, &old));
    cr_expect_eq(wrong_words(take_hidden(64 * KIB), 64 * KIB), 0);
    sigprocmask(SIG_SETMASK, &old, &all);
    cr_expect(mask_has(SIGSEGV, &all) && mask_has(SIGHUP, &all));
    sigprocmask(SIG_BLOCK, &segv, &old);
    cr_expect(!mask_has(SIGSEGV, &old));
    sigprocmask(SIG_BLOCK, NULL, &old);
    cr_expect(mask_has(SIGSEGV, &old));
    cr_expect_eq(wrong_words(take_hidden(64 * KIB), 64 * KIB), 0);
    errno = 0;
    cr_expect_eq(sigprocmask(99, &segv, NULL), -1);
    cr_expect_eq(errno, EINVAL);
}

Test(touch, sent_while_blocked_comes_later)
{
    sigset_t segv = only(SIGSEGV);
    start();
    handled = 0;
    touched = take_hidden(64 * KIB);
    handle(SIGSEGV, touch_in_handler, 0, false);
    pthread_sigmask(SIG_BLOCK, &segv, NULL);
    raise(SIGSEGV);
    cr_expect_eq(handled, 0);
    pthread_sigmask(SIG_UNBLOCK, &segv, NULL);
    cr_expect_eq(handled, 1);
    cr_expect_eq(wrong, 0, "in a SIGSEGV handler of the program");
    raise(SIGSEGV);
    cr_expect_eq(handled, 2);
}

/* ---- the program's own faults ---- */

static void first(int sig)
{
    (void)sig;
}
static void second(int sig)
{
    (void)sig;
}

Test(touch, what_the_program_sets_is_what_it_finds)
{
    struct sigaction act = {.sa_handler = first, .sa_flags = SA_NODEFER}, old;
    sigaddset(&act.sa_mask, SIGHUP);
    sigaction(SIGSEGV, &act, NULL);
    start();
    cr_assert_eq(sigaction(SIGSEGV, NULL, &old), 0);
    cr_expect(old.sa_handler == first && old.sa_flags & SA_NODEFER && mask_has(SIGHUP, &old.sa_mask));
    cr_expect_eq(signal(SIGSEGV, second), first);
    cr_expect_eq(signal(SIGSEGV, SIG_DFL), second);
    cr_expect_eq(signal(SIGSEGV, SIG_IGN), SIG_DFL);
    cr_expect_eq(signal(SIGSEGV, SIG_ERR), SIG_ERR);
    cr_expect_eq(sigset(SIGSEGV, first), SIG_IGN);
    cr_expect_eq(sigset(SIGSEGV, SIG_HOLD), first);
    cr_expect_eq(sigset(SIGSEGV, second), SIG_HOLD);
    cr_expect_eq(sysv_signal(SIGSEGV, first), second);
    sigaction(SIGSEGV, NULL, &old);
    cr_expect(old.sa_flags & (int)SA_RESETHAND && !mask_has(SIGSEGV, &old.sa_mask));
    cr_expect_eq(sigaction(SIGSEGV, &act, NULL), 0);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(signal(SIGSEGV, i % 2 ? first : second), i % 2 ? second : first);
    cr_expect_eq(wrong_words(take_hidden(64 * KIB), 64 * KIB), 0, "ours is still there");
}

static _Atomic(void *) volatile nothing;

__attribute__((no_sanitize("undefined"))) static void crash(void)
{
    *(volatile int *)nothing = 1;
}

static sigjmp_buf back;
static struct {
    int code;
    void *address;
    bool blocked_hup, on_stack;
    uintptr_t instruction;
} seen;

static void note_and_leave(int sig, siginfo_t *info, void *context)
{
    sigset_t mask;
    char here;
    (void)sig;
    (void)context;
    seen.code = info->si_code;
    seen.address = info->si_addr;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    seen.blocked_hup = mask_has(SIGHUP, &mask) && mask_has(SIGSEGV, &mask);
    seen.on_stack = &here > stack && &here < stack + sizeof stack;
    handled++;
    siglongjmp(back, 1);
}

static void set_noting(int flags)
{
    struct sigaction act = {.sa_sigaction = note_and_leave, .sa_flags = SA_SIGINFO | flags};
    sigaddset(&act.sa_mask, SIGHUP);
    cr_assert_eq(sigaction(SIGSEGV, &act, NULL), 0);
}

/* Deeper each time: a handler that was left must not seem to run still. */
static void fault_at(const volatile char *address, int depth)
{
    volatile char room[3000];
    room[0] = (char)depth;
    if (depth > 0)
        fault_at(address, depth - 1 + room[1] * 0);
    else
        (void)*address;
}

static char *refused_page(void)
{
    char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(page, MAP_FAILED);
    return page;
}

static void program_handles_faults(bool before)
{
    char *page = refused_page();
    volatile int depth = 0;
    use_stack();
    if (before)
        set_noting(0);
    start();
    if (!before)
        set_noting(0);
    if (sigsetjmp(back, 1) == 0)
        (void)*(volatile char *)(page + 17);
    cr_expect(seen.code == SEGV_ACCERR && seen.address == page + 17 && seen.blocked_hup && !seen.on_stack);
    if (sigsetjmp(back, 1) == 0)
        *(volatile char *)(page + 18) = 1;
    cr_expect(seen.code == SEGV_ACCERR && seen.address == page + 18);
    if (sigsetjmp(back, 1) == 0)
        crash();
    cr_expect(seen.code == SEGV_MAPERR && seen.address == NULL);
    cr_expect_eq(handled, 3);
    while (sigsetjmp(back, 1) != 0 || depth < 10)
        if (depth < 10)
            fault_at(page, depth++);
        else
            break;
    cr_expect_eq(handled, 13);
    set_noting(SA_ONSTACK);
    if (sigsetjmp(back, 1) == 0)
        (void)*(volatile char *)page;
    cr_expect(seen.on_stack);
    cr_expect_eq(wrong_words(take_hidden(64 * KIB), 64 * KIB), 0);
    cr_expect_eq(handled, 14);
}

Test(touch, the_program_handles_its_faults_set_before)
{
    program_handles_faults(true);
}
Test(touch, the_program_handles_its_faults_set_after)
{
    program_handles_faults(false);
}

Test(touch, a_block_that_is_nobodys_and_protected_is_the_programs_fault)
{
    start();
    set_noting(0);
    char *memory = gems_arena_take(64 * KIB, false);
    cr_assert_eq(mprotect(memory, 4096, PROT_READ), 0);
    if (sigsetjmp(back, 1) == 0)
        memory[5] = 1;
    cr_expect(handled == 1 && seen.address == memory + 5 && seen.code == SEGV_ACCERR);
    /* Somebody's, at home as far as he knows. */
    uint64_t *words = take_hidden(64 * KIB);
    words[0] = 1;
    cr_assert_eq(mprotect(words, 4096, PROT_NONE), 0);
    if (sigsetjmp(back, 1) == 0)
        words[1] = 1;
    cr_expect(handled == 2 && seen.address == &words[1]);
}

Test(touch, who_lies_does_not_stop_the_program)
{
    start();
    set_noting(0);
    uint64_t *words = take_hidden(64 * KIB);
    lies = true;
    if (sigsetjmp(back, 1) == 0)
        words[1] = 1;
    cr_expect(handled == 1 && seen.address == &words[1]);
    lies = false;
    cr_expect_eq(wrong_words(words, 64 * KIB), 0);
}

static void open_page(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)context;
    wrong += wrong_words(touched, 64 * KIB);
    wrong += mprotect((void *)((uintptr_t)info->si_addr & ~UINT64_C(4095)), 4096, PROT_READ | PROT_WRITE) != 0;
    handled++;
}

Test(touch, a_handler_that_repairs_and_returns)
{
    struct sigaction act = {.sa_sigaction = open_page, .sa_flags = SA_SIGINFO}, old;
    start();
    sigaction(SIGSEGV, &act, NULL);
    for (int i = 0; i < 5; i++) {
        char *page = refused_page();
        touched = take_hidden(64 * KIB);
        *(volatile char *)page = 1;
        cr_expect_eq(handled, i + 1);
    }
    act.sa_flags |= (int)SA_RESETHAND;
    sigaction(SIGSEGV, &act, NULL);
    *(volatile char *)refused_page() = 1;
    sigaction(SIGSEGV, NULL, &old);
    cr_expect_eq(old.sa_handler, SIG_DFL);
    cr_expect_eq(handled, 6);
    cr_expect_eq(wrong, 0);
    cr_expect_eq(wrong_words(take_hidden(64 * KIB), 64 * KIB), 0);
}

/* ---- ends ---- */

Test(touch, a_crash_ends_the_process, .signal = SIGSEGV)
{
    start();
    cr_assert_eq(wrong_words(take_hidden(64 * KIB), 64 * KIB), 0);
    crash();
}
Test(touch, a_crash_that_is_ignored_ends_the_process, .signal = SIGSEGV)
{
    start();
    signal(SIGSEGV, SIG_IGN);
    raise(SIGSEGV); /* this is ignored */
    crash();
}
Test(touch, a_crash_that_is_blocked_ends_the_process, .signal = SIGSEGV)
{
    sigset_t segv = only(SIGSEGV);
    start();
    signal(SIGSEGV, first);
    pthread_sigmask(SIG_BLOCK, &segv, NULL);
    crash();
}
Test(touch, a_signal_that_is_sent_ends_the_process, .signal = SIGSEGV)
{
    start();
    raise(SIGSEGV);
    _exit(3);
}

static void crash_again(int sig)
{
    (void)sig;
    crash();
}
Test(touch, a_crash_in_the_programs_handler_ends_the_process, .signal = SIGSEGV)
{
    start();
    signal(SIGSEGV, crash_again);
    crash();
}

static jmp_buf unmasked;
static void leave_masked(int sig)
{
    (void)sig;
    longjmp(unmasked, 1);
}
Test(touch, a_handler_left_without_its_mask_leaves_the_signal_blocked, .signal = SIGSEGV)
{
    start();
    signal(SIGSEGV, leave_masked);
    if (setjmp(unmasked) == 0)
        crash();
    if (wrong_words(take_hidden(64 * KIB), 64 * KIB) != 0)
        _exit(3);
    crash(); /* as without us */
    _exit(4);
}

static bool crash_in_service(const void *address, bool write)
{
    (void)address;
    (void)write;
    crash();
    return true;
}
Test(touch, a_crash_in_the_service_thread_ends_the_process, .signal = SIGSEGV)
{
    cr_assert(gems_touch_start(crash_in_service));
    *take_hidden(64 * KIB) = 1;
}

static bool touch_in_service(const void *address, bool write)
{
    (void)write;
    return *(const volatile char *)address == 1;
}
Test(touch, a_touch_in_the_service_thread_ends_the_process, .signal = SIGSEGV)
{
    cr_assert(gems_touch_start(touch_in_service));
    *take_hidden(64 * KIB) = 1;
}

static void *touch_one(void *words)
{
    return (void *)(uintptr_t) * (uint64_t *)words;
}
Test(touch, exit_during_a_fault, .exit_code = 5)
{
    pthread_t thread;
    start();
    delay = 60000000;
    pthread_create(&thread, NULL, touch_one, take_hidden(64 * KIB));
    while (!served)
        usleep(1000);
    exit(5);
}

Test(touch, a_fork_has_its_own_faults)
{
    int status;
    start();
    uint64_t *words = take_hidden(64 * KIB);
    cr_expect_eq(wrong_words(words, 64 * KIB), 0); /* the layer above shows all before a fork */
    IN_CHILD(status, if (wrong_words(words, 64 * KIB) != 0) _exit(1));
    cr_expect_eq(status, 0);
    IN_CHILD(status, crash());
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    uint64_t *hidden = take_hidden(64 * KIB); /* it does not, here */
    IN_CHILD(status, _exit(hidden[1] == 0 ? 1 : 2));
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "no waiting for a thread that is not there");
    IN_CHILD(status, set_noting(0); if (sigsetjmp(back, 1) == 0) crash(); _exit(handled == 1 && !seen.address ? 0 : 1));
    cr_expect_eq(status, 0);
    cr_expect_eq(wrong_words(hidden, 64 * KIB), 0);
}

Test(touch, a_vfork_leaves_its_parents_action)
{
    struct sigaction act;
    start();
    signal(SIGSEGV, first);
    pid_t child = vfork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* as who is about to become another program */
        _exit(0);
    }
    waitpid(child, NULL, 0);
    sigaction(SIGSEGV, NULL, &act);
    cr_expect_eq(act.sa_handler, first);
}
