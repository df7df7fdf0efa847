/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * fork() that copies nothing.
 *
 *	parent		va --> frame 7			child	va --> frame 7
 *	writes		va --> frame 7'			writes	va --> its own frame
 *
 * All frames are frozen (physmem_freeze.c), and nobody may write: then the child's tables, which are the kernel's copies of
 * ours, are right as they are, and so are its mappings.  Shared mappings of a memfd have no page tables that a
 * fork would have to copy, and so its price does not grow with memory.  From then on parent and child are alike.  Who
 * writes first gets a private view of a leaf and the kernel copies (vm_view.c), or a page is copied to
 * another frame (vm_page_own()).
 *
 * Private views come along.  The kernel copies what was written there as it does for every program.
 *
 * WHAT IS WRITTEN ALL THE SAME.  Wired memory and held pages (vmf_fault_in) stay writable: the kernel may be at it.  And the
 * forking thread may go on until the clone, and libc after it.  Such pages the child copies, from the frames, while the
 * parent waits; so these frames are not frozen, and the parent keeps them.
 *
 * That only the forking thread can get at any page meanwhile is what makes it right: whatever frame it is given is
 * frozen from the start, unless at the end it is one of those that can be written.
 */

#include "fork_share.h"

#include <errno.h>

#include "fork_live.h"
#include "kern/assert.h"
#include "kern/sys.h"
#include "machdep.h"
#include "physmem.h"
#include "pmap.h"
#include "task.h"
#include "vm_fault.h"
#include "vm_map.h"
#include "vm_object.h"
#include "vm_page.h"

bool
fork_can_share(void)
{
	return physmem_can_inherit();
}

/* Each pte that can be written: what(map, va, pte), until that says an error. */
static int
each_written(int (*what)(struct vm_map *, vm_offset_t, pt_entry_t))
{
	struct vm_map *map;
	pt_entry_t pte;
	int error = 0;

	for (uint32_t i = 0; (map = task_nth(i)) != NULL; i++, task_put(map))
		for (vm_offset_t va = map->base; va < map->end && error == 0 &&
		    (va = pmap_next_write(map->pmap, va, &pte)) != 0; va += PAGE_SIZE)
			error = what(map, va, pte);
	return error;
}

static int
is_there(struct vm_map *map, vm_offset_t va, pt_entry_t pte)
{
	(void)map;
	(void)va;
	(void)pte;
	return 1;
}

bool
fork_share_is_written(void)
{
	return each_written(is_there) != 0;
}

/*
 * The parent
 */

static int
keep(struct vm_map *map, vm_offset_t va, pt_entry_t pte)
{
	(void)map;
	(void)va;
	physmem_make_young(PTE_PFN(pte));
	return 0;
}

int
fork_share_prepare(int *memory)
{
	struct vm_map *map;
	int error;

	*memory = physmem_another();
	if (*memory < 0)
		return *memory;
	error = fork_live_begin();
	if (error != 0) {
		(void)sys_close(*memory);
		*memory = -1;
		return error;
	}
	for (uint32_t i = 0; (map = task_nth(i)) != NULL; i++, task_put(map))
		pmap_protect(map->pmap, map->base, map->end, VM_PROT_READ | VM_PROT_EXECUTE,
		    PMAP_KEEP_WIRED | PMAP_KEEP_VIEWS);
	(void)each_written(keep);
	return 0;
}

void
fork_share_parent(bool failed)
{
	(void)each_written(keep);
	fork_live_parent(failed);
}

/*
 * The child
 */

/* A page that the parent goes on writing: have a frame for it. */
static int
copy(struct vm_map *map, vm_offset_t va, pt_entry_t pte)
{
	struct vm_map_entry *e = vm_map_entry_at(map, va);
	struct vm_object *o = e->map.object;
	uint32_t entered;
	struct vm_page *m;
	bool ok = true;

	KASSERT_ALWAYS(e != NULL && o != NULL);
	vm_object_lock(o);
	m = vm_page_lookup(o, entry_pindex(e, va));
	KASSERT_ALWAYS(m != NULL);
	if (physmem_is_inherited(m->pfn)) {
		vm_pfn_t pfn = physmem_alloc(vm_object_home_frame(o, m->pindex), PHYSMEM_OVERWRITE);

		ok = pfn != 0;
		if (ok) {
			physmem_copy(m->pfn, pfn, 1);
			m->pfn = pfn;
		}
	}
	pte = PTE_MAKE(m->pfn, pte & (PTE_PROT | PTE_WIRED));
	ok = ok && pmap_enter(map->pmap, va, 1, &pte, 0, 0, 0, 0, &entered) == KERN_SUCCESS;
	vm_object_unlock(o);
	return ok ? 0 : -ENOMEM;
}

int
fork_share_child(int memory)
{
	struct vm_map *map;
	int error;

	fork_live_child();
	error = physmem_inherit(memory);
	if (error != 0)
		return error;
	/* Holds were other threads', or those of a call that this one will not come back to. */
	for (uint32_t i = 0; (map = task_nth(i)) != NULL; i++, task_put(map)) {
		krwlock_write(&map->lock);
		vm_fault_release_holds(map);
		krwlock_write_unlock(&map->lock);
	}
	return each_written(copy);
}
