/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PAGER_IO_H
#define PAGER_IO_H

/*
 * Transfers between files and frames, for the pagers that keep pages in files.
 *
 * A transfer moves `len' bytes between the file and the frames of n pages, which are consecutive in
 * the file but need not be so in the memfd.  It goes straight into and out of the frames.
 *
 * io_run() does it in the calling thread, by preadv and pwritev: one thread that waits for one page
 * loses nothing by that.  io_start() returns at once: io_uring carries it where the kernel allows it, and a
 * few threads with the same preadv and pwritev where it does not.  What was started ends by done(), on
 * a thread of this file's, with no lock held.
 *
 * Short counts and EINTR are taken care of: a result that is neither an error nor len means that
 * the file has ended.  Where an error follows upon bytes that were moved the result is the error, and
 * `moved' says how many bytes these were, from the first.
 *
 * Frames are not registered with the kernel (IORING_REGISTER_BUFFERS).  That pins them: a frame that is
 * punched out of the memfd while it is pinned leaves the memfd but stays in the registration, and a
 * transfer to the new frame at its offset would go to the old one.  Besides it would make the sparse
 * memfd resident, and count against RLIMIT_MEMLOCK.  What is registered is the ring's own descriptor.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "kern/types.h"

struct vm_page;

enum io_engine {
	IO_ENGINE_AUTO,		/* io_uring if the kernel lets us, else system calls */
	IO_ENGINE_URING,	/* io_init() fails without it */
	IO_ENGINE_SYSCALLS
};

enum io_op {
	IO_READ,		/* from the file to the frames */
	IO_WRITE,
	IO_PUNCH,		/* make [offset, offset + len) of the file a hole; no frames */
	IO_FLUSH		/* begin to write it from the page cache to the disk; no frames, and no error */
};

static inline bool
io_has_frames(enum io_op op)
{
	return op == IO_READ || op == IO_WRITE;
}

struct io {
	int fd;
	enum io_op op;
	uint64_t offset;		/* in the file, bytes */
	size_t len;			/* bytes, not 0; the last page may be used in part */
	struct vm_page **m;		/* the pages, busy; stays the caller's, and valid until the end */
	uint32_t n;
	int64_t result;			/* len; less: the end of the file; or -errno */
	size_t moved;			/* bytes, whatever the result */
	void (*done)(struct io *);	/* io_start() only; the transfer is the caller's again */
	STAILQ_ENTRY(io) link;		/* the engine's */
};

int io_init(enum io_engine);		/* 0 or -errno */
void io_fini(void);			/* => nothing is under way */
void io_forked(void);			/* in a forked child, which has none of it */
int io_restart(void);			/* ... until it has an engine again; 0 or -errno */
bool io_is_uring(void);

/* The result.  => no lock held; EAGAIN and ENOMEM may pass */
int64_t io_run(struct io *);
/* => locks of a lower rank than RANK_IO may be held */
void io_start(struct io *);
void io_drain(void);			/* wait for all that was started.  => nobody starts more */

#endif
