/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Races of faults with what changes the map: unmapping, protecting, snapshots and forks, in
 * the gaps where a fault has let go of the map to ask a pager, or works through another map on
 * the same object.  How it is done: race.h.
 */

#include "race.h"

/*
 * Fault against a change of the map
 */

START_TEST(fault_unmap)
{
	static const char *const places[] = { "vm_fault: pager get", "vm_fault: pager got",
	    "vm_fault: before relookup" };
	vmf_pager_t pager;
	struct actor a;
	struct act x;

	begin();
	for (int again = 0; again < 2; again++) {
		/* The second time something else is mapped there by then. */
		x = (struct act){ .p = map_pager(VMF_MAP_SHARED, &pager) };
		go(&a, do_touch_write, &x, places[_i]);
		meet(&a);
		expect(vmf_unmap(x.p, PAGES * PG), 0);
		if (again)
			expect(vmf_allocate(VMF_TASK_DEFAULT, (void **)&x.p, PAGES * PG, VMF_FIXED), 0);
		let(&a);
		if (again) {
			expect_touch_at(x.touch, x.p, 0, 0, __FILE__, __LINE__);
			check(x.p[0] == 1);
			check_zero(x.p + 1, PAGES * PG - 1);
			expect(vmf_unmap(x.p, PAGES * PG), 0);
		} else {
			expect_touch_at(x.touch, x.p, SIGSEGV, SEGV_MAPERR, __FILE__, __LINE__);
		}
		audit();
		expect(vmf_pager_release(pager), 0);
		check_pages(store, PAGES, 9);
	}
	end();
}
END_TEST

START_TEST(fault_protect)
{
	vmf_pager_t pager;
	struct actor a;
	struct act x;

	begin();
	x = (struct act){ .p = map_pager(VMF_MAP_SHARED, &pager) };
	go(&a, do_touch_write, &x, "vm_fault: before relookup");
	meet(&a);
	expect(vmf_protect(x.p, PG, VMF_PROT_READ), 0);
	let(&a);
	expect_touch_at(x.touch, x.p, SIGSEGV, SEGV_ACCERR, __FILE__, __LINE__);
	check_pages(x.p, PAGES, 9);
	end();
}
END_TEST

/*
 * Fault against snapshot, fork and copy
 */

/* Between the push to one copy and the entering, a second copy is made: it is owed the page, too. */
START_TEST(writer_snapshot)
{
	static const char *const places[] = { "vm_fault: pager get", "vm_fault: before relookup" };
	struct act x = { .byte = 77 };
	vmf_snapshot_t s1, s2;
	vmf_pager_t pager;
	struct actor a;

	begin();
	x.p = map_pager(VMF_MAP_SHARED, &pager);
	s1 = snap(x.p, PAGES);
	go(&a, _i < 2 ? do_write : do_call_write, &x, places[_i % 2]);
	meet(&a);
	s2 = snap(x.p, PAGES);
	let(&a);
	check_changed(x.p, 0, 77);
	check_snapshot(s1, 0);
	check_snapshot(s2, 0);
	audit();
	expect(vmf_snapshot_release(s1), 0);
	check_snapshot(s2, 0);
	end();
}
END_TEST

/* A copy-up through one map, while the object is snapshot through another. */
START_TEST(copy_up_snapshot)
{
	struct act x = { .byte = 78 }, y = { 0 };
	char *p, *writable;
	vmf_snapshot_t s1;
	struct actor a, b;
	vmf_task_t task;

	begin();
	p = filled();
	s1 = snap(p, PAGES);
	writable = view(s1, PAGES, VMF_PROT_DEFAULT);
	x.p = other_view(writable, &task);
	y.p = writable;
	go(&a, do_write, &x, "vm_fault: before copying up");
	meet(&a);
	go(&b, do_snapshot, &y, "none");
	finish(&b);
	let(&a);
	check_changed(writable, 0, 78);
	check_changed(x.p, 0, 78);
	check_pages(p, PAGES, 9);
	check_snapshot(s1, 0);
	check_snapshot(y.snapshot, 0);
	end();
}
END_TEST

START_TEST(page_in_snapshot)
{
	vmf_pager_t pager;
	vmf_snapshot_t s;
	struct actor a;
	struct act x;

	begin();
	x = (struct act){ .p = map_pager(VMF_MAP_SHARED, &pager) };
	go(&a, do_read, &x, "vm_fault: pager get");
	meet(&a);
	s = snap(x.p, PAGES);		/* does not wait for the page */
	let(&a);
	check(x.byte == x.p[0]);
	fill_pages(x.p, PAGES, 10);
	check_snapshot(s, 0);
	check_pages(x.p, PAGES, 10);
	end();
}
END_TEST

START_TEST(fault_fork)
{
	static const char *const places[] = { "vm_fault: pager got", "vm_fault: before relookup" };
	struct act x = { .byte = 79 };
	void *base, *child_base;
	vmf_pager_t pager;
	vmf_task_t child;
	struct actor a;

	begin();
	x.p = map_pager(VMF_MAP_PRIVATE, &pager);
	go(&a, _i < 2 ? do_write : do_call_write, &x, places[_i % 2]);
	meet(&a);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
	let(&a);
	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, NULL), 0);
	expect(vmf_task_range(child, &child_base, NULL), 0);
	check_changed(x.p, 0, 79);
	check_pages((char *)child_base + (x.p - (char *)base), PAGES, 9);
	check_pages(store, PAGES, 9);
	end();
}
END_TEST

/*
 * The instant of a snapshot: b is written after the cut of a, but before its own.  So it is in
 * the snapshot, and whoever comes to a afterwards is not.
 */
START_TEST(cut_is_closed)
{
	struct act both = { 0 }, wb = { .byte = 2 }, wa = { .byte = 3 };
	struct actor s, b, a;
	vmf_task_t task;
	char buf[2];

	begin();
	both.p = filled();
	expect(vmf_protect(alloc(1), PG, VMF_PROT_NONE), 0);	/* two entries, not one */
	both.q = filled();
	expect(vmf_inherit(both.p, PAGES * PG, VMF_INHERIT_SHARE), 0);
	wb.p = other_view(both.q, &task);
	wa.p = wb.p + (both.p - both.q);
	go(&s, do_snapshot_two, &both, "snapshot_create: between ranges");
	meet(&s);
	go(&b, do_write, &wb, "none");
	finish(&b);
	go(&a, do_write, &wa, "vm_fault: wait for a cut");
	meet(&a);
	release(&a);
	check_waits(&a);
	let(&s);
	finish(&a);
	expect(vmf_snapshot_read(both.snapshot, 0, 0, buf, 1), 0);
	expect(vmf_snapshot_read(both.snapshot, 1, 0, buf + 1, 1), 0);
	check(buf[0] != 3 && buf[1] == 2);
	check_changed(both.p, 0, 3);
	check_changed(both.q, 0, 2);
	end();
}
END_TEST

int
main(void)
{
	const struct race races[] = {
		{ "fault and unmap", fault_unmap, 3 },
		{ "fault and protect", fault_protect, 1 },
		{ "writer and snapshot", writer_snapshot, 4 },
		{ "copy-up and snapshot", copy_up_snapshot, 1 },
		{ "page-in and snapshot", page_in_snapshot, 1 },
		{ "fault and fork", fault_fork, 4 },
		{ "the cut is closed", cut_is_closed, 1 },
	};

	return run_races("races", races, nitems(races));
}
