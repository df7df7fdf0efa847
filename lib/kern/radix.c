/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Index to pointer, six bits of the index a level.
 *
 *	height 1	root: 64 entries			indices below 2^6
 *	height 2	root: 64 nodes of 64 entries		below 2^12
 *	...
 *	height 6	root: 4 of its slots can be used	all
 *
 * Invariants: a free slot is null and its bit in `used` clear; no node is
 * empty; the height is the least that the largest index needs.  The shape
 * follows from the entries alone, and so an insertion that runs out of memory half
 * way down just prunes, as a removal does, and nothing has changed.
 *
 * Since no node is empty, radix_next() climbs at most once: where a node has
 * nothing more to the right it goes up to the first that has, and from there
 * every step down leads to an entry.
 */

#include "kern/radix.h"

#include <errno.h>
#include <stddef.h>

#include "kern/assert.h"
#include "kern/slab.h"
#include "kern/types.h"

#define NODE_BITS	6
#define NODE_SLOTS	(1u << NODE_BITS)
#define HEIGHT_MAX	6

struct radix_node {
	uint64_t used;			/* bit i: slot i is not null */
	void *slot[NODE_SLOTS];		/* nodes; entries at level 1 */
};

static struct slab radix_slab;

void
radix_sysinit(void)
{
	slab_init(&radix_slab, "radix", sizeof(struct radix_node), _Alignof(struct radix_node));
}

void
radix_sysfini(void)
{
	slab_fini(&radix_slab);
}

static inline uint32_t
slot_of(uint64_t index, uint32_t level)
{
	return ((uint32_t)(index >> (NODE_BITS * (level - 1))) % NODE_SLOTS);
}

static inline bool
fits(uint64_t index, uint32_t height)
{
	return (index >> (NODE_BITS * height) == 0);
}

static inline void
slot_set(struct radix_node *n, uint32_t slot, void *p)
{
	n->slot[slot] = p;
	n->used |= (uint64_t)1 << slot;
}

static inline void
slot_clear(struct radix_node *n, uint32_t slot)
{
	n->slot[slot] = NULL;
	n->used &= ~((uint64_t)1 << slot);
}

/* The lowest bit; in halves, for which i386 has an instruction. => v is not 0. */
static inline uint32_t
lowest(uint64_t v)
{
	uint32_t low = (uint32_t)v;

	return ((uint32_t)(low != 0 ? __builtin_ctz(low) :
	    32 + __builtin_ctz((uint32_t)(v >> 32))));
}

void *
radix_lookup(const struct radix *t, uint32_t index)
{
	const struct radix_node *n = t->root;
	uint32_t level;

	if (n == NULL || !fits(index, t->height))
		return (NULL);
	for (level = t->height; level > 1; level--)
		if ((n = n->slot[slot_of(index, level)]) == NULL)
			return (NULL);
	return (n->slot[slot_of(index, 1)]);
}

/*
 * Restore the invariants.  path[level..height] are the nodes towards index;
 * those from `level` on up may be empty, and the root may be one too many.
 */
static void
radix_prune(struct radix *t, struct radix_node **path, uint32_t index, uint32_t level)
{
	struct radix_node *n;

	for (; level <= t->height && path[level]->used == 0; level++) {
		slab_free(&radix_slab, path[level]);
		if (level == t->height) {
			t->root = NULL;
			t->height = 0;
			return;
		}
		slot_clear(path[level + 1], slot_of(index, level + 1));
	}
	while (t->height > 1 && t->root->used == 1) {
		n = t->root;
		t->root = n->slot[0];
		t->height--;
		slab_free(&radix_slab, n);
	}
}

int
radix_insert(struct radix *t, uint32_t index, void *p)
{
	struct radix_node *path[HEIGHT_MAX + 1], *n;
	uint32_t level;

	KASSERT(p != NULL);
	while (t->root == NULL || !fits(index, t->height)) {
		if (t->root == NULL) {
			/* The only entry: a bare path of the height it needs. */
			for (t->height = 1; !fits(index, t->height); t->height++)
				;
		}
		if ((n = slab_alloc(&radix_slab)) == NULL) {
			if (t->root == NULL)
				t->height = 0;
			else
				radix_prune(t, path, index, t->height + 1);
			return (-ENOMEM);
		}
		if (t->root != NULL) {
			slot_set(n, 0, t->root);
			t->height++;
		}
		t->root = n;
	}
	path[t->height] = t->root;
	for (level = t->height; level > 1; level--) {
		n = path[level]->slot[slot_of(index, level)];
		if (n == NULL) {
			if ((n = slab_alloc(&radix_slab)) == NULL) {
				radix_prune(t, path, index, level);
				return (-ENOMEM);
			}
			slot_set(path[level], slot_of(index, level), n);
		}
		path[level - 1] = n;
	}
	KASSERT(path[1]->slot[slot_of(index, 1)] == NULL);
	slot_set(path[1], slot_of(index, 1), p);
	t->count++;
	return (0);
}

void *
radix_remove(struct radix *t, uint32_t index)
{
	struct radix_node *path[HEIGHT_MAX + 1];
	uint32_t level;
	void *p;

	if (t->root == NULL || !fits(index, t->height))
		return (NULL);
	path[t->height] = t->root;
	for (level = t->height; level > 1; level--)
		if ((path[level - 1] = path[level]->slot[slot_of(index, level)]) == NULL)
			return (NULL);
	p = path[1]->slot[slot_of(index, 1)];
	if (p == NULL)
		return (NULL);
	slot_clear(path[1], slot_of(index, 1));
	t->count--;
	radix_prune(t, path, index, 1);
	return (p);
}

void *
radix_next(const struct radix *t, uint32_t *index)
{
	const struct radix_node *path[HEIGHT_MAX + 1];
	uint64_t i = *index, rest;	/* 64 bits: the carry past the last index */
	uint32_t level = t->height, skip;

	if (level == 0 || !fits(i, level))
		return (NULL);
	path[level] = t->root;
	for (;;) {
		rest = path[level]->used >> slot_of(i, level);
		if (rest == 0) {
			/* To the first index after this node, and up to who has its slot. */
			i = ((i >> (NODE_BITS * level)) + 1) << (NODE_BITS * level);
			if (!fits(i, t->height))
				return (NULL);
			while (slot_of(i, ++level) == 0)
				;
			continue;
		}
		skip = lowest(rest);
		if (skip > 0)
			i = ((i >> (NODE_BITS * (level - 1))) + skip) << (NODE_BITS * (level - 1));
		if (level == 1) {
			*index = (uint32_t)i;
			return (path[1]->slot[slot_of(i, 1)]);
		}
		path[level - 1] = path[level]->slot[slot_of(i, level)];
		level--;
	}
}

uint32_t
radix_run(const struct radix *t, uint32_t index, uint32_t n, void **out)
{
	const struct radix_node *node;
	uint32_t done = 0, level;

	while (done < n && t->root != NULL && fits(index, t->height)) {
		uint32_t slot = slot_of(index, 1);

		for (node = t->root, level = t->height; level > 1 && node != NULL; level--)
			node = node->slot[slot_of(index, level)];
		for (; node != NULL && slot < NODE_SLOTS && done < n && node->slot[slot] != NULL; slot++) {
			out[done++] = node->slot[slot];
			index++;
		}
		/* A gap, or the end of the node, which may be the last there can be. */
		if (slot < NODE_SLOTS || index == 0)
			break;
	}
	return (done);
}
