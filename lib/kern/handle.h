/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_HANDLE_H
#define KERN_HANDLE_H

/*
 * Names for things that users hold.  A handle is a slot and a generation, so
 * one that was released is recognised for ever; what it names is counted, so that a
 * release in one thread cannot pull it from under a call in another.
 *
 *	p = handle_get(HANDLE_SNAPSHOT, h);	null: no such handle
 *	use p
 *	handle_put(p);
 *
 * handle_close() makes the name invalid and drops the reference that
 * handle_create() gave; whoever drops the last one calls the destructor, with no
 * lock held.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum handle_type { HANDLE_FREE, HANDLE_TASK, HANDLE_PAGER, HANDLE_SNAPSHOT };

/* The first member of everything that is named by a handle. */
struct handle {
	_Atomic uint32_t refs;
	uint32_t type;
	uint64_t name;			/* what users hold; 0 after handle_close() */
	void (*destroy)(struct handle *);
};

/* The first handle ever made since handle_sysinit() is 1 (VMF_TASK_DEFAULT). 0: no memory. */
uint64_t handle_create(enum handle_type, struct handle *, void (*destroy)(struct handle *));
struct handle *handle_get(enum handle_type, uint64_t name);
void handle_ref(struct handle *);
/* Unless the last reference is gone, and the destructor on its way.  => something keeps its memory */
bool handle_ref_try(struct handle *);
void handle_put(struct handle *);
bool handle_is_open(struct handle *);	/* has its name still; a moment's truth */
/* 0, or -EBADF. */
int handle_close(enum handle_type, uint64_t name);
/* The open handle of this type with the lowest slot, referenced, or null: for tearing down. */
struct handle *handle_any(enum handle_type);
uint32_t handle_count(enum handle_type);	/* open ones */
void handle_sysinit(void);
void handle_sysfini(void);

#endif
