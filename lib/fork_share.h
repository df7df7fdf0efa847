/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef FORK_SHARE_H
#define FORK_SHARE_H

/*
 * The part of fork.c that shares frames instead of copying them: see fork_share.c.
 *
 * => the library is closed, and at rest; in the child, it is its only thread
 */

#include <stdbool.h>

bool fork_can_share(void);
/*
 * What children are to share with us for good (VMF_INHERIT_SHARE) comes to memory.  => the library is not closed
 * 0 or -errno
 */
int fork_share_fetch(void);
/* ... and is common from now on.  -EAGAIN: not all of it is there */
int fork_share_mark(void);
/* In the child, when it has threads: what it is not to have goes. */
void fork_share_none(void);
/*
 * What frames hold is going to be the child's as well.  *memory: where its own are going to be.
 * => 0, or -errno and nothing has happened
 */
int fork_share_prepare(int *memory);
/* Nobody may write any more: what can be written all the same stays ours. */
void fork_share_keep(void);
/* Is there memory that is written all the same?  Then the child has to copy it before anybody goes on. */
bool fork_share_is_written(void);
/* In the parent.  failed: there is no child */
void fork_share_parent(bool failed);
/* In the child: its own frames are in that memfd.  0 or -errno */
int fork_share_child(int memory);

#endif
