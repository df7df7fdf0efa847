/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PMAP_IMPL_H
#define PMAP_IMPL_H

/*
 * What the files of the pmap share.
 *
 *	pmap.c		entering, taking away, looking up
 *	pmap_leaf.c	ptes, and the count of the mappings that they make
 *	pmap_budget.c	keeping that count below the kernel's limit
 *	pmap_park.c	forgetting any amount of memory in microseconds
 *	pmap_view.c	letting the kernel copy what is written
 *	pmap_mmap.c	how the kernel is told
 *
 * All of a pmap is guarded by its lock, which the callers of what follows hold.
 */

#include <stdatomic.h>

#include "pmap.h"

#define DIR_SHIFT	(PMAP_LEAF_SHIFT + 9)		/* 1 GB in pages */
#define DIR_LEAVES	(1u << 9)

struct pmap_dir {
	struct pmap_leaf *leaf[DIR_LEAVES];
	uint32_t used;				/* leaves */
	/*
	 * The first frame of a leaf that is a ROW: every page can be read and written, none is wired
	 * or kept apart, and their frames follow one another.  0: it is none.
	 */
	vm_pfn_t row[DIR_LEAVES];
	/*
	 * A bit for each leaf that was parked and not looked at since: no page of it has any rights, though
	 * its ptes still say so.  leaf_of() makes them true.
	 */
	uint64_t parked[DIR_LEAVES / 64];
};

extern const struct pmap_ops *pmap_ops;		/* constant while the library runs */
extern uint64_t pmap_budget;			/* mappings; likewise */
extern _Atomic uint64_t pmap_total_runs;

static inline size_t
index_of(const struct pmap *pmap, vm_offset_t va)
{
	return (va - pmap->base) >> PAGE_SHIFT;
}

static inline vm_offset_t
va_of(const struct pmap *pmap, size_t i)
{
	return pmap->base + (i << PAGE_SHIFT);
}

static inline bool
bit_get(const uint64_t *word, size_t i)
{
	return word[i / 64] >> (i % 64) & 1;
}

static inline void
bit_set(uint64_t *word, size_t i, bool on)
{
	word[i / 64] = (word[i / 64] & ~((uint64_t)1 << (i % 64))) | (uint64_t)on << (i % 64);
}

static inline uint64_t
pmap_runs(void)
{
	return atomic_load_explicit(&pmap_total_runs, memory_order_relaxed);
}

/*
 * pmap_leaf.c
 */

void leaf_init(void);
void leaf_fini(void);
struct pmap_leaf *leaf_of(const struct pmap *, size_t i);	/* null: nothing there */
struct pmap_leaf *leaf_make(struct pmap *, size_t i);		/* null: no memory */
void leaf_drop(struct pmap *, size_t i);			/* => it has no frame */
void leaf_free_all(struct pmap *);
/* All pages of the leaf at page i get frames in a row from pfn on, equal rights, and nothing else. */
void leaf_fill(struct pmap *, size_t i, vm_pfn_t pfn, unsigned rights);
struct pmap_leaf *leaf_peek(const struct pmap *, size_t i);	/* likewise, as it is: if it is parked, not true */
/* Is page i in a leaf that was parked and not looked at since?  Then the whole leaf has no rights. */
bool leaf_is_parked(const struct pmap *, size_t i);

pt_entry_t pte_get(const struct pmap *, size_t i);
/* Who sets ptes counts the boundaries of the range before, and calls changed() afterwards. */
void pte_set(struct pmap *, struct pmap_leaf *, size_t i, pt_entry_t);
void apart_set(struct pmap *, struct pmap_leaf *, size_t i, bool on);
/* Of kernel mappings: before each of the pages [i, j], and after j. */
uint64_t boundaries(const struct pmap *, size_t i, size_t j);
/* The same where [i, j] ends, for changes to all of it alike: two of each of its ends, less what is in the middle. */
uint64_t ends(const struct pmap *, size_t i, size_t j);
void changed(struct pmap *, size_t i, size_t j, uint64_t before);

/*
 * pmap_budget.c
 */

void leaf_join(struct pmap *, struct pmap_leaf *, size_t first);	/* keep nothing of it apart */
void pmap_join(struct pmap *);
void relieve(struct pmap *, uint64_t goal);	/* make room for mappings, until there are so many */
void relieve_some(struct pmap *);		/* likewise, for those of the near future */
void settle(struct pmap *);			/* after rights were taken away: that may have cut runs */
/* The kernel refused what cannot be left undone to n pages from i on: wait a moment, or end it all.  *deadline: 0 at first */
void must_wait(struct pmap *, size_t i, size_t n, uint64_t *deadline);
void must_unmap(struct pmap *, size_t i, size_t j);	/* reserved address space, whatever it takes */
void pmap_link(struct pmap *);
void pmap_unlink(struct pmap *);
void runs_add(struct pmap *, uint64_t n);	/* or take away: modulo 2^64 */

/*
 * pmap_park.c
 */

const struct pmap_ops *pmap_best(void);		/* the best strategy that this kernel can */
void park_init(void);
void park_fini(void);				/* => all that was parked is gone */
/*
 * Park the rows from page i on, before page end: their pages keep their frames, and nothing else.
 * => i is the first page of a leaf
 * *may: the strategy parks; false: the kernel has refused, and the next one need not be tried.
 * => how many pages; 0: not worth it, or not possible, and nothing has changed
 */
size_t park(struct pmap *, size_t i, size_t end, bool *may);
void park_over(void);				/* somebody has come back to what was parked */
/* Let go of tables that were parked, the oldest first.  => false: there are none */
bool park_reap(void);

/*
 * pmap_view.c
 */

bool view_init(void);				/* does the kernel tell what was written? */
void view_fini(void);
/* Views from page i's on, before page end, that are alike keep at most prot.  => the page after the last */
size_t view_limit(struct pmap *, size_t i, size_t end, unsigned prot);

#endif
