/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The swap pager: slots, transfers, and what is left when they fail.
 *
 * The pager is asked directly, with frames of an object that only lends them.  The swap file is given, so
 * that a test can look where a page went.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frames.h"
#include "kern/event.h"
#include "kern/sys.h"
#include "machdep.h"
#include "suite.h"
#include "support.h"
#include "swap.h"
#include "testpager.h"
#include "trap.h"
#include "vm_meter.h"
#include "vm_object.h"

enum { FRAMES = 128, CHUNK = 32 };

static const uint32_t engines[] = { VMF_CONFIG_IO_URING, VMF_CONFIG_IO_SYSCALLS };
static char path[] = "/tmp/test_swap.XXXXXX";
static char dir[] = "/tmp/test_swap.d.XXXXXX";
static bool have_path;
static int file;			/* the swap file, opened once more */
static struct vm_object *object;
static struct vm_page *m[FRAMES];
static sys_sigset_t mask;

/* The library with so many pages of swap, in a file, or in a directory.  false: no such engine. */
static bool
setup_in(const char *where, uint32_t flags, uint64_t pages)
{
	struct vmf_config c = VMF_CONFIG_INIT;
	int error;

	c.memory = 1024 * PG;
	c.flags = VMF_CONFIG_QUIET | flags;
	c.swap_file = where;
	c.swap_size = pages * PG;
	error = vmf_init(&c);
	if ((error == -EPERM || error == -ENOSYS) && (flags & VMF_CONFIG_IO_URING)) {
		printf("skip: no io_uring here: %s\n", strerror(-error));
		return false;
	}
	expect(error, 0);
	if (where == dir)
		check(rmdir(dir) == 0);		/* the file has no name already */
	trap_enter(&mask);
	object = vm_object_allocate(FRAMES, true);
	vm_object_lock(object);
	for (vm_pindex_t i = 0; i < FRAMES; i++)
		check((m[i] = vm_page_alloc(object, i, PHYSMEM_OVERWRITE)) != NULL);
	vm_object_unlock(object);
	return true;
}

static bool
setup(uint32_t flags, uint64_t pages)
{
	if (!have_path)
		check((file = mkstemp(path)) >= 0);
	have_path = true;
	check(ftruncate(file, 0) == 0);
	return setup_in(path, flags, pages);
}

static void
teardown(void)
{
	sys_inject = NULL;
	vm_object_lock(object);
	for (vm_pindex_t i = 0; i < FRAMES; i++)
		vm_page_free(m[i]);
	vm_object_unlock(object);
	vm_object_deallocate(object);
	trap_leave(&mask);
	expect(vmf_fini(), 0);
	if (have_path) {
		close(file);
		unlink(path);
	}
}

static struct swap_counts
counts(void)
{
	struct swap_counts c;

	swap_counts(&c);
	return c;
}

/* Page of the swap file that holds fill(key); 0: none. */
static uint32_t
where(uint64_t key)
{
	char want[VMF_PAGE_SIZE], buf[VMF_PAGE_SIZE];
	uint32_t found = 0;

	fill(want, PG, key);
	for (uint32_t i = 1; pread(file, buf, PG, (off_t)(i * PG)) == (ssize_t)PG; i++)
		if (memcmp(buf, want, PG) == 0)
			found = i;
	return found;
}

/*
 * Transfers, made at once or started
 */

static bool started;			/* the way of this test */
static _Atomic uint32_t ended;

static void
complete(struct vm_pager_io *io)
{
	(void)io;
	ended = 1;
	event_wake(&ended);
}

static enum vm_pager_result
transfer(bool put, struct vm_pager *p, uint64_t offset, struct vm_page **pages, uint32_t n,
    uint32_t *done)
{
	struct vm_pager_io *io;
	enum vm_pager_result r;

	if (!started || n > VM_PAGER_IO_MAX)
		return put ? vm_pager_put(p, offset, pages, n, done) :
		    vm_pager_get(p, offset, pages, n, done);
	io = vm_pager_io_alloc();
	check(io != NULL);
	io->pager = p;
	io->offset = offset;
	io->n = n;
	io->put = put;
	io->complete = complete;
	memcpy(io->m, pages, n * sizeof(pages[0]));
	ended = 0;
	if (vm_pager_start(io)) {
		while (!ended) {
			uint32_t ticket = event_prepare(&ended);

			if (!ended)
				(void)event_wait(&ended, ticket, EVENT_FOREVER);
		}
		r = io->result;
		*done = io->done;
	} else {
		/* What cannot be started is tried at once: it will say why. */
		r = put ? vm_pager_put(p, offset, pages, n, done) :
		    vm_pager_get(p, offset, pages, n, done);
	}
	vm_pager_io_free(io);
	return r;
}

