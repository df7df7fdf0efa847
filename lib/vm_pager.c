/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The way to the pagers: checks before, checks after, counts.
 */

#include <stdatomic.h>

#include "kern/assert.h"
#include "kern/lock.h"
#include "vm_meter.h"
#include "vm_page.h"
#include "vm_pager.h"

static vm_default_pager_alloc *_Atomic default_alloc;

static void
check(struct vm_page **m, uint32_t n)
{
	locks_assert_none();
	for (uint32_t i = 0; i < n; i++)
		KASSERT(m[i]->pfn != 0);
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
	if (r == VM_PAGER_OK)
		vm_count_n(v_pageins, *done);
	else if (r == VM_PAGER_ERROR)
		vm_count(v_pager_errors);
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
	if (r == VM_PAGER_OK)
		vm_count_n(v_pageouts, *done);
	else if (r == VM_PAGER_ERROR)
		vm_count(v_pager_errors);
	return r;
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

void
vm_default_pager_set(vm_default_pager_alloc *alloc)
{
	atomic_store(&default_alloc, alloc);
}

struct vm_pager *
vm_default_pager_make(uint64_t npages)
{
	vm_default_pager_alloc *alloc = atomic_load(&default_alloc);

	return alloc != NULL ? alloc(npages) : NULL;
}

bool
vm_default_pager_exists(void)
{
	return atomic_load(&default_alloc) != NULL;
}
