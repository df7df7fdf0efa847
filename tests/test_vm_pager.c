/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Pagers: what the wrappers let through, pageout and back, and the threads of the user pager.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "suite.h"
#include "support.h"
#include "testpager.h"
#include "trap.h"
#include "vm_meter.h"
#include "vm_object.h"

enum { OLD = 1, NEW };

static void
setup(void)
{
	testpager_reset();
	start(0, 0);
	testpager_default();
}

static void
teardown(void)
{
	daemon_rest();
	stop();
	ck_assert_uint_eq(testpager_counts.pagers, 0);
	ck_assert_uint_eq(testpager_counts.pages, 0);
}

/*
 * The wrappers
 */

START_TEST(the_wrappers_keep_to_the_pager_s_size_and_count)
{
	struct vm_object *o = vm_object_allocate(4, true);
	struct testpager *t = testpager_make(2);
	char bytes[VMF_PAGE_SIZE];
	struct vm_page *m[4];
	sys_sigset_t old;
	uint32_t done = 9;

	fill(bytes, PG, OLD);
	testpager_store(t, 0, bytes);
	testpager_store(t, 1, bytes);
	trap_enter(&old);
	vm_object_lock(o);
	for (vm_pindex_t i = 0; i < nitems(m); i++)
		m[i] = vm_page_alloc(o, i, PHYSMEM_OVERWRITE);
	vm_object_unlock(o);
	/* What lies beyond is not asked for. */
	check(vm_pager_get(&t->pager, 2, m, 1, &done) == VM_PAGER_BAD && done == 0);
	check(testpager_counts.gets == 0);
	check(vm_pager_get(&t->pager, 0, m, 4, &done) == VM_PAGER_OK && done == 2);
	check(vm_meter_read(VMC_v_pageins) == 2);
	check(vm_pager_put(&t->pager, 1, m, 1, &done) == VM_PAGER_OK && done == 1);
	check(vm_meter_read(VMC_v_pageouts) == 1);
	testpager.get_error = testpager.put_error = 1;
	check(vm_pager_get(&t->pager, 0, m, 1, &done) == VM_PAGER_ERROR && done == 0);
	check(vm_pager_put(&t->pager, 0, m, 1, &done) == VM_PAGER_ERROR && done == 0);
	check(vm_meter_read(VMC_v_pager_errors) == 2);
	testpager.get_again = 1;
	check(vm_pager_get(&t->pager, 0, m, 1, &done) == VM_PAGER_AGAIN && done == 0);
	check(vm_meter_read(VMC_v_pager_errors) == 2);
	check(vm_pager_has_page(&t->pager, 1) && !vm_pager_has_page(&t->pager, 2));
	vm_pager_dispose(&t->pager, 0, 2);
	check(!vm_pager_has_page(&t->pager, 1));
	check(vm_pager_get(&t->pager, 0, m, 1, &done) == VM_PAGER_FAIL && done == 0);
	vm_object_lock(o);
	for (vm_pindex_t i = 0; i < nitems(m); i++)
		vm_page_free(m[i]);
	vm_object_unlock(o);
	handle_put(&t->pager.handle);
	vm_object_deallocate(o);
	trap_leave(&old);
}
END_TEST

/*
 * Pageout
 */

START_TEST(a_used_up_budget_is_an_error_in_bounded_time)
{
	char *p, *q, buf[8] = { 0 };

	expect(vmf_fini(), 0);
	testpager_reset();			/* no default pager */
	start(64 * PG, 0);
	q = alloc(2);
	fill_pages(q, 2, OLD);
	p = alloc(100);
	expect(vmf_advise(p, 100 * PG, VMF_ADVICE_RANDOM), 0);
	fill_pages(p, 62, OLD);
	expect_write(p + 64 * PG, SIGBUS, BUS_OBJERR);
	expect(vmf_write(p + 70 * PG, buf, sizeof(buf)), -ENOMEM);
	expect(vmf_wire(p + 70 * PG, PG), -EAGAIN);
	audit();
	check_pages(p, 62, OLD);
	expect(vmf_unmap(q, 2 * PG), 0);
	fill_pages(p + 64 * PG, 2, NEW);
	audit();
}
END_TEST

static const struct testpager_switches troubles[] = {
	{ 0 },
	{ .delay = 100 },
	{ .done_max = 1 },
	{ .put_fails_one_in = 4 },
	{ .put_fails_one_in = 3, .done_max = 2, .delay = 50 },
	{ .put_again = 10, .put_error = 10 },
};

