/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Do the descendants of a fork still live, and see our memory?
 *
 * Frames that were frozen for a child (physmem_freeze.c) have to stay so until the child, and whoever it forked
 * in turn, have ended or called exec.  wait() does not tell of grandchildren, nor of exec; a pipe that
 * all of them hold would, but a program may close every descriptor that it finds, and then memory would be written that
 * it still reads.  A mapping it does not lose that way.  So each child inherits a TOKEN: a page of a memfd,
 * mapped shared and writable, that nobody ever touches.  The kernel counts such mappings, and refuses to seal a memfd
 * against writing while there is one:
 *
 *	parent		memfd_create, mmap(MAP_SHARED)
 *			fork ----------------------->	child has the mapping; so has who it forks
 *			munmap
 *			fcntl(F_ADD_SEALS, F_SEAL_WRITE)
 *				EBUSY: somebody lives
 *				0: nobody does
 *
 * It takes asking: the pageout daemon does, soon after a fork and then more and more seldom.
 *
 * There are only so many freezes.  When all are taken the child joins the last one, and its token.
 */

#include "fork_live.h"

#include <errno.h>
#include <sys/mman.h>

#include "kern/arena.h"
#include "kern/assert.h"
#include "kern/event.h"
#include "kern/sys.h"
#include "kern/types.h"
#include "physmem.h"
#include "vm_object.h"
#include "vm_view.h"

#define SOON_NS		((int64_t)2 * 1000 * 1000)
#define SELDOM_NS	((int64_t)200 * 1000 * 1000)

static struct {
	struct generation {
		uint32_t freeze;
		int token;		/* a memfd */
	} gen[PHYSMEM_FREEZES];		/* oldest first */
	uint32_t n;
	void *mapping;			/* of the newest one's token, while a fork is being made, and until the
					   kernel has taken it back; else null */
	bool joined;			/* the newest one had children before */
	int64_t pause;
} live;

static int
map_token(int fd)
{
	void *p = sys_mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (sys_is_err(p))
		return sys_err(p);
	live.mapping = p;
	return 0;
}

/* As long as it is there we are one of our own children. */
static int
unmap_token(void)
{
	int error = live.mapping != NULL ? sys_munmap(live.mapping, PAGE_SIZE) : 0;

	if (error == 0)
		live.mapping = NULL;
	return error;
}

static int
make_token(struct generation *g)
{
	int error;

	*g = (struct generation){ .token = sys_memfd("vmfault-fork") };
	if (g->token < 0)
		return g->token;
	error = sys_ftruncate(g->token, PAGE_SIZE);
	if (error == 0)
		error = map_token(g->token);
	if (error != 0)
		(void)sys_close(g->token);
	return error;
}

int
fork_live_begin(void)
{
	struct generation *g;
	int error;

	error = unmap_token();
	if (error != 0)
		return error;
	live.joined = live.n == PHYSMEM_FREEZES;
	g = &live.gen[live.joined ? live.n - 1 : live.n];
	error = live.joined ? map_token(g->token) : make_token(g);
	if (error != 0)
		return error;
	error = physmem_freeze(&g->freeze);
	live.n += !live.joined;
	if (error != 0) {
		live.n -= !live.joined;
		(void)unmap_token();
		if (!live.joined)
			(void)sys_close(g->token);
	}
	return error;
}

void
fork_live_parent(bool failed)
{
	(void)unmap_token();
	physmem_freeze_end();
	if (failed && !live.joined) {
		physmem_thaw(live.gen[--live.n].freeze);
		(void)sys_close(live.gen[live.n].token);
	}
	live.pause = SOON_NS;
}

void
fork_live_forget(void)
{
	/* Those are the parent's to look after; the mappings stay, for they speak for us. */
	live.mapping = NULL;
	arena_mend(false);
	while (live.n > 0)
		(void)sys_close(live.gen[--live.n].token);
}

int64_t
fork_live_tend(void)
{
	uint32_t n = 0;

	(void)unmap_token();
	for (uint32_t i = 0; i < live.n; i++) {
		if (sys_seal_write(live.gen[i].token) == 0) {
			(void)sys_close(live.gen[i].token);
			physmem_thaw(live.gen[i].freeze);
		} else {
			live.gen[n++] = live.gen[i];
		}
	}
	if (n != live.n)
		vm_view_thawed();
	if (n == 0 && live.n != 0) {
		vm_homecoming_thawed();
		arena_mend(true);
	}
	live.n = n;
	if (n == 0)
		return arena_tend();
	live.pause = MIN(2 * live.pause, SELDOM_NS);
	return live.pause / 2;
}
