/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Cleaning: modified pages go to their pager and stay in memory.
 *
 *	gather	a run of modified pages: BUSY and LAUNDRY; they lose their write rights, then their
 *		modified bit; paging_in_progress keeps the object
 *	send	the pager starts the transfer and this thread goes on; or, where the pager cannot or
 *		will not now, this thread writes
 *	washed	on whatever thread the transfer has ended: what was written is clean, the rest is
 *		modified again
 *
 * A write that comes while a page is in the laundry faults, waits for the pager to finish, and sets the
 * bit again.  A wired page keeps its rights, and therefore its bit.  The rights to write exist
 * in mappings of the object itself only, so a run is protected by one call for each of those.
 *
 * A page that its pager refuses keeps its bytes and its bit.  The pager is left alone for a while, twice
 * as long each time, by the pageout daemon; who asks for a page to be written now (vmf_pager_sync, the
 * end of an object) asks the pager at once, and is told.
 */

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "physmem.h"
#include "pmap.h"
#include "vm_clean.h"
#include "vm_meter.h"
#include "vm_view.h"

#define SYNC_WASHES	8				/* transfers of one vm_object_clean() */
#define BEHIND_WASHES	16				/* ... of all vm_object_clean_begin()s */
#define BACKOFF_NS	((uint64_t)1000 * 1000)		/* after the first refusal; doubles with each */
#define BACKOFF_HOPEFUL	6				/* ... this often, */
#define HOPELESS	32				/* until it was refused so often in a row: 1.7 s */
#define BACKOFF_LAST	10				/* then it is a second */

/* What is begun behind the callers' backs stays in memory when it is clean. */
static bool
keep(struct vm_page *m)
{
	(void)m;
	return false;
}

static struct vm_wash behind_washes[BEHIND_WASHES];
static struct vm_laundry behind = { .wash = behind_washes, .nwashes = BEHIND_WASHES, .evict = keep };

bool
vm_pager_backs_off(const struct vm_pager *p)
{
	return p->refusals != 0 && sys_clock() < p->retry_at;
}

bool
vm_pager_is_hopeless(const struct vm_pager *p)
{
	return p->refusals >= HOPELESS;
}

/* The pager's answer to a write.  => its object locked */
static void
note_answer(struct vm_pager *p, bool refused)
{
	if (!refused) {
		p->refusals = 0;
	} else if (!vm_pager_backs_off(p)) {	/* several at a time count once */
		p->retry_at = sys_clock() + (BACKOFF_NS << (vm_pager_is_hopeless(p) ? BACKOFF_LAST :
		    MIN(p->refusals, BACKOFF_HOPEFUL)));
		p->refusals++;
	}
}

/* Free those of n clean pages, busy by us, that nobody has asked for since; the others may be used.  => locked */
static void
let_go(struct vm_page **m, uint32_t n)
{
	uint32_t nleave = 0;

	for (uint32_t k = 0; k < n; k++) {
		if ((m[k]->flags & (PG_MODIFIED | PG_REFERENCED | PG_WANTED)) == 0 && m[k]->wire_count == 0)
			m[nleave++] = m[k];
		else
			vm_page_wakeup(m[k]);
	}
	vm_count_n(v_drop_behind, nleave);
	for (uint32_t k = 0; k < nleave; k += VM_PAGE_MANY)
		vm_page_free_many(m + k, MIN(nleave - k, VM_PAGE_MANY), false);
}

/* The transfer has ended, or this part of it. */
static void
washed(struct vm_pager_io *io)
{
	struct vm_wash *w = container_of(io, struct vm_wash, io);
	struct vm_laundry *l = w->laundry;
	struct vm_object *o = io->object;
	uint32_t done = io->done, n = io->n;
	bool refused = io->result != VM_PAGER_OK, finished = refused || done == n || l->evict != NULL;

	PROBE("vm_clean: washed");
	vm_object_lock(o);
	note_answer(io->pager, refused);
	for (uint32_t k = 0; k < (finished ? n : done); k++) {
		struct vm_page *m = io->m[k];

		m->flags &= (uint16_t)~PG_LAUNDRY;
		if (k >= done)
			m->flags |= PG_MODIFIED;
		else if (io->pager->ops->sync != NULL)
			m->flags |= PG_UNSTABLE;
		if (k < done && (w->leave || (l->evict != NULL && l->evict(m))))
			continue;
		vm_page_wakeup(m);
	}
	if (w->leave)
		let_go(io->m, done);
	if (finished) {
		vm_count_n(v_refused, n - done);
		io->pager->writes--;
		vm_object_pip_done(o);
	}
	vm_object_unlock(o);

	atomic_fetch_sub(&l->pages, finished ? n : done);
	if (finished) {
		/* What was not tried is no loss to the daemon: it will come across it again. */
		atomic_fetch_add(&l->lost, n - done);
		atomic_store(&w->state, WASH_FREE);
		atomic_fetch_sub(&l->sent, 1);
	} else {
		for (uint32_t k = done; k < n; k++)
			io->m[k - done] = io->m[k];
		io->offset += done;
		io->n = n - done;
		atomic_store(&w->state, WASH_SHORT);
	}
	/* The laundry may be gone already: its address will do. */
	event_wake(l);
}

