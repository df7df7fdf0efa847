/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_FAULT_STATE_H
#define VM_FAULT_STATE_H

/*
 * What one fault knows: shared by the stages of vm_fault.c and by vm_cluster.c,
 * and by nobody else.  It lives on the stack of the faulting thread.
 */

#include "kern/types.h"
#include "pmap.h"
#include "vm_object.h"
#include "vm_readahead.h"

struct vm_map;
struct vm_map_entry;

struct faultstate {
	/* What is asked.  Without a map: page given_pindex of given_object, to be read. */
	struct vm_map *map;
	vm_offset_t va;
	vm_prot_t want;
	unsigned flags;			/* VM_FAULT_* */
	uint32_t ahead;			/* pages from this one on that are wanted too */
	struct vm_object *given_object;
	vm_pindex_t given_pindex;
	/* Instead of mapping the page: move bytes.  io_buf null: map it. */
	void *io_buf;
	size_t io_off, io_len;
	bool io_write;

	/* From the lookup. */
	struct vm_map_entry *entry;	/* while lookup_valid */
	bool lookup_valid;		/* the map is read-locked */
	bool wired;
	vm_prot_t prot;			/* what the mapping may get */
	vm_prot_t fault_type;		/* what it must get */
	struct vm_object *first_object;	/* referenced, paging_in_progress */
	vm_pindex_t first_pindex;
	struct vm_page *first_m;	/* our placeholder there, or null */

	/* Where we are. */
	struct vm_object *object;	/* paging_in_progress, too */
	vm_pindex_t pindex;
	struct vm_page *m;		/* busy by us, or null */
	uint32_t depth;			/* objects above this one */

	/* A copy whose pager, which had to be asked, has the page already; referenced, or null. */
	struct vm_object *told;

	/* How the page came to be: its neighbours may follow. */
	bool copied, zeroed;

	/* Pages of `object' that its pager has at the moment; those from here on are not entered. */
	uint64_t limit;
	/*
	 * From pindex to here `object' was a hole of its file when so many puts had begun; 0: not
	 * that we knew.
	 */
	vm_pindex_t hole_hi;
	uint32_t hole_puts;
	vm_offset_t populate_va;	/* what was entered: ... */
	uint32_t populate_pages;	/* ... more than a few pages, of which the kernel is to be told; */
	bool populate_fresh;		/* it may have no memory for some of them; */
	bool populate_whole;		/* ... and only if all of the leaf before has been touched */
	struct vm_readahead readahead;	/* to be done when all is over */

	uint32_t pager_again;		/* times that a pager said AGAIN ... */
	uint32_t frame_waits;		/* ... and that a frame was waited for */
};

/*
 * vm_own.c: if views have not been good for the leaf, copy all of its frozen frames before this page is written.
 * => first_object locked, fs->m busy, in it.  false: the page's frame is still frozen
 */
bool vm_own_leaf(struct faultstate *);

/*
 * Copy the page of an object into its copy c, which lacks it.
 * => both locked; m is busy or nobody can write it.  false: no frame; nothing changed.
 */
bool vm_fault_push_page(struct vm_object *c, struct vm_page *m);
/* Likewise, as page `at' of c. */
bool vm_fault_push_to(struct vm_object *c, vm_pindex_t at, struct vm_page *m, enum physmem_fill);
struct vm_object *vm_fault_copy_of(const struct vm_object *, vm_pindex_t);
bool vm_fault_copy_lacks(struct vm_object *c, vm_pindex_t);

#endif
