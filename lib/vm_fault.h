/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_FAULT_H
#define VM_FAULT_H

#include "kern/types.h"

struct vm_map;
struct vm_map_entry;
struct vm_object;

void vm_fault_init(void);
void vm_fault_fini(void);

#define VM_FAULT_WIRE	1u	/* wire the page in the mapping (the entry is wired, or held) */
#define VM_FAULT_THAW	2u	/* the caller is the one who rolls the frozen object back */
#define VM_FAULT_FORCE	4u	/* ... whatever the protection is now */

/*
 * Make the page at va accessible for fault_type (VM_PROT_*, a page address), and mapped so.
 * With VM_FAULT_WIRE on a wired entry, for all that its protection allows.
 * => no lock held; the map is referenced.
 */
enum kern_return vm_fault(struct vm_map *, vm_offset_t va, vm_prot_t fault_type, unsigned flags);

/*
 * Has somebody else done that by now?  Then the touch may be tried again: it will find the page, or fault once
 * more.  Takes no lock.  => a trap of this thread's at page va; the map is referenced
 */
bool vm_fault_is_done(const struct vm_map *, vm_offset_t va, vm_prot_t fault_type);

/* As vm_fault(), knowing that npages from va on will be wanted; more than one may be made accessible. */
enum kern_return vm_fault_ahead(struct vm_map *, vm_offset_t va, vm_prot_t fault_type, uint32_t npages);

/*
 * Fault in and wire every page of a wired entry's range.  On failure the pages before the one that
 * failed stay wired: *done is where it stopped.
 * => the entry is in transition, so it stays; no lock held.
 */
enum kern_return vm_fault_wire(struct vm_map *, vm_offset_t s, vm_offset_t e, vm_offset_t *done);
/* Undo, where nothing else keeps the page wired.  => map locked (read or write) */
void vm_fault_unwire(struct vm_map *, struct vm_map_entry *, vm_offset_t s, vm_offset_t e);

/* Hold [s, e) for a system call, or let go.  Pages; no lock held. */
enum kern_return vm_fault_hold(struct vm_map *, vm_offset_t s, vm_offset_t e, vm_prot_t prot);
bool vm_fault_release(struct vm_map *, vm_offset_t s, vm_offset_t e);	/* false: not held */
void vm_fault_release_holds(struct vm_map *);		/* all of them.  => write-locked */

/*
 * Fill `object' (fresh, as long as the entry) with copies of the pages of a wired entry.
 * => both maps write-locked.
 * => KERN_RESOURCE_SHORTAGE: the caller deallocates the object
 */
enum kern_return vm_fault_copy_entry(struct vm_map_entry *src, struct vm_object *object);

/*
 * Move len bytes between buf and the managed page at va + off (off + len <= PAGE_SIZE), as a touch
 * of the page would, without mapping it.  buf is not managed memory.
 */
enum kern_return vm_fault_io(struct vm_map *, vm_offset_t va, size_t off, void *buf, size_t len,
    bool write, unsigned flags);
/* The same for page pindex of an object, reading. */
enum kern_return vm_fault_read_object(struct vm_object *, vm_pindex_t pindex, size_t off, void *buf,
    size_t len);

#endif
