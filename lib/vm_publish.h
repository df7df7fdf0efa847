/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_PUBLISH_H
#define VM_PUBLISH_H

/*
 * The statistics of a process, for others to read: see vmf_publish().
 *
 * They are in a memfd of this name, which whoever may read /proc/PID/fd finds there.  Nothing is in it
 * that costs the process anything as long as nobody looks: numbers are written when they are asked
 * for, by the pageout daemon, which otherwise sleeps on the very word that is rung to ask:
 *
 *	watcher					daemon
 *	a = ++bell; futex_wake(bell)		b = bell
 *						seq odd; numbers; seq even
 *	until answered is a or later:		answered = b; futex_wake(answered)
 *	    futex_wait(answered)		futex_wait(bell, b)
 *	numbers, again if seq was odd or changed
 *
 * A daemon that does not answer (the process is stopped, or the daemon at a pass over all pages) leaves
 * the numbers of last time, and `when' tells how old they are.
 *
 * This header is the format, too: `vmfault stat' includes it and nothing else from here.  A reader knows the
 * numbers by their names, so either side may be newer.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PUBLISH_NAME	"vmfault-stats"
#define PUBLISH_MAGIC	UINT32_C(0x53464d56)	/* "VMFS" */
#define PUBLISH_VERSION	1
#define PUBLISH_SIZE	8192			/* bytes of the memfd */
#define PUBLISH_NUMBERS	252			/* at most */

struct publish_page {
	uint32_t magic, version;
	uint32_t pid;			/* as the process itself sees it; a fork()ed child has the page of
					   its parent, and is told from it by this */
	uint32_t n;			/* numbers in use */
	_Atomic uint32_t bell;		/* rung by watchers, and to wake the daemon: a futex */
	_Atomic uint32_t answered;	/* the bell that was answered last: a futex */
	_Atomic uint32_t seq;		/* odd: the numbers are being written */
	uint32_t reserved;
	uint64_t started;		/* CLOCK_MONOTONIC, nanoseconds: when counting began ... */
	_Atomic uint64_t when;		/* ... and when the numbers were written */
	char release[16];		/* of the library, with its end */
	struct publish_number {
		char name[24];		/* with its end */
		_Atomic uint64_t value;
	} number[PUBLISH_NUMBERS];
};
_Static_assert(sizeof(struct publish_page) <= PUBLISH_SIZE, "the page has room for its numbers");
_Static_assert(offsetof(struct publish_page, number) == 64 && sizeof(struct publish_number) == 32,
    "32-bit processes have the same format");

/*
 * Make the page, with these names.  values() stores as many numbers; it is called here, and on
 * the pageout daemon's thread, with no lock held.
 * => vm_pageout_published() follows
 * => 0, or -errno: -EALREADY, or what memfd_create() and mmap() say
 */
int vm_publish_start(const char *release, const char (*names)[24], uint32_t n, void (*values)(uint64_t *));
void vm_publish_stop(void);		/* => the daemon has ended */
void vm_publish_forked(void);		/* in a forked child: the page is not its own */
bool vm_publish_running(void);

/*
 * For the daemon: answer whoever has asked, and sleep until somebody asks or vm_publish_ring().
 *
 *	ticket = vm_publish_prepare();
 *	is there anything else to do?
 *	vm_publish_wait(ticket);
 */
uint32_t vm_publish_prepare(void);
void vm_publish_wait(uint32_t ticket, int64_t timeout_ns);	/* a negative one: for ever */
void vm_publish_answer(void);
void vm_publish_ring(void);		/* wake the daemon; cheap, if it is awake or nothing is published */

#endif
