/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Every system call that a private view needs is refused, each in turn.
 *
 * test_inject.c does that with the whole API, but its ranges are smaller than a view.  Here one scenario opens
 * views, closes them by a second snapshot, brings them home, by faults and by calls, and lets go of snapshots
 * and memory meanwhile.  It is run again and again: the calls number n, n + 1, ... of one kind are refused, for n = 1,
 * 2, ..., until it makes fewer.  An error may come of it, or nothing: then the step is tried again, and all bytes of
 * memory and snapshots are those that they were.
 */

#include <check.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kern/sys.h"
#include "pmap.h"
#include "suite.h"
#include "support.h"
#include "vm_view.h"

enum { LEAF = PMAP_LEAF_PAGES, N = 2 * LEAF + 5, SNAPS = 3 };

static struct {
	enum sys_call kind;
	int result;
	unsigned first, count;
	_Atomic bool armed;
	_Atomic unsigned calls, fired;
} plan;

static char *mem;
static uint64_t live[N], key[SNAPS][N], next_key;
static vmf_snapshot_t name[SNAPS];
static const char *step;
static bool possible, viewed;				/* at least once */

static int
inject(enum sys_call kind)
{
	unsigned n;

	if (kind != plan.kind || !plan.armed)
		return 0;
	n = ++plan.calls;
	if (n < plan.first || n - plan.first >= plan.count)
		return 0;
	plan.fired++;
	return plan.result;
}

static void
say(void)
{
	fprintf(stderr, "at \"%s\": kind %d, result %d, calls %u + %u\n", step, plan.kind, plan.result, plan.first,
	    plan.count);
}

/* Without faults that would bring home what is viewed: each step is to meet views. */
static void
verify(bool all)
{
	char buf[VMF_PAGE_SIZE];

	for (size_t i = 0; i < N; i++)
		if (live[i] != 0)
			check_ends("memory", mem + i * PG, i, live[i]);
	for (unsigned k = 0; all && k < SNAPS; k++)
		for (size_t i = 0; name[k] != 0 && i < N; i++) {
			expect(vmf_snapshot_read(name[k], 0, i * PG, buf, PG), 0);
			check_ends("snapshot", buf, i, key[k][i]);
		}
}

/* Do it until it succeeds. */
#define DO(call) do {									\
	step = #call;									\
	for (;;) {									\
		unsigned fired_ = plan.fired;						\
		int error_;								\
											\
		plan.armed = true;							\
		error_ = (call);							\
		plan.armed = false;							\
		if (plan.fired != fired_)						\
			verify(error_ < 0);						\
		if (error_ >= 0)							\
			break;								\
		if (plan.fired == fired_)						\
			die("it failed by itself: %s", strerror(-error_));		\
		if (error_ != -ENOMEM && error_ != -EAGAIN && error_ != -EIO)		\
			die("undocumented: %s", strerror(-error_));			\
	}										\
} while (0)

static int
touched(struct touch t)
{
	if (t.signo != 0 && t.signo != SIGBUS)
		die("signal %d, si_code %d", t.signo, t.code);
	return t.signo == 0 ? 0 : -ENOMEM;
}

/* The page's middle byte is nobody's. */
static void
poke(size_t i)
{
	DO(touched(touch_write(mem + i * PG + PG / 2)));
	live[i] = ++next_key;
	fill_ends(mem + i * PG, next_key);
}

static void
take(unsigned k)
{
	struct vmf_range r = { mem, N * PG };

	DO(vmf_snapshot_create(&r, 1, &name[k]));
	memcpy(key[k], live, sizeof(live));
}

static void
let_go(unsigned k)
{
	DO(vmf_snapshot_release(name[k]));
	name[k] = 0;
}

static void
look_back(unsigned k, size_t i)
{
	char buf[VMF_PAGE_SIZE];

	DO(vmf_snapshot_read(name[k], 0, i * PG, buf, PG));
	check_ends("snapshot", buf, i, key[k][i]);
}

