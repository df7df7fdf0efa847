/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The io_uring engine: one ring, and one thread that owns it.
 *
 * All of liburing is called by that thread, so the ring needs no lock and may be told so
 * (SINGLE_ISSUER, DEFER_TASKRUN, where the kernel knows them).  Its loop:
 *
 *	take what is queued, as long as a flight is free
 *	submit all of it, and wait for a completion: one system call
 *	land what has come down
 *
 * A flight is a transfer in the ring.  A read of an eventfd is always in the ring as well: its completion
 * is how others wake the thread.  The counter of the eventfd remembers wakes that come
 * while the read is not armed, so none is lost.
 *
 * The probe is the real thing: set up, submit and wait, in the thread itself.  Sandboxes forbid the first
 * (EPERM, ENOSYS), or only the second.
 */

#include <errno.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "io_impl.h"
#include "kern/alone.h"
#include "kern/assert.h"
#include "kern/event.h"

#define FLIGHTS		MIN(64u, MACHDEP_VIEWS / 3 * 2)	/* leave some views for io_run() */
#define PAUSE_NS	1000000		/* when the kernel is short of memory */

struct flight {
	struct io *io;			/* null: free */
	struct io_step step;
	int injected;			/* tests: what the kernel is to answer */
};

static struct {
	struct io_uring ring;
	pthread_t thread;
	int wake_fd;
	bool wake_armed;
	uint64_t wake_count;		/* where the eventfd is read to */
	uint32_t nflights;		/* not free */
	struct flight flight[64];
	_Atomic uint32_t ready;		/* set_up() has been tried ... */
	int error;			/* ... and this came of it */
} u;

/* => room in the submission queue: it is twice as long as there are flights */
static struct io_uring_sqe *
get_sqe(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u.ring);

	KASSERT_ALWAYS(sqe != NULL);
	return sqe;
}

/* Submit, and wait until something has completed; or not, where the kernel is short of memory. */
static int
submit_and_wait(void)
{
	int r = io_uring_submit_and_wait(&u.ring, 1);
	uint32_t ticket;

	if (r >= 0 || r == -EINTR)
		return 0;
	if (r != -EAGAIN && r != -EBUSY && r != -ENOMEM)
		return r;
	ticket = event_prepare(&u);
	(void)event_wait(&u, ticket, PAUSE_NS);
	return 0;
}

static int
set_up(void)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_CLAMP | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
	};
	int error = sys_injected(SYS_CALL_URING_SETUP);

	if (error >= 0)
		error = io_uring_queue_init_params(2 * FLIGHTS, &u.ring, &p);
	if (error == -EINVAL) {
		memset(&p, 0, sizeof(p));
		p.flags = IORING_SETUP_CLAMP;
		error = io_uring_queue_init_params(2 * FLIGHTS, &u.ring, &p);
	}
	if (error != 0)
		return error;
	if ((p.features & IORING_FEAT_NODROP) == 0)
		error = -ENOSYS;
	if (error == 0)
		error = io_uring_ring_dontfork(&u.ring);
	if (error == 0) {
		struct io_uring_cqe *cqe;

		io_uring_prep_nop(get_sqe());
		error = io_uring_submit_and_wait(&u.ring, 1);
		if (error >= 0)
			error = io_uring_peek_cqe(&u.ring, &cqe);
		if (error == 0)
			io_uring_cqe_seen(&u.ring, cqe);
	}
	if (error != 0) {
		io_uring_queue_exit(&u.ring);
		return error;
	}
	u.ring.ring_fd = u.ring.enter_ring_fd = sys_own(u.ring.ring_fd);
	(void)io_uring_register_ring_fd(&u.ring);	/* saves a little; not all kernels can */
	return 0;
}

