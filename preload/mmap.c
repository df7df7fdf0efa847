/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The program's calls about memory, as they come through the gate.
 *
 *	on addresses outside of the managed range	the kernel's business; but for mmap(), of which
 *							--manage heap+mmap takes what it can
 *	inside						ours: the heap's pages are mprotect()ed, locked, advised
 *
 * TAKEN are private mappings, anonymous or of regular files, that are large enough and are to be memory: what has no
 * rights, no reserve or a code's right is address space to its owner, stacks are touched where a fault cannot be
 * heard, and the dynamic linker's mappings are none of ours.
 *
 * HOLES.  A program may map anything at an address that is in the managed range (MAP_FIXED over what it had there).
 * What we cannot be the memory of is mapped by the kernel over a region of the library's without rights, which nobody
 * faults on as long as the kernel has something there; when it is unmapped, the address space is made bare again.
 *
 * A page that a system call has pinned can neither be unmapped nor lose rights.  That is a matter of a moment,
 * mostly: we wait for it, but not for ever.
 */

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "fork.h"
#include "gate_impl.h"
#include "shim.h"
#include "vm_pin.h"
#include "vmfault.h"

#define PAGE		((uintptr_t)VMF_PAGE_SIZE)
#define TRIES		2000		/* ... */
#define PAUSE_NS	500000		/* ... to wait for a pin: a second in all */
#define INFO_PAGES	256u
#ifdef SYS_mmap2
#define MMAP_UNIT	PAGE		/* what the call counts offsets in */
#else
#define MMAP_UNIT	1u
#endif
#define POPULATE	(16 * PAGE)

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef SYS_mseal
#ifdef __x86_64__
#define SYS_mseal 462
#endif
#endif
#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define LEFT_ALONE	(MAP_GROWSDOWN | MAP_STACK | MAP_HUGETLB | MAP_NORESERVE | MAP_LOCKED | MAP_DENYWRITE | \
			MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_SYNC)

static _Atomic bool holes;		/* there has been one */

/* Where files are mapped that were taken: as many as there is room for.  start 0: free. */
static struct {
	_Atomic uintptr_t start, end;
} files[64];

static inline uintptr_t
round_up(uintptr_t n)
{
	return (n + PAGE - 1) & ~(PAGE - 1);
}

/* Again, as long as a pin is in the way. */
#define PATIENTLY(call) __extension__ ({					\
	static const struct { long sec, nsec; } pause = { 0, PAUSE_NS };	\
	int error_ = (call);							\
	for (int tries_ = 0; error_ == -EBUSY && tries_ < TRIES; tries_++) {	\
		(void)GATE_RAW(SYS_nanosleep, &pause, NULL, 0, 0, 0, 0);	\
		error_ = (call);						\
	}									\
	error_;									\
})

/*
 * Files
 */

static bool
is_file(uintptr_t at)
{
	for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		if (files[i].start != 0 && at >= files[i].start && at < files[i].end)
			return true;
	return false;
}

/* What lies in [s, e) is gone. */
static void
forget_files(uintptr_t s, uintptr_t e)
{
	for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		if (files[i].start >= s && files[i].end <= e && files[i].start != 0)
			files[i].start = 0;
}

/* [s, e) is one.  false: there is no room to remember it */
static bool
note_file(uintptr_t s, uintptr_t e)
{
	for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		uintptr_t none = 0;

		if (atomic_compare_exchange_strong(&files[i].start, &none, s)) {
			files[i].end = e;
			return true;
		}
	}
	return false;
}

/*
 * mmap
 */

/* A part of the managed range becomes bare, whatever is there. */
static int
clear(uintptr_t s, uintptr_t e)
{
	int error = PATIENTLY(vmf_unmap((void *)s, e - s));

	if (error == 0)
		forget_files(s, e);
	if (error == 0 && holes) {
		(void)GATE_RAW(GATE_MMAP, s, e - s, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
		    -1, 0);
		(void)fork_spare(s, e, false);
	}
	return error == -EBUSY ? -ENOMEM : error;
}

static bool
is_memory(int prot, int flags)
{
	return (flags & MAP_TYPE) == MAP_PRIVATE && (prot & PROT_EXEC) == 0 && prot != PROT_NONE;
}

