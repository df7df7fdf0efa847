/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The audit: what must hold when nothing is under way.
 *
 *	maps	entries are in order, do not overlap, and their reverse links agree
 *	objects	references are accounted for; no fault is under way; a copy points back
 *	pages	belong to their object, have frames of their own, are neither busy nor fake; wired as
 *		often as ptes wire them
 *	written	who keeps a list of what was written since a snapshot has everything that differs from it,
 *		and everything that can be written, on it
 *	ptes	a page with rights is the page that a walk of the chain finds; a writable one is
 *		modified, in the first object, and owed to no copy
 *	kernel	maps exactly what the ptes say, and the count of mappings is right
 *
 * The sanitizers cannot see a stale frame or a lost copy; this can.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress.h"
#include "kern/assert.h"
#include "kern/lock.h"
#include "kern/sys.h"
#include "physmem.h"
#include "pmap.h"
#include "task.h"
#include "trap.h"
#include "vm_audit.h"
#include "vm_map.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_pageout.h"
#include "vm_pager.h"
#include "vm_view.h"
#include "vm_written.h"

/* What has been seen so far: frames, and how often ptes wire each page. */
static struct seen {
	struct vm_object **object;
	size_t nobjects, room;
	vm_pfn_t *pfn;
	size_t npfns, pfn_room;
	uint64_t wired_ptes, wire_counts;
} seen;

static bool
object_seen(struct vm_object *o)
{
	for (size_t i = 0; i < seen.nobjects; i++)
		if (seen.object[i] == o)
			return true;
	if (seen.nobjects == seen.room) {
		seen.room = seen.room * 2 + 64;
		seen.object = realloc(seen.object, seen.room * sizeof(*seen.object));
		KASSERT_ALWAYS(seen.object != NULL);
	}
	seen.object[seen.nobjects++] = o;
	return false;
}

static void
frame_seen(vm_pfn_t pfn)
{
	if (seen.npfns == seen.pfn_room) {
		seen.pfn_room = seen.pfn_room * 2 + 1024;
		seen.pfn = realloc(seen.pfn, seen.pfn_room * sizeof(*seen.pfn));
		KASSERT_ALWAYS(seen.pfn != NULL);
	}
	seen.pfn[seen.npfns++] = pfn;
}

static int
compare_pfn(const void *a, const void *b)
{
	vm_pfn_t x = *(const vm_pfn_t *)a, y = *(const vm_pfn_t *)b;

	return x < y ? -1 : x > y;
}

static void
audit_page(struct vm_object *o, vm_pindex_t i, struct vm_page *m)
{
	KASSERT_ALWAYS(m->object == o && m->pindex == i && i < o->size);
	KASSERT_ALWAYS((m->flags & (PG_BUSY | PG_FAKE | PG_LAUNDRY)) == 0);
	KASSERT_ALWAYS(m->pfn != 0 && physmem_used(m->pfn));
	KASSERT_ALWAYS(m->wire_count == 0 || m->queue == PQ_NONE);
	/* Who comes back to a page that is watched must be seen. */
	KASSERT_ALWAYS(m->queue != PQ_INACTIVE || (m->flags & (PG_REFERENCED | PG_FREE)) ||
	    !vm_object_page_mapped(m));
	KASSERT_ALWAYS(!o->internal || o->pager != NULL || (m->flags & (PG_MODIFIED | PG_FREE)));
	seen.wire_counts += m->wire_count;
	frame_seen(m->pfn);
}

/* The page that an object shows at i as it is in memory, if one of those down to `last' has it. */
static struct vm_page *
page_above(struct vm_object *o, vm_pindex_t i, struct vm_object *last)
{
	struct vm_page *m = NULL;

	for (; o != last && m == NULL; i += o->shadow_offset, o = o->shadow) {
		m = radix_lookup(&o->pages, i);
		if (m == NULL && o->pager != NULL && (!o->pager->ops->queryable || vm_object_paged_out(o, i)))
			return NULL;
	}
	return m;
}

