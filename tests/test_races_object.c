/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Races inside of objects: collapse and release against faults and pushes, faults against each
 * other, and what waits for a page or an entry: wiring, rollback, cleaning, pageout.  How it is
 * done: race.h.
 */

#include "race.h"
#include "testpager.h"
#include "trap.h"
#include "vm_object.h"

/*
 * Fault against collapse, and the end of a snapshot
 */

/* A reader stands on a page two objects down; what is between is let go. */
START_TEST(fault_collapse)
{
	struct act x = { 0 };
	vmf_snapshot_t s;
	struct actor a;
	char *p, *v;

	begin();
	p = filled();
	s = snap(p, PAGES);
	v = view(s, PAGES, VMF_PROT_DEFAULT);
	v[0] = 5;
	p[0] = 6;
	x.p = v + PG;
	go(&a, do_read, &x, "vm_fault: before locking the chain");
	meet(&a);
	expect(vmf_snapshot_release(s), 0);
	check(vm_object_count() == 3);		/* not yet: it would be under the reader's feet */
	let(&a);
	check(x.byte == p[PG]);
	check_changed(v, 0, 5);
	check_changed(p, 0, 6);
	check_changed(v, 1, x.byte);
	end();
}
END_TEST

/* A writer that finds the copy object locked tries again: by then it may be gone. */
START_TEST(push_release)
{
	struct act x = { .byte = 80 };
	struct vm_object *copy;
	vmf_snapshot_t s;
	struct actor a;

	begin();
	x.p = filled();
	s = snap(x.p, PAGES);
	copy = object_at(x.p)->copy;
	vm_object_lock(copy);
	go(&a, do_write, &x, "vm_fault: copy object busy");
	meet(&a);
	vm_object_unlock(copy);
	if (_i)
		expect(vmf_snapshot_release(s), 0);
	let(&a);
	check_changed(x.p, 0, 80);
	if (!_i)
		check_snapshot(s, 0);
	check(STAT(v_pushes) == (_i ? 0 : 1));
	end();
}
END_TEST

static void
do_protect(void *arg)
{
	struct act *x = arg;

	x->result = vmf_protect(x->p, PAGES * PG, VMF_PROT_DEFAULT);
}

/* A page that is pushed goes from whoever sees it through the copy, entries that just grow together included. */
START_TEST(push_simplify)
{
	struct act x = { .result = 1 };
	vmf_task_t task;
	vmf_snapshot_t s;
	struct actor a;
	void *v = NULL;
	char *p;

	begin();
	p = filled();
	s = snap(p, PAGES);
	/* The view in a task of its own: the writer must not need the map that is changed. */
	expect(vmf_task_create(PAGES * PG, &task), 0);
	expect(vmf_snapshot_map(s, 0, 0, PAGES * PG, task, &v, 0, VMF_PROT_DEFAULT), 0);
	x.p = v;
	/* Lest a fault on one page bring the right frames of its neighbours with it. */
	expect(vmf_advise(x.p, PAGES * PG, VMF_ADVICE_RANDOM), 0);
	expect(vmf_protect(x.p + PAGES / 2 * PG, PAGES / 2 * PG, VMF_PROT_READ), 0);
	check_pages(x.p, PAGES, 9);
	go(&a, do_protect, &x, "vm_map_simplify: joining");
	meet(&a);
	fill_pages(p, PAGES, 10);
	let(&a);
	expect(x.result, 0);
	check_pages(x.p, PAGES, 9);
	check_pages(p, PAGES, 10);
	end();
}
END_TEST

/* A second snapshot finds the first one's copy locked; by then it has been released. */
START_TEST(snapshot_release)
{
	struct vm_object *copy;
	struct act x = { 0 };
	vmf_snapshot_t s;
	struct actor a;

	begin();
	x.p = filled();
	s = snap(x.p, PAGES);
	*x.p = 5;
	copy = object_at(x.p)->copy;
	vm_object_lock(copy);
	go(&a, do_snapshot, &x, "vm_object_copy: old copy busy");
	meet(&a);
	vm_object_unlock(copy);
	expect(vmf_snapshot_release(s), 0);
	let(&a);
	fill_pages(x.p, 1, 11);
	expect(vmf_snapshot_rollback(x.snapshot), 0);
	check_changed(x.p, 0, 5);
	end();
}
END_TEST

