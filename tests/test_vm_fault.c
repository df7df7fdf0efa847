/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The page fault, stage by stage, and what can happen to it on the way.
 *
 * A fault that waits for a pager holds no lock: the probes let a test change the world at just
 * that moment, in the very thread, and see that the fault notices.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "kern/sys.h"
#include "suite.h"
#include "support.h"
#include "testpager.h"
#include "vm_meter.h"
#include "vm_object.h"

enum { PAGES = 8 };

/* Key of what a page holds at first, and after a change by the test's hand. */
enum { OLD = 1, NEW };

static char *mem, *mem2;
static vmf_snapshot_t snapshot;

static void
setup(void)
{
	testpager_reset();
	start(0, 0);
	testpager_default();
	mem = mem2 = NULL;
	snapshot = 0;
}

static void
teardown(void)
{
	at_end();
	stop();
	ck_assert_uint_eq(testpager_counts.pagers, 0);
	ck_assert_uint_eq(testpager_counts.pages, 0);
}

static char *
alloc_single(size_t pages)
{
	char *p = alloc(pages);

	expect(vmf_advise(p, pages * PG, VMF_ADVICE_RANDOM), 0);
	return p;
}

static unsigned
info(const void *addr)
{
	unsigned char bits;

	expect(vmf_page_info(addr, PG, &bits), 0);
	return bits;
}

static void
check_snapshot(vmf_snapshot_t s, size_t pages, uint64_t key)
{
	char buf[VMF_PAGE_SIZE], want[VMF_PAGE_SIZE];

	for (size_t i = 0; i < pages; i++) {
		expect(vmf_snapshot_read(s, 0, i * PG, buf, PG), 0);
		fill(want, PG, mix(key, i));
		if (memcmp(buf, want, PG) != 0)
			die("page %zu of the snapshot is not what it was", i);
	}
}

/* Take the rights away and give them back: the next write faults. */
static void
unmap_rights(char *p, size_t pages)
{
	expect(vmf_protect(p, pages * PG, VMF_PROT_NONE), 0);
	expect(vmf_protect(p, pages * PG, VMF_PROT_DEFAULT), 0);
}

static void
page_out(char *p)
{
	struct vm_object *o = object_at(p);

	if (o->pager == NULL)
		give_pager(o, 0);
	evict(o);
}

/*
 * The stages
 */

START_TEST(memory_that_was_never_touched_is_zero)
{
	char *p = alloc_single(PAGES);

	check_zero(p, 2 * PG);
	ck_assert_uint_eq(vm_meter_read(VMC_v_zfod), 2);
	fill_pages(p, PAGES, OLD);
	ck_assert_uint_eq(vm_meter_read(VMC_v_zfod), PAGES);
	ck_assert_uint_eq(frames_used(), PAGES);
	ck_assert_uint_eq(depth_at(p), 1);
	audit();
}
END_TEST

START_TEST(a_write_to_what_lies_below_copies_it_up)
{
	char *p = alloc_single(PAGES), *v;

	fill_pages(p, PAGES, OLD);
	snapshot = snap(p, PAGES);
	v = view(snapshot, PAGES, VMF_PROT_DEFAULT);
	expect(vmf_advise(v, PAGES * PG, VMF_ADVICE_RANDOM), 0);
	check_pages(v, PAGES, OLD);
	v[3 * PG] = 1;
	v[3 * PG + 1] = 2;
	ck_assert_uint_eq(vm_meter_read(VMC_v_cow_faults), 1);
	ck_assert_uint_eq(info(v + 3 * PG) & VMF_PAGE_SHADOWED, 0);
	ck_assert_uint_ne(info(v + 4 * PG) & VMF_PAGE_SHADOWED, 0);
	audit();
	check_pages(p, PAGES, OLD);
	check_snapshot(snapshot, PAGES, OLD);
}
END_TEST

