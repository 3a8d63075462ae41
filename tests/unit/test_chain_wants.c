/* kernels/chain: whoever wants values gets those that the same calls give one by one, bit for bit: a touch, a pin,
 * other threads, a fork, the exit; also where memory runs out, and in any program. */
#include "tests/unit/chain_suite.h"

/* ---- who wants values ---- */

static void *touch_all(void *arg)
{
    node *const *x = arg;
    for (int i = 0; x[i]; i++)
        chain_same(x[i]);
    return NULL;
}

static void touched_by_threads(void)
{
    enum {
        MANY = 8
    };
    for (int round = 0; round < 10; round++) {
        node *x = node_new(GEMS_F32, SHAPE(100, 40)), *y[MANY + 1] = {0};
        pthread_t thread[MANY];
        for (int i = 0; i < MANY; i++)
            y[i] = i ? ADD(y[i - 1], x) : TIMES(x, 2);
        for (int i = 0; i < MANY; i++)
            pthread_create(&thread[i], NULL, touch_all, y + (i + round) % MANY);
        for (int i = 0; i < MANY; i++)
            pthread_join(thread[i], NULL);
        chain_same(x);
        node_free(x);
        finish_with(y, MANY);
    }
}
BOTH(touched_by_threads)

static void written_by_the_program(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100, 40)), *y = TIMES(x, 2), *z = ADD(y, x);
    ((float *)y->t.address)[77] = ((float *)y->store->twin)[77] = 5; /* after z has been computed, or not */
    ((float *)x->t.address)[3] = ((float *)x->store->twin)[3] = 6;
    node *w = ADD(y, x);
    FINISH(x, y, z, w);
}
BOTH(written_by_the_program)

static void settled_for_reading(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x);
    cr_expect_eq(block_of(x)->place, GEMS_PLACE_READ_ONLY);
    gems_chain_settle(x->store->memory, 8, false, GEMS_CAUSE_OPERATOR);
    cr_expect(is_owed(y));
    cr_expect_eq(block_of(x)->place, GEMS_PLACE_READ_ONLY);
    gems_chain_settle(x->store->memory + 80, 0, true, GEMS_CAUSE_OPERATOR);
    cr_expect(is_owed(y), "no bytes are wanted");
    gems_chain_settle(x->store->memory + 80, 8, true, GEMS_CAUSE_OPERATOR);
    cr_expect_not(is_owed(y));
    cr_expect_eq(block_of(x)->place, GEMS_PLACE_HOME);
    cr_expect_neq(block_of(y)->place, GEMS_PLACE_HOME, "y is shown when it is wanted");
    gems_chain_settle((char *)&x, 8, true, GEMS_CAUSE_OPERATOR);
    FINISH(x, y);
}
BOTH(settled_for_reading)

static void pinned(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x);
    char *at = y->store->memory;
    cr_assert(gems_chain_pin(at + 8, 8, false));
    cr_expect_eq(block_of(y)->place, GEMS_PLACE_HOME);
    cr_assert(gems_chain_pin(at, 400, true));
    long apart = chain_apart;
    node *z = ADD(y, x);
    ADD_(y, x);
    cr_expect_eq(chain_apart, apart + 2, "nothing is deferred on it");
    gems_chain_unpin(at, 400);
    node *v = ADD(y, x);
    cr_expect_eq(chain_apart, apart + 3, "it is still pinned");
    gems_chain_unpin(at + 8, 8);
    node *w = ADD(y, x);
    cr_expect(is_owed(w));
    cr_expect_not(gems_chain_pin((char *)&x, 8, false));
    FINISH(x, y, z, v, w);
}
BOTH(pinned)

/* Somebody reads all of x (a system call, a kernel); somebody else may write what he does not read. */
static void written_while_pinned_for_reading(void)
{
    for (int how = 0; how < 3; how++) {
        node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x);
        char *at = x->store->memory;
        cr_assert(gems_chain_pin(at, 200, false));
        cr_expect(is_owed(y), "x may be read as it is");
        if (how == 0)
            gems_chain_settle(at, 400, true, GEMS_CAUSE_OPERATOR);
        else if (how == 1)
            cr_assert(gems_chain_pin(at + 200, 200, true));
        if (how < 2)
            cr_assert_eq(block_of(x)->place, GEMS_PLACE_HOME);
        ((float *)at)[77] = ((float *)x->store->twin)[77] = 5;
        if (how == 1)
            gems_chain_unpin(at + 200, 200);
        gems_chain_unpin(at, 200);
        FINISH(x, y);
    }
}
BOTH(written_while_pinned_for_reading)

