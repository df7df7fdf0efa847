/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The pageout daemon.
 *
 * Locks: the queues' lock comes after the objects', so the daemon takes a page from a queue,
 * tries its object, and turns to the next page if it is held: it waits for nobody.  While
 * it looks at a page with both locks held the page cannot go; busy, it stays.
 *
 * Writes are in flight while the daemon goes on, up to NWASHES of them.  None of its own waits for a
 * pager, except where that has no `start'.  A pager gets no more than half of the transfers that
 * others leave it, so one that never answers (a user's callback that waits for a frame itself) is not in
 * the way of the rest.  Those that refuse are left alone for a while (vm_clean.c).
 *
 * Waiters.  A thread that finds no frame waits for physmem_freed.  What a pass comes to is one of
 *
 *	FRUITFUL	pages were freed, or writes begun
 *	HOPEFUL		neither, but something is under way that may free some: a write, a page that is
 *			busy or an object that is locked just now, a pager that refused and will be asked again
 *	FUTILE		nothing of all this
 *
 * and waiters give up when several passes in a row were futile, which together looked at every page.
 * That is bounded: a transfer ends (user pagers have deadlines), busy pages and locks are held for a
 * transfer at most, and a pager that has refused often enough is no hope any more.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "fork_live.h"
#include "kern/alone.h"
#include "kern/assert.h"
#include "kern/event.h"
#include "kern/hold.h"
#include "kern/lock.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "physmem.h"
#include "vm_clean.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_pageout.h"
#include "vm_pager.h"
#include "vm_view.h"
#include "vm_pdpolicy.h"
#include "vm_pin.h"
#include "vm_publish.h"

#define NWASHES			32	/* transfers in flight */
#define LAUNDRY_SHARE		8	/* of all frames: that many may be in them */
#define FREE_SHARE		32	/* of all frames: the daemon works until so many are free, ... */
#define FREE_SHARE_SMALL	16	/* ... or this share, where that is ... */
#define FREE_SMALL		1024u	/* ... no more than a reader and his read-ahead need */
#define MS			((int64_t)1000 * 1000)
#define WAIT_NS			(50 * MS)
#define SOON_NS			(20 * MS)	/* what a write may take and be counted on */
#define PAUSE_LEAST_NS		MS
#define PAUSE_HARD_NS		(8 * MS)	/* nothing came of it for so long: look further */
#define PAUSE_MOST_NS		(50 * MS)
#define REST_NS			(100 * MS)
#define FUTILE_PASSES		3
#define WATCH_RUN		64	/* pages that are unmapped at once */
#define EVICT_RUN		32	/* ... and that go while their object is locked */
#define PLENTY_SHARE		2	/* of free_min: what waiters like to see ... */
#define PLENTY_NS		(2 * MS)	/* ... if it comes so soon */
#define LOCK_PAUSE_NS		((int64_t)50 * 1000)
#define LOCK_TRIES		4	/* for an object that somebody holds */

static bool evict_washed(struct vm_page *);

static struct vm_wash washes[NWASHES];

static struct {
	pthread_t thread;
	struct vm_laundry laundry;		/* its address: what the daemon waits on for completions */
	_Atomic bool stop, wanted;
	_Atomic uint64_t free_min, free_target, laundry_max;
	_Atomic uint64_t asked;			/* frames that are wanted beyond free_target */
	_Atomic uint32_t verdicts;		/* times that there was nothing to be had, ever */
	_Atomic uint32_t fruitful;		/* times that pages were freed, ever */
	_Atomic uint64_t rest_until;		/* nothing to gain before then, as it seems */
	_Atomic bool resizing;			/* one at a time; its address: what the next one waits on */
	_Atomic bool shrinking;			/* a smaller budget is tried, and may be put back */
	_Atomic uint32_t budgets;		/* times that the budget was set, ever */
	struct hold hold;
#ifdef VMF_TESTING
	_Atomic bool asleep;			/* with nothing to do */
#endif
} pd = { .laundry = { .wash = washes, .nwashes = NWASHES, .evict = evict_washed } };

enum verdict { HOPE, REWIND, FREED, LAUNDER };

struct pass {
	bool hard;			/* the policy is to spare nobody */
	bool desperate;			/* nor does the daemon: it is the last before waiters give up */
	bool fruitful, hopeful;
};

/*
 * One page
 */

/* Can the page leave without a pager, as zeros are what will be there?  => object locked, page unmapped */
static bool
is_zero(struct vm_page *m)
{
	struct vm_object *o = m->object;

	return o->internal && o->shadow == NULL && o->copy == NULL && o->pager == NULL &&
	    physmem_is_zero(m->pfn);
}

/* What a modified page's pager can do for it.  => object locked */
static enum verdict
judge_pager(struct vm_object *o)
{
	uint32_t idle = NWASHES - atomic_load(&pd.laundry.sent);
	uint64_t pages = atomic_load(&pd.laundry.pages);

	if (o->pager == NULL && o->internal) {
		o->pager = vm_default_pager_make(o->size);
		o->paging_offset = 0;
	}
	if (o->pager == NULL || !vm_pager_can_put(o->pager))
		return REWIND;
	if (vm_pager_backs_off(o->pager))
		return vm_pager_is_hopeless(o->pager) ? REWIND : HOPE;
	/* With much in the laundry, whoever's, each pager gets one transfer still. */
	if (2 * o->pager->writes >= idle ||
	    (o->pager->writes != 0 && pages >= atomic_load(&pd.laundry_max)))
		return HOPE;
	return LAUNDER;
}

/* What becomes of a victim.  => object locked */
static enum verdict
judge(struct vm_page *m, bool desperate)
{
	struct vm_object *o = m->object;

	vm_count(v_scan);
	KASSERT(m->wire_count == 0);
	if ((m->flags & PG_BUSY) || (o->flags & OBJ_DEAD))
		return HOPE;
	/* What can be brought home has been, before the pass.  Of a frame of another process's nothing would be gained. */
	if (vm_page_is_viewed(m) || physmem_is_inherited(m->pfn) || physmem_is_common(m->pfn))
		return REWIND;
	/* A cut or a rollback wants what is there: not without need. */
	if ((o->flags & (OBJ_CUT | OBJ_FROZEN)) && !desperate)
		return REWIND;
	if (m->flags & PG_REFERENCED) {
		/* Mapped since it is watched, beside a page that was touched. */
		m->flags &= (uint16_t)~PG_REFERENCED;
		return REWIND;
	}
	vm_object_page_protect(m, VM_PROT_NONE);
	if ((m->flags & PG_MODIFIED) && !is_zero(m))
		return judge_pager(o);
	vm_page_evict(m);
	return FREED;
}

static uint64_t
target(void)
{
	return atomic_load(&pd.free_target) + atomic_load(&pd.asked);
}

/* A page that was written for the daemon: is it to go?  => object locked, busy by us */
static bool
evict_washed(struct vm_page *m)
{
	if (m->queue != PQ_INACTIVE || m->wire_count != 0 ||
	    (m->flags & (PG_REFERENCED | PG_MODIFIED | PG_WANTED)) != 0 ||
	    physmem_free_count() >= target())
		return false;
	PROBE("vm_pageout: written and freed");
	vm_object_page_protect(m, VM_PROT_NONE);
	vm_page_evict(m);
	atomic_fetch_add(&pd.fruitful, 1);
	return true;
}

/*
 * A pass over the pages
 */

/*
 * The policy's next page; *m, with its object locked, or null: it is skipped, for somebody holds that.
 * Who holds an object is soon done with it, and the policy's order is worth a short wait.
 * => false: there is none
 */
static bool
pick(struct vm_page *(*next)(void), struct vm_page **m)
{
	for (int tries = 1;; tries++) {
		bool found;

		kmutex_lock(&vm_page_queue_lock);
		*m = next();
		found = *m != NULL;
		if (found && !vm_object_lock_try((*m)->object)) {
			if (tries == LOCK_TRIES)
				vm_page_policy->skip(*m);
			*m = NULL;
		}
		kmutex_unlock(&vm_page_queue_lock);
		if (!found || *m != NULL || tries == LOCK_TRIES)
			return found;
		(void)event_wait(&pd, event_prepare(&pd), LOCK_PAUSE_NS);
	}
}

/* Tell the policy what becomes of it.  => object locked */
static void
tell(void (*what)(struct vm_page *), struct vm_page *m)
{
	kmutex_lock(&vm_page_queue_lock);
	what(m);
	kmutex_unlock(&vm_page_queue_lock);
}

static uint64_t
active_count(void)
{
	uint64_t n;

	kmutex_lock(&vm_page_queue_lock);
	n = vm_page_active_count;
	kmutex_unlock(&vm_page_queue_lock);
	return n;
}

/*
 * Watch m, and what the policy wants after it as long as that is the next page of the same object: to
 * unmap a run is one system call.  Returns how many.  => object locked, m not busy
 */
static uint64_t
watch_run(struct vm_page *m)
{
	struct vm_object *o = m->object;
	vm_pindex_t lo = m->pindex, hi = lo;
	bool more;

	do {
		m->flags &= (uint16_t)~PG_REFERENCED;
		hi++;
		kmutex_lock(&vm_page_queue_lock);
		vm_page_policy->watch(m);
		m = vm_page_policy->next_to_watch();
		/* Whose object it is cannot change if it is ours. */
		more = m != NULL && m->object == o && m->pindex == hi && !(m->flags & PG_BUSY) && !vm_page_is_viewed(m);
		kmutex_unlock(&vm_page_queue_lock);
	} while (more && hi - lo < WATCH_RUN);
	vm_object_unmap(o, lo, hi);
	return hi - lo;
}

/* Unmap and watch as many pages as the policy wants. */
static void
watch_some(struct pass *p)
{
	struct vm_page *m;

	for (uint64_t n = active_count(), done; n > 0 && pick(vm_page_policy->next_to_watch, &m);
	    n -= MIN(n, done)) {
		struct vm_object *o;

		done = 1;
		if (m == NULL) {
			p->hopeful = true;
			continue;
		}
		o = m->object;
		if ((m->flags & PG_BUSY) || vm_page_is_viewed(m)) {
			p->hopeful |= (m->flags & PG_BUSY) != 0;
			tell(vm_page_policy->skip, m);
		} else {
			done = watch_run(m);
		}
		vm_object_unlock(o);
	}
}

/* Are enough frames free, or will be soon?  Writes that take long do not count. */
static bool
enough(void)
{
	uint64_t coming = 0, now = sys_clock();

	for (struct vm_wash *w = washes; w < washes + NWASHES; w++)
		if (atomic_load(&w->state) != WASH_FREE && now - w->sent_at < (uint64_t)SOON_NS)
			coming += w->io.n;
	return physmem_free_count() + coming >= target();
}

/* The policy's next victim, if it is of this object; else null.  => object locked */
static struct vm_page *
next_of(const struct vm_object *o)
{
	struct vm_page *m;

	kmutex_lock(&vm_page_queue_lock);
	m = vm_page_policy->next_victim();
	if (m != NULL && m->object != o)
		m = NULL;
	kmutex_unlock(&vm_page_queue_lock);
	return m;
}

/*
 * Let m go, and the victims after it as long as they are of its object: who faults on that
 * would rather wait once than for each.  => object locked, unlocked at return
 */
static void
evict_run(struct vm_page *m, struct pass *p)
{
	struct vm_object *o = m->object;

	for (uint32_t n = 0; m != NULL; n++) {
		enum verdict v = judge(m, p->desperate);

		if (v == REWIND)
			tell(vm_page_policy->rewind, m);
		else if (v != FREED)
			tell(vm_page_policy->skip, m);
		p->fruitful |= v == FREED || v == LAUNDER;
		p->hopeful |= v == HOPE;
		if (v == FREED)
			atomic_fetch_add(&pd.fruitful, 1);
		if (v == LAUNDER) {
			vm_object_launder(&pd.laundry, m);
			return;
		}
		m = n < EVICT_RUN && physmem_free_count() < target() ? next_of(o) : NULL;
	}
	vm_object_unlock(o);
}

/* One look at all pages that might go. */
static void
run_pass(struct pass *p)
{
	struct vm_page *m;

	kmutex_lock(&vm_page_queue_lock);
	vm_page_policy->begin(p->hard);
	kmutex_unlock(&vm_page_queue_lock);
	watch_some(p);
	while (!enough() && pick(vm_page_policy->next_victim, &m)) {
		if (m != NULL)
			evict_run(m, p);
		else
			p->hopeful = true;
	}
}

/* Stop, while somebody wants that, where nothing is in hand.  => no lock held */
static void
stand(void)
{
	hold_here(&pd.hold);
}

static void
set_asleep(bool asleep)
{
#ifdef VMF_TESTING
	atomic_store(&pd.asleep, asleep);
#else
	(void)asleep;
#endif
}

/* Work until the target is reached, or until it is clear that it will not be. */
static void
work(void)
{
	int64_t pause = PAUSE_LEAST_NS;
	uint32_t futile = 0;
	bool hard = false;

	while (!atomic_load(&pd.stop) && physmem_free_count() < target() &&
	    futile < FUTILE_PASSES) {
		uint32_t ticket = event_prepare(&pd.laundry);
		struct pass p = { .hard = hard };

		stand();
		if (vm_view_reclaim()) {
			atomic_fetch_add(&pd.fruitful, 1);
			futile = 0;
			continue;
		}
		vm_publish_answer();
		p.desperate = futile == FUTILE_PASSES - 1 && physmem_free_count() == 0;
		if (!enough())
			run_pass(&p);
		p.hopeful |= atomic_load(&pd.laundry.sent) != 0;
		if (p.fruitful) {
			futile = 0;
			hard = false;
			pause = PAUSE_LEAST_NS;
		} else if (p.hopeful) {
			bool ended = event_wait(&pd.laundry, ticket, pause);

			/*
			 * Once hard, it stays so until something comes of it: only a hard pass has
			 * seen all.
			 */
			hard |= !ended && pause >= PAUSE_HARD_NS;
			futile = 0;
			pause = ended ? PAUSE_LEAST_NS : MIN(2 * pause, PAUSE_MOST_NS);
		} else {
			hard = true;
			if (++futile == FUTILE_PASSES)
				atomic_fetch_add(&pd.verdicts, 1);
			event_wake(&physmem_freed);
		}
	}
	if (futile != 0)
		atomic_store(&pd.rest_until, sys_clock() + (uint64_t)REST_NS);
}

/* The daemon sleeps on its event, or on the bell of those who watch it (vm_publish.h). */
static void
rouse(void)
{
	event_wake(&pd);
	vm_publish_ring();
}

/* The shorter wait. */
static int64_t
sooner(int64_t a, int64_t b)
{
	return a == EVENT_FOREVER || (b != EVENT_FOREVER && b < a) ? b : a;
}

static void *
run(void *arg)
{
	(void)arg;
	while (!atomic_load(&pd.stop)) {
		bool published = vm_publish_running();
		uint32_t ticket = published ? vm_publish_prepare() : event_prepare(&pd);

		stand();
		if (atomic_exchange(&pd.wanted, false)) {
			vm_count(v_pdwakeups);
			work();
			/*
			 * Frames may have come from elsewhere, and no pass been needed: tell
			 * whoever waits.
			 */
			event_wake(&physmem_freed);
		} else if (!atomic_load(&pd.stop)) {
			int64_t wait = sooner(sooner(physmem_trim(), fork_live_tend()), vm_pin_tend());

			set_asleep(true);
			hold_rest(&pd.hold);
			if (published)
				vm_publish_wait(ticket, wait);
			else
				(void)event_wait(&pd, ticket, wait);
			hold_rise(&pd.hold);
			set_asleep(false);
		}
	}
	for (;;) {
		uint32_t ticket = event_prepare(&pd.laundry);

		if (atomic_load(&pd.laundry.sent) == 0)
			return NULL;
		(void)event_wait(&pd.laundry, ticket, EVENT_FOREVER);
	}
}

/*
 * Starting, ending, asking, waiting
 */

static void
tune(uint64_t page_count)
{
	uint64_t most = MAX(page_count / FREE_SHARE, MIN(page_count / FREE_SHARE_SMALL, FREE_SMALL));

	atomic_store(&pd.free_min, MAX(most / 2, 1));
	atomic_store(&pd.free_target, MAX(most, 2));
	physmem_set_low(MAX(most / 2, 1));
	atomic_store(&pd.laundry_max, page_count / LAUNDRY_SHARE);
	kmutex_lock(&vm_page_queue_lock);
	vm_page_policy->tune(page_count);
	kmutex_unlock(&vm_page_queue_lock);
}

int
vm_pageout_start(uint64_t page_count)
{
	tune(page_count);
	atomic_store(&pd.stop, false);
	atomic_store(&pd.wanted, false);
	atomic_store(&pd.rest_until, 0);
	return alone_thread(&pd.thread, run);
}

void
vm_pageout_stop(void)
{
	atomic_store(&pd.stop, true);
	rouse();
	event_wake(&pd.laundry);
	alone_join(pd.thread);
}

static void
wake(void)
{
	atomic_store(&pd.wanted, true);
	rouse();
}

void
vm_pageout_kick(void)
{
	if (physmem_free_count() < atomic_load_explicit(&pd.free_min, memory_order_relaxed) &&
	    sys_clock() >= atomic_load_explicit(&pd.rest_until, memory_order_relaxed))
		wake();
}

void
vm_pageout_trim(void)
{
	rouse();
}

void
vm_pageout_published(void)
{
	rouse();
}

uint64_t
vm_pageout_laundry(void)
{
	return atomic_load(&pd.laundry.pages);
}

void
vm_pageout_hold(void)
{
	if (hold_begin(&pd.hold))
		return;
	rouse();
	event_wake(&pd.laundry);
	hold_wait(&pd.hold);
}

void
vm_pageout_go_on(void)
{
	hold_end(&pd.hold);
}

void
vm_pageout_forked(void)
{
	KASSERT(atomic_load(&pd.laundry.sent) == 0);
	hold_forked(&pd.hold);
	atomic_store(&pd.asked, 0);
	atomic_store(&pd.resizing, false);
	atomic_store(&pd.shrinking, false);
}

#ifdef VMF_TESTING
bool
vm_pageout_rests(void)
{
	/* In this order: it is awake before it forgets that it is wanted. */
	return !atomic_load(&pd.wanted) && atomic_load(&pd.asleep) &&
	    atomic_load(&pd.laundry.sent) == 0;
}
#endif

/* Wait until it is so, or until it is clear that it will not be. */
static bool
wait_until(bool (*is_so)(void))
{
	uint32_t verdicts = atomic_load(&pd.verdicts), fruitful = atomic_load(&pd.fruitful);

	locks_assert_none();
	for (;;) {
		uint32_t ticket = event_prepare(&physmem_freed);
		/* The first one may be about what was before we came. */
		bool idle = atomic_load(&pd.verdicts) - verdicts > 1 && atomic_load(&pd.laundry.sent) == 0;

		/* In this order: what the laundry freed is free before it is idle. */
		if (is_so())
			return true;
		if (atomic_load(&pd.fruitful) != fruitful) {
			/* Others were faster than we; as long as frames come, one will be ours. */
			fruitful = atomic_load(&pd.fruitful);
			verdicts = atomic_load(&pd.verdicts);
		} else if (idle) {
			return false;
		}
		wake();
		(void)event_wait(&physmem_freed, ticket, WAIT_NS);
	}
}

/*
 * The budget
 *
 * While it is being made smaller it is the smaller one already, so that what becomes free is not
 * used again.  It belongs to the thread that asked for it, which alone decides whether it can be
 * reached, and puts the old one back if not.  Who would get no frame meanwhile waits for that
 * decision: a verdict passed on a budget that is being tried, or that is gone, is none.
 */

static void
set_budget(uint64_t page_count)
{
	physmem_set_budget(page_count);
	tune(page_count);
	atomic_fetch_add(&pd.budgets, 1);
	atomic_fetch_add(&pd.fruitful, 1);
	event_wake(&physmem_freed);
}

/* => true: it is so, or another look is worth it, for the budget changes */
static bool
wait_for(bool (*is_so)(void))
{
	uint32_t budgets = atomic_load(&pd.budgets);

	if (wait_until(is_so))
		return true;
	PROBE("vm_wait: nothing to be had");
	/* In this order: the budget is put back before it is no longer being made smaller. */
	return atomic_load(&pd.shrinking) || atomic_load(&pd.budgets) != budgets;
}

static bool
has_frame(void)
{
	return physmem_free_count() > 0;
}

/*
 * Who takes the first frame that comes will be back for the second: while the laundry is at work wait
 * for enough of them to make a long window of.
 */
static void
wait_plenty(void)
{
	uint64_t plenty = atomic_load(&pd.free_min) / PLENTY_SHARE, start = sys_clock(), waited = 0;

	while (waited < (uint64_t)PLENTY_NS) {
		uint32_t ticket = event_prepare(&physmem_plenty);

		if (physmem_free_count() >= plenty || atomic_load(&pd.laundry.sent) == 0)
			return;
		wake();
		(void)event_wait(&physmem_plenty, ticket, PLENTY_NS - (int64_t)waited);
		waited = sys_clock() - start;
	}
}

bool
vm_wait(void)
{
	locks_assert_none();
	wait_plenty();
	return wait_for(has_frame);
}

static bool
has_asked(void)
{
	return physmem_free_count() >= target();
}

bool
vm_wait_frames(uint64_t n)
{
	bool done;

	atomic_fetch_add(&pd.asked, n);
	done = wait_for(has_asked);
	atomic_fetch_sub(&pd.asked, n);
	return done;
}

bool
vm_pageout_resize(uint64_t page_count)
{
	bool fits = true;
	uint64_t from;

	while (atomic_exchange(&pd.resizing, true)) {
		uint32_t ticket = event_prepare(&pd.resizing);

		if (atomic_load(&pd.resizing))
			(void)event_wait(&pd.resizing, ticket, EVENT_FOREVER);
	}
	from = physmem_budget();
	atomic_store(&pd.shrinking, page_count < from);
	set_budget(page_count);
	if (page_count < from) {
		PROBE("vm_pageout_resize: smaller");
		fits = wait_until(physmem_fits);
	}
	if (!fits)
		set_budget(from);
	atomic_store(&pd.shrinking, false);
	atomic_store(&pd.resizing, false);
	event_wake(&pd.resizing);
	return fits;
}
