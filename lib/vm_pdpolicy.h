/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_PDPOLICY_H
#define VM_PDPOLICY_H

/*
 * Which page goes: the policy behind the pageout daemon, after NetBSD's uvm_pdpolicy.h.
 *
 * The daemon knows how to take a page away, the policy says which.  It hears of a page
 * when that comes, when it goes, and in between only what a fault tells: as long as a page is mapped, its
 * touches are not seen.  To learn whether a page is used it must be WATCHED: unmapped, so that the
 * next touch is a soft fault.  That costs a fault if it is used, so watching is what a policy
 * must be sparing with.
 *
 *	enqueue		touch					evict
 *	----> ACTIVE <------------ INACTIVE (watched) --------------------> gone; remembered, perhaps
 *		|   watch		^
 *		+-----------------------+
 *
 * Calls are made with vm_page_queue_lock held.  A policy keeps no page that is on no queue, and has its own
 * idea of what else queues there are; vm_page.queue says ACTIVE or INACTIVE to all others.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vm_page.h"

struct vm_pdpolicy {
	const char *name;
	void (*init)(void);
	void (*fini)(void);
	/* The budget is so many frames now.  => queue lock */
	void (*tune)(uint64_t frames);

	/* A page has come, or may go again (it was wired): to ACTIVE. */
	void (*enqueue)(struct vm_page *);
	/* It goes, for a reason that says nothing about its use: from whatever queue. */
	void (*dequeue)(struct vm_page *);
	/* The daemon takes it, as it was not touched: the same, but remember it. */
	void (*evict)(struct vm_page *);
	/* Is it one of those that go first?  A hint, without the lock.  Null: nobody knows. */
	bool (*is_cold)(const struct vm_page *);
	/* INACTIVE: touched, by a fault on the page itself: to ACTIVE. */
	void (*touch)(struct vm_page *);
	/*
	 * INACTIVE: mapped beside a page that was touched, or not fit to go now: to ACTIVE, as
	 * nothing is known.
	 */
	void (*rewind)(struct vm_page *);
	/* ACTIVE: it is unmapped now: to INACTIVE. */
	void (*watch)(struct vm_page *);
	/* It will not be needed: to INACTIVE, the next to go.  => unmapped */
	void (*discard)(struct vm_page *);

	/* A pass begins.  hard: the last one freed nothing, so spare nobody. */
	void (*begin)(bool hard);
	/*
	 * A page of ACTIVE that should be watched; null: enough are. The same again, until it is,
	 * or is skipped.
	 */
	struct vm_page *(*next_to_watch)(void);
	/* A page of INACTIVE that should go; null: none in this pass.  Ditto. */
	struct vm_page *(*next_victim)(void);
	/* One of these, but it cannot be had now: to the end of its queue. */
	void (*skip)(struct vm_page *);
};

/* Mach's: first in, first out, with a second chance. */
extern const struct vm_pdpolicy vm_pdpolicy_clock;
/* What the library uses: see vm_pdpolicy_warm.c. */
extern const struct vm_pdpolicy vm_pdpolicy_warm;

/* For policies: a queue and its length. */
struct vm_pageq {
	struct vm_page_tailq list;
	uint64_t n;
};

static inline void
vm_pageq_init(struct vm_pageq *q)
{
	TAILQ_INIT(&q->list);
	q->n = 0;
}

static inline void
vm_pageq_insert(struct vm_pageq *q, struct vm_page *m, enum vm_page_queue state)
{
	TAILQ_INSERT_TAIL(&q->list, m, pageq);
	q->n++;
	m->queue = (uint8_t)state;
	*(state == PQ_ACTIVE ? &vm_page_active_count : &vm_page_inactive_count) += 1;
}

static inline void
vm_pageq_remove(struct vm_pageq *q, struct vm_page *m)
{
	*(m->queue == PQ_ACTIVE ? &vm_page_active_count : &vm_page_inactive_count) -= 1;
	TAILQ_REMOVE(&q->list, m, pageq);
	q->n--;
	m->queue = PQ_NONE;
}

static inline struct vm_page *
vm_pageq_first(struct vm_pageq *q)
{
	return TAILQ_FIRST(&q->list);
}

/* Make it the last one, or the first. */
static inline void
vm_pageq_to_end(struct vm_pageq *q, struct vm_page *m)
{
	TAILQ_REMOVE(&q->list, m, pageq);
	TAILQ_INSERT_TAIL(&q->list, m, pageq);
}

static inline void
vm_pageq_to_front(struct vm_pageq *q, struct vm_page *m)
{
	TAILQ_REMOVE(&q->list, m, pageq);
	TAILQ_INSERT_HEAD(&q->list, m, pageq);
}

#endif
