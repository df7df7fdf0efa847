/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef TRAP_H
#define TRAP_H

/*
 * From a signal to vm_fault and back, and the state a thread is in meanwhile.
 */

#include <signal.h>
#include <stdbool.h>

#include "kern/sys.h"

int trap_init(void);		/* take SIGSEGV and SIGBUS; 0 or -errno */
void trap_fini(void);		/* give them back, where they are still ours */

/*
 * A thread that is about to take locks of the library blocks its signals, and says that a fault from
 * now on is the library's own mistake.  Calls nest.
 */
void trap_enter(sys_sigset_t *old);
void trap_leave(const sys_sigset_t *old);

/*
 * For who puts traps of his own into code (the shim's gate): called for each SIGSEGV of the processor's that is no
 * page fault, wherever.  true: the handler returns to the context as it is now.  Null: nobody.  Set before
 * trap_init().
 */
extern bool (*trap_first)(void *context);

int trap_sigaction(int sig, const struct sigaction *, struct sigaction *);
int trap_thread_attach(void);
int trap_thread_detach(void);

#endif