/* Put pages [offset, offset + n) with keys from `key' on, in however many transfers. */
static void
put_all(struct vm_pager *p, uint64_t offset, uint32_t n, uint64_t key)
{
	for (uint32_t i = 0; i < n; i++)
		frame_fill(m[i], key + i);
	for (uint32_t i = 0, done; i < n; i += done)
		check(transfer(true, p, offset + i, m + i, n - i, &done) == VM_PAGER_OK);
}

static void
get_all(struct vm_pager *p, uint64_t offset, uint32_t n, uint64_t key)
{
	for (uint32_t i = 0; i < n; i++)
		frame_fill(m[i], 0);
	for (uint32_t i = 0, done; i < n; i += done)
		check(transfer(false, p, offset + i, m + i, n - i, &done) == VM_PAGER_OK);
	for (uint32_t i = 0; i < n; i++)
		frame_check(m[i], key + i);
}

#define WAY(i)	(started = (i) / 2 % 2 != 0, engines[(i) % 2])
enum { WAYS = 4 };

/*
 * Slots
 */

START_TEST(neighbours_that_leave_one_by_one_come_back_together)
{
	struct vm_pager *a, *b;
	uint32_t done;

	if (!setup(WAY(_i), 1024))
		return;
	a = swap_pager_make(1000);
	b = swap_pager_make(1000);
	for (uint32_t i = 0; i < 3 * CHUNK; i++) {
		/* In an order of its own, and with the other pager in between. */
		put_all(a, i * 7 % (3 * CHUNK), 1, 1000 + i * 7 % (3 * CHUNK));
		put_all(b, i, 1, 2000 + i);
	}
	for (uint32_t i = 0; i < 3; i++) {
		check(transfer(false, a, i * CHUNK, m, CHUNK, &done) == VM_PAGER_OK && done == CHUNK);
		check(transfer(false, b, i * CHUNK, m, CHUNK, &done) == VM_PAGER_OK && done == CHUNK);
	}
	get_all(a, 0, 3 * CHUNK, 1000);
	get_all(b, 0, 3 * CHUNK, 2000);
	check(counts().used == 6 * CHUNK);
	/* Put again, each stays where it was, and a whole cluster is one transfer. */
	done = where(1000 + 5);
	put_all(a, 5, 1, 3000);
	ck_assert_uint_eq(where(3000), done);
	check(counts().used == 6 * CHUNK);
	handle_put(&a->handle);
	a = swap_pager_make(1000);
	check(transfer(true, a, 10, m, 60, &done) == VM_PAGER_OK && done == 60);
	handle_put(&a->handle);
	handle_put(&b->handle);
	check(counts().used == 0);
	teardown();
}
END_TEST

START_TEST(a_transfer_ends_where_its_block_does_if_the_next_lives_elsewhere)
{
	struct vm_pager *a, *b;
	uint32_t done;

	if (!setup(WAY(_i), 1024))
		return;
	a = swap_pager_make(1000);
	b = swap_pager_make(1000);
	/* The chunks: a's block 0, one for a page of b's, a's block 1. */
	put_all(a, 0, CHUNK - 1, 100);
	put_all(b, 5, 1, 200);
	check(transfer(true, a, CHUNK - 1, m, CHUNK, &done) == VM_PAGER_OK && done == 1);
	put_all(a, CHUNK + 3, 1, 300);
	for (uint32_t k = 0; k < 2; k++) {
		/* A long run goes home in two transfers, whether there is anything at home or not. */
		check(transfer(true, a, 20, m, 40, &done) == VM_PAGER_OK && done == 12);
		check(transfer(true, a, CHUNK, m, CHUNK, &done) == VM_PAGER_OK && done == CHUNK);
		if (k == 0)
			vm_pager_dispose(a, CHUNK + 4, CHUNK);
	}
	/* Behind block 1 there is nothing: block 2 settles there. */
	check(transfer(true, a, CHUNK, m, 2 * CHUNK, &done) == VM_PAGER_OK && done == 2 * CHUNK);
	put_all(a, 0, 3 * CHUNK, 500);
	check(transfer(false, a, CHUNK, m, 2 * CHUNK, &done) == VM_PAGER_OK && done == 2 * CHUNK);
	get_all(a, 0, 3 * CHUNK, 500);
	get_all(b, 5, 1, 200);
	handle_put(&a->handle);
	handle_put(&b->handle);
	teardown();
}
END_TEST

