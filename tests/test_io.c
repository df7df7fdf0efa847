/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Transfers between files and frames: every case with both engines, and what chooses between them.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "frames.h"
#include "io.h"
#include "kern/event.h"
#include "kern/sys.h"
#include "machdep.h"
#include "suite.h"
#include "support.h"
#include "testpager.h"
#include "trap.h"
#include "vm_object.h"

enum { MOST = 200 };			/* pages of a transfer */

static const uint32_t engines[] = { VMF_CONFIG_IO_URING, VMF_CONFIG_IO_SYSCALLS };
static int file;
static struct vm_object *object;
static struct vm_page *page[2 * MOST];	/* in a row in the memfd */
static sys_sigset_t mask;

static int
init(uint32_t flags)
{
	struct vmf_config c = VMF_CONFIG_INIT;

	c.memory = 4096 * PG;
	c.flags = VMF_CONFIG_QUIET | flags;
	return vmf_init(&c);
}

static int
new_file(void)
{
	FILE *f = tmpfile();
	int fd;

	check(f != NULL && (fd = dup(fileno(f))) >= 0);
	fclose(f);
	return fd;
}

/* The library with the engine, a file, and frames.  false: the machine has not got it. */
static bool
setup(uint32_t flags)
{
	int error = init(flags);

	if (error != 0 && (flags & VMF_CONFIG_IO_URING)) {
		printf("skip: no io_uring here: %s\n", strerror(-error));
		return false;
	}
	expect(error, 0);
	file = new_file();
	trap_enter(&mask);
	object = vm_object_allocate(2 * MOST, true);
	vm_object_lock(object);
	for (vm_pindex_t i = 0; i < 2 * MOST; i++) {
		page[i] = vm_page_alloc(object, i, PHYSMEM_OVERWRITE);
		check(page[i] != NULL && (i == 0 || page[i]->pfn == page[i - 1]->pfn + 1));
	}
	vm_object_unlock(object);
	return true;
}

static void
teardown(void)
{
	sys_inject = NULL;
	vm_object_lock(object);
	for (vm_pindex_t i = 0; i < 2 * MOST; i++)
		vm_page_free(page[i]);
	vm_object_unlock(object);
	vm_object_deallocate(object);
	trap_leave(&mask);
	close(file);
	expect(vmf_fini(), 0);
}

/* n frames from `first' on, in a row or scattered. */
static void
choose(struct vm_page **m, uint32_t first, uint32_t n, bool scattered)
{
	for (uint32_t i = 0; i < n; i++)
		m[i] = page[first + (scattered ? (uint32_t)(i * 7 % MOST) : i)];
}

/*
 * Running and starting
 */

static pthread_t main_thread;
static _Atomic uint32_t ended;

static void
done(struct io *io)
{
	(void)io;
	check(!pthread_equal(pthread_self(), main_thread));
	locks_assert_none();
	ended++;
	event_wake(&ended);
}

static void
await(uint32_t n)
{
	while (ended < n) {
		uint32_t ticket = event_prepare(&ended);

		if (ended < n)
			(void)event_wait(&ended, ticket, EVENT_FOREVER);
	}
}

static int64_t
transfer(struct io *io, bool started)
{
	if (!started)
		return io_run(io);
	main_thread = pthread_self();
	ended = 0;
	io->done = done;
	io_start(io);
	await(1);
	return io->result;
}

static struct io
make(enum io_op op, uint64_t offset, size_t len, struct vm_page **m, uint32_t n)
{
	return (struct io){ .fd = file, .op = op, .offset = offset, .len = len, .m = m, .n = n };
}

/* What a loop index stands for: an engine, and whether transfers are started or run. */
#define ENGINE(i)	engines[(i) % 2]
#define STARTED(i)	((i) / 2 % 2 != 0)
enum { WAYS = 4 };

/*
 * Bytes
 */

