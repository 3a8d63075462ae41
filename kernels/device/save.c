/* Storing binaries in the cache without holding anybody up.
 *
 * To hand out a program's binary PoCL compiles all of its kernels once more, for work-groups of any size: as long again
 * as the build itself. So for such vendors ("save": "idle") a thread stores them when nothing has been built for a
 * while; at once only a process's first programs, and those only that the driver does not keep in its own way
 * (pocl_keep.c). What is left at the end of the process is left to the next one: a compiler whose exit handlers have
 * run must not be called. */
#include "kernels/device/internal.h"
#include "preload/base/config.h"
#include "preload/base/thread.h"

#include <time.h>

#define AT_ONCE      4 /* programs of a process that are stored at once: short programs have no more */
#define IDLE_SECONDS 1 /* without a build, before binaries are asked for */
#define PAUSE_MS     100

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;
    gems_program *first; /* to be saved, linked by next_unsaved */
    bool started;
    atomic_bool ending, busy;
    _Atomic int64_t last_build; /* seconds */
} saver = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
}

void gems_save_note_build(void)
{
    atomic_store_explicit(&saver.last_build, gems_seconds(), memory_order_relaxed);
}

static void *save_loop(void *unused)
{
    (void)unused;
    gems_thread_give_way();
    while (!atomic_load(&saver.ending)) {
        pthread_mutex_lock(&saver.lock);
        while (!saver.first)
            pthread_cond_wait(&saver.work, &saver.lock);
        gems_program *program = saver.first;
        pthread_mutex_unlock(&saver.lock);

        while (gems_seconds() - atomic_load(&saver.last_build) <= IDLE_SECONDS && !atomic_load(&saver.ending))
            pause_briefly();
        atomic_store(&saver.busy, true);
        if (!atomic_load(&saver.ending)) /* asked after `busy` is set: from there on the end waits */
            program->store(program);
        atomic_store(&saver.busy, false);

        pthread_mutex_lock(&saver.lock); /* newer ones were put in front */
        for (gems_program **link = &saver.first; *link; link = &(*link)->next_unsaved)
            if (*link == program) {
                *link = program->next_unsaved;
                break;
            }
        pthread_mutex_unlock(&saver.lock);
    }
    return NULL;
}

/* With the lock held. */
static bool start_thread(void)
{
    pthread_t thread;
    bool started = gems_thread_start(&thread, 0, save_loop, NULL);
    if (started) {
        pthread_setname_np(thread, "gems-save");
        pthread_detach(thread);
    }
    return started;
}

void gems_save_later(gems_program *program, void (*store)(gems_program *))
{
    static atomic_uint programs;
    program->store = store;
    if (!program->kept && atomic_fetch_add(&programs, 1) < AT_ONCE) {
        program->store(program);
        return;
    }
    if (!gems_config_get()->save)
        return;
    pthread_mutex_lock(&saver.lock);
    if (!saver.started)
        saver.started = start_thread();
    program->next_unsaved = saver.first;
    saver.first = program;
    pthread_cond_signal(&saver.work);
    pthread_mutex_unlock(&saver.lock);
}

void gems_save_end(void)
{
    atomic_store(&saver.ending, true);
    for (int64_t start = gems_seconds(); atomic_load(&saver.busy) && gems_seconds() - start < GEMS_COMPILER_SECONDS;)
        pause_briefly();
}
