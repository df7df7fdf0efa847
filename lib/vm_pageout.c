/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The pageout daemon.
 *
 * Locks: the queues' lock comes after the objects', so the daemon takes a page from a queue,
 * tries its object, and turns to the next page if it is held: it waits for nobody.  While
 * it looks at a page with both locks held the page cannot go; busy, it stays.
 *
 * Waiters: a thread that finds no frame waits for one, or for the daemon's verdict.  A pass looks at the inactive
 * pages, a third of all; after as many passes in a row as it takes to look at every page there is, none of
 * which freed or wrote anything, the verdict is that no frame will come.  Pages that others have in hand at
 * that moment, to write them perhaps, may be free the next: then there is no verdict, for a while.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "kern/assert.h"
#include "kern/event.h"
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

#define FREE_MIN_SHARE		64	/* of all frames: below this the daemon wakes ... */
#define FREE_TARGET_SHARE	32	/* ... and works until so many are free */
#define INACTIVE_SHARE		3	/* of active + inactive: inactive_target */
#define WAIT_NS			((int64_t)50 * 1000 * 1000)
#define REST_NS			((uint64_t)100 * 1000 * 1000)
#define FUTILE_PASSES		(INACTIVE_SHARE + 1)
#define MISSING_NS		((uint64_t)10 * 1000 * 1000 * 1000)
#define MISSING_PAUSE_NS	((int64_t)1000 * 1000)

static struct {
	pthread_t thread;
	_Atomic bool stop;
	uint64_t free_min, free_target;		/* constant */
	_Atomic uint32_t verdicts;		/* that there is nothing to be had; what waiters wait on */
	_Atomic uint32_t fruitful;		/* passes that freed or wrote something */
	_Atomic uint64_t rest_until;		/* nothing to gain before then, as it seems */
	_Atomic bool wanted;
	bool missed;			/* the daemon's: this pass found pages in others' hands */
	uint64_t missing_since;		/* ditto: all passes since then found nothing else; 0: no */
} pd;

/* Can the page leave without its pager?  => object locked, page unmapped */
static bool
is_untouched(struct vm_page *m)
{
	struct vm_object *o = m->object;

	return o->internal && o->shadow == NULL && o->copy == NULL && o->pager == NULL &&
	    physmem_is_hole(m->pfn);
}

enum verdict { PASS_BY, KEEP, FREED, CLEAN };

/* What becomes of a page at the head of the inactive queue.  => object locked */
static enum verdict
judge(struct vm_page *m)
{
	struct vm_object *o = m->object;

	vm_count(v_scan);
	if ((m->flags & (PG_BUSY | PG_LAUNDRY)) || m->wire_count != 0 || (o->flags & OBJ_DEAD)) {
		pd.missed = true;
		return PASS_BY;
	}
	if (m->flags & PG_REFERENCED) {
		/* Touched since it became inactive: a soft fault set the bit. */
		m->flags &= (uint16_t)~PG_REFERENCED;
		vm_page_activate(m);
		return KEEP;
	}
	vm_object_page_protect(m, VM_PROT_NONE);
	if (!(m->flags & PG_MODIFIED) || is_untouched(m)) {
		vm_page_free(m);
		return FREED;
	}
	if (o->pager == NULL && o->internal) {
		o->pager = vm_default_pager_make(o->size);
		o->paging_offset = 0;
	}
	if (o->pager != NULL && vm_pager_can_put(o->pager))
		return CLEAN;
	vm_page_activate(m);
	return KEEP;
}

/*
 * Take the page at the head of the queue and lock its object, if it can be had.  The page goes to the
 * tail, so that the next call finds another.
 */
static struct vm_page *
next_page(struct vm_page_tailq *queue)
{
	struct vm_page *m;

	kmutex_lock(&vm_page_queue_lock);
	m = TAILQ_FIRST(queue);
	if (m != NULL) {
		TAILQ_REMOVE(queue, m, pageq);
		TAILQ_INSERT_TAIL(queue, m, pageq);
		if (!vm_object_lock_try(m->object)) {
			pd.missed = true;
			m = NULL;
		}
	}
	kmutex_unlock(&vm_page_queue_lock);
	return m;
}

static uint64_t
queue_length(const uint64_t *count)
{
	uint64_t n;

	kmutex_lock(&vm_page_queue_lock);
	n = *count;
	kmutex_unlock(&vm_page_queue_lock);
	return n;
}

/* Move pages from active to inactive until there are enough of those. */
static void
deactivate_some(void)
{
	uint64_t active = queue_length(&vm_page_active_count);
	uint64_t target = (active + queue_length(&vm_page_inactive_count)) / INACTIVE_SHARE + 1;

	for (uint64_t n = 0; n < active && queue_length(&vm_page_inactive_count) < target; n++) {
		struct vm_page *m = next_page(&vm_page_queue_active);

		if (m == NULL)
			continue;
		if (m->flags & PG_BUSY) {
			pd.missed = true;
		} else if (m->wire_count == 0) {
			vm_object_page_protect(m, VM_PROT_NONE);
			m->flags &= (uint16_t)~PG_REFERENCED;
			vm_page_deactivate(m);
		}
		vm_object_unlock(m->object);
	}
}

