/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The keeper: a thread that looks after private views.
 *
 * It looks at all views round and round, at a few at a time, and less and less often while nothing changes:
 *
 *	nobody needs the frames any more, or they are closed	bring home, before somebody has to wait for it
 *	a forked child sees the frames	let it be
 *	a good part was written		give the copy all of it, and bring home: then the leaf may be written, and
 *					the next snapshot finds no view there
 */

#include "kern/alone.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "vm_dense.h"
#include "vm_meter.h"
#include "vm_pager.h"
#include "vm_view_impl.h"

#define AT_ONCE_PAGES	16u		/* pages that the copy gets before others may have the locks */
#define AT_ONCE		8u		/* views that the keeper looks at before it pauses */
#define DUTY		8		/* of the keeper: one part in so many; more where writers wait for the snapshot after this */
#define LEAST_PAUSE_NS	((int64_t)500 * 1000)
#define PASSING_NS	((uint64_t)20 * 1000 * 1000)
#define MOST_PAUSE_NS	((int64_t)200 * 1000 * 1000)

/* => busy by us; nothing locked.  Returns whether more was written since the last look. */
static bool
look(struct vm_view *v)
{
	uint64_t changed[PMAP_LEAF_WORDS] = { 0 };
	uint32_t n;
	bool more;

	pmap_view_changed(v->va, changed);
	n = vv_count(changed);
	more = n != v->nchanged;
	v->nchanged = n;
	return more;
}

/* Is nobody at work on the pages from lo on that are given next?  => locked */
static bool
at_rest(const struct vm_object *o, vm_pindex_t lo)
{
	void *page[AT_ONCE_PAGES];
	uint32_t n = radix_run(&o->pages, lo, MIN(AT_ONCE_PAGES, PMAP_LEAF_PAGES), page);
	bool rest = true;

	for (uint32_t i = 0; i < n; i++)
		rest = rest && !(((const struct vm_page *)page[i])->flags & PG_BUSY);
	return rest;
}

/*
 * Give the copy all that it lacks of the leaf, as the frames have it; writers go on meanwhile.  => busy by us, open;
 * locked, in between not
 */
static void
serve(struct vm_view *v)
{
	struct vm_object *o = v->object, *c = o->copy;
	uint32_t seen = 0;
	bool all = true;

	if (c == NULL || !vm_object_lock_try(c))
		return;
	if (c->ref_count == 0 || (c->pager != NULL && !c->pager->ops->queryable)) {
		vm_object_unlock(c);
		return;
	}
	c->ref_count++;
	vm_object_unlock(c);
	for (uint32_t k = 0; k < PMAP_LEAF_PAGES && all; k += AT_ONCE_PAGES) {
		vm_object_unlock(o);
		PROBE("vm_view: serving");
		locks_give_way(&seen);
		vm_object_lock(c);
		vm_object_lock(o);
		all = o->copy == c && at_rest(o, vv_first(v) + k) &&
		    vm_dense_give(o, vv_first(v) + k, MIN(AT_ONCE_PAGES, PMAP_LEAF_PAGES), c);
		vm_object_unlock(c);
	}
	if (all && o->copy == c)
		v->served = c;
	vm_object_unlock(o);
	vm_object_deallocate(c);
	PROBE("vm_view: served");
	vm_object_lock(o);
}

/* Somebody who has leaves copied whole is likely to be on his way to the next one: let him. */
static bool
is_passing(void)
{
	return sys_clock() - atomic_load(&vv.opened) < PASSING_NS;
}