START_TEST(a_write_pushes_what_the_copy_lacks_and_only_once)
{
	char *p = alloc_single(PAGES);

	fill_pages(p, PAGES, OLD);
	snapshot = snap(p, PAGES);
	fill_pages(p, 4, NEW);
	unmap_rights(p, PAGES);
	fill_pages(p, 4, NEW);
	ck_assert_uint_eq(vm_meter_read(VMC_v_pushes), 4);
	audit();
	check_pages(p, 4, NEW);
	check_snapshot(snapshot, PAGES, OLD);
}
END_TEST

/* _i: the default pager can be asked under locks. */
START_TEST(what_the_copy_has_paged_out_is_not_pushed_again)
{
	char *p = alloc_single(PAGES);
	struct vm_object *c;

	testpager.queryable = _i;
	fill_pages(p, PAGES, OLD);
	snapshot = snap(p, PAGES);
	fill_pages(p, 4, NEW);
	c = object_at(p)->copy;
	give_pager(c, 2);
	evict(c);
	unmap_rights(p, PAGES);
	fill_pages(p, PAGES, 3);		/* four of them are owed */
	ck_assert_uint_eq(vm_meter_read(VMC_v_pushes), PAGES);
	ck_assert_uint_eq(testpager_counts.asked != 0, _i == 0);
	audit();
	check_pages(p, PAGES, 3);
	check_snapshot(snapshot, PAGES, OLD);
	evict(c);
	check_snapshot(snapshot, PAGES, OLD);
}
END_TEST

/* The same, with neighbours that come along in one cluster. */
START_TEST(a_cluster_pushes_no_page_that_the_copy_has_paged_out)
{
	char *p = alloc(64);
	struct vm_object *c;

	testpager.queryable = _i;
	fill_pages(p, 64, OLD);
	snapshot = snap(p, 64);
	fill_pages(p, 64, NEW);
	c = object_at(p)->copy;
	give_pager(c, 0);
	evict(c);
	unmap_rights(p, 64);
	fill_pages(p, 64, 3);
	audit();
	check_snapshot(snapshot, 64, OLD);
}
END_TEST

static vmf_snapshot_t newer;

static void
take_newer(void)
{
	newer = snap(mem, PAGES - 2);
}

static void
release_it(void)
{
	expect(vmf_snapshot_release(snapshot), 0);
}

/* While the copy's pager is asked, a newer copy comes, or the copy goes. */
START_TEST(the_copy_that_was_asked_may_be_another_one_afterwards)
{
	enum { N = PAGES - 2 };

	for (int has = 0; has < 2; has++) {
		/* Not from the start, so that a place between two objects is not the same in both. */
		char *all = alloc_single(N + 2), *p = mem = all + 2 * PG;
		struct vm_object *c;

		testpager.queryable = false;
		fill_pages(p, N, OLD);
		snapshot = snap(p, N);
		fill(p, PG, mix(OLD, 0));	/* pushed: pager has it */
		c = object_at(p)->copy;
		give_pager(c, 0);
		evict(c);
		unmap_rights(p, N);
		at("vm_fault: asked the copy's pager", 1, _i == 0 ? take_newer : release_it);
		fill(p + (has ? 0 : PG), PG, NEW);
		ck_assert_uint_ge(at_passed(), 1);
		at_end();
		audit();
		check_fill(p + (has ? 0 : PG), PG, NEW);
		fill_pages(p, N, NEW);
		if (_i == 0) {
			check_snapshot(newer, N, OLD);
			check_snapshot(snapshot, N, OLD);
			expect(vmf_snapshot_release(newer), 0);
			check_snapshot(snapshot, N, OLD);
			expect(vmf_snapshot_release(snapshot), 0);
		}
		audit();
		expect(vmf_unmap(all, (N + 2) * PG), 0);
		ck_assert_uint_eq(frames_used(), 0);
		ck_assert_uint_eq(objects_alive(), 0);
	}
}
END_TEST

