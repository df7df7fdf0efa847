/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef MODEL_H
#define MODEL_H

/*
 * The reference model: random operations, and the plainest memory there is.
 *
 * vmfault shares, shadows and delays; the model does none of it.  A page of
 * the model is 4096 bytes (struct cell) and every copy is made at once, by
 * memcpy.  The two may never differ in a byte, a protection or an errno.
 *
 *	task	its pages, one struct slot each: which cell, and what may be done
 *	cell	bytes; several slots hold one where memory is really shared
 *		(a forked task with VMF_INHERIT_SHARE, a shared pager mapping)
 *	snap	bytes of its ranges, and the birth of each page it was taken of
 *	pager	cells of the object, and the store behind get() and put()
 *
 * A slot's birth number is new at each mapping.  Where the contract is silent on
 * what an operation does to a range that was unmapped and mapped again, the
 * model sees it by the birth and leaves it alone.
 *
 * Each operation first looks at the slots and says which errors the contract
 * allows (a set, since it does not say which of two errors wins); one of them
 * must come back and then nothing may have changed, or 0 if the set is empty.
 * After each operation some pages are compared, from time to time all of them.
 *
 * All choices follow from the seed and never from an address, so that a
 * failure replays: it prints the seed and the number of the operation, and
 * --verbose prints every operation up to it.
 */

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support.h"

enum { NTASKS = 6, NSNAPS = 10, NRANGES = 3, NPAGERS = 3, NHOLDS = 4, WIRES = 3 };
enum { R = VMF_PROT_READ, RW = VMF_PROT_READ | VMF_PROT_WRITE };

struct cell {
	unsigned refs;
	unsigned char b[VMF_PAGE_SIZE];
};

struct slot {
	struct cell *cell;		/* null: nothing is mapped */
	uint64_t birth;
	uint8_t prot, max, inherit, wired, held;
	/* of a snapshot: its maximum protection is not ours to know */
	bool view;
	bool object;			/* a shared mapping of a pager */
};

struct task {
	vmf_task_t h;			/* 0: none */
	char *base;
	size_t n;
	struct slot *s;
};

struct snap_range {
	char *addr;
	size_t n;
	unsigned char *b;
	uint64_t *birth;
};

struct snap {
	vmf_snapshot_t h;		/* 0: none */
	size_t n;
	struct snap_range r[NRANGES];
};

struct pager {
	vmf_pager_t h;
	size_t n;
	bool shared;			/* all its mappings are, or none is */
	unsigned char *store, *exists;
	struct cell **cell;		/* shared: what the object holds */
	_Atomic unsigned calls;		/* varies the length of answers */
	_Atomic bool gone;		/* terminate() was called */
};

struct hold {
	char *addr;			/* null: none */
	size_t size;
};

/* A run of pages of one task, as pick() chose it. */
struct span {
	struct task *t;
	size_t i, n;
	char *addr;
};

extern struct task tasks[NTASKS];
extern struct snap snaps[NSNAPS];
extern struct pager pagers[NPAGERS];
extern struct hold holds[NHOLDS];
extern uint64_t seed, op, births;	/* the run, the operation, the last birth */
extern size_t max_pages;		/* of one range */
extern size_t live;			/* pages of the model: cells, and those in snapshots */

/* model.c: failing, choosing, bookkeeping */
void fail(const char *fmt, ...) __attribute__((__format__(__printf__, 1, 2), __noreturn__));
void say(const char *fmt, ...) __attribute__((__format__(__printf__, 1, 2)));
size_t below(size_t n);			/* a random number below n */
bool one_in(size_t n);
struct cell *cell_new(const void *bytes);	/* null: zeros */
void cell_put(struct cell *);
void slot_map(struct slot *, struct cell *, int prot);
void slot_unmap(struct slot *);
struct slot *slot_at(const char *addr);	/* null: in no task */
void model_task_add(vmf_task_t, struct task *);
void model_task_forget(struct task *);
struct task *model_task_any(void);

/*
 * Choose a run of up to max pages.  Nine times in ten it is mapped from end
 * to end, and allows prot; else it is what it happens to be.
 */
bool pick(struct span *, int prot, size_t max);
#define EACH(v, sp) \
	(struct slot *v = &(sp)->t->s[(sp)->i]; v < &(sp)->t->s[(sp)->i + (sp)->n]; v++)
#define TASK_NO(sp)	((int)((sp)->t - tasks))

/* Sets of allowed errors: bit e stands for -e. */
typedef uint64_t errs_t;
#define E(e)	((errs_t)1 << (e))

/*
 * With swap the frames may be used up for a moment, and a call that must copy wired pages at once does not
 * wait for more than the daemon keeps free.  Nothing has changed then: it is made again.
 */
#define PATIENTLY(call)	__extension__ ({						\
	int got_;									\
	for (unsigned n_ = 0; ((got_ = (call)) == -ENOMEM || got_ == -EAGAIN) && patient(n_); n_++)	\
		;									\
	got_;										\
})
bool patient(unsigned tries);
errs_t errs_of(const struct span *, int prot);
/* The result is 0 if no error is allowed, else one of those; true: it was 0. */
bool result(const char *what, int got, errs_t errs);

/* Choose where n pages shall go; what the contract says to VMF_FIXED, or to no room. */
errs_t place(struct span *, size_t n, unsigned *flags, void **addr);
/* The library put them there: it must be free, whole and the task's. */
void placed(struct span *, void *addr);

/* model_memory.c */
void op_allocate(void);
void op_unmap(void);
void op_protect(void);
void op_touch_write(void);
void op_move(void);
void op_copy(void);
void op_inherit(void);
void op_advise(void);
void op_task(void);
void op_wire(void);
void op_hold(void);
void op_inspect(void);
void hold_release(struct hold *);
void memory_setup(void);

/* model_snapshot.c */
void op_snapshot(void);
void op_view(void);
void op_rollback(void);
void op_diff(void);
void op_release(void);
void op_pager(void);
void op_map(void);
void model_snap_release(struct snap *);
void model_pager_release(struct pager *);
void pager_wait_gone(struct pager *);

#endif
