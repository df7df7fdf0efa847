/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Coming home: pages that live elsewhere go back to their home frames, in the background.
 *
 * A page may be AWAY: its frame is not the one that vm_home.c says.  Where an object is merged with the one below,
 * which has most of the pages, its own stay where they are (vm_collapse.c), and so half of
 * what a forked task's parent has written since lies in one run of frames, half in another, page by page.  And a
 * home frame may be a stranger's, who is away himself.  It costs nothing but mappings: one for
 * each page in the worst case, where all could be in one.
 *
 *	object:	  0   1   2   3   4   5			  0   1   2   3   4   5
 *	frame:	 100 901 102 903 104 905	->	 100 101 102 103 104 105
 *		 six mappings				 one
 *
 * Who has such pages is in a list.  A thread goes through it, takes pages that can be moved, many of one
 * object in a row, from all who map them, copies those that are away, and lets them be.  The next touch faults, and
 * finds a run.  All of that happens with the object locked, so it is one step for everybody else: a fault comes
 * before or after, a page that is busy or wired stays where it is, and what is written is written to
 * the one frame or, later, to the other.
 *
 * It has a price, a copy and a fault or two for each run, and so it is only paid while the
 * mappings in use are a good part of the budget; and after a fork that shared frames.  Whatever was written
 * while the child lived is away, for home was frozen.  If that stayed so each fork would leave
 * more mappings, and more frames in pieces, than the one before.  So when the last child is gone everybody comes home, once:
 * until a round over all objects finds nobody who can.  The thread works one part in DUTY of the time.
 *
 * Locks: an object's comes before the list's, so the thread, which comes from the list, tries it.  Who is in the list
 * leaves it, locked, before it is freed; the thread holds its lock as long as it has to do with it.
 */

#include <pthread.h>

#include "kern/alone.h"
#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "pmap.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_view.h"

#define IN_THE_WAY	16		/* the share of the budget that so many mappings are */
#define RUN_MAX		32u		/* pages that are taken from who maps them at once ... */
#define LOOK_MAX	1024u		/* ... and that are looked at, while the object is locked */
#define DUTY		8
#define LEAST_PAUSE_NS	((int64_t)200 * 1000)
#define LOOK_NS		((int64_t)100 * 1000 * 1000)	/* are they in the way by now? */

#define END_OF_ROUND	2u		/* looks at each object, in a row, without anybody who came: the first may have begun in its middle */

enum { REST, THAWED, ROUND };

static struct {
	struct kmutex lock;		/* RANK_AWAY; guards the list, and object->away */
	TAILQ_HEAD(, vm_object) list;
	_Atomic uint32_t n;		/* objects in it; a look without the lock is a hint */
	pthread_t thread;
	_Atomic bool stop;
	char work;			/* its address: what the thread waits on */
	_Atomic uint32_t thawed;	/* REST; THAWED: no child sees our frames any more; ROUND: all are brought home for that */
	_Atomic bool hold;		/* nobody is to move */
	_Atomic int steps;		/* under way */
} hc;

void
vm_homecoming_init(void)
{
	kmutex_init(&hc.lock, RANK_AWAY);
	TAILQ_INIT(&hc.list);
	atomic_store(&hc.n, 0);
	atomic_store(&hc.thawed, REST);
}

void
vm_object_strays(struct vm_object *o)
{
	bool first;

	KASSERT(kmutex_held(&o->lock));
	o->away_seen = true;
	if (o->away)
		return;
	kmutex_lock(&hc.lock);
	o->away = true;
	TAILQ_INSERT_TAIL(&hc.list, o, away_link);
	first = atomic_fetch_add(&hc.n, 1) == 0;
	kmutex_unlock(&hc.lock);
	if (first)
		event_wake(&hc.work);
}

void
vm_object_strays_end(struct vm_object *o)
{
	if (!o->away)
		return;
	kmutex_lock(&hc.lock);
	o->away = false;
	TAILQ_REMOVE(&hc.list, o, away_link);
	atomic_fetch_sub(&hc.n, 1);
	kmutex_unlock(&hc.lock);
}

