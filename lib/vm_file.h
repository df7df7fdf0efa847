/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_FILE_H
#define VM_FILE_H

/*
 * What is peculiar to objects of files: they end where the file ends at the moment, and they are
 * asked to be on disk.
 */

#include "vm_object.h"

struct vm_map;

/*
 * Pages of the object that its pager has at the moment: those from here on do not exist.
 * => no lock held; may block for a moment
 */
uint64_t vm_object_limit(struct vm_object *);

/* Free the resident pages that lie beyond the limit, modified or not; wired and busy ones stay.  => locked */
void vm_object_truncate(struct vm_object *, uint64_t limit);

/*
 * Let the pager of pages [lo, hi) have what was modified; durable: and wait until it would survive a crash.
 * => no lock held; the object is referenced.
 * => 0, or -errno: something could not be written; it stays in memory, modified.
 */
int vm_object_sync(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi, bool durable);

/* The same for all pages of the range that are mapped from pagers, and shared.  -EFAULT: not mapped. */
int vm_map_sync(struct vm_map *, vm_offset_t s, vm_offset_t e, bool durable);

#endif
