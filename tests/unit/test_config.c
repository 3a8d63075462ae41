/* preload/base/config.c: every variable, what it accepts, and what is said of the rest. Each test is its own process.
 */
#include "preload/base/config.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdlib.h>
#include <string.h>

static void clean_environment(void)
{
    for (const gems_variable *v = gems_variables; v->name; v++)
        unsetenv(v->name);
    cr_redirect_stderr();
}

TestSuite(config, .init = clean_environment);

Test(config, nothing_set_gives_the_defaults_and_no_word)
{
    const gems_config *c = gems_config_get();
    cr_expect(!c->disable && !c->strict && !c->no_inherit && !c->report && !c->log_once);
    cr_expect_eq(c->route, GEMS_ROUTE_TABLE);
    cr_expect_eq(c->memory, GEMS_MEMORY_AUTO);
    cr_expect_eq(c->device, -1);
    cr_expect_eq(c->cache_mb, 256);
    cr_expect(c->check == 0 && c->fault == 0);
    cr_expect(c->pool && c->pool_limit == -1 && c->save);
    cr_expect(!c->vendor && !c->log && !c->exclude && !c->only && !c->tune_json && !c->cache_dir && !c->dump);
    cr_expect_stderr_eq_str("");
}

Test(config, good_values_are_taken)
{
    setenv("GEMS_DISABLE", "yes", 1);
    setenv("GEMS_STRICT", "ON", 1);
    setenv("GEMS_REPORT", "1", 1);
    setenv("GEMS_LOG_ONCE", "false", 1);
    setenv("GEMS_ROUTE", "all", 1);
    setenv("GEMS_MEMORY", "staged", 1);
    setenv("GEMS_DEVICE", "3", 1);
    setenv("GEMS_CHECK", "12", 1);
    setenv("GEMS_FAULT", "-7", 1);
    setenv("GEMS_VENDOR", "pocl", 1);
    setenv("GEMS_LOG", "", 1);
    const gems_config *c = gems_config_get();
    cr_expect(c->disable && c->strict && c->report && !c->log_once);
    cr_expect_eq(c->route, GEMS_ROUTE_ALL);
    cr_expect_eq(c->memory, GEMS_MEMORY_STAGED);
    cr_expect(c->device == 3 && c->check == 12 && c->fault == -7);
    setenv("GEMS_VENDOR", "XXXX", 1);
    cr_expect_str_eq(c->vendor, "pocl", "the program changed its environment, not our copy");
    cr_expect_null(c->log, "an empty value is no value");
    cr_expect_eq(gems_config_get(), c);
    cr_expect_stderr_eq_str("");
}

/* Everything but free text, and what must not pass for it. */
Test(config, nonsense_is_refused_and_leaves_the_default)
{
    static const char *const bad[][2] = {
        {"GEMS_DISABLE", "2"},     {"GEMS_REPORT", "maybe"},
        {"GEMS_ROUTE", "none"},    {"GEMS_ROUTE", "All"},
        {"GEMS_MEMORY", "shared"}, {"GEMS_DEVICE", "-1"},
        {"GEMS_DEVICE", "gpu"},    {"GEMS_DEVICE", "1 "},
        {"GEMS_CHECK", "-1"},      {"GEMS_CHECK", "1e3"},
        {"GEMS_CHECK", "0x10"},    {"GEMS_CHECK", " 1"},
        {"GEMS_CACHE_MB", "10M"},  {"GEMS_CACHE_MB", "99999999999999999999"},
        {"GEMS_VENDOR", "po cl"},  {"GEMS_VENDOR", "../pocl"},
        {"GEMS_FAULT", "-"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const gems_variable *v = gems_variables;
        while (strcmp(v->name, bad[i][0]) != 0)
            v++;
        gems_config before, after;
        memset(&before, 0x5a, sizeof before);
        after = before;
        cr_expect(!gems_config_parse(v, bad[i][1], &after), "%s=%s", v->name, bad[i][1]);
        cr_expect_eq(memcmp(&before, &after, sizeof before), 0, "%s=%s", v->name, bad[i][1]);
    }
}

Test(config, nonsense_is_told_once_with_what_is_accepted)
{
    setenv("GEMS_ROUTE", "everything", 1);
    cr_expect_eq(gems_config_get()->route, GEMS_ROUTE_TABLE);
    gems_config_get();
    cr_expect_stderr_eq_str(
        "gems-preload: GEMS_ROUTE=everything makes no sense and is ignored; accepted: table, all or off\n");
}

Test(config, a_mistyped_name_is_told)
{
    setenv("GEMS_EXCLUD", "add", 1);
    cr_expect_null(gems_config_get()->exclude);
    cr_expect_stderr_eq_str(
        "gems-preload: GEMS_EXCLUD is not a variable of ours and is ignored; did you mean GEMS_EXCLUDE?\n");
}

Test(config, an_unlike_name_gets_no_guess)
{
    setenv("GEMS_SOMETHING_ELSE", "1", 1);
    gems_config_get();
    cr_expect_stderr_eq_str(
        "gems-preload: GEMS_SOMETHING_ELSE is not a variable of ours and is ignored (gems help lists them)\n");
}

Test(config, one_flag_alone_is_read_silently)
{
    setenv("GEMS_NO_INHERIT", "1", 1);
    setenv("GEMS_DISABLE", "nonsense", 1);
    cr_expect(gems_config_flag("GEMS_NO_INHERIT"));
    cr_expect(!gems_config_flag("GEMS_DISABLE"));
    cr_expect(!gems_config_flag("GEMS_STRICT"));
    cr_expect_stderr_eq_str("");
}

Test(config, the_table_agrees_with_itself)
{
    for (const gems_variable *v = gems_variables; v->name; v++) {
        gems_config scrap = {0};
        cr_expect_eq(strncmp(v->name, "GEMS_", 5), 0, "%s", v->name);
        cr_expect(*v->values && *v->help, "%s", v->name);
        cr_expect(!*v->initial || gems_config_parse(v, v->initial, &scrap), "%s", v->name);
        for (const gems_variable *w = v + 1; w->name; w++) {
            cr_expect_neq(v->offset, w->offset, "%s and %s share a field", v->name, w->name);
            cr_expect_str_neq(v->name, w->name);
        }
    }
}
