/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Races of a fault's first look (vm_fault_look.c), which takes no lock, with all that can change what it looked
 * at.  How it is done: race.h.
 *
 * An actor stops where it has trapped and not looked yet, or where it has looked and been told that all is done; there
 * the world changes.  Whatever it believed, it must end up with what is true.
 */

#include "race.h"

static const char begins[] = "vm_fault: begins", done[] = "vm_fault: is done already";

static _Atomic enum { RUNS, TRAPPED, LOOKS, LOOKED } stage;

/* The first time at both places. */
static void
stop_twice(const char *place)
{
	if (self == NULL)
		return;
	if (stage == RUNS && strcmp(place, begins) == 0) {
		stage = TRAPPED;
		while (stage != LOOKS)
			usleep(200);
	} else if (stage == LOOKS && strcmp(place, done) == 0) {
		stage = LOOKED;
		self->stopped = true;
		while (!self->go)
			usleep(200);
	}
}

/* An actor that has trapped to write a page, which was entered since; and has looked, or has not yet. */
static void
trapped(struct actor *a, struct act *x, bool looked)
{
	expect(vmf_protect(x->p, PAGES * PG, VMF_PROT_NONE), 0);
	expect(vmf_protect(x->p, PAGES * PG, VMF_PROT_DEFAULT), 0);
	*a = (struct actor){ .fn = do_touch_write, .arg = x, .place = done };
	stage = RUNS;
	probe_hook = stop_twice;
	check(pthread_create(&a->thread, NULL, act, a) == 0);
	while (stage != TRAPPED)
		usleep(200);
	*(volatile char *)x->p = *(volatile char *)x->p;
	if (looked) {
		stage = LOOKS;
		meet(a);
	}
}

/* It may look, and goes on whatever it sees. */
static void
look_and_go(struct actor *a)
{
	a->go = true;
	stage = LOOKS;
}

START_TEST(somebody_has_done_it)
{
	uint64_t already, soft;
	struct actor a;
	struct act x;

	begin();
	x = (struct act){ .p = filled() };
	trapped(&a, &x, false);
	already = STAT(v_already);
	soft = STAT(v_soft);
	look_and_go(&a);
	finish(&a);
	expect_touch_at(x.touch, x.p, 0, 0, __FILE__, __LINE__);
	expect(STAT(v_already) - already, 1);
	expect(STAT(v_soft) - soft, 0);
	check(x.p[0] == 1);
	end();
}
END_TEST

/* To read it was entered, not to write. */
START_TEST(half_of_it_was_done)
{
	uint64_t already;
	struct actor a;
	vmf_snapshot_t s;
	struct act x;

	begin();
	x = (struct act){ .p = filled() };
	s = snap(x.p, PAGES);
	go(&a, do_touch_write, &x, begins);
	meet(&a);
	(void)*(volatile char *)x.p;
	already = STAT(v_already);
	let(&a);
	expect_touch_at(x.touch, x.p, 0, 0, __FILE__, __LINE__);
	expect(STAT(v_already) - already, 0);
	check_changed(x.p, 0, 1);
	check_snapshot(s, 0);
	end();
}
END_TEST

START_TEST(rights_go_after_the_look)
{
	struct actor a;
	struct act x;

	begin();
	x = (struct act){ .p = filled() };
	trapped(&a, &x, true);
	expect(vmf_protect(x.p, PG, VMF_PROT_READ), 0);
	let(&a);
	expect_touch_at(x.touch, x.p, SIGSEGV, SEGV_ACCERR, __FILE__, __LINE__);
	check_pages(x.p, PAGES, 9);
	end();
}
END_TEST

START_TEST(a_snapshot_after_the_look)
{
	vmf_snapshot_t s;
	struct actor a;
	struct act x;

	begin();
	x = (struct act){ .p = filled() };
	trapped(&a, &x, true);
	s = snap(x.p, PAGES);
	let(&a);
	expect_touch_at(x.touch, x.p, 0, 0, __FILE__, __LINE__);
	check_changed(x.p, 0, 1);
	check_snapshot(s, 0);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(x.p, PAGES, 9);
	end();
}
END_TEST

/* The memory goes; or other memory comes in its place; or the whole task goes, whose pmap was looked at. */
START_TEST(unmapped_after_the_look)
{
	struct actor a;
	struct act x;

	begin();
	x = (struct act){ .p = filled() };
	trapped(&a, &x, true);
	expect(vmf_unmap(x.p, PAGES * PG), 0);
	if (_i == 1)
		expect(vmf_allocate(VMF_TASK_DEFAULT, (void **)&x.p, PAGES * PG, VMF_FIXED), 0);
	let(&a);
	if (_i == 1) {
		expect_touch_at(x.touch, x.p, 0, 0, __FILE__, __LINE__);
		check(x.p[0] == 1);
		check_zero(x.p + 1, PAGES * PG - 1);
	} else {
		expect_touch_at(x.touch, x.p, SIGSEGV, SEGV_MAPERR, __FILE__, __LINE__);
	}
	end();
}
END_TEST

START_TEST(the_task_goes_before_the_look)
{
	vmf_task_t task;
	struct actor a;
	struct act x;

	begin();
	expect(vmf_task_create(PAGES * PG, &task), 0);
	x = (struct act){ .p = alloc_in(task, PAGES) };
	fill_pages(x.p, PAGES, 9);
	trapped(&a, &x, _i == 1);
	expect(vmf_task_destroy(task), 0);
	look_and_go(&a);
	finish(&a);
	check(x.touch.signo == SIGSEGV);
	end();
}
END_TEST

/*
 * The kernel has taken the rights, and the pmap has not written it down yet: its lock is held.  The look says yes,
 * once; then the fault waits for the lock, instead of asking again and again.
 */
START_TEST(the_pmap_lags_behind)
{
	struct act x, r;
	struct actor a, b;
	uint64_t faults;

	begin();
	x = (struct act){ .p = filled() };
	trapped(&a, &x, false);
	r = (struct act){ .p = x.p };
	/* This one stops as any other; the first one is on its own two feet. */
	go(&b, do_snapshot, &r, "pmap: rights taken");
	meet(&b);
	faults = STAT(v_vm_faults);
	look_and_go(&a);
	check_waits(&a);
	check(STAT(v_vm_faults) - faults <= 2);
	let(&b);
	finish(&a);
	expect_touch_at(x.touch, x.p, 0, 0, __FILE__, __LINE__);
	check_changed(x.p, 0, 1);
	check_snapshot(r.snapshot, 0);
	end();
}
END_TEST

int
main(void)
{
	const struct race races[] = {
		{ "somebody has done it", somebody_has_done_it, 1 },
		{ "half of it was done", half_of_it_was_done, 1 },
		{ "rights go after the look", rights_go_after_the_look, 1 },
		{ "a snapshot after the look", a_snapshot_after_the_look, 1 },
		{ "unmapped after the look", unmapped_after_the_look, 2 },
		{ "the task goes", the_task_goes_before_the_look, 2 },
		{ "the pmap lags behind", the_pmap_lags_behind, 1 },
	};

	return run_races("races_look", races, nitems(races));
}
