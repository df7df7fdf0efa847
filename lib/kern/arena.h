/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_ARENA_H
#define KERN_ARENA_H

/* Memory in huge pages, for slabs that are large: see arena.c. */

#include <stdbool.h>
#include <stdint.h>

#define ARENA_CHUNK	((uintptr_t)2 << 20)

void *arena_alloc(void);	/* a chunk, aligned and zeroed; null: there is none to be had */
bool arena_free(void *);	/* false: it is no chunk */

/*
 * A fork's child is gone, and chunks that it tore can be mended (true); or never mind (false).
 * => this and the next one: by one thread
 */
void arena_mend(bool);
/* Mend one, if any is to be mended.  Nanoseconds until it is time for the next one, or EVENT_FOREVER. */
int64_t arena_tend(void);

#endif
