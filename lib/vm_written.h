/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_WRITTEN_H
#define VM_WRITTEN_H

/*
 * What has been written of an object since a snapshot was last rolled back to.
 *
 * THE CLAIM.  While o->written names a snapshot, each page i in [lo, hi) of the object that is NOT marked
 * PG_WRITTEN
 *	- has the bytes that the snapshot has there, and
 *	- is mapped writable nowhere, so that who writes it takes a fault;
 * and those that are marked are on a list, which a rollback follows instead of looking at all that was
 * ever pushed to a copy.  A page that no copy has counts as the snapshot's, and cannot be
 * writable anyway: it is owed.
 *
 * A page on the list may well be unchanged, but stays there, writable, as long as that seems to pay: it is
 * HOT.  What is marked and listed can only be too much, never too little:
 *	- whoever makes a page of the object writable, or writes to it, calls vm_written_add() first, with the
 *	  object locked; who would make it writable without being asked to, does not;
 *	- a marked page that leaves the object breaks the list, and the claim ends (vm_written_lost()): the next
 *	  rollback begins from what the copies have;
 *	- a newer copy, put between the object and the snapshot, changes nothing, for what the snapshot
 *	  shows stays the same;
 *	- pages of [lo, hi) are always covered by a copy, for the snapshot has one; it ends the claim when it
 *	  goes, and so does a copy that has all it needs and turns away from the object (vm_collapse.c).
 *
 * All of this is guarded by the object's lock.
 */

#include "vm_object.h"

/* => m's object is locked, so for all below */
void vm_written_link(struct vm_page *m);
void vm_written_lost(struct vm_page *m);	/* m leaves its object */

/* Would m, if it became writable, have to be listed first? */
static inline bool
vm_written_would(const struct vm_page *m)
{
	const struct vm_written *w = &m->object->written;

	return unlikely(w->snapshot != 0) && !(m->flags & PG_WRITTEN) &&
	    m->pindex >= w->lo && m->pindex < w->hi;
}

/* m is going to be written, or to be writable. */
static inline void
vm_written_add(struct vm_page *m)
{
	if (vm_written_would(m))
		vm_written_link(m);
}

/* m may be written, or as good as is. */
static inline void
vm_written_modify(struct vm_page *m)
{
	vm_written_add(m);
	m->flags = (uint16_t)((m->flags & ~(PG_FREE | PG_HOLE)) | PG_MODIFIED);
}

/* Is the claim about this snapshot, and about all of [lo, hi)? */
static inline bool
vm_written_covers(const struct vm_object *o, uint64_t snapshot, vm_pindex_t lo, vm_pindex_t hi)
{
	return o->written.snapshot == snapshot && o->written.lo <= lo && hi <= o->written.hi;
}

/*
 * Make the claim about [lo, hi), whatever it was about before; for the same snapshot it grows.  What
 * the objects from `top' (the snapshot's) down to o have is listed; or, with `equal', nothing of
 * [lo, hi), for these pages were just rolled back, and are not writable.
 * => all objects from top to o are locked; page i of o is page i - shift of top
 * => false: a page that would have to be listed is not resident; there is no claim
 */
bool vm_written_begin(struct vm_object *o, struct vm_object *top, vm_pindex_t shift, uint64_t snapshot,
    vm_pindex_t lo, vm_pindex_t hi, bool equal);
void vm_written_end(struct vm_object *o);

/* The listed page after m, or the first one (m null); null: no more. */
struct vm_page *vm_written_next(struct vm_object *o, const struct vm_page *m);
/* Strike the pages of [lo, hi) that are not HOT, and let nobody write them unseen.  => all are as the snapshot */
void vm_written_settle(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi);

#endif
