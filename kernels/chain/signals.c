/* What the program believes to have set for signals, and what would have happened without us.
 *
 * An action for SIGSEGV is kept here and never reaches the system. Masks reach it without SIGSEGV; whether a thread
 * believes it blocked is a flag of the thread. While the program's handler runs, SIGSEGV counts as blocked (without
 * SA_NODEFER): for that time a substitute really is, so that whatever ends the handler, siglongjmp too, ends this. */
#include "kernels/chain/touch.h"
#include "kernels/device/device.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Masks as the system has them. */
#define BIT(sig)   (UINT64_C(1) << ((sig)-1))
#define SUBSTITUTE 64 /* SIGRTMAX, a constant */

static _Atomic(gems_signal_handler *) ours; /* NULL: not installed */

static __thread struct {
    bool blocked;    /* the program believes SIGSEGV blocked */
    bool in_handler; /* the program's handler runs, as long as the substitute is blocked */
    bool pending;    /* one was sent meanwhile */
    siginfo_t sent;
} self;

/* ---- libc's own functions ---- */

typedef int action_fn(int, const struct sigaction *, struct sigaction *);
typedef int mask_fn(int, const sigset_t *, sigset_t *);

static int set_action(int sig, const struct sigaction *act, struct sigaction *old)
{
    static _Atomic(action_fn *) libc;
    action_fn *found = atomic_load_explicit(&libc, memory_order_relaxed);
    if (!found)
        atomic_store_explicit(&libc, found = (action_fn *)dlsym(RTLD_NEXT, "sigaction"), memory_order_relaxed);
    return found(sig, act, old);
}

static int set_mask(int how, const sigset_t *set, sigset_t *old)
{
    static _Atomic(mask_fn *) libc;
    mask_fn *found = atomic_load_explicit(&libc, memory_order_relaxed);
    if (!found)
        atomic_store_explicit(&libc, found = (mask_fn *)dlsym(RTLD_NEXT, "pthread_sigmask"), memory_order_relaxed);
    return found(how, set, old);
}

static void set_raw_mask(int how, uint64_t mask)
{
    syscall(SYS_rt_sigprocmask, how, &mask, NULL, sizeof mask);
}

void gems_signal_block_all(void)
{
    set_raw_mask(SIG_SETMASK, UINT64_MAX);
}

/* ---- actions for SIGSEGV ---- */

/* Whose actions are kept. A record that is somebody's is not changed: handlers read them without a lock. */
typedef enum owner {
    PROGRAM,
    DRIVER,
    OWNERS
} owner;
#define RECORDS 64
static const struct sigaction initial; /* the default */
static struct sigaction records[OWNERS][RECORDS];
static atomic_uint used[OWNERS];
static _Atomic(const struct sigaction *) action_of[OWNERS] = {&initial, &initial};

/* What was kept before. */
static const struct sigaction *keep(owner whose, const struct sigaction *act)
{
    struct sigaction *record = &records[whose][atomic_fetch_add(&used[whose], 1) % RECORDS];
    *record = *act;
    sigdelset(&record->sa_mask, SIGKILL);
    sigdelset(&record->sa_mask, SIGSTOP);
    return atomic_exchange(&action_of[whose], record);
}

static bool is_function(const struct sigaction *act)
{
    return act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN;
}

static owner owner_of(const void *caller)
{
    Dl_info info;
    bool found = !self.in_handler && dladdr(caller, &info); /* in a handler no lock of the loader's */
    return found && info.dli_fname && gems_device_library(info.dli_fname) ? DRIVER : PROGRAM;
}

/* The process that this memory is of. */
static _Atomic pid_t process;

static void forked(void)
{
    process = getpid();
}

static bool is_vfork_child(void)
{
    return atomic_load(&ours) && process != getpid();
}

