/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * fork() while other threads write, fork, and do all else that the library can.
 *
 * THE CUT.  A writer's n-th write puts n into page n mod K of its own.  Whatever the instant was, the pages show the first
 * m of its writes, and no other.  Before the write it says so in ordinary memory, and afterwards that it is done: these words
 * the kernel copies, later than our cut.  So m is at least what was done, and at most what was begun: who
 * sees the flag sees the page.
 *
 * THE CHURN.  Threads write, take and go back to snapshots, unmap, wire, hold, advise, and have pages paged out, while the
 * process forks.  Each word of a page has its own address in it, and how many times its thread had begun to write
 * a page; words are written from the first to the last.  So in a child a page is of one time, or of two, the newer one
 * before the older; or zeros, or these behind.
 */

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>

#include "forks.h"

enum { WRITERS = 3, K = 24, FORKS = SANITIZED ? 8 : 40, CHURNED = 32, BIG = 4 * CHURNED * WRITERS, SMALL = 64 };

static _Atomic bool over;
static pthread_t thread[WRITERS];

static void
run_threads(void *(*fn)(void *))
{
	over = false;
	for (uintptr_t i = 0; i < WRITERS; i++)
		expect(pthread_create(&thread[i], NULL, fn, (void *)i), 0);
}

static void
join_threads(void)
{
	over = true;
	for (unsigned i = 0; i < WRITERS; i++)
		expect(pthread_join(thread[i], NULL), 0);
}

/*
 * The cut
 */

static struct {
	char *p;
	volatile uint64_t begun, done;
} logs[WRITERS];

static volatile uint64_t *
log_word(unsigned w, size_t page)
{
	return (volatile uint64_t *)(void *)(logs[w].p + page * PG);
}

TOUCHES_MANAGED static void *
write_log(void *arg)
{
	unsigned w = (unsigned)(uintptr_t)arg;

	for (uint64_t n = 1; !over; n++) {
		logs[w].begun = n;
		*log_word(w, n % K) = n;
		logs[w].done = n;
	}
	return NULL;
}

/* => the first m of its writes are there, and that many it must be */
TOUCHES_MANAGED static void
check_log(unsigned w, uint64_t least, uint64_t most)
{
	uint64_t m = 0, v;

	for (size_t i = 0; i < K; i++)
		m = (v = *log_word(w, i)) > m ? v : m;
	if (m < least || m > most)
		die("writer %u: %llu writes are seen, %llu were done, %llu begun", w, (unsigned long long)m,
		    (unsigned long long)least, (unsigned long long)most);
	for (size_t i = 0; i < K; i++) {
		uint64_t behind = (m % K + K - i) % K;

		v = *log_word(w, i);
		if (v != (m > behind ? m - behind : 0))
			die("writer %u: page %zu has write %llu, after %llu of them", w, i, (unsigned long long)v,
			    (unsigned long long)m);
	}
}

/* A child: all of it, and then something else there. */
TOUCHES_MANAGED static void
check_logs(void)
{
	for (unsigned w = 0; w < WRITERS; w++)
		check_log(w, logs[w].done, logs[w].begun);
	for (unsigned w = 0; w < WRITERS; w++)
		for (size_t i = 0; i < K; i++)
			*log_word(w, i) = ~UINT64_C(0);
	audit();
}

START_TEST(who_sees_the_flag_sees_the_page)
{
	struct held none;

	begin_forks(_i == 0 ? 0 : SMALL, _i == 0 ? 0 : 4096, 0);
	none = held_now();
	for (unsigned w = 0; w < WRITERS; w++) {
		logs[w].p = alloc(K);
		logs[w].begun = logs[w].done = 0;
	}
	run_threads(write_log);
	for (unsigned i = 0; i < FORKS; i++) {
		pid_t pid = fork();

		check(pid >= 0);
		if (pid == 0) {
			check_logs();
			_exit(0);
		}
		expect_good(pid);
	}
	join_threads();
	for (unsigned w = 0; w < WRITERS; w++) {
		check_log(w, logs[w].done, logs[w].done);
		expect(vmf_unmap(logs[w].p, K * PG), 0);
	}
	expect_no_children();
	expect_held(none);
	stop();
}
END_TEST

/*
 * Forks by all threads
 */

static char *own[WRITERS];

static void
rewrite(char *p, uint64_t was, uint64_t is)
{
	check_pages(p, K, was);
	fill_pages(p, K, is);
	check_pages(p, K, is);
}

static void *
fork_in_a_row(void *arg)
{
	char *p = own[(uintptr_t)arg];
	uint64_t key = (uintptr_t)arg + 1;
	pid_t pid[2];

	fill_pages(p, K, key);
	for (unsigned i = 0; i < FORKS / WRITERS; i++) {
		/* Two are there at a time, each with what was at its fork; and the second has one of its own. */
		for (unsigned k = 0; k < 2; k++) {
			pid[k] = fork();
			check(pid[k] >= 0);
			if (pid[k] == 0) {
				rewrite(p, key, ~key);
				if (k == 1 && (pid[0] = fork()) == 0) {
					rewrite(p, ~key, 5);
					_exit(0);
				} else if (k == 1) {
					fill_pages(p, K, 6);
					expect_good(pid[0]);
					check_pages(p, K, 6);
				}
				audit();
				_exit(0);
			}
			rewrite(p, key, key + WRITERS);
			key += WRITERS;
		}
		expect_good(pid[0]);
		expect_good(pid[1]);
		check_pages(p, K, key);
	}
	return NULL;
}