START_TEST(the_file_grows_with_its_use)
{
	struct vm_pager *p;
	struct stat st;

	if (!setup(WAY(_i), 1 << 20))
		return;
	check(counts().size == (1 << 20) - 1);
	p = swap_pager_make(1 << 20);
	for (uint32_t i = 0; i < 400; i++) {
		/* Each time other slots, were it not for those that are free again. */
		put_all(p, i * CHUNK, CHUNK, i);
		if (i >= 10)
			vm_pager_dispose(p, (i - 10) * CHUNK, CHUNK);
	}
	vm_pager_dispose(p, 0, 400 * CHUNK);
	check(fstat(file, &st) == 0);
	ck_assert_uint_le((uint64_t)st.st_size, 64 * CHUNK * PG);
	for (uint32_t i = 0; i < 128; i++)
		put_all(p, i * CHUNK, CHUNK, i);
	check(fstat(file, &st) == 0);
	ck_assert_uint_le((uint64_t)st.st_size, 3 * 64 * CHUNK * PG);
	handle_put(&p->handle);
	teardown();
}
END_TEST

START_TEST(full_swap_takes_no_more_until_there_is_room)
{
	enum { SLOTS = 100 };
	struct vm_pager *p;
	uint32_t n = 0, done;

	if (!setup(WAY(_i), SLOTS))
		return;
	p = swap_pager_make(10000);
	/* A page of each block first: those take a chunk each, and then what is left of others'. */
	for (; n < SLOTS - 1; n++)
		put_all(p, n * CHUNK + n % CHUNK, 1, n);
	check(counts().used == SLOTS - 1 && counts().size == SLOTS - 1);
	check(transfer(true, p, 5000, m, 1, &done) == VM_PAGER_AGAIN && done == 0);
	check(!vm_pager_has_page(p, 5000));
	check(vm_meter_read(VMC_v_pager_errors) == 0 && counts().errors == 0);
	/* What is there already can be written again. */
	put_all(p, 0, 1, 777);
	get_all(p, 0, 1, 777);
	for (uint32_t i = 1; i < n; i++)
		get_all(p, i * CHUNK + i % CHUNK, 1, i);
	vm_pager_dispose(p, 0, 10 * CHUNK);
	check(counts().used == SLOTS - 11);
	for (uint32_t i = 0; i < 10; i++)
		put_all(p, 6000 + i, 1, 6000 + i);
	get_all(p, 6000, 10, 6000);
	check(transfer(true, p, 5000, m, 2, &done) == VM_PAGER_AGAIN);
	handle_put(&p->handle);
	check(counts().used == 0);
	teardown();
}
END_TEST

START_TEST(disposed_and_moved_pages_are_not_there)
{
	struct vm_pager *p, *q;
	uint32_t done;

	if (!setup(WAY(_i), 1024))
		return;
	p = swap_pager_make(200);
	q = swap_pager_make(200);
	put_all(p, 10, 100, 10);
	vm_pager_dispose(p, 0, 11);
	vm_pager_dispose(p, 40, 3);
	vm_pager_dispose(p, 109, 1000);
	check(counts().used == 95);
	for (uint32_t i = 0; i < 200; i++)
		check(vm_pager_has_page(p, i) == (i > 10 && i < 109 && (i < 40 || i > 42)));
	check(transfer(false, p, 41, m, 1, &done) == VM_PAGER_FAIL && done == 0);
	check(transfer(false, p, 38, m, 10, &done) == VM_PAGER_OK && done == 2);
	/* To odd places, and in both orders of the pagers' addresses. */
	for (uint32_t i = 50; i < 100; i++)
		check(p->ops->move(q, i * 3 % 200, p, i));
	check(counts().used == 95);
	for (uint32_t i = 50; i < 100; i++) {
		check(!vm_pager_has_page(p, i));
		get_all(q, i * 3 % 200, 1, i);
		check(q->ops->move(p, i, q, i * 3 % 200));
	}
	for (uint32_t i = 0; i < 200; i++)
		check(!vm_pager_has_page(q, i));
	get_all(p, 43, 66, 43);
	handle_put(&p->handle);
	handle_put(&q->handle);
	check(counts().used == 0);
	teardown();
}
END_TEST

/*
 * Faults
 */

static struct {
	enum sys_call kind;
	_Atomic int skip, times;
	int answer;
	void (*look)(void);		/* called at each such call */
} plan;

static int
inject(enum sys_call which)
{
	if (which != plan.kind)
		return 0;
	if (plan.look != NULL)
		plan.look();
	if (atomic_fetch_sub(&plan.skip, 1) > 0)
		return 0;
	return atomic_fetch_sub(&plan.times, 1) > 0 ? plan.answer : 0;
}