/* Look at every inactive page once, at most.  Returns whether anything was freed or written. */
static bool
scan_inactive(void)
{
	uint64_t n = queue_length(&vm_page_inactive_count);
	bool progress = false;

	for (; n > 0 && physmem_free_count() < pd.free_target; n--) {
		struct vm_page *m = next_page(&vm_page_queue_inactive);
		struct vm_object *o;
		vm_pindex_t at;

		if (m == NULL)
			continue;
		o = m->object;
		at = m->pindex;
		switch (judge(m)) {
		case FREED:
			progress = true;
			break;
		case CLEAN:
			/*
			 * Its neighbours go with it; clean, it is freed on the next look.  The object may be
			 * in the cache, where it must not get a reference, so it is kept as a fault keeps it.
			 */
			vm_object_pip_add(o);
			vm_object_unlock(o);
			PROBE("vm_pageout: cleaning");
			if (vm_object_clean_cluster(o, at))
				progress = true;
			vm_object_lock(o);
			vm_object_pip_done(o);
			break;
		case PASS_BY:
		case KEEP:
			break;
		}
		vm_object_unlock(o);
	}
	return progress;
}

/*
 * A pass.  Returns whether it was worth it, or whether another may be: where others had pages in their hands
 * it says nothing, unless that has gone on for too long.
 */
static bool
pass(void)
{
	bool progress;

	pd.missed = false;
	deactivate_some();
	progress = scan_inactive();
	if (physmem_flush() != 0)
		progress = true;
	if (progress) {
		pd.missing_since = 0;
		atomic_fetch_add(&pd.fruitful, 1);
		event_wake(&pd.verdicts);
		return true;
	}
	if (!pd.missed)
		return false;
	if (pd.missing_since == 0)
		pd.missing_since = sys_clock();
	(void)event_wait(&pd, event_prepare(&pd), MISSING_PAUSE_NS);
	return sys_clock() - pd.missing_since < MISSING_NS;
}

static void *
run(void *arg)
{
	(void)arg;
	while (!atomic_load(&pd.stop)) {
		uint32_t futile = 0;
		uint32_t ticket = event_prepare(&pd);

		if (!atomic_exchange(&pd.wanted, false) && !atomic_load(&pd.stop)) {
			(void)event_wait(&pd, ticket, EVENT_FOREVER);
			continue;
		}
		/* Work until the target is reached, or until it is clear that it will not be. */
		pd.missing_since = 0;
		while (!atomic_load(&pd.stop) && physmem_free_count() < pd.free_target &&
		    futile < FUTILE_PASSES)
			futile = pass() ? 0 : futile + 1;
		if (futile == FUTILE_PASSES) {
			atomic_store(&pd.rest_until, sys_clock() + REST_NS);
			atomic_fetch_add(&pd.verdicts, 1);
		}
		/* Frames may have come from elsewhere, and no pass been needed: tell whoever waits. */
		event_wake(&pd.verdicts);
	}
	return NULL;
}

int
vm_pageout_start(uint64_t page_count)
{
	sys_sigset_t old;
	int error;

	pd.free_min = MAX(page_count / FREE_MIN_SHARE, 1);
	pd.free_target = MAX(page_count / FREE_TARGET_SHARE, 2);
	atomic_store(&pd.stop, false);
	atomic_store(&pd.wanted, false);
	atomic_store(&pd.rest_until, 0);
	sys_block(&old);		/* the thread is born with all signals blocked */
	error = pthread_create(&pd.thread, NULL, run, NULL);
	sys_setmask(&old);
	return -error;
}

void
vm_pageout_stop(void)
{
	atomic_store(&pd.stop, true);
	event_wake(&pd);
	event_wake(&pd.verdicts);
	(void)pthread_join(pd.thread, NULL);
}

void
vm_pageout_kick(void)
{
	if (physmem_free_count() < pd.free_min &&
	    sys_clock() >= atomic_load_explicit(&pd.rest_until, memory_order_relaxed)) {
		atomic_store(&pd.wanted, true);
		event_wake(&pd);
	}
}

bool
vm_wait(void)
{
	uint32_t verdicts = atomic_load(&pd.verdicts), fruitful = atomic_load(&pd.fruitful);

	locks_assert_none();
	for (;;) {
		uint32_t ticket = event_prepare(&pd.verdicts);

		if (physmem_free_count() > 0)
			return true;
		if (atomic_load(&pd.fruitful) != fruitful) {
			/* Others were faster than we; as long as frames come, one will be ours. */
			fruitful = atomic_load(&pd.fruitful);
			verdicts = atomic_load(&pd.verdicts);
		}
		/* The first one may be about what was before we came. */
		if (atomic_load(&pd.verdicts) - verdicts > 1)
			return false;
		atomic_store(&pd.wanted, true);
		event_wake(&pd);
		(void)event_wait(&pd.verdicts, ticket, WAIT_NS);
	}
}
