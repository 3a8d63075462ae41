/* Eight threads on the parts that many threads share: device, table, log, operator sets, counters; then on families of
 * operators, each thread with tensors of its own; then threads that route calls while others change what is routed;
 * then the arena. A program of its own, for ThreadSanitizer, under which Criterion does not start (make check-tsan).
 * Ends with status 0 if every sum is right. */
#include "tests/unit/arena_jobs.h"
#include "tests/unit/device_jobs.h"
#include "tests/unit/family.h"
#include "preload/base/config.h"
#include "preload/base/log.h"
#include "preload/engine/report.h"
#include "preload/engine/route.h"
#include "preload/gems.h"
#include "tune/table.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    THREADS = 8,
    ROUNDS = 60,
    N = 40000
};

static gems_table *table;

static void *work(void *arg)
{
    long me = (long)arg;
    long wrong = 0;
    float *a = malloc(3 * N * sizeof *a), *b = a + N, *out = b + N;
    for (int i = 0; i < N; i++) {
        a[i] = (float)i;
        b[i] = (float)me;
    }
    gems_sizes sizes;
    memset(&sizes, -1, sizeof sizes);
    for (int round = 0; round < ROUNDS; round++) {
        gems_call call;
        int n = 16 + (int)(me * 131 + round * round * 977) % (N / ROUNDS * (round + 1)); /* the largest ones grow */
        memset(out, 0, (size_t)n * sizeof *out);
        sizes.v[0] = (int64_t)1 << (round % 20);
        const gems_rule *rule = gems_table_lookup(table, &gems_ops[round % 5], GEMS_F32, &sizes);
        wrong += rule && gems_rule_is_host(rule);
        wrong += run_add(round % 2 ? GEMS_LANE_MAIN : GEMS_LANE_SMALL, &call, a, b, out, n) != GEMS_OK;
        for (int i = 0; i < n; i++)
            wrong += out[i] != a[i] + b[i];
        gems_log("thread %ld, round %d", me, round / 10);
    }
    free(a);
    return (void *)wrong;
}

/* ---- families ---- */

static void add_in_place(layout l)
{
    trial t;
    trial_begin(&t, "add_.Tensor");
    operand *a = tensor(&t, GEMS_F32, l, SHAPE(5, 40)), *b = tensor(&t, GEMS_F32, DENSE, SHAPE(5, 40));
    integer(&t, 2);
    expected *e = expect(&t, 0, GEMS_F32, SHAPE(5, 40));
    EACH (c, e->shape) {
        *want(e, c) = at(a, c) + 2 * at(b, c);
        *terms(e, c) = fabs(at(a, c)) + 2 * fabs(at(b, c));
    }
    trial_run(&t);
}

static void sum_rows(layout l)
{
    trial t;
    trial_begin(&t, "sum.dim_IntList");
    operand *a = tensor(&t, GEMS_F32, l, SHAPE(30, 50));
    INTS(&t, 1);
    boolean(&t, false);
    none(&t);
    expected *e = expect(&t, 0, GEMS_F32, SHAPE(30));
    t.parameters = true; /* rows cut in parts, which need scratch memory */
    EACH (c, a->shape) {
        *want(e, c) += at(a, c);
        *terms(e, c) += fabs(at(a, c));
    }
    trial_run(&t);
}

static void embed(layout l)
{
    trial t;
    trial_begin(&t, "embedding");
    operand *weight = tensor(&t, GEMS_F32, l, SHAPE(9, 12)), *index = tensor(&t, GEMS_I64, DENSE, SHAPE(20));
    EACH (c, index->shape)
        put(index, c, (double)(c[0] * 7 % 9));
    integer(&t, -1);
    boolean(&t, false);
    boolean(&t, false);
    expected *e = expect(&t, 0, GEMS_F32, SHAPE(20, 12));
    t.exact = true;
    EACH (c, e->shape)
        *want(e, c) = AT(weight, (int64_t)at(index, c), c[1]);
    trial_run(&t);
}

