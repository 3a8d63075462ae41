/* kernels/device/cache.c: binaries on disk. Whatever lies in the folder, the right binary or none comes back. */
#include "kernels/device/driver.h"
#include "tests/unit/device_jobs.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

static char *dir;

static void fresh(void)
{
    dir = make_folder();
    setenv("GEMS_CACHE_DIR", dir, 1);
    unsetenv("GEMS_SAVE");
}

static void clean(void)
{
    remove_folder(dir);
}

TestSuite(cache, .init = fresh, .fini = clean, .timeout = 120);

static const char key[] = "a key\0with a NUL in it";

static unsigned char *binary_of(size_t size, unsigned seed)
{
    unsigned char *b = malloc(size);
    for (size_t i = 0; i < size; i++)
        b[i] = (unsigned char)((seed + i) * 2654435761u >> 13);
    return b;
}

static bool holds(const char *k, size_t k_size, const unsigned char *binary, size_t size)
{
    size_t got_size = 0;
    unsigned char *got = gems_cache_load(k, k_size, &got_size);
    bool same = got && got_size == size && memcmp(got, binary, size) == 0;
    free(got);
    return same;
}

static bool has_nothing(const char *k, size_t k_size)
{
    size_t size = 0;
    unsigned char *got = gems_cache_load(k, k_size, &size);
    free(got);
    return !got;
}

/* Path of the i-th *.bin in the folder and how many there are; other files are counted in *others. */
static unsigned list_entries(char path[][600], unsigned room, unsigned *others)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    *others = 0;
    for (struct dirent *e; (e = readdir(d));) {
        size_t length = strlen(e->d_name);
        if (e->d_name[0] == '.')
            continue;
        if (length == 36 && strcmp(e->d_name + 32, ".bin") == 0) {
            if (n < room)
                snprintf(path[n], 600, "%s/%s", dir, e->d_name);
            n++;
        } else {
            ++*others;
        }
    }
    closedir(d);
    return n;
}

Test(cache, what_was_stored_comes_back_for_its_key_alone)
{
    unsigned char *binary = binary_of(5000, 1);
    cr_expect(has_nothing(key, sizeof key));
    gems_cache_store(key, sizeof key, binary, 5000);
    cr_expect(holds(key, sizeof key, binary, 5000));
    cr_expect(has_nothing(key, sizeof key - 1));
    cr_expect(has_nothing("another key", 12));
    free(binary);
}

Test(cache, every_damage_is_seen)
{
    enum {
        SIZE = 300
    };
    unsigned char *binary = binary_of(SIZE, 2), file[1000], damaged[1000];
    char path[1][600];
    unsigned others;
    gems_cache_store(key, sizeof key, binary, SIZE);
    cr_assert_eq(list_entries(path, 1, &others), 1);
    cr_expect_eq(others, 0, "no temporary file is left");
    FILE *f = fopen(path[0], "rb");
    size_t size = fread(file, 1, sizeof file, f);
    fclose(f);

    for (size_t i = 0; i < size; i++) { /* any bit flipped */
        memcpy(damaged, file, size);
        damaged[i] ^= (unsigned char)(1 << i % 8);
        f = fopen(path[0], "wb");
        fwrite(damaged, 1, size, f);
        fclose(f);
        cr_assert(has_nothing(key, sizeof key), "byte %zu", i);
    }
    for (size_t n = 0; n < size; n += 7) { /* cut off anywhere */
        f = fopen(path[0], "wb");
        fwrite(file, 1, n, f);
        fclose(f);
        cr_assert(has_nothing(key, sizeof key), "cut at %zu", n);
    }
    gems_cache_store(key, sizeof key, binary, SIZE);
    cr_expect(holds(key, sizeof key, binary, SIZE));
    free(binary);
}