/* What o says it knows of what was written.  => locked; nobody else is there, so others need not be */
static void
audit_written(struct vm_object *o)
{
	const struct vm_written *w = &o->written;
	vm_pindex_t shift = 0, i = 0;
	uint32_t marked = 0, listed = 0;
	struct vm_page *m;

	for (; (m = radix_next(&o->pages, &i)) != NULL; i++) {
		KASSERT_ALWAYS(!(m->flags & PG_HOT) || (m->flags & PG_WRITTEN));
		marked += (m->flags & PG_WRITTEN) != 0;
	}
	if (w->snapshot == 0) {
		KASSERT_ALWAYS(marked == 0 || w->stale);
		return;
	}
	KASSERT_ALWAYS(o->internal && o->copy != NULL && w->hi <= o->size && !w->stale);
	for (m = vm_written_next(o, NULL); m != NULL; m = vm_written_next(o, m)) {
		KASSERT_ALWAYS((m->flags & PG_WRITTEN) && m->pindex >= w->lo && m->pindex < w->hi);
		KASSERT_ALWAYS(++listed <= marked);
	}
	KASSERT_ALWAYS(listed == marked);
	for (struct vm_object *c = w->top; c != o; c = c->shadow) {
		KASSERT_ALWAYS(c != NULL);
		shift += c->shadow_offset;
	}
	for (i = w->lo; (m = radix_next(&o->pages, &i)) != NULL && i < w->hi; i++) {
		struct vm_page *then = m->flags & PG_WRITTEN ? NULL : page_above(w->top, i - shift, o);

		if (then != NULL && physmem_differ(then->pfn, m->pfn))
			kpanic("audit: page %u differs from the snapshot, and is not on the list", i);
	}
}

/* One object; its references are at least those that we can see. */
static void
audit_object(struct vm_object *o)
{
	uint32_t refs = 0, wired = 0;
	struct vm_mapping *map;
	struct vm_object *c;
	struct vm_page *m;
	vm_pindex_t i = 0;

	vm_object_lock(o);
	KASSERT_ALWAYS(o->paging_in_progress == 0);
	KASSERT_ALWAYS((o->flags & (OBJ_DEAD | OBJ_CUT | OBJ_FROZEN)) == 0 && !o->cut_listed);
	krwlock_read(&vm_rmap_lock);
	LIST_FOREACH(map, &o->mappings, link) {
		KASSERT_ALWAYS(map->object == o && map->start < map->end);
		KASSERT_ALWAYS((uint64_t)map->offset + atop(map->end - map->start) <= o->size);
		refs++;
	}
	LIST_FOREACH(c, &o->children, sibling) {
		KASSERT_ALWAYS(c->shadow == o);
		refs++;
	}
	krwlock_read_unlock(&vm_rmap_lock);
	KASSERT_ALWAYS(o->ref_count >= refs);
	if (o->copy != NULL) {
		KASSERT_ALWAYS(o->copy->shadow == o);
		KASSERT_ALWAYS((uint64_t)o->copy->shadow_offset + o->copy->size <= o->size);
	}
	for (; (m = radix_next(&o->pages, &i)) != NULL; i++) {
		audit_page(o, i, m);
		wired += m->wire_count != 0;
	}
	KASSERT_ALWAYS(wired == o->wired_pages);
	audit_written(o);
	vm_object_unlock(o);
}

/* The object and all that shadows it. */
static void
audit_tree(struct vm_object *o)
{
	struct vm_object *c;

	if (object_seen(o))
		return;
	audit_object(o);
	LIST_FOREACH(c, &o->children, sibling)
		audit_tree(c);
}

/* The pte of a page against what a walk of the chain finds. */
static void
audit_pte(struct vm_map *map, struct vm_map_entry *e, vm_offset_t va, pt_entry_t pte)
{
	struct vm_object *o = e->map.object, *c;
	vm_pindex_t i = entry_pindex(e, va);
	struct vm_page *m = NULL;

	seen.wired_ptes += (pte & PTE_WIRED) != 0;
	if ((pte & (PTE_PROT | PTE_WIRED)) == 0)
		return;
	KASSERT_ALWAYS(o != NULL);
	KASSERT_ALWAYS((pte & PTE_PROT & ~(unsigned)e->protection) == 0);
	for (; o != NULL; o = o->shadow) {
		m = radix_lookup(&o->pages, i);
		if (m != NULL)
			break;
		i += o->shadow_offset;
	}
	if (m == NULL || m->pfn != PTE_PFN(pte))
		kpanic("audit: %p maps frame %u, the chain says %u", (void *)va, PTE_PFN(pte),
		    m != NULL ? m->pfn : 0);
	KASSERT_ALWAYS(!(pte & PTE_WIRED) || m->wire_count > 0);
	KASSERT_ALWAYS(!(pte & PTE_WIRED) || e->wired_count != 0 || vm_map_is_held(map, va, va + PAGE_SIZE));
	if (!(pte & PTE_W))
		return;
	KASSERT_ALWAYS(o == e->map.object && !e->needs_copy && (m->flags & PG_MODIFIED));
	KASSERT_ALWAYS(!vm_written_would(m));
	c = o->copy;
	if (c != NULL && i >= c->shadow_offset && i - c->shadow_offset < c->size) {
		vm_object_lock(c);
		KASSERT_ALWAYS(radix_lookup(&c->pages, i - c->shadow_offset) != NULL ||
		    vm_object_paged_out(c, i - c->shadow_offset) ||
		    (c->pager != NULL && !c->pager->ops->queryable));
		vm_object_unlock(c);
	}
}

