/* Messages for people: one prefix, one line each with control characters made visible, to stderr or the log file; and
 * the call log. Safe from any thread, after fork and before start-up; errno is kept. No locks: a line is one write to a
 * file opened for appending. */
#ifndef GEMS_LOG_H
#define GEMS_LOG_H

#include <stdbool.h>

/* Where the log goes (GEMS_LOG): a file, opened on first use; %p in its name becomes the process id. NULL, as at start:
 * there is none. `once`: each distinct line about a call is written once (GEMS_LOG_ONCE). The text is not copied. */
void gems_log_to(const char *file, bool once);
/* A fact worth one line (a fork, a quarantined kernel, a bad variable). Repeats of the same text are dropped and the
 * number of lines is capped. Goes to the log if there is one, else to stderr. */
void gems_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Like gems_log, but always to stderr as well: what the user must see (a value that makes no sense, GEMS_STRICT). */
void gems_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* True if calls are to be logged: ask before formatting a line. */
bool gems_log_wants_calls(void);
/* One line (without newline) about one call, to the log. */
void gems_log_call(const char *line);

#endif
