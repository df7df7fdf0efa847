/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The life of objects: made, shadowed, copied, cached, taken down.
 *
 * Whoever drops the last reference takes the object down, and then drops the
 * reference on the one below, in a loop: chains may be long.  When a drop leaves
 * only one shadow above, the two are merged (vm_collapse.c), so that a chain is never
 * longer than the number of its objects that somebody really uses.
 *
 * External objects, those of users' pagers, outlive their last mapping in the
 * object cache as long as the pager can be mapped again: their pages are found
 * there.  The cache's lock comes before all object locks, as it decides between
 * "found" and "being taken down".
 */

#include <string.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "machdep.h"
#include "pmap.h"
#include "vm_clean.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_pager.h"
#include "vm_view.h"

#define CACHE_MAX	100	/* unreferenced external objects that are kept */
#define COLLECT_LEAST	8	/* times that wired pages are looked at until they hold still ... */
#define COLLECT_MOST	128	/* ... or so often, as long as it is not more than ... */
#define COLLECT_PAGES	65536	/* ... so many pages in all */

static struct slab object_slab;
static struct kmutex cache_lock;			/* P; guards what follows */
static TAILQ_HEAD(, vm_object) cached;			/* oldest first */
static uint32_t ncached;

static struct kmutex cut_lock;
static bool cut_busy;					/* guarded by cut_lock */

void
vm_object_init(void)
{
	vm_home_init();
	vm_homecoming_init();
	slab_init(&object_slab, "vm_object", sizeof(struct vm_object), 64);
	kmutex_init(&cache_lock, RANK_PAGER);
	krwlock_init(&vm_rmap_lock, RANK_RMAP);
	kmutex_init(&cut_lock, RANK_CUT);
	cut_busy = false;
	TAILQ_INIT(&cached);
	ncached = 0;
}

void
vm_object_fini(void)
{
	KASSERT(ncached == 0);
	slab_fini(&object_slab);
	vm_home_fini();
}

uint64_t
vm_object_count(void)
{
	uint64_t n;

	kmutex_lock(&object_slab.lock);
	n = object_slab.used;
	kmutex_unlock(&object_slab.lock);
	return n;
}

struct vm_object *
vm_object_allocate(vm_pindex_t npages, bool owned)
{
	struct vm_object *o = slab_alloc(&object_slab);

	if (o == NULL)
		return NULL;
	kmutex_init(&o->lock, RANK_OBJECT);
	o->ref_count = 1;
	o->internal = true;
	o->owned = owned;
	o->size = npages;
	LIST_INIT(&o->children);
	LIST_INIT(&o->mappings);
	TAILQ_INIT(&o->run_list);
	return o;
}

void
vm_object_free(struct vm_object *o)
{
	KASSERT(o->pages.count == 0);
	slab_free(&object_slab, o);
}

void
vm_object_reference(struct vm_object *o)
{
	vm_object_lock(o);
	KASSERT(o->ref_count > 0);
	o->ref_count++;
	vm_object_unlock(o);
}

void
vm_object_pip_add(struct vm_object *o)
{
	KASSERT(kmutex_held(&o->lock));
	o->paging_in_progress++;
}

void
vm_object_pip_done(struct vm_object *o)
{
	KASSERT(kmutex_held(&o->lock));
	KASSERT(o->paging_in_progress > 0);
	if (--o->paging_in_progress == 0 && (o->flags & OBJ_PIPWNT)) {
		o->flags &= (uint16_t)~OBJ_PIPWNT;
		event_wake(&o->paging_in_progress);
	}
}

/* => locked, at return again; somebody keeps the object alive */
static void
pip_wait(struct vm_object *o)
{
	while (o->paging_in_progress != 0) {
		uint32_t ticket = event_prepare(&o->paging_in_progress);

		o->flags |= OBJ_PIPWNT;
		vm_object_unlock(o);
		(void)event_wait(&o->paging_in_progress, ticket, EVENT_FOREVER);
		vm_object_lock(o);
	}
}

