/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * lib/kern/event.c: no wakeup is lost, wherever it falls; a timeout is one; a
 * wakeup that nobody waits for costs no system call.
 *
 * Who must be woken waits for ever: a wakeup that is lost, or late, shows as a
 * test that does not end.
 */

#include "kern/event.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "kern/lock.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "test_kern.h"

#define MS		INT64_C(1000000)
#define THREADS		4

static int channel;
static struct kmutex lock;
static const char *wake_at;
static _Atomic int ready, woken;

static void
setup(void)
{
	kmutex_init(&lock, RANK_PAGEQ);
}

START_TEST(wakeup_after_prepare_is_kept)
{
	uint32_t ticket = event_prepare(&channel);

	event_wake(&channel);
	ck_assert(event_wait(&channel, ticket, EVENT_FOREVER));
	ck_assert(event_wait(&channel, ticket, 0));
}
END_TEST

START_TEST(wakeup_before_prepare_does_not_count)
{
	event_wake(&channel);
	ck_assert(!event_wait(&channel, event_prepare(&channel), 5 * MS));
}
END_TEST

START_TEST(timeout_is_kept)
{
	uint64_t start = sys_clock();

	ck_assert(!event_wait(&channel, event_prepare(&channel), 0));
	ck_assert(!event_wait(&channel, event_prepare(&channel), 30 * MS));
	ck_assert_uint_ge(sys_clock() - start, 30 * MS);
}
END_TEST

/* A wakeup that falls exactly there, once. */
static void
wake_hook(const char *place)
{
	if (wake_at != NULL && strcmp(place, wake_at) == 0) {
		wake_at = NULL;
		event_wake(&channel);
		woken++;
	}
}

START_TEST(spinning_sees_a_wakeup_and_ends)
{
	uint32_t ticket = event_prepare(&channel);

	ck_assert(!event_spin(&channel, ticket, 1 * MS));
	event_wake(&channel);
	ck_assert(event_spin(&channel, ticket, 1 * MS));
	ck_assert(event_spin(&channel, ticket, 0));
}
END_TEST

START_TEST(wakeup_on_the_way_to_sleep_is_kept)
{
	static const char *const places[] = {
		"event_wait: counted", "event_wait: falling asleep"
	};

	probe_hook = wake_hook;
	wake_at = places[_i];
	ck_assert(event_wait(&channel, event_prepare(&channel), EVENT_FOREVER));
	ck_assert_int_eq(woken, 1);
}
END_TEST

static uint32_t old_ticket;
static pthread_t late;

static void *
late_waiter(void *arg)
{
	woken = event_wait(&channel, old_ticket, EVENT_FOREVER);
	return (NULL);
}

/* The waker stops half way, and one that had prepared before goes to sleep. */
static void
stop_hook(const char *place)
{
	if (wake_at != NULL && strcmp(place, wake_at) == 0) {
		wake_at = NULL;
		late = spawn(late_waiter, NULL);
		msleep(50);
	}
}

START_TEST(waker_that_stops_half_way_loses_nobody)
{
	old_ticket = event_prepare(&channel);
	probe_hook = stop_hook;
	wake_at = "event_wake: sequence changed";
	event_wake(&channel);
	join(late);
	ck_assert_int_eq(woken, 1);
}
END_TEST

/* Two threads hand a token to and fro. */
static int turn;

static void *
player(void *arg)
{
	int self = (int)(intptr_t)arg;
	uint32_t ticket;

	for (int i = 0; i < 20000; i++) {
		for (;;) {
			kmutex_lock(&lock);
			if (turn == self)
				break;
			ticket = event_prepare(&channel);
			kmutex_unlock(&lock);
			(void)event_wait(&channel, ticket, EVENT_FOREVER);
		}
		turn = !self;
		kmutex_unlock(&lock);
		event_wake(&channel);
	}
	return (NULL);
}

START_TEST(no_wakeup_is_lost_in_a_race)
{
	pthread_t a = spawn(player, (void *)0), b = spawn(player, (void *)1);

	join(a);
	join(b);
	ck_assert_int_eq(turn, 0);
}
END_TEST

static void *
sleeper(void *arg)
{
	uint32_t ticket = event_prepare(&channel);

	ready++;
	if (event_wait(&channel, ticket, EVENT_FOREVER))
		woken++;
	return (NULL);
}

START_TEST(all_waiters_wake)
{
	pthread_t t[THREADS];

	for (int i = 0; i < THREADS; i++)
		t[i] = spawn(sleeper, NULL);
	while (ready < THREADS)
		msleep(1);
	msleep(30);
	ck_assert_int_eq(woken, 0);
	event_wake(&channel);
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	ck_assert_int_eq(woken, THREADS);
}
END_TEST

static void
on_signal(int sig)
{
}

static uint64_t slept;

static void *
interrupted_sleeper(void *arg)
{
	uint64_t start = sys_clock();
	uint32_t ticket = event_prepare(&channel);

	ready = 1;
	woken = event_wait(&channel, ticket, 80 * MS);
	slept = sys_clock() - start;
	return (NULL);
}

START_TEST(signals_do_not_end_a_wait)
{
	struct sigaction sa = { .sa_handler = on_signal };
	pthread_t t;

	sigaction(SIGUSR1, &sa, NULL);
	t = spawn(interrupted_sleeper, NULL);
	while (!ready)
		msleep(1);
	for (int i = 0; i < 3; i++) {
		msleep(10);
		pthread_kill(t, SIGUSR1);
	}
	join(t);
	ck_assert_int_eq(woken, 0);
	ck_assert_uint_ge(slept, 80 * MS);
}
END_TEST

/* The kernel kills a child that makes any system call but exit_group. */
static void
wake_silently(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		_exit(0);
	for (int i = 0; i < 1000; i++)
		event_wake(&channel);
	syscall(SYS_exit_group, 0);
}

START_TEST(wakeup_of_nobody_is_no_system_call)
{
	int status;

	/* Not even after someone waited. */
	ck_assert(!event_wait(&channel, event_prepare(&channel), 1 * MS));
	(void)words_of(wake_silently, &status);
	ck_assert_int_eq(status, 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("kern/event");
	TCase *tc = tcase_create("event");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, wakeup_after_prepare_is_kept);
	tcase_add_test(tc, wakeup_before_prepare_does_not_count);
	tcase_add_test(tc, timeout_is_kept);
	tcase_add_test(tc, spinning_sees_a_wakeup_and_ends);
	tcase_add_loop_test(tc, wakeup_on_the_way_to_sleep_is_kept, 0, 2);
	tcase_add_test(tc, waker_that_stops_half_way_loses_nobody);
	tcase_add_test(tc, no_wakeup_is_lost_in_a_race);
	tcase_add_test(tc, all_waiters_wake);
	tcase_add_test(tc, signals_do_not_end_a_wait);
	tcase_add_test(tc, wakeup_of_nobody_is_no_system_call);
	suite_add_tcase(s, tc);
	return (run_suite(s));
}
