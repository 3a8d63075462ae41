/* The tables in force. A call holds them while it uses a rule of theirs; those that were replaced are freed when the
 * last call that holds them is done. */
#ifndef GEMS_TABLES_H
#define GEMS_TABLES_H

#include "tune/layers.h"

/* The table to ask, held by the calling thread until gems_tables_release; NULL if there is none yet. A few ns. */
const gems_table *gems_tables_hold(void);
void gems_tables_release(void);

/* For who makes changes, one thread at a time: the table in force, and another one instead, which is taken over. False,
 * and nothing is changed, if memory is out. */
const gems_table *gems_tables_current(void);
bool gems_tables_replace(gems_tables *next);
/* Locks may be held by threads that the child does not have. */
void gems_tables_after_fork_in_child(void);

#endif