static void
scenario(void)
{
	struct vmf_stats s = { .size = sizeof(s) };
	char buf[VMF_PAGE_SIZE];

	start(0, 0);
	touch_install();
	vm_view_hold();
	memset(name, 0, sizeof(name));
	mem = alloc(N);
	for (size_t i = 0; i < N; i++) {
		live[i] = ++next_key;
		fill_ends(mem + i * PG, next_key);
	}
	take(0);
	poke(5);
	poke(LEAF + 70);
	let_go(0);
	plan.armed = true;		/* brought home by the keeper, in its own time */
	vm_view_go_on();
	while (expect(vmf_statistics(&s), 0), s.v_views_home < s.v_views)
		sched_yield();		/* it needs a processor for that */
	plan.armed = false;
	vm_view_hold();
	viewed = viewed || s.v_views != 0;
	possible = possible || pmap_has_views();
	verify(true);
	take(0);
	poke(5);			/* opened */
	poke(6);
	poke(LEAF + 70);
	look_back(0, 5);
	take(1);			/* closed */
	look_back(0, 6);		/* brought home, by who reads */
	poke(5);
	poke(LEAF + 71);		/* ... by who writes */
	look_back(1, 5);
	take(2);
	poke(7);
	DO(vmf_read(mem + 7 * PG, buf, PG));	/* ... by a call, open */
	check_ends("read", buf, 7, live[7]);
	poke(8);
	poke(LEAF + 8);
	DO(vmf_protect(mem, 20 * PG, VMF_PROT_DEFAULT));	/* ... by who changes the map */
	let_go(1);
	poke(9);
	DO(vmf_wire(mem + 9 * PG, PG));
	DO(vmf_unwire(mem + 9 * PG, PG));
	poke(LEAF + 9);
	DO(vmf_snapshot_rollback(name[2]) ?: (memcpy(live, key[2], sizeof(live)), 0));
	verify(true);
	poke(10);
	let_go(2);
	poke(11);
	take(1);
	poke(12);
	poke(LEAF + 12);
	DO(vmf_unmap(mem + 3 * PG, 100 * PG) ?: (memset(live + 3, 0, 100 * sizeof(live[0])), 0));
	verify(true);
	DO(vmf_unmap(mem, N * PG) ?: (memset(live, 0, sizeof(live)), 0));
	verify(true);
	vm_view_go_on();
	stop();
}

static const struct row {
	enum sys_call kind;
	int result;
	unsigned count;
} rows[] = {
	{ SYS_CALL_MMAP, -ENOMEM, 1 }, { SYS_CALL_MMAP, -ENOMEM, 5 }, { SYS_CALL_MPROTECT, -ENOMEM, 1 },
	{ SYS_CALL_MPROTECT, -ENOMEM, 20 }, { SYS_CALL_MUNMAP, -ENOMEM, 1 }, { SYS_CALL_MADVISE, -EAGAIN, 1 },
	{ SYS_CALL_MADVISE, -EINVAL, 100 }, { SYS_CALL_PREAD, -EIO, 1 }, { SYS_CALL_PREAD, -EIO, 100 },
	{ SYS_CALL_PREAD, 8, 1 }, { SYS_CALL_PWRITE, -ENOSPC, 1 }, { SYS_CALL_PWRITE, -ENOMEM, 150 },
	{ SYS_CALL_PWRITE, 512, 1 }, { SYS_CALL_PWRITE, -EINTR, 2 }, { SYS_CALL_PWRITE, -EFAULT, 2 },
	{ SYS_CALL_MREMAP, -ENOMEM, 1 }, { SYS_CALL_FALLOCATE, -EIO, 2 }, { SYS_CALL_OPEN, -EMFILE, 1 },
};

START_TEST(every_call_fails_in_turn)
{
	on_die = say;
	plan.kind = rows[_i].kind;
	plan.result = rows[_i].result;
	plan.count = rows[_i].count;
	plan.first = 1;
	do {
		plan.calls = plan.fired = 0;
		sys_inject = inject;
		scenario();
		sys_inject = NULL;
		/* Where there are many they are all alike. */
		plan.first += plan.first < 40 && plan.count < 100 ? 1 : 61;
	} while (plan.first <= plan.calls);
	check(viewed || !possible);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("inject/view");
	TCase *tc = tcase_create("every call");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, every_call_fails_in_turn, 0, (int)nitems(rows));
	suite_add_tcase(s, tc);
	return run_suite(s);
}