/* Map it as the library's: at addr, or anywhere if that is 0.  => the address, or -errno */
static long
take(uintptr_t addr, size_t size, int prot, int flags, int fd, uint64_t offset)
{
	unsigned fixed = addr != 0 ? VMF_FIXED : 0;
	void *p = (void *)addr;
	int error;

	if (flags & MAP_ANONYMOUS) {
		error = vmf_allocate(VMF_TASK_DEFAULT, &p, size, fixed);
		if (error == 0 && prot != (PROT_READ | PROT_WRITE))
			error = vmf_protect(p, size, prot);
	} else {
		vm_pin_close_for_good();
		error = vmf_map_file(VMF_TASK_DEFAULT, &p, size, fixed | VMF_MAP_PRIVATE, fd, offset, prot);
		if (error == 0 && !note_file((uintptr_t)p, (uintptr_t)p + size)) {
			(void)vmf_unmap(p, size);
			error = -ENOMEM;
		}
	}
	return error == 0 ? (long)p : error;
}

/* The kernel maps it, over a region of ours that nobody can touch. */
static long
make_hole(struct gate_call *call, uintptr_t addr, size_t size)
{
	void *p = (void *)addr;
	int error = vmf_allocate(VMF_TASK_DEFAULT, &p, size, VMF_FIXED);

	if (error == 0)
		error = vmf_protect(p, size, VMF_PROT_NONE);
	if (error != 0)
		return error;
	holes = true;
	if (!fork_spare(addr, addr + size, true))
		return -ENOMEM;
	return gate_make(call);
}

static bool
call_mmap(struct gate_call *call)
{
	uintptr_t addr = (uintptr_t)call->arg[0];
	size_t size = round_up((size_t)call->arg[1]);
	int prot = (int)call->arg[2], flags = (int)call->arg[3], fd = (int)call->arg[4];
	uint64_t offset = (uint64_t)(unsigned long)call->arg[5] * MMAP_UNIT;
	long result;

	if (size == 0 || size < (size_t)call->arg[1] || (offset & (PAGE - 1)) != 0)
		return false;
	if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) && shim_managed((void *)addr, size)) {
		if ((addr & (PAGE - 1)) != 0 || addr < shim_lo || shim_hi - addr < size) {
			call->result = -EINVAL;
			return true;
		}
		if (flags & MAP_FIXED_NOREPLACE) {
			struct vmf_region r;

			call->result = -EEXIST;
			if (vmf_region((void *)addr, &r) == 0 && (uintptr_t)r.addr < addr + size)
				return true;
		} else if ((call->result = clear(addr, addr + size)) != 0) {
			return true;
		}
		result = is_memory(prot, flags) ? take(addr, size, prot, flags, fd, offset) : -EINVAL;
		call->arg[3] = (flags & ~MAP_FIXED_NOREPLACE) | MAP_FIXED;
		call->result = result >= 0 || result == -EEXIST ? result : make_hole(call, addr, size);
		return true;
	}
	if (!shim_config.manage_mmap || shim_confined || size < shim_config.min_mmap || (flags & LEFT_ALONE) || !is_memory(prot, flags))
		return false;
	result = take(0, size, prot, flags, fd, offset);
	/* What we cannot have is the kernel's, or its error. */
	if (result < 0)
		return false;
	call->result = result;
	return true;
}

/*
 * munmap and mremap
 */

/* The part of [*s, *e) that is managed; the rest is given to fn by the kernel's call.  false: there is none */
static bool
managed_part(struct gate_call *call, uintptr_t *s, uintptr_t *e)
{
	uintptr_t a = (uintptr_t)call->arg[0], size = round_up((uintptr_t)call->arg[1]), b = a + size;
	struct gate_call rest = *call;

	if ((a & (PAGE - 1)) != 0 || size < (uintptr_t)call->arg[1] || b < a || !shim_managed((void *)a, size))
		return false;
	*s = a > shim_lo ? a : shim_lo;
	*e = b < shim_hi ? b : shim_hi;
	call->result = 0;
	if (a < *s) {
		rest.arg[1] = (long)(*s - a);
		call->result = gate_make(&rest);
	}
	if (b > *e && call->result == 0) {
		rest.arg[0] = (long)*e;
		rest.arg[1] = (long)(b - *e);
		call->result = gate_make(&rest);
	}
	return true;
}

static bool
call_munmap(struct gate_call *call)
{
	uintptr_t s, e;

	if (!managed_part(call, &s, &e))
		return false;
	if (call->result == 0)
		call->result = clear(s, e);
	return true;
}