/* => no lock held */
static void
send(struct vm_wash *w)
{
	struct vm_pager_io *io = &w->io;

	PROBE("vm_object_clean: put");
	/* Behind a writer the bytes are in his cache, and waking somebody costs more than to copy them. */
	if (!(w->laundry == &behind && vm_pager_put_copies(io->pager)) && vm_pager_start(io))
		return;
	io->result = vm_pager_put(io->pager, io->offset, io->m, io->n, &io->done);
	washed(io);
}

/* A page over a hole of its file, to which nobody has written?  => busy, and nobody can write it now */
static bool
is_untouched(struct vm_page *m)
{
	return (m->flags & PG_HOLE) && physmem_is_zero(m->pfn);
}

/*
 * Of n busy pages in a row those that are to be written, in a row too, to the front; the others are let go.
 * Returns how many; *next: where to go on.
 */
static uint32_t
sort_out(struct vm_page **m, uint32_t n, vm_pindex_t *next)
{
	uint32_t lo = 0, hi, k;

	while (lo < n && is_untouched(m[lo]))
		lo++;
	for (hi = lo; hi < n && !is_untouched(m[hi]); hi++)
		;
	*next = m[n - 1]->pindex + 1;
	for (k = 0; k < n; k++) {
		if (k >= lo && k < hi) {
			m[k]->flags &= (uint16_t)~PG_HOLE;
			if (m[k]->wire_count == 0)
				m[k]->flags &= (uint16_t)~PG_MODIFIED;
			m[k - lo] = m[k];
			continue;
		}
		if (k == hi)
			*next = m[k]->pindex;
		if (k < lo && m[k]->wire_count == 0)
			m[k]->flags &= (uint16_t)~(PG_MODIFIED | PG_HOLE);
		m[k]->flags &= (uint16_t)~PG_LAUNDRY;
		vm_page_wakeup(m[k]);
	}
	return hi - lo;
}

/*
 * Fill in the transfer of n pages, from m[0] of it, which are busy, and send it; leave: they are to go then.  Where some need not
 * be written it is shorter, or none at all.  Returns the page to go on with.
 * => object locked, unlocked at return
 */
static vm_pindex_t
launder(struct vm_laundry *l, struct vm_wash *w, struct vm_object *o, uint32_t n, bool leave)
{
	struct vm_page **m = w->io.m;
	vm_pindex_t lo = m[0]->pindex, next;

	vm_object_protect(o, lo, lo + n, l == &behind ? VM_PROT_NONE : VM_PROT_READ | VM_PROT_EXECUTE,
	    PMAP_KEEP_WIRED);
	n = sort_out(m, n, &next);
	if (n == 0) {
		vm_object_unlock(o);
		atomic_store(&w->state, WASH_FREE);
		event_wake(l);
		return next;
	}
	lo = m[0]->pindex;
	w->laundry = l;
	w->leave = leave;
	w->sent_at = sys_clock();
	w->io.pager = o->pager;
	w->io.offset = (uint64_t)lo + o->paging_offset;
	w->io.n = n;
	w->io.put = true;
	w->io.flush = false;
	w->io.complete = washed;
	w->io.object = o;
	o->pager->writes++;
	o->pager->put[o->pager->nputs++ % VM_PAGER_PUTS] = (struct vm_pager_put){ w->io.offset, n };
	vm_object_pip_add(o);
	atomic_store(&w->state, WASH_SENT);
	atomic_fetch_add(&l->sent, 1);
	atomic_fetch_add(&l->pages, n);
	vm_object_unlock(o);
	send(w);
	return next;
}

/*
 * Everything in a range
 */

/*
 * Take modified pages from *i on, in a row; the number of them.  *wait: a busy one stands there.
 * => locked
 */
static uint32_t
gather(struct vm_object *o, vm_pindex_t *i, vm_pindex_t hi, struct vm_page **m, struct vm_page **wait)
{
	struct vm_page *p;
	uint32_t n = 0;

	*wait = NULL;
	for (; n < VM_PAGER_IO_MAX && (p = radix_next(&o->pages, i)) != NULL && *i < hi; ++*i) {
		if (n != 0 && p->pindex != m[n - 1]->pindex + 1)
			break;
		/* Who is waiting for it to be filled has not written to it. */
		if (n == 0 && (p->flags & PG_FAKE))
			continue;
		if (p->flags & PG_BUSY) {
			if (n == 0)
				*wait = p;
			break;
		}
		if (!(p->flags & PG_MODIFIED)) {
			if (n != 0)
				break;
			continue;
		}
		p->flags |= PG_BUSY | PG_LAUNDRY;
		m[n++] = p;
	}
	return n;
}