START_TEST(a_working_set_of_four_budgets_loses_nothing)
{
	const struct testpager_switches *it = &troubles[(size_t)_i % nitems(troubles)];
	enum { BUDGET = 96, SET = 4 * BUDGET };
	static uint64_t key[SET];
	uint64_t seed = (uint64_t)_i + 1;
	vmf_snapshot_t snapshot = 0;
	char *p;

	expect(vmf_fini(), 0);
	start(BUDGET * PG, 0);
	testpager.put_fails_one_in = it->put_fails_one_in;
	testpager.done_max = it->done_max;
	testpager.delay = it->delay;
	testpager.put_again = it->put_again;
	testpager.put_error = it->put_error;
	p = alloc(SET);
	fill_pages(p, SET, OLD);
	for (size_t i = 0; i < SET; i++)
		key[i] = mix(OLD, i);
	for (size_t n = 0; n < 3 * SET; n++) {
		size_t i = rng_next(&seed) % SET;

		if (n == SET)
			snapshot = snap(p, SET);
		check_fill(p + i * PG, PG, key[i]);
		if (n % 3 == 0 && n < SET) {
			key[i] = n + 1000;
			fill(p + i * PG, PG, key[i]);
		}
	}
	audit();
	fill_pages(p, SET, NEW);
	check_pages(p, SET, NEW);
	for (size_t i = 0; i < SET; i++) {
		char buf[VMF_PAGE_SIZE];

		expect(vmf_snapshot_read(snapshot, 0, i * PG, buf, PG), 0);
		check_fill(buf, PG, key[i]);
	}
	audit();
	ck_assert_uint_gt(vm_meter_read(VMC_v_pageouts), SET);
	ck_assert_uint_gt(vm_meter_read(VMC_v_swpin), SET);
	ck_assert_uint_eq(vm_meter_read(VMC_v_swpout), vm_meter_read(VMC_v_pageouts));
	expect(vmf_snapshot_release(snapshot), 0);
	audit();
	check_pages(p, SET, NEW);
}
END_TEST

/*
 * The user pager
 */

static char source[64 * VMF_PAGE_SIZE];
static char *scratch;			/* managed memory that callbacks touch */
static _Atomic unsigned running, most, scratch_pages;
static _Atomic bool gate;

static int64_t
get(void *cookie, uint64_t offset, void *buf, size_t len)
{
	unsigned n = ++running, seen = most;

	while (n > seen && !atomic_compare_exchange_weak(&most, &seen, n))
		;
	while (gate)
		usleep(1000);
	for (unsigned i = 0; i < scratch_pages; i++)
		scratch[i * PG]++;
	memcpy(buf, source + offset, len);
	running--;
	return (int64_t)len;
}

static int64_t
put(void *cookie, uint64_t offset, const void *buf, size_t len)
{
	memcpy(source + offset, buf, len);
	return (int64_t)len;
}

static char *
map_user(unsigned deadline, unsigned flags, vmf_pager_t *pager)
{
	struct vmf_pager_ops ops = { .size = sizeof(ops), .get = get, .put = put };
	void *p = NULL;

	fill_pages(source, 64, OLD);
	expect(vmf_pager_create(&ops, NULL, sizeof(source), deadline, pager), 0);
	expect(vmf_map(VMF_TASK_DEFAULT, &p, sizeof(source), flags, *pager, 0, VMF_PROT_DEFAULT), 0);
	expect(vmf_advise(p, sizeof(source), VMF_ADVICE_RANDOM), 0);
	return p;
}

static char *user_mem;

static void *
read_one(void *arg)
{
	size_t i = (size_t)(uintptr_t)arg;

	check_fill(user_mem + i * PG, PG, mix(OLD, i));
	return NULL;
}

START_TEST(more_faults_than_workers_find_workers)
{
	pthread_t thread[24];
	vmf_pager_t pager;

	user_mem = map_user(0, VMF_MAP_PRIVATE, &pager);
	gate = true;
	for (size_t i = 0; i < nitems(thread); i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, read_one, (void *)(uintptr_t)i), 0);
	while (most <= 2)
		usleep(1000);
	gate = false;
	for (size_t i = 0; i < nitems(thread); i++)
		pthread_join(thread[i], NULL);
	audit();
	check_pages(user_mem, 64, OLD);
}
END_TEST

