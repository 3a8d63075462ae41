/* Messages for people: one prefix, one line each, to stderr or GEMS_LOG. Safe from any thread and before start-up. */
#ifndef GEMS_LOG_H
#define GEMS_LOG_H

#include "kernels/call.h"

/* A fact worth one line (a fork, a quarantined kernel, a bad variable). Repeats of the same text are dropped and the
 * number of lines is capped. Goes to GEMS_LOG if set, else to stderr. */
void gems_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Like gems_log, but always to stderr as well: what the user must see (a value that makes no sense, GEMS_STRICT). */
void gems_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
