/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * x86_64.  The page-fault error code in the saved context tells a write (bit
 * 1) and an instruction fetch (bit 4) apart; trap number 14 is the page fault.
 */

#include <sys/mman.h>

#include "kern/sys.h"
#include "machdep.h"

#define TRAP_PAGE_FAULT	14
#define ERR_WRITE	0x02
#define ERR_FETCH	0x10

char *window_base;
static size_t window_size;
static bool window_inherited;		/* by a forked child; else the kernel keeps it from one */

vm_prot_t
machdep_fault_type(const siginfo_t *si, const ucontext_t *uc)
{
	long long err = uc->uc_mcontext.gregs[REG_ERR];

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

	window_size = (size_t)npages << PAGE_SHIFT;
	p = sys_mmap(NULL, window_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (sys_is_err(p))
		return sys_err(p);
	window_base = p;
	/* A core dump would read every hole of it. */
	(void)sys_madvise(window_base, window_size, MADV_DONTDUMP);
	window_inherited = sys_madvise(window_base, window_size, MADV_DONTFORK) != 0;
	return 0;
}

int
window_part(int fd, vm_pfn_t first, vm_pfn_t end, bool write)
{
	char *at = window_base + ((size_t)first << PAGE_SHIFT);
	size_t size = (size_t)(end - first) << PAGE_SHIFT;
	void *p = sys_mmap(at, size, write ? PROT_READ | PROT_WRITE : PROT_READ,
	    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, (uint64_t)first << PAGE_SHIFT);

	if (sys_is_err(p))
		return sys_err(p);
	(void)sys_madvise(at, size, MADV_DONTDUMP);
	if (sys_madvise(at, size, MADV_DONTFORK) != 0)
		window_inherited = true;
	return 0;
}

void
window_fini(void)
{
	(void)sys_munmap(window_base, window_size);
	window_base = NULL;
}

void
window_forked(void)
{
	/* Where it was kept from the child, something else may be by now. */
	if (window_inherited)
		window_fini();
	window_base = NULL;
}
