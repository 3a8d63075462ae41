/* The folder in which PoCL builds kernels, and from which it loads them: one of the process's own. Called by pocl.c.
 *
 * PoCL trusts whatever lies in its folder: a file that a full disk or a power cut has left too short ends every process
 * that loads it. So each process begins with an empty one, which nobody else uses. What is worth keeping is kept in our
 * cache (cache.c), with checksums; PoCL unpacks it here.
 *
 * It lies in our cache's folder, else where temporary files lie, and is removed when the process ends. The name holds
 * the process id, and the folder is locked while that process lives: so what a process that was killed has left is
 * found by the next one. */
#include "kernels/device/pocl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME "gems-pocl-" /* <process id>-<six letters> */

static char *mine;
static pid_t maker; /* a forked child has the path, too */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    (void)remove(path);
    return 0;
}

static void remove_all(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* PoCL's own exit handlers have run. A thread that is still building is left its folder. */
static void at_exit(void)
{
    if (mine && getpid() == maker && atomic_load(&gems_state_building) == 0)
        remove_all(mine);
}

/* Takes the folder for this process, by a lock that ends with it. The descriptor is kept. */
static bool lock(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &st) == 0 && st.st_nlink > 0)
        return true;
    close(fd);
    return false;
}

/* Removes what processes of ours have left that are no more: both the lock and the process are gone. (A process may
 * have closed all descriptors; one in another container may have the id of none here.) */
static void remove_left(const char *base)
{
    char path[4096];
    struct stat st;
    DIR *d = opendir(base);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, NAME, sizeof NAME - 1) != 0)
            continue;
        long pid = strtol(e->d_name + sizeof NAME - 1, NULL, 10);
        if (pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
            continue;
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
            (size_t)snprintf(path, sizeof path, "%s/%s", base, e->d_name) < sizeof path)
            remove_all(path);
        close(fd);
    }
    if (d)
        closedir(d);
}

static char *make_in(const char *base)
{
    char why[200], *path;
    if (!base || *base != '/' || !gems_pocl_folder_serves(base, why, sizeof why))
        return NULL;
    remove_left(base);
    for (int i = 0; i < 3; i++) { /* another process may have taken it for one that was left */
        if (asprintf(&path, "%s/" NAME "%ld-XXXXXX", base, (long)getpid()) < 0)
            return NULL;
        if (mkdtemp(path) && lock(path))
            return path;
        free(path);
    }
    return NULL;
}

const char *gems_pocl_folder(void)
{
    const char *bases[] = {gems_cache_dir(), secure_getenv("TMPDIR"), "/tmp", "/var/tmp"};
    if (mine)
        return mine;
    for (size_t i = 0; i < sizeof bases / sizeof *bases && !mine; i++)
        mine = make_in(bases[i]);
    maker = getpid();
    if (mine)
        atexit(at_exit);
    return mine;
}