/* Returns whether something happens.  *hurry: much does.  => locked, not at return */
static bool
keep(struct vm_view *v, bool *hurry)
{
	struct vm_object *o = v->object;
	bool more, dense;

	if (v->busy) {
		vm_object_unlock(o);
		return true;
	}
	/* As long as a forked child sees the frames, this is the best place for what was written. */
	if (!v->closed && vv_is_frozen(v)) {
		vm_object_unlock(o);
		return false;
	}
	if (v->closed || o->copy == NULL) {
		if (vv_take(v))
			(void)vv_bring_home(v);
		return true;
	}
	v->busy = true;
	vm_object_pip_add(o);
	vm_object_unlock(o);
	more = look(v);
	dense = v->nchanged >= DENSE_PAGES && !(v->populated && is_passing());
	vm_object_lock(o);
	if (dense && !v->closed)
		serve(v);
	v->busy = false;
	vm_object_pip_done(o);
	event_wake(v);
	dense = dense && v->served != NULL;
	if (dense && vv_take(v)) {
		*hurry = true;
		vm_count(v_views_dense);
		(void)vv_bring_home(v);
	} else if (!dense) {
		vm_object_unlock(o);
	}
	return more || dense;
}

/* The view that nobody has looked at for the longest time; its object is locked.  Null: none, or that is busy */
static struct vm_view *
next_view(void)
{
	struct vm_view *v;

	kmutex_lock(&vv.lock);
	v = TAILQ_FIRST(&vv.all);
	if (v != NULL) {
		TAILQ_REMOVE(&vv.all, v, link);
		TAILQ_INSERT_TAIL(&vv.all, v, link);
		if (!vm_object_lock_try(v->object))
			v = NULL;
	}
	kmutex_unlock(&vv.lock);
	return v;
}

static void *
keeper(void *arg)
{
	int64_t pause = LEAST_PAUSE_NS;
	uint32_t quiet = 0;		/* views in a row in which nothing happened */

	(void)arg;
	while (!atomic_load(&vv.stop)) {
		uint32_t ticket = event_prepare(&vv.work), n = atomic_load(&vv.n);
		uint64_t began = sys_clock();
		bool hurry = false;

		hold_here(&vv.hold);
		for (uint32_t i = 0; i < MIN(n, AT_ONCE) && !atomic_load(&vv.stop); i++) {
			struct vm_view *v = next_view();

			if (v != NULL && keep(v, &hurry))
				quiet = 0;
			else
				quiet++;
		}
		if (quiet > n) {
			pause = MIN(2 * pause, MOST_PAUSE_NS);
			quiet = 0;
		} else if (quiet == 0) {
			pause = hurry ? LEAST_PAUSE_NS : MAX((int64_t)(sys_clock() - began) * (DUTY - 1), LEAST_PAUSE_NS);
		}
		if (!atomic_load(&vv.stop)) {
			hold_rest(&vv.hold);
			(void)event_wait(&vv.work, ticket, n == 0 ? EVENT_FOREVER : pause);
			hold_rise(&vv.hold);
		}
	}
	return NULL;
}

bool
vm_view_reclaim(void)
{
	struct vm_view *v;

	while (atomic_load(&vv.n) != 0) {
		v = next_view();
		if (v == NULL)
			sys_yield();
		else if (v->busy)
			vv_wait(v);
		else if (vv_take(v))
			return vv_bring_home(v) == KERN_SUCCESS;
	}
	return false;
}

int
vm_view_start(void)
{
	int error;

	atomic_store(&vv.stop, false);
	if (!pmap_has_views())
		return 0;
	error = alone_thread(&vv.thread, keeper);
	atomic_store(&vv.running, error == 0);
	return error;
}

void
vm_view_stop(void)
{
	if (!atomic_exchange(&vv.running, false))
		return;
	atomic_store(&vv.stop, true);
	event_wake(&vv.work);
	alone_join(vv.thread);
}

#ifdef VMF_TESTING
void
vm_view_step(void)
{
	struct vm_view *v = next_view();
	bool hurry = false;

	if (v != NULL)
		(void)keep(v, &hurry);
}
#endif

void
vm_view_hold(void)
{
	if (!atomic_load(&vv.running))
		return;
	if (hold_begin(&vv.hold))
		return;
	event_wake(&vv.work);
	hold_wait(&vv.hold);
}

void
vm_view_go_on(void)
{
	hold_end(&vv.hold);
}

void
vm_view_thawed(void)
{
	event_wake(&vv.work);
}

/* => the keeper was held */
void
vm_view_forked(void)
{
	kmutex_init(&vv.lock, RANK_VIEW);
	atomic_store(&vv.running, false);
	hold_forked(&vv.hold);
}
