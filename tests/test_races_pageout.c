/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Races with pages that are on their way out.  The pager does not answer until it is told to, so
 * pages of p are in the laundry for as long as the other half of the race wants.  Then it
 * answers: the write
 * succeeds, or fails, and every byte is looked at.  How it is done: race.h.
 */

#include <errno.h>

#include "physmem.h"
#include "race.h"
#include "task.h"
#include "testpager.h"
#include "trap.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_page.h"
#include "vm_pageout.h"
#include "vm_pdpolicy.h"

enum { FRAMES = 128, BALLAST = 4 * FRAMES };

static char *p, *ballast;
static struct actor filler;

static uint16_t
flags_of(struct vm_object *o, vm_pindex_t i)
{
	struct vm_page *m;
	uint16_t flags;
	sys_sigset_t old;

	trap_enter(&old);
	vm_object_lock(o);
	m = vm_page_lookup(o, i);
	flags = m != NULL ? m->flags : 0;
	vm_object_unlock(o);
	trap_leave(&old);
	return flags;
}

static void
do_ballast(void *arg)
{
	fill_pages(ballast, BALLAST, 13);
}

static void
begin_pageout(void)
{
	vm_page_policy = &vm_pdpolicy_clock;	/* the oldest pages go first: p's */
	testpager_reset();
	start(FRAMES * PG, 0);
	touch_install();
	testpager_default();
	testpager.async = true;
	p = filled();
	ballast = alloc(BALLAST);
}

/* Fill memory until pages of p are in the laundry, and all of them there or gone. */
static void
launder_p(void)
{
	struct vm_object *o = object_at(p);
	uint64_t end = now_ms() + SLOW_MS;

	testpager.stuck = testpager_all;
	go(&filler, do_ballast, NULL, "none");
	while (!(flags_of(o, 0) & PG_LAUNDRY)) {
		check(now_ms() < end);
		usleep(500);
	}
}

static void
answer(bool well)
{
	testpager.put_error = well ? 0 : 2;
	testpager.stuck = NULL;
}

static void
end_pageout(void)
{
	finish(&filler);
	check_pages(ballast, BALLAST, 13);
	daemon_rest();
	testpager_reset();
	end();
}

/* A touch waits for the write, and is not lost, whatever becomes of the write. */
START_TEST(pageout_fault)
{
	bool write = _i & 1, well = _i & 2;
	struct act x = { .byte = 77 };
	struct actor a;

	begin_pageout();
	launder_p();
	x.p = p;
	go(&a, write ? do_write : do_read, &x, "vm_fault: wait for busy page");
	meet(&a);
	release(&a);
	check_waits(&a);
	answer(well);
	finish(&a);
	if (write)
		check_changed(p, 0, 77);
	else
		check(x.byte == p[0]);
	end_pageout();
}
END_TEST

START_TEST(pageout_unmap)
{
	struct act x = { .result = 1 };
	struct actor a;

	begin_pageout();
	launder_p();
	x.p = p;
	go(&a, do_unmap, &x, "none");
	check_waits(&a);		/* the object's end waits for the pager */
	answer(_i);
	finish(&a);
	expect(x.result, 0);
	expect_read(p, SIGSEGV, SEGV_MAPERR);
	end_pageout();
}
END_TEST

/* A snapshot does not wait; what is written afterwards is pushed to it first. */
START_TEST(pageout_snapshot)
{
	struct act x = { .byte = 78 };
	vmf_snapshot_t s;
	struct actor a;

	begin_pageout();
	launder_p();
	s = snap(p, PAGES);
	x.p = p;
	go(&a, do_write, &x, "vm_fault: wait for busy page");
	meet(&a);
	answer(_i);
	let(&a);
	check_changed(p, 0, 78);
	check_snapshot(s, 0);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, PAGES, 9);
	end_pageout();
}
END_TEST

START_TEST(pageout_wire)
{
	struct act x = { .result = 1 };
	struct actor a;

	begin_pageout();
	launder_p();
	x.p = p;
	go(&a, do_wire, &x, "none");
	check_waits(&a);
	answer(_i);
	finish(&a);
	expect(x.result, 0);
	check(STAT(v_wire_count) == PAGES);
	for (vm_pindex_t i = 0; i < PAGES; i++)
		check(!(flags_of(object_at(p), i) & (PG_BUSY | PG_LAUNDRY)));
	fill_pages(p, PAGES, 10);
	check_pages(p, PAGES, 10);
	end_pageout();
}
END_TEST

START_TEST(pageout_rollback)
{
	struct act x = { .result = 1 };
	struct actor a;

	begin_pageout();
	x.snapshot = snap(p, PAGES);
	fill_pages(p, PAGES, 10);
	launder_p();
	go(&a, do_rollback, &x, "none");
	check_waits(&a);
	answer(_i);
	finish(&a);
	expect(x.result, 0);
	check_pages(p, PAGES, 9);
	check_snapshot(x.snapshot, 0);
	end_pageout();
}
END_TEST

