/* kernels/chain/resident.c: memory of blocks that stays on a device with memory of its own, here PoCL with staged
 * buffers. Whoever wants values gets those that the same calls give one by one on plain memory, bit for bit. */
#include "tests/unit/chain_suite.h"
#include "tests/unit/device_jobs.h"

#include <sys/mman.h>
#include <unistd.h>

static void begin(void)
{
    setenv("GEMS_MEMORY", "staged", 1);
    cr_assert(gems_device_open(), "%s", gems_device_error());
    cr_assert(gems_chain_start(GEMS_FUSE_ALL, GEMS_STAY_FORCE));
}

TestSuite(resident, .init = begin, .fini = all_right, .timeout = 300);

static bool is_away(const node *x)
{
    const chain_block *b = gems_chain_block_of(block_of(x));
    return b && b->away && b->copy && block_of(x)->place == GEMS_PLACE_HIDDEN;
}

static bool is_shared(const node *x)
{
    const chain_block *b = gems_chain_block_of(block_of(x));
    return b && !b->away && b->copy && block_of(x)->place == GEMS_PLACE_READ_ONLY;
}

static bool is_home(const node *x)
{
    return !gems_chain_block_of(block_of(x)) && block_of(x)->place == GEMS_PLACE_HOME;
}

static uint64_t brought_home(void)
{
    gems_chain_counts c = chain_counts();
    uint64_t bytes = 0;
    for (int i = 0; i < GEMS_CAUSE_COUNT; i++)
        bytes += c.home[i];
    return bytes;
}

enum {
    N = 20000 /* f32 elements: 20 pages */
};

Test(resident, results_stay_until_somebody_looks)
{
    gems_chain_counts before = chain_counts();
    uint64_t home = brought_home();
    node *x = node_new(GEMS_F32, SHAPE(N)), *y = ADD(x, x), *z = MUL(y, x);
    cr_expect(is_shared(x) && is_away(y) && is_away(z));
    cr_expect_eq(chain_counts().up - before.up, block_of(x)->asked, "copied once");
    node_free(y);
    cr_expect_eq(brought_home(), home, "what nobody wants is not brought home");
    cr_expect(chain_same(x) && is_shared(x), "to read x moves nothing");
    cr_expect(chain_same(z));
    cr_expect(is_shared(z));
    node *v = MUL(z, z);
    cr_expect_eq(chain_counts().up - before.up, block_of(x)->asked, "z is there still");
    cr_expect_eq(brought_home() - home, block_of(z)->asked);
    gems_chain_settle(x->store->memory, 4, true, GEMS_CAUSE_OPERATOR);
    cr_expect(is_home(x));
    FINISH(x, z, v);
}

Test(resident, what_the_host_writes_is_seen)
{
    node *x = node_new(GEMS_F32, SHAPE(N)), *y = ADD(x, x);
    ((float *)x->t.address)[77] = ((float *)x->store->twin)[77] = 5;
    cr_expect(is_home(x));
    node *z = MUL(x, y);
    ((float *)y->t.address)[78] = ((float *)y->store->twin)[78] = 6;
    node *w = ADD(y, z);
    FINISH(x, y, z, w);
}

Test(resident, in_place_and_views)
{
    node *x = node_new(GEMS_F32, SHAPE(200, 100)), *y = ADD(x, x);
    node *rows = node_view(y, 3200, SHAPE(40, 100), NULL), *turned = node_view(y, 0, SHAPE(100, 200), STRIDES(1, 100));
    node *columns = node_view(x, 1, SHAPE(200, 50), STRIDES(100, 2));
    apply("neg_", T(rows));
    ADD_(y, x);
    node *a = MUL(turned, turned), *b = TIMES(columns, 3);
    apply("neg_", T(columns));
    cr_expect(is_away(x) && is_away(y));
    COPY_(x, y);
    ADD_(x, x);
    FINISH(x, y, rows, turned, columns, a, b);
}

