/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Coming home: fewer mappings, no byte changed, nobody's page pulled away from under him.
 *
 * The thread is there, but where mappings are plenty it does nothing: its steps are taken by hand.  How it
 * decides by itself, test_api_budget.c tells.
 */

#include "race.h"

#include "pmap.h"
#include "task.h"
#include "trap.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_object.h"

enum { MANY = 4 * PAGES, AWAY = MANY / 4 };

/* Steps until nothing comes any more: so often that each object had its turn, and others are done with it. */
static uint64_t
come_home(void)
{
	uint64_t before = vm_meter_read(VMC_v_homed);
	sys_sigset_t mask;

	trap_enter(&mask);
	for (unsigned idle = 0; idle < 16;) {
		if (vm_homecoming_step() != 0) {
			idle = 0;
		} else {
			idle++;
			usleep(500);
		}
	}
	trap_leave(&mask);
	return vm_meter_read(VMC_v_homed) - before;
}

static void
touch_all(const char *p, size_t npages)
{
	for (size_t i = 0; i < npages; i++)
		(void)((const volatile char *)p)[i * PG];
}

static void
write_byte(char *p, size_t i, int byte)
{
	*(volatile char *)&p[i * PG] = (char)byte;
}

/*
 * What a parent has when its child has gone: every fourth page was written since the fork, to a frame of another run.
 * Those begin with 77, all else is of key 9.
 */
static char *
scattered(size_t npages)
{
	char *p = alloc(npages);
	vmf_task_t child;

	fill_pages(p, npages, 9);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
	expect(vmf_advise(p, npages * PG, VMF_ADVICE_RANDOM), 0);
	for (size_t i = 1; i < npages; i += 4)
		write_byte(p, i, 77);
	expect(vmf_task_destroy(child), 0);
	expect(vmf_advise(p, npages * PG, VMF_ADVICE_NORMAL), 0);
	return p;
}

static void
check_scattered(const char *p, size_t npages)
{
	for (size_t i = 0; i < npages; i++) {
		char want[VMF_PAGE_SIZE];

		fill(want, PG, mix(9, i));
		if (i % 4 == 1)
			want[0] = 77;
		check(memcmp(p + i * PG, want, PG) == 0);
	}
}

static vm_pfn_t
frame_at(const char *p)
{
	struct vm_map *map = task_get(VMF_TASK_DEFAULT);
	sys_sigset_t mask;
	vm_pfn_t pfn;

	trap_enter(&mask);
	pfn = PTE_PFN(pmap_extract(map->pmap, (vm_offset_t)p));
	trap_leave(&mask);
	task_put(map);
	return pfn;
}

/* Do pages [lo, hi) make one run of frames?  They are touched for it. */
static bool
is_run(const char *p, size_t lo, size_t hi)
{
	bool run = true;

	touch_all(p + lo * PG, hi - lo);
	for (size_t i = lo; i < hi; i++)
		run = run && frame_at(p + i * PG) == frame_at(p + lo * PG) + (i - lo);
	return run;
}

static void
check_mappings(uint64_t got, uint64_t most)
{
	if (got > most)
		die("%llu mappings, not %llu", (unsigned long long)got, (unsigned long long)most);
}

START_TEST(a_merged_object_becomes_one_mapping)
{
	uint64_t was;
	char *p;

	begin();
	was = STAT(mappings);
	p = scattered(MANY);
	touch_all(p, MANY);
	check(STAT(mappings) >= was + 2 * AWAY);
	expect(come_home(), AWAY);
	/* Fewer at once, and one when all is touched. */
	check_mappings(STAT(mappings), was + 5);
	check(is_run(p, 0, MANY));
	check_mappings(STAT(mappings), was + 2);
	check_scattered(p, MANY);
	audit();
	/* It has none any more. */
	expect(come_home(), 0);
	check(is_run(p, 0, MANY));
	end();
}
END_TEST

START_TEST(wired_and_held_pages_stay)
{
	vm_pfn_t pfn[2];
	char *p;

	begin();
	p = scattered(MANY);
	touch_all(p, MANY);
	expect(vmf_wire(p + 21 * PG, PG), 0);
	expect(vmf_fault_in(p + 45 * PG, PG, VMF_PROT_WRITE), 0);
	pfn[0] = frame_at(p + 21 * PG);
	pfn[1] = frame_at(p + 45 * PG);
	expect(come_home(), AWAY - 2);
	check(frame_at(p + 21 * PG) == pfn[0] && frame_at(p + 45 * PG) == pfn[1]);
	check_scattered(p, MANY);
	expect(vmf_fault_release(p + 45 * PG, PG), 0);
	expect(come_home(), 1);
	expect(vmf_unwire(p + 21 * PG, PG), 0);
	expect(come_home(), 1);
	check(is_run(p, 0, MANY));
	check_scattered(p, MANY);
	end();
}
END_TEST

/* Who was away lived in what is now another's home; he goes, and then the other comes. */
START_TEST(strangers_make_room)
{
	char *p, *q;

	begin();
	p = scattered(MANY);
	q = alloc(MANY);
	fill_pages(q, MANY, 5);
	if (is_run(q, 0, MANY))
		die("the test is wrong: nobody is in the way");
	check(come_home() > AWAY);
	check(is_run(p, 0, MANY));
	check(is_run(q, 0, MANY));
	check_scattered(p, MANY);
	check_pages(q, MANY, 5);
	end();
}
END_TEST