/*
 * Pages
 */

/* Nobody is at work on it, and nobody counts on its frame.  => object locked, for all below */
static bool
may_move(const struct vm_page *m)
{
	return m != NULL && !(m->flags & (PG_BUSY | PG_FAKE)) && m->wire_count == 0 && m->pfn != 0 &&
	    !vm_page_is_viewed(m) && !physmem_is_inherited(m->pfn) && !physmem_is_common(m->pfn);
}

/* Where the page should be and is not; 0: it is there, or has no home. */
static vm_pfn_t
away_from(struct vm_object *o, const struct vm_page *m)
{
	vm_pfn_t home = m->pfn != 0 ? vm_object_home_frame(o, m->pindex) : 0;

	return home != m->pfn ? home : 0;
}

/* => nobody maps it.  false: its frame was taken, or there is none left */
static bool
bring(struct vm_page *m, vm_pfn_t home)
{
	vm_pfn_t pfn = physmem_alloc(home, PHYSMEM_OVERWRITE), old = m->pfn;

	if (pfn != home) {
		if (pfn != 0)
			physmem_free(pfn);
		return false;
	}
	physmem_copy(old, home, 1);
	m->pfn = home;
	physmem_free(old);
	vm_count(v_homed);
	return true;
}

/* Bring what is away of pages [lo, hi), which all can be moved.  => how many came */
static uint32_t
bring_run(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	uint32_t n = 0;

	/* To leave no trace in the pmap is better, for then mappings become fewer at once. */
	if (o->wired_pages != 0 || !vm_object_forget(o, lo, hi))
		vm_object_unmap(o, lo, hi);
	PROBE("vm_homecoming: unmapped");
	for (; lo < hi; lo++) {
		struct vm_page *m = vm_page_lookup(o, lo);
		vm_pfn_t home = away_from(o, m);

		n += home != 0 && bring(m, home);
	}
	return n;
}

/* From page lo, which can come home, to the last that can in a row with it. */
static vm_pindex_t
run_end(struct vm_object *o, vm_pindex_t lo)
{
	vm_pindex_t last = lo;
	struct vm_page *m;

	for (vm_pindex_t i = lo + 1; i - lo < RUN_MAX && may_move(m = vm_page_lookup(o, i)); i++)
		if (away_from(o, m) != 0)
			last = i;
	return last + 1;
}

/* Some pages more of an object, from where we were.  => how many came */
static uint32_t
bring_some(struct vm_object *o)
{
	vm_pindex_t i = o->away_hand;
	uint32_t came = 0;
	struct vm_page *m;

	for (uint32_t n = 0; came == 0 && n < LOOK_MAX && (m = radix_next(&o->pages, &i)) != NULL; n++, i++) {
		vm_pfn_t home = away_from(o, m);
		vm_pindex_t end;

		if (home == 0)
			continue;
		o->away_seen = true;
		if (!may_move(m) || !physmem_is_unused(home, 1))
			continue;
		end = run_end(o, i);
		came = bring_run(o, i, end);
		i = end - 1;
	}
	o->away_hand = radix_next(&o->pages, &i) != NULL ? i : 0;
	return came;
}

/*
 * Objects
 */

/* The first in the list that nobody holds, locked; or null. */
static struct vm_object *
next_object(void)
{
	struct vm_object *o;

	kmutex_lock(&hc.lock);
	TAILQ_FOREACH(o, &hc.list, away_link)
		if (vm_object_lock_try(o))
			break;
	kmutex_unlock(&hc.lock);
	return o;
}

/* It has had its turn: it is the last in the list now.  => locked, in the list */
static void
put_last(struct vm_object *o)
{
	kmutex_lock(&hc.lock);
	TAILQ_REMOVE(&hc.list, o, away_link);
	TAILQ_INSERT_TAIL(&hc.list, o, away_link);
	kmutex_unlock(&hc.lock);
}

