/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Frames of one's own, for all of a leaf.
 *
 * A page whose frame is frozen (physmem_freeze.c) needs another before it is written.  The best way for a leaf is a private
 * view (vm_view.c), and the kernel copies.  But a view has to end for a page that is held: what the kernel writes for
 * the program has to be in a frame.  Buffers that system calls write are so again and again, and what lies near them
 * went from view to frame to view.  So where that has happened, the leaf (2 MB) is copied as a whole at the next write: half a
 * millisecond, once for each fork, and then all of it can be written, in one mapping.  Likewise where there cannot be a view
 * (the pages are not in a row, or not all there), and page after page is written.
 */

#include "kern/assert.h"
#include "kern/probe.h"
#include "physmem.h"
#include "pmap.h"
#include "vm_fault.h"
#include "vm_fault_state.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_view.h"

#define ROOM		8u		/* free frames that there must be, in leaves */

/* Nobody else is at work on it, or counts on its frame, and others see that.  => object locked, for all below */
static bool
may_own(const struct vm_page *m, const struct vm_page *ours)
{
	return m != NULL && (!(m->flags & PG_BUSY) || m == ours) && !(m->flags & (PG_FAKE | PG_LAUNDRY | PG_FREE)) &&
	    m->wire_count == 0 && !vm_page_is_viewed(m) && physmem_is_frozen(m->pfn);
}

/* => nobody maps it.  false: there is no frame */
static bool
own(struct vm_page *m)
{
	vm_pfn_t home = vm_object_home_frame(m->object, m->pindex), old = m->pfn, pfn = physmem_alloc(home, PHYSMEM_OVERWRITE);

	if (pfn == 0)
		return false;
	if (pfn != home && home != 0 && m->object->internal)
		vm_object_strays(m->object);
	physmem_copy(old, pfn, 1);
	m->pfn = pfn;
	physmem_free(old);
	vm_count(v_unfrozen);
	return true;
}

bool
vm_own_leaf(struct faultstate *fs)
{
	struct vm_object *o = fs->first_object;
	vm_pindex_t in_leaf, lo, hi, i, end;
	bool ok = true;

	if (fs->map == NULL || !fs->lookup_valid || fs->io_buf != NULL || physmem_is_low() ||
	    physmem_free_count() < ROOM * PMAP_LEAF_PAGES || !pmap_wants_own(fs->map->pmap, fs->va))
		return false;
	KASSERT(fs->m->object == o && kmutex_held(&o->lock));
	in_leaf = (vm_pindex_t)(atop(fs->va - fs->map->base) % PMAP_LEAF_PAGES);
	lo = fs->first_pindex - (vm_pindex_t)MIN((vm_offset_t)in_leaf, atop(fs->va - entry_start(fs->entry)));
	hi = fs->first_pindex + (vm_pindex_t)MIN((vm_offset_t)(PMAP_LEAF_PAGES - in_leaf), atop(entry_end(fs->entry) - fs->va));
	for (i = lo; i < hi && ok; i = end + 1) {
		for (end = i; end < hi && may_own(vm_page_lookup(o, end), fs->m); end++)
			;
		if (end == i)
			continue;
		vm_object_unmap(o, i, end);
		PROBE("vm_own: unmapped");
		for (; i < end && ok; i++)
			ok = own(vm_page_lookup(o, i));
	}
	return !physmem_is_frozen(fs->m->pfn);
}
