/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Private views, seen from outside: after a snapshot the kernel may copy what is written here and there
 * (v_views counts runs of 2 MB where it does), and a thread of the library brings the pages home afterwards
 * (v_views_home).  Nobody may be able to tell, but by these counters: whatever is done to memory that is
 * being viewed finds the right bytes, in the memory and in each of its snapshots.
 *
 * A key for each page of the memory, and of each snapshot when it was made, says what is right.  Where the
 * kernel cannot tell what it has copied there are no views; then only the counting is left out.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "suite.h"
#include "support.h"

enum { LEAF = 512, N = 5 * LEAF + 300, SNAPS = 6 };

static char *mem;
static uint64_t live[N];			/* key of each page; 0: not there, or not to be looked at */
static uint64_t next_key, rng;
static struct {
	vmf_snapshot_t name;
	uint64_t key[N];
} snaps[SNAPS];
static bool works;				/* there are views here */

static struct vmf_stats
stats(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	expect(vmf_statistics(&s), 0);
	return s;
}

/*
 * Pages
 */

static void
write_page(size_t i)
{
	live[i] = ++next_key;
	fill_ends(mem + i * PG, next_key);
}

static void
write_random(size_t n, size_t from, size_t to)
{
	while (n-- > 0)
		write_page(from + (size_t)(rng_next(&rng) % (to - from)));
}

static void
check_keys(const char *what, const char *p, const uint64_t *key)
{
	for (size_t i = 0; i < N; i++)
		if (key[i] != 0)
			check_ends(what, p + i * PG, i, key[i]);
}

static void
check_live(void)
{
	check_keys("memory", mem, live);
}

static void
take(unsigned k)
{
	snaps[k].name = snap(mem, N);
	memcpy(snaps[k].key, live, sizeof(live));
}

static void
drop(unsigned k)
{
	expect(vmf_snapshot_release(snaps[k].name), 0);
	snaps[k].name = 0;
}

/* What a snapshot holds: by calls, and mapped. */
static void
check_read(unsigned k)
{
	char buf[VMF_PAGE_SIZE];

	for (size_t i = 0; i < N; i++) {
		expect(vmf_snapshot_read(snaps[k].name, 0, i * PG, buf, PG), 0);
		check_ends("snapshot", buf, i, snaps[k].key[i]);
	}
}

static void
check_mapped(unsigned k)
{
	char *v = view(snaps[k].name, N, VMF_PROT_READ);

	check_keys("mapped snapshot", v, snaps[k].key);
	expect(vmf_unmap(v, N * PG), 0);
}

static void
check_all(void)
{
	for (unsigned k = 0; k < SNAPS; k++)
		if (snaps[k].name != 0) {
			check_read(k);
			check_live();
			check_mapped(k);
		}
	check_live();
}

/* Memory, snapshot 0 of it, and random writes since: views. */
static void
begin(uint64_t memory)
{
	start(memory, 0);
	rng = 1;
	next_key = 100;
	mem = alloc(N);
	for (size_t i = 0; i < N; i++)
		write_page(i);
	take(0);
	write_random(60, 0, N);
	works = stats().v_views != 0;
}

static void
setup(void)
{
	begin(0);
}

/* Whatever a test leaves behind. */
static void
teardown(void)
{
	check_all();
	for (unsigned k = 0; k < SNAPS; k++)
		if (snaps[k].name != 0)
			drop(k);
	check_live();
	stop();
}

/* Until the keeper has brought home all that was changed: it needs no help for that. */
static void
wait_home(uint64_t pages)
{
	while (works && stats().v_views_home < pages)
		sched_yield();
}

/* Until so many leaves that were written all over came home, or were not left to the kernel any longer. */
static void
wait_ended(const struct vmf_stats *before, uint64_t leaves)
{
	struct vmf_stats s;

	do {
		sched_yield();
		s = stats();
	} while ((s.v_views_dense - before->v_views_dense) * LEAF + s.v_views_home - before->v_views_home < leaves * LEAF);
}

