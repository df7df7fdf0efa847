/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_PAGEOUT_H
#define VM_PAGEOUT_H

/*
 * The pageout daemon: Mach's two queues.
 *
 *	          activate                      reactivate: touched since
 *	new --> [ ACTIVE ] -- tail to head --> [ INACTIVE ] --> freed
 *	             ^                              |
 *	             +------------------------------+    modified: laundry first
 *
 * When free frames fall below free_min the daemon wakes, and works until free_target
 * are free: it moves pages from the active queue to the inactive one, unmapping them, so that a
 * touch is a soft fault that brings them back; what comes to the head of the inactive queue
 * untouched is written out if it is modified, and freed.
 *
 * Pages that cannot leave are passed by: wired, busy, and, as long as there is no default pager,
 * anonymous.  (Those that were only ever entered beside another and that the kernel has no memory
 * for are freed all the same: they are zeros.)
 */

#include <stdbool.h>
#include <stdint.h>

int vm_pageout_start(uint64_t page_count);	/* the thread; 0 or -errno */
void vm_pageout_stop(void);

/* Frames are getting few: wake the daemon.  Cheap. */
void vm_pageout_kick(void);

/*
 * Wait until there may be a frame.
 * => no lock held
 * => false: a whole pass over all pages freed nothing, and no page is being written
 */
bool vm_wait(void);

#endif
