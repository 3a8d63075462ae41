/* Each thread has a slot in which it shows what it holds (a hazard pointer). It shows first and then looks whether that
 * is still in force; who replaces puts the new one in force first and then looks into the slots: so one of the two sees
 * the other. */
#include "preload/engine/tables.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

typedef struct in_force {
    gems_tables *tables;
    struct in_force *next; /* of the replaced ones */
} in_force;

typedef struct slot {
    _Alignas(64) _Atomic(in_force *) held;
    atomic_bool taken;
    struct slot *next;
} slot;

static _Atomic(in_force *) current;
static _Atomic(slot *) slots; /* never freed; those of ended threads are taken again */
static __thread slot *mine;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for `replaced` */
static in_force *replaced;
static atomic_bool any_replaced;

static pthread_key_t ending;

static void thread_ends(void *s)
{
    mine = NULL;
    atomic_store(&((slot *)s)->taken, false);
}

static void make_key(void)
{
    pthread_key_create(&ending, thread_ends);
}

static slot *take_slot(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_key);
    slot *s = atomic_load(&slots);
    while (s && atomic_exchange(&s->taken, true))
        s = s->next;
    if (!s) {
        s = aligned_alloc(64, sizeof *s);
        if (!s)
            return NULL;
        s->held = NULL;
        s->taken = true;
        s->next = atomic_load(&slots);
        while (!atomic_compare_exchange_weak(&slots, &s->next, s))
            ;
    }
    pthread_setspecific(ending, s);
    return mine = s;
}

static bool is_held(const in_force *f)
{
    for (slot *s = atomic_load(&slots); s; s = s->next)
        if (atomic_load(&s->held) == f)
            return true;
    return false;
}

/* Frees what nobody holds. Under the lock. */
static void sweep(void)
{
    for (in_force **at = &replaced; *at;) {
        in_force *f = *at;
        if (is_held(f)) {
            at = &f->next;
            continue;
        }
        *at = f->next;
        gems_tables_free(f->tables);
        free(f);
    }
    atomic_store(&any_replaced, replaced != NULL);
}

const gems_table *gems_tables_hold(void)
{
    slot *s = mine ? mine : take_slot();
    if (!s) /* out of memory: a call without a rule stays with the host */
        return NULL;
    in_force *f;
    do {
        f = atomic_load_explicit(&current, memory_order_relaxed);
        atomic_store(&s->held, f);
    } while (f != atomic_load(&current));
    return f ? gems_tables_top(f->tables) : NULL;
}

void gems_tables_release(void)
{
    if (!mine)
        return;
    atomic_store_explicit(&mine->held, NULL, memory_order_release);
    /* Missed here it is seen by the next call of any thread. */
    if (atomic_load_explicit(&any_replaced, memory_order_relaxed) && pthread_mutex_trylock(&lock) == 0) {
        sweep();
        pthread_mutex_unlock(&lock);
    }
}

const gems_table *gems_tables_current(void)
{
    in_force *f = atomic_load(&current);
    return f ? gems_tables_top(f->tables) : NULL;
}

bool gems_tables_replace(gems_tables *next)
{
    in_force *f = malloc(sizeof *f);
    if (!f)
        return false;
    f->tables = next;
    in_force *old = atomic_exchange(&current, f);
    pthread_mutex_lock(&lock);
    if (old) {
        old->next = replaced;
        replaced = old;
    }
    sweep();
    pthread_mutex_unlock(&lock);
    return true;
}

void gems_tables_after_fork_in_child(void)
{
    pthread_mutex_init(&lock, NULL);
}
