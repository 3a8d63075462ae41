/* libc's functions through which the system reads or writes a program's memory: it does not fault there as the program
 * would, it refuses (EFAULT). For the length of such a call the memory is pinned: finished, at home, and kept so. And
 * those by which a program asks for faults of its own (kernels/chain/touch.h).
 *
 * Where nothing is deferred, a call costs one load more. A function may be called before our constructor, from any
 * thread, in a handler of signals, and be cancelled.
 *
 * And those that change mappings: of files, from which weights may have been copied to a device.
 *
 * Not here: what gets at memory without these (syscall(), io_uring, ioctl, another process's process_vm_readv), and
 * calls whose data is no tensor's (message queues, options of sockets). */
#undef _FORTIFY_SOURCE /* it would define some of them itself */
#include "kernels/chain/chain.h"
#include "kernels/chain/touch.h"
#include "kernels/device/device.h"

#include <aio.h>
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* A buffer to be filled is handed on as const. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

/* libc's headers have macros for these. */
#undef fread_unlocked
#undef fwrite_unlocked

/* A function of libc's name that is ours, and NEXT(name), libc's own. The library exports each name that stands behind
 * EXPORT( at the beginning of a line, after the type (shim/gen/main.c). */
#define EXPORT(type, name, parameters)                                                                                 \
    typedef type name##_fn parameters;                                                                                 \
    static inline name##_fn *next_##name(void)                                                                         \
    {                                                                                                                  \
        static _Atomic(void *) found;                                                                                  \
        return (name##_fn *)find_next(&found, #name);                                                                  \
    }                                                                                                                  \
    DEFINE(type, name, parameters)
#ifndef DEFINE /* tests have another */
#define DEFINE(type, name, parameters)                                                                                 \
    type name parameters;                                                                                              \
    __attribute__((visibility("default"))) type name parameters
#endif
#define NEXT(name) (next_##name())

/* NULL where libc has no such function; then nobody calls ours. */
static void *find_next(_Atomic(void *) *found, const char *name)
{
    void *function = atomic_load_explicit(found, memory_order_relaxed);
    if (!function) {
        int error = errno;
        function = dlsym(RTLD_NEXT, name);
        atomic_store_explicit(found, function, memory_order_relaxed);
        errno = error;
    }
    return function;
}

/* ---- pins ---- */

/* Also while nothing is owed: a call that comes later may hide memory that this one is still to write. */
static inline bool is_active(void)
{
    return atomic_load_explicit(&gems_chain_active, memory_order_relaxed);
}

static bool pin(const void *p, size_t n, bool write)
{
    int error = errno;
    bool pinned = gems_chain_pin(p, n, write);
    errno = error;
    return pinned;
}

static void unpin(const void *p, size_t n)
{
    int error = errno;
    gems_chain_unpin(p, n);
    errno = error;
}

/* What a call holds. Released also where the thread is cancelled in the call. */
typedef struct span {
    const void *p;
    size_t n; /* 0: nothing is pinned */
} span;

static inline span hold(const void *p, size_t n, bool write)
{
    return (span){p, is_active() && n > 0 && pin(p, n, write) ? n : 0};
}

static inline void release(const span *held)
{
    if (held->n)
        unpin(held->p, held->n);
}

#define HOLD(p, n, write) __attribute__((cleanup(release))) const span held = hold(p, n, write)

/* Further ones are finished and shown, and not kept so. */
#define MOST 64
typedef struct spans {
    unsigned n;
    span of[MOST];
} spans;

static void hold_one(spans *held, const void *p, size_t n, bool write)
{
    if (n == 0 || !pin(p, n, write))
        return;
    if (held->n < MOST)
        held->of[held->n++] = (span){p, n};
    else
        unpin(p, n);
}

static void hold_list(spans *held, const struct iovec *list, size_t n, bool write)
{
    for (size_t i = 0; list && n <= 1024 && i < n; i++) /* the system refuses more */
        hold_one(held, list[i].iov_base, list[i].iov_len, write);
}

static void release_all(const spans *held)
{
    for (unsigned i = held->n; i > 0; i--)
        unpin(held->of[i - 1].p, held->of[i - 1].n);
}

#define HOLDS                                                                                                          \
    __attribute__((cleanup(release_all))) spans held;                                                                  \
    held.n = 0
#define HOLD_LIST(list, count, write)                                                                                  \
    HOLDS;                                                                                                             \
    if (is_active())                                                                                                   \
    hold_list(&held, list, (count) < 0 ? 0 : (size_t)(count), write)

/* ---- files ---- */

EXPORT(ssize_t, read, (int fd, void *p, size_t n))
{
    HOLD(p, n, true);
    return NEXT(read)(fd, p, n);
}

EXPORT(ssize_t, pread, (int fd, void *p, size_t n, off_t at))
{
    HOLD(p, n, true);
    return NEXT(pread)(fd, p, n, at);
}

EXPORT(ssize_t, pread64, (int fd, void *p, size_t n, off64_t at))
{
    HOLD(p, n, true);
    return NEXT(pread64)(fd, p, n, at);
}

EXPORT(ssize_t, readv, (int fd, const struct iovec *list, int count))
{
    HOLD_LIST(list, count, true);
    return NEXT(readv)(fd, list, count);
}

EXPORT(ssize_t, preadv, (int fd, const struct iovec *list, int count, off_t at))
{
    HOLD_LIST(list, count, true);
    return NEXT(preadv)(fd, list, count, at);
}

EXPORT(ssize_t, preadv64, (int fd, const struct iovec *list, int count, off64_t at))
{
    HOLD_LIST(list, count, true);
    return NEXT(preadv64)(fd, list, count, at);
}

EXPORT(ssize_t, preadv2, (int fd, const struct iovec *list, int count, off_t at, int flags))
{
    HOLD_LIST(list, count, true);
    return NEXT(preadv2)(fd, list, count, at, flags);
}

EXPORT(ssize_t, preadv64v2, (int fd, const struct iovec *list, int count, off64_t at, int flags))
{
    HOLD_LIST(list, count, true);
    return NEXT(preadv64v2)(fd, list, count, at, flags);
}

EXPORT(ssize_t, write, (int fd, const void *p, size_t n))
{
    HOLD(p, n, false);
    return NEXT(write)(fd, p, n);
}

EXPORT(ssize_t, pwrite, (int fd, const void *p, size_t n, off_t at))
{
    HOLD(p, n, false);
    return NEXT(pwrite)(fd, p, n, at);
}

EXPORT(ssize_t, pwrite64, (int fd, const void *p, size_t n, off64_t at))
{
    HOLD(p, n, false);
    return NEXT(pwrite64)(fd, p, n, at);
}

EXPORT(ssize_t, writev, (int fd, const struct iovec *list, int count))
{
    HOLD_LIST(list, count, false);
    return NEXT(writev)(fd, list, count);
}

EXPORT(ssize_t, pwritev, (int fd, const struct iovec *list, int count, off_t at))
{
    HOLD_LIST(list, count, false);
    return NEXT(pwritev)(fd, list, count, at);
}

EXPORT(ssize_t, pwritev64, (int fd, const struct iovec *list, int count, off64_t at))
{
    HOLD_LIST(list, count, false);
    return NEXT(pwritev64)(fd, list, count, at);
}

EXPORT(ssize_t, pwritev2, (int fd, const struct iovec *list, int count, off_t at, int flags))
{
    HOLD_LIST(list, count, false);
    return NEXT(pwritev2)(fd, list, count, at, flags);
}

EXPORT(ssize_t, pwritev64v2, (int fd, const struct iovec *list, int count, off64_t at, int flags))
{
    HOLD_LIST(list, count, false);
    return NEXT(pwritev64v2)(fd, list, count, at, flags);
}

EXPORT(ssize_t, vmsplice, (int fd, const struct iovec *list, size_t count, unsigned flags))
{
    HOLDS;
    if (is_active())
        hold_list(&held, list, count, false);
    return NEXT(vmsplice)(fd, list, count, flags);
}

/* What programs call that were compiled with _FORTIFY_SOURCE. */

EXPORT(ssize_t, __read_chk, (int fd, void *p, size_t n, size_t room))
{
    HOLD(p, n, true);
    return NEXT(__read_chk)(fd, p, n, room);
}

EXPORT(ssize_t, __pread_chk, (int fd, void *p, size_t n, off_t at, size_t room))
{
    HOLD(p, n, true);
    return NEXT(__pread_chk)(fd, p, n, at, room);
}

EXPORT(ssize_t, __pread64_chk, (int fd, void *p, size_t n, off64_t at, size_t room))
{
    HOLD(p, n, true);
    return NEXT(__pread64_chk)(fd, p, n, at, room);
}

/* ---- streams: large pieces go straight to the system ---- */

static size_t product(size_t size, size_t n)
{
    size_t bytes;
    return __builtin_mul_overflow(size, n, &bytes) ? 0 : bytes;
}

EXPORT(size_t, fread, (void *p, size_t size, size_t n, FILE *stream))
{
    HOLD(p, product(size, n), true);
    return NEXT(fread)(p, size, n, stream);
}

EXPORT(size_t, fread_unlocked, (void *p, size_t size, size_t n, FILE *stream))
{
    HOLD(p, product(size, n), true);
    return NEXT(fread_unlocked)(p, size, n, stream);
}

EXPORT(size_t, __fread_chk, (void *p, size_t room, size_t size, size_t n, FILE *stream))
{
    HOLD(p, product(size, n), true);
    return NEXT(__fread_chk)(p, room, size, n, stream);
}

EXPORT(size_t, __fread_unlocked_chk, (void *p, size_t room, size_t size, size_t n, FILE *stream))
{
    HOLD(p, product(size, n), true);
    return NEXT(__fread_unlocked_chk)(p, room, size, n, stream);
}

EXPORT(size_t, fwrite, (const void *p, size_t size, size_t n, FILE *stream))
{
    HOLD(p, product(size, n), false);
    return NEXT(fwrite)(p, size, n, stream);
}

EXPORT(size_t, fwrite_unlocked, (const void *p, size_t size, size_t n, FILE *stream))
{
    HOLD(p, product(size, n), false);
    return NEXT(fwrite_unlocked)(p, size, n, stream);
}

/* ---- mappings ---- */

#ifndef __SANITIZE_THREAD__ /* its runtime calls them before it can bear a function that it watches */

/* What is there goes, or may be written without a fault. */
static void forget(const void *p, size_t n)
{
    int error = errno;
    if (is_active() && gems_adopt_any(p, n))
        gems_adopt_forget(p, n);
    errno = error;
}

static inline void forget_span(const span *s)
{
    forget(s->p, s->n);
}

/* Before a call, and after it: another thread may have begun to use what lies beside. */
#define FORGETS(p, n)                                                                                                  \
    __attribute__((cleanup(forget_span))) const span forgotten = {(p), (n)};                                           \
    forget_span(&forgotten)

/* A new mapping is where one was that went unseen. */
static void *mapped(void *p, size_t n)
{
    if (p != MAP_FAILED)
        forget(p, n);
    return p;
}

EXPORT(void *, mmap, (void *p, size_t n, int protection, int flags, int fd, off_t at))
{
    FORGETS(p, flags & MAP_FIXED ? n : 0);
    return mapped(NEXT(mmap)(p, n, protection, flags, fd, at), n);
}

EXPORT(void *, mmap64, (void *p, size_t n, int protection, int flags, int fd, off64_t at))
{
    FORGETS(p, flags & MAP_FIXED ? n : 0);
    return mapped(NEXT(mmap64)(p, n, protection, flags, fd, at), n);
}

EXPORT(int, munmap, (void *p, size_t n))
{
    FORGETS(p, n);
    return NEXT(munmap)(p, n);
}

EXPORT(int, mprotect, (void *p, size_t n, int protection))
{
    FORGETS(p, n);
    return NEXT(mprotect)(p, n, protection);
}

EXPORT(int, madvise, (void *p, size_t n, int advice))
{
    FORGETS(p, advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_REMOVE ? n : 0);
    return NEXT(madvise)(p, n, advice);
}

EXPORT(void *, mremap, (void *p, size_t n, size_t to, int flags, ...))
{
    void *where = NULL;
    if (flags & MREMAP_FIXED) {
        va_list more;
        va_start(more, flags);
        where = va_arg(more, void *);
        va_end(more);
    }
    FORGETS(p, n);
    forget(where, where ? to : 0);
    return mapped(NEXT(mremap)(p, n, to, flags, where), to);
}

#endif

/* ---- sockets ---- */

EXPORT(ssize_t, recv, (int fd, void *p, size_t n, int flags))
{
    HOLD(p, n, true);
    return NEXT(recv)(fd, p, n, flags);
}

EXPORT(ssize_t, __recv_chk, (int fd, void *p, size_t n, size_t room, int flags))
{
    HOLD(p, n, true);
    return NEXT(__recv_chk)(fd, p, n, room, flags);
}

EXPORT(ssize_t, recvfrom, (int fd, void *p, size_t n, int flags, struct sockaddr *from, socklen_t *length))
{
    HOLD(p, n, true);
    return NEXT(recvfrom)(fd, p, n, flags, from, length);
}

EXPORT(ssize_t, __recvfrom_chk,
       (int fd, void *p, size_t n, size_t room, int flags, struct sockaddr *from, socklen_t *length))
{
    HOLD(p, n, true);
    return NEXT(__recvfrom_chk)(fd, p, n, room, flags, from, length);
}

EXPORT(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags))
{
    HOLDS;
    if (is_active() && message)
        hold_list(&held, message->msg_iov, message->msg_iovlen, true);
    return NEXT(recvmsg)(fd, message, flags);
}