/* *through: all of an object was looked at. */
static uint32_t
step(bool *through)
{
	struct vm_object *o = next_object();
	uint32_t came;

	if (o == NULL)
		return 0;
	if (o->away_hand == 0)
		o->away_seen = false;		/* a new round */
	came = bring_some(o);
	*through = o->away_hand == 0;
	if (*through && !o->away_seen)
		vm_object_strays_end(o);
	else if (*through)
		put_last(o);
	vm_object_unlock(o);
	return came;
}


void
vm_homecoming_hold(bool hold)
{
	atomic_store(&hc.hold, hold);
	while (hold && atomic_load(&hc.steps) != 0)
		sys_yield();
}

/* => it was held */
void
vm_homecoming_forked(void)
{
	kmutex_init(&hc.lock, RANK_AWAY);
	atomic_store(&hc.hold, false);
	atomic_store(&hc.thawed, REST);
}

void
vm_homecoming_thawed(void)
{
	atomic_store(&hc.thawed, THAWED);
}

bool
vm_homecoming_rest(void)
{
	bool rests;

	/* Whoever decides to move somebody does so as part of a step. */
	vm_homecoming_hold(true);
	if (atomic_load(&hc.n) == 0)
		atomic_store(&hc.thawed, REST);
	rests = atomic_load(&hc.thawed) == REST;
	vm_homecoming_hold(false);
	return rests;
}

static bool
is_time(void)
{
	if (physmem_is_low())
		return false;
	/* What is frozen again leaves a frame behind, and home may be frozen as well. */
	return (atomic_load(&hc.thawed) != REST && !physmem_has_frozen()) || pmap_mappings() > pmap_mappings_max() / IN_THE_WAY;
}

/* A step, if it is time, and unless nobody is to move.  *quiet: see END_OF_ROUND.  => is another one due soon? */
static bool
try_step(uint32_t *quiet)
{
	uint32_t fresh = THAWED, all = ROUND;
	bool through = false, soon = false;

	atomic_fetch_add(&hc.steps, 1);
	if (!atomic_load(&hc.hold) && is_time()) {
		if (atomic_compare_exchange_strong(&hc.thawed, &fresh, ROUND))
			*quiet = 0;
		soon = step(&through) != 0;
		*quiet = soon ? 0 : *quiet + through;
		if (*quiet > END_OF_ROUND * atomic_load(&hc.n))
			(void)atomic_compare_exchange_strong(&hc.thawed, &all, REST);
		soon |= atomic_load(&hc.thawed) != REST;
	}
	atomic_fetch_sub(&hc.steps, 1);
	return soon;
}

static void *
homecoming(void *arg)
{
	uint32_t quiet = 0;
	int64_t pause = 0;

	(void)arg;
	while (!atomic_load(&hc.stop)) {
		uint32_t ticket = event_prepare(&hc.work);
		bool none = atomic_load(&hc.n) == 0;
		uint64_t began;

		if (!atomic_load(&hc.stop) && (none || pause > 0))
			(void)event_wait(&hc.work, ticket, none ? EVENT_FOREVER : pause);
		began = sys_clock();
		if (!none && try_step(&quiet))
			pause = MAX((int64_t)(sys_clock() - began) * (DUTY - 1), LEAST_PAUSE_NS);
		else
			pause = LOOK_NS;
	}
	return NULL;
}

#ifdef VMF_TESTING
uint32_t
vm_homecoming_step(void)
{
	uint32_t came = 0;
	bool through;

	atomic_fetch_add(&hc.steps, 1);
	if (!atomic_load(&hc.hold))
		came = step(&through);
	atomic_fetch_sub(&hc.steps, 1);
	return came;
}
#endif

int
vm_homecoming_start(void)
{
	atomic_store(&hc.stop, false);
	return alone_thread(&hc.thread, homecoming);
}

void
vm_homecoming_stop(void)
{
	atomic_store(&hc.stop, true);
	event_wake(&hc.work);
	alone_join(hc.thread);
}
