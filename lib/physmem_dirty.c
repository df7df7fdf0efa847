/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Dirty frames: freed, and still in memory.
 *
 * Memory that the kernel takes back has to be found, cleared and mapped again by it for the next who needs some, and
 * who frees much is often who needs much a moment later: the frames of a snapshot that ends are those
 * of the next one.  So freed frames LINGER.  They are used again, they are given back where the budget
 * asks for it, and what nobody took for a whole interval is surplus, and goes in the background, a little at a
 * time (physmem_trim()).
 *
 * The last runs that were freed are known by their places, in a stack: what was used last is used
 * again first.  Others are found by their bits, block by block.
 *
 * A frame is given back by punching it out of the memfd, with the lock dropped: while that goes on
 * its bits are those of a used frame, so that nobody takes it from under the hole, but it counts as a dirty
 * one; who needs it waits the moment that it takes.  Punches are short, for who writes to the memfd meanwhile
 * has to wait as well.
 */

#include <string.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "physmem_impl.h"

#define RECYCLE_LEAST	32			/* frames in a row that are worth being used out of place */
#define RECYCLE_LOOKS	8			/* runs that are looked at for that */
#define PLENTY_STEP	32			/* frames freed for each physmem_plenty */
#define PUNCH_MOST	512u			/* frames in one call */
#define WORK_RUNS	64u			/* runs that are in hand at a time */
#define LINGER_NS	((uint64_t)5 * 1000 * 1000 * 1000)
#define TRIM_PAUSE_NS	((int64_t)1000 * 1000)	/* between two pieces of PUNCH_MOST */

#define BLOCK_WORDS	((1u << RUN_SHIFT) / 64)

uint64_t physmem_linger = LINGER_NS;

/*
 * Finding them
 */

/* The dirty frames of a run, from *at on, as one run.  => lock held. */
static struct run
next_dirty(const struct run *run, vm_pfn_t *at)
{
	vm_pfn_t end = run->base + run->npages;
	struct run r;

	while (*at < end && !test_bit(pm.dirty, *at))
		(*at)++;
	r = (struct run){ *at, 0 };
	for (; *at < end && test_bit(pm.dirty, *at); (*at)++)
		r.npages++;
	return r;
}

/* Remember the frame with the run that it continues, or as a new one.  => lock held; false: no room */
static bool
know(vm_pfn_t pfn)
{
	struct run *last = pm.nknown != 0 ? &pm.known[pm.nknown - 1] : NULL;

	if (last != NULL && last->base + last->npages == pfn)
		last->npages++;
	else if (pm.nknown < KNOWN_RUNS)
		pm.known[pm.nknown++] = (struct run){ pfn, 1 };
	else
		return false;
	return true;
}

/* Make room: leave out what was used again, and then the older half.  => lock held */
static void
know_less(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < pm.nknown; i++) {
		vm_pfn_t at = pm.known[i].base;

		if (next_dirty(&pm.known[i], &at).npages != 0)
			pm.known[n++] = pm.known[i];
	}
	if (n > KNOWN_RUNS / 2) {
		memmove(pm.known, pm.known + n - KNOWN_RUNS / 2, KNOWN_RUNS / 2 * sizeof(pm.known[0]));
		n = KNOWN_RUNS / 2;
	}
	pm.nknown = n;
}

/* Those of block b.  false: not all of them had room.  => lock held */
static bool
know_block(uint64_t b)
{
	vm_pfn_t first = (vm_pfn_t)(b << RUN_SHIFT);
	bool any = false;

	for (uint32_t i = 0; i < BLOCK_WORDS; i++) {
		uint64_t word = pm.dirty[first / 64 + i];

		for (; word != 0; word &= word - 1) {
			any = true;
			if (!know(first + i * 64 + (vm_pfn_t)__builtin_ctzll(word)))
				return false;
		}
	}
	if (!any)
		clear_bit(pm.blocks, (vm_pfn_t)b);
	return true;
}

/* None is known: look for some, on from where the last look ended.  => lock held */
static void
know_more(void)
{
	uint64_t nblocks = pm.nframes >> RUN_SHIFT;

	for (uint64_t looked = 0; looked < nblocks && pm.nknown < KNOWN_RUNS;) {
		uint64_t b = pm.hand < nblocks ? pm.hand : 0, step;

		if (pm.blocks[b / 64] >> (b % 64) == 0) {
			step = 64 - b % 64;
		} else {
			if (test_bit(pm.blocks, (vm_pfn_t)b) && !know_block(b))
				return;		/* here the next look begins */
			step = 1;
		}
		looked += step;
		pm.hand = b + step;
	}
}

