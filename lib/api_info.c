/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The public functions that tell: regions, pages, statistics.
 */

#include <errno.h>
#include <string.h>

#include "api_impl.h"
#include "compress.h"
#include "io.h"
#include "kern/handle.h"
#include "kern/slab.h"
#include "fork.h"
#include "physmem.h"
#include "pmap.h"
#include "snapshot.h"
#include "swap.h"
#include "task.h"
#include "trap.h"
#include "vm_init.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_pageout.h"
#include "vm_view.h"
#include "vmfault.h"

/* Objects from this one down. */
static uint32_t
chain_length(struct vm_object *o)
{
	uint32_t n = 0;

	krwlock_read(&vm_rmap_lock);
	for (; o != NULL; o = o->shadow)
		n++;
	krwlock_read_unlock(&vm_rmap_lock);
	return n;
}

static void
describe(struct vm_map *map, struct vm_map_entry *e, struct vmf_region *r)
{
	*r = (struct vmf_region){
		.addr = (void *)entry_start(e),
		.size = entry_end(e) - entry_start(e),
		.task = task_name(map),
		.prot = e->protection,
		.max_prot = e->max_protection,
		.inheritance = (enum vmf_inherit)e->inheritance,
		.advice = (enum vmf_advice)e->advice,
		.wired = e->wired_count,
		.shared = e->shared,
		.offset = e->map.object != NULL ? (uint64_t)e->map.offset << PAGE_SHIFT : 0,
		.chain = chain_length(e->map.object),
	};
}

int
vmf_region(const void *addr, struct vmf_region *region)
{
	struct vmf_region r;
	struct vm_map_entry *e;
	struct vm_map *map;
	sys_sigset_t old;
	int error = -EFAULT;

	if (!vm_running())
		return -ENODEV;
	if (region == NULL)
		return -EINVAL;
	trap_enter(&old);
	map = task_at((vm_offset_t)addr);
	if (map != NULL) {
		krwlock_read(&map->lock);
		e = vm_map_entry_ge(map, trunc_page((vm_offset_t)addr));
		error = e != NULL ? 0 : -ENOENT;
		if (e != NULL)
			describe(map, e, &r);
		krwlock_read_unlock(&map->lock);
		task_put(map);
	}
	trap_leave(&old);
	if (error == 0)
		*region = r;
	return error;
}

/* VMF_PAGE_* of one page.  => map locked */
static unsigned char
page_bits(struct vm_map *map, struct vm_map_entry *e, vm_offset_t va)
{
	pt_entry_t pte = pmap_extract(map->pmap, va);
	vm_pindex_t i = entry_pindex(e, va);
	struct vm_object *o = e->map.object, *next;
	unsigned bits = 0;

	if (pte & PTE_PROT)
		bits |= VMF_PAGE_MAPPED;
	if ((pte | pmap_view_rights(map->pmap, va)) & PTE_W)
		bits |= VMF_PAGE_WRITABLE;
	if (pte & PTE_WIRED)
		bits |= VMF_PAGE_WIRED;
	if (o == NULL)
		return (unsigned char)bits;
	vm_object_lock(o);
	for (;;) {
		struct vm_page *m = vm_page_lookup(o, i);

		if (m != NULL && !(m->flags & PG_FAKE)) {
			bits |= VMF_PAGE_RESIDENT;
			/* In a view it may be, and cannot be told from one that may be written. */
			if ((m->flags & PG_MODIFIED) || (vm_page_is_viewed(m) && o == e->map.object))
				bits |= VMF_PAGE_MODIFIED;
		} else if (vm_object_paged_out(o, i)) {
			bits |= VMF_PAGE_PAGED_OUT;
		}
		next = o->shadow;
		if ((bits & (VMF_PAGE_RESIDENT | VMF_PAGE_PAGED_OUT)) != 0 || next == NULL)
			break;
		i += o->shadow_offset;
		vm_object_lock(next);
		vm_object_unlock(o);
		o = next;
	}
	if ((bits & (VMF_PAGE_RESIDENT | VMF_PAGE_PAGED_OUT)) != 0 && o != e->map.object)
		bits |= VMF_PAGE_SHADOWED;
	vm_object_unlock(o);
	return (unsigned char)bits;
}

