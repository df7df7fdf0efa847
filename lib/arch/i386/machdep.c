/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * i386.  The page-fault error code in the saved context tells a write (bit 1)
 * and an instruction fetch (bit 4) apart; trap number 14 is the page fault.
 *
 * A window slot stays mapped after use, until somebody else needs it: the
 * mapping is the library's own and nobody looks through it.
 */

#include <sys/mman.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/lock.h"
#include "kern/sys.h"
#include "machdep.h"
#include "physmem.h"

#define TRAP_PAGE_FAULT	14
#define ERR_WRITE	0x02
#define ERR_FETCH	0x10

#define SLOTS		8		/* of each kind */
#define SLOT_SIZE	((size_t)MACHDEP_WINDOW_PAGES << PAGE_SHIFT)
#define VIEW_SIZE	((size_t)MACHDEP_VIEW_PAGES << PAGE_SHIFT)
#define SPACE		(2 * SLOTS * SLOT_SIZE + MACHDEP_VIEWS * VIEW_SIZE)
#define RETRY_NS	1000000		/* when the kernel has no memory for a mapping */

static struct {
	struct kmutex lock;
	uint32_t busy[2];		/* W: a bit for each slot in use */
	uint32_t busy_views;		/* W: ditto */
	char *base;			/* 2 * SLOTS slots; constant */
	char *views;			/* behind them: MACHDEP_VIEWS slots; constant */
} window;

vm_prot_t
machdep_fault_type(const siginfo_t *si, const ucontext_t *uc)
{
	int err = uc->uc_mcontext.gregs[REG_ERR];

	if (si->si_code <= 0 || uc->uc_mcontext.gregs[REG_TRAPNO] != TRAP_PAGE_FAULT)
		return VM_PROT_NONE;
	if (err & ERR_WRITE)
		return VM_PROT_WRITE;
	return (err & ERR_FETCH) ? VM_PROT_EXECUTE : VM_PROT_READ;
}

int
window_init(int fd, uint64_t npages)
{
	void *p;

	(void)fd;
	(void)npages;
	kmutex_init(&window.lock, RANK_SLAB);
	window.busy[0] = window.busy[1] = window.busy_views = 0;
	p = sys_mmap(NULL, SPACE, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_is_err(p))
		return sys_err(p);
	window.base = p;
	window.views = window.base + 2 * SLOTS * SLOT_SIZE;
	return 0;
}

/* Each slot finds its file when it is mapped. */
int
window_part(int fd, vm_pfn_t first, vm_pfn_t end, bool write)
{
	(void)fd;
	(void)first;
	(void)end;
	(void)write;
	return 0;
}

static int
rights(vm_pfn_t pfn)
{
	return physmem_is_inherited(pfn) && !physmem_is_common(pfn) ? PROT_READ : PROT_READ | PROT_WRITE;
}

void
window_fini(void)
{
	(void)sys_munmap(window.base, SPACE);
	window.base = NULL;
}

void
window_forked(void)
{
	window_fini();
}

/* A clear bit of the first n, now set; waits for one. */
static uint32_t
take_slot(uint32_t *busy, uint32_t n)
{
	uint32_t ticket, slot;

	for (;;) {
		kmutex_lock(&window.lock);
		slot = (uint32_t)__builtin_ctz(~*busy);
		if (slot < n)
			break;
		ticket = event_prepare(busy);
		kmutex_unlock(&window.lock);
		(void)event_wait(busy, ticket, EVENT_FOREVER);
	}
	*busy |= 1u << slot;
	kmutex_unlock(&window.lock);
	return slot;
}

static void
give_slot(uint32_t *busy, uint32_t slot)
{
	kmutex_lock(&window.lock);
	*busy &= ~(1u << slot);
	kmutex_unlock(&window.lock);
	event_wake(busy);
}

void *
window_map(enum window_kind kind, vm_pfn_t pfn, uint32_t npages)
{
	uint32_t ticket, slot;
	char *addr;

	KASSERT(npages <= MACHDEP_WINDOW_PAGES);
	slot = take_slot(&window.busy[kind], SLOTS);
	addr = window.base + ((uint32_t)kind * SLOTS + slot) * SLOT_SIZE;
	while (sys_is_err(sys_mmap(addr, (size_t)npages << PAGE_SHIFT, rights(pfn),
	    MAP_SHARED | MAP_FIXED, physmem_fd_of(pfn), (uint64_t)pfn << PAGE_SHIFT))) {
		ticket = event_prepare(window.base);
		(void)event_wait(window.base, ticket, RETRY_NS);
	}
	return addr;
}

void
window_unmap(void *p)
{
	uint32_t slot = (uint32_t)(((char *)p - window.base) / (ptrdiff_t)SLOT_SIZE);

	give_slot(&window.busy[slot / SLOTS], slot % SLOTS);
}

int
window_view_open(struct window_view *v, const vm_pfn_t *pfn, uint32_t n, struct iovec *iov)
{
	uint32_t run;

	KASSERT(n > 0 && n <= MACHDEP_VIEW_PAGES);
	v->base = window.views + take_slot(&window.busy_views, MACHDEP_VIEWS) * VIEW_SIZE;
	for (uint32_t i = 0; i < n; i += run) {
		void *p;

		for (run = 1; i + run < n && pfn[i + run] == pfn[i] + run; run++)
			;
		p = sys_mmap(v->base + ((size_t)i << PAGE_SHIFT), (size_t)run << PAGE_SHIFT,
		    rights(pfn[i]), MAP_SHARED | MAP_FIXED | MAP_POPULATE, physmem_fd_of(pfn[i]),
		    (uint64_t)pfn[i] << PAGE_SHIFT);
		if (sys_is_err(p)) {
			window_view_close(v);
			return sys_err(p);
		}
	}
	*iov = (struct iovec){ v->base, (size_t)n << PAGE_SHIFT };
	return 1;
}

void
window_view_close(struct window_view *v)
{
	give_slot(&window.busy_views, (uint32_t)((size_t)(v->base - window.views) / VIEW_SIZE));
	v->base = NULL;
}