/*
 * Fault against fault
 */

START_TEST(two_faults)
{
	struct act x = { .byte = 81 }, y;
	struct actor a, b;
	vmf_pager_t pager;

	begin();
	x.p = map_pager(VMF_MAP_SHARED, &pager);
	y = (struct act){ .p = x.p + 1 };
	ngets = 0;
	go(&a, do_write, &x, "vm_fault: pager get");
	meet(&a);
	go(&b, do_read, &y, "vm_fault: wait for busy page");
	meet(&b);
	if (_i)
		release(&b);		/* asleep when the page comes, or still on the way there */
	let(&a);
	let(&b);
	check(ngets == 1);
	check_changed(x.p, 0, 81);
	check((char)y.byte == x.p[1]);
	check(STAT(v_intrans) >= 1);
	end();
}
END_TEST

START_TEST(two_copies_up)
{
	struct act x = { .byte = 1 }, y = { .byte = 2 };
	struct actor a, b;
	vmf_snapshot_t s;
	char *p;

	begin();
	p = filled();
	s = snap(p, PAGES);
	x.p = view(s, PAGES, VMF_PROT_DEFAULT);
	y.p = x.p + PG - 1;
	go(&a, do_write, &x, "vm_fault: before copying up");
	meet(&a);
	go(&b, do_write, &y, "vm_fault: wait for busy page");
	meet(&b);
	let(&a);
	let(&b);
	check(STAT(v_cow_faults) == 1);
	check(x.p[0] == 1 && x.p[PG - 1] == 2);
	check(memcmp(x.p + 1, p + 1, PG - 2) == 0);
	check_pages(p, PAGES, 9);
	end();
}
END_TEST

/*
 * Unmapping, and a shadow that comes between
 */

struct away {
	struct vm_object *o;
	bool forget;
	char first;
};

static void
do_unmap_pages(void *arg)
{
	struct away *x = arg;
	sys_sigset_t old;

	trap_enter(&old);
	vm_object_lock(x->o);
	if (!x->forget || !vm_object_forget(x->o, 0, PAGES))
		vm_object_unmap(x->o, 0, PAGES);
	for (vm_pindex_t i = 0; i < PAGES; i++)
		check(!vm_object_page_mapped(vm_page_lookup(x->o, i)));
	vm_object_unlock(x->o);
	trap_leave(&old);
}

/* Who unmaps pages has their object locked; meanwhile what maps it gets a shadow, and is found through that only. */
START_TEST(unmap_shadow)
{
	struct act y = { .byte = 82 };
	uint64_t limit = now_ms() + SLOW_MS;
	struct actor a, b;
	struct away x;
	vmf_task_t task;

	begin();
	y.p = filled();
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &task), 0);
	check_pages(y.p, PAGES, 9);	/* mapped, to be read */
	x = (struct away){ object_at(y.p), _i, y.p[0] };
	go(&a, do_unmap_pages, &x, _i ? "vm_object_forget: object locked" : "vm_object_unmap: object locked");
	meet(&a);
	go(&b, do_write, &y, "none");
	while (object_at(y.p) == x.o) {
		check(now_ms() < limit);
		usleep(200);
	}
	check(!b.ended);
	let(&a);
	finish(&b);
	check_changed(y.p, 0, 82);
	y.p[0] = x.first;
	check_pages(y.p, PAGES, 9);
	expect(vmf_task_destroy(task), 0);
	end();
}
END_TEST

/*
 * Wiring, rollback, cleaning
 */

