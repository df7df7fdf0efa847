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
 * VMF_INHERIT_SHARE.  Pages that parent and child go on sharing are all in memory, in frames that are common: written by
 * both, paged out by neither, moved by neither.
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
#include "vm_view.h"

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
	return physmem_has_common() || each_written(is_there) != 0;
}

/*
 * What is shared for good
 */

/* The first entry of memory that a child shares from *va on: *va and its end; what a file has, files share.  false: none */
static bool
next_shared(struct vm_map *map, vm_offset_t *va, vm_offset_t *end)
{
	struct vm_map_entry *e;

	krwlock_read(&map->lock);
	for (e = vm_map_entry_ge(map, *va); e != NULL; e = vm_map_entry_next(e))
		if (e->inheritance == VM_INHERIT_SHARE && (e->map.object == NULL || e->map.object->internal))
			break;
	if (e != NULL) {
		*va = MAX(*va, entry_start(e));
		*end = entry_end(e);
	}
	krwlock_read_unlock(&map->lock);
	return e != NULL;
}

int
fork_share_fetch(void)
{
	enum kern_return result = KERN_SUCCESS;
	vm_offset_t va, end;
	struct vm_map *map;
	char none = 0;

	for (uint32_t i = 0; (map = task_nth(i)) != NULL; i++, task_put(map))
		for (va = map->base; result == KERN_SUCCESS && va < map->end && next_shared(map, &va, &end);)
			for (; va < end && result == KERN_SUCCESS; va += PAGE_SIZE) {
				/* As if it were written: it is the entry's own, then, and no copy's. */
				result = vm_fault_io(map, va, 0, &none, 0, true, VM_FAULT_FORCE);
				if (result == KERN_INVALID_ADDRESS)
					result = KERN_SUCCESS;
			}
	return result == KERN_SUCCESS ? 0 : -ENOMEM;
}

static int
mark_range(struct vm_map *map, vm_offset_t va, vm_offset_t end)
{
	struct vm_map_entry *e = vm_map_entry_at(map, va);
	struct vm_object *o = e->map.object;
	int error = 0;

	if (o == NULL)
		return -EAGAIN;
	vm_object_lock(o);
	for (; va < end && error == 0; va += PAGE_SIZE) {
		struct vm_page *m = vm_page_lookup(o, entry_pindex(e, va));

		if (m == NULL || (m->flags & PG_FAKE) || vm_page_is_viewed(m) || physmem_is_frozen(m->pfn))
			error = -EAGAIN;
		else if (!physmem_make_common(m->pfn))
			error = -ENOMEM;
	}
	vm_object_unlock(o);
	return error;
}

int
fork_share_mark(void)
{
	vm_offset_t va, end;
	struct vm_map *map;
	int error = 0;

	/* Before: with the last child's generation goes what is known to be common. */
	(void)fork_live_tend();
	for (uint32_t i = 0; (map = task_nth(i)) != NULL; i++, task_put(map))
		for (va = map->base; error == 0 && va < map->end && next_shared(map, &va, &end); va = end)
			error = mark_range(map, va, end);
	return error;
}

void
fork_share_none(void)
{
	struct vm_map *map;

	for (uint32_t i = 0; (map = task_nth(i)) != NULL; i++, task_put(map))
		for (vm_offset_t va = map->base, end; va < map->end; va = end) {
			const struct vm_map_entry *e = vm_map_entry_ge(map, va);

			if (e == NULL)
				break;
			end = entry_end(e);
			if (e->inheritance == VM_INHERIT_NONE)
				(void)vm_map_unmap(map, entry_start(e), end);
		}
}

/*
 * The parent
 */

static int
keep(struct vm_map *map, vm_offset_t va, pt_entry_t pte)
{
	(void)map;
	(void)va;
	if (!physmem_is_common(PTE_PFN(pte)))
		physmem_make_young(PTE_PFN(pte));
	return 0;
}

int
fork_share_prepare(int *memory)
{
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
	return 0;
}

void
fork_share_keep(void)
{
	(void)each_written(keep);
}

void
fork_share_parent(bool failed)
{
	fork_share_keep();
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
	struct vm_object *o = e != NULL ? e->map.object : NULL;
	uint32_t entered;
	struct vm_page *m;
	bool ok = true;

	KASSERT_ALWAYS(o != NULL);
	if (physmem_is_common(PTE_PFN(pte)))
		return 0;
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

/* Common pages of an object in [lo, hi) become this process's own. */
static bool
part_object(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	struct vm_page *m;
	bool ok = true;

	vm_object_lock(o);
	for (vm_pindex_t i = lo; ok && (m = radix_next(&o->pages, &i)) != NULL && i < hi; i++)
		ok = !physmem_is_common(m->pfn) || vm_page_own(m);
	vm_object_unlock(o);
	return ok;
}

/* What was shared with others before, and is inherited as a copy now. */
static int
part(struct vm_map *map)
{
	bool ok = true;

	for (struct vm_map_entry *e = vm_map_entry_ge(map, map->base); e != NULL && ok; e = vm_map_entry_next(e)) {
		vm_pindex_t lo = e->map.offset, n = (vm_pindex_t)atop(entry_end(e) - entry_start(e));

		if (e->inheritance != VM_INHERIT_COPY)
			continue;
		for (struct vm_object *o = e->map.object; o != NULL && ok; lo += o->shadow_offset, o = o->shadow)
			ok = part_object(o, lo, lo + n);
	}
	return ok ? 0 : -ENOMEM;
}

int
fork_share_child(int memory)
{
	struct vm_map *map;
	int error;

	fork_live_forget();
	error = physmem_inherit(memory);
	if (error != 0)
		return error;
	error = each_written(copy);
	if (!physmem_has_common())
		return error;
	for (uint32_t i = 0; (map = task_nth(i)) != NULL; i++, task_put(map))
		error = error == 0 ? part(map) : error;
	return error;
}