START_TEST(every_byte_goes_where_it_belongs)
{
	static const uint32_t sizes[] = { 1, 2, 16, 63, 64, 65, 128, MOST };
	struct vm_page *m[MOST], *to[MOST];
	struct io io;

	if (!setup(ENGINE(_i)))
		return;
	for (size_t k = 0; k < 2 * nitems(sizes); k++) {
		uint32_t n = sizes[k / 2];
		uint64_t at = (uint64_t)k << 32;	/* offsets of more than 32 bits */
		char buf[VMF_PAGE_SIZE];

		choose(m, 0, n, k % 2 != 0);
		choose(to, MOST, n, k % 2 == 0);
		for (uint32_t i = 0; i < n; i++) {
			frame_fill(m[i], mix(k, i));
			frame_fill(to[i], 0);
		}
		io = make(IO_WRITE, at, n * PG, m, n);
		ck_assert_int_eq(transfer(&io, STARTED(_i)), n * PG);
		ck_assert_uint_eq(io.moved, n * PG);
		for (uint32_t i = 0; i < n; i++) {
			ck_assert_int_eq(pread(file, buf, PG, (off_t)(at + i * PG)), PG);
			check_fill(buf, PG, mix(k, i));
		}
		io = make(IO_READ, at, n * PG, to, n);
		ck_assert_int_eq(transfer(&io, STARTED(_i)), n * PG);
		for (uint32_t i = 0; i < n; i++) {
			frame_check(to[i], mix(k, i));
			frame_check(m[i], mix(k, i));
		}
	}
	teardown();
}
END_TEST

START_TEST(the_last_page_may_be_used_in_part)
{
	struct vm_page *m[4];
	char buf[VMF_PAGE_SIZE];
	struct io io;

	if (!setup(ENGINE(_i)))
		return;
	choose(m, 0, 4, true);
	for (uint32_t i = 0; i < 4; i++)
		frame_fill(m[i], i + 1);
	io = make(IO_WRITE, 100, 3 * PG + 10, m, 4);
	ck_assert_int_eq(transfer(&io, STARTED(_i)), 3 * PG + 10);
	ck_assert_int_eq(lseek(file, 0, SEEK_END), 100 + 3 * PG + 10);
	ck_assert_int_eq(pread(file, buf, PG, 100 + 2 * PG), PG);
	check_fill(buf, PG, 3);
	/* Nothing but the end of the file makes a result short, and what is behind it stays as it was. */
	frame_fill(m[3], 9);
	io = make(IO_READ, 100 + 3 * PG, PG, m + 3, 1);
	ck_assert_int_eq(transfer(&io, STARTED(_i)), 10);
	ck_assert_uint_eq(io.moved, 10);
	char want[VMF_PAGE_SIZE], *w = window_map(WINDOW_SOURCE, m[3]->pfn, 1);
	fill(want, PG, 9);
	fill(buf, PG, 4);
	memcpy(want, buf, 10);
	check(memcmp(w, want, PG) == 0);
	window_unmap(w);
	io = make(IO_READ, 100 + 4 * PG, PG, m, 1);
	ck_assert_int_eq(transfer(&io, STARTED(_i)), 0);
	teardown();
}
END_TEST

START_TEST(a_hole_is_punched_and_the_size_stays)
{
	struct vm_page *m[16];
	struct io io;

	if (!setup(ENGINE(_i)))
		return;
	choose(m, 0, 16, false);
	for (uint32_t i = 0; i < 16; i++)
		frame_fill(m[i], i + 1);
	io = make(IO_WRITE, 0, 16 * PG, m, 16);
	ck_assert_int_eq(transfer(&io, STARTED(_i)), 16 * PG);
	io = make(IO_PUNCH, 4 * PG, 8 * PG, NULL, 0);
	ck_assert_int_eq(transfer(&io, STARTED(_i)), 8 * PG);
	io = make(IO_READ, 0, 16 * PG, m, 16);
	ck_assert_int_eq(transfer(&io, STARTED(_i)), 16 * PG);
	for (uint32_t i = 0; i < 16; i++) {
		char *w = window_map(WINDOW_SOURCE, m[i]->pfn, 1);

		if (i >= 4 && i < 12)
			check_zero(w, PG);
		else
			check_fill(w, PG, i + 1);
		window_unmap(w);
	}
	teardown();
}
END_TEST

/*
 * Faults
 */

static struct {
	enum sys_call kind;
	_Atomic int skip, times;	/* so many pass, then so many fail */
	int answer;
} plan;

static int
inject(enum sys_call which)
{
	if (which != plan.kind || atomic_fetch_sub(&plan.skip, 1) > 0)
		return 0;
	return atomic_fetch_sub(&plan.times, 1) > 0 ? plan.answer : 0;
}

static void
go_wrong(enum sys_call kind, int skip, int times, int answer)
{
	plan.kind = kind;
	plan.skip = skip;
	plan.times = times;
	plan.answer = answer;
	sys_inject = inject;
}