bool
vm_object_is_sole(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	const struct vm_mapping *map;
	uint32_t showing = 0;
	bool sole;

	KASSERT(kmutex_held(&o->lock));
	krwlock_read(&vm_rmap_lock);
	sole = o->internal && o->shadow == NULL && o->copy == NULL && LIST_EMPTY(&o->children);
	LIST_FOREACH(map, &o->mappings, link)
		showing += map->offset < hi && lo < map->offset + (uint64_t)atop(map->end - map->start);
	krwlock_read_unlock(&vm_rmap_lock);
	return sole && showing == 1;
}

void
vm_object_keep_given(struct vm_object *o)
{
	vm_pindex_t i = 0;
	struct vm_page *m;

	KASSERT(kmutex_held(&o->lock));
	for (; (o->flags & OBJ_GIVEN) && (m = radix_next(&o->pages, &i)) != NULL; i++)
		if (m->flags & PG_FREE)
			m->flags = (uint16_t)((m->flags & ~PG_FREE) | PG_MODIFIED);
	o->flags &= (uint16_t)~OBJ_GIVEN;
}

bool
vm_object_paged_out(struct vm_object *o, vm_pindex_t pindex)
{
	return o->pager != NULL && o->pager->ops->queryable &&
	    vm_pager_has_page(o->pager, (uint64_t)pindex + o->paging_offset);
}

/*
 * Taking down
 */

/* Many at a time: there may be millions, and others want the locks of queues and frames meanwhile.  => locked */
static void
free_pages(struct vm_object *o)
{
	struct vm_page *batch[VM_PAGE_MANY], *m;
	uint32_t n = 0, seen = 0;
	vm_pindex_t i = 0;

	for (; (m = radix_next(&o->pages, &i)) != NULL; i++) {
		if (m->pfn == 0) {
			vm_page_free(m);
			continue;
		}
		batch[n++] = m;
		if (n == VM_PAGE_MANY) {
			vm_page_free_many(batch, n, false);
			locks_give_way(&seen);
			n = 0;
		}
	}
	vm_page_free_many(batch, n, false);
}

/*
 * => locked, DEAD, without references; unlocked and gone at return.
 * => returns the object below, whose reference is now the caller's.
 */
static struct vm_object *
terminate(struct vm_object *o)
{
	struct vm_object *shadow;
	struct vm_pager *pager;

	pip_wait(o);
	KASSERT(LIST_EMPTY(&o->children) && LIST_EMPTY(&o->mappings) && o->copy == NULL);
	KASSERT(avl_first(&o->views) == NULL);
	shadow = o->shadow;
	if (shadow != NULL) {
		vm_object_lock(shadow);
		if (shadow->copy == o)
			shadow->copy = NULL;
		krwlock_write(&vm_rmap_lock);
		LIST_REMOVE(o, sibling);
		o->shadow = NULL;
		krwlock_write_unlock(&vm_rmap_lock);
		vm_object_unlock(shadow);
	}
	free_pages(o);
	vm_object_home_release(o);
	pager = o->pager;
	vm_object_unlock(o);

	if (pager != NULL) {
		if (!o->internal) {
			kmutex_lock(&cache_lock);
			pager->object = NULL;
			kmutex_unlock(&cache_lock);
			event_wake(pager);
		}
		handle_put(&pager->handle);
	}
	vm_object_free(o);
	if (shadow != NULL)
		vm_view_still(shadow);
	return shadow;
}

/* The object's pages could not be written: it stays, unreferenced, until they can be.  => DEAD, no locks held */
static void
revive(struct vm_object *o)
{
	struct vm_pager *pager = o->pager;

	kmutex_lock(&cache_lock);
	vm_object_lock(o);
	o->flags = (uint16_t)((o->flags & ~OBJ_DEAD) | OBJ_CACHED);
	TAILQ_INSERT_TAIL(&cached, o, cache);
	ncached++;
	vm_object_unlock(o);
	kmutex_unlock(&cache_lock);
	event_wake(pager);
}

/*
 * Write out what an external object still holds, then take it down.  last: it is the last chance to.
 * => DEAD, no locks held.
 */
static void
terminate_external(struct vm_object *o, bool last)
{
	struct vm_pager *pager = o->pager;
	uint32_t lost;

	if (vm_pager_can_put(pager) && vm_object_clean(o, 0, o->size, &lost) != KERN_SUCCESS) {
		if (pager->ops->keeps && !last) {
			revive(o);
			return;
		}
		klog("pager %s: %u modified pages could not be written and are lost",
		    pager->ops->name, lost);
	}
	vm_object_lock(o);
	(void)terminate(o);
}

