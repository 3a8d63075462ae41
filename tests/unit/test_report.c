/* preload/engine/report.c: what is counted, and the words for it. Each test is its own process. */
#include "preload/engine/report.h"
#include "preload/base/config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void set_up(void)
{
    setenv("GEMS_REPORT", "1", 1);
    gems_report_start();
    fclose(stderr); /* the table at exit */
}

TestSuite(report, .init = set_up);

static void note(const char *name, const char *why, enum gems_where where)
{
    gems_call call = {.op = gems_op_find(name), .why = why};
    gems_report_call(&call, why ? GEMS_DECLINED : GEMS_OK, where, false, 0);
}

static const char *wanted;
static char found[2048];

static void find_line(const char *text)
{
    if (strncmp(text, wanted, strlen(wanted)) == 0)
        snprintf(found, sizeof found, "%s", text);
}

/* What the report says of an operator behind its numbers; "" if it is not there. */
static const char *reasons(const char *name)
{
    wanted = name;
    *found = 0;
    gems_report_write(find_line);
    const size_t numbers = 44 + 2 * 10 + 3 * 11 + 2;
    return strlen(found) > numbers ? found + numbers : "";
}

static void expect_counts(const char *name, uint64_t routed, uint64_t passed)
{
    struct gems_counters c;
    gems_counters(name, &c);
    cr_expect(c.routed == routed && c.passed == passed, "%s: %d routed, %d passed", name, (int)c.routed, (int)c.passed);
}

Test(report, further_reasons_are_counted_as_other)
{
    char why[20];
    for (int i = 0; i < 9; i++) {
        snprintf(why, sizeof why, "reason %d", i);
        note("neg", why, GEMS_WHERE_CALL);
    }
    cr_expect_str_eq(reasons("neg"), "reason 0 (1), reason 1 (1), reason 2 (1), reason 3 (1), reason 4 (1), "
                                     "reason 5 (1), other (3)");
}

Test(report, a_reset_forgets_reasons)
{
    note("neg", "once", GEMS_WHERE_CALL);
    gems_counters_reset();
    cr_expect_str_eq(reasons("neg"), "");
    note("neg", NULL, GEMS_WHERE_REDISPATCH); /* nothing to take back */
    expect_counts("neg", 1, 0);
    note("neg", "again", GEMS_WHERE_CALL);
    cr_expect_str_eq(reasons("neg"), "again (1)");
}

Test(report, a_call_that_comes_again_is_one)
{
    note("neg", "not a plain thread", GEMS_WHERE_CALL);
    note("neg", "not a plain call", GEMS_WHERE_REDISPATCH);
    expect_counts("neg", 0, 1);
    cr_expect_str_eq(reasons("neg"), "not a plain call (1)");
    note("neg", NULL, GEMS_WHERE_REDISPATCH);
    expect_counts("neg", 1, 0);
    note("mm", "not a plain thread", GEMS_WHERE_CALL); /* with a call of another operator inside */
    note("exp", NULL, GEMS_WHERE_CALL);
    note("mm", "the table says host", GEMS_WHERE_REDISPATCH);
    expect_counts("mm", 0, 1);
}

Test(report, calls_that_are_two_stay_two)
{
    note("neg", "off", GEMS_WHERE_CALL);
    note("neg", "off", GEMS_WHERE_CALL);
    expect_counts("neg", 0, 2);
    gems_report_new_call(gems_op_find("neg")); /* a third begins: its redispatch is not the second one's */
    note("neg", NULL, GEMS_WHERE_REDISPATCH);
    expect_counts("neg", 1, 2);
}

Test(report, the_last_reason_stays_as_it_was_read)
{
    char why[64] = "an odd reason 1";
    note("neg", why, GEMS_WHERE_CALL);
    strcpy(why, "overwritten");
    const char *first = gems_last_reason();
    cr_expect_str_eq(first, "an odd reason 1");
    note("neg", why, GEMS_WHERE_CALL);
    cr_expect_str_eq(gems_last_reason(), "overwritten");
    cr_expect_str_eq(first, "an odd reason 1");
    note("neg", NULL, GEMS_WHERE_CALL);
    cr_expect_str_eq(gems_last_reason(), "");
}

Test(report, reasons_without_end_are_bounded)
{
    char why[40];
    for (int i = 0; i < 5000; i++) {
        snprintf(why, sizeof why, "%d", i);
        note("neg", why, GEMS_WHERE_CALL);
        cr_expect_not_null(gems_last_reason());
    }
    cr_expect_str_eq(gems_last_reason(), "one of very many reasons");
    expect_counts("neg", 0, 5000);
}
