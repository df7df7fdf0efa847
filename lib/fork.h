/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef FORK_H
#define FORK_H

/*
 * fork() with a copy: the child has the memory as it was at the fork, and is a process of its own with
 * all of the library.  fork.c tells how.
 *
 * What a plain fork() leaves to the child is nothing (vm_init.c), unless fork_enable() was called.  Then
 *
 *	fork_prepare()		last before the clone: after whatever takes locks for it
 *	clone
 *	fork_parent()		in the parent, always, if fork_prepare() said 0
 *	fork_child()		in the child: first of all, if may be; at the latest its first touch of managed
 *				memory does it
 *	fork_child_threads()	in the child, where threads may be made again
 *
 * Users' pagers do not come along: their callbacks run on threads that the child has not.  A page that only such a pager
 * has raises SIGBUS there when the pager's deadline has passed; what is in memory or in swap is the child's own.
 *
 * Who can put this around the clone itself (the shim's gate) does so, and sets by_hand.  Else it hangs
 * on pthread_atfork(); then a failure can only be told by the child's being without memory.
 */

#include <stdbool.h>
#include <stdint.h>

/*
 * share: a child may share frames with its parent until one of them writes (else it gets a copy at once).
 * => the library runs, and no other thread of the program's.  0 or -errno
 */
int fork_enable(bool by_hand, bool share);
uint64_t fork_longest(void);		/* nanoseconds */
void fork_copy_only(void);		/* from now on no child shares frames */
bool fork_by_hand(void);

/*
 * Stop the library, make other threads wait that touch managed memory, and copy all of it.
 * => 0, or -errno and nothing has happened
 * => 0: all signals are blocked, and this thread alone can use the library, until fork_parent()
 */
int fork_prepare(void);
/* failed: there is no child */
void fork_parent(bool failed);
void fork_child(void);
/* => false: this is no child that has been given a copy */
bool fork_child_threads(void);

/*
 * [s, e) in the managed range is mapped by somebody else, over a region without rights: what a child
 * inherits there is the kernel's business.  on = false: not any more, nor any part of it.
 * => false: there are too many
 */
bool fork_spare(uintptr_t s, uintptr_t e, bool on);

/* trap.c: a thread comes into the library, with signals blocked, or leaves it. */
void fork_enter(void);
void fork_leave(void);

#endif
