/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Frozen frames: those that a forked child sees as well.
 *
 * At a fork nothing is copied.  All frames that are in use become FROZEN: they are not written, nor given
 * to somebody else, while any process lives that inherited them.  The child maps them as they are.  Who wants to write a
 * page of which the frame is frozen has it copied to another first, in the parent as in the child, and the
 * old frame, when nobody in the parent needs it any more, is SUPERSEDED: it stays what it is, but
 * does not count as used.
 *
 *	young	given out after the newest freeze: nobody else sees it
 *	frozen	all others that are used, while there is a freeze
 *
 *		freeze 1	      freeze 2		thaw 1		     thaw 2
 *	used ------> frozen --free--> superseded (2) ------> superseded (2) ------> dirty
 *			    --free--> superseded (1) ------> dirty
 *
 * So a freeze costs a look at what is young, whatever the size of memory.  A superseded frame belongs
 * to the newest freeze of its time: older ones may need it, younger ones cannot.  It is free when that one
 * and all before it have thawed.
 *
 * For a child all that it inherits is frozen for good.
 *
 * COMMON frames are written by all who see them.  They are like frozen ones in that nobody else gets them.
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/sys.h"
#include "physmem_impl.h"

#define BLOCK_FRAMES	(1u << RUN_SHIFT)
#define BLOCK_WORDS	(BLOCK_FRAMES / 64)

static size_t
map_bytes(void)
{
	return pm.bitmap_bytes + blocks_bytes();
}

/* A bitmap of all frames, and behind it one of their blocks; memory is only taken where they are written. */
static uint64_t *
map_make(void)
{
	void *p = sys_mmap(NULL, map_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return sys_is_err(p) ? NULL : p;
}

static uint64_t *
blocks_of(uint64_t *map)
{
	return map + pm.bitmap_bytes / sizeof(*map);
}

/* Call what(first frame) for each block that is marked, until it returns false; its mark goes first. */
static void
each_block(uint64_t *blocks, bool (*what)(vm_pfn_t, void *), void *arg)
{
	uint64_t nblocks = pm.nframes >> RUN_SHIFT;

	for (uint64_t w = 0; w * 64 < nblocks; w++)
		while (blocks[w] != 0) {
			uint64_t b = w * 64 + (uint64_t)__builtin_ctzll(blocks[w]);

			blocks[w] &= blocks[w] - 1;
			if (!what((vm_pfn_t)(b << RUN_SHIFT), arg))
				return;
		}
}

/* Maps that are looked at without the lock. */
static inline bool
is_in(_Atomic uint64_t *map, vm_pfn_t pfn)
{
	return atomic_load_explicit(&map[pfn / 64], memory_order_relaxed) >> (pfn % 64) & 1;
}

/* It was the other.  => lock held, as for all below but where it is said */
static void
turn(_Atomic uint64_t *map, vm_pfn_t pfn)
{
	_Atomic uint64_t *word = &map[pfn / 64];

	atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) ^ (uint64_t)1 << (pfn % 64),
	    memory_order_relaxed);
}

void
freeze_young(vm_pfn_t pfn)
{
	turn(pm.young, pfn);
	set_bit(pm.young_blocks, pfn >> RUN_SHIFT);
	pm.nyoung++;
}

bool
freeze_forget(vm_pfn_t pfn)
{
	bool young = pm.nfreezes != 0 && is_in(pm.young, pfn);

	if (young)
		turn(pm.young, pfn);
	pm.nyoung -= young;
	return young;
}

/* The newest that lives and is older than that one; null: none */
static struct freeze *
before(uint32_t id)
{
	struct freeze *f = NULL;

	for (uint32_t i = 0; i < PHYSMEM_FREEZES; i++)
		if (pm.freeze[i].live && pm.freeze[i].id < id && (f == NULL || pm.freeze[i].id > f->id))
			f = &pm.freeze[i];
	return f;
}

static struct freeze *
find(uint32_t id)
{
	for (uint32_t i = 0; i < PHYSMEM_FREEZES; i++)
		if (pm.freeze[i].id == id)
			return &pm.freeze[i];
	return NULL;
}