int
vmf_page_info(const void *addr, size_t size, unsigned char *vec)
{
	vm_offset_t s = (vm_offset_t)addr;
	struct vm_map *map;
	sys_sigset_t old;
	int error = 0;

	if (!vm_running())
		return -ENODEV;
	if (vec == NULL || s == 0 || (s & PAGE_MASK) != 0 || (size & PAGE_MASK) != 0 || size == 0 || s + size < s)
		return -EINVAL;
	for (size_t done = 0; done < size && error == 0; ) {
		unsigned char bits[256];
		size_t n = MIN((size - done) >> PAGE_SHIFT, sizeof(bits));

		trap_enter(&old);
		map = task_at(s);
		error = -EFAULT;
		if (map != NULL && map->end - s >= size) {
			krwlock_read(&map->lock);
			/* All of it is looked at first, so that an error changes nothing. */
			if (vm_map_is_mapped(map, s, s + size)) {
				error = 0;
				for (size_t i = 0; i < n; i++) {
					vm_offset_t va = s + done + (i << PAGE_SHIFT);

					bits[i] = page_bits(map, vm_map_entry_at(map, va), va);
				}
			}
			krwlock_read_unlock(&map->lock);
		}
		if (map != NULL)
			task_put(map);
		trap_leave(&old);
		if (error == 0)
			memcpy(vec + (done >> PAGE_SHIFT), bits, n);
		done += n << PAGE_SHIFT;
	}
	return error;
}

static void
queue_gauges(struct vmf_stats *s)
{
	kmutex_lock(&vm_page_queue_lock);
	s->v_active_count = vm_page_active_count;
	s->v_inactive_count = vm_page_inactive_count;
	s->v_wire_count = vm_page_wire_count;
	kmutex_unlock(&vm_page_queue_lock);
}

static void
compress_gauges(struct vmf_stats *s)
{
	struct compress_counts c;

	compress_counts(&c);
	s->compress_pages = c.pages;
	s->compress_same = c.same;
	s->compress_used = c.used;
	s->compress_resident = c.resident;
	s->compress_limit = c.limit;
}

/* Members have only been added since 0.1; who knows fewer gets fewer. */
#define STATS_SIZE_0_1	offsetof(struct vmf_stats, swap_size)

void
api_statistics(struct vmf_stats *s)
{
	struct physmem_freeze_counts fc;
	struct physmem_counts pc;
	struct swap_counts sc;

	memset(s, 0, sizeof(*s));
	s->size = sizeof(*s);
#define X(name) s->name = vm_meter_read(VMC_##name);
	VM_COUNTERS(X)
#undef X
	physmem_counts(&pc);
	s->v_page_count = pc.budget;
	s->v_free_count = pc.budget - MIN(pc.budget, pc.used);
	s->v_dirty_free_count = pc.dirty;
	queue_gauges(s);
	s->mappings = pmap_mappings();
	s->mappings_max = pmap_mappings_max();
	s->objects = vm_object_count();
	s->entries = vm_map_entry_count();
	s->snapshots = snapshot_count();
	s->snapshot_ns_max = snapshot_longest();
	s->v_fork_ns_max = fork_longest();
	physmem_freeze_counts(&fc);
	s->frames_frozen = fc.frozen;
	s->frames_private = fc.young;
	s->frames_superseded = fc.superseded;
	s->metadata = kmem_bytes();
	swap_counts(&sc);
	s->swap_size = sc.size;
	s->swap_used = sc.used;
	s->swap_errors = sc.errors;
	s->io_uring = io_is_uring();
	s->v_laundry_count = vm_pageout_laundry();
	compress_gauges(s);
}

int
vmf_statistics(struct vmf_stats *stats)
{
	struct vmf_stats s;
	sys_sigset_t old;
	uint64_t size;

	if (!vm_running())
		return -ENODEV;
	if (stats == NULL || (stats->size != sizeof(s) && stats->size != STATS_SIZE_0_1))
		return -EINVAL;
	size = stats->size;
	trap_enter(&old);
	api_statistics(&s);
	trap_leave(&old);
	s.size = size;
	memcpy(stats, &s, (size_t)size);
	return 0;
}
