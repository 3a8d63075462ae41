/* Kernels of chains are built in the background, by launching them over nothing: until then the evaluator serves. What
 * is computed once only is not worth a kernel: it is built when the chain is wanted again, in this process or, as the
 * cache on disk tells, in another one. */
#include "kernels/chain/group.h"
#include "preload/base/hash.h"
#include "preload/base/thread.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STACK ((size_t)8 << 20) /* for compilers */

enum {
    KNOWN = 8192, /* kernels; a power of two */
    WAITING = 64
};

typedef enum state {
    UNKNOWN,
    NEW, /* wanted once; to be looked up */
    WANTED,
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
    atomic_uint compiling; /* how many are QUEUED */
} build = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static struct known *find(uint64_t hash)
{
    struct known *k = &build.known[hash & (KNOWN - 1)];
    while (k->state != UNKNOWN && k->hash != hash)
        k = k == &build.known[KNOWN - 1] ? build.known : k + 1;
    return k;
}

/* What the cache on disk has of a chain that was worth a kernel. NULL: memory is out. */
static char *mark_of(gems_work *work)
{
    const pw_recipe *r = pw_recipe_of(work);
    char *source = gems_pw_source(&r->spec, "chain"), *mark = NULL;
    if (source && asprintf(&mark, "chain %llx %d\n%s", (unsigned long long)r->end_id, (int)work->lane, source) < 0)
        mark = NULL;
    free(source);
    return mark;
}

static bool is_marked(const char *mark)
{
    size_t size;
    unsigned char *found = gems_cache_load(mark, strlen(mark), &size);
    free(found);
    return found != NULL;
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

static void queued(struct known *k)
{
    k->state = QUEUED;
    atomic_fetch_add(&build.compiling, 1);
}

/* With the lock, which is given up meanwhile. */
static void serve(gems_work *work, uint64_t hash)
{
    pthread_mutex_unlock(&build.lock);
    char *mark = mark_of(work);
    bool before = mark && is_marked(mark);
    pthread_mutex_lock(&build.lock);
    struct known *k = find(hash);
    if (k->state == NEW)
        k->state = WANTED;
    if (before && k->state == WANTED)
        queued(k);
    if (k->state == QUEUED) {
        pthread_mutex_unlock(&build.lock);
        state s = build_one(work);
        if (s == BUILT) {
            if (mark && !before)
                gems_cache_store(mark, strlen(mark), (const unsigned char *)"", 1);
            gems_chains_lock();
            gems_chains.counts.kernels++;
            gems_chains_unlock();
        }
        pthread_mutex_lock(&build.lock);
        k->state = s;
        atomic_fetch_sub(&build.compiling, 1);
    }
    free(mark);
    gems_work_end(work);
    free(work);
}

static void *run(void *unused)
{
    (void)unused;
    gems_build_in_background();
    pthread_mutex_lock(&build.lock);
    for (;;) {
        while (!build.n && !build.stopped)
            pthread_cond_wait(&build.changed, &build.lock);
        if (build.stopped)
            break;
        unsigned i = build.first;
        build.first = (i + 1) % WAITING;
        build.n--;
        build.builds = true;
        serve(build.queue[i], build.hash[i]);
        build.builds = false;
        pthread_cond_broadcast(&build.changed);
    }
    build.runs = false;
    pthread_cond_broadcast(&build.changed);
    pthread_mutex_unlock(&build.lock);
    return NULL;
}

/* Before what is to be compiled if it is only to be looked up. False: not now. */
static bool enqueue(const gems_work *work, uint64_t hash, bool first)
{
    if (build.stopped || build.n == WAITING)
        return false;
    if (!build.runs && !(build.runs = gems_thread_start(NULL, STACK, run, NULL)))
        return false;
    gems_work *copy = malloc(sizeof *copy);
    if (!copy || !gems_work_copy(copy, work)) {
        free(copy);
        return false;
    }
    if (first)
        build.first = (build.first + WAITING - 1) % WAITING;
    unsigned i = first ? build.first : (build.first + build.n) % WAITING;
    build.n++;
    build.queue[i] = copy;
    build.hash[i] = hash;
    pthread_cond_broadcast(&build.changed);
    return true;
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
    if (k->state == NEW || (k->state == WANTED && enqueue(work, hash, false)))
        queued(k);
    else if (k->state == UNKNOWN && build.nknown < KNOWN / 2) {
        build.nknown++;
        *k = (struct known){hash, enqueue(work, hash, true) ? NEW : WANTED};
    }
    pthread_mutex_unlock(&build.lock);
    return built;
}

bool gems_chain_lacks(uint64_t id)
{
    pthread_mutex_lock(&build.lock);
    state s = find(id)->state;
    pthread_mutex_unlock(&build.lock);
    return s == FAILED;
}

bool gems_chain_builds(void)
{
    return atomic_load_explicit(&build.compiling, memory_order_relaxed) > 0;
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
    build.compiling = 0;
    build.stopped = true;
}