static void hold_messages(spans *held, const struct mmsghdr *messages, unsigned n, bool write)
{
    for (unsigned i = 0; messages && i < n && i < 1024; i++)
        hold_list(held, messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen, write);
}

EXPORT(int, recvmmsg, (int fd, struct mmsghdr *messages, unsigned n, int flags, struct timespec *timeout))
{
    HOLDS;
    if (is_active())
        hold_messages(&held, messages, n, true);
    return NEXT(recvmmsg)(fd, messages, n, flags, timeout);
}

EXPORT(ssize_t, send, (int fd, const void *p, size_t n, int flags))
{
    HOLD(p, n, false);
    return NEXT(send)(fd, p, n, flags);
}

EXPORT(ssize_t, sendto, (int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t length))
{
    HOLD(p, n, false);
    return NEXT(sendto)(fd, p, n, flags, to, length);
}

EXPORT(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags))
{
    HOLDS;
    if (is_active() && message)
        hold_list(&held, message->msg_iov, message->msg_iovlen, false);
    return NEXT(sendmsg)(fd, message, flags);
}

EXPORT(int, sendmmsg, (int fd, struct mmsghdr *messages, unsigned n, int flags))
{
    HOLDS;
    if (is_active())
        hold_messages(&held, messages, n, false);
    return NEXT(sendmmsg)(fd, messages, n, flags);
}

