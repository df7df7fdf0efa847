/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Snapshots: taking, reading, mapping, comparing, letting go.  (Going back: rollback.c.)
 *
 * A snapshot is a list of pieces, each a run of pages of an object whose contents never change
 * again: the asymmetric copy of what the range showed, or the object itself where the entry was
 * needs_copy, or nothing where memory had never been touched.
 *
 * THE INSTANT.  All maps concerned are locked for writing, so no fault enters anything in them.  Each
 * object is copied: its writable mappings are revoked, and it is marked OBJ_CUT, which makes
 * writers wait that come through other maps.  So from the moment that its copy is taken no byte
 * of an object changes before the cut ends, wired pages excepted, which are copied when all
 * else stands still; a thread that was refused waits, and cannot
 * write anywhere else what it would have done afterwards.  The instant is the last revocation:
 * what is in the snapshot was written before it, and whoever wrote something that is not
 * in it did so after all of it.
 */

#include <errno.h>
#include <string.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "snapshot.h"
#include "snapshot_impl.h"
#include "task.h"
#include "vm_fault.h"
#include "vm_meter.h"
#include "vm_pager.h"
#include "vm_view.h"

static _Atomic uint64_t serials;
static _Atomic uint64_t longest;	/* nanoseconds that a snapshot took */

int
errno_of(enum kern_return result)
{
	switch (result) {
	case KERN_SUCCESS:
		return 0;
	case KERN_INVALID_ADDRESS:
		return -EFAULT;
	case KERN_PROTECTION_FAILURE:
		return -EACCES;
	case KERN_MEMORY_ERROR:
		return -EIO;
	case KERN_MEMORY_BEYOND:
		return -ENXIO;
	case KERN_BUSY:
		return -EBUSY;
	default:
		return -ENOMEM;
	}
}

void
snapshot_fini(void)
{
	KASSERT(snapshot_count() == 0);
	atomic_store(&longest, 0);
}

uint64_t
snapshot_longest(void)
{
	return atomic_load_explicit(&longest, memory_order_relaxed);
}

uint64_t
snapshot_count(void)
{
	return handle_count(HANDLE_SNAPSHOT);
}

struct snapshot *
snapshot_get(uint64_t name)
{
	struct handle *h = handle_get(HANDLE_SNAPSHOT, name);

	return h != NULL ? container_of(h, struct snapshot, handle) : NULL;
}

static void
pieces_free(struct piece_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->piece[i].object != NULL)
			vm_object_deallocate(list->piece[i].object);
	if (list->piece != NULL)
		kmem_free(list->piece, list->bytes);
	*list = (struct piece_list){ 0 };
}

static void
destroy(struct handle *h)
{
	struct snapshot *s = container_of(h, struct snapshot, handle);

	if (atomic_load(&s->rolled))
		snapshot_end_rollbacks(s);
	pieces_free(&s->pieces);
	kmem_free(s, s->bytes);
}

/* Make room for one piece more. */
static bool
piece_room(struct piece_list *list)
{
	struct piece *p;
	size_t bytes;

	if ((list->n + 1) * sizeof(*p) <= list->bytes)
		return true;
	bytes = MAX(list->bytes * 2, PAGE_SIZE);
	p = kmem_alloc(bytes);
	if (p == NULL)
		return false;
	if (list->piece != NULL) {
		memcpy(p, list->piece, list->n * sizeof(*p));
		kmem_free(list->piece, list->bytes);
	}
	list->piece = p;
	list->bytes = bytes;
	return true;
}

/*
 * The maps of the ranges
 */

