/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The end of files, and msync().
 *
 * THE END.  A file may be cut or grow under us at any time, and nobody tells.  So it is asked for when it
 * matters: at a fault, when something is written back, and before a range is synced.  A resident page
 * that turns out to lie beyond it is thrown away, as it is no part of the file any more.  (What is
 * mapped already takes no fault: a cut is noticed at the next one, or at vmf_sync().)
 *
 * SYNCING is two steps: what is modified is put, and the pager makes durable what was put until then
 * (fdatasync).  If the second step fails the kernel forgets that its pages were dirty, and with them what
 * we have put since the last success; so pages that were put are marked UNSTABLE, and become
 * modified again: the next attempt really writes them.
 */

#include <errno.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "vm_clean.h"
#include "vm_file.h"
#include "vm_map.h"
#include "vm_pager.h"

#define PUT_TRIES	100		/* of what is refused for the moment ... */
#define PUT_PAUSE_NS	1000000		/* ... with a pause between */

uint64_t
vm_object_limit(struct vm_object *o)
{
	uint64_t limit = vm_pager_limit(o->pager);

	if (limit == UINT64_MAX)
		return limit;
	return limit > o->paging_offset ? limit - o->paging_offset : 0;
}

void
vm_object_truncate(struct vm_object *o, uint64_t limit)
{
	vm_pindex_t i = (vm_pindex_t)MIN(limit, (uint64_t)o->size);
	struct vm_page *m;

	KASSERT(kmutex_held(&o->lock));
	for (; limit < o->size && (m = radix_next(&o->pages, &i)) != NULL; i++) {
		if ((m->flags & PG_BUSY) || m->wire_count != 0)
			continue;
		vm_object_page_protect(m, VM_PROT_NONE);
		vm_page_free(m);
	}
}

/* What was put is not safe: let it be put again. */
static void
unstable_again(struct vm_object *o)
{
	vm_pindex_t i = 0;
	struct vm_page *m;

	vm_object_lock(o);
	for (; (m = radix_next(&o->pages, &i)) != NULL; i++)
		if (m->flags & PG_UNSTABLE)
			m->flags = (uint16_t)((m->flags & ~PG_UNSTABLE) | PG_MODIFIED);
	vm_object_unlock(o);
}

/* Put what is modified; what may work the next time is tried again for a while.  0 or -errno */
static int
put_all(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	int error = 0;
	uint32_t lost;

	for (int tries = 0; vm_object_clean(o, lo, hi, &lost) != KERN_SUCCESS; tries++) {
		uint32_t ticket = event_prepare(&lost);

		error = atomic_exchange(&o->pager->error, 0);
		if ((error != -EAGAIN && error != -ENOMEM) || tries == PUT_TRIES)
			return error != 0 ? error : -EIO;
		(void)event_wait(&lost, ticket, PUT_PAUSE_NS);
	}
	return 0;
}

int
vm_object_sync(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, bool durable)
{
	uint64_t limit = vm_object_limit(o);
	int error, unsafe = 0;

	if (limit < o->size) {
		vm_object_lock(o);
		vm_object_truncate(o, limit);
		vm_object_unlock(o);
	}
	if (!vm_pager_can_put(o->pager))
		return 0;
	error = put_all(o, lo, hi);
	PROBE("vm_object_sync: between put and sync");
	if (durable)
		unsafe = vm_pager_sync(o->pager);
	if (unsafe != 0)
		unstable_again(o);
	return error != 0 ? error : unsafe;
}

int
vm_map_sync(struct vm_map *map, vm_offset_t s, vm_offset_t end, bool durable)
{
	int error = 0;

	krwlock_read(&map->lock);
	if (!vm_map_is_mapped(map, s, end))
		error = -EFAULT;
	krwlock_read_unlock(&map->lock);
	while (error != -EFAULT && s < end) {
		struct vm_object *o = NULL;
		struct vm_map_entry *e;
		vm_pindex_t lo = 0, hi = 0;
		int one;

		/* Objects that are kept by a reference while the map is open to all. */
		krwlock_read(&map->lock);
		e = vm_map_entry_at(map, s);
		if (e == NULL) {
			krwlock_read_unlock(&map->lock);
			return -EFAULT;
		}
		if (e->map.object != NULL && !e->map.object->internal) {
			o = e->map.object;
			lo = entry_pindex(e, s);
			hi = entry_pindex(e, MIN(end, entry_end(e)));
			vm_object_reference(o);
		}
		s = entry_end(e);
		krwlock_read_unlock(&map->lock);
		if (o == NULL)
			continue;
		one = vm_object_sync(o, lo, hi, durable);
		if (error == 0)
			error = one;
		vm_object_deallocate(o);
	}
	return error;
}