/* ---- other ways into memory ---- */

EXPORT(ssize_t, process_vm_readv,
       (pid_t pid, const struct iovec *here, unsigned long n, const struct iovec *there, unsigned long m,
        unsigned long flags))
{
    HOLDS;
    if (is_active()) {
        hold_list(&held, here, n, true);
        if (pid == getpid())
            hold_list(&held, there, m, false);
    }
    return NEXT(process_vm_readv)(pid, here, n, there, m, flags);
}

EXPORT(ssize_t, process_vm_writev,
       (pid_t pid, const struct iovec *here, unsigned long n, const struct iovec *there, unsigned long m,
        unsigned long flags))
{
    HOLDS;
    if (is_active()) {
        hold_list(&held, here, n, false);
        if (pid == getpid())
            hold_list(&held, there, m, true);
    }
    return NEXT(process_vm_writev)(pid, here, n, there, m, flags);
}

EXPORT(ssize_t, getrandom, (void *p, size_t n, unsigned flags))
{
    HOLD(p, n, true);
    return NEXT(getrandom)(p, n, flags);
}

/* Locked pages stay where they are: never unpinned. */

EXPORT(int, mlock, (const void *p, size_t n))
{
    if (is_active())
        (void)pin(p, n, true);
    return NEXT(mlock)(p, n);
}

