/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The public functions: check the arguments, block signals, do it, say -errno.
 *
 * What the user's pointers point to is read before trap_enter() and written after trap_leave():
 * it may be managed memory itself, and a fault in between would be taken for a mistake of the
 * library's.
 */

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "api_impl.h"
#include "snapshot.h"
#include "task.h"
#include "trap.h"
#include "vm_fault.h"
#include "vm_init.h"
#include "vm_map.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_pageout.h"
#include "vmfault.h"

#define STRINGIFY(x)	#x
#define VERSION(a, b, c) STRINGIFY(a) "." STRINGIFY(b) "." STRINGIFY(c)
#define WIRED_TRIES	8			/* to have frames for copies of wired pages */

/*
 * Checking
 */

bool
api_range_ok(const void *addr, size_t size)
{
	vm_offset_t s = (vm_offset_t)addr;

	return s != 0 && (s & PAGE_MASK) == 0 && (size & PAGE_MASK) == 0 && size != 0 && s + size > s;
}

/* Bytes that do not wrap around, cut into the pages that they touch. */
static bool
bytes_ok(const void *addr, size_t size, vm_offset_t *s, vm_offset_t *e)
{
	vm_offset_t a = (vm_offset_t)addr;

	if (a == 0 || a + size < a || round_page(a + size) < a)
		return false;
	*s = trunc_page(a);
	*e = round_page(a + size);
	return true;
}

bool
api_prot_ok(int prot)
{
	return (prot & ~VMF_PROT_ALL) == 0;
}

vm_prot_t
api_prot_of(int prot)
{
	return (vm_prot_t)((prot & VMF_PROT_WRITE) ? prot | VMF_PROT_READ : prot);
}

/* The map that contains the whole range, referenced; null: there is none.  => entered */
static struct vm_map *
map_of_range(vm_offset_t s, vm_size_t size)
{
	struct vm_map *map = task_at(s);

	if (map != NULL && map->end - s < size) {
		task_put(map);
		map = NULL;
	}
	return map;
}

int
api_on_range(const void *addr, size_t size, api_range_op *op, int arg)
{
	enum kern_return result;
	sys_sigset_t old;
	struct vm_map *map;
	int error = 0;

	if (!vm_running())
		return -ENODEV;
	if (!api_range_ok(addr, size))
		return -EINVAL;
	trap_enter(&old);
	map = map_of_range((vm_offset_t)addr, size);
	if (map == NULL) {
		error = -EFAULT;
	} else {
		result = op(map, (vm_offset_t)addr, (vm_offset_t)addr + size, arg, &error);
		if (error == 0)
			error = errno_of(result);
		task_put(map);
	}
	trap_leave(&old);
	return error;
}

/*
 * Lifecycle and tasks
 */

int
vmf_init(const struct vmf_config *config)
{
	return vm_init(config);
}

int
vmf_fini(void)
{
	return vm_fini();
}

int
vmf_set_memory(uint64_t bytes)
{
	return vm_set_memory(bytes);
}

const char *
vmf_version(void)
{
	return VERSION(VMF_VERSION_MAJOR, VMF_VERSION_MINOR, VMF_VERSION_PATCH);
}

bool
api_frames_for_wired(int error, int *tries)
{
	uint64_t n;

	if (error != -ENOMEM || ++*tries > WIRED_TRIES)
		return false;
	kmutex_lock(&vm_page_queue_lock);
	n = vm_page_wire_count;
	kmutex_unlock(&vm_page_queue_lock);
	return n != 0 && vm_wait_frames(n);
}

/* Publish a map as a task; takes it over. */
static int
publish(struct vm_map *map, vmf_task_t *name)
{
	if (map == NULL)
		return -ENOMEM;
	*name = task_add(map);
	if (*name != 0)
		return 0;
	vm_map_clear(map);
	vm_map_destroy(map);
	return -ENOMEM;
}

int
vmf_task_create(size_t size, vmf_task_t *task)
{
	vmf_task_t name;
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	if (task == NULL || size == 0 || (size & PAGE_MASK) != 0)
		return -EINVAL;
	trap_enter(&old);
	error = publish(vm_map_create(size), &name);
	trap_leave(&old);
	if (error == 0)
		*task = name;
	return error;
}

int
vmf_task_fork(vmf_task_t parent, vmf_task_t *child)
{
	struct vm_map *map;
	vmf_task_t name;
	sys_sigset_t old;
	int error = -EBADF, tries = 0;

	if (!vm_running())
		return -ENODEV;
	if (child == NULL)
		return -EINVAL;
	trap_enter(&old);
	map = task_get(parent);
	if (map != NULL) {
		do
			error = publish(vm_map_fork(map), &name);
		while (api_frames_for_wired(error, &tries));
		task_put(map);
	}
	trap_leave(&old);
	if (error == 0)
		*child = name;
	return error;
}