START_TEST(an_io_error_is_not_a_hole)
{
	char *p = alloc_single(PAGES), *v, buf[16];

	fill_pages(p, PAGES, OLD);
	snapshot = snap(p, PAGES);
	v = view(snapshot, PAGES, VMF_PROT_DEFAULT);
	page_out(p);
	testpager.get_error = -1;
	expect_read(p + 5, SIGBUS, BUS_ADRERR);
	expect_write(p + PG, SIGBUS, BUS_ADRERR);
	expect_read(v + 2 * PG, SIGBUS, BUS_ADRERR);
	expect_write(v + 3 * PG, SIGBUS, BUS_ADRERR);
	expect(vmf_read(p, buf, sizeof(buf)), -EIO);
	expect(vmf_snapshot_read(snapshot, 0, 0, buf, sizeof(buf)), -EIO);
	expect(vmf_wire(p, PAGES * PG), -EIO);
	audit();
	testpager.get_error = 0;
	check_pages(v, PAGES, OLD);
	check_pages(p, PAGES, OLD);
	audit();
}
END_TEST

START_TEST(a_pager_that_says_again_is_asked_again)
{
	char *p = alloc_single(PAGES);

	fill_pages(p, PAGES, OLD);
	page_out(p);
	testpager.get_again = 20;
	check_pages(p, PAGES, OLD);
	ck_assert_uint_ge(testpager_counts.gets, 20 + PAGES);
	page_out(p);
	testpager.get_again = -1;		/* but not for ever */
	expect_read(p, SIGBUS, BUS_ADRERR);
	testpager.get_again = 0;
	check_pages(p, PAGES, OLD);
}
END_TEST

static void *
read_mem(void *arg)
{
	check_pages(mem, PAGES, OLD);
	return arg;
}

START_TEST(who_meets_a_busy_page_waits_for_it)
{
	pthread_t thread[4];

	mem = alloc_single(PAGES);
	fill_pages(mem, PAGES, OLD);
	page_out(mem);
	testpager_counts.gets = 0;
	testpager.delay = 30000;
	for (size_t i = 0; i < nitems(thread); i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, read_mem, NULL), 0);
	for (size_t i = 0; i < nitems(thread); i++)
		pthread_join(thread[i], NULL);
	ck_assert_uint_eq(testpager_counts.gets, PAGES);
	ck_assert_uint_gt(vm_meter_read(VMC_v_intrans), 0);
	audit();
}
END_TEST

/*
 * The world changes while the map is unlocked
 */

static void
do_unmap(void)
{
	expect(vmf_unmap(mem, PAGES * PG), 0);
}

static void
do_forbid(void)
{
	expect(vmf_protect(mem, PAGES * PG, VMF_PROT_NONE), 0);
}

static void
do_forbid_writing(void)
{
	expect(vmf_protect(mem, PAGES * PG, VMF_PROT_READ), 0);
}

static void
do_remap(void)
{
	static char bytes[PAGES * VMF_PAGE_SIZE];
	void *p = mem;

	expect(vmf_unmap(mem, PAGES * PG), 0);
	expect(vmf_allocate(VMF_TASK_DEFAULT, &p, PAGES * PG, VMF_FIXED), 0);
	fill_pages(bytes, PAGES, NEW);
	expect(vmf_write(mem, bytes, sizeof(bytes)), 0);
}

static void
do_snapshot(void)
{
	newer = snap(mem, PAGES);
}

static void
do_copy_over(void)
{
	expect(vmf_copy(mem, mem2, PAGES * PG), 0);
}

static const struct change {
	void (*make)(void);
	int signo, code;	/* of a write */
	uint64_t key;		/* what is in memory then */
} changes[] = {
	{ do_unmap, SIGSEGV, SEGV_MAPERR, 0 },
	{ do_forbid, SIGSEGV, SEGV_ACCERR, 0 },
	{ do_forbid_writing, SIGSEGV, SEGV_ACCERR, OLD },
	{ do_remap, 0, 0, NEW },
	{ do_snapshot, 0, 0, OLD },
	{ do_copy_over, 0, 0, NEW },
};