START_TEST(single_writes_are_viewed)
{
	struct vmf_stats s = stats();

	if (works) {
		ck_assert_uint_ge(s.v_views, 5);
		ck_assert_uint_le(s.v_views, 6);
		/* Where the rest is: no leaf is whole there. */
		write_page(N - 1);
		ck_assert_uint_eq(stats().v_views, s.v_views);
	}
	write_random(300, 0, N);
	check_all();
	write_random(300, 0, N);
}
END_TEST

/* When nobody needs the frames any more the pages come home, and are not copied to anybody. */
START_TEST(release_brings_them_home)
{
	struct vmf_stats before, after;
	size_t changed = 0;

	for (size_t i = 0; i < 5 * LEAF; i++)
		changed += live[i] != snaps[0].key[i];
	before = stats();
	drop(0);
	wait_home(before.v_views_home + 1);
	check_live();
	after = stats();
	if (works && before.v_views_home == 0)
		ck_assert_uint_eq(after.v_pushes, before.v_pushes);
	wait_home(changed);
	write_random(100, 0, N);
}
END_TEST

START_TEST(second_snapshot_while_viewed)
{
	take(1);
	write_random(60, 0, N);
	if (_i & 1)
		check_all();
	take(2);
	write_random(60, 0, N);
	if (_i & 2)
		drop(0);
	else if (_i & 4)
		drop(2);
	take(3);
	write_random(60, 0, N);
	if (_i & 1)
		drop(1);
}
END_TEST

/* One snapshot after another, of which the older or the younger go at once. */
START_TEST(snapshots_come_and_go)
{
	for (unsigned round = 0; round < 8; round++) {
		unsigned k = 1 + round % (SNAPS - 1);

		if (snaps[k].name != 0)
			drop(k);
		take(k);
		if (_i == 1 || (_i == 2 && round % 2))
			drop(k);
		write_random(20, 0, N);
		check_live();
	}
}
END_TEST

/* Nothing is written between: yet the second is not the first. */
START_TEST(the_second_is_gone_before_the_third)
{
	take(1);
	drop(1);
	take(2);
	take(3);
	drop(2);
	take(4);
}
END_TEST

START_TEST(a_snapshot_of_a_part)
{
	struct vmf_range r = { mem + 700 * PG, 500 * PG };
	uint64_t then[500];
	vmf_snapshot_t s;
	char buf[VMF_PAGE_SIZE];

	expect(vmf_snapshot_create(&r, 1, &s), 0);
	memcpy(then, live + 700, sizeof(then));
	write_random(200, 0, N);
	if (_i)
		drop(0);
	for (size_t i = 0; i < 500; i++) {
		expect(vmf_snapshot_read(s, 0, i * PG, buf, PG), 0);
		check_ends("part", buf, i, then[i]);
	}
	expect(vmf_snapshot_rollback(s), 0);
	memcpy(live + 700, then, sizeof(then));
	check_live();
	expect(vmf_snapshot_release(s), 0);
}
END_TEST

/* Of one instant, although its ranges have an object in common. */
START_TEST(a_snapshot_of_several_ranges)
{
	struct vmf_range r[3] = { { mem, 600 * PG }, { mem + 600 * PG, 900 * PG }, { mem + 2000 * PG, 500 * PG } };
	uint64_t then[N];
	vmf_snapshot_t s;
	char buf[VMF_PAGE_SIZE];

	expect(vmf_snapshot_create(r, 3, &s), 0);
	memcpy(then, live, sizeof(then));
	write_random(200, 0, N);
	for (unsigned k = 0; k < 3; k++)
		for (size_t i = 0; i < r[k].size / PG; i++) {
			expect(vmf_snapshot_read(s, k, i * PG, buf, PG), 0);
			check_ends("range", buf, i, then[(size_t)((char *)r[k].addr - mem) / PG + i]);
		}
	expect(vmf_snapshot_release(s), 0);
}
END_TEST