/* Take it out of the cache, and let nobody find it any more.  => cache locked; the object, too */
static void
kill_cached(struct vm_object *o)
{
	if (o->flags & OBJ_CACHED) {
		TAILQ_REMOVE(&cached, o, cache);
		ncached--;
	}
	o->flags = (uint16_t)((o->flags & ~OBJ_CACHED) | OBJ_DEAD);
}

/* Drop a reference of an external object. */
static void
external_release(struct vm_object *o)
{
	struct vm_object *victim = NULL;

	kmutex_lock(&cache_lock);
	vm_object_lock(o);
	if (--o->ref_count == 0) {
		victim = o;
		if (handle_is_open(&o->pager->handle)) {
			if (!(o->flags & OBJ_CACHED)) {
				o->flags |= OBJ_CACHED;
				TAILQ_INSERT_TAIL(&cached, o, cache);
				ncached++;
			}
			victim = ncached > CACHE_MAX ? TAILQ_FIRST(&cached) : NULL;
		}
	}
	if (victim == o)
		kill_cached(o);
	vm_object_unlock(o);
	if (victim != NULL && victim != o) {
		vm_object_lock(victim);
		kill_cached(victim);
		vm_object_unlock(victim);
	}
	kmutex_unlock(&cache_lock);
	if (victim != NULL)
		terminate_external(victim, false);
}

/*
 * If o has only one shadow, and nothing else but the caller needs it, merge the two once the
 * caller's reference is gone.
 * => o locked, unlocked at return.
 * => the shadow, referenced, for the caller to release; or null, and the caller's reference is
 *    dropped; or o itself: try again.
 */
static struct vm_object *
release_to_child(struct vm_object *o)
{
	struct vm_object *child;
	bool locked;

	krwlock_read(&vm_rmap_lock);
	child = LIST_FIRST(&o->children);
	if (child == NULL || LIST_NEXT(child, sibling) != NULL) {
		krwlock_read_unlock(&vm_rmap_lock);
		o->ref_count--;
		vm_object_unlock(o);
		return NULL;
	}
	locked = vm_object_lock_try(child);
	krwlock_read_unlock(&vm_rmap_lock);
	if (!locked) {
		vm_object_unlock(o);
		PROBE("release_to_child: child busy");
		sys_yield();
		return o;
	}
	o->ref_count--;
	vm_object_unlock(o);
	if (child->ref_count == 0) {		/* on its way out: it will release o itself */
		vm_object_unlock(child);
		return NULL;
	}
	child->ref_count++;
	vm_object_collapse(child);
	vm_object_unlock(child);
	return child;
}

void
vm_object_deallocate(struct vm_object *o)
{
	while (o != NULL) {
		if (!o->internal) {
			external_release(o);
			return;
		}
		vm_object_lock(o);
		KASSERT(o->ref_count > 0);
		if (o->ref_count == 2) {
			o = release_to_child(o);
			continue;
		}
		if (--o->ref_count > 0) {
			vm_object_unlock(o);
			return;
		}
		o->flags |= OBJ_DEAD;
		o = terminate(o);
	}
}

/*
 * Nobody can see a page if nothing but mappings refers to the object and no other one shows it.  Where this is
 * the only mapping, the object goes as a whole, without the map's lock.
 */
void
vm_object_page_remove(struct vm_object *o, const struct vm_mapping *map, vm_pindex_t lo,
    vm_pindex_t hi)
{
	const struct vm_mapping *other;
	struct vm_page *m;
	uint32_t refs = 0;
	bool sole;

	if (!o->internal)
		return;
	vm_object_lock(o);
	krwlock_read(&vm_rmap_lock);
	sole = o->copy == NULL && LIST_EMPTY(&o->children);
	LIST_FOREACH(other, &o->mappings, link) {
		refs++;
		if (other != map && other->offset < hi &&
		    lo < other->offset + (uint64_t)atop(other->end - other->start))
			sole = false;
	}
	krwlock_read_unlock(&vm_rmap_lock);
	if (o->shadow != NULL) {
		/* What was pushed to a copy counts as done: it must not be owed again. */
		vm_object_lock(o->shadow);
		sole = sole && o->shadow->copy != o;
		vm_object_unlock(o->shadow);
	}
	if (sole && refs > 1 && refs == o->ref_count && o->paging_in_progress == 0) {
		for (vm_pindex_t i = lo; (m = radix_next(&o->pages, &i)) != NULL && i < hi; i++)
			if (!(m->flags & PG_BUSY) && m->wire_count == 0)
				vm_page_free(m);
		if (o->pager != NULL)
			vm_pager_dispose(o->pager, (uint64_t)lo + o->paging_offset, hi - lo);
	}
	vm_object_unlock(o);
}

