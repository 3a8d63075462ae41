/* preload/libc.c: each call pins what it uses, readable or writable, for its length, and what it answers is libc's. The
 * functions are compiled here under other names, with a layer that only notes pins. */
#define gems_chain_active noted_active
#define gems_chain_pin    noted_pin
#define gems_chain_unpin  noted_unpin
#define DEFINE(type, name, parameters)                                                                                 \
    static type ours_##name parameters;                                                                                \
    __attribute__((unused)) static type ours_##name parameters
#include "preload/libc.c"

#include <criterion/criterion.h>
#include <string.h>

TestSuite(libc, .timeout = 60);

_Atomic bool noted_active = true;
static struct {
    const void *p;
    size_t n;
    bool write;
} pins[4096];
static int made, held;
static bool none_is_ours;

bool noted_pin(const void *p, size_t n, bool write)
{
    pins[made].p = p;
    pins[made].n = n;
    pins[made++].write = write;
    held += !none_is_ours;
    errno = 99;
    return !none_is_ours;
}

void noted_unpin(const void *p, size_t n)
{
    bool known = false;
    for (int i = 0; i < made; i++)
        known |= pins[i].p == p && pins[i].n == n;
    cr_assert(known);
    held--;
    errno = 98;
}

/* That these were pinned since the last time, and are no more. */
static void expect(int line, int n, const void *p, size_t bytes, bool write)
{
    cr_expect(made == n && held == 0, "line %d: %d pins, %d held", line, made, held);
    for (int i = 0; i < n; i++)
        cr_expect(pins[i].p == (const char *)p + i * bytes && pins[i].n == bytes && pins[i].write == write, "line %d",
                  line);
    made = 0;
}
#define EXPECT(n, p, bytes, write) expect(__LINE__, n, p, bytes, write)

static char in[4096], out[4096];
static int ends[2];

static int file_of(size_t n)
{
    FILE *f = tmpfile();
    memset(out, 'x', sizeof out);
    cr_assert_eq(write(fileno(f), out, n), (ssize_t)n);
    lseek(fileno(f), 0, SEEK_SET);
    return fileno(f);
}

static struct iovec *two(char *p, struct iovec *list)
{
    list[0] = (struct iovec){p, 8};
    list[1] = (struct iovec){p + 8, 8};
    return list;
}

Test(libc, files)
{
    int fd = file_of(4096);
    struct iovec v[2];
    cr_expect_eq(ours_read(fd, in, 16), 16);
    EXPECT(1, in, 16, true);
    cr_expect_eq(in[15], 'x');
    cr_expect_eq(ours_pread(fd, in, 16, 4090), 6);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours_pread64(fd, in, 16, 4090), 6);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours___read_chk(fd, in, 16, sizeof in), 16);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours___pread_chk(fd, in, 16, 0, sizeof in), 16);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours___pread64_chk(fd, in, 16, 0, sizeof in), 16);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours_readv(fd, two(in, v), 2), 16);
    EXPECT(2, in, 8, true);
    cr_expect_eq(ours_preadv(fd, v, 2, 0), 16);
    EXPECT(2, in, 8, true);
    cr_expect_eq(ours_preadv64(fd, v, 2, 0), 16);
    EXPECT(2, in, 8, true);
    cr_expect_eq(ours_preadv2(fd, v, 2, 0, 0), 16);
    EXPECT(2, in, 8, true);
    cr_expect_eq(ours_preadv64v2(fd, v, 2, 0, 0), 16);
    EXPECT(2, in, 8, true);
    cr_expect_eq(ours_write(fd, out, 16), 16);
    EXPECT(1, out, 16, false);
    cr_expect_eq(ours_pwrite(fd, out, 16, 0), 16);
    EXPECT(1, out, 16, false);
    cr_expect_eq(ours_pwrite64(fd, out, 16, 0), 16);
    EXPECT(1, out, 16, false);
    cr_expect_eq(ours_writev(fd, two(out, v), 2), 16);
    EXPECT(2, out, 8, false);
    cr_expect_eq(ours_pwritev(fd, v, 2, 0), 16);
    EXPECT(2, out, 8, false);
    cr_expect_eq(ours_pwritev64(fd, v, 2, 0), 16);
    EXPECT(2, out, 8, false);
    cr_expect_eq(ours_pwritev2(fd, v, 2, 0, 0), 16);
    EXPECT(2, out, 8, false);
    cr_expect_eq(ours_pwritev64v2(fd, v, 2, 0, 0), 16);
    EXPECT(2, out, 8, false);
    cr_assert_eq(pipe(ends), 0);
    cr_expect_eq(ours_vmsplice(ends[1], v, 2, 0), 16);
    EXPECT(2, out, 8, false);
}

Test(libc, streams)
{
    FILE *f = fdopen(file_of(4096), "r+");
    cr_expect_eq(ours_fread(in, 8, 2, f), 2);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours_fread_unlocked(in, 8, 2, f), 2);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours___fread_chk(in, sizeof in, 8, 2, f), 2);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours___fread_unlocked_chk(in, sizeof in, 8, 2, f), 2);
    EXPECT(1, in, 16, true);
    fseek(f, 0, SEEK_SET);
    cr_expect_eq(ours_fwrite(out, 8, 2, f), 2);
    EXPECT(1, out, 16, false);
    cr_expect_eq(ours_fwrite_unlocked(out, 8, 2, f), 2);
    EXPECT(1, out, 16, false);
    cr_expect_eq(ours_fread(in, 0, 2, f), 0);
    cr_expect_eq(made, 0);
}