static void given_while_pinned(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x);
    char *at = x->store->memory;
    cr_assert(gems_chain_pin(at, 200, false));
    node_free(x);
    chain_same(y);
    gems_chain_unpin(at, 200);
    FINISH(y);
}
BOTH(given_while_pinned)

/* A kernel that is no part of a chain runs on one half of x, begun when nothing was owed; the other half is written by
 * a chain, which hides all of x. */
static void *run_kernel(void *half)
{
    gems_call call;
    gems_work *work = malloc(sizeof *work);
    chain_call_begin(&call, gems_op_find("cos_"), (const gems_value[]){T((node *)half)}, NULL);
    gems_work_begin(work, GEMS_LANE_MAIN);
    if (call.op->kernel->plan(&call) != GEMS_OK || call.op->kernel->prepare(&call, work) != GEMS_OK ||
        !gems_work_execute(work))
        failed("the kernel does not run");
    gems_work_end(work);
    free(work);
    return NULL;
}

static void hidden_under_a_kernel(void)
{
    enum {
        N = 4 << 20
    };
    node *x = node_new(GEMS_F32, SHAPE(2, 1));
    node_free(x);
    x = node_on(store_new((size_t)8 * N, true, false), 0, GEMS_F32, SHAPE(2 * N), NULL);
    memset(x->store->memory, 0, (size_t)8 * N);
    node *low = node_view(x, 0, SHAPE(N), NULL), *high = node_view(x, N, SHAPE(N), NULL);
    for (int round = 0; round < 12; round++) {
        pthread_t thread;
        cr_assert(chain_is_empty());
        pthread_create(&thread, NULL, run_kernel, low);
        usleep((useconds_t)(500 * round));
        gems_call call;
        chain_call_begin(&call, gems_op_find("add_.Scalar"), (const gems_value[]){T(high), I(1), I(1)}, NULL);
        cr_assert_eq(call.op->kernel->plan(&call), GEMS_OK);
        if (!chain_defer(&call))
            chain_run(&call, false);
        gems_chain_settle((void *)high->t.address, 4, false, GEMS_CAUSE_OPERATOR);
        pthread_join(thread, NULL);
        cr_assert_float_eq(((float *)high->t.address)[N - 1], round + 1, 0);
        gems_chain_settle(x->store->memory, 4, true, GEMS_CAUSE_OPERATOR);
    }
    node_free(low);
    node_free(high);
    node_free(x);
}
Test(chain, hidden_under_a_kernel)
{
    on_device(hidden_under_a_kernel);
    hidden_under_a_kernel();
}

/* A system call writes to one half of x, begun when nothing was owed. */
static int pipe_ends[2];

static void *read_from_pipe(void *half)
{
    node *x = half;
    ssize_t n = read(pipe_ends[0], (void *)x->t.address, 40);
    return (void *)(n == 40 ? 0L : n < 0 ? (long)errno : -1L);
}

static void hidden_under_a_system_call(void)
{
    node *x = node_new(GEMS_F32, SHAPE(20)), *low = node_view(x, 0, SHAPE(10), NULL);
    node *high = node_view(x, 10, SHAPE(10), NULL);
    pthread_t thread;
    void *error;
    cr_assert_eq(pipe(pipe_ends), 0);
    cr_assert(chain_is_empty());
    pthread_create(&thread, NULL, read_from_pipe, low);
    usleep(50000);
    ADD_(high, high);
    memset(x->store->twin, 0x40, 40);
    cr_assert_eq(write(pipe_ends[1], x->store->twin, 40), 40);
    pthread_join(thread, &error);
    cr_expect_null(error, "error %ld", (long)error);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    FINISH(x, low, high);
}
Test(chain, hidden_under_a_system_call)
{
    hidden_under_a_system_call();
}

/* ---- processes ---- */

