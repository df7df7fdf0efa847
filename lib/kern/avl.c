/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * An AVL tree: the heights of a node's two subtrees differ by one at most.
 *
 * balance is the height of child[1] less that of child[0].  Everything is
 * written once for both sides: side s is heavier where balance is sign(s).
 */

#include "kern/avl.h"

#include <stddef.h>

#include "kern/assert.h"
#include "kern/types.h"

static inline int
sign(int side)
{
	return (side != 0 ? 1 : -1);
}

static inline int
side_of(const struct avl_node *n)
{
	return (n->parent->child[1] == n);
}

/* The link that leads to n. */
static inline struct avl_node **
link_of(struct avl *t, struct avl_node *n)
{
	return (n->parent != NULL ? &n->parent->child[side_of(n)] : &t->root);
}

/* n goes down on side s, its child of the other side takes its place. */
static void
rotate(struct avl *t, struct avl_node *n, int s)
{
	struct avl_node *c = n->child[!s], *mid = c->child[s];

	*link_of(t, n) = c;
	c->parent = n->parent;
	c->child[s] = n;
	n->parent = c;
	n->child[!s] = mid;
	if (mid != NULL)
		mid->parent = n;
}

/*
 * n is higher by two on side s.  => what stands in its place; its balance is 0
 * if that is lower than n was, else the height is the same.
 */
static struct avl_node *
rebalance(struct avl *t, struct avl_node *n, int s)
{
	struct avl_node *c = n->child[s], *g;

	if (c->balance == -sign(s)) {
		g = c->child[!s];
		rotate(t, c, s);
		rotate(t, n, !s);
		n->balance = g->balance == sign(s) ? -sign(s) : 0;
		c->balance = g->balance == -sign(s) ? sign(s) : 0;
		g->balance = 0;
		return (g);
	}
	rotate(t, n, !s);
	n->balance = sign(s) - c->balance;	/* c's is 0 after a removal only */
	c->balance -= sign(s);
	return (c);
}

void
avl_insert(struct avl *t, struct avl_node *n)
{
	struct avl_node *p = NULL, **link = &t->root;
	int s;

	while (*link != NULL) {
		p = *link;
		KASSERT(p->key != n->key);
		link = &p->child[n->key > p->key];
	}
	n->child[0] = n->child[1] = NULL;
	n->parent = p;
	n->balance = 0;
	*link = n;

	/* n has become higher by one; go up until that makes no difference. */
	for (; (p = n->parent) != NULL; n = p) {
		s = side_of(n);
		if (p->balance == sign(s)) {
			(void)rebalance(t, p, s);
			return;
		}
		p->balance += sign(s);
		if (p->balance == 0)
			return;
	}
}

/* r, which may be null, takes the place of n below n's parent. */
static void
replace(struct avl *t, struct avl_node *n, struct avl_node *r)
{
	*link_of(t, n) = r;
	if (r != NULL)
		r->parent = n->parent;
}

void
avl_remove(struct avl *t, struct avl_node *n)
{
	struct avl_node *p, *r;
	int s;

	/* p will be lower by one on side s. */
	if (n->child[0] == NULL || n->child[1] == NULL) {
		p = n->parent;
		s = p != NULL ? side_of(n) : 0;
		replace(t, n, n->child[n->child[0] == NULL]);
	} else {
		for (r = n->child[1]; r->child[0] != NULL; r = r->child[0])
			;
		s = side_of(r);
		p = r->parent != n ? r->parent : r;
		replace(t, r, r->child[1]);
		replace(t, n, r);
		for (int i = 0; i < 2; i++) {
			r->child[i] = n->child[i];
			if (r->child[i] != NULL)
				r->child[i]->parent = r;
		}
		r->balance = n->balance;
	}

	while (p != NULL) {
		if (p->balance == -sign(s)) {
			p = rebalance(t, p, !s);
			if (p->balance != 0)
				return;
		} else {
			p->balance -= sign(s);
			if (p->balance != 0)
				return;
		}
		if (p->parent != NULL)
			s = side_of(p);
		p = p->parent;
	}
}

struct avl_node *
avl_find_le(const struct avl *t, uintptr_t key)
{
	struct avl_node *n = t->root, *best = NULL;

	while (n != NULL && n->key != key) {
		if (n->key < key)
			best = n;
		n = n->child[n->key < key];
	}
	return (n != NULL ? n : best);
}

struct avl_node *
avl_find_ge(const struct avl *t, uintptr_t key)
{
	struct avl_node *n = t->root, *best = NULL;

	while (n != NULL && n->key != key) {
		if (n->key > key)
			best = n;
		n = n->child[n->key < key];
	}
	return (n != NULL ? n : best);
}

struct avl_node *
avl_first(const struct avl *t)
{
	struct avl_node *n = t->root;

	while (n != NULL && n->child[0] != NULL)
		n = n->child[0];
	return (n);
}

/* The neighbour of n on side s. */
static struct avl_node *
neighbour(const struct avl_node *n, int s)
{
	struct avl_node *m = n->child[s];

	if (m == NULL) {
		while (n->parent != NULL && side_of(n) == s)
			n = n->parent;
		return (n->parent);
	}
	while (m->child[!s] != NULL)
		m = m->child[!s];
	return (m);
}

struct avl_node *
avl_next(const struct avl_node *n)
{
	return (neighbour(n, 1));
}

struct avl_node *
avl_prev(const struct avl_node *n)
{
	return (neighbour(n, 0));
}

/* => the height, or -1: not a tree.  (A circle would have a node with two parents.) */
static int
height_of(const struct avl_node *n, const struct avl_node *parent)
{
	int h[2];

	if (n == NULL)
		return (0);
	if (n->parent != parent)
		return (-1);
	for (int s = 0; s < 2; s++)
		if ((h[s] = height_of(n->child[s], n)) < 0)
			return (-1);
	if (n->balance != h[1] - h[0] || n->balance < -1 || n->balance > 1)
		return (-1);
	return (MAX(h[0], h[1]) + 1);
}

bool
avl_is_valid(const struct avl *t)
{
	const struct avl_node *n, *next;

	if (height_of(t->root, NULL) < 0)
		return (false);
	for (n = avl_first(t); n != NULL; n = next) {
		next = avl_next(n);
		if (next != NULL && next->key <= n->key)
			return (false);
	}
	return (true);
}