Test(cache, whatever_lies_in_an_entrys_place_is_no_entry)
{
    unsigned char *binary = binary_of(100, 12);
    char path[1][600], elsewhere[600];
    unsigned others;
    gems_cache_store(key, sizeof key, binary, 100);
    cr_assert_eq(list_entries(path, 1, &others), 1);
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", dir);

    cr_assert_eq(rename(path[0], elsewhere), 0);
    cr_assert_eq(mkdir(path[0], 0700), 0);
    cr_expect(has_nothing(key, sizeof key), "a folder");
    gems_cache_store(key, sizeof key, binary, 100);
    cr_expect(has_nothing(key, sizeof key), "a folder stays");
    cr_expect_eq(list_entries(path, 1, &others) + others, 2, "nothing is left beside it");
    rmdir(path[0]);

    cr_assert_eq(mkfifo(path[0], 0600), 0);
    cr_expect(has_nothing(key, sizeof key), "a pipe that nobody writes to");
    gems_cache_store(key, sizeof key, binary, 100);
    cr_expect(holds(key, sizeof key, binary, 100), "it is replaced");
    unlink(path[0]);

    cr_assert_eq(symlink("/dev/zero", path[0]), 0);
    cr_expect(has_nothing(key, sizeof key), "a link to a device");
    gems_cache_store(key, sizeof key, binary, 100);
    cr_expect(holds(key, sizeof key, binary, 100), "the link is replaced, not followed");
    unlink(path[0]);
    cr_assert_eq(symlink(elsewhere, path[0]), 0);
    cr_expect(holds(key, sizeof key, binary, 100), "a link to an entry is one");
    free(binary);
}

Test(cache, code_of_other_users_is_not_run)
{
    unsigned char *binary = binary_of(100, 13);
    char path[1][600];
    unsigned others;
    if (geteuid() != 0)
        cr_skip_test("needs root to make files of another user");
    gems_cache_store(key, sizeof key, binary, 100);
    cr_assert_eq(list_entries(path, 1, &others), 1);
    cr_assert_eq(chown(path[0], 65534, 65534), 0);
    cr_expect(has_nothing(key, sizeof key));
    gems_cache_store(key, sizeof key, binary, 100);
    cr_expect(holds(key, sizeof key, binary, 100), "replaced by our own");
    free(binary);
}

Test(cache, what_others_may_write_is_not_run)
{
    unsigned char *binary = binary_of(100, 14);
    char path[1][600];
    unsigned others;
    gems_cache_store(key, sizeof key, binary, 100);
    cr_assert_eq(list_entries(path, 1, &others), 1);
    for (mode_t bit = 002; bit <= 020; bit <<= 3) {
        chmod(path[0], 0600 | bit);
        cr_expect(has_nothing(key, sizeof key), "mode %o", 0600 | bit);
    }
    gems_cache_store(key, sizeof key, binary, 100);
    cr_expect(holds(key, sizeof key, binary, 100), "replaced by our own");
    free(binary);
}

/* 0: the folder is used. */
static int uses_the_folder(void *unused)
{
    (void)unused;
    return gems_cache_dir() ? 0 : 1;
}

Test(cache, a_folder_that_others_may_write_is_not_used)
{
    cr_redirect_stderr();
    cr_expect_eq(in_child(uses_the_folder, NULL), 0);
    chmod(dir, 0755);
    cr_expect_eq(in_child(uses_the_folder, NULL), 0, "others may read it");
    chmod(dir, 0770);
    cr_expect_eq(in_child(uses_the_folder, NULL), 1);
    chmod(dir, 01777);
    cr_expect_eq(in_child(uses_the_folder, NULL), 1);
    chmod(dir, 0700);
    if (geteuid() == 0 && chown(dir, 65534, 65534) == 0)
        cr_expect_eq(in_child(uses_the_folder, NULL), 1, "another user's");
}

Test(cache, another_keys_file_under_our_name_is_refused)
{
    char path[2][600];
    unsigned others;
    unsigned char *binary = binary_of(100, 3);
    gems_cache_store("key A", 5, binary, 100);
    cr_assert_eq(list_entries(path, 1, &others), 1);
    char a[600];
    strcpy(a, path[0]);
    gems_cache_store("key B", 5, binary, 100);
    cr_assert_eq(list_entries(path, 2, &others), 2);
    cr_assert_eq(rename(strcmp(path[0], a) ? path[0] : path[1], a), 0); /* as if both had the same hash */
    cr_expect(has_nothing("key A", 5));
    free(binary);
}

Test(cache, no_folder_is_no_error)
{
    setenv("GEMS_CACHE_DIR", "/proc/nonexistent/folder", 1);
    unsigned char *binary = binary_of(100, 4);
    gems_cache_store(key, sizeof key, binary, 100);
    cr_expect(has_nothing(key, sizeof key));
    cr_expect_null(gems_cache_dir());
    float x[2] = {1, 2};
    gems_call call;
    cr_expect_eq(run_add(GEMS_LANE_SMALL, &call, x, x, x, 2), GEMS_OK);
    cr_expect_eq(x[1], 4);
    free(binary);
}