/* Who writes to a mapped snapshot, while what it shows is viewed, changes nothing else. */
START_TEST(a_mapped_snapshot_is_written)
{
	char *v = view(snaps[0].name, N, VMF_PROT_DEFAULT);
	uint64_t mapped[N];

	memcpy(mapped, snaps[0].key, sizeof(mapped));
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned n = 0; n < 40; n++) {
			size_t i = (size_t)(rng_next(&rng) % N);

			mapped[i] = ++next_key;
			fill_ends(v + i * PG, next_key);
		}
		write_random(40, 0, N);
		if (round == 1)
			take(1);
		if (round == 2 && _i)
			drop(0);
		check_keys("writable", v, mapped);
	}
	check_all();
	check_keys("writable", v, mapped);
	expect(vmf_unmap(v, N * PG), 0);
}
END_TEST

START_TEST(it_is_unmapped)
{
	static const size_t parts[][2] = { { 0, N }, { 512, 1024 }, { 700, 1100 }, { 5, 6 }, { 1000, 2 * LEAF + 1 } };
	size_t from = parts[_i / 2][0], to = parts[_i / 2][1];
	void *at = mem + from * PG;

	if (_i % 2)
		take(1);
	touch_install();
	expect(vmf_unmap(at, (to - from) * PG), 0);
	expect_read(mem + from * PG, SIGSEGV, SEGV_MAPERR);
	expect_write(mem + (to - 1) * PG, SIGSEGV, SEGV_MAPERR);
	memset(live + from, 0, (to - from) * sizeof(live[0]));
	check_all();
	expect(vmf_allocate(VMF_TASK_DEFAULT, &at, (to - from) * PG, VMF_FIXED), 0);
	check_zero(at, (to - from) * PG);
	for (size_t i = from; i < to; i += 7)
		write_page(i);
}
END_TEST

START_TEST(it_is_protected)
{
	size_t n = _i % 2 ? 300 : 3 * LEAF;

	touch_install();
	if (_i / 2)
		take(1);
	expect(vmf_protect(mem + 700 * PG, n * PG, VMF_PROT_READ), 0);
	expect_write(mem + 700 * PG, SIGSEGV, SEGV_ACCERR);
	expect_write(mem + (699 + n) * PG, SIGSEGV, SEGV_ACCERR);
	check_live();
	write_random(50, 0, 700);
	expect(vmf_protect(mem + 700 * PG, n * PG, 0), 0);
	expect_read(mem + 800 * PG, SIGSEGV, SEGV_ACCERR);
	write_random(50, 0, 700);
	expect(vmf_protect(mem + 700 * PG, n * PG, VMF_PROT_DEFAULT), 0);
	write_random(100, 0, N);
}
END_TEST

START_TEST(it_is_wired)
{
	size_t at = 700, n = _i % 2 ? 100 : 2 * LEAF;

	if (_i / 2)
		take(1);
	expect(vmf_wire(mem + at * PG, n * PG), 0);
	write_random(50, at, at + n);
	take(2);
	write_random(50, at, at + n);
	write_random(50, 0, N);
	expect(vmf_unwire(mem + at * PG, n * PG), 0);
	take(3);
	write_random(50, 0, N);
	expect(vmf_fault_in(mem + at * PG + 5, n * PG, VMF_PROT_WRITE), 0);
	write_random(50, at, at + n);
	expect(vmf_fault_release(mem + at * PG + 5, n * PG), 0);
}
END_TEST

/* System calls see what is there. */
START_TEST(system_calls)
{
	int fd[2];

	ck_assert(pipe(fd) == 0);
	for (unsigned round = 0; round < 3; round++) {
		size_t i = 100;
		char buf[VMF_PAGE_SIZE];

		write_page(i);
		write_page(i + 1);
		if (round == 1) {
			take(1);
			expect(vmf_fault_in(mem + i * PG, 2 * PG, VMF_PROT_WRITE), 0);
		}
		ck_assert(write(fd[1], mem + i * PG, PG) == (ssize_t)PG);
		ck_assert(read(fd[0], mem + (i + 1) * PG, PG) == (ssize_t)PG);
		if (round == 1)
			expect(vmf_fault_release(mem + i * PG, 2 * PG), 0);
		live[i + 1] = live[i];
		check_ends("read", mem + (i + 1) * PG, i + 1, live[i]);
		expect(vmf_read(mem + (i + 1) * PG, buf, PG), 0);
		check_ends("vmf_read", buf, i + 1, live[i]);
		fill_ends(buf, ++next_key);
		expect(vmf_write(mem + (LEAF + 9) * PG, buf, PG), 0);
		live[LEAF + 9] = next_key;
	}
	close(fd[0]);
	close(fd[1]);
}
END_TEST

