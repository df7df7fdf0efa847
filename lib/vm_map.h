/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_MAP_H
#define VM_MAP_H

/*
 * Address maps: which object is seen where, and with what rights.
 *
 * A map has a range of addresses of its own, reserved from the kernel, and in it
 * entries that do not overlap.  An entry maps pages of an object, or of none yet
 * (memory that was never touched).
 *
 * NEEDS_COPY (the symmetric strategy): the object is seen by others too, and by all of them as it
 * is now; who writes puts a shadow over it first.  No object that a needs_copy entry
 * names changes its contents.
 *
 * SHARED entries see each other's writes, so none of them may get a shadow of its own:
 * they are never needs_copy, and are copied asymmetrically.
 *
 * WIRED: the entry's pages are resident and mapped.  A single page can also be HELD
 * (vmf_fault_in); map->holds counts that per page.  A pte has its wired bit set as long
 * as either is so, and a page's wire_count is the number of such ptes that map it.
 *
 * IN_TRANSITION: somebody is wiring the entry with the map unlocked; who wants to
 * change or split it waits.
 *
 * The map's lock guards everything here, except that what the reverse map reads (the
 * members of `map') is changed under vm_rmap_lock as well.
 */

#include <stdatomic.h>

#include "kern/avl.h"
#include "kern/handle.h"
#include "kern/lock.h"
#include "kern/radix.h"
#include "kern/types.h"
#include "vm_object.h"

struct pmap;

enum vm_inherit { VM_INHERIT_SHARE, VM_INHERIT_COPY, VM_INHERIT_NONE };
enum vm_advice { VM_ADVICE_NORMAL, VM_ADVICE_RANDOM, VM_ADVICE_SEQUENTIAL };

struct vm_map_entry {
	struct avl_node node;		/* key: map.start */
	struct vm_mapping map;		/* object, offset, start, end */
	vm_prot_t protection, max_protection;
	uint8_t inheritance;		/* enum vm_inherit */
	uint8_t advice;			/* enum vm_advice */
	bool needs_copy, shared, in_transition;
	uint32_t wired_count;
	/* What the fault handler has learnt; hints, not guarded. */
	_Atomic vm_pindex_t fault_next;	/* object page after the last cluster */
	_Atomic uint32_t fault_window;	/* pages of the last cluster; 0: none yet */
	_Atomic vm_pindex_t fault_last;	/* the last page that a cluster was for */
	_Atomic vm_pindex_t fault_stride; /* how far that was from the one before; 0: too far */
	_Atomic uint32_t fault_strides;	/* so many pages the last cluster was for, at that distance */
	_Atomic vm_pindex_t ahead_end;	/* object page up to which reading ahead was started */
	_Atomic vm_pindex_t behind_end;	/* ... before which all was dropped, or is being written */
};

struct vm_map {
	struct handle handle;
	struct krwlock lock;
	struct pmap *pmap;		/* constant */
	vm_offset_t base, end;		/* constant */
	struct avl entries;
	uint32_t nentries;
	vm_offset_t first_free;		/* no free address below it */
	struct radix holds;		/* page of the map to its number of holds */
	struct kmutex hold_lock;	/* guards holds; the map is locked for reading at least */
	bool dead;			/* destroyed: nothing may be entered */
};

static inline vm_offset_t entry_start(const struct vm_map_entry *e) { return e->map.start; }
static inline vm_offset_t entry_end(const struct vm_map_entry *e) { return e->map.end; }

/* The object page that an address of the entry shows. */
static inline vm_pindex_t
entry_pindex(const struct vm_map_entry *e, vm_offset_t va)
{
	return e->map.offset + (vm_pindex_t)atop(va - e->map.start);
}

void vm_map_init(void);
void vm_map_fini(void);
uint64_t vm_map_entry_count(void);

/* A map of size bytes of fresh address space.  Null: no room.  Destroyed with its handle. */
struct vm_map *vm_map_create(vm_size_t size);
/* Unmap all, and refuse to map more. */
void vm_map_clear(struct vm_map *);
/* The last reference is gone.  => vm_map_clear() was called. */
void vm_map_destroy(struct vm_map *);

/*
 * Find what a fault at va is about.
 * => success: the map is locked for reading.  *prot is what may be entered, no WRITE if the
 *    entry needs a copy and this is no write.  force: whatever the protection says.
 * => else: unlocked.
 */
enum kern_return vm_map_lookup(struct vm_map *, vm_offset_t va, vm_prot_t fault_type, bool force,
    struct vm_map_entry **, struct vm_object **, vm_pindex_t *, vm_prot_t *prot, bool *wired);

