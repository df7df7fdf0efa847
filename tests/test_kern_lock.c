/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * lib/kern/lock.c: who is kept out, who goes first, who is woken, and what the
 * witness says.  A wakeup that is lost shows as a test that does not end.
 */

#include "kern/lock.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "kern/assert.h"
#include "test_kern.h"

#define THREADS	4

static struct kmutex mutex;
static struct krwlock rw;
static long counter, twin;
static _Atomic int stage, failures, inside, winners;

static void
setup(void)
{
	kmutex_init(&mutex, RANK_PAGEQ);
	krwlock_init(&rw, RANK_MAP);
}

static void
await(_Atomic int *what, int value)
{
	while (atomic_load(what) < value)
		msleep(1);
}

/* Somebody waits for rw: its flags say so. */
static void
await_waiter(void)
{
	while ((rw.word & ~UINT32_C(0xfffffff)) == 0)
		msleep(1);
}

/*
 * Mutex
 */

static void *
mutex_adder(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	for (int i = 0; i < 30000; i++) {
		if (rng(&seed) % 8 != 0)
			kmutex_lock(&mutex);
		else
			while (!kmutex_trylock(&mutex))
				sched_yield();
		counter++;
		kmutex_unlock(&mutex);
	}
	return (NULL);
}

START_TEST(mutex_excludes)
{
	pthread_t t[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		t[i] = spawn(mutex_adder, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	ck_assert_int_eq(counter, THREADS * 30000L);
	ck_assert_uint_eq(mutex.word, 0);
}
END_TEST

static void *
mutex_sleeper(void *arg)
{
	for (int i = 0; i < 20; i++) {
		kmutex_lock(&mutex);
		counter++;
		msleep(1);		/* longer than anyone spins */
		kmutex_unlock(&mutex);
	}
	return (NULL);
}

START_TEST(mutex_wakes_all_sleepers_one_by_one)
{
	pthread_t t[THREADS];

	kmutex_lock(&mutex);
	for (int i = 0; i < THREADS; i++)
		t[i] = spawn(mutex_sleeper, NULL);
	msleep(20);
	ck_assert_int_eq(counter, 0);
	kmutex_unlock(&mutex);
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	ck_assert_int_eq(counter, THREADS * 20);
}
END_TEST

static void *
mutex_other(void *arg)
{
	bool taken = kmutex_trylock(&mutex);

	if (taken)
		kmutex_unlock(&mutex);
	if (taken || kmutex_held(&mutex))
		failures++;
	return (NULL);
}

START_TEST(mutex_is_held_by_its_holder_only)
{
	kmutex_lock(&mutex);
	ck_assert(kmutex_held(&mutex));
	ck_assert(!kmutex_trylock(&mutex));
	join(spawn(mutex_other, NULL));
	kmutex_unlock(&mutex);
	ck_assert(!kmutex_held(&mutex));
	ck_assert(kmutex_trylock(&mutex));
	ck_assert(kmutex_held(&mutex));
	kmutex_unlock(&mutex);
	ck_assert_int_eq(failures, 0);
	locks_assert_none();
}
END_TEST

/*
 * Reader-writer lock
 */

static void *
reader_meets_readers(void *arg)
{
	krwlock_read(&rw);
	inside++;
	await(&inside, THREADS);	/* all of them are in at once */
	krwlock_read_unlock(&rw);
	return (NULL);
}

START_TEST(readers_share)
{
	pthread_t t[THREADS];

	for (int i = 0; i < THREADS; i++)
		t[i] = spawn(reader_meets_readers, NULL);
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	ck_assert_uint_eq(rw.word, 0);
}
END_TEST

static void
write_twins(void)
{
	if (counter != twin || !krwlock_write_held(&rw))
		failures++;
	counter++;
	__asm__ volatile("" ::: "memory");
	twin++;
	winners++;
}

/* Every way in and out, at random; what is written is always written in pairs. */
static void *
mixed(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	long before;

	for (int i = 0; i < 20000; i++) {
		switch (rng(&seed) % 8) {
		case 0:
			krwlock_write(&rw);
			write_twins();
			krwlock_write_unlock(&rw);
			break;
		case 1:
			if (krwlock_trywrite(&rw)) {
				write_twins();
				krwlock_write_unlock(&rw);
			}
			break;
		case 2:
			krwlock_write(&rw);
			write_twins();
			before = counter;
			krwlock_downgrade(&rw);
			if (counter != before || twin != before)
				failures++;
			krwlock_read_unlock(&rw);
			break;
		case 3:
			krwlock_read(&rw);
			before = counter;
			if (krwlock_upgrade(&rw)) {
				if (counter != before)
					failures++;
				write_twins();
				krwlock_write_unlock(&rw);
			} else if (krwlock_read_held(&rw)) {
				failures++;
			}
			break;
		case 4:
			if (!krwlock_tryread(&rw))
				break;
			if (counter != twin)
				failures++;
			krwlock_read_unlock(&rw);
			break;
		default:
			krwlock_read(&rw);
			if (counter != twin || !krwlock_read_held(&rw))
				failures++;
			if (rng(&seed) % 64 == 0)
				sched_yield();
			krwlock_read_unlock(&rw);
			break;
		}
	}
	locks_assert_none();
	return (NULL);
}

START_TEST(every_way_in_excludes)
{
	pthread_t t[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		t[i] = spawn(mixed, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	ck_assert_int_eq(failures, 0);
	ck_assert_int_eq(counter, winners);
	ck_assert_int_eq(twin, winners);
	ck_assert_uint_eq(rw.word & 0xfffffff, 0);
}
END_TEST

static void *
stage_writer(void *arg)
{
	krwlock_write(&rw);
	counter = 1;
	msleep(20);
	krwlock_write_unlock(&rw);
	return (NULL);
}

static void *
late_reader(void *arg)
{
	krwlock_read(&rw);
	if (counter != 1)
		failures++;
	krwlock_read_unlock(&rw);
	return (NULL);
}

START_TEST(waiting_writer_goes_before_new_readers)
{
	pthread_t w, r;

	krwlock_read(&rw);
	w = spawn(stage_writer, NULL);
	await_waiter();
	r = spawn(late_reader, NULL);
	msleep(50);
	ck_assert_int_eq(counter, 0);
	krwlock_read_unlock(&rw);
	join(w);
	join(r);
	ck_assert_int_eq(failures, 0);
}
END_TEST

static void *
try_reader(void *arg)
{
	if (krwlock_tryread(&rw)) {
		failures++;
		krwlock_read_unlock(&rw);
	}
	return (NULL);
}

START_TEST(waiting_writer_holds_off_tryread)
{
	pthread_t w;

	krwlock_read(&rw);
	w = spawn(stage_writer, NULL);
	await_waiter();
	join(spawn(try_reader, NULL));
	krwlock_read_unlock(&rw);
	join(w);
	ck_assert_int_eq(failures, 0);
}
END_TEST

static void *
blocked_reader(void *arg)
{
	krwlock_read(&rw);
	inside++;
	krwlock_read_unlock(&rw);
	return (NULL);
}

START_TEST(writer_wakes_all_readers)
{
	pthread_t t[THREADS];

	krwlock_write(&rw);
	for (int i = 0; i < THREADS; i++)
		t[i] = spawn(blocked_reader, NULL);
	msleep(50);
	ck_assert_int_eq(inside, 0);
	krwlock_write_unlock(&rw);
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	ck_assert_int_eq(inside, THREADS);
}
END_TEST

static void *
reader_then_leaves(void *arg)
{
	krwlock_read(&rw);
	stage = 1;
	await(&stage, 2);
	msleep(50);
	twin = counter;		/* the upgrader has not come in yet */
	krwlock_read_unlock(&rw);
	return (NULL);
}

START_TEST(upgrade_waits_for_other_readers)
{
	pthread_t r = spawn(reader_then_leaves, NULL);

	await(&stage, 1);
	krwlock_read(&rw);
	stage = 2;
	ck_assert(krwlock_upgrade(&rw));
	counter = 1;
	krwlock_write_unlock(&rw);
	join(r);
	ck_assert_int_eq(twin, 0);
	ck_assert_uint_eq(rw.word, 0);
}
END_TEST

START_TEST(upgrade_goes_before_waiting_writer)
{
	pthread_t w;

	krwlock_read(&rw);
	w = spawn(stage_writer, NULL);
	await_waiter();
	ck_assert(krwlock_upgrade(&rw));
	ck_assert_int_eq(counter, 0);
	counter = 7;
	krwlock_write_unlock(&rw);
	join(w);
	ck_assert_int_eq(counter, 1);
}
END_TEST

static void *
upgrader(void *arg)
{
	krwlock_read(&rw);
	inside++;
	await(&inside, THREADS);
	if (krwlock_upgrade(&rw)) {
		winners++;
		counter++;
		krwlock_write_unlock(&rw);
	} else {
		if (krwlock_read_held(&rw))
			failures++;
		krwlock_write(&rw);	/* possible, so nothing is left of the read lock */
		twin++;
		krwlock_write_unlock(&rw);
	}
	return (NULL);
}

START_TEST(only_one_of_many_upgrades)
{
	pthread_t t[THREADS];

	for (int i = 0; i < THREADS; i++)
		t[i] = spawn(upgrader, NULL);
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	ck_assert_int_eq(winners, 1);
	ck_assert_int_eq(counter, 1);
	ck_assert_int_eq(twin, THREADS - 1);
	ck_assert_int_eq(failures, 0);
	ck_assert_uint_eq(rw.word & 0xfffffff, 0);
}
END_TEST

START_TEST(downgrade_admits_readers_and_no_writer)
{
	pthread_t t[THREADS], w;

	krwlock_write(&rw);
	for (int i = 0; i < THREADS; i++)
		t[i] = spawn(blocked_reader, NULL);
	msleep(50);
	krwlock_downgrade(&rw);
	ck_assert(krwlock_read_held(&rw) && !krwlock_write_held(&rw));
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	w = spawn(stage_writer, NULL);
	await_waiter();
	ck_assert_int_eq(counter, 0);
	krwlock_read_unlock(&rw);
	join(w);
	ck_assert_int_eq(counter, 1);
}
END_TEST

static void *
lock_mutex(void *arg)
{
	kmutex_lock(&mutex);
	kmutex_unlock(&mutex);
	return (NULL);
}

static void *
lock_write(void *arg)
{
	krwlock_write(&rw);
	krwlock_write_unlock(&rw);
	return (NULL);
}

static void *
lock_upgrade(void *arg)
{
	krwlock_read(&rw);
	if (krwlock_upgrade(&rw))
		krwlock_write_unlock(&rw);
	return (NULL);
}

/* Who waits for long does not burn the processor: an upgrader, a writer, readers, mutexes. */
START_TEST(waiters_sleep)
{
	static void *(*const waiters[])(void *) = {
		lock_upgrade, lock_write, lock_write, blocked_reader, blocked_reader, lock_mutex,
		lock_mutex,
	};
	enum { N = sizeof(waiters) / sizeof(waiters[0]) };
	struct timespec before, after;
	pthread_t t[N];

	krwlock_read(&rw);
	kmutex_lock(&mutex);
	for (int i = 0; i < N; i++) {
		t[i] = spawn(waiters[i], NULL);
		msleep(10);
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	msleep(300);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	kmutex_unlock(&mutex);
	krwlock_read_unlock(&rw);
	for (int i = 0; i < N; i++)
		join(t[i]);
	ck_assert_int_lt((after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec -
	    before.tv_nsec, 100000000LL);
}
END_TEST

/*
 * Witness
 */

static struct kmutex pageq, pmap_lock, object1, object2;
static struct krwlock map1, map2;

static void
setup_witness(void)
{
	kmutex_init(&pageq, RANK_PAGEQ);
	kmutex_init(&pmap_lock, RANK_PMAP);
	kmutex_init(&object1, RANK_OBJECT);
	kmutex_init(&object2, RANK_OBJECT);
	krwlock_init(&map1, RANK_MAP);
	krwlock_init(&map2, RANK_MAP);
	setup();
}

static void
take_backwards(void)
{
	kmutex_lock(&pageq);
	kmutex_lock(&pmap_lock);
}

static void
take_map_under_object(void)
{
	kmutex_lock(&object1);
	krwlock_read(&map1);
}

static void
take_same_rank(void)
{
	kmutex_lock(&pageq);
	kmutex_lock(&mutex);
}

static void
take_below_a_trylock(void)
{
	if (kmutex_trylock(&pageq))
		kmutex_lock(&pmap_lock);
}

static void
take_twice(void)
{
	kmutex_lock(&object1);
	kmutex_lock(&object1);
}

static void
read_twice(void)
{
	krwlock_read(&map1);
	krwlock_read(&map1);
}

static void
try_what_is_read(void)
{
	krwlock_read(&map1);
	(void)krwlock_tryread(&map1);
}

static void
upgrade_under_object(void)
{
	krwlock_read(&map1);
	kmutex_lock(&object1);
	(void)krwlock_upgrade(&map1);
}

static void
unlock_what_is_not_held(void)
{
	kmutex_unlock(&pageq);
}

static void
unlock_as_writer(void)
{
	krwlock_read(&map1);
	krwlock_write_unlock(&map1);
}

static void
leave_with_lock(void)
{
	kmutex_lock(&object1);
	locks_assert_none();
}

static void
take_unranked(void)
{
	struct kmutex m;

	memset(&m, 0, sizeof(m));
	kmutex_lock(&m);
}

START_TEST(witness_panics)
{
	ck_assert_panics(take_backwards, "pmap lock", "pageq lock");
	ck_assert_panics(take_map_under_object, "map lock", "object lock");
	ck_assert_panics(take_same_rank, "pageq lock", "order");
	ck_assert_panics(take_below_a_trylock, "pmap lock", "pageq lock");
	ck_assert_panics(take_twice, "recursion", "object lock");
	ck_assert_panics(read_twice, "recursion", "map lock");
	ck_assert_panics(try_what_is_read, "recursion", "map lock");
	ck_assert_panics(upgrade_under_object, "map lock", "object lock");
	ck_assert_panics(unlock_what_is_not_held, "pageq lock", "not hold");
	ck_assert_panics(unlock_as_writer, "map lock", "not hold");
	ck_assert_panics(leave_with_lock, "object lock", "still held");
	ck_assert_panics(take_unranked, "rank > RANK_NONE", "lock.c");
}
END_TEST

static enum lock_rank rank;

static void
take_the_rank_below(void)
{
	struct kmutex high, low;

	kmutex_init(&high, rank);
	kmutex_init(&low, rank - 1);
	kmutex_lock(&high);
	kmutex_lock(&low);
}

START_TEST(every_rank_has_its_place_and_name)
{
	int status;

	for (rank = RANK_NONE + 2; rank < RANK_COUNT; rank++) {
		ck_assert_panics(take_the_rank_below, "lock order", "is taken while");
		ck_assert_ptr_null(strstr(words_of(take_the_rank_below, &status), "(null)"));
	}
}
END_TEST

START_TEST(witness_allows_the_order)
{
	krwlock_write(&map1);
	krwlock_write(&map2);
	kmutex_lock(&object1);
	kmutex_lock(&object2);
	kmutex_lock(&pmap_lock);
	kmutex_lock(&pageq);
	kmutex_unlock(&object1);	/* released in any order */
	ck_assert(kmutex_trylock(&object1));
	kmutex_unlock(&pageq);
	kmutex_unlock(&pmap_lock);
	kmutex_unlock(&object2);
	krwlock_downgrade(&map1);
	ck_assert(krwlock_read_held(&map1) && !krwlock_write_held(&map1));
	ck_assert(kmutex_held(&object1) && krwlock_write_held(&map2));
	kmutex_unlock(&object1);
	krwlock_write_unlock(&map2);
	ck_assert(krwlock_upgrade(&map1));
	krwlock_write_unlock(&map1);
	locks_assert_none();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("kern/lock");
	TCase *tc = tcase_create("mutex");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, mutex_excludes);
	tcase_add_test(tc, mutex_wakes_all_sleepers_one_by_one);
	tcase_add_test(tc, mutex_is_held_by_its_holder_only);
	suite_add_tcase(s, tc);

	tc = tcase_create("rwlock");
	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, readers_share);
	tcase_add_test(tc, every_way_in_excludes);
	tcase_add_test(tc, waiting_writer_goes_before_new_readers);
	tcase_add_test(tc, waiting_writer_holds_off_tryread);
	tcase_add_test(tc, writer_wakes_all_readers);
	tcase_add_test(tc, upgrade_waits_for_other_readers);
	tcase_add_test(tc, upgrade_goes_before_waiting_writer);
	tcase_add_test(tc, only_one_of_many_upgrades);
	tcase_add_test(tc, downgrade_admits_readers_and_no_writer);
	tcase_add_test(tc, waiters_sleep);
	suite_add_tcase(s, tc);

	tc = tcase_create("witness");
	tcase_add_checked_fixture(tc, setup_witness, NULL);
	tcase_add_test(tc, witness_panics);
	tcase_add_test(tc, every_rank_has_its_place_and_name);
	tcase_add_test(tc, witness_allows_the_order);
	suite_add_tcase(s, tc);
	return (run_suite(s));
}
