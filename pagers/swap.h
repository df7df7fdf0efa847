/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SWAP_H
#define SWAP_H

/*
 * The default pager: pages of anonymous memory in a file or on a block device.
 *
 * A page that was put keeps its slot for as long as it is clean in memory; one that changes
 * gets another when it is put again.  Swap is therefore to be as large as all that may be paged out,
 * whether it is in memory at the moment or not.
 */

#include <stdbool.h>
#include <stdint.h>

struct vm_pager;

/*
 * path: a directory, for a file without a name in it; a file, or a block device; null: a file without a
 * name in $TMPDIR, or in /var/tmp.  size in bytes; 0: that of the file or device.  direct: past the
 * kernel's page cache.
 * => 0 or -errno
 */
int swap_init(const char *path, uint64_t size, bool direct);
void swap_fini(void);			/* => all pagers are gone */
/*
 * Before a fork: another file in the same directory, which holds what this one does; and in the child: that is
 * it from now on.  -1: there is no swap.  0 or -errno.  => no transfer is under way
 */
int swap_copy_all(int *fd);
void swap_forked_copy(int fd);
void swap_forked(void);			/* in a forked child, which has none of it */

/* For vm_default_pager_set(). */
struct vm_pager *swap_pager_make(uint64_t npages);

struct swap_counts {
	uint64_t size, used;		/* slots: pages */
	uint64_t errors;		/* writes that failed, and were or will be tried again */
};
void swap_counts(struct swap_counts *);	/* zeros where there is no swap */

#endif
