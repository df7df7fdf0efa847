/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Pagers of the user's own, through vmfault.h alone.
 *
 * The store behind them is an array with switches: pages that do not exist,
 * errors, delays, answers that are too short, an end before the end.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "suite.h"
#include "support.h"

enum { PAGES = 512 };

struct store {
	char data[PAGES * VMF_PAGE_SIZE];
	bool hole[PAGES];
	size_t pages;			/* beyond: -ENXIO */
	size_t bytes;			/* get() answers at most so many; 0: no limit */
	_Atomic int get_error, put_error;
	_Atomic unsigned delay;		/* of get(), in milliseconds */
	_Atomic bool closed;		/* get() does not return ... */
	_Atomic unsigned inside;	/* ... to so many */
	_Atomic unsigned gets, puts;	/* calls */
	_Atomic unsigned after_end;	/* calls after terminate() */
	_Atomic unsigned terminated;
};

static struct store *store;

static int64_t
answer(struct store *s, uint64_t offset, void *buf, size_t len)
{
	size_t i = (size_t)(offset / PG), n = 0;

	s->gets++;
	s->after_end += s->terminated != 0;
	if (s->delay != 0)
		usleep(s->delay * 1000);
	while (s->closed)
		usleep(1000);
	if (s->get_error != 0)
		return s->get_error;
	if (i >= s->pages)
		return -ENXIO;
	while (n < len / PG && i + n < s->pages && !s->hole[i + n])
		n++;
	if (n == 0)
		return VMF_PAGER_HOLE;
	n *= PG;
	if (s->bytes != 0 && n > s->bytes)
		n = s->bytes;
	memcpy(buf, s->data + offset, n);
	return (int64_t)n;
}

static int64_t
get(void *cookie, uint64_t offset, void *buf, size_t len)
{
	struct store *s = cookie;
	int64_t n;

	s->inside++;
	n = answer(s, offset, buf, len);
	s->inside--;
	return n;
}

static int64_t
put(void *cookie, uint64_t offset, const void *buf, size_t len)
{
	struct store *s = cookie;

	s->puts++;
	s->after_end += s->terminated != 0;
	if (s->put_error != 0)
		return s->put_error;
	check(offset % PG == 0 && len % PG == 0 && len > 0 && offset + len <= sizeof(s->data));
	if (s->bytes != 0 && len > s->bytes)
		len = PG;
	memcpy(s->data + offset, buf, len);
	for (size_t i = 0; i < len / PG; i++)
		s->hole[offset / PG + i] = false;
	return (int64_t)len;
}

static int
has_page(void *cookie, uint64_t offset)
{
	struct store *s = cookie;

	return offset / PG >= s->pages || !s->hole[offset / PG];	/* the end is get()'s to tell */
}

static void
terminate(void *cookie)
{
	((struct store *)cookie)->terminated++;
}

static const struct vmf_pager_ops full_ops = { sizeof(full_ops), get, put, has_page, terminate };

static void
setup(void)
{
	start(0, 0);
	store = calloc(1, sizeof(*store));
	ck_assert_ptr_nonnull(store);
	store->pages = PAGES;
	fill_pages(store->data, PAGES, 1);
}

static void
teardown(void)
{
	stop();
	ck_assert_uint_eq(store->after_end, 0);
	ck_assert_uint_le(store->terminated, 1);
	free(store);
}

static vmf_pager_t
pager_new(size_t pages, unsigned deadline)
{
	vmf_pager_t pager = 0;

	expect(vmf_pager_create(&full_ops, store, pages * PG, deadline, &pager), 0);
	return pager;
}

static char *
map(vmf_pager_t pager, size_t first, size_t pages, unsigned flags, int prot)
{
	void *at = NULL;

	expect(vmf_map(VMF_TASK_DEFAULT, &at, pages * PG, flags, pager, first * PG, prot), 0);
	return at;
}

static void
wait_terminated(void)
{
	while (store->terminated == 0)
		usleep(1000);
	ck_assert_uint_eq(store->terminated, 1);
}