static void
go_wrong(enum sys_call kind, int skip, int times, int answer, void (*look)(void))
{
	plan.kind = kind;
	plan.skip = skip;
	plan.times = times;
	plan.answer = answer;
	plan.look = look;
	sys_inject = inject;
}

static struct vm_pager *looked_at;

static void
is_not_there(void)
{
	for (uint32_t i = 0; i < 8; i++)
		check(!vm_pager_has_page(looked_at, i));
}

START_TEST(a_page_is_there_when_it_is_written_and_not_before)
{
	if (!setup(WAY(_i), 1024))
		return;
	looked_at = swap_pager_make(200);
	go_wrong(SYS_CALL_PWRITEV, 0, 0, 0, is_not_there);
	put_all(looked_at, 0, 8, 1);
	get_all(looked_at, 0, 8, 1);
	/* The old contents are gone, too. */
	put_all(looked_at, 0, 8, 10);
	sys_inject = NULL;
	get_all(looked_at, 0, 8, 10);
	check(counts().used == 8);
	handle_put(&looked_at->handle);
	teardown();
}
END_TEST

START_TEST(a_write_that_fails_goes_elsewhere_next_time)
{
	static const int errors[] = { -EIO, -ENOSPC, -EDQUOT, -EROFS };
	struct vm_pager *p;
	uint32_t done, first;

	if (!setup(WAY(_i), 1024))
		return;
	p = swap_pager_make(200);
	put_all(p, 64, 8, 64);
	put_all(p, 90, 1, 90);		/* of the same block, and stays where it is */
	first = where(64);
	for (size_t k = 0; k < nitems(errors); k++) {
		for (uint32_t i = 0; i < 8; i++)
			frame_fill(m[i], mix(k, i));
		go_wrong(SYS_CALL_PWRITEV, 0, 1, errors[k], NULL);
		check(transfer(true, p, 64, m, 8, &done) == VM_PAGER_ERROR && done == 0);
		sys_inject = NULL;
		ck_assert_uint_eq(counts().errors, k + 1);
		ck_assert_uint_eq(vm_meter_read(VMC_v_pager_errors), k + 1);
		check(counts().used == 1 && !vm_pager_has_page(p, 64));
		check(transfer(true, p, 64, m, 8, &done) == VM_PAGER_OK && done == 8);
		ck_assert_uint_ne(where(mix(k, 0)), first);
		ck_assert_uint_eq(where(mix(k, 7)), where(mix(k, 0)) + 7);
		first = where(mix(k, 0));
		for (uint32_t i = 0; i < 8; i++)
			get_all(p, 64 + i, 1, mix(k, i));
	}
	get_all(p, 90, 1, 90);
	go_wrong(SYS_CALL_PWRITEV, 0, 1, -EAGAIN, NULL);
	check(transfer(true, p, 64, m, 8, &done) == VM_PAGER_AGAIN);
	handle_put(&p->handle);
	teardown();
}
END_TEST

/* The second call of a transfer fails, in the middle of the sixth page. */
static int
half(enum sys_call which)
{
	if (which != plan.kind)
		return 0;
	return atomic_fetch_sub(&plan.times, 1) > 1 ? 5 * (int)PG + 7 : -EIO;
}

START_TEST(what_was_written_before_the_error_counts)
{
	struct vm_pager *p;
	uint32_t done;

	if (!setup(WAY(_i), 1024))
		return;
	p = swap_pager_make(200);
	for (uint32_t i = 0; i < 16; i++)
		frame_fill(m[i], i + 1);
	go_wrong(SYS_CALL_PWRITEV, 0, 2, 0, NULL);
	sys_inject = half;
	check(transfer(true, p, 0, m, 16, &done) == VM_PAGER_OK);
	sys_inject = NULL;
	ck_assert_uint_eq(done, 5);
	check(counts().used == 5 && counts().errors == 1);
	get_all(p, 0, 5, 1);
	check(!vm_pager_has_page(p, 5));
	put_all(p, 5, 11, 6);
	get_all(p, 0, 16, 1);
	/* And the same with a read. */
	go_wrong(SYS_CALL_PREADV, 0, 2, 0, NULL);
	sys_inject = half;
	check(transfer(false, p, 5, m, 11, &done) == VM_PAGER_OK);
	ck_assert_uint_eq(done, 5);
	handle_put(&p->handle);
	teardown();
}
END_TEST

