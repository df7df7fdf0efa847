/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * fork() with a copy: parent and child each have the memory as it was, nothing of what the other writes
 * afterwards, and all of the library.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fork.h"
#include "kern/sys.h"
#include "pmap.h"
#include "race.h"
#include "suite.h"
#include "support.h"

#ifndef FORK_SHARES
#define FORK_SHARES	false		/* test_fork-share: true */
#endif

enum { BUDGET = 256, SET = 4 * BUDGET, WRITERS = 3, FORKS = SANITIZED ? 10 : 40, PATIENCE_MS = 20000 };

static void
begin_with(uint32_t flags, size_t swap_pages, bool by_hand)
{
	struct vmf_config c = VMF_CONFIG_INIT;
	int error;

	c.memory = swap_pages != 0 ? BUDGET * PG : 0;
	c.swap_size = swap_pages * PG;
	c.flags = VMF_CONFIG_QUIET | flags;
	error = vmf_init(&c);
	if (error == -EPERM || error == -ENOSYS)
		exit(EXIT_SUCCESS);		/* no io_uring here */
	expect(error, 0);
	touch_install();
	expect(fork_enable(by_hand, FORK_SHARES), 0);
}

/* fork(), and in the child fn, which ends it.  => the child */
static pid_t
forked(void (*fn)(void *), void *arg)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0) {
		fn(arg);
		_exit(0);
	}
	return pid;
}

static void
expect_good(pid_t pid)
{
	int status;

	check(waitpid(pid, &status, 0) == pid);
	expect_exit(status, 0);
}

/* Nobody else sees our frames any more, and that is known. */
static void
thawed(void)
{
	struct vmf_stats stats = { .size = sizeof(stats) };

	do {
		usleep(1000);
		expect(vmf_statistics(&stats), 0);
	} while (stats.frames_frozen != 0 || stats.frames_superseded != 0);
}

static void
rewrite(void *p)
{
	check_pages(p, PAGES, 1);
	fill_pages(p, PAGES, 2);
	check_pages(p, PAGES, 2);
	audit();
}

START_TEST(each_has_its_own)
{
	unsigned fds;
	char *p;
	pid_t pid;

	begin_with(0, 0, false);
	p = alloc(PAGES);
	fill_pages(p, PAGES, 1);
	fds = count_fds();
	pid = forked(rewrite, p);
	check_pages(p, PAGES, 1);
	fill_pages(p, PAGES, 3);
	expect_good(pid);
	check_pages(p, PAGES, 3);
	thawed();
	ck_assert_uint_eq(count_fds(), fds);
	stop();
}
END_TEST

static void
fill_it(void *p)
{
	check_zero(p, PAGES * PG);
	fill_pages(p, PAGES, 2);
	check_pages(p, PAGES, 2);
	audit();
}

START_TEST(nothing_may_have_been_touched_yet)
{
	char *p;
	pid_t pid;

	begin_with(0, 0, false);
	p = alloc(PAGES);
	pid = forked(fill_it, p);
	fill_pages(p, PAGES, 3);
	expect_good(pid);
	check_pages(p, PAGES, 3);
	stop();
}
END_TEST

static void
whole_set(void *p)
{
	check_pages(p, SET, 1);
	fill_pages(p, SET, 2);
	check_pages(p, SET, 2);
	audit();
	expect(vmf_unmap(p, SET * PG), 0);
	expect(vmf_fini(), 0);
}

START_TEST(what_is_paged_out_is_copied_too)
{
	static const uint32_t engines[] = { VMF_CONFIG_IO_URING, VMF_CONFIG_IO_SYSCALLS,
	    VMF_CONFIG_IO_SYSCALLS | VMF_CONFIG_SWAP_DIRECT };
	char *p;
	pid_t pid;

	begin_with(engines[_i], 2 * SET, false);
	p = alloc(SET);
	fill_pages(p, SET, 1);
	pid = forked(whole_set, p);
	fill_pages(p, SET, 3);
	expect_good(pid);
	check_pages(p, SET, 3);
	stop();
}
END_TEST