/* Callbacks that fault themselves, on memory that has been paged out, with no frame to spare. */
START_TEST(callbacks_may_fault_and_need_frames)
{
	vmf_pager_t pager;
	char *p, *ballast;

	expect(vmf_fini(), 0);
	start(96 * PG, 0);
	testpager.delay = 100;
	scratch = alloc(64);
	ballast = alloc(128);
	/* Shared: the daemon cleans neighbours of the page that is being asked for. */
	p = map_user(0, _i == 0 ? VMF_MAP_PRIVATE : VMF_MAP_SHARED, &pager);
	scratch_pages = 64;
	for (size_t i = 0; i < 64; i++) {
		fill(p + i * PG, PG, mix(NEW, i));	/* page in, then copy up */
		fill(ballast + i * 2 * PG, PG, i);
	}
	for (size_t i = 0; i < 64; i++) {
		check_fill(p + i * PG, PG, mix(NEW, i));
		check_fill(ballast + i * 2 * PG, PG, i);
	}
	scratch_pages = 0;
	ck_assert_uint_ge((unsigned char)scratch[63 * PG], 64);
	audit();
}
END_TEST

/* Dirty neighbours of a page that its pager is slow to bring: they must not hold the daemon up. */
START_TEST(a_slow_pager_does_not_stop_the_pageout_of_other_memory)
{
	vmf_pager_t pager;
	pthread_t thread;
	char *ballast;

	expect(vmf_fini(), 0);
	start(96 * PG, 0);
	user_mem = map_user(600000, VMF_MAP_SHARED, &pager);
	fill_pages(user_mem, 9, NEW);
	gate = true;
	ck_assert_int_eq(pthread_create(&thread, NULL, read_one, (void *)9), 0);
	while (running == 0)
		usleep(1000);
	ballast = alloc(400);
	fill_pages(ballast, 400, NEW);
	check_pages(ballast, 400, NEW);
	gate = false;
	pthread_join(thread, NULL);
	check_pages(user_mem, 9, NEW);
	audit();
}
END_TEST

/* On a slow machine a deadline of 50 ms passes where nobody wanted it to: once more, then. */
static bool
was_late(int signo, int code, const void *addr)
{
	return signo == SIGBUS && code == BUS_ADRERR;
}

START_TEST(an_answer_after_the_deadline_changes_nothing)
{
	vmf_pager_t pager;
	char *p = map_user(50, VMF_MAP_PRIVATE, &pager), *q;

	on_stray = was_late;
	gate = true;
	do
		expect_read(p, SIGBUS, BUS_ADRERR);
	while (running == 0);			/* late before it began */
	do
		expect_read(p + PG, SIGBUS, BUS_ADRERR);
	while (running == 1);
	ck_assert_uint_eq(running, 2);
	audit();
	/* The frames that were meant for them belong to others now. */
	q = alloc(16);
	fill_pages(q, 16, NEW);
	fill_pages(source, 64, 3);
	gate = false;
	while (running != 0)
		usleep(1000);
	usleep(50000);
	audit();
	check_pages(q, 16, NEW);
	check_pages(p, 64, 3);
	/* One that is late when the pager is released already. */
	expect(vmf_unmap(p, sizeof(source)), 0);
	expect(vmf_pager_release(pager), 0);
	p = map_user(50, VMF_MAP_PRIVATE, &pager);
	gate = true;
	expect_read(p, SIGBUS, BUS_ADRERR);
	expect(vmf_unmap(p, sizeof(source)), 0);
	expect(vmf_pager_release(pager), 0);
	gate = false;
	while (running != 0)
		usleep(1000);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vm_pager");
	TCase *t = tcase_create("pageout"), *u = tcase_create("user");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, the_wrappers_keep_to_the_pager_s_size_and_count);
	tcase_add_test(t, a_used_up_budget_is_an_error_in_bounded_time);
	tcase_add_loop_test(t, a_working_set_of_four_budgets_loses_nothing, 0, (int)nitems(troubles));
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(u, setup, teardown);
	tcase_add_test(u, more_faults_than_workers_find_workers);
	tcase_add_loop_test(u, callbacks_may_fault_and_need_frames, 0, 2);
	tcase_add_test(u, a_slow_pager_does_not_stop_the_pageout_of_other_memory);
	tcase_add_test(u, an_answer_after_the_deadline_changes_nothing);
	suite_add_tcase(s, u);
	return run_suite(s);
}
