/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Locks on futexes.
 *
 * The mutex is Drepper's third ("Futexes Are Tricky"): free, held, held and
 * waited for.  A thread that had to sleep takes it as "waited for", for it cannot
 * know whether it was the last; the price is one wakeup too many, never one
 * too few.  Before it sleeps it spins for a moment, longer where that has paid.
 *
 * The word of the reader-writer lock:
 *
 *	bits 0-27	readers, or all ones: a writer (KRW_WRITER)
 *	KRW_UPGRADE	one of the readers waits until it is the only one
 *	KRW_WWAIT	writers may sleep, on `writers`
 *	KRW_RWAIT	readers may sleep, on `word`
 *
 * Any of the three flags keeps new readers off.  A reader therefore sleeps only
 * if there is a writer, an upgrader, or someone waiting to be either, and:
 *
 *	the last reader out		wakes a writer, if KRW_WWAIT
 *	the last but one		wakes the upgrader, if KRW_UPGRADE
 *	a writer out			wakes a writer if one sleeps, else all readers
 *	a writer that becomes a reader	wakes all readers, unless KRW_WWAIT
 *
 * An upgrader keeps its count in the readers while it waits, so no writer can
 * come in between.  Two of them would wait for each other's count: the second
 * drops its own and is told so.
 *
 * What a thread wrote under a lock is seen by the next that takes it: every way in is an
 * acquire and every way out a release on `word`, and all of them are
 * read-modify-writes, so that a writer synchronizes with all readers before it.
 */

#include "kern/lock.h"

#include <limits.h>
#include <stddef.h>

#include "kern/assert.h"
#include "kern/sys.h"
#include "kern/types.h"

enum { FREE, HELD, WAITED_FOR };

#define KRW_READERS	((1u << 28) - 1)
#define KRW_WRITER	KRW_READERS
#define KRW_UPGRADE	(1u << 29)
#define KRW_WWAIT	(1u << 30)
#define KRW_RWAIT	(1u << 31)

#define SPIN_MAX	100
#define WAKING_NS	((int64_t)50 * 1000)	/* what it takes to wake a thread, and to have it run */

#if VMF_ASSERTIONS >= 2
/*
 * The witness: what this thread holds, in the order it was taken.  Signals
 * are blocked while a lock is held, so nobody interrupts an update.
 */
#define HELD_MAX	64

enum mode { MUTEX, READ, WRITE };

struct held {
	const void *lock;
	uint16_t rank;
	uint16_t mode;
};

static __thread __attribute__((tls_model("initial-exec"))) struct {
	uint32_t tid;
	uint32_t count;
	struct held locks[HELD_MAX];
} witness;

static const char *const rank_names[RANK_COUNT] = {
	[RANK_NONE] = "none", [RANK_LIFECYCLE] = "lifecycle", [RANK_TRAP] = "trap",
	[RANK_CUT] = "cut", [RANK_TASKS] = "tasks",
	[RANK_MAP] = "map", [RANK_HOLDS] = "holds", [RANK_VNODE] = "file table",
	[RANK_PAGER] = "pager",
	[RANK_OBJECT] = "object", [RANK_RMAP] = "rmap", [RANK_PMAP] = "pmap",
	[RANK_PMAP_LIST] = "pmap list", [RANK_PARK] = "park",
	[RANK_VIEW] = "view",
	[RANK_AWAY] = "away",
	[RANK_PAGEQ] = "pageq", [RANK_PHYSMEM] = "physmem",
	[RANK_USER_PAGER] = "user pager", [RANK_COMPRESSOR] = "compressor",
	[RANK_COMPRESS] = "compress", [RANK_SWAP] = "swap", [RANK_SWAP_MAP] = "swap map",
	[RANK_IO] = "io", [RANK_HANDLE] = "handle", [RANK_SLAB] = "slab",
};

/* Of one rank several may be held. */
static inline bool
rank_repeats(unsigned rank)
{
	return (rank == RANK_MAP || rank == RANK_OBJECT || rank == RANK_SWAP);
}

static struct held *
witness_find(const void *lock)
{
	for (uint32_t i = witness.count; i-- > 0;)
		if (witness.locks[i].lock == lock)
			return (&witness.locks[i]);
	return (NULL);
}