/*
 * External objects and their cache
 */

struct vm_object *
vm_object_for_pager(struct vm_pager *pager)
{
	struct vm_object *o;

	vm_count(v_lookups);
	for (;;) {
		uint32_t ticket;
		bool dead;

		kmutex_lock(&cache_lock);
		o = pager->object;
		if (o == NULL)
			break;
		vm_object_lock(o);
		dead = o->flags & OBJ_DEAD;
		if (!dead) {
			if (o->flags & OBJ_CACHED) {
				TAILQ_REMOVE(&cached, o, cache);
				ncached--;
				o->flags &= (uint16_t)~OBJ_CACHED;
			}
			o->ref_count++;
			vm_object_unlock(o);
			kmutex_unlock(&cache_lock);
			vm_count(v_hits);
			return o;
		}
		ticket = event_prepare(pager);
		vm_object_unlock(o);
		kmutex_unlock(&cache_lock);
		(void)event_wait(pager, ticket, EVENT_FOREVER);
	}
	o = vm_object_allocate((vm_pindex_t)pager->npages, true);
	if (o != NULL) {
		o->internal = false;
		o->pager = pager;
		handle_ref(&pager->handle);
		pager->object = o;
	}
	kmutex_unlock(&cache_lock);
	return o;
}

void
vm_object_uncache(struct vm_pager *pager)
{
	struct vm_object *o;
	bool dead = false;

	kmutex_lock(&cache_lock);
	o = pager->object;
	if (o != NULL) {
		vm_object_lock(o);
		dead = o->flags & OBJ_CACHED;
		if (dead)
			kill_cached(o);
		vm_object_unlock(o);
	}
	kmutex_unlock(&cache_lock);
	if (dead)
		terminate_external(o, true);
}

/*
 * Shadows and copies
 */

bool
vm_object_shadow(struct vm_mapping *map)
{
	struct vm_object *s = vm_object_allocate((vm_pindex_t)atop(map->end - map->start), true);

	if (s == NULL)
		return false;
	/*
	 * In one step: once the shadow can be found as the only one above the object, the two may be
	 * merged, and the object must not be mapped any more.
	 */
	krwlock_write(&vm_rmap_lock);
	s->shadow = map->object;
	s->shadow_offset = map->offset;
	LIST_INSERT_HEAD(&map->object->children, s, sibling);
	LIST_REMOVE(map, link);
	map->object = s;
	map->offset = 0;
	LIST_INSERT_HEAD(&s->mappings, map, link);
	krwlock_write_unlock(&vm_rmap_lock);
	return true;
}

/* Pages of o in [lo, hi) that are wired, one after the other. */
static struct vm_page *
next_wired(struct vm_object *o, vm_pindex_t *i, vm_pindex_t hi)
{
	struct vm_page *m;

	for (; (m = radix_next(&o->pages, i)) != NULL && *i < hi; ++*i)
		if (m->wire_count != 0 && !(m->flags & PG_FAKE))
			return m;
	return NULL;
}

/*
 * A placeholder in the copy for every wired page of o, which is wired once more, so that it stays until it is
 * copied.  false: no frames; nothing has changed.  => both locked
 */
static bool
copy_wired_prepare(struct vm_object *o, struct vm_object *c)
{
	vm_pindex_t hi = c->shadow_offset + c->size, i = c->shadow_offset;
	struct vm_page *m;

	for (; o->wired_pages != 0 && (m = next_wired(o, &i, hi)) != NULL; i++) {
		if (vm_page_alloc(c, i - c->shadow_offset, PHYSMEM_OVERWRITE) != NULL) {
			vm_page_wire(m);
			continue;
		}
		for (i = 0; (m = radix_next(&c->pages, &i)) != NULL;) {
			vm_page_unwire(vm_page_lookup(o, i + c->shadow_offset));
			vm_page_free(m);
		}
		return false;
	}
	return true;
}