/* 2 MB each, a few pages of each written after a snapshot: what is in them is in no frame. */
enum { VIEWED = 4 * 512, EACH = 100 };

struct viewed {
	char *p;
	vmf_snapshot_t snap;
};

static uint64_t
viewed(void)
{
	struct vmf_stats stats = { .size = sizeof(stats) };

	expect(vmf_statistics(&stats), 0);
	return stats.v_views;
}

static void
check_viewed(const struct viewed *v, uint64_t key)
{
	char *then = view(v->snap, VIEWED, VMF_PROT_READ);

	for (size_t i = 0; i < VIEWED; i++) {
		check_fill(v->p + i * PG, 64, i % EACH == 7 ? key : mix(1, i));
		check_fill(then + i * PG, 64, mix(1, i));
	}
	expect(vmf_unmap(then, VIEWED * PG), 0);
}

TOUCHES_MANAGED static void
write_viewed(const struct viewed *v, uint64_t key)
{
	for (size_t i = 7; i < VIEWED; i += EACH)
		fill(v->p + i * PG, 64, key);
}

static void
views_again(void *arg)
{
	struct viewed *v = arg;

	check_viewed(v, 2);
	write_viewed(v, 3);
	check_viewed(v, 3);
	expect(vmf_snapshot_release(v->snap), 0);
	v->snap = snap(v->p, VIEWED);
	for (size_t i = 0; i < VIEWED; i++)
		fill(v->p + i * PG, 64, i);
	for (size_t i = 0; i < VIEWED; i++)
		check_fill(v->p + i * PG, 64, i);
	audit();
}

START_TEST(what_is_in_views_is_copied_too)
{
	struct viewed v;

	begin_with(0, 0, false);
	v.p = alloc(VIEWED);
	fill_pages(v.p, VIEWED, 1);
	v.snap = snap(v.p, VIEWED);
	write_viewed(&v, 2);
	check(!pmap_has_views() || viewed() != 0);
	expect_good(forked(views_again, &v));
	check_viewed(&v, 2);
	write_viewed(&v, 4);
	check_viewed(&v, 4);
	audit();
	expect(vmf_snapshot_release(v.snap), 0);
	stop();
}
END_TEST

struct family {
	char *p;
	unsigned depth;
	uint64_t key;
};

static void
live(void *arg)
{
	struct family me = *(struct family *)arg;
	pid_t child[2];

	check_pages(me.p, PAGES, me.key);
	for (unsigned i = 0; i < 2 && me.depth > 0; i++) {
		struct family his = { me.p, me.depth - 1, mix(me.key, i) };

		fill_pages(me.p, PAGES, his.key);
		child[i] = forked(live, &his);
	}
	fill_pages(me.p, PAGES, ~me.key);
	for (unsigned i = 0; i < 2 && me.depth > 0; i++)
		expect_good(child[i]);
	check_pages(me.p, PAGES, ~me.key);
	audit();
}

/* What a child that is gone had shared is known to be so when the next one comes. */
static void
write_number(void *arg)
{
	struct family *f = arg;

	fill_pages(f->p, PAGES, f->key);
}

START_TEST(children_one_after_another_share)
{
	struct family f;

	begin_with(0, 0, false);
	f.p = alloc(PAGES);
	expect(vmf_inherit(f.p, PAGES * PG, VMF_INHERIT_SHARE), 0);
	for (f.key = 1; f.key <= FORKS && FORK_SHARES; f.key++) {
		expect_good(forked(write_number, &f));
		check_pages(f.p, PAGES, f.key);
	}
	stop();
}
END_TEST

struct gate {
	int fd[2];
};

/* It ends when nobody has the other end any more. */
static void
linger(void *arg)
{
	struct gate *g = arg;
	char c;

	(void)close(g->fd[1]);
	check(read(g->fd[0], &c, 1) == 0);
}

