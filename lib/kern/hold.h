/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_HOLD_H
#define KERN_HOLD_H

/*
 * A thread of the library's that somebody wants to stand still: who forks, or a test.
 *
 *	somebody		thread
 *	wanted = n, wake it	n = wanted	H1
 *	reached == n ?		reached = n	H2
 *	    wait		n != 0: wait until wanted is something else
 *
 * A thread that sleeps with nothing in hand RESTS: it stands already, and need not be woken for it.
 *
 *	wanted = n		resting = true, sleep
 *	resting ?		resting = false
 *				wanted != 0: wait, as above
 *
 * Each hold has a number of its own.  A mere yes or no would not do: who has just been let go may be between H1
 * and H2 when the next hold begins, which would take the last one's answer for its own, and the thread goes on.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "kern/event.h"
#include "kern/probe.h"

struct hold {
	_Atomic uint32_t wanted;	/* the hold's number; 0: go on */
	_Atomic uint32_t reached;	/* what the thread has seen of that */
	_Atomic bool resting;		/* the thread will look at `wanted' before it does anything */
	uint32_t last;			/* who holds has it: there is one at a time */
};

/* The thread: stand here while somebody wants that.  => nothing in hand, no lock held */
static inline void
hold_here(struct hold *h)
{
	for (;;) {
		uint32_t ticket = event_prepare(&h->wanted), n = atomic_load(&h->wanted);

		PROBE("hold: looked");
		atomic_store(&h->reached, n);
		if (n == 0)
			return;
		event_wake(&h->reached);
		(void)event_wait(&h->wanted, ticket, EVENT_FOREVER);
	}
}

/* The thread: around its sleep.  => nothing in hand, no lock held */
static inline void
hold_rest(struct hold *h)
{
	atomic_store(&h->resting, true);
}

static inline void
hold_rise(struct hold *h)
{
	atomic_store(&h->resting, false);
	PROBE("hold: risen");
	hold_here(h);
}

/*
 * Who holds, first: the thread will stand when it is there next.  true: it does.  Else wake it from whatever it waits
 * for, ...
 */
static inline bool
hold_begin(struct hold *h)
{
	h->last = h->last + 1 != 0 ? h->last + 1 : 1;
	atomic_store(&h->wanted, h->last);
	event_wake(&h->wanted);
	return atomic_load(&h->resting);
}

/* ... and then wait until it stands. */
static inline void
hold_wait(struct hold *h)
{
	for (;;) {
		uint32_t ticket = event_prepare(&h->reached);

		if (atomic_load(&h->reached) == h->last)
			return;
		(void)event_wait(&h->reached, ticket, EVENT_FOREVER);
	}
}

static inline void
hold_end(struct hold *h)
{
	atomic_store(&h->wanted, 0);
	event_wake(&h->wanted);
}

/* In a forked child, where neither of them is. */
static inline void
hold_forked(struct hold *h)
{
	atomic_store(&h->wanted, 0);
	atomic_store(&h->reached, 0);
	atomic_store(&h->resting, false);
}

#endif
