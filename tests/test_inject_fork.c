/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Every system call on the way of a fork is refused, each in turn.
 *
 * There is memory of all kinds: in frames, in private views, in a snapshot, in swap, wired and held.  The calls number
 * n, n + 1, ... of one kind are refused while the process forks, for n = 1, 2, ..., until a fork makes fewer.
 *
 *	in the parent	fork() fails with ENOMEM or EAGAIN, there is no child, and the parent is as it was: all bytes, its
 *			descriptors, and the next fork() works; or it succeeds, and both are right
 *	in the child	it is right, or has ended with status 127 before it saw anything; it may be told that there is no
 *			memory, until there is; the parent is as it was
 */

#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>

#include "forks.h"
#include "kern/sys.h"
#include "pmap.h"

enum { LEAF = PMAP_LEAF_PAGES, BIG = 4 * LEAF + 5, SMALL = 256, FRAMES = 96, SWAP = 8192, GONE = 127, STEP = 7,
	DENSE = 25 };

/* Seen by parent and child. */
static struct {
	enum sys_call kind;
	int result;
	unsigned first, count;
	pid_t whose;			/* whose calls are counted; 0: the child's */
	_Atomic bool armed;
	_Atomic unsigned calls, fired;
} *plan;

static pid_t parent;
static char *mem;
static size_t pages;
static uint64_t *live, *then;
static vmf_snapshot_t shot;

static int
inject(enum sys_call kind)
{
	unsigned n;

	if (kind != plan->kind || !plan->armed || (getpid() == parent) != (plan->whose != 0))
		return 0;
	n = atomic_fetch_add(&plan->calls, 1) + 1;
	if (n < plan->first || n - plan->first >= plan->count)
		return 0;
	plan->fired++;
	return plan->result;
}

static void
say(void)
{
	fprintf(stderr, "%s: kind %d, result %d, calls %u + %u\n", plan->whose != 0 ? "in the parent" : "in the child",
	    plan->kind, plan->result, plan->first, plan->count);
}

static void
poke(size_t i)
{
	live[i]++;
	fill_ends(mem + i * PG, mix(i, live[i]));
}

static void
check_all(void)
{
	char buf[VMF_PAGE_SIZE];

	for (size_t i = 0; i < pages; i++)
		check_ends("memory", mem + i * PG, i, mix(i, live[i]));
	for (size_t i = 0; i < pages; i += 3) {
		expect(vmf_snapshot_read(shot, 0, i * PG, buf, PG), 0);
		check_ends("a snapshot", buf, i, mix(i, then[i]));
	}
}

/* A part of them, so that there is something to take along that is not as it was at the last fork. */
static void
poke_some(void)
{
	for (size_t i = plan->first % STEP; i < pages; i += STEP)
		poke(i);
}

/* => what is held without all that */
static struct held
begin_with(bool swapping)
{
	struct held none;

	begin_forks_by(true, swapping ? FRAMES : 0, swapping ? SWAP : 0, 0);
	none = held_now();
	pages = swapping ? SMALL : BIG;
	live = calloc(pages, sizeof(*live));
	then = calloc(pages, sizeof(*then));
	check(live != NULL && then != NULL);
	mem = alloc(pages);
	for (size_t i = 0; i < pages; i++)
		poke(i);
	shot = snap(mem, pages);
	memcpy(then, live, pages * sizeof(*then));
	expect(vmf_wire(mem + 3 * PG, 2 * PG), 0);
	expect(vmf_fault_in(mem + 9 * PG, PG, VMF_PROT_WRITE), 0);
	check_all();
	return none;
}

static void
end_with(struct held none)
{
	expect(vmf_fault_release(mem + 9 * PG, PG), 0);
	expect(vmf_unwire(mem + 3 * PG, 2 * PG), 0);
	expect(vmf_snapshot_release(shot), 0);
	expect(vmf_unmap(mem, pages * PG), 0);
	expect_no_children();
	expect_held(none);
	stop();
	free(live);
	free(then);
}

/* A page that cannot be had for now is no wrong one. */
static bool
again(int signo, int code, const void *addr)
{
	return signo == SIGBUS && code == BUS_OBJERR && plan->armed && plan->fired != 0;
}