START_TEST(a_neighbour_that_cannot_be_read_harms_nobody_else)
{
	struct vm_pager *p;
	uint32_t done;

	if (!setup(WAY(_i), 1024))
		return;
	p = swap_pager_make(200);
	put_all(p, 0, 16, 1);
	go_wrong(SYS_CALL_PREADV, 0, 1, -EIO, NULL);
	frame_fill(m[0], 0);
	/* Who waits for the first page gets it; what was started was only an attempt. */
	if (!started) {
		check(transfer(false, p, 0, m, 16, &done) == VM_PAGER_OK && done == 1);
		frame_check(m[0], 1);
	} else {
		check(transfer(false, p, 0, m, 16, &done) == VM_PAGER_ERROR && done == 0);
	}
	go_wrong(SYS_CALL_PREADV, 0, 2, -EIO, NULL);
	check(transfer(false, p, 0, m, 16, &done) == VM_PAGER_ERROR && done == 0);
	sys_inject = NULL;
	get_all(p, 0, 16, 1);
	/* A file that was cut off under us is an error, not zeros. */
	check(ftruncate(file, PG) == 0);
	check(transfer(false, p, 0, m, 16, &done) == VM_PAGER_ERROR && done == 0);
	handle_put(&p->handle);
	teardown();
}
END_TEST

START_TEST(without_memory_nothing_is_lost)
{
	struct vm_pager *p;
	uint32_t done, n = 0;

	/* Where frames are mapped to be reached, the test itself would wait for memory. */
	if (MACHDEP_VIEWS != UINT32_MAX || !setup(WAY(_i), 1 << 16))
		return;
	p = swap_pager_make((uint64_t)1 << 31);
	go_wrong(SYS_CALL_MMAP, 0, 1 << 30, -ENOMEM, NULL);
	/* Far apart, so that each takes nodes and a block. */
	for (; n < 60000; n++) {
		enum vm_pager_result r;

		frame_fill(m[0], n);
		started = false;
		r = transfer(true, p, (uint64_t)n << 12, m, 1, &done);
		check(r == VM_PAGER_OK || r == VM_PAGER_AGAIN);
		if (r == VM_PAGER_AGAIN)
			break;
	}
	check(counts().used == n);
	check(n < 60000);
	sys_inject = NULL;
	put_all(p, (uint64_t)n << 12, 1, n);
	for (uint32_t i = 0; i <= n; i += 13)
		get_all(p, (uint64_t)i << 12, 1, i);
	handle_put(&p->handle);
	check(counts().used == 0);
	teardown();
}
END_TEST

/*
 * Room that is given back
 */

/* Blocks of the swap file that has no name. */
static uint64_t
blocks_of_unnamed(void)
{
	char link[64], target[256];
	struct stat st;

	for (int fd = 3; fd < 100; fd++) {
		ssize_t n;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, target, sizeof(target) - 1);
		if (n > 0 && (target[n] = '\0', strncmp(target, dir, strlen(dir)) == 0)) {
			check(fstat(fd, &st) == 0);
			if (S_ISDIR(st.st_mode))
				continue;
			check(st.st_nlink == 0 && (st.st_mode & 0777) == 0600);
			check(fcntl(fd, F_GETFD) == FD_CLOEXEC);
			return (uint64_t)st.st_blocks;
		}
	}
	die("no swap file");
	return 0;
}

static void
put_many(struct vm_pager *p, uint32_t chunks)
{
	for (uint32_t i = 0; i < chunks; i++)
		put_all(p, i * CHUNK, CHUNK, mix(4, i));
}

START_TEST(what_is_not_needed_is_given_back_to_the_file_system)
{
	const uint64_t batch = 64, chunk_blocks = CHUNK * PG / 512;
	struct vm_pager *p;
	uint64_t blocks, most;

	if (!setup_in(mkdtemp(dir), WAY(_i), 1 << 16))
		return;
	p = swap_pager_make(1 << 16);
	put_many(p, 300);
	blocks = blocks_of_unnamed();
	ck_assert_uint_ge(blocks, 300 * chunk_blocks);
	vm_pager_dispose(p, 0, 100 * CHUNK);
	vm_pager_dispose(p, 150 * CHUNK, 100 * CHUNK);
	check(counts().used == 100 * CHUNK);
	/* All but what does not make a batch: the first one may begin early, and take any number. */
	most = blocks - (200 - (batch - 1)) * chunk_blocks;
	for (int i = 0; blocks_of_unnamed() > most; i++) {
		if (i == 10000)
			die("the file keeps its %llu blocks", (unsigned long long)blocks_of_unnamed());
		usleep(1000);
	}
	for (uint32_t i = 100; i < 300; i++)
		if (i < 150 || i >= 250)
			get_all(p, i * CHUNK, CHUNK, mix(4, i));
	/* The slots can be had again, all of them. */
	put_many(p, 300);
	for (uint32_t i = 0; i < 300; i++)
		get_all(p, i * CHUNK, CHUNK, mix(4, i));
	handle_put(&p->handle);
	check(counts().used == 0);
	teardown();
}
END_TEST