START_TEST(short_and_interrupted_calls_lose_nothing)
{
	static const struct { int skip, times, answer; } faults[] = {
		{ 0, 1000, 1 }, { 0, 1000, 4095 }, { 0, 1000, 4097 }, { 1, 3, 70000 }, { 0, 3, -EINTR },
		{ 2, 3, -EINTR },
	};
	struct vm_page *m[80], *to[80];
	struct io io;

	if (!setup(ENGINE(_i)))
		return;
	for (size_t k = 0; k < nitems(faults); k++) {
		size_t n = faults[k].answer == 1 ? 1 : 80, len = n * PG;

		choose(m, 0, 80, true);
		choose(to, MOST, 80, k % 2 == 0);
		for (uint32_t i = 0; i < n; i++) {
			frame_fill(m[i], mix(k, i));
			frame_fill(to[i], 0);
		}
		go_wrong(SYS_CALL_PWRITEV, faults[k].skip, faults[k].times, faults[k].answer);
		io = make(IO_WRITE, 7, len, m, 80);
		ck_assert_int_eq(transfer(&io, STARTED(_i)), (int64_t)len);
		go_wrong(SYS_CALL_PREADV, faults[k].skip, faults[k].times, faults[k].answer);
		io = make(IO_READ, 7, len, to, 80);
		ck_assert_int_eq(transfer(&io, STARTED(_i)), (int64_t)len);
		for (uint32_t i = 0; i < n; i++)
			frame_check(to[i], mix(k, i));
	}
	teardown();
}
END_TEST

START_TEST(an_error_is_the_result_whatever_came_before)
{
	static const int errors[] = { -EIO, -ENOSPC, -EAGAIN, -ENOMEM, -EBADF };
	struct vm_page *m[16], *to[80];
	struct io io;

	if (!setup(ENGINE(_i)))
		return;
	choose(m, 0, 16, false);
	for (size_t k = 0; k < nitems(errors); k++) {
		go_wrong(SYS_CALL_PWRITEV, 0, 1, errors[k]);
		io = make(IO_WRITE, 0, 16 * PG, m, 16);
		ck_assert_int_eq(transfer(&io, STARTED(_i)), errors[k]);
		ck_assert_uint_eq(io.moved, 0);
		/* And it may be tried again. */
		ck_assert_int_eq(transfer(&io, STARTED(_i)), 16 * PG);

		go_wrong(SYS_CALL_PREADV, 0, 1, 3 * (int)PG + 5);
		io = make(IO_READ, 0, 16 * PG, m, 16);
		ck_assert_int_eq(transfer(&io, STARTED(_i)), 16 * PG);
		go_wrong(SYS_CALL_FALLOCATE, 0, 1, errors[k]);
		io = make(IO_PUNCH, 0, 16 * PG, NULL, 0);
		ck_assert_int_eq(transfer(&io, STARTED(_i)), errors[k]);
	}
	/* Bytes, then an error: 80 pages are two calls. */
	choose(to, 0, 80, true);
	io = make(IO_WRITE, 0, 80 * PG, to, 80);
	go_wrong(SYS_CALL_PWRITEV, 1, 1, -EIO);
	ck_assert_int_eq(transfer(&io, STARTED(_i)), -EIO);
	ck_assert_uint_eq(io.moved, MACHDEP_VIEW_PAGES * PG);
	teardown();
}
END_TEST

/* Errors that nobody injected. */
START_TEST(the_kernel_s_own_errors_arrive)
{
	struct vm_page *m[2] = { 0 };
	struct io io;
	int fds[2], good;

	if (!setup(ENGINE(_i)))
		return;
	choose(m, 0, 2, false);
	good = file;
	file = open("/dev/full", O_RDWR);
	check(file >= 0);
	io = make(IO_WRITE, 0, 2 * PG, m, 2);
	ck_assert_int_eq(transfer(&io, STARTED(_i)), -ENOSPC);
	close(file);
	check(pipe(fds) == 0);
	file = fds[0];
	io = make(IO_WRITE, 0, 2 * PG, m, 2);
	check(transfer(&io, STARTED(_i)) < 0);
	close(fds[0]);
	close(fds[1]);
	file = open(".", O_RDONLY);
	io = make(IO_READ, 0, 2 * PG, m, 2);
	ck_assert_int_eq(transfer(&io, STARTED(_i)), -EISDIR);
	close(file);
	file = good;
	teardown();
}
END_TEST