static void
roll(unsigned k)
{
	expect(vmf_snapshot_rollback(snaps[k].name), 0);
	memcpy(live, snaps[k].key, sizeof(live));
	check_live();
}

START_TEST(it_is_rolled_back)
{
	take(1);
	write_random(60, 0, N);
	take(2);
	write_random(60, 0, N);
	for (unsigned n = 0; n < 6; n++) {
		roll((n + (unsigned)_i) % 3);
		write_random(60, 0, N);
		if (n == 3)
			take(3);
	}
	roll(0);
	roll(3);
}
END_TEST

START_TEST(what_differs)
{
	take(1);
	write_random(30, 0, N);
	take(2);
	write_random(30, 0, N);
	for (unsigned k = 0; k < 3; k++)
		for (unsigned l = 0; l < 4; l++) {
			const uint64_t *b = l < 3 ? snaps[l].key : live;
			bool differs[N] = { false };
			struct vmf_extent e;
			size_t cursor = 0;
			int more;

			while ((more = vmf_snapshot_diff(snaps[k].name, l < 3 ? snaps[l].name : 0, 0, &cursor, &e, 1)) == 1)
				for (size_t i = e.offset / PG; i < (e.offset + e.size) / PG; i++)
					differs[i] = true;
			expect(more, 0);
			for (size_t i = 0; i < N; i++)
				if (differs[i] != (snaps[k].key[i] != b[i]))
					die("diff of %u and %u: page %zu", k, l, i);
		}
}
END_TEST

START_TEST(it_is_forked)
{
	static const int how[] = { VMF_INHERIT_COPY, VMF_INHERIT_SHARE, VMF_INHERIT_NONE };
	uint64_t then[N], views;
	vmf_task_t child;
	void *base, *mine;
	char *c;

	expect(vmf_inherit(mem, N * PG, how[_i % 3]), 0);
	if (_i / 3)
		take(1);
	write_random(30, 0, N);
	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, NULL), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
	expect(vmf_task_range(child, &mine, NULL), 0);
	c = (char *)mine + (mem - (char *)base);
	memcpy(then, live, sizeof(then));
	views = stats().v_views;
	write_random(60, 0, N);
	if (how[_i % 3] == VMF_INHERIT_COPY) {
		check_keys("child", c, then);
		for (size_t i = 3; i < N; i += 50)
			fill_ends(c + i * PG, then[i] = ++next_key);
		check_keys("child", c, then);
	} else if (how[_i % 3] == VMF_INHERIT_SHARE) {
		/* Mapped twice: no place for views. */
		check_keys("child", c, live);
		for (size_t i = 3; i < N; i += 50)
			fill_ends(c + i * PG, live[i] = ++next_key);
		take(2);
		write_random(60, 0, N);
		check_keys("child", c, live);
		ck_assert_uint_eq(stats().v_views, views);
	}
	check_all();
	expect(vmf_task_destroy(child), 0);
	write_random(60, 0, N);
}
END_TEST

START_TEST(it_is_copied)
{
	size_t to = 1300, from = 100, n = _i ? 900 : LEAF;

	expect(vmf_copy(mem + to * PG, mem + from * PG, n * PG), 0);
	memcpy(live + to, live + from, n * sizeof(live[0]));
	check_live();
	write_random(60, 0, N);
	take(1);
	write_random(60, 0, N);
	expect(vmf_copy(mem + from * PG, mem + to * PG, n * PG), 0);
	memcpy(live + from, live + to, n * sizeof(live[0]));
	write_random(60, 0, N);
}
END_TEST