EXPORT(int, mlock2, (const void *p, size_t n, unsigned flags))
{
    if (is_active())
        (void)pin(p, n, true);
    return NEXT(mlock2)(p, n, flags);
}

/* Calls that return before the memory has been used: it is finished and shown, and not kept so. */

static void settle(const volatile void *p, size_t n, bool write)
{
    span held = hold((const void *)p, n, write);
    release(&held);
}

static void settle_request(const struct aiocb *request)
{
    if (request && request->aio_lio_opcode != LIO_NOP)
        settle(request->aio_buf, request->aio_nbytes, request->aio_lio_opcode == LIO_READ);
}

EXPORT(int, aio_read, (struct aiocb * request))
{
    settle(request->aio_buf, request->aio_nbytes, true);
    return NEXT(aio_read)(request);
}

EXPORT(int, aio_read64, (struct aiocb64 * request))
{
    settle(request->aio_buf, request->aio_nbytes, true);
    return NEXT(aio_read64)(request);
}

EXPORT(int, aio_write, (struct aiocb * request))
{
    settle(request->aio_buf, request->aio_nbytes, false);
    return NEXT(aio_write)(request);
}

EXPORT(int, aio_write64, (struct aiocb64 * request))
{
    settle(request->aio_buf, request->aio_nbytes, false);
    return NEXT(aio_write64)(request);
}