START_TEST(what_is_used_again_is_not_punched)
{
	struct vm_pager *p, *q;

	started = false;
	if (!setup_in(mkdtemp(dir), engines[_i], 310 * CHUNK))
		return;
	p = swap_pager_make(1 << 16);
	q = swap_pager_make(1 << 16);
	put_many(p, 300);
	vm_pager_dispose(p, 0, 60 * CHUNK);		/* no batch */
	put_many(q, 60);				/* there is hardly any other room */
	vm_pager_dispose(p, 60 * CHUNK, 200 * CHUNK);
	handle_put(&p->handle);
	expect(usleep(20000), 0);
	for (uint32_t i = 0; i < 60; i++)
		get_all(q, i * CHUNK, CHUNK, mix(4, i));
	handle_put(&q->handle);
	teardown();
}
END_TEST

static _Atomic bool punch_held;

/* The slots are not free before this returns; on an I/O thread. */
static void
hold_punch(void)
{
	while (punch_held)
		usleep(1000);
}

START_TEST(a_slot_that_is_being_punched_is_given_to_nobody)
{
	struct vm_pager *p, *newcomer;
	uint32_t n = 0, done = 0;

	started = false;
	if (!setup_in(mkdtemp(dir), engines[_i], 200 * CHUNK))
		return;
	p = swap_pager_make(1 << 16);
	newcomer = swap_pager_make(1 << 16);
	put_many(p, 190);
	punch_held = true;
	at("swap: punched", 1, hold_punch);
	vm_pager_dispose(p, 0, 64 * CHUNK);		/* enough for a batch, which takes its time */
	vm_pager_dispose(p, 70 * CHUNK, 5 * CHUNK);	/* and behind it some that may be given */
	/* What is left is given, and then, for the moment, nothing. */
	for (; n < 40 * CHUNK; n++) {
		frame_fill(m[0], mix(6, n));
		if (vm_pager_put(newcomer, n, m, 1, &done) != VM_PAGER_OK)
			break;
	}
	ck_assert_uint_ge(n, 9 * CHUNK);
	ck_assert_uint_lt(n, 40 * CHUNK);
	punch_held = false;
	do {
		usleep(1000);
		frame_fill(m[0], mix(6, n));
	} while (vm_pager_put(newcomer, n, m, 1, &done) != VM_PAGER_OK);
	check(done == 1 && at_passed() != 0);
	at_end();
	for (uint32_t i = 0; i <= n; i++)
		get_all(newcomer, i, 1, mix(6, i));
	for (uint32_t i = 64; i < 190; i++)
		if (i < 70 || i >= 75)
			get_all(p, i * CHUNK, CHUNK, mix(4, i));
	handle_put(&p->handle);
	handle_put(&newcomer->handle);
	teardown();
}
END_TEST

START_TEST(a_file_system_that_cannot_punch_is_asked_once)
{
	struct vm_pager *p;
	uint32_t done;

	started = false;
	/* No more than is put: it can only be put again when the punching has ended. */
	if (!setup_in(mkdtemp(dir), engines[_i], 100 * CHUNK + 1))
		return;
	p = swap_pager_make(1 << 16);
	go_wrong(SYS_CALL_FALLOCATE, 0, 1, -EOPNOTSUPP, NULL);
	for (int k = 0; k < 3; k++) {
		for (uint32_t i = 0; i < 100 * CHUNK; i++)
			while (vm_pager_put(p, i, m, 1, &done) == VM_PAGER_AGAIN)
				usleep(1000);
		vm_pager_dispose(p, 0, 100 * CHUNK);
		while (plan.skip == 0)
			usleep(1000);
	}
	ck_assert_int_eq(plan.skip, -1);
	handle_put(&p->handle);
	teardown();
}
END_TEST

/*
 * Everything at random, against a model
 */

enum { PAGERS = 4, PAGES = 160, MAYBE = 1 };	/* MAYBE: a put has failed; the page is in memory */

static uint64_t keys[PAGERS][PAGES], dice;

static int
chaos(enum sys_call which)
{
	uint64_t x;

	if (which != SYS_CALL_PREADV && which != SYS_CALL_PWRITEV && which != SYS_CALL_FALLOCATE)
		return 0;
	x = mix(17, dice++);
	if (x % 8 != 0)
		return 0;
	switch (x / 8 % 4) {
	case 0:		return which == SYS_CALL_PWRITEV ? -ENOSPC : -EIO;
	case 1:		return -EAGAIN;
	case 2:		return which == SYS_CALL_FALLOCATE ? 0 : 1 + (int)(x / 32 % 100000);
	default:	return -EINTR;
	}
}

