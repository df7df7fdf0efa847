/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_CLEAN_H
#define VM_CLEAN_H

#include "vm_object.h"

/*
 * Write the modified pages of [lo, hi) to the object's pager.
 * => no lock held; the object stays alive (referenced, or dying in our hands).
 * => KERN_MEMORY_ERROR: *lost pages could not be written; they stay, modified.
 */
enum kern_return vm_object_clean(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi, uint32_t *lost);

/*
 * For the pageout daemon: the page at `at' and those after it, up to the first that is busy, for whose
 * pager it must not wait.  false: a page could not be written.
 */
bool vm_object_clean_cluster(struct vm_object *, vm_pindex_t at);

#endif