EXPORT(int, lio_listio, (int mode, struct aiocb *const *requests, int n, struct sigevent *event))
{
    for (int i = 0; is_active() && i < n; i++)
        settle_request(requests[i]);
    return NEXT(lio_listio)(mode, requests, n, event);
}

EXPORT(int, lio_listio64, (int mode, struct aiocb64 *const *requests, int n, struct sigevent *event))
{
    _Static_assert(sizeof(struct aiocb) == sizeof(struct aiocb64), "the same where off_t has 64 bits");
    for (int i = 0; is_active() && i < n; i++)
        settle_request((const struct aiocb *)requests[i]);
    return NEXT(lio_listio64)(mode, requests, n, event);
}

/* ---- actions of signals ---- */

EXPORT(int, sigaction, (int sig, const struct sigaction *act, struct sigaction *old))
{
    return gems_signal_action(sig, act, old, __builtin_return_address(0));
}

EXPORT(int, __sigaction, (int sig, const struct sigaction *act, struct sigaction *old))
{
    return gems_signal_action(sig, act, old, __builtin_return_address(0));
}

/* As libc makes an action of a handler; the handler before. */
static sighandler_t set_handler(sighandler_t handler, int flags, bool masked, const void *caller)
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = flags}, old;
    if (handler == SIG_ERR) {
        errno = EINVAL;
        return SIG_ERR;
    }
    sigemptyset(&act.sa_mask);
    if (masked)
        sigaddset(&act.sa_mask, SIGSEGV);
    return gems_signal_action(SIGSEGV, &act, &old, caller) == 0 ? old.sa_handler : SIG_ERR;
}

EXPORT(sighandler_t, signal, (int sig, sighandler_t handler))
{
    return sig == SIGSEGV ? set_handler(handler, SA_RESTART, true, __builtin_return_address(0))
                          : NEXT(signal)(sig, handler);
}

EXPORT(sighandler_t, bsd_signal, (int sig, sighandler_t handler))
{
    return sig == SIGSEGV ? set_handler(handler, SA_RESTART, true, __builtin_return_address(0))
                          : NEXT(bsd_signal)(sig, handler);
}

EXPORT(sighandler_t, ssignal, (int sig, sighandler_t handler))
{
    return sig == SIGSEGV ? set_handler(handler, SA_RESTART, true, __builtin_return_address(0))
                          : NEXT(ssignal)(sig, handler);
}

#define ONCE ((int)SA_RESETHAND | SA_NODEFER)

EXPORT(sighandler_t, sysv_signal, (int sig, sighandler_t handler))
{
    return sig == SIGSEGV ? set_handler(handler, ONCE, false, __builtin_return_address(0))
                          : NEXT(sysv_signal)(sig, handler);
}

EXPORT(sighandler_t, __sysv_signal, (int sig, sighandler_t handler))
{
    return sig == SIGSEGV ? set_handler(handler, ONCE, false, __builtin_return_address(0))
                          : NEXT(__sysv_signal)(sig, handler);
}