#define FEW	31u	/* one page of so many is written */

/* Every fourth page is missing, lest the kernel be left to copy: it would leave pages where they are. */
#define FOREACH_PAGE(i)	for (size_t i = 0; i < SET; i++) if (i % 4 != 3)

/* When all can be read. */
static uint64_t
mappings(const char *p)
{
	FOREACH_PAGE(i)
		(void)((const volatile char *)p)[i * PG];
	return STAT(mappings);
}

/*
 * What is written while a child lives is away from home, and its mappings are in pieces.  When the child is gone it comes
 * home by itself, long before the mappings are in the way.
 */
START_TEST(all_come_home_after_a_fork)
{
	uint64_t few, homed, written;
	struct gate g;
	pid_t pid;
	char *p;

	if (!FORK_SHARES)
		return;
	begin_with(0, 0, false);
	p = alloc(SET);
	for (size_t i = 3; i < SET; i += 4)
		expect(vmf_unmap(p + i * PG, PG), 0);
	FOREACH_PAGE(i)
		fill(p + i * PG, PG, mix(0, i));
	few = mappings(p);
	for (uint64_t key = 1; key < 7; key++) {
		homed = STAT(v_homed);
		written = 0;
		expect(pipe(g.fd), 0);
		pid = forked(linger, &g);
		FOREACH_PAGE(i) {
			/* Not so many that all of a leaf is copied (vm_own.c). */
			if (i % FEW == key) {
				fill(p + i * PG, PG, mix(key, i));
				written++;
			}
		}
		check(mappings(p) > few + written / 2);
		(void)close(g.fd[0]);
		(void)close(g.fd[1]);
		expect_good(pid);
		for (uint64_t began = now_ms(); mappings(p) > few; usleep(1000))
			if (now_ms() - began > PATIENCE_MS)
				die("%llu mappings, not %llu", (unsigned long long)STAT(mappings), (unsigned long long)few);
		check(STAT(v_homed) >= homed + written);
		FOREACH_PAGE(i)
			check_fill(p + i * PG, PG, mix(i % FEW <= key ? i % FEW : 0, i));
		audit();
	}
	stop();
}
END_TEST

START_TEST(children_have_children)
{
	struct family me = { .depth = SANITIZED ? 2 : 4, .key = 7 };

	begin_with(0, 0, false);
	me.p = alloc(PAGES);
	fill_pages(me.p, PAGES, me.key);
	live(&me);
	stop();
}
END_TEST

/*
 * The cut: who writes a number to the first word and then to the second never shows a second one that is
 * larger, nor one that is behind by more than 1.  The words are in pages far from each other.
 */

static struct pair {
	pthread_t thread;
	_Atomic uint64_t *first, *second;
} pairs[WRITERS];

static _Atomic bool over;

/*
 * For threads beside one that forks: they have all begun before, and none ends before all have forked.  Where
 * threads begin and end a sanitizer's allocator has its locks, which a child would find taken for ever.
 */
static pthread_barrier_t together;

TOUCHES_MANAGED static void
begin_pair(struct pair *w)
{
	*w->first = *w->second = 0;
}

TOUCHES_MANAGED static void *
write_pairs(void *arg)
{
	struct pair *w = arg;

	(void)pthread_barrier_wait(&together);
	for (uint64_t n = 1; !over; n++) {
		atomic_store(w->first, n);
		atomic_store(w->second, n);
	}
	return NULL;
}

TOUCHES_MANAGED static void
look_at_pairs(void *arg)
{
	(void)arg;
	for (int i = 0; i < WRITERS; i++) {
		uint64_t second = *pairs[i].second, first = *pairs[i].first;

		check(first == second || first == second + 1);
		begin_pair(&pairs[i]);
	}
}