Test(resident, what_is_overwritten_is_not_copied_there)
{
    node *x = node_new(GEMS_F32, SHAPE(N)), *all = node_new(GEMS_F32, SHAPE(N)),
         *part = node_new(GEMS_F32, SHAPE(2 * N));
    node *half = node_view(part, N, SHAPE(N), NULL), *twice = node_new(GEMS_F32, SHAPE(N));
    gems_chain_counts before = chain_counts();
    COPY_(all, x);
    COPY_(half, x);
    cr_expect(is_away(all) && is_away(part));
    cr_expect_eq(chain_counts().up - before.up, block_of(x)->asked + block_of(part)->asked);
    node *turned = node_view(twice, 0, SHAPE(N / 100, 100), STRIDES(1, N / 100)); /* read, too, and of another shape */
    node *square = node_view(twice, 0, SHAPE(N / 100, 100), NULL);
    COPY_(square, turned);
    cr_expect(is_away(all) || is_home(all));
    FINISH(x, all, part, half, twice, turned, square);
}

/* Memory that is no block, and so small that it is none, travels with each call. */
Test(resident, beside_memory_that_is_not_ours)
{
    node *x = node_new(GEMS_F32, SHAPE(200, 100)), *few = node_new_in(GEMS_F32, SHAPE(100), false);
    node *y = ADD(x, few), *foreign = node_new_in(GEMS_F32, SHAPE(200, 100), false);
    COPY_(foreign, y);
    ADD_(y, foreign);
    ADD_(foreign, y);
    cr_expect(is_away(y));
    FINISH(x, few, y, foreign);
}

Test(resident, pinned_memory_is_copied_for_the_call)
{
    node *x = node_new(GEMS_F32, SHAPE(N)), *y = ADD(x, x);
    cr_assert(gems_chain_pin(y->store->memory, 8, false));
    cr_expect(is_shared(y));
    ADD_(y, x);
    node *z = MUL(y, x);
    cr_expect(block_of(y)->place == GEMS_PLACE_HOME);
    gems_chain_unpin(y->store->memory, 8);
    ADD_(y, x);
    cr_expect(is_away(y));
    FINISH(x, y, z);
}

Test(resident, blocks_are_taken_hidden_again)
{
    node *x = node_new(GEMS_F32, SHAPE(N));
    const gems_block *block = NULL;
    for (int i = 0; i < 50; i++) {
        node *y = ADD(x, x), *z = MUL(y, x);
        cr_expect(i < 2 || block == block_of(z) || block == block_of(y));
        block = block_of(z);
        node_free(y);
        if (i % 7 == 0)
            chain_same(z);
        node_free(z);
    }
    FINISH(x);
}

/* ---- weights in file mappings ---- */

/* A tensor at an element of a mapped file of 4 N floats. */
static node *in_file(int protection, int flags, int64_t first, shape sh)
{
    char path[] = "/tmp/gems-weights-XXXXXX";
    size_t bytes = (size_t)4 * N * sizeof(float);
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    store *s = store_new(bytes, false, false);
    free(s->memory);
    for (int i = 0; i < 4 * N; i++)
        ((float *)s->twin)[i] = (float)(i % 1000);
    cr_assert_eq(write(fd, s->twin, bytes), (ssize_t)bytes);
    s->memory = mmap(NULL, bytes, protection, flags, fd, 0);
    cr_assert_neq(s->memory, MAP_FAILED);
    close(fd);
    unlink(path);
    return node_on(s, first, GEMS_F32, sh, NULL);
}

static void unmap(node *w)
{
    store *s = w->store;
    gems_adopt_forget(s->memory, s->bytes); /* as preload/libc.c does */
    munmap(s->memory, s->bytes);
    s->memory = malloc(1);
    node_free(w);
}