/* Before the thread may sleep for a lock, or for the other readers of one it holds. */
static void
witness_check(const void *lock, unsigned rank, bool upgrade)
{
	KASSERT_SLOW(rank > RANK_NONE && rank < RANK_COUNT);
	for (uint32_t i = 0; i < witness.count; i++) {
		const struct held *h = &witness.locks[i];

		if (h->lock == lock && upgrade)
			continue;
		if (h->lock == lock)
			kpanic("lock recursion: %s lock %p is held by this thread",
			    rank_names[rank], lock);
		if (h->rank > rank || (h->rank == rank && !rank_repeats(rank)))
			kpanic("lock order: %s lock %p is taken while %s lock %p is held",
			    rank_names[rank], lock, rank_names[h->rank], h->lock);
	}
}

static void
witness_add(const void *lock, unsigned rank, enum mode mode, _Atomic uint32_t *owner)
{
	if (witness_find(lock) != NULL)
		kpanic("lock recursion: %s lock %p is held by this thread", rank_names[rank], lock);
	if (witness.count == HELD_MAX)
		kpanic("one thread holds %d locks and takes %s lock %p", HELD_MAX,
		    rank_names[rank], lock);
	witness.locks[witness.count++] = (struct held){ lock, (uint16_t)rank, (uint16_t)mode };
	if (owner != NULL) {
		if (witness.tid == 0)
			witness.tid = (uint32_t)sys_gettid();
		atomic_store_explicit(owner, witness.tid, memory_order_relaxed);
	}
}

static void
witness_remove(const void *lock, unsigned rank, enum mode mode, _Atomic uint32_t *owner)
{
	struct held *h = witness_find(lock);

	if (h == NULL || h->mode != mode)
		kpanic("%s lock %p is released by a thread that does not hold it so",
		    rank_names[rank], lock);
	for (witness.count--; h < &witness.locks[witness.count]; h++)
		h[0] = h[1];
	if (owner != NULL)
		atomic_store_explicit(owner, 0, memory_order_relaxed);
}

static bool
witness_holds(const void *lock, bool write)
{
	const struct held *h = witness_find(lock);

	return (h != NULL && (!write || h->mode != READ));
}

void
locks_assert_none(void)
{
	if (witness.count > 0)
		kpanic("%s lock %p is still held", rank_names[witness.locks[0].rank],
		    witness.locks[0].lock);
}

void
locks_forked(void)
{
	locks_assert_none();
	witness.tid = 0;
}
#else
#define witness_check(lock, rank, upgrade)		((void)0)
#define witness_add(lock, rank, mode, owner)		((void)0)
#define witness_remove(lock, rank, mode, owner)		((void)0)
#define witness_holds(lock, write)			(true)

void
locks_assert_none(void)
{
}

void
locks_forked(void)
{
}
#endif

static inline uint32_t
load(_Atomic uint32_t *word)
{
	return (atomic_load_explicit(word, memory_order_relaxed));
}

/* => success is an acquire; on failure *old is what was there. */
static inline bool
swap(_Atomic uint32_t *word, uint32_t *old, uint32_t new)
{
	return (atomic_compare_exchange_strong_explicit(word, old, new, memory_order_acq_rel,
	    memory_order_relaxed));
}

/*
 * Mutex
 */

static _Atomic uint32_t slept;		/* times that a mutex was let go on which somebody slept */

void
kmutex_init(struct kmutex *m, enum lock_rank rank)
{
	atomic_init(&m->word, FREE);
	atomic_init(&m->spins, 0);
	atomic_init(&m->owner, 0);
	m->rank = (uint16_t)rank;
}

static inline bool
mutex_take(struct kmutex *m)
{
	uint32_t old = FREE;

	return (swap(&m->word, &old, HELD));
}

/* The bound follows what it took lately (glibc's adaptive mutex). Stop where others sleep. */
static bool
mutex_spin(struct kmutex *m)
{
	int lately = atomic_load_explicit(&m->spins, memory_order_relaxed);
	int max = MIN(2 * lately + 10, SPIN_MAX), n;
	bool taken = false;
	uint32_t word;

	for (n = 0; n < max && !taken; n++) {
		word = load(&m->word);
		if (word == WAITED_FOR)
			break;
		taken = word == FREE && mutex_take(m);
		__builtin_ia32_pause();
	}
	atomic_store_explicit(&m->spins, (uint16_t)(lately + (n - lately) / 8),
	    memory_order_relaxed);
	return (taken);
}

