/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * fork().
 *
 * The frames are a shared mapping, so the kernel's fork() would have parent and child write to the same
 * memory.  There are two ways out.  The child can SHARE the frames, of which none is written any more that both see:
 * that takes the same time for any amount of memory, and is what fork_share.c does.  Or the parent makes a COPY for the
 * child before it forks, which is simple, right, and as dear as there is memory.
 *
 *	parent						child
 *	1  keep threads out of the library, and wait
 *	   until it is empty; hold its own threads
 *	2  nobody may write: who does waits at 1
 *	3  copy: a new memfd with every frame's bytes;
 *	   share: freeze the frames.  A new swap
 *	   file with every slot's bytes
 *	4  copy: hide the managed memory from the child
 *	   ------------ clone() ------------>
 *	5  wait					5  its frames and swap are the new ones
 *						6  copy: managed memory is reserved, nothing mapped
 *						7  tell the parent
 *	8  show it again, let everybody go on		8  new threads for the library
 *
 * The library is empty and still at the clone: no lock is held but by ourselves, no page is busy, no transfer under
 * way.  So the child's copies of all tables, which the kernel makes, are right as they are.  What the
 * pmap has entered is forgotten, as it may always be, except where it is wired.
 *
 * THE CUT.  From 2 on no byte changes, so what a thread wrote after 2 it cannot have told anyone.
 * Held pages (vmf_fault_in) stay writable for the kernel's sake, and the forking thread may go on
 * writing, for between 4 and the clone libc does; what can be written at the clone is
 * copied once more at 5, while the parent waits.
 *
 * Whatever touches managed memory first in the child, a libc that puts its locks right or a handler, faults,
 * for there is nothing; and who comes into the library as the child of a fork does 5 to 7 first.
 */

#include "fork.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fork_share.h"
#include "io.h"
#include "kern/alone.h"
#include "kern/assert.h"
#include "kern/event.h"
#include "kern/lock.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "machdep.h"
#include "physmem.h"
#include "pmap.h"
#include "swap.h"
#include "task.h"
#include "user.h"
#include "vm_fault.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_pageout.h"
#include "vm_pin.h"
#include "vm_publish.h"
#include "vm_view.h"

#define SLOTS		64u		/* counters of who is inside: so that threads do not share a line */
#define LOOK_NS		((int64_t)1000 * 1000)
#define TOLD		"ok"
#define SPARES		64u
#define SHARED_TRIES	10u		/* to have all in memory that is shared for good */

static struct {
	_Atomic uint32_t n;
} __attribute__((__aligned__(64))) inside[SLOTS];

static _Atomic bool enabled;
static bool hand;
static _Atomic bool may_share;
static _Atomic uint64_t longest;
static _Atomic bool closed;		/* a fork is being made: only one at a time */

/* Guarded by `closed': whoever closed it, and in the child, where there is nobody else. */
static struct {
	int memory, swap;		/* the child's files; -1: none */
	int answer[2];			/* a pipe from child to parent */
	_Atomic bool child;		/* we are that, and whole but for threads */
	uint64_t budget;		/* what it is, or is to be with threads */
	bool share;			/* this fork shares frames */
	uint64_t began;			/* when other threads were kept out */
	sys_sigset_t mask;		/* the forking thread's */
} f;

/*
 * Is this the parent?  A page of its own that the kernel makes anew for a child.  A process id would not do: in
 * namespaces of their own parent and child can both be number 1.
 */
static _Atomic bool *parent;

/* What is mapped by others, in the order of addresses.  Guarded by spare_lock, which is held over a fork. */
static struct {
	vm_offset_t start, end;
} spare[SPARES];
static uint32_t nspare;
static _Atomic bool spare_lock;

/* This thread is the one that forks. */
static __thread bool mine __attribute__((__tls_model__("initial-exec")));

/*
 * Who is inside
 */

static _Atomic uint32_t *
counter(void)
{
	/* Each thread has its own TLS, some pages from the next one's. */
	return &inside[((uintptr_t)&mine >> 12) * 0x9e3779b1u >> 16 & (SLOTS - 1)].n;
}