bool
freeze_keeps(vm_pfn_t pfn)
{
	struct freeze *f;

	if (pm.nfreezes == 0 || freeze_forget(pfn))
		return false;
	f = before(UINT32_MAX);
	KASSERT_ALWAYS(f != NULL && test_bit(pm.used, pfn) && !test_bit(f->superseded, pfn));
	set_bit(f->superseded, pfn);
	set_bit(f->blocks, pfn >> RUN_SHIFT);
	pm.nused--;
	pm.nsuperseded++;
	return true;
}

static bool
forget_block(vm_pfn_t first, void *arg)
{
	_Atomic uint64_t *map = arg;

	for (uint32_t i = 0; i < BLOCK_WORDS; i++)
		atomic_store_explicit(&map[first / 64 + i], 0, memory_order_relaxed);
	return true;
}

static void
nothing_young(void)
{
	each_block(pm.young_blocks, forget_block, (void *)pm.young);
	pm.nyoung = 0;
}

int
physmem_freeze(uint32_t *id)
{
	struct freeze *f;
	int error = 0;

	kmutex_lock(&pm.lock);
	f = *id != 0 ? find(*id) : find(0);
	KASSERT(f != NULL && (*id == 0 || f == before(UINT32_MAX)));
	if (pm.young == NULL) {
		uint64_t *map = map_make();

		pm.young = (_Atomic uint64_t *)map;
		pm.young_blocks = map != NULL ? blocks_of(map) : NULL;
	}
	if (f->superseded == NULL)
		f->superseded = map_make();
	if (pm.young == NULL || f->superseded == NULL) {
		error = -ENOMEM;
	} else {
		f->blocks = blocks_of(f->superseded);
		nothing_young();
		if (*id == 0) {
			f->id = *id = ++pm.ids;
			f->live = true;
			atomic_fetch_add(&pm.nfreezes, 1);
		}
		pm.freezing = true;
	}
	kmutex_unlock(&pm.lock);
	return error;
}

void
physmem_freeze_end(void)
{
	kmutex_lock(&pm.lock);
	pm.freezing = false;
	kmutex_unlock(&pm.lock);
}

void
physmem_make_young(vm_pfn_t pfn)
{
	kmutex_lock(&pm.lock);
	if (!physmem_is_inherited(pfn) && pm.nfreezes != 0 && !is_in(pm.young, pfn))
		freeze_young(pfn);
	kmutex_unlock(&pm.lock);
}

/* What was superseded of this block is free.  In pieces, for who holds the lock keeps others from their faults. */
static bool
release_block(vm_pfn_t first, void *arg)
{
	uint64_t *word = (uint64_t *)arg + first / 64;

	for (uint32_t i = 0; i < BLOCK_WORDS; i++)
		for (; word[i] != 0; word[i] &= word[i] - 1) {
			pm.nused++;
			pm.nsuperseded--;
			dirty_free(first + i * 64 + (vm_pfn_t)__builtin_ctzll(word[i]));
		}
	dirty_freed();
	kmutex_unlock(&pm.lock);
	kmutex_lock(&pm.lock);
	return true;
}

struct give {
	struct freeze *from, *to;
};

static bool
give_block(vm_pfn_t first, void *arg)
{
	struct give *g = arg;

	for (uint32_t i = 0; i < BLOCK_WORDS; i++) {
		g->to->superseded[first / 64 + i] |= g->from->superseded[first / 64 + i];
		g->from->superseded[first / 64 + i] = 0;
	}
	set_bit(g->to->blocks, first >> RUN_SHIFT);
	return true;
}