START_TEST(advice)
{
	static const int advices[] = { VMF_ADVICE_RANDOM, VMF_ADVICE_SEQUENTIAL, VMF_ADVICE_WILLNEED, VMF_ADVICE_COLD,
	    VMF_ADVICE_NORMAL, VMF_ADVICE_FREE, VMF_ADVICE_DONTNEED };

	for (size_t k = 0; k < nitems(advices); k++) {
		size_t at = 600 + 90 * k, n = k % 2 ? 80 : LEAF;
		bool gone = advices[k] == VMF_ADVICE_DONTNEED;

		expect(vmf_advise(mem + at * PG, n * PG, advices[k]), 0);
		for (size_t i = at; gone && i < at + n; i++) {
			check_zero(mem + i * PG, PG);
			live[i] = 0;
		}
		check_live();
		write_random(60, 0, 600);
		if (!gone)
			write_random(60, 0, N);
		check_live();
		take(1 + k % 5);
		write_random(20, 0, N);
		drop(1 + k % 5);
	}
	for (size_t i = 0; i < N; i++)
		if (live[i] == 0)
			write_page(i);
	check_read(0);
}
END_TEST

START_TEST(page_info)
{
	unsigned char bits[N];

	write_page(700);
	expect(vmf_page_info(mem, N * PG, bits), 0);
	for (size_t i = 0; i < N; i++) {
		ck_assert((bits[i] & VMF_PAGE_RESIDENT) && !(bits[i] & (VMF_PAGE_PAGED_OUT | VMF_PAGE_SHADOWED | VMF_PAGE_WIRED)));
		ck_assert(bits[i] & VMF_PAGE_MODIFIED);
	}
	/* Nobody takes that away: snapshot 0 needs the frame. */
	ck_assert(bits[700] & VMF_PAGE_WRITABLE);
	take(1);
	expect(vmf_page_info(mem, N * PG, bits), 0);
	for (size_t i = 0; i < N; i++)
		ck_assert(!(bits[i] & VMF_PAGE_WRITABLE));
	check_live();
}
END_TEST

/* Less memory than there is: what is viewed comes home, and goes on from there. */
START_TEST(memory_is_made_smaller)
{
	struct vmf_config config = VMF_CONFIG_INIT;

	for (unsigned k = 0; k < SNAPS; k++)
		if (snaps[k].name != 0)
			drop(k);
	expect(vmf_fini(), 0);
	config.memory = (uint64_t)N * 4 * PG;
	config.swap_size = (uint64_t)N * 8 * PG;
	config.flags = VMF_CONFIG_QUIET;
	expect(vmf_init(&config), 0);
	mem = alloc(N);
	for (size_t i = 0; i < N; i++)
		write_page(i);
	take(0);
	write_random(60, 0, N);
	if (works)
		ck_assert_uint_ne(stats().v_views, 0);
	if (_i)
		take(1);
	expect(vmf_set_memory((uint64_t)N / 2 * PG), 0);
	check_live();
	write_random(200, 0, N);
	check_all();
	expect(vmf_set_memory((uint64_t)N * 4 * PG), 0);
	take(2);
	write_random(200, 0, N);
}
END_TEST

/* A good part of a leaf, in no order, while the snapshot is there: the view ends, and the rest is written as ever. */
START_TEST(much_of_a_leaf)
{
	struct vmf_stats before = stats();
	const struct timespec pause = { .tv_nsec = 1000000 };

	for (size_t i = 0; i < LEAF / 2; i++)
		write_page(i * 37 % LEAF);
	while (works && stats().v_views_dense == before.v_views_dense)
		(void)nanosleep(&pause, NULL);
	check_all();
	for (size_t i = 0; i < LEAF; i++)
		write_page(i * 37 % LEAF);
	take(1);
	check_all();
	write_random(500, 0, N);
	check_all();
	if (works)
		ck_assert_uint_gt(stats().v_dense, before.v_dense);
}
END_TEST