/*
 * A place for another transfer; what was taken in part is sent on meanwhile.  all: wait until every
 * one is free.  => no lock held
 */
static struct vm_wash *
wash_get(struct vm_laundry *l, bool all)
{
	for (;;) {
		uint32_t ticket = event_prepare(l), nfree = 0;
		struct vm_wash *found = NULL;

		for (struct vm_wash *w = l->wash; w < l->wash + l->nwashes; w++) {
			int state = atomic_load(&w->state);

			if (state == WASH_SHORT) {
				atomic_store(&w->state, WASH_SENT);
				send(w);
			} else if (state == WASH_FREE) {
				found = w;
				nfree++;
			}
		}
		/* Not before `sent' says so is the thread that freed a place done with the laundry. */
		if (all ? nfree == l->nwashes && atomic_load(&l->sent) == 0 : found != NULL)
			return found;
		(void)event_wait(l, ticket, EVENT_FOREVER);
	}
}

enum kern_return
vm_object_clean(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, uint32_t *lost)
{
	struct vm_wash washes[SYNC_WASHES], *w;
	struct vm_laundry l = { .wash = washes, .nwashes = SYNC_WASHES };
	struct vm_page *wait;
	vm_pindex_t i = lo;

	for (uint32_t k = 0; k < SYNC_WASHES; k++)
		atomic_init(&washes[k].state, WASH_FREE);
	for (;;) {
		uint32_t n, ticket;

		w = wash_get(&l, false);
		vm_object_lock(o);
		n = gather(o, &i, hi, w->io.m, &wait);
		if (n != 0) {
			i = launder(&l, w, o, n, false);
			continue;
		}
		if (wait == NULL)
			break;
		ticket = event_prepare(wait);
		wait->flags |= PG_WANTED;
		vm_object_unlock(o);
		(void)event_wait(wait, ticket, EVENT_FOREVER);
	}
	vm_object_unlock(o);
	(void)wash_get(&l, true);
	*lost = atomic_load(&l.lost);
	return *lost == 0 ? KERN_SUCCESS : KERN_MEMORY_ERROR;
}

/*
 * The same, behind the caller's back
 */

/* Take a place that is free; null: none. */
static struct vm_wash *
wash_claim(struct vm_laundry *l)
{
	for (struct vm_wash *w = l->wash; w < l->wash + l->nwashes; w++) {
		int expected = WASH_FREE;

		if (atomic_compare_exchange_strong(&w->state, &expected, WASH_SENT))
			return w;
	}
	return NULL;
}

vm_pindex_t
vm_object_clean_begin(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, bool leave)
{
	vm_pindex_t i = lo;

	while (i < hi) {
		struct vm_wash *w = o->pager->ops->start != NULL ? wash_claim(&behind) : NULL;
		struct vm_page *busy;
		uint32_t n;

		if (w == NULL)
			return i;
		vm_object_lock(o);
		do {
			n = gather(o, &i, hi, w->io.m, &busy);
			if (busy != NULL)
				i++;
		} while (n == 0 && busy != NULL);
		if (n != 0) {
			i = launder(&behind, w, o, n, leave);
			continue;
		}
		vm_object_unlock(o);
		atomic_store(&w->state, WASH_FREE);
		break;
	}
	return hi;
}

void
vm_clean_fini(void)
{
	(void)wash_get(&behind, true);
}

/*
 * A page and its neighbours
 */

/* May the page at i go out with a neighbour that must? */
static struct vm_page *
may_join(struct vm_object *o, vm_pindex_t i)
{
	struct vm_page *m = vm_page_lookup(o, i);

	return m != NULL && (m->flags & (PG_BUSY | PG_MODIFIED | PG_REFERENCED)) == PG_MODIFIED &&
	    m->queue == PQ_INACTIVE && !vm_page_is_viewed(m) ? m : NULL;
}

void
vm_object_launder(struct vm_laundry *l, struct vm_page *m)
{
	struct vm_object *o = m->object;
	vm_pindex_t lo = m->pindex, hi = lo + 1;
	struct vm_wash *w = l->wash;

	KASSERT(!(m->flags & PG_BUSY) && m->wire_count == 0);
	while (atomic_load(&w->state) != WASH_FREE)
		w++;
	KASSERT(w < l->wash + l->nwashes);
	while (lo > 0 && hi - lo < VM_PAGER_IO_MAX && may_join(o, lo - 1) != NULL)
		lo--;
	while (hi < o->size && hi - lo < VM_PAGER_IO_MAX && may_join(o, hi) != NULL)
		hi++;
	for (vm_pindex_t i = lo; i < hi; i++) {
		w->io.m[i - lo] = vm_page_lookup(o, i);
		w->io.m[i - lo]->flags |= PG_BUSY | PG_LAUNDRY;
	}
	(void)launder(l, w, o, hi - lo, false);
}
