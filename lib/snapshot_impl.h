/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SNAPSHOT_IMPL_H
#define SNAPSHOT_IMPL_H

/*
 * What snapshot.c and rollback.c share: the structure of a snapshot, and the maps that a call
 * works on.
 */

#include <stdatomic.h>

#include "snapshot.h"

/* Pages of an object whose contents stay as they were.  Constant once the snapshot is made. */
struct piece {
	size_t range;			/* which of the snapshot's ranges */
	size_t start, size;		/* bytes of that range */
	struct vm_object *object;	/* referenced; null: zeros */
	vm_pindex_t offset;		/* page of the object that is at start */
};

struct piece_list {
	struct piece *piece;		/* in the order of ranges and addresses */
	size_t n, bytes;
};

struct snapshot {
	struct handle handle;
	size_t bytes;			/* of this structure */
	uint64_t serial;		/* no two ever have the same; not 0 */
	_Atomic bool rolled;		/* objects may keep lists of what was written since (vm_written.h) */
	struct piece_list pieces;
	size_t nranges;
	struct vmf_range range[];
};

struct snapshot *snapshot_get(uint64_t name);	/* referenced, or null */
const struct piece *piece_at(const struct piece_list *, size_t range, size_t offset);
int piece_read(const struct piece *, size_t offset, void *buf, size_t len);	/* inside one page */

void snapshot_end_rollbacks(struct snapshot *);	/* nobody will roll back to it any more */

#define MAPS_FEW	4

/* The maps that ranges belong to: referenced, in the order of their addresses, each once. */
struct map_set {
	struct vm_map **map;
	size_t n, bytes;		/* 0 bytes: it is `few' */
	struct vm_map *few[MAPS_FEW];
};

int maps_find(struct map_set *, const struct vmf_range *, size_t n);
void maps_release(struct map_set *);
struct vm_map *maps_of(const struct map_set *, const void *addr);
int maps_lock(struct map_set *, const struct vmf_range *, size_t n);	/* -EFAULT: not mapped */
void maps_unlock(struct map_set *);
bool maps_clip(struct map_set *, const struct vmf_range *, size_t n);
void maps_simplify(struct map_set *, const struct vmf_range *, size_t n);

#endif
