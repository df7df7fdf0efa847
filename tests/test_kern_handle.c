/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * lib/kern/handle.c: a name is good from its creation to its close and never
 * again, and what it names lives as long as someone holds it.
 */

#include "kern/handle.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "kern/lock.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "kern/types.h"
#include "test_kern.h"

#define MANY	3000		/* more than two blocks */
#define THREADS	4
#define ALIVE	0x600dbeef

struct thing {
	struct handle h;
	_Atomic uint32_t state;
	uint32_t payload;		/* not atomic: the references must order it */
};

static struct thing things[MANY];
static uint64_t names[MANY];
static _Atomic int destroyed, failures;

static void
destroy(struct handle *h)
{
	struct thing *t = (struct thing *)h;

	locks_assert_none();
	if (t->state != ALIVE || t->payload != ALIVE || handle_count(HANDLE_TASK) > MANY)
		failures++;
	destroyed++;
	t->payload = 0;
	t->state = 0;
}

static uint64_t
make(size_t i, enum handle_type type)
{
	things[i].state = things[i].payload = ALIVE;
	return (names[i] = handle_create(type, &things[i].h, destroy));
}

static void
setup(void)
{
	handle_sysinit();
}

static void
teardown(void)
{
	struct handle *h;

	for (enum handle_type t = HANDLE_TASK; t <= HANDLE_SNAPSHOT; t++) {
		while ((h = handle_any(t)) != NULL) {
			ck_assert_int_eq(handle_close(t, h->name), 0);
			handle_put(h);
		}
		ck_assert_uint_eq(handle_count(t), 0);
	}
	handle_sysfini();
	ck_assert_uint_eq(kmem_bytes(), 0);
	ck_assert_int_eq(failures, 0);
}

START_TEST(first_name_is_one)
{
	ck_assert_uint_eq(make(0, HANDLE_TASK), 1);
	ck_assert_uint_ne(make(1, HANDLE_TASK), 1);
	ck_assert_int_eq(handle_close(HANDLE_TASK, 1), 0);
	ck_assert_uint_ne(make(0, HANDLE_TASK), 1);
}
END_TEST

START_TEST(bad_names_are_refused)
{
	static const uint64_t bad[] = {
		0, 2, 255, 256, 257, UINT32_MAX, UINT64_C(1) << 32, UINT64_C(1) << 32 | 1,
		UINT64_MAX, UINT64_C(0xffffffff00000001), UINT64_C(0x7fffffff12345678)
	};

	for (uint64_t name = 0; name < 3; name++)
		ck_assert_ptr_null(handle_get(HANDLE_PAGER, name));
	make(0, HANDLE_PAGER);
	for (size_t i = 0; i < nitems(bad); i++) {
		ck_assert_ptr_null(handle_get(HANDLE_PAGER, bad[i]));
		ck_assert_int_eq(handle_close(HANDLE_PAGER, bad[i]), -EBADF);
	}
	ck_assert_ptr_null(handle_get(HANDLE_TASK, 1));
	ck_assert_int_eq(handle_close(HANDLE_SNAPSHOT, 1), -EBADF);
	ck_assert_ptr_null(handle_get(HANDLE_FREE, 1));
	ck_assert_uint_eq(handle_count(HANDLE_PAGER), 1);
	ck_assert_int_eq(handle_close(HANDLE_PAGER, 1), 0);
	ck_assert_int_eq(handle_close(HANDLE_PAGER, 1), -EBADF);
	ck_assert_int_eq(destroyed, 1);
}
END_TEST

START_TEST(reference_outlives_the_name)
{
	struct handle *h;

	make(0, HANDLE_SNAPSHOT);
	h = handle_get(HANDLE_SNAPSHOT, names[0]);
	ck_assert_ptr_eq(h, &things[0].h);
	ck_assert_uint_eq(h->name, names[0]);
	ck_assert_int_eq(handle_close(HANDLE_SNAPSHOT, names[0]), 0);
	ck_assert_uint_eq(h->name, 0);
	ck_assert_int_eq(destroyed, 0);
	handle_ref(h);
	handle_put(h);
	ck_assert_int_eq(destroyed, 0);
	ck_assert_ptr_null(handle_get(HANDLE_SNAPSHOT, names[0]));
	handle_put(h);
	ck_assert_int_eq(destroyed, 1);
}
END_TEST

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return ((x > y) - (x < y));
}

/* Over many rounds of many handles no name comes twice, and the old ones stay bad. */
START_TEST(names_are_never_used_again)
{
	enum { ROUNDS = 4 };
	static uint64_t all[ROUNDS * MANY];
	size_t n = 0;

	for (int round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < MANY; i++) {
			ck_assert_uint_ne(make(i, HANDLE_TASK), 0);
			all[n++] = names[i];
		}
		must(handle_count(HANDLE_TASK) == MANY);
		for (size_t i = 0; i < MANY; i++) {
			must(handle_get(HANDLE_TASK, names[i]) == &things[i].h);
			handle_put(&things[i].h);
		}
		for (size_t i = 0; i < n - MANY; i++)
			must(handle_get(HANDLE_TASK, all[i]) == NULL);
		for (size_t i = 0; i < MANY; i++)
			must(handle_close(HANDLE_TASK, names[i]) == 0);
		if (round == 1) {	/* nor by the next table, but for its first */
			handle_sysfini();
			handle_sysinit();
			must(make(0, HANDLE_TASK) == 1);
			must(handle_close(HANDLE_TASK, 1) == 0);
		}
	}
	must(destroyed == ROUNDS * MANY + 1);
	qsort(all, n, sizeof(all[0]), compare);
	for (size_t i = 1; i < n; i++)
		ck_assert_uint_ne(all[i - 1], all[i]);
}
END_TEST

