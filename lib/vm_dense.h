/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_DENSE_H
#define VM_DENSE_H

/* Whole leaves for who writes everything: see vm_dense.c. */

#include <stdbool.h>

struct faultstate;
struct vm_object;

/*
 * The fault is about to push a page of first_object to c.  If all of its leaf is likely to be written, push all of it,
 * and enter it to be written.  false: the fault goes on.
 * => both locked, fs->m busy, the map locked
 */
bool vm_dense_push(struct faultstate *, struct vm_object *c);

#endif
