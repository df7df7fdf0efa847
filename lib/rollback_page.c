/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Rolling pages back, frame to frame, and learning which of them are worth staying writable.
 *
 *	top -> ... -> copy -> o		top: the snapshot's object; the first from there down that has the
 *					page has the bytes; o's own page gets them
 *
 * That is all there is to it where both pages are in memory, nobody is busy with them, and o's newest copy,
 * which may belong to a later snapshot, has what it is owed.  Else a fault does it.
 *
 * THE LIFE OF A PAGE under a snapshot that is rolled back to again and again:
 *
 *	      write: a trap              written in this rollback and in the last
 *	COLD ----------------> written ------------------------------------------> HOT
 *	  ^                       | not so                                          |
 *	  +-----------------------+-------------------------------------------------+
 *	                             unwritten in IDLE_MOST rollbacks
 *
 * A cold page may only be read, and costs a rollback nothing.  A hot one can be written at any time: no trap, no
 * system call, but each rollback compares it.  To compare is some twenty times cheaper than to trap
 * and to be protected again, so a hot page may be idle for a while.
 */

#include <string.h>

#include "kern/assert.h"
#include "machdep.h"
#include "pmap.h"
#include "rollback_page.h"
#include "vm_fault_state.h"
#include "vm_pager.h"
#include "vm_written.h"

#define IDLE_MOST	7u		/* what PG_AGE can count to */
#define ENTER_MAX	16u		/* pages that are entered at once */

bool
chain_lock(const struct chain *ch)
{
	struct vm_object *o = ch->top, *above = NULL;
	vm_pindex_t shift = 0;
	uint32_t depth = 0;

	vm_object_lock(o);
	while (o != ch->o && o->shadow != NULL && depth++ < VM_CHAIN_MAX) {
		vm_object_lock(o->shadow);
		shift += o->shadow_offset;
		above = o;
		o = o->shadow;
	}
	/* What o owes, and to whom, must be seen. */
	if (o == ch->o && above != NULL && shift == ch->shift && o->copy == above)
		return true;
	for (struct vm_object *c = ch->top, *next; c != o; c = next) {
		next = c->shadow;
		vm_object_unlock(c);
	}
	vm_object_unlock(o);
	return false;
}

void
chain_unlock(const struct chain *ch)
{
	for (struct vm_object *c = ch->top, *next; c != ch->o; c = next) {
		next = c->shadow;
		vm_object_unlock(c);
	}
	vm_object_unlock(ch->o);
}

/* What the snapshot has of page i of o; null: not in memory, or somebody is busy with it. */
static struct vm_page *
source(const struct chain *ch, vm_pindex_t i)
{
	vm_pindex_t at = i - ch->shift;

	for (struct vm_object *c = ch->top; c != ch->o; at += c->shadow_offset, c = c->shadow) {
		struct vm_page *m = vm_page_lookup(c, at);

		if (m != NULL)
			return m->flags & (PG_BUSY | PG_FAKE) ? NULL : m;
		if (c->pager != NULL && (!c->pager->ops->queryable || vm_object_paged_out(c, at)))
			return NULL;
	}
	return NULL;
}

/* o's own page i, if it is free to be written. */
static struct vm_page *
target(const struct chain *ch, vm_pindex_t i)
{
	struct vm_page *m = vm_page_lookup(ch->o, i);
	struct vm_object *c = vm_fault_copy_of(ch->o, i);

	if (m == NULL || (m->flags & (PG_BUSY | PG_FAKE)) || m->wire_count != 0 ||
	    (c != NULL && c->ref_count != 0 && vm_fault_copy_lacks(c, i)))
		return NULL;
	return m;
}

static bool
copy_if_differs(struct vm_page *from, struct vm_page *to)
{
	void *p = window_map(WINDOW_SOURCE, from->pfn, 1), *q = window_map(WINDOW_TARGET, to->pfn, 1);
	bool differs = memcmp(p, q, PAGE_SIZE) != 0;

	if (differs)
		memcpy(q, p, PAGE_SIZE);
	window_unmap(q);
	window_unmap(p);
	return differs;
}

/* Page m was found written, or not, by this rollback. */
static void
learn(struct vm_page *m, bool written)
{
	unsigned now = m->object->written.rollbacks, last = now > 1 ? now - 1 : IDLE_MOST;
	unsigned age = (m->flags & PG_AGE) >> PG_AGE_SHIFT;
	bool hot = m->flags & PG_HOT;

	if (hot && !written && age == IDLE_MOST) {
		hot = false;
		age = 0;
	} else if (hot) {
		age = written ? 0 : age + 1;
	} else if (written) {
		hot = age == last;
		age = hot ? 0 : now;
	}
	m->flags &= (uint16_t)~(PG_HOT | PG_AGE);
	m->flags |= (uint16_t)((hot ? PG_HOT : 0u) | age << PG_AGE_SHIFT);
}

bool
chain_copy_back(const struct chain *ch, vm_pindex_t i, bool really)
{
	struct vm_page *from = source(ch, i), *to = target(ch, i);
	bool written;

	if (from == NULL || to == NULL)
		return false;
	if (!really)
		return true;
	if (physmem_is_frozen(to->pfn) && !vm_page_own(to))
		return false;
	written = copy_if_differs(from, to);
	if (written)
		to->flags = (uint16_t)((to->flags & ~(PG_FREE | PG_HOLE)) | PG_MODIFIED);
	if (to->flags & PG_WRITTEN)
		learn(to, written);
	/* It is touched by nobody but us, and yet is wanted in memory. */
	from->flags |= PG_REFERENCED;
	vm_page_activate(from);
	return true;
}

void
chain_enter_hot(const struct chain *ch, struct vm_map *map, const struct vm_map_entry *e, vm_offset_t va,
    uint32_t n)
{
	vm_pindex_t i = entry_pindex(e, va);
	pt_entry_t pte[ENTER_MAX];
	uint32_t entered;

	if (e->map.object != ch->o || !(e->protection & VM_PROT_WRITE))
		return;
	for (uint32_t k = 0, run; k < n; k += run + 1) {
		for (run = 0; k + run < n && run < ENTER_MAX; run++) {
			struct vm_page *m = target(ch, i + k + run);

			if (m == NULL || (m->flags & (PG_WRITTEN | PG_HOT | PG_MODIFIED)) !=
			    (PG_WRITTEN | PG_HOT | PG_MODIFIED) || physmem_is_frozen(m->pfn))
				break;
			m->flags |= PG_REFERENCED;
			pte[run] = PTE_MAKE(m->pfn, e->protection);
		}
		if (run == 0)
			continue;
		/* What cannot be entered takes a fault. */
		(void)pmap_enter(map->pmap, va + ((vm_offset_t)k << PAGE_SHIFT), run, pte, 0, 0, 0, 0, &entered);
		run -= run == ENTER_MAX;
	}
}
