/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Large ranges, whose rights a snapshot takes all at once, by parking: whatever is done to them
 * next finds the right bytes, in the range and in the snapshot.
 *
 * Where the kernel cannot park (before 5.13) the same must hold; only the counting is left out.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "support.h"

enum { N = 5000, WORDS = VMF_PAGE_SIZE / 8 };	/* pages: nine times 2 MB, and a rest */

static char *mem;
static vmf_snapshot_t first;
static bool parks;

static uint64_t
parked(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	expect(vmf_statistics(&s), 0);
	return s.v_parked;
}

/* N pages of key 1, and a snapshot of them. */
static void
setup(void)
{
	start(0, 0);
	mem = alloc(N);
	fill_pages(mem, N, 1);
	first = snap(mem, N);
	parks = parked() != 0;
}

/* A few bytes of each page: reading them all takes long under a sanitizer. */
static void
check_some(const char *p, size_t from, size_t to, uint64_t key)
{
	for (size_t i = from; i < to; i++)
		check_fill(p + i * PG, 64, mix(key, i));
}

/* The snapshot still holds key 1. */
static void
check_first(void)
{
	char *v = view(first, N, VMF_PROT_READ);

	check_some(v, 0, N, 1);
	expect(vmf_unmap(v, N * PG), 0);
	expect(vmf_snapshot_release(first), 0);
}

static void
write_some(size_t from, size_t to, uint64_t key)
{
	for (size_t i = from; i < to; i++)
		fill(mem + i * PG, 64, mix(key, i));
}

START_TEST(a_large_range_is_parked)
{
	if (parks) {
		ck_assert_uint_ge(parked(), N - 2 * 512);
		ck_assert_uint_le(parked(), N);
	}
	check_some(mem, 0, N, 1);
	write_some(0, N, 2);
	check_some(mem, 0, N, 2);
	check_first();
	check_some(mem, 0, N, 2);
}
END_TEST

START_TEST(it_comes_back_in_any_order)
{
	uint64_t rng = 1;

	for (size_t n = 0; n < N; n++) {
		size_t i = (size_t)(rng_next(&rng) % N);

		if (n % 3 == 0)
			fill(mem + i * PG, PG, mix(1, i));	/* what is there, written again */
		else
			check_fill(mem + i * PG, PG, mix(1, i));
	}
	check_some(mem, 0, N, 1);
	check_first();
}
END_TEST

/* Nothing was written: there is nothing to take away. */
START_TEST(a_second_snapshot_parks_nothing_twice)
{
	uint64_t before = parked();
	vmf_snapshot_t second = snap(mem, N);

	ck_assert_uint_eq(parked(), before);
	write_some(1000, 4000, 2);
	check_first();
	first = second;
	check_some(mem, 1000, 4000, 2);
	check_some(mem, 0, 1000, 1);
	check_first();
}
END_TEST

/* Some of it was: of that the second one has the new bytes, and the first one the old. */
START_TEST(a_second_snapshot_while_much_is_parked)
{
	vmf_snapshot_t second;
	char *v;

	write_some(600, 3600, 2);
	second = snap(mem, N);
	write_some(0, N, 3);
	v = view(second, N, VMF_PROT_READ);
	check_some(v, 0, 600, 1);
	check_some(v, 600, 3600, 2);
	check_some(v, 3600, N, 1);
	expect(vmf_unmap(v, N * PG), 0);
	expect(vmf_snapshot_release(second), 0);
	check_first();
	check_some(mem, 0, N, 3);
}
END_TEST

START_TEST(parts_are_unmapped)
{
	void *at = mem + 700 * PG;

	expect(vmf_unmap(at, 1000 * PG), 0);
	touch_install();
	expect_read(mem + 700 * PG, SIGSEGV, SEGV_MAPERR);
	expect_read(mem + 1699 * PG, SIGSEGV, SEGV_MAPERR);
	check_some(mem, 0, 700, 1);
	check_some(mem, 1700, N, 1);
	expect(vmf_allocate(VMF_TASK_DEFAULT, &at, 1000 * PG, VMF_FIXED), 0);
	check_zero(at, 1000 * PG);
	check_first();
}
END_TEST

START_TEST(parts_are_protected)
{
	touch_install();
	expect(vmf_protect(mem + 700 * PG, 1000 * PG, VMF_PROT_READ), 0);
	expect_write(mem + 700 * PG, SIGSEGV, SEGV_ACCERR);
	expect_write(mem + 1699 * PG, SIGSEGV, SEGV_ACCERR);
	write_some(0, 700, 2);
	expect(vmf_protect(mem + 2000 * PG, 1000 * PG, 0), 0);
	expect_read(mem + 2500 * PG, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(mem + 2000 * PG, 1000 * PG, VMF_PROT_DEFAULT), 0);
	check_some(mem, 0, 700, 2);
	check_some(mem, 700, N, 1);
	check_first();
}
END_TEST