void
fork_enter(void)
{
	_Atomic uint32_t *n = counter();

	if (!atomic_load_explicit(&enabled, memory_order_relaxed))
		return;
	if (mine) {
		/* The library is ours; but are we still who we were? */
		if (!atomic_load(parent))
			fork_child();
		return;
	}
	for (;;) {
		uint32_t ticket;

		atomic_fetch_add(n, 1);
		/* Pagers' threads may be what somebody inside waits for. */
		if (!atomic_load(&closed) || user_pager_is_thread())
			return;
		atomic_fetch_sub(n, 1);
		event_wake(&inside);
		ticket = event_prepare(&closed);
		if (atomic_load(&closed))
			(void)event_wait(&closed, ticket, EVENT_FOREVER);
	}
}

void
fork_leave(void)
{
	if (mine || !atomic_load_explicit(&enabled, memory_order_relaxed))
		return;
	atomic_fetch_sub(counter(), 1);
	if (atomic_load(&closed))
		event_wake(&inside);
}

static bool
is_empty(void)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		if (atomic_load(&inside[i].n) != 0)
			return false;
	return true;
}

/* The library for ourselves, at rest. */
static void
close_library(void)
{
	while (atomic_exchange(&closed, true)) {
		uint32_t ticket = event_prepare(&closed);

		if (atomic_load(&closed))
			(void)event_wait(&closed, ticket, EVENT_FOREVER);
	}
	mine = true;
	for (;;) {
		uint32_t ticket = event_prepare(&inside);

		if (is_empty())
			break;
		(void)event_wait(&inside, ticket, LOOK_NS);
	}
	alone_settle();
	PROBE("fork: the library is empty");
	vm_pageout_hold();
	/* It is the daemon who opens them. */
	vm_pin_close();
	io_drain();
	pmap_hold();
	vm_view_hold();
	vm_homecoming_hold(true);
}

static void
open_library(void)
{
	mine = false;
	atomic_store(&closed, false);
	event_wake(&closed);
}

/*
 * The parent
 */

/* Do it with each map, by number; they cannot change. */
#define FOREACH_MAP(map, i) \
	for (uint32_t i = 0; ((map) = task_nth(i)) != NULL; i++, task_put(map))

/* What is in private views is in no frame. */
static int
settle_views(void)
{
	enum kern_return result = KERN_SUCCESS;
	struct vm_map *map;

	FOREACH_MAP(map, i) {
		krwlock_read(&map->lock);
		if (result == KERN_SUCCESS)
			result = vm_view_settle(map, map->base, map->end);
		krwlock_read_unlock(&map->lock);
	}
	return result == KERN_SUCCESS ? 0 : -ENOMEM;
}

static void
take_rights(void)
{
	struct vm_map *map;

	FOREACH_MAP(map, i)
		pmap_protect(map->pmap, map->base, map->end, VM_PROT_READ | VM_PROT_EXECUTE,
		    PMAP_KEEP_WIRED | PMAP_KEEP_VIEWS | PMAP_CUT);
}

static void
lock_spares(void)
{
	while (atomic_exchange(&spare_lock, true))
		sys_yield();
}

bool
fork_spare(uintptr_t s, uintptr_t e, bool on)
{
	uint32_t n = 0, k = 0;
	sys_sigset_t mask;
	bool room;

	sys_block(&mask);
	lock_spares();
	/* What it is on top of goes, cut to what is beside it; a piece that is cut in two becomes two. */
	for (uint32_t i = 0; i < nspare; i++)
		n += (uint32_t)(spare[i].start < s) + (uint32_t)(spare[i].end > e);
	room = n + on <= SPARES;
	if (room) {
		__typeof__(spare[0]) old[SPARES], piece;
		uint32_t nold = nspare;

		memcpy(old, spare, sizeof(old));
		for (uint32_t i = 0; i < nold; i++) {
			piece = old[i];
			if (piece.start < s) {
				spare[k] = piece;
				spare[k++].end = MIN(piece.end, s);
			}
			if (piece.end > e) {
				spare[k] = piece;
				spare[k++].start = MAX(piece.start, e);
			}
		}
		nspare = k;
		for (k = nspare; on && k > 0 && spare[k - 1].start > s; k--)
			spare[k] = spare[k - 1];
		if (on) {
			spare[k].start = s;
			spare[k].end = e;
			nspare++;
		}
	}
	atomic_store(&spare_lock, false);
	sys_setmask(&mask);
	return room;
}

/* The first part of [*s, end) that nobody else has mapped: from *s on, to the address returned.  *s == end: none */
static vm_offset_t
next_own(vm_offset_t *s, vm_offset_t end)
{
	for (uint32_t i = 0; i < nspare; i++) {
		if (spare[i].end <= *s || spare[i].start >= end)
			continue;
		if (spare[i].start > *s)
			return spare[i].start;
		*s = spare[i].end;
	}
	return end;
}

