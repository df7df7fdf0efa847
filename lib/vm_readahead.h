/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_READAHEAD_H
#define VM_READAHEAD_H

#include "vm_object.h"

struct faultstate;

/* What a fault finds should be done once it is over. */
struct vm_readahead {
	struct vm_object *object;	/* referenced; null: nothing */
	vm_pindex_t lo, hi;		/* pages of it to be read */
	vm_pindex_t behind_lo, behind_hi;	/* ... that were passed */
	vm_pindex_t lag;		/* what is dropped lies so far behind those */
	bool write_behind, unmap_behind, drop_behind;	/* what to do with them */
	bool advised;			/* the reader said that he is sequential */
};

/*
 * A fault is about to map the page at first_pindex, of a reader whose window is so many pages:
 * decide what he will want next.  => map and chain locked
 */
void vm_readahead_plan(struct faultstate *, vm_pindex_t window);
/* Start it, and let go of the object.  => no lock held */
void vm_readahead_run(struct vm_readahead *);

/*
 * Begin to read what is missing of pages [lo, hi), at most `max' of them.
 * => no lock held; the object is referenced.
 * => returns how many are being read
 */
uint32_t vm_readahead_start(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi, uint32_t max);

#endif
