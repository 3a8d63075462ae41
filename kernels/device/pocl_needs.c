/* What PoCL needs in order to build and load kernels ("needs" in tune/pocl.json). Called by pocl.c.
 *
 * PoCL compiles each kernel in a folder of its own, starts a linker, and loads the result; where one of these fails it
 * mostly ends the process. So what it will need is asked for before it is let do any of that, and where it is missing
 * the host runs the call. All this takes some microseconds, a small part of what it guards. */
#include "kernels/device/pocl.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISK_BYTES   ((rlim_t)16 << 20)  /* a kernel and what is left of its making take less than one MiB */
#define MEMORY_BYTES ((rlim_t)256 << 20) /* for the compiler */
#define DISK_FILES   64
#define OPEN_FILES   48 /* at once, by the compiler and the linker */

static bool on_path(const char *program)
{
    char file[4096];
    const char *path = getenv("PATH");

    for (const char *p = path ? path : ""; *p; p += *p == ':') {
        int length = (int)strcspn(p, ":"), n = snprintf(file, sizeof file, "%.*s/%s", length, p, program);
        if (length && n > 0 && (size_t)n < sizeof file && access(file, X_OK) == 0)
            return true;
        p += length;
    }
    return false;
}

bool gems_pocl_folder_serves(const char *folder, char *why, size_t n)
{
    struct statvfs disk;
    const char *wrong = NULL;

    if (access(folder, W_OK | X_OK) != 0 || statvfs(folder, &disk) != 0)
        wrong = strerror(errno);
    else if (disk.f_flag & ST_NOEXEC)
        wrong = "mounted noexec";
    else if (disk.f_bavail < DISK_BYTES / (disk.f_frsize ? disk.f_frsize : 1) ||
             (disk.f_files && disk.f_favail < DISK_FILES))
        wrong = "the disk is full";
    if (wrong)
        snprintf(why, n, "%s: its folder %s", wrong, folder);
    return !wrong;
}

/* False if a limit on the process is too close. */
static bool limits_serve(void)
{
    struct rlimit limit;
    unsigned long pages = 0;

    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < DISK_BYTES)
        return false;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC); /* the lowest number that is free */
    if (fd < 0)
        return false;
    char text[64] = "";
    bool known = read(fd, text, sizeof text - 1) > 0;
    close(fd);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (rlim_t)fd + OPEN_FILES)
        return false;
    if (known)
        pages = strtoul(text, NULL, 10);
    return getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
           limit.rlim_cur >= (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + MEMORY_BYTES;
}

static int end_at_once(void *unused)
{
    (void)unused;
    return 0;
}

/* Whether the process may have one more: tried with one that shares its memory, so that nothing is copied, and that
 * nobody is told of. */
static bool may_start_process(void)
{
#ifdef __SANITIZE_THREAD__
    return true; /* that tool takes it for a fork and forgets what it knew of threads */
#endif
    char stack[4096] __attribute__((aligned(64)));
    sigset_t all, before;

    sigfillset(&all); /* no handler may run in there */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = clone(end_at_once, stack + sizeof stack, CLONE_VM | CLONE_VFORK, NULL);
    while (child > 0 && waitpid(child, NULL, __WCLONE) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return child > 0;
}

bool gems_pocl_may_build(const gems_vendor_data *vendor, char *why, size_t n)
{
    struct sigaction action;
    const char *wrong = NULL;

    for (const char **program = vendor->needs; program && *program; program++)
        if (!on_path(*program)) {
            snprintf(why, n, "%s's OpenCL needs the program %s, which is not on the PATH", vendor->name, *program);
            return false;
        }
    int used = snprintf(why, n, "%s's OpenCL cannot build kernels: ", vendor->name);
    size_t begin = used > 0 && (size_t)used < n ? (size_t)used : 0;
    const char *folder = gems_pocl_folder();
    if (!folder)
        wrong = "there is no folder for them: none that can be written, holds programs and is not full";
    else if (!gems_pocl_folder_serves(folder, why + begin, n - begin))
        return false;
    else if (sigaction(SIGCHLD, NULL, &action) == 0 &&
             (action.sa_handler == SIG_IGN || (action.sa_flags & SA_NOCLDWAIT)))
        wrong = "the program ignores SIGCHLD, so that the linker's end cannot be waited for";
    else if (!limits_serve())
        wrong = "a limit is too low (files, file size or memory; see ulimit -a)";
    else if (!may_start_process())
        wrong = "no process can be started";
    if (wrong)
        snprintf(why + begin, n - begin, "%s", wrong);
    return !wrong;
}
