/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The keeper: a thread that looks after private views.
 *
 * It looks at all views round and round, at a few at a time, and less and less often while nothing changes:
 *
 *	nobody needs the frames any more, or they are closed	bring home, before somebody has to wait for it
 *	a good part was written		have the kernel copy the rest, before somebody writes that
 */

#include <sys/mman.h>

#include "kern/alone.h"
#include "kern/event.h"
#include "kern/sys.h"
#include "vm_meter.h"
#include "vm_view_impl.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif

#define AT_ONCE		8u		/* views that the keeper looks at before it pauses */
#define DUTY		8		/* of the keeper: one part in so many */
#define LEAST_PAUSE_NS	((int64_t)500 * 1000)
#define MOST_PAUSE_NS	((int64_t)200 * 1000 * 1000)
#define HOLD_NS		((int64_t)1000 * 1000)

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
	if (more && n >= DENSE_PAGES && n < PMAP_LEAF_PAGES) {
		/* Where it is refused the writers do it themselves. */
		(void)sys_madvise((void *)v->va, LEAF_SIZE, MADV_POPULATE_WRITE);
		v->nchanged = PMAP_LEAF_PAGES;
		vm_count(v_views_dense);
	}
	return more;
}

/* => locked, not at return */
static bool
keep(struct vm_view *v)
{
	struct vm_object *o = v->object;
	bool more;

	if (v->busy) {
		vm_object_unlock(o);
		return true;
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
	vm_object_lock(o);
	v->busy = false;
	vm_object_pip_done(o);
	vm_object_unlock(o);
	event_wake(v);
	return more;
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

/* Stop, while somebody wants that, where nothing is in hand. */
static void
hold_here(void)
{
	for (;;) {
		uint32_t ticket = event_prepare(&vv.hold);

		atomic_store(&vv.held, atomic_load(&vv.hold));
		if (!atomic_load(&vv.held))
			break;
		event_wake(&vv.held);
		(void)event_wait(&vv.hold, ticket, EVENT_FOREVER);
	}
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

		hold_here();
		for (uint32_t i = 0; i < MIN(n, AT_ONCE) && !atomic_load(&vv.stop); i++) {
			struct vm_view *v = next_view();

			if (v != NULL && keep(v))
				quiet = 0;
			else
				quiet++;
		}
		if (quiet > n) {
			pause = MIN(2 * pause, MOST_PAUSE_NS);
			quiet = 0;
		} else if (quiet == 0) {
			pause = MAX((int64_t)(sys_clock() - began) * (DUTY - 1), LEAST_PAUSE_NS);
		}
		if (!atomic_load(&vv.stop))
			(void)event_wait(&vv.work, ticket, n == 0 ? EVENT_FOREVER : pause);
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

void
vm_view_hold(void)
{
	if (!atomic_load(&vv.running))
		return;
	atomic_store(&vv.hold, true);
	for (;;) {
		uint32_t ticket = event_prepare(&vv.held);

		event_wake(&vv.work);
		if (atomic_load(&vv.held))
			break;
		(void)event_wait(&vv.held, ticket, HOLD_NS);
	}
}

void
vm_view_go_on(void)
{
	atomic_store(&vv.hold, false);
	event_wake(&vv.hold);
}

/* => the keeper was held, and no view is left */
void
vm_view_forked(void)
{
	kmutex_init(&vv.lock, RANK_VIEW);
	atomic_store(&vv.running, false);
	atomic_store(&vv.hold, false);
}
