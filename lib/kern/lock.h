/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_LOCK_H
#define KERN_LOCK_H

/*
 * Locks on futexes, and their order.
 *
 * THE LOCK ORDER is this enum: a thread that holds a lock may take only
 * locks of a higher rank.  Of one rank, several may be held where the comment
 * says in which order.  A trylock is exempt from the order (it cannot wait).
 * Builds with assertions of level 2 check every acquisition against a
 * per-thread list of what is held, and panic with both names.
 *
 * Locks are never held across a pager, a wait for frames, a wait for a busy
 * page, or a touch of managed memory; a thread has its signals blocked
 * whenever it holds one (see sys.h, api.c, trap.c).
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum lock_rank {
	RANK_NONE,		/* not a lock */
	RANK_LIFECYCLE,		/* vmf_init, vmf_fini */
	RANK_TRAP,		/* the program's signal actions */
	RANK_CUT,		/* one cut (snapshot, rollback, fork) at a time */
	RANK_TASKS,		/* the list of maps */
	RANK_MAP,		/* vm_map.lock; several in the order of their addresses */
	RANK_HOLDS,		/* vm_map.holds */
	RANK_VNODE,		/* the table of files */
	RANK_PAGER,		/* vm_pager's table and the object cache */
	RANK_OBJECT,		/* vm_object.lock; several down a shadow chain, top first;
				   a copy object above only by trylock */
	RANK_RMAP,		/* links between objects and map entries */
	RANK_PMAP,		/* pmap.lock; another's only by trylock */
	RANK_PMAP_LIST,		/* the list of pmaps */
	RANK_PARK,		/* page tables that nobody needs any more */
	RANK_VIEW,		/* the list of private views; their objects only by trylock */
	RANK_AWAY,		/* objects with pages away from home */
	RANK_PAGEQ,		/* page queues */
	RANK_PHYSMEM,		/* frames and their placement */
	RANK_USER_PAGER,	/* requests of a user pager */
	RANK_COMPRESSOR,	/* contexts of the compressing pager */
	RANK_COMPRESS,		/* its tables and its store */
	RANK_SWAP,		/* a swap pager's slots; two in the order of their addresses */
	RANK_SWAP_MAP,		/* which slots are free */
	RANK_IO,		/* transfers that wait to be made */
	RANK_HANDLE,		/* the handle table */
	RANK_SLAB,		/* slabs; nothing may be taken under it */
	RANK_COUNT
};

struct kmutex {
	_Atomic uint32_t word;		/* 0 free, 1 held, 2 held and waited for */
	uint16_t rank;			/* enum lock_rank; constant after init */
	_Atomic uint16_t spins;		/* how long spinning has lately paid; a hint */
	_Atomic uint32_t owner;		/* tid of the holder; kept in checking builds only */
};

void kmutex_init(struct kmutex *, enum lock_rank);
void kmutex_lock(struct kmutex *);
bool kmutex_trylock(struct kmutex *);
void kmutex_unlock(struct kmutex *);
/* True if the calling thread holds it; always true where builds do not check. */
bool kmutex_held(struct kmutex *);

/*
 * A reader-writer lock that prefers writers: a waiting writer holds new
 * readers off, so no thread may read-lock the same one twice.  Unlike a kmutex, it may be
 * freed only when every unlock of it has returned.
 */
struct krwlock {
	_Atomic uint32_t word;		/* who has it, who waits; readers sleep on it; see lock.c */
	_Atomic uint32_t writers;	/* writers sleep on it; counts their wakeups */
	_Atomic uint32_t upgrader;	/* the same for the upgrader */
	uint16_t rank;			/* enum lock_rank; constant after init */
	_Atomic uint32_t owner;		/* tid of the writer; checking builds only */
};

void krwlock_init(struct krwlock *, enum lock_rank);
void krwlock_read(struct krwlock *);
void krwlock_write(struct krwlock *);
bool krwlock_tryread(struct krwlock *);
bool krwlock_trywrite(struct krwlock *);
void krwlock_read_unlock(struct krwlock *);
void krwlock_write_unlock(struct krwlock *);
/*
 * From read to write, without letting another writer in between.
 * => false: another reader waits for the same upgrade; the read lock is GONE.
 */
bool krwlock_upgrade(struct krwlock *);
void krwlock_downgrade(struct krwlock *);
bool krwlock_write_held(struct krwlock *);	/* by this thread; true where unchecked */
bool krwlock_read_held(struct krwlock *);	/* by this thread, either way; ditto */

/*
 * Who takes and lets go of mutexes many times a millisecond is always faster than one who sleeps on one and has to be
 * woken first.  So between two times he gives way: if somebody slept on any mutex since *seen was looked at last (0 at
 * first), he pauses as long as waking takes.  => what others wait for is not held
 */
void locks_give_way(uint32_t *seen);

/* Panic unless this thread holds no lock of ours (checking builds). */
void locks_assert_none(void);
/* In a forked child, which holds none: the thread has another number. */
void locks_forked(void);

#endif