/* All of it, time after time: after the first the leaves are pushed whole. */
START_TEST(dense_leaves)
{
	struct vmf_stats before = stats();

	for (unsigned epoch = 1; epoch < 6; epoch++) {
		size_t last = 3 * LEAF;

		/* From the last page on down: that is no pass, which would be served otherwise. */
		for (size_t i = last; i-- > 0;)
			write_page(i);
		drop(epoch - 1);
		if (epoch == 1 && works)
			wait_ended(&before, 2);
		for (size_t i = last; i-- > 0;)
			write_page(i);
		take(epoch);
	}
	if (works)
		ck_assert_uint_gt(stats().v_dense, before.v_dense);
	check_all();
	write_random(100, 0, N);
}
END_TEST

/* From the first page to the last, and writers of a word or of a page, with or without somebody reading. */
START_TEST(sequential_passes)
{
	for (unsigned epoch = 1; epoch < SNAPS; epoch++) {
		for (size_t i = 0; i < N; i++) {
			write_page(i);
			if (_i && i % 500 == 0)
				check_ends("memory", mem + i * PG, i, live[i]);
		}
		check_live();
		take(epoch);
		if (_i)
			drop(epoch - 1);
	}
}
END_TEST

/* The end of a range that is aligned to nothing, with memory of another kind beside it. */
START_TEST(ranges_that_are_not_aligned)
{
	char *p = alloc(3 * LEAF + 10), *q = p + 100 * PG;
	size_t n = 2 * LEAF + 200;
	uint64_t key = 7000;
	vmf_snapshot_t s;

	expect(vmf_unmap(p, 100 * PG), 0);
	expect(vmf_protect(q + n * PG, (3 * LEAF + 10 - 100 - n) * PG, VMF_PROT_READ), 0);
	for (size_t i = 0; i < n; i++)
		fill_ends(q + i * PG, key + i);
	s = snap(q, n);
	for (size_t i = 0; i < n; i += 13)
		fill_ends(q + i * PG, key * 2 + i);
	for (size_t i = 0; i < n; i++) {
		char buf[VMF_PAGE_SIZE];

		check_ends("odd", q + i * PG, i, i % 13 == 0 ? key * 2 + i : key + i);
		expect(vmf_snapshot_read(s, 0, i * PG, buf, PG), 0);
		check_ends("odd snapshot", buf, i, key + i);
	}
	expect(vmf_snapshot_release(s), 0);
	expect(vmf_unmap(q, (3 * LEAF + 10 - 100) * PG), 0);
}
END_TEST

/* The end comes while there are views, closed ones and open ones. */
START_TEST(the_end_leaves_nothing)
{
	unsigned fds = count_fds(), maps;

	drop(0);
	expect(vmf_fini(), 0);
	fds = count_fds();
	maps = count_maps();
	for (unsigned round = 0; round < 4; round++) {
		begin(0);
		if (_i) {
			take(1);
			write_random(20, 0, 2 * LEAF);
		}
		expect(vmf_fini(), 0);
		memset(snaps, 0, sizeof(snaps));
		ck_assert_uint_eq(count_fds(), fds);
		/* Threads leave a stack in libc's cache, and malloc an arena. */
		ck_assert_uint_le(count_maps(), maps + 20);
	}
	begin(0);
}
END_TEST

/*
 * Writers who never stop: each counts in a word of its own, in each page, and what a snapshot has lies between
 * what was there before it was made and after.
 */

enum { WRITERS = 2 };
static _Atomic bool enough;

static volatile uint64_t *
counter(size_t i, size_t writer)
{
	return (volatile uint64_t *)(void *)(mem + i * PG) + 100 + writer;
}

TOUCHES_MANAGED static uint64_t
count_of(size_t i, size_t writer)
{
	return *counter(i, writer);
}

