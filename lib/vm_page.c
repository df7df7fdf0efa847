/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Resident pages: allocation, the busy protocol, and the queues.
 */

#include <string.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/lock.h"
#include "kern/slab.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_pageout.h"
#include "vm_pdpolicy.h"
#include "vm_view.h"
#include "vm_written.h"

const struct vm_pdpolicy *vm_page_policy = &vm_pdpolicy_warm;
struct kmutex vm_page_queue_lock;
uint64_t vm_page_active_count, vm_page_inactive_count, vm_page_wire_count;

static struct slab vm_page_slab;

void
vm_page_init(void)
{
	slab_init(&vm_page_slab, "vm_page", sizeof(struct vm_page), 8);
	kmutex_init(&vm_page_queue_lock, RANK_PAGEQ);
	vm_page_active_count = vm_page_inactive_count = vm_page_wire_count = 0;
	vm_page_policy->init();
}

void
vm_page_fini(void)
{
	vm_page_policy->fini();
	slab_fini(&vm_page_slab);
}

struct vm_page *
vm_page_lookup(struct vm_object *object, vm_pindex_t pindex)
{
	KASSERT(kmutex_held(&object->lock));
	return radix_lookup(&object->pages, pindex);
}

struct vm_page *
vm_page_alloc_fake(struct vm_object *object, vm_pindex_t pindex)
{
	struct vm_page *m;

	KASSERT(kmutex_held(&object->lock));
	KASSERT(pindex < object->size);
	m = slab_alloc(&vm_page_slab);
	if (m == NULL)
		return NULL;
	m->object = object;
	m->pindex = pindex;
	m->flags = PG_BUSY | PG_FAKE;
	if (radix_insert(&object->pages, pindex, m) != 0) {
		slab_free(&vm_page_slab, m);
		return NULL;
	}
	return m;
}

/* A frame for m: the next one of the row, or that of its home. */
static bool
give_frame(struct vm_page *m, enum physmem_fill fill, struct vm_page_row *row)
{
	vm_pfn_t home = 0;

	KASSERT(m->flags & PG_BUSY);
	if (physmem_is_low())
		vm_pageout_kick();
	if (m->pfn != 0) {
		if (fill == PHYSMEM_ZERO)
			physmem_zero(m->pfn);
		return true;
	}
	/* An object that is larger than all of memory cannot have its home full. */
	if (row->n == 0 && row->want > 1 && m->object->size > physmem_budget()) {
		row->n = physmem_recycle(row->want, &row->next);
		row->at_home = row->clean = row->zeros = false;
	}
	if (row->n == 0 || row->at_home)
		home = vm_object_home_frame(m->object, m->pindex);
	if (row->n != 0 && row->at_home && row->next != home)
		vm_page_row_end(row);
	if (row->n == 0 && row->want > 1) {
		row->n = physmem_alloc_row(home, row->want, &row->clean);
		row->next = home;
		row->at_home = true;
		row->zeros = row->clean;
		if (row->lazy && fill == PHYSMEM_ZERO && !row->zeros) {
			physmem_zero_row(home, row->n);
			row->zeros = true;
		}
	}
	row->want -= MIN(row->want, 1);
	if (row->n != 0) {
		m->pfn = row->next++;
		row->n--;
		if (fill == PHYSMEM_ZERO && !row->zeros)
			physmem_zero(m->pfn);
	} else {
		m->pfn = physmem_alloc(home, fill);
		if (m->pfn != home && m->pfn != 0 && home != 0 && m->object->internal)
			vm_object_strays(m->object);
	}
	return m->pfn != 0;
}

void
vm_page_row_end(struct vm_page_row *row)
{
	if (row->n != 0 && row->clean) {
		physmem_unalloc_row(row->next, row->n);
		row->n = 0;
	}
	for (; row->n != 0; row->n--)
		physmem_free(row->next++);
}

bool
vm_page_give_frame(struct vm_page *m, enum physmem_fill fill)
{
	struct vm_page_row row = { 0 };

	return give_frame(m, fill, &row);
}

bool
vm_page_own(struct vm_page *m)
{
	struct vm_object *o = m->object;
	vm_pfn_t home = vm_object_home_frame(o, m->pindex), old = m->pfn, pfn;

	KASSERT(kmutex_held(&o->lock) && !vm_page_is_viewed(m));
	if (physmem_is_low())
		vm_pageout_kick();
	pfn = physmem_alloc(home, PHYSMEM_OVERWRITE);
	if (pfn == 0)
		return false;
	if (pfn != home && home != 0 && o->internal)
		vm_object_strays(o);
	physmem_copy(old, pfn, 1);
	vm_object_page_move(m, pfn);
	physmem_free(old);
	vm_count(v_unfrozen);
	return true;
}

struct vm_page *
vm_page_alloc_row(struct vm_object *object, vm_pindex_t pindex, enum physmem_fill fill,
    struct vm_page_row *row)
{
	struct vm_page *m = vm_page_alloc_fake(object, pindex);

	if (m != NULL && !give_frame(m, fill, row)) {
		vm_page_free(m);
		return NULL;
	}
	return m;
}

struct vm_page *
vm_page_alloc(struct vm_object *object, vm_pindex_t pindex, enum physmem_fill fill)
{
	struct vm_page_row row = { 0 };

	return vm_page_alloc_row(object, pindex, fill, &row);
}

/* => queue lock held */
static void
unqueue(struct vm_page *m)
{
	if (m->queue != PQ_NONE)
		vm_page_policy->dequeue(m);
}

/* Take it out of its object, and wake who waits: they sleep on the address alone.  => object locked */
static void
forget_page(struct vm_page *m)
{
	KASSERT(kmutex_held(&m->object->lock));
	if (m->flags & PG_WRITTEN)
		vm_written_lost(m);
	(void)radix_remove(&m->object->pages, m->pindex);
	if (m->flags & PG_WANTED)
		event_wake(m);
}

