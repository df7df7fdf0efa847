/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_ALONE_H
#define KERN_ALONE_H

/*
 * Is the calling thread the only one of the program's?
 *
 * Then nobody sees what it does to memory until it is done with it, and nothing need be hidden.  The
 * kernel is asked how many threads the process has (/proc/self/task has a link for each; that is one
 * system call, below a microsecond).  The library's own do not count as far as they never touch managed
 * memory and never make another thread; those that run callbacks of the user's do.
 *
 * An answer of yes stays true until the caller itself makes a thread: nobody else is there who could.  Who
 * cannot be counted is taken for many.  Processes that share memory by a bare clone(CLONE_VM) are not
 * seen; a child of vfork() is none of these, for its parent stands still.
 */

#include <pthread.h>
#include <stdbool.h>

/*
 * Begin a thread of ours, with all signals blocked; 0 or -errno.  Wait for its end.
 *
 * The synchronous signals, too.  One that is sent to the process stands in a queue that any thread may take from which
 * looks there and has it open, and every change of its mask is such a look.  A thread of ours that takes it takes it
 * from a program that has one thread and kill()s itself: by POSIX the signal is delivered before kill() returns, and
 * in that thread.  The price is that a fault of ours in such a thread kills with no word; of managed
 * memory there is none, and system calls are made past libc, where the shim's gate may be a trap.
 * => it has begun, and blocks them.  When its function returns it is libc's, and does so no more
 */
int alone_thread(pthread_t *, void *(*)(void *));
void alone_join(pthread_t);
bool alone_is_ours(void);		/* the calling thread is one of these */
void alone_forked(void);		/* in a forked child: they have not come along */
int alone_number(void);			/* how many threads are ours */
/*
 * Wait until those that were made, by other threads, have begun: before that they are libc's, or a sanitizer's, and may have locks that a
 * forked child would find taken for ever.
 */
void alone_settle(void);
bool alone(void);

#endif
