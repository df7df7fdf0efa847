/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Four strategies for telling the kernel.
 *
 * "mprotect" maps frames once and then changes their protection: a page-table
 * walk and, where the run is cut, a split of the mapping.  "mmap" maps anew for every
 * change: dearer, but it leans on nothing but MAP_FIXED; it keeps the others
 * honest in the tests.  "park" is "mprotect", with large runs parked (pmap_park.c), and "view" is
 * "park", with private views for writers (pmap_view.c).
 *
 * Mappings of frames stay out of core dumps: the kernel would read every hole
 * of the memfd, and make a page of each.
 */

#include <sys/mman.h>

#include "kern/assert.h"
#include "kern/sys.h"
#include "physmem.h"
#include "pmap.h"
#include "vm_meter.h"

static int
kernel_prot(unsigned pte_prot)
{
	return ((pte_prot & PTE_R) ? PROT_READ : 0) | ((pte_prot & PTE_W) ? PROT_WRITE : 0) |
	    ((pte_prot & PTE_X) ? PROT_EXEC : 0);
}

static int
mmap_map(vm_offset_t va, size_t n, vm_pfn_t pfn, unsigned pte_prot)
{
	size_t len = n << PAGE_SHIFT;
	void *p;

	vm_count(v_map_calls);
	p = sys_mmap((void *)va, len, kernel_prot(pte_prot), MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
	    physmem_fd_of(pfn), (uint64_t)pfn << PAGE_SHIFT);
	if (sys_is_err(p))
		return sys_err(p);
	/* It changes nothing but dumps, so a refusal changes nothing that matters. */
	(void)sys_madvise((void *)va, len, MADV_DONTDUMP);
	return 0;
}

static int
mprotect_protect(vm_offset_t va, size_t n, vm_pfn_t pfn, unsigned pte_prot)
{
	(void)pfn;
	vm_count(v_map_calls);
	return sys_mprotect((void *)va, n << PAGE_SHIFT, kernel_prot(pte_prot));
}

/*
 * Mappings with different advice are never merged.  This one says how a file is to be read ahead, which
 * means nothing to a memfd.
 */
static int
madvise_keep_apart(vm_offset_t va, size_t n, bool apart)
{
	vm_count(v_map_calls);
	return sys_madvise((void *)va, n << PAGE_SHIFT, apart ? MADV_RANDOM : MADV_NORMAL);
}

static int
mmap_unmap(vm_offset_t va, vm_size_t size)
{
	void *p;

	vm_count(v_map_calls);
	p = sys_mmap((void *)va, size, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
	return sys_is_err(p) ? sys_err(p) : 0;
}

const struct pmap_ops pmap_view_ops = {
	.name = "view",
	.map = mmap_map,
	.protect = mprotect_protect,
	.spans = true,
	.keep_apart = madvise_keep_apart,
	.unmap = mmap_unmap,
	.park = true,
	.view = true,
};

const struct pmap_ops pmap_park_ops = {
	.name = "park",
	.map = mmap_map,
	.protect = mprotect_protect,
	.spans = true,
	.keep_apart = madvise_keep_apart,
	.unmap = mmap_unmap,
	.park = true,
};

const struct pmap_ops pmap_mprotect_ops = {
	.name = "mprotect",
	.map = mmap_map,
	.protect = mprotect_protect,
	.spans = true,
	.keep_apart = madvise_keep_apart,
	.unmap = mmap_unmap,
};

const struct pmap_ops pmap_mmap_ops = {
	.name = "mmap",
	.map = mmap_map,
	.protect = mmap_map,
	.unmap = mmap_unmap,
};