Test(resident, weights_in_a_mapping_are_copied_once)
{
    const int kinds[][2] = {{PROT_READ, MAP_PRIVATE}, {PROT_READ, MAP_SHARED}, {PROT_READ | PROT_WRITE, MAP_PRIVATE}};
    for (int k = 0; k < 3; k++) {
        node *w = in_file(kinds[k][0], kinds[k][1], 77, SHAPE(N)), *x = node_new(GEMS_F32, SHAPE(N));
        node *part = node_view(w, 5000, SHAPE(100, 100), STRIDES(1, 100));
        node *y = ADD(x, w);
        uint64_t up = chain_counts().up;
        node *z = MUL(y, w), *few = ADD(part, part);
        cr_expect_eq(chain_counts().up, up, "also a part of it");
        cr_expect(gems_adopt_holds(w->store->memory + 400));
        cr_expect_eq(gems_adopt_guards(w->store->memory), k == 2, "what the program may write is guarded");
        node *all = node_view(w, 0, SHAPE(4 * N), NULL), *t = ADD(all, all);
        cr_expect_gt(chain_counts().up, up, "more of it");
        FINISH(x, y, z, few, t);
        node_free(part);
        node_free(all);
        unmap(w);
    }
}

Test(resident, weights_beside_each_other_stay_both)
{
    node *a = in_file(PROT_READ, MAP_PRIVATE, 77, SHAPE(N)), *b = node_view(a, 77 + N, SHAPE(N), NULL);
    node *x = ADD(a, b);
    uint64_t up = chain_counts().up;
    for (int i = 0; i < 3; i++) {
        ADD_(x, a);
        ADD_(x, b);
    }
    cr_expect_eq(chain_counts().up, up);
    node_free(b);
    FINISH(x);
    unmap(a);
}

Test(resident, what_is_mapped_shared_and_writable_travels)
{
    node *w = in_file(PROT_READ | PROT_WRITE, MAP_SHARED, 0, SHAPE(N)), *y = ADD(w, w), *z = ADD(y, w);
    cr_expect_not(gems_adopt_holds(w->store->memory), "another process may write there");
    FINISH(y, z);
    unmap(w);
}

Test(resident, written_weights_are_seen)
{
    node *w = in_file(PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, SHAPE(N)), *x = node_new(GEMS_F32, SHAPE(N)),
         *y = ADD(x, w);
    cr_expect(gems_adopt_guards(w->store->memory));
    ((float *)w->t.address)[9] = ((float *)w->store->twin)[9] = 123; /* faults */
    cr_expect_not(gems_adopt_guards(w->store->memory));
    node *z = ADD(x, w);
    ADD_(w, y); /* by a kernel */
    node *v = ADD(x, w);
    FINISH(x, y, z, v);
    unmap(w);
}

static void *use_and_unmap(void *arg)
{
    node *x = arg;
    for (int i = 0; i < 10; i++) {
        node *w = in_file(PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, SHAPE(N)), *y = ADD(x, w);
        if (i % 3 == 0)
            ((float *)w->t.address)[i] = ((float *)w->store->twin)[i] = -1;
        node *z = MUL(y, w);
        chain_same(z);
        node_free(y);
        node_free(z);
        unmap(w);
    }
    return NULL;
}

Test(resident, mappings_come_and_go)
{
    node *x = node_new(GEMS_F32, SHAPE(N));
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, use_and_unmap, x);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    FINISH(x);
}

