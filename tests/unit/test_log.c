/* preload/base/log.c: what reaches stderr and the log file, once, whole and without getting in the way. */
#include "preload/base/log.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64];

static void set_up(void)
{
    strcpy(folder, "/tmp/gems-test-log-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    cr_redirect_stderr();
}

static void tear_down(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_expect_eq(system(command), 0);
}

TestSuite(log, .init = set_up, .fini = tear_down);

static char log_path[128];

/* The log becomes a file of the test's folder. */
static void log_to(const char *name)
{
    snprintf(log_path, sizeof log_path, "%s/%s", folder, name);
    gems_log_to(log_path, false);
}

/* Contents of a file of the test's folder; "" if there is none. Overwritten by the next call. */
static const char *contents(const char *name)
{
    static char text[1 << 20];
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = 0;
    if (f)
        fclose(f);
    return text;
}

Test(log, a_message_is_one_line_said_once)
{
    errno = 42;
    for (int i = 0; i < 3; i++)
        gems_log("build of %s failed:\nline 1\nline 2\n", "k");
    cr_expect_eq(errno, 42);
    cr_expect_stderr_eq_str("gems-preload: build of k failed:\\nline 1\\nline 2\n");
}

Test(log, a_line_stays_one_line_whatever_is_in_it)
{
    log_to("log");
    gems_complain("GEMS_ROUTE=%s makes no sense", "a\nb\x1b[2J");
    gems_log_call("'x\ny'");
    cr_expect_stderr_eq_str("gems-preload: GEMS_ROUTE=a\\nb\\x1b[2J makes no sense\n");
    cr_expect_str_eq(contents("log"), "gems-preload: GEMS_ROUTE=a\\nb\\x1b[2J makes no sense\n'x\\ny'\n");
}

Test(log, the_number_of_messages_is_capped)
{
    log_to("log");
    for (int i = 0; i < 2000; i++)
        gems_log("message %d", i);
    int lines = 0;
    for (const char *p = contents("log"); *p; p++)
        lines += *p == '\n';
    cr_expect_eq(lines, 500);
    cr_expect_not_null(strstr(contents("log"), "further messages"));
}

Test(log, a_long_message_is_cut)
{
    char text[5000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    log_to("log");
    gems_log("%s", text);
    size_t n = strlen(contents("log"));
    cr_expect(n > 500 && n <= 1024);
    cr_expect_eq(contents("log")[n - 1], '\n');
}

Test(log, the_file_takes_messages_and_stderr_takes_complaints)
{
    log_to("log");
    gems_log("quiet");
    gems_complain("loud");
    cr_expect_stderr_eq_str("gems-preload: loud\n");
    cr_expect_str_eq(contents("log"), "gems-preload: quiet\ngems-preload: loud\n");
}

Test(log, calls_go_to_the_file_alone)
{
    cr_expect(!gems_log_wants_calls());
    gems_log_call("add.Tensor f32[4]");
    cr_expect_stderr_eq_str("");
}

Test(log, calls_repeat_unless_asked_not_to)
{
    log_to("log");
    cr_expect(gems_log_wants_calls());
    gems_log_call("a");
    gems_log_call("a");
    cr_expect_str_eq(contents("log"), "a\na\n");
}

Test(log, log_once_writes_distinct_lines)
{
    log_to("log");
    gems_log_to(log_path, true);
    for (int i = 0; i < 30; i++)
        gems_log_call(i % 2 ? "a" : "b");
    cr_expect_str_eq(contents("log"), "b\na\n");
}

Test(log, log_once_is_bounded_and_says_so)
{
    log_to("log");
    gems_log_to(log_path, true);
    char line[32];
    for (int i = 0; i < 70000; i++) {
        snprintf(line, sizeof line, "%d", i);
        gems_log_call(line);
    }
    cr_expect_not_null(strstr(contents("log"), "too many distinct lines"));
    cr_expect_null(strstr(contents("log"), "\n69999\n"));
}

Test(log, an_existing_file_is_appended_to)
{
    log_to("log");
    char path[128];
    snprintf(path, sizeof path, "%s/log", folder);
    FILE *f = fopen(path, "w");
    fputs("before\n", f);
    fclose(f);
    gems_log_call("after");
    cr_expect_str_eq(contents("log"), "before\nafter\n");
}

Test(log, a_file_that_cannot_be_opened_is_told_once)
{
    log_to("no-such-folder/log");
    gems_log_call("a");
    gems_log_call("b");
    gems_log("kept");
    char expected[300];
    snprintf(expected, sizeof expected,
             "gems-preload: GEMS_LOG: cannot open %s/no-such-folder/log: No such file or directory\n"
             "gems-preload: kept\n",
             folder);
    cr_expect_stderr_eq_str(expected);
}

Test(log, a_named_pipe_without_a_reader_does_not_hang, .timeout = 10)
{
    log_to("pipe");
    cr_assert_eq(mkfifo(log_path, 0600), 0);
    gems_log_call("a");
}

Test(log, a_reader_that_went_away_does_not_kill_the_program)
{
    log_to("pipe");
    cr_assert_eq(mkfifo(log_path, 0600), 0);
    int reader = open(log_path, O_RDONLY | O_NONBLOCK);
    gems_log_call("a");
    close(reader);
    gems_log_call("b"); /* SIGPIPE, were it not held back */
}

Test(log, a_closed_descriptor_is_not_written_to)
{
    log_to("log");
    gems_log_call("first");
    for (int fd = 200; fd < 400; fd++) /* as daemons do with every descriptor; the test's own are below */
        close(fd);
    char path[128];
    snprintf(path, sizeof path, "%s/precious", folder);
    int fds[300]; /* one of them gets the number that the log had */
    for (int i = 0; i < 300; i++)
        fds[i] = open(path, O_WRONLY | O_CREAT, 0600);
    gems_log_call("second");
    for (int i = 0; i < 300; i++)
        close(fds[i]);
    cr_expect_str_eq(contents("precious"), "");
    cr_expect_str_eq(contents("log"), "first\nsecond\n");
}

static void in_child(void (*work)(void))
{
    pid_t child = fork();
    if (child == 0) {
        work();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    cr_expect_eq(status, 0);
}

static void log_from_child(void)
{
    gems_log_call("child");
    char name[32];
    snprintf(name, sizeof name, "log.%d", (int)getpid());
    if (strcmp(contents(name), "child\n") != 0)
        _exit(1);
}

Test(log, a_child_has_its_own_file_if_the_name_has_the_process_id)
{
    log_to("log.%p");
    gems_log_call("parent");
    in_child(log_from_child);
    gems_log_call("parent again");
    char name[32];
    snprintf(name, sizeof name, "log.%d", (int)getpid());
    cr_expect_str_eq(contents(name), "parent\nparent again\n");
}

static void log_line(void)
{
    gems_log_call("child");
}

Test(log, otherwise_parent_and_child_share_it)
{
    log_to("log");
    gems_log_call("parent");
    in_child(log_line);
    cr_expect_str_eq(contents("log"), "parent\nchild\n");
}

static void *log_many(void *which)
{
    char line[200];
    memset(line, *(const char *)which, sizeof line);
    line[sizeof line - 1] = 0;
    for (int i = 0; i < 500; i++)
        gems_log_call(line);
    return NULL;
}

Test(log, lines_of_several_threads_stay_whole)
{
    log_to("log");
    pthread_t thread[4];
    static const char letter[] = "abcd";
    for (int i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, log_many, (void *)&letter[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    int lines = 0;
    for (const char *p = contents("log"); *p; lines++) {
        size_t n = strcspn(p, "\n");
        cr_assert_eq(n, 199);
        for (size_t i = 1; i < n; i++)
            cr_assert_eq(p[i], p[0]);
        p += n + 1;
    }
    cr_expect_eq(lines, 2000);
}
