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
struct vm_pager_io;

/*
 * A transfer that is under way: n consecutive pages from `offset', all busy and with frames.  Whoever
 * starts it owns it before and from complete() on, the pager meanwhile.
 */
#define VM_PAGER_PUTS	16
#define VM_PAGER_IO_MAX	64	/* pages: 256 KB */

struct vm_pager_io {
	struct vm_pager *pager;
	uint64_t offset;		/* in pages of the pager */
	uint32_t n;
	bool put;			/* from the frames to the pager */
	bool flush;			/* nothing is moved: what was put is to go on its way to the disk */
	struct vm_page *m[VM_PAGER_IO_MAX];

	/* The pager's answer, as that of get and put. */
	enum vm_pager_result result;
	uint32_t done;

	/* The starter's: called once, with no lock held, on a thread of the pager's. */
	void (*complete)(struct vm_pager_io *);
	struct vm_object *object;	/* its paging_in_progress is raised until complete() */
};

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
	/*
	 * Pages that could not be put keep the object when its last mapping is gone, to be tried again.
	 * Else they are lost.
	 */
	bool keeps;
	/*
	 * Begin a transfer and return: complete() is called when it has ended, on any thread, at any
	 * time, even before this returns.  False: not now, or not at all; nothing has happened, and
	 * the caller may use get or put.  Null: never.
	 */
	bool (*start)(struct vm_pager *, struct vm_pager_io *);
	/*
	 * Does put() only copy, to where it is written later?  Who has just made the bytes might as
	 * well do that himself.  Null: no.
	 */
	bool (*put_copies)(const struct vm_pager *);
	/*
	 * Pages that there are now: from here on they are BAD.  May shrink and grow, and block for a
	 * moment.  Null: no such thing.
	 */
	uint64_t (*limit)(struct vm_pager *);
	/*
	 * Pages from `offset' on that read as zeros as nothing was ever written there; 0: not so, or
	 * not known.
	 * May block for a moment.  Null: not known.
	 */
	uint64_t (*hole)(struct vm_pager *, uint64_t offset);
	/*
	 * Wait until everything that was put survives a crash; 0 or -errno. Null: put() does that,
	 * and no `flush'.
	 */
	int (*sync)(struct vm_pager *);
};

/*
 * The first member of every pager.  `handle` counts: users' handle, and the object; its destructor ends
 * the pager.
 */
struct vm_pager {
	struct handle handle;
	const struct vm_pager_ops *ops;	/* constant */
	uint64_t npages;		/* constant; pages beyond are BAD */
	bool anonymous;			/* constant; the default pager's */
	struct vm_object *object;	/* guarded by the object cache's lock; the object
					   that caches this pager, or null */
	/* What comes of writes; guarded by the lock of the object whose pager it is. */
	uint32_t writes;		/* transfers under way */
	uint32_t nputs;			/* ... and all that there ever were, */
	struct vm_pager_put {
		uint64_t offset;
		uint32_t n;
	} put[VM_PAGER_PUTS];		/* the last of which, modulo VM_PAGER_PUTS, went there */
	uint32_t refusals;		/* transfers in a row of which it took nothing */
	uint64_t retry_at;		/* sys_clock(); the pageout daemon leaves it alone before */
	_Atomic int error;		/* -errno of the last put that failed, where the pager tells */
};

static inline bool
vm_pager_can_put(const struct vm_pager *p)
{
	return p->ops->put != NULL;
}

static inline bool
vm_pager_put_copies(const struct vm_pager *p)
{
	return p->ops->put_copies != NULL && p->ops->put_copies(p);
}

enum vm_pager_result vm_pager_get(struct vm_pager *, uint64_t offset, struct vm_page **m,
    uint32_t n, uint32_t *done);
enum vm_pager_result vm_pager_put(struct vm_pager *, uint64_t offset, struct vm_page **m,
    uint32_t n, uint32_t *done);
/* Transfers: null: no memory.  vm_pager_start() wants all but result and done filled in. */
struct vm_pager_io *vm_pager_io_alloc(void);
void vm_pager_io_free(struct vm_pager_io *);
bool vm_pager_start(struct vm_pager_io *);
uint32_t vm_pager_transfers(void);	/* started, and complete() has not returned; a moment's truth */
/* For pagers: the transfer has ended like this. */
void vm_pager_complete(struct vm_pager_io *, enum vm_pager_result, uint32_t done);
bool vm_pager_has_page(struct vm_pager *, uint64_t offset);	/* may block, unless queryable */
void vm_pager_dispose(struct vm_pager *, uint64_t offset, uint64_t n);
uint64_t vm_pager_limit(struct vm_pager *);
uint64_t vm_pager_hole(struct vm_pager *, uint64_t offset);
int vm_pager_sync(struct vm_pager *);

/*
 * The default pager: what anonymous objects get when their pages must leave.
 * Null until one is set (vm_default_pager_set); then a function that makes a
 * pager for an object of so many pages, or returns null.
 */
typedef struct vm_pager *vm_default_pager_alloc(uint64_t npages);
void vm_pager_init(void);
void vm_pager_fini(void);
void vm_default_pager_set(vm_default_pager_alloc *);
struct vm_pager *vm_default_pager_make(uint64_t npages);
bool vm_default_pager_exists(void);

#endif
