/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The public functions for snapshots.
 */

#include <errno.h>
#include <string.h>

#include "api_impl.h"
#include "kern/slab.h"
#include "snapshot.h"
#include "task.h"
#include "trap.h"
#include "vm_init.h"
#include "vmfault.h"

#define RANGES_MAX	((size_t)1 << 20)	/* of one snapshot */
#define RANGES_FEW	8u

/*
 * Room for so many: the caller's, or the library's, which is taken and given back inside of it, where no fork() can
 * come in between.
 */
static struct vmf_range *
ranges_alloc(struct vmf_range few[RANGES_FEW], size_t n)
{
	struct vmf_range *p = few;
	sys_sigset_t old;

	if (n > RANGES_FEW) {
		trap_enter(&old);
		p = kmem_alloc(n * sizeof(*p));
		trap_leave(&old);
	}
	return p;
}

static void
ranges_free(struct vmf_range *p, const struct vmf_range few[RANGES_FEW], size_t n)
{
	sys_sigset_t old;

	if (p == few)
		return;
	trap_enter(&old);
	kmem_free(p, n * sizeof(*p));
	trap_leave(&old);
}

int
vmf_snapshot_create(const struct vmf_range *ranges, size_t n, vmf_snapshot_t *snapshot)
{
	struct vmf_range few[RANGES_FEW], *copy;
	vmf_snapshot_t name;
	sys_sigset_t old;
	int error = 0, tries = 0;

	if (!vm_running())
		return -ENODEV;
	if (ranges == NULL || snapshot == NULL || n == 0 || n > RANGES_MAX)
		return -EINVAL;
	copy = ranges_alloc(few, n);
	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, ranges, n * sizeof(*copy));
	for (size_t i = 0; i < n; i++)
		if (!api_range_ok(copy[i].addr, copy[i].size))
			error = -EINVAL;
	if (error == 0) {
		trap_enter(&old);
		do
			error = snapshot_create(copy, n, &name);
		while (api_frames_for_wired(error, &tries));
		trap_leave(&old);
	}
	ranges_free(copy, few, n);
	if (error == 0)
		*snapshot = name;
	return error;
}

int
vmf_snapshot_map(vmf_snapshot_t snapshot, size_t range, size_t offset, size_t size, vmf_task_t task,
    void **addr, unsigned flags, int prot)
{
	struct vm_map *map;
	vm_offset_t va;
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	if ((flags & ~VMF_FIXED) != 0 || !api_prot_ok(prot) || (offset & PAGE_MASK) != 0)
		return -EINVAL;
	error = api_check_place(addr, size, flags, &va);
	if (error != 0)
		return error;
	trap_enter(&old);
	map = task_get(task);
	if (map == NULL)
		error = -EBADF;
	else if ((flags & VMF_FIXED) && !api_in_map(map, va, size))
		error = -EFAULT;
	else
		error = snapshot_map(snapshot, range, offset, size, map, &va, flags & VMF_FIXED, api_prot_of(prot));
	if (map != NULL)
		task_put(map);
	trap_leave(&old);
	if (error == 0)
		*addr = (void *)va;
	return error;
}

int
vmf_snapshot_read(vmf_snapshot_t snapshot, size_t range, size_t offset, void *buf, size_t size)
{
	char page[PAGE_SIZE], *to = buf;
	size_t done = 0, len;
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	if ((buf == NULL && size != 0) || offset + size < offset)
		return -EINVAL;
	do {
		len = MIN(size - done, PAGE_SIZE - ((offset + done) & PAGE_MASK));
		trap_enter(&old);
		error = snapshot_read(snapshot, range, offset + done, page, len);
		trap_leave(&old);
		if (error == 0 && len != 0)
			memcpy(to + done, page, len);
		done += len;
	} while (error == 0 && done < size);
	return error;
}

int
vmf_snapshot_rollback(vmf_snapshot_t snapshot)
{
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	trap_enter(&old);
	error = snapshot_rollback(snapshot);
	trap_leave(&old);
	return error;
}

int
vmf_snapshot_diff(vmf_snapshot_t a, vmf_snapshot_t b, size_t range, size_t *cursor,
    struct vmf_extent *extents, size_t n)
{
	struct vmf_extent extent;
	sys_sigset_t old;
	int found = 1;
	size_t at, i;

	if (!vm_running())
		return -ENODEV;
	if (cursor == NULL || extents == NULL || n == 0)
		return -EINVAL;
	at = *cursor;
	for (i = 0; i < n && i < INT32_MAX && found > 0; i += (size_t)(found > 0)) {
		trap_enter(&old);
		found = snapshot_diff(a, b, range, &at, &extent);
		trap_leave(&old);
		if (found > 0)
			extents[i] = extent;
	}
	if (found < 0)
		return found;
	*cursor = at;
	return (int)i;
}

int
vmf_snapshot_release(vmf_snapshot_t snapshot)
{
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	trap_enter(&old);
	error = snapshot_release(snapshot);
	trap_leave(&old);
	return error;
}
