/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef FORK_LIVE_H
#define FORK_LIVE_H

/*
 * Who still sees frozen frames: fork_live.c tells how that is known.
 *
 * => the library is closed by a fork (fork.c), or the pageout daemon calls: never both
 */

#include <stdbool.h>
#include <stdint.h>

/*
 * A child is about to be made: freeze the frames that are used.
 * => 0, or -errno and nothing has happened
 */
int fork_live_begin(void);
/* In the parent, when there is a child, or could not be. */
void fork_live_parent(bool failed);
/* In the child: nobody sees what is its own.  And at the end: who sees ours keeps it without us. */
void fork_live_forget(void);
/*
 * Thaw what nobody sees any more.  To be called again after so many nanoseconds.
 */
int64_t fork_live_tend(void);

#endif
