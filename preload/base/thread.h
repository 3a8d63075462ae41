/* Threads of ours. They take no signals, which are for the program's own, but those that tell of a crash: the program's
 * handlers shall see that. */
#ifndef GEMS_THREAD_H
#define GEMS_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* Starts fn(arg) with a stack of so many bytes (0: as the process has them). thread: for pthread_join; NULL: it ends by
 * itself. False: the system refuses. */
bool gems_thread_start(pthread_t *thread, size_t stack, void *(*fn)(void *), void *arg);

/* From now on the program's threads go before the calling one and those that it starts. */
void gems_thread_give_way(void);

#endif
