/* Eight threads on the parts that many threads share: device, table, log, operator sets, counters. A program of its
 * own, for ThreadSanitizer, under which Criterion does not start (make check-tsan). Ends with status 0 if every sum is
 * right. */
#include "tests/unit/device_jobs.h"
#include "preload/base/log.h"
#include "tune/table.h"

#include <pthread.h>

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

int main(void)
{
    gems_table_error error;
    table = gems_table_compile(
        "threads", "{\"rules\": [{\"op\": \"*\", \"dtype\": [\"f32\"], \"where\": {\"numel\": [16, 4096]}}]}", NULL,
        &error);
    if (!table) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    pthread_t thread[THREADS];
    long wrong = 0;
    for (long i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, work, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(thread[i], &result);
        wrong += (long)result;
    }
    gems_table_free(table);
    printf("%d threads, %d rounds each: %ld wrong\n", THREADS, ROUNDS, wrong);
    return wrong != 0;
}