START_TEST(random_operations_agree_with_the_model)
{
	struct vm_pager *p[PAGERS];
	uint64_t seed = (uint64_t)_i + 1, births = 100;
	bool faults = _i / 4 % 2 != 0;

	if (!setup(WAY(_i), PAGERS * PAGES / 2))		/* it fills up */
		return;
	memset(keys, 0, sizeof(keys));
	for (size_t k = 0; k < PAGERS; k++)
		p[k] = swap_pager_make(PAGES);
	sys_inject = faults ? chaos : NULL;
	for (unsigned op = 0; op < (SANITIZED ? 1500 : 4000); op++) {
		size_t k = rng_next(&seed) % PAGERS, l = rng_next(&seed) % PAGERS;
		uint32_t at = (uint32_t)(rng_next(&seed) % PAGES), to, done = 0;
		uint32_t n = 1 + (uint32_t)(rng_next(&seed) % (op % 2 == 0 ? 3 : 64));
		enum vm_pager_result r;

		n = MIN(n, PAGES - at);
		switch (rng_next(&seed) % 10) {
		case 0: case 1: case 2: case 3:
			for (uint32_t i = 0; i < n; i++)
				frame_fill(m[i], births + i);
			r = transfer(true, p[k], at, m, n, &done);
			check(r == VM_PAGER_OK || r == VM_PAGER_AGAIN || faults);
			for (uint32_t i = 0; i < n; i++)
				keys[k][at + i] = i < done ? births + i : MAYBE;
			births += n;
			break;
		case 4: case 5: case 6:
			if (keys[k][at] == MAYBE)
				break;
			r = transfer(false, p[k], at, m, n, &done);
			check(faults || r == (keys[k][at] != 0 ? VM_PAGER_OK : VM_PAGER_FAIL));
			check(keys[k][at] != 0 || r == VM_PAGER_FAIL);
			for (uint32_t i = 0; i < done && keys[k][at + i] != MAYBE; i++)
				frame_check(m[i], keys[k][at + i]);
			break;
		case 7:
			vm_pager_dispose(p[k], at, n);
			memset(&keys[k][at], 0, n * sizeof(keys[k][0]));
			break;
		case 8:
			to = (uint32_t)(rng_next(&seed) % PAGES);
			if (k == l || keys[k][at] <= MAYBE || keys[l][to] != 0)
				break;
			check(p[l]->ops->move(p[l], to, p[k], at));
			keys[l][to] = keys[k][at];
			keys[k][at] = 0;
			break;
		default:
			if (rng_next(&seed) % 8 != 0)
				break;
			handle_put(&p[k]->handle);
			p[k] = swap_pager_make(PAGES);
			memset(keys[k], 0, sizeof(keys[k]));
		}
		for (uint32_t i = 0; i < PAGES; i++)
			check(keys[k][i] == MAYBE || vm_pager_has_page(p[k], i) == (keys[k][i] != 0));
	}
	for (size_t k = 0; k < PAGERS; k++)
		handle_put(&p[k]->handle);
	check(counts().used == 0);
	teardown();
}
END_TEST

/*
 * Threads, each with a pager of its own, and slots of all
 */

enum { TEAM = 4, TEAM_PAGES = 128 };

struct member {
	pthread_t thread;
	struct vm_page **m;
	uint64_t seed;
};

static void *
play(void *arg)
{
	struct member *t = arg;
	uint64_t key[TEAM_PAGES] = { 0 };
	struct vm_pager *p;
	sys_sigset_t old;
	uint32_t done;

	trap_enter(&old);
	p = swap_pager_make(TEAM_PAGES);
	for (unsigned op = 0; op < 1500; op++) {
		uint32_t at = (uint32_t)(rng_next(&t->seed) % TEAM_PAGES), n = 1 + op % 8;

		n = MIN(n, TEAM_PAGES - at);
		switch (op % 3) {
		case 0:
			for (uint32_t i = 0; i < n; i++)
				frame_fill(t->m[i], key[at + i] = rng_next(&t->seed));
			for (uint32_t i = 0; i < n; i += done)
				check(vm_pager_put(p, at + i, t->m + i, n - i, &done) == VM_PAGER_OK);
			break;
		case 1:
			if (vm_pager_get(p, at, t->m, n, &done) == VM_PAGER_OK)
				for (uint32_t i = 0; i < done; i++)
					frame_check(t->m[i], key[at + i]);
			else
				check(key[at] == 0);
			break;
		default:
			vm_pager_dispose(p, at, n / 2);
			memset(&key[at], 0, n / 2 * sizeof(key[0]));
		}
	}
	handle_put(&p->handle);
	trap_leave(&old);
	return NULL;
}

