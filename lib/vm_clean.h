/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_CLEAN_H
#define VM_CLEAN_H

/*
 * Cleaning: modified pages go to their pager, in clusters, several of them at a time.
 *
 * Whoever cleans has a LAUNDRY: the places for the transfers it may have under way, and what is to be
 * done with pages that come back clean.
 */

#include <stdatomic.h>

#include "vm_object.h"
#include "vm_pager.h"

enum wash_state {
	WASH_FREE,
	WASH_SENT,		/* the pager has it */
	WASH_SHORT		/* the pager took a part; the rest, still busy, is to be sent again */
};

struct vm_wash {
	struct vm_pager_io io;
	struct vm_laundry *laundry;
	_Atomic int state;
	bool leave;			/* its pages go when they are written, unless somebody wants them */
	uint64_t sent_at;		/* sys_clock(); the laundry's owner's */
};

struct vm_laundry {
	struct vm_wash *wash;
	uint32_t nwashes;
	/*
	 * Null: whatever is not written yet is sent again, until the pager refuses it.  Else it stays
	 * modified, and each page that was written is shown to this, which may free it: true.
	 * => its object locked; busy by us
	 */
	bool (*evict)(struct vm_page *);
	_Atomic uint32_t sent;		/* washes that are not free */
	_Atomic uint32_t pages;		/* in them */
	_Atomic uint32_t lost;		/* pages that could not be written, ever; they stay, modified */
};

/*
 * Write the modified pages of [lo, hi) to the object's pager, and wait for that.
 * => no lock held; the object stays alive (referenced, or dying in our hands).
 * => KERN_MEMORY_ERROR: *lost pages could not be written; they stay, modified.
 */
enum kern_return vm_object_clean(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi, uint32_t *lost);

/*
 * Begin to write the modified pages of [lo, hi) and return, without waiting for anything: pages that are
 * busy are left out, and it stops where no more transfers may be under way (all callers have some in
 * common) or the pager cannot start one.  leave: nobody will want them again, as it seems; those that
 * nobody has asked for are freed once they are written.
 * => no lock held
 * => the page where it stopped; hi: all is on its way
 */
vm_pindex_t vm_object_clean_begin(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi, bool leave);
void vm_clean_fini(void);			/* wait for these */

/*
 * For the pageout daemon: begin to write the page, which is unmapped and modified, and those of its
 * neighbours that are inactive too.  Transfers end in their own time, by event_wake() of the laundry.
 * => the object is locked; unlocked at return.
 * => a wash is free
 */
void vm_object_launder(struct vm_laundry *, struct vm_page *);

/* Not now: the pager refused a write a short time ago.  => the object whose pager it is is locked */
bool vm_pager_backs_off(const struct vm_pager *);
/* It has refused so often that nobody should wait for it.  => ditto */
bool vm_pager_is_hopeless(const struct vm_pager *);

#endif