static const char *const places[] = {
	"vm_fault: pager get", "vm_fault: pager got", "vm_fault: before relookup",
	"vm_fault: before copying up",
};

START_TEST(a_fault_notices_what_was_changed_meanwhile)
{
	const char *place = places[(size_t)_i % nitems(places)];
	const struct change *c = &changes[(size_t)_i / nitems(places)];
	char *p = alloc_single(PAGES);
	bool up = strcmp(place, "vm_fault: before copying up") == 0;

	mem2 = alloc(PAGES);
	fill_pages(mem2, PAGES, NEW);
	fill_pages(p, PAGES, OLD);
	mem = p;
	if (up) {
		/* A view, with what is below paged out, so that the map is unlocked. */
		snapshot = snap(p, PAGES);
		mem = view(snapshot, PAGES, VMF_PROT_DEFAULT);
		expect(vmf_advise(mem, PAGES * PG, VMF_ADVICE_RANDOM), 0);
	}
	page_out(p);
	at(place, 1, c->make);
	expect_write(mem + 3 * PG, c->signo, c->code);
	ck_assert_uint_ge(at_passed(), 1);
	at_end();
	audit();
	for (size_t i = 0; c->key != 0 && i < PAGES; i++) {
		char want[VMF_PAGE_SIZE];

		fill(want, PG, mix(c->key, i));
		if (i == 3 && c->signo == 0)
			want[0] = 1;
		if (memcmp(mem + i * PG, want, PG) != 0)
			die("page %zu is wrong", i);
	}
	if (c->make == do_snapshot)
		check_snapshot(newer, PAGES, OLD);
	check_pages(mem2, PAGES, NEW);
	if (up)
		check_pages(p, PAGES, OLD);
	audit();
}
END_TEST

static void *
release_in_thread(void *arg)
{
	release_it();
	return arg;
}

/* The map is locked at this place: another thread does it. */
static void
release_from_outside(void)
{
	pthread_t thread;

	check(pthread_create(&thread, NULL, release_in_thread, NULL) == 0);
	pthread_join(thread, NULL);
}

/* What would collapse must wait until the fault is through. */
START_TEST(a_chain_may_change_before_it_is_locked)
{
	char *p = mem = alloc_single(PAGES), *v;
	vmf_snapshot_t s;

	fill_pages(p, PAGES, OLD);
	s = snap(p, PAGES);
	v = view(s, PAGES, VMF_PROT_DEFAULT);
	fill(v, PG, NEW);
	snapshot = snap(v, PAGES);
	v = view(snapshot, PAGES, VMF_PROT_DEFAULT);
	fill(v + PG, PG, NEW);
	expect(vmf_snapshot_release(s), 0);
	at("vm_fault: before locking the chain", 1, release_from_outside);
	check_fill(v + 2 * PG, PG, mix(OLD, 2));
	ck_assert_uint_ge(at_passed(), 1);
	at_end();
	audit();
	check_fill(v, PG, NEW);
	check_fill(v + PG, PG, NEW);
	fill_pages(p, PAGES, 3);
	check_fill(v + 2 * PG, PG, mix(OLD, 2));
	check_fill(v + 3 * PG, PG, mix(OLD, 3));
	audit();
}
END_TEST

static void
unmap_and_reuse(void)
{
	expect(vmf_unmap(mem, PAGES * PG), 0);
	for (int i = 0; i < 64; i++)
		(void)alloc(1);
}

/* The second pager of a chain is asked with the map unlocked: the entry may be gone. */
START_TEST(two_pagers_in_one_chain_and_the_entry_goes)
{
	char *p = alloc(PAGES);
	struct vm_object *c;

	testpager.queryable = false;
	fill_pages(p, PAGES, OLD);
	snapshot = snap(p, PAGES);
	mem = view(snapshot, PAGES, VMF_PROT_READ);
	c = object_at(mem);
	give_pager(c, 0);
	page_out(p);
	at("vm_fault: pager got", 1, unmap_and_reuse);
	check_zero(mem, PG);			/* mapped anew */
	ck_assert_uint_ge(at_passed(), 2);
	at_end();
	audit();
	check_snapshot(snapshot, PAGES, OLD);
}
END_TEST