void
kmutex_lock(struct kmutex *m)
{
	witness_check(m, m->rank, false);
	if (!mutex_take(m) && !mutex_spin(m))
		while (atomic_exchange_explicit(&m->word, WAITED_FOR, memory_order_acquire) != FREE)
			(void)sys_futex_wait(&m->word, WAITED_FOR, -1);
	witness_add(m, m->rank, MUTEX, &m->owner);
}

bool
kmutex_trylock(struct kmutex *m)
{
	if (!mutex_take(m))
		return (false);
	witness_add(m, m->rank, MUTEX, &m->owner);
	return (true);
}

/*
 * Once it is free the next holder may free its memory too: from there on only
 * its address is used.  A wakeup of an address that someone else uses now is spurious there.
 */
void
kmutex_unlock(struct kmutex *m)
{
	uint32_t old;

	witness_remove(m, m->rank, MUTEX, &m->owner);
	old = atomic_exchange_explicit(&m->word, FREE, memory_order_release);
	KASSERT(old != FREE);
	if (old == WAITED_FOR) {
		(void)atomic_fetch_add_explicit(&slept, 1, memory_order_relaxed);
		(void)sys_futex_wake(&m->word, 1);
	}
}

void
locks_give_way(uint32_t *seen)
{
	static const _Atomic uint32_t nothing;
	uint32_t now = load(&slept);

	if (now == *seen)
		return;
	*seen = now;
	(void)sys_futex_wait(&nothing, 0, WAKING_NS);
}

bool
kmutex_held(struct kmutex *m)
{
	return (witness_holds(m, true));
}

/*
 * Reader-writer lock
 */

void
krwlock_init(struct krwlock *l, enum lock_rank rank)
{
	atomic_init(&l->word, 0);
	atomic_init(&l->writers, 0);
	atomic_init(&l->upgrader, 0);
	atomic_init(&l->owner, 0);
	l->rank = (uint16_t)rank;
}

static inline bool
may_read(uint32_t word)
{
	return (word < KRW_READERS - 1);	/* no writer, and no flag */
}

static inline bool
may_write(uint32_t word)
{
	return ((word & KRW_READERS) == 0);
}

/* Wait a moment for a writer that nobody sleeps for.  => the word as it is now. */
static uint32_t
rw_spin(struct krwlock *l)
{
	uint32_t word;
	int n = 0;

	while ((word = load(&l->word)) == KRW_WRITER && n++ < SPIN_MAX)
		__builtin_ia32_pause();
	return (word);
}

/* => false: no writer was asleep. */
static bool
wake_writer(struct krwlock *l)
{
	atomic_fetch_add_explicit(&l->writers, 1, memory_order_release);
	return (sys_futex_wake(&l->writers, 1) > 0);
}

/*
 * The lock became free as `word`, with someone waiting.  Whoever takes it
 * meanwhile inherits the flags and the duty.  A flag goes before the wakeup: who wants to
 * sleep after that sees that it is gone.  With KRW_WWAIT, of which no writer
 * knows whether it was the last, the woken one sets it again.
 */
static void
rw_wake(struct krwlock *l, uint32_t word)
{
	if (word == KRW_WWAIT) {
		if (swap(&l->word, &word, 0)) {
			(void)wake_writer(l);
			return;
		}
	}
	if (word == (KRW_WWAIT | KRW_RWAIT)) {
		if (!swap(&l->word, &word, KRW_RWAIT) || wake_writer(l))
			return;
		word = KRW_RWAIT;
	}
	if (word == KRW_RWAIT && swap(&l->word, &word, 0))
		(void)sys_futex_wake(&l->word, INT_MAX);
}

static bool
rw_tryread(struct krwlock *l)
{
	uint32_t word = load(&l->word);

	while (may_read(word))
		if (swap(&l->word, &word, word + 1))
			return (true);
	return (false);
}

void
krwlock_read(struct krwlock *l)
{
	uint32_t word;

	witness_check(l, l->rank, false);
	while (!rw_tryread(l)) {
		word = rw_spin(l);
		if (may_read(word) ||
		    ((word & KRW_RWAIT) == 0 && !swap(&l->word, &word, word | KRW_RWAIT)))
			continue;
		(void)sys_futex_wait(&l->word, word | KRW_RWAIT, -1);
	}
	witness_add(l, l->rank, READ, NULL);
}