START_TEST(a_private_mapping_shows_the_pager_s_bytes_and_keeps_its_own)
{
	vmf_pager_t pager = pager_new(32, 0);
	char *p = map(pager, 0, 32, VMF_MAP_PRIVATE, VMF_PROT_DEFAULT);
	char *q = map(pager, 8, 8, VMF_MAP_PRIVATE, VMF_PROT_DEFAULT);

	check_pages(p, 32, 1);
	for (size_t i = 0; i < 8; i++)
		check_fill(q + i * PG, PG, mix(1, 8 + i));
	fill_pages(p, 16, 2);
	check_pages(p, 16, 2);
	check_fill(q, PG, mix(1, 8));
	expect(vmf_pager_sync(pager, 0, 32 * PG), 0);
	ck_assert_uint_eq(store->puts, 0);
	check_pages(store->data, 32, 1);
}
END_TEST

START_TEST(shared_mappings_see_each_other_and_sync_puts_them_back)
{
	vmf_pager_t pager = pager_new(32, 0);
	char *p = map(pager, 0, 32, VMF_MAP_SHARED, VMF_PROT_DEFAULT);
	char *q = map(pager, 4, 8, VMF_MAP_SHARED, VMF_PROT_READ);

	check_pages(p, 32, 1);
	fill_pages(p, 32, 2);
	for (size_t i = 0; i < 8; i++)
		check_fill(q + i * PG, PG, mix(2, 4 + i));
	expect(vmf_pager_sync(pager, 8 * PG, 4 * PG), 0);
	for (size_t i = 8; i < 12; i++)
		check_fill(store->data + i * PG, PG, mix(2, i));
	expect(vmf_pager_sync(pager, 0, 32 * PG), 0);
	check_pages(store->data, 32, 2);
	fill(p + 5 * PG, PG, 3);	/* written again after it was clean */
	expect(vmf_pager_sync(pager, 0, 32 * PG), 0);
	check_fill(store->data + 5 * PG, PG, 3);
	expect_write(q, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(q, PG, VMF_PROT_DEFAULT), -EACCES);
}
END_TEST

START_TEST(a_private_mapping_may_be_made_writable_later)
{
	vmf_pager_t pager = pager_new(4, 0);
	char *p = map(pager, 0, 4, VMF_MAP_PRIVATE, VMF_PROT_READ);

	expect_write(p, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(p, 4 * PG, VMF_PROT_DEFAULT), 0);
	fill_pages(p, 2, 2);
	check_pages(p, 2, 2);
	check_fill(p + 2 * PG, PG, mix(1, 2));
	check_pages(store->data, 4, 1);
}
END_TEST

START_TEST(holes_are_zero)
{
	struct vmf_pager_ops ops = full_ops;
	vmf_pager_t pager[2];

	for (size_t i = 0; i < 16; i += 3)
		store->hole[i] = true;
	ops.terminate = NULL;		/* two pagers, one store */
	expect(vmf_pager_create(&ops, store, 16 * PG, 0, &pager[0]), 0);
	ops.has_page = NULL;
	expect(vmf_pager_create(&ops, store, 16 * PG, 0, &pager[1]), 0);
	for (size_t k = 0; k < 2; k++) {
		char *p = map(pager[k], 0, 16, k == 0 ? VMF_MAP_PRIVATE : VMF_MAP_SHARED,
		    VMF_PROT_DEFAULT);

		for (size_t i = 0; i < 16; i++) {
			if (i % 3 == 0)
				check_zero(p + i * PG, PG);
			else
				check_fill(p + i * PG, PG, mix(1, i));
		}
		fill(p, PG, 5);
		check_fill(p, PG, 5);
	}
	expect(vmf_pager_sync(pager[1], 0, 16 * PG), 0);
	check_fill(store->data, PG, 5);
}
END_TEST

START_TEST(short_answers_are_completed)
{
	vmf_pager_t pager = pager_new(64, 0);
	char *p = map(pager, 0, 64, VMF_MAP_PRIVATE, VMF_PROT_READ);

	store->bytes = PG;
	check_pages(p, 20, 1);
	store->bytes = 3 * PG;
	for (size_t i = 20; i < 64; i++)
		check_fill(p + i * PG, PG, mix(1, i));
}
END_TEST

START_TEST(the_rest_of_a_page_cut_short_is_zero)
{
	vmf_pager_t pager = pager_new(2, 0);
	char *p = map(pager, 0, 2, VMF_MAP_PRIVATE, VMF_PROT_READ), want[VMF_PAGE_SIZE];

	store->bytes = 1000;
	fill(want, PG, mix(1, 1));
	ck_assert_mem_eq(p + PG, want, 1000);
	check_zero(p + PG + 1000, PG - 1000);
}
END_TEST