static int status_of_child(node *const *x, int n)
{
#ifdef GEMS_SANITIZED /* a child of a sanitizer's cannot allocate if another thread was about to */
    gems_chain_build_rest();
#endif
    pid_t pid = fork();
    if (pid == 0) {
        long apart = chain_apart, failures = trial_failures;
        for (int i = 0; i < n; i++)
            chain_same(x[i]);
        node *y = ADD(x[0], x[0]);
        int status = trial_failures != failures ? 1 : chain_apart == apart ? 2 : gems_chain_is_on() ? 3 : 0;
        chain_same(y);
        for (int i = 0; i < n; i++) {
            node_fill(x[i]);
            node_free(x[i]);
        }
        _exit(trial_failures != failures ? 4 : status);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void forked(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x), *z = MUL(y, x), *gone = MUL(z, z), *w = ADD(gone, x);
    node_free(gone);
    node *all[] = {x, y, z, w};
    cr_expect_eq(status_of_child(all, 4), 0);
    ADD_(x, y);
    cr_expect(is_owed(x), "the parent goes on");
    cr_expect_eq(status_of_child(all, 4), 0);
    FINISH(x, y, z, w);
}
BOTH(forked)

static void forked_while_pinned(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x);
    char *at = x->store->memory;
    cr_assert(gems_chain_pin(at, 400, false));
    node *all[] = {x, y};
    cr_expect_eq(status_of_child(all, 2), 0, "x may be written in the child");
    gems_chain_unpin(at, 400);
    FINISH(x, y);
}
BOTH(forked_while_pinned)

static void ended(void)
{
    node *x = node_new(GEMS_F32, SHAPE(100)), *y = ADD(x, x), *z = MUL(y, x);
    gems_chain_end(NULL);
    cr_expect_not(is_owed(y) || is_owed(z));
    cr_expect_eq(block_of(z)->place, GEMS_PLACE_HOME);
    cr_expect_not(gems_chain_is_on());
    long apart = chain_apart;
    node *w = ADD(x, y);
    cr_expect_eq(chain_apart, apart + 1);
    FINISH(x, y, z, w);
}
Test(chain, ended)
{
    ended();
}
Test(chain_alone, ended)
{
    ended();
}

/* ---- memory runs out ---- */

#ifndef GEMS_SANITIZED
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
static __thread long failures;

static bool fails(void)
{
    if (!chain_memory_fails || (chain_memory_fails > 0 && --chain_memory_fails > 0))
        return false;
    failures++;
    return true;
}

void *malloc(size_t n)
{
    return fails() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}

/* A call is either owed with all that it needs, or as if nothing had been tried. (The evaluator waits for memory, so it
 * must not be all that fails in a call that computes others.) */
static void without_memory(void)
{
    for (chain_fail_at = 1; chain_fail_at < 10; chain_fail_at++) {
        node *x = node_new(GEMS_F32, SHAPE(60, 4)), *few = node_new_in(GEMS_F32, SHAPE(4), false);
        node *a = ADD(x, few), *b = apply("addcmul", T(a), T(few), T(x), I(2)), *turned;
        ADD_(x, b);
        node_free(a);
        turned = node_view(b, 0, SHAPE(4, 60), STRIDES(1, 4));
        node *c = TIMES(turned, 3);
        apply("neg_", T(turned));
        COPY_(x, few);
        FINISH(x, few, b, turned, c);
    }
    chain_fail_at = -1;
    node *x = node_new(GEMS_F32, SHAPE(60, 4)), *few = node_new_in(GEMS_F32, SHAPE(4), false), *a = ADD(x, few);
    ADD_(x, a);
    COPY_(x, few);
    FINISH(x, few, a);
    chain_fail_at = 0;
    cr_expect_gt(failures, 20);
}
Test(chain_alone, without_memory)
{
    without_memory();
}
#endif

/* ---- any program ---- */

Test(chain_alone, random_programs)
{
    for (unsigned seed = 1; seed <= 40; seed++)
        random_program(seed, 600);
    cr_expect_gt(chain_deferred, 5000);
}
Test(chain, random_programs)
{
    for (unsigned seed = 1; seed <= 4; seed++)
        random_program(seed, 400);
}