/* Pages are copied from a snapshot's object below, and pushed to one above: they are the same wherever they live. */
START_TEST(snapshots_see_no_change)
{
	char *p, *v, buf[VMF_PAGE_SIZE];
	vmf_snapshot_t s;

	begin();
	p = scattered(MANY);
	s = snap(p, MANY);
	v = view(s, MANY, VMF_PROT_DEFAULT);
	touch_all(v, MANY);
	write_byte(v, 1, 55);
	write_byte(p, 5, 56);
	check(come_home() >= AWAY - 2);
	write_byte(p, 9, 57);
	write_byte(v, 13, 58);
	check(p[1 * PG] == 77 && p[5 * PG] == 56 && p[9 * PG] == 57 && p[13 * PG] == 77);
	check(v[1 * PG] == 55 && v[5 * PG] == 77 && v[9 * PG] == 77 && v[13 * PG] == 58);
	for (size_t i = 0; i < MANY; i++) {
		char want[VMF_PAGE_SIZE];

		fill(want, PG, mix(9, i));
		if (i % 4 == 1)
			want[0] = 77;
		expect(vmf_snapshot_read(s, 0, i * PG, buf, PG), 0);
		check(memcmp(buf, want, PG) == 0);
	}
	audit();
	/* Time and again: what is rolled back is known page by page. */
	for (int n = 0; n < 4; n++) {
		expect(vmf_snapshot_rollback(s), 0);
		(void)come_home();
		check_scattered(p, MANY);
		for (size_t i = 1; i < MANY; i += 4)
			write_byte(p, i, 60 + n);
		(void)come_home();
	}
	expect(vmf_snapshot_rollback(s), 0);
	check_scattered(p, MANY);
	expect(vmf_snapshot_release(s), 0);
	end();
}
END_TEST

/* Without a frame to spare nobody moves, and nothing is lost. */
START_TEST(no_frame_no_move)
{
	char *p, *q;

	start(MANY * 2 * PG, 0);
	touch_install();
	p = scattered(MANY);
	q = alloc(MANY);
	for (size_t i = 0; i < MANY; i++)
		write_byte(q, i, 1);
	expect(come_home(), 0);
	check_scattered(p, MANY);
	expect(vmf_unmap(q, MANY * PG), 0);
	expect(come_home(), AWAY);
	check_scattered(p, MANY);
	end();
}
END_TEST

/* An object that has pages away can go, be forked, or be merged once more. */
START_TEST(who_is_away_may_go)
{
	vmf_task_t child;
	char *p, *q;

	begin();
	p = scattered(MANY);
	q = scattered(MANY);
	expect(vmf_unmap(p, MANY * PG), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
	for (size_t i = 1; i < MANY; i += 4)
		write_byte(q, i, 77);
	(void)come_home();
	check_scattered(q, MANY);
	expect(vmf_task_destroy(child), 0);
	audit();
	check(come_home() > 0);
	check(is_run(q, 0, MANY));
	check_scattered(q, MANY);
	expect(vmf_unmap(q, MANY * PG), 0);
	expect(come_home(), 0);
	end();
}
END_TEST

/*
 * Races
 */

/* A fault has the page busy, and is about to copy it up from the very frame. */
START_TEST(a_busy_page_stays)
{
	struct act x = { .byte = 88 };
	vmf_task_t child;
	struct actor a;
	void *base, *other;
	char *p, *q;

	begin();
	p = scattered(MANY);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, NULL), 0);
	expect(vmf_task_range(child, &other, NULL), 0);
	q = (char *)other + (p - (char *)base);
	x.p = q + 33 * PG;
	go(&a, do_write, &x, "vm_fault: before copying up");
	meet(&a);
	expect(come_home(), AWAY - 1);
	let(&a);
	check(q[33 * PG] == 88);
	check_scattered(p, MANY);
	check(come_home() >= 1);
	check_scattered(p, MANY);
	expect(vmf_task_destroy(child), 0);
	end();
}
END_TEST

static _Atomic bool enough;

static void
do_steps(void *arg)
{
	(void)arg;
	while (!enough)
		(void)come_home();
}

/* A writer who is met between the taking away and the copy waits, and then writes to the new frame. */
START_TEST(writers_lose_nothing)
{
	uint64_t homed = 0;
	struct actor a;
	char *p;

	begin();
	enough = false;
	go(&a, do_steps, NULL, "vm_homecoming: unmapped");
	for (int round = 0; round < 20; round++) {
		p = scattered(MANY);
		if (round == 0) {
			struct act x = { .p = p + 13 * PG, .byte = 77 };
			struct actor w;

			meet(&a);
			go(&w, do_write, &x, "none");
			check_waits(&w);
			release(&a);
			finish(&w);
		}
		for (int n = 0; n < 50; n++)
			for (size_t i = 0; i < MANY; i++) {
				volatile char *at = p + i * PG + 1;

				*at = (char)(*at + 1);
			}
		for (size_t i = 0; i < MANY; i++)
			p[i * PG + 1] = (char)(p[i * PG + 1] - 50);
		check_scattered(p, MANY);
		expect(vmf_unmap(p, MANY * PG), 0);
	}
	enough = true;
	finish(&a);
	homed = vm_meter_read(VMC_v_homed);
	check(homed >= AWAY);
	end();
}
END_TEST

int
main(void)
{
	const struct race tests[] = {
		{ "a merged object becomes one mapping", a_merged_object_becomes_one_mapping, 1 },
		{ "wired and held pages stay", wired_and_held_pages_stay, 1 },
		{ "strangers make room", strangers_make_room, 1 },
		{ "snapshots see no change", snapshots_see_no_change, 1 },
		{ "no frame, no move", no_frame_no_move, 1 },
		{ "who is away may go", who_is_away_may_go, 1 },
		{ "a busy page stays", a_busy_page_stays, 1 },
		{ "writers lose nothing", writers_lose_nothing, 1 },
	};

	return run_races("vm_homecoming", tests, nitems(tests));
}
