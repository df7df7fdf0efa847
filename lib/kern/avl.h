/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_AVL_H
#define KERN_AVL_H

/*
 * An intrusive balanced tree, ordered by a key of machine words that each node
 * carries.  Guarded by the lock of what it belongs to.
 */

#include <stdbool.h>
#include <stdint.h>

struct avl_node {
	struct avl_node *child[2], *parent;
	uintptr_t key;			/* unique in the tree; constant while in it */
	int balance;
};

struct avl {
	struct avl_node *root;
};

void avl_insert(struct avl *, struct avl_node *);	/* => the key is not in the tree */
void avl_remove(struct avl *, struct avl_node *);
struct avl_node *avl_find_le(const struct avl *, uintptr_t key);	/* last with key <= */
struct avl_node *avl_find_ge(const struct avl *, uintptr_t key);	/* first with key >= */
struct avl_node *avl_first(const struct avl *);
struct avl_node *avl_next(const struct avl_node *);
struct avl_node *avl_prev(const struct avl_node *);
bool avl_is_valid(const struct avl *);			/* order, balance and links hold */

#endif