/* Copy what is new or has changed to the placeholders.  Returns whether anything was; counts them.  => no lock */
static bool
collect(struct vm_object *c, bool first, uint64_t *looked)
{
	struct vm_object *o = c->cut_from;
	bool again = false;
	struct vm_page *m;

	vm_object_lock(c);
	vm_object_lock(o);
	for (vm_pindex_t i = 0; (m = radix_next(&c->pages, &i)) != NULL; i++) {
		struct vm_page *w;

		if (!(m->flags & PG_FAKE))
			continue;
		w = vm_page_lookup(o, i + c->cut_offset);
		++*looked;
		if (first || physmem_differ(w->pfn, m->pfn)) {
			physmem_copy(w->pfn, m->pfn, 1);
			again = true;
		}
	}
	vm_object_unlock(o);
	vm_object_unlock(c);
	return again;
}

/* The placeholders are pages.  => no lock */
static void
collected(struct vm_object *c)
{
	struct vm_object *o = c->cut_from;
	struct vm_page *m;

	vm_object_lock(c);
	vm_object_lock(o);
	for (vm_pindex_t i = 0; (m = radix_next(&c->pages, &i)) != NULL; i++) {
		struct vm_page *w;

		if (!(m->flags & PG_FAKE))
			continue;
		w = vm_page_lookup(o, i + c->cut_offset);
		m->flags = (uint16_t)((m->flags & ~PG_FAKE) | PG_MODIFIED);
		/* Older copies are read through this one now, and see its page. */
		vm_object_shoot(c, i, w, m);
		vm_page_unwire(w);
		vm_page_activate(m);
		vm_page_wakeup(m);
		vm_count(v_pushes);
	}
	vm_object_pip_done(c);
	vm_object_unlock(o);
	vm_object_unlock(c);
}

/* Lock o and its live copy, if any.  => c, which is above both, is locked. */
static struct vm_object *
lock_with_copy(struct vm_object *o)
{
	for (;;) {
		struct vm_object *old;

		vm_object_lock(o);
		old = o->copy;
		if (old == NULL)
			return NULL;
		if (vm_object_lock_try(old)) {
			if (old->ref_count > 0)
				return old;
			vm_object_unlock(old);	/* dying; it looks for itself before it clears o->copy */
			return NULL;
		}
		vm_object_unlock(o);
		PROBE("vm_object_copy: old copy busy");
		sys_yield();
	}
}

/* Put c between o and its older copy, if any.  => all locked */
static void
link_copy(struct vm_object *c, struct vm_object *o, struct vm_object *old)
{
	krwlock_write(&vm_rmap_lock);
	c->shadow = o;
	LIST_INSERT_HEAD(&o->children, c, sibling);
	if (old != NULL) {
		LIST_REMOVE(old, sibling);
		LIST_INSERT_HEAD(&c->children, old, sibling);
		old->shadow = c;
		old->shadow_offset -= c->shadow_offset;
		c->ref_count++;		/* old's; its reference on o is now c's */
	} else {
		o->ref_count++;
	}
	krwlock_write_unlock(&vm_rmap_lock);
	o->copy = c;
}

enum kern_return
vm_object_copy(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, struct vm_cut *cut,
    struct vm_object **copy, vm_pindex_t *copy_lo)
{
	struct vm_object *c = vm_object_allocate(0, false), *old, *unused = NULL;
	enum kern_return result = KERN_SUCCESS;
	struct vm_cut own = { 0 };
	bool wired = false;

