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
#include "kern/handle.h"
#include "kern/slab.h"
#include "physmem.h"
#include "pmap.h"
#include "snapshot.h"
#include "task.h"
#include "trap.h"
#include "user.h"
#include "vm_clean.h"
#include "vm_fault.h"
#include "vm_init.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_pageout.h"
#include "vm_pager.h"
#include "vmfault.h"

#define STRINGIFY(x)	#x
#define VERSION(a, b, c) STRINGIFY(a) "." STRINGIFY(b) "." STRINGIFY(c)
#define RANGES_MAX	((size_t)1 << 20)	/* of one snapshot */
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

/*
 * Wired pages are copied at once, with maps and objects locked, so the frames have to be there.  If
 * they were not: have them paged out, and try again.
 */
static bool
frames_for_wired(int error, int *tries)
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
		while (frames_for_wired(error, &tries));
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

static bool
in_map(const struct vm_map *map, vm_offset_t va, size_t size)
{
	return va >= map->base && va < map->end && map->end - va >= size;
}

/* Map an object; takes over its reference.  => entered */
static int
insert(struct vm_map *map, vm_offset_t *va, size_t size, bool fixed, struct vm_object *object,
    vm_pindex_t offset, const struct vm_map_attr *attr)
{
	int error = 0;

	if (fixed && !in_map(map, *va, size))
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
		error = insert(map, &va, size, flags & VMF_FIXED, NULL, 0, &attr);
		task_put(map);
	}
	trap_leave(&old);
	if (error == 0)
		*addr = (void *)va;
	return error;
}

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
		error = insert(map, va, size, flags & VMF_FIXED, object, at, &attr);
	return error;
}

static struct vm_pager *
pager_get(vmf_pager_t name)
{
	struct handle *h = handle_get(HANDLE_PAGER, name);

	return h != NULL ? container_of(h, struct vm_pager, handle) : NULL;
}

int
vmf_map(vmf_task_t task, void **addr, size_t size, unsigned flags, vmf_pager_t pager, uint64_t offset,
    int prot)
{
	unsigned kind = flags & (VMF_MAP_SHARED | VMF_MAP_PRIVATE);
	struct vm_pager *p = NULL;
	struct vm_map *map;
	vm_offset_t va;
	sys_sigset_t old;
	int error;

	if (!vm_running())
		return -ENODEV;
	if ((flags & ~(VMF_FIXED | VMF_MAP_SHARED | VMF_MAP_PRIVATE)) != 0 || !api_prot_ok(prot) ||
	    (kind != VMF_MAP_SHARED && kind != VMF_MAP_PRIVATE) || (offset & PAGE_MASK) != 0)
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
		while (frames_for_wired(error, &tries));
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
 * Pagers
 */

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

/*
 * Snapshots
 */

int
vmf_snapshot_create(const struct vmf_range *ranges, size_t n, vmf_snapshot_t *snapshot)
{
	size_t bytes = n * sizeof(*ranges);
	struct vmf_range *copy;
	vmf_snapshot_t name;
	sys_sigset_t old;
	int error = 0, tries = 0;

	if (!vm_running())
		return -ENODEV;
	if (ranges == NULL || snapshot == NULL || n == 0 || n > RANGES_MAX)
		return -EINVAL;
	copy = kmem_alloc(bytes);
	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, ranges, bytes);
	for (size_t i = 0; i < n; i++)
		if (!api_range_ok(copy[i].addr, copy[i].size))
			error = -EINVAL;
	if (error == 0) {
		trap_enter(&old);
		do
			error = snapshot_create(copy, n, &name);
		while (frames_for_wired(error, &tries));
		trap_leave(&old);
	}
	kmem_free(copy, bytes);
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
	else if ((flags & VMF_FIXED) && !in_map(map, va, size))
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