START_TEST(wire_unmap)
{
	struct act x = { .result = 1 }, y = { .result = 1 };
	struct actor a, b;

	begin();
	x.p = y.p = filled();
	go(&a, do_wire, &x, "vm_map_wire: between the passes");
	meet(&a);
	go(&b, do_unmap, &y, "none");
	check_waits(&b);
	let(&a);
	finish(&b);
	expect(x.result, 0);
	expect(y.result, 0);
	expect_read(x.p, SIGSEGV, SEGV_MAPERR);
	check(STAT(v_wire_count) == 0);
	end();
}
END_TEST

START_TEST(rollback_writer)
{
	static const char *const places[] = { "rollback: frozen", "rollback: writing" };
	struct act x = { .result = 1 }, w = { .byte = 90 }, r = { 0 };
	struct actor a, b, c;

	begin();
	x.p = filled();
	x.snapshot = snap(x.p, PAGES);
	fill_pages(x.p, 4, 12);
	go(&a, do_rollback, &x, places[_i]);
	meet(&a);
	/* Whoever would see pages that go back waits; then all of it has happened. */
	w.p = x.p + PG;
	go(&b, do_write, &w, "vm_fault: wait for a cut");
	r.p = x.p + 2 * PG;
	go(&c, do_read, &r, "vm_fault: wait for a cut");
	meet(&b);
	meet(&c);
	release(&b);
	check_waits(&b);
	let(&a);
	finish(&b);
	let(&c);
	expect(x.result, 0);
	check_changed(x.p, 1, 90);
	check(r.byte == x.p[2 * PG]);
	x.p[PG] = 0;
	check_snapshot(x.snapshot, 0);
	expect(vmf_snapshot_rollback(x.snapshot), 0);
	check_pages(x.p, PAGES, 9);
	end();
}
END_TEST

/* Pages that stay writable from one rollback to the next are out of reach during each, and writable after it. */
START_TEST(rollback_hot_writer)
{
	static const char *const places[] = { "rollback: frozen", "rollback: writing" };
	struct act x = { .result = 1 }, w = { .byte = 90 }, r = { 0 };
	struct actor a, b, c;
	unsigned char bits;
	uint64_t faults;

	begin();
	x.p = filled();
	x.snapshot = snap(x.p, PAGES);
	for (int i = 0; i < 4; i++) {
		fill_pages(x.p, 4, 12);
		go(&a, do_rollback, &x, "none");
		finish(&a);
	}
	expect(vmf_page_info(x.p + PG, PG, &bits), 0);
	check(bits & VMF_PAGE_WRITABLE);
	faults = STAT(v_vm_faults);
	fill_pages(x.p, 4, 13);
	check(STAT(v_vm_faults) == faults);
	go(&a, do_rollback, &x, places[_i]);
	meet(&a);
	w.p = x.p + PG;
	go(&b, do_write, &w, "vm_fault: wait for a cut");
	r.p = x.p + 2 * PG;
	go(&c, do_read, &r, "vm_fault: wait for a cut");
	meet(&b);
	meet(&c);
	release(&b);
	check_waits(&b);
	let(&a);
	finish(&b);
	let(&c);
	expect(x.result, 0);
	check_changed(x.p, 1, 90);
	check(r.byte == x.p[2 * PG]);
	expect(vmf_snapshot_rollback(x.snapshot), 0);
	check_pages(x.p, PAGES, 9);
	check_snapshot(x.snapshot, 0);
	end();
}
END_TEST

/* A writer through another task, whose map is not locked, comes when it is known what goes back: too late. */
START_TEST(rollback_other_writer)
{
	struct act x = { .result = 1 }, w = { .byte = 90 };
	struct actor a, b;
	vmf_task_t task;
	char *q;

	begin();
	x.p = filled();
	q = other_view(x.p, &task);
	x.snapshot = snap(x.p, PAGES);
	fill_pages(q, 4, 12);
	if (_i) {
		expect(vmf_snapshot_rollback(x.snapshot), 0);
		fill_pages(q, 4, 12);
	}
	go(&a, do_rollback, &x, "rollback: looked");
	meet(&a);
	w.p = q + 7 * PG;
	go(&b, do_write, &w, "vm_fault: wait for a cut");
	meet(&b);
	release(&b);
	check_waits(&b);
	let(&a);
	finish(&b);
	expect(x.result, 0);
	check_changed(x.p, 7, 90);
	*w.p = 0;
	expect(vmf_snapshot_rollback(x.snapshot), 0);
	check_pages(x.p, PAGES, 9);
	check_pages(q, PAGES, 9);
	end();
}
END_TEST