static long
move(uintptr_t old, size_t old_size, size_t size, int prot)
{
	size_t n = old_size < size ? old_size : size;
	void *p = NULL;
	int error = vmf_allocate(VMF_TASK_DEFAULT, &p, size, 0);

	if (error != 0)
		return error;
	error = vmf_copy(p, (void *)old, n);
	if (error == 0 && prot != (PROT_READ | PROT_WRITE))
		error = vmf_protect(p, size, prot);
	if (error == 0)
		error = clear(old, old + old_size);
	if (error != 0) {
		(void)vmf_unmap(p, size);
		return error == -EACCES ? -EFAULT : error;
	}
	return (long)p;
}

static long
move_here(struct gate_call *call, uintptr_t to, size_t size)
{
	long error = -EINVAL;

	if ((to & (PAGE - 1)) == 0 && to >= shim_lo && size <= shim_hi - to)
		error = clear(to, to + size);
	return error != 0 ? error : make_hole(call, to, size);
}

/* Of anonymous memory.  A file's that grows would have to be mapped further, which we do not know how. */
static bool
call_mremap(struct gate_call *call)
{
	uintptr_t old = (uintptr_t)call->arg[0];
	size_t old_size = round_up((size_t)call->arg[1]), size = round_up((size_t)call->arg[2]);
	int flags = (int)call->arg[3];
	struct vmf_region r;
	void *p;

	if (!shim_managed((void *)old, old_size != 0 ? old_size : 1)) {
		/* The kernel's memory, to a place that is ours. */
		if (!(flags & MREMAP_FIXED) || !shim_managed((void *)call->arg[4], size))
			return false;
		call->result = move_here(call, (uintptr_t)call->arg[4], size);
		return true;
	}
	call->result = -EINVAL;
	if ((old & (PAGE - 1)) != 0 || old_size == 0 || size == 0 || (flags & ~MREMAP_MAYMOVE) != 0)
		return true;
	call->result = -EFAULT;
	if (vmf_region((void *)old, &r) != 0 || (uintptr_t)r.addr > old)
		return true;
	if (size <= old_size) {
		call->result = size < old_size ? clear(old + size, old + old_size) : 0;
	} else {
		call->result = -ENOMEM;
		if (is_file(old))
			return true;
		p = (void *)(old + old_size);
		call->result = vmf_allocate(VMF_TASK_DEFAULT, &p, size - old_size, VMF_FIXED);
		if (call->result == 0 && r.prot != (PROT_READ | PROT_WRITE))
			call->result = vmf_protect(p, size - old_size, r.prot);
		if (call->result != 0 && (flags & MREMAP_MAYMOVE)) {
			call->result = move(old, old_size, size, r.prot);
			return true;
		}
		if (call->result != 0)
			call->result = -ENOMEM;
	}
	if (call->result == 0)
		call->result = (long)old;
	return true;
}

/*
 * The rest
 */

/* What the kernel says of what is not mapped. */
static long
kernel_error(int error)
{
	return error == -EFAULT || error == -EBUSY ? -ENOMEM : error;
}

static bool
call_mprotect(struct gate_call *call)
{
	int prot = (int)call->arg[2];
	uintptr_t s, e;

	if (!managed_part(call, &s, &e))
		return false;
	if (call->result == 0)
		call->result = kernel_error(PATIENTLY(vmf_protect((void *)s, e - s,
		    prot & (PROT_READ | PROT_WRITE | PROT_EXEC))));
	return true;
}

static long
advise(uintptr_t s, uintptr_t e, int advice)
{
	int error;

	switch (advice) {
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
		/* Piece by piece: there may not be as many frames. */
		for (uintptr_t n; s < e; s += n) {
			n = e - s < POPULATE ? e - s : POPULATE;
			error = vmf_fault_in((void *)s, n, advice == MADV_POPULATE_READ ? VMF_PROT_READ : VMF_PROT_WRITE);
			if (error != 0)
				return error;
			(void)vmf_fault_release((void *)s, n);
		}
		return 0;
	case MADV_PAGEOUT:
		return kernel_error(vmf_advise((void *)s, e - s, VMF_ADVICE_COLD));
	case MADV_DONTNEED:
		return kernel_error(PATIENTLY(heap_advise((void *)s, e - s, advice)));
	case MADV_REMOVE:
	case MADV_WIPEONFORK:
		return -EINVAL;
	default:
		return kernel_error(heap_advise((void *)s, e - s, advice));
	}
}