static bool
rw_trywrite(struct krwlock *l, uint32_t flags)
{
	uint32_t word = load(&l->word);

	while (may_write(word))
		if (swap(&l->word, &word, word | KRW_WRITER | flags))
			return (true);
	return (false);
}

void
krwlock_write(struct krwlock *l)
{
	uint32_t word, ticket, flags = 0;

	witness_check(l, l->rank, false);
	while (!rw_trywrite(l, flags)) {
		word = rw_spin(l);
		if (may_write(word) ||
		    ((word & KRW_WWAIT) == 0 && !swap(&l->word, &word, word | KRW_WWAIT)))
			continue;
		/* From here on there may be others asleep whom only we know of. */
		flags = KRW_WWAIT;
		ticket = atomic_load_explicit(&l->writers, memory_order_acquire);
		word = load(&l->word);
		if (!may_write(word) && (word & KRW_WWAIT) != 0)
			(void)sys_futex_wait(&l->writers, ticket, -1);
	}
	witness_add(l, l->rank, WRITE, &l->owner);
}

bool
krwlock_tryread(struct krwlock *l)
{
	if (!rw_tryread(l))
		return (false);
	witness_add(l, l->rank, READ, NULL);
	return (true);
}

bool
krwlock_trywrite(struct krwlock *l)
{
	if (!rw_trywrite(l, 0))
		return (false);
	witness_add(l, l->rank, WRITE, &l->owner);
	return (true);
}

static void
rw_read_unlock(struct krwlock *l)
{
	uint32_t word = atomic_fetch_sub_explicit(&l->word, 1, memory_order_release);

	KASSERT((word & KRW_READERS) != 0 && (word & KRW_READERS) != KRW_WRITER);
	word--;
	if ((word & KRW_READERS) == 1 && (word & KRW_UPGRADE) != 0) {
		atomic_fetch_add_explicit(&l->upgrader, 1, memory_order_release);
		(void)sys_futex_wake(&l->upgrader, 1);
	} else if (may_write(word) && (word & KRW_WWAIT) != 0) {
		rw_wake(l, word);
	}
}

void
krwlock_read_unlock(struct krwlock *l)
{
	witness_remove(l, l->rank, READ, NULL);
	rw_read_unlock(l);
}

void
krwlock_write_unlock(struct krwlock *l)
{
	uint32_t word;

	witness_remove(l, l->rank, WRITE, &l->owner);
	word = atomic_fetch_sub_explicit(&l->word, KRW_WRITER, memory_order_release);
	KASSERT((word & KRW_READERS) == KRW_WRITER);
	word -= KRW_WRITER;
	if (word != 0)
		rw_wake(l, word);
}

bool
krwlock_upgrade(struct krwlock *l)
{
	uint32_t word = load(&l->word), ticket;

	witness_check(l, l->rank, true);
	witness_remove(l, l->rank, READ, NULL);
	do {
		KASSERT((word & KRW_READERS) != 0 && (word & KRW_READERS) != KRW_WRITER);
		if ((word & KRW_UPGRADE) != 0) {
			rw_read_unlock(l);
			return (false);
		}
	} while (!swap(&l->word, &word, word | KRW_UPGRADE));

	for (;;) {
		ticket = atomic_load_explicit(&l->upgrader, memory_order_acquire);
		word = load(&l->word);
		while ((word & KRW_READERS) == 1)
			if (swap(&l->word, &word, (word & ~KRW_UPGRADE) | KRW_WRITER))
				goto out;
		(void)sys_futex_wait(&l->upgrader, ticket, -1);
	}
out:
	witness_add(l, l->rank, WRITE, &l->owner);
	return (true);
}

void
krwlock_downgrade(struct krwlock *l)
{
	uint32_t word = load(&l->word), new;

	witness_remove(l, l->rank, WRITE, &l->owner);
	do {
		KASSERT((word & KRW_READERS) == KRW_WRITER);
		new = word - KRW_WRITER + 1;
		if ((word & KRW_WWAIT) == 0)
			new &= ~KRW_RWAIT;
	} while (!swap(&l->word, &word, new));
	if ((word & ~new & KRW_RWAIT) != 0)
		(void)sys_futex_wake(&l->word, INT_MAX);
	witness_add(l, l->rank, READ, NULL);
}

bool
krwlock_write_held(struct krwlock *l)
{
	return (witness_holds(l, true));
}

bool
krwlock_read_held(struct krwlock *l)
{
	return (witness_holds(l, false));
}
