/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Sleep and wakeup.
 *
 * A channel hashes to a bucket: a sequence number, which is the futex word,
 * and a count of who may be asleep on it.
 *
 *	waiter				waker
 *	(lock held)			(lock held)
 *	state says: wait		state changes
 *	ticket = sequence		(lock dropped, or not)
 *	(lock dropped)			sequence++		W1
 *	waiters++		S1	waiters != 0 ?		W2
 *	sequence == ticket ?	S2	    futex_wake
 *	    futex_wait(sequence, ticket)
 *	waiters--
 *
 * No wakeup is lost.  A waker that changes the state after the waiter looked
 * at it has taken the lock after the waiter dropped it, so W1 comes after the
 * ticket was drawn.  Then it is a case of Dekker's: each side writes its
 * word and reads the other's, and all four are sequentially consistent.  If W2
 * reads no waiter, S1 is after W2 in the one order of them all, so S2 is after W1
 * and sees that the ticket has expired.  If W2 reads a waiter there is a
 * futex_wake, and the kernel compares the word again, atomically against it,
 * before it lets anyone sleep.
 *
 * What it buys: a wakeup that nobody waits for, which is nearly every one of
 * them, is a locked add and a load.
 *
 * (A ticket that expired 2^32 times looks fresh.  Between prepare and wait a
 * thread would have to be kept off the processor for that many wakeups of one
 * bucket, and lose the last of them.)
 */

#include "kern/event.h"

#include <limits.h>
#include <stdatomic.h>

#include "kern/probe.h"
#include "kern/sys.h"
#include "kern/types.h"

#define BUCKET_BITS	8
#define SPINS		64

struct bucket {
	_Alignas(64) _Atomic uint32_t sequence;
	_Atomic uint32_t waiters;
};

static struct bucket buckets[1 << BUCKET_BITS];

static struct bucket *
bucket_of(const void *chan)
{
	uint64_t hash = (uint64_t)(uintptr_t)chan * 0x9e3779b97f4a7c15;

	return (&buckets[hash >> (64 - BUCKET_BITS)]);
}

/* The lock that the caller holds orders it; see above. */
uint32_t
event_prepare(const void *chan)
{
	return (atomic_load_explicit(&bucket_of(chan)->sequence, memory_order_relaxed));
}

bool
event_wait(const void *chan, uint32_t ticket, int64_t timeout)
{
	struct bucket *b = bucket_of(chan);
	uint64_t now, deadline = timeout > 0 ? sys_clock() + (uint64_t)timeout : 0;
	bool woken;

	atomic_fetch_add(&b->waiters, 1);
	PROBE("event_wait: counted");
	while (!(woken = atomic_load(&b->sequence) != ticket) && timeout != 0) {
		PROBE("event_wait: falling asleep");
		(void)sys_futex_wait(&b->sequence, ticket, timeout);
		if (timeout > 0) {
			now = sys_clock();
			timeout = now < deadline ? (int64_t)(deadline - now) : 0;
		}
	}
	atomic_fetch_sub(&b->waiters, 1);
	return (woken);
}

bool
event_spin(const void *chan, uint32_t ticket, uint32_t timeout)
{
	struct bucket *b = bucket_of(chan);
	uint64_t deadline = sys_clock() + timeout;

	do {
		for (int i = 0; i < SPINS; i++) {
			if (atomic_load(&b->sequence) != ticket)
				return (true);
			__builtin_ia32_pause();
		}
	} while (sys_clock() < deadline);
	return (false);
}

void
event_wake(const void *chan)
{
	struct bucket *b = bucket_of(chan);

	atomic_fetch_add(&b->sequence, 1);
	PROBE("event_wake: sequence changed");
	if (atomic_load(&b->waiters) != 0)
		(void)sys_futex_wake(&b->sequence, INT_MAX);
}