/* Find and reference the maps, each once, in the order of their addresses. */
int
maps_find(struct map_set *set, const struct vmf_range *r, size_t n)
{
	*set = (struct map_set){ .map = set->few };
	if (n > MAPS_FEW) {
		set->bytes = n * sizeof(struct vm_map *);
		set->map = kmem_alloc(set->bytes);
	}
	if (set->map == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		vm_offset_t s = (vm_offset_t)r[i].addr;
		struct vm_map *map = task_at(s);
		size_t k;

		if (map == NULL || map->end - s < r[i].size) {
			if (map != NULL)
				task_put(map);
			maps_release(set);
			return -EFAULT;
		}
		for (k = 0; k < set->n && set->map[k]->base < map->base; k++)
			;
		if (k < set->n && set->map[k] == map) {
			task_put(map);
			continue;
		}
		memmove(set->map + k + 1, set->map + k, (set->n - k) * sizeof(set->map[0]));
		set->map[k] = map;
		set->n++;
	}
	return 0;
}

void
maps_release(struct map_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		task_put(set->map[i]);
	if (set->bytes != 0)
		kmem_free(set->map, set->bytes);
	set->n = 0;
}

struct vm_map *
maps_of(const struct map_set *set, const void *addr)
{
	for (size_t i = 0; i < set->n; i++)
		if ((vm_offset_t)addr >= set->map[i]->base && (vm_offset_t)addr < set->map[i]->end)
			return set->map[i];
	return NULL;
}

void
maps_unlock(struct map_set *set)
{
	for (size_t i = set->n; i-- > 0;)
		krwlock_write_unlock(&set->map[i]->lock);
}

/* Lock all maps for writing with all ranges mapped and no entry of them in transition. */
int
maps_lock(struct map_set *set, const struct vmf_range *r, size_t n)
{
	for (;;) {
		struct vm_map *wait = NULL;
		uint32_t ticket = 0;
		bool mapped = true;

		for (size_t i = 0; i < set->n; i++)
			krwlock_write(&set->map[i]->lock);
		for (size_t i = 0; i < n && mapped; i++) {
			vm_offset_t s = (vm_offset_t)r[i].addr, end = s + r[i].size;
			struct vm_map *map = maps_of(set, r[i].addr);
			struct vm_map_entry *e;

			mapped = vm_map_is_mapped(map, s, end);
			for (e = vm_map_entry_ge(map, s); e != NULL && entry_start(e) < end && wait == NULL;
			    e = vm_map_entry_next(e))
				if (e->in_transition) {
					wait = map;
					ticket = event_prepare(map);
				}
		}
		if (mapped && wait == NULL)
			return 0;
		maps_unlock(set);
		if (!mapped)
			return -EFAULT;
		(void)event_wait(wait, ticket, EVENT_FOREVER);
	}
}

/* Make the ranges' ends ends of entries; or merge again what is alike.  => locked */
bool
maps_clip(struct map_set *set, const struct vmf_range *r, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		vm_offset_t s = (vm_offset_t)r[i].addr;

		if (!vm_map_clip(maps_of(set, r[i].addr), s, s + r[i].size))
			return false;
	}
	return true;
}

void
maps_simplify(struct map_set *set, const struct vmf_range *r, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		vm_offset_t s = (vm_offset_t)r[i].addr;

		vm_map_simplify(maps_of(set, r[i].addr), s, s + r[i].size);
	}
}

/*
 * Taking
 */

/* Are two of the ranges on top of each other? */
static bool
overlap(const struct vmf_range *r, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < i; k++) {
			vm_offset_t a = (vm_offset_t)r[i].addr, b = (vm_offset_t)r[k].addr;

			if (a < b + r[k].size && b < a + r[i].size)
				return true;
		}
	return false;
}

/* Copy what range i shows into the snapshot's pieces.  => its map write-locked and clipped */
static int
take_range(struct snapshot *snap, size_t i, struct vm_map *map, struct vm_cut *cut)
{
	vm_offset_t s = (vm_offset_t)snap->range[i].addr, end = s + snap->range[i].size;
	struct vm_map_entry *e;

	for (e = vm_map_entry_ge(map, s); e != NULL && entry_start(e) < end; e = vm_map_entry_next(e)) {
		enum kern_return result;
		struct piece *p;

		if (!piece_room(&snap->pieces))
			return -ENOMEM;
		p = &snap->pieces.piece[snap->pieces.n];
		*p = (struct piece){ .range = i, .start = entry_start(e) - s, .size = entry_end(e) - entry_start(e) };
		result = vm_map_copy_object(map, e, false, cut, &p->object, &p->offset);
		if (result != KERN_SUCCESS)
			return -ENOMEM;
		snap->pieces.n++;
	}
	return 0;
}