vm_pfn_t
dirty_any(void)
{
	for (;; pm.nknown--) {
		const struct run *last;
		struct run r;
		vm_pfn_t at;

		if (pm.nknown == 0)
			know_more();
		if (pm.nknown == 0)
			return 0;
		last = &pm.known[pm.nknown - 1];
		at = last->base;
		r = next_dirty(last, &at);
		if (r.npages != 0)
			return r.base;
	}
}

/*
 * Taking them
 */

/* => lock held */
static void
fewer(uint64_t n)
{
	pm.ndirty -= n;
	pm.least = MIN(pm.least, pm.ndirty);
}

void
dirty_take(vm_pfn_t pfn)
{
	clear_bit(pm.dirty, pfn);
	clear_bit(pm.fresh, pfn);
	mark_used(pfn);
	fewer(1);
}

/*
 * Of the newest runs the shortest that is long enough, or else the longest; a few frames here and there are
 * not worth it, for the pages in them would need as many mappings.  => lock held
 */
static struct run *
best_dirty(uint32_t n, struct run *found)
{
	uint32_t least = MIN(n, RECYCLE_LEAST);
	struct run *best = NULL;

	*found = (struct run){ 0 };
	for (uint32_t i = pm.nknown, looks = RECYCLE_LOOKS; i > 0 && looks > 0; i--, looks--) {
		struct run *run = &pm.known[i - 1], r;
		vm_pfn_t at = run->base;

		r = next_dirty(run, &at);
		if (r.npages >= least && (r.npages >= n ? found->npages < n || r.npages < found->npages :
		    r.npages > found->npages)) {
			best = run;
			*found = r;
		}
	}
	return best;
}

uint32_t
physmem_recycle(uint32_t n, vm_pfn_t *base)
{
	struct run *run, r;
	uint32_t gone;

	kmutex_lock(&pm.lock);
	if (pm.nknown == 0 && pm.ndirty != 0)
		know_more();
	run = n != 0 && pm.nused + pm.nlent < pm.budget ? best_dirty(n, &r) : NULL;
	n = run != NULL ? (uint32_t)MIN((uint64_t)MIN(n, r.npages), pm.budget - pm.nused - pm.nlent) : 0;
	if (n != 0) {
		*base = r.base;
		for (vm_pfn_t p = r.base; p < r.base + n; p++)
			dirty_take(p);
		physmem_note_low();
		gone = r.base + n - run->base;
		run->base += gone;
		run->npages -= gone;
		if (run->npages == 0)
			*run = pm.known[--pm.nknown];
	}
	kmutex_unlock(&pm.lock);
	return n;
}

/*
 * Freeing
 */

void
dirty_free(vm_pfn_t pfn)
{
	KASSERT_ALWAYS(test_bit(pm.used, pfn));
	KASSERT(!test_bit(pm.dirty, pfn));
	clear_bit(pm.used, pfn);
	pm.nused--;
	set_bit(pm.dirty, pfn);
	set_bit(pm.blocks, pfn >> RUN_SHIFT);
	pm.ndirty++;
	if (!know(pfn)) {
		know_less();
		(void)know(pfn);
	}
}

void
dirty_freed(void)
{
	physmem_note_low();
	if (pm.interval_end == 0) {
		pm.interval_end = 1;		/* the first one is over at once */
		atomic_store(&pm.untended, true);
	}
}

void
physmem_free(vm_pfn_t pfn)
{
	physmem_free_many(&pfn, 1);
}

void
physmem_free_many(const vm_pfn_t *pfn, uint32_t n)
{
	bool plenty = n >= PLENTY_STEP;

	kmutex_lock(&pm.lock);
	for (uint32_t i = 0; i < n; i++) {
		if (!physmem_is_inherited(pfn[i]) && !freeze_keeps(pfn[i]))
			dirty_free(pfn[i]);
		plenty |= pm.nused % PLENTY_STEP == 0;
	}
	dirty_freed();
	kmutex_unlock(&pm.lock);
	event_wake(&physmem_freed);
	if (plenty)
		event_wake(&physmem_plenty);
}

/*
 * Giving them back
 */