void
physmem_thaw(uint32_t id)
{
	struct freeze *f;
	struct give give;

	kmutex_lock(&pm.lock);
	f = find(id);
	KASSERT_ALWAYS(f != NULL && f->live);
	f->live = false;
	if (atomic_fetch_sub(&pm.nfreezes, 1) == 1) {
		nothing_young();
		/* What we share with parents stays so. */
		if (pm.common != NULL && pm.nolder == 0)
			each_block(pm.common_blocks, forget_block, (void *)pm.common);
	}
	give = (struct give){ f, before(id) };
	if (give.to != NULL)
		each_block(f->blocks, give_block, &give);
	else
		each_block(f->blocks, release_block, f->superseded);
	f->id = 0;
	kmutex_unlock(&pm.lock);
	event_wake(&physmem_freed);
	event_wake(&physmem_plenty);
}

bool
physmem_take_back(vm_pfn_t pfn)
{
	bool ok = physmem_is_inherited(pfn);

	if (ok)
		return true;
	kmutex_lock(&pm.lock);
	for (uint32_t i = 0; i < PHYSMEM_FREEZES && !ok && pm.nused + pm.nlent < pm.budget; i++) {
		struct freeze *f = &pm.freeze[i];

		ok = f->live && test_bit(f->superseded, pfn);
		if (ok) {
			clear_bit(f->superseded, pfn);
			pm.nused++;
			pm.nsuperseded--;
		}
	}
	kmutex_unlock(&pm.lock);
	return ok;
}

bool
physmem_make_common(vm_pfn_t pfn)
{
	bool ok;

	kmutex_lock(&pm.lock);
	if (pm.common == NULL) {
		uint64_t *map = map_make();

		pm.common_blocks = map != NULL ? blocks_of(map) : NULL;
		pm.common = (_Atomic uint64_t *)map;
	}
	ok = pm.common != NULL;
	if (ok && !is_in(pm.common, pfn)) {
		turn(pm.common, pfn);
		set_bit(pm.common_blocks, pfn >> RUN_SHIFT);
	}
	kmutex_unlock(&pm.lock);
	return ok;
}

bool
physmem_is_common(vm_pfn_t pfn)
{
	return unlikely(pm.common != NULL) && is_in(pm.common, pfn);
}

bool
physmem_has_common(void)
{
	return pm.common != NULL;
}

bool
physmem_is_frozen(vm_pfn_t pfn)
{
	bool frozen = physmem_is_inherited(pfn) ||
	    (unlikely(atomic_load_explicit(&pm.nfreezes, memory_order_relaxed) != 0) && !is_in(pm.young, pfn));

	return unlikely(frozen) && !physmem_is_common(pfn);
}

bool
physmem_any_frozen(vm_pfn_t pfn, uint32_t n)
{
	bool any = false;

	for (uint32_t i = 0; i < n && !any; i++)
		any = physmem_is_frozen(pfn + i);
	return any;
}

bool
physmem_has_frozen(void)
{
	return atomic_load_explicit(&pm.nfreezes, memory_order_relaxed) != 0;
}

void
physmem_freeze_counts(struct physmem_freeze_counts *c)
{
	kmutex_lock(&pm.lock);
	*c = (struct physmem_freeze_counts){ .young = pm.nyoung, .superseded = pm.nsuperseded, .live = pm.nfreezes };
	c->frozen = c->live != 0 ? pm.nused - pm.nyoung : 0;
	kmutex_unlock(&pm.lock);
}

/* => nobody else is there */
void
freeze_fini(void)
{
	if (pm.common != NULL)
		(void)sys_munmap((void *)pm.common, map_bytes());
	pm.common = NULL;
	freeze_forked();
}

/* A child has none of its own; what is common stays so.  => likewise */
void
freeze_forked(void)
{
	for (uint32_t i = 0; i < PHYSMEM_FREEZES; i++)
		if (pm.freeze[i].superseded != NULL)
			(void)sys_munmap(pm.freeze[i].superseded, map_bytes());
	if (pm.young != NULL)
		(void)sys_munmap((void *)pm.young, map_bytes());
	memset(pm.freeze, 0, sizeof(pm.freeze));
	pm.young = NULL;
	pm.young_blocks = NULL;
	pm.nyoung = pm.nsuperseded = 0;
	atomic_store(&pm.nfreezes, 0);
	pm.freezing = false;
}
