/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The way to the pagers: checks before, checks after, counts.
 */

#include <stdatomic.h>

#include "kern/assert.h"
#include "kern/lock.h"
#include "kern/slab.h"
#include "vm_meter.h"
#include "vm_page.h"
#include "vm_pager.h"

static vm_default_pager_alloc *_Atomic default_alloc;
static struct slab io_slab;
static _Atomic uint32_t transfers;

void
vm_pager_init(void)
{
	slab_init(&io_slab, "vm_pager_io", sizeof(struct vm_pager_io), 8);
}

void
vm_pager_fini(void)
{
	slab_fini(&io_slab);
}

static void
check(struct vm_page **m, uint32_t n)
{
	locks_assert_none();
	for (uint32_t i = 0; i < n; i++)
		KASSERT(m[i]->pfn != 0);
}

static void
count(const struct vm_pager *p, enum vm_pager_result r, bool put, uint32_t done)
{
	if (r == VM_PAGER_ERROR) {
		vm_count(v_pager_errors);
	} else if (r == VM_PAGER_OK && put) {
		vm_count_n(v_pageouts, done);
		if (p->anonymous)
			vm_count_n(v_swpout, done);
	} else if (r == VM_PAGER_OK) {
		vm_count_n(v_pageins, done);
		if (p->anonymous)
			vm_count_n(v_swpin, done);
	}
}

enum vm_pager_result
vm_pager_get(struct vm_pager *p, uint64_t offset, struct vm_page **m, uint32_t n, uint32_t *done)
{
	enum vm_pager_result r;

	check(m, n);
	*done = 0;
	if (offset >= p->npages)
		return VM_PAGER_BAD;
	n = (uint32_t)MIN((uint64_t)n, p->npages - offset);
	r = p->ops->get(p, offset, m, n, done);
	KASSERT(*done <= n && (r == VM_PAGER_OK) == (*done > 0));
	count(p, r, false, *done);
	return r;
}

enum vm_pager_result
vm_pager_put(struct vm_pager *p, uint64_t offset, struct vm_page **m, uint32_t n, uint32_t *done)
{
	enum vm_pager_result r;

	check(m, n);
	KASSERT(vm_pager_can_put(p));
	*done = 0;
	r = p->ops->put(p, offset, m, n, done);
	KASSERT(*done <= n && (r == VM_PAGER_OK) == (*done > 0));
	count(p, r, true, *done);
	return r;
}

struct vm_pager_io *
vm_pager_io_alloc(void)
{
	return slab_alloc(&io_slab);
}

void
vm_pager_io_free(struct vm_pager_io *io)
{
	slab_free(&io_slab, io);
}

bool
vm_pager_start(struct vm_pager_io *io)
{
	struct vm_pager *p = io->pager;

	KASSERT(io->n > 0 && io->offset + io->n <= p->npages);
	KASSERT(!io->put || vm_pager_can_put(p));
	if (!io->flush) {
		KASSERT(io->n <= VM_PAGER_IO_MAX);
		check(io->m, io->n);
	}
	if (p->ops->start == NULL || (io->flush && p->ops->sync == NULL))
		return false;
	atomic_fetch_add(&transfers, 1);
	if (p->ops->start(p, io))
		return true;
	atomic_fetch_sub(&transfers, 1);
	return false;
}

void
vm_pager_complete(struct vm_pager_io *io, enum vm_pager_result r, uint32_t done)
{
	KASSERT(done <= io->n && (r == VM_PAGER_OK) == (done > 0));
	if (!io->flush)
		count(io->pager, r, io->put, done);
	io->result = r;
	io->done = done;
	io->complete(io);
	atomic_fetch_sub(&transfers, 1);
}

uint32_t
vm_pager_transfers(void)
{
	return atomic_load(&transfers);
}

bool
vm_pager_has_page(struct vm_pager *p, uint64_t offset)
{
	if (!p->ops->queryable)
		locks_assert_none();
	return offset < p->npages && p->ops->has_page(p, offset);
}

void
vm_pager_dispose(struct vm_pager *p, uint64_t offset, uint64_t n)
{
	if (p->ops->dispose != NULL)
		p->ops->dispose(p, offset, n);
}

uint64_t
vm_pager_hole(struct vm_pager *p, uint64_t offset)
{
	return p->ops->hole != NULL && offset < p->npages ? p->ops->hole(p, offset) : 0;
}

uint64_t
vm_pager_limit(struct vm_pager *p)
{
	locks_assert_none();
	return p->ops->limit != NULL ? p->ops->limit(p) : UINT64_MAX;
}

int
vm_pager_sync(struct vm_pager *p)
{
	locks_assert_none();
	return p->ops->sync != NULL ? p->ops->sync(p) : 0;
}

void
vm_default_pager_set(vm_default_pager_alloc *alloc)
{
	atomic_store(&default_alloc, alloc);
}

struct vm_pager *
vm_default_pager_make(uint64_t npages)
{
	vm_default_pager_alloc *alloc = atomic_load(&default_alloc);
	struct vm_pager *p = alloc != NULL ? alloc(npages) : NULL;

	if (p != NULL)
		p->anonymous = true;
	return p;
}

bool
vm_default_pager_exists(void)
{
	return atomic_load(&default_alloc) != NULL;
}