static bool
readable(struct map_set *set, const struct vmf_range *r, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		vm_offset_t s = (vm_offset_t)r[i].addr, end = s + r[i].size;
		struct vm_map_entry *e = vm_map_entry_at(maps_of(set, r[i].addr), s);

		for (; e != NULL && entry_start(e) < end; e = vm_map_entry_next(e))
			if (!(e->protection & VM_PROT_READ))
				return false;
	}
	return true;
}

/* A snapshot has been taken that was begun at this time. */
static void
count_snapshot(uint64_t began)
{
	uint64_t took = sys_clock() - began, most = snapshot_longest();

	vm_count(v_snapshots);
	vm_count_n(v_snapshot_ns, took);
	while (took > most && !atomic_compare_exchange_weak(&longest, &most, took))
		continue;
}

int
snapshot_create(const struct vmf_range *ranges, size_t n, uint64_t *name)
{
	size_t bytes = sizeof(struct snapshot) + n * sizeof(struct vmf_range);
	uint64_t began = sys_clock();
	struct vm_cut cut;
	struct snapshot *snap;
	struct map_set set;
	int error;

	if (overlap(ranges, n))
		return -EINVAL;
	snap = kmem_alloc(bytes);
	if (snap == NULL)
		return -ENOMEM;
	snap->bytes = bytes;
	snap->serial = 1 + atomic_fetch_add(&serials, 1);
	snap->nranges = n;
	memcpy(snap->range, ranges, n * sizeof(*ranges));
	error = maps_find(&set, ranges, n);
	if (error != 0) {
		kmem_free(snap, bytes);
		return error;
	}

	vm_cut_begin(&cut);
	error = maps_lock(&set, ranges, n);
	if (error == 0) {
		if (!readable(&set, ranges, n))
			error = -EACCES;
		else if (!maps_clip(&set, ranges, n))
			error = -ENOMEM;
		for (size_t i = 0; i < n && error == 0; i++) {
			error = take_range(snap, i, maps_of(&set, ranges[i].addr), &cut);
			PROBE("snapshot_create: between ranges");
		}
		vm_cut_collect(&cut);
		maps_simplify(&set, ranges, n);
		maps_unlock(&set);
	}
	PROBE("snapshot_create: before the end of the cut");
	vm_cut_thaw(&cut);
	vm_cut_end(&cut);
	maps_release(&set);

	if (error == 0) {
		*name = handle_create(HANDLE_SNAPSHOT, &snap->handle, destroy);
		if (*name == 0)
			error = -ENOMEM;
	}
	if (error != 0)
		destroy(&snap->handle);
	else
		count_snapshot(began);
	return error;
}

int
snapshot_release(uint64_t name)
{
	return handle_close(HANDLE_SNAPSHOT, name);
}

void
snapshot_release_all(void)
{
	struct handle *h;

	while ((h = handle_any(HANDLE_SNAPSHOT)) != NULL) {
		(void)handle_close(HANDLE_SNAPSHOT, h->name);
		handle_put(h);
	}
}

/*
 * Looking at
 */

/* The piece that has byte `offset' of a range.  Pieces of a range are in order, without gaps. */
const struct piece *
piece_at(const struct piece_list *list, size_t range, size_t offset)
{
	size_t lo = 0, hi = list->n;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;
		const struct piece *p = &list->piece[mid];

		if (p->range > range || (p->range == range && p->start > offset))
			hi = mid;
		else
			lo = mid;
	}
	return &list->piece[lo];
}

/* Does [offset, offset + size) lie in range number `range'? */
static bool
inside(const struct snapshot *s, size_t range, size_t offset, size_t size)
{
	return range < s->nranges && offset <= s->range[range].size &&
	    size <= s->range[range].size - offset;
}