static void *run_families(void *arg)
{
    for (long i = 0; i < 3; i++) {
        layout l = (layout)(((long)arg + i) % EXPANDED);
        add_in_place(l);
        sum_rows(l);
        embed(l);
    }
    return NULL;
}

/* ---- changes while calls are routed ---- */

static atomic_bool stop;
static atomic_long routed;

/* The settings that a program may change, in turn; the last state routes. */
static void *change(void *arg)
{
    static const char *const tables[] = {"{\"rules\": [{\"op\": \"neg\"}]}",
                                         "{\"rules\": [{\"op\": \"*\", \"host\": true}]}", NULL};
    for (long i = (long)arg; !stop; i++) {
        gems_table_set(tables[i % 3], NULL, 0);
        gems_disable();
        gems_scope_push(GEMS_SCOPE_USE, NULL);
        gems_route_set(i % 2 ? "all" : "table");
        gems_scope_pop();
        gems_enable();
        gems_counters_reset();
    }
    return NULL;
}

static void *route(void *arg)
{
    long wrong = 0;
    int64_t n = 1000, one = 1;
    gems_tensor x;
    fake_tensor_make(&x, GEMS_F32, false, 1, &n, &one);
    for (int i = 0; i < n; i++)
        ((float *)x.address)[i] = (float)i;
    for (int round = 0; round < 40 * ROUNDS; round++) {
        gems_call call = {.op = gems_op_find("neg"), .host = &fake_host};
        memset(&call.sizes, -1, sizeof call.sizes);
        call.arg[0] = (gems_value){.kind = GEMS_TENSOR, .tensor = &x};
        const char *why;
        if (!gems_route_allowed(call.op, &why))
            continue;
        gems_status status = gems_route(&call);
        wrong += status == GEMS_FAILED || (call.rule && !strstr(gems_rule_origin(call.rule), ":"));
        routed += status == GEMS_OK;
        if (status == GEMS_OK)
            wrong += ((float *)call.result[0].address)[999] != -999;
        if (call.has_result[0])
            fake_drop(&call.result[0]);
        gems_report_call(&call, status, GEMS_WHERE_CALL, true, 0);
        gems_route_done();
        wrong += gems_last_reason() == NULL;
    }
    fake_drop(&x);
    (void)arg;
    return (void *)wrong;
}

static long route_while_changing(void)
{
    pthread_t router[THREADS / 2], changer[2];
    long wrong = 0;
    gems_route_start(&fake_host);
    for (long i = 0; i < 2; i++)
        pthread_create(&changer[i], NULL, change, (void *)i);
    for (long i = 0; i < THREADS / 2; i++)
        pthread_create(&router[i], NULL, route, NULL);
    for (int i = 0; i < THREADS / 2; i++) {
        void *result;
        pthread_join(router[i], &result);
        wrong += (long)result;
    }
    stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(changer[i], NULL);
    printf("%ld calls routed while that changed\n", routed);
    wrong += routed == 0;
    gems_route_set("all"); /* enabled again: no gate may have stayed closed */
    wrong += fake_min_numel[gems_op_find("neg")->index] == INT64_MAX;
    return wrong;
}

static long run_in_threads(void *(*fn)(void *))
{
    pthread_t thread[THREADS];
    long wrong = 0;
    for (long i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, fn, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(thread[i], &result);
        wrong += (long)result;
    }
    return wrong;
}

int main(void)
{
    gems_config_get(); /* and with it the log */
    gems_table_error error;
    table = gems_table_compile(
        "threads", "{\"rules\": [{\"op\": \"*\", \"dtype\": [\"f32\"], \"where\": {\"numel\": [16, 4096]}}]}", NULL,
        &error);
    if (!table) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    long wrong = run_in_threads(work);
    gems_table_free(table);
    run_in_threads(run_families);
    wrong += trial_failures + route_while_changing() + use_arena_in_threads();
    printf("%d threads, %d rounds each: %ld wrong\n", THREADS, ROUNDS, wrong);
    return wrong != 0;
}
