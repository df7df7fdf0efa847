/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The public functions for pagers, and mapping what they have.
 */

#include <errno.h>

#include "api_impl.h"
#include "kern/handle.h"
#include "snapshot.h"
#include "task.h"
#include "trap.h"
#include "user.h"
#include "vm_clean.h"
#include "vm_init.h"
#include "vm_object.h"
#include "vm_pager.h"
#include "vmfault.h"

/* The object to map [offset, offset + npages) of a pager by; and where in it that is. */
static int
pager_object(struct vm_pager *pager, bool shared, vm_pindex_t offset, vm_pindex_t npages,
    struct vm_object **object, vm_pindex_t *at)
{
	struct vm_object *o = vm_object_for_pager(pager);
	enum kern_return result;
	vm_pindex_t lo;

	if (o == NULL)
		return -ENOMEM;
	*object = o;
	*at = offset;
	if (shared)
		return 0;
	result = vm_object_copy(o, offset, offset + npages, NULL, object, &lo);
	*at = offset - lo;
	vm_object_deallocate(o);
	return errno_of(result);
}

int
api_map_pager(struct vm_map *map, vm_offset_t *va, size_t size, unsigned flags, struct vm_pager *pager,
    uint64_t offset, vm_prot_t prot, vm_prot_t max_prot)
{
	bool shared = flags & VMF_MAP_SHARED;
	struct vm_map_attr attr = {
		.protection = prot, .max_protection = shared ? max_prot : VM_PROT_ALL,
		.inheritance = VM_INHERIT_COPY, .needs_copy = !shared, .shared = shared,
	};
	struct vm_object *object;
	vm_pindex_t at;
	int error;

	if (offset >> PAGE_SHIFT > pager->npages ||
	    size >> PAGE_SHIFT > pager->npages - (offset >> PAGE_SHIFT))
		return -EINVAL;
	if (shared && (prot & VM_PROT_WRITE) && !vm_pager_can_put(pager))
		return -EACCES;
	error = pager_object(pager, shared, (vm_pindex_t)(offset >> PAGE_SHIFT),
	    (vm_pindex_t)(size >> PAGE_SHIFT), &object, &at);
	if (error == 0)
		error = api_insert(map, va, size, flags & VMF_FIXED, object, at, &attr);
	return error;
}

static struct vm_pager *
pager_get(vmf_pager_t name)
{
	struct handle *h = handle_get(HANDLE_PAGER, name);

	return h != NULL ? container_of(h, struct vm_pager, handle) : NULL;
}

bool
api_map_ok(unsigned flags, unsigned more, int prot, uint64_t offset)
{
	unsigned kind = flags & (VMF_MAP_SHARED | VMF_MAP_PRIVATE);

	return (flags & ~(kind | more)) == 0 && (kind == VMF_MAP_SHARED || kind == VMF_MAP_PRIVATE) &&
	    api_prot_ok(prot) && (offset & PAGE_MASK) == 0;
}

int
vmf_map(vmf_task_t task, void **addr, size_t size, unsigned flags, vmf_pager_t pager, uint64_t offset,
    int prot)
{
	struct vm_pager *p = NULL;
	struct vm_map *map;
	vm_offset_t va;
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	if (!api_map_ok(flags, VMF_FIXED, prot, offset))
		return -EINVAL;
	error = api_check_place(addr, size, flags, &va);
	if (error != 0)
		return error;
	trap_enter(&old);
	map = task_get(task);
	if (map != NULL)
		p = pager_get(pager);
	error = -EBADF;
	if (p != NULL) {
		error = api_map_pager(map, &va, size, flags, p, offset, api_prot_of(prot), api_prot_of(prot));
		handle_put(&p->handle);
	}
	if (map != NULL)
		task_put(map);
	trap_leave(&old);
	if (error == 0)
		*addr = (void *)va;
	return error;
}

int
vmf_pager_create(const struct vmf_pager_ops *ops, void *cookie, uint64_t size, unsigned deadline,
    vmf_pager_t *pager)
{
	struct vmf_pager_ops copy;
	vmf_pager_t name;
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	if (ops == NULL || pager == NULL || size == 0 ||
	    size > (uint64_t)UINT32_MAX << PAGE_SHIFT)
		return -EINVAL;
	copy = *ops;
	if (copy.size != sizeof(copy) || copy.get == NULL)
		return -EINVAL;
	trap_enter(&old);
	error = user_pager_create(&copy, cookie, size, deadline, &name);
	trap_leave(&old);
	if (error == 0)
		*pager = name;
	return error;
}

int
vmf_pager_sync(vmf_pager_t pager, uint64_t offset, uint64_t size)
{
	vm_pindex_t lo, hi;
	struct vm_object *o;
	struct vm_pager *p;
	sys_sigset_t old;
	uint32_t lost;
	int error = -EBADF;

	if (!vm_running())
		return -ENODEV;
	if (size == 0 || offset + size < offset)
		return -EINVAL;
	trap_enter(&old);
	p = pager_get(pager);
	if (p != NULL) {
		lo = (vm_pindex_t)MIN(offset >> PAGE_SHIFT, p->npages);
		hi = (vm_pindex_t)MIN((offset + size - 1) / PAGE_SIZE + 1, p->npages);
		error = 0;
		if (vm_pager_can_put(p)) {
			o = vm_object_for_pager(p);
			error = o == NULL ? -ENOMEM : errno_of(vm_object_clean(o, lo, hi, &lost));
			if (o != NULL)
				vm_object_deallocate(o);
		}
		handle_put(&p->handle);
	}
	trap_leave(&old);
	return error;
}

int
vmf_pager_release(vmf_pager_t pager)
{
	struct vm_pager *p;
	sys_sigset_t old;
	int error = -EBADF;

	if (!vm_running())
		return -ENODEV;
	trap_enter(&old);
	p = pager_get(pager);
	if (p != NULL) {
		error = handle_close(HANDLE_PAGER, pager);
		vm_object_uncache(p);
		handle_put(&p->handle);
	}
	trap_leave(&old);
	return error;
}