START_TEST(an_error_is_sigbus_and_eio_and_can_pass)
{
	vmf_pager_t pager = pager_new(16, 0);
	char *p = map(pager, 0, 16, VMF_MAP_PRIVATE, VMF_PROT_DEFAULT), buf[8];
	struct vmf_stats stats = { .size = sizeof(stats) };

	store->get_error = -EIO;
	expect_read(p + 100, SIGBUS, BUS_ADRERR);
	expect_write(p + 5 * PG + 3, SIGBUS, BUS_ADRERR);
	expect(vmf_read(p + PG, buf, 8), -EIO);
	expect(vmf_write(p + PG, buf, 8), -EIO);
	expect(vmf_wire(p, 2 * PG), -EIO);
	expect(vmf_unwire(p, 2 * PG), -EINVAL);
	expect(vmf_fault_in(p, 2 * PG, VMF_PROT_READ), -EIO);
	expect(vmf_statistics(&stats), 0);
	ck_assert_uint_gt(stats.v_pager_errors, 0);
	store->get_error = 0;
	check_pages(p, 16, 1);
}
END_TEST

START_TEST(beyond_the_end_is_sigbus_and_enxio)
{
	vmf_pager_t pager = pager_new(8, 0);
	char *p = map(pager, 0, 8, VMF_MAP_PRIVATE, VMF_PROT_DEFAULT), buf[8];

	store->pages = 4;
	check_pages(p, 4, 1);
	expect_read(p + 4 * PG, SIGBUS, BUS_ADRERR);
	expect_write(p + 8 * PG - 1, SIGBUS, BUS_ADRERR);
	expect(vmf_read(p + 4 * PG, buf, 8), -ENXIO);
	expect(vmf_fault_in(p + 4 * PG, 8, VMF_PROT_READ), -ENXIO);
	check_pages(p, 4, 1);
}
END_TEST

/* On a slow machine a deadline of 50 ms passes where nobody wanted it to: once more, then. */
static bool
was_late(int signo, int code, const void *addr)
{
	return signo == SIGBUS && code == BUS_ADRERR;
}

START_TEST(a_delay_past_the_deadline_fails_and_its_answer_is_thrown_away)
{
	vmf_pager_t pager = pager_new(8, 50);
	char *p = map(pager, 0, 8, VMF_MAP_PRIVATE, VMF_PROT_READ), buf[8];

	store->closed = true;
	do
		expect_read(p, SIGBUS, BUS_ADRERR);
	while (store->inside == 0);		/* late before it began, on a slow machine */
	expect(vmf_read(p + PG, buf, 8), -EIO);
	fill_pages(store->data, 8, 3);		/* what is late */
	store->closed = false;
	while (store->inside != 0)
		usleep(1000);
	usleep(50000);
	fill_pages(store->data, 8, 2);
	on_stray = was_late;
	check_pages(p, 8, 2);
}
END_TEST

START_TEST(a_delay_within_the_deadline_is_waited_for)
{
	vmf_pager_t pager = pager_new(8, 5000);
	char *p = map(pager, 0, 8, VMF_MAP_PRIVATE, VMF_PROT_READ);

	store->delay = 100;
	check_pages(p, 2, 1);
	store->delay = 0;
	check_pages(p, 8, 1);
}
END_TEST

START_TEST(a_small_budget_evicts_to_put_and_reads_back)
{
	struct vmf_stats stats = { .size = sizeof(stats) };
	vmf_pager_t pager;
	char *p;

	expect(vmf_fini(), 0);
	start(128 * PG, 0);
	pager = pager_new(PAGES, 0);
	p = map(pager, 0, PAGES, VMF_MAP_SHARED, VMF_PROT_DEFAULT);
	check_pages(p, PAGES, 1);
	for (uint64_t round = 2; round < 5; round++) {
		fill_pages(p, PAGES, round);
		check_pages(p, PAGES, round);
	}
	expect(vmf_statistics(&stats), 0);
	ck_assert_uint_ge(stats.v_pageouts, PAGES - 128);
	ck_assert_uint_ge(stats.v_pageins, PAGES);
	store->bytes = PG;		/* and when put() takes less than it is given */
	fill_pages(p, PAGES, 9);
	check_pages(p, PAGES, 9);
	expect(vmf_pager_sync(pager, 0, PAGES * PG), 0);
	check_pages(store->data, PAGES, 9);
}
END_TEST