/* The entry that contains va, or null. => locked */
struct vm_map_entry *vm_map_entry_at(const struct vm_map *, vm_offset_t va);
/* ... or the next one above. */
struct vm_map_entry *vm_map_entry_ge(const struct vm_map *, vm_offset_t va);
struct vm_map_entry *vm_map_entry_next(const struct vm_map_entry *);

/*
 * Lock for writing with the range ready to be changed: mapped from end to end if `whole', no entry
 * in transition.  => KERN_INVALID_ADDRESS: unlocked
 */
enum kern_return vm_map_lock_range(struct vm_map *, vm_offset_t s, vm_offset_t e, bool whole);
/* Is [s, e) mapped from end to end? => locked */
bool vm_map_is_mapped(const struct vm_map *, vm_offset_t s, vm_offset_t e);
/* Is a page of the range held?  => locked */
bool vm_map_is_held(struct vm_map *, vm_offset_t s, vm_offset_t e);

/* Make s and e boundaries of entries; returns false when out of memory.  => write-locked */
bool vm_map_clip(struct vm_map *, vm_offset_t s, vm_offset_t e);
/* Merge entries that have become alike, in and around the range.  => write-locked */
void vm_map_simplify(struct vm_map *, vm_offset_t s, vm_offset_t e);

struct vm_map_attr {
	vm_prot_t protection, max_protection;
	uint8_t inheritance, advice;
	bool needs_copy, shared;
};

/* A free range of that size; 0: none.  Large ranges are aligned to 2 MB or 1 GB.  => write-locked */
vm_offset_t vm_map_find(struct vm_map *, vm_size_t);
bool vm_map_is_free(const struct vm_map *, vm_offset_t s, vm_offset_t e);
/*
 * Map object (its reference becomes the entry's) at a free range.  false: no memory.
 * => write-locked
 */
bool vm_map_insert(struct vm_map *, vm_offset_t s, vm_offset_t e, struct vm_object *,
    vm_pindex_t offset, const struct vm_map_attr *);

/* What is left to do for objects once no map is locked. */
struct vm_reaper {
	struct vm_map_entry *entries;	/* out of their map; their objects' references go with them */
	struct vm_map_entry *spare;	/* for vm_map_replace() */
	struct vm_object *orphan;	/* a reference that found no place */
};
bool vm_map_reserve(struct vm_reaper *, uint32_t n);	/* n spare entries; false: no memory */
void vm_map_reap(struct vm_reaper *);

/* Unmap [s, e), clipped already.  => write-locked; vm_map_reap() afterwards, unlocked */
void vm_map_delete(struct vm_map *, vm_offset_t s, vm_offset_t e, struct vm_reaper *);
/*
 * Let the entry show other contents; takes over the reference of `object' (may be null).
 * The old object's reference goes to the reaper, in one of its spare entries, which there must be.
 * Mappings of the range are forgotten.  => write-locked, the entry is neither wired nor held
 */
void vm_map_replace(struct vm_map *, struct vm_map_entry *, struct vm_object *, vm_pindex_t offset,
    bool needs_copy, struct vm_reaper *);

/*
 * What a copy of the entry's memory is made of: an object (referenced; null: zeros) that must be mapped
 * needs_copy.  symmetric: the entry itself may become needs_copy; else the entry goes on writing to its object
 * (asymmetric), and with a cut (may be null) its writers wait until that ends.
 * => write-locked
 */
enum kern_return vm_map_copy_object(struct vm_map *, struct vm_map_entry *, bool symmetric,
    struct vm_cut *, struct vm_object **, vm_pindex_t *offset);
/* Give the entry an object that it may write to: not null, not needs_copy.  false: no memory.  => write-locked */
bool vm_map_entry_own(struct vm_map_entry *);

/* Operations of vm_map_ops.c: whole calls; nothing locked before or after. */
enum kern_return vm_map_unmap(struct vm_map *, vm_offset_t s, vm_offset_t e);
enum kern_return vm_map_protect(struct vm_map *, vm_offset_t s, vm_offset_t e, vm_prot_t, bool set_max);
enum kern_return vm_map_inherit(struct vm_map *, vm_offset_t s, vm_offset_t e, enum vm_inherit);
enum kern_return vm_map_advise(struct vm_map *, vm_offset_t s, vm_offset_t e, enum vm_advice);
enum kern_return vm_map_wire(struct vm_map *, vm_offset_t s, vm_offset_t e);
enum kern_return vm_map_unwire(struct vm_map *, vm_offset_t s, vm_offset_t e, bool *was_wired);
enum kern_return vm_map_copy(struct vm_map *dst, vm_offset_t d, struct vm_map *src, vm_offset_t s,
    vm_size_t size);
struct vm_map *vm_map_fork(struct vm_map *);	/* null: no memory */

#endif
