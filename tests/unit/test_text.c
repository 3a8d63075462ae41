/* preload/base: the hash, text in a bounded buffer, words of a list, files. */
#include "preload/base/hash.h"
#include "preload/base/file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Test(hash, of_bytes_is_fnv_1a)
{
    cr_expect_eq(gems_hash_text(GEMS_HASH_START, ""), UINT64_C(0xcbf29ce484222325));
    cr_expect_eq(gems_hash_text(GEMS_HASH_START, "a"), UINT64_C(0xaf63dc4c8601ec8c));
    cr_expect_eq(gems_hash_text(GEMS_HASH_START, "foobar"), UINT64_C(0x85944171f73967e8));
    cr_expect_eq(gems_hash_text(gems_hash_text(GEMS_HASH_START, "foo"), "bar"), UINT64_C(0x85944171f73967e8));
}

/* Shapes differ in few bits: as many slots are taken as chance would take. */
Test(hash, of_words_spreads_small_numbers)
{
    enum {
        SLOTS = 4096
    };
    static bool taken[SLOTS];
    int used = 0;
    for (uint64_t a = 0; a < 16; a++)
        for (uint64_t b = 0; b < 16; b++)
            for (uint64_t c = 0; c < 16; c++) {
                uint64_t key[] = {a, b << 4, UINT64_MAX, c};
                size_t slot = gems_hash_words(key, 4) >> 52;
                used += !taken[slot];
                taken[slot] = true;
            }
    cr_expect(used > SLOTS / 2, "%d of %d slots", used, SLOTS);
}

Test(text, is_appended_and_cut)
{
    char s[12];
    gems_text t = gems_text_in(s, sizeof s);
    cr_expect_str_eq(s, "");
    gems_text_put(&t, "%s=%d", "vec", 4);
    gems_text_put(&t, " ");
    cr_expect_str_eq(s, "vec=4 ");
    cr_expect_eq(t.n, 6);
    gems_text_put(&t, "%s", "and more than fits");
    cr_expect_str_eq(s, "vec=4 and m");
    gems_text_put(&t, "x");
    cr_expect_eq(t.n, 11);
    char one[1];
    t = gems_text_in(one, 1);
    gems_text_put(&t, "x");
    gems_text_put_shown(&t, "\n");
    cr_expect(t.n == 0 && *one == 0);
}

Test(text, control_characters_are_shown)
{
    char s[40], small[8];
    gems_text t = gems_text_in(s, sizeof s);
    gems_text_put_shown(&t, "a\nb\tc\r\x1b[31m\x7f \xc3\xa4");
    cr_expect_str_eq(s, "a\\nb\\tc\\r\\x1b[31m\\x7f \xc3\xa4");
    t = gems_text_in(small, sizeof small);
    gems_text_put_shown(&t, "abcde\x1bxyz");
    cr_expect_str_eq(small, "abcde", "no half escape");
}

Test(text, words_of_a_list)
{
    const char *list = " ,add.Tensor, mul*,\t,x ", *word;
    char seen[64] = "";
    gems_text t = gems_text_in(seen, sizeof seen);
    for (size_t n; (n = gems_word(&list, ", \t", &word));)
        gems_text_put(&t, "[%.*s]", (int)n, word);
    cr_expect_str_eq(seen, "[add.Tensor][mul*][x]");
    list = "";
    cr_expect_eq(gems_word(&list, " ", &word), 0);
}

Test(text, whole_files)
{
    char path[] = "/tmp/gems-test-text-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    FILE *f = fdopen(fd, "w");
    for (int i = 0; i < 10000; i++)
        fputc('a' + i % 26, f);
    fclose(f);
    char *text = gems_read_file(path, 1 << 20);
    cr_assert_not_null(text);
    cr_expect(strlen(text) == 10000 && text[9999] == 'a' + 9999 % 26);
    free(text);
    cr_expect_null(gems_read_file(path, 9999), "larger than allowed");
    cr_expect_null(gems_read_file("/tmp", 100), "a folder");
    cr_expect_null(gems_read_file("/no/such/file", 100));
    cr_expect_eq(truncate(path, 0), 0);
    text = gems_read_file(path, 0);
    cr_expect(text && !*text, "empty, not absent");
    free(text);
    remove(path);
}

/* Why a log, or else a folder, cannot be used; "" if it can. */
static const char *trouble(const char *path, bool log)
{
    static char why[300];
    gems_text t = gems_text_in(why, sizeof why);
    bool ok = log ? gems_file_check_log(path, &t) : gems_file_check_folder(path, &t);
    cr_expect_eq(ok, !*why, "%s", path);
    return why;
}

Test(text, what_could_be_written)
{
    char path[] = "/tmp/gems-test-text-XXXXXX", inside[64];
    cr_assert_not_null(mkdtemp(path));
    snprintf(inside, sizeof inside, "%s/a/b", path);
    cr_expect_str_eq(trouble(inside, false), "", "two folders would be made");
    cr_expect_neq(access(inside, F_OK), 0);
    cr_expect_str_eq(trouble(path, false), "");
    cr_expect_str_eq(trouble("/dev/null", false), "/dev/null: Not a directory");
    cr_expect_str_eq(trouble("/proc/x/y", false), "/proc/x/: No such file or directory");
    snprintf(inside, sizeof inside, "%s/log.%%p", path);
    cr_expect_str_eq(trouble(inside, true), "");
    cr_expect_str_eq(trouble("/dev/null", true), "");
    cr_expect_str_eq(trouble("/no/such/log", true), "/no/such/: No such file or directory");
    cr_expect_str_eq(trouble("/tmp", true), "/tmp: Is a directory");
    cr_expect_eq(rmdir(path), 0, "nothing is left behind");
}
