/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_PAGEOUT_H
#define VM_PAGEOUT_H

/*
 * The pageout daemon.
 *
 *	        the policy: watch                         the policy: a victim
 *	[ ACTIVE ] --------------> [ INACTIVE: unmapped ] --------------------> freed
 *	     ^                              |        |                            ^
 *	     +------------------------------+        +---> [ LAUNDRY: busy ] -----+
 *	          touched: a soft fault             modified   written, untouched
 *
 * When free frames fall below free_min the daemon wakes, and works until free_target are free.  Which
 * pages are watched and which are victims is the policy's to say (vm_pdpolicy.h).  A
 * victim that is modified is written out, together with its neighbours, and freed when its pager has it,
 * unless somebody wants it by then.
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

/* There are freed frames again, which the daemon gives back to the kernel if nobody wants them (physmem_trim()). */
void vm_pageout_trim(void);

/*
 * Wait until there may be a frame.
 * => no lock held
 * => false: several passes over all pages freed nothing, no page is being written, and no pager is worth
 *    waiting for
 */
bool vm_wait(void);

/*
 * Wait until n frames are free beyond those that the daemon keeps so; others may be faster to take them.
 * => as vm_wait()
 */
bool vm_wait_frames(uint64_t n);

/*
 * Let the budget be so many frames.  To make it smaller takes as long as it takes to page out
 * what is too much.
 * => no lock held
 * => false: that cannot be; the budget is what it was
 */
bool vm_pageout_resize(uint64_t page_count);

void vm_pageout_published(void);		/* there is a page (vm_publish.h): the daemon looks after it */
uint64_t vm_pageout_laundry(void);		/* pages that are being written for the daemon */

/*
 * For fork() and the audit: stop the daemon where it has nothing in hand but transfers, and let it go on.
 * => it runs; the calling thread holds no lock
 */
void vm_pageout_hold(void);
void vm_pageout_go_on(void);
void vm_pageout_forked(void);			/* in a child: there is no thread any more */

#ifdef VMF_TESTING
/* It sleeps, unwoken, and no transfer of its is under way.  => nobody else is in the library */
bool vm_pageout_rests(void);
#endif

#endif
