/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_DENSE_H
#define VM_DENSE_H

/* Many pages at once for who writes everything: see vm_dense.c. */

#include "kern/types.h"

struct faultstate;
struct vm_object;

/*
 * The fault is about to push a page of first_object to c.  If all of its leaf is likely to be written, push a good part of
 * that, and enter it to be written.  false: the fault goes on.
 * => both locked, fs->m busy, the map locked
 */
bool vm_dense_push(struct faultstate *, struct vm_object *c);
/*
 * Give the copy the object's pages [lo, lo + pages), all of which are there, and some of which it may have.
 * => both locked.  false: not all, for want of memory
 */
bool vm_dense_give(struct vm_object *, vm_pindex_t lo, uint32_t pages, struct vm_object *c);

#endif
