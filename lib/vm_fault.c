/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The page fault: Mach's vm_fault(), after 4.4BSD's vm_fault.c of 1992.
 *
 *	 entry --> first_object --> shadow --> ... --> shadow --> (zeros)
 *	             |  ^
 *	             |  copy: owed the old page before a write
 *	             first_m: our busy placeholder
 *
 *	lookup	  which object, which page, which rights; makes the shadow for a write
 *	walk	  down the chain to the first object that has the page: in memory, or in its pager;
 *		  or past the end: zeros
 *	cow	  found below, and it is a write: COPY UP into first_m
 *	push	  first_object has a copy that lacks the page: PUSH the old contents to it
 *	own	  a forked child sees the frame: copy the page to another
 *	relookup  the map was unlocked on the way: is all as it was?
 *	enter	  with every object from first_object to the page's locked: recheck what a copy
 *		  taken meanwhile could have changed, map the page and its neighbours
 *
 * INVARIANTS, through the whole of it (the seed's):
 *   1. We hold the lock of the object we look at, or a busy page in it, so that nobody else
 *	brings in the same page.
 *   2. A busy page is nobody else's: the pageout daemon passes it by.
 *   3. A busy placeholder stays in first_object the whole way down, lest another thread
 *	that comes behind us enter a page there first.
 *   4. paging_in_progress is raised on every object in which we have a busy page, and on
 *	first_object, so that collapse and termination keep off.
 *
 * No lock is held across a pager, a wait for frames, or a wait for a busy page.  Unlike the
 * seed, the objects' locks are held across pmap_enter(): ours cannot fault, and so the
 * decision that a page may be written and the entering of it are one step, which a copy or
 * snapshot of the object comes either before or after.
 *
 * What the seed got wrong is mended here: an I/O error is not a hole; the page is looked for
 * again after the pager; the map is not overwritten by its lookup; a copy taken between the
 * push and the entering is seen, as the state is examined again under the locks (the seed's only
 * witness was a bit on the page); frames that cannot come end the fault in bounded time.
 */

#include <string.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/lock.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "machdep.h"
#include "pmap.h"
#include "vm_cluster.h"
#include "vm_dense.h"
#include "vm_fault.h"
#include "vm_fault_state.h"
#include "vm_file.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_pageout.h"
#include "vm_pager.h"
#include "vm_trace.h"
#include "vm_view.h"
#include "vm_written.h"

vm_trace_fn *_Atomic vm_trace;

#define SOON_NS		50000		/* to spin for a page that is being read ahead */
#define AGAIN_NS	1000000		/* pause when a pager says AGAIN ... */
#define AGAIN_MAX	1000		/* ... this often */
#define FRAME_WAITS_MAX	100000		/* waits for frames that others got */

/*
 * Letting go
 */

static void
unlock_map(struct faultstate *fs)
{
	if (fs->lookup_valid) {
		krwlock_read_unlock(&fs->map->lock);
		fs->lookup_valid = false;
	}
}

/* Nobody needs m any more as far as we are concerned.  => its object locked */
static void
release_page(struct vm_page **m)
{
	vm_page_activate(*m);
	vm_page_wakeup(*m);
	*m = NULL;
}

static void
free_page(struct vm_page **m)
{
	vm_page_free(*m);
	*m = NULL;
}

/*
 * => fs->object is locked, and unlocked at return; fs->m is null or released already.
 * => everything but the reference on first_object is given back.
 */
static void
unlock_things(struct faultstate *fs)
{
	KASSERT(fs->m == NULL);
	if (fs->object != fs->first_object) {
		vm_object_pip_done(fs->object);
		vm_object_unlock(fs->object);
		vm_object_lock(fs->first_object);
	}
	if (fs->first_m != NULL)
		free_page(&fs->first_m);
	vm_object_pip_done(fs->first_object);
	vm_object_unlock(fs->first_object);
	fs->object = NULL;
	unlock_map(fs);
}

static void
unlock_and_deallocate(struct faultstate *fs)
{
	unlock_things(fs);
	vm_object_deallocate(fs->first_object);
	fs->first_object = NULL;
}

/* Wait until somebody is done with m, then start again.  => fs->object locked; so is m's object */
static enum kern_return
wait_busy(struct faultstate *fs, struct vm_page *m, struct vm_object *also)
{
	uint32_t ticket = event_prepare(m);
	bool soon = m->flags & PG_AHEAD;	/* that may be half-way already */

	m->flags |= PG_WANTED;
	if (also != NULL)
		vm_object_unlock(also);
	unlock_things(fs);
	vm_count(v_intrans);
	PROBE("vm_fault: wait for busy page");
	if (!soon || !event_spin(m, ticket, SOON_NS))
		(void)event_wait(m, ticket, EVENT_FOREVER);
	vm_object_deallocate(fs->first_object);
	fs->first_object = NULL;
	return KERN_RETRY;
}

/* Wait for a frame.  => nothing locked */
static enum kern_return
shortage(struct faultstate *fs)
{
	vm_count(v_frame_waits);
	/* It may also be memory for our own structures that there is none of; that nobody brings. */
	if (fs->frame_waits++ >= FRAME_WAITS_MAX)
		return KERN_RESOURCE_SHORTAGE;
	return vm_wait() ? KERN_RETRY : KERN_RESOURCE_SHORTAGE;
}

/* No frame: give everything back and wait for one.  => fs->object locked, fs->m released */
static enum kern_return
wait_frame(struct faultstate *fs)
{
	unlock_and_deallocate(fs);
	return shortage(fs);
}

/*
 * The stages
 */

static enum kern_return
fault_lookup(struct faultstate *fs)
{
	enum kern_return result;

	fs->m = fs->first_m = NULL;
	fs->depth = 0;
	fs->copied = fs->zeroed = false;
	fs->limit = UINT64_MAX;
	fs->hole_hi = 0;
	if (fs->map != NULL) {
		result = vm_map_lookup(fs->map, fs->va, fs->want, fs->flags & VM_FAULT_FORCE, &fs->entry, &fs->first_object,
		    &fs->first_pindex, &fs->prot, &fs->wired);
		if (result != KERN_SUCCESS)
			return result;
		fs->lookup_valid = true;
		fs->fault_type = fs->wired && (fs->flags & VM_FAULT_WIRE) ? fs->prot : fs->want;
	} else {
		fs->first_object = fs->given_object;
		fs->first_pindex = fs->given_pindex;
		fs->prot = VM_PROT_READ;
		fs->fault_type = fs->want;
	}
	vm_object_lock(fs->first_object);
	fs->first_object->ref_count++;
	vm_object_pip_add(fs->first_object);
	fs->object = fs->first_object;
	fs->pindex = fs->first_pindex;
	return KERN_SUCCESS;
}

/*
 * Ask the pager of fs->object for the page that fs->m is the placeholder of.
 * => object locked, so at return.
 * => SUCCESS: fs->m is filled; INVALID_ADDRESS: the pager has no such page, fs->m is as before.
 * => else: everything is given back.
 */
static enum kern_return
fault_getpages(struct faultstate *fs)
{
	struct vm_object *object = fs->object;
	struct vm_page *run[VM_PAGEIN_MAX];
	enum vm_pager_result rv;
	uint64_t offset = (uint64_t)fs->pindex + object->paging_offset, hole;
	uint32_t n, done = 0;

	if (!vm_page_give_frame(fs->m, PHYSMEM_OVERWRITE)) {
		if (fs->m == fs->first_m)
			fs->first_m = NULL;
		free_page(&fs->m);
		return wait_frame(fs);
	}
	n = vm_cluster_pagein(fs, run);
	fs->hole_puts = object->pager->nputs;
	vm_object_unlock(object);
	unlock_map(fs);

	PROBE("vm_fault: pager get");
	hole = vm_pager_hole(object->pager, offset);
	if (hole != 0) {
		physmem_zero(fs->m->pfn);
		rv = VM_PAGER_OK;
	} else {
		rv = vm_pager_get(object->pager, offset, run, n, &done);
	}
	PROBE("vm_fault: pager got");
	fs->limit = vm_object_limit(object);

	vm_object_lock(object);
	for (uint32_t i = 1; i < n; i++) {
		if (i < done) {
			run[i]->flags &= (uint16_t)~PG_FAKE;
			vm_page_activate(run[i]);
			vm_page_wakeup(run[i]);
			vm_count(v_clustered);
		} else {
			vm_page_free(run[i]);
		}
	}
	/* Pagers work on the pages they are given: a busy page cannot have gone. */
	KASSERT(vm_page_lookup(object, fs->pindex) == fs->m);
	if (rv == VM_PAGER_OK) {
		fs->m->flags &= (uint16_t)~(PG_FAKE | PG_MODIFIED);
		if (hole != 0) {
			fs->hole_hi = (vm_pindex_t)MIN(fs->pindex + hole, (uint64_t)object->size);
			fs->zeroed = object == fs->first_object;
			vm_count(v_zfod);
		}
		return KERN_SUCCESS;
	}
	if (rv == VM_PAGER_FAIL || (rv == VM_PAGER_BAD && object->internal))
		return KERN_INVALID_ADDRESS;

	free_page(&fs->m);
	if (object == fs->first_object)
		fs->first_m = NULL;
	unlock_and_deallocate(fs);
	if (rv == VM_PAGER_AGAIN && fs->pager_again++ < AGAIN_MAX) {
		uint32_t ticket = event_prepare(fs);

		(void)event_wait(fs, ticket, AGAIN_NS);
		return KERN_RETRY;
	}
	return rv == VM_PAGER_BAD ? KERN_MEMORY_BEYOND : KERN_MEMORY_ERROR;
}

/* Past the end of the chain: zeros, in first_object.  => object locked; first_object locked after */
static enum kern_return
fault_zerofill(struct faultstate *fs)
{
	if (fs->object != fs->first_object) {
		vm_object_pip_done(fs->object);
		vm_object_unlock(fs->object);
		fs->object = fs->first_object;
		fs->pindex = fs->first_pindex;
		vm_object_lock(fs->object);
	}
	fs->m = fs->first_m;
	fs->first_m = NULL;
	if (!vm_page_give_frame(fs->m, PHYSMEM_ZERO)) {
		free_page(&fs->m);
		return wait_frame(fs);
	}
	fs->m->flags &= (uint16_t)~PG_FAKE;
	if (fs->object->internal)
		fs->m->flags |= PG_MODIFIED;	/* nobody else has it */
	fs->zeroed = true;
	vm_count(v_zfod);
	return KERN_SUCCESS;
}

/*
 * The page is resident; but does its file still have it?  What is past the end of it now is thrown away.
 * => fs->m is busy; its object locked, so at return
 */
static enum kern_return
fault_check_limit(struct faultstate *fs)
{
	struct vm_object *object = fs->object;

	if (object->pager == NULL || object->pager->ops->limit == NULL)
		return KERN_SUCCESS;
	vm_object_unlock(object);
	unlock_map(fs);
	fs->limit = vm_object_limit(object);
	PROBE("vm_fault: asked for the end");
	vm_object_lock(object);
	if (fs->pindex < fs->limit || fs->m->wire_count != 0)
		return KERN_SUCCESS;
	vm_object_page_protect(fs->m, VM_PROT_NONE);
	free_page(&fs->m);
	unlock_and_deallocate(fs);
	return KERN_MEMORY_BEYOND;
}

/*
 * The page is in a private view.  Its mapping has what it needs; copies read the frame; for everybody else it
 * is brought home first.
 * => object locked; so at return, if SUCCESS.  Else everything is given back.
 */
static enum kern_return
fault_viewed(struct faultstate *fs)
{
	struct vm_object *object = fs->object;
	const struct vm_page *m = fs->m;
	vm_pindex_t pindex = fs->pindex;
	enum kern_return result = KERN_DONE;

	fs->m = NULL;
	if (!(fs->flags & VM_FAULT_WIRE) && vm_view_may_read(m, object != fs->first_object)) {
		fs->m = vm_page_lookup(object, pindex);
		return KERN_SUCCESS;
	}
	if (!(fs->flags & VM_FAULT_WIRE) && object == fs->first_object && fs->map != NULL && fs->io_buf == NULL &&
	    vm_view_serves(m, fs->want)) {
		unlock_and_deallocate(fs);
		return result;
	}
	if ((fs->flags & VM_FAULT_WIRE) && fs->map != NULL)
		pmap_view_avoid(fs->map->pmap, fs->va);
	object->ref_count++;
	unlock_and_deallocate(fs);
	PROBE("vm_fault: before bringing home");
	result = vm_view_home(object, pindex, pindex + 1);
	vm_object_deallocate(object);
	/* What may be written at once, as no copy needs it, will be. */
	if (fs->map != NULL && fs->io_buf == NULL && (pmap_extract(fs->map->pmap, fs->va) & PTE_W)) {
		fs->populate_va = fs->va - ((fs->va - fs->map->base) & (((vm_size_t)PMAP_LEAF_PAGES << PAGE_SHIFT) - 1));
		fs->populate_pages = PMAP_LEAF_PAGES;
		fs->populate_fresh = false;
	}
	return result == KERN_SUCCESS ? KERN_RETRY : result;
}

/*
 * The page has to be pushed to a copy, or its frame is frozen.  Can all of its leaf be pushed at once, or the kernel copy
 * it, a page at a time?  => as fault_push()
 */
static enum kern_return
fault_leaf(struct faultstate *fs)
{
	struct vm_object *c = vm_fault_copy_of(fs->first_object, fs->first_pindex);
	bool frozen = physmem_is_frozen(fs->m->pfn), done;

	if ((c == NULL && !frozen) || fs->map == NULL || !fs->lookup_valid || fs->io_buf != NULL || fs->wired || fs->ahead > 1 ||
	    (fs->flags & (VM_FAULT_WIRE | VM_FAULT_FORCE | VM_FAULT_THAW)) || !pmap_has_views() ||
	    (c != NULL && !vm_object_lock_try(c)))
		return KERN_SUCCESS;
	if (frozen)
		done = !pmap_view_avoided(fs->map->pmap, fs->va) && vm_view_open(fs, c);
	else
		done = vm_fault_copy_lacks(c, fs->first_pindex) && (vm_dense_push(fs, c) || vm_view_open(fs, c));
	if (c != NULL)
		vm_object_unlock(c);
	if (!done)
		return KERN_SUCCESS;
	release_page(&fs->m);
	unlock_and_deallocate(fs);
	return KERN_DONE;
}

/*
 * Down the chain until the page is found.
 * => SUCCESS: fs->m is busy, in fs->object, which is locked; first_m is our placeholder unless that is
 *    first_object.  Else everything is given back.
 */
static enum kern_return
fault_walk(struct faultstate *fs)
{
	enum kern_return result;

	for (;;) {
		struct vm_object *object = fs->object, *next;
		bool ask;

		fs->m = vm_page_lookup(object, fs->pindex);
		if (fs->m != NULL) {
			struct vm_page *m = fs->m;

			if (m->flags & PG_BUSY) {
				fs->m = NULL;
				return wait_busy(fs, m, NULL);
			}
			KASSERT(!(m->flags & PG_FAKE));
			if (vm_page_is_viewed(m)) {
				result = fault_viewed(fs);
				if (result != KERN_SUCCESS)
					return result;
			}
			m->flags |= PG_BUSY;
			vm_page_asked_for(m);
			vm_count(v_soft);
			return fault_check_limit(fs);
		}

		ask = object->pager != NULL &&
		    (!object->pager->ops->queryable || vm_object_paged_out(object, fs->pindex));
		if (ask || object == fs->first_object) {
			fs->m = vm_page_alloc_fake(object, fs->pindex);
			if (fs->m == NULL)
				return wait_frame(fs);
			if (object == fs->first_object)
				fs->first_m = fs->m;
		}
		if (ask) {
			result = fault_getpages(fs);
			if (result == KERN_SUCCESS && object == fs->first_object)
				fs->first_m = NULL;
			if (result != KERN_INVALID_ADDRESS)
				return result;
			if (object != fs->first_object)
				free_page(&fs->m);
		}
		fs->m = NULL;

		next = object->shadow;
		if (next == NULL)
			return fault_zerofill(fs);
		/* Lock the next object before unlocking this one: it must not collapse away. */
		fs->pindex += object->shadow_offset;
		vm_object_lock(next);
		if (object != fs->first_object)
			vm_object_pip_done(object);
		vm_object_unlock(object);
		fs->object = next;
		vm_object_pip_add(next);
		fs->depth++;
	}
}

/*
 * The page was found below.  For a write, and where the chain has become too long, it is copied up.
 * => SUCCESS: fs->object is locked and holds fs->m, busy
 */
static enum kern_return
fault_cow(struct faultstate *fs)
{
	bool write = fs->fault_type & VM_PROT_WRITE, framed;
	struct vm_object *below = fs->object;

	if (below == fs->first_object)
		return KERN_SUCCESS;
	if (!write && (fs->depth <= VM_CHAIN_MAX || fs->map == NULL))
		return KERN_SUCCESS;

	/* From top to bottom, as the lock order wants it: the old page, which is busy, waits for us. */
	vm_object_unlock(below);
	PROBE("vm_fault: before copying up");
	vm_object_lock(fs->first_object);
	framed = vm_page_give_frame(fs->first_m, PHYSMEM_OVERWRITE);
	vm_object_lock(below);
	if (!framed) {
		vm_object_unlock(fs->first_object);
		if (!write)
			return KERN_SUCCESS;		/* it was only to save time */
		release_page(&fs->m);
		return wait_frame(fs);
	}
	physmem_copy(fs->m->pfn, fs->first_m->pfn, 1);

	/*
	 * All that is mapped through first_object must lose the old page, for it is hidden now,
	 * and what is hidden must never be seen again.
	 */
	fs->first_m->flags = (uint16_t)((fs->first_m->flags & ~PG_FAKE) | PG_MODIFIED);
	vm_object_shoot(fs->first_object, fs->first_pindex, fs->m, fs->first_m);
	release_page(&fs->m);
	vm_object_pip_done(below);
	vm_object_unlock(below);
	vm_count(v_cow_faults);

	fs->m = fs->first_m;
	fs->first_m = NULL;
	fs->object = fs->first_object;
	fs->pindex = fs->first_pindex;
	fs->copied = true;
	fs->depth = 0;
	fs->hole_hi = 0;		/* that was below */

	/* Our own page in it is whole, so only other faults stand in the way of a collapse. */
	fs->object->paging_in_progress--;
	vm_object_collapse(fs->object);
	fs->object->paging_in_progress++;
	return KERN_SUCCESS;
}

/* Does copy object c lack page pindex of the object it copies?  => both locked */
bool
vm_fault_copy_lacks(struct vm_object *c, vm_pindex_t pindex)
{
	struct vm_page *m;

	pindex -= c->shadow_offset;
	m = vm_page_lookup(c, pindex);
	return (m == NULL || (m->flags & PG_FAKE)) && !vm_object_paged_out(c, pindex);
}

/* The copy that is owed page pindex before it is written, or null.  Not locked: may be dying. */
struct vm_object *
vm_fault_copy_of(const struct vm_object *object, vm_pindex_t pindex)
{
	struct vm_object *c = object->copy;

	return c != NULL && pindex >= c->shadow_offset && pindex - c->shadow_offset < c->size ? c : NULL;
}

bool
vm_fault_push_to(struct vm_object *c, vm_pindex_t at, struct vm_page *m, enum physmem_fill fill)
{
	struct vm_page *copy_m = vm_page_lookup(c, at);

	if (copy_m == NULL)
		copy_m = vm_page_alloc_fake(c, at);
	if (copy_m == NULL)
		return false;
	if (!vm_page_give_frame(copy_m, fill)) {
		vm_page_free(copy_m);
		return false;
	}
	physmem_copy(m->pfn, copy_m->pfn, 1);
	copy_m->flags = (uint16_t)((copy_m->flags & ~PG_FAKE) | PG_MODIFIED);
	/* Whoever saw our page through the copy must see the copy's own from now on. */
	vm_object_shoot(c, at, m, copy_m);
	vm_page_activate(copy_m);
	vm_page_wakeup(copy_m);
	vm_count(v_pushes);
	return true;
}

bool
vm_fault_push_page(struct vm_object *c, struct vm_page *m)
{
	return vm_fault_push_to(c, m->pindex - c->shadow_offset, m, PHYSMEM_OVERWRITE);
}

/*
 * Before a write to a page of first_object: its copy object gets the old contents.
 * => SUCCESS: nothing is owed at this moment; fs->object (first_object) is locked.
 */
static enum kern_return
fault_push(struct faultstate *fs)
{
	struct vm_object *object = fs->object, *c;

	KASSERT(object == fs->first_object);
	while ((c = vm_fault_copy_of(object, fs->pindex)) != NULL) {
		struct vm_page *copy_m;
		bool exists;

		/* The copy is above us in the lock order. */
		if (!vm_object_lock_try(c)) {
			vm_object_unlock(object);
			PROBE("vm_fault: copy object busy");
			sys_yield();
			vm_object_lock(object);
			continue;
		}
		copy_m = vm_page_lookup(c, fs->pindex - c->shadow_offset);
		if (c->ref_count == 0 || c == fs->told || (copy_m != NULL && !(copy_m->flags & PG_BUSY))) {
			vm_object_unlock(c);	/* nobody wants it, or it is there */
			return KERN_SUCCESS;
		}
		if (copy_m != NULL) {
			release_page(&fs->m);
			return wait_busy(fs, copy_m, c);
		}
		if (c->pager == NULL || c->pager->ops->queryable) {
			bool ok = vm_object_paged_out(c, fs->pindex - c->shadow_offset) ||
			    vm_fault_push_page(c, fs->m);

			vm_object_unlock(c);
			if (ok)
				return KERN_SUCCESS;
			release_page(&fs->m);
			return wait_frame(fs);
		}

		/*
		 * We have to ask a pager that may block.  The blank page goes in first: another
		 * thread could otherwise page it in, and then wait for our busy page while
		 * we wait for it.
		 */
		copy_m = vm_page_alloc_fake(c, fs->pindex - c->shadow_offset);
		if (copy_m == NULL) {
			vm_object_unlock(c);
			release_page(&fs->m);
			return wait_frame(fs);
		}
		c->ref_count++;
		vm_object_pip_add(c);
		vm_object_unlock(object);
		vm_object_unlock(c);
		unlock_map(fs);
		exists = vm_pager_has_page(c->pager, (uint64_t)copy_m->pindex + c->paging_offset);
		PROBE("vm_fault: asked the copy's pager");

		vm_object_lock(c);
		vm_object_lock(object);
		/*
		 * Meanwhile a newer copy may have come between the two, or everybody else may
		 * have lost interest in this one: look again from the start.
		 */
		if (exists || c->shadow != object || c->ref_count == 1) {
			vm_page_free(copy_m);
			copy_m = NULL;
		} else if (!vm_fault_push_page(c, fs->m)) {
			vm_object_pip_done(c);
			vm_object_unlock(object);
			vm_object_unlock(c);
			vm_object_deallocate(c);
			vm_object_lock(object);
			release_page(&fs->m);
			return wait_frame(fs);
		}
		vm_object_pip_done(c);
		vm_object_unlock(object);
		vm_object_unlock(c);
		/* What it has, it keeps as long as it lives: until the fault is over, by our reference. */
		if (exists) {
			struct vm_object *before = fs->told;

			fs->told = c;
			c = before;
		}
		if (c != NULL)
			vm_object_deallocate(c);
		vm_object_lock(object);
	}
	return KERN_SUCCESS;
}

/*
 * Before a write to a page of first_object: a forked child may see its frame.
 * => as fault_push()
 */
static enum kern_return
fault_own(struct faultstate *fs)
{
	if (likely(!physmem_is_frozen(fs->m->pfn)))
		return KERN_SUCCESS;
	if ((fs->flags & VM_FAULT_WIRE) && fs->map != NULL)
		pmap_view_avoid(fs->map->pmap, fs->va);
	if (vm_own_leaf(fs) || vm_page_own(fs->m))
		return KERN_SUCCESS;
	release_page(&fs->m);
	return wait_frame(fs);
}

/*
 * The map was unlocked: see whether it still says the same.  No write is asked for, so as not to make a
 * shadow here; if writing has become impossible, the page is entered without, and the next
 * fault sees to it.
 */
static enum kern_return
fault_relookup(struct faultstate *fs)
{
	struct vm_object *retry_object;
	vm_pindex_t retry_pindex;
	enum kern_return result;
	vm_prot_t retry_prot;
	bool same;

	if (fs->map == NULL || fs->lookup_valid)
		return KERN_SUCCESS;
	vm_object_unlock(fs->object);
	PROBE("vm_fault: before relookup");
	result = vm_map_lookup(fs->map, fs->va, fs->want & (vm_prot_t)~VM_PROT_WRITE,
	    fs->flags & VM_FAULT_FORCE, &fs->entry,
	    &retry_object, &retry_pindex, &retry_prot, &fs->wired);
	fs->lookup_valid = result == KERN_SUCCESS;
	same = result == KERN_SUCCESS && retry_object == fs->first_object &&
	    retry_pindex == fs->first_pindex;
	vm_object_lock(fs->object);
	if (!same) {
		release_page(&fs->m);
		unlock_and_deallocate(fs);
		return result == KERN_SUCCESS ? KERN_RETRY : result;
	}
	fs->prot &= retry_prot;
	if ((fs->fault_type & VM_PROT_WRITE) && !(fs->prot & VM_PROT_WRITE)) {
		/* What we prepared the page for cannot be: begin again, rather than return unwritable. */
		release_page(&fs->m);
		unlock_and_deallocate(fs);
		return KERN_RETRY;
	}
	return KERN_SUCCESS;
}

/* Lock the chain from first_object down to where the page is.  => fs->object locked, so after */
static void
lock_chain(struct faultstate *fs)
{
	struct vm_object *o = fs->first_object;

	if (fs->object == o)
		return;
	vm_object_unlock(fs->object);
	PROBE("vm_fault: before locking the chain");
	for (vm_object_lock(o); o != fs->object; o = o->shadow)
		vm_object_lock(o->shadow);
}

/* Unlock all of it but the page's own. */
static void
unlock_chain_above(struct faultstate *fs)
{
	struct vm_object *o = fs->first_object;

	while (o != fs->object) {
		struct vm_object *next = o->shadow;

		vm_object_unlock(o);
		o = next;
	}
}

/*
 * May the page, as it is and with the locks we hold, be written?  For a write fault everything that
 * stands in the way is named.
 * => SUCCESS, or RETRY: something is owed or a cut is under way.
 */
static enum kern_return
may_write(struct faultstate *fs)
{
	struct vm_object *c;
	bool lacks;

	if ((fs->object->flags & OBJ_CUT) && !(fs->flags & VM_FAULT_THAW))
		return KERN_RETRY;
	c = vm_fault_copy_of(fs->object, fs->pindex);
	if (c == NULL)
		return KERN_SUCCESS;
	if (!vm_object_lock_try(c))
		return KERN_RETRY;
	lacks = c->ref_count != 0 && c != fs->told && vm_fault_copy_lacks(c, fs->pindex);
	vm_object_unlock(c);
	return lacks ? KERN_RETRY : KERN_SUCCESS;
}

/* Wait until the cut that first_object is part of is complete.  => object locked */
static enum kern_return
wait_cut(struct faultstate *fs)
{
	const void *chan = &fs->first_object->flags;
	uint32_t ticket;
	bool waiting;

	release_page(&fs->m);
	unlock_things(fs);
	vm_object_lock(fs->first_object);
	ticket = event_prepare(chan);
	waiting = fs->first_object->flags & (OBJ_CUT | OBJ_FROZEN);
	vm_object_unlock(fs->first_object);
	PROBE("vm_fault: wait for a cut");
	if (waiting)
		(void)event_wait(chan, ticket, EVENT_FOREVER);
	vm_object_deallocate(fs->first_object);
	fs->first_object = NULL;
	return KERN_RETRY;
}

/* Set the page's pte, and its neighbours'.  => the chain is locked */
static enum kern_return
enter_pmap(struct faultstate *fs, bool writable)
{
	struct pmap *pmap = fs->map->pmap;
	struct vm_cluster cl;
	enum kern_return result;
	unsigned rights = fs->prot & (writable ? PTE_PROT : PTE_R | PTE_X);
	bool parked;
	pt_entry_t old = pmap_look(pmap, fs->va, &parked);
	bool wire = (fs->flags & VM_FAULT_WIRE) && !(old & PTE_WIRED);

	fs->m->flags |= PG_REFERENCED;
	vm_cluster_start(fs, &cl, PTE_MAKE(fs->m->pfn, rights | (old & PTE_WIRED) |
	    (wire ? PTE_WIRED : 0)), parked);
	vm_cluster_gather(fs, &cl, writable);
	result = vm_cluster_enter(fs, &cl);
	if (result == KERN_SUCCESS && wire)
		vm_page_wire(fs->m);
	return result;
}

/* Move bytes instead of mapping the page.  => the chain is locked */
static void
enter_io(struct faultstate *fs)
{
	char *p = window_map(fs->io_write ? WINDOW_TARGET : WINDOW_SOURCE, fs->m->pfn, 1);

	if (fs->io_write)
		memcpy(p + fs->io_off, fs->io_buf, fs->io_len);
	else
		memcpy(fs->io_buf, p + fs->io_off, fs->io_len);
	window_unmap(p);
}

/* The last stage.  Everything is given back, whatever the result. */
static enum kern_return
fault_enter(struct faultstate *fs)
{
	bool write = fs->fault_type & VM_PROT_WRITE, writable = false;
	vm_trace_fn *trace = atomic_load_explicit(&vm_trace, memory_order_relaxed);
	enum kern_return result = KERN_SUCCESS;

	lock_chain(fs);
	if ((fs->first_object->flags & OBJ_FROZEN) && !(fs->flags & VM_FAULT_THAW)) {
		unlock_chain_above(fs);
		return wait_cut(fs);
	}
	if (write) {
		KASSERT(fs->object == fs->first_object);
		while ((result = may_write(fs)) != KERN_SUCCESS) {
			if ((fs->object->flags & OBJ_CUT) && !(fs->flags & VM_FAULT_THAW))
				return wait_cut(fs);
			result = fault_push(fs);
			if (result == KERN_SUCCESS)
				result = fault_own(fs);
			if (result == KERN_SUCCESS)
				result = fault_relookup(fs);
			if (result != KERN_SUCCESS)
				return result;
		}
		vm_written_modify(fs->m);
		writable = true;
	} else if (fs->object == fs->first_object && (fs->m->flags & PG_MODIFIED) &&
	    (fs->prot & VM_PROT_WRITE)) {
		/* It is modified already: save the fault that a write would take. */
		writable = !vm_written_would(fs->m) && !physmem_is_frozen(fs->m->pfn) && may_write(fs) == KERN_SUCCESS;
	}

	if (fs->io_buf != NULL)
		enter_io(fs);
	else
		result = enter_pmap(fs, writable);
	if (unlikely(trace != NULL))
		trace(fs->object, fs->pindex, write);

	unlock_chain_above(fs);
	release_page(&fs->m);
	unlock_and_deallocate(fs);
	return result;
}

/* The driver: the stages in their order, until one says how it ended. */
static enum kern_return
fault(struct faultstate *fs)
{
	enum kern_return result;

	vm_count(v_vm_faults);
	for (;;) {
		result = fault_lookup(fs);
		if (result == KERN_SUCCESS)
			result = fault_walk(fs);
		else if (result == KERN_RESOURCE_SHORTAGE)
			result = shortage(fs);
		if (result == KERN_SUCCESS)
			result = fault_cow(fs);
		if (result == KERN_SUCCESS && (fs->fault_type & VM_PROT_WRITE))
			result = fault_leaf(fs);
		if (result == KERN_SUCCESS && (fs->fault_type & VM_PROT_WRITE))
			result = fault_push(fs);
		if (result == KERN_SUCCESS && (fs->fault_type & VM_PROT_WRITE))
			result = fault_own(fs);
		if (result == KERN_SUCCESS)
			result = fault_relookup(fs);
		if (result == KERN_SUCCESS)
			result = fault_enter(fs);
		if (fs->told != NULL)
			vm_object_deallocate(fs->told);
		fs->told = NULL;
		vm_cluster_populate(fs);
		vm_readahead_run(&fs->readahead);
		if (result != KERN_RETRY)
			return result == KERN_DONE ? KERN_SUCCESS : result;
		vm_count(v_restarts);
	}
}

enum kern_return
vm_fault(struct vm_map *map, vm_offset_t va, vm_prot_t fault_type, unsigned flags)
{
	struct faultstate fs = {
		.map = map, .va = va, .want = fault_type, .flags = flags
	};

	return fault(&fs);
}

enum kern_return
vm_fault_ahead(struct vm_map *map, vm_offset_t va, vm_prot_t fault_type, uint32_t npages)
{
	struct faultstate fs = {
		.map = map, .va = va, .want = fault_type, .ahead = npages
	};

	return fault(&fs);
}

enum kern_return
vm_fault_io(struct vm_map *map, vm_offset_t va, size_t off, void *buf, size_t len, bool write,
    unsigned flags)
{
	struct faultstate fs = {
		.map = map, .va = va, .want = write ? VM_PROT_WRITE : VM_PROT_READ,
		.flags = flags, .io_buf = buf, .io_off = off, .io_len = len, .io_write = write
	};

	return fault(&fs);
}

enum kern_return
vm_fault_read_object(struct vm_object *object, vm_pindex_t pindex, size_t off, void *buf, size_t len)
{
	struct faultstate fs = {
		.given_object = object, .given_pindex = pindex, .want = VM_PROT_READ,
		.io_buf = buf, .io_off = off, .io_len = len
	};

	return fault(&fs);
}