/*
 * The view is all that is left of the snapshot: the two objects would be merged, but for the transfer of
 * the one below.  They are when the next fault comes by.
 */
START_TEST(pageout_collapse)
{
	vmf_snapshot_t s;
	char *v;

	begin_pageout();
	s = snap(p, PAGES);
	v = view(s, PAGES, VMF_PROT_DEFAULT);
	launder_p();
	expect(vmf_snapshot_release(s), 0);
	expect(vmf_inherit(p, PG, VMF_INHERIT_NONE), 0);
	check(flags_of(object_at(p), 0) & PG_LAUNDRY);
	answer(_i);
	fill_pages(v, PAGES / 2, 11);
	check_pages(p, PAGES, 9);
	check_pages(v, PAGES / 2, 11);
	for (size_t i = PAGES / 2; i < PAGES; i++)
		check_fill(v + i * PG, PG, mix(9, i));
	end_pageout();
}
END_TEST

/* It has ended, but nobody has noted that yet: the page is untouched, and somebody comes for it. */
static struct actor disk_stop = { .place = "vm_clean: washed" };

static void
stop_disk(const char *place)
{
	if (self == NULL && strcmp(place, disk_stop.place) == 0)
		self = &disk_stop;
	stop_here(place);
}

START_TEST(pageout_end_fault)
{
	struct act x = { .byte = 79 };
	struct actor a;

	begin_pageout();
	launder_p();
	probe_hook = stop_disk;
	answer(true);
	meet(&disk_stop);
	x.p = p;
	go(&a, _i ? do_write : do_read, &x, "vm_fault: wait for busy page");
	probe_hook = stop_disk;
	release(&disk_stop);
	let(&a);
	if (_i)
		check_changed(p, 0, 79);
	else
		check(x.byte == p[0]);
	end_pageout();
}
END_TEST

/*
 * The budget
 */

struct resize {
	uint64_t frames;
	int result;
};

static void
do_resize(void *arg)
{
	struct resize *r = arg;

	r->result = vmf_set_memory(r->frames * PG);
}

/* So many frames in use that nothing but an unmap frees, and a page after them. */
static void
begin_stuck(size_t frames)
{
	start(FRAMES * PG, 0);
	touch_install();
	p = alloc(FRAMES);
	expect(vmf_advise(p, FRAMES * PG, VMF_ADVICE_RANDOM), 0);
	fill_pages(p, frames, 9);
}

/*
 * A thread finds no frame while a budget is tried that cannot be reached.  It waits until the old
 * one is back, or, if it comes to its conclusion late, changes nothing: not that, nor the next.
 */
START_TEST(pageout_budget_put_back)
{
	struct resize r = { .frames = FRAMES / 2 };
	struct actor resizer, a;
	struct act x;

	begin_stuck(FRAMES / 2 + 1);
	x.p = p + (FRAMES - 1) * PG;
	go(&resizer, do_resize, &r, "vm_pageout_resize: smaller");
	meet(&resizer);
	go(&a, do_touch_write, &x, "vm_wait: nothing to be had");
	meet(&a);
	if (_i == 0) {
		release(&a);
		check_waits(&a);
	}
	let(&resizer);
	expect(r.result, -ENOMEM);
	check(STAT(v_page_count) == FRAMES);
	expect(vmf_set_memory(2 * FRAMES * PG), 0);
	let(&a);
	check(x.touch.signo == 0);
	check(STAT(v_page_count) == 2 * FRAMES);
	check_pages(p, FRAMES / 2 + 1, 9);
	end();
}
END_TEST

/* A budget fits but for frames that somebody is giving back to the kernel: that is waited for. */
static void
do_flush(void *arg)
{
	sys_sigset_t old;

	trap_enter(&old);
	(void)physmem_flush(UINT32_MAX);
	trap_leave(&old);
}

START_TEST(pageout_budget_punching)
{
	struct resize r = { .frames = FRAMES / 2 };
	struct actor resizer, flusher;

	begin_stuck(FRAMES / 2 + 8);
	expect(vmf_unmap(p, 8 * PG), 0);
	go(&flusher, do_flush, NULL, "physmem_flush: punching");
	meet(&flusher);
	go(&resizer, do_resize, &r, "none");
	check_waits(&resizer);
	let(&flusher);
	finish(&resizer);
	expect(r.result, 0);
	check(STAT(v_dirty_free_count) == 0);
	end();
}
END_TEST

int
main(void)
{
	const struct race races[] = {
		{ "pageout and fault", pageout_fault, 4 },
		{ "pageout and unmap", pageout_unmap, 2 },
		{ "pageout and snapshot", pageout_snapshot, 2 },
		{ "pageout and wire", pageout_wire, 2 },
		{ "pageout and rollback", pageout_rollback, 2 },
		{ "pageout and collapse", pageout_collapse, 2 },
		{ "the end of pageout and fault", pageout_end_fault, 2 },
		{ "a budget that is put back and a fault", pageout_budget_put_back, 2 },
		{ "a smaller budget and the last punch", pageout_budget_punching, 1 },
	};

	return run_races("races of pageout", races, nitems(races));
}