int
vmf_task_destroy(vmf_task_t task)
{
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	if (task == VMF_TASK_DEFAULT)
		return -EPERM;
	trap_enter(&old);
	error = task_remove(task);
	trap_leave(&old);
	return error;
}

int
vmf_task_range(vmf_task_t task, void **base, size_t *size)
{
	struct vm_map *map;
	vm_offset_t s = 0, e = 0;
	sys_sigset_t old;

	if (!vm_running())
		return -ENODEV;
	trap_enter(&old);
	map = task_get(task);
	if (map != NULL) {
		s = map->base;
		e = map->end;
		task_put(map);
	}
	trap_leave(&old);
	if (e == 0)
		return -EBADF;
	if (base != NULL)
		*base = (void *)s;
	if (size != NULL)
		*size = e - s;
	return 0;
}

/*
 * Memory
 */

int
api_check_place(void *const *addr, size_t size, unsigned flags, vm_offset_t *va)
{
	if (addr == NULL || size == 0 || (size & PAGE_MASK) != 0)
		return -EINVAL;
	*va = 0;
	if (!(flags & VMF_FIXED))
		return 0;
	*va = (vm_offset_t)*addr;
	return api_range_ok(*addr, size) ? 0 : -EINVAL;
}

bool
api_in_map(const struct vm_map *map, vm_offset_t va, size_t size)
{
	return va >= map->base && va < map->end && map->end - va >= size;
}

int
api_insert(struct vm_map *map, vm_offset_t *va, size_t size, bool fixed, struct vm_object *object,
    vm_pindex_t offset, const struct vm_map_attr *attr)
{
	int error = 0;

	if (fixed && !api_in_map(map, *va, size))
		error = -EFAULT;
	if (error == 0) {
		krwlock_write(&map->lock);
		if (!fixed)
			*va = vm_map_find(map, size);
		if (map->dead)
			error = -EBADF;
		else if (*va == 0)
			error = -ENOMEM;
		else if (fixed && !vm_map_is_free(map, *va, *va + size))
			error = -EEXIST;
		else if (!vm_map_insert(map, *va, *va + size, object, offset, attr))
			error = -ENOMEM;
		else
			vm_map_simplify(map, *va, *va + size);
		krwlock_write_unlock(&map->lock);
	}
	if (error != 0 && object != NULL)
		vm_object_deallocate(object);
	return error;
}

int
vmf_allocate(vmf_task_t task, void **addr, size_t size, unsigned flags)
{
	static const struct vm_map_attr attr = {
		.protection = VM_PROT_READ | VM_PROT_WRITE, .max_protection = VM_PROT_ALL,
		.inheritance = VM_INHERIT_COPY,
	};
	struct vm_map *map;
	vm_offset_t va;
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	if ((flags & ~VMF_FIXED) != 0)
		return -EINVAL;
	error = api_check_place(addr, size, flags, &va);
	if (error != 0)
		return error;
	trap_enter(&old);
	map = task_get(task);
	error = -EBADF;
	if (map != NULL) {
		error = api_insert(map, &va, size, flags & VMF_FIXED, NULL, 0, &attr);
		task_put(map);
	}
	trap_leave(&old);
	if (error == 0)
		*addr = (void *)va;
	return error;
}

static enum kern_return
op_unmap(struct vm_map *map, vm_offset_t s, vm_offset_t e, int arg, int *error)
{
	(void)arg;
	(void)error;
	return vm_map_unmap(map, s, e);
}

int
vmf_unmap(void *addr, size_t size)
{
	return api_on_range(addr, size, op_unmap, 0);
}

static enum kern_return
op_protect(struct vm_map *map, vm_offset_t s, vm_offset_t e, int arg, int *error)
{
	(void)error;
	return vm_map_protect(map, s, e, api_prot_of(arg), false);
}

int
vmf_protect(void *addr, size_t size, int prot)
{
	return api_prot_ok(prot) || !vm_running() ? api_on_range(addr, size, op_protect, prot) : -EINVAL;
}

static enum kern_return
op_protect_max(struct vm_map *map, vm_offset_t s, vm_offset_t e, int arg, int *error)
{
	(void)error;
	return vm_map_protect(map, s, e, api_prot_of(arg), true);
}

int
vmf_protect_max(void *addr, size_t size, int prot)
{
	return api_prot_ok(prot) || !vm_running() ? api_on_range(addr, size, op_protect_max, prot) : -EINVAL;
}

static enum kern_return
op_inherit(struct vm_map *map, vm_offset_t s, vm_offset_t e, int arg, int *error)
{
	(void)error;
	return vm_map_inherit(map, s, e, (enum vm_inherit)arg);
}

int
vmf_inherit(void *addr, size_t size, enum vmf_inherit inheritance)
{
	int i = (int)inheritance;

	return (i >= VMF_INHERIT_SHARE && i <= VMF_INHERIT_NONE) || !vm_running() ?
	    api_on_range(addr, size, op_inherit, i) : -EINVAL;
}

