/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The library's own memory, in huge pages.
 *
 *	arena:	| chunk | chunk |       | chunk |   ...  |	used: 1101...
 *		 2 MB, aligned
 *
 * A fork has to copy a page table's entry for each page of ours, and to look at the kernel's descriptor of it: a
 * fifth of a microsecond.  Of huge pages there are five hundred times fewer.  But who writes to one after the
 * fork makes the kernel tear it into small ones, and so it stays: the second fork pays for all of them.
 * That is why chunks are MENDED when the child is gone, by MADV_COLLAPSE: the kernel copies 2 MB, and nobody changes a
 * mapping meanwhile.  One at a time, with pauses.
 *
 * Kernels before 6.1 do not know it.  There chunks stay torn until the kernel's own daemon comes by.
 *
 * Arenas stay for ever, and chunks that are free take no memory.
 */

#include "kern/arena.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "kern/event.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "kern/types.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define ARENAS		64u
#define CHUNKS		(sizeof(void *) > 4 ? 32u : 4u)		/* of one */
#define ARENA		(CHUNKS * ARENA_CHUNK)
#define PAUSE_NS	((int64_t)5 * 1000 * 1000)

/* The first ones are there. */
static struct arena {
	_Atomic uintptr_t base;		/* or 0; constant once it is set */
	_Atomic uint32_t used;		/* bits: chunks */
} arenas[ARENAS];

static uint32_t next = ARENAS * CHUNKS;	/* to be mended: from this chunk of all on; the daemon's */
static bool refused;			/* the kernel cannot; the daemon's */

/* Map an aligned one, unless somebody else has just done it.  false: the kernel refuses */
static bool
make(struct arena *a)
{
	void *p = sys_mmap(NULL, 2 * ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t start = (uintptr_t)p, base = (start + ARENA - 1) & ~(ARENA - 1), none = 0;

	if (sys_is_err(p))
		return false;
	if (base != start)
		(void)sys_munmap(p, base - start);
	if (base != start + ARENA)
		(void)sys_munmap((void *)(base + ARENA), start + ARENA - base);
	(void)sys_madvise((void *)base, ARENA, MADV_HUGEPAGE);
	if (!atomic_compare_exchange_strong(&a->base, &none, base))
		(void)sys_munmap((void *)base, ARENA);
	return true;
}

/* A chunk of it; 0: all are in use. */
static uintptr_t
take(struct arena *a)
{
	uint32_t used = atomic_load(&a->used), i;

	do {
		for (i = 0; i < CHUNKS && (used >> i & 1); i++)
			;
		if (i == CHUNKS)
			return 0;
		PROBE("arena: before a chunk is taken");
	} while (!atomic_compare_exchange_strong(&a->used, &used, used | 1u << i));
	return atomic_load(&a->base) + i * ARENA_CHUNK;
}

void *
arena_alloc(void)
{
	for (struct arena *a = arenas; a < arenas + ARENAS; a++) {
		uintptr_t chunk;

		if (atomic_load(&a->base) == 0 && !make(a))
			return NULL;
		chunk = take(a);
		if (chunk != 0)
			return (void *)chunk;
	}
	return NULL;
}

bool
arena_free(void *p)
{
	uintptr_t chunk = (uintptr_t)p, base;

	for (struct arena *a = arenas; a < arenas + ARENAS && (base = atomic_load(&a->base)) != 0; a++) {
		if (chunk < base || chunk >= base + ARENA)
			continue;
		/* What cannot be emptied cannot be given out again. */
		if (sys_madvise(p, ARENA_CHUNK, MADV_DONTNEED) == 0)
			atomic_fetch_and(&a->used, ~(1u << (chunk - base) / ARENA_CHUNK));
		return true;
	}
	return false;
}

void
arena_mend(bool yes)
{
	next = yes && !refused ? 0 : ARENAS * CHUNKS;
}

int64_t
arena_tend(void)
{
	for (; next < ARENAS * CHUNKS; next++) {
		const struct arena *a = &arenas[next / CHUNKS];
		int error;

		if (!(atomic_load(&a->used) >> next % CHUNKS & 1))
			continue;
		error = sys_madvise((void *)(atomic_load(&a->base) + next % CHUNKS * ARENA_CHUNK), ARENA_CHUNK, MADV_COLLAPSE);
		refused = error == -EINVAL;
		/* EAGAIN: somebody was at a page of it.  Else there are no huge pages now. */
		if (error != 0 && error != -EAGAIN)
			break;
		next++;
		return PAUSE_NS;
	}
	next = ARENAS * CHUNKS;
	return EVENT_FOREVER;
}