/* ---- masks of signals ---- */

EXPORT(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *old))
{
    return gems_signal_mask(how, set, old);
}

static int set_mask(int how, const sigset_t *set, sigset_t *old)
{
    int error = gems_signal_mask(how, set, old);
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}

EXPORT(int, sigprocmask, (int how, const sigset_t *set, sigset_t *old))
{
    return set_mask(how, set, old);
}

static int mask_one(int how, int sig, sigset_t *old)
{
    sigset_t set;
    sigemptyset(&set);
    return sigaddset(&set, sig) == 0 ? set_mask(how, &set, old) : -1;
}

EXPORT(int, sighold, (int sig))
{
    return mask_one(SIG_BLOCK, sig, NULL);
}

EXPORT(int, sigrelse, (int sig))
{
    return mask_one(SIG_UNBLOCK, sig, NULL);
}

EXPORT(int, sigignore, (int sig))
{
    if (sig != SIGSEGV)
        return NEXT(sigignore)(sig);
    return set_handler(SIG_IGN, 0, false, __builtin_return_address(0)) == SIG_ERR ? -1 : 0;
}

EXPORT(sighandler_t, sigset, (int sig, sighandler_t handler))
{
    struct sigaction before;
    sigset_t old;
    if (sig != SIGSEGV)
        return NEXT(sigset)(sig, handler);
    if (gems_signal_action(sig, NULL, &before, __builtin_return_address(0)) != 0)
        return SIG_ERR;
    if (handler != SIG_HOLD && set_handler(handler, 0, false, __builtin_return_address(0)) == SIG_ERR)
        return SIG_ERR;
    if (mask_one(handler == SIG_HOLD ? SIG_BLOCK : SIG_UNBLOCK, sig, &old) != 0)
        return SIG_ERR;
    return sigismember(&old, sig) == 1 ? SIG_HOLD : before.sa_handler;
}

/* A handler that runs in one of these has its mask. */

EXPORT(int, sigsuspend, (const sigset_t *mask))
{
    sigset_t copy;
    return NEXT(sigsuspend)(gems_signal_unblocked(mask, &copy));
}

EXPORT(int, ppoll, (struct pollfd * files, nfds_t n, const struct timespec *timeout, const sigset_t *mask))
{
    sigset_t copy;
    return NEXT(ppoll)(files, n, timeout, gems_signal_unblocked(mask, &copy));
}

EXPORT(int, __ppoll_chk,
       (struct pollfd * files, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t room))
{
    sigset_t copy;
    return NEXT(__ppoll_chk)(files, n, timeout, gems_signal_unblocked(mask, &copy), room);
}

EXPORT(int, pselect,
       (int n, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout, const sigset_t *mask))
{
    sigset_t copy;
    return NEXT(pselect)(n, in, out, except, timeout, gems_signal_unblocked(mask, &copy));
}

EXPORT(int, epoll_pwait, (int fd, struct epoll_event *events, int n, int timeout, const sigset_t *mask))
{
    sigset_t copy;
    return NEXT(epoll_pwait)(fd, events, n, timeout, gems_signal_unblocked(mask, &copy));
}

EXPORT(int, epoll_pwait2,
       (int fd, struct epoll_event *events, int n, const struct timespec *timeout, const sigset_t *mask))
{
    sigset_t copy;
    return NEXT(epoll_pwait2)(fd, events, n, timeout, gems_signal_unblocked(mask, &copy));
}

/* ---- the exit ---- */

/* What is owed must be computed, and what is being built ended, before a library that this needs is taken down.
 * Handlers run in the opposite order, and libraries register some whenever something is first used, compilers while
 * they compile: ours come after each. */
EXPORT(int, __cxa_atexit, (void (*handler)(void *), void *arg, void *library))
{
    int failed = NEXT(__cxa_atexit)(handler, arg, library);
    if (gems_device_is_open())
        (void)NEXT(__cxa_atexit)(gems_device_end, NULL, NULL);
    if (gems_chain_is_on())
        (void)NEXT(__cxa_atexit)(gems_chain_end, NULL, NULL);
    return failed;
}