/* Give the next step of a flight to the kernel.  false: the transfer has ended. */
static bool
take_off(struct flight *f)
{
	static const enum sys_call call[] = {
		[IO_READ] = SYS_CALL_PREADV, [IO_WRITE] = SYS_CALL_PWRITEV, [IO_PUNCH] = SYS_CALL_FALLOCATE
	};
	struct io *x = f->io;
	struct io_uring_sqe *sqe;
	int r;

	while ((r = io_step_open(x, &f->step)) != 0)
		if (io_step_ended(x, r))
			return false;
	sqe = get_sqe();
	f->injected = x->op == IO_FLUSH ? 0 : sys_injected(call[x->op]);
	if (f->injected < 0) {
		io_uring_prep_nop(sqe);
	} else if (x->op == IO_PUNCH) {
		io_uring_prep_fallocate(sqe, x->fd,
		    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)f->step.offset,
		    (off_t)f->step.len);
	} else if (x->op == IO_FLUSH) {
		io_uring_prep_sync_file_range(sqe, x->fd, (unsigned)f->step.len, f->step.offset,
		    SYNC_FILE_RANGE_WRITE);
	} else {
		if (f->injected > 0) {
			f->step.iov[0].iov_len = MIN(f->step.iov[0].iov_len, (size_t)f->injected);
			f->step.niov = 1;
		}
		if (x->op == IO_READ)
			io_uring_prep_readv(sqe, x->fd, f->step.iov, f->step.niov, f->step.offset);
		else
			io_uring_prep_writev(sqe, x->fd, f->step.iov, f->step.niov, f->step.offset);
	}
	io_uring_sqe_set_data(sqe, f);		/* last: preparing clears it */
	return true;
}

/* The transfer of a flight has ended. */
static void
arrive(struct flight *f)
{
	struct io *x = f->io;

	f->io = NULL;
	u.nflights--;
	io_end(x);
}

static void
land(struct flight *f, int r)
{
	io_step_close(f->io, &f->step);
	if (io_step_ended(f->io, f->injected < 0 ? f->injected : r) || !take_off(f))
		arrive(f);
}

static void
take_queued(void)
{
	struct flight *f = u.flight;
	struct io *x;

	while (u.nflights < FLIGHTS && (x = io_queue_take()) != NULL) {
		while (f->io != NULL)
			f++;
		f->io = x;
		u.nflights++;
		if (!take_off(f)) {
			arrive(f);
			f = u.flight;
		}
	}
}

static void
reap(void)
{
	struct io_uring_cqe *cqe;

	/* One by one: done() may take a while, and the kernel can use the room. */
	while (io_uring_peek_cqe(&u.ring, &cqe) == 0) {
		struct flight *f = io_uring_cqe_get_data(cqe);
		int r = cqe->res;

		io_uring_cqe_seen(&u.ring, cqe);
		if (f != NULL)
			land(f, r);
		else
			u.wake_armed = false;
	}
}

static void *
run(void *arg)
{
	bool stop = false;
	int error;

	(void)arg;
	u.error = set_up();
	atomic_store(&u.ready, 1);
	event_wake(&u.ready);
	if (u.error != 0)
		return NULL;
	while (!stop) {
		take_queued();
		if (!u.wake_armed) {
			struct io_uring_sqe *sqe = get_sqe();

			io_uring_prep_read(sqe, u.wake_fd, &u.wake_count, sizeof(u.wake_count), 0);
			io_uring_sqe_set_data(sqe, NULL);
			u.wake_armed = true;
		}
		error = submit_and_wait();
		if (error != 0)
			kpanic("io_uring_enter: error %d", -error);
		reap();
		stop = io_stopping();
	}
	KASSERT(u.nflights == 0);
	io_uring_queue_exit(&u.ring);
	return NULL;
}

static void
kick(void)
{
	static const uint64_t one = 1;

	(void)sys_write(u.wake_fd, &one, sizeof(one));
}

static void
fini(void)
{
	alone_join(u.thread);
	(void)sys_close(u.wake_fd);
}

static int
init(void)
{
	uint32_t ticket;
	int error;

	memset(&u, 0, sizeof(u));
	u.wake_fd = sys_eventfd();
	if (u.wake_fd < 0)
		return u.wake_fd;
	error = alone_thread(&u.thread, run);
	if (error == 0) {
		for (;;) {
			ticket = event_prepare(&u.ready);
			if (atomic_load(&u.ready) != 0)
				break;
			(void)event_wait(&u.ready, ticket, EVENT_FOREVER);
		}
		error = u.error;
		if (error != 0)
			alone_join(u.thread);
	}
	if (error != 0)
		(void)sys_close(u.wake_fd);
	return error;
}

/* The ring's memory has not come along. */
static void
forked(void)
{
	(void)sys_close(u.ring.ring_fd);
	(void)sys_close(u.wake_fd);
}

const struct io_engine_ops io_uring_engine = {
	.init = init,
	.fini = fini,
	.forked = forked,
	.kick = kick,
};
