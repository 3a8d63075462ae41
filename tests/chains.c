/* Threads whose pointwise results are owed: they defer, read, write, pin, free, on tensors of their own, on tensors
 * that all read and now and then one writes, and on results that one leaves to another before they are computed. The
 * same with what kernels write staying on the device, where eight blocks have room (`chains 1000 resident`). A program
 * of its own for ThreadSanitizer (make check-tsan). Memory is settled before it is looked at, not touched:
 * ThreadSanitizer looks at memory itself, where no handler of signals helps. Ends with status 0 if every value is
 * right. */
#include "tests/unit/chain_jobs.h"
#include "preload/base/config.h"

enum {
    THREADS = 6,
    SHARED = 3,
    SHELF = 8,
    OWN = 5
};

static node *shared[SHARED];
static pthread_rwlock_t shared_lock[SHARED];
static _Atomic(node *) shelf[SHELF];
static int rounds = 1000;

static node *add(node *a, node *b)
{
    return apply("add.Tensor", T(a), T(b), I(1));
}

/* Looks at it as a system call does. */
static void look(const node *x)
{
    bool pinned = gems_chain_pin(x->store->memory, x->store->bytes, false);
    chain_same(x);
    if (pinned)
        gems_chain_unpin(x->store->memory, x->store->bytes);
}

/* A chain of which the kernel is built by now. */
static void run_known(node *x)
{
    gems_chain_settle(x->store->memory, x->store->bytes, true, GEMS_CAUSE_OPERATOR);
    node *a = add(x, x), *b = apply("mul.Tensor", T(a), T(x));
    node_free(a);
    look(b);
    node_free(b);
}

static void wait_for_the_known(void)
{
    node *x = node_new(GEMS_I32, SHAPE(24, 16));
    gems_chain_counts c = {0};
    for (int i = 0; i < 3000 && c.passes == c.evaluated; i++) {
        run_known(x);
        gems_chain_count(&c);
        usleep(10000);
    }
    if (c.passes == c.evaluated)
        failed("the kernel is never built");
    node_free(x);
}

static node *use_shared(unsigned i, unsigned what, node *own)
{
    node *made = NULL;
    bool writes = what % 16 == 0;
    if (writes)
        pthread_rwlock_wrlock(&shared_lock[i]);
    else
        pthread_rwlock_rdlock(&shared_lock[i]);
    if (writes && what / 16 % 2)
        apply("neg_", T(shared[i]));
    else if (writes)
        apply("add_.Tensor", T(shared[i]), T(own), I(1));
    else if (what % 16 < 4)
        look(shared[i]);
    else
        made = add(shared[i], own);
    pthread_rwlock_unlock(&shared_lock[i]);
    return made;
}

static void replace(node **x, node *made)
{
    if (!made)
        return;
    if (*x)
        node_free(*x);
    *x = made;
}

static void *work(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    node *own[OWN] = {0};
    for (int round = 0; round < rounds; round++) {
        unsigned r = (unsigned)rand_r(&seed), what = r % 12, more = r / 16;
        node **x = &own[more % OWN], **y = &own[more / 8 % OWN];
        if (!*x || what == 0)
            replace(x, node_new(GEMS_I32, SHAPE(24, 16)));
        else if (what == 1)
            look(*x);
        else if (what == 2)
            chain_same(*x);
        else if (what == 3)
            replace(y, use_shared(more % SHARED, more / 8, *x));
        else if (what == 4)
            apply("neg_", T(*x));
        else if (what == 5 && *y && *x != *y)
            apply("add_.Tensor", T(*x), T(*y), I(1));
        else if (what == 6) {
            node *half = node_view(*x, 0, SHAPE(12, 16), NULL);
            apply("neg_", T(half));
            node_free(half);
        } else if (what == 7) {
            node_free(*x);
            *x = NULL;
        } else if (what == 8) {
            *x = atomic_exchange(&shelf[more % SHELF], *x); /* owed perhaps */
        } else if (what == 9) {
            gems_chain_counts counts;
            gems_chain_count(&counts);
            gems_chain_settle(own[0] ? own[0]->store->memory : NULL, 1, more % 2, GEMS_CAUSE_OPERATOR);
        } else if (what == 10) {
            run_known(*x);
        } else if (*y) {
            replace(y, add(*x, *y));
        }
    }
    for (int i = 0; i < OWN; i++)
        if (own[i]) {
            chain_same(own[i]);
            node_free(own[i]);
        }
    return NULL;
}

static void run_in_threads(uintptr_t seed)
{
    pthread_t thread[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, work, (void *)(seed + i));
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
}

int main(int argc, char **argv)
{
    bool resident = argc > 2 && strcmp(argv[2], "resident") == 0;
    if (argc > 1)
        rounds = atoi(argv[1]);
    if (resident)
        setenv("GEMS_MEMORY", "staged", 1);
    gems_config_get();
    gems_resident_limit((size_t)8 * GEMS_ARENA_LEAST);
    if (!gems_device_open() || !gems_chain_start(GEMS_FUSE_ALL, resident ? GEMS_STAY_FORCE : GEMS_STAY_OFF)) {
        fprintf(stderr, "nothing can be deferred, nothing stays: %s\n", gems_device_error());
        return 1;
    }
    chain_quiet = true;
    for (unsigned i = 0; i < SHARED; i++) {
        shared[i] = node_new(GEMS_I32, SHAPE(24, 16));
        pthread_rwlock_init(&shared_lock[i], NULL);
    }
    if (!resident)
        wait_for_the_known();
    run_in_threads(1);
    chain_quiet = false;
    run_in_threads(1001);
    for (int i = 0; i < SHELF; i++)
        if (shelf[i]) {
            chain_same(shelf[i]);
            node_free(shelf[i]);
        }
    for (int i = 0; i < SHARED; i++) {
        chain_same(shared[i]);
        node_free(shared[i]);
    }
    gems_chain_counts counts;
    gems_chain_count(&counts);
    if (!chain_is_empty())
        failed("something is left");
    gems_chain_end(NULL);
    if (resident && !counts.home[GEMS_CAUSE_SYSTEM])
        failed("nothing was brought home");
    printf("%llu calls owed, %llu passes, %llu of them not by the device: %ld wrong\n",
           (unsigned long long)counts.calls, (unsigned long long)counts.passes, (unsigned long long)counts.evaluated,
           trial_failures);
    return trial_failures != 0;
}
