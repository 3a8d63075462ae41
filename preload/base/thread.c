#include "preload/base/thread.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GIVES_WAY 5 /* of nice(2): a quarter of a processor that another thread wants, too */

bool gems_thread_start(pthread_t *thread, size_t stack, void *(*fn)(void *), void *arg)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    pthread_t unused;
    pthread_attr_t attributes;
    sigset_t most, before;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    if (!thread)
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack)
        pthread_attr_setstacksize(&attributes, stack);
    sigfillset(&most);
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        sigdelset(&most, crashes[i]);
    pthread_sigmask(SIG_SETMASK, &most, &before);
    bool started = pthread_create(thread ? thread : &unused, &attributes, fn, arg) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

void gems_thread_give_way(void)
{
    const id_t mine = (id_t)syscall(SYS_gettid); /* glibc has gettid since 2.30 */
    errno = 0;
    int nice = getpriority(PRIO_PROCESS, mine);
    if (errno == 0)
        (void)setpriority(PRIO_PROCESS, mine, nice + GIVES_WAY); /* Linux: of this thread alone */
}