	if (c == NULL)
		return KERN_RESOURCE_SHORTAGE;
	vm_object_lock(c);
	old = lock_with_copy(o);
	/*
	 * A copy that was merged with a shadow above it lives on as that shadow, which somebody writes to:
	 * it gets what is pushed, but it is no snapshot of anything.
	 */
	if (old != NULL && !old->owned && !vm_view_differs(o, old, lo, hi) &&
	    old->shadow_offset <= lo && old->shadow_offset + old->size >= hi &&
	    ((old->pages.count == 0 && old->pager == NULL) || (cut != NULL && o->cut_listed))) {
		/* Nothing was written since the last copy, or that was of this very instant: it serves. */
		old->ref_count++;
		*copy = old;
		*copy_lo = old->shadow_offset;
		unused = c;
	} else {
		if (old != NULL) {
			lo = MIN(lo, old->shadow_offset);
			hi = MAX(hi, old->shadow_offset + old->size);
		}
		vm_object_keep_given(o);
		*copy = c;
		*copy_lo = c->shadow_offset = lo;
		c->size = hi - lo;
		if (copy_wired_prepare(o, c)) {
			wired = c->pages.count != 0;
			link_copy(c, o, old);
			vm_view_cut(o, lo, hi, old);
			vm_object_protect(o, lo, hi, VM_PROT_READ | VM_PROT_EXECUTE, PMAP_KEEP_WIRED | PMAP_CUT);
		} else {
			unused = c;
			result = KERN_RESOURCE_SHORTAGE;
		}
	}
	if (result == KERN_SUCCESS && cut != NULL)
		o->flags |= OBJ_CUT;
	if (wired) {
		vm_object_pip_add(c);
		c->ref_count++;
		c->cut_from = o;
		c->cut_offset = lo;
	}
	vm_object_unlock(o);
	if (old != NULL)
		vm_object_unlock(old);
	vm_object_unlock(c);
	if (unused != NULL) {
		vm_object_home_release(unused);
		vm_object_free(unused);
	}
	if (wired) {
		/* In the order of their making: a later copy of the same object is further down the chain. */
		struct vm_object **last = cut != NULL ? &cut->copies : &own.copies;

		while (*last != NULL)
			last = &(*last)->cut_next;
		*last = c;
	}
	vm_cut_collect(&own);
	vm_cut_thaw(&own);
	if (result == KERN_SUCCESS && cut != NULL)
		vm_cut_add(cut, o);
	return result;
}

/*
 * Cuts
 */

void
vm_cut_begin(struct vm_cut *cut)
{
	locks_assert_none();
	*cut = (struct vm_cut){ 0 };
	kmutex_lock(&cut_lock);
	while (cut_busy) {
		uint32_t ticket = event_prepare(&cut_busy);

		kmutex_unlock(&cut_lock);
		(void)event_wait(&cut_busy, ticket, EVENT_FOREVER);
		kmutex_lock(&cut_lock);
	}
	cut_busy = true;
	kmutex_unlock(&cut_lock);
}

void
vm_cut_add(struct vm_cut *cut, struct vm_object *o)
{
	if (o == NULL || o->cut_listed)
		return;
	vm_object_reference(o);
	o->cut_listed = true;
	o->cut_next = cut->objects;
	cut->objects = o;
}

void
vm_cut_collect(struct vm_cut *cut)
{
	struct vm_object *c;
	uint64_t looked = 0;
	bool again = true;

	/* Pages that never hold still are taken as they come. */
	for (int n = 0; again && (n < COLLECT_LEAST || (n < COLLECT_MOST && looked < COLLECT_PAGES)); n++) {
		again = false;
		for (c = cut->copies; c != NULL; c = c->cut_next)
			again |= collect(c, n == 0, &looked);
		PROBE("vm_cut_collect: between looks");
	}
	/* From the top down: who sees a page of the upper one must not be given the lower one's. */
	for (c = cut->copies; c != NULL; c = c->cut_next)
		collected(c);
}

void
vm_cut_thaw(struct vm_cut *cut)
{
	struct vm_object *o;

	while ((o = cut->copies) != NULL) {
		cut->copies = o->cut_next;
		vm_object_deallocate(o);
	}
	while ((o = cut->objects) != NULL) {
		cut->objects = o->cut_next;
		o->cut_listed = false;
		vm_object_lock(o);
		o->flags &= (uint16_t)~(OBJ_CUT | OBJ_FROZEN);
		vm_object_unlock(o);
		event_wake(&o->flags);
		vm_object_deallocate(o);
	}
}

void
vm_cut_end(struct vm_cut *cut)
{
	KASSERT(cut->objects == NULL);
	kmutex_lock(&cut_lock);
	cut_busy = false;
	kmutex_unlock(&cut_lock);
	event_wake(&cut_busy);
}