/* On i386 frames are mapped for a transfer; elsewhere nothing is asked for. */
START_TEST(a_mapping_that_is_refused_is_an_error_that_passes)
{
	struct vm_page *m[16];
	struct io io;

	if (!setup(ENGINE(_i)))
		return;
	choose(m, 0, 16, true);
	for (int skip = 0; skip < 3; skip++) {
		go_wrong(SYS_CALL_MMAP, skip, 1, -ENOMEM);
		io = make(IO_WRITE, 0, 16 * PG, m, 16);
		ck_assert_int_eq(transfer(&io, STARTED(_i)),
		    MACHDEP_VIEWS == UINT32_MAX ? 16 * (int)PG : -ENOMEM);
		sys_inject = NULL;
		ck_assert_int_eq(transfer(&io, STARTED(_i)), 16 * PG);
	}
	teardown();
}
END_TEST

/*
 * Many at once
 */

enum { STARTERS = 4, EACH = 100, LEN = 3 };

static struct io many[STARTERS][EACH];
static struct vm_page *many_m[STARTERS][EACH][LEN];

static void *
start_many(void *arg)
{
	size_t t = (size_t)(uintptr_t)arg;
	sys_sigset_t old;

	trap_enter(&old);
	for (size_t i = 0; i < EACH; i++) {
		many[t][i].done = done;
		io_start(&many[t][i]);
	}
	trap_leave(&old);
	return NULL;			/* and the thread is gone before they end */
}

static void
run_many(enum io_op op)
{
	pthread_t thread[STARTERS];

	ended = 0;
	main_thread = pthread_self();
	for (size_t t = 0; t < STARTERS; t++)
		for (size_t i = 0; i < EACH; i++)
			many[t][i] = make(op, (t * EACH + i) * LEN * PG, LEN * PG, many_m[t][i], LEN);
	for (size_t t = 0; t < STARTERS; t++)
		check(pthread_create(&thread[t], NULL, start_many, (void *)(uintptr_t)t) == 0);
	for (size_t t = 0; t < STARTERS; t++)
		check(pthread_join(thread[t], NULL) == 0);
	await(STARTERS * EACH);
	for (size_t t = 0; t < STARTERS; t++)
		for (size_t i = 0; i < EACH; i++)
			ck_assert_int_eq(many[t][i].result, LEN * PG);
}

START_TEST(hundreds_are_under_way_and_their_threads_gone)
{
	struct vm_page *big[STARTERS * EACH * LEN];
	struct vm_object *o;

	if (!setup(ENGINE(_i)))
		return;
	o = vm_object_allocate(nitems(big), true);
	vm_object_lock(o);
	for (vm_pindex_t i = 0; i < nitems(big); i++) {
		/* Back to front, so that no two of a transfer are in a row. */
		big[i] = vm_page_alloc(o, (vm_pindex_t)nitems(big) - 1 - i, PHYSMEM_OVERWRITE);
		check(big[i] != NULL);
		many_m[i / LEN / EACH][i / LEN % EACH][i % LEN] = big[i];
	}
	vm_object_unlock(o);
	for (size_t i = 0; i < nitems(big); i++)
		frame_fill(big[i], mix(5, i));
	if (STARTED(_i))
		go_wrong(SYS_CALL_PWRITEV, 0, 1 << 30, 5000);
	run_many(IO_WRITE);
	sys_inject = NULL;
	for (size_t i = 0; i < nitems(big); i++)
		frame_fill(big[i], 0);
	if (STARTED(_i))
		go_wrong(SYS_CALL_PREADV, 0, 1 << 30, 5000);
	run_many(IO_READ);
	for (size_t i = 0; i < nitems(big); i++)
		frame_check(big[i], mix(5, i));
	vm_object_lock(o);
	for (size_t i = 0; i < nitems(big); i++)
		vm_page_free(big[i]);
	vm_object_unlock(o);
	vm_object_deallocate(o);
	teardown();
}
END_TEST

/* Each transfer's end starts the next one. */
static struct io chain;

static void
next_link(struct io *io)
{
	check(io->result == PG);
	io->offset += PG;
	if (io->offset < 500 * PG)
		io_start(io);
	else
		done(io);
}

START_TEST(an_end_may_start_another)
{
	struct vm_page *m[1];

	if (!setup(ENGINE(_i)))
		return;
	choose(m, 0, 1, false);
	frame_fill(m[0], 3);
	main_thread = pthread_self();
	ended = 0;
	chain = make(IO_WRITE, 0, PG, m, 1);
	chain.done = next_link;
	io_start(&chain);
	await(1);
	ck_assert_int_eq(lseek(file, 0, SEEK_END), 500 * PG);
	teardown();
}
END_TEST

/*
 * Which engine
 */

/* Forbid a system call from here on, in this process. */
static void
forbid(uint32_t call, uint32_t error)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { nitems(filter), filter };

	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0);
}

