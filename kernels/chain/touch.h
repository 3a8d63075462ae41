/* Whoever touches a block that is not home faults. The fault is handed to a service thread, which makes the page
 * accessible; then the instruction is tried again. A handler of signals could not do it itself: it would have to run
 * OpenCL in the middle of whatever was interrupted.
 *
 * The SIGSEGV handler is ours from gems_touch_start on, and the signal is never really blocked from then on. What the
 * program believes to have set is kept apart (signals.c), and followed where a fault is not ours. */
#ifndef GEMS_TOUCH_H
#define GEMS_TOUCH_H

#include <signal.h>
#include <stdbool.h>

/* Makes the page at an address of a block readable (and writable): true, also if it was already. False: there is
 * nothing of ours, it is a real fault. Called by the service thread, one call at a time. The faulting thread may hold
 * any lock of the program's, the loader's too: nothing here may wait for those. */
typedef bool gems_touch_serve(const void *address, bool write);

/* Installs the handler and starts the thread. False: not possible, then nothing may be hidden. Once: later calls only
 * answer. In a forked child there is no service thread, and faults are the program's: nothing may be hidden there. */
bool gems_touch_start(gems_touch_serve *serve);

/* ---- for the wrappers of libc's functions: what the program believes to have set ---- */

/* sigaction. caller: where the call comes from. What a driver of ours (LLVM in PoCL) sets for SIGSEGV is remembered
 * for it and never used: a crash of the program must not look as if LLVM were in it. */
int gems_signal_action(int sig, const struct sigaction *act, struct sigaction *old, const void *caller);
/* pthread_sigmask: 0 or the error. */
int gems_signal_mask(int how, const sigset_t *set, sigset_t *old);
/* The set to hand to a call that blocks signals for a while: `set`, or `copy` without SIGSEGV. */
const sigset_t *gems_signal_unblocked(const sigset_t *set, sigset_t *copy);

/* ---- between signals.c and touch.c ---- */

typedef void gems_signal_handler(int sig, siginfo_t *info, void *context);
/* Installs it for SIGSEGV for good; what was installed is the program's. */
bool gems_signal_install(gems_signal_handler *handler);
/* In the handler, with all signals blocked: what would have happened without us. May not return. */
void gems_signal_pass_on(int sig, siginfo_t *info, void *context);
/* All signals of the calling thread, those of libc's own too. */
void gems_signal_block_all(void);

#endif
