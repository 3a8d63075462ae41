/* Where lines go. A sink is an open file and what it was when it was opened, so that we notice if the program closed
 * our descriptor behind our back and its number now means another file. Sinks are never freed: there are a few a
 * process. */
#include "preload/base/log.h"
#include "preload/base/hash.h"
#include "preload/base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "gems-preload: "

enum {
    LINE_MAX_BYTES = 1024, /* of a message */
    MESSAGES_MAX = 500,    /* lines a process */
    FIRST_FD = 200         /* out of the way of programs that expect the lowest numbers */
};

typedef struct sink {
    int fd; /* -1: could not be opened, which has been said */
    pid_t pid;
    dev_t dev;
    ino_t ino;
    bool regular;
} sink;

static struct {
    _Atomic(const char *) file;
    atomic_bool once;
} target;

void gems_log_to(const char *file, bool once)
{
    target.once = once;
    target.file = file;
}

/* ---- a set of texts, remembered by hash ---- */

typedef struct text_set {
    _Atomic uint64_t *slots;
    size_t count; /* a power of two */
    _Atomic size_t used;
} text_set;

static _Atomic uint64_t message_slots[1024], call_slots[1 << 16];
static text_set messages = {message_slots, 1024, 0}, calls = {call_slots, 1 << 16, 0};

typedef enum seen {
    SEEN_NEW,
    SEEN_BEFORE,
    SEEN_FULL
} seen;

/* Adds a text. FULL at three quarters: then nothing new is taken. */
static seen remember(text_set *set, const char *text)
{
    uint64_t h = gems_hash_text(GEMS_HASH_START, text);
    h += h == 0; /* 0 is a free slot */
    for (size_t i = h & (set->count - 1);; i = (i + 1) & (set->count - 1)) {
        uint64_t found = atomic_load_explicit(&set->slots[i], memory_order_relaxed);
        if (found == 0) {
            if (atomic_load_explicit(&set->used, memory_order_relaxed) >= set->count / 4 * 3)
                return SEEN_FULL;
            if (atomic_compare_exchange_strong(&set->slots[i], &found, h)) {
                atomic_fetch_add(&set->used, 1);
                return SEEN_NEW;
            }
        }
        if (found == h)
            return SEEN_BEFORE;
    }
}

/* ---- writing ---- */

/* Writes all of it. False on an error. */
static bool write_all(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        bytes += done;
        n -= (size_t)done;
    }
    return true;
}

/* The same where the reader may have gone: SIGPIPE must not reach the program on our account. */
static bool write_quietly(int fd, const char *bytes, size_t n)
{
    sigset_t pipe_only, before, pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    bool was_pending = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    bool ok = write_all(fd, bytes, n);
    int error = errno;
    if (!ok && error == EPIPE && !was_pending)
        sigtimedwait(&pipe_only, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return ok;
}

/* One line on stderr, once a process, about the log file itself. */
static void say_trouble(const char *path, const char *what, int error)
{
    static atomic_bool said;
    if (atomic_exchange(&said, true))
        return;
    char line[LINE_MAX_BYTES];
    int n = snprintf(line, sizeof line, PREFIX "GEMS_LOG: cannot %s %.400s: %s\n", what, path, strerror(error));
    write_quietly(STDERR_FILENO, line, (size_t)n);
}

/* `pattern` with the process id for each %p. */
static void expand_path(const char *pattern, pid_t pid, char *path, size_t size)
{
    size_t n = 0;
    for (const char *c = pattern; *c && n + 12 < size; c++) {
        if (c[0] == '%' && c[1] == 'p') {
            n += (size_t)snprintf(path + n, size - n, "%ld", (long)pid);
            c++;
        } else {
            path[n++] = *c;
        }
    }
    path[n] = 0;
}

/* Opens the log for process `pid`; the sink's fd is -1 if that fails. */
static sink open_sink(const char *pattern, pid_t pid)
{
    sink s = {.fd = -1, .pid = pid};
    char path[4096];
    expand_path(pattern, pid, path, sizeof path);
    /* The program's own streams are not opened anew: writes would not know of each other and overwrite. */
    int stream = strcmp(path, "/dev/stdout") == 0   ? STDOUT_FILENO
                 : strcmp(path, "/dev/stderr") == 0 ? STDERR_FILENO
                                                    : -1;
    /* O_NONBLOCK for the opening alone: a named pipe without a reader is an error, not a wait. */
    int fd = stream >= 0 ? fcntl(stream, F_DUPFD_CLOEXEC, FIRST_FD)
                         : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        say_trouble(path, "open", errno);
        if (fd >= 0)
            close(fd);
        return s;
    }
    int high = fd < FIRST_FD ? fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD) : -1;
    if (high >= 0) {
        close(fd);
        fd = high;
    }
    if (stream < 0)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    s.fd = fd;
    s.dev = st.st_dev;
    s.ino = st.st_ino;
    s.regular = S_ISREG(st.st_mode);
    return s;
}

