/* preload/engine/tables.c: tables live as long as a call holds them, and no longer. */
#include "preload/engine/tables.h"

#include <criterion/criterion.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

static gems_tables *tables(void)
{
    gems_tables *t = gems_tables_build(NULL, NULL, "{\"rules\": [{\"op\": \"*\", \"where\": {\"numel\": 7}}]}", NULL);
    cr_assert_not_null(t);
    return t;
}

static const gems_rule *rule_of(const gems_table *table)
{
    gems_sizes sizes = {{[GEMS_SIZE_NUMEL] = 7}};
    return gems_table_lookup(table, gems_op_find("neg"), GEMS_F32, &sizes);
}

static size_t in_use(void)
{
    return mallinfo2().uordblks;
}

Test(tables, there_are_none_at_first)
{
    cr_expect(!gems_tables_hold() && !gems_tables_current());
    gems_tables_release();
}

Test(tables, those_replaced_are_freed)
{
    for (int i = 0; i < 4; i++) {
        gems_tables_hold();
        cr_assert(gems_tables_replace(tables()));
        gems_tables_release();
    }
    size_t before = in_use();
    for (int i = 0; i < 200; i++)
        cr_assert(gems_tables_replace(tables()));
    cr_expect(in_use() < before + 4096, "%zu bytes more", in_use() - before);
}

Test(tables, one_that_is_held_lives_until_it_is_released)
{
    cr_assert(gems_tables_replace(tables()));
    const gems_table *held = gems_tables_hold();
    const gems_rule *rule = rule_of(held);
    size_t before = in_use();
    cr_assert(gems_tables_replace(tables()));
    cr_expect_neq(gems_tables_current(), held);
    cr_expect_str_eq(gems_rule_origin(rule), "gems_table_set:1");
    gems_tables_release();
    cr_expect(in_use() < before + 4096, "freed by the release");
}

/* ---- many threads that come and go ---- */

static atomic_bool stop;

static void *read_rules(void *unused)
{
    long wrong = 0;
    for (int i = 0; i < 2000; i++) {
        const gems_rule *rule = rule_of(gems_tables_hold());
        wrong += strcmp(gems_rule_origin(rule), "gems_table_set:1") != 0;
        gems_tables_release();
    }
    (void)unused;
    return (void *)wrong;
}

static void *replace(void *unused)
{
    while (!stop)
        cr_assert(gems_tables_replace(tables()));
    return unused;
}

Test(tables, rules_stand_while_tables_are_replaced)
{
    pthread_t reader[4], writer;
    cr_assert(gems_tables_replace(tables()));
    pthread_create(&writer, NULL, replace, NULL);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 4; i++)
            pthread_create(&reader[i], NULL, read_rules, NULL);
        for (int i = 0; i < 4; i++) {
            void *wrong;
            pthread_join(reader[i], &wrong);
            cr_expect_null(wrong);
        }
    }
    stop = true;
    pthread_join(writer, NULL);
}