/* => its wait status; all of it was right there, if it was there */
static int
fork_and_wait(void)
{
	pid_t pid;
	int status;

	plan->armed = true;
	pid = try_fork();
	if (pid == 0) {
		/* What it brings over as it is touched is a part of the fork, too. */
		on_stray = again;
		check_all();
		plan->armed = false;
		poke_some();
		check_all();
		audit();
		_exit(0);
	}
	if (plan->whose != 0)
		plan->armed = false;
	if (pid < 0) {
		check(plan->fired != 0 && plan->whose != 0);
		check(pid == -ENOMEM || pid == -EAGAIN);
		expect_no_children();
		return 0;
	}
	check(waitpid(pid, &status, 0) == pid);
	plan->armed = false;
	return status;
}

static void
attempt(void)
{
	unsigned fds = count_fds();
	int status;

	plan->calls = plan->fired = 0;
	poke_some();
	sys_inject = inject;
	status = fork_and_wait();
	sys_inject = NULL;
	if (plan->whose == 0 && plan->fired != 0 && WIFEXITED(status) && WEXITSTATUS(status) == GONE)
		status = 0;
	expect_exit(status, 0);
	expect_fds(fds);
	check_all();
	if (plan->first < 4)
		audit();
}

/* The strides are for time: where there are many calls they are all alike. */
static void
all_calls(pid_t whose, enum sys_call kind, int result, unsigned count)
{
	unsigned calls, fired = 0;

	plan->whose = whose;
	plan->kind = kind;
	plan->result = result;
	plan->count = count;
	plan->first = 1;
	do {
		attempt();
		calls = plan->calls;
		fired += plan->fired;
		plan->first += plan->first < DENSE && count < 100 ? 1 : 1 + calls / 8;
	} while (plan->first <= calls);
	/* And with none refused it works. */
	plan->count = 0;
	attempt();
	check(fired != 0 || calls == 0);
}

static const struct row {
	enum sys_call kind;
	int result;
	unsigned count;
} rows[] = {
	{ SYS_CALL_MMAP, -ENOMEM, 1 }, { SYS_CALL_MMAP, -ENOMEM, 5 }, { SYS_CALL_MPROTECT, -ENOMEM, 1 },
	{ SYS_CALL_MPROTECT, -ENOMEM, 20 }, { SYS_CALL_MUNMAP, -ENOMEM, 1 }, { SYS_CALL_MREMAP, -ENOMEM, 1 },
	{ SYS_CALL_MREMAP, -EINVAL, 1000 }, { SYS_CALL_MADVISE, -ENOMEM, 1 }, { SYS_CALL_MADVISE, -EINVAL, 1000 },
	{ SYS_CALL_MEMFD, -EMFILE, 1 }, { SYS_CALL_MEMFD, -ENOMEM, 1000 }, { SYS_CALL_FTRUNCATE, -ENOSPC, 1 },
	{ SYS_CALL_FTRUNCATE, -EINTR, 2 }, { SYS_CALL_FALLOCATE, -EIO, 1 }, { SYS_CALL_FALLOCATE, -EINTR, 2 },
	{ SYS_CALL_PREAD, -EIO, 1 }, { SYS_CALL_PREAD, 8, 1 }, { SYS_CALL_PREAD, -EINTR, 2 },
	{ SYS_CALL_PWRITE, -ENOSPC, 1 }, { SYS_CALL_PWRITE, 512, 1 }, { SYS_CALL_PWRITE, -ENOMEM, 150 },
	{ SYS_CALL_OPEN, -ENFILE, 1 }, { SYS_CALL_READ, -EIO, 1 }, { SYS_CALL_STAT, -EIO, 1 },
	{ SYS_CALL_EVENTFD, -EMFILE, 1 }, { SYS_CALL_FCNTL, -EMFILE, 1 }, { SYS_CALL_PIPE, -EMFILE, 1 },
	{ SYS_CALL_PIPE, -ENFILE, 1000 },
};

static void
refuse(const struct row *row, bool swapping, bool in_child)
{
	struct held none;

	plan = mmap(NULL, sizeof(*plan), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(plan != MAP_FAILED);
	parent = getpid();
	on_die = say;
	none = begin_with(swapping);
	all_calls(in_child ? 0 : parent, row->kind, row->result, row->count);
	end_with(none);
}

START_TEST(refused_in_the_parent)
{
	refuse(&rows[_i / 2], _i % 2, false);
}
END_TEST

START_TEST(refused_in_the_child)
{
	refuse(&rows[_i / 2], _i % 2, true);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("inject/fork");
	TCase *tc = tcase_create("every call");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, refused_in_the_parent, 0, 2 * (int)nitems(rows));
	tcase_add_loop_test(tc, refused_in_the_child, 0, 2 * (int)nitems(rows));
	suite_add_tcase(s, tc);
	return run_suite(s);
}
