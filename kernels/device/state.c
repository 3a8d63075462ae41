/* Whether the device may be used, and when not to touch it any more: a fork, the end of the process, a lost device. */
#include "kernels/device/internal.h"
#include "preload/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define EXIT_WAIT_MS 2000 /* how long the end of the process waits for queues in use */

static struct {
    _Atomic int now;           /* enum gems_state */
    _Atomic(const char *) why; /* why it is stopped */
    gems_lane_state *lane[GEMS_LANE_COUNT];
    _Atomic bool fork_noted;
    pthread_mutex_t opening;
} state = {.opening = PTHREAD_MUTEX_INITIALIZER};

_Atomic int gems_state_queues, gems_state_building;

static const char FORKED[] = "the process was forked after OpenCL was opened, and OpenCL does not survive that";
static const char EXITING[] = "the process is ending";

void gems_trouble_note(gems_trouble *trouble, gems_trouble_kind kind, const char *fmt, ...)
{
    if (trouble->kind != GEMS_TROUBLE_NONE)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(trouble->text, sizeof trouble->text, fmt, args);
    va_end(args);
    trouble->kind = kind;
}

void gems_device_stop(const char *reason)
{
    const char *none = NULL;
    atomic_compare_exchange_strong(&state.why, &none, reason);
    atomic_store(&state.now, GEMS_STATE_STOPPED);
}

/* The child has none of the driver's threads, and its locks may be held by threads that do not exist. */
static void after_fork_in_child(void)
{
    int now = atomic_load(&state.now);
    pthread_mutex_init(&state.opening, NULL);
    if (now != GEMS_STATE_OPEN && now != GEMS_STATE_OPENING)
        return;
    atomic_store(&state.why, FORKED);
    atomic_store(&state.now, GEMS_STATE_STOPPED);
    atomic_store(&gems_state_queues, 0);
}

bool gems_device_is_open(void)
{
    return atomic_load(&state.now) == GEMS_STATE_OPEN;
}

void gems_device_end(void *unused)
{
    (void)unused;
    int open = GEMS_STATE_OPEN;
    if (!atomic_compare_exchange_strong(&state.now, &open, GEMS_STATE_STOPPED))
        return;
    atomic_store(&state.why, EXITING);
    gems_save_end();
    for (int ms = 0; ms < (atomic_load(&gems_state_building) > 0 ? GEMS_COMPILER_SECONDS * 1000 : EXIT_WAIT_MS) &&
                     atomic_load(&gems_state_queues) > 0;
         ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Registered so that gems_device_end is, too (preload/libc.c). */
static void register_end(void)
{
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

enum gems_state gems_state_now(void)
{
    enum gems_state now = (enum gems_state)atomic_load_explicit(&state.now, memory_order_acquire);
    if (now == GEMS_STATE_STOPPED && atomic_load(&state.why) == FORKED && !atomic_exchange(&state.fork_noted, true))
        gems_log("process %d: %s; the host runs everything here", (int)getpid(), FORKED);
    return now;
}

void gems_state_lock(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks); /* before the lock is taken */
    pthread_mutex_lock(&state.opening);
}

void gems_state_unlock(void)
{
    pthread_mutex_unlock(&state.opening);
}

bool gems_state_advance(enum gems_state to)
{
    int from = to == GEMS_STATE_OPENING ? GEMS_STATE_CLOSED : GEMS_STATE_OPENING;
    bool advanced = atomic_compare_exchange_strong(&state.now, &from, (int)to);
    if (advanced && to == GEMS_STATE_OPEN)
        (void)atexit(register_end);
    return advanced;
}

void gems_state_set_lane(gems_lane lane, gems_lane_state *lane_state)
{
    state.lane[lane] = lane_state;
}

gems_lane_state *gems_state_lane(gems_lane lane, gems_trouble *trouble)
{
    if (gems_state_now() == GEMS_STATE_OPEN)
        return state.lane[lane == GEMS_LANE_SMALL ? GEMS_LANE_SMALL : GEMS_LANE_MAIN];
    gems_trouble_note(trouble, GEMS_TROUBLE_NO_DEVICE, "%s", gems_device_error());
    return NULL;
}

const char *gems_device_error(void)
{
    const char *why = atomic_load(&state.why);
    return why ? why : "";
}

const gems_device_info *gems_device_get(gems_lane lane)
{
    static const gems_device_info none = {.vendor = "none",
                                          .platform = "",
                                          .name = "",
                                          .driver = "",
                                          .prelude = "",
                                          .compute_units = 1,
                                          .subgroup = 1,
                                          .max_group = 1};
    const gems_lane_state *s = state.lane[lane == GEMS_LANE_SMALL ? GEMS_LANE_SMALL : GEMS_LANE_MAIN];
    return s ? &s->info : &none;
}