static bool is_ours(const sink *s)
{
    struct stat st;
    return fstat(s->fd, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino;
}

/* The log as it should be now: opened on first use; again after a fork if its name has the process id, and if the
 * program closed it. NULL if there is none. */
static const sink *current_sink(const char *pattern)
{
    static _Atomic(sink *) current;
    sink *old = atomic_load(&current);
    pid_t pid = getpid();
    if (old && old->pid == pid && (old->fd < 0 || is_ours(old)))
        return old->fd < 0 ? NULL : old;
    bool inherited = old && old->pid != pid && strstr(pattern, "%p") == NULL && old->fd >= 0 && is_ours(old);
    sink *fresh = malloc(sizeof *fresh);
    if (!fresh)
        return NULL;
    *fresh = inherited ? *old : open_sink(pattern, pid);
    fresh->pid = pid;
    if (!atomic_compare_exchange_strong(&current, &old, fresh)) {
        if (!inherited && fresh->fd >= 0)
            close(fresh->fd);
        free(fresh);
        fresh = atomic_load(&current);
    } else if (!inherited && old && old->fd >= 0 && is_ours(old)) {
        close(old->fd); /* the parent's file, in a child that has its own now */
    }
    return fresh->fd < 0 ? NULL : fresh;
}

/* Writes a line to the log. False if there is none or it cannot be written. */
static bool write_log(const char *line, size_t n)
{
    const char *pattern = target.file;
    const sink *s = pattern ? current_sink(pattern) : NULL;
    if (!s)
        return false;
    bool ok = s->regular ? write_all(s->fd, line, n) : write_quietly(s->fd, line, n);
    if (!ok)
        say_trouble(pattern, "write to", errno);
    return ok;
}

/* ---- messages ---- */

/* Which message of this process it is, from 0; MESSAGES_MAX and above if it is not to be written: too late, or a
 * repeat. */
static int admit(const char *line)
{
    static atomic_int count;
    return remember(&messages, line) == SEEN_NEW ? atomic_fetch_add(&count, 1) : MESSAGES_MAX;
}

static void say(bool always_stderr, const char *fmt, va_list args)
{
    int error = errno;
    char raw[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    gems_text said = gems_text_in(raw, sizeof raw), t = gems_text_in(line, sizeof line - 1);
    gems_text_put_list(&said, fmt, args);
    while (said.n && strchr("\n ", raw[said.n - 1]))
        raw[--said.n] = 0;
    gems_text_put(&t, PREFIX);
    gems_text_put_shown(&t, raw);
    int number = admit(line);
    if (number < MESSAGES_MAX) {
        if (number == MESSAGES_MAX - 1) { /* the last one */
            t = gems_text_in(line, sizeof line - 1);
            gems_text_put(&t, PREFIX "%d messages, further messages are left out", MESSAGES_MAX);
        }
        line[t.n++] = '\n';
        if (!write_log(line, t.n) || always_stderr)
            write_quietly(STDERR_FILENO, line, t.n);
    }
    errno = error;
}

void gems_log(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say(false, fmt, args);
    va_end(args);
}

void gems_complain(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say(true, fmt, args);
    va_end(args);
}

/* ---- calls ---- */

bool gems_log_wants_calls(void)
{
    return target.file != NULL;
}

void gems_log_call(const char *line)
{
    if (!target.file)
        return;
    int error = errno;
    seen before = target.once ? remember(&calls, line) : SEEN_NEW;
    if (before == SEEN_FULL)
        gems_log("GEMS_LOG_ONCE: too many distinct lines, further ones are left out");
    if (before == SEEN_NEW) {
        char buffer[2048];
        gems_text t = gems_text_in(buffer, sizeof buffer - 1);
        gems_text_put_shown(&t, line);
        buffer[t.n++] = '\n';
        write_log(buffer, t.n);
    }
    errno = error;
}
