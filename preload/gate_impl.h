/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GATE_IMPL_H
#define GATE_IMPL_H

/*
 * Between the files of the gate.
 *
 * Records.  The pins of a call are written down in thread-local storage, not on the stack, for a
 * call may never come back to where it was made: a handler longjmps out of it, or the thread is
 * cancelled in it.  A record says at which stack pointer its call was made; one that lies below the stack pointer
 * of a later call of the thread, on the same stack, belongs to a frame that is gone, and its pins are let go
 * then (gate_thread_tidy).  Calls nest (a handler's, on top of a call that it interrupted) as the
 * stack does, so the records are a stack, too; a handler that comes between two
 * instructions here leaves depth as it was.
 */

#include <sys/mman.h>
#include <sys/syscall.h>

#include "gate.h"
#include "gate_table.h"

#ifndef VMF_TLS
#define VMF_TLS __thread __attribute__((__tls_model__("initial-exec")))
#endif

#define GATE_FEW	6
#define GATE_DEPTH	8

struct gate_record {
	uintptr_t sp;			/* the caller's */
	struct gate_pin *pin;		/* few, or a mapping of cap of them */
	unsigned n, cap;
	bool starved;			/* a piece could not be pinned for want of frames */
	struct gate_pin few[GATE_FEW];
};

struct gate_thread {
	volatile unsigned depth;	/* records in use */
	void *bounce;			/* what an exec copied (gate_exec.c), or null */
	size_t bounce_size;
	struct gate_record record[GATE_DEPTH];
};

extern VMF_TLS struct gate_thread gate_thread;
extern struct gate_ops gate_ops;	/* as given to gate_install(); constant after it */

/* The kernel itself: no gate, no errno, no cancellation. */
long gate_raw(long nr, long a, long b, long c, long d, long e, long f);
#define GATE_RAW(nr, a, b, c, d, e, f)	gate_raw(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* mmap() of anonymous memory, where the call's number and its offset differ. */
#ifdef SYS_mmap2
#define GATE_MMAP	SYS_mmap2
#else
#define GATE_MMAP	SYS_mmap
#endif

static inline long
gate_make(const struct gate_call *call)
{
	return gate_raw(call->nr, call->arg[0], call->arg[1], call->arg[2], call->arg[3], call->arg[4],
	    call->arg[5]);
}

/* Memory of our own, in pages; null: there is none. */
static inline void *
gate_map(size_t n, int flags)
{
	long p = GATE_RAW(GATE_MMAP, 0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	return (unsigned long)p >= -4096ul ? NULL : (void *)p;
}

static inline void
gate_unmap(void *p, size_t n)
{
	(void)GATE_RAW(SYS_munmap, p, n, 0, 0, 0, 0);
}

/* Copy from or to memory of the program's, which may be anywhere.  => true: all of it was there. */
bool gate_copy(void *to, const void *from, size_t n);
/* For gate_trap(): is pc in the copy, where a fault is its answer? */
bool gate_copy_fault(void *context);

/* gate_call.c, where there is GATE_PATCH: what arch code calls, in this order. */
void gate_call_init(void);			/* once, before the first */
bool gate_wanted(const struct gate_call *);	/* false: no need of gate_run(), the call may be made as it is */
void gate_run(struct gate_call *);		/* make it; => call->result */
extern unsigned char gate_bare[GATE_NR];	/* 1: do not even ask gate_wanted() */

/* gate_pin.c */
struct gate_record *gate_record_open(uintptr_t sp);	/* null: too deep */
void gate_record_close(struct gate_record *);
void gate_thread_tidy(uintptr_t sp);
/* In a child that has memory of its own: what this thread holds, for calls that it is in the middle of, it has not. */
void gate_thread_forked(void);
/* Pin [p, p + n) as far as it goes.  => how far */
size_t gate_piece(struct gate_record *, const void *p, size_t n, bool write);
void gate_pieces(struct gate_record *, const struct gate_call *, const struct gate_desc *);

static inline bool
gate_is_managed(long p, size_t n)
{
	return gate_ops.managed((const void *)p, n);
}

/* gate_chunk.c: a transfer of more than pin_max.  => false: it is none; nothing was done */
bool gate_chunk(struct gate_call *, const struct gate_desc *);
/* gate_exec.c */
void gate_exec(struct gate_call *);
void gate_exec_forget(void);

/* arch: rewrite libc.  As gate_install(). */
int gate_patch(struct gate_info *);
bool gate_patch_trap(void *context);

#endif
