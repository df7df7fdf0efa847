/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_ADVISE_H
#define VM_ADVISE_H

#include "vm_map.h"

/*
 * Whole calls; nothing locked before or after.  The range must be mapped from end to end, else
 * KERN_INVALID_ADDRESS.
 */

/* Begin to read what is not in memory, as far as frames allow. */
enum kern_return vm_map_willneed(struct vm_map *, vm_offset_t s, vm_offset_t e);
/*
 * Private memory becomes what it was when it was mapped; of shared memory what is clean leaves.
 * => KERN_BUSY: a page is wired or held; nothing has changed
 * => KERN_RESOURCE_SHORTAGE: no memory for structures; a part of it may be done
 */
enum kern_return vm_map_dontneed(struct vm_map *, vm_offset_t s, vm_offset_t e);
/* Private anonymous memory may become zeros, page by page, until it is written again. */
enum kern_return vm_map_free(struct vm_map *, vm_offset_t s, vm_offset_t e);
/* The pages are the next ones to leave, if any must. */
enum kern_return vm_map_cold(struct vm_map *, vm_offset_t s, vm_offset_t e);

#endif