/* The library works, over system calls. */
static void
works(bool uring)
{
	struct vmf_stats s = { .size = sizeof(s) };
	struct vm_page *m[8];
	struct io io;

	expect(vmf_statistics(&s), 0);
	check(s.io_uring == uring);
	expect(vmf_fini(), 0);
	check(setup(0));
	choose(m, 0, 8, true);
	for (int i = 0; i < 2; i++) {
		io = make(i == 0 ? IO_WRITE : IO_READ, 0, 8 * PG, m, 8);
		check(transfer(&io, true) == 8 * PG);
	}
	teardown();
}

static void
without(void *arg)
{
	const uint32_t *what = arg;
	unsigned fds = count_fds();

	forbid(what[0], what[1]);
	expect(init(VMF_CONFIG_IO_URING), -(int)what[1]);
	expect(count_fds(), fds);
	expect(init(0), 0);
	works(false);
	expect(count_fds(), fds);
}

START_TEST(where_io_uring_is_forbidden_system_calls_serve)
{
	static const uint32_t cases[][2] = {
		{ SYS_io_uring_setup, EPERM }, { SYS_io_uring_setup, ENOSYS }, { SYS_io_uring_enter, EPERM },
		{ SYS_eventfd2, EPERM },
	};

	/* That it is allowed at all is another test's business. */
	if (_i >= 2 && !setup(VMF_CONFIG_IO_URING))
		return;
	if (_i >= 2)
		teardown();
	expect_exit(in_child(without, (void *)(uintptr_t)cases[_i]), 0);
}
END_TEST

static void
little_memory(void *arg)
{
	struct rlimit rl = { 64 << 10, 64 << 10 };

	(void)arg;
	check(setrlimit(RLIMIT_MEMLOCK, &rl) == 0);
	if (geteuid() == 0)
		check(setuid(65534) == 0);	/* to whom the limit does not apply */
	expect(init(VMF_CONFIG_IO_URING), 0);
	works(true);
}

START_TEST(sixty_four_kilobytes_of_locked_memory_are_enough)
{
	if (!setup(VMF_CONFIG_IO_URING))
		return;
	teardown();
	expect_exit(in_child(little_memory, NULL), 0);
}
END_TEST

START_TEST(a_ring_that_cannot_be_had_is_done_without)
{
	static const struct { enum sys_call call; int error; } cases[] = {
		{ SYS_CALL_URING_SETUP, -ENOMEM }, { SYS_CALL_URING_SETUP, -EMFILE },
		{ SYS_CALL_EVENTFD, -EMFILE },
	};
	struct vmf_stats s = { .size = sizeof(s) };
	unsigned fds = count_fds();

	go_wrong(cases[_i].call, 0, 1, cases[_i].error);
	expect(init(VMF_CONFIG_IO_URING), cases[_i].error);
	expect(count_fds(), fds);
	go_wrong(cases[_i].call, 0, 1, cases[_i].error);
	expect(init(0), 0);
	sys_inject = NULL;
	expect(vmf_statistics(&s), 0);
	check(s.io_uring == 0);
	expect(vmf_fini(), 0);
	expect(count_fds(), fds);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("io");
	TCase *tc = tcase_create("bytes");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, every_byte_goes_where_it_belongs, 0, WAYS);
	tcase_add_loop_test(tc, the_last_page_may_be_used_in_part, 0, WAYS);
	tcase_add_loop_test(tc, a_hole_is_punched_and_the_size_stays, 0, WAYS);
	suite_add_tcase(s, tc);
	tc = tcase_create("faults");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, short_and_interrupted_calls_lose_nothing, 0, WAYS);
	tcase_add_loop_test(tc, an_error_is_the_result_whatever_came_before, 0, WAYS);
	tcase_add_loop_test(tc, the_kernel_s_own_errors_arrive, 0, WAYS);
	tcase_add_loop_test(tc, a_mapping_that_is_refused_is_an_error_that_passes, 0, WAYS);
	suite_add_tcase(s, tc);
	tc = tcase_create("many");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, hundreds_are_under_way_and_their_threads_gone, 0, WAYS);
	tcase_add_loop_test(tc, an_end_may_start_another, 0, 2);
	suite_add_tcase(s, tc);
	tc = tcase_create("engines");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, where_io_uring_is_forbidden_system_calls_serve, 0, 4);
	tcase_add_test(tc, sixty_four_kilobytes_of_locked_memory_are_enough);
	tcase_add_loop_test(tc, a_ring_that_cannot_be_had_is_done_without, 0, 3);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
