/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VNODE_PAGER_H
#define VNODE_PAGER_H

#include <stdbool.h>

#include "vm_pager.h"

void vnode_init(void);
/* => nothing is mapped any more.  What could not be written until now is tried once more. */
void vnode_fini(void);

/*
 * The pager of the regular file that fd is open on, referenced (handle_put() it): the same one for
 * every descriptor of a file.  fd itself is not kept.  writable: it will be mapped shared, for writing.
 * direct: pages of this file go past the kernel's page cache from now on.  *may_write: fd is open for both.
 * => no lock held.  0, or
 *    -EBADF	fd is no descriptor that could be read
 *    -EACCES	no regular file; not open for reading; writable, and not open for that
 *    -EINVAL	direct, and the file cannot be opened so
 */
int vnode_open(int fd, bool writable, bool direct, struct vm_pager **, bool *may_write);

#endif
