/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef ROLLBACK_PAGE_H
#define ROLLBACK_PAGE_H

/*
 * Rollback of single pages, frame to frame: see rollback_page.c.
 */

#include "vm_map.h"
#include "vm_object.h"

/* From what a snapshot has of an object, and references, down to the object that is rolled back. */
struct chain {
	struct vm_object *top, *o;
	vm_pindex_t shift;		/* page i of o is page i - shift of top */
};

/* Lock all of it.  false: o is not below top at that place, or not to be rolled back so; nothing is locked */
bool chain_lock(const struct chain *);
void chain_unlock(const struct chain *);

/*
 * Make page i of o what the snapshot has; or, without `really', say whether that could be done.
 * => the chain is locked; whoever must not see it cannot
 * => false: it takes a fault's machinery
 */
bool chain_copy_back(const struct chain *, vm_pindex_t i, bool really);
/*
 * Let the hot pages among n from va on be written again without a fault.
 * => the entry's map is write-locked, the chain locked
 */
void chain_enter_hot(const struct chain *, struct vm_map *, const struct vm_map_entry *, vm_offset_t va,
    uint32_t n);

#endif
