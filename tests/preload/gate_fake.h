/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GATE_FAKE_H
#define GATE_FAKE_H

/*
 * "Managed" memory without the library: an anonymous mapping whose pages are made inaccessible at will,
 * and come back by a fault handler or a pin.  What the gate is tested with.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_PAGE	4096u

struct fake_stats {
	_Atomic uint64_t evictions, faults, pins, pinned;	/* pinned: pages now */
};

extern struct fake_stats fake_stats;
extern char *fake_base;		/* of FAKE_SIZE bytes */
extern size_t fake_used;	/* bytes from the start that may be touched; a touch above is the program's fault */

#define FAKE_SIZE	((size_t)(sizeof(long) == 8 ? 2048 : 256) << 20)

struct gate_info;

/* Take SIGSEGV and SIGBUS and install the gate.  mode: enum gate_mode.  => as gate_install() */
int fake_start(int mode, size_t pin_max, struct gate_info *);
/* Memory that is managed, in whole pages.  Never given back. */
void *fake_pages(size_t n);
/* Make every page of the range that is not pinned inaccessible; with readable, only for writes.  => how many */
size_t fake_evict(void *, size_t n, bool readable);
/* Are all pages of it pinned? */
bool fake_pinned(const void *, size_t n);
/* Until a thread of this process sleeps in such a call, with this as its first argument. */
void fake_await_call(long nr, unsigned long arg);
/* Evict pages at random from a thread of its own, for ever, with a pause of some microseconds in between. */
void fake_evictor_start(unsigned pause_us);
void fake_forked(void);
/* Pretend to have no frames: pin() answers -ENOMEM so many times. */
extern _Atomic int fake_refuse;
/* Tell the gate that nothing is managed: programs must fail then, or the test is no test. */
extern bool fake_blind;

#endif