/* Ours runs where the program's would: on the same stack, and calls go on after it in the same way. */
static int install(struct sigaction *old)
{
    const struct sigaction *program = atomic_load(&action_of[PROGRAM]);
    int as_theirs = SA_ONSTACK | SA_RESTART;
    struct sigaction act = {.sa_sigaction = atomic_load(&ours)};
    act.sa_flags = SA_SIGINFO | (is_function(program) ? program->sa_flags & as_theirs : as_theirs);
    sigfillset(&act.sa_mask);
    return set_action(SIGSEGV, &act, old);
}

static int fault_action(const struct sigaction *act, struct sigaction *old, const void *caller)
{
    owner whose = owner_of(caller);
    struct sigaction wanted;
    if (act)
        wanted = *act; /* may be the same as old */
    if (whose == PROGRAM && !atomic_load(&ours)) {
        int error = set_action(SIGSEGV, act, old);
        if (!act || error || !atomic_load(&ours))
            return error;
        /* We were installed meanwhile: again, and the program does not see ours. */
        const struct sigaction *kept = keep(PROGRAM, &wanted);
        if (old && old->sa_sigaction == atomic_load(&ours))
            *old = *kept;
        return install(NULL);
    }
    if (act && is_vfork_child()) { /* our memory is its parent's; all that it can leave behind is ignoring */
        int error = act->sa_handler == SIG_IGN ? set_action(SIGSEGV, act, NULL) : 0;
        if (old)
            *old = *atomic_load(&action_of[whose]);
        return error;
    }
    const struct sigaction *before = act ? keep(whose, &wanted) : atomic_load(&action_of[whose]);
    if (old)
        *old = *before;
    return act && whose == PROGRAM ? install(NULL) : 0;
}

/* ---- other signals' actions ---- */

static _Atomic uint64_t with_fault; /* signals whose sa_mask the program gave SIGSEGV */

static int other_action(int sig, const struct sigaction *act, struct sigaction *old)
{
    struct sigaction without;
    bool has = act && sigismember(&act->sa_mask, SIGSEGV) == 1;
    if (!atomic_load_explicit(&ours, memory_order_relaxed) || sig < 1 || sig > 64)
        return set_action(sig, act, old);
    if (has) {
        without = *act;
        sigdelset(&without.sa_mask, SIGSEGV);
    }
    int error = set_action(sig, has ? &without : act, old);
    if (error)
        return error;
    uint64_t before = !act  ? atomic_load(&with_fault)
                      : has ? atomic_fetch_or(&with_fault, BIT(sig))
                            : atomic_fetch_and(&with_fault, ~BIT(sig));
    if (old && (before & BIT(sig)))
        sigaddset(&old->sa_mask, SIGSEGV);
    return 0;
}

int gems_signal_action(int sig, const struct sigaction *act, struct sigaction *old, const void *caller)
{
    return sig == SIGSEGV ? fault_action(act, old, caller) : other_action(sig, act, old);
}

/* ---- masks ---- */

/* What the thread believes; real: its mask. */
static bool believes_blocked(bool substitute_blocked)
{
    self.in_handler = self.in_handler && substitute_blocked;
    return self.blocked || self.in_handler;
}

/* Sends the calling thread a signal as it was sent before. */
static void send_again(const siginfo_t *info)
{
    syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGSEGV, info);
}

static void believe(int how, bool has)
{
    bool blocked = how == SIG_SETMASK ? has : how == SIG_BLOCK ? self.blocked || has : self.blocked && !has;
    if (how == SIG_UNBLOCK && has && self.in_handler) {
        self.in_handler = false;
        set_raw_mask(SIG_UNBLOCK, BIT(SUBSTITUTE));
    }
    self.blocked = blocked;
    if (self.pending && !self.blocked && !self.in_handler) {
        siginfo_t sent = self.sent;
        self.pending = false;
        send_again(&sent);
    }
}