START_TEST(any_finds_the_lowest_of_its_type)
{
	struct handle *h;

	ck_assert_ptr_null(handle_any(HANDLE_PAGER));
	make(0, HANDLE_TASK);
	make(1, HANDLE_PAGER);
	make(2, HANDLE_PAGER);
	ck_assert_ptr_null(handle_any(HANDLE_SNAPSHOT));
	ck_assert_ptr_eq(h = handle_any(HANDLE_PAGER), &things[1].h);
	ck_assert_uint_eq(h->refs, 2);
	ck_assert_int_eq(handle_close(HANDLE_PAGER, names[1]), 0);
	handle_put(h);
	ck_assert_int_eq(destroyed, 1);
	ck_assert_ptr_eq(h = handle_any(HANDLE_PAGER), &things[2].h);
	handle_put(h);
	ck_assert_uint_eq(handle_count(HANDLE_PAGER), 1);
	ck_assert_uint_eq(handle_count(HANDLE_TASK), 1);
}
END_TEST

static int
refuse(enum sys_call which)
{
	return (which == SYS_CALL_MMAP ? -ENOMEM : 0);
}

START_TEST(no_memory_is_no_name)
{
	size_t i = 0;

	sys_inject = refuse;
	ck_assert_uint_eq(make(i, HANDLE_TASK), 0);
	sys_inject = NULL;
	ck_assert_uint_eq(make(i++, HANDLE_TASK), 1);
	sys_inject = refuse;
	while (make(i, HANDLE_TASK) != 0)
		i++;
	ck_assert_uint_gt(i, 100);
	ck_assert_uint_eq(handle_count(HANDLE_TASK), i);
	ck_assert_uint_eq(make(i, HANDLE_TASK), 0);
	ck_assert_int_eq(handle_close(HANDLE_TASK, names[7]), 0);
	ck_assert_uint_ne(make(7, HANDLE_TASK), 0);	/* into the slot that came free */
	sys_inject = NULL;
	ck_assert_uint_ne(make(i, HANDLE_TASK), 0);
	ck_assert_int_eq(destroyed, 1);
}
END_TEST

/* Two names that all threads see, made and closed all the time; who gets one finds it alive. */
#define EACH	8

static _Atomic uint64_t window[2];
static _Atomic int made;

static void *
juggler(void *arg)
{
	uint64_t seed = (uintptr_t)arg, name;
	struct thing *t, *mine = &things[((uintptr_t)arg - 1) * EACH];
	size_t k;

	for (int i = 0; i < 50000; i++) {
		k = rng(&seed) % nitems(window);
		if (rng(&seed) % 2 == 0) {
			t = (struct thing *)handle_get(HANDLE_SNAPSHOT, window[k]);
			if (t != NULL) {
				if (t->state != ALIVE || t->payload != ALIVE)
					failures++;
				handle_put(&t->h);
			}
			continue;
		}
		t = &mine[rng(&seed) % EACH];
		if (t->state != 0)
			continue;
		t->state = t->payload = ALIVE;
		made++;
		name = handle_create(HANDLE_SNAPSHOT, &t->h, destroy);
		name = atomic_exchange(&window[k], name);
		if (name != 0 && (handle_close(HANDLE_SNAPSHOT, name) != 0 ||
		    handle_close(HANDLE_SNAPSHOT, name) != -EBADF))
			failures++;
	}
	return (NULL);
}

START_TEST(get_and_close_race)
{
	pthread_t t[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		t[i] = spawn(juggler, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	for (size_t k = 0; k < nitems(window); k++)
		ck_assert_int_eq(handle_close(HANDLE_SNAPSHOT, window[k]), 0);
	for (size_t i = 0; i < THREADS * EACH; i++) {
		ck_assert_uint_eq(things[i].state, 0);
		ck_assert_uint_eq(things[i].h.refs, 0);
	}
	ck_assert_int_gt(made, 100);
	ck_assert_int_eq(destroyed, made);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("kern/handle");
	TCase *tc = tcase_create("handle");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, first_name_is_one);
	tcase_add_test(tc, bad_names_are_refused);
	tcase_add_test(tc, reference_outlives_the_name);
	tcase_add_test(tc, names_are_never_used_again);
	tcase_add_test(tc, any_finds_the_lowest_of_its_type);
	tcase_add_test(tc, no_memory_is_no_name);
	tcase_add_test(tc, get_and_close_race);
	suite_add_tcase(s, tc);
	return (run_suite(s));
}