START_TEST(threads_never_get_each_other_s_slots)
{
	struct member team[TEAM];

	if (!setup(WAY(_i), TEAM * TEAM_PAGES + 1))
		return;
	for (size_t i = 0; i < TEAM; i++) {
		team[i] = (struct member){ .m = m + i * FRAMES / TEAM, .seed = i + 1 };
		check(pthread_create(&team[i].thread, NULL, play, &team[i]) == 0);
	}
	for (size_t i = 0; i < TEAM; i++)
		check(pthread_join(team[i].thread, NULL) == 0);
	check(counts().used == 0);
	teardown();
}
END_TEST

static struct vm_pager *ends[2];
static _Atomic bool stopped, released;

/* Page k from the one to the other. */
static void *
carry(void *arg)
{
	size_t k = (size_t)(uintptr_t)arg;
	sys_sigset_t old;

	trap_enter(&old);
	check(ends[k]->ops->move(ends[k], 2 + k, ends[!k], k));
	trap_leave(&old);
	return NULL;
}

static void
stop_moving(void)
{
	stopped = true;
	while (!released)
		usleep(1000);
}

START_TEST(pages_that_move_against_each_other_pass)
{
	pthread_t thread[2];

	started = false;
	if (!setup(engines[1], 1024))
		return;
	for (size_t k = 0; k < 2; k++)
		ends[k] = swap_pager_make(4);
	put_all(ends[1], 0, 1, 100);
	put_all(ends[0], 1, 1, 101);
	stopped = released = false;
	at("swap: moving", 1, stop_moving);
	check(pthread_create(&thread[0], NULL, carry, (void *)(uintptr_t)(_i == 0)) == 0);
	while (!stopped)
		usleep(1000);
	check(pthread_create(&thread[1], NULL, carry, (void *)(uintptr_t)(_i != 0)) == 0);
	usleep(20000);				/* it waits for the first one, or holds what that needs */
	released = true;
	for (size_t k = 0; k < 2; k++)
		check(pthread_join(thread[k], NULL) == 0);
	at_end();
	get_all(ends[0], 2, 1, 100);
	get_all(ends[1], 3, 1, 101);
	for (size_t k = 0; k < 2; k++)
		handle_put(&ends[k]->handle);
	teardown();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("swap");
	TCase *tc = tcase_create("slots");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, neighbours_that_leave_one_by_one_come_back_together, 0, WAYS);
	tcase_add_loop_test(tc, a_transfer_ends_where_its_block_does_if_the_next_lives_elsewhere, 0, WAYS);
	tcase_add_loop_test(tc, the_file_grows_with_its_use, 0, 2);
	tcase_add_loop_test(tc, full_swap_takes_no_more_until_there_is_room, 0, WAYS);
	tcase_add_loop_test(tc, disposed_and_moved_pages_are_not_there, 0, WAYS);
	suite_add_tcase(s, tc);
	tc = tcase_create("faults");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, a_page_is_there_when_it_is_written_and_not_before, 0, WAYS);
	tcase_add_loop_test(tc, a_write_that_fails_goes_elsewhere_next_time, 0, WAYS);
	tcase_add_loop_test(tc, what_was_written_before_the_error_counts, 0, WAYS);
	tcase_add_loop_test(tc, a_neighbour_that_cannot_be_read_harms_nobody_else, 0, WAYS);
	tcase_add_loop_test(tc, without_memory_nothing_is_lost, 0, 2);
	suite_add_tcase(s, tc);
	tc = tcase_create("room");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, what_is_not_needed_is_given_back_to_the_file_system, 0, WAYS);
	tcase_add_loop_test(tc, what_is_used_again_is_not_punched, 0, 2);
	tcase_add_loop_test(tc, a_slot_that_is_being_punched_is_given_to_nobody, 0, 2);
	tcase_add_loop_test(tc, a_file_system_that_cannot_punch_is_asked_once, 0, 2);
	suite_add_tcase(s, tc);
	tc = tcase_create("random");
	tcase_set_timeout(tc, 100);
	tcase_add_loop_test(tc, random_operations_agree_with_the_model, 0, 16);
	tcase_add_loop_test(tc, threads_never_get_each_other_s_slots, 0, 2);
	tcase_add_loop_test(tc, pages_that_move_against_each_other_pass, 0, 2);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