/* While a page is written out a write to it waits, and makes it dirty again. */
START_TEST(clean_writer)
{
	struct act x = { .result = 1 }, w = { .byte = 92 };
	struct actor a, b;

	begin();
	x.p = map_pager(VMF_MAP_SHARED, &x.pager);
	*x.p = 91;
	go(&a, do_sync, &x, "vm_object_clean: put");
	meet(&a);
	w.p = x.p;
	go(&b, do_write, &w, "vm_fault: wait for busy page");
	meet(&b);
	let(&a);
	check_changed(store, 0, 91);
	let(&b);
	check_changed(x.p, 0, 92);
	expect(vmf_pager_sync(x.pager, 0, PAGES * PG), 0);
	check_changed(store, 0, 92);
	expect(nputs, 2);
	end();
}
END_TEST

/*
 * The daemon is about to write pages out.  Now they are written to, which waits for it; or all of it is
 * unmapped, and the end of the object waits.
 */
static struct actor daemon_stop = { .place = "vm_object_clean: put" };

static void
stop_daemon(const char *place)
{
	if (self == NULL && strcmp(place, daemon_stop.place) == 0)
		self = &daemon_stop;
	stop_here(place);
}

static void
do_fill(void *arg)
{
	struct act *x = arg;

	fill_pages(x->p, 60, 13);
}

static void
do_write_each(void *arg)
{
	struct act *x = arg;

	for (size_t i = 0; i < PAGES; i++)
		x->p[i * PG] = (char)x->byte;
}

static void
do_end(void *arg)
{
	struct act *x = arg;

	expect(vmf_unmap(x->p, PAGES * PG), 0);
	expect(vmf_pager_release(x->pager), 0);
}

START_TEST(pageout_writer)
{
	struct act x = { 0 }, y = { .byte = 1 };
	struct actor a, b;

	start(64 * PG, 0);
	touch_install();
	y.p = map_pager(VMF_MAP_SHARED, &y.pager);
	do_write_each(&y);
	x.p = alloc(60);
	go(&a, do_fill, &x, "none");
	probe_hook = stop_daemon;
	meet(&daemon_stop);
	y.byte = 2;
	go(&b, _i ? do_write_each : do_end, &y, _i ? "vm_fault: wait for busy page" : "none");
	probe_hook = stop_daemon;
	if (_i) {
		meet(&b);
		release(&b);
	}
	check_waits(&b);
	release(&daemon_stop);
	finish(&b);
	if (_i)
		do_end(&y);
	finish(&a);
	check_pages(x.p, 60, 13);
	end();
	for (size_t i = 0; i < PAGES; i++)
		check_changed(store, i, _i ? 2 : 1);
}
END_TEST

int
main(void)
{
	const struct race races[] = {
		{ "fault and collapse", fault_collapse, 1 },
		{ "push and release", push_release, 2 },
		{ "push and simplify", push_simplify, 1 },
		{ "snapshot and release", snapshot_release, 1 },
		{ "two faults", two_faults, 2 },
		{ "two copies up", two_copies_up, 1 },
		{ "unmapping and a shadow", unmap_shadow, 2 },
		{ "wire and unmap", wire_unmap, 1 },
		{ "rollback and writer", rollback_writer, 2 },
		{ "rollback and writer of hot pages", rollback_hot_writer, 2 },
		{ "rollback and writer in another task", rollback_other_writer, 2 },
		{ "cleaning and writer", clean_writer, 1 },
		{ "pageout and writer", pageout_writer, 2 },
	};

	return run_races("races of objects", races, nitems(races));
}
