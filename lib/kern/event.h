/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_EVENT_H
#define KERN_EVENT_H

/*
 * Sleep and wakeup on addresses: Mach's assert_wait and thread_block.
 *
 *	ticket = event_prepare(m);	holding the lock that guards m's state
 *	unlock everything
 *	event_wait(m, ticket, timeout);	returns at once if m was woken since
 *	start again from the top
 *
 * Channels hash into buckets of one futex word each, so wakeups may be
 * spurious; every waiter re-examines what it waited for.  A wakeup between
 * prepare and wait is never lost.
 */

#include <stdbool.h>
#include <stdint.h>

#define EVENT_FOREVER	(-1)

uint32_t event_prepare(const void *chan);
/* Wait at most timeout nanoseconds.  => false: timed out. */
bool event_wait(const void *chan, uint32_t ticket, int64_t timeout);
/*
 * The same without sleep, for what is nearly there: a wakeup costs both sides more than some
 * microseconds.
 */
bool event_spin(const void *chan, uint32_t ticket, uint32_t timeout);
void event_wake(const void *chan);

#endif