START_TEST(what_is_too_deep_is_brought_forward)
{
	enum { LEVELS = VM_CHAIN_MAX + 8 };
	char *v = alloc_single(32);
	uint64_t copied;

	fill_pages(v, 32, OLD);
	for (size_t i = 1; i < LEVELS; i++) {
		v = view(snap(v, 32), 32, VMF_PROT_DEFAULT);
		expect(vmf_advise(v, 32 * PG, VMF_ADVICE_RANDOM), 0);
		fill(v + i * PG, PG, i);
	}
	ck_assert_uint_gt(depth_at(v), VM_CHAIN_MAX);
	copied = vm_meter_read(VMC_v_cow_faults);
	check_fill(v, PG, mix(OLD, 0));
	ck_assert_uint_eq(vm_meter_read(VMC_v_cow_faults), copied + 1);
	ck_assert_uint_eq(info(v) & VMF_PAGE_SHADOWED, 0);
	check_fill(v + (LEVELS - 2) * PG, PG, LEVELS - 2);
	ck_assert_uint_eq(vm_meter_read(VMC_v_cow_faults), copied + 1);
	for (size_t i = 1; i < LEVELS; i++)
		check_fill(v + i * PG, PG, i);
	audit();
}
END_TEST

/* It is memory for the library's own structures that there is none of; nobody brings any. */
static int
no_mmap(enum sys_call which)
{
	return which == SYS_CALL_MMAP ? -ENOMEM : 0;
}

START_TEST(without_memory_for_objects_a_fault_fails_and_ends)
{
	enum { OBJECTS = 4096 };
	char *p = alloc(2 * OBJECTS);
	struct touch t = { 0 };
	size_t i;

	for (i = 0; i < OBJECTS; i++)
		expect(vmf_unmap(p + (2 * i + 1) * PG, PG), 0);
	sys_inject = no_mmap;
	for (i = 0; i < OBJECTS && t.signo == 0; i++)
		t = touch_write(p + 2 * i * PG);
	sys_inject = NULL;
	ck_assert_int_eq(t.signo, SIGBUS);
	for (i = 0; i < OBJECTS; i++)
		fill(p + 2 * i * PG, PG, i);
	for (i = 0; i < OBJECTS; i++)
		check_fill(p + 2 * i * PG, PG, i);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vm_fault");
	TCase *t = tcase_create("stages"), *u = tcase_create("changes");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, memory_that_was_never_touched_is_zero);
	tcase_add_test(t, a_write_to_what_lies_below_copies_it_up);
	tcase_add_test(t, a_write_pushes_what_the_copy_lacks_and_only_once);
	tcase_add_loop_test(t, what_the_copy_has_paged_out_is_not_pushed_again, 0, 2);
	tcase_add_loop_test(t, a_cluster_pushes_no_page_that_the_copy_has_paged_out, 0, 2);
	tcase_add_loop_test(t, the_copy_that_was_asked_may_be_another_one_afterwards, 0, 2);
	tcase_add_test(t, an_io_error_is_not_a_hole);
	tcase_add_test(t, a_pager_that_says_again_is_asked_again);
	tcase_add_test(t, who_meets_a_busy_page_waits_for_it);
	tcase_add_test(t, without_memory_for_objects_a_fault_fails_and_ends);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(u, setup, teardown);
	tcase_add_loop_test(u, a_fault_notices_what_was_changed_meanwhile, 0,
	    (int)(nitems(places) * nitems(changes)));
	tcase_add_test(u, a_chain_may_change_before_it_is_locked);
	tcase_add_test(u, two_pagers_in_one_chain_and_the_entry_goes);
	tcase_add_test(u, what_is_too_deep_is_brought_forward);
	suite_add_tcase(s, u);
	return run_suite(s);
}
