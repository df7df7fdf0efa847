/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The public functions for files, and advice, which matters most to them.
 */

#include <errno.h>

#include "api_impl.h"
#include "snapshot.h"
#include "task.h"
#include "trap.h"
#include "vm_advise.h"
#include "vm_file.h"
#include "vm_init.h"
#include "vm_object.h"
#include "vm_pager.h"
#include "vmfault.h"
#include "vnode.h"

/* => entered */
static int
map_file(struct vm_map *map, vm_offset_t *va, size_t size, unsigned flags, int fd, uint64_t offset,
    vm_prot_t prot)
{
	vm_prot_t max_prot = VM_PROT_ALL;
	struct vm_pager *pager;
	bool may_write;
	int error;

	error = vnode_open(fd, (flags & VMF_MAP_SHARED) && (prot & VM_PROT_WRITE),
	    flags & VMF_MAP_DIRECT, &pager, &may_write);
	if (error != 0)
		return error;
	if (!may_write)
		max_prot &= (vm_prot_t)~VM_PROT_WRITE;
	error = api_map_pager(map, va, size, flags, pager, offset, prot, max_prot);
	handle_put(&pager->handle);
	return error;
}

int
vmf_map_file(vmf_task_t task, void **addr, size_t size, unsigned flags, int fd, uint64_t offset, int prot)
{
	struct vm_map *map;
	vm_offset_t va;
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	if (!api_map_ok(flags, VMF_FIXED | VMF_MAP_DIRECT, prot, offset))
		return -EINVAL;
	error = api_check_place(addr, size, flags, &va);
	if (error != 0)
		return error;
	if (offset > VMF_FILE_MAX || size > VMF_FILE_MAX - offset)
		return -EOVERFLOW;
	trap_enter(&old);
	map = task_get(task);
	error = -EBADF;
	if (map != NULL) {
		error = map_file(map, &va, size, flags, fd, offset, api_prot_of(prot));
		task_put(map);
	}
	trap_leave(&old);
	if (error == 0)
		*addr = (void *)va;
	return error;
}

static enum kern_return
op_sync(struct vm_map *map, vm_offset_t s, vm_offset_t e, int arg, int *error)
{
	*error = vm_map_sync(map, s, e, !(arg & (int)VMF_SYNC_ASYNC));
	return KERN_SUCCESS;
}

int
vmf_sync(void *addr, size_t size, unsigned flags)
{
	return (flags & ~VMF_SYNC_ASYNC) == 0 || !vm_running() ?
	    api_on_range(addr, size, op_sync, (int)flags) : -EINVAL;
}

static enum kern_return
op_advise(struct vm_map *map, vm_offset_t s, vm_offset_t e, int arg, int *error)
{
	(void)error;
	switch (arg) {
	case VMF_ADVICE_WILLNEED:
		return vm_map_willneed(map, s, e);
	case VMF_ADVICE_DONTNEED:
		return vm_map_dontneed(map, s, e);
	case VMF_ADVICE_FREE:
		return vm_map_free(map, s, e);
	case VMF_ADVICE_COLD:
		return vm_map_cold(map, s, e);
	default:
		return vm_map_advise(map, s, e, (enum vm_advice)arg);
	}
}

int
vmf_advise(void *addr, size_t size, enum vmf_advice advice)
{
	int a = (int)advice;

	return (a >= VMF_ADVICE_NORMAL && a <= VMF_ADVICE_COLD) || !vm_running() ?
	    api_on_range(addr, size, op_advise, a) : -EINVAL;
}
