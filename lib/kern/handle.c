/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The handle table.
 *
 *	name:	| generation, 32 bits | slot, 32 bits |
 *
 * Slots begin at 1, generations at 0, so the first name is 1.  A slot's
 * generation grows with each release, and a slot whose generations are used
 * up is never used again: no name is given out twice.  Nor is one after
 * handle_sysfini(): the next table begins with generations above those of the
 * last, except for its first name, which is 1 by contract.
 *
 * Slots lie in blocks that double in size and never move:
 *
 *	block 0: 256 slots	block 1: 512	block 2: 1024	...
 *
 * The table holds one reference to what it names, so under its lock a named
 * thing has at least one and handle_get() may add to it.
 */

#include "kern/handle.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "kern/assert.h"
#include "kern/lock.h"
#include "kern/slab.h"
#include "kern/types.h"

#define NO_SLOT		0u
#define BLOCK_FIRST	256u		/* slots of block 0 */
#define BLOCKS		23		/* some two thousand million slots */
#define TYPES		(HANDLE_SNAPSHOT + 1)

struct slot {
	struct handle *handle;		/* null: free */
	uint32_t generation;		/* above table.base; of the next name where free */
	uint32_t next;			/* free slot, where free */
};

static struct {
	struct kmutex lock;		/* RANK_HANDLE; guards all below */
	struct slot *block[BLOCKS];
	uint32_t end;			/* slots below it were given out at least once */
	uint32_t free;			/* list of free ones, or NO_SLOT */
	uint32_t base;			/* generations of earlier tables are below it */
	uint32_t top;			/* the largest generation in use, above base */
	uint32_t open[TYPES];
} table;

static inline uint32_t
block_slots(uint32_t block)
{
	return (BLOCK_FIRST << block);
}

static inline uint32_t
block_of(uint32_t slot)
{
	return (31 - (uint32_t)__builtin_clz(slot / BLOCK_FIRST + 1));
}

static inline struct slot *
slot_at(uint32_t slot)
{
	uint32_t b = block_of(slot);

	return (&table.block[b][slot - (block_slots(b) - BLOCK_FIRST)]);
}

static inline uint64_t
name_of(uint32_t slot)
{
	uint32_t generation = slot_at(slot)->generation;

	if (slot == 1 && generation == 0)
		return (1);
	return ((uint64_t)(table.base + generation) << 32 | slot);
}

void
handle_sysinit(void)
{
	kmutex_init(&table.lock, RANK_HANDLE);
	table.end = 1;
	table.free = NO_SLOT;
	table.top = 0;
}

void
handle_sysfini(void)
{
	for (uint32_t t = 0; t < TYPES; t++)
		KASSERT(table.open[t] == 0);
	for (uint32_t b = 0; b < BLOCKS && table.block[b] != NULL; b++) {
		kmem_free(table.block[b], block_slots(b) * sizeof(struct slot));
		table.block[b] = NULL;
	}
	table.base += table.top + 1;
	table.end = 0;
	table.free = NO_SLOT;
}

/* => a free slot, off the list; or NO_SLOT: no memory. */
static uint32_t
slot_alloc(void)
{
	uint32_t slot = table.free, b;

	if (slot != NO_SLOT) {
		table.free = slot_at(slot)->next;
		return (slot);
	}
	b = block_of(table.end);
	if (b == BLOCKS)
		return (NO_SLOT);
	if (table.block[b] == NULL) {
		table.block[b] = kmem_alloc(block_slots(b) * sizeof(struct slot));
		if (table.block[b] == NULL)
			return (NO_SLOT);
	}
	return (table.end++);
}

static void
slot_free(uint32_t slot)
{
	struct slot *s = slot_at(slot);

	s->handle = NULL;
	if (table.base + s->generation == UINT32_MAX)
		return;
	s->generation++;
	table.top = MAX(table.top, s->generation);
	s->next = table.free;
	table.free = slot;
}

/* The open slot of that name, or null. */
static struct slot *
slot_find(enum handle_type type, uint64_t name)
{
	uint32_t slot = (uint32_t)name;
	struct slot *s;

	KASSERT_SLOW(kmutex_held(&table.lock));
	if (slot == NO_SLOT || slot >= table.end)
		return (NULL);
	s = slot_at(slot);
	if (s->handle == NULL || s->handle->name != name || s->handle->type != type)
		return (NULL);
	return (s);
}

uint64_t
handle_create(enum handle_type type, struct handle *h, void (*destroy)(struct handle *))
{
	uint64_t name = 0;
	uint32_t slot;

	KASSERT(type > HANDLE_FREE && type < TYPES);
	atomic_init(&h->refs, 1);
	h->type = type;
	h->destroy = destroy;
	kmutex_lock(&table.lock);
	slot = slot_alloc();
	if (slot != NO_SLOT) {
		name = name_of(slot);
		slot_at(slot)->handle = h;
		table.open[type]++;
	}
	h->name = name;
	kmutex_unlock(&table.lock);
	return (name);
}

struct handle *
handle_get(enum handle_type type, uint64_t name)
{
	struct handle *h = NULL;
	struct slot *s;

	kmutex_lock(&table.lock);
	s = slot_find(type, name);
	if (s != NULL) {
		h = s->handle;
		handle_ref(h);
	}
	kmutex_unlock(&table.lock);
	return (h);
}

void
handle_ref(struct handle *h)
{
	uint32_t old = atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);

	KASSERT(old > 0 && old < UINT32_MAX);
}

bool
handle_ref_try(struct handle *h)
{
	uint32_t old = atomic_load_explicit(&h->refs, memory_order_relaxed);

	while (old != 0)
		if (atomic_compare_exchange_weak_explicit(&h->refs, &old, old + 1,
		    memory_order_acquire, memory_order_relaxed))
			return (true);
	return (false);
}

/* What each holder did is done before the destructor runs: release, then acquire. */
void
handle_put(struct handle *h)
{
	uint32_t old = atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel);

	KASSERT(old > 0);
	if (old == 1)
		h->destroy(h);
}

bool
handle_is_open(struct handle *h)
{
	bool is_open;

	kmutex_lock(&table.lock);
	is_open = h->name != 0;
	kmutex_unlock(&table.lock);
	return (is_open);
}

int
handle_close(enum handle_type type, uint64_t name)
{
	struct handle *h;
	struct slot *s;

	kmutex_lock(&table.lock);
	s = slot_find(type, name);
	if (s == NULL) {
		kmutex_unlock(&table.lock);
		return (-EBADF);
	}
	h = s->handle;
	h->name = 0;
	slot_free((uint32_t)name);
	table.open[type]--;
	kmutex_unlock(&table.lock);
	handle_put(h);
	return (0);
}

struct handle *
handle_any(enum handle_type type)
{
	struct handle *h, *found = NULL;

	kmutex_lock(&table.lock);
	for (uint32_t slot = 1; table.open[type] > 0 && found == NULL; slot++) {
		h = slot_at(slot)->handle;
		if (h != NULL && h->type == type) {
			handle_ref(h);
			found = h;
		}
	}
	kmutex_unlock(&table.lock);
	return (found);
}

uint32_t
handle_count(enum handle_type type)
{
	uint32_t n;

	kmutex_lock(&table.lock);
	n = table.open[type];
	kmutex_unlock(&table.lock);
	return (n);
}
