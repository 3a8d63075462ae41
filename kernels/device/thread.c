/* Stacks deep enough for drivers: a program may call operators from threads of 64 KiB. */
#include "kernels/device/internal.h"
#include "preload/base/thread.h"

#include <time.h>

typedef struct task {
    void (*fn)(void *);
    void *arg;
} task;

static void *run(void *arg)
{
    const task *t = arg;
    t->fn(t->arg);
    return NULL;
}

/* Bytes between here and the end of the thread's stack; SIZE_MAX if that is not known. */
static size_t left(void)
{
    static __thread char *end; /* asked for once a thread: for the first thread it takes a file */
    static __thread bool asked;
    char here;
    if (!asked) {
        pthread_attr_t attr;
        void *low;
        size_t size;
        asked = true;
        if (pthread_getattr_np(pthread_self(), &attr) == 0) {
            if (pthread_attr_getstack(&attr, &low, &size) == 0)
                end = low;
            pthread_attr_destroy(&attr);
        }
    }
    return end && end < &here ? (size_t)(&here - end) : SIZE_MAX;
}

bool gems_thread_apart(void (*fn)(void *), void *arg, size_t bytes)
{
    pthread_t thread;
    task t = {fn, arg};
    if (!gems_thread_start(&thread, 2 * bytes + ((size_t)1 << 20), run, &t))
        return false;
    pthread_join(thread, NULL);
    return true;
}

void gems_thread_deep(void (*fn)(void *), void *arg, size_t bytes)
{
    if (left() >= bytes || !gems_thread_apart(fn, arg, bytes))
        fn(arg);
}

int64_t gems_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

void gems_device_deep(void (*fn)(void *), void *arg)
{
    gems_thread_deep(fn, arg, GEMS_STACK_LAUNCH);
}
