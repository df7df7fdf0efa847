/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Transfers: the choice of an engine, the queue, and the steps that both engines take.
 *
 *	io_start() --> queue --> an engine's thread: step, step, ... --> done()
 *	io_run()   ------------> the caller's:       step, step, ...
 *
 * Only threads of ours make what was started: the kernel ties a request to the thread that submitted
 * it, would cancel it when that thread exits, and interrupt that thread to complete it.  A
 * program's threads are not to be had for that.  The price is a wakeup for the first of a row of
 * transfers, which nobody waits for.
 */

#include "io.h"

#include <errno.h>
#include <stdatomic.h>

#include "io_impl.h"
#include "kern/assert.h"
#include "kern/event.h"
#include "kern/lock.h"
#include "kern/valgrind.h"
#include "vm_page.h"

static struct {
	struct kmutex lock;		/* RANK_IO; guards the queue and stop */
	STAILQ_HEAD(, io) queue;
	bool stop;
	_Atomic uint64_t pending;	/* started, and their done() has not returned */
	const struct io_engine_ops *engine;	/* constant after io_init() */
} io;

int
io_init(enum io_engine which)
{
	int error = 0;

	kmutex_init(&io.lock, RANK_IO);
	STAILQ_INIT(&io.queue);
	io.stop = false;
	if (which == IO_ENGINE_AUTO && valgrind_is_running())
		which = IO_ENGINE_SYSCALLS;
	if (which != IO_ENGINE_SYSCALLS) {
		io.engine = &io_uring_engine;
		error = io.engine->init();
	}
	if (which == IO_ENGINE_SYSCALLS || (which == IO_ENGINE_AUTO && error != 0)) {
		io.engine = &io_threads_engine;
		error = io.engine->init();
	}
	return error;
}

void
io_fini(void)
{
	kmutex_lock(&io.lock);
	KASSERT(STAILQ_EMPTY(&io.queue));
	io.stop = true;
	kmutex_unlock(&io.lock);
	io.engine->kick();
	io.engine->fini();
}

void
io_forked(void)
{
	io.engine->forked();
}

int
io_restart(void)
{
	bool uring = io_is_uring();

	io_forked();
	return io_init(uring ? IO_ENGINE_AUTO : IO_ENGINE_SYSCALLS);
}

void
io_end(struct io *x)
{
	x->done(x);
	if (atomic_fetch_sub(&io.pending, 1) == 1)
		event_wake(&io.pending);
}

void
io_drain(void)
{
	for (;;) {
		uint32_t ticket = event_prepare(&io.pending);

		if (atomic_load(&io.pending) == 0)
			return;
		(void)event_wait(&io.pending, ticket, EVENT_FOREVER);
	}
}

bool
io_is_uring(void)
{
	return io.engine == &io_uring_engine;
}

bool
io_stopping(void)
{
	bool stop;

	kmutex_lock(&io.lock);
	stop = io.stop;
	kmutex_unlock(&io.lock);
	return stop;
}

struct io *
io_queue_take(void)
{
	struct io *x;

	kmutex_lock(&io.lock);
	x = STAILQ_FIRST(&io.queue);
	if (x != NULL)
		STAILQ_REMOVE_HEAD(&io.queue, link);
	kmutex_unlock(&io.lock);
	return x;
}

void
io_start(struct io *x)
{
	bool first;

	KASSERT(x->len > 0 && x->done != NULL);
	KASSERT(!io_has_frames(x->op) || x->len <= (size_t)x->n << PAGE_SHIFT);
	x->moved = 0;
	atomic_fetch_add(&io.pending, 1);
	kmutex_lock(&io.lock);
	KASSERT(!io.stop);
	first = STAILQ_EMPTY(&io.queue);	/* else who was woken has yet to come */
	STAILQ_INSERT_TAIL(&io.queue, x, link);
	kmutex_unlock(&io.lock);
	if (first)
		io.engine->kick();
}

int64_t
io_run(struct io *x)
{
	struct io_step s;
	int64_t r;

	locks_assert_none();
	KASSERT(x->len > 0 && (!io_has_frames(x->op) || x->len <= (size_t)x->n << PAGE_SHIFT));
	x->moved = 0;
	do {
		r = io_step_open(x, &s);
		if (r != 0)
			continue;
		switch (x->op) {
		case IO_READ:
			r = sys_preadv(x->fd, s.iov, s.niov, s.offset);
			break;
		case IO_WRITE:
			r = sys_pwritev(x->fd, s.iov, s.niov, s.offset);
			break;
		case IO_PUNCH:
			r = sys_punch(x->fd, s.offset, s.len);
			break;
		case IO_FLUSH:
			r = sys_flush_begin(x->fd, s.offset, s.len);
			break;
		}
		io_step_close(x, &s);
	} while (!io_step_ended(x, r));
	return x->result;
}

/*
 * Steps.  What has been moved may end in the middle of a page: the next one begins there.
 */

int
io_step_open(struct io *x, struct io_step *s)
{
	uint32_t first = (uint32_t)(x->moved >> PAGE_SHIFT), n;
	size_t skip = x->moved & PAGE_MASK, len = x->len - x->moved, have = 0;
	vm_pfn_t pfn[MACHDEP_VIEW_PAGES];
	int pieces;

	s->offset = x->offset + x->moved;
	s->len = len;
	if (!io_has_frames(x->op))
		return 0;
	n = (uint32_t)MIN(round_page(skip + len) >> PAGE_SHIFT, (size_t)MACHDEP_VIEW_PAGES);
	KASSERT(first + n <= x->n);
	for (uint32_t i = 0; i < n; i++) {
		pfn[i] = x->m[first + i]->pfn;
		KASSERT(pfn[i] != 0);
	}
	pieces = window_view_open(&s->view, pfn, n, s->iov);
	if (pieces < 0)
		return pieces;
	s->niov = (uint32_t)pieces;
	s->iov[0].iov_base = (char *)s->iov[0].iov_base + skip;
	s->iov[0].iov_len -= skip;
	for (uint32_t i = 0; i < s->niov; i++) {
		s->iov[i].iov_len = MIN(s->iov[i].iov_len, len - have);
		have += s->iov[i].iov_len;
	}
	return 0;
}

void
io_step_close(struct io *x, struct io_step *s)
{
	if (io_has_frames(x->op))
		window_view_close(&s->view);
}

bool
io_step_ended(struct io *x, int64_t r)
{
	if (r == -EINTR)
		return false;
	if (x->op == IO_FLUSH || (x->op == IO_PUNCH && r == 0))
		r = (int64_t)(x->len - x->moved);
	if (r == 0 && x->op == IO_WRITE)
		r = -EIO;		/* it would never end */
	if (r > 0) {
		x->moved += (size_t)r;
		KASSERT(x->moved <= x->len);
		if (x->moved < x->len)
			return false;
	}
	x->result = r < 0 ? r : (int64_t)x->moved;
	return true;
}
