/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PAGER_IO_IMPL_H
#define PAGER_IO_IMPL_H

/*
 * What io.c lends to its two engines: the queue of what was started, and transfers taken apart into
 * steps, each of which is one system call.
 */

#include "io.h"
#include "kern/sys.h"
#include "machdep.h"

struct io_engine_ops {
	int (*init)(void);		/* 0 or -errno */
	void (*fini)(void);		/* => the queue is empty and stays so */
	void (*forked)(void);
	void (*kick)(void);		/* the queue is not empty any more, or io_stopping() */
};

extern const struct io_engine_ops io_uring_engine, io_threads_engine;

struct io *io_queue_take(void);		/* null: empty */
void io_end(struct io *);		/* it is made: done() */
bool io_stopping(void);			/* what is still queued is to be done first */

/* One system call's worth of a transfer. */
struct io_step {
	struct window_view view;
	struct iovec iov[MACHDEP_VIEW_PAGES];
	uint32_t niov;
	uint64_t offset;		/* in the file */
	size_t len;			/* IO_PUNCH only */
};

/*
 *	do {
 *		r = io_step_open(io, &step);
 *		if (r == 0) {
 *			r = system call
 *			io_step_close(io, &step);
 *		}
 *	} while (!io_step_ended(io, r));
 */
int io_step_open(struct io *, struct io_step *);	/* 0 or -errno */
void io_step_close(struct io *, struct io_step *);
bool io_step_ended(struct io *, int64_t r);		/* true: io->result stands */

#endif
