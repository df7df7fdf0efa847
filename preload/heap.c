/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Memory for jemalloc.
 *
 * Its calls of mmap, munmap, madvise, mprotect and sbrk are renamed when it is linked (meson.build), so
 * that everything it has comes from here, its own tables included.  Unwatched, they go to the kernel;
 * so does what the library has no address space for, if nothing bounds memory.  Watched, they become the library's, as far as jemalloc makes use of them: it maps zeros, gives back what
 * it mapped, unwanted pages, or (with vm.overcommit_memory=2) commits and decommits by mapping over.
 *
 * The kernel calls are made directly: mmap() and its like are the program's gate into mmap.c.
 */

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim.h"
#include "signals.h"
#include "vmfault.h"

#define LEAF ((size_t)512 * VMF_PAGE_SIZE)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#endif

static int
answer(int error)
{
	if (error == 0)
		return 0;
	errno = -error;
	return -1;
}

static void *
kernel_mmap(void *addr, size_t size, int prot, int flags, int fd, long offset)
{
#ifdef SYS_mmap2
	return (void *)syscall(SYS_mmap2, addr, size, prot, flags, fd, offset / (long)VMF_PAGE_SIZE);
#else
	return (void *)syscall(SYS_mmap, addr, size, (long)prot, (long)flags, (long)fd, offset);
#endif
}

/*
 * A call of the library's.  Whoever allocates may do so on a stack that is our memory.
 */
struct heap_call {
	int (*fn)(struct heap_call *);
	void *addr;
	size_t size;
	int arg;			/* rights, or an advice */
	int error;
};

static void
heap_do(void *arg)
{
	struct heap_call *c = arg;

	c->error = c->fn(c);
}

static int
heap_run(struct heap_call c)
{
	signals_off_stack(heap_do, &c);
	return answer(c.error);
}

/* What was mapped becomes usable, or is given up and not. */
static int
commit(struct heap_call *c)
{
	int error = c->arg == PROT_NONE ? vmf_advise(c->addr, c->size, VMF_ADVICE_DONTNEED) : 0;

	return error != 0 ? error : vmf_protect(c->addr, c->size, c->arg);
}

/*
 * An address is a wish: to make what lies before it larger.  What is a leaf (2 MB) or more gets whole ones, of which the rest is
 * never touched: after a fork the writers of a whole leaf are served by the kernel, those of a part by a fault for each
 * page.  Not with 32 bits, where jemalloc unmaps what it mapped, the rest would stay, and addresses are few.
 */
static int
map(struct heap_call *c)
{
	size_t whole = sizeof(void *) < 8 || c->size < LEAF ? c->size : (c->size + LEAF - 1) & ~(LEAF - 1);
	int error = c->addr != NULL ? vmf_allocate(VMF_TASK_DEFAULT, &c->addr, c->size, VMF_FIXED) : -EEXIST;

	if (error != 0 && whole > c->size)
		error = vmf_allocate(VMF_TASK_DEFAULT, &c->addr, whole, 0);
	if (error != 0)
		error = vmf_allocate(VMF_TASK_DEFAULT, &c->addr, c->size, 0);
	if (error == 0 && c->arg != (PROT_READ | PROT_WRITE))
		error = vmf_protect(c->addr, c->size, c->arg);
	return error;
}

static int
unmap(struct heap_call *c)
{
	return vmf_unmap(c->addr, c->size);
}

static int
protect(struct heap_call *c)
{
	return vmf_protect(c->addr, c->size, c->arg);
}

static int
advise(struct heap_call *c)
{
	return heap_advise(c->addr, c->size, c->arg);
}

void *
heap_mmap(void *addr, size_t size, int prot, int flags, int fd, long offset)
{
	struct heap_call c = { .fn = map, .addr = addr, .size = size, .arg = prot };

	if (!shim_watched() || ((flags & MAP_FIXED) ? !shim_managed(addr, size) : shim_confined))
		return kernel_mmap(shim_managed(addr, size) ? NULL : addr, size, prot, flags, fd, offset);
	if (flags & MAP_FIXED)
		c.fn = commit;
	signals_off_stack(heap_do, &c);
	/* Who bounds nothing can have what there is beside ours: it is the kernel's, and fork() copies it. */
	if (c.error != 0 && c.fn == map && shim_config.memory == 0)
		return kernel_mmap(NULL, size, prot, flags, fd, offset);
	return answer(c.error) == 0 ? c.addr : MAP_FAILED;
}

int
heap_munmap(void *addr, size_t size)
{
	if (!shim_managed(addr, size))
		return (int)syscall(SYS_munmap, addr, size);
	return heap_run((struct heap_call){ .fn = unmap, .addr = addr, .size = size });
}

int
heap_mprotect(void *addr, size_t size, int prot)
{
	if (!shim_managed(addr, size))
		return (int)syscall(SYS_mprotect, addr, size, (long)prot);
	return heap_run((struct heap_call){ .fn = protect, .addr = addr, .size = size, .arg = prot });
}

int
heap_advise(void *addr, size_t size, int advice)
{
	switch (advice) {
	case MADV_DONTNEED:
		return vmf_advise(addr, size, VMF_ADVICE_DONTNEED);
	case MADV_FREE:
		return vmf_advise(addr, size, VMF_ADVICE_FREE);
	case MADV_COLD:
		return vmf_advise(addr, size, VMF_ADVICE_COLD);
	case MADV_WILLNEED:
		return vmf_advise(addr, size, VMF_ADVICE_WILLNEED);
	case MADV_NORMAL:
		return vmf_advise(addr, size, VMF_ADVICE_NORMAL);
	case MADV_RANDOM:
		return vmf_advise(addr, size, VMF_ADVICE_RANDOM);
	case MADV_SEQUENTIAL:
		return vmf_advise(addr, size, VMF_ADVICE_SEQUENTIAL);
	case MADV_DONTFORK:
	case MADV_DOFORK:
	case MADV_MERGEABLE:
	case MADV_UNMERGEABLE:
	case MADV_HUGEPAGE:
	case MADV_NOHUGEPAGE:
	case MADV_DONTDUMP:
	case MADV_DODUMP:
	case MADV_KEEPONFORK:
	case MADV_COLLAPSE:
		return 0;		/* nothing that changes what is read */
	default:
		return -EINVAL;
	}
}

int
heap_madvise(void *addr, size_t size, int advice)
{
	if (!shim_managed(addr, size))
		return (int)syscall(SYS_madvise, addr, size, (long)advice);
	if (shim_confined)
		return answer(-EINVAL);
	return heap_run((struct heap_call){ .fn = advise, .addr = addr, .size = size, .arg = advice });
}

void *
heap_sbrk(intptr_t by)
{
	(void)by;
	errno = ENOMEM;		/* the break belongs to the program */
	return (void *)-1;
}