TOUCHES_MANAGED static void *
count_up(void *arg)
{
	size_t writer = *(size_t *)arg;
	uint64_t state = writer + 1;

	while (!atomic_load(&enough)) {
		size_t i = (size_t)(rng_next(&state) % N);

		*counter(i, writer) = *counter(i, writer) + 1;
	}
	return NULL;
}

START_TEST(while_others_write)
{
	static uint64_t before[N][WRITERS];
	size_t number[WRITERS];
	pthread_t t[WRITERS];

	for (size_t i = 0; i < N; i++)
		for (size_t k = 0; k < WRITERS; k++)
			*counter(i, k) = 0;
	drop(0);
	atomic_store(&enough, false);
	for (size_t k = 0; k < WRITERS; k++) {
		number[k] = k;
		expect(pthread_create(&t[k], NULL, count_up, &number[k]), 0);
	}
	for (unsigned round = 0; round < (SANITIZED ? 4 : 12); round++) {
		vmf_snapshot_t s;
		uint64_t then[2];

		for (size_t i = 0; i < N; i++)
			for (size_t k = 0; k < WRITERS; k++)
				before[i][k] = count_of(i, k);
		s = snap(mem, N);
		for (unsigned pass = 0; pass < 2; pass++)
			for (size_t i = 0; i < N; i++) {
				expect(vmf_snapshot_read(s, 0, i * PG + 800, then, sizeof(then)), 0);
				for (size_t k = 0; k < WRITERS; k++) {
					if (then[k] < before[i][k] || then[k] > count_of(i, k))
						die("page %zu: %llu in the snapshot, %llu before, %llu now", i,
						    (unsigned long long)then[k], (unsigned long long)before[i][k],
						    (unsigned long long)count_of(i, k));
					/* And it stays as it is. */
					if (pass == 1 && then[k] != before[i][k])
						die("page %zu: the snapshot has changed", i);
					before[i][k] = then[k];
				}
			}
		expect(vmf_snapshot_release(s), 0);
	}
	atomic_store(&enough, true);
	for (size_t k = 0; k < WRITERS; k++)
		expect(pthread_join(t[k], NULL), 0);
	check_live();
}
END_TEST

int
main(void)
{
	const struct {
		const char *name;
		const TTest *test;
		int loops;
	} tests[] = {
		{ "views", single_writes_are_viewed, 1 },
		{ "release", release_brings_them_home, 1 },
		{ "second snapshot", second_snapshot_while_viewed, 8 },
		{ "many snapshots", snapshots_come_and_go, 3 },
		{ "three snapshots", the_second_is_gone_before_the_third, 1 },
		{ "a part", a_snapshot_of_a_part, 2 },
		{ "several ranges", a_snapshot_of_several_ranges, 1 },
		{ "mapped snapshot", a_mapped_snapshot_is_written, 2 },
		{ "unmap", it_is_unmapped, 10 },
		{ "protect", it_is_protected, 4 },
		{ "wire", it_is_wired, 4 },
		{ "system calls", system_calls, 1 },
		{ "rollback", it_is_rolled_back, 3 },
		{ "diff", what_differs, 1 },
		{ "fork", it_is_forked, 6 },
		{ "copy", it_is_copied, 2 },
		{ "advice", advice, 1 },
		{ "page info", page_info, 1 },
		{ "less memory", memory_is_made_smaller, 2 },
		{ "much of a leaf", much_of_a_leaf, 1 },
		{ "dense", dense_leaves, 1 },
		{ "sequential", sequential_passes, 2 },
		{ "not aligned", ranges_that_are_not_aligned, 1 },
		{ "the end", the_end_leaves_nothing, 2 },
		{ "others write", while_others_write, 1 },
	};
	Suite *s = suite_create("api/view");

	for (size_t i = 0; i < nitems(tests); i++) {
		TCase *t = tcase_create(tests[i].name);

		tcase_set_timeout(t, 60);
		tcase_add_checked_fixture(t, setup, teardown);
		tcase_add_loop_test(t, tests[i].test, 0, tests[i].loops);
		suite_add_tcase(s, t);
	}
	return run_suite(s);
}
