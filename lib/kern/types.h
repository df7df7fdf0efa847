/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_TYPES_H
#define KERN_TYPES_H

/*
 * The scalars that every file speaks, and how the fault reports its fate.
 *
 * An address is a vm_offset_t; an offset in an object is a vm_ooffset_t in
 * bytes, or a vm_pindex_t in pages; a frame of physical memory is a vm_pfn_t.
 * They differ in width on i386, and confusing them is how bytes get lost.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uintptr_t vm_offset_t;		/* an address in this process */
typedef size_t vm_size_t;		/* a length of addresses, in bytes */
typedef uint64_t vm_ooffset_t;		/* an offset in an object, in bytes */
typedef uint32_t vm_pindex_t;		/* a page of an object */
typedef uint32_t vm_pfn_t;		/* a frame; 0 is no frame */
typedef uint8_t vm_prot_t;		/* VM_PROT_* */

#define VM_PROT_NONE	((vm_prot_t)0)
#define VM_PROT_READ	((vm_prot_t)1)
#define VM_PROT_WRITE	((vm_prot_t)2)
#define VM_PROT_EXECUTE	((vm_prot_t)4)
#define VM_PROT_ALL	((vm_prot_t)7)

#define PAGE_SHIFT	12
#define PAGE_SIZE	((vm_size_t)1 << PAGE_SHIFT)
#define PAGE_MASK	(PAGE_SIZE - 1)
#define trunc_page(x)	((x) & ~PAGE_MASK)
#define round_page(x)	(((x) + PAGE_MASK) & ~PAGE_MASK)
#define atop(x)		((x) >> PAGE_SHIFT)	/* bytes to pages */

/* Mach's results, with the ones that 1992 could not tell apart. */
enum kern_return {
	KERN_SUCCESS,
	KERN_INVALID_ADDRESS,		/* nothing is mapped there */
	KERN_PROTECTION_FAILURE,	/* the protection forbids it */
	KERN_MEMORY_ERROR,		/* the pager failed */
	KERN_MEMORY_BEYOND,		/* outside of what the pager has */
	KERN_RESOURCE_SHORTAGE,		/* no frame, and none will come */
	KERN_BUSY,			/* a page of the range is held */
	KERN_RETRY,			/* inside vm_fault only: start again */
	KERN_DONE,			/* likewise: it was resolved on the way, and all is given back */
};

#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define nitems(a)	(sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)	((a) < (b) ? (a) : (b))
#define MAX(a, b)	((a) > (b) ? (a) : (b))

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)

#endif