Test(cache, a_file_in_the_folders_place_is_no_error)
{
    char path[600];
    snprintf(path, sizeof path, "%s/file", dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    setenv("GEMS_CACHE_DIR", path, 1);
    unsigned char *binary = binary_of(100, 4);
    gems_cache_store(key, sizeof key, binary, 100);
    cr_expect(has_nothing(key, sizeof key));
    free(binary);
}

Test(cache, a_folder_that_cannot_be_written_is_read_all_the_same)
{
    if (geteuid() == 0) { /* root may write anywhere */
        cr_assert_eq(chown(dir, 65534, 65534), 0);
        cr_assert_eq(seteuid(65534), 0);
    }
    unsigned char *binary = binary_of(100, 5);
    gems_cache_store(key, sizeof key, binary, 100);
    chmod(dir, 0500);
    gems_cache_store("other", 5, binary, 100);
    cr_expect(has_nothing("other", 5));
    cr_expect(holds(key, sizeof key, binary, 100));
    chmod(dir, 0700);
    if (getuid() == 0)
        cr_assert_eq(seteuid(0), 0);
    free(binary);
}

Test(cache, without_a_variable_it_lies_where_caches_lie)
{
    char expected[600];
    unsetenv("GEMS_CACHE_DIR");
    setenv("XDG_CACHE_HOME", dir, 1);
    snprintf(expected, sizeof expected, "%s/gems-preload", dir);
    cr_expect_str_eq(gems_cache_dir(), expected);
}

Test(cache, zero_megabytes_keep_nothing)
{
    setenv("GEMS_CACHE_MB", "0", 1);
    unsigned char *binary = binary_of(100, 6);
    gems_cache_store(key, sizeof key, binary, 100);
    cr_expect(has_nothing(key, sizeof key));
    unsigned others;
    cr_expect_eq(list_entries(NULL, 0, &others), 0);
    free(binary);
}

Test(cache, the_oldest_by_use_go_first_and_nothing_else_is_removed)
{
    enum {
        N = 6,
        SIZE = 200 << 10
    };
    char name[16], path[600], entry[N][600];
    unsigned others;
    unsigned char *binary = binary_of(SIZE, 7);
    setenv("GEMS_CACHE_MB", "1", 1);
    snprintf(path, sizeof path, "%s/somebody-elses.bin", dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "key %d", i);
        gems_cache_store(name, 6, binary, SIZE);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        if (i > 0 && i < 5)
            cr_expect(holds("key 0", 6, binary, SIZE), "used, so young again (%d)", i);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    cr_expect(list_entries(entry, N, &others) * SIZE <= 1 << 20);
    cr_expect_eq(others, 1);
    cr_expect(holds("key 0", 6, binary, SIZE));
    cr_expect(holds("key 5", 6, binary, SIZE));
    cr_expect(has_nothing("key 1", 6));
    free(binary);
}

Test(cache, temporary_files_of_the_dead_are_removed_when_old)
{
    char path[600];
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    struct stat st;
    unsigned char *binary = binary_of(100, 8);
    snprintf(path, sizeof path, "%s/0123456789abcdef0123456789abcdef.bin.99-0", dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    gems_cache_store(key, sizeof key, binary, 100);
    cr_expect_eq(stat(path, &st), 0, "a young one may be somebody's at work");
    utimensat(AT_FDCWD, path, old, 0);
    for (int i = 0; i < 16; i++) /* the folder is looked through at every 16th, if it is not full */
        gems_cache_store(key, sizeof key, binary, 100);
    cr_expect_neq(stat(path, &st), 0);
    free(binary);
}

Test(cache, what_other_processes_add_is_counted)
{
    enum {
        SIZE = 800 << 10
    };
    char path[600], entry[20][600];
    unsigned others;
    unsigned char *binary = binary_of(SIZE, 15);
    setenv("GEMS_CACHE_MB", "1", 1);
    gems_cache_store(key, sizeof key, binary, 100);
    snprintf(path, sizeof path, "%s/0123456789abcdef0123456789abcdef.bin", dir);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(write(fd, binary, SIZE), SIZE);
    close(fd);
    utimensat(AT_FDCWD, path, (struct timespec[]){{.tv_sec = 1000}, {.tv_sec = 1000}}, 0);
    for (int i = 0; i < 16; i++)
        gems_cache_store(key, sizeof key, binary, 100);
    cr_expect_neq(access(path, F_OK), 0);
    cr_expect_eq(list_entries(entry, 20, &others), 1);
    free(binary);
}

static int race(void *unused)
{
    (void)unused;
    for (int i = 0; i < 300; i++) {
        unsigned char *binary = binary_of(20000, 9);
        gems_cache_store(key, sizeof key, binary, 20000);
        bool right = holds(key, sizeof key, binary, 20000);
        free(binary);
        if (!right)
            return 1;
    }
    return 0;
}

Test(cache, processes_that_race_see_whole_files_only)
{
    pid_t pid[3];
    unsigned others;
    for (int i = 0; i < 3; i++)
        if ((pid[i] = fork()) == 0)
            _exit(race(NULL));
    for (int i = 0; i < 3; i++) {
        int status;
        waitpid(pid[i], &status, 0);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    cr_expect_eq(list_entries(NULL, 0, &others), 1);
    cr_expect_eq(others, 0);
}

/* ---- with a real device ---- */

static const char nonsense[] = "nonsense";

static bool has_binary(const gems_program *program)
{
    size_t size = 0;
    free(gems_cache_load(program->key, program->key_size, &size));
    return size > sizeof nonsense;
}

/* 0: built from source; 1: came from the cache; 2: went wrong. Waits until what was built is in the cache. */
static int build_and_run(void *unused)
{
    float x[3] = {1, 2, 3};
    gems_call call;
    (void)unused;
    if (run_add(GEMS_LANE_SMALL, &call, x, x, x, 3) != GEMS_OK || x[2] != 6)
        return 2;
    uint64_t id = ADD_KEY;
    gems_trouble trouble = {.kind = GEMS_TROUBLE_NONE};
    const gems_kernel *kernel = gems_kernel_find(GEMS_LANE_SMALL, &id, sizeof id, &trouble);
    bool cached = kernel && kernel->program->cached;
    const gems_program *program = kernel ? kernel->program : NULL;
    for (int i = 0; i < 600 && program && gems_cache_dir() && !cached && !has_binary(program); i++)
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    return cached;
}

static void damage_all(void)
{
    char path[16][600];
    unsigned others, n = list_entries(path, 16, &others);
    cr_assert(n > 0 && n <= 16);
    for (unsigned i = 0; i < n; i++) {
        int fd = open(path[i], O_RDWR);
        struct stat st;
        char byte = 0x55;
        fstat(fd, &st);
        cr_assert_eq(pwrite(fd, &byte, 1, st.st_size / 2 + 1), 1);
        close(fd);
    }
}

Test(cache, a_second_process_takes_the_first_ones_programs)
{
    cr_expect_eq(in_child(build_and_run, NULL), 0);
    cr_expect_eq(in_child(build_and_run, NULL), 1);
    damage_all();
    cr_expect_eq(in_child(build_and_run, NULL), 0);
    cr_expect_eq(in_child(build_and_run, NULL), 1);
}

/* Replaces every entry by one that is sound as a file and nonsense as a binary. */
static void replace_all(void)
{
    char path[8][600];
    unsigned others, n = list_entries(path, 8, &others);
    cr_assert(n > 0 && n <= 8);
    for (unsigned i = 0; i < n; i++) {
        FILE *f = fopen(path[i], "rb");
        uint64_t header[5];
        cr_assert_eq(fread(header, sizeof header, 1, f), 1);
        char *k = malloc(header[1]);
        cr_assert_eq(fread(k, 1, header[1], f), header[1]);
        fclose(f);
        gems_cache_store(k, header[1], (const unsigned char *)nonsense, sizeof nonsense);
        free(k);
    }
}

Test(cache, a_binary_that_the_driver_refuses_is_built_again)
{
    const char *vendor = getenv("GEMS_VENDOR");
    if (vendor && strcmp(vendor, "rusticl") == 0)
        cr_skip_test("Mesa 22.3 ends the process when given a binary of another kind");
    cr_expect_eq(in_child(build_and_run, NULL), 0);
    replace_all();
    cr_expect_eq(in_child(build_and_run, NULL), 0);
    cr_expect_eq(in_child(build_and_run, NULL), 1);
}

/* ---- which driver ---- */

/* 1: the loader was asked; 0: the one driver alone was opened; 2: went wrong. */
static int asks_the_loader(void *unused)
{
    float x[3] = {1, 2, 3};
    gems_call call;
    (void)unused;
    if (run_add(GEMS_LANE_MAIN, &call, x, x, x, 3) != GEMS_OK || x[2] != 6)
        return 2;
    return dlopen("libOpenCL.so.1", RTLD_NOLOAD | RTLD_LAZY) != NULL;
}

Test(cache, the_only_driver_with_devices_is_remembered_until_something_changes)
{
    if (getenv("OCL_ICD_VENDORS") || getenv("GEMS_VENDOR"))
        cr_skip_test("another list of drivers");
    cr_expect_eq(in_child(asks_the_loader, NULL), 1);
    if (in_child(asks_the_loader, NULL) == 1)
        cr_skip_test("several drivers have devices here");
    cr_expect_eq(in_child(asks_the_loader, NULL), 0);
    setenv("CUDA_VISIBLE_DEVICES", "0", 1);
    cr_expect_eq(in_child(asks_the_loader, NULL), 1, "a variable that drivers read");
    cr_expect_eq(in_child(asks_the_loader, NULL), 0);
    setenv("OCL_ICD_VENDORS", "/etc/OpenCL/vendors", 1);
    cr_expect_eq(in_child(asks_the_loader, NULL), 1, "another list");
    cr_expect_eq(in_child(asks_the_loader, NULL), 1);
    unsetenv("OCL_ICD_VENDORS");
    damage_all();
    cr_expect_eq(in_child(asks_the_loader, NULL), 1);
    setenv("GEMS_CACHE_MB", "0", 1);
    cr_expect_eq(in_child(asks_the_loader, NULL), 1);
}

/* ---- the folder of PoCL ---- */

static void only_of_pocl(void)
{
    const char *vendor = getenv("GEMS_VENDOR");
    if (vendor && strcmp(vendor, "pocl") != 0)
        cr_skip_test("only of PoCL");
}

/* Folders that PoCL builds in, of processes that live or were killed. */
static unsigned folders_of_pocl(void)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        n += strncmp(e->d_name, "gems-pocl-", 10) == 0;
    closedir(d);
    return n;
}

static int run_and_be_killed(void *unused)
{
    if (build_and_run(unused) == 2)
        return 2;
    return raise(SIGKILL);
}

Test(cache, the_folder_of_pocl_ends_with_the_process_or_with_the_next_one)
{
    only_of_pocl();
    cr_expect_eq(in_child(build_and_run, NULL), 0);
    cr_expect_eq(folders_of_pocl(), 0);
    cr_expect_eq(in_child(run_and_be_killed, NULL), -SIGKILL);
    cr_expect_eq(folders_of_pocl(), 1);
    cr_expect_eq(in_child(build_and_run, NULL), 1);
    cr_expect_eq(folders_of_pocl(), 0);
}

/* Waits in the middle of its life, its descriptors closed, until it may read from a pipe. */
static int run_wait_and_run(void *pipe_end)
{
    char byte;
    if (build_and_run(NULL) == 2)
        return 2;
    int fd = *(int *)pipe_end;
    for (int i = 3; i < 200; i++)
        if (i != fd)
            close(i);
    if (read(fd, &byte, 1) != 1)
        return 3;
    float x[5] = {1, 2, 3, 4, 5};
    gems_call call;
    uint64_t id = 77;
    gems_work work;
    vector v;
    begin_work(&work, GEMS_LANE_MAIN);
    gems_kernel *kernel =
        gems_work_build(&work, &id, sizeof id,
                        &(gems_kernel_text){"test/late", NULL,
                                            "kernel void late(GEMS_BUFFER(float, x))\n{\n    GEMS_AT(float, x);\n"
                                            "    x[0] = 9;\n}\n",
                                            "", "late"});
    memset(&call, 0, sizeof call);
    call.op = some_op();
    gems_launch(&work, kernel, 1, &(size_t){1}, NULL, &GEMS_INOUT(vector_of(&v, x, 5)), 1);
    return run_and_end(&work, &call) == GEMS_OK && x[0] == 9 ? 0 : 4;
}

Test(cache, the_folder_of_pocl_is_left_to_a_process_that_lives)
{
    int ends[2], status;
    only_of_pocl();
    cr_expect_eq(in_child(build_and_run, NULL), 0);
    cr_assert_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0)
        exit(run_wait_and_run(&ends[0]));
    for (int i = 0; i < 600 && folders_of_pocl() == 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    cr_expect_eq(in_child(build_and_run, NULL), 1);
    cr_expect_eq(folders_of_pocl(), 1);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    waitpid(pid, &status, 0);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    cr_expect_eq(folders_of_pocl(), 0);
}

Test(cache, without_a_cache_pocl_builds_where_temporary_files_lie)
{
    only_of_pocl();
    setenv("GEMS_CACHE_MB", "0", 1);
    setenv("TMPDIR", dir, 1);
    cr_expect_eq(in_child(run_and_be_killed, NULL), -SIGKILL);
    cr_expect_eq(folders_of_pocl(), 1);
}

static unsigned patches;
static bool patch_is_bad;

static unsigned char *patch(const gems_lane_state *lane, const unsigned char *binary, size_t *size)
{
    (void)lane;
    unsigned char *copy = malloc(*size);
    memcpy(copy, binary, *size);
    if (patch_is_bad)
        copy[0] ^= 0xff; /* of the mark by which PoCL knows its own */
    patches++;
    return copy;
}

/* As build_and_run, with a driver that patches binaries; 3 if it was asked to for a program of the cache, or not asked.
 */
static int run_patched(void *version)
{
    static gems_driver patching;
    gems_vendor_data *v = (gems_vendor_data *)gems_vendor_all();
    for (; v->name; v++) {
        if (!v->driver || strcmp(v->driver->vendor, "pocl") != 0)
            continue;
        patching = *v->driver;
        patching.patch = patch;
        patching.version = *(unsigned *)version;
        v->driver = &patching;
    }
    int result = build_and_run(NULL);
    return result < 2 && (patches == 0) != (result == 1) ? 3 : result;
}

Test(cache, a_driver_patches_what_was_built_and_its_version_is_in_the_key)
{
    unsigned first = 1, second = 2;
    only_of_pocl();
    cr_expect_eq(in_child(run_patched, &first), 0);
    cr_expect_eq(in_child(run_patched, &first), 1);
    cr_expect_eq(in_child(run_patched, &second), 0);
    cr_expect_eq(in_child(build_and_run, NULL), 0);
    patch_is_bad = true;
    second = 3;
    cr_expect_eq(in_child(run_patched, &second), 2, "a binary that does not load is used");
}

/* 0: nothing was compiled, 1: something was, 2: went wrong. */
static int larger_groups(void *unused)
{
    enum {
        N = 4096
    };
    static float x[N];
    size_t global = N, local = 32;
    gems_call call = {.op = some_op()};
    vector v;
    int n = N;
    struct rusage before, after;
    (void)unused;
    gems_work work;
    begin_work(&work, GEMS_LANE_SMALL);
    getrusage(RUSAGE_CHILDREN, &before);
    gems_kernel *kernel = build_kernel(&work, ADD_KEY, "test/add", NULL, add_source, "add");
    gems_arg args[] = {GEMS_IN(vector_of(&v, x, N)), GEMS_IN(&v.t), GEMS_OUT_ARG(&v.t), GEMS_VALUE(n)};
    gems_launch(&work, kernel, 1, &global, &local, args, 4);
    if (run_and_end(&work, &call) != GEMS_OK)
        return 2;
    getrusage(RUSAGE_CHILDREN, &after);
    return after.ru_minflt - before.ru_minflt > 300; /* the linker */
}

static off_t bytes_kept(void)
{
    char path[16][600];
    unsigned others, n = list_entries(path, 16, &others);
    off_t total = 0;
    struct stat st;
    for (unsigned i = 0; i < n; i++)
        if (stat(path[i], &st) == 0)
            total += st.st_size;
    return total;
}

Test(cache, what_pocl_compiles_at_a_later_launch_is_kept_too)
{
    only_of_pocl();
    cr_expect_eq(in_child(build_and_run, NULL), 0);
    off_t first = bytes_kept();
    cr_expect_eq(in_child(larger_groups, NULL), 1);
    off_t second = bytes_kept();
    cr_expect_gt(second, first);
    cr_expect_eq(in_child(larger_groups, NULL), 0);
    cr_expect_eq(bytes_kept(), second);
    damage_all();
    cr_expect_eq(in_child(larger_groups, NULL), 1);
    cr_expect_eq(in_child(larger_groups, NULL), 0);
}

static int larger_groups_without_binaries(void *unused)
{
    static const char *const all[] = {"basic", "pthread", "cpu", NULL};
    for (gems_vendor_data *v = (gems_vendor_data *)gems_vendor_all(); v->name; v++)
        v->own_cache = all; /* as of PoCL 5 */
    return larger_groups(unused);
}

Test(cache, devices_that_are_not_asked_for_binaries_have_their_kernels_kept_all_the_same)
{
    only_of_pocl();
    cr_expect_eq(in_child(larger_groups_without_binaries, NULL), 1);
    off_t kept = bytes_kept();
    cr_expect_gt(kept, 0);
    cr_expect_eq(in_child(larger_groups_without_binaries, NULL), 0);
    cr_expect_eq(bytes_kept(), kept);
}