START_TEST(a_page_that_cannot_be_put_stays_modified)
{
	vmf_pager_t pager = pager_new(8, 0);
	char *p = map(pager, 0, 8, VMF_MAP_SHARED, VMF_PROT_DEFAULT);

	fill_pages(p, 8, 2);
	store->put_error = -ENOSPC;
	expect(vmf_pager_sync(pager, 0, 8 * PG), -EIO);
	check_pages(p, 8, 2);
	check_pages(store->data, 8, 1);
	store->put_error = 0;
	expect(vmf_pager_sync(pager, 0, 8 * PG), 0);
	check_pages(store->data, 8, 2);
}
END_TEST

START_TEST(the_pager_lives_until_its_last_mapping_and_then_has_all)
{
	vmf_pager_t pager = pager_new(16, 0);
	char *p = map(pager, 0, 16, VMF_MAP_SHARED, VMF_PROT_DEFAULT);
	char *q = map(pager, 0, 4, VMF_MAP_SHARED, VMF_PROT_READ);

	expect(vmf_pager_release(pager), 0);
	fill_pages(p, 16, 2);
	expect(vmf_unmap(p, 16 * PG), 0);
	check_pages(q, 4, 2);
	ck_assert_uint_eq(store->terminated, 0);
	expect(vmf_unmap(q, 4 * PG), 0);
	wait_terminated();
	check_pages(store->data, 16, 2);
}
END_TEST

START_TEST(what_is_unmapped_is_found_again_by_the_next_mapping)
{
	vmf_pager_t pager = pager_new(16, 0);
	char *p = map(pager, 0, 16, VMF_MAP_SHARED, VMF_PROT_DEFAULT);

	fill_pages(p, 16, 2);
	expect(vmf_unmap(p, 16 * PG), 0);
	p = map(pager, 0, 16, VMF_MAP_SHARED, VMF_PROT_READ);
	check_pages(p, 16, 2);
	expect(vmf_pager_release(pager), 0);
	ck_assert_uint_eq(store->terminated, 0);
}
END_TEST

START_TEST(snapshots_and_copies_keep_what_the_pager_had)
{
	vmf_pager_t pager = pager_new(8, 0);
	char *p = map(pager, 0, 8, VMF_MAP_SHARED, VMF_PROT_DEFAULT), *c = alloc(8), *v;
	vmf_snapshot_t s;

	s = snap(p, 8);			/* not one page is resident yet */
	expect(vmf_copy(c, p, 8 * PG), 0);
	fill_pages(p, 8, 2);
	v = view(s, 8, VMF_PROT_DEFAULT);
	check_pages(v, 8, 1);
	check_pages(c, 8, 1);
	fill_pages(v, 4, 3);
	expect(vmf_pager_sync(pager, 0, 8 * PG), 0);
	check_pages(store->data, 8, 2);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, 8, 1);
	expect(vmf_pager_sync(pager, 0, 8 * PG), 0);
	check_pages(store->data, 8, 1);
	check_pages(v, 4, 3);
	expect(vmf_pager_release(pager), 0);
	expect(vmf_unmap(p, 8 * PG), 0);
	expect(vmf_unmap(v, 8 * PG), 0);
	expect(vmf_unmap(c, 8 * PG), 0);
	expect(vmf_snapshot_release(s), 0);
	wait_terminated();
}
END_TEST

START_TEST(an_error_below_a_snapshot_is_an_error_above)
{
	vmf_pager_t pager = pager_new(4, 0);
	char *p = map(pager, 0, 4, VMF_MAP_PRIVATE, VMF_PROT_DEFAULT), *v, buf[8];
	vmf_snapshot_t s = snap(p, 4);

	store->get_error = -EIO;
	v = view(s, 4, VMF_PROT_DEFAULT);
	expect_read(v + 7, SIGBUS, BUS_ADRERR);
	expect_write(p + PG, SIGBUS, BUS_ADRERR);
	expect(vmf_snapshot_read(s, 0, 0, buf, 8), -EIO);
	store->get_error = 0;
	fill_pages(p, 4, 2);
	check_pages(v, 4, 1);
}
END_TEST