/* Punch a run of dirty frames.  => lock held, and in between not.  Returns how many the kernel took. */
static uint32_t
punch(const struct run *r)
{
	int error;

	for (vm_pfn_t p = r->base; p < r->base + r->npages; p++) {
		clear_bit(pm.dirty, p);
		set_bit(pm.used, p);
	}
	pm.npunching = r->npages;
	kmutex_unlock(&pm.lock);
	PROBE("physmem_flush: punching");
	error = sys_punch(pm.fd, (uint64_t)r->base << PAGE_SHIFT, (uint64_t)r->npages << PAGE_SHIFT);
	kmutex_lock(&pm.lock);
	for (vm_pfn_t p = r->base; p < r->base + r->npages; p++) {
		clear_bit(pm.used, p);
		if (error != 0) {		/* it is found by its bit, later */
			set_bit(pm.dirty, p);
			set_bit(pm.blocks, p >> RUN_SHIFT);
		}
	}
	if (error == 0)
		fewer(r->npages);
	pm.npunching = 0;
	event_wake(&pm.npunching);
	return error == 0 ? r->npages : 0;
}

/* The oldest runs that are known.  => lock held.  Returns how many */
static uint32_t
take_oldest(struct run *work)
{
	uint32_t n;

	if (pm.nknown == 0)
		know_more();
	n = MIN(pm.nknown, WORK_RUNS);
	memcpy(work, pm.known, n * sizeof(work[0]));
	pm.nknown -= n;
	memmove(pm.known, pm.known + n, pm.nknown * sizeof(pm.known[0]));
	return n;
}

uint32_t
physmem_flush(uint32_t most)
{
	static struct run work[WORK_RUNS];	/* guarded by pm.flushing */
	uint32_t tried = 0, given = 0, n;

	kmutex_lock(&pm.lock);
	if (pm.flushing) {
		kmutex_unlock(&pm.lock);
		sys_yield();
		return 0;
	}
	pm.flushing = true;
	/* What the kernel has refused once is there again, but not for now: no more than there are. */
	most = (uint32_t)MIN((uint64_t)most, pm.ndirty);
	do {
		n = take_oldest(work);
		for (uint32_t i = 0; i < n; i++) {
			for (vm_pfn_t at = work[i].base; tried < most;) {
				struct run r = next_dirty(&work[i], &at);

				if (r.npages == 0)
					break;
				r.npages = MIN(MIN(r.npages, PUNCH_MOST), most - tried);
				at = r.base + r.npages;
				tried += r.npages;
				given += punch(&r);
			}
		}
	} while (tried < most && n != 0);
	pm.flushing = false;
	kmutex_unlock(&pm.lock);
	if (given != 0)
		event_wake(&physmem_freed);
	return given;
}

bool
physmem_fits(void)
{
	bool fits, refused = false;

	kmutex_lock(&pm.lock);
	for (;;) {
		uint32_t ticket = event_prepare(&pm.npunching);
		uint64_t taken = pm.nused + pm.nlent + pm.ndirty;
		bool flushing = pm.flushing;

		fits = taken <= pm.budget;
		if (fits || pm.nused + pm.nlent > pm.budget || (refused && !flushing))
			break;
		kmutex_unlock(&pm.lock);
		if (flushing) {
			PROBE("physmem_fits: others are punching");
			(void)event_wait(&pm.npunching, ticket, EVENT_FOREVER);
		} else {
			refused = physmem_flush((uint32_t)MIN(taken - pm.budget, UINT32_MAX)) == 0;
		}
		kmutex_lock(&pm.lock);
	}
	kmutex_unlock(&pm.lock);
	return fits;
}

bool
physmem_is_untended(void)
{
	return atomic_load_explicit(&pm.untended, memory_order_relaxed) && atomic_exchange(&pm.untended, false);
}

int64_t
physmem_trim(void)
{
	uint64_t now = sys_clock();
	int64_t wait;
	uint32_t n;

	kmutex_lock(&pm.lock);
	if (pm.surplus == 0 && pm.interval_end != 0 && now >= pm.interval_end) {
		pm.surplus = pm.least;
		pm.least = pm.ndirty;
		pm.interval_end = pm.ndirty != 0 ? now + physmem_linger : 0;
	}
	n = (uint32_t)MIN(MIN(pm.surplus, pm.ndirty), PUNCH_MOST);
	pm.surplus = n != 0 ? pm.surplus - n : 0;
	wait = n != 0 ? TRIM_PAUSE_NS : pm.interval_end == 0 ? EVENT_FOREVER :
	    (int64_t)(pm.interval_end - MIN(now, pm.interval_end)) + TRIM_PAUSE_NS;
	kmutex_unlock(&pm.lock);
	if (n != 0)
		(void)physmem_flush(n);
	return wait;
}
