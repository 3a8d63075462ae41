/* GEMS_CHECK=N: a call that we have done is done by the host, too, and what the two made is compared. The program gets
 * the host's results. Private to shim/. */
#ifndef GEMS_BOTH_H
#define GEMS_BOTH_H

#include "shim/decode.h"

/* What an in-place or out operator will overwrite, as it was before; functional operators: nothing. */
struct both_backup {
    void *bytes[GEMS_MAX_RESULTS];
};

/* Whether this thread is inside the host's turn of such a call: everything in it is the host's. */
bool gems_both_hosts_turn(void);
/* Before our turn: true if the call is to be compared, with the backup made. False, with nothing to free, if it is not,
 * or cannot be (out of memory, a list of results). */
bool gems_both_begin(const gems_call *call, struct both_backup *backup);
/* After it. `done`: takes our results out of the frame, puts what was overwritten back as it was, and gives the host
 * its turn, which gems_leave or gems_thrown ends; false if memory is out, then our results stand. Frees the backup. */
bool gems_both_keep(struct frame *f, struct both_backup *backup, bool done);

#endif