START_TEST(the_child_sees_one_instant)
{
	size_t swap_pages = _i == 0 ? 0 : 2 * SET, pages = _i == 0 ? SET : SET / 2;
	char *p;

	begin_with(VMF_CONFIG_IO_SYSCALLS, swap_pages, false);
	p = alloc(pages);
	fill_pages(p, pages, 1);
	over = false;
	expect(pthread_barrier_init(&together, NULL, WRITERS + 1), 0);
	for (int i = 0; i < WRITERS; i++) {
		/* One begins at the end. */
		pairs[i].first = (void *)(p + (i % 2 ? (size_t)i : pages - 1 - (size_t)i) * PG);
		pairs[i].second = (void *)(p + (i % 2 ? pages - 1 - (size_t)i : (size_t)i) * PG);
		begin_pair(&pairs[i]);
		expect(pthread_create(&pairs[i].thread, NULL, write_pairs, &pairs[i]), 0);
	}
	(void)pthread_barrier_wait(&together);
	for (int i = 0; i < FORKS; i++)
		expect_good(forked(look_at_pairs, NULL));
	over = true;
	for (int i = 0; i < WRITERS; i++)
		expect(pthread_join(pairs[i].thread, NULL), 0);
	look_at_pairs(NULL);
	stop();
}
END_TEST

static void *
fork_often(void *arg)
{
	(void)pthread_barrier_wait(&together);
	for (int i = 0; i < FORKS / WRITERS; i++)
		expect_good(forked(rewrite, arg));
	(void)pthread_barrier_wait(&together);
	return NULL;
}

START_TEST(several_threads_fork)
{
	pthread_t t[WRITERS];
	char *p;

	begin_with(0, 0, false);
	p = alloc(PAGES);
	fill_pages(p, PAGES, 1);
	expect(pthread_barrier_init(&together, NULL, WRITERS), 0);
	for (int i = 0; i < WRITERS; i++)
		expect(pthread_create(&t[i], NULL, fork_often, p), 0);
	for (int i = 0; i < WRITERS; i++)
		expect(pthread_join(t[i], NULL), 0);
	check_pages(p, PAGES, 1);
	stop();
}
END_TEST

static unsigned char
page_info(const char *p)
{
	unsigned char c;

	expect(vmf_page_info((void *)(uintptr_t)p, PG, &c), 0);
	return c;
}

static void
wired_and_not_held(void *arg)
{
	char *p = arg;

	/* Before anything else of the library could put it right. */
	check(p[0] == 'w' && p[PG] == 'h');
	check((page_info(p) & (VMF_PAGE_WIRED | VMF_PAGE_WRITABLE)) == (VMF_PAGE_WIRED | VMF_PAGE_WRITABLE));
	check((page_info(p + PG) & VMF_PAGE_WIRED) == 0);
	expect(vmf_fault_release(p + PG, PG), -EINVAL);
	p[0] = 'c';
	p[PG] = 'c';
	audit();
	expect(vmf_unwire(p, PG), 0);
	expect(vmf_unmap(p, 3 * PG), 0);
	expect(vmf_fini(), 0);
}

START_TEST(wired_pages_stay_so_and_held_ones_do_not)
{
	pid_t pid;
	char *p;

	begin_with(0, 0, false);
	p = alloc(3);
	expect(vmf_wire(p, PG), 0);
	p[0] = 'w';
	p[PG] = 'h';
	expect(vmf_fault_in(p + PG, PG, VMF_PROT_WRITE), 0);
	pid = forked(wired_and_not_held, p);
	p[0] = p[PG] = 'p';
	expect_good(pid);
	check(p[0] == 'p' && p[PG] == 'p');
	expect(vmf_fault_release(p + PG, PG), 0);
	expect(vmf_unwire(p, PG), 0);
	stop();
}
END_TEST

static void
see_the_last_word(void *arg)
{
	char *p = arg;

	check(p[0] == 'x' && p[PG] == 'y' && p[2 * PG] == 'z');
	audit();
}