static bool
call_madvise(struct gate_call *call)
{
	uintptr_t s, e;

	if (!managed_part(call, &s, &e))
		return false;
	if (call->result == 0)
		call->result = advise(s, e, (int)call->arg[2]);
	return true;
}

/* Resident is what has a frame. */
static bool
call_mincore(struct gate_call *call)
{
	uintptr_t s = (uintptr_t)call->arg[0], n = round_up((uintptr_t)call->arg[1]) / PAGE;
	unsigned char info[INFO_PAGES], *vec = (unsigned char *)call->arg[2];

	if (!shim_managed((void *)s, n * PAGE))
		return false;
	call->result = (s & (PAGE - 1)) != 0 ? -EINVAL : 0;
	for (uintptr_t i = 0, k; i < n && call->result == 0; i += k) {
		k = n - i < INFO_PAGES ? n - i : INFO_PAGES;
		call->result = kernel_error(vmf_page_info((void *)(s + i * PAGE), k * PAGE, info));
		for (uintptr_t j = 0; j < k; j++)
			info[j] &= VMF_PAGE_RESIDENT;
		if (call->result == 0 && !gate_copy(vec + i, info, k))
			call->result = -EFAULT;
	}
	return true;
}

/* Private memory: there is nothing to be written; but whether there is memory is what some ask by it. */
static bool
call_msync(struct gate_call *call)
{
	int flags = (int)call->arg[2];
	struct vmf_region r;
	uintptr_t s, e;

	if (!managed_part(call, &s, &e))
		return false;
	if ((flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC)) != 0 || (flags & (MS_ASYNC | MS_SYNC)) == (MS_ASYNC | MS_SYNC))
		call->result = -EINVAL;
	for (; s < e && call->result == 0; s = (uintptr_t)r.addr + r.size)
		if (vmf_region((void *)s, &r) != 0 || (uintptr_t)r.addr > s)
			call->result = -ENOMEM;
	return true;
}

static bool
call_lock(struct gate_call *call, bool lock)
{
	uintptr_t begin = (uintptr_t)call->arg[0] & ~(PAGE - 1), s, e;
	struct gate_call whole = *call;
	int error;

	/* Any alignment. */
	whole.arg[1] += (long)((uintptr_t)call->arg[0] - begin);
	whole.arg[0] = (long)begin;
	if (!managed_part(&whole, &s, &e))
		return false;
	call->result = whole.result;
	if (call->result != 0)
		return true;
	/* The kernel's locks do not nest. */
	do
		error = vmf_unwire((void *)s, e - s);
	while (error == 0);
	call->result = !lock && error == -EINVAL ? 0 : lock ? kernel_error(vmf_wire((void *)s, e - s)) :
	    kernel_error(error);
	return true;
}

bool
mmap_call(struct gate_call *call)
{
	switch (call->nr) {
	case GATE_MMAP:
		return call_mmap(call);
	case SYS_munmap:
		return call_munmap(call);
	case SYS_mremap:
		return call_mremap(call);
	case SYS_mprotect:
		return call_mprotect(call);
	case SYS_madvise:
		return call_madvise(call);
	case SYS_mincore:
		return call_mincore(call);
	case SYS_mlock:
	case SYS_mlock2:
	case SYS_munlock:
		return call_lock(call, call->nr != SYS_munlock);
	case SYS_mlockall:
		/* All at once would be all of the address space that is reserved. */
		call->arg[0] |= MCL_ONFAULT;
		return false;
	case SYS_msync:
		return call_msync(call);
	case SYS_pkey_mprotect:
		/* Key -1 is none.  Others the kernel would give to mappings that are ours. */
		if ((int)call->arg[3] == -1)
			return call_mprotect(call);
		call->result = -EINVAL;
		return shim_managed((void *)call->arg[0], (size_t)call->arg[1]);
#ifdef SYS_mseal
	case SYS_mseal:
		call->result = -EPERM;
		return shim_managed((void *)call->arg[0], (size_t)call->arg[1]);
#endif
	case SYS_shmat:
	case SYS_remap_file_pages:
		call->result = -EINVAL;
		return shim_managed((void *)call->arg[call->nr == SYS_shmat], 1);
	default:
		return false;
	}
}