START_TEST(all_threads_fork_in_a_row)
{
	struct held none;

	begin_forks(_i == 0 ? 0 : SMALL, _i == 0 ? 0 : 4096, 0);
	none = held_now();
	for (unsigned w = 0; w < WRITERS; w++)
		own[w] = alloc(K);
	run_threads(fork_in_a_row);
	join_threads();
	for (unsigned w = 0; w < WRITERS; w++)
		expect(vmf_unmap(own[w], K * PG), 0);
	expect_no_children();
	expect_held(none);
	stop();
}
END_TEST

/*
 * The churn
 */

enum { WORDS = VMF_PAGE_SIZE / sizeof(uint64_t), OLD = 32 };

static struct {
	char *volatile p;		/* null: none is mapped now */
	volatile uint64_t times;	/* that it began to write a page */
} churn[WRITERS];

/* What stands in a word. */
static uint64_t
word_at(const volatile uint64_t *w, uint64_t times)
{
	return mix(7, (uintptr_t)w) << OLD | times;
}

static void
churn_write(unsigned w, size_t page)
{
	volatile uint64_t *word = (volatile uint64_t *)(void *)(churn[w].p + page * PG);
	uint64_t times = ++churn[w].times;

	for (size_t i = 0; i < WORDS; i++)
		word[i] = word_at(&word[i], times);
}

static void
churn_check(unsigned w)
{
	for (size_t page = 0; page < CHURNED; page++) {
		volatile uint64_t *word = (volatile uint64_t *)(void *)(churn[w].p + page * PG);
		uint64_t last = churn[w].times, v;
		unsigned steps = 0;

		for (size_t i = 0; i < WORDS; i++) {
			uint64_t times = (v = word[i]) & ((UINT64_C(1) << OLD) - 1);

			if (v != 0 && v != word_at(&word[i], times))
				die("thread %u, page %zu, word %zu: %llx is not from here", w, page, i,
				    (unsigned long long)v);
			if (times > last || (times != last && i != 0 && ++steps > 1))
				die("thread %u, page %zu, word %zu: of time %llu after %llu", w, page, i,
				    (unsigned long long)times, (unsigned long long)last);
			last = times;
		}
	}
}

static void
churn_step(unsigned w, uint64_t *rng)
{
	char *p = churn[w].p;
	size_t page = rng_next(rng) % CHURNED, n = 1 + rng_next(rng) % (CHURNED - page);
	vmf_snapshot_t s;

	switch (rng_next(rng) % 8) {
	case 0:
		s = snap(p, CHURNED);
		churn_write(w, page);
		if (n % 2 == 0)
			expect(vmf_snapshot_rollback(s), 0);
		churn_write(w, page);
		expect(vmf_snapshot_release(s), 0);
		break;
	case 1:
		churn[w].p = NULL;
		expect(vmf_unmap(p, CHURNED * PG), 0);
		churn[w].p = alloc(CHURNED);
		break;
	case 2:
		/* Twelve pages of the three at most: there are frames for them. */
		expect(vmf_wire(p + page * PG, (n < 4 ? n : 4) * PG), 0);
		expect(vmf_unwire(p + page * PG, (n < 4 ? n : 4) * PG), 0);
		break;
	case 3:
		expect(vmf_fault_in(p + page * PG, PG, VMF_PROT_WRITE), 0);
		expect(vmf_fault_release(p + page * PG, PG), 0);
		break;
	case 4:
		expect(vmf_advise(p + page * PG, n * PG, n % 2 ? VMF_ADVICE_DONTNEED : VMF_ADVICE_COLD), 0);
		break;
	case 5:
		if (w == 0)
			expect(vmf_set_memory((n % 2 ? BIG : SMALL) * PG), 0);
		break;
	default:
		for (size_t i = page; i < page + n; i++)
			churn_write(w, i);
	}
}

static void *
churn_on(void *arg)
{
	unsigned w = (unsigned)(uintptr_t)arg;
	uint64_t rng = w + 1;

	churn[w].p = alloc(CHURNED);
	while (!over) {
		churn_step(w, &rng);
		churn_check(w);
	}
	return NULL;
}

static void
use_what_is_there(char *mine)
{
	check_pages(mine, K, 1);
	audit();
	for (unsigned w = 0; w < WRITERS; w++) {
		if (churn[w].p == NULL)
			continue;
		churn_check(w);
		for (size_t i = 0; i < CHURNED; i += 3)
			churn_write(w, i);
		churn_check(w);
	}
	rewrite(mine, 1, 2);
	audit();
	for (unsigned w = 0; w < WRITERS; w++)
		if (churn[w].p != NULL)
			expect(vmf_unmap(churn[w].p, CHURNED * PG), 0);
}

START_TEST(others_may_do_all_else)
{
	struct held none;
	char *p;

	begin_forks(SMALL, 8192, 0);
	none = held_now();
	p = alloc(K);
	fill_pages(p, K, 1);
	run_threads(churn_on);
	for (unsigned i = 0; i < FORKS; i++) {
		pid_t pid = fork();

		check(pid >= 0);
		if (pid == 0) {
			use_what_is_there(p);
			_exit(0);
		}
		/* Some are there while the next one comes. */
		if (i % 3 != 0)
			expect_good(pid);
		check_pages(p, K, 1);
	}
	for (unsigned i = 0; i < FORKS; i += 3)
		expect_good(-1);
	join_threads();
	for (unsigned w = 0; w < WRITERS; w++) {
		churn_check(w);
		expect(vmf_unmap(churn[w].p, CHURNED * PG), 0);
	}
	expect(vmf_unmap(p, K * PG), 0);
	expect_no_children();
	expect_held(none);
	stop();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("fork/threads");
	TCase *t = tcase_create("threads");

	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	tcase_add_loop_test(t, who_sees_the_flag_sees_the_page, 0, 2);
	tcase_add_loop_test(t, all_threads_fork_in_a_row, 0, 2);
	tcase_add_test(t, others_may_do_all_else);
	return run_suite(s);
}