Test(resident, weights_and_a_forked_child)
{
    node *w = in_file(PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, SHAPE(N)), *x = node_new(GEMS_F32, SHAPE(N)),
         *y = ADD(x, w);
    pid_t pid = fork();
    if (pid == 0) {
        ((volatile float *)w->t.address)[3] = 5;
        _exit(((volatile float *)w->t.address)[3] != 5);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    uint64_t up = chain_counts().up;
    node *z = MUL(w, w);
    cr_expect_eq(chain_counts().up, up, "still there");
    FINISH(x, y, z);
    unmap(w);
}

static void many_with_room_for(size_t copies)
{
    enum {
        MANY = 12
    };
    gems_resident_limit(copies * 81920);
    node *x[MANY];
    for (int i = 0; i < MANY; i++)
        x[i] = node_new(GEMS_F32, SHAPE(N));
    for (int i = 0; i < 80; i++)
        if (i % 3)
            ADD_(x[i % MANY], x[i * 5 % MANY]);
        else
            COPY_(x[i % MANY], x[i * 7 % MANY]);
    finish_with(x, MANY);
}

Test(resident, the_least_recently_used_make_room)
{
    many_with_room_for(12);
    cr_expect_gt(chain_counts().up, 0);
    many_with_room_for(4);
    many_with_room_for(1); /* two operands do not fit: every call travels */
    many_with_room_for(0);
}

static void *work_and_look(void *arg)
{
    node *x = ((node **)arg)[0], *mine = ((node **)arg)[1];
    for (int i = 0; i < 40; i++) {
        ADD_(mine, x);
        node *y = MUL(mine, x);
        if (i % 5 == 0)
            chain_same(x);
        if (i % 7 == 0)
            ((float *)y->t.address)[i] = ((float *)y->store->twin)[i] = 1;
        ADD_(y, x);
        chain_same(y);
        node_free(y);
    }
    return NULL;
}

/* Each writes a part of one memory, and all read another. */
/* x + 1, by way of what is made of x (x + x, which may stay) and of nothing else. */
static const char make_source[] =
    "kernel void make(GEMS_SHARED_BUFFER(const float, x), GEMS_SHARED_BUFFER(float, y), int n)\n"
    "{\n    GEMS_AT(const float, x);\n    GEMS_AT(float, y);\n    int i = get_global_id(0);\n"
    "    if (i < n)\n        y[i] = x[i] + x[i];\n}\n"
    "kernel void use(GEMS_SHARED_BUFFER(const float, y), GEMS_SHARED_BUFFER(float, z), int n)\n"
    "{\n    GEMS_AT(const float, y);\n    GEMS_AT(float, z);\n    int i = get_global_id(0);\n"
    "    if (i < n)\n        z[i] = y[i] / 2 + 1;\n}\n";

static bool use_made(const node *x, const node *z, int64_t key)
{
    gems_work work;
    const int n = N;
    const size_t items = (N + 63) / 64 * 64, group = 64;
    const int64_t keys[GEMS_WORK_KEY] = {key};
    gems_work_begin(&work, GEMS_LANE_MAIN);
    gems_kernel *make = find_kernel(&work, 5001), *use = find_kernel(&work, 5002);
    make = make ? make : build_kernel(&work, 5001, "made", NULL, make_source, "make");
    use = use ? use : build_kernel(&work, 5002, "made", NULL, make_source, "use");
    int scratch = gems_work_scratch_of(&work, &x->t, N * sizeof(float), keys);
    gems_launch(&work, make, 1, &items, &group, (gems_arg[]){GEMS_IN(&x->t), GEMS_SCRATCH(scratch), GEMS_VALUE(n)}, 3);
    gems_work_makes(&work, scratch);
    gems_launch(&work, use, 1, &items, &group, (gems_arg[]){GEMS_SCRATCH(scratch), GEMS_OUT_ARG(&z->t), GEMS_VALUE(n)},
                3);
    bool done = gems_work_execute(&work);
    gems_work_end(&work);
    const float *from = (const float *)x->t.address, *to = (const float *)z->t.address; /* NOLINT */
    for (int i = 0; i < N && done; i++)
        if (to[i] != from[i] + 1)
            return false;
    return done;
}

static unsigned made_of(const node *x)
{
    const chain_block *b = gems_chain_block_of(block_of(x));
    unsigned n = 0;
    for (const chain_derived *m = b ? b->made : NULL; m; m = m->next)
        n += m->there;
    return n;
}

Test(resident, what_is_made_of_values_stays_until_they_change)
{
    node *x = node_new(GEMS_F32, SHAPE(N)), *z = node_new(GEMS_F32, SHAPE(N));
    float *values = (float *)x->t.address; /* NOLINT(performance-no-int-to-ptr) */
    cr_assert(gems_work_may_keep(&x->t));
    cr_assert(use_made(x, z, 1));
    cr_expect_eq(made_of(x), 1);
    gems_buffer *first = gems_chain_block_of(block_of(x))->made->buffer;
    cr_assert(use_made(x, z, 1));
    cr_expect(made_of(x) == 1 && gems_chain_block_of(block_of(x))->made->buffer == first, "it is used again");
    cr_assert(use_made(x, z, 2));
    cr_expect_eq(made_of(x), 2, "another key is something else");
    values[17] = 5; /* by the host */
    cr_expect_eq(made_of(x), 0);
    cr_assert(use_made(x, z, 1));
    cr_expect_eq(made_of(x), 1);
    memcpy(x->twin.address + (char *)NULL, values,
           N * sizeof *values); /* NOLINT: as the twin has not seen that write */
    apply("neg_", T(x));        /* by a kernel: it may be so again */
    cr_expect(is_away(x) && made_of(x) == 0 && !gems_work_may_keep(&x->t));
    cr_assert(use_made(x, z, 1));
    cr_assert(chain_same(x));
    memcpy(z->twin.address + (char *)NULL, (void *)z->t.address, N * sizeof *values); /* NOLINT */
}

Test(resident, what_is_made_of_mapped_weights_stays_with_them)
{
    node *w = in_file(PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, SHAPE(N)), *z = node_new(GEMS_F32, SHAPE(N));
    cr_assert(use_made(w, z, 1));
    cr_expect(gems_work_may_keep(&w->t));
    cr_assert(use_made(w, z, 1));
    ((float *)w->t.address)[9] = ((float *)w->store->twin)[9] = 123; /* NOLINT: faults */
    cr_expect_not(gems_work_may_keep(&w->t));
    cr_assert(use_made(w, z, 1), "as it is now");
    memcpy(z->twin.address + (char *)NULL, (void *)z->t.address, N * sizeof(float)); /* NOLINT */
    unmap(w);
}

Test(resident, several_threads)
{
    enum {
        THREADS = 6
    };
    node *x = node_new(GEMS_F32, SHAPE(N)), *all = node_new(GEMS_F32, SHAPE(THREADS * N)), *of[THREADS][2];
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++) {
        of[i][0] = x;
        of[i][1] = node_view(all, i * N, SHAPE(N), NULL);
        pthread_create(&thread[i], NULL, work_and_look, of[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < THREADS; i++)
        node_free(of[i][1]);
    FINISH(x, all);
}

Test(resident, forked)
{
    node *x = node_new(GEMS_F32, SHAPE(N)), *y = ADD(x, x), *z = MUL(y, x);
    pid_t pid = fork();
    if (pid == 0) {
        bool same = chain_same(x) && chain_same(y) && chain_same(z);
        ((char *)z->t.address)[0] = 1;
        _exit(!same);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ADD_(z, y);
    cr_expect(is_away(z), "the parent goes on");
    FINISH(x, y, z);
}

Test(resident, ended)
{
    node *x = node_new(GEMS_F32, SHAPE(N)), *y = ADD(x, x);
    gems_chain_end(NULL);
    cr_expect(is_home(x) && is_home(y));
    node *z = MUL(x, y);
    cr_expect(is_home(z), "nothing goes there any more");
    FINISH(x, y, z);
}

Test(resident, random_programs)
{
    gems_resident_limit(SIZE_MAX);
    for (unsigned seed = 1; seed <= 10; seed += (unsigned)one_in(3))
        random_program(seed, 400);
    gems_resident_limit(3 * 65536);
    for (unsigned seed = 11; seed <= 16; seed += (unsigned)one_in(3))
        random_program(seed, 400);
}

/* ---- whichever OpenCL call fails ---- */

TestSuite(resident_fault, .init = fresh_cache, .fini = drop_fresh_cache, .timeout = 600);

enum outcome {
    NOT_REACHED,
    SURVIVED,
    WRONG_RESULT
};

static void program(void)
{
    node *x = node_new(GEMS_F32, SHAPE(300, 64)), *y = node_new_in(GEMS_F32, SHAPE(64), false);
    node *a = MUL(x, y), *b = ADD(a, x);
    ADD_(x, b);
    chain_same(a);
    ADD_(a, x);
    MUL(a, b);
    node_free(chain_made[0]);
    ADD_(x, y); /* away, and the only copy */
    chain_same(x);
    node *all[] = {x, y, a, b};
    finish_with(all, 4);
}

static int run_programs(void *fault)
{
    char text[32];
    int64_t n = *(int64_t *)fault, most = n < 0 ? -n : n;
    snprintf(text, sizeof text, "%lld", (long long)n);
    setenv("GEMS_FAULT", text, 1);
    setenv("GEMS_MEMORY", "staged", 1);
    if (!freopen("/dev/null", "w", stderr)) /* what is said of the failures */
        return WRONG_RESULT;
    if (!gems_device_open() || !gems_chain_start(GEMS_FUSE_OFF, GEMS_STAY_FORCE))
        return gems_cl_fault_calls() < most ? WRONG_RESULT : SURVIVED;
    for (int round = 0; round < 3; round++)
        program();
    gems_chain_end(NULL);
    if (trial_failures)
        return WRONG_RESULT;
    return gems_cl_fault_calls() < most ? NOT_REACHED : SURVIVED;
}

/* A copy that nothing was written to is not taken for values: here the only launch fails. */
static int overwrite(void *fault)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)*(int64_t *)fault);
    setenv("GEMS_FAULT", text, 1);
    setenv("GEMS_MEMORY", "staged", 1);
    if (!freopen("/dev/null", "w", stderr) || !gems_device_open() || !gems_chain_start(GEMS_FUSE_OFF, GEMS_STAY_FORCE))
        return SURVIVED;
    int64_t most = *(int64_t *)fault;
    node *x = node_new(GEMS_F32, SHAPE(300, 64)), *y = node_new(GEMS_F32, SHAPE(300, 64)), *z = ADD(x, x);
    COPY_(y, x);
    bool same = chain_same(y);
    ADD_(y, z);
    node *all[] = {x, y, z};
    finish_with(all, 3);
    gems_chain_end(NULL);
    return trial_failures || !same ? WRONG_RESULT : gems_cl_fault_calls() < most ? NOT_REACHED : SURVIVED;
}

