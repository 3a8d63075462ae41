/* Messages for people: one prefix, one line each, to stderr or GEMS_LOG; and the call log. Safe from any thread, after
 * fork, before start-up and from inside the reading of the configuration; errno is kept. No locks: a line is one write
 * to a file opened for appending. */
#ifndef GEMS_LOG_H
#define GEMS_LOG_H

#include "kernels/call.h"

/* A fact worth one line (a fork, a quarantined kernel, a bad variable). Repeats of the same text are dropped and the
 * number of lines is capped. Goes to GEMS_LOG if set, else to stderr. */
void gems_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Like gems_log, but always to stderr as well: what the user must see (a value that makes no sense, GEMS_STRICT). */
void gems_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* True if calls are to be logged (GEMS_LOG is set): ask before formatting a line. */
bool gems_log_wants_calls(void);
/* One line (without newline) about one call, to GEMS_LOG. With GEMS_LOG_ONCE each distinct line is written once. */
void gems_log_call(const char *line);

#endif
