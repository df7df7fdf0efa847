/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The policy of the library: hot and cold pages, by how soon they come back.
 *
 *		    room			evidence: came back sooner than the
 *	new page --------> HOT <------------------- oldest watched hot page was touched
 *	    |								^
 *	    | no room							|
 *	    +------------> COLD ----> watched ----> victim ----> ghost -+
 *
 * Least recently used is a good guess until something larger than memory is read once, or again and
 * again: then every page comes after the last one that is of use, and pushes it out.  What tells
 * the two apart is not when a page was used last but how long it took to be used AGAIN (LIRS, Jiang
 * and Zhang 2002; CLOCK-Pro, Jiang, Chen and Zhang 2005).  So:
 *
 *   - Most frames belong to HOT pages: whoever comes first, as long as there is room.
 *   - All others pass through COLD, an eighth of the frames, first in, first out (the A1in of 2Q,
 *     Johnson and Shasha 1994).  Only cold pages are victims.  Whatever is used once goes here, and
 *     leaves no trace.
 *   - A victim leaves a GHOST: where it was, and when it was used last.  A page that comes and
 *     has a ghost has a REUSE DISTANCE, and so has a cold page that is touched for the second time
 *     while it is watched.
 *   - That distance is a claim to be hot.  It is granted against the hot page that has been
 *     watched longest, if that has not been touched for longer than the distance; the two change
 *     places.  It is refused otherwise; but then another few hot pages are watched, lest the next
 *     claim meets none.
 *
 * Time is counted in pages that came.  Hot pages are watched only when there are claims, as
 * watching a page that is in use costs a fault: a scan alone makes no claims, so it costs the hot
 * set nothing, not even soft faults.  In a loop that is a little larger than memory all distances
 * are equal, every claim is refused, and what is hot stays: most of the loop hits.  If the program
 * turns to something else, that makes claims, and what was hot is watched, is not touched, and
 * gives way.
 *
 * bench/replay counted misses on recorded traces, with 1,024 frames: popular pages with scans in
 * between: 15.0 thousand, where the clock has 19.6, LRU 19.5 and the optimum 14.3; a loop over
 * 1,280 pages: 18.8, where clock and LRU miss all 60, optimum 12.9; random pages: as the clock.
 * The price: when a working set of half the memory is replaced by another, 7.8 where LRU has 4.1,
 * as the new one must make its claims first.  A larger cold share pays less there and gives it back
 * in the loop.
 *
 * The ghosts are a hash table of as many entries as there are frames; a full bucket forgets its oldest.
 * Two pages that share an entry's 64 bits of hash, or an object at the address of one that is gone: then a
 * page makes a false claim, which costs little.
 */

#include "kern/slab.h"
#include "vm_pdpolicy.h"

#define COLD_SHARE	8		/* of the frames: for pages that are not hot */
#define COLD_LEAST	16		/* ... but so many, and at most half */
#define CLAIM_WATCHES	2		/* hot pages that are watched for each claim that was refused */
#define WAYS		4		/* ghosts in a bucket */
#define GHOSTS_MAX	((size_t)1 << 22)

enum heat { COLD, HOT };
#define HEAT	1u			/* of vm_page.heat: enum heat */
#define TOUCHED	2u			/* ... cold, and was touched while it was watched */

struct ghost {
	uint32_t tag;			/* 0: none */
	uint32_t used;			/* when its page was used last, as far as we saw */
};

/* Guarded by vm_page_queue_lock. */
static struct {
	struct vm_pageq active[2], watched[2];	/* by heat */
	uint64_t frames;
	uint32_t now;			/* pages that came */
	uint64_t to_watch;		/* hot pages that are to be watched, for claims that were refused */
	uint64_t left[2];		/* victims that may be skipped in this pass, by heat */
	bool hard;
	struct ghost *ghosts;
	size_t nghosts;			/* a power of two; 0: no table yet */
} wm;

/*
 * Ghosts
 */