static void
audit_map(struct vm_map *map)
{
	struct vm_map_entry *e;
	vm_offset_t at = map->base, va;
	uint32_t n = 0;
	pt_entry_t pte;

	KASSERT_ALWAYS(avl_is_valid(&map->entries));
	for (e = vm_map_entry_ge(map, map->base); e != NULL; e = vm_map_entry_next(e), n++) {
		struct vm_object *o = e->map.object;

		KASSERT_ALWAYS(entry_start(e) >= at && entry_end(e) <= map->end);
		KASSERT_ALWAYS(entry_start(e) < entry_end(e) && e->node.key == entry_start(e));
		KASSERT_ALWAYS(!e->in_transition && (e->protection & ~e->max_protection) == 0);
		KASSERT_ALWAYS(!(e->shared && e->needs_copy));
		at = entry_end(e);
		while (o != NULL && o->shadow != NULL)
			o = o->shadow;
		if (o != NULL)
			audit_tree(o);
	}
	KASSERT_ALWAYS(n == map->nentries);
	for (va = map->base; (va = pmap_next(map->pmap, va, &pte)) != 0; va += PAGE_SIZE) {
		e = vm_map_entry_at(map, va);
		if (e == NULL)
			kpanic("audit: %p is mapped, but belongs to no entry", (void *)va);
		audit_pte(map, e, va, pte);
	}
	KASSERT_ALWAYS(pmap_count_runs(map->pmap) == map->pmap->runs);
}

/* One line of /proc/self/maps that lies in a map. */
static void
audit_line(struct vm_map *map, vm_offset_t s, vm_offset_t end, const char *perms, uint64_t off, bool memfd)
{
	unsigned rights = (perms[0] == 'r' ? PTE_R : 0) | (perms[1] == 'w' ? PTE_W : 0) |
	    (perms[2] == 'x' ? PTE_X : 0);
	vm_offset_t va = s, next;
	pt_entry_t pte;

	if (!memfd) {
		next = pmap_next(map->pmap, s, &pte);
		if (rights != 0 || (next != 0 && next < end))
			kpanic("audit: the kernel maps nothing at %p", (void *)next);
		return;
	}
	for (; va < end; va += PAGE_SIZE, off += PAGE_SIZE) {
		unsigned ours;

		pte = pmap_extract(map->pmap, va);
		ours = perms[3] == 's' ? pte & PTE_PROT : pmap_view_rights(map->pmap, va);
		if (PTE_PFN(pte) != off >> PAGE_SHIFT || ours != rights)
			kpanic("audit: %p is frame %u rights %u, the kernel says %u, %u", (void *)va,
			    PTE_PFN(pte), pte & PTE_PROT, (unsigned)(off >> PAGE_SHIFT), rights);
	}
}

static void
audit_kernel(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], perms[5], name[256];

	KASSERT_ALWAYS(f != NULL);
	while (fgets(line, sizeof(line), f) != NULL) {
		unsigned long long s, e, off;
		struct vm_map *map;

		name[0] = '\0';
		if (sscanf(line, "%llx-%llx %4s %llx %*s %*s %255[^\n]", &s, &e, perms, &off, name) < 4)
			continue;
		/* A neighbour of the range may have been merged with its reserved part. */
		map = task_at((vm_offset_t)s);
		if (map == NULL && (map = task_at((vm_offset_t)e - 1)) != NULL)
			s = map->base;
		if (map == NULL)
			continue;
		audit_line(map, (vm_offset_t)s, (vm_offset_t)MIN(e, (unsigned long long)map->end), perms, off,
		    strstr(name, "memfd:vmfault") != NULL);
		task_put(map);
	}
	(void)fclose(f);
}

void
vm_audit(void)
{
	struct vm_map *map;
	sys_sigset_t old;

	trap_enter(&old);
	vm_pageout_hold();
	vm_view_hold();
	vm_homecoming_hold(true);
	while (vm_pager_transfers() != 0)
		sys_yield();
	seen.nobjects = seen.npfns = 0;
	seen.wired_ptes = seen.wire_counts = 0;
	for (uint32_t i = 0; (map = task_nth(i)) != NULL; i++) {
		audit_map(map);
		task_put(map);
	}
	KASSERT_ALWAYS(seen.wired_ptes == seen.wire_counts);
	if (seen.npfns != 0)
		qsort(seen.pfn, seen.npfns, sizeof(seen.pfn[0]), compare_pfn);
	for (size_t i = 1; i < seen.npfns; i++)
		if (seen.pfn[i] == seen.pfn[i - 1])
			kpanic("audit: frame %u belongs to two pages", seen.pfn[i]);
	audit_kernel();
	compress_audit();
	vm_homecoming_hold(false);
	vm_view_go_on();
	vm_pageout_go_on();
	trap_leave(&old);
}
