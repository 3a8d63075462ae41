#include "preload/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *gems_read(int fd, size_t max)
{
    size_t used = 0, room = 4096;
    char *text = malloc(room);
    while (text && used <= max) {
        if (room - used < 2) {
            char *more = realloc(text, room *= 2);
            if (!more)
                break;
            text = more;
        }
        ssize_t n = read(fd, text + used, room - used - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        if (n == 0) {
            text[used] = 0;
            return text;
        }
        used += (size_t)n;
    }
    free(text);
    return NULL;
}

char *gems_read_file(const char *path, size_t max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a named pipe must not make us wait */
    struct stat st;
    bool regular = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    char *text = regular ? gems_read(fd, max) : NULL;
    if (fd >= 0)
        close(fd);
    return text;
}

static bool say(gems_text *error, const char *path, int why)
{
    gems_text_put(error, "%.400s: %s", path, strerror(why));
    return false;
}

/* The folder in which the last part of a path stands, in `folder`; false if that is too long. */
static bool folder_of(const char *path, char *folder, size_t n)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    return snprintf(folder, n, "%.*s", length ? (int)length : 1, length ? path : ".") < (int)n;
}

bool gems_file_check_log(const char *path, gems_text *error)
{
    char folder[PATH_MAX];
    struct stat st;
    if (!strstr(path, "%p") && stat(path, &st) == 0)
        return S_ISDIR(st.st_mode)       ? say(error, path, EISDIR)
               : access(path, W_OK) != 0 ? say(error, path, errno)
                                         : true;
    if (!folder_of(path, folder, sizeof folder))
        return say(error, path, ENAMETOOLONG);
    return access(folder, W_OK | X_OK) == 0 || say(error, folder, errno);
}

bool gems_file_check_folder(const char *path, gems_text *error)
{
    char folder[PATH_MAX];
    struct stat st;
    if (stat(path, &st) == 0)
        return !S_ISDIR(st.st_mode)             ? say(error, path, ENOTDIR)
               : access(path, W_OK | X_OK) != 0 ? say(error, path, errno)
                                                : true;
    if (errno != ENOENT || !folder_of(path, folder, sizeof folder))
        return say(error, path, errno);
    if (strcmp(folder, path) == 0)
        return say(error, path, ENOENT);
    if (!gems_file_check_folder(folder, error))
        return false;
    /* Rights do not tell all (a file system may be read-only, or not be for files): so it is tried. */
    if (stat(folder, &st) == 0 && mkdir(path, 0700) != 0)
        return say(error, path, errno);
    rmdir(path);
    return true;
}
