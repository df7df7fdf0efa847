/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_PAGER_H
#define VM_PAGER_H

/*
 * Pagers: where pages come from and go to.
 *
 * A pager is a const table of operations.  The wrappers of this file assert
 * what must hold before and after; nothing else calls the table.  Pagers run with
 * no lock held, on pages that are busy.
 *
 * Results are Mach's, with ERROR split off from FAIL (1992 could not tell an I/O
 * error from a hole and would have zero-filled it) and AGAIN for what may work later.
 *
 * Offsets are in pages of the pager; an object's page i is its pager's
 * page i + object->paging_offset.
 */

#include "kern/handle.h"
#include "kern/types.h"

struct vm_object;
struct vm_page;

enum vm_pager_result {
	VM_PAGER_OK,
	VM_PAGER_FAIL,		/* no such page: go on down the chain */
	VM_PAGER_BAD,		/* outside of the pager */
	VM_PAGER_ERROR,		/* I/O failed */
	VM_PAGER_AGAIN		/* not now: keep the page and try later */
};

struct vm_pager;

struct vm_pager_ops {
	const char *name;

	/*
	 * Fill m[0 .. n - 1], consecutive pages from `offset`, all busy and with
	 * frames.  *done says how many were filled from the first; fewer than n
	 * is no error.
	 */
	enum vm_pager_result (*get)(struct vm_pager *, uint64_t offset, struct vm_page **m,
	    uint32_t n, uint32_t *done);
	/* Likewise, write them out.  Null: pages of this pager cannot be written. */
	enum vm_pager_result (*put)(struct vm_pager *, uint64_t offset, struct vm_page **m,
	    uint32_t n, uint32_t *done);
	/*
	 * Is the page there?  The default pager's must answer from memory, as it
	 * is asked under object locks (`queryable`); others may block.
	 */
	bool (*has_page)(struct vm_pager *, uint64_t offset);
	/* The pages are not needed any more.  May be null; never blocks. */
	void (*dispose)(struct vm_pager *, uint64_t offset, uint64_t n);
	/*
	 * Make the page at src_offset of src the page at offset of this pager, without
	 * moving bytes; both of the same kind.  May be null; never blocks; false: no.
	 */
	bool (*move)(struct vm_pager *, uint64_t offset, struct vm_pager *src, uint64_t src_offset);
	bool queryable;		/* has_page never blocks */
};

/*
 * The first member of every pager.  `handle` counts: users' handle, and the object; its destructor ends
 * the pager.
 */
struct vm_pager {
	struct handle handle;
	const struct vm_pager_ops *ops;	/* constant */
	uint64_t npages;		/* constant; pages beyond are BAD */
	struct vm_object *object;	/* guarded by the object cache's lock; the object
					   that caches this pager, or null */
};

static inline bool
vm_pager_can_put(const struct vm_pager *p)
{
	return p->ops->put != NULL;
}

enum vm_pager_result vm_pager_get(struct vm_pager *, uint64_t offset, struct vm_page **m,
    uint32_t n, uint32_t *done);
enum vm_pager_result vm_pager_put(struct vm_pager *, uint64_t offset, struct vm_page **m,
    uint32_t n, uint32_t *done);
bool vm_pager_has_page(struct vm_pager *, uint64_t offset);	/* may block, unless queryable */
void vm_pager_dispose(struct vm_pager *, uint64_t offset, uint64_t n);

/*
 * The default pager: what anonymous objects get when their pages must leave.
 * Null until one is set (vm_default_pager_set); then a function that makes a
 * pager for an object of so many pages, or returns null.
 */
typedef struct vm_pager *vm_default_pager_alloc(uint64_t npages);
void vm_default_pager_set(vm_default_pager_alloc *);
struct vm_pager *vm_default_pager_make(uint64_t npages);
bool vm_default_pager_exists(void);

#endif
