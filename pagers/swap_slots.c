/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Slots of the swap file: which are free, and which come next.
 *
 * One word a chunk, one bit a slot.  The search is next-fit, for whole chunks first: who gets the
 * first slot of a chunk has the other ones to itself until there are no free chunks any more.  What is
 * left then is taken one by one.
 *
 *	0              next ->              limit                  nchunks
 *	| used and freed again ............ | never used ............... |
 *
 * The search stays below `limit', which grows when less than a quarter of the chunks below it are
 * free, so that the file grows with its use and not just because the search moves on.
 *
 * A chunk of which all slots have been freed is STALE: the file still has room for it, which it takes a
 * system call to give back.  When there are many, an I/O thread punches them out of the file; chunks
 * that are being punched count as neither free nor used.
 */

#include <errno.h>

#include "io.h"
#include "kern/assert.h"
#include "kern/event.h"
#include "kern/lock.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "swap_impl.h"

#define ALL		UINT32_MAX	/* a chunk of which no slot is free */
#define GROWTH		64u		/* chunks at least: 8 MB */
#define PUNCH_AT	64u		/* stale chunks: 8 MB */
#define PUNCH_RUN	2048u		/* chunks in one system call: 256 MB */

static struct {
	struct kmutex lock;		/* RANK_SWAP_MAP; guards all that follows */
	uint32_t *used;			/* a bit for each slot */
	uint64_t *stale;		/* a bit for each chunk */
	size_t used_bytes, stale_bytes;	/* constant */
	uint32_t nchunks;		/* constant */
	uint32_t limit;
	uint32_t nfree;			/* chunks below limit that are free */
	uint32_t nstale;
	uint32_t next;
	uint64_t nused;			/* slots given out */
	uint64_t nslots_below;		/* slots of chunks below limit, but slot 0 */
	bool punch, punching, stop;
	struct io hole;			/* being punched */
} ss;

static inline bool
is_stale(uint32_t chunk)
{
	return ss.stale[chunk / 64] >> (chunk % 64) & 1;
}

static inline void
flip_stale(uint32_t chunk)
{
	ss.stale[chunk / 64] ^= (uint64_t)1 << (chunk % 64);
}

/* Let the search go further.  => locked.  false: there is no more. */
static bool
grow(void)
{
	uint32_t more = MIN(MAX(ss.limit / 4, GROWTH), ss.nchunks - ss.limit);

	for (uint32_t c = ss.limit; c < ss.limit + more; c++) {
		ss.nfree += ss.used[c] == 0;
		ss.nslots_below += SWAP_CHUNK - (uint32_t)__builtin_popcount(ss.used[c]);
	}
	ss.limit += more;
	return more != 0;
}

/* => locked, the slot is free */
static void
take(uint32_t slot)
{
	uint32_t c = slot / SWAP_CHUNK;

	KASSERT(c < ss.limit && (ss.used[c] >> (slot % SWAP_CHUNK) & 1) == 0);
	if (ss.used[c] == 0) {
		ss.nfree--;
		if (is_stale(c)) {
			flip_stale(c);
			ss.nstale--;
		}
	}
	ss.used[c] |= 1u << (slot % SWAP_CHUNK);
	ss.nused++;
}

/* The first chunk from ss.next on, all around, that is free, or has a free slot.  => locked, there is one */
static uint32_t
search(bool whole)
{
	for (uint32_t c = ss.next;; c = c + 1 < ss.limit ? c + 1 : 0)
		if (whole ? ss.used[c] == 0 : ss.used[c] != ALL)
			return ss.next = c;
}

uint32_t
swap_slot_new(uint32_t i)
{
	uint32_t slot = 0;

	kmutex_lock(&ss.lock);
	if (ss.nfree < ss.limit / 4)
		(void)grow();
	if (ss.nfree > 0) {
		slot = search(true) * SWAP_CHUNK + i;
		take(slot);
	}
	kmutex_unlock(&ss.lock);
	return slot;
}

uint32_t
swap_slot_any(void)
{
	uint32_t slot = 0, c;

	kmutex_lock(&ss.lock);
	if (ss.nused < ss.nslots_below || grow()) {
		c = search(false);
		slot = c * SWAP_CHUNK + (uint32_t)__builtin_ctz(~ss.used[c]);
		take(slot);
	}
	kmutex_unlock(&ss.lock);
	return slot;
}

static bool
take_that(uint32_t slot, bool whole)
{
	uint32_t c = slot / SWAP_CHUNK, bits;
	bool taken = false;

	kmutex_lock(&ss.lock);
	if (c < ss.limit || (c == ss.limit && grow())) {
		bits = whole ? ALL : 1u << (slot % SWAP_CHUNK);
		taken = (ss.used[c] & bits) == 0;
		if (taken)
			take(slot);
		/* The search goes on behind a run that has been extended. */
		if (taken && whole && ss.next == c - 1)
			ss.next = c;
	}
	kmutex_unlock(&ss.lock);
	return taken;
}

bool
swap_slot_take(uint32_t slot)
{
	return take_that(slot, false);
}

bool
swap_slot_take_first(uint32_t slot)
{
	KASSERT(slot % SWAP_CHUNK == 0);
	return take_that(slot, true);
}

bool
swap_slot_is_free(uint32_t slot)
{
	uint32_t c = slot / SWAP_CHUNK;
	bool is_free;

	kmutex_lock(&ss.lock);
	is_free = (ss.used[c] >> (slot % SWAP_CHUNK) & 1) == 0;
	kmutex_unlock(&ss.lock);
	return is_free;
}

void
swap_slots_pass(uint32_t slot)
{
	kmutex_lock(&ss.lock);
	if (ss.next == slot / SWAP_CHUNK)
		ss.next = ss.next + 1 < ss.limit ? ss.next + 1 : 0;
	kmutex_unlock(&ss.lock);
}

/*
 * Holes
 */

/* A run of stale chunks, taken out of use, as a hole to punch.  => locked.  false: there are none. */
static bool
next_hole(void)
{
	uint32_t c = 0, end;

	if (ss.nstale == 0)
		return false;
	while (!is_stale(c))
		c = ss.stale[c / 64] == 0 ? (c | 63) + 1 : c + 1;
	for (end = c; end < ss.limit && end - c < PUNCH_RUN && is_stale(end); end++) {
		KASSERT(ss.used[end] == 0);
		flip_stale(end);
		ss.used[end] = ALL;
	}
	ss.nstale -= end - c;
	ss.nfree -= end - c;
	ss.nslots_below -= (uint64_t)(end - c) * SWAP_CHUNK;
	ss.hole.offset = (uint64_t)c * SWAP_CHUNK << PAGE_SHIFT;
	ss.hole.len = (size_t)(end - c) * SWAP_CHUNK << PAGE_SHIFT;
	return true;
}

/* On an I/O thread. */
static void
punched(struct io *hole)
{
	uint32_t c = (uint32_t)(hole->offset >> PAGE_SHIFT) / SWAP_CHUNK;
	uint32_t n = (uint32_t)(hole->len >> PAGE_SHIFT) / SWAP_CHUNK;
	bool more;

	PROBE("swap: punched");
	kmutex_lock(&ss.lock);
	for (uint32_t i = c; i < c + n; i++)
		ss.used[i] = 0;
	ss.nfree += n;
	ss.nslots_below += (uint64_t)n * SWAP_CHUNK;
	/* A file system that cannot do it is not asked again. */
	if (hole->result < 0 && hole->result != -EAGAIN && hole->result != -ENOMEM)
		ss.punch = false;
	more = ss.punch && !ss.stop && next_hole();
	if (!more) {
		ss.punching = false;
		event_wake(&ss.punching);
	}
	kmutex_unlock(&ss.lock);
	if (more)
		io_start(hole);
}

void
swap_slots_give(uint32_t slot, uint32_t mask)
{
	uint32_t c = slot / SWAP_CHUNK;
	bool start = false;

	kmutex_lock(&ss.lock);
	KASSERT_ALWAYS(c < ss.limit && (ss.used[c] & mask) == mask && (c != 0 || !(mask & 1)));
	ss.used[c] &= ~mask;
	ss.nused -= (uint32_t)__builtin_popcount(mask);
	if (ss.used[c] == 0) {
		ss.nfree++;
		if (ss.punch) {
			flip_stale(c);
			ss.nstale++;
		}
	}
	if (ss.nstale >= PUNCH_AT && ss.punch && !ss.punching && !ss.stop)
		start = ss.punching = next_hole();
	kmutex_unlock(&ss.lock);
	if (start)
		io_start(&ss.hole);
}

uint64_t
swap_slots_used(void)
{
	uint64_t n;

	kmutex_lock(&ss.lock);
	n = ss.nused;
	kmutex_unlock(&ss.lock);
	return n;
}

uint32_t
swap_slots_next(uint32_t *slot)
{
	uint32_t s = *slot, n = 0;

	kmutex_lock(&ss.lock);
	while (s / SWAP_CHUNK < ss.limit && (ss.used[s / SWAP_CHUNK] >> (s % SWAP_CHUNK) & 1) == 0)
		s = ss.used[s / SWAP_CHUNK] == 0 ? (s / SWAP_CHUNK + 1) * SWAP_CHUNK : s + 1;
	while ((s + n) / SWAP_CHUNK < ss.limit && (ss.used[(s + n) / SWAP_CHUNK] >> ((s + n) % SWAP_CHUNK) & 1) != 0)
		n++;
	kmutex_unlock(&ss.lock);
	*slot = s;
	return n;
}

void
swap_slots_forked(int fd)
{
	KASSERT(!ss.punching);
	ss.hole.fd = fd;
	ss.punch = true;
}

int
swap_slots_init(int fd, uint32_t nslots, bool punch)
{
	ss.nchunks = (nslots + SWAP_CHUNK - 1) / SWAP_CHUNK;
	ss.used_bytes = ss.nchunks * sizeof(ss.used[0]);
	ss.stale_bytes = (ss.nchunks / 64 + 1) * sizeof(ss.stale[0]);
	ss.used = kmem_alloc(ss.used_bytes);
	ss.stale = kmem_alloc(ss.stale_bytes);
	if (ss.used == NULL || ss.stale == NULL) {
		if (ss.used != NULL)
			kmem_free(ss.used, ss.used_bytes);
		if (ss.stale != NULL)
			kmem_free(ss.stale, ss.stale_bytes);
		return -ENOMEM;
	}
	kmutex_init(&ss.lock, RANK_SWAP_MAP);
	ss.limit = ss.nfree = ss.nstale = ss.next = 0;
	ss.nused = ss.nslots_below = 0;
	ss.punch = punch;
	ss.punching = ss.stop = false;
	ss.hole = (struct io){ .fd = fd, .op = IO_PUNCH, .done = punched };
	ss.used[0] = 1;
	if (nslots % SWAP_CHUNK != 0)
		ss.used[ss.nchunks - 1] |= ALL << (nslots % SWAP_CHUNK);
	(void)grow();
	return 0;
}

void
swap_slots_fini(void)
{
	kmutex_lock(&ss.lock);
	KASSERT(ss.nused == 0);
	ss.stop = true;
	while (ss.punching) {
		uint32_t ticket = event_prepare(&ss.punching);

		kmutex_unlock(&ss.lock);
		(void)event_wait(&ss.punching, ticket, EVENT_FOREVER);
		kmutex_lock(&ss.lock);
	}
	kmutex_unlock(&ss.lock);
	kmem_free(ss.used, ss.used_bytes);
	kmem_free(ss.stale, ss.stale_bytes);
}
