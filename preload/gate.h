/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GATE_H
#define GATE_H

/*
 * The system-call gate.
 *
 * A system call that meets a page of managed memory that is not mapped at that moment raises no
 * signal: it returns EFAULT, or a short count, or loses a datagram.  So every call of the program's
 * passes here first.  What it will read or write is looked up in a table (gate_table.c), the pieces that
 * are managed are pinned, the call is made, the pieces are let go.
 *
 *	the call's arguments		what happens				cost
 *	no pointers			straight on				a few ns
 *	none of the pointers managed	straight on, no stack used		10 ns
 *	managed				pin, call, unpin			+ the pins
 *	signals, exec, exit		gate_exec.c, signals*.c
 *
 * How calls get here:
 *
 *	GATE_PATCH	the `syscall` instructions of libc and ld.so are rewritten (arch/x86_64/patch.c), for
 *			stdio, posix_spawn and thread exit call the kernel by no name that could be interposed
 *	GATE_PLT	only wrappers of libc's functions (gate_plt.c): all there is on i386, and on
 *			a libc in which no known site is found
 *
 * In the gate nothing is allocated from libc, no libc lock is taken, errno is not touched.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A system call on its way. */
struct gate_call {
	long nr;
	long arg[6];
	long result;		/* what the kernel would return: -errno where it failed */
	uintptr_t sp;		/* the caller's stack pointer: tells live records from dead ones */
};

/* A piece of managed memory that the kernel is about to use. */
struct gate_pin {
	void *addr;
	size_t size;
	uintptr_t cookie;	/* pin()'s own */
	bool write;		/* the kernel will write it */
};

/* What the gate asks of the rest.  All of it is called with no lock held, in any thread, also in handlers. */
struct gate_ops {
	/* Does a byte of [p, p + n) belong to managed memory?  Addresses only: cheap, no lock. */
	bool (*managed)(const void *p, size_t n);
	/*
	 * Make the piece accessible, and keep it so until unpin().  Pins nest.  0, or -EFAULT, -EACCES,
	 * -EIO, -ENXIO where a touch would raise a signal, or -ENOMEM.
	 */
	int (*pin)(struct gate_pin *);
	void (*unpin)(struct gate_pin *);
	/*
	 * Calls that concern the shim: memory, descriptors, fork (GATE_HOOK in the table).  true: it
	 * was done, call->result is the answer.  May be null.
	 */
	bool (*hook)(struct gate_call *);
	/* A program is about to be run in this one's place (true), or was not (false).  May be null. */
	void (*exec)(bool begin);
	/* A thread is about to be made, by this call, which the gate leaves alone.  May be null. */
	void (*thread)(const struct gate_call *);
	/* Is the calling thread none of the program's, with SIGSEGV and SIGBUS blocked in the kernel?  May be null. */
	bool (*deaf)(void);
	/* At most so many bytes are pinned for one transfer; longer ones are made in several.  0: any. */
	size_t pin_max;
	/* The kernel's actions for SIGSEGV and SIGBUS are those of the fault handler: see signals.h. */
};

enum gate_mode {
	GATE_AUTO,		/* GATE_PATCH where it can be done, else GATE_PLT */
	GATE_PATCH,
	GATE_PLT
};

struct gate_info {
	enum gate_mode mode;	/* the one in use: GATE_PATCH or GATE_PLT */
	unsigned jumps, traps;	/* sites rewritten with a jump; with hlt */
};

/*
 * Install the gate, once, while the process has one thread.  *ops is copied.  0, or
 * -ENOTSUP	GATE_PATCH: not this libc, not this machine
 * -EACCES	GATE_PATCH: the kernel does not let us write to libc's text
 * With GATE_AUTO these make it GATE_PLT; then *info says so.  info may be null.
 */
int gate_install(const struct gate_ops *ops, enum gate_mode, struct gate_info *info);

/*
 * For the SIGSEGV handler: is this trap one of our hlt?  Then *context (a ucontext_t *) goes on in the gate, and
 * the handler must return to it at once.
 */
bool gate_trap(void *context);

/* The calling thread is going away without an exit of its own (longjmp into nowhere): let its pins go. */
void gate_thread_drop(void);

#endif
