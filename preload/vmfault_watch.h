/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VMFAULT_WATCH_H
#define VMFAULT_WATCH_H

/*
 * Looking at other processes: see lib/vm_publish.h for how they answer.
 *
 *	finding it	/proc/PID/fd has a link "/memfd:vmfault-stats": same user, or root.  A process that has
 *			closed it still has it mapped: /proc/PID/map_files, which is root's.
 *	is it his?	the process id in the page is his own; a fork()ed child may have its parent's page
 *	asking		ring, and read when the answer is there, or when time is up
 *
 * Nothing that is found there is believed: names and counts are checked before use, and the page is read
 * by system calls, for its owner may cut it short at any time.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vm_publish.h"

struct watch {
	pid_t pid;
	int pidfd;			/* readable when the process has ended */
	int fd;				/* the page; its memory goes when the last of us has closed it */
	struct publish_page *page;	/* mapped for the bell alone */
	uint32_t want;			/* the answer that was asked for */
	char command[64];
	bool has_before;
	struct watch_sample {
		double at;		/* seconds, monotonic: when it was taken */
		bool fresh;		/* it answered; else the numbers are those of page.when */
		uint64_t frames;	/* bytes of memory that its frames have; UINT64_MAX: cannot be seen */
		struct publish_page page;
	} before, now;			/* of the last two looks */
};

/*
 * => 0; -ESRCH: no such process; -ENOENT: it is not under vmfault, or does not publish; -EACCES: it is
 *    another user's, or hides itself; -EPERM: it has closed the descriptor, and only root sees more;
 *    -EPROTO: another version's format; -ENODATA: it has the shim, but no managed memory
 */
int watch_open(struct watch *, pid_t);
void watch_close(struct watch *);
const char *watch_error(int error);

/* Ask now, and look within so many milliseconds.  Asking many first makes them answer at once. */
void watch_ask(struct watch *);
bool watch_look(struct watch *, int ms);		/* false: the process has ended */

/* A number of a sample; 0 where it has none of that name. */
uint64_t watch_number(const struct watch_sample *, const char *name);
/* ... how much it has grown between the looks, or since the start if there was one only; and in what time. */
uint64_t watch_growth(const struct watch *, const char *name);
double watch_interval(const struct watch *);

/*
 * All that can be watched: those in the list stay in it, new ones are added, those that have ended leave.
 * Sorted by process id.
 */
struct watch_list {
	struct watch **watch;
	unsigned n;
};
void watch_all(struct watch_list *);
void watch_list_look(struct watch_list *, int ms);	/* ask all, look at all */

/*
 * The columns of stat and top, in vmstat's manner: two lines of heading, and one of numbers.
 */
extern bool watch_brief;		/* leave out what is about forked children */
void watch_heading(char line[2][256]);
void watch_line(const struct watch *, char line[256]);

#endif
