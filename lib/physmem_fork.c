/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A copy of physical memory, for a forked child: another memfd with the same bytes in the same frames.
 *
 * The memfd is sparse, and may be so large that not even its bitmaps can be walked in good time: the kernel
 * knows where its data is.  Of that only frames that are used are copied; what dirty frames hold is
 * nobody's.  A frame that is used and was never touched has no data, and reads as zeros in both.  Inherited frames need
 * no copy: the child inherits them as well.
 */

#include <errno.h>

#include "kern/slab.h"
#include "kern/sys.h"
#include "machdep.h"
#include "physmem.h"

#define CHUNK	MIN(256u, MACHDEP_WINDOW_PAGES)		/* frames in one call */

/* All of it, from or to the file. */
static int
transfer(bool out, int fd, char *p, size_t len, uint64_t offset)
{
	while (len > 0) {
		int64_t n = out ? sys_pwrite(fd, p, len, offset) : sys_pread(fd, p, len, offset);

		if (n <= 0)
			return n == 0 ? -EIO : (int)n;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* n frames in a row, all of them with data. */
static int
copy_run(int fd, vm_pfn_t pfn, uint32_t n)
{
	int error = 0;

	for (uint32_t k; n > 0 && error == 0; pfn += k, n -= k) {
		char *p;

		k = MIN(n, CHUNK);
		p = window_map(WINDOW_SOURCE, pfn, k);
		error = transfer(true, fd, p, (size_t)k << PAGE_SHIFT, (uint64_t)pfn << PAGE_SHIFT);
		window_unmap(p);
	}
	return error;
}

/* The used frames of [pfn, end). */
static int
copy_used(int fd, vm_pfn_t pfn, vm_pfn_t end)
{
	int error = 0;

	while (pfn < end && error == 0) {
		uint32_t n = 0;

		while (pfn + n < end && physmem_used(pfn + n))
			n++;
		error = n != 0 ? copy_run(fd, pfn, n) : 0;
		pfn += n + 1;
	}
	return error;
}

static int
copy_data(int fd, int64_t size)
{
	int64_t at = 0, end;
	int error = 0;

	while (error == 0 && at < size) {
		at = sys_seek_data(physmem_fd(), at);
		if (at < 0)
			return at == -ENXIO ? 0 : (int)at;
		end = sys_seek_hole(physmem_fd(), at);
		if (end < 0)
			return (int)end;
		error = copy_used(fd, (vm_pfn_t)(at >> PAGE_SHIFT), (vm_pfn_t)(end >> PAGE_SHIFT));
		at = end;
	}
	return error;
}

int
physmem_copy_all(int *fd)
{
	*fd = physmem_another();
	return *fd < 0 ? *fd : copy_data(*fd, sys_size(*fd));
}

int
physmem_copy_frame(int fd, vm_pfn_t pfn)
{
	char *buf = kmem_alloc(PAGE_SIZE);
	uint64_t at = (uint64_t)pfn << PAGE_SHIFT;
	int error;

	if (buf == NULL)
		return -ENOMEM;
	error = transfer(false, physmem_fd(), buf, PAGE_SIZE, at);
	if (error == 0)
		error = transfer(true, fd, buf, PAGE_SIZE, at);
	kmem_free(buf, PAGE_SIZE);
	return error;
}