static void
give_back(const vm_pfn_t *pfn, uint32_t n)
{
	physmem_free_many(pfn, n);
	if (physmem_is_untended())
		vm_pageout_trim();
}

void
vm_page_free(struct vm_page *m)
{
	KASSERT(kmutex_held(&m->object->lock));
	KASSERT(m->wire_count == 0);
	KASSERT_SLOW(m->pfn == 0 || !vm_object_page_mapped(m));
	vm_page_dequeue(m);
	forget_page(m);
	if (m->pfn != 0)
		give_back(&m->pfn, 1);
	slab_free(&vm_page_slab, m);
}

void
vm_page_free_many(struct vm_page **m, uint32_t n, bool evict)
{
	vm_pfn_t pfn[VM_PAGE_MANY];

	KASSERT(n <= VM_PAGE_MANY);
	kmutex_lock(&vm_page_queue_lock);
	for (uint32_t i = 0; i < n; i++) {
		if (evict && m[i]->queue != PQ_NONE)
			vm_page_policy->evict(m[i]);
		else
			unqueue(m[i]);
	}
	kmutex_unlock(&vm_page_queue_lock);
	for (uint32_t i = 0; i < n; i++) {
		KASSERT(m[i]->wire_count == 0 && m[i]->pfn != 0);
		KASSERT_SLOW(!vm_object_page_mapped(m[i]));
		pfn[i] = m[i]->pfn;
		forget_page(m[i]);
		slab_free(&vm_page_slab, m[i]);
	}
	give_back(pfn, n);
}

bool
vm_page_rename(struct vm_page *m, struct vm_object *object, vm_pindex_t pindex)
{
	KASSERT(kmutex_held(&m->object->lock) && kmutex_held(&object->lock));
	if (radix_insert(&object->pages, pindex, m) != 0)
		return false;
	if (m->flags & PG_WRITTEN)
		vm_written_lost(m);
	(void)radix_remove(&m->object->pages, m->pindex);
	if (m->wire_count != 0) {
		m->object->wired_pages--;
		object->wired_pages++;
	}
	/* The pageout daemon finds objects by the pages on its queues. */
	kmutex_lock(&vm_page_queue_lock);
	m->object = object;
	kmutex_unlock(&vm_page_queue_lock);
	m->pindex = pindex;
	return true;
}

void
vm_page_asked_for(struct vm_page *m)
{
	if (m->flags & PG_AHEAD) {
		m->flags &= (uint16_t)~PG_AHEAD;
		vm_count(v_readahead_hits);
	}
}

void
vm_page_wakeup(struct vm_page *m)
{
	KASSERT(kmutex_held(&m->object->lock));
	KASSERT(m->flags & PG_BUSY);
	m->flags &= (uint16_t)~PG_BUSY;
	if (m->flags & PG_WANTED) {
		m->flags &= (uint16_t)~PG_WANTED;
		event_wake(m);
	}
}

void
vm_page_activate(struct vm_page *m)
{
	if (m->queue != PQ_ACTIVE && m->wire_count == 0)
		vm_page_activate_many(&m, 1);
}

void
vm_page_activate_many(struct vm_page **m, uint32_t n)
{
	kmutex_lock(&vm_page_queue_lock);
	for (uint32_t i = 0; i < n; i++) {
		KASSERT(kmutex_held(&m[i]->object->lock));
		if (m[i]->wire_count != 0)
			continue;
		if (m[i]->queue == PQ_INACTIVE) {
			vm_count(v_reactivated);
			vm_page_policy->touch(m[i]);
		} else if (m[i]->queue == PQ_NONE) {
			vm_page_policy->enqueue(m[i]);
		}
	}
	kmutex_unlock(&vm_page_queue_lock);
}

void
vm_page_deactivate(struct vm_page *m)
{
	KASSERT(kmutex_held(&m->object->lock));
	kmutex_lock(&vm_page_queue_lock);
	if (m->queue != PQ_NONE)
		vm_page_policy->discard(m);
	kmutex_unlock(&vm_page_queue_lock);
}

void
vm_page_dequeue(struct vm_page *m)
{
	/* Not without the lock: while the policy moves a page it is on no queue. */
	kmutex_lock(&vm_page_queue_lock);
	unqueue(m);
	kmutex_unlock(&vm_page_queue_lock);
}

void
vm_page_evict(struct vm_page *m)
{
	kmutex_lock(&vm_page_queue_lock);
	if (m->queue != PQ_NONE)
		vm_page_policy->evict(m);
	kmutex_unlock(&vm_page_queue_lock);
	vm_count(v_dfree);
	vm_page_free(m);
}

bool
vm_page_is_cold(const struct vm_page *m)
{
	return vm_page_policy->is_cold == NULL || vm_page_policy->is_cold(m);
}

void
vm_page_wire(struct vm_page *m)
{
	KASSERT(kmutex_held(&m->object->lock));
	if (m->wire_count++ != 0)
		return;
	m->object->wired_pages++;
	kmutex_lock(&vm_page_queue_lock);
	unqueue(m);
	vm_page_wire_count++;
	kmutex_unlock(&vm_page_queue_lock);
}

void
vm_page_unwire(struct vm_page *m)
{
	KASSERT(kmutex_held(&m->object->lock));
	KASSERT(m->wire_count > 0);
	if (--m->wire_count != 0)
		return;
	m->object->wired_pages--;
	kmutex_lock(&vm_page_queue_lock);
	vm_page_wire_count--;
	kmutex_unlock(&vm_page_queue_lock);
	vm_page_activate(m);
}
