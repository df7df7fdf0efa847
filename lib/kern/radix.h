/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_RADIX_H
#define KERN_RADIX_H

/*
 * A radix tree from a 32-bit index to a pointer: the pages of an object.  64
 * slots a node, as high as the largest index needs; a dense tree costs 8.2
 * bytes a page.  Guarded by the lock of what it belongs to.
 */

#include <stdint.h>

struct radix_node;

struct radix {
	struct radix_node *root;
	uint32_t count;			/* entries */
	uint32_t height;		/* levels below root; 0: empty */
};

/* Zeroed memory is an empty tree. */
void *radix_lookup(const struct radix *, uint32_t index);
/* 0, or -ENOMEM (nothing changed).  => the index is free, the pointer not null. */
int radix_insert(struct radix *, uint32_t index, void *);
/* The pointer that was there, or null. */
void *radix_remove(struct radix *, uint32_t index);
/* The first entry at or above *index; *index becomes its place.  Null: none. */
void *radix_next(const struct radix *, uint32_t *index);
/* The entries at index, index + 1, ... as far as they go without a gap, n at most.  Returns how many. */
uint32_t radix_run(const struct radix *, uint32_t index, uint32_t n, void **);
/* Set up and tear down the nodes' slab; fini => all trees are empty. */
void radix_sysinit(void);
void radix_sysfini(void);

#endif