int
piece_read(const struct piece *p, size_t offset, void *buf, size_t len)
{
	vm_pindex_t pindex = p->offset + (vm_pindex_t)((offset - p->start) >> PAGE_SHIFT);

	if (p->object == NULL) {
		memset(buf, 0, len);
		return 0;
	}
	return errno_of(vm_fault_read_object(p->object, pindex, offset & PAGE_MASK, buf, len));
}

int
snapshot_read(uint64_t name, size_t range, size_t offset, void *buf, size_t len)
{
	struct snapshot *s = snapshot_get(name);
	int error;

	if (s == NULL)
		return -EBADF;
	error = !inside(s, range, offset, len) ? -EINVAL : len == 0 ? 0 :
	    piece_read(piece_at(&s->pieces, range, offset), offset, buf, len);
	handle_put(&s->handle);
	return error;
}

/* Insert views of the pieces at va.  => map write-locked, the range free */
static int
insert_views(struct snapshot *s, size_t range, size_t offset, size_t size, struct vm_map *map,
    vm_offset_t va, vm_prot_t prot, struct vm_reaper *reaper)
{
	struct vm_map_attr attr = {
		.protection = prot, .max_protection = VM_PROT_ALL, .inheritance = VM_INHERIT_COPY,
	};

	for (size_t done = 0, len; done < size; done += len) {
		const struct piece *p = piece_at(&s->pieces, range, offset + done);
		size_t skip = offset + done - p->start;

		len = MIN(p->size - skip, size - done);
		attr.needs_copy = p->object != NULL;
		if (p->object != NULL)
			vm_object_reference(p->object);
		if (!vm_map_insert(map, va + done, va + done + len, p->object,
		    p->object != NULL ? p->offset + (vm_pindex_t)(skip >> PAGE_SHIFT) : 0, &attr)) {
			reaper->orphan = p->object;
			vm_map_delete(map, va, va + done, reaper);
			return -ENOMEM;
		}
	}
	return 0;
}

int
snapshot_map(uint64_t name, size_t range, size_t offset, size_t size, struct vm_map *map, vm_offset_t *va,
    bool fixed, vm_prot_t prot)
{
	struct snapshot *s = snapshot_get(name);
	struct vm_reaper reaper = { 0 };
	vm_offset_t at = *va;
	int error;

	if (s == NULL)
		return -EBADF;
	if (!inside(s, range, offset, size)) {
		handle_put(&s->handle);
		return -EINVAL;
	}
	krwlock_write(&map->lock);
	if (!fixed)
		at = vm_map_find(map, size);
	if (map->dead)
		error = -EBADF;
	else if (at == 0)
		error = -ENOMEM;
	else if (fixed && !vm_map_is_free(map, at, at + size))
		error = -EEXIST;
	else
		error = insert_views(s, range, offset, size, map, at, prot, &reaper);
	krwlock_write_unlock(&map->lock);
	vm_map_reap(&reaper);
	handle_put(&s->handle);
	if (error == 0)
		*va = at;
	return error;
}

/*
 * Comparing
 */

/* Where a page's contents come from: object and page, or zeros (null). */
struct origin {
	struct vm_object *object;
	vm_pindex_t pindex;
	bool viewed;			/* ... or not: who is above sees the frame, or not, as the case may be */
};

static struct origin
origin_of(const struct piece *p, size_t offset)
{
	vm_pindex_t i = p->offset + (vm_pindex_t)((offset - p->start) >> PAGE_SHIFT);
	struct vm_object *o = p->object, *next;
	bool viewed = false;

	if (o == NULL)
		return (struct origin){ 0 };
	vm_object_lock(o);
	for (;;) {
		struct vm_page *m = vm_page_lookup(o, i);

		/* Pages of external objects are their own origin, in memory or not. */
		if ((m != NULL && !(m->flags & PG_FAKE)) || vm_object_paged_out(o, i) ||
		    !o->internal) {
			viewed = m != NULL && vm_page_is_viewed(m) && !vm_view_may_read(m, true);
			break;
		}
		next = o->shadow;
		if (next == NULL) {
			vm_object_unlock(o);
			return (struct origin){ 0 };
		}
		i += o->shadow_offset;
		vm_object_lock(next);
		vm_object_unlock(o);
		o = next;
	}
	vm_object_unlock(o);
	return (struct origin){ o, i, viewed };
}