Test(libc, sockets)
{
    struct iovec v[2];
    struct mmsghdr m[2] = {{.msg_hdr = {.msg_iov = two(out, v), .msg_iovlen = 2}}};
    struct timespec soon = {.tv_sec = 1};
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    cr_expect_eq(ours_send(ends[0], out, 16, 0), 16);
    EXPECT(1, out, 16, false);
    cr_expect_eq(ours_sendto(ends[0], out, 16, 0, NULL, 0), 16);
    EXPECT(1, out, 16, false);
    cr_expect_eq(ours_sendmsg(ends[0], &m[0].msg_hdr, 0), 16);
    EXPECT(2, out, 8, false);
    cr_expect_eq(ours_sendmmsg(ends[0], m, 1, 0), 1);
    EXPECT(2, out, 8, false);
    cr_expect_eq(send(ends[0], out, 16, 0) + send(ends[0], out, 16, 0), 32);
    two(in, v);
    cr_expect_eq(ours_recv(ends[1], in, 16, 0), 16);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours___recv_chk(ends[1], in, 16, sizeof in, 0), 16);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours_recvfrom(ends[1], in, 16, 0, NULL, NULL), 16);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours___recvfrom_chk(ends[1], in, 16, sizeof in, 0, NULL, NULL), 16);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours_recvmsg(ends[1], &m[0].msg_hdr, 0), 16);
    EXPECT(2, in, 8, true);
    cr_expect_eq(ours_recvmmsg(ends[1], m, 1, 0, &soon), 1);
    EXPECT(2, in, 8, true);
}

Test(libc, other_ways)
{
    struct iovec here = {in, 16}, there = {out, 16};
    memset(out, 'y', 16);
    cr_expect_eq(ours_process_vm_readv(getpid(), &here, 1, &there, 1, 0), 16);
    cr_expect(made == 2 && held == 0 && pins[0].p == in && pins[0].write && pins[1].p == out && !pins[1].write);
    cr_expect_eq(in[15], 'y');
    made = 0;
    cr_expect_eq(ours_process_vm_writev(getpid(), &here, 1, &there, 1, 0), 16);
    cr_expect(made == 2 && held == 0 && pins[0].p == in && !pins[0].write && pins[1].p == out && pins[1].write);
    made = 0;
    cr_expect_eq(ours_getrandom(in, 16, 0), 16);
    EXPECT(1, in, 16, true);
    (void)ours_mlock(in, 16);
    (void)ours_mlock2(in, 16, 0);
    cr_expect(made == 2 && held == 2, "they stay");
    made = held = 0;

    struct aiocb request = {.aio_fildes = file_of(64), .aio_buf = in, .aio_nbytes = 16, .aio_lio_opcode = LIO_READ};
    struct aiocb *requests[] = {&request, NULL};
    const struct aiocb *waits[] = {&request};
    cr_expect_eq(ours_aio_read(&request), 0);
    EXPECT(1, in, 16, true);
    aio_suspend(waits, 1, NULL);
    cr_expect_eq(ours_lio_listio(LIO_WAIT, requests, 2, NULL), 0);
    EXPECT(1, in, 16, true);
    cr_expect_eq(ours_aio_write(&request), 0);
    EXPECT(1, in, 16, false);
    aio_suspend(waits, 1, NULL);
}

Test(libc, errors_are_libcs_and_errno_is_not_ours)
{
    errno = 5;
    cr_expect_eq(ours_read(-1, in, 16), -1);
    cr_expect_eq(errno, EBADF);
    EXPECT(1, in, 16, true);
    errno = 5;
    cr_expect_eq(ours_write(file_of(0), out, 16), 16);
    cr_expect_eq(errno, 5);
    cr_expect_eq(ours_readv(-1, NULL, -1), -1);
    struct iovec *many = calloc(2000, sizeof *many);
    made = 0;
    cr_expect_eq(ours_readv(0, many, 2000), -1);
    cr_expect_eq(errno, EINVAL);
    cr_expect_eq(made, 0);
    for (int i = 0; i < 1000; i++)
        many[i] = (struct iovec){out, 1};
    cr_expect_eq(ours_writev(file_of(0), many, 1000), 1000);
    cr_expect(made == 1000 && held == 0, "more than are kept");
    free(many);
}

Test(libc, without_us_nothing_is_pinned)
{
    none_is_ours = true;
    cr_expect_eq(ours_write(file_of(0), out, 16), 16);
    cr_expect(made == 1 && held == 0);
    noted_active = false;
    cr_expect_eq(ours_write(file_of(0), out, 16), 16);
    cr_expect_eq(made, 1);
}

static void *wait_for_ever(void *list)
{
    if (list)
        ours_readv(ends[0], list, 2);
    else
        ours_read(ends[0], in, 16);
    return NULL;
}

Test(libc, a_cancelled_call_pins_no_more)
{
    struct iovec v[2];
    cr_assert_eq(pipe(ends), 0);
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        void *result;
        pthread_create(&thread, NULL, wait_for_ever, i ? two(in, v) : NULL);
        while (((volatile int *)&held)[0] != 1 + i)
            usleep(1000);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        cr_expect_eq(result, PTHREAD_CANCELED);
        cr_expect_eq(held, 0);
    }
}