/* As libc does, or a program whose stack it is. */
START_TEST(the_forking_thread_may_write_until_the_clone)
{
	pid_t pid;
	char *p;

	begin_with(0, 0, true);
	p = alloc(3);
	expect(vmf_wire(p, PG), 0);
	p[0] = p[PG] = p[2 * PG] = 'a';
	expect(vmf_fault_in(p + PG, PG, VMF_PROT_WRITE), 0);
	expect(fork_prepare(), 0);
	p[0] = 'x';
	p[PG] = 'y';
	p[2 * PG] = 'z';
	pid = forked(see_the_last_word, p);
	fork_parent(false);
	p[0] = p[PG] = p[2 * PG] = 'p';
	expect_good(pid);
	expect(vmf_fault_release(p + PG, PG), 0);
	expect(vmf_unwire(p, PG), 0);
	stop();
}
END_TEST

static void
snapshot_all(void *p)
{
	expect(vmf_snapshot_release(snap(p, PAGES)), 0);
}

static void
fork_one(void *p)
{
	expect_good(forked(rewrite, p));
}

START_TEST(who_is_inside_comes_out_first)
{
	struct actor inside, forker;
	char *p;

	begin_with(0, 0, false);
	p = alloc(PAGES);
	fill_pages(p, PAGES, 1);
	go(&inside, snapshot_all, p, "snapshot_create: before the end of the cut");
	meet(&inside);
	go(&forker, fork_one, p, "fork: the library is empty");
	usleep(QUIET_MS * 1000);
	check(!forker.stopped && !forker.ended);
	release(&inside);
	meet(&forker);
	release(&forker);
	finish(&inside);
	finish(&forker);
	check_pages(p, PAGES, 1);
	stop();
}
END_TEST

static void
use_all(void *arg)
{
	char *p = arg, *q;
	vmf_snapshot_t s = snap(p, PAGES);

	fill_pages(p, PAGES, 2);
	q = view(s, PAGES, VMF_PROT_READ);
	check_pages(q, PAGES, 1);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, PAGES, 1);
	/* Its own daemon pages out into its own swap. */
	q = alloc(SET);
	fill_pages(q, SET, 5);
	check_pages(q, SET, 5);
	expect(vmf_set_memory(2 * BUDGET * PG), 0);
	fill_pages(q, SET, 6);
	check_pages(q, SET, 6);
	check_pages(p, PAGES, 1);
	expect(vmf_snapshot_release(s), 0);
	audit();
	expect(vmf_fini(), 0);
}

START_TEST(the_child_has_all_of_the_library)
{
	vmf_snapshot_t s;
	char *p;

	begin_with(0, 2 * SET, false);
	p = alloc(PAGES);
	fill_pages(p, PAGES, 0);
	s = snap(p, PAGES);
	fill_pages(p, PAGES, 1);
	expect_good(forked(use_all, p));
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, PAGES, 0);
	expect(vmf_snapshot_release(s), 0);
	stop();
}
END_TEST

/*
 * Inheritance: a third of the pages each is shared, copied, and the parent's alone
 */

enum { THIRD = PAGES / 3 };

static void
fill_thirds(char *p, int n, uint64_t key)
{
	for (int i = 0; i < n; i++)
		fill_pages(p + (size_t)i * THIRD * PG, THIRD, key);
}

static void
check_thirds(char *p, uint64_t shared, uint64_t copied)
{
	check_pages(p, THIRD, shared);
	check_pages(p + THIRD * PG, THIRD, copied);
}

static char *
thirds(void)
{
	char *p = alloc(3 * THIRD);

	fill_thirds(p, 3, 1);
	expect(vmf_inherit(p, THIRD * PG, VMF_INHERIT_SHARE), 0);
	expect(vmf_inherit(p + 2 * THIRD * PG, THIRD * PG, VMF_INHERIT_NONE), 0);
	return p;
}