START_TEST(parts_are_wired)
{
	expect(vmf_wire(mem + 700 * PG, 100 * PG), 0);
	write_some(600, 900, 2);
	expect(vmf_unwire(mem + 700 * PG, 100 * PG), 0);
	check_some(mem, 600, 900, 2);
	check_some(mem, 900, N, 1);
	check_first();
}
END_TEST

START_TEST(it_is_rolled_back)
{
	write_some(10, 3000, 2);
	expect(vmf_snapshot_rollback(first), 0);
	check_some(mem, 0, N, 1);
	write_some(0, N, 3);
	expect(vmf_snapshot_rollback(first), 0);
	check_some(mem, 0, N, 1);
	check_first();
}
END_TEST

START_TEST(it_is_paged_out)
{
	struct vmf_config config = VMF_CONFIG_INIT;

	expect(vmf_fini(), 0);
	config.memory = (uint64_t)N * 2 * PG;
	config.swap_size = (uint64_t)N * 4 * PG;
	config.flags = VMF_CONFIG_QUIET;
	expect(vmf_init(&config), 0);
	mem = alloc(N);
	fill_pages(mem, N, 1);
	first = snap(mem, N);
	expect(vmf_set_memory(N / 2 * PG), 0);
	write_some(0, N, 2);
	check_some(mem, 0, N, 2);
	check_first();
}
END_TEST

/* What a task inherits from its parent by copy is parked as well. */
START_TEST(it_is_forked)
{
	vmf_task_t child;
	void *base, *mine;
	size_t size;

	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, &size), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
	expect(vmf_task_range(child, &mine, &size), 0);
	mine = (char *)mine + (mem - (char *)base);
	write_some(0, N, 2);
	check_some(mine, 0, N, 1);
	check_some(mem, 0, N, 2);
	expect(vmf_task_destroy(child), 0);
	check_first();
}
END_TEST

/*
 * The cut is an instant for threads that write all the time: each writes its number into the first page,
 * and then into the last one.
 */

static _Atomic bool enough;

static void *
write_both(void *arg)
{
	volatile uint64_t *a = (void *)mem, *b = (void *)(mem + (N - 1) * PG);

	for (uint64_t n = 1; !atomic_load(&enough); n++) {
		*a = n;
		atomic_thread_fence(memory_order_seq_cst);
		*b = n;
	}
	return NULL;
}

static void *
write_between(void *arg)
{
	uint64_t rng = 7;

	while (!atomic_load(&enough)) {
		size_t i = 1 + (size_t)(rng_next(&rng) % (N - 2));

		((volatile uint64_t *)(void *)(mem + i * PG))[WORDS - 1] = i;
	}
	return NULL;
}

START_TEST(it_is_an_instant)
{
	uint64_t a, b, last = 0, rounds = SANITIZED ? 10 : 40;
	pthread_t t[2];

	memset(mem, 0, PG);
	memset(mem + (N - 1) * PG, 0, PG);
	atomic_store(&enough, false);
	expect(pthread_create(&t[0], NULL, write_both, NULL), 0);
	expect(pthread_create(&t[1], NULL, write_between, NULL), 0);
	for (uint64_t i = 0; i < rounds; i++) {
		vmf_snapshot_t s = snap(mem, N);

		expect(vmf_snapshot_read(s, 0, 0, &a, sizeof(a)), 0);
		expect(vmf_snapshot_read(s, 0, (N - 1) * PG, &b, sizeof(b)), 0);
		check(a == b || a == b + 1);
		check(b >= last);
		last = b;
		expect(vmf_snapshot_release(s), 0);
	}
	atomic_store(&enough, true);
	for (int i = 0; i < 2; i++)
		expect(pthread_join(t[i], NULL), 0);
}
END_TEST

int
main(void)
{
	const TTest *const tests[] = {
		a_large_range_is_parked, it_comes_back_in_any_order, a_second_snapshot_parks_nothing_twice,
		a_second_snapshot_while_much_is_parked, parts_are_unmapped, parts_are_protected, parts_are_wired,
		it_is_rolled_back, it_is_paged_out, it_is_forked, it_is_an_instant,
	};
	Suite *s = suite_create("api/park");
	TCase *t = tcase_create("parking");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, stop);
	for (size_t i = 0; i < nitems(tests); i++)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(s, t);
	return run_suite(s);
}
