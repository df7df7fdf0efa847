/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_PAGE_H
#define VM_PAGE_H

/*
 * Resident pages: a frame that belongs to an object at an offset.
 *
 * Which lock guards a member: O the object's, Q the page queues', c constant
 * while the page is in an object and busy or its object locked.
 *
 * BUSY is the only thing that is held across I/O, waits and calls of the pmap.
 * Whoever sets it owns the page: nobody else maps it, moves it, frees it or
 * looks at its bytes.  Who meets a busy page waits on it and starts again, for
 * afterwards it may be gone.
 *
 * Invariants (vm_audit.c walks them):
 *   - a page is in its object's tree at its pindex, and in no other object;
 *   - two pages never have the same frame;
 *   - a page on a queue is neither wired nor busy-fake;
 *   - a page that any pmap maps writable is MODIFIED, in the top object of the
 *     entry it is mapped through, and not owed to a copy object.
 */

#include <sys/queue.h>

#include "kern/types.h"
#include "physmem.h"

struct vm_object;

enum vm_page_queue { PQ_NONE, PQ_ACTIVE, PQ_INACTIVE };

#define PG_BUSY		0x01	/* O: somebody owns it; wait */
#define PG_WANTED	0x02	/* O: somebody waits */
#define PG_FAKE		0x04	/* O: a placeholder; its frame holds nothing yet */
#define PG_MODIFIED	0x08	/* O: differs from what the pager has (Mach: not `clean') */
#define PG_REFERENCED	0x10	/* O: entered in a pmap since the pageout daemon last looked */
#define PG_LAUNDRY	0x20	/* O: being written by its pager */
#define PG_WRITTEN	0x40	/* O: on its object's list of what was written (vm_written.h) */
#define PG_HOT		0x80	/* O: ... and to stay there: it is written time and again */
#define PG_AHEAD	0x100	/* O: was read ahead, and has not been asked for yet */
#define PG_FREE		0x200	/* O: nobody needs the contents (VMF_ADVICE_FREE), until it is MODIFIED */
#define PG_HOLE		0x800	/* O: made writable with its neighbours, over a hole of its file:
				   MODIFIED only if it holds anything but zeros */
#define PG_UNSTABLE	0x400	/* O: was put, but may not have survived if the pager's sync fails */
#define PG_AGE		0x7000	/* O: HOT: rollbacks that found it unwritten; else the last that found it written */
#define PG_AGE_SHIFT	12

struct vm_page {
	struct vm_object *object;	/* c; O */
	TAILQ_ENTRY(vm_page) pageq;	/* Q: place in its queue */
	vm_pindex_t pindex;		/* c: page of the object */
	vm_pfn_t pfn;			/* c: its frame; 0: none yet (a placeholder) */
	uint16_t flags;			/* O: PG_* */
	_Atomic uint8_t queue;		/* enum vm_page_queue; Q; to NONE and from it under O as well.  A look
					   without Q is a hint: the policy moves pages */
	uint8_t heat;			/* Q: the policy's */
	uint32_t wire_count;		/* O: wirings; not 0: on no queue */
	uint32_t used;			/* Q: the policy's */
	vm_pindex_t written_next;	/* O: WRITTEN: the next on the list, or VM_WRITTEN_LAST */
};

void vm_page_init(void);
void vm_page_fini(void);

/* The page at pindex, or null.  => object locked. */
struct vm_page *vm_page_lookup(struct vm_object *, vm_pindex_t);

/*
 * A new page at pindex, BUSY and FAKE.  With a frame at the object's home if
 * possible.
 * => object locked; nothing is at pindex.
 * => null: no frame (or no memory for the page): unlock and vm_wait().
 */
struct vm_page *vm_page_alloc(struct vm_object *, vm_pindex_t, enum physmem_fill);

/*
 * Pages in a row.  Those of an object that is larger than what memory can hold get frames that were
 * given up just now, in a row too: such an object cannot have its home full, and these
 * frames need not go to the kernel and come back.
 */
struct vm_page_row {
	uint32_t want;			/* pages still to come; 0 is a row, too */
	vm_pfn_t next;
	uint32_t n;			/* frames in a row from there on, which are ours */
	bool at_home;			/* they are in their home: only for who belongs there */
	bool clean;			/* they are as they were given out, and zeros */
	bool zeros;			/* they are zeros */
	bool lazy;			/* asked for: zeros that take no memory before they are touched */
};
void vm_page_row_end(struct vm_page_row *);	/* give back what was not needed */
/* As vm_page_alloc(), the next one of the row. */
struct vm_page *vm_page_alloc_row(struct vm_object *, vm_pindex_t, enum physmem_fill, struct vm_page_row *);

/* A placeholder: BUSY and FAKE without a frame.  As vm_page_alloc(). */
struct vm_page *vm_page_alloc_fake(struct vm_object *, vm_pindex_t);
/* Give a placeholder its frame.  false: none to be had.  => object locked, page busy. */
bool vm_page_give_frame(struct vm_page *, enum physmem_fill);

/*
 * Its frame is frozen (physmem.h), and it is going to be written: give it one of its own, with the same bytes.
 * => object locked; nobody can write it; what maps it forgets it, but for what is wired.  false: none to be had
 */
bool vm_page_own(struct vm_page *);

/*
 * Free it and wake who waits for it.
 * => object locked; no pmap maps it; not wired; busy by us, or not at all.
 */
void vm_page_free(struct vm_page *);
/*
 * The same of up to VM_PAGE_MANY pages of one object, which have frames. evict: the policy
 * remembers them.
 */
#define VM_PAGE_MANY	64u
void vm_page_free_many(struct vm_page **, uint32_t n, bool evict);

/*
 * Move it to another place, keeping its frame. false: no memory; nothing changed. => both objects
 * locked.
 */
bool vm_page_rename(struct vm_page *, struct vm_object *, vm_pindex_t);

/* Somebody wants it.  => object locked */
void vm_page_asked_for(struct vm_page *);
void vm_page_wakeup(struct vm_page *);		/* drop BUSY, wake.  => object locked, ours */

/* Queues, which are the policy's (vm_pdpolicy.h).  => object locked (the queues' lock is taken inside). */
void vm_page_activate(struct vm_page *);	/* it was touched: to the active queue, unless wired */
void vm_page_activate_many(struct vm_page **, uint32_t n);	/* of one object */
void vm_page_deactivate(struct vm_page *);	/* it will not be needed: the next to go.  => unmapped */
void vm_page_dequeue(struct vm_page *);
void vm_page_wire(struct vm_page *);
void vm_page_unwire(struct vm_page *);		/* the last one activates it */
/* vm_page_free(), by the pageout daemon: the policy remembers it. */
void vm_page_evict(struct vm_page *);

bool vm_page_is_cold(const struct vm_page *);	/* as the policy sees it: a hint */

struct vm_pdpolicy;
TAILQ_HEAD(vm_page_tailq, vm_page);
extern const struct vm_pdpolicy *vm_page_policy;	/* constant while the library runs */
extern struct kmutex vm_page_queue_lock;	/* RANK_PAGEQ; guards the policy's queues and what follows */
extern uint64_t vm_page_active_count, vm_page_inactive_count, vm_page_wire_count;

#endif
