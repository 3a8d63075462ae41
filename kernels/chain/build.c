/* Kernels of chains are built in the background, by launching them over nothing: until then the evaluator serves. */
#include "kernels/chain/group.h"
#include "preload/base/hash.h"
#include "preload/base/thread.h"

#include <stdlib.h>

#define STACK ((size_t)8 << 20) /* for compilers */

enum {
    KNOWN = 8192, /* kernels; a power of two */
    WAITING = 64
};

typedef enum state {
    UNKNOWN,
    WANTED, /* once: what is computed once only is not worth a kernel */
    QUEUED,
    BUILT,
    FAILED
} state;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct known {
        uint64_t hash; /* of spec and lane */
        state state;
    } known[KNOWN];
    unsigned nknown;
    gems_work *queue[WAITING]; /* a ring */
    uint64_t hash[WAITING];
    unsigned first, n;
    bool runs, stopped, builds;
} build = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static struct known *find(uint64_t hash)
{
    struct known *k = &build.known[hash & (KNOWN - 1)];
    while (k->state != UNKNOWN && k->hash != hash)
        k = k == &build.known[KNOWN - 1] ? build.known : k + 1;
    return k;
}

/* Operands of a launch over nothing. */
static _Alignas(64) char nothing[64];

static state build_one(gems_work *work)
{
    pw_recipe_nothing(work);
    for (uint32_t i = 0; i < work->noperands; i++) {
        gems_operand *o = &work->operand[i];
        o->allocation = (uintptr_t)nothing;
        o->offset = 0;
        o->span = o->element;
        o->gaps = -1;
    }
    work->guarded = true;
    return gems_work_execute(work) ? BUILT : FAILED;
}

static void *run(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&build.lock);
    for (;;) {
        while (!build.n && !build.stopped)
            pthread_cond_wait(&build.changed, &build.lock);
        if (build.stopped)
            break;
        unsigned i = build.first;
        gems_work *work = build.queue[i];
        uint64_t hash = build.hash[i];
        build.first = (i + 1) % WAITING;
        build.n--;
        build.builds = true;
        pthread_mutex_unlock(&build.lock);
        state s = build_one(work);
        gems_work_end(work);
        free(work);
        if (s == BUILT) {
            gems_chains_lock();
            gems_chains.counts.kernels++;
            gems_chains_unlock();
        }
        pthread_mutex_lock(&build.lock);
        find(hash)->state = s;
        build.builds = false;
        pthread_cond_broadcast(&build.changed);
    }
    build.runs = false;
    pthread_cond_broadcast(&build.changed);
    pthread_mutex_unlock(&build.lock);
    return NULL;
}

static void enqueue(const gems_work *work, uint64_t hash, struct known *k)
{
    if (build.stopped || build.n == WAITING)
        return;
    if (!build.runs && !(build.runs = gems_thread_start(NULL, STACK, run, NULL)))
        return;
    gems_work *copy = malloc(sizeof *copy);
    if (!copy || !gems_work_copy(copy, work)) {
        free(copy);
        return;
    }
    unsigned i = (build.first + build.n++) % WAITING;
    build.queue[i] = copy;
    build.hash[i] = hash;
    *k = (struct known){hash, QUEUED};
    pthread_cond_broadcast(&build.changed);
}

bool gems_chain_built(gems_work *work, uint64_t *id)
{
    *id = 0;
    if (!pw_recipe_choose(work))
        return false;
    const pw_recipe *r = pw_recipe_of(work);
    uint64_t hash = gems_hash_long(r->end_id * 64 + 16 + (uint64_t)work->lane, &r->spec, gems_pw_spec_bytes(&r->spec));
    *id = hash;
    pthread_mutex_lock(&build.lock);
    struct known *k = find(hash);
    bool built = k->state == BUILT;
    if (k->state == WANTED)
        enqueue(work, hash, k);
    else if (k->state == UNKNOWN && build.nknown < KNOWN / 2) {
        build.nknown++;
        *k = (struct known){hash, WANTED};
    }
    pthread_mutex_unlock(&build.lock);
    return built;
}

bool gems_chain_lacks(uint64_t id)
{
    pthread_mutex_lock(&build.lock);
    state s = find(id)->state;
    pthread_mutex_unlock(&build.lock);
    return s == QUEUED || s == FAILED;
}

void gems_chain_build_rest(void)
{
    pthread_mutex_lock(&build.lock);
    while (build.runs && (build.n || build.builds))
        pthread_cond_wait(&build.changed, &build.lock);
    pthread_mutex_unlock(&build.lock);
}

void gems_chain_build_stop(void)
{
    pthread_mutex_lock(&build.lock);
    build.stopped = true;
    pthread_cond_broadcast(&build.changed);
    while (build.runs)
        pthread_cond_wait(&build.changed, &build.lock);
    pthread_mutex_unlock(&build.lock);
}

void gems_chain_build_lock(bool lock)
{
    if (lock)
        pthread_mutex_lock(&build.lock);
    else
        pthread_mutex_unlock(&build.lock);
}

void gems_chain_build_after_fork(void)
{
    pthread_mutex_init(&build.lock, NULL);
    pthread_cond_init(&build.changed, NULL);
    build.runs = build.builds = false;
    build.stopped = true;
}
