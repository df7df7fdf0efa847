/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_CLUSTER_H
#define VM_CLUSTER_H

/*
 * One trap, many pages: what is entered, made, copied or paged in beside the page that
 * faulted.  Clusters change speed, never contents: whatever cannot be had at once is left out.
 */

#include "pmap.h"
#include "vm_fault_state.h"

#define VM_CLUSTER_MAX	256u	/* pages of a cluster: 1 MB; its ptes live on the handler's stack */
#define VM_CLUSTER_ROOM	(PMAP_LEAF_PAGES > VM_CLUSTER_MAX ? PMAP_LEAF_PAGES : VM_CLUSTER_MAX)	/* of a fresh leaf */
#define VM_PAGEIN_MAX	16u	/* pages of one pagein */

struct vm_cluster {
	vm_offset_t va;			/* of the first pte */
	vm_pindex_t lo, hi;		/* pages of first_object to look at */
	vm_pindex_t make_lo, make_hi;	/* pages that may be made or copied beside the fault's own */
	bool one_run;			/* mappings are short: only what will be in one with the fault's own */
	bool coarse;			/* pages were made that nobody may ever touch */
	bool whole;			/* of a leaf that nothing bounds all is made that is not there */
	uint32_t centre;		/* which pte is the fault's own */
	struct vm_page_row row;		/* frames for those that are made */
	struct vm_page *made[VM_CLUSTER_ROOM];	/* new ones, on no queue yet */
	uint32_t nmade;
	vm_pindex_t stride;		/* only pages at multiples of this from the centre are made */
	bool fresh;			/* zeros were made, for which the kernel may have no memory yet */
	pt_entry_t pte[VM_CLUSTER_ROOM];
};

/* Does the fault go on where the last one of its entry ended?  => map locked */
bool vm_cluster_follows(const struct faultstate *);
/* The last npages up to page `to' have been seen to.  => likewise */
void vm_cluster_went(struct faultstate *, vm_pindex_t to, uint32_t npages);

/*
 * Choose the window around the fault; the page itself will get `pte'.  parked: the pmap has forgotten all around
 * it.  => map and chain locked
 */
void vm_cluster_start(struct faultstate *, struct vm_cluster *, pt_entry_t pte, bool parked);
/* Fill in the neighbours.  writable: the page that faulted may be written. */
void vm_cluster_gather(struct faultstate *, struct vm_cluster *, bool writable);
enum kern_return vm_cluster_enter(struct faultstate *, struct vm_cluster *);

/*
 * The kernel's own page tables are empty yet where something was entered.  Of what is to be written it takes
 * one page with each fault, of what is to be read sixteen.  So one call does it all; to read will do where there
 * is memory, for reading what is shared gives the right to write as well.  What has changed meanwhile
 * is refused.  => no lock held
 */
void vm_cluster_populate(struct faultstate *);

/*
 * fs->m and pages that should be paged in with it: busy placeholders with frames, in a row.
 * => fs->object locked; returns how many, at least 1
 */
uint32_t vm_cluster_pagein(struct faultstate *, struct vm_page **run);

#endif