static char *callback_memory;
static _Atomic int callback_results[3];

static int64_t
get_with_library(void *cookie, uint64_t offset, void *buf, size_t len)
{
	void *at = NULL;

	callback_results[0] = vmf_allocate(VMF_TASK_DEFAULT, &at, PG, 0);
	fill(at, PG, 8);
	memcpy(callback_memory, at, PG);
	callback_results[1] = vmf_unmap(at, PG);
	callback_results[2] = vmf_fini();
	memcpy(buf, callback_memory, PG);
	return (int64_t)PG;
}

START_TEST(a_callback_may_touch_memory_and_call_the_library)
{
	struct vmf_pager_ops ops = { .size = sizeof(ops), .get = get_with_library };
	vmf_pager_t pager;
	char *p;

	callback_memory = alloc(1);
	expect(vmf_pager_create(&ops, NULL, PG, 0, &pager), 0);
	p = map(pager, 0, 1, VMF_MAP_PRIVATE, VMF_PROT_READ);
	check_fill(p, PG, 8);
	ck_assert_int_eq(callback_results[0], 0);
	ck_assert_int_eq(callback_results[1], 0);
	ck_assert_int_eq(callback_results[2], -EDEADLK);
}
END_TEST

static char *shared_pages;

static void *
read_all(void *arg)
{
	for (size_t i = 0; i < 64; i++) {
		size_t k = (i * 7 + (size_t)(uintptr_t)arg * 13) % 64;

		check_fill(shared_pages + k * PG, PG, mix(1, k));
	}
	return NULL;
}

START_TEST(many_threads_fault_on_the_same_pages)
{
	vmf_pager_t pager = pager_new(64, 0);
	pthread_t thread[6];

	store->delay = 2;
	shared_pages = map(pager, 0, 64, VMF_MAP_PRIVATE, VMF_PROT_READ);
	for (size_t i = 0; i < nitems(thread); i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, read_all, (void *)(uintptr_t)i),
		    0);
	for (size_t i = 0; i < nitems(thread); i++)
		pthread_join(thread[i], NULL);
	ck_assert_uint_le(store->gets, 64);	/* none was asked for twice */
}
END_TEST

START_TEST(fini_puts_back_what_was_modified)
{
	vmf_pager_t pager = pager_new(8, 0);
	char *p = map(pager, 0, 8, VMF_MAP_SHARED, VMF_PROT_DEFAULT);

	fill_pages(p, 8, 2);
	expect(vmf_fini(), 0);
	ck_assert_uint_eq(store->terminated, 1);
	check_pages(store->data, 8, 2);
	start(0, 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("api pager");
	TCase *t = tcase_create("pager");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_private_mapping_shows_the_pager_s_bytes_and_keeps_its_own);
	tcase_add_test(t, shared_mappings_see_each_other_and_sync_puts_them_back);
	tcase_add_test(t, a_private_mapping_may_be_made_writable_later);
	tcase_add_test(t, holes_are_zero);
	tcase_add_test(t, short_answers_are_completed);
	tcase_add_test(t, the_rest_of_a_page_cut_short_is_zero);
	tcase_add_test(t, an_error_is_sigbus_and_eio_and_can_pass);
	tcase_add_test(t, beyond_the_end_is_sigbus_and_enxio);
	tcase_add_test(t, a_delay_past_the_deadline_fails_and_its_answer_is_thrown_away);
	tcase_add_test(t, a_delay_within_the_deadline_is_waited_for);
	tcase_add_test(t, a_small_budget_evicts_to_put_and_reads_back);
	tcase_add_test(t, a_page_that_cannot_be_put_stays_modified);
	tcase_add_test(t, the_pager_lives_until_its_last_mapping_and_then_has_all);
	tcase_add_test(t, what_is_unmapped_is_found_again_by_the_next_mapping);
	tcase_add_test(t, snapshots_and_copies_keep_what_the_pager_had);
	tcase_add_test(t, an_error_below_a_snapshot_is_an_error_above);
	tcase_add_test(t, a_callback_may_touch_memory_and_call_the_library);
	tcase_add_test(t, many_threads_fault_on_the_same_pages);
	tcase_add_test(t, fini_puts_back_what_was_modified);
	suite_add_tcase(s, t);
	return run_suite(s);
}
