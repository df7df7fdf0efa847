/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SHIM_H
#define SHIM_H

/*
 * What the parts of the shim know of one another.
 *
 *	malloc.c	the malloc family: jemalloc, whose memory comes from heap.c
 *	heap.c		memory for jemalloc, watched or not
 *	libcs.c		what libc allocates for itself
 *	mmap.c		the program's calls about memory
 *	credentials.c	whose threads the library's are, when the program changes its user
 *	descriptors.c	the library's descriptors, which the program does not see
 *	dlopen.c	no object looks past us
 *	shim.c		first use, what this process is to be, what is managed
 *	fork.c		fork
 *	calls.c		what the gates ask
 *	confine.c	filters for system calls
 *	limits.c	limits that the program puts on itself
 *	threads.c	the last one that leaves
 *	stacks.c	threads whose stack is managed
 *	robust.c	locks whose owners end
 *	raw.c		signal actions past the gates
 *	chaos.c		for tests: takes pages away at random
 *	gate*.c, signals.c	system calls and signals meet managed memory
 *	config.c, stats.c	what the user wants, and gets to see
 *
 * WATCHED or not.  Memory is the library's where there is a limit (or VMFAULT_CHAOS), or fork() is to be fast,
 * which it can only be with frames that parent and child share.  Else it is the kernel's own, there is no gate, no signal
 * handler, and fork() copies it as ever.
 *
 * AT REST.  Memory that is watched and that nobody bounds costs next to nothing: a fresh leaf is entered whole, at its
 * first touch, and filled with zeros by the kernel page by page (lib/vm_cluster.c); what jemalloc gives up keeps its
 * place (lib/vm_advise.c); and as long as there was no fork nothing is ever taken away, so that a system call's buffers
 * need but a note (lib/vm_pin.c).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"

#define SHIM_API __attribute__((__visibility__("default")))

extern struct shim_config shim_config;	/* constant once the shim has started */

/*
 * COLD: nothing has been done.  STARTING: one thread is at it; what it allocates meanwhile is from boot
 * memory, which is never freed.  READY: for ever; but a child of fork() goes back to STARTING, until the
 * library has its threads again.  PASSING, for ever: malloc() is somebody else's.
 */
enum shim_state { SHIM_COLD, SHIM_STARTING, SHIM_READY, SHIM_PASSING };
extern _Atomic int shim_state;

/* Start, if that has not been done, and wait for it.  Not for the thread that is at it. */
void shim_start(void);
/* The calling thread, alone in a forked child, makes threads anew; or has. */
void shim_restart(bool done);

bool shim_watched(void);		/* => started */
/* There is managed memory. */
bool shim_active(void);

/* The managed range; 0, 0: there is none.  Constant once the shim has started. */
extern uintptr_t shim_lo, shim_hi;

/* Does any of the n bytes lie in the managed range?  A test of addresses: there may be nothing. */
static inline bool
shim_managed(const void *p, size_t n)
{
	uintptr_t a = (uintptr_t)p;

	return a < shim_hi && n != 0 && (n > shim_lo || a > shim_lo - n);
}

/* One line on standard error, "vmfault: " before it, unless the user wants none. */
void shim_say(const char *why, const char *more);
/* This program is not managed, for that reason; if that must not be, it ends. */
void shim_refuse(const char *why, const char *more);

/* malloc.c: find whom to pass calls on to.  => starting */
void malloc_find_next(void);

/*
 * libcs.c: what libc allocates for itself is apart, where its system calls are not seen.
 * => libcs_alloc(): old is a block of jemalloc's, or null
 */
extern bool libcs_apart;
void libcs_start(void);
bool libcs_caller(const void *pc);
void *libcs_alloc(void *old, size_t size, bool zero);

/* dlopen.c: before any other constructor. */
void dlopen_find_next(void);

/* heap.c: what jemalloc calls for mmap(2) and the like; the results are theirs. */
void *heap_mmap(void *addr, size_t size, int prot, int flags, int fd, long offset);
int heap_munmap(void *addr, size_t size);
int heap_mprotect(void *addr, size_t size, int prot);
int heap_madvise(void *addr, size_t size, int advice);
void *heap_sbrk(intptr_t by);
/* madvise(2) of watched memory. */
int heap_advise(void *addr, size_t size, int advice);

/* calls.c: the gates.  *patched: clones come through them.  0 or -errno */
int calls_start(bool *patched);

/* credentials.c, descriptors.c and mmap.c: calls that come through the gate.  false: they are the kernel's */
struct gate_call;
void descriptors_start(void);
bool credentials_call(struct gate_call *);
bool descriptors_call(struct gate_call *);
bool mmap_call(struct gate_call *);

/* limits.c: likewise; and around an exec, a fork, that the kernel makes */
bool limits_call(struct gate_call *);
void limits_exec(bool begin);
void limits_fork(bool begin);

/* confine.c: prctl(2) and seccomp(2), before the kernel makes them */
void confine_call(const struct gate_call *);
extern _Atomic bool shim_confined;	/* no more memory becomes managed, nor is any given back */

/* stacks.c: a thread is about to be made, by this call */
void stacks_thread(const struct gate_call *);

/* robust.c: the calling thread is about to end, and may hold robust mutexes */
void robust_leaves(void);

/* threads.c: the calling thread is about to end; if it is the last, so does the process */
void thread_leaves(int status);
void threads_start(void);
void threads_forked(void);		/* in a child: who held the lock has not come along */

/* fork.c */
void fork_start(void);			/* before the library starts ... */
bool fork_is_libcs(void);		/* this thread is in fork(), which will call our handlers */
void fork_raw_child(void);		/* in the child of another clone: make threads here and now */
int fork_started(bool by_gate);	/* ... and after; by_gate: the gate sees each clone */

/* chaos.c: 0 or -errno */
int chaos_start(void);

#endif