static enum kern_return
op_wire(struct vm_map *map, vm_offset_t s, vm_offset_t e, int arg, int *error)
{
	enum kern_return result = vm_map_wire(map, s, e);

	(void)arg;
	if (result == KERN_RESOURCE_SHORTAGE)
		*error = -EAGAIN;
	else if (result == KERN_MEMORY_BEYOND)
		*error = -EIO;
	return result;
}

int
vmf_wire(void *addr, size_t size)
{
	return api_on_range(addr, size, op_wire, 0);
}

static enum kern_return
op_unwire(struct vm_map *map, vm_offset_t s, vm_offset_t e, int arg, int *error)
{
	enum kern_return result;
	bool was_wired;

	(void)arg;
	result = vm_map_unwire(map, s, e, &was_wired);
	if (result == KERN_SUCCESS && !was_wired)
		*error = -EINVAL;
	return result;
}

int
vmf_unwire(void *addr, size_t size)
{
	return api_on_range(addr, size, op_unwire, 0);
}

int
vmf_copy(void *dst, const void *src, size_t size)
{
	vm_offset_t d = (vm_offset_t)dst, s = (vm_offset_t)src;
	struct vm_map *dst_map, *src_map;
	sys_sigset_t old;
	int error = -EFAULT, tries = 0;

	if (!vm_running())
		return -ENODEV;
	if (!api_range_ok(dst, size) || !api_range_ok(src, size) || (d < s + size && s < d + size))
		return -EINVAL;
	trap_enter(&old);
	dst_map = map_of_range(d, size);
	src_map = map_of_range(s, size);
	if (dst_map != NULL && src_map != NULL)
		do
			error = errno_of(vm_map_copy(dst_map, d, src_map, s, size));
		while (api_frames_for_wired(error, &tries));
	if (dst_map != NULL)
		task_put(dst_map);
	if (src_map != NULL)
		task_put(src_map);
	trap_leave(&old);
	return error;
}

/* Move bytes page by page through a buffer on the stack: the user's own may be managed, too. */
static int
move(vm_offset_t managed, char *user, size_t size, bool write)
{
	vm_offset_t s, e;
	char buf[PAGE_SIZE];

	if (!vm_running())
		return -ENODEV;
	if (size == 0)
		return 0;
	if (user == NULL || !bytes_ok((void *)managed, size, &s, &e))
		return -EINVAL;
	for (size_t done = 0, len; done < size; done += len) {
		vm_offset_t va = managed + done;
		int error = -EFAULT;
		struct vm_map *map;
		sys_sigset_t old;

		len = MIN(size - done, PAGE_SIZE - (va & PAGE_MASK));
		if (write)
			memcpy(buf, user + done, len);
		trap_enter(&old);
		map = task_at(va);
		if (map != NULL) {
			error = errno_of(vm_fault_io(map, trunc_page(va), va & PAGE_MASK, buf, len, write, 0));
			task_put(map);
		}
		trap_leave(&old);
		if (error != 0)
			return error;
		if (!write)
			memcpy(user + done, buf, len);
	}
	return 0;
}

int
vmf_read(const void *src, void *buf, size_t size)
{
	return move((vm_offset_t)src, buf, size, false);
}

int
vmf_write(void *dst, const void *buf, size_t size)
{
	/* move() only reads from it. */
	return move((vm_offset_t)dst, (char *)(uintptr_t)buf, size, true);
}

static enum kern_return
op_hold(struct vm_map *map, vm_offset_t s, vm_offset_t e, int arg, int *error)
{
	(void)error;
	return vm_fault_hold(map, s, e, api_prot_of(arg));
}

static enum kern_return
op_release(struct vm_map *map, vm_offset_t s, vm_offset_t e, int arg, int *error)
{
	(void)arg;
	if (!vm_fault_release(map, s, e))
		*error = -EINVAL;
	return KERN_SUCCESS;
}

int
vmf_fault_in(const void *addr, size_t size, int prot)
{
	vm_offset_t s, e;

	if (!vm_running())
		return -ENODEV;
	if (!api_prot_ok(prot) || prot == VMF_PROT_NONE || !bytes_ok(addr, size, &s, &e))
		return -EINVAL;
	return size == 0 ? 0 : api_on_range((void *)s, e - s, op_hold, prot);
}

int
vmf_fault_release(const void *addr, size_t size)
{
	vm_offset_t s, e;

	if (!vm_running())
		return -ENODEV;
	if (!bytes_ok(addr, size, &s, &e))
		return -EINVAL;
	return size == 0 ? 0 : api_on_range((void *)s, e - s, op_release, 0);
}

/*
 * Threads and signals
 */

int
vmf_thread_attach(void)
{
	return vm_running() ? trap_thread_attach() : -ENODEV;
}

int
vmf_thread_detach(void)
{
	return vm_running() ? trap_thread_detach() : -ENODEV;
}

int
vmf_sigaction(int signum, const struct sigaction *act, struct sigaction *oldact)
{
	return vm_running() ? trap_sigaction(signum, act, oldact) : -ENODEV;
}