/* Whether the next child is to inherit the mappings of managed memory. */
static int
inherit(bool yes)
{
	struct vm_map *map;
	int error = 0;

	FOREACH_MAP(map, i) {
		for (vm_offset_t s = map->base, end; (end = next_own(&s, map->end)), s < end; s = end) {
			int e = sys_madvise((void *)s, end - s, yes ? MADV_DOFORK : MADV_DONTFORK);

			error = error != 0 ? error : e;
		}
	}
	return error;
}

static void
close_files(void)
{
	int *fd[] = { &f.memory, &f.swap, &f.answer[0], &f.answer[1] };

	for (unsigned i = 0; i < sizeof(fd) / sizeof(fd[0]); i++) {
		if (*fd[i] >= 0)
			(void)sys_close(*fd[i]);
		*fd[i] = -1;
	}
}

static void
reopen(void)
{
	vm_homecoming_hold(false);
	vm_view_go_on();
	pmap_go_on();
	vm_pageout_go_on();
	open_library();
}

static void
go_on(void)
{
	if (!f.share)
		(void)inherit(true);
	atomic_store(&spare_lock, false);
	reopen();
}

/*
 * Close it when all is in memory that the child shares for good: others may undo that until then.
 * => 0 or -errno, and not closed
 */
static int
close_with_shared(void)
{
	for (uint32_t tries = 0; tries < SHARED_TRIES; tries++) {
		uint64_t began;
		int error;

		fork_enter();
		error = fork_share_fetch();
		fork_leave();
		if (error != 0)
			return error;
		began = sys_clock();
		close_library();
		f.began = began;
		f.share = may_share && fork_can_share();
		error = fork_share_mark();
		/* A copy is no way to share. */
		if (error == 0 && !f.share && physmem_has_common())
			error = -ENOMEM;
		if (error == 0)
			return 0;
		reopen();
		if (error != -EAGAIN)
			return error;
	}
	return -EAGAIN;
}

int
fork_prepare(void)
{
	sys_sigset_t mask;
	int error;

	if (!atomic_load(&enabled))
		return 0;
	sys_block(&mask);
	error = close_with_shared();
	if (error != 0) {
		sys_setmask(&mask);
		return error;
	}
	f.mask = mask;
	atomic_store(parent, true);
	f.memory = f.swap = f.answer[0] = f.answer[1] = -1;
	if (!atomic_load(&f.child))
		f.budget = physmem_budget();
	lock_spares();
	error = sys_pipe(f.answer);
	if (error == 0)
		error = f.share ? fork_share_prepare(&f.memory) : settle_views();
	if (error == 0) {
		take_rights();
		if (f.share)
			fork_share_keep();
		else
			error = physmem_copy_all(&f.memory);
	}
	if (error == 0) {
		error = swap_copy_all(&f.swap);
		if (error == 0 && !f.share)
			error = inherit(false);
		if (error == 0)
			return 0;
		if (f.share)
			fork_share_parent(true);
	}
	close_files();
	go_on();
	sys_setmask(&mask);
	/* What fork() may say. */
	return error == -EMFILE || error == -ENFILE || error == -EAGAIN ? -EAGAIN : -ENOMEM;
}

/* Until the child does not need our memory any more, or is no more. */
static void
await_child(void)
{
	struct pollfd p = { .fd = f.answer[0], .events = POLLIN };

	(void)sys_close(f.answer[1]);
	f.answer[1] = -1;
	/* For ever: what we wrote before it has its own would be in its copy.  It may be stopped, in a debugger. */
	while (sys_poll(&p, 1, -1) == -EINTR)
		;
}

static void
took(uint64_t ns)
{
	vm_count(v_forks);
	vm_count_n(v_fork_ns, ns);
	/* One fork at a time. */
	if (ns > atomic_load_explicit(&longest, memory_order_relaxed))
		atomic_store_explicit(&longest, ns, memory_order_relaxed);
}

uint64_t
fork_longest(void)
{
	return atomic_load_explicit(&longest, memory_order_relaxed);
}

void
fork_parent(bool failed)
{
	sys_sigset_t mask;
	bool share;

	if (!mine)
		return;
	/* What is in f is the next one's once we go on. */
	mask = f.mask;
	share = f.share;
	if (!failed && (!share || fork_share_is_written()))
		await_child();
	if (share)
		fork_share_parent(failed);
	close_files();
	took(sys_clock() - f.began);
	go_on();
	sys_setmask(&mask);
	/* Somebody has to see when the child is gone. */
	if (share)
		vm_pageout_trim();
}