Test(resident_fault, a_launch_that_overwrites_fails)
{
    int64_t n = 1;
    for (int result = SURVIVED; result != NOT_REACHED; n += 2 * one_in(3)) {
        result = in_child(overwrite, &n);
        cr_assert(result == SURVIVED || result == NOT_REACHED, "GEMS_FAULT=%lld: %d", (long long)n, result);
    }
    cr_expect_gt(n, 20, "only %lld calls were seen", (long long)n);
}

Test(resident_fault, one_call_fails)
{
    int64_t none = 1000000, n = 1;
    cr_assert_eq(in_child(run_programs, &none), NOT_REACHED);
    for (int result = SURVIVED; result != NOT_REACHED; n += 3 * one_in(3)) {
        result = in_child(run_programs, &n);
        cr_assert(result == SURVIVED || result == NOT_REACHED, "GEMS_FAULT=%lld: %d", (long long)n, result);
    }
    cr_expect_gt(n, 100, "only %lld calls were seen", (long long)n);
}

/* A device that is lost with the only copy of values ends the process; nothing is ever wrong. */
Test(resident_fault, all_calls_fail_from_the_nth_on)
{
    int64_t n = 1, lost = 0;
    for (int result = SURVIVED; result != NOT_REACHED; n += 7) {
        int64_t fault = -n;
        result = in_child(run_programs, &fault);
        cr_assert(result == SURVIVED || result == NOT_REACHED || result == -SIGABRT, "GEMS_FAULT=%lld: %d",
                  (long long)fault, result);
        lost += result == -SIGABRT;
    }
    cr_expect_gt(lost, 3);
}
