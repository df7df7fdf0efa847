/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef TESTPAGER_H
#define TESTPAGER_H

/*
 * A pager in memory that does as it is told: slow, broken, short of breath, full of holes.
 *
 * It serves two masters.  As the DEFAULT pager (testpager_default()) it gives
 * anonymous objects a place to be paged out to, which the library has none of its own for
 * yet; as an EXTERNAL pager (testpager_create()) it is what vmf_map() maps.
 *
 * The switches and the counts are one set for all test pagers of the process:
 * a test that wants to see one pager fail makes only one.
 *
 * Beside it stand what the tests of objects, maps and faults share to look inside, and the hooks
 * of a schedule: at(place, n, fn) runs fn when the library passes a PROBE for the nth time.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vm_object.h"
#include "vm_pager.h"
#include "vmfault.h"

struct testpager {
	struct vm_pager pager;
	char *_Atomic page[];		/* contents; null: a hole */
};

struct testpager_switches {
	bool queryable;			/* has_page never blocks; chosen when a pager is made */
	bool can_move;			/* ... has a `move' operation; ditto */
	_Atomic unsigned delay;		/* of get, put and a blocking has_page: microseconds */
	_Atomic unsigned done_max;	/* pages of one answer at most; 0: as many as asked for */
	_Atomic int get_error, put_error;	/* calls from now on that say ERROR; -1: all */
	_Atomic int get_again, put_again;	/* ... that say AGAIN */
	_Atomic unsigned put_fails_one_in;	/* of n puts, one fails; 0: none does */
	_Atomic unsigned end;		/* pages from here on are BAD; 0: no such page */
	/*
	 * Transfers are started, and end later in another thread, in random order.  Those of
	 * `stuck', or of all pagers (testpager_all), do not end before that is changed.
	 */
	_Atomic bool async;
	struct testpager *_Atomic stuck;
};

struct testpager_counts {
	_Atomic unsigned gets, puts, asked, disposed, moved;
	_Atomic unsigned pagers;	/* alive */
	_Atomic unsigned pages;		/* held by all of them */
	_Atomic unsigned started;	/* transfers that were begun ... */
	_Atomic unsigned flying;	/* ... and have not ended; since the process began */
	_Atomic unsigned flying_max;	/* at most at a time */
	_Atomic unsigned put_pages;	/* asked to be written */
};

extern struct testpager_switches testpager;
extern struct testpager *const testpager_all;
extern struct testpager_counts testpager_counts;

void testpager_reset(void);		/* switches and counts of calls; queryable, can_move */
void testpager_default(void);		/* be the default pager, from now until testpager_reset() */
struct testpager *testpager_make(uint64_t npages);
/* A pager with a handle, for vmf_map().  Page i holds fill(mix(key, i)); key 0: only holes. */
vmf_pager_t testpager_create(uint64_t npages, uint64_t key, struct testpager **);
void testpager_store(struct testpager *, uint64_t page, const void *bytes);	/* null: a hole */
bool testpager_has(struct testpager *, uint64_t page);

/*
 * A look inside.  => the calling thread holds no lock; nobody else is in the library.
 */
struct vm_object *object_at(const void *addr);	/* what the entry at addr maps; not referenced */
void collapse(struct vm_object *);
/* Give it a pager with so many pages before its own, which are holes. */
void give_pager(struct vm_object *, vm_pindex_t paging_offset);
/* Page out all that it has resident; nothing, if it has no pager.  => no page is wired */
void evict(struct vm_object *);
/* Wait until the pageout daemon has nothing to do. */
void daemon_rest(void);
uint64_t frames_used(void);
uint64_t objects_alive(void);
uint32_t depth_at(const void *addr);		/* objects in the chain */

/*
 * Schedules.  fn runs once, in the thread that passes the place for the nth time (from 1, counted
 * from here); it holds no lock of the library's and may call and touch as it likes where the
 * place says so, except that the thread must not be one with signals to come.
 */
void at(const char *place, unsigned n, void (*fn)(void));
unsigned at_passed(void);		/* how often the place was passed */
void at_end(void);			/* no schedule any more */

#endif
