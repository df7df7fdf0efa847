/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Cleaning: modified pages go to their pager and stay in memory.
 *
 * A page is made busy and loses its write rights before its modified bit is
 * cleared, so a write that comes later faults, waits for the pager to finish, and sets
 * the bit again.  A wired page keeps its rights, and therefore its bit.
 */

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "vm_clean.h"
#include "vm_meter.h"
#include "vm_pager.h"

#define CLUSTER	16	/* pages in one put */

/* Busy pages from *i on, modified, in a row; the number of them.  => locked */
static uint32_t
gather(struct vm_object *o, vm_pindex_t *i, vm_pindex_t hi, struct vm_page **m, struct vm_page **wait)
{
	struct vm_page *p;
	uint32_t n = 0;

	*wait = NULL;
	for (; n < CLUSTER && (p = radix_next(&o->pages, i)) != NULL && *i < hi; ++*i) {
		if (n != 0 && p->pindex != m[n - 1]->pindex + 1)
			break;
		if (p->flags & PG_BUSY) {
			if (n == 0)
				*wait = p;
			break;
		}
		if (!(p->flags & PG_MODIFIED)) {
			if (n != 0)
				break;
			continue;
		}
		p->flags |= PG_BUSY | PG_LAUNDRY;
		if (p->wire_count == 0) {
			vm_object_page_protect(p, VM_PROT_READ | VM_PROT_EXECUTE);
			p->flags &= (uint16_t)~PG_MODIFIED;
		}
		m[n++] = p;
	}
	return n;
}

static enum kern_return
clean(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, bool patient, uint32_t *lost)
{
	struct vm_page *m[CLUSTER], *wait;
	vm_pindex_t i = lo;

	*lost = 0;
	vm_object_lock(o);
	for (;;) {
		uint32_t n = gather(o, &i, hi, m, &wait), done = 0;

		if (wait != NULL && patient) {
			uint32_t ticket = event_prepare(wait);

			wait->flags |= PG_WANTED;
			vm_object_unlock(o);
			(void)event_wait(wait, ticket, EVENT_FOREVER);
			vm_object_lock(o);
			continue;
		}
		if (n == 0)
			break;
		vm_object_pip_add(o);
		vm_object_unlock(o);
		PROBE("vm_object_clean: put");
		while (done < n) {
			uint32_t some;

			if (vm_pager_put(o->pager, (uint64_t)m[done]->pindex + o->paging_offset,
			    m + done, n - done, &some) != VM_PAGER_OK)
				break;
			done += some;
		}
		vm_object_lock(o);
		for (uint32_t k = 0; k < n; k++) {
			m[k]->flags &= (uint16_t)~PG_LAUNDRY;
			if (k >= done)
				m[k]->flags |= PG_MODIFIED;
			vm_page_wakeup(m[k]);
		}
		*lost += n - done;
		if (o->internal)
			vm_count_n(v_swpout, done);
		vm_object_pip_done(o);
	}
	vm_object_unlock(o);
	return *lost == 0 ? KERN_SUCCESS : KERN_MEMORY_ERROR;
}

enum kern_return
vm_object_clean(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, uint32_t *lost)
{
	return clean(o, lo, hi, true, lost);
}

bool
vm_object_clean_cluster(struct vm_object *o, vm_pindex_t at)
{
	uint32_t lost;

	return clean(o, at, (vm_pindex_t)MIN((uint64_t)o->size, (uint64_t)at + CLUSTER), false, &lost) ==
	    KERN_SUCCESS;
}