static void
third_child(void *arg)
{
	char *p = arg;
	pid_t pid;

	check_thirds(p, 1, 1);
	expect(vmf_unmap(p + 2 * THIRD * PG, PG), 0);		/* there is nothing: no error, and nothing happens */
	check(page_info(p) & VMF_PAGE_RESIDENT);
	fill_thirds(p, 2, 2);
	/* A grandchild shares it with both. */
	pid = fork();
	if (pid == 0) {
		check_thirds(p, 2, 2);
		fill_thirds(p, 2, 3);
		audit();
		_exit(0);
	}
	expect_good(pid);
	check_thirds(p, 3, 2);
	audit();
}

static void
touch_third(void *arg)
{
	char *p = arg;

	*(volatile char *)(p + 2 * THIRD * PG) = 1;
}

START_TEST(inheritance_is_what_was_asked_for)
{
	pid_t pid;
	char *p;
	int status;

	if (!FORK_SHARES)
		return;
	begin_with(0, 0, false);
	p = thirds();
	pid = forked(third_child, p);
	expect_good(pid);
	check_thirds(p, 3, 1);
	check_pages(p + 2 * THIRD * PG, THIRD, 1);
	/* It stays so, after all have gone, and for the next ones. */
	thawed();
	fill_thirds(p, 3, 1);
	expect_good(forked(third_child, p));
	check_thirds(p, 3, 1);
	check_pages(p + 2 * THIRD * PG, THIRD, 1);
	pid = forked(touch_third, p);
	check(waitpid(pid, &status, 0) == pid);
	check(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
	audit();
	stop();
}
END_TEST

static _Atomic bool *word;

TOUCHES_MANAGED static void
wait_for_word(void *arg)
{
	(void)arg;
	while (!atomic_load(word))
		usleep(100);
	atomic_store(word, false);
}

TOUCHES_MANAGED static void
say_word(void)
{
	atomic_store(word, true);
	while (atomic_load(word))
		usleep(100);
}

/* While both live; and what the parent unmaps the child keeps. */
START_TEST(what_is_shared_is_seen_at_once)
{
	char *p, *q;
	pid_t pid;

	if (!FORK_SHARES)
		return;
	begin_with(VMF_CONFIG_IO_SYSCALLS, 2 * SET, false);
	p = alloc(3);
	expect(vmf_inherit(p, 3 * PG, VMF_INHERIT_SHARE), 0);
	word = (void *)(p + PG);		/* never touched before */
	pid = fork();
	if (pid == 0) {
		wait_for_word(NULL);
		/* Its own memory is short, and that is nothing to what is shared. */
		q = alloc(SET);
		fill_pages(q, SET, 3);
		check_pages(q, SET, 3);
		wait_for_word(NULL);
		audit();
		_exit(0);
	}
	say_word();
	q = alloc(SET);
	fill_pages(q, SET, 4);
	check_pages(q, SET, 4);
	say_word();
	expect_good(pid);
	expect(vmf_unmap(p, 3 * PG), 0);
	stop();
}
END_TEST

static void
wait_for_the_end(void *p)
{
	for (uint64_t k = 0;; k++)
		fill_pages(p, PAGES, k);
}

START_TEST(either_may_be_killed)
{
	char *p;

	begin_with(0, 0, false);
	p = alloc(PAGES);
	fill_pages(p, PAGES, 1);
	for (int i = 0; i < FORKS; i++) {
		pid_t pid = forked(i % 2 ? wait_for_the_end : rewrite, p);
		int status;

		usleep((useconds_t)(100 * i));
		expect(kill(pid, SIGKILL), 0);
		check(waitpid(pid, &status, 0) == pid);
		check_pages(p, PAGES, 1);
	}
	stop();
}
END_TEST

/*
 * Calls that fail
 */

static enum sys_call victim;
static _Atomic int countdown;

static int
fail_one(enum sys_call which)
{
	if (which != victim || countdown < 0 || atomic_fetch_sub(&countdown, 1) != 0)
		return 0;
	return which == SYS_CALL_MEMFD || which == SYS_CALL_PIPE ? -EMFILE : -ENOSPC;
}

START_TEST(what_fails_leaves_the_parent_as_it_was)
{
	static const enum sys_call calls[] = { SYS_CALL_PIPE, SYS_CALL_MEMFD, SYS_CALL_FTRUNCATE, SYS_CALL_PWRITE,
	    SYS_CALL_PREAD, SYS_CALL_OPEN, FORK_SHARES ? SYS_CALL_MMAP : SYS_CALL_MADVISE };
	unsigned failures = 0, fds;
	char *p;

	begin_with(VMF_CONFIG_IO_SYSCALLS, 2 * SET, true);
	p = alloc(SET);
	fill_pages(p, SET, 1);
	check_pages(p, SET, 1);
	fds = count_fds();
	victim = calls[_i];
	for (int n = 0;; n++) {
		int error;

		countdown = n;
		sys_inject = fail_one;
		error = fork_prepare();
		sys_inject = NULL;
		if (error == 0) {
			fork_parent(true);
			break;
		}
		expect(error, victim == SYS_CALL_MEMFD || victim == SYS_CALL_PIPE ? -EAGAIN : -ENOMEM);
		failures++;
		ck_assert_uint_eq(count_fds(), fds);
		if (n < 4)
			audit();
	}
	ck_assert_uint_gt(failures, 0);
	ck_assert_uint_eq(count_fds(), fds);
	check_pages(p, SET, 1);
	fill_pages(p, SET, 2);
	stop();
}
END_TEST

static int
refuse_memfd(enum sys_call which)
{
	return which == SYS_CALL_MEMFD ? -EMFILE : 0;
}

START_TEST(where_it_fails_the_child_has_nothing)
{
	char *p;
	pid_t pid;

	begin_with(0, 0, false);
	p = alloc(1);
	*p = 1;
	sys_inject = refuse_memfd;
	expect(vmf_fork(), -EAGAIN);
	pid = fork();
	if (pid == 0)
		_exit(vmf_unmap(p, PG) == -ENODEV && vmf_fork() == -ENODEV ? 0 : 1);
	sys_inject = NULL;
	expect_good(pid);
	expect(waitpid(-1, NULL, 0), -1);
	pid = vmf_fork();
	if (pid == 0) {
		check(*p == 1);
		*p = 2;
		_exit(0);
	}
	expect_good(pid);
	check(*p == 1);
	stop();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("fork");
	TCase *t = tcase_create("fork");

	suite_add_tcase(s, t);
	tcase_add_test(t, each_has_its_own);
	tcase_add_test(t, nothing_may_have_been_touched_yet);
	tcase_add_loop_test(t, what_is_paged_out_is_copied_too, 0, 3);
	tcase_add_test(t, what_is_in_views_is_copied_too);
	tcase_add_test(t, children_have_children);
	tcase_add_test(t, children_one_after_another_share);
	tcase_add_test(t, all_come_home_after_a_fork);
	tcase_add_loop_test(t, the_child_sees_one_instant, 0, 2);
	tcase_add_test(t, several_threads_fork);
	tcase_add_test(t, wired_pages_stay_so_and_held_ones_do_not);
	tcase_add_test(t, the_forking_thread_may_write_until_the_clone);
	tcase_add_test(t, who_is_inside_comes_out_first);
	tcase_add_test(t, the_child_has_all_of_the_library);
	tcase_add_test(t, inheritance_is_what_was_asked_for);
	tcase_add_test(t, what_is_shared_is_seen_at_once);
	tcase_add_test(t, either_may_be_killed);
	tcase_add_loop_test(t, what_fails_leaves_the_parent_as_it_was, 0, 7);
	tcase_add_test(t, where_it_fails_the_child_has_nothing);
	return run_suite(s);
}