/* 1: the pages differ; 0: they do not; or -errno. */
static int
page_differs(const struct piece *a, const struct piece *b, size_t offset)
{
	char abuf[PAGE_SIZE], bbuf[PAGE_SIZE];
	struct origin x = origin_of(a, offset), y = origin_of(b, offset);
	int error;

	if (x.object == y.object && x.pindex == y.pindex && !x.viewed && !y.viewed)
		return 0;
	error = piece_read(a, offset, abuf, PAGE_SIZE);
	if (error == 0)
		error = piece_read(b, offset, bbuf, PAGE_SIZE);
	return error != 0 ? error : memcmp(abuf, bbuf, PAGE_SIZE) != 0;
}

/* The pieces that a range shows now, referenced. */
static int
pieces_now(const struct vmf_range *r, struct piece_list *list)
{
	vm_offset_t s = (vm_offset_t)r->addr, end = s + r->size;
	struct vm_map *map = task_at(s);
	struct vm_map_entry *e;
	int error = 0;

	*list = (struct piece_list){ 0 };
	if (map == NULL)
		return -EFAULT;
	krwlock_read(&map->lock);
	if (!vm_map_is_mapped(map, s, end))
		error = -EFAULT;
	else
		error = errno_of(vm_view_settle(map, s, end));
	for (e = vm_map_entry_ge(map, s); error == 0 && e != NULL && entry_start(e) < end;
	    e = vm_map_entry_next(e)) {
		vm_offset_t from = MAX(s, entry_start(e)), to = MIN(end, entry_end(e));

		if (!piece_room(list)) {
			error = -ENOMEM;
			break;
		}
		if (e->map.object != NULL)
			vm_object_reference(e->map.object);
		list->piece[list->n++] = (struct piece){
			.start = from - s, .size = to - from, .object = e->map.object,
			.offset = e->map.object != NULL ? entry_pindex(e, from) : 0,
		};
	}
	krwlock_read_unlock(&map->lock);
	task_put(map);
	if (error != 0)
		pieces_free(list);
	return error;
}

int
snapshot_diff(uint64_t a, uint64_t b, size_t range, size_t *cursor, struct vmf_extent *extent)
{
	struct snapshot *sa = snapshot_get(a), *sb = NULL;
	struct piece_list now = { 0 };
	size_t size, at = *cursor;
	int error = 0, found = 0;

	if (sa == NULL)
		return -EBADF;
	if (b != 0 && (sb = snapshot_get(b)) == NULL) {
		handle_put(&sa->handle);
		return -EBADF;
	}
	if (!inside(sa, range, at, 0) || (at & PAGE_MASK) != 0 || (sb != NULL && (range >= sb->nranges ||
	    sb->range[range].addr != sa->range[range].addr ||
	    sb->range[range].size != sa->range[range].size)))
		error = -EINVAL;
	else if (sb == NULL)
		error = pieces_now(&sa->range[range], &now);
	size = error == 0 ? sa->range[range].size : 0;

	*extent = (struct vmf_extent){ 0, 0 };
	for (; at < size; at += PAGE_SIZE) {
		const struct piece *p = piece_at(&sa->pieces, range, at);
		const struct piece *q = sb != NULL ? piece_at(&sb->pieces, range, at) : piece_at(&now, 0, at);
		int differs = page_differs(p, q, at);

		if (differs < 0) {
			error = differs;
			break;
		}
		if (!differs && found)
			break;
		if (differs && !found)
			extent->offset = at;
		found |= differs;
		extent->size += differs ? PAGE_SIZE : 0;
	}
	pieces_free(&now);
	if (sb != NULL)
		handle_put(&sb->handle);
	handle_put(&sa->handle);
	if (error != 0)
		return error;
	*cursor = at;
	return found;
}