static struct ghost *
bucket(const struct vm_page *m, uint32_t *tag)
{
	uint64_t h = ((uint64_t)(uintptr_t)m->object ^ (uint64_t)m->pindex << 20) *
	    UINT64_C(0x9e3779b97f4a7c15);

	h = (h ^ h >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
	*tag = (uint32_t)h | 1;
	return wm.ghosts + ((h >> 32) & (wm.nghosts / WAYS - 1)) * WAYS;
}

/* The table is made when the first page is taken: most programs never need one. */
static bool
have_ghosts(void)
{
	size_t n = WAYS;

	if (wm.nghosts != 0)
		return true;
	while (n < wm.frames && n < GHOSTS_MAX)
		n *= 2;
	wm.ghosts = kmem_alloc(n * sizeof(struct ghost));
	if (wm.ghosts == NULL)
		return false;
	wm.nghosts = n;
	return true;
}

static void
ghosts_free(void)
{
	if (wm.nghosts != 0)
		kmem_free(wm.ghosts, wm.nghosts * sizeof(struct ghost));
	wm.nghosts = 0;
}

static void
ghost_leave(const struct vm_page *m)
{
	struct ghost *g, *oldest;
	uint32_t tag;

	if ((m->flags & PG_AHEAD) || !have_ghosts())
		return;			/* never used, so it cannot come back */
	oldest = g = bucket(m, &tag);
	for (int i = 0; i < WAYS; i++, g++) {
		if (g->tag == tag || g->tag == 0) {
			oldest = g;
			break;
		}
		if (wm.now - g->used > wm.now - oldest->used)
			oldest = g;
	}
	*oldest = (struct ghost){ tag, m->used };
}

/* Has the page that comes a ghost?  Then that goes, and *distance is how long ago the page was used. */
static bool
ghost_find(const struct vm_page *m, uint32_t *distance)
{
	struct ghost *g;
	uint32_t tag;

	if (wm.nghosts == 0)
		return false;
	g = bucket(m, &tag);
	for (int i = 0; i < WAYS; i++, g++)
		if (g->tag == tag) {
			g->tag = 0;
			*distance = wm.now - g->used;
			return true;
		}
	return false;
}

/*
 * Hot and cold
 */

static uint64_t
count(enum heat heat)
{
	return wm.active[heat].n + wm.watched[heat].n;
}

/* Of the frames that are not wired, all but the cold share. */
static uint64_t
hot_max(void)
{
	uint64_t frames = wm.frames - MIN(wm.frames, vm_page_wire_count);

	return frames - MIN(MAX(frames / COLD_SHARE, COLD_LEAST), frames / 2);
}

static enum heat
heat_of(const struct vm_page *m)
{
	return m->heat & HEAT;
}

static bool
is_cold(const struct vm_page *m)
{
	return heat_of(m) == COLD;
}

static void
dequeue(struct vm_page *m)
{
	vm_pageq_remove(m->queue == PQ_ACTIVE ? &wm.active[heat_of(m)] : &wm.watched[heat_of(m)], m);
}

static void
activate(struct vm_page *m, enum heat heat)
{
	m->heat = (uint8_t)heat;
	m->used = wm.now;
	vm_pageq_insert(&wm.active[heat], m, PQ_ACTIVE);
}

/* The next victim. */
static void
watch_first(struct vm_page *m)
{
	m->heat = COLD;
	vm_pageq_insert(&wm.watched[COLD], m, PQ_INACTIVE);
	vm_pageq_to_front(&wm.watched[COLD], m);
}

/* May a page that came back after such a distance be hot? */
static bool
claim(uint32_t distance)
{
	struct vm_page *m = vm_pageq_first(&wm.watched[HOT]);

	if (count(HOT) < hot_max())
		return true;
	if (m != NULL && wm.now - m->used > distance) {
		dequeue(m);
		watch_first(m);
		return true;
	}
	wm.to_watch = MIN(wm.to_watch + CLAIM_WATCHES, count(HOT) / 2);
	return false;
}

static void
enqueue(struct vm_page *m)
{
	uint32_t distance;
	bool hot = count(HOT) < hot_max();

	wm.now++;
	/* What comes back sooner than it would have passed through was taken too soon, as the end of
	   what a reader has mapped ahead; that says nothing of its use. */
	if (!hot && ghost_find(m, &distance) && distance > count(COLD))
		hot = claim(distance);
	activate(m, hot ? HOT : COLD);
}

static void
touch(struct vm_page *m)
{
	enum heat heat = heat_of(m);
	unsigned touched = m->heat & TOUCHED;

	dequeue(m);
	/* Once may be the first touch of a page that was read ahead, or the end of the first use. */
	if (heat == COLD && touched && claim(wm.now - m->used))
		heat = HOT;
	activate(m, heat);
	if (heat == COLD)
		m->heat |= TOUCHED;
}

static void
rewind(struct vm_page *m)
{
	uint32_t used = m->used;
	uint8_t heat = m->heat;

	dequeue(m);
	activate(m, heat & HEAT);
	m->heat = heat;
	if (heat_of(m) == COLD)
		m->used = used;
}

static void
watch(struct vm_page *m)
{
	dequeue(m);
	if (heat_of(m) == HOT && count(HOT) >= hot_max()) {
		watch_first(m);		/* the budget has become smaller */
		return;
	}
	if (heat_of(m) == HOT) {
		m->used = wm.now;
		wm.to_watch -= wm.to_watch != 0;
	}
	vm_pageq_insert(&wm.watched[heat_of(m)], m, PQ_INACTIVE);
}

static void
discard(struct vm_page *m)
{
	dequeue(m);
	watch_first(m);
}

static void
evict(struct vm_page *m)
{
	ghost_leave(m);
	dequeue(m);
}

/*
 * The daemon's side
 */

static void
begin(bool hard)
{
	uint64_t max = hot_max();

	wm.hard = hard;
	wm.left[COLD] = count(COLD) + count(HOT) - MIN(count(HOT), max);
	wm.left[HOT] = hard ? count(HOT) : 0;
}

static struct vm_page *
next_to_watch(void)
{
	struct vm_pageq *hot = &wm.active[HOT];

	if (wm.watched[COLD].n < wm.active[COLD].n)
		return vm_pageq_first(&wm.active[COLD]);
	if (count(HOT) > hot_max() || (wm.hard && wm.watched[HOT].n < hot->n))
		return vm_pageq_first(hot);
	return wm.to_watch != 0 ? vm_pageq_first(hot) : NULL;
}

static struct vm_page *
next_victim(void)
{
	for (enum heat heat = COLD; heat <= HOT; heat++)
		if (wm.left[heat] != 0 && wm.watched[heat].n != 0)
			return vm_pageq_first(&wm.watched[heat]);
	return NULL;
}

static void
skip(struct vm_page *m)
{
	enum heat heat = heat_of(m);

	if (m->queue == PQ_INACTIVE && wm.left[heat] != 0)
		wm.left[heat]--;
	vm_pageq_to_end(m->queue == PQ_ACTIVE ? &wm.active[heat] : &wm.watched[heat], m);
}

static void
tune(uint64_t frames)
{
	wm.frames = frames;
	ghosts_free();		/* what they know is lost; a table of another size comes with the next */
}

static void
init(void)
{
	for (enum heat heat = COLD; heat <= HOT; heat++) {
		vm_pageq_init(&wm.active[heat]);
		vm_pageq_init(&wm.watched[heat]);
	}
	wm.now = 0;
	wm.to_watch = 0;
	wm.nghosts = 0;
}

const struct vm_pdpolicy vm_pdpolicy_warm = {
	.name = "warm",
	.init = init,
	.fini = ghosts_free,
	.tune = tune,
	.enqueue = enqueue,
	.dequeue = dequeue,
	.evict = evict,
	.is_cold = is_cold,
	.touch = touch,
	.rewind = rewind,
	.watch = watch,
	.discard = discard,
	.begin = begin,
	.next_to_watch = next_to_watch,
	.next_victim = next_victim,
	.skip = skip,
};
