/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What is in frames: zeros, copies, comparisons.
 */

#include <errno.h>
#include <string.h>

#include "kern/sys.h"
#include "machdep.h"
#include "physmem_impl.h"

bool
physmem_is_zero(vm_pfn_t pfn)
{
	int64_t off = (int64_t)pfn << PAGE_SHIFT, data = sys_seek_data(physmem_fd_of(pfn), off);
	const uint64_t *p;
	bool zero = true;

	/* To look at a hole would fill it. */
	if (data == -ENXIO || data >= off + (int64_t)PAGE_SIZE)
		return true;
	p = window_map(WINDOW_SOURCE, pfn, 1);
	for (size_t i = 0; i < PAGE_SIZE / sizeof(*p) && zero; i++)
		zero = p[i] == 0;
	window_unmap((void *)(uintptr_t)p);
	return zero;
}

bool
physmem_differ(vm_pfn_t a, vm_pfn_t b)
{
	void *p = window_map(WINDOW_SOURCE, a, 1), *q = window_map(WINDOW_TARGET, b, 1);
	bool differ = memcmp(p, q, PAGE_SIZE) != 0;

	window_unmap(q);
	window_unmap(p);
	return differ;
}

void
physmem_zero(vm_pfn_t pfn)
{
	void *p = window_map(WINDOW_TARGET, pfn, 1);

	memset(p, 0, PAGE_SIZE);
	window_unmap(p);
}

bool
physmem_blank(vm_pfn_t pfn, uint32_t n)
{
	return sys_punch(pm.fd, (uint64_t)pfn << PAGE_SHIFT, (uint64_t)n << PAGE_SHIFT) == 0;
}

/* To write to them would take a fault for each, in the window, and another one in the mapping. */
void
physmem_zero_row(vm_pfn_t pfn, uint32_t n)
{
	if (n == 0 || physmem_blank(pfn, n))
		return;
	for (; n > 0; n--)
		physmem_zero(pfn++);
}

static bool
is_fresh(vm_pfn_t pfn)
{
	bool fresh;

	kmutex_lock(&pm.lock);
	fresh = test_bit(pm.fresh, pfn);
	clear_bit(pm.fresh, pfn);
	kmutex_unlock(&pm.lock);
	return fresh;
}

/* Past the program's own limit for files (RLIMIT_FSIZE) a write would raise SIGXFSZ. */
static bool
fits(vm_pfn_t to, uint32_t n)
{
	return ((uint64_t)to + n) << PAGE_SHIFT <= sys_file_limit();
}

/* Where the kernel must find memory first, it need not fault for it, nor clear it.  false: not all was copied. */
static bool
copy_to_fresh(const void *s, vm_pfn_t to, uint32_t n)
{
	size_t size = (size_t)n << PAGE_SHIFT;

	return is_fresh(to) && fits(to, n) && sys_pwrite(pm.fd, s, size, (uint64_t)to << PAGE_SHIFT) == (int64_t)size;
}

void
physmem_copy(vm_pfn_t from, vm_pfn_t to, uint32_t n)
{
	while (n > 0) {
		uint32_t len = MIN(n, MACHDEP_WINDOW_PAGES);
		void *s = window_map(WINDOW_SOURCE, from, len), *t;

		if (!copy_to_fresh(s, to, len)) {
			t = window_map(WINDOW_TARGET, to, len);
			memcpy(t, s, (size_t)len << PAGE_SHIFT);
			window_unmap(t);
		}
		window_unmap(s);
		from += len;
		to += len;
		n -= len;
	}
}

/* A piece of them, where they are not to be written as a file. */
static int64_t
copy_some(vm_pfn_t to, const char *from, size_t done, size_t size)
{
	size_t off = done & PAGE_MASK;
	char *p = window_map(WINDOW_TARGET, to + (vm_pfn_t)(done >> PAGE_SHIFT), 1);
	int64_t n = sys_copy(p + off, from + done, MIN(PAGE_SIZE - off, size - done));

	window_unmap(p);
	return n;
}

int
physmem_write(vm_pfn_t to, const void *from, uint32_t n)
{
	size_t size = (size_t)n << PAGE_SHIFT, done = 0;
	bool as_file = fits(to, n);

	while (done < size) {
		int64_t got = as_file ? sys_pwrite(pm.fd, (const char *)from + done, size - done,
		    ((uint64_t)to << PAGE_SHIFT) + done) : copy_some(to, from, done, size);

		if (got <= 0 && got != -EINTR)
			return got < 0 ? (int)got : -EIO;
		done += (size_t)MAX(got, 0);
	}
	return 0;
}