/*
 * The child
 */

_Noreturn static void
give_up(const char *why, int error)
{
	klog("a forked child cannot go on: %s: error %d", why, -error);
	for (;;)
		_exit(127);
}

/* Whoever waits, or holds, or is inside, has not come along. */
static void
forget_threads(void)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		atomic_store(&inside[i].n, 0);
	locks_forked();
	alone_forked();
	vm_pin_reset();
	park_forked();
	vm_pageout_forked();
	vm_view_forked();
	vm_homecoming_forked();
}

/* What could be written until the clone.  => the old frames are still to be had */
static void
copy_written(void)
{
	struct vm_map *map;
	pt_entry_t pte;

	FOREACH_MAP(map, i)
		for (vm_offset_t va = map->base; va < map->end && (va = pmap_next(map->pmap, va, &pte)) != 0;
		    va += PAGE_SIZE) {
			int error = pte & PTE_W ? physmem_copy_frame(f.memory, PTE_PFN(pte)) : 0;

			if (error != 0)
				give_up("memory cannot be copied", error);
		}
}

static void
reserve(struct vm_map *map)
{
	for (vm_offset_t s = map->base, end; (end = next_own(&s, map->end)), s < end; s = end) {
		void *p = sys_mmap((void *)s, end - s, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);

		if (sys_is_err(p))
			give_up("address space is refused", sys_err(p));
	}
}

/* They were other threads', or those of a call that this one will not come back to. */
static void
release_holds(struct vm_map *map)
{
	krwlock_write(&map->lock);
	vm_fault_release_holds(map);
	krwlock_write_unlock(&map->lock);
}

static void
copy_child(void)
{
	struct vm_map *map;
	int error;

	copy_written();
	window_forked();
	error = physmem_forked(f.memory);
	if (error != 0)
		give_up("there is no window onto its frames", error);
	/* But for what is wired. */
	FOREACH_MAP(map, i) {
		error = pmap_forked(map->pmap);
		if (error != 0)
			give_up("wired memory cannot be mapped", error);
	}
}

static void
share_child(void)
{
	int error;

	window_forked();
	error = fork_share_child(f.memory);
	if (error != 0)
		give_up("it cannot have frames of its own", error);
}

void
fork_child(void)
{
	sys_sigset_t mask = f.mask;
	struct vm_map *map;

	if (!mine || atomic_load(parent))
		return;
	atomic_store(parent, true);
	/* First, lest the kernel put something else there. */
	if (!f.share)
		FOREACH_MAP(map, i)
			reserve(map);
	forget_threads();
	FOREACH_MAP(map, i)
		release_holds(map);
	/* Nobody can page out for us until we have threads. */
	physmem_set_budget(UINT32_MAX);
	if (f.share)
		share_child();
	else
		copy_child();
	swap_forked_copy(f.swap);
	pmap_views_forked(true);
	vm_publish_forked();
	vm_meter_reset();
	atomic_store(&longest, 0);
	(void)sys_write(f.answer[1], TOLD, 1);
	f.memory = f.swap = -1;
	close_files();
	atomic_store(&f.child, true);
	atomic_store(&spare_lock, false);
	open_library();
	sys_setmask(&mask);
}

bool
fork_child_threads(void)
{
	int error;

	if (!atomic_exchange(&f.child, false))
		return false;
	error = io_restart();
	if (error == 0)
		error = pmap_start();
	if (error == 0)
		error = vm_homecoming_start();
	if (error == 0)
		error = vm_view_start();
	if (error == 0)
		error = vm_pageout_start(f.budget);
	if (error != 0)
		give_up("there are no threads for it", error);
	physmem_set_budget(f.budget);
	fork_enter();
	fork_share_none();
	fork_leave();
	return true;
}

int
fork_enable(bool by_hand, bool share)
{
	int error;

	if (parent == NULL) {
		void *p = sys_mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (sys_is_err(p))
			return sys_err(p);
		error = sys_madvise(p, PAGE_SIZE, MADV_WIPEONFORK);
		if (error != 0)
			return error;
		parent = p;
	}
	hand = by_hand;
	may_share = share;
	atomic_store(&enabled, true);
	return 0;
}

void
fork_copy_only(void)
{
	atomic_store(&may_share, false);
}

bool
fork_by_hand(void)
{
	return hand;
}