int gems_signal_mask(int how, const sigset_t *set, sigset_t *old)
{
    sigset_t copy, before;
    if (!atomic_load_explicit(&ours, memory_order_relaxed))
        return set_mask(how, set, old);
    bool has = set && sigismember(set, SIGSEGV) == 1;
    int error = set_mask(how, set ? gems_signal_unblocked(set, &copy) : NULL, &before);
    if (error)
        return error;
    if (sigismember(&before, SIGSEGV) == 1) { /* since before we were installed */
        self.blocked = true;
        set_raw_mask(SIG_UNBLOCK, BIT(SIGSEGV));
    }
    if (believes_blocked(sigismember(&before, SUBSTITUTE) == 1))
        sigaddset(&before, SIGSEGV);
    if (old)
        *old = before;
    if (set)
        believe(how, has);
    return 0;
}

const sigset_t *gems_signal_unblocked(const sigset_t *set, sigset_t *copy)
{
    if (!set || !atomic_load_explicit(&ours, memory_order_relaxed) || sigismember(set, SIGSEGV) != 1)
        return set;
    *copy = *set;
    sigdelset(copy, SIGSEGV);
    return copy;
}

/* ---- in the handler ---- */

static void run_program_handler(const struct sigaction *act, int sig, siginfo_t *info, ucontext_t *context)
{
    uint64_t interrupted, wanted;
    bool before = self.in_handler;
    memcpy(&interrupted, &context->uc_sigmask, sizeof interrupted);
    memcpy(&wanted, &act->sa_mask, sizeof wanted);
    if (!(act->sa_flags & SA_NODEFER) || (wanted & BIT(SIGSEGV))) {
        self.in_handler = true;
        wanted |= BIT(SUBSTITUTE);
    }
    set_raw_mask(SIG_SETMASK, (interrupted | wanted) & ~BIT(SIGSEGV));
    if (act->sa_flags & SA_SIGINFO)
        act->sa_sigaction(sig, info, context);
    else
        act->sa_handler(sig);
    gems_signal_block_all();
    self.in_handler = before;
    memcpy(&interrupted, &context->uc_sigmask, sizeof interrupted); /* theirs to change */
    self.blocked |= (interrupted & BIT(SIGSEGV)) != 0;
    interrupted &= ~BIT(SIGSEGV);
    memcpy(&context->uc_sigmask, &interrupted, sizeof interrupted);
}

void gems_signal_pass_on(int sig, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;
    uint64_t mask;
    memcpy(&mask, &interrupted->uc_sigmask, sizeof mask);
    bool sent = info->si_code <= 0, blocked = believes_blocked(mask & BIT(SUBSTITUTE));
    struct sigaction act = *atomic_load(&action_of[PROGRAM]);
    if (sent && blocked) {
        self.sent = *info;
        self.pending = true;
        return;
    }
    if (sent && act.sa_handler == SIG_IGN)
        return;
    if (is_function(&act) && !blocked) {
        if (act.sa_flags & SA_RESETHAND) {
            struct sigaction after = act;
            after.sa_handler = SIG_DFL;
            (void)keep(PROGRAM, &after);
        }
        run_program_handler(&act, sig, info, context);
        return;
    }
    /* As the system does it for a fault that is blocked or ignored, too. The instruction faults again. */
    (void)set_action(SIGSEGV, &initial, NULL);
    if (sent)
        send_again(info);
}

/* ---- start ---- */

bool gems_signal_install(gems_signal_handler *handler)
{
    struct sigaction before;
    process = getpid();
    if (set_action(SIGSEGV, NULL, &before) != 0 || pthread_atfork(NULL, NULL, forked) != 0)
        return false;
    (void)keep(PROGRAM, &before);
    atomic_store(&ours, handler);
    if (install(&before) != 0) {
        atomic_store(&ours, NULL);
        return false;
    }
    if (before.sa_sigaction != handler) /* unless the program was faster */
        (void)keep(PROGRAM, &before);
    for (int other = 1; other <= 64; other++) { /* once through other_action, which takes SIGSEGV out */
        struct sigaction act;
        if (other != SIGSEGV && set_action(other, NULL, &act) == 0 && is_function(&act) &&
            sigismember(&act.sa_mask, SIGSEGV) == 1)
            (void)other_action(other, &act, NULL);
    }
    (void)gems_signal_mask(SIG_BLOCK, NULL, NULL); /* the calling thread's */
    return true;
}
